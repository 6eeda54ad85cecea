"""What came of a game day, as frozen data, and whether the service has withstood it. Rendering is done elsewhere.

The JSON form has a version; :meth:`GameDayReport.from_json` reads what :meth:`GameDayReport.to_json` writes, and refuses what a newer
release has written. Shares are from 0 to 1, durations seconds, ``started_at`` wall-clock seconds since the epoch. What was not seen is
None, never 0 or 100 %.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.gameday.codec import plain, restored
from somaresil.gameday.groups import Comparison  # noqa: TC001 - read at run time, from annotations
from somaresil.gameday.probes import Reading  # noqa: TC001 - as above
from somaresil.model.proportion import Distribution, distribution, wilson

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "VERSION",
    "Amplification",
    "Budget",
    "Check",
    "ExperimentReport",
    "FaultReport",
    "Finding",
    "GameDayReport",
    "GateReport",
    "IncidentReport",
    "PhaseReport",
    "Point",
    "Recovery",
    "Status",
    "finding_of",
]

VERSION: Final = 1
"""Of the JSON form: what this release writes, and the highest that it reads."""
_LARGEST: Final = 20_000_000
_MOST_TEXT: Final = 2_000


class Status(StrEnum):
    """How an experiment ended."""

    HELD = "held"
    """The hypothesis held before, during and after."""
    DEVIATED = "deviated"
    """It did not."""
    ABORTED = "aborted"
    """An abort condition ended the faults."""
    UNPROVEN = "unproven"
    """Nothing deviated, and nothing was shown: no call was struck, or the groups leave it open."""
    NOT_STARTED = "not_started"
    """The hypothesis did not hold to begin with, so nothing was injected."""
    SKIPPED = "skipped"
    """A gate was closed, or an experiment before it ended the game day."""
    FAILED = "failed"
    """It could not be run."""
    INTERRUPTED = "interrupted"
    """Somebody ended the game day in the middle of it."""


@dataclass(frozen=True, slots=True)
class Check:
    """The hypothesis, looked at once."""

    moment: str
    """``before``, ``during`` or ``after``."""
    readings: tuple[Reading, ...]

    @property
    def holds(self) -> bool:
        """Whether all of it held."""
        return all(reading.holds for reading in self.readings)


@dataclass(frozen=True, slots=True)
class Point:
    """What was counted between two looks, for plots."""

    at: float
    """Seconds since the experiment began."""
    calls: int
    ratio: float | None
    p95: float | None
    touched: int


@dataclass(frozen=True, slots=True)
class PhaseReport:
    """One phase, over all guards at which the faults were aimed (with faults on requests, over those routes as well)."""

    name: str
    seconds: float
    calls: int
    good: int
    touched: int
    attempts: int
    p50: float | None
    p95: float | None


@dataclass(frozen=True, slots=True)
class FaultReport:
    """One window, and what it has done."""

    window: Mapping[str, Any]
    """As :meth:`~somaresil.chaos.plan.FaultWindow.as_dict` gives it."""
    injected: int
    end_reason: str | None


@dataclass(frozen=True, slots=True)
class IncidentReport:
    """A circuit that opened."""

    id: str
    guard: str
    seconds: float | None
    """From the first bad call until it was closed again; None: it was not, when the experiment ended."""
    recovered: bool
    injected: bool
    experiment: str | None = None
    """The id of the experiment that made it, as its process has named it."""
    detected_after: float = 0.0
    """Seconds from the first bad call until the circuit opened."""
    mitigated_after: float | None = None
    """Seconds until its callers were answered all the same; None: they were not before it was over."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What an experiment has cost one objective."""

    slo: str
    target: float
    good: int
    """Events while it ran."""
    bad: int
    before: float | None
    """Share of the error budget that was left before; None: nothing was known."""
    after: float | None
    burn_rate: float | None
    """Multiple of the sustainable burn while it ran."""

    @property
    def spent(self) -> float | None:
        """Share of the whole budget that was used up meanwhile."""
        return None if self.before is None or self.after is None else self.before - self.after


@dataclass(frozen=True, slots=True)
class Amplification:
    """Attempts for each call that was not refused: 1 without retries. More of them is load on a dependency that is in trouble already."""

    guard: str
    baseline: float | None
    during: float | None

    @property
    def factor(self) -> float | None:
        """How many times more attempts a call made while the faults were on."""
        return None if not self.baseline or self.during is None else self.during / self.baseline


@dataclass(frozen=True, slots=True)
class Recovery:
    """How many of the injected failures the service recovered from, and what that shows with 95 % confidence."""

    recovered: int
    """Windows with strikes after which the hypothesis held again in time, with every circuit that they opened closed."""
    failures: int
    """Windows with strikes."""

    @property
    def lower_bound(self) -> float | None:
        """The lower end of the Wilson interval of the recovery rate; None without failures."""
        interval = wilson(self.recovered, self.failures)
        return None if interval is None else interval[0]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about the code under test, by whoever grades it."""

    name: str
    severity: str
    evidence: str
    guard: str = ""


def finding_of(found: Any) -> Finding:
    """Take over any object with ``name``, ``severity`` and ``evidence``; missing ones are empty, long ones cut."""
    return Finding(*(str(getattr(found, name, ""))[:_MOST_TEXT] for name in ("name", "severity", "evidence", "guard")))


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """One experiment."""

    name: str
    status: Status
    reasons: tuple[str, ...] = ()
    """Why it has this status; empty when it held."""
    seconds: float = 0.0
    phases: tuple[PhaseReport, ...] = ()
    faults: tuple[FaultReport, ...] = ()
    checks: tuple[Check, ...] = ()
    touched: int = 0
    """Calls and requests that a fault has touched, of what the faults were aimed at."""
    absorbed: int = 0
    """Those of them that ended well all the same."""
    amplifications: tuple[Amplification, ...] = ()
    incidents: tuple[IncidentReport, ...] = ()
    recovered_after: float | None = None
    """Seconds from the end of the faults until the hypothesis held again; None: it did not, or there were none."""
    recovery: Recovery = Recovery(0, 0)
    budgets: tuple[Budget, ...] = ()
    groups: Comparison | None = None
    points: tuple[Point, ...] = ()

    @property
    def injected(self) -> int:
        """Strikes of all windows."""
        return sum(fault.injected for fault in self.faults)

    @property
    def absorbed_share(self) -> float | None:
        """Share of the touched calls that ended well; None: none was touched."""
        return self.absorbed / self.touched if self.touched else None


@dataclass(frozen=True, slots=True)
class GateReport:
    """A gate, and what it said."""

    experiment: str
    gate: str
    open: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class GameDayReport:
    """Everything, and the judgement."""

    name: str
    service: str
    seed: int
    started_at: float
    seconds: float
    experiments: tuple[ExperimentReport, ...]
    gates: tuple[GateReport, ...] = ()
    findings: tuple[Finding, ...] = ()
    version: str = ""
    """Of somaresil."""
    interrupted: str | None = None
    """Why it was ended before its time; None: it was not."""

    @property
    def held(self) -> bool:
        """Whether every experiment was run and held."""
        return all(experiment.status is Status.HELD for experiment in self.experiments)

    @property
    def exit_code(self) -> int:
        """0 all held; 130 interrupted; 2 something could not be run; 1 something deviated or was not shown; 3 the steady state failed."""
        statuses = {experiment.status for experiment in self.experiments}
        if self.interrupted is not None or Status.INTERRUPTED in statuses:
            return 130
        if Status.FAILED in statuses:
            return 2
        if statuses <= {Status.HELD}:
            return 0
        # What was skipped because of it says nothing of its own.
        return 3 if statuses <= {Status.HELD, Status.NOT_STARTED, Status.SKIPPED} and Status.NOT_STARTED in statuses else 1

    @property
    def injected(self) -> int:
        """Strikes of all experiments."""
        return sum(experiment.injected for experiment in self.experiments)

    @property
    def touched(self) -> int:
        """Calls and requests touched, in all experiments."""
        return sum(experiment.touched for experiment in self.experiments)

    @property
    def absorbed(self) -> int:
        """Those of them that ended well."""
        return sum(experiment.absorbed for experiment in self.experiments)

    @property
    def recovery(self) -> Recovery:
        """Of all experiments together."""
        parts = [experiment.recovery for experiment in self.experiments]
        return Recovery(sum(part.recovered for part in parts), sum(part.failures for part in parts))

    @property
    def recoveries(self) -> Distribution | None:
        """Seconds to recovery: of every incident that is over, and of every experiment without one; None without any."""
        return distribution(list(self._recovery_seconds()))

    def _recovery_seconds(self) -> Iterable[float]:
        for experiment in self.experiments:
            over = [incident.seconds for incident in experiment.incidents if incident.seconds is not None and incident.recovered]
            if not experiment.incidents and experiment.recovered_after is not None:
                over = [experiment.recovered_after]
            yield from over

    @property
    def unrecovered(self) -> int:
        """Incidents that were not over, or ended otherwise than by recovery."""
        return sum(incident.seconds is None or not incident.recovered for each in self.experiments for incident in each.incidents)

    def as_dict(self) -> dict[str, Any]:
        """For JSON. ``summary`` repeats what follows from the rest; it is not read back."""
        recovery, times = self.recovery, self.recoveries
        return {
            "somaresil_gameday_report": VERSION,
            "summary": {
                "held": self.held,
                "exit_code": self.exit_code,
                "injected": self.injected,
                "touched": self.touched,
                "absorbed": self.absorbed,
                "recovery_lower_bound": recovery.lower_bound,
                "recovery_seconds": None if times is None else plain(times),
                "unrecovered": self.unrecovered,
            },
            **plain(self),
        }

    def to_json(self, *, indent: int | None = 2) -> str:
        """The report as JSON."""
        return json.dumps(self.as_dict(), indent=indent, allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> GameDayReport:
        """Read a report. Raises :class:`~somaresil.errors.ConfigurationError` with the path of each problem."""
        check = Checker("report")
        if not isinstance(data, Mapping):
            check.problem("", repr(data)[:80], "an object")
            check.finish()
        version = data.get("somaresil_gameday_report")
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            check.problem("somaresil_gameday_report", version, f"the version of the format, {VERSION}", "is it a report at all?")
        elif version > VERSION:
            check.problem("somaresil_gameday_report", version, f"at most {VERSION}", "it was written by a newer somaresil")
        check.finish()
        rest = {name: value for name, value in data.items() if name not in {"somaresil_gameday_report", "summary"}}
        found = restored(cls, rest, check)
        check.finish()
        if found is None:
            raise TypeError(data)
        return found

    @classmethod
    def from_json(cls, text: str | bytes) -> GameDayReport:
        """Read a report; as strict as :meth:`from_dict`."""
        check = Checker("report")
        if len(text) > _LARGEST:
            check.problem("size", f"{len(text)} characters", f"at most {_LARGEST}")
            check.finish()
        try:
            data = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError) as broken:
            check.problem("text", repr(text[:40]), "JSON", str(broken)[:120])
            raise ConfigurationError(check.problems) from None
        return cls.from_dict(data)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number here")
