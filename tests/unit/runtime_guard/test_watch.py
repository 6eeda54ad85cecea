"""The runtime guard: what it sees, what it refuses, and what it leaves alone."""

from __future__ import annotations

import ctypes
import os
import pickle
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from somaresil import ManualClock, Resilience, ViolationBlocked
from somaresil.events import DefectFound, RuntimeViolation
from somaresil.integrations.prometheus import install
from somaresil.runtime_guard import RuntimeGuard, RuntimeRules
from somaresil.runtime_guard.deeds import DEEDS
from somaresil.runtime_guard.watch import _hook

FAR = ("192.0.2.1", 9)


class Watched:
    """A guard that watches, and what it told."""

    def __init__(self, **rules):
        self.clock = ManualClock()
        self.resilience = Resilience("watched", clock=self.clock)
        self.told = []
        self.defects = []
        self.resilience.on(self.told.append, RuntimeViolation)
        self.resilience.on(self.defects.append, DefectFound)
        self.guard = RuntimeGuard(self.resilience, RuntimeRules(**rules)).start()

    @property
    def seen(self):
        return [(event.rule, event.subject) for event in self.told]


@pytest.fixture
def watch():
    made = []

    def start(**rules):
        made.append(Watched(**rules))
        return made[-1]

    yield start
    for each in made:
        each.guard.stop()
        assert not each.defects


def test_a_program_in_no_list_is_told_and_runs_unless_the_rule_refuses(watch):
    reporting = watch(processes=("python",))
    assert subprocess.run(["true"], check=False).returncode == 0
    subprocess.run([sys.executable, "-c", ""], check=True)
    (event,) = reporting.told
    assert event.rule == "processes"
    assert event.subject == "true"
    assert not event.blocked


def test_a_refused_program_does_not_run_whichever_way_it_is_started(watch, tmp_path):
    mark = tmp_path / "mark"
    watch(processes=("python",), block=("processes",))
    with pytest.raises(ViolationBlocked) as refused:
        subprocess.run(["/bin/touch", mark], check=False)
    assert isinstance(refused.value, PermissionError)
    assert refused.value.errno == 13
    assert refused.value.rule == "processes"
    with pytest.raises(ViolationBlocked):
        os.system(f"touch {mark}")
    with pytest.raises(ViolationBlocked):
        os.posix_spawn("/bin/touch", ["touch", str(mark)], {})
    with pytest.raises(ViolationBlocked):
        os.execv("/bin/touch", ["touch", str(mark)])
    with pytest.raises(ViolationBlocked):
        subprocess.run(f"touch {mark}", shell=True, check=False)
    assert not mark.exists()


def test_the_path_of_the_child_decides_which_program_is_meant(watch, tmp_path):
    fake = tmp_path / Path(sys.executable).name
    fake.write_text("#!/bin/sh\n", encoding="utf-8")
    fake.chmod(0o755)
    watched = watch(processes=("python",), block=("processes",))
    with pytest.raises(ViolationBlocked):
        subprocess.run([fake.name], env={"PATH": str(tmp_path)}, check=False)
    assert watched.seen == [("processes", fake.name)]


def test_connections_to_hosts_in_no_list_are_refused_before_anything_is_sent(watch):
    watched = watch(hosts=("10.0.0.0/8",), block=("hosts",))
    with socket.socket() as connection, pytest.raises(ViolationBlocked):
        connection.connect(FAR)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, pytest.raises(ViolationBlocked):
        datagrams.sendto(b"x", FAR)
    with pytest.raises(ViolationBlocked):
        socket.getaddrinfo("somewhere.example", 443)
    assert watched.seen == [("hosts", "192.0.2.1:9"), ("hosts", "somewhere.example:443")]


def test_loopback_and_sockets_of_the_file_system_are_left_alone(watch, tmp_path):
    watch(hosts=(), block=("hosts",))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
    assert socket.getaddrinfo("localhost", 80)


def test_an_address_is_allowed_because_an_allowed_name_has_it(watch, monkeypatch):
    def look_up(host, port, *options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    watched = watch(hosts=("models.example:9",), block=("hosts",))
    with socket.socket() as connection:
        connection.setblocking(False)
        with pytest.raises(ViolationBlocked):
            connection.connect(FAR)
        socket.getaddrinfo("models.example", 9)
        with pytest.raises(OSError, match=r"in progress|unreachable") as let_through:
            connection.connect(FAR)
    assert not isinstance(let_through.value, ViolationBlocked)
    watched.guard.stop()


def test_files_are_written_only_below_the_folders_and_links_lead_nowhere_else(watch, tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    other.mkdir()
    (other / "kept").write_text("kept", encoding="utf-8")
    (data / "way-out").symlink_to(other)
    watched = watch(writes=(str(data),), block=("writes",))
    (data / "fine").write_text("x", encoding="utf-8")
    assert (other / "kept").read_text(encoding="utf-8") == "kept"
    attempts = (
        lambda: (other / "new").write_text("x", encoding="utf-8"),
        lambda: (data / "way-out" / "new").write_text("x", encoding="utf-8"),
        lambda: (data / ".." / "other" / "new").write_text("x", encoding="utf-8"),
        lambda: os.open(other / "new", os.O_WRONLY | os.O_CREAT),
        lambda: (data / "fine").rename(other / "new"),
        lambda: (other / "kept").rename(data / "taken"),
        (other / "kept").unlink,
        (other / "folder").mkdir,
        lambda: (other / "link").symlink_to(data / "fine"),
        lambda: os.link(data / "fine", other / "link"),
        lambda: os.truncate(other / "kept", 0),
        lambda: (other / "kept").chmod(0o777),
        lambda: os.utime(other / "kept"),
        lambda: sqlite3.connect(other / "new.db"),
    )
    for number, attempt in enumerate(attempts):
        with pytest.raises(ViolationBlocked):
            attempt()
        assert sorted(each.name for each in other.iterdir()) == ["kept"], number
    assert (other / "kept").read_text(encoding="utf-8") == "kept"
    assert all(rule == "writes" for rule, _ in watched.seen)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        nowhere.write("x")
    sqlite3.connect(":memory:").close()
    sqlite3.connect(f"file:{other}/kept?mode=ro", uri=True).close()


def test_relative_paths_below_a_descriptor_are_found(watch, tmp_path):
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    other.mkdir()
    folder = os.open(other, os.O_RDONLY)
    try:
        watched = watch(writes=(str(data),), block=("writes",))
        with pytest.raises(ViolationBlocked):
            os.mkdir("new", dir_fd=folder)
        assert watched.seen == [("writes", str(other / "new"))]
    finally:
        watched.guard.stop()
        os.close(folder)


def test_native_code_from_elsewhere_is_not_loaded(watch, tmp_path):
    library = tmp_path / "evil.so"
    library.write_bytes(b"no library at all")
    watched = watch(native=("python",), block=("native",))
    with pytest.raises(ViolationBlocked):
        ctypes.CDLL(str(library))
    with pytest.raises(ViolationBlocked):
        ctypes.CDLL("libevil.so.1")
    ctypes.CDLL(None)
    assert watched.seen == [("native", str(library)), ("native", "libevil.so.1")]


def test_the_same_violation_is_told_once_a_minute_and_counted_each_time(watch):
    watched = watch(hosts=())
    for _ in range(5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect(FAR)
    watched.clock.advance(61.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(FAR)
    assert [event.times for event in watched.told] == [1, 5]
    assert watched.resilience.violations.counts() == {"hosts reported": 6}
    registry = CollectorRegistry()
    install(watched.resilience, registry)
    text = generate_latest(registry).decode()
    assert 'somaresil_runtime_violations_total{result="reported",rule="hosts"} 6.0' in text


def test_what_is_remembered_as_told_is_bounded(watch):
    watched = watch(hosts=())
    for number in range(1, 2_000):
        _hook("socket.getaddrinfo", (f"h{number}.example", 1))
    assert len(watched.told) == 1_999
    assert len(watched.guard._told) == 256


def test_a_listener_that_does_what_is_not_allowed_is_not_told_of_itself(watch, tmp_path):
    watched = watch(writes=())
    log = tmp_path / "log"

    def write(event):
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{event.subject}\n")

    watched.resilience.on(write, RuntimeViolation)
    (tmp_path / "x").write_text("x", encoding="utf-8")
    assert log.read_text(encoding="utf-8") == f"{tmp_path / 'x'}\n"


def test_arguments_that_no_deed_expects_are_reported_as_our_defect_and_let_through():
    watched = Watched(processes=(), hosts=(), writes=(), native=(), block=("processes", "hosts", "writes", "native"))
    try:
        for event in DEEDS:
            watched.guard.judge(event, ())
            watched.guard.judge(event, (object(), object(), object(), object()))
    finally:
        watched.guard.stop()
    assert len(watched.defects) == 1
    assert watched.defects[0].where == "runtime guard"


def test_events_that_somebody_makes_up_reach_nobody():
    watched = Watched(processes=(), hosts=(), writes=(), native=())
    try:
        for event in DEEDS:
            sys.audit(event)
            sys.audit(event, None, None, None, None, None)
    finally:
        watched.guard.stop()


def test_after_stop_nothing_is_seen_and_two_guards_see_the_same(watch, tmp_path):
    first, second = watch(writes=()), watch(writes=())
    (tmp_path / "a").write_text("x", encoding="utf-8")
    first.guard.stop()
    first.guard.stop()
    (tmp_path / "b").write_text("x", encoding="utf-8")
    assert [subject for _, subject in first.seen] == [str(tmp_path / "a")]
    assert [subject for _, subject in second.seen] == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert (first.guard.watching, second.guard.watching) == (False, True)


def test_a_forked_child_and_a_thread_are_watched(watch, tmp_path):
    watched = watch(writes=(), block=("writes",))
    caught = []

    def write():
        try:
            (tmp_path / "x").write_text("x", encoding="utf-8")
        except ViolationBlocked as refused:
            caught.append(refused)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert len(caught) == 1
    child = os.fork()
    if not child:
        try:
            (tmp_path / "y").write_text("y", encoding="utf-8")
        except ViolationBlocked:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert watched.guard.watching


def test_a_refusal_says_what_to_do_and_survives_pickling():
    refused = ViolationBlocked("hosts", "192.0.2.1:9")
    assert str(refused) == "the runtime guard refused '192.0.2.1:9': it is not in the list 'hosts' of RuntimeRules"
    again = pickle.loads(pickle.dumps(refused))
    assert (again.rule, again.subject, str(again)) == (refused.rule, refused.subject, str(refused))


def test_the_guard_says_what_it_looks_at():
    guard = RuntimeGuard(Resilience("r"), RuntimeRules(hosts=(), writes=(), block=("hosts",)))
    assert repr(guard) == "<RuntimeGuard of hosts, writes; refuses hosts>"
