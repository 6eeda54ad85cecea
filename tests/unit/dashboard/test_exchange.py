"""Processes that ask each other through a folder: who may, what they say, and what becomes of those that are gone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import struct
import threading
import time
from contextlib import suppress

import pytest

from somaresil.clock import SystemClock
from somaresil.config import Checker
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
