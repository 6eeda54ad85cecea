"""What must hold however the faults fall. An invariant looks at a simulation that is over and says what is broken, or None.

Most are about guards, some about what a scenario has noted in its ledger (:meth:`World.acted`, :meth:`World.acknowledged`), for whether a
write was made twice is known to the store alone.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from somaresil.config import Checker
from somaresil.events import CallEnded

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from somaresil.testing.simulation import Simulation

__all__ = [
    "About",
    "Invariant",
    "amplification_below",
    "at_most_once",
    "budget_kept",
    "burst_below",
    "holds",
    "never_lost",
    "no_hidden_outage",
    "recovers_within",
]


class Invariant(Protocol):
    """Something that must hold. Any object with these two will do."""

    @property
    def name(self) -> str:
        """What holds, in words."""
        ...

    def check(self, simulation: Simulation) -> str | None:
        """What is broken; None: nothing."""
        ...


class About(NamedTuple):
    """What an invariant speaks of: one that speaks of nothing that exists would hold for ever."""

    option: str
    pattern: str
    effect: bool = False
    """Whether it is an effect; else it is a guard."""


@dataclass(frozen=True)
class _Rule:
    name: str
    judge: Callable[[Simulation], str | None]
    goal: Callable[[Simulation], float | None] | None = None
    """What Hypothesis should make as large as it can, for that is where the bugs are."""
    about: tuple[About, ...] = ()

    def check(self, simulation: Simulation) -> str | None:
        return self.judge(simulation)

    def __repr__(self) -> str:
        return self.name


def holds(name: str, judge: Callable[[Simulation], object]) -> Invariant:
    """An invariant of your own: ``judge(simulation)`` is true (or None) when it holds; a text says what is broken."""

    def check(simulation: Simulation) -> str | None:
        said = judge(simulation)
        if said is None or said is True:
            return None
        return said if isinstance(said, str) else f"it does not: {said!r}"

    return _Rule(name, check)


def recovers_within(limit: float | timedelta, guard: str = "*") -> Invariant:
    """Every guard serves again, and goes on serving, within ``limit`` seconds of the end of the last fault.

    A guard that was struck has to be called after that, if there is more time than ``limit`` left: a worker that has died, or waits for
    ever, has not recovered. Where the simulation ended before there was time to recover, nothing is judged. Hypothesis is told to look
    for slow recoveries (``hypothesis.target``): without it a back-off that doubled was not found in 300 runs, with it in 45 to 534.
    """
    check = Checker("recovers_within")
    seconds = check.seconds("limit", limit, exclusive=False)
    check.finish()

    def judge(simulation: Simulation) -> str | None:
        history = simulation.history
        had_time = simulation.seconds - history.faults_ended > seconds
        found = []
        for recovery in history.recoveries(guard):
            if recovery.seconds is None:
                if had_time and history.struck(recovery.guard):
                    found.append(f"{recovery.guard}: was struck, and not called any more after the last fault")
            elif recovery.seconds > seconds and (had_time or recovery.seconds < float("inf")):
                found.append(str(recovery))
        return _listed(found)

    def goal(simulation: Simulation) -> float | None:
        known = [recovery.seconds for recovery in simulation.history.recoveries(guard) if recovery.seconds is not None]
        # Infinity is no goal; the whole run is as long as a recovery can be seen to last.
        return min(max(known), simulation.seconds) if known else None

    return _Rule(f"{guard} recovers within {seconds:g} s of the last fault", judge, goal, (About("recovers_within.guard", guard),))


def at_most_once(effect: str = "*") -> Invariant:
    """Nothing is done twice under one key: repeats of a call whose reply was lost are recognised."""

    def judge(simulation: Simulation) -> str | None:
        twice = [f"{name} {key!r} was done {count} times" for (name, key), count in simulation.world.done(effect).items() if count > 1]
        return _listed(twice)

    return _Rule(f"{effect} is done at most once a key", judge, None, (About("at_most_once.effect", effect, effect=True),))


def never_lost(effect: str = "*") -> Invariant:
    """What a caller was told is done is done: every acknowledged key was acted upon."""

    def judge(simulation: Simulation) -> str | None:
        done = simulation.world.done(effect)
        lost = [
            f"{name} {key!r} was acknowledged and not done" for name, key in simulation.world.promised(effect) if not done.get((name, key))
        ]
        return _listed(lost)

    return _Rule(f"{effect}: what is acknowledged is done", judge, None, (About("never_lost.effect", effect, effect=True),))


def budget_kept(slo: str, remaining: float = 0.0) -> Invariant:
    """At least this share of the error budget of ``slo`` is left at the end. An objective without events is not judged."""

    def judge(simulation: Simulation) -> str | None:
        budget = simulation.world.resilience.slos.error_budget(slo)
        share = budget.remaining_share
        if share is None or share >= remaining:
            return None
        return f"{share:.1%} of the budget of {slo} is left; {budget.bad} of {budget.good + budget.bad} events were bad"

    def goal(simulation: Simulation) -> float | None:
        return simulation.world.resilience.slos.error_budget(slo).consumed

    return _Rule(f"{slo} keeps {remaining:.0%} of its error budget", judge, goal)


def amplification_below(factor: float, dependency: str, per: str, window: float = 60.0) -> Invariant:
    """A dependency is not called more than ``factor`` times for each call of ``per``, in any ``window`` seconds.

    Retries of several layers multiply (SRE book, "Addressing Cascading Failures": three layers with 3 retries each make 64 attempts), so a
    service in trouble gets several times its load. Both are patterns over guards. Spans with fewer than 5 calls of ``per`` are not judged.
    """
    fewest = 5

    def worst(simulation: Simulation) -> tuple[float, float]:
        history = simulation.history
        asked = history.moments_of(CallEnded, per)
        begun, ended = sorted(moment.at - moment.event.elapsed for moment in asked), sorted(moment.at for moment in asked)
        tried = sorted(history.attempts_at(dependency))
        found = (0.0, 0.0)
        for begin in begun:
            # Calls that were under way at some time of the span: an attempt belongs to one of them, whenever that began.
            calls = bisect_left(begun, begin + window) - bisect_left(ended, begin)
            if calls >= fewest:
                attempts = bisect_left(tried, begin + window) - bisect_left(tried, begin)
                found = max(found, (attempts / calls, begin))
        return found

    def judge(simulation: Simulation) -> str | None:
        ratio, begin = worst(simulation)
        if ratio <= factor:
            return None
        return f"from {begin:.1f} s on, {dependency} was called {ratio:.2f} times for each call of {per}"

    about = About("amplification_below.dependency", dependency), About("amplification_below.per", per)
    name = f"{dependency} is called at most {factor:g} times for each call of {per}"
    return _Rule(name, judge, lambda simulation: worst(simulation)[0], about)


def burst_below(calls: int, dependency: str, per: float = 1.0) -> Invariant:
    """No more than ``calls`` attempts of a dependency begin within ``per`` seconds: what has just come back is not flooded.

    A span covers its first moment and not its last, so a call each second is one in a second.
    """

    def worst(simulation: Simulation) -> tuple[int, float]:
        begun = sorted(simulation.history.attempts_at(dependency))
        return max(((bisect_left(begun, begin + per) - index, begin) for index, begin in enumerate(begun)), default=(0, 0.0))

    def judge(simulation: Simulation) -> str | None:
        most, begin = worst(simulation)
        return None if most <= calls else f"{most} calls of {dependency} began within {per:g} s from {begin:.1f} s on"

    about = (About("burst_below.dependency", dependency),)
    name = f"at most {calls} calls of {dependency} begin in {per:g} s"
    return _Rule(name, judge, lambda simulation: float(worst(simulation)[0]), about)


def no_hidden_outage(slo: str, dependency: str, at_least: int = 10) -> Invariant:
    """When at least so many calls of a dependency failed, the objective has counted bad events: an outage spends budget.

    A fallback answers in its place, and an objective on the same guard sees good answers only: nobody is woken, for days.
    """

    def judge(simulation: Simulation) -> str | None:
        failed = sum(event.outcome in {"bad", "rejected"} for event in simulation.history.of(CallEnded, dependency))
        # Where a fallback is on the dependency's own guard, its calls end well all the same.
        failed = max(failed, simulation.history.fallbacks(dependency))
        bad = simulation.world.resilience.slos.error_budget(slo).bad
        return f"{failed} calls of {dependency} failed and {slo} has counted no bad event" if failed >= at_least and not bad else None

    return _Rule(f"{slo} sees outages of {dependency}", judge, None, (About("no_hidden_outage.dependency", dependency),))


def _listed(problems: list[str], most: int = 5) -> str | None:
    more = [f"and {len(problems) - most} more"] if len(problems) > most else []
    return "; ".join([*problems[:most], *more]) or None


def goal_of(invariant: Any, simulation: Simulation) -> float | None:
    """What Hypothesis should make large, if the invariant says so."""
    goal = getattr(invariant, "goal", None)
    value = None if goal is None else goal(simulation)
    return None if value is None else float(value)
