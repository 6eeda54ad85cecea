"""How many calls at once a dependency takes, found out from how long its answers take. No clock, lock or chance of its own.

A dependency that is asked for more than it can do lets calls wait, and answers come later (Little's law: calls inside = rate x time). The
time of an answer without any waiting, the *baseline*, compared with the time of the answers now, says how many of the calls inside only
wait. Two algorithms make a limit of that, both from Netflix's ``concurrency-limits``:

- :func:`gradient_step`: ``Gradient2``. The limit is scaled by ``tolerance * baseline / now``, plus room for a queue.
- :func:`vegas_step`: after TCP Vegas (Brakmo, Peterson, 1995). The queue inside the dependency is estimated as a number of calls, and kept
  between two bounds that grow with the logarithm of the limit.

What is done so that one slow call, and an hour of overload, lead to no wrong limit:

- **Windows.** A step is taken at most once a window of time *and* of a number of samples, from the mean. After a step, what ends within the
  time of one answer is no sample: it was let in under another limit.
- **The baseline does not drift.** An average of what was seen creeps up to the overload and then allows twice as much (that of Netflix
  does). Here the baseline rises only while the limit is not in the way, and by a *dip*: every now and then, while the limit is used, half
  of the calls are let in for one window. If answers come clearly faster, their time was our own doing, and what was seen is at most the
  baseline. If not, that is how long the dependency takes now.
- **Drops.** Timeouts and refusals by the dependency tell nothing about time. When there are several in a window, and more than chance,
  the limit falls by their share, to the half at most: a dependency that refuses what is too much is at its capacity then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["Estimator", "Tuning", "gradient_step", "vegas_step"]

_NOISE: Final = 0.01
"""The share of drops that a healthy dependency may have."""
_SAME: Final = 0.8
_HALF: Final = 0.55
"""What the answers take with half of the calls, as a share of before: from here on as long as before, up to there half as long."""
_NEWS: Final = 0.2
"""By how much a baseline has to differ from the one that was known to tell something new."""
_STRANGE: Final = 2.5
_USUAL: Final = 2.0
_PRESSED: Final = 5
"""After so many windows in a row with answers of more than ``_STRANGE`` times the baseline a dip does not wait for its turn; again only
when there was one with at most ``_USUAL`` times the baseline."""
_SOON: Final = 10
_LATE: Final = 160
"""Windows in use between two dips: so many at first, and twice as many after each that has told nothing new, up to the latter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """What an :class:`Estimator` goes by."""

    algorithm: str = "gradient"
    initial: int = 20
    minimum: int = 1
    maximum: int = 200
    tolerance: float = 1.5
    """How many times the baseline an answer may take before the gradient counts it as waiting."""
    smoothing: float = 0.2
    """How much of each step of the gradient is taken."""
    queue: int | None = None
    """How many calls the gradient lets wait in the dependency; None: the square root of the limit."""
    window: float = 1.0
    """Seconds that a window lasts at least. It also lasts twice the baseline at least."""
    samples: int = 10
    """Calls that a window holds at least."""


def gradient_step(limit: float, baseline: float, now: float, tuning: Tuning) -> float:
    """The limit after one window in which answers took ``now`` seconds. It never falls by more than half of ``smoothing``."""
    gradient = max(0.5, min(1.0, tuning.tolerance * baseline / now)) if now > 0.0 else 1.0
    queue = math.sqrt(limit) if tuning.queue is None else tuning.queue
    return limit + tuning.smoothing * (limit * gradient + queue - limit)


def vegas_step(limit: float, baseline: float, now: float) -> float:
    """The limit after one window in which answers took ``now`` seconds: more while few calls wait, less when many do."""
    unit = max(1.0, math.log10(limit))
    waiting = math.ceil(limit * (1.0 - baseline / now)) if now > baseline else 0
    if waiting <= unit:
        return limit + 6.0 * unit
    if waiting < 3.0 * unit:
        return limit + unit
    return limit - unit if waiting > 6.0 * unit else limit


class Estimator:
    """The limit of one dependency, from the calls made to it. The caller says what time it is and how many calls are inside."""

    __slots__ = (
        "_anchor",
        "_begun",
        "_dip",
        "_drops",
        "_estimate",
        "_last",
        "_most",
        "_patience",
        "_pressed",
        "_puzzled",
        "_ready",
        "_samples",
        "_seconds",
        "_smooth",
        "_used",
        "baseline",
        "tuning",
    )

    def __init__(self, tuning: Tuning) -> None:
        """Nothing known yet: the limit is the initial one."""
        self.tuning = tuning
        self.baseline: float | None = None
        """Seconds that an answer takes without waiting, as far as is known."""
        self._estimate = float(tuning.initial)
        self._anchor = 0.0
        """The baseline that was found last."""
        self._smooth = 0.0
        """A short average of the windows: one lucky window is no baseline."""
        self._last = 0.0
        """The mean of the last window."""
        self._used = self._pressed = 0
        self._puzzled = False
        self._patience = _SOON
        self._dip: int | None = None
        self._begun: float | None = None
        self._ready = 0.0
        self._samples = self._drops = self._most = 0
        self._seconds = 0.0

    @property
    def limit(self) -> int:
        """How many calls may be inside now."""
        return int(self._estimate) if self._dip is None else min(int(self._estimate), self._dip)

    @property
    def dipping(self) -> bool:
        """Whether the limit is lowered for a moment, to see what answers take then."""
        return self._dip is not None

    def retune(self, tuning: Tuning) -> None:
        """Go by something else from now on; what is known of the dependency stays."""
        self.tuning = tuning
        self._dip = None
        self._estimate = self._within(self._estimate)

    def sample(self, seconds: float, now: float, inside: int) -> bool:
        """A call that ended at ``now`` took ``seconds``, with ``inside`` calls in the dependency. Whether the limit has changed."""
        if not self._counts(seconds, now, inside):
            return False
        self._samples += 1
        self._seconds += seconds
        return self._close(now)

    def drop(self, seconds: float, now: float, inside: int) -> bool:
        """The dependency refused a call or did not answer in time. Whether the limit has changed."""
        if not self._counts(seconds, now, inside):
            return False
        self._drops += 1
        return self._close(now)

    def _counts(self, seconds: float, now: float, inside: int) -> bool:
        if self._begun is None:
            # The first call of all: there is a window since it began.
            self._open(now - seconds, 0.0)
        self._most = max(self._most, inside)
        return now >= self._ready

    def _open(self, now: float, settle: float) -> None:
        """Begin a window; what ends in its first ``settle`` seconds has been let in under another limit."""
        self._begun = now
        self._ready = now + settle
        self._samples = self._drops = self._most = 0
        self._seconds = 0.0

    def _close(self, now: float) -> bool:
        """End the window if it is one. Whether the limit has changed."""
        ended = self._samples + self._drops
        begun = now if self._begun is None else self._begun
        if ended < self.tuning.samples or now < max(begun + self.tuning.window, self._ready + (self.baseline or 0.0)):
            return False
        before, share = self.limit, self._drops / ended
        if self._drops > 1 and share > _NOISE:
            self._dip = None
            self._estimate = self._within(self._estimate * max(0.5, 1.0 - share))
        elif self._samples:
            self._learn(self._seconds / self._samples)
        changed = self.limit != before
        # Those who came under the former limit leave within about the time that calls take; for a dip, nearly all of them shall have.
        self._open(now, 0.0 if not changed else 2.0 * self._last if self._dip is not None else self._last)
        return changed

    def _learn(self, seconds: float) -> None:
        """Take in what answers took in a window."""
        if self._dip is not None:
            self._judge_dip(seconds, self._dip)
            return
        self._last = seconds
        if self.baseline is None:
            self.baseline = self._smooth = self._anchor = seconds
        self._smooth += 0.2 * (seconds - self._smooth)
        idle = 2 * self._most < self._estimate
        if self._smooth < self.baseline:
            self.baseline = self._smooth
            if self.baseline < (1.0 - _NEWS) * self._anchor:
                self._patience, self._anchor = _SOON, self.baseline
        elif idle:
            # Nobody waits because of us: what an answer takes now is how long it takes. Slowly, for others may be the reason.
            self.baseline += 0.01 * (seconds - self.baseline)
        if idle:
            return
        if self.tuning.algorithm == "vegas":
            self._estimate = self._within(vegas_step(self._estimate, self.baseline, seconds))
        else:
            self._estimate = self._within(gradient_step(self._estimate, self.baseline, seconds, self.tuning))
        self._used += 1
        self._pressed = self._pressed + 1 if seconds > _STRANGE * self.baseline else 0
        # Not twice for the same reason: in a small dependency a queue of the usual length takes that long.
        self._puzzled = self._puzzled or seconds <= _USUAL * self.baseline
        if self._used >= self._patience or (self._puzzled and self._pressed >= _PRESSED):
            self._puzzled = self._puzzled and not self._pressed
            self._begin_dip()

    def _begin_dip(self) -> None:
        self._used = self._pressed = 0
        half = min(self._most, int(self._estimate)) // 2
        if half >= max(1, self.tuning.minimum):
            self._dip = half
        elif int(self._estimate) <= self.tuning.minimum:
            # With the fewest calls there may be it is no faster than this.
            self._rebase(self._smooth)

    def _judge_dip(self, seconds: float, dip: int) -> None:
        share = seconds / self._last if self._last > 0.0 else 1.0
        known = seconds if self.baseline is None else self.baseline
        half = dip // 2
        self._dip = None
        if share >= _SAME:
            # Half of the calls, and no faster: it is not we who make it slow.
            self._rebase(seconds)
        elif share <= _HALF and half >= max(1, self.tuning.minimum):
            # Half of the calls, and twice as fast: they are still waiting in there. Once more.
            self._dip = half
            self.baseline = min(known, seconds)
            self._last = seconds
        else:
            self._rebase(min(known, seconds))

    def _rebase(self, seconds: float) -> None:
        known = seconds if self.baseline is None else self.baseline
        told = abs(seconds - known) > _NEWS * known
        self._patience = _SOON if told else min(2 * self._patience, _LATE)
        self.baseline = self._smooth = self._anchor = seconds if told else (seconds + known) / 2.0

    def _within(self, limit: float) -> float:
        return max(float(self.tuning.minimum), min(float(self.tuning.maximum), limit))
