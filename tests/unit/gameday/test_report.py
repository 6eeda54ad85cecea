"""Reports: their round trip through JSON, and that no rendering lets through what came from outside."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.gameday import ExperimentReport, Finding, GameDayReport, Groups, Status, to_html, to_junit, to_markdown
from somaresil.gameday.report import FaultReport, GateReport, IncidentReport, Recovery
from tests.unit.gameday.kit import SOME, World, experiment

TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "table", "tr", "th", "td", "ul", "li", "span"}
TAGS |= {"figure", "figcaption", "svg", "path", "rect", "text"}
EVIL = "<script>alert(1)</script>\"'&]]>|`[x](http://evil)\x00\x1b[2J\ud800\ufffe\n# title"


@pytest.fixture(scope="module")
def played():
    """A day with groups, so that every part of a report is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOMARESIL_CHAOS", "1")
        one = experiment(SOME, name="groups", groups=Groups(0.4, tolerance=0.5), baseline=20.0)
        return World().play(experiment(), one, findings=[Finding("storm", "high", "x")])


def of(*statuses, **options):
    experiments = tuple(ExperimentReport(f"e{number}", status, ("why",)) for number, status in enumerate(statuses))
    return GameDayReport("day", "gateway", 7, 1_700_000_000.0, 12.5, experiments, **options)


def evil():
    fault, incident = FaultReport({"target": EVIL, "kind": EVIL}, 1, EVIL), IncidentReport(EVIL, EVIL, None, False, True)
    each = ExperimentReport(EVIL, Status.DEVIATED, (EVIL,), faults=(fault,), incidents=(incident,))
    gate, finding = GateReport(EVIL, EVIL, False, EVIL), Finding(EVIL, EVIL, EVIL)
    return GameDayReport(EVIL, EVIL, 7, 1e300, 1.0, (each,), (gate,), (finding,), EVIL, EVIL)


def test_a_report_comes_back_from_json(played):
    """To the last figure."""
    assert GameDayReport.from_json(played.to_json()) == played
    assert GameDayReport.from_dict(played.as_dict()) == played
    assert json.loads(played.to_json())["summary"]["injected"] == played.injected


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"somaresil_gameday_report": 2}, "somaresil_gameday_report"),
        ({"somaresil_gameday_report": True}, "somaresil_gameday_report"),
        ({"sed": 1}, "sed"),
        ({"seed": "7"}, "seed"),
        ({"experiments": [{"name": "x", "status": "hold"}]}, "experiments.[0].status"),
        ({"experiments": 1}, "experiments"),
        ({"gates": [{"experiment": "x"}]}, "gates.[0].gate"),
    ],
)
def test_what_is_no_report_is_refused_with_its_path(change, path):
    """Other versions, unknown fields, other types, missing ones."""
    with pytest.raises(ConfigurationError) as refused:
        GameDayReport.from_dict({**of(Status.HELD).as_dict(), **change})
    assert f"report.{path}" in [problem.path for problem in refused.value.problems]


@pytest.mark.parametrize("text", ["", "[]", "1", "{", '{"somaresil_gameday_report": NaN}', "[" * 100_000])
def test_text_that_is_no_report_is_refused(text):
    """By one kind of error."""
    with pytest.raises(ConfigurationError):
        GameDayReport.from_json(text)


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ([Status.HELD, Status.HELD], 0),
        ([Status.HELD, Status.DEVIATED], 1),
        ([Status.ABORTED], 1),
        ([Status.UNPROVEN], 1),
        ([Status.HELD, Status.SKIPPED], 1),
        ([Status.HELD, Status.FAILED, Status.DEVIATED], 2),
        ([Status.NOT_STARTED, Status.SKIPPED], 3),
        ([Status.NOT_STARTED, Status.DEVIATED], 1),
        ([Status.FAILED, Status.INTERRUPTED], 130),
    ],
)
def test_the_worst_of_a_day_is_its_exit_code(statuses, code):
    """Interrupted before failed, failed before deviated, deviated before not started."""
    assert of(*statuses).exit_code == code


def test_an_end_from_outside_is_never_good():
    """Not even when all experiments had held."""
    assert of(Status.HELD, interrupted="SIGINT").exit_code == 130


def test_recovery_is_judged_by_its_lower_bound():
    """20 of 20 show 83.9 %; none shows nothing."""
    each = ExperimentReport("e", Status.HELD, recovery=Recovery(10, 10))
    assert replace(of(), experiments=(each, each)).recovery.lower_bound == pytest.approx(0.8389, abs=1e-4)
    assert of().recovery.lower_bound is None
    assert of().recoveries is None


class Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in {"meta", "rect", "path"}:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_one_page_without_script_or_network(played):
    """Well-formed, nothing that loads or runs, a policy that forbids it, and plots."""
    for report in (played, evil(), of(Status.HELD)):
        text = to_html(report)
        page = Page()
        page.feed(text)
        assert page.open == []
        assert page.tags <= TAGS
        assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"href", "src"}]
        assert "default-src 'none'" in text
        assert re.findall(r"[\x00-\x08\x0b-\x1f\ud800-\udfff]", text) == []
    assert "svg" in to_html(played)


def test_svg_plots_are_xml(played):
    """Each of them by itself."""
    plots = re.findall(r"<svg.*?</svg>", to_html(played), re.DOTALL)
    assert len(plots) >= 2
    for plot in plots:
        ET.fromstring(plot)


def test_junit_is_what_ci_systems_read(played):
    """Counts are those of the cases, each case has at most one result, times are seconds."""
    for report in (played, evil(), of(Status.DEVIATED, Status.FAILED, Status.SKIPPED, Status.UNPROVEN, Status.HELD, Status.NOT_STARTED)):
        root = ET.fromstring(to_junit(report).encode())
        (suite,) = root
        cases = suite.findall("testcase")
        assert [root.tag, suite.tag] == ["testsuites", "testsuite"]
        assert int(suite.get("tests")) == len(cases) == len(report.experiments)
        for tag, attribute in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.get(attribute)) == int(root.get(attribute)) == len(suite.findall(f"testcase/{tag}"))
        for case in cases:
            assert case.get("name")
            assert case.get("classname")
            assert float(case.get("time")) >= 0.0
            assert len([child for child in case if child.tag in {"failure", "error", "skipped"}]) <= 1


@given(st.text())
def test_any_text_stays_text(text):
    """In XML it is read as it was, but for what XML cannot hold; in Markdown it makes no line, no link and no tag of its own."""
    each = ExperimentReport("e", Status.DEVIATED, (text,))
    report = replace(of(), experiments=(each,))
    found = ET.fromstring(to_junit(report).encode()).find("*/testcase/failure").text or ""
    legal = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\N{REPLACEMENT CHARACTER}", text)
    assert found == re.sub(r"\r\n?", "\n", legal)
    lines = to_markdown(report).splitlines()
    (line,) = [line for line in lines if line.startswith("- ")]
    assert re.search(r"(?<!\\)(?:\\\\)*[<\[|`#*]", line.removeprefix("- ")) is None


def test_markdown_keeps_its_tables(played):
    """Every row of a table has as many cells as its head, whatever is in them."""
    for report in (played, evil()):
        width = None
        for line in to_markdown(report).splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
            assert cells is None or width is None or cells == width
            width = cells
