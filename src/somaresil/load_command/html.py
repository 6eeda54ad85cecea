"""A report as one HTML page: no script, nothing loaded from anywhere, everything from outside escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.gameday.html import page, table, text
from somaresil.gameday.report import PhaseReport, Point
from somaresil.gameday.svg import lines_over_time

if TYPE_CHECKING:
    from somaresil.load.report import LoadReport

__all__ = ["to_html"]

_CAPTION: Final = (
    "Share of good answers (line), 95th percentile of their latency (dashed), what an experiment has struck (bars), stages (bands)."
)


def to_html(report: LoadReport) -> str:
    """The whole report."""
    parts = [f'<p class="no">{text(warning)}.</p>' for warning in report.warnings]
    if report.run.points:
        parts += ["<figure>", lines_over_time(_points(report), _phases(report)), f"<figcaption>{_CAPTION}</figcaption>", "</figure>"]
    for heading, columns, rows in report.tables():
        parts += [f"<h2>{text(heading)}</h2>", *table(columns, rows)]
    if report.chaos:
        parts += ["<h2>What became of the experiments</h2>", f"<ul>{''.join(f'<li>{text(line)}</li>' for line in report.chaos)}</ul>"]
    return page(f"Load: {report.title}", report.about, parts)


def _points(report: LoadReport) -> list[Point]:
    found: list[Point] = []
    for point in report.run.points:
        calls = point.good + point.failed + point.dropped
        found.append(Point(point.at, calls, point.good / calls if calls else None, point.p95, point.injected))
    return found


def _phases(report: LoadReport) -> list[PhaseReport]:
    named = enumerate(report.scenario.stages, 1)
    return [PhaseReport(stage.name or f"stage {number}", stage.seconds, 0, 0, 0, 0, None, None) for number, stage in named]
