"""How a rollout is described, and what is refused, all at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError
from somaresil.canary import CanaryConfig, CanaryPhase, Phase
from tests.unit.slo.kit import availability, process, recovery


def refused(**given):
    with pytest.raises(ConfigurationError) as caught:
        CanaryConfig(**{"name": "answer", "bad": "up", **given})
    return {problem.path.partition(".")[2]: problem for problem in caught.value.problems}


def test_the_usual_phases_are_those_of_the_plan():
    """A bake, a tenth, a half, all; each for five minutes and fifty events at least."""
    phases = CanaryConfig(name="answer", bad="up").phases
    assert [phase.name for phase in phases] == list(CanaryPhase)[:4]
    assert [phase.weight for phase in phases] == [0.01, 0.1, 0.5, 1.0]
    assert {(phase.bake, phase.minimum_events, phase.prove) for phase in phases} == {(300.0, 50, False)}


def test_steps_are_percentages_or_phases():
    """A phase says for itself what it needs; other percentages are named by their number."""
    own = Phase("half", 0.5, 60.0, 10, prove=True)
    config = CanaryConfig(name="answer", bad=["up", "fast"], steps=[25, own, 100], bake=timedelta(minutes=1), prove=True)
    assert config.phases == (Phase("ramp_25", 0.25, 60.0, 50, prove=True), own, Phase("ramp_100", 1.0, 60.0, 50))
    assert config.objectives == ("up", "fast")


def test_everything_that_is_wrong_is_told_at_once():
    """One error, each problem with its path."""
    found = refused(
        bad=(), steps=[10, 5, 101], bake=-1, minimum_events=-1, alpha=2, beta="x", worst=1, allowed="objektive", overdue="maybe", interval=0
    )
    assert set(found) >= {"bad", "steps[1]", "steps[2]", "bake", "minimum_events", "alpha", "beta", "worst", "overdue", "interval"}
    assert found["allowed"].hint == "did you mean 'objective'?"
    assert "without one nobody knows" in found["bad"].hint


@pytest.mark.parametrize("bad", ["", [], [""], None, 3])
def test_there_is_a_source_of_bad_events(bad):
    """Without one there is no evidence, and so no canary."""
    assert "bad" in refused(bad=bad)


@pytest.mark.parametrize("steps", [[], "10", [10, 10], [50, 10], [True], [float("nan")], 10])
def test_weights_grow(steps):
    """Equal, falling and impossible ones are refused."""
    assert any(path.startswith("steps") for path in refused(steps=steps))


def test_a_phase_with_traffic_has_a_rule_about_evidence():
    """Time alone says nothing."""
    assert "a rule about evidence" in refused(minimum_events=0)["steps[0].minimum_events"].allowed
    assert CanaryConfig(name="answer", bad="up", minimum_events=0, prove=True, steps=[10]).phases[0].prove


def test_phases_are_checked_as_well():
    """Names of the end, weights beyond 1, proof with one side alone."""
    found = refused(
        steps=[Phase("complete", 0.0, 0.0, 5), Phase("x y", 1.5, -1.0, -1, overdue="x", longest=0.0), Phase("x", 1.0, 0.0, 1, prove=True)]
    )
    assert {"steps[0].name", "steps[0].minimum_events", "steps[1].name", "steps[1].weight", "steps[1].bake"} <= set(found)
    assert {"steps[1].minimum_events", "steps[1].overdue", "steps[1].longest", "steps[2].prove"} <= set(found)


def test_what_is_allowed_comes_from_the_objectives():
    """Of several it is the sum, for a call is bad when one of them says so."""
    resilience, _ = process(availability(), SLO("fast", 95.0, timedelta(days=1), latency=1.0), recovery())
    config = CanaryConfig(name="answer", bad=["up", "fast"])
    assert config.levels(resilience.slos).allowed == pytest.approx(0.06)
    assert CanaryConfig(name="answer", bad="up", allowed=0.2).levels(resilience.slos).allowed == 0.2
    assert CanaryConfig(name="answer", bad="up", allowed=None).levels(resilience.slos).allowed is None
    with pytest.raises(ConfigurationError, match="did you mean 'fast'") as caught:
        CanaryConfig(name="answer", bad=["fest", "recovery"]).levels(resilience.slos)
    assert len(caught.value.problems) == 2
