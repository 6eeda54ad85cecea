"""One instance as a process, here in this one: it is on its leash before anything else, and serves what its role has to."""

from __future__ import annotations

import os
import socket

import pytest

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("redis")

import httpx
import uvicorn

from somaresil.drill import serve
from somaresil.drill.answers import digest
from somaresil.drill.topology import VARIABLE, Settings, instances

pytestmark = pytest.mark.asyncio

TOKEN = "0123456789abcdef" * 2


@pytest.fixture
def served(monkeypatch, tmp_path):
    """What an instance would serve."""

    def make(name):
        order, found = [], {}
        monkeypatch.setattr(serve, "die_with", order.append)

        def run(self, sockets):
            order.append("runs")
            found.update(config=self.config, port=sockets[0].getsockname()[1])
            sockets[0].close()

        monkeypatch.setattr(uvicorn.Server, "run", run)
        # Its loggers are the process's, and stay as they were.
        monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda _: None)
        settings = Settings(7, TOKEN, {each.name: "http://127.0.0.1:9" for each in instances()}, 1, str(tmp_path))
        monkeypatch.setenv(VARIABLE, settings.to_environment()[VARIABLE])
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = listening.getsockname()[1]
            serve.main(name, os.dup(listening.fileno()), 4711)
        assert order == [4711, "runs"]
        assert found["port"] == port
        # No child of it and no crash report shows the token.
        assert VARIABLE not in os.environ
        return found["config"]

    return make


@pytest.mark.parametrize("name", ["gateway-1", "worker-2", "tools-3", "memory-1"])
async def test_an_instance_is_healthy_and_tells_what_it_has_seen_only_to_the_operator(served, name):
    app = served(name).app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        assert (await http.get("/health")).json() == {"status": "ok"}
        assert (await http.get("/_soma/seen?since=0")).status_code == 404
        seen = (await http.get("/_soma/seen?since=0", headers={"authorization": f"Bearer {TOKEN}"})).json()
        assert seen["waiting"] == 0
        assert "somaresil" in (await http.get("/metrics")).text


async def test_a_tool_that_runs_in_threads_gives_the_digest_of_its_text(served):
    app = served("tools-1").app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        reply = await http.post("/v1/run", json={"text": "some"})
    assert reply.status_code == 200
    assert digest("some") in reply.text
