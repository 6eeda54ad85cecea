"""What operators do."""

from __future__ import annotations

import asyncio

import pytest

from somaresil.events import ChaosAudited
from tests.unit.dashboard_app.kit import BOB, KNOWN, Stand

pytestmark = pytest.mark.asyncio


def audited(stand):
    return [(each.what, each.who, each.experiment, each.result) for each in stand.events if isinstance(each, ChaosAudited)]


async def test_an_approved_plan_is_started_and_one_experiment_is_ended(stand):
    told = await stand.post("/api/experiments", {"plan": "slow model"}, headers={"idempotency-key": "k-1"})
    assert (told.status_code, told.json()["done"]) == (200, True)
    (run,) = stand.chaos.runs
    assert (run.id, run.config.target_component) == ("slow-model-k1-1", "llm.*")
    told = await stand.post(f"/api/experiments/{run.id}/stop")
    assert (told.status_code, run.over, stand.chaos.runs) == (200, True, ())
    assert ("arm", "alice", run.id, "armed") in audited(stand)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"plan": "fast model"}, 404),
        ({"plan": "slow model", "rate": 1.0}, 422),
        ({"windows": [{"target": "*", "kind": "error", "duration": 60}]}, 422),
        ({"plan": {"name": "slow model"}}, 422),
        (["slow model"], 422),
        (None, 422),
    ],
)
async def test_a_request_names_a_plan_and_changes_nothing_of_it(stand, body, status):
    assert (await stand.post("/api/experiments", body)).status_code == status
    assert stand.chaos.history == ()


async def test_the_same_request_twice_is_one_experiment(stand):
    """Also when the second comes while the first is on its way: a double click."""
    headers = {"idempotency-key": "click-1"}
    told = await asyncio.gather(*(stand.post("/api/experiments", {"plan": "slow model"}, headers=headers) for _ in range(4)))
    assert [each.json()["done"] for each in told] == [True] * 4
    assert len(stand.chaos.runs) == 1


async def test_a_key_stands_for_one_request_of_one_person(stand):
    headers = {"idempotency-key": "key-1"}
    await stand.post("/api/experiments", {"plan": "slow model"}, headers=headers)
    told = await stand.post("/api/breakers/llm.invoke/trip", {}, headers=headers)
    assert (told.status_code, told.json()["detail"]) == (409, "its key stands for another request")
    assert stand.guard.breaker.state.value == "closed"
    assert (await stand.post("/api/disengage", {}, headers={"idempotency-key": "no spaces"})).status_code == 400


async def test_what_ends_something_is_done_each_time_whatever_its_key(stand):
    """A script that always sends the same one must be able to stop what was started since."""
    headers = {"idempotency-key": "always"}
    for path in ("/api/stop", "/api/engage", "/api/stop"):
        assert (await stand.post("/api/experiments", {"plan": "slow model"})).status_code == 200
        assert (await stand.post(path, {}, headers=headers)).json()["done"]
        assert stand.chaos.runs == ()
        await stand.post("/api/disengage", {})


async def test_what_is_done_later_with_the_same_key_is_meant(stand):
    headers = {"idempotency-key": "key-1"}
    for _ in range(2):
        await stand.post("/api/breakers/llm.invoke/trip", {}, headers=headers)
        assert stand.guard.breaker.state.value == "open"
        await stand.post("/api/breakers/llm.invoke/reset", {})
        stand.clock.advance(601.0)


async def test_a_plan_that_may_not_be_started_says_why_and_is_a_conflict():
    stand = Stand(opt_in=False)
    told = await stand.post("/api/experiments", {"plan": "slow model"})
    assert told.status_code == 409
    assert "opt_in" in told.json()["detail"]
    assert [each["done"] for each in told.json()["sources"]] == [False]


async def test_the_kill_switch_ends_everything(stand):
    await stand.post("/api/experiments", {"plan": "slow model"})
    told = await stand.post("/api/stop", {})
    assert (told.status_code, told.json()["done"], stand.chaos.runs) == (200, True, ())
    assert [each[:2] for each in audited(stand) if each[0] == "stop_all"] == [("stop_all", "alice")]


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 70_000, b'{"reason": 7}'])
async def test_the_kill_switch_needs_no_token_and_does_not_mind_what_it_is_told(stand, content):
    await stand.post("/api/experiments", {"plan": "slow model"})
    headers = {"content-type": "application/json", "idempotency-key": "not a good key", "origin": "http://service"}
    told = await stand.ask("POST", "/api/stop", headers=headers, content=content)
    assert (told.status_code, stand.chaos.runs) == (200, ())


async def test_the_kill_switch_stops_here_although_others_cannot_be_told(stand, monkeypatch):
    async def broken(command, actor):
        assert stand.chaos.runs == ()
        raise OSError("nobody there")

    await stand.post("/api/experiments", {"plan": "slow model"})
    monkeypatch.setattr(stand.app._sources, "command", broken)
    told = await stand.post("/api/stop", {})
    assert (told.status_code, told.json()["done"], stand.chaos.runs) == (200, False, ())
    assert [each["done"] for each in told.json()["sources"]] == [True, False]


async def test_the_lever_is_engaged_and_released_with_a_reason(stand):
    await stand.post("/api/experiments", {"plan": "slow model"})
    assert (await stand.post("/api/engage", {"reason": "a pager"})).status_code == 200
    assert (stand.chaos.runs, stand.chaos.engaged) == ((), "alice: a pager")
    assert (await stand.post("/api/experiments", {"plan": "slow model"})).status_code == 409
    assert (await stand.post("/api/engage", {"reason": "x\ny"})).status_code == 422
    assert (await stand.post("/api/disengage", {})).status_code == 200
    assert stand.chaos.engaged is None


@pytest.mark.parametrize(("act", "state"), [("trip", "open"), ("force_open", "forced_open"), ("disable", "disabled"), ("reset", "closed")])
async def test_a_breaker_is_moved_and_it_stands_in_the_audit_log(stand, act, state):
    told = await stand.post(f"/api/breakers/llm.invoke/{act}", {})
    assert (told.status_code, stand.guard.breaker.state.value) == (200, state)
    assert audited(stand)[-1] == (f"breaker_{act}", "alice", "", f"llm.invoke: {state}")


async def test_a_breaker_that_cannot_be_moved_says_why(stand):
    await stand.post("/api/breakers/llm.invoke/force_open", {})
    told = await stand.post("/api/breakers/llm.invoke/trip", {})
    assert (told.status_code, told.json()["detail"]) == (409, "that cannot be done while it is forced open")
    assert audited(stand)[-1][0] == "breaker_trip"
    for name in ("tool.run", "nobody"):
        assert (await stand.post(f"/api/breakers/{name}/trip", {})).status_code == 409
    assert (await stand.post("/api/breakers/llm.invoke/explode", {})).status_code == 404


async def test_a_canary_is_moved_by_people():
    from datetime import timedelta

    from somaresil import SLO

    stand = Stand()
    stand.resilience.slos.add(SLO("answers", 99.0, timedelta(days=1)))
    canary = stand.resilience.canary("answer", candidate=lambda: 2, bad="answers", steps=[10, 100], interval=None, version="2")
    canary(lambda: 1)
    for act, expected in (("promote", 1.0), ("pause", 1.0), ("resume", 1.0), ("rollback", 0.0)):
        told = await stand.post(f"/api/canaries/answer/{act}", {"reason": "because"})
        assert told.status_code == 200, told.text
        assert canary.controller.status().weight == expected
    assert {each[1] for each in audited(stand) if each[0].startswith("canary_") and each[0] != "canary_start"} == {"alice"}
    assert (await stand.post("/api/canaries/nobody/promote", {})).status_code == 409


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "http://service"}, 200),
        ({"origin": "https://ops.example"}, 200),
        ({"origin": "https://service", "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "https://service"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://evil.example", "sec-fetch-site": "cross-site"}, 403),
        ({"origin": "http://sub.service", "sec-fetch-site": "same-site"}, 403),
        ({"origin": "null", "sec-fetch-site": "same-origin"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "none"}, 200),
        ({}, 200),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-encoding": "gzip"}, 415),
        ({"x-somaresil-csrf": None}, 403),
        ({"x-somaresil-csrf": ""}, 403),
        ({"x-somaresil-csrf": "9999999999.AAAA"}, 403),
        ({"x-somaresil-csrf": "9" * 500}, 403),
    ],
)
async def test_what_changes_something_comes_from_this_site(headers, status):
    stand = Stand(origins=["https://ops.example"])
    told = await stand.post("/api/breakers/llm.invoke/trip", {}, headers=headers)
    assert told.status_code == status
    assert stand.guard.breaker.state.value == ("open" if status == 200 else "closed")


async def test_tokens_are_for_one_person_and_end():
    stand = Stand(
        operators=lambda scope: {f"Bearer {BOB}": "bob", KNOWN["authorization"]: "alice"}.get(
            dict(scope["headers"])[b"authorization"].decode()
        )
    )
    bobs = (await stand.get("/api/session", headers={"authorization": f"Bearer {BOB}"})).json()["csrf"]
    mine = (await stand.get("/api/session")).json()["csrf"]
    assert (await stand.post("/api/engage", {}, token=bobs)).status_code == 403
    assert (await stand.post("/api/engage", {}, token=mine)).status_code == 200
    stand.clock.advance(12 * 3600.0)
    told = await stand.post("/api/disengage", {}, token=mine)
    assert (told.status_code, "api/session" in told.json()["detail"]) == (403, True)
    assert (await stand.post("/api/disengage", {})).status_code == 200


@pytest.mark.parametrize("shared", ["folder", "secret"])
async def test_workers_know_each_others_tokens(tmp_path, shared):
    options = {"workers": tmp_path / "workers"} if shared == "folder" else {"secret": "s" * 40}
    first, second = Stand(**options), Stand(**options)
    token = (await first.get("/api/session")).json()["csrf"]
    assert (await second.post("/api/engage", {}, token=token)).status_code == 200
    assert (await Stand().post("/api/engage", {}, token=token)).status_code == 403
    first.app.stop()
    second.app.stop()


async def test_looking_changes_nothing(stand):
    for path in ("/api/stop", "/api/engage", "/api/disengage", "/api/breakers/llm.invoke/trip", "/api/canaries/x/promote"):
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
            assert (await stand.ask(method, path)).status_code in {404, 405}
    assert [each for each in audited(stand) if each[0] != "opt_in"] == []


async def test_a_body_that_is_too_large_or_no_json_does_nothing(stand):
    for content in (b"x" * 70_000, b"{", b'{"plan": "slow model", "plan": "x"}', b"\xff"):
        token = (await stand.get("/api/session")).json()["csrf"]
        headers = {"content-type": "application/json", "x-somaresil-csrf": token}
        assert (await stand.ask("POST", "/api/experiments", content=content, headers=headers)).status_code in {400, 413}
    assert stand.chaos.history == ()


async def test_where_no_tokens_can_be_made_the_kill_switch_is_left(tmp_path):
    folder = tmp_path / "workers"
    stand = Stand(workers=folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "csrf.key").write_bytes(b"half")
    (folder / "csrf.key").chmod(0o600)
    session = (await stand.get("/api/session")).json()
    assert session == {"actor": "alice", "csrf": None, "may": ["stop"]}
    assert (await stand.post("/api/stop", {}, token="none")).status_code == 200
    assert (await stand.post("/api/engage", {}, token="none")).status_code in {403, 500}
    stand.app.stop()


@pytest.mark.parametrize("spoilt", ["link", "open"])
async def test_a_secret_that_somebody_else_may_have_laid_is_not_used(tmp_path, spoilt):
    folder = tmp_path / "workers"
    stand = Stand(workers=folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    key = folder / "csrf.key"
    if spoilt == "link":
        (tmp_path / "elsewhere").write_bytes(b"x" * 32)
        key.symlink_to(tmp_path / "elsewhere")
    else:
        key.write_bytes(b"x" * 32)
        key.chmod(0o666)
    assert (await stand.get("/api/session")).json()["may"] == ["stop"]
    stand.app.stop()


async def test_a_session_that_is_good_is_let_in_however_often_others_behind_its_address_fail():
    stand = Stand(auth=lambda scope: "carol" if (b"cookie", b"session=good") in scope["headers"] else None)
    good = {"cookie": "session=good"}
    assert (await stand.get("/api/session", known=False, headers=good)).status_code == 200
    for _ in range(30):
        await stand.get("/api/session", known=False, headers={"cookie": "session=old"})
    assert (await stand.get("/api/session", known=False, headers=good)).status_code == 200


class LostSwitch:
    """That of a fleet whose server is gone."""

    where = "redis://gone:6379/0"
    there = True

    def prepare(self):
        self.read()

    def read(self):
        from somaresil.chaos.killswitch import Reading

        if not self.there:
            raise ConnectionError("refused")
        return Reading(stamp=0, engaged=False, by="")

    def throw(self, by=""):
        self.read()

    def move_lever(self, engaged, by=""):
        self.read()


async def test_the_kill_switch_works_while_the_switch_of_the_fleet_cannot_be_reached(stand):
    """Nothing starts then, and what runs is stopped."""
    switch = LostSwitch()
    stand.chaos.add_switch(switch)
    assert (await stand.post("/api/experiments", {"plan": "slow model"})).status_code == 200
    switch.there = False
    told = await stand.post("/api/stop", {})
    assert (told.status_code, told.json()["done"], stand.chaos.runs) == (200, True, ())
    assert (await stand.post("/api/experiments", {"plan": "slow model"})).status_code == 409
    assert (await stand.post("/api/engage", {})).status_code == 200
