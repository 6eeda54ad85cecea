"""Several processes, one real Redis: what is shared, how many probes there are, and what happens when Redis goes, hangs or comes back."""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from contextlib import ExitStack, closing

import pytest

from somaresil import CircuitBreaker, CircuitOpen, Resilience
from somaresil.events import BreakerChanged, SharedStateLost, SharedStateRestored
from tests.integration.servers import HOST, Redis

redis = pytest.importorskip("redis")
share = pytest.importorskip("somaresil.integrations.redis").share

PATIENCE = 20.0
PROBES = 3

# A process whose dependency fails for as long as a file is there. It calls all the time, from two threads, and writes down each call that
# the dependency sees, with the state of the circuit at that time.
WORKER = """
import json, os, sys, threading, time
from somaresil import CircuitBreaker, CircuitOpen, Resilience
from somaresil.events import BreakerChanged
from somaresil.integrations.redis import share

url, name, down, seen = sys.argv[1:]
resilience = Resilience("workers", instance=name)
options = CircuitBreaker(failure_rate=1.0, consecutive_failures=2, open_duration=0.5, open_factor=1.0, open_jitter=0.2, half_open_calls=3)
guard = resilience.guard("dep", breaker=options)
changes, ends = [], {}
resilience.on(changes.append, BreakerChanged)
log = os.open(seen, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
busy, stop = threading.Event(), threading.Event()

@guard
def dependency():
    os.write(log, f"{name} {guard.breaker.state.value}\\n".encode())
    if os.path.exists(down):
        raise ConnectionError

def work():
    while not stop.is_set():
        if not busy.wait(0.01):
            continue
        try:
            dependency()
            end = "good"
        except (ConnectionError, CircuitOpen) as error:
            end = type(error).__name__
        except BaseException as error:
            end = "unexpected " + repr(error)
        ends[end] = ends.get(end, 0) + 1
        time.sleep(0.002)

threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
with share(resilience, url, poll=0.2) as handle:
    for line in sys.stdin:
        command = line.strip()
        if command == "work":
            busy.set()
        elif command == "rest":
            busy.clear()
        elif command == "wait":
            handle.wait(20.0)
        elif command == "trip":
            resilience.breaker("dep").trip(30.0)
        print(json.dumps({
            "state": guard.breaker.state.value,
            "connected": handle.connected,
            "ends": dict(ends),
            "changes": [change.cause for change in changes],
        }), flush=True)
    stop.set()
"""


class Worker:
    def __init__(self, url, name, folder):
        command = [sys.executable, "-c", WORKER, url, name, str(folder / "down"), str(folder / "seen")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command=""):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()


@pytest.fixture
def workers(redis_server, tmp_path):
    """Give a function that starts so many, all in touch with Redis."""
    with ExitStack() as stack:

        def start(number):
            made = [stack.enter_context(Worker(redis_server.url, f"w{n}", tmp_path)) for n in range(number)]
            for worker in made:
                assert worker.ask("wait")["connected"]
            return made

        yield start


def until(what, *, patience=PATIENCE):
    """Look until it is so; what it was."""
    deadline = time.monotonic() + patience
    while not (found := what()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return found


def states(workers):
    return [worker.ask()["state"] for worker in workers]


@pytest.mark.server
def test_five_processes_let_exactly_three_probes_through_in_all(workers, tmp_path):
    """In each half-open time anew, while ten threads call without end, as long as the dependency fails and when it is back."""
    everybody = workers(5)
    (tmp_path / "down").touch()
    for worker in everybody:
        worker.ask("work")
    until(lambda: everybody[0].ask()["changes"].count("fleet_probes") >= 2)
    (tmp_path / "down").unlink()
    until(lambda: set(states(everybody)) == {"closed"})
    for worker in everybody:
        worker.ask("rest")
    answers = [worker.ask() for worker in everybody]
    (rounds,) = {answer["changes"].count("fleet_probes") for answer in answers}
    seen = Counter(line.split()[1] for line in (tmp_path / "seen").read_text().splitlines())
    assert rounds >= 2
    # A probe that the dependency sees while another one closes the circuit has been let through half-open all the same.
    assert seen["half_open"] == PROBES * rounds
    assert seen["open"] == 0
    assert {end for answer in answers for end in answer["ends"]} == {"good", "ConnectionError", "CircuitOpen"}


@pytest.mark.server
def test_redis_is_killed_and_comes_back_and_no_call_notices(workers, redis_server, tmp_path):
    """No error of ours; each process goes on by itself and recovers by itself; when Redis is back, empty, they agree again."""
    everybody = workers(3)
    for worker in everybody:
        worker.ask("work")
    redis_server.kill()
    until(lambda: not any(worker.ask()["connected"] for worker in everybody))
    (tmp_path / "down").touch()
    until(lambda: all("exceeded" in worker.ask()["changes"] for worker in everybody))
    (tmp_path / "down").unlink()
    until(lambda: set(states(everybody)) == {"closed"})
    answers = [worker.ask() for worker in everybody]
    assert all("recovered" in answer["changes"] for answer in answers)
    assert not any(cause.startswith("fleet") for answer in answers for cause in answer["changes"])
    assert {end for answer in answers for end in answer["ends"]} == {"good", "ConnectionError", "CircuitOpen"}
    assert everybody[0].ask("trip")["state"] == "open"
    assert states(everybody[1:]) == ["closed", "closed"]
    with Redis(folder=tmp_path / "again", port=redis_server.port):
        for worker in everybody:
            worker.ask("wait")
        until(lambda: set(states(everybody)) == {"open"})
        assert {end for worker in everybody for end in worker.ask()["ends"]} == {"good", "ConnectionError", "CircuitOpen"}


# -- in one process ---------------------------------------------------------------------------------------------------------------------


def instance(name, **options):
    resilience = Resilience("several", instance=name)
    usual = {"failure_rate": None, "consecutive_failures": 1, "open_jitter": 0.0}
    resilience.guard("dep", breaker=CircuitBreaker(**(usual | options)))
    return resilience


def state(resilience):
    return resilience.breaker("dep").state.value


def fail(resilience):
    def broken():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        resilience.call("dep", broken)


@pytest.fixture
def shared():
    """Give a function like share() whose handles are closed after the test."""
    with ExitStack() as stack:

        def start(resilience, url, **options):
            return stack.enter_context(share(resilience, url, **({"poll": 0.1} | options)))

        yield start


@pytest.mark.server
def test_two_of_three_open_the_third(redis_server, shared):
    """With a quorum; one alone does not, though it is told."""
    one, two, three = everybody = [instance(name) for name in ("one", "two", "three")]
    for each in everybody:
        assert shared(each, redis_server.url, quorum=2).wait(PATIENCE)
    with redis.Redis.from_url(redis_server.url) as client:
        fail(one)
        until(lambda: client.zcard("somaresil:{several}:votes:dep") == 1)
        assert [state(each) for each in everybody] == ["open", "closed", "closed"]
        fail(two)
        until(lambda: state(three) == "open")


@pytest.mark.server
@pytest.mark.parametrize("what", ["flushall", "script flush", "client kill", "restart"])
def test_whatever_redis_forgets_is_agreed_on_again(redis_server, shared, tmp_path, what):
    """Its data, its scripts, its connections or everything."""
    one, two = instance("one"), instance("two")
    events = []
    two.on(events.append, SharedStateLost, SharedStateRestored)
    handles = [shared(each, redis_server.url) for each in (one, two)]
    assert all(handle.wait(PATIENCE) for handle in handles)
    one.breaker("dep").trip(60.0)
    until(lambda: state(two) == "open")
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(redis_server.url))
        if what == "flushall":
            client.flushall()
            until(lambda: client.exists("somaresil:{several}:circuit:dep"))
        elif what == "script flush":
            client.script_flush()
        elif what == "client kill":
            client.client_kill_filter(skipme=True, _type="normal")
            client.client_kill_filter(_type="pubsub")
            until(lambda: len(events) == 2)
        else:
            redis_server.kill()
            until(lambda: not any(handle.connected for handle in handles))
            again = stack.enter_context(Redis(folder=tmp_path / "again", port=redis_server.port))
            assert again.port == redis_server.port
            assert all(handle.wait(PATIENCE) for handle in handles)
        assert (state(one), state(two)) == ("open", "open")

        def closed_by_two():
            # Who has not heard yet what the other has written down anew speaks of what is over, gives way, and has to say it again.
            if state(two) != "closed":
                two.breaker("dep").reset()
            return state(one) == "closed"

        until(closed_by_two)


@pytest.mark.server
def test_a_forked_child_has_connections_of_its_own(redis_server, shared):
    """It follows and is followed like any other process, and its parent's connections go on."""
    parent, other = instance("parent"), instance("other")
    handles = [shared(each, redis_server.url) for each in (parent, other)]
    assert all(handle.wait(PATIENCE) for handle in handles)
    with redis.Redis.from_url(redis_server.url) as client:
        clients = len(client.client_list())
        to_child, from_child = os.pipe(), os.pipe()
        with warnings.catch_warnings():
            # Python warns of what a thread may hold at this moment. That is what is tested here.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                handles[1].close()
                assert handles[0].wait(PATIENCE)
                os.write(from_child[1], b"connected\n")
                os.read(to_child[0], 1)
                until(lambda: state(parent) == "open")
                parent.breaker("dep").reset()
                os.write(from_child[1], b"reset\n")
                os.read(to_child[0], 1)
            finally:
                os._exit(0)
        try:
            assert os.read(from_child[0], 100) == b"connected\n"
            assert len(client.client_list()) >= clients + 2
            other.breaker("dep").trip(60.0)
            until(lambda: state(parent) == "open")
            os.write(to_child[1], b"!")
            assert os.read(from_child[0], 100) == b"reset\n"
            until(lambda: (state(parent), state(other)) == ("closed", "closed"))
            assert all(handle.connected for handle in handles)
        finally:
            os.write(to_child[1], b"!")
            os.waitpid(child, 0)
            for end in (*to_child, *from_child):
                os.close(end)


class Sink:
    """A server that accepts and never answers."""

    def __init__(self):
        self._listening = socket.create_server((HOST, 0))
        self.url = f"redis://{HOST}:{self._listening.getsockname()[1]}/0"
        self.taken = []
        self.asked = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        try:
            while True:
                self.taken.append(self._listening.accept()[0])
                self.asked.set()
        except OSError:
            return

    def close(self):
        self._listening.close()
        for connection in self.taken:
            connection.close()


def waits_of(work):
    """Do it, and give every C function that it called and that may wait: sockets, files, polls, locks that were taken, sleeps."""
    called = []

    def watch(_frame, event, function):
        if event == "c_call":
            module = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
            called.append((module, function.__qualname__))

    # What the collector finds meanwhile is nobody's call.
    gc.disable()
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    suspicious = {"_socket", "socket", "select", "_ssl", "ssl", "_queue"}
    return [name for name in called if name[0] in suspicious or name == ("time", "sleep")]


def test_a_redis_that_never_answers_delays_no_call(shared, caplog):
    """Nothing that a call does can wait for it: no socket, no sleep, no poll. The log says once that it is lost."""
    with closing(Sink()) as sink, caplog.at_level(logging.INFO, "somaresil"):
        resilience = instance("one", open_duration=60.0)
        lost = threading.Event()
        resilience.on(lambda _: lost.set(), SharedStateLost)
        handle = shared(resilience, sink.url + "?socket_timeout=0.3")
        assert sink.asked.wait(PATIENCE)

        def calls():
            assert resilience.call("dep", int) == 0
            fail(resilience)
            with pytest.raises(CircuitOpen):
                resilience.call("dep", int)
            breaker = resilience.breaker("dep")
            breaker.reset()
            breaker.trip(0.000_001)
            assert resilience.call("dep", int) == 0
            breaker.reset()

        # While the thread waits for an answer, and when it has given up.
        assert waits_of(calls) == []
        assert lost.wait(PATIENCE)
        assert waits_of(calls) == []
        assert not handle.connected
    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [f"shared state at {sink.url} cannot be reached"]


@pytest.mark.server
def test_a_call_that_is_shared_touches_no_socket(redis_server, shared):
    """Nor when all is well, in any state; and what a sleeping call would look like is seen."""
    one, two = instance("one", open_duration=0.3, half_open_calls=1), instance("two", open_duration=0.3, half_open_calls=1)
    for each in (one, two):
        assert shared(each, redis_server.url).wait(PATIENCE)
    assert waits_of(lambda: fail(one)) == []
    until(lambda: state(two) == "half_open")

    def probe():
        for each in (one, two):
            try:
                each.call("dep", int)
            except CircuitOpen:
                continue

    until(lambda: waits_of(probe) == [] and state(one) == state(two) == "closed")
    assert waits_of(lambda: time.sleep(0)) == [("time", "sleep")]
    with closing(socket.socket()) as one_socket:
        assert waits_of(lambda: one_socket.setblocking(False))


@pytest.mark.server
def test_events_and_log_tell_once_that_redis_is_lost_and_once_that_it_is_back(redis_server, shared, tmp_path, caplog):
    """However often it is tried in between."""
    caplog.set_level(logging.INFO, "somaresil")
    resilience = instance("one")
    events = []
    resilience.on(events.append, SharedStateLost, SharedStateRestored)
    handle = shared(resilience, redis_server.url)
    assert handle.wait(PATIENCE)
    assert "connected" in repr(handle)
    redis_server.kill()
    until(lambda: events)
    assert not handle.connected
    assert "local" in repr(handle)
    with Redis(folder=tmp_path / "again", port=redis_server.port):
        assert handle.wait(PATIENCE)
        until(lambda: len(events) == 2)
        handle.close()
    lost, back = events
    assert lost == SharedStateLost(redis_server.url, lost.at, "ConnectionError")
    assert back == SharedStateRestored(redis_server.url, back.at, back.lost_for)
    assert 0.0 < back.lost_for < PATIENCE
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "closed" in repr(handle)


@pytest.mark.server
@pytest.mark.parametrize("protocol", [2, 3])
def test_breakers_stay_as_they_are_when_sharing_ends(redis_server, shared, protocol):
    """And what they do then concerns nobody else. Processes may speak to Redis in different ways."""
    one, two = instance("one"), instance("two")
    handle, other = shared(one, redis_server.url), shared(two, f"{redis_server.url}?decode_responses=True&protocol={protocol}")
    assert handle.wait(PATIENCE)
    assert other.wait(PATIENCE)
    changes = []
    two.on(changes.append, BreakerChanged)
    one.breaker("dep").trip(60.0)
    until(lambda: changes)
    handle.close()
    handle.close()
    assert state(one) == "open"
    one.breaker("dep").reset()
    with redis.Redis.from_url(redis_server.url) as client:
        assert client.zcard("somaresil:{several}:alive") == 1
    assert state(two) == "open"
    # It may be shared again.
    assert shared(one, redis_server.url).wait(PATIENCE)
    until(lambda: state(one) == "open")
