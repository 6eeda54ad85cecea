"""Guarded blocks: ``with guard:`` and ``async with guard:``. A guard is one object, and its blocks are many."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.guard.call import AsyncBlockCall, BlockCall
from somaresil.policy.timeout import leave_block

if TYPE_CHECKING:
    from collections.abc import Hashable

    from somaresil.guard.call import Call
    from somaresil.guard.core import Guard

__all__ = ["abegin", "aend", "begin", "end", "innermost"]

_NOT_AROUND_BLOCKS: Final = ("retry", "hedge", "single_flight", "fallback")


def begin(guard: Guard, key: Hashable | None = None) -> None:
    """Begin a block, whose calls count for ``key``."""
    call = BlockCall(guard, _body, (), {})
    call.key = key
    _check(guard)
    guard.drive(call)
    _open(guard, call)


def end(guard: Guard, error: BaseException | None, key: Hashable | None = None) -> None:
    """Judge the innermost block of this guard and key."""
    call = _pop(guard, BlockCall, key)
    now = guard.monotonic()
    call.late = guard.timeout is not None and guard.timeout.expired(call, now)
    guard.end(call, call.judge(None, error), error)


async def abegin(guard: Guard, key: Hashable | None = None) -> None:
    """Begin a block that may be cancelled when its time is up."""
    call = AsyncBlockCall(guard, _body, (), {})
    call.key = key
    _check(guard)
    await guard.adrive(call)
    _open(guard, call)


async def aend(guard: Guard, error: BaseException | None, key: Hashable | None = None) -> None:
    """Judge the innermost such block of this guard and key."""
    call = _pop(guard, AsyncBlockCall, key)
    try:
        await leave_block(call, error)
    except TimeoutError as late:
        guard.end(call, call.judge(None, late), late)
        raise
    guard.end(call, call.judge(None, error), error)


def innermost() -> Call | None:
    """The block that the caller stands in, of whichever guard; None: in none."""
    entry = _open_blocks.get()
    while entry is not None:
        call, entry = entry
        if call in (call.owner.blocks or ()):
            return call
    return None


def _check(guard: Guard) -> None:
    if guard.is_pool:
        check = Checker(f"guard({guard.name!r})")
        hint = "a block does not say where its endpoint goes; use the decorator, or call()"
        check.problem("block", guard.name, "no `with` block of a pool", hint)
        check.finish()
    part = next((part for part in _NOT_AROUND_BLOCKS if getattr(guard, part) is not None), None)
    if part is not None:
        check = Checker(f"guard({guard.name!r})")
        check.problem(
            part, getattr(guard.options, part), "none for a `with` block", "a block cannot be run twice; use the decorator or call()"
        )
        check.finish()


def _open(guard: Guard, call: Call) -> None:
    if guard.blocks is None:
        with _first_block:
            guard.blocks = {} if guard.blocks is None else guard.blocks
    guard.blocks[call] = None
    outer = _open_blocks.get()
    while outer is not None and outer[0] not in (outer[0].owner.blocks or ()):
        # It was ended in another context, which cannot take it off here: a context that lives long would keep all of them.
        outer = outer[1]
    _open_blocks.set((call, outer))


def _pop(guard: Guard, kind: type[Call], key: Hashable | None) -> Call:
    """The call of the block that ends now: the innermost of this guard and key in this context."""
    blocks = guard.blocks or {}
    inner: list[Call] = []
    entry = _open_blocks.get()
    while entry is not None:
        call, outer = entry
        # Taken in one step: a block that ends in another thread may look for one at the same time.
        if _is_of(call, kind, key) and blocks.pop(call, call) is None:
            for other in reversed(inner):
                outer = (other, outer)
            _open_blocks.set(outer)
            return call
        inner.append(call)
        entry = outer
    # It ends in another context than it began in, as a generator does that frameworks run piece by piece in threads (dependencies of
    # FastAPI, fixtures of pytest-asyncio). Blocks of one guard can stand in for one another: every permit is given back once.
    for call in reversed(list(blocks)):
        if _is_of(call, kind, key) and blocks.pop(call, call) is None:
            return call
    raise RuntimeError(f"a `with` block of guard {guard.name!r} ends that has not begun")


def _is_of(call: Call, kind: type[Call], key: Hashable | None) -> bool:
    if not isinstance(call, kind):
        return False
    try:
        return call.key is key or call.key == key
    except Exception:  # noqa: BLE001 - a key of somebody's making that cannot be compared is another one
        return False


_open_blocks: ContextVar[tuple[Call, Any] | None] = ContextVar("somaresil_blocks", default=None)
"""The blocks that are open in this context, innermost first, as a linked list."""


_first_block = threading.RLock()
"""Two threads may open the first block of a guard at once."""


def _body() -> None:
    """Stands for the body of a ``with`` block."""
