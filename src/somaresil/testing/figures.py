"""What tests with faults add up to. Each test reports its figures, from xdist's workers too; they come together in one place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.resilience import Resilience
    from somaresil.testing.watch import History

__all__ = ["PROPERTY", "Figures", "Simulated", "count", "count_for", "property_of"]

PROPERTY: Final = "somaresil"
"""Name of the property of a pytest report that carries the figures of a test, into JUnit XML as well."""

_MOST_GUARDS: Final = 1_000


class Simulated:
    """What the simulations, machines and injections of one test have struck, beside its fixtures."""

    def __init__(self) -> None:
        """None so far."""
        self.runs = 0
        self.injected = 0
        self.guards: set[str] = set()
        self.faulted: set[str] = set()

    def property_of(self, test: str) -> tuple[str, str]:
        """The figures, as a property of the report of the test."""
        figures = {
            "test": test,
            "simulations": self.runs,
            "injected": self.injected,
            "guards": sorted(self.guards)[:_MOST_GUARDS],
            "faulted": sorted(self.faulted)[:_MOST_GUARDS],
        }
        return PROPERTY, json.dumps(figures)


_now: Simulated | None = None
"""Of the test that runs now, if the plugin is there to ask for it."""


def count_for(test: Simulated | None) -> None:
    """Count for this test from now on; None: for nobody."""
    global _now  # noqa: PLW0603 - one test runs at a time in a process
    _now = test


def count(resilience: Resilience, *, simulated: bool) -> None:
    """Count what was struck: in a process that was made for a simulation, or in one that a test has injected faults into."""
    if _now is not None:
        runs = resilience.chaos.history
        _now.guards.update(resilience.guards)
        _now.faulted.update(_faulted(resilience))
        if simulated:
            # Calls of other processes are counted by the fixtures, where they are used.
            _now.runs += 1
            _now.injected += sum(run.injected for run in runs)


def property_of(test: str, resilience: Resilience, history: History) -> tuple[str, str]:
    """The figures of a test, as the property of its report."""
    touched = history.touched()
    worst = history.worst_recovery if history.injected else None
    figures = {
        "test": test,
        "injected": history.injected,
        "touched": touched,
        "absorbed": round((history.absorbed() or 0.0) * touched),
        # JSON has no infinity.
        "recovery": None if worst is None or worst == float("inf") else worst,
        "unrecovered": worst == float("inf"),
        "guards": sorted(resilience.guards)[:_MOST_GUARDS],
        "faulted": sorted(_faulted(resilience))[:_MOST_GUARDS],
    }
    return PROPERTY, json.dumps(figures)


def _faulted(resilience: Resilience) -> set[str]:
    """Guards that were struck; the engine counts them, also for experiments that it has forgotten."""
    # It counts so many of them by name.
    late = {guard for run in resilience.chaos.history for guard in run.struck}
    return late | ({component for component, _ in resilience.chaos.faults()} & set(resilience.guards))


class Figures:
    """Adds up what tests report. A plugin of pytest: it hears the reports where results come together (under xdist: the controller)."""

    def __init__(self) -> None:
        """None so far."""
        self.tests: list[dict[str, Any]] = []
        self.simulated: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the figures out of the report of a test's end."""
        if report.when == "teardown":
            for figures in (json.loads(str(value)) for name, value in report.user_properties if name == PROPERTY):
                (self.simulated if "simulations" in figures else self.tests).append(figures)

    @property
    def guards(self) -> set[str]:
        """Every guard that a test had."""
        return {guard for test in (*self.tests, *self.simulated) for guard in test["guards"]}

    @property
    def never_faulted(self) -> list[str]:
        """Those that no test has struck."""
        return sorted(self.guards - {guard for test in (*self.tests, *self.simulated) for guard in test["faulted"]})

    @property
    def struck(self) -> float | None:
        """Percentage of the guards that a test has struck; None: there was no guard."""
        return 100.0 * (1.0 - len(self.never_faulted) / len(self.guards)) if self.guards else None

    def lines(self) -> Iterator[str]:
        """The summary; nothing when no test had anything to do with faults."""
        if self.tests:
            yield from self._of_tests()
        simulated = [test for test in self.simulated if test["simulations"]]
        if simulated:
            runs, injected = (sum(test[name] for test in simulated) for name in ("simulations", "injected"))
            yield f"{len(simulated)} tests with {runs} simulations: {injected} injected"
        if self.never_faulted:
            yield f"guards never faulted: {', '.join(self.never_faulted)}"

    def _of_tests(self) -> Iterator[str]:
        injected, touched, absorbed = (sum(test[name] for test in self.tests) for name in ("injected", "touched", "absorbed"))
        share = f"{absorbed / touched:.1%} absorbed ({absorbed} of {touched} touched calls)" if touched else "no call was touched"
        yield f"{len(self.tests)} tests with faults: {injected} injected, {share}"
        known = [(test["recovery"], test["test"]) for test in self.tests if test["recovery"] is not None]
        if known:
            seconds, test = max(known)
            yield f"worst recovery {seconds:.3g} s in {test}"
        lost = [test["test"] for test in self.tests if test["unrecovered"]]
        if lost:
            yield f"not recovered when the test ended: {len(lost)}, the first in {lost[0]}"
