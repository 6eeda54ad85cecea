"""The partitions that are armed in this process, and the one lock of everything that belongs to them.

Patched methods belong to the process and not to an engine, so all engines of a process put their partitions here. The lock is taken before
a fork and given back on both sides: the child must be able to take everything away at once.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.chaos.network.cut import Cut

__all__ = ["BOARD", "LOCK", "Board"]

LOCK: Final = threading.RLock()
"""Nothing slow is done under it: no lookup of a name, no look at the connections, no listener."""


class Board:
    """What is armed."""

    __slots__ = ("cuts", "witnesses")

    def __init__(self) -> None:
        """Nothing."""
        self.cuts: tuple[Cut, ...] = ()
        """All that client hooks look at while nothing is armed."""
        self.witnesses: tuple[Callable[[Cut, str, int], object], ...] = ()
        """Told of each connection that was found to have gone past a partition, with host and port."""


BOARD: Final = Board()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=LOCK.release)
