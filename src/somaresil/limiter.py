"""A rate limit at work: one capacity for every guard, thread and event loop that it is given to, and the permits of their calls.

Everything is decided under one lock, and nobody is woken while it is held. There is no thread that serves the line: who waits in it has a
timer of its own, and whoever comes first when a time has come serves everybody whose time it is, so a blocked event loop keeps only its
own calls waiting.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final, NamedTuple

from somaresil.config import Checker
from somaresil.model.ratelimit import SLACK, Claim, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from somaresil.listeners import Listeners
    from somaresil.outcome import Outcome
    from somaresil.policy.ratelimit import RateLimit, RateWindow
    from somaresil.runtime import Runtime, Waiter
    from somaresil.typing import Clock

__all__ = ["Permit", "RateLimiter", "Refusal", "current_permit"]


class Refusal(NamedTuple):
    """Why a call is not let in, and after how many seconds it would be."""

    retry_after: float
    detail: str


class Permit(Claim):
    """Leave for one call. What it really costs may be said while the call runs: see :meth:`settle`."""

    __slots__ = ("_limiter", "_token", "waiter", "wakes_at")
    waiter: Waiter
    """While it waits: whom to wake,"""
    wakes_at: float
    """and when he wakes by himself."""

    def __init__(self, costs: list[float], limiter: RateLimiter | None) -> None:
        """A permit for so much of each window; without a limiter it means nothing."""
        # Not by super(): a permit is made at every call.
        self.costs = costs
        self.waiting = self.open = False
        self._limiter = limiter
        self._token: Token[Permit] | None = None

    def settle(self, **real: float) -> None:
        """Say what the call has really cost, by unit: ``permit.settle(tokens=812)``. May be said again while the call runs.

        Less than estimated is given back, more is a debt for which later calls wait. Said higher and then lower again, what is given back
        may be a little less than the difference, never more. Never raises: what makes no sense, or comes after the call has ended, is
        reported once and changes nothing.
        """
        if self._limiter is not None:
            self._limiter.settle(self, real)

    def close(self) -> None:
        """The call has ended, and has cost what it has."""
        if self._limiter is not None:
            self._limiter.close(self)

    def give_back(self) -> None:
        """The callee was not called: it has cost nothing."""
        if self._limiter is not None:
            self._limiter.give_back(self)

    def end(self, outcome: Outcome, now: float) -> None:  # noqa: ARG002 - how a lasting call ended does not matter here
        """The end of a lasting call."""
        self.exit()
        self.close()

    def enter(self) -> None:
        """Be the current permit."""
        self._token = _current.set(self)

    def exit(self) -> None:
        """Be it no more."""
        token, self._token = self._token, None
        if token is not None:
            try:
                _current.reset(token)
            except ValueError:
                # The call is ended in another context than it began in (a coroutine that the collector closes): nobody looks at that one.
                return


_MOST: Final = 1e15
"""Units: more is a mistake, and floats begin to lose single ones."""

NO_PERMIT: Final = Permit([], None)
"""Settling it changes nothing."""

_current: ContextVar[Permit] = ContextVar("somaresil_permit", default=NO_PERMIT)


def current_permit() -> Permit:
    """The permit of the innermost rate limited call that runs in this context, if there is something to settle.

    Outside of one, in a call that shadow mode has let pass, and in one that a limit has counted as one call (``unit="calls"``, ``cost=1``,
    no further windows): one whose settling changes nothing. A function works by itself as well.
    """
    return _current.get()


class RateLimiter:
    """A rate limit at work. Made by :meth:`Resilience.rate_limit`, to be given to several guards, or by a guard for itself."""

    def __init__(self, name: str, options: RateLimit, clock: Clock, listeners: Listeners) -> None:
        """All windows full."""
        self.name = name
        self.options = options
        self.windows = options.every_window
        self._monotonic = clock.monotonic
        self._wall = clock.time
        self._listeners = listeners
        self._lock = threading.RLock()
        self._limits: Limits[Permit] = Limits([window.quota for window in self.windows], self._monotonic())
        self.try_count = self._limits.tally(self._lock.acquire, self._lock.release)
        """Count a call that comes at some time, if it can be let in at once and this limit counts nothing else."""
        self.counts_calls = self._limits.counts = _counts_calls(options)
        """Whether a call is one call, and that is all there is to it: then there is nothing to settle, and no permit that could be."""

    def __repr__(self) -> str:
        """Name and windows."""
        return f"<RateLimiter {self.name!r}: {', '.join(window.unit for window in self.windows)}>"

    # -- reading ----------------------------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many calls wait now."""
        return self._limits.waiting

    @property
    def share(self) -> float:
        """The share of the configured rate that it grants now; less than 1 only if it is adaptive."""
        with self._lock:
            return self._limits.factor(self._monotonic())

    def available(self) -> dict[str, float]:
        """What could be taken of each window at once, by unit; below 0 it is in debt."""
        with self._lock:
            levels = self._limits.levels(self._monotonic())
            return {window.unit: level for window, level in zip(self.windows, levels, strict=True)}

    # -- the life of a permit ---------------------------------------------------------------------------------------------------------

    def take(self, permit: Permit, windows: Sequence[RateWindow]) -> bool:
        """Grant it, if that can be done at once. ``windows`` are those that its costs were made for."""
        with self._lock:
            if windows is not self.windows:
                self._fit(permit, windows)
            return self._limits.take(permit, self._monotonic())

    async def wait(self, permit: Permit, windows: Sequence[RateWindow], runtime: Runtime, patience: float) -> Refusal | None:
        """Grant it within ``patience`` seconds (None), or say why not. Whoever is cancelled while he waits has taken nothing."""
        with self._lock:
            if windows is not self.windows:
                self._fit(permit, windows)
            now = self._monotonic()
            wait = self._limits.wait(permit.costs, now)
            if (wait <= SLACK or not any(permit.costs)) and self._limits.take(permit, now):
                return None
            if self._limits.waiting >= self.options.max_waiting or wait > patience:
                return self._refusal(permit, wait, now)
            permit.waiter, permit.wakes_at = runtime.waiter(), now
            self._limits.join(permit, now)
        deadline = now + patience
        try:
            while True:
                refusal: Refusal | None = None
                with self._lock:
                    now = self._monotonic()
                    woken = self._serve(now)
                    if permit.waiting and now >= deadline:
                        refusal = self._refusal(permit, self._limits.ask(permit, now), now)
                        self._limits.leave(permit)
                        woken += self._serve(now)
                    elif permit.waiting:
                        # A new one each time: the former one may have been woken, and would not wait again.
                        permit.waiter = runtime.waiter()
                        permit.wakes_at = now + max(min(self._limits.ask(permit, now), deadline - now), SLACK)
                _wake(woken)
                if not permit.waiting:
                    return refusal
                await permit.waiter.wait(permit.wakes_at - now)
        except BaseException:
            self.give_back(permit)
            raise

    def pretend(self, permit: Permit, windows: Sequence[RateWindow], patience: float) -> tuple[str, str]:
        """What would become of a call that is not kept waiting: ``wait`` or ``reject``, and why; ``""`` when it is let in at once.

        A call that would have waited is charged: those that come next would have waited behind it.
        """
        with self._lock:
            if windows is not self.windows:
                self._fit(permit, windows)
            now = self._monotonic()
            if self._limits.take(permit, now):
                return "", ""
            wait = self._limits.wait(permit.costs, now)
            detail = self._refusal(permit, wait, now).detail
            if not self.options.max_waiting or wait > patience:
                return "reject", detail
            self._limits.force(permit, now)
            return "wait", f"{wait:.3g} s, {detail}"

    def settle(self, permit: Permit, real: Mapping[str, float]) -> None:
        """See :meth:`Permit.settle`."""
        wrong: list[str] = []
        with self._lock:
            now = self._monotonic()
            places = self._places()
            for unit, amount in real.items():
                if unit not in places:
                    wrong.append(f"{unit}: expected one of {', '.join(places)}")
                elif isinstance(amount, bool) or not isinstance(amount, int | float) or not 0.0 <= amount <= _MOST:
                    wrong.append(f"{unit}={amount!r:.40}: expected a number >= 0")
                elif not permit.open:
                    wrong.append(f"{unit}: the call has ended")
                else:
                    self._limits.settle(permit, places[unit], float(amount), now)
            woken = self._serve(now)
        _wake(woken)
        for what in wrong:
            where = f"settling a permit of rate limit {self.name}"
            self._listeners.defect(where, ValueError(what), self._wall(), "nothing was settled")

    def close(self, permit: Permit) -> None:
        """The call has ended: what it has cost stays as it is."""
        with self._lock:
            if permit.open:
                self._limits.close(permit)

    def give_back(self, permit: Permit) -> None:
        """The callee was not called: nothing was taken, whether it was granted or still waits."""
        with self._lock:
            now = self._monotonic()
            if permit.open:
                self._limits.refund(permit, now)
            elif permit.waiting:
                self._limits.leave(permit)
            woken = self._serve(now)
        _wake(woken)

    def pushed_back(self, permit: Permit, pause: float) -> float | None:
        """An answer asked for less, and for ``pause`` seconds of nothing; the share granted from now on, if that went down."""
        with self._lock:
            now = self._monotonic()
            return self._limits.factor(now) if permit.open and self._limits.lower(permit, pause, now) else None

    def reconfigure(self, options: RateLimit) -> None:
        """Use other limits from now on, for everybody. What was used up of a unit stays used up; who waits goes on waiting.

        Raises :class:`~somaresil.errors.ConfigurationError` for what is no ``RateLimit``.
        """
        check = Checker(f"rate_limit({self.name!r})")
        if not hasattr(options, "every_window"):
            check.problem("options", options, "a RateLimit")
        check.finish()
        with self._lock:
            now = self._monotonic()
            before = self._places()
            self.options = options
            self.windows = options.every_window
            self.counts_calls = self._limits.counts = _counts_calls(options)
            places = [before.get(window.unit) for window in self.windows]
            self._limits.reconfigure([window.quota for window in self.windows], places, now, steady=not options.adaptive)
            woken = self._serve(now)
        _wake(woken)

    # -- inside, with the lock held ---------------------------------------------------------------------------------------------------

    def _serve(self, now: float) -> list[Waiter]:
        """Grant those whose time has come; whom to wake: these, and the next one if his time has come nearer than he knows."""
        woken = [permit.waiter for permit in self._limits.serve(now)]
        head = self._limits.head
        if head is not None and now + self._limits.ask(head, now) < head.wakes_at - SLACK:
            head.wakes_at = now
            woken.append(head.waiter)
        return woken

    def _places(self) -> dict[str, int]:
        return {window.unit: place for place, window in enumerate(self.windows)}

    def _fit(self, permit: Permit, windows: Sequence[RateWindow]) -> None:
        """The windows were changed while somebody thought about the costs: those that are new charge nothing, as for all who were there."""
        known = dict(zip((window.unit for window in windows), permit.costs, strict=True))
        permit.costs = [known.get(window.unit, 0.0) for window in self.windows]

    def _refusal(self, permit: Permit, wait: float, now: float) -> Refusal:
        levels = self._limits.levels(now)
        facts = [
            f"{window.unit}: {cost:.6g} wanted, {max(0.0, level):.6g} of {window.quota.burst:.6g} left"
            for window, cost, level in zip(self.windows, permit.costs, levels, strict=True)
            if level < cost
        ]
        if self._limits.waiting:
            facts.append(f"{self._limits.waiting} waiting")
        return Refusal(wait, ", ".join(facts) or "an answer has asked for a pause")


def _counts_calls(options: RateLimit) -> bool:
    plain = options.unit == "calls" and options.cost == 1.0 and options.settle is None and not options.windows
    return plain and not options.adaptive and not options.shadow


def _wake(waiters: Sequence[Waiter]) -> None:
    for waiter in waiters:
        waiter.wake()
