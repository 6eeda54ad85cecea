"""Event loops that a clock does not drive: refused while everybody is to live in its time.

Such a loop waits in real time, so that no window of virtual time ever begins; where ``time.monotonic`` is patched it waits for ever. It is
caught where every loop of asyncio begins to run. Loops that ran before, in threads that were there before, go on.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from somaresil.testing.loop import VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from somaresil.testing.schedule import Schedule

__all__ = ["INSTEAD", "Watch", "only_the_loop_of", "only_virtual_loops"]

INSTEAD: Final = (
    "run it on the clock (in pytest the fixture virtual_time): clock.run(main()), asyncio.Runner(loop_factory=clock.new_loop), "
    'TestClient(app, backend_options={"loop_factory": clock.new_loop})'
)
"""What to do, in any case."""

# The real one, whatever is patched later.
_monotonic = time.monotonic
_lock = threading.Lock()
_watches: tuple[Watch, ...] = ()
_replaced: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
"""What is replaced in ``BaseEventLoop``: what was there, and ours."""


class Watch:
    """Who looks on, and what was refused."""

    def __init__(self, clock: Schedule, where: str, instead: str) -> None:
        """``where`` says who asked for virtual time, ``instead`` what to do."""
        self.clock = clock
        self.refused: list[str] = []
        """What was said, in order: whoever ran the loop may have kept the error to itself."""
        self._where = where
        self._instead = instead
        self._let_go: WeakSet[asyncio.AbstractEventLoop] = WeakSet()

    def may_run(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a loop may begin to run in this thread."""
        raise NotImplementedError

    def may_reach(self, loop: Any) -> bool:  # noqa: ARG002 - for those that look at it
        """Whether this thread may hand something to a loop that runs elsewhere."""
        return True

    def refuse(self, loop: asyncio.AbstractEventLoop) -> str | None:
        """Why a loop may not, once: what then closes it must be able to."""
        if loop in self._let_go:
            return None
        self._let_go.add(loop)
        self.refused.append(
            f"{self._where}: an event loop that is not virtual runs: {type(loop).__name__} in thread {threading.current_thread().name!r}; "
            f"allowed: a loop of {self.clock!r}; {self._instead}"
        )
        return self.refused[-1]


class _OneLoop(Watch):
    def may_run(self, loop: asyncio.AbstractEventLoop) -> bool:
        if isinstance(loop, VirtualLoop) and loop.clock is self.clock:
            return True
        return self.clock.is_bystander(threading.get_ident())


class _VirtualLoops(Watch):
    def __init__(self, clock: Schedule, where: str, instead: str, before: WeakSet[threading.Thread]) -> None:
        super().__init__(clock, where, instead)
        self._before = before
        self._ident = threading.get_ident()

    def may_run(self, loop: asyncio.AbstractEventLoop) -> bool:
        if isinstance(loop, VirtualLoop) or self.clock.is_bystander(threading.get_ident()):
            return True
        # Beside a virtual loop there may be a server in a thread of its own.
        return threading.get_ident() != self._ident and self.clock.driven

    def may_reach(self, loop: Any) -> bool:
        if isinstance(loop, VirtualLoop) or threading.get_ident() != self._ident or self.clock.driven:
            return True
        there = getattr(loop, "_thread_id", None)
        return there is None or there == self._ident or any(thread.ident == there for thread in tuple(self._before))


@contextmanager
def only_the_loop_of(clock: Schedule, where: str) -> Generator[Watch]:
    """Let no loop run but that of ``clock``, save in threads that were there before the clock. What runs already goes on.

    Running another one raises ``RuntimeError`` there.
    """
    with _watching(_OneLoop(clock, where, INSTEAD)) as watch:
        yield watch


@contextmanager
def only_virtual_loops(clock: Schedule, where: str, instead: str, before: WeakSet[threading.Thread]) -> Generator[Watch]:
    """Let no loop that is not virtual run in this thread; nor in others, while no loop drives ``clock``.

    Nor may this thread use one meanwhile that runs in a thread that is not one of ``before``. Either raises ``RuntimeError`` there.
    """
    with _watching(_VirtualLoops(clock, where, instead, before)) as watch:
        yield watch


@contextmanager
def _watching(watch: Watch) -> Generator[Watch]:
    global _watches  # noqa: PLW0603 - the loops of a process are one
    with _lock:
        if not _watches:
            _replace()
        _watches = (*_watches, watch)
    try:
        yield watch
    finally:
        with _lock:
            _watches = tuple(other for other in _watches if other is not watch)
            if not _watches:
                _put_back()


def _replace() -> None:
    run, call = asyncio.BaseEventLoop.run_forever, asyncio.BaseEventLoop.call_soon_threadsafe

    def run_forever(self: Any) -> None:
        # It has its own words for loops that cannot run at all.
        if not self.is_closed() and asyncio._get_running_loop() is None:  # noqa: SLF001 - public by documentation, for such as this
            why = [watch.refuse(self) for watch in _watches if not watch.may_run(self)]
            if any(why):
                _wind_down(self, run)
                raise RuntimeError(next(filter(None, why)))
        run(self)

    def call_soon_threadsafe(self: Any, *args: Any, **kwargs: Any) -> Any:
        why = [watch.refuse(self) for watch in _watches if not watch.may_reach(self)]
        if any(why):
            raise RuntimeError(next(filter(None, why)))
        return call(self, *args, **kwargs)

    for name, real, ours in (("run_forever", run, run_forever), ("call_soon_threadsafe", call, call_soon_threadsafe)):
        _replaced[name] = (real, ours)
        setattr(asyncio.BaseEventLoop, name, ours)


def _put_back() -> None:
    for name, (real, ours) in _replaced.items():
        if getattr(asyncio.BaseEventLoop, name) is ours:
            setattr(asyncio.BaseEventLoop, name, real)
    _replaced.clear()


def _wind_down(loop: Any, run_forever: Callable[[Any], None]) -> None:
    """Cancel its tasks before they begin: else they would be told of as never awaited, and hang whoever closes the loop.

    From here on it has the machine's time, so that nothing that it is still to do waits for a clock that stands still.
    """
    loop.time = _monotonic
    for task in asyncio.all_tasks(loop):
        task.cancel()
    # In the first round tasks end, in the second it hears of it.
    for _ in range(2):
        loop.call_soon(loop.stop)
        run_forever(loop)
