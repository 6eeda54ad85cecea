"""Tests in virtual time and the event loops of others: virtual too, or it is said what to write. Each test runs a pytest of its own."""

from __future__ import annotations

import pytest

from tests.unit.testing.suites import INI, ini, run

pytestmark = pytest.mark.timeout(60)

# The sleeps are short: where one is in real time by mistake, a test fails and does not hang.
FOREIGN = {
    "asyncio.run": """
        @pytest.mark.virtual_time(PATCHED)
        def test_it():
            asyncio.run(asyncio.sleep(0.1))
        """,
    "a loop by hand": """
        @pytest.mark.virtual_time(PATCHED)
        def test_it():
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(asyncio.sleep(0.1))
            finally:
                loop.close()
        """,
    "an error that is kept": """
        @pytest.mark.virtual_time(PATCHED)
        def test_it():
            try:
                asyncio.run(asyncio.sleep(0.1))
            except RuntimeError:
                pass
        """,
    "TestClient": """
        @pytest.mark.virtual_time(PATCHED)
        def test_it():
            assert TestClient(app).get("/").json() == "answer"
        """,
    "TestClient with a lifespan": """
        @pytest.mark.virtual_time(PATCHED)
        def test_it():
            with TestClient(app) as client:
                assert client.get("/").json() == "answer"
        """,
    "a fixture with TestClient": """
        @pytest.fixture
        def client():
            with TestClient(app) as client:
                yield client

        @pytest.mark.virtual_time(PATCHED)
        def test_it(client):
            assert client.get("/").json() == "answer"
        """,
    "unittest": """
        class TestIt(unittest.IsolatedAsyncioTestCase):
            @pytest.mark.virtual_time(PATCHED)
            async def test_it(self):
                await asyncio.sleep(0.1)
        """,
    "a marker that comes late": """
        @pytest.mark.asyncio
        async def test_it():
            await asyncio.sleep(0.1)
        """,
    "a fixture's parameter": """
        @pytest.fixture(params=[pytest.param(1, marks=pytest.mark.virtual_time(PATCHED))])
        def number(request):
            return request.param

        @pytest.mark.asyncio
        async def test_it(number):
            await asyncio.sleep(0.1)
        """,
}
IMPORTS = """
import asyncio, time, unittest
import pytest
import pytest_asyncio
from somaresil.testing import VirtualLoop
"""
APP = """
from fastapi import FastAPI
from starlette.testclient import TestClient

app = FastAPI()

@app.get("/")
async def answer():
    await asyncio.sleep(0.1)
    return "answer"
"""
LATE = """
import pytest

def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.virtual_time(PATCHED))
"""
QUIET = "    ignore:Using .httpx. with"
"""Starlette says which client it would rather have."""


def written(project, text: str, *, patched: bool = False) -> None:
    """Write a test module; ``PATCHED`` in it says how its markers are."""
    from textwrap import dedent

    options = "patched=True" if patched else ""
    head = IMPORTS + (APP if "TestClient" in text else "")
    project.makepyfile((head + dedent(text)).replace("PATCHED", options))


@pytest.mark.parametrize("patched", [False, True], ids=["marker", "patched"])
@pytest.mark.parametrize("how", FOREIGN)
def test_another_loop_fails_the_test(project, how, patched):
    """It neither hangs nor passes in real time, and it is said which test, why it is virtual, and what to write."""
    ini(project, QUIET)
    written(project, FOREIGN[how], patched=patched)
    if how == "a marker that comes late":
        project.makeconftest(LATE.replace("PATCHED", "patched=True" if patched else ""))
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_it* is in virtual time by the marker virtual_time: an event loop that is not virtual runs: *"])
    told = {"unittest": "IsolatedAsyncioTestCase makes its own loop", "a marker that comes late": "add_marker"}
    assert told.get(how, "clock.run(main())") in result.stdout.str()
    assert "never awaited" not in result.stdout.str()


@pytest.mark.parametrize("how", ["fixture", "usefixtures"])
def test_another_loop_fails_a_test_by_its_fixture_too(project, how):
    """Taking the clock makes a test virtual, and its loops with it."""
    arguments, mark = ("virtual_time", "") if how == "fixture" else ("", '@pytest.mark.usefixtures("virtual_time")')
    written(project, f"{mark}\ndef test_it({arguments}):\n    asyncio.run(asyncio.sleep(0.1))\n")
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*virtual time by the fixture virtual_time: an event loop that is not virtual*"])


def test_what_is_said_can_be_written(project):
    """Each remedy is one."""
    ini(project, QUIET)
    written(
        project,
        """
        async def main():
            await asyncio.sleep(3600)

        MARKS = pytest.mark.virtual_time, pytest.mark.virtual_time(patched=True)

        @pytest.mark.parametrize("patched", [pytest.param(mark.kwargs, marks=mark) for mark in MARKS])
        class TestRemedies:
            def test_run(self, virtual_time, patched):
                virtual_time.run(main())
                assert virtual_time.monotonic() == 3600

            def test_runner(self, virtual_time, patched):
                with asyncio.Runner(loop_factory=virtual_time.new_loop) as runner:
                    runner.run(main())
                assert virtual_time.monotonic() == 3600

            def test_client(self, virtual_time, patched):
                client = TestClient(app, backend_options={"loop_factory": virtual_time.new_loop})
                assert client.get("/").json() == "answer"
                assert client.get("/").json() == "answer"
                assert virtual_time.monotonic() == pytest.approx(0.2)

            def test_client_with_a_lifespan(self, virtual_time, patched):
                with TestClient(app, backend_options={"loop_factory": virtual_time.new_loop}) as client:
                    assert client.get("/").json() == "answer"
                assert virtual_time.monotonic() == pytest.approx(0.1)
        """,
    )
    project.runpytest_inprocess().assert_outcomes(passed=8)


def test_a_virtual_loop_may_have_company(project):
    """A server in a thread of its own lives in real time beside it, and a thread that was there before goes on."""
    written(
        project,
        """
        import threading
        from somaresil.testing import run

        @pytest.fixture(scope="session")
        def background():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever)
            thread.start()
            yield loop
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

        def test_makes_it(background):
            pass

        @pytest.mark.virtual_time
        def test_uses_it(background):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), background).result(10)

        @pytest.mark.virtual_time
        async def test_beside():
            await asyncio.to_thread(lambda: asyncio.run(asyncio.sleep(0)))

        @pytest.mark.virtual_time
        def test_another_virtual_one():
            run(asyncio.sleep(3600))
        """,
    )
    project.runpytest_inprocess().assert_outcomes(passed=4)


def test_loops_are_free_again(project):
    """After a test in virtual time."""
    written(
        project,
        """
        @pytest.mark.virtual_time(patched=True)
        async def test_first(): pass

        @pytest.fixture
        def late(virtual_time):
            yield
            asyncio.run(asyncio.sleep(0))

        def test_second():
            asyncio.run(asyncio.sleep(0))

        async def test_third(late): pass
        """,
    )
    project.runpytest_inprocess().assert_outcomes(passed=3)


# -- other runners ------------------------------------------------------------------------------------------------------------------------

ANYIO = """
    @pytest.fixture
    def anyio_backend():
        return "asyncio", {"use_uvloop": False}

    @pytest.fixture
    async def started():
        await asyncio.sleep(60)
        yield asyncio.get_running_loop()
        await asyncio.sleep(60)

    @pytest.mark.anyio
    @pytest.mark.virtual_time(PATCHED)
    async def test_sleeps(started, virtual_time):
        assert started is asyncio.get_running_loop()
        await asyncio.sleep(3600)
        assert virtual_time.monotonic() == 3660
        assert isinstance(started, VirtualLoop)

    @pytest.mark.anyio
    async def test_is_in_real_time():
        assert not isinstance(asyncio.get_running_loop(), VirtualLoop)
"""


@pytest.mark.parametrize("options", [(), ("-p", "no:asyncio")], ids=["with pytest-asyncio", "without"])
@pytest.mark.parametrize("patched", [False, True], ids=["marker", "patched"])
def test_tests_of_anyio_are_virtual(project, options, patched):
    """With their async fixtures, by the marker alone; the others are not."""
    if options:
        project.makefile(".ini", pytest="\n".join(line for line in INI.splitlines() if not line.startswith("asyncio")))
    written(project, ANYIO, patched=patched)
    run(project, *options).assert_outcomes(passed=2)


def test_tests_of_anyio_are_virtual_by_a_late_marker(project):
    """It is looked at when the test runs."""
    project.makeconftest(LATE.replace("PATCHED", ""))
    written(
        project,
        """
        @pytest.fixture
        def anyio_backend():
            return "asyncio"  # older releases of anyio ask for trio as well, installed or not

        @pytest.mark.anyio
        async def test_it(anyio_backend_name):
            assert isinstance(asyncio.get_running_loop(), VirtualLoop)
        """,
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


def test_trio_has_no_virtual_form(project):
    """Which is said by the name of the fixture."""
    written(
        project,
        """
        @pytest.fixture
        def anyio_backend():
            return "trio"

        @pytest.mark.anyio
        @pytest.mark.virtual_time
        async def test_it(): pass
        """,
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*anyio_backend = 'trio': virtual time runs on 'asyncio'*"])


@pytest.mark.parametrize("patched", [False, True], ids=["marker", "patched"])
def test_some_parameters_may_be_virtual(project, patched):
    """And the others not, with async fixtures as ever."""
    written(
        project,
        """
        @pytest_asyncio.fixture
        async def loop():
            await asyncio.sleep(0.01)
            return asyncio.get_running_loop()

        PARAMS = [1, pytest.param(2, marks=pytest.mark.virtual_time(PATCHED))]

        @pytest.mark.asyncio
        @pytest.mark.parametrize("number", PARAMS)
        async def test_it(loop, number):
            assert loop is asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop) == (number == 2)

        @pytest.mark.parametrize("number", argvalues=PARAMS[1:])
        async def test_without_a_mark(loop, number):
            assert loop is asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
        """,
        patched=patched,
    )
    project.runpytest_inprocess().assert_outcomes(passed=3)


def test_some_virtual_parameters_and_loop_factories_are_an_error_at_collection(project):
    """The other parameters would lose theirs."""
    project.makeconftest(
        """
        import asyncio
        def pytest_asyncio_loop_factories(config, item):
            return {"own": asyncio.SelectorEventLoop}
        """
    )
    written(
        project,
        """
        @pytest.mark.asyncio
        @pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.virtual_time)])
        async def test_it(number): pass
        """,
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*on some of its parameters*loop factories*"])


def test_a_late_marker_with_async_fixtures_is_told(project):
    """They have run in real time when it is seen."""
    project.makeconftest(LATE.replace("PATCHED", ""))
    written(
        project,
        """
        @pytest_asyncio.fixture
        async def started():
            pass

        async def test_it(started): pass
        """,
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*test_it: 'started' ran in real time; *add_marker*"])


@pytest.mark.parametrize("options", [(), ("--asyncio-mode=auto",)], ids=["strict", "auto"])
@pytest.mark.parametrize("how", ["argument", "usefixtures", "autouse"])
def test_virtual_time_may_come_through_a_fixture(project, options, how):
    """However far below: async fixtures and the test share the virtual loop."""
    written(
        project,
        f"""
        @pytest_asyncio.fixture(autouse={how == "autouse"})
        async def aapp(virtual_time):
            await asyncio.sleep(3600)
            return asyncio.get_running_loop()

        {'@pytest.mark.usefixtures("aapp")' if how == "usefixtures" else ""}
        async def test_it({"aapp" if how == "argument" else ""}):
            assert isinstance(asyncio.get_running_loop(), VirtualLoop)
            assert asyncio.get_running_loop().time() == 3600
        """,
    )
    run(project, *options).assert_outcomes(passed=1)


WIDE = {
    "scope": ('scope="session"', "scope 'session'"),
    "scope and loop": ('scope="module", loop_scope="session"', "scope 'session'"),
    "loop": ('loop_scope="module"', "scope 'module'"),
}


@pytest.mark.parametrize("how", WIDE)
def test_a_fixture_that_outlives_the_clock_is_an_error_at_collection(project, how):
    """By its name, with what to do."""
    options, said = WIDE[how]
    written(
        project,
        f"""
        @pytest_asyncio.fixture({options})
        async def pool():
            yield

        @pytest.mark.virtual_time
        async def test_it(pool): pass
        """,
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*fixture 'pool' runs on a loop of {said}*give it scope='function'*"])


def test_a_wide_fixture_of_anyio_is_an_error_at_collection(project):
    """Its loop goes on from test to test."""
    written(
        project,
        """
        @pytest.fixture(scope="module")
        async def pool():
            yield

        @pytest.mark.anyio
        @pytest.mark.virtual_time
        async def test_it(pool): pass
        """,
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'pool' runs on a loop of scope 'module'*"])


def test_a_wide_fixture_goes_on_for_other_tests(project):
    """In real time, and for plain ones in virtual time."""
    written(
        project,
        """
        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def pool():
            return asyncio.get_running_loop()

        @pytest.mark.asyncio(loop_scope="module")
        async def test_it(pool):
            assert pool is asyncio.get_running_loop()

        def test_plain(pool, virtual_time):
            virtual_time.sleep(3600)
        """,
    )
    project.runpytest_inprocess().assert_outcomes(passed=2)


def test_a_second_loop_is_told_when_the_test_runs(project):
    """Where nobody could know before."""
    written(
        project,
        """
        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def pool():
            yield

        @pytest.mark.virtual_time
        async def test_it(request):
            pass

        @pytest.fixture
        def dynamic(request):
            return request.getfixturevalue("pool")

        @pytest.mark.virtual_time
        async def test_that(dynamic): pass
        """,
    )
    result = project.runpytest_inprocess()
    result.stdout.fnmatch_lines(["*test_that: a test in virtual time has one event loop, but a second one is asked for*scope='function'*"])


@pytest.mark.parametrize("options", [(), ("--asyncio-mode=auto",), ("-p", "no:asyncio")], ids=["strict", "auto", "without"])
def test_hypothesis_runs_coroutine_tests_in_virtual_time(project, options):
    """By the marker alone."""
    if options == ("-p", "no:asyncio"):
        project.makefile(".ini", pytest="\n".join(line for line in INI.splitlines() if not line.startswith("asyncio")))
    project.makepyfile(
        """
        import asyncio
        import pytest
        from hypothesis import given, settings, strategies as st

        @pytest.mark.virtual_time
        @settings(max_examples=5, database=None, derandomize=True)
        @given(st.integers(1, 3600))
        async def test_it(seconds):
            loop = asyncio.get_running_loop()
            before = loop.time()
            await asyncio.sleep(seconds)
            assert loop.time() == before + seconds
        """
    )
    run(project, *options).assert_outcomes(passed=1)
