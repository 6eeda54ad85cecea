"""When to stop: what an experiment must not do to the service.

    ChaosConfig(..., stop_when=(BurnRateAbove("api_availability", 10.0), "checkout is slow", lambda: queue.qsize() > 1_000))

A condition is asked from the beginning of an experiment to its end, every ``interval`` seconds on the clock of the engine: in a thread, and
unless it is ``slow`` in the calls that come by as well. It answers True or a text (stop, and why), False (go on) or None (unknown). One
that raises stops the experiment, and so does one that has known nothing for ``max_age`` seconds: an experiment that nobody can watch does
not go on.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from somaresil.config import Checker, did_you_mean
from somaresil.errors import describe
from somaresil.model import slo as model
from somaresil.model.breaker import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from somaresil.chaos.run import ExperimentRun
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = [
    "Answer",
    "BreakerOpen",
    "BudgetBelow",
    "BurnRateAbove",
    "ChaosBudgetSpent",
    "Condition",
    "Objectives",
    "StopCondition",
    "Watched",
    "World",
    "as_condition",
]

Answer = bool | str | None
"""True or a text: stop; False: go on; None: unknown."""

_SLOW: Final = 0.05
"""Seconds that an answer may take before the condition is not asked in calls any more."""
_MOST_SAMPLES: Final = 300


class Objectives(Protocol):
    """What conditions ask about objectives; the SLOs of a process are handed in as this."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the objectives."""
        ...

    def burn_rate(self, name: str, window: float) -> float | None:
        """Multiple of the sustainable burn over the last ``window`` seconds (from 300 on); None: no event."""
        ...

    def remaining_share(self, name: str) -> float | None:
        """Share of the error budget that is left; None: no event."""
        ...

    def chaos_budget(self, name: str) -> tuple[float | None, int]:
        """Share of the budget for experiments that is left (None: not known), and the events that this is worked out of."""
        ...

    def totals(self, name: str, *, injected: bool) -> tuple[int, int]:
        """Good and bad events since it began, with those that experiments have touched, or without."""
        ...

    def target_percentage(self, name: str) -> float:
        """What is promised."""
        ...


class World(NamedTuple):
    """What a condition may look at."""

    clock: Clock
    guards: Callable[[], Mapping[str, Guard]]
    objectives: Objectives | None
    listeners: Listeners


class StopCondition(Protocol):
    """A condition that can be attached to experiments. Frozen: what it needs to remember belongs to one experiment."""

    @property
    def name(self) -> str:
        """What it is called in the reason of an end."""
        ...

    @property
    def interval(self) -> float | timedelta:
        """Seconds between two times it is asked."""
        ...

    @property
    def max_age(self) -> float | timedelta:
        """Seconds for which it may know nothing."""
        ...

    @property
    def slow(self) -> bool:
        """Whether it may wait for something: then no call asks it."""
        ...

    def check(self, check: Checker, world: World) -> None:
        """Note what is wrong with it here."""
        ...

    def watch(self, world: World) -> Callable[[], Answer]:
        """What to ask, for one experiment."""
        ...


@dataclass(frozen=True, slots=True)
class Condition:
    """A function of your own, by a name. It must be quick, or be ``slow=True``, which keeps it out of calls.

    One that is found to take more than 50 ms is kept out of them from then on.
    """

    name: str
    ask: Callable[[], object]
    _: KW_ONLY
    interval: float | timedelta = 1.0
    max_age: float | timedelta = 30.0
    slow: bool = False

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Condition")
        if not callable(self.ask):
            check.problem("ask", self.ask, "a function without arguments")
        check.type("slow", self.slow, bool, "True or False")
        _finish(self, check)

    def check(self, check: Checker, world: World) -> None:
        """Nothing: what it looks at is its own business."""

    def watch(self, world: World) -> Callable[[], Answer]:  # noqa: ARG002 - as above
        """The function itself, its answer read strictly: what is none is no answer."""
        ask = self.ask

        def answer() -> Answer:
            found = ask()
            if found is None or isinstance(found, bool | str):
                return found or False if isinstance(found, str) else found
            raise TypeError(f"expected True, False, a text or None, not {type(found).__name__}")

        return answer


@dataclass(frozen=True, slots=True)
class BurnRateAbove:
    """The error budget of ``slo`` burns more than ``limit`` times too fast over ``window`` seconds.

    ``injected`` None takes the events as the objective does, over windows from 5 minutes on, and remembers what was before the experiment.
    True and False count from the beginning of the experiment on, with the calls that experiments have touched or without them, over windows
    from 5 seconds on: without them it is what the *others* feel. Fewer than ``minimum_events`` are unknown.
    """

    slo: str
    limit: float
    _: KW_ONLY
    window: float | timedelta = 300.0
    injected: bool | None = None
    minimum_events: int = 10
    interval: float | timedelta = 1.0
    max_age: float | timedelta = 60.0

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("BurnRateAbove")
        check.name("slo", self.slo)
        check.number("limit", self.limit, minimum=0.0)
        lowest = 300.0 if self.injected is None else 5.0
        object.__setattr__(self, "window", check.seconds("window", self.window, minimum=lowest, exclusive=False, maximum=90 * 86_400.0))
        check.type("injected", self.injected, (bool, type(None)), "True, False or None")
        check.count("minimum_events", self.minimum_events)
        _finish(self, check)

    @property
    def name(self) -> str:
        """By its objective."""
        return f"burn rate of {self.slo}"

    @property
    def slow(self) -> bool:
        """It only counts."""
        return False

    def check(self, check: Checker, world: World) -> None:
        """The objective must be there."""
        _check_objective(check, self.slo, world)

    def watch(self, world: World) -> Callable[[], Answer]:
        """How fast it burns."""
        objectives, window = _objectives(world), _seconds(self.window)
        if self.injected is None:
            return lambda: self._judge(objectives.burn_rate(self.slo, window))
        injected, samples, clock = self.injected, deque[tuple[float, int, int]](), world.clock

        def answer() -> Answer:
            now, (good, bad) = clock.monotonic(), objectives.totals(self.slo, injected=injected)
            if not samples or now - samples[-1][0] >= window / _MOST_SAMPLES:
                samples.append((now, good, bad))
            while len(samples) > 1 and samples[1][0] <= now - window:
                samples.popleft()
            good, bad = good - samples[0][1], bad - samples[0][2]
            if good + bad < self.minimum_events:
                return None
            return self._judge(model.burn_rate(good, bad, objectives.target_percentage(self.slo)))

        return answer

    def _judge(self, rate: float | None) -> Answer:
        if rate is None:
            return None
        return f"{rate:.3g} times too fast, limit {self.limit:g}" if rate > self.limit else False


@dataclass(frozen=True, slots=True)
class BudgetBelow:
    """Less than ``share`` of the error budget of ``slo`` is left."""

    slo: str
    share: float
    _: KW_ONLY
    interval: float | timedelta = 1.0
    max_age: float | timedelta = 60.0

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("BudgetBelow")
        check.name("slo", self.slo)
        check.ratio("share", self.share)
        _finish(self, check)

    @property
    def name(self) -> str:
        """By its objective."""
        return f"budget of {self.slo}"

    @property
    def slow(self) -> bool:
        """It only counts."""
        return False

    def check(self, check: Checker, world: World) -> None:
        """The objective must be there."""
        _check_objective(check, self.slo, world)

    def watch(self, world: World) -> Callable[[], Answer]:
        """How much is left."""
        objectives = _objectives(world)

        def answer() -> Answer:
            left = objectives.remaining_share(self.slo)
            if left is None:
                return None
            return f"{left:.1%} left, less than {self.share:.1%}" if left < self.share else False

        return answer


@dataclass(frozen=True, slots=True)
class ChaosBudgetSpent:
    """Experiments have used up what ``slo`` gives them (``injected="separate"``, ``chaos_budget_percentage``).

    Every experiment on what such an objective counts has it by itself. Fewer than ``minimum_events`` in the period say nothing.
    """

    slo: str
    _: KW_ONLY
    minimum_events: int = 10
    interval: float | timedelta = 1.0
    max_age: float | timedelta = 60.0

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("ChaosBudgetSpent")
        check.name("slo", self.slo)
        check.count("minimum_events", self.minimum_events)
        _finish(self, check)

    @property
    def name(self) -> str:
        """By its objective."""
        return f"chaos budget of {self.slo}"

    @property
    def slow(self) -> bool:
        """It only counts."""
        return False

    def check(self, check: Checker, world: World) -> None:
        """The objective must be there."""
        _check_objective(check, self.slo, world)

    def watch(self, world: World) -> Callable[[], Answer]:
        """Whether anything is left. Without traffic nothing is used up either."""
        objectives = _objectives(world)

        def answer() -> Answer:
            left, events = objectives.chaos_budget(self.slo)
            if left is None or events < self.minimum_events:
                return False
            return f"{left:.1%} of it left" if left <= 0.0 else False

        return answer


@dataclass(frozen=True, slots=True)
class BreakerOpen:
    """The breaker of ``guard`` does not serve for longer than ``longer_than`` seconds: it is open, half-open or forced open."""

    guard: str
    longer_than: float | timedelta
    _: KW_ONLY
    interval: float | timedelta = 1.0
    max_age: float | timedelta = 30.0

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("BreakerOpen")
        check.name("guard", self.guard)
        object.__setattr__(self, "longer_than", check.seconds("longer_than", self.longer_than, exclusive=False))
        _finish(self, check)

    @property
    def name(self) -> str:
        """By its guard."""
        return f"breaker of {self.guard}"

    @property
    def slow(self) -> bool:
        """It only looks."""
        return False

    def check(self, check: Checker, world: World) -> None:
        """The guard must be there, and have one."""
        guards = world.guards()
        if self.guard not in guards or guards[self.guard].breaker is None:
            known = [name for name, guard in guards.items() if guard.breaker is not None]
            check.problem("stop_when", self.guard, "a guard with a breaker", did_you_mean(self.guard, known))

    def watch(self, world: World) -> Callable[[], Answer]:
        """Since when it is seen not to serve."""
        since: list[float] = []

        def answer() -> Answer:
            guard = world.guards().get(self.guard)
            if guard is None or guard.breaker is None:
                return None
            now = world.clock.monotonic()
            if guard.breaker.state not in {State.OPEN, State.HALF_OPEN, State.FORCED_OPEN}:
                since.clear()
                return False
            since[:] = since or [now]
            spent = now - since[0]
            return f"{guard.breaker.state.value} for {spent:.3g} s" if spent > _seconds(self.longer_than) else False

        return answer


def as_condition(condition: Any) -> StopCondition:
    """A condition, or a plain function as one."""
    if callable(getattr(condition, "watch", None)):
        found: StopCondition = condition
        return found
    name = str(getattr(condition, "__name__", type(condition).__name__))
    return Condition("".join(c if c.isalnum() or c in "_." else "_" for c in name)[:120] or "function", condition)


class Watched:
    """One condition of one experiment while it runs."""

    def __init__(self, condition: StopCondition, run: ExperimentRun, world: World) -> None:
        """Not asked yet."""
        self.condition = condition
        self.run = run
        self._world = world
        self._ask = condition.watch(world)
        self._lock = threading.RLock()
        self._asking = False
        self._due = float("-inf")
        self._known_at: float | None = None
        self.slow = condition.slow

    def answer(self) -> str | None:
        """Ask it once, whatever the time is; why to stop, or None."""
        try:
            found = self._ask()
        except Exception as broken:  # noqa: BLE001 - who cannot say that it may go on has said that it may not
            return f"it raised {describe(broken)[:200]}"
        if found is None:
            return None
        self._known_at = self._world.clock.monotonic()
        return None if found is False else "it is so" if found is True else found[:200]

    def look(self, *, in_call: bool) -> None:
        """Ask it if that is due, and end the experiment if it says so."""
        run, now = self.run, self._world.clock.monotonic()
        if not run.begun or run.end_reason is not None:
            return
        if self._known_at is None:
            self._known_at = now
        why = None
        # A condition that makes guarded calls itself comes by here again; and one thread is enough.
        if now >= self._due and not (in_call and self.slow) and self._lock.acquire(blocking=False):
            try:
                if not self._asking:
                    self._asking, self._due = True, now + _seconds(self.condition.interval)
                    try:
                        why = self._timed()
                    finally:
                        self._asking = False
            finally:
                self._lock.release()
        self.check_age(why)

    def check_age(self, why: str | None = None) -> None:
        """End the experiment when nothing has been known for too long."""
        known, most = self._known_at, _seconds(self.condition.max_age)
        if why is None and known is not None and (age := self._world.clock.monotonic() - known) > most:
            why = f"nothing is known for {age:.3g} s, limit {most:g} s"
        if why is not None:
            self.run.end(f"condition {self.condition.name}", why)

    def _timed(self) -> str | None:
        started = time.monotonic()
        why = self.answer()
        if not self.slow and (spent := time.monotonic() - started) > _SLOW:
            self.slow = True
            late = TimeoutError(f"{spent:.3g} s for an answer")
            where = f"stop condition {self.condition.name}"
            self._world.listeners.defect(where, late, self._world.clock.time(), "calls do not ask it any more")
        return why

    def forget_lock(self) -> None:
        """This process is a fork: a thread that stayed behind may hold it."""
        self._lock, self._asking = threading.RLock(), False


def _finish(condition: Any, check: Checker) -> None:
    """Check what all of them have."""
    if isinstance(condition, Condition):
        check.name("name", condition.name)
    before = len(check.problems)
    interval = check.seconds("interval", condition.interval, minimum=0.05, exclusive=False, maximum=3_600.0)
    object.__setattr__(condition, "interval", interval)
    # What stands in for a wrong interval is nothing that an age could be too short for.
    least = interval if len(check.problems) == before else 0.0
    object.__setattr__(condition, "max_age", check.seconds("max_age", condition.max_age, minimum=least, maximum=86_400.0))
    check.finish()


def _seconds(value: float | timedelta) -> float:
    return float(value)  # type: ignore[arg-type]


def _objectives(world: World) -> Objectives:
    if world.objectives is None:
        raise LookupError("no objectives")
    return world.objectives


def _check_objective(check: Checker, name: str, world: World) -> None:
    names = world.objectives.names if world.objectives is not None else ()
    if name not in names:
        known = ", ".join(names) or "none is defined"
        check.problem("stop_when", name, f"an objective that was added ({known})", did_you_mean(name, names))
