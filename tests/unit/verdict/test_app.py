"""What Argo, clients of Prometheus, Kayenta, pods and people get from the verdict app."""

from __future__ import annotations

import asyncio
import json
import math

import pytest

from somaresil import ConfigurationError
from somaresil.canary import CanaryConfig, CanaryController
from somaresil.canary.fleet import EvidenceInbox, FleetJudge
from somaresil.canary.telling import EvidenceTeller
from somaresil.mounted.auth import BearerToken
from somaresil.mounted.wire import SLOWEST
from somaresil.verdict import evidence_app, verdict_app
from tests.unit.canary.test_fleet import Fleet, Pod
from tests.unit.control.kit import raw
from tests.unit.slo.kit import availability, bad, good, process
from tests.unit.verdict.kit import FAIL, KNOWN, PASS, ROOT, TOKEN, WAIT, Judge, Stand, opinion

pytestmark = pytest.mark.asyncio


def _no_constant(text):
    raise AssertionError(text)


# -- Argo ---------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [PASS, FAIL, WAIT])
async def test_argo_gets_200_and_a_word_whatever_it_is(verdict):
    data = await Stand(Judge(opinion(verdict))).argo(canary="gateway", checksum="c1")
    assert (data["verdict"], data["reason"]) == (str(verdict), f"because of {verdict}")
    assert (data["events"], data["control_good"], data["missing"], data["age"]) == (200, 1_000, 1, 0.0)


@pytest.mark.parametrize(
    ("said", "asked"),
    [
        (RuntimeError("bug"), {}),
        (opinion(PASS), {"canary": "other"}),
        (opinion(WAIT, worse=math.nan, at=math.nan), {}),
        (opinion(WAIT, worse=math.inf), {}),
        (lambda _: None, {}),
    ],
)
async def test_argo_gets_wait_for_what_nobody_knows_and_a_number_for_each_number(said, asked):
    """No null and no NaN: either would be an error where a condition reads it."""
    stand = Stand(Judge(said))
    answer = await stand.ask("GET", "/argo/verdict", params=asked)
    data = json.loads(answer.text, parse_constant=_no_constant)["data"]
    assert (answer.status_code, data["verdict"]) == (200, "wait")
    assert data["reason"]
    for name in set(data) - {"verdict", "reason", "canary", "checksum"}:
        assert isinstance(data[name], int | float), name


async def test_argo_may_leave_out_the_only_canary_and_its_current_checksum():
    stand = Stand(Judge(opinion(PASS)))
    assert (await stand.argo())["reason"] == "nothing was started"
    await stand.hook("pre-rollout")
    assert (await stand.argo())["verdict"] == "pass"


async def test_asking_for_another_checksum_begins_nothing_and_passes_nothing():
    stand = Stand(Judge(opinion(PASS)))
    await stand.hook("pre-rollout")
    data = await stand.argo(checksum="typo")
    assert data["verdict"] == "wait"
    assert stand.judge.begun == ["c1"]


async def test_argo_gets_401_when_it_is_not_known():
    """Which is an error there, and neither a pass nor a failure."""
    assert (await Stand(Judge(opinion(PASS))).ask("GET", "/argo/verdict", known=False)).status_code == 401


# -- Prometheus ---------------------------------------------------------------------------------------------------------------------------


async def test_the_check_of_every_client_is_one():
    answer = (await Stand().query("vector(1)")).json()
    assert answer["status"] == "success"
    assert [(each["metric"], each["value"][1]) for each in answer["data"]["result"]] == [({}, "1")]


@pytest.mark.parametrize(("verdict", "value"), [(PASS, "1"), (WAIT, "0"), (FAIL, "-1")])
async def test_the_verdict_is_a_number_where_there_are_data(verdict, value):
    stand = Stand(Judge(opinion(verdict)))
    await stand.hook("rollout")
    (series,) = (await stand.query('somaresil_canary_verdict{canary="gateway"}')).json()["data"]["result"]
    assert series["metric"] == {"__name__": "somaresil_canary_verdict", "canary": "gateway", "checksum": "c1"}
    assert series["value"][1] == value


async def test_no_data_is_an_empty_vector():
    """Which Flagger takes for a failed check."""
    stand = Stand()
    await stand.hook("pre-rollout")
    for query in (
        "somaresil_canary_verdict",
        'somaresil_burn_rate{slo="up"}',
        "somaresil_error_budget_remaining",
        'somaresil_burn_rate{slo="other"}',
    ):
        answer = (await stand.query(query)).json()
        assert answer == {"status": "success", "data": {"resultType": "vector", "result": []}}


async def test_burn_rates_and_budgets_are_those_of_this_process():
    stand = Stand()
    guard = stand.resilience.guard("call", slo="up")
    good(guard, 90)
    bad(guard, 10)
    (series,) = (await stand.query('somaresil_burn_rate{slo="up",window="1h"}')).json()["data"]["result"]
    assert float(series["value"][1]) == pytest.approx(10.0)
    assert {each["metric"]["window"] for each in (await stand.query("somaresil_burn_rate")).json()["data"]["result"]} >= {"5m", "1h", "3d"}
    (series,) = (await stand.query("somaresil_error_budget_remaining{slo='up'}")).json()["data"]["result"]
    assert float(series["value"][1]) == pytest.approx(-9.0)


async def test_evidence_and_counts_are_series_too():
    stand = Stand(Judge(opinion(WAIT, worse=3.5)))
    await stand.hook("rollout")
    told = (await stand.query('somaresil_canary_evidence{against="worse"}')).json()["data"]["result"]
    assert [each["value"][1] for each in told] == ["3.5"]
    told = (await stand.query('somaresil_canary_events_total{side="control", outcome="good",}')).json()["data"]["result"]
    assert [each["value"][1] for each in told] == ["1000"]


async def test_a_form_is_answered_as_a_query_is():
    stand = Stand()
    answer = await stand.ask(
        "POST", "/prom/api/v1/query", data={"query": " vector( 1 ) ", "time": f"{stand.clock.time():.3f}", "timeout": "2m"}
    )
    assert (answer.status_code, len(answer.json()["data"]["result"])) == (200, 1)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "up",
        "1",
        "sum(somaresil_burn_rate)",
        "somaresil_burn_rate[5m]",
        'somaresil_burn_rate{slo=~"a.*"}',
        'somaresil_burn_rate{slo!="a"}',
        'somaresil_burn_rate{slo="a"',
        'somaresil_burn_rate{slo="a" slo="b"}',
        'somaresil_burn_rate{slo="a",slo="b"}',
        "somaresil_burn_rate{slo=a}",
        "somaresil_burn_rate > 1",
        'somaresil_burn_rate{slo="a"} or vector(0)',
        "somaresil_burn_rate{" + ",".join(f'l{number}="x"' for number in range(9)) + "}",
        'somaresil_burn_rate{slo="' + "x" * 3_000 + '"}',
        "vector(1e300)",
        "vector(-1)",
        'somaresil_burn_rate{slo="\\',
    ],
)
async def test_whatever_else_is_asked_is_bad_data(query):
    answer = await Stand().query(query)
    assert (answer.status_code, answer.json()["status"], answer.json()["errorType"]) == (400, "error", "bad_data")


@pytest.mark.parametrize("time", ["0", "yesterday", "1e400", "NaN", "2020-01-01T00:00:00Z", "-5"])
async def test_there_is_nothing_but_now(time):
    assert (await Stand().query("vector(1)", time=time)).status_code == 400


async def test_a_defect_is_no_data_in_the_form_of_prometheus():
    stand = Stand(Judge(RuntimeError("bug")))
    stand.judge.begin("c1")
    answer = await stand.query("somaresil_canary_verdict")
    assert (answer.status_code, answer.json()["errorType"]) == (500, "internal")


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
async def test_a_form_must_say_that_it_is_one(kind):
    answer = await Stand().ask("POST", "/prom/api/v1/query", content=b"query=vector(1)", headers={"content-type": kind})
    assert (answer.status_code, answer.json()["errorType"]) == (400, "bad_data")


async def test_clients_that_look_for_a_version_find_one():
    answer = (await Stand().ask("GET", "/prom/api/v1/status/buildinfo")).json()
    assert (answer["status"], answer["data"]["application"]) == ("success", "somaresil")


# -- Kayenta ------------------------------------------------------------------------------------------------------------------------------

JUDGED = {
    "canaryConfig": {"metrics": [{"name": "latency", "groups": ["g"], "analysisConfigurations": {"canary": {"direction": "increase"}}}]},
    "scoreThresholds": {"pass": 90, "marginal": 50},
    "metricSetPairList": [{"name": "latency", "id": "1", "values": {"control": [1, 2, 3, 4] * 5, "experiment": [101, 102, 103, 104] * 5}}],
}


async def test_kayenta_is_answered_as_its_own_judge_answers():
    answer = await Stand().post("/judge", JUDGED)
    assert answer.status_code == 200
    assert (answer.json()["judgeName"], answer.json()["score"]["classification"]) == ("somaresil", "Fail")


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"[]", 400), (b"{}", 400), (b"x" * 9_000_000, 413)])
async def test_what_is_no_request_of_kayenta_is_not_judged(body, status):
    answer = await Stand().ask("POST", "/judge", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_few_bodies_are_judged_at_once():
    stand = Stand()
    stand.app._judging = 4
    assert (await stand.post("/judge", JUDGED)).status_code == 503
    stand.app._judging = 0
    assert all(answer.status_code == 200 for answer in await asyncio.gather(*(stand.post("/judge", JUDGED) for _ in range(3))))
    assert stand.app._judging == 0


# -- pods ---------------------------------------------------------------------------------------------------------------------------------


def fleet():
    resilience, clock = process(availability())
    inbox = EvidenceInbox(resilience)
    return FleetJudge(resilience, name="gateway", bad="up", sources=[inbox]), clock


async def test_what_pods_push_becomes_an_opinion():
    judge, clock = fleet()
    clock.step_wall(-(clock.time() % 10.0) + 0.5)
    stand = Stand(judge)
    pods = [Pod(clock, "gw-canary", "candidate"), Pod(clock, "gw", "control")]
    assert (await stand.hook("pre-rollout")).status_code == 200
    for _ in range(4):
        clock.advance(10.0)
        for pod in pods:
            pod.serve(100)
            pod.mark()
            answer = await stand.post("/evidence/gateway", pod.tell())
            assert (answer.status_code, answer.json()["taken"]) == (200, pod.instance)
        judge.look()
    assert (await stand.hook("confirm-promotion")).status_code == 200
    assert (await stand.post("/evidence", pods[0].tell())).status_code == 200


async def test_what_is_no_evidence_is_not_taken_and_unknown_pods_are_not_heard():
    judge, clock = fleet()
    stand, pod = Stand(judge), Pod(clock, "gw", "control")
    for body in ([], {}, {**pod.tell(), "marks": [{"at": 0, "counts": {"up": [1e300, 0]}}]}):
        answer = await stand.post("/evidence", body)
        assert answer.status_code == 422
        assert answer.json()["problems"]
    assert (await stand.post("/evidence", pod.tell(), known=False)).status_code == 401
    assert (await stand.post("/evidence/other", pod.tell())).status_code == 404
    assert (await Stand().post("/evidence", pod.tell())).status_code == 409


async def test_a_pod_shows_its_evidence_to_those_whom_it_knows():
    resilience, _ = process(availability())
    teller = EvidenceTeller(resilience, bad="up", pod="gw-1")
    app = evidence_app(teller, resilience=resilience, auth=BearerToken(TOKEN))
    scope = {"path": "/evidence", "root_path": "/evidence"}
    known = [(b"authorization", KNOWN["authorization"].encode())]
    for headers, method, status in ((known, "GET", 200), ([], "GET", 401), (known, "POST", 405)):
        head, body = await raw(app, headers=headers, method=method, **scope)
        assert head["status"] == status
    with pytest.raises(ConfigurationError):
        evidence_app(None, resilience=resilience, auth=None)  # type: ignore[arg-type]
    teller.tell = None
    head, body = await raw(app, headers=known, method="GET", **scope)
    assert (head["status"], b"defect" in body["body"]) == (500, True)


# -- people -------------------------------------------------------------------------------------------------------------------------------

FORM = {"canary", "version", "checksum", "phase", "weight", "paused", "leads", "baked", "events"} | {
    "verdict",
    "reason",
    "evidence",
    "missing",
    "at",
}


async def test_people_see_how_it_stands_and_have_their_word():
    judge, _ = fleet()
    stand = Stand(judge)
    (shown,) = (await stand.ask("GET", "/canaries")).json()["canaries"]
    assert set(shown) == FORM
    assert (shown["canary"], shown["checksum"], shown["verdict"]) == ("gateway", None, "wait")
    judge.begin("c1")
    answer = await stand.post("/canaries/gateway/promote", {"reason": "seen by eye"})
    assert (answer.status_code, answer.json()["verdict"], answer.json()["reason"]) == (200, "pass", "engine: seen by eye")
    assert (await stand.hook("confirm-promotion")).status_code == 200
    assert (await stand.post("/canaries/gateway/pause", {})).json()["paused"] is True
    assert (await stand.hook("confirm-promotion")).status_code == 409
    assert (await stand.post("/canaries/gateway/resume", {})).json()["paused"] is False
    shown = (await stand.post("/canaries/gateway/rollback", {"reason": "customers"})).json()
    assert (shown["verdict"], shown["phase"], shown["evidence"]["worse"]) == ("fail", "rollback", 1.0)
    assert (await stand.hook("rollback")).status_code == 200
    assert (await stand.ask("GET", "/canaries/gateway")).json() == shown


@pytest.mark.parametrize(
    ("body", "status"),
    [("[]", 422), ('{"reason": 7}', 422), ('{"why": "x"}', 422), ('{"reason": "a\\u0000b"}', 422), ("{", 400), ("", 400)],
)
async def test_what_people_cannot_mean_does_nothing(body, status):
    judge, _ = fleet()
    judge.begin("c1")
    stand = Stand(judge)
    answer = await stand.ask("POST", "/canaries/gateway/rollback", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert (await stand.argo())["verdict"] == "wait"


async def test_people_who_are_not_known_see_and_do_nothing():
    judge, _ = fleet()
    judge.begin("c1")
    stand = Stand(judge)
    assert (await stand.post("/canaries/gateway/promote", {}, known=False)).status_code == 401
    assert (await stand.ask("GET", "/canaries", known=False)).text == "who is this?"
    assert (await stand.argo())["verdict"] == "wait"
    assert (await stand.post("/canaries/other/promote", {})).status_code == 404
    assert (await Stand().post("/canaries/gateway/promote", {})).status_code == 409


async def test_a_body_that_does_not_come_is_given_up():
    stand = Stand(Judge(opinion(PASS)))
    headers = [(b"authorization", KNOWN["authorization"].encode()), (b"content-type", b"application/json")]
    before = stand.clock.monotonic()
    head, body = await raw(
        stand.app,
        {"type": "http.request", "body": b'{"name"', "more_body": True},
        path=f"{ROOT}/flagger/rollout",
        root_path=ROOT,
        headers=headers,
    )
    assert (head["status"], b"did not come" in body["body"]) == (408, True)
    assert stand.clock.monotonic() - before <= SLOWEST + 1.0


async def test_there_is_no_app_without_an_authenticator_or_without_canaries():
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError) as caught:
        verdict_app({"no name": 7}, resilience=resilience, auth=None, while_waiting="maybe", free_steps=-1)  # type: ignore[arg-type]
    paths = [problem.path.partition(".")[2].partition("[")[0] for problem in caught.value.problems]
    assert paths == ["canaries", "canaries", "auth", "while_waiting", "free_steps"]
    with pytest.raises(ConfigurationError):
        verdict_app({}, resilience=resilience, auth=BearerToken(TOKEN))


async def test_an_authenticator_that_breaks_lets_nobody_in():
    def broken(_):
        raise RuntimeError

    stand = Stand(Judge(opinion(PASS)), auth=broken)
    assert (await stand.hook("confirm-promotion")).status_code == 401
    assert stand.app.denied == 1


async def test_a_controller_between_pods_has_its_judge_and_people_and_engines_see_the_same():
    """The whole way: pods, judge, controller, app."""
    pods = Fleet(begin="")
    config = CanaryConfig(name="gateway", bad="up", steps=[10, 100], bake=20.0, minimum_events=100, interval=None)
    controller = CanaryController(pods.resilience, config, judge=pods.judge)
    stand = Stand(controller)
    controller.start("v2", checksum="c1")
    assert (await stand.argo(checksum="c1"))["verdict"] == "wait"
    pods.tick()
    for _ in range(3):
        pods.run(2)
        controller.evaluate()
    pods.run(2)
    controller.evaluate()
    shown = (await stand.ask("GET", "/canaries/gateway")).json()
    assert (shown["version"], shown["phase"], shown["weight"], shown["verdict"]) == ("v2", "complete", 1.0, "pass")
    assert (shown["missing"], shown["evidence"]["candidate_bad"]) == ([], 0)
    assert shown["at"] == pods.says("c1").at
    controller.start("v3", checksum="c2")
    pods.tick()
    pods.run(2, candidate=(20, 20))
    controller.evaluate()
    answer = await stand.hook("rollback", body={"checksum": "c2"})
    assert (answer.status_code, controller.phase) == (200, "rollback")
    assert answer.text.startswith("fail: worse than the control (20 of 20 bad")
