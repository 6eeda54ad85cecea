"""The demo, run as its users run it: what it reports is consistent, and whatever ends it, nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from somaresil import Resilience
from somaresil.demo.load import Figures, Load, Sample
from somaresil.demo.report import Absorbed, Chaos, Incident, Memory, PhaseResult, Report
from somaresil.demo.services import control
from somaresil.demo.services.model import latency
from somaresil.demo.services.witness import Witness
from tests.integration.servers import HOST, accepts

SHORT = ("--duration", "6", "--rate", "15")
linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")


# -- a whole run ----------------------------------------------------------------------------------------------------------------------


def run_demo(*arguments):
    """Run the demo to its end; exit code, report and what was written beside it."""
    command = [sys.executable, "-m", "somaresil", "demo", "--json", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def check_invariants(code, report, progress):
    """What holds for every report, however the drill went."""
    assert report["passed"] is (code == 0)
    assert report["passed"] is (not report["problems"])
    names = [phase["name"] for phase in report["phases"]]
    assert names == ["steady", "latency", "errors", "trip", "stop", "recovery"]
    assert [line.split()[1].rstrip(":") for line in progress.splitlines() if line.startswith("== ")] == names
    chaos, absorbed = report["chaos"], report["absorbed"]
    assert chaos["injected"] == sum(run["injected"] for run in chaos["experiments"]) > 0
    assert sum(phase["injected"] for phase in report["phases"]) == chaos["injected"]
    assert chaos["injected_after_stop"] == 0
    assert {run["ended"] for run in chaos["experiments"]} == {"expired", "stop_all"}
    endings = [by for guard in absorbed["by_ending"].values() for by in guard.items()]
    assert sum(count for _, count in endings) == absorbed["touched"] > 0
    assert sum(count for ending, count in endings if ending != "failed") == absorbed["touched_good"]
    assert 0 < absorbed["for_clients"] <= absorbed["touched"]
    assert absorbed["share"] == min(absorbed["guards_share"], absorbed["clients_share"])
    assert sum(phase["failed"] for phase in report["phases"]) <= sum(failure["requests"] for failure in report["failures"])
    gateway = {budget["slo"]: budget for budget in report["budgets"] if budget["service"] == "gateway"}
    assert set(gateway) == {"api_availability", "llm_latency_p95", "memory_writes", "circuit_recovery"}
    assert all(gateway[slo]["after"]["good"] >= gateway[slo]["before"]["good"] for slo in gateway)
    ended = [incident for incident in report["incidents"] if incident["seconds"] is not None]
    events = gateway["circuit_recovery"]["after"]
    assert events["good"] + events["bad"] == sum(incident["guard"] != "llm.invoke" for incident in ended)
    assert report["verdict"]["decision"] in {"allow", "block", "unknown"}
    assert report["verdict"]["reasons"]


@pytest.mark.server
@pytest.mark.slow
def test_a_drill_passes_and_its_report_is_consistent():
    """A short drill is absorbed, both circuits open and close, and nothing that was acknowledged is lost."""
    code, report, progress = run_demo(*SHORT, "--seed", "3")
    check_invariants(code, report, progress)
    assert code == 0, report["problems"]
    assert report["seed"] == 3
    assert report["absorbed"]["share"] >= 0.95
    opened = {incident["guard"]: incident["injected"] for incident in report["incidents"]}
    # One circuit was tripped, the other was opened by calls that were struck: both are the doing of experiments.
    assert opened.items() >= {"worker.call": True, "memory.write": True}.items()
    assert all(incident["recovered"] for incident in report["incidents"])
    assert report["memory"]["acknowledged"] > 0
    assert report["memory"]["queued"] > 0
    assert (report["memory"]["missing"], report["memory"]["waiting"]) == (0, 0)
    assert report["prometheus"] is None


@pytest.mark.server
@pytest.mark.slow
def test_prometheus_computes_the_same_burn_rates():
    """A real server that scrapes the gateway agrees with the process about every objective."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    code, report, progress = run_demo(*SHORT, "--prometheus")
    check_invariants(code, report, progress)
    compared = {row["slo"]: row for row in report["prometheus"]}
    budgets = {budget["slo"]: budget["after"] for budget in report["budgets"] if budget["service"] == "gateway"}
    assert set(compared) == set(budgets)
    for slo, row in compared.items():
        assert row["in_process"] == budgets[slo]["burn_5m"]
        # increase() extrapolates the series of good and of bad events a little differently.
        assert row["promql"] == pytest.approx(row["in_process"], rel=0.05, abs=1e-9)
        assert row["difference"] == row["promql"] - row["in_process"]


# -- ended before its time ------------------------------------------------------------------------------------------------------------


def children_of(parent):
    """Ids of the processes that this one has started and that are still there."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == parent:
                found.add(int(entry.name))
    return found


def alive(pid):
    """Whether this process is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def running_demo(folder, *arguments):
    """A demo on its way, with its temporary files in `folder`."""
    folder.mkdir()
    command = [sys.executable, "-m", "somaresil", "demo", "--json", *arguments]
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(true, seconds=20.0):
    """Return when it holds; fail when it does not come to hold."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@linux
@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize(("number", "extra"), [(signal.SIGINT, ["--prometheus"]), (signal.SIGTERM, [])])
def test_a_signal_in_the_middle_of_the_drill_leaves_nothing(tmp_path, number, extra):
    """Ctrl-C and SIGTERM under load end every process, close every port and remove every file, and say so."""
    folder = tmp_path / "files"
    extra = extra if shutil.which("prometheus") else []
    with running_demo(folder, *SHORT, *extra) as process:
        written = []
        for line in process.stderr:
            written.append(line)
            if line.startswith("== latency"):
                break
        children = children_of(process.pid)
        ports = {int(port) for port in re.findall(rf"{re.escape(HOST)}:(\d+)", "".join(written))}
        assert len(children) == len(ports) == 4 + len(extra)
        assert all(accepts(port) for port in ports)
        assert list(folder.iterdir())
        process.send_signal(number)
        # A second time, while it is cleaning up: that must not stop it.
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert output == ""
    assert f"ended by {number.name}" in errors
    assert "Traceback" not in errors
    assert not any(alive(pid) for pid in children)
    assert not any(accepts(port) for port in ports)
    assert list(folder.iterdir()) == []


@linux
@pytest.mark.server
@pytest.mark.slow
def test_a_signal_while_the_services_start_leaves_nothing(tmp_path):
    """Ctrl-C before the first request is no different."""
    folder = tmp_path / "files"
    with running_demo(folder) as process:
        wait_until(lambda: len(children_of(process.pid)) == 4)
        children = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not any(alive(pid) for pid in children)
    assert list(folder.iterdir()) == []


@linux
@pytest.mark.server
@pytest.mark.slow
def test_children_do_not_outlive_a_killed_driver(tmp_path):
    """When the driver gets no chance to clean up, the kernel ends its children."""
    with running_demo(tmp_path / "files") as process:
        for line in process.stderr:
            if line.startswith("gateway "):
                break
        children = children_of(process.pid)
        assert len(children) == 4
        process.kill()
        process.wait()
        wait_until(lambda: not any(alive(pid) for pid in children))


@linux
@pytest.mark.server
@pytest.mark.slow
def test_a_service_that_dies_ends_the_drill_with_its_name(tmp_path):
    """A drill that cannot be run to its end has no verdict: exit code 2, and which process ended, for programs as well."""
    folder = tmp_path / "files"
    with running_demo(folder) as process:
        for line in process.stderr:
            if line.startswith("== steady"):
                break
        worker = next(pid for pid in children_of(process.pid) if b"\0worker\0" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(worker, signal.SIGKILL)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    said = json.loads(output)
    assert set(said) == {"error"}
    assert "the worker process ended with code -9" in said["error"]["message"]
    assert "the worker process ended with code -9" in errors
    assert list(folder.iterdir()) == []


# -- the parts that its truth rests on ------------------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_load_is_open_loop():
    """Requests begin on time while nothing is answered: a server that waits for twenty of them before it answers gets them."""
    arrived, enough = 0, asyncio.Event()

    async def serve(reader, writer):
        nonlocal arrived
        while await reader.readline() not in {b"\r\n", b""}:
            pass
        arrived += 1
        if arrived >= 20:
            enough.set()
        await enough.wait()
        writer.write(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with server, Load(f"http://{HOST}:{port}", rate=200.0, seed=1) as load:
        await asyncio.wait_for(enough.wait(), 20.0)
        await load.stop()
    assert len(load.samples) == arrived >= 20
    assert {sample.failure for sample in load.samples} == {"status 503"}
    first = min(load.samples, key=lambda sample: sample.due)
    twentieth = sorted(sample.due for sample in load.samples)[19]
    assert twentieth - first.due == pytest.approx(19 / 200.0)
    # It waited for the twentieth, and its latency says so.
    assert first.latency >= twentieth - first.due


def test_figures_count_failures_among_the_latencies():
    """A quantile is a latency that was measured, from the intended start, and that of a failure is not left out."""
    samples = [
        Sample(f"r{n}", "message", due=0.0, ended=float(n), failure="broken" if n == 100 else None, degraded=n < 3) for n in range(1, 101)
    ]
    seen = Figures.of(samples, 10.0)
    assert (seen.requests, seen.failed, seen.degraded, seen.per_second) == (100, 1, 2, 10.0)
    assert (seen.p50, seen.p95, seen.p99) == (51.0, 96.0, 100.0)
    nothing = Figures.of([], 1.0)
    assert (nothing.requests, nothing.p50, nothing.p99) == (0, None, None)


def test_the_model_is_slow_in_the_tail():
    """Its latency is log-normal: the median is what it says, and one answer in a thousand takes six times as long."""
    assert latency(0.5) == pytest.approx(0.12)
    assert latency(0.999) > 6 * 0.12
    assert 0.0 < latency(0.0) < latency(0.001)


@pytest.mark.server
@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_demo(tmp_path):
    """`somaresil demo | head` is no verdict and no traceback, and leaves nothing."""
    command = [sys.executable, "-m", "somaresil", "demo", *SHORT]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)}
    ) as process:
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 128 + signal.SIGPIPE
    assert errors == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.asyncio
async def test_the_witness_knows_who_answered_and_for_whom(monkeypatch):
    """Each touched call is booked once: by its request, and by dependency, fallback or nobody."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience = Resilience("gateway", environment="test", seed=1)
    resilience.chaos.opt_in()
    witness = Witness(resilience)

    async def answer():
        return "lesser"

    @resilience.guard("safe", fallback=answer)
    async def safe():
        return "real"

    @resilience.guard("retried", retry=2)
    async def retried():
        return "real"

    @resilience.guard("bare")
    async def bare():
        return "real"

    async def request(name):
        witness.begin(name)
        assert await safe() == "lesser"
        assert witness.degraded("safe")
        assert await retried() == "real"
        assert not witness.degraded("retried")
        with pytest.raises(Exception, match="fault injected"):
            await bare()

    await resilience.chaos.inject_errors("safe")
    await resilience.chaos.inject_errors("bare")
    await resilience.chaos.inject_errors("retried", max_injections=1)
    await asyncio.create_task(request("r1"))
    assert witness.touched_by_request == {"r1": 3}
    assert {guard: dict(by) for guard, by in witness.touched_by_ending.items()} == {
        "safe": {"fallback": 1},
        "retried": {"dependency": 1},
        "bare": {"failed": 1},
    }
    resilience.chaos.stop_all()
    witness.begin("r2")
    assert await safe() == "real"
    assert not witness.degraded("safe")
    assert witness.touched_by_request == {"r1": 3}


@pytest.mark.asyncio
async def test_the_control_endpoint_needs_loopback_and_token(monkeypatch):
    """Nobody but the driver starts an experiment, and it starts none but those that are named."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience = Resilience("gateway", environment="test", seed=1)
    resilience.chaos.opt_in()
    resilience.guard("worker.call", breaker=True)
    app = control.build(resilience, Witness(resilience), "secret", waiting=lambda: 0)
    wanted = {"action": "inject_errors", "component": "worker.call", "rate": 0.5}

    async def ask(body, token="Bearer secret", host=HOST):
        transport = httpx.ASGITransport(app, client=(host, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers={"authorization": token}) as http:
            return await http.post("/_soma/experiments", json=body)

    assert (await ask(wanted, token="Bearer wrong")).status_code == 403
    assert (await ask(wanted, token="")).status_code == 403
    assert (await ask(wanted, host="192.0.2.1")).status_code == 403
    assert (await ask({"action": "opt_in"})).status_code == 400
    assert (await ask({**wanted, "component": "worker.cal"})).status_code == 400
    assert (await ask({**wanted, "loudness": 3})).status_code == 400
    assert resilience.chaos.runs == ()
    assert (await ask(wanted)).status_code == 200
    assert len(resilience.chaos.runs) == 1
    resilience.chaos.stop_all()


QUIET = Figures(requests=100, failed=0, degraded=0, per_second=10.0, p50=0.1, p95=0.2, p99=0.3)
GOOD = Report(
    version="0",
    seed=1,
    rate=10.0,
    seconds=10.0,
    phases=(PhaseResult("steady", 10.0, QUIET, 0),),
    failures=(),
    chaos=Chaos(({"injected": 100},), 1.0, 0),
    absorbed=Absorbed(touched=100, touched_good=95, by_ending={}, for_clients=100, for_clients_good=95),
    incidents=(Incident("a#1", "a", 299.0, recovered=True, injected=False),),
    budgets=(),
    memory=Memory(acknowledged=5, missing=0, queued=1, waiting=0, repeated=0),
    verdict={"decision": "allow", "blocks": False, "reasons": []},
)


def test_a_drill_that_is_just_good_enough_passes():
    """95 % absorbed and an incident just under five minutes are good enough."""
    assert GOOD.passed
    assert GOOD.hint is None
    assert GOOD.mttr == 299.0
    assert json.loads(json.dumps(GOOD.as_dict()))["absorbed"]["share"] == 0.95


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"absorbed": replace(GOOD.absorbed, touched_good=94)}, "94.0% of the touched calls were absorbed"),
        ({"absorbed": replace(GOOD.absorbed, for_clients_good=94)}, "94.0% of the touched calls were absorbed"),
        ({"absorbed": replace(GOOD.absorbed, touched=0, touched_good=0)}, "no fault was injected"),
        ({"chaos": Chaos((), 1.0, 0)}, "no fault was injected"),
        ({"chaos": replace(GOOD.chaos, after_stop=2)}, "2 faults were injected after the kill switch"),
        ({"incidents": ()}, "no circuit opened"),
        ({"incidents": (replace(GOOD.incidents[0], seconds=300.0),)}, "incident a#1 took 300 s"),
        ({"incidents": (replace(GOOD.incidents[0], seconds=None),)}, "incident a#1 has not ended in a closed circuit"),
        ({"incidents": (replace(GOOD.incidents[0], recovered=False),)}, "incident a#1 has not ended in a closed circuit"),
        ({"memory": replace(GOOD.memory, missing=3)}, "3 exchanges that were acknowledged are not in the memory store"),
    ],
)
def test_each_thing_that_is_not_good_enough_fails_the_drill(change, said):
    """Every criterion alone decides, and says by how much it was missed."""
    report = replace(GOOD, **change)
    assert not report.passed
    assert len(report.problems) == 1
    assert said in report.problems[0]


def test_a_machine_that_is_too_slow_is_named_as_such():
    """Trouble in the steady phase is no trouble of the experiments, and the report says so."""
    slow = replace(GOOD, phases=(PhaseResult("steady", 10.0, replace(QUIET, p95=2.0), 0),))
    failing = replace(GOOD, phases=(PhaseResult("steady", 10.0, replace(QUIET, failed=6), 0),))
    assert "try a lower --rate" in slow.hint
    assert "try a lower --rate" in failing.hint
