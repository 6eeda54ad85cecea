"""The recovery drill on the real stack: processes, Redis, Prometheus, and the control app of each instance."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from somaresil.drill.plan import plan_of
from somaresil.drill.processes import absent

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(bool(absent()), reason=f"not installed: {', '.join(absent())}; `nox -s drill` as root installs it"),
    pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc"),
]
FORMS = {"drill.json", "drill.md", "drill.html", "drill.xml"}


def command(folder, *arguments):
    return [sys.executable, "-m", "somaresil", "drill", "--out", str(folder), *arguments]


def instances_of(pid):
    """Process ids of the instances that a drill has started."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except OSError:
            continue
        if "somaresil.drill.serve" in line and line[-1] == str(pid):
            found.add(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_short_drill_strikes_truly_and_reports_what_it_saw(tmp_path):
    """Six faults are too few for the grade, and the report says so; each of them is recovered from."""
    began = time.monotonic()
    done = subprocess.run(
        command(tmp_path, "--faults", "6", "--seed", "3", "--rate", "12", "--json"),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert {path.name for path in tmp_path.iterdir()} == FORMS
    assert json.loads((tmp_path / "drill.json").read_text(encoding="utf-8")) == report
    summary = report["summary"]
    assert (summary["faults"], summary["recovered"]) == (6, 6), done.stderr
    assert summary["problems"] == ["6 of 6 faults were recovered from: with 95 % confidence that shows 61.0%, less than 95%"]
    assert [fault["kind"] for fault in report["faults"]] == [strike.site.kind for strike in plan_of(3, 6)]
    for fault in report["faults"]:
        assert len(fault["selected"]) == {"single_instance": 1, "zone": 2, "region": 3}[fault["radius"]]
        assert set(fault["struck"]) <= set(fault["selected"])
        assert fault["verdict"]["injected"] > 0
    # Prometheus has scraped what the control apps have told.
    assert report["agreement"]["differences"] == []
    assert report["agreement"]["prometheus"] == report["agreement"]["control"] == summary["strikes"]
    assert report["acknowledged"] > 0
    assert report["lost"] == []
    assert len(report["footprints"]) == 12
    assert time.monotonic() - began < 100.0


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_ctrl_c_leaves_nothing(tmp_path):
    """In the middle of a fault too: the processes are gone, and there is no report that says that anything was shown."""
    process = subprocess.Popen(command(tmp_path, "--faults", "50", "--rate", "12"), stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not (line := process.stderr.readline()).startswith("1/50"):
        assert line, "it ended before its first fault"
    mine = instances_of(process.pid)
    assert len(mine) == 12
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130, said
    assert not any(Path(f"/proc/{pid}").exists() for pid in mine)
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_missing_is_named(tmp_path):
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, timeout=30, check=False, env={**os.environ, "PATH": ""})
    assert done.returncode == 2
    assert "redis-server" in done.stderr
    assert "apt-get install" in done.stderr
