"""Deadlines: how much time the request has left, known to everything that is done for it.

A timeout says how long one call may take; a deadline says until when any of it is still wanted. It is a context variable, so tasks see it,
``asyncio.to_thread`` and whatever else copies the context takes it into its thread, and it never grows on the way down: a deadline inside
another one ends with the outer one at the latest. What it does:

- A guarded call that begins after it is refused with :class:`~somaresil.errors.DeadlineExceeded`, before anything is done.
- No wait is begun that it would not outlast: pauses of retries, waiting lines of limits.
- ``async with`` cancels its body when it passes and raises :class:`~somaresil.errors.CallTimedOut`. One timer a request, not one a call.
- Clients send what is left to the next service (:data:`HEADER`), and the ASGI middleware takes it up there: milliseconds left, not a time
  of day, for the clocks of two machines never agree (gRPC does the same with ``grpc-timeout``).

A call that the passing deadline cut off counts as bad when it has had at least half of the time that the request had; a call that came
later and got the rest is abandoned: it is not the dependency that was slow.
"""

from __future__ import annotations

import re
from asyncio import CancelledError
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Self

from somaresil.config import Checker
from somaresil.errors import CallTimedOut, DeadlineExceeded
from somaresil.expiry import begin
from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from datetime import timedelta
    from types import TracebackType

    from somaresil.expiry import Expiry

__all__ = ["HEADER", "HEADERS", "LONGEST", "Deadline", "DeadlineScope", "current", "cut_off", "header_value", "time_left", "time_of"]

HEADER: Final = "x-request-timeout-ms"
"""Milliseconds that are left, in a request that goes out."""
HEADERS: Final = (HEADER, "grpc-timeout", "x-envoy-expected-rq-timeout-ms")
"""What is understood in a request that comes in: ours, gRPC's, and what Envoy tells the service behind it. The shortest counts."""
LONGEST: Final = 86_400.0
"""A day: whoever has longer has no deadline."""

_MILLISECONDS: Final = re.compile(r"[0-9]{1,12}")
_GRPC: Final = re.compile(r"([0-9]{1,8})([HMSmun])")
_UNITS: Final = {"H": 3_600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_LARGEST_SHARE: Final = 0.5


class Deadline:
    """Until when the work of one request is wanted."""

    __slots__ = ("at", "began", "monotonic")

    def __init__(self, began: float, at: float, monotonic: Callable[[], float]) -> None:
        """From ``began`` until ``at``, both on the clock ``monotonic``."""
        self.began = began
        self.at = at
        self.monotonic = monotonic


_deadline: ContextVar[Deadline | None] = ContextVar("somaresil_deadline", default=None)

current: Final = _deadline.get
"""The deadline of this context, or None."""


def time_left() -> float | None:
    """Seconds until the deadline of this context, at least 0; None: there is none."""
    deadline = current()
    return None if deadline is None else max(0.0, deadline.at - deadline.monotonic())


def header_value() -> str | None:
    """What :data:`HEADER` says in a request that goes out now; None: there is no deadline. At least 1: a server reads 0 in its own way."""
    left = time_left()
    return None if left is None else str(max(1, int(left * 1_000.0)))


def time_of(name: str, value: str) -> float:
    """Seconds that a header of :data:`HEADERS` gives, at most :data:`LONGEST`. Raises ``ValueError`` for what cannot be read."""
    text = value.strip()
    if name == "grpc-timeout":
        found = _GRPC.fullmatch(text)
        seconds = None if found is None else int(found[1]) * _UNITS[found[2]]
    else:
        seconds = int(text) / 1_000.0 if _MILLISECONDS.fullmatch(text) else None
    if seconds is None:
        raise ValueError(f"{name} {text[:40]!r}: expected {'digits and one of H M S m u n' if name == 'grpc-timeout' else 'milliseconds'}")
    return min(seconds, LONGEST)


def cut_off(outcome: Outcome, error: BaseException | None, started: float, now: float) -> Outcome:
    """How a call counts that ended with ``error``, usually with ``outcome``, when it may be the deadline that has ended it."""
    deadline = current()
    if deadline is None or now < deadline.at:
        return outcome
    # Cancelled by it, or a guard inside refused to begin: either way it is a question of who used up the time.
    if not isinstance(error, CancelledError if outcome is Outcome.ABANDONED else DeadlineExceeded) or outcome is Outcome.REJECTED:
        return outcome
    return Outcome.BAD if now - started >= _LARGEST_SHARE * (deadline.at - deadline.began) else Outcome.ABANDONED


class DeadlineScope:
    """``with`` or ``async with``: what is done in it has a deadline. Made by :meth:`Resilience.deadline`; used once.

    ``with`` alone interrupts nothing: it is for synchronous code, which refuses to begin what is too late. ``seconds=None`` takes the
    deadline away, for work that outlives its request.
    """

    __slots__ = ("_expiry", "_name", "_passed", "_token", "_usual", "monotonic", "seconds")

    def __init__(
        self, seconds: float | timedelta | None, monotonic: Callable[[], float], *, name: str = "request", usual: bool = True
    ) -> None:
        """``seconds`` from when it is entered; ``usual`` says that many have this length."""
        check = Checker("deadline")
        self.seconds = check.seconds("seconds", seconds, optional=True, exclusive=False, maximum=LONGEST)
        check.finish()
        self.monotonic = monotonic
        self._name = name
        self._usual = usual
        self._token: Token[Deadline | None] | None = None
        self._expiry: Expiry | None = None
        self._passed = False

    def __enter__(self) -> Self:
        """Begin."""
        if self._token is not None:
            raise RuntimeError("a deadline scope is entered once; make another one")
        self._enter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Go back to the deadline outside."""
        self._leave()

    async def __aenter__(self) -> Self:
        """Begin, and cancel the body when time is up."""
        self.__enter__()
        deadline = current()
        if self.seconds is not None and deadline is not None:
            left = deadline.at - self.monotonic()
            # The usual length is the one that was asked for: one that an outer deadline has cut is anybody's.
            usual = self._usual and left >= self.seconds > 0.0
            self._expiry = begin(self.seconds if usual else max(0.0, left), usual=usual)
        return self

    @property
    def passed(self) -> bool:
        """Whether it has raised :class:`~somaresil.errors.CallTimedOut`."""
        return self._passed

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End it; raises :class:`~somaresil.errors.CallTimedOut` when it has passed and its cancellation arrives here."""
        self._leave()
        expiry, self._expiry = self._expiry, None
        if expiry is not None and expiry.ours(error):
            self._passed = True
            raise CallTimedOut(self._name, self.seconds or 0.0, "deadline") from error

    def _enter(self) -> None:
        outer, began = current(), self.monotonic()
        deadline = None
        if self.seconds is not None:
            at = began + self.seconds
            deadline = Deadline(began, at, self.monotonic) if outer is None or at < outer.at else outer
        self._token = _deadline.set(deadline)

    def _leave(self) -> None:
        if self._token is not None:
            try:
                _deadline.reset(self._token)
            except ValueError:
                # It ends in another context than it began in, as a generator does that a framework runs piece by piece.
                return
