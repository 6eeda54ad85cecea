"""A plan on its way: its windows begin and end by the clock alone, and it decides by itself."""

from __future__ import annotations

import asyncio
import threading

import pytest

from somaresil import ChaosCeilings, ChaosPlan, CircuitOpen, ConfigurationError, FaultWindow, InjectedFault, ManualClock, Outcome
from somaresil.chaos.permission import Permission
from somaresil.events import BreakerChanged, CallEnded, ExperimentEnded, ExperimentStarted, FaultInjected, IncidentOpened
from tests.behaviour.kit import PATIENCE, both, together, turns
from tests.unit.asgi.kit import START, body, says
from tests.unit.asgi.kit import Stand as Requests
from tests.unit.chaos.kit import ERROR, LATENCY, Stand, breaker

W = FaultWindow


def arm(stand, *windows, seed=1, **options):
    return stand.chaos.arm_plan(ChaosPlan(windows, seed=seed), **options)


def call(stand, suspends=False, name="llm.invoke"):
    """What the caller of a guard gets, errors as values; the answer of the callee is the time of its call."""

    async def answer():
        return stand.clock.monotonic()

    guard = stand.resilience.guard(name)
    try:
        return asyncio.run(guard.acall(answer)) if suspends else guard.call(stand.clock.monotonic)
    except Exception as error:
        return error


def struck(stand, suspends=False, name="llm.invoke"):
    return isinstance(call(stand, suspends, name), Exception)


class Shared(ManualClock):
    """Whoever waits on it waits until somebody else has moved it so far."""

    async def await_(self, future, timeout):
        end = float("inf") if timeout is None else self.monotonic() + timeout
        while not future.done() and self.monotonic() < end:
            await asyncio.sleep(0)
        return future.done()


# -- by the clock -----------------------------------------------------------------------------------------------------------------------


@both
def test_a_window_begins_and_ends_by_the_clock(stand, suspends):
    """To the moment, with no task, thread or timer; before it and after it nobody is struck, and in the end the guard is quiet."""
    run = arm(stand, W("llm.invoke", "error", start=10, duration=20))
    found = {}
    for step in (0.0, 9.75, 0.25, 10.0, 9.75):
        stand.clock.advance(step)
        found[stand.clock.monotonic() - 1_000_000.0] = struck(stand, suspends)
        assert stand.guard.switch.reasons == {"fault"}
        assert not run.over
    stand.clock.advance(0.25)
    assert not struck(stand, suspends)
    assert found == {0.0: False, 9.75: False, 10.0: True, 20.0: True, 29.75: True}
    assert stand.guard.switch.quiet
    assert stand.guard.faults.rules == ()
    assert (run.over, run.injected, run.runs[0].end_reason) == (True, 3, "expired")


def test_a_step_of_the_wall_clock_moves_no_window(stand):
    """They are measured."""
    arm(stand, W("llm.invoke", "error", start=10, duration=20))
    stand.clock.step_wall(15.0)
    assert not struck(stand)
    stand.clock.advance(15.0)
    stand.clock.step_wall(-1e6)
    assert struck(stand)


@both
def test_each_window_is_a_lease_of_its_own(stand, suspends):
    """Where two overlap both strike, and each counts what it did."""
    run = arm(
        stand,
        W("llm.*", "latency", start=0, duration=20, delay=2),
        W("llm.invoke", "latency", start=10, duration=20, delay=3),
        W("llm.invoke", "error", start=40, duration=10, error="TimeoutError"),
    )
    waited = []
    for at in (0, 10, 20, 30):
        stand.clock.advance(1_000_000.0 + at - stand.clock.monotonic())
        before = stand.clock.monotonic()
        waited.append(call(stand, suspends) - before)
    assert waited == [2.0, 5.0, 3.0, 0.0]
    stand.clock.advance(10.0)
    assert type(call(stand, suspends)) is TimeoutError
    assert [one.injected for one in run.runs] == [2, 2, 1]
    assert run.injected == 5
    assert [one.end_reason for one in run.runs] == ["expired", "expired", None]
    assert run.ends_at == 1_000_050.0
    assert [one.span for one in run.runs] == [(1_000_000.0, 1_000_020.0), (1_000_010.0, 1_000_030.0), (1_000_040.0, 1_000_050.0)]


def test_a_delay_ends_with_its_window(stand):
    """Nobody is held by a window that is over."""
    arm(stand, W("llm.invoke", "latency", start=10, duration=5, delay=20))
    stand.clock.advance(12.0)
    assert call(stand) == 1_000_015.0


def test_a_window_that_has_not_begun_says_so(stand):
    """Neither live nor over; all of its time is left; the engine does not list it among those that run, and keeps it."""
    run = arm(stand, W("llm.invoke", "error", start=10, duration=20))
    (one,) = run.runs
    assert (one.live, one.over, one.remaining, one.end_reason) == (False, False, 20.0, None)
    assert "not begun" in repr(one)
    assert stand.chaos.runs == ()
    assert stand.chaos.history == (one,)
    stand.clock.advance(10.0)
    assert stand.chaos.runs == (one,)
    assert one.started_at == stand.clock.time()


def test_a_guard_made_later_is_struck_too(stand):
    """Before the window and in it; behind it guards are made as if nothing had been."""
    arm(stand, W("llm.*", "error", start=10, duration=10))
    early = stand.resilience.guard("llm.early")
    assert not struck(stand, name="llm.early")
    stand.clock.advance(10.0)
    stand.resilience.guard("llm.late")
    assert struck(stand, name="llm.early")
    assert struck(stand, name="llm.late")
    stand.clock.advance(10.0)
    assert stand.resilience.guard("llm.behind").switch.quiet
    assert not struck(stand, name="llm.early")
    assert early.switch.quiet


def test_a_plan_may_wait_for_its_guards(stand):
    """When it is told to; otherwise a target that matches nothing is a mistake."""
    window = W("db.query", "error", start=0, duration=10)
    with pytest.raises(ConfigurationError):
        arm(stand, window)
    arm(stand, window, await_guards=True)
    stand.resilience.guard("db.query")
    assert struck(stand, name="db.query")


def test_a_guard_is_quiet_as_soon_as_somebody_sees_that_the_plan_is_over(stand):
    """Without a call."""
    run = arm(stand, W("llm.invoke", "error", start=0, duration=10), W("llm.invoke", "error", start=10, duration=10))
    stand.clock.advance(20.0)
    assert run.over
    assert stand.guard.switch.quiet
    assert stand.guard.faults.rules == ()


@both
def test_the_other_guards_stay_quiet(stand, suspends):
    """A plan costs those that it names, and no others."""
    other = stand.resilience.guard("memory")
    arm(stand, W("llm.invoke", "error", start=0, duration=10))
    assert other.switch.quiet
    assert not struck(stand, suspends, "memory")


# -- refused ----------------------------------------------------------------------------------------------------------------------------


def refused(stand, start):
    """The problems of a plan that is not taken, by path; nothing is armed, kept or told then."""
    with pytest.raises(ConfigurationError) as caught:
        start()
    assert stand.chaos.runs == stand.chaos.history == stand.chaos.http == ()
    assert all(guard.switch.quiet and guard.faults.rules == () for guard in stand.resilience.guards.values())
    assert stand.events == []
    return {problem.path: str(problem) for problem in caught.value.problems}


GOOD = W("llm.invoke", "error", 0, 10)


def half(*args, **options):
    """A window that strikes half of the calls, which is allowed below."""
    return W(*args, **{"rate": 0.5, **options})


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (half("lmm.invoke", "error", 0, 10), {"target": "did you mean 'llm.invoke'?"}),
        (half("zzz.*", "error", 0, 10), {"target": "llm.invoke"}),
        (half("llm.invoke", "error", 0, 10, error="ConectionError"), {"error": "did you mean 'ConnectionError'?"}),
        (half("llm.invoke", "error", 0, 10, error="overloaded"), {"error": "allow it: errors={name: type}"}),
        (half("llm.invoke", "error", 0, 61), {"duration": "at most 60, the ceiling"}),
        (half("llm.invoke", "error", 0, 10, rate=0.6), {"rate": "at most 0.5, the ceiling"}),
        (half("llm.invoke", "latency", 0, 10, delay=6), {"delay": "at most 5, the ceiling"}),
        (half("db", "circuit_trip", 0, 10), {"rate": "at most 0.5, the ceiling"}),
        (half("llm.invoke", "circuit_trip", 0, 10), {"rate": "", "target": "there is no circuit to open"}),
        (half("http:/v1/*", "error", 0, 10), {"target": "no ResilienceMiddleware is mounted"}),
        (half("lmm.invoke", "latency", 0, 61, delay=6, rate=0.6), {"rate": "", "duration": "", "delay": "", "target": ""}),
        (half("lmm.invoke", "error", 0, 61, error="x"), {"error": "", "duration": "", "target": ""}),
    ],
)
def test_a_window_that_cannot_be_run_here_is_refused(make, window, expected):
    """By its place and the names of its fields, and all that is right stays disarmed with it."""
    stand = make(ceilings=ChaosCeilings(duration=60, rate=0.5, delay=5))
    stand.resilience.guard("db", breaker=True)
    told = refused(stand, lambda: arm(stand, half("llm.invoke", "error", 0, 10), window))
    assert set(told) == {f"chaos.plan.windows[1].{field}" for field in expected}
    assert all(text in told[f"chaos.plan.windows[1].{field}"] for field, text in expected.items())


def test_everything_is_named_at_once(make, monkeypatch):
    """Permission, each window, and how many would run at once."""
    monkeypatch.delenv("SOMARESIL_CHAOS")
    stand = make(environment="production", opt_in=False)
    windows = [GOOD] * 8 + [W("lmm.invoke", "error", 0, 10), W("llm.invoke", "latency", 0, 700, delay=40)]
    assert list(refused(stand, lambda: arm(stand, *windows))) == [
        "chaos.opt_in",
        "chaos.SOMARESIL_CHAOS",
        "chaos.environment",
        "chaos.plan.windows[8].target",
        "chaos.plan.windows[9].duration",
        "chaos.plan.windows[9].delay",
        "chaos.experiments",
    ]


@pytest.mark.parametrize("thing", [None, "plan", {"windows": []}, [GOOD], GOOD])
def test_what_is_no_plan_is_refused(stand, thing):
    """It has to be read first."""
    told = refused(stand, lambda: stand.chaos.arm_plan(thing))
    assert list(told) == ["chaos.plan"]
    assert "ChaosPlan.from_json" in told["chaos.plan"]


@pytest.mark.parametrize("error", [5, "OSError", KeyboardInterrupt, StopIteration])
def test_an_error_that_a_caller_allows_must_be_one(stand, error):
    """It is looked at when the plan is armed, not when the first call is struck."""
    told = refused(stand, lambda: arm(stand, W("llm.invoke", "error", 0, 10, error="mine"), errors={"mine": error}))
    assert list(told) == ["chaos.plan.windows[0].error"]


def test_a_refused_plan_is_refused_by_run_plan_too(stand):
    """Before anything waits."""
    told = refused(stand, lambda: asyncio.run(stand.chaos.run_plan(ChaosPlan([W("x", "error", 0, 10)]))))
    assert list(told) == ["chaos.plan.windows[0].target"]
    assert stand.clock.monotonic() == 1_000_000.0


def test_windows_that_follow_one_another_are_one_at_a_time(make):
    """However many there are: what counts is how many run at once."""
    stand = make(ceilings=ChaosCeilings(experiments=1))
    run = arm(stand, *(W("llm.invoke", "error", start=10 * number, duration=10) for number in range(100)))
    found = []
    for _ in range(100):
        found.append(struck(stand))
        stand.clock.advance(10.0)
    assert found == [True] * 100
    assert [one.injected for one in run.runs] == [1] * 100


@pytest.mark.parametrize(
    ("starts", "most"),
    [((0, 9), 2), ((0, 5, 10), 2), ((5, 0, 9, 8), 4), ((0, 10, 20, 29.5), 2)],
)
def test_windows_that_overlap_are_too_many(make, starts, most):
    """The error says how many would run at once."""
    windows = [W("llm.invoke", "error", start=start, duration=10) for start in starts]
    stand = make(ceilings=ChaosCeilings(experiments=most - 1))
    assert refused(stand, lambda: arm(stand, *windows))["chaos.experiments"].startswith(f"chaos.experiments = {most}: ")
    assert arm(make(ceilings=ChaosCeilings(experiments=most)), *windows).runs


def test_what_runs_already_counts_for_as_long_as_it_runs(make):
    """An experiment and the windows of another plan, begun or not; what was stopped does not."""
    stand = make(ceilings=ChaosCeilings(experiments=2))
    first = stand.arm(duration=20.0)
    arm(stand, W("llm.invoke", "error", start=10, duration=20, allow_overlap=True))
    for window in (W("llm.invoke", "error", 0, 11, allow_overlap=True), W("llm.invoke", "error", 15, 10, allow_overlap=True)):
        with pytest.raises(ConfigurationError, match="at most 2 at once"):
            arm(stand, window)
    arm(
        stand,
        W("llm.invoke", "error", start=30, duration=10, allow_overlap=True),
        W("llm.invoke", "error", start=0, duration=10, allow_overlap=True),
    )
    stand.chaos.stop(first)
    arm(stand, W("llm.invoke", "error", start=11, duration=9, allow_overlap=True))
    stand.clock.advance(15.0)
    with pytest.raises(ConfigurationError, match="at most 2 at once"):
        stand.arm(duration=1.0)


def test_an_arming_that_fails_half_way_is_taken_back(stand, monkeypatch):
    """A defect of ours in arming one window ends those that are armed already."""
    place, placed = stand.chaos.placement.place, []

    def breaks(run):
        if placed:
            raise MemoryError
        placed.append(run)
        place(run)

    monkeypatch.setattr(stand.chaos.placement, "place", breaks)
    with pytest.raises(MemoryError):
        arm(stand, GOOD, W("llm.invoke", "error", 10, 10), W("llm.invoke", "error", 20, 10))
    assert stand.guard.switch.quiet
    assert not struck(stand)
    assert all(run.over for run in stand.chaos.history)


# -- stopping ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["stop_all", "stop"])
@pytest.mark.parametrize("before", [True, False], ids=["not begun", "running"])
def test_a_plan_can_be_stopped_at_any_time(stand, stop, before):
    """From another thread, and the windows that have not begun never do."""
    run = arm(stand, W("llm.invoke", "error", start=10, duration=20), W("llm.invoke", "error", start=40, duration=20))
    if not before:
        stand.clock.advance(15.0)
        assert struck(stand)
    thread = threading.Thread(target=stand.chaos.stop_all if stop == "stop_all" else run.stop)
    thread.start()
    thread.join(PATIENCE)
    assert run.over
    assert stand.guard.switch.quiet
    assert stand.guard.faults.rules == ()
    for _ in range(8):
        assert not struck(stand)
        stand.clock.advance(10.0)
    assert [one.end_reason for one in run.runs] == ["stop_all" if stop == "stop_all" else "stopped"] * 2
    assert len(stand.told(ExperimentEnded)) == 2
    assert len(stand.told(ExperimentStarted)) == (0 if before else 1)
    assert run.injected == (0 if before else 1)


def test_one_window_can_be_stopped(stand):
    """The others go on."""
    run = arm(stand, W("llm.invoke", "error", 0, 10), W("llm.invoke", "error", 20, 10), W("llm.invoke", "error", 40, 10))
    stand.chaos.stop(run.runs[1])
    found = []
    for _ in range(5):
        found.append(struck(stand))
        stand.clock.advance(10.0)
    assert found == [True, False, False, False, True]
    assert run.over


def test_the_kill_switch_finds_every_window(make):
    """A plan of many windows is not forgotten, although the history of what is over is short."""
    stand = make()
    run = arm(stand, *(W("llm.invoke", "error", start=10 * number, duration=10) for number in range(200)))
    assert set(run.runs) <= set(stand.chaos.history)
    stand.chaos.stop_all()
    assert run.over
    assert stand.guard.switch.quiet
    arm(stand, GOOD)
    assert len(stand.chaos.history) == 64


@both
def test_a_listener_may_pull_the_kill_switch_when_a_window_begins(stand, suspends):
    """The call that finds it begun is not struck."""
    stand.resilience.on(lambda event: stand.chaos.stop_all(), ExperimentStarted)
    run = arm(stand, W("llm.invoke", "error", start=10, duration=10))
    stand.clock.advance(10.0)
    assert not struck(stand, suspends)
    assert run.runs[0].end_reason == "stop_all"
    assert stand.guard.switch.quiet


# -- what is told -----------------------------------------------------------------------------------------------------------------------


def test_the_begin_and_the_end_of_each_window_are_told_once(stand):
    """When the first call comes by, with the time at which it began; a window that begins at once is told at once."""
    run = arm(stand, W("llm.*", "error", start=0, duration=10, rate=0.5), W("llm.invoke", "error", start=20, duration=10))
    first, second = run.runs
    assert [(event.experiment, event.at) for event in stand.told(ExperimentStarted)] == [(first.id, 1_700_000_000.0)]
    for _ in range(7):
        struck(stand)
        struck(stand)
        stand.clock.advance(5.0)
    assert [
        (event.experiment, event.at, event.component, event.fault, event.rate, event.duration) for event in stand.told(ExperimentStarted)
    ] == [
        (first.id, 1_700_000_000.0, "llm.*", "error", 0.5, 10.0),
        (second.id, 1_700_000_020.0, "llm.invoke", "error", 1.0, 10.0),
    ]
    assert [(event.experiment, event.at, event.reason, event.injected) for event in stand.told(ExperimentEnded)] == [
        (first.id, 1_700_000_010.0, "expired", first.injected),
        (second.id, 1_700_000_030.0, "expired", 4),
    ]
    assert {event.experiment for event in stand.told(FaultInjected)} == {first.id, second.id}


def test_the_begin_is_told_before_the_first_strike(stand):
    """Whoever follows the events reads them in the order of what happened."""
    arm(stand, W("llm.invoke", "error", start=10, duration=10))
    stand.clock.advance(12.0)
    struck(stand)
    stand.clock.advance(10.0)
    struck(stand)
    assert [type(event) for event in stand.events] == [ExperimentStarted, FaultInjected, CallEnded, ExperimentEnded]


def test_a_window_in_which_nobody_called_is_told_like_any_other(stand):
    """Its begin and its end, in this order, as soon as somebody looks."""
    run = arm(stand, W("llm.invoke", "error", start=10, duration=10))
    stand.clock.advance(30.0)
    assert run.over
    assert [type(event) for event in stand.events] == [ExperimentStarted, ExperimentEnded]
    assert stand.events[0].at == 1_700_000_010.0


class Ticking(ManualClock):
    """Time passes while it is read, as it does on every machine."""

    def monotonic(self):
        self.advance(0.0625)
        return super().monotonic()


def test_a_window_that_begins_while_it_is_armed_is_told_once(make):
    """Between the making and the arming of its lease some time passes."""
    stand = make(clock=Ticking())
    run = arm(stand, W("llm.invoke", "error", start=0.0625, duration=100))
    assert run.runs[0].live
    assert len(stand.told(ExperimentStarted)) == 1


def test_all_windows_are_counted_from_one_moment(make):
    """What follows without a gap in the plan does so when it is run, and the plan ends when it says."""
    stand = make(clock=Ticking())
    run = arm(stand, *(W("llm.invoke", "error", start=100 * number, duration=100) for number in range(5)))
    begin = run.runs[0].span[0]
    assert [one.span for one in run.runs] == [(begin + 100 * number, begin + 100 * number + 100) for number in range(5)]
    assert run.ends_at == begin + 500


# -- decisions --------------------------------------------------------------------------------------------------------------------------


MIXED = (W("llm.*", "error", 0, 60, rate=0.5), W("llm.invoke", "error", 100, 60, rate=0.3))


def decided(stand, windows=MIXED, seed=1):
    run = arm(stand, *windows, seed=seed)
    found = [stand.struck(64), stand.clock.advance(100.0) or stand.struck(64)]
    run.stop()
    return found


def test_a_plan_decides_by_itself(make):
    """Whatever the seed of the process, and whatever was started, stopped or called before."""
    expected = decided(make())
    assert all(0 < sum(part) < 64 for part in expected)
    assert expected[0] != expected[1]
    assert decided(make(seed=8)) == expected
    busy = make(ceilings=ChaosCeilings(experiments=50))
    for number in range(5):
        busy.arm(rate=0.5)
        busy.struck(number)
        busy.chaos.stop_all()
    busy.resilience.guard("llm.other")
    assert decided(busy) == expected
    assert decided(busy) == expected
    assert decided(make(), seed=2) != expected


def test_each_window_draws_for_itself(make):
    """Two windows that are alike do not strike the same calls; what stands behind a window changes nothing for it."""
    one = W("llm.invoke", "error", 0, 60, rate=0.5)
    first = decided(make(), [one])[0]
    assert decided(make(), [one, W("llm.invoke", "error", 100, 60, rate=0.5)]) != [first, first]
    assert decided(make(), [one, W("llm.invoke", "error", 100, 60, rate=0.5)])[0] == first


@both
def test_errors_are_raised_by_the_names_that_the_caller_gives(stand, suspends):
    """Types and functions, a new object each time; a name of ours may be given another meaning."""

    class Overloaded(Exception):
        pass

    errors = {"overloaded": lambda: Overloaded("later"), "gone": LookupError, "OSError": Overloaded}
    names = ["overloaded", "gone", "OSError", "TimeoutError", None]
    arm(stand, *(W("llm.invoke", "error", 10 * index, 10, error=name) for index, name in enumerate(names)), errors=errors)
    found = []
    for _ in names:
        found.append([call(stand, suspends), call(stand, suspends)])
        stand.clock.advance(10.0)
    assert [type(one) for one, _ in found] == [Overloaded, LookupError, Overloaded, TimeoutError, InjectedFault]
    assert str(found[0][0]) == "later"
    assert all(one is not other for one, other in found)


# -- planned trips ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def db(stand):
    """A guard with a breaker, and a plan that opens it from the tenth second to the thirtieth."""
    guard = stand.resilience.guard("db", breaker=breaker())
    arm(stand, W("db", "circuit_trip", start=10, duration=20))
    return guard


@both
def test_a_planned_trip_refuses_the_call_that_finds_it(stand, db, suspends):
    """And those behind it, until its time is over; then the circuit is probed and closed as usual."""
    assert not struck(stand, suspends, "db")
    stand.clock.advance(15.0)
    assert db.breaker.state == "closed"
    for _ in range(2):
        error = call(stand, suspends, "db")
        assert type(error) is CircuitOpen
        assert (error.injected, error.retry_after) == (True, 15.0)
        assert "caused by a chaos experiment" in str(error)
    assert db.recorder.counts().total(Outcome.REJECTED, injected=True) == 2
    assert db.recorder.counts().total(Outcome.BAD) == 0
    assert [event.injected for event in stand.told(BreakerChanged)] == [True]
    assert [event.injected for event in stand.told(IncidentOpened)] == [True]
    assert [(event.component, event.fault) for event in stand.told(FaultInjected)] == [("db", "circuit_trip")]
    stand.clock.advance(14.75)
    assert struck(stand, suspends, "db")
    stand.clock.advance(0.25)
    assert not struck(stand, suspends, "db")
    assert db.breaker.state == "closed"
    assert not struck(stand, suspends, "db")
    assert db.switch.quiet


def test_a_planned_trip_is_made_once(stand, db):
    """An operator who closes the circuit has closed it."""
    stand.clock.advance(10.0)
    assert struck(stand, name="db")
    stand.resilience.breaker("db").reset()
    assert not struck(stand, name="db")
    assert len(stand.told(FaultInjected)) == 1


@pytest.mark.parametrize("state", ["force_open", "disable", "observe", "outage", "half open"])
def test_a_planned_trip_leaves_alone_what_is_not_closed(stand, db, state):
    """An outage is not an experiment, and people are not overruled: nothing is marked, prolonged or ended."""
    stand.clock.advance(5.0)
    if state in {"outage", "half open"}:
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                db.call(lambda: 1 // 0)
        if state == "half open":
            stand.clock.advance(10.0)
            db.breaker.admit()
    else:
        getattr(stand.resilience.breaker("db"), state)()
    before, changes = db.breaker.state, len(stand.told(BreakerChanged))
    stand.clock.advance(6.0)
    result = call(stand, name="db")
    assert not getattr(result, "injected", False)
    assert isinstance(result, CircuitOpen) == (state not in {"disable", "observe"})
    assert db.breaker.state == before
    assert len(stand.told(BreakerChanged)) == changes
    assert stand.told(FaultInjected) == []
    stand.chaos.stop_all()
    assert db.breaker.state == before


@both
def test_a_probe_is_not_tripped(stand, db, suspends):
    """A circuit that is half-open is in the middle of an outage of its own: the plan neither fails its probe nor prolongs it."""
    stand.clock.advance(5.0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            db.call(lambda: 1 // 0)
    stand.clock.advance(10.0)
    assert not struck(stand, suspends, "db")
    assert db.breaker.state == "closed"
    assert stand.told(FaultInjected) == []


def test_a_planned_trip_that_nobody_met_has_not_happened(stand, db):
    """Its time passes without a call."""
    stand.clock.advance(30.0)
    assert not struck(stand, name="db")
    assert stand.told(BreakerChanged) == []
    assert db.switch.quiet


def test_a_planned_trip_that_is_stopped_is_released(stand, db):
    """The next call is a probe."""
    stand.clock.advance(10.0)
    assert struck(stand, name="db")
    stand.chaos.stop_all()
    assert not struck(stand, name="db")
    assert db.breaker.state == "closed"


def test_a_guard_made_in_the_time_of_a_planned_trip_is_open_at_once(stand):
    """For what is left of it."""
    arm(stand, W("d*", "circuit_trip", start=10, duration=20), await_guards=True)
    stand.clock.advance(15.0)
    stand.resilience.guard("db", breaker=breaker())
    stand.resilience.guard("dull")
    assert call(stand, name="db").retry_after == 15.0
    assert not struck(stand, name="dull")


def test_a_planned_trip_from_the_start_opens_at_once(stand):
    """Nobody need call."""
    guard = stand.resilience.guard("db", breaker=breaker())
    arm(stand, W("db", "circuit_trip", start=0, duration=20))
    assert guard.breaker.state == "open"


def test_a_fallback_and_a_retry_see_a_planned_trip(stand):
    """The call that finds it is answered by the fallback, and is not tried again."""
    stand.resilience.guard("db", breaker=breaker(), retry=3, fallback=lambda: "lesser")
    arm(stand, W("db", "circuit_trip", start=10, duration=20))
    stand.clock.advance(10.0)
    assert [call(stand, name="db") for _ in range(2)] == ["lesser"] * 2
    assert len(stand.told(FaultInjected)) == 1


def test_threads_that_meet_a_planned_trip_meet_one(stand, db):
    """Whoever is first: it is made and told once, and whoever comes after that is refused."""
    stand.clock.advance(10.0)
    results = together(8, lambda _: call(stand, name="db"))
    assert CircuitOpen in {type(result) for result in results}
    assert [event.after for event in stand.told(BreakerChanged)] == ["open"]
    assert len(stand.told(FaultInjected)) == 1
    assert struck(stand, name="db")


# -- run_plan ---------------------------------------------------------------------------------------------------------------------------


def test_a_plan_is_run_to_its_end(stand):
    """It returns when the last window is over, and gives what was done."""
    plan = ChaosPlan([W("llm.invoke", "error", 45, 15), W("llm.invoke", "error", 0, 30)])
    run = asyncio.run(stand.chaos.run_plan(plan))
    assert stand.clock.monotonic() == 1_000_060.0 == run.ends_at
    assert (run.over, run.plan) == (True, plan)
    assert [one.end_reason for one in run.runs] == ["expired", "expired"]
    assert len(stand.told(ExperimentEnded)) == 2
    assert stand.guard.switch.quiet


def test_an_empty_plan_is_over_at_once(stand):
    """There is nothing to wait for."""
    run = asyncio.run(stand.chaos.run_plan(ChaosPlan()))
    assert (run.over, run.injected, stand.clock.monotonic()) == (True, 0, 1_000_000.0)


def test_tasks_are_struck_in_the_windows_and_at_no_other_time(make):
    """Two clients that call every second while the plan runs beside them."""
    stand = make(clock=Shared())
    other = stand.resilience.guard("db")
    errors = {"mine": LookupError}
    plan = ChaosPlan([W("llm.invoke", "error", 3, 4), W("*", "error", 10, 2, error="mine"), W("db", "error", 12, 1)])
    found = {"llm.invoke": [], "db": []}

    async def client(guard):
        async def answer():
            await asyncio.sleep(0)

        for _ in range(16):
            second = stand.clock.monotonic() - 1_000_000.0
            try:
                await guard.acall(answer)
            except (InjectedFault, LookupError) as error:
                found[guard.name].append((second, type(error)))
            while stand.clock.monotonic() < 1_000_001.0 + second:
                await asyncio.sleep(0)

    async def main():
        running = asyncio.ensure_future(stand.chaos.run_plan(plan, errors=errors))
        await turns()
        clients = [asyncio.ensure_future(client(guard)) for guard in (stand.guard, other)]
        for _ in range(12):
            await turns()
            stand.clock.advance(1.0)
        await turns()
        assert not running.done()
        for _ in range(4):
            stand.clock.advance(1.0)
            await turns()
            assert running.done()
        await asyncio.gather(*clients)
        return await running

    run = asyncio.run(main())
    assert found["llm.invoke"] == [*((second, InjectedFault) for second in (3, 4, 5, 6)), (10, LookupError), (11, LookupError)]
    assert found["db"] == [(10, LookupError), (11, LookupError), (12, InjectedFault)]
    assert [one.injected for one in run.runs] == [4, 4, 1]
    assert stand.guard.switch.quiet
    assert other.switch.quiet


@pytest.mark.parametrize("stop", ["stop_all", "one by one", "from a thread"])
def test_a_plan_that_is_stopped_returns_at_once(make, stop):
    """The kill switch wakes whoever waits for it."""
    stand = make(clock=Shared())

    async def main():
        running = asyncio.ensure_future(
            stand.chaos.run_plan(ChaosPlan([W("llm.invoke", "error", 0, 30), W("llm.invoke", "error", 60, 30)]))
        )
        await turns()
        assert not running.done()
        if stop == "from a thread":
            threading.Thread(target=stand.chaos.stop_all).start()
        elif stop == "stop_all":
            stand.chaos.stop_all()
        else:
            for one in stand.chaos.history:
                await turns()
                assert not running.done()
                stand.chaos.stop(one)
        return await asyncio.wait_for(running, PATIENCE)

    run = asyncio.run(main())
    assert run.over
    assert stand.clock.monotonic() == 1_000_000.0
    assert stand.guard.switch.quiet


def test_a_plan_whose_task_is_cancelled_is_over(make):
    """Its windows end with it, also those that have not begun, and the cancellation stays one."""
    stand = make(clock=Shared())

    async def main():
        running = asyncio.ensure_future(
            stand.chaos.run_plan(ChaosPlan([W("llm.invoke", "error", 0, 30), W("llm.invoke", "error", 60, 30)]))
        )
        await turns()
        assert struck_in_loop()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not struck_in_loop()

    def struck_in_loop():
        return isinstance(call(stand), Exception)

    asyncio.run(main())
    assert [one.end_reason for one in stand.chaos.history] == ["stopped", "stopped"]
    assert all(one.delaying == 0 for one in stand.chaos.history)
    assert stand.guard.switch.quiet


# -- requests ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_requests_are_struck_in_their_windows():
    """By path, with a status or by a cut; health is never touched; guards stay quiet."""
    stand = Requests(says(START, body(b"1", more=True), body(b"2", more=True), body(b"end")))
    guard = stand.resilience.guard("http:chat")
    stand.resilience.chaos.opt_in()
    plan = ChaosPlan(
        [
            W("http:/v1/*", "error", 10, 10, status=429),
            W("http:*", "stream_cut", 30, 10, after_items=1),
            W("http:*", "latency", 50, 10, delay=3),
        ]
    )
    run = stand.resilience.chaos.arm_plan(plan)

    async def ask(path):
        before = stand.clock.monotonic()
        try:
            await stand.ask(path)
        except InjectedFault:
            return "cut"
        return stand.sent[0]["status"], stand.clock.monotonic() - before

    found = []
    for _ in range(6):
        found.append([await ask(path) for path in ("/v1/chat", "/other", "/health")])
        stand.clock.advance(1_000_000.0 + 10 * len(found) - stand.clock.monotonic())
    fine = (200, 0.0)
    assert found == [
        [fine, fine, fine],
        [(429, 0.0), fine, fine],
        [fine, fine, fine],
        ["cut", "cut", fine],
        [fine, fine, fine],
        [(200, 3.0), (200, 3.0), fine],
    ]
    assert guard.switch.quiet
    assert run.over
    assert stand.resilience.chaos.http == ()
    assert [one.injected for one in run.runs] == [1, 2, 2]


# -- permission for a time --------------------------------------------------------------------------------------------------------------


def test_a_permission_can_be_lent(make, monkeypatch):
    """Whoever allows something for a time gives back what was allowed before, with everything that belongs to it."""
    monkeypatch.setenv("SOMARESIL_CHAOS_PRODUCTION", "tests")
    stand = make(environment="production", opt_in=False)
    before = stand.chaos.permission()
    assert before == Permission(None)
    stand.chaos.opt_in(ChaosCeilings(rate=0.5, protected_paths=("/admin/*",)), production=True)
    lent = stand.chaos.permission()
    assert arm(stand, W("llm.invoke", "error", 0, 10, rate=0.5)).runs[0].live
    stand.chaos.stop_all()
    stand.chaos.permit(before)
    assert stand.chaos.permission() == before
    with pytest.raises(ConfigurationError) as caught:
        stand.arm()
    assert [problem.path for problem in caught.value.problems] == ["chaos.opt_in", "chaos.environment"]
    stand.chaos.permit(lent)
    with pytest.raises(ConfigurationError, match=r"at most 0\.5, the ceiling"):
        stand.arm()
    assert stand.arm(rate=0.5).live


def test_the_protected_paths_go_with_the_permission():
    """They are part of the ceilings."""
    stand = Requests(says(START, body()))
    chaos = stand.resilience.chaos
    chaos.opt_in()
    before = chaos.permission()
    chaos.opt_in(ChaosCeilings(protected_paths=("/admin/*",)))
    stand.resilience.chaos.arm_plan(ChaosPlan([W("http:*", "error", 0, 10)]))
    assert chaos.strike_request("/admin/x") is None
    chaos.permit(before)
    assert chaos.strike_request("/admin/x") is not None
    assert chaos.strike_request("/health") is None


def test_experiments_and_plans_run_beside_one_another(stand):
    """Each knows nothing of the other."""
    run = arm(stand, W("llm.invoke", "latency", 0, 20, delay=2))
    other = stand.arm(ERROR, error=LookupError)
    third = stand.arm(LATENCY, delay_seconds=1.0)
    began = stand.clock.monotonic()
    assert type(call(stand)) is LookupError
    assert stand.clock.monotonic() - began == 2.0
    stand.chaos.stop(other)
    assert call(stand) - began == 5.0
    assert (run.injected, other.injected, third.injected) == (2, 1, 1)


def test_a_stand_without_a_plan_is_quiet():
    """Nothing is armed by being able to be."""
    assert Stand().guard.switch.quiet
