"""What the hooks of client libraries do when an experiment has cut a host off: fail, or wait as long as their caller would."""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.chaos.network.seam import Blackhole, verdict

if TYPE_CHECKING:
    from somaresil.guard.call import Call

__all__ = ["REFUSED", "TIMED_OUT", "cut_off"]

REFUSED = "refused"
TIMED_OUT = "timed out"


async def cut_off(host: str, port: int, call: Call, limit: float | None, *, unseen: bool = False, patient: bool = False) -> str | None:
    """Whether the way to a host is cut off: None, it is free; :data:`REFUSED` at once; :data:`TIMED_OUT` after ``limit`` seconds.

    A call that is struck is marked. A partition that heals meanwhile sets it free. ``unseen`` is for clients whose connections no hook of
    Python sees; ``patient`` is who waits for a host that refuses.
    """
    told = verdict(host, port, unseen=unseen)
    if told is None:
        return None
    call.touch()
    if isinstance(told, Blackhole) or patient:
        return TIMED_OUT if await Blackhole(told.run).hold(call.runtime, limit) else None
    return REFUSED
