"""What the commands have found, as data; and as JSON and plain text. The same findings give the same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from somaresil.perf.budget import BudgetStatus
from somaresil.perf.detector import Change, overall
from somaresil.perf_command.words import figure, percent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from somaresil.perf.budget import BudgetReport
    from somaresil.perf.detector import Comparison, History
    from somaresil.perf.store import Point

__all__ = [
    "BAD",
    "GOOD",
    "UNDECIDED",
    "BudgetsReport",
    "ComparisonReport",
    "HistoryReport",
    "HistoryRow",
    "Report",
    "Row",
    "Side",
    "about",
    "columns",
    "commit_at",
    "exit_code",
    "headline",
    "shown_name",
    "sorted_rows",
    "summary_rows",
    "to_json",
    "to_text",
]

GOOD, BAD, UNDECIDED = 0, 1, 2
_SHORT: Final = 12
_ORDER: Final = (Change.REGRESSED, Change.UNKNOWN, Change.IMPROVED, Change.UNCHANGED)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that were compared."""

    label: str
    """As it was asked for: a branch, a file, a command."""
    commit: str | None = None
    machine: str = ""
    sources: int = 1
    """Runs, files or recordings."""

    def __str__(self) -> str:
        known = [self.commit[:_SHORT] if self.commit else "", self.machine, f"{self.sources} results" if self.sources > 1 else ""]
        about = ", ".join(part for part in known if part)
        return f"{self.label} ({about})" if about else self.label


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a comparison, with its values on both sides."""

    name: str
    metric: str
    unit: str
    comparison: Comparison
    baseline: tuple[float, ...] = ()
    current: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparisonReport:
    """Two versions beside each other."""

    baseline: Side
    current: Side
    rows: tuple[Row, ...]
    paired: bool
    """Whether both were measured in turn, in one job."""
    minimum_effect: float
    alpha: float
    exit_code: int
    notes: tuple[str, ...] = ()

    @property
    def change(self) -> Change:
        """One answer for all."""
        return overall(row.comparison.change for row in self.rows)


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One series over time."""

    name: str
    metric: str
    unit: str
    history: History
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class HistoryReport:
    """Series over time, and where their level has changed."""

    rows: tuple[HistoryRow, ...]
    alpha: float
    exit_code: int
    notes: tuple[str, ...] = ()

    @property
    def change(self) -> Change:
        """One answer for all."""
        return overall(row.history.change for row in self.rows)


@dataclass(frozen=True, slots=True)
class BudgetsReport:
    """Budgets and what was measured."""

    budgets: tuple[BudgetReport, ...]
    sources: tuple[str, ...]
    exit_code: int
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> BudgetStatus:
        """One answer for all."""
        seen = {each.status for each in self.budgets}
        return next((each for each in (BudgetStatus.BROKEN, BudgetStatus.UNKNOWN) if each in seen), BudgetStatus.KEPT)


Report = ComparisonReport | HistoryReport | BudgetsReport


def exit_code(*, bad: bool, undecided: bool, fail: bool, allow_unknown: bool) -> int:
    """1 for what is not good enough, when that was asked; 2 for what could not be decided, unless that is allowed."""
    if bad and fail:
        return BAD
    return UNDECIDED if undecided and not allow_unknown else GOOD


def headline(report: Report) -> str:
    """In one line, what follows."""
    if isinstance(report, BudgetsReport):
        kept = sum(each.status is BudgetStatus.KEPT for each in report.budgets)
        return f"{report.status.value}: {kept} of {len(report.budgets)} budgets kept"
    changes = [row.comparison.change if isinstance(row, Row) else row.history.change for row in report.rows]
    counts = [f"{count} {change.value}" for change in _ORDER if (count := changes.count(change))]
    return f"{report.change.value}: {', '.join(counts)}"


def about(report: Report) -> str:
    """What was looked at, and how."""
    if isinstance(report, BudgetsReport):
        return f"Measured: {', '.join(report.sources)}"
    if isinstance(report, HistoryReport):
        return f"A history without a change shows one with a chance of {report.alpha:g} at most"
    how = "measured in turn" if report.paired else "compared as they were measured"
    effect = f"{report.minimum_effect * 100:g} % count, errors {report.alpha:g}"
    return f"Baseline {report.baseline}, current {report.current}; {how}; {effect}"


def sorted_rows(report: ComparisonReport) -> list[Row]:
    """The worst first."""
    return sorted(report.rows, key=lambda row: (_ORDER.index(row.comparison.change), row.name, row.metric))


def shown_name(name: str, metric: str) -> str:
    """The name of a series, with its metric where that is not plain."""
    return name if metric == "duration" else f"{name} ({metric})"


def commit_at(row: HistoryRow, index: int) -> str:
    """Which recording a change is about."""
    point = row.points[index]
    return (point.commit or "")[:_SHORT] or f"value {index}"


def to_text(report: Report) -> str:
    """For a terminal."""
    lines = [headline(report), about(report), ""]
    if isinstance(report, ComparisonReport):
        for row in sorted_rows(report):
            found = row.comparison
            lines.append(f"  {found.change.value:<9}  {shown_name(row.name, row.metric)}")
            if found.baseline is not None:
                change = f"{figure(found.baseline, row.unit)} -> {figure(found.current, row.unit)} ({percent(found.ratio)})"
                lines.append(f"             {change}")
            lines.append(f"             {found.reason}")
    elif isinstance(report, HistoryReport):
        for each in report.rows:
            lines.append(f"  {each.history.change.value:<9}  {shown_name(each.name, each.metric)}: {each.history.reason}")
            lines += [
                f"             {commit_at(each, step.index)}: {figure(step.before, each.unit)} -> {figure(step.after, each.unit)} "
                f"({percent(step.ratio)}), p {step.p_value:.2g}"
                for step in each.history.changes
            ]
    else:
        for budget in report.budgets:
            lines.append(f"  {budget.status.value:<7}  {budget.endpoint}")
            lines += [f"           {check.status.value:<7}  {check.limit} {check.allowed:g}: {check.reason}" for check in budget.checks]
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(_one_line(line) for line in lines) + "\n"


def _one_line(text: str) -> str:
    """Nothing in it steers a terminal."""
    return "".join(c if c.isprintable() else " " for c in text).rstrip()


def to_json(report: Report) -> str:
    """Everything, for programs."""
    kind = {ComparisonReport: "comparison", HistoryReport: "history", BudgetsReport: "budgets"}[type(report)]
    answer = report.status if isinstance(report, BudgetsReport) else report.change
    return json.dumps({"kind": kind, "answer": answer.value, **_plain(report)}, indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value


def summary_rows(report: Report) -> Iterator[Sequence[str]]:
    """Rows of a table, the worst first."""
    if isinstance(report, ComparisonReport):
        for row in sorted_rows(report):
            found = row.comparison
            span = "-" if found.low is None else f"{percent(found.low)} to {percent(found.high)}"
            values = figure(found.baseline, row.unit), figure(found.current, row.unit), percent(found.ratio), span
            yield found.change.value, shown_name(row.name, row.metric), *values, found.reason
    elif isinstance(report, HistoryReport):
        for each in report.rows:
            last = each.history.changes[-1] if each.history.changes else None
            since = "-" if last is None else commit_at(each, last.index)
            ratio = percent(None if last is None else last.ratio)
            yield each.history.change.value, shown_name(each.name, each.metric), str(each.history.count), since, ratio, each.history.reason
    else:
        for budget in report.budgets:
            for check in budget.checks:
                yield check.status.value, budget.endpoint, check.limit, f"{check.allowed:g}", _measured(check.measured), check.reason


def columns(report: Report) -> tuple[str, ...]:
    """The heads of that table."""
    if isinstance(report, ComparisonReport):
        return "", "what", "baseline", "current", "change", "interval", "why"
    if isinstance(report, HistoryReport):
        return "", "what", "values", "since", "change", "why"
    return "", "endpoint", "limit", "allowed", "measured", "why"


def _measured(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
