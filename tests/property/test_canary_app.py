"""A canary of apps judges each request as the middleware does, whatever app, server and client do."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from somaresil import SLO, ManualClock, Resilience, ResilienceMiddleware
from somaresil.canary_app import CanaryApp

STATUSES = st.sampled_from([200, 204, 404, 499, 500, 503])
HTTP = st.one_of(
    st.builds(lambda status: {"type": "http.response.start", "status": status, "headers": []}, STATUSES),
    st.builds(
        lambda body, more: {"type": "http.response.body", "body": body, "more_body": more}, st.sampled_from([b"", b"x"]), st.booleans()
    ),
    st.just({"type": "http.response.body", "body": b"x"}),
    st.just({"type": "http.response.pathsend", "path": "/x"}),
    st.just({"type": "http.response.trailers", "headers": []}),
)
SOCKET = st.one_of(
    st.just({"type": "websocket.accept"}),
    st.just({"type": "websocket.send", "text": "x"}),
    st.builds(lambda code: {"type": "websocket.close", "code": code}, st.sampled_from([1000, 1011, 4000])),
    st.builds(lambda status: {"type": "websocket.http.response.start", "status": status, "headers": []}, STATUSES),
)
WAITS = st.floats(min_value=0.0, max_value=3.0)
ENDS = st.sampled_from([None, LookupError, OSError, ConnectionResetError, asyncio.CancelledError, KeyError])


@st.composite
def stories(draw):
    """What one app does with one request: messages, waiting, reading, and how it ends; and when the server can no longer write."""
    kind = draw(st.sampled_from(["http", "http", "websocket"]))
    steps = draw(st.lists(st.one_of(HTTP if kind == "http" else SOCKET, WAITS, st.just("read")), max_size=6))
    leaves = (
        {"type": "http.disconnect"} if kind == "http" else {"type": "websocket.disconnect", "code": draw(st.sampled_from([1000, 1006]))}
    )
    return kind, steps, draw(ENDS), draw(st.one_of(st.none(), st.integers(0, 4))), leaves


def mount_of(candidate, wrap):
    """Objectives about answers, speed, first bytes, gaps and ends, and an app on a clock of its own."""
    clock = ManualClock()
    resilience = Resilience("test", environment="test", clock=clock, seed=1)
    days = timedelta(days=30)
    slos = {
        "up": SLO("up", 99.0, days),
        "fast": SLO("fast", 95.0, days, latency=1.0),
        "first": SLO("first", 95.0, days, first_item=1.0),
        "idle": SLO("idle", 95.0, days, idle=1.0),
        "whole": SLO("whole", 95.0, days, completion=True),
    }
    resilience.slos.add(*slos.values())
    return wrap(candidate(clock), resilience), resilience, clock


async def play(app, story):
    kind, _, _, broken_at, leaves = story
    said = 0
    first = {"type": "http.request", "body": b"", "more_body": False} if kind == "http" else {"type": "websocket.connect"}
    told = [first, leaves]

    async def receive():
        return told.pop(0) if told else leaves

    async def send(message):
        nonlocal said
        said += 1
        if broken_at is not None and said > broken_at:
            raise OSError

    scope = {"type": kind, "path": "/", "root_path": "", "headers": [], "extensions": {}}
    try:
        await app({**scope, "method": "GET"} if kind == "http" else scope, receive, send)
    except BaseException as error:
        return type(error), said
    return None, said


@given(stories(), st.sampled_from(["up", "fast", "first", "idle", "whole"]))
def test_each_request_counts_as_the_middleware_counts_it(story, name):
    """Good, bad, or nothing; and to app and server nothing is different from no canary at all."""
    _, steps, error, _, _ = story

    def candidate(clock):
        async def app(scope, receive, send):
            for step in steps:
                if isinstance(step, float):
                    clock.advance(step)
                elif step == "read":
                    await receive()
                else:
                    await send(dict(step))
            if error is not None:
                raise error

        return app

    async def go():
        bare = await play(candidate(ManualClock()), story)
        watched, resilience, _ = mount_of(candidate, lambda app, resilience: ResilienceMiddleware(app, resilience, slo=name))
        assert await play(watched, story) == bare

        def both(app, resilience):
            return CanaryApp(app, resilience, "gateway", candidate=app, version="2", bad=name, steps=[50, 100], interval=None)

        canary, _, _ = mount_of(candidate, both)
        assert await play(canary, story) == bare
        found = canary.controller.status().finding.counts
        counted = found.candidate_good + found.control_good, found.candidate_bad + found.control_bad
        assert counted == resilience.slos.counts(name, 3_600.0)

    asyncio.run(go())
