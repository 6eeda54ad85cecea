"""The pytest plugin: fixtures and markers for tests of resilience. Loaded by pytest itself; ``-p no:somaresil`` leaves it out.

Loading it imports nothing but pytest: everything else waits for the first test that asks for it.

Fixtures: ``resilience``, ``chaos``, ``virtual_time``, ``fault_events``, ``slo``, ``no_leaks``. Markers: ``chaos``, ``virtual_time``.
With it comes :mod:`somaresil.pytest_performance`.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from somaresil.chaos import ChaosEngine
    from somaresil.resilience import Resilience
    from somaresil.testing.clock import VirtualClock
    from somaresil.testing.figures import Figures, Simulated
    from somaresil.testing.leaks import LeakDetector
    from somaresil.testing.objectives import Objectives
    from somaresil.testing.session import Session
    from somaresil.testing.watch import History

__all__ = ["Objectives"]

pytest_plugins = ["somaresil.pytest_performance"]


def __getattr__(name: str) -> object:
    """For annotations of the fixture ``slo``."""
    if name == "Objectives":
        from somaresil.testing.objectives import Objectives

        return Objectives
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_CLOCK: pytest.StashKey[VirtualClock] = pytest.StashKey()
_HISTORY: pytest.StashKey[History] = pytest.StashKey()
_SIMULATED: pytest.StashKey[Simulated] = pytest.StashKey()
_SESSION: pytest.StashKey[Session] = pytest.StashKey()
_HOOK: Final = "pytest_asyncio_loop_factories"


# -- options ------------------------------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what can be set in the ini file, and one option."""
    group = parser.getgroup("somaresil", "resilience")
    group.addoption("--somaresil-plans", metavar="DIR", default=None, help="write the plan of each broken invariant to DIR as JSON")
    parser.addini("somaresil_resilience", "module:name of the service's Resilience; without it each test gets one of its own", default="")
    parser.addini("somaresil_seed", "seed of the resilience fixture", default="0")
    parser.addini("somaresil_stall", "real seconds after which a stalled virtual loop gives up", default="5")
    parser.addini("somaresil_most_jumps", "jumps from timer to timer after which a virtual loop gives up", default="1000000")
    parser.addini("somaresil_virtual_time", "run every coroutine test in virtual time", type="bool", default=False)
    parser.addini("somaresil_faulted_guards_fail_under", "fail unless this percentage of the guards seen was struck by a fault", default="")


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
    from somaresil.testing.session import Session

    session = config.stash[_SESSION] = Session(config, pytest.UsageError)
    if session.reference:
        # Read when the service is imported, by its Resilience: so that a test can take it through virtual time.
        _set_variable(config, "SOMARESIL_CLOCK", "steered")
    if not os.environ.get("SOMARESIL_CHAOS_SWITCH"):
        # A test that stops everything means its own experiments, not those of another process that has the same name for its service.
        _set_variable(config, "SOMARESIL_CHAOS_SWITCH", "off")
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


def _virtual_by(node: Any, config: pytest.Config) -> str:
    """What makes a test run in virtual time; empty: nothing does."""
    if node.get_closest_marker("virtual_time") is not None:
        return "the marker virtual_time"
    if "virtual_time" in getattr(node, "fixturenames", ()):
        return "the fixture virtual_time"
    return "the ini option somaresil_virtual_time" if config.getini("somaresil_virtual_time") and _is_coroutine(node) else ""


def _is_virtual(node: Any, config: pytest.Config) -> bool:
    return bool(_virtual_by(node, config))


def _is_coroutine(node: Any) -> bool:
    """Whether a test is a coroutine function, below Hypothesis too."""
    function = getattr(node, "obj", None)
    return inspect.iscoroutinefunction(getattr(getattr(function, "hypothesis", None), "inner_test", function))


def _is_virtual_for_some(test: Any) -> bool:
    """Whether the marker is on some parameters of a test. An iterator of them can be read only once, and that is for pytest."""
    given = [values for marker in test.iter_markers("parametrize") for values in (*marker.args[1:2], marker.kwargs.get("argvalues"))]
    params = [param for values in given if isinstance(values, list | tuple) for param in values]
    return any(mark.name == "virtual_time" for param in params for mark in getattr(param, "marks", ()))


def _is_of_anyio(node: Any) -> bool:
    return node.get_closest_marker("anyio") is not None or "anyio_backend" in getattr(node, "fixturenames", ())


def _is_of_nobody(node: Any) -> bool:
    """Whether no other plugin was asked to run a coroutine test."""
    return not _is_of_anyio(node) and all(node.get_closest_marker(name) is None for name in ("asyncio", "trio"))


def _has_loop_factories(config: pytest.Config) -> bool:
    return hasattr(config.hook, _HOOK)


# Inside of that of pytest-asyncio, which looks for its marker when this is done.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem(collector: Any) -> Generator[None, Any, Any]:
    """Give coroutine tests in virtual time to pytest-asyncio where it is there, so that their async fixtures share the loop."""
    config = collector.config
    session = config.stash[_SESSION]
    session.given = False
    made: Any = yield
    if session.given:
        for item in made:
            if _is_virtual(item, config) and _is_of_nobody(item):
                item.add_marker("asyncio")
    return made


class _LoopFactories:
    """Says to pytest-asyncio which loop a test gets. Registered only while such a test is looked at: others must not notice it."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @pytest.hookimpl(tryfirst=True, optionalhook=True)
    def pytest_asyncio_loop_factories(self) -> Mapping[str, Callable[[], Any]]:
        """The virtual loop."""
        return {"virtual": self._new_loop}

    def _new_loop(self) -> Any:
        item = self._session.item
        if item is not None and not _is_virtual(item, item.config):
            # Another parameter of the same function.
            from asyncio import new_event_loop

            return new_event_loop()
        return _new_loop(self._session)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Check the markers of a test, and have it run on the virtual loop if it is to."""
    config, test = metafunc.config, metafunc.definition
    _refuse(test, _problems_of(test, config.stash[_SESSION]))
    virtual = _is_virtual(test, config)
    if not _is_coroutine(test) or not (virtual or _is_virtual_for_some(test)):
        return (yield)
    from somaresil.testing.runners import wide_loops

    asyncio = _has_loop_factories(config) and not _is_of_anyio(test)
    if asyncio and _is_of_nobody(test):
        test.add_marker("asyncio")
        config.stash[_SESSION].given = True
    _refuse(test, wide_loops(test, config, anyio=not asyncio))
    if not _has_loop_factories(config):
        return (yield)
    if not virtual and getattr(config.hook, _HOOK).get_hookimpls():
        _refuse(test, ["virtual_time is on some of its parameters, while the project has loop factories: make two tests of it"])
    factories = _LoopFactories(config.stash[_SESSION])
    config.pluginmanager.register(factories)
    try:
        return (yield)
    finally:
        config.pluginmanager.unregister(factories)


def _refuse(test: Any, problems: Iterable[str]) -> None:
    if told := list(problems):
        raise pytest.Collector.CollectError("\n".join([f"{test.nodeid}: {len(told)} problem(s) in its markers or fixtures", *told]))


def _new_loop(session: Session) -> Any:
    """A loop on that clock."""
    from somaresil.testing.runners import only_loop

    return only_loop(_clock_of(session), "" if session.item is None else session.item.nodeid)


def _clock_of(session: Session) -> VirtualClock:
    """The virtual clock of the test that runs now, made when it is first needed."""
    item = session.item
    if item is None:
        raise RuntimeError("a virtual loop is made outside of a test")
    if _CLOCK not in item.stash:
        from somaresil.testing.clock import VirtualClock

        item.stash[_CLOCK] = VirtualClock(stall=session.stall, most_jumps=session.most_jumps)
    return item.stash[_CLOCK]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests in virtual time that nobody else runs: without pytest-asyncio there is no other way."""
    config = pyfuncitem.config
    session = config.stash[_SESSION]
    if not _is_coroutine(pyfuncitem) or not _is_virtual(pyfuncitem, config) or _is_of_anyio(pyfuncitem):
        return None
    from somaresil.testing.runners import ran_before, run

    if _has_loop_factories(config) and (problem := ran_before(pyfuncitem, config)):
        pytest.fail(problem, pytrace=False)
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}  # noqa: SLF001 - as pytest's own does
    run(pyfuncitem.obj, arguments, _clock_of(session))
    return True


# -- a test and its end -------------------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Know which test runs; whatever it has begun ends with it."""
    from somaresil.testing.figures import Simulated, count_for

    session = item.config.stash[_SESSION]
    session.item = item
    item.stash[_SIMULATED] = Simulated()
    count_for(item.stash[_SIMULATED])
    before = _live_runs()
    session.threads = WeakSet(threading.enumerate())
    with ExitStack() as stack:
        virtual = _is_virtual(item, item.config)
        if virtual and os.environ.get("SOMARESIL_CLOCK") == "steered":
            from somaresil.clock import STEERED

            stack.enter_context(STEERED.by(_clock_of(session)))
        if virtual and _is_coroutine(item) and _is_of_anyio(item):
            from somaresil.testing.runners import anyio_on

            stack.enter_context(anyio_on(lambda: _new_loop(session)))
        try:
            return (yield)
        finally:
            session.item = None
            for run in _live_runs() - before:
                run.end("stopped")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let third parties live in virtual time for tests that ask for it, and no event loop in another."""
    by = _virtual_by(item, item.config)
    if not by:
        return (yield)
    from somaresil.testing.foreign import only_virtual_loops
    from somaresil.testing.runners import instead

    session = item.config.stash[_SESSION]
    clock, marker = _clock_of(session), item.get_closest_marker("virtual_time")
    where = f"{item.nodeid} is in virtual time by {by}"
    with ExitStack() as stack:
        watch = stack.enter_context(only_virtual_loops(clock, where, instead(item, coroutine=_is_coroutine(item)), session.threads))
        if marker is not None and marker.kwargs.get("patched", False):
            stack.enter_context(clock.patched())
        result: Any = yield
    if watch.refused:
        # Somebody has kept the error to himself.
        pytest.fail(watch.refused[0], pytrace=False)
    return result


def _live_runs() -> set[Any]:
    """Every experiment of this process that is not over."""
    module = sys.modules.get("somaresil.resilience")
    if module is None:
        return set()
    return {run for resilience in module.alive() for run in resilience.chaos.history if run.end_reason is None}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Let the report of the end carry what the simulations of the test have struck."""
    from somaresil.testing.figures import count_for

    try:
        return (yield)
    finally:
        count_for(None)
        simulated = item.stash.get(_SIMULATED, None)
        if simulated is not None and simulated.guards:
            # Taken out: plugins that run a test again tear it down again.
            del item.stash[_SIMULATED]
            item.user_properties.append(simulated.property_of(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Show the time line below the traceback of a test that failed under faults."""
    report: Any = yield
    history = item.stash.get(_HISTORY, None)
    if report.failed and history is not None and history.moments:
        report.sections.append(("somaresil time line", history.timeline()))
    return report


# -- markers ------------------------------------------------------------------------------------------------------------------------------


def _problems_of(test: Any, session: Session) -> Iterator[str]:
    """What is wrong with the markers of a test."""
    marker = test.get_closest_marker("virtual_time")
    if marker is not None:
        unknown = sorted(set(marker.kwargs) - {"patched"})
        if marker.args or unknown:
            yield f"virtual_time: expected patched=True or nothing, found {', '.join([*map(repr, marker.args), *unknown])}"
    for marker in test.iter_markers("chaos"):
        from somaresil.testing.marks import problems_of

        yield from problems_of(marker, session.service)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the faults of markers begin when everything that a test uses is there."""
    for item in items:
        if item.get_closest_marker("chaos") is not None:
            # Items of other kinds than functions have none.
            getattr(item, "fixturenames", []).append("_marked_faults")


@pytest.fixture
def _marked_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    from somaresil.testing.marks import arm, look_back

    chaos: ChaosEngine = request.getfixturevalue("chaos")
    resilience: Resilience = request.getfixturevalue("resilience")
    runs = arm(chaos, request.node.iter_markers("chaos"), request.config.stash[_SESSION].seed)
    yield
    problems = look_back(runs, resilience)
    if problems:
        pytest.fail("\n".join(["a chaos marker could strike nothing of this test", *problems]), pytrace=False)


# -- fixtures -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def virtual_time(request: pytest.FixtureRequest) -> VirtualClock:
    """The virtual clock of this test. Using it makes the test run in virtual time, as ``@pytest.mark.virtual_time`` does."""
    return _clock_of(request.config.stash[_SESSION])


@pytest.fixture
def resilience(request: pytest.FixtureRequest) -> Iterator[Resilience]:
    """A ``Resilience``: the service's own when ``somaresil_resilience`` names it, else a new one for this test.

    In virtual time it lives on the virtual clock. A service's own has its circuits reset after the test. Override it in a conftest to hand
    out that of an app factory; ``chaos``, ``fault_events`` and ``slo`` follow, and in virtual time refuse one with another clock.
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

    if by := _virtual_by(request.node, request.config):
        from somaresil.testing.runners import two_clocks

        if problem := two_clocks(_clock_of(request.config.stash[_SESSION]), resilience.clock):
            pytest.fail(f"{request.node.nodeid} is in virtual time by {by}, but {problem}", pytrace=False)
    with capture_events(resilience) as history:
        request.node.stash[_HISTORY] = history
        yield history


@pytest.fixture
def chaos(request: pytest.FixtureRequest, resilience: Resilience, fault_events: History) -> Iterator[ChaosEngine]:
    """The chaos engine of ``resilience``, allowed for this test: ``await chaos.inject_errors("llm.*")``. All faults end with the test."""
    from somaresil.testing.faults import allow_chaos
    from somaresil.testing.figures import property_of

    with allow_chaos(resilience):
        yield resilience.chaos
        request.node.user_properties.append(property_of(request.node.nodeid, resilience, fault_events))


@pytest.fixture
def slo(resilience: Resilience, fault_events: History) -> Objectives:
    """Objectives of ``resilience``: ``slo("llm_latency", 95.0, latency=2.0)``, then ``slo.assert_budget("llm_latency")``."""
    from somaresil.testing.objectives import Objectives

    return Objectives(resilience, fault_events)


@pytest.fixture
def no_leaks(resilience: Resilience, chaos: ChaosEngine) -> Iterator[LeakDetector]:
    """Fail the test at its end when a connection went past a partition. See :class:`somaresil.testing.LeakDetector`."""
    from somaresil.testing.leaks import LeakDetector

    # The partitions of the test end with ``chaos``, after the last look.
    del chaos
    with LeakDetector(resilience) as detector:
        yield detector
    if (problem := detector.problem) is not None:
        pytest.fail(problem, pytrace=False)


# -- summary ------------------------------------------------------------------------------------------------------------------------------


_FIGURES: pytest.StashKey[Figures] = pytest.StashKey()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Begin to add up."""
    from somaresil.testing.figures import Figures

    figures = session.config.stash[_FIGURES] = Figures()
    session.config.pluginmanager.register(figures, "somaresil-figures")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print injected, absorbed and the worst recovery."""
    figures = config.stash.get(_FIGURES, None)
    lines = [] if figures is None else list(figures.lines())
    if lines:
        terminalreporter.section("somaresil")
        for line in lines:
            terminalreporter.write_line(line)
        if (problem := _too_few(config)) is not None:
            terminalreporter.write_line(f"FAILED: {problem}", red=True)


def _too_few(config: pytest.Config) -> str | None:
    """Why too few guards were struck; None: enough were, or nobody asks."""
    limit, figures = config.stash[_SESSION].fail_under, config.stash.get(_FIGURES, None)
    if limit is None or figures is None or hasattr(config, "workerinput") or figures.struck is None or figures.struck >= limit:
        return None
    return f"{figures.struck:.0f} % of the guards were struck by a fault, somaresil_faulted_guards_fail_under is {limit:g} %"


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run when too few guards were struck."""
    if exitstatus == pytest.ExitCode.OK and _too_few(session.config) is not None:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
