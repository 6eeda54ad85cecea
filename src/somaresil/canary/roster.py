"""Who tells what a fleet has seen: each process that was heard, of which side it is, and who is missing.

Nothing is believed that contradicts itself: a process whose clock is wrong, whose counts go back, or that is told on both sides, is not
listened to, and is missing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Literal

from somaresil.canary.members import Member
from somaresil.canary.sources import MOST_PODS, Absent, EvidenceSource, Reading, Told
from somaresil.canary.telling import Telling, read_telling
from somaresil.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from somaresil.typing import Clock

__all__ = ["LONGEST_REASON", "SAME", "Roster", "Side"]

LONGEST_REASON: Final = 200
SAME: Final = "is said to be of the control, and has the checksum of the candidate"
_BOTH: Final = "it is told on both sides"
_AHEAD: Final = 0.25
"""Share of ``every`` by which the clock of a pod may be wrong."""

Side = Literal["candidate", "control"]


class Roster:
    """The processes of one :class:`~somaresil.canary.fleet.FleetJudge`, which holds its lock whenever it asks.

    ``bad``: the labels that each has to tell of; ``every``: seconds from mark to mark; ``stale``: seconds after which one that is not heard
    of is forgotten.
    """

    def __init__(self, bad: Sequence[str], *, every: float, stale: float, clock: Clock) -> None:
        """Nobody was heard yet."""
        self._bad, self._every, self._stale, self._clock = tuple(bad), every, stale, clock
        self._members: OrderedDict[str, Member] = OrderedDict()
        self._absent: tuple[Absent, ...] = ()
        self._round = 0

    def __iter__(self) -> Iterator[Member]:
        """All that are known, whether they are listened to or not."""
        return iter(self._members.values())

    @property
    def has_absent(self) -> bool:
        """Whether somebody who should have told was no use in the last round."""
        return bool(self._absent)

    def checksums(self) -> list[str]:
        """What those who are not of the control, and are listened to, say that they serve; some of it more than once."""
        heard = [each.telling for each in self if not each.refused]
        return [telling.checksum for telling in heard if telling.role != "control" and telling.checksum]

    # -- hearing ------------------------------------------------------------------------------------------------------------------------

    def hear(self, readings: Iterable[tuple[EvidenceSource, Reading]]) -> None:
        """Begin a round: keep what all sources have given, and forget who was replaced or not heard of for long."""
        self._round += 1
        absent: list[Absent] = []
        for source, reading in readings:
            absent += reading.absent
            for told in reading.told[: MOST_PODS + 1]:
                why, role = self._hear_one(told, instant=source.instant)
                if why:
                    absent.append(Absent(told.name, why, role))
        now = self._clock.monotonic()
        heard = {(each.telling.pod, each.name) for each in self if each.round == self._round}
        for instance, member in list(self._members.items()):
            replaced = member.round != self._round and (member.telling.pod, member.name) in heard
            if replaced or now - member.heard > self._stale:
                del self._members[instance]
        self._absent = tuple(absent)

    def _hear_one(self, told: Told, *, instant: bool) -> tuple[str, str]:
        """Keep what one process has told; why it is no use, and of whom it would have been."""
        try:
            telling = told.data if isinstance(told.data, Telling) else read_telling(told.data)
        except ConfigurationError as wrong:
            first = wrong.problems[0]
            return f"{first.path} is {first.value!r}: expected {first.allowed}"[:LONGEST_REASON], _role_of(told.data)
        member = self._members.get(telling.instance)
        if member is not None and (member.telling.role, member.telling.checksum) != (telling.role, telling.checksum):
            member.refused = member.refused or (_BOTH if member.round == self._round else "it has changed sides")
        if member is not None and member.refused:
            member.round, member.heard = self._round, self._clock.monotonic()
            return "", telling.role
        why = self._unusable(telling, instant=instant)
        if not why and member is None and len(self._members) >= MOST_PODS:
            why = f"more than {MOST_PODS} processes"
        if why:
            return why, telling.role
        if member is None:
            member = self._members[telling.instance] = Member(telling, told.name, self._clock.monotonic(), self._round)
        member.telling, member.heard, member.round, member.name = telling, self._clock.monotonic(), self._round, told.name
        member.note(telling.marks)
        return "", telling.role

    def _unusable(self, telling: Telling, *, instant: bool) -> str:
        now, allowed = self._clock.time(), self._every * _AHEAD
        if telling.every != self._every:
            return f"it marks every {telling.every:g} s, and not every {self._every:g}"
        newest = max((telling.time, *(mark.at for mark in telling.marks)))
        if newest > now + allowed or (instant and telling.time < now - allowed):
            return f"its clock is wrong by {newest - now:+.0f} s"
        for label in self._bad:
            if any(label not in mark.counts for mark in telling.marks):
                return f"it tells nothing of {label!r}"
        return ""

    # -- sides --------------------------------------------------------------------------------------------------------------------------

    def side(self, member: Member, checksum: str, current: str) -> Side | None:
        """Of which side of the trial of ``checksum`` a process is; None: of none.

        ``current``: the checksum that was begun last, of which those of the candidate are that tell none.
        """
        telling = member.telling
        own = telling.checksum
        if telling.role == "control":
            return None if own and own == checksum else "control"
        if telling.role == "candidate":
            return "candidate" if own == checksum or (not own and checksum == current) else None
        return None if not own else "candidate" if own == checksum else "control"

    def count(self, side: Side, checksum: str, current: str, at: float | None) -> int:
        """How many processes of a side have told of the moment ``at``."""
        return sum(1 for each in self if self.side(each, checksum, current) == side and _is_there(each, at))

    def missing(self, checksum: str, current: str, at: float | None) -> list[Absent]:
        """Who should have told of the moment ``at``, and did not."""
        away = list(self._absent)
        named = {each.name for each in away}
        for member in self:
            telling, side = member.telling, self.side(member, checksum, current)
            if telling.role == "control" and telling.checksum and telling.checksum == checksum:
                away.append(Absent(telling.pod, SAME, "control"))
            elif member.refused:
                away.append(Absent(telling.pod, member.refused, telling.role))
            elif not telling.role and not telling.checksum:
                away.append(Absent(telling.pod, "nobody knows of which side it is"))
            elif side is not None and member.name not in named and not _is_there(member, at):
                quiet = member.round != self._round
                away.append(Absent(telling.pod, "it is not heard of any more" if quiet else "it has not told of the last step", side))
        return away


def _is_there(member: Member, at: float | None) -> bool:
    return not member.refused and at is not None and at in member.marks


def _role_of(data: object) -> str:
    role = data.get("role") if isinstance(data, Mapping) else ""
    return str(role) if role in {"candidate", "control"} else ""
