"""How the demos end: exit codes, what is printed where, and what a broken child, page or answer says."""

from __future__ import annotations

import asyncio
import io
import json
import os
import runpy
import signal
import socket
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

pytest.importorskip("rich")
pytest.importorskip("httpx")

import httpx

from somaresil.demo import DemoError, Options, drill, leash, main, processes
from somaresil.demo.canary import CanaryOptions
from somaresil.demo.canary import main as canary
from somaresil.demo.canary import run as canary_run
from somaresil.demo.load import Sample
from somaresil.demo.processes import Child, Fleet
from tests.unit.demo.test_canary_report import promoted
from tests.unit.demo.test_canary_report import report as canary_report
from tests.unit.demo.test_drill_report import report


def answers(found):
    async def run(_, view):
        view.note("starting")
        if isinstance(found, BaseException):
            raise found
        return found

    return run


# -- the commands -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("found", "code"), [(report(), 0), (report(incidents=()), 1)])
def test_a_demo_ends_by_whether_it_was_withstood_and_keeps_stdout_for_its_report(monkeypatch, capsys, found, code):
    monkeypatch.setattr(main, "run", answers(found))
    assert main.main(Options()) == code
    told = capsys.readouterr()
    assert told.out.startswith("starting\n")
    assert ("PASSED" in told.out, "NOT PASSED" in told.out) == (True, code == 1)
    assert main.main(Options(json=True)) == code
    told = capsys.readouterr()
    assert json.loads(told.out)["passed"] is (code == 0)
    assert told.err == "starting\n"


def test_a_prometheus_that_is_not_there_is_found_out_before_anything_is_started(monkeypatch, capsys):
    def nowhere():
        raise DemoError("no prometheus on PATH")

    monkeypatch.setattr(main, "find", nowhere)
    monkeypatch.setattr(main, "run", answers(report()))
    assert main.main(Options(prometheus=True)) == 2
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "somaresil demo: no prometheus on PATH\n")


def test_a_reader_that_leaves_ends_the_demo_as_other_commands(monkeypatch):
    async def perform():
        raise BrokenPipeError

    quiet = []
    monkeypatch.setattr(main.os, "dup2", lambda old, new: quiet.append(new))
    monkeypatch.setattr(main.sys, "stdout", SimpleNamespace(fileno=lambda: 1))
    assert main.carry_out(perform) == 128 + signal.SIGPIPE
    assert quiet == [1]


def test_a_cancellation_that_nobody_asked_for_is_no_end():
    async def perform():
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        main.carry_out(perform)


def test_a_demo_whose_terminal_ignores_its_end_goes_on_when_the_terminal_is_gone(monkeypatch):
    """As nohup wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def perform():
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)
        return 7

    try:
        assert main.carry_out(perform) == 7
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_canary_demo_writes_its_page_and_ends_by_how_the_versions_ended(monkeypatch, tmp_path, capsys):
    page = tmp_path / "canary.html"
    monkeypatch.setattr(canary, "run", answers(canary_report(promoted())))
    assert canary.main(CanaryOptions(html=str(page))) == 0
    assert "PASSED" in capsys.readouterr().out
    assert "<svg" in page.read_text(encoding="utf-8")
    monkeypatch.setattr(canary, "run", answers(canary_report(promoted(wanted="rollback"))))
    assert canary.main(CanaryOptions(json=True)) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["passed"] is False
    assert told.err == "starting\n"


def test_a_page_that_cannot_be_written_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(canary, "run", answers(canary_report(promoted())))
    assert canary.main(CanaryOptions(html=str(tmp_path / "no" / "page.html"))) == 2
    assert "the page could not be written: " in capsys.readouterr().err


# -- the leash ----------------------------------------------------------------------------------------------------------------------------


def test_a_child_asks_the_kernel_to_end_with_its_parent_and_refuses_to_run_without_it(monkeypatch):
    asked = []
    monkeypatch.setattr(leash.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *told: asked.append(told)))
    leash.die_with(os.getppid())
    wanted = [(1, int(signal.SIGKILL), 0, 0, 0)] if leash.sys.platform == "linux" else []
    assert asked == wanted
    with pytest.raises(SystemExit, match="process 0, which started this one, is gone"):
        leash.die_with(0)
    monkeypatch.setattr(leash, "sys", SimpleNamespace(platform="darwin"))
    asked.clear()
    leash.die_with(os.getppid())
    assert asked == []


def test_a_leash_becomes_the_program_with_its_arguments(monkeypatch):
    became = []
    monkeypatch.setattr(leash.ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *_: 0))
    monkeypatch.setattr(os, "execvp", lambda *told: became.append(told))
    monkeypatch.setattr(leash.sys, "argv", ["leash", str(os.getppid()), "redis-server", "--port", "1"])
    runpy.run_path(leash.__file__, run_name="__main__")
    assert became == [("redis-server", ["redis-server", "--port", "1"])]


# -- the children -------------------------------------------------------------------------------------------------------------------------


class Process:
    """A child that ends when it is killed and not before."""

    pid = 4711

    def __init__(self, code=None):
        self.code = code

    def poll(self):
        return self.code

    def wait(self, timeout=None):
        if timeout is not None and self.code is None:
            raise subprocess.TimeoutExpired("child", timeout)
        return self.code


def child(tmp_path, name, wrote="", code=None):
    log = tmp_path / f"{name}.log"
    log.write_text(wrote, encoding="utf-8")
    return Child(name, Process(code), log)


def test_a_child_that_has_ended_is_told_with_its_code_and_last_words(tmp_path):
    fleet = Fleet()
    fleet._children = [child(tmp_path, "model", "fine"), child(tmp_path, "worker", "line\nno such table", 3), child(tmp_path, "memory")]
    fleet.check(["model"])
    with pytest.raises(DemoError, match="the worker process ended with code 3; its last lines:\nline\nno such table"):
        fleet.check()
    assert fleet.last_words() == "--- model wrote:\nfine\n--- worker wrote:\nline\nno such table"
    assert fleet.ended() == {"worker": 3}
    assert fleet.ended() == {}
    fleet._children.append(child(tmp_path, "quiet", "", -9))
    with pytest.raises(DemoError, match=r"code -9; its last lines:\n\(it wrote nothing\)"):
        fleet.check()


def test_a_child_that_does_not_end_politely_is_killed_and_one_that_is_gone_is_no_trouble(tmp_path, monkeypatch):
    stubborn, gone = child(tmp_path, "stubborn"), child(tmp_path, "gone", code=0)
    gone = replace(gone, process=SimpleNamespace(pid=1, poll=lambda: 0, wait=lambda timeout=None: 0))
    told = []

    def signalled(group, number):
        told.append((group, number))
        if group == 1:
            raise ProcessLookupError
        if number == signal.SIGKILL:
            stubborn.process.code = -9

    monkeypatch.setattr(processes.os, "killpg", signalled)
    fleet = Fleet()
    fleet._children = [stubborn, gone]
    with fleet:
        pass
    assert told == [(4711, signal.SIGTERM), (1, signal.SIGTERM), (4711, signal.SIGKILL)]
    assert fleet.pids == {}


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_doors_of_several_processes_are_one_port(monkeypatch, platform):
    """Where the kernel does not deal connections out, they are one socket."""
    if platform == "linux" and not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("no SO_REUSEPORT here")
    monkeypatch.setattr(processes, "sys", SimpleNamespace(platform=platform))
    doors = processes._doors(3, 0)
    try:
        (port,) = {door.getsockname()[1] for door in doors}
        assert len({door.fileno() for door in doors}) == 3
        with pytest.raises(OSError, match="in use"):
            processes._doors(2, port)
    finally:
        for door in doors:
            door.close()


# -- what the drivers ask -----------------------------------------------------------------------------------------------------------------


class Watched:
    """A fleet whose children have ended, or have something to say."""

    def __init__(self, over=""):
        self.over = over
        self.checks = 0

    def check(self, names=None):
        self.checks += 1
        if self.over:
            raise DemoError(self.over)

    def last_words(self):
        return "--- gateway wrote:\nno token"


def refused(_):
    raise httpx.ConnectError("")


def driver(answer, fleet):
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    settings = SimpleNamespace(gateway="http://g", worker="http://w", token="t", model="http://m", memory="http://s")
    return drill._Drill(Options(), None, fleet, http, settings, None)


@pytest.fixture
def _soon(monkeypatch):
    """Nobody waits for a second look."""
    at_once = asyncio.sleep
    for module in (drill, canary_run):
        names = SimpleNamespace(**{name: getattr(asyncio, name) for name in ("create_task", "wait", "gather")})
        monkeypatch.setattr(module, "asyncio", SimpleNamespace(**vars(names), sleep=lambda _: at_once(0)))


@pytest.mark.usefixtures("_soon")
def test_a_driver_that_gets_no_answer_names_the_child_that_has_ended():
    with pytest.raises(DemoError, match="the gateway process ended"):
        asyncio.run(driver(refused, Watched("the gateway process ended"))._ask("GET", "/_soma/state"))
    fleet = Watched()
    with pytest.raises(DemoError, match="GET http://g/_soma/state failed: ConnectError"):
        asyncio.run(driver(refused, fleet)._ask("GET", "/_soma/state"))
    # The connections of a process break before it can be seen to have ended.
    assert fleet.checks == drill._LOOKS


def test_an_answer_that_refuses_is_told_with_what_the_children_wrote():
    with pytest.raises(DemoError, match="POST http://g/_soma/stop answered 403: not you\n--- gateway wrote:\nno token"):
        asyncio.run(driver(lambda _: httpx.Response(403, text="not you"), Watched())._ask("POST", "/_soma/stop"))


def test_the_token_goes_to_the_gateway_alone():
    seen = []

    def answer(request):
        seen.append((request.url.host, request.headers.get("authorization")))
        return httpx.Response(200, json={})

    asyncio.run(driver(answer, Watched())._states())
    assert sorted(seen, key=str) == [("g", "Bearer t"), ("w", None)]


@pytest.mark.parametrize(
    ("answer", "over", "why"),
    [
        (refused, "", "the services did not start: ConnectError"),
        (refused, "the model process ended with code 1", "the model process ended with code 1"),
        (lambda _: httpx.Response(500), "", "the services did not start: Server error '500"),
    ],
)
def test_services_that_do_not_start_are_told(answer, over, why):
    begun = driver(answer, Watched(over))
    with pytest.raises(DemoError, match=why):
        asyncio.run(drill._ready(begun._fleet, begun._http, begun._settings))


def test_failures_are_counted_by_kind_with_those_that_an_experiment_has_touched():
    samples = [
        Sample(f"r{number}", "stream", 0.0, 1.0, failure, degraded=False)
        for number, failure in enumerate(["status 503", "cut off", "status 503", None])
    ]
    first, second = drill._failures(samples, {"r0": 1, "r3": 2})
    assert (first.kind, first.what, first.requests, first.touched) == ("stream", "status 503", 2, 1)
    assert (second.what, second.requests, second.touched) == ("cut off", 1, 0)


def canary_driver(answer, fleet, router="gateway"):
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return canary_run._Play(CanaryOptions(router=router), None, fleet, http, SimpleNamespace(token="t"), None, "http://g")


def test_a_canary_that_gives_no_answer_or_a_bad_one_is_told():
    with pytest.raises(DemoError, match="GET http://g/_soma/canary failed: ConnectError"):
        asyncio.run(canary_driver(refused, Watched())._ask("GET", None))
    with pytest.raises(DemoError, match="it is gone"):
        asyncio.run(canary_driver(refused, Watched("it is gone"))._ask("GET", None))
    with pytest.raises(DemoError, match="answered 400: no version\n--- gateway wrote:\nno token"):
        asyncio.run(canary_driver(lambda _: httpx.Response(400, text="no version"), Watched())._ask("POST", {}))


@pytest.mark.usefixtures("_soon")
def test_a_service_whose_port_is_not_bound_yet_is_asked_again_until_its_time_is_up(monkeypatch):
    asked = []

    def later(request):
        asked.append(request)
        if len(asked) < 3:
            raise httpx.ConnectError("refused")
        return httpx.Response(200)

    async def healthy(answer, fleet):
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            await canary_run._healthy(fleet, http, "http://g")

    asyncio.run(healthy(later, Watched()))
    assert len(asked) == 3
    # What answers badly is there, and does not get better.
    with pytest.raises(DemoError, match="http://g did not start: Server error '503"):
        asyncio.run(healthy(lambda _: httpx.Response(503), Watched()))
    monkeypatch.setattr(canary_run, "START_SECONDS", -1.0)
    with pytest.raises(DemoError, match="http://g did not start: ConnectError"):
        asyncio.run(healthy(refused, Watched()))


def test_lines_and_streams_of_a_view_are_whole():
    """A note is one line at once: whoever reads a pipe sees it when it happens."""
    flushed = []

    class Pipe(io.StringIO):
        def flush(self):
            flushed.append(self.getvalue())

    from somaresil.demo.show import Lines

    with Lines(Pipe()) as lines:
        lines.note("one")
        lines.note("two")
    assert flushed[-1] == "one\ntwo\n"
    assert flushed[0] == "one\n"
