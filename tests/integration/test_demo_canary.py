"""The demo of a canary, run as its users run it: its books agree with those of the load generator, and nothing is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from tests.integration.servers import HOST, accepts
from tests.integration.test_demo import alive, children_of, linux

SHORT = ("--duration", "28", "--rate", "80")


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(220)
def test_bad_versions_are_rolled_back_and_the_good_one_is_promoted(tmp_path):
    """Each for what is wrong with it alone, and its users were counted alike by the gateway and by themselves."""
    page = tmp_path / "report.html"
    command = [sys.executable, "-m", "somaresil", "demo", "canary", "--json", "--html", str(page), "--seed", "3", *SHORT]
    done, report = run_to_its_end(command, tmp_path)
    assert report["passed"] is (done.returncode == 0) is (not report["problems"])
    assert done.returncode == 0, report["problems"]
    acts = {act["name"]: act for act in report["acts"]}
    assert [act["outcome"] for act in report["acts"]] == ["rollback", "rollback", "rollback", "complete"]
    assert [line.split()[1].rstrip(":") for line in done.stderr.splitlines() if line.startswith("== ")] == list(acts)
    for act in acts.values():
        counted, seen = act["counted"], act["candidate"]
        assert seen["bad"] == seen["failed"] + seen["late"]
        assert act["after"] == 0
        assert act["curve"][-1]["requests"] == counted["candidate_good"] + counted["candidate_bad"]
        assert act["curve"][-1]["bad"] == counted["candidate_bad"]
        requests = [point["requests"] for point in act["curve"]]
        assert requests == sorted(requests)
        if act["outcome"] == "rollback":
            # A request that was due before the version was started may have come to it, and a client may be slow itself.
            assert abs(counted["candidate_good"] + counted["candidate_bad"] - seen["requests"]) <= 3
            assert abs(counted["candidate_bad"] - seen["bad"]) <= 3
            assert max(point["evidence"] for point in act["curve"]) >= report["threshold"]
            assert 0 < act["bad_before"] <= seen["bad"]
            assert act["detection_seconds"] < act["seconds"]
    # What was wrong is what was found to be wrong.
    assert set(acts["errors"]["failures"]) <= {"message: status 503", "stream: status 503", *late(acts)}
    assert any("answered after more than" in what for what in acts["tail"]["failures"])
    assert "stream: the response broke off" in acts["streams"]["failures"]
    assert acts["tail"]["candidate"]["requests"] > 0
    assert [move["step"] for move in acts["good"]["moves"]] == ["start", "promote", "promote", "complete"]
    assert page.read_text(encoding="utf-8").count("<svg") == 4
    assert [path.name for path in tmp_path.iterdir()] == [page.name]


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.timeout(220)
def test_nginx_splits_the_traffic_by_weights(tmp_path):
    """The versions tell what they have seen, and a process that no request comes through steers nginx."""
    if shutil.which("nginx") is None and shutil.which("/usr/sbin/nginx") is None:
        pytest.skip("nginx is not installed: `apt-get install nginx-light`, or run `nox -s tests` as root")
    command = [sys.executable, "-m", "somaresil", "demo", "canary", "--json", "--router", "nginx", "--duration", "40", "--rate", "80"]
    done, report = run_to_its_end(command, tmp_path)
    assert done.returncode == 0, report["problems"]
    assert "nginx" in report["router"]
    assert [act["outcome"] for act in report["acts"]] == ["rollback", "rollback", "rollback", "complete"]
    assert list(tmp_path.iterdir()) == []


def run_to_its_end(command, folder):
    """Run it, and once more if the machine was busy: the demo is about times, and says so itself when it was not as it ought to be."""
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=os.environ | {"TMPDIR": str(folder)})
        assert done.returncode in {0, 1}, done.stderr
        if done.returncode == 0:
            break
    return done, json.loads(done.stdout)


def late(acts):
    """What a slow machine adds to the failures."""
    return [what for act in acts.values() for what in act["failures"] if "answered after" in what]


@linux
@pytest.mark.server
@pytest.mark.slow
def test_a_signal_in_the_middle_leaves_nothing(tmp_path):
    """Ctrl-C ends every process and closes every port."""
    command = [sys.executable, "-m", "somaresil", "demo", "canary", "--json", *SHORT]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            written = []
            for line in process.stderr:
                written.append(line)
                if "ramp_10" in line:
                    break
            children = children_of(process.pid)
            ports = {int(port) for port in re.findall(rf"{re.escape(HOST)}:(\d+)", "".join(written))}
            assert len(children) == len(ports) == 3
            assert all(accepts(port) for port in ports)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert output == ""
    assert "Traceback" not in errors
    assert not any(alive(pid) for pid in children)
    assert not any(accepts(port) for port in ports)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [["--duration", "5"], ["--rate", "1"], ["--prometheus"], ["nothing"], ["--router", "mesh"]])
def test_wrong_arguments_are_refused(wrong):
    """With exit code 2, and before anything is started."""
    command = [sys.executable, "-m", "somaresil", "demo", *(["canary"] if wrong[0].startswith("-") else []), *wrong]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "error" in done.stderr
