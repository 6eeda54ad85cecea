"""Deadlines of requests: where they come from, and what becomes of a request whose time is up."""

from __future__ import annotations

import asyncio

import pytest

from somaresil import CallTimedOut, ConfigurationError, Outcome, Resilience, ResilienceMiddleware
from somaresil.deadline import time_left
from tests.unit.asgi.kit import START, Stand, body


class Answering:
    """An app that notes how long it may take, and answers."""

    def __init__(self):
        self.left = []

    async def __call__(self, scope, receive, send):
        self.left.append(time_left())
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        await send(START)
        await send(body())


def stand_of(app, **options):
    """A stand whose middleware has these options."""
    stand = Stand(app)
    stand.app = ResilienceMiddleware(app, stand.resilience, slo=["up", "fast"], **options)
    return stand


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("headers", "longest", "left"),
    [
        ([], None, None),
        ([], 30.0, 30.0),
        ([(b"x-request-timeout-ms", b"1500")], None, 1.5),
        ([(b"x-request-timeout-ms", b"1500")], 30.0, 1.5),
        ([(b"x-request-timeout-ms", b"90000")], 30.0, 30.0),
        ([(b"grpc-timeout", b"2S"), (b"x-envoy-expected-rq-timeout-ms", b"900")], None, 0.9),
        ([(b"x-request-timeout-ms", b"soon"), (b"x-request-timeout-ms", b"700")], None, 0.7),
        ([(b"x-request-timeout-ms", b"-5")], 30.0, 30.0),
        ([(b"x-request-timeout-ms", b"\xff")], None, None),
    ],
)
async def test_the_shortest_that_can_be_read_counts(headers, longest, left):
    """Of the headers and the middleware's own; what cannot be read is ignored and counted."""
    app = Answering()
    stand = stand_of(app, deadline=longest)
    await stand.ask(headers=headers)
    assert app.left == [left if left is None else pytest.approx(left)]
    assert stand.sent[0] == START
    unreadable = sum(value in {b"soon", b"-5", b"\xff"} for _, value in headers)
    assert stand.resilience.snapshot().ignored_headers == ({"x-request-timeout-ms": unreadable} if unreadable else {})


@pytest.mark.asyncio
async def test_a_conversation_has_none():
    """How long people talk is not what the handshake was asked in."""
    app = Answering()
    await stand_of(app, deadline=30.0).ask(kind="websocket", headers=[(b"x-request-timeout-ms", b"1500")])
    assert app.left == [None]


@pytest.mark.asyncio
async def test_a_request_whose_time_is_up_is_answered_with_504():
    """It is cancelled, and counts as bad."""
    cancelled = []

    async def hangs(scope, receive, send):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    stand = stand_of(hangs, deadline=0.001)
    await stand.ask()
    assert cancelled == [True]
    assert [message.get("status") for message in stand.sent] == [504, None]
    (counts,) = stand.resilience.routes.counts().values()
    assert (counts.total(Outcome.BAD), counts.total()) == (1, 1)


@pytest.mark.asyncio
async def test_a_request_that_comes_too_late_does_not_reach_the_app():
    """No milliseconds are left: 504 at once."""
    app = Answering()
    stand = stand_of(app)
    await stand.ask(headers=[(b"x-request-timeout-ms", b"0")])
    assert (app.left, stand.sent[0]["status"]) == ([], 504)


@pytest.mark.asyncio
async def test_a_response_that_has_begun_is_cut_off():
    """There is no second beginning: what the client gets is a response that was not finished."""

    async def drips(scope, receive, send):
        await send(START)
        await send(body(more=True))
        await asyncio.sleep(60)

    stand = stand_of(drips, deadline=0.001)
    with pytest.raises(CallTimedOut):
        await stand.ask()
    assert stand.sent == [START, body(more=True)]


@pytest.mark.asyncio
async def test_the_limits_of_the_app_are_its_own():
    """A CallTimedOut that comes from inside is an error of the app, not an answer of ours."""

    async def fails(scope, receive, send):
        raise CallTimedOut("llm", 1.0)

    stand = stand_of(fails, deadline=30.0)
    with pytest.raises(CallTimedOut, match="'llm'"):
        await stand.ask()
    assert stand.sent == []


@pytest.mark.parametrize("deadline", [0, -1, "5", True])
def test_a_deadline_that_is_no_duration_is_refused(deadline):
    """When the middleware is made."""
    with pytest.raises(ConfigurationError, match="deadline"):
        ResilienceMiddleware(Answering(), Resilience("tests"), deadline=deadline)
