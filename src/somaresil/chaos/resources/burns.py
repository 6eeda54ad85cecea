"""Processor time: threads that want the interpreter, and threads that want cores."""

from __future__ import annotations

import hashlib
import math
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Final

from somaresil.chaos.resources.kinds import amount_of
from somaresil.chaos.resources.limits import ceiling, core_bounds
from somaresil.chaos.resources.loops import Companions, forever

if TYPE_CHECKING:
    from asyncio import TimerHandle
    from collections.abc import Callable, Sequence

    from somaresil.chaos.resources.hold import Hold
    from somaresil.chaos.resources.kinds import Ask
    from somaresil.chaos.resources.loops import Companion, Loops
    from somaresil.chaos.resources.machine import Machine
    from somaresil.config import Checker

__all__ = ["Cores", "InterpreterLock"]

_PERIOD: Final = 0.1
"""Seconds in which a thread works for its share, and rests."""
_LAG_EVERY: Final = 0.05
_BLOCK: Final = bytes(1 << 20)
"""What is hashed; for so much hashlib lets go of the interpreter."""


def _want_interpreter() -> None:
    """Some tens of microseconds of pure Python."""
    number = 0
    for step in range(1000):
        number += step * step


def _want_core() -> None:
    """Some milliseconds at most without the interpreter."""
    hashlib.sha256(_BLOCK)


class _Burn:
    takes_rest: ClassVar[bool] = False

    def __init__(self, loops: Loops) -> None:
        """The lag of these loops is measured meanwhile."""
        self._loops = loops

    def missing(self) -> str:
        """Nothing."""
        return ""

    def _burn(
        self, hold: Hold, shares: Sequence[float], work: Callable[[], None], failed: Callable[[Exception], object]
    ) -> Callable[[], None]:
        spent = [0.0] * len(shares)
        lag = {"loop_lag_max": 0.0}
        hold.measure = lambda: {"cpu_seconds": sum(spent), **lag}

        async def watch(here: Companion) -> None:
            probe = _Lag(here, lag)
            try:
                await forever()
            finally:
                probe.cancel()

        companions = Companions(self._loops.known(), watch, failed=failed, all_left=lambda: None)

        def burn(number: int, share: float) -> None:
            began = time.thread_time()
            while not hold.over:
                until = time.monotonic() + _PERIOD * share
                while time.monotonic() < until and not hold.over:
                    work()
                spent[number] = time.thread_time() - began
                if share < 1.0:
                    hold.wait(_PERIOD * (1.0 - share))

        threads = [
            threading.Thread(target=burn, args=(number, share), name="somaresil-burn", daemon=True)
            for number, share in enumerate(shares)
            if share > 0.0
        ]
        try:
            for thread in threads:
                thread.start()
        except BaseException:
            hold.end()
            raise
        companions.start()
        hold.note(hold.asked)
        hold.settle()
        # The threads see the end within one piece of work; waiting for that would hold up whoever pulled the kill switch.
        return companions.end


class _Lag:
    """How late a loop is, at most."""

    def __init__(self, here: Companion, lag: dict[str, float]) -> None:
        self._here = here
        self._lag = lag
        self._next = self._wait()

    def cancel(self) -> None:
        self._next.cancel()

    def _wait(self) -> TimerHandle:
        self._due = time.monotonic() + _LAG_EVERY
        return self._here.loop.call_later(_LAG_EVERY, self._look)

    def _look(self) -> None:
        self._lag["loop_lag_max"] = max(self._lag["loop_lag_max"], time.monotonic() - self._due)
        if not self._here.latch.is_set:
            self._next = self._wait()


class InterpreterLock(_Burn):
    """Threads of pure Python that want the interpreter, over a share of the time. They use one core at most, however many they are."""

    unit: ClassVar[str] = "threads"

    def check(self, check: Checker, ask: Ask) -> float:
        """Not more threads than may be started."""
        return amount_of(check, ask, 1, [ceiling(ask.ceilings.threads, ask.held)], self.unit)

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Start them."""
        del ended
        return self._burn(hold, [ask.share] * int(hold.asked), _want_interpreter, failed)


class Cores(_Burn):
    """Keeps cores busy without holding the interpreter, over a share of the time."""

    unit: ClassVar[str] = "cores"

    def __init__(self, loops: Loops, machine: Machine) -> None:
        """The cores of this machine."""
        super().__init__(loops)
        self._machine = machine

    def check(self, check: Checker, ask: Ask) -> float:
        """Not more than may be, nor than the process has."""
        bounds = core_bounds(ask.ceilings.cores, ask.held, cores=self._machine.cores())
        return amount_of(check, ask, 1.0, bounds, self.unit, whole=False)

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Start a thread for each core, and one for what is left."""
        del ended
        whole = math.floor(hold.asked)
        left = hold.asked - whole
        shares = [ask.share] * whole + ([ask.share * left] if left else [])
        return self._burn(hold, shares, _want_core, failed)
