"""Experiments by the clock on the wall: each schedule runs a fault plan, or whatever else can be awaited, when it is due.

    scheduler = Scheduler(resilience)
    scheduler.add(Schedule("nightly", "30 2 * * mon-fri", zone="Europe/Berlin"), plan)
    async with scheduler:
        ...

Off by default: it needs the same permission as an experiment, when it starts and at each run. One task looks at the wall clock; it sleeps
by the monotonic one, and looks again at least every ``look_every`` seconds, so that a clock that was set or a machine that was asleep is
seen soon. A run that fails is reported and hurts nothing else. In a fleet, one process leads
(:class:`~somaresil.gameday.leader.Leader`), and each occurrence is claimed before it runs; without the leader's store nothing runs at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from somaresil.chaos.plan import ChaosPlan
from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError, describe
from somaresil.events import ScheduledRunEnded, ScheduledRunSkipped, ScheduledRunStarted
from somaresil.gameday.entry import Entry, ScheduledRun
from somaresil.gameday.schedule import Occurrence, Schedule
from somaresil.resilience import Resilience
from somaresil.runtime import Asyncio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from somaresil.chaos.plan import ErrorMakers
    from somaresil.gameday.leader import Leader
    from somaresil.runtime import Waiter

__all__ = ["ScheduledRun", "Scheduler"]

_log = logging.getLogger("somaresil")

ON_TIME: Final = 5.0
"""Seconds by which a start may be late without having been missed: a busy loop, or one that an experiment blocks."""
_PATIENCE: Final = 10.0
"""Seconds that a cancelled run has to end."""
_BIG_STEP: Final = 86_400.0
"""A wall clock that was set back by less is waited for, so that nothing runs twice; by more, it was wrong before."""
_AGAIN: Final = 1.0
"""Seconds until a claim that came to nothing is tried again."""
_KEEP: Final = 86_400.0
"""Seconds for which a claim is kept at least."""
_MOST_SCHEDULES: Final = 1_000
_MOST_AT_ONCE: Final = 8
"""Runs of one schedule at the same time, with ``concurrency="allow"``."""


class Scheduler:
    """Runs what is due, from :meth:`start` to :meth:`stop`; an asynchronous context manager."""

    def __init__(
        self,
        resilience: Resilience,
        *,
        leader: Leader | None = None,
        dry_run: bool = False,
        look_every: float | timedelta = 30.0,
    ) -> None:
        """Run in this process. ``leader``: only while this process leads a fleet. ``dry_run``: note what would run, and run nothing.

        ``look_every`` (0.01 seconds to a day): how soon a wall clock that was set is noticed.
        Raises :class:`~somaresil.errors.ConfigurationError`.
        """
        check = Checker("Scheduler")
        check.type("resilience", resilience, Resilience, "a Resilience")
        if leader is not None and not all(callable(getattr(leader, name, None)) for name in ("start", "stop", "claim", "done")):
            check.problem("leader", leader, "a RedisLeader, or something with start, stop, claim, done and leads")
        check.type("dry_run", dry_run, bool, "True or False")
        self._look_every = check.seconds("look_every", look_every, minimum=0.01, maximum=86_400.0, exclusive=False)
        check.finish()
        self.resilience = resilience
        self.dry_run = dry_run
        self._leader = leader
        self._clock = resilience.clock
        self._listeners = resilience.listeners
        self._entries: dict[str, Entry] = {}
        self._task: asyncio.Task[None] | None = None
        self._bell: Waiter | None = None

    def __repr__(self) -> str:
        """How many schedules, and how they stand."""
        return f"<Scheduler of {len(self._entries)} schedules: {self.state}>"

    # -- what is to run -----------------------------------------------------------------------------------------------------------------

    def add(
        self, schedule: Schedule, run: ChaosPlan | Callable[[], Awaitable[Any]], *, errors: ErrorMakers | None = None
    ) -> tuple[Occurrence, ...]:
        """Run ``run`` when ``schedule`` is due: a plan in this process, or a function that gives an awaitable. The next three occurrences.

        ``errors``: as in :meth:`~somaresil.chaos.engine.ChaosEngine.arm_plan`. Targets and ceilings are looked at when it runs: a plan that
        is refused then is reported, and tried again the next time. Raises :class:`~somaresil.errors.ConfigurationError`.
        """
        check = Checker("scheduler.add")
        check.type("schedule", schedule, Schedule, "a Schedule")
        if isinstance(schedule, Schedule) and schedule.name in self._entries:
            check.problem("schedule", schedule.name, "a name that is not taken", "remove() the other one first")
        if len(self._entries) >= _MOST_SCHEDULES:
            check.problem("schedule", f"{len(self._entries) + 1} schedules", f"at most {_MOST_SCHEDULES}")
        if not isinstance(run, ChaosPlan) and not callable(run):
            check.problem("run", run, "a ChaosPlan, or a function without arguments that gives an awaitable")
        if isinstance(run, ChaosPlan) and isinstance(schedule, Schedule) and run.duration > schedule.longest:
            check.problem("run", f"a plan of {run.duration:g} s", f"at most {schedule.longest:g} s", "Schedule(longest=...) says so")
        if errors is not None and not isinstance(errors, Mapping):
            check.problem("errors", errors, "names of errors and what they mean, or None")
        check.finish()
        now = self._clock.time()
        if isinstance(run, ChaosPlan):
            plan = run
            entry = Entry(schedule, lambda: self._run_plan(plan, errors), plan, now)
        else:
            entry = Entry(schedule, run, None, now)
        self._begin_at(entry, now)
        self._entries = {**self._entries, schedule.name: entry}
        self._ring()
        return schedule.next_runs(3, after=now)

    def remove(self, name: str) -> None:
        """Forget a schedule. What it runs just now goes on to its end. Raises :class:`~somaresil.errors.ConfigurationError`."""
        self._entry("remove", name)
        self._entries = {other: entry for other, entry in self._entries.items() if other != name}
        self._ring()

    def pause(self, name: str | None = None) -> None:
        """Start nothing of this schedule (None: of any) in this process until :meth:`resume`. What is due meanwhile is never run."""
        self._set_paused("pause", name, paused=True)

    def resume(self, name: str | None = None) -> None:
        """Go on after :meth:`pause`."""
        self._set_paused("resume", name, paused=False)

    def _set_paused(self, where: str, name: str | None, *, paused: bool) -> None:
        for entry in self._entries.values() if name is None else [self._entry(where, name)]:
            if entry.paused and not paused:
                # Whatever came due until now came due during the pause.
                entry.cursor = max(entry.cursor, self._clock.time())
            entry.paused = paused
        self._ring()

    # -- what is seen ---------------------------------------------------------------------------------------------------------------------

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """All of them, in the order in which they were added."""
        return tuple(entry.schedule for entry in self._entries.values())

    @property
    def state(self) -> str:
        """``stopped``, ``waiting`` (another process leads) or ``running``."""
        if self._task is None or self._task.done():
            return "stopped"
        return "running" if self._leader is None or self._leader.leads else "waiting"

    def next_runs(self, n: int = 10, name: str | None = None) -> tuple[Occurrence, ...]:
        """The next ``n`` starts of one schedule, or of all that are not paused, in their order. A preview: nothing is drawn by it."""
        entries = [entry for entry in self._entries.values() if not entry.paused] if name is None else [self._entry("next_runs", name)]
        now = self._clock.time()
        found = [each for entry in entries for each in entry.schedule.next_runs(n, after=max(now, entry.cursor))]
        return tuple(sorted(found, key=lambda each: (each.start, each.schedule))[:n])

    def history(self, name: str) -> tuple[ScheduledRun, ...]:
        """What became of the last occurrences of a schedule, the oldest first; as many as it says."""
        return tuple(self._entry("history", name).past)

    def status(self) -> dict[str, Any]:
        """For JSON: each schedule, whether it is paused, how many runs go on, when it starts next, and its last run."""
        return {
            "state": self.state,
            "dry_run": self.dry_run,
            "schedules": {
                name: {
                    "schedule": entry.schedule.as_dict(),
                    "paused": entry.paused,
                    "running": len(entry.running),
                    "next": None if (upcoming := entry.next()) is None else upcoming.start,
                    "last": entry.past[-1].outcome if entry.past else None,
                }
                for name, entry in self._entries.items()
            },
        }

    def _entry(self, where: str, name: str) -> Entry:
        found = self._entries.get(name)
        if found is None:
            check = Checker(f"scheduler.{where}")
            check.problem(
                "name",
                name,
                f"one of {', '.join(self._entries) or 'the schedules, of which there are none'}",
                did_you_mean(name, self._entries),
            )
            check.finish()
            raise KeyError(name)
        return found

    # -- start and stop -------------------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin; what was due before is not run. Does nothing when it runs already.

        Raises :class:`~somaresil.errors.ConfigurationError` when experiments are not allowed here.
        """
        if self._task is not None and not self._task.done():
            return
        check = Checker("scheduler")
        self._check_permission(check)
        check.finish()
        now = self._clock.time()
        for entry in self._entries.values():
            self._begin_at(entry, now)
        if self._leader is not None:
            await self._leader.start(self.resilience, self._ring)
        self._task = asyncio.create_task(self._run(), name="somaresil-scheduler")

    async def stop(self) -> None:
        """Start nothing more, cancel what runs, and wait for its end, ten seconds at most."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        runs = [run for entry in self._entries.values() for run in entry.running]
        for entry in self._entries.values():
            self._cancel(entry, "stopped")
        if runs:
            done: asyncio.Future[Any] = asyncio.gather(*runs, return_exceptions=True)
            await self._clock.await_(done, 2.0 * _PATIENCE)
        if task is not None and self._leader is not None:
            await self._leader.stop()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def _begin_at(self, entry: Entry, now: float) -> None:
        """Where a schedule begins: only a fleet remembers whether what was due just before has been run."""
        entry.cursor = now
        if self._leader is not None and entry.schedule.missed == "run_once":
            entry.cursor = now - entry.schedule.starting_deadline

    def _check_permission(self, check: Checker) -> None:
        chaos = self.resilience.chaos
        chaos.permission().check(check, chaos.place)

    # -- the task -------------------------------------------------------------------------------------------------------------------------

    def _ring(self) -> None:
        bell = self._bell
        if bell is not None:
            bell.wake()

    async def _run(self) -> None:
        runtime = Asyncio(self._clock)
        while True:
            # Made before anything is looked at: whoever rings meanwhile is not overheard.
            self._bell = runtime.waiter()
            wait = self._look_every
            for entry in tuple(self._entries.values()):
                try:
                    await self._turn(entry)
                    if (upcoming := entry.next()) is not None and self._leads():
                        # What is due and could not be claimed is asked for again, but not at once.
                        left = upcoming.start - self._clock.time()
                        wait = min(wait, left if left > 0.0 else _AGAIN)
                except Exception as defect:  # noqa: BLE001 - one schedule never stops the others
                    self._listeners.defect(f"schedule {entry.schedule.name}", defect, self._clock.time(), "it is looked at again later")
            await self._bell.wait(wait)

    def _leads(self) -> bool:
        return self._leader is None or self._leader.leads

    async def _turn(self, entry: Entry) -> None:
        """Start what is due, and leave out what was missed."""
        now, schedule = self._clock.time(), entry.schedule
        if entry.cursor > now + _BIG_STEP:
            entry.cursor = now
        if not self._leads():
            # Whoever leads runs it. What is too old for us to run when we come to lead is not ours to speak of either.
            entry.cursor = max(entry.cursor, now - max(ON_TIME, schedule.starting_deadline) - schedule.jitter)
            return
        found, forgotten = entry.due(now)
        missed = {"paused" if entry.paused else "missed": forgotten} if self._leader is None else {}
        skipped: dict[str, Occurrence] = dict.fromkeys(missed, found[0]) if found else {}
        for occurrence in found:
            late = now - occurrence.start
            catch_up = schedule.missed == "run_once" and occurrence is found[-1] and late <= schedule.starting_deadline
            if late <= ON_TIME or catch_up:
                if not await self._settle(entry, occurrence, late):
                    return
                continue
            reason = await self._why_missed(entry, occurrence)
            if reason == "lost":
                return
            entry.settle(occurrence)
            if reason != "taken":
                missed[reason], skipped[reason] = missed.get(reason, 0) + 1, occurrence
        for reason, count in missed.items():
            if count:
                self._skip(entry, skipped[reason], reason, count)

    async def _why_missed(self, entry: Entry, occurrence: Occurrence) -> str:
        """``paused``, ``missed``, or what the leader says: somebody else may have run what we come too late for."""
        if entry.paused:
            return "paused"
        if self._leader is None or self.dry_run:
            return "missed"
        claim = await self._leader.claim(entry.schedule.name, occurrence.id, keep=self._keep(entry), exclusive=None)
        return "missed" if claim.granted else claim.reason

    def _keep(self, entry: Entry) -> float:
        return max(_KEEP, 2.0 * (entry.schedule.starting_deadline + entry.schedule.jitter))

    async def _settle(self, entry: Entry, occurrence: Occurrence, late: float) -> bool:
        """Start it, or say why not; False when that is not ours to decide any more."""
        schedule = entry.schedule
        reason = self._obstacle(entry)
        if not reason and not self.dry_run and self._leader is not None:
            exclusive = entry.lasts + _PATIENCE if schedule.concurrency == "forbid" else None
            claim = await self._leader.claim(schedule.name, occurrence.id, keep=self._keep(entry), exclusive=exclusive)
            if claim.reason == "lost":
                return False
            if claim.reason == "taken":
                entry.settle(occurrence)
                return True
            reason = claim.reason
        entry.settle(occurrence)
        if reason:
            self._skip(entry, occurrence, reason)
        elif self.dry_run:
            entry.note(ScheduledRun(schedule.name, occurrence.id, occurrence.due, "dry run", detail=f"{late:.3f} s late"))
        else:
            self._launch(entry, occurrence, late)
        return True

    def _obstacle(self, entry: Entry) -> str:
        """Why this process does not start it; empty: nothing stands in its way."""
        schedule = entry.schedule
        now = self._clock.time()
        if entry.paused:
            return "paused"
        if not schedule.allows(now):
            return "closed"
        if (
            entry.plan is not None
            and (closes := schedule.closes(now, entry.plan.duration)) is not None
            and closes < now + entry.plan.duration
        ):
            return "would not end before the window closes"
        if entry.running and (schedule.concurrency == "forbid" or len(entry.running) >= _MOST_AT_ONCE):
            return "running"
        return ""

    def _skip(self, entry: Entry, occurrence: Occurrence, reason: str, count: int = 1) -> None:
        detail = reason if count == 1 else f"{reason}, {count} of them"
        entry.note(ScheduledRun(entry.schedule.name, occurrence.id, occurrence.due, "skipped", detail=detail))
        _log.info("%s is not run: %s", occurrence.id, detail)
        if self._listeners.wants(ScheduledRunSkipped):
            self._listeners.emit(ScheduledRunSkipped(entry.schedule.name, self._clock.time(), occurrence.id, reason, count))

    # -- runs -----------------------------------------------------------------------------------------------------------------------------

    def _launch(self, entry: Entry, occurrence: Occurrence, late: float) -> None:
        before = tuple(entry.running) if entry.schedule.concurrency == "replace" else ()
        if before:
            self._cancel(entry, "replaced")
        task = asyncio.create_task(self._perform(entry, occurrence, late, before), name=f"somaresil-scheduled-{entry.schedule.name}")
        entry.running[task] = ""
        task.add_done_callback(lambda done: self._over(entry, done))

    def _over(self, entry: Entry, task: asyncio.Task[None]) -> None:
        entry.running.pop(task, None)
        if not task.cancelled() and (defect := task.exception()) is not None:
            self._listeners.defect(f"run of schedule {entry.schedule.name}", defect, self._clock.time(), "the others go on")

    def _cancel(self, entry: Entry, reason: str) -> None:
        for task, said in tuple(entry.running.items()):
            if not said:
                entry.running[task] = reason
                task.cancel()

    async def _perform(self, entry: Entry, occurrence: Occurrence, late: float, before: tuple[asyncio.Task[None], ...]) -> None:
        """One run, from its beginning to its end, which is told whatever it is."""
        clock, schedule = self._clock, entry.schedule
        run = ScheduledRun(schedule.name, occurrence.id, occurrence.due, "running", clock.time())
        begun = clock.monotonic()
        entry.note(run)
        try:
            if before:
                ended: asyncio.Future[Any] = asyncio.gather(*before, return_exceptions=True)
                if not await clock.await_(ended, 2.0 * _PATIENCE):
                    run = replace(run, outcome="failed", detail="the run that it replaces does not end")
                    return
            if self._listeners.wants(ScheduledRunStarted):
                self._listeners.emit(ScheduledRunStarted(schedule.name, clock.time(), occurrence.id, late))
            outcome, detail = await self._job(entry)
            run = replace(run, outcome=outcome, detail=detail)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            run = replace(run, outcome="cancelled", detail=(entry.running.get(task, "") if task is not None else "") or "cancelled")
        finally:
            run = replace(run, duration=clock.monotonic() - begun)
            entry.note(run)
            if self._listeners.wants(ScheduledRunEnded):
                # Of an error its type alone: events go to logs, and what it says may be anything.
                error = run.detail.partition(":")[0] if run.outcome != "done" else ""
                self._listeners.emit(ScheduledRunEnded(schedule.name, clock.time(), occurrence.id, run.outcome, error, run.duration or 0.0))
            if self._leader is not None and schedule.concurrency == "forbid":
                await self._leader.done(schedule.name, occurrence.id)

    async def _job(self, entry: Entry) -> tuple[str, str]:
        """Do it within its time: how it ended, and why."""
        check = Checker("scheduler")
        self._check_permission(check)
        if check.problems:
            _log.warning("a run of schedule %s is refused: %s", entry.schedule.name, ConfigurationError(check.problems))
            return "refused", f"ConfigurationError: {check.problems[0]}"
        clock, schedule = self._clock, entry.schedule
        limit, why = entry.lasts, f"longer than {schedule.longest:g} s"
        now = clock.time()
        if (closes := schedule.closes(now, limit)) is not None and entry.plan is None:
            limit, why = closes - now, "the window has closed"
        job = asyncio.create_task(_awaited(entry.job))
        try:
            over = await clock.await_(job, limit)
        finally:
            if not job.done():
                job.cancel()
                if not await clock.await_(job, _PATIENCE):
                    stuck = TimeoutError(f"a run of {schedule.name} does not end {_PATIENCE:g} s after it was cancelled")
                    self._listeners.defect(f"schedule {schedule.name}", stuck, clock.time(), "it is left to itself")
                    job.add_done_callback(_retrieve)
        if not over:
            return "cancelled", why
        if job.cancelled():
            return "cancelled", "by itself"
        error = job.exception()
        if error is None:
            return "done", ""
        if isinstance(error, _StoppedError):
            return "cancelled", str(error)
        if isinstance(error, ConfigurationError):
            _log.warning("a run of schedule %s is refused: %s", schedule.name, error)
            return "refused", f"ConfigurationError: {error.problems[0]}"
        _log.error("a run of schedule %s failed", schedule.name, exc_info=error)
        return "failed", describe(error)

    async def _run_plan(self, plan: ChaosPlan, errors: ErrorMakers | None) -> None:
        run = await self.resilience.chaos.run_plan(plan, errors=errors)
        reasons = {each.end_reason for each in run.runs} & {"stop_all", "stopped", "failed"}
        if reasons:
            raise _StoppedError(", ".join(sorted(reasons)))


class _StoppedError(Exception):
    """Somebody has ended the plan before its time."""


async def _awaited(job: Callable[[], Awaitable[Any]]) -> None:
    # What it gives is not kept: a report belongs to whoever made it.
    await job()


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more, and asyncio would complain of an exception that nobody has looked at."""
    if not task.cancelled():
        task.exception()
