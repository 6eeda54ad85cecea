"""The report of the demo: what it judges, what it prints, and how it ends."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

pytest.importorskip("rich")
pytest.importorskip("httpx")

from somaresil.demo.load import Figures
from somaresil.demo.report import Absorbed, Budget, Chaos, Failure, Incident, Memory, PhaseResult, Report
from somaresil.demo.terminal import print_report

SEEN = Figures(requests=100, failed=0, degraded=4, per_second=20.0, p50=0.1, p95=0.2, p99=0.3)
BUDGET = {"good": 990, "bad": 10, "burn_5m": 1.5, "burn_1h": None, "remaining_share": 0.25}


def report(**changes):
    run = {"component": "llm.stream", "fault": "error", "rate": 0.3, "injected": 20}
    known = {
        "version": "1.0",
        "seed": 7,
        "rate": 20.0,
        "seconds": 61.2,
        "phases": (PhaseResult("steady", 12.0, SEEN, 0), PhaseResult("errors", 12.0, replace(SEEN, failed=3), 20)),
        "failures": (Failure("stream", "status 503", 3, 2),),
        "chaos": Chaos(({**run, "ended": "expired"}, {**run, "ended": "stop_all"}, {**run, "ended": None}), 4.2, 0),
        "absorbed": Absorbed(50, 49, {"llm.stream": {"dependency": 40, "fallback": 9, "failed": 1}}, 40, 40),
        "incidents": (Incident("inc-1", "worker.call", 8.0, recovered=True, injected=True),),
        "budgets": (
            Budget("gateway", "answers", 99.0, {**BUDGET, "remaining_share": None}, BUDGET),
            Budget("worker", "work", 95.0, BUDGET, BUDGET),
        ),
        "memory": Memory(80, 0, 12, 0, 1),
        "verdict": {"decision": "hold", "blocks": True, "reasons": ["the budget of answers is burnt"]},
    }
    return Report(**{**known, **changes})


def printed(told):
    out = io.StringIO()
    print_report(told, out)
    return out.getvalue()


def rows(text, first):
    return [line.split()[len(first.split()) :] for line in text.splitlines() if line.startswith(f"{first} ")]


def test_a_drill_that_was_withstood_is_printed_with_its_figures():
    told = report()
    text = printed(told)
    assert told.passed
    assert rows(text, "errors") == [["100", "20.0", "100", "ms", "200", "ms", "300", "ms", "3", "4", "20"]]
    assert "Clients saw 3 x stream: status 503 (2 of them touched by an experiment)" in text
    assert "Injected: 60 faults" in text
    endings = [line for line in text.splitlines() if line.startswith("llm.stream") and "30%" in line]
    assert [line.rpartition("20 ")[2].strip() for line in endings] == ["its lease", "kill switch", "nothing yet"]
    assert "Kill switch: 4.2 ms over HTTP; 0 faults after it." in text
    assert "Absorbed: 98.00% (asked for: 95%)" in text
    assert "Clients saw    40 of 40 in requests that ended well:    100.00%" in text
    assert "MTTR 8.0 s" in text
    assert rows(text, "inc-1") == [["an", "experiment", "8.0", "s"]]
    assert "80 exchanges acknowledged, 0 of them missing in the store;" in text
    assert rows(text, "answers") == [["99", "%", "-", "25.0%", "990", "10", "1.50", "-"]]
    assert rows(text, "work (worker)") == [["95", "%", "25.0%", "25.0%", "990", "10", "1.50", "-"]]
    assert "computed twice" not in text
    assert "Release the gateway now? HOLD" in text
    assert "  the budget of answers is burnt" in text
    assert "The drill is PASSED" in text
    assert "Note:" not in text
    assert text.endswith("seed 7, 20 requests a second, 61.2 s, somaresil 1.0\n")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"chaos": Chaos((), 1.0, 0)}, "no fault was injected, so nothing was shown"),
        ({"absorbed": Absorbed(0, 0, {}, 0, 0)}, "no fault was injected, so nothing was shown"),
        ({"absorbed": Absorbed(100, 94, {}, 100, 100)}, "94.0% of the touched calls were absorbed, less than 95%"),
        ({"absorbed": Absorbed(100, 100, {}, 100, 90)}, "90.0% of the touched calls were absorbed, less than 95%"),
        ({"incidents": ()}, "no circuit opened, so no recovery was shown"),
        ({"incidents": (Incident("i", "g", None, recovered=False, injected=False),)}, "incident i has not ended in a closed circuit"),
        ({"incidents": (Incident("i", "g", 300.0, recovered=True, injected=False),)}, "incident i took 300 s, not less than 300 s"),
        ({"memory": Memory(80, 2, 12, 0, 1)}, "2 exchanges that were acknowledged are not in the memory store"),
    ],
)
def test_what_was_not_withstood_is_named(changes, why):
    told = report(**changes)
    assert told.problems == (why,)
    text = printed(told)
    assert "NOT PASSED" in text
    assert f"  {why}\n" in text


def test_faults_after_the_kill_switch_are_a_problem():
    told = report()
    assert replace(told, chaos=replace(told.chaos, after_stop=3)).problems == ("3 faults were injected after the kill switch",)


def test_what_is_unknown_is_printed_as_unknown():
    told = report(absorbed=Absorbed(0, 0, {}, 0, 0), incidents=(Incident("i", "g", None, recovered=False, injected=False),))
    text = printed(told)
    assert "Absorbed: unknown" in text
    assert "MTTR -" in text
    assert rows(text, "i") == [["failures", "of", "its", "own", "not", "recovered"]]


@pytest.mark.parametrize("steady", [replace(SEEN, failed=6), replace(SEEN, p95=1.1)])
def test_a_machine_that_is_too_slow_is_told_apart_from_the_faults(steady):
    told = report(phases=(PhaseResult("steady", 12.0, steady, 0),))
    assert "could not keep up with 20 requests a second; try a lower --rate" in told.hint
    assert f"Note: {told.hint}." in printed(told)


def test_burn_rates_of_prometheus_stand_beside_ours():
    compared = {"slo": "answers", "window": 300, "in_process": 1.5, "promql": 1.25, "difference": None}
    text = printed(report(prometheus=(compared,)))
    assert rows(text, "answers")[-1] == ["300", "s", "1.5", "1.25", "no", "events"]


def test_the_report_as_json_has_plain_figures_without_nan():
    data = json.loads(json.dumps(report(phases=(PhaseResult("steady", 12.0, replace(SEEN, p99=None), 0),)).as_dict(), allow_nan=False))
    assert data["passed"] is True
    assert data["phases"][0] | {"requests": 100} == {
        "name": "steady",
        "seconds": 12.0,
        "injected": 0,
        "requests": 100,
        "per_second": 20.0,
        "failed": 0,
        "degraded": 4,
        "p50_seconds": 0.1,
        "p95_seconds": 0.2,
        "p99_seconds": None,
    }
    assert data["absorbed"]["share"] == 0.98
    assert data["mttr_seconds"] == 8.0
