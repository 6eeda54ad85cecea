"""Memory and disk space, taken step by step and given back exactly.

Memory is mapped and not allocated: a mapping is given back to the kernel when it is closed, while a megabyte here and there of the
allocator is not (measured: 90 MB of 256 stayed behind). The file has no name, so its space returns when the process ends, however it does.
"""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Any, ClassVar, Final

from somaresil.chaos.resources.kinds import amount_of
from somaresil.chaos.resources.limits import MIB, Bound, disk_bounds, lowest, memory_bounds, memory_reserve
from somaresil.chaos.resources.machine import address_space, largest_file
from somaresil.errors import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.resources.hold import Hold
    from somaresil.chaos.resources.kinds import Ask
    from somaresil.chaos.resources.machine import Machine
    from somaresil.chaos.resources.registry import Registry
    from somaresil.config import Checker

__all__ = ["DiskSpace", "Memory"]

_USUAL: Final = 64 * MIB
_MEMORY_STEP: Final = 4 * MIB
"""Mapping holds the interpreter up: for about a millisecond with so much."""
_DISK_STEP: Final = 64 * MIB
_PAUSE: Final = 0.001
_LOOK_EVERY: Final = 0.25


class _Ballast:
    """What is taken, piece by piece, by a thread of its own."""

    def __init__(self, hold: Hold, step: int) -> None:
        self.hold = hold
        self._step = step
        self._lock = threading.RLock()
        self._pieces: list[Any] = []
        self._released = False
        self._gave_back = False

    def start(self, room: Callable[[], float], grow: Callable[[int, int], Any], reserve: float | None) -> None:
        """Take it. ``room`` is what is left beyond the reserve, ``grow`` takes a piece.

        With a ``reserve``, pieces are given back when half of that is gone.
        """
        threading.Thread(target=self._fill, args=(room, grow, reserve), name="somaresil-ballast", daemon=True).start()

    def release(self) -> None:
        """Give everything back: at once, from any thread."""
        if self.hold.forked:
            # The thread that filled it stayed behind, maybe with the lock.
            self._lock = threading.RLock()
        with self._lock:
            self._released = True
            pieces, self._pieces = self._pieces, []
        for piece in pieces:
            piece.close()

    def _fill(self, room: Callable[[], float], grow: Callable[[int, int], Any], reserve: float | None) -> None:
        hold, taken, limited = self.hold, 0, ""
        wanted = int(hold.asked)
        while taken < wanted and not hold.over:
            size = min(self._step, wanted - taken)
            try:
                if room() < size:
                    limited = "what is left is kept in reserve"
                    break
                piece = grow(taken, size)
            except (OSError, ValueError, MemoryError) as full:
                limited = describe(full)
                break
            if not self._keep(piece):
                return
            taken += size
            hold.note(taken)
            hold.latch.wait(_PAUSE)
        hold.settle(limited)
        while reserve is not None and taken and not hold.wait(_LOOK_EVERY):
            # Others may need it more than the experiment: whoever runs out of memory is killed, and not by the experiment's choice.
            while room() < -reserve / 2 and self._give_back():
                taken -= min(self._step, taken)
                hold.note(taken)
                hold.settle("part of it was given back, for memory ran short")

    def _keep(self, piece: Any) -> bool:
        if piece is not None:
            with self._lock:
                if not self._released:
                    self._pieces.append(piece)
                    return True
            piece.close()
            return False
        return not self._released

    def _give_back(self) -> bool:
        with self._lock:
            if not self._pieces:
                return False
            piece = self._pieces.pop()
        piece.close()
        return True


class Memory:
    """Takes memory that is really there, in steps; gives some back when what is left gets short."""

    unit: ClassVar[str] = "bytes"
    takes_rest: ClassVar[bool] = False

    def __init__(self, machine: Machine) -> None:
        """The memory of this machine."""
        self._machine = machine

    def missing(self) -> str:
        """The kernel has to say what is available."""
        return "" if self._machine.memory() is not None else "this platform does not say how much memory is available"

    def bounds(self, most: float, held: float) -> list[Bound]:
        """What may be taken now."""
        facts = self._machine.memory()
        if facts is None:
            return []
        return memory_bounds(most, held, available=facts.available, total=facts.total, groups=facts.groups, address_space=address_space())

    def check(self, check: Checker, ask: Ask) -> float:
        """Not more than the ceiling, nor than machine, control groups and address space have left after a reserve."""
        return amount_of(check, ask, _USUAL, self.bounds(ask.ceilings.memory, ask.held), self.unit)

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Begin to take it; the effect says how far it got."""
        del ask, ended, failed
        ballast = _Ballast(hold, _MEMORY_STEP)
        ballast.start(lambda: lowest(self.bounds(float("inf"), 0)).most, lambda _, size: _mapped(size), memory_reserve(0))
        return ballast.release


def _mapped(size: int) -> mmap.mmap:
    if sys.platform == "linux":
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    piece = mmap.mmap(-1, size)
    for at in range(0, size, mmap.PAGESIZE):
        # Only a page that was written to is there.
        piece[at] = 1
    return piece


class DiskSpace:
    """Takes space of the file system that temporary files, or a registered directory, are on."""

    unit: ClassVar[str] = "bytes"
    takes_rest: ClassVar[bool] = True

    def __init__(self, machine: Machine, registry: Registry) -> None:
        """The file systems of this machine."""
        self._machine = machine
        self._registry = registry
        self._memory = Memory(machine)

    def missing(self) -> str:
        """Space has to be allocated without being written."""
        return "" if hasattr(os, "posix_fallocate") else "this platform has no posix_fallocate"

    def check(self, check: Checker, ask: Ask) -> float:
        """Not more than the ceiling, nor than the file system has left after a reserve; in memory not more than that has left either."""
        folder = self._folder(ask.rest)
        if folder is None:
            known = ", ".join(f"resource:disk:{name}" for name in sorted(self._registry.folders))
            check.problem(
                ask.field, ask.target, f"resource:disk{' or ' + known if known else ''}", "see chaos.register_directory(name, path)"
            )
            return 1.0
        try:
            bounds = self._bounds(folder, ask.ceilings.disk, ask.held)
        except OSError as gone:
            check.problem(ask.field, ask.target, "a directory that is there", describe(gone))
            return 1.0
        return amount_of(check, ask, _USUAL, bounds, self.unit)

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Begin to take it; the effect says how far it got."""
        del ended, failed
        folder = self._folder(ask.rest) or tempfile.gettempdir()
        # A file without a name: nothing has to be deleted, not even after SIGKILL.
        file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - it is closed by whoever releases it
        ballast = _Ballast(hold, _DISK_STEP)
        ballast._keep(file)  # noqa: SLF001 - the file is all of its pieces
        ballast.start(
            lambda: lowest(self._bounds(folder, float("inf"), 0)).most,
            lambda at, size: os.posix_fallocate(file.fileno(), at, size),
            None,
        )
        return ballast.release

    def _folder(self, name: str) -> str | None:
        return self._registry.folders.get(name) if name else tempfile.gettempdir()

    def _bounds(self, folder: str, most: float, held: float) -> list[Bound]:
        facts = self._machine.disk(folder)
        bounds = disk_bounds(most, held, free=facts.free, total=facts.total, largest_file=largest_file())
        if facts.in_memory:
            bounds.extend(self._memory.bounds(float("inf"), 0))
        return bounds
