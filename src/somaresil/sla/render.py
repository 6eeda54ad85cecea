"""A month as Markdown, as one HTML page and as tables for spreadsheets."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from somaresil import markdown
from somaresil.gameday import html
from somaresil.gameday.svg import share_over_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from somaresil.sla.month import Month

__all__ = ["files_of"]

_Table = tuple[str, tuple[str, ...], list[tuple[Any, ...]]]


def files_of(month: Month) -> dict[str, str]:
    """The report as texts by the names of their files."""
    name = f"sla-{month.period.name}"
    texts = {f"{name}.md": _markdown(month), f"{name}.html": _html(month)}
    for what, columns, rows in _tables(month):
        texts[f"{name}-{what.lower().replace(' ', '-')}.csv"] = _csv(columns, rows)
    steps = [(objective.name, start, left) for objective in month.objectives for start, left in _steps(month, objective.remaining)]
    texts[f"{name}-budget.csv"] = _csv(("slo", "hour", "remaining"), [(slo, start, _plain(left)) for slo, start, left in steps])
    return texts


def _title(month: Month) -> str:
    return f"Service levels of {', '.join(month.services) or 'nobody'} in {month.period.name}"


def _about(month: Month) -> str:
    unreadable = f", {month.unreadable} lines could not be read" if month.unreadable else ""
    return f"Zone {month.period.zone}; hours that nobody tells of are gaps{unreadable}"


def _tables(month: Month) -> Iterator[_Table]:
    yield (
        "Objectives",
        ("slo", "target %", "attained %", "met", "good", "bad", "touched by experiments", "budget left", "coverage"),
        [
            (
                each.name,
                f"{each.target:g}",
                _number(each.attained, ".4f"),
                {True: "yes", False: "no", None: "no events"}[each.met],
                each.good,
                each.bad,
                each.injected,
                _number(each.remaining_share, ".2%"),
                f"{each.coverage:.1%}",
            )
            for each in month.objectives
        ],
    )
    outages, delivery = month.outages, month.delivery
    yield (
        "Figures",
        ("figure", "value"),
        [
            ("incidents of guards", outages.incidents),
            ("not over", outages.unfinished),
            ("MTTR, s", _number(outages.mttr, ".1f")),
            ("MTTM, s", _number(outages.mttm, ".1f")),
            ("MTTD, s", _number(outages.mttd, ".1f")),
            ("MTBF, s", _number(outages.mtbf, ".1f")),
            ("deployments", delivery.deployments),
            ("deployments a day", f"{delivery.frequency:.2f}"),
            (f"change failure rate (incident within {month.within:g} s)", _number(delivery.failure_rate, ".1%")),
            ("failed deployment recovery time, s (median)", _number(delivery.recovery, ".1f")),
        ],
    )
    yield (
        "Outages",
        ("of", "name", "incidents", "not over", "MTTD, s", "MTTM, s", "MTTR, s", "MTBF, s"),
        [
            (kind, name, each.incidents, each.unfinished, *(_number(mean, ".1f") for mean in (each.mttd, each.mttm, each.mttr, each.mtbf)))
            for kind, name, each in month.outages_by
        ],
    )
    yield (
        "Worst hours",
        ("hour", "slo", "bad", "events"),
        [(month.period.local(each.start), each.slo, each.bad, each.good + each.bad) for each in month.worst],
    )
    yield (
        "Incidents",
        ("began", "id", "service", "instance", "guard or objective", "detected, s", "mitigated, s", "seconds", "recovered", "experiment"),
        [
            (
                month.period.local(each.started),
                each.id,
                each.service,
                each.instance,
                each.subject,
                f"{max(0.0, each.detected - each.started):.1f}",
                "" if each.mitigated is None else f"{max(0.0, each.mitigated - each.started):.1f}",
                _number(each.duration, ".1f"),
                "not over" if each.duration is None else _yes(each.recovered),
                each.experiment or _yes(each.injected),
            )
            for each in month.incidents
        ],
    )
    yield (
        "Deployments",
        ("at", "service", "version", "commit", "failed"),
        [
            (month.period.local(each.began), each.service, each.version, each.commit or "", _yes(failed))
            for each, failed in month.deployments
        ],
    )


def _markdown(month: Month) -> str:
    lines = [f"# {markdown.plain(_title(month))}", "", f"{markdown.plain(_about(month))}\\.", ""]
    for heading, columns, rows in _tables(month):
        lines += [f"## {heading}", "", *(markdown.table(columns, rows) or ["None.", ""])]
    return "\n".join(lines)


def _html(month: Month) -> str:
    parts: list[str] = []
    ends = (month.period.local(month.period.hours[0]), month.period.local(month.period.hours[-1]))
    for heading, columns, rows in _tables(month):
        parts += [f"<h2>{html.text(heading)}</h2>", *(html.table(columns, rows) if rows else ["<p>None.</p>"])]
        if heading == "Objectives":
            for each in month.objectives:
                plot = share_over_time(each.remaining, f"budget of {each.name}", ends)
                parts += ["<figure>", plot, f"<figcaption>Budget of {html.text(each.name)} that was left.</figcaption></figure>"]
    return html.page(_title(month), _about(month), parts)


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(columns)
    table.writerows([_harmless(cell) for cell in row] for row in rows)
    return written.getvalue()


def _harmless(cell: Any) -> Any:
    """A text that a spreadsheet does not take for a formula; numbers may be negative."""
    text = str(cell)
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(text.removesuffix("%"))
    except ValueError:
        return f"'{text}"
    return cell


def _steps(month: Month, values: Sequence[float | None]) -> Iterator[tuple[str, float | None]]:
    for start, value in zip(month.period.hours, values, strict=True):
        yield month.period.local(start), value


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _plain(value: float | None) -> str:
    return _number(value, ".6f")


def _yes(value: bool) -> str:  # noqa: FBT001 - the one thing that it is about
    return "yes" if value else "no"
