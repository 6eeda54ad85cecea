"""What audit events are read as: a program, a host, a file or a library, or nothing that a rule is about."""

from __future__ import annotations

import os
import socket
from pathlib import PurePosixPath
from types import SimpleNamespace

import pytest

from somaresil import ConfigurationError, ManualClock, Resilience, ViolationBlocked
from somaresil.chaos.network.hooks import LOOKUPS, HookLostError
from somaresil.events import DefectFound, RuntimeViolation
from somaresil.runtime_guard import RuntimeGuard, RuntimeRules, watch
from somaresil.runtime_guard.allowed import place_of
from somaresil.runtime_guard.deeds import DEEDS, Deed
from somaresil.runtime_guard.rules import Rule

TCP = SimpleNamespace(family=socket.AF_INET)
LOCAL = SimpleNamespace(family=socket.AF_UNIX)


def read(event, *arguments):
    return list(DEEDS[event][1](*arguments))


@pytest.mark.parametrize(
    ("event", "arguments", "program", "path"),
    [
        ("subprocess.Popen", ("/bin/ls", ["other"], None, None), "/bin/ls", None),
        ("subprocess.Popen", (None, ["ls", "-l"], None, {"PATH": "/opt"}), "ls", "/opt"),
        ("subprocess.Popen", (None, b"ls", None, {b"PATH": b"/opt"}), "ls", "/opt"),
        ("subprocess.Popen", (None, PurePosixPath("/bin/ls"), None, {"HOME": "/"}), "/bin/ls", None),
        ("os.system", (b"ls | wc",), "/bin/sh", None),
        ("os.exec", (b"/bin/ls", ["ls"], {"PATH": "/opt"}), "/bin/ls", "/opt"),
        ("os.posix_spawn", ("/bin/ls", ["ls"], {}), "/bin/ls", None),
        ("pty.spawn", ("ls",), "ls", None),
        ("pty.spawn", (["ls", "-l"],), "ls", None),
    ],
)
def test_a_program_is_known_with_the_path_that_it_will_be_looked_for_in(event, arguments, program, path):
    assert read(event, *arguments) == [Deed(Rule.PROCESSES, program, path=path)]


@pytest.mark.parametrize(
    ("event", "arguments", "host", "port"),
    [
        ("socket.connect", (TCP, ("192.0.2.1", 9)), "192.0.2.1", 9),
        ("socket.sendto", (TCP, (b"far.example", 9)), "far.example", 9),
        ("socket.sendmsg", (TCP, (bytearray(b"far.example"), 9, 0, 0)), "far.example", 9),
        ("socket.getaddrinfo", ("far.example", "443", 0, 0, 0), "far.example", 443),
        ("socket.getaddrinfo", (b"far.example", "https", 0, 0, 0), "far.example", None),
        ("socket.getaddrinfo", ("far.example", 0, 0, 0, 0), "far.example", None),
        ("socket.gethostbyname", ("far.example",), "far.example", None),
    ],
)
def test_a_host_is_known_with_its_port_where_that_is_known(event, arguments, host, port):
    assert read(event, *arguments) == [Deed(Rule.HOSTS, host, port)]


@pytest.mark.parametrize(
    ("event", "arguments", "file"),
    [
        ("open", ("/nowhere/a", "w", os.O_WRONLY), "/nowhere/a"),
        ("open", (b"/nowhere/../b", None, os.O_RDWR), "/b"),
        ("os.truncate", ("/nowhere/a", 0), "/nowhere/a"),
        ("os.remove", ("/nowhere/a", -1), "/nowhere/a"),
        ("os.rmdir", ("/nowhere/a/", -1), "/nowhere/a"),
        ("os.mkdir", ("/nowhere/a", 0o777, -1), "/nowhere/a"),
        ("os.chmod", ("/nowhere/a", 0o600, -1), "/nowhere/a"),
        ("os.chown", ("/nowhere/a", 0, 0, -1), "/nowhere/a"),
        ("os.utime", ("/nowhere/a", None, None, -1), "/nowhere/a"),
        ("os.setxattr", ("/nowhere/a", "user.x", b"", 0), "/nowhere/a"),
        ("os.removexattr", ("/nowhere/a", "user.x"), "/nowhere/a"),
        ("os.link", ("/etc/passwd", "/nowhere/a", -1, -1), "/nowhere/a"),
        ("os.symlink", ("/etc/passwd", "/nowhere/a", -1), "/nowhere/a"),
        ("sqlite3.connect", ("/nowhere/a",), "/nowhere/a"),
        ("sqlite3.connect", ("file:/nowhere/a%20b?mode=rwc",), "/nowhere/a b"),
    ],
)
def test_a_file_that_changes_is_known_where_it_is_in_the_end(event, arguments, file):
    assert read(event, *arguments) == [Deed(Rule.WRITES, file)]


def test_a_move_changes_both_places():
    assert read("os.rename", "/nowhere/a", "/nowhere/b", -1, -1) == [Deed(Rule.WRITES, "/nowhere/a"), Deed(Rule.WRITES, "/nowhere/b")]


def test_a_library_is_known_by_its_file_or_by_the_name_that_was_asked_for():
    assert read("import", "fast", "/nowhere/fast.so", None, None, None) == [Deed(Rule.NATIVE, "/nowhere/fast.so")]
    assert read("ctypes.dlopen", b"libssl.so.3") == [Deed(Rule.NATIVE, "libssl.so.3")]


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("os.exec", (7, ["ls"], {})),
        ("socket.connect", (LOCAL, "/run/socket")),
        ("socket.connect", (TCP, ("192.0.2.1",))),
        ("socket.connect", (TCP, (None, 9))),
        ("socket.getaddrinfo", ("192.0.2.1", 9, 0, 0, 0)),
        ("socket.getaddrinfo", (None, 9, 0, 0, 0)),
        ("open", ("/nowhere/a", "r", os.O_RDONLY)),
        ("open", (7, "w", os.O_WRONLY)),
        ("os.truncate", (7, 0)),
        ("os.chmod", (7, 0o600, -1)),
        ("sqlite3.connect", (":memory:",)),
        ("sqlite3.connect", ("",)),
        ("sqlite3.connect", ("file:/nowhere/a?mode=ro",)),
        ("sqlite3.connect", ("file:/nowhere/a?immutable=1",)),
        ("import", ("plain", None, None, None, None)),
        ("ctypes.dlopen", (None,)),
    ],
)
def test_what_was_looked_at_before_or_changes_nothing_is_no_deed(event, arguments):
    assert read(event, *arguments) == []


def test_a_place_begins_at_the_folder_of_its_descriptor_and_its_own_link_is_followed_only_if_asked_for(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert place_of("link", folder) == os.path.realpath(real)
        assert place_of("link", folder, follow=False) == f"{os.path.realpath(tmp_path)}/link"
        assert place_of("link/x", folder, follow=False) == f"{os.path.realpath(real)}/x"
        assert place_of("link/..", folder, follow=False) == os.path.realpath(tmp_path)
        assert place_of("/link", folder, follow=False) == "/link"
    finally:
        os.close(folder)


class Judged:
    """A guard that is asked by hand, and what it told."""

    def __init__(self, **rules):
        self.clock = ManualClock()
        self.resilience = Resilience("judged", clock=self.clock)
        self.told = []
        self.defects = []
        self.resilience.on(self.told.append, RuntimeViolation)
        self.resilience.on(self.defects.append, DefectFound)
        self.guard = RuntimeGuard(self.resilience, RuntimeRules(**rules))


@pytest.mark.parametrize(
    ("rules", "event", "allowed", "refused", "subject"),
    [
        ({"processes": ["/bin/ls"]}, "os.exec", ("/bin/ls", [], {}), ("/bin/cat", [], {}), "/bin/cat"),
        ({"hosts": ["192.0.2.1:9"]}, "socket.connect", (TCP, ("192.0.2.1", 9)), (TCP, ("192.0.2.1", 8)), "192.0.2.1:8"),
        ({"writes": ["/nowhere"]}, "os.truncate", ("/nowhere/a", 0), ("/elsewhere/a", 0), "/elsewhere/a"),
        ({"native": ["libssl.*"]}, "ctypes.dlopen", ("libssl.so",), ("libevil.so",), "libevil.so"),
    ],
)
def test_each_rule_lets_pass_what_is_listed_and_refuses_the_rest_by_its_name(rules, event, allowed, refused, subject):
    (rule,) = rules
    judged = Judged(**rules, block=(rule,))
    judged.guard.judge(event, allowed)
    with pytest.raises(ViolationBlocked) as blocked:
        judged.guard.judge(event, refused)
    assert (blocked.value.rule, blocked.value.subject) == (rule, subject)
    assert [(told.rule, told.subject, told.blocked) for told in judged.told] == [(rule, subject, True)]


def test_a_rule_without_a_list_is_not_looked_at():
    judged = Judged(native=(), block=("native",))
    judged.guard.judge("os.system", (b"ls",))
    assert judged.told == []


def test_what_happens_again_within_a_minute_is_counted_and_told_after_it():
    judged = Judged(processes=())
    for _ in range(3):
        judged.guard.judge("os.system", (b"ls",))
    judged.clock.advance(60.0)
    judged.guard.judge("os.system", (b"ls",))
    assert [told.times for told in judged.told] == [1, 3]


def test_no_more_subjects_are_remembered_than_256():
    judged = Judged(native=())
    for number in range(257):
        judged.guard.judge("ctypes.dlopen", (f"lib{number}",))
    assert len(judged.guard._told) == 256
    judged.guard.judge("ctypes.dlopen", ("lib0",))
    judged.guard.judge("ctypes.dlopen", ("lib256",))
    # The oldest was forgotten, so it is told as new; the youngest was told a moment ago.
    assert [told.subject for told in judged.told[257:]] == ["lib0"]


def test_arguments_that_cannot_be_read_let_the_operation_go_on_and_are_reported():
    judged = Judged(processes=(), block=("processes",))
    judged.guard.judge("subprocess.Popen", (None, [], None, None))
    assert judged.told == []
    (defect,) = judged.defects
    assert (defect.where, defect.error) == ("runtime guard", "IndexError")


@pytest.fixture
def started():
    judged = Judged(processes=(), block=("processes",))
    judged.guard.start()
    yield judged
    judged.guard.stop()


def test_the_hook_asks_guards_that_watch_and_no_others(started):
    with pytest.raises(ViolationBlocked):
        watch._hook("os.system", (b"ls",))
    started.guard.stop()
    watch._hook("os.system", (b"ls",))
    assert len(started.told) == 1


def test_the_hook_passes_files_that_are_only_read_and_what_listeners_do(started):
    seen = []
    started.guard.judge = lambda *what: seen.append(what)
    watch._hook("open", ("/nowhere/a", "r", os.O_RDONLY))
    watch._hook("no event of ours", ())
    watch._here.busy = True
    try:
        watch._hook("os.system", (b"ls",))
    finally:
        watch._here.busy = False
    assert seen == []
    watch._hook("os.system", (b"ls",))
    assert seen == [("os.system", (b"ls",))]


def test_a_guard_is_started_and_stopped_once(started):
    assert started.guard.start() is started.guard
    assert watch._watching.count(started.guard) == 1
    started.guard.stop()
    started.guard.stop()
    assert not started.guard.watching


def test_a_guard_that_cannot_learn_addresses_says_so_and_watches(monkeypatch, caplog):
    def lost():
        raise HookLostError("getaddrinfo is somebody else's")

    monkeypatch.setattr(LOOKUPS, "hold", lost)
    judged = Judged(hosts=["far.example"])
    released = []
    monkeypatch.setattr(LOOKUPS, "release", lambda: released.append(True))
    judged.guard.start()
    try:
        assert judged.guard.watching
        (defect,) = judged.defects
        assert (defect.where, defect.error) == ("runtime guard", "HookLostError")
        assert "addresses of names are not known: connections to them count as violations" in caplog.text
    finally:
        judged.guard.stop()
    # What was not taken is not given back.
    assert released == []


def test_a_list_is_not_longer_than_a_thousand_entries_and_an_entry_is_a_text():
    with pytest.raises(ConfigurationError) as wrong:
        RuntimeRules(processes=["ls"] * 1001, native=["", 7, "a\0b"])
    paths = [problem.path.removeprefix("RuntimeRules.") for problem in wrong.value.problems]
    assert paths == ["processes", "native[0]", "native[1]", "native[2]"]
    assert "at most 1000" in str(wrong.value)
