"""Streams: generators and async generators, judged by how they end.

The policies are passed with the first item, so retry and fallback may still begin a stream anew; after the first item nothing is ever
repeated (stamina and others restart the stream, and the reader sees its beginning twice). Permits are held until the stream ends. A
reader that leaves early has abandoned the stream; that says nothing about its source.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from somaresil.guard.call import AsyncStreamCall, StreamCall
from somaresil.policy.timeout import within
from somaresil.runtime import shorten

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard.call import Opened
    from somaresil.guard.core import Guard

__all__ = ["async_stream_wrapper", "stream_wrapper"]


def stream_wrapper(guard: Guard, function: Callable[..., Any], make: Callable[..., StreamCall] = StreamCall) -> Callable[..., Any]:
    """Guard a generator function. ``send``, ``throw``, ``close`` and the return value reach the generator as before (PEP 380).

    ``make`` makes the calls.
    """
    guard.has_streams = True

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        call = make(guard, function, args, kwargs)
        opened: Opened = guard.drive(call)
        source, item = opened.source, opened.first
        value = item if opened.ended else None
        try:
            if not opened.ended:
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        _close(source)
                        raise
                    except BaseException as thrown:
                        throw = getattr(source, "throw", None)
                        if throw is None:
                            raise
                        item = throw(thrown)
                    else:
                        timeout, asked = guard.timeout, guard.monotonic()
                        limit = None if timeout is None else timeout.next_limit(call)[0]
                        try:
                            item = next(source) if sent is None else source.send(sent)
                        finally:
                            if limit is not None and guard.monotonic() - asked > limit:
                                call.late = True
        except StopIteration as stop:
            value = stop.value
        except BaseException as error:
            guard.end(call, call.judge(None, error), error)
            shorten(error)
            raise
        guard.end(call, call.judge(value, None), None)
        return value

    return guarded


def async_stream_wrapper(
    guard: Guard, function: Callable[..., Any], make: Callable[..., AsyncStreamCall] = AsyncStreamCall
) -> Callable[..., Any]:
    """Guard an async generator function. ``asend``, ``athrow`` and ``aclose`` reach the generator as before. ``make`` makes the calls."""
    guard.has_streams = True

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        call = make(guard, function, args, kwargs)
        opened: Opened = await guard.adrive(call)
        source, item = opened.source, opened.first
        try:
            if not opened.ended:
                while True:
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as thrown:
                        throw = getattr(source, "athrow", None)
                        if throw is None:
                            raise
                        step = throw(thrown)
                    else:
                        step = source.__anext__() if sent is None else source.asend(sent)
                    timeout = guard.timeout
                    limit, phase = (None, "") if timeout is None else timeout.next_limit(call)
                    item = await (step if limit is None else within(limit, phase, guard.name, step, usual=phase == "idle"))
        except StopAsyncIteration:
            pass
        except BaseException as error:
            try:
                # The source is closed before the books are, so that its own cleaning up is part of the call.
                await _aclose(source)
            except BaseException as worse:
                guard.end(call, call.judge(None, worse), worse)
                raise
            guard.end(call, call.judge(None, error), error)
            shorten(error)
            raise
        guard.end(call, call.judge(None, None), None)

    return guarded


def _close(source: Any) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()


async def _aclose(source: Any) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
