"""The live demo, run as its users run it: every process works, the token opens the page, and nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.integration.servers import HOST

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(180)]


@contextmanager
def live(*arguments, folder):
    """The demo while it runs; the place that it tells of."""
    command = [sys.executable, "-m", "somaresil", "demo", "live", "--json", *arguments]
    environment = os.environ | {"TMPDIR": str(folder)}
    with (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
    try:
        line = process.stdout.readline()
        assert line, (folder / "stderr").read_text()
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(20)
        process.stdout.close()


def alive(identity):
    """Whether there is a process of that id which has not ended."""
    try:
        return Path(f"/proc/{identity}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def port_of(place):
    """The port of the gateway."""
    return httpx.URL(place["service"]).port


def check_gone(place, folder):
    """No process, no listener and no folder is left."""
    assert [name for name, identity in place["processes"].items() if alive(identity)] == []
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect((HOST, port_of(place)))
    assert [each.name for each in folder.iterdir() if each.name.startswith("somaresil-demo-")] == []


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_every_process_serves_the_token_opens_and_a_signal_ends_it(tmp_path):
    """Four processes share the port and the load, the page answers to the token alone, SIGTERM leaves nothing."""
    with live(folder=tmp_path) as (process, place):
        assert {name for name in place["processes"] if name.startswith("gateway-")} == {f"gateway-{number}" for number in range(1, 5)}
        assert place["url"] == f"{place['service']}/_soma/"
        assert len(place["token"]) >= 32
        answered = set()
        deadline = time.monotonic() + 20.0
        while len(answered) < 4 and time.monotonic() < deadline:
            answered.add(httpx.get(f"{place['service']}/health", trust_env=False).headers["x-served-by"])
        assert answered == {f"gateway-{number}" for number in range(1, 5)}
        assert httpx.get(place["url"] + "api/picture", trust_env=False).status_code == 404
        known = {"authorization": f"Bearer {place['token']}"}
        seen = httpx.get(place["url"] + "api/picture", headers=known, trust_env=False).json()
        ours = {identity for name, identity in place["processes"].items() if name.startswith("gateway-")}
        assert {source["process"] for source in seen["sources"] if source["state"] == "live"} == ours
        assert {guard["name"] for guard in seen["guards"]} == {"worker.call", "llm.stream", "llm.stream.candidate", "memory.write"}
        assert [(canary["name"], canary["version"]) for canary in seen["canaries"]] == [("llm.stream", "2")]
        assert {slo["name"] for slo in seen["objectives"]} >= {"api_availability", "memory_writes"}
        assert "/health" not in {route["name"] for route in seen["routes"]}
        assert "memory is cut off" in {plan["name"] for plan in seen["plans"]}
        told = httpx.get(f"{place['service']}/metrics", trust_env=False).text
        assert 'somaresil_calls_total{guard="worker.call",injected="false",outcome="good"}' in told
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
        check_gone(place, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_it_ends_by_itself_and_does_not_share_its_port(tmp_path):
    """With a duration the end is a success; meanwhile a second one on the same port is refused with a reason."""
    with live("--workers", "2", "--no-load", "--duration", "6", folder=tmp_path) as (process, place):
        second = [sys.executable, "-m", "somaresil", "demo", "live", "--workers", "1", "--port", str(port_of(place))]
        done = subprocess.run(second, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2
        assert f"port {port_of(place)} of {HOST} cannot be had" in done.stderr
        assert process.wait(30) == 0
        check_gone(place, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_it_goes_on_without_one_of_its_processes(tmp_path):
    """Who kills a process of the gateway is told so, and the others answer for it."""
    with live("--workers", "2", "--no-load", folder=tmp_path) as (process, place):
        os.kill(place["processes"]["gateway-1"], signal.SIGKILL)
        deadline = time.monotonic() + 10.0
        while "gateway-1 ended" not in (tmp_path / "stderr").read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "gateway-1 ended with code -9; the others go on without it" in (tmp_path / "stderr").read_text()
        for _ in range(8):
            assert httpx.get(f"{place['service']}/health", trust_env=False).headers["x-served-by"] == "gateway-2"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        check_gone(place, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel ends children with their parent")
def test_no_process_outlives_the_driver(tmp_path):
    """Also when it is killed and can end nothing itself."""
    with live("--workers", "2", "--no-load", folder=tmp_path) as (process, place):
        process.kill()
        process.wait(20)
        deadline = time.monotonic() + 20.0
        while any(map(alive, place["processes"].values())) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [name for name, identity in place["processes"].items() if alive(identity)] == []
