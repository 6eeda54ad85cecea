"""Evidence of real pods: served by uvicorn and scraped, pushed to a judge, written to Redis; and pods that answer nonsense."""

from __future__ import annotations

import math
import socket
import threading
import time
from contextlib import ExitStack, closing, suppress

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from somaresil import ConfigurationError, ManualClock, Resilience
from somaresil.canary.fleet import EvidenceInbox, FleetJudge
from somaresil.canary.telling import EvidenceTeller
from somaresil.integrations._pods import LARGEST
from somaresil.integrations.evidence import EvidencePush, ScrapeSource
from somaresil.integrations.prometheus import metrics_app
from somaresil.integrations.redisevidence import RedisEvidence
from somaresil.model.rollout import Verdict
from somaresil.mounted.auth import BearerToken
from somaresil.verdict import evidence_app, verdict_app
from tests.integration.test_verdict_peers import serving
from tests.unit.slo.kit import availability, bad, good

TOKEN = "evidence-0123456789-abcdefghijklmnop"
EVERY = 10.0


class Wall(ManualClock):
    """Marks come when the test says so; everything else waits as the machine does."""

    def wait(self, event, timeout):
        return event.wait(timeout)

    async def await_(self, future, timeout):
        import asyncio

        done, _ = await asyncio.wait((future,), timeout=timeout)
        return bool(done)


class Pod:
    """A process with an objective, whose calls end as the test says."""

    def __init__(self, clock, name, role="", checksum="", to=()):
        self.resilience = Resilience("gateway", instance=name, environment="test", clock=clock, seed=1)
        self.resilience.slos.add(availability())
        self.guard = self.resilience.guard("call", slo="up")
        self.teller = EvidenceTeller(self.resilience, bad="up", role=role, checksum=checksum, pod=name, to=to)
        self.app = Starlette(
            routes=[
                Mount("/evidence", evidence_app(self.teller, resilience=self.resilience, auth=BearerToken(TOKEN))),
                Mount("/metrics", metrics_app(self.resilience)),
            ]
        )
        self.port = 0

    def url(self, path="/evidence/"):
        return f"http://127.0.0.1:{self.port}{path}"

    def serve(self, fine, broken=0):
        good(self.guard, fine)
        bad(self.guard, broken)


@pytest.fixture
def clock():
    made = Wall()
    made.step_wall(-(made.time() % EVERY) + 0.5)
    return made


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("EVIDENCE_TOKEN", TOKEN)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return {"token_env": "EVIDENCE_TOKEN"}


def judge_of(clock, *sources, **options):
    resilience = Resilience("judge", environment="test", clock=clock, seed=2)
    return FleetJudge(resilience, **{"name": "gateway", "bad": "up", "sources": sources, **options})


def rounds(clock, judge, pods, times, *, candidate=(50, 0), control=(50, 0), tell=False):
    for _ in range(times):
        clock.advance(EVERY)
        for pod in pods:
            pod.teller.mark()
            if tell:
                for each in pod.teller._to:
                    each(pod.teller.tell())
        judge.look()
        for pod, (fine, broken) in zip(pods, (candidate, control), strict=True):
            pod.serve(fine, broken)


@pytest.mark.parametrize("path", ["/evidence/", "/metrics/"])
def test_pods_that_are_scraped_become_an_opinion(clock, token, path):
    form = "prometheus" if "metrics" in path else "evidence"
    pods = [Pod(clock, "canary"), Pod(clock, "stable")]
    with ExitStack() as running:
        for pod in pods:
            pod.port = running.enter_context(serving(pod.app))
        sources = [
            ScrapeSource(pod.url(path), role=role, form=form, clock=clock, **({} if form == "prometheus" else token))
            for pod, role in zip(pods, ("candidate", "control"), strict=True)
        ]
        judge = judge_of(clock, *sources)
        judge.begin("c1")
        rounds(clock, judge, pods, 5)
        said = judge.opinion("c1")
        assert (said.verdict, said.missing) == (Verdict.PASS, ()), said
        judge.begin("c2")
        rounds(clock, judge, pods, 4, candidate=(10, 10))
        assert judge.opinion("c2").verdict is Verdict.FAIL
        assert judge.opinion("c1").verdict is not Verdict.FAIL
    rounds(clock, judge, pods, 1)
    assert len(judge.opinion("c2").missing) == 2


def test_a_pod_that_wants_to_know_who_asks_is_missing_for_a_stranger(clock):
    pod = Pod(clock, "canary", "candidate")
    with serving(pod.app) as pod.port:
        reading = ScrapeSource(pod.url(), role="candidate").read()
    assert [(each.why, each.role) for each in reading.absent] == [("it answers 401", "candidate")]


NONSENSE = {
    "/redirect": (RedirectResponse("/evidence"), "it answers 307"),
    "/empty": (Response(b""), "its answer is no JSON"),
    "/text": (PlainTextResponse("hello"), "its answer is no JSON"),
    "/list": (Response(b"[]"), "its answer is no evidence"),
    "/deep": (Response(b"[" * 100_000), "its answer is no JSON"),
    "/large": (Response(b" " * (LARGEST + 1)), f"its answer has more than {LARGEST} bytes"),
    "/error": (Response(b"{}", status_code=503), "it answers 503"),
    "/encoded": (Response(b"{}", headers={"content-encoding": "gzip"}), "its answer is encoded, which was not asked for"),
}


def test_what_is_no_evidence_has_its_reason():
    app = Starlette(routes=[Route(path, lambda _, answer=answer: answer) for path, (answer, _) in NONSENSE.items()])
    with serving(app) as port:
        for path, (_, why) in NONSENSE.items():
            reading = ScrapeSource(f"http://127.0.0.1:{port}{path}").read()
            assert ([each.why for each in reading.absent], reading.told) == ([why], ()), path


@pytest.mark.parametrize(
    "line",
    [
        'somaresil_sli_events_total{slo="up",outcome="good"} NaN',
        'somaresil_sli_events_total{slo="up",outcome="good"} +Inf',
        'somaresil_sli_events_total{slo="up",outcome="good"} -1',
        'somaresil_sli_events_total{slo="up",outcome="good"} 1e300',
        'somaresil_sli_events_total{slo="up",outcome="good"} 1.5',
        "nothing",
    ],
)
def test_metrics_that_are_none_are_no_evidence(clock, line):
    app = Starlette(routes=[Route("/metrics", lambda _: PlainTextResponse(line))])
    with serving(app) as port:
        judge = judge_of(clock, ScrapeSource(f"http://127.0.0.1:{port}/metrics", role="candidate", form="prometheus", clock=clock))
        judge.begin("c1")
        for _ in range(4):
            clock.advance(EVERY)
            judge.look()
    said = judge.opinion("c1")
    assert (said.verdict, said.finding.counts.candidate) == (Verdict.WAIT, 0)
    assert said.missing


def test_pods_that_hang_or_drip_cost_no_more_than_the_timeout():
    """All of them together."""
    ended = threading.Event()

    def drip(listener):
        held = []
        listener.settimeout(0.2)
        while not ended.is_set():
            with suppress(TimeoutError):
                held.append(listener.accept()[0])
            for each in held:
                try:
                    each.send(b"H")
                except OSError:
                    continue
        for each in held:
            each.close()

    with closing(socket.create_server(("127.0.0.1", 0))) as slow, closing(socket.create_server(("127.0.0.1", 0))) as silent:
        thread = threading.Thread(target=drip, args=(slow,), daemon=True)
        thread.start()
        urls = [f"http://127.0.0.1:{each.getsockname()[1]}/{number}" for each in (slow, silent) for number in range(10)]
        before = time.monotonic()
        reading = ScrapeSource([*urls, "http://127.0.0.1:1/", "http://nothing.invalid/"], timeout=0.5).read()
        took = time.monotonic() - before
        ended.set()
        thread.join(5.0)
    assert took < 3.0
    assert reading.told == ()
    whys = {each.why for each in reading.absent}
    assert "no answer within 0.5 s" in whys
    assert any(why.startswith("ConnectionRefusedError") for why in whys)
    assert any("name was not found" in why for why in whys)


def test_pods_that_push_become_an_opinion(clock, token):
    resilience = Resilience("judge", environment="test", clock=clock, seed=2)
    inbox = EvidenceInbox(resilience)
    judge = FleetJudge(resilience, name="gateway", bad="up", sources=[inbox])
    app = verdict_app({"gateway": judge}, resilience=resilience, auth=BearerToken(TOKEN))
    with serving(Starlette(routes=[Mount("/canary", app)])) as port:
        push = EvidencePush(f"http://127.0.0.1:{port}/canary/evidence/gateway", **token)
        pods = [Pod(clock, "canary", "candidate", to=[push]), Pod(clock, "stable", "control", to=[push])]
        judge.begin("c1")
        rounds(clock, judge, pods, 5, tell=True)
        assert judge.opinion("c1").verdict is Verdict.PASS
        with pytest.raises(OSError, match="404"):
            EvidencePush(f"http://127.0.0.1:{port}/canary/evidence/other", **token)(pods[0].teller.tell())
        with pytest.raises(OSError, match="401"):
            EvidencePush(f"http://127.0.0.1:{port}/canary/evidence/gateway")(pods[0].teller.tell())


def test_pods_that_write_to_redis_become_an_opinion(clock, redis_server):
    evidence = RedisEvidence(redis_server.url, "gateway", keep=30.0)
    pods = [Pod(clock, "canary", "candidate", to=[evidence]), Pod(clock, "stable", "control", to=[evidence])]
    judge = judge_of(clock, evidence)
    judge.begin("c1")
    rounds(clock, judge, pods, 5, tell=True)
    assert (judge.opinion("c1").verdict, judge.opinion("c1").missing) == (Verdict.PASS, ())
    client = evidence._client
    assert 0 < client.pttl(f"somaresil:{{gateway}}:evidence:{pods[0].teller.instance}") <= 30_000
    client.set(f"somaresil:{{gateway}}:evidence:{pods[0].teller.instance}", "nonsense")
    client.delete(f"somaresil:{{gateway}}:evidence:{pods[1].teller.instance}")
    reading = evidence.read()
    assert ([each.why for each in reading.absent], reading.told) == (["what it wrote is no evidence"], ())
    assert client.zcard("somaresil:{gateway}:evidence") == 1
    for number in range(300):
        evidence({**pods[0].teller.tell(), "instance": f"i{number}", "time": clock.time() + number})
    assert len(evidence.read().told) == 256


def test_a_redis_that_is_gone_lets_nothing_pass(clock, redis_server):
    evidence = RedisEvidence(redis_server.url, "gateway")
    pods = [Pod(clock, "canary", "candidate", to=[evidence]), Pod(clock, "stable", "control", to=[evidence])]
    judge = judge_of(clock, evidence)
    judge.begin("c1")
    rounds(clock, judge, pods, 5, tell=True)
    assert judge.opinion("c1").verdict is Verdict.PASS
    redis_server.kill()
    for _ in range(3):
        clock.advance(EVERY)
        judge.look()
    assert judge.opinion("c1").verdict is Verdict.WAIT
    assert judge.opinion("c1").missing[0].startswith("RedisEvidence: ConnectionError")


def test_threads_of_pods_and_judge_find_each_other_by_the_clock_of_the_machine(token):
    """Nothing is moved by hand: marks every second, a judge that scrapes, a candidate that fails."""
    from somaresil.clock import SystemClock

    pods = [Pod(SystemClock(), "canary", "candidate"), Pod(SystemClock(), "stable", "control")]
    with ExitStack() as running:
        for pod in pods:
            pod.teller = EvidenceTeller(pod.resilience, bad="up", role=pod.teller.role, pod=pod.teller.pod, every=1.0)
            app = Starlette(routes=[Mount("/evidence", evidence_app(pod.teller, resilience=pod.resilience, auth=BearerToken(TOKEN)))])
            pod.port = running.enter_context(serving(app))
            pod.teller.start()
            running.callback(pod.teller.stop)
        judge = judge_of(SystemClock(), *(ScrapeSource(pod.url(), **token) for pod in pods), every=1.0)
        judge.begin("c1")
        judge.start()
        running.callback(judge.stop)
        deadline = time.monotonic() + 20.0
        while (said := judge.opinion("c1")).verdict is not Verdict.FAIL:
            assert time.monotonic() < deadline, said
            pods[0].serve(1, 1)
            pods[1].serve(20)
            time.sleep(0.05)
        assert math.isfinite(said.finding.worse)


def test_all_problems_of_a_source_are_told_at_once():
    with pytest.raises(ConfigurationError) as caught:
        ScrapeSource("ftp://pod", role="boss", checksum="\n", form="xml", every=0.5, timeout=0, token_env="NO_SUCH_VARIABLE_HERE")
    paths = [problem.path.partition(".")[2] for problem in caught.value.problems]
    assert paths == ["url", "role", "checksum", "form", "every", "timeout", "token_env"]
    with pytest.raises(ConfigurationError):
        ScrapeSource("http://pod/metrics", form="prometheus")
    with pytest.raises(ConfigurationError):
        EvidencePush("judge", timeout=-1)
    with pytest.raises(ConfigurationError):
        RedisEvidence("http://localhost", "no name", keep=0.0)
