"""A service with everything in it: all of it is shown, and what one process says of it another takes."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from datetime import timedelta

import pytest

from somaresil import SLO, AdaptiveLimit, Bulkhead, ChaosConfig, ChaosExperiment, CircuitBreaker, RateLimit, Rejected, Resilience, Throttle
from somaresil.asgi import ResilienceMiddleware
from somaresil.clock import ManualClock
from somaresil.dashboard import checked, merge
from somaresil.dashboard import columns as columns_of
from somaresil.dashboard.picture import GUARD, ROUTE
from somaresil.dashboard.sources import Sources
from somaresil.pool import Endpoint

MONTH = timedelta(days=30)


@pytest.fixture
def clock():
    return ManualClock(time=1_700_000_000.0)


@pytest.fixture
def service(clock, monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    made = Resilience("gateway", environment="test", clock=clock, seed=1)
    made.slos.add(
        SLO("up", 99.0, MONTH),
        SLO("fast", 95.0, MONTH, "gradual_burn", latency=2.0),
        SLO("recovers", 90.0, MONTH, recovery=60.0),
        SLO("fresh", 99.0, MONTH, freshness=60.0),
        SLO("slices", 99.0, MONTH, budgeting="ratio_timeslices", time_slice_window=60.0),
        SLO("month", 99.9, calendar="month", description="of the calendar"),
        SLO("apart", 99.0, MONTH, injected="separate", chaos_budget_percentage=0.5),
        SLO("tenants", 99.0, MONTH, group_by="tenant"),
        SLO("whole", 99.0, MONTH, parts={"up": 2.0, "fast": 1.0}),
    )
    made.guard(
        "llm",
        slo=["up", "fast", "slices", "month", "whole"],
        retry=3,
        idempotent=True,
        timeout=2.0,
        breaker=CircuitBreaker(consecutive_failures=2),
    )
    made.guard("memory", slo=["apart", "fresh"], throttle=Throttle(), rate_limit=RateLimit(100.0, per=1.0), budget_aware="up")
    made.guard("limited", bulkhead=Bulkhead(3, max_waiting=5, max_wait=1.0), breaker=True, slo="tenants")
    made.guard("adaptive", bulkhead=AdaptiveLimit())
    made.pool("models", [Endpoint("a", "a"), Endpoint("b", "b")], breaker=True)

    @made.canary("answer", candidate=_answer, bad="up", interval=None)
    def answer(user):
        return user

    made.chaos.opt_in()
    made.chaos.arm(
        ChaosConfig(
            ChaosExperiment.LATENCY_INJECTION,
            target_component="memory",
            failure_rate=1.0,
            duration_seconds=60,
            delay_seconds=0.001,
            blast_radius="single_instance",
        ),
        actor="alice",
    )
    made.alerting(interval=3_600.0)
    yield made
    made._alerting.stop()
    made.chaos.stop_all()


def _answer(user):
    return user


async def _app(scope, receive, send):
    await send({"type": "http.response.start", "status": 503 if scope["path"] == "/bad" else 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def fine(tenant="one"):
    return tenant


def fail():
    raise ValueError("secret")


def busy(service, clock):
    """Calls of every kind, good and bad, over some minutes."""
    app = ResilienceMiddleware(_app, service, slo="up")

    async def request(path):
        scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "route": None}
        await app(scope, _receive, _send)

    for turn in range(30):
        for name in ("llm", "memory", "limited", "adaptive"):
            with suppress(Rejected):
                service.call(name, fine)
        asyncio.run(request("/bad" if turn % 5 == 0 else "/good"))
        if turn % 3 == 0:
            with suppress(ValueError, Rejected):
                service.call("llm", fail)
        clock.advance(5.0)
    service._alerting.look()


async def _receive():
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_):
    pass


@pytest.fixture
def sources(service, clock):
    made = Sources(service)
    made.local.start()
    busy(service, clock)
    yield made
    made.stop()


def sent(portrait):
    return json.loads(json.dumps(portrait, allow_nan=False))


def test_what_one_process_says_another_takes_as_it_is(sources):
    """Everything, unchanged: what is refused, or cut, would be missing from every page but one."""
    portrait = sources.local.portrait()
    assert checked.portrait(sent(portrait)) == portrait
    own = asyncio.run(sources.own())
    assert checked.portrait(sent(own))["guards"] == portrait["guards"]


def test_everything_is_in_the_picture(sources, service):
    """Guards, routes, objectives, incidents, experiments, canaries, pools: none is left out, and nothing was reported."""
    shown = asyncio.run(sources.picture())
    assert {guard["name"] for guard in shown["guards"]} == {*service.guards}
    assert [objective["name"] for objective in shown["objectives"]] == sorted(service.slos.names)
    assert {objective["kind"] for objective in shown["objectives"]} == {"availability", "latency", "recovery", "freshness", "composite"}
    assert [run["target"] for run in shown["experiments"]] == ["memory"]
    assert shown["chaos"] == {"allowed": True, "problems": [], "engaged": None, "environment": "test"}
    (canary,) = shown["canaries"]
    assert (canary["name"], canary["outcome"], canary["leads"]) == ("answer", None, True)
    assert [each["threshold"] for each in canary["evidence"]] == [100.0, 100.0, 20.0]
    assert canary["evidence_series"]["at"] == sorted(canary["evidence_series"]["at"])
    (pool,) = shown["pools"]
    assert [(each["name"], each["state"]) for each in pool["endpoints"]] == [("a", "in"), ("b", "in")]
    assert {incident["subject"] for incident in shown["incidents"]} >= {"llm"}
    assert sum(route["totals"]["good"] for route in shown["routes"]) == 24
    assert sum(route["totals"]["bad"] for route in shown["routes"]) == 6
    assert not service.listeners.defects()


def test_figures_are_those_of_the_service(sources, service):
    """Budgets and burn rates of the page are what the objectives say themselves."""
    shown = {objective["name"]: objective for objective in asyncio.run(sources.picture())["objectives"]}
    for name, objective in shown.items():
        budget = service.slos.error_budget(name)
        assert objective["budget_left"] == (None if budget.remaining_share is None else pytest.approx(budget.remaining_share)), name
        for window in (300, 3_600, 86_400):
            burn = service.slos.burn_rate(name, float(window))
            assert objective["burn"][str(window)] == (None if burn is None else pytest.approx(burn)), name
        assert (objective["good"], objective["bad"]) == (budget.good, budget.bad), name
        assert objective["blocks"] is (service.slos.verdict(name).decision.value == "block")
    assert shown["up"]["alerts"]


def test_two_of_them_are_twice_as_much(sources, service):
    """Of counts; shares and what is left of budgets stay as they are."""
    portrait = sources.local.portrait()
    names = [GUARD + "llm", ROUTE + "_unmatched"]
    portrait["columns"] = sources.local.columns(names)
    other = {**portrait, "sources": {"other": {**next(iter(portrait["sources"].values())), "name": "other"}}}
    other["objectives"] = {
        name: {**each, "counted": {"other": next(iter(each["counted"].values()))}} for name, each in portrait["objectives"].items()
    }
    one = merge.picture(portrait, columns_of.series(portrait["columns"]))
    both = merge.merge([portrait, other])
    two = merge.picture(both, columns_of.series(both["columns"]))
    for before, after in zip(one["guards"], two["guards"], strict=True):
        assert after["totals"] == {outcome: 2 * calls for outcome, calls in before["totals"].items()}
        assert (after["error_share"], after["p95"]) == (before["error_share"], before["p95"])
        if before["series"] is not None:
            assert after["series"]["calls"] == [None if calls is None else 2 * calls for calls in before["series"]["calls"]]
    for before, after in zip(one["objectives"], two["objectives"], strict=True):
        assert after["good"] == 2 * before["good"]
        assert after["budget_left"] == (None if before["budget_left"] is None else pytest.approx(before["budget_left"]))
    assert len(two["sources"]) == 2
    assert two["experiments"][0]["injected"] == 2 * one["experiments"][0]["injected"] > 0


def test_details_of_a_guard(sources, service):
    """Stages in order with their seconds, options, steps, reasons and heat; another process takes them too."""
    guard = asyncio.run(sources.guard("llm"))
    stages = {stage["name"]: stage for stage in guard["stages"]}
    assert [stage["name"] for stage in guard["stages"]] == guard["pipeline"]
    assert stages["timeout"]["worst_case"] == 2.0
    assert stages["record"]["worst_case"] == guard["worst_case"]
    assert stages["breaker"]["worst_case"] is None
    assert sum(filter(None, guard["rejections"].values())) == guard["totals"]["rejected"]
    assert len(guard["heat"]["columns"]) == len(guard["heat"]["cells"]) == 120
    assert guard["recent"]
    found = sources.local.guard("llm")
    packed = {**found, "columns": columns_of.packed(found["columns"])}
    assert checked.details(sent(packed)) == found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_tells_only_what_it_has_counted_itself(sources, service):
    """What its parent had counted is the parent's, and so are its events; it is another process by name and number."""
    identity, name = sources.local.id, sources.local.name
    read, write = os.pipe()
    sources.start()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            service.call("memory", fine)
            portrait = sources.local.portrait()
            said = [
                portrait["guards"]["memory"]["totals"][0],
                portrait["guards"]["memory"]["recent"][0],
                portrait["guards"]["llm"]["totals"],
                sources.local.id == identity,
                sources.local.name == name,
                len(sources.local.events.read()["events"]),
            ]
            os.write(write, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert json.loads(os.read(read, 4_096)) == [1, 1, [0] * 6, False, False, 0]
    assert sources.local.id == identity
    os.close(read)
    os.close(write)
