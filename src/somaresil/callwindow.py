"""What a breaker sees of its calls: a window over time or over the last so many, read from a recorder when something goes wrong.

Quiet calls are not told to it. They are counted in the recorder, and whoever asks after a failure reads how many there were since. Not
safe to share: the breaker holds its lock around each method. Locks are taken in the order breaker, recorder.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from somaresil.model.breaker import NOTHING_SEEN, Tally
from somaresil.model.window import CountWindow, PrefixRing

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.recorder import Recorder

__all__ = ["CallWindow", "watch_slow"]

_SLOTS = 10
"""Slots of a window over time: it looks at up to a tenth less than its length, and never at more."""


_mark, _time = itemgetter(0), itemgetter(1)


class CallWindow:
    """The calls since it was made, as far as they lie in the window."""

    __slots__ = (
        "_calls",
        "_failures",
        "_in_a_row",
        "_last",
        "_onsets",
        "_quiet_base",
        "_quiet_seen",
        "_recorder",
        "_ring",
        "_seconds",
        "_slow",
        "first_failure",
    )

    def __init__(self, recorder: Recorder, seconds: float, calls: int | None, now: float) -> None:
        """Empty at time ``now``; over the last ``calls`` calls when that is given, else over ``seconds``."""
        self._recorder = recorder
        self._seconds = seconds
        self._quiet_base = self._quiet_seen = sum(recorder.quiet_counts())
        self._calls = self._failures = self._slow = self._in_a_row = 0
        self._last = None if calls is None else CountWindow(calls)
        self._ring = PrefixRing(seconds / _SLOTS, _SLOTS + 2, 3, now) if calls is None else None
        self._onsets: list[tuple[float, float]] = []
        self.first_failure = now
        """When the oldest bad or slow call in the window ended, as of the last one noted."""

    @property
    def due(self) -> float:
        """The next boundary of a window over time."""
        return float("inf") if self._ring is None else self._ring.due

    def roll(self, now: float) -> None:
        """Note the totals at the boundaries passed; before anything behind them is counted."""
        if self._ring is not None and now >= self._ring.due:
            self._ring.roll(now, self._totals())

    def note(self, now: float, *, failed: bool, slow: bool) -> Tally:
        """Take in a call that the recorder has not counted as quiet; what the window shows with it, if it was bad or slow."""
        self.roll(now)
        self._calls += 1
        self._failures += failed
        self._slow += slow
        if not failed:
            self._in_a_row = 0
            if not slow:
                return NOTHING_SEEN
        quiet = sum(self._recorder.quiet_counts())
        if failed:
            self._in_a_row = 1 if quiet != self._quiet_seen else self._in_a_row + 1
            self._quiet_seen = quiet
        position = quiet - self._quiet_base + self._calls
        if self._last is not None:
            self._last.note(position, failed=failed, slow=slow)
        self._note_onset(now, position)
        return self.look(now)

    def look(self, now: float) -> Tally:
        """What the window shows at time ``now``."""
        totals = self._totals()
        # A quiet call since the last failure has ended the row, and nobody was told.
        quiet = totals[0] - self._calls + self._quiet_base
        in_a_row = self._in_a_row if quiet == self._quiet_seen else 0
        if self._last is not None:
            return Tally(*self._last.tally(totals[0]), consecutive=in_a_row)
        if self._ring is None:
            return NOTHING_SEEN
        self._ring.roll(now, totals)
        calls, failures, slow = self._ring.within(now - self._seconds, totals)
        return Tally(calls, failures, slow, in_a_row)

    def _totals(self) -> tuple[int, int, int]:
        return sum(self._recorder.quiet_counts()) - self._quiet_base + self._calls, self._failures, self._slow

    def _note_onset(self, now: float, position: int) -> None:
        """Keep the times of bad calls, one a slot or position, as long as they are in the window: an incident begins with the oldest."""
        if self._ring is not None:
            mark, since = self._ring.due, now - self._seconds
            over = bisect_left(self._onsets, since, key=_time)
        else:
            mark, oldest = float(position), position - (self._last.size if self._last is not None else 0)
            over = bisect_right(self._onsets, oldest, key=_mark)
        # A list made anew at each failure would cost as much as the window is long.
        del self._onsets[:over]
        if not self._onsets or self._onsets[-1][0] != mark:
            self._onsets.append((mark, now))
        self.first_failure = self._onsets[0][1]


_NEVER = object()


def watch_slow(recorder: Recorder, above: float | None, seen: Callable[[float], None]) -> None:
    """Have ``seen`` called at the end of each quiet call that took longer than ``above`` seconds, in place of counting it; None: of none.

    ``above`` is one of the bounds. ``seen`` gets the upper bound of the bucket.
    """
    bounds = recorder.bounds
    for bucket, counter in enumerate(recorder.quiet_counters):
        lower, upper = bounds[bucket - 1] if bucket else 0.0, bounds[bucket] if bucket < len(bounds) else float("inf")
        # An iterator that calls each time and never ends: what it gives is never the sentinel.
        recorder.cells[bucket] = iter(partial(seen, upper), _NEVER) if above is not None and lower >= above else counter
