"""Connections of the generator against a peer that is played here, byte by byte: what becomes of a request whatever the service sends."""

from __future__ import annotations

import asyncio
import errno
import ssl

import pytest

pytest.importorskip("httptools")
pytest.importorskip("wsproto")

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, RejectConnection, Request, TextMessage

from somaresil import ManualClock
from somaresil.load import http
from somaresil.load.generator import Order
from somaresil.load.http import Exchange, HttpCaller, Payload, Target, _Connection
from somaresil.load.websocket import _LARGEST, WebSocket


class Wire:
    """A transport that keeps what is written."""

    def __init__(self):
        self.sent = b""
        self.ended = ""

    def write(self, data):
        self.sent += data

    def close(self):
        self.ended = self.ended or "closed"

    def abort(self):
        self.ended = "aborted"

    def is_closing(self):
        return bool(self.ended)


def caller_of():
    return HttpCaller(Target.of("http://127.0.0.1:9"), clock=ManualClock())


class Talk:
    """A WebSocket and the peer of it."""

    def __init__(self, **payload):
        self.endings = []
        self.exchange = Exchange(caller_of(), "a", Payload("websocket", b"/ws", **payload), 0.0, self.endings.append)
        self.socket = WebSocket(self.exchange)
        self.wire = Wire()
        self.peer = WSConnection(ConnectionType.SERVER)

    def open(self, answer=None):
        self.socket.connection_made(self.wire)
        (asked,) = self.heard()
        assert isinstance(asked, Request)
        assert (asked.target, asked.host) == ("/ws", "127.0.0.1:9")
        self.say(answer or AcceptConnection())
        return self

    def heard(self):
        data, self.wire.sent = self.wire.sent, b""
        self.peer.receive_data(data)
        return list(self.peer.events())

    def say(self, *events):
        self.socket.data_received(b"".join(self.peer.send(event) for event in events))

    @property
    def end(self):
        (ending,) = self.endings
        return ending.failure, ending.truncated, ending.items


def test_a_websocket_says_its_messages_answers_pings_and_closes_after_the_last_item():
    talk = Talk(messages=("hello", "again"), items=2).open()
    assert [event.data for event in talk.heard()] == ["hello", "again"]
    talk.say(Ping(payload=b"there?"))
    (pong,) = talk.heard()
    assert isinstance(pong, Pong)
    assert pong.payload == b"there?"
    talk.say(TextMessage("on", message_finished=False))
    talk.say(TextMessage("e"))
    talk.say(TextMessage("two"))
    assert talk.end == (None, False, 2)
    assert [type(event) for event in talk.heard()] == [CloseConnection]
    assert talk.wire.ended == "closed"


def test_a_websocket_ends_with_its_last_message_which_is_no_item():
    talk = Talk(end="done").open()
    talk.say(TextMessage("one"), TextMessage("done"), TextMessage("more"))
    assert talk.end == (None, False, 1)


@pytest.mark.parametrize(
    ("payload", "end"),
    [
        ({}, (None, False, 1)),
        ({"items": 1}, (None, False, 1)),
        ({"items": 2}, ("truncated", True, 1)),
        ({"end": "x"}, ("truncated", True, 1)),
    ],
)
def test_a_websocket_that_the_service_closes_is_whole_when_nothing_more_was_waited_for(payload, end):
    talk = Talk(**payload).open()
    if payload == {"items": 1}:
        talk.say(TextMessage("one"))
    else:
        talk.say(TextMessage("one"), CloseConnection(code=1000))
    assert talk.end == end


def test_a_refused_upgrade_is_its_status_and_says_whether_an_experiment_did_it():
    talk = Talk().open(RejectConnection(status_code=503, headers=[(b"X-Somaresil-Chaos", b"exp-1")]))
    assert talk.end == ("status 503", False, 0)
    assert talk.endings[0].injected


def test_bytes_that_are_no_websocket_are_told_as_such():
    talk = Talk()
    talk.socket.connection_made(talk.wire)
    talk.socket.data_received(b"\x00\x01 nonsense\r\n\r\n")
    assert talk.end == ("not a WebSocket", False, 0)
    assert talk.wire.ended == "closed"


def test_a_message_that_never_ends_does_not_fill_the_memory():
    talk = Talk().open()
    for _ in range(2):
        talk.say(TextMessage("x" * (_LARGEST // 2), message_finished=False))
    assert talk.endings == []
    talk.say(TextMessage("x", message_finished=False))
    assert talk.end == ("a message too large", True, 0)


@pytest.mark.parametrize(
    ("begun", "error", "end"),
    [(True, None, "truncated"), (True, OSError(), "truncated"), (False, None, "closed"), (False, ConnectionResetError(), "reset")],
)
def test_a_websocket_that_is_lost_is_cut_off_closed_or_reset(begun, error, end):
    talk = Talk()
    if begun:
        talk.open()
    else:
        talk.socket.connection_made(talk.wire)
    talk.socket.connection_lost(error)
    assert talk.end == (end, begun, 0)
    assert talk.exchange.caller.open == set()
    talk.socket.connection_lost(error)
    assert len(talk.endings) == 1


def test_a_websocket_whose_time_was_up_before_it_was_opened_asks_for_nothing():
    talk = Talk()
    with pytest.raises(RuntimeError, match="no connection yet"):
        _ = talk.socket.transport
    talk.socket.drop()
    talk.exchange.abort("timeout")
    talk.socket.connection_made(talk.wire)
    assert (talk.wire.sent, talk.wire.ended) == (b"", "aborted")
    assert talk.end == ("timeout", False, 0)
    talk.exchange.abort("again")
    assert len(talk.endings) == 1


class Asked:
    """One connection for HTTP."""

    def __init__(self, kind="http", **payload):
        self.endings = []
        self.caller = caller_of()
        self.exchange = self.another(kind, **payload)
        self.connection = _Connection(self.caller, self.exchange)
        self.wire = Wire()

    def another(self, kind="http", **payload):
        return Exchange(self.caller, "a", Payload(kind, b"GET / HTTP/1.1\r\n\r\n", **payload), 0.0, self.endings.append)

    def open(self):
        self.connection.connection_made(self.wire)
        return self

    def say(self, data):
        self.connection.data_received(data)

    @property
    def failures(self):
        return [ending.failure for ending in self.endings]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_connection_whose_request_is_over_already_is_kept_for_the_next():
    asked = Asked()
    asked.exchange.abort("timeout")
    asked.open()
    assert (asked.wire.sent, asked.wire.ended) == (b"", "")
    assert asked.caller.idle == [asked.connection]


def test_bytes_that_nobody_asked_for_close_the_connection():
    """They would be taken for the answer to the next request."""
    asked = Asked().open()
    asked.say(OK)
    assert asked.failures == [None]
    asked.say(OK)
    assert asked.wire.ended == "aborted"
    asked.connection.connection_lost(None)
    assert asked.caller.idle == []


def test_a_connection_is_there_to_be_closed_from_when_it_was_made():
    talk = Talk().open()
    assert talk.socket.transport is talk.wire
    talk.socket.drop()
    assert talk.wire.ended == "aborted"


def test_an_answer_to_nobody_leaves_no_trace_when_the_connection_is_dropped():
    """A request that was given up closes its connection, whatever still comes through it."""
    asked = Asked().open()
    asked.exchange.abort("timeout")
    assert asked.wire.ended == "aborted"
    asked.say(OK)
    asked.connection.connection_lost(None)
    assert asked.failures == ["timeout"]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"SSH-2.0-x\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * http._LARGEST_HEAD, "a head too large"),
    ],
)
def test_what_is_no_answer_ends_the_request_and_its_connection(answer, failure):
    asked = Asked().open()
    asked.say(answer)
    assert asked.failures == [failure]
    assert asked.wire.ended == "closed"


def test_an_interim_answer_is_not_the_answer():
    asked = Asked().open()
    asked.say(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 0\r\n\r\n")
    assert asked.endings == []
    asked.say(OK)
    assert asked.failures == [None]


def test_an_answer_without_a_length_ends_with_its_connection():
    asked = Asked().open()
    asked.say(b"HTTP/1.0 200 OK\r\n\r\nsome")
    assert asked.endings == []
    asked.connection.connection_lost(None)
    assert asked.failures == [None]


@pytest.mark.parametrize(("came", "error", "failure"), [(OK[:20], None, "cut off"), (b"", None, "closed"), (b"", OSError(), "reset")])
def test_an_answer_that_does_not_come_is_cut_off_closed_or_reset(came, error, failure):
    asked = Asked().open()
    if came:
        asked.say(came)
    asked.connection.connection_lost(error)
    assert asked.failures == [failure]


@pytest.mark.parametrize(("end", "failure"), [(None, None), ("[DONE]", "truncated")])
def test_a_stream_that_ends_with_its_body_is_whole_unless_a_last_event_was_waited_for(end, failure):
    asked = Asked("sse", end=end).open()
    asked.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ndata: a\n\n")
    assert asked.failures == [failure]
    assert asked.endings[0].items == 1


def test_an_event_that_is_too_large_ends_the_stream_and_its_connection(monkeypatch):
    def feed(self, _):
        raise ValueError("more than this")

    asked = Asked("sse").open()
    monkeypatch.setattr(http.EventReader, "feed", feed)
    asked.say(b"HTTP/1.1 200 OK\r\n\r\ndata: a\n\n")
    assert asked.failures == ["an event too large"]
    assert asked.wire.ended == "aborted"


async def _called(caller, payload):
    endings = []
    caller.call(Order("a", 1.0, payload), 0.0, endings.append)
    await asyncio.gather(*caller.opening)
    return [ending.failure for ending in endings]


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (ssl.SSLError("bad"), "tls"),
        (ConnectionRefusedError(), "refused"),
        (OSError(errno.EMFILE, "too many"), "no file descriptor is left"),
        (TimeoutError(), "connect: TimeoutError"),
        (UnicodeError(), "connect: no name of a host"),
    ],
)
def test_a_connection_that_is_not_made_is_a_failure_of_its_kind(monkeypatch, error, failure):
    async def main():
        async def refuse(*_, **__):
            raise error

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
        return await _called(caller_of(), Payload("http", b""))

    assert asyncio.run(main()) == [failure]


def test_a_connection_that_was_idle_for_long_is_closed_and_a_fresh_one_is_opened(monkeypatch):
    async def main():
        old, fresh = Asked().open(), Asked().open()
        caller = fresh.caller
        old.connection.since = caller.monotonic() - http._IDLE
        fresh.connection.since = caller.monotonic()
        caller.idle = [fresh.connection, old.connection]
        caller.call(Order("a", 1.0, Payload("http", b"first")), 0.0, fresh.endings.append)
        assert (old.wire.ended, fresh.wire.sent.endswith(b"first")) == ("closed", True)
        assert caller.opened == 0

        async def refuse(*_, **__):
            raise ConnectionRefusedError

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", refuse)
        assert await _called(caller, Payload("http", b"second")) == ["refused"]
        assert caller.opened == 1

    asyncio.run(main())


def test_a_caller_that_is_closed_leaves_no_connection_and_nothing_that_opens_one(monkeypatch):
    async def main():
        begun = asyncio.Event()

        async def forever(*_, **__):
            begun.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", forever)
        asked = Asked().open()
        exchange = asked.caller.call(Order("a", 1.0, Payload("http", b"")), 0.0, asked.endings.append)
        await begun.wait()
        await asked.caller.close()
        assert exchange.task.cancelled()
        assert asked.wire.ended == "aborted"
        other = asked.caller.call(Order("a", 1.0, Payload("http", b"")), 0.0, asked.endings.append)
        other.abort("timeout")
        await asyncio.gather(other.task, return_exceptions=True)
        assert other.task.cancelled()
        assert asked.failures == ["timeout"]

    asyncio.run(main())
