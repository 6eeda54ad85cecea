"""The service that a game day is played with: in this process, or behind whatever speaks the same few words.

A target starts faults, stops them, and says what was counted. Everything else (phases, hypotheses, verdicts, reports) is done by whoever
plays, from plain data, so a service in another process needs a client with these methods and nothing more.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from somaresil.chance import Chance
from somaresil.chaos.split import Side, Split
from somaresil.gameday.figures import Figures, Objective, Outage, Tally
from somaresil.model.histogram import DEFAULT_BOUNDS as _BOUNDS
from somaresil.model.histogram import bucket_of
from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.findings import Grade
    from somaresil.chaos.grading import Grader
    from somaresil.chaos.plan import ChaosPlan, Corrupters, ErrorMakers, PlanRun
    from somaresil.events import CallEnded
    from somaresil.gameday.groups import Groups
    from somaresil.recorder import Counts
    from somaresil.resilience import Resilience
    from somaresil.typing import Clock

__all__ = ["FaultStatus", "InProcess", "Target"]


@dataclass(frozen=True, slots=True)
class FaultStatus:
    """How one fault of the plan stands, in the order of its windows."""

    injected: int
    live: bool
    end_reason: str | None
    """As :attr:`ExperimentRun.end_reason`; None while it runs or has not begun."""


class Target(Protocol):
    """What a game day needs of a service. All but :meth:`halt` are called by one task, one after the other.

    A target in another process raises ``OSError`` (or :class:`TimeoutError`) from these when it cannot be reached.
    """

    @property
    def name(self) -> str:
        """Of the service."""
        ...

    @property
    def clock(self) -> Clock:
        """By which the phases are timed."""
        ...

    @property
    def seed(self) -> str:
        """By which groups are drawn."""
        ...

    async def open(self) -> None:
        """Begin to count."""
        ...

    async def close(self) -> None:
        """Count no more. No fault is left."""
        ...

    async def check(self, plan: ChaosPlan, groups: Groups | None) -> None:
        """Raise :class:`~somaresil.errors.ConfigurationError` with every reason why :meth:`start` would be refused; nothing is armed."""
        ...

    async def start(self, plan: ChaosPlan, groups: Groups | None, name: str) -> None:
        """Arm the windows of ``plan``: leases that end by themselves. ``name`` is that of the experiment; groups are drawn by it.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, and then nothing is armed.
        """
        ...

    async def stop(self) -> None:
        """End every fault of the plan that was started, now."""
        ...

    def halt(self) -> None:
        """The same from anywhere, signal handlers among them: at once in this process, as soon as possible in another. Never raises."""
        ...

    async def status(self) -> tuple[FaultStatus, ...]:
        """How the windows of the plan that was started last stand."""
        ...

    async def read(self) -> Figures:
        """Everything counted so far."""
        ...


class InProcess:
    """The service of this process."""

    def __init__(self, resilience: Resilience, *, errors: ErrorMakers | None = None, corrupters: Corrupters | None = None) -> None:
        """Nothing is counted before :meth:`open`.

        ``errors`` adds to the errors that plans may name, ``corrupters`` are the functions that they may name for corrupted results.
        """
        self._resilience = resilience
        self._errors = errors
        self._corrupters = corrupters
        self._lock = threading.RLock()
        self._end: Callable[[], None] | None = None
        self._grader: Grader | None = None
        self._run: PlanRun | None = None
        self._split: Split | None = None
        self._attempts: dict[str, int] = {}
        self._sides: dict[Side, dict[str, _Counter]] = {}
        self._outside = 0

    @property
    def name(self) -> str:
        """Of the service."""
        return self._resilience.service

    @property
    def clock(self) -> Clock:
        """That of the service."""
        return self._resilience.clock

    @property
    def seed(self) -> str:
        """That of the service."""
        return self._resilience.chance.seed

    async def open(self) -> None:
        """Watch calls and attempts from now on; costs the quiet path, until :meth:`close`."""
        if self._end is None:
            self._end = self._resilience.observe(self._ended, attempts=self._attempted)
            self._grader = self._resilience.chaos.grade()
            self._grader.__enter__()

    async def close(self) -> None:
        """End what runs, and watch no more."""
        self.halt()
        end, self._end = self._end, None
        if end is not None:
            end()
            if self._grader is not None:
                self._grader.__exit__(None, None, None)

    @property
    def grades(self) -> tuple[Grade, ...]:
        """What was found about the code under test since :meth:`open`, the worst first."""
        return () if self._grader is None else self._grader.grades

    async def check(self, plan: ChaosPlan, groups: Groups | None) -> None:
        """Ask the engine."""
        self._resilience.chaos.check_plan(plan, errors=self._errors, corrupters=self._corrupters, split=groups is not None)

    async def start(self, plan: ChaosPlan, groups: Groups | None, name: str) -> None:
        """Arm it in this process."""
        split = None
        if groups is not None:
            split = Split(name, groups.share, groups.by, Chance(self.seed), self._request_ended)
        with self._lock:
            self._sides, self._outside = {Side.EXPERIMENT: {}, Side.CONTROL: {}}, 0
        self._run = self._resilience.chaos.arm_plan(plan, errors=self._errors, corrupters=self._corrupters, split=split)
        self._split = split

    async def stop(self) -> None:
        """See :meth:`halt`."""
        self.halt()

    def halt(self) -> None:
        """End every window now, from any thread."""
        run = self._run
        # Asked first: a lease that is over has ended by itself, and the report says so.
        if run is not None and not run.over:
            run.stop()

    async def status(self) -> tuple[FaultStatus, ...]:
        """As the engine has it."""
        run = self._run
        return () if run is None else tuple(FaultStatus(each.injected, each.live, each.end_reason) for each in run.runs)

    async def read(self) -> Figures:
        """Read every recorder once."""
        resilience = self._resilience
        with self._lock:
            attempts = dict(self._attempts)
            sides = {side: {name: counter.tally() for name, counter in counters.items()} for side, counters in self._sides.items()}
            outside = self._outside
        guards = {name: _tally(guard.recorder.counts(), attempts.get(name, 0)) for name, guard in resilience.guards.items()}
        routes = {name: _tally(counts) for name, counts in resilience.routes.counts().items()}
        objectives = {}
        for name in resilience.slos.names:
            good, bad = resilience.slos.series(name).totals()
            left = resilience.slos.error_budget(name).remaining_share
            objectives[name] = Objective(resilience.slos[name].target_percentage, good, bad, left)
        incidents = resilience.slos.incidents
        # Those that last first: one that ends between the two looks is then seen twice, not never.
        known = {incident.id: incident for incident in (*incidents.running, *incidents.ended)}
        outages = tuple(
            Outage(
                each.id,
                each.guard,
                each.duration,
                each.recovered,
                each.injected,
                each.experiment,
                each.detected_after,
                each.mitigated_after,
            )
            for each in known.values()
            if each.guard is not None
        )
        return Figures(
            resilience.clock.monotonic(),
            guards,
            routes,
            objectives,
            outages,
            sides.get(Side.EXPERIMENT, {}),
            sides.get(Side.CONTROL, {}),
            outside,
        )

    # -- told by calls and requests ---------------------------------------------------------------------------------------------------

    def _attempted(self, guard: str) -> None:
        with self._lock:
            self._attempts[guard] = self._attempts.get(guard, 0) + 1

    def _ended(self, event: CallEnded) -> None:
        split = self._split
        if split is not None and self._resilience.chaos.split is split:
            self._count(event.guard, event.outcome, event.elapsed, event.injected, split.side)

    def _request_ended(self, name: str, outcome: str, elapsed: float, injected: bool, side: Side) -> None:  # noqa: FBT001 - as Split tells it
        self._count(name, outcome, elapsed, injected, side)

    def _count(self, name: str, outcome: str, elapsed: float, injected: bool, side: Side) -> None:  # noqa: FBT001 - passed on
        with self._lock:
            if side is Side.OUTSIDE:
                self._outside += 1
                return
            counter = self._sides[side].get(name)
            if counter is None:
                counter = self._sides[side][name] = _Counter(self._bounds(name))
            counter.add(outcome, elapsed, injected)

    def _bounds(self, name: str) -> tuple[float, ...]:
        guard = self._resilience.find(name)
        return _BOUNDS if guard is None else guard.recorder.bounds


class _Counter:
    """Counts of one guard or route in one group. Written and read under the lock of the target."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._good = [0] * (len(bounds) + 1)
        self._bad = [0] * (len(bounds) + 1)
        self._plain = {Outcome.REJECTED: 0, Outcome.ABANDONED: 0, Outcome.IGNORED: 0}
        self._touched = self._touched_good = 0

    def add(self, outcome: str, elapsed: float, injected: bool) -> None:  # noqa: FBT001 - passed on
        bucket = bucket_of(self._bounds, elapsed)
        if outcome == Outcome.GOOD:
            self._good[bucket] += 1
        elif outcome == Outcome.BAD:
            self._bad[bucket] += 1
        else:
            self._plain[Outcome(outcome)] += 1
        self._touched += injected
        self._touched_good += injected and outcome == Outcome.GOOD

    def tally(self) -> Tally:
        return Tally(
            self._bounds,
            tuple(self._good),
            tuple(self._bad),
            self._plain[Outcome.REJECTED],
            self._plain[Outcome.ABANDONED],
            self._plain[Outcome.IGNORED],
            self._touched,
            self._touched_good,
        )


def _tally(counts: Counts, attempts: int = 0) -> Tally:
    return Tally(
        counts.bounds,
        tuple(counts.histogram(Outcome.GOOD)),
        tuple(counts.histogram(Outcome.BAD)),
        counts.total(Outcome.REJECTED),
        counts.total(Outcome.ABANDONED),
        counts.total(Outcome.IGNORED),
        counts.total(injected=True),
        counts.total(Outcome.GOOD, injected=True),
        attempts,
    )
