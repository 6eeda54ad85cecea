"""How much a call matters and for whom it is made, and what that means when there is not enough for all.

    with priority("critical", tenant="acme"):
        await charge(card)

The five classes are ``critical``, ``high``, ``normal`` (what is not said is normal), ``low`` and ``background``. They are seen by
everything that is called inside, in tasks begun there and in threads that get a copy of the context (``asyncio.to_thread``,
``Timeout(abandon=True)``). A bulkhead or an adaptive limit serves the highest class in its line first; limits with the same
:class:`Prioritizer` shed together.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from somaresil.config import Checker
from somaresil.model.priority import Load, Rank, Shedding, Threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from datetime import timedelta

    from somaresil.chance import Chance
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["CLASSES", "Caller", "Prioritizer", "caller", "enter", "leave", "priority"]

CLASSES: Final = {rank.word: rank for rank in reversed(Rank)}
"""The classes by name, the highest first."""

_LONGEST: Final = 120


class Caller(NamedTuple):
    """Who calls: how much it matters, and for which tenant."""

    rank: Rank
    tenant: str | None


_NOBODY: Final = Caller(Rank.NORMAL, None)
_caller: ContextVar[Caller | None] = ContextVar("somaresil_caller", default=None)

caller = _caller.get
"""What was said here about who calls; None when nothing was. A C function, for it is asked at each call."""


def enter(who: Caller) -> Token[Caller | None]:
    """Have ``who`` call from here on; give the token back to :func:`leave`."""
    return _caller.set(who)


def leave(token: Token[Caller | None]) -> None:
    """Have called before whoever did before."""
    try:
        _caller.reset(token)
    except ValueError:
        # Something that was begun in one context ends in another, which has a caller of its own.
        return


@contextmanager
def priority(level: str | None = None, *, tenant: str | None = None) -> Generator[None]:
    """Say how much the calls inside matter (``critical``, ``high``, ``normal``, ``low``, ``background``), and for whom they are made.

    What is left out stays as it is around it. Tenants share what there is; a name has at most 120 characters. Raises
    :class:`~somaresil.errors.ConfigurationError` for anything else.
    """
    outer = _caller.get() or _NOBODY
    rank = outer.rank if level is None else CLASSES.get(level)
    if rank is None or not (tenant is None or (isinstance(tenant, str) and 0 < len(tenant) <= _LONGEST)):
        check = Checker("priority")
        if rank is None:
            check.one_of("level", level, tuple(CLASSES))
        if tenant is not None and not (isinstance(tenant, str) and 0 < len(tenant) <= _LONGEST):
            check.problem("tenant", tenant, f"a name of 1 to {_LONGEST} characters, or None")
        check.finish()
    token = _caller.set(Caller(outer.rank if rank is None else rank, outer.tenant if tenant is None else tenant))
    try:
        yield
    finally:
        leave(token)


_ALL_WELL: Final = (0.0, Threshold(Rank.BACKGROUND, 0.0))


class Source(Protocol):
    """A limiter, as a prioritizer sees it."""

    def load(self) -> Load:
        """What it went through since it was last asked."""
        ...


class Prioritizer:
    """Overload of one limiter sheds the least important calls at all of them. Made by :meth:`Resilience.prioritizer`.

    Every ``interval`` seconds in which somebody calls it asks the limiters it was given to (``bulkhead=Bulkhead(..., prioritizer=...)``)
    how full their lines are and how much they refused, and works out how much of the traffic is to be shed before it stands in line
    anywhere: the lowest classes first, of the last of them a part. Above ``start`` (a share of ``max_waiting``) a line is overload;
    shedding falls off when all lines have been below ``stop``, and nothing was refused, for two intervals. Critical calls are never shed.
    With ``budget_aware`` both fall, to a tenth, while the error budget of that objective burns: what matters less makes room earlier.
    """

    def __init__(
        self,
        clock: Clock,
        chance: Chance,
        listeners: Listeners,
        *,
        interval: float | timedelta = 1.0,
        start: float = 0.5,
        stop: float = 0.25,
        scale: Callable[[], float] | None = None,
    ) -> None:
        """Nothing is shed. ``scale`` says how much of the thresholds holds now, from 0.1 to 1; None: all of it."""
        check = Checker("prioritizer")
        self._interval = check.seconds("interval", interval, maximum=3_600.0)
        found = len(check.problems)
        start = check.number("start", start, minimum=0.0, maximum=1.0, exclusive=True)
        stop = check.number("stop", stop, minimum=0.0, maximum=1.0)
        if len(check.problems) == found and stop >= start:
            check.problem("stop", stop, f"less than start ({start:g})", "between the two nothing changes, or it would flutter")
        check.finish()
        self._clock = clock
        self._listeners = listeners
        self._draws = chance.sequence("priority.shed")
        # Reentrant, as all locks of somaresil are.
        self._lock = threading.RLock()
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        self._model = Shedding(start, stop)
        self._scale = scale
        self._shed = [0] * len(Rank)
        self._due = clock.monotonic() + self._interval
        self._now = _ALL_WELL
        """Rate and threshold, in one object, so that nobody reads the one without the other."""

    @property
    def rate(self) -> float:
        """The share of the traffic that is shed now."""
        return self._now[0]

    @property
    def threshold(self) -> Threshold:
        """The lowest class of which calls are let in now, and the share of them that is not."""
        return self._now[1]

    @property
    def budget_scale(self) -> float | None:
        """How much of its thresholds holds, as the error budget burns; None: it is not aware of any objective."""
        return None if self._scale is None else self._scale()

    def add(self, source: Source) -> None:
        """Look at this limiter as well. It is forgotten with its guard."""
        with self._lock:
            self._sources.add(source)

    def remove(self, source: Source) -> None:
        """Look at it no more."""
        with self._lock:
            self._sources.discard(source)

    def sheds(self) -> bool:
        """Whether some calls have to be shed now."""
        if self._clock.monotonic() >= self._due:
            try:
                self._calibrate()
            except Exception as defect:  # noqa: BLE001 - fail open: nobody is shed because we cannot count
                self._now = _ALL_WELL
                self._listeners.defect("prioritizer", defect, self._clock.time(), "nothing was shed")
        return self._now[0] > 0.0

    def refuses(self, rank: Rank) -> bool:
        """Whether this call is shed. Counts those that are."""
        if not self.sheds():
            return False
        lowest, share = self._now[1]
        refused = rank < lowest or (rank == lowest and share > 0.0 and self._draws.hit(share))
        if refused:
            with self._lock:
                self._shed[rank] += 1
        return refused

    def _calibrate(self) -> None:
        with self._lock:
            now = self._clock.monotonic()
            if now < self._due:
                return
            intervals = 1 + int((now - self._due) / self._interval)
            self._due = now + self._interval
            sources = tuple(self._sources)
            shed, self._shed = self._shed, [0] * len(Rank)
        # Each of them takes its own lock. Ours is not held meanwhile: the collector may end a call in there that comes by here.
        loads = [source.load() for source in sources]
        scale = 1.0 if self._scale is None else self._scale()
        with self._lock:
            self._model.scale = scale
            self._model.observe(loads, shed, intervals)
            self._now = (self._model.rate, self._model.threshold)
