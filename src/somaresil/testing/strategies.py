"""Hypothesis strategies for faults. A schedule that breaks something shrinks to few windows with small numbers.

    from hypothesis import given, settings
    from somaresil.testing.strategies import SEARCH, fault_schedules

    @settings(SEARCH)
    @given(fault_schedules(agent, kinds=["error", "lost_reply"], horizon=600))
    def test_agent_survives(plan):
        agent.check(plan)

Needs ``hypothesis``: ``pip install 'somaresil[pytest]'``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from hypothesis import Phase, settings
from hypothesis import strategies as st

from somaresil.chaos.plan import KINDS, LONGEST, ChaosPlan, FaultWindow
from somaresil.chaos.transforms import CORRUPTIONS
from somaresil.chaos.vetting import unknown_target
from somaresil.chaos.vocabulary import FAULTS
from somaresil.config import Checker
from somaresil.model.selector import matches
from somaresil.resilience import Resilience
from somaresil.testing.faults import WHY_NOT, can_have
from somaresil.testing.simulation import Scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import SearchStrategy

__all__ = ["SEARCH", "fault_kinds", "fault_schedules", "fault_targets", "fault_windows", "faults", "latencies"]

SEARCH: Final = settings(deadline=None, phases=[phase for phase in Phase if phase is not Phase.explain])
"""Settings for searches through simulations: ``@settings(SEARCH, max_examples=200)``.

No deadline, since a simulation lasts as long as it lasts, and no ``explain`` phase, which has Python trace every line of it: on Python 3.11
a failing search takes several times as long with it.
"""

USUAL: Final = ("error", "latency", "lost_reply")
"""What any call can suffer; streams and circuits have to be named."""


def fault_kinds(kinds: Sequence[str] = USUAL) -> SearchStrategy[str]:
    """One of these kinds; an earlier one is simpler. Raises :class:`~somaresil.errors.ConfigurationError` for one that does not exist."""
    check = Checker("fault_kinds")
    _check_kinds(check, kinds)
    check.finish()
    return st.sampled_from([str(kind) for kind in kinds])


def fault_targets(targets: Any, known: Any = None) -> SearchStrategy[str]:
    """One of these targets: names of guards or patterns, all guards of a :class:`Resilience`, or those of a :class:`Scenario`.

    ``known`` says which guards there are, as names, a ``Resilience`` or a ``Scenario``; a target that matches none of them is refused here,
    which is when tests are collected. Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("fault_targets")
    found = _targets(check, targets, known)
    check.finish()
    return st.sampled_from(found)


def latencies(longest: float = 30.0) -> SearchStrategy[float]:
    """Seconds of delay, more than 0 and at most ``longest``. Simple ones are whole numbers."""
    check = Checker("latencies")
    most = check.seconds("longest", longest)
    check.finish()
    whole = st.integers(1, int(most)).map(float) if most >= 1.0 else st.nothing()
    return st.one_of(whole, st.floats(min(0.001, most), most, allow_nan=False))


def faults(
    kinds: Sequence[str] = USUAL,
    *,
    errors: Sequence[str | None] = (None,),
    delays: SearchStrategy[float] | None = None,
    rates: Sequence[float] = (1.0,),
    items: int = 5,
) -> SearchStrategy[dict[str, Any]]:
    """What is done to calls: a kind with the options that go with it, as keywords of :class:`~somaresil.chaos.plan.FaultWindow`.

    ``errors`` are names that the plan may use, None the usual :class:`~somaresil.errors.InjectedFault`; ``delays`` is for the kinds that
    need a delay, and may draw shapes as well as seconds; ``rates`` are shares of calls that are struck; streams end after at most
    ``items`` items.
    """
    check = Checker("faults")
    _check_kinds(check, kinds)
    check.count("items", items, minimum=0, maximum=1_000_000)
    for rate in rates:
        check.ratio("rates", rate)
    check.finish()
    delays = latencies() if delays is None else delays
    share = st.sampled_from(list(rates))
    error = st.sampled_from(list(errors))
    drawn: dict[str, SearchStrategy[Any]] = {
        "delay": delays,
        "error": error,
        "rate": share,
        "after_items": st.integers(0, items),
        "status": st.sampled_from((503, 500, 429, 404)),
        "retry_after": st.integers(0, 60),
        "items_per_second": st.sampled_from((1, 10, 0.1)),
        "corrupt": st.sampled_from(tuple(CORRUPTIONS)),
    }
    return st.one_of([_fault_of(str(kind), drawn) for kind in kinds])


_OF_ITSELF: Final = frozenset({"delay", "bytes_per_second"})
"""Drawn only for kinds that need it: before an error it says nothing new, and what is measured in bytes is for text alone."""


def _fault_of(kind: str, drawn: dict[str, SearchStrategy[Any]]) -> SearchStrategy[dict[str, Any]]:
    """One kind, with a value for each of its options that is worth a search: what it takes is for the vocabulary to say."""
    # Where it strikes guards and nothing needs more of it, the options are those of guards.
    takes = next(iter(FAULTS[kind].realms.values()))
    wanted = (takes.options - _OF_ITSELF) | takes.needs | ({"rate"} if takes.options else set())
    return st.fixed_dictionaries({"kind": st.just(kind), **{name: drawn[name] for name in drawn if name in wanted}})


def fault_windows(
    targets: Any,
    kinds: Sequence[str] = USUAL,
    horizon: float = 600.0,
    *,
    longest: float | None = None,
    known: Any = None,
    **options: Any,
) -> SearchStrategy[FaultWindow]:
    """One fault that begins within ``horizon`` seconds and lasts at most ``longest`` (None: as long as the horizon), in whole seconds.

    The other options are those of :func:`faults`.
    """
    check = Checker("fault_windows")
    end = check.seconds("horizon", horizon, minimum=1.0, exclusive=False, maximum=LONGEST / 2)
    most = check.seconds("longest", end if longest is None else longest, minimum=1.0, exclusive=False, maximum=LONGEST / 2)
    _check_kinds(check, kinds)
    found = _targets(check, targets, known)
    check.finish()
    _check_fit(kinds, targets, known)
    return st.builds(
        _window_of,
        st.sampled_from(found),
        st.integers(0, int(end)),
        st.integers(1, int(most)),
        faults(kinds, **options),
    )


def fault_schedules(
    targets: Any,
    kinds: Sequence[str] = USUAL,
    horizon: float = 600.0,
    *,
    longest: float | None = None,
    min_windows: int = 0,
    max_windows: int = 4,
    known: Any = None,
    seeds: SearchStrategy[int] | None = None,
    **options: Any,
) -> SearchStrategy[ChaosPlan]:
    """Plans of up to ``max_windows`` faults, to be given to :meth:`Scenario.check` or ``resilience.chaos.run_plan``.

    ``targets`` are names or patterns of guards, or a :class:`Scenario` or ``Resilience`` for all of its guards; see :func:`fault_targets`
    for ``known``. With ``rates`` below 1 give ``seeds`` too: each plan decides by its own.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, when it is called: for a decorator that is collection.
    """
    check = Checker("fault_schedules")
    check.count("min_windows", min_windows, minimum=0, maximum=100)
    check.count("max_windows", max_windows, minimum=max(min_windows, 1), maximum=100)
    _check_kinds(check, kinds)
    _targets(check, targets, known)
    check.finish()
    windows = fault_windows(targets, kinds, horizon, longest=longest, known=known, **options)
    # Hypothesis takes elements of this size off the end of a list only. One that can be left out by a single choice goes from anywhere.
    optional = st.tuples(st.sampled_from((False, True, True, True)), windows)
    return st.builds(
        _plan_of,
        st.lists(windows, min_size=min_windows, max_size=min_windows),
        st.lists(optional, max_size=max_windows - min_windows),
        st.just(0) if seeds is None else seeds,
    )


def _plan_of(needed: list[FaultWindow], optional: list[tuple[bool, FaultWindow]], seed: int) -> ChaosPlan:
    return ChaosPlan((*needed, *(window for kept, window in optional if kept)), seed=seed)


def _window_of(target: str, start: int, duration: int, fault: dict[str, Any]) -> FaultWindow:
    return FaultWindow(target=target, start=start, duration=duration, **fault)


def _check_kinds(check: Checker, kinds: Any) -> None:
    if isinstance(kinds, str) or not isinstance(kinds, Iterable) or not tuple(kinds):
        check.problem("kinds", kinds, f"a list of {' | '.join(KINDS)}", "a list also for a single one")
        return
    for kind in kinds:
        check.one_of("kinds", kind, KINDS)


def _check_fit(kinds: Sequence[str], targets: Any, known: Any) -> None:
    """Refuse kinds that none of the guards can have, where it is known which there are: a search with them would find nothing, always."""
    check = Checker("fault_windows")
    for source in (targets, known):
        if isinstance(source, Scenario | Resilience):
            for kind in kinds:
                fits = source.can_have(kind) if isinstance(source, Scenario) else any(can_have(g, kind) for g in source.guards.values())
                if not fits:
                    check.problem("kinds", kind, f"a fault that one of {', '.join(source.guards)} can have", f"of each, {WHY_NOT[kind]}")
    check.finish()


def _names(source: Any) -> tuple[str, ...] | None:
    """The guards of something that has them, or names as they are."""
    if isinstance(source, Scenario | Resilience):
        return tuple(source.guards)
    if isinstance(source, Iterable) and not isinstance(source, str | bytes):
        return tuple(source)
    return None


def _targets(check: Checker, targets: Any, known: Any) -> list[str]:
    found = _names(targets)
    if not found:
        check.problem("targets", targets, "names of guards, a Scenario or a Resilience that has some", "a list also for a single one")
        return ["x"]
    guards = None if known is None else _names(known)
    for target in found:
        check.pattern("targets", target)
        if guards is not None and not any(matches(str(target), name) for name in guards):
            check.problem("targets", target, *unknown_target(str(target), guards))
    return list(found)
