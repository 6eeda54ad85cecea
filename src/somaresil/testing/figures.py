"""What tests with faults add up to. Each test reports its figures, from xdist's workers too; they come together in one place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.resilience import Resilience
    from somaresil.testing.watch import History

__all__ = ["PROPERTY", "Figures", "property_of"]

PROPERTY: Final = "somaresil"
"""Name of the property of a pytest report that carries the figures of a test, into JUnit XML as well."""

_MOST_GUARDS: Final = 1_000


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
        "faulted": sorted({guard for run in resilience.chaos.history for guard in run.struck})[:_MOST_GUARDS],
    }
    return PROPERTY, json.dumps(figures)


class Figures:
    """Adds up what tests report. A plugin of pytest: it hears the reports where results come together (under xdist: the controller)."""

    def __init__(self) -> None:
        """None so far."""
        self.tests: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take the figures out of the report of a test's end."""
        if report.when == "teardown":
            self.tests += [json.loads(str(value)) for name, value in report.user_properties if name == PROPERTY]

    @property
    def guards(self) -> set[str]:
        """Every guard that a test had."""
        return {guard for test in self.tests for guard in test["guards"]}

    @property
    def never_faulted(self) -> list[str]:
        """Those that no test has struck."""
        return sorted(self.guards - {guard for test in self.tests for guard in test["faulted"]})

    @property
    def struck(self) -> float | None:
        """Percentage of the guards that a test has struck; None: there was no guard."""
        return 100.0 * (1.0 - len(self.never_faulted) / len(self.guards)) if self.guards else None

    def lines(self) -> Iterator[str]:
        """The summary."""
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
        if self.never_faulted:
            yield f"guards never faulted: {', '.join(self.never_faulted)}"
