"""Streams: generators and async generators, judged by how they end.

The policies are passed with the first item, so retry and fallback may still begin a stream anew; after the first item nothing is ever
repeated (stamina and others restart the stream, and the reader sees its beginning twice), unless ``Retry(resume=...)`` says how to go on
from there. Permits are held until the stream ends. A reader that leaves early has abandoned the stream; that says nothing about its
source.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

from somaresil.guard.call import AsyncStreamCall, StreamCall
from somaresil.outcome import Outcome
from somaresil.pace import Pace
from somaresil.policy.retry import StreamProgress
from somaresil.policy.timeout import within
from somaresil.runtime import run_sync, shorten

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard.call import Opened
    from somaresil.guard.core import Guard

__all__ = ["async_stream_wrapper", "stream_wrapper"]

_S = TypeVar("_S", StreamCall, AsyncStreamCall)


def stream_wrapper(  # noqa: C901, PLR0915 - one generator, as PEP 380 has it
    guard: Guard, function: Callable[..., Any], make: Callable[..., StreamCall] = StreamCall
) -> Callable[..., Any]:
    """Guard a generator function. ``send``, ``throw``, ``close`` and the return value reach the generator as before (PEP 380).

    ``make`` makes the calls.
    """
    guard.has_streams = True

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912, PLR0915 - as above
        call = make(guard, function, args, kwargs)
        call.pace = pace = Pace() if guard.probes else None
        opened: Opened = guard.drive(call)
        source, item = opened.source, opened.first
        if pace is not None and not opened.ended:
            pace.came(guard.monotonic())
        value = item if opened.ended else None
        seen = 1
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
                        except StopIteration:
                            raise
                        except Exception as broken:
                            part = _gone_on(guard, call, broken, seen, item)
                            if part is None:
                                raise
                            call, source, item = part
                            limit = None
                        finally:
                            if limit is not None and guard.monotonic() - asked > limit:
                                call.late = True
                            if pace is not None:
                                pace.asked = asked
                                pace.came(guard.monotonic())
                    seen += 1
        except StopIteration as stop:
            value = stop.value
        except BaseException as error:
            guard.end(call, call.judge(None, error), error)
            shorten(error)
            raise
        guard.end(call, call.judge(value, None), None)
        return value

    return guarded


def async_stream_wrapper(  # noqa: C901, PLR0915 - as above
    guard: Guard, function: Callable[..., Any], make: Callable[..., AsyncStreamCall] = AsyncStreamCall
) -> Callable[..., Any]:
    """Guard an async generator function. ``asend``, ``athrow`` and ``aclose`` reach the generator as before. ``make`` makes the calls."""
    guard.has_streams = True

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: C901, PLR0912, PLR0915 - as above
        call = make(guard, function, args, kwargs)
        call.pace = pace = Pace() if guard.probes else None
        opened: Opened = await guard.adrive(call)
        source, item = opened.source, opened.first
        if pace is not None and not opened.ended:
            pace.came(guard.monotonic())
        seen = 1
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
                        step, asked = throw(thrown), False
                    else:
                        step, asked = source.__anext__() if sent is None else source.asend(sent), True
                    timeout = guard.timeout
                    limit, phase = (None, "") if timeout is None else timeout.next_limit(call)
                    if pace is not None:
                        pace.asked = guard.monotonic()
                    try:
                        item = await (step if limit is None else within(limit, phase, guard.name, step, usual=phase == "idle"))
                    except StopAsyncIteration:
                        raise
                    except Exception as broken:
                        # What a reader has thrown into it is his own affair.
                        part = await _agone_on(guard, call, source, broken, seen, item) if asked else None
                        if part is None:
                            raise
                        call, source, item = part
                    finally:
                        if pace is not None:
                            pace.came(guard.monotonic())
                    seen += 1
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


def _gone_on(guard: Guard, call: StreamCall, error: Exception, items: int, last: Any) -> tuple[StreamCall, Any, Any] | None:
    """Go on with a stream that broke: the call that does, its source and the next item; None: it is not gone on with.

    Raises ``StopIteration`` when there is no more of it.
    """
    planned = _planned(guard, call, error, items, last)
    if planned is None:
        return None
    pause, other = planned
    try:
        run_sync(call.runtime.sleep(pause))
        opened: Opened = run_sync(guard.within_hedge(other))
    except BaseException:
        call.injected = other.injected
        raise
    if opened.ended:
        other.end(Outcome.GOOD, guard.monotonic())
        call.injected = other.injected
        raise StopIteration(opened.first)
    return other, opened.source, opened.first


async def _agone_on(
    guard: Guard, call: AsyncStreamCall, source: Any, error: Exception, items: int, last: Any
) -> tuple[AsyncStreamCall, Any, Any] | None:
    """The same for an async generator; raises ``StopAsyncIteration`` when there is no more of it."""
    planned = _planned(guard, call, error, items, last)
    if planned is None:
        return None
    pause, other = planned
    try:
        await _aclose(source)
        await call.runtime.sleep(pause)
        opened: Opened = await guard.within_hedge(other)
    except BaseException:
        call.injected = other.injected
        raise
    if opened.ended:
        other.end(Outcome.GOOD, guard.monotonic())
        call.injected = other.injected
        raise StopAsyncIteration
    return other, opened.source, opened.first


def _planned(guard: Guard, call: _S, error: Exception, items: int, last: Any) -> tuple[float, _S] | None:
    """The pause before a stream is gone on with, and the call that does it; None: it is not.

    What held permits for the part that broke gives them back and hears how that ended; the whole is booked once, as it ends.
    """
    retry = guard.retry
    if retry is None or retry.options.resume is None:
        return None
    planned = retry.going_on(call, error, StreamProgress(call.args, call.kwargs, items, last))
    if planned is None:
        return None
    pause, args, kwargs = planned
    call.end(call.judge(None, error), guard.monotonic())
    other = call.sibling()
    other.pace = call.pace
    other.args, other.kwargs, other.attempt, other.injected = args, kwargs, call.attempt, call.injected
    return pause, other


def _close(source: Any) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()


async def _aclose(source: Any) -> None:
    close = getattr(source, "aclose", None)
    if close is not None:
        await close()
