"""Connection pools: connections are checked out and not used, until the pool has none left for anybody else."""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar

from somaresil.chaos.resources.kinds import amount_of
from somaresil.chaos.resources.limits import Bound
from somaresil.chaos.resources.loops import Companions, forever
from somaresil.config import did_you_mean
from somaresil.errors import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.resources.hold import Hold
    from somaresil.chaos.resources.kinds import Ask
    from somaresil.chaos.resources.loops import Companion
    from somaresil.chaos.resources.registry import RegisteredPool, Registry
    from somaresil.config import Checker

__all__ = ["Connections"]


class Connections:
    """Checks connections of a registered pool out; by default all that it has."""

    unit: ClassVar[str] = "connections"
    takes_rest: ClassVar[bool] = True

    def __init__(self, registry: Registry) -> None:
        """The pools that are registered there."""
        self._registry = registry

    def missing(self) -> str:
        """Nothing."""
        return ""

    def check(self, check: Checker, ask: Ask) -> float:
        """A pool that is registered, and not more than it has."""
        pools = self._registry.pools
        pool = pools.get(ask.rest)
        if pool is None:
            known = ", ".join(f"resource:pool:{name}" for name in sorted(pools))
            hint = did_you_mean(ask.target, [f"resource:pool:{name}" for name in pools]) or "see chaos.register_pool(name, ...)"
            check.problem(ask.field, ask.target, f"a registered pool ({known or 'there are none'})", hint)
            return 1.0
        if pool.size is None and ask.amount is None:
            check.problem("amount", None, "a number of connections", "the pool was registered without its size")
            return 1.0
        if pool.loop is not None and not pool.loop.is_running():
            check.problem(ask.field, ask.target, "a pool whose event loop runs", "register it again in the loop that uses it")
        size = math.inf if pool.size is None else pool.size
        return amount_of(check, ask, size, [Bound(size, "those that the pool has")], self.unit)

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Check them out one by one; one that is in use is taken when it comes back."""
        pool = self._registry.pools[ask.rest]
        if pool.loop is None:
            return _Plain(hold, pool, failed).start()

        async def body(here: Companion) -> None:
            del here
            taken: list[Any] = []
            try:
                try:
                    while len(taken) < hold.asked and not hold.over:
                        taken.append(await pool.checkout())
                        hold.add(1)
                except Exception as none_left:  # noqa: BLE001 - whatever a pool says when it has none left
                    hold.settle(describe(none_left))
                else:
                    hold.settle()
                await forever()
            finally:
                for connection in taken:
                    try:
                        await pool.giveback(connection)
                    except Exception as defect:  # noqa: BLE001 - the others must be given back
                        failed(defect)

        companions = Companions([pool.loop], body, failed=failed, all_left=ended)
        companions.start()
        return companions.end


class _Plain:
    """A pool of plain functions. Checking out may block, so a thread of its own does it."""

    def __init__(self, hold: Hold, pool: RegisteredPool, failed: Callable[[Exception], object]) -> None:
        self._hold = hold
        self._pool = pool
        self._failed = failed
        self._taken: deque[Any] = deque()

    def start(self) -> Callable[[], None]:
        threading.Thread(target=self._check_out, name="somaresil-pool", daemon=True).start()
        return self._give_back

    def _check_out(self) -> None:
        hold, limited = self._hold, ""
        while len(self._taken) < hold.asked and not hold.over:
            try:
                self._taken.append(self._pool.checkout())
            except Exception as none_left:  # noqa: BLE001 - whatever a pool says when it has none left
                limited = describe(none_left)
                break
            hold.note(len(self._taken))
        hold.settle(limited)
        if hold.over:
            # It ended while a connection was waited for.
            self._give_back()

    def _give_back(self) -> None:
        if self._hold.forked:
            # A connection must not be used by two processes: the parent has it, and the child lets go of it.
            self._taken.clear()
            return
        while self._taken:
            try:
                connection = self._taken.pop()
            except IndexError:
                return
            try:
                self._pool.giveback(connection)
            except Exception as defect:  # noqa: BLE001 - the others must be given back
                self._failed(defect)
