"""The stack as processes: what is started with which arguments, when it is ready, what it tells, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("httpx")
pytest.importorskip("redis")

import httpx

from somaresil.demo.processes import Fleet
from somaresil.drill import DrillError, processes
from somaresil.drill.processes import Processes, absent
from somaresil.drill.topology import SESSION, VARIABLE, instances

pytestmark = pytest.mark.asyncio

NAMES = [each.name for each in instances()]


class Started(Fleet):
    """Starts nothing, and remembers what it was asked to start."""

    def __init__(self, over=""):
        super().__init__()
        self.started = {}
        self.over = over

    def start(self, name, command, environment=None, *, pass_fds=()):
        ports = [socket.socket(fileno=os.dup(each)) for each in pass_fds]
        self.started[name] = (command, environment, [f"http://127.0.0.1:{port.getsockname()[1]}" for port in ports])
        for port in ports:
            port.close()

    @property
    def pids(self):
        return dict.fromkeys([*NAMES, "redis"], os.getpid())

    def check(self, names=None):
        if self.over:
            raise DrillError(self.over)

    def last_words(self):
        return "--- worker-1 wrote:\nno module named x"


def stack_of(answer, over=""):
    stack = Processes(7)
    stack._fleet = Started(over)
    stack.http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return stack


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    monkeypatch.setattr(processes.shutil, "which", lambda program: f"/opt/{program}")

    async def soon(_):
        await asyncio.sleep(0)

    monkeypatch.setattr(processes, "asyncio", SimpleNamespace(timeout=asyncio.timeout, sleep=soon, to_thread=asyncio.to_thread))


def well(_):
    return httpx.Response(200)


async def test_every_instance_gets_the_socket_of_its_own_address_and_is_told_of_all_others():
    stack = stack_of(well)
    async with stack:
        started, settings = stack._fleet.started, stack.settings
        assert set(started) == {*NAMES, "redis", "prometheus"}
        assert settings.urls.keys() == set(NAMES)
        for name in NAMES:
            command, environment, listens = started[name]
            assert listens == [settings.urls[name]]
            assert command[:4] == [sys.executable, "-m", "somaresil.drill.serve", name]
            assert command[5] == str(os.getpid())
            assert json.loads(environment[VARIABLE])["urls"] == settings.urls
            # Others may read command lines.
            assert settings.token not in " ".join(command)
            assert environment["SOMARESIL_CHAOS"] == "1"
        assert stack.places == {"redis": settings.redis}
        folder = stack._fleet.folder
        assert {started[name][1]["SOMARESIL_CHAOS_SWITCH"] for name in NAMES} == {str(folder / "kill-switch")}
    assert not folder.exists()
    assert stack.http.is_closed


async def test_redis_and_prometheus_end_with_the_driver_and_are_on_loopback_alone():
    stack = stack_of(well)
    async with stack:
        started, folder = stack._fleet.started, stack._fleet.folder
        leash = [sys.executable, "-m", "somaresil.demo.leash", str(os.getpid())]
        redis, prometheus = started["redis"][0], started["prometheus"][0]
        assert redis[:7] == [*leash, "/opt/redis-server", "--bind", "127.0.0.1"]
        assert redis[redis.index("--save") + 1] == ""
        assert prometheus[:5] == [*leash, "/opt/prometheus"]
        assert any(each.startswith("--web.listen-address=127.0.0.1:") for each in prometheus)
        (job,) = json.loads((folder / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
        scraped = {each["labels"]["name"]: (each["targets"], each["labels"]["role"]) for each in job["static_configs"]}
        assert scraped == {name: ([url.removeprefix("http://")], name.partition("-")[0]) for name, url in stack.settings.urls.items()}


async def test_it_is_ready_when_everything_has_answered():
    """Refused and not yet healthy is not yet; Prometheus is asked last."""
    asked = []

    def slowly(request):
        asked.append(request.url.path)
        if len(asked) == 1:
            raise httpx.ConnectError("refused")
        return httpx.Response(503 if len(asked) == 2 else 200)

    async with stack_of(slowly):
        assert asked == ["/health"] * (2 + len(NAMES)) + ["/-/ready"]


@pytest.mark.parametrize(
    ("over", "seconds", "said"),
    [
        ("the worker-1 process ended with code 1", 60.0, "worker-1 process ended with code 1"),
        ("", 0.0, "the stack did not start within 0 s\n--- worker-1 wrote:\nno module named x"),
    ],
)
async def test_what_does_not_start_is_told_and_nothing_is_left(monkeypatch, over, seconds, said):
    monkeypatch.setattr(processes, "START_SECONDS", seconds)
    stack = stack_of(lambda _: httpx.Response(503), over)
    with pytest.raises(DrillError, match=said):
        await stack.__aenter__()
    assert not stack._fleet.folder.exists()
    assert stack.http.is_closed
    if over:
        with pytest.raises(DrillError, match="code 1"):
            stack.check()


async def test_a_program_that_is_not_there_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(processes.shutil, "which", lambda program: None if program == "prometheus" else "/opt/it")
    assert absent() == ["prometheus"]
    with pytest.raises(DrillError, match="the program prometheus is not on PATH; Debian: apt-get install prometheus"):
        await stack_of(well).__aenter__()


async def test_strikes_are_counted_as_prometheus_has_scraped_them():
    found = [{"metric": {"name": "worker-1", "fault": "error"}, "value": [1.0, "3"]}]

    def answer(request):
        if request.url.path == "/api/v1/query":
            assert request.url.params["query"] == "sum by (name, fault) (somaresil_faults_injected_total)"
            return httpx.Response(200, json={"data": {"result": found}})
        return httpx.Response(200)

    async with stack_of(answer) as stack:
        assert await stack.counted() == {("worker-1", "error"): 3.0}


async def test_what_is_kept_is_read_from_its_own_redis(monkeypatch):
    import redis.asyncio

    asked = []

    class Members:
        def __init__(self, **options):
            asked.append(options)

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            asked.append("closed")

        async def smembers(self, key):
            asked.append(key)
            return ["q1", "q2"]

    monkeypatch.setattr(redis.asyncio, "Redis", Members)
    async with stack_of(well) as stack:
        assert await stack.kept() == {"q1", "q2"}
        assert asked == [{"host": "127.0.0.1", "port": stack.settings.redis, "decode_responses": True}, SESSION, "closed"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
async def test_the_footprint_is_that_of_the_instances_as_the_kernel_has_it():
    async with stack_of(well) as stack:
        found = await stack.footprint()
    assert found.keys() == set(NAMES)
    for each in found.values():
        assert each.descriptors > 3
        assert each.threads >= 1
        # A Python is no less than some megabytes.
        assert each.memory > 5_000_000


async def test_no_footprint_is_told_where_the_kernel_does_not_say(monkeypatch):
    async with stack_of(well) as stack:
        monkeypatch.setattr(processes, "sys", SimpleNamespace(platform="darwin"))
        assert await stack.footprint() is None
