"""The leak detector sees what goes past a partition, and nothing else."""

from __future__ import annotations

import _socket
import ctypes
import socket
import struct
from contextlib import closing, contextmanager

import pytest

from somaresil import ChaosConfig, ChaosExperiment, ConfigurationError, Resilience
from somaresil.chaos.network import sockets
from somaresil.chaos.network.wires import WIRES
from somaresil.testing import LeakDetector, allow_chaos, no_leaks

pytestmark = pytest.mark.skipif(bool(sockets.unavailable()), reason=sockets.unavailable() or "-")


@pytest.fixture
def process():
    resilience = Resilience("tests", environment="test")
    with allow_chaos(resilience):
        yield resilience


@pytest.fixture
def port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        yield listener.getsockname()[1]


def go_round(port):
    """Connect past the patched method."""
    unseen = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    _socket.socket.connect(unseen, ("127.0.0.1", port))
    return unseen


@contextmanager
def cut(resilience, port, mode="refuse", rate=1.0):
    run = resilience.chaos.arm(ChaosConfig(ChaosExperiment.NETWORK_PARTITION, f"net:127.0.0.1:{port}", rate, mode=mode))
    try:
        yield run
    finally:
        run.end()


@pytest.mark.parametrize("mode", ["refuse", "blackhole"])
def test_it_is_silent_where_the_partition_holds(process, port, mode):
    with no_leaks(process), cut(process, port, mode), pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=0.05)


def test_a_planted_leak_is_caught(process, port):
    """A connect that goes round the patched method, as an extension in C may do."""
    said = rf"127\.0\.0\.1:{port} past net:127\.0\.0\.1:{port} \(connect\)"
    with pytest.raises(AssertionError, match=said), no_leaks(process), cut(process, port):
        go_round(port).close()


def test_what_the_partition_finds_open_is_a_leak(process, port):
    """The interpreter is silent about what C libraries do."""
    place = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), socket.inet_aton("127.0.0.1"))
    with LeakDetector(process) as detector, cut(process, port), socket.socket() as unseen:
        assert ctypes.CDLL(None).connect(unseen.fileno(), place, len(place)) == 0
        unseen.settimeout(20)
        with pytest.raises(ConnectionResetError):
            unseen.recv(1)
    assert [leak.seen for leak in detector.leaks] == ["opened"]


def test_what_is_open_at_a_look_is_a_leak(process, port, monkeypatch):
    monkeypatch.setattr(WIRES, "look", lambda *_, **__: None)
    with socket.create_connection(("127.0.0.1", port)), cut(process, port), LeakDetector(process) as detector:
        pass
    assert [leak.seen for leak in detector.leaks] == ["open"]


def test_partitions_of_a_share_and_of_others_are_not_looked_at(process, port):
    with no_leaks(process), cut(process, port, rate=0.0), socket.create_connection(("127.0.0.1", port)):
        pass
    other = Resilience("other", environment="test")
    with LeakDetector(other) as detector, cut(process, port):
        go_round(port).close()
    assert detector.leaks == ()


def test_an_error_in_the_block_is_not_hidden(process, port):
    with pytest.raises(ZeroDivisionError), no_leaks(process), cut(process, port), closing(go_round(port)):
        raise ZeroDivisionError


def test_it_needs_a_resilience():
    with pytest.raises(ConfigurationError, match="resilience"):
        LeakDetector(None)
