"""Hedge: ask a second time when the answer is late, and take the first good one.

A dependency that is slow now and then is seldom slow twice in a row: a second attempt after the time within which 95 % are answered cuts
the tail for a few per cent more load (Dean and Barroso, "The Tail at Scale", CACM 56(2), 2013). The first attempt runs in the caller's own
task and costs no more than a place in a line of timers; a task is made only for the second.
"""

from __future__ import annotations

import threading
from contextvars import copy_context
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.budget import RetryBudget
from somaresil.config import Checker
from somaresil.events import HedgeStarted, HedgeWon
from somaresil.expiry import begin
from somaresil.model.quantile import RecentDurations, preferred
from somaresil.race import Race

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.expiry import Expiry
    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["Hedge", "HedgePolicy"]

_LONGEST: Final = 3_600.0
_NEVER: Final = float("inf")
_FLOOR: Final = 0.1
_BUDGET_WINDOW: Final = 30.0


@dataclass(frozen=True, slots=True)
class Hedge:
    """After which time to ask once more, and how often. Durations are seconds, as a number or a ``timedelta``.

    For asynchronous calls that may be repeated: the guard must say so (``idempotent=``). Each attempt passes everything inside the hedge,
    its own retries included. Of a stream the first item decides.

    The first good answer is the answer. The others are cancelled and waited for. An attempt that fails while another is running ends
    nothing; when all have failed the error of the first attempt is raised, but that of another when the first was only rejected.
    """

    delay: float | timedelta | None = None
    """Ask again after this time without an answer. With ``quantile``: as long as that is not known."""
    _: KW_ONLY
    quantile: float | None = None
    """Ask again after the time within which this share of the guard's successful calls was answered; in (0, 1)."""
    minimum_delay: float | timedelta = 0.01
    """Never ask again earlier than this, whatever the quantile says."""
    minimum_calls: int = 20
    """The quantile is known when the window holds so many successful calls."""
    window: float | timedelta = 60.0
    """How far back the quantile looks."""
    max_hedges: int = 1
    """How many further attempts there may be, each after a further delay."""
    budget: float | RetryBudget | None = 0.05
    """Further attempts for each call of late, and three in half a minute whatever the traffic; or a budget to share. None: no bound."""
    shadow: bool = False
    """Count the attempts that would be made, and make none."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Hedge")
        keep = object.__setattr__
        keep(self, "delay", check.seconds("delay", self.delay, optional=True, maximum=_LONGEST))
        if self.quantile is not None:
            keep(self, "quantile", check.number("quantile", self.quantile, minimum=0.0, maximum=1.0, exclusive=True))
        elif self.delay is None:
            check.problem("delay", None, "seconds, or quantile=", "nobody would know when to ask again")
        keep(self, "minimum_delay", check.seconds("minimum_delay", self.minimum_delay, maximum=_LONGEST))
        check.count("minimum_calls", self.minimum_calls)
        keep(self, "window", check.seconds("window", self.window, maximum=86_400.0))
        check.count("max_hedges", self.max_hedges, maximum=10)
        if self.budget is not None and not isinstance(self.budget, RetryBudget):
            keep(self, "budget", check.ratio("budget", self.budget))
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()

    def unfit(self, *, suspends: bool, streams: bool) -> tuple[str, str] | None:  # noqa: ARG002 - streams are hedged as well
        """What may not be guarded with it: what is allowed instead, and what to do."""
        if suspends:
            return None
        return "none for a synchronous function", "two attempts need two tasks; give this function a guard of its own"

    def build(self, site: Site) -> HedgePolicy:
        """The hedges at work."""
        return HedgePolicy(self, site)


class HedgePolicy:
    """Hedges at work."""

    quiet = False

    def __init__(self, options: Hedge, site: Site) -> None:
        """No call seen yet."""
        self._clock = site.clock
        self._monotonic = site.clock.monotonic
        self._listeners = site.listeners
        self._site = site
        self._lock = threading.RLock()
        self._results: dict[str, int] = {"won": 0, "lost": 0, "failed": 0, "budget": 0, "idempotency": 0}
        self.durations: RecentDurations | None = None
        """How long calls took of late; None: nobody asks."""
        self.budget: RetryBudget | None = None
        """What bounds the further attempts of all callers."""
        self.reconfigure(options)

    def reconfigure(self, options: Hedge) -> None:
        """Hedge by other rules from the next call on; what is known of the durations stays when the window does."""
        with self._lock:
            before = getattr(self, "options", None)
            self.options = options
            if options.quantile is None:
                self.durations = None
            elif self.durations is None or before is None or before.window != options.window:
                self.durations = RecentDurations(_seconds(options.window), self._monotonic())
            self.delay = None if options.delay is None else _seconds(options.delay)
            self.look_at = _NEVER if self.durations is None else float("-inf")
            budget = options.budget
            if budget is None or isinstance(budget, RetryBudget):
                self.budget = budget
            elif self.budget is None or before is None or before.budget != budget:
                self.budget = RetryBudget(budget, floor=_FLOOR, window=_BUDGET_WINDOW)
            if self.budget is not None:
                self.budget.join(self._site.recorder, self._monotonic())

    delay: float | None
    """Seconds after which a call is hedged now; None: it is not known yet, and no call is."""
    look_at: float
    """Monotonic time from which :meth:`look` is to be called before :attr:`delay` is read."""

    def results(self) -> dict[str, int]:
        """How many further attempts have ``won``, ``lost`` and ``failed``, and how many the ``budget`` or ``idempotency`` denied."""
        with self._lock:
            return dict(self._results)

    async def __call__(self, inner: Next, call: Call) -> Any:
        """The first good answer."""
        if call.started >= self.look_at:
            self.look(call.started)
        if (delay := self.delay) is None or call.blocking or call.replayed is not None or call.scope is not None:
            return await self._otherwise(inner, call)
        try:
            expiry = begin(delay, True, self.fire)  # noqa: FBT003 - a keyword costs time
        except RuntimeError as homeless:
            # No task, no second one: somebody drives coroutines in a way of his own.
            self.broken("hedge", call, homeless)
            return await inner(call)
        expiry.about = inner, call, copy_context(), delay
        return await self._within(expiry, inner, call)

    async def _otherwise(self, inner: Next, call: Call) -> Any:
        """A call whose first attempt is over, or that is not hedged at all."""
        if call.scope is not None:
            (expiry, result), call.scope = call.scope, None
            # That attempt was made on the express path: it failed, or a race was on when it answered.
            return await (self._end(expiry, call, result, None) if call.replayed is None else self._within(expiry, inner, call))
        counts = call.replayed is None and not call.blocking
        result = await inner(call)
        if counts:
            self.answered(self._monotonic() - call.started)
        return result

    async def _within(self, expiry: Expiry, inner: Next, call: Call) -> Any:
        failed: BaseException | None = None
        result: Any = None
        try:
            result = await inner(call)
        except BaseException as error:
            if type(expiry.about) is tuple:
                expiry.ours(error)
                raise
            failed = error
        else:
            if type(expiry.about) is tuple:
                expiry.ours(None)
                self.answered(self._monotonic() - call.started)
                return result
        try:
            return await self._end(expiry, call, result, failed)
        finally:
            # This frame is on the traceback of the error: without this the two would keep each other alive.
            del failed

    async def _end(self, expiry: Expiry, call: Call, result: Any, failed: BaseException | None) -> Any:
        race: Race = expiry.about
        try:
            result = await race.end(result, failed)
        finally:
            failed = expiry.about = None
        self.answered(self._monotonic() - call.started)
        return result

    def answered(self, elapsed: float) -> None:
        """A call was answered within so many seconds."""
        if self.durations is not None:
            self.durations.note(elapsed)

    def look(self, now: float) -> None:
        """Ask the durations again what the delay is to be."""
        with self._lock:
            durations, options = self.durations, self.options
            if durations is None or options.quantile is None:
                return
            self.look_at = now + min(1.0, _seconds(options.window) / 20.0)
            durations.roll(now)
            found = durations.quantile(options.quantile) if durations.count >= options.minimum_calls else None
            if found is not None:
                # One of a hundred numbers, so that calls share timers though the quantile moves.
                self.delay = preferred(max(found, _seconds(options.minimum_delay)))
            else:
                self.delay = None if options.delay is None else _seconds(options.delay)

    def fire(self, expiry: Expiry) -> None:
        """No answer within the delay."""
        self.call_of(expiry)
        Race(self, expiry, *expiry.about).go_on()

    @staticmethod
    def call_of(expiry: Expiry) -> Any:
        """The call that a limit is about. One that began on the express path is made now, with what is inside of the hedge."""
        about = expiry.about
        if type(about) is not tuple:
            return about.call
        inner, call, context, delay, *begun = about
        if inner is None:
            inner, call = call.begun(*begun)  # a guard, and what it was called with
            expiry.about = inner, call, context, delay
        return call

    def most(self) -> int:
        """How many further attempts there may be."""
        return self.options.max_hedges

    def again(self, call: Call, number: int, delay: float) -> bool:
        """Whether a further attempt may be made. Counts what is withheld, and tells of what begins."""
        if call.time_left() == 0.0:
            return False
        # A guard with a hedge says that its calls may be repeated; a single one may be without the key that makes it so.
        if not call.repeatable():
            self._count("idempotency")
            return False
        if not self._may_spend():
            self._count("budget")
            return False
        if self.options.shadow:
            self._site.shadow.note("hedge", "hedge", f"no answer within {delay:.3g} s")
            return False
        if self._listeners.wants(HedgeStarted):
            self._listeners.emit(HedgeStarted(call.guard, self._clock.time(), number, delay))
        return True

    def note(self, call: Call, number: int, end: str) -> None:
        """A further attempt has ended."""
        self._count(end)
        if end == "won" and self._listeners.wants(HedgeWon):
            self._listeners.emit(HedgeWon(call.guard, self._clock.time(), number))

    def broken(self, what: str, call: Call, error: Exception) -> None:
        """Report what raised where nothing may."""
        self._listeners.defect(f"{what} of guard {call.guard}", error, self._clock.time())

    def _count(self, result: str) -> None:
        with self._lock:
            self._results[result] += 1

    def _may_spend(self) -> bool:
        if self.budget is None:
            return True
        now = self._monotonic()
        if self.options.shadow and self.budget is self.options.budget:
            # What others share is not spent on what is not done.
            return self.budget.left(now, 1.0 if self._site.scale is None else self._site.scale()) >= 1.0
        return self.budget.take(now, self._site.scale)


def _seconds(value: float | timedelta) -> float:
    # Durations were turned into seconds when the options were made.
    return value  # type: ignore[return-value]
