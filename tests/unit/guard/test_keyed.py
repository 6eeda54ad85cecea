"""Guards with a circuit for each key: whose circuit it is, how many there are, and what still reaches all of them."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from somaresil import Bulkhead, CircuitBreaker, CircuitOpen, ConfigurationError, Outcome
from somaresil.events import BreakerChanged, DefectFound, IncidentOpened, ShadowDecision
from somaresil.guard.call import CoroutineCall
from somaresil.model.breaker import State
from somaresil.resilience import BreakerControl
from tests.behaviour.kit import PATIENCE, Boom, Stand, both, one_strike, together
from tests.unit.policy.kit import wrong


def keyed(**options) -> Stand:
    return Stand(**({"breaker": one_strike()} | options))


def state_of(stand: Stand, key: object) -> str:
    return stand.resilience.breaker("dependency", key).state.value


def fail_for(stand: Stand, key: object) -> BaseException | None:
    try:
        stand.guard.keyed(key).call(_boom)
    except BaseException as caught:
        return caught
    return None


def _boom():
    raise Boom("down")


def open_keys(stand: Stand) -> int:
    found = stand.resilience.snapshot().guards["dependency"].keys
    return 0 if found is None else found[State.OPEN]


def all_keys(stand: Stand) -> int:
    found = stand.resilience.snapshot().guards["dependency"].keys
    return 0 if found is None else sum(found.values())


# -- whose circuit it is ------------------------------------------------------------------------------------------------------------------


@both
def test_what_one_key_breaks_is_not_taken_from_the_others(suspends):
    """One tenant's circuit opens; another's calls pass, and so do calls without a key."""
    stand = keyed()

    def work(tenant):
        if tenant == "acme":
            raise Boom("down")
        return "fine"

    async def suspended(tenant):
        return work(tenant)

    guarded = stand.guard.keyed(by="tenant")(suspended if suspends else work)
    call = (lambda tenant: asyncio.run(guarded(tenant))) if suspends else guarded
    with pytest.raises(Boom):
        call("acme")
    with pytest.raises(CircuitOpen):
        call("acme")
    assert call("umbrella") == "fine"
    assert stand.succeed() == "fine"
    assert (state_of(stand, "acme"), state_of(stand, "umbrella"), stand.state) == ("open", "closed", "closed")
    stand.clock.advance(30.0)
    with pytest.raises(Boom):
        call("acme")


def test_a_circuit_of_a_key_lives_as_any_other():
    """It opens by the window of its own calls, is probed, ramps up and closes; the calls of others are not in its window."""
    stand = Stand(breaker=CircuitBreaker(minimum_calls=4, open_jitter=0.0, half_open_calls=1, ramp_up=10.0, ramp_up_from=0.5))
    acme, other = stand.guard.keyed("acme"), stand.guard.keyed("other")
    for _ in range(10):
        other.call(str)
    for _ in range(2):
        acme.call(str)
        fail_for(stand, "acme")
    assert state_of(stand, "acme") == "open"
    rejection = fail_for(stand, "acme")
    assert isinstance(rejection, CircuitOpen)
    assert (rejection.guard, rejection.retry_after) == ("dependency", 30.0)
    assert rejection.detail == "2 of 4 calls failed in 30 s (50 % >= 50 %)"
    stand.clock.advance(30.0)
    acme.call(str)
    assert state_of(stand, "acme") == "ramping"
    stand.clock.advance(10.0)
    acme.call(str)
    assert state_of(stand, "acme") == "closed"


def test_slow_calls_of_a_key_open_its_circuit():
    """Told by their own duration, not by a bucket."""
    stand = Stand(breaker=CircuitBreaker(failure_rate=None, slow_call_rate=0.5, slow_call_duration=1.0, minimum_calls=1))
    stand.guard.keyed("acme").call(stand.clock.advance, 1.0)
    assert state_of(stand, "acme") == "closed"
    stand.guard.keyed("acme").call(stand.clock.advance, 1.25)
    assert (state_of(stand, "acme"), stand.state) == ("open", "closed")


class Later:
    async def __call__(self, tenant):
        raise Boom


class Service:
    def __init__(self, guard):
        by_tenant = guard.keyed(by="tenant")
        self.shapes = {}

        @by_tenant
        def function(number, tenant="acme"):
            raise Boom

        @by_tenant
        async def coroutine(number, *, tenant):
            raise Boom

        @by_tenant
        def generator(tenant):
            yield 1
            raise Boom

        @by_tenant
        async def async_generator(tenant):
            yield 1
            raise Boom

        def plain(number, /, tenant):
            raise Boom

        def anything(**options):
            raise Boom

        class Methods:
            @by_tenant
            def method(self, tenant):
                raise Boom

            @classmethod
            @by_tenant
            def of_class(cls, tenant):
                raise Boom

            @by_tenant
            @staticmethod
            def static(tenant):
                raise Boom

        async def collect(stream):
            return [item async for item in stream]

        partial = by_tenant(functools.partial(plain, 5, tenant="acme"))
        later = by_tenant(Later())
        loose = by_tenant(anything)
        self.shapes = {
            "default": lambda: function(1),
            "positional": lambda: function(1, "acme"),
            "keyword": lambda: function(tenant="acme", number=1),
            "keyword only": lambda: asyncio.run(coroutine(1, tenant="acme")),
            "generator": lambda: list(generator("acme")),
            "async generator": lambda: asyncio.run(collect(async_generator(tenant="acme"))),
            "partial": partial,
            "callable object": lambda: asyncio.run(later("acme")),
            "keyword of any name": lambda: loose(tenant="acme"),
            "method": lambda: Methods().method("acme"),
            "class method": lambda: Methods.of_class("acme"),
            "static method": lambda: Methods.static("acme"),
            "call": lambda: by_tenant.call(plain, 5, "acme"),
            "acall": lambda: asyncio.run(by_tenant.acall(Later(), "acme")),
            "acall of a lambda": lambda: asyncio.run(guard.keyed("acme").acall(lambda: Later()("x"))),
            "call of one key": lambda: guard.keyed("acme").call(plain, 5, "other"),
            "decorated for one key": lambda: guard.keyed("acme")(plain)(5, "other"),
            "generator of one key": lambda: list(guard.keyed("acme")(_stream)()),
        }


def _stream():
    yield 1
    raise Boom


@pytest.mark.parametrize("shape", Service(Stand(breaker=True).guard).shapes)
def test_the_key_is_found_in_every_shape_of_a_call(shape):
    """By position, by name, by default, past ``self``; the failure opens the circuit of that key and no other."""
    stand = keyed()
    call = Service(stand.guard).shapes[shape]
    with pytest.raises(Boom):
        call()
    assert state_of(stand, "acme") == "open"
    with pytest.raises(CircuitOpen):
        call()
    assert (state_of(stand, "other"), stand.state, open_keys(stand)) == ("closed", "closed", 1)


def test_a_key_may_be_computed():
    """From all the arguments, as any hashable value."""
    stand = keyed()

    @stand.guard.keyed(by=lambda host, port=80: (host, port))
    def connect(host, port=80):
        raise Boom

    with pytest.raises(Boom):
        connect("db", port=5432)
    assert state_of(stand, ("db", 5432)) == "open"
    with pytest.raises(Boom):
        connect("db")


def test_a_call_whose_key_is_none_is_the_guards_own():
    """Nobody in particular calls; the keys do not notice."""
    stand = keyed()
    guarded = stand.guard.keyed(by="tenant")(lambda tenant=None: _boom())
    with pytest.raises(Boom):
        guarded()
    assert stand.state == "open"
    with pytest.raises(CircuitOpen):
        guarded(None)
    with pytest.raises(Boom):
        guarded("acme")


@pytest.mark.parametrize("by", [lambda tenant: 1 / 0, lambda tenant: [tenant]], ids=["raises", "unhashable"])
def test_a_key_that_cannot_be_read_is_reported_once_and_the_guards_own_breaker_judges(by):
    """It fails open: the call is made."""
    stand = keyed()
    guarded = stand.guard.keyed(by=by)(lambda tenant: "fine")
    assert [guarded("acme"), guarded("acme")] == ["fine", "fine"]
    assert [event.where for event in stand.told(DefectFound)] == ["key of a call of guard dependency"]


class Touchy:
    """A key that breaks when it is compared or shown."""

    def __hash__(self):
        return hash("acme")

    def __eq__(self, other):
        raise RuntimeError

    def __repr__(self):
        raise RuntimeError


def test_a_key_that_breaks_inside_is_reported_and_the_guards_own_breaker_judges():
    """A comparison of somebody's making may raise; what cannot be shown has a circuit all the same."""
    stand = keyed()
    touchy = Touchy()
    assert fail_for(stand, touchy).__class__ is Boom
    assert stand.told(BreakerChanged)[0].key == "<a Touchy>"
    stand.guard.keyed("acme").call(str)
    assert [event.where for event in stand.told(DefectFound)] == ["keys of guard dependency"]


def test_a_key_that_breaks_while_its_call_runs_does_not_reach_the_caller():
    """What the call gives is what the caller gets."""
    stand = keyed()

    class Fickle:
        broken = False

        def __hash__(self):
            return 1 // (not self.broken)

    key = Fickle()

    def breaks():
        key.broken = True
        return "fine"

    assert stand.guard.keyed(key).call(breaks) == "fine"
    assert [event.where for event in stand.told(DefectFound)] == ["keys of guard dependency"]


# -- blocks -------------------------------------------------------------------------------------------------------------------------------


def test_blocks_have_keys():
    """Of one key inside that of another: each is judged by its own circuit."""
    stand = keyed()
    acme, other = stand.guard.keyed("acme"), stand.guard.keyed("other")
    with acme, pytest.raises(Boom), other, stand.guard:
        raise Boom
    assert (state_of(stand, "acme"), state_of(stand, "other"), stand.state) == ("closed", "open", "open")
    with pytest.raises(CircuitOpen), other:
        pass

    async def main():
        async with acme:
            pass
        with pytest.raises(Boom):
            async with acme:
                raise Boom

    stand.resilience.breaker("dependency").reset()
    asyncio.run(main())
    assert state_of(stand, "acme") == "open"


def test_a_block_that_ends_in_another_context_is_still_that_of_its_key():
    """Blocks of other keys do not stand in for it."""
    stand = keyed(bulkhead=Bulkhead(2))
    acme, other = stand.guard.keyed("acme"), stand.guard.keyed("other")
    for view in (acme, other):
        threading.Thread(target=view.__enter__).run()
    worker = threading.Thread(target=lambda: acme.__exit__(Boom, Boom(), None))
    worker.start()
    worker.join(PATIENCE)
    assert (state_of(stand, "acme"), stand.guard.bulkhead.active) == ("open", 1)
    other.__exit__(None, None, None)
    assert (state_of(stand, "other"), stand.guard.bulkhead.active) == ("closed", 0)
    with pytest.raises(RuntimeError, match="has not begun"):
        acme.__exit__(None, None, None)


def test_blocks_of_keys_that_cannot_be_compared_end_as_they_should():
    """Each is found by being the same object."""
    stand = keyed()
    first, second = stand.guard.keyed(Touchy()), stand.guard.keyed(Touchy())
    with first, second:
        pass
    with pytest.raises(Boom), first:
        raise Boom
    assert stand.count(Outcome.GOOD) == 2
    assert stand.count(Outcome.BAD) == 1


def test_a_block_needs_a_key():
    """It has no arguments that one could be read from, and cannot be run twice."""
    stand = keyed()
    with pytest.raises(ConfigurationError, match=r"keyed\('acme'\)"), stand.guard.keyed(by="tenant"):
        pass
    stand.guard.configure(retry=2)
    with pytest.raises(ConfigurationError, match="retry"), stand.guard.keyed("acme"):
        pass


# -- how many there are -------------------------------------------------------------------------------------------------------------------


def test_the_circuit_used_longest_ago_makes_room():
    """Its next call begins with a new one; memory is bounded however many keys there are."""
    stand = keyed(breaker=one_strike(consecutive_failures=2, max_keys=3))
    for key in ("a", "b", "c", "a", "d"):
        fail_for(stand, key)
    assert all_keys(stand) == 3
    fail_for(stand, "b")
    assert state_of(stand, "b") == "closed"
    for number in range(500):
        stand.guard.keyed(number).call(str)
    assert all_keys(stand) == 3


@pytest.mark.parametrize("kept", ["open", "half open", "ramping", "forced open", "disabled", "metrics only"])
def test_a_circuit_that_is_not_closed_is_never_forgotten(kept):
    """Whatever comes after it: the tenant that broke it, or the operator who moved it, would be forgotten too."""
    stand = keyed(breaker=one_strike(max_keys=2, ramp_up=86_400.0, half_open_calls=2))
    control = stand.resilience.breaker("dependency", "acme")
    steps = {"forced open": control.force_open, "disabled": control.disable, "metrics only": control.observe}
    steps.get(kept, lambda: fail_for(stand, "acme"))()
    probes = {"half open": 1, "ramping": 2}.get(kept, 0)
    if probes:
        stand.clock.advance(30.0)
    for _ in range(probes):
        stand.guard.keyed("acme").call(str)
    for number in range(20):
        stand.guard.keyed(number).call(str)
    assert state_of(stand, "acme") == kept.replace(" ", "_")
    assert all_keys(stand) == 2


def test_a_circuit_with_a_call_under_way_is_not_forgotten():
    """Also while a stream of it is read: its end is still to come."""
    stand = keyed(breaker=one_strike(max_keys=1))
    reading = stand.guard.keyed("acme")(_stream)()
    assert next(reading) == 1
    stand.guard.keyed("other").call(str)
    with pytest.raises(Boom):
        next(reading)
    assert isinstance(fail_for(stand, "acme"), CircuitOpen)


def test_a_circuit_with_two_calls_under_way_is_kept_until_both_have_ended():
    """The first that ends does not give it away for the other."""
    stand = keyed(breaker=one_strike(max_keys=1))
    first, second = (stand.guard.keyed("acme")(_stream)() for _ in range(2))
    next(first), next(second)
    first.close()
    stand.guard.keyed("other").call(str)
    with pytest.raises(Boom):
        next(second)
    assert isinstance(fail_for(stand, "acme"), CircuitOpen)


def test_a_call_from_before_a_reset_does_not_give_away_the_circuit_after_it():
    """The key has a new circuit by then, with a call of its own under way."""
    stand = keyed(breaker=one_strike(max_keys=1))
    old = stand.guard.keyed("acme")(_stream)()
    next(old)
    stand.resilience.breaker("dependency").reset()
    new = stand.guard.keyed("acme")(_stream)()
    next(new)
    old.close()
    stand.guard.keyed("other").call(str)
    with pytest.raises(Boom):
        next(new)
    assert isinstance(fail_for(stand, "acme"), CircuitOpen)


def test_a_stream_that_was_left_gives_its_circuit_back():
    """Closed early, it may make room."""
    stand = keyed(breaker=one_strike(max_keys=1))
    reading = stand.guard.keyed("acme")(_stream)()
    next(reading)
    reading.close()
    fail_for(stand, "other")
    assert state_of(stand, "other") == "open"


def test_when_every_circuit_is_kept_a_further_key_uses_the_guards_own():
    """No more memory, and it is guarded all the same; when one of them has closed there is room again."""
    stand = keyed(breaker=one_strike(max_keys=2))
    for key in ("a", "b", "c"):
        assert isinstance(fail_for(stand, key), Boom)
    assert (open_keys(stand), all_keys(stand), stand.state) == (2, 2, "open")
    assert isinstance(fail_for(stand, "d"), CircuitOpen)
    with pytest.raises(ConfigurationError, match="at most max_keys"):
        stand.resilience.breaker("dependency", "e").trip()
    stand.clock.advance(30.0)
    stand.guard.keyed("a").call(str)
    stand.guard.keyed("d").call(str)
    assert (state_of(stand, "d"), all_keys(stand)) == ("closed", 2)


def test_a_key_that_an_operator_has_closed_makes_room():
    """Moved by hand, with no call of its own since."""
    stand = keyed(breaker=one_strike(max_keys=1))
    fail_for(stand, "a")
    stand.resilience.breaker("dependency", "a").reset()
    assert isinstance(fail_for(stand, "b"), Boom)
    assert state_of(stand, "b") == "open"


def test_many_threads_and_keys_leave_nothing_held():
    """Every circuit is given back, there are never more than told, and the counts are exact."""
    stand = keyed(breaker=one_strike(consecutive_failures=10_000, max_keys=5))

    def work(number):
        for turn in range(60):
            fail_for(stand, (number + turn) % 9)
            assert all_keys(stand) <= 5

    assert together(8, work) == [None] * 8
    assert stand.count(Outcome.BAD) == 480
    for key in range(20, 25):
        stand.guard.keyed(key).call(str)
        assert state_of(stand, key) == "closed"


# -- what reaches all of them -------------------------------------------------------------------------------------------------------------


def test_the_counts_are_the_guards():
    """Outcomes of all keys together; no label, event or incident of the outage of one key alone."""
    stand = keyed()
    stand.guard.keyed("acme").call(str)
    for _ in range(2):
        fail_for(stand, "acme")
    assert [stand.count(outcome) for outcome in (Outcome.GOOD, Outcome.BAD, Outcome.REJECTED)] == [1, 1, 1]
    (opened,) = stand.told(BreakerChanged)
    assert (opened.guard, opened.key, opened.after) == ("dependency", "acme", "open")
    assert stand.told(IncidentOpened) == []
    stand.fail()
    assert stand.told(BreakerChanged)[-1].key is None
    assert len(stand.told(IncidentOpened)) == 1


def test_further_attempts_are_calls_of_the_same_key():
    """A retry finds the circuit that its first attempt has opened; a hedge is a sibling with the same key."""
    stand = keyed(retry=3)
    calls = []

    def fails():
        calls.append(1)
        raise Boom

    with pytest.raises(Boom):
        stand.guard.keyed("acme").call(fails)
    assert (calls, state_of(stand, "acme"), stand.state) == ([1], "open", "closed")
    call = CoroutineCall(stand.guard, fails, (), {})
    call.key = "acme"
    assert call.sibling().key == "acme"


def test_limits_are_shared():
    """One bulkhead for all keys."""
    stand = keyed(bulkhead=1)

    def nested():
        return fail_for(stand, "other")

    assert type(stand.guard.keyed("acme").call(nested)).__name__ == "BulkheadFull"


def test_experiments_strike_calls_of_every_key():
    """The fault point is the guard's; a struck call opens the circuit of its key as the experiment's."""
    stand = keyed()
    stand.guard.faults.arm(_Always())
    assert isinstance(fail_for(stand, "acme"), LookupError)
    (opened,) = stand.told(BreakerChanged)
    assert (opened.key, opened.injected) == ("acme", True)


class _Always:
    """An experiment that strikes every call."""

    live, over, delay, error, after = True, False, 0.0, LookupError("struck"), None

    def decide(self, _call=None):
        return True

    def strike(self, _decided=None):
        return self


def test_who_observes_the_guard_hears_of_every_key():
    """Also of good calls, and of attempts."""
    stand = keyed()
    heard, attempts = [], []
    end = stand.resilience.observe(heard.append, attempts=attempts.append)
    stand.guard.keyed("acme").call(str)
    fail_for(stand, "other")
    end()
    stand.guard.keyed("acme").call(str)
    assert ([event.outcome for event in heard], attempts) == (["good", "bad"], ["dependency", "dependency"])


def test_other_options_reach_every_key():
    """Of a circuit that is there already, with its state kept, and of those made later."""
    stand = keyed()
    fail_for(stand, "acme")
    stand.guard.keyed("other").call(str)
    stand.guard.configure(breaker=one_strike(consecutive_failures=2, open_duration=5.0, open_factor=1.0))
    assert isinstance(fail_for(stand, "acme"), CircuitOpen)
    for key in ("other", "new"):
        fail_for(stand, key)
        assert state_of(stand, key) == "closed"
        fail_for(stand, key)
        assert state_of(stand, key) == "open"
    stand.clock.advance(30.0)
    fail_for(stand, "acme")
    assert stand.resilience.breaker("dependency", "acme").retry_after == 5.0


def test_a_breaker_that_is_taken_away_takes_those_of_its_keys_along():
    """Calls with a key pass without one; a new breaker begins with new circuits."""
    stand = keyed()
    guarded = stand.guard.keyed("acme")(_boom)
    for error in (Boom, CircuitOpen):
        with pytest.raises(error):
            guarded()
    stand.guard.configure(breaker=None)
    for _ in range(2):
        with pytest.raises(Boom):
            guarded()
    stand.guard.configure(breaker=one_strike())
    with pytest.raises(Boom):
        guarded()
    with pytest.raises(CircuitOpen):
        stand.guard.keyed("acme").call(str)


@pytest.mark.parametrize("control", ["trip", "force_open"])
def test_a_guard_that_is_opened_by_hand_refuses_every_key(control):
    """Also keys that it has never seen; what the circuit of a key was stays as it was."""
    stand = keyed()
    fail_for(stand, "acme")
    getattr(stand.resilience.breaker("dependency"), control)()
    for key in ("acme", "other"):
        assert isinstance(fail_for(stand, key), CircuitOpen)
    assert (open_keys(stand), all_keys(stand)) == (1, 1)


def test_after_a_trip_calls_with_a_key_are_the_probes():
    """Whoever calls first; when it has closed, the keys are judged by their own circuits again."""
    stand = keyed(breaker=one_strike(half_open_calls=2))
    stand.resilience.breaker("dependency").trip(10.0)
    stand.clock.advance(10.0)
    for key in ("acme", "other"):
        stand.guard.keyed(key).call(str)
    assert (stand.state, all_keys(stand)) == ("closed", 0)
    fail_for(stand, "acme")
    assert (state_of(stand, "acme"), stand.state) == ("open", "closed")


def test_a_trip_by_an_experiment_reaches_every_key():
    """Rejections are marked, and its end gives the keys back."""
    stand = keyed()
    era = stand.breaker.trip(60.0, injected=True)
    rejection = fail_for(stand, "acme")
    assert isinstance(rejection, CircuitOpen)
    assert rejection.injected
    stand.breaker.release(era)
    stand.guard.keyed("acme").call(str)
    assert stand.state == "closed"


def test_a_guard_whose_own_calls_fail_does_not_close_its_keys_out():
    """Only hands and experiments do that: otherwise calls without a key could break it for all."""
    stand = keyed()
    stand.fail()
    assert stand.state == "open"
    assert stand.guard.keyed("acme").call(lambda: "fine") == "fine"


@pytest.mark.parametrize("control", ["disable", "observe"])
def test_a_guard_that_is_taken_out_of_service_lets_every_key_pass(control):
    """Also one whose circuit is open, and which stays so."""
    stand = keyed()
    fail_for(stand, "acme")
    getattr(stand.resilience.breaker("dependency"), control)()
    for _ in range(3):
        assert isinstance(fail_for(stand, "acme"), Boom)
    assert open_keys(stand) == 1


def test_a_reset_of_the_guard_forgets_all_circuits():
    """Every key begins anew, also while a call of it is under way."""
    stand = keyed()
    fail_for(stand, "acme")

    def meanwhile():
        stand.resilience.breaker("dependency").reset()
        raise Boom

    with pytest.raises(Boom):
        stand.guard.keyed("other").call(meanwhile)
    assert (all_keys(stand), open_keys(stand)) == (0, 0)
    assert isinstance(fail_for(stand, "acme"), Boom)
    assert state_of(stand, "other") == "closed"


def test_each_key_has_controls_of_its_own():
    """All of those that a guard's breaker has; the others do not notice."""
    stand = keyed()
    control = stand.resilience.breaker("dependency", key="acme")
    assert isinstance(control, BreakerControl)
    assert (control.state, control.era, control.retry_after) == (State.CLOSED, 1, 0.0)
    control.force_open()
    assert isinstance(fail_for(stand, "acme"), CircuitOpen)
    assert isinstance(fail_for(stand, "other"), Boom)
    control.disable()
    assert isinstance(fail_for(stand, "acme"), Boom)
    control.observe()
    assert control.state is State.METRICS_ONLY
    control.reset()
    control.trip(5.0)
    assert (control.state, control.retry_after) == (State.OPEN, 5.0)
    assert state_of(stand, "other") == "open"


def test_keys_in_shadow_mode_refuse_nothing():
    """What they would have done is the guard's to count."""
    stand = keyed(breaker=one_strike(shadow=True))
    for _ in range(3):
        assert isinstance(fail_for(stand, "acme"), Boom)
    assert stand.guard.shadow.counts() == {("breaker", "open"): 1, ("breaker", "reject"): 2}
    assert len(stand.told(ShadowDecision)) == 3
    stand.guard.configure(breaker=one_strike())
    assert isinstance(fail_for(stand, "acme"), Boom)
    assert isinstance(fail_for(stand, "acme"), CircuitOpen)


def test_openings_of_keys_do_not_last_equally_long():
    """Each draws for itself, and for itself anew in a forked child."""
    stand = keyed(breaker=one_strike(open_jitter=0.5))
    for key in range(10):
        fail_for(stand, key)
    lasting = [event.open_duration for event in stand.told(BreakerChanged)]
    assert len(set(lasting)) == 10
    again = keyed(breaker=one_strike(open_jitter=0.5))
    again.guard.keyed(0).call(str)
    again.breaker.redraw()
    fail_for(again, 0)
    assert again.told(BreakerChanged)[0].open_duration != lasting[0]


def test_metrics_say_how_many_keys_are_in_which_state():
    """By state, never by key."""
    from somaresil.integrations._readings import Reader

    stand = keyed()
    assert Reader(stand.resilience).read().rows["somaresil_breaker_keys"] == {}
    fail_for(stand, "acme")
    stand.guard.keyed("other").call(str)
    rows = Reader(stand.resilience).read().rows["somaresil_breaker_keys"]
    assert {state: number for (_, state), number in rows.items() if number} == {"open": 1, "closed": 1}


def test_calls_without_a_key_stay_quiet():
    """The keys of a guard do not cost those who have none."""
    stand = keyed()
    stand.guard.keyed("acme").call(str)
    assert stand.guard.switch.quiet
    fail_for(stand, "acme")
    assert stand.guard.switch.quiet


# -- what is refused ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({}, ["key"]),
        ({"key": "acme", "by": "tenant"}, ["key"]),
        ({"key": ["acme"]}, ["key"]),
        ({"by": 5}, ["by"]),
        ({"by": lambda tenant: (yield)}, ["by"]),
    ],
)
def test_one_key_or_a_way_to_find_it_is_needed(arguments, problems):
    """Either, not both, and nothing that cannot be one."""
    assert wrong(keyed().guard.keyed, **arguments) == problems


def test_a_guard_without_a_breaker_has_no_circuits():
    """The message says how to give it one."""
    with pytest.raises(ConfigurationError, match="breaker=True"):
        Stand().guard.keyed("acme")


def test_an_argument_that_is_not_there_is_named():
    """At decoration, with those there are and what may have been meant."""
    stand = keyed()
    with pytest.raises(ConfigurationError, match=r"an argument of .*\(tenants, number\) \(did you mean 'tenants'\?\)"):
        stand.guard.keyed(by="tenant")(lambda tenants, number: None)
    with pytest.raises(ConfigurationError, match="it has none"):
        stand.guard.keyed(by="tenant").call(lambda: None)


@pytest.mark.parametrize(("way", "target"), [("call", Later()), ("acall", _stream), ("__call__", 5)])
def test_what_a_guard_refuses_a_key_does_not_change(way, target):
    """Shapes are checked as ever."""
    view = keyed().guard.keyed("acme")
    with pytest.raises(ConfigurationError):
        result = getattr(view, way)(target)
        asyncio.run(result)


def test_a_view_shows_what_it_is():
    """Guard and key, or how the key is found."""
    guard = keyed().guard
    assert repr(guard.keyed("acme")).endswith("keyed by 'acme'>")
    assert "keyed by a function" in repr(guard.keyed(by=len))
    assert repr(guard.keyed(by="tenant")).endswith("keyed by the argument 'tenant'>")
