"""What real tools write is read; what pytest-benchmark measures is judged; Prometheus is asked for a history."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from somaresil.cli import main
from somaresil.perf import this_machine
from somaresil.perf.read import read_results
from tests.integration.servers import HOST, Server, free_port

LIMIT = 120.0


@pytest.fixture
def served(tmp_path):
    """Give the address of a file server on loopback."""
    port = free_port()
    (tmp_path / "page.txt").write_text("hello")
    command = [sys.executable, "-m", "http.server", str(port), "--bind", HOST, "--directory", str(tmp_path)]
    with Server(command, port=port, folder=tmp_path):
        yield f"http://{HOST}:{port}"


def call(*words, folder, codes=(0,)):
    """Run a tool, and give what it prints."""
    # In a worker of pytest-xdist, and in what it starts, pytest-benchmark measures nothing.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [str(word) for word in words], cwd=folder, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment
    )
    assert done.returncode in codes, done.stdout + done.stderr
    return done.stdout


def program(name):
    """Give the path of a program, or skip by name."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: `apt-get install {name}`, or run `nox -s tests` as root")
    return found


# -- pytest-benchmark ---------------------------------------------------------------------------------------------------------------------

SUITE = """
    import pytest

    @pytest.mark.performance_budget(p50_ms=LIMIT)
    def test_marked(benchmark):
        benchmark.pedantic(lambda: sum(range(WORK)), rounds=100)

    def test_plain(benchmark):
        benchmark.pedantic(lambda: sum(range(100)), rounds=100)
"""


def benchmarked(folder, *options, limit=1000.0, work=20_000, code=0):
    """Run a suite with pytest-benchmark, and give what it prints."""
    pytest.importorskip("pytest_benchmark")
    (folder / "test_it.py").write_text(textwrap.dedent(SUITE).replace("LIMIT", str(limit)).replace("WORK", str(work)))
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_it.py"]
    return call(sys.executable, *words, *options, folder=folder, codes=(code,))


def test_pytest_benchmark_is_read_judged_and_compared(tmp_path):
    """Its file; budgets of markers, when asked; ten times the work is a regression."""
    out = benchmarked(tmp_path, "--benchmark-json=base.json", "--benchmark-save-data", "--somaresil-perf")
    assert "::test_marked: budget kept" in out
    (result,) = read_results(tmp_path / "base.json")
    assert {each.name for each in result.series} == {"test_it.py::test_marked", "test_it.py::test_plain"}
    assert all(len(each.values) == 100 for each in result.series)
    assert result.machine.differences(this_machine()) == ()
    out = benchmarked(tmp_path, "--somaresil-perf-baseline=base.json", work=200_000, code=1)
    assert "::test_marked: regressed: higher" in out


def test_a_budget_that_is_broken_fails_the_session_only_when_asked(tmp_path):
    """And a baseline of another machine, or none, is not compared in silence."""
    assert "budget" not in benchmarked(tmp_path, "--benchmark-json=base.json", "--benchmark-save-data", limit=1e-9)
    assert "::test_marked: budget broken" in benchmarked(tmp_path, "--somaresil-perf", limit=1e-9, code=1)
    written = json.loads((tmp_path / "base.json").read_text())
    written["machine_info"]["cpu"]["count"] = 640
    (tmp_path / "other.json").write_text(json.dumps(written))
    words = ["--somaresil-perf-baseline=other.json", "--somaresil-perf", "--benchmark-disable"]
    out = benchmarked(tmp_path, *words, code=1)
    assert "baseline of another machine: cores: " in out
    assert "pytest-benchmark has measured nothing" in out
    out = benchmarked(tmp_path, "--somaresil-perf-baseline=base.json", "-k", "plain", code=1)
    assert "::test_marked: unknown: the baseline has it" in out


# -- others -------------------------------------------------------------------------------------------------------------------------------


def test_pyperf_is_read(tmp_path):
    """A value a process."""
    pytest.importorskip("pyperf")
    words = ["-m", "pyperf", "timeit", "--quiet", "-p", "3", "-n", "2", "-w", "1", "--loops", "64", "-o", "out.json", "sum(range(100))"]
    call(sys.executable, *words, folder=tmp_path)
    (result,) = read_results(tmp_path / "out.json")
    (series,) = result.series
    assert (series.name, series.unit, len(series.values)) == ("timeit", "seconds", 3)
    assert result.machine.differences(this_machine()) == ()
    assert result.at is not None


@pytest.mark.server
def test_hyperfine_is_read(tmp_path):
    """Every run."""
    call(program("hyperfine"), "--runs", "5", "--export-json", "out.json", "--shell=none", "sleep 0.01", folder=tmp_path)
    (series,) = read_results(tmp_path / "out.json")[0].series
    assert (series.name, len(series.values)) == ("sleep 0.01", 5)
    assert all(0.005 < value < 5.0 for value in series.values)


@pytest.mark.server
def test_wrk_is_read(tmp_path, served):
    """With percentiles, and with errors."""
    for path, bad in (("page.txt", 0.0), ("none.txt", 1.0)):
        out = call(program("wrk"), "-t1", "-c2", "-d1s", "--latency", f"{served}/{path}", folder=tmp_path)
        (tmp_path / "out.txt").write_text(out)
        (result,) = read_results(tmp_path / "out.txt")
        assert result.get(f"/{path}", "error_rate").values == (bad,)
        assert result.get(f"/{path}", "throughput").values[0] > 0.0
        assert 0.0 < result.get(f"/{path}", "p50").values[0] <= result.get(f"/{path}", "p99").values[0]


LOCUSTFILE = """
from locust import HttpUser, constant, task


class User(HttpUser):
    wait_time = constant(0.05)

    @task
    def page(self):
        self.client.get("/page.txt")
"""


@pytest.mark.server
def test_locust_is_read(tmp_path, served):
    """Both of its files say the same, within its rounding."""
    locust = program("locust")
    (tmp_path / "locustfile.py").write_text(LOCUSTFILE)
    words = ["--headless", "-u", "2", "-r", "2", "-t", "4s", "-H", served, "--csv", "out", "--json-file", "out", "--only-summary"]
    call(locust, "-f", "locustfile.py", *words, folder=tmp_path)
    table, counted = (read_results(tmp_path / name)[0] for name in ("out_stats.csv", "out.json"))
    for result in (table, counted):
        assert result.get("GET /page.txt", "error_rate").values == (0.0,)
        assert result.get("GET /page.txt", "requests").values[0] > 10
    assert table.get("GET /page.txt", "p95").values[0] == pytest.approx(counted.get("GET /page.txt", "p95").values[0], abs=0.05)


@pytest.mark.server
def test_a_history_comes_from_prometheus(tmp_path, prometheus, capsys):
    """A range query, with the unit of its metric; a query that it refuses is told with exit code 2."""
    del tmp_path
    server = prometheus([])
    words = ["perf", "history", "--prometheus", server.url, "--days", "0.01", "--step", "60", "--allow-unknown", "--json"]
    code = main([*words, "--query", "vector(2) * on() group_left() vector(3)", "--unit", "ms"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert found["rows"][0]["unit"] == "seconds"
    assert {point["value"] for point in found["rows"][0]["points"]} == {0.006}
    assert found["rows"][0]["history"]["count"] >= 14
    assert main([*words, "--query", "sum("]) == 2
    assert "bad_data" in capsys.readouterr().err
    assert main([*words, "--query", "vector(0) / 0", "--unit", "ms"]) == 2
    assert "expected a finite number" in capsys.readouterr().err
    assert main([*words[:3], "http://127.0.0.1:9", *words[4:], "--query", "up"]) == 2
    assert main([*words[:3], "ftp://x", *words[4:]]) == 2
    assert "--query" in capsys.readouterr().err
