"""One object a process: names, places, controls and the view of everything."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import threading
import time
from datetime import timedelta

import pytest

import somaresil
from somaresil import SLO, ConfigurationError, ManualClock, Outcome, Resilience, SystemClock
from somaresil.clock import STEERED
from somaresil.events import BreakerChanged, CallEnded, DefectFound
from somaresil.model.breaker import IllegalTransition, State
from somaresil.resilience import alive
from tests.behaviour.kit import Boom, Stand, one_strike


def paths_of(make):
    with pytest.raises(ConfigurationError) as raised:
        make()
    return [problem.path for problem in raised.value.problems]


def test_the_place_comes_from_arguments_then_from_the_environment(monkeypatch):
    """An argument wins over its variable, whose name a problem tells; without either only the instance has a name."""
    for name in ("INSTANCE", "ZONE", "REGION", "ENVIRONMENT"):
        monkeypatch.delenv(f"SOMARESIL_{name}", raising=False)
    monkeypatch.delenv("HOSTNAME", raising=False)
    bare = Resilience("shop")
    assert bare.service == "shop"
    assert bare.instance.endswith(f"-{os.getpid()}")
    monkeypatch.setenv("HOSTNAME", "pod-7")
    assert Resilience("shop").instance == f"pod-7-{os.getpid()}"
    monkeypatch.setenv("SOMARESIL_INSTANCE", "pod-8")
    monkeypatch.setenv("SOMARESIL_ZONE", "zone a")
    assert paths_of(lambda: Resilience("shop")) == ["Resilience.zone (SOMARESIL_ZONE)"]
    assert Resilience("shop", zone="a").instance == "pod-8"
    assert Resilience("shop", instance="pod-9", zone="a").instance == "pod-9"


def test_all_wrong_names_are_told_at_once():
    """Service, instance, zone, region, environment, and a clock and a seed that are none."""
    found = paths_of(lambda: Resilience("", instance="a b", zone="", region=5, environment="x" * 121, clock=object(), seed=1.5))
    assert found == [f"Resilience.{name}" for name in ("service", "instance", "zone", "region", "environment", "clock", "seed")]


@pytest.mark.parametrize("service", [None, 5, "", "a b", "x" * 121, "straße"])
def test_a_wrong_name_of_the_service_is_refused(service):
    """It becomes a label of metrics; the longest one is still allowed."""
    assert paths_of(lambda: Resilience(service)) == ["Resilience.service"]
    assert Resilience("x" * 120).service == "x" * 120


def test_a_variable_that_is_empty_is_not_set(monkeypatch):
    """Templates of deployments leave empty what they do not know; an empty seed would be the same in every process."""
    for name in ("INSTANCE", "ZONE", "REGION", "ENVIRONMENT", "SEED"):
        monkeypatch.setenv(f"SOMARESIL_{name}", "")
    one, other = Resilience("shop"), Resilience("shop")
    assert one.instance.endswith(f"-{os.getpid()}")
    assert one.chance.seed != other.chance.seed


def test_the_place_reaches_the_experiments(monkeypatch):
    """Blast radii ask where this process is."""
    monkeypatch.setenv("SOMARESIL_ZONE", "a")
    place = Resilience("shop", instance="pod-1", region="north", environment="staging").chaos.place
    assert (place.service, place.instance, place.zone, place.region, place.environment) == ("shop", "pod-1", "a", "north", "staging")


def test_the_seed_comes_from_the_argument_then_from_the_environment(monkeypatch):
    """Two processes with one seed draw alike."""
    monkeypatch.setenv("SOMARESIL_SEED", "42")
    assert Resilience("shop").chance.seed == "42"
    assert Resilience("shop", seed=7).chance.seed == "7"
    assert Resilience("shop", seed=0).chance.seed == "0"
    monkeypatch.delenv("SOMARESIL_SEED")
    assert Resilience("shop").chance.seed != Resilience("shop").chance.seed


def test_the_clock_is_that_of_the_machine_unless_one_is_given():
    """Ours are used as they are."""
    assert isinstance(Resilience("shop").clock, SystemClock)
    clock = ManualClock()
    assert Resilience("shop", clock=clock).clock is clock


class Clock:
    """A clock of a user, which counts its readings and may break."""

    def __init__(self) -> None:
        self.now = 5.0
        self.broken = False

    def _read(self, value):
        if self.broken:
            raise OSError("no clock")
        return value

    def monotonic(self):
        return self._read(self.now)

    def time(self):
        return self._read(self.now + 1000)

    def sleep(self, seconds):
        self.now += self._read(seconds)

    async def asleep(self, seconds):
        self.now += self._read(seconds)

    def wait(self, event, timeout):
        return self._read(event.is_set())

    async def await_(self, future, timeout):
        return self._read(future.done())


def test_a_clock_of_the_user_is_used():
    """All six of its methods, with whole numbers or floats."""
    clock, event = Clock(), threading.Event()
    ours = Resilience("shop", clock=clock).clock
    assert (ours.monotonic(), ours.time()) == (5.0, 1005.0)
    ours.sleep(2)
    assert not ours.wait(event, 1.0)

    async def main():
        await ours.asleep(3)
        return await ours.await_(asyncio.get_running_loop().create_future(), 1.0)

    assert not asyncio.run(main())
    assert ours.monotonic() == 10.0


def test_a_clock_of_the_user_that_raises_is_reported_once_a_method_and_otherwise_stands_still():
    """The last reading stands, nobody sleeps, and a wait ends with what is known already."""
    clock, event, told = Clock(), threading.Event(), []
    resilience = Resilience("shop", clock=clock)
    resilience.on(told.append, DefectFound)
    ours = resilience.clock
    before = (ours.monotonic(), ours.time())
    clock.broken = True
    event.set()

    async def main():
        future = asyncio.get_running_loop().create_future()
        await ours.asleep(3)
        late = await ours.await_(future, 1.0)
        future.set_result(None)
        return late, await ours.await_(future, 1.0)

    for _ in range(2):
        assert (ours.monotonic(), ours.time()) == before
        ours.sleep(2)
        assert ours.wait(event, 1.0)
        assert asyncio.run(main()) == (False, True)
    assert [event.where for event in told] == [f"clock.{name}" for name in ("monotonic", "time", "sleep", "wait", "asleep", "await_")]
    clock.broken = False
    assert (ours.monotonic(), ours.time()) == before


@pytest.mark.parametrize("clock", [object(), time])
def test_a_clock_that_lacks_something_is_refused(clock):
    """At once, and not when it is first asked; the error names what is missing."""
    with pytest.raises(ConfigurationError, match=r"it lacks .*await_"):
        Resilience("shop", clock=clock)


def test_options_that_differ_name_the_place_where_the_guard_was_made():
    """Every one of them at once, with what it was made with and how to change it; the guard stays as it is."""
    resilience = Resilience("shop")
    guard = resilience.guard("llm", timeout=5.0, retry=2)
    with pytest.raises(ConfigurationError) as raised:
        resilience.guard("llm", timeout=6.0, retry=3, bulkhead=4)
    assert [problem.path for problem in raised.value.problems] == [f"guard('llm').{name}" for name in ("retry", "bulkhead", "timeout")]
    hint = raised.value.problems[2].hint
    assert f"it was made at {__file__}:" in hint
    assert "change it with resilience.guard('llm').configure(timeout=...)" in hint
    assert "Timeout(total=5.0" in raised.value.problems[2].allowed
    assert resilience.guard("llm", timeout=5.0) is guard is resilience.guard("llm")
    assert guard.bulkhead is None


def test_single_calls_go_through_the_guard_of_the_name():
    """What is not ours to decorate is counted and protected all the same."""
    resilience = Resilience("shop")
    resilience.guard("llm")

    async def answer(value):
        return value

    assert resilience.call("llm", int, "12", base=3) == 5
    assert asyncio.run(resilience.acall("llm", answer, 7)) == 7
    assert resilience.guards["llm"].recorder.counts().total(Outcome.GOOD) == 2


def test_a_recovery_objective_is_not_for_a_guard():
    """It watches every breaker by itself."""
    resilience = Resilience("shop")
    resilience.slos.add(SLO("back", 99.0, timedelta(days=1), recovery=300.0))
    with pytest.raises(ConfigurationError, match="those about recovery watch every breaker by themselves"):
        resilience.guard("llm", slo="back")
    assert resilience.guards == {}


def test_the_controls_of_a_breaker():
    """State, era and wait are read; trip, reset, disable, force_open and observe act at once."""
    stand = Stand(breaker=one_strike())
    control = stand.resilience.breaker("dependency")
    assert (control.state, control.era, control.retry_after) == (State.CLOSED, 1, 0.0)
    control.trip()
    assert (control.state, control.era, control.retry_after) == (State.OPEN, 2, 30.0)
    control.trip(5.0)
    assert (control.era, control.retry_after) == (3, 5.0)
    control.force_open()
    assert (control.state, control.retry_after) == (State.FORCED_OPEN, None)
    with pytest.raises(IllegalTransition, match="forced_open cannot take 'trip'"):
        control.trip()
    control.observe()
    for _ in range(3):
        assert isinstance(stand.fail(), Boom)
    assert control.state is State.METRICS_ONLY
    assert stand.breaker.tally().failures == 3
    control.disable()
    for _ in range(3):
        assert isinstance(stand.fail(), Boom)
    assert control.state is State.DISABLED
    control.reset()
    assert control.state is State.CLOSED
    assert stand.breaker.tally().calls == 0
    assert stand.guard.switch.quiet
    assert [event.cause for event in stand.told(BreakerChanged)] == ["trip", "trip", "force_open", "observe", "disable", "reset"]


def test_a_breaker_that_is_not_there():
    """The error names those that are, and how to give a guard one."""
    resilience = Resilience("shop")
    with pytest.raises(ConfigurationError, match="there is none"):
        resilience.breaker("payments")
    resilience.guard("payments", breaker=True)
    resilience.guard("plain")
    with pytest.raises(ConfigurationError, match=r"a guard with a breaker \(payments\).*did you mean 'payments'"):
        resilience.breaker("paymnts")
    with pytest.raises(ConfigurationError, match=r"give it one: guard\(\.\.\., breaker=True\)"):
        resilience.breaker("plain")


def test_guards_cannot_be_made_without_end(monkeypatch):
    """A name made of user input is memory without end: there is a limit, and known guards still work."""
    monkeypatch.setattr("somaresil.resilience._MOST_GUARDS", 3)
    resilience = Resilience("shop")
    for number in range(3):
        resilience.guard(f"user.{number}")
    with pytest.raises(ConfigurationError, match="is the name made of user input"):
        resilience.guard("user.3")
    assert resilience.guard("user.0") is resilience.guards["user.0"]


def test_the_guards_are_shown_as_they_are_now():
    """A copy: nobody gets at the registry."""
    resilience = Resilience("shop")
    before = resilience.guards
    guard = resilience.guard("llm")
    assert before == {}
    assert resilience.guards == {"llm": guard}
    assert guard.where.partition(":")[0] == __file__


def test_a_listener_can_be_ended():
    """It hears nothing after that."""
    stand = Stand()
    heard = []
    end = stand.resilience.on(heard.append, CallEnded)
    stand.fail()
    end()
    stand.fail()
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ((None,), "on.listener"),
        (("print",), "on.listener"),
        ((print, "CallEnded"), "on.kinds"),
        ((print, CallEnded, int), "on.kinds"),
        ((print, CallEnded.__init__), "on.kinds"),
    ],
)
def test_a_listener_that_would_never_hear_anything_is_refused(arguments, found):
    """It cannot be called, or it listens for what is no event."""
    resilience = Resilience("shop")
    assert paths_of(lambda: resilience.on(*arguments)) == [found]
    assert not resilience.listeners.wants(CallEnded)


def test_a_kind_of_event_that_is_misspelt_is_recognised():
    """The error suggests the one that was meant."""
    with pytest.raises(ConfigurationError, match="did you mean 'BreakerChanged'"):
        Resilience("shop").on(print, "BreakerChange")


def test_a_snapshot_is_everything_at_one_moment():
    """Frozen: what happens later does not change it."""
    stand = Stand(breaker=one_strike(consecutive_failures=2))
    stand.resilience.slos.add(SLO("there", 99.0, timedelta(days=1)))
    other = stand.resilience.guard("other", slo="there")
    other.call(len, "abc")
    stand.fail()
    snapshot = stand.resilience.snapshot()
    stand.fail()
    other.call(len, "abc")
    assert (snapshot.service, snapshot.instance, snapshot.at) == ("tests", stand.resilience.instance, stand.clock.time())
    assert set(snapshot.guards) == {"dependency", "other"}
    view = snapshot.guards["dependency"]
    assert (view.name, view.state, view.pipeline) == ("dependency", State.CLOSED, stand.guard.pipeline)
    assert view.counts.total(Outcome.BAD) == 1
    assert view.window is not None
    assert (view.window.calls, view.window.failures) == (1, 1)
    assert view.held_by == frozenset()
    assert (snapshot.guards["other"].state, snapshot.guards["other"].window) == (None, None)
    assert snapshot.budgets["there"].good == 1
    assert (snapshot.incidents, snapshot.experiments, snapshot.routes) == ((), (), {})
    later = stand.resilience.snapshot()
    assert later.guards["dependency"].state is State.OPEN
    assert later.guards["dependency"].held_by == {"breaker"}
    assert len(later.incidents) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        snapshot.at = 0.0


def test_an_objective_is_asked_for_by_name():
    """An unknown one is refused with a suggestion, when the guard is made."""
    resilience = Resilience("shop")
    assert resilience.check_slos("here", ()) == ()
    with pytest.raises(ConfigurationError, match="none is defined"):
        resilience.check_slos("here", ("there",))
    resilience.slos.add(SLO("there", 99.0, timedelta(days=1), latency=0.75))
    assert resilience.check_slos("here", ("there",)) == (0.75,)
    assert 0.75 in resilience.guard("llm", slo="there").recorder.bounds


def test_the_public_names_are_all_there():
    """Each name of ``__all__`` can be imported, and nothing else is promised."""
    # `discover` is there for Chaos Toolkit, once that is.
    assert set(dir(somaresil)) - {"discover"} == set(somaresil.__all__)
    for name in somaresil.__all__:
        assert getattr(somaresil, name) is not None
    with pytest.raises(AttributeError, match="module 'somaresil' has no attribute 'nothing'"):
        _ = somaresil.nothing


def test_calling_through_a_name_that_was_never_made_is_refused():
    """A misspelt name would be a guard without policies, and guard nothing."""
    resilience = Resilience("shop")
    resilience.guard("llm.invoke", breaker=True)
    with pytest.raises(ConfigurationError, match=r"did you mean 'llm\.invoke'"):
        resilience.call("llm.invok", len, "x")
    assert list(resilience.guards) == ["llm.invoke"]


def test_a_process_knows_every_one_that_is_alive():
    """For tools that look after all of them; one that is forgotten is gone."""
    one, other = Resilience("shop"), Resilience("shop")
    assert {one, other} <= set(alive())
    before = len(alive())
    del other
    gc.collect()
    assert one in alive()
    assert len(alive()) < before


def test_one_that_could_not_be_made_is_not_alive():
    """It was refused."""
    gc.collect()
    before = set(alive())
    with pytest.raises(ConfigurationError):
        Resilience("a b")
    assert set(alive()) <= before


@pytest.mark.parametrize("value", [None, "", "system", "Steered", "1"])
def test_the_clock_is_steered_only_in_a_process_that_says_so(monkeypatch, value):
    """Services read that of the machine itself, which costs no frame."""
    if value is None:
        monkeypatch.delenv("SOMARESIL_CLOCK", raising=False)
    else:
        monkeypatch.setenv("SOMARESIL_CLOCK", value)
    assert type(Resilience("shop").clock) is SystemClock


def test_a_process_under_test_can_be_taken_through_minutes(monkeypatch):
    """All that asked for no clock share the steered one, whose guards, breakers and leases go by it; who has a clock keeps it."""
    monkeypatch.setenv("SOMARESIL_CLOCK", "steered")
    manual = ManualClock()
    shop, other, own = Resilience("shop"), Resilience("other"), Resilience("own", clock=manual)
    assert shop.clock is other.clock is STEERED
    assert own.clock is manual
    guard = shop.guard("db", breaker=one_strike())
    with STEERED.by(manual):
        with pytest.raises(Boom):
            guard.call(_boom)
        assert shop.breaker("db").state is State.OPEN
        assert shop.breaker("db").retry_after == pytest.approx(30.0)
        manual.advance(29.0)
        assert shop.breaker("db").retry_after == pytest.approx(1.0)
        manual.advance(1.5)
        assert guard.call(lambda: "fine") == "fine"
        assert shop.breaker("db").state is State.CLOSED


def _boom():
    raise Boom
