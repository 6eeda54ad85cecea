"""Objectives of every kind at the middleware: streams, predicates, freshness, groups, composites, experiments apart."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

import pytest

from somaresil import SLO, ChaosPlan, ConfigurationError, FaultWindow, Resilience, requestprobes
from somaresil.asgi import HttpExchange, ResilienceMiddleware
from somaresil.events import DefectFound
from somaresil.slo.groups import Groups
from somaresil.slo.probe import Probe
from tests.unit.asgi.kit import START, Stand, body, says

WEEK = timedelta(days=7)
STREAMS = (SLO("first", 90.0, WEEK, first_item=1.0), SLO("gaps", 90.0, WEEK, idle=2.0), SLO("whole", 90.0, WEEK, completion=True))


class Told(Stand):
    """A stand whose middleware counts for these objectives."""

    def __init__(self, app, *slos, name=None, **mounted):
        super().__init__(app)
        self.resilience.slos.add(*slos)
        names = [slo.name for slo in slos] if name is None else name
        self.app = ResilienceMiddleware(app, self.resilience, slo=names, **mounted)

    def seen(self, name):
        """The totals of an objective."""
        return self.resilience.slos.series(name).totals()

    def groups(self, name):
        """The totals of its groups."""
        slos = self.resilience.slos
        return {group: slos.series(name, group).totals() for group in slos.groups(name)}


def streaming(stand, waits, *, status=200, end=None, last=0.0):
    """An app that waits and says a piece, and so on."""

    async def app(scope, receive, send):
        await send({**START, "status": status})
        for wait in waits:
            stand().clock.advance(wait)
            await send(body(b"x", more=True))
        stand().clock.advance(last)
        if end is not None:
            raise end
        await send(body(b""))

    return app


def made(waits, *slos, **options):
    """A stand around an app that streams so."""
    found = []
    found.append(Told(streaming(lambda: found[0], waits, **options), *slos))
    return found[0]


CASES = [
    # time before each piece, options: first, gaps, whole
    ([0.5, 2.0, 2.0], {}, (1, 0), (1, 0), (1, 0)),
    ([1.5, 0.5], {}, (0, 1), (1, 0), (1, 0)),
    ([1.0, 2.5, 0.1], {}, (1, 0), (0, 1), (1, 0)),
    ([0.1, 0.1], {"last": 2.5}, (1, 0), (0, 1), (1, 0)),
    ([0.1, 0.1], {"end": LookupError()}, (1, 0), (1, 0), (0, 1)),
    ([0.1], {"last": 2.5, "end": LookupError()}, (1, 0), (0, 1), (0, 1)),
    ([], {"end": LookupError()}, (0, 1), (0, 0), (0, 0)),
    ([0.1, 5.0], {"status": 503}, (0, 1), (0, 0), (0, 0)),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("waits", "options", "first", "gaps", "whole"), CASES)
async def test_the_pace_and_the_end_of_responses(waits, options, first, gaps, whole):
    """Each objective looks at its part of a stream."""
    stand = made(waits, *STREAMS, **options)
    with suppress(LookupError):
        await stand.ask()
    assert {slo.name: stand.seen(slo.name) for slo in STREAMS} == {"first": first, "gaps": gaps, "whole": whole}
    assert stand.told(DefectFound) == []


@pytest.mark.asyncio
async def test_an_answer_in_one_piece_is_no_stream():
    """It has a first byte, and neither a pace nor an end of its own; one without a body is in time when it ends in time."""
    stand = Told(says(START, body()), *STREAMS)
    await stand.ask()
    assert [stand.seen(slo.name) for slo in STREAMS] == [(1, 0), (0, 0), (0, 0)]
    stand = Told(says({**START, "status": 204}, body(b"")), *STREAMS)
    await stand.ask()
    assert [stand.seen(slo.name) for slo in STREAMS] == [(1, 0), (0, 0), (0, 0)]


@pytest.mark.asyncio
async def test_a_slow_client_is_no_gap_and_one_that_leaves_has_waited():
    """What the reader does in between is his own affair; that he left while nothing came may be for that."""
    stand = made([0.1, 0.1], *STREAMS)

    async def slowly(message):
        stand.clock.advance(60.0)

    await stand.ask(send=slowly)
    assert stand.seen("gaps") == (1, 0)

    async def app(scope, receive, send):
        await send(START)
        await send(body(more=True))
        left.clock.advance(2.5)
        raise asyncio.CancelledError

    left = Told(app, *STREAMS)
    with suppress(asyncio.CancelledError):
        await left.ask()
    assert [left.seen(slo.name) for slo in STREAMS] == [(1, 0), (0, 1), (0, 0)]


@pytest.mark.asyncio
async def test_what_faults_hold_back_is_felt(monkeypatch):
    """The gap is measured where the client is."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    stand = made([0.1, 0.1, 0.1], *STREAMS)
    stand.arm("stream_cut", after_items=1)
    with suppress(Exception):
        await stand.ask()
    assert stand.seen("whole") == (0, 1)
    assert stand.resilience.slos.totals("whole", injected=True) == (0, 1)
    assert stand.resilience.slos.totals("whole", injected=False) == (0, 0)


@pytest.mark.asyncio
async def test_a_predicate_gets_the_exchange():
    """With both sides of it, the route, the error and the time; None is no event."""
    seen = []

    def fresh(exchange, error, elapsed):
        seen.append((exchange, error, elapsed))
        if exchange.route == "__unmatched__":
            return None
        return exchange.response_header("X-Source") != "stale" and exchange.status < 400

    async def app(scope, receive, send):
        if scope["path"] != "/nowhere":
            scope["route"] = type("Route", (), {"path": "/i/{id}"})()
        stand.clock.advance(0.5)
        headers = [(b"x-source", scope["path"][1:].encode())]
        await send({"type": "http.response.start", "status": 404 if scope["path"] == "/gone" else 200, "headers": headers})
        await send(body())

    stand = Told(app, SLO("fresh", 90.0, WEEK, good_when=fresh))
    for path in ("/nowhere", "/live", "/stale", "/gone"):
        await stand.ask(path, headers=[(b"x-client", b"a")])
    assert stand.seen("fresh") == (1, 2)
    exchange, error, elapsed = seen[1]
    assert isinstance(exchange, HttpExchange)
    assert (exchange.method, exchange.route, exchange.status, exchange.pieces) == ("GET", "/i/{id}", 200, 1)
    assert (exchange.first_byte, exchange.longest_gap, error, elapsed) == (0.5, 0.0, None, 0.5)
    assert (exchange.request_header("X-Client"), exchange.request_header("y")) == ("a", None)


@pytest.mark.asyncio
async def test_the_error_of_an_app_reaches_the_predicate():
    """And one about a request that nobody answered is bad only when it says so."""
    stand = Told(says(then=LookupError()), SLO("known", 90.0, WEEK, good_when=lambda _, error, __: isinstance(error, LookupError)))
    with suppress(LookupError):
        await stand.ask()
    assert stand.seen("known") == (1, 0)


@pytest.mark.asyncio
async def test_good_requests_refresh():
    """A request that fails refreshes nothing."""
    stand = Told(says(START, body()), SLO("index", 90.0, WEEK, freshness=60.0))
    await stand.ask()
    stand.clock.advance(120.0)
    assert stand.seen("index") == (6, 6)


GROUPED = [
    ("route", {}, "/i/{id}"),
    ("method", {"method": "BREW"}, "_OTHER"),
    ("method", {}, "GET"),
    ("header:X-Tenant", {"headers": [(b"x-tenant", b" acme ")]}, "acme"),
    ("header:x-tenant", {}, "_other"),
    ("model", {"path_params": {"model": "small"}}, "small"),
    ("tenant", {"path_params": {"tenant": 7}}, "7"),
    ("tenant", {}, "whose"),
    (lambda scope: scope["path"][:2], {}, "/"),
    (lambda scope: 1 / 0, {}, "_other"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("by", "scope", "group"), GROUPED)
async def test_requests_have_budgets_by_group(by, scope, group):
    """By what the scope says, beside the budget of all."""
    slo = SLO("ours", 90.0, WEEK, group_by=by)
    stand = Told(says(START, body()), slo, priority=lambda _: (None, "whose"))
    await stand.ask(route=type("Route", (), {"path": "/i/{id}"})(), **scope)
    assert stand.groups("ours") == {group: (1, 0)}
    assert stand.seen("ours") == (1, 0)


@pytest.mark.asyncio
async def test_ten_thousand_tenants_are_twenty_groups():
    """A client that makes up labels fills neither memory nor pushes anybody out, and no request is lost."""
    stand = Told(says(START, body()), SLO("ours", 90.0, WEEK, group_by="header:x-tenant"))
    for number in range(10_000):
        await stand.ask(headers=[(b"x-tenant", b"t%d" % number)])
    groups = stand.groups("ours")
    assert len(groups) == 21
    assert groups["_other"] == (9_980, 0)
    assert stand.seen("ours") == (10_000, 0)
    assert len(stand.app.plain) == 0
    assert stand.app._admission is None, "labels need no listening"


@pytest.mark.asyncio
async def test_half_a_character_is_no_label():
    """What UTF-8 cannot say would cost a whole scrape."""
    stand = Told(says(START, body()), SLO("ours", 90.0, WEEK, group_by=lambda _: "a\udc80b"))
    await stand.ask()
    assert [*stand.groups("ours")] == ["a?b"]


@pytest.mark.asyncio
async def test_a_composite_stands_for_its_parts():
    """At the middleware and at guards; each request counts once."""
    parts = (SLO("a", 99.0, WEEK), SLO("b", 90.0, WEEK, latency=1.0), SLO("r", 90.0, WEEK, recovery=60.0), STREAMS[0])
    stand = Told(says(START, body()), *parts, SLO("all", 95.0, WEEK, parts={"a": 1.0, "b": 2.0, "r": 1.0, "first": 1.0}), name=["a", "all"])
    await stand.ask()
    assert [stand.seen(name) for name in ("a", "b", "r", "first")] == [(1, 0), (1, 0), (0, 0), (1, 0)]
    stand.resilience.slos.add(SLO("calls", 99.0, WEEK, parts={"a": 1.0}))
    stand.resilience.guard("x", slo=["calls", "a"]).call(int)
    assert stand.seen("a") == (2, 0)
    assert stand.resilience.slos.error_budget("all").remaining_share == 1.0


@pytest.mark.asyncio
async def test_slices_and_calendars_count_requests():
    """What is counted by cells needs no listening, so the quiet way stays."""
    slices = SLO("slices", 90.0, WEEK, budgeting="timeslices", time_slice_window=60.0, time_slice_target=0.9)
    stand = Told(says(START, body()), slices, SLO("month", 90.0, calendar="month"))
    await stand.ask()
    stand.clock.advance(120.0)
    assert stand.resilience.slos.series("slices").slices() == (1, 0)
    assert stand.seen("month") == (1, 0)
    assert stand.app._admission is None


@pytest.mark.asyncio
async def test_conversations_are_told_to_availability_and_freshness_alone():
    """How long one lasts says nothing about speed, and it is no stream of a response."""
    talk = says({"type": "websocket.accept"}, {"type": "websocket.close"})
    slos = (SLO("ours", 90.0, WEEK, group_by="method"), *STREAMS, SLO("p", 90.0, WEEK, good_when=lambda *_: True))
    stand = Told(talk, *slos)
    await stand.ask(kind="websocket")
    assert [stand.seen(slo.name) for slo in slos] == [(1, 0), (0, 0), (0, 0), (0, 0), (0, 0)]
    assert stand.groups("ours") == {"WEBSOCKET": (1, 0)}


def test_recovery_is_not_for_requests():
    """Breakers are watched anyway."""
    resilience = Resilience("x")
    resilience.slos.add(SLO("r", 90.0, WEEK, recovery=60.0))
    with pytest.raises(ConfigurationError, match="watch every breaker by themselves"):
        ResilienceMiddleware(None, resilience, slo="r")


@pytest.mark.asyncio
async def test_an_app_without_such_objectives_is_not_listened_to():
    """Its ordinary requests take the quiet way, and nothing is wrapped."""
    stand = Stand(says(START, body()))
    scope = await stand.ask(route=type("Route", (), {"path": "/"})())
    assert scope["type"] == "http"
    assert stand.app._admission is None
    assert len(stand.app.plain) == 1


PLANTED = [
    *((requestprobes.RequestPace, name) for name in ("_goes", "gap", "came")),
    *((requestprobes.RequestProbes, name) for name in ("tell",)),
    *((requestprobes, name) for name in ("_label", "_header", "HttpExchange", "Ended", "Measured", "route_template")),
    *((Groups, name) for name in ("tell", "_room")),
    (Probe, "_label"),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("owner", "step"), PLANTED, ids=lambda value: getattr(value, "__name__", value))
async def test_a_step_that_fails_is_not_noticed(monkeypatch, owner, step):
    """The client gets what the app said, and a place is reported once."""
    from somaresil import asgi

    reached = []

    def planted(*args, **kwargs):
        reached.append(True)
        raise RuntimeError("planted")

    monkeypatch.setattr(logging.getLogger("somaresil"), "disabled", True)
    slos = (*STREAMS, SLO("ours", 90.0, WEEK, group_by="header:x-tenant"), SLO("p", 90.0, WEEK, good_when=lambda *_: True))
    app = says(START, body(more=True), body(b"y", more=True), body(b""))
    stand = Told(app, *slos)
    holder = asgi if step == "Ended" else owner
    monkeypatch.setattr(holder, step, planted)
    for _ in range(2):
        await stand.ask()
        assert [message["type"] for message in stand.sent] == ["http.response.start", *["http.response.body"] * 3]
    assert reached, "the step was never taken"
    assert len(stand.told(DefectFound)) <= 6


@pytest.mark.asyncio
async def test_a_spent_chaos_budget_ends_the_experiments_of_its_scope(monkeypatch):
    """Those on what the objective counts, and no other; none begins until there is something left."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    apart = {"injected": "separate", "chaos_budget_percentage": 10.0}
    stand = Told(says(START, body()), SLO("web", 90.0, WEEK, **apart))
    stand.resilience.slos.add(SLO("calls", 90.0, WEEK, **apart))
    guard = stand.resilience.guard("x", slo="calls")
    guard.call(int)
    other = stand.arm("latency", "x", rate=0.5, delay_seconds=0.1)
    for _ in range(18):
        await stand.ask()
    run = stand.arm("error", status=500)
    for _ in range(2):
        await stand.ask()
        stand.clock.advance(2.0)
        stand.resilience.chaos.safety.look()
    assert run.end_reason is not None
    assert "chaos budget of web" in f"{run.end_reason} {run.end_detail}"
    assert run.injected == 2
    assert other.end_reason is None
    assert stand.resilience.slos.chaos_budget("web") == (0.0, 20)
    assert stand.resilience.slos.error_budget("web").remaining_share == 1.0
    with pytest.raises(ConfigurationError, match="chaos budget of web"):
        stand.arm("error", status=500)


@pytest.mark.asyncio
async def test_a_spent_chaos_budget_ends_the_window_of_a_plan_too(monkeypatch):
    """It is an experiment like any other; windows on something else go on."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    stand = Told(says(START, body()), SLO("web", 90.0, WEEK, injected="separate", chaos_budget_percentage=10.0))
    stand.resilience.guard("x").call(int)
    for _ in range(18):
        await stand.ask()
    stand.resilience.chaos.opt_in()
    plan = ChaosPlan([FaultWindow("http:*", "error", 0, 60, status=500), FaultWindow("x", "error", 0, 60, rate=0.1)])
    stand.resilience.chaos.arm_plan(plan)
    for _ in range(5):
        await stand.ask()
        stand.clock.advance(2.0)
        stand.resilience.chaos.safety.look()
    web, calls = stand.resilience.chaos.history[-2:]
    assert web.injected == 2
    assert "chaos budget of web" in f"{web.end_reason} {web.end_detail}"
    assert calls.end_reason is None
