"""The judgement of a Locust test: the limits and the report of ``somaresil load``, over what Locust's users have seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from somaresil.integrations._locust_tally import SSE
from somaresil.load.generator import BUSIEST, LATEST, Run
from somaresil.load.report import LoadReport
from somaresil.load.thresholds import DEFAULTS, Answer, Check, Threshold, check_objective, judge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from somaresil.load.measure import Measure
    from somaresil.slo.objective import SLO

__all__ = ["ClientRun", "LocustReport", "checks_of", "limits_of"]

_WARM: Final = 20
"""Readings of a process before which nothing is said of it."""


@dataclass(slots=True)
class ClientRun(Run):
    """What Locust's processes have seen."""

    clients: Mapping[str, tuple[float, Measure]] = field(default_factory=dict)
    """By process: its largest share of a processor in a second, and how late its waits were over."""

    @property
    def saturated(self) -> tuple[str, ...]:
        """Why a process may have measured itself; empty when none has."""
        why: list[str] = []
        for client, (busiest, lag) in sorted(self.clients.items()):
            if busiest >= BUSIEST:
                why.append(f"{client} used {busiest:.0%} of a processor at its busiest (from {BUSIEST:.0%} on it measures itself)")
            late = lag.quantile(0.99)
            if late is not None and late > LATEST and lag.count >= _WARM:
                why.append(f"1 % of the waits in {client} were over more than {late:.3f} s late (more than {LATEST:g} s are its own)")
        return tuple(why)


def limits_of(thresholds: Iterable[Threshold]) -> tuple[Threshold, ...]:
    """These, and the error rate by which every test is judged. Runs that were not begun are only judged when asked for."""
    given = tuple(thresholds)
    if any(threshold.limit == "error_rate" for threshold in given):
        return given
    return (*given, Threshold("error_rate", DEFAULTS["error_rate"]))


def checks_of(thresholds: Iterable[Threshold], slos: Iterable[SLO], run: Run) -> tuple[Check, ...]:
    """Every limit and every objective, by what the users saw. A limit is for a request by its name, or by type and name: ``GET /ok``."""
    names = run.books.requests
    streams = [name for name in names if name.startswith(f"{SSE} ")]
    found: list[Check] = []
    for threshold in thresholds:
        wanted = streams if threshold.about_streams else names
        if threshold.request is not None:
            wanted = [name for name in names if threshold.request in {name, name.partition(" ")[2]}]
        found.append(judge(threshold, run.books.total(wanted), run))
    for slo in slos:
        wanted = streams if slo.first_item is not None or slo.completion else names
        check = check_objective(slo, run.books.total(wanted), run)
        found.append(Check(slo.name, Answer.UNKNOWN, "clients cannot see what it counts") if check is None else check)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class LocustReport(LoadReport):
    """A test by Locust and its judgement."""

    workers: int = 0
    """Processes that have sent requests for the master; 0: there was no master."""
    locust_requests: int = 0
    """What Locust itself has counted, its additional entries for first tokens included."""

    @property
    def about(self) -> str:
        """How much, for how long, where to."""
        run = self.run
        total = run.books.total(parts=("calm", "chaos", "injected"))
        by = "one process" if not self.workers else f"{self.workers} workers"
        return (
            f"{self.scenario.target}, {total.ended} requests in {run.seconds:.4g} s by {by} of Locust, "
            f"{run.per_second(run.books.total().good):.4g} good answers a second"
        )

    def stages(self) -> list[tuple[str, ...]]:
        """Locust has no stages that are known here."""
        return []

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON. The sketches are in it."""
        found = LoadReport.as_dict(self)
        for name in ("seed", "arrival", "stages", "offered", "concurrency", "points"):
            del found[name]
        return {**found, "locust": {"workers": self.workers, "requests": self.locust_requests}}
