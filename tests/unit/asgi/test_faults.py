"""Faults on requests: a delay, a status, a response that breaks off; marked as such, and gone at once when they are stopped."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from somaresil import SLO, InjectedFault, Outcome
from somaresil.events import FaultInjected
from tests.unit.asgi.kit import HOUR, START, Stand, body, says

GOOD, BAD, ABANDONED = Outcome.GOOD, Outcome.BAD, Outcome.ABANDONED
STREAM = [START, *(body(b"%d" % number, more=True) for number in range(4)), body(b"end")]


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Allow chaos."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


@pytest.mark.asyncio
async def test_latency_comes_before_the_app():
    """The answer is the app's, late, and marked."""
    stand = Stand(says(START, body()))
    stand.arm("latency", delay_seconds=3.0)
    await stand.ask()
    (view,) = stand.resilience.routes.views().values()
    assert (view.seconds, view.first_byte_seconds) == (3.0, 3.0)
    assert stand.ends(injected=True) == {GOOD: 1}
    assert stand.resilience.slos.counts("fast", HOUR) == (0, 1)


@pytest.mark.asyncio
async def test_a_status_is_answered_in_place_of_the_app():
    """It names the experiment, has a length, and is bad; the app is not called."""
    stand = Stand(says(then=AssertionError("it was called")))
    run = stand.arm("error", status=502)
    await stand.ask("/chat")
    start, answer = stand.sent
    headers = dict(start["headers"])
    assert start["status"] == 502
    assert headers[b"x-somaresil-chaos"] == run.id.encode()
    assert int(headers[b"content-length"]) == len(answer["body"])
    assert run.id in answer["body"].decode()
    assert answer["more_body"] is False
    assert stand.ends(injected=True) == {BAD: 1}
    assert stand.labels() == [("GET", "*", 502)]
    assert [event.experiment for event in stand.told(FaultInjected)] == [run.id]


@pytest.mark.asyncio
async def test_a_status_below_500_is_a_good_answer():
    """As from the app: 429 is one."""
    stand = Stand(says())
    stand.arm("error", status=429)
    await stand.ask()
    assert stand.ends(injected=True) == {GOOD: 1}


@pytest.mark.asyncio
@pytest.mark.parametrize("after", [0, 1, 4])
async def test_a_stream_breaks_off_after_some_chunks(after):
    """The app sees an error from ``send``, so the server breaks the connection; bad and marked."""
    stand = Stand(says(*STREAM))
    run = stand.arm("stream_cut", after_items=after)
    with pytest.raises(InjectedFault, match=run.id):
        await stand.ask()
    assert stand.sent == STREAM[: after + 1]
    assert stand.ends(injected=True) == {BAD: 1}
    assert (run.injected, len(stand.told(FaultInjected))) == (1, 1)


@pytest.mark.asyncio
async def test_an_app_that_does_not_hear_of_the_cut_is_cut_at_every_chunk():
    """It sends on, and nothing of it arrives."""

    async def app(scope, receive, send):
        for message in STREAM:
            try:
                await send(message)
            except InjectedFault:
                continue

    stand = Stand(app)
    run = stand.arm("stream_cut", after_items=2)
    await stand.ask()
    assert stand.sent == STREAM[:3]
    assert stand.ends(injected=True) == {BAD: 1}
    assert run.injected == 1


@pytest.mark.asyncio
async def test_a_response_that_is_too_short_to_be_cut_is_not_struck():
    """It is whole, so it is not marked and not counted as injected."""
    stand = Stand(says(START, body()))
    run = stand.arm("stream_cut", after_items=1)
    await stand.ask()
    assert stand.ends(injected=False) == {GOOD: 1}
    assert (run.injected, stand.told(FaultInjected)) == (0, [])


@pytest.mark.asyncio
async def test_a_stream_is_not_cut_after_the_experiment():
    """Stopped in the middle of it."""
    stand = Stand(None)

    async def app(scope, receive, send):
        await says(*STREAM[:2])(scope, receive, send)
        stand.resilience.chaos.stop_all()
        await says(*STREAM[2:])(scope, receive, send)

    stand.app.app = app
    stand.arm("stream_cut", after_items=2)
    await stand.ask()
    assert stand.sent == STREAM
    assert stand.ends(injected=False) == {GOOD: 1}


@pytest.mark.asyncio
async def test_only_so_many_streams_are_cut():
    """However many were begun under the experiment."""
    stand = Stand(says(*STREAM))
    run = stand.arm("stream_cut", after_items=1, max_injections=2)
    answers = await asyncio.gather(*(stand.ask() for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(answer, InjectedFault) for answer in answers) == run.injected == 2


@pytest.mark.asyncio
async def test_only_the_routes_that_are_named_are_struck():
    """By path."""
    stand = Stand(says(START, body()))
    stand.arm("error", "http:/chat/*")
    for path in ("/chat/1", "/items/1", "/chat"):
        await stand.ask(path)
    assert stand.ends(injected=True) == {BAD: 1}
    assert stand.ends(injected=False) == {GOOD: 2}


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/health", "/metrics", "/ready"])
@pytest.mark.parametrize("root", ["", "/api"])
async def test_health_and_metrics_are_never_struck(path, root):
    """Behind a root path too."""
    stand = Stand(says(START, body()))
    stand.arm("error")
    await stand.ask(root + path, root_path=root)
    assert stand.sent[0]["status"] == 200
    assert stand.ends(injected=True) == {}


@pytest.mark.asyncio
async def test_a_client_that_leaves_in_a_delay_has_abandoned_the_request():
    """Cancelled while the experiment holds it; the app is not called."""
    stand = Stand(says(then=AssertionError("it was called")))
    run = stand.arm("latency", delay_seconds=3.0)
    hangs = asyncio.Event()

    async def stuck(future, timeout):
        hangs.set()
        await asyncio.Event().wait()

    stand.clock.await_ = stuck
    task = asyncio.ensure_future(stand.ask())
    await hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stand.ends(injected=True) == {ABANDONED: 1}
    assert run.delaying == 0


@pytest.mark.asyncio
async def test_a_server_that_cannot_write_the_fault_is_the_client():
    """As for any other answer."""

    async def fails(message):
        raise BrokenPipeError

    stand = Stand(says())
    stand.arm("error")
    with pytest.raises(BrokenPipeError):
        await stand.ask(send=fails)
    assert stand.ends(injected=True) == {ABANDONED: 1}


@pytest.mark.asyncio
async def test_after_the_stop_requests_are_left_alone():
    """The middleware looks at an empty tuple."""
    stand = Stand(says(START, body()))
    stand.arm("error")
    stand.resilience.chaos.stop_all()
    await stand.ask()
    assert stand.ends() == {GOOD: 1}
    assert stand.ends(injected=True) == {}


@pytest.mark.asyncio
async def test_objectives_may_leave_injected_requests_out():
    """The mark goes all the way to the objective."""
    stand = Stand(says(START, body()))
    stand.resilience.slos.add(SLO("real", 99.0, timedelta(days=30), injected="exclude"))
    stand.app = type(stand.app)(says(START, body()), stand.resilience, slo=["up", "real"])
    stand.arm("error", max_injections=1)
    for _ in range(3):
        await stand.ask()
    assert stand.resilience.slos.counts("up", HOUR) == (2, 1)
    assert stand.resilience.slos.counts("real", HOUR) == (2, 0)


# -- websockets -------------------------------------------------------------------------------------------------------------------------


async def _talk(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    for number in range(3):
        await send({"type": "websocket.send", "text": str(number)})
    await send({"type": "websocket.close"})


@pytest.mark.asyncio
async def test_a_handshake_is_refused():
    """Closed before it is accepted, which servers answer with 403."""
    stand = Stand(says(then=AssertionError("it was called")))
    stand.arm("error", status=503)
    await stand.ask(kind="websocket")
    assert stand.sent == [{"type": "websocket.close", "code": 1011}]
    assert stand.labels() == [("WEBSOCKET", "*", 0)]
    assert stand.ends(injected=True) == {BAD: 1}


@pytest.mark.asyncio
async def test_a_handshake_is_refused_with_the_status_where_the_server_can():
    """The extension for it is in the scope."""
    stand = Stand(says(then=AssertionError("it was called")))
    stand.arm("error", status=503)
    await stand.ask(kind="websocket", extensions={"websocket.http.response": {}})
    assert [message["type"] for message in stand.sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert stand.sent[0]["status"] == 503
    assert stand.ends(injected=True) == {BAD: 1}


@pytest.mark.asyncio
async def test_a_client_that_has_gone_is_not_refused():
    """There is nobody to say it to."""
    stand = Stand(says(then=AssertionError("it was called")))
    stand.arm("error")
    sent = []

    async def receive():
        return {"type": "websocket.disconnect", "code": 1006}

    async def send(message):
        sent.append(message)

    await stand.app({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert sent == []
    assert stand.ends(injected=True) == {ABANDONED: 1}


@pytest.mark.asyncio
async def test_a_conversation_breaks_off_after_some_messages():
    """Bad and marked."""
    stand = Stand(_talk)
    run = stand.arm("stream_cut", after_items=2)
    with pytest.raises(InjectedFault):
        await stand.ask(kind="websocket")
    assert [message.get("text") for message in stand.sent] == [None, "0", "1"]
    assert stand.ends(injected=True) == {BAD: 1}
    assert run.injected == 1


@pytest.mark.asyncio
async def test_a_conversation_that_is_too_short_to_be_cut_is_not_struck():
    """It is whole."""
    stand = Stand(_talk)
    run = stand.arm("stream_cut", after_items=3)
    await stand.ask(kind="websocket")
    assert stand.ends(injected=False) == {GOOD: 1}
    assert run.injected == 0


@pytest.mark.asyncio
async def test_a_conversation_is_delayed():
    """Before the app sees it."""
    stand = Stand(_talk)
    stand.arm("latency", delay_seconds=3.0)
    await stand.ask(kind="websocket")
    assert stand.ends(injected=True) == {GOOD: 1}
    assert len(stand.sent) == 5


@pytest.mark.asyncio
async def test_a_delayed_refusal_does_not_come_after_the_lease():
    """The lease ends within the delay; the app answers."""
    stand = Stand(says(START, body()))
    stand.arm("error", delay_seconds=20.0)
    stand.clock.advance(55.0)
    await stand.ask()
    assert stand.sent[0]["status"] == 200
    assert stand.ends(injected=True) == {GOOD: 1}
