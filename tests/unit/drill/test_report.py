"""The report follows from the verdicts on the faults, and every form of it says the same."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from somaresil.drill.judge import Impact, Judgement, unavailable
from somaresil.drill.main import write
from somaresil.drill.render import to_html, to_junit, to_markdown
from somaresil.drill.report import Agreement, Budget, DrillReport, FaultResult, Footprint

GOOD = Judgement(Impact.ABSORBED, True, "", 3, 20, 0, 0.1, 0.0, 1.2)
NOTICED = Judgement(Impact.FAILED, True, "", 9, 20, 4, 0.1, 1.4, 1.3)
LOST = Judgement(Impact.FAILED, False, "the users had no steady service again within 20 s", 9, 200, 150, 0.1, None, 1.3)


def fault(number, verdict=GOOD, **changes):
    known = {"kind": "error", "realm": "guards", "role": "worker", "target": "llm/*", "radius": "zone", "rate": 1.0}
    return FaultResult(number=number, **{**known, **changes}, verdict=verdict)


def report_of(*verdicts, **changes):
    faults = tuple(fault(number, verdict) for number, verdict in enumerate(verdicts, start=1))
    known = {
        "version": "1",
        "seed": 7,
        "form": "processes",
        "platform": "x",
        "started_at": 0.0,
        "seconds": 300.0,
        "rate": 24.0,
        "limit": 20.0,
    }
    return DrillReport(**{**known, "requests": 10, "bad_requests": 1, "faults": faults, **changes})


@pytest.mark.parametrize(("recovered", "lost", "passed"), [(73, 0, True), (72, 0, False), (206, 4, True), (205, 5, False)])
def test_the_grade_is_the_lower_end_of_the_wilson_interval(recovered, lost, passed):
    """73 of 73 show 95 %; 72 of 72 do not."""
    report = report_of(*[GOOD] * recovered, *[LOST] * lost)
    assert report.passed is passed
    assert (report.lower_bound >= 0.95) is passed


def test_a_drill_that_has_injected_nothing_is_not_passed():
    assert report_of().problems == ("no fault was injected, so nothing was shown",)
    assert not report_of(*[unavailable("no")] * 100).passed


def test_a_slow_recovery_is_no_pass():
    slow = replace(NOTICED, recovered_after=300.0)
    report = report_of(*[GOOD] * 100, slow)
    assert report.slowest == 300.0
    assert "300 s" in report.problems[0]


def test_books_that_do_not_agree_are_no_pass():
    report = report_of(*[GOOD] * 100, agreement=Agreement(5, 4, ("worker-1 error: 5 and 4",)))
    assert "worker-1 error: 5 and 4" in report.problems[0]
    assert report_of(*[GOOD] * 100, agreement=Agreement(5, 5, ())).passed


def test_a_lost_message_is_no_pass():
    assert report_of(*[GOOD] * 100, acknowledged=9, lost=("q1",)).problems == ("1 of 9 acknowledged messages are lost: q1",)


def test_what_the_platform_cannot_do_is_on_neither_side():
    report = report_of(*[GOOD] * 100, *[unavailable("no filters here")] * 50)
    assert (report.recovered, len(report.counted), report.passed) == (100, 100, True)
    assert "no filters here" in to_markdown(report)


def test_times_are_of_those_that_were_recovered_from():
    times = report_of(GOOD, NOTICED, LOST).times
    assert (times["recovery"].count, times["recovery"].most) == (2, 1.4)
    assert (times["noticed"].count, times["noticed"].least) == (1, 1.4)
    assert times["clean"].most == 1.3
    assert times["detection"].count == 3


NASTY = "</td><script>alert(1)</script>|x\x00"


def test_every_form_says_the_same_and_nothing_gets_out_of_it(tmp_path):
    faults = (fault(1), fault(2, LOST, struck=("worker-1",), sign=NASTY, reasons=(NASTY,)), fault(3, unavailable(NASTY)))
    report = report_of(
        faults=faults,
        budgets=(Budget("worker-1", "availability", 10, 1, None, 0.5),),
        footprints=(("worker-1", Footprint(30, 4, 60 << 20), Footprint(31, 5, 61 << 20)),),
    )
    write(report, tmp_path)
    data = json.loads((tmp_path / "drill.json").read_text(encoding="utf-8"))
    assert data["summary"]["recovered"] == 1
    assert data["summary"]["impacts"] == {"absorbed": 1, "failed": 1, "unavailable": 1}
    assert [each["number"] for each in data["faults"]] == [1, 2, 3]
    page, text = to_html(report), to_markdown(report)
    assert "<script" not in page
    assert "|x" not in text.replace("\\|x", "")
    for form in (page, text.replace("\\", "")):
        assert "1 of 2" in form
        assert "30 → 31" in form
    (suite,) = ET.fromstring(to_junit(report))
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {"tests": "4", "failures": "2", "skipped": "1"}
    assert len(suite.findall("testcase/failure")) == 2


def test_a_report_without_faults_can_be_written(tmp_path):
    write(report_of(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"drill.json", "drill.md", "drill.html", "drill.xml"}
