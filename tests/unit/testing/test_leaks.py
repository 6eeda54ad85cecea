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
from somaresil.chaos.network.board import BOARD
from somaresil.chaos.network.wires import WIRES
from somaresil.testing import LeakDetector, allow_chaos, leaks, no_leaks

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


# -- what the interpreter tells: in its own words, asked by hand --------------------------------------------------------------------------


@pytest.fixture
def unconnected():
    with closing(_socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as sock:
        yield sock


def test_a_connect_that_the_interpreter_tells_of_is_noted_once_by_whoever_looks_on(process, port, unconnected):
    with LeakDetector(process) as one, LeakDetector(process) as other, cut(process, port):
        for _ in range(2):
            leaks._heard("socket.connect", (unconnected, ("127.0.0.1", port)))
    assert one.leaks == other.leaks == (leaks.Leak(f"net:127.0.0.1:{port}", "127.0.0.1", port, "connect"),)


def test_a_connect_by_name_is_a_leak_when_the_name_is_cut_off(process, port, unconnected):
    run = process.chaos.arm(ChaosConfig(ChaosExperiment.NETWORK_PARTITION, f"net:localhost:{port}", 1.0))
    with LeakDetector(process) as detector:
        leaks._heard("socket.connect", (unconnected, ("localhost", port)))
        run.end()
    assert [(leak.host, leak.seen) for leak in detector.leaks] == [("localhost", "connect")]


@pytest.mark.parametrize(
    ("event", "address"),
    [
        ("socket.bind", ("127.0.0.1", "port")),
        ("socket.connect", "/run/socket"),
        ("socket.connect", ("127.0.0.1",)),
        ("socket.connect", ("192.0.2.1", "port")),
        ("socket.connect", ("127.0.0.1", "no port")),
    ],
)
def test_other_events_and_places_are_no_leaks_and_nothing_is_raised(process, port, unconnected, event, address):
    if isinstance(address, tuple):
        address = tuple(port if part == "port" else part for part in address)
    with LeakDetector(process) as detector, cut(process, port):
        leaks._heard(event, (unconnected, address))
    assert detector.leaks == ()


def test_whoever_is_led_into_the_sink_has_not_gone_past(process, port, unconnected):
    run = process.chaos.arm(ChaosConfig(ChaosExperiment.NETWORK_PARTITION, "net:127.0.0.1", 1.0, mode="blackhole"))
    sink = BOARD.cuts[0].sink.place4()
    with LeakDetector(process) as detector:
        leaks._heard("socket.connect", (unconnected, sink))
        run.end()
    assert detector.leaks == ()


def test_nothing_is_heard_when_nobody_looks_or_nothing_is_cut_off(process, port, unconnected):
    detector = LeakDetector(process)
    with cut(process, port):
        leaks._heard("socket.connect", (unconnected, ("127.0.0.1", port)))
    with detector:
        leaks._heard("socket.connect", (unconnected, ("127.0.0.1", port)))
    assert detector.leaks == ()


def test_no_more_leaks_are_kept_than_the_most(process, port, unconnected, monkeypatch):
    monkeypatch.setattr(leaks, "_MOST", 1)
    with LeakDetector(process) as detector, cut(process, port):
        detector.note(BOARD.cuts[0], "192.0.2.1", 1)
        detector.note(BOARD.cuts[0], "192.0.2.1", 2)
    assert [leak.port for leak in detector.leaks] == [1]


def test_where_connections_cannot_be_found_a_look_finds_none(process, port, monkeypatch):
    monkeypatch.setattr(WIRES, "look", lambda *_, **__: None)
    with socket.create_connection(("127.0.0.1", port)), cut(process, port):
        monkeypatch.setattr(sockets, "unavailable", lambda: "no /proc here")
        detector = LeakDetector(process)
        detector.look()
    assert detector.leaks == ()
