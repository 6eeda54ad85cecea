"""What a process tells about itself: that it lives, what runs, what the kill switch says, what raised inside, what it has lost."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from somaresil import ChaosConfig, ChaosExperiment, ManualClock, Resilience
from somaresil.events import DefectFound
from somaresil.integrations._readings import Reader, add_up
from somaresil.integrations.prometheus import install
from somaresil.listeners import Listeners


@pytest.fixture
def resilience(monkeypatch, tmp_path):
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", str(tmp_path / "service.switch"))
    made = Resilience("service", clock=ManualClock(), seed=1, environment="test")
    made.guard("g")
    made.chaos.opt_in()
    yield made
    made.chaos.stop_all(here_only=True)


def told(resilience, name):
    """Give the samples of a metric by their labels."""
    registry = CollectorRegistry()
    uninstall = install(resilience, registry)
    try:
        samples = [sample for family in parse(generate_latest(registry).decode()) for sample in family.samples]
    finally:
        uninstall()
    return {tuple(sorted(sample.labels.items())): sample.value for sample in samples if sample.name == name}


def test_each_process_counts_as_one(resilience):
    """With the names of its service and environment; of several the number is theirs together."""
    labels = (("deployment_environment", "test"), ("service_name", "service"))
    assert told(resilience, "somaresil_workers") == {labels: 1}
    reading = Reader(resilience).read()
    assert add_up([reading, reading]).rows["somaresil_workers"] == {("service", "test"): 2}


def test_experiments_that_run_are_counted(resilience):
    """By target and kind while they last; of several workers as many as the one has that runs most."""
    assert told(resilience, "somaresil_experiments") == {}
    config = ChaosConfig(ChaosExperiment.ERROR_INJECTION, "g", 1.0, 60.0)
    run = resilience.chaos.arm(config)
    assert told(resilience, "somaresil_experiments") == {(("component", "g"), ("fault", config.experiment.value)): 1}
    reading = Reader(resilience).read()
    assert add_up([reading, reading]).rows["somaresil_experiments"] == {("g", config.experiment.value): 1}
    resilience.chaos.stop(run)
    assert told(resilience, "somaresil_experiments") == {}


def state_of(resilience):
    (state,) = (dict(labels)["state"] for labels, value in told(resilience, "somaresil_kill_switch").items() if value)
    return state


def test_the_kill_switch_can_be_read(resilience, monkeypatch):
    """Released, engaged, and none where there is none."""
    assert state_of(resilience) == "released"
    resilience.chaos.engage("an incident")
    assert state_of(resilience) == "engaged"
    resilience.chaos.disengage()
    assert state_of(resilience) == "released"
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", "off")
    assert state_of(resilience) == "none"


def test_a_kill_switch_that_cannot_be_read_is_told(resilience):
    """Nobody knows what it says, which is no reason to lose the scrape."""

    class Broken:
        where = "somewhere"

        def read(self):
            raise OSError("gone")

    remove = resilience.chaos.add_switch(Broken())
    try:
        assert state_of(resilience) == "unreadable"
    finally:
        remove()


def test_what_raises_inside_is_counted_each_time(resilience):
    """By its place, though it is told once."""
    events = []
    resilience.on(events.append, DefectFound)
    for _ in range(3):
        resilience.listeners.defect("classify of guard g", ValueError())
    assert told(resilience, "somaresil_defects_total") == {(("place", "classify of guard g"),): 3}
    assert len(events) == 1


def test_places_do_not_grow_without_end():
    """More than 256 of them are one, and none is lost."""
    listeners = Listeners()
    for number in range(300):
        listeners.defect(f"hook {number}", ValueError())
    found = listeners.defects()
    assert len(found) == 257
    assert found["_other"] == 44
    assert sum(found.values()) == 300


def test_backends_that_are_lost_are_told_until_they_are_back(resilience):
    """1, then 0; one that was never lost is not there."""
    resilience.listeners.reached("redis://state:6379")
    assert told(resilience, "somaresil_shared_state_lost") == {}
    resilience.listeners.lost("redis://state:6379")
    assert told(resilience, "somaresil_shared_state_lost") == {(("backend", "redis://state:6379"),): 1}
    resilience.listeners.reached("redis://state:6379")
    assert told(resilience, "somaresil_shared_state_lost") == {(("backend", "redis://state:6379"),): 0}
