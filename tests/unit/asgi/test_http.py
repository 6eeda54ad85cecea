"""How a request counts: by what the client got, and until when."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError, Outcome, Resilience, ResilienceMiddleware
from tests.unit.asgi.kit import HOUR, START, Stand, body, says

GOOD, BAD, ABANDONED = Outcome.GOOD, Outcome.BAD, Outcome.ABANDONED


async def _ask(stand, **options):
    """Whatever comes out of the app comes out of the middleware."""
    try:
        await stand.ask(**options)
    except BaseException as error:
        return error
    return None


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, GOOD), (204, GOOD), (302, GOOD), (404, GOOD), (429, GOOD), (499, GOOD), (500, BAD), (503, BAD), (599, BAD)],
)
async def test_a_response_counts_by_its_status(status, outcome):
    """A 404 is a good answer to a bad question, a 500 is none."""
    stand = Stand(says({**START, "status": status}, body()))
    await stand.ask()
    assert stand.ends() == {outcome: 1}
    assert stand.labels() == [("GET", "__unmatched__", status)]


@pytest.mark.asyncio
async def test_nothing_is_changed_on_its_way():
    """The app sees what the server says, the server what the app says, the very same objects."""
    request = {"type": "http.request", "body": b"question", "more_body": False}
    answer = body(b"answer")
    seen = []

    async def app(scope, receive, send):
        seen.append(await receive())
        seen.append(await receive())
        await send(START)
        await send(answer)

    stand = Stand(app)
    await stand.ask(received=[request])
    assert seen[1] is request
    assert stand.sent[0] is START
    assert stand.sent[1] is answer


@pytest.mark.asyncio
async def test_an_exception_out_of_the_app_is_bad_and_stays_the_same():
    """Before anything was answered it counts as a 500, which is what the server will say."""
    error = LookupError("x")
    stand = Stand(says(then=error))
    assert await _ask(stand) is error
    assert stand.ends() == {BAD: 1}
    assert stand.labels() == [("GET", "__unmatched__", 500)]


@pytest.mark.asyncio
@pytest.mark.parametrize("then", [None, LookupError("x")], ids=["returns", "raises"])
async def test_a_response_that_was_begun_and_not_finished_is_bad(then):
    """Although it said 200."""
    stand = Stand(says(START, body(more=True), then=then))
    assert await _ask(stand) is then
    assert stand.ends() == {BAD: 1}
    assert stand.labels() == [("GET", "__unmatched__", 200)]


@pytest.mark.asyncio
async def test_no_response_at_all_is_bad():
    """The server will say something, but the app did not."""
    stand = Stand(says())
    await stand.ask()
    assert stand.ends() == {BAD: 1}
    assert stand.labels() == [("GET", "__unmatched__", 0)]


# -- clients that leave -----------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_client_that_leaves_a_stream_has_abandoned_it():
    """The server says so, the app gives up."""

    async def app(scope, receive, send):
        await send(START)
        await send(body(more=True))
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    stand = Stand(app)
    await stand.ask(received=[{"type": "http.disconnect"}])
    assert stand.ends() == {ABANDONED: 1}


@pytest.mark.asyncio
async def test_an_app_that_goes_on_for_a_client_that_has_left_abandons_too():
    """Nobody got the end of it, and it says nothing about the service."""

    async def app(scope, receive, send):
        await receive()
        await receive()
        await send({**START, "status": 500})
        await send(body())

    stand = Stand(app)
    await stand.ask(received=[{"type": "http.disconnect"}])
    assert stand.ends() == {ABANDONED: 1}


@pytest.mark.asyncio
async def test_a_disconnect_after_the_end_is_none():
    """Every server reports one when the response is complete."""

    async def app(scope, receive, send):
        await send(START)
        await send(body())
        await receive()
        await receive()

    stand = Stand(app)
    await stand.ask(received=[{"type": "http.disconnect"}])
    assert stand.ends() == {GOOD: 1}


@pytest.mark.asyncio
async def test_a_disconnect_while_the_last_chunk_is_sent_is_none():
    """A task that listens for it may hear it before ``send`` has returned."""
    released = asyncio.Event()

    async def app(scope, receive, send):
        async def listen():
            await receive()
            await receive()
            released.set()

        listening = asyncio.ensure_future(listen())
        await send(START)
        await send(body())
        await listening

    async def slow(message):
        if message["type"] == "http.response.body":
            await released.wait()

    stand = Stand(app)
    await stand.ask(received=[{"type": "http.disconnect"}], send=slow)
    assert stand.ends() == {GOOD: 1}


@pytest.mark.asyncio
@pytest.mark.parametrize("at", [0, 1, 2], ids=["headers", "first chunk", "last chunk"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["as it is", "as an error of the framework"])
async def test_a_send_that_fails_is_the_client(at, wrapped):
    """An OSError from the server, at any point, also when the framework makes something else of it (Starlette: ClientDisconnect)."""

    async def app(scope, receive, send):
        try:
            await send(START)
            await send(body(more=True))
            await send(body())
        except OSError as error:
            if wrapped:
                raise LookupError from error
            raise

    count = iter(range(3))

    async def fails(message):
        if next(count) == at:
            raise BrokenPipeError

    stand = Stand(app)
    assert isinstance(await _ask(stand, send=fails), LookupError if wrapped else BrokenPipeError)
    assert stand.ends() == {ABANDONED: 1}


@pytest.mark.asyncio
async def test_another_error_of_the_server_is_ours():
    """Sending nonsense is a defect of the app."""

    async def refuses(message):
        raise RuntimeError("Response content shorter than Content-Length")

    stand = Stand(says(START, body()))
    assert isinstance(await _ask(stand, send=refuses), RuntimeError)
    assert stand.ends() == {BAD: 1}


@pytest.mark.asyncio
@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancelled_request_is_abandoned(begun):
    """By a server that stops, or a middleware that gives up; the cancellation goes on."""
    hangs = asyncio.Event()

    async def app(scope, receive, send):
        if begun:
            await send(START)
        hangs.set()
        await asyncio.Event().wait()

    stand = Stand(app)
    task = asyncio.ensure_future(stand.ask())
    await hangs.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stand.ends() == {ABANDONED: 1}
    assert stand.labels() == [("GET", "__unmatched__", 200 if begun else 0)]


# -- until when -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_request_ends_with_its_last_chunk():
    """A background task of ten minutes is no slow answer, and it is booked before that task begins."""
    stand = Stand(None)
    seen = []

    async def app(scope, receive, send):
        stand.clock.advance(0.5)
        await send(START)
        stand.clock.advance(0.5)
        await send(body())
        seen.append(stand.ends())
        stand.clock.advance(600.0)

    stand.app.app = app
    await stand.ask()
    (view,) = stand.resilience.routes.views().values()
    assert seen == [{GOOD: 1}]
    assert view.seconds == 1.0
    assert stand.resilience.slos.counts("fast", HOUR) == (1, 0)


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [LookupError("x"), asyncio.CancelledError(), KeyboardInterrupt()])
async def test_what_happens_after_the_last_chunk_changes_nothing(error):
    """The client has its answer; the error of a background task is the server's to log."""
    stand = Stand(says(START, body(), then=error))
    assert await _ask(stand) is error
    assert stand.ends() == {GOOD: 1}


@pytest.mark.asyncio
async def test_a_stream_is_timed_to_its_end_and_to_its_first_byte():
    """Two measures: when it began to speak, and when it had said everything. Empty chunks say nothing."""
    stand = Stand(None)

    async def app(scope, receive, send):
        stand.clock.advance(1.0)
        await send(START)
        await send(body(b"", more=True))
        stand.clock.advance(0.25)
        for _ in range(10):
            await send(body(b"data: x\n\n", more=True))
            stand.clock.advance(0.5)
        await send(body(b""))

    stand.app.app = app
    await stand.ask()
    (view,) = stand.resilience.routes.views().values()
    assert (view.seconds, view.first_byte_seconds) == (6.25, 1.25)
    assert (sum(view.durations), sum(view.first_bytes)) == (1, 1)
    assert view.durations[view.bounds.index(7.5)] == 1
    assert view.first_bytes[view.bounds.index(2.0)] == 1
    assert stand.resilience.slos.counts("fast", HOUR) == (0, 1)
    assert stand.resilience.slos.counts("up", HOUR) == (1, 0)


@pytest.mark.asyncio
async def test_a_response_without_a_body_has_no_first_byte():
    """Nothing is made up."""
    stand = Stand(says({**START, "status": 204}, body(b"")))
    await stand.ask()
    (view,) = stand.resilience.routes.views().values()
    assert (sum(view.durations), sum(view.first_bytes)) == (1, 0)


@pytest.mark.asyncio
async def test_a_message_need_not_name_what_is_usual():
    """``body`` and ``more_body`` may be left out."""
    stand = Stand(says({"type": "http.response.start", "status": 200}, {"type": "http.response.body"}))
    await stand.ask()
    assert stand.ends() == {GOOD: 1}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("messages", "outcome"),
    [
        ([{"type": "http.response.pathsend", "path": "/tmp/x"}], GOOD),
        ([{"type": "http.response.zerocopysend", "file": 3}], GOOD),
        ([{"type": "http.response.zerocopysend", "file": 3, "more_body": True}], BAD),
        ([{"type": "http.response.zerocopysend", "file": 3, "more_body": True}, body(b"end")], GOOD),
        ([{"type": "http.response.debug", "info": {}}, body()], GOOD),
        ([{"type": "http.response.early_hint", "links": []}], BAD),
    ],
)
async def test_extensions_of_servers_are_understood(messages, outcome):
    """A file that the server sends by itself is an answer; what is not known is passed on and says nothing."""
    stand = Stand(says(START, *messages))
    await stand.ask()
    assert stand.ends() == {outcome: 1}
    assert stand.sent == [START, *messages]


# -- what else passes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_lifespan_passes_through():
    """With the very objects of the server; nothing is counted."""
    seen = []

    async def app(*args):
        seen.append(args)

    stand = Stand(app)
    given = ({"type": "lifespan"}, object(), object())
    await stand.app(*given)
    assert seen == [given]
    assert stand.ends() == {}


@pytest.mark.asyncio
async def test_context_variables_that_the_app_sets_are_seen_outside():
    """It runs in the same task; BaseHTTPMiddleware loses them."""
    variable = ContextVar("variable", default="outside")

    async def app(scope, receive, send):
        variable.set("inside")
        await send(START)
        await send(body())

    await Stand(app).ask()
    assert variable.get() == "inside"


@pytest.mark.asyncio
async def test_injected_requests_are_marked_and_the_others_are_not():
    """See test_faults for the rest."""
    stand = Stand(says(START, body()))
    await stand.ask()
    assert stand.ends(injected=True) == {}
    assert stand.ends(injected=False) == {GOOD: 1}


# -- objectives -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slo", ["api_availabilty", ["fast", "api_availabilty"]])
def test_an_unknown_objective_is_refused_when_the_app_is_built(slo):
    """With what was meant."""
    resilience = Resilience("x")
    resilience.slos.add(SLO("api_availability", 99.0, timedelta(days=1)), SLO("fast", 99.0, timedelta(days=1), latency=1.0))
    with pytest.raises(ConfigurationError, match="did you mean 'api_availability'"):
        ResilienceMiddleware(None, resilience, slo=slo)


def test_an_objective_about_incidents_is_refused():
    """It watches breakers, not requests."""
    resilience = Resilience("x")
    resilience.slos.add(SLO("recovery", 99.0, timedelta(days=1), recovery=300.0))
    with pytest.raises(ConfigurationError, match="watch every breaker by themselves"):
        ResilienceMiddleware(None, resilience, slo="recovery")


@pytest.mark.asyncio
async def test_without_objectives_requests_are_counted_all_the_same():
    """For the histogram."""
    resilience = Resilience("x")
    stand = Stand(None)
    stand.resilience = resilience
    stand.app = ResilienceMiddleware(says(START, body()), resilience)
    await stand.ask()
    assert stand.ends() == {GOOD: 1}


@pytest.mark.asyncio
async def test_two_middlewares_count_for_their_own_objectives():
    """Although the labels of their requests are the same."""
    stand = Stand(says(START, body()))
    stand.resilience.slos.add(SLO("other", 99.0, timedelta(days=30), latency=0.3))
    await stand.ask()
    stand.app = ResilienceMiddleware(says({**START, "status": 200}, body()), stand.resilience, slo="other")
    await stand.ask()
    await stand.ask()
    counts = {name: stand.resilience.slos.counts(name, HOUR) for name in ("up", "fast", "other")}
    assert counts == {"up": (1, 0), "fast": (1, 0), "other": (2, 0)}
    assert stand.labels() == [("GET", "__unmatched__", 200)]
    assert stand.ends() == {GOOD: 3}
    assert stand.resilience.snapshot().routes["__unmatched__"].total() == 3
