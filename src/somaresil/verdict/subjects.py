"""What is judged, by name: judges and controllers behind one face."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from somaresil.canary.opinion import Opinion
from somaresil.model.rollout import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.canary.fleet import EvidenceInbox, FleetJudge
    from somaresil.canary.ledger import Finding

__all__ = ["Controller", "Subject", "is_subject"]


@runtime_checkable
class Controller(Protocol):
    """What of a :class:`~somaresil.canary.controller.CanaryController` is needed here."""

    def status(self) -> Any:
        """How it stands."""
        ...

    def roll_back(self, reason: str) -> Any:
        """All traffic to the control."""
        ...

    def promote(self, reason: str = "") -> Any:
        """On to the next phase."""
        ...

    def pause(self, reason: str = "") -> Any:
        """Stay."""
        ...

    def resume(self, reason: str = "") -> Any:
        """Go on."""
        ...


def is_subject(value: object) -> bool:
    """Whether verdicts on it can be given."""
    return callable(getattr(value, "opinion", None)) or isinstance(value, Controller)


class Subject:
    """One canary that is asked about."""

    def __init__(self, name: str, value: FleetJudge | Controller | Any) -> None:
        """``value`` is a judge, which has opinions by checksum, or a controller, which has one rollout."""
        self.name = name
        self._value: Any = value
        self._judges = callable(getattr(value, "opinion", None))

    @property
    def inboxes(self) -> tuple[EvidenceInbox, ...]:
        """Where it takes what pods push."""
        judge = self._value if self._judges else getattr(self._value, "judge", None)
        return tuple(each for each in getattr(judge, "sources", ()) if callable(getattr(each, "take", None)))

    @property
    def moved(self) -> bool:
        """Whether people can promote, pause and so on."""
        return isinstance(self._value, Controller)

    @property
    def current(self) -> str:
        """The checksum that it is about now; empty: none."""
        if self._judges:
            return str(getattr(self._value, "current", ""))
        return self._value.status().checksum or ""

    @property
    def paused(self) -> str:
        """Why somebody has paused it; empty: nobody has."""
        if self._judges:
            return str(getattr(self._value, "paused", ""))
        return "somebody has paused it" if self._value.status().paused else ""

    def begin(self, checksum: str) -> None:
        """The engine is about this checksum from now on. A controller is started by whoever owns it."""
        begin = getattr(self._value, "begin", None)
        if callable(begin):
            begin(checksum)

    def opinion(self, checksum: str, *, asks_only: bool) -> Opinion:
        """What is known of this checksum. ``asks_only``: nothing begins by asking, unless there is nothing yet."""
        if not self._judges:
            return self._of_controller(checksum)
        current, peek = self.current, getattr(self._value, "peek", None)
        checksum = checksum or current
        if not checksum:
            return _nothing("nothing was started")
        found = peek(checksum) if asks_only and current and callable(peek) else self._value.opinion(checksum)
        return found if isinstance(found, Opinion) else _nothing("the judge gave no opinion")

    def _of_controller(self, checksum: str) -> Opinion:
        status = self._value.status()
        finding: Finding = status.finding
        if checksum and checksum != status.checksum:
            return _nothing(f"nothing is known of the checksum {checksum[:40]!r}; {str(status.checksum)[:40]!r} is under way")
        verdict, reason = finding.verdict, finding.reason
        if status.phase == "rollback":
            verdict, reason = Verdict.FAIL, status.reason
        elif verdict is not Verdict.FAIL and status.phase == "complete":
            verdict, reason = Verdict.PASS, status.reason
        elif verdict is Verdict.PASS and status.paused:
            verdict, reason = Verdict.WAIT, "it is paused"
        return Opinion(verdict, reason, finding, getattr(status, "newest", None), tuple(getattr(status, "missing", ())))

    async def act(self, what: str, reason: str) -> Any:
        """Have somebody's word: ``promote``, ``rollback``, ``pause`` or ``resume``. In a thread: it is written down."""
        method = getattr(self._value, "roll_back" if what == "rollback" else what)
        return await asyncio.to_thread(method, reason)

    def document(self) -> dict[str, Any]:
        """How it stands, for people: one form for judges and controllers. What is not a finite number is null."""
        status = self._value.status() if self.moved else {}
        fields: Mapping[str, Any] = status if isinstance(status, dict) else {name: getattr(status, name, None) for name in _STATUS}
        checksum = fields.get("checksum")
        opinion = self.opinion(checksum or "", asks_only=True)
        finding = opinion.finding
        counts = finding.counts
        return {
            "canary": self.name,
            "version": fields.get("version"),
            "checksum": checksum,
            "phase": fields.get("phase", ""),
            "weight": number(fields.get("weight")),
            "paused": bool(fields.get("paused", False)),
            "leads": bool(fields.get("leads", True)),
            "baked": number(fields.get("baked")),
            "events": fields.get("events", counts.candidate),
            "verdict": opinion.verdict.value,
            "reason": opinion.reason,
            "evidence": {
                "worse": number(finding.worse),
                "not_much_worse": number(finding.not_much_worse),
                "too_bad": number(finding.too_bad),
                "candidate_good": counts.candidate_good,
                "candidate_bad": counts.candidate_bad,
                "control_good": counts.control_good,
                "control_bad": counts.control_bad,
            },
            "missing": list(opinion.missing),
            "at": number(opinion.at),
        }


_STATUS = ("version", "checksum", "phase", "weight", "paused", "leads", "baked", "events")


def number(value: object) -> float | int | None:
    """A finite number; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _nothing(reason: str) -> Opinion:
    from somaresil.canary.ledger import Counts, Finding

    return Opinion(Verdict.WAIT, reason, Finding(Verdict.WAIT, reason, 1.0, 1.0, 1.0, Counts()))
