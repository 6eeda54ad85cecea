"""Choosing among endpoints, held against the formulas and tables it comes from."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.chance import draw
from somaresil.model.pool import (
    CLEARLY,
    LEAST_SHARE,
    Candidate,
    PeakEwma,
    bounded,
    choose,
    halves,
    level_of,
    rendezvous,
    slow_start,
    spread,
)

GRID = [(i + 0.5) / 24 for i in range(24)]
units = st.floats(0.0, 1.0, exclude_max=True)
weights_ = st.floats(0.01, 1_000.0)
candidates_ = st.lists(
    st.builds(Candidate, weights_, st.none() | st.floats(0.0, 100.0), st.integers(0, 50), st.booleans(), st.floats(0.0, 100.0)),
    min_size=1,
    max_size=8,
)


def shares(candidates: list[Candidate]) -> list[float]:
    """What part of all draws goes to each of them."""
    taken = Counter(choose(candidates, u, v) for u in GRID for v in GRID)
    return [taken[position] / len(GRID) ** 2 for position in range(len(candidates))]


# -- latency ----------------------------------------------------------------------------------------------------------------------------


def test_a_latency_rises_at_once_and_falls_slowly():
    """A slow answer is believed, a fast one pulls by its age."""
    latency = PeakEwma()
    assert latency.read(0.0, 10.0) is None
    latency.observe(0.1, 0.0, 10.0)
    latency.observe(2.0, 1.0, 10.0)
    assert latency.read(1.0, 10.0) == 2.0
    latency.observe(0.1, 11.0, 10.0)
    assert latency.read(11.0, 10.0) == pytest.approx(0.1 + 1.9 * math.exp(-1))


def test_fast_answers_make_up_for_a_slow_one():
    """A tenth each, also when they come all at once."""
    latency = PeakEwma()
    for seconds in (2.0, *[0.1] * 20):
        latency.observe(seconds, 1.0, 10.0)
    assert latency.read(1.0, 10.0) == pytest.approx(0.1 + 1.9 * 0.9**20)


def test_a_latency_is_forgotten_with_time():
    """So that an endpoint that gets no calls because it was slow gets one again."""
    latency = PeakEwma()
    latency.observe(2.0, 0.0, 10.0)
    assert latency.read(20.0, 10.0) == pytest.approx(2.0 * math.exp(-2))
    assert latency.read(-5.0, 10.0) == 2.0
    latency.forget()
    assert latency.read(20.0, 10.0) is None


def test_an_answer_that_did_not_come_only_makes_it_slower():
    """An endpoint that fails at once is not a fast one; of one that nothing is known of, nothing is known."""
    latency = PeakEwma()
    latency.at_least(5.0, 0.0, 10.0)
    assert latency.read(0.0, 10.0) is None
    latency.observe(1.0, 0.0, 10.0)
    latency.at_least(0.001, 0.0, 10.0)
    assert latency.read(0.0, 10.0) == 1.0
    latency.at_least(5.0, 0.0, 10.0)
    assert latency.read(0.0, 10.0) == 5.0


@given(st.lists(st.tuples(st.floats(0.0, 5.0), st.floats(0.0, 10.0), st.booleans()), min_size=1, max_size=30), st.floats(0.1, 100.0))
def test_a_latency_lies_between_nothing_and_the_slowest_answer(history, decay):
    """Whatever came when, and as a straight recount has it."""
    latency, now, value, at, slowest = PeakEwma(), 0.0, None, 0.0, 0.0
    for pause, seconds, good in history:
        now += pause
        slowest = max(slowest, seconds)
        faded = math.exp(-(now - at) / decay)
        if good:
            latency.observe(seconds, now, decay)
            kept = min(faded, 0.9)
            value = seconds if value is None or seconds >= value else value * kept + seconds * (1.0 - kept)
            at = now
        else:
            latency.at_least(seconds, now, decay)
            if value is not None and seconds > value * faded:
                value, at = seconds, now
        read = latency.read(now, decay)
        assert (read is None) is (value is None)
        if read is not None:
            assert 0.0 <= read <= slowest + 1e-9
            assert read == pytest.approx(value * math.exp(-(now - at) / decay))


# -- slow start -------------------------------------------------------------------------------------------------------------------------


def test_a_weight_grows_from_a_tenth_to_all_of_it():
    """Envoy's formula with aggression 1."""
    grown = [slow_start(100.0, 100.0 + seconds, 20.0) for seconds in (0, 1, 2, 5, 10, 19, 20, 500)]
    assert grown == [LEAST_SHARE, LEAST_SHARE, LEAST_SHARE, 0.25, 0.5, 0.95, 1.0, 1.0]
    assert slow_start(None, 100.0, 20.0) == slow_start(100.0, 100.0, 0.0) == 1.0


@given(st.floats(-10.0, 1_000.0), st.floats(0.0, 100.0), st.floats(0.01, 500.0))
def test_a_weight_never_shrinks_in_its_slow_start(elapsed, further, window):
    """It lies in [0.1, 1] and goes up."""
    now, later = slow_start(0.0, elapsed, window), slow_start(0.0, elapsed + further, window)
    assert LEAST_SHARE <= now <= later <= 1.0


# -- two choices ------------------------------------------------------------------------------------------------------------------------


@given(units)
def test_one_draw_is_two(u):
    """Each half is a draw by itself, and together they are what was drawn."""
    high, low = halves(u)
    assert 0.0 <= high < 1.0
    assert 0.0 <= low < 1.0
    assert high + low / 2**26 == u


@given(candidates_, units, units)
def test_one_of_them_is_always_taken(candidates, u, v):
    """Also with strange weights and draws at the edge; the same draws give the same one."""
    taken = choose(candidates, u, v)
    assert taken in range(len(candidates))
    assert choose(candidates, u, v) == taken


@given(st.lists(st.tuples(st.floats(0.1, 10.0), st.booleans()), min_size=2, max_size=5), st.floats(0.01, 10.0))
def test_an_idle_pool_is_shared_out_by_weight(kinds, latency):
    """Equal endpoints get calls in proportion to their weight, whichever of them are in their slow start."""
    candidates = [Candidate(weight, latency, 0, starting) for weight, starting in kinds]
    total = sum(weight for weight, _ in kinds)
    for share, candidate in zip(shares(candidates), candidates, strict=True):
        assert share == pytest.approx(candidate.weight / total, abs=1.5 / len(GRID))


@given(candidates_)
def test_an_endpoint_in_its_slow_start_gets_no_more_than_its_share(candidates):
    """However fast and idle it is: that is what keeps its return from being a spike."""
    total = sum(candidate.weight for candidate in candidates)
    for share, candidate in zip(shares(candidates), candidates, strict=True):
        if candidate.starting:
            assert share <= candidate.weight / total + 1.5 / len(GRID)


def test_the_clearly_better_of_two_is_taken_and_no_other():
    """A difference of a quarter decides; less is noise."""
    better, worse = Candidate(1.0, 1.0, 0), Candidate(1.0, CLEARLY * 1.01, 0)
    assert shares([better, worse]) == [1.0, 0.0]
    assert shares([better, Candidate(1.0, CLEARLY * 0.99, 0)]) == [0.5, 0.5]


def test_calls_in_flight_count_for_each_unit_of_weight():
    """Four on weight 2 are as much as two on weight 1."""
    assert shares([Candidate(2.0, 1.0, 4), Candidate(1.0, 1.0, 2)]) == pytest.approx([2 / 3, 1 / 3], abs=0.03)
    assert shares([Candidate(2.0, 1.0, 4), Candidate(1.0, 1.0, 4)]) == [1.0, 0.0]
    assert shares([Candidate(200.0, 1.0, 4), Candidate(100.0, 1.0, 4)]) == [1.0, 0.0]


def test_a_latency_that_is_not_known_is_taken_for_the_usual_one():
    """It neither attracts nor repels; where nothing is known, load alone decides."""
    usual, slow, unknown = Candidate(1.0, 1.0, 0), Candidate(1.0, 9.0, 0), Candidate(1.0, None, 0)
    assert shares([usual, usual, unknown]) == pytest.approx([1 / 3] * 3, abs=0.03)
    assert shares([usual, usual, slow, unknown])[2] == 0.0
    assert shares([unknown, unknown._replace(in_flight=1)]) == [1.0, 0.0]


def test_a_latency_is_no_less_than_calls_have_waited():
    """An endpoint that hangs shows before it answers."""
    usual, hangs = Candidate(1.0, 1.0, 0), Candidate(1.0, 1.0, 0, waited=2.0)
    assert shares([usual, hangs]) == [1.0, 0.0]
    assert shares([usual, hangs._replace(latency=None)]) == [1.0, 0.0]
    assert shares([usual, hangs._replace(waited=0.9)]) == [0.5, 0.5]


# -- levels -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("healthy", "loads", "panics"),
    [
        ((100, 100), (1.0, 0.0), (False, False)),
        ((72, 72), (1.0, 0.0), (False, False)),
        ((71, 71), (0.994, 0.006), (False, False)),
        ((50, 60), (0.7, 0.3), (False, False)),
        ((25, 100), (0.35, 0.65), (False, False)),
        ((0, 100), (0.0, 1.0), (False, False)),
        ((25, 25), (0.5, 0.5), (True, True)),
        ((5, 65), (0.07 / 0.98, 0.91 / 0.98), (True, False)),
        ((0, 0), (1.0, 0.0), (True, True)),
        ((25, 25, 100), (0.35, 0.35, 0.3), (False, False, False)),
        ((25, 25, 20), (0.35 / 0.98, 0.35 / 0.98, 0.28 / 0.98), (True, True, True)),
        ((60,), (1.0,), (False,)),
        ((49,), (1.0,), (True,)),
    ],
)
def test_levels_share_the_calls_as_in_the_tables_of_envoy(healthy, loads, panics):
    """With a factor of 1.4 and a panic threshold of 50 %."""
    found = spread([(share, 100) for share in healthy], 1.4, 0.5)
    assert found.loads == pytest.approx(loads)
    assert found.panics == panics


@given(
    st.lists(st.integers(1, 20).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))), min_size=1, max_size=5),
    st.floats(1.0, 5.0),
    st.floats(0.01, 1.0),
    units,
)
def test_a_level_that_gets_calls_has_somebody_to_take_them(levels, factor, threshold, u):
    """The loads are shares of one; the level drawn has a healthy endpoint, or panics and takes any."""
    found = spread(levels, factor, threshold)
    assert sum(found.loads) == pytest.approx(1.0)
    assert all(0.0 <= load <= 1.0 for load in found.loads)
    level = level_of(found.loads, u)
    assert levels[level][0] > 0 or found.panics[level]
    assert not any(panic and healthy / total >= threshold for panic, (healthy, total) in zip(found.panics, levels, strict=True))


def test_without_a_threshold_nobody_panics():
    """Envoy's way of switching it off."""
    assert spread([(0, 4), (0, 2)], 1.4, 0.0).panics == (False, False)
    assert spread([(1, 4)], 1.4, 0.0).panics == (False,)


# -- keys -------------------------------------------------------------------------------------------------------------------------------


def homes(names: list[str], weights: list[float], keys: int) -> list[str]:
    """Where each key belongs."""
    return [names[rendezvous(weights, [draw(b"", "key", f"{name} {key}", 0) for name in names])[0]] for key in range(keys)]


@given(st.lists(st.tuples(weights_, units), min_size=1, max_size=8))
def test_every_endpoint_has_its_place_in_the_order_of_a_key(parts):
    """Nobody is left out, whatever the weights and draws."""
    order = rendezvous([weight for weight, _ in parts], [u for _, u in parts])
    assert sorted(order) == list(range(len(parts)))


@given(st.lists(st.tuples(weights_, units), min_size=2, max_size=8), st.data())
def test_when_an_endpoint_leaves_only_its_own_keys_move(parts, data):
    """The order of the others stays as it was."""
    gone = data.draw(st.integers(0, len(parts) - 1))
    order = rendezvous([weight for weight, _ in parts], [u for _, u in parts])
    rest = [part for position, part in enumerate(parts) if position != gone]
    after = rendezvous([weight for weight, _ in rest], [u for _, u in rest])
    assert [position + (position >= gone) for position in after] == [position for position in order if position != gone]


@given(st.lists(st.tuples(weights_, units), min_size=2, max_size=8), st.data())
def test_when_a_weight_grows_keys_move_to_it_alone(parts, data):
    """A slow start takes over its keys one by one."""
    grown = data.draw(st.integers(0, len(parts) - 1))
    before = rendezvous([weight for weight, _ in parts], [u for _, u in parts])[0]
    heavier = [weight * (2.0 if position == grown else 1.0) for position, (weight, _) in enumerate(parts)]
    after = rendezvous(heavier, [u for _, u in parts])[0]
    assert after in {before, grown}


def test_keys_are_shared_out_by_weight():
    """Twice the weight, twice the keys; a fourth endpoint takes its share and nothing else moves."""
    names = ["a", "b", "c", "d"]
    three, four = homes(names[:3], [2.0, 1.0, 1.0], 2_000), homes(names, [2.0, 1.0, 1.0, 1.0], 2_000)
    counts = Counter(three)
    assert [counts[name] / 2_000 for name in names[:3]] == pytest.approx([0.5, 0.25, 0.25], abs=0.03)
    moved = {after for before, after in zip(three, four, strict=True) if before != after}
    assert moved == {"d"}
    assert Counter(four)["d"] / 2_000 == pytest.approx(0.2, abs=0.03)


@given(
    st.lists(st.tuples(st.integers(0, 20), weights_, units), min_size=1, max_size=8),
    st.floats(1.0, 3.0),
)
def test_no_endpoint_that_is_over_its_share_gets_a_key(parts, factor):
    """The first in the order that has room is taken, and there always is one."""
    in_flight, weights = [part[0] for part in parts], [part[1] for part in parts]
    order = rendezvous(weights, [part[2] for part in parts])
    rooms = [math.ceil(factor * (sum(in_flight) + 1) * weight / sum(weights)) for weight in weights]
    free = [position for position in order if in_flight[position] < rooms[position]]
    assert bounded(order, in_flight, weights, factor) == free[0]


def test_an_idle_endpoint_keeps_its_keys():
    """Only load makes a key move on."""
    assert bounded([2, 0, 1], [0, 0, 0], [1.0, 1.0, 1.0], 1.25) == 2
    assert bounded([2, 0, 1], [0, 0, 5], [1.0, 1.0, 1.0], 1.25) == 0
    assert bounded([2, 0, 1], [4, 4, 4], [1.0, 1.0, 1.0], 1.25) == 2


# -- edges ------------------------------------------------------------------------------------------------------------------------------


def test_a_slow_start_may_be_shorter_than_a_second():
    """Half of it is half of the weight."""
    assert slow_start(100.0, 100.25, 0.5) == 0.5


def test_just_the_factor_is_not_clearly_better():
    """The first drawn is taken then."""
    holder, challenger = Candidate(1.0, CLEARLY, 0), Candidate(1.0, 1.0, 0)
    assert choose([holder, challenger], 0.0, 0.9) == 0
    assert choose([holder._replace(latency=math.nextafter(CLEARLY, 2.0)), challenger], 0.0, 0.9) == 1


def test_a_call_more_counts_as_one_of_all_with_the_one_to_come():
    """Two in flight are three with this one, and clearly better than four: 3 / 4 is less than 1 / 1.25."""
    assert choose([Candidate(1.0, 1.0, 3), Candidate(1.0, 1.0, 2)], 0.0, 0.9) == 1
    assert choose([Candidate(1.0, 1.0, 4), Candidate(1.0, 1.0, 3)], 0.0, 0.9) == 0


def test_calls_in_flight_count_by_the_average_weight():
    """Of three endpoints of weight 2 one call is one call: twice the latency of an idle one."""
    near = Candidate(2.0, 1.0, 1)
    assert choose([Candidate(2.0, 2.6, 0), near, near], 0.0, 0.25) == 1
    assert choose([Candidate(2.0, 2.4, 0), near, near], 0.0, 0.5) == 0


@pytest.mark.parametrize(("own", "taken"), [(0.5, 0), (0.6, 1)])
def test_the_usual_latency_is_that_of_the_one_in_the_middle(own, taken):
    """Of four known ones the third, 0.4: the unknown one is taken instead of 0.6, and not of 0.5."""
    known = [Candidate(1e-9, latency, 0) for latency in (0.4, 0.1, 0.2)]
    assert choose([Candidate(1.0, own, 0), Candidate(1.0, None, 0), *known], 0.0, 0.5) == taken


def test_where_no_latency_is_known_one_second_is_usual():
    """Calls that have waited longer make an endpoint slower than that."""
    waited, idle = Candidate(1.0, None, 0, waited=1.5), Candidate(1.0, None, 0)
    assert choose([waited, idle], 0.0, 0.9) == 1
    assert choose([waited._replace(waited=1.2), idle], 0.0, 0.9) == 0


@pytest.mark.parametrize(
    ("loads", "u", "level"),
    [
        ((0.5, 0.5, 0.0), 0.0, 0),
        ((0.5, 0.5, 0.0), 0.5, 1),
        ((0.5, 0.5, 0.0), 1.0, 1),
        ((0.0, 1.0), 0.0, 1),
        ((0.0, 0.0), 0.5, 0),
    ],
)
def test_a_draw_at_an_edge_belongs_to_the_level_behind_it(loads, u, level):
    """What rounding leaves over belongs to the last that has a load; without any, the first is taken."""
    assert level_of(loads, u) == level


def test_just_the_threshold_is_no_panic():
    """Half of the endpoints, and half is asked for."""
    assert spread([(50, 100)], 1.4, 0.5).panics == (False,)


@pytest.mark.parametrize(("in_flight", "factor", "taken"), [([2, 1], 1.25, 0), ([3, 0], 1.25, 1), ([1, 0], 1.25, 0), ([5, 5], 0.1, 0)])
def test_the_bound_is_a_share_of_the_calls_with_this_one(in_flight, factor, taken):
    """Of four calls 2.5 on each are allowed, that is 3; where nobody has room, the first is taken."""
    assert bounded([0, 1], in_flight, [1.0, 1.0], factor) == taken
    assert bounded([1, 0], in_flight[::-1], [1.0, 1.0], factor) == 1 - taken
