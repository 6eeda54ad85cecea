"""The Chaos Toolkit drives a service in this process: actions, probes, the safety control, and plans in its format."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
import time
import types
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import SLO, ChaosPlan, CircuitBreaker, ConfigurationError, FaultWindow, InjectedFault, Resilience

pytest.importorskip("chaoslib")

from somaresil.integrations.chaostoolkit import (
    actions,
    controls,
    discover,
    from_chaostoolkit,
    probe,
    probes,
    run,
    template,
    to_chaostoolkit,
    verdict_of,
)

PLAN = ChaosPlan([FaultWindow("llm.*", "error", 0, 0.2, rate=0.5), FaultWindow("llm.invoke", "latency", 0.05, 0.1, delay=0.01)], seed=7)
SERVICE = "somaresil_toolkit_service:resilience"
ACTIONS = "somaresil.integrations.chaostoolkit.actions"


@pytest.fixture
def service(monkeypatch):
    """A service that the toolkit finds by name."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience = Resilience("toolkit", environment="test", seed=1)
    resilience.chaos.opt_in()
    resilience.slos.add(SLO("calls", target_percentage=99.0, measurement_window=timedelta(days=1)))
    resilience.guard("llm.invoke", slo="calls", breaker=CircuitBreaker(failure_rate=None, consecutive_failures=2))
    module = types.ModuleType("somaresil_toolkit_service")
    module.resilience = resilience
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield resilience
    controls.cleanup_control()
    resilience.chaos.stop_all()


def call(resilience: Resilience, guard: str = "llm.invoke") -> bool:
    """Whether a call was struck."""
    try:
        resilience.guard(guard).call(lambda: None)
    except InjectedFault:
        return True
    return False


def experiment(**parts):
    """One that is valid, with other parts."""
    made = to_chaostoolkit(PLAN, title="drill", service=SERVICE)
    return {**made, **parts}


def action(func: str, pauses=None, **arguments):
    """An activity of ours."""
    provider = {"type": "python", "module": ACTIONS, "func": func, "arguments": arguments}
    return {"type": "action", "name": func, "provider": provider, **({} if pauses is None else {"pauses": pauses})}


def refused(data) -> dict[str, str]:
    """What is wrong with an experiment, by path."""
    with pytest.raises(ConfigurationError) as caught:
        from_chaostoolkit(data)
    return {problem.path.removeprefix("experiment."): f"{problem.allowed} ({problem.hint})" for problem in caught.value.problems}


# -- actions and probes ---------------------------------------------------------------------------------------------------------


def test_actions_start_and_end_faults(service):
    """Each gives the id, by which it is asked for and ended."""
    identity = actions.inject_errors("llm.*", 60.0, service=SERVICE)
    assert probes.experiment_status(identity, service=SERVICE) == "running"
    assert call(service)
    actions.stop_experiment(identity, service=SERVICE)
    assert probes.experiment_status(identity, service=SERVICE) == "stopped"
    assert not call(service)
    actions.inject_latency("llm.*", 0.01, 60.0, configuration={"somaresil_service": SERVICE})
    with pytest.raises(ConfigurationError, match="allow_overlap"):
        actions.start_plan(PLAN.as_dict(), service=SERVICE)
    assert len(service.chaos.runs) == 1
    actions.stop_all(service=SERVICE)
    actions.inject_fault({"target": "llm.*", "kind": "lost_reply", "duration": 60, "allow_overlap": True}, service=SERVICE)
    actions.stop_all(service=SERVICE)
    assert len(actions.start_plan(PLAN.as_dict(), service=SERVICE)) == 2
    assert not probes.recovered(service=SERVICE)
    actions.stop_all(service=SERVICE)
    assert service.chaos.runs == ()
    assert probes.recovered("llm.*", service=SERVICE)


def test_probes_say_what_the_service_says(service):
    """A breaker, a budget, a burn rate; what cannot be said fails."""
    with pytest.raises(RuntimeError, match="has seen no event"):
        probes.burn_rate("calls", service=SERVICE)
    assert probes.breaker_state("llm.invoke", service=SERVICE) == "closed"
    assert not call(service)
    assert probes.burn_rate("calls", service=SERVICE) == 0.0
    assert probes.budget_left("calls", service=SERVICE) == pytest.approx(1.0)
    actions.trip_circuit_breaker("llm.invoke", 60.0, service=SERVICE)
    assert probes.breaker_state("llm.invoke", service=SERVICE) == "open"
    for wrong in (lambda: probes.breaker_state("x", service=SERVICE), lambda: probes.experiment_status("x", service=SERVICE)):
        with pytest.raises(RuntimeError):
            wrong()


def test_every_action_that_starts_something_needs_a_duration():
    """A provider's timeout is ignored by the toolkit, so the lease is what ends it."""
    for name in ("inject_latency", "inject_errors", "trip_circuit_breaker", "partition", "exhaust"):
        with pytest.raises(TypeError, match="duration"):
            getattr(actions, name)("llm.*", **({"delay": 1.0} if name == "inject_latency" else {}))
    with pytest.raises(ConfigurationError, match="duration"):
        actions.inject_fault({"target": "llm.*", "kind": "error"}, service=SERVICE)


@pytest.mark.parametrize("named", ["", 5, "a b:c", "ftp://host", "http://user:secret@host/", "http://", "sys:path"])
def test_a_service_that_is_none_is_refused(named):
    """And no part of a password is shown."""
    with pytest.raises(ConfigurationError) as caught:
        actions.stop_all(service=named)
    assert "secret" not in str(caught.value)


def test_discover_lists_every_activity_with_its_types():
    """Actions and probes, what they take and what they give."""
    found = {activity["name"]: activity for activity in discover()["activities"]}
    assert set(found) == {*actions.__all__, *probes.__all__}
    latency = {argument["name"]: argument["type"] for argument in found["inject_latency"]["arguments"]}
    assert list(latency) == ["target", "delay", "duration", "rate", "service", "configuration", "secrets"]
    assert list(latency.values()) == ["string", "number", "number", "number", "string", "mapping", "mapping"]
    assert found["burn_rate"]["return_type"] == "number"
    assert found["start_plan"]["return_type"] == "list"
    assert all(activity["doc"] for activity in found.values())


def test_the_package_loads_no_toolkit_until_it_is_needed():
    """Nor does it show the toolkit's function to anybody else."""
    code = "import sys, somaresil, somaresil.integrations.chaostoolkit as c; assert 'chaoslib' not in sys.modules"
    code += "; assert 'discover' not in dir(somaresil)"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- running --------------------------------------------------------------------------------------------------------------------------


def test_a_plan_runs_as_an_experiment(service):
    """Its faults strike while it runs, its hypothesis is asked before and after, its rollback is played."""
    struck = []
    stop = threading.Event()

    def traffic():
        while not stop.wait(0.005):
            struck.append(call(service, "tool.call"))

    service.guard("tool.call")
    thread = threading.Thread(target=traffic)
    thread.start()
    try:
        hypothesis = {"title": "serves", "probes": [probe("recovered", True, guards="tool.*")]}
        plan = ChaosPlan([FaultWindow("tool.call", "error", 0, 0.3)])
        verdict = run(to_chaostoolkit(plan, title="drill", hypothesis=hypothesis, service=SERVICE))
    finally:
        stop.set()
        thread.join()
    assert (verdict.status, verdict.reason) == ("passed", "")
    assert any(struck)
    assert [each["status"] for each in verdict.journal["run"]] == ["succeeded"]
    assert [each["activity"]["name"] for each in verdict.journal["rollbacks"]] == ["end every fault"]
    assert verdict.journal["steady_states"]["after"]["steady_state_met"] is True
    assert service.chaos.runs == ()


def test_an_experiment_whose_steady_state_fails_is_not_started(service):
    """The toolkit calls it completed; nothing was armed."""
    hypothesis = {"title": "serves", "probes": [probe("breaker_state", "open", guard="llm.invoke")]}
    verdict = run(to_chaostoolkit(PLAN, title="drill", hypothesis=hypothesis, service=SERVICE))
    assert verdict.status == "not started"
    assert "breaker_state llm.invoke said 'closed'" in verdict.reason
    assert verdict.journal["status"] == "completed"
    assert verdict.journal["run"] == []
    assert service.chaos.history == ()


def test_an_objective_without_events_starts_nothing(service):
    """No data is not a steady state."""
    hypothesis = {"title": "serves", "probes": [probe("burn_rate", (0.0, 1.0), slo="calls")]}
    verdict = run(to_chaostoolkit(PLAN, title="drill", hypothesis=hypothesis, service=SERVICE))
    assert verdict.status == "not started"
    assert "has seen no event" in verdict.reason


def test_an_experiment_that_leaves_the_steady_state_deviates(service):
    """The breaker is open afterwards."""
    hypothesis = {"title": "serves", "probes": [probe("breaker_state", "closed", guard="llm.invoke")]}
    assert not call(service)
    trip = action("trip_circuit_breaker", target="llm.invoke", duration=60.0)
    verdict = run(experiment(method=[trip], rollbacks=[], controls=[], **{"steady-state-hypothesis": hypothesis}))
    assert verdict.status == "deviated"
    assert "said 'open'" in verdict.reason


def test_an_action_that_fails_fails_the_experiment(service):
    """The toolkit calls it completed."""
    verdict = run({**experiment(), "method": [action("inject_errors", target="nobody.*", duration=1.0)]})
    assert verdict.status == "failed"
    assert "nobody.*" in verdict.reason
    assert verdict.journal["status"] == "completed"


def test_the_timeout_of_a_provider_is_ignored_and_the_lease_is_not(service):
    """A second of timeout ends nothing; the duration does, with nobody there to end it."""
    slow = action("inject_errors", target="llm.*", duration=0.1)
    slow["timeout"] = 60
    verdict = run({**experiment(), "method": [slow], "rollbacks": [], "controls": []})
    assert verdict.status == "passed"
    deadline = time.monotonic() + 5.0
    while service.chaos.runs:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert service.chaos.history[-1].end_reason == "expired"


# -- safety --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit(30)])
def test_the_safety_control_ends_everything_after_an_interruption(service, monkeypatch, ending):
    """No rollback is played on Ctrl-C by default; every fault is ended all the same."""
    from chaoslib.experiment import run_experiment

    module = types.ModuleType("somaresil_toolkit_break")

    def interrupt():
        assert service.chaos.runs
        raise ending

    module.interrupt = interrupt
    monkeypatch.setitem(sys.modules, module.__name__, module)
    broken = {"type": "action", "name": "break", "provider": {"type": "python", "module": module.__name__, "func": "interrupt"}}
    data = experiment(method=[action("inject_errors", target="llm.*", duration=60.0), broken])
    journal = run_experiment(copy.deepcopy(data), settings={})
    assert journal["status"] == "interrupted"
    assert journal["rollbacks"] == []
    assert service.chaos.runs == ()
    assert service.chaos.history[-1].end_reason == "stop_all"
    assert verdict_of(journal).status == "interrupted"
    assert [thread for thread in threading.enumerate() if thread.name == "somaresil-safety" and not thread.daemon] == []


def test_the_safety_control_has_a_time_limit_of_its_own(service):
    """It ends everything while the experiment is still at it."""
    controls.before_experiment_control({}, service=SERVICE, longest=0.05)
    identity = actions.inject_errors("llm.*", 60.0, service=SERVICE)
    deadline = time.monotonic() + 5.0
    while probes.experiment_status(identity, service=SERVICE) == "running":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    controls.after_experiment_control({})


def test_an_experiment_whose_service_is_not_there_is_interrupted_first():
    """Nothing is done to what could not be stopped."""
    verdict = run(experiment(configuration={"somaresil_service": "http://127.0.0.1:9/chaos"}))
    assert verdict.status == "interrupted"
    assert verdict.journal["run"] == []


# -- the format --------------------------------------------------------------------------------------------------------------------------


def test_a_plan_comes_back_as_it_went():
    """With its seed and scenario, title, hypothesis, service and tags."""
    plan = ChaosPlan(PLAN.windows, seed=11, scenario="tests.drill:run")
    hypothesis = {"title": "serves", "probes": [probe("recovered", True), probe("burn_rate", (0.0, 1.0), slo="calls")]}
    for where in ("", SERVICE, "https://gateway.example/_soma/chaos"):
        data = to_chaostoolkit(plan, title="drill", description="why", hypothesis=hypothesis, service=where, tags=["llm"])
        found = from_chaostoolkit(data)
        assert (found.plan, found.plan.seed, found.plan.scenario) == (plan, 11, "tests.drill:run")
        assert (found.title, found.description, found.hypothesis, found.service, found.tags) == (
            "drill",
            "why",
            hypothesis,
            where,
            ("llm",),
        )
        assert data["runtime"] == {"rollbacks": {"strategy": "always"}}
        assert "SOMARESIL_CONTROL_TOKEN" in str(data["secrets"]) or not where.startswith("http")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["llm.*", "http:/a/*"]), st.floats(0, 1e5), st.floats(0.001, 1e5), st.floats(0, 1)), max_size=6),
    st.integers(0, 2**63 - 1),
)
def test_any_plan_comes_back_as_it_went(windows, seed):
    """To the last digit."""
    plan = ChaosPlan([FaultWindow(target, "error", start, duration, rate=rate) for target, start, duration, rate in windows], seed=seed)
    assert from_chaostoolkit(to_chaostoolkit(plan, title="t")).plan == plan


def test_actions_with_pauses_become_one_plan():
    """What somebody has written by hand: the pauses say when each begins."""
    method = [
        action("inject_latency", {"before": 5, "after": 10}, target="llm.*", delay=1.0, duration=30.0),
        action("inject_fault", fault={"target": "llm.*", "kind": "error", "duration": 20, "start": 2}),
        action("trip_circuit_breaker", {"before": 3}, target="llm.invoke", duration=10.0),
    ]
    assert from_chaostoolkit(experiment(method=method)).plan == ChaosPlan(
        [
            FaultWindow("llm.*", "latency", 5, 30, delay=1.0),
            FaultWindow("llm.*", "error", 17, 20),
            FaultWindow("llm.invoke", "circuit_trip", 18, 10),
        ]
    )


def test_what_is_not_ours_is_refused_with_path_and_reason():
    """Everything at once; nothing that it names is imported."""
    python = {"type": "python", "module": "somaresil_never_imported", "func": "f"}
    found = refused(
        experiment(
            method=[
                {"type": "action", "name": "a", "provider": {"type": "process", "path": "rm"}},
                {"type": "action", "name": "b", "provider": python},
                {"type": "probe", "name": "c", "provider": python},
                action("inject_erors", target="x", duration=1),
                action("inject_errors", target="${target}", duration=1),
                action("inject_errors", target="a b", duration=-1),
                action("inject_errors", {"after": "${wait}"}, target="x", duration=1),
                {"ref": "a"},
                5,
            ],
            rollbacks=[action("inject_errors", target="x", duration=1)],
            controls=[{"name": "c", "provider": python}],
            tittle="x",
            **{
                "steady-state-hypothesis": {
                    "title": "t",
                    "probes": [{"type": "probe", "name": "p", "tolerance": 1, "provider": {"type": "http"}}],
                }
            },
        )
    )
    assert set(found) == {
        "tittle",
        "method[0].provider.type",
        "method[1].provider.module",
        "method[2].type",
        "method[3].provider.func",
        "method[4].provider.arguments.target",
        "method[5].provider.arguments.plan.windows[0].target",
        "method[5].provider.arguments.plan.windows[0].duration",
        "method[6].pauses.after",
        "method[7].ref",
        "method[8]",
        "rollbacks[0].provider.func",
        "controls[0].provider",
        "steady-state-hypothesis.probes[0].provider.type",
    }
    assert "did you mean 'inject_errors'" in found["method[3].provider.func"]
    assert "somaresil_never_imported" not in sys.modules


def test_what_the_toolkit_itself_would_refuse_is_refused():
    """By its own check: a tolerance that is missing, an experiment without a title."""
    hypothesis = {"title": "t", "probes": [{key: value for key, value in probe("recovered", True).items() if key != "tolerance"}]}
    assert "tolerance" in refused(experiment(**{"steady-state-hypothesis": hypothesis}))["experiment"]
    assert "title" in refused(experiment(title=""))["experiment"]


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["python", "action", ACTIONS, "inject_errors", "${x}", "start_plan"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "provider", "module", "func", "arguments", "pauses", "plan", "probes", "title", "fault"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["title", "description", "method", "rollbacks", "controls", "configuration", "steady-state-hypothesis", "tags"]),
        JSON,
    )
)
def test_no_data_breaks_the_reader(data):
    """Whatever it is, it is an experiment or a ConfigurationError."""
    try:
        from_chaostoolkit(data)
    except ConfigurationError as wrong:
        assert wrong.problems  # noqa: PT017 - either is well


def test_a_template_is_an_experiment():
    """Valid, with rollbacks that are always played."""
    data = template("llm.*", service=SERVICE, slo="calls")
    assert data["runtime"]["rollbacks"]["strategy"] == "always"
    assert len(from_chaostoolkit(data).hypothesis["probes"]) == 2
    with pytest.raises(ConfigurationError):
        probe("burn_rat", 1)
    with pytest.raises(ConfigurationError):
        to_chaostoolkit(5, title="")  # type: ignore[arg-type]
