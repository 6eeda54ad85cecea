"""Locust's judge without a test, in a process of its own: importing Locust makes every socket of the process gevent's.

``python -m tests.unit.integrations.judge_alone`` prints as JSON what became of it.
"""

from __future__ import annotations

import json
import logging
import socket
import sys
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import gevent
from locust.runners import MasterRunner, WorkerRunner

from somaresil import SLO, ConfigurationError, ManualClock
from somaresil.integrations._locust_tally import Tally
from somaresil.integrations.locust import _judge
from somaresil.integrations.locust._judge import Judge
from somaresil.load.books import Ending


class Done(Exception):
    """The play is over."""


class Heard(logging.Handler):
    """What was logged."""

    def __init__(self):
        super().__init__()
        self.said = []
        logging.getLogger("somaresil.locust").addHandler(self)

    def emit(self, record):
        self.said.append(record.getMessage())


HEARD = Heard()


class Master(MasterRunner):
    """Asks workers that answer, or do not."""

    user_count = 3

    def __init__(self, *clients, answer=None):
        self.clients = SimpleNamespace(all=[SimpleNamespace(id=client) for client in clients])
        self.environment = SimpleNamespace(stop_timeout=None)
        self.exceptions = {}
        self.asked = []
        self.heard = []
        self.answer = answer

    def register_message(self, name, listener):
        self.heard.append(name)

    def send_message(self, msg_type, data=None, client_id=None):
        self.asked.append((msg_type, client_id))
        if self.answer is not None:
            self.answer(client_id)


class Worker(WorkerRunner):
    """Tells what it is asked for."""

    def __init__(self):
        self.exceptions = {}
        self.told = []

    def register_message(self, name, listener):
        self.told.append(name)

    def stop(self):
        self.told.append("stopped")

    def send_message(self, msg_type, data=None, client_id=None):
        self.told.append((msg_type, sorted(data)))


def world(runner):
    stats = SimpleNamespace(total=SimpleNamespace(num_requests=4))
    user = SimpleNamespace(host="http://127.0.0.1:9")
    return SimpleNamespace(runner=runner, host=None, user_classes=[user], stats=stats, process_exit_code=None, stop_timeout=None)


def counts(good, bad=0):
    tally = Tally({})
    for number in range(good + bad):
        tally.note(Ending("GET /a", 0.0, 0.1, None if number < good else "status 500"))
    return tally.take()


def wrong():
    """What a judge refuses."""
    found = {}
    for name, value in (("report", "/nowhere/at/all/r.json"), ("tell", "9102"), ("thresholds", {"p95": -1.0, "a": {"p95x": 1.0}})):
        try:
            Judge(**{name: value})
        except ConfigurationError as refused:
            found[name] = sorted(problem.path for problem in refused.problems)
    return found


def taken():
    """Somebody else is where Prometheus is to be answered."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        try:
            Judge(tell=f"127.0.0.1:{port}")._init(world(Master()))
        except SystemExit as ended:
            return {"code": ended.code, "said": HEARD.said[-1].replace(str(port), "PORT")}
    return None


def workers():
    """One answers when it is asked for its last counts, one is gone and one never says anything."""
    judge = Judge()

    def answer(client):
        if client == "gone":
            raise OSError("no route")
        if client == "w1":
            gevent.spawn(judge._last, SimpleNamespace(node_id="w1", data=counts(3)))

    alone = Master("w1", answer=answer)
    environment = world(alone)
    judge._init(environment)
    judge._test_start(environment)
    judge._worker_report("w1", {"somaresil": counts(2)})
    judge._worker_report("w1", {"other": 1})
    judge._test_stopping()
    judge._test_stop(environment)
    whole = judge.report(environment)
    _judge._PATIENCE = 0.0
    judge._worker_connect("gone")
    judge._worker_connect("silent")
    judge._test_stop(environment)
    judge._quitting(environment)
    lacking = judge.report(environment)
    return {
        "heard": alone.heard,
        "asked": [list(each) for each in alone.asked[:1]],
        "started": whole.run.books.total().started,
        "problems": [check.what for check in whole.checks if check.what == "all counts"],
        "lacking": [check.why for check in lacking.checks if check.what == "all counts"],
        "warned": [said for said in HEARD.said if "gone" in said],
        "code": environment.process_exit_code,
        "workers": lacking.workers,
    }


def worker():
    """A worker tells its last counts after it has stopped, and leaves the judgement to its master."""
    runner = Worker()
    environment = world(runner)
    judge = Judge()
    judge._init(environment)
    judge._finish(environment)
    gevent.sleep(0)
    data = {}
    judge._report_to_master(data)
    judge._quitting(environment)
    judge._finish_now(world(None))
    return {"told": runner.told, "code": environment.process_exit_code, "reported": sorted(data)}


def watched():
    """A stall counts once for every look that was due in it; a busy process is seen."""
    clock = _judge._CLOCK = ManualClock()
    judge = Judge()
    busy = [0.0]
    _judge.time = SimpleNamespace(process_time=lambda: busy[0])
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            judge._begun = clock.monotonic()
        if len(looks) > 30:
            raise Done
        busy[0] += 0.04
        # The fifth look comes two tenths of a second late.
        clock.advance(seconds + (0.2 if len(looks) == 5 else 0.0))

    kept, _judge.gevent = _judge.gevent, SimpleNamespace(sleep=sleep)
    try:
        judge._watch()
    except Done:
        pass
    finally:
        _judge.gevent = kept
    told = judge.tally.take()
    return {"busiest": round(told["busiest"], 2), "late": judge_lag(told)}


def judge_lag(told):
    total = _judge.Sum({})
    total.add("w", told)
    (_, lag) = total.clients["w"]
    return [lag.count, lag.count - lag.at_most(0.04)]


def shown():
    """How the test goes is told while it runs; what breaks that does not end it."""
    judge = Judge()
    users = []

    class Metrics:
        def tell(self, name, run, *, in_flight, cpu):
            users.append([name, run.books.total().started, in_flight])
            if len(users) == 2:
                raise ValueError("no")

    turns = []

    def sleep(_):
        turns.append(1)
        if len(turns) == 2:
            judge._begun = _judge._CLOCK.monotonic()
            judge.tally.note(Ending("GET /a", 0.0, 0.1, None))

    kept, _judge.gevent = _judge.gevent, SimpleNamespace(sleep=sleep)
    judge._show(world(SimpleNamespace(user_count=5)), Metrics())
    _judge.gevent = kept
    return {"told": users, "turns": len(turns), "said": HEARD.said[-1]}


def judged():
    """What is not known is said, and decides."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "report.md"
        slos = Path(folder) / "slos.toml"
        slos.write_text("[slos.fast]\ntarget_percentage = 99.0\nmeasurement_window = '7d'\n", encoding="utf-8")
        judge = Judge(report=file, metrics="http://127.0.0.1:1/metrics", server_slos=["up"], slos=str(slos))
        runner = SimpleNamespace(exceptions={"x": {"count": 2}, "y": {"count": 1}}, user_count=0)
        environment = world(runner)
        early = judge.report(environment)
        judge._test_start(environment)
        judge._quitting(environment)
        written = file.read_text(encoding="utf-8")
        broken = world(runner)
        judge._about = None
        judge._quitting(broken)
    again = Judge(slos=[SLO("own", 99.0, timedelta(days=7))], thresholds={"p95": 2.0, "answer": {"ttft_p95": 0.5}})
    return {
        "early": {check.what: check.why for check in early.checks if check.what in {"no errors in tasks", "up"}},
        "notes": early.run.notes,
        "slos": [slo.name for slo in judge.slos],
        "written": "### Load: locust" in written,
        "service": "its metrics could not be read" in written,
        "code": environment.process_exit_code,
        "broken": broken.process_exit_code,
        "said": HEARD.said[-1],
        "limits": sorted(str(limit) for limit in again.limits),
    }


if __name__ == "__main__":
    plays = (wrong, taken, workers, worker, shown, judged, watched)
    found = {play.__name__: play() for play in plays}
    sys.stdout.write("\n" + json.dumps(found) + "\n")
