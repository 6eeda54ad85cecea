"""Game days over control apps: what is armed, what is refused, and what becomes of instances that misbehave."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from somaresil import ConfigurationError
from somaresil.chaos.plan import ChaosPlan
from somaresil.gameday import GameDay, Remote, RemoteTarget
from somaresil.gameday import remote as module

TRICKLE = object()
"""An answer that comes byte by byte, and never ends."""
TOKEN = "secret-0123456789-abcdefghijklmnop"
PLAN = ChaosPlan.from_dict({"somaresil_plan": 1, "seed": 3, "windows": [{"target": "llm.*", "kind": "error", "start": 0, "duration": 30}]})


class Fake(ThreadingHTTPServer):
    """A control app that answers as a test wants."""

    daemon_threads = True

    def __init__(self):
        self.asked: list[tuple[str, str]] = []
        self.answers: dict[tuple[str, str], object] = {}
        self.armed: list[str] = []
        self.done = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/c"

    def answer(self, method, path):
        given = self.answers.get((method, path))
        if given is not None:
            return given
        if (method, path) == ("POST", "/experiments"):
            self.armed.append(f"error-{len(self.armed) + 1}")
            return 201, {"ids": self.armed[-1:]}
        if path == "/experiments":
            return 200, {"experiments": [{"id": each} for each in self.armed]}
        if path.startswith("/experiments/"):
            return 200, {"injected": 2, "state": "running", "end_reason": None}
        return 200, {"accepted": True}

    @property
    def stopped(self):
        return [path for method, path in self.asked if method == "POST" and path.endswith("/stop")]


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def do_GET(self):
        self._serve("GET")

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._serve("POST")

    def _serve(self, method):
        path = self.path.removeprefix("/c")
        self.server.asked.append((method, path))
        status, said = self.server.answer(method, path)
        if said is None:
            self.server.done.wait(20)
            return
        if said is TRICKLE:
            self.send_response(status)
            self.send_header("connection", "close")
            self.end_headers()
            with suppress(OSError):
                while not self.server.done.wait(0.05):
                    self.wfile.write(b" ")
            return
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def fakes(count):
    """So many of them."""
    made = [Fake() for _ in range(count)]
    threads = [threading.Thread(target=each.serve_forever, args=(0.01,)) for each in made]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        for each in made:
            each.done.set()
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join()


def target(*fakes_, timeout=5.0):
    return RemoteTarget([Remote(each.url, token_env="T_TOKEN") for each in fakes_], timeout=timeout)


@pytest.fixture(autouse=True)
def _token(monkeypatch):
    monkeypatch.setenv("T_TOKEN", TOKEN)


@pytest.mark.asyncio
async def test_an_answer_that_trickles_is_cut_off_in_time():
    """Also when its head says that the connection will be closed, as ours asks: each byte would begin a time limit of its own."""
    with fakes(1) as (one,):
        one.answers["POST", "/check"] = 200, TRICKLE
        with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1"):
            await asyncio.wait_for(target(one, timeout=0.3).check(PLAN, None), 10.0)
        assert not one.done.is_set()


@pytest.mark.asyncio
async def test_a_plan_is_armed_watched_and_stopped_on_all():
    """Every instance gets it, injections are added up, and each is told to stop what it has started."""
    with fakes(2) as (one, two):
        aimed = target(one, two)
        await aimed.start(PLAN, None, "x")
        assert [(each.injected, each.live) for each in await aimed.status()] == [(4, True)]
        await aimed.stop()
        assert one.stopped == two.stopped == ["/experiments/error-1/stop"]


WRONG = {
    "unauthorised": (404, b"Not Found"),
    "broken": (500, {"detail": TOKEN}),
    "garbage": (200, b"{]"),
    "list": (200, []),
    "redirect": (302, b""),
    "silent": (200, None),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", WRONG)
async def test_nothing_is_armed_anywhere_when_one_cannot_be_used(kind):
    """A bad answer to the check is a problem with the place of its instance, without the token."""
    with fakes(2) as (one, two):
        two.answers["POST", "/check"] = WRONG[kind]
        with pytest.raises(ConfigurationError) as caught:
            await target(one, two, timeout=0.3).start(PLAN, None, "x")
        assert [problem.path for problem in caught.value.problems] == ["targets[1]"]
        assert TOKEN not in str(caught.value)
        assert not one.armed
        assert not two.armed


@pytest.mark.asyncio
async def test_all_that_cannot_be_reached_are_told_at_once():
    """Each has a problem of its own."""
    with fakes(2) as (one, two):
        urls = one.url, two.url
    with pytest.raises(ConfigurationError) as caught:
        await RemoteTarget([Remote(url, token_env="T_TOKEN") for url in urls]).check(PLAN, None)
    assert [problem.path for problem in caught.value.problems] == ["targets[0]", "targets[1]"]


@pytest.mark.asyncio
async def test_an_answer_that_is_too_large_is_not_read(monkeypatch):
    """More than the bound is an error, not memory."""
    monkeypatch.setattr(module, "LARGEST", 100)
    with fakes(1) as (one,):
        one.answers["GET", "/figures"] = 200, {"x": "y" * 200}
        with pytest.raises(OSError, match="more than 100 bytes"):
            await target(one).read()


@pytest.mark.asyncio
async def test_what_was_armed_is_stopped_when_another_fails_to_arm():
    """A 5xx to the start is not repeated, and the other instance is disarmed."""
    with fakes(2) as (one, two):
        two.answers["POST", "/experiments"] = 503, {}
        with pytest.raises(OSError, match="it answered 503"):
            await target(one, two).start(PLAN, None, "x")
        assert one.stopped == ["/experiments/error-1/stop"]
        assert two.asked.count(("POST", "/experiments")) == 1


@pytest.mark.asyncio
async def test_a_start_without_an_answer_is_looked_for_and_stopped():
    """Whatever is new there after it was sent is ended, and what was there before is left alone."""
    with fakes(1) as (one,):
        one.armed.append("error-1")
        usual = one.answer

        def answer(method, path):
            said = usual(method, path)
            return (200, b"?") if (method, path) == ("POST", "/experiments") else said

        one.answer = answer
        with pytest.raises(OSError, match="no JSON object"):
            await target(one).start(PLAN, None, "x")
        assert one.stopped == ["/experiments/error-2/stop"]


@pytest.mark.asyncio
async def test_a_stop_that_is_refused_is_no_stop():
    """It is an error, and it is tried again by the next."""
    with fakes(1) as (one,):
        aimed = target(one)
        await aimed.start(PLAN, None, "x")
        one.answers["POST", "/experiments/error-1/stop"] = 403, {"detail": "no"}
        with pytest.raises(OSError, match="403"):
            await aimed.stop()
        one.answers.clear()
        await aimed.stop()
        assert len(one.stopped) == 2


def test_no_secret_is_shown(monkeypatch):
    """Neither tokens nor what was given in place of the name of a variable."""
    aimed = RemoteTarget([Remote("http://127.0.0.1:1/c", token_env="T_TOKEN")])
    assert TOKEN not in repr(aimed) + aimed.name
    for wrong in ({"token_env": TOKEN}, {"url": f"http://u:{TOKEN}@h/"}, {"token": TOKEN}):
        data = {"somaresil_gameday": 1, "name": "n", "experiments": [], "targets": [{"url": "http://h/c", "token_env": "X", **wrong}]}
        with pytest.raises(ConfigurationError, match=r"targets\[0\]") as caught:
            GameDay.from_dict(data)
        assert TOKEN not in str(caught.value)
    monkeypatch.setenv("T_TOKEN", f"{TOKEN}\nx: y")
    with pytest.raises(ConfigurationError, match="T_TOKEN") as caught:
        RemoteTarget([Remote("http://127.0.0.1:1/c", token_env="T_TOKEN")])
    assert TOKEN not in str(caught.value)
