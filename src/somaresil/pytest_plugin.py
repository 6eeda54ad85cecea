"""The pytest plugin: fixtures and markers for tests of resilience. Loaded by pytest itself; ``-p no:somaresil`` leaves it out.

Loading it imports nothing but pytest: everything else waits for the first test that asks for it.

Fixtures: ``resilience``, ``chaos``, ``virtual_time``, ``fault_events``, ``slo``. Markers: ``chaos``, ``virtual_time``.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    from somaresil.chaos import ChaosEngine, FaultWindow
    from somaresil.resilience import Resilience
    from somaresil.slo import SLO, ErrorBudget
    from somaresil.testing.clock import VirtualClock
    from somaresil.testing.watch import History

__all__ = ["Objectives"]

PROPERTY: Final = "somaresil"
"""Name of the property of a report that carries the figures of a test: from xdist's workers too, and into JUnit XML."""

_CLOCK = pytest.StashKey["VirtualClock"]()
_HISTORY = pytest.StashKey["History"]()
_SESSION = pytest.StashKey["_Session"]()
_HOOK: Final = "pytest_asyncio_loop_factories"


# -- options ------------------------------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what can be set in the ini file, and one option."""
    group = parser.getgroup("somaresil", "resilience")
    group.addoption("--somaresil-plans", metavar="DIR", default=None, help="write the plan of each broken invariant to DIR as JSON")
    parser.addini("somaresil_resilience", "module:name of the service's Resilience; without it each test gets one of its own", default="")
    parser.addini("somaresil_seed", "seed of the resilience fixture", default="0")
    parser.addini("somaresil_stall", "real seconds after which a stalled virtual loop gives up", default="5")
    parser.addini("somaresil_virtual_time", "run every coroutine test in virtual time", type="bool", default=False)
    parser.addini("somaresil_faulted_guards_fail_under", "fail unless this percentage of the guards seen was struck by a fault", default="")


class _Session:
    """What the plugin knows of one run of pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.item: pytest.Item | None = None
        """The test that runs now."""
        problems: list[str] = []
        self.seed = _whole(config, "somaresil_seed", problems)
        self.stall = _number(config, "somaresil_stall", 0.01, 3_600.0, problems) or 5.0
        self.fail_under = _number(config, "somaresil_faulted_guards_fail_under", 0.0, 100.0, problems)
        self.reference = str(config.getini("somaresil_resilience")).strip()
        if self.reference and not all(part.isidentifier() for part in self.reference.replace(":", ".", 1).split(".")):
            problems.append(f"somaresil_resilience = {self.reference!r}: expected module:name")
        if problems:
            raise pytest.UsageError("\n".join([f"{len(problems)} problem(s) in the ini options of somaresil", *problems]))

    def service(self) -> Resilience | None:
        """The ``Resilience`` that the ini file names; None: it names none."""
        if not self.reference:
            return None
        from importlib import import_module

        from somaresil.resilience import Resilience

        module, _, name = self.reference.partition(":")
        try:
            found: Any = import_module(module)
            for part in (name or "resilience").split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as error:
            raise pytest.UsageError(f"somaresil_resilience = {self.reference!r}: {type(error).__name__}: {error}") from error
        if not isinstance(found, Resilience):
            raise pytest.UsageError(f"somaresil_resilience = {self.reference!r}: expected a Resilience, found {type(found).__name__}")
        return found


def _whole(config: pytest.Config, name: str, problems: list[str]) -> int:
    value = str(config.getini(name)).strip()
    if value.isdecimal():
        return int(value)
    problems.append(f"{name} = {value!r}: expected a whole number >= 0")
    return 0


def _number(config: pytest.Config, name: str, least: float, most: float, problems: list[str]) -> float | None:
    value = str(config.getini(name)).strip()
    if not value:
        return None
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if least <= number <= most:
        return number
    problems.append(f"{name} = {value!r}: expected a number from {least:g} to {most:g}")
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers and read the options."""
    config.addinivalue_line(
        "markers",
        "chaos(target, kind='error', *, start=0, duration=3600, rate=1.0, delay=0.0, error=None, ...): a fault for the time of one test; "
        "the options are those of somaresil.FaultWindow",
    )
    config.addinivalue_line(
        "markers", "virtual_time(*, patched=False): run the test in virtual time; patched: time.monotonic, time.time, datetime.now as well"
    )
    session = config.stash[_SESSION] = _Session(config)
    if session.reference:
        # Read when the service is imported, by its Resilience: so that a test can take it through virtual time.
        _set_variable(config, "SOMARESIL_CLOCK", "steered")
    folder = config.getoption("somaresil_plans")
    if folder:
        _set_variable(config, "SOMARESIL_PLANS", str(folder))


def _set_variable(config: pytest.Config, name: str, value: str) -> None:
    """For as long as this pytest runs."""
    before = os.environ.get(name)
    os.environ[name] = value

    def put_back() -> None:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before

    config.add_cleanup(put_back)


# -- virtual time -------------------------------------------------------------------------------------------------------------------------


def _is_virtual(node: Any, config: pytest.Config) -> bool:
    """Whether a test runs in virtual time: marked, using the fixture, or all of them."""
    if node.get_closest_marker("virtual_time") is not None or "virtual_time" in getattr(node, "fixturenames", ()):
        return True
    return bool(config.getini("somaresil_virtual_time")) and inspect.iscoroutinefunction(getattr(node, "obj", None))


def _has_loop_factories(config: pytest.Config) -> bool:
    return hasattr(config.hook, _HOOK)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: Any) -> None:
    """Give coroutine tests in virtual time to pytest-asyncio where it is there, so that their async fixtures share the loop."""
    function = getattr(obj, "__func__", obj)
    if not inspect.iscoroutinefunction(function) or not collector.funcnamefilter(name) or not _has_loop_factories(collector.config):
        return
    marks = [*getattr(function, "pytestmark", ()), *collector.iter_markers()]
    names = {mark.name for mark in marks}
    asked = "virtual_time" in names or "virtual_time" in inspect.signature(function).parameters
    if (asked or collector.config.getini("somaresil_virtual_time")) and not names & {"asyncio", "anyio", "trio"}:
        pytest.mark.asyncio(function)


class _LoopFactories:
    """Says to pytest-asyncio which loop a test gets. Registered only while such a test is looked at: others must not notice it."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> Mapping[str, Callable[[], Any]]:
        """The virtual loop."""
        return {"virtual": self._new_loop}

    def _new_loop(self) -> Any:
        return _clock_of(self._session).new_loop()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Check the markers of a test, and have it run on the virtual loop if it is to."""
    config, test = metafunc.config, metafunc.definition
    problems = list(_problems_of(test, config.stash[_SESSION]))
    if problems:
        raise pytest.Collector.CollectError("\n".join([f"{test.nodeid}: {len(problems)} problem(s) in its markers", *problems]))
    if not _is_virtual(test, config) or not _has_loop_factories(config):
        return (yield)
    scope = _loop_scope(test, config)
    if test.get_closest_marker("asyncio") is not None and scope != "function":
        raise pytest.Collector.CollectError(
            f"{test.nodeid}: virtual_time needs loop_scope='function', not {scope!r}: each test has its clock"
        )
    factories = _LoopFactories(config.stash[_SESSION])
    config.pluginmanager.register(factories)
    try:
        return (yield)
    finally:
        config.pluginmanager.unregister(factories)


def _loop_scope(test: Any, config: pytest.Config) -> str:
    marker = test.get_closest_marker("asyncio")
    if marker is not None and (scope := marker.kwargs.get("loop_scope") or marker.kwargs.get("scope")):
        return str(scope)
    try:
        return str(config.getini("asyncio_default_test_loop_scope") or "function")
    except (KeyError, ValueError):
        return "function"


def _clock_of(session: _Session) -> VirtualClock:
    """The virtual clock of the test that runs now, made when it is first needed."""
    item = session.item
    if item is None:
        raise RuntimeError("a virtual loop is made outside of a test")
    if _CLOCK not in item.stash:
        from somaresil.testing.clock import VirtualClock

        item.stash[_CLOCK] = VirtualClock(stall=session.stall)
    return item.stash[_CLOCK]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests in virtual time that nobody else runs: without pytest-asyncio there is no other way."""
    session = pyfuncitem.config.stash[_SESSION]
    if not inspect.iscoroutinefunction(pyfuncitem.obj) or not _is_virtual(pyfuncitem, pyfuncitem.config):
        return None
    if pyfuncitem.get_closest_marker("anyio") is not None:
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}  # noqa: SLF001 - as pytest's own does
    _clock_of(session).run(pyfuncitem.obj(**arguments))
    return True


# -- a test and its end -------------------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Know which test runs; whatever it has begun ends with it."""
    session = item.config.stash[_SESSION]
    session.item = item
    before = _live_runs()
    with ExitStack() as stack:
        if session.reference and _is_virtual(item, item.config):
            from somaresil.clock import STEERED

            stack.enter_context(STEERED.by(_clock_of(session)))
        try:
            return (yield)
        finally:
            session.item = None
            for run in _live_runs() - before:
                run.end("stopped")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Let third parties live in virtual time for tests that ask for it."""
    marker = item.get_closest_marker("virtual_time")
    if marker is None or not marker.kwargs.get("patched", False):
        return (yield)
    with _clock_of(item.config.stash[_SESSION]).patched():
        return (yield)


def _live_runs() -> set[Any]:
    """Every experiment of this process that is not over."""
    module = sys.modules.get("somaresil.resilience")
    if module is None:
        return set()
    return {run for resilience in module.alive() for run in resilience.chaos.history if run.end_reason is None}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Show the time line below the traceback of a test that failed under faults."""
    report: Any = yield
    history = item.stash.get(_HISTORY, None)
    if report.failed and history is not None and history.moments:
        report.sections.append(("somaresil time line", history.timeline()))
    return report


# -- markers ------------------------------------------------------------------------------------------------------------------------------


def _problems_of(test: Any, session: _Session) -> Iterator[str]:
    """What is wrong with the markers of a test."""
    marker = test.get_closest_marker("virtual_time")
    if marker is not None:
        unknown = sorted(set(marker.kwargs) - {"patched"})
        if marker.args or unknown:
            yield f"virtual_time: expected patched=True or nothing, found {', '.join([*map(repr, marker.args), *unknown])}"
    for marker in test.iter_markers("chaos"):
        yield from _problems_of_chaos(marker, session)


def _problems_of_chaos(marker: pytest.Mark, session: _Session) -> Iterator[str]:
    from somaresil.chaos.engine import unknown_target
    from somaresil.config import did_you_mean
    from somaresil.errors import ConfigurationError
    from somaresil.model.selector import matches

    try:
        window, _ = _window_of(marker)
    except ConfigurationError as wrong:
        yield from (f"chaos.{problem}" for problem in wrong.problems)
        return
    except TypeError as wrong:
        known = [name for name in inspect.signature(_fault).parameters if name not in {"target", "kind"}]
        hints = [did_you_mean(name, known) for name in marker.kwargs if name not in known]
        yield f"chaos: {str(wrong).removeprefix('_fault() ')} ({'; '.join([*filter(None, hints), 'options: ' + ', '.join(known)])})"
        return
    service = session.service()
    if service is not None and not window.target.startswith("http:") and not any(matches(window.target, name) for name in service.guards):
        allowed, hint = unknown_target(window.target, service.guards)
        yield f"chaos.target = {window.target!r}: expected {allowed}{f' ({hint})' if hint else ''}"


def _fault(
    target: str,
    kind: str = "error",
    *,
    start: float = 0.0,
    duration: float = 3_600.0,
    rate: float = 1.0,
    delay: float = 0.0,
    error: Any = None,
    status: int = 503,
    after_items: int = 1,
    calls: Any = None,
    path: str | None = None,
) -> tuple[dict[str, Any], Any]:
    """The options of the chaos marker: those of a window, and an error that may be the thing itself."""
    window = dict(locals())
    named = error is None or isinstance(error, str)
    window["error"] = error if named else "marked"
    if isinstance(calls, int) and not isinstance(calls, bool):
        window["calls"] = (calls,)
    return window, None if named else error


def _window_of(marker: pytest.Mark) -> tuple[FaultWindow, dict[str, Any]]:
    from somaresil.chaos.plan import FaultWindow

    options, error = _fault(*marker.args, **marker.kwargs)
    return FaultWindow(**options), {} if error is None else {"marked": error}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the faults of markers begin when everything that a test uses is there."""
    for item in items:
        if item.get_closest_marker("chaos") is not None:
            # Items of other kinds than functions have none.
            getattr(item, "fixturenames", []).append("_marked_faults")


@pytest.fixture
def _marked_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    from somaresil.chaos.engine import unknown_target
    from somaresil.chaos.plan import ChaosPlan
    from somaresil.model.selector import matches

    chaos: ChaosEngine = request.getfixturevalue("chaos")
    resilience: Resilience = request.getfixturevalue("resilience")
    windows = []
    for marker in request.node.iter_markers("chaos"):
        window, errors = _window_of(marker)
        windows.append(window)
        chaos.arm_plan(ChaosPlan((window,), seed=request.config.stash[_SESSION].seed), errors=errors, await_guards=True)
    yield
    guards = resilience.guards
    lost = [
        window.target for window in windows if not window.target.startswith("http:") and not any(matches(window.target, n) for n in guards)
    ]
    if lost:
        hints = [f"chaos.target = {target!r}: expected {' '.join(filter(None, unknown_target(target, guards)))}" for target in lost]
        pytest.fail("\n".join(["a chaos marker has struck no guard of this test", *hints]), pytrace=False)


# -- fixtures -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def virtual_time(request: pytest.FixtureRequest) -> VirtualClock:
    """The virtual clock of this test. Using it makes the test run in virtual time, as ``@pytest.mark.virtual_time`` does."""
    return _clock_of(request.config.stash[_SESSION])


@pytest.fixture
def resilience(request: pytest.FixtureRequest) -> Iterator[Resilience]:
    """A ``Resilience``: the service's own when ``somaresil_resilience`` names it, else a new one for this test.

    In virtual time it lives on the virtual clock. A service's own has its circuits reset after the test. Override it in a conftest to hand
    out that of an app factory; ``chaos``, ``fault_events`` and ``slo`` follow.
    """
    session = request.config.stash[_SESSION]
    own = session.service()
    if own is None:
        from somaresil.resilience import Resilience

        clock = _clock_of(session) if _is_virtual(request.node, request.config) else None
        yield Resilience("test", environment="test", clock=clock, seed=session.seed)
        return
    yield own
    for guard in own.guards.values():
        if guard.breaker is not None:
            own.breaker(guard.name).reset()


@pytest.fixture
def fault_events(request: pytest.FixtureRequest, resilience: Resilience) -> Iterator[History]:
    """What happens in this test: every event and every call's end. See :class:`somaresil.testing.History`."""
    from somaresil.testing.watch import capture_events

    with capture_events(resilience) as history:
        request.node.stash[_HISTORY] = history
        yield history


@pytest.fixture
def chaos(request: pytest.FixtureRequest, resilience: Resilience, fault_events: History) -> Iterator[ChaosEngine]:
    """The chaos engine of ``resilience``, allowed for this test: ``await chaos.inject_errors("llm.*")``. All faults end with the test."""
    from somaresil.testing.faults import allow_chaos

    with allow_chaos(resilience):
        yield resilience.chaos
        request.node.user_properties.append((PROPERTY, json.dumps(_figures(request.node.nodeid, resilience, fault_events))))


class Objectives:
    """What the fixture ``slo`` gives: declare an objective in one line, and ask for its budget."""

    def __init__(self, resilience: Resilience, history: History) -> None:
        """Speak of the objectives of this process."""
        self._resilience = resilience
        self._history = history

    def __call__(
        self, name: str, target_percentage: float = 99.0, measurement_window: timedelta = timedelta(days=30), **options: Any
    ) -> SLO:
        """Add an objective, before the guard that names it. The options are those of :class:`somaresil.SLO`."""
        from somaresil.slo import SLO

        slo = SLO(name, target_percentage, measurement_window, **options)
        self._resilience.slos.add(slo)
        return slo

    def budget(self, name: str) -> ErrorBudget:
        """Its error budget now."""
        return self._resilience.slos.error_budget(name)

    def assert_budget(self, name: str, *, remaining: float = 0.0) -> float:
        """At least this share of its budget is left; fails with the time line. Returns the share."""
        from somaresil.testing.asserts import assert_budget

        return assert_budget(self._history, name, remaining=remaining)


@pytest.fixture
def slo(resilience: Resilience, fault_events: History) -> Objectives:
    """Objectives of ``resilience``: ``slo("llm_latency", 95.0, latency=2.0)``, then ``slo.assert_budget("llm_latency")``."""
    return Objectives(resilience, fault_events)


# -- summary ------------------------------------------------------------------------------------------------------------------------------


def _figures(test: str, resilience: Resilience, history: History) -> dict[str, Any]:
    touched = history.touched()
    worst = history.worst_recovery if history.injected else None
    return {
        "test": test,
        "injected": history.injected,
        "touched": touched,
        "absorbed": round((history.absorbed() or 0.0) * touched),
        # JSON has no infinity.
        "recovery": None if worst is None or worst == float("inf") else worst,
        "unrecovered": worst == float("inf"),
        "guards": sorted(resilience.guards)[:1_000],
        "faulted": sorted({guard for run in resilience.chaos.history for guard in run.struck})[:1_000],
    }


class _Figures:
    """Adds up what tests report; only where results come together: the one process, or xdist's controller."""

    def __init__(self) -> None:
        self.tests: list[dict[str, Any]] = []

    @property
    def guards(self) -> set[str]:
        return {guard for test in self.tests for guard in test["guards"]}

    @property
    def never_faulted(self) -> list[str]:
        return sorted(self.guards - {guard for test in self.tests for guard in test["faulted"]})

    def lines(self) -> Iterator[str]:
        injected, touched, absorbed = (sum(test[name] for test in self.tests) for name in ("injected", "touched", "absorbed"))
        share = f"{absorbed / touched:.1%} absorbed ({absorbed} of {touched} touched calls)" if touched else "no call was touched"
        yield f"{len(self.tests)} tests with faults: {injected} injected, {share}"
        known = [(test["recovery"], test["test"]) for test in self.tests if test["recovery"] is not None]
        if known:
            seconds, test = max(known)
            yield f"worst recovery {seconds:.3g} s in {test}"
        lost = [test["test"] for test in self.tests if test["unrecovered"]]
        if lost:
            yield f"not recovered when the test ended: {len(lost)}, the first in {lost[0]}"
        if self.never_faulted:
            yield f"guards never faulted: {', '.join(self.never_faulted)}"


_FIGURES = pytest.StashKey[_Figures]()


def _figures_of(config: pytest.Config) -> _Figures:
    if _FIGURES not in config.stash:
        config.stash[_FIGURES] = _Figures()
    return config.stash[_FIGURES]


class _Collector:
    """Hears the reports of all tests."""

    def __init__(self, figures: _Figures) -> None:
        self._figures = figures

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the figures out of the report of a test's end."""
        if report.when == "teardown":
            self._figures.tests += [json.loads(str(value)) for name, value in report.user_properties if name == PROPERTY]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin to add up."""
    session.config.pluginmanager.register(_Collector(_figures_of(session.config)), "somaresil-figures")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print injected, absorbed and the worst recovery."""
    figures = _figures_of(config)
    if figures.tests:
        terminalreporter.section("somaresil")
        for line in figures.lines():
            terminalreporter.write_line(line)
        if (problem := _too_few(config)) is not None:
            terminalreporter.write_line(f"FAILED: {problem}", red=True)


def _too_few(config: pytest.Config) -> str | None:
    """Why too few guards were struck; None: enough were, or nobody asks."""
    limit, figures = config.stash[_SESSION].fail_under, _figures_of(config)
    if limit is None or hasattr(config, "workerinput") or not figures.guards:
        return None
    share = 100.0 * (1.0 - len(figures.never_faulted) / len(figures.guards))
    return (
        None
        if share >= limit
        else f"{share:.0f} % of the guards were struck by a fault, somaresil_faulted_guards_fail_under is {limit:g} %"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run when too few guards were struck."""
    if exitstatus == pytest.ExitCode.OK and _too_few(session.config) is not None:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
