"""Services of the demos that run as processes, built and asked here; and the load that is offered to them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from types import SimpleNamespace

import pytest

pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

import httpx
import uvicorn

from somaresil.demo import DemoError, load, serve
from somaresil.demo.live import run as live
from somaresil.demo.load import Load
from somaresil.demo.services import steer, version
from somaresil.demo.settings import VARIABLE, CanarySettings

TOKEN = "0123456789abcdef" * 2
SETTINGS = CanarySettings(seed=7, token=TOKEN, control="http://127.0.0.1:9", candidate="http://127.0.0.1:8", bake=1.0, version="2.0.0")


def told(**changes):
    from dataclasses import replace

    return replace(SETTINGS, **changes)


def client_of(app, **options):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, **options), base_url="http://127.0.0.1")


@pytest.fixture
def _at_once(monkeypatch):
    """Nobody waits."""
    at_once = asyncio.sleep
    monkeypatch.setattr(version, "asyncio", SimpleNamespace(sleep=lambda _: at_once(0)))


@pytest.mark.parametrize(("role", "checksum"), [("candidate", "2.0.0"), ("control", "")])
@pytest.mark.usefixtures("_at_once")
def test_a_version_that_counts_its_requests_tells_them_only_to_who_has_the_token(monkeypatch, role, checksum):
    monkeypatch.setattr(version.EvidenceTeller, "start", lambda _: None)

    async def main():
        async with client_of(version.build(told(role=role))) as http:
            assert (await http.get("/health")).json() == {"status": "ok", "version": "2.0.0"}
            answer = await http.post("/v1/session/message", json={"text": "why?"})
            assert answer.json()["answer"].endswith("why?")
            assert (await http.get("/evidence")).status_code == 401
            said = (await http.get("/evidence", headers={"authorization": f"Bearer {TOKEN}"})).json()
            assert (said["role"], said["version"], said["checksum"]) == (role, "2.0.0", checksum)

    asyncio.run(main())


@pytest.mark.usefixtures("_at_once")
def test_a_bad_version_fails_or_breaks_off_what_it_is_told_to():
    async def main():
        async with client_of(version.build(told(errors=1.0))) as http:
            assert (await http.post("/v1/session/message", json={"text": "x"})).status_code == 503
            assert (await http.get("/v1/llm/invoke/stream")).status_code == 503
        async with client_of(version.build(told(slow=1.0))) as http:
            assert "event: done" in (await http.get("/v1/llm/invoke/stream")).text
        async with client_of(version.build(told(cut=1.0))) as http:
            with pytest.raises(ConnectionError, match="broke off in the middle"):
                await http.get("/v1/llm/invoke/stream")

    asyncio.run(main())


def test_whoever_steers_nginx_begins_to_judge_and_ends_it_with_the_process(monkeypatch, tmp_path):
    did = []
    monkeypatch.setenv(steer.TOKEN, TOKEN)
    monkeypatch.setattr(steer.FleetJudge, "start", lambda _: did.append("judges"))
    monkeypatch.setattr(steer.FleetJudge, "stop", lambda _: did.append("judges no more"))
    monkeypatch.setattr(steer.CanaryController, "stop", lambda _: did.append("steers no more"))
    settings = told(nginx="/usr/sbin/nginx", folder=str(tmp_path), probe="http://127.0.0.1:7/probe")

    async def main():
        app = steer.build(settings)
        assert did == ["judges"]
        async with client_of(app) as http:
            assert (await http.get("/health")).status_code == 200
            assert (await http.get("/_soma/canary")).status_code == 403
            state = await http.get("/_soma/canary", headers={"authorization": f"Bearer {TOKEN}"})
            assert state.json()["weight"] == 0.0
        said = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive():
            return next(said)

        async def send(_):
            pass

        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    asyncio.run(main())
    assert did == ["judges", "steers no more", "judges no more"]


def test_a_service_is_on_its_leash_before_it_is_built_and_serves_the_socket_that_it_was_given(monkeypatch):
    did, found = [], {}
    monkeypatch.setattr(serve, "die_with", did.append)

    def run(self, sockets):
        found.update(config=self.config, port=sockets[0].getsockname()[1])
        sockets[0].close()

    monkeypatch.setattr(uvicorn.Server, "run", run)
    # Its loggers are the process's, and stay as they were.
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda _: None)
    monkeypatch.setenv(VARIABLE, SETTINGS.to_environment()[VARIABLE])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        serve.main("version", os.dup(listening.fileno()), 4711)
        assert found["port"] == listening.getsockname()[1]
    assert did == [4711]
    # No child of it and no crash report shows the token.
    assert VARIABLE not in os.environ
    assert found["config"].lifespan == "on"


# -- the load -----------------------------------------------------------------------------------------------------------------------------


def requested(answer, kind):
    async def main():
        generator = Load("http://g", rate=10.0, seed=7)
        await generator._http.aclose()
        generator._http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        async with generator._http:
            await generator._request("r1", kind, 1, load.time.monotonic())
        return generator

    generator = asyncio.run(main())
    (sample,) = generator.samples
    return generator, sample


def broken(error):
    def answer(_):
        raise error

    return answer


@pytest.mark.parametrize("kind", ["message", "stream"])
@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (broken(httpx.ReadError("x")), "the response broke off"),
        (broken(httpx.ConnectError("x")), "no response: ConnectError"),
        (broken(TimeoutError()), f"no complete answer within {load.PATIENCE:g} s"),
        (lambda _: httpx.Response(503, headers={"x-served-by": "candidate"}), "status 503"),
    ],
)
def test_a_request_that_fails_says_how(kind, answer, failure):
    _, sample = requested(answer, kind)
    assert sample.failure == failure
    assert sample.served_by == ("candidate" if "503" in failure else "")


def test_a_stream_without_its_last_event_has_failed():
    assert requested(lambda _: httpx.Response(200, text="data: {}\n\n"), "stream")[1].failure == "the stream ended without its last event"
    whole = 'event: done\ndata: {"degraded": true}\n\n'
    _, sample = requested(lambda _: httpx.Response(200, text=whole), "stream")
    assert (sample.failure, sample.degraded) == (None, True)


@pytest.mark.parametrize(("memory", "kept"), [("stored", {"r1"}), ("queued", {"r1"}), ("none", set())])
def test_only_what_was_promised_is_looked_for_in_the_store(memory, kept):
    answer = {"memory": memory, "degraded": False}
    assert requested(lambda _: httpx.Response(200, text=json.dumps(answer)), "message")[0].remembered == kept


def test_a_generator_that_has_failed_itself_is_told_and_one_that_was_never_begun_can_be_stopped():
    async def main():
        idle = Load("http://g", rate=10.0, seed=7)
        idle.check()
        await idle.answered(1e12)
        await idle.stop()
        await idle.__aexit__(None, None, None)
        failing = Load("http://g", rate=0.0, seed=7)
        async with failing:
            await asyncio.wait([failing._offering])
            with pytest.raises(ZeroDivisionError):
                failing.check()

    asyncio.run(main())


# -- the live demo ------------------------------------------------------------------------------------------------------------------------


class Fleet:
    """Processes that end when they are told to."""

    def __init__(self, over=(), pids=("gateway-1",)):
        self.over, self.pids = list(over), dict.fromkeys(pids, 1)

    def check(self):
        pass

    def ended(self):
        return self.over.pop(0) if self.over else {}

    def last_words(self):
        return "--- model wrote:\nno port"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (broken(httpx.ConnectError("refused")), r"http://g did not answer within 60 s \(refused\)"),
        (lambda _: httpx.Response(503), "were not ready"),
    ],
)
def test_a_live_service_that_is_not_ready_in_time_is_told_with_what_it_wrote(answer, why):
    async def main():
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            await live._answer(Fleet(), http, "http://g", -1.0)

    with pytest.raises(DemoError, match=why) as told:
        asyncio.run(main())
    assert "no port" in str(told.value)


def test_a_live_demo_goes_on_without_one_gateway_and_ends_without_any():
    notes = []
    view = SimpleNamespace(note=notes.append)
    with pytest.raises(DemoError, match="the model process ended with code 3"):
        asyncio.run(live._watch(Fleet([{"gateway-2": -9, "model": 3}]), view, None, None))
    assert notes == ["gateway-2 ended with code -9; the others go on without it"]
    with pytest.raises(DemoError, match="every process of the gateway has ended"):
        asyncio.run(live._watch(Fleet([{"gateway-1": 1}], ("model",)), view, None, None))


def test_a_live_demo_whose_load_has_failed_is_told():
    async def main():
        async def fail():
            raise ValueError("no scenario")

        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        await live._watch(Fleet(), None, task, None)

    with pytest.raises(ValueError, match="no scenario"):
        asyncio.run(main())
    asyncio.run(live._watch(Fleet(), None, None, 0.0))
