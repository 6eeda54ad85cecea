"""Who runs the coroutine tests of a suite, and how they are to run one in virtual time: pytest-asyncio, anyio's plugin, unittest.

Imported by the pytest plugin for tests in virtual time only.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from somaresil.clock import SteeredClock
from somaresil.testing.foreign import INSTEAD

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    import pytest

    from somaresil.testing.clock import VirtualClock
    from somaresil.testing.loop import VirtualLoop
    from somaresil.typing import Clock

__all__ = ["anyio_on", "instead", "only_loop", "ran_before", "run", "two_clocks", "wide_loops"]

_ANYIO: Final = "anyio.pytest_plugin"
_REMEDY: Final = "give it scope='function' (and loop_scope='function'), or use it in tests in real time only"


def instead(item: pytest.Item, *, coroutine: bool) -> str:
    """What to write, where a test has run a loop that is not virtual."""
    if any(base.__name__ == "IsolatedAsyncioTestCase" for base in getattr(getattr(item, "cls", None), "__mro__", ())):
        return "a unittest.IsolatedAsyncioTestCase makes its own loop: write an async function or a class that is no TestCase"
    if coroutine:
        return (
            "whoever runs this test was not told in time: put the marker on the function, its class or module, or into "
            "pytest.mark.parametrize, not into item.add_marker or the params of a fixture (with pytest-asyncio 1.4 or newer); a loop that "
            f"the test runs beside: {INSTEAD}"
        )
    return f"write an async test, or {INSTEAD}"


def wide_loops(test: Any, config: pytest.Config, *, anyio: bool) -> Iterator[str]:
    """What of a coroutine test in virtual time would run on a loop that outlives it: it itself, or fixtures that it uses."""
    scope = "function" if anyio else _scope_of_test(test, config)
    if scope != "function":
        yield f"virtual_time needs loop_scope='function', not {scope!r}: each test has its clock"
    for name, fixture in _fixtures_of(test):
        if anyio:
            loop_scope = fixture.scope if _is_coroutine(fixture.func) and not _is_forced(fixture.func) else "function"
        else:
            loop_scope = _scope_of_fixture(fixture, config) if _is_of_pytest_asyncio(fixture, config) else "function"
        if loop_scope != "function":
            yield f"fixture {name!r} runs on a loop of scope {loop_scope!r}, but each test in virtual time has its clock: {_REMEDY}"


def ran_before(test: Any, config: pytest.Config) -> str | None:
    """What is wrong with a test that pytest-asyncio does not run: it has run fixtures of it, on a loop of its own."""
    names = [repr(name) for name, fixture in _fixtures_of(test) if _is_of_pytest_asyncio(fixture, config)]
    return f"{test.nodeid}: {', '.join(names)} ran in real time; {instead(test, coroutine=True)}" if names else None


def run(function: Any, arguments: dict[str, Any], clock: VirtualClock) -> None:
    """Run a coroutine test on ``clock``; one of Hypothesis, each example of it."""
    given = getattr(function, "hypothesis", None)
    if given is None:
        clock.run(function(**arguments))
        return
    inner = given.inner_test

    def example(*args: Any, **kwargs: Any) -> None:
        clock.run(inner(*args, **kwargs))

    given.inner_test = example
    try:
        function(**arguments)
    finally:
        given.inner_test = inner


def only_loop(clock: VirtualClock, nodeid: str) -> VirtualLoop:
    """The loop of a test, of which there is one."""
    try:
        return clock.new_loop()
    except RuntimeError as error:
        raise RuntimeError(
            f"{nodeid}: a test in virtual time has one event loop, but a second one is asked for, as by a fixture of wider scope or "
            f"loop_scope: {_REMEDY}"
        ) from error


def two_clocks(ours: VirtualClock, theirs: Clock) -> str | None:
    """What is wrong with the clock of a ``Resilience`` in virtual time: faults that begin after so many seconds would never strike."""
    if theirs is ours or (isinstance(theirs, SteeredClock) and theirs.follows(ours)):
        return None
    return (
        f"its Resilience (fixture resilience) has another clock, a {type(theirs).__name__}: expected that of the test; make it with "
        "clock=virtual_time (the fixture), or without clock= and either name it in the ini option somaresil_resilience or set "
        "SOMARESIL_CLOCK=steered before it is made"
    )


@contextmanager
def anyio_on(new_loop: Callable[[], Any]) -> Generator[None]:
    """Have anyio's plugin run tests and fixtures in here on the loop that ``new_loop`` makes, whatever ``anyio_backend`` says."""
    plugin: Any = sys.modules.get(_ANYIO)
    real = getattr(plugin, "get_runner", None)
    # Private to anyio: where it has another shape, the loop that it runs is refused.
    if plugin is None or real is None:
        yield
        return

    def get_runner(backend_name: str, backend_options: dict[str, Any] | None) -> Any:
        if backend_name != "asyncio":
            raise RuntimeError(
                f"anyio_backend = {backend_name!r}: virtual time runs on 'asyncio'; let the fixture anyio_backend return that"
            )
        return real(backend_name, {**(backend_options or {}), "loop_factory": new_loop})

    plugin.get_runner = get_runner
    try:
        yield
    finally:
        plugin.get_runner = real


def _fixtures_of(test: Any) -> Iterator[tuple[str, Any]]:
    for name, fixtures in test._fixtureinfo.name2fixturedefs.items():  # noqa: SLF001 - as pytest-asyncio does
        if fixtures:
            yield name, fixtures[-1]


def _is_coroutine(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _is_forced(function: Any) -> bool:
    """Whether it was declared by ``pytest_asyncio.fixture``."""
    return bool(getattr(getattr(function, "__func__", function), "_force_asyncio_fixture", False))


def _is_of_pytest_asyncio(fixture: Any, config: pytest.Config) -> bool:
    """Whether pytest-asyncio runs a fixture."""
    if _is_forced(fixture.func):
        return True
    return _is_coroutine(fixture.func) and str(config.getoption("asyncio_mode") or config.getini("asyncio_mode")) == "auto"


def _scope_of_test(test: Any, config: pytest.Config) -> str:
    marker = test.get_closest_marker("asyncio")
    scope = marker and (marker.kwargs.get("loop_scope") or marker.kwargs.get("scope"))
    return str(scope or config.getini("asyncio_default_test_loop_scope") or "function")


def _scope_of_fixture(fixture: Any, config: pytest.Config) -> str:
    """That of its loop, or its own if that is wider: what it has made on the loop outlives the test."""
    function = getattr(fixture.func, "__func__", fixture.func)
    default = config.getini("asyncio_default_fixture_loop_scope")
    scope = str(getattr(function, "_loop_scope", None) or (default if default != "fixture-scope" else None) or fixture.scope)
    return str(fixture.scope) if scope == "function" else scope
