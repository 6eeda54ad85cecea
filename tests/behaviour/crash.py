"""Processes that are ended in the middle of experiments, and what is left of those: shared by a test and by benchmarks/crash.py.

As a program it is such a process: ``crash.py MODE KIND FOLDER``. It says on its output that the fault is there, and waits.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEASE = 60.0
"""Seconds that each experiment would last: whatever ends much sooner was ended."""
MIB = 1 << 20
FAULTS: dict[str, dict[str, Any]] = {
    "latency": {"delay_seconds": 20.0},
    "error": {},
    "circuit_trip": {},
    "lost_reply": {},
    "stream_cut": {},
    "stream_truncate": {},
    "resource:loop_block": {"amount": 0.1},
    "resource:gil": {"amount": 2},
    "resource:cpu": {"amount": 0.5},
    "resource:memory": {"amount": 32 * MIB},
    "resource:executor": {},
    "resource:anyio": {},
    "resource:fds": {},
    "resource:disk:data": {"amount": 32 * MIB},
    "resource:pool:db": {},
    "net:127.0.0.1": {"mode": "refuse"},
    "net:10.0.0.1": {"mode": "blackhole"},
}
"""Every kind of fault, with its options."""


class Pool:
    """Three connections."""

    def __init__(self) -> None:
        self.free = [1, 2, 3]

    def giveback(self, connection: int) -> None:
        self.free.append(connection)


class Victim:
    """A service under attack."""

    def __init__(self, folder: str) -> None:
        import anyio.to_thread

        from somaresil import Resilience
        from somaresil.events import ResourceExhausted

        os.environ["SOMARESIL_CHAOS"] = "1"
        self.anyio = anyio.to_thread
        self.resilience = Resilience("victim", environment="test")
        self.chaos = self.resilience.chaos
        self.chaos.opt_in()
        self.pool = Pool()
        self.chaos.register_pool("db", checkout=self.pool.free.pop, giveback=self.pool.giveback, size=3)
        self.chaos.register_directory("data", folder)
        self.taken = threading.Event()
        self.resilience.on(lambda _: self.taken.set(), ResourceExhausted)

        @self.resilience.guard("call", breaker=True)
        async def call() -> None:
            """Answer."""

        @self.resilience.guard("stream")
        async def stream() -> Any:
            yield 1
            yield 2

        self.call, self.stream = call, stream

    async def strike(self, fault: str, seconds: float = LEASE) -> Any:
        """Arm it, and return when it is there."""
        from somaresil import ChaosConfig, ChaosExperiment

        self.taken.clear()
        kind = {"resource": "resource_exhaust", "net": "network_partition"}.get(fault.partition(":")[0], fault)
        target = fault if ":" in fault else "stream" if kind.startswith("stream") else "call"
        run = self.chaos.arm(ChaosConfig(ChaosExperiment(kind), target, 1.0, seconds, **FAULTS[fault]))
        if target.startswith("resource:"):
            async with asyncio.timeout(20):
                while not self.taken.is_set():
                    await asyncio.sleep(0.001)
        elif target == "stream":
            self.used = asyncio.ensure_future(self._read())
        elif target == "call":
            self.used = asyncio.ensure_future(self._call())
        await asyncio.sleep(0)
        return run

    async def _call(self) -> None:
        try:
            await self.call()
        except Exception:
            return

    async def _read(self) -> None:
        try:
            async for _ in self.stream():
                pass
        except Exception:
            return


def measured() -> dict[str, Any]:
    """What a process has that may leak."""
    import resource

    gc.collect()
    count = 0
    for path in list(Path("/proc/self/fd").iterdir()):
        try:
            os.fstat(int(path.name))
        except OSError:
            continue
        count += 1
    names = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("somaresil"))
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {"fds": count, "threads": names, "resident": resident, "limit": resource.getrlimit(resource.RLIMIT_NOFILE)}


# -- the process ----------------------------------------------------------------------------------------------------------------------


async def wait_to_be_killed(fault: str, folder: str) -> None:
    """Strike, say so, and go on as if nothing were."""
    victim = Victim(folder)
    await victim.strike(fault)
    print("struck", flush=True)  # noqa: T201 - it is said to the process that started this one
    await asyncio.sleep(LEASE)


async def survive(rounds: int, folder: str) -> dict[str, Any]:
    """Go through all faults again and again, each ended by Ctrl-C with a handler, by its lease, or by a call; then say what is left."""
    victim = Victim(folder)
    signal.signal(signal.SIGINT, lambda *_: victim.chaos.stop_all())
    ends = ("ctrl-c", "expired", "stopped")
    before: dict[str, Any] = {}
    stuck: list[str] = []
    # The first turn fills caches: threads of the executor, modules, arenas of the allocator.
    for number in range(-len(FAULTS), rounds):
        if number == 0:
            await quiet()
            before = measured()
        fault = list(FAULTS)[number % len(FAULTS)]
        how = ends[(number // len(FAULTS) + number) % len(ends)]
        run = await victim.strike(fault, 0.2 if how == "expired" else LEASE)
        if how == "ctrl-c":
            os.kill(os.getpid(), signal.SIGINT)
        elif how == "stopped":
            run.end()
        try:
            async with asyncio.timeout(10):
                while not (run.over and (run.effect is None or run.effect.held == 0)):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            stuck.append(f"{fault} by {how}: {run!r}")
    await quiet()
    began = time.monotonic()
    await asyncio.to_thread(int)
    await victim.anyio.run_sync(int)
    return {
        "stuck": stuck,
        "before": before,
        "after": measured(),
        "lag": time.monotonic() - began,
        "pool": sorted(victim.pool.free),
        "files": files_in(Path(folder)),
        "closed": victim.resilience.breaker("call").state,
    }


async def quiet() -> None:
    """Let threads see that they are not wanted any more."""
    async with asyncio.timeout(20):
        while any(thread.name.startswith("somaresil") for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


def leave(fault: str, folder: str) -> None:
    """Return from the main program while a fault holds threads; nobody closes the loop."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(Victim(folder).strike(fault))
    print("struck", flush=True)  # noqa: T201 - it is said to the process that started this one


# -- whoever ends it ------------------------------------------------------------------------------------------------------------------


_COMPLAINTS = ("Exception ignored", "Exception in", "Task was destroyed", "never retrieved", "never awaited")
"""What Python says of something that was not ended properly."""


@dataclass
class End:
    """How a process ended."""

    fault: str
    how: str
    seconds: float
    code: int
    left: list[str] = field(default_factory=list)
    said: str = ""

    @property
    def clean(self) -> bool:
        """Whether nothing is left of it, and it ended much sooner than its lease."""
        return not self.left and self.seconds < 5.0 and not any(words in self.said for words in _COMPLAINTS)


def files_in(folder: Path) -> list[str]:
    """What lies there, but for the file of the kill switch: that is to outlive every process."""
    switch = f"somaresil-{os.geteuid()}"
    return [path.name for path in folder.iterdir() if path.name != switch]


def start(mode: str, what: str, folder: Path) -> subprocess.Popen[str]:
    """Such a process, in a session of its own."""
    command = [sys.executable, "-W", "ignore", __file__, mode, what, str(folder)]
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True)


def end(fault: str, how: str, folder: Path) -> End:
    """Have a process strike itself, end it in the middle (``SIGKILL``, ``SIGTERM``, ``SIGINT``, ``leave``), and look what is left."""
    folder.mkdir()
    process = start("leave" if how == "leave" else "wait", fault, folder)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        began = time.monotonic()
        if how != "leave":
            process.send_signal(signal.Signals[how])
        _, said = process.communicate(timeout=LEASE + 10)
        ended = End(fault, how, time.monotonic() - began, process.returncode, said=said)
        if line.strip() != "struck":
            ended.left.append(f"it never struck: {said[-500:]}")
    finally:
        process.kill()
        process.wait()
    ended.left += [f"file {name}" for name in files_in(folder)]
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        pass
    else:
        ended.left.append("a process of its session")
    return ended


def survivor(rounds: int, folder: Path) -> dict[str, Any]:
    """What a process says that outlived so many experiments."""
    folder.mkdir()
    process = start("survive", str(rounds), folder)
    out, said = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(said[-2000:])
    found: dict[str, Any] = json.loads(out)
    return found


if __name__ == "__main__":
    mode, what, where = sys.argv[1:]
    if mode == "wait":
        asyncio.run(wait_to_be_killed(what, where))
    elif mode == "leave":
        leave(what, where)
    else:
        print(json.dumps(asyncio.run(survive(int(what), where))))  # noqa: T201 - as above
