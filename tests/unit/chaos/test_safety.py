"""What keeps experiments in bounds: places for delayed calls, targets that are taken, conditions, dry runs, and who did it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from datetime import timedelta
from fnmatch import fnmatchcase
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from somaresil import SLO, ChaosCeilings, ChaosConfig, ChaosExperiment, ChaosPlan, ConfigurationError, FaultWindow, SystemClock
from somaresil.chaos import BreakerOpen, BudgetBelow, BurnRateAbove, Condition, acting
from somaresil.chaos.overlap import overlap
from somaresil.events import ChaosAudited, DefectFound, ExperimentEnded, FaultInjected, FaultWithheld
from somaresil.model.selector import can_meet, chosen, is_chosen
from tests.unit.chaos.kit import CUT, ERROR, LATENCY, TRIP, Stand, breaker

PATIENCE = 20.0
LOST = ChaosExperiment.LOST_REPLY


def until(seen) -> bool:
    """Wait for a thread, in real time."""
    end = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.005)
    return True


# -- places for calls that are held up ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("own", "ceiling", "kind"), [(3, 1_000, LATENCY), (None, 3, LATENCY), (5, 3, LOST)])
def test_no_more_calls_are_held_up_than_may_be(own, ceiling, kind):
    """What is too much passes at once, unharmed, and is counted; a place is free again when its delay is over."""
    stand = Stand(clock=SystemClock(), ceilings=ChaosCeilings(active_faults=ceiling))
    run = stand.arm(kind, max_active_faults=own, delay_seconds=25.0)

    async def callee():
        return "unharmed"

    async def main():
        held = [asyncio.create_task(stand.guard.acall(callee)) for _ in range(3)]
        while run.delaying < 3:
            await asyncio.sleep(0)
        assert [await stand.guard.acall(callee) for _ in range(4)] == ["unharmed"] * 4
        assert (stand.chaos.active_faults, run.injected) == (3, 3)
        held[0].cancel()
        await asyncio.gather(held[0], return_exceptions=True)
        assert stand.chaos.active_faults == 2
        held.append(asyncio.create_task(stand.guard.acall(callee)))
        while run.delaying < 3:
            await asyncio.sleep(0)
        run.end()
        assert stand.chaos.active_faults == 0
        return await asyncio.gather(*held[1:])

    assert asyncio.run(main()) == ["unharmed"] * 3
    assert run.overflowed == {"llm.invoke": 4}
    assert stand.chaos.overflows() == {("llm.invoke", kind.value): 4}


def test_experiments_share_the_places_of_the_engine():
    stand = Stand(clock=SystemClock(), ceilings=ChaosCeilings(active_faults=2))
    stand.resilience.guard("db")
    first, second = stand.arm(LATENCY, delay_seconds=25.0), stand.arm(LATENCY, "db", delay_seconds=25.0)

    async def callee():
        return True

    async def main():
        held = [asyncio.create_task(stand.guard.acall(callee)) for _ in range(2)]
        while first.delaying < 2:
            await asyncio.sleep(0)
        assert await stand.resilience.guard("db").acall(callee)
        stand.chaos.stop_all()
        await asyncio.gather(*held)

    asyncio.run(main())
    assert (first.injected, second.injected, second.overflowed) == (2, 0, {"db": 1})


def test_an_error_without_a_delay_needs_no_place():
    stand = Stand(ceilings=ChaosCeilings(active_faults=1))
    run = stand.arm(ERROR)
    assert stand.struck(5) == [True] * 5
    assert (run.injected, stand.chaos.active_faults) == (5, 0)


def test_threads_take_no_place_twice():
    stand = Stand(clock=SystemClock())
    run = stand.arm(LATENCY, delay_seconds=25.0, max_active_faults=5)
    threads = [threading.Thread(target=stand.struck, daemon=True) for _ in range(30)]
    for thread in threads:
        thread.start()
    assert until(lambda: run.injected + sum(run.overflowed.values()) == 30)
    assert (run.injected, run.active, sum(run.overflowed.values())) == (5, 5, 25)
    run.end()
    for thread in threads:
        thread.join(PATIENCE)


# -- overlap ------------------------------------------------------------------------------------------------------------------------------

PATTERNS = st.text("ab.*?", max_size=5) | st.sampled_from(["[ab]*", "[!a]", "*[a-b]", "[", "[]a]", "a[!]]"])
NAMES = ["".join(letters) for length in range(5) for letters in product("ab.[]z", repeat=length)]


@given(PATTERNS, PATTERNS)
@example("*.[ab]", "a.*")
@example("", "*")
def test_patterns_meet_when_a_name_fits_both(one, other):
    """Where a name has to be longer than those tried here, only one direction is shown."""
    found = any(fnmatchcase(name, one) and fnmatchcase(name, other) for name in NAMES)
    assert can_meet(one, other) == can_meet(other, one)
    if found or len(one) + len(other) <= 4:
        assert can_meet(one, other) == found, (one, other)


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        ("llm.*", "*.invoke", True),
        ("llm.*", "db.*", False),
        ("*", "http:/x", False),
        ("http:/a/*", "http:/a/b", True),
        ("http:/a/*", "http:/b/*", False),
        ("*", "resource:memory", False),
        ("resource:memory", "resource:memory", True),
        ("resource:memory", "resource:disk", False),
        ("resource:memory", "net:memory", False),
        ("net:10.0.0.0/8", "net:10.1.2.3:5432", True),
        ("net:10.0.0.0/8", "net:11.1.2.3", False),
        ("net:db:5432", "net:db:6379", False),
        ("net:*.internal", "net:DB.internal:5432", True),
        ("net:db.internal", "net:10.0.0.1", True),
        ("net:[::1]:80", "net:[::1]", True),
        ("net:[::1]", "net:10.0.0.1", False),
    ],
)
def test_targets_overlap_when_they_may_be_the_same_thing(one, other, meet):
    def config(target):
        kinds = {"resource": ChaosExperiment.RESOURCE_EXHAUSTION, "net": ChaosExperiment.NETWORK_PARTITION}
        return type(
            "Config",
            (),
            {
                "dry_run": False,
                "target_component": target,
                "on_http": target.startswith("http:"),
                "on_process": target.partition(":")[0] in kinds,
            },
        )()

    assert overlap(config(one), config(other)) is meet
    assert overlap(config(other), config(one)) is meet


def test_two_experiments_on_one_target_are_refused(stand):
    first = stand.arm(LATENCY, allow_overlap=False)
    with pytest.raises(ConfigurationError, match=f"chaos.target_component = '\\*': expected a target that {first.id}"):
        stand.arm(ERROR, "*", allow_overlap=False)
    with pytest.raises(ConfigurationError, match=r"chaos\.plan\.windows\[1\]\.target"):
        stand.chaos.arm_plan(ChaosPlan([FaultWindow("llm.invoke", "error", 61, 5), FaultWindow("llm.invoke", "error", 59, 5)]))
    assert stand.chaos.runs == (first,)
    stand.arm(ERROR, "*", allow_overlap=True)
    stand.chaos.arm_plan(ChaosPlan([FaultWindow("llm.invoke", "error", 0, 5, allow_overlap=True)]))
    first.end()


def test_what_is_over_what_comes_later_and_what_is_dry_overlaps_with_nothing(stand):
    stand.arm(duration=10.0).end()
    stand.arm(duration=10.0, allow_overlap=False)
    stand.chaos.arm_plan(ChaosPlan([FaultWindow("llm.invoke", "error", 10, 5), FaultWindow("llm.*", "latency", 10, 5, delay=1.0)]))
    stand.arm(dry_run=True, allow_overlap=False, duration=30.0)
    assert stand.arm(candidates=("somebody-else",), allow_overlap=False).selected is False


# -- dry run ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [(ERROR, {}), (LATENCY, {}), (LOST, {}), (TRIP, {}), (ERROR, {"delay_seconds": 5.0}), (LOST, {"delay_seconds": 5.0})],
)
def test_a_dry_run_strikes_nothing_and_counts_what_it_would_have_struck(kind, options):
    stand = Stand()
    guard = stand.resilience.guard("memory", breaker=breaker())
    run = stand.arm(kind, "memory", dry_run=True, **options)
    before = stand.clock.monotonic()
    assert [guard.call(lambda: "answer") for _ in range(5)] == ["answer"] * 5
    assert stand.clock.monotonic() == before
    assert guard.breaker.state == "closed"
    would = 1 if kind is TRIP else 5
    assert (run.injected, run.would_have_injected, run.struck, run.withheld) == (0, would, {}, {"memory": would})
    assert (len(stand.told(FaultWithheld)), stand.told(FaultInjected)) == (would, [])
    assert stand.chaos.withheld() == {("memory", kind.value): would}
    assert stand.chaos.faults() == {}
    assert guard.recorder.counts().total(injected=True) == 0
    run.end()
    assert stand.told(ExperimentEnded)[-1].would_have_injected == would


@pytest.mark.parametrize("kind", [CUT, ChaosExperiment.STREAM_TRUNCATION])
def test_a_dry_run_counts_streams_that_it_would_have_ended(stand, kind):
    run = stand.arm(kind, dry_run=True, after_items=1)

    @stand.guard
    def stream(items):
        yield from range(items)

    assert [list(stream(items)) for items in (0, 1, 3)] == [[], [0], [0, 1, 2]]
    # The one whose second item was seen; later ones of the same stream are asked about again, and it is but one stream.
    assert run.would_have_injected >= 1
    assert run.injected == 0


def test_a_dry_run_decides_as_the_real_one_would():
    dry, real = Stand(), Stand()
    would = dry.arm(rate=0.3, dry_run=True)
    run = real.arm(rate=0.3)
    dry.struck(200)
    real.struck(200)
    assert would.would_have_injected == run.injected > 20


def test_a_dry_run_may_be_used_up_too(stand):
    run = stand.arm(dry_run=True, max_injections=2)
    stand.struck(5)
    assert (run.would_have_injected, run.end_reason) == (2, "used up")


@pytest.mark.parametrize("kind", [ERROR, CUT])
def test_requests_that_a_dry_run_would_have_struck_are_counted(stand, kind):
    stand.chaos.middleware_added()
    dry = stand.arm(kind, "http:/x", dry_run=True)
    real = stand.arm(ERROR, "http:/x")
    assert stand.chaos.strike_request("/x")[0] is real
    assert (dry.would_have_injected, dry.injected) == (1, 0)


def test_a_plan_may_be_tried_dry(stand):
    plan = ChaosPlan.from_json(ChaosPlan([FaultWindow("llm.*", "error", 0, 5, dry_run=True)]).to_json())
    run = stand.chaos.arm_plan(plan).runs[0]
    assert stand.struck(3) == [False] * 3
    assert run.would_have_injected == 3


def test_a_planned_trip_is_counted_once_by_a_dry_run():
    stand = Stand()
    guard = stand.resilience.guard("memory", breaker=breaker())
    run = stand.chaos.arm_plan(ChaosPlan([FaultWindow("memory", "circuit_trip", 5, 5, dry_run=True)])).runs[0]
    stand.clock.advance(6.0)
    for _ in range(3):
        guard.call(lambda: None)
    assert (run.would_have_injected, guard.breaker.state) == (1, "closed")


# -- conditions ---------------------------------------------------------------------------------------------------------------------------


def stopped(stand, run, seconds=1.5):
    """Call once after some time; why it has ended, if it has."""
    stand.clock.advance(seconds)
    stand.struck()
    return run.end_reason


@pytest.mark.parametrize(
    ("answers", "detail"),
    [
        ([False, True], "it is so"),
        ([False, "too hot"], "too hot"),
        ([False, OSError("gone")], "it raised OSError: gone"),
        ([False, 5], "it raised TypeError"),
    ],
)
def test_a_condition_stops_an_experiment_and_says_why(stand, answers, detail):
    left = [False, *answers]

    def probe():
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    run = stand.arm(stop_when=(Condition("probe", probe, interval=1.0, max_age=10.0),), rate=0.0)
    assert stopped(stand, run, 0.0) is None
    assert until(lambda: len(left) <= len(answers) - 1)
    stand.clock.advance(1.1)
    assert until(lambda: stopped(stand, run, 0.0))
    assert run.end_reason == "condition probe"
    assert run.end_detail.startswith(detail)
    assert stand.told(ExperimentEnded)[0].reason == "condition probe"
    assert detail in stand.chaos.audit.entries[-1].result


def test_what_knows_nothing_for_too_long_stops_it(stand):
    run = stand.arm(stop_when=(Condition("dark", lambda: None, interval=1.0, max_age=5.0),), rate=0.0)
    assert stopped(stand, run, 4.0) is None
    assert stopped(stand, run, 2.0) == "condition dark"
    assert "nothing is known" in run.end_detail


def test_it_stops_though_no_call_comes_by():
    stand = Stand(clock=SystemClock())
    asked = []
    run = stand.arm(stop_when=(Condition("probe", lambda: bool(asked), interval=0.05),))
    asked.append(1)
    assert until(lambda: run.end_reason)
    assert until(lambda: not stand.chaos.safety._ask.walking)


def test_one_that_hangs_stops_it_and_keeps_no_call_waiting():
    stand = Stand(clock=SystemClock())
    go_on = threading.Event()
    run = stand.arm(stop_when=(Condition("hangs", lambda: go_on.wait(PATIENCE) and None, interval=0.05, max_age=0.3, slow=True),), rate=0.0)
    started = time.monotonic()
    stand.struck()
    assert time.monotonic() - started < 5.0
    assert until(lambda: run.end_reason)
    assert run.end_reason == "condition hangs"
    go_on.set()


def test_one_that_is_found_to_be_slow_is_not_asked_in_calls_again():
    stand = Stand()
    threads = set()

    def slow():
        threads.add(threading.current_thread() is threading.main_thread())
        threading.Event().wait(0.06)
        return False

    run = stand.arm(stop_when=(Condition("slow", slow, interval=0.05),), rate=0.0)
    watched = stand.chaos.safety._watched[0]
    assert until(lambda: stand.clock.advance(1.0) or (stand.struck() and watched.slow))
    assert until(lambda: stand.told(DefectFound))
    threads.clear()
    for _ in range(20):
        stand.clock.advance(0.1)
        stand.struck()
    assert True not in threads
    run.end()


def test_a_condition_may_make_guarded_calls_itself(stand):
    run = stand.arm(stop_when=(Condition("calls", lambda: stand.struck() == ["never"]),), rate=0.0)
    assert stopped(stand, run) is None


def test_a_condition_that_says_stop_already_is_refused(stand):
    with pytest.raises(ConfigurationError, match=r"chaos\.stop_when = 'hot'.*before it begins \(too hot\)"):
        stand.arm(stop_when=(Condition("hot", lambda: "too hot"),))
    with pytest.raises(ConfigurationError, match="it raised"):
        stand.arm(stop_when=(lambda: 1 / 0,))
    assert stand.chaos.runs == ()


def test_plans_name_conditions_that_the_engine_knows(stand):
    hot = []
    stand.chaos.condition("too_hot", lambda: bool(hot))
    plan = ChaosPlan.from_json(ChaosPlan([FaultWindow("llm.*", "error", 5, 50, rate=0.0, stop_when=("too_hot",))]).to_json())
    run = stand.chaos.arm_plan(plan).runs[0]
    stand.clock.advance(6.0)
    assert stopped(stand, run, 0.0) is None
    hot.append(1)
    assert until(lambda: stopped(stand, run, 1.0))
    assert run.end_reason.startswith("condition")
    with pytest.raises(ConfigurationError, match=r"windows\[0\]\.stop_when.*did you mean 'too_hot'"):
        stand.chaos.arm_plan(ChaosPlan([FaultWindow("llm.*", "error", 0, 5, stop_when=("too_hat",))]))
    with pytest.raises(ConfigurationError, match="stop_when"):
        FaultWindow("llm.*", "error", 0, 5, stop_when=(len,))


def test_the_engine_has_conditions_for_every_experiment(stand):
    stop = []
    stand.chaos.stop_when(lambda: bool(stop))
    run = stand.arm(rate=0.0)
    stop.append(1)
    assert until(lambda: stopped(stand, run))
    stand.chaos.stop_when()
    assert stand.arm().live


@pytest.mark.parametrize("wrong", [5, b"x", ("",), (5,), tuple([lambda: False] * 33)])
def test_what_is_no_condition_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="stop_when"):
        ChaosConfig(ERROR, "llm.*", stop_when=wrong)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Condition("x", 5), "ask"),
        (lambda: Condition("a b", len), "name"),
        (lambda: Condition("x", len, interval=0.0), "interval"),
        (lambda: Condition("x", len, interval=5.0, max_age=1.0), "max_age"),
        (lambda: BurnRateAbove("x", -1.0), "limit"),
        (lambda: BurnRateAbove("x", 1.0, window=60.0), "window"),
        (lambda: BurnRateAbove("x", 1.0, window=1.0, injected=True), "window"),
        (lambda: BudgetBelow("x", 5.0), "share"),
        (lambda: BreakerOpen("x", -1.0), "longer_than"),
    ],
)
def test_a_condition_says_what_is_wrong_with_it(make, field):
    with pytest.raises(ConfigurationError, match=field):
        make()


@pytest.mark.parametrize("condition", [BurnRateAbove("nothing", 1.0), BudgetBelow("nothing", 0.1), BreakerOpen("llm.invoke", 1.0)])
def test_conditions_about_what_is_not_there_are_refused(stand, condition):
    with pytest.raises(ConfigurationError, match="stop_when"):
        stand.arm(stop_when=(condition,))


def service():
    """A stand whose calls count for an objective."""
    stand = Stand()
    stand.resilience.slos.add(SLO("api", 90.0, timedelta(days=1)))
    return stand, stand.resilience.guard("api.call", slo="api", breaker=breaker())


def called(guard, times, error=None):
    def callee():
        if error is not None:
            raise error

    for _ in range(times):
        with contextlib.suppress(Exception):
            guard.call(callee)


@pytest.mark.parametrize("injected", [None, True])
def test_a_burning_budget_stops_it(injected):
    """The experiment's own faults burn it as well, where they count."""
    stand, guard = service()
    called(guard, 20)
    condition = BurnRateAbove("api", 3.0, injected=injected, window=300.0)
    run = stand.arm(LATENCY, "api.call", delay_seconds=0.001, stop_when=(condition,))
    stand.clock.advance(1.5)
    called(guard, 20)
    assert run.live
    stand.resilience.guard("api.other", slo="api")
    called(stand.resilience.guard("api.other"), 40, OSError())
    stand.clock.advance(1.5)
    assert until(lambda: not run.live)
    assert run.end_reason == "condition burn rate of api"
    assert "times too fast, limit 3" in run.end_detail


def test_injected_faults_can_be_left_out():
    """What the experiment does itself is no reason to end it; what it does to others is."""
    stand, _ = service()
    guard = stand.resilience.guard("api.plain", slo="api")
    run = stand.arm(ERROR, "api.plain", stop_when=(BurnRateAbove("api", 3.0, injected=False, window=60.0),))
    for _ in range(5):
        stand.clock.advance(1.5)
        called(guard, 20)
    assert run.live
    other = stand.resilience.guard("api.other", slo="api")
    called(other, 40, OSError())
    stand.clock.advance(1.5)
    assert until(lambda: not run.live)
    assert run.end_reason == "condition burn rate of api"


def test_a_budget_that_is_nearly_spent_stops_it():
    stand, _ = service()
    guard = stand.resilience.guard("api.plain", slo="api")
    called(guard, 100)
    run = stand.arm(ERROR, "llm.*", rate=0.0, stop_when=(BudgetBelow("api", 0.5),))
    called(guard, 8, OSError())
    stand.clock.advance(1.5)
    assert until(lambda: not run.live)
    assert run.end_reason == "condition budget of api"


def test_a_breaker_that_stays_open_stops_it():
    stand, guard = service()
    run = stand.arm(ERROR, "llm.*", rate=0.0, stop_when=(BreakerOpen("api.call", 5.0),))
    called(guard, 2, OSError())
    assert stopped(stand, run) is None
    for _ in range(6):
        stand.clock.advance(1.1)
        stand.struck()
    assert until(lambda: not run.live)
    assert run.end_reason == "condition breaker of api.call"


# -- audit --------------------------------------------------------------------------------------------------------------------------------


def test_it_is_noted_who_did_what(stand, monkeypatch):
    monkeypatch.setenv("SOMARESIL_ACTOR", "deploy bot")
    config = ChaosConfig(ERROR, "llm.*", 0.5, error=ConnectionError("password=hunter2"), stop_when=(Condition("hot", lambda: False),))
    run = stand.chaos.arm(config)
    with acting("alice"):
        stand.chaos.stop(run, actor="bob")
        with pytest.raises(ConfigurationError):
            stand.chaos.arm(ChaosConfig(ERROR, "nobody"))
        stand.chaos.stop_all()
        stand.chaos.engage("lunch")
        stand.chaos.disengage()
    found = [(entry.who, entry.what, entry.experiment) for entry in stand.chaos.audit.entries[1:]]
    assert found == [
        ("deploy bot", "arm", run.id),
        ("bob", "end", run.id),
        ("alice", "refuse", ""),
        ("alice", "stop_all", ""),
        ("alice", "engage", ""),
        ("alice", "disengage", ""),
    ]
    armed = stand.chaos.audit.entries[1]
    assert armed.config == {
        "experiment": "error",
        "target_component": "llm.*",
        "failure_rate": 0.5,
        "error": "ConnectionError",
        "stop_when": ["hot"],
    }
    assert (armed.result, armed.at, armed.place["service"], armed.place["pid"]) == ("armed", stand.clock.time(), "tests", os.getpid())
    assert "hunter2" not in json.dumps([entry.as_dict() for entry in stand.chaos.audit.entries])
    assert stand.chaos.audit.entries[2].result == "stopped; 0 struck"
    assert [entry.number for entry in stand.chaos.audit.entries] == list(range(1, 8))


def test_listeners_hear_of_it(stand):
    heard = []
    stand.resilience.on(heard.append, ChaosAudited)
    run = stand.arm()
    run.end()
    assert [(event.what, event.experiment, event.result) for event in heard] == [
        ("arm", run.id, "armed"),
        ("end", run.id, "stopped; 0 struck"),
    ]


def test_a_refused_shorthand_is_noted_too(stand):
    with pytest.raises(ConfigurationError):
        asyncio.run(stand.chaos.inject_latency("llm.*", -5))
    assert [entry.what for entry in stand.chaos.audit.entries] == ["opt_in", "refuse"]


def test_what_is_refused_is_not_repeated(stand):
    """Somebody may have put a secret where something else belongs."""
    with pytest.raises(ConfigurationError, match="hunter2"):
        asyncio.run(stand.chaos.inject_errors("llm.*", rate="hunter2"))
    assert stand.chaos.audit.entries[-1].result == "ChaosConfig.failure_rate: expected a ratio in [0, 1]"


def test_entries_are_bounded_in_number_and_length(stand):
    for _ in range(1_010):
        stand.chaos.audit.note("x", "y" * 5_000, who="z\n" * 500)
    entries = stand.chaos.audit.entries
    assert len(entries) == 1_000
    assert entries[-1].number == 1_011
    assert (len(entries[-1].result), len(entries[-1].who)) == (2_000, 200)
    assert "\n" not in entries[-1].who


def test_a_file_is_appended_to_and_turned_over(stand, tmp_path):
    path = tmp_path / "audit.jsonl"
    stand.chaos.audit.write_to(path, most=10_000)
    for number in range(200):
        stand.chaos.audit.note("x", f"{number} " + "y" * 100)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2", "audit.jsonl.3"]
    assert all(file.stat().st_size <= 10_000 for file in files)
    lines = [json.loads(line) for file in (files[1], files[0]) for line in file.read_text().splitlines()]
    assert [entry["number"] for entry in lines] == list(range(lines[0]["number"], 202))
    assert path.stat().st_mode & 0o777 == 0o600
    stand.chaos.audit.write_to(None)


def test_a_file_that_cannot_be_written_is_reported_once_and_changes_nothing(stand, tmp_path):
    stand.chaos.audit.write_to(tmp_path / "audit.jsonl")
    (tmp_path / "audit.jsonl").mkdir()
    run = stand.arm()
    run.end()
    assert run.end_reason == "stopped"
    assert len(stand.told(DefectFound)) == 1
    assert len(stand.chaos.audit.entries) == 3


@pytest.mark.parametrize("options", [{"path": 5}, {"path": "/nowhere/x"}, {"path": None, "most": 5}])
def test_what_is_no_file_is_refused(stand, options):
    with pytest.raises(ConfigurationError, match="audit"):
        stand.chaos.audit.write_to(**options)


# -- blast radius -------------------------------------------------------------------------------------------------------------------------


def test_one_of_a_thousand_instances_is_struck_whoever_else_comes_and_goes():
    """The same experiment is started everywhere; who is chosen stays chosen while others leave and join."""
    fleet = [f"gateway-{number}" for number in range(1_000)]

    def struck(members):
        config = ChaosConfig(ERROR, "llm.*", 1.0, candidates=tuple(members))
        found = []
        for name in members:
            stand = Stand(instance=name)
            if stand.chaos.arm(config).selected:
                assert stand.struck() == [True]
                found.append(name)
        return found

    (winner,) = struck(fleet)
    for round_ in range(20):
        stayed = [name for number, name in enumerate(fleet) if name == winner or (number + round_) % 3]
        assert chosen("error|llm.*", stayed) == (winner,)
        others = [f"new-{round_}-{number}" for number in range(300)]
        (now,) = chosen("error|llm.*", [*stayed, *others])
        assert now == winner or now in others
        assert is_chosen("error|llm.*", winner, [*stayed, *others]) is (now == winner)
