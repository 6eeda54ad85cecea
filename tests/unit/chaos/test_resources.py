"""Resources of the process that experiments take: how much, what comes of it, and that all of it is given back."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import pytest

from somaresil import ChaosCeilings, ChaosConfig, ChaosExperiment, ConfigurationError, SystemClock
from somaresil.chaos.capabilities import capabilities
from somaresil.events import ResourceExhausted, ResourceReleased

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.chaos.kit import Stand

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="how much there is is read from the files of Linux")
EXHAUST = ChaosExperiment.RESOURCE_EXHAUSTION
MIB = 1 << 20


class Taker:
    """A process of its own clock, and events to wait for."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.chaos = stand.chaos
        self.taken = threading.Event()
        stand.resilience.on(lambda _: self.taken.set(), ResourceExhausted)

    def take(self, name: str, amount: float | None = None, rate: float = 1.0, **options: Any) -> Any:
        """Take it, and return when as much is taken as will be."""
        run = self.start(name, amount, rate, **options)
        assert self.taken.wait(20)
        return run

    def start(self, name: str, amount: float | None = None, rate: float = 1.0, **options: Any) -> Any:
        self.taken.clear()
        return self.stand.arm(EXHAUST, f"resource:{name}", rate, amount=amount, **options)

    async def atake(self, name: str, amount: float | None = None, rate: float = 1.0, **options: Any) -> Any:
        """The same inside an event loop, which has to go on for that."""
        run = self.start(name, amount, rate, **options)
        await until(self.taken.is_set)
        return run

    def refused(self, name: str, amount: float | None = None) -> Any:
        """The one problem that stands in the way of it."""
        with pytest.raises(ConfigurationError) as error:
            self.start(name, amount)
        assert self.chaos.runs == ()
        (problem,) = error.value.problems
        return problem


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.001)


def joined(*names: str) -> bool:
    """Whether the threads of these names end."""
    for thread in threading.enumerate():
        if thread.name.startswith(names):
            thread.join(20)
    return not any(thread.name.startswith(names) for thread in threading.enumerate())


def resident() -> int:
    """Bytes of memory that this process really has."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def taker(make: Callable[..., Stand]) -> Any:
    taker = Taker(make(clock=SystemClock()))
    yield taker
    taker.chaos.stop_all()
    assert joined("somaresil-burn", "somaresil-ballast", "somaresil-pool")


# -- memory and disk ----------------------------------------------------------------------------------------------------------------


def test_memory_is_really_there_and_given_back_exactly(taker: Taker) -> None:
    before = resident()
    run = taker.take("memory", 64 * MIB)
    assert (run.effect.reached, run.effect.held, run.effect.unit) == (64 * MIB, 64 * MIB, "bytes")
    assert resident() - before > 56 * MIB
    run.end()
    assert run.effect.held == 0
    assert joined("somaresil-ballast")
    assert abs(resident() - before) < 5 * MIB


def test_memory_above_the_ceiling_is_refused_and_nothing_taken(taker: Taker) -> None:
    problem = taker.refused("memory", 257 * MIB)
    assert (problem.path, problem.value) == ("chaos.amount", 257 * MIB)
    assert problem.allowed == f"at most {256 * MIB} bytes, the ceiling"


def test_ceilings_count_what_other_experiments_hold(taker: Taker) -> None:
    taker.chaos.opt_in(ChaosCeilings(memory=8 * MIB))
    taker.take("memory", 6 * MIB)
    with pytest.raises(ConfigurationError, match=f"at most {2 * MIB} bytes"):
        taker.start("memory", 4 * MIB)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
def test_a_forked_child_has_no_ballast(taker: Taker) -> None:
    before = resident()
    taker.take("memory", 64 * MIB)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(write, str(resident() - before < 32 * MIB).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "True"
    os.waitpid(pid, 0)
    assert resident() - before > 56 * MIB


def test_disk_space_is_taken_by_a_file_that_has_no_name(taker: Taker, tmp_path: Any) -> None:
    taker.chaos.register_directory("data", tmp_path)
    run = taker.take("disk:data", 8 * MIB)
    assert list(tmp_path.iterdir()) == []
    inside = [os.fstat(fd).st_blocks * 512 for fd in fds() if not os.fstat(fd).st_nlink]
    assert max(inside) >= 8 * MIB
    run.end()
    assert [os.fstat(fd).st_blocks for fd in fds() if not os.fstat(fd).st_nlink and os.fstat(fd).st_blocks * 512 >= 8 * MIB] == []


def test_only_directories_that_the_code_has_named_can_be_filled(taker: Taker) -> None:
    problem = taker.refused("disk:/etc", MIB)
    assert problem.path == "chaos.target_component"
    with pytest.raises(ConfigurationError, match=r"register_directory\.path"):
        taker.chaos.register_directory("data", tempfile.gettempdir() + "/missing")


# -- descriptors --------------------------------------------------------------------------------------------------------------------


def fds() -> list[int]:
    found = []
    for name in (entry.name for entry in Path("/proc/self/fd").iterdir()):
        try:
            os.fstat(int(name))
        except OSError:
            continue
        found.append(int(name))
    return found


def test_descriptors_run_out_after_a_reserve_and_what_is_open_goes_on(taker: Taker) -> None:
    limits, open_before = resource.getrlimit(resource.RLIMIT_NOFILE), len(fds())
    left, right = socket.socketpair()
    with left, right:
        run = taker.take("fds")
        files: list[int] = []
        try:
            with pytest.raises(OSError) as full:
                while True:
                    files.append(os.dup(1))
            assert full.value.errno == errno.EMFILE
            # Of a reserve of eight; a thread that another test left behind may have one or two of them.
            assert 4 <= len(files) <= 8
            left.send(b"x")
            assert right.recv(1) == b"x"
        finally:
            for file in files:
                os.close(file)
            run.end()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits
    assert len(fds()) == open_before


def test_so_many_descriptors_are_taken_as_were_asked_for(taker: Taker) -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    run = taker.take("fds", 3)
    assert (run.effect.reached, resource.getrlimit(resource.RLIMIT_NOFILE)[0]) == (3, soft - 3)


def test_two_experiments_do_not_take_descriptors_at_once(taker: Taker) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    run = taker.take("fds", 3)
    with pytest.raises(ConfigurationError, match="taken already"):
        taker.start("fds", 3)
    run.end()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_a_limit_that_somebody_else_has_set_meanwhile_is_theirs(taker: Taker) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    run = taker.take("fds", 3)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
        run.end()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft - 1, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- processor ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gil", "cpu"])
def test_a_burn_uses_the_processor_until_it_is_ended(taker: Taker, name: str) -> None:
    run = taker.take(name, 1)
    until_ = time.monotonic() + 20
    while not run.effect.measured["cpu_seconds"] and time.monotonic() < until_:
        threading.Event().wait(0.001)
    assert run.effect.measured["cpu_seconds"] > 0
    assert run.effect.held == 1
    run.end()
    assert joined("somaresil-burn")
    assert run.effect.held == 0


def test_part_of_a_core_can_be_named_and_part_of_a_thread_cannot(taker: Taker) -> None:
    assert taker.take("cpu", 0.25).effect.asked == 0.25
    with pytest.raises(ConfigurationError, match="a whole number of threads"):
        taker.start("gil", 0.5)


def test_more_cores_than_there_are_are_refused(taker: Taker) -> None:
    taker.chaos.opt_in(ChaosCeilings(cores=10_000.0))
    assert "nine tenths" in taker.refused("cpu", 9_999).allowed


# -- loops --------------------------------------------------------------------------------------------------------------------------


def test_the_kill_switch_frees_a_blocked_loop_from_another_thread(taker: Taker) -> None:
    async def main() -> float:
        began = time.monotonic()
        taker.chaos.opt_in(ChaosCeilings(block=60.0))
        taker.start("loop_block", 60.0)
        killer = threading.Timer(0.05, taker.chaos.stop_all)
        killer.start()
        while taker.chaos.runs:
            await asyncio.sleep(0)
        killer.join(20)
        return time.monotonic() - began

    assert asyncio.run(main()) < 20


def test_a_loop_is_blocked_for_a_share_of_the_time_in_blocks_of_that_length(taker: Taker) -> None:
    async def main() -> Any:
        run = await taker.atake("loop_block", 0.01, 0.5)
        await until(lambda: run.effect.measured["blocks"] >= 3)
        run.end()
        return run.effect

    effect = asyncio.run(main())
    assert 0.01 <= effect.reached < 5
    assert effect.measured["blocked_seconds"] >= 0.03


def test_a_block_above_its_ceiling_is_refused(taker: Taker) -> None:
    async def main() -> None:
        assert taker.refused("loop_block", 2.5).allowed == "at most 2 seconds, the ceiling"

    asyncio.run(main())


def test_without_a_loop_there_is_none_to_strike(taker: Taker) -> None:
    assert "event loop" in taker.refused("loop_block", 0.1).allowed


def test_a_registered_loop_is_struck_from_anywhere_and_no_other(taker: Taker) -> None:
    async def main() -> str:
        taker.chaos.register_loop()
        run = await asyncio.to_thread(taker.start, "loop_block", 0.001)
        await until(taker.taken.is_set)
        run.end()
        return run.effect.unit

    assert asyncio.run(main()) == "seconds"


def test_all_threads_of_the_executor_are_held_and_freed_at_once(taker: Taker) -> None:
    async def main() -> None:
        run = await taker.atake("executor")
        waiting = asyncio.ensure_future(asyncio.to_thread(threading.get_ident))
        done, _ = await asyncio.wait({waiting}, timeout=0.05)
        assert not done
        run.end()
        async with asyncio.timeout(20):
            await waiting
        await until(lambda: run.effect.held == 0)

    asyncio.run(main())


def test_asyncio_run_does_not_wait_for_threads_that_an_experiment_holds(taker: Taker) -> None:
    async def main() -> Any:
        return await taker.atake("executor")

    began = time.monotonic()
    run = asyncio.run(main())
    assert time.monotonic() - began < 20
    assert run.end_reason == "shutdown"


def test_tokens_of_anyio_run_out_without_threads(taker: Taker) -> None:
    async def main() -> None:
        limiter = anyio.to_thread.current_default_thread_limiter()
        run = await taker.atake("anyio")
        assert limiter.available_tokens == 0
        assert [thread.name for thread in threading.enumerate() if "AnyIO" in thread.name] == []
        assert run.effect.reached == limiter.total_tokens
        run.end()
        await until(lambda: limiter.available_tokens == limiter.total_tokens)

    asyncio.run(main())


# -- pools --------------------------------------------------------------------------------------------------------------------------


class Pool:
    def __init__(self, size: int) -> None:
        self.free = list(range(size))

    def checkout(self) -> int:
        return self.free.pop()

    def giveback(self, connection: int) -> None:
        self.free.append(connection)

    async def acheckout(self) -> int:
        return self.checkout()

    async def agiveback(self, connection: int) -> None:
        self.giveback(connection)


def test_all_connections_of_a_pool_are_checked_out_and_given_back(taker: Taker) -> None:
    pool = Pool(3)
    taker.chaos.register_pool("db", checkout=pool.checkout, giveback=pool.giveback, size=3)
    run = taker.take("pool:db")
    assert (pool.free, run.effect.held) == ([], 3)
    run.end()
    assert sorted(pool.free) == [0, 1, 2]


def test_a_pool_that_suspends_is_emptied_in_its_loop(taker: Taker) -> None:
    pool = Pool(3)

    async def main() -> None:
        taker.chaos.register_pool("db", checkout=pool.acheckout, giveback=pool.agiveback, size=3)
        run = await taker.atake("pool:db", 2)
        assert (len(pool.free), run.effect.held) == (1, 2)
        run.end()
        await until(lambda: len(pool.free) == 3)

    asyncio.run(main())


def test_a_pool_that_has_fewer_is_emptied_and_the_effect_says_why_no_more(taker: Taker) -> None:
    pool = Pool(2)
    taker.chaos.register_pool("db", checkout=pool.checkout, giveback=pool.giveback)
    run = taker.take("pool:db", 5)
    assert (run.effect.reached, run.effect.limited.startswith("IndexError")) == (2, True)


def test_pools_that_are_not_registered_are_refused_with_the_nearest_name(taker: Taker) -> None:
    pool = Pool(1)
    taker.chaos.register_pool("orders", checkout=pool.checkout, giveback=pool.giveback, size=1)
    assert "resource:pool:orders" in taker.refused("pool:order").hint
    with pytest.raises(ConfigurationError, match="giveback"):
        taker.chaos.register_pool("x", checkout=pool.acheckout, giveback=pool.giveback)


# -- all of them --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", [0, -1, float("nan"), True, "much", 1.5])
def test_amounts_that_mean_nothing_are_refused(taker: Taker, amount: Any) -> None:
    with pytest.raises(ConfigurationError, match="amount"):
        taker.start("memory", amount)


def test_resources_that_do_not_exist_are_refused_with_the_nearest_name(taker: Taker) -> None:
    assert "resource:memory" in taker.refused("memroy").hint
    assert taker.refused("memory:x").path == "chaos.target_component"


def test_what_was_taken_and_given_back_is_told(taker: Taker) -> None:
    run = taker.take("memory", MIB)
    run.end()
    (taken,) = taker.stand.told(ResourceExhausted)
    (released,) = taker.stand.told(ResourceReleased)
    assert (taken.component, taken.unit, taken.asked, taken.reached, taken.limited) == ("resource:memory", "bytes", MIB, MIB, "")
    assert (released.experiment, released.reached) == (run.id, MIB)
    run.end()
    assert len(taker.stand.told(ResourceReleased)) == 1


def test_the_lease_ends_it_though_nobody_calls_anything(taker: Taker) -> None:
    released = threading.Event()
    taker.stand.resilience.on(lambda _: released.set(), ResourceReleased)
    taker.start("memory", MIB, duration=0.1)
    assert released.wait(20)


def test_every_resource_can_be_taken_on_linux() -> None:
    found = {name: can for name, can in capabilities().items() if name.startswith("resource_exhaust")}
    assert len(found) == 9
    assert all(found.values())


def test_what_the_platform_lacks_is_said_once_and_the_same_everywhere(taker: Taker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    can = capabilities()["resource_exhaust.disk"]
    assert not can
    problem = taker.refused("disk", MIB)
    assert (problem.path, problem.hint) == ("chaos.target_component", can.reason)


def test_a_window_of_a_plan_names_its_own_path(taker: Taker) -> None:
    from somaresil import ChaosPlan, FaultWindow

    window = FaultWindow("resource:memory", "resource_exhaust", 0, 1, amount=1e12)
    with pytest.raises(ConfigurationError, match=r"plan\.windows\[0\]\.amount"):
        taker.chaos.arm_plan(ChaosPlan([window]))


def test_the_short_form_takes_all_of_the_time(taker: Taker) -> None:
    run = asyncio.run(taker.chaos.exhaust("memory", MIB, duration_seconds=5))
    assert run.config == ChaosConfig(EXHAUST, "resource:memory", 1.0, 5.0, amount=MIB)
