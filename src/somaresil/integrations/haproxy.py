"""HAProxy as the router of a canary: a map file that it reads at its start, and the same entry set while it runs.

    router = HAProxyWeights("/etc/haproxy/canary.map", name="answer", socket="/run/haproxy/admin.sock")

The frontend looks the share up for each request, in parts of 10,000, and draws a number below it or not::

    http-request set-var(txn.somaresil) str(answer),map_str_int(/etc/haproxy/canary.map,0)
    use_backend candidate if { rand(10000),sub(txn.somaresil) lt 0 }
    default_backend stable

Nothing is reloaded, so no connection ends for it, and a reload by somebody else reads the same share from the file. Without an entry the
candidate gets nothing.
"""

from __future__ import annotations

import socket as sockets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.canary.render.proxies import UNITS, check_haproxy
from somaresil.canary.router import RouterError
from somaresil.config import Checker, to_seconds
from somaresil.integrations._weights import Order, WeightFile

if TYPE_CHECKING:
    import os
    from datetime import timedelta

__all__ = ["HAProxyWeights"]

_LARGEST_ANSWER: Final = 65_536


class HAProxyWeights(WeightFile):
    """Moves traffic by an entry of a map file, which HAProxy is told at its stats socket.

    ``name`` is the key of the entry. ``map_file`` is the file as HAProxy's configuration calls it, by default ``path``. Without ``socket``
    the file alone is written, and HAProxy has the share after its next reload.

    Each order writes the file in one step, sets the entry, and reads it back; ``status`` says what HAProxy really has. ``patience`` is how
    many seconds the socket may take. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found. Orders raise
    :class:`~somaresil.canary.router.RouterError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str,
        socket: str | os.PathLike[str] | None,
        map_file: str | None = None,
        patience: float | timedelta = 5.0,
    ) -> None:
        check = Checker("HAProxyWeights")
        called = str(path) if map_file is None else map_file
        check_haproxy(check, name, called, "stable", "candidate", None)
        check.seconds("patience", patience, minimum=0.1, exclusive=False, maximum=60.0)
        check.finish()
        super().__init__(Path(path))
        self._name = name
        self._called = called
        self._socket = None if socket is None else str(socket)
        self._patience = to_seconds(patience)

    def _text(self, order: Order) -> str:
        return f"{self._name} {order.units}\n"

    def _take(self, order: Order) -> None:
        if self._socket is None:
            return
        answer = self._set(self._socket, order.units)
        found = self._entry(self._socket)
        if found != order.units:
            raise RouterError(
                f"HAProxy was told {order.units} for {self._name} of {self._called} and has {found}: {answer or 'it says nothing'}"
            )

    def _tell(self, order: Order) -> None:
        if self._socket is not None:
            self._set(self._socket, order.units)

    def _set(self, socket: str, units: int) -> str:
        # An entry can only be set when it is there already.
        verb = "add" if self._entry(socket) is None else "set"
        return self._say(socket, f"{verb} map {self._called} {self._name} {units}").strip()

    def _taken(self, order: Order) -> Order:
        if self._socket is None:
            return order
        units = self._entry(self._socket)
        return order if units == order.units else replace(order, units=units or 0, number=0)

    def _entry(self, socket: str) -> int | None:
        """What HAProxy has now for our name: the first of its entries, which is the one it uses. None: no entry, so no traffic."""
        answer = self._say(socket, f"show map {self._called}")
        rows = [line.split() for line in answer.splitlines() if line.strip()]
        for row in rows:
            if len(row) != 3 or not row[0].startswith("0x"):  # noqa: PLR2004 - identifier, key, value
                raise RouterError(f"HAProxy does not show {self._called}, does its configuration use it? {' '.join(row)[:300]}")
        found = next((row[2] for row in rows if row[1] == self._name), None)
        if found is None:
            return None
        if not found.isdecimal() or int(found) > UNITS:
            raise RouterError(f"HAProxy has {found[:40]!r} for {self._name} of {self._called}: no share in parts of {UNITS}")
        return int(found)

    def _say(self, socket: str, command: str) -> str:
        try:
            with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as line:
                line.settimeout(self._patience)
                line.connect(socket)
                line.sendall(f"{command}\n".encode("ascii"))
                parts: list[bytes] = []
                while part := line.recv(4_096):
                    parts.append(part)
                    if sum(map(len, parts)) > _LARGEST_ANSWER:
                        raise RouterError(f"{socket}: more than {_LARGEST_ANSWER} bytes of answer to {command!r}")
        except OSError as failed:
            raise RouterError(f"{socket}: {failed.strerror or failed}; is HAProxy running with this stats socket?") from failed
        return b"".join(parts).decode("utf-8", "replace")
