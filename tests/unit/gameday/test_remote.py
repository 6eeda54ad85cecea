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
from somaresil.gameday import GameDay, Groups, Remote, RemoteTarget
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


@pytest.mark.asyncio
async def test_a_token_is_read_from_its_file(tmp_path):
    """Without the line end; one that is not there is a problem that names the file."""
    place = tmp_path / "token"
    remote = Remote("http://127.0.0.1:1/c", token_file=str(place))
    with pytest.raises(ConfigurationError) as caught:
        RemoteTarget([remote])
    (problem,) = caught.value.problems
    assert problem.path.endswith("targets[0].token_file")
    assert str(place) in problem.value
    place.write_text(f"{TOKEN}\n")
    with fakes(1) as (one,):
        aimed = RemoteTarget([Remote(one.url, token_file=str(place))])
        await aimed.check(PLAN, None)
    assert remote.as_dict() == {"url": "http://127.0.0.1:1/c", "token_file": str(place)}


def test_a_target_has_instances_and_each_once():
    """Counts of the same one twice would be wrong."""
    with pytest.raises(ConfigurationError, match="at least one"):
        RemoteTarget([])
    with pytest.raises(ConfigurationError, match="the same address twice"):
        RemoteTarget([Remote(f"http://a/c{end}", token_env="T_TOKEN") for end in ("", "/")])


@pytest.mark.asyncio
async def test_groups_are_refused_from_outside():
    """They need the process itself, and there is no seed of theirs."""
    with fakes(1) as (one,):
        aimed = target(one)
        with pytest.raises(ConfigurationError, match="run the game day in it"):
            await aimed.check(PLAN, Groups(0.1))
        assert aimed.seed == ""


@pytest.mark.asyncio
async def test_a_start_that_is_refused_leaves_nothing_to_stop():
    """The plan was not taken, so what is new there is somebody else's."""
    with fakes(1) as (one,):
        one.answers["POST", "/experiments"] = 409, {"problems": [{"path": "windows[0]", "value": "llm.*", "allowed": "nothing else there"}]}
        with pytest.raises(ConfigurationError, match="nothing else there"):
            await target(one).start(PLAN, None, "x")
        assert one.stopped == []


@pytest.mark.asyncio
async def test_a_start_that_does_not_say_what_it_started_is_undone():
    """What is new there is stopped."""
    with fakes(1) as (one,):
        usual = one.answer

        def answer(method, path):
            said = usual(method, path)
            return (201, {"ids": []}) if (method, path) == ("POST", "/experiments") else said

        one.answer = answer
        with pytest.raises(OSError, match="did not say what it has started"):
            await target(one).start(PLAN, None, "x")
        assert one.stopped == ["/experiments/error-1/stop"]


@pytest.mark.asyncio
async def test_an_experiment_without_its_counts_is_an_error():
    """Zero would say that nothing was struck."""
    with fakes(1) as (one,):
        aimed = target(one)
        await aimed.start(PLAN, None, "x")
        one.answers["GET", "/experiments/error-1"] = 200, {"state": "running"}
        with pytest.raises(OSError, match="without its counts"):
            await aimed.status()


def _told(good, remaining, process="p1"):
    return 200, {
        "process": process,
        "figures": {"at": 1.0, "objectives": {"up": {"target": 99.0, "good": good, "bad": 1, "remaining": remaining}}},
    }


@pytest.mark.asyncio
async def test_events_are_added_up_and_the_least_budget_counts():
    """Of all instances; one that knows of nothing says nothing."""
    with fakes(3) as (one, two, three):
        for each, told in ((one, _told(10, 0.9)), (two, _told(20, 0.4)), (three, _told(5, None))):
            each.answers["GET", "/figures"] = told
        up = (await target(one, two, three).read()).objectives["up"]
    assert (up.good, up.bad, up.remaining) == (35, 3, 0.4)


@pytest.mark.asyncio
async def test_another_process_behind_an_address_is_noticed():
    """Its counts begin anew, so no difference of them would be true."""
    with fakes(1) as (one,):
        aimed = target(one)
        one.answers["GET", "/figures"] = _told(10, 0.9)
        await aimed.read()
        one.answers["GET", "/figures"] = _told(0, 1.0, process="p2")
        with pytest.raises(OSError, match="another process answers"):
            await aimed.read()


@pytest.mark.asyncio
async def test_figures_that_cannot_be_read_are_told_of_all():
    """Each with its address and what is wrong."""
    with fakes(2) as (one, two):
        one.answers["GET", "/figures"] = 200, {"process": 1, "figures": {"at": "noon"}}
        two.answers["GET", "/figures"] = 200, {"process": 1, "figures": []}
        with pytest.raises(OSError, match="cannot be read") as caught:
            await target(one, two).read()
        assert one.url in str(caught.value)
        assert two.url in str(caught.value)


@pytest.mark.asyncio
async def test_a_halt_stops_what_was_armed_and_nothing_more_is_armed():
    """From threads of its own; whoever is arming at that moment hears of it."""
    with fakes(1) as (one,):
        aimed = target(one)
        await aimed.start(PLAN, None, "x")
        aimed.halt()
        for thread in threading.enumerate():
            if thread.name == "somaresil-gameday-halt":
                thread.join(20)
        assert one.stopped == ["/experiments/error-1/stop"]
        usual = one.answer

        def answer(method, path):
            said = usual(method, path)
            if (method, path) == ("GET", "/experiments"):
                aimed._halts += 1
            return said

        one.answer = answer
        with pytest.raises(OSError, match="ended while it was being armed"):
            await aimed.start(PLAN, None, "x")
        assert one.stopped[-1] == "/experiments/error-2/stop"


@pytest.mark.asyncio
async def test_who_is_told_to_end_before_it_arms_arms_nothing():
    """The plan is not sent at all."""
    with fakes(1) as (one,):
        aimed = target(one)
        (instance,) = aimed._instances
        instance.prepare()
        with pytest.raises(OSError, match="while it was being armed"):
            instance.arm(PLAN, lambda: True)
        assert one.asked == []


@pytest.mark.asyncio
async def test_who_is_cancelled_while_it_arms_stops_what_was_armed():
    """The request is on its way, and nobody waits for its answer: whatever comes of it is ended."""
    with fakes(1) as (one,):
        aimed, sent = target(one), asyncio.Event()
        loop, usual = asyncio.get_running_loop(), one.answer
        go_on = threading.Event()

        def answer(method, path):
            said = usual(method, path)
            if (method, path) == ("POST", "/experiments"):
                loop.call_soon_threadsafe(sent.set)
                go_on.wait(20)
            return said

        one.answer = answer
        task = asyncio.ensure_future(aimed.start(PLAN, None, "x"))
        await sent.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        go_on.set()
        for thread in threading.enumerate():
            if thread.name == "somaresil-gameday-halt":
                await asyncio.to_thread(thread.join, 20)
        assert one.stopped == ["/experiments/error-1/stop"]
