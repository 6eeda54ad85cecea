"""Performance budgets of tests as seen from outside: nothing is timed unless that is asked. Each test runs a pytest of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

CALLS = """
    import time

    import pytest

    calls = []

    @pytest.mark.performance_budget(p50_ms=LIMIT)
    def test_it(perf_budget):
        assert perf_budget.measure(lambda: calls.append(1) or len(calls), rounds=ROUNDS) == len(calls)
        print("calls:", len(calls), "timed:", len(perf_budget.durations))
"""


def suite(project, *, limit=1000.0, rounds=300, source=CALLS):
    """Write a suite with one budget."""
    project.makepyfile(source.replace("LIMIT", str(limit)).replace("ROUNDS", str(rounds)))


def test_without_being_asked_it_is_called_once_and_not_timed(project):
    """A budget that cannot be kept fails nobody then."""
    suite(project, limit=1e-9)
    result = project.runpytest_inprocess("-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*calls: 1 timed: 0*"])
    assert "somaresil performance" not in result.stdout.str()


def test_a_budget_that_is_kept(project):
    """Every round is timed, those that warm up are not, and the answer is printed."""
    suite(project)
    result = project.runpytest_inprocess("-s", "--somaresil-perf")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["*calls: 305 timed: 300*", "*somaresil performance*", "*::test_it: budget kept", "*p50_ms 1000: kept: 0 of 300*"]
    )


def test_a_budget_that_is_broken_fails_the_test(project):
    """With what was measured."""
    suite(project, limit=1e-9)
    result = project.runpytest_inprocess("--somaresil-perf")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*budget broken", "*p50_ms 1e-09: broken: 300 of 300 take longer*"])


def test_too_few_rounds_fail_too_and_say_how_many_would_do(project):
    """What is not known is not kept."""
    suite(project, rounds=2)
    result = project.runpytest_inprocess("--somaresil-perf")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*budget unknown", "*so many cannot decide, about 7 would*"])


def test_what_is_awaited_is_timed_too(project):
    """In the test's own loop."""
    project.makepyfile(
        """
    import asyncio

    import pytest

    @pytest.mark.performance_budget(p95_ms=1000)
    def test_it(perf_budget):
        async def work():
            await asyncio.sleep(0)
            return 7

        async def main():
            return await perf_budget.ameasure(work, rounds=200)

        assert asyncio.run(main()) == 7
        assert len(perf_budget.durations) == 200 * perf_budget.asked
"""
    )
    project.runpytest_inprocess("--somaresil-perf").assert_outcomes(passed=1)
    project.runpytest_inprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("marker", "fixture", "said"),
    [
        ("p95=5", "perf_budget", "*the unit is part of the name: p95_ms*"),
        ("5", "perf_budget", "*limits with names*"),
        ("", "perf_budget", "*a budget without a limit is always kept*"),
        ("p95_ms=5", "tmp_path", "*nothing is timed*"),
    ],
)
def test_wrong_markers_are_refused_before_anything_runs(project, marker, fixture, said):
    """Also when nothing is timed."""
    project.makepyfile(f"import pytest\n@pytest.mark.performance_budget({marker})\ndef test_it({fixture}): ...")
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])


def test_rounds_are_checked(project):
    """Wrong numbers are refused, timed or not."""
    suite(project, rounds=0)
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*perf_budget.rounds = 0: expected a whole number >= 1*"])


def test_workers_are_not_timed(project):
    """They disturb one another."""
    pytest.importorskip("xdist")
    suite(project)
    result = project.runpytest_subprocess("--somaresil-perf", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*workers of pytest-xdist disturb one another*"])


def test_loading_it_imports_nothing_but_pytest():
    """Who does not use it pays nothing."""
    program = "import sys, pytest; before = set(sys.modules); import somaresil.pytest_performance; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "somaresil.perf" not in done.stdout
