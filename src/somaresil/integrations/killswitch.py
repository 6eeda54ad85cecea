"""A kill switch for a fleet, in Redis: one hash that every process asks for every quarter of a second while it has an experiment armed.

    with RedisKillSwitch(resilience, "redis://localhost:6379/0"):
        ...

``resilience.chaos.stop_all()`` then reaches the processes of the same service on every host, and the safety lever holds for all of them.
While Redis cannot be asked no experiment starts; those that run end by their leases, or by the switch of their host. No call waits for
Redis: a daemon thread asks it, and whoever arms an experiment waits for a fresh answer, for 1.5 seconds at most.

The hash is ``<prefix>:{<service>}:chaos`` with ``stop`` (any other value than before is a stop), ``lever`` (``engaged`` or not) and ``by``;
``redis-cli hset 'somaresil:{gateway}:chaos' stop now`` stops a fleet. It does not expire. What Redis forgets is a stop, and a lever that is
released: give it a disk, or a lever on the hosts as well.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Self
from zlib import crc32

import redis

from somaresil.chaos.killswitch import Reading
from somaresil.config import Checker
from somaresil.errors import describe
from somaresil.events import SharedStateLost, SharedStateRestored
from somaresil.integrations.redis import connect, redis_client, shown
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["RedisKillSwitch"]

_PATIENCE: Final = 1.5
_IDLE: Final = 60.0
_SOON: Final = 5.0
_PENDING_FOR: Final = 10.0
"""Seconds for which a stop is repeated that Redis could not be told: later it would stop what it was not meant for."""
_LONGEST: Final = 200


class RedisKillSwitch:
    """Obeys, and throws, the switch of a fleet until :meth:`close`. A context manager.

    ``poll``: how often it is looked at while an experiment is armed, 0.05 to 0.5 seconds. Raises
    :class:`~somaresil.errors.ConfigurationError` with every problem found; whether Redis can be reached is not asked.
    """

    def __init__(self, resilience: Resilience, url: str, *, prefix: str = "somaresil", poll: float | timedelta = 0.25) -> None:
        """Start the thread, which asks nothing yet."""
        check = Checker("RedisKillSwitch")
        check.type("resilience", resilience, Resilience, "a Resilience")
        client = redis_client(check, url)
        check.name("prefix", prefix)
        self._poll = check.seconds("poll", poll, minimum=0.05, exclusive=False, maximum=0.5)
        check.finish()
        self._resilience = resilience
        self._url = url
        self.where = shown(url)
        self._key = f"{prefix}:{{{resilience.service}}}:chaos"
        self._closed = False
        self._client = client
        self._begin()
        self._remove = resilience.chaos.add_switch(self)
        _watch(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._answered = threading.Condition(self._lock)
        self._busy_until = float("-inf")
        """Somebody has asked because he is about to arm something."""
        self._asked = 0
        self._said = 0
        """Number of the last question that was answered, well or not."""
        self._reading: Reading | None = None
        self._heard_at = float("-inf")
        self._error: BaseException | None = None
        self._lost_at: float | None = None
        self._stop: tuple[int, float] | None = None
        self._lever: tuple[bool, str] | None = None
        self._thread = threading.Thread(target=self._run, name="somaresil-killswitch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Nothing happens."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Where it is."""
        return f"<RedisKillSwitch at {self.where}>"

    def close(self) -> None:
        """Obey it no more. Waits for an answer that is due, for seconds at most."""
        if self._closed:
            return
        self._closed = True
        _open.discard(self)
        self._remove()
        self._wake.set()
        if self._thread is not threading.current_thread():
            self._thread.join(2.0 * _PATIENCE)

    # -- what the engine asks ---------------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Wait for an answer that is given from now on. Raises ``ConnectionError`` when there is none in time."""
        self._ask()

    def read(self) -> Reading:
        """The last answer. Raises ``ConnectionError`` when it is too old to be believed."""
        reading = self._reading
        if reading is None or time.monotonic() - self._heard_at > _PATIENCE + 4.0 * self._poll:
            raise ConnectionError(f"{self.where} has not answered lately")
        return reading

    def throw(self, by: str = "") -> None:  # noqa: ARG002 - who threw it stands in the audit log
        """Have the fleet stopped, without waiting for it. Raises ``ConnectionError`` when Redis could not be reached last time."""
        self._stop = (time.time_ns(), time.monotonic() + _PENDING_FOR)
        self._wake.set()
        if self._error is not None:
            raise ConnectionError(f"{self.where}: {describe(self._error)}")

    def move_lever(self, engaged: bool, by: str = "") -> None:  # noqa: FBT001 - a position
        """Engage or release the lever, and wait until that is written. Raises ``ConnectionError`` when it is not."""
        self._lever = (engaged, by[:_LONGEST])
        if engaged:
            self._stop = (time.time_ns(), time.monotonic() + _PENDING_FOR)
        try:
            self._ask()
        except ConnectionError:
            # Whoever is told that it was not moved must not find it moved later.
            self._lever = None
            raise

    def _ask(self) -> None:
        with self._answered:
            self._asked += 1
            self._busy_until = time.monotonic() + _SOON
            number = self._asked
            self._wake.set()
            if not self._answered.wait_for(lambda: self._said >= number or self._closed, _PATIENCE):
                raise ConnectionError(f"{self.where} does not answer")
            if self._error is not None:
                raise ConnectionError(f"{self.where}: {describe(self._error)}")

    # -- the thread -------------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            busy = self._armed() or self._stop is not None or time.monotonic() < self._busy_until
            self._wake.wait(self._poll if busy else _IDLE)
            self._wake.clear()
            if self._closed and self._stop is None:
                break
            # A stop that was just said is said before it ends, too.
            self._turn()
        with suppress(Exception):
            self._client.connection_pool.disconnect()

    def _armed(self) -> bool:
        return any(run.end_reason is None for run in self._resilience.chaos.history)

    def _turn(self) -> None:
        """Say what is to be said, and look."""
        error: BaseException | None = None
        number = self._asked
        began = time.monotonic()
        try:
            self._say()
            answer: Any = self._client.hmget(self._key, "stop", "lever", "by")
            stamp, lever, by = (bytes(value or b"") for value in answer)
            # A person may have written anything there; whatever it is, another one is another number.
            reading = Reading(int(stamp) if stamp.isdigit() else crc32(stamp), lever == b"engaged", _text(by))
        except (redis.RedisError, OSError) as lost:
            error = lost
        except Exception as defect:  # noqa: BLE001 - whatever it is, nothing is known
            self._resilience.listeners.defect("kill switch in Redis", defect, self._resilience.clock.time(), "no experiment starts")
            error = defect
        else:
            self._reading, self._heard_at = reading, began
        with self._answered:
            self._error, self._said = error, number
            self._answered.notify_all()
        self._tell(error)

    def _say(self) -> None:
        stop, lever = self._stop, self._lever
        said: dict[str, Any] = {}
        if lever is not None:
            said |= {"lever": "engaged" if lever[0] else "released", "by": lever[1]}
        if stop is not None and time.monotonic() < stop[1]:
            said["stop"] = stop[0]
        if said:
            client: Any = self._client
            client.hset(self._key, mapping=said)
        # Unless somebody has said something new meanwhile.
        self._stop = None if self._stop is stop else self._stop
        self._lever = None if self._lever is lever else self._lever

    def _tell(self, error: BaseException | None) -> None:
        listeners, now = self._resilience.listeners, self._resilience.clock.time()
        if error is None:
            listeners.reached(self.where)
        if error is not None and self._lost_at is None:
            self._lost_at = time.monotonic()
            listeners.lost(self.where)
            if listeners.wants(SharedStateLost):
                listeners.emit(SharedStateLost(self.where, now, type(error).__qualname__))
        elif error is None and self._lost_at is not None:
            lost_for, self._lost_at = time.monotonic() - self._lost_at, None
            if listeners.wants(SharedStateRestored):
                listeners.emit(SharedStateRestored(self.where, now, lost_for))

    def after_fork(self) -> None:
        """In the child: a thread and a connection of its own."""
        if not self._closed:
            self._client = connect(self._url)
            self._begin()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")[:_LONGEST]


_open: weakref.WeakSet[RedisKillSwitch] = weakref.WeakSet()
_hooked = False


def _watch(switch: RedisKillSwitch) -> None:
    """Have it told of forks. Hooks cannot be taken back, so there is one for all, when first needed."""
    global _hooked  # noqa: PLW0603 - the hook belongs to the process
    _open.add(switch)
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    step: Callable[[RedisKillSwitch], None] = RedisKillSwitch.after_fork
    for switch in list(_open):
        step(switch)
