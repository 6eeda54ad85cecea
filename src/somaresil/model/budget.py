"""How many further attempts are allowed: a share of the calls of late, and a few anyway.

Retries multiply load exactly when there is too much of it: three layers that each try three times send 27 calls for one. A budget bounds
the factor for all callers together (Finagle's ``RetryBudget``; Google SRE book, "Addressing Cascading Failures"). *Of late* is an
exponential average: what happened ``window`` seconds ago weighs 1/e. That needs four numbers, however long the window is.
"""

from __future__ import annotations

from math import exp

__all__ = ["Allowance"]


class Allowance:
    """Calls and further attempts of late. Not safe to share: whoever owns it holds a lock around each method."""

    __slots__ = ("_at", "_calls", "_seen", "_spent", "floor", "ratio", "window")

    def __init__(self, ratio: float, floor: float, window: float, now: float) -> None:
        """Allow ``ratio`` of the calls and ``floor`` attempts a second anyway, averaged over ``window`` seconds."""
        self.ratio = ratio
        self.floor = floor
        self.window = window
        self._at = now
        self._seen = 0
        self._calls = 0.0
        self._spent = 0.0

    def take(self, now: float, calls: int, scale: float = 1.0) -> bool:
        """Whether one more attempt is allowed; then it is counted. ``calls`` is the number of calls so far, ``scale`` shrinks it all."""
        self._decay(now, calls)
        if self._spent + 1.0 > self.most(scale):
            return False
        self._spent += 1.0
        return True

    def joined(self, now: float, calls: int) -> None:
        """From ``now`` on calls are counted that were ``calls`` more before: those are none of late."""
        self._at = max(self._at, now)
        self._seen += calls

    def give_back(self) -> None:
        """The attempt that was taken is not made."""
        self._spent = max(0.0, self._spent - 1.0)

    def left(self, now: float, calls: int, scale: float = 1.0) -> float:
        """How many attempts are left, at least 0."""
        self._decay(now, calls)
        return max(0.0, self.most(scale) - self._spent)

    def most(self, scale: float = 1.0) -> float:
        """How many attempts of late are allowed, as of the last look."""
        return scale * (self.ratio * self._calls + self.floor * self.window)

    def _decay(self, now: float, calls: int) -> None:
        passed = max(0.0, now - self._at) / self.window
        new = max(0, calls - self._seen)
        keep = exp(-passed)
        # The calls since the last look are taken to have come evenly; those of its beginning have decayed as well.
        self._calls = self._calls * keep + (new * (1.0 - keep) / passed if passed > 0.0 else new)
        self._spent *= keep
        self._at = max(self._at, now)
        self._seen = max(self._seen, calls)
