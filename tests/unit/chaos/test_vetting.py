"""Each question that is asked before an experiment starts, by itself: what is refused, under which name, and with which way out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from somaresil import ChaosCeilings, ChaosConfig, ChaosPlan, ConfigurationError, FaultWindow
from somaresil.chaos.permission import NOTHING, PROTECTED_PATHS, Permission, Place
from somaresil.chaos.plan import ERRORS
from somaresil.chaos.vetting import MEET, Vetting, unknown_target
from somaresil.config import Checker
from tests.unit.chaos.kit import ERROR, LATENCY, TRIP

PLACE = Place("shop", "shop-1", "a", "eu", "test")
NAMES = {"llm.invoke": SimpleNamespace(breaker=None), "db": SimpleNamespace(breaker=object())}


@pytest.fixture
def check():
    return Checker("x")


def vetting(guards=NAMES, *, middlewares=0, fault=None, place=PLACE, **ceilings):
    found = Vetting(place, lambda: guards, lambda: middlewares, lambda _: fault)
    found.allowed = Permission(ChaosCeilings(**ceilings))
    return found


def told(check):
    """Where, and what stands there."""
    return [(problem.path, problem.value) for problem in check.problems]


def window(target="llm.*", kind="error", start=0, duration=5, **options):
    return FaultWindow(target, kind, start, duration, **options)


def running(target="llm.*", span=(0.0, 10.0), **facts):
    given = {"id": "error-1", "config": ChaosConfig(ERROR, target), "span": span, "end_reason": None, "tracks": False, **facts}
    return SimpleNamespace(**given)


# -- permission ---------------------------------------------------------------------------------------------------------------------------


def test_before_anything_was_allowed_all_three_gates_say_what_they_found(check, monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "yes")
    found = Vetting(Place("shop", "shop-1", None, None, None), dict, int, vars)
    assert found.allowed is NOTHING
    found.permission(check)
    assert told(check) == [("x.opt_in", None), ("x.SOMARESIL_CHAOS", "yes"), ("x.environment", None)]
    assert check.problems[1].allowed == "1"


def test_the_second_key_of_production_is_named_with_the_service(check, monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    Permission(ChaosCeilings()).check(check, Place("shop", "i", None, None, "prod-eu"))
    (problem,) = check.problems
    assert (problem.path, problem.value) == ("x.environment", "prod-eu")
    assert "SOMARESIL_CHAOS_PRODUCTION=shop" in problem.allowed


def test_paths_that_code_protects_are_added_to_those_that_always_are():
    assert NOTHING.protected == PROTECTED_PATHS
    assert Permission(ChaosCeilings(protected_paths=("/pay/*",))).protected == (*PROTECTED_PATHS, "/pay/*")


def test_a_value_at_its_ceiling_is_taken_and_one_above_it_is_named_with_it(check):
    limits = Permission(ChaosCeilings(rate=0.5, duration=60.0, delay=2.0))
    limits.check_ceilings(check, failure_rate=0.5, duration_seconds=60.0, delay_seconds=2.0, rate=0.5, duration=60.0, delay=2.0)
    assert told(check) == []
    limits.check_ceilings(check, failure_rate=0.6, duration_seconds=61.0, delay_seconds=3.0, rate=0.6, duration=61.0, delay=3.0)
    assert [(problem.path, problem.allowed.split(",")[0]) for problem in check.problems] == [
        ("x.failure_rate", "at most 0.5"),
        ("x.duration_seconds", "at most 60"),
        ("x.delay_seconds", "at most 2"),
        ("x.rate", "at most 0.5"),
        ("x.duration", "at most 60"),
        ("x.delay", "at most 2"),
    ]


def test_a_process_has_a_name_at_each_level_of_the_blast_radius():
    assert (PLACE.service, PLACE.instance, PLACE.zone, PLACE.region, PLACE.environment) == ("shop", "shop-1", "a", "eu", "test")
    assert [PLACE.member(radius) for radius in ("single_instance", "zone", "region")] == ["shop-1", "a", "eu"]


# -- what may be approved for requests ----------------------------------------------------------------------------------------------------


def test_what_is_approved_for_requests_is_an_experiment_or_a_window_that_begins_at_once(check):
    found = vetting()
    config = ChaosConfig(ERROR, "llm.*", 0.5)
    assert found.checked(check, config, None, await_guards=False) is config
    planned = found.checked(check, window(error="ConnectionError"), None, await_guards=False)
    assert (planned.target_component, planned.error) == ("llm.*", ERRORS["ConnectionError"])
    odd = found.checked(check, window(error="Odd"), {"Odd": LookupError}, await_guards=False)
    assert odd.error is LookupError
    assert told(check) == []
    assert found.checked(check, "llm.*", None, await_guards=False) is None
    found.checked(check, window(start=3), None, await_guards=False)
    assert told(check) == [("x.fault", "llm.*"), ("x.start", 3)]
    assert check.problems[1].allowed == "0"


def test_what_is_approved_is_held_to_the_ceilings_and_to_a_target_that_is_there(check):
    found = vetting(rate=0.1, duration=10.0, delay=1.0)
    found.checked(check, ChaosConfig(LATENCY, "nobody", 0.5, 11.0, delay_seconds=2.0), None, await_guards=False)
    assert [path for path, _ in told(check)] == ["x.failure_rate", "x.duration_seconds", "x.delay_seconds", "x.target_component"]
    later = Checker("x")
    found.checked(later, ChaosConfig(LATENCY, "nobody", 0.1, 10.0, delay_seconds=1.0), None, await_guards=True)
    found.checked(later, window("nobody", rate=0.1), None, await_guards=True)
    assert told(later) == []
    found.checked(later, window("nobody", rate=0.1), None, await_guards=False)
    assert told(later) == [("x.target", "nobody")]


# -- names and windows of plans -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "corrupters", "wrong"),
    [
        (None, None, []),
        ({"Odd": OSError}, {"upside_down": lambda answer, draw: answer}, []),
        ([OSError], None, ["x.errors"]),
        (None, [len], ["x.corrupters"]),
        (None, {"upside_down": 5}, ["x.corrupters"]),
        ("Odd", "upside_down", ["x.errors", "x.corrupters"]),
    ],
)
def test_names_of_a_plan_are_given_their_meanings_by_mappings(check, errors, corrupters, wrong):
    check.problem("before", 1, "2")
    assert Vetting.names(check, errors, corrupters) is (not wrong)
    assert [path for path, _ in told(check)[1:]] == wrong


def test_an_error_and_a_damage_that_nobody_knows_are_both_named_and_the_rest_is_still_looked_at(check):
    odd = window("nobody", "corrupt_result", rate=1.0, corrupt="upside_dwn")
    config = vetting(rate=0.5).planned(check, odd, ERRORS, {"upside_down": lambda answer, draw: answer}, await_guards=False)
    assert config is not None
    assert told(check) == [("x.corrupt", "upside_dwn"), ("x.rate", 1.0), ("x.target", "nobody")]
    assert "truncate" in check.problems[0].allowed
    assert "upside_down" in check.problems[0].allowed
    assert check.problems[0].hint == "did you mean 'upside_down'?"
    vetting(rate=0.5).planned(check, window("nobody", error="Odd"), ERRORS, {}, await_guards=False)
    assert told(check)[3:] == [("x.error", "Odd"), ("x.rate", 1.0), ("x.target", "nobody")]


def test_damage_that_reads_like_nothing_known_is_told_how_to_allow_it(check):
    vetting().planned(check, window(kind="corrupt_result", corrupt="zzzzzzzz"), ERRORS, {}, await_guards=False)
    assert check.problems[0].hint == "allow it: corrupters={name: function}"


def test_what_a_window_cannot_be_is_named_as_the_window_names_it(check):
    assert vetting().planned(check, window(error="Odd"), {"Odd": KeyboardInterrupt}, {}, await_guards=False) is None
    assert [path for path, _ in told(check)] == ["x.error"]


def test_each_window_of_a_plan_is_checked_in_its_place_and_has_its_own_conditions(check):
    plan = ChaosPlan([window(stop_when=("hot",)), window("nobody"), window(error="Bad")])
    asked = []

    def conditions_of(place, wanted):
        place.problem("stop_when", wanted, "anything")
        asked.append(wanted)
        return [wanted]

    configs, conditions = vetting().windows(check, plan, {"Bad": KeyboardInterrupt}, {}, conditions_of, await_guards=False)
    assert [config and config.target_component for config in configs] == ["llm.*", "nobody", None]
    assert conditions == [[("hot",)], [()], []]
    assert asked == [("hot",), ()]
    assert [path for path, _ in told(check)] == [
        "x.plan.windows[0].stop_when",
        "x.plan.windows[1].target",
        "x.plan.windows[1].stop_when",
        "x.plan.windows[2].error",
    ]


# -- targets ------------------------------------------------------------------------------------------------------------------------------


def test_requests_are_a_target_where_a_middleware_is_mounted_or_is_waited_for(check):
    vetting(middlewares=1).target(check, "http:/x", ERROR)
    vetting().target(check, "http:/x", ERROR, await_guards=True)
    vetting({}).target(check, "resource:memory", ERROR)
    vetting({}).target(check, "net:db", ERROR)
    assert told(check) == []
    vetting().target(check, "http:/x", ERROR, name="target")
    assert told(check) == [("x.target", "http:/x")]
    assert check.problems[0].hint.startswith("no ResilienceMiddleware is mounted")


def test_a_trip_needs_one_breaker_among_the_guards_that_are_meant(check):
    vetting().target(check, "*", TRIP)
    vetting().target(check, "llm.*", ERROR)
    vetting().target(check, "later", TRIP, await_guards=True)
    assert told(check) == []
    vetting().target(check, "llm.*", TRIP)
    assert told(check) == [("x.target_component", "llm.*")]
    assert check.problems[0].allowed == "a guard with a breaker"


def test_what_is_known_is_listed_in_order_up_to_ten():
    assert unknown_target("lmm", ["llm", "db"]) == ("a guard or a pattern that matches one (db, llm)", "did you mean 'llm'?")
    assert "there are none" in unknown_target("x", [])[0]
    ten = [f"guard{number:02}" for number in range(10)]
    assert unknown_target("x", ten)[0].endswith("guard08, guard09)")
    assert unknown_target("x", [*ten, "zoo", "zulu"])[0].endswith("guard09, and 2 more)")


def test_a_fault_of_the_process_is_asked_what_stands_in_its_way(check):
    asked = []
    fault = SimpleNamespace(check=lambda check, config, limits, target: asked.append((config, limits, target)))
    found = vetting(fault=fault, rate=0.25)
    config = ChaosConfig("resource_exhaust", "resource:memory", amount=1.0)
    found.process(check, config, "kind", "target")
    assert asked == [(config, found.allowed.limits, "target")]
    found.process(check, ChaosConfig(ERROR, "llm.*"), "kind", "target")
    assert len(asked) == 1
    assert told(check) == []
    vetting().process(check, config, "kind", "target")
    assert told(check) == [("x.kind", "resource_exhaust")]
    planned = window("resource:memory", "resource_exhaust", amount=1.0)
    found.planned(check, planned, ERRORS, {}, await_guards=False)
    assert asked[1][2] == "target"
    vetting().planned(check, planned, ERRORS, {}, await_guards=False)
    assert told(check)[1:] == [("x.rate", 1.0), ("x.kind", "resource_exhaust")]


# -- number and overlap -------------------------------------------------------------------------------------------------------------------


def test_those_that_run_at_once_are_counted_and_those_that_are_over_or_only_look_are_not(check):
    found = vetting(experiments=2)
    over, looking = [running(end_reason="stopped")] * 3, [running(tracks=True)] * 3
    running_now = [running(span=(0.0, 10.0)), *over, *looking]
    found.number(check, [(5.0, 8.0), (8.0, 9.0), (10.0, 12.0), (10.0, 12.0)], running_now)
    assert told(check) == []
    found.number(check, [(5.0, 8.0), (7.0, 9.0)], running_now)
    assert told(check) == [("x.experiments", 3)]
    assert check.problems[0].allowed == "at most 2 at once"
    found.number(check, [(0.0, 1.0), (20.0, 25.0), (21.0, 26.0), (22.0, 27.0)], [])
    assert told(check)[1:] == [("x.experiments", 3)]


def test_two_that_strike_the_same_at_the_same_time_are_refused_with_the_first_one_named(check):
    found, config = vetting(), ChaosConfig(ERROR, "*")
    found.overlap(check, config, (5.0, 15.0), [running("db.*", id="error-7"), running(id="error-8")])
    (problem,) = check.problems
    assert (problem.path, problem.value, problem.hint) == ("x.target_component", "*", MEET)
    assert "error-7" in problem.allowed
    assert "'db.*'" in problem.allowed


@pytest.mark.parametrize(
    ("config", "span", "run"),
    [
        ({"allow_overlap": True}, (0.0, 10.0), {}),
        ({"candidates": ("somebody-else",)}, (0.0, 10.0), {}),
        ({}, (10.0, 20.0), {}),
        ({}, (-10.0, 0.0), {}),
        ({}, (0.0, 10.0), {"end_reason": "stopped"}),
        ({}, (0.0, 10.0), {"tracks": True}),
        ({}, (0.0, 10.0), {"target": "db"}),
    ],
)
def test_what_is_meant_elsewhere_later_earlier_over_or_looking_only_meets_nobody(check, config, span, run):
    vetting().overlap(check, ChaosConfig(ERROR, "llm.*", **config), span, [running(**run)])
    assert told(check) == []


def test_a_target_that_is_wrong_in_itself_is_one_problem_and_another_problem_hides_no_overlap(check):
    found, config = vetting(), ChaosConfig(ERROR, "llm.*")
    check.problem("target_component", "llm.*", "another")
    found.overlap(check, config, (0.0, 10.0), [running()])
    assert len(check.problems) == 1
    for name, value in (("target_component", "other"), ("kind", "llm.*")):
        other = Checker("x")
        other.problem(name, value, "another")
        found.overlap(other, config, (0.0, 10.0), [running()], name="target_component")
        assert told(other)[1:] == [("x.target_component", "llm.*")]


def test_groups_are_for_faults_of_single_calls_and_one_pair_at_a_time(check):
    plan = ChaosPlan([window(), window("db", "circuit_trip"), window("resource:memory", "resource_exhaust", amount=1.0)])
    Vetting.split(check, ChaosPlan([window()]), None)
    assert told(check) == []
    Vetting.split(check, plan, SimpleNamespace(name="first"))
    assert told(check) == [
        ("x.split", "first"),
        ("x.plan.windows[1].kind", "circuit_trip"),
        ("x.plan.windows[2].kind", "resource_exhaust"),
    ]
    assert all("the control group as well" in problem.hint for problem in check.problems[1:])


# -- blast radius -------------------------------------------------------------------------------------------------------------------------


def test_who_does_not_know_where_it_is_takes_part_only_where_nobody_is_chosen():
    nowhere = vetting(place=Place("shop", "shop-1", None, None, "test"))
    assert nowhere.selected(ChaosConfig(ERROR, "db", blast_radius="zone"))
    assert not nowhere.selected(ChaosConfig(ERROR, "db", blast_radius="zone", candidates=("a",)))
    assert not nowhere.selected(ChaosConfig(ERROR, "db", blast_radius="region", blast_share=1.0))
    assert nowhere.selected(ChaosConfig(ERROR, "db", blast_share=1.0))
    assert vetting().selected(ChaosConfig(ERROR, "db", blast_radius="zone", candidates=("a",)))
    assert not vetting().selected(ChaosConfig(ERROR, "db", blast_radius="zone", candidates=("b",)))


def test_which_member_is_chosen_depends_on_the_kind_and_on_the_target():
    members = [f"shop-{number}" for number in range(50)]

    def chosen(kind, target, **options):
        config = ChaosConfig(kind, target, candidates=tuple(members), **options)
        return [name for name in members if vetting(place=Place("shop", name, None, None, "test")).selected(config)]

    slow = {"delay_seconds": 1.0}
    found = [chosen(ERROR, "a"), chosen(ERROR, "b"), chosen(LATENCY, "a", **slow), chosen(LATENCY, "b", **slow), chosen(ERROR, "c")]
    assert [len(names) for names in found] == [1] * 5
    assert len({name for names in found for name in names}) > 2
    assert len(chosen(ERROR, "a", blast_share=0.2)) == 10


def test_what_is_no_plan_and_no_experiment_is_refused_by_its_name(make):
    stand = make()
    with pytest.raises(ConfigurationError) as caught:
        stand.chaos.arm_plan("plan", errors=5)
    assert [(problem.path, problem.value) for problem in caught.value.problems] == [("chaos.plan", "plan"), ("chaos.errors", 5)]
