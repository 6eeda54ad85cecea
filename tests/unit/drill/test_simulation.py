"""The recovery drill in virtual time: the stack that is drilled as processes passes it here too, and a stack without policies does not."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest

from somaresil.chaos.vocabulary import FAULTS
from somaresil.drill.judge import Impact
from somaresil.drill.plan import IN_PROCESS, plan_of
from somaresil.drill.policies import BREAKER, Policies
from somaresil.drill.simulation import simulate
from somaresil.drill.store import InProcess
from somaresil.drill.topology import RADII


def drill(strikes, policies=None, *, seed=7, limit=20.0):
    return simulate(strikes, seed=seed, rate=12.0, limit=limit, policies=policies)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_stack_recovers_from_two_hundred_faults():
    """All kinds that live in calls, streams, circuits and requests, in three blast radii; 95 % sure of 95 %, within five minutes."""
    report = drill(plan_of(7, 201, processes=False))
    assert report.passed, report.problems
    assert len(report.counted) == 201
    assert report.lower_bound >= 0.95
    assert report.slowest < 300.0
    kinds = {kind for kind, fault in FAULTS.items() if fault.realms.keys() - IN_PROCESS}
    assert {fault.kind for fault in report.faults if fault.verdict.injected} == kinds
    # Books that know nothing of each other.
    assert report.agreement.agree
    assert report.agreement.prometheus == sum(fault.verdict.injected for fault in report.faults)
    assert report.acknowledged > 1_000
    assert report.lost == ()
    # The radii are three different sets of instances: one, two and three.
    selected = {radius: {len(fault.selected) for fault in report.faults if fault.radius == radius} for radius in RADII}
    assert selected == {"single_instance": {1}, "zone": {2}, "region": {3}}
    # It is no drill in which nobody notices anything.
    impacts = report.impacts()
    assert min(impacts[name] for name in ("absorbed", "degraded", "failed")) >= 10


def test_the_same_seed_gives_the_same_report():
    strikes = plan_of(11, 9, processes=False)
    first, again = (drill(strikes, seed=11) for _ in range(2))
    assert replace(first, started_at=0.0).to_json() == replace(again, started_at=0.0).to_json()
    other = drill(plan_of(12, 2, processes=False), seed=12)
    assert [fault.name for fault in other.faults] != [fault.name for fault in first.faults[:2]]


def struck(kind, target, radius):
    return [
        replace(each, rate=1.0)
        for each in plan_of(7, 240, processes=False)
        if (each.site.kind, each.site.target, each.radius) == (kind, target, radius)
    ][:1]


@pytest.mark.parametrize(
    ("kind", "target", "radius"),
    [
        ("error", "http:/v1/task", "single_instance"),
        ("wrong_model", "http:/v1/task", "single_instance"),
        ("stream_cut", "http:/v1/tokens", "single_instance"),
        ("lost_reply", "memory/*", "region"),
        ("error", "worker/*", "region"),
    ],
)
def test_policies_are_what_absorbs_a_fault(kind, target, radius):
    """The same fault on the same stack, with them and without."""
    strikes = struck(kind, target, radius)
    with_them, without = drill(strikes).faults[0].verdict, drill(strikes, Policies.none()).faults[0].verdict
    assert min(with_them.injected, without.injected) > 0
    assert with_them.impact in {Impact.ABSORBED, Impact.DEGRADED}
    assert without.impact is Impact.FAILED
    assert without.recovered_after > with_them.recovered_after or with_them.impact is Impact.DEGRADED


def test_a_circuit_that_never_closes_is_not_recovery():
    """Its users are served by others, and still the stack is not as it was: the judge must not let that pass."""
    stuck = Policies(breaker=replace(BREAKER, consecutive_failures=1, open_duration=600.0, open_maximum=600.0))
    strikes = struck("error", "http:/v1/task", "single_instance") * 3
    report = drill(strikes, stuck, limit=6.0)
    first, *others = report.faults
    assert first.verdict.impact is Impact.ABSORBED
    assert not first.verdict.recovered
    assert re.search(r"circuit worker/worker-\d is open", first.verdict.why)
    # Nothing is begun in a stack that is not steady, and what is not begun is not recovered from.
    assert [fault.verdict.why for fault in others] == ["it was refused: the stack was not steady within 10 s before it"] * 2
    assert not report.passed


def test_a_memory_that_forgets_does_not_get_the_grade(monkeypatch):
    """Users are told that a message is remembered; whether it is is looked up where it should be."""

    async def forget(self, key, session):
        await self.ping()

    monkeypatch.setattr(InProcess, "write", forget)
    report = drill(struck("error", "http:/v1/task", "single_instance"))
    assert report.faults[0].verdict.recovered
    assert len(report.lost) == report.acknowledged > 0
    assert f"{report.acknowledged} of {report.acknowledged} acknowledged messages are lost" in "; ".join(report.problems)


def test_a_stack_that_stays_broken_does_not_get_the_grade():
    """Without policies nothing stands between a fault and the users; one that hangs on them longer than the limit is no recovery."""
    strikes = [replace(each, lease=7.0) for each in struck("error", "http:/v1/task", "region")]
    report = drill(strikes, Policies.none(), limit=5.0)
    assert report.faults[0].verdict.impact is Impact.FAILED
    assert not report.faults[0].verdict.recovered
    assert not report.passed
    assert Counter(fault.verdict.recovered for fault in report.faults) == {False: 1}
