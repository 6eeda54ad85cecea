"""One call on its way through the full path, and the four ways in which a callee is called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from somaresil.deadline import current, cut_off
from somaresil.outcome import Fatal, Outcome, outcome_of
from somaresil.runtime import Carried, raise_again

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from somaresil.guard.core import Guard
    from somaresil.pace import Pace
    from somaresil.runtime import Runtime

__all__ = [
    "AsyncBlockCall",
    "AsyncStreamCall",
    "BlockCall",
    "Call",
    "CoroutineCall",
    "FunctionCall",
    "KeyOf",
    "Opened",
    "StreamCall",
    "callee",
    "judge",
]


KeyOf = Callable[[tuple[Any, ...], dict[str, Any]], Hashable | None]
"""What reads the key of a call from its arguments."""


class Opened(NamedTuple):
    """A stream with its first item, or one that ended without any."""

    source: Any
    first: Any
    ended: bool = False


def judge(
    guard: Guard, result: object, error: BaseException | None, started: float, usual: Outcome | None = None
) -> tuple[Outcome, Fatal | None]:
    """How the end of a call counts, by the guard's ``classify`` or the usual rule, and whether it is fatal. Never raises."""
    usual = outcome_of(guard.name, error) if usual is None else usual
    if usual is not Outcome.GOOD:
        usual = cut_off(usual, error, started, guard.monotonic())
    classify = guard.options.classify
    # Nobody has a say about a call that was not made or whose caller went away.
    if classify is None or usual not in {Outcome.GOOD, Outcome.BAD}:
        return usual, None
    try:
        said = classify(result, error)
        if isinstance(said, Fatal):
            return Outcome.BAD, said
        return usual if said is None else Outcome(said), None
    except Exception as broken:  # noqa: BLE001 - a classifier never changes what the caller gets
        guard.listeners.defect(f"classify of guard {guard.name}", broken, guard.clock.time(), "the usual judgement was used")
        return usual, None


class Call:
    """See :class:`somaresil.typing.Call`."""

    __slots__ = (
        "_ends",
        "_guard",
        "args",
        "attempt",
        "clock",
        "era",
        "fatal",
        "function",
        "guard",
        "injected",
        "key",
        "kwargs",
        "late",
        "listeners",
        "made",
        "replayed",
        "scope",
        "started",
        "struck_by",
        "timed_from",
    )
    lasting = False
    block = False
    blocking = False

    def __init__(self, guard: Guard, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A call that begins now."""
        self._guard = guard
        self.guard = guard.name
        self.function = function
        self.args = args
        self.kwargs = kwargs
        self.clock = guard.clock
        self.listeners = guard.listeners
        self.attempt = 0
        self.made = 0
        self.injected = False
        self.key: Hashable | None = None
        self.late = False
        self.fatal: Fatal | None = None
        self.replayed: BaseException | None = None
        self.era = 0
        self.scope: Any = None
        self._ends: list[Callable[[Outcome, float], None]] = []
        self.started = self.timed_from = guard.monotonic()

    def touch(self, by: str = "") -> None:
        """An experiment strikes it, whose id is ``by`` where that is known."""
        if by:
            # Set only here: few calls are struck.
            self.struck_by = by
        if not self.injected:
            self.injected = True
            self._guard.faults.touched(1)
        self._guard.faults.struck(self)

    def judge(self, result: object, error: BaseException | None) -> Outcome:
        """How this end counts. Never raises."""
        error = error.error if isinstance(error, Carried) else error
        outcome, self.fatal = judge(self._guard, result, error, self.started, self.usual(result, error))
        return Outcome.BAD if self.late and outcome is Outcome.GOOD else outcome

    def usual(self, result: object, error: BaseException | None) -> Outcome:  # noqa: ARG002 - calls of clients have answers that are bad
        """How it counts when ``classify`` has no say."""
        return outcome_of(self.guard, error)

    def time_left(self) -> float | None:
        """Seconds until the deadline of the request, at least 0; None: it has none."""
        deadline = current()
        return None if deadline is None else max(0.0, deadline.at - self.clock.monotonic())

    def repeatable(self) -> bool | None:
        """Whether calling again does no harm, by what the guard was told; None: it was told nothing. Never raises."""
        declared = self._guard.options.idempotent
        if declared is None or isinstance(declared, bool):
            return declared
        try:
            key = _argument(self.function, declared, self) if isinstance(declared, str) else declared(*self.args, **self.kwargs)
        except Exception as broken:  # noqa: BLE001 - what cannot be told to be safe is not
            self.listeners.defect(f"idempotent of guard {self.guard}", broken, self.clock.time(), "the call was not repeated")
            return False
        return key is not None and key is not False and key != ""

    def at_end(self, done: Callable[[Outcome, float], None]) -> None:
        """Have ``done`` called when a lasting call ends."""
        self._ends.append(done)

    def end(self, outcome: Outcome, now: float) -> None:
        """Tell everybody who waits for the end, innermost first; each of them once."""
        while self._ends:
            done = self._ends.pop(0)
            try:
                done(outcome, now)
            except Exception as broken:  # noqa: BLE001 - our defect is not the caller's
                self.listeners.defect(f"end of a call of guard {self.guard}", broken, self.clock.time())

    def sibling(self) -> Self:
        """Another attempt of this call, with books of its own until :meth:`absorb`."""
        other = type(self)(self._guard, self.function, self.args, self.kwargs)
        other.started, other.key = self.started, self.key
        return other

    def absorb(self, other: Call, *, won: bool = False) -> None:
        """Take over what an attempt that has ended leaves behind: that it was struck and, when it is the one that counts, its permits."""
        if other is not self and other.injected:
            if self.injected:
                self._guard.faults.touched(-1)
            self.injected = True
            other.injected = False
            self.struck_by = getattr(other, "struck_by", "")
        if won:
            self._ends, other._ends = other._ends, self._ends
            self.attempt, self.late, self.timed_from = other.attempt, other.late, other.timed_from
        other.end(Outcome.ABANDONED, self._guard.monotonic())

    @property
    def owner(self) -> Guard:
        """The guard itself."""
        return self._guard

    @property
    def runtime(self) -> Runtime:
        """How it waits."""
        raise NotImplementedError

    async def discard(self, result: Any) -> None:
        """Do away with what an attempt has answered and nobody wants."""

    async def invoke(self, function: Callable[..., Any]) -> Any:
        """Call ``function`` in the way of this kind of call."""
        raise NotImplementedError


class FunctionCall(Call):
    """A plain function."""

    __slots__ = ()
    blocking = True

    @property
    def runtime(self) -> Runtime:
        """It blocks."""
        return self._guard.blocking

    async def invoke(self, function: Callable[..., Any]) -> Any:
        """Call it; no suspension."""
        try:
            return function(*self.args, **self.kwargs)
        except StopIteration as stop:
            raise Carried(stop) from None


class CoroutineCall(Call):
    """A coroutine function."""

    __slots__ = ()

    @property
    def runtime(self) -> Runtime:
        """It suspends."""
        return self._guard.suspending

    async def invoke(self, function: Callable[..., Any]) -> Any:
        """Call it and await what can be awaited: a fallback may be a plain function."""
        result = function(*self.args, **self.kwargs)
        return await result if hasattr(result, "__await__") else result


class StreamCall(FunctionCall):
    """A generator function, as far as its first item."""

    __slots__ = ("pace",)
    lasting = True

    def __init__(self, guard: Guard, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A stream that begins now."""
        super().__init__(guard, function, args, kwargs)
        self.pace: Pace | None = None

    async def invoke(self, function: Callable[..., Any]) -> Opened:
        """Begin the stream."""
        source = iter(function(*self.args, **self.kwargs))
        try:
            return Opened(source, next(source))
        except StopIteration as stop:
            return Opened(source, stop.value, ended=True)


class AsyncStreamCall(CoroutineCall):
    """An async generator function, as far as its first item."""

    __slots__ = ("pace",)
    lasting = True

    def __init__(self, guard: Guard, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A stream that begins now."""
        super().__init__(guard, function, args, kwargs)
        self.pace: Pace | None = None

    async def invoke(self, function: Callable[..., Any]) -> Opened:
        """Begin the stream. A fallback may answer with any iterable, or have to be awaited for it."""
        answer = function(*self.args, **self.kwargs)
        if hasattr(answer, "__await__"):
            answer = await answer
        source = (answer if hasattr(answer, "__aiter__") else _each(answer)).__aiter__()
        try:
            return Opened(source, await source.__anext__())
        except StopAsyncIteration:
            return Opened(source, None, ended=True)
        except BaseException:
            # A timeout may have cancelled it in the middle of its first item.
            close = getattr(source, "aclose", None)
            if close is not None:
                await close()
            raise

    async def discard(self, result: Opened) -> None:
        """Close the stream."""
        close = getattr(result.source, "aclose", None)
        if close is not None:
            await close()


class BlockCall(FunctionCall):
    """A ``with`` block: the callee is whatever stands in it."""

    __slots__ = ()
    lasting = True
    block = True

    async def invoke(self, function: Callable[..., Any]) -> None:
        """Let the block begin."""


class AsyncBlockCall(CoroutineCall):
    """An ``async with`` block."""

    __slots__ = ()
    lasting = True
    block = True

    async def invoke(self, function: Callable[..., Any]) -> None:
        """Let the block begin."""


def _argument(function: Callable[..., Any], name: str, call: Call) -> Any:
    """The argument called ``name``; None when it was not given and has no default."""
    if name in call.kwargs:
        return call.kwargs[name]
    bound = inspect.signature(function).bind_partial(*call.args, **call.kwargs)
    bound.apply_defaults()
    return bound.arguments.get(name)


async def _each(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


async def callee(call: Call) -> Any:
    """The innermost end of every chain of policies."""
    if call.replayed is not None:
        # The first attempt was made on the quiet path and has failed: every policy shall see that as if it had been here.
        error, call.replayed = call.replayed, None
        try:
            raise_again(error)
        finally:
            del error
    call.made += 1
    return await call.invoke(call.function)
