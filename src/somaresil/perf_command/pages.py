"""Reports as a comment in Markdown and as one HTML page with plots: no script, nothing loaded, everything from outside escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.gameday.html import page
from somaresil.gameday.html import table as html_table
from somaresil.gameday.html import text as html_text
from somaresil.markdown import plain, table
from somaresil.perf_command.report import ComparisonReport, HistoryReport, about, columns, headline, shown_name, sorted_rows, summary_rows
from somaresil.perf_command.svg import distributions, quantile_shift, steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.perf_command.report import Report

__all__ = ["MARK", "to_html", "to_markdown"]

MARK: Final = "<!-- somaresil perf -->"
"""The first line of a comment: a pipeline finds its own by it, and writes over it."""
_MOST_ROWS: Final = 100
_MOST_PLOTS: Final = 60


def to_markdown(report: Report) -> str:
    """A comment for a pull request, the worst first, at most 100 rows."""
    rows = list(summary_rows(report))
    lines = [MARK, f"**Performance: {plain(headline(report))}**", "", *table(columns(report), rows[:_MOST_ROWS])]
    if len(rows) > _MOST_ROWS:
        lines += [f"and {len(rows) - _MOST_ROWS} more", ""]
    lines += [f"{plain(about(report))}.", ""]
    lines += [f"- {plain(note)}" for note in report.notes]
    return "\n".join(lines).rstrip() + "\n"


def to_html(report: Report) -> str:
    """A page with a table, and plots of at most 60 figures."""
    parts = html_table(columns(report), summary_rows(report))
    if report.notes:
        parts.append(f"<ul>{''.join(f'<li>{html_text(note)}</li>' for note in report.notes)}</ul>")
    parts += _plots(report)
    return page(f"Performance: {headline(report)}", about(report), parts)


def _plots(report: Report) -> Iterator[str]:
    if isinstance(report, ComparisonReport):
        for row in sorted_rows(report)[:_MOST_PLOTS]:
            if min(len(row.baseline), len(row.current)) < 2:  # noqa: PLR2004 - one value has no distribution
                continue
            yield f"<h3>{html_text(shown_name(row.name, row.metric))}: {html_text(row.comparison.change.value)}</h3><figure>"
            yield distributions(row.baseline, row.current, row.unit)
            yield "<figcaption>Share of values at or below each value: baseline dashed, current solid.</figcaption></figure><figure>"
            yield quantile_shift(row.baseline, row.current)
            yield "<figcaption>Current divided by baseline, quantile by quantile.</figcaption></figure>"
    elif isinstance(report, HistoryReport):
        for each in report.rows[:_MOST_PLOTS]:
            yield f"<h3>{html_text(shown_name(each.name, each.metric))}: {html_text(each.history.change.value)}</h3><figure>"
            yield steps(each.points, each.history, each.unit)
            yield "<figcaption>One dot a recording, the level as a line, changes of level as bars.</figcaption></figure>"
