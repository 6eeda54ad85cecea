"""redis-py: guard a client, blocking or asynchronous, single or cluster.

    cache = guard_redis(redis.asyncio.Redis(), resilience, timeout=0.2, breaker=True)

Each command is a call of the guard, a pipeline with all its commands one. Commands that wait for something to happen (``BLPOP``, ``XREAD``
with ``BLOCK``, …), subscriptions and ``MONITOR`` pass by: they are slow because nothing happens.

How a call counts: bad with ``ConnectionError``, ``TimeoutError``, ``InvalidResponse``, and with the answers of a server that cannot do its
work (loading, read-only, out of memory, not able to save, cluster down); good with every other answer, a ``ResponseError`` or
``WatchError`` too; ignored when the command never left (``DataError``, no free connection in the pool). The errors of redis-py stay the
objects that they are. What is ours is redis-py's as well: a refusal is a :class:`~somaresil.errors.Rejected` and a
``redis.ConnectionError``, a time-out of the guard a :class:`~somaresil.errors.CallTimedOut` and a ``redis.TimeoutError``.

redis-py makes commands again by itself, as a rule three times, and a guard sees only what comes of that. To have the guard do it, give the
client ``retry=Retry(NoBackoff(), 0)``; then commands that only read are made again when the guard has a ``retry``, and others when it was
told that they are ``idempotent``: True, or a function of the command (``("SET", "key", "value")``). Pipelines are never made again.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final, TypeVar

import redis
import redis.asyncio
from redis import exceptions

from somaresil.chaos.network.board import BOARD
from somaresil.config import Checker
from somaresil.errors import CallTimedOut, Rejected
from somaresil.integrations._client import AsyncWholeCall, Guards, WholeCall, as_theirs
from somaresil.integrations._partition import REFUSED, cut_off
from somaresil.outcome import Outcome
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard import Guard

__all__ = ["guard_redis"]

_C = TypeVar("_C")

NAME: Final = "redis.{host}"
"""The usual name of a guard."""
FIELDS: Final = frozenset({"host", "port", "db", "command"})
"""What a template for names may have in braces."""
MOST_GUARDS: Final = 64
"""How many guards a client makes, as a rule."""

_BLOCKING: Final = (redis.Redis, redis.RedisCluster)
_SUSPENDING: Final = (redis.asyncio.Redis, redis.asyncio.RedisCluster)
_WAITING = "BLPOP BRPOP BLMOVE BRPOPLPUSH BLMPOP BZPOPMIN BZPOPMAX BZMPOP WAIT WAITAOF MONITOR"
_READING = """
    PING ECHO TIME INFO DBSIZE EXISTS TTL PTTL TYPE KEYS SCAN OBJECT
    GET MGET STRLEN GETRANGE GETBIT BITCOUNT BITPOS PFCOUNT
    HGET HMGET HGETALL HEXISTS HLEN HKEYS HVALS HSTRLEN HSCAN
    LRANGE LLEN LINDEX LPOS SMEMBERS SISMEMBER SMISMEMBER SCARD SINTER SUNION SDIFF SSCAN
    ZRANGE ZREVRANGE ZRANGEBYSCORE ZREVRANGEBYSCORE ZRANGEBYLEX ZSCORE ZMSCORE ZCARD ZCOUNT ZRANK ZREVRANK ZSCAN
    XRANGE XREVRANGE XLEN GEOPOS GEODIST GEOSEARCH EVAL_RO EVALSHA_RO FCALL_RO
"""
_WAITS: Final = frozenset(_WAITING.split())
_MAY_WAIT: Final = frozenset({"XREAD", "XREADGROUP"})
_READS: Final = frozenset(_READING.split())
"""Commands that change nothing."""


def _kinds(*names: str) -> tuple[type[Exception], ...]:
    # Not every release has all of them.
    return tuple(kind for name in names if isinstance(kind := getattr(exceptions, name, None), type))


_NEVER_LEFT: Final = _kinds("DataError", "MaxConnectionsError")
_FAILURES: Final = _kinds("OutOfMemoryError", "ReadOnlyError", "ClusterDownError", "MasterDownError", "TryAgainError")
"""Answers of a server that cannot do its work."""
_FAILING_WORDS: Final = frozenset({"CLUSTERDOWN", "MASTERDOWN", "TRYAGAIN", "MISCONF", "NOREPLICAS"})
"""How such answers begin, where a release has no class for them."""
_ANSWERS: Final = _kinds("ResponseError", "WatchError")
_PARTS: Final = {
    name: value
    for name, value in (("error_type", getattr(getattr(exceptions, "ExceptionType", None), "NETWORK", None)), ("status_code", None))
    if hasattr(exceptions.ConnectionError(), name)
}
"""What errors of redis-py have when they are made in the ordinary way."""


def guard_redis(
    client: _C,
    resilience: Resilience,
    *,
    name: str | Callable[[tuple[Any, ...]], str | None] = NAME,
    most_guards: int = MOST_GUARDS,
    **options: Any,
) -> _C:
    """Guard every command of ``client`` and of its pipelines, from now on, and return it.

    ``name`` is the name of the guard: a template (``{host}``, ``{port}``, ``{db}``, ``{command}``), or a function of the command (a tuple
    like ``("GET", "key")``, ``("PIPELINE",)``), whose None lets it pass unguarded. The guard of a name is made with ``options``, those of
    :meth:`Resilience.guard`; one that exists is used as it is. After ``most_guards`` the rest share one, ``redis.other`` for the usual
    template. Clients that are made from this one (``client.client()``) are not guarded.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("guard_redis")
    check.type("resilience", resilience, Resilience, "a Resilience")
    check.type("client", client, (*_BLOCKING, *_SUSPENDING), "a Redis or RedisCluster of redis or redis.asyncio")
    if "execute_command" in getattr(client, "__dict__", {}):
        check.problem("client", client, "a client that is not guarded yet", "a command would pass two guards")
    guards = Guards(
        "guard_redis", resilience, name, FIELDS, most_guards, options, check, streams=False, suspends=isinstance(client, _SUSPENDING)
    )
    check.finish()
    seam = (_Suspending if isinstance(client, _SUSPENDING) else _Blocking)(client, guards)
    wrapped: Any = client
    wrapped.execute_command = seam.command(wrapped.execute_command)
    wrapped.pipeline = seam.pipelines(wrapped.pipeline)
    return client


def _place(client: Any) -> dict[str, object]:
    pool = getattr(client, "connection_pool", None)
    known: dict[str, Any] = {} if pool is None else pool.connection_kwargs
    host = "cluster" if pool is None else known.get("host") or ("local" if "path" in known else "localhost")
    return {"host": host, "port": known.get("port") or 6379, "db": known.get("db") or 0}


class _Seam:
    """The guarded side of one client."""

    def __init__(self, client: Any, guards: Guards) -> None:
        self._place = _place(client)
        pool = getattr(client, "connection_pool", None)
        known: dict[str, Any] = {} if pool is None or "path" in pool.connection_kwargs else pool.connection_kwargs
        self._known = known
        self._guards = guards

    def guard(self, args: tuple[Any, ...]) -> Guard | None:
        """The guard of a command; None: it passes by."""
        command = _word(args)
        if command in _WAITS or (command in _MAY_WAIT and any(part in {"BLOCK", b"BLOCK"} for part in args)):
            return None
        return self._guards.of(args, lambda: {**self._place, "command": command})

    async def cross(self, call: Any) -> None:
        """Fail in redis-py's own words when an experiment has cut its server off."""
        known = self._known
        if not known:
            return
        host, port = str(self._place["host"]), int(str(self._place["port"]))
        told = await cut_off(host, port, call, known.get("socket_connect_timeout") or known.get("socket_timeout"))
        if told == REFUSED:
            raise exceptions.ConnectionError(f"Error {errno.ECONNREFUSED} connecting to {host}:{port}. {os.strerror(errno.ECONNREFUSED)}.")
        if told is not None:
            raise exceptions.TimeoutError("Timeout connecting to server")

    def command(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``execute_command``, guarded."""
        raise NotImplementedError

    def pipelines(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """``pipeline``, whose pipelines are guarded."""

        def pipeline(*args: Any, **kwargs: Any) -> Any:
            made = make(*args, **kwargs)
            made.execute = self.whole(made.execute)
            if hasattr(made, "immediate_execute_command"):
                # What a pipeline asks at once, while it watches keys.
                made.immediate_execute_command = self.command(made.immediate_execute_command)
            return made

        return pipeline

    def whole(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``execute`` of a pipeline, guarded."""
        raise NotImplementedError


def _word(args: tuple[Any, ...]) -> str:
    word = args[0] if args else ""
    return (word.decode("ascii", "replace") if isinstance(word, bytes) else str(word)).partition(" ")[0].upper()


class _Blocking(_Seam):
    def command(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def execute_command(*args: Any, **kwargs: Any) -> Any:
            return self._through(lambda: function(*args, **kwargs), args, reads=_word(args) in _READS, whole=False)

        return execute_command

    def whole(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def execute(*args: Any, **kwargs: Any) -> Any:
            return self._through(lambda: function(*args, **kwargs), ("PIPELINE",), reads=False, whole=True)

        return execute

    def _through(self, work: Callable[[], Any], args: tuple[Any, ...], *, reads: bool, whole: bool) -> Any:
        guard = self.guard(args)
        if guard is None:
            return work()
        try:
            return guard.drive(WholeCall(guard, _Work(self, work, suspends=False, reads=reads, whole=whole), args))
        except (Rejected, CallTimedOut) as error:
            if error.guard != guard.name:
                raise
            ours: Any = error
        try:
            raise _theirs(ours)
        finally:
            del ours


class _Suspending(_Seam):
    def command(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def execute_command(*args: Any, **kwargs: Any) -> Any:
            return await self._through(lambda: function(*args, **kwargs), args, reads=_word(args) in _READS, whole=False)

        return execute_command

    def whole(self, function: Callable[..., Any]) -> Callable[..., Any]:
        async def execute(*args: Any, **kwargs: Any) -> Any:
            return await self._through(lambda: function(*args, **kwargs), ("PIPELINE",), reads=False, whole=True)

        return execute

    async def _through(self, work: Callable[[], Any], args: tuple[Any, ...], *, reads: bool, whole: bool) -> Any:
        guard = self.guard(args)
        if guard is None:
            return await work()
        try:
            return await guard.adrive(AsyncWholeCall(guard, _Work(self, work, suspends=True, reads=reads, whole=whole), args))
        except (Rejected, CallTimedOut) as error:
            if error.guard != guard.name:
                raise
            ours: Any = error
        try:
            raise _theirs(ours) from ours.__cause__
        finally:
            del ours


def _theirs(error: Rejected | CallTimedOut) -> Exception:
    return as_theirs(error, exceptions.TimeoutError if isinstance(error, CallTimedOut) else exceptions.ConnectionError, **_PARTS)


class _Work:
    """One command, or one pipeline."""

    call: Any

    def __init__(self, seam: _Seam, work: Callable[[], Any], *, suspends: bool, reads: bool, whole: bool) -> None:
        self._seam = seam
        self._work = work
        self._suspends = suspends
        self._reads = reads
        self._whole = whole

    def send(self, request: tuple[Any, ...]) -> object:
        """Stands for :meth:`attempt` where a guard shows what it calls."""
        raise NotImplementedError

    async def attempt(self) -> Any:
        """Make it once."""
        if BOARD.cuts:
            await self._seam.cross(self.call)
        result = self._work()
        return await result if self._suspends else result

    def shown(self, answer: Any, error: BaseException | None) -> tuple[Any, BaseException | None]:
        """As it is."""
        return answer, error

    def verdict(self, answer: Any, error: BaseException | None) -> Outcome | None:  # noqa: ARG002 - only errors are judged
        """By the class of the error."""
        if isinstance(error, _NEVER_LEFT):
            return Outcome.IGNORED
        cannot = isinstance(error, _FAILURES) or str(error).partition(" ")[0] in _FAILING_WORDS
        return Outcome.GOOD if isinstance(error, _ANSWERS) and not cannot else None

    def can_be_sent_again(self, *, at_once: bool) -> bool:  # noqa: ARG002 - each time on a connection of its own
        """A pipeline has forgotten its commands by then."""
        return not self._whole

    def is_idempotent(self) -> bool:
        """What only reads."""
        return self._reads
