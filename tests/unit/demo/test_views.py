"""What is shown while a demo runs: lines for pipes and logs, a drawing for terminals."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest

pytest.importorskip("rich")

from rich.console import Console

from somaresil.demo import terminal
from somaresil.demo.canary import terminal as canary
from somaresil.demo.canary.acts import ACTS
from somaresil.demo.canary.report import Point, Side
from somaresil.demo.canary.run import Moment as CanaryMoment
from somaresil.demo.drill import PHASES, Moment
from somaresil.demo.load import Figures
from somaresil.demo.report import PhaseResult

SEEN = Figures(requests=120, failed=2, degraded=3, per_second=24.0, p50=0.1, p95=0.25, p99=None)


class Screen(io.StringIO):
    def isatty(self):
        return True


def drawn(view_class):
    """A view and what its terminal has got; frames are drawn by hand, not by the clock."""
    out = io.StringIO()
    view = view_class(Console(file=out, force_terminal=True, width=120, color_system=None))
    view._live.auto_refresh = False
    return view, out


def state(service, *, worker="closed", burn=0.0, left=0.5):
    return {
        "service": service,
        "guards": {
            "llm.stream": {"state": "closed", "calls": 7, "touched": 1, "bad": 0, "rejected": 0},
            "worker.call": {"state": worker, "calls": 40, "touched": 9, "bad": 4, "rejected": 11},
        },
        "budgets": {"answers": {"burn_5m": burn, "burn_1h": None, "good": 99, "bad": 1, "remaining_share": left}},
        "experiments": [{"injected": 4}, {"injected": 5}],
    }


def moment(elapsed, **changes):
    return Moment(PHASES[1], elapsed, 60.0, SEEN, 17, state("gateway", **changes), state("worker", left=None))


@pytest.mark.parametrize("module", [terminal, canary])
def test_a_terminal_gets_a_drawing_and_a_pipe_gets_lines(module, monkeypatch):
    """Also a terminal that can draw nothing gets lines."""
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(module.view_for(Screen()), module.LiveView)
    assert isinstance(module.view_for(io.StringIO()), module.PlainView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(module.view_for(Screen()), module.PlainView)


def test_lines_of_a_drill_tell_every_two_seconds_what_clients_see_and_which_circuits_are_not_closed():
    out = io.StringIO()
    with terminal.PlainView(out) as view:
        view.note("starting")
        view.phase(PHASES[1])
        view.moment(moment(10.0))
        view.moment(moment(11.9, worker="open"))
        view.moment(moment(12.0, worker="open", burn=14.5))
        view.ended(PhaseResult("latency", 12.0, SEEN, 31))
    lines = out.getvalue().splitlines()
    assert lines[:2] == ["starting", f"== latency: {PHASES[1].says}"]
    figures = "24.0 rps, p50 100 ms, p95 250 ms, p99 -, 2 failed, 3 degraded, 9 injected"
    assert lines[2:4] == [
        f" 10.0 s  {figures}; all circuits closed; burn 5m: none",
        f" 12.0 s  {figures}; worker.call open; burn 5m: answers 14.50",
    ]
    assert lines[4:] == ["   120 requests, 2 failed, 3 degraded, 31 faults injected"]


def test_the_drawing_of_a_drill_shows_both_services_and_leaves_the_lines_of_its_phases():
    view, out = drawn(terminal.LiveView)
    with view:
        view.note("starting")
        view.phase(PHASES[1])
        view.moment(moment(3.0, worker="half_open", burn=2.0))
        view._live.refresh()
        view.ended(PhaseResult("latency", 12.0, SEEN, 31))
    text = out.getvalue()
    assert "starting" in text
    assert f"latency  {PHASES[1].says}" in text
    assert "3.0 of 60 s    24.0 rps   17 in flight   9 faults injected" in text
    rows = {tuple(line.split()) for line in text.splitlines()}
    assert ("worker.call", "half_open", "40", "9", "4", "11") in rows
    assert ("worker.call", "(worker)", "closed", "40", "9", "4", "11") in rows
    assert ("answers", "2.00", "-", "99", "1", "50.0%") in rows
    assert ("answers", "(worker)", "0.00", "-", "99", "1", "-") in rows
    assert "120 requests, 2 failed, 3 degraded, 31 faults injected" in text


def side(requests=30, failed=4, late=1):
    return Side(requests=requests, failed=failed, late=late, p50=0.03, p95=0.2, p99=0.5)


def canary_moment(elapsed, evidence=None):
    point = None if evidence is None else Point(elapsed, 30, 5, evidence * 2.0 - 1.0, 1.0, 0.1)
    return CanaryMoment(ACTS[0], elapsed, 11.0, "ramp_10", 0.1, "it bakes", point, 100.0, side(), side(270, 0, 0), 8)


def result(**changes):
    known = {"outcome": "rollback", "wanted": "rollback", "seconds": 2.0, "candidate": side(), "bad_before": 3, "detection_seconds": 0.9}
    return SimpleNamespace(**{**known, **changes})


def test_lines_of_a_canary_tell_once_a_second_what_users_see_and_the_evidence():
    out = io.StringIO()
    with canary.PlainView(out) as view:
        view.act(ACTS[0])
        view.moment(canary_moment(0.0))
        view.moment(canary_moment(0.5, 10.0))
        view.moment(canary_moment(1.0, 10.0))
        view.ended(result())
        view.act(ACTS[1])
        view.moment(canary_moment(0.2))
        view.ended(result(seconds=None, outcome="ramp_50"))
    lines = out.getvalue().splitlines()
    figures = "ramp_10, 10%: 30 requests in 5 s, 4 failed, 1 late, p50 30 ms, p95 200 ms"
    assert lines == [
        f"== errors: version 2.0.0; {ACTS[0].says}",
        f"  0.0 s  {figures}; no evidence yet",
        f"  1.0 s  {figures}; evidence 10 of 100 (5 of 30 bad)",
        "   rolled back after 2.0 s and 30 requests; users had 3 bad answers by then, 0.9 s after the first of them",
        f"== tail: version 2.0.1; {ACTS[1].says}",
        f"  0.2 s  {figures}; no evidence yet",
        "   still in ramp_50 when its time was up",
    ]


def test_the_drawing_of_a_canary_has_both_versions_and_a_gauge_in_powers():
    view, out = drawn(canary.LiveView)
    with view:
        view.act(ACTS[0])
        view.moment(canary_moment(1.0))
        view._live.refresh()
        empty = out.getvalue()
        view.moment(canary_moment(2.0, 10.0))
        view._live.refresh()
        view.moment(canary_moment(3.0, 1e9))
        view._live.refresh()
        view.ended(result())
    text = out.getvalue()
    bars = [line for line in text.splitlines() if line.lstrip().startswith("[") and set(line.strip()) <= set("[]#.")]
    assert f"[{'.' * canary._BAR}]" in empty
    # Ten is half of the way from one to a hundred.
    half = round(canary._BAR / 2)
    assert f"[{'#' * half}{'.' * (canary._BAR - half)}]" in bars
    assert f"[{'#' * canary._BAR}]" in bars
    assert "of at most 11 s   10% of the traffic   8 in flight" in text
    assert [line.split() for line in empty.splitlines() if line.startswith("2.0.0")] == [
        ["2.0.0", "30", "30", "ms", "200", "ms", "500", "ms", "4", "1"]
    ]
    assert "rolled back after 2.0 s" in text
