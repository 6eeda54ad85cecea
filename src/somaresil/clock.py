"""Time, handed in from the top: one clock a :class:`~somaresil.resilience.Resilience`, never ``import time`` below.

``monotonic`` is for measuring, ``time`` only for stamps that people read. Waiting is part of the clock as well, so that a test with a
:class:`ManualClock` walks through minutes of recovery without waiting for them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Generator

    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["PARTS_OF_A_CLOCK", "STEERED", "GuardedClock", "ManualClock", "SteeredClock", "SystemClock", "is_ours"]


class SystemClock:
    """The clock of the machine."""

    # The C functions themselves, so that the call path pays for no Python frame.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        if seconds > 0:
            time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Suspend this task."""
        await asyncio.sleep(seconds)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until the event is set; False when ``timeout`` seconds passed first."""
        return event.wait(timeout)

    async def await_(self, future: asyncio.Future[Any], timeout: float | None) -> bool:  # noqa: ASYNC109 - the clock is what makes timeouts
        """Suspend until the future is done; False when ``timeout`` seconds passed first. The future is not cancelled."""
        done, _ = await asyncio.wait((future,), timeout=timeout)
        return bool(done)


class ManualClock:
    """A clock that moves only when told to, or when somebody sleeps on it. Safe to use from several threads."""

    def __init__(self, monotonic: float = 1_000_000.0, time: float = 1_700_000_000.0) -> None:
        """Start at the given readings, in seconds."""
        self._lock = threading.RLock()
        self._monotonic = monotonic
        self._wall = time

    def advance(self, seconds: float) -> None:
        """Move both readings on by ``seconds`` (>= 0)."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock does not go back: advance({seconds!r}), expected seconds >= 0")
        with self._lock:
            self._monotonic += seconds
            self._wall += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP would; nothing that measures may notice."""
        with self._lock:
            self._wall += seconds

    def monotonic(self) -> float:
        """The measuring reading, in seconds."""
        return self._monotonic

    def time(self) -> float:
        """The wall reading, in seconds since the epoch."""
        return self._wall

    def sleep(self, seconds: float) -> None:
        """Move on by ``seconds`` at once."""
        self.advance(max(0.0, seconds))

    async def asleep(self, seconds: float) -> None:
        """Move on by ``seconds`` and let other tasks run once."""
        self.advance(max(0.0, seconds))
        await asyncio.sleep(0)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Return at once when the event is set, or after moving on by ``timeout``; block for real when there is no timeout."""
        if timeout is None:
            return event.wait()
        if not event.is_set():
            self.advance(max(0.0, timeout))
        return event.is_set()

    async def await_(self, future: asyncio.Future[Any], timeout: float | None) -> bool:  # noqa: ASYNC109 - the clock is what makes timeouts
        """Let other tasks run once; move on by ``timeout`` when the future is still not done."""
        if timeout is None:
            await asyncio.wait((future,))
            return True
        await asyncio.sleep(0)
        if not future.done():
            self.advance(max(0.0, timeout))
        return future.done()


class SteeredClock:
    """The clock of the machine, until a test steers it by another one. Its monotonic reading never jumps when it changes hands.

    Services make their ``Resilience`` when they are imported, and its clock stays with it. So that a test can still take such a service
    through minutes, a process with ``SOMARESIL_CLOCK=steered`` gives this one clock to everything that asks for none; the pytest plugin
    sets that. It costs a frame a reading, which is why no service does.
    """

    def __init__(self) -> None:
        """Read the machine's."""
        self._behind: tuple[Clock, float] = (SystemClock(), 0.0)
        """The clock behind it and what is added to its reading: one object, so that no thread reads the one without the other."""
        self._lock = threading.RLock()

    @contextmanager
    def by(self, clock: Clock) -> Generator[None]:
        """Read ``clock`` in here, and the former one afterwards."""
        before = self._take(clock)
        try:
            yield
        finally:
            self._take(before)

    def follows(self, clock: Clock) -> bool:
        """Whether it reads this clock now."""
        return self._source is clock

    def _take(self, clock: Clock) -> Clock:
        with self._lock:
            before, now = self._source, self.monotonic()
            self._behind = (clock, now - clock.monotonic())
            return before

    @property
    def _source(self) -> Clock:
        return self._behind[0]

    def monotonic(self) -> float:
        """The measuring reading, in seconds; goes on from where it was when the clock behind it changes."""
        source, offset = self._behind
        return source.monotonic() + offset

    def time(self) -> float:
        """The wall reading of the clock behind it."""
        return self._source.time()

    def sleep(self, seconds: float) -> None:
        """Wait as the clock behind it does."""
        self._source.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Wait as the clock behind it does."""
        await self._source.asleep(seconds)

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Wait as the clock behind it does."""
        return self._source.wait(event, timeout)

    async def await_(self, future: asyncio.Future[Any], timeout: float | None) -> bool:  # noqa: ASYNC109 - the clock is what makes timeouts
        """Wait as the clock behind it does."""
        return await self._source.await_(future, timeout)


STEERED: Final = SteeredClock()
"""The one that a process under test shares."""


PARTS_OF_A_CLOCK: Final = ("monotonic", "time", "sleep", "asleep", "wait", "await_")
"""What a clock of somebody's own must have."""


def is_ours(clock: Clock) -> bool:
    """Whether it needs no watching. The clocks of the test kit stand above this module, so they are known by their package."""
    return type(clock).__module__.partition(".")[0] == __name__.partition(".")[0]


class GuardedClock:
    """A user's clock, which may raise: then the last reading stands, it is reported once, and the call goes on."""

    def __init__(self, clock: Clock, listeners: Listeners) -> None:
        self._clock = clock
        self._listeners = listeners
        self._last = {"monotonic": 0.0, "time": 0.0}

    def _read(self, what: str) -> float:
        try:
            value = float(getattr(self._clock, what)())
        except Exception as broken:  # noqa: BLE001 - a clock never changes an outcome
            self._listeners.defect(f"clock.{what}", broken, 0.0, "its last reading was used")
            return self._last[what]
        self._last[what] = value
        return value

    def monotonic(self) -> float:
        """The measuring reading, or the last one."""
        return self._read("monotonic")

    def time(self) -> float:
        """The wall reading, or the last one."""
        return self._read("time")

    def sleep(self, seconds: float) -> None:
        """Block this thread."""
        try:
            self._clock.sleep(seconds)
        except Exception as broken:  # noqa: BLE001 - as above
            self._listeners.defect("clock.sleep", broken, 0.0, "nobody slept")

    async def asleep(self, seconds: float) -> None:
        """Suspend this task."""
        try:
            await self._clock.asleep(seconds)
        except Exception as broken:  # noqa: BLE001 - as above
            self._listeners.defect("clock.asleep", broken, 0.0, "nobody slept")

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until the event is set; False when it was not."""
        try:
            return self._clock.wait(event, timeout)
        except Exception as broken:  # noqa: BLE001 - as above
            self._listeners.defect("clock.wait", broken, 0.0, "nobody waited")
            return event.is_set()

    async def await_(self, future: asyncio.Future[Any], timeout: float | None) -> bool:  # noqa: ASYNC109
        """Suspend until the future is done; False when it was not."""
        try:
            return await self._clock.await_(future, timeout)
        except Exception as broken:  # noqa: BLE001 - as above
            self._listeners.defect("clock.await_", broken, 0.0, "nobody waited")
            return future.done()
