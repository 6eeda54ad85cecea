"""The command canary as people run it: a rollout that listens, real pods that are asked, and other processes that ask and act."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from somaresil import Resilience
from somaresil.canary.telling import EvidenceTeller
from somaresil.mounted.auth import BearerToken
from somaresil.verdict import evidence_app
from tests.integration.test_verdict_peers import serving
from tests.unit.slo.kit import availability, bad, good

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TOKEN = "canary-command-0123456789-abcdefghij"
FILE = """
[canary]
name = "gateway"
bad = "up"
allowed = 0.5
bake = 3600
steps = [10, 50, 100]
interval = 0.2
[judge]
every = 1.0
patience = 1.0
[[judge.sources]]
kind = "scrape"
urls = ["http://127.0.0.1:{candidate}/"]
role = "candidate"
every = 1.0
token_env = "SOMARESIL_CANARY_TOKEN"
[[judge.sources]]
kind = "scrape"
urls = ["http://127.0.0.1:{control}/"]
role = "control"
every = 1.0
token_env = "SOMARESIL_CANARY_TOKEN"
[router]
kind = "command"
set = [{python!r}, "-c", "import sys; open(sys.argv[2], 'a').write(sys.argv[1] + chr(10))", "{{percent}}", {orders!r}]
[run]
snapshot = {snapshot!r}
"""


class Pod:
    """A process with calls that go on until the test is over."""

    def __init__(self, name, role):
        self.resilience = Resilience("gateway", instance=name, environment="test", seed=1)
        self.resilience.slos.add(availability())
        self.guard = self.resilience.guard("call", slo="up")
        self.teller = EvidenceTeller(self.resilience, bad="up", role=role, pod=name, every=1.0)
        self.app = evidence_app(self.teller, resilience=self.resilience, auth=BearerToken(TOKEN))
        self.broken = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self):
        while not self._stop.wait(0.02):
            good(self.guard, 10)
            bad(self.guard, self.broken)

    def __enter__(self):
        self.teller.start()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self.teller.stop()
        self._thread.join(10.0)


@contextmanager
def running(*words, environment):
    command = [sys.executable, "-u", "-m", "somaresil", "canary", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.server
def test_a_rollout_is_led_asked_and_rolled_back_by_what_real_pods_tell(tmp_path):
    """Promoted by hand from another terminal, asked by a job, and rolled back by evidence; the end outlives the process."""
    environment = {**os.environ, "SOMARESIL_CANARY_TOKEN": TOKEN, "NO_PROXY": "*"}
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment["SOMARESIL_CANARY_URL"] = f"http://127.0.0.1:{port}"

    def ask(*words):
        command = [sys.executable, "-m", "somaresil", "canary", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    with (
        Pod("gateway-canary-1", "candidate") as candidate,
        Pod("gateway-1", "control") as control,
        serving(candidate.app) as one,
        serving(control.app) as two,
    ):
        path, orders = tmp_path / "gateway.toml", tmp_path / "orders"
        names = {"orders": str(orders), "snapshot": str(tmp_path / "snapshot.json"), "python": sys.executable}
        path.write_text(FILE.format(candidate=one, control=two, **names))
        words = ("run", path, "--version", "v2", "--json", "--listen", f"127.0.0.1:{port}")
        with running(*words, environment=environment) as process:
            first = json.loads(process.stdout.readline())
            assert (first["phase"], first["weight"]) == ("ramp_10", 0.1)
            # Seconds until marks of both sides were compared.
            assert ask("verdict", "gateway", "--wait", "30", "--interval", "1").returncode in {0, 2}
            assert ask("promote", "gateway", "--reason", "it is urgent").returncode == 0
            shown = json.loads(ask("status", "gateway", "--json").stdout)
            assert (shown["phase"], shown["weight"], shown["version"]) == ("ramp_50", 0.5, "v2")
            candidate.broken = 10
            assert process.wait(60) == 1
        assert orders.read_text().split() == ["10", "50", "0"]
        assert json.loads(ask("status", "--snapshot", names["snapshot"], "--json").stdout)["phase"] == "rollback"
        with running("run", path, "--version", "v2", environment=environment) as again:
            assert again.wait(60) == 1
        assert orders.read_text().split() == ["10", "50", "0"]


def test_a_signal_ends_it_and_leaves_the_traffic(tmp_path):
    """With the number of the signal, as of every program."""
    environment = {**os.environ, "SOMARESIL_CANARY_TOKEN": TOKEN}
    path, orders = tmp_path / "gateway.toml", tmp_path / "orders"
    names = {"orders": str(orders), "snapshot": str(tmp_path / "snapshot.json"), "python": sys.executable}
    path.write_text(FILE.format(candidate=9, control=9, **names))
    with running("run", path, "--version", "v2", "--json", environment=environment) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert "has 10.000% now" in process.stderr.read()
    assert orders.read_text().split() == ["10"]
