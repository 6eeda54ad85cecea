"""What the hook of a client library asks before it sends something: is the way there, as far as experiments are concerned?

A hook knows what no socket knows: the name of the host, the time-out of the call, and how its library says that a host is gone. It sees
connections that are kept open, those of C libraries too. While nothing is armed the question is one attribute.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from somaresil.chaos.network.board import BOARD
from somaresil.chaos.network.cut import BLACKHOLE, telling
from somaresil.chaos.network.names import NAMES
from somaresil.chaos.network.targets import address_of, plain_host

if TYPE_CHECKING:
    from somaresil.chaos.network.cut import Cut
    from somaresil.chaos.run import ExperimentRun
    from somaresil.runtime import Runtime

__all__ = ["Blackhole", "Refuse", "verdict"]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nobody is there: fail at once, as a refused connection does."""

    run: ExperimentRun

    def error(self) -> ConnectionRefusedError:
        """What the kernel would have said."""
        return ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


@dataclass(frozen=True, slots=True)
class Blackhole:
    """Nobody answers: wait as long as the caller would, then fail as his time-out does."""

    run: ExperimentRun

    async def hold(self, runtime: Runtime, seconds: float | None) -> bool:
        """Wait so long; None: as long as it lasts. False when it has healed meanwhile: then go on, as a packet sent again would."""
        return await self.run.hold(runtime, inf if seconds is None else max(0.0, seconds))


def verdict(host: str, port: int, *, unseen: bool = False) -> Refuse | Blackhole | None:
    """Whether a partition lies between this process and ``host``; None: the way is free. Never raises.

    A strike is counted. With ``unseen``, for clients whose connections no hook of Python sees, partitions of a part of the connections
    (``failure_rate`` below 1) are asked too, once for each question; for the others those decide where the connection is made.
    Partitions by the kernel are none of this.
    """
    cuts = BOARD.cuts
    if not cuts or telling():
        return None
    try:
        return _ask(cuts, host, port, unseen=unseen)
    except Exception as defect:  # noqa: BLE001 - the engine fails open
        cuts[0].defect("asked by a client", defect, "the call went on")
        return None


def _ask(cuts: tuple[Cut, ...], host: str, port: int, *, unseen: bool) -> Refuse | Blackhole | None:
    address = address_of(host)
    if address is None:
        names: tuple[str, ...] = (plain_host(host),)
        addresses = NAMES.addresses(host)
    else:
        names, addresses = NAMES.of(address), [address]
    for cut in cuts:
        if cut.loss is None and (cut.whole or unseen) and cut.matches(addresses, names, port) and cut.takes():
            return Blackhole(cut.run) if cut.mode == BLACKHOLE else Refuse(cut.run)
    return None
