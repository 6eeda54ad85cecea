"""What is shown of one process, from its calls to the picture."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from datetime import timedelta

import pytest

from somaresil import SLO, ChaosConfig, ChaosExperiment, CircuitBreaker, Resilience
from somaresil.clock import ManualClock
from somaresil.dashboard.eventlog import OF_CALLS
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


def test_experiments_say_what_they_struck_and_what_was_absorbed(clock, monkeypatch):
    """A struck call that ended well in spite of it was absorbed; who started it is told."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    service = Resilience("gateway", environment="test", clock=clock, seed=1)
    service.guard("llm.invoke", retry=2, idempotent=True)
    service.chaos.opt_in()
    sources = Sources(service)
    sources.local.start()
    config = ChaosConfig(
        ChaosExperiment.ERROR_INJECTION,
        target_component="llm.*",
        failure_rate=1.0,
        duration_seconds=60,
        blast_radius="single_instance",
        first=1,
    )
    service.chaos.arm(config, actor="alice")
    service.call("llm.invoke", int)
    (run,) = shown(sources)["experiments"]
    assert (run["state"], run["injected"], run["absorbed"], run["struck"], run["by"]) == ("running", 1, 1, {"llm.invoke": 1}, "alice")
    assert run["sources"] == [sources.local.name]
    service.chaos.stop_all()
    (run,) = shown(sources)["experiments"]
    assert (run["state"], run["end_reason"], run["remaining"]) == ("ended", "stop_all", 0.0)
    sources.stop()


def test_objectives_of_which_nobody_looks_and_budgets_over_time(service, sources, clock):
    """What is left of a budget is plotted from what objectives remember anyway."""
    for _ in range(3):
        for _ in range(99):
            service.call("llm.invoke", int)
        fail(service)
        service.call("llm.invoke", int)
        clock.advance(86_400.0)
    objective = asyncio.run(sources.objective("api"))
    assert objective["budget_left"] == pytest.approx(1.0 - (3 / 303) / 0.01)
    left = objective["budget_series"]["left"]
    assert len(left) == len(objective["budget_series"]["at"]) >= 4
    assert left[-1] == pytest.approx(objective["budget_left"])
    assert objective["exhausted_in"] is None
    assert objective["guards"] == ["llm.invoke"]


def test_a_guard_that_cannot_be_read_hides_no_other(service, sources, monkeypatch):
    """It is reported once and left out."""
    service.guard("other")
    monkeypatch.setattr(type(service.find("llm.invoke").breaker), "state", property(lambda _: 1 / 0))
    assert [guard["name"] for guard in shown(sources)["guards"]] == ["other"]


def test_nothing_runs_before_it_is_started(service):
    """No thread, no listener: a picture can be had all the same, with totals."""
    threads = {*threading.enumerate()}
    sources = Sources(service)
    assert {*threading.enumerate()} == threads
    assert not any(service.listeners.wants(kind) for kind in OF_CALLS)
    assert shown(sources)["guards"][0]["totals"]["good"] == 0


def test_a_command_is_done_here_and_told(service):
    """What it says is passed on; one that raises is told to have failed; without ``perform`` nothing can be done."""
    asked = []

    def perform(command, actor):
        asked.append((command, actor))
        if command["do"] == "fail":
            raise ValueError("not possible")
        return {"done": True, "ids": ["e1"]}

    sources = Sources(service, perform=perform)
    said = asyncio.run(sources.command({"do": "stop"}, "alice"))
    assert said == {"done": True, "sources": [{"name": sources.local.name, "done": True, "problem": "", "ids": ["e1"]}]}
    assert asked == [({"do": "stop"}, "alice")]
    said = asyncio.run(sources.command({"do": "fail"}, "alice"))
    assert (said["done"], said["sources"][0]["problem"]) == (False, "ValueError: not possible")
    assert asyncio.run(Sources(service).command({"do": "stop"}, "alice"))["done"] is False


def test_two_in_one_process_are_one_picture(tmp_path):
    """Workers need not be processes: whatever shares a folder and a service is added up, events in the order of time."""
    made = []
    for calls in (2, 3):
        service = Resilience("gateway", environment="test", instance=f"worker{calls}")
        service.guard("llm.invoke", breaker=CircuitBreaker(consecutive_failures=1))
        made.append(Sources(service, workers=tmp_path / "w", perform=lambda command, actor: {"done": True}))
        made[-1].start()
        for _ in range(calls):
            service.call("llm.invoke", int)
        fail(service)
    one, other = made
    picture = shown(one)
    assert picture["guards"][0]["totals"] == {"good": 5, "bad": 2, "rejected": 0, "abandoned": 0, "ignored": 0, "injected": 0}
    assert picture["guards"][0]["states"] == {"open": 2}
    assert [each["kind"] for each in picture["sources"]] == ["self", "worker"]
    found = asyncio.run(one.events())
    assert [event["source"].partition("-")[0] for event in found["events"] if event["kind"] == "BreakerChanged"] == ["worker2", "worker3"]
    assert asyncio.run(one.events(found["next"]))["events"] == []
    guard = asyncio.run(other.guard("llm.invoke"))
    assert len(guard["timeline"]) == 2
    assert guard["tally"]["failures"] == 2
    assert len(asyncio.run(one.command({}, "alice"))["sources"]) == 2
    for sources in made:
        sources.stop()
    assert [*(tmp_path / "w").iterdir()] == []


def test_events_wait_for_a_worker_that_is_slow_but_not_for_long(tmp_path, monkeypatch):
    """Nothing is told up to a number behind which another worker may have more to tell; after three seconds it is left behind."""
    clocks = ManualClock(), ManualClock()
    made = [_worker(tmp_path, f"worker{place}", clock) for place, clock in enumerate(clocks)]
    one, other = made
    first = asyncio.run(one.events())
    real = other.local.events.read
    other._resilience.breaker("llm.invoke").trip(9.0)
    clocks[0].advance(0.1)
    monkeypatch.setattr(other.local.events, "read", lambda **_: 1 / 0)
    one._resilience.breaker("llm.invoke").trip(9.0)
    held = asyncio.run(one.events(first["next"]))
    assert held["events"] == []
    # They were asked in one moment of their clocks, and only names made the difference.
    assert 0 <= held["next"] - first["next"] < 256
    monkeypatch.setattr(other.local.events, "read", real)
    clocks[1].advance(0.2)
    found = asyncio.run(one.events(held["next"]))
    assert [event["source"][:7] for event in found["events"] if event["kind"] == "BreakerChanged"] == ["worker1", "worker0"]
    monkeypatch.setattr(other.local.events, "read", lambda **_: 1 / 0)
    one._resilience.breaker("llm.invoke").reset()
    clocks[0].advance(4.0)
    assert "BreakerChanged" in [event["kind"] for event in asyncio.run(one.events(found["next"]))["events"]]
    for sources in made:
        sources.stop()


def _worker(folder, name, clock):
    service = Resilience("gateway", environment="test", instance=name, clock=clock)
    service.guard("llm.invoke", breaker=True)
    sources = Sources(service, workers=folder / "w")
    sources.start()
    return sources


def test_news_of_others_move_the_version_while_somebody_looks(tmp_path):
    """The page hears of a breaker that opens in another worker without asking for the whole picture."""
    one, other = _worker(tmp_path, "one", None), _worker(tmp_path, "other", None)
    with one.watching():
        until = time.monotonic() + 20.0
        while not one._versions:
            assert time.monotonic() < until
        before = one.version
        other._resilience.breaker("llm.invoke").trip(9.0)
        while one.version == before:
            assert time.monotonic() < until
    one.stop()
    other.stop()


def test_single_calls_are_listened_for_where_somebody_looks_and_where_he_asks(tmp_path, clock):
    """Siblings of the worker whose page is open listen too, and all stop when it is closed."""
    one, other = _worker(tmp_path, "one", clock), _worker(tmp_path, "other", clock)
    with one.watching():
        shown(one)
        assert one.local.events.attending
        assert other.local.events.attending
    assert not one.local.events.attending
    clock.advance(60.0)
    other._round()
    assert not other.local.events.attending
    one.stop()
    other.stop()
