"""Partitions where this machine alone does not lead: filters of the kernel, loops that make their own sockets, and what goes wrong."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from ipaddress import ip_address
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from somaresil import ConfigurationError
from somaresil.chaos.network import filters, hooks, probes, sockets, wires
from somaresil.chaos.network.board import BOARD
from somaresil.chaos.network.names import NAMES
from somaresil.chaos.network.sink import Sink
from somaresil.chaos.network.wires import WIRES
from somaresil.events import DefectFound
from tests.unit.chaos.test_partition import Place, cut, nothing_is_left, place

if TYPE_CHECKING:
    from tests.unit.chaos.kit import Stand

__all__ = ["nothing_is_left", "place"]

pytestmark = pytest.mark.skipif(bool(sockets.unavailable()), reason=sockets.unavailable() or "-")


def inode(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


class Kernel:
    """One that takes filters: which socket, by inode, loses how much."""

    def __init__(self) -> None:
        self.loses: dict[int, float] = {}

    def attach(self, fd: int, loss: float) -> None:
        self.loses[os.fstat(fd).st_ino] = loss

    def detach(self, fd: int) -> None:
        self.loses.pop(os.fstat(fd).st_ino, None)

    def has_filter(self, fd: int) -> bool:
        return os.fstat(fd).st_ino in self.loses


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    for name in ("attach", "detach", "has_filter"):
        monkeypatch.setattr(filters, name, getattr(made, name))
    monkeypatch.setattr(filters, "unavailable", lambda: "")
    return made


# -- filters --------------------------------------------------------------------------------------------------------------------------


def test_the_greater_loss_holds_and_the_smaller_comes_back_when_it_ends(stand: Stand, place: Place, kernel: Kernel) -> None:
    client, _ = place.pair()
    some = cut(stand, place, "loss", loss=0.25)
    assert kernel.loses == {inode(client): 0.25}
    everything = cut(stand, place, "drop")
    assert kernel.loses == {inode(client): 1.0}
    everything.end()
    assert kernel.loses == {inode(client): 0.25}
    some.end()
    assert kernel.loses == {}


def test_a_new_connection_is_lossy_before_it_is_made(stand: Stand, place: Place, kernel: Kernel) -> None:
    run = cut(stand, place, "loss", loss=0.5)
    client = place.connect()
    assert kernel.loses == {inode(client): 0.5}
    assert run.injected == 1
    run.end()
    assert kernel.loses == {}


def test_where_somebody_elses_filter_is_none_of_ours_is_put_or_taken(stand: Stand, place: Place, kernel: Kernel) -> None:
    client, _ = place.pair()
    kernel.loses[inode(client)] = 0.125
    run = cut(stand, place, "drop")
    assert kernel.loses == {inode(client): 0.125}
    run.end()
    assert kernel.loses == {inode(client): 0.125}


def test_in_a_fork_the_end_leaves_the_filters_to_the_parent(stand: Stand, place: Place, kernel: Kernel) -> None:
    client, _ = place.pair()
    run = cut(stand, place, "drop")
    thread = WIRES._thread
    assert thread is not None
    BOARD.cuts[0].pid = -1
    run.end()
    assert kernel.loses == {inode(client): 1.0}
    assert WIRES._thread is None
    thread.join(20)


def test_a_lossy_connection_goes_past_nothing(stand: Stand, place: Place, kernel: Kernel) -> None:
    client, _ = place.pair()
    run = cut(stand, place, "drop")
    there = [ip_address("127.0.0.1")]
    assert kernel.loses
    assert WIRES.passes(there, (), place.port, inode(client)) is None
    assert WIRES.passes(there, (), place.port, 0) is BOARD.cuts[0]
    assert WIRES.passes(there, (), place.port + 1, 0) is None
    run.end()


def test_a_filter_is_a_program_of_the_kernel_and_its_refusal_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {26: 0, 27: 2}

    class Libc:
        def setsockopt(self, fd: int, level: int, option: int, *_: Any) -> int:
            monkeypatch.setattr(filters.ctypes, "get_errno", lambda: answers[option])
            return -1 if answers[option] else 0

    monkeypatch.setattr(filters, "_libc", Libc)
    # That there is none to take away is no error.
    assert filters.unavailable() == ""
    answers[26] = 1
    assert "without CAP_NET_ADMIN" in filters.unavailable()
    answers[26] = 22
    assert filters.unavailable() == "the kernel takes no socket filter: [Errno 22] Invalid argument"


def test_without_a_socket_there_is_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> Any:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(filters, "_socket", SimpleNamespace(socket=none))
        said = filters.unavailable()
    assert said == "[Errno 24] Too many open files"


# -- what works here ------------------------------------------------------------------------------------------------------------------


def test_a_mode_works_where_what_it_needs_is_there(monkeypatch: pytest.MonkeyPatch, kernel: Kernel) -> None:
    assert all(probes.probe_mode(mode) for mode in ("refuse", "reset", "blackhole", "drop", "loss"))
    monkeypatch.setattr(Sink, "_see_that_it_is_full", _never_full)
    found = probes.probe_mode("blackhole")
    assert (found.available, found.reason) == (False, "the queue is never full")
    unknown = probes.probe_mode("melt")
    assert (unknown.available, unknown.reason) == (False, "no such mode")


def test_on_windows_the_loop_that_goes_past_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes.sys, "platform", "win32")
    found = probes.probe_mode("refuse")
    assert found.available
    assert found.reason == "connections that exist are not ended: win32 has no /proc/self/fd; the proactor loop of asyncio connects past it"


def _never_full(_: Sink) -> None:
    raise OSError("the queue is never full")


def test_a_sink_that_lets_somebody_in_is_not_used_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = Sink._knock

    def knock(self: Sink, family: int, host: str, port: int) -> Any:
        made.append(real(self, family, host, port))
        return made[-1]

    monkeypatch.setattr(Sink, "_knock", knock)
    monkeypatch.setattr("somaresil.chaos.network.sink.select.poll", Ready)
    with pytest.raises(OSError, match="does not keep connections out"):
        Sink()
    assert made
    assert all(each.fileno() == -1 for each in made)


class Ready:
    """Somebody was let in."""

    def register(self, *_: Any) -> None:
        pass

    def poll(self, _: float) -> list[Any]:
        return [object()]


def test_a_socket_of_ipv6_is_led_to_the_sink_by_its_mapped_address_where_there_is_no_loopback_for_it() -> None:
    sink = Sink()
    try:
        sink._places.pop(socket.AF_INET6, None)
        assert sink.place(SimpleNamespace(family=socket.AF_INET6)) == ("::ffff:127.0.0.1", sink.place4()[1])  # type: ignore[arg-type]
    finally:
        sink.close()


# -- a loop that makes its own sockets --------------------------------------------------------------------------------------------------


class Loop:
    """As uvloop is asked: names, and a connect of its own."""

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.sock: Any = None

    async def getaddrinfo(self, host: Any, port: int, **options: Any) -> Any:
        return socket.getaddrinfo(host, port, family=socket.AF_INET, **options)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        self.sock = sock
        if self.fails:
            raise OSError("unreachable")
        sock.connect_ex(address)


class Previous:
    """The ``create_connection`` below ours: what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def __call__(self, loop: Any, factory: Any, host: Any, port: Any, **options: Any) -> Any:
        self.asked.append((host, port, options))
        return (None, None)


def connect(previous: Previous, host: Any, port: Any, loop: Loop | None = None, **options: Any) -> Any:
    return asyncio.run(WIRES._through_uvloop(previous, loop or Loop(), None, host, port, options))


def test_a_loop_of_its_own_is_refused_by_the_addresses_of_the_name_it_asks_for(stand: Stand, place: Place) -> None:
    run = cut(stand, place, target=f"net:127.0.0.0/8:{place.port}")
    previous = Previous()
    for host in ("localhost", b"localhost", "127.0.0.1"):
        with pytest.raises(ConnectionRefusedError):
            connect(previous, host, place.port)
    assert previous.asked == []
    assert run.injected == 3
    run.end()


def test_what_is_no_place_is_left_to_the_loop_to_refuse(stand: Stand, place: Place) -> None:
    run = cut(stand, place)
    previous = Previous()
    connect(previous, None, None, sock="theirs")
    connect(previous, "127.0.0.1", "http")
    assert previous.asked == [(None, None, {"sock": "theirs"}), ("127.0.0.1", "http", {})]
    run.end()


def test_a_defect_lets_a_loop_of_its_own_through(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cut(stand, place)
    monkeypatch.setattr(WIRES, "_meet_by_name", lambda *_: 1 / 0)
    previous = Previous()
    connect(previous, "127.0.0.1", place.port)
    assert previous.asked == [("127.0.0.1", place.port, {})]
    assert "ZeroDivisionError" in stand.told(DefectFound)[0].error
    run.end()


def test_in_a_blackhole_a_certificate_is_still_compared_with_the_host_that_was_meant(stand: Stand, place: Place) -> None:
    run = cut(stand, place, "blackhole")
    previous = Previous()
    connect(previous, "127.0.0.1", place.port, ssl=True, family=socket.AF_INET6)
    assert previous.asked == [(*BOARD.cuts[0].sink.place4(), {"ssl": True, "server_hostname": "127.0.0.1"})]  # type: ignore[union-attr]
    run.end()


def test_a_lossy_socket_has_its_filter_before_the_loop_gets_it_and_is_asked_about_once(stand: Stand, place: Place, kernel: Kernel) -> None:
    run = cut(stand, place, "loss", loss=0.5)
    previous = Previous()
    connect(previous, "127.0.0.1", place.port, family=socket.AF_INET, ssl=True)
    ((host, port, options),) = previous.asked
    sock = place.stack.enter_context(options.pop("sock"))
    assert (host, port, options) == (None, None, {"ssl": True, "server_hostname": "127.0.0.1"})
    assert kernel.loses == {inode(sock): 0.5}
    assert run.injected == 1
    run.end()


def test_a_lossy_socket_that_does_not_connect_is_closed(stand: Stand, place: Place, kernel: Kernel) -> None:
    run = cut(stand, place, "drop")
    loop = Loop(fails=True)
    with pytest.raises(OSError, match="unreachable"):
        connect(Previous(), "127.0.0.1", place.port, loop)
    assert loop.sock.fileno() == -1
    run.end()


# -- names and addresses ----------------------------------------------------------------------------------------------------------------


def test_a_name_given_to_connect_is_struck_by_its_addresses_when_a_network_is_cut_off(stand: Stand, place: Place) -> None:
    run = cut(stand, place, target=f"net:127.0.0.0/8:{place.port}")
    trial = place.stack.enter_context(socket.socket())
    with pytest.raises(ConnectionRefusedError):
        trial.connect(("localhost", place.port))
    run.end()


def test_an_address_is_ours_when_something_can_be_bound_to_it() -> None:
    assert wires._is_ours(ip_address("127.0.0.1"))
    assert wires._is_ours(ip_address("0.0.0.0"))
    assert not wires._is_ours(ip_address("192.0.2.1"))


# -- what goes wrong --------------------------------------------------------------------------------------------------------------------


def test_a_sink_is_closed_when_the_hook_does_not_fire(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []
    monkeypatch.setattr(hooks.Patch, "fires", lambda self: False)
    monkeypatch.setattr(Sink, "close", lambda self, close=Sink.close: (closed.append(True), close(self)))
    with pytest.raises(hooks.HookLostError, match="connect"):
        cut(stand, place, "blackhole")
    # Once for the trial of the mode, once for the partition.
    assert len(closed) == 2


def test_a_partition_that_cannot_look_leaves_nothing_behind(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise OSError("no more threads")

    monkeypatch.setattr(WIRES, "_start_looking", broken)
    with pytest.raises(OSError, match="no more threads"):
        cut(stand, place)
    assert BOARD.cuts == ()
    place.connect()


def test_a_partition_that_has_ended_cannot_be_ended_again_at_the_cost_of_another(stand: Stand, place: Place) -> None:
    first, second = (cut(stand, place, target=f"net:localhost:{place.port}") for _ in range(2))
    ended = BOARD.cuts[0]
    first.end()
    WIRES.remove(ended)
    assert [each.run for each in BOARD.cuts] == [second]
    assert socket.getaddrinfo.__module__.startswith("somaresil")
    second.end()


def test_a_defect_in_the_look_for_a_name_is_told_and_nobody_waits_for_it(
    stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WIRES, "_start_looking", lambda: None)
    run = cut(stand, place, target=f"net:localhost:{place.port}")
    armed = BOARD.cuts[0]
    looked: list[Any] = []
    monkeypatch.setattr(WIRES, "look", lambda cuts: looked.append(cuts) or 1 / 0)
    known = threading.Event()
    WIRES._look_up(armed, "localhost", known)
    assert known.is_set()
    assert [event.where for event in stand.told(DefectFound)] == ["network partition, connections of its name"]
    run.end()
    known.clear()
    # What has ended strikes nothing any more.
    WIRES._look_up(armed, "localhost", known)
    assert known.is_set()
    assert len(looked) == 1


class Once:
    """A stop that comes after one look."""

    def __init__(self) -> None:
        self.looks = 0

    def wait(self, _: float) -> bool:
        self.looks += 1
        return self.looks > 1


def test_a_hook_that_is_lost_for_good_fails_the_experiment(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> None:
        raise hooks.HookLostError("connect is somebody else's")

    monkeypatch.setattr(WIRES, "_start_looking", lambda: None)
    run = cut(stand, place)
    monkeypatch.setattr(WIRES, "_check_hooks", lost)
    WIRES._look_again(Once())  # type: ignore[arg-type]
    assert run.end_reason == "failed"
    assert [event.where for event in stand.told(DefectFound)] == ["network partition, its hook"]


def test_one_bad_look_is_told_and_the_experiment_goes_on(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WIRES, "_start_looking", lambda: None)
    run = cut(stand, place)
    monkeypatch.setattr(WIRES, "look", lambda *_, **__: 1 / 0)
    WIRES._look_again(Once())  # type: ignore[arg-type]
    assert run.live
    assert [event.where for event in stand.told(DefectFound)] == ["network partition, connections that exist"]
    run.end()


def test_a_connection_that_is_gone_is_not_struck_nor_is_whoever_has_its_number(stand: Stand, place: Place) -> None:
    run = cut(stand, place)
    other = Place()
    place.stack.enter_context(other.stack)
    client, server = other.pair()
    there = next(each for each in sockets.connections() if each.inode == inode(client))
    for gone in (there._replace(fd=1 << 20), there._replace(inode=there.inode + 1)):
        with sockets.held(gone) as fd:
            assert fd is None
        with sockets.held_inode(gone.fd, gone.inode) as fd:
            assert fd is None
        WIRES._strike(gone, BOARD.cuts[0], late=True)
    assert run.injected == 0
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    run.end()


def test_a_descriptor_that_is_closed_while_they_are_listed_is_passed_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [str(fd) for fd, _ in sockets.inodes()]
    assert listed
    monkeypatch.setattr(sockets.os, "listdir", lambda _: [*listed, str(1 << 20)])
    assert [str(fd) for fd, _ in sockets.inodes()] == listed


def test_sockets_of_the_file_system_are_no_connections() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert inode(one) not in {each.inode for each in sockets.connections()}


def test_a_target_that_names_no_host_is_refused_and_says_so(stand: Stand, place: Place) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        cut(stand, place, target="net:")
    (problem,) = wrong.value.problems
    assert (problem.path, problem.value) == ("chaos.target_component", "net:")
    assert "it names no host" in str(wrong.value)
    assert BOARD.cuts == ()


def test_without_a_list_of_descriptors_no_connections_can_be_found_and_the_reason_is_that_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def closed(_: str) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(sockets, "os", SimpleNamespace(listdir=closed))
        said = sockets.unavailable()
    assert said == "[Errno 13] Permission denied"


def test_names_that_are_remembered_are_learnt_by_every_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = hooks.Lookups()
    monkeypatch.setattr(hooks, "LOOKUPS", lookups)
    hooks.remember_names()
    try:
        socket.getaddrinfo("localhost", 80, family=socket.AF_INET)
        assert "localhost" in NAMES.of(ip_address("127.0.0.1"))
        kept = socket.getaddrinfo
    finally:
        lookups.release()
    # Ours learns nothing when it is over, whoever has kept it.
    assert kept("localhost", 80, socket.AF_INET)
    assert len(NAMES) == 0


def test_connect_ex_is_as_it_was_for_whoever_has_kept_ours(stand: Stand, place: Place) -> None:
    run = cut(stand, place)
    kept = hooks.socket_class().connect_ex
    trial = place.stack.enter_context(socket.socket())
    assert kept(trial, ("127.0.0.1", place.port)) != 0
    run.end()
    assert kept(trial, ("127.0.0.1", place.port)) == 0
