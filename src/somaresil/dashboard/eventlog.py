"""The last events of this process, to be shown: bounded, numbered, and written down in words only when somebody reads them.

Numbers come from the clock (8,192 to the second, and the name of the process in the lowest byte), so those of several processes are in the
order of time, and "everything after this number" means the same in each of them. They fit in what JSON and JavaScript know as whole numbers
until 2096.

What happens to single calls may happen a thousand times a second: it has a ring of its own, in which a few a second are kept, so that it
never pushes out what matters. It is listened for only while somebody looks (:meth:`EventLog.attend`): a circuit that refuses calls does so
more quickly when nobody wants to hear of each.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args
from zlib import crc32

from somaresil import events
from somaresil.eventtext import facts, harmless, in_words, level_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from somaresil.events import Event
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["KINDS", "MOST_EVENTS", "OF_CALLS", "EventLog"]

MOST_EVENTS: Final = 2_000
_MOST_OF_CALLS: Final = 500
_A_SECOND: Final = 20
"""So many events about single calls are kept of each second."""
_MOST_SUBJECTS: Final = 500
_MOST_STEPS: Final = 100
_TICKS: Final = 8_192
_SLOTS: Final = 256

OF_CALLS: Final[frozenset[type]] = frozenset(
    {
        events.CallEnded,
        events.AttemptFailed,
        events.RetryScheduled,
        events.RetryDenied,
        events.HedgeStarted,
        events.HedgeWon,
        events.FallbackUsed,
        events.FaultInjected,
        events.FaultWithheld,
        events.ShadowDecision,
    }
)
"""Kinds that tell of one call."""
KINDS: Final[tuple[type, ...]] = get_args(events.Event)
_NOTABLE: Final = tuple(kind for kind in KINDS if kind not in OF_CALLS)
_ABOUT: Final = ("guard", "component", "slo", "canary", "schedule", "name", "backend", "experiment", "version", "where", "who", "reason")
"""Fields that say what an event is about, the first that there is."""
_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class _Noted(NamedTuple):
    id: int
    event: Event


class EventLog:
    """Listens from :meth:`start` on."""

    def __init__(self, source: str, clock: Clock, listeners: Listeners) -> None:
        """Nothing is heard yet. ``source``: the name of this process."""
        self._clock = clock
        self._listeners = listeners
        self.version = 0
        """Grows with every event that is not about a single call."""
        self.rename(source)

    def rename(self, source: str) -> None:
        """Begin anew under this name: in a forked child it is another process that speaks."""
        self.source = source
        self._slot = crc32(source.encode(errors="replace")) % _SLOTS
        self._lock = threading.RLock()
        self._notable: deque[_Noted] = deque()
        self._of_calls: deque[_Noted] = deque()
        self._dropped: deque[int] = deque(maxlen=MOST_EVENTS)
        self._dropped_in_all = 0
        self._last = 0
        self._second, self._in_second = 0, 0
        self.thinned = 0
        """Events about single calls that were not kept."""
        self._rejections: dict[str, dict[str, int]] = {}
        self._steps: dict[str, deque[events.BreakerChanged]] = {}
        self._ends: tuple[Callable[[], None], ...] = getattr(self, "_ends", ())
        self._attending: Callable[[], None] | None = getattr(self, "_attending", None)

    # -- life -------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen for everything that is not about single calls."""
        if not self._ends:
            self._ends = (self._listeners.add(self._hear, *_NOTABLE),)

    def stop(self) -> None:
        """Listen no more; what was heard stays."""
        for end in self._ends:
            end()
        self._ends = ()
        self.attend(looked_at=False)

    def attend(self, *, looked_at: bool) -> None:
        """Listen for what happens to single calls too, or no more."""
        if looked_at and self._attending is None and self._ends:
            self._attending = self._listeners.add(self._hear_of_call, *OF_CALLS)
        elif not looked_at and self._attending is not None:
            self._attending()
            self._attending = None

    @property
    def attending(self) -> bool:
        """Whether it listens for what happens to single calls."""
        return self._attending is not None

    # -- hearing ----------------------------------------------------------------------------------------------------------------------

    def _number(self, now: float) -> int:
        tick = max(int(now * _TICKS), self._last + 1)
        self._last = tick
        return tick * _SLOTS + self._slot

    def _hear(self, event: Event) -> None:
        now = self._clock.time()
        with self._lock:
            self._notable.append(_Noted(self._number(now), event))
            if len(self._notable) > MOST_EVENTS:
                self._dropped.append(self._notable.popleft().id)
                self._dropped_in_all += 1
            if isinstance(event, events.BreakerChanged):
                self._note_step(event)
            self.version += 1

    def _note_step(self, event: events.BreakerChanged) -> None:
        steps = self._steps.pop(event.guard, None)
        if steps is None:
            if len(self._steps) >= _MOST_SUBJECTS:
                # The one whose last step is the longest ago.
                del self._steps[next(iter(self._steps))]
            steps = deque(maxlen=_MOST_STEPS)
        steps.append(event)
        self._steps[event.guard] = steps

    def _hear_of_call(self, event: Event) -> None:
        now = self._clock.time()
        with self._lock:
            if isinstance(event, events.CallEnded) and event.outcome == "rejected":
                self._note_rejection(event)
            if int(now) != self._second:
                self._second, self._in_second = int(now), 0
            if self._in_second >= _A_SECOND:
                self.thinned += 1
                return
            self._in_second += 1
            self._of_calls.append(_Noted(self._number(now), event))
            if len(self._of_calls) > _MOST_OF_CALLS:
                self._of_calls.popleft()

    def _note_rejection(self, event: events.CallEnded) -> None:
        if event.guard not in self._rejections and len(self._rejections) >= _MOST_SUBJECTS:
            return
        reasons = self._rejections.setdefault(event.guard, {})
        reason = _WORD.sub("_", event.error or "unknown").lower()[:60]
        reason = reason if reason in reasons or len(reasons) < _MOST_STEPS else "other"
        reasons[reason] = reasons.get(reason, 0) + 1

    # -- answers ----------------------------------------------------------------------------------------------------------------------

    def read(self, after: int = 0, *, kind: str | None = None, about: str | None = None, most: int = 200) -> dict[str, Any]:
        """The last ``most`` events after this number, oldest first.

        ``lost``: how many more there were and are not here any more, as far as that is known; ``upto``: all up to this number are told.
        """
        with self._lock:
            upto = self._number(self._clock.time())
            noted = [*self._after(self._notable, after), *self._after(self._of_calls, after)]
            lost = sum(number > after for number in self._dropped) if after else 0
            thinned = self.thinned
        noted.sort(key=lambda each: each.id)
        shown: list[dict[str, Any]] = []
        for each in reversed(noted):
            if len(shown) == most:
                break
            if (kind is None or type(each.event).__name__ == kind) and (about is None or _concerns(each.event, about)):
                shown.append(self._shown(each))
        return {"events": shown[::-1], "upto": upto, "lost": lost, "thinned": thinned}

    @staticmethod
    def _after(noted: deque[_Noted], number: int) -> Iterator[_Noted]:
        found = []
        for each in reversed(noted):
            if each.id <= number:
                break
            found.append(each)
        return iter(found)

    def _shown(self, noted: _Noted) -> dict[str, Any]:
        event = noted.event
        said = facts(event)
        try:
            text = in_words(event, said)
        except (KeyError, ValueError, TypeError):
            # A fact that is None has no place in a sentence.
            text = type(event).__name__
        level = level_of(event)
        return {
            "id": noted.id,
            "source": self.source,
            "at": event.at,
            "kind": type(event).__name__,
            "level": logging.getLevelName(logging.DEBUG if level is None else level).lower(),
            "about": _about(event),
            "text": text,
            "facts": {name: value if not isinstance(value, float) or value - value == 0.0 else str(value) for name, value in said.items()},
        }

    def timeline(self, guard: str) -> list[dict[str, Any]]:
        """The last 100 steps of the breaker of a guard, oldest first; those of its keys name the key."""
        with self._lock:
            steps = list(self._steps.get(guard, ()))
        return [
            {
                "at": step.at,
                "source": self.source,
                "before": step.before,
                "after": step.after,
                "cause": harmless(step.cause),
                "key": None if step.key is None else harmless(str(step.key)),
                "shadow": step.shadow,
                "injected": step.injected,
            }
            for step in steps
        ]

    def rejections(self, guard: str) -> dict[str, int]:
        """Why calls of a guard were refused while somebody looked, by reason."""
        with self._lock:
            return dict(self._rejections.get(guard, {}))


def _about(event: Event) -> str:
    for field in _ABOUT:
        value = getattr(event, field, None)
        if value is not None:
            return harmless(str(value))
    return ""


def _concerns(event: Event, about: str) -> bool:
    if isinstance(event, events.Reconfigured):
        return about in event.guards
    return any(getattr(event, field, None) == about for field in ("guard", "component", "slo", "canary", "experiment", "schedule", "name"))
