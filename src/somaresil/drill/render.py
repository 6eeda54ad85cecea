"""A report as Markdown, as one HTML page and as JUnit XML, in the manner of game days (:mod:`somaresil.gameday`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from somaresil import markdown
from somaresil.drill.report import RECOVERY_AT_LEAST, RECOVERY_WITHIN
from somaresil.gameday import html, junit
from somaresil.gameday.svg import bars, histogram
from somaresil.gameday.words import number, share, when

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.drill.report import DrillReport, FaultResult, Footprint

__all__ = ["title_of", "to_html", "to_junit", "to_markdown"]

_Row = tuple[str, ...]
_SLOWEST: Final = 20
_TIMES: Final = {
    "recovery": "to recovery (users)",
    "noticed": "the same, where users noticed",
    "clean": "until nothing was left",
    "detection": "to detection",
}


def title_of(report: DrillReport) -> str:
    """The verdict in a few words."""
    return f"{'passed' if report.passed else 'not passed'}: {report.recovered} of {len(report.counted)} faults recovered from"


def _totals(report: DrillReport) -> list[_Row]:
    slowest, bound = report.slowest, report.lower_bound
    touched, good = sum(fault.touched for fault in report.faults), sum(fault.touched_good for fault in report.faults)
    strikes = sum(fault.verdict.injected for fault in report.faults)
    undetected = sum(fault.verdict.detected_after is None for fault in report.counted)
    rows: list[_Row] = [
        ("faults", f"{len(report.faults)}, {len(report.counted)} of which this platform can do"),
        ("recovered from", f"{report.recovered} of {len(report.counted)}"),
        ("recovery rate, lower end of the 95 % Wilson interval", f"{share(bound)}, at least {RECOVERY_AT_LEAST:.0%} is needed"),
        ("slowest recovery", f"{number(slowest, ' s')}, less than {RECOVERY_WITHIN:.0f} s is needed"),
        ("what users saw", ", ".join(f"{count} {impact}" for impact, count in report.impacts().items())),
        ("noticed by nobody", f"{undetected} faults"),
        ("strikes", str(strikes)),
        ("calls touched", f"{touched}, {good} of which ended well all the same ({share(good / touched if touched else None)})"),
        ("requests of users", f"{report.requests}, {report.bad_requests} of which were not good"),
    ]
    rows.append(("messages acknowledged", f"{report.acknowledged}, {len(report.lost)} of which are lost"))
    agreement = report.agreement
    if agreement is None:
        rows.append(("Prometheus", "there was none to ask"))
    else:
        word = "agrees" if agreement.agree else f"does not agree: {'; '.join(agreement.differences)}"
        rows.append(("Prometheus", f"{word}; control apps {agreement.control} strikes, Prometheus {agreement.prometheus}"))
    return rows


def _sections(report: DrillReport) -> Iterable[tuple[str, _Row, list[_Row]]]:
    yield "Not passed because", ("problem",), [(problem,) for problem in report.problems]
    lost = [fault for fault in report.counted if not fault.verdict.recovered]
    yield "Not recovered from", ("fault", "why", "users saw"), [(each.name, each.verdict.why, "; ".join(each.reasons)) for each in lost]
    missing = [fault for fault in report.faults if not fault.verdict.counts]
    yield "What this platform cannot do", ("fault", "why"), [(each.name, each.verdict.why) for each in missing]
    times = [
        (words, str(each.count), *(number(value, " s") for value in (each.least, each.mean, each.p50, each.p95, each.most)))
        for name, words in _TIMES.items()
        if (each := report.times[name]) is not None
    ]
    yield "Seconds", ("", "faults", "least", "mean", "median", "95th percentile", "most"), times
    for what in ("radius", "role", "realm", "kind"):
        yield (
            f"By {what}",
            (what, "faults", "recovered", "absorbed", "degraded", "failed", "strikes", "repeats"),
            [_group(name, faults) for name, faults in report.by(what).items()],
        )
    yield (
        "Error budgets",
        ("instance", "objective", "good", "bad", "left before", "left after"),
        [(each.instance, each.slo, str(each.good), str(each.bad), share(each.before), share(each.after)) for each in report.budgets],
    )
    yield (
        "Processes before the first fault and after the last",
        ("instance", "descriptors", "threads", "memory, MiB"),
        [
            (name, *(f"{then} → {now}" for then, now in zip(_of(before), _of(after), strict=True)))
            for name, before, after in report.footprints
        ],
    )
    columns = ("fault", "rate", "struck", "strikes", "impact", "recovered", "noticed by", "detection", "recovery", "clean", "repeats")
    yield "All faults", columns, [_fault(fault) for fault in report.faults]


def _of(footprint: Footprint) -> tuple[int, int, int]:
    return footprint.descriptors, footprint.threads, footprint.memory >> 20


def _group(name: str, faults: Sequence[FaultResult]) -> _Row:
    counted = [fault for fault in faults if fault.verdict.counts]
    impacts = [fault.verdict.impact.value for fault in faults]
    repeats = [fault.amplification for fault in counted if fault.amplification is not None]
    return (
        name,
        str(len(faults)),
        f"{sum(fault.verdict.recovered for fault in counted)} of {len(counted)}",
        *(str(impacts.count(impact)) for impact in ("absorbed", "degraded", "failed")),
        str(sum(fault.verdict.injected for fault in faults)),
        number(sum(repeats) / len(repeats) if repeats else None),
    )


def _fault(fault: FaultResult) -> _Row:
    verdict = fault.verdict
    return (
        fault.name,
        share(fault.rate),
        ", ".join(fault.struck) or "nobody",
        str(verdict.injected),
        verdict.impact.value,
        "yes" if verdict.recovered else "no",
        fault.sign,
        *(number(value, " s") for value in (verdict.detected_after, verdict.recovered_after, verdict.clean_after)),
        number(fault.amplification),
    )


def _about(report: DrillReport) -> str:
    return (
        f"{report.form}, seed {report.seed}, {report.rate:g} requests a second, {when(report.started_at)}, {number(report.seconds)} s, "
        f"somaresil {report.version}, {report.platform}"
    )


def to_markdown(report: DrillReport) -> str:
    """For pull requests and chats. Everything that came from outside is escaped."""
    lines = [f"# Recovery drill {title_of(report)}", "", f"{_about(report)}.", "", *markdown.table(("", ""), _totals(report))]
    for heading, columns, rows in _sections(report):
        if rows:
            lines += [f"## {heading}", "", *markdown.table(columns, rows)]
    return "\n".join(lines)


def to_html(report: DrillReport) -> str:
    """One page that loads nothing: no script, plots as inline SVG."""
    times = sorted(((fault.name, fault.verdict.over_after) for fault in report.counted), key=_slowest_first)
    parts = [
        *html.table(("", ""), _totals(report)),
        "<figure>",
        histogram([seconds for _, seconds in times if seconds is not None]),
        "<figcaption>How many faults took how long until users had a steady service and nothing was left.</figcaption></figure>",
        "<figure>",
        bars(times[:_SLOWEST]),
        f"<figcaption>The {_SLOWEST} slowest: seconds until users had a steady service and nothing was left.</figcaption></figure>",
    ]
    for heading, columns, rows in _sections(report):
        if rows:
            parts += [f"<h2>{html.text(heading)}</h2>", *html.table(columns, rows)]
    return html.page(f"Recovery drill {title_of(report)}", _about(report), parts)


def _slowest_first(fault: tuple[str, float | None]) -> float:
    seconds = fault[1]
    return float("-inf") if seconds is None else -seconds


def to_junit(report: DrillReport) -> str:
    """Each fault is a test case: not recovered is a failure, unavailable is a skip; the judgement is a case of its own."""
    failures = sum(not fault.verdict.recovered for fault in report.counted) + (not report.passed)
    skipped = len(report.faults) - len(report.counted)
    counts = {"tests": str(len(report.faults) + 1), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    suites = Element("testsuites", {"name": "recovery drill", **counts, "time": f"{report.seconds:.3f}"})
    suite = SubElement(suites, "testsuite", {"name": "recovery drill", **counts, "time": f"{report.seconds:.3f}"})
    for fault in report.faults:
        case = _case(suite, fault.name, f"drill.{fault.role}", fault.verdict.over_after or 0.0)
        if not fault.verdict.counts:
            SubElement(case, "skipped", {"message": junit.legal(fault.verdict.why)})
        elif not fault.verdict.recovered:
            SubElement(case, "failure", {"message": junit.legal(fault.verdict.why), "type": fault.verdict.impact.value})
        SubElement(case, "system-out").text = junit.legal(fault.line)
    judged = _case(suite, "the drill was passed", "drill", report.seconds)
    if not report.passed:
        SubElement(judged, "failure", {"message": junit.legal(report.problems[0])}).text = junit.legal("\n".join(report.problems))
    indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _case(suite: Element, name: str, group: str, seconds: float) -> Any:
    return SubElement(suite, "testcase", {"classname": junit.legal(group), "name": junit.legal(name), "time": f"{seconds:.3f}"})
