"""Faults on answers: the callee has done its work, and what becomes of the answer is the experiment's.

- A *lost reply*: the callee acted, the caller is not told. Whoever repeats the call then acts twice, unless there is an idempotency key.
- A stream that is *cut*, *torn*, *stalled* ...: see :mod:`somaresil.chaos.streams`.
- A stream that is *truncated*: after some items it ends as if that had been all. The SDKs of four large model providers raise nothing on a
  stream without a finish reason, so this is the most valuable single fault for code that reads model answers.
- An answer that is *damaged*, *stale*, or that of a model which has gone wrong: see :mod:`somaresil.chaos.transforms`.

A fault counts, and marks its call, when it is made: a call that fails by itself has no reply to lose, a stream that is shorter is not cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.streams import END, SKIP, Shaping, shaping_of, strike
from somaresil.guard.call import Opened
from somaresil.runtime import run_sync

if TYPE_CHECKING:
    from collections.abc import Hashable

    from somaresil.chaos.run import ExperimentRun
    from somaresil.chaos.strikes import Decision
    from somaresil.typing import Call

__all__ = ["AnswerFault", "LostReply", "StaleAnswer", "StreamFault"]

MOST_KEPT: Final = 1_000
"""Answers that one experiment keeps to give them again."""


class LostReply:
    """Drops an answer: waits ``delay`` seconds (a hung connection), then raises the error of the experiment (a broken one)."""

    __slots__ = ("_component", "_delay", "_run")

    def __init__(self, run: ExperimentRun, component: str, delay: float) -> None:
        """Speak of ``component`` in errors."""
        self._run = run
        self._component = component
        self._delay = delay

    async def __call__(self, call: Call, answer: Any) -> Any:
        """The answer when the experiment ends before it is lost; else raises. The body of a ``with`` block has no answer."""
        if call.block:
            return answer
        struck, error = strike(self._run, self._component, call, raises=True, delays=self._delay > 0.0)
        if not struck:
            return answer
        try:
            if self._delay > 0.0 and not await self._run.hold(call.runtime, self._delay):
                return answer
        except BaseException:
            # The caller went away meanwhile, so nobody will read the stream that was opened for him.
            await _close(call, answer)
            raise
        await _close(call, answer)
        if error is None:
            return answer
        raise error


class StaleAnswer:
    """Gives the answer to the first struck call with the same arguments once more. Streams cannot be given twice and are left alone."""

    __slots__ = ("_component", "_kept", "_run")

    def __init__(self, run: ExperimentRun, component: str, kept: dict[Hashable, Any]) -> None:
        """``kept`` are the answers so far; the experiment lets go of them when it ends."""
        self._run = run
        self._component = component
        self._kept = kept

    async def __call__(self, call: Call, answer: Any) -> Any:
        """The earlier answer, if there is one."""
        if call.block or call.lasting or isinstance(answer, Opened):
            return answer
        key: Hashable = (self._component, call.args, tuple(sorted(call.kwargs.items())))
        try:
            hash(key)
        except TypeError:
            key = self._component
        if key not in self._kept:
            if len(self._kept) < MOST_KEPT and self._run.live:
                self._kept[key] = answer
            return answer
        kept = self._kept[key]
        return kept if strike(self._run, self._component, call, raises=False)[0] else answer


class AnswerFault:
    """Changes an answer, or the items of a stream."""

    __slots__ = ("_component", "_decision", "_run")

    def __init__(self, run: ExperimentRun, component: str, decision: Decision) -> None:
        """By the kind of the experiment."""
        self._run = run
        self._component = component
        self._decision = decision

    async def __call__(self, call: Call, answer: Any) -> Any:
        """What the caller gets."""
        if isinstance(answer, Opened):
            return await StreamFault(self._run, self._component, self._decision)(call, answer)
        if call.block:
            return answer
        changed = await shaping_of(self._run, self._component, self._decision, call).see(answer)
        # Of an answer that was to be dropped there is nothing left.
        return None if changed is SKIP else changed


class StreamFault:
    """Does to a stream what its experiment says. Calls that are no streams, and ``with`` blocks, are left alone."""

    __slots__ = ("_component", "_decision", "_run")

    def __init__(self, run: ExperimentRun, component: str, decision: Decision) -> None:
        """By the kind of the experiment."""
        self._run = run
        self._component = component
        self._decision = decision

    async def __call__(self, call: Call, answer: Any) -> Any:
        """The stream, with the first item seen."""
        if call.block or not isinstance(answer, Opened) or answer.ended:
            return answer
        shaping = shaping_of(self._run, self._component, self._decision, call)
        blocking = call.runtime.blocking
        stream: _Stream | _AsyncStream = (_Stream if blocking else _AsyncStream)(shaping, answer.source)
        try:
            first = await shaping.see(answer.first)
        except BaseException:
            await _close(call, answer)
            raise
        if first is SKIP:
            try:
                first = next(stream) if isinstance(stream, _Stream) else await stream.__anext__()
            except (StopIteration, StopAsyncIteration) as stop:
                return answer._replace(first=getattr(stop, "value", None), ended=True)
        elif first is END:
            await _close(call, answer)
            return answer._replace(first=None, ended=True)
        return answer._replace(source=stream, first=first)


class _Stream:
    """A generator as a shaping lets it be seen."""

    __slots__ = ("_shaping", "_source")

    def __init__(self, shaping: Shaping, source: Any) -> None:
        self._shaping = shaping
        self._source = source

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        self._broken()
        return self._seen(next(self._source))

    def send(self, value: Any) -> Any:
        self._broken()
        return self._seen(self._source.send(value))

    def throw(self, error: BaseException) -> Any:
        throw = getattr(self._source, "throw", None)
        if throw is None:
            raise error
        return self._seen(throw(error))

    def close(self) -> None:
        close = getattr(self._source, "close", None)
        if close is not None:
            close()

    def _broken(self) -> None:
        pending, self._shaping.pending = self._shaping.pending, None
        if pending is not None:
            self.close()
            raise pending

    def _seen(self, item: Any) -> Any:
        while True:
            try:
                seen = run_sync(self._shaping.see(item))
            except BaseException:
                self.close()
                raise
            if seen is END:
                self.close()
                raise StopIteration
            if seen is not SKIP:
                return seen
            item = next(self._source)


class _AsyncStream:
    """As :class:`_Stream`, for an async generator."""

    __slots__ = ("_shaping", "_source")

    def __init__(self, shaping: Shaping, source: Any) -> None:
        self._shaping = shaping
        self._source = source

    def __aiter__(self) -> _AsyncStream:
        return self

    async def __anext__(self) -> Any:
        await self._broken()
        return await self._seen(await self._source.__anext__())

    async def asend(self, value: Any) -> Any:
        await self._broken()
        return await self._seen(await self._source.asend(value))

    async def athrow(self, error: BaseException) -> Any:
        throw = getattr(self._source, "athrow", None)
        if throw is None:
            raise error
        return await self._seen(await throw(error))

    async def aclose(self) -> None:
        close = getattr(self._source, "aclose", None)
        if close is not None:
            await close()

    async def _broken(self) -> None:
        pending, self._shaping.pending = self._shaping.pending, None
        if pending is not None:
            await self.aclose()
            raise pending

    async def _seen(self, item: Any) -> Any:
        while True:
            try:
                seen = await self._shaping.see(item)
            except BaseException:
                await self.aclose()
                raise
            if seen is END:
                await self.aclose()
                raise StopAsyncIteration
            if seen is not SKIP:
                return seen
            item = await self._source.__anext__()


async def _close(call: Call, answer: Any) -> None:
    """Let go of a stream that nobody will read."""
    if isinstance(answer, Opened) and not answer.ended:
        close = getattr(answer.source, "close" if call.runtime.blocking else "aclose", None)
        if close is not None:
            done = close()
            if done is not None:
                await done
