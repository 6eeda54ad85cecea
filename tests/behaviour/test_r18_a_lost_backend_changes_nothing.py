"""R18: with a shared backend down, at the start or later, local state decides, the log is not flooded, and no call waits.

pybreaker's Redis storage counts nothing then and never trips, writes a traceback a call, and each call pays the timeout of the socket; a
Redis that is down at the start raises.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from contextlib import closing

import pytest

from somaresil import CircuitOpen, Resilience
from somaresil.events import SharedStateLost
from somaresil.model.breaker import Trigger
from tests.behaviour.kit import PATIENCE, Boom, Stand, one_strike
from tests.integration.servers import HOST, Redis, find_redis, free_port

pytest.importorskip("redis")
from somaresil.integrations.redis import share


def stand() -> Stand:
    """Three probes decide, so that it matters how many there are."""
    return Stand(breaker=one_strike(half_open_calls=3))


def life(one: Stand) -> list[str]:
    """A circuit opens, rejects, probes, closes, and opens again: its state at each point, and what callers got."""
    told = []

    def note(result: object) -> None:
        told.append(f"{one.state} {result if isinstance(result, str) else type(result).__name__}")

    def call(good: bool) -> None:
        try:
            note(one.succeed() if good else one.fail())
        except Exception as error:
            note(error)

    for good in (True, False, True, False):
        call(good)
    one.clock.advance(30.0)
    for good in (True, True, True, True, False, True):
        call(good)
    one.clock.advance(30.0)
    for good in (True, False, True):
        call(good)
    return told


class Refusing:
    """A server that ends each connection as soon as it has begun."""

    def __init__(self) -> None:
        self._listening = socket.create_server((HOST, 0))
        self.url = f"redis://{HOST}:{self._listening.getsockname()[1]}"
        self.tries = 0
        self.enough = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                self._listening.accept()[0].close()
                self.tries += 1
                if self.tries >= 3:
                    self.enough.set()
        except OSError:
            return

    def close(self) -> None:
        self._listening.close()


def test_r18_local_state_decides_while_the_backend_is_down_at_the_start():
    """Every decision is the one that would have been taken without any backend, before and after it is known to be down."""
    expected = life(stand())
    assert {line.split()[0] for line in expected} == {"closed", "open", "half_open"}
    one, lost = stand(), threading.Event()
    one.resilience.on(lambda _: lost.set(), SharedStateLost)
    with share(one.resilience, f"redis://{HOST}:{free_port()}") as handle:
        assert life(one) == expected
        assert lost.wait(PATIENCE)
        one.breaker.control(Trigger.RESET)
        assert life(one) == expected
        assert not handle.connected
        assert not handle.wait(0)


def test_r18_the_log_says_once_that_it_is_lost(caplog):
    """However often the thread tries, however many calls there are; and there is one event."""
    one = stand()
    lost = []
    one.resilience.on(lost.append, SharedStateLost)
    with caplog.at_level(logging.DEBUG, "somaresil"), closing(Refusing()) as server, share(one.resilience, server.url):
        assert server.enough.wait(PATIENCE)
        life(one)
        assert server.enough.wait(PATIENCE)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.records[0].getMessage().startswith(f"shared state at {server.url} cannot be reached (")
    assert [event.backend for event in lost] == [server.url]


class Silent(Refusing):
    """A server that takes each connection and never says a word."""

    def _accept(self) -> None:
        self.taken = []
        try:
            while True:
                self.taken.append(self._listening.accept()[0])
                self.enough.set()
        except OSError:
            return

    def close(self) -> None:
        super().close()
        for connection in self.taken:
            connection.close()


def test_r18_the_event_loop_is_not_blocked(monkeypatch):
    """While the backend hangs, only the thread that talks to it touches a socket; tasks call, trip and reset all the while."""
    touched: set[str] = set()
    for name in ("connect", "sendall", "send", "recv", "recv_into"):
        real = getattr(socket.socket, name)

        def watched(self, *args, _real=real, **kwargs):
            touched.add(threading.current_thread().name)
            return _real(self, *args, **kwargs)

        monkeypatch.setattr(socket.socket, name, watched)
    one, lost = stand(), threading.Event()
    one.resilience.on(lambda _: lost.set(), SharedStateLost)

    @one.guard
    async def dependency(error: type[Exception] | None) -> str:
        await asyncio.sleep(0)
        if error is not None:
            raise error
        return "fine"

    async def tasks() -> None:
        for error in (None, Boom, None):
            await asyncio.gather(*(dependency(error) for _ in range(5)), return_exceptions=True)
        one.resilience.breaker("dependency").trip(1.0)
        one.clock.advance(1.0)
        await asyncio.gather(*(dependency(None) for _ in range(5)), return_exceptions=True)

    with closing(Silent()) as server, share(one.resilience, f"{server.url}?socket_timeout=0.3"):
        assert server.enough.wait(PATIENCE)
        asyncio.run(tasks())
        assert one.state == "closed"
        assert lost.wait(PATIENCE)
        asyncio.run(tasks())
        assert one.state == "closed"
    assert touched == {"somaresil-redis"}


@pytest.mark.server
@pytest.mark.parametrize("state", ["closed", "open", "half_open"])
def test_r18_local_state_decides_when_the_backend_is_lost_later(tmp_path, state):
    """In whatever state it is lost: three probes by the process's own rule close the circuit."""
    binary = find_redis()
    if binary is None:
        pytest.skip("redis-server is not installed: `apt-get install redis-server`, or run `nox -s tests` as root")
    resilience, lost = Resilience("tests"), threading.Event()
    guard = resilience.guard("dependency", breaker=one_strike(half_open_calls=3, open_duration=0.05))
    resilience.on(lambda _: lost.set(), SharedStateLost)
    breaker = resilience.breaker("dependency")
    with Redis(folder=tmp_path, binary=binary) as server, share(resilience, server.url) as handle:
        assert handle.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        if state == "open":
            breaker.trip(0.3)
        while breaker.state != state:
            # Again, when the machine was too slow to tell Redis in time: then nobody half-opens it until somebody calls.
            breaker.trip(0.1)
            again = time.monotonic() + 1.0
            while breaker.state != state and time.monotonic() < again:
                time.sleep(0.001)
            assert time.monotonic() < deadline
        server.kill()
        assert lost.wait(PATIENCE)
        if state == "closed":
            with pytest.raises(ZeroDivisionError):
                guard.call(lambda: 1 / 0)
            assert breaker.state == "open"
        through = 0
        while breaker.state != "closed":
            assert time.monotonic() < deadline
            try:
                guard.call(int)
            except CircuitOpen:
                time.sleep(0.001)
            else:
                through += 1
        assert through == 3
