"""Many threads at one moment, many times over: what jcstress does for the JVM.

A scenario makes something fresh in every round, and each of eight actors does one thing to it at once. What has come of it is one outcome
out of a set of allowed ones. The actors meet before each round, take turns at being the first, and the interpreter switches between
threads as often as it can.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from somaresil import Bulkhead, CircuitBreaker, ManualClock, Outcome, Rejected, Resilience
from somaresil.chaos.token import Nonces
from somaresil.events import BreakerChanged
from somaresil.guard.assembly import LAYERS
from somaresil.model.breaker import State
from tests.behaviour.kit import PATIENCE, one_strike

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

ACTORS = 8
BATCH = 32


@dataclass(frozen=True)
class Scenario:
    """What eight actors do at once, and what may come of it."""

    make: Callable[[], Any]
    act: Callable[[Any, int], object]
    seen: Callable[[Any, list[Any]], Hashable]
    """The outcome: of the thing and of what each actor got."""
    allowed: frozenset[Hashable]


def _restless(frame: Any, event: str, argument: object) -> Any:
    """A trace function that lets another thread go on before each line of somaresil."""
    if "somaresil" not in frame.f_globals.get("__name__", ""):
        return None
    if event == "line":
        time.sleep(0)
    return _restless


def _end(scenario: Scenario, thing: Any, role: int, *, restless: bool) -> Any:
    """What an actor has got, errors as values."""
    usual = sys.gettrace()
    if restless:
        sys.settrace(_restless)
    try:
        return scenario.act(thing, role)
    except BaseException as error:
        return error
    finally:
        sys.settrace(usual)


def explore(scenario: Scenario, rounds: int, *, restless: bool = False) -> Counter[Hashable]:
    """How often each outcome was seen in so many rounds.

    ``restless``: each actor gives way before each line of somaresil, too. A round takes some twenty times as long, and what is missing is
    found in far fewer.
    """
    found: Counter[Hashable] = Counter()
    gate = threading.Barrier(ACTORS + 1)
    batch: list[tuple[Any, list[int], list[Any]]] = []

    there: list[int] = []

    def actor(thread: int) -> None:
        there.append(thread)
        while True:
            gate.wait(PATIENCE)
            if not batch:
                return
            for turn, (thing, arrived, ends) in enumerate(batch):
                role = (thread + turn) % ACTORS
                arrived.append(role)
                while len(arrived) < ACTORS:
                    time.sleep(0)
                ends[role] = _end(scenario, thing, role, restless=restless)
            gate.wait(PATIENCE)

    threads = [threading.Thread(target=actor, args=(number,), daemon=True) for number in range(ACTORS)]
    interval = sys.getswitchinterval()
    try:
        for number, thread in enumerate(threads):
            thread.start()
            # One after the other, and at the usual pace: while coverage is measured each installs a trace function when it begins, and
            # two that do so at once are one error too many.
            while len(there) <= number and thread.is_alive():
                time.sleep(0)
        sys.setswitchinterval(1e-6)
        left = rounds
        while left > 0:
            batch[:] = [(scenario.make(), [], [None] * ACTORS) for _ in range(min(BATCH, left))]
            left -= len(batch)
            gate.wait(PATIENCE)
            gate.wait(PATIENCE)
            found.update(scenario.seen(thing, ends) for thing, _, ends in batch)
        batch.clear()
        gate.wait(PATIENCE)
    except BaseException:
        gate.abort()
        raise
    finally:
        sys.setswitchinterval(interval)
    for thread in threads:
        thread.join(PATIENCE)
    return found


class Dependency:
    """A guard on a clock that stands, and everything that its breaker has told."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=7)
        self.guard = self.resilience.guard("dependency", **options)
        self.told: list[BreakerChanged] = []
        self.resilience.on(self.told.append, BreakerChanged)
        self.inside = 0
        self.most = 0
        self._lock = threading.Lock()

    @property
    def breaker(self) -> Any:
        return self.guard.breaker

    def half_open(self) -> Dependency:
        """Its circuit was opened, and its time is just over."""
        self.breaker.trip(5.0)
        self.clock.advance(5.0)
        return self

    def ramping(self) -> Dependency:
        """Its probe went well."""
        self.half_open()
        self.guard.call(int)
        return self

    def enter(self) -> None:
        """One more caller has got in; how many there are at once is noted."""
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def work(self) -> None:
        """What counts how many of it run at once."""
        self.enter()
        time.sleep(0)
        with self._lock:
            self.inside -= 1

    def whole(self) -> bool:
        """Whether everything agrees that has to: switch, breaker, counter of eras and what was told."""
        breaker, switch = self.breaker, self.guard.switch
        closed = breaker.state is State.CLOSED
        eras = sorted(event.era for event in self.told)
        return (
            switch.quiet is closed
            and switch.era == breaker.era == len(self.told) + 1
            and eras == list(range(2, breaker.era + 1))
            and (breaker.refuse_until > 0.0) is (breaker.state in {State.OPEN, State.FORCED_OPEN})
        )


def fails() -> None:
    """A call that fails."""
    raise LookupError


def kinds(ends: list[Any]) -> Counter[str]:
    """How often the actors got what."""
    return Counter(type(end).__name__ for end in ends)


# -- breaker --------------------------------------------------------------------------------------------------------------------------


def _probe(thing: Dependency, role: int) -> object:
    permit = thing.breaker.admit()
    if permit.probe is not None:
        thing.enter()
    return permit


HALF_OPEN = Scenario(
    make=lambda: Dependency(breaker=CircuitBreaker(half_open_calls=3)).half_open(),
    act=_probe,
    seen=lambda thing, ends: (kinds(ends)["Permit"], kinds(ends)["CircuitOpen"], thing.inside, thing.whole()),
    allowed=frozenset({(3, 5, 3, True)}),
)
"""Three callers of eight are probes, whoever comes first."""


def _lend(thing: Dependency, role: int) -> object:
    permit = thing.breaker.admit()
    thing.work()
    outcome = Outcome.ABANDONED if role % 2 else Outcome.GOOD
    thing.breaker.settle(permit, outcome, 0.0, thing.clock.monotonic())
    return outcome


CONCURRENCY = Scenario(
    make=lambda: Dependency(breaker=CircuitBreaker(half_open_calls=100, half_open_concurrency=2)).half_open(),
    act=_lend,
    seen=lambda thing, ends: (thing.most <= 2, thing.inside, thing.breaker.state.value, thing.whole(), set(kinds(ends)) <= _LENT),
    allowed=frozenset({(True, 0, "half_open", True, True)}),
)
"""However they come and leave, no more than two probes are under way at once."""
_LENT = {"Outcome", "CircuitOpen"}


OPENING = Scenario(
    make=lambda: Dependency(breaker=one_strike()),
    act=lambda thing, role: thing.guard.call(fails),
    seen=lambda thing, ends: (
        len(thing.told),
        thing.breaker.state.value,
        kinds(ends)["LookupError"] >= 1,
        thing.guard.recorder.counts().total(Outcome.BAD) == kinds(ends)["LookupError"],
        thing.guard.recorder.counts().total(Outcome.REJECTED) == kinds(ends)["CircuitOpen"],
        sum(kinds(ends).values()) == kinds(ends)["LookupError"] + kinds(ends)["CircuitOpen"],
        thing.whole(),
    ),
    allowed=frozenset({(1, "open", True, True, True, True, True)}),
)
"""Eight failures open a circuit once; each caller gets its own error or a rejection, and is counted as that."""


def _fail_or_not(thing: Dependency, role: int) -> object:
    return thing.guard.call(fails if role < 4 else int)


COUNTING = Scenario(
    make=lambda: Dependency(breaker=CircuitBreaker(minimum_calls=100)),
    act=_fail_or_not,
    seen=lambda thing, ends: (*thing.breaker.tally()[:2], thing.guard.recorder.counts().total(), thing.whole()),
    allowed=frozenset({(8, 4, 8, True)}),
)
"""Quiet successes and failures are all in the window, none lost and none twice."""


def _steer(thing: Dependency, role: int) -> object:
    if role < 4:
        return thing.guard.call(fails)
    return getattr(thing.resilience.breaker("dependency"), ("trip", "reset", "force_open", "reset")[role - 4])()


CONTROLS = Scenario(
    make=lambda: Dependency(breaker=one_strike()),
    act=_steer,
    seen=lambda thing, ends: (set(kinds(ends)) <= _STEERED, thing.breaker.state.value in {"closed", "open", "forced_open"}, thing.whole()),
    allowed=frozenset({(True, True, True)}),
)
"""Operators and failures at once: whatever comes of it, switch, breaker and events agree."""
_STEERED = {"LookupError", "CircuitOpen", "NoneType", "IllegalTransition"}


RAMP = Scenario(
    make=lambda: Dependency(breaker=one_strike(ramp_up=100.0, ramp_up_from=0.25)).ramping(),
    act=lambda thing, role: thing.breaker.admit(),
    seen=lambda thing, ends: (kinds(ends)["Permit"], kinds(ends)["CircuitOpen"], thing.breaker.state.value),
    allowed=frozenset({(2, 6, "ramping")}),
)
"""A quarter of eight is two, at once as well."""


def _recover(thing: Dependency, role: int) -> object:
    return thing.guard.call(fails if role == 0 else thing.work)


RECOVERY = Scenario(
    make=lambda: Dependency(breaker=CircuitBreaker(half_open_calls=2, failure_rate=0.5, open_jitter=0.0, minimum_calls=1)).half_open(),
    act=_recover,
    seen=lambda thing, ends: (
        tuple(event.after for event in sorted(thing.told, key=lambda event: event.era)) in _RECOVERIES,
        thing.inside,
        set(kinds(ends)) <= {"LookupError", "CircuitOpen", "NoneType"},
        thing.whole(),
    ),
    allowed=frozenset({(True, 0, True, True)}),
)
"""Seven good callers and one bad one meet a half-open circuit: the steps that are told are those of a life that there is."""
_RECOVERIES = {
    ("open", "half_open"),
    ("open", "half_open", "open"),
    ("open", "half_open", "closed"),
    ("open", "half_open", "closed", "open"),
}


def _by_key(thing: Dependency, role: int) -> object:
    return thing.guard.keyed(role % 4).call(fails if role % 4 == 0 else int)


def _keys(thing: Dependency) -> dict[State, int]:
    return {state: number for state, number in thing.breaker.keys.states().items() if number}


KEYS = Scenario(
    make=lambda: Dependency(breaker=one_strike(max_keys=2)),
    act=_by_key,
    seen=lambda thing, ends: (
        sum(_keys(thing).values()) <= 2,
        _keys(thing).get(State.OPEN, 0) + (thing.breaker.state is State.OPEN) >= 1,
        thing.guard.recorder.counts().total(),
        set(kinds(ends)) <= {"LookupError", "CircuitOpen", "int"},
    ),
    allowed=frozenset({(True, True, 8, True)}),
)
"""Four keys where there is room for two: never more, what fails is open somewhere, and every call is counted."""


# -- limits ---------------------------------------------------------------------------------------------------------------------------


def _limited(thing: Dependency, role: int) -> object:
    return thing.guard.call(thing.work)


BULKHEAD = Scenario(
    make=lambda: Dependency(bulkhead=3),
    act=_limited,
    seen=lambda thing, ends: (
        thing.most <= 3,
        kinds(ends)["NoneType"] + kinds(ends)["BulkheadFull"],
        kinds(ends)["NoneType"] >= 3,
        thing.guard.bulkhead.active,
    ),
    allowed=frozenset({(True, 8, True, 0)}),
)
"""Never more than three at once, nobody is refused for nothing, and every slot comes back."""


QUEUE = Scenario(
    make=lambda: Dependency(bulkhead=Bulkhead(2, max_waiting=8, max_wait=3600.0)),
    act=_limited,
    seen=lambda thing, ends: (thing.most <= 2, thing.guard.bulkhead.active, thing.guard.bulkhead.waiting, set(kinds(ends)) <= _SERVED),
    allowed=frozenset({(True, 0, 0, True)}),
)
"""On a clock that stands nobody waits long: whoever finds no slot leaves the line, or was granted one, and none is lost."""
_SERVED = {"NoneType", "BulkheadFull"}


def _rate_limited() -> Dependency:
    from somaresil import RateLimit

    return Dependency(rate_limit=RateLimit(3, per=3600.0))


RATE_LIMIT = Scenario(
    make=_rate_limited,
    act=_limited,
    seen=lambda thing, ends: (kinds(ends)["NoneType"], sum(isinstance(end, Rejected) for end in ends)),
    allowed=frozenset({(3, 5)}),
)
"""Three of eight are within the rate."""


# -- names and plans ------------------------------------------------------------------------------------------------------------------


def _get_or_create(resilience: Resilience, role: int) -> object:
    return resilience.guard("dependency", bulkhead=3)


REGISTRY = Scenario(
    make=lambda: Resilience("tests", clock=ManualClock(), seed=7),
    act=_get_or_create,
    seen=lambda resilience, ends: (kinds(ends)["Guard"], len({id(end) for end in ends}), ends[0] is resilience.guards["dependency"]),
    allowed=frozenset({(8, 1, True)}),
)
"""Eight who name a guard for the first time get the same one."""


def _use(nonces: Nonces, role: int) -> object:
    return nonces.use("smoke", 3, 0.0, 60.0)


USES = Scenario(
    make=lambda: Nonces(8),
    act=_use,
    seen=lambda nonces, ends: (tuple(sorted(end for end in ends if isinstance(end, int))), kinds(ends)["PlanRefused"]),
    allowed=frozenset({((1, 2, 3), 5)}),
)
"""A plan for three uses is used three times, each of which has a number of its own."""


SCENARIOS: dict[str, Scenario] = {
    "half-open": HALF_OPEN,
    "probes at once": CONCURRENCY,
    "opening": OPENING,
    "counting": COUNTING,
    "controls": CONTROLS,
    "ramp": RAMP,
    "recovery": RECOVERY,
    "keys": KEYS,
    "bulkhead": BULKHEAD,
    "waiting line": QUEUE,
    "one name": REGISTRY,
    "uses of a plan": USES,
} | ({"rate limit": RATE_LIMIT} if "rate_limit" in LAYERS else {})
