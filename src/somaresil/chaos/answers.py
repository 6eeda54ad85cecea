"""Faults on answers: the callee has done its work, and what becomes of the answer is the experiment's.

- A *lost reply*: the callee acted, the caller is not told. Whoever repeats the call then acts twice, unless there is an idempotency key.
- A stream that is *cut*: after some items the reader gets an error.
- A stream that is *truncated*: after some items it ends as if that had been all. The SDKs of four large model providers raise nothing on a
  stream without a finish reason, so this is the most valuable single fault for code that reads model answers.

A fault counts, and marks its call, when it is made: a call that fails by itself has no reply to lose, a stream that is shorter is not cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from somaresil.guard.call import Opened

if TYPE_CHECKING:
    from somaresil.chaos.run import ExperimentRun
    from somaresil.typing import Call

__all__ = ["LostReply", "StreamEnd"]


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
        struck, error = _strike(self._run, self._component, call, raises=True)
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


class StreamEnd:
    """Ends a stream after some items: with the error of the experiment, or cleanly when ``truncate``."""

    __slots__ = ("after_items", "component", "run", "truncate")

    def __init__(self, run: ExperimentRun, component: str, after_items: int, *, truncate: bool) -> None:
        """Let ``after_items`` items pass."""
        self.run = run
        self.component = component
        self.after_items = after_items
        self.truncate = truncate

    async def __call__(self, call: Call, answer: Any) -> Any:
        """The stream, as far as it goes. Calls that are no streams, and ``with`` blocks, are left alone."""
        if call.block or not isinstance(answer, Opened) or answer.ended:
            return answer
        if self.after_items > 0:
            kind = _Stream if call.runtime.blocking else _AsyncStream
            return answer._replace(source=kind(self, call, answer.source))
        struck, error = self.strike(call)
        if not struck:
            return answer
        await _close(call, answer)
        if error is not None:
            raise error
        return answer._replace(first=None, ended=True)

    def strike(self, call: Call) -> tuple[bool, BaseException | None]:
        """Whether the stream ends here, and with which error; None: cleanly."""
        return _strike(self.run, self.component, call, raises=not self.truncate)


def _strike(run: ExperimentRun, component: str, call: Call, *, raises: bool) -> tuple[bool, BaseException | None]:
    """Count a strike and mark the call. False when the experiment is over, or when something of it is broken: that is no fault."""
    try:
        error = run.config.make_error(component, run.id) if raises else None
        if not run.claim(component):
            return False, None
    except Exception as defect:  # noqa: BLE001 - the engine fails open
        call.listeners.defect("fault on an answer", defect, call.clock.time())
        return False, None
    call.touch()
    return True, error


class _Stream:
    """A generator of which only the first items are seen. The one behind the last is asked for: what ends by itself is not struck."""

    __slots__ = ("_call", "_end", "_left", "_source")

    def __init__(self, end: StreamEnd, call: Call, source: Any) -> None:
        self._end = end
        self._call = call
        self._source = source
        self._left = end.after_items - 1

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> Any:
        return self._seen(next(self._source))

    def send(self, value: Any) -> Any:
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

    def _seen(self, item: Any) -> Any:
        self._left -= 1
        struck, error = (False, None) if self._left >= 0 else self._end.strike(self._call)
        if not struck:
            return item
        self.close()
        raise StopIteration if error is None else error


class _AsyncStream:
    """As :class:`_Stream`, for an async generator."""

    __slots__ = ("_call", "_end", "_left", "_source")

    def __init__(self, end: StreamEnd, call: Call, source: Any) -> None:
        self._end = end
        self._call = call
        self._source = source
        self._left = end.after_items - 1

    def __aiter__(self) -> _AsyncStream:
        return self

    async def __anext__(self) -> Any:
        return await self._seen(await self._source.__anext__())

    async def asend(self, value: Any) -> Any:
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

    async def _seen(self, item: Any) -> Any:
        self._left -= 1
        struck, error = (False, None) if self._left >= 0 else self._end.strike(self._call)
        if not struck:
            return item
        await self.aclose()
        raise StopAsyncIteration if error is None else error


async def _close(call: Call, answer: Any) -> None:
    """Let go of a stream that nobody will read."""
    if isinstance(answer, Opened) and not answer.ended:
        close = getattr(answer.source, "close" if call.runtime.blocking else "aclose", None)
        if close is not None:
            done = close()
            if done is not None:
                await done
