"""The seam of aiohttp where a connection cannot be made to lead: connections that are gone, and streams that are let go of."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import aiohttp
import pytest
from yarl import URL

from somaresil import InjectedFault
from somaresil.integrations import aiohttp as seam


class Ending:
    """What was told of the end of a call."""

    reading = False

    def __init__(self):
        self.told = []

    def complete(self):
        self.told.append("complete")

    def left(self):
        self.told.append("left")

    def failed(self, error):
        self.told.append(error)


class Content:
    """A body that has come in, or has broken off."""

    def __init__(self, *, eof=False, error=None):
        self.eof, self.error = eof, error

    def is_eof(self):
        return self.eof

    def exception(self):
        return self.error


def exchange(**request):
    made = object.__new__(seam._Exchange)
    made.request = SimpleNamespace(url=URL("http://far.example:81/"), connection_key=("far.example", 81, False), **request)
    made._unsent = False
    made._kept = []
    made.call = None
    return made


def released(content):
    ending = Ending()
    seam._released(content, ending)
    return ending.told


def test_a_connection_that_is_given_back_says_how_its_answer_ended():
    broken = aiohttp.ClientPayloadError()
    assert released(Content(eof=True)) == ["complete"]
    assert released(Content(error=broken)) == [broken]
    assert released(Content()) == ["left"]
    # What aiohttp puts there when an answer is closed says nothing; what is being handled does.
    assert released(Content(error=aiohttp.ClientConnectionError())) == ["left"]
    late, told = TimeoutError("total"), []
    try:
        raise late
    except TimeoutError:
        told += released(Content(error=aiohttp.ClientConnectionError()))
    assert told == [late]


def test_whoever_still_reads_tells_of_the_end_himself():
    ending = Ending()
    ending.reading = True
    seam._released(Content(eof=True), ending)
    assert ending.told == []


def test_an_answer_that_never_began_is_a_lost_connection():
    ending = Ending()
    with pytest.raises(aiohttp.ServerDisconnectedError) as lost:
        exchange()._watched(SimpleNamespace(first=None), ending)
    assert ending.told == [lost.value]


@pytest.mark.parametrize(("told", "error"), [(seam.REFUSED, aiohttp.ClientConnectorError), ("late", aiohttp.ConnectionTimeoutError)])
def test_what_is_cut_off_fails_in_aiohttps_own_words(monkeypatch, told, error):
    asked = []

    async def cut_off(*facts):
        asked.append(facts)
        return told

    monkeypatch.setattr(seam, "cut_off", cut_off)
    limits = SimpleNamespace(sock_connect=None, connect=3.0)
    made = exchange(session=SimpleNamespace(timeout=limits), ssl=False)
    made.request.connection_key = SimpleNamespace(host="far.example", port=81, ssl=False)
    with pytest.raises(error):
        asyncio.run(made._cross())
    assert asked == [("far.example", 81, None, 3.0)]


def test_what_is_not_cut_off_goes_on(monkeypatch):
    async def free(*_):
        return None

    monkeypatch.setattr(seam, "cut_off", free)
    assert asyncio.run(exchange()._cross()) is None


def test_an_answer_of_an_experiment_is_the_error_of_its_status():
    made = exchange(request_info=SimpleNamespace(real_url=URL("http://far.example/")))
    with pytest.raises(aiohttp.ClientResponseError) as raised:
        asyncio.run(made.answered(503, [("Retry-After", "3")], b""))
    assert (raised.value.status, raised.value.headers["Retry-After"]) == (503, "3")
    assert not isinstance(raised.value, InjectedFault)


def test_a_body_is_not_sent_twice_at_once_and_a_call_is_never_made_by_its_shown_name():
    made = exchange(body=b"text")
    assert not made.can_be_sent_again(at_once=True)
    with pytest.raises(NotImplementedError):
        made.send(None)


def test_a_body_ends_and_its_connection_is_closed_once_it_is_let_go_of():
    closed = []

    async def readchunk():
        return b"", False

    response = SimpleNamespace(content=SimpleNamespace(readchunk=readchunk), connection=SimpleNamespace(close=lambda: closed.append(True)))
    chunks = seam._Chunks(response)
    with pytest.raises(StopAsyncIteration):
        asyncio.run(chunks.__anext__())
    asyncio.run(chunks.aclose())
    response.connection = None
    # One that was given back is not ours to close.
    asyncio.run(seam._Chunks(response).aclose())
    assert closed == [True]
