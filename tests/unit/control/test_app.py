"""What the control app does for those whom it knows."""

from __future__ import annotations

import json

import pytest

from somaresil import ChaosCeilings, InjectedFault, ResilienceMiddleware
from somaresil.chaos.config import AVAILABLE
from somaresil.control.app import HEADER
from somaresil.events import ChaosAudited, DefectFound, DeploymentMarked
from somaresil.mounted.wire import LARGEST
from tests.unit.control.kit import KNOWN, ROOT, WINDOW, Stand, raw

pytestmark = pytest.mark.asyncio

JSON = {"content-type": "application/json"}


async def test_a_window_is_armed_strikes_and_ends_by_itself(stand):
    told = await stand.start()
    assert told["ids"] == [told["id"]] == ["error-1"]
    with pytest.raises(InjectedFault):
        stand.guard.call(lambda: None)
    stand.clock.advance(10.0)
    shown = (await stand.ask("GET", f"/experiments/{told['id']}")).json()
    assert (shown["state"], shown["remaining"], shown["injected"], shown["struck"]) == ("running", 20.0, 1, {"llm.invoke": 1})
    assert (shown["kind"], shown["target"], shown["rate"], shown["by"]) == ("error", "llm.*", 1.0, "alice")
    stand.clock.advance(20.0)
    shown = (await stand.ask("GET", f"/experiments/{told['id']}")).json()
    assert (shown["state"], shown["remaining"], shown["end_reason"]) == ("ended", 0.0, "expired")


async def test_an_answer_says_where_the_experiment_is(stand):
    answer = await stand.post("/experiments", WINDOW)
    assert answer.headers["location"] == f"{ROOT}/experiments/error-1"


async def test_a_plan_is_armed_whole(stand):
    windows = [{**WINDOW, "start": 0}, {"target": "llm.*", "kind": "latency", "delay": 1, "start": 40, "duration": 5}]
    answer = await stand.post("/experiments", {"somaresil_plan": 1, "seed": 9, "windows": windows})
    assert answer.status_code == 201
    assert (answer.json()["ids"], answer.json()["seed"]) == (["error-1", "latency-2"], 9)
    listed = (await stand.ask("GET", "/experiments")).json()
    assert [(each["id"], each["state"]) for each in listed["experiments"]] == [("latency-2", "scheduled"), ("error-1", "running")]
    assert listed["running"] == 1
    assert listed["experiments"][0]["options"] == {"delay": 1}


async def test_windows_draw_by_seeds_of_their_own_and_say_which(stand):
    first, second = await stand.start(rate=0.5), await stand.start(rate=0.5)
    assert first["seed"] != second["seed"]


async def test_a_whole_fleet_may_be_told_the_same_and_each_finds_out_whether_it_is_meant(stand):
    """By the blast radius and its candidates: outside it nothing is armed, and the answer says so."""
    mine = stand.resilience.instance
    inside, outside = await stand.start(candidates=[mine]), await stand.start(candidates=["another"], blast_radius="single_instance")
    assert [told["experiments"][0]["selected"] for told in (inside, outside)] == [True, False]
    shown = (await stand.ask("GET", f"/experiments/{outside['id']}")).json()
    assert (shown["state"], shown["end_reason"]) == ("ended", "outside the blast radius")
    answer = await stand.post("/experiments", {**WINDOW, "blast_radius": "galaxy"})
    assert (answer.status_code, answer.json()["problems"][0]["path"]) == (422, "blast_radius")


async def test_one_experiment_is_stopped_and_the_others_go_on(stand):
    first, second = await stand.start(), await stand.start(kind="latency", delay=1)
    for _ in range(2):  # stopping twice does no harm
        answer = await stand.post(f"/experiments/{first['id']}/stop", {"reason": "enough"})
        assert (answer.status_code, answer.json()["end_reason"]) == (200, "stopped")
    assert [run.id for run in stand.chaos.runs] == second["ids"]


async def test_the_kill_switch_ends_everything(stand):
    ids = [(await stand.start(start=start))["id"] for start in (0, 0, 50)]
    answer = await stand.post("/stop", {"reason": "pager"})
    assert (answer.status_code, answer.json()) == (200, {"stopped": ids, "everywhere": True, "reason": "pager"})
    assert stand.chaos.runs == ()
    assert all(run.over for run in stand.chaos.history)
    stand.guard.call(lambda: None)


async def test_the_kill_switch_works_with_a_header_and_no_body(stand):
    await stand.start()
    assert (await stand.ask("POST", "/stop", headers={HEADER: "1"})).status_code == 200
    assert stand.chaos.runs == ()


@pytest.mark.parametrize("content", [b"{", b'{"reason": 7}', b"[" * 70_000, b"\xff"])
async def test_the_kill_switch_does_not_mind_what_it_is_told(stand, content):
    await stand.start()
    answer = await stand.ask("POST", "/stop", headers=JSON, content=content)
    assert (answer.status_code, answer.json()["reason"]) == (200, None)
    assert stand.chaos.runs == ()


async def test_the_kill_switch_does_not_wait_for_its_body(stand):
    await stand.start()
    sent = await raw(stand.app, {"type": "http.request", "body": b"{", "more_body": True})
    assert sent[0]["status"] == 200
    assert stand.chaos.runs == ()


async def test_what_was_done_by_whom_stands_in_the_audit_log(stand):
    """Each thing once, and why where somebody has said so."""
    told = await stand.start()
    await stand.post(f"/experiments/{told['id']}/stop", {"reason": "enough"})
    await stand.post("/stop", {"reason": "lunch"})
    noted = [(entry.what, entry.who, entry.experiment, entry.result) for entry in stand.chaos.audit.entries if entry.what != "opt_in"]
    assert noted == [
        ("arm", "alice", "error-1", "armed"),
        ("end", "alice", "error-1", "stopped; 0 struck"),
        ("stop", "alice", "error-1", "enough"),
        ("stop_all", "alice", "", "everywhere"),
        ("stop_all", "alice", "", "lunch"),
    ]


async def test_the_lever_ends_everything_and_lets_nothing_start_until_it_is_released(stand, tmp_path):
    """It says who has engaged it and why, to whoever asks."""
    stand.chaos.opt_in(switch=tmp_path / "tests.switch")
    await stand.start()
    engaged = (await stand.post("/engage", {"reason": "incident"})).json()
    assert (engaged["engaged"], engaged["everywhere"], stand.chaos.runs) == ("alice: incident", True, ())
    assert (await stand.ask("GET", "/status")).json()["engaged"] == "alice: incident"
    refused = await stand.post("/experiments", WINDOW)
    assert (refused.status_code, [each["path"] for each in refused.json()["problems"]]) == (409, ["lever"])
    released = (await stand.post("/disengage")).json()
    assert (released["engaged"], released["everywhere"]) == (None, True)
    await stand.start()


async def test_the_lever_does_not_wait_for_its_body(stand):
    """Whatever the body says or does not say."""
    await stand.start()
    answer = await stand.ask("POST", "/engage", content=b"{", headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["engaged"], stand.chaos.runs) == (200, "alice", ())
    assert (await stand.post("/disengage", {"reson": "x"})).status_code == 422
    assert stand.chaos.engaged == "alice"


async def test_an_overlap_is_a_conflict_and_not_a_mistake(stand):
    """The same window may be started when the other has ended."""
    told = await stand.start(allow_overlap=False)
    refused = await stand.post("/experiments", WINDOW)
    assert (refused.status_code, [each["path"] for each in refused.json()["problems"]]) == (409, ["target"])
    await stand.post(f"/experiments/{told['id']}/stop")
    assert (await stand.post("/experiments", WINDOW)).status_code == 201


# -- what is wrong ------------------------------------------------------------------------------------------------------------------------


async def test_every_problem_of_a_window_is_told_by_its_own_path(stand):
    answer = await stand.post("/experiments", {"target": "nobody", "kind": "eror", "duration": -1, "rate": 7, "dely": 1})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert {each["path"] for each in answer.json()["problems"]} == {"dely", "duration", "kind", "rate"}
    assert "did you mean" in json.dumps(answer.json())
    assert stand.chaos.history == ()


async def test_problems_of_a_plan_say_in_which_window(stand):
    plan = {"somaresil_plan": 1, "seed": 1, "windows": [{**WINDOW, "start": 0}, {**WINDOW, "start": 0, "target": "db"}]}
    answer = await stand.post("/experiments", plan)
    assert [each["path"] for each in answer.json()["problems"]] == ["plan.windows[1].target"]
    assert stand.chaos.history == ()


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ([], ""),
        ("latency", ""),
        (None, ""),
        ({}, "target"),
        ({**WINDOW, "duration": 601}, "duration"),
        ({**WINDOW, "target": "llm.invke"}, "target"),
        ({**WINDOW, "error": "SystemExit"}, "error"),
        ({**WINDOW, "kind": "kill"}, "kind"),
        ({"somaresil_plan": 1, "windows": []}, "plan.windows"),
        ({"somaresil_plan": 99, "windows": [WINDOW]}, "plan.somaresil_plan"),
        ({"windows": [WINDOW]}, "plan.somaresil_plan"),
    ],
)
async def test_what_is_wrong_is_refused_and_nothing_is_armed(stand, data, path):
    answer = await stand.ask("POST", "/experiments", content=json.dumps(data).encode(), headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["path"] == path
    assert stand.chaos.history == ()


async def test_errors_that_the_service_allows_may_be_named():
    stand = Stand(errors={"Busy": BlockingIOError})
    await stand.start(error="Busy")
    with pytest.raises(BlockingIOError):
        stand.guard.call(lambda: None)


async def test_what_is_not_allowed_here_is_a_conflict():
    """The same request is right elsewhere."""
    answer = await Stand(opt_in=False).post("/experiments", WINDOW)
    assert (answer.status_code, [each["path"] for each in answer.json()["problems"]]) == (409, ["opt_in"])


async def test_what_is_too_much_now_is_a_conflict():
    stand = Stand(ceilings=ChaosCeilings(experiments=1))
    await stand.start()
    answer = await stand.post("/experiments", {**WINDOW, "allow_overlap": True})
    assert (answer.status_code, answer.json()["problems"][0]["path"]) == (409, "experiments")


@pytest.mark.parametrize(
    ("content", "path", "says"),
    [
        (b'{"target": "a", "target": "b"}', "target", "each name once"),
        (b'{"windows": [{"rate": NaN}]}', "windows[0].rate", "a finite number"),
        (b'{"rate": 1e999}', "rate", "a finite number"),
        (b'{"rate": -Infinity}', "rate", "a finite number"),
        (b'{"a": {"b": {"c": 1, "c": 2}}}', "a.b.c", "each name once"),
        (b"[" * 11 + b"]" * 11, "", "at most 10"),
        (b"[" * 60_000, "", "at most 10"),
    ],
)
async def test_json_that_parsers_do_not_agree_about_is_refused_with_its_path(stand, content, path, says):
    answer = await stand.ask("POST", "/experiments", content=content, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["path"] == path
    assert says in answer.json()["problems"][0]["allowed"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"\xef\xbb\xbf{}", b"1" * 5_000, b"{'a': 1}", b"\x00"])
async def test_what_is_no_json_is_refused(stand, content):
    answer = await stand.ask("POST", "/experiments", content=content, headers=JSON)
    assert answer.status_code == 400
    assert answer.json()["status"] == 400


async def test_a_body_that_is_too_large_is_not_read(stand):
    assert (await stand.ask("POST", "/experiments", content=b" " * (LARGEST + 1), headers=JSON)).status_code == 413
    chunks = [{"type": "http.request", "body": b" " * 40_000, "more_body": True}] * 5
    sent = await raw(stand.app, *chunks, path=f"{ROOT}/experiments")
    assert sent[0]["status"] == 413


async def test_a_body_that_comes_too_slowly_is_not_waited_for(stand):
    sent = await raw(stand.app, {"type": "http.request", "body": b"{", "more_body": True}, path=f"{ROOT}/experiments")
    assert sent[0]["status"] == 408


async def test_a_body_that_is_cut_off_arms_nothing(stand):
    whole = json.dumps(WINDOW).encode()
    parts = ({"type": "http.request", "body": whole, "more_body": True}, {"type": "http.disconnect"})
    assert (await raw(stand.app, *parts, path=f"{ROOT}/experiments"))[0]["status"] == 400
    assert stand.chaos.history == ()


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json; charset=utf-16", ""]
)
async def test_a_body_that_is_not_said_to_be_json_is_refused(stand, kind):
    answer = await stand.ask("POST", "/experiments", content=json.dumps(WINDOW).encode(), headers={"content-type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"'])
async def test_json_may_be_said_in_several_ways(stand, kind):
    assert (await stand.ask("POST", "/experiments", content=json.dumps(WINDOW).encode(), headers={"content-type": kind})).status_code == 201


async def test_encoded_bodies_are_refused(stand):
    assert (await stand.post("/experiments", WINDOW, headers={"content-encoding": "gzip"})).status_code == 415


@pytest.mark.parametrize(
    "path", ["/", "", "/experiment", "/experiments/", "/experiments/error-1/", "/experiments/x/y", "/../status", "/experiments/nobody"]
)
async def test_what_is_not_there_is_not_found(stand, path):
    answer = await stand.ask("GET", path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/experiments", "GET, HEAD, OPTIONS, POST"),
        ("GET", "/stop", "OPTIONS, POST"),
        ("HEAD", "/stop", "OPTIONS, POST"),
        ("POST", "/status", "GET, HEAD, OPTIONS"),
        ("DELETE", "/experiments/error-1", "GET, HEAD, OPTIONS"),
        ("GET", "/experiments/error-1/stop", "OPTIONS, POST"),
    ],
)
async def test_other_methods_are_refused_with_those_that_are_not(stand, method, path, allow):
    answer = await stand.ask(method, path, headers=JSON)
    assert (answer.status_code, answer.headers["allow"]) == (405, allow)


async def test_options_say_what_is_possible_and_nothing_about_other_origins(stand):
    answer = await stand.ask("OPTIONS", "/stop", headers={"origin": "http://evil.example", "access-control-request-method": "POST"})
    assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/experiments", "/status", "/openapi.json"])
async def test_head_is_get_without_the_body(stand, path):
    got, head = await stand.ask("GET", path), await stand.ask("HEAD", path)
    assert head.content == b""
    assert (head.status_code, head.headers.raw) == (got.status_code, got.headers.raw)


@pytest.mark.parametrize("path", ["/experiments", "/experiments/error-1", "/status", "/capabilities", "/openapi.json"])
async def test_no_get_changes_anything(stand, path):
    await stand.start()
    before = [repr(run) for run in stand.chaos.history]
    for method in ("GET", "HEAD", "OPTIONS"):
        await stand.ask(method, path)
    assert [repr(run) for run in stand.chaos.history] == before


async def test_every_answer_is_kept_by_nobody(stand):
    for answer in [
        await stand.ask("GET", "/status"),
        await stand.ask("GET", "/no"),
        await stand.post("/stop"),
        await stand.ask("PUT", "/stop"),
    ]:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


# -- other pages --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://service"}, 200),
        ({"origin": "HTTP://SERVICE:80"}, 200),
        ({"origin": "https://ops.example"}, 200),
        ({"origin": "https://ops.example:443"}, 200),
        ({"origin": "http://ops.example"}, 403),
        ({"origin": "https://service"}, 403),
        ({"origin": "https://service", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 403),
        ({"origin": "https://service", "sec-fetch-site": "same-site"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://service.evil.example"}, 403),
        ({"origin": "http://service:8080"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://service", "host": "other"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
async def test_pages_of_other_sites_change_nothing(headers, status):
    stand = Stand(origins=["https://ops.example"])
    await stand.start()
    assert (await stand.post("/stop", headers=headers)).status_code == status
    assert (stand.chaos.runs == ()) == (status == 200)


def _by_itself(scope):
    """Who it is stands in every request of the browser, without anything that a page would have to know."""
    return "bob" if (b"host", b"service") in scope["headers"] else None


async def test_a_form_of_another_page_does_not_even_look_right():
    """Its browser sends credentials by itself, and none of the types of a form will do, nor no Origin."""
    stand = Stand(auth=_by_itself)
    await stand.start()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None):
        for origin in ("http://service", None):
            answer = await stand.ask("POST", "/stop", known=False, headers={"content-type": kind, "origin": origin}, content=b"a=b")
            assert answer.status_code == (415 if origin else 403)
    assert len(stand.chaos.runs) == 1


async def test_without_an_origin_there_must_be_an_authorization():
    stand = Stand(auth=_by_itself)
    assert (await stand.post("/stop", known=False)).status_code == 403
    assert (await stand.post("/stop", known=False, headers={"origin": "http://service"})).status_code == 200


# -- the rest -----------------------------------------------------------------------------------------------------------------------------


async def test_the_status_says_where_it_is_and_what_may_be_done(stand):
    said = (await stand.ask("GET", "/status")).json()
    assert (said["service"], said["environment"], said["allowed"], said["running"]) == ("tests", "test", True, 0)
    assert said["ceilings"]["duration"] == 600.0
    assert said["targets"] == ["llm.invoke"]
    assert {ROOT, f"{ROOT}/*", "/health*"} <= set(said["protected_paths"])


async def test_the_status_says_why_nothing_is_allowed(monkeypatch):
    monkeypatch.delenv("SOMARESIL_CHAOS")
    said = (await Stand(opt_in=False).ask("GET", "/status")).json()
    assert (said["allowed"], said["ceilings"]) == (False, None)
    assert [each["path"] for each in said["problems"]] == ["chaos.opt_in", "chaos.SOMARESIL_CHAOS"]


async def test_capabilities_are_told_when_somebody_knows_them(stand):
    assert (await stand.ask("GET", "/capabilities")).status_code in {200, 404}
    stand.chaos.capabilities = lambda: {"partition": {"reset": True, "drop": None, "share": float("inf")}}  # type: ignore[attr-defined]
    answer = await stand.ask("GET", "/capabilities")
    assert answer.json() == {"capabilities": {"partition": {"reset": True, "drop": None, "share": "inf"}}}


async def test_experiments_on_requests_leave_the_control_app_alone(stand):
    """Where it was said to be, and where it is found to be."""

    async def struck(path, root=""):
        return stand.chaos.strike_request(path, root) is not None

    ResilienceMiddleware(stand.app, stand.resilience)
    await stand.start(target="http:*")
    assert await struck("/items")
    assert not await struck(f"{ROOT}/stop")
    assert await struck("/admin/chaos/stop")
    await raw(stand.app, {"type": "http.request"}, path="/admin/chaos/status", root_path="/admin/chaos", method="GET", headers=[])
    assert await struck("/admin/chaos/stop"), "whoever is not known says nothing about where it is"
    known = [(b"authorization", KNOWN["authorization"].encode())]
    await raw(stand.app, {"type": "http.request"}, path="/admin/chaos/status", root_path="/admin/chaos", method="GET", headers=known)
    assert not await struck("/admin/chaos/stop")
    assert not await struck("/admin/chaos/stop", "/admin/chaos")


async def test_a_defect_is_answered_and_reported(stand, monkeypatch):
    monkeypatch.setattr(type(stand.chaos), "history", property(lambda _: 1 / 0))
    answer = await stand.ask("GET", "/experiments")
    assert (answer.status_code, answer.json()["status"]) == (500, 500)
    assert [event.where for event in stand.events if isinstance(event, DefectFound)] == ["control app"]


async def test_websockets_are_closed_and_lifespans_lived(stand):
    assert await raw(stand.app, {"type": "websocket.connect"}, type="websocket") == [{"type": "websocket.close", "code": 1000}]
    lived = await raw(stand.app, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, type="lifespan")
    assert [message["type"] for message in lived] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_the_document_names_every_kind_of_fault_and_every_field_of_a_window(stand):
    from dataclasses import fields

    from somaresil import FaultWindow

    said = (await stand.ask("GET", "/openapi.json")).json()
    window = said["components"]["schemas"]["FaultWindow"]["properties"]
    assert window["kind"]["enum"] == [kind.value for kind in AVAILABLE]
    assert set(window) == {field.name for field in fields(FaultWindow)}
    assert said["servers"] == [{"url": ROOT}]


async def test_the_memory_of_who_started_what_is_bounded(stand):
    for _ in range(400):
        await stand.start(duration=0.5)
        stand.clock.advance(1.0)
    assert len(stand.app._starters) == 256


# -- deploy markers -------------------------------------------------------------------------------------------------------------------


async def test_a_pipeline_leaves_a_deploy_marker(stand):
    """Told to listeners and the journal, and who has done it to the audit log."""
    answer = await stand.post("/deployments", {"version": "1.4.2", "commit": "3f9c2e1", "ok": True})
    assert answer.status_code == 201
    assert answer.json() == {"version": "1.4.2", "at": stand.clock.time(), "commit": "3f9c2e1", "ok": True}
    (marked,) = [event for event in stand.events if isinstance(event, DeploymentMarked)]
    assert (marked.version, marked.began, marked.commit, marked.ok) == ("1.4.2", stand.clock.time(), "3f9c2e1", True)
    (audited,) = [event for event in stand.events if isinstance(event, ChaosAudited) and event.what == "deployed"]
    assert (audited.who, audited.result) == ("alice", "1.4.2")


async def test_a_marker_needs_no_permission_for_chaos():
    """It strikes nobody; but it needs to be known who has sent it."""
    stand = Stand(opt_in=False)
    assert (await stand.post("/deployments", {"version": "2", "at": 5})).json()["at"] == 5.0
    assert (await stand.post("/deployments", {"version": "3"}, headers={"authorization": "Bearer guess"})).status_code == 404
    assert [event.version for event in stand.events if isinstance(event, DeploymentMarked)] == ["2"]


@pytest.mark.parametrize(
    ("sent", "paths"),
    [
        ({}, ["version"]),
        ([], [""]),
        ({"version": ""}, ["version"]),
        ({"version": "x" * 201, "commit": 4, "ok": 1, "verison": "1"}, ["verison", "version", "commit", "ok"]),
        ({"version": "1\n2"}, ["version"]),
        ({"version": "1", "at": "now"}, ["at"]),
        ({"version": "1", "at": 1e12}, ["at"]),
        ({"version": "1", "at": -1}, ["at"]),
    ],
)
async def test_a_wrong_marker_is_refused_with_every_problem(stand, sent, paths):
    """And nothing is noted."""
    answer = await stand.post("/deployments", sent)
    assert answer.status_code == 422
    assert [each["path"] for each in answer.json()["problems"]] == paths
    assert not [event for event in stand.events if isinstance(event, DeploymentMarked)]


async def test_a_loop_cannot_fill_the_journal(stand):
    """Sixty in a minute; then it says when to come again."""
    for number in range(60):
        assert (await stand.post("/deployments", {"version": str(number)})).status_code == 201
        stand.clock.advance(0.5)
    answer = await stand.post("/deployments", {"version": "60"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "30")
    stand.clock.advance(30.0)
    assert (await stand.post("/deployments", {"version": "60"})).status_code == 201


async def test_a_marker_is_not_read_from_a_form(stand):
    """No page of another site can make a browser send one."""
    answer = await stand.ask("POST", "/deployments", content=b"version=1", headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 415
