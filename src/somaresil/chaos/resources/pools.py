"""Connection pools: connections are checked out and not used, until the pool has none left for anybody else."""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, Final

from somaresil.chaos.resources.kinds import amount_of
from somaresil.chaos.resources.limits import Bound, ceiling
from somaresil.chaos.resources.loops import Companions, forever
from somaresil.config import did_you_mean
from somaresil.errors import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.chaos.resources.hold import Hold
    from somaresil.chaos.resources.kinds import Ask
    from somaresil.chaos.resources.loops import Companion
    from somaresil.chaos.resources.registry import RegisteredPool, Registry
    from somaresil.config import Checker

__all__ = ["Connections"]

_AGAIN: Final = 0.02
"""Seconds until a pool whose connections are all in use is asked again."""


class Connections:
    """Checks connections of a registered pool out; by default all that it has but its reserve."""

    unit: ClassVar[str] = "connections"
    takes_rest: ClassVar[bool] = True

    def __init__(self, registry: Registry) -> None:
        """The pools that are registered there."""
        self._registry = registry

    def missing(self) -> str:
        """Nothing."""
        return ""

    def check(self, check: Checker, ask: Ask) -> float:
        """A pool that is registered, and not more than it has, nor than the ceiling."""
        pools = self._registry.pools
        pool = pools.get(ask.rest)
        if pool is None:
            known = ", ".join(f"resource:pool:{name}" for name in sorted(pools))
            hint = did_you_mean(ask.target, [f"resource:pool:{name}" for name in pools]) or "see chaos.register_pool(name, ...)"
            check.problem(ask.field, ask.target, f"a registered pool ({known or 'there are none'})", hint)
            return 1.0
        has = pool.client.size()
        if has is None and ask.amount is None:
            check.problem("amount", None, "a number of connections", "the pool was registered without its size")
            return 1.0
        if pool.loop is not None and not pool.loop.is_running():
            check.problem(ask.field, ask.target, "a pool whose event loop runs", "register it again in the loop that uses it")
        size = math.inf if has is None else has - pool.reserve
        why = "those that the pool has" + (f" less {pool.reserve} in reserve" if pool.reserve else "")
        return amount_of(check, ask, size, [Bound(size, why), ceiling(ask.ceilings.connections, ask.held)], self.unit)

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Check them out one by one; one that is in use is taken when it comes back."""
        pool = self._registry.pools[ask.rest]
        hold.measure = lambda: _figures(pool)
        if pool.loop is None:
            return _Plain(hold, pool, failed).start()

        async def body(here: Companion) -> None:
            del here
            taken: list[Any] = []
            try:
                await _fill(hold, pool, taken)
                await forever()
            finally:
                for connection in taken:
                    try:
                        await pool.client.giveback(connection)
                    except Exception as defect:  # noqa: BLE001 - the others must be given back
                        failed(defect)

        companions = Companions([pool.loop], body, failed=failed, all_left=ended)
        companions.start()
        return companions.end


def _figures(pool: RegisteredPool) -> Mapping[str, float]:
    """The pool's own count."""
    used = pool.client.used
    try:
        return {} if used is None else {"in_use": float(used())}
    except Exception:  # noqa: BLE001 - a count that cannot be had must not keep an experiment from ending
        return {}


async def _fill(hold: Hold, pool: RegisteredPool, taken: list[Any]) -> None:
    while len(taken) < hold.asked and not hold.over:
        try:
            taken.append(await pool.client.checkout())
        except Exception as none_left:  # noqa: BLE001 - whatever a pool says when it has none left
            hold.settle(describe(none_left))
            if not pool.client.full(none_left):
                return
            await asyncio.sleep(_AGAIN)
        else:
            hold.add(1)
    hold.complete()


class _Plain:
    """A pool of plain functions. Checking out may block, so a thread of its own does it."""

    def __init__(self, hold: Hold, pool: RegisteredPool, failed: Callable[[Exception], object]) -> None:
        self._hold = hold
        self._pool = pool.client
        self._failed = failed
        self._taken: deque[Any] = deque()

    def start(self) -> Callable[[], None]:
        threading.Thread(target=self._check_out, name="somaresil-pool", daemon=True).start()
        return self._give_back

    def _check_out(self) -> None:
        self._fill()
        if self._hold.over:
            # It ended while a connection was waited for.
            self._give_back()

    def _fill(self) -> None:
        hold = self._hold
        while len(self._taken) < hold.asked and not hold.over:
            try:
                self._taken.append(self._pool.checkout())
            except Exception as none_left:  # noqa: BLE001 - whatever a pool says when it has none left
                hold.settle(describe(none_left))
                if not self._pool.full(none_left):
                    return
                hold.wait(_AGAIN)
            else:
                hold.note(len(self._taken))
        hold.complete()

    def _give_back(self) -> None:
        # A connection must not be used by two processes: the parent has it, and the child lets go of it.
        giveback = (self._pool.disown or _let_go) if self._hold.forked else self._pool.giveback
        while self._taken:
            try:
                connection = self._taken.pop()
            except IndexError:
                return
            try:
                giveback(connection)
            except Exception as defect:  # noqa: BLE001 - the others must be given back
                self._failed(defect)


def _let_go(connection: object) -> None:
    """Do nothing with it."""
