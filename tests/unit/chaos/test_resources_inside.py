"""Resources where this machine alone does not lead: what runs short, what others take meanwhile, and what cannot be given back."""

from __future__ import annotations

import asyncio
import math
import mmap
import os
import resource
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest

from somaresil import ChaosCeilings, ConfigurationError
from somaresil.chaos.resources import ballast, descriptors, machine, pools
from somaresil.chaos.resources.ballast import DiskSpace, Memory, _Ballast, _mapped
from somaresil.chaos.resources.clientpools import ClientPool
from somaresil.chaos.resources.hold import Hold
from somaresil.chaos.resources.kinds import Ask
from somaresil.chaos.resources.limits import DescriptorPlan
from somaresil.chaos.resources.loops import Companion, Companions
from somaresil.chaos.resources.machine import Disk, Machine
from somaresil.chaos.resources.pools import Connections
from somaresil.chaos.resources.registry import RegisteredPool, Registry
from somaresil.config import Checker
from tests.unit.chaos.test_resources import MIB, Taker, taker, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from somaresil.chaos.effect import Effect

__all__ = ["taker"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how much there is is read from the files of Linux")


class Held(Hold):
    """A hold, and what it said when it was settled."""

    def __init__(self, asked: float) -> None:
        self.said: list[Effect] = []
        super().__init__("resource:test", "pieces", asked, 60.0, settled=self.said.append)


class Piece:
    """Something that is taken."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def ask(rest: str = "", amount: float | None = None) -> Ask:
    return Ask(amount, 1.0, rest, ChaosCeilings(), 0.0, f"resource:test:{rest}", "target_component")


def problems(kind: Any, what: Ask) -> list[tuple[str, str, str]]:
    """What stands in its way: path, what is allowed, and the hint."""
    check = Checker("chaos")
    kind.check(check, what)
    return [(problem.path, problem.allowed, problem.hint) for problem in check.problems]


# -- ballast --------------------------------------------------------------------------------------------------------------------------


class Load:
    """A ballast of pieces of two, filled by hand."""

    def __init__(self, asked: float) -> None:
        self.hold = Held(asked)
        self.ballast = _Ballast(self.hold, 2)
        self.pieces: list[Piece] = []

    def grow(self, _: int, __: int) -> Piece:
        self.pieces.append(Piece())
        return self.pieces[-1]

    def fill(self, room: Callable[[], float], reserve: float | None = None) -> None:
        self.ballast._fill(room, self.grow, reserve)


def test_what_is_left_in_reserve_is_not_taken_and_the_effect_says_why() -> None:
    load = Load(6)
    left = iter([4.0, 2.0, 1.0])
    load.fill(lambda: next(left))
    (effect,) = load.hold.said
    assert (effect.reached, effect.limited) == (4.0, "what is left is kept in reserve")
    load.ballast.release()
    assert [piece.closed for piece in load.pieces] == [1, 1]


def test_a_piece_that_cannot_be_had_ends_the_taking_in_the_words_of_the_system() -> None:
    load = Load(6)

    def full(_: int, __: int) -> Any:
        raise OSError(28, "No space left on device")

    load.ballast._fill(lambda: 10.0, full, None)
    (effect,) = load.hold.said
    assert effect.reached == 0
    assert "No space left on device" in effect.limited


def test_a_piece_that_comes_after_the_end_is_given_back_at_once() -> None:
    load = Load(6)
    load.ballast.release()
    load.fill(lambda: 10.0)
    assert [piece.closed for piece in load.pieces] == [1]
    assert load.hold.said == []
    # A file that grows has no pieces of its own.
    assert not load.ballast._keep(None)


def test_pieces_are_given_back_one_by_one_when_others_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ballast, "_LOOK_EVERY", 0.0)
    load = Load(6)
    left = iter([10.0, 10.0, 10.0, -9.0, -9.0, -4.0])

    def room() -> float:
        found = next(left)
        if found == -4.0:
            load.hold.end()
        return found

    load.fill(room, reserve=10.0)
    assert [piece.closed for piece in load.pieces] == [0, 1, 1]
    effect = load.hold.effect()
    assert (effect.held, effect.reached, effect.limited) == (2.0, 6.0, "part of it was given back, for memory ran short")


def test_what_was_released_has_nothing_to_give_back() -> None:
    assert not Load(6).ballast._give_back()


def test_without_the_flags_of_linux_every_page_is_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ballast, "sys", SimpleNamespace(platform="darwin"))
    piece = _mapped(2 * mmap.PAGESIZE)
    try:
        assert (piece[0], piece[1], piece[mmap.PAGESIZE]) == (1, 0, 1)
    finally:
        piece.close()


class Small(Machine):
    """A machine that does not say what memory it has, and whose disk is in memory."""

    def memory(self) -> Any:
        return None

    def disk(self, folder: str) -> Disk:
        return Disk(1 << 40, 1 << 40, in_memory=True)


def test_a_platform_that_does_not_say_what_is_available_has_no_bounds_for_memory() -> None:
    memory = Memory(Small())
    assert memory.missing() == "this platform does not say how much memory is available"
    assert memory.bounds(1.0, 0.0) == []


def test_a_disk_in_memory_takes_no_more_than_memory_has_left(tmp_path: Path) -> None:
    class InMemory(Machine):
        def disk(self, folder: str) -> Disk:
            return Disk(1 << 60, 1 << 60, in_memory=True)

    here = InMemory()
    disk = DiskSpace(here, Registry())
    most = min(bound.most for bound in disk._bounds(str(tmp_path), math.inf, 0))
    assert most < 1 << 50
    assert DiskSpace(Small(), Registry())._bounds(str(tmp_path), math.inf, 0)[0].most == math.inf


def test_a_registered_directory_that_is_gone_is_refused(taker: Taker, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    taker.chaos.register_directory("data", folder)
    folder.rmdir()
    problem = taker.refused("disk:data", MIB)
    assert (problem.path, problem.allowed) == ("chaos.target_component", "a directory that is there")
    assert "No such file" in problem.hint
    # What is registered is named to whoever misses it.
    assert "resource:disk:data" in taker.refused("disk:date", MIB).allowed


# -- descriptors ----------------------------------------------------------------------------------------------------------------------


def soft() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def take(hold: Hold) -> Callable[[], None]:
    return descriptors.Descriptors().take(hold, ask(), lambda: None, lambda _: None)


def test_holes_below_the_limit_are_filled_and_emptied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "descriptor_plan", lambda limit, *_: DescriptorPlan(limit, 3))
    hold = Held(3)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    release = take(hold)
    assert len(os.listdir("/proc/self/fd")) == before + 3  # noqa: PTH208
    assert (hold.said[0].reached, hold.effect().measured["holes_filled"]) == (3, 3)
    with pytest.raises(RuntimeError, match="taken already"):
        take(Held(1))
    for _ in range(2):
        release()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert descriptors._taken == []


@pytest.mark.parametrize(("error", "raised"), [(OSError(24, "Too many open files"), False), (KeyboardInterrupt(), True)])
def test_when_others_are_quicker_there_are_none_left_and_other_errors_undo_everything(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, raised: bool
) -> None:
    limit, hold = soft(), Held(4)

    def broken(_: int) -> int:
        raise error

    monkeypatch.setattr(descriptors, "descriptor_plan", lambda limit, *_: DescriptorPlan(limit - 1, 3))
    monkeypatch.setattr(
        descriptors,
        "os",
        SimpleNamespace(open=os.open, close=os.close, dup=broken, devnull=os.devnull, O_RDONLY=os.O_RDONLY),
    )
    if raised:
        with pytest.raises(KeyboardInterrupt):
            take(hold)
    else:
        release = take(hold)
        assert (hold.said[0].reached, hold.said[0].limited) == (2, "others opened some meanwhile")
        assert soft() == limit - 1
        release()
    assert soft() == limit
    assert descriptors._taken == []


# -- the process ----------------------------------------------------------------------------------------------------------------------


def test_a_limit_of_the_address_space_is_told_with_what_is_used_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "soft_limit", {"RLIMIT_AS": 1 << 50}.get)
    found = machine.address_space()
    assert found is not None
    assert found[0] == float(1 << 50)
    assert 0.0 < found[1] < found[0]


def test_windows_has_no_such_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "sys", SimpleNamespace(platform="win32"))
    assert machine.soft_limit("RLIMIT_NOFILE") is None


# -- threads and loops ----------------------------------------------------------------------------------------------------------------


def test_a_burn_whose_threads_cannot_be_started_takes_nothing(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(self: threading.Thread) -> None:
        if self.name == "somaresil-burn":
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        taker.start("gil", 1)
    assert taker.chaos.runs == ()
    monkeypatch.undo()
    # Its share is free again.
    assert taker.chaos.history[-1].end_reason == "failed"


def test_a_process_without_anyio_has_no_tokens_to_take(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        monkeypatch.delitem(sys.modules, "anyio.to_thread")
        problem = taker.refused("anyio")
        assert (problem.allowed, problem.hint) == ("a process that uses anyio", "anyio.to_thread is not imported here")

    asyncio.run(main())


def test_a_limiter_without_a_limit_cannot_be_emptied_and_the_effect_says_so(taker: Taker) -> None:
    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        limiter.total_tokens = math.inf
        run = await taker.atake("anyio")
        assert (run.effect.reached, run.effect.limited) == (0, "the limiter has no limit")
        assert limiter.borrowed_tokens == 0

    asyncio.run(main())


def test_a_companion_that_has_ended_before_its_turn_does_not_begin() -> None:
    began: list[Any] = []

    async def body(here: Companion) -> None:
        began.append(here)

    async def main() -> None:
        companions = Companions([asyncio.get_running_loop()], body, failed=began.append, all_left=lambda: began.append("left"))
        # Ended by another thread before the task exists.
        companions.end()
        companions.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(main())
    assert began == []


def test_all_have_left_only_when_the_last_of_the_loops_has() -> None:
    left: list[str] = []

    async def body(_: Companion) -> None:
        await asyncio.Event().wait()

    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        companions = Companions([one, other], body, failed=lambda _: left.append("failed"), all_left=lambda: left.append("all"))
        for loop, so_far in ((one, []), (other, ["all"])):
            if loop is one:
                companions.start()

            async def leave() -> None:
                await asyncio.sleep(0)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                await asyncio.sleep(0)

            loop.run_until_complete(leave())
            assert left == so_far
    finally:
        one.close()
        other.close()


# -- pools ----------------------------------------------------------------------------------------------------------------------------


class Full(Exception):
    """All are in use."""


class Client:
    """A pool whose connections are said to be used by its own count."""

    def __init__(self, *said: Any) -> None:
        self.said = list(said)
        self.back: list[Any] = []

    def checkout(self) -> Any:
        found = self.said.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def acheckout(self) -> Any:
        return self.checkout()

    def giveback(self, connection: Any) -> None:
        if connection == "broken":
            raise ConnectionError("it is broken")
        self.back.append(connection)

    async def agiveback(self, connection: Any) -> None:
        self.giveback(connection)

    def plain(self, **options: Any) -> ClientPool:
        return ClientPool(self.checkout, self.giveback, lambda: None, full=lambda error: isinstance(error, Full), **options)

    def suspending(self) -> ClientPool:
        return ClientPool(self.acheckout, self.agiveback, lambda: None, full=lambda error: isinstance(error, Full), suspends=True)


def registered(name: str, pool: RegisteredPool) -> Connections:
    registry = Registry()
    registry.pools[name] = pool
    return Connections(registry)


def test_a_pool_whose_size_nobody_knows_needs_an_amount_and_one_that_suspends_a_loop_that_runs() -> None:
    kind = registered("db", RegisteredPool(Client().plain(), None))
    assert problems(kind, ask("db")) == [("chaos.amount", "a number of connections", "the pool was registered without its size")]
    loop = asyncio.new_event_loop()
    loop.close()
    kind = registered("db", RegisteredPool(Client().suspending(), loop))
    assert problems(kind, ask("db", 1)) == [
        ("chaos.target_component", "a pool whose event loop runs", "register it again in the loop that uses it")
    ]


def test_a_connection_that_cannot_be_given_back_is_told_and_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_AGAIN", 0.0)
    client, failed, hold = Client("one", Full(), "broken", "two"), [], Held(3)
    plain = pools._Plain(hold, RegisteredPool(client.plain(), None), failed.append)
    plain._check_out()
    # It was full once, and in the end none was missing.
    assert (hold.effect().reached, hold.effect().limited) == (3, "")
    hold.end()
    plain._give_back()
    assert (client.back, [str(each) for each in failed]) == (["two", "one"], ["it is broken"])


def test_a_connection_that_comes_after_the_end_is_given_back() -> None:
    hold = Held(3)

    def last() -> str:
        hold.end()
        return "late"

    client = Client()
    plain = pools._Plain(hold, RegisteredPool(ClientPool(last, client.giveback, lambda: None), None), lambda _: None)
    plain._check_out()
    assert client.back == ["late"]


def test_a_pool_that_suspends_waits_for_what_is_in_use_and_tells_what_it_cannot_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_AGAIN", 0.0)
    client, failed, hold = Client("one", Full(), "broken"), [], Held(2)

    async def main() -> None:
        kind = registered("db", RegisteredPool(client.suspending(), asyncio.get_running_loop()))
        end = kind.take(hold, ask("db", 2), lambda: None, failed.append)
        await until(lambda: hold.effect().reached == 2)
        end()
        await until(lambda: bool(client.back))

    asyncio.run(main())
    assert (client.back, [str(each) for each in failed]) == (["one"], ["it is broken"])


def test_a_pool_that_fails_otherwise_is_not_asked_again() -> None:
    async def main(client: Client, hold: Held) -> None:
        taken: list[Any] = []
        await pools._fill(hold, RegisteredPool(client.suspending(), None), taken)
        assert taken == ["one"]

    client, hold = Client("one", ValueError("no such host"), "two"), Held(3)
    asyncio.run(main(client, hold))
    assert client.said == ["two"]
    assert "no such host" in hold.said[0].limited


def test_a_count_that_cannot_be_had_is_no_figure() -> None:
    assert pools._figures(RegisteredPool(Client().plain(used=lambda: 3), None)) == {"in_use": 3.0}
    assert pools._figures(RegisteredPool(Client().plain(used=lambda: 1 // 0), None)) == {}
    assert pools._figures(RegisteredPool(Client().plain(), None)) == {}


def test_what_is_no_loop_and_what_is_no_function_is_not_registered(taker: Taker) -> None:
    with pytest.raises(ConfigurationError, match=r"register_loop\.loop = 'loop': expected an event loop of asyncio"):
        taker.chaos.register_loop("loop")
    with pytest.raises(ConfigurationError, match="an event loop of asyncio, or None inside one"):
        taker.chaos.register_loop(None)
    with pytest.raises(ConfigurationError) as wrong:
        taker.chaos.register_pool("db", checkout="one", giveback=None)
    assert [problem.path for problem in wrong.value.problems] == ["register_pool.checkout", "register_pool.giveback"]


# -- in a fork ------------------------------------------------------------------------------------------------------------------------


def test_a_fork_gives_back_its_ballast_though_a_thread_that_stayed_behind_has_the_lock() -> None:
    load = Load(2)
    load.fill(lambda: 10.0)
    taken = load.ballast._lock
    load.hold._process = -1
    load.ballast.release()
    assert load.ballast._lock is not taken
    assert [piece.closed for piece in load.pieces] == [1]


def test_a_fork_gives_back_descriptors_with_a_lock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    limit, hold, lock = soft(), Held(1), descriptors._lock
    monkeypatch.setattr(descriptors, "_lock", lock)
    monkeypatch.setattr(descriptors, "descriptor_plan", lambda limit, *_: DescriptorPlan(limit - 1, 0))
    release = take(hold)
    hold._process = -1
    release()
    assert descriptors._lock is not lock
    assert (soft(), descriptors._taken) == (limit, [])


def test_a_fork_does_not_give_back_a_connection_that_its_parent_has() -> None:
    client, let_go, hold = Client("one", "two"), [], Held(1)
    for options in ({}, {"disown": let_go.append}):
        plain = pools._Plain(hold, RegisteredPool(client.plain(**options), None), lambda _: None)
        plain._taken.append("theirs")
        hold._process = -1
        plain._give_back()
    assert (client.back, let_go) == ([], ["theirs"])


def test_what_a_body_in_a_loop_raises_is_told() -> None:
    failed: list[Exception] = []

    async def body(_: Companion) -> None:
        raise ValueError("mine")

    async def main() -> None:
        Companions([asyncio.get_running_loop()], body, failed=failed.append, all_left=lambda: None).start()
        await until(lambda: bool(failed))

    asyncio.run(main())
    assert str(failed[0]) == "mine"
