"""The only place where synchronous and asynchronous calls differ.

A policy is written once, as ``async def``. It waits only through the runtime of the call: in a synchronous call the runtime blocks and the
coroutine never suspends, so a single ``send(None)`` runs it to its end (Polly v8 does this with completed tasks).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from somaresil.typing import Clock

__all__ = [
    "Asyncio",
    "Blocking",
    "Carried",
    "Runtime",
    "Waiter",
    "foreign",
    "original",
    "raise_again",
    "run_sync",
    "set_context",
    "shorten",
    "twin",
]


class Waiter(Protocol):
    """Somebody who waits to be woken, in a thread or in a task."""

    def wake(self) -> None:
        """End the wait. From any thread, as often as you like, before or after the waiting begins."""
        ...

    async def wait(self, timeout: float | None) -> bool:  # noqa: ASYNC109 - a policy has no other way to wait
        """Whether it was woken before ``timeout`` seconds were over."""
        ...


class Runtime(Protocol):
    """How a call waits."""

    @property
    def blocking(self) -> bool:
        """Whether waiting blocks the thread."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def waiter(self) -> Waiter:
        """Something to wait on until somebody wakes it."""
        ...


class Blocking:
    """Waiting blocks the thread; everything is complete when ``await`` returns."""

    __slots__ = ("_clock",)
    blocking = True

    def __init__(self, clock: Clock) -> None:
        """Wait on this clock."""
        self._clock = clock

    async def sleep(self, seconds: float) -> None:
        """Block this thread."""
        self._clock.sleep(seconds)

    def waiter(self) -> Waiter:
        """Wait for a thread event."""
        return _ThreadWaiter(self._clock)


class Asyncio:
    """Waiting suspends the task."""

    __slots__ = ("_clock",)
    blocking = False

    def __init__(self, clock: Clock) -> None:
        """Wait on this clock."""
        self._clock = clock

    async def sleep(self, seconds: float) -> None:
        """Suspend this task."""
        await self._clock.asleep(seconds)

    def waiter(self) -> Waiter:
        """Wait for a future of the running loop."""
        return _TaskWaiter(self._clock)


class _ThreadWaiter:
    __slots__ = ("_clock", "_event")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = threading.Event()

    def wake(self) -> None:
        self._event.set()

    async def wait(self, timeout: float | None) -> bool:  # noqa: ASYNC109
        return self._clock.wait(self._event, timeout)


class _TaskWaiter:
    __slots__ = ("_clock", "_future", "_loop")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            # The loop is closed, so nobody waits on it any more.
            return

    def _resolve(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self, timeout: float | None) -> bool:  # noqa: ASYNC109
        return await self._clock.await_(self._future, timeout)


_T = TypeVar("_T")
_E = TypeVar("_E", bound=BaseException)


class Carried(Exception):
    """Carries a ``StopIteration`` of the callee through coroutines, which would turn it into a ``RuntimeError`` (PEP 479; pluggy #544)."""

    def __init__(self, error: StopIteration) -> None:
        """Keep what is carried."""
        super().__init__(error)
        self.error = error


def original(error: _E) -> _E | StopIteration:
    """What the callee raised, whether it is carried or not."""
    return error.error if isinstance(error, Carried) else error


def raise_again(error: BaseException) -> NoReturn:
    """Raise an error that was caught before, and leave its history as it is: Python would note what the caller handles just now."""
    context = error.__context__
    try:
        raise Carried(error) if isinstance(error, StopIteration) else error
    finally:
        set_context(error, context)
        # This frame is on the traceback of the error: without this the two would keep each other alive.
        del error, context


def twin(error: _E) -> _E:
    """Another object that says the same: type, arguments, attributes, cause and traceback, without a call of ``__init__``.

    One exception that several callers raise collects the traceback of each of them, and each changes it under the others. Those few that
    cannot be made so come back themselves.
    """
    kind = type(error)
    try:
        other = kind.__new__(kind, *error.args)
        for base in kind.__mro__:
            for name, member in vars(base).items():
                # Attributes of classes in C and slots of classes in Python: `errno` of an OSError, `guard` of a rejection.
                if isinstance(member, MemberDescriptorType) and not name.startswith("__"):
                    with contextlib.suppress(AttributeError, TypeError):
                        if (value := member.__get__(error, kind)) is not getattr(other, name, None):
                            member.__set__(other, value)
        vars(other).update(vars(error))
        for part in _PARTS:
            part.__set__(other, part.__get__(error, kind))
    except Exception:  # noqa: BLE001 - a class may do anything in its __new__
        return error
    return other.with_traceback(foreign(error.__traceback__))


_PACKAGE = __name__.partition(".")[0]


def foreign(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame on that is not ours; all of it when every frame is. People look for their own code."""
    rest = trace
    while rest is not None and rest.tb_frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        rest = rest.tb_next
    return trace if rest is None else rest


def shorten(error: BaseException) -> None:
    """Take our own first frames off the traceback of ``error``."""
    # Not by assignment: an exception that is a frozen dataclass refuses that, and its refusal would take its place.
    BaseException.with_traceback(error, foreign(error.__traceback__))


_CONTEXT: Any = BaseException.__dict__["__context__"]
_PARTS: tuple[Any, ...] = tuple(BaseException.__dict__[name] for name in ("args", "__context__", "__cause__", "__suppress_context__"))


def set_context(error: BaseException, context: BaseException | None) -> None:
    """Say what was being handled when ``error`` was raised; as in :func:`shorten`, past what its class does with assignments."""
    _CONTEXT.__set__(error, context)


def run_sync(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine that never suspends. A policy that awaits anything but its runtime is told so."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        value: _T = done.value
        return value
    coroutine.close()
    raise RuntimeError("a policy suspended in a synchronous call: wait only through call.runtime")
