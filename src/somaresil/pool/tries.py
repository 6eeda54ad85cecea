"""One call of a pool on its way from endpoint to endpoint: which were tried, what came of it, and whether another may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from somaresil.errors import DeadlineExceeded, NoEndpoint, Rejected
from somaresil.events import RetryDenied
from somaresil.outcome import Outcome
from somaresil.runtime import raise_again

if TYPE_CHECKING:
    from somaresil.pool.balance import Balance, Member, Visit
    from somaresil.typing import Call

__all__ = ["Tries"]


class Tries:
    """The bookkeeping of one call. Used by the one thread or task that makes the call."""

    def __init__(self, call: Call, balance: Balance, key: str | None) -> None:
        """Nothing was tried yet."""
        self._call = call
        self._balance = balance
        self._options = balance.options
        self._key = key
        self._tried: list[Member] = []
        self._made = 0
        self._refusals: list[tuple[str, Rejected]] = []
        self._error: Exception | None = None
        self._answer: tuple[Any] | None = None
        self._over = False
        self._paid = False

    def next(self) -> Visit | None:
        """The next endpoint, never one that was tried; None: there is none, or it is no use."""
        visit = None if self._over else self._balance.take(self._tried, self._key)
        if visit is not None:
            self._tried.append(visit.member)
            self._paid = False
            return visit
        self._over = True
        if self._paid:
            self._balance.give_back()
        self._paid = False
        return None

    def failed(self, visit: Visit, error: Exception, running: int = 0) -> bool:
        """An endpoint refused or failed; whether to go on, while ``running`` others are at it. A refusal is no attempt."""
        if isinstance(error, Rejected) and error.guard == visit.member.guard.name:
            self._refusals.append((visit.member.endpoint.name, error))
            # The time of the request is up everywhere.
            self._over = self._over or isinstance(error, DeadlineExceeded)
            return True
        self._made += 1
        self._error, self._answer = error, None
        return visit.outcome is Outcome.BAD and self._again(error) and self._further(running)

    def answered_badly(self, answer: Any, running: int = 0) -> bool:
        """An endpoint gave an answer that ``classify`` calls bad; whether another may be tried."""
        self._made += 1
        self._error, self._answer = None, (answer,)
        return self._further(running)

    def may_hedge(self, running: int) -> bool:
        """Whether it is any use to wait for the time to hedge while ``running`` attempts are under way."""
        # Unlike a retry, a hedge repeats calls that nothing is wrong with: for that it must be known that repeating does no harm.
        return self._left(running) and self._call.repeatable() is True

    def hedge(self, running: int) -> Visit | None:
        """The endpoint to hedge on, beside ``running`` attempts; None: no more hedges."""
        visit = self.next() if self._further(running) else None
        if visit is None:
            self._over = True
        return visit

    def end(self) -> Any:
        """Nothing more is tried: the last answer, or the last error, or a rejection by the pool when no endpoint was called."""
        if self._error is not None:
            raise_again(self._error)
        if self._answer is not None:
            return self._answer[0]
        raise self._refusal()

    def clear(self) -> None:
        """Let go of the errors: the frame that keeps this is on their tracebacks."""
        self._error = self._answer = None
        self._refusals.clear()

    def _left(self, running: int) -> bool:
        return not self._over and self._made + running < self._options.attempts

    def _further(self, running: int) -> bool:
        """Whether a further attempt is allowed; then it is paid for."""
        if not self._left(running):
            return False
        if self._call.repeatable() is False:
            return self._denied("idempotency")
        if self._call.time_left() == 0.0:
            return self._denied("deadline")
        if not self._paid and not self._balance.pay(self._call.clock.monotonic()):
            return self._denied("budget")
        self._paid = True
        return True

    def _denied(self, reason: str) -> bool:
        call = self._call
        if call.listeners.wants(RetryDenied):
            call.listeners.emit(RetryDenied(call.guard, call.clock.time(), self._made, reason))
        return False

    def _again(self, error: Exception) -> bool:
        try:
            return self._options.fails_over(error)
        except Exception as broken:  # noqa: BLE001 - a hook that fails does not replace the error of the callee
            clock = self._call.clock
            self._call.listeners.defect(f"on of pool {self._balance.name}", broken, clock.time(), "no other endpoint was tried")
            return False

    def _refusal(self) -> Rejected:
        name = self._balance.name
        waits = [error.retry_after for _, error in self._refusals if error.retry_after is not None]
        soonest = self._balance.soonest(self._call.clock.monotonic())
        if soonest is not None:
            waits.append(soonest)
        detail = "; ".join(f"{endpoint}: {error.reason}" for endpoint, error in self._refusals) or "none of them is healthy"
        last = next((error.last_error for _, error in reversed(self._refusals) if error.last_error), None)
        injected = bool(self._refusals) and all(error.injected for _, error in self._refusals)
        if self._refusals and isinstance(self._refusals[-1][1], DeadlineExceeded):
            return DeadlineExceeded(name, None, self._refusals[-1][1].detail, last, injected)
        return NoEndpoint(name, min(waits, default=None), detail, last, injected)
