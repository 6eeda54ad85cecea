"""What is shown of one process, from its calls to the picture."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest

from somaresil import SLO, CircuitBreaker, Resilience
from somaresil.clock import ManualClock
from somaresil.dashboard.sources import Sources


@pytest.fixture
def clock():
    return ManualClock(time=1_700_000_000.0)


@pytest.fixture
def service(clock):
    resilience = Resilience("gateway", instance="gateway", environment="test", clock=clock)
    resilience.slos.add(SLO("api", 99.0, timedelta(days=30)))
    resilience.guard("llm.invoke", slo="api", breaker=CircuitBreaker(consecutive_failures=2, open_duration=30.0), timeout=2.0)
    return resilience


@pytest.fixture
def sources(service):
    made = Sources(service)
    made.local.start()
    yield made
    made.stop()


def fail(service):
    with pytest.raises(ValueError, match="no"):
        service.call("llm.invoke", _raise)


def _raise():
    raise ValueError("no")


def shown(sources):
    """The picture, as JSON has it."""
    return json.loads(json.dumps(asyncio.run(sources.picture()), allow_nan=False))


def test_a_picture_counts_what_was_called(service, sources, clock):
    """Calls of the last minute are counted by outcome, with shares, a rate and quantiles; so are those since the beginning."""
    service.call("llm.invoke", int)
    service.call("llm.invoke", int)
    fail(service)
    clock.advance(5.0)
    sources.local.sample()
    service.call("llm.invoke", int)
    picture = shown(sources)
    (guard,) = picture["guards"]
    assert guard["counts"] == {"good": 3, "bad": 1, "rejected": 0, "abandoned": 0, "ignored": 0, "injected": 0}
    assert guard["counts"] == guard["totals"]
    assert guard["error_share"] == pytest.approx(0.25)
    assert guard["injected_share"] == 0.0
    assert guard["rate"] == pytest.approx(4 / guard["window"])
    assert 0.0 < guard["p50"] <= guard["p95"] <= guard["p99"] <= 0.005
    assert (guard["state"], guard["states"], guard["worst_case"]) == ("closed", {"closed": 1}, 2.0)
    assert picture["objectives"][0]["good"] == 3
    assert picture["objectives"][0]["burn"]["3600"] == pytest.approx(25.0)


def test_nothing_seen_is_not_nought(sources):
    """Without a call there is no share and no quantile, and a budget that nobody has touched is not said to be full."""
    picture = shown(sources)
    (guard,) = picture["guards"]
    assert [guard[name] for name in ("error_share", "injected_share", "p50", "p95", "p99")] == [None] * 5
    (objective,) = picture["objectives"]
    assert (objective["compliance"], objective["budget_left"], objective["burn"]["300"]) == (None, None, None)
    assert {*guard["series"]["calls"]} == {None}


def test_a_breaker_that_opens_is_seen_with_its_steps(service, sources):
    """The guard is open, its timeline and the events say so, and the version moves."""
    before = sources.version
    fail(service)
    fail(service)
    assert sources.version > before
    assert shown(sources)["guards"][0]["state"] == "open"
    guard = asyncio.run(sources.guard("llm.invoke"))
    assert [(step["before"], step["after"]) for step in guard["timeline"]] == [("closed", "open")]
    assert guard["tally"] == {"calls": 2, "failures": 2, "slow": 0}
    found = asyncio.run(sources.events(kind="BreakerChanged"))["events"]
    assert [(event["about"], event["level"]) for event in found] == [("llm.invoke", "warning")]
    assert "open" in found[0]["text"]


def test_what_is_not_there_is_none(sources):
    """Guards and objectives that nobody has made are not made up."""
    assert asyncio.run(sources.guard("nobody")) is None
    assert asyncio.run(sources.objective("nobody")) is None
    assert asyncio.run(sources.objective("api"))["guards"] == ["llm.invoke"]
