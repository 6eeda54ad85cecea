"""The marker ``chaos``: a fault for the time of one test, its options those of a window of a plan."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any

from somaresil.chaos.plan import ChaosPlan, FaultWindow
from somaresil.chaos.vetting import unknown_target
from somaresil.config import did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.model.selector import matches
from somaresil.testing.faults import WHY_NOT, can_have

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pytest

    from somaresil.chaos.engine import ChaosEngine
    from somaresil.chaos.plan import PlanRun
    from somaresil.resilience import Resilience

__all__ = ["NothingStruck", "arm", "look_back", "missed", "problems_of"]


class NothingStruck(UserWarning):
    """A fault of a marker has struck no call of its test, so the test has not shown how it is borne."""


def problems_of(marker: pytest.Mark, service: Callable[[], Resilience | None]) -> Iterator[str]:
    """Everything that is wrong with a marker. ``service`` finds out whose guards may be named; None: nobody knows before the test."""
    try:
        window, _ = _window_of(marker)
    except ConfigurationError as wrong:
        yield from (f"chaos.{problem}" for problem in wrong.problems)
        return
    except TypeError as wrong:
        known = [name for name in inspect.signature(_fault).parameters if name not in {"target", "kind"}]
        hints = [did_you_mean(name, known) for name in marker.kwargs if name not in known]
        yield f"chaos: {str(wrong).removeprefix('_fault() ')} ({'; '.join([*filter(None, hints), 'options: ' + ', '.join(known)])})"
        return
    resilience = service()
    if resilience is not None:
        yield from missed([window], resilience)


def arm(chaos: ChaosEngine, markers: Iterable[pytest.Mark], seed: int) -> list[PlanRun]:
    """Begin the faults of these markers now, for guards that are still to come as well."""
    runs = []
    for marker in markers:
        window, errors = _window_of(marker)
        runs.append(chaos.arm_plan(ChaosPlan((window,), seed=seed), errors=errors, await_guards=True, allow_overlap=True))
    return runs


def missed(windows: Iterable[FaultWindow], resilience: Resilience, *, over: bool = False) -> Iterator[str]:
    """Why some of them cannot strike anything. ``over``: the test has ended, and what was to be mounted is mounted."""
    guards = resilience.guards
    for window in windows:
        aimed = [guard for name, guard in guards.items() if matches(window.target, name)]
        if window.target.startswith("http:"):
            if over and not resilience.chaos.middlewares:
                yield f"chaos.target = {window.target!r}: expected a mounted ResilienceMiddleware, and a request (there was none)"
        elif not aimed:
            allowed, hint = unknown_target(window.target, guards)
            yield f"chaos.target = {window.target!r}: expected {allowed}{f' ({hint})' if hint else ''}"
        elif not any(can_have(guard, window.kind) for guard in aimed):
            yield f"chaos.kind = {window.kind!r}: expected a fault that {window.target} can have ({WHY_NOT[window.kind]})"


def look_back(runs: Iterable[PlanRun], resilience: Resilience) -> list[str]:
    """Why some of the faults could not strike; warns of those that could and did not (:class:`NothingStruck`)."""
    problems = []
    for run in runs:
        found = list(missed(run.plan.windows, resilience, over=True))
        problems += found
        if not found and not run.injected:
            warnings.warn(f"{run.plan.windows[0]!r} has struck no call of this test", NothingStruck, stacklevel=2)
    return problems


def _fault(
    target: str,
    kind: str = "error",
    *,
    start: float = 0.0,
    duration: float = 3_600.0,
    rate: float = 1.0,
    delay: Any = 0.0,
    error: Any = None,
    status: int = 503,
    after_items: int = 1,
    calls: Any = None,
    path: str | None = None,
    every: int | None = None,
    first: int | None = None,
    after: str | None = None,
    ramp: float = 0.0,
    ramp_from: float = 0.0,
    where: Any = None,
    result: Any = None,
    corrupt: str = "any",
    retry_after: float = 1.0,
    bytes_per_second: float | None = None,
    items_per_second: float | None = None,
    chunk_bytes: int = 16,
    reset: bool = False,
) -> tuple[dict[str, Any], Any]:
    """The options of the marker: those of a window, and an error that may be the thing itself."""
    window = dict(locals())
    named = error is None or isinstance(error, str)
    window["error"] = error if named else "marked"
    if isinstance(calls, int) and not isinstance(calls, bool):
        window["calls"] = (calls,)
    return window, None if named else error


def _window_of(marker: pytest.Mark) -> tuple[FaultWindow, dict[str, Any]]:
    options, error = _fault(*marker.args, **marker.kwargs)
    return FaultWindow(**options), {} if error is None else {"marked": error}
