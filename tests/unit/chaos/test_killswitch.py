"""The kill switch of a host: a file that any process can throw, and that nobody can use to harm a process."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import threading
import time

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ChaosConfig, ChaosExperiment, ConfigurationError, ResilienceMiddleware, SystemClock
from somaresil.chaos import ChaosKeys
from somaresil.chaos.baggage import KEY
from somaresil.chaos.killswitch import (
    HostSwitch,
    Reading,
    disengage_host,
    engage_host,
    host_switch,
    read_host,
    stop_host,
)
from tests.unit.chaos.kit import LATENCY, Stand

PATIENCE = 20.0


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the switch of this test is; nobody else looks there."""
    where = tmp_path / "gateway.switch"
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", str(where))
    return where


def until(seen) -> bool:
    """Wait for a thread, in real time."""
    end = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.005)
    return True


def test_what_nobody_has_thrown_stops_nothing(path):
    run = Stand().arm()
    time.sleep(0)
    assert run.live
    assert path.read_bytes().startswith(b"somaresil-switch 1\nstop 00000000000000000000\nlever released\nby ")
    assert len(path.read_bytes()) == 128
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_it_stops_the_experiments_of_every_process_that_looks_at_it(path):
    one, other = Stand().arm(), Stand().arm()
    stop_host("tests")
    assert until(lambda: one.end_reason and other.end_reason)
    assert (one.end_reason, other.end_reason) == ("stop_all", "stop_all")


def test_a_call_that_is_being_delayed_goes_on_though_nobody_asks_anything(path):
    stand = Stand(clock=SystemClock())
    run = stand.arm(LATENCY, delay_seconds=25.0)
    done = threading.Event()
    caller = threading.Thread(target=lambda: (stand.guard.call(lambda: None), done.set()), daemon=True)
    caller.start()
    assert until(lambda: run.delaying)
    started = time.monotonic()
    stop_host("tests")
    assert done.wait(PATIENCE)
    assert time.monotonic() - started < 5.0
    caller.join(PATIENCE)


def test_stop_all_reaches_the_others_and_what_starts_afterwards_may_run(path):
    one, other = Stand(), Stand()
    first, second = one.arm(), other.arm()
    assert one.chaos.stop_all()
    assert first.end_reason == "stop_all"
    third = one.arm()
    assert until(lambda: second.end_reason)
    one.clock.advance(1.0)
    one.chaos.safety._due = 0.0
    assert third.live


def test_stop_all_here_only_leaves_the_others_alone(path):
    one, other = Stand(), Stand()
    one.arm()
    second = other.arm()
    one.chaos.stop_all(here_only=True)
    other.chaos.safety._due = 0.0
    assert second.live
    assert one.chaos.runs == ()


def test_a_lever_that_is_engaged_stops_everything_and_lets_nothing_start(path):
    one, other = Stand(), Stand()
    run = other.arm()
    assert one.chaos.engage("the shop is open", actor="alice")
    assert until(lambda: run.end_reason)
    assert run.end_reason == "safety lever"
    assert other.chaos.engaged == "alice: the shop is open"
    for stand in (one, other, Stand()):
        with pytest.raises(ConfigurationError, match="engaged by alice: the shop is open"):
            stand.arm()
    assert other.chaos.disengage(actor="bob")
    assert one.chaos.engaged is None
    assert one.arm().live


def test_a_lever_is_found_by_processes_that_start_later(path):
    engage_host("tests", "night shift")
    assert read_host("tests").engaged
    with pytest.raises(ConfigurationError, match="night shift"):
        Stand().arm()
    disengage_host("tests")
    assert Stand().arm().live


def test_stopping_does_not_move_the_lever(path):
    engage_host("tests", "x")
    stop_host("tests")
    assert read_host("tests").engaged


def test_the_same_from_another_process_and_from_a_shell(path):
    run = Stand().arm()
    code = "from somaresil.chaos.killswitch import stop_host; stop_host('tests')"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert until(lambda: run.end_reason)
    other = Stand().arm()
    subprocess.run(["sh", "-c", f"printf '%020d' 4711 | dd of='{path}' bs=1 seek=24 conv=notrunc 2>&1"], check=True, timeout=60)
    assert until(lambda: other.end_reason)
    assert read_host("tests") == Reading(4711)


def test_it_stops_what_runs_though_there_are_no_descriptors_left(path):
    resource = pytest.importorskip("resource")
    run = Stand().arm()
    run.live  # noqa: B018 - it is read once, and so stays open
    switch = HostSwitch([path])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptor = os.open(path, os.O_WRONLY)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        os.pwrite(descriptor, b"%020d" % 7, 24)
        assert until(lambda: run.end_reason)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(descriptor)
    assert switch.read().stamp == 7


@pytest.mark.parametrize("text", [b"", b"somaresil-sw", b"somaresil-switch 1\nstop 0000"])
def test_half_a_file_starts_nothing_stops_nothing_and_is_made_whole_by_a_stop(path, text):
    run = Stand().arm()
    path.write_bytes(text)
    safety = run._look.__self__
    safety._due = 0.0
    assert run.live
    with pytest.raises(ConfigurationError, match="half of one"):
        Stand().arm()
    stop_host("tests")
    assert until(lambda: run.end_reason)
    assert Stand().arm().live


def test_what_never_was_a_switch_is_not_written_to(path):
    path.write_text("precious")
    with pytest.raises(OSError, match="not the file of a kill switch"):
        stop_host("tests")
    with pytest.raises(ConfigurationError, match=r"chaos\.switch"):
        Stand().arm()
    assert path.read_text() == "precious"


def test_stop_all_stops_what_is_here_when_the_switch_cannot_be_thrown(path):
    stand = Stand()
    run = stand.arm()
    path.write_text("precious")
    assert not stand.chaos.stop_all()
    assert run.end_reason == "stop_all"
    assert not stand.chaos.engage()
    with pytest.raises(ConfigurationError, match="engaged"):
        stand.arm()


@pytest.mark.parametrize("harm", ["link", "folder", "writable", "pipe"])
def test_a_file_that_others_may_have_laid_is_not_trusted(path, tmp_path, harm):
    if harm == "link":
        (tmp_path / "target").write_bytes(b"")
        path.symlink_to(tmp_path / "target")
    elif harm == "folder":
        path.mkdir()
    elif harm == "pipe":
        os.mkfifo(path)
    else:
        HostSwitch([path]).prepare()
        path.chmod(0o666)
    with pytest.raises(OSError):
        stop_host("tests")
    with pytest.raises(ConfigurationError, match=r"chaos\.switch"):
        Stand().arm()


def test_a_folder_that_others_may_write_to_is_not_trusted(path, tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(OSError, match="others may write"):
        stop_host("tests")
    tmp_path.chmod(0o700)


def test_a_file_that_is_deleted_and_made_again_is_looked_at(path):
    run = Stand().arm()
    path.unlink()
    stop_host("tests")
    assert until(lambda: run.end_reason)


def test_the_switch_can_be_off(monkeypatch):
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", "off")
    assert host_switch("tests") is None
    with pytest.raises(ConfigurationError, match="SOMARESIL_CHAOS_SWITCH"):
        stop_host("tests")
    stand = Stand()
    assert stand.chaos.stop_all()
    assert not stand.chaos.engage("x")
    with pytest.raises(ConfigurationError, match="engaged"):
        stand.arm()
    stand.chaos.disengage()
    assert stand.arm().live


def test_the_code_may_say_where_it_is(path, tmp_path):
    stand = Stand(opt_in=False)
    stand.chaos.opt_in(switch=tmp_path / "other")
    run = stand.arm()
    stop_host("tests")
    stand.chaos.safety._due = 0.0
    assert run.live
    stop_host("tests", path=tmp_path / "other")
    assert until(lambda: run.end_reason)


@pytest.mark.parametrize("switch", ["", 5, b"x"])
def test_what_is_no_place_is_refused(switch):
    with pytest.raises(ConfigurationError, match="switch"):
        Stand().chaos.opt_in(switch=switch)


def test_the_usual_places_are_folders_of_the_user_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("SOMARESIL_CHAOS_SWITCH")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    switch = host_switch("shop/{eu}")
    switch.prepare()
    assert switch.paths == (
        tmp_path / "somaresil" / "shop%2F%7Beu%7D.switch",
        tmp_path / f"somaresil-{os.geteuid()}" / "shop%2F%7Beu%7D.switch",
    )
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in switch.paths} == {0o700}
    before = switch.read()
    for path in switch.paths:
        stop_host("shop/{eu}", path=path)
        assert switch.read() != before
        before = switch.read()
    long = host_switch("/" * 120)
    long.prepare()
    assert long.paths != host_switch("/" * 119 + ".").paths


def test_descriptors_are_given_back_when_nothing_is_armed(path):
    stand = Stand()
    run = stand.arm()
    assert until(lambda: stand.chaos.safety.host._files[0]._opened)
    run.end()
    assert until(lambda: stand.chaos.safety.host._files[0]._opened is None)
    assert until(lambda: not stand.chaos.safety._watch.walking)


def test_a_process_that_closed_all_descriptors_reads_the_file_and_closes_nothing_of_others(path, tmp_path):
    switch = HostSwitch([path])
    switch.prepare()
    switch.read()
    number = switch._files[0]._opened[0]
    os.close(number)
    with (tmp_path / "else").open("wb") as other:
        if other.fileno() != number:
            os.dup2(other.fileno(), number)
        switch.throw()
        assert switch.read().stamp > 0
        os.fstat(number)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_obeys_it_too(path):
    stand = Stand(clock=SystemClock())
    run = stand.arm(LATENCY, delay_seconds=25.0)
    pid = os.fork()
    if not pid:
        signal.alarm(30)
        stand.guard.call(lambda: None)
        os._exit(0 if run.end_reason == "stop_all" else 1)
    threading.Event().wait(0.2)
    stop_host("tests")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_stop_all_works_in_a_signal_handler(path):
    stand = Stand(clock=SystemClock())
    run = stand.arm(LATENCY, delay_seconds=25.0)
    before = signal.signal(signal.SIGUSR1, lambda *_: stand.chaos.stop_all())
    try:
        timer = threading.Thread(target=lambda: until(lambda: run.delaying) and os.kill(os.getpid(), signal.SIGUSR1))
        timer.start()
        stand.guard.call(lambda: None)
        timer.join(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert run.end_reason == "stop_all"


@given(st.binary(max_size=200))
def test_no_content_of_the_file_starts_or_breaks_anything(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("switch") / "x"
    path.write_bytes(text)
    try:
        assert isinstance(HostSwitch([path]).read(), Reading)
    except OSError:
        assert not text.startswith(b"somaresil-switch 1\nstop ") or len(text) != 128


class Shared:
    """A switch of some other kind."""

    where = "elsewhere"

    def __init__(self):
        self.said = Reading()
        self.down = False

    def prepare(self):
        if self.down:
            raise ConnectionError("down")

    def read(self):
        self.prepare()
        return self.said

    def throw(self, by=""):
        self.prepare()
        self.said = self.said._replace(stamp=self.said.stamp + 1)

    def move_lever(self, engaged, by=""):
        self.prepare()
        self.said = Reading(self.said.stamp + 1, engaged, by)


def test_further_switches_are_obeyed_until_they_are_taken_away():
    one, other, switch = Stand(), Stand(), Shared()
    for stand in (one, other):
        end = stand.chaos.add_switch(switch)
    run = one.arm()
    other.chaos.stop_all()
    assert until(lambda: run.end_reason)
    assert switch.said.stamp == 1
    end()
    run = other.arm()
    switch.throw()
    other.chaos.safety._due = 0.0
    assert run.live


def test_while_a_switch_is_unknown_nothing_starts_and_what_runs_ends_by_its_lease():
    stand, switch = Stand(), Shared()
    stand.chaos.add_switch(switch)
    run = stand.arm(duration=10.0)
    switch.down = True
    stand.chaos.safety._due = 0.0
    assert run.live
    with pytest.raises(ConfigurationError, match="elsewhere"):
        stand.arm()
    stand.clock.advance(11.0)
    assert not run.live
    assert run.end_reason == "expired"


def test_a_refusal_names_everything_at_once(path):
    engage_host("tests", "x")
    with pytest.raises(ConfigurationError) as refused:
        Stand().chaos.arm(ChaosConfig(ChaosExperiment.ERROR_INJECTION, "nobody", 1.0, 10_000.0))
    assert {problem.path for problem in refused.value.problems} == {"chaos.duration_seconds", "chaos.target_component", "chaos.lever"}


class Desk(Stand):
    """A process that takes request plans."""

    def __init__(self):
        super().__init__()
        self.chaos.approve("down", ChaosConfig(ChaosExperiment.ERROR_INJECTION, "llm.*", 1.0, 30.0))
        self.chaos.accept_plans(ChaosKeys({"k1": bytes(range(32))}))

    def arrive(self):
        """What a request with a plan brings; None: it is ignored."""
        self.chaos.safety._due = 0.0
        return self.chaos.requests.arriving([f"{KEY}={self.chaos.sign_plan(['down'])}"])


def test_a_stop_from_outside_ends_request_plans_too_until_they_are_accepted_again(path):
    desk = Desk()
    flight = desk.arrive()
    with flight:
        assert desk.struck() == [True]
        stop_host("tests")
        desk.chaos.safety._due = 0.0
        assert desk.struck() == [False]
    assert desk.arrive() is None
    desk.chaos.accept_plans(ChaosKeys({"k1": bytes(range(32))}))
    assert desk.arrive() is not None


def test_a_stop_while_no_plan_is_in_flight_is_seen_by_the_next_one(path):
    desk = Desk()
    stop_host("tests")
    assert desk.arrive() is None


@pytest.mark.parametrize("harm", ["lever", "foreign"])
def test_no_plan_is_taken_while_the_lever_is_engaged_or_nobody_knows(path, harm):
    desk = Desk()
    if harm == "lever":
        engage_host("tests", "x")
    else:
        path.write_text("precious")
    assert desk.arrive() is None


@pytest.mark.parametrize("path_asked", ["/health", "/%68ealth", "/app/health", "/app/%68ealthz", "/metrics/", "/%6Detrics"])
def test_requests_for_protected_paths_are_never_struck_however_they_are_written(path_asked):
    """A server says the path decoded, whatever the client sent, and with the root path before it."""
    stand = Stand()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"fine"})

    wrapped = ResilienceMiddleware(app, stand.resilience)
    stand.arm(ChaosExperiment.ERROR_INJECTION, "http:*")

    async def ask(path):
        transport = httpx.ASGITransport(wrapped, root_path="/app")
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return (await client.get(path)).status_code

    assert asyncio.run(ask(path_asked)) == 200
    assert asyncio.run(ask("/chat")) == 503
