"""One leader in a fleet, through Redis, for :class:`~somaresil.gameday.scheduler.Scheduler`.

    client = redis.asyncio.Redis.from_url("redis://localhost:6379/0")
    scheduler = Scheduler(resilience, leader=RedisLeader(client, "gateway"))

A lease with a token: taken when nobody holds it, renewed at a third of its time, given back on :meth:`RedisLeader.stop`, and counted from
*before* it was asked for, so that a slow answer never makes it longer here than there. Each leader has a fencing number, higher than that
of the one before, also when Redis has forgotten everything in between. A lease alone does not keep two processes from running the same: one
may be stopped for a minute and go on as if nothing had been. So each occurrence is claimed in Redis too, in one step with a look at who
leads.

Redis that cannot be reached, is slow or hangs means that nothing is run. That is told once (``SharedStateLost``), and once when it is back.

Keys (``P`` is the prefix, ``N`` the name; all of a fleet lie in one slot of a cluster):

==============================  ==========================================================================================
``P:{N}:leader``                who leads: token; ends with the lease
``P:{N}:fence``                 the last fencing number; ends a month after the last election
``P:{N}:claim:<occurrence>``    who has claimed it: token and fencing number
``P:{N}:busy:<schedule>``       the occurrence that runs now, of a schedule that runs one at a time
==============================  ==========================================================================================
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis.asyncio

from somaresil.config import Checker
from somaresil.errors import describe
from somaresil.events import LeadershipChanged, SharedStateLost, SharedStateRestored

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from somaresil.resilience import Resilience

__all__ = ["ClaimAnswer", "RedisLeader"]

_log = logging.getLogger("somaresil")

_PATIENCE: Final = 1.0
"""Seconds to wait for an answer; less when the lease is short."""
_KEEP_FENCE_MS: Final = 31 * 86_400_000

_SCRIPTS: Final = {
    # Take the lease, or keep it. The fencing number is the time in microseconds, or one more than the last one: it grows in any case.
    "lead": """
local mine = redis.call('GET', KEYS[1]) == ARGV[1]
if mine then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
elseif not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return {0, tostring(redis.call('PTTL', KEYS[1]))}
end
local fence = tonumber(redis.call('GET', KEYS[2]) or 0)
if not mine then
  local clock = redis.call('TIME')
  fence = math.max(fence + 1, clock[1] * 1000000 + clock[2])
end
redis.call('SET', KEYS[2], string.format('%.0f', fence), 'PX', ARGV[3])
return {1, string.format('%.0f', fence)}
""",
    "leave": """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""",
    # What we have claimed already is ours: an answer may have been lost on its way.
    "claim": """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lost' end
local by = redis.call('GET', KEYS[2])
if by then return by == ARGV[2] and 'granted' or 'taken' end
if ARGV[4] ~= '' then
  local running = redis.call('GET', KEYS[3])
  if running and running ~= ARGV[5] then return 'running' end
  redis.call('SET', KEYS[3], ARGV[5], 'PX', ARGV[4])
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 'granted'
""",
    "done": """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""",
}


class ClaimAnswer(NamedTuple):
    """What came of a claim: see :class:`somaresil.gameday.leader.Claim`."""

    granted: bool
    reason: str = ""


class RedisLeader:
    """Stands for election in the fleet ``name``.

    ``client``: a ``redis.asyncio.Redis``, which stays the caller's to close. ``lease`` (0.3 to 300 seconds): how long nobody leads at
    most after the leader has died. Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    def __init__(self, client: Any, name: str, *, lease: float | timedelta = 10.0, prefix: str = "somaresil") -> None:
        check = Checker("RedisLeader")
        if not isinstance(client, redis.asyncio.Redis | redis.asyncio.RedisCluster):
            check.problem("client", client, "a redis.asyncio.Redis", "the scheduler is asynchronous; from_url() of that class makes one")
        check.name("name", name)
        check.name("prefix", prefix)
        self.lease = check.seconds("lease", lease, minimum=0.3, maximum=300.0, exclusive=False)
        check.finish()
        self.name = name
        self.fence = 0
        """The fencing number of the last time that this process led."""
        self._client: Any = client
        self._keys = f"{prefix}:{{{name}}}"
        self._patience = min(_PATIENCE, self.lease / 3.0)
        self._token = ""
        self._until = float("-inf")
        self._led = False
        self._lost_at: float | None = None
        self._task: asyncio.Task[None] | None = None
        self._resilience: Resilience | None = None
        self._changed: Callable[[], object] = lambda: None

    def __repr__(self) -> str:
        """Of which fleet, and whether it leads."""
        return f"<RedisLeader of {self.name!r}: {'leads' if self.leads else 'does not lead'}>"

    @property
    def leads(self) -> bool:
        """Whether the lease is ours and not over."""
        return time.monotonic() < self._until

    async def start(self, resilience: Resilience, changed: Callable[[], object]) -> None:
        """Stand for election. Returns after the first try, whether or not Redis could be asked."""
        if self._task is not None:
            return
        self._resilience, self._changed = resilience, changed
        # New each time, also after a fork: what an earlier life of this process has claimed is not ours.
        self._token = f"{resilience.instance}/{os.getpid()}-{secrets.token_hex(8)}"
        pause = await self._elect()
        self._task = asyncio.create_task(self._stand(pause), name="somaresil-leader")

    async def stop(self) -> None:
        """Stand down. The lease is given back if Redis answers, and ends by itself if not."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
        self._until = float("-inf")
        self._tell_change()
        with contextlib.suppress(redis.RedisError, OSError, TimeoutError):
            await self._ask("leave", [f"{self._keys}:leader"], [self._token])

    async def claim(self, schedule: str, occurrence: str, *, keep: float, exclusive: float | None) -> ClaimAnswer:
        """Take an occurrence; see :class:`somaresil.gameday.leader.Leader`."""
        if not self.leads:
            return ClaimAnswer(granted=False, reason="lost")
        keys = [f"{self._keys}:leader", f"{self._keys}:claim:{occurrence}", f"{self._keys}:busy:{schedule}"]
        busy = "" if exclusive is None else _milliseconds(exclusive)
        try:
            said = await self._ask("claim", keys, [self._token, f"{self._token} {self.fence}", _milliseconds(keep), busy, occurrence])
        except (redis.RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            return ClaimAnswer(granted=False, reason="lost")
        answer = _text(said)
        if answer == "lost":
            # Somebody else leads, or Redis has forgotten us; the next election says which.
            self._until = float("-inf")
            self._tell_change()
        return ClaimAnswer(granted=answer == "granted", reason="" if answer == "granted" else answer)

    async def done(self, schedule: str, occurrence: str) -> None:
        """An exclusive run is over. Where that cannot be said, its time runs out."""
        with contextlib.suppress(redis.RedisError, OSError, TimeoutError):
            await self._ask("done", [f"{self._keys}:busy:{schedule}"], [occurrence])

    # -- elections --------------------------------------------------------------------------------------------------------------------

    async def _stand(self, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            pause = await self._elect()

    async def _elect(self) -> float:
        """Take the lease or keep it; the seconds until that is to be tried again."""
        asked = time.monotonic()
        keys = [f"{self._keys}:leader", f"{self._keys}:fence"]
        try:
            won, said = await self._ask("lead", keys, [self._token, _milliseconds(self.lease), str(_KEEP_FENCE_MS)])
        except (redis.RedisError, OSError, TimeoutError) as error:
            self._lose(error)
            self._tell_change()
            return self.lease / 3.0
        self._found()
        if int(won):
            self.fence, self._until = int(_text(said)), asked + self.lease
            pause = self.lease / 3.0
        else:
            self._until = float("-inf")
            # When the lease of the other one ends, not at some time after it.
            pause = min(self.lease / 3.0, max(0.01, int(_text(said)) / 1_000.0 + 0.005))
        self._tell_change()
        return pause

    async def _ask(self, script: str, keys: list[str], arguments: list[str]) -> Any:
        async with asyncio.timeout(self._patience):
            return await self._client.eval(_SCRIPTS[script], len(keys), *keys, *arguments)

    # -- what is told -----------------------------------------------------------------------------------------------------------------

    def _tell_change(self) -> None:
        leads = self.leads
        if leads is self._led or self._resilience is None:
            return
        self._led = leads
        _log.info("this process %s fleet %s (fence %d)", "leads" if leads else "does not lead any more", self.name, self.fence)
        listeners = self._resilience.listeners
        if listeners.wants(LeadershipChanged):
            listeners.emit(LeadershipChanged(self.name, self._resilience.clock.time(), leads, self.fence))
        self._changed()

    def _lose(self, error: BaseException) -> None:
        if self._lost_at is not None or self._resilience is None:
            return
        self._lost_at = time.monotonic()
        _log.warning("the leader of fleet %s cannot be asked for (%s); nothing scheduled is run", self.name, describe(error))
        listeners = self._resilience.listeners
        if listeners.wants(SharedStateLost):
            listeners.emit(SharedStateLost(f"leader {self.name}", self._resilience.clock.time(), type(error).__qualname__))

    def _found(self) -> None:
        lost_at, self._lost_at = self._lost_at, None
        if lost_at is None or self._resilience is None:
            return
        listeners = self._resilience.listeners
        if listeners.wants(SharedStateRestored):
            listeners.emit(SharedStateRestored(f"leader {self.name}", self._resilience.clock.time(), time.monotonic() - lost_at))


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1_000.0)))


def _text(said: Any) -> str:
    """A client may be set to decode answers, or not."""
    return said.decode() if isinstance(said, bytes) else str(said)
