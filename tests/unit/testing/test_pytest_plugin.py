"""The pytest plugin as seen from outside: what it refuses, prints and leaves alone. Each test runs a pytest of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.unit.testing.suites import INI, ini, run, service

# -- leaks of partitions -------------------------------------------------------------------------------------------------------------------

PARTITIONED = """
    import _socket, socket

    import pytest

    from somaresil import ChaosConfig, ChaosExperiment

    @pytest.fixture
    def database():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield listener.getsockname()

    def cut(chaos, database, rate=1.0):
        return chaos.arm(ChaosConfig(ChaosExperiment.NETWORK_PARTITION, f"net:127.0.0.1:{database[1]}", rate, 30))

    def go_round(database):
        unseen = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        _socket.socket.connect(unseen, database)
        unseen.close()
"""


def test_a_test_whose_connection_went_past_its_partition_fails(project):
    """Whichever of the fixtures it asks for first, and although nothing else in it is wrong."""
    project.makepyfile(
        PARTITIONED
        + """
    def test_leaks_first(no_leaks, chaos, database):
        cut(chaos, database)
        go_round(database)

    def test_chaos_first(chaos, no_leaks, database):
        cut(chaos, database)
        go_round(database)

    @pytest.mark.usefixtures("no_leaks")
    def test_it_ends_its_partition_itself(chaos, database):
        run = cut(chaos, database)
        go_round(database)
        chaos.stop(run)
"""
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=3, errors=3)
    result.stdout.fnmatch_lines(["*1 connections went past a partition:", "*127.0.0.1:* past net:127.0.0.1:* (connect)"])


def test_a_test_whose_partition_holds_passes(project):
    """Also one whose connection was made before, or after, or past a partition of a share of the connections."""
    project.makepyfile(
        PARTITIONED
        + """
    def test_it(chaos, no_leaks, database):
        go_round(database)
        run = cut(chaos, database)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(database)
        chaos.stop(run)
        go_round(database)
        cut(chaos, database, rate=0.001)
        go_round(database)
        assert no_leaks.leaks == ()
"""
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


# -- collection ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ('chaos("llm.*", "eror")', "did you mean 'error'?"),
        ('chaos("llm.*", "error", rat=0.5)', "did you mean 'rate'?"),
        ('chaos("llm.*", "error", rate=5, duration=-1)', "2 problem(s)"),
        ('chaos("llm invoke")', "target"),
        ("chaos()", "target"),
        ('chaos("llm.*", "latency")', "delay"),
        ('chaos("llm.*", "error", error=KeyboardInterrupt)', "error"),
        ("virtual_time(600)", "expected patched=True"),
        ("virtual_time(start=5)", "start"),
    ],
)
def test_a_wrong_marker_is_an_error_at_collection(project, marker, said):
    """Before any test runs, with what was meant."""
    project.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(): raise SystemExit\n")
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    assert said in result.stdout.str()
    assert "test_it" in result.stdout.str()


def test_an_unknown_target_is_an_error_at_collection_where_the_service_is_known(project):
    """With the names that come near, and no test run."""
    service(project)
    project.makepyfile('import pytest\n@pytest.mark.chaos("llm.invok")\ndef test_it(): pass\n')
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*chaos.target = 'llm.invok'*did you mean 'llm.invoke'?*"])


def test_an_unknown_target_fails_the_test_where_no_service_is_known(project):
    """At its end, when every guard that it could have meant is there."""
    project.makepyfile(
        """
        import pytest

        @pytest.mark.chaos("llm.invok")
        def test_it(resilience):
            resilience.guard("llm.invoke")
        """
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*'llm.invok'*llm.invoke*did you mean 'llm.invoke'?*"])


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ('"llm.invoke", "stream_cut"', "*chaos.kind = 'stream_cut'*it guards no generator*"),
        ('"llm.invoke", "circuit_trip"', "*chaos.kind = 'circuit_trip'*it has no breaker*"),
        ('"http:/ask"', "*chaos.target = 'http:/ask'*a mounted ResilienceMiddleware*"),
    ],
)
def test_a_fault_that_could_strike_nothing_fails_the_test(project, marker, said):
    """The test is green because nothing happened to it."""
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.chaos({marker})
        def test_it(resilience):
            assert resilience.guard("llm.invoke")(lambda: 1)() == 1
        """
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([said])


@pytest.mark.parametrize("options", ["calls=5", "start=3_000", "path='agent.turn > llm.invoke'"])
def test_a_fault_that_has_struck_nothing_is_warned_of(project, options):
    """It could have, so a test may have wanted to see that it does not; the category says so to filters."""
    project.makepyfile(
        f"""
        import pytest

        @pytest.mark.chaos("llm.invoke", {options})
        def test_it(resilience):
            assert resilience.guard("llm.invoke")(lambda: 1)() == 1
        """
    )
    result = project.runpytest_inprocess("-W", "default")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(['*NothingStruck: FaultWindow("llm.invoke", "error", *has struck no call of this test*'])


def test_a_fault_on_requests_waits_for_the_middleware(project):
    """Frameworks mount it when the app begins, which is in the test."""
    project.makepyfile(
        """
        import pytest, httpx
        from somaresil.asgi import ResilienceMiddleware

        async def hello(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"hello"})

        @pytest.mark.chaos("http:/ask", "error", status=503)
        @pytest.mark.virtual_time
        async def test_it(resilience):
            transport = httpx.ASGITransport(ResilienceMiddleware(hello, resilience))
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                assert (await client.get("/ask")).status_code == 503
                assert (await client.get("/other")).status_code == 200
        """
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


def test_wrong_ini_options_are_told_all_at_once(project):
    """Each with what is allowed."""
    ini(
        project,
        "somaresil_seed = x",
        "somaresil_stall = 0",
        "somaresil_most_jumps = 0",
        "somaresil_faulted_guards_fail_under = 101",
        "somaresil_resilience = a b",
    )
    project.makepyfile("def test_it(): pass")
    result = project.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*5 problem(s)*", "*somaresil_seed*", "*somaresil_stall*", "*fail_under*", "*somaresil_resilience*"])


@pytest.mark.parametrize(
    ("reference", "said"), [("nowhere:resilience", "nowhere"), ("service:nothing", "nothing"), ("service:write", "a Resilience")]
)
def test_a_service_that_is_not_there_is_named(project, reference, said):
    """Where it was set, and what was found."""
    service(project)
    ini(project, "pythonpath = .", f"somaresil_resilience = {reference}")
    project.makepyfile("def test_it(resilience): pass")
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*somaresil_resilience = '{reference}'*{said}*"])


def test_a_virtual_test_has_a_loop_of_its_own(project):
    """One loop for a whole module would be one clock for all of its tests."""
    project.makepyfile(
        """
        import pytest

        @pytest.mark.asyncio(loop_scope="module")
        @pytest.mark.virtual_time
        async def test_it(): pass
        """
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*virtual_time needs loop_scope='function'*"])


# -- running ------------------------------------------------------------------------------------------------------------------------------

SLEEPS = """
    import asyncio, time
    import pytest

    @pytest.mark.virtual_time
    async def test_sleeps(resilience):
        started = time.monotonic()
        await asyncio.sleep(3600)
        assert time.monotonic() - started < 30
        assert resilience.clock.monotonic() == 3600
"""


@pytest.mark.parametrize("options", [(), ("-p", "no:asyncio"), ("--asyncio-mode=auto",), ("-p", "no:anyio"), ("-n", "2")])
def test_virtual_time_needs_nobody(project, options):
    """With pytest-asyncio in either mode, without it, under xdist."""
    if options == ("-p", "no:asyncio"):
        project.makefile(".ini", pytest="\n".join(line for line in INI.splitlines() if not line.startswith("asyncio")))
    project.makepyfile(SLEEPS)
    run(project, *options).assert_outcomes(passed=1)


def test_all_coroutine_tests_can_be_virtual(project):
    """By one line in the ini file; other tests do not change."""
    ini(project, "somaresil_virtual_time = true")
    project.makepyfile(
        """
        import asyncio

        async def test_sleeps():
            await asyncio.sleep(3600)
            assert asyncio.get_running_loop().time() == 3600

        def test_plain(resilience):
            assert type(resilience.clock).__name__ == "SystemClock"
        """
    )
    project.runpytest_inprocess().assert_outcomes(passed=2)


def test_loop_factories_of_the_project_go_on_for_its_other_tests(project):
    """Theirs for theirs, ours for ours."""
    project.makeconftest(
        """
        import asyncio
        class Own(asyncio.SelectorEventLoop): pass
        def pytest_asyncio_loop_factories(config, item):
            return {"own": Own}
        """
    )
    project.makepyfile(
        """
        import asyncio
        import pytest

        @pytest.mark.asyncio
        async def test_theirs():
            assert type(asyncio.get_running_loop()).__name__ == "Own"

        @pytest.mark.virtual_time
        async def test_ours():
            assert type(asyncio.get_running_loop()).__name__ == "VirtualLoop"
        """
    )
    project.runpytest_inprocess().assert_outcomes(passed=2)


def test_a_test_that_stalls_names_the_line_that_waits(project):
    """And does not hang."""
    project.makepyfile(
        """
        import asyncio
        import pytest

        @pytest.mark.virtual_time
        async def test_hangs():
            await nobody_comes()

        async def nobody_comes():
            await asyncio.Event().wait()
        """
    )
    # Not in this process: the thread that it leaves behind sleeps on, and an inner time limit would take the outer one away.
    result = project.runpytest_subprocess("--timeout", "20")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*StalledError: virtual time stalled at 0 s*", "*test_a_test_that_stalls*.py:9 in nobody_comes: await asyncio.Event().wait()*"]
    )


def test_a_real_sleep_in_a_thread_is_named_after_the_limit_of_the_ini_file(project):
    """The thread and its job, and the task that waits for it."""
    ini(project, "somaresil_stall = 0.2")
    project.makepyfile(
        """
        import asyncio, time
        import pytest

        @pytest.mark.virtual_time
        async def test_sleeps_really():
            await asyncio.to_thread(time.sleep, 1.0)
        """
    )
    # Not in this process: the thread that it leaves behind sleeps on, and an inner time limit would take the outer one away.
    result = project.runpytest_subprocess("--timeout", "20")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*stalled at 0 s: a thread works*0.2 s*", "*await asyncio.to_thread(time.sleep, 1.0)*", "*sleep*"])


def test_a_service_that_was_imported_lives_in_virtual_time(project):
    """Its process was made long before the test; its circuits are closed again after it; in real time it goes on as ever."""
    service(project)
    project.makepyfile(
        """
        import asyncio, time
        import pytest
        import service
        from somaresil.testing import assert_recovers

        @pytest.mark.virtual_time
        @pytest.mark.chaos("llm.invoke", start=10, duration=60)
        async def test_recovers(resilience, fault_events):
            assert resilience is service.resilience
            before = resilience.clock.monotonic()
            for _ in range(150):
                try:
                    await service.invoke()
                except Exception:
                    pass
                await asyncio.sleep(1)
            assert resilience.clock.monotonic() - before >= 150
            assert_recovers(fault_events, within=130)

        @pytest.mark.virtual_time
        @pytest.mark.chaos("llm.invoke")
        async def test_leaves_it_open(resilience):
            for _ in range(5):
                with pytest.raises(Exception):
                    await service.invoke()
            assert resilience.breaker("llm.invoke").state == "open"

        @pytest.mark.asyncio
        async def test_is_well_again_in_real_time():
            started = service.resilience.clock.monotonic()
            assert await service.invoke() == "answer"
            assert 0.1 <= service.resilience.clock.monotonic() - started < 20
        """
    )
    project.runpytest_inprocess().assert_outcomes(passed=3)


@pytest.mark.parametrize("end", ["assert False", "raise KeyboardInterrupt", "pytest.exit('enough')"])
def test_experiments_end_however_a_test_ends(project, end):
    """Failed, interrupted or ended by pytest itself."""
    project.makepyfile(
        f"""
        import atexit
        import pytest

        @pytest.fixture
        def late(resilience):
            yield
            # Torn down after the faults: what is live now would have outlived them.
            print("LIVE", [run for run in resilience.chaos.history if run.end_reason is None])

        async def test_it(late, resilience, chaos, virtual_time):
            resilience.guard("llm.invoke")
            await chaos.inject_errors("llm.*")
            {end}
        """
    )
    result = project.runpytest_subprocess("-s")
    assert "LIVE []" in result.stdout.str()


def test_a_failure_under_faults_shows_the_time_line(project):
    """What was struck, when the circuit opened."""
    project.makepyfile(
        """
        import pytest
        from somaresil import CircuitBreaker

        @pytest.mark.chaos("llm.*")
        def test_it(resilience, fault_events):
            @resilience.guard("llm.invoke", breaker=CircuitBreaker(minimum_calls=2))
            def invoke(): pass
            for _ in range(4):
                with pytest.raises(Exception):
                    invoke()
            assert False
        """
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*somaresil time line*", "*llm.invoke: bad (InjectedFault), struck*", "*circuit closed -> open*"])


# -- summary ------------------------------------------------------------------------------------------------------------------------------

STRUCK = """
    import pytest

    @pytest.mark.chaos("llm.*", "error", calls=(1,))
    @pytest.mark.parametrize("number", range(4))
    def test_it(resilience, number):
        resilience.guard("memory.write")

        @resilience.guard("llm.invoke", retry=2)
        def invoke():
            return "answer"

        assert invoke() == "answer"
"""


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("-q",)])
def test_the_summary_adds_up(project, options):
    """In one process and over xdist's workers alike."""
    project.makepyfile(STRUCK)
    result = run(project, *options)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        ["*= somaresil =*", "4 tests with faults: 4 injected, 100.0% absorbed (4 of 4 touched calls)", "guards never faulted: memory.write"]
    )


def test_no_summary_where_no_fault_was(project):
    """Who does not use it does not see it."""
    project.makepyfile("def test_it(): pass")
    assert "somaresil =" not in project.runpytest_inprocess().stdout.str()


@pytest.mark.parametrize(("limit", "code"), [("50", 0), ("51", 1)])
@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_a_run_can_be_made_to_fail_when_guards_were_never_faulted(project, limit, code, options):
    """One of two guards was struck: that is 50 %."""
    ini(project, f"somaresil_faulted_guards_fail_under = {limit}")
    project.makepyfile(STRUCK)
    result = run(project, *options)
    assert result.ret == code
    if code:
        result.stdout.fnmatch_lines(["FAILED: 50 % of the guards were struck*51 %"])


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_what_simulations_and_blocks_strike_counts_too(project, options):
    """A guard that a search, an exploration, a machine or a block has struck was faulted, and the summary says by how many runs."""
    project.makepyfile(
        """
        import pytest
        from hypothesis import given, settings
        from somaresil import ChaosPlan, FaultWindow, Resilience
        from somaresil.testing import ChaosStateMachine, explore, inject, scenario

        def guarded(world, name):
            return world.resilience.guard(name)(lambda: 1)

        def attempt(call):
            try:
                call()
            except Exception:
                return

        @scenario(horizon=10)
        def service(world):
            attempt(guarded(world, "by.plan"))

        def test_plan():
            service.check(ChaosPlan([FaultWindow("by.plan", "error", 0, 5)]))

        def test_exploration():
            explore(lambda world: attempt(guarded(world, "by.exploration")), kinds=["error"]).check()

        def test_block():
            resilience = Resilience("tests", environment="test")
            call = resilience.guard("by.block")(lambda: 1)
            with inject(resilience, "by.block"):
                attempt(call)

        def test_nothing():
            Resilience("tests").guard("unseen")
        """
    )
    ini(project, "somaresil_faulted_guards_fail_under = 100")
    result = run(project, *options)
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*2 tests with 3 simulations: 2 injected*"])
    result.stdout.no_fnmatch_line("*never faulted*")


def test_guards_are_counted_however_many_faults_there_were(project):
    """The engine forgets all but the last 64 experiments, and not whom they have struck."""
    project.makepyfile(
        """
        import pytest

        async def test_every_guard(resilience, chaos, virtual_time):
            for number in range(30):
                call = resilience.guard(f"dep.n{number}")(lambda: 1)
                for _ in range(3):
                    run = await chaos.inject_latency(f"dep.n{number}", 10)
                    call()
                    chaos.stop(run)
        """
    )
    ini(project, "somaresil_faulted_guards_fail_under = 100")
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=1)
    assert result.ret == 0


def test_figures_are_in_the_junit_file(project):
    """For whoever reads that."""
    project.makepyfile(STRUCK)
    project.runpytest_inprocess("--junitxml=out.xml")
    text = (project.path / "out.xml").read_text(encoding="utf-8")
    assert 'name="somaresil"' in text
    assert "&quot;injected&quot;: 1" in text


# -- leaving it out -----------------------------------------------------------------------------------------------------------------------


def test_it_can_be_left_out(project):
    """``-p no:somaresil``: its fixtures are gone, other tests run."""
    project.makepyfile("def test_it(): pass\ndef test_that(resilience): pass\n")
    result = project.runpytest_inprocess("-p", "no:somaresil")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixture 'resilience' not found*"])


def test_its_options_are_explained(project):
    """Where people look: --markers, --fixtures, --help."""
    told = "\n".join(project.runpytest_inprocess(option).stdout.str() for option in ("--markers", "--fixtures", "--help"))
    for name in ("@pytest.mark.chaos", "@pytest.mark.virtual_time", "fault_events", "somaresil_resilience", "--somaresil-plans"):
        assert name in told, name


def test_loading_it_imports_nothing_heavy():
    """pytest, and the package with nothing in it."""
    code = "import json, sys, pytest; old = set(sys.modules); import somaresil.pytest_plugin; print(json.dumps([*set(sys.modules) - old]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert sorted(name for name in json.loads(result.stdout) if name.startswith("somaresil")) == [
        "somaresil",
        "somaresil._version",
        "somaresil.pytest_plugin",
    ]
    assert {name.partition(".")[0] for name in json.loads(result.stdout)} <= {"somaresil", *sys.stdlib_module_names}


def test_running_it_for_others_imports_nothing_heavy(project):
    """Coroutine tests in real time, with parameters or without, need nothing of the test kit but its figures."""
    project.makepyfile(
        """
        import sys
        import pytest

        @pytest.mark.asyncio
        @pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.filterwarnings("error"))])
        async def test_it(number):
            found = {name for name in sys.modules if name.startswith("somaresil.")}
            light = {"somaresil.testing", "somaresil.testing.figures", "somaresil.testing.session"}
            assert found == {"somaresil._version", "somaresil.pytest_performance", "somaresil.pytest_plugin", *light}
        """
    )
    project.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_plan_that_breaks_something_is_kept_and_replayed(project):
    """The failure says what to type; typing it shows the same failure, with exit code 1."""
    project.makepyfile(
        agents="""
        from somaresil import Retry
        from somaresil.testing import at_most_once, scenario

        @scenario(at_most_once("memory.write"), horizon=60)
        async def agent(world):
            @world.resilience.guard("memory.write", retry=Retry(attempts=2, wait=0.1))
            async def write(key):
                world.acted("memory.write", key)
            async for second in world.ticks(10):
                await write(second)
        """,
        test_agents="""
        from hypothesis import given, settings
        from somaresil.testing.strategies import SEARCH, fault_schedules
        from agents import agent

        @settings(SEARCH, derandomize=True, database=None)
        @given(fault_schedules(agent, kinds=["lost_reply"], horizon=60))
        def test_agent(plan):
            agent.check(plan)
        """,
    )
    ini(project, "pythonpath = .")
    result = project.runpytest_subprocess("--somaresil-plans", "plans")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['*agent.check(ChaosPlan([[]FaultWindow("memory.write", "lost_reply", start=0, duration=1)]))*'])
    plans = sorted((project.path / "plans").glob("agent-*.json"), key=lambda path: len(path.read_text(encoding="utf-8")))
    assert plans
    again = subprocess.run(
        [sys.executable, "-m", "somaresil", "replay", plans[0]], cwd=project.path, capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 1, again.stderr
    assert "was done 2 times" in again.stdout
