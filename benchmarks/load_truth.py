"""Whether the load generator tells the truth, beside Locust's FastHttpUser.

Four services on loopback, each in a process of its own (uvicorn):

- one that stands still for 1 s in each 5 s. At a steady rate a fifth of the requests comes into a stall and waits up to a second, evenly,
  so the 95th percentile is 0.75 s and the 99th 0.95 s. Locust's users wait with the service, and it reports what is left;
- one that writes its first token after 20 ms;
- one that answers every request with the same bytes, for the rate: Locust with 20 users as fast as it can, and ours at three times that
  rate. (A uvicorn would be the limit here. On a machine that does other work as well the best of three tries counts, of both.);
- one with four workers of 20 ms, whose knee is looked for.

Locust runs in a process of its own, with the Python of this one, or with that of the variable LOCUST_PYTHON.
"""

from __future__ import annotations

import asyncio
import csv
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _measure import Benchmark, Ratio, Table

from somaresil.load import Request, Scenario, Stage, Threshold, run_scenario, scenario_capacity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from somaresil.load import LoadReport

PACKAGES = ("somaresil", "httptools", "uvicorn", "locust")
HOST = "127.0.0.1"
HERE = Path(__file__).resolve().parent
LOCUST_PYTHON = os.environ.get("LOCUST_PYTHON", sys.executable)
STALL_RATE = 200
USERS = 20
LOCUST_FILE = """
import os
from locust import FastHttpUser, constant, constant_throughput, task

class User(FastHttpUser):
    pace = float(os.environ.get("PACE", "0"))
    wait_time = constant_throughput(pace) if pace else constant(0)

    @task
    def ok(self):
        self.client.get("/ok")
"""


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(*, stalls: bool = False, plain: bool = False) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "load_target:app", "--host", HOST, "--port", str(port), "--log-level", "critical"]
    environment = {**os.environ, "LOAD_TARGET_STALLS": "1" if stalls else "0"}
    if plain:
        command = [sys.executable, "-c", f"import load_target; load_target.run_plain({HOST!r}, {port})"]
    else:
        command.append("--no-access-log")
    server = subprocess.Popen(command, cwd=HERE, env=environment, stderr=subprocess.DEVNULL if plain else None)
    try:
        deadline = time.monotonic() + 20.0
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex((HOST, port)) == 0:
                    break
            if time.monotonic() > deadline or server.poll() is not None:
                raise RuntimeError("the service did not start")
            time.sleep(0.05)
        yield f"http://{HOST}:{port}"
    finally:
        server.terminate()
        server.wait(10)


def ours(url: str, request: Request, rate: float, seconds: float, **options: Any) -> LoadReport:
    scenario = Scenario("truth", url, (request,), (Stage(seconds, rate),), arrival="constant", **options)
    return asyncio.run(run_scenario(scenario))


def has_locust() -> str | None:
    """The version of Locust; None: there is none."""
    said = subprocess.run(
        [LOCUST_PYTHON, "-c", "import importlib.metadata as m; print(m.version('locust'))"], capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or None


def locust(url: str, seconds: float, pace: float = 0.0) -> Mapping[str, str]:
    """The line of the sum in Locust's own statistics."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "locustfile.py"
        file.write_text(LOCUST_FILE)
        users = 10 if pace else USERS
        command = [LOCUST_PYTHON, "-m", "locust", "-f", str(file), "--headless", "-H", url, "-u", str(users), "-r", str(users)]
        command += ["-t", f"{seconds:g}s", "--csv", f"{folder}/out", "--only-summary", "--loglevel", "ERROR"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"PACE": str(pace)}
        subprocess.run(command, env=environment, capture_output=True, check=False, timeout=seconds + 60.0)
        with (Path(folder) / "out_stats.csv").open(newline="") as out:
            return next(row for row in csv.DictReader(out) if row["Name"] == "Aggregated")


def milliseconds(value: float | None) -> float:
    return -1.0 if value is None else value * 1000.0


def stalls(bench: Benchmark) -> None:
    seconds = 10.0 if bench.quick else 30.0
    table = Table("1 s of stall in each 5 s, 200 requests a second, ms", ("p50", "p95", "p99", "max"))
    table.rows["by arithmetic"] = (0.0, 750.0, 950.0, 1000.0)
    with serving(stalls=True) as url:
        latency = ours(url, Request("ok", "/ok"), STALL_RATE, seconds).run.books.total().latency
    table.rows["somaresil, from the intended start"] = tuple(milliseconds(latency.quantile(q)) for q in (0.5, 0.95, 0.99, 1.0))
    if "locust" not in bench.missing:
        with serving(stalls=True) as url:
            found = locust(url, seconds, STALL_RATE / 10)
        table.rows["locust, 10 users of 20 a second"] = tuple(float(found[name]) for name in ("50%", "95%", "99%", "Max Response Time"))
    bench.tables.append(table)
    bench.ratios.append(Ratio("p95 under stalls, error", abs((latency.quantile(0.95) or 0.0) / 0.75 - 1.0), 0.05, "of it"))


def first_tokens(bench: Benchmark) -> None:
    table = Table("tokens every 20 ms, ms", ("first p50", "first p95", "gap p50", "total p50"))
    with serving() as url:
        report = ours(url, Request("sse", "/sse", kind="sse", end="[DONE]"), 20.0, 2.0 if bench.quick else 10.0)
    book = report.run.books.total()
    found = (book.first.quantile(0.5), book.first.quantile(0.95), book.gap.quantile(0.5), book.latency.quantile(0.5))
    table.rows["somaresil"] = tuple(milliseconds(value) for value in found)
    bench.tables.append(table)
    first = milliseconds(found[0])
    bench.ratios.append(Ratio("time to the first token of 20 ms", first, 25.0, "ms"))
    bench.ratios.append(Ratio("and not less: short of 20 ms by", max(0.0, 20.0 - first), 0.2, "ms"))


def rates(bench: Benchmark) -> None:
    seconds = 2.0 if bench.quick else 5.0
    tries = 1 if bench.quick else 3
    table = Table("how many requests", ("requests/s", "p50 ms", "p99 ms", "failed", "cpu share"))
    base = 2_700.0
    if "locust" not in bench.missing:
        with serving(plain=True) as url:
            found = max((locust(url, seconds) for _ in range(tries)), key=lambda row: float(row["Requests/s"]))
        base = float(found["Requests/s"])
        table.rows[f"locust FastHttpUser, {USERS} users"] = (
            base,
            float(found["50%"]),
            float(found["99%"]),
            float(found["Failure Count"]),
            "-",
        )
    best, told = 0.0, False
    for _ in range(tries):
        with serving(plain=True) as url:
            run = ours(url, Request("ok", "/ok"), 3.0 * base, seconds).run
        book = run.books.total()
        rate, told = run.per_second(book.good), bool(run.saturated)
        if rate > best:
            best = rate
            quantiles = (milliseconds(book.latency.quantile(q)) for q in (0.5, 0.99))
            name = f"somaresil, 3 times that was offered{', says it is saturated' if told else ''}"
            table.rows = {key: row for key, row in table.rows.items() if key.startswith("locust")}
            table.rows[name] = (rate, *quantiles, float(book.failed + book.dropped), run.cpu)
        if not told and rate >= 2.98 * base:
            break
    bench.tables.append(table)
    bench.notes.append(f"rate beside Locust's: {best / base:.2f} times{', and it says that it is saturated' if told else ''}")
    bench.ratios.append(Ratio("3 times Locust's rate, short by", 0.0 if told else max(0.0, 3.0 - best / base), 0.05, "times"))


def knee(bench: Benchmark) -> None:
    limits = (Threshold("p95", 0.2), Threshold("error_rate", 0.01))
    with serving() as url:
        # What it really does: an asyncio sleep of 20 ms is a little longer, so the workers are driven far beyond their knee.
        driven = ours(url, Request("workers", "/workers", timeout=30.0), 300.0, 4.0, thresholds=limits)
        true = driven.run.per_second(driven.run.books.total().good)
        scenario = Scenario(
            "knee", url, (Request("workers", "/workers", timeout=5.0),), (Stage(1.0, 400.0),), arrival="constant", thresholds=limits
        )
        found = asyncio.run(
            scenario_capacity(scenario, start=50.0, seconds=2.0 if bench.quick else 4.0, precision=0.04, runs=1 if bench.quick else 3)
        )
    table = Table("four workers of 20 ms, requests/s", ("rate",))
    table.rows["by arithmetic"] = (200.0,)
    table.rows["what they do when they never rest"] = (true,)
    table.rows["knee"] = (found.knee or -1.0,)
    law = found.law
    table.rows["most, by the scalability law"] = (-1.0 if law is None or law.limit is None else law.limit,)
    bench.tables.append(table)
    bench.notes += found.lines(100.0)
    bench.ratios.append(Ratio("knee, error", 1.0 if found.knee is None else abs(found.knee / true - 1.0), 0.10, "of it"))


def main() -> None:
    bench = Benchmark(__doc__ or "", PACKAGES)
    version = has_locust()
    if version is None:
        bench.missing["locust"] = f"not installed for {LOCUST_PYTHON}"
    else:
        bench.missing.pop("locust", None)
        bench.versions["locust"] = version
    for part in (stalls, first_tokens, rates, knee):
        part(bench)
    bench.finish()


if __name__ == "__main__":
    main()
