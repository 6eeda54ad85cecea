"""The verdict app under a real server, asked by the libraries that engines ask with: each gets what it needs, whatever goes wrong here."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from somaresil import Resilience
from somaresil.mounted.auth import BearerToken
from somaresil.verdict import verdict_app
from somaresil.verdict.flagger import HOOKS
from tests.unit.slo.kit import availability, bad, good
from tests.unit.verdict.kit import FAIL, PASS, WAIT, Judge, opinion

PEERS = Path(__file__).resolve().parents[1] / "peers"
GOPATH = Path("/usr/share/gocode")
LIBRARIES = {
    "flagger_hook": ("github.com/hashicorp/go-retryablehttp", "golang-github-hashicorp-go-retryablehttp-dev"),
    "argo_measure": ("github.com/antonmedv/expr", "golang-github-antonmedv-expr-dev"),
}
TOKEN = "engine-0123456789-abcdefghijklmnop"
PATIENCE = 20.0
HOOK = {"name": "gateway", "namespace": "soma", "phase": "Progressing", "checksum": "c1", "metadata": {"slo": "api"}}
STATES = {
    "pass": lambda: Judge(opinion(PASS)),
    "fail": lambda: Judge(opinion(FAIL)),
    "wait": lambda: Judge(opinion(WAIT)),
    "no data": Judge,
    "defect": lambda: Judge(RuntimeError("bug")),
}
REFUSED = "unknown caller"
YES = {
    "confirm-rollout": {"pass", "wait", "no data"},
    "pre-rollout": {"pass", "wait", "no data"},
    "rollout": {"pass"},
    "confirm-traffic-increase": {"pass", "no data"},
    "confirm-promotion": {"pass"},
    "post-rollout": {"pass", "fail", "wait", "no data", "defect"},
    "event": {"pass", "fail", "wait", "no data", "defect"},
    "rollback": {"fail"},
}
"""In which states a hook says yes: to go on, or, at ``rollback``, to go back. ``no data``: the first step is let through, and no other."""


class Peer:
    """One of the programs in tests/peers, built with what Debian has, which answers line by line."""

    def __init__(self, name, folder):
        library, package = LIBRARIES[name]
        if shutil.which("go") is None or not (GOPATH / "src" / library).is_dir():
            pytest.skip(f"golang-go or {package} is not installed: `apt-get install golang-go {package}`, or run `nox -s tests` as root")
        self.binary = folder / name
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(folder / "cache"), "GOFLAGS": "-p=2"}
        built = subprocess.run(
            ["go", "build", "-o", self.binary, PEERS / f"{name}.go"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert built.returncode == 0, built.stderr

    def __call__(self, *orders):
        """Give it orders; its answers."""
        text = "".join(f"{json.dumps(order)}\n" for order in orders)
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
        done = subprocess.run([self.binary], input=text, env=environment, capture_output=True, text=True, timeout=60, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def flagger(tmp_path_factory):
    return Peer("flagger_hook", tmp_path_factory.mktemp("flagger"))


@pytest.fixture(scope="module")
def argo(tmp_path_factory):
    return Peer("argo_measure", tmp_path_factory.mktemp("argo"))


class Served:
    """Apps in each state under one real server."""

    def __init__(self):
        self.resilience = Resilience("gateway", environment="test", seed=1)
        self.resilience.slos.add(availability())
        self.judges = {state: make() for state, make in STATES.items()}
        self.routes = [
            Mount(
                f"/{state.replace(' ', '-')}",
                verdict_app({"gateway": judge}, resilience=self.resilience, auth=BearerToken({"engine": TOKEN}, basic=True)),
            )
            for state, judge in self.judges.items()
        ]
        self.port = 0

    def url(self, state, path, *, credentials=""):
        return f"http://{credentials}127.0.0.1:{self.port}/{state.replace(' ', '-')}{path}"


@contextmanager
def serving(app):
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


@pytest.fixture
def served():
    made = Served()
    with serving(Starlette(routes=made.routes)) as port:
        made.port = port
        yield made


@pytest.mark.timeout(300)
def test_flaggers_client_gets_a_yes_or_a_no_with_its_reason_from_each_hook(served, flagger):
    """Also with retries: nothing here is asked twice, for that would lose the reason."""
    cases = [(hook, state) for hook in HOOKS for state in [*STATES, REFUSED]]
    orders = []
    for number, (hook, state) in enumerate(cases):
        credentials = "" if state == REFUSED else f"flagger:{TOKEN}@"
        body = {**HOOK, "checksum": f"c{number}"}
        where = served.url(
            "fail" if state == REFUSED and hook == "rollback" else "pass" if state == REFUSED else state,
            f"/flagger/{hook}",
            credentials=credentials,
        )
        orders.append({"url": where, "body": json.dumps(body), "retries": 2})
    for (hook, state), said in zip(cases, flagger(*orders), strict=True):
        assert said["yes"] is (state in YES[hook]), (hook, state, said)
        assert said["calls"] == 1, (hook, state, said)
        assert said["reason"], (hook, state)
        assert "giving up" not in said["reason"]


@pytest.mark.timeout(300)
def test_whatever_is_sent_in_place_of_a_payload_neither_promotes_nor_rolls_back(served, flagger):
    bodies = [
        "",
        "nothing",
        "[]",
        "{}",
        '{"name": 7}',
        '{"name": "gateway", "checksum": NaN}',
        json.dumps({**HOOK, "name": "other"}),
        "x" * 10_000_000,
    ]
    orders = [
        {"url": served.url(state, f"/flagger/{hook}", credentials=f"flagger:{TOKEN}@"), "body": body, "retries": 0}
        for hook, state in (("confirm-promotion", "pass"), ("rollout", "pass"), ("rollback", "fail"), ("confirm-rolout", "pass"))
        for body in bodies
    ]
    for order, said in zip(orders, flagger(*orders), strict=True):
        assert said["yes"] is False, (order["url"], order["body"][:40], said)


@pytest.mark.timeout(300)
def test_argos_conditions_read_each_verdict(served, argo):
    success, failure = 'result.verdict == "pass"', 'result.verdict == "fail"'
    wanted = {"pass": "Successful", "fail": "Failed", "wait": "Inconclusive", "no data": "Inconclusive", "defect": "Inconclusive"}
    orders = [
        {"url": served.url(state, "/argo/verdict?canary=gateway&checksum=c1"), "token": TOKEN, "success": success, "failure": failure}
        for state in wanted
    ]
    assert [said["phase"] for said in argo(*orders)] == list(wanted.values())
    numbers = [{**order, "success": "result.worse < 100 && result.age < 1e12", "failure": "result.worse >= 100"} for order in orders]
    assert {said["phase"] for said in argo(*numbers)} == {"Successful"}
    (unknown,) = argo({**orders[0], "token": ""})
    assert (unknown["phase"], unknown["message"]) == ("Error", "401 Unauthorized")
    (other,) = argo({**orders[0], "url": served.url("pass", "/argo/verdict?canary=other")})
    assert other["phase"] == "Inconclusive"


def promtool(served, state, query):
    binary = shutil.which("promtool")
    if binary is None:
        pytest.skip("promtool is not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    url = served.url(state, "/prom", credentials=f"prom:{TOKEN}@")
    done = subprocess.run([binary, "query", "instant", url, query], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


@pytest.mark.timeout(120)
def test_promtool_reads_verdicts_and_burn_rates_without_a_prometheus(served):
    """It asks with the client library of Prometheus, as Argo does."""
    guard = served.resilience.guard("call", slo="up")
    good(guard, 90)
    bad(guard, 10)
    for state in ("pass", "fail", "wait"):
        told = httpx.post(served.url(state, "/flagger/confirm-rollout"), json=HOOK, headers={"authorization": f"Bearer {TOKEN}"})
        assert told.status_code == (409 if state == "fail" else 200), told.text
    code, said, _ = promtool(served, "pass", "vector(1)")
    assert (code, said.split(" @")[0]) == (0, "{} => 1")
    for state, value in (("pass", "1"), ("fail", "-1"), ("wait", "0")):
        code, said, _ = promtool(served, state, 'somaresil_canary_verdict{canary="gateway"}')
        assert (code, said.split(" @")[0]) == (0, f'somaresil_canary_verdict{{canary="gateway", checksum="c1"}} => {value}')
    code, said, _ = promtool(served, "pass", 'somaresil_burn_rate{slo="up",window="1h"}')
    assert code == 0
    assert float(said.split("=> ")[1].split(" @")[0]) == pytest.approx(10.0)
    assert promtool(served, "no data", "somaresil_canary_verdict")[:2] == (0, "")
    for query in ("sum(somaresil_burn_rate)", "up", "rate(somaresil_burn_rate[5m])"):
        code, _, error = promtool(served, "pass", query)
        assert (code, "bad_data" in error) == (1, True), error
    code, _, error = promtool(served, "defect", 'somaresil_canary_verdict{checksum="c1"}')
    assert code == 1
