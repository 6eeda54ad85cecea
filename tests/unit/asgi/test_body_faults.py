"""Faults on the bodies of responses and on the messages of websockets."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from somaresil import InjectedFault, Outcome
from somaresil.events import DefectFound
from tests.unit.asgi.kit import START, Stand, body, says

GOOD, BAD = Outcome.GOOD, Outcome.BAD
STREAM = [START, *(body(b"%d" % number * 4, more=True) for number in range(3)), body(b"")]


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Allow chaos."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


def timed(app=None, **options):
    """A stand that notes when each message reached the server."""
    stand = Stand(app or says(*STREAM), **options)
    stand.at = []

    async def send(message):
        stand.at.append(round(stand.clock.monotonic() - stand.began, 6))

    stand.began, stand.server = stand.clock.monotonic(), send
    return stand


def chunks(stand):
    return [message["body"] for message in stand.sent if message["type"] == "http.response.body"]


@pytest.mark.asyncio
async def test_the_first_chunk_is_held_back_and_felt():
    """The headers go out at once; the first byte is late, also for objectives."""
    stand = timed()
    run = stand.arm("stream_slow_start", delay_seconds=3)
    await stand.ask(send=stand.server)
    assert stand.at == [0.0, 3.0, 3.0, 3.0, 3.0]
    (view,) = stand.resilience.routes.views().values()
    assert (view.seconds, view.first_byte_seconds) == (3.0, 3.0)
    assert (stand.ends(injected=True), run.injected) == ({GOOD: 1}, 1)


@pytest.mark.asyncio
async def test_a_stall_comes_after_so_many_chunks():
    """Once."""
    stand = timed()
    stand.arm("stream_stall", delay_seconds=5, after_items=2)
    await stand.ask(send=stand.server)
    assert stand.at == [0.0, 0.0, 0.0, 5.0, 5.0]


@pytest.mark.asyncio
async def test_a_drip_sends_small_pieces():
    """Nothing is lost, and the last piece completes the response as the last chunk did."""
    stand = timed(says(START, body(b"abcdefg", more=True), body(b"hij")))
    stand.arm("stream_drip", delay_seconds=1, chunk_bytes=3)
    await stand.ask(send=stand.server)
    assert chunks(stand) == [b"abc", b"def", b"g", b"hij"]
    assert [message["more_body"] for message in stand.sent[1:]] == [True, True, True, False]
    assert stand.at == [0.0, 0.0, 1.0, 2.0, 3.0]
    assert stand.ends(injected=True) == {GOOD: 1}


@pytest.mark.asyncio
async def test_a_drip_that_is_stopped_sends_the_rest_at_once():
    """Nothing waits any more."""
    stand = timed(says(START, body(b"abcdefgh")))
    run = stand.arm("stream_drip", delay_seconds=1, chunk_bytes=2)
    server = stand.server

    async def send(message):
        await server(message)
        if len(stand.at) == 3:
            run.end()

    await stand.ask(send=send)
    assert b"".join(chunks(stand)) == b"abcdefgh"
    assert max(stand.at) == 1.0


@pytest.mark.asyncio
async def test_a_throttle_lets_so_many_bytes_through():
    """A chunk waits for those before it."""
    stand = timed()
    stand.arm("stream_throttle", bytes_per_second=2)
    await stand.ask(send=stand.server)
    assert stand.at == [0.0, 0.0, 2.0, 4.0, 4.0]


@pytest.mark.asyncio
async def test_a_torn_chunk_breaks_the_response_off():
    """Half of it arrives; an app that goes on is told again."""
    stand = Stand(says(*STREAM))
    run = stand.arm("stream_tear", after_items=1)
    with pytest.raises(InjectedFault):
        await stand.ask()
    assert chunks(stand) == [b"0000", b"11"]
    assert stand.sent[-1]["more_body"] is True
    assert (stand.ends(injected=True), run.injected) == ({BAD: 1}, 1)


@pytest.mark.asyncio
async def test_a_truncated_response_is_complete_for_its_client():
    """It ends early and cleanly; the app talks on and nothing of it arrives."""
    stand = Stand(says(*STREAM))
    run = stand.arm("stream_truncate", after_items=2)
    await stand.ask()
    assert stand.sent == [*STREAM[:3], body(b"")]
    assert (stand.ends(injected=True), run.injected) == ({GOOD: 1}, 1)


def start(length):
    return {**START, "headers": [(b"x", b"y"), (b"Content-Length", str(length).encode())]}


@pytest.mark.asyncio
async def test_an_announced_length_does_not_give_a_truncation_away():
    """It is not sent when the rest may be left out, and is as it was when nothing is."""
    stand = Stand(says(start(12), *STREAM[1:]))
    stand.arm("stream_truncate", after_items=1)
    await stand.ask()
    assert stand.sent[0]["headers"] == [(b"x", b"y")]
    assert chunks(stand) == [b"0000", b""]
    stand = Stand(says(start(4), body(b"0000")))
    stand.arm("stream_truncate", after_items=1)
    await stand.ask()
    assert stand.sent == [start(4), body(b"0000")]


@pytest.mark.asyncio
async def test_an_answer_without_a_body_keeps_its_headers():
    """As to HEAD."""
    stand = Stand(says(start(12), body(b"")))
    run = stand.arm("empty_answer")
    await stand.ask(method="HEAD")
    assert (stand.sent, run.injected) == ([start(12), body(b"")], 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["wrong_model", "corrupt_result"])
async def test_a_changed_answer_has_the_length_that_it_has_now(kind):
    """A client must be able to read what was done to it."""
    text = json.dumps({"model": "gpt", "n": 5}).encode()
    stand = Stand(says(start(len(text)), body(text)))
    run = stand.arm(kind)
    await stand.ask()
    (changed,) = chunks(stand)
    assert changed != text
    assert dict(stand.sent[0]["headers"])[b"content-length"] == str(len(changed)).encode()
    assert run.injected == 1


@pytest.mark.asyncio
async def test_an_event_stream_may_never_say_that_it_is_finished():
    """Each event on its own; one that says nothing else is left out."""
    events = [b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n', b"data: [DONE]\n\n"]
    stand = Stand(says(START, *(body(event, more=True) for event in events), body(b"")))
    stand.arm("stream_unfinished")
    await stand.ask()
    assert b"".join(chunks(stand)) == b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}]}\n\n'
    assert stand.sent[-1] == body(b"")


@pytest.mark.asyncio
async def test_a_rate_limit_says_when_to_come_back():
    """In whole seconds, and in milliseconds for clients that read them."""
    stand = Stand(says(then=AssertionError("it was called")))
    stand.arm("rate_limit", retry_after=1.5)
    await stand.ask()
    headers = dict(stand.sent[0]["headers"])
    assert (stand.sent[0]["status"], headers[b"retry-after"], headers[b"retry-after-ms"]) == (429, b"2", b"1500")


@pytest.mark.asyncio
async def test_a_prompt_is_refused_as_models_do():
    """400, and JSON that says why."""
    stand = Stand(says())
    stand.arm("context_length")
    await stand.ask()
    assert stand.sent[0]["status"] == 400
    assert json.loads(stand.sent[1]["body"])["error"]["code"] == "context_length_exceeded"
    assert dict(stand.sent[0]["headers"])[b"content-type"] == b"application/json"


@pytest.mark.asyncio
async def test_a_status_may_be_asked_for_by_its_own_name():
    """As ``error`` does it."""
    stand = Stand(says())
    stand.arm("http_status", status=418)
    await stand.ask()
    assert stand.sent[0]["status"] == 418


class Transport:
    """What a server writes to."""

    aborted = False
    option = None

    def get_extra_info(self, name):
        return self if name == "socket" else None

    def setsockopt(self, *option):
        self.option = option

    def abort(self):
        self.aborted = True


class Server:
    """A server whose ``send`` leads to its transport, as that of uvicorn does."""

    def __init__(self):
        self.transport = Transport()

    async def send(self, message):
        assert message["type"]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["stream_cut", "stream_tear"])
async def test_a_connection_is_reset_where_its_transport_can_be_reached(kind):
    """Without lingering, which is what makes it a reset."""
    stand, server = Stand(says(*STREAM)), Server()
    run = stand.arm(kind, after_items=1, reset=True)
    with pytest.raises(InjectedFault):
        await stand.app({"type": "http", "path": "/", "method": "GET", "headers": []}, None, server.send)
    assert server.transport.aborted
    assert server.transport.option == (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert run.unreset == 0


@pytest.mark.asyncio
async def test_where_it_cannot_be_reached_the_response_is_broken_off_and_that_is_said():
    """Counted each time, and reported once."""
    stand = Stand(says(*STREAM))
    run = stand.arm("stream_cut", after_items=1, reset=True)
    for _ in range(2):
        with pytest.raises(InjectedFault):
            await stand.ask()
    assert run.unreset == 2
    assert [event.where for event in stand.told(DefectFound)] == ["reset of a connection"]


TALK = [
    {"type": "websocket.accept"},
    *({"type": "websocket.send", "text": text} for text in ("abcd", "efgh", "ijkl")),
    {"type": "websocket.close"},
]


@pytest.mark.asyncio
async def test_a_conversation_is_closed_early():
    """As if that had been all."""
    stand = Stand(says(*TALK))
    stand.arm("stream_truncate", after_items=1)
    await stand.ask(kind="websocket")
    assert stand.sent == [*TALK[:2], {"type": "websocket.close", "code": 1000}]


@pytest.mark.asyncio
async def test_a_message_is_torn():
    """Half of it arrives, and then the end."""
    stand = Stand(says(*TALK))
    stand.arm("stream_tear", after_items=1)
    with pytest.raises(InjectedFault):
        await stand.ask(kind="websocket")
    assert stand.sent == [*TALK[:2], {"type": "websocket.send", "text": "ef"}]


@pytest.mark.asyncio
async def test_messages_are_dripped_and_damaged():
    """Text stays text, bytes stay bytes."""
    stand = timed(says(*TALK))
    stand.arm("stream_drip", delay_seconds=1)
    await stand.ask(kind="websocket", send=stand.server)
    assert stand.at == [0.0, 0.0, 1.0, 2.0, 2.0]
    stand = Stand(says(TALK[0], {"type": "websocket.send", "bytes": b"abcd"}, TALK[-1]))
    stand.arm("corrupt_result", corrupt="truncate")
    await stand.ask(kind="websocket")
    assert isinstance(stand.sent[1]["bytes"], bytes)
    assert len(stand.sent[1]["bytes"]) < 4


@pytest.mark.asyncio
async def test_a_response_that_a_server_sends_by_itself_is_left_alone():
    """The headers that were held go out first."""
    file = {"type": "http.response.pathsend", "path": "/x"}
    stand = Stand(says(start(4), file))
    run = stand.arm("stream_truncate", after_items=0)
    await stand.ask()
    assert (stand.sent, run.injected) == ([start(4), file], 0)
