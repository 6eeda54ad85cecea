"""Systematic exploration: every fault at every place that a run has really reached, singly and then in pairs.

The method is Filibuster's (Meiklejohn et al., "Service-Level Fault Injection Testing", SoCC 2021), in one process: a call is known by its
path through the guards and its number along that path, which is the same in every run; faults are tried where calls were seen; what a run
with a fault reaches anew is tried next. Findings are minimal, because smaller sets are tried first and no set that contains a finding.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from somaresil.chaos.plan import KINDS, ChaosPlan, FaultWindow
from somaresil.chaos.vocabulary import FAULTS
from somaresil.config import Checker
from somaresil.events import CallEnded
from somaresil.model.selector import matches
from somaresil.testing.faults import can_have
from somaresil.testing.simulation import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from somaresil.guard import Guard
    from somaresil.testing.simulation import Simulation

__all__ = ["Counterexample", "Exploration", "ExplorationFailed", "Point", "explore"]


class Point(NamedTuple):
    """A place at which a fault can be injected: the ``number``-th call (or attempt) along a path of guards."""

    path: str
    number: int

    @property
    def guard(self) -> str:
        """The guard at its end."""
        return self.path.rpartition(" > ")[2]

    def __str__(self) -> str:
        """``agent.turn > llm.invoke #2``."""
        return f"{self.path} #{self.number}"


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A smallest set of faults that breaks something."""

    faults: tuple[tuple[Point, str], ...]
    found: str
    plan: ChaosPlan

    def __str__(self) -> str:
        """What was injected where, and what came of it."""
        faults = " and ".join(f"{kind} at {point}" for point, kind in self.faults) or "no fault at all"
        return f"{faults}: {self.found}"


@dataclass(frozen=True, slots=True)
class Exploration:
    """What :func:`explore` has found."""

    runs: int
    pruned: int
    """Sets of faults that were not run, because an equal run had shown that nothing new can come of them."""
    points: tuple[Point, ...]
    """Every place that was reached, in any run."""
    faulted: tuple[Point, ...]
    """Those at which a fault was made."""
    guards: tuple[str, ...]
    counterexamples: tuple[Counterexample, ...]
    complete: bool
    """False: it ended at ``max_runs``, and what was not tried is not known."""

    @property
    def never_faulted(self) -> tuple[str, ...]:
        """Guards at which no fault was ever made: nothing is known about how their failure is borne."""
        return tuple(sorted(set(self.guards) - {point.guard for point in self.faulted}))

    @property
    def coverage(self) -> float:
        """Share of the places reached at which a fault was made; 0 when none was reached."""
        return len(self.faulted) / len(self.points) if self.points else 0.0

    @property
    def empty(self) -> str | None:
        """Why nothing was shown; None: something was."""
        if not self.points:
            return "no call of a guard that may be faulted was reached, so nothing was shown"
        if not self.faulted and not self.counterexamples:
            return "no fault of these kinds has struck anywhere, so nothing was shown"
        return None

    def report(self) -> str:
        """For people."""
        lines = [
            f"explored {self.runs} runs ({self.pruned} more were equal to one of them){'' if self.complete else ', and was stopped there'}",
            f"  injection points: {len(self.faulted)} of {len(self.points)} faulted ({self.coverage:.0%})",
            f"  guards never faulted: {', '.join(self.never_faulted) or 'none'}",
            f"  counterexamples: {len(self.counterexamples) or 'none'}",
        ]
        for number, example in enumerate(self.counterexamples, 1):
            lines += [f"    {number}. {example}", f"       {example.plan!r}", f"       {example.plan.to_json()}"]
        return "\n".join(lines)

    def check(self, *, fail_under: float | None = None) -> Exploration:
        """Raise :class:`ExplorationFailed` when there is a counterexample, or less than this share of the places was faulted.

        Also when no place was reached, or no fault struck: what has shown nothing is not good.
        """
        check = Checker("Exploration.check")
        if fail_under is not None:
            check.ratio("fail_under", fail_under)
        check.finish()
        if self.counterexamples or self.empty or not self.complete or (fail_under is not None and self.coverage < fail_under):
            raise ExplorationFailed(self, fail_under)
        return self


class ExplorationFailed(AssertionError):
    """Some set of faults breaks something, or too little was tried."""

    def __init__(self, exploration: Exploration, fail_under: float | None) -> None:
        """Tell all of it."""
        super().__init__(exploration, fail_under)
        self.exploration = exploration
        self.fail_under = fail_under

    def __str__(self) -> str:
        """The report, and what was asked of it."""
        text = self.exploration.report()
        if self.exploration.empty:
            text += f"\n  {self.exploration.empty}"
        if self.fail_under is not None and self.exploration.coverage < self.fail_under:
            text += f"\n  less than the {self.fail_under:.0%} asked for was faulted"
        return text if self.exploration.complete else f"{text}\n  not complete: raise max_runs or lower max_faults"


def explore(
    test: Scenario | Callable[..., Any],
    *,
    max_faults: int = 2,
    kinds: Sequence[str] = ("error", "lost_reply"),
    delay: float = 30.0,
    error: str | None = None,
    after_items: int = 1,
    horizon: float = 900.0,
    guards: str = "*",
    prune: bool = True,
    max_runs: int = 2_000,
) -> Exploration:
    """Run ``test`` with every set of up to ``max_faults`` faults, at the calls that its runs reach.

    ``test`` is a :class:`Scenario`, whose invariants must hold, or a function of a :class:`World` that raises when something is wrong, and
    that has to end within ``horizon`` seconds. A scenario that ends without faults has to end with them too.
    ``delay`` is for the kinds that need one, ``error`` the name of the error to raise, ``after_items`` for streams; ``guards`` is a pattern
    of those to be faulted. It must behave alike in equal runs: no draw of its own, no wall clock, no order of a set.

    With ``prune`` a set is not built upon when its run was equal to that of the set without its last fault: the same calls, the same ends,
    the same deeds, so whatever is added does the same. (Filibuster's dynamic reduction.)

    Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("explore")
    check.count("max_faults", max_faults, maximum=5)
    check.count("max_runs", max_runs, maximum=1_000_000)
    check.pattern("guards", guards)
    if isinstance(kinds, str) or not tuple(kinds):
        check.problem("kinds", kinds, f"a list of {' | '.join(KINDS)}", "a list also for a single one")
    else:
        for kind in kinds:
            check.one_of("kinds", kind, KINDS)
    check.finish()
    subject = test if isinstance(test, Scenario) else Scenario(test, horizon=horizon)
    return _Explorer(subject, kinds, delay, error, after_items, guards, prune, max_runs, ends=subject is not test).explore(max_faults)


_Faults = frozenset[tuple[Point, str]]


class _Explorer:
    def __init__(
        self,
        subject: Scenario,
        kinds: Sequence[str],
        delay: float,
        error: str | None,
        after_items: int,
        guards: str,
        prune: bool,  # noqa: FBT001 - one caller, in its own order
        max_runs: int,
        *,
        ends: bool,
    ) -> None:
        self._subject = subject
        self._ends = ends
        """Whether it has to end before the horizon."""
        self._kinds = tuple(map(str, kinds))
        given = {"delay": delay, "error": error, "after_items": after_items, "items_per_second": 1.0}
        self._options = {kind: _options_of(kind, given) for kind in self._kinds}
        self._guards = guards
        self._prune = prune
        self._max_runs = max_runs
        self._runs = self._pruned = 0
        self._points: dict[Point, None] = {}
        self._faulted: dict[Point, None] = {}
        self._known: dict[str, Guard] = {}
        self._found: list[Counterexample] = []
        self._broken: list[_Faults] = []

    def explore(self, max_faults: int) -> Exploration:
        """Breadth first: all single faults before any pair."""
        base, traces = self._run(frozenset())
        self._ends = self._ends or (base is not None and not base.cut)
        level: list[tuple[_Faults, tuple[Point, ...], object]] = [] if base is None else [(frozenset(), *traces)]
        done: set[_Faults] = {frozenset()}
        for _ in range(max_faults):
            following = []
            for faults, reached, before in level:
                for larger in self._larger(faults, reached):
                    if larger in done:
                        continue
                    done.add(larger)
                    if any(smaller <= larger for smaller in self._broken):
                        continue
                    if self._runs >= self._max_runs:
                        return self._result(complete=False)
                    simulation, (points, signature) = self._run(larger)
                    if simulation is None:
                        continue
                    if self._prune and signature == before:
                        self._pruned += sum(1 for _ in self._larger(larger, points))
                        continue
                    following.append((larger, points, signature))
            level = following
        return self._result(complete=True)

    def _larger(self, faults: _Faults, reached: tuple[Point, ...]) -> list[_Faults]:
        """One fault more, at a call that came after the last one that was faulted: other orders give the same sets."""
        taken = {point for point, _ in faults}
        last = max((index for index, point in enumerate(reached) if point in taken), default=-1)
        return [
            faults | {(point, kind)}
            for point in reached[last + 1 :]
            for kind in self._kinds
            if (guard := self._known.get(point.guard)) is None or can_have(guard, kind)
        ]

    def _run(self, faults: _Faults) -> tuple[Simulation | None, tuple[tuple[Point, ...], object]]:
        """Run once. None in place of the simulation: it broke something, and nothing is to be built upon it."""
        numbers: Counter[str] = Counter()
        reached: list[Point] = []

        def seen(path: str) -> None:
            numbers[path] += 1
            reached.append(Point(path, numbers[path]))

        plan = self._plan(faults)
        simulation = self._subject.run(plan, seen=seen)
        self._runs += 1
        self._known.update(simulation.world.resilience.guards)
        aimed = tuple(point for point in reached if matches(self._guards, point.guard))
        self._points.update(dict.fromkeys(aimed))
        # A fault that did not strike (an answer that never came cannot be lost) has shown nothing.
        for (point, _), run in zip(sorted(faults), simulation.runs, strict=True):
            if run.injected:
                self._faulted[point] = None
        found = _wrong(simulation, ends=self._ends)
        if found is not None:
            self._broken.append(faults)
            self._found.append(Counterexample(tuple(sorted(faults)), found, replace(plan, scenario=self._subject.reference)))
            return None, ((), None)
        return simulation, (aimed, _signature(simulation, reached))

    def _plan(self, faults: _Faults) -> ChaosPlan:
        duration = self._subject.horizon
        return ChaosPlan(
            tuple(
                FaultWindow(point.guard, kind, 0, duration, calls=(point.number,), path=point.path, **self._options[kind])
                for point, kind in sorted(faults)
            )
        )

    def _result(self, *, complete: bool) -> Exploration:
        return Exploration(
            runs=self._runs,
            pruned=self._pruned,
            points=tuple(self._points),
            faulted=tuple(self._faulted),
            guards=tuple(sorted(self._known)),
            counterexamples=tuple(self._found),
            complete=complete,
        )


def _options_of(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a kind looks at; a delay only where nothing happens without one."""
    takes = next(iter(FAULTS[kind].realms.values()))
    wanted = (takes.options - {"delay"}) | takes.needs
    return {name: value for name, value in given.items() if name in wanted}


def _wrong(simulation: Simulation, *, ends: bool) -> str | None:
    if simulation.broken:
        return "; ".join(f"{broken.name}: {broken.found}" for broken in simulation.broken)
    if simulation.error is not None:
        return f"{type(simulation.error).__qualname__}: {simulation.error}"
    if simulation.cut and ends:
        return f"it did not end within {simulation.scenario.horizon:g} s"
    return None


def _signature(simulation: Simulation, reached: list[Point]) -> object:
    """What can be seen of a run: the calls in their order, how each ended, and what was done."""
    ends = tuple((moment.at, moment.event.guard, moment.event.outcome) for moment in simulation.history.moments_of(CallEnded))
    world = simulation.world
    return tuple(reached), ends, tuple(world.done().items()), world.promised(), repr(world.facts)
