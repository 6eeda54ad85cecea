"""The report as one HTML page, in the manner of game days: no script, nothing loaded from anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.gameday.html import page, table, text
from somaresil.gameday.svg import evidence
from somaresil.gameday.words import number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.demo.canary.report import ActResult, CanaryReport, Side

__all__ = ["to_html"]


def to_html(report: CanaryReport) -> str:
    """The whole report."""
    about = f"Seed {report.seed}, {report.rate:g} requests a second, {report.seconds:.1f} s, split by {report.router}"
    rows = [
        (
            act.version,
            act.says,
            act.outcome,
            number(act.seconds, " s"),
            number(act.detection_seconds, " s"),
            act.candidate.requests,
            act.candidate.bad,
            f"{act.evidence:.3g}",
        )
        for act in report.acts
    ]
    columns = ("version", "", "outcome", "after", "first bad answer to rollback", "requests it got", "bad for users", "most evidence")
    parts = table(columns, rows)
    parts += [f'<p class="failed">{text(problem)}</p>' for problem in report.problems]
    for act in report.acts:
        parts += _act(act, report.threshold)
    title = "Canary: each version ended as it ought to" if report.passed else "Canary: not as it ought to be"
    return page(title, f"{about}, somaresil {report.version}", parts)


def _act(act: ActResult, threshold: float) -> Iterable[str]:
    mark = "yes" if act.outcome == act.wanted else "no"
    yield f'<h2>{text(act.version)}, {text(act.name)}: <span class="{mark}">{text(act.outcome)}</span></h2>'
    yield f"<p>{text(act.says)}. {text(act.reason)}.</p>"
    yield from table(
        ("as users saw it", "requests", "p50", "p95", "p99", "failed", "late"),
        [_row("version before", act.control), _row(act.version, act.candidate)],
    )
    yield from table(("requests", "what went wrong"), [(count, what) for what, count in act.failures.items()])
    yield "<figure>"
    yield evidence([(point.requests, point.evidence) for point in act.curve], threshold)
    yield f"<figcaption>Evidence over the requests of the new version; at {threshold:g} it is rolled back.</figcaption></figure>"
    yield from table(("after", "step", "phase", "why"), [(f"{move.at:.1f} s", move.step, move.phase, move.reason) for move in act.moves])


def _row(name: str, side: Side) -> tuple[str, ...]:
    quantiles = (None if value is None else value * 1000.0 for value in (side.p50, side.p95, side.p99))
    return (name, str(side.requests), *(number(value, " ms") for value in quantiles), str(side.failed), str(side.late))
