"""Who gets the calls: weights, tiers, panic, ejection and return, breakers, keys; and changes while calls run."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import Endpoint, NoEndpoint, Outcome, OutlierEjection, Resilience
from somaresil.events import EndpointEjected, EndpointReturned, PoolPanicked, ShadowDecision
from somaresil.pool import EndpointState
from tests.behaviour.kit import Boom, Gate, one_strike, turns
from tests.behaviour.kit import Stand as GuardStand
from tests.unit.policy.kit import wrong
from tests.unit.pool.kit import Stand

# -- shares -----------------------------------------------------------------------------------------------------------------------------


def test_calls_are_shared_out_by_weight():
    """Whatever unit the weights are in."""
    for unit in (1, 100):
        stand = Stand([Endpoint("a", 1, weight=2 * unit), Endpoint("b", 1, weight=unit), Endpoint("c", 1, weight=unit)])
        assert stand.shares(600) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25}, abs=0.06)


def test_the_same_seed_chooses_the_same_endpoints():
    """And another one others."""
    assert Stand("abcd").calls(50) == Stand("abcd").calls(50)
    other = Resilience("tests", seed=8).pool("p", [Endpoint(name, 1) for name in "abcd"])
    assert [other.call(lambda endpoint: endpoint.name) for _ in range(50)] != Stand("abcd").calls(50)


def test_a_slow_endpoint_is_walked_around_and_tried_again_later():
    """Its latency is forgotten by and by; when it is still slow, it is left alone again."""
    stand = Stand("abc")
    stand.does = dict.fromkeys("bc", lambda: stand.clock.advance(0.01))
    stand.does["a"] = lambda: stand.clock.advance(1.0)
    stand.calls(10)
    assert stand.reached.count("a") == 1
    stand.clock.advance(50.0)
    stand.calls(10)
    assert stand.reached.count("a") == 2


def test_calls_in_flight_weigh_on_an_endpoint():
    """Who is busy gets fewer calls, and a stream counts until it ends."""
    stand = Stand("ab")

    @stand.pool
    def stream(endpoint):
        yield endpoint.name

    streams = [stream() for _ in range(40)]
    names = Counter(next(items) for items in streams)
    assert names["a"] + names["b"] == 40
    assert abs(names["a"] - names["b"]) <= 10
    busy = [items for items in streams if items.gi_frame is not None]
    for items in busy[:]:
        items.close()
    assert stand.in_flight() == {"a": 0, "b": 0}


def test_a_stream_is_as_fast_as_its_first_item():
    """How long it lasts is up to its reader."""
    stand = Stand("a")

    @stand.pool
    def stream(endpoint):
        stand.clock.advance(0.5)
        yield 1
        stand.clock.advance(100.0)
        yield 2

    items = stream()
    next(items)
    assert stand.pool.view().endpoints["a"].latency == 0.5
    list(items)
    assert stand.pool.view().endpoints["a"].latency < 0.5


def test_a_stream_that_is_being_read_does_not_wait_for_an_answer():
    """A call that hangs does, and weighs on its endpoint before it ends."""
    stand = Stand("ab")

    @stand.pool
    def stream(endpoint):
        yield endpoint.name

    streams = [stream() for _ in range(10)]
    assert {next(items) for items in streams} == {"a", "b"}
    members = stand.pool._balance._members
    stand.clock.advance(100.0)
    assert [member.waited(stand.clock.monotonic()) for member in members.values()] == [0.0, 0.0]
    for items in streams:
        items.close()

    def nested(endpoint):
        stand.clock.advance(5.0)
        assert members[endpoint.name].waited(stand.clock.monotonic()) == 5.0
        assert set(stand.calls(20)) == {"a", "b"} - {endpoint.name}

    stand.pool.call(nested)
    assert [(member._waiting, member.in_flight) for member in members.values()] == [(0, 0), (0, 0)]


def test_failing_fast_is_not_being_fast():
    """Only good answers make an endpoint look faster; a timeout makes it look slower."""
    stand = Stand("a", ejection=False)
    stand.does["a"] = lambda: stand.clock.advance(1.0)
    stand.calls(1)
    stand.does["a"] = Boom("at once")
    stand.calls(1)
    assert stand.pool.view().endpoints["a"].latency == 1.0
    stand.does["a"] = lambda: stand.clock.advance(9.0) or Boom("late")
    stand.calls(1)
    assert stand.pool.view().endpoints["a"].latency == 9.0


# -- ejection ---------------------------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_fails_is_out_for_a_while_and_comes_back_slowly():
    """It is told when it goes and when it returns; its weight grows over the slow start."""
    stand = Stand("abc", slow_start=20.0)
    stand.knock_out("a")
    assert [(e.guard, e.endpoint, e.cause, e.duration) for e in stand.told(EndpointEjected)] == [("p", "a", "consecutive_failures", 30.0)]
    view = stand.pool.view().endpoints["a"]
    assert (view.weight, view.ejected_until) == (0.0, stand.clock.time() + 30.0)
    assert "a" not in stand.shares(100)
    stand.clock.advance(30.0)
    assert stand.state("a") == "slow_start"
    assert [event.endpoint for event in stand.told(EndpointReturned)] == ["a"]
    shares = []
    for _ in range(4):
        shares.append(stand.shares(400).get("a", 0.0))
        stand.clock.advance(6.0)
    assert shares == pytest.approx([0.1 / 2.1, 0.3 / 2.3, 0.6 / 2.6, 0.9 / 2.9], abs=0.05)
    assert stand.state("a") == "healthy"
    assert stand.shares(400)["a"] == pytest.approx(1 / 3, abs=0.06)
    assert stand.pool.ejections() == {("a", "consecutive_failures"): 1}


def test_no_more_than_half_are_ever_out():
    """Also when all of them fail."""
    stand = Stand("abcd")
    stand.does = dict.fromkeys("abcd", Boom("down"))
    stand.calls(200)
    states = Counter(view.state for view in stand.pool.view().endpoints.values())
    assert states == {EndpointState.EJECTED: 2, EndpointState.HEALTHY: 2}


def test_calls_that_began_before_the_return_say_nothing_about_it():
    """A burst of late failures does not throw it out again."""
    stand = Stand("ab")

    @stand.pool
    def stream(endpoint):
        yield endpoint.name
        raise Boom

    late = [stream() for _ in range(20)]
    assert {next(items) for items in late} == {"a", "b"}
    stand.knock_out("a")
    stand.clock.advance(30.0)
    assert stand.state("a") == "slow_start"
    for items in late:
        with pytest.raises(Boom):
            next(items)
    assert stand.state("a") == "slow_start"


def test_nobody_is_ejected_where_that_is_off():
    """Failures arrive, and that is all."""
    stand = Stand("ab", ejection=False)
    stand.does = dict.fromkeys("ab", Boom("down"))
    stand.calls(100)
    assert {stand.state("a"), stand.state("b")} == {"healthy"}


def test_in_shadow_mode_ejections_are_counted_and_not_carried_out():
    """As often as they would have been."""
    stand = Stand("ab", ejection=OutlierEjection(shadow=True))
    stand.does["a"] = Boom("down")
    stand.calls(100)
    would = stand.reached.count("a") // 5
    assert stand.state("a") == "healthy"
    assert stand.resilience.guard("p").shadow.counts() == {("ejection", "eject"): would}
    assert [event.detail for event in stand.told(ShadowDecision)] == ["a for 30 s: consecutive_failures"] * would
    assert (stand.told(EndpointEjected), stand.pool.ejections()) == ([], {})


# -- panic ------------------------------------------------------------------------------------------------------------------------------


def test_when_too_few_are_left_calls_go_to_all():
    """The few would be killed by the load of the many; told when it begins and when it is over."""
    stand = Stand("abc", ejection=OutlierEjection(max_ejected=1.0))
    stand.knock_out("a")
    assert set(stand.shares(50)) == {"b", "c"}
    stand.knock_out("b")
    assert set(stand.shares(50)) == {"a", "b", "c"}
    assert stand.pool.view().panic
    stand.clock.advance(30.0)
    stand.calls(1)
    assert not stand.pool.view().panic
    assert [(e.began, e.healthy, e.endpoints) for e in stand.told(PoolPanicked)] == [(True, 1, 3), (False, 3, 3)]


def test_the_only_endpoint_is_never_out_of_reach():
    """Ejected, it is still better than nobody."""
    stand = Stand("a")
    stand.knock_out("a")
    assert stand.calls(5) == ["a"] * 5


steps = st.one_of(
    st.tuples(st.just("calls"), st.integers(1, 12)),
    st.tuples(st.just("later"), st.floats(0.0, 60.0)),
    st.tuples(st.just("fails"), st.sampled_from("abcd")),
    st.tuples(st.just("works"), st.sampled_from("abcd")),
    st.tuples(st.just("trips"), st.sampled_from("abcd")),
    st.tuples(st.just("goes"), st.sampled_from("abcd")),
)


@given(st.lists(steps, max_size=25), st.booleans(), st.sampled_from([0.0, 0.25, 0.5, 1.0]))
@settings(max_examples=40)
def test_somebody_is_always_there_to_take_a_call(steps, tiered, share):
    """Whatever fails, trips, is ejected or leaves; and no more are ejected than may be."""
    endpoints = [Endpoint(name, 1, tier=int(tiered and name > "b")) for name in "abcd"]
    stand = Stand(endpoints, breaker=one_strike(), ejection=OutlierEjection(consecutive_failures=2, max_ejected=share), listening=False)
    for what, how in steps:
        if what == "calls":
            stand.calls(how)
        elif what == "later":
            stand.clock.advance(how)
        elif what in {"fails", "works"}:
            stand.does[how] = Boom("down") if what == "fails" else how
        elif what == "trips":
            stand.resilience.breaker(f"p/{how}").trip(20.0)
        elif how in stand.pool.endpoints and len(stand.pool.endpoints) > 1:
            stand.pool.remove(how)
        for key in (None, "one"):
            visit = stand.pool._balance.take((), key)
            assert visit is not None
            visit.leave(Outcome.REJECTED, stand.clock.monotonic())
        states = Counter(view.state for view in stand.pool.view().endpoints.values())
        assert states["ejected"] <= max(1, int(share * len(stand.pool.endpoints)))
    assert sum(stand.in_flight().values()) == 0


# -- breakers ---------------------------------------------------------------------------------------------------------------------------


def test_an_endpoint_whose_breaker_closes_comes_back_slowly():
    """A tenth of its share for the probes, and a slow start after them."""
    stand = Stand("ab", breaker=one_strike(), ejection=False, slow_start=20.0)
    stand.resilience.breaker("p/a").trip(10.0)
    assert (stand.state("a"), stand.shares(50)) == ("open", {"b": 1.0})
    stand.clock.advance(10.0)
    view = stand.pool.view().endpoints["a"]
    assert (view.state, view.weight) == ("half_open", 0.1)
    while "a" not in stand.reached:
        stand.calls(1)
    view = stand.pool.view().endpoints["a"]
    assert (view.state, view.weight) == ("slow_start", 0.1)
    stand.clock.advance(20.0)
    assert stand.state("a") == "healthy"


def test_a_breaker_that_opened_and_closed_unseen_is_noticed():
    """An operator's reset between two calls of the pool ends in a slow start, too."""
    stand = Stand("ab", breaker=True)
    stand.calls(4)
    stand.resilience.breaker("p/a").trip(10.0)
    stand.resilience.breaker("p/a").reset()
    assert stand.state("a") == "slow_start"
    assert stand.state("b") == "healthy"


def test_an_endpoint_that_was_slow_before_its_breaker_opened_is_probed_all_the_same():
    """What it was then says nothing now."""
    stand = Stand("ab", breaker=one_strike(), ejection=False)
    stand.does["a"] = lambda: stand.clock.advance(5.0)
    stand.does["b"] = lambda: stand.clock.advance(0.001)
    stand.calls(20)
    stand.resilience.breaker("p/a").trip(1.0)
    stand.clock.advance(1.0)
    before = stand.reached.count("a")
    stand.calls(60)
    assert stand.reached.count("a") > before


def test_forced_states_are_obeyed():
    """Forced open is open; disabled and observed let everything through."""
    stand = Stand("ab", breaker=one_strike())
    breaker = stand.resilience.breaker("p/a")
    breaker.force_open()
    assert stand.shares(30) == {"b": 1.0}
    for control in (breaker.disable, breaker.observe, breaker.reset):
        control()
        stand.clock.advance(60.0)
        assert stand.state("a") in {"slow_start", "healthy"}
        stand.clock.advance(60.0)
        assert stand.state("a") == "healthy"


# -- tiers ------------------------------------------------------------------------------------------------------------------------------


def tiers(**options):
    """Three endpoints, and a cheaper model behind them."""
    return Stand([*(Endpoint(name, 1) for name in "abc"), Endpoint("small", 1, tier=1)], **options)


def test_the_next_tier_is_idle_while_the_first_can_bear_the_calls():
    """Two of three are not enough at a factor of 1.4: the next gets what is missing."""
    stand = tiers()
    assert "small" not in stand.shares(200)
    stand.knock_out("a")
    assert stand.pool.view().tiers == pytest.approx({0: 1.4 * 2 / 3, 1: 1 - 1.4 * 2 / 3})
    assert stand.shares(600)["small"] == pytest.approx(1 - 1.4 * 2 / 3, abs=0.04)
    stand.knock_out("b")
    assert stand.shares(600)["small"] == pytest.approx(1 - 1.4 / 3, abs=0.06)
    assert not stand.pool.view().panic


def test_a_call_goes_to_the_next_tier_when_all_of_the_first_refuse_or_fail():
    """Whatever the shares say."""
    stand = tiers(bulkhead=1, ejection=False)
    for name in "abc":
        stand.resilience.guard(f"p/{name}").bulkhead.try_enter()
    assert stand.calls(10) == ["small"] * 10
    stand = tiers(attempts=4, ejection=False, budget=None)
    stand.does = dict.fromkeys("abc", Boom("down"))
    assert stand.calls(10) == ["small"] * 10


def test_and_back_when_the_next_tier_is_of_no_use():
    """A call that the shares have sent to the second tier still gets the first."""
    stand = tiers(bulkhead=1)
    for name in "ab":
        stand.knock_out(name)
    stand.resilience.guard("p/small").bulkhead.try_enter()
    assert set(stand.calls(50)) == {"c"}


# -- keys -------------------------------------------------------------------------------------------------------------------------------


def keyed(names="abcd", **options):
    """Calls stick by their session."""
    stand = Stand(names, key="session", **options)

    @stand.pool
    def call(text, endpoint, *, session=None):
        stand.reached.append(endpoint.name)
        step = stand.does.get(endpoint.name)
        if step is not None:
            raise step
        return endpoint.name

    return stand, call


def test_calls_with_one_key_go_to_one_endpoint():
    """In every process the same, whatever the seed; without a key they are balanced."""
    (_, call), (_, other) = keyed(), keyed()
    homes = {key: call("x", session=key) for key in range(40)}
    assert homes == {key: other("x", session=key) for key in range(40)}
    assert len(set(homes.values())) == 4
    assert {call("x", session=7) for _ in range(20)} == {homes[7]}
    assert len({call("x") for _ in range(50)}) == 4


def test_when_an_endpoint_leaves_only_its_own_keys_move():
    """And come back with it, by and by."""
    stand, call = keyed(slow_start=20.0)
    before = {key: call("x", session=key) for key in range(200)}
    stand.pool.remove("a")
    after = {key: call("x", session=key) for key in range(200)}
    assert {before[key] for key in before if before[key] != after[key]} == {"a"}
    stand.pool.add(Endpoint("a", 1))
    some = {key: call("x", session=key) for key in range(200)}
    assert 0 < sum(home == "a" for home in some.values()) < sum(home == "a" for home in before.values())
    stand.clock.advance(20.0)
    assert {key: call("x", session=key) for key in range(200)} == before


def test_a_key_may_be_a_function_of_the_arguments():
    """One that raises is reported, and its calls stick to nothing."""
    stand = Stand("abcd", key=lambda text, **_: text[0])

    @stand.pool
    def call(endpoint, text, loud=False):
        return endpoint.name

    assert len({call("xylophone"), call("xenon", loud=True), call("x")}) == 1
    assert len({call("") for _ in range(50)}) == 4
    assert len([event for event in stand.events if type(event).__name__ == "DefectFound"]) == 1


def test_a_function_without_the_key_is_refused():
    """Unless it takes any keyword."""
    stand = Stand("a", key="session")
    assert wrong(stand.pool, lambda endpoint, text: text) == ["key"]
    assert stand.pool(lambda endpoint, **kwargs: kwargs)(session="x") == {"session": "x"}
    assert stand.pool(lambda endpoint, session: session)("x") == "x"
    assert wrong(stand.pool.call, lambda endpoint: 1) == ["key"]


def test_a_key_spills_over_when_its_endpoint_is_busy():
    """To the next in its own order, which is the same for all calls."""
    stand = Stand("abcd", key="session")

    @stand.pool
    def stream(endpoint, session):
        yield endpoint.name

    streams = [stream("one") for _ in range(16)]
    found = Counter(next(items) for items in streams)
    assert max(found.values()) <= 5
    assert set(found) == {"a", "b", "c", "d"}


def test_a_failed_call_with_a_key_goes_to_the_next_in_its_order():
    """The keys of an endpoint that fails are spread over all the others."""
    stand, call = keyed(attempts=2, budget=None, ejection=False)
    homes = {key: call("x", session=key) for key in range(200)}
    stand.does["a"] = Boom("down")
    moved = {key: call("x", session=key) for key in range(200)}
    assert {moved[key] for key in homes if homes[key] == "a"} == {"b", "c", "d"}
    assert all(moved[key] == home for key, home in homes.items() if home != "a")


def test_a_key_stays_in_its_tier():
    """While two tiers share the calls it does not go to and fro."""
    stand = Stand([Endpoint("a", 1), Endpoint("b", 1), Endpoint("small", 1, tier=1)], key="session")
    call = stand.pool(lambda endpoint, session=None: stand.work(endpoint))
    stand.does = {"a": Boom("down")}
    for _ in range(50):
        with contextlib.suppress(Boom):
            call()
    stand.does = {}
    assert stand.state("a") == "ejected"
    homes = {key: {call(session=key) for _ in range(10)} for key in range(40)}
    assert all(len(home) == 1 for home in homes.values())
    assert {name for home in homes.values() for name in home} == {"b", "small"}


# -- changes ----------------------------------------------------------------------------------------------------------------------------


def test_an_endpoint_can_be_added():
    """With the policies of the others, and a slow start."""
    stand = Stand("ab", breaker=True, timeout=5.0)
    stand.pool.add(Endpoint("c", 3, weight=2.0))
    assert (stand.state("c"), stand.pool.view().endpoints["c"].weight) == ("slow_start", 0.2)
    assert stand.resilience.guard("p/c").options == stand.resilience.guard("p/a").options
    stand.clock.advance(30.0)
    assert stand.shares(400) == pytest.approx({"a": 0.25, "b": 0.25, "c": 0.5}, abs=0.06)
    assert wrong(stand.pool.add, Endpoint("c", 1)) == ["endpoints"]
    assert wrong(stand.pool.add, "d") == ["endpoints"]
    assert repr(stand.pool) == "<Pool 'p': a, b, c>"


def test_an_endpoint_that_is_removed_drains():
    """No more calls, and those that run there end there; then it is gone."""
    stand = Stand("ab")
    gate = Gate()

    async def main():
        tasks = [asyncio.ensure_future(stand.pool.acall(lambda endpoint: gate.aenter())) for _ in range(6)]
        await turns()
        stand.pool.remove("a")
        assert (stand.state("a"), stand.in_flight()["a"] > 0) == ("draining", True)
        assert set(stand.pool.endpoints) == {"b"}
        gate.open()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    assert stand.calls(5) == ["b"] * 5
    assert set(stand.pool.view().endpoints) == {"b"}
    assert wrong(stand.pool.remove, "a") == ["name"]
    assert wrong(stand.pool.remove, "b") == ["name"]


def test_an_endpoint_of_the_same_name_begins_anew():
    """What the old one still does is not held against it."""
    stand = Stand("ab")

    @stand.pool
    def stream(endpoint):
        yield endpoint.target
        if endpoint.name == "a":
            raise Boom

    old = [stream() for _ in range(40)]
    assert {next(items) for items in old} == {"A", "B"}
    stand.pool.remove("a")
    stand.pool.add(Endpoint("a", "new"))
    for items in old:
        with contextlib.suppress(Boom):
            list(items)
    assert (stand.state("a"), stand.in_flight()) == ("slow_start", {"a": 0, "b": 0})
    assert stand.pool.endpoints["a"].target == "new"


def test_a_weight_can_be_set():
    """From the next call on; what is wrong is named."""
    stand = Stand("ab")
    stand.pool.set_weight("a", 3)
    assert stand.shares(400)["a"] == pytest.approx(0.75, abs=0.06)
    assert stand.pool.endpoints["a"].weight == 3.0
    assert wrong(stand.pool.set_weight, "c", 1) == ["name"]
    assert wrong(stand.pool.set_weight, "a", 0) == ["weight"]


def test_options_can_be_changed_while_calls_run():
    """Those of the pool, of its guard and of those of its endpoints, also of endpoints to come; all or nothing."""
    stand = Stand("ab", ejection=False)
    stand.does["a"] = Boom("down")
    stand.pool.configure(attempts=2, budget=None, timeout=5.0, fallback=lambda: "fallen back")
    assert stand.calls(20) == ["b"] * 20
    stand.pool.add(Endpoint("c", 1))
    guards = stand.resilience.guards
    assert [guards[f"p/{name}"].timeout is not None for name in "abc"] == [True] * 3
    assert (guards["p"].timeout, guards["p/a"].fallback) == (None, None)
    stand.does = dict.fromkeys("abc", Boom("down"))
    assert stand.calls(1) == ["fallen back"]
    for options in ({"attempts": 0, "timeout": 1.0}, {"slo": "x"}, {"key": "session"}, {"atempts": 2}, {"attempts": 3, "retry": "x"}):
        assert wrong(stand.pool.configure, **options), options
    assert wrong(stand.pool.configure, hedge_delay=1.0) == ["hedge_delay"]
    assert (stand.pool.options.attempts, guards["p/a"].options.timeout.total) == (2, 5.0)
    stand.pool.configure(hedge_delay=1.0, idempotent=True)
    stand.pool.configure(ejection=OutlierEjection(consecutive_failures=1))
    stand.calls(1)
    assert "ejected" in {stand.state(name) for name in "abc"}
    stand.pool.remove("a")
    stand.pool.configure(timeout=6.0)
    stand.pool.add(Endpoint("a", 1))
    assert guards["p/a"].options.timeout.total == 6.0


# -- what others see --------------------------------------------------------------------------------------------------------------------


def test_a_view_is_frozen_and_part_of_the_snapshot():
    """Every endpoint with its state, weight, latency and calls in flight."""
    stand = Stand([Endpoint("a", 1, weight=2), Endpoint("b", 1, tier=1)])
    stand.does["a"] = lambda: stand.clock.advance(0.25)
    stand.calls(1)
    view = stand.resilience.snapshot().pools["p"]
    assert view == stand.pool.view()
    assert view.endpoints["a"] == type(view.endpoints["a"])("a", 0, EndpointState.HEALTHY, 2.0, 0.25, 0, None)
    assert (view.tiers, view.panic, view.endpoints["b"].latency) == ({0: 1.0, 1: 0.0}, False, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        view.panic = True
    assert GuardStand().resilience.snapshot().pools == {}
    assert stand.resilience.pools == {"p": stand.pool}


def test_rejections_of_an_idle_pool_do_not_name_ejected_endpoints_for_ever():
    """A view alone brings back whose time is over."""
    stand = Stand("ab", panic_threshold=0.0)
    stand.knock_out("a")
    stand.clock.advance(31.0)
    assert stand.state("a") == "slow_start"
    assert not any(isinstance(result, NoEndpoint) for result in stand.calls(5))
