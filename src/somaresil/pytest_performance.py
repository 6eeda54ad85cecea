"""The part of the pytest plugin that is about performance; ``-p no:somaresil.pytest_performance`` leaves it out.

Marker: ``performance_budget``. Fixture: ``perf_budget``. Timing is judged only with ``--somaresil-perf``: a test that was meant to show
that something works must not fail because the machine was busy. Without it everything runs once, and nothing is timed.

Where pytest-benchmark is there, the marker on a test that uses its fixture is judged by its rounds, and ``--somaresil-perf-baseline FILE``
compares all of them with those of another run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator
    from typing import ParamSpec, TypeVar

    from somaresil.perf.budget import BudgetReport, PerformanceBudget

    P = ParamSpec("P")
    T = TypeVar("T")

__all__ = ["BudgetedCalls"]

_ASKED: Final = "somaresil_perf"
_BASELINE: Final = "somaresil_perf_baseline"
_MARKER: Final = "performance_budget"
_ROUNDS: Final = 500
_MOST_ROUNDS: Final = 1_000_000
_ENDPOINT: Final = "test"
_CALLS: pytest.StashKey[BudgetedCalls] = pytest.StashKey()
_LINES: pytest.StashKey[list[str]] = pytest.StashKey()
_MARKED: pytest.StashKey[dict[str, PerformanceBudget]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("somaresil", "resilience")
    group.addoption("--somaresil-perf", action="store_true", default=False, help="judge performance budgets: time what they are about")
    group.addoption(
        "--somaresil-perf-baseline",
        metavar="FILE",
        default=None,
        help="compare the benchmarks of this run with those of a file of results, and fail when one regressed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse to time several workers at once."""
    config.addinivalue_line(
        "markers",
        "performance_budget(*, p50_ms=None, p95_ms=None, p99_ms=None, ...): what a test may take, judged with --somaresil-perf; the limits "
        "are those of somaresil.perf.PerformanceBudget",
    )
    config.stash[_LINES] = []
    config.stash[_MARKED] = {}
    asked = config.getoption(_ASKED) or config.getoption(_BASELINE) is not None
    if asked and (hasattr(config, "workerinput") or getattr(config.option, "numprocesses", None)):
        raise pytest.UsageError("--somaresil-perf: workers of pytest-xdist disturb one another; run it without -n")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse markers that are wrong, or on tests that measure nothing."""
    for item in items:
        if (marker := item.get_closest_marker(_MARKER)) is not None:
            budget = _budget_of(item, marker)
            fixtures = getattr(item, "fixturenames", ())
            if "benchmark" in fixtures:
                item.config.stash[_MARKED][item.nodeid] = budget
            elif "perf_budget" not in fixtures:
                raise pytest.UsageError(
                    f"{item.nodeid}: {_MARKER} needs the fixture perf_budget, or that of pytest-benchmark: nothing is timed"
                )


def _budget_of(item: pytest.Item, marker: pytest.Mark) -> PerformanceBudget:
    from somaresil.errors import ConfigurationError
    from somaresil.perf.budget import PerformanceBudget

    if marker.args:
        raise pytest.UsageError(f"{item.nodeid}: {_MARKER} has limits with names, such as p95_ms=5, and no others")
    try:
        return PerformanceBudget.of({**marker.kwargs, "endpoint": _ENDPOINT}, path=_MARKER)
    except ConfigurationError as wrong:
        raise pytest.UsageError(f"{item.nodeid}: {wrong}") from None


class BudgetedCalls:
    """The fixture ``perf_budget``: calls that are timed when timing is asked for, and made once when not."""

    __slots__ = ("_durations", "asked")

    def __init__(self, *, asked: bool) -> None:
        """``asked``: whether anything is timed."""
        self.asked = asked
        self._durations: list[float] = []

    @property
    def durations(self) -> tuple[float, ...]:
        """Seconds of each call; empty when nothing was timed."""
        return tuple(self._durations)

    def measure(self, function: Callable[[], T], *, rounds: int = _ROUNDS, warmup: int = 5) -> T:
        """Call it ``rounds`` times, and first ``warmup`` times without timing; once when nothing is timed. Gives what the last returned."""
        _check(rounds, warmup)
        if not self.asked:
            return function()
        from somaresil.clock import SystemClock

        now = SystemClock().monotonic
        for _ in range(warmup):
            function()
        for _ in range(rounds - 1):
            begun = now()
            function()
            self._durations.append(now() - begun)
        begun = now()
        result = function()
        self._durations.append(now() - begun)
        return result

    async def ameasure(self, function: Callable[[], Awaitable[T]], *, rounds: int = _ROUNDS, warmup: int = 5) -> T:
        """The same for what is awaited."""
        _check(rounds, warmup)
        if not self.asked:
            return await function()
        from somaresil.clock import SystemClock

        now = SystemClock().monotonic
        for _ in range(warmup):
            await function()
        for _ in range(rounds - 1):
            begun = now()
            await function()
            self._durations.append(now() - begun)
        begun = now()
        result = await function()
        self._durations.append(now() - begun)
        return result


def _check(rounds: int, warmup: int) -> None:
    from somaresil.config import Checker

    check = Checker("perf_budget")
    check.count("rounds", rounds, maximum=_MOST_ROUNDS)
    check.count("warmup", warmup, minimum=0, maximum=_MOST_ROUNDS)
    check.finish()


@pytest.fixture
def perf_budget(request: pytest.FixtureRequest) -> Iterator[BudgetedCalls]:
    """Time calls against the marker ``performance_budget``: ``perf_budget.measure(lambda: parse(text))``."""
    calls = request.node.stash[_CALLS] = BudgetedCalls(asked=bool(request.config.getoption(_ASKED)))
    yield calls
    del request.node.stash[_CALLS]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test that has passed, and whose budget is not kept or not known to be."""
    result: Any = yield
    calls, marker = item.stash.get(_CALLS, None), item.get_closest_marker(_MARKER)
    if calls is not None and calls.asked and marker is not None:
        report = _judged(_budget_of(item, marker), calls.durations)
        item.config.stash[_LINES] += _words(item.nodeid, report)
        if report.status.value != "kept":
            pytest.fail("\n".join(_words(item.nodeid, report)), pytrace=False)
    return result


def _judged(budget: PerformanceBudget, durations: tuple[float, ...]) -> BudgetReport:
    from somaresil.perf.budget import Measured

    return budget.check(Measured(_ENDPOINT, latencies=durations))


def _words(name: str, report: BudgetReport) -> list[str]:
    return [
        f"{name}: budget {report.status.value}",
        *(f"  {each.limit} {each.allowed:g}: {each.status.value}: {each.reason}" for each in report.checks),
    ]


# -- pytest-benchmark ---------------------------------------------------------------------------------------------------------------------


def _rounds_of(config: pytest.Config) -> dict[str, tuple[float, ...]]:
    """The rounds of each benchmark of this run, by the name of its test; nothing without that plugin."""
    session = getattr(config, "_benchmarksession", None)
    found: dict[str, tuple[float, ...]] = {}
    for each in getattr(session, "benchmarks", ()):
        data = getattr(getattr(each, "stats", None), "data", ())
        # Its statistics stand one within another in some releases.
        data = data or getattr(getattr(getattr(each, "stats", None), "stats", None), "data", ())
        found[str(getattr(each, "fullname", ""))] = tuple(map(float, data))
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Judge the benchmarks of pytest-benchmark, when that was asked."""
    config = session.config
    rounds = _rounds_of(config)
    lines, bad = config.stash[_LINES], False
    if config.getoption(_ASKED):
        for name, budget in config.stash[_MARKED].items():
            if name in rounds:
                report = _judged(budget, rounds[name])
                lines += _words(name, report)
                bad = bad or report.status.value != "kept"
            elif exitstatus == pytest.ExitCode.OK:
                lines.append(f"{name}: budget unknown: pytest-benchmark has measured nothing")
                bad = True
    baseline = config.getoption(_BASELINE)
    if baseline is not None:
        told, worse = _against(str(baseline), rounds)
        lines += told
        bad = bad or worse
    if bad and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _against(path: str, rounds: dict[str, tuple[float, ...]]) -> tuple[list[str], bool]:
    """What became of each benchmark since that file, and whether one regressed or cannot be told."""
    from somaresil.errors import ConfigurationError
    from somaresil.perf.detector import Change, RegressionDetector
    from somaresil.perf.machine import this_machine
    from somaresil.perf.read import read_results
    from somaresil.perf.samples import merge

    try:
        results = read_results(path)
        before = {name: each.values for (name, metric), each in merge(results).items() if metric == "duration"}
    except ConfigurationError as wrong:
        return [f"baseline: {wrong}"], True
    differs = {words for result in results if result.machine is not None for words in this_machine().differences(result.machine)}
    if differs:
        return [f"baseline of another machine: {'; '.join(sorted(differs))}: not compared"], True
    pairs = {name: (before[name], values) for name, values in sorted(rounds.items()) if name in before and values}
    if not pairs:
        return [f"baseline: no benchmark of this run is in {path}"], True
    found = RegressionDetector().compare_all(pairs)
    gone = [f"{name}: unknown: the baseline has it, and it was not measured now" for name in sorted(before) if name not in pairs]
    lines = [f"{each.name}: {each.change.value}: {each.reason}" for each in found]
    return lines + gone, bool(gone) or any(each.change in {Change.REGRESSED, Change.UNKNOWN} for each in found)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was judged."""
    lines = config.stash.get(_LINES, [])
    if lines:
        terminalreporter.section("somaresil performance")
        for line in lines:
            terminalreporter.write_line(line)
