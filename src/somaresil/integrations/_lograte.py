"""So many lines of a kind a second and no more, and how many were left out."""

from __future__ import annotations

import itertools
import logging
import math
import threading
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from somaresil import forks
from somaresil.config import Checker
from somaresil.eventtext import harmless
from somaresil.integrations._logfields import NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from somaresil.resilience import Resilience

__all__ = ["RateLimitFilter"]

_OTHERS: Final = "_other"
_LONGEST_KEY: Final = 500
_LOOKED_AT: Final = 8


class _Bucket:
    """Lines of one kind."""

    __slots__ = ("at", "left_out", "level", "logger", "since", "template", "tokens")

    def __init__(self, tokens: float, at: float, logger: str, level: int, template: str) -> None:
        self.tokens = tokens
        self.at = at
        self.left_out = 0
        self.since = at
        self.logger = logger
        self.level = level
        self.template = template


class RateLimitFilter(logging.Filter):
    """Lets ``burst`` lines of a kind through at once and ``per_second`` after that, and says how many it has left out.

    A kind is logger, level and template (``"no answer from %s"``, not what is put in); lines of :func:`log_events` go by the event and its
    guard. ``key`` is a function of the record that says it otherwise; a line for which it returns None is never left out. At most ``most``
    kinds are told apart at a time: what comes beyond that is limited together, so messages that are put together before they are logged
    are limited at last as well.

    What was left out is told in a line of its own (``12 such lines were left out: ...``, field ``somaresil_left_out``), on the same logger
    and at the same level, as soon as lines of that kind may pass again and any line comes by, when an app in the middleware is shut down,
    and when the process exits: nothing is lost in silence, and no timer is needed for it. Where a signal ends a process without either,
    call :meth:`tell`. A filter that is at several handlers counts a line once. A defect in it lets the line pass.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        resilience: Resilience,
        per_second: float = 1.0,
        burst: int = 10,
        *,
        key: Callable[[logging.LogRecord], Hashable | None] | None = None,
        most: int = 1_000,
    ) -> None:
        """Nothing was left out yet."""
        super().__init__()
        check = Checker("RateLimitFilter")
        self._rate = check.number("per_second", per_second, minimum=0.0, maximum=1e6, exclusive=True)
        self._burst = check.count("burst", burst, maximum=1_000_000)
        self._most = check.count("most", most, maximum=100_000)
        if key is not None and not callable(key):
            check.problem("key", key, "a function of the record, or None")
        check.finish()
        self._clock = resilience.clock
        self._listeners = resilience.listeners
        self._key = _kind_of if key is None else key
        self._lock = threading.RLock()
        self._buckets: OrderedDict[Hashable, _Bucket] = OrderedDict()
        self._owing: set[_Bucket] = set()
        self._look_at = math.inf
        self._local = threading.local()
        forks.watch(self)
        resilience.log_context.teller_added(self)
        weakref.finalize(self, resilience.follow_logs()).atexit = False

    @property
    def left_out(self) -> int:
        """How many lines were left out and not told of yet."""
        with self._lock:
            return sum(bucket.left_out for bucket in self._owing)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line passes."""
        if hasattr(record, "somaresil_left_out"):
            return True
        last: tuple[weakref.ref[logging.LogRecord], bool] | None = getattr(self._local, "last", None)
        if last is not None and last[0]() is record:
            return last[1]
        try:
            passes, due = self._count(record)
        except Exception as broken:  # noqa: BLE001 - the line passes
            self._listeners.defect("rate limit of log lines", broken, 0.0, "the line was written")
            return True
        self._local.last = weakref.ref(record), passes
        self._say(due)
        return passes

    def tell(self) -> None:
        """Say now what was left out, whether lines of that kind may pass again or not."""
        with self._lock:
            now = self._clock.monotonic()
            due = [self._settled(bucket, now) for bucket in tuple(self._owing)]
        self._say(due)

    # -- the process (somaresil.forks) ------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Nothing to remember."""

    def after_fork_in_parent(self) -> None:
        """Nothing has changed."""

    def after_fork_in_child(self) -> None:
        """What the parent owes, the parent tells."""
        self._lock = threading.RLock()
        self._owing.clear()
        for bucket in self._buckets.values():
            bucket.left_out = 0

    def stop(self) -> None:
        """The process ends."""
        self.tell()

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _count(self, record: logging.LogRecord) -> tuple[bool, list[tuple[_Bucket, int, float]]]:
        """Whether a line passes, and what there is to tell now."""
        key = self._key(record)
        now = self._clock.monotonic()
        with self._lock:
            due = self._due(now) if now >= self._look_at else []
            if key is None:
                return True, due
            bucket = self._buckets.get(key) or self._new(key, record, now)
            bucket.tokens, bucket.at = self._refilled(bucket, now), now
            if bucket.tokens >= 1.0:
                bucket.tokens -= 1.0
                return True, due
            if not bucket.left_out:
                bucket.since = now
                self._owing.add(bucket)
                self._look_at = min(self._look_at, now + (1.0 - bucket.tokens) / self._rate)
            bucket.left_out += 1
            return False, due

    def _due(self, now: float) -> list[tuple[_Bucket, int, float]]:
        """Those of which lines may pass again."""
        due: list[tuple[_Bucket, int, float]] = []
        self._look_at = math.inf
        for bucket in tuple(self._owing):
            missing = 1.0 - self._refilled(bucket, now)
            if missing <= 0.0:
                due.append(self._settled(bucket, now))
            else:
                self._look_at = min(self._look_at, now + missing / self._rate)
        return due

    def _refilled(self, bucket: _Bucket, now: float) -> float:
        return min(float(self._burst), bucket.tokens + max(0.0, now - bucket.at) * self._rate)

    def _settled(self, bucket: _Bucket, now: float) -> tuple[_Bucket, int, float]:
        count, bucket.left_out = bucket.left_out, 0
        self._owing.discard(bucket)
        return bucket, count, max(0.0, now - bucket.since)

    def _new(self, key: Hashable, record: logging.LogRecord, now: float) -> _Bucket:
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__qualname__
        if len(self._buckets) >= self._most:
            self._make_room(now)
        if len(self._buckets) >= self._most:
            key, template = (_OTHERS, max(0, min(record.levelno, logging.CRITICAL)) // 10), "lines of many kinds"
            if (others := self._buckets.get(key)) is not None:
                return others
        made = self._buckets[key] = _Bucket(float(self._burst), now, str(record.name), record.levelno, harmless(template))
        return made

    def _make_room(self, now: float) -> None:
        """Forget some that are full again: they are as good as new ones. A few are looked at for each line, the others wait behind."""
        for key in tuple(itertools.islice(self._buckets, _LOOKED_AT)):
            bucket = self._buckets[key]
            if bucket.left_out or self._refilled(bucket, now) < self._burst:
                self._buckets.move_to_end(key)
            else:
                del self._buckets[key]

    def _say(self, due: list[tuple[_Bucket, int, float]]) -> None:
        for bucket, count, seconds in due:
            # The line that has brought this out has nothing to do with it: neither its request nor its trace.
            said: dict[str, Any] = {**NOTHING, "somaresil_left_out": count, "somaresil_left_out_seconds": round(seconds, 3)}
            try:
                logging.getLogger(bucket.logger).log(bucket.level, "%d such lines were left out: %s", count, bucket.template, extra=said)
            except Exception as broken:  # noqa: BLE001 - a filter of somebody else; the line that is being written is not to fail of it
                self._listeners.defect("telling of log lines that were left out", broken, 0.0, "it was not told")


def _kind_of(record: logging.LogRecord) -> Hashable:
    """Logger, level and template; of our own lines the event and its guard, for their texts are put together before."""
    event = getattr(record, "somaresil_event", None)
    if event is not None:
        return record.name, record.levelno, event, getattr(record, "somaresil_guard", None)
    template = record.msg if isinstance(record.msg, str) else type(record.msg)
    return record.name, record.levelno, template[:_LONGEST_KEY] if isinstance(template, str) else template
