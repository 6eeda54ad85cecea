"""Off by default: who may start an experiment, how far it may go, and that a refusal arms nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from somaresil import ChaosCeilings, ChaosConfig, ConfigurationError, Resilience, ResilienceMiddleware
from somaresil.events import ExperimentStarted
from tests.unit.chaos.kit import CUT, ERROR, LATENCY, TRIP, Stand


def refused(stand, start):
    """The problems of a refused start, as (last part of the path, text); nothing may be armed, counted or told."""
    with pytest.raises(ConfigurationError) as caught:
        started = start()
        if asyncio.iscoroutine(started):
            asyncio.run(started)
    assert stand.chaos.runs == stand.chaos.history == stand.chaos.http == ()
    assert stand.guard.switch.quiet
    assert stand.guard.faults.rules == ()
    assert stand.told(ExperimentStarted) == []
    return {problem.path.rpartition(".")[2]: str(problem) for problem in caught.value.problems}


def test_without_opt_in_in_the_code_nothing_starts(make):
    """The environment alone is not enough."""
    stand = make(opt_in=False)
    problems = refused(stand, lambda: stand.chaos.inject_errors("llm.*"))
    assert list(problems) == ["opt_in"]
    assert "off by default" in problems["opt_in"]


@pytest.mark.parametrize("value", [None, "", "0", "true", "yes"])
def test_without_the_environment_nothing_starts(stand, monkeypatch, value):
    """The code alone is not enough; only 1 is a yes, and it is asked at each start."""
    if value is None:
        monkeypatch.delenv("SOMARESIL_CHAOS")
    else:
        monkeypatch.setenv("SOMARESIL_CHAOS", value)
    assert list(refused(stand, stand.arm)) == ["SOMARESIL_CHAOS"]
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    assert stand.arm().live


def test_an_environment_without_a_name_may_be_production(make):
    """So it is refused, with both ways to name it."""
    stand = make(environment=None)
    problems = refused(stand, stand.arm)
    assert list(problems) == ["environment"]
    assert "SOMARESIL_ENVIRONMENT" in problems["environment"]


def test_the_environment_may_be_named_from_outside(make, monkeypatch):
    """As the message says."""
    monkeypatch.setenv("SOMARESIL_ENVIRONMENT", "staging")
    assert make(environment=None).arm().live


@pytest.mark.parametrize(
    "name", ["production", "Production", "prod", "PRD", "live", "prod-eu-1", "eu.production", "production2", "shop_live"]
)
def test_production_needs_a_second_key_in_both_places(make, monkeypatch, name):
    """In the code and, with the name of the service, in the environment; however the name is written."""
    stand = make(environment=name)
    assert list(refused(stand, stand.arm)) == ["environment"]
    stand.chaos.opt_in(production=True)
    assert list(refused(stand, stand.arm)) == ["environment"]
    monkeypatch.setenv("SOMARESIL_CHAOS_PRODUCTION", "another service")
    assert list(refused(stand, stand.arm)) == ["environment"]
    monkeypatch.setenv("SOMARESIL_CHAOS_PRODUCTION", "tests")
    stand.chaos.opt_in(production=False)
    assert list(refused(stand, stand.arm)) == ["environment"]
    stand.chaos.opt_in(production=True)
    assert stand.arm().live


@pytest.mark.parametrize("name", ["staging", "test", "pre-prod", "non-production", "preprod", "delivery", "products", "dev:alive"])
def test_other_environments_need_one_key(make, name):
    """Names that only look like production."""
    assert make(environment=name).arm().live


@pytest.mark.parametrize(
    ("target", "meant"),
    [("lmm.invoke", "did you mean 'llm.invoke'?"), ("llm.invokee", "did you mean 'llm.invoke'?"), ("zzz.*", "llm.invoke")],
)
def test_an_unknown_component_says_what_was_meant(stand, target, meant):
    """And which there are."""
    problems = refused(stand, lambda: stand.chaos.inject_errors(target))
    assert list(problems) == ["target_component"]
    assert meant in problems["target_component"]


def test_many_components_are_not_all_listed(make):
    """Ten, and how many more."""
    stand = make()
    for number in range(30):
        stand.resilience.guard(f"guard{number:02}")
    text = refused(stand, lambda: stand.chaos.inject_errors("zzz"))["target_component"]
    assert "guard00" in text
    assert "and 21 more" in text


def test_a_process_without_guards_has_nothing_to_attack():
    """It says so."""
    resilience = Resilience("x", environment="test")
    resilience.chaos.opt_in()
    with pytest.raises(ConfigurationError, match="there are none"):
        resilience.chaos.arm(ChaosConfig(ERROR, "llm.*"))


@pytest.mark.parametrize("rate", [-0.01, 1.01, 20, float("nan"), "0.5", True])
def test_a_rate_is_a_share(stand, rate):
    """In [0, 1], and the message says what a percentage is."""
    problems = refused(stand, lambda: stand.chaos.inject_errors("llm.*", rate=rate))
    assert list(problems) == ["failure_rate"]
    if rate == 20:
        assert "20 % is 0.2" in problems["failure_rate"]


@pytest.mark.parametrize("duration", [0, -1, float("inf"), "60", timedelta(0)])
def test_a_lease_has_a_length(stand, duration):
    """More than nothing, and not for ever."""
    assert "duration_seconds" in refused(stand, lambda: stand.chaos.inject_errors("llm.*", duration_seconds=duration))


@pytest.mark.parametrize("delay", [0, -1, float("nan"), "800", None, True])
def test_a_latency_experiment_has_a_delay(stand, delay):
    """More than nothing, a number of milliseconds or a timedelta."""
    assert "delay_seconds" in refused(stand, lambda: stand.chaos.inject_latency("llm.*", delay))


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"rate": 0.51}, "failure_rate"),
        ({"duration": 121.0}, "duration_seconds"),
        ({"duration": timedelta(minutes=3)}, "duration_seconds"),
        ({"delay_seconds": 5.5}, "delay_seconds"),
    ],
)
def test_nothing_goes_above_the_ceilings(make, options, path):
    """They are set in code, at opt-in."""
    stand = make(ceilings=ChaosCeilings(duration=120.0, rate=0.5, delay=5.0))
    problems = refused(stand, lambda: stand.arm(LATENCY, **{"rate": 0.5, **options}))
    assert list(problems) == [path]
    assert "the ceiling" in problems[path]
    assert stand.arm(LATENCY, rate=0.5, duration=120.0, delay_seconds=5.0).live


def test_there_are_ceilings_by_default(stand):
    """Ten minutes, half a minute of delay, eight at once."""
    problems = refused(stand, lambda: stand.arm(LATENCY, duration=601.0, delay_seconds=31.0))
    assert list(problems) == ["duration_seconds", "delay_seconds"]
    for _ in range(8):
        stand.arm(rate=0.0)
    with pytest.raises(ConfigurationError, match="at most 8 at once"):
        stand.arm(rate=0.0)
    assert len(stand.chaos.runs) == 8


def test_an_experiment_that_is_over_makes_room(make):
    """Ended by its lease, with nobody having looked."""
    stand = make(ceilings=ChaosCeilings(experiments=1))
    stand.arm(duration=10.0)
    with pytest.raises(ConfigurationError, match="at most 1 at once"):
        stand.arm()
    stand.clock.advance(10.0)
    assert stand.arm().live


def test_a_trip_is_judged_by_what_it_does(make):
    """It fails every call, whatever rate was written, so a ceiling on the rate holds for it too."""
    stand = make(ceilings=ChaosCeilings(rate=0.5))
    stand.resilience.guard("memory", breaker=True)
    assert list(refused(stand, lambda: stand.chaos.arm(ChaosConfig(TRIP, "memory", 0.001)))) == ["failure_rate"]


def test_every_problem_is_named_at_once(make, monkeypatch):
    """Permission, values, ceilings and target, whichever way it is started."""
    monkeypatch.delenv("SOMARESIL_CHAOS")
    stand = make(environment="production", opt_in=False)
    problems = refused(stand, lambda: stand.chaos.inject_latency("lmm.invoke", 40_000, rate=2, duration_seconds=5_000, after_items=-1))
    assert list(problems) == [
        "failure_rate",
        "after_items",
        "opt_in",
        "SOMARESIL_CHAOS",
        "environment",
        "duration_seconds",
        "delay_seconds",
        "target_component",
    ]
    config = ChaosConfig(LATENCY, "lmm.invoke", 1.0, 5_000, delay_seconds=40.0)
    assert list(refused(stand, lambda: stand.chaos.start(config))) == [
        "opt_in",
        "SOMARESIL_CHAOS",
        "environment",
        "duration_seconds",
        "delay_seconds",
        "target_component",
    ]


def test_a_target_that_is_no_pattern_is_one_problem(stand):
    """It is not looked for."""
    with pytest.raises(ConfigurationError) as caught:
        asyncio.run(stand.chaos.inject_errors("two words", rate=1.0))
    assert [problem.path for problem in caught.value.problems] == ["ChaosConfig.target_component"]


def test_what_is_no_configuration_is_refused(stand):
    """With the permission problems, if there are any."""
    assert list(refused(stand, lambda: stand.chaos.arm("llm.*"))) == ["config"]


@pytest.mark.parametrize(
    ("options", "path"), [({"ceilings": 600}, "ceilings"), ({"production": "yes"}, "production"), ({"ceilings": {"rate": 1}}, "ceilings")]
)
def test_an_opt_in_is_checked(make, options, path):
    """Then nobody has opted in."""
    stand = make(opt_in=False)
    with pytest.raises(ConfigurationError, match=rf"chaos\.opt_in\.{path}"):
        stand.chaos.opt_in(**options)
    assert list(refused(stand, stand.arm)) == ["opt_in"]


def test_every_mistake_of_the_ceilings_is_named():
    """At once."""
    with pytest.raises(ConfigurationError) as caught:
        ChaosCeilings(duration=0, rate=2.0, delay=-1, experiments=0, protected_paths="/admin/*")
    assert [problem.path for problem in caught.value.problems] == [
        "ChaosCeilings.duration",
        "ChaosCeilings.rate",
        "ChaosCeilings.delay",
        "ChaosCeilings.experiments",
        "ChaosCeilings.protected_paths",
    ]


def test_requests_need_a_middleware(stand):
    """Without one there is nothing to strike, and a drill without effect proves nothing."""
    problems = refused(stand, lambda: stand.arm(ERROR, "http:/x"))
    assert "no ResilienceMiddleware is mounted" in problems["target_component"]
    ResilienceMiddleware(None, stand.resilience)
    assert stand.arm(ERROR, "http:/x").live


def test_routes_have_no_breaker(stand):
    """A trip is for guards."""
    ResilienceMiddleware(None, stand.resilience)
    with pytest.raises(ConfigurationError, match="routes have no breaker"):
        ChaosConfig(TRIP, "http:/x")


def test_a_guard_without_a_breaker_cannot_be_tripped(stand):
    """There is no circuit to open."""
    assert "no circuit to open" in refused(stand, lambda: stand.arm(TRIP))["target_component"]


@pytest.mark.parametrize("kind", ["lost_reply", "fake_result", "stale_result"])
def test_faults_on_answers_are_for_guards(kind):
    """A middleware sees chunks, not answers."""
    with pytest.raises(ConfigurationError, match="aim at a guard"):
        ChaosConfig(kind, "http:/x")


def test_a_disarmed_engine_leaves_guards_quiet():
    """Opted in or not: nothing is looked at but the flag."""
    stand = Stand()
    assert stand.guard.switch.quiet
    assert stand.struck(3) == [False] * 3
    assert stand.guard.faults.rules == ()


def test_the_kind_may_be_written_as_text(stand):
    """As in a file."""
    run = stand.chaos.arm(ChaosConfig("error", "llm.*", 1.0))
    assert run.config.experiment is ERROR
    assert stand.struck() == [True]


def test_cut_is_a_kind_of_its_own():
    """For responses of the middleware."""
    assert ChaosConfig("stream_cut", "http:/x").experiment is CUT
