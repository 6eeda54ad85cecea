"""httpx clients behind guards: outcomes by status, retries that do no harm, permits for as long as answers are read."""

from __future__ import annotations

import asyncio
import gc
import io
import pickle
import ssl
import weakref

import httpx
import pytest

from somaresil import (
    Bulkhead,
    BulkheadFull,
    CallTimedOut,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    Fallback,
    InjectedFault,
    Outcome,
    Rejected,
    Resilience,
    Retry,
    Timeout,
)
from somaresil.clock import ManualClock
from somaresil.events import RetryScheduled
from somaresil.integrations.httpx import AsyncGuardedTransport, GuardedTransport, guard_client
from somaresil.testing.faults import inject
from tests.behaviour.kit import one_strike
from tests.unit.integrations.peers import CUT, HANG, RESET, Peer, chunked, nobody, reply

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Without it httpx would read all certificates of the machine for each transport."""
GOOD, BAD, REJECTED, ABANDONED = Outcome.GOOD, Outcome.BAD, Outcome.REJECTED, Outcome.ABANDONED
ONCE = Retry(attempts=2, wait=0.0)


class Desk:
    """A process with a guarded client of either kind, and a clock that waits for nobody."""

    def __init__(self, mode, inner=None, *, clock=None, **options):
        self.mode = mode
        self.clock = clock or ManualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=7)
        self.inner = inner
        kind = GuardedTransport if mode == "sync" else AsyncGuardedTransport
        self.transport = kind(self.resilience, inner or Script(None), **options)

    def run(self, use):
        """Have ``use(client)``, a coroutine function, use a client. Calls of a blocking one are awaited all the same."""

        async def with_client():
            if self.mode == "sync":
                transport = self.transport.around(self.inner or httpx.HTTPTransport(verify=NO_TLS))
                with httpx.Client(transport=transport) as client:
                    return await use(Awaited(client))
            transport = self.transport.around(self.inner or httpx.AsyncHTTPTransport(verify=NO_TLS))
            async with httpx.AsyncClient(transport=transport) as client:
                return await use(client)

        return asyncio.run(with_client())

    def ask(self, url, method="GET", **request):
        """One request, read to the end; an error is a value."""

        async def use(client):
            try:
                return await client.request(method, url, **request)
            except Exception as error:
                return error

        return self.run(use)

    def guard(self, name="http.127.0.0.1"):
        return self.resilience.guards[name]

    def count(self, *outcomes, name="http.127.0.0.1"):
        return self.guard(name).recorder.counts().total(*outcomes)


class Awaited:
    """A blocking client with the methods of the other."""

    def __init__(self, client):
        self.client = client

    async def request(self, *args, **kwargs):
        return self.client.request(*args, **kwargs)

    def build_request(self, *args, **kwargs):
        return self.client.build_request(*args, **kwargs)

    async def send(self, *args, **kwargs):
        response = self.client.send(*args, **kwargs)
        # An answer has the methods of both kinds; those of the other one refuse.
        response.aclose = wrapped(response.close)
        response.aread = wrapped(response.read)
        response.aiter_raw = lambda: each(response.iter_raw())
        return response


def wrapped(function):
    async def awaited():
        return function()

    return awaited


async def each(items):
    for item in items:
        yield item


@pytest.fixture(params=["sync", "async"])
def mode(request):
    """Both kinds of client."""
    return request.param


class Script(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport that does one thing after the other, and counts what is closed."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.requests = []

    def handle_request(self, request):
        request.read()
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step

    async def handle_async_request(self, request):
        await request.aread()
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, BaseException):
            raise step
        return step() if callable(step) else step


class Flow(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body of some chunks; an exception among them is raised."""

    def __init__(self, *chunks):
        self.chunks = chunks
        self.closed = 0

    def __iter__(self):
        for chunk in self.chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    async def __aiter__(self):
        for chunk in self.__iter__():
            await asyncio.sleep(0)
            yield chunk

    def close(self):
        self.closed += 1

    async def aclose(self):
        self.closed += 1


def answer(status=200, *chunks, **headers):
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()}, stream=Flow(*chunks))


# -- outcomes -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "outcome"), [(200, GOOD), (302, GOOD), (404, GOOD), (408, GOOD), (429, BAD), (500, BAD), (503, BAD)])
def test_the_status_decides(mode, status, outcome):
    """The answer comes back whatever it is, with its body, and counts by its status."""
    with Peer(reply(status, b"text")) as peer:
        desk = Desk(mode)
        response = desk.ask(peer.url)
        assert (response.status_code, response.content) == (status, b"text")
    assert desk.count(outcome) == desk.count() == 1


def test_other_statuses_may_be_bad(mode):
    """``bad_statuses`` replaces the usual ones."""
    desk = Desk(mode, Script(lambda: answer(404), lambda: answer(500)), bad_statuses={404})
    assert [desk.ask("http://api").status_code for _ in range(2)] == [404, 500]
    assert (desk.count(BAD, name="http.api"), desk.count(GOOD, name="http.api")) == (1, 1)


def test_no_connection_is_bad(mode):
    """The exception is httpx's own."""
    desk = Desk(mode)
    assert type(desk.ask(nobody())) is httpx.ConnectError
    assert desk.count(BAD) == 1


def test_errors_stay_the_objects_that_they_are(mode):
    """No copy, no wrapper, and no trace of ours above those of httpx."""
    error = httpx.ReadError("reset")
    desk = Desk(mode, Script(error), retry=ONCE)
    assert desk.ask("http://api") is error
    assert error.request.url.host == "api"


def test_a_body_that_breaks_off_is_bad(mode):
    """The head was good, but it was no answer."""
    with Peer((chunked(b"abc", end=False), CUT)) as peer:
        desk = Desk(mode, retry=ONCE)
        assert isinstance(desk.ask(peer.url), httpx.RemoteProtocolError)
        assert len(peer.asked) == 1, "nothing is sent again after the first byte"
    assert desk.count(BAD) == desk.count() == 1


def test_a_reset_connection_is_bad(mode):
    """No answer at all."""
    with Peer((RESET,)) as peer:
        desk = Desk(mode)
        assert isinstance(desk.ask(peer.url), httpx.ReadError)
    assert desk.count(BAD) == 1


def test_classify_is_shown_the_answer(mode):
    """A bad one too, and says how it counts."""
    seen = []

    def classify(result, error):
        seen.append((result.status_code, error))
        return Outcome.IGNORED if result.status_code == 503 else None

    desk = Desk(mode, Script(lambda: answer(503)), classify=classify)
    assert desk.ask("http://api").status_code == 503
    assert desk.count(Outcome.IGNORED, name="http.api") == 1
    assert set(seen) == {(503, None)}


# -- as long as it is read ----------------------------------------------------------------------------------------------------------------


def test_the_call_lasts_until_the_body_was_read(mode):
    """Its permit is given back with the last byte, and not before."""
    desk = Desk(mode, Script(lambda: answer(200, b"a", b"b")), bulkhead=1)

    async def use(client):
        response = await client.send(client.build_request("GET", "http://api"), stream=True)
        bulkhead = desk.guard("http.api").bulkhead
        held = [bulkhead.active]
        async for _ in response.aiter_raw():
            held.append(bulkhead.active)
        held.append(bulkhead.active)
        await response.aclose()
        return held

    assert desk.run(use) == [1, 1, 1, 0]
    assert desk.count(GOOD, name="http.api") == desk.count(name="http.api") == 1


def test_a_second_request_is_refused_while_the_first_is_read(mode):
    """The limit counts answers that are being read."""
    desk = Desk(mode, Script(lambda: answer(200, b"a", b"b")), bulkhead=1)

    async def use(client):
        response = await client.send(client.build_request("GET", "http://api"), stream=True)
        with pytest.raises(BulkheadFull):
            await client.request("GET", "http://api")
        await response.aclose()
        await client.request("GET", "http://api")

    desk.run(use)
    assert [desk.count(outcome, name="http.api") for outcome in (ABANDONED, REJECTED, GOOD)] == [1, 1, 1]


@pytest.mark.parametrize(("status", "outcome"), [(200, ABANDONED), (503, BAD)])
def test_a_reader_that_leaves_says_nothing(mode, status, outcome):
    """Leaving early is no verdict about a good answer; a bad one stays bad."""
    stream = Flow(b"a", b"b")
    desk = Desk(mode, Script(lambda: httpx.Response(status, stream=stream)), breaker=one_strike(), bulkhead=1)

    async def use(client):
        response = await client.send(client.build_request("GET", "http://api"), stream=True)
        async for _ in response.aiter_raw():
            break
        await response.aclose()
        await response.aclose()

    desk.run(use)
    assert desk.count(outcome, name="http.api") == desk.count(name="http.api") == 1
    assert desk.guard("http.api").bulkhead.active == 0
    assert stream.closed


def test_a_forgotten_answer_gives_its_permit_back(mode):
    """Once, when the collector comes."""
    desk = Desk(mode, Script(lambda: answer(200, b"a", b"b")), bulkhead=1)

    async def use(client):
        response = await client.send(client.build_request("GET", "http://api"), stream=True)
        forgotten = weakref.ref(response)
        assert desk.guard("http.api").bulkhead.active == 1
        del response
        gc.collect()
        assert forgotten() is None
        return desk.guard("http.api").bulkhead.active

    assert desk.run(use) == 0
    assert desk.count(ABANDONED, name="http.api") == desk.count(name="http.api") == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_without_a_body_ends_with_its_head(mode, method, status):
    """Nobody has to read what is not there."""
    with Peer(f"HTTP/1.1 {status} Fine\r\nETag: x\r\n\r\n".encode()) as peer:
        desk = Desk(mode, bulkhead=1)

        async def use(client):
            response = await client.send(client.build_request(method, peer.url), stream=True)
            ended = desk.count(GOOD)
            await response.aclose()
            return ended

        assert desk.run(use) == 1
    assert desk.count() == 1


def test_cancelled_readers_are_nobodys_fault():
    """The cancellation arrives, the permit is back, and there is no verdict."""
    with Peer((chunked(b"abc", end=False), HANG)) as peer:
        desk = Desk("async", breaker=one_strike(), bulkhead=1)

        async def use(client):
            async with client.stream("GET", peer.url) as response:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        async for _ in response.aiter_raw():
                            pass

        desk.run(use)
    assert desk.count(ABANDONED) == desk.count() == 1
    assert desk.guard().bulkhead.active == 0
    assert desk.guard().breaker.state.value == "closed"


# -- retries ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_passing_trouble_is_asked_again(mode, status):
    """The caller gets the answer that came in the end; all attempts are one call."""
    with Peer(reply(status, b"busy"), reply(200, b"fine")) as peer:
        desk = Desk(mode, retry=ONCE)
        assert desk.ask(peer.url).content == b"fine"
        assert len(peer.asked) == 2
        assert peer.connections == 1, "a short answer is read, so its connection is used again"
    assert desk.count(GOOD) == desk.count() == 1


def test_the_last_answer_is_returned_as_it_is(mode):
    """It is still the peer's answer, and its body can be read."""
    with Peer(reply(503, b"first"), reply(503, b"second")) as peer:
        desk = Desk(mode, retry=ONCE)
        response = desk.ask(peer.url)
        assert (response.status_code, response.content) == (503, b"second")
    assert desk.count(BAD) == desk.count() == 1


def test_other_statuses_are_not_asked_again(mode):
    """A 500 is bad, and says nothing about a second try."""
    script = Script(lambda: answer(500))
    desk = Desk(mode, script, retry=Retry(attempts=3, wait=0.0))
    assert desk.ask("http://api").status_code == 500
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("method", "headers", "attempts"),
    [
        ("GET", {}, 2),
        ("HEAD", {}, 2),
        ("OPTIONS", {}, 2),
        ("PUT", {}, 2),
        ("DELETE", {}, 2),
        ("TRACE", {}, 2),
        ("POST", {}, 1),
        ("PATCH", {}, 1),
        ("POST", {"idempotency-key": "17"}, 2),
    ],
)
@pytest.mark.parametrize("trouble", [lambda: answer(503), httpx.ReadError("reset")], ids=["status", "error"])
def test_only_what_does_no_harm_is_sent_again(mode, method, headers, attempts, trouble):
    """RFC 9110 section 9.2.2 decides, or a key."""
    script = Script(trouble)
    desk = Desk(mode, script, retry=ONCE)
    desk.ask("http://api", method, headers=headers)
    assert len(script.requests) == attempts


@pytest.mark.parametrize(("told", "attempts"), [(True, 2), (False, 1)])
def test_the_guard_knows_better(mode, told, attempts):
    """What ``idempotent`` says stands above what the method says."""
    script = Script(lambda: answer(503))
    desk = Desk(mode, script, retry=ONCE, idempotent=told)
    desk.ask("http://api", "POST" if told else "GET")
    assert len(script.requests) == attempts


def test_what_was_never_sent_may_be_sent(mode):
    """Without a connection nothing has happened, whatever the method."""
    script = Script(httpx.ConnectError("refused"), lambda: answer(201))
    desk = Desk(mode, script, retry=ONCE)
    assert desk.ask("http://api", "POST", json={}).status_code == 201
    script.steps[:] = [httpx.ReadTimeout("late")]
    assert isinstance(desk.ask("http://api", "POST", json={}), httpx.ReadTimeout)
    assert len(script.requests) == 3


def produced():
    yield b"once"


async def aproduced():
    yield b"once"


def test_a_body_that_is_produced_is_sent_once(mode):
    """It would be empty the second time."""
    with Peer(reply(503)) as peer:
        desk = Desk(mode, retry=ONCE, idempotent=True)
        content = produced() if mode == "sync" else aproduced()
        assert desk.ask(peer.url, "PUT", content=content).status_code == 503
        assert [asked.body for asked in peer.asked] == [b"once"]


def test_a_body_that_is_there_is_sent_again(mode):
    """The same bytes, also of a form with files that can be rewound."""
    with Peer(reply(503), reply(200)) as peer:
        desk = Desk(mode, retry=ONCE)
        assert desk.ask(peer.url, "PUT", files={"file": io.BytesIO(b"content")}).status_code == 200
        assert b"content" in peer.asked[0].body
        assert peer.asked[0].body == peer.asked[1].body


def test_retry_after_is_honoured(mode):
    """Never earlier than the answer asks; when it asks for too long, it is the answer."""
    script = Script(lambda: answer(429, Retry_After="7"), lambda: answer(200))
    desk = Desk(mode, script, retry=ONCE)
    before = desk.clock.monotonic()
    assert desk.ask("http://api").status_code == 200
    assert desk.clock.monotonic() - before == 7.0
    script.steps[:] = [lambda: answer(503, b"come", b"back", Retry_After="3600")]
    response = desk.ask("http://api")
    assert (response.status_code, response.content) == (503, b"comeback")
    assert len(script.requests) == 3


def test_earlier_answers_are_closed(mode):
    """Also one of unknown length, before the next attempt begins."""
    first, second = Flow(b"busy"), Flow(b"busy")
    closed_before = []

    def again():
        closed_before.append(first.closed)
        return httpx.Response(503, stream=second)

    desk = Desk(mode, Script(httpx.Response(503, stream=first), again), retry=ONCE)
    assert desk.ask("http://api").content == b"busy"
    assert closed_before == [1]
    assert second.closed


def test_the_answer_of_a_retry_that_is_refused_can_be_read(mode):
    """When the breaker opens between two attempts, the caller gets the last answer, with its body."""
    desk = Desk(mode, Script(lambda: answer(503, b"bu", b"sy")), retry=ONCE, breaker=one_strike())
    response = desk.ask("http://api")
    assert (response.status_code, response.content) == (503, b"busy")
    assert isinstance(desk.ask("http://api"), CircuitOpen)


def test_on_says_what_is_tried_again(mode):
    """A bad status is an ``HTTPStatusError`` to the retry."""
    desk = Desk(mode, Script(lambda: answer(503)), retry=Retry(attempts=3, wait=0.0, on=httpx.TransportError))
    told = []
    desk.resilience.on(told.append, RetryScheduled)
    assert desk.ask("http://api").status_code == 503
    assert told == []
    desk = Desk(mode, Script(lambda: answer(503)), retry=Retry(attempts=3, wait=0.0, on=httpx.HTTPStatusError))
    desk.resilience.on(told.append, RetryScheduled)
    assert desk.ask("http://api").status_code == 503
    assert [event.error for event in told] == ["BadStatus", "BadStatus"]


def test_a_fallback_answers_for_a_bad_status(mode):
    """It is called with the request, and what it gives is the answer."""

    def instead(request):
        return httpx.Response(200, text=f"instead of {request.url.path}")

    async def ainstead(request):
        return instead(request)

    closed = Flow(b"busy")
    script = Script(httpx.Response(500, stream=closed))
    desk = Desk(mode, script, fallback=Fallback(instead if mode == "sync" else ainstead, on=httpx.HTTPStatusError))
    assert desk.ask("http://api/path").text == "instead of /path"
    assert closed.closed
    assert desk.count(GOOD, name="http.api") == desk.count(name="http.api") == 1


# -- refusals and timeouts ----------------------------------------------------------------------------------------------------------------


def test_a_refusal_is_both(mode):
    """Who catches httpx's errors catches it, and it says what every rejection says."""
    desk = Desk(mode, Script(lambda: answer(500)), breaker=one_strike())
    desk.ask("http://api")
    refused = desk.ask("http://api")
    assert isinstance(refused, CircuitOpen)
    assert isinstance(refused, httpx.TransportError)
    assert refused.guard == "http.api"
    assert 0 < refused.retry_after <= 30.0
    assert refused.request.url.host == "api"
    assert refused.__context__ is None
    copied = pickle.loads(pickle.dumps(refused))
    assert (type(copied), str(copied)) == (type(refused), str(refused))
    assert desk.ask("http://api") is not refused


def test_a_slow_answer_times_out():
    """It is our error and httpx's, and the connection is closed."""
    with Peer((HANG,)) as peer:
        desk = Desk("async", timeout=0.05)
        late = desk.ask(peer.url)
    assert isinstance(late, CallTimedOut)
    assert isinstance(late, httpx.TimeoutException)
    assert (late.guard, late.limit, late.phase) == ("http.127.0.0.1", 0.05, "total")
    assert late.request.url.port == peer.port
    assert isinstance(late.__cause__, asyncio.CancelledError)
    assert desk.count(BAD) == 1


def test_a_body_that_stops_times_out():
    """Between two chunks, with the head long there."""
    with Peer((chunked(b"abc", end=False), HANG)) as peer:
        desk = Desk("async", timeout=Timeout(idle=0.05), bulkhead=1)
        late = desk.ask(peer.url)
    assert isinstance(late, CallTimedOut)
    assert isinstance(late, httpx.TimeoutException)
    assert late.phase == "idle"
    assert desk.count(BAD) == desk.count() == 1
    assert desk.guard().bulkhead.active == 0


def test_late_chunks_of_a_blocking_client_are_bad():
    """They arrive all the same, and the call is not good."""
    clock = ManualClock()

    def slowly():
        yield b"a"
        clock.advance(2.0)
        yield b"b"

    flow = Flow()
    flow.__class__ = type("Slow", (Flow,), {"__iter__": lambda self: slowly()})
    desk = Desk("sync", Script(httpx.Response(200, stream=flow)), clock=clock, timeout=Timeout(idle=1.0))
    assert desk.ask("http://api").content == b"ab"
    assert desk.count(BAD, name="http.api") == 1


# -- deadlines ----------------------------------------------------------------------------------------------------------------------------


def test_the_deadline_goes_along(mode):
    """In milliseconds, less at each attempt; the request of the caller is not touched."""
    script = Script(lambda: answer(503, Retry_After="1"), lambda: answer(200))
    desk = Desk(mode, script, retry=ONCE)
    with desk.resilience.deadline(3.0):
        response = desk.ask("http://api/", "PUT", content=b"text", timeout=2.5)
    assert response.status_code == 200
    assert [sent.headers["x-request-timeout-ms"] for sent in script.requests] == ["3000", "2000"]
    assert [sent.content for sent in script.requests] == [b"text", b"text"]
    assert [sent.extensions["timeout"]["read"] for sent in script.requests] == [2.5, 2.0]
    assert "x-request-timeout-ms" not in response.request.headers
    desk.ask("http://api/")
    assert "x-request-timeout-ms" not in script.requests[-1].headers


def test_transports_may_look_at_the_content(mode):
    """A request that says how much time is left is in all else as it was made."""
    seen = []

    class Looks(Script):
        def handle_request(self, request):
            seen.append((request.content, request.headers["content-type"]))
            return answer()

        async def handle_async_request(self, request):
            return self.handle_request(request)

    desk = Desk(mode, Looks(None))
    with desk.resilience.deadline(3.0):
        desk.ask("http://api/", "POST", json=[1])
    assert seen == [(b"[1]", "application/json")]


def test_a_deadline_that_the_caller_has_set_stays(mode):
    """His word stands."""
    script = Script(lambda: answer(200))
    desk = Desk(mode, script)
    with desk.resilience.deadline(3.0):
        desk.ask("http://api/", headers={"X-Request-Timeout-Ms": "7"})
    assert script.requests[0].headers.get_list("x-request-timeout-ms") == ["7"]


def test_unguarded_requests_tell_it_too(mode):
    """What passes by the guards is still done for the request."""
    script = Script(lambda: answer(200))
    desk = Desk(mode, script, name=lambda _: None)
    with desk.resilience.deadline(3.0):
        desk.ask("http://api/")
    assert script.requests[0].headers["x-request-timeout-ms"] == "3000"
    assert not desk.resilience.guards


def test_what_is_too_late_is_not_sent(mode):
    """The guard refuses it."""
    script = Script(lambda: answer(200))
    desk = Desk(mode, script)
    with desk.resilience.deadline(1.0):
        desk.clock.advance(1.0)
        refused = desk.ask("http://api/")
    assert isinstance(refused, DeadlineExceeded)
    assert isinstance(refused, httpx.TransportError)
    assert script.requests == []


@pytest.mark.parametrize(("before", "outcome"), [(0.5, BAD), (2.5, ABANDONED)])
def test_a_request_that_came_late_is_not_to_blame(mode, before, outcome):
    """It had less than half of the time when the deadline cut it off."""
    clock = ManualClock()

    def slow():
        clock.advance(4.0 - before)
        raise httpx.ReadTimeout("timed out")

    desk = Desk(mode, Script(slow), clock=clock)
    with desk.resilience.deadline(4.0):
        clock.advance(before)
        assert isinstance(desk.ask("http://api/"), httpx.ReadTimeout)
    assert desk.count(outcome, name="http.api") == 1


def test_a_blocking_client_keeps_the_timeout_by_its_own_limits():
    """A peer that says nothing does not hold it."""
    with Peer((HANG,)) as peer:
        desk = Desk("sync", timeout=0.05)
        assert type(desk.ask(peer.url, timeout=None)) is httpx.ReadTimeout
    assert desk.count(BAD) == 1


# -- names --------------------------------------------------------------------------------------------------------------------------------


def test_each_host_has_a_guard_of_its_own(mode):
    """One that is down opens its own circuit only. Case and the dot at the end make no difference."""
    script = Script(lambda: answer(500 if script.requests[-1].url.host.startswith("down") else 200))
    desk = Desk(mode, script, breaker=one_strike())
    for host in ("up", "down", "UP", "up.", "down"):
        desk.ask(f"http://{host}/")
    assert desk.count(GOOD, name="http.up") == 3
    assert (desk.count(BAD, name="http.down"), desk.count(REJECTED, name="http.down")) == (1, 1)


def test_what_is_too_many_shares_a_guard(mode):
    """Hosts may be what users type."""
    desk = Desk(mode, Script(answer), most_guards=2, name="site.{host}")
    for host in ("a", "b", "c", "d", "a"):
        desk.ask(f"http://{host}/")
    assert {name: desk.count(name=name) for name in desk.resilience.guards} == {"site.a": 2, "site.b": 1, "site.other": 2}


def test_a_guard_that_exists_is_used_as_it_is(mode):
    """Whatever the options say; it does not count as one of those that are made."""
    desk = Desk(mode, Script(answer), most_guards=1, bulkhead=7)
    mine = desk.resilience.guard("http.mine", bulkhead=Bulkhead(3))
    for host in ("a", "mine"):
        desk.ask(f"http://{host}/")
    assert mine.recorder.counts().total(GOOD) == 1
    assert mine.options.bulkhead.max_concurrent == 3
    assert desk.guard("http.a").options.bulkhead.max_concurrent == 7


def test_a_function_names_guards(mode):
    """None lets a request pass; what fails is reported, and the request is guarded all the same."""

    def name(request):
        return {"/a": "api.a", "/free": None}[request.url.path]

    desk = Desk(mode, Script(answer), name=name)
    for path in ("/a", "/free", "/unknown"):
        assert desk.ask(f"http://api{path}").status_code == 200
    assert {name: desk.count(name=name) for name in desk.resilience.guards} == {"api.a": 1, "clients.other": 1}


def test_strange_hosts_make_no_strange_names(mode):
    """What no name may have becomes an underscore, and a name has an end."""
    desk = Desk(mode, Script(answer))
    desk.ask("http://[::1]:8080/")
    desk.ask(f"http://{'a' * 60}.{'b' * 60}.{'c' * 60}/")
    desk.ask("http://bücher.example/")
    names = sorted(desk.resilience.guards)
    assert names == ["http.::1", f"http.{'a' * 60}.{'b' * 54}", "http.xn--bcher-kva.example"]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"name": "http.{hots}"}, "name"),
        ({"name": "http.{host.x}"}, "name"),
        ({"name": "http {host}"}, "name"),
        ({"name": "{"}, "name"),
        ({"name": 3}, "name"),
        ({"most_guards": 0}, "most_guards"),
        ({"bad_statuses": [5000]}, "bad_statuses"),
        ({"retry_statuses": 503}, "retry_statuses"),
        ({"braker": True}, "braker"),
        ({"retry": "3"}, "retry"),
        ({"slo": "nobody"}, "slo"),
        ({"inner": object()}, "inner"),
    ],
)
def test_mistakes_are_told_when_the_client_is_made(options, path):
    """Not at the first request."""
    with pytest.raises(ConfigurationError) as wrong:
        GuardedTransport(Resilience("tests"), **{"inner": Script(), **options})
    assert [problem.path.rpartition(".")[2] for problem in wrong.value.problems] == [path]


# -- a client that is there already -------------------------------------------------------------------------------------------------------


def test_a_client_keeps_its_transports(mode):
    """Those of its mounts too; each is wrapped, and all share their guards."""
    main, mounted = Script(answer), Script(answer)
    kind = httpx.Client if mode == "sync" else httpx.AsyncClient
    resilience = Resilience("tests")
    client = kind(transport=main, mounts={"all://mounted": mounted, "all://plain": None})
    assert guard_client(client, resilience, breaker=True) is client

    async def use():
        for host in ("main", "mounted", "plain"):
            if mode == "sync":
                client.get(f"http://{host}/")
            else:
                await client.get(f"http://{host}/")
        client.close() if mode == "sync" else await client.aclose()

    asyncio.run(use())
    assert (len(main.requests), len(mounted.requests)) == (2, 1)
    assert sorted(resilience.guards) == ["http.main", "http.mounted", "http.plain"]
    with pytest.raises(ConfigurationError):
        guard_client(client, resilience)


def test_only_clients_can_be_guarded():
    """The error names what would be right."""
    with pytest.raises(ConfigurationError, match=r"httpx\.Client"):
        guard_client(object(), Resilience("tests"))


def test_redirects_pass_request_by_request(mode):
    """Each host that is asked on the way counts for itself."""
    script = Script(lambda: answer(302, Location="http://b/"), lambda: answer(200))
    desk = Desk(mode, script)
    assert desk.ask("http://a/", follow_redirects=True).status_code == 200
    assert [desk.count(GOOD, name=f"http.{host}") for host in "ab"] == [1, 1]


# -- experiments --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, httpx.ConnectTimeout])
def test_a_struck_request_raises_what_the_experiment_says(mode, error):
    """Nothing is sent, and what is raised is not changed."""
    script = Script(answer)
    desk = Desk(mode, script)
    desk.ask("http://api/")
    with inject(desk.resilience, "http.api", "error", error=error and error("injected")):
        raised = desk.ask("http://api/")
    assert type(raised) is (error or InjectedFault)
    assert len(script.requests) == 1


@pytest.mark.parametrize("kind", ["stream_cut", "stream_truncate"])
@pytest.mark.parametrize("mocked", [False, True])
def test_a_body_can_be_cut(mode, kind, mocked):
    """The head of an answer is its first item, and each chunk one more."""

    def whole():
        return httpx.Response(200, content=b"abc") if mocked else answer(200, b"abc", b"def")

    desk = Desk(mode, Script(whole), bulkhead=1)
    assert desk.ask("http://api/").content.startswith(b"abc")
    with inject(desk.resilience, "http.api", kind, after_items=1 if mocked else 2):
        struck = desk.ask("http://api/")
    assert type(struck) is InjectedFault if kind == "stream_cut" else struck.content == (b"" if mocked else b"abc")
    assert desk.guard("http.api").bulkhead.active == 0
    with inject(desk.resilience, "http.api", kind, after_items=0):
        struck = desk.ask("http://api/")
    assert isinstance(struck, InjectedFault if kind == "stream_cut" else httpx.RemoteProtocolError)


def test_a_lost_reply_closes_the_answer(mode):
    """The peer has acted, and nothing stays open."""
    flow = Flow(b"done")
    script = Script(httpx.Response(200, stream=flow))
    desk = Desk(mode, script)
    desk.resilience.guard("http.api")
    with inject(desk.resilience, "http.api", "lost_reply", error=httpx.ReadTimeout("lost")):
        assert isinstance(desk.ask("http://api/"), httpx.ReadTimeout)
    assert len(script.requests) == 1
    assert flow.closed


def test_rejections_of_others_are_left_alone(mode):
    """A refusal of a guard inside is an error of this one's callee."""
    inner = Rejected("another")
    desk = Desk(mode, Script(inner))
    assert desk.ask("http://api") is inner
    assert desk.count(BAD, name="http.api") == 1


# -- answers of experiments -------------------------------------------------------------------------------------------------------------


def test_a_status_of_an_experiment_is_an_answer(mode):
    """As the server would give it: it is judged by its status, has a body, and the server is not asked."""
    script = Script(AssertionError("it was asked"))
    desk = Desk(mode, script, name="http.api")
    desk.resilience.guard("http.api")
    with inject(desk.resilience, "http.api", "http_status", status=502) as fault:
        answer = desk.ask("http://api/x")
    assert (answer.status_code, answer.read(), fault.injected, script.requests) == (502, b"", 1, [])
    assert desk.guard("http.api").recorder.counts().total(BAD, injected=True) == 1


def test_a_rate_limit_of_an_experiment_is_tried_again_when_it_says(mode):
    """The retry of the guard reads it off the answer."""
    desk = Desk(mode, Script(lambda: httpx.Response(200, text="fine")), name="http.api")
    desk.resilience.guard("http.api", retry=Retry(attempts=2, wait=0.5))
    with inject(desk.resilience, "http.api", "rate_limit", retry_after=7, first=1):
        began = desk.clock.monotonic()
        answer = desk.ask("http://api/x")
    assert (answer.status_code, desk.clock.monotonic() - began) == (200, 7.0)


def test_a_prompt_that_is_too_long_is_an_answer_of_its_model(mode):
    """400, with JSON that says so."""
    desk = Desk(mode, Script(AssertionError()), name="http.api")
    desk.resilience.guard("http.api")
    with inject(desk.resilience, "http.api", "context_length"):
        answer = desk.ask("http://api/x")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")


def test_a_body_is_torn_on_its_way_to_the_client(mode):
    """The answer itself is the first item."""
    desk = Desk(mode, Script(lambda: httpx.Response(200, stream=Flow(b"abcd", b"efgh"))), name="http.api")
    desk.resilience.guard("http.api").has_streams = True
    with inject(desk.resilience, "http.api", "stream_tear", after_items=1, error=httpx.ReadError("torn")):
        assert isinstance(desk.ask("http://api/x"), httpx.ReadError)
