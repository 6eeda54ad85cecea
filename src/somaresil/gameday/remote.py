"""Services in other processes, driven through their control apps: one address an instance, all of them as one target.

Every request has an end, a bound on its answer and no redirects; what is safe to repeat is repeated once. An instance that cannot be
reached keeps all of them unarmed. The faults are leases of the services, so they end by themselves when whoever plays is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from somaresil.clock import SystemClock
from somaresil.config import Checker
from somaresil.errors import ConfigurationError, Problem, describe
from somaresil.gameday.codec import plain, restored
from somaresil.gameday.figures import Figures, Objective, Outage, Tally
from somaresil.gameday.target import FaultStatus, InProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from somaresil.chaos.plan import ChaosPlan
    from somaresil.gameday.groups import Groups
    from somaresil.resilience import Resilience
    from somaresil.typing import Clock

__all__ = ["Remote", "RemoteTarget", "figures_of"]

TIMEOUT: Final = 5.0
"""Seconds from the first byte of a request to the last of its answer."""
LARGEST: Final = 4_194_304
"""Bytes of an answer that are read."""
_LONGEST_SAID: Final = 200
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,512}=*")
_ENVIRONMENT: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,119}")


def figures_of(resilience: Resilience) -> Callable[[], Awaitable[Any]]:
    """What ``chaos_control(figures=)`` needs, so that game days elsewhere can read what this process counts.

    Attempts are not told (they are only counted while a game day watches in the process), so a report has no amplification by retries.
    """
    source = InProcess(resilience)

    async def read() -> Any:
        return plain(await source.read())

    return read


@dataclass(frozen=True, slots=True)
class Remote:
    """The control app of one process, as a plan names it. The token itself is never part of a plan.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    url: str
    """Where the app is mounted: ``https://gateway-1.example/_soma/chaos``. One process behind it, not a pool of them."""
    token_env: str | None = None
    """The environment variable that has the bearer token."""
    token_file: str | None = None
    """The file that has it; exactly one of both is needed."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        if not _is_address(self.url):
            # Not shown: it may be one with a password in it.
            check.problem("url", "an address", "http:// or https://, a host and a path, without user, query or fragment")
        if (self.token_env is None) == (self.token_file is None):
            check.problem("token_env", "both or none", "either token_env or token_file")
        if self.token_env is not None and (not isinstance(self.token_env, str) or not _ENVIRONMENT.fullmatch(self.token_env)):
            # Not shown: whoever misread this has put the token there.
            check.problem("token_env", "what was given", "the name of an environment variable", "not the token itself")
        if self.token_file is not None and (not isinstance(self.token_file, str) or not self.token_file):
            check.problem("token_file", "what was given", "the path of a file")
        check.finish()

    def as_dict(self) -> dict[str, str]:
        """For TOML, YAML and JSON."""
        pairs = {"url": self.url, "token_env": self.token_env, "token_file": self.token_file}
        return {name: value for name, value in pairs.items() if value is not None}

    def token(self, check: Checker) -> str:
        """Read it; empty, and a problem, when it is not there."""
        where, found = "token_env", ""
        if self.token_env is not None:
            found = os.environ.get(self.token_env, "").strip()
        elif self.token_file is not None:
            where = "token_file"
            with contextlib.suppress(OSError, ValueError):
                found = Path(self.token_file).read_text(encoding="ascii").strip()
        if not _TOKEN.fullmatch(found):
            check.problem(where, getattr(self, where), "a bearer token in it", "it is not there, empty, or has other characters")
            return ""
        return found


def _is_address(url: object) -> bool:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    plain_url = not parts.query and not parts.fragment and "@" not in parts.netloc
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and plain_url


class _Instance:
    """One control app. Its methods block, for at most :data:`TIMEOUT` seconds a request."""

    def __init__(self, remote: Remote, token: str, timeout: float) -> None:
        self.url = remote.url.rstrip("/")
        self._parts = urlsplit(self.url)
        self._token = token
        self._timeout = timeout
        self.ids: tuple[str, ...] = ()
        self.live = False
        """Whether faults may be armed there that have not been stopped."""
        self.process: object = None
        self._before: set[str] | None = None
        """What there was before the plan; None: nothing was sent."""
        self._lock = threading.Lock()
        """One arms or disarms at a time: what is ended while it is armed is ended after it."""

    def ask(self, method: str, path: str, data: object = None, *, repeat: bool) -> tuple[int, Any]:
        """Status and JSON of the answer. Raises ``OSError``; ``repeat``: once more when the first try gets no answer or a 5xx."""
        try:
            status, said = self._ask(method, path, data)
        except OSError:
            if not repeat:
                raise
            status, said = self._ask(method, path, data)
        else:
            if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR and repeat:
                status, said = self._ask(method, path, data)
        if status == http.HTTPStatus.NOT_FOUND:
            raise OSError(f"{self.url}: no control app there, or it does not know the token, or has no {path.partition('?')[0]}")
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or (not 200 <= status < 300 and not isinstance(said, dict)):  # noqa: PLR2004
            raise OSError(f"{self.url}: it answered {status}")
        if not isinstance(said, dict):
            raise OSError(f"{self.url}: its answer is no JSON object")
        return status, said

    def _ask(self, method: str, path: str, data: object) -> tuple[int, Any]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)
        headers = {"authorization": f"Bearer {self._token}", "accept": "application/json", "connection": "close"}
        body = None
        if method == "POST":
            headers["content-type"] = "application/json"
            body = b"" if data is None else json.dumps(data).encode()
        begun = time.monotonic()
        timer = None
        try:
            connection.connect()
            # The socket itself: the connection forgets it once the head of an answer says that it will close.
            timer = threading.Timer(max(0.0, self._timeout - (time.monotonic() - begun)), _cut, (connection.sock,))
            timer.daemon = True
            timer.start()
            connection.request(method, self._parts.path + path, body, headers)
            with connection.getresponse() as answer:
                status, raw = answer.status, answer.read(LARGEST + 1)
        except (OSError, http.client.HTTPException, ValueError) as broken:
            # The name of the kind alone: what a library says may repeat what was sent.
            raise OSError(f"{self.url}: {type(broken).__name__}") from None
        finally:
            if timer is not None:
                timer.cancel()
            connection.close()
        if len(raw) > LARGEST:
            raise OSError(f"{self.url}: its answer has more than {LARGEST} bytes")
        try:
            return status, json.loads(raw.decode().replace(self._token, "***"))
        except (ValueError, RecursionError):
            return status, None

    def offer(self, path: str, plan: ChaosPlan) -> Any:
        """Send a plan; raises :class:`ConfigurationError` with the problems that are told."""
        status, said = self.ask("POST", path, plan.as_dict(), repeat=path == "/check")
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise ConfigurationError(_problems(said, status))
        return said

    def arm(self, plan: ChaosPlan, halted: Callable[[], bool]) -> None:
        """Start a plan; when nobody knows whether it was started, whatever is new there is taken for it."""
        with self._lock:
            if halted():
                raise OSError("it was ended while it was being armed")
            self._before = self._known()
            try:
                said = self.offer("/experiments", plan)
            except ConfigurationError:
                self._before = None
                raise
            listed = said.get("ids")
            ids = [each for each in listed if isinstance(each, str) and _IDENTITY.fullmatch(each)] if isinstance(listed, list) else []
            if len(ids) != len(plan.windows):
                raise OSError(f"{self.url}: it did not say what it has started")
            self.ids = tuple(ids)

    def _known(self) -> set[str]:
        listed = self.get("/experiments").get("experiments")
        found = [each.get("id") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
        return {each for each in found if isinstance(each, str) and _IDENTITY.fullmatch(each)}

    def disarm(self) -> None:
        """Stop what was started; all are tried, and the last that went wrong is raised."""
        with self._lock:
            if self.live and self._before is not None:
                wrong: OSError | None = None
                for identity in self.ids or sorted(self._known() - self._before):
                    try:
                        # Stopping twice is stopping.
                        self._accepted(*self.ask("POST", f"/experiments/{identity}/stop", repeat=True))
                    except OSError as broken:
                        wrong = broken
                if wrong is not None:
                    raise wrong
            self.live = False

    def get(self, path: str) -> Any:
        """The object at ``path``."""
        return self._accepted(*self.ask("GET", path, repeat=True))

    def _accepted(self, status: int, said: Any) -> Any:
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise OSError(f"{self.url}: it answered {status}")
        return said

    def prepare(self) -> None:
        """Forget the plan before."""
        self.ids, self._before, self.live = (), None, True

    def statuses(self) -> list[FaultStatus]:
        """How each window stands."""
        found = []
        for identity in self.ids:
            said = self.get(f"/experiments/{identity}")
            injected, reason = said.get("injected"), said.get("end_reason")
            known = isinstance(injected, int) and (reason is None or isinstance(reason, str))
            if not known:
                raise OSError(f"{self.url}: an experiment without its counts")
            found.append(FaultStatus(int(str(injected)), said.get("state") == "running", reason))
        return found

    def figures(self) -> Figures:
        """What it has counted. Raises ``OSError`` when another process answers than before."""
        said = self.get("/figures")
        if self.process is None:
            self.process = said.get("process")
        elif said.get("process") != self.process:
            raise OSError(f"{self.url}: another process answers; it was restarted, or there are several behind one address")
        check = Checker("figures")
        found = restored(Figures, said.get("figures"), check)
        if found is None:
            raise OSError(f"{self.url}: its figures cannot be read: {check.problems[0] if check.problems else 'nothing there'}")
        return found


_IDENTITY: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")


def _cut(held: socket.socket) -> None:
    """End a request whose answer trickles."""
    with contextlib.suppress(OSError, ValueError):
        held.shutdown(socket.SHUT_RDWR)


def _problems(said: Mapping[str, Any], status: int) -> list[Problem]:
    listed = said.get("problems")
    found = [
        Problem(*(str(each.get(name, ""))[:_LONGEST_SAID] for name in ("path", "value", "allowed", "hint")))
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, Mapping)
    ]
    return found or [Problem("", f"answer {status}", "a plan that is accepted", str(said.get("detail", ""))[:_LONGEST_SAID])]


class RemoteTarget:
    """Several instances behind their control apps, as one :class:`~somaresil.gameday.Target`: counts are added up.

    Groups need the process itself and are refused. What is left of an error budget is that of the instance with the least. Raises
    :class:`~somaresil.errors.ConfigurationError` when there is no instance, one stands there twice, or a token cannot be read.
    """

    def __init__(self, remotes: Iterable[Remote], *, clock: Clock | None = None, timeout: float = TIMEOUT) -> None:
        """Nothing is sent yet. ``timeout``: seconds a request."""
        check = Checker("gameday")
        listed = tuple(remotes)
        if not listed:
            check.problem("targets", "none", "at least one")
        if len({each.url.rstrip("/") for each in listed}) < len(listed):
            check.problem("targets", "the same address twice", "each once")
        check.number("timeout", timeout, minimum=0.0, exclusive=True)
        tokens = [each.token(check.child(f"targets[{number}]")) for number, each in enumerate(listed)]
        check.finish()
        self._instances = tuple(_Instance(each, token, timeout) for each, token in zip(listed, tokens, strict=True))
        self._clock = SystemClock() if clock is None else clock
        self._halts = 0

    def __repr__(self) -> str:
        """Where they are."""
        return f"<RemoteTarget {self.name}>"

    @property
    def name(self) -> str:
        """The addresses."""
        return ", ".join(each.url for each in self._instances)

    @property
    def clock(self) -> Clock:
        """That of whoever plays."""
        return self._clock

    @property
    def seed(self) -> str:
        """None: there are no groups."""
        return ""

    async def open(self) -> None:
        """Find out that all of them can be read."""
        await self.read()

    async def close(self) -> None:
        """End what runs."""
        await self.stop()

    async def check(self, plan: ChaosPlan, groups: Groups | None) -> None:
        """Ask all of them; one that cannot be reached is a problem like any other."""
        found = []
        if groups is not None:
            found.append(Problem("groups", "groups", "none", "they need the process itself: run the game day in it"))
        for number, answer in enumerate(await self._all(lambda each: each.offer("/check", plan))):
            where = f"targets[{number}]"
            if isinstance(answer, ConfigurationError):
                found += [Problem(f"{where}.{each.path}", each.value, each.allowed, each.hint) for each in answer.problems]
            elif isinstance(answer, OSError):
                found.append(Problem(where, self._instances[number].url, "a control app that answers", str(answer)))
            elif isinstance(answer, BaseException):
                raise answer
        if found:
            raise ConfigurationError(found)

    async def start(self, plan: ChaosPlan, groups: Groups | None, name: str) -> None:  # noqa: ARG002 - of the protocol
        """Arm all of them, or none: what was armed is stopped again when one refuses or is lost."""
        await self.check(plan, groups)
        halts = self._halts
        for each in self._instances:
            each.prepare()
        try:
            answers = await self._all(lambda each: each.arm(plan, lambda: self._halts != halts))
        except BaseException:
            self.halt()
            raise
        wrong = next((answer for answer in answers if isinstance(answer, BaseException)), None)
        if wrong is None and self._halts != halts:
            wrong = OSError("it was ended while it was being armed")
        if wrong is not None:
            with contextlib.suppress(OSError):
                await self.stop()
            raise wrong

    async def stop(self) -> None:
        """End it on all of them; every one is tried before ``OSError`` is raised."""
        _raise(await self._all(lambda each: each.disarm()))

    def halt(self) -> None:
        """From a thread of its own an instance, which the process waits for when it ends."""
        self._halts += 1
        for each in self._instances:
            if each.live:
                # A process that starts no threads any more has the leases left.
                with contextlib.suppress(RuntimeError):
                    threading.Thread(target=_disarm, args=(each,), name="somaresil-gameday-halt").start()

    async def status(self) -> tuple[FaultStatus, ...]:
        """Injections added up; live as long as one of them is."""
        answers = _raise(await self._all(lambda each: each.statuses()))
        return tuple(_joined(stands) for stands in zip(*answers, strict=False))

    async def read(self) -> Figures:
        """Of all of them, added up."""
        read = _raise(await self._all(lambda each: each.figures()))
        return _summed(read, [each.url for each in self._instances], self._clock.monotonic())

    async def _all(self, ask: Callable[[_Instance], Any]) -> list[Any]:
        return await asyncio.gather(*(asyncio.to_thread(ask, each) for each in self._instances), return_exceptions=True)


def _raise(answers: list[Any]) -> list[Any]:
    wrong = [answer for answer in answers if isinstance(answer, BaseException)]
    if len(wrong) > 1 and all(isinstance(each, OSError) for each in wrong):
        raise OSError("; ".join(describe(each) for each in wrong))
    if wrong:
        raise wrong[0]
    return answers


def _disarm(instance: _Instance) -> None:
    with contextlib.suppress(OSError):
        instance.disarm()


def _joined(stands: Iterable[FaultStatus]) -> FaultStatus:
    stands = tuple(stands)
    reasons = {each.end_reason for each in stands if each.end_reason is not None}
    over = all(each.end_reason is not None for each in stands)
    return FaultStatus(
        sum(each.injected for each in stands), any(each.live for each in stands), ", ".join(sorted(reasons)) if over else None
    )


def _summed(read: Iterable[Figures], urls: Iterable[str], at: float) -> Figures:
    guards: dict[str, Tally] = {}
    routes: dict[str, Tally] = {}
    objectives: dict[str, Objective] = {}
    outages: list[Outage] = []
    for figures, url in zip(read, urls, strict=True):
        for total, tallies in ((guards, figures.guards), (routes, figures.routes)):
            for name, tally in tallies.items():
                total[name] = total[name].plus(tally) if name in total else tally
        for name, one in figures.objectives.items():
            other = objectives.get(name)
            if other is None:
                objectives[name] = one
            else:
                known = [each.remaining for each in (one, other) if each.remaining is not None]
                objectives[name] = Objective(other.target, other.good + one.good, other.bad + one.bad, min(known, default=None))
        outages += [replace(outage, id=f"{url} {outage.id}") for outage in figures.outages]
    return Figures(at, guards, routes, objectives, tuple(outages))
