"""Two ASGI apps behind one, where it is rare: lifespans that go wrong, keys of other kinds, and what is neither good nor bad."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse

from somaresil.canary_app import CanaryCookie
from somaresil.canary_app.keys import _cookie_of
from somaresil.errors import InjectedFault
from somaresil.events import DefectFound
from tests.unit.canary.test_app import NEW, OLD, START, Server, Stand, answers, living, part, says, shadow


async def _lived(stand, then=None):
    async with Server(stand.canary) as server:
        if then is not None:
            await then(server)
    return server


def lived(stand, then=None):
    """Start and end it as a server would; the server."""
    return asyncio.run(_lived(stand, then))


def with_lifespan(app, *, startup="complete", shutdown="complete"):
    """The same app with a lifespan that says this, or nothing (None), or hangs (...)."""

    async def whole(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        for step, said in (("startup", startup), ("shutdown", shutdown)):
            await receive()
            if said is None:
                return
            if said is ...:
                await asyncio.Event().wait()
            await send({"type": f"lifespan.{step}.{said}", "message": "no database"})
            if said == "failed":
                return

    return whole


# -- lifespan -------------------------------------------------------------------------------------------------------------------------


def test_a_control_that_says_it_cannot_start_is_believed():
    """Without an exception of its own there is none; the candidate is ended."""
    seen = []
    server = lived(Stand(living("new", seen), control=with_lifespan(OLD, startup="failed")))
    assert server.said == ["lifespan.startup.failed"]
    assert server.task.exception() is None
    assert seen == ["new started", "new ended"]


def test_apps_that_end_without_a_word_are_apps_without_a_lifespan():
    """The server hears nothing, as from each of them."""
    stand = Stand(with_lifespan(NEW, startup=None), control=with_lifespan(OLD, startup=None))
    server = lived(stand)
    assert server.said == []
    assert server.task.exception() is None


def test_a_control_that_cannot_end_says_so_to_the_server():
    """With its own words."""
    server = lived(Stand(with_lifespan(NEW), control=with_lifespan(OLD, shutdown="failed")))
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


def test_an_app_that_was_gone_before_its_end_has_not_ended_well():
    """Nobody knows what it left behind."""
    server = lived(Stand(with_lifespan(NEW), control=with_lifespan(OLD, shutdown=None)))
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


@pytest.mark.parametrize(("shutdown", "why"), [("failed", "no database"), (..., "did not end within 0.05 s"), (None, "no longer there")])
def test_a_candidate_that_cannot_end_is_reported_and_keeps_nobody(shutdown, why, caplog):
    """The control ends as it would alone."""
    stand = Stand(with_lifespan(NEW, shutdown=shutdown), control=with_lifespan(OLD), start_timeout=0.05)
    server = lived(stand)
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    (defect,) = stand.defects()
    assert "ending the candidate" in defect.where
    assert why in caplog.text


def test_a_candidate_that_was_rolled_back_before_is_not_started():
    """In another process, or before the server was ready; that is no defect."""
    seen = []
    stand = Stand(living("new", seen), control=living("old", seen))
    stand.controller.roll_back("somebody saw it")
    server = lived(stand)
    assert server.said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert seen == ["old started", "old ended"]
    assert not stand.defects()


def test_a_candidate_without_a_version_that_does_not_start_is_reported():
    """There is nothing to roll back."""
    stand = Stand(with_lifespan(NEW, startup="failed"), control=with_lifespan(OLD), version=None)
    lived(stand)
    (defect,) = stand.defects()
    assert "starting the candidate" in defect.where
    assert not stand.controller.phase


def naming(name, seen, *, fails=False):
    """An app that notes whose state it was asked with."""

    @asynccontextmanager
    async def lifespan(app):
        yield {"name": name}

    app = FastAPI(lifespan=lifespan)

    async def state(request):
        seen.append((name, request.state.name))
        return PlainTextResponse("x", 500 if fails else 200)

    app.add_route("/state", state)
    return app


@pytest.mark.parametrize("mode", ["fallback", "shadow"])
def test_whoever_is_asked_second_has_a_state_of_its_own_too(mode):
    """The control after a candidate that failed, and the candidate after the control."""
    seen = []
    stand = Stand(naming("new", seen, fails=mode == "fallback"), control=naming("old", seen), mode=mode, steps=[99.9, 100])

    async def ask(server):
        await stand.ask(path="/state", state=dict(server.state))
        for _ in range(20):
            await asyncio.sleep(0)

    lived(stand, ask)
    assert seen == ([("new", "new"), ("old", "old")] if mode == "fallback" else [("old", "old"), ("new", "new")])


def test_shadows_under_way_end_with_the_process_and_say_nothing():
    """Nobody waits for them."""
    ended = []

    async def hangs(scope, receive, send):
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(scope["path"])

    stand = shadow(with_lifespan(hangs), control=with_lifespan(OLD), steps=[99.9, 100])

    async def ask(server):
        await stand.ask()
        for _ in range(5):
            await asyncio.sleep(0)
        assert ended == []

    lived(stand, ask)
    assert ended == ["/"]
    assert stand.counts == (0, 0, 0, 0)


# -- keys -----------------------------------------------------------------------------------------------------------------------------


def test_a_key_of_another_kind_keeps_its_user_too():
    """What a function of the scope gives is taken as text."""
    stand = Stand(key=lambda scope: scope["user"])
    assert all(len(set(stand.asks(10, user=number))) == 1 for number in range(20))
    assert {stand.asks(1, user=number)[0] for number in range(40)} == {b"old", b"new"}


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([(b"cookie", b"xsoma=1; soma=2")], b"2"),
        ([(b"cookie", b"xsoma=1")], None),
        ([(b"accept", b"soma=1"), (b"cookie", b"a=b"), (b"cookie", b"soma=3;c=d")], b"3"),
        ([(b"cookie", b"soma=")], b""),
    ],
)
def test_a_cookie_is_not_the_end_of_the_name_of_another(headers, found):
    """And HTTP/2 may bring several."""
    assert _cookie_of({"headers": headers}, b"soma=") == found


def test_a_cookie_lasts_as_long_as_it_is_told_to():
    """Or as long as the browser."""
    assert b"Max-Age=60" in CanaryCookie(max_age=60).header("t", encrypted=False)[1]
    assert b"Max-Age" not in CanaryCookie(max_age=None).header("t", encrypted=False)[1]


def test_a_cookie_that_cannot_be_given_costs_the_cookie_alone():
    """Headers that are none go out as the app said them."""
    broken = says({**START, "headers": 7}, part(b"x"))
    stand = Stand(broken, control=broken, key=CanaryCookie())
    assert stand.asks(3) == [b"x"] * 3
    assert any("giving a cookie" in defect.where for defect in stand.defects())


# -- what is neither good nor bad -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_injected_fault_that_comes_out_of_the_candidate_is_no_evidence(wrapped):
    """Also as the cause of what it raises."""
    fault = InjectedFault("error", "llm")
    broken = LookupError("x")
    broken.__cause__ = fault
    stand = Stand(says(then=broken if wrapped else fault))
    assert None in stand.asks(50)
    assert stand.counts[:2] == (0, 0)
    assert stand.controller.phase == "ramp_50"


def test_a_failure_with_too_many_causes_is_the_candidates_own():
    """They are followed so far and no further."""
    error = LookupError("0")
    for number in range(100):
        above = LookupError(str(number))
        above.__cause__ = error
        error = above
    stand = Stand(says(then=error))
    stand.asks(50)
    assert stand.controller.phase == "rollback"


def test_with_fallback_a_request_that_is_given_up_says_nothing():
    """The cancellation goes on, and the control is not asked."""
    asked = []

    async def hangs(scope, receive, send):
        asked.append("new")
        await asyncio.Event().wait()

    async def old(scope, receive, send):
        asked.append("old")

    stand = Stand(hangs, control=old, mode="fallback", steps=[99.9, 100])

    async def go():
        task = asyncio.ensure_future(stand.ask())
        while not asked:
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(go())
    assert asked == ["new"]
    assert stand.counts == (0, 0, 0, 0)


def test_with_fallback_a_stream_that_ends_well_is_the_candidates():
    """What has begun is its answer, whatever comes."""
    stand = Stand(says(START, part(b"a", more=True), part(b"b")), mode="fallback", steps=[99.9, 100])
    assert stand.asks(3) == [b"ab"] * 3
    assert stand.counts[0] == 3


@pytest.mark.parametrize("candidate", [NEW, answers(b"new", 500)])
def test_what_could_not_be_sent_to_its_end_is_not_counted_as_sent(candidate):
    """The last piece was refused on its way out by something of ours: the error goes up as it is."""

    async def refuses(message):
        if message["type"] == "http.response.body":
            raise RuntimeError("cut")

    stand = Stand(candidate, steps=[99.9, 100])
    with pytest.raises(RuntimeError, match="cut"):
        asyncio.run(stand.ask(send=refuses))
    assert stand.counts[0] == 0
    assert stand.counts[1] == 1


def test_a_message_that_is_none_goes_on_as_it_is_and_is_reported():
    """The server decides what it makes of it."""
    stand = Stand(says({"status": 200}), control=says({"status": 200}))
    asyncio.run(stand.ask())
    assert stand.sent == [{"status": 200}]
    (defect,) = stand.defects()
    assert "reading a sent message" in defect.where


def test_a_listener_that_fails_while_a_defect_is_told_fails_nobody(monkeypatch):
    """There is nobody left to tell."""
    stand = Stand(says({"status": 200}), control=says({"status": 200}))

    def broken(*_):
        raise RuntimeError("a filter")

    monkeypatch.setattr(stand.resilience.listeners, "defect", broken)
    asyncio.run(stand.ask())
    assert stand.sent == [{"status": 200}]
    assert not [event for event in stand.events if isinstance(event, DefectFound)]


def test_a_shadow_that_cannot_be_begun_changes_nothing(monkeypatch):
    """The client has his answer."""
    stand = shadow(NEW, steps=[99.9, 100])

    def broken(*_, **__):
        raise RuntimeError("planted")

    monkeypatch.setattr(stand.canary._shadows, "_run", broken)
    assert stand.asks(2) == [b"old"] * 2
    (defect,) = stand.defects()
    assert "asking the candidate too" in defect.where
