"""The ledger of a canary: what counts as evidence, what it says, and that it can be added up, kept and read again."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.canary import ledger as module
from somaresil.canary.ledger import CanaryLedger, Counts, Levels
from somaresil.model.rollout import Verdict

LEVELS = Levels()
users = st.sampled_from([None, "ada", "bob", "eve"])
events = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.5, 1.0]), st.booleans(), st.booleans(), st.sampled_from([None, "ada", "bob", "eve"])),
    max_size=60,
)


def filled(told, *, sticky=False, levels=LEVELS):
    ledger = CanaryLedger("v2", levels, sticky=sticky)
    for weight, candidate, bad, key in told:
        ledger.note(weight, candidate=candidate, bad=bad, key=key)
    return ledger


def test_nothing_seen_is_no_proof():
    """Neither way."""
    finding = CanaryLedger("v2", LEVELS).finding()
    assert (finding.verdict, finding.worse, finding.not_much_worse, finding.counts) == (Verdict.WAIT, 1.0, 1.0, Counts())
    assert finding.reason == "no proof either way (0 of 0 bad, control 0 of 0)"


def test_a_broken_candidate_fails_after_three_requests():
    """At a tenth of the traffic, with a control that is well."""
    ledger = filled([(0.1, False, False, None)] * 27 + [(0.1, True, True, None)] * 3)
    finding = ledger.finding()
    assert finding.verdict is Verdict.FAIL
    assert finding.reason.startswith("worse than the control (3 of 3 bad, control 0 of 27; e = ")


def test_both_sides_fail_alike():
    """What is down behind both is no fault of the candidate, unless there is an objective to be met."""
    outage = [(0.5, number % 2 == 0, True, None) for number in range(60)]
    assert filled(outage).finding().verdict is not Verdict.FAIL
    finding = filled(outage, levels=Levels(allowed=0.05)).finding()
    assert finding.verdict is Verdict.FAIL
    assert finding.reason.startswith("more than 0.05 of its events are bad (30 of 30 bad, control 30 of 30; e = ")


def test_a_candidate_like_the_control_passes():
    """With enough bad events of both, and not before."""
    chance, ledger = random.Random(1), CanaryLedger("v2", LEVELS)
    verdicts = []
    for _ in range(4_000):
        ledger.note(0.5, candidate=chance.random() < 0.5, bad=chance.random() < 0.05)
        verdicts.append(ledger.finding().verdict)
    assert verdicts[0] is Verdict.WAIT
    assert verdicts[-1] is Verdict.PASS
    assert Verdict.FAIL not in verdicts
    assert ledger.finding().reason.startswith("not 2 times as bad as the control (")


def test_only_the_first_bad_event_of_a_user_is_evidence():
    """Where users keep to a side; those without a name are none, and all of them are counted."""
    told = [(0.1, True, True, "ada")] * 50 + [(0.1, True, True, None)] * 50
    finding = filled(told, sticky=True).finding()
    assert finding.verdict is Verdict.WAIT
    assert finding.counts == Counts(0, 100, 0, 0)
    assert filled(told).finding().verdict is Verdict.FAIL
    assert filled([(0.1, True, True, f"user-{number}") for number in range(5)], sticky=True).finding().verdict is Verdict.FAIL


def test_memory_of_users_is_bounded_and_says_so(monkeypatch):
    """Those beyond are no evidence: to forget some would count them twice."""
    monkeypatch.setattr(module, "MOST_KEYS", 2)
    ledger = filled([(0.1, True, True, f"user-{number}") for number in range(50)], sticky=True)
    finding = ledger.finding()
    assert (finding.verdict, finding.full, finding.counts.candidate_bad) == (Verdict.WAIT, True, 50)
    assert len(ledger.dump()["keys"]) == 2


@given(events, st.booleans(), st.integers(1, 4))
def test_replicas_add_up(told, sticky, replicas):
    """As if one had seen it all, as long as each user comes to one of them."""
    whole = filled(told, sticky=sticky)
    parts = [CanaryLedger("v2", LEVELS, sticky=sticky) for _ in range(replicas)]
    for weight, candidate, bad, key in told:
        parts[hash(key) % replicas].note(weight, candidate=candidate, bad=bad, key=key)
    merged = CanaryLedger("v2", LEVELS, sticky=sticky)
    for part in parts:
        merged.add(part)
    assert merged.counts == whole.counts
    for name in ("worse", "not_much_worse"):
        assert merged.dump()[name] == pytest.approx(whole.dump()[name], abs=1e-9)
    assert merged.dump()["keys"] == whole.dump()["keys"]


@given(events, st.booleans())
def test_what_is_kept_is_read_again(told, sticky):
    """Through JSON, and it goes on from there."""
    ledger = filled(told, sticky=sticky)
    again = CanaryLedger.restore(json.loads(json.dumps(ledger.dump())), LEVELS)
    assert again.dump() == ledger.dump()
    for each in (ledger, again):
        each.note(0.5, candidate=True, bad=True, key="zoe")
    assert again.finding() == ledger.finding()


SOUND = {
    "form": 1,
    "version": "v2",
    "sticky": True,
    "worst": 2.0,
    "worse": [0.0] * 8,
    "not_much_worse": [0.0] * 4,
    "counts": [0, 0, 0, 0],
    "own": [0, 0],
    "keys": ["00112233445566ff"],
    "full": False,
}


@pytest.mark.parametrize(
    ("wrong", "paths"),
    [
        ([], ["ledger.form"]),
        ({"form": 2}, ["ledger.form"]),
        (SOUND | {"worst": 3.0}, ["ledger.worst"]),
        (SOUND | {"worse": [0.0] * 7}, ["ledger.worse"]),
        (SOUND | {"worse": [float("nan")] * 8, "counts": [0, -1, 0, 0]}, ["ledger.worse", "ledger.counts"]),
        (SOUND | {"not_much_worse": "0000"}, ["ledger.not_much_worse"]),
        (SOUND | {"counts": [True, 0, 0, 0]}, ["ledger.counts"]),
        (SOUND | {"own": [0]}, ["ledger.own"]),
        (SOUND | {"keys": ["00 11 22 33 44 5"]}, ["ledger.keys"]),
        (SOUND | {"keys": ["zz112233445566ff"]}, ["ledger.keys"]),
        (SOUND | {"keys": None}, ["ledger.keys"]),
    ],
)
def test_what_is_no_ledger_is_refused(wrong, paths):
    """All of it at once; evidence that was made up is worse than none."""
    with pytest.raises(ConfigurationError) as caught:
        CanaryLedger.restore(wrong, LEVELS)
    assert [problem.path for problem in caught.value.problems] == paths


def test_unlike_ledgers_are_not_added():
    """Another version, other levels, other rules of counting."""
    with pytest.raises(ConfigurationError) as caught:
        CanaryLedger("v2", LEVELS).add(CanaryLedger("v3", Levels(worst=3.0), sticky=True))
    assert [problem.path for problem in caught.value.problems] == [
        "CanaryLedger.add.version",
        "CanaryLedger.add.levels",
        "CanaryLedger.add.sticky",
    ]


def test_levels_that_are_none_are_refused():
    """All of them at once."""
    with pytest.raises(ConfigurationError) as caught:
        Levels(alpha=0.0, beta=0.9, worst=1.0, allowed=0.0)
    assert [problem.path for problem in caught.value.problems] == ["Levels.alpha", "Levels.beta", "Levels.worst", "Levels.allowed"]
