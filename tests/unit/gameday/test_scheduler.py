"""What is due runs: once, in time, under its policies, whatever the clocks do and however runs end. All of it in virtual time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from somaresil import ChaosPlan, ConfigurationError, FaultWindow, InjectedFault, Resilience
from somaresil.events import DefectFound, ExperimentStarted, ScheduledRunEnded, ScheduledRunSkipped, ScheduledRunStarted
from somaresil.gameday import Blackout, Schedule, Scheduler, Window
from somaresil.testing import VirtualClock

HOUR = 3600.0
DAY = 86_400.0
PLAN = ChaosPlan([FaultWindow("llm.invoke", "error", start=0, duration=60)])


@dataclass
class Answer:
    granted: bool
    reason: str = ""


@dataclass
class Fleet:
    """What a store of leaders does, in Python: one leads, each occurrence is claimed once."""

    leader: Any = None
    claimed: dict[str, Any] = field(default_factory=dict)
    busy: dict[str, str] = field(default_factory=dict)
    down: bool = False


@dataclass
class Member:
    """One process of a fleet."""

    fleet: Fleet
    changed: Any = None
    asked: int = 0

    @property
    def leads(self) -> bool:
        return self.fleet.leader is self

    async def start(self, resilience, changed):
        self.changed = changed
        self.fleet.leader = self.fleet.leader or self

    async def stop(self):
        if self.leads:
            self.fleet.leader = None

    async def claim(self, schedule, occurrence, *, keep, exclusive):
        self.asked += 1
        if self.fleet.down or not self.leads:
            return Answer(False, "lost")
        if occurrence in self.fleet.claimed:
            return Answer(False, "taken")
        if exclusive is not None:
            if schedule in self.fleet.busy:
                return Answer(False, "running")
            self.fleet.busy[schedule] = occurrence
        self.fleet.claimed[occurrence] = self
        return Answer(True)

    async def done(self, schedule, occurrence):
        if self.fleet.busy.get(schedule) == occurrence:
            del self.fleet.busy[schedule]


class Stand:
    """A process on a clock of its own kind, with a scheduler, and everything that was told."""

    def __init__(self, *, clock: VirtualClock | None = None, opt_in: bool = True, **options: Any) -> None:
        self.clock = clock or VirtualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=7, environment="test")
        if opt_in:
            self.resilience.chaos.opt_in()
        self.guard = self.resilience.guard("llm.invoke")
        self.scheduler = Scheduler(self.resilience, **{"look_every": DAY, **options})
        self.events: list[Any] = []
        self.resilience.on(self.events.append)
        self.ran: list[float] = []
        self.begun = self.clock.time()

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def now(self) -> float:
        """Seconds since the beginning, by the clock that measures."""
        return self.clock.monotonic()

    def job(self, lasts: float = 0.0, fails: Exception | None = None):
        """Something to run: it notes when, takes its time, and may fail."""

        async def run():
            self.ran.append(self.now)
            await self.clock.asleep(lasts)
            if fails is not None:
                raise fails

        return run

    def for_(self, seconds: float, meanwhile: Any = None) -> None:
        """Let the scheduler run for so long."""

        async def main():
            async with self.scheduler:
                if meanwhile is not None:
                    await meanwhile()
                await self.clock.asleep(seconds - self.now)

        self.clock.run(main())

    def outcomes(self, name: str) -> list[tuple[str, str]]:
        return [(run.outcome, run.detail) for run in self.scheduler.history(name)]


def hourly(**options: Any) -> Schedule:
    """On each hour."""
    return Schedule("hourly", "0 * * * *", **options)


# -- in time --------------------------------------------------------------------------------------------------------------------------


def test_a_year_of_schedules_takes_no_time():
    """Each occurrence of a year is run, when it is due, in well under five seconds."""
    stand = Stand()
    stand.scheduler.add(Schedule("daily", "0 12 * * *"), stand.job(60.0))
    stand.scheduler.add(Schedule("weekly", "30 2 * * mon"), stand.job(60.0))
    began = time.perf_counter()
    stand.for_(365 * DAY)
    assert time.perf_counter() - began < 5.0
    assert len(stand.ran) == 365 + 52
    assert all(run % DAY in {12 * HOUR, 2.5 * HOUR} for run in stand.ran)
    assert {event.outcome for event in stand.told(ScheduledRunEnded)} == {"done"}
    assert max(event.late for event in stand.told(ScheduledRunStarted)) < 0.01


def test_a_plan_strikes_calls_for_as_long_as_it_says():
    """It is armed when it is due, over when it is over, and the run is done."""
    stand = Stand()
    stand.scheduler.add(hourly(), PLAN)
    struck = []

    async def calls():
        for moment in (HOUR - 1, HOUR + 1, HOUR + 59, HOUR + 61):
            await stand.clock.asleep(moment - stand.now)
            try:
                await stand.guard.acall(asyncio.sleep, 0)
            except InjectedFault:
                struck.append(moment - HOUR)

    stand.for_(1.5 * HOUR, calls)
    assert struck == [1, 59]
    assert stand.outcomes("hourly") == [("done", "")]
    (run,) = stand.scheduler.history("hourly")
    assert run.started == pytest.approx(stand.begun + HOUR, abs=0.01)
    assert run.duration == pytest.approx(60.0, abs=0.1)


def test_what_was_due_before_it_began_is_not_run():
    """A start in the middle of an hour waits for the next one, also when everything missed is caught up with."""
    stand = Stand()
    stand.clock.advance(HOUR + 10.0)
    stand.scheduler.add(hourly(missed="run_once", starting_deadline=DAY), stand.job())
    stand.for_(2.5 * HOUR)
    assert stand.ran == [pytest.approx(2 * HOUR, abs=0.01)]


def test_jitter_puts_off_the_start():
    """By what was drawn for the occurrence, which the preview shows."""
    stand = Stand()
    stand.scheduler.add(hourly(jitter=600.0), stand.job())
    (expected,) = stand.scheduler.next_runs(1)
    stand.for_(1.9 * HOUR)
    assert stand.ran == [pytest.approx(expected.start - stand.begun, abs=0.01)]
    assert stand.ran[0] > HOUR


def test_windows_and_blackouts_hold():
    """Of two days, the hours of one morning."""
    stand = Stand()
    stand.scheduler.add(hourly(windows=(Window("09:00", "11:00"),), blackouts=(Blackout("2026-01-01"),)), stand.job())
    stand.for_(2 * DAY)
    assert stand.ran == [pytest.approx(DAY + 9 * HOUR, abs=0.01), pytest.approx(DAY + 10 * HOUR, abs=0.01)]


# -- previews -------------------------------------------------------------------------------------------------------------------------


def test_the_next_runs_of_all_schedules_come_in_order():
    """Without those that are paused; by name, one alone."""
    stand = Stand()
    assert [each.due for each in stand.scheduler.add(hourly(), PLAN)] == [stand.begun + n * HOUR for n in (1, 2, 3)]
    stand.scheduler.add(Schedule("half", "30 * * * *"), PLAN)
    assert [each.schedule for each in stand.scheduler.next_runs(4)] == ["half", "hourly", "half", "hourly"]
    stand.scheduler.pause("half")
    assert {each.schedule for each in stand.scheduler.next_runs(4)} == {"hourly"}
    assert {each.schedule for each in stand.scheduler.next_runs(4, "half")} == {"half"}


def test_a_dry_run_notes_what_would_run():
    """And runs nothing."""
    stand = Stand(dry_run=True)
    stand.scheduler.add(hourly(), stand.job())
    stand.for_(2.5 * HOUR)
    assert stand.ran == []
    assert [run.outcome for run in stand.scheduler.history("hourly")] == ["dry run", "dry run"]
    assert stand.scheduler.status()["schedules"]["hourly"]["last"] == "dry run"


# -- permission -----------------------------------------------------------------------------------------------------------------------


def test_without_permission_it_does_not_start(monkeypatch):
    """Chaos is off by default: the code has to allow it, and the environment."""
    stand = Stand(opt_in=False)
    monkeypatch.delenv("SOMARESIL_CHAOS")
    with pytest.raises(ConfigurationError) as caught:
        stand.for_(1.0)
    assert [problem.path for problem in caught.value.problems] == ["scheduler.opt_in", "scheduler.SOMARESIL_CHAOS"]
    assert stand.scheduler.state == "stopped"


def test_permission_is_asked_for_at_each_run(monkeypatch):
    """An operator takes the switch away, and what is due after that is refused: plans, and anything else."""
    stand = Stand()
    stand.scheduler.add(hourly(), stand.job())
    stand.scheduler.add(Schedule("plan", "0 * * * *"), PLAN)

    async def forbid():
        await stand.clock.asleep(1.5 * HOUR)
        monkeypatch.delenv("SOMARESIL_CHAOS")

    stand.for_(2.5 * HOUR, forbid)
    assert len(stand.ran) == 1
    assert [run.outcome for run in stand.scheduler.history("hourly")] == ["done", "refused"]
    assert [run.outcome for run in stand.scheduler.history("plan")] == ["done", "refused"]
    assert len(stand.told(ExperimentStarted)) == 1


def test_a_plan_that_cannot_be_armed_is_reported_and_tried_again():
    """Its target has no guard at first."""
    stand = Stand()
    stand.scheduler.add(hourly(), ChaosPlan([FaultWindow("tool.call", "error", start=0, duration=60)]))

    async def define():
        await stand.clock.asleep(1.5 * HOUR)
        stand.resilience.guard("tool.call")

    stand.for_(2.5 * HOUR, define)
    outcomes = stand.outcomes("hourly")
    assert [outcome for outcome, _ in outcomes] == ["refused", "done"]
    assert "tool.call" in outcomes[0][1]


# -- how runs end ---------------------------------------------------------------------------------------------------------------------


def test_a_run_that_fails_is_reported_and_the_next_one_runs():
    """The scheduler lives on; so do the other schedules."""
    stand = Stand()
    stand.scheduler.add(hourly(), stand.job(fails=ValueError("broken")))
    stand.scheduler.add(Schedule("half", "30 * * * *"), lambda: None)  # type: ignore[arg-type, return-value]
    stand.for_(2.9 * HOUR)
    assert stand.outcomes("hourly") == [("failed", "ValueError: broken")] * 2
    assert [run.outcome for run in stand.scheduler.history("half")] == ["failed"] * 3
    assert [event.error for event in stand.told(ScheduledRunEnded) if event.schedule == "hourly"] == ["ValueError"] * 2


def test_a_run_that_takes_too_long_is_cancelled():
    """After its longest time, and the next one runs."""
    stand = Stand()
    stand.scheduler.add(hourly(longest=600.0), stand.job(DAY))
    stand.for_(2.5 * HOUR)
    assert stand.outcomes("hourly") == [("cancelled", "longer than 600 s")] * 2
    assert stand.scheduler.history("hourly")[0].duration == pytest.approx(600.0, abs=0.1)


def test_a_run_is_cancelled_when_its_window_closes():
    """Begun at half past eleven, closed at twelve."""
    stand = Stand()
    stand.scheduler.add(Schedule("n", "30 * * * *", windows=(Window("11:00", "12:00"),)), stand.job(DAY))
    stand.for_(13 * HOUR)
    (run,) = stand.scheduler.history("n")
    assert (run.outcome, run.detail) == ("cancelled", "the window has closed")
    assert run.duration == pytest.approx(0.5 * HOUR, abs=0.1)


@pytest.mark.parametrize(("minute", "runs"), [(58, False), (59, True), (0, True)])
def test_a_plan_that_would_outlast_its_window_does_not_begin(minute, runs):
    """Two minutes of faults, a window of an hour: what ends with it is in it, by a hair."""
    stand = Stand()
    plan = ChaosPlan([FaultWindow("llm.invoke", "error", start=0, duration=120 if minute == 58 else 60)])
    windows = (Window("11:00", "11:59:30" if minute == 58 else "12:00"),)
    stand.scheduler.add(Schedule("n", f"{minute} 11 * * *", windows=windows), plan)
    stand.for_(13 * HOUR)
    assert [run.outcome for run in stand.scheduler.history("n")] == ["done" if runs else "skipped"]
    assert bool(stand.told(ExperimentStarted)) is runs


def test_a_run_that_ignores_its_cancellation_is_reported_and_left_to_itself():
    """It still counts as one that goes on, so nothing is started beside it."""
    stand = Stand()
    go = asyncio.Event()

    async def stubborn():
        while not go.is_set():
            try:
                await stand.clock.asleep(7 * DAY)
            except asyncio.CancelledError:
                continue

    stand.scheduler.add(hourly(longest=60.0), stubborn)

    async def end():
        await stand.clock.asleep(1.5 * HOUR)
        go.set()
        for task in asyncio.all_tasks():
            if "_awaited" in repr(task.get_coro()):
                task.cancel()

    stand.for_(1.6 * HOUR, end)
    assert stand.outcomes("hourly") == [("cancelled", "longer than 60 s")]
    assert [event.where for event in stand.told(DefectFound)] == ["schedule hourly"]


def test_the_kill_switch_ends_a_run():
    """It is not done but cancelled, by whoever pulled it."""
    stand = Stand()
    stand.scheduler.add(hourly(), PLAN)

    async def pull():
        await stand.clock.asleep(HOUR + 10.0)
        stand.resilience.chaos.stop_all()

    stand.for_(1.5 * HOUR, pull)
    assert stand.outcomes("hourly") == [("cancelled", "stop_all")]
    assert stand.scheduler.history("hourly")[0].duration == pytest.approx(10.0, abs=0.1)


def test_stopping_ends_what_runs():
    """No fault and no task is left; it may be started again."""
    stand = Stand()
    stand.scheduler.add(hourly(), PLAN)
    stand.scheduler.add(Schedule("other", "0 * * * *"), stand.job(DAY))

    async def main():
        await stand.scheduler.start()
        await stand.scheduler.start()
        await stand.clock.asleep(HOUR + 1.0)
        assert len(stand.resilience.chaos.runs) == 1
        await stand.scheduler.stop()
        await stand.scheduler.stop()
        assert stand.resilience.chaos.runs == ()
        assert len(asyncio.all_tasks()) == 1
        assert stand.scheduler.state == "stopped"
        async with stand.scheduler:
            assert stand.scheduler.state == "running"
            await stand.clock.asleep(HOUR)

    stand.clock.run(main())
    assert [run.outcome for run in stand.scheduler.history("hourly")] == ["cancelled", "cancelled"]
    assert stand.outcomes("other")[0] == ("cancelled", "stopped")


def test_history_is_bounded():
    """As many as the schedule says."""
    stand = Stand()
    stand.scheduler.add(hourly(history=3), stand.job())
    stand.for_(9.5 * HOUR)
    assert len(stand.ran) == 9
    assert [run.occurrence[-10:-4] for run in stand.scheduler.history("hourly")] == ["T07:00", "T08:00", "T09:00"]


# -- concurrency ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "outcomes"),
    [
        ("forbid", [("done", ""), ("skipped", "running"), ("running", "")]),
        ("replace", [("cancelled", "replaced"), ("cancelled", "replaced"), ("running", "")]),
        ("allow", [("done", ""), ("running", ""), ("running", "")]),
    ],
)
def test_a_run_that_meets_the_one_before(policy, outcomes):
    """Each takes an hour and a half: the second is left out, takes the place of the first, or runs beside it."""
    stand = Stand()
    seen = []
    stand.scheduler.add(hourly(concurrency=policy, longest=DAY), stand.job(1.5 * HOUR))

    async def look():
        await stand.clock.asleep(3.1 * HOUR)
        seen.extend(stand.outcomes("hourly"))

    stand.for_(3.2 * HOUR, look)
    assert seen == outcomes


def test_many_runs_at_once_have_a_bound():
    """With allow, eight of one schedule, and no more."""
    stand = Stand()
    stand.scheduler.add(Schedule("n", "* * * * *", concurrency="allow", history=100, longest=DAY), stand.job(HOUR))
    stand.for_(1000.0)
    assert len(stand.ran) == 8
    assert stand.outcomes("n").count(("skipped", "running")) == 8


# -- pause ----------------------------------------------------------------------------------------------------------------------------


def test_what_is_due_during_a_pause_is_left_out_for_good():
    """Also when everything missed is caught up with; after it, all goes on."""
    stand = Stand(look_every=60.0)
    stand.scheduler.add(hourly(missed="run_once", starting_deadline=DAY), stand.job())

    async def pause():
        await stand.clock.asleep(1.5 * HOUR)
        stand.scheduler.pause()
        assert stand.scheduler.status()["schedules"]["hourly"]["paused"] is True
        await stand.clock.asleep(2 * HOUR)
        stand.scheduler.resume("hourly")

    stand.for_(4.5 * HOUR, pause)
    assert stand.ran == [pytest.approx(HOUR, abs=0.01), pytest.approx(4 * HOUR, abs=0.01)]
    assert stand.outcomes("hourly") == [("done", ""), ("skipped", "paused"), ("skipped", "paused"), ("done", "")]
    assert [event.reason for event in stand.told(ScheduledRunSkipped)] == ["paused", "paused"]


def test_a_schedule_that_is_added_or_removed_while_it_runs_counts_at_once():
    """It does not sleep over them, however long it may sleep; from another thread too."""
    stand = Stand()

    async def change():
        await stand.clock.asleep(0.5 * HOUR)
        await asyncio.to_thread(stand.scheduler.add, hourly(), stand.job())
        await stand.clock.asleep(1.0 * HOUR)
        stand.scheduler.remove("hourly")

    stand.for_(3.5 * HOUR, change)
    assert stand.ran == [pytest.approx(HOUR, abs=0.01)]
    assert stand.scheduler.schedules == ()


# -- clocks that are set, machines that sleep -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "outcomes"),
    [
        ({}, [("skipped", "missed, 3 of them")]),
        ({"missed": "run_once", "starting_deadline": 1800.0}, [("skipped", "missed, 2 of them"), ("done", "")]),
        ({"missed": "run_once", "starting_deadline": 600.0}, [("skipped", "missed, 3 of them")]),
    ],
)
def test_what_was_slept_over(options, outcomes):
    """The wall clock goes three hours and twenty minutes ahead: what was due is left out, or its last runs within the deadline."""
    stand = Stand(look_every=30.0)
    stand.scheduler.add(hourly(**options), stand.job())

    async def step():
        await stand.clock.asleep(60.0)
        stand.clock.step_wall(3 * HOUR + 1200.0)
        await stand.clock.asleep(60.0)

    stand.for_(200.0, step)
    assert sorted(stand.outcomes("hourly")) == sorted(outcomes)
    (skipped,) = stand.told(ScheduledRunSkipped)
    assert skipped.reason == "missed"


def test_a_clock_that_is_set_ahead_by_years_costs_no_time():
    """What is every second is not counted for ten years, and the next one is run."""
    stand = Stand(look_every=1.0)
    stand.scheduler.add(Schedule("often", "* * * * * *", history=5), stand.job())

    async def step():
        await stand.clock.asleep(10.5)
        stand.clock.step_wall(10 * 365 * DAY)

    began = time.perf_counter()
    stand.for_(20.0, step)
    assert time.perf_counter() - began < 5.0
    assert 18 <= len(stand.ran) <= 20
    (skipped,) = [event for event in stand.told(ScheduledRunSkipped) if event.count > 1]
    assert skipped.count >= 1000


def test_a_clock_that_is_set_back_runs_nothing_twice():
    """An hour that comes again finds its runs done; after that all goes on."""
    stand = Stand(look_every=30.0)
    stand.scheduler.add(hourly(missed="run_once"), stand.job())

    async def step():
        await stand.clock.asleep(2 * HOUR + 60.0)
        stand.clock.step_wall(-1.5 * HOUR)

    stand.for_(4.6 * HOUR, step)
    assert stand.ran == [pytest.approx(n * HOUR, abs=0.01) for n in (1, 2, 4.5)]


def test_a_clock_that_was_wrong_by_days_is_believed_when_it_is_right_again():
    """It does not wait until the wrong time comes."""
    stand = Stand(look_every=30.0)
    stand.scheduler.add(hourly(), stand.job())

    async def step():
        await stand.clock.asleep(60.0)
        stand.clock.step_wall(30 * DAY)
        await stand.clock.asleep(60.0)
        stand.clock.step_wall(-30 * DAY)

    stand.for_(2.5 * HOUR, step)
    assert stand.ran == [pytest.approx(HOUR, abs=0.01), pytest.approx(2 * HOUR, abs=0.01)]


# -- fleets ---------------------------------------------------------------------------------------------------------------------------


def fleet_of(n: int, clock: VirtualClock, **options: Any) -> tuple[Fleet, list[Stand]]:
    """Processes that share a leader, each with the same schedule."""
    clock.advance(45.0)
    fleet = Fleet()
    stands = [Stand(clock=clock, leader=Member(fleet), look_every=10.0) for _ in range(n)]
    for stand in stands:
        stand.scheduler.add(Schedule("often", "* * * * *", **{"starting_deadline": 30.0, **options}), stand.job(5.0))
    return fleet, stands


async def together(stands: list[Stand], body: Any) -> None:
    """All of them at once."""
    for stand in stands:
        await stand.scheduler.start()
    await body()
    for stand in stands:
        await stand.scheduler.stop()


def test_one_of_a_fleet_runs_what_is_due():
    """The others wait, and ask nobody for anything."""
    clock = VirtualClock()
    _, stands = fleet_of(3, clock)

    async def body():
        assert [stand.scheduler.state for stand in stands] == ["running", "waiting", "waiting"]
        await clock.asleep(556.0)

    clock.run(together(stands, body))
    assert [len(stand.ran) for stand in stands] == [10, 0, 0]
    assert stands[1].scheduler.history("often") == ()


@pytest.mark.parametrize("missed", ["skip", "run_once"])
def test_who_takes_over_does_not_run_again_what_was_run(missed):
    """Also when it is told late; what nobody has run it runs, if its policy says so."""
    clock = VirtualClock()
    fleet, stands = fleet_of(2, clock, missed=missed)

    async def body():
        await clock.asleep(256.0)
        fleet.leader = None
        await clock.asleep(70.0)
        fleet.leader = stands[1].scheduler._leader
        fleet.leader.changed()
        await clock.asleep(60.0)

    clock.run(together(stands, body))
    first, second = (stand.ran for stand in stands)
    assert len(first) == 5
    assert [round(moment) for moment in second] == ([371, 420] if missed == "run_once" else [420])
    assert [event.reason for event in stands[1].told(ScheduledRunSkipped)] == ([] if missed == "run_once" else ["missed"])


def test_a_restart_of_a_whole_fleet_catches_up_with_what_nobody_has_run():
    """The store remembers what was run; what came due while nobody was there runs once."""
    clock = VirtualClock()
    fleet, (old,) = fleet_of(1, clock, missed="run_once")
    again = Stand(clock=clock, leader=Member(fleet), look_every=10.0)
    again.scheduler.add(Schedule("often", "* * * * *", missed="run_once", starting_deadline=600.0), again.job())

    async def body():
        await clock.asleep(85.0)

    async def main():
        await together([old], body)
        await together([again], body_at_once)
        await clock.asleep(80.0)
        await together([again], body_at_once)

    async def body_at_once():
        await clock.asleep(1.0)

    clock.run(main())
    assert len(old.ran) == 2
    assert [round(moment) for moment in again.ran] == [211]


def test_without_the_store_nothing_runs():
    """Chaos fails closed: what cannot be claimed is not run, and is asked for again."""
    clock = VirtualClock()
    fleet, (stand,) = fleet_of(1, clock, missed="run_once")

    async def body():
        fleet.down = True
        await clock.asleep(25.0)
        assert stand.ran == []
        fleet.down = False
        await clock.asleep(30.0)

    clock.run(together([stand], body))
    assert [round(moment) for moment in stand.ran] == [70]


def test_a_run_that_goes_on_in_another_process_is_one_that_goes_on():
    """Who takes over does not start a second one beside it."""
    clock = VirtualClock()
    fleet = Fleet()
    stands = [Stand(clock=clock, leader=Member(fleet), look_every=10.0) for _ in range(2)]
    for stand in stands:
        stand.scheduler.add(Schedule("often", "* * * * *"), stand.job(90.0))

    async def body():
        await clock.asleep(61.0)
        fleet.leader = stands[1].scheduler._leader
        fleet.leader.changed()
        await clock.asleep(130.0)

    clock.run(together(stands, body))
    assert [[round(moment) for moment in stand.ran] for stand in stands] == [[60], [180]]
    assert [event.reason for event in stands[1].told(ScheduledRunSkipped)] == ["running"]


def test_a_dry_run_claims_nothing():
    """So that it does not keep others from what it only looks at."""
    clock = VirtualClock()
    fleet = Fleet()
    stand = Stand(clock=clock, leader=Member(fleet), dry_run=True)
    stand.scheduler.add(hourly(), stand.job())
    stand.for_(1.5 * HOUR)
    assert fleet.claimed == {}
    assert [run.outcome for run in stand.scheduler.history("hourly")] == ["dry run"]


# -- what is refused ------------------------------------------------------------------------------------------------------------------


def test_what_cannot_be_scheduled_is_refused():
    """With the path of each problem."""
    stand = Stand()
    stand.scheduler.add(hourly(longest=60.0), stand.job())
    for arguments, paths in (
        (("hourly", PLAN), ["scheduler.add.schedule"]),
        ((hourly(), 5), ["scheduler.add.schedule", "scheduler.add.run"]),
        ((Schedule("n", "0 * * * *", longest=30.0), PLAN), ["scheduler.add.run"]),
    ):
        with pytest.raises(ConfigurationError) as caught:
            stand.scheduler.add(*arguments)
        assert [problem.path for problem in caught.value.problems] == paths
    with pytest.raises(ConfigurationError) as caught:
        stand.scheduler.pause("hourli")
    assert caught.value.problems[0].hint == "did you mean 'hourly'?"
    with pytest.raises(ConfigurationError) as caught:
        Scheduler(None, leader=5, dry_run=1, look_every=0)  # type: ignore[arg-type]
    assert [problem.path for problem in caught.value.problems] == [
        "Scheduler.resilience",
        "Scheduler.leader",
        "Scheduler.dry_run",
        "Scheduler.look_every",
    ]


def test_a_defect_of_ours_stops_neither_the_schedule_nor_the_others(monkeypatch):
    """It is reported once, and looked at again later."""
    stand = Stand(look_every=60.0)
    stand.scheduler.add(hourly(), stand.job())
    stand.scheduler.add(Schedule("half", "30 * * * *"), stand.job())
    entry = stand.scheduler._entries["half"]
    monkeypatch.setattr(entry, "next", lambda: 1 / 0)
    stand.for_(2.5 * HOUR)
    assert len(stand.ran) == 2
    assert [event.where for event in stand.told(DefectFound)] == ["schedule half"]
