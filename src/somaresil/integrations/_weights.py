"""Routers that are told a share and keep it in a file: their orders, what follows from each, and how they are remembered."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.render.proxies import UNITS
from somaresil.canary.router import RouterError, RouterStatus
from somaresil.safefile import read_plain, replace_with

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ABORTED", "LARGEST", "PROGRESSING", "PROMOTED", "Kept", "Order", "WeightFile", "share_of", "written"]

PROGRESSING: Final = "Progressing"
PROMOTED: Final = "Promoted"
ABORTED: Final = "Aborted"
LARGEST: Final = 65_536
"""Bytes of a file of ours, at most."""
_LONGEST: Final = 200
_HEAD: Final = "# somaresil "


@dataclass(frozen=True, slots=True)
class Order:
    """What the router was told last."""

    units: int = 0
    """The share of the candidate, in parts of ``UNITS``."""
    version: str = ""
    phase: str = PROGRESSING
    paused: bool = False
    message: str = ""
    number: int = 0
    """Grows with each order, so that one can tell whether it was taken."""

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.units / UNITS

    def line(self) -> str:
        """As a comment: one line, whatever stands in it."""
        return _HEAD + json.dumps(asdict(self), sort_keys=True)

    def status(self) -> RouterStatus:
        """In the words of the protocol."""
        phase = "Paused" if self.paused else self.phase
        return RouterStatus(phase, self.share, self.version, self.paused, self.message)


class Kept(ValueError):
    """A file that is there and is not ours, or must not be trusted."""


def written(text: str) -> Order:
    """The order that a file of ours begins with. Raises ``Kept`` for another file."""
    head = text.partition("\n")[0]
    if not head.startswith(_HEAD):
        raise Kept("it was not written by somaresil: it does not begin with an order")
    try:
        found: dict[str, Any] = json.loads(head.removeprefix(_HEAD))
        order = Order(**found)
    except (ValueError, TypeError, RecursionError) as wrong:
        raise Kept(f"it was not written by somaresil: {wrong}") from None
    kinds = {"units": int, "version": str, "phase": str, "paused": bool, "message": str, "number": int}
    if any(type(getattr(order, name)) is not kind for name, kind in kinds.items()) or not 0 <= order.units <= UNITS:
        raise Kept("it was not written by somaresil: its order makes no sense")
    return order


def share_of(share: object) -> int:
    """A share from 0 to 1 in parts of ``UNITS``. Raises ``RouterError`` for what is none, or would become none or all by rounding."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
        raise RouterError(f"{share!r} is no share of the requests: expected a ratio in [0, 1]")
    units = round(share * UNITS)
    if (units == 0) != (share == 0.0) or (units == UNITS) != (share == 1.0):
        raise RouterError(f"a share of {share!r} cannot be told to this router: its least step is {1 / UNITS:g}")
    return units


class WeightFile:
    """A router whose orders are a file. Whoever inherits says what stands in the file, and how the router takes it.

    After an order that failed the file is what it was, unless the order took traffic away from the candidate: that is kept, so that the
    next reload, by whomever, obeys it.
    """

    steps: bool = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def start(self, version: str) -> None:
        """Begin with this version, without traffic; one that is under way goes on with its share.

        Raises :class:`~somaresil.canary.router.RouterError`, as all orders do.
        """
        version = _short(version)
        with self._lock:
            before = self._kept()
            under_way = before is not None and before.version == version and before.phase == PROGRESSING
            order = before if before is not None and under_way else Order(version=version)
            self._give(replace(order, paused=False), before)

    def set_weight(self, share: float) -> None:
        """Give the candidate this share, to a hundredth of a percent. One that was aborted has to be started again."""
        units = share_of(share)
        with self._lock:
            before = self._kept()
            order = before or Order()
            if order.phase == ABORTED and units:
                raise RouterError(f"{self._path}: the candidate was aborted ({order.message}): start() it again before it gets traffic")
            if order.phase == PROMOTED and units < UNITS:
                raise RouterError(f"{self._path}: the candidate was promoted: abort() takes everything from it, start() begins another one")
            self._give(replace(order, units=units), before)

    def suspend(self) -> None:
        """Note that it is to stay as it is. The share is set from here anyway: this is for those who read ``status()``."""
        self._change(paused=True)

    def resume(self) -> None:
        """Take the note away."""
        self._change(paused=False)

    def promote(self) -> None:
        """Give the candidate everything."""
        self._change(units=UNITS, phase=PROMOTED, paused=False, message="")

    def abort(self, reason: str) -> None:
        """Give the candidate nothing. A file of ours that others may write to is no reason not to."""
        with self._lock:
            before = self._kept(trusting=True)
            self._give(replace(before or Order(), units=0, phase=ABORTED, paused=False, message=_short(reason)), before)

    def status(self) -> RouterStatus:
        """What the router has taken. Raises :class:`~somaresil.canary.router.RouterError` when that cannot be found out."""
        with self._lock:
            order = self._kept()
            if order is None:
                raise RouterError(f"{self._path} is not there: start() writes it")
            return self._taken(order).status()

    def _change(self, **changes: Any) -> None:
        with self._lock:
            before = self._kept()
            self._give(replace(before or Order(), **changes), before)

    def _kept(self, *, trusting: bool = False) -> Order | None:
        """What the file says; None: there is no file. ``trusting``: whoever else may have written to it."""
        try:
            return written(read_plain(self._path, LARGEST).decode("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as wrong:
            if trusting and (order := self._anybody_s()) is not None:
                return order
            raise RouterError(f"{self._path} is left alone: {wrong}") from wrong

    def _anybody_s(self) -> Order | None:
        with contextlib.suppress(OSError, ValueError), self._path.open("rb") as file:
            return written(file.read(LARGEST).decode("utf-8"))
        return None

    def _give(self, order: Order, before: Order | None) -> None:
        if before is not None and replace(order, number=before.number) == before and self._holds(before):
            return
        order = replace(order, number=1 if before is None else before.number + 1)
        self._write(order)
        try:
            self._take(order)
        except BaseException as refused:
            less = before is not None and order.units <= before.units
            if isinstance(refused, Refused) or not less:
                self._put_back(before)
                # Nobody knows whether it was taken after all: then the router takes the former one, as far as it listens.
                if not isinstance(refused, Refused):
                    with contextlib.suppress(RouterError):
                        self._tell(before or Order())
            raise

    def _put_back(self, before: Order | None) -> None:
        if before is not None:
            self._write(before)
        else:
            # A configuration that includes it could not be loaded any more without it.
            self._write(Order())

    def _write(self, order: Order) -> None:
        try:
            replace_with(self._path, (order.line() + "\n" + self._text(order)).encode())
        except OSError as failed:
            raise RouterError(f"{self._path} cannot be written: {failed.strerror or type(failed).__name__}") from failed

    def _holds(self, order: Order) -> bool:
        """Whether the router still has what it was told, so that telling it again would be no change."""
        try:
            return self._taken(order) == order
        except RouterError:
            return False

    def _text(self, order: Order) -> str:
        """What stands in the file below the order."""
        raise NotImplementedError

    def _take(self, order: Order) -> None:
        """Have the router take the file. Raises ``RouterError`` when it did not, ``Refused`` when it must not see this file at all."""
        raise NotImplementedError

    def _tell(self, order: Order) -> None:
        """Tell the router to take the file, without waiting until it has."""
        raise NotImplementedError

    def _taken(self, order: Order) -> Order:
        """What the router really does, beside what the file says."""
        raise NotImplementedError


class Refused(RouterError):
    """The router would not start with this file."""


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
