"""In which guarded call a line of code runs, read from the frames that are there anyway: no call pays for being found.

A coroutine that runs has those that wait for it below it on the stack, and so has a generator. Therefore the frames of a thread tell of
every guarded call around, quiet or not: the wrapper of a quiet call knows its guard, the full path has its ``Call`` at hand. What they do
not tell is who has started the thread or task in which they run; :mod:`somaresil.logcontext` follows calls there for who pays for it.
"""

from __future__ import annotations

import sys
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.guard import block, stream, wrap
from somaresil.guard.core import Guard
from somaresil.policy.fault import FaultPoint

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_FRAMES", "Standing", "of_call", "standing"]

MOST_FRAMES: Final = 200
"""How many frames are looked at: a call further out is not found."""


class Standing(NamedTuple):
    """The innermost guarded call around."""

    guard: str
    attempt: int
    """Which attempt of its retries, from 1."""
    started: float
    """Monotonic time at which the call began."""
    experiment: str
    """The experiment that has struck it, or an empty text."""


def _guarded(factory: Callable[..., Any]) -> CodeType:
    """The code of the wrappers that ``factory`` makes."""
    return next(part for part in factory.__code__.co_consts if isinstance(part, CodeType) and part.co_name == "guarded")


_CALLS: Final = frozenset(
    {
        Guard.drive.__code__,
        Guard.adrive.__code__,
        FaultPoint._pass.__code__,  # noqa: SLF001 - a further attempt of a hedge runs in a task of its own, and comes by here
        _guarded(stream.stream_wrapper),
        _guarded(stream.async_stream_wrapper),
    }
)
"""Frames that have a ``call``."""
_QUIET: Final = frozenset({_guarded(wrap._function_wrapper), _guarded(wrap._coroutine_wrapper)})  # noqa: SLF001 - of the same package
"""Frames that have a ``guard``, whose call is quiet or on the express path if no frame of the others is further in."""

_NAMES: Final = frozenset(code.co_name for code in _CALLS | _QUIET)
"""Asked first: a name has its hash at hand, that of a code object is made anew from all its parts."""


def of_call(call: Any) -> Standing:
    """Where code stands that this call has called."""
    return Standing(call.guard, call.attempt or 1, call.started, getattr(call, "struck_by", ""))


def standing() -> Standing | None:
    """The innermost guarded call around the caller; None: there is none that can be seen.

    A ``with`` block is seen in whatever tasks and threads have its context, a decorated call only in its own.
    """
    inner = _by_frames()
    open_block = block.innermost()
    if open_block is not None and (inner is None or open_block.started > inner.started):
        return of_call(open_block)
    return inner


def _by_frames() -> Standing | None:
    frame = sys._getframe(1)  # noqa: SLF001 - as logging itself does
    for _ in range(MOST_FRAMES):
        code = frame.f_code
        if code.co_name in _NAMES:
            if code in _QUIET:
                found = frame.f_locals
                return Standing(found["guard"].name, 1, found.get("started", -sys.float_info.max), "")
            if code in _CALLS and (call := frame.f_locals.get("call")) is not None:
                return of_call(call)
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None
