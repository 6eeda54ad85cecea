"""``somaresil gameday run`` against two real servers: faults are armed, counted and ended on both, over their control apps."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from somaresil import Resilience, ResilienceMiddleware
from somaresil.cli import main
from somaresil.control import BearerToken, chaos_control
from somaresil.gameday import figures_of

TOKEN = "integration-0123456789-abcdefghijk"
ROOT = "/_soma/chaos"
PATIENCE = 20.0


@contextmanager
def served():
    """A service under uvicorn; gives its Resilience and where it is."""
    resilience = Resilience("gateway", environment="test", seed=1)
    resilience.chaos.opt_in()
    guard = resilience.guard("llm.invoke")
    inner = FastAPI()
    inner.add_api_route("/items", lambda: guard.call(lambda: {"items": []}))
    inner.mount(ROOT, chaos_control(resilience, auth=BearerToken({"ops": TOKEN}), figures=figures_of(resilience)))
    listener = socket.create_server(("127.0.0.1", 0))
    app = ResilienceMiddleware(inner, resilience)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + PATIENCE
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    try:
        yield resilience, f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


@contextmanager
def traffic(*urls):
    """Requests to all of them, until the end."""
    over = threading.Event()

    def drive():
        with httpx.Client() as http:
            while not over.wait(0.005):
                for url in urls:
                    with contextlib.suppress(httpx.HTTPError):
                        http.get(f"{url}/items")

    thread = threading.Thread(target=drive)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE)


def plan(tmp_path, *urls):
    targets = "".join(f'[[targets]]\nurl = "{url}{ROOT}"\ntoken_env = "T_TOKEN"\n' for url in urls)
    path = tmp_path / "plan.toml"
    path.write_text(
        f"""somaresil_gameday = 1
name = "day"
{targets}
[[experiments]]
name = "slow"
baseline = 0.4
recover = 5
every = 0.1
faults = [{{ target = "llm.invoke", kind = "latency", delay = 0.001, start = 0, duration = 1, rate = 1.0 }}]
hypothesis = [{{ kind = "ratio", target = "llm.invoke", minimum = 0.9, minimum_calls = 3, window = 0.4 }}]
""",
        encoding="utf-8",
    )
    return str(path)


@pytest.fixture(autouse=True)
def _allowed(monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.setenv("T_TOKEN", TOKEN)


def test_a_game_day_is_played_over_two_instances(tmp_path, capsys):
    """Both were struck, what the report says is the sum of both, and nothing is left."""
    with served() as (one, first), served() as (two, second), traffic(first, second):
        code = main(["gameday", "run", plan(tmp_path, first, second), "--json"])
        out = capsys.readouterr()
        assert code == 0, out
        injected = [sum(run.injected for run in each.chaos.history) for each in (one, two)]
        assert all(injected)
        assert json.loads(out.out)["summary"]["injected"] == sum(injected)
        assert not one.chaos.runs
        assert not two.chaos.runs
        assert TOKEN not in out.out + out.err


def test_nothing_is_armed_when_one_of_them_is_not_there(tmp_path):
    """The other one never sees an experiment."""
    with served() as (one, first):
        with served() as (_, second):
            pass
        assert main(["gameday", "run", plan(tmp_path, first, second)]) != 0
        assert not one.chaos.history
