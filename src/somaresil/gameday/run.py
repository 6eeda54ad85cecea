"""One experiment on its way: through its phases, looking at the service all the time, to its report."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from somaresil.chaos.config import PROCESS_TARGETS
from somaresil.errors import ConfigurationError, describe
from somaresil.gameday.figures import Figures, Log, Tally
from somaresil.gameday.groups import Judgement, compare
from somaresil.gameday.probes import measure
from somaresil.gameday.report import (
    Amplification,
    Budget,
    Check,
    ExperimentReport,
    FaultReport,
    IncidentReport,
    PhaseReport,
    Point,
    Recovery,
    Status,
)
from somaresil.model.selector import matches
from somaresil.runtime import Asyncio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from somaresil.gameday.experiment import Experiment
    from somaresil.gameday.groups import Comparison
    from somaresil.gameday.probes import Functions, Probe, Reading
    from somaresil.gameday.target import FaultStatus, Target
    from somaresil.runtime import Waiter

__all__ = ["ExperimentPlay", "Interrupted", "Pauses", "watched"]

_MOST_POINTS: Final = 2_000
"""Points of a plot; a longer experiment keeps every second one, and so on."""
_LEAST: Final = 1e-9
"""Seconds that are no time any more: what is left of a phase after sums of floats."""


class Interrupted(Exception):
    """The game day is to end now."""


class Pauses:
    """How a game day waits: until the time is over, or somebody ends it."""

    def __init__(self, target: Target) -> None:
        """On the clock of the target."""
        self._runtime = Asyncio(target.clock)
        self._waiter: Waiter | None = None
        self.why: str | None = None
        """Why it was ended; None: it goes on."""

    def interrupt(self, why: str) -> None:
        """End it; from any thread, and from signal handlers. The first reason counts."""
        self.why = self.why or why
        waiter = self._waiter
        if waiter is not None:
            waiter.wake()

    def look(self) -> None:
        """Raise :class:`Interrupted` when somebody has ended it."""
        if self.why is not None:
            raise Interrupted(self.why)

    async def wait(self, seconds: float) -> None:
        """Wait; raises :class:`Interrupted` as soon as somebody ends it."""
        waiter = self._waiter = self._runtime.waiter()
        self.look()
        try:
            await waiter.wait(seconds)
        finally:
            self._waiter = None
        self.look()


def watched(experiment: Experiment) -> tuple[str, ...]:
    """Guards and routes whose calls tell of the faults: those that they are aimed at, or all guards for faults of the whole process."""
    aimed = tuple(target for target in experiment.targets if not target.startswith(PROCESS_TARGETS))
    return aimed or ("*",)


def _tally(counted: Figures, targets: Iterable[str]) -> Tally:
    """All that match any of the targets, each once."""
    targets = tuple(targets)
    total = Tally()
    for prefix, tallies in (("", counted.guards), ("http:", counted.routes)):
        for name, tally in tallies.items():
            if any(target.startswith("http:") == bool(prefix) and matches(target, prefix + name) for target in targets):
                total = total.plus(tally)
    return total


class ExperimentPlay:
    """The state of one experiment while it runs."""

    def __init__(self, experiment: Experiment, target: Target, functions: Functions, pauses: Pauses, tell: Callable[[str], object]) -> None:
        """Nothing is done yet. ``tell`` is told what happens, in words."""
        self.experiment = experiment
        self._target = target
        self._functions = functions
        self._pauses = pauses
        self._tell = tell
        self._targets = watched(experiment)
        windows = [probe.window for _, probe in experiment.named_probes("")]
        self._log = Log(max([60.0, *windows]))
        self._first = Figures()
        self._phases: list[PhaseReport] = []
        self._marks: dict[str, tuple[Figures, Figures]] = {}
        self._checks: list[Check] = []
        self._points: list[Point] = []
        self._stride = self._skipped = 1
        self._point_from = Figures()
        self._statuses: tuple[FaultStatus, ...] = ()
        self._started = False
        self._halted_at: float | None = None
        self._recovered_after: float | None = None
        self._comparison: Comparison | None = None
        self._aborted: str | None = None

    async def run(self) -> ExperimentReport:
        """Go through the phases. Raises nothing but cancellation; whatever happens, no fault is left."""
        status, reasons = Status.FAILED, tuple[str, ...]()
        try:
            try:
                status, reasons = await self._play()
            except Interrupted as interruption:
                self._target.halt()
                status, reasons = Status.INTERRUPTED, (str(interruption),)
                await self._end_faults()
            except ConfigurationError as wrong:
                status, reasons = Status.FAILED, tuple(str(problem) for problem in wrong.problems)
            except Exception as broken:  # noqa: BLE001 - a target that cannot be reached, or a defect: the report must tell of it
                status, reasons = Status.FAILED, (describe(broken),)
        finally:
            self._target.halt()
        return self._report(status, reasons)

    # -- phases -----------------------------------------------------------------------------------------------------------------------

    async def _play(self) -> tuple[Status, tuple[str, ...]]:
        experiment = self.experiment
        await self._target.check(experiment.plan, experiment.groups)
        self._first = self._point_from = await self._read()
        await self._phase("baseline", experiment.baseline)
        before = await self._look("before", "baseline")
        if not before.holds:
            return Status.NOT_STARTED, tuple(_wrong(before, "before anything was done"))
        await self._target.start(experiment.plan, experiment.groups, experiment.name)
        self._started = True
        try:
            await self._phase("inject", experiment.inject_seconds, self._abort)
            during = await self._look("during", "inject")
        finally:
            await self._end_faults()
        counted = self._between(*self._marks["inject"])
        if experiment.groups is not None:
            self._comparison = compare(experiment.groups, self._log.latest, self._targets)
        if experiment.observe:
            await self._phase("observe", experiment.observe)
        await self._phase("recover", experiment.recover - experiment.observe, self._recovered, at_least_once=True)
        after = self._checks[-1]
        return self._verdict(during, after, counted)

    async def _phase(
        self,
        name: str,
        seconds: float,
        ends: Callable[[], Awaitable[bool]] | None = None,
        *,
        at_least_once: bool = False,
    ) -> None:
        """Watch for so long, or until ``ends()`` says so at one of the looks."""
        self._tell(f"{self.experiment.name}: {name}, {seconds:g} s")
        begin = self._log.latest
        over = begin.at + seconds
        try:
            if at_least_once and ends is not None and await ends():
                return
            while (left := over - self._log.latest.at) > _LEAST:
                await self._pauses.wait(min(self.experiment.every, left))
                await self._read()
                if ends is not None and await ends():
                    return
        finally:
            self._mark(name, begin)

    def _mark(self, name: str, begin: Figures) -> None:
        latest = self._log.latest
        self._marks[name] = (begin, latest)
        counted = self._between(begin, latest)
        self._phases.append(
            PhaseReport(
                name=name,
                seconds=round(latest.at - begin.at, 6),
                calls=counted.answered,
                good=counted.succeeded,
                touched=counted.touched,
                attempts=counted.attempts,
                p50=counted.quantile(0.5),
                p95=counted.quantile(0.95),
            )
        )

    async def _end_faults(self) -> None:
        """Stop what runs, and keep how it stands. The leases of a plan that has run to its end are over already."""
        if not self._started or self._halted_at is not None:
            return
        await self._target.stop()
        self._statuses = await self._target.status()
        await self._read()
        self._halted_at = self._log.latest.at

    async def _read(self) -> Figures:
        figures = await self._target.read()
        self._log.add(figures)
        self._plot(figures)
        return figures

    def _plot(self, figures: Figures) -> None:
        if figures.at <= self._point_from.at or figures is self._first:
            return
        if self._skipped < self._stride:
            self._skipped += 1
            return
        self._skipped = 1
        counted = self._between(self._point_from, figures)
        self._points.append(
            Point(round(figures.at - self._first.at, 6), counted.answered, counted.ratio, counted.quantile(0.95), counted.touched)
        )
        self._point_from = figures
        if len(self._points) >= _MOST_POINTS:
            self._points = self._points[1::2]
            self._stride *= 2

    # -- looking ----------------------------------------------------------------------------------------------------------------------

    async def _look(self, moment: str, phase: str) -> Check:
        """The hypothesis over a whole phase."""
        begin, end = self._marks[phase]
        check = Check(moment, await self._measured(self.experiment.probes(moment), lambda _: end.less(begin)))
        self._checks.append(check)
        return check

    async def _measured(self, probes: Iterable[Probe], counted: Callable[[Probe], Figures]) -> tuple[Reading, ...]:
        return tuple([await measure(probe, counted(probe), self._functions) for probe in probes])

    def _lately(self, probe: Probe, since: float) -> Figures:
        """What was counted in the window of a probe, but not before ``since``."""
        return self._log.since(max(since, self._log.latest.at - probe.window))

    async def _abort(self) -> bool:
        """Whether a condition asks for the end of the faults. A probe that finds nothing to measure does not; one that raises does."""
        begin = self._started_at
        for probe in self.experiment.abort:
            reading = await measure(probe, self._lately(probe, begin), self._functions)
            if not reading.holds and (not reading.unknown or reading.why.startswith("it raised")):
                self._target.halt()
                self._aborted = f"abort condition {reading.probe}: {reading.why}"
                self._tell(f"{self.experiment.name}: {self._aborted}; every fault was ended")
                return True
        return False

    @property
    def _started_at(self) -> float:
        return self._marks["baseline"][1].at

    async def _recovered(self) -> bool:
        """Whether the service is as it was: the hypothesis holds over what was counted since the faults ended, and circuits are closed."""
        halted_at = self._halted_at or 0.0
        readings = await self._measured(self.experiment.probes("after"), lambda probe: self._lately(probe, halted_at))
        check = Check("after", readings)
        if self._checks[-1].moment == "after":
            self._checks.pop()
        self._checks.append(check)
        if check.holds and all(incident.seconds is not None for incident in self._incidents()):
            self._recovered_after = round(self._log.latest.at - halted_at, 6)
            return True
        return False

    # -- judging ----------------------------------------------------------------------------------------------------------------------

    def _verdict(self, during: Check, after: Check, counted: Tally) -> tuple[Status, tuple[str, ...]]:
        wrong = [*_wrong(during, "while the faults were on")]
        if self._recovered_after is None:
            limit = f"{self.experiment.recover:g} s after the faults had ended"
            wrong += _wrong(after, limit)
            wrong += [f"{outage.guard} was not closed again {limit}" for outage in self._incidents() if outage.seconds is None]
        wrong += [
            f"incident {outage.id} did not end by recovery" for outage in self._incidents() if outage.seconds and not outage.recovered
        ]
        comparison = self._comparison
        if comparison is not None and comparison.judgement is Judgement.DEVIATED:
            wrong.append(f"experiment against control: {comparison.why}")
        if self._aborted is not None:
            return Status.ABORTED, (self._aborted, *wrong)
        if wrong:
            return Status.DEVIATED, tuple(wrong)
        unproven = []
        if not any(status.injected for status in self._statuses):
            unproven.append("no fault has struck anything, so nothing was shown")
        elif not counted.answered and any(not target.startswith(PROCESS_TARGETS) for target in self.experiment.targets):
            unproven.append("no call was made while the faults were on")
        if comparison is not None and comparison.judgement is Judgement.UNPROVEN:
            unproven.append(f"experiment against control: {comparison.why}")
        return (Status.UNPROVEN, tuple(unproven)) if unproven else (Status.HELD, ())

    def _incidents(self) -> tuple[IncidentReport, ...]:
        """Those that began with the faults or later."""
        if not self._started:
            return ()
        before = {outage.id for outage in self._marks["baseline"][1].outages}
        return tuple(IncidentReport(**asdict(outage)) for outage in self._log.latest.outages if outage.id not in before)

    def _between(self, begin: Figures, end: Figures) -> Tally:
        return _tally(end.less(begin), self._targets)

    def _report(self, status: Status, reasons: tuple[str, ...]) -> ExperimentReport:
        experiment = self.experiment
        latest = self._log.latest if self._log.readings else self._first
        faults: tuple[FaultReport, ...] = ()
        touched = absorbed = 0
        if self._started:
            since_start = self._between(self._marks["baseline"][1], latest)
            touched, absorbed = since_start.touched, since_start.touched_good
            pairs = zip(experiment.faults, self._statuses, strict=False)
            faults = tuple(FaultReport(window.as_dict(), one.injected, one.end_reason) for window, one in pairs)
        return ExperimentReport(
            name=experiment.name,
            status=status,
            reasons=reasons,
            seconds=round(latest.at - self._first.at, 6),
            phases=tuple(self._phases),
            faults=faults,
            checks=tuple(self._checks),
            touched=touched,
            absorbed=absorbed,
            amplifications=tuple(self._amplifications()),
            incidents=self._incidents(),
            recovered_after=self._recovered_after,
            recovery=self._recovery(),
            budgets=tuple(self._budgets(latest)),
            groups=self._comparison,
            points=tuple(self._points),
        )

    def _amplifications(self) -> Iterable[Amplification]:
        if "inject" not in self._marks:
            return
        baseline, during = (end.less(begin) for begin, end in (self._marks["baseline"], self._marks["inject"]))
        for name, tally in during.guards.items():
            if any(matches(target, name) for target in self._targets) and (tally.attempts or tally.answered):
                before = baseline.guards.get(name, Tally())
                yield Amplification(name, before.amplification, tally.amplification)

    def _recovery(self) -> Recovery:
        struck = [window for window, status in zip(self.experiment.faults, self._statuses, strict=False) if status.injected]
        if self._recovered_after is None:
            return Recovery(0, len(struck))
        lost = [incident.guard for incident in self._incidents() if incident.seconds is None or not incident.recovered]
        return Recovery(sum(not any(matches(window.target, guard) for guard in lost) for window in struck), len(struck))

    def _budgets(self, latest: Figures) -> Iterable[Budget]:
        counted = latest.less(self._first)
        for name, now in latest.objectives.items():
            then = self._first.objectives.get(name)
            events = counted.objectives[name]
            before = None if then is None else then.remaining
            # A budget of which nothing was used or known is whole as soon as the first event says so.
            yield Budget(name, now.target, events.good, events.bad, before, now.remaining, counted.burn_rate(name))


def _wrong(check: Check, when: str) -> Iterable[str]:
    for reading in check.readings:
        if not reading.holds:
            yield f"{reading.probe} did not hold {when}: {reading.why}"
