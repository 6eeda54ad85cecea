"""Flagger's webhooks: one path a hook, for the payload does not say which one it is.

Flagger takes a status up to 202 for yes and everything else for no, and repeats the body as the reason; but not that of 429 and 5xx, which
its client retries. So no is 409 with one line of text, also where the fault is ours. The hook ``rollback`` is the other way round: yes
rolls back at once. There yes needs a proven failure; no data, a defect, an unknown name or an unknown caller are all a no.

========================  =====================================  =============================  ======================================
hook                      pass                                   fail                           wait
========================  =====================================  =============================  ======================================
confirm-rollout           200: evidence of the checksum begins   409: it has failed before      200; 409 while it is paused
pre-rollout               200, the same                          409                            200; 409 while it is paused
rollout                   200                                    409: counts as a failed check  ``while_waiting``
confirm-traffic-increase  200                                    409                            409, but for the first ``free_steps``
confirm-promotion         200                                    409                            409
post-rollout, event       200                                    200                            200
rollback                  409                                    200: rolls back                409
========================  =====================================  =============================  ======================================
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from somaresil.model.rollout import Verdict

if TYPE_CHECKING:
    from somaresil.canary.opinion import Opinion
    from somaresil.typing import Clock
    from somaresil.verdict.subjects import Subject

__all__ = ["HOOKS", "WHILE_WAITING", "Hooks"]

HOOKS: Final = (
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
    "event",
    "rollback",
)
WHILE_WAITING: Final = ("gated", "go", "hold")
_MOST: Final = 256
_SAME_ASK: Final = 5.0
"""Seconds within which a gate that asks again repeats itself, for its answer was lost: Flagger's intervals have 10 at least."""
_YES, _NO = 200, 409


class _Asked:
    """What an engine has asked about one checksum of a canary."""

    __slots__ = ("at", "gated", "steps")

    def __init__(self) -> None:
        self.gated = False
        """Whether a gate has asked: then the traffic does not grow by ``rollout`` alone."""
        self.at = -math.inf
        """When the last of these steps was granted, on the monotonic clock."""
        self.steps = 0
        """How often the traffic was let grow without any event of the candidate."""


class Hooks:
    """Answers hooks. Remembers of the last 256 checksums which gates have asked, and nothing else."""

    def __init__(self, while_waiting: str, free_steps: int, clock: Clock) -> None:
        """See :func:`~somaresil.verdict.app.verdict_app`."""
        self._clock = clock
        self._while_waiting = while_waiting
        self._free_steps = free_steps
        self._known: OrderedDict[tuple[str, str], _Asked] = OrderedDict()

    def answer(self, hook: str, subject: Subject, checksum: str) -> tuple[int, str]:
        """Status and reason."""
        if hook in {"post-rollout", "event"}:
            return _YES, "noted"
        # An engine that asks is about this checksum, whichever hooks it was given.
        subject.begin(checksum)
        opinion = subject.opinion(checksum, asks_only=False)
        verdict, reason = opinion.verdict, f"{opinion.verdict.value}: {opinion.reason}"
        if hook == "rollback":
            return (_YES if verdict is Verdict.FAIL else _NO), reason
        asked = self._asked(subject.name, checksum)
        asked.gated = asked.gated or hook in {"confirm-traffic-increase", "confirm-promotion"}
        if verdict is Verdict.WAIT:
            yes, reason = self._may_wait(hook, subject, opinion, asked, reason)
        else:
            yes = verdict is Verdict.PASS
        return (_YES if yes else _NO), reason

    def _may_wait(self, hook: str, subject: Subject, opinion: Opinion, asked: _Asked, reason: str) -> tuple[bool, str]:
        if subject.paused:
            # The analysis goes on, for a pause is no failed check; nothing else does.
            return hook == "rollout" and self._while_waiting != "hold" and asked.gated, reason
        if hook in {"confirm-rollout", "pre-rollout"}:
            return True, reason
        if hook == "rollout":
            if self._while_waiting == "gated" and not asked.gated:
                return False, f"{reason} (no confirm-traffic-increase or confirm-promotion has asked about it, so this is what holds it)"
            return self._while_waiting != "hold", reason
        if hook == "confirm-traffic-increase" and not opinion.finding.counts.candidate:
            now = self._clock.monotonic()
            if now - asked.at >= _SAME_ASK:
                if asked.steps >= self._free_steps:
                    return False, f"{reason} (the traffic was let grow {asked.steps} times without data)"
                asked.steps, asked.at = asked.steps + 1, now
            return True, f"{reason} (step {asked.steps} of {self._free_steps} without data: there are none without traffic)"
        return False, reason

    def _asked(self, canary: str, checksum: str) -> _Asked:
        key = canary, checksum
        asked = self._known.get(key)
        if asked is None:
            asked = self._known[key] = _Asked()
            while len(self._known) > _MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return asked
