"""What the hooks of clients share: attempts that are made at once, answers that nobody wants, options that do not fit."""

from __future__ import annotations

import asyncio
import io

import httpx
import pytest

from somaresil import ConfigurationError, Hedge, Outcome, PipelineWarning, Resilience, Retry
from somaresil.config import Checker
from somaresil.events import DefectFound
from somaresil.guard.call import Opened
from somaresil.integrations._client import AsyncClientCall
from somaresil.integrations._http import Statuses
from somaresil.integrations._httpx import HttpxExchange, Suspending
from somaresil.integrations.aiohttp import guard_middleware
from somaresil.integrations.httpx import guard_client

URL = "http://api/"


class Inner(httpx.AsyncBaseTransport):
    """Answers 503 to everybody at once, when all have asked, and says whose answers were closed."""

    def __init__(self, together):
        self.together = together
        self.asked = 0
        self.closed = []
        self.all_there = asyncio.Event()

    async def handle_async_request(self, request):
        self.asked += 1
        number = self.asked
        if number == self.together:
            self.all_there.set()
        await self.all_there.wait()
        closed = self.closed

        class Body(httpx.AsyncByteStream):
            async def __aiter__(self):
                yield b"busy"

            async def aclose(self):
                closed.append(number)

        return httpx.Response(503, stream=Body())


def call_of(inner, request, **options):
    resilience = Resilience("tests")
    guard = resilience.guard("http.api", **options)
    check = Checker("tests")
    exchange = HttpxExchange(Suspending(inner), guard, request, Statuses(check, {503}, {503}), resilience.chaos.requests)
    return exchange, AsyncClientCall(guard, exchange, request)


def test_attempts_at_once_close_no_answers_of_one_another():
    """Each knows its own; in the end all are closed but the one that the caller gets."""

    async def run():
        inner = Inner(together=2)
        exchange, call = call_of(inner, httpx.Request("GET", URL), retry=3)
        other = call.sibling()
        assert (type(other), other.exchange.call, call.exchange.call) == (type(call), other, call)
        assert other.exchange is not exchange
        call.attempt = other.attempt = 1
        first, second = await asyncio.gather(exchange.attempt(), other.exchange.attempt(), return_exceptions=True)
        assert (first.response.status_code, second.response.status_code) == (503, 503)
        assert inner.closed == []

        class Raises:
            async def drive(self, guard, call):
                raise second

            close = exchange._way.close

        exchange._way = Raises()
        assert await exchange.through(call) is second.response
        return inner.closed

    assert asyncio.run(run()) == [1]


def test_an_answer_that_nobody_wants_is_closed():
    """With its connection."""

    async def run():
        inner = Inner(together=1)
        exchange, call = call_of(inner, httpx.Request("GET", URL))
        opened = await exchange.attempt()
        assert isinstance(opened, Opened)
        await call.discard(opened)
        return inner.closed

    assert asyncio.run(run()) == [1]


@pytest.mark.parametrize(("body", "at_once"), [({"content": b"text"}, True), ({"files": {"file": io.BytesIO(b"text")}}, False)])
def test_a_file_is_not_sent_twice_at_once(body, at_once):
    """Two who read it would each get a part. One after the other they may."""
    seen = []

    class Looks(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request):
            seen.append(call.repeatable())
            return httpx.Response(200)

    _, call = call_of(Looks(), httpx.Request("PUT", URL, **body))
    asyncio.run(call.invoke(call.function))
    assert (seen, call.repeatable()) == ([at_once], True)


class Late(httpx.AsyncBaseTransport):
    """The first answer does not come, unless it is waited for; the others come at once."""

    def __init__(self, first=60.0):
        self.first = first
        self.ended = []
        self.asked = 0

    async def handle_async_request(self, request):
        self.asked += 1
        number, ended = self.asked, self.ended
        if number == 1:
            try:
                await asyncio.sleep(self.first)
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise

        class Body(httpx.AsyncByteStream):
            async def __aiter__(self):
                yield b"answer %d" % number

            async def aclose(self):
                ended.append(number)

        return httpx.Response(200, stream=Body())


def hedged(transport, **request):
    resilience = Resilience("tests")

    async def use():
        client = httpx.AsyncClient(transport=transport)
        async with guard_client(client, resilience, hedge=Hedge(0.02), idempotent=True, bulkhead=4):
            return await client.put(URL, **request)

    return asyncio.run(use()), resilience.guards["http.api"]


def test_a_late_answer_is_asked_for_once_more():
    """The first good one is the answer; it is one call, and every permit is back."""
    transport = Late()
    answer, guard = hedged(transport)
    assert answer.content == b"answer 2"
    assert transport.ended == ["cancelled", 2]
    assert guard.recorder.counts().total(Outcome.GOOD) == guard.recorder.counts().total() == 1
    assert guard.bulkhead.active == 0


async def produced():
    yield b"once"


@pytest.mark.parametrize("body", [{"content": produced()}, {"files": {"file": io.BytesIO(b"text")}}], ids=["produced", "file"])
def test_what_cannot_be_sent_at_once_is_not_hedged(body):
    """Whatever the guard was told."""
    transport = Late(first=0.06)
    answer, _ = hedged(transport, **body)
    assert answer.content == b"answer 1"
    assert transport.asked == 1


def test_options_that_do_not_fit_are_told():
    """A hedge needs two tasks, which a blocking client has not, and two requests, which aiohttp has not."""
    with pytest.raises(ConfigurationError, match="two attempts need two tasks"):
        guard_client(httpx.Client(transport=httpx.MockTransport(httpx.Response)), Resilience("tests"), hedge=0.1, idempotent=True)
    with pytest.raises(ConfigurationError, match="once at a time"):
        guard_middleware(Resilience("tests"), hedge=0.1, idempotent=True)


NEVER_AGAIN = Retry(attempts=3, wait=60.0, max_elapsed=1.0)
"""No pause ends in time."""


def test_what_is_surely_wrong_is_told_when_the_client_is_guarded():
    """By a warning, or refused in a process that is strict; not at the first request."""
    with pytest.warns(PipelineWarning, match=r"http\.other"):
        guard_client(httpx.Client(transport=httpx.MockTransport(httpx.Response)), Resilience("tests"), retry=NEVER_AGAIN)
    with pytest.raises(ConfigurationError, match="max_elapsed"):
        guard_client(httpx.Client(transport=httpx.MockTransport(httpx.Response)), Resilience("tests", strict=True), retry=NEVER_AGAIN)


def test_guards_say_where_their_client_was_made():
    """Not where in the client a request came by."""
    resilience = Resilience("tests")
    client = guard_client(httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))), resilience)
    client.get(URL)
    assert resilience.guards["http.api"].where.rpartition(":")[0] == __file__


def test_a_guard_that_cannot_be_made_lets_the_request_pass():
    """It is reported, and never raised into a request."""
    resilience = Resilience("tests")
    client = guard_client(httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200))), resilience)
    found = []
    resilience.on(found.append, DefectFound)
    resilience.guard = None
    assert client.get(URL).status_code == 200
    assert [event.where for event in found] == ["GuardedTransport, naming a guard", "GuardedTransport, making a guard"]
