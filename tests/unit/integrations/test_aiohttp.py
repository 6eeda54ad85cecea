"""aiohttp sessions behind guards: as with httpx, on real connections."""

from __future__ import annotations

import asyncio
import gc
import io

import aiohttp
import pytest
from multidict import CIMultiDict

from somaresil import (
    BulkheadFull,
    CallTimedOut,
    CircuitOpen,
    ConfigurationError,
    DeadlineExceeded,
    Fallback,
    InjectedFault,
    Outcome,
    Resilience,
    Retry,
    Timeout,
)
from somaresil.clock import ManualClock
from somaresil.integrations.aiohttp import guard_middleware
from somaresil.testing.faults import inject
from tests.behaviour.kit import one_strike
from tests.unit.integrations.peers import CUT, HANG, PATIENCE, Peer, chunked, halves, nobody, reply

GOOD, BAD, REJECTED, ABANDONED = Outcome.GOOD, Outcome.BAD, Outcome.REJECTED, Outcome.ABANDONED
ONCE = Retry(attempts=2, wait=0.0)
NAME = "http.127.0.0.1"


class Desk:
    """A process with a guarded session, and a clock that waits for nobody."""

    def __init__(self, **options):
        self.clock = ManualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=7)
        self.middleware = guard_middleware(self.resilience, **options)

    def run(self, use, **session):
        """Have ``use(session)``, a coroutine function, use a session."""

        async def with_session():
            async with aiohttp.ClientSession(middlewares=(self.middleware,), **session) as opened:
                return await use(opened)

        return asyncio.run(with_session())

    def ask(self, url, method="GET", **request):
        """One request, read to the end: status and body, or the error as a value."""

        async def use(session):
            try:
                async with session.request(method, url, **request) as response:
                    return response.status, await response.read()
            except Exception as error:
                return error

        return self.run(use)

    def guard(self, name=NAME):
        return self.resilience.guards[name]

    def count(self, *outcomes, name=NAME):
        return self.guard(name).recorder.counts().total(*outcomes)


# -- outcomes -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "outcome"), [(200, GOOD), (404, GOOD), (408, GOOD), (429, BAD), (500, BAD), (503, BAD)])
def test_the_status_decides(status, outcome):
    """The answer comes back whatever it is, with its body, and counts by its status."""
    with Peer(reply(status, b"text")) as peer:
        desk = Desk()
        assert desk.ask(peer.url) == (status, b"text")
    assert desk.count(outcome) == desk.count() == 1


def test_no_connection_is_bad():
    """The exception is aiohttp's own."""
    desk = Desk()
    assert type(desk.ask(nobody())) is aiohttp.ClientConnectorError
    assert desk.count(BAD) == 1


def test_a_body_that_breaks_off_is_bad():
    """The head was good, but it was no answer, and nothing is sent again."""
    with Peer((chunked(b"abc", end=False), CUT)) as peer:
        desk = Desk(retry=ONCE)
        assert isinstance(desk.ask(peer.url), aiohttp.ClientPayloadError)
        assert len(peer.asked) == 1
    assert desk.count(BAD) == desk.count() == 1


@pytest.mark.parametrize("timeout", [aiohttp.ClientTimeout(total=0.05), aiohttp.ClientTimeout(sock_read=0.05)], ids=["total", "sock_read"])
def test_a_body_that_stops_is_bad(timeout):
    """Whichever limit of aiohttp ends it, and with the error that it raises."""
    with Peer((chunked(b"abc", end=False), HANG)) as peer:
        desk = Desk(bulkhead=1)
        assert isinstance(desk.ask(peer.url, timeout=timeout), TimeoutError)
    assert desk.count(BAD) == desk.count() == 1
    assert desk.guard().bulkhead.active == 0


def test_classify_is_shown_the_answer():
    """A bad one too, and says how it counts."""
    with Peer(reply(503)) as peer:
        desk = Desk(classify=lambda result, error: Outcome.IGNORED if result.status == 503 else None)
        desk.ask(peer.url)
    assert desk.count(Outcome.IGNORED) == desk.count() == 1


# -- as long as it comes in ---------------------------------------------------------------------------------------------------------------


def test_the_call_lasts_until_the_body_has_come_in():
    """A second request is refused meanwhile."""
    with Peer((chunked(b"abc", end=False), HANG)) as peer:
        desk = Desk(bulkhead=1)

        async def use(session):
            async with session.get(peer.url):
                held = desk.guard().bulkhead.active
                with pytest.raises(BulkheadFull):
                    await session.get(peer.url)
            return held, desk.guard().bulkhead.active

        assert desk.run(use) == (1, 0)
    assert (desk.count(ABANDONED), desk.count(REJECTED)) == (1, 1)


@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("answer", [reply(), halves(reply())], ids=["at once", "later"])
def test_a_short_answer_is_complete_unread(timeout, answer):
    """Who looks at the status alone has not left."""
    with Peer(answer) as peer:
        desk = Desk(timeout=timeout)

        async def use(session):
            async with session.get(peer.url) as response:
                async with asyncio.timeout(PATIENCE):
                    while not desk.count():
                        await asyncio.sleep(0.001)
                return response.status

        assert desk.run(use) == 200
    assert desk.count(GOOD) == desk.count() == 1


@pytest.mark.parametrize(("status", "outcome"), [(200, ABANDONED), (503, BAD)])
def test_a_reader_that_leaves_says_nothing(status, outcome):
    """Leaving early is no verdict about a good answer; a bad one stays bad."""
    with Peer((chunked(b"abc", end=False, status=status), HANG)) as peer:
        desk = Desk(breaker=one_strike(), bulkhead=1)

        async def use(session):
            async with session.get(peer.url) as response:
                assert await response.content.read(3) == b"abc"

        desk.run(use)
    assert desk.count(outcome) == desk.count() == 1
    assert desk.guard().bulkhead.active == 0


def test_own_errors_of_a_reader_say_nothing():
    """What goes wrong in the block of the caller is not the peer's."""
    with Peer((chunked(b"abc", end=False), HANG)) as peer:
        desk = Desk()

        async def use(session):
            with pytest.raises(ZeroDivisionError):
                async with session.get(peer.url):
                    raise ZeroDivisionError

        desk.run(use)
    assert desk.count(ABANDONED) == desk.count() == 1


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_a_forgotten_answer_gives_its_permit_back(timeout):
    """Once, when its connection ends: aiohttp itself holds it until then."""
    with Peer((chunked(b"abc", end=False), CUT)) as peer:
        desk = Desk(bulkhead=1, timeout=timeout)

        async def use(session):
            await session.get(peer.url)
            async with asyncio.timeout(PATIENCE):
                while desk.guard().bulkhead.active:
                    gc.collect()
                    await asyncio.sleep(0.001)

        desk.run(use)
    assert desk.count(BAD, ABANDONED) == desk.count() == 1


def test_cancelled_readers_are_nobodys_fault():
    """The cancellation arrives, the permit is back, and there is no verdict."""
    with Peer((chunked(b"abc", end=False), HANG)) as peer:
        desk = Desk(breaker=one_strike(), bulkhead=1)

        async def use(session):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), session.get(peer.url) as response:
                    await response.read()

        desk.run(use)
    assert desk.count(ABANDONED) == desk.count() == 1
    assert desk.guard().bulkhead.active == 0


def test_a_websocket_is_a_good_answer():
    """The conversation that follows is no part of the call."""

    async def use(session):
        from aiohttp import web

        async def talk(request):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(await socket.receive_str())
            return socket

        app = web.Application()
        app.router.add_get("/", talk)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            async with session.ws_connect(f"http://127.0.0.1:{port}/") as socket:
                await socket.send_str("hello")
                return await socket.receive_str()
        finally:
            await runner.cleanup()

    desk = Desk(timeout=5.0)
    assert desk.run(use) == "hello"
    assert desk.count(GOOD) == desk.count() == 1


# -- retries ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_passing_trouble_is_asked_again(status):
    """The caller gets the answer that came in the end; all attempts are one call on one connection."""
    with Peer(halves(reply(status, b"busy")), reply(200, b"fine")) as peer:
        desk = Desk(retry=ONCE)
        assert desk.ask(peer.url) == (200, b"fine")
        assert (len(peer.asked), peer.connections) == (2, 1)
    assert desk.count(GOOD) == desk.count() == 1


def test_the_last_answer_is_returned_as_it_is():
    """It is still the peer's answer, and its body can be read."""
    with Peer(reply(503, b"first"), reply(503, b"second")) as peer:
        desk = Desk(retry=ONCE)
        assert desk.ask(peer.url) == (503, b"second")
    assert desk.count(BAD) == desk.count() == 1


def test_the_answer_of_a_retry_that_is_refused_can_be_read():
    """When the breaker opens between two attempts, the caller gets the last answer, with its body."""
    with Peer(reply(503, b"busy")) as peer:
        desk = Desk(retry=ONCE, breaker=one_strike())
        assert desk.ask(peer.url) == (503, b"busy")
        assert isinstance(desk.ask(peer.url), CircuitOpen)


def test_earlier_answers_are_closed():
    """Also one of unknown length, before the next attempt begins."""
    with Peer((chunked(b"busy", end=False, status=503), HANG), reply(200, b"fine")) as peer:
        desk = Desk(retry=ONCE)

        async def use(session):
            async with session.get(peer.url) as response:
                return await response.read(), len(session.connector._acquired)

        assert desk.run(use) == (b"fine", 0)


@pytest.mark.parametrize(
    ("method", "headers", "attempts"),
    [("GET", {}, 2), ("PUT", {}, 2), ("POST", {}, 1), ("PATCH", {}, 1), ("POST", {"Idempotency-Key": "1"}, 2)],
)
def test_only_what_does_no_harm_is_sent_again(method, headers, attempts):
    """RFC 9110 section 9.2.2 decides, or a key. A 500 is not asked again at all."""
    with Peer(*[reply(503)] * attempts, reply(500)) as peer:
        desk = Desk(retry=Retry(attempts=attempts + 3, wait=0.0))
        assert desk.ask(peer.url, method, headers=headers, data=b"text")[0] == (503 if attempts == 1 else 500)
        assert len(peer.asked) == (1 if attempts == 1 else attempts + 1)
        assert {asked.body for asked in peer.asked} == {b"text"}


async def produced():
    yield b"once"


def test_a_body_that_is_produced_is_sent_once():
    """It would be empty the second time."""
    with Peer(reply(503)) as peer:
        desk = Desk(retry=ONCE, idempotent=True)
        assert desk.ask(peer.url, "PUT", data=produced())[0] == 503
        assert [asked.body for asked in peer.asked] == [b"once"]


knows_consumed = pytest.mark.skipif(
    not hasattr(aiohttp.payload.Payload, "consumed"), reason="this aiohttp does not say whether a body can be sent again"
)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: io.BytesIO(b"content"), marks=knows_consumed),
        pytest.param(lambda: {"file": io.BytesIO(b"content")}, marks=knows_consumed),
        lambda: {"a": "content"},
    ],
)
def test_a_body_that_is_there_is_sent_again(data):
    """The same bytes, also of files and forms."""
    with Peer(reply(503), reply(200)) as peer:
        desk = Desk(retry=ONCE)
        assert desk.ask(peer.url, "PUT", data=data())[0] == 200
        assert b"content" in peer.asked[0].body
        assert peer.asked[0].body == peer.asked[1].body


def test_retry_after_is_honoured():
    """Never earlier than the answer asks."""
    with Peer(reply(429, Retry_After="7"), reply(200)) as peer:
        desk = Desk(retry=ONCE)
        before = desk.clock.monotonic()
        assert desk.ask(peer.url)[0] == 200
        assert desk.clock.monotonic() - before == 7.0


def test_what_was_never_sent_may_be_sent():
    """Without a connection nothing has happened, whatever the method."""
    desk = Desk(retry=ONCE)
    told = []
    desk.resilience.observe(lambda _: None, attempts=told.append)
    assert isinstance(desk.ask(nobody(), "POST"), aiohttp.ClientConnectorError)
    assert len(told) == 2


def test_a_fallback_answers_for_a_bad_status():
    """It is called with the request, and what it gives is the answer."""

    async def instead(request):
        return f"instead of {request.url.path}"

    with Peer(reply(500)) as peer:
        desk = Desk(fallback=Fallback(instead, on=aiohttp.ClientResponseError))

        async def use(session):
            return await desk.middleware(aiohttp_request(session, peer.url + "/path"), refuse)

        async def refuse(request):
            async with aiohttp.ClientSession() as plain:
                return await plain.get(request.url)

        assert desk.run(use) == "instead of /path"


def aiohttp_request(session, url):
    """What aiohttp hands to a middleware."""
    from types import SimpleNamespace

    from yarl import URL

    return SimpleNamespace(url=URL(url), method="GET", headers=CIMultiDict(), body=b"", session=session)


# -- refusals, timeouts, deadlines --------------------------------------------------------------------------------------------------------


def test_a_refusal_is_both():
    """Who catches aiohttp's errors catches it."""
    with Peer(reply(500)) as peer:
        desk = Desk(breaker=one_strike())
        desk.ask(peer.url)
        refused = desk.ask(peer.url)
    assert isinstance(refused, CircuitOpen)
    assert isinstance(refused, aiohttp.ClientConnectionError)
    assert (refused.guard, refused.last_error) == (NAME, None)


@pytest.mark.parametrize(
    ("replies", "timeout", "phase"),
    [
        ((HANG,), 0.05, "total"),
        ((HANG,), Timeout(first_item=0.05), "first_item"),
        ((chunked(b"abc", end=False), HANG), Timeout(idle=0.05), "idle"),
        ((chunked(b"abc", end=False), HANG), 0.05, "total"),
    ],
)
def test_a_slow_answer_times_out(replies, timeout, phase):
    """It is our error and aiohttp's, wherever it happens."""
    with Peer(replies) as peer:
        desk = Desk(timeout=timeout, bulkhead=1)
        late = desk.ask(peer.url)
    assert isinstance(late, CallTimedOut)
    assert isinstance(late, aiohttp.ServerTimeoutError)
    assert (late.guard, late.phase) == (NAME, phase)
    assert desk.count(BAD) == desk.count() == 1
    assert desk.guard().bulkhead.active == 0


def test_a_body_under_a_limit_is_the_same_body():
    """Chunks, lines and their ends are as they were."""
    with Peer(chunked(b"one\n", b"two\nthr", b"ee")) as peer:
        desk = Desk(timeout=Timeout(idle=5.0))

        async def use(session):
            async with session.get(peer.url) as response:
                chunks = [chunk async for chunk in response.content.iter_chunks()]
            async with session.get(peer.url) as response:
                lines = [line async for line in response.content]
            async with session.get(peer.url) as response:
                return chunks, lines, await response.text()

        chunks, lines, text = desk.run(use)
    assert chunks == [(b"one\n", True), (b"two\nthr", True), (b"ee", True)]
    assert lines == [b"one\n", b"two\n", b"three"]
    assert text == "one\ntwo\nthree"
    assert desk.count(GOOD) == desk.count() == 3


def test_the_deadline_goes_along():
    """Less at each attempt; what the caller has set stays, and what is too late is not sent."""
    with Peer(reply(503, Retry_After="1"), reply(200)) as peer:
        desk = Desk(retry=ONCE)
        with desk.resilience.deadline(3.0):
            assert desk.ask(peer.url)[0] == 200
            desk.ask(peer.url, headers={"X-Request-Timeout-Ms": "7"})
            desk.clock.advance(3.0)
            late = desk.ask(peer.url)
        desk.ask(peer.url)
    assert isinstance(late, DeadlineExceeded)
    assert isinstance(late, aiohttp.ClientConnectionError)
    assert [asked.headers.get("x-request-timeout-ms") for asked in peer.asked] == ["3000", "2000", "7", None]


# -- names --------------------------------------------------------------------------------------------------------------------------------


def test_names_may_be_a_function():
    """None lets a request pass, with its deadline all the same."""
    with Peer() as peer:
        desk = Desk(name=lambda request: {"/a": "api.a"}.get(request.url.path))
        with desk.resilience.deadline(3.0):
            for path in ("/a", "/free"):
                assert desk.ask(peer.url + path)[0] == 200
        assert [asked.headers.get("x-request-timeout-ms") for asked in peer.asked] == ["3000", "3000"]
    assert list(desk.resilience.guards) == ["api.a"]


def test_redirects_pass_request_by_request():
    """Each is a call."""
    with Peer(reply(302, Location="/next"), reply(200, b"fine")) as peer:
        desk = Desk()
        assert desk.ask(peer.url) == (200, b"fine")
    assert desk.count(GOOD) == 2


def test_mistakes_are_told_when_the_middleware_is_made():
    """Every one of them."""
    with pytest.raises(ConfigurationError) as wrong:
        guard_middleware(Resilience("tests"), name="{path}", bad_statuses=[7], braker=True)
    assert [problem.path for problem in wrong.value.problems] == [
        "guard_middleware.bad_statuses",
        "guard_middleware.name",
        "guard_middleware.braker",
    ]


# -- experiments --------------------------------------------------------------------------------------------------------------------------


def test_a_struck_request_raises_what_the_experiment_says():
    """Nothing is sent."""
    with Peer() as peer:
        desk = Desk()
        desk.ask(peer.url)
        with inject(desk.resilience, NAME, "error"):
            assert type(desk.ask(peer.url)) is InjectedFault
        with inject(desk.resilience, NAME, "error", error=aiohttp.ServerDisconnectedError):
            assert type(desk.ask(peer.url)) is aiohttp.ServerDisconnectedError
        assert len({id(asked) for asked in peer.asked}) == 1


@pytest.mark.parametrize("kind", ["stream_cut", "stream_truncate"])
@pytest.mark.parametrize(("after", "left"), [(2, b"abc"), (1, b""), (0, None)])
def test_a_body_can_be_cut(kind, after, left):
    """The head of an answer is its first item, and each chunk one more."""
    with Peer((chunked(b"abc", b"def", end=False), 0.02, b"0\r\n\r\n")) as peer:
        desk = Desk(bulkhead=1)
        assert desk.ask(peer.url) == (200, b"abcdef")
        with inject(desk.resilience, NAME, kind, after_items=after):
            struck = desk.ask(peer.url)
    if kind == "stream_cut":
        assert type(struck) is InjectedFault
    elif left is None:
        assert isinstance(struck, aiohttp.ServerDisconnectedError)
    else:
        assert struck == (200, left)
        assert desk.count(GOOD) == 2, "an answer that ends early looks like any other"
    assert desk.guard().bulkhead.active == 0
    # aiohttp repeats a request whose connection was lost.
    assert desk.count() == (3 if kind == "stream_truncate" and left is None else 2)


def test_a_lost_reply_closes_the_answer():
    """The peer has acted, and nothing stays open."""
    with Peer((chunked(b"abc", end=False), HANG)) as peer:
        desk = Desk()
        desk.resilience.guard(NAME)

        async def use(session):
            with inject(desk.resilience, NAME, "lost_reply", error=TimeoutError("lost")), pytest.raises(TimeoutError):
                await session.get(peer.url)
            return len(session.connector._acquired)

        assert desk.run(use) == 0
        assert len(peer.asked) == 1
