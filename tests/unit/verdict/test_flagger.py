"""Flagger's hooks: yes is 200, no is 409 with a reason, ``rollback`` is the other way round, and what is broken decides nothing."""

from __future__ import annotations

import pytest

from somaresil.canary import CanaryConfig, CanaryController
from somaresil.verdict.flagger import HOOKS
from tests.unit.slo.kit import availability, process
from tests.unit.verdict.kit import FAIL, PASS, WAIT, Judge, Stand, opinion

pytestmark = pytest.mark.asyncio

NORMAL = tuple(hook for hook in HOOKS if hook not in {"rollback", "post-rollout", "event"})
TABLE = {
    "confirm-rollout": (200, 409, 200),
    "pre-rollout": (200, 409, 200),
    "rollout": (200, 409, 409),
    "confirm-traffic-increase": (200, 409, 409),
    "confirm-promotion": (200, 409, 409),
    "post-rollout": (200, 200, 200),
    "event": (200, 200, 200),
    "rollback": (409, 200, 409),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize(("verdict", "column"), [(PASS, 0), (FAIL, 1), (WAIT, 2)])
async def test_each_hook_has_its_answer_to_each_verdict(hook, verdict, column):
    """With data; without the gates of Flagger."""
    stand = Stand(Judge(opinion(verdict)))
    for _ in range(2):
        answer = await stand.hook(hook)
        assert answer.status_code == TABLE[hook][column]
        assert "\n" not in answer.text
        assert answer.headers["content-type"].startswith("text/plain")
        if hook not in {"event", "post-rollout"}:
            assert f"{verdict}: because of {verdict}" in answer.text


@pytest.mark.parametrize("hook", NORMAL)
@pytest.mark.parametrize("defect", [RuntimeError("bug"), RecursionError(), ValueError("x\ny")])
async def test_a_defect_stops_what_goes_on_and_starts_nothing(hook, defect):
    stand = Stand(Judge(defect))
    answer = await stand.hook(hook)
    assert (answer.status_code, answer.text) == (409, "a defect of the verdict app; it was reported, and nothing is known")
    assert stand.defects


@pytest.mark.parametrize("said", [RuntimeError("bug"), "nothing", {"verdict": "fail"}, opinion(WAIT, seen=0, at=None), opinion(PASS)])
async def test_nothing_but_a_proven_failure_rolls_back(said):
    stand = Stand(Judge(said if not isinstance(said, str | dict) else lambda _: said))
    assert (await stand.hook("rollback")).status_code == 409


async def test_unknown_callers_canaries_and_hooks_neither_promote_nor_roll_back():
    for verdict in (PASS, FAIL):
        stand = Stand(Judge(opinion(verdict)))
        for hook in HOOKS:
            unknown = await stand.hook(hook, known=False)
            assert (unknown.status_code, unknown.text) == (401, "who is this?")
            other = await stand.hook(hook, body={"name": "other"})
            assert (other.status_code, other.text) == (409, "no canary is called 'soma/other' or 'other' here")
        for hook in ("confirm-rolout", "rollbacks", "x"):
            assert (await stand.hook(hook)).status_code == 404
        assert stand.judge.begun == []


async def test_a_near_miss_of_a_hook_is_told():
    assert "did you mean 'confirm-rollout'?" in (await Stand().hook("confirm-rolout")).text


BAD = [
    (b"", 400),
    (b"not json", 400),
    (b"\xff\xfe", 400),
    (b"[]", 422),
    (b"7", 422),
    (b"null", 422),
    (b"{}", 409),
    (b'{"name": "gateway", "namespace": "soma", "checksum": 7}', 422),
    (b'{"name": ["gateway"], "namespace": "soma", "checksum": "c1"}', 422),
    (b'{"name": "gateway", "namespace": "soma"}', 422),
    (b'{"name": "gateway", "name": "other", "checksum": "c1"}', 400),
    (b'{"name": "gateway", "checksum": NaN}', 400),
    (b"[" * 60_000, 400),
    (b'{"name": "gateway", "checksum": "' + b"x" * 70_000 + b'"}', 413),
    (b"x" * 10_000_000, 413),
]


@pytest.mark.parametrize(("body", "status"), BAD)
@pytest.mark.parametrize("hook", ["rollout", "rollback", "confirm-promotion"])
async def test_bodies_that_are_none_have_an_answer_and_decide_nothing(hook, body, status):
    stand = Stand(Judge(opinion(FAIL if hook == "rollback" else PASS)))
    answer = await stand.ask("POST", f"/flagger/{hook}", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.text
    assert stand.judge.begun == []


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"])
async def test_a_body_must_say_that_it_is_json(kind):
    headers = {} if kind is None else {"content-type": kind}
    answer = await Stand(Judge(opinion(PASS))).ask("POST", "/flagger/rollout", content=b"{}", headers=headers)
    assert answer.status_code == 415


async def test_a_get_is_no_hook():
    answer = await Stand().ask("GET", "/flagger/rollout")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_the_first_interval_does_not_roll_back_once_a_gate_holds_the_traffic():
    """At first nothing is known. Flagger asks ``confirm-traffic-increase`` before the first step, and ``rollout`` after it."""
    stand = Stand()
    assert (await stand.hook("pre-rollout")).status_code == 200
    assert (await stand.hook("confirm-traffic-increase")).status_code == 200
    for _ in range(3):
        stand.clock.advance(10.0)
        assert (await stand.hook("rollout")).status_code == 200
        assert (await stand.hook("confirm-traffic-increase")).status_code == 409
        assert (await stand.hook("confirm-promotion")).status_code == 409
        assert (await stand.hook("rollback")).status_code == 409


async def test_without_a_gate_waiting_holds_for_otherwise_time_alone_would_promote():
    stand = Stand()
    answer = await stand.hook("rollout")
    assert (answer.status_code, "so this is what holds it" in answer.text) == (409, True)


@pytest.mark.parametrize(("option", "status"), [("go", 200), ("hold", 409)])
async def test_what_rollout_is_told_while_waiting_can_be_said(option, status):
    stand = Stand(while_waiting=option)
    await stand.hook("confirm-promotion")
    assert (await stand.hook("rollout")).status_code == status
    assert (await stand.hook("confirm-promotion")).status_code == 409


async def test_steps_without_data_are_as_many_as_was_said_and_a_lost_answer_is_repeated():
    stand = Stand(free_steps=2)
    told = []
    for _ in range(4):
        for _ in range(2):
            told.append((await stand.hook("confirm-traffic-increase")).status_code)
            stand.clock.advance(1.0)
        stand.clock.advance(10.0)
    assert told == [200, 200, 200, 200, 409, 409, 409, 409]
    assert (await stand.hook("confirm-traffic-increase", body={"checksum": "c2"})).status_code == 200
    none = Stand(free_steps=0)
    assert (await none.hook("confirm-traffic-increase")).status_code == 409


async def test_evidence_begins_once_a_checksum():
    stand = Stand()
    for hook in ("confirm-rollout", "confirm-rollout", "pre-rollout", "rollout"):
        await stand.hook(hook)
    assert stand.judge.begun == ["c1"]
    await stand.hook("rollback", body={"checksum": "c2"})
    await stand.hook("event", body={"checksum": "c3"})
    assert stand.judge.begun == ["c1", "c2"]


async def test_while_it_is_paused_nothing_grows_and_nothing_fails():
    stand = Stand()
    await stand.hook("confirm-traffic-increase")
    stand.judge.paused = "by hand"
    told = {hook: (await stand.hook(hook)).status_code for hook in HOOKS}
    assert told == {
        "confirm-rollout": 409,
        "pre-rollout": 409,
        "rollout": 200,
        "confirm-traffic-increase": 409,
        "confirm-promotion": 409,
        "post-rollout": 200,
        "event": 200,
        "rollback": 409,
    }


async def test_canaries_are_found_by_the_path_by_their_namespace_and_by_their_name():
    stand = Stand(Judge(opinion(PASS)), name="soma/gateway")
    assert (await stand.hook("rollout")).status_code == 200
    assert (await stand.hook("rollout", body={"namespace": "other"})).status_code == 409
    assert (await stand.hook("soma/gateway/rollout", body={"namespace": "other"})).status_code == 200
    stand = Stand(Judge(opinion(PASS)))
    assert (await stand.hook("gateway/rollout", body={"name": "anything"})).status_code == 200
    assert (await stand.hook("other/rollout")).status_code == 409


async def test_many_checksums_need_no_memory():
    stand = Stand()
    for number in range(400):
        await stand.hook("rollout", body={"checksum": f"c{number}"})
    assert len(stand.app._hooks._known) == 256


async def test_a_controller_is_judged_by_its_own_rollout_and_its_own_checksum():
    resilience, _ = process(availability())
    controller = CanaryController(resilience, CanaryConfig(name="answer", bad="up", interval=None))
    stand = Stand(controller)
    assert (await stand.hook("rollback")).status_code == 409
    controller.start("v2", checksum="c1")
    assert (await stand.hook("confirm-promotion")).status_code == 409
    assert (await stand.hook("rollback", body={"checksum": "c2"})).status_code == 409
    controller.roll_back("by hand")
    answer = await stand.hook("rollback")
    assert (answer.status_code, answer.text) == (200, "fail: by hand")
    controller.start("v3", checksum="c3")
    for _ in range(4):
        controller.promote("by hand")
    assert (await stand.hook("confirm-promotion", body={"checksum": "c3"})).status_code == 200
    assert (await stand.hook("confirm-promotion", body={"checksum": "c1"})).status_code == 409
