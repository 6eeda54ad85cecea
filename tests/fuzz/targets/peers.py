"""What is asked for over a connection: the connection is made up, and what comes over it is read as always."""

from __future__ import annotations

import argparse
import io
import json
import socket
import struct
import threading
import urllib.error
from collections import deque
from email.message import Message
from types import SimpleNamespace
from typing import Final
from unittest import mock

from somaresil.clock import SystemClock
from somaresil.control_command import _wanted
from somaresil.dashboard import checked, exchange
from somaresil.dashboard import peers as peering
from somaresil.integrations.chaostoolkit import _service
from somaresil.remote import Impossible, Remote
from somaresil.scan.inventory import Package
from somaresil.scan.sources import LookupFailedError, Service
from somaresil.top_command import feed as feeding
from tests.fuzz.harness import expect, target, text_of

_DEMO: Final = Package("demo", "1.0", None, "index", ())
_PLACE: Final = peering._Place(peering._Address("http", "pod", 80, "/_soma", resolve=False), "127.0.0.1")


class _Answer(io.BytesIO):
    """An answer with status 200."""

    status = 200

    def getheader(self, _: str) -> str:
        return "application/json"


@target("scan.sources:Service.look_up", "scan.sources:Service._ask", "scan.sources:Service._of", raises=(LookupFailedError,), weight=2)
def osv(data: bytes) -> None:
    """The answers of a service with OSV's API: the first line to the question, the rest to that about an advisory."""
    answers = data.partition(b"\n")
    asked = iter((answers[0], answers[2]))
    opener = SimpleNamespace(open=lambda *_, **__: _Answer(next(asked, b"")))
    with mock.patch("urllib.request.build_opener", return_value=opener):
        Service("http://127.0.0.1:1").look_up([_DEMO])


@target("dashboard.peers:Peers._fetched", raises=(checked.Strange, ValueError, RecursionError), weight=3)
def peer(data: bytes) -> None:
    """The dashboard of another machine; whoever asks takes these for no answer."""
    asking = peering.Peers.__new__(peering.Peers)
    asking._token = "t" * 32
    connection = SimpleNamespace(request=lambda *_, **__: None, getresponse=lambda: _Answer(data), close=lambda: None)
    with mock.patch.object(peering, "_Connection", return_value=connection):
        checked.portrait(asking._fetched(_PLACE, peering._Peer()))


@target("dashboard.exchange:_receive", raises=(ValueError, OSError), weight=3)
def sibling(data: bytes) -> None:
    """Another worker: any bytes, and a message of the length that it says."""
    for sent in (data, struct.pack(exchange._LENGTH.format, len(data)) + data):
        mine, other = socket.socketpair()
        with mine, other:
            other.sendall(sent)
            other.shutdown(socket.SHUT_WR)
            try:
                exchange._receive(mine, 100_000, SystemClock(), 5.0)
            except (ValueError, OSError):
                continue


@target("top_command.feed:Feed._take", "top_command.feed:checked", raises=(Impossible,))
def feed(data: bytes) -> None:
    """What a dashboard streams to a terminal."""
    remote = Remote.__new__(Remote)
    remote._what = "dashboard"
    reading = feeding.Feed.__new__(feeding.Feed)
    reading._remote, reading._clock, reading._lock, reading._changed = remote, SystemClock(), threading.Lock(), lambda: None
    reading._known, reading._events, reading._of_calls, reading._fresh = {}, deque(maxlen=4), deque(maxlen=4), deque(maxlen=4)
    text = text_of(data)
    reading._take("event", text)
    reading._take("event", text.replace("1", "2"))
    expect(len(reading._events) <= 4, "events that are bounded")
    feeding.checked(remote, json.loads(text))


@target("integrations.chaostoolkit._service:_Remote._ask", raises=(_service.ServiceError,), weight=3)
def toolkit_service(data: bytes) -> None:
    """A control app that the Chaos Toolkit asks."""
    asking = _service._Remote.__new__(_service._Remote)
    asking._base, asking._token = "http://127.0.0.1:1", ""
    refused = urllib.error.HTTPError("http://x", 409, "Conflict", Message(), io.BytesIO(data))
    for opener in (mock.Mock(open=mock.Mock(side_effect=refused)), SimpleNamespace(open=lambda *_, **__: _Answer(data))):
        with mock.patch.object(_service, "_OPENER", opener):
            try:
                asking._ask("GET", "experiments")
            except _service.ServiceError:
                continue


@target("control_command:_wanted", raises=(Impossible,), weight=6)
def options(data: bytes) -> None:
    """Options of a command, and a plan on its standard input."""
    text = text_of(data)
    given = dict.fromkeys(("target", "kind", "duration", "rate", "delay", "error", "status"), None)
    for more in ({"plan": None, "option": text.split("\n"), "target": "a", "kind": "error", "duration": 1.0}, {"plan": "-", "option": []}):
        with mock.patch("sys.stdin", io.StringIO(text)):
            try:
                _wanted(argparse.Namespace(**{**given, **more}))
            except Impossible as refused:
                expect(str(refused), "a reason")
