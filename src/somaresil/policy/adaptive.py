"""Adaptive limit: as many calls at once as the dependency takes now, found out from how long its answers take.

It stands where a bulkhead would stand, with the same line (:mod:`somaresil.line`). What its limit is made of is in
:mod:`somaresil.model.concurrency`.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from somaresil.config import Checker
from somaresil.errors import Rejected
from somaresil.line import Line
from somaresil.model.concurrency import Estimator, Tuning
from somaresil.outcome import Outcome
from somaresil.priority import Prioritizer
from somaresil.retryafter import asked_wait
from somaresil.runtime import original

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.line import Slot
    from somaresil.runtime import Runtime
    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["AdaptiveLimit", "AdaptivePolicy"]

_MOST = 1_000_000
_LATE = 2.0
"""A bad end without an error counts as a sign of overload when it took so many times as long as an answer without waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveLimit:
    """How a limit is found, and how many calls may wait for how long. Durations are seconds, as a number or a ``timedelta``.

    A good answer is a sample of how long the dependency takes; for a stream, the time to its first item. Signs of overload are: no answer
    in time, a rejection by somebody further in, an error that says when to come back (``Retry-After``), and what ``drop_on`` names. Other
    errors, cancelled calls and ignored ones say nothing. The bounds of the limit are those of failsafe-go, the algorithms Netflix's.
    """

    algorithm: Literal["gradient", "vegas"] = "gradient"
    """``gradient``: by the ratio of answer times, up to ``tolerance``. ``vegas``: by the calls that wait, so it keeps lines shorter."""
    initial: int = 20
    """The limit before anything is known."""
    minimum: int = 1
    """The limit never falls below it."""
    maximum: int = 200
    """The limit never rises above it."""
    max_waiting: int = 0
    """Calls that may wait for a slot."""
    max_wait: float | timedelta = 0.0
    """How long a call may wait."""
    tolerance: float = 1.5
    """How many times as long as without waiting an answer may take before the gradient lowers the limit."""
    queue: int | None = None
    """How many calls the gradient lets wait inside the dependency; None: the square root of the limit."""
    window: float | timedelta = 1.0
    """How long samples are gathered for one step, at least."""
    window_calls: int = 10
    """How many samples are gathered for one step, at least: one call never moves the limit."""
    drop_on: Any = None
    """More signs of overload: exception types, or a predicate on the exception."""
    prioritizer: Prioritizer | None = None
    """Who says, for several limits together, which calls are shed before they stand in line."""
    shadow: bool = False
    """Reject nobody and let nobody wait; find the limit, and count and tell what would have been rejected."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("AdaptiveLimit")
        keep = object.__setattr__
        check.one_of("algorithm", self.algorithm, ("gradient", "vegas"))
        for name in ("initial", "minimum", "maximum"):
            check.count(name, getattr(self, name), maximum=_MOST)
        check.count("max_waiting", self.max_waiting, minimum=0, maximum=_MOST)
        max_wait = check.seconds("max_wait", self.max_wait, exclusive=False, maximum=86_400.0)
        keep(self, "max_wait", max_wait)
        keep(self, "tolerance", check.number("tolerance", self.tolerance, minimum=1.0, maximum=10.0))
        check.count("queue", self.queue, minimum=0, maximum=_MOST, optional=True)
        keep(self, "window", check.seconds("window", self.window, maximum=3_600.0))
        check.count("window_calls", self.window_calls, minimum=2, maximum=100_000)
        if isinstance(self.drop_on, list | set | frozenset):
            keep(self, "drop_on", tuple(self.drop_on))
        if not _names_errors(self.drop_on):
            check.problem("drop_on", self.drop_on, "exception types, or a predicate on the exception")
        if self.prioritizer is not None:
            check.type("prioritizer", self.prioritizer, Prioritizer, "what resilience.prioritizer() gives, or None")
        check.type("shadow", self.shadow, bool, "True or False")
        # What goes together is looked at only when everything is right by itself: one mistake is one problem.
        check.finish()
        if not self.minimum <= self.initial <= self.maximum:
            check.problem("initial", self.initial, f"a number from minimum ({self.minimum}) to maximum ({self.maximum})")
        if self.max_waiting and not max_wait:
            check.problem("max_wait", self.max_wait, "seconds > 0 when max_waiting is set", "nobody could wait")
        if max_wait and not self.max_waiting:
            check.problem("max_waiting", self.max_waiting, "a whole number >= 1 when max_wait is set", "nobody could wait")
        check.finish()

    def build(self, site: Site) -> AdaptivePolicy:
        """The limit at work."""
        return AdaptivePolicy(self, site)

    @property
    def tuning(self) -> Tuning:
        """What the model needs to know."""
        return Tuning(
            algorithm=self.algorithm,
            initial=self.initial,
            minimum=self.minimum,
            maximum=self.maximum,
            tolerance=self.tolerance,
            queue=self.queue,
            window=float(self.window),  # type: ignore[arg-type]
            samples=self.window_calls,
        )


class AdaptivePolicy:
    """An adaptive limit at work."""

    quiet = False
    leaves = True
    """Whether there is something to leave when a call on the express path has ended."""

    def __init__(self, options: AdaptiveLimit, site: Site) -> None:
        """The limit is the initial one."""
        self.options = options
        self._site = site
        self._lock = threading.RLock()
        self._model = Estimator(options.tuning)
        self.line = Line(site.name, site.clock, options.initial, *_line_of(options))
        """The slots, and those who wait for one."""
        self.try_enter = self.line.try_enter
        """A slot if there is one at once; None: the call has to take the long way. Never waits, never raises."""

    @property
    def limit(self) -> int:
        """How many calls may hold a slot now."""
        return self._model.limit

    @property
    def active(self) -> int:
        """How many calls hold a slot now."""
        return self.line.active

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot now."""
        return self.line.waiting

    @property
    def baseline(self) -> float | None:
        """Seconds that an answer takes without waiting, as far as is known."""
        return self._model.baseline

    def reconfigure(self, options: AdaptiveLimit) -> None:
        """Find the limit by other options from now on; what is known stays, and calls that hold a slot keep it."""
        self.options = options
        with self._lock:
            self._model.retune(options.tuning)
        self.line.reconfigure(self._model.limit, *_line_of(options))

    def retire(self) -> None:
        """It is taken from its guard. Those inside and in line end as if it were not."""
        self.line.retire()

    def leave(self, token: Slot, outcome: Outcome, elapsed: float, now: float) -> None:
        """Give a slot back, and say how the call ended, after ``elapsed`` seconds. If it was bad, its error is being handled just now."""
        self._left(token, outcome, elapsed, now, sys.exc_info()[1] if outcome is Outcome.BAD else None)

    def _left(self, token: Slot, outcome: Outcome, elapsed: float, now: float, error: BaseException | None) -> None:
        inside = self.line.active
        self.line.leave(token)
        self.learn(outcome, elapsed, now, error, inside)

    def learn(self, outcome: Outcome, elapsed: float, now: float, error: BaseException | None, inside: int) -> None:
        """Take in how a call ended that was one of ``inside``. Never raises."""
        try:
            if outcome is Outcome.GOOD:
                take = self._model.sample
            elif outcome is Outcome.BAD and self._overloaded(error, elapsed):
                take = self._model.drop
            else:
                return
            with self._lock:
                changed = take(elapsed, now, inside)
            if changed:
                # Not under that lock: the line has its own, and the collector may end a call in there that comes by here.
                self.line.resize(lambda: self._model.limit)
        except Exception as defect:  # noqa: BLE001 - what comes of it is the caller's, whatever happens to our books
            self._site.listeners.defect(f"adaptive limit of guard {self._site.name}", defect, self._site.clock.time())

    async def admit(self, runtime: Runtime, left: float | None) -> Slot | None:
        """A slot, at once or after standing in line, ``left`` seconds at most; None: it is not enforced.

        Raises :class:`~somaresil.errors.BulkheadFull` or :class:`~somaresil.errors.LoadShed`.
        """
        if not self.options.shadow:
            return await self.line.admit(runtime, left)
        slot = self.line.try_enter()
        if slot is None:
            self._site.shadow.note("adaptive_limit", "reject", f"{self.active} calls running, limit {self.limit}")
        return slot

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Let the call through when there is a slot, or raise :class:`~somaresil.errors.BulkheadFull`."""
        # A call that is played back was made before: that attempt is over.
        slot = await self.admit(call.runtime, call.time_left()) if call.replayed is None else None
        if slot is None:
            return await inner(call)
        monotonic = call.clock.monotonic
        began = monotonic()
        try:
            result = await inner(call)
        except BaseException as error:
            now = monotonic()
            self._left(slot, call.judge(None, error), now - began, now, original(error))
            raise
        now = monotonic()
        if not call.lasting:
            self._left(slot, call.judge(result, None), now - began, now, None)
        elif call.block:
            call.at_end(lambda outcome, now: self._left(slot, outcome, now - began, now, None))
        else:
            # How long a stream goes on is up to its length; how long the first item takes is up to the dependency.
            self.learn(Outcome.GOOD, now - began, now, None, self.line.active)
            call.at_end(lambda _outcome, _now: self.line.leave(slot))
        return result

    def _overloaded(self, error: BaseException | None, elapsed: float) -> bool:
        """Whether a bad end is a sign that the dependency has too much to do."""
        if error is None:
            baseline = self._model.baseline
            return baseline is not None and elapsed > _LATE * baseline
        if isinstance(error, TimeoutError | Rejected) or not isinstance(error, Exception):
            # No exception, and bad all the same: it was cancelled when its deadline passed.
            return True
        told = self.options.drop_on
        if isinstance(told, type | tuple):
            if isinstance(error, told):
                return True
        elif told is not None and told(error):
            return True
        try:
            return asked_wait(error, self._site.clock.time) is not None
        except ValueError:
            # It cannot be read, but it is about coming back later.
            return True


def _names_errors(told: Any) -> bool:
    kinds = told if isinstance(told, tuple) else (told,)
    if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        return bool(kinds)
    return told is None or (callable(told) and not isinstance(told, type))


def _line_of(options: AdaptiveLimit) -> tuple[int, float, Prioritizer | None]:
    # Durations were turned into seconds when the options were made. A limit that only watches sheds nothing anywhere.
    return options.max_waiting, float(options.max_wait), None if options.shadow else options.prioritizer  # type: ignore[arg-type]
