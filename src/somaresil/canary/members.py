"""What a judge of many pods keeps: of each process that tells, and of each checksum; and how the latter is written down."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.ledger import CanaryLedger
from somaresil.canary.telling import MOST_MARKS, Mark, follows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from somaresil.canary.ledger import Levels
    from somaresil.canary.telling import Telling

__all__ = ["Member", "Trial"]

_MARKS_KEPT: Final = 2 * MOST_MARKS


@dataclass(slots=True)
class Member:
    """One process that tells."""

    telling: Telling
    name: str
    heard: float
    """Of the monotonic clock."""
    round: int
    marks: dict[float, Mark] = field(default_factory=dict[float, Mark])
    reached: float | None = None
    """The mark up to which its events are counted."""
    refused: str = ""
    """Why it is not listened to any more."""

    def note(self, marks: Sequence[Mark]) -> None:
        """Keep these marks beside those that are known; what cannot be true is the last that is heard of it."""
        last = max(self.marks, default=None)
        for mark in marks:
            known = self.marks.get(mark.at)
            if known is not None and known != mark:
                self.refused = "it tells two things of one moment"
            elif known is None and (last is None or mark.at > last):
                if last is not None and not follows(self.marks[last], mark):
                    self.refused = "its counts went back"
                self.marks[mark.at], last = mark, mark.at
        while len(self.marks) > _MARKS_KEPT:
            del self.marks[min(self.marks)]

    def counted_since(self, moment: float) -> bool:
        """Whether it began to count at ``moment`` or later, by its own clock."""
        return self.telling.age is not None and self.telling.time - self.telling.age >= moment


@dataclass(slots=True)
class Trial:
    """What is known of one checksum."""

    checksum: str
    ledgers: dict[str, CanaryLedger]
    since: float
    """Seconds since the epoch: what was seen before does not count."""
    began: float
    """Of the monotonic clock."""
    failed: str = ""
    passed: str = ""
    """Why somebody has let it pass by hand."""
    compared: int = 0
    """Events of the candidate that had some of the control beside them."""
    at: float | None = None
    """The newest mark with events of pods of the candidate."""
    fresh: float = -math.inf
    """When that was counted, on the monotonic clock."""
    versions: tuple[str, ...] = ()

    def written(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {
            "checksum": self.checksum,
            "since": self.since,
            "failed": self.failed,
            "passed": self.passed,
            "compared": self.compared,
            "at": self.at,
            "ledgers": {label: ledger.dump() for label, ledger in self.ledgers.items()},
        }

    @classmethod
    def read(cls, said: Mapping[str, Any], labels: Sequence[str], levels: Levels, now: float, monotonic: float) -> Trial:
        """What :meth:`written` gave, at ``now`` by the wall and ``monotonic`` by the other clock.

        How old its data are only the wall clock can tell; were that wrong, the next step would tell. Raises what it likes for what is none.
        """
        texts = [said[name] for name in ("checksum", "failed", "passed")]
        since, compared, newest = said["since"], said["compared"], said["at"]
        if not all(isinstance(text, str) for text in texts) or type(since) is not float or type(compared) is not int or compared < 0:
            raise ValueError("a trial in it is none")
        at = newest if type(newest) is float and newest <= now else None
        return cls(
            checksum=texts[0],
            ledgers={label: CanaryLedger.restore(said["ledgers"].get(label), levels) for label in labels},
            since=since,
            began=monotonic - max(0.0, now - since),
            failed=texts[1],
            passed=texts[2],
            compared=compared,
            at=at,
            fresh=-math.inf if at is None else monotonic - (now - at),
        )
