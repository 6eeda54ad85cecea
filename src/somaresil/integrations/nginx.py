"""nginx as the router of a canary: a file of weights that it includes, tested and reloaded.

    router = NginxWeights("/etc/nginx/canary.conf", stable="answer_v1", candidate="answer_v2", probe="http://127.0.0.1:8081/canary")

The file has a ``split_clients`` block, which sets a variable to the name of an upstream, and a ``map``, by which nginx says what it has
taken. The configuration includes it where ``http`` begins and uses both::

    http {
        include /etc/nginx/canary.conf;
        server { listen 80;             location / { proxy_pass http://$somaresil_upstream; } }
        server { listen 127.0.0.1:8081; location = /canary { return 200 $somaresil_order; } }
    }
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from somaresil.canary.render.proxies import check_nginx, split_clients
from somaresil.canary.router import RouterError
from somaresil.clock import SystemClock
from somaresil.config import Checker, to_seconds
from somaresil.integrations._weights import Order, Refused, WeightFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta

    from somaresil.typing import Clock

__all__ = ["NginxWeights"]

_POLL: Final = 0.02
_SETTLED: Final = 0.3
"""nginx lets the old workers accept connections for a tenth of a second after the new ones have begun."""
_ANSWER: Final = 200
_MOST_PIDS: Final = 32


class NginxWeights(WeightFile):
    """Moves traffic by a file that nginx includes.

    ``stable`` and ``candidate`` are names of upstreams. ``key`` says whose requests stay together, as variables of nginx (``$cookie_user``,
    ``$remote_addr``): whoever is with the candidate stays there while its share grows; by default each request goes by itself. With another
    ``salt`` other users are the first. ``variable`` is the beginning of the names of our variables.

    Each order writes the file in one step and runs ``test``; when nginx refuses its configuration, the former file is put back and nginx
    has not seen the new one. Then it is reloaded: by ``reload``, or by SIGHUP to the process in ``pid_file``. Requests that are under way
    are finished by the old workers. With ``probe``, a URL that returns ``$<variable>_order``, an order is done when nginx answers with it,
    within ``patience`` seconds, and ``status`` says what nginx really does; without, that ``test`` passed and the reload was asked for.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found. Orders raise
    :class:`~somaresil.canary.router.RouterError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        stable: str,
        candidate: str,
        key: str | None = None,
        salt: str = "",
        variable: str = "somaresil",
        test: Sequence[str] = ("nginx", "-t"),
        reload: Sequence[str] = ("nginx", "-s", "reload"),
        pid_file: str | os.PathLike[str] | None = None,
        probe: str | None = None,
        patience: float | timedelta = 10.0,
        clock: Clock | None = None,
    ) -> None:
        check = Checker("NginxWeights")
        check_nginx(check, stable, candidate, key, salt, variable)
        _command(check, "test", test)
        _command(check, "reload", reload)
        if probe is not None and (not isinstance(probe, str) or urlsplit(probe).scheme != "http" or not urlsplit(probe).hostname):
            check.problem("probe", probe, "an http:// URL, or None")
        check.seconds("patience", patience, minimum=0.1, exclusive=False, maximum=300.0)
        check.finish()
        super().__init__(Path(path))
        self._names = (stable, candidate, key, salt, variable)
        self._test, self._reload = tuple(test), tuple(reload)
        self._pid_file = None if pid_file is None else Path(pid_file)
        self._probe = probe
        self._patience = to_seconds(patience)
        self._clock: Clock = clock or SystemClock()

    def _text(self, order: Order) -> str:
        return split_clients(order.units, *self._names) + f"map $host ${self._names[4]}_order {{ default {order.number}.{order.units}; }}\n"

    def _take(self, order: Order) -> None:
        tested = self._run(self._test)
        if tested.returncode:
            raise Refused(f"nginx refuses its configuration with {self._path}, which was put back: {_last(tested.stderr or tested.stdout)}")
        self._tell(order)
        if self._probe is not None:
            self._await(order, self._probe)

    def _tell(self, order: Order) -> None:  # noqa: ARG002 - nginx reads the file
        if self._pid_file is not None:
            self._hang_up(self._pid_file)
            return
        told = self._run(self._reload)
        if told.returncode:
            raise RouterError(f"{' '.join(self._reload)} failed, is nginx running? {_last(told.stderr or told.stdout)}")

    def _taken(self, order: Order) -> Order:
        if self._probe is None:
            return order
        number, units = _ask(self._probe, self._patience)
        return order if (number, units) == (order.number, order.units) else replace(order, number=number, units=units)

    def _await(self, order: Order, probe: str) -> None:
        """Ask until only new workers answer."""
        never, begin = threading.Event(), self._clock.monotonic()
        since: float | None = None
        said: object = "nothing"
        while True:
            try:
                said = _ask(probe, self._patience)
            except RouterError as silent:
                said = silent
            now = self._clock.monotonic()
            since = None if said != (order.number, order.units) else now if since is None else since
            if since is not None and now - since >= _SETTLED:
                return
            if now - begin > self._patience:
                raise RouterError(
                    f"nginx was told to reload {self._patience:g} s ago and does not answer with order {order.number} at {probe}, but with "
                    f"{said}: its error log says why"
                )
            self._clock.wait(never, _POLL)

    def _run(self, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(  # noqa: S603 - the command is the operator's, and no shell reads it
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=self._patience, check=False
            )
        except subprocess.TimeoutExpired:
            raise RouterError(f"{' '.join(command)} took longer than {self._patience:g} s") from None
        except OSError as failed:
            raise RouterError(f"{command[0]} cannot be run: {failed.strerror or failed}") from failed

    def _hang_up(self, pid_file: Path) -> None:
        try:
            with pid_file.open(encoding="ascii") as file:
                pid = int(file.read(_MOST_PIDS))
        except (OSError, ValueError) as failed:
            raise RouterError(f"{pid_file}: nginx cannot be told to reload: {failed}") from failed
        if pid <= 1:
            raise RouterError(f"{pid_file}: nginx cannot be told to reload: {pid} is no process of nginx")
        try:
            os.kill(pid, signal.SIGHUP)
        except OSError as failed:
            raise RouterError(f"{pid_file}: process {pid} cannot be told to reload: {failed.strerror or failed}") from failed


def _ask(probe: str, patience: float) -> tuple[int, int]:
    """The number and the units of the order that nginx has taken."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(probe, headers={"Connection": "close"})  # noqa: S310 - the scheme was checked
    try:
        with opener.open(request, timeout=min(patience, 2.0)) as answer:
            text = answer.read(_ANSWER).decode("ascii").strip()
        number, _, units = text.partition(".")
        return int(number), int(units)
    except (OSError, http.client.HTTPException, ValueError) as failed:
        raise RouterError(f"{probe}: nginx does not say which order it has taken: {failed}") from failed


def _command(check: Checker, name: str, value: Any) -> None:
    if not isinstance(value, list | tuple) or not value or not all(isinstance(part, str) and part for part in value):
        check.problem(name, value, "a command as a list of words", "no shell reads it")


def _last(text: str) -> str:
    """What matters of what a command wrote: its last lines but the summary."""
    lines = [line for line in text.strip().splitlines() if line]
    return " | ".join(lines[-3:])[:500] or "it says nothing"
