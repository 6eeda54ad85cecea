"""Locust, in processes of its own, against a real uvicorn: exit codes, merged counts, first tokens, intended times, shapes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from somaresil.demo.processes import Fleet
from somaresil.load import PRESETS
from somaresil.load.books import Books
from tests.integration.servers import HOST, Server, free_port

ROOT = Path(__file__).resolve().parents[2]

FILE = """
import os, pathlib, time
from locust import FastHttpUser, HttpUser, events, task
from somaresil.integrations.locust import *

judge(report="{folder}/report.json", {options})

OWN = []

@events.request.add_listener
def own(request_type, **_):
    OWN.append(request_type)

@events.test_stop.add_listener
def write(environment, **_):
    pathlib.Path("{folder}/own-%d" % os.getpid()).write_text("%d %d" % (len(OWN), OWN.count("SSE first")))

class User({user}):
    wait_time = {wait}

    @task
    def act(self):
        {task}
"""


def locust(folder, url, *arguments, options="", user="HttpUser", wait="constant_throughput(10)", task='self.client.get("/ok")', more=""):
    """Run a locustfile to its end; the process, and the report if it wrote one."""
    file = folder / "locustfile.py"
    file.write_text(FILE.format(folder=folder, options=options, user=user, wait=wait, task=task) + more)
    done = execute(file, url, *arguments)
    report = folder / "report.json"
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    return done, json.loads(report.read_text()) if report.exists() else None


def execute(file, url, *arguments):
    command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "-H", url, "--only-summary", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Give the address of a running service."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.integration.load_app:app", "--host", HOST, "--port", port, "--log-level", "critical"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with Server(command, port=port, folder=tmp_path_factory.mktemp("locust"), ready="/ok", environment=environment) as server:
        yield server.url


def by(port):
    """Where a master listens, and where its workers find it."""
    return ("--master-bind-host", HOST, "--master-bind-port", str(port), "--master-port", str(port))


def total_of(text, name):
    """What Locust's own table says of streams: how many, and how many failed."""
    return next(line.split()[2:4] for line in text.splitlines() if line.split()[:2] == ["SSE", name])


SHORT = ("-u", "5", "-r", "5", "-t", "2s")


def test_a_test_that_keeps_its_limits_ends_with_0(service, tmp_path):
    """The report has the counts, and the service's own beside them."""
    options = f'thresholds={{"p95": 1.0, "error_rate": 0.05}}, metrics="{service}/metrics", server_slos=["up"]'
    done, report = locust(tmp_path, service, *SHORT, options=options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "locust: kept" in done.stdout
    figures = report["requests"]["GET /ok"]
    assert 50 <= figures["good"] <= 110
    assert report["server"]["objectives"]["up"]["good"] >= figures["good"]
    assert report["locust"] == {"workers": 0, "requests": figures["ended"]}


MORE = """
@events.test_stopping.add_listener
def look(**_):
    import urllib.request
    pathlib.Path("{folder}/metrics").write_bytes(urllib.request.urlopen("http://127.0.0.1:{port}/metrics", timeout=5.0).read())
"""


def test_prometheus_can_be_told_how_a_test_goes(service, tmp_path):
    """What it hears in the last second is in the report too, and nothing is missing there for having been told before."""
    port = free_port()
    more = MORE.format(folder=tmp_path, port=port)
    options = f'thresholds={{"p95": 5.0, "error_rate": 0.05}}, tell="{HOST}:{port}"'
    done, report = locust(tmp_path, service, "-u", "5", "-r", "5", "-t", "4s", options=options, more=more)
    assert done.returncode == report["exit_code"] != 1, done.stdout + done.stderr
    found = {
        sample.name + sample.labels.get("outcome", ""): sample.value
        for family in parse((tmp_path / "metrics").read_text())
        for sample in family.samples
    }
    figures = report["requests"]["GET /ok"]
    assert figures["ended"] == report["locust"]["requests"]
    assert 0.3 * figures["good"] <= found["somaresil_load_requests_totalgood"] <= figures["good"]
    assert found["somaresil_load_in_flight"] == 5
    # On a machine that is busy with others the process may have measured itself; that is told as well.
    assert found["somaresil_load_saturated"] <= bool(report["generator"]["saturated"])


def test_a_place_at_which_somebody_else_is_told_ends_it_with_2(service, tmp_path):
    """Before anything is sent."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done, report = locust(tmp_path, service, *SHORT, options=f'tell="{HOST}:{port}"')
    assert (done.returncode, report) == (2, None)
    assert f"tell='{HOST}:{port}'" in done.stderr


def test_a_broken_limit_ends_with_1(service, tmp_path):
    """Errors have the kinds of `somaresil load`."""
    done, report = locust(tmp_path, service, *SHORT, task='self.client.get("/bad")')
    assert done.returncode == 1
    assert "NOT KEPT" in done.stdout
    assert set(report["requests"]["GET /bad"]["errors"]) == {"status 503"}


def test_nothing_that_can_decide_ends_with_2(service, tmp_path):
    """A test without requests is no good test, whatever Locust would say of it."""
    done, report = locust(tmp_path, service, *SHORT, task="pass")
    assert done.returncode == 2
    assert report["answer"] == "unknown"


def test_a_service_that_is_not_there_is_a_broken_limit(tmp_path):
    """Errors by their kind."""
    done, report = locust(tmp_path, f"http://{HOST}:{free_port()}", *SHORT, options='thresholds={"error_rate": 0.5}')
    assert done.returncode == 1
    assert set(report["requests"]["GET /ok"]["errors"]) == {"refused"}


def test_a_process_that_measures_itself_is_not_believed(service, tmp_path):
    """A limit of time that a busy client did not keep is not known."""
    task = 'end = time.monotonic() + 0.2\n        while time.monotonic() < end: pass\n        self.client.get("/ok")'
    options = 'thresholds={"p50": 0.01, "error_rate": 0.5}'
    done, report = locust(tmp_path, service, *SHORT, options=options, task=task)
    assert done.returncode == 2, done.stdout
    assert report["generator"]["saturated"]
    assert "the generator was saturated" in done.stdout


def test_an_error_in_a_task_is_not_hidden(service, tmp_path):
    """Who could not run the test has not shown anything."""
    done = None
    file = tmp_path / "locustfile.py"
    file.write_text(FILE.format(folder=tmp_path, options="", user="HttpUser", wait="constant_pacing(0.2)", task="1 / 0"))
    done = execute(file, service, *SHORT)
    assert done.returncode == 2
    assert "ended with an error of their own" in done.stdout


def test_a_host_elsewhere_needs_permission(tmp_path):
    """Load is not sent anywhere by a slip."""
    done, _ = locust(tmp_path, "http://service.example", *SHORT)
    assert done.returncode == 2
    assert "service.example is not loopback" in done.stdout + done.stderr


@pytest.mark.parametrize(("path", "code"), [("/ok", 0), ("/bad", 1)])
def test_counts_of_workers_add_up_exactly(service, tmp_path, path, code):
    """A master and two workers: what the workers have counted by themselves is what the master judges, to the last request."""
    options = 'thresholds={"error_rate": 0.05}'
    done, report = locust(
        tmp_path, service, *SHORT, "--processes", "2", *by(free_port()), options=options, task=f'self.client.get("{path}")'
    )
    assert done.returncode == code, done.stdout + done.stderr
    counted = [int(file.read_text().split()[0]) for file in tmp_path.glob("own-*")]
    assert len([count for count in counted if count]) == 2
    total = Books.from_dict(report["books"]).total()
    assert total.ended == sum(counted)
    assert total.good + total.failed == total.ended
    assert report["locust"]["workers"] == 2
    assert total.latency.count == total.good


def test_a_master_by_itself_and_its_workers_end_as_they_should(service, tmp_path):
    """Started one by one, as on several machines: the master ends with 1, its workers with 0."""
    file = tmp_path / "locustfile.py"
    options = 'thresholds={"error_rate": 0.05}'
    file.write_text(FILE.format(folder=tmp_path, options=options, user="HttpUser", wait="poisson(10)", task='self.client.get("/bad")'))
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    worker = [sys.executable, "-m", "locust", "-f", str(file), "--worker", "--master-port", str(port)]
    workers = [subprocess.Popen(worker, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    try:
        done = execute(file, service, *SHORT, "--master", *by(port), "--expect-workers", "2")
        assert [each.wait(20) for each in workers] == [0, 0]
    finally:
        for each in workers:
            each.kill()
            each.wait()
    assert done.returncode == 1, done.stdout + done.stderr
    counted = [int(each.read_text().split()[0]) for each in tmp_path.glob("own-*")]
    assert Books.from_dict(json.loads((tmp_path / "report.json").read_text())["books"]).total().ended == sum(counted) > 0


def test_a_stream_is_measured_by_the_token(service, tmp_path):
    """First token, gaps, total, and truncated streams; Locust's fast client beside it."""
    task = 'for path in ("/sse", "/cut", "/torn"): self.stream(path, end="[DONE]")'
    more = """
class Fast(FastHttpUser):
    fixed_count = 1
    wait_time = constant_throughput(2)

    @task
    def act(self):
        begun = time.perf_counter()
        for line in self.client.iter_lines("/sse", name="fast"):
            if "token" in str(line):
                took = (time.perf_counter() - begun) * 1000
                events.request.fire(request_type="FAST", name="first", response_time=took, response_length=0, exception=None, context={})
                break
"""
    options = 'thresholds={"error_rate": 1.0, "truncated": 0.1, "/sse": {"ttft_p95": 0.2}}'
    done, report = locust(tmp_path, service, *SHORT, options=options, user="SSEUser", wait="constant_throughput(1)", task=task, more=more)
    books = Books.from_dict(report["books"])
    whole, cut, torn = (books.total([f"SSE {path}"]) for path in ("/sse", "/cut", "/torn"))
    assert (whole.truncated, whole.failed) == (0, 0)
    assert whole.items == 10 * whole.good > 0
    assert 0.019 <= whole.first.quantile(0.5) <= 0.045
    assert 0.018 <= whole.gap.quantile(0.5) <= 0.04
    assert 0.19 <= whole.latency.quantile(0.5) <= 0.4
    assert cut.errors == {"truncated": cut.ended}
    assert torn.errors == {"cut off": torn.ended}
    assert cut.truncated == cut.ended > 0
    fast = books.total(["FAST first"]).latency.quantile(0.5)
    sys.stdout.write(f"first token of a service that needs 20 ms: {whole.first.quantile(0.5):.4f} s, FastHttpUser {fast:.4f} s\n")
    assert done.returncode == 1
    assert "streams came to their end" in done.stdout
    assert total_of(done.stderr, "/sse")[1].startswith("0(")


def test_a_worker_that_is_lost_leaves_the_answer_unknown(service, tmp_path):
    """What it had seen is not known, and the rest may be better than that."""
    options, two = 'thresholds={"error_rate": 0.05}', ("--processes", "2", *by(free_port()))
    more = """
from locust.runners import WorkerRunner

@events.test_start.add_listener
def die(environment, **_):
    import gevent
    if isinstance(environment.runner, WorkerRunner) and environment.runner.worker_index == 1:
        gevent.spawn_later(1.0, os.kill, os.getpid(), 9)
"""
    done, report = locust(tmp_path, service, *SHORT, *two, options=options, more=more)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "has not told its last counts" in done.stdout
    assert report["answer"] == "unknown"


def test_ctrl_c_is_no_good_end(service, tmp_path):
    """What was seen until then is told, and judged as what it is: not the whole test."""
    file = tmp_path / "locustfile.py"
    options = 'thresholds={"error_rate": 0.5}'
    text = FILE.format(folder=tmp_path, options=options, user="HttpUser", wait="constant_pacing(0.1)", task='self.client.get("/ok")')
    file.write_text(f"{text}\n@events.spawning_complete.add_listener\ndef ready(**_): pathlib.Path('{tmp_path}/ready').touch()\n")
    command = [sys.executable, "-m", "locust", "-f", str(file), "--headless", "-H", service, "--only-summary", "-u", "5", "-r", "5"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 30.0
        while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 2, out
    assert "the test was not brought to its end" in out


def test_a_scenario_file_has_stages_and_limits_for_locust_too(service, tmp_path):
    """The file of `somaresil load`: its arrivals are users, its limits are judged, its service is read."""
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(f"""
name = "shared"
target = "{service}"
stages = [{{ seconds = 3, rate = 20 }}]
[[requests]]
name = "/ok"
path = "/ok"
[thresholds]
error_rate = 0.05
[thresholds."/ok"]
p95 = 2.0
[server]
metrics = "{service}/metrics"
slos = ["up"]
""")
    more = f"""
class Shape(ScenarioShape):
    scenario = {str(scenario)!r}
    think = 0.5
"""
    done, report = locust(tmp_path, service, options=f"scenario={str(scenario)!r}", wait="constant_pacing(0.5)", more=more)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {check["what"] for check in report["checks"]} == {"error_rate <= 0.05", "/ok: p95 <= 2 s", "up: 0.9"}
    assert report["scenario"] == "shared"
    # Ten users, two requests a second each.
    assert 30 <= report["requests"]["GET /ok"]["good"] <= 80


@pytest.fixture(scope="module")
def stalling(tmp_path_factory):
    """Give the address of a service that stands still for a second in each five."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "load_target:app", "--app-dir", str(ROOT / "benchmarks"), "--host", HOST, "--port", port]
    environment = {**os.environ, "LOAD_TARGET_STALLS": "1"}
    quiet = ("--log-level", "critical", "--no-access-log")
    with Server([*command, *quiet], port=port, folder=tmp_path_factory.mktemp("stall"), environment=environment) as server:
        yield server.url


@pytest.mark.slow
def test_a_stall_is_seen_as_those_see_it_who_come_meanwhile(stalling, tmp_path):
    """A fifth of the requests comes into a stall of a second, so 5 % wait longer than 0.75 s; Locust itself sees nothing of it."""
    more = """
@events.quitting.add_listener
def quitting(environment, **_):
    pathlib.Path("{folder}/p95").write_text(str(environment.stats.total.get_response_time_percentile(0.95)))
""".replace("{folder}", str(tmp_path))
    arguments = ("-u", "5", "-r", "5", "-t", "10s")
    options = 'thresholds={"error_rate": 0.05, "p95": 0.3}'
    done, report = locust(tmp_path, stalling, *arguments, options=options, wait="constant_throughput(20)", more=more)
    p95 = Books.from_dict(report["books"]).total().latency.quantile(0.95)
    theirs = float((tmp_path / "p95").read_text()) / 1000.0
    sys.stdout.write(f"p95 of a service that stalls 1 s in 5 s: {p95:.3f} s, Locust's {theirs:.3f} s\n")
    assert 0.5 <= p95 <= 1.5
    assert theirs < 0.5 * p95
    assert done.returncode in {1, 2}
    assert report["answer"] == ("unknown" if report["generator"]["saturated"] else "broken")


@pytest.fixture(scope="module")
def gateway():
    """The gateway of the demo with everything behind it."""
    with Fleet() as fleet:
        settings = fleet.start_services(7)
        deadline = time.monotonic() + 30.0
        while True:
            try:
                with urllib.request.urlopen(f"{settings.gateway}/health", timeout=1):
                    break
            except OSError:
                assert time.monotonic() < deadline, fleet.last_words()
                time.sleep(0.05)
        yield settings.gateway


CONVERSATION = """
import json, pathlib
from locust import events
from somaresil.integrations.locust import Baseline, RampToCapacity, Soak, Spike, Stress, judge
from somaresil.integrations.locust.conversation import LIMITS, ConversationUser

judge(thresholds=LIMITS, report="{folder}/report.json")

class Shape({shape}):
    compress = {compress}
    users = 20

MOST = [0]

@events.spawning_complete.add_listener
def spawned(user_count, **_):
    MOST[0] = max(MOST[0], user_count)
    pathlib.Path("{folder}/most").write_text(str(MOST[0]))
"""
SHAPES = {"baseline": "Baseline", "stress": "Stress", "soak": "Soak", "spike": "Spike", "ramp-to-capacity": "RampToCapacity"}


@pytest.mark.slow
@pytest.mark.parametrize("preset", [*PRESETS])
def test_every_shape_runs_against_the_demo(gateway, preset, tmp_path):
    """The conversation user in every shape, compressed to seconds: all of its requests are answered, and all of its users were there."""
    file = tmp_path / "locustfile.py"
    file.write_text(CONVERSATION.format(folder=tmp_path, shape=SHAPES[preset], compress=PRESETS[preset].seconds / 8.0))
    done = execute(file, gateway)
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.returncode in {0, 1, 2}
    report = json.loads((tmp_path / "report.json").read_text())
    assert set(report["requests"]) >= {"POST message", "POST upload", "SSE events"}
    assert all(report["requests"][name]["good"] > 0 for name in ("POST message", "POST upload", "SSE events"))
    total = Books.from_dict(report["books"]).total()
    assert total.failed <= 0.1 * total.ended
    assert report["complete"]
    # Who was sent away when the spike was over has missed nothing since.
    assert total.dropped <= 5
    # Locust asks for the shape once a second: of the steps of the ramp, which are shorter here, one may be missed.
    assert int((tmp_path / "most").read_text()) >= (18 if preset == "ramp-to-capacity" else 20)
