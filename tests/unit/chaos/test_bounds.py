"""What keeps an experiment in bounds is checked whole before anything is armed, and what was armed can be told apart."""

from __future__ import annotations

import pytest

from somaresil import ChaosConfig, ChaosExperiment, ConfigurationError
from somaresil.chaos.plan import ChaosPlan
from tests.unit.chaos.kit import ERROR, Stand

WINDOW = {"start": 0, "target": "llm.*", "kind": "error", "duration": 30}


def plan(*windows, seed=1):
    return ChaosPlan.from_dict({"somaresil_plan": 1, "seed": seed, "windows": [*(windows or (WINDOW,))]})


def refused(call, *arguments, **options):
    with pytest.raises(ConfigurationError) as wrong:
        call(*arguments, **options)
    return [each.path for each in wrong.value.problems]


def config(**options):
    return ChaosConfig(ERROR, "llm.*", 1.0, 60.0, **options)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"max_active_faults": -1}, "max_active_faults"),
        ({"max_active_faults": 1_000_001}, "max_active_faults"),
        ({"max_active_faults": 1.5}, "max_active_faults"),
        ({"allow_overlap": "yes"}, "allow_overlap"),
        ({"dry_run": 1}, "dry_run"),
        ({"stop_when": [7]}, "stop_when"),
        ({"stop_when": 7}, "stop_when"),
        ({"stop_when": "no\nname"}, "stop_when"),
        ({"stop_when": ["budget"] * 33}, "stop_when"),
    ],
)
def test_a_bound_that_is_none_is_refused_by_its_name(options, name):
    """A typing error must not let an experiment go without its bound."""
    (path,) = refused(config, **options)
    assert path.rpartition(".")[2] == name


def test_the_largest_bounds_are_taken():
    assert config(max_active_faults=1_000_000).max_active_faults == 1_000_000
    assert config(max_active_faults=None).max_active_faults is None
    assert len(config(stop_when=[lambda: False] * 32).stop_when) == 32


def test_one_condition_is_kept_like_several():
    def condition():
        return False

    class Watched:
        def watch(self, *_):
            return lambda: False

    watched = Watched()
    assert config(stop_when=condition).stop_when == (condition,)
    assert config(stop_when=watched).stop_when == (watched,)
    assert config(stop_when="slow").stop_when == ("slow",)


def test_experiments_are_numbered_from_one_whether_armed_alone_or_by_a_plan():
    stand = Stand()
    first = stand.arm()
    (second,) = stand.chaos.arm_plan(plan(), allow_overlap=True).runs
    third = stand.arm()
    assert [first.id, second.id, third.id] == ["error-1", "error-2", "error-3"]


def test_a_plan_that_is_only_looked_at_is_refused_for_every_reason_and_arms_nothing():
    stand = Stand(opt_in=False)
    assert "chaos.opt_in" in refused(stand.chaos.check_plan, plan({**WINDOW, "target": "nobody"}))
    allowed = Stand()
    assert allowed.chaos.check_plan(plan()) is None
    assert refused(allowed.chaos.check_plan, plan({**WINDOW, "target": "nobody"})) == ["chaos.plan.windows[0].target"]
    assert allowed.chaos.history == ()


def test_a_plan_that_is_only_looked_at_knows_the_errors_it_is_given():
    stand = Stand()
    odd = plan({**WINDOW, "error": "Odd"})
    assert refused(stand.chaos.check_plan, odd) != []
    stand.chaos.check_plan(odd, errors={"Odd": lambda: LookupError("odd")})


def test_a_plan_that_is_refused_stands_in_the_audit_log_with_who_asked():
    stand = Stand()
    refused(stand.chaos.arm_plan, plan({**WINDOW, "target": "nobody"}), actor="ann")
    assert [(entry.what, entry.who) for entry in stand.chaos.audit.entries if entry.what == "refuse"] == [("refuse", "ann")]


def test_every_window_that_is_armed_stands_in_the_audit_log_with_who_asked():
    stand = Stand()
    stand.chaos.arm_plan(plan(WINDOW, {**WINDOW, "start": 40}), actor="ann")
    assert [entry.who for entry in stand.chaos.audit.entries if entry.experiment in {"error-1", "error-2"}] == ["ann", "ann"]


def test_windows_of_a_plan_that_strike_what_is_struck_are_refused_unless_that_is_meant():
    stand = Stand()
    stand.chaos.arm(config())
    assert refused(stand.chaos.arm_plan, plan()) == ["chaos.plan.windows[0].target"]
    assert len(stand.chaos.arm_plan(plan(), allow_overlap=True).runs) == 1


@pytest.mark.parametrize("environment", ["production", "prod-eu-1", "eu.live", "PRD"])
def test_production_needs_both_halves_of_a_second_key(environment, monkeypatch):
    """In code, and in the environment under the name of the service."""
    for in_code, in_environment in ((False, "tests"), (True, None), (True, "other")):
        monkeypatch.delenv("SOMARESIL_CHAOS_PRODUCTION", raising=False)
        if in_environment:
            monkeypatch.setenv("SOMARESIL_CHAOS_PRODUCTION", in_environment)
        stand = Stand(opt_in=False, environment=environment)
        stand.chaos.opt_in(production=in_code)
        assert refused(stand.chaos.arm, config()) == ["chaos.environment"]
    monkeypatch.setenv("SOMARESIL_CHAOS_PRODUCTION", "tests")
    stand = Stand(opt_in=False, environment=environment)
    stand.chaos.opt_in(production=True)
    assert stand.chaos.arm(config()).selected


@pytest.mark.parametrize("environment", ["staging", "pre-prod", "nonprod", "not-live", "product"])
def test_what_is_not_production_needs_no_second_key(environment):
    assert Stand(environment=environment).chaos.arm(config()).selected


def test_an_experiment_of_no_configuration_is_refused():
    assert "chaos.config" in refused(Stand().chaos.arm, ChaosExperiment.ERROR_INJECTION)
