"""A report as Markdown, for pull requests and chats. Everything that came from outside is escaped: a name must not become a link."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from somaresil.gameday.words import facts, moment, number, share, title_of, totals, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.gameday.report import ExperimentReport, GameDayReport

__all__ = ["table", "to_markdown"]

_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]()<>#+!|~&:@-])")


def to_markdown(report: GameDayReport) -> str:
    """The whole report."""
    lines = [
        f"# {_text(report.name)}: {title_of(report)}",
        "",
        f"Service {_text(report.service)}, seed {report.seed}, {when(report.started_at)}, {number(report.seconds)} s.",
        "",
        *table(("", ""), totals(report)),
    ]
    if report.interrupted is not None:
        lines += [f"Interrupted: {_text(report.interrupted)}.", ""]
    lines += ["## Experiments", ""]
    rows: list[Sequence[str]] = [
        (each.name, each.status.value, str(each.injected), share(each.absorbed_share), number(each.recovered_after, " s"))
        for each in report.experiments
    ]
    lines += table(("experiment", "status", "injected", "absorbed", "recovered after"), rows)
    for experiment in report.experiments:
        lines += _experiment(experiment)
    if report.gates:
        rows = [(gate.experiment, gate.gate, "open" if gate.open else "closed", gate.why) for gate in report.gates]
        lines += ["## Gates", "", *table(("before", "gate", "", "why"), rows)]
    if report.findings:
        rows = [(found.severity, found.name, found.guard, found.evidence) for found in report.findings]
        lines += ["## Findings about the code", "", *table(("severity", "finding", "guard", "evidence"), rows)]
    return "\n".join(lines)


def _experiment(experiment: ExperimentReport) -> Iterable[str]:
    yield from (f"### {_text(experiment.name)}: {experiment.status.value}", "")
    for reason in experiment.reasons:
        yield f"- {_text(reason)}"
    if experiment.reasons:
        yield ""
    for heading, columns, rows in facts(experiment):
        yield from (f"{_text(heading)}:", "", *table(columns, rows))
    for check in experiment.checks:
        rows = [(each.probe, number(each.value), "yes" if each.holds else "no", each.why) for each in check.readings]
        yield from (f"Hypothesis, {moment(check.moment)}:", "", *table(("probe", "value", "holds", "why"), rows))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A table of plain values, and an empty line; nothing without rows."""
    listed = [*rows]
    if not listed:
        return []
    body = [f"| {' | '.join(_text(cell) for cell in row)} |" for row in listed]
    return [f"| {' | '.join(columns)} |", f"|{'|'.join('---' for _ in columns)}|", *body, ""]


def _text(value: Any) -> str:
    """Text that means nothing to Markdown, on one line."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return _SPECIAL.sub(r"\\\1", plain)
