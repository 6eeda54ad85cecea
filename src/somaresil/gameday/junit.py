"""A report as JUnit XML, the form in which CI systems take results: an experiment is a test case.

Held is a pass; deviated and aborted are failures; failed is an error, and so is what was interrupted; not started, skipped and unproven
are skips. Unproven is no pass: nothing was shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from somaresil.gameday.report import Status
from somaresil.gameday.words import when

if TYPE_CHECKING:
    from somaresil.gameday.report import ExperimentReport, GameDayReport

__all__ = ["legal", "to_junit"]

_TAGS: Final = {
    Status.DEVIATED: "failure",
    Status.ABORTED: "failure",
    Status.FAILED: "error",
    Status.INTERRUPTED: "error",
    Status.NOT_STARTED: "skipped",
    Status.SKIPPED: "skipped",
    Status.UNPROVEN: "skipped",
}
_PLAIN: Final = "\t\n\r"
_LOW, _HIGH = 0x20, 0xD800
_AFTER_SURROGATES, _BEFORE_NON_CHARACTERS = 0xE000, 0xFFFD


def to_junit(report: GameDayReport) -> str:
    """The whole report, as one test suite, with an XML declaration."""
    tags = [_TAGS.get(experiment.status) for experiment in report.experiments]
    counts = {
        "tests": str(len(tags)),
        "failures": str(tags.count("failure")),
        "errors": str(tags.count("error")),
        "skipped": str(tags.count("skipped")),
        "time": f"{report.seconds:.3f}",
    }
    suites = Element("testsuites", {"name": legal(report.name), **counts})
    # ISO 8601 without a zone, which is what the schemas in use want.
    stamp = when(report.started_at).removesuffix(" UTC").replace(" ", "T")
    suite = SubElement(suites, "testsuite", {"name": legal(report.name), **counts, "timestamp": stamp, "hostname": legal(report.service)})
    properties = SubElement(suite, "properties")
    for name, value in (("service", report.service), ("seed", report.seed), ("somaresil", report.version)):
        SubElement(properties, "property", {"name": name, "value": legal(str(value))})
    for found in report.findings:
        said = f"{found.guard}: {found.name} ({found.severity}) {found.evidence}"
        SubElement(properties, "property", {"name": "finding", "value": legal(said)})
    for experiment in report.experiments:
        _case(suite, report, experiment)
    indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(suites, encoding="unicode")}\n'


def _case(suite: Element, report: GameDayReport, experiment: ExperimentReport) -> None:
    named = {"classname": legal(f"gameday.{report.service}"), "name": legal(experiment.name), "time": f"{experiment.seconds:.3f}"}
    case = SubElement(suite, "testcase", named)
    tag = _TAGS.get(experiment.status)
    if tag is not None:
        first = experiment.reasons[0] if experiment.reasons else ""
        result = SubElement(case, tag, {"message": legal(first), "type": experiment.status.value})
        result.text = legal("\n".join(experiment.reasons))
    lines = [f"injected {experiment.injected}, touched {experiment.touched}, absorbed {experiment.absorbed}"]
    lines += [f"recovered after {experiment.recovered_after:g} s"] if experiment.recovered_after is not None else []
    SubElement(case, "system-out").text = legal("\n".join(lines))


def legal(text: str) -> str:
    """What XML 1.0 can hold (production 2, Char): a control character would make the whole file unreadable, also when it is escaped."""
    return "".join(character if _is_legal(character) else "\N{REPLACEMENT CHARACTER}" for character in text)


def _is_legal(character: str) -> bool:
    code = ord(character)
    return character in _PLAIN or _LOW <= code < _HIGH or _AFTER_SURROGATES <= code <= _BEFORE_NON_CHARACTERS or code > 0xFFFF  # noqa: PLR2004
