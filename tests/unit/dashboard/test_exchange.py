"""Processes that ask each other through a folder: who may, what they say, and what becomes of those that are gone."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import struct
import tempfile
import threading
import time
from contextlib import suppress

import pytest

from somaresil.clock import ManualClock, SystemClock
from somaresil.config import Checker
from somaresil.dashboard import exchange as module
from somaresil.dashboard.exchange import Exchange, Gone, Unanswered, check_folder
from somaresil.listeners import Listeners

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no Unix sockets here")


@pytest.fixture
def make(tmp_path):
    made = []

    def build(answer=lambda asked: asked, folder=None, service="gateway"):
        exchange = Exchange(folder or tmp_path / "w", service=service, answer=answer, clock=SystemClock(), listeners=Listeners())
        exchange.start()
        made.append(exchange)
        return exchange

    yield build
    for exchange in made:
        exchange.stop()


def found(folder):
    check = Checker("dashboard")
    check_folder(check, "workers", folder)
    return [(problem.path, problem.hint) for problem in check.problems]


def only(exchange):
    (name,) = exchange.others()
    return name


def test_two_processes_ask_each_other(make):
    """Each sees the other and not itself, and gets what it answers; the folder and the sockets are of this user alone."""
    one, other = make(lambda asked: {"one": asked}), make(lambda asked: {"other": asked})
    assert one.ask(only(one), {"ask": 1}, 5.0) == {"other": {"ask": 1}}
    assert other.ask(only(other), {"ask": 2}, 5.0) == {"one": {"ask": 2}}
    assert one.process_of(only(one)) == os.getpid()
    assert stat.S_IMODE(one.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.lstat().st_mode) for path in one.folder.iterdir()} == {0o600}


def test_who_leaves_takes_its_socket_away(make):
    """No thread, no descriptor and no file is left behind."""
    one, other = make(), make()
    name = only(one)
    other.stop()
    assert one.others() == {}
    with pytest.raises(Gone, match="left"):
        one.ask(name, {}, 1.0)
    assert len([*one.folder.iterdir()]) == 1


def test_paths_that_are_too_long_for_a_socket(make, tmp_path):
    """They have 108 bytes; the folder is opened, and named by its descriptor."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    one, _ = make(folder=folder / "w"), make(folder=folder / "w")
    assert one.ask(only(one), {"ask": 1}, 5.0) == {"ask": 1}


def test_services_do_not_meet(make):
    """Two services may be given the same folder by mistake."""
    one, _ = make(service="gateway"), make(service="worker")
    assert one.others() == {}


def test_a_folder_that_others_may_read_is_refused(tmp_path):
    """In words, before anything is started; and so are files, links and what is not there."""
    for mode in (0o755, 0o770, 0o701):
        folder = tmp_path / f"w{mode}"
        folder.mkdir(mode=mode)
        folder.chmod(mode)
        assert found(folder) == [("dashboard.workers", "others may look into it: chmod 700")]
    (tmp_path / "file").write_text("")
    assert found(tmp_path / "file") == [("dashboard.workers", "it is no folder")]
    (tmp_path / "good").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "good")
    assert found(tmp_path / "link") == [("dashboard.workers", "it is a symbolic link")]
    assert "is not there" in found(tmp_path / "nowhere" / "w")[0][1]
    assert found(3)[0][0] == "dashboard.workers"
    assert found(tmp_path / "good") == found(tmp_path / "new") == []


def test_a_folder_that_is_opened_to_others_later_is_not_used(make, tmp_path):
    """It is looked at again when somebody begins to listen; that is reported, and nobody fails for it."""
    folder = tmp_path / "w"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    exchange = make(folder=folder)
    assert not exchange.listening
    assert [*folder.iterdir()] == []


def test_one_that_was_killed_is_remembered_for_a_minute(make):
    """Its socket refuses: it is buried under another name, and forgotten after that."""
    one = make()
    dead = one.name.replace(str(os.getpid()), "4711")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(one.folder / dead))
    with pytest.raises(Gone, match="without a word"):
        one.ask(dead, {}, 1.0)
    one.bury(dead)
    assert one.others() == {dead: False}
    assert one.process_of(dead) == 4711


def test_whoever_begins_buries_those_that_were_killed(make):
    """A folder that outlives restarts does not fill up."""
    one = make()
    dead = one.name.replace(str(os.getpid()), "4711")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(one.folder / dead))
    make()
    until = time.monotonic() + 10.0
    while one.others().get(dead) is not False:
        assert time.monotonic() < until, one.others()


def test_who_does_not_answer_is_not_waited_for(make):
    """Neither one that is busy nor one that has stopped listening keeps anybody for longer than was said."""
    release = threading.Event()
    one, _ = make(), make(lambda _: release.wait(20.0))
    begun = time.monotonic()
    with pytest.raises(Unanswered, match="no answer within"):
        one.ask(only(one), {}, 0.2)
    assert time.monotonic() - begun < 5.0
    release.set()


def test_a_defect_of_whoever_answers_is_told(make):
    """The type of the error, and not its text; the next question is answered."""

    def answer(asked):
        if asked.get("ask") == "bad":
            raise KeyError("secret")
        return float("nan") if asked.get("ask") == "strange" else 1

    one, _ = make(), make(answer)
    with pytest.raises(Unanswered, match=r"KeyError") as told:
        one.ask(only(one), {"ask": "bad"}, 5.0)
    assert "secret" not in str(told.value)
    with pytest.raises(Unanswered, match="ValueError"):
        one.ask(only(one), {"ask": "strange"}, 5.0)
    assert one.ask(only(one), {}, 5.0) == 1


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\0\0",
        struct.pack("!I", 2**31) + b"x",
        struct.pack("!I", 3) + b"{",
        struct.pack("!I", 3) + b"{{{",
        struct.pack("!I", 2) + b"[]",
        struct.pack("!I", 60_000) + b"[" * 60_000,
        struct.pack("!I", 4) + b"\xff\xff\xff\xff",
    ],
)
def test_what_is_no_question_ends_nothing(make, said):
    """Whoever connects may say anything: the next one is served."""
    one, other = make(), make()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(one.folder / other.name))
        raw.sendall(said)
        raw.shutdown(socket.SHUT_WR)
        raw.settimeout(10.0)
        # It is cut off, whatever it had still to say.
        with suppress(ConnectionResetError):
            while raw.recv(65_536):
                pass
    assert one.ask(only(one), {"ask": 1}, 5.0) == {"ask": 1}


@pytest.mark.parametrize("said", [b"", b"[]", b'{"problem": "x"}', b"no", b'{"answer"', b"[" * 50_000])
def test_what_is_no_answer_is_said_to_be_none(make, said):
    """A process that was replaced by something else is not believed."""
    one = make()
    name = one.name.replace(str(os.getpid()), "4711")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(one.folder / name))
        listener.listen()

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(struct.pack("!I", len(said)) + said)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(Unanswered):
            one.ask(name, {}, 5.0)
        thread.join()


def test_many_questions_at_once_are_all_answered(make):
    """More than are answered at the same time wait, and none is lost."""
    one, _ = make(), make(lambda asked: asked["n"])
    name, said = only(one), []
    threads = [threading.Thread(target=lambda n=n: said.append(one.ask(name, {"n": n}, 20.0))) for n in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == list(range(60))


def test_a_forked_child_has_a_socket_of_its_own(make):
    """And the parent keeps its own; the child's is gone when it leaves."""
    one = make(lambda _: os.getpid())
    ready, answer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - another process
        try:
            one.after_fork()
            one.start()
            os.write(answer, json.dumps([one.name, [*one.others()]]).encode())
            until = time.monotonic() + 20.0
            while [*one.folder.iterdir()] and time.monotonic() < until and not (one.folder.parent / "end").exists():
                pass
            one.stop()
        finally:
            os._exit(0)
    name, seen = json.loads(os.read(ready, 4_096))
    assert seen == [one.name]
    assert only(one) == name
    assert one.ask(name, {}, 5.0) == child
    (one.folder.parent / "end").touch()
    os.waitpid(child, 0)
    assert one.others() == {}
    assert one.listening
    os.close(ready)
    os.close(answer)


def test_a_folder_that_was_cleaned_up_is_made_again(make):
    """Whether the sockets were removed or the folder with them: after the next look they meet again."""
    one, other = make(), make()
    for path in one.folder.iterdir():
        path.unlink()
    assert one.others() == {}
    one.mend()
    other.mend()
    assert one.ask(only(one), {"ask": 1}, 5.0) == {"ask": 1}
    shutil.rmtree(one.folder)
    one.mend()
    other.mend()
    assert one.ask(only(one), {"ask": 1}, 5.0) == {"ask": 1}
    before = one.name
    one.mend()
    assert one.name == before


def test_the_folder_of_another_user_and_one_that_cannot_be_looked_at_are_refused(tmp_path, monkeypatch):
    """What can be asked there includes commands."""
    folder = tmp_path / "w"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert found(folder) == [("dashboard.workers", "it belongs to another user")]
    assert found(tmp_path / ("x" * 300)) == [("dashboard.workers", "File name too long")]


def test_systems_without_unix_sockets_or_descriptors_by_name_are_told_what_they_can_have(tmp_path, monkeypatch):
    """None, or a path that is short enough for the address of a socket."""
    monkeypatch.setattr(module, "_BY_DESCRIPTOR", str(tmp_path / "none"))
    assert found(tmp_path / ("x" * 100)) == [("dashboard.workers", "sockets have no room for longer ones")]
    monkeypatch.delattr(socket, "AF_UNIX")
    assert found(tmp_path / "w") == [("dashboard.workers", "it has no Unix sockets")]


def test_without_descriptors_by_name_sockets_are_found_by_their_path(monkeypatch):
    """As on macOS."""
    monkeypatch.setattr(module, "_BY_DESCRIPTOR", "/nowhere")
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        exchanges = [
            Exchange(f"{short}/w", service="g", answer=lambda asked: asked, clock=SystemClock(), listeners=Listeners()) for _ in range(2)
        ]
        try:
            for each in exchanges:
                each.start()
            assert exchanges[0].ask(only(exchanges[0]), {"ask": 1}, 5.0) == {"ask": 1}
        finally:
            for each in exchanges:
                each.stop()


def test_who_begins_twice_has_one_socket(make):
    """The second time changes nothing."""
    one = make()
    one.start()
    assert [each.name for each in one.folder.iterdir()] == [one.name]


class NoThread:
    def __init__(self, *given, **named):
        pass

    def start(self):
        raise RuntimeError("can't start new thread")


def told(monkeypatch, exchange):
    """Of defects, what they were about."""
    found = []
    monkeypatch.setattr(exchange._listeners, "defect", lambda where, *_: found.append(where))
    return found


def test_a_process_without_a_thread_to_listen_leaves_no_socket(tmp_path, monkeypatch):
    """It is reported, and nobody waits for an answer of it."""
    exchange = Exchange(tmp_path / "w", service="g", answer=int, clock=SystemClock(), listeners=Listeners())
    defects = told(monkeypatch, exchange)
    with monkeypatch.context() as patched:
        patched.setattr(threading, "Thread", NoThread)
        exchange.start()
    assert defects == ["thread somaresil-workers"]
    assert not exchange.listening
    assert [*exchange.folder.iterdir()] == []


def test_who_cannot_listen_leaves_no_half_made_socket(tmp_path, monkeypatch):
    """What it was made under is removed again."""
    exchange = Exchange(tmp_path / "w", service="g", answer=int, clock=SystemClock(), listeners=Listeners())
    defects = told(monkeypatch, exchange)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", full)
        exchange.start()
    assert defects == ["the folder of workers"]
    assert not exchange.listening
    assert [*exchange.folder.iterdir()] == []


class Line:
    """A listening socket on which happens what a test says, and then its end."""

    def __init__(self, *happens):
        self.happens = [*happens]

    def accept(self):
        each = self.happens.pop(0) if self.happens else OSError(errno.EBADF, "closed")
        if isinstance(each, OSError):
            raise each
        return each, None


class Waited(SystemClock):
    """One whose waits are noted and not waited for."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def wait(self, event, timeout):
        self.waits.append(timeout)
        return False


def test_listening_goes_on_after_what_passes(tmp_path):
    """Somebody who has left again costs nothing; without descriptors it is tried again a second later, not at once."""
    clock = Waited()
    exchange = Exchange(tmp_path / "w", service="g", answer=int, clock=clock, listeners=Listeners())
    line = Line(*(OSError(number, "x") for number in (errno.ECONNABORTED, errno.EINTR, errno.EMFILE, errno.ENFILE)))
    exchange._serve(line)
    assert clock.waits == [1.0, 1.0]
    assert line.happens == []


def test_without_a_thread_to_answer_the_asker_is_let_go_and_the_place_is_free(tmp_path, monkeypatch):
    """Otherwise sixteen of them would be the end of all answers."""
    exchange = Exchange(tmp_path / "w", service="g", answer=int, clock=SystemClock(), listeners=Listeners())
    ours, theirs = socket.socketpair()
    with monkeypatch.context() as patched, theirs:
        patched.setattr(threading, "Thread", NoThread)
        exchange._serve(Line(ours))
        assert theirs.recv(1) == b""
    assert all(exchange._places.acquire(blocking=False) for _ in range(16))


def test_another_user_gets_no_answer_and_none_of_his_is_taken(make, monkeypatch):
    """The kernel says who it is."""
    called = []
    one, _ = make(called.append), make(called.append)
    monkeypatch.setattr(module, "_is_ours", lambda other: False)
    with pytest.raises(Unanswered, match="another user"):
        one.ask(only(one), {"ask": 1}, 5.0)
    ours, theirs = socket.socketpair()
    places = threading.BoundedSemaphore(1)
    places.acquire()
    with theirs:
        one._reply(ours, places)
        assert theirs.recv(1) == b""
    assert called == []
    assert places.acquire(blocking=False)


def test_where_nobody_can_say_who_asks_the_mode_of_the_folder_decides(make, monkeypatch):
    """As on systems without ``SO_PEERCRED``."""
    one, _ = make(), make()
    monkeypatch.delattr(socket, "SO_PEERCRED")
    assert one.ask(only(one), {"ask": 1}, 5.0) == {"ask": 1}


def test_what_was_left_half_made_is_removed_after_a_minute(make, monkeypatch):
    """And what others are making now is left alone."""
    one = make()
    draft = one.folder / f".{one._prefix}-4711-00000000.sock.tmp"
    draft.touch()
    one.sweep()
    assert draft.exists()
    later = one._clock.time() + 61.0
    monkeypatch.setattr(one._clock, "time", lambda: later)
    one.sweep()
    assert not draft.exists()


def test_the_dead_are_forgotten_after_a_minute(make, monkeypatch):
    """Until then they are shown as missing."""
    one = make()
    (one.folder / one.name.replace(str(os.getpid()), "4711").replace(".sock", ".dead")).touch()
    assert [*one.others().values()] == [False]
    later = one._clock.time() + 61.0
    monkeypatch.setattr(one._clock, "time", lambda: later)
    assert one.others() == {}
    assert [each.name for each in one.folder.iterdir()] == [one.name]


def test_a_folder_that_is_not_there_has_nobody_in_it(tmp_path):
    """Nor is anybody asked there."""
    exchange = Exchange(tmp_path / "none", service="g", answer=int, clock=SystemClock(), listeners=Listeners())
    assert exchange.others() == {}
    with pytest.raises(Gone, match="left"):
        exchange.ask("x.sock", {}, 1.0)


def test_who_has_no_room_left_does_not_answer(make, monkeypatch):
    """Its backlog is full; anything else is said as the system says it."""
    one, _ = make(), make()
    name = only(one)

    class Full(socket.socket):
        refuses: OSError = BlockingIOError(11, "x")

        def connect(self, address):
            raise self.refuses

    monkeypatch.setattr(socket, "socket", Full)
    with pytest.raises(Unanswered, match="it does not answer"):
        one.ask(name, {}, 1.0)
    Full.refuses = PermissionError(13, "Permission denied")
    with pytest.raises(Unanswered, match="Permission denied"):
        one.ask(name, {}, 1.0)


def test_what_is_too_large_to_be_taken_is_not_sent(make, monkeypatch):
    """Whoever asked hears that it broke off, and not half of it."""
    one, _ = make(), make(lambda asked: "x" * 1_000)
    monkeypatch.setattr(module, "_LARGEST_ANSWER", 500)
    with pytest.raises(Unanswered, match="it broke off"):
        one.ask(only(one), {}, 5.0)


def test_patience_ends_between_two_pieces():
    """A clock that has passed the end is late, whatever the socket would allow."""
    with pytest.raises(TimeoutError, match="too long"):
        module._left(5.0, ManualClock(monotonic=5.0))
