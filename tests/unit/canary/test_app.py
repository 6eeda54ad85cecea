"""Two ASGI apps behind one: who gets which, what counts, lifespans, the cookie, the control as fallback, and what is refused."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from somaresil import SLO, ChaosConfig, ConfigurationError, ResilienceMiddleware
from somaresil.canary_app import CanaryApp, CanaryCookie
from somaresil.events import CanaryEnded, DefectFound
from tests.unit.slo.kit import availability, process

OPTIONS = {"steps": [50, 100], "bake": 10.0, "minimum_events": 5, "interval": None, "version": "2"}
FAST = SLO("fast", 90.0, timedelta(days=1), latency=1.0)
START = {"type": "http.response.start", "status": 200, "headers": []}


def part(text=b"x", *, more=False):
    return {"type": "http.response.body", "body": text, "more_body": more}


def says(*messages, then=None):
    """Make an app that says this, and then returns or raises; "version" is its first body."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise NotImplementedError
        for message in messages:
            await send(dict(message))
        if then is not None:
            raise then

    return app


def answers(text, status=200):
    return says({**START, "status": status}, part(text))


OLD, NEW = answers(b"old"), answers(b"new")


class Stand:
    """A process with a canary of two apps, and a server that is a function call."""

    def __init__(self, candidate=NEW, *slos, control=OLD, events=None, around=None, **options):
        self.resilience, self.clock = process(*(slos or (availability(),)))
        self.events = []
        self.resilience.on(self.events.append)
        names = [slo.name for slo in slos] or ["up"]
        given = {**OPTIONS, "bad": names, "candidate": candidate, **options}
        self.canary = CanaryApp(control, self.resilience, "gateway", **given)
        self.controller = self.canary.controller
        self.app = self.canary if around is None else around(self.canary, self.resilience)
        self.sent = []

    async def ask(self, *received, kind="http", send=None, **scope):
        """Send one request; what was said, as the client gets it."""
        first = {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b"", "more_body": False}
        waiting = [*(received or [first])]
        full = {
            "type": kind,
            "path": "/",
            "root_path": "",
            "headers": [],
            "scheme": "http",
            "extensions": {},
            **({"method": "GET"} if kind == "http" else {}),
            **scope,
        }
        self.sent = sent = []
        self.scope = full

        async def receive():
            if waiting:
                return waiting.pop(0)
            return await asyncio.Event().wait()

        async def keep(message):
            if send is not None:
                await send(message)
            sent.append(message)

        await self.app(full, receive, keep)
        return sent

    def asks(self, times, **scope):
        """Send so many; the bodies, and None for those that raised."""

        async def go():
            bodies = []
            for _ in range(times):
                try:
                    bodies.append(b"".join(message.get("body", b"") for message in await self.ask(**scope)))
                except Exception:
                    bodies.append(None)
            return bodies

        return asyncio.run(go())

    @property
    def counts(self):
        found = self.controller.status().finding.counts
        return found.candidate_good, found.candidate_bad, found.control_good, found.control_bad

    def defects(self):
        return [event for event in self.events if isinstance(event, DefectFound)]


# -- who gets which -------------------------------------------------------------------------------------------------------------------


def test_half_of_the_requests_go_to_the_candidate_and_all_of_them_at_the_end():
    """Good ones are counted; once complete the candidate answers everything and nothing is counted."""
    stand = Stand()
    bodies = stand.asks(400)
    assert 150 < bodies.count(b"new") < 250
    assert stand.counts == (bodies.count(b"new"), 0, bodies.count(b"old"), 0)
    for _ in range(2):
        stand.asks(20)
        stand.clock.advance(10.0)
        stand.controller.evaluate()
    assert stand.controller.phase == "complete"
    before = stand.counts
    assert set(stand.asks(20)) == {b"new"}
    assert stand.counts == before


def test_the_kill_switch_works_at_the_next_request():
    """No request goes to the candidate after it."""
    stand = Stand()
    assert b"new" in stand.asks(50)
    stand.controller.roll_back("enough")
    assert set(stand.asks(50)) == {b"old"}


def test_without_a_version_the_control_gets_everything_until_something_is_started():
    """So a router can be up before there is a candidate."""
    stand = Stand(version=None)
    assert set(stand.asks(20)) == {b"old"}
    stand.controller.start("2")
    assert set(stand.asks(50)) == {b"old", b"new"}


@pytest.mark.parametrize(
    ("key", "headers"),
    [
        ("header:X-User", lambda user: [(b"x-user", user)]),
        ("cookie:session", lambda user: [(b"cookie", b"a=1; session=" + user + b"; b=2")]),
        (lambda scope: scope["headers"][0][1].decode(), lambda user: [(b"anything", user)]),
    ],
)
def test_a_user_keeps_to_his_app_and_stays_with_the_candidate_as_it_grows(key, headers):
    """By a header, a cookie of the app, or a function of the scope."""
    stand = Stand(key=key, steps=[20, 60, 100])
    users = [f"user {number}".encode() for number in range(200)]
    first = {user: stand.asks(1, headers=headers(user))[0] for user in users}
    assert first == {user: stand.asks(1, headers=headers(user))[0] for user in users}
    assert 15 < list(first.values()).count(b"new") < 70
    stand.controller.promote()
    second = {user: stand.asks(1, headers=headers(user))[0] for user in users}
    assert list(second.values()).count(b"new") > 90
    assert all(second[user] == b"new" for user in users if first[user] == b"new")
    # Nobody's requests are placed by chance.
    if isinstance(key, str):
        assert set(stand.asks(100)) == {b"old", b"new"}


def test_who_has_no_cookie_gets_one_and_keeps_to_it():
    """Once; something else of its name is replaced, and a request by https has a secure one."""
    stand = Stand(key=CanaryCookie())
    sent = asyncio.run(stand.ask())
    (name, value), body = sent[0]["headers"][-1], sent[1]["body"]
    assert name == b"set-cookie"
    found = re.fullmatch(rb"somaresil_canary=([0-9a-f]{16}); Path=/; SameSite=Lax; HttpOnly; Max-Age=604800", value)
    assert found
    mine = [(b"cookie", b"somaresil_canary=" + found[1])]
    for _ in range(20):
        again = asyncio.run(stand.ask(headers=mine))
        assert again[0]["headers"] == []
        assert again[1]["body"] == body
    for strange in (b"x" * 5_000, b"", b"01234567-89abcde", b"0123456789abcdef0"):
        sent = asyncio.run(stand.ask(headers=[(b"cookie", b"somaresil_canary=" + strange)], scheme="https"))
        assert sent[0]["headers"][-1][1].endswith(b"; Secure")
    assert not stand.defects()
    stand.controller.roll_back("enough")
    assert asyncio.run(stand.ask())[0]["headers"] == []


def test_a_conversation_gets_the_cookie_with_its_handshake():
    """As an answer does."""
    accepts = says({"type": "websocket.accept"}, {"type": "websocket.close"})
    stand = Stand(accepts, control=accepts, key=CanaryCookie())
    sent = asyncio.run(stand.ask(kind="websocket"))
    assert sent[0]["headers"][0][0] == b"set-cookie"


def test_a_key_that_cannot_be_read_is_the_controls():
    """And it is said, once."""
    stand = Stand(key=lambda scope: scope["nowhere"])
    assert set(stand.asks(50)) == {b"old"}
    assert [event.where for event in stand.defects()] == ["canary gateway, placing a request"]


# -- what counts ----------------------------------------------------------------------------------------------------------------------

BROKEN = {
    "a status": answers(b"new", 503),
    "an exception": says(then=LookupError()),
    "an exception in the middle": says(START, part(more=True), then=ConnectionError()),
    "a truncated stream": says(START, part(more=True)),
    "nothing": says(),
}


@pytest.mark.parametrize("candidate", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("key", [None, CanaryCookie()])
def test_a_broken_candidate_is_gone_within_a_few_requests(candidate, key):
    """Whatever is broken about it; the control serves from then on."""
    stand = Stand(candidate, key=key)
    bodies = stand.asks(300)
    assert 1 <= sum(body != b"old" for body in bodies) <= 12
    assert stand.controller.phase == "rollback"
    good, bad, _, control_bad = stand.counts
    assert (good, control_bad) == (0, 0)
    assert bad == sum(body != b"old" for body in bodies)


def test_what_takes_too_long_is_bad_and_a_404_is_not():
    """By the objective about latency."""

    def takes(seconds, clock, status=200):
        async def app(scope, receive, send):
            clock[0].advance(seconds)
            await answers(b"x", status)(scope, receive, send)

        return app

    clock = []
    stand = Stand(takes(1.1, clock), FAST, control=takes(0.9, clock, 404), allowed=None)
    clock.append(stand.clock)
    stand.asks(100)
    assert stand.controller.phase == "rollback"
    good, _, _, control_bad = stand.counts
    assert (good, control_bad) == (0, 0)


def test_late_first_bytes_gaps_and_truncated_streams_are_bad_by_objectives_about_streams():
    """An answer in one piece is no stream, so it says nothing about completion."""

    def streams(clock, first, gap, *, whole=True):
        async def app(scope, receive, send):
            await send(START)
            clock[0].advance(first)
            await send(part(more=True))
            clock[0].advance(gap)
            await send(part(more=True))
            if whole:
                await send(part(b""))

        return app

    slos = {
        "first": SLO("first", 95.0, timedelta(days=1), first_item=0.5),
        "idle": SLO("idle", 95.0, timedelta(days=1), idle=0.5),
        "whole": SLO("whole", 95.0, timedelta(days=1), completion=True),
    }
    wrong = {"first": (0.6, 0.1, True), "idle": (0.1, 0.6, True), "whole": (0.1, 0.1, False)}
    for name, (first, gap, whole) in wrong.items():
        clock = []
        stand = Stand(streams(clock, first, gap, whole=whole), slos[name], control=streams(clock, 0.1, 0.1))
        clock.append(stand.clock)
        stand.asks(100)
        assert stand.controller.phase == "rollback", name
        good, _, control_good, control_bad = stand.counts
        assert (good, control_bad) == (0, 0)
        assert control_good > 0
    stand = Stand(NEW, slos["whole"])
    stand.asks(20)
    assert stand.counts == (0, 0, 0, 0)


def test_predicates_see_the_exchange():
    """A failed evaluation counts as anywhere."""
    judged = SLO("useful", 90.0, timedelta(days=1), good_when=lambda exchange, error, elapsed: exchange.response_header("x-score") != "0")
    bad = says({**START, "headers": [(b"x-score", b"0")]}, part())
    stand = Stand(bad, judged)
    stand.asks(100)
    assert stand.controller.phase == "rollback"
    assert stand.counts[3] == 0


@pytest.mark.parametrize("way", ["disconnect", "send fails", "cancelled"])
def test_a_client_that_leaves_says_nothing(way):
    """Neither about the one nor the other."""

    async def app(scope, receive, send):
        await send(START)
        await send(part(more=True))
        if way == "disconnect":
            await receive()
            await receive()
            return
        if way == "cancelled":
            raise asyncio.CancelledError
        await send(part(more=True))

    sends = 0

    async def broken(message):
        nonlocal sends
        sends += 1
        if way == "send fails" and not sends % 3:
            raise OSError

    stand = Stand(app, control=app)

    async def go():
        for _ in range(20):
            request = {"type": "http.request", "body": b"", "more_body": False}
            with suppress(OSError, asyncio.CancelledError):
                await stand.ask(request, {"type": "http.disconnect"}, send=broken)

    asyncio.run(go())
    assert stand.counts == (0, 0, 0, 0)


def test_what_misses_its_deadline_is_bad():
    """The middleware outside cancels it, and that is no client who has left."""

    async def hangs(scope, receive, send):
        await asyncio.Event().wait()

    stand = Stand(hangs, steps=[99, 100], around=lambda app, resilience: ResilienceMiddleware(app, resilience, deadline=0.02))

    async def go():
        asking = asyncio.ensure_future(stand.ask())
        await asyncio.sleep(0)
        stand.clock.advance(0.03)
        return await asking

    for _ in range(3):
        assert asyncio.run(go())[0]["status"] in {200, 504}
    assert stand.counts[1] > 0


def test_conversations_count_as_the_middleware_counts_them():
    """A handshake that fails is bad; one that was talked to its end is good."""
    good = says({"type": "websocket.accept"}, {"type": "websocket.close"})
    stand = Stand(says(then=LookupError()), control=good)
    stand.asks(100, kind="websocket")
    assert stand.controller.phase == "rollback"
    assert stand.counts[0] == stand.counts[3] == 0
    # How long it lasts says nothing about speed.
    stand = Stand(good, FAST, control=good)
    stand.asks(20, kind="websocket")
    assert stand.counts == (0, 0, 0, 0)


# -- the middleware, and experiments --------------------------------------------------------------------------------------------------


def inside(app, resilience):
    return ResilienceMiddleware(app, resilience, slo="up")


def test_the_middleware_counts_around_it_and_inside_it():
    """Routes have their names either way, and both count the same."""

    async def item(request):
        return PlainTextResponse("item")

    async def fails(request):
        return PlainTextResponse("no", status_code=500)

    def build(endpoint):
        return Starlette(routes=[Route("/items/{id}", endpoint)])

    outside = Stand(build(fails), control=build(item), around=inside, steps=[50, 100])
    outside.asks(100, path="/items/1")
    routes = outside.resilience.snapshot().routes
    assert set(routes) == {"/items/{id}"}
    assert (routes["/items/{id}"].total("bad"), routes["/items/{id}"].total("good")) == (outside.counts[1], 100 - outside.counts[1])
    assert outside.counts[1] > 0
    resilience, _ = process(availability())
    canary = CanaryApp(
        inside(build(item), resilience), resilience, "gateway", bad="up", candidate=inside(build(fails), resilience), **OPTIONS
    )
    stand = outside
    stand.app, stand.controller = canary, canary.controller
    stand.asks(100, path="/items/1")
    assert resilience.snapshot().routes["/items/{id}"].total("bad") == stand.counts[1] > 0


@pytest.mark.parametrize("mount", ["outside", "inside"])
@pytest.mark.parametrize("fault", ["error", "latency"])
def test_injected_faults_are_no_evidence(monkeypatch, mount, fault):
    """Wherever the middleware is; when the experiment has ended requests are evidence again."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", "off")
    if mount == "outside":
        stand = Stand(answers(b"new", 500), around=inside)
    else:
        stand = Stand(answers(b"new", 500))
        stand.canary._sides = tuple(inside(app, stand.resilience) for app in stand.canary._sides)
    stand.resilience.chaos.opt_in()
    run = stand.resilience.chaos.arm(ChaosConfig(fault, "http:*", 0.5, 60.0, **({"delay_seconds": 0.1} if fault == "latency" else {})))
    stand.asks(50)
    assert run.injected > 0
    assert stand.counts == (0, 0, 0, 0)
    stand.resilience.chaos.stop_all()
    stand.asks(50)
    assert stand.controller.phase == "rollback"


def test_an_answer_that_is_marked_as_injected_is_no_evidence():
    """It comes from the middleware of an app that has a process of its own to speak of."""
    marked = says({**START, "status": 500, "headers": [(b"x-somaresil-chaos", b"1")]}, part())
    stand = Stand(marked)
    stand.asks(50)
    assert stand.counts[:2] == (0, 0)
    assert stand.counts[2] > 0


# -- fallback -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("candidate", [BROKEN["a status"], BROKEN["an exception"], BROKEN["nothing"]])
def test_with_fallback_the_control_answers_for_a_candidate_that_failed(candidate):
    """The client notices nothing, the failure counts, and only for the methods that were declared."""
    stand = Stand(candidate, mode="fallback")
    assert set(stand.asks(100)) == {b"old"}
    assert stand.controller.phase == "rollback"
    stand = Stand(candidate, mode="fallback")
    assert set(stand.asks(50, method="POST")) != {b"old"}


def test_the_control_hears_the_body_again_and_sees_the_scope_as_it_was():
    """Also when the candidate has read all of it; a body that is too long is not kept, and its failure goes out."""

    async def reads(scope, receive, send):
        scope["route"] = "changed"
        while (await receive()).get("more_body"):
            pass
        raise LookupError

    async def echoes(scope, receive, send):
        assert "route" not in scope
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        await send(START)
        await send(part(body))

    stand = Stand(reads, control=echoes, mode="fallback", idempotent=["PUT"], steps=[99, 100])

    async def go(size):
        pieces = [{"type": "http.request", "body": b"y" * size, "more_body": more} for more in (True, False)]
        sent = await stand.ask(*pieces, method="PUT")
        return sent[1]["body"]

    assert asyncio.run(go(30_000)) == b"y" * 60_000
    assert stand.counts[1] == 1
    with pytest.raises(LookupError):
        asyncio.run(go(40_000))


def test_what_has_begun_is_not_answered_twice():
    """A stream that breaks off stays broken off."""
    stand = Stand(BROKEN["an exception in the middle"], mode="fallback", steps=[99, 100])
    with pytest.raises(ConnectionError):
        asyncio.run(stand.ask())
    assert [message["type"] for message in stand.sent] == ["http.response.start", "http.response.body"]
    assert stand.counts[1] == 1


# -- lifespan -------------------------------------------------------------------------------------------------------------------------


class Server:
    """What a server does at its beginning and end."""

    def __init__(self, app):
        self.app, self.said, self.state = app, [], {}
        self._told, self._heard = asyncio.Queue(), asyncio.Queue()

    async def say(self, what):
        """Tell it, and wait until it answers or ends."""
        self._told.put_nowait({"type": f"lifespan.{what}"})
        heard = asyncio.ensure_future(self._heard.get())
        await asyncio.wait([heard, self.task], return_when=asyncio.FIRST_COMPLETED)
        heard.cancel()

    async def __aenter__(self):
        async def send(message):
            self.said.append(message["type"])
            self._heard.put_nowait(message)

        self.task = asyncio.ensure_future(self.app({"type": "lifespan", "state": self.state}, self._told.get, send))
        await self.say("startup")
        return self

    async def __aexit__(self, *_):
        if not self.task.done():
            await self.say("shutdown")
        await asyncio.gather(self.task, return_exceptions=True)


def living(name, seen, *, refuses=False, hangs=False):
    @asynccontextmanager
    async def lifespan(app):
        if refuses:
            raise LookupError(f"{name} has no database")
        if hangs:
            await asyncio.Event().wait()
        seen.append(f"{name} started")
        yield {"name": name}
        seen.append(f"{name} ended")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    async def root():
        return "nothing"

    async def state(request):
        return PlainTextResponse(request.state.name)

    app.add_route("/state", state)
    return app


def test_both_apps_start_and_end_each_with_a_state_of_its_own():
    """Two versions call other things by the same name."""
    seen = []
    stand = Stand(living("new", seen), control=living("old", seen))

    async def go():
        async with Server(stand.canary) as server:
            assert sorted(seen) == ["new started", "old started"]
            found = {(await stand.ask(path="/state", state=dict(server.state)))[1]["body"] for _ in range(40)}
        return found, server.said

    found, said = asyncio.run(go())
    assert found == {b"old", b"new"}
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert sorted(seen[2:]) == ["new ended", "old ended"]
    assert not stand.defects()


@pytest.mark.parametrize("how", [{"refuses": True}, {"hangs": True}])
def test_a_candidate_that_does_not_start_is_out_and_the_control_serves(how):
    """It is rolled back with the reason, and a version that is started later gets nothing here."""
    seen = []
    stand = Stand(living("new", seen, **how), control=living("old", seen), start_timeout=0.05)

    async def go():
        async with Server(stand.canary) as server:
            stand.controller.start("3")
            found = {(await stand.ask(path="/state"))[1]["body"] for _ in range(40)}
        return found, server.said

    found, said = asyncio.run(go())
    assert found == {b"old"}
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert seen == ["old started", "old ended"]
    (ended,) = [event for event in stand.events if isinstance(event, CanaryEnded) and event.outcome == "rollback"]
    assert ended.reason.startswith("the candidate did not start: ")
    assert ("new has no database" if "refuses" in how else "within 0.05 s") in ended.reason
    assert len(stand.defects()) == 1
    assert stand.counts == (0, 0, 0, 0)


def test_a_control_that_does_not_start_stops_the_server():
    """As without a canary, and the candidate is ended."""
    seen = []
    stand = Stand(living("new", seen), control=living("old", seen, refuses=True))

    async def go():
        async with Server(stand.canary) as server:
            pass
        return server

    server = asyncio.run(go())
    assert server.said == ["lifespan.startup.failed"]
    assert isinstance(server.task.exception(), LookupError)
    assert seen == ["new started", "new ended"]


def test_apps_that_know_no_lifespan_are_served_all_the_same():
    """One of them, or both: then the server hears of it as it would from one app."""
    seen = []
    for candidate, control, said in (
        (NEW, living("old", seen), ["lifespan.startup.complete", "lifespan.shutdown.complete"]),
        (living("new", seen), OLD, ["lifespan.startup.complete", "lifespan.shutdown.complete"]),
        (NEW, OLD, []),
    ):
        stand = Stand(candidate, control=control)

        async def go(app=stand.canary):
            async with Server(app) as server:
                pass
            return server

        server = asyncio.run(go())
        assert server.said == said
        assert not stand.defects()
        assert stand.controller.phase == "ramp_50"
        assert (server.task.exception() is None) is bool(said)


# -- what is refused ------------------------------------------------------------------------------------------------------------------


def test_everything_wrong_is_said_at_once():
    """With the paths of what is wrong."""
    with pytest.raises(ConfigurationError) as caught:
        Stand(candidate=None, key="user", mode="mirror", idempotent="GET", steps=[50, 10], minimum_event=3)
    found = {problem.path.partition(".")[2] for problem in caught.value.problems}
    assert found >= {"candidate", "key", "mode", "idempotent", "steps[1]", "minimum_event"}
    with pytest.raises(ConfigurationError):
        Stand(bad="nothing")
    with pytest.raises(ConfigurationError):
        Stand(key=CanaryCookie(), mode="shadow")


@pytest.mark.parametrize(
    "wrong", [{"name": "a b"}, {"name": ""}, {"name": "a=b"}, {"path": "a"}, {"path": "/;x"}, {"same_site": "any"}, {"max_age": 0}]
)
def test_a_cookie_that_is_none_is_refused(wrong):
    """It is a header of every first answer."""
    with pytest.raises(ConfigurationError):
        CanaryCookie(**wrong)
    with pytest.raises(ConfigurationError):
        CanaryCookie(same_site="none", secure=False)


def test_streams_pass_through_piece_by_piece():
    """Nothing is held back or changed."""

    async def stream(request):
        async def pieces():
            for number in range(5):
                yield f"data: {number}\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/", stream)])
    stand = Stand(app, control=app)
    sent = asyncio.run(stand.ask())
    assert [message.get("body") for message in sent[1:]] == [
        b"data: 0\n\n",
        b"data: 1\n\n",
        b"data: 2\n\n",
        b"data: 3\n\n",
        b"data: 4\n\n",
        b"",
    ]


# -- shadow ---------------------------------------------------------------------------------------------------------------------------


def shadow(candidate, *slos, **options):
    return Stand(candidate, *slos, mode="shadow", **options)


def asked_in_turn(stand, times, **scope):
    """Send so many, and let those that nobody waits for end in between."""

    async def go():
        bodies = []
        for _ in range(times):
            sent = await stand.ask(**scope)
            bodies.append(sent[1]["body"])
            for _ in range(5):
                await asyncio.sleep(0)
        return bodies

    return asyncio.run(go())


@pytest.mark.parametrize("candidate", BROKEN.values(), ids=BROKEN)
def test_a_shadow_never_answers_and_is_rolled_back_for_what_it_does(candidate):
    """Its pairs are bad on its side alone."""
    stand = shadow(candidate)
    assert set(asked_in_turn(stand, 100)) == {b"old"}
    assert stand.controller.phase == "rollback"
    assert stand.counts[3] == 0
    assert not stand.defects()


def test_a_shadow_that_does_well_completes():
    """Pairs of good answers are counted on both sides."""
    stand = shadow(NEW)
    for _ in range(2):
        asked_in_turn(stand, 40)
        stand.clock.advance(10.0)
        stand.controller.evaluate()
    assert stand.controller.phase == "complete"
    good, bad, control_good, control_bad = stand.counts
    assert good == control_good > 10
    assert bad == control_bad == 0
    # Nobody knows what it does with a POST.
    assert set(asked_in_turn(stand, 5)) == {b"old"}


def test_a_shadow_is_asked_only_what_has_no_effect():
    """GET and HEAD without a body, and no conversation."""
    asked = []

    async def new(scope, receive, send):
        asked.append((scope["method"], await receive()))
        await NEW(scope, receive, send)

    stand = shadow(new, steps=[99.9, 100])
    for scope in ({"method": "POST"}, {"headers": [(b"content-length", b"3")]}, {"headers": [(b"transfer-encoding", b"chunked")]}):
        asked_in_turn(stand, 10, **scope)
    assert asked == []
    asked_in_turn(stand, 1, method="HEAD", headers=[(b"content-length", b"0")])
    assert asked == [("HEAD", {"type": "http.request", "body": b"", "more_body": False})]
    accepts = says({"type": "websocket.accept"}, {"type": "websocket.close"})
    stand = shadow(accepts, control=accepts)
    asyncio.run(stand.ask(kind="websocket"))
    assert stand.counts == (0, 0, 0, 0)


def test_shadows_are_few_and_do_not_last():
    """One that hangs is bad after its time; while so many hang no other is asked."""
    asked = []

    async def hangs(scope, receive, send):
        asked.append(scope["path"])
        await receive()
        await receive()

    whole = SLO("whole", 95.0, timedelta(days=1), completion=True)
    stand = shadow(hangs, whole, shadow_limit=2, shadow_timeout=0.02, steps=[99.9, 100], control=says(START, part(more=True), part()))

    async def go():
        for _ in range(10):
            assert (await stand.ask())[1]["body"] == b"x"
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert len(asked) == 2
        while stand.counts[1] < 2:
            await asyncio.sleep(0.005)

    asyncio.run(go())
    assert stand.counts == (0, 2, 2, 0)


def test_what_was_bad_on_both_sides_is_no_evidence():
    """It hangs together; and a control that raises, raises."""
    stand = shadow(BROKEN["a status"], control=BROKEN["an exception"], allowed=None)
    assert set(stand.asks(50)) == {None}

    async def settle():
        with suppress(LookupError):
            await stand.ask()
        await asyncio.sleep(0)

    for _ in range(20):
        asyncio.run(settle())
    assert stand.controller.phase == "ramp_50"
    assert stand.controller.status().finding.worse == 1.0


def test_the_shadow_sees_the_request_as_it_came():
    """Whatever the control has left in its scope."""
    seen = []

    async def old(scope, receive, send):
        scope["path"] = "/changed"
        scope["headers"].clear()
        await OLD(scope, receive, send)

    async def new(scope, receive, send):
        seen.append((scope["path"], scope["headers"]))
        await NEW(scope, receive, send)

    stand = shadow(new, control=old, steps=[99.9, 100])
    asked_in_turn(stand, 1, headers=[(b"accept", b"*/*")])
    assert seen == [("/", [(b"accept", b"*/*")])]


# -- our own defects ------------------------------------------------------------------------------------------------------------------

STEPS = {
    "draw": lambda stand: (stand.controller, "draw"),
    "place": lambda stand: (stand.controller, "place"),
    "given": lambda stand: (stand.canary, "_given"),
    "count": lambda stand: (stand.canary, "count"),
    "verdicts": lambda stand: (stand.canary._probes, "verdicts"),
    "monotonic": lambda stand: (stand.canary, "monotonic"),
    "injected": lambda stand: (stand.canary, "_injected"),
    "pair": lambda stand: (stand.canary, "_pair"),
    "wants": lambda stand: (stand.canary._shadows, "wants"),
    "ask": lambda stand: (stand.canary._shadows, "_ask"),
    "both": lambda stand: (stand.controller, "both_ended"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_step_of_ours_that_fails_is_not_noticed(step, kind):
    """The client gets the answer of one of the apps, whole, and we say once that something is wrong."""
    reached = []

    def planted(*args, **kwargs):
        reached.append(True)
        raise RuntimeError("planted")

    talks = says({"type": "websocket.accept"}, {"type": "websocket.close"})
    apps = {"http": answers(b"old", 500), "websocket": talks}
    whole = SLO("whole", 95.0, timedelta(days=1), completion=True)
    for more in ({"key": CanaryCookie()}, {"mode": "shadow"}, {"mode": "fallback"}):
        stand = Stand(apps[kind], availability(), whole, control=apps[kind], **more)
        owner, name = STEPS[step](stand)
        if owner is not None:
            setattr(owner, name, planted)
        for _ in range(20):

            async def go(stand=stand):
                sent = await stand.ask(kind=kind)
                for _ in range(3):
                    await asyncio.sleep(0)
                return sent

            said = [message["type"] for message in asyncio.run(go())]
            assert said == (
                ["websocket.accept", "websocket.close"] if kind == "websocket" else ["http.response.start", "http.response.body"]
            )
        assert len(stand.defects()) <= 2
    assert reached or kind == "websocket"
