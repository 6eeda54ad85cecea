"""One armed partition: what belongs to it, and whether it takes the next connection."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

from somaresil.chaos.run import Numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from somaresil.chaos.network.sink import Sink
    from somaresil.chaos.network.targets import Address, NetTarget
    from somaresil.chaos.run import ExperimentRun
    from somaresil.listeners import Listeners

__all__ = ["BLACKHOLE", "DROP", "LOSS", "MODES", "REFUSE", "RESET", "Cut", "telling"]

REFUSE: Final = "refuse"
BLACKHOLE: Final = "blackhole"
RESET: Final = "reset"
DROP: Final = "drop"
LOSS: Final = "loss"
MODES: Final = (REFUSE, BLACKHOLE, RESET, DROP, LOSS)
"""How a part of the network is cut off; the first is what is meant when nobody says."""

_state = threading.local()


def telling() -> bool:
    """Whether this thread is telling listeners of a strike: what they connect to is not struck, or there would be no end."""
    return getattr(_state, "telling", False)


class Cut:
    """One partition of this process."""

    __slots__ = ("_listeners", "_numbers", "loss", "mode", "pid", "run", "seen", "sink", "target", "whole")

    def __init__(self, run: ExperimentRun, target: NetTarget, listeners: Listeners) -> None:
        """For a run whose configuration has been checked."""
        self.run = run
        self.target = target
        self.mode = run.config.mode or REFUSE
        self.loss: float | None = {DROP: 1.0, LOSS: run.config.loss}.get(self.mode)
        """Share of the packets that the kernel is to lose; None: not by the kernel."""
        self.whole = run.config.failure_rate >= 1.0
        """Whether every connection is struck."""
        self.pid = os.getpid()
        self.sink: Sink | None = None
        self.seen: set[int] = set()
        """Sockets, by inode, about which it has decided."""
        self._listeners = listeners
        self._numbers = Numbers(run.config.target_component)

    def matches(self, addresses: Iterable[Address], names: Collection[str], port: int) -> bool:
        """Whether a peer with one of these addresses, or with these names alone, belongs to it."""
        known = tuple(addresses)
        return any(self.target.matches(address, names, port) for address in known or (None,))

    def takes(self) -> bool:
        """Decide about the next connection: struck or not. Counts and reports a strike."""
        if not (self.run.live and self.run.decide(self._numbers)):
            return False
        before, _state.telling = telling(), True
        try:
            return self.run.claim()
        finally:
            _state.telling = before

    def defect(self, where: str, error: BaseException, consequence: str = "the connection was left alone") -> None:
        """Report what went wrong inside."""
        self._listeners.defect(f"network partition, {where}", error, 0.0, consequence)
