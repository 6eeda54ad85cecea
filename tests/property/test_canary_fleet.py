"""Whatever pods, clocks and judges do: nothing counts twice, no bad event is made up, and what is no evidence is refused by its parser."""

from __future__ import annotations

import contextlib
import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.canary.fleet import FleetJudge
from somaresil.canary.telling import read_telling
from somaresil.model.rollout import Verdict
from somaresil.verdict.promql import BadQuery, evaluate, is_now
from tests.unit.canary.test_fleet import Fleet
from tests.unit.slo.kit import availability, process

PODS = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("serve"), PODS, st.integers(0, 20), st.integers(0, 5)),
    st.tuples(st.just("silence"), PODS),
    st.tuples(st.just("restart"), PODS),
    st.tuples(st.just("tick"), st.integers(1, 12)),
    st.tuples(st.just("unseen"), st.integers(1, 40)),
    st.tuples(st.just("die")),
    st.tuples(st.just("clock"), st.sampled_from([-3_000.0, -20.0, 20.0, 3_000.0])),
    st.tuples(st.just("checksum"), st.sampled_from(["c1", "c2", "c3"])),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_nothing_is_counted_twice_and_nothing_is_made_up(steps):
    """Of all checksums together, over deaths of the judge and of pods."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "judge.json"
        fleet = Fleet(2, 2, snapshot=path)
        served = {"candidate": [0, 0], "control": [0, 0]}
        for what, *how in steps:
            if what == "serve":
                pod = fleet.pods[how[0]]
                pod.serve(how[1] + how[2], how[2])
                served[pod.role][0] += how[1]
                served[pod.role][1] += how[2]
            elif what == "silence":
                fleet.pods[how[0]].silent ^= True
            elif what == "restart":
                fleet.pods[how[0]].restart()
            elif what == "tick":
                fleet.tick(how[0])
            elif what == "unseen":
                fleet.tick(how[0], look=False)
            elif what == "clock":
                fleet.clock.step_wall(how[0])
                for pod in fleet.pods:
                    pod.restart()
            elif what == "checksum":
                fleet.judge.begin(how[0])
            else:
                fleet.judge.look()
                fleet.judge = FleetJudge(fleet.resilience, name="gateway", bad="up", sources=[fleet.source], snapshot=path)
        fleet.tick(3)
        found = [fleet.judge.peek(checksum).finding.counts for checksum in ("c1", "c2", "c3")]
        for side in ("candidate", "control"):
            for place, outcome in enumerate(("good", "bad")):
                assert sum(getattr(counts, f"{side}_{outcome}") for counts in found) <= served[side][place]


def test_good_candidates_seldom_fail_when_pods_fall_silent_restart_and_all_have_outages_together():
    """300 fleets, at a level of 1 % in each of them."""
    failed = 0
    for number in range(300):
        chance = random.Random(number)
        fleet = Fleet(2, 3)
        for _ in range(15):
            rate = chance.choice([0.02, 0.02, 0.02, 0.6])
            for pod in fleet.pods:
                events = chance.randrange(0, 30)
                pod.serve(events, sum(chance.random() < rate for _ in range(events)))
                pod.silent = chance.random() < (0.7 if pod.silent else 0.15)
                # One that does not keep its marks: what it tells when it is back spans several steps.
                pod.marks = pod.marks[-1:]
                if chance.random() < 0.03:
                    pod.restart()
            fleet.tick()
        failed += fleet.says().verdict is Verdict.FAIL
    assert failed <= 3


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("form", "pod", "instance", "role", "version", "checksum", "time", "age", "every", "marks")
SOUND = {
    "form": 1,
    "pod": "a",
    "instance": "b",
    "role": "control",
    "version": "",
    "checksum": "",
    "time": 50.0,
    "age": 1.0,
    "every": 10.0,
    "marks": [{"at": 40.0, "counts": {"up": [1, 2]}}],
}


@given(st.one_of(JSON, st.dictionaries(st.sampled_from(FIELDS), JSON).map(lambda wrong: SOUND | wrong)))
def test_a_telling_is_read_or_refused(data):
    """By one kind of error, whatever it is; what was read has sound counts."""
    with contextlib.suppress(ConfigurationError):
        for mark in read_telling(data).marks:
            assert all(type(count) is int and 0 <= count <= 2**53 for pair in mark.counts.values() for count in pair)


RESILIENCE, _ = process(availability())
PIECES = st.lists(
    st.sampled_from(["somaresil_burn_rate", "{", "}", "slo", "=", '"up"', ",", "vector(1)", "[5m]", " ", "\\", "'", '"', "\n", "=~", "é"]),
    max_size=12,
)


@given(st.one_of(st.text(max_size=40), PIECES.map("".join)))
def test_a_query_is_answered_or_bad(query):
    """And so is a time."""
    for ask in (lambda: evaluate(query, [], RESILIENCE), lambda: is_now(query, 0.0)):
        with contextlib.suppress(BadQuery):
            ask()
