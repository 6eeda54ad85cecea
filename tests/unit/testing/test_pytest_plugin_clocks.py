"""A test in virtual time and a ``Resilience`` that the suite makes: one clock, or an error. Each test runs a pytest of its own."""

from __future__ import annotations

import pytest

from tests.unit.testing.suites import ini

pytestmark = pytest.mark.timeout(60)

OWN = """
    import pytest
    from somaresil import Resilience
    from somaresil.testing import VirtualClock

    @pytest.fixture{scope}
    def resilience({arguments}):
        return Resilience("gateway", environment="test", clock={clock})
"""
WINDOW = """
    import asyncio
    import pytest

    @pytest.mark.virtual_time
    @pytest.mark.chaos("llm.invoke", start=10, duration=60)
    async def test_window(resilience, fault_events):
        for _ in range(100):
            try:
                await resilience.guard("llm.invoke").acall(asyncio.sleep, 1)
            except Exception:
                await asyncio.sleep(1)
        assert fault_events.injected == 60
"""


def own(project, clock: str, *, arguments: str = "", scope: str = "") -> None:
    """A conftest with a ``resilience`` of the project."""
    project.makeconftest(OWN.format(clock=clock, arguments=arguments, scope=scope))


@pytest.mark.parametrize("use", ["chaos", "slo", "fault_events", "marker"])
@pytest.mark.parametrize("scope", ["", '(scope="module")'], ids=["function", "module"])
def test_another_clock_is_an_error(project, use, scope):
    """A fault in ten seconds would never come: it is said which clock it is, and each way out."""
    own(project, "None", scope=scope)
    mark, arguments = ('@pytest.mark.chaos("llm.invoke", start=10)', "") if use == "marker" else ("", use)
    project.makepyfile(f"import pytest\n{mark}\n@pytest.mark.virtual_time\ndef test_it({arguments}): pass")
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*test_it is in virtual time by the marker virtual_time, but *a SystemClock: expected that of the test; *"]
    )
    for remedy in ("clock=virtual_time", "somaresil_resilience", "SOMARESIL_CLOCK=steered"):
        result.stdout.fnmatch_lines([f"*{remedy}*"])


def test_another_virtual_clock_is_one_too(project):
    """It moves, but not with the test."""
    own(project, "VirtualClock()")
    project.makepyfile("def test_it(virtual_time, chaos): pass")
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*by the fixture virtual_time, but *a VirtualClock: expected that of the test*"])


def test_real_time_takes_any_clock(project):
    """As does virtual time without faults, histories and objectives."""
    own(project, "None")
    project.makepyfile("def test_real(chaos, slo): pass\ndef test_virtual(resilience, virtual_time): pass")
    project.runpytest_inprocess().assert_outcomes(passed=2)


def test_the_clock_of_the_test_may_be_handed_in(project):
    """The window begins when it should."""
    own(project, "virtual_time", arguments="virtual_time")
    project.makepyfile(WINDOW)
    project.runpytest_inprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("scope", ["", '(scope="session")'], ids=["function", "session"])
def test_a_steered_process_follows_each_test(project, monkeypatch, scope):
    """Made before or in the test, by an environment that says so; in real time it is the machine's."""
    monkeypatch.setenv("SOMARESIL_CLOCK", "steered")
    own(project, "None", scope=scope)
    project.makepyfile(
        WINDOW
        + """
    def test_real(resilience, chaos):
        assert type(resilience.clock._source).__name__ == "SystemClock"
        resilience.guard("llm.invoke")
"""
    )
    project.runpytest_inprocess().assert_outcomes(passed=2)


def test_a_service_with_a_clock_of_its_own_is_told(project):
    """Naming it is not enough where it was made with one."""
    project.makepyfile(
        service="""
        from somaresil import Resilience, SystemClock
        resilience = Resilience("service", environment="test", clock=SystemClock())
        """,
        test_it="def test_it(virtual_time, chaos): pass",
    )
    ini(project, "pythonpath = .", "somaresil_resilience = service")
    result = project.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*a SystemClock: expected that of the test*without clock=*"])
