"""What a type checker sees of somaresil.load."""

from typing import assert_type

from somaresil.load import (
    Answer,
    Books,
    Capacity,
    Check,
    Ending,
    LoadReport,
    Request,
    Scenario,
    Stage,
    Threshold,
    arrivals,
    read_scenario,
    run_scenario,
    scenario_capacity,
)


async def run() -> None:
    """A scenario in code and one from a file."""
    scenario = Scenario("s", "http://127.0.0.1:8000", (Request("a", "/a"),), (Stage(1.0, 5.0),), thresholds=(Threshold("p95", 1.0),))
    report = await run_scenario(scenario)
    assert_type(report, LoadReport)
    assert_type(report.checks, tuple[Check, ...])
    assert_type(report.answer, Answer)
    assert_type(report.exit_code, int)
    assert_type(read_scenario("scenario.toml"), Scenario)
    capacity = await scenario_capacity(scenario, seconds=1.0)
    assert_type(capacity, Capacity)
    assert_type(capacity.knee, float | None)
    books = Books()
    books.note(Ending("a", due=0.0, ended=1.0))
    assert_type(list(arrivals(scenario.stages)), list[float])
    Scenario("s", "http://127.0.0.1:8000", (), (), "poisson")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
