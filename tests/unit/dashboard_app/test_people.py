"""Who may look, who may do something, and what nobody finds out."""

from __future__ import annotations

import base64

import pytest

from somaresil import ConfigurationError, Resilience
from somaresil.dashboard import UNSAFE_OPEN, BearerToken
from somaresil.events import DefectFound
from tests.unit.dashboard_app.kit import ALICE, BOB, KNOWN, PLANS, Stand

EVE = {"authorization": "Bearer eve-0123456789-abcdefghijklmnopqr"}
AS_BOB = {"authorization": f"Bearer {BOB}"}
PATHS = ("", "/", "/plain", "/static/app.js", "/api/picture", "/api/stream", "/api/session", "/api/openapi.json", "/nothing", "/api/stop")


def test_there_is_none_without_an_authenticator_and_the_refusal_names_the_other_way():
    with pytest.raises(ConfigurationError) as refused:
        Resilience("tests").dashboard(auth=None)
    assert [found.path for found in refused.value.problems] == ["dashboard.auth"]
    assert "UNSAFE_OPEN" in str(refused.value)


def test_it_does_not_go_without_saying():
    with pytest.raises(TypeError, match="auth"):
        Resilience("tests").dashboard()


def _no_scope():
    return "ops"


def _generates(scope):
    yield "ops"


async def _generates_async(scope):
    yield "ops"


@pytest.mark.parametrize("auth", ["secret", 7, True, BearerToken, _no_scope, _generates, _generates_async, lambda one, two: "ops"])
def test_an_authenticator_that_cannot_apply_is_refused_at_the_start(auth):
    """Found out later, it would have let nobody in, or everybody."""
    with pytest.raises(ConfigurationError) as refused:
        Resilience("tests").dashboard(auth=auth)
    assert [found.path for found in refused.value.problems] == ["dashboard.auth"]


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigurationError) as refused:
        Resilience("tests").dashboard(
            auth=UNSAFE_OPEN,
            operators=UNSAFE_OPEN,
            challenge="basic",
            controls=["breakers"],
            plans={"": PLANS["slow model"], "empty": 7},
            errors=7,
            secret="short",
            workers=7,
            most_viewers=0,
            at="soma",
            origins=["*"],
        )
    paths = [found.path.removeprefix("dashboard.") for found in refused.value.problems]
    expected = [
        "operators",
        "challenge",
        "controls",
        "plans",
        "plans['empty']",
        "errors",
        "secret",
        "workers",
        "most_viewers",
        "at",
        "origins",
    ]
    assert paths == expected
    assert "did you mean 'breaker'" in str(refused.value)
    assert "short" not in str(refused.value).replace("shortest", "")


def test_who_can_do_something_can_stop_it():
    with pytest.raises(ConfigurationError, match="stop among them"):
        Resilience("tests").dashboard(auth=BearerToken(ALICE), controls=["experiment"])


@pytest.mark.asyncio
async def test_the_unknown_get_the_same_for_everything(stand):
    seen = set()
    for path in PATHS:
        for headers in ({}, EVE, {"authorization": "Basic eve"}, {"accept": "text/html"}, {"cookie": "session=forged"}):
            for method in ("GET", "POST", "HEAD", "OPTIONS", "DELETE"):
                # Each from an address of its own, so that none is refused for its many failures, which looks the same anyway.
                answer = await stand.ask(method, path, known=False, headers=headers, client=(f"10.0.{len(path)}.{len(method)}", 1))
                seen.add((answer.status_code, tuple(sorted(answer.headers.items())), answer.content if method != "HEAD" else b"Not Found"))
    assert len(seen) == 1
    assert next(iter(seen))[0] == 404
    assert stand.app.denied == len(PATHS) * 5 * 5


@pytest.mark.asyncio
async def test_who_fails_too_often_is_not_asked_any_more():
    asked = []

    def auth(scope):
        asked.append(scope)
        return "alice" if (b"x-user", b"alice") in scope["headers"] else None

    stand = Stand(auth=auth)
    asked.clear()
    for _ in range(30):
        await stand.get("/api/picture", known=False)
    assert len(asked) == 20
    assert stand.app.denied == 30
    assert (await stand.get("/api/picture", known=False, headers={"x-user": "alice"})).status_code == 404
    stand.clock.advance(2.0)
    assert (await stand.get("/api/picture", known=False, headers={"x-user": "alice"})).status_code == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("said", [True, 7, "", " alice", "a\nb", ["alice"], "x" * 200])
async def test_an_authenticator_that_says_something_strange_has_let_nobody_in(said):
    stand = Stand(auth=lambda scope: said if (b"authorization", KNOWN["authorization"].encode()) in scope["headers"] else None)
    assert (await stand.get("/api/picture")).status_code == 404
    assert [event.where for event in stand.events if isinstance(event, DefectFound)] == ["authenticator of the dashboard"]


@pytest.mark.asyncio
async def test_an_authenticator_that_raises_has_let_nobody_in_and_is_reported_once():
    stand = Stand(auth=lambda scope: scope["state"]["user"])
    for _ in range(3):
        assert (await stand.get("/api/picture")).status_code == 404
    assert len([event for event in stand.events if isinstance(event, DefectFound)]) == 1


@pytest.mark.asyncio
async def test_a_session_of_ones_own_will_do():
    async def auth(scope):
        return "carol" if (b"cookie", b"session=good") in scope["headers"] else None

    stand = Stand(auth=auth)
    assert (await stand.get("/api/session", known=False)).status_code == 404
    session = (await stand.get("/api/session", known=False, headers={"cookie": "session=good"})).json()
    assert (session["actor"], session["may"]) == ("carol", ["stop", "engage", "experiment", "breaker", "canary"])


@pytest.mark.asyncio
async def test_operators_may_do_things_and_all_others_look(stand):
    alice, bob = (await stand.get("/api/session")).json(), (await stand.get("/api/session", headers=AS_BOB)).json()
    assert (alice["actor"], alice["may"]) == ("alice", ["stop", "engage", "experiment", "breaker", "canary"])
    assert bob == {"actor": "bob", "csrf": None, "may": []}
    assert (await stand.get("/api/picture", headers=AS_BOB)).status_code == 200
    for path in ("/api/stop", "/api/engage", "/api/experiments", "/api/breakers/llm.invoke/trip", "/api/experiments/x/stop"):
        answer = await stand.post(path, {}, token=alice["csrf"], headers=AS_BOB)
        assert (answer.status_code, answer.json()["detail"]) == (403, "bob may look, and not do that")
    assert stand.guard.breaker.state.value == "closed"


@pytest.mark.asyncio
async def test_where_everybody_may_look_nobody_may_do_anything():
    stand = Stand(auth=UNSAFE_OPEN)
    session = (await stand.get("/api/session", known=False)).json()
    assert session == {"actor": "anyone", "csrf": None, "may": []}
    assert (await stand.get("/api/picture", known=False)).status_code == 200
    for headers in ({}, KNOWN):
        answer = await stand.post("/api/stop", {}, token="x", known=False, headers={"origin": "http://service", **headers})
        assert answer.status_code == 403
    assert repr(UNSAFE_OPEN) == "UNSAFE_OPEN"


@pytest.mark.asyncio
async def test_where_everybody_may_look_operators_are_known_apart_and_not_guessed_for_ever():
    asked = []

    def operators(scope):
        asked.append(scope)
        return BearerToken({"alice": ALICE})(scope)

    stand = Stand(auth=UNSAFE_OPEN, operators=operators)
    assert (await stand.get("/api/session")).json()["actor"] == "alice"
    asked.clear()
    for _ in range(30):
        assert (await stand.get("/api/session", headers=EVE)).json()["may"] == []
    assert len(asked) == 20
    assert (await stand.get("/api/session")).json()["actor"] == "alice"


@pytest.mark.asyncio
async def test_with_no_controls_nobody_may_do_anything():
    stand = Stand(controls=())
    assert (await stand.get("/api/session")).json()["may"] == []
    assert (await stand.post("/api/stop", {}, token="x")).status_code == 403


@pytest.mark.asyncio
async def test_a_browser_is_asked_for_a_password_at_the_page_itself_and_nowhere_else():
    stand = Stand(auth=BearerToken({"alice": ALICE}, basic=True), challenge="basic")
    for path in ("", "/"):
        answer = await stand.get(path, known=False)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Basic realm="somaresil", charset="UTF-8"')
    for path in ("/plain", "/api/session", "/api/stream", "/static/app.js"):
        answer = await stand.get(path, known=False)
        assert (answer.status_code, answer.headers.get("www-authenticate")) == (404, None)
    password = base64.b64encode(f"alice:{ALICE}".encode()).decode()
    assert (await stand.get("/api/session", headers={"authorization": f"Basic {password}"})).json()["actor"] == "alice"


def test_a_challenge_that_nobody_can_meet_is_refused():
    with pytest.raises(ConfigurationError, match="takes passwords"):
        Resilience("tests").dashboard(auth=BearerToken(ALICE), challenge="basic")
