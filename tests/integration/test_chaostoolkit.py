"""The real `chaos` command against a real service: uvicorn, its control app, and what the journal says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from somaresil import ChaosPlan, FaultWindow
from tests.integration.servers import HOST, Server, free_port

pytest.importorskip("chaoslib")
pytest.importorskip("chaostoolkit")
pytest.importorskip("starlette")

from somaresil.gameday import Experiment, GameDay, Probe
from somaresil.integrations.chaostoolkit import probe, to_chaostoolkit, verdict_of
from somaresil.integrations.chaostoolkit._service import ServiceError, _Remote
from somaresil.toolkit import from_toolkit, to_toolkit

TOKEN = "0123456789abcdef0123456789abcdef-token"  # gitleaks:allow - of a test

SERVICE = """
import sys, uvicorn
from datetime import timedelta
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route
from somaresil import SLO, CircuitBreaker, InjectedFault, Resilience
from somaresil.control import BearerToken, chaos_control

resilience = Resilience("toolkit", environment="test", seed=1)
resilience.chaos.opt_in()
resilience.slos.add(SLO("calls", target_percentage=50.0, measurement_window=timedelta(days=1)))
guard = resilience.guard("llm.invoke", slo="calls", breaker=CircuitBreaker(failure_rate=None, consecutive_failures=1000))

def call(request):
    try:
        guard.call(lambda: None)
    except InjectedFault:
        return PlainTextResponse("struck", 503)
    return PlainTextResponse("fine")

app = Starlette(routes=[
    Route("/call", call),
    Route("/elsewhere/{rest:path}", lambda request: RedirectResponse("/_soma/chaos/experiments"), methods=["GET", "POST"]),
    Mount("/_soma/chaos", chaos_control(resilience, auth=BearerToken({"toolkit": sys.argv[2]}))),
])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service that may be attacked by whoever has the token."""
    port = free_port()
    environment = {**os.environ, "SOMARESIL_CHAOS": "1"}
    command = [sys.executable, "-c", SERVICE, str(port), TOKEN]
    with Server(command, port=port, folder=tmp_path_factory.mktemp("service"), ready="/call", environment=environment) as server:
        yield server


@pytest.fixture(autouse=True)
def healed(service):
    """Nothing is left for the next test."""
    yield
    remote(service).stop_all()


def remote(service: Server) -> _Remote:
    """Its control API."""
    return _Remote(f"{service.url}/_soma/chaos", TOKEN)


def status_of(url: str) -> int:
    """What a request is answered."""
    try:
        with urllib.request.urlopen(url, timeout=5.0) as response:
            return response.status
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code


def chaos(folder, *arguments: str) -> subprocess.Popen[str]:
    """Start the command."""
    environment = {**os.environ, "SOMARESIL_CONTROL_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "chaostoolkit", "--no-version-check", "--no-log-file", "--settings", str(folder / "settings.yaml")]
    return subprocess.Popen(
        [*command, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def experiment(service: Server, seconds: float, checks) -> dict:
    """Errors on every call."""
    plan = ChaosPlan([FaultWindow("llm.*", "error", 0, seconds)], seed=3)
    hypothesis = {"title": "serves", "probes": checks}
    return to_chaostoolkit(plan, title="drill", hypothesis=hypothesis, service=f"{service.url}/_soma/chaos")


def start(folder, data: dict, *options: str) -> subprocess.Popen[str]:
    """Run an experiment."""
    (folder / "experiment.json").write_text(json.dumps(data))
    return chaos(folder, "run", *options, "experiment.json")


def journal_of(folder, process: subprocess.Popen[str]) -> dict:
    """What it has written when it is over."""
    output, _ = process.communicate(timeout=120.0)
    path = folder / "journal.json"
    assert path.exists(), output
    assert TOKEN not in path.read_text()
    return json.loads(path.read_text())


def wait_until_struck(service: Server) -> None:
    """The fault is there."""
    deadline = time.monotonic() + 20.0
    while status_of(f"{service.url}/call") != 503:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.server
def test_an_experiment_runs_and_is_judged(service, tmp_path):
    """Its faults strike a service in another process, its probes are asked there, and the journal passes."""
    assert status_of(f"{service.url}/call") == 200
    process = start(tmp_path, experiment(service, 2.0, [probe("recovered", True), probe("burn_rate", (0.0, 14.4), slo="calls")]))
    wait_until_struck(service)
    journal = journal_of(tmp_path, process)
    assert process.returncode == 0
    assert journal["status"] == "completed"
    assert not journal["deviated"]
    assert [run["status"] for run in journal["run"] + journal["rollbacks"]] == ["succeeded", "succeeded"]
    assert journal["steady_states"]["after"]["steady_state_met"] is True
    assert verdict_of(journal).status == "passed"
    assert status_of(f"{service.url}/call") == 200


@pytest.mark.server
def test_an_exported_experiment_of_a_game_day_runs(service, tmp_path):
    """As the game day says: it waits, strikes, and looks again."""
    assert status_of(f"{service.url}/call") == 200
    burning = Probe("burn_rate", "calls", maximum=14.4, when=("before", "after"))
    faults = [FaultWindow("llm.*", "error", 0, 1.5)]
    day = GameDay("a day", [Experiment("errors", faults, hypothesis=[burning], baseline=0.5, observe=0.2)])
    (exported,) = to_toolkit(day, service=f"{service.url}/_soma/chaos").experiments
    process = start(tmp_path, exported)
    wait_until_struck(service)
    journal = journal_of(tmp_path, process)
    assert verdict_of(journal).status == "passed"
    assert from_toolkit(journal["experiment"]) == day, "the journal says what was played"
    assert status_of(f"{service.url}/call") == 200


@pytest.mark.server
@pytest.mark.parametrize("strategy", ["default", "never"])
def test_ctrl_c_leaves_no_fault(service, tmp_path, strategy):
    """The toolkit plays no rollback then; the safety control ends everything."""
    process = start(tmp_path, experiment(service, 60.0, [probe("recovered", True)]), "--rollback-strategy", strategy)
    wait_until_struck(service)
    process.send_signal(signal.SIGINT)
    journal = journal_of(tmp_path, process)
    assert journal["status"] == "interrupted"
    assert journal["rollbacks"] == []
    assert status_of(f"{service.url}/call") == 200
    assert set(remote(service).experiments().values()).isdisjoint({"running", "scheduled"})
    assert verdict_of(journal).status == "interrupted"


@pytest.mark.server
def test_a_toolkit_that_is_killed_leaves_a_fault_that_ends_by_itself(service, tmp_path):
    """By its lease."""
    process = start(tmp_path, experiment(service, 3.0, [probe("recovered", True)]))
    wait_until_struck(service)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10.0
    while status_of(f"{service.url}/call") != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.server
def test_an_experiment_whose_steady_state_fails_is_not_started(service, tmp_path):
    """Nothing is armed, and the verdict says so."""
    before = len(remote(service).experiments())
    process = start(tmp_path, experiment(service, 60.0, [probe("breaker_state", "open", guard="llm.invoke")]))
    journal = journal_of(tmp_path, process)
    assert verdict_of(journal).status == "not started"
    assert len(remote(service).experiments()) == before


@pytest.mark.server
def test_a_wrong_token_and_a_redirect_lead_nowhere(service, tmp_path):
    """A token goes where it was meant to go, and one that is not known does nothing."""
    with pytest.raises(ServiceError, match="404"):
        _Remote(f"{service.url}/_soma/chaos", "x" * 40).experiments()
    with pytest.raises(ServiceError, match="307"):
        _Remote(f"{service.url}/elsewhere", TOKEN).experiments()
    with pytest.raises(ServiceError, match=r"URLError|refused"):
        _Remote(f"http://{HOST}:{free_port()}", TOKEN).stop_all()


@pytest.mark.server
def test_one_experiment_is_ended_by_its_id(service):
    """And asked for."""
    api = remote(service)
    (identity,) = api.start(ChaosPlan([FaultWindow("llm.*", "error", 0, 60)]))
    assert api.experiments()[identity] == "running"
    api.stop(identity)
    assert api.experiments()[identity] == "stopped"
    assert api.breakers() == {"llm.invoke": "closed"}
    with pytest.raises(ServiceError, match="nobody"):
        api.start(ChaosPlan([FaultWindow("nobody.*", "error", 0, 60)]))


def test_chaos_discover_lists_the_activities(tmp_path, monkeypatch):
    """Of the installed distribution, without installing anything."""
    # An editable installation does not say which packages it has, which is what the toolkit looks for.
    info = tmp_path / "somaresil-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somaresil\nVersion: 9.9.9\n")
    (info / "top_level.txt").write_text("somaresil\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    process = chaos(tmp_path, "discover", "--no-install", "--discovery-path", "found.json", "somaresil")
    output, _ = process.communicate(timeout=120.0)
    assert process.returncode == 0, output
    found = json.loads((tmp_path / "found.json").read_text())
    assert {"inject_latency", "stop_all", "burn_rate", "recovered"} <= {activity["name"] for activity in found["activities"]}
