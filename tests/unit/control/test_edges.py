"""Requests at the edges of the control app: plans that are only looked at, figures, markers, and who is nobody."""

from __future__ import annotations

import os

import pytest

from somaresil import ConfigurationError, Resilience
from somaresil.control import chaos_control
from somaresil.dashboard import UNSAFE_OPEN
from somaresil.events import DefectFound
from somaresil.mounted.request import ANYONE, Doorkeeper, Request, is_json, live
from somaresil.mounted.wire import Refused
from tests.unit.control.kit import ALICE, ROOT, WINDOW, Stand, raw

pytestmark = pytest.mark.asyncio

PLAN = {"somaresil_plan": 1, "seed": 3, "windows": [{"start": 0, **WINDOW}]}


async def test_a_plan_that_would_be_armed_is_accepted_and_nothing_is_armed(stand):
    answer = await stand.post("/check", PLAN)
    assert (answer.status_code, answer.json()) == (200, {"accepted": True})
    assert stand.chaos.history == ()


async def test_a_plan_that_is_wrong_is_told_by_its_own_paths(stand):
    answer = await stand.post("/check", {**PLAN, "windows": [{"start": 0, **WINDOW, "kind": "no"}]})
    assert (answer.status_code, answer.json()["detail"]) == (422, "it would not be armed")
    assert [each["path"] for each in answer.json()["problems"]] == ["plan.windows[0].kind"]


async def test_a_plan_that_is_not_allowed_here_is_a_conflict_and_no_mistake():
    assert (await Stand(opt_in=False).post("/check", PLAN)).status_code == 409


async def test_figures_are_told_with_the_process_they_are_of():
    async def figures():
        return {"calls": 3}

    answer = await Stand(figures=figures).ask("GET", "/figures")
    assert (answer.status_code, answer.json()) == (200, {"process": os.getpid(), "figures": {"calls": 3}})


async def test_figures_that_nobody_gave_are_not_found(stand):
    assert (await stand.ask("GET", "/figures")).status_code == 404


async def test_figures_that_cannot_be_asked_for_are_refused_at_the_start():
    with pytest.raises(ConfigurationError) as refused:
        chaos_control(Resilience("tests"), auth=lambda _: None, figures=7)  # type: ignore[arg-type]
    assert [(each.path, each.hint) for each in refused.value.problems] == [("chaos_control.figures", "figures_of(resilience)")]


async def test_an_open_app_is_refused_with_what_could_happen():
    with pytest.raises(ConfigurationError, match="can stop the service"):
        chaos_control(Resilience("tests"), auth=None)  # type: ignore[arg-type]


async def test_what_this_version_cannot_tell_is_not_found(stand, monkeypatch):
    monkeypatch.setattr("somaresil.control.app.capabilities_of", lambda _: None)
    assert (await stand.ask("GET", "/capabilities")).status_code == 404


@pytest.mark.parametrize("path", ["/experiments", "/status", "/openapi.json", "/capabilities"])
async def test_what_is_shown_is_ok(stand, path):
    assert (await stand.ask("GET", path)).status_code == 200
    head = await stand.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")


async def test_an_experiment_is_shown_by_its_name(stand):
    started = await stand.start()
    answer = await stand.ask("GET", f"/experiments/{started['id']}")
    assert (answer.status_code, answer.json()["id"]) == (200, started["id"])


async def test_how_often_nobody_came_is_counted_and_told(stand):
    await stand.ask("GET", "/status", known=False)
    await stand.ask("GET", "/status", known=False)
    assert stand.app.denied == 2
    assert (await stand.ask("GET", "/status")).json()["failed_authentications"] == 2
    assert repr(stand.app) == "<ControlApp of 'tests'>"


async def test_the_app_is_left_alone_from_the_start():
    """Before the first request: the kill switch must work whatever is armed."""
    stand = Stand(at="/elsewhere")
    assert any("/elsewhere" in each for each in stand.chaos.protected)


async def test_a_plan_without_its_version_is_a_plan_and_its_version_alone_is_one_too(stand):
    """It is not taken for a window with odd fields."""
    assert "plan.windows" in str((await stand.post("/experiments", {"somaresil_plan": 1, "seed": 1})).json())
    assert (await stand.post("/experiments", {"windows": []})).status_code == 422


async def test_seeds_that_are_drawn_are_whole_numbers_of_53_bits(stand):
    seeds = [(await stand.start())["seed"] for _ in range(8)]
    assert len(set(seeds)) == 8
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert max(seeds) > 2**52


@pytest.mark.parametrize(("field", "hint"), [("comit", "did you mean 'commit'?"), ("zzzzzz", None)])
async def test_a_field_of_a_marker_that_nobody_knows_is_refused_although_all_else_is_right(stand, field, hint):
    answer = await stand.post("/deployments", {"version": "1", field: "x"})
    assert answer.status_code == 422
    (found,) = answer.json()["problems"]
    assert (found["path"], found.get("hint") or None) == (field, hint)
    assert [each for each in stand.chaos.audit.entries if each.what == "deployed"] == []


async def test_a_marker_is_taken_again_exactly_a_minute_after_the_first_of_sixty(stand):
    for _ in range(60):
        assert (await stand.post("/deployments", {"version": "1"})).status_code == 201
    refused = await stand.post("/deployments", {"version": "1"})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
    stand.clock.advance(59.5)
    assert (await stand.post("/deployments", {"version": "1"})).headers["retry-after"] == "1"
    stand.clock.advance(0.5)
    assert (await stand.post("/deployments", {"version": "1"})).status_code == 201


@pytest.mark.parametrize("path", ["/engage", "/disengage"])
async def test_the_lever_is_not_moved_by_a_form(stand, path):
    answer = await stand.ask("POST", path, headers={"content-type": "application/x-www-form-urlencoded"}, content=b"a=1")
    assert answer.status_code == 415
    assert not (await stand.ask("GET", "/status")).json().get("engaged")


async def test_the_lever_says_why_it_was_moved(stand, tmp_path, monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", str(tmp_path / "folder" / "tests.switch"))
    stand = Stand()
    engaged = (await stand.post("/engage", {"reason": "an outage"})).json()
    assert (engaged["reason"], bool(engaged["engaged"])) == ("an outage", True)
    released = (await stand.post("/disengage", {"reason": "it is over"})).json()
    assert (released["reason"], bool(released["engaged"])) == ("it is over", False)
    assert any("it is over" in str(entry) for entry in stand.chaos.audit.entries)


async def test_head_has_no_body_whatever_the_server_would_make_of_one(stand):
    sent = await raw(stand.app, method="HEAD", path=f"{ROOT}/status")
    assert sent[0]["status"] == 200
    assert all(not message.get("body") for message in sent)


# -- who it is ----------------------------------------------------------------------------------------------------------------------------


def scope(*headers, client=("10.0.0.1", 1)):
    return {"type": "http", "method": "POST", "path": "/x", "headers": list(headers), "client": client}


GOOD, BAD = (b"authorization", b"Bearer good"), (b"authorization", b"Bearer bad")


class Known:
    """Knows one header, and remembers how often it was asked."""

    def __init__(self, name="ann"):
        self.name, self.asked = name, 0

    def __call__(self, given):
        self.asked += 1
        return self.name if GOOD in given["headers"] else None


def door(stand, auth, **more):
    return Doorkeeper(auth, "test app", stand.clock, stand.resilience.listeners, **more)


async def test_where_everybody_may_look_only_those_who_try_to_be_operators_use_up_their_tries(stand):
    """Looking on costs nothing, however often, and an operator who was good stays one."""
    operators = Known("ops")
    keeper = door(stand, None, operators=operators)
    assert await keeper.visitor(scope(GOOD)) == ("ops", True)
    for _ in range(60):
        assert await keeper.visitor(scope((b"accept", b"*/*"))) == (ANYONE, False)
    assert operators.asked == 61
    for _ in range(60):
        assert await keeper.visitor(scope(BAD)) == (ANYONE, False)
    assert operators.asked == 61 + 20
    assert await keeper.visitor(scope(GOOD)) == ("ops", True)
    assert keeper.denied == 0


async def test_where_there_are_no_operators_everybody_may_look_as_often_as_he_likes(stand):
    keeper = door(stand, None)
    for _ in range(60):
        assert await keeper.visitor(scope(BAD)) == (ANYONE, False)


async def test_credentials_that_are_good_no_more_are_no_way_around_the_limit(stand):
    """Once they have failed they are like any others."""
    good = [True]
    asked = []

    def auth(given):
        asked.append(given)
        return "ann" if good[0] else None

    keeper = door(stand, auth)
    assert await keeper.who(scope(GOOD)) == "ann"
    good[0] = False
    for _ in range(40):
        assert await keeper.who(scope(GOOD)) is None
    assert len(asked) == 1 + 20
    assert keeper.denied == 40


async def test_a_scope_that_breaks_the_limit_itself_lets_nobody_in_and_is_reported(stand):
    auth = Known()
    keeper = door(stand, auth)
    broken = {"type": "http", "headers": [GOOD], "client": 7}
    assert await keeper.who(broken) is None
    assert auth.asked == 0
    assert "authenticator of the test app" in [event.where for event in stand.events if isinstance(event, DefectFound)]


# -- what it says -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "path", "seen"),
    [
        ("/app", "/app/stop", "/stop"),
        ("/app/", "/app/stop", "/stop"),
        ("/app", "/stop", "/stop"),
        ("/app", "/apple", "/apple"),
        ("/app", "/app", ""),
        (None, "/stop", "/stop"),
        ("", "/stop", "/stop"),
    ],
)
async def test_the_path_is_what_follows_the_root(root, path, seen):
    given = {"method": "GET", "path": path, "headers": [], **({} if root is None else {"root_path": root})}
    request = Request(given, None, "ann")
    assert (request.path, request.root) == (seen, (root or "").rstrip("/"))


@pytest.mark.parametrize(
    ("headers", "stands", "taken"),
    [
        ([], "x-ours", False),
        ([(b"x-ours", b"")], "x-ours", True),
        ([(b"x-ours", b"1"), (b"content-type", b"text/plain")], "x-ours", False),
        ([(b"x-ours", b"1")], None, False),
        ([(b"content-type", b"application/json")], None, True),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"identity")], None, True),
        ([(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], None, False),
        ([(b"content-type", b"application/json"), (b"content-type", b"application/json")], None, False),
    ],
)
async def test_a_request_says_that_it_is_json_or_carries_our_header(headers, stands, taken):
    request = Request({"method": "POST", "path": "/", "headers": headers}, None, "ann")
    if taken:
        request.check_type(stands)
    else:
        with pytest.raises(Refused):
            request.check_type(stands)


async def test_what_would_have_been_right_is_said():
    request = Request({"method": "POST", "path": "/", "headers": []}, None, "ann")
    for stands, says in ((None, b"content-type: application/json"), ("x-ours", b"content-type: application/json, or a header x-ours")):
        with pytest.raises(Refused) as refused:
            request.check_type(stands)
        body = next(message["body"] for message in refused.value.answer.messages(head=False) if "body" in message)
        assert says in body
        assert (b"x-ours" in body) is (stands is not None)


@pytest.mark.parametrize(
    ("kind", "is_one"),
    [
        ("application/json", True),
        (" Application/JSON ; charset=UTF-8;", True),
        ('application/json; charset="utf-8"', True),
        ("application/json; charset=latin-1", False),
        ("application/json; q=1", False),
        ("text/json", False),
        ("application/jsonp", False),
    ],
)
async def test_json_is_in_utf_8(kind, is_one):
    assert is_json(kind) is is_one


async def test_a_body_without_a_type_is_refused_where_our_header_stands_for_none(stand):
    """It says what changes something, so it says what it is."""
    answer = await stand.ask("POST", "/experiments/x/stop", headers={"x-somaresil-control": "1"}, content=b'{"reason": "r"}')
    assert answer.status_code == 415
    started = await stand.start()
    answer = await stand.ask("POST", f"/experiments/{started['id']}/stop", headers={"x-somaresil-control": "1"})
    assert answer.status_code == 200
    plain = await stand.ask("POST", f"/experiments/{started['id']}/stop", headers={"content-type": "text/plain"})
    assert plain.status_code == 415


async def test_the_end_of_the_server_is_told_once():
    ended, sent = [], []
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.other"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append((message["type"], len(ended)))

    await live(receive, send, lambda: ended.append(1))
    assert sent == [("lifespan.startup.complete", 0), ("lifespan.shutdown.complete", 1)]


# -- people of the dashboard --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({"auth": UNSAFE_OPEN, "operators": 7}, ["dashboard.operators"]),
        ({"auth": lambda _: None, "challenge": "digest"}, ["dashboard.challenge"]),
        ({"auth": UNSAFE_OPEN, "challenge": "basic"}, ["dashboard.challenge"]),
        ({"auth": lambda _: None, "operators": lambda _: None, "controls": ["engage"]}, ["dashboard.controls"]),
    ],
)
async def test_people_who_could_not_get_in_are_found_out_at_the_start(options, paths):
    with pytest.raises(ConfigurationError) as refused:
        Resilience("tests").dashboard(**options)
    assert [each.path for each in refused.value.problems] == paths


async def test_the_token_stands_in_nothing_that_is_answered(stand):
    for path in ("/status", "/experiments", "/openapi.json"):
        answer = await stand.ask("GET", path)
        assert ALICE not in answer.text
    assert (await stand.start())["experiments"][0]["id"]
    assert ROOT in (await stand.ask("GET", "/openapi.json")).text
