"""What share() takes and refuses, and what its handle does while there is no Redis."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from datetime import timedelta

import pytest

from somaresil import ConfigurationError, Resilience
from somaresil.events import DefectFound, SharedStateLost

pytest.importorskip("redis")
from somaresil.integrations.redis import _Bell, share
from somaresil.integrations.redis import shown as _shown

PATIENCE = 20.0
NOWHERE = "redis://127.0.0.1:1/0"


def refused(*args, **options):
    with pytest.raises(ConfigurationError) as caught:
        share(*args, **options)
    return caught.value.problems


@pytest.mark.parametrize(
    ("url", "shown", "hint"),
    [
        (None, None, ""),
        (7, 7, ""),
        ("", "", "it has no scheme"),
        ("localhost:6379", "localhost:6379", "it has no scheme"),
        ("reddis://localhost", "reddis://localhost", "did you mean 'redis'?"),
        ("http://:secret@localhost", "http://localhost", ""),
        ("me:secret@localhost", "...", "it has no scheme"),
        ("redis://me:secret@localhost:port/0", "redis://...", "%2F"),
        ("redis://:sec/secret@localhost", "redis://...", ""),
        ("redis://me/secret@localhost", "redis://me/...", "is no number of a database"),
        ("redis://:a?secret@localhost", "redis://...", ""),
        ("redis://me:secret@localhost/first", "redis://localhost/first", "no number of a database"),
        ("redis://localhost?db=first", "redis://localhost", "db"),
        ("redis://localhost?password=secret&colour=red", "redis://localhost", "colour"),
    ],
)
def test_a_url_that_is_none_is_told_with_what_is_allowed_and_no_password(url, shown, hint):
    """Where, what, what else, and nothing that should not be in a log."""
    (problem,) = refused(Resilience("s"), url)
    assert (problem.path, problem.value) == ("share.url", shown)
    assert problem.allowed.startswith("redis://[[user]:password@]host[:port][/database]")
    assert hint in problem.hint
    assert "secret" not in f"{problem.value} {problem.hint}"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost", "redis://localhost"),
        ("rediss://me:secret@cache.example:6380/2?password=secret@secret", "rediss://cache.example:6380/2"),
        ("redis://:secret@[::1]:6380/2", "redis://[::1]:6380/2"),
        ("unix:///run/redis.sock?db=1&password=secret", "unix:///run/redis.sock"),
    ],
)
def test_what_is_told_of_a_url_is_where_it_leads(url, shown):
    """In the log and in events."""
    assert _shown(url) == shown


def test_every_problem_is_told_at_once():
    """With its path."""
    problems = refused("gateway", "nowhere", prefix="a b", quorum=0, poll=0.0, names=["ok", "not ok"])
    assert [problem.path for problem in problems] == [
        f"share.{what}" for what in ("resilience", "url", "prefix", "quorum", "poll", "names")
    ]
    assert [problem.path for problem in refused(Resilience("s"), NOWHERE, names=[])] == ["share.names"]
    assert [problem.path for problem in refused(Resilience("s"), NOWHERE, poll=61)] == ["share.poll"]


def test_a_resilience_is_shared_once_at_a_time():
    """Until the first handle is closed."""
    resilience = Resilience("s")
    with share(resilience, NOWHERE):
        (problem,) = refused(resilience, NOWHERE)
        assert problem.path == "share.resilience"
        assert "close()" in problem.hint
    share(resilience, NOWHERE, poll=timedelta(seconds=2), names=("llm.*", "db"), quorum=3).close()


def test_nothing_is_left_of_a_handle_that_is_closed():
    """Neither its thread nor a file; closing it again does nothing, and bells that ring late ring nowhere."""
    before = {thread.name for thread in threading.enumerate()}
    resilience = Resilience("s")
    guard = resilience.guard("dep", breaker=True)
    handle = share(resilience, NOWHERE)
    assert handle.backend == NOWHERE
    assert "somaresil-redis" in {thread.name for thread in threading.enumerate()}
    pipe = handle._bell._ears, handle._bell._rope
    assert not handle.wait(0.0)
    with pytest.raises(ConfigurationError):
        handle.wait("soon")
    handle.close()
    handle.close()
    assert {thread.name for thread in threading.enumerate()} == before
    assert guard.breaker.coordinator is None
    handle._ring()
    for end in pipe:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(end)


def test_a_listener_may_close_the_handle_from_its_own_thread():
    """It is told there that Redis is lost."""
    resilience, closed = Resilience("s"), threading.Event()

    def close(_event):
        handle.close()
        closed.set()

    ready = threading.Event()
    resilience.on(lambda event: ready.wait(PATIENCE) and close(event), SharedStateLost)
    handle = share(resilience, NOWHERE)
    ready.set()
    assert closed.wait(PATIENCE)
    handle._thread.join(PATIENCE)
    assert not handle._thread.is_alive()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_a_listener_ends_leaves_the_breakers_alone():
    """Whatever it raises."""
    resilience = Resilience("s")
    guard = resilience.guard("dep", breaker=True)

    def leave(_event):
        raise SystemExit

    resilience.on(leave, SharedStateLost)
    with share(resilience, NOWHERE) as handle:
        handle._thread.join(PATIENCE)
        assert not handle._thread.is_alive()
        assert guard.breaker.coordinator is None
        assert guard.call(int) == 0


def test_a_defect_of_ours_is_told_and_local_state_decides(monkeypatch, caplog):
    """Whatever is raised in the thread, it goes on, and so do calls."""
    resilience, told = Resilience("s"), []
    guard = resilience.guard("dep", breaker=True)
    lost = threading.Event()
    resilience.on(told.append, DefectFound)
    resilience.on(lambda _: lost.set(), SharedStateLost)

    def broken(*_args, **_kwargs):
        raise KeyError("no")

    monkeypatch.setattr("somaresil.integrations.redis.RedisStore", broken)
    with caplog.at_level(logging.ERROR, "somaresil"), share(resilience, NOWHERE):
        assert lost.wait(PATIENCE)
        assert guard.call(int) == 0
    assert [(event.where, event.error) for event in told] == [("sharing breakers through Redis", "KeyError")]
    assert len(caplog.records) == 1


def test_a_bell_wakes_who_waits_however_often_it_is_rung():
    """Before the waiting begins, when the pipe is full, or by what is to be read elsewhere; when it is gone it writes to no stranger."""
    bell = _Bell()
    for _ in range(100_000):
        bell.ring()
    bell.wait(PATIENCE)
    here, there = socket.socketpair()
    with here, there:
        there.send(b"!")
        bell.wait(PATIENCE, here)
    bell.close()
    others = os.pipe()
    try:
        assert others == (bell._ears, bell._rope)
        os.set_blocking(others[0], False)
        bell.ring()
        with pytest.raises(BlockingIOError):
            os.read(others[0], 1)
    finally:
        for end in others:
            os.close(end)


def test_importing_the_module_starts_nothing_and_importing_somaresil_imports_no_redis():
    """The library is an extra."""
    code = (
        "import sys, threading, somaresil, somaresil.resilience\n"
        "assert 'redis' not in sys.modules\n"
        "import somaresil.integrations.redis\n"
        "assert threading.active_count() == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
