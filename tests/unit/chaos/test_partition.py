"""A part of the network is gone while its lease runs, and everything is as before when it is over."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import socket
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from somaresil import ChaosConfig, ChaosExperiment, ChaosPlan, ConfigurationError, FaultWindow
from somaresil.chaos.capabilities import Capability
from somaresil.chaos.network import filters, hooks, probes, sockets, verdict
from somaresil.chaos.network.board import BOARD
from somaresil.chaos.network.names import NAMES
from somaresil.chaos.network.seam import Blackhole, Refuse
from somaresil.chaos.network.wires import WIRES
from somaresil.events import FaultInjected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.chaos.kit import Stand

PARTITION = ChaosExperiment.NETWORK_PARTITION
pytestmark = pytest.mark.skipif(bool(sockets.unavailable()), reason=sockets.unavailable() or "-")
kernel = pytest.mark.skipif(bool(filters.unavailable()), reason=filters.unavailable() or "-")


class Place:
    """A listener on loopback, and connections to it."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.listener = self.stack.enter_context(socket.socket())
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(64)
        self.port: int = self.listener.getsockname()[1]
        self.target = f"net:127.0.0.1:{self.port}"

    def connect(self, timeout: float = 5.0, host: str = "127.0.0.1") -> socket.socket:
        return self.stack.enter_context(socket.create_connection((host, self.port), timeout=timeout))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        client = self.connect()
        server, _ = self.listener.accept()
        self.stack.enter_context(server)
        return client, server


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    with made.stack:
        yield made


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Nothing is patched, armed, learnt or open after any test."""
    before = (vars(hooks.socket_class()).get("connect"), vars(hooks.socket_class()).get("connect_ex"), socket.getaddrinfo)
    yield
    assert (vars(hooks.socket_class()).get("connect"), vars(hooks.socket_class()).get("connect_ex"), socket.getaddrinfo) == before
    assert (BOARD.cuts, WIRES._lost, len(NAMES)) == ((), {}, 0)


def cut(stand: Stand, place: Place, mode: str | None = None, rate: float = 1.0, target: str = "", **options: Any) -> Any:
    return stand.arm(PARTITION, target or place.target, rate, mode=mode, **options)


def test_refused_is_what_the_kernel_would_have_said_and_heals(stand: Stand, place: Place) -> None:
    run = cut(stand, place)
    with pytest.raises(ConnectionRefusedError) as refused:
        place.connect()
    assert refused.value.errno == errno.ECONNREFUSED
    trial = place.stack.enter_context(socket.socket())
    assert trial.connect_ex(("127.0.0.1", place.port)) == errno.ECONNREFUSED
    assert run.injected == len(stand.told(FaultInjected)) == 2
    run.end()
    place.connect()


def test_blackholed_waits_for_the_time_out_of_the_caller(stand: Stand, place: Place) -> None:
    run = cut(stand, place, "blackhole")
    with pytest.raises(TimeoutError):
        place.connect(timeout=0.05)
    run.end()
    place.connect()


def test_what_hangs_in_a_blackhole_is_not_connected_and_not_readable(stand: Stand, place: Place) -> None:
    cut(stand, place, "blackhole")
    trial = place.stack.enter_context(socket.socket())
    trial.setblocking(False)
    assert trial.connect_ex(("127.0.0.1", place.port)) == errno.EINPROGRESS
    assert select.select([trial], [trial], [], 0.05) == ([], [], [])
    stand.chaos.stop_all()


@pytest.mark.parametrize("mode", ["refuse", "blackhole", "reset"])
def test_connections_that_exist_are_reset_on_both_sides(stand: Stand, place: Place, mode: str) -> None:
    client, server = place.pair()
    run = cut(stand, place, mode)
    for side in (client, server):
        side.settimeout(5)
        with pytest.raises(ConnectionResetError):
            side.recv(1)
    assert run.injected == 1
    run.end()


def test_connections_to_other_places_are_left_alone(stand: Stand, place: Place) -> None:
    other = Place()
    with other.stack:
        client, server = other.pair()
        run = cut(stand, place)
        server.sendall(b"x")
        assert client.recv(1) == b"x"
        other.connect()
        assert run.injected == 0
        run.end()


def test_those_who_have_called_us_are_left_alone(stand: Stand, place: Place) -> None:
    client, server = place.pair()
    port = client.getsockname()[1]
    run = cut(stand, place, target=f"net:127.0.0.1:{port}")
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    run.end()


def test_ports_of_our_own_that_a_target_does_not_name_are_left_alone(stand: Stand, place: Place) -> None:
    client, server = place.pair()
    run = cut(stand, place, target="net:127.0.0.0/8")
    place.connect()
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    run.end()


def test_a_name_is_struck_by_its_addresses_whoever_looks_it_up(stand: Stand, place: Place) -> None:
    client, _ = place.pair()
    run = cut(stand, place, target=f"net:localhost:{place.port}")
    client.settimeout(5)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    for host in ("localhost", "127.0.0.1"):
        with pytest.raises(ConnectionRefusedError):
            place.connect(host=host)
    direct = place.stack.enter_context(socket.socket())
    with pytest.raises(ConnectionRefusedError):
        direct.connect(("localhost", place.port))
    run.end()


def test_a_share_of_the_connections_is_struck_and_the_same_ones_in_every_run(make: Any, place: Place) -> None:
    def refused() -> list[bool]:
        stand = make(seed=11)
        run = cut(stand, place, rate=0.5)
        found = []
        for _ in range(40):
            try:
                place.connect().close()
                found.append(False)
            except ConnectionRefusedError:
                found.append(True)
        run.end()
        return found

    first = refused()
    assert 5 < sum(first) < 35
    assert refused() == first


def test_a_connection_that_was_let_through_is_not_asked_again(stand: Stand, place: Place) -> None:
    run = cut(stand, place, rate=0.0)
    client, server = place.pair()
    WIRES.look(BOARD.cuts)
    assert os.fstat(client.fileno()).st_ino in BOARD.cuts[0].seen
    server.sendall(b"x")
    assert client.recv(1) == b"x"
    run.end()


def test_where_connections_cannot_be_found_nothing_is_noted_about_them(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "unavailable", lambda: "no /proc here")
    run = cut(stand, place, rate=0.0)
    place.connect()
    assert BOARD.cuts[0].seen == set()
    run.end()
    with pytest.raises(ConfigurationError, match="no /proc here"):
        cut(stand, place, "reset")


def test_two_partitions_one_ends_and_the_other_stays(stand: Stand, place: Place) -> None:
    first, second = cut(stand, place), cut(stand, place, "blackhole")
    first.end()
    with pytest.raises(TimeoutError):
        place.connect(timeout=0.05)
    second.end()
    place.connect()


@kernel
def test_dropped_packets_arrive_when_it_heals(stand: Stand, place: Place) -> None:
    client, server = place.pair()
    run = cut(stand, place, "drop")
    server.sendall(b"x")
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(1)
    with pytest.raises(TimeoutError):
        place.connect(timeout=0.05)
    run.end()
    client.settimeout(10)
    assert client.recv(1) == b"x"
    assert not filters.has_filter(client.fileno())


@kernel
def test_the_kernel_loses_the_share_that_it_was_told_and_all_arrives_when_it_is_taken_away() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as writer:
        reader.bind(("127.0.0.1", 0))
        reader.setblocking(False)

        def arrived(of: int) -> int:
            came = 0
            for _ in range(of):
                writer.sendto(b"x", reader.getsockname())
                try:
                    came += len(reader.recv(1))
                except BlockingIOError:
                    continue
            return came

        filters.attach(reader.fileno(), 0.3)
        # Ten standard deviations around seven in ten.
        assert 555 < arrived(1_000) < 845
        filters.detach(reader.fileno())
        assert arrived(200) == 200


@kernel
def test_what_is_said_over_a_lossy_connection_arrives(stand: Stand, place: Place) -> None:
    client, server = place.pair()
    run = cut(stand, place, "loss", loss=0.2)
    server.settimeout(20)
    for _ in range(5):
        client.sendall(b"hello")
        assert server.recv(5, socket.MSG_WAITALL) == b"hello"
    assert run.injected == 1
    run.end()


@kernel
def test_of_two_filters_the_stronger_holds_and_the_weaker_comes_back(stand: Stand, place: Place) -> None:
    client, server = place.pair()
    drop = cut(stand, place, "drop")
    loss = cut(stand, place, "loss", loss=0.01)
    drop.end()
    server.sendall(b"x")
    client.settimeout(10)
    assert client.recv(1) == b"x"
    assert filters.has_filter(client.fileno())
    loss.end()
    assert not filters.has_filter(client.fileno())


@kernel
def test_a_filter_of_somebody_else_is_left_alone(stand: Stand, place: Place) -> None:
    client, _ = place.pair()
    filters.attach(client.fileno(), 0.5)
    run = cut(stand, place, "drop")
    run.end()
    assert filters.has_filter(client.fileno())


def test_a_patch_of_somebody_else_on_top_of_ours_survives(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, seen = hooks.socket_class(), []
    run = cut(stand, place)
    ours = kind.connect

    def theirs(self: Any, address: Any) -> Any:
        seen.append(address)
        return ours(self, address)

    kind.connect = theirs
    try:
        with pytest.raises(ConnectionRefusedError):
            place.connect()
        run.end()
        assert kind.connect is theirs
        place.connect()
        again = cut(stand, place)
        assert kind.connect is theirs
        with pytest.raises(ConnectionRefusedError):
            place.connect()
        again.end()
        assert len([address for address in seen if type(address) is tuple]) == 3
    finally:
        kind.connect = ours
        WIRES._patches[0].remove()


def test_a_hook_that_somebody_takes_away_is_put_in_place_again(stand: Stand, place: Place) -> None:
    run = cut(stand, place)
    del hooks.socket_class().connect
    WIRES._check_hooks()
    with pytest.raises(ConnectionRefusedError):
        place.connect()
    run.end()


def test_a_hook_that_does_not_fire_arms_nothing(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks.Patch, "fires", lambda self: False)
    with pytest.raises(hooks.HookLostError, match="connect"):
        cut(stand, place)
    assert stand.chaos.history[-1].end_reason == "failed"


def test_listeners_may_connect_to_what_is_cut_off(stand: Stand, place: Place) -> None:
    stand.resilience.on(lambda event: place.connect() if isinstance(event, FaultInjected) else None)
    run = cut(stand, place)
    with pytest.raises(ConnectionRefusedError):
        place.connect()
    assert run.injected == 1
    run.end()


def test_a_defect_lets_the_connection_through(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    run = cut(stand, place)
    monkeypatch.setattr(WIRES, "_meet", lambda *_: 1 / 0)
    # Who looks for connections that went past the hooks would find it, and sooner or later reset it.
    monkeypatch.setattr(WIRES, "_judge", lambda *_, **__: set())
    place.connect()
    run.end()


def test_sockets_that_are_no_tcp_pass(stand: Stand, place: Place) -> None:
    run = cut(stand, place)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(("127.0.0.1", place.port))
    assert run.injected == 0
    run.end()


def test_asyncio_is_refused_and_times_out_in_its_own_words(stand: Stand, place: Place) -> None:
    async def opened() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.close()
        await writer.wait_closed()

    run = cut(stand, place)
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(opened())
    run.end()
    run = cut(stand, place, "blackhole")
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(opened(), 0.05))
    run.end()
    asyncio.run(opened())


def test_a_connection_is_news_once_and_a_socket_that_is_not_connected_yet_may_become_news(place: Place) -> None:
    known: set[int] = set()
    sockets.news(known)
    with socket.socket() as later, socket.create_server(("127.0.0.1", 0)) as listener:
        found, ports = sockets.news(known)
        assert (found, ports) == ([], {listener.getsockname()[1]})
        later.connect(("127.0.0.1", place.port))
        found, ports = sockets.news(known)
        assert [each.inode for each in found if each.port == place.port] == [os.fstat(later.fileno()).st_ino]
        assert ports == frozenset()
        assert sockets.news(known) == ([], frozenset())


def test_an_address_that_gets_a_name_later_is_struck_by_it(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WIRES, "_look_up", lambda _cut, _name, known: known.set())
    run = stand.arm(PARTITION, f"net:late.internal:{place.port}", mode="refuse")
    import _socket

    kept = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    _socket.socket.connect(kept, ("127.0.0.1", place.port))
    for _ in range(3):
        WIRES.look(BOARD.cuts, again=True)
    assert run.injected == 0
    NAMES.learn("late.internal", ["127.0.0.1"])
    kept.settimeout(20)
    with pytest.raises(ConnectionResetError):
        kept.recv(1)
    kept.close()
    run.end()


def test_the_looking_thread_ends_with_the_last_partition(stand: Stand, place: Place) -> None:
    run = cut(stand, place)
    thread = WIRES._thread
    assert thread is not None
    run.end()
    thread.join(20)
    assert not thread.is_alive()


def test_a_connection_that_no_hook_saw_is_found_by_looking(stand: Stand, place: Place) -> None:
    run = cut(stand, place)
    import _socket

    unseen = _socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    _socket.socket.connect(unseen, ("127.0.0.1", place.port))
    unseen.settimeout(20)
    with pytest.raises(ConnectionResetError):
        unseen.recv(1)
    unseen.close()
    run.end()


def test_seams_are_told_while_it_lasts(stand: Stand, place: Place) -> None:
    assert verdict("127.0.0.1", place.port) is None
    run = cut(stand, place)
    told = verdict("127.0.0.1", place.port)
    assert isinstance(told, Refuse)
    assert told.error().errno == errno.ECONNREFUSED
    assert verdict("127.0.0.1", place.port + 1 if place.port < 65_535 else 1) is None
    assert verdict("nowhere.invalid", place.port) is None
    run.end()
    run = cut(stand, place, "blackhole", target="net:*.internal")
    assert isinstance(verdict("db.internal", 5432), Blackhole)
    run.end()
    run = cut(stand, place, rate=0.5, target="net:*.internal")
    assert verdict("db.internal", 5432) is None
    assert {type(verdict("db.internal", 5432, unseen=True)) for _ in range(40)} == {Refuse, type(None)}
    run.end()
    assert verdict("db.internal", 5432) is None


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"target": "resource:lamp"}, "target_component"),
        ({"target": "net:10.0.0.0/99"}, "target_component"),
        ({"mode": "cut"}, "mode"),
        ({"mode": "loss"}, "loss"),
        ({"mode": "loss", "loss": 0.0}, "loss"),
        ({"mode": "refuse", "loss": 0.1}, "loss"),
        ({"mode": "blackhole", "max_injections": 3}, "max_injections"),
        ({"calls": (1,)}, "calls"),
        ({"path": "a > b"}, "path"),
        ({"delay_seconds": 1.0}, "delay_seconds"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_path(stand: Stand, place: Place, options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigurationError, match=path):
        cut(stand, place, **options)


def test_what_the_platform_cannot_do_is_refused_with_the_reason(stand: Stand, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes.filters, "unavailable", lambda: "no CAP_NET_ADMIN here")
    can = stand.chaos.capabilities()
    assert can["network_partition.drop"] == Capability(available=False, reason="no CAP_NET_ADMIN here")
    assert can["network_partition.refuse"]
    with pytest.raises(ConfigurationError, match="no CAP_NET_ADMIN here"):
        cut(stand, place, "drop")
    with pytest.raises(TypeError):
        can["network_partition.drop"] = Capability(available=True)


def test_a_window_of_a_plan_cuts_off(stand: Stand, place: Place) -> None:
    plan = ChaosPlan.from_json(ChaosPlan([FaultWindow(place.target, "network_partition", 0.0, 60.0, mode="refuse")]).to_json())
    run = stand.chaos.arm_plan(plan)
    with pytest.raises(ConnectionRefusedError):
        place.connect()
    run.stop()
    place.connect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.parametrize("mode", ["blackhole", pytest.param("drop", marks=kernel)])
def test_a_forked_child_is_free_and_its_parent_still_cut_off(stand: Stand, place: Place, mode: str) -> None:
    client, _ = place.pair()
    run = cut(stand, place, mode)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            place.connect(timeout=5.0)
            os.write(write, f"{len(BOARD.cuts)}".encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "0"
    os.waitpid(pid, 0)
    with pytest.raises(TimeoutError):
        place.connect(timeout=0.05)
    assert filters.has_filter(client.fileno()) is (mode == "drop")
    run.end()


def test_it_may_end_in_any_thread_and_twice(stand: Stand, place: Place) -> None:
    run = cut(stand, place, "blackhole")
    threads = [threading.Thread(target=run.end) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    place.connect()


def test_its_lease_ends_it_by_the_clock_of_the_machine(stand: Stand, place: Place) -> None:
    run = cut(stand, place, duration=0.05)
    gone = threading.Event()
    run.on_end(gone.set)
    assert gone.wait(20)
    place.connect()


def test_the_config_alone_knows_which_options_are_whose() -> None:
    with pytest.raises(ConfigurationError, match="target_component"):
        ChaosConfig(PARTITION, "llm.*", 1.0)
