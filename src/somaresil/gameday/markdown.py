"""A report as Markdown, for pull requests and chats. Everything that came from outside is escaped: a name must not become a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.gameday.words import facts, moment, number, share, title_of, totals, when
from somaresil.markdown import plain, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.gameday.report import ExperimentReport, GameDayReport

__all__ = ["to_markdown"]


def to_markdown(report: GameDayReport) -> str:
    """The whole report."""
    lines = [
        f"# {plain(report.name)}: {title_of(report)}",
        "",
        f"Service {plain(report.service)}, seed {report.seed}, {when(report.started_at)}, {number(report.seconds)} s.",
        "",
        *table(("", ""), totals(report)),
    ]
    if report.interrupted is not None:
        lines += [f"Interrupted: {plain(report.interrupted)}.", ""]
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
    yield from (f"### {plain(experiment.name)}: {experiment.status.value}", "")
    for reason in experiment.reasons:
        yield f"- {plain(reason)}"
    if experiment.reasons:
        yield ""
    for heading, columns, rows in facts(experiment):
        yield from (f"{plain(heading)}:", "", *table(columns, rows))
    for check in experiment.checks:
        rows = [(each.probe, number(each.value), "yes" if each.holds else "no", each.why) for each in check.readings]
        yield from (f"Hypothesis, {moment(check.moment)}:", "", *table(("probe", "value", "holds", "why"), rows))
