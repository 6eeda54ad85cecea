"""Ids of experiments that are the same wherever a plan is started."""

import pytest

from somaresil import ChaosCeilings, ChaosPlan, ConfigurationError, ManualClock, Resilience
from somaresil.chaos.plan import FaultWindow

PLAN = ChaosPlan([FaultWindow("llm.*", "latency", 0, 30, delay=1), FaultWindow("llm.*", "error", 30, 30)])


@pytest.fixture
def processes(monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    made = [Resilience("tests", clock=ManualClock(), environment="test") for _ in range(2)]
    for each in made:
        each.guard("llm.invoke")
        each.chaos.opt_in(ChaosCeilings(experiments=100))
    return made


def test_with_a_label_ids_are_the_same_whatever_was_started_before(processes):
    one, other = processes
    one.chaos.arm_plan(PLAN).stop()
    for each in processes:
        assert [run.id for run in each.chaos.arm_plan(PLAN, label="drill-7").runs] == ["drill-7-1", "drill-7-2"]
    other.chaos.stop_all()
    assert [run.id for run in other.chaos.arm_plan(PLAN).runs] == ["latency-3", "error-4"]


def test_a_label_that_is_remembered_is_refused(processes):
    """Two experiments of one id could not be told apart."""
    chaos = processes[0].chaos
    chaos.arm_plan(PLAN, label="drill").stop()
    with pytest.raises(ConfigurationError, match="drill-1 is remembered still"):
        chaos.arm_plan(PLAN, label="drill")
    with pytest.raises(ConfigurationError, match="label"):
        chaos.arm_plan(PLAN, label="a drill")
    assert len(chaos.history) == 2
