"""A report as one HTML page: no script, nothing loaded from anywhere, plots as inline SVG, everything from outside escaped.

It forbids itself what it does not need (a content security policy in the page), so that a report can be opened wherever it is stored.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

from somaresil.gameday.svg import bars, lines_over_time
from somaresil.gameday.words import facts, moment, number, share, title_of, totals, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.gameday.report import ExperimentReport, GameDayReport

__all__ = ["page", "table", "text", "to_html"]

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --ink: #1d2330; --paper: #fff; --soft: #667; --line: #d5d9e2; --good: #1a7f47; --bad: #b3261e; --open: #8a5a00
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9f0; --paper: #14171f; --soft: #9aa3b5; --line: #333a4a; --good: #4cc38a; --bad: #ff8f87; --open: #e0b050 }
}
body {
  font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem
}
h1 { font-size: 1.6rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line) } h3 { margin-bottom: .3rem }
table { border-collapse: collapse; margin: .3rem 0 1rem; width: 100%; font-size: .92rem }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere }
th { color: var(--soft); font-weight: 600 }
.held, .yes { color: var(--good) } .deviated, .aborted, .failed, .interrupted, .no { color: var(--bad) }
.unproven, .not_started, .skipped { color: var(--open) }
figure { margin: .5rem 0 1rem } figcaption { color: var(--soft); font-size: .85rem }
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif }
.soft { color: var(--soft) }
"""


def to_html(report: GameDayReport) -> str:
    """The whole report."""
    about = (
        f"Service {report.service}, seed {report.seed}, {when(report.started_at)}, {number(report.seconds)} s, somaresil {report.version}"
    )
    parts = table(("", ""), totals(report))
    if report.interrupted is not None:
        parts.append(f'<p class="interrupted">Interrupted: {text(report.interrupted)}.</p>')
    times = _recovery_times(report)
    if times:
        parts += ["<figure>", bars(times), "<figcaption>Seconds to recovery, by incident.</figcaption></figure>"]
    parts.append("<h2>Experiments</h2>")
    for experiment in report.experiments:
        parts += _experiment(experiment)
    if report.gates:
        gates = [(gate.experiment, gate.gate, "open" if gate.open else "closed", gate.why) for gate in report.gates]
        parts += ["<h2>Gates</h2>", *table(("before", "gate", "", "why"), gates)]
    if report.findings:
        found = [(each.severity, each.name, each.guard, each.evidence) for each in report.findings]
        parts += ["<h2>Findings about the code</h2>", *table(("severity", "finding", "guard", "evidence"), found)]
    return page(f"{report.name}: {title_of(report)}", about, parts)


def page(title: str, about: str, parts: Iterable[str]) -> str:
    """A page of ``parts``, which are HTML already; ``title`` and ``about`` are not."""
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{text(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{text(about)}.</p>',
    ]
    return "\n".join([*head, *parts, "</body></html>", ""])


def _experiment(experiment: ExperimentReport) -> Iterable[str]:
    status = experiment.status.value
    yield f'<h3>{text(experiment.name)}: <span class="{status}">{text(status)}</span></h3>'
    if experiment.reasons:
        yield f"<ul>{''.join(f'<li>{text(reason)}</li>' for reason in experiment.reasons)}</ul>"
    absorbed = share(experiment.absorbed_share)
    yield f"<p>Injected {experiment.injected}, touched {experiment.touched} calls, absorbed {absorbed}, "
    yield f"recovered after {number(experiment.recovered_after, ' s')}.</p>"
    if experiment.points:
        yield "<figure>"
        yield lines_over_time(experiment.points, experiment.phases)
        yield "<figcaption>Share of good calls (line), 95th percentile (dashed), touched calls (bars), phases (bands).</figcaption>"
        yield "</figure>"
    for heading, columns, rows in facts(experiment):
        yield f'<p class="soft">{text(heading)}</p>'
        yield from table(columns, rows)
    for check in experiment.checks:
        yield f'<p class="soft">Hypothesis, {text(moment(check.moment))}</p>'
        yield from table(
            ("probe", "value", "holds", "why"),
            [(each.probe, number(each.value), "yes" if each.holds else "no", each.why) for each in check.readings],
        )


def _recovery_times(report: GameDayReport) -> list[tuple[str, float | None]]:
    return [(incident.id, incident.seconds) for experiment in report.experiments for incident in experiment.incidents]


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table of plain values; nothing without rows."""
    body = [f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows]
    if not body:
        return []
    head = f"<tr>{''.join(f'<th>{text(column)}</th>' for column in columns)}</tr>" if any(columns) else ""
    return ["<table>", head, *body, "</table>"]


def _cell(value: Any) -> str:
    mark = f' class="{value}"' if value in {"yes", "no"} else ""
    return f"<td{mark}>{text(value)}</td>"


def text(value: Any) -> str:
    """Text that means nothing to HTML; what cannot be printed becomes a space."""
    return escape("".join(c if c.isprintable() or c == "\n" else " " for c in str(value)))
