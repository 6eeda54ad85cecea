"""Admission of requests: what is too much is answered before the app is called, and a permit is held until the response is complete."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from somaresil import AdaptiveLimit, Bulkhead, Outcome, Resilience, ResilienceMiddleware, asgi, exchange
from somaresil.admission import Admission
from somaresil.chaos.permission import PROTECTED_PATHS
from somaresil.events import CallEnded, DefectFound
from somaresil.integrations._families import REQUESTS
from somaresil.integrations._readings import Reader
from somaresil.model.concurrency import Estimator
from somaresil.model.priority import Rank
from somaresil.priority import caller
from somaresil.views import LimitView
from tests.behaviour.kit import turns
from tests.unit.asgi.kit import START, Stand, body, says
from tests.unit.policy.kit import wrong

GOOD, BAD, REJECTED, ABANDONED = Outcome.GOOD, Outcome.BAD, Outcome.REJECTED, Outcome.ABANDONED


def limited(app, limit=None, **options) -> Stand:
    """A middleware with one permit."""
    mounted = {"limit": limit or Bulkhead(1), **options}
    return Stand(app, mounted=mounted)


def full(app=None, limit=None, **options) -> Stand:
    """One whose permit is taken."""
    stand = limited(app or says(START, body()), limit, **options)
    assert stand.app.limiter.try_enter() is not None
    return stand


# -- refusing -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [Bulkhead(1), AdaptiveLimit(initial=1)])
async def test_what_is_too_much_is_refused_before_the_app_is_called(limit):
    """With 503, once, and with when to come back; it counts as rejected, and spends the budget as a bad one does."""
    called = []

    async def app(scope, receive, send):
        called.append(scope)

    stand = full(app, limit)
    await stand.ask()
    assert called == []
    start, end = stand.sent
    assert (start["type"], start["status"]) == ("http.response.start", 503)
    headers = dict(start["headers"])
    assert headers[b"retry-after"] == b"1"
    assert int(headers[b"content-length"]) == len(end["body"])
    assert stand.ends() == {REJECTED: 1}
    assert stand.labels() == [("GET", "__unmatched__", 503)]
    (event,) = stand.told(CallEnded)
    assert (event.guard, event.outcome, event.error) == ("http", "rejected", "BulkheadFull")
    assert stand.app.limiter.active == 1


@pytest.mark.asyncio
async def test_nothing_is_told_when_nobody_listens():
    """It is counted all the same."""
    stand = full()
    stand.resilience.listeners._keep()
    await stand.ask()
    assert (stand.ends(), stand.events) == ({REJECTED: 1}, [])


@pytest.mark.asyncio
async def test_a_conversation_is_refused_as_the_server_can():
    """With 503 where it has the extension, else by closing the handshake with the code for trying again later."""
    stand = full()
    await stand.ask(kind="websocket", extensions={"websocket.http.response": {}})
    assert [message["type"] for message in stand.sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (stand.sent[0]["status"], dict(stand.sent[0]["headers"])[b"retry-after"]) == (503, b"1")
    await stand.ask(kind="websocket")
    assert stand.sent == [{"type": "websocket.close", "code": 1013}]
    assert stand.ends() == {REJECTED: 2}


@pytest.mark.asyncio
@pytest.mark.parametrize("root", ["", "/api", "/api/"])
async def test_health_and_metrics_are_always_let_in_and_not_counted(root):
    """Whatever the limit says, below a root path as well; a path that only looks like them is not."""
    stand = full()
    for pattern in PROTECTED_PATHS:
        await stand.ask(root.rstrip("/") + pattern.replace("*", "/x").replace("//", "/"), root_path=root)
        assert stand.sent[0]["status"] == 200, pattern
    await stand.ask(f"{root.rstrip('/')}/health/", root_path=root)
    assert stand.sent[0]["status"] == 200
    assert stand.app.limiter.active == 1
    for path in ("/items/health-food", "/xmetrics", "/"):
        await stand.ask(root.rstrip("/") + path, root_path=root)
        assert stand.sent[0]["status"] == 503, path


@pytest.mark.asyncio
async def test_lifespan_is_not_limited():
    """Nor is any other protocol."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    stand = full(app)
    await stand.app({"type": "lifespan"}, None, None)
    assert seen == ["lifespan"]


# -- holding a permit -----------------------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_stream_holds_its_permit_until_it_ends(kind):
    """To the last chunk, or until the conversation is closed; what the app does after that needs none."""
    held = []

    async def app(scope, receive, send):
        def note():
            held.append(stand.app.limiter.active)

        if scope["type"] == "http":
            messages = [START, body(b"a", more=True), body(b"b", more=True), body()]
        else:
            messages = [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}]
        for message in messages:
            note()
            await send(message)
        note()

    stand = limited(app)
    await stand.ask(kind=kind)
    assert held == [1] * (len(held) - 1) + [0]
    assert (stand.app.limiter.active, stand.ends()) == (0, {GOOD: 1})


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("app", "raises", "outcome"),
    [
        (says(START, body(more=True)), None, BAD),
        (says(START, then=LookupError()), LookupError, BAD),
        (says(then=LookupError()), LookupError, BAD),
        (says(START, then=asyncio.CancelledError()), asyncio.CancelledError, ABANDONED),
        (says(), None, BAD),
    ],
)
async def test_a_permit_comes_back_however_the_request_ends(app, raises, outcome):
    """Cut off, failed, cancelled or never answered."""
    stand = limited(app)
    for _ in range(2):
        if raises is None:
            await stand.ask()
        else:
            with pytest.raises(raises):
                await stand.ask()
    assert (stand.app.limiter.active, stand.ends()) == (0, {outcome: 2})


@pytest.mark.asyncio
async def test_a_client_that_is_gone_gives_the_permit_back():
    """The server cannot write any more."""
    stand = limited(says(START, body()))

    async def gone(message):
        raise OSError

    with pytest.raises(OSError):
        await stand.ask(send=gone)
    assert (stand.app.limiter.active, stand.ends()) == (0, {ABANDONED: 1})


@pytest.mark.asyncio
async def test_a_request_may_wait_for_its_permit():
    """In line, and no longer than its deadline; the time in line is part of it."""
    free = asyncio.Event()

    async def app(scope, receive, send):
        await free.wait()
        await send(START)
        await send(body())

    resilience = Resilience("tests")
    middleware = ResilienceMiddleware(app, resilience, limit=Bulkhead(1, max_waiting=1, max_wait=60.0), deadline=30.0)
    sent = [[], [], []]

    def request(number, *headers):
        async def receive():
            await asyncio.Event().wait()

        async def send(message):
            sent[number].append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": list(headers)}
        return asyncio.ensure_future(middleware(scope, receive, send))

    first, second = request(0), request(1)
    await turns(20)
    assert (middleware.limiter.active, middleware.limiter.waiting) == (1, 1)
    await request(2)
    assert sent[2][0]["status"] == 503
    free.set()
    await asyncio.gather(first, second)
    assert [messages[0]["status"] for messages in sent] == [200, 200, 503]
    assert (middleware.limiter.active, middleware.limiter.waiting) == (0, 0)


@pytest.mark.asyncio
async def test_no_request_waits_beyond_its_deadline():
    """On a clock that is moved by waiting: it is refused when its own time is up, not after the time of the line."""
    stand = full(limit=Bulkhead(1, max_waiting=1, max_wait=60.0))
    before = stand.clock.monotonic()
    await stand.ask(headers=[(b"x-request-timeout-ms", b"2500")])
    assert stand.sent[0]["status"] == 503
    assert stand.clock.monotonic() - before == 2.5


@pytest.mark.asyncio
async def test_the_time_in_line_is_part_of_the_deadline():
    """What is left of it is what the app gets; nothing left is 504 without a call."""
    seen = []

    async def app(scope, receive, send):
        from somaresil.deadline import time_left

        seen.append(time_left())
        await send(START)
        await send(body())

    stand = limited(app, limit=Bulkhead(1, max_waiting=1, max_wait=60.0))
    slot = stand.app.limiter.try_enter()

    async def served_late(future, timeout):
        stand.clock.advance(2.0)
        stand.app.limiter.line.leave(slot)
        return True

    stand.clock.await_ = served_late
    await stand.ask(headers=[(b"x-request-timeout-ms", b"5000")])
    assert seen == [3.0]
    slot = stand.app.limiter.try_enter()
    await stand.ask(headers=[(b"x-request-timeout-ms", b"2000")])
    assert (len(seen), stand.sent[0]["status"], stand.app.limiter.active) == (1, 504, 0)


@pytest.mark.asyncio
async def test_a_request_that_is_cancelled_in_line_is_abandoned():
    """It leaves nothing behind."""
    resilience = Resilience("tests")
    middleware = ResilienceMiddleware(says(START), resilience, limit=Bulkhead(1, max_waiting=1, max_wait=60.0), priority=lambda _: "low")
    slot = middleware.limiter.try_enter()
    task = asyncio.ensure_future(middleware({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None))
    await turns()
    assert middleware.limiter.waiting == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert middleware.limiter.waiting == 0
    middleware.limiter.line.leave(slot)
    assert middleware.limiter.active == 0
    assert resilience.routes.counts()["__unmatched__"].total(ABANDONED) == 1


# -- what an adaptive limit learns ----------------------------------------------------------------------------------------------------


@pytest.fixture
def told(monkeypatch):
    """What the model of every limit is told."""
    found = []
    for kind in ("sample", "drop"):
        monkeypatch.setattr(Estimator, kind, lambda _model, seconds, _now, inside, kind=kind: found.append((kind, seconds, inside)))
    return found


def slow(status: int, *, seconds: float = 0.5, kind: str = "http"):
    """An app that answers after some time and then streams for an hour."""

    async def app(scope, receive, send):
        stand = app.stand
        stand.clock.advance(seconds)
        if kind == "http":
            await send({**START, "status": status})
            stand.clock.advance(3_600.0)
            await send(body(more=True))
            await send(body())
        else:
            await send({"type": "websocket.accept"})
            stand.clock.advance(3_600.0)
            await send({"type": "websocket.close"})

    return app


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, ["sample"]), (404, ["sample"]), (500, []), (502, []), (429, ["drop"]), (503, ["drop"]), (504, ["drop"])],
)
async def test_time_to_the_start_of_the_response_is_the_sample(told, status, expected):
    """However long it streams; answers that say that there is too much to do are drops, other failures nothing."""
    app = slow(status)
    app.stand = limited(app, AdaptiveLimit())
    await app.stand.ask()
    assert told == [(kind, 0.5, 1) for kind in expected]
    assert app.stand.app.limiter.active == 0


@pytest.mark.asyncio
async def test_a_conversation_is_a_sample_when_it_is_accepted(told):
    """How long it goes on is up to both."""
    app = slow(0, kind="websocket")
    app.stand = limited(app, AdaptiveLimit())
    await app.stand.ask(kind="websocket")
    assert told == [("sample", 0.5, 1)]


@pytest.mark.asyncio
async def test_a_request_without_an_answer_says_nothing_but_when_its_deadline_has_passed(told):
    """Cancelled or failed: nothing is known; answered with 504 for it: a drop."""
    stand = limited(says(then=LookupError()), AdaptiveLimit())
    with pytest.raises(LookupError):
        await stand.ask()
    assert told == []

    async def hangs(scope, receive, send):
        await asyncio.Event().wait()

    middleware = ResilienceMiddleware(hangs, Resilience("tests"), limit=AdaptiveLimit(), deadline=0.01)
    sent = []

    async def send(message):
        sent.append(message)

    await middleware({"type": "http", "method": "GET", "path": "/", "headers": []}, None, send)
    assert sent[0]["status"] == 504
    assert [kind for kind, _, _ in told] == ["drop"]
    assert middleware.limiter.active == 0


@pytest.mark.asyncio
async def test_faults_are_seen_by_the_limit_as_real_ones(told, monkeypatch):
    """A delay takes time while the permit is held; an injected 503 is a drop."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    stand = limited(says(START, body()), AdaptiveLimit())
    stand.arm("latency", delay_seconds=2.0)
    await stand.ask()
    assert told == [("sample", 2.0, 1)]
    stand.resilience.chaos.stop_all()
    stand.arm("error", status=503)
    await stand.ask()
    assert [kind for kind, _, _ in told] == ["sample", "drop"]
    assert stand.app.limiter.active == 0


# -- who calls ------------------------------------------------------------------------------------------------------------------------


async def seen_by_the_app(priority, *headers, limit=None):
    """What a guard inside would see, and what was ignored."""
    seen = []

    async def app(scope, receive, send):
        seen.append(caller())
        await send(START)
        await send(body())

    stand = Stand(app, mounted={"priority": priority, "limit": limit})
    await stand.ask(headers=[(b"host", b"x"), *headers])
    assert caller() is None
    assert stand.sent[0]["status"] == 200
    return seen[0], dict(stand.resilience.ignored.counts()), stand.told(DefectFound)


@pytest.mark.asyncio
@pytest.mark.parametrize("limit", [None, Bulkhead(1)])
async def test_a_header_says_how_much_a_request_matters(limit):
    """To everything inside; what is no class is counted and ignored, and without the header nothing is said."""
    assert await seen_by_the_app("X-Priority", (b"x-priority", b" Critical "), limit=limit) == ((Rank.CRITICAL, None), {}, [])
    assert await seen_by_the_app("x-priority", (b"x-priority", b"urgent"), limit=limit) == ((Rank.NORMAL, None), {"x-priority": 1}, [])
    assert await seen_by_the_app("x-priority", (b"priority", b"low"), limit=limit) == (None, {}, [])


@pytest.mark.asyncio
async def test_a_function_says_how_much_a_request_matters_and_for_whom():
    """A class, a class and a tenant, or nothing; one that raises is reported, and the request is an ordinary one."""
    assert (await seen_by_the_app(lambda scope: "low"))[0] == (Rank.LOW, None)
    assert (await seen_by_the_app(lambda scope: ("high", "acme")))[0] == (Rank.HIGH, "acme")
    assert (await seen_by_the_app(lambda scope: (None, scope["path"])))[0] == (Rank.NORMAL, "/")
    assert (await seen_by_the_app(lambda scope: ("low", "x" * 500)))[0] == (Rank.LOW, "x" * 120)
    assert (await seen_by_the_app(lambda scope: None))[0] is None
    assert (await seen_by_the_app(lambda scope: "urgent"))[1] == {"priority": 1}
    seen, _, defects = await seen_by_the_app(lambda scope: scope["nothing"])
    assert (seen, len(defects)) == (None, 1)


@pytest.mark.asyncio
async def test_the_line_of_requests_is_served_by_class():
    """And a critical one takes the place of a low one that stands there."""
    free, order = asyncio.Event(), []

    async def app(scope, receive, send):
        order.append(scope["path"])
        await free.wait()
        await send(START)
        await send(body())

    limit = Bulkhead(1, max_waiting=2, max_wait=60.0)
    middleware = ResilienceMiddleware(app, Resilience("tests"), limit=limit, priority=lambda scope: scope["path"][1:])
    answers = {}

    async def ask(level):
        async def send(message):
            answers.setdefault(level, message.get("status"))

        await middleware({"type": "http", "method": "GET", "path": f"/{level}", "headers": []}, None, send)

    tasks = []
    for level in ("normal", "low", "high", "critical"):
        tasks.append(asyncio.ensure_future(ask(level)))
        await turns(20)
    free.set()
    await asyncio.gather(*tasks)
    assert order == ["/normal", "/critical", "/high"]
    assert answers == {"normal": 200, "low": 503, "high": 200, "critical": 200}


def test_wrong_options_are_named():
    """All at once."""
    resilience = Resilience("tests")

    def mount(**options):
        ResilienceMiddleware(says(), resilience, **options)

    assert wrong(mount, limit=5, priority=5) == ["limit", "priority"]
    assert wrong(mount, priority="x priority") == ["priority"]
    assert wrong(mount, limit="adaptive", deadline=-1) == ["deadline", "limit"]


def test_without_a_limit_there_is_no_limiter():
    """With a priority alone everybody is let in."""
    resilience = Resilience("tests")
    assert ResilienceMiddleware(says(), resilience).limiter is None
    assert ResilienceMiddleware(says(), resilience, priority="x-priority").limiter is None


# -- defects --------------------------------------------------------------------------------------------------------------------------

STEPS = [
    *(
        (Admission, name)
        for name, value in vars(Admission).items()
        if inspect.isfunction(value) and name not in {"__init__", "admit", "report"}
    ),
    (exchange.Request, "too_much"),
    (exchange.Conversation, "too_much"),
    (asgi.ResilienceMiddleware, "_deadline"),
]


def test_the_steps_are_found():
    """By name; the list grows by itself."""
    assert {"spares", "refused", "learn", "give_back", "_caller"} <= {name for _, name in STEPS}


@pytest.mark.asyncio
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_step_that_fails_is_not_noticed(monkeypatch, owner, step):
    """The client gets what the app said, or the refusal, and no error of ours."""
    reached = []

    def planted(*args, **kwargs):
        reached.append(True)
        raise RuntimeError("planted")

    monkeypatch.setattr(owner, step, planted)

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await send(START)
            await send(body())
        else:
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})

    for kind in ("http", "websocket"):
        roomy = limited(app, AdaptiveLimit(), priority="x-priority")
        await roomy.ask(kind=kind)
        assert roomy.sent[0].get("status", 200) == 200
        crowded = full(app, AdaptiveLimit(initial=1), priority="x-priority")
        await crowded.ask(kind=kind)
        assert crowded.sent
        for stand in (roomy, crowded):
            assert len(stand.told(DefectFound)) <= 2
    assert reached, "the step was never taken"


# -- how full it is -------------------------------------------------------------------------------------------------------------------


def test_how_full_the_limit_is_stands_in_the_snapshot_and_in_the_metrics():
    """Under a name of its own, where guards are named; several middlewares together."""
    stand = full()
    resilience = stand.resilience
    assert resilience.snapshot().request_limit == LimitView(limit=1, active=1, waiting=0)
    other = ResilienceMiddleware(stand.app, resilience, limit=Bulkhead(4))
    assert resilience.snapshot().request_limit == LimitView(limit=5, active=1, waiting=0)
    rows = Reader(resilience).read().rows
    assert rows["somaresil_concurrency_limit"] == {(REQUESTS,): 5}
    assert rows["somaresil_concurrency"] == {(REQUESTS, "active"): 1, (REQUESTS, "waiting"): 0}
    assert other.limiter.limit == 4


def test_without_a_limit_there_is_none_to_show():
    """Not one of nothing."""
    assert Resilience("tests").snapshot().request_limit is None
