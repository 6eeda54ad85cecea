"""How a conversation counts: by how it ended, whoever ended it."""

from __future__ import annotations

import asyncio

import pytest

from somaresil import Outcome
from tests.unit.asgi.kit import HOUR, Stand

GOOD, BAD, ABANDONED = Outcome.GOOD, Outcome.BAD, Outcome.ABANDONED
ACCEPT = {"type": "websocket.accept"}
TEXT = {"type": "websocket.send", "text": "x"}


def close(code=None):
    return {"type": "websocket.close"} if code is None else {"type": "websocket.close", "code": code}


def left(code=None):
    return {"type": "websocket.disconnect"} if code is None else {"type": "websocket.disconnect", "code": code}


def talks(*messages, hears=0, then=None):
    async def app(scope, receive, send):
        await receive()
        for message in messages:
            await send(message)
        for _ in range(hears):
            await receive()
        if then is not None:
            raise then

    return app


async def end(app, **options):
    """How a conversation with this app ended, and what came out of it."""
    stand = Stand(app)
    error = None
    try:
        await stand.ask(kind="websocket", **options)
    except BaseException as raised:
        error = raised
    return stand, error


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("messages", "outcome"),
    [
        ([ACCEPT, TEXT, close()], GOOD),
        ([ACCEPT, close(1000)], GOOD),
        ([ACCEPT, close(1008)], GOOD),
        ([ACCEPT, close(1011)], BAD),
        ([ACCEPT, TEXT], GOOD),
        ([close(1008)], GOOD),
        ([close(1011)], BAD),
        ([{"type": "websocket.http.response.start", "status": 401}, {"type": "websocket.http.response.body"}], GOOD),
        ([{"type": "websocket.http.response.start", "status": 503}, {"type": "websocket.http.response.body"}], BAD),
        ([], BAD),
    ],
)
async def test_a_conversation_that_the_app_ends(messages, outcome):
    """1011 is an internal error; to be refused for a reason is good, not to be answered at all is bad."""
    stand, error = await end(talks(*messages))
    assert error is None
    assert stand.ends() == {outcome: 1}
    assert stand.labels() == [("WEBSOCKET", "__unmatched__", 0)]
    assert stand.sent == messages


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("code", "outcome"), [(1000, GOOD), (1001, GOOD), (1005, GOOD), (None, GOOD), (1006, ABANDONED), (1002, ABANDONED)]
)
@pytest.mark.parametrize("then", [None, LookupError("the framework's WebSocketDisconnect")], ids=["returns", "raises"])
async def test_a_conversation_that_the_client_ends(code, outcome, then):
    """Properly is good, by vanishing is abandoned; whether the framework makes an exception of it does not matter."""
    stand, error = await end(talks(ACCEPT, hears=1, then=then), received=[left(code)])
    assert error is then
    assert stand.ends() == {outcome: 1}


@pytest.mark.asyncio
@pytest.mark.parametrize("messages", [[], [ACCEPT, TEXT]], ids=["before", "after"])
async def test_an_exception_out_of_the_app_is_bad(messages):
    """Before the handshake was answered or after it."""
    error = LookupError()
    stand, raised = await end(talks(*messages, then=error))
    assert raised is error
    assert stand.ends() == {BAD: 1}


@pytest.mark.asyncio
async def test_a_send_that_fails_is_the_client():
    """An OSError from the server."""

    async def fails(message):
        if message is TEXT:
            raise ConnectionResetError

    stand, error = await end(talks(ACCEPT, TEXT), send=fails)
    assert isinstance(error, ConnectionResetError)
    assert stand.ends() == {ABANDONED: 1}


@pytest.mark.asyncio
async def test_a_cancelled_conversation_is_abandoned():
    """The server stops."""
    stand = Stand(talks(ACCEPT, hears=1))
    task = asyncio.ensure_future(stand.ask(kind="websocket"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stand.ends() == {ABANDONED: 1}


@pytest.mark.asyncio
async def test_how_long_a_conversation_lasts_says_nothing_about_speed():
    """It counts for the objective about answers, not for the one about two seconds."""
    stand = Stand(None)

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        stand.clock.advance(3_000.0)
        await send(close())

    stand.app.app = app
    await stand.ask(kind="websocket")
    assert stand.resilience.slos.counts("up", HOUR) == (1, 0)
    assert stand.resilience.slos.counts("fast", HOUR) == (0, 0)
