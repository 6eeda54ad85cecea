"""Faults that live in the process: begun when their lease begins, released when it ends, whatever happens."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from somaresil import ChaosConfig, ChaosExperiment, ChaosPlan, ConfigurationError, FaultWindow, SystemClock
from somaresil.chaos import engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.chaos.kit import Stand

EXHAUST = ChaosExperiment.RESOURCE_EXHAUSTION


class Lamp:
    """A fault that lights a lamp."""

    def __init__(self, engine: Any) -> None:
        self.lit: list[str] = []
        self.released: list[str] = []
        self.gone = threading.Event()
        self.begun = threading.Event()
        self.breaks = False
        self.thread = 0

    def check(self, check: Any, config: Any, ceilings: Any, target: str) -> None:
        if config.target_component == "resource:nothing":
            check.problem(target, config.target_component, "resource:lamp")

    def begin(self, run: Any) -> Callable[[], None]:
        if self.breaks:
            raise OSError("no bulb")
        self.lit.append(run.id)
        self.thread = threading.get_ident()
        run.claim()
        self.begun.set()

        def release() -> None:
            self.released.append(run.id)
            self.gone.set()

        return release


@pytest.fixture(autouse=True)
def lamps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the lamp be the resource that is exhausted."""
    monkeypatch.setattr(engine, "_PROCESS_FAULTS", {EXHAUST: f"{__name__}:Lamp"})
    monkeypatch.setattr(engine, "import_module", lambda _: __import__("sys").modules[__name__])


def lamp(stand: Stand) -> Lamp:
    return stand.chaos._process_fault(EXHAUST)


def test_it_begins_with_its_lease_and_is_released_when_it_is_stopped(stand: Stand) -> None:
    run = stand.arm(EXHAUST, "resource:lamp")
    assert lamp(stand).lit == [run.id]
    assert run.injected == 1
    run.end()
    assert lamp(stand).released == [run.id]


def test_it_has_begun_when_the_arming_returns_however_quick_the_warden_is(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    warden = stand.chaos._warden

    def look_at_once() -> None:
        looking = threading.Thread(target=lambda: [warden._look(held) for held in warden._held])
        looking.start()
        looking.join(20)

    monkeypatch.setattr(warden, "_start", look_at_once)
    run = stand.arm(EXHAUST, "resource:lamp")
    assert (lamp(stand).lit, lamp(stand).thread) == ([run.id], threading.get_ident())


def test_the_kill_switch_releases_it(stand: Stand) -> None:
    run = stand.arm(EXHAUST, "resource:lamp")
    stand.chaos.stop_all()
    assert lamp(stand).released == [run.id]


def test_it_ends_with_its_lease_though_nobody_calls_anything(make: Callable[..., Stand]) -> None:
    stand = make(clock=SystemClock())
    stand.arm(EXHAUST, "resource:lamp", duration=0.05)
    assert lamp(stand).gone.wait(20)


def test_it_ends_by_the_clock_of_the_machine_when_that_of_the_service_stands_still(stand: Stand) -> None:
    run = stand.arm(EXHAUST, "resource:lamp", duration=0.05)
    assert lamp(stand).gone.wait(20)
    assert run.end_reason == "expired"


def test_it_ends_by_the_clock_of_the_service_too(stand: Stand) -> None:
    stand.arm(EXHAUST, "resource:lamp", duration=60.0)
    stand.clock.advance(61.0)
    assert lamp(stand).gone.wait(20)


def test_a_window_of_a_plan_begins_when_its_time_has_come(make: Callable[..., Stand]) -> None:
    stand = make(clock=SystemClock())
    stand.chaos.arm_plan(ChaosPlan([FaultWindow("resource:lamp", EXHAUST, 0.05, 0.05)]))
    assert lamp(stand).begun.wait(20)
    assert lamp(stand).gone.wait(20)


def test_one_that_is_stopped_before_its_time_never_begins(stand: Stand) -> None:
    plan_run = stand.chaos.arm_plan(ChaosPlan([FaultWindow("resource:lamp", EXHAUST, 10.0, 1.0)]))
    plan_run.stop()
    assert (lamp(stand).lit, stand.chaos._warden.held) == ([], 0)


def test_one_that_cannot_begin_is_over_and_says_why(stand: Stand) -> None:
    lamp(stand).breaks = True
    with pytest.raises(OSError, match="no bulb"):
        stand.arm(EXHAUST, "resource:lamp")
    assert stand.chaos.runs == ()
    assert stand.chaos.history[-1].end_reason == "failed"


def test_what_the_fault_refuses_is_named_with_its_path(stand: Stand) -> None:
    with pytest.raises(ConfigurationError, match="target_component"):
        stand.arm(EXHAUST, "resource:nothing")
    with pytest.raises(ConfigurationError, match=r"plan\.windows\[0\]\.target"):
        stand.chaos.arm_plan(ChaosPlan([FaultWindow("resource:nothing", EXHAUST, 0.0, 1.0)]))
    assert stand.chaos.runs == ()


def test_outside_the_blast_radius_nothing_begins(stand: Stand) -> None:
    run = stand.arm(EXHAUST, "resource:lamp", candidates=("somebody-else",))
    assert (run.selected, lamp(stand).lit) == (False, [])


def test_guards_have_nothing_of_it(stand: Stand) -> None:
    stand.arm(EXHAUST, "resource:lamp")
    stand.resilience.guard("resource_lamp")
    assert stand.guard.faults.rules == ()


@pytest.mark.parametrize("options", [{"amount": 1.0}, {"mode": "refuse"}, {"loss": 0.1}])
def test_its_options_mean_nothing_to_faults_of_calls(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        ChaosConfig(ChaosExperiment.ERROR_INJECTION, "llm.*", **options)


@pytest.mark.parametrize(("kind", "target"), [(EXHAUST, "llm.*"), (ChaosExperiment.ERROR_INJECTION, "resource:lamp")])
def test_kind_and_target_must_fit(kind: ChaosExperiment, target: str) -> None:
    with pytest.raises(ConfigurationError, match="target_component"):
        ChaosConfig(kind, target)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_releases_what_it_inherits(stand: Stand) -> None:
    run = stand.arm(EXHAUST, "resource:lamp")
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, f"{run.end_reason} {len(lamp(stand).released)}".encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "forked 1"
    os.waitpid(pid, 0)
    assert run.end_reason is None
