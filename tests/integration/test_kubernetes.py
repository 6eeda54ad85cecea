"""Flagger and Argo Rollouts as routers, before a stand-in of the API server on loopback that keeps the objects."""

from __future__ import annotations

import asyncio
import sys
import threading
from datetime import timedelta

import pytest

from somaresil import SLO, CanaryConfig, CanaryController, ConfigurationError, ManualClock, Resilience
from somaresil.canary import Verdict
from somaresil.canary.ledger import Counts, Finding
from somaresil.canary.opinion import Opinion
from somaresil.canary.router import RouterError, TrafficRouter
from somaresil.integrations.kubernetes import ArgoRollout, FlaggerCanary
from tests.integration.servers import HOST, free_port

kmock = pytest.importorskip("kmock")
lightkube = pytest.importorskip("lightkube")
jsonpatch = pytest.importorskip("jsonpatch")

CANARIES = kmock.resource("canaries.v1beta1.flagger.app")
ROLLOUTS = kmock.resource("rollouts.v1alpha1.argoproj.io")
DEPLOYMENTS = kmock.resource("deployments.v1.apps")


def client(port, timeout=5.0):
    from lightkube.config.models import Cluster, User

    config = lightkube.KubeConfig.from_one(cluster=Cluster(server=f"http://{HOST}:{port}"), user=User(token="token"))
    return lightkube.Client(config=config, timeout=timeout, trust_env=False)


class Emulator(kmock.KubernetesEmulator):
    """With what kmock leaves out: patches in RFC 6902, a status that only its subresource changes, and orders that are refused."""

    refuse = ()

    async def _handle(self, request):
        for code, verb, word in self.refuse:
            if request.method == verb and word in str(request.url):
                return await self._refused(code)
        key = (request.resource, request.namespace, request.name)
        if request.method == "PATCH" and key in self._objects:
            before = self._objects[key].raw
            data = request.data
            if isinstance(data, list):
                assert request.headers["Content-Type"] == "application/json-patch+json"
                data = jsonpatch.apply_patch(before, data)
            else:
                assert request.headers["Content-Type"] == "application/merge-patch+json"
            status = request.subresource == "status"
            # The same object: kmock knows requests by identity.
            object.__setattr__(request, "data", {name: value for name, value in data.items() if (name == "status") == status})
        return await super()._handle(request)

    async def _refused(self, code):
        from aiohttp import web

        if code == 0:
            return web.Response(text="<html>no JSON</html>", content_type="text/html")
        text = f'{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the server says no","reason":"No","code":{code}}}'
        return web.Response(status=code, body=text.encode(), content_type="application/json")


class Api:
    """The stand-in, seen from a test."""

    def __init__(self, emulator, server):
        self.emulator, self.server = emulator, server
        self.clients = []

    @property
    def client(self):
        made = client(self.server.port)
        self.clients.append(made)
        return made

    def put(self, resource, content, name="gateway"):
        content = {"metadata": {"name": name, "namespace": "soma", **content.pop("metadata", {})}, **content}
        self.emulator.objects[resource, "soma", name] = content

    def find(self, resource, name="gateway"):
        return self.emulator.objects[resource, "soma", name].raw

    def change(self, resource, **parts):
        for part, changes in parts.items():
            self.find(resource).setdefault(part, {}).update(changes)

    def images(self, resource, name="gateway"):
        containers = self.find(resource, name)["spec"]["template"]["spec"]["containers"]
        return {each["name"]: each["image"] for each in containers}


@pytest.fixture
def api():
    """Run the stand-in in a loop of its own, for the clients block."""
    ready, over, made = threading.Event(), [], []

    async def serve():
        ended = asyncio.Event()
        async with Emulator() as emulator, kmock.Server(emulator) as server:
            over.extend([asyncio.get_running_loop(), ended])
            made.append(Api(emulator, server))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(20)
        yield made[0]
    finally:
        for each in made[0].clients if made else []:
            each._client._client.close()
        if over:
            over[0].call_soon_threadsafe(over[1].set)
        thread.join(20)


def pod(**images):
    return {"template": {"spec": {"containers": [{"name": name, "image": image, "ports": []} for name, image in images.items()]}}}


def canary(phase, weight=0, **spec):
    hooks = [{"name": "somaresil-rollback", "type": "rollback", "url": "http://verdicts/flagger/gateway/rollback"}]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "gateway"}
    return {
        "spec": {"targetRef": target, "analysis": {"webhooks": hooks}, **spec},
        "status": {"phase": phase, "canaryWeight": weight, "failedChecks": 0, "lastAppliedSpec": "5c9f", "iterations": 0},
    }


def rollout(phase, *, stable="aaa", current="bbb", **status):
    steps = [{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]
    return {
        "metadata": {"generation": 3},
        "spec": {"workloadRef": {"kind": "Deployment", "name": "gateway"}, "strategy": {"canary": {"steps": steps}}},
        "status": {"phase": phase, "stableRS": stable, "currentPodHash": current, "observedGeneration": "3", **status},
    }


def test_flagger_is_begun_stopped_and_asked(api):
    """The image of one container alone changes; suspend and promote are fields of the spec, and start takes them back."""
    api.put(CANARIES, canary("Progressing", 30))
    api.put(DEPLOYMENTS, {"spec": pod(proxy="envoy:1", gateway="registry/gateway:v1")})
    router = FlaggerCanary("gateway", namespace="soma", image="registry/gateway:{version}", client=api.client)
    assert isinstance(router, TrafficRouter)
    assert not router.steps
    router.start("v2")
    assert api.images(DEPLOYMENTS) == {"proxy": "envoy:1", "gateway": "registry/gateway:v2"}
    status = router.status()
    assert (status.phase, status.weight, status.version, status.paused) == ("Progressing", 0.3, "5c9f", False)
    router.suspend()
    assert router.status().paused
    router.resume()
    assert not router.status().paused
    router.promote()
    assert api.find(CANARIES)["spec"]["skipAnalysis"] is True
    router.start("v3")
    assert api.find(CANARIES)["spec"]["skipAnalysis"] is False
    with pytest.raises(RouterError, match="moves the weights itself"):
        router.set_weight(0.5)
    api.change(CANARIES, status={"phase": "Succeeded", "canaryWeight": 0})
    assert router.status().weight == 1.0


def test_flagger_is_not_believed_to_have_rolled_back_until_it_has(api):
    """It has no order for that: each call is an error until its status says so, and a canary that is suspended goes on."""
    api.put(CANARIES, canary("Progressing", 30, suspend=True, skipAnalysis=True))
    router = FlaggerCanary("gateway", namespace="soma", client=api.client)
    with pytest.raises(RouterError, match="rollback is asked at the next look \\(too many errors\\)"):
        router.abort("too many\n errors")
    assert (api.find(CANARIES)["spec"]["suspend"], api.find(CANARIES)["spec"]["skipAnalysis"]) == (False, False)
    api.change(CANARIES, status={"phase": "Failed", "canaryWeight": 0})
    router.abort("too many errors")
    api.change(CANARIES, status={"phase": "Succeeded"})
    with pytest.raises(RouterError, match="deploy the former version"):
        router.abort("too late")
    api.put(CANARIES, canary("Progressing", 30))
    api.change(CANARIES, spec={"analysis": {"webhooks": [{"type": "rollout"}, "x"]}})
    with pytest.raises(RouterError, match="there is none: add it"):
        router.abort("too many errors")


def test_argo_is_begun_stopped_and_asked(api):
    """Orders are in the status, where Argo's own command puts them."""
    api.put(ROLLOUTS, rollout("Progressing", currentStepIndex=1))
    api.put(DEPLOYMENTS, {"spec": pod(gateway="registry/gateway:v1")})
    router = ArgoRollout("gateway", namespace="soma", image="registry/gateway:{version}", client=api.client)
    assert isinstance(router, TrafficRouter)
    router.start("v2")
    assert api.images(DEPLOYMENTS) == {"gateway": "registry/gateway:v2"}
    assert (router.status().phase, router.status().weight, router.status().version) == ("Progressing", 0.1, "bbb")
    router.suspend()
    assert api.find(ROLLOUTS)["spec"]["paused"] is True
    assert router.status().paused
    router.promote()
    assert (api.find(ROLLOUTS)["spec"]["paused"], api.find(ROLLOUTS)["status"]["promoteFull"]) == (False, True)
    router.abort("too many errors")
    assert api.find(ROLLOUTS)["status"]["abort"] is True
    assert router.status().weight == 0.0
    with pytest.raises(RouterError, match=r"start\(\) it again"):
        router.promote()
    router.start("v2")
    assert api.find(ROLLOUTS)["status"]["abort"] is False
    with pytest.raises(RouterError, match="its steps move the weights"):
        router.set_weight(0.5)


def test_argo_goes_on_after_an_inconclusive_analysis_but_not_past_a_step(api):
    """A pause that is a step is time to bake."""
    step = {"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"}
    api.put(ROLLOUTS, rollout("Paused", pauseConditions=[step], message="CanaryPauseStep"))
    router = ArgoRollout("gateway", namespace="soma", client=api.client)
    assert (router.status().paused, router.status().message) == (True, "CanaryPauseStep, CanaryPauseStep")
    router.resume()
    assert api.find(ROLLOUTS)["status"]["pauseConditions"] == [step]
    api.change(ROLLOUTS, status={"pauseConditions": [{"reason": "InconclusiveAnalysisRun"}]})
    router.resume()
    assert not api.find(ROLLOUTS)["status"].get("pauseConditions")


def test_a_rollout_with_pods_of_its_own_gets_the_image(api):
    """Without workloadRef."""
    api.put(ROLLOUTS, {**rollout("Healthy"), "spec": pod(proxy="envoy:1", app="registry/gateway:v1")})
    router = ArgoRollout("gateway", namespace="soma", image="registry/gateway:{version}", container="app", client=api.client)
    router.start("v2")
    assert api.images(ROLLOUTS) == {"proxy": "envoy:1", "app": "registry/gateway:v2"}
    with pytest.raises(RouterError, match="has no container 'web', but proxy, app"):
        ArgoRollout("gateway", namespace="soma", image="x:{version}", container="web", client=api.client).start("v3")


@pytest.mark.parametrize(
    ("changes", "weight"),
    [
        ({"stable": "bbb"}, 1.0),
        ({"canary": {"weights": {"canary": {"weight": 25}}}}, 0.25),
        ({"canary": {"weights": {"canary": {"weight": "NaN"}}}}, None),
        ({"canary": {"weights": {"canary": {"weight": 250}}}}, None),
        ({"canary": None, "currentStepIndex": 3}, 0.5),
        ({"currentStepIndex": "x"}, None),
        ({}, None),
        ({"abort": True}, 0.0),
        ({"observedGeneration": "2", "stable": "bbb"}, None),
    ],
)
def test_the_weight_of_a_rollout_is_what_it_says_or_nothing(api, changes, weight):
    """By its router, by its steps; never that of a status which is older than the object."""
    api.put(ROLLOUTS, rollout("Progressing", **changes))
    assert ArgoRollout("gateway", namespace="soma", client=api.client).status().weight == weight


@pytest.mark.parametrize("weight", [None, True, "10", -1, 101, [], 1e400])
def test_the_weight_of_a_canary_is_a_share_or_nothing(weight):
    """Whatever somebody wrote into its status."""
    found = FlaggerCanary("gateway")._status_of({"status": {"phase": 7, "canaryWeight": weight, "conditions": [3, {"message": []}]}})
    assert (found.weight, found.phase, found.message) == (None, "Unknown", "")


def test_what_is_complete_cannot_be_aborted(api):
    """There is no other version left."""
    api.put(ROLLOUTS, rollout("Healthy", stable="bbb"))
    router = ArgoRollout("gateway", namespace="soma", client=api.client)
    router.promote()
    assert "promoteFull" not in api.find(ROLLOUTS)["status"]
    with pytest.raises(RouterError, match="deploy the former one"):
        router.abort("too late")


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (401, "who is this"),
        (403, "needs the verb patch on rollouts.argoproj.io"),
        (409, "try again"),
        (500, "the server says no"),
        (0, "no answer"),
    ],
)
def test_every_refusal_is_an_error_that_says_what_to_do(api, code, text):
    """Rights, conflicts, failures, and what is no answer of an API server."""
    api.put(ROLLOUTS, rollout("Progressing"))
    api.emulator.refuse = [(code, "PATCH", "rollouts")]
    router = ArgoRollout("gateway", namespace="soma", client=api.client)
    for order in (router.suspend, router.resume, router.promote, lambda: router.abort("it fails")):
        with pytest.raises(RouterError, match=text):
            order()


def test_nothing_and_nobody_there_are_errors(api, monkeypatch):
    """An object that is absent, a server that is gone, a client that is not installed."""
    with pytest.raises(RouterError, match="404: not there in soma"):
        FlaggerCanary("gateway", namespace="soma", client=api.client).status()
    with pytest.raises(RouterError, match="gave no answer to get"):
        FlaggerCanary("gateway", client=client(free_port(), timeout=2.0)).status()
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(RouterError, match="gave no answer to get"):
        ArgoRollout("gateway").status()
    monkeypatch.setitem(sys.modules, "lightkube", None)
    with pytest.raises(RouterError, match=r"somaresil\[kubernetes\]"):
        ArgoRollout("gateway").status()


@pytest.mark.parametrize("version", ["v2 --privileged", "", "../x", "a/b", "v" * 200, None])
def test_what_is_no_version_never_reaches_the_cluster(api, version):
    """It would be part of the name of an image."""
    api.put(ROLLOUTS, rollout("Progressing"))
    router = ArgoRollout("gateway", namespace="soma", image="registry/gateway:{version}", client=api.client)
    with pytest.raises(RouterError, match="no version"):
        router.start(version)


def test_all_problems_are_told_at_once():
    """With their paths."""
    with pytest.raises(ConfigurationError) as refused:
        ArgoRollout("A b", namespace="", image="gateway:2", container="x y", patience=0)
    assert [problem.path for problem in refused.value.problems] == [
        f"ArgoRollout.{name}" for name in ("name", "namespace", "container", "image", "patience")
    ]


class Judge:
    """Says that it is worse."""

    def opinion(self, checksum):
        return Opinion(Verdict.FAIL, "it is worse", Finding(Verdict.FAIL, "it is worse", 200.0, 1.0, 1.0, Counts(candidate_bad=9)), at=1.0)


def test_a_controller_orders_a_rollback_until_flagger_has_done_it(api):
    """Nothing is believed before; after, it is over."""
    api.put(CANARIES, canary("Progressing", 30, suspend=True))
    resilience = Resilience("service", clock=ManualClock())
    resilience.slos.add(SLO("up", 95.0, timedelta(days=1)))
    config = CanaryConfig(name="gateway", bad="up", steps=[10, 50, 100], interval=None)
    router = FlaggerCanary("gateway", namespace="soma", client=api.client)
    controller = CanaryController(resilience, config, judge=Judge(), router=router)
    controller.start("v2")
    for _ in range(3):
        controller.evaluate()
        assert controller.phase == "rollback"
        assert "asked at the next look (it is worse)" in controller.status().trouble
    api.change(CANARIES, status={"phase": "Failed", "canaryWeight": 0})
    controller.evaluate()
    assert not controller.status().trouble
