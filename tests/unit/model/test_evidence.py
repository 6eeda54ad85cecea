"""Evidence that may be looked at at any time: what is promised is computed exactly, over every way in which things can go."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.model.evidence import BETTER, HIGHEST, WORSE, Bet, against_objective, candidate_share, e_value

WEIGHTS = st.floats(0.001, 0.999)


def expected(weights, true_ratio, bet):
    """The expectation of the evidence after a bad event at each of the weights, over all ways in which they can fall.

    ``weights`` are functions of what came before: a ramp may depend on anything but what comes.
    """
    total = 0.0
    for outcome in itertools.product([True, False], repeat=len(weights)):
        made, chance = bet(), 1.0
        for place, candidate in enumerate(outcome):
            weight = weights[place](outcome[:place])
            share = candidate_share(weight, true_ratio)
            chance *= share if candidate else 1.0 - share
            made.bad(weight, candidate=candidate)
        total += chance * made.e
    return total


@st.composite
def predictable(draw):
    """Weights that follow what has been seen: another one after each bad event of the candidate."""
    count = draw(st.integers(1, 6))
    after = draw(st.lists(WEIGHTS, min_size=7, max_size=7))
    return [lambda before: after[sum(before)] for _ in range(count)]


@given(predictable())
def test_what_is_no_worse_is_expected_to_leave_the_evidence_at_one(weights):
    """Exactly 1 for a candidate like the control, with weights that depend on the past as well; less for a better one."""
    assert expected(weights, 1.0, lambda: Bet(1.0, WORSE)) == pytest.approx(1.0, abs=1e-9)
    assert expected(weights, 0.5, lambda: Bet(1.0, WORSE)) <= 1.0 + 1e-9


@given(predictable())
def test_what_is_twice_as_bad_is_not_expected_to_pass(weights):
    """The mirror image: 1 at the ratio that is too much, less beyond it."""
    assert expected(weights, 2.0, lambda: Bet(2.0, BETTER)) == pytest.approx(1.0, abs=1e-9)
    assert expected(weights, 5.0, lambda: Bet(2.0, BETTER)) <= 1.0 + 1e-9


def test_a_broken_candidate_is_found_within_a_few_requests():
    """All of its requests fail, one in ten goes to it, and the control has no bad event in this time."""
    bet, seen = Bet(1.0, WORSE), 0
    while bet.e < 100.0 and seen < 10:
        bet.bad(0.1, candidate=True)
        seen += 1
    assert seen == 3


def test_a_candidate_that_is_like_the_control_passes_in_time():
    """At 5 % bad events and half of the traffic."""
    chance, worse, much_worse, events = random.Random(3), Bet(1.0, WORSE), Bet(2.0, BETTER), 0
    while much_worse.e < 20.0 and events < 3_000:
        events += 1
        if chance.random() < 0.05:
            candidate = chance.random() < 0.5
            worse.bad(0.5, candidate=candidate)
            much_worse.bad(0.5, candidate=candidate)
        assert worse.e < 100.0
    assert events < 3_000


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.01, 0.1, 0.5, 0.9]), st.integers(0, 4))))
def test_replicas_add_up(events):
    """In any order and over any number of replicas, to a billionth."""
    whole, parts = Bet(1.0, WORSE), [Bet(1.0, WORSE) for _ in range(5)]
    for candidate, weight, replica in events:
        whole.bad(weight, candidate=candidate)
        parts[replica].bad(weight, candidate=candidate)
    merged = Bet(1.0, WORSE)
    for part in reversed(parts):
        merged.add(part.logs)
    assert merged.logs == pytest.approx(whole.logs, abs=1e-9)
    assert Bet(1.0, WORSE, merged.logs).e == pytest.approx(merged.e)


def test_one_side_alone_says_nothing():
    """There is nothing to compare with at no weight, and at all of it."""
    bet = Bet(1.0, WORSE)
    for weight in (0.0, 1.0, -1.0, 2.0, math.nan):
        bet.bad(weight, candidate=True)
        bet.bad(weight, candidate=False)
    assert bet.e == 1.0


def test_certainty_has_an_end():
    """A million bad events of the candidate alone are no overflow."""
    assert e_value([1e9, -1e9]) == pytest.approx(math.exp(HIGHEST) / 2)
    assert e_value([-1e9, -1e9]) == 0.0


@pytest.mark.parametrize("allowed", [0.001, 0.01, 0.05, 0.5])
def test_a_candidate_within_its_objective_is_expected_to_leave_the_evidence_at_one(allowed):
    """Summed over all numbers of bad events among thirty."""
    total = sum(
        math.comb(30, bad) * allowed**bad * (1 - allowed) ** (30 - bad) * against_objective(30 - bad, bad, allowed) for bad in range(31)
    )
    assert total <= 1.0 + 1e-9


def test_the_objective_is_an_absolute_guard():
    """As bad as the control is no excuse: 10 of 100 at 99 % are too many, and 1 of 100 is not."""
    assert against_objective(90, 10, 0.01) > 100.0
    assert against_objective(99, 1, 0.01) < 2.0
    assert against_objective(0, 0, 0.01) == 1.0
    assert against_objective(1_000_000, 0, 0.01) < 1e-6
    assert against_objective(0, 3, 0.6) > 1.0


@pytest.mark.parametrize(
    ("null", "ratios", "logs", "path"),
    [
        (0.0, WORSE, None, "Bet.null"),
        (math.nan, WORSE, None, "Bet.null"),
        (1.0, (), None, "Bet.ratios"),
        (1.0, (2.0, math.inf), None, "Bet.ratios"),
        (1.0, (0.5, 2.0), None, "Bet.ratios"),
        (1.0, (1.0, 2.0), None, "Bet.ratios"),
        (1.0, (2.0, 3.0), (0.0,), "Bet.logs"),
        (1.0, (2.0,), (math.nan,), "Bet.logs"),
    ],
)
def test_what_is_no_bet_is_refused(null, ratios, logs, path):
    """With path and value."""
    with pytest.raises(ConfigurationError) as caught:
        Bet(null, ratios, logs)
    assert path in [problem.path for problem in caught.value.problems]


def test_another_grid_cannot_be_added():
    """It would be a sum of unlike things."""
    with pytest.raises(ValueError, match="zip"):
        Bet(1.0, WORSE).add([0.0])
