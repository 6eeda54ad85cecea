"""Shared circuits in Redis: one script for each step, atomic there, by the clock of the server.

Keys (``P`` is the prefix, ``S`` the service; all of a service lie in one slot of a cluster):

==============================  ==========================================================================================
``P:{S}:circuit:<guard>``       hash: state, version, ends (µs), openings, good, failed, slow, lent, by
``P:{S}:probes:<guard>``        sorted set: lease -> when it ends (µs)
``P:{S}:votes:<guard>``         sorted set: instance and process whose own circuit is open -> when that ends (µs)
``P:{S}:alive``                 sorted set: process -> until when it counts as alive (µs)
``P:{S}:number``                number of the last message
``P:{S}:news``                  the channel
==============================  ==========================================================================================

Every key ends by itself, an hour after it was last of use. A version is never used twice, not even when Redis has forgotten everything:
it is the time of the step in microseconds, and more than the one before.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from somaresil.integrations._link import Message, Seen
from somaresil.model.breaker import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from somaresil.outcome import Outcome

__all__ = ["RedisStore", "parse_message"]

_KEEP_MS: Final = 3_600_000
_PROBED: Final = "probed"
"""The state of a circuit that was closed because its probes went well."""

_COMMON: Final = """
local C, P, V, N, A = unpack(KEYS)
local channel, name, me, given, keep = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local at = redis.call('HMGET', C, 'state', 'version', 'ends', 'openings', 'good', 'failed', 'slow')
local state, version = at[1], tonumber(at[2] or 0)
local ends, openings = tonumber(at[3] or 0), tonumber(at[4] or 0)
local good, failed, slow = tonumber(at[5] or 0), tonumber(at[6] or 0), tonumber(at[7] or 0)

local function text(number) return string.format('%.0f', number) end

-- As a list of texts, for an answer and for a message: no number is cut off on its way.
local function seen(done, leases)
  local left = 0
  if state == 'open' then left = math.max(0, ends - now) end
  local said = {done and '1' or '0', state or '', text(version), text(left), text(openings), text(good), text(failed), text(slow)}
  for _, lease in ipairs(leases or {}) do table.insert(said, lease) end
  return said
end

local function tell(kind)
  local number = redis.call('INCR', N)
  redis.call('PEXPIRE', N, keep)
  redis.call('PUBLISH', channel, cjson.encode({number, kind, name, seen(false)}))
end

local function move(to, duration, row)
  state, version, ends, openings, good, failed, slow = to, math.max(version + 1, now), now + duration, row, 0, 0, 0
  redis.call('DEL', C, P)
  redis.call('HSET', C, 'state', to, 'version', text(version), 'ends', text(ends), 'openings', text(row), 'by', me)
  redis.call('PEXPIRE', C, text(math.ceil(duration / 1000) + keep))
  tell('moved')
end

-- Nothing stored: anybody may write. Otherwise only who has seen the last step.
local function behind() return state and text(version) ~= given end
"""

_SCRIPTS: Final = {
    "hello": """
redis.call('ZREMRANGEBYSCORE', A, '-inf', '(' .. text(now))
redis.call('ZADD', A, text(now + ARGV[6]), me)
redis.call('PEXPIRE', A, text(math.ceil(ARGV[6] / 1000) + keep))
return redis.call('GET', N) or '0'
""",
    "goodbye": """
return redis.call('ZREM', A, me)
""",
    "read": """
return seen(false)
""",
    "trip_open": """
local duration, row, quorum, member = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]
if behind() then return seen(false) end
redis.call('ZREMRANGEBYSCORE', V, '-inf', '(' .. text(now))
redis.call('ZADD', V, text(now + duration), member)
redis.call('PEXPIRE', V, text(math.max(redis.call('PTTL', V), math.ceil(duration / 1000) + keep)))
if state ~= 'open' and state ~= 'half_open' then
  local instances, count = {}, 0
  for _, vote in ipairs(redis.call('ZRANGE', V, 0, -1)) do
    local instance = string.match(vote, '^[^ ]*')
    if not instances[instance] then instances[instance], count = true, count + 1 end
  end
  if count < quorum then return seen(false) end
end
move('open', duration, row)
redis.call('DEL', V)
return seen(true)
""",
    "begin_half_open_if_elapsed": """
if state ~= 'open' or behind() or now < ends then return seen(false) end
move('half_open', 0, openings)
return seen(true)
""",
    "lease_probe": """
local limit, at_once, duration, asked = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1'
if state ~= 'half_open' or behind() then return seen(false) end
redis.call('ZREMRANGEBYSCORE', P, '-inf', '(' .. text(now))
local lent = redis.call('ZCARD', P)
local free = math.min(limit - lent - good - failed, at_once - lent)
local share = math.ceil(limit / math.max(1, redis.call('ZCOUNT', A, text(now), '+inf')))
local leases = {}
for _ = 1, math.min(free, math.max(1, share)) do
  local lease = me .. '#' .. redis.call('HINCRBY', C, 'lent', 1)
  redis.call('ZADD', P, text(now + duration), lease)
  table.insert(leases, lease)
end
redis.call('PEXPIRE', C, keep)
if #leases > 0 then redis.call('PEXPIRE', P, text(math.ceil(duration / 1000) + keep)) end
if #leases == 0 and asked and good + failed < limit then
  local before = tonumber(redis.call('HGET', C, 'wanted') or 0)
  if now - before > 200000 then
    redis.call('HSET', C, 'wanted', text(now))
    tell('wanted')
  end
end
return seen(#leases > 0, leases)
""",
    "keep_probes": """
local duration, leases = tonumber(ARGV[6]), {}
if state ~= 'half_open' or behind() then return seen(false) end
redis.call('ZREMRANGEBYSCORE', P, '-inf', '(' .. text(now))
for index = 7, #ARGV do
  if redis.call('ZSCORE', P, ARGV[index]) then
    redis.call('ZADD', P, text(now + duration), ARGV[index])
    table.insert(leases, ARGV[index])
  end
end
redis.call('PEXPIRE', C, keep)
if #leases > 0 then redis.call('PEXPIRE', P, text(math.ceil(duration / 1000) + keep)) end
return seen(true, leases)
""",
    "record_probe": """
local lease, verdict, late = ARGV[6], ARGV[7], ARGV[8] == '1'
if state ~= 'half_open' or behind() then return seen(false) end
redis.call('ZREMRANGEBYSCORE', P, '-inf', '(' .. text(now))
if redis.call('ZREM', P, lease) == 0 then return seen(false) end
if verdict == 'good' then good = redis.call('HINCRBY', C, 'good', 1) end
if verdict == 'bad' then failed = redis.call('HINCRBY', C, 'failed', 1) end
if verdict ~= '' and late then slow = redis.call('HINCRBY', C, 'slow', 1) end
tell('moved')
return seen(true)
""",
    "close": """
redis.call('ZREM', V, ARGV[6])
if not state or behind() or state == 'closed' or state == 'probed' then return seen(false) end
if ARGV[7] == '1' then move('probed', 0, tonumber(ARGV[8])) else move('closed', 0, 0) end
redis.call('DEL', V)
return seen(true)
""",
}


class RedisStore:
    """See :class:`~somaresil.integrations._link.Store`. Blocks for as long as its client does, and raises what its client raises."""

    def __init__(self, client: Any, *, prefix: str, service: str, instance: str, process: str, quorum: int, alive: float) -> None:
        """``process`` is a name that no other process has; ``alive``: seconds for which :meth:`hello` counts."""
        self._client = client
        self._root = f"{prefix}:{{{service}}}"
        self._process = process
        self._vote = f"{'_'.join(instance.split())} {process}"
        self._quorum = quorum
        self._alive = alive
        self._scripts = {name: client.register_script(_COMMON + body) for name, body in _SCRIPTS.items()}
        self.channel = f"{self._root}:news"
        """Where steps are told."""

    def hello(self) -> int:
        """Say that this process lives; the number of the last message."""
        return int(self._run("hello", "", 0, _micro(self._alive)))

    def goodbye(self) -> None:
        """Say that it goes."""
        self._run("goodbye", "", 0)

    def read(self, names: Sequence[str]) -> list[Seen]:
        """Look at some circuits."""
        if not names:
            return []
        with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                self._run("read", name, 0, client=pipeline)
            return [_seen(answer) for answer in pipeline.execute()]

    def trip_open(self, name: str, version: int, *, duration: float, openings: int) -> Seen:
        """Open it, when enough instances would."""
        return _seen(self._run("trip_open", name, version, _micro(duration), openings, self._quorum, self._vote))

    def begin_half_open_if_elapsed(self, name: str, version: int) -> Seen:
        """Half-open it, if its open time is over."""
        return _seen(self._run("begin_half_open_if_elapsed", name, version))

    def lease_probe(self, name: str, version: int, *, limit: int, at_once: int, seconds: float, asked: bool) -> Seen:
        """Borrow probes: of those that are free, a fair share by the number of processes that live, and at least one."""
        return _seen(self._run("lease_probe", name, version, limit, at_once, _micro(seconds), int(asked)))

    def keep_probes(self, name: str, version: int, leases: Sequence[str], *, seconds: float) -> Seen:
        """Borrow them for longer."""
        return _seen(self._run("keep_probes", name, version, _micro(seconds), *leases))

    def record_probe(self, name: str, version: int, lease: str, verdict: Outcome | None, *, slow: bool) -> Seen:
        """Give a probe back, with what it said."""
        return _seen(self._run("record_probe", name, version, lease, "" if verdict is None else verdict.value, int(slow)))

    def close(self, name: str, version: int, *, probed: bool, openings: int) -> Seen:
        """Close it."""
        return _seen(self._run("close", name, version, self._vote, int(probed), openings))

    def _run(self, script: str, name: str, version: int, *further: object, client: Any = None) -> Any:
        root = self._root
        keys = [f"{root}:circuit:{name}", f"{root}:probes:{name}", f"{root}:votes:{name}", f"{root}:number", f"{root}:alive"]
        return self._scripts[script](keys=keys, args=[self.channel, name, self._process, version, _KEEP_MS, *further], client=client)


def parse_message(data: str | bytes) -> Message:
    """A message of the channel. Raises ``ValueError``, ``TypeError`` or ``LookupError`` for anything else."""
    try:
        number, kind, name, said = json.loads(data)
        return Message(int(number), kind == "wanted", str(name), _seen(said))
    except (OverflowError, RecursionError) as strange:
        raise ValueError("no message: a number that is too large, or what has no end") from strange


def _seen(answer: Sequence[Any]) -> Seen:
    done, state, version, left, openings, good, failed, slow, *leases = [_text(part) for part in answer]
    numbers = int(version), int(left) / 1e6, int(openings), int(good), int(failed), int(slow)
    probed = state == _PROBED
    known = None if not state else State.CLOSED if probed else State(state)
    return Seen(done == "1", known, *numbers, tuple(leases), probed)


def _text(part: Any) -> str:
    # Whether answers are decoded is up to the user's URL.
    return part.decode() if isinstance(part, bytes) else str(part)


def _micro(seconds: float) -> int:
    return round(seconds * 1e6)
