"""Small promises of the tools for tests: what is kept, what is told, and what is refused."""

from __future__ import annotations

import asyncio
import builtins
import os
import sys
from types import SimpleNamespace

import pytest

import somaresil.testing
from somaresil import ConfigurationError, Resilience, pytest_performance, pytest_plugin
from somaresil.events import DefectFound, FallbackUsed
from somaresil.testing import VirtualClock, holds, inject, runners, simulation, stall, timeline, unseen
from somaresil.testing.figures import Figures
from somaresil.testing.objectives import Objectives


def test_names_are_loaded_when_they_are_asked_for_and_others_are_missing():
    assert "LeakDetector" in dir(somaresil.testing)
    with pytest.raises(AttributeError, match=r"module 'somaresil\.testing' has no attribute 'Nothing'"):
        _ = somaresil.testing.Nothing
    assert pytest_plugin.Objectives is Objectives
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = pytest_plugin.Nothing


def test_a_variable_of_the_environment_is_as_before_when_pytest_has_run(monkeypatch):
    cleanups = []
    config = SimpleNamespace(add_cleanup=cleanups.append)
    monkeypatch.setenv("SOMARESIL_PLANS", "before")
    pytest_plugin._set_variable(config, "SOMARESIL_PLANS", "now")
    assert os.environ["SOMARESIL_PLANS"] == "now"
    cleanups.pop()()
    assert os.environ["SOMARESIL_PLANS"] == "before"
    monkeypatch.delenv("SOMARESIL_PLANS")
    pytest_plugin._set_variable(config, "SOMARESIL_PLANS", "now")
    cleanups.pop()()
    assert "SOMARESIL_PLANS" not in os.environ


def test_a_virtual_loop_outside_of_a_test_is_refused():
    with pytest.raises(RuntimeError, match="a virtual loop is made outside of a test"):
        pytest_plugin._clock_of(SimpleNamespace(item=None))


def test_failures_that_somebody_has_looked_at_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(unseen, "_PRUNED_AT", 3)
    failures = unseen.Failures()

    async def fail():
        raise ValueError("mine")

    async def main():
        failures.watch(asyncio.get_running_loop())
        for _ in range(10):
            task = asyncio.create_task(fail())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.exception()
        lost = asyncio.create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return lost

    lost = asyncio.run(main())
    assert lost.done()
    assert len(failures._failed) <= 3
    assert failures.unseen().endswith("fail ended with ValueError: mine")
    # Told once.
    assert failures.unseen() is None


def test_a_timeline_tells_of_fallbacks_and_defects_and_of_nothing_else():
    assert timeline._call(FallbackUsed("db", 0.0, "CircuitOpen", "cached")) == "db: fallback answered for CircuitOpen"
    assert timeline._event(DefectFound("a hook", 0.0, "ValueError")) == "defect: a hook raised ValueError"
    assert timeline._event(object()) is None


def test_without_the_plugin_of_anyio_nothing_is_changed(monkeypatch):
    monkeypatch.delitem(sys.modules, runners._ANYIO, raising=False)
    with runners.anyio_on(lambda: None):
        assert runners._ANYIO not in sys.modules
    module = SimpleNamespace(other=1)
    monkeypatch.setitem(sys.modules, runners._ANYIO, module)
    with runners.anyio_on(lambda: None):
        assert vars(module) == {"other": 1}


def test_anyio_runs_on_the_loop_that_is_given_and_on_no_other_backend(monkeypatch):
    def real(name, options):
        return name, options

    module = SimpleNamespace(get_runner=real)
    monkeypatch.setitem(sys.modules, runners._ANYIO, module)
    loop = object()
    with runners.anyio_on(lambda: loop):
        name, options = module.get_runner("asyncio", None)
        assert (name, options["loop_factory"]()) == ("asyncio", loop)
        with pytest.raises(RuntimeError, match="anyio_backend = 'trio': virtual time runs on 'asyncio'"):
            module.get_runner("trio", None)
    assert module.get_runner is real


def test_an_invariant_shows_its_name_and_says_what_is_broken():
    invariant = holds("orders are whole", lambda said: said)
    assert repr(invariant) == "orders are whole"
    assert [invariant.check(said) for said in (None, True, "two are missing", 0)] == [None, None, "two are missing", "it does not: 0"]


def test_what_is_no_invariant_is_refused_with_the_way_to_write_one():
    from somaresil.config import Checker

    check = Checker("scenario")
    simulation._check_invariants(check, [test_what_is_no_invariant_is_refused_with_the_way_to_write_one, 7])
    function, number = check.problems
    assert "with parentheses" in function.hint
    assert (number.value, "holds(name, function)" in number.allowed) == (7, True)


def test_nothing_is_told_to_a_hypothesis_that_is_not_there_or_does_not_run(monkeypatch):
    asked = []

    class Scenario:
        @property
        def invariants(self):
            asked.append(True)
            return ()

    simulated = SimpleNamespace(scenario=Scenario())
    simulation._target(simulated)
    monkeypatch.delitem(sys.modules, "hypothesis", raising=False)
    simulation._target(simulated)
    assert asked == []


def test_an_injection_names_the_option_that_comes_near():
    with pytest.raises(ConfigurationError) as wrong:
        inject(Resilience("tests"), "llm.*", dely=1.0)
    (problem,) = wrong.value.problems
    assert (problem.path, problem.value) == ("inject.dely", 1.0)
    assert "delay" in problem.hint


def test_an_injection_that_has_not_begun_has_injected_nothing_and_can_be_stopped():
    resilience = Resilience("tests")
    resilience.guard("llm.invoke")
    injection = inject(resilience, "llm.*")
    injection.stop()
    assert (injection.injected, injection.run) == (0, None)


def test_without_time_machine_the_way_to_install_it_is_said(monkeypatch):
    found = builtins.__import__

    def missing(name, *rest):
        if name == "time_machine":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ConfigurationError, match=r"pip install 'somaresil\[pytest\]'"), VirtualClock().patched():
        pass


def test_a_thread_without_frames_waits_nobody_knows_where():
    waiting = stall._waiting("thread 'x'", [], "its job")
    assert waiting == stall.Waiting("thread 'x'", "?", 0, "its job", "")
    assert not stall.has_own_code(None)


def test_the_summary_names_a_test_that_ended_before_it_had_recovered():
    figures = Figures()
    test = {
        "injected": 2,
        "touched": 0,
        "absorbed": 0,
        "recovery": None,
        "unrecovered": True,
        "test": "t1",
        "guards": ["db"],
        "faulted": [],
    }
    figures.tests.append(test)
    assert list(figures.lines()) == [
        "1 tests with faults: 2 injected, no call was touched",
        "not recovered when the test ended: 1, the first in t1",
        "guards never faulted: db",
    ]


def test_a_baseline_that_cannot_be_read_or_has_none_of_these_benchmarks_fails_the_run(tmp_path):
    lines, bad = pytest_performance._against(str(tmp_path / "missing.json"), {})
    assert bad
    assert lines[0].startswith("baseline: ")
    assert "missing.json" in lines[0]


def test_a_clock_whose_loop_was_closed_meanwhile_has_nobody_to_wake():
    def closed(_):
        raise RuntimeError("Event loop is closed")

    clock, woken = VirtualClock(), []
    clock._in_loop = lambda: False
    clock._loop = SimpleNamespace(call_soon_threadsafe=closed)
    clock._wake_loop()
    clock._loop = SimpleNamespace(call_soon_threadsafe=woken.append)
    clock._wake_loop()
    assert len(woken) == 1
