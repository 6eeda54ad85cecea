"""Each test by four threads at once: `nox -s parallel` loads this beside pytest-run-parallel, and nothing else does.

That plugin calls the function of a test in several threads. Here stands what belongs to one thread, so that the threads share the code
under test and nothing of the test: fixtures are made anew in each, a coroutine is run by a loop of each. What cannot be parted, because the
process or pytest has it once, is left out by one of these rules, and told by the number of tests that each of them has left out.
"""

from __future__ import annotations

import asyncio
import inspect
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONE_OF_A_PROCESS = {
    "caplog": "its fixture is the logging of the process",
    "capfd": "its fixture is the output of the process",
    "capsys": "its fixture is the output of the process",
    "monkeypatch": "it changes what is the process's (monkeypatch)",
    "pytester": "it runs a pytest of its own in the folder of the process",
    "recwarn": "its fixture is the warnings of the process",
}
"""Fixtures that no two threads can have, and why."""

NAMES = {
    "warnings of the process": ("warns", "deprecated_call", "catch_warnings", "simplefilter"),
    "processes of its own": ("subprocess", "Popen", "fork", "multiprocessing", "kill", "waitpid", "create_subprocess_exec"),
    "signal handlers": ("signal", "setitimer", "raise_signal"),
    "the collector": ("gc", "unraisablehook", "tracemalloc", "getrefcount", "callbacks"),
    "modules that are loaded": ("modules", "import_module", "reload", "run_module", "run_path", "resources"),
    "variables, folder and rights of the process": (
        "environ",
        "MonkeyPatch",
        "setenv",
        "putenv",
        "chdir",
        "umask",
        "setswitchinterval",
        "RLIMIT_NOFILE",
    ),
    "output of the process": ("redirect_stdout", "redirect_stderr", "stdout", "stderr"),
    "logging of the process": ("getLogger", "logging", "structlog"),
    "clocks of the process": ("time_machine", "travel"),
    "threads of the process": ("enumerate_threads", "active_count", "settrace", "setprofile", "excepthook"),
    "other libraries' global state": ("set_event_loop_policy", "mock", "patch", "REGISTRY", "set_tracer_provider", "set_meter_provider"),
}
"""What a test, or a function of its module that it calls, may name; there is one of it in a process."""
USES: dict[str, str] = {name: f"it uses {what}" for what, names in NAMES.items() for name in names}

LONG = "it draws or counts for seconds, what is pure arithmetic"
PARSES = "it parses sources, whose depth CPython 3.11 counts for all threads together"
FILES: dict[str, str] = {
    "/tests/unit/testing/": "it tests the pytest plugin and virtual time, which are set up for a process",
    "/adopt/": PARSES,
    "/doctor/": PARSES,
    "/chaos/test_partition.py": "it cuts the sockets of the process off",
    "/chaos/test_partition_targets.py": "it cuts the sockets of the process off",
    "/drill/test_simulation.py": LONG,
    "/chaos/test_resources.py": "it takes memory, disk, processors and descriptors of the process",
}
"""Files and folders by a part of their path, and why they are left out."""
TESTS: dict[str, str] = {
    **dict.fromkeys(
        (
            "test_a_candidate_with_other_code_is_another_one",
            "test_a_fleet_that_is_no_worse_is_seldom_called_worse",
            "test_a_user_on_the_candidate_stays_there_as_the_weight_grows",
            "test_equal_versions_seldom_differ",
            "test_equal_versions_seldom_fail",
            "test_of_a_thousand_instances_one_takes_part_and_stays_it_while_others_come_and_go",
            "test_one_of_a_thousand_instances_is_struck_whoever_else_comes_and_goes",
            "test_the_largest_bodies_are_judged_in_seconds",
            "test_whatever_the_configuration_it_is_taken_and_says_the_same_weights",
        ),
        LONG,
    ),
    "test_a_twin_says_the_same": "its parameter is one error for all threads, which they raise",
}
"""Tests by name, and why they are left out."""

EXAMPLES = 20
# Hypothesis loads it when it is first needed, and two threads that need it at once find half of it.
import_module("hypothesis.internal.conjecture.optimiser")
settings.register_profile("parallel", deadline=None, derandomize=True, max_examples=EXAMPLES, database=None)


# -- rules ----------------------------------------------------------------------------------------------------------------------------


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _codes(inner)


def _named(function: Any) -> set[str]:
    """Every name in a function and in those functions and classes of its module that it names."""
    names: set[str] = set()
    waiting: list[Any] = [inspect.unwrap(function)]
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", None)
    if inner is not None:
        waiting.append(inner)
    seen: set[int] = set()
    while waiting:
        found = waiting.pop()
        if isinstance(found, MethodType):
            found = found.__func__
        if id(found) in seen:
            continue
        seen.add(id(found))
        if isinstance(found, type):
            waiting += [part for part in vars(found).values() if isinstance(part, FunctionType | type)]
        elif isinstance(found, FunctionType):
            its = {name for code in _codes(found.__code__) for name in code.co_names}
            names |= its
            around = found.__globals__
            waiting += [
                around[name]
                for name in its
                if isinstance(around.get(name), FunctionType | type) and str(around[name].__module__).startswith("tests.")
            ]
    return names


def _own_fixtures(item: pytest.Function) -> dict[str, Any]:
    """The definitions of the fixtures that the test asks for itself."""
    info = item._fixtureinfo
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return {name: info.name2fixturedefs[name][-1] for name in info.argnames if name in info.name2fixturedefs and name not in parameters}


def _shared(item: pytest.Function, name: str, seen: frozenset[str] = frozenset()) -> str | None:
    """Why a fixture cannot be made anew in a thread; None: it can."""
    if name == "tmp_path":
        return None
    if name in ONE_OF_A_PROCESS:
        return ONE_OF_A_PROCESS[name]
    definitions = item._fixtureinfo.name2fixturedefs.get(name)
    if not definitions or name in seen:
        return f"its fixture {name} is pytest's"
    definition = definitions[-1]
    if definition.params is not None or "request" in definition.argnames:
        return "its fixture has parameters, or asks pytest for what it is"
    if definition.scope != "function":
        return f"its fixture is that of a whole {definition.scope}"
    if not (inspect.isfunction(definition.func) and definition.func.__module__.startswith("tests.")):
        return "its fixture is another library's"
    if inspect.iscoroutinefunction(definition.func) or inspect.isasyncgenfunction(definition.func):
        return "its fixture belongs to one event loop"
    return next((why for other in definition.argnames if (why := _shared(item, other, seen | {name}))), None)


def reason(item: pytest.Item) -> str | None:
    """Why a test is left out; None: four threads run it."""
    if not isinstance(item, pytest.Function):
        return "it is no function"
    where = item.path.as_posix()
    told = next((why for part, why in FILES.items() if part in where), None) or TESTS.get(item.originalname)
    if told is not None:
        return told
    if item.get_closest_marker("slow") is not None:
        return LONG
    if item.cls is not None and hasattr(item.cls, "runTest"):
        return "it is a state machine: CPython compiles its source in each thread"
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    for name in item._fixtureinfo.argnames:
        if name not in parameters and (why := _shared(item, name)):
            return why
    # Parameters of the fixtures that it asks for are parameters of the test.
    if any(name in item._fixtureinfo.name2fixturedefs and item._fixtureinfo.name2fixturedefs[name][-1].params for name in parameters):
        return "its fixture has parameters, or asks pytest for what it is"
    functions = [item.obj, *(definition.func for definition in _own_fixtures(item).values())]
    return next((USES[name] for function in functions for name in sorted(_named(function)) if name in USES), None)


# -- what belongs to one thread ---------------------------------------------------------------------------------------------------------


def _make(item: pytest.Function, name: str, made: dict[str, Any], stack: ExitStack) -> Any:
    """The value of a fixture for one thread, with all that it is made of."""
    if name not in made:
        if name == "tmp_path":
            made[name] = Path(tempfile.mkdtemp(dir=str(item.funcargs[name])))
        else:
            definition = item._fixtureinfo.name2fixturedefs[name][-1]
            function = definition.func
            asked = {other: _make(item, other, made, stack) for other in definition.argnames}
            made[name] = (
                stack.enter_context(contextmanager(function)(**asked)) if inspect.isgeneratorfunction(function) else function(**asked)
            )
    return made[name]


def _parted(item: pytest.Function) -> Callable[..., None]:
    """The test as a function that has everything of its own, fails by errors alone, and is no coroutine."""
    function: Any = item.obj
    inner: Any = getattr(function, "__func__", function)
    asked = getattr(inner, "_hypothesis_internal_use_settings", None)
    if asked is not None and asked.max_examples > EXAMPLES:
        inner._hypothesis_internal_use_settings = settings(asked, max_examples=EXAMPLES)
    renewed = ["tmp_path"] if "tmp_path" in item._fixtureinfo.argnames else []
    renewed += _own_fixtures(item)

    def run(**arguments: Any) -> None:
        try:
            with ExitStack() as stack:
                made: dict[str, Any] = {}
                ending = function(**arguments | {name: _make(item, name, made, stack) for name in renewed})
                if inspect.iscoroutine(ending):
                    asyncio.run(ending)
        except (pytest.skip.Exception, pytest.fail.Exception):
            raise
        except BaseException as error:
            # In a thread, other ones than these are lost on the way, and the test would pass.
            if isinstance(error, Exception) and not isinstance(error, Warning):
                raise
            raise AssertionError(f"{type(error).__name__}: {error}") from error

    run.__name__, run.__qualname__, run.__module__, run.__doc__ = (
        item.originalname,
        item.originalname,
        function.__module__,
        function.__doc__,
    )
    return run


class _Plugin:
    """Decides about each test before pytest-run-parallel does, and tells at the end."""

    def __init__(self) -> None:
        self.counts: Counter[str | None] = Counter()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = []
        for item in items:
            why = reason(item)
            self.counts[why] += 1
            if why is None and isinstance(item, pytest.Function):
                item.obj = _parted(item)
                # Items of coroutines would want a coroutine.
                item.runtest = MethodType(pytest.Function.runtest, item)  # type: ignore[method-assign]
                kept.append(item)
        items[:] = kept

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["parallel"] = {why or "": number for why, number in self.counts.items()}

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # Each worker has collected the same.
        told = getattr(node, "workeroutput", {}).get("parallel")
        if told:
            self.counts = Counter({why or None: number for why, number in told.items()})

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("in parallel")
        terminalreporter.line(
            f"{self.counts[None]} tests were run by four threads each, {self.counts.total() - self.counts[None]} left out:"
        )
        for why, number in self.counts.most_common():
            if why is not None:
                terminalreporter.line(f"{number:6} {why}")


def _is_safe(_: pytest.Item) -> tuple[bool, None]:
    """What is not safe was left out before."""
    return False, None


def pytest_configure(config: pytest.Config) -> None:
    """Take the place of the other plugin's rules."""
    other: Any = config.pluginmanager.get_plugin("_run-parallel")
    # Those are about what a test reaches, also by way of a fixture that has done its work before the threads begin.
    other.unsafe_fixtures, other._is_thread_unsafe = frozenset(), _is_safe
    config.pluginmanager.register(_Plugin(), "parted")
