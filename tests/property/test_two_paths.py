"""The quiet path and the full path mean the same.

Random histories are lived through twice, by two guards with equal options: one may take its quiet path, the other is held on the full path.
Whatever anybody can see of a guard must be the same after each step. This is what allows the quiet path to exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from somaresil import SLO, CircuitBreaker, Classify, Fallback, ManualClock, RateLimit, Resilience, Retry, Throttle
from somaresil.model.breaker import IllegalTransition

SLOW = 2.0


class Oops(Exception):
    """What callees of these tests raise."""


class Fatal(Oops):
    """What the classifier of these tests calls fatal; it says when to come back."""

    retry_after = 6.0


KINDS: tuple[type[BaseException], ...] = (Oops, Fatal, ValueError, StopIteration, KeyboardInterrupt, SystemExit, GeneratorExit)
CONTROLS = ("reset", "disable", "force_open", "observe")

# Binary fractions, so that sums and differences are exact and windows have sharp edges.
pauses = st.sampled_from([0.0, 0.0, 0.25, 1.0, SLOW, SLOW + 0.25, 7.5, 11.0])


@dataclass(frozen=True)
class Attempt:
    """What the callee does when it is called once: let time pass, have an operator act meanwhile, and end."""

    lasts: float
    meanwhile: str | None
    raises: type[BaseException] | None
    chained: bool


@dataclass(frozen=True)
class Struck:
    delay: float
    error: BaseException | None


@dataclass(frozen=True)
class Step:
    """One step of a history."""

    do: str
    pause: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    handling: bool = False
    strikes: tuple[bool, ...] = ()
    seconds: float | None = None
    """Until the deadline of the request."""


def call(
    *,
    handling: bool = False,
    meanwhile: str | None = None,
    raises: type[BaseException] | None = None,
    chained: bool = False,
    lasts: float = 0.0,
    pause: float = 0.0,
) -> Step:
    """A call that is told what to do at its first attempt only."""
    return Step("call", pause, attempts=(Attempt(lasts, meanwhile, raises, chained),), handling=handling)


attempts = st.builds(
    Attempt,
    lasts=pauses,
    meanwhile=st.sampled_from([None] * 8 + ["trip", "trip", "arm", "arm", "recurse", *CONTROLS]),
    raises=st.sampled_from([None] * 8 + [Oops] * 6 + [Fatal] + list(KINDS)),
    chained=st.booleans(),
)
calls = st.builds(
    Step,
    do=st.just("call"),
    pause=pauses,
    attempts=st.lists(attempts, min_size=1, max_size=4).map(tuple),
    handling=st.booleans(),
    seconds=st.sampled_from([None, None, None, 0.0, 1.0, 8.0]),
)
others = st.builds(
    Step,
    do=st.sampled_from(["trip", *CONTROLS, "release", "arm", "disarm", "reconfigure"]),
    pause=pauses,
    strikes=st.lists(st.booleans(), max_size=3).map(tuple),
)
histories = st.lists(st.one_of(calls, calls, calls, calls, others), max_size=14)

breakers = st.builds(
    CircuitBreaker,
    failure_rate=st.sampled_from([0.5, 0.75, 1.0]),
    slow_call_rate=st.just(0.5),
    slow_call_duration=st.just(SLOW),
    consecutive_failures=st.sampled_from([None, 2, 3]),
    window=st.sampled_from([10.0, 20.0]),
    window_calls=st.sampled_from([None, None, 4]),
    minimum_calls=st.integers(1, 4),
    open_duration=st.just(4.0),
    half_open_calls=st.integers(1, 3),
    half_open_concurrency=st.sampled_from([None, 1]),
    probe_timeout=st.sampled_from([1.0, 30.0]),
    ramp_up=st.sampled_from([0.0, 8.0]),
    ramp_up_from=st.sampled_from([0.25, 0.5]),
    max_retry_after=st.sampled_from([None, 5.0, 300.0]),
    shadow=st.sampled_from([False, False, False, True]),
)
classifiers = st.sampled_from([None, None, Classify(ignored=ValueError, fatal=Fatal), Classify(fatal=Fatal, fatal_duration=2.0)])
"""None of them looks at results: those that do take the quiet path away."""
retries = st.builds(Retry, attempts=st.integers(1, 3), on=st.just((Oops, ValueError)), wait=st.sampled_from([None, 0.0, 1.5]))
limits = st.builds(
    RateLimit,
    st.integers(1, 4),
    per=st.sampled_from([4.0, 16.0]),
    burst=st.sampled_from([None, 1]),
    cost=st.sampled_from([1.0, 2.0, lambda item: len(item) / 4]),
    max_waiting=st.just(1),
    max_wait=st.just(2.0),
)
throttles = st.builds(Throttle, k=st.sampled_from([1.0, 2.0]), minimum_calls=st.integers(1, 3), window=st.just(30.0))
fallbacks = st.sampled_from(["answers", "fails"])


class Rule:
    """An experiment whose strikes were decided beforehand."""

    def __init__(self, strikes: tuple[bool, ...]) -> None:
        self.left = list(strikes)
        self.live = True
        self.over = False

    def decide(self, _call=None) -> bool:
        return True

    def strike(self, _decided=None) -> Struck | None:
        return Struck(0.25, Oops("injected")) if self.left and self.left.pop(0) else None

    async def hold(self, runtime: Any, seconds: float) -> bool:
        await runtime.sleep(seconds)
        return True


def drive(coroutine: Any) -> Any:
    """Run a coroutine to its end without an event loop: everything it waits for is there already."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value


@dataclass
class World:
    """One guard with everything around it."""

    held: bool
    suspends: bool
    options: dict[str, Any]
    fallback: str | None
    script: list[Attempt] = field(default_factory=list)
    made: list[BaseException] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)
    quiet_calls: int = 0

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.resilience = Resilience("shop", clock=self.clock, seed=7)
        self.resilience.slos.add(SLO("fast", 90.0, timedelta(hours=1), latency=1.0))
        self.resilience.slos.add(SLO("there", 90.0, timedelta(hours=1)))
        options = dict(self.options)
        if self.fallback is not None:
            options["fallback"] = Fallback(self.answer if self.fallback == "answers" else self.fail, on=(Oops, LookupError))
        self.guard = self.resilience.guard("pay", slo=("fast", "there"), **options)
        self.resilience.on(self.events.append)
        self.rules: list[Rule] = []
        if self.held:
            self.guard.switch.hold("test")
        if self.suspends:

            @self.guard
            async def pay(item: str) -> str:
                return self.attempt(item)

            self.pay = lambda item: drive(pay(item))
        else:
            self.pay = self.guard(self.attempt)

    # -- what the callee does ---------------------------------------------------------------------------------------------------------

    def attempt(self, item: str) -> str:
        if not self.script:
            return "as usual"
        plan = self.script.pop(0)
        self.clock.advance(plan.lasts)
        if plan.meanwhile == "recurse":
            self.outcome(lambda: self.pay("inner"))
        elif plan.meanwhile == "arm":
            self.arm((True, False, True))
        elif plan.meanwhile is not None:
            self.control(plan.meanwhile)
        # A coroutine cannot raise StopIteration: Python makes a RuntimeError of it before anybody sees it.
        kind = RuntimeError if plan.raises is StopIteration and self.suspends else plan.raises
        if kind is None:
            return f"answer to {item}"
        cause = LookupError("the reason")
        self.made += [kind(len(self.made)), cause]
        if plan.chained:
            try:
                raise cause
            except LookupError:
                raise self.made[-2] from cause
        raise self.made[-2]

    def answer(self, item: str) -> str:
        return f"instead of {item}"

    def fail(self, item: str) -> str:
        self.made.append(Oops("no fallback"))
        raise self.made[-1]

    # -- what is seen -----------------------------------------------------------------------------------------------------------------

    def name(self, error: BaseException | None) -> object:
        """Which of the errors made here it is; those of the guard by type and text."""
        for number, known in enumerate(self.made):
            if known is error:
                return number
        return None if error is None else (type(error), str(error))

    def outcome(self, call: Any) -> object:
        try:
            return call()
        except BaseException as error:
            seen = (self.name(error), self.name(error.__cause__), self.name(error.__context__), error.__suppress_context__)
            if isinstance(error, IllegalTransition) or self.name(error) in range(len(self.made)):
                return seen
            return (*seen, error.__reduce__())

    def control(self, what: str) -> object:
        breaker = self.resilience.breaker("pay")
        return self.outcome(lambda: breaker.trip(4.0) if what == "trip" else getattr(breaker, what)())

    def arm(self, strikes: tuple[bool, ...]) -> None:
        self.rules.append(Rule(strikes))
        self.guard.faults.arm(self.rules[-1])

    def take(self, step: Step) -> object:
        """Live through one step; what came of it."""
        self.clock.advance(step.pause)
        if step.do == "call":
            self.script = list(step.attempts)
            self.quiet_calls += self.guard.switch.quiet
            with self.resilience.deadline(step.seconds):
                if not step.handling:
                    return self.outcome(lambda: self.pay("bread"))
                # Called while another error is being handled: that one must not get into the history of what the callee raises.
                try:
                    raise LookupError("something else")
                except LookupError:
                    return self.outcome(lambda: self.pay("bread"))
        if step.do == "release":
            return self.guard.breaker.release(self.guard.breaker.era)
        if step.do == "arm":
            return self.arm(step.strikes)
        if step.do == "disarm":
            return self.guard.faults.disarm(self.rules.pop()) if self.rules else None
        if step.do == "reconfigure":
            return self.guard.configure(breaker=CircuitBreaker(minimum_calls=2, open_duration=2.0, window=10.0))
        return self.control(step.do)

    def state(self) -> dict[str, object]:
        """Everything that can be seen of the guard."""
        breaker = self.guard.breaker
        return {
            "records": self.guard.recorder.counts().cells,
            "state": breaker.state,
            "era": (breaker.era, self.guard.switch.era),
            "window": breaker.tally(),
            "retry after": breaker.retry_after(),
            "last error": breaker.last_error,
            "available": self.guard.rate_limit and self.guard.rate_limit.available(),
            "requests": self.guard.throttle and (self.guard.throttle.requests(), self.guard.throttle.probability),
            "would have been": self.guard.shadow.counts(),
            "budgets": [self.resilience.slos.error_budget(name) for name in self.resilience.slos.names],
            "incidents": (self.resilience.slos.incidents.running, self.resilience.slos.incidents.ended),
            "time": self.clock.monotonic(),
            "events": self.events,
            "left of the script": self.script,
        }


NOTHING_ELSE: dict[str, Any] = {"retry": None, "limit": None, "throttle": None, "fallback": None, "classify": None}


@pytest.mark.parametrize("suspends", [False, True], ids=["sync", "async"])
@settings(max_examples=250)
@given(
    breaker=breakers,
    retry=st.none() | retries,
    limit=st.none() | limits,
    throttle=st.none() | throttles,
    fallback=st.none() | fallbacks,
    classify=classifiers,
    history=histories,
)
@example(  # an operator trips the breaker while a call runs that ends well
    breaker=CircuitBreaker(), history=[call(), call(meanwhile="trip")], **NOTHING_ELSE
)
@example(  # an experiment is armed while a call runs that fails and is retried
    breaker=CircuitBreaker(), history=[call(meanwhile="arm", raises=Oops)], **NOTHING_ELSE | {"retry": Retry(attempts=2, wait=0.0)}
)
@example(  # a call fails with a history of its own while its caller is handling another error
    breaker=CircuitBreaker(),
    history=[call(raises=Oops, chained=True, handling=True)],
    **NOTHING_ELSE | {"retry": Retry(attempts=1)},
)
@example(  # a call uses up what there is, and those that come after wait, or are rejected
    breaker=CircuitBreaker(), history=[call(), call(), call()], **NOTHING_ELSE | {"limit": RateLimit(1, per=4.0)}
)
@example(  # calls fail until some of them are refused
    breaker=CircuitBreaker(minimum_calls=100), history=[call(raises=Oops)] * 6, **NOTHING_ELSE | {"throttle": Throttle(minimum_calls=1)}
)
@example(  # an error is fatal, by the word of a classifier that looks at nothing else
    breaker=CircuitBreaker(), history=[call(), call(raises=Fatal), call()], **NOTHING_ELSE | {"classify": Classify(fatal=Fatal)}
)
@example(  # an error is nobody's fault
    breaker=CircuitBreaker(consecutive_failures=1),
    history=[call(), call(raises=ValueError), call()],
    **NOTHING_ELSE | {"classify": Classify(ignored=ValueError)},
)
@example(  # a good call opens the circuit because it was slow: it is none of those that were answered while the incident lasts
    breaker=CircuitBreaker(slow_call_rate=0.5, slow_call_duration=SLOW, minimum_calls=1, open_duration=4.0, half_open_calls=1, ramp_up=8.0),
    history=[call(lasts=SLOW + 0.25), call(pause=11.0)],
    **NOTHING_ELSE,
)
def test_both_paths_leave_the_same_behind(suspends, breaker, retry, limit, throttle, fallback, classify, history):
    """Records, states, eras, windows, results, exceptions and events are equal after each step of any history."""
    options = {"breaker": breaker, "retry": retry, "rate_limit": limit, "throttle": throttle, "classify": classify}
    quiet, full = (World(held, suspends, options, fallback) for held in (False, True))
    for step in history:
        assert quiet.take(step) == full.take(step), step
        seen, expected = quiet.state(), full.state()
        for what in expected:
            assert seen[what] == expected[what], (step, what)
    assert full.quiet_calls == 0


def test_the_histories_do_take_the_quiet_path():
    """The world that is not held is on its quiet path while nothing is wrong, so the comparison compares two things."""
    world = World(held=False, suspends=False, options={"breaker": CircuitBreaker()}, fallback=None)
    world.take(call())
    assert world.quiet_calls == 1


@pytest.mark.parametrize("suspends", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("raises", [None, Oops])
def test_a_held_guard_is_on_the_full_path(suspends, raises, monkeypatch):
    """Holding the switch keeps every call from the quiet path's counter, good or bad."""
    world = World(held=True, suspends=suspends, options={"breaker": CircuitBreaker()}, fallback=None)
    world.take(call(raises=raises))
    assert sum(world.guard.recorder.quiet_counts()) == 0
    assert world.guard.recorder.counts().total() == 1
