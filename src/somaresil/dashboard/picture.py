"""What one process says of itself: a portrait, as plain data that can be sent, checked and added to those of others.

A portrait is what :mod:`somaresil.dashboard.merge` merges and makes a picture of. It holds counts and not what is worked out of them, for
shares and quantiles cannot be added. What cannot be read is left out and reported once; the rest is there.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
from dataclasses import dataclass
from itertools import islice
from operator import sub
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.dashboard.budgets import Budgets
from somaresil.dashboard.eventlog import EventLog
from somaresil.dashboard.history import STEP, Curve, History, row_of
from somaresil.events import ExperimentStarted
from somaresil.guard.estimate import attempt_limit, longest_line, pauses, worst_case
from somaresil.model.selector import matches
from somaresil.mounted.views import lever
from somaresil.mounted.wire import problems_as_data
from somaresil.outcome import Outcome
from somaresil.pool import EndpointState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from somaresil.canary.controller import CanaryController
    from somaresil.chaos.run import ExperimentRun
    from somaresil.dashboard.history import Row
    from somaresil.guard import Guard
    from somaresil.recorder import Counts
    from somaresil.resilience import Resilience
    from somaresil.slo.incidents import Incident

__all__ = ["GUARD", "MOST_INCIDENTS", "ROUTE", "VERSION", "Local"]

VERSION: Final = 1
"""Of portraits and pictures."""
GUARD, ROUTE = "g:", "r:"
"""What names of columns begin with: a guard and a route may be called the same."""
MOST_INCIDENTS: Final = 200
_MOST_EXPERIMENTS: Final = 100
_MOST_STRUCK: Final = 1_000
_LONGEST: Final = 200
_OUT: Final = frozenset({EndpointState.OPEN, EndpointState.EJECTED})


@dataclass(slots=True)
class _Known:
    """What of a guard changes only with its options."""

    options: object
    pool: bool
    pipeline: list[str]
    worst_case: float | None


class Local:
    """This process. :meth:`start` begins to remember; before that there are totals and nothing recent."""

    def __init__(self, resilience: Resilience) -> None:
        """Nothing is heard or kept yet."""
        self._resilience = resilience
        self._ends: tuple[Callable[[], None], ...] = ()
        self._known: dict[str, _Known] = {}
        self._inherited: dict[str, Row] = {}
        self._at_fork: dict[str, Row] = {}
        self.events = EventLog("", resilience.clock, resilience.listeners)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._moves = threading.RLock()
        self.id = f"{os.getpid()}-{secrets.token_hex(8)}"
        """Unlike that of any other process."""
        self.history = History()
        self._budgets = Budgets(self._resilience)
        self._evidence: dict[str, Curve] = {}
        self._bases: dict[str, dict[str, int]] = {}
        self._starters: dict[str, str | None] = {}
        self.events.rename(self.name)

    @property
    def name(self) -> str:
        """The instance, with the process id where that is not in it: workers may share the name of an instance."""
        instance, process = self._resilience.instance, str(os.getpid())
        return instance if instance.endswith(f"-{process}") else f"{instance}-{process}"

    # -- life -------------------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Listen, and begin with the column that is being counted."""
        self.events.start()
        if not self._ends:
            self._ends = (self._resilience.listeners.add(self._experiment_began, ExperimentStarted),)
        self.sample()

    def stop(self) -> None:
        """Listen no more."""
        self.events.stop()
        for end in self._ends:
            end()
        self._ends = ()

    def before_fork(self) -> None:
        """In the parent: what is counted now is the parent's to tell."""
        try:
            self._at_fork = {name: row_of(counts) for name, counts in self._counts()}
        except Exception as defect:  # noqa: BLE001 - nobody may be kept from forking
            self._defect("fork", defect)

    def after_fork(self) -> None:
        """In the child: begin anew, with nothing counted and nothing heard."""
        self._inherited, self._at_fork = self._at_fork, {}
        self._begin()
        self.sample()

    def sample(self) -> None:
        """Note what has been counted, at the end of a column. Never raises an ``Exception``."""
        clock = self._resilience.clock
        try:
            with self._lock:
                if not self.history.due(clock.time(), clock.monotonic()):
                    return
                rows = [(name, counts.bounds, self._own(name, row_of(counts))) for name, counts in self._counts()]
                self.history.sample(clock.time(), clock.monotonic(), rows)
                self._note_evidence(clock.time())
        except Exception as defect:  # noqa: BLE001 - the dashboard has a gap, and nobody else has anything
            self._defect("history", defect)

    def next_sample(self) -> float:
        """Seconds until the next end of a column."""
        return STEP - self._resilience.clock.time() % STEP + 0.01

    @property
    def calls(self) -> int:
        """How many calls and requests this process has counted."""
        return sum(sum(self._own(name, row_of(counts))[:5]) for name, counts in self._counts())

    def _counts(self) -> Iterator[tuple[str, Counts]]:
        for name, guard in self._resilience.guards.items():
            yield GUARD + name, guard.recorder.counts()
        for name, counts in self._resilience.routes.counts().items():
            yield ROUTE + name, counts

    def _own(self, name: str, row: Row) -> Row:
        """Without what the parent had counted when this process was forked off."""
        inherited = self._inherited.get(name)
        return row if inherited is None or len(inherited) != len(row) else list(map(sub, row, inherited))

    # -- the portrait -----------------------------------------------------------------------------------------------------------------

    def portrait(self) -> dict[str, Any]:
        """Everything but the columns, as it is now."""
        resilience, now = self._resilience, self._resilience.clock.time()
        with self._lock:
            self.sample()
            history = self.history
            return {
                "version": VERSION,
                "form": "portrait",
                "service": resilience.service,
                "environment": resilience.environment,
                "at": now,
                "since": now - history.seconds(now),
                "index": history.index or 0,
                "sources": {
                    self.id: {
                        "name": self.name,
                        "kind": "self",
                        "state": "live",
                        "at": now,
                        "why": "",
                        "process": os.getpid(),
                        "address": "",
                    }
                },
                "guards": self._guards(),
                "routes": {name: self._counted(ROUTE + name, counts) for name, counts in resilience.routes.counts().items()},
                "objectives": self._budgets.read(self.id),
                "incidents": self._tried("incidents", self._incidents, []),
                "experiments": self._tried("experiments", self._experiments, {}),
                "chaos": self._tried("permissions", self._chaos, None),
                "canaries": self._tried(
                    "canaries", lambda: {name: self._canary(canary) for name, canary in resilience.canaries.items()}, {}
                ),
                "pools": self._tried("pools", self._pools, {}),
                "limit": self._tried("limit of requests", self._limit, None),
                "columns": None,
            }

    def columns(self, names: Iterable[str]) -> dict[str, Any]:
        """The columns of these guards and routes, by names that begin with :data:`GUARD` or :data:`ROUTE`."""
        with self._lock:
            self.sample()
            return self.history.columns(names)

    def _guards(self) -> dict[str, Any]:
        found = {}
        for name, guard in self._resilience.guards.items():
            try:
                found[name] = self._guard(name, guard)
            except Exception as defect:  # noqa: BLE001 - one guard must not hide the others
                self._defect(f"guard {name}", defect)
        return found

    def _counted(self, key: str, counts: Counts) -> dict[str, Any]:
        row = self._own(key, row_of(counts))
        return {"bounds": counts.bounds, "totals": row[:6], "recent": self.history.recent(key, row)}

    def _guard(self, name: str, guard: Guard) -> dict[str, Any]:
        known = self._known.get(name)
        if known is None or known.options is not guard.options or known.pool is not guard.is_pool:
            known = self._known[name] = _Known(guard.options, guard.is_pool, [*guard.pipeline], worst_case(guard.options))
        breaker, throttle = guard.breaker, guard.throttle
        shown = self._counted(GUARD + name, guard.recorder.counts())
        shown["pipeline"] = known.pipeline
        shown["worst_case"] = known.worst_case
        shown["states"] = {} if breaker is None else {breaker.state.value: 1}
        shown["held_by"] = sorted(guard.switch.reasons)
        keys = None if breaker is None else breaker.keys
        shown["keys"] = None if keys is None else {state.value: number for state, number in keys.states().items() if number}
        shown["throttled"] = None if throttle is None else _number(throttle.probability)
        shown["budget_scale"] = _number(guard.budget_scale)
        return shown

    def _incidents(self) -> list[dict[str, Any]]:
        log = self._resilience.slos.incidents
        return [self._incident(incident) for incident in (*log.ended, *log.running)[-MOST_INCIDENTS:]]

    def _incident(self, incident: Incident) -> dict[str, Any]:
        about = incident.guard if incident.slo is None else incident.slo
        return {
            "id": incident.id,
            "source": self.name,
            "subject": about or "",
            "group": incident.group,
            "kind": "guard" if incident.slo is None else "objective",
            "began": incident.started_at,
            "ended": None if incident.duration is None else incident.started_at + incident.duration,
            "recovered": None if incident.duration is None else incident.recovered,
            "injected": incident.injected,
            "experiment": incident.experiment,
            "detected_after": _number(incident.detected_after),
            "mitigated_after": _number(incident.mitigated_after),
        }

    def _chaos(self) -> dict[str, Any]:
        engine, check = self._resilience.chaos, Checker("chaos")
        engine.permission().check(check, engine.place)
        problems = [f"{each['path']} = {each['value']}: expected {each['allowed']}" for each in problems_as_data(check.problems)]
        return {"allowed": not problems, "problems": problems, "engaged": lever(self._resilience)}

    def _pools(self) -> dict[str, dict[str, Any]]:
        return {
            name: {
                endpoint: {
                    "states": {"out" if view.state in _OUT else "in": 1},
                    "details": {view.state.value: 1},
                    "weight": float(view.weight),
                }
                for endpoint, view in pool.view().endpoints.items()
            }
            for name, pool in self._resilience.pools.items()
        }

    def _limit(self) -> dict[str, int] | None:
        found = self._resilience.request_limit()
        return None if found is None else {"limit": found.limit, "active": found.active, "waiting": found.waiting}

    # -- experiments ------------------------------------------------------------------------------------------------------------------

    def _experiments(self) -> dict[str, dict[str, Any]]:
        runs = [(run, run.struck) for run in self._resilience.chaos.history[-_MOST_EXPERIMENTS:] if not run.tracks]
        self._starters = {run.id: self._starters.get(run.id) or self._who(run) for run, _ in runs}
        # The same experiment of several workers was started in the same moment, and has the same number in each of them.
        return {f"{run.id}@{run.started_at // 10:.0f}": self._experiment(run, struck, runs) for run, struck in runs}

    def _experiment(
        self, run: ExperimentRun, struck: dict[str, int], runs: Iterable[tuple[ExperimentRun, dict[str, int]]]
    ) -> dict[str, Any]:
        config = run.config
        # Asked first: this is what ends a lease whose time is over.
        live, reason = run.live, run.end_reason
        return {
            "id": run.id,
            "kind": config.experiment.value,
            "target": config.target_component,
            "rate": float(config.failure_rate),
            "duration": float(config.duration_seconds),  # type: ignore[arg-type]
            "state": "running" if live else "ended" if reason is not None else "scheduled",
            "starts_at": run.started_at,
            "remaining": round(run.remaining, 3),
            "end_reason": reason,
            "injected": run.injected,
            "absorbed": self._absorbed(run, runs, struck),
            "struck": dict(islice(struck.items(), _MOST_STRUCK)),
            "by": self._starters.get(run.id),
            "sources": [self.name],
        }

    def _who(self, run: ExperimentRun) -> str | None:
        for entry in reversed(self._resilience.chaos.audit.entries):
            if entry.experiment == run.id and entry.what == "arm":
                return entry.who[:_LONGEST]
        return None

    def _experiment_began(self, event: ExperimentStarted) -> None:
        """Remember how many struck calls of its targets have ended well: what is more later, it has struck and somebody has absorbed."""
        saved = {name: _saved(guard) for name, guard in self._resilience.guards.items() if matches(event.component, name)}
        with self._moves:
            self._bases[event.experiment] = saved
            while len(self._bases) > _MOST_EXPERIMENTS:
                del self._bases[next(iter(self._bases))]

    def _absorbed(self, run: ExperimentRun, runs: Iterable[tuple[ExperimentRun, dict[str, int]]], struck: dict[str, int]) -> int | None:
        """How many calls that it has struck ended well; None: nobody can say, for it was not seen from its beginning, or was not alone."""
        base, span = self._bases.get(run.id), run.span
        if base is None or not struck.keys() <= base.keys():
            return None
        if not struck:
            return 0
        others = [other for other, hit in runs if other is not run and not hit.keys().isdisjoint(struck)]
        if any(other.span[0] < span[1] and span[0] < other.span[1] for other in others):
            return None
        # Calls that it struck may end after it: those that come until the next one strikes are its own.
        later = [other for other in others if other.span[0] >= span[1] and other.id in self._bases]
        until = self._bases[min(later, key=lambda other: other.span[0]).id] if later else None
        guards = self._resilience.guards
        saved = sum((until[name] if until is not None and name in until else _saved(guards[name])) - base[name] for name in struck)
        return max(0, min(saved, run.injected))

    # -- canaries ---------------------------------------------------------------------------------------------------------------------

    def _canary(self, canary: CanaryController) -> dict[str, Any]:
        status, config, now = canary.status(), canary.config, self._resilience.clock.time()
        finding, counts = status.finding, status.finding.counts
        slo = ", ".join(config.objectives)
        enough = {"worse": 1.0 / config.alpha, "objective": 1.0 / config.alpha, "not_much_worse": 1.0 / config.beta}
        evidence = [
            {
                "slo": slo,
                "against": against,
                "e_value": _number(e),
                "threshold": enough[against],
                "bad": counts.candidate_bad,
                "events": counts.candidate,
            }
            for against, e in _evidence(finding).items()
        ]
        curve = self._evidence.get(config.name)
        at, values = ([], {}) if curve is None else curve.read()
        return {
            "version": status.version,
            "phase": status.phase,
            "weight": status.weight,
            "outcome": status.phase if status.over else None,
            "reason": status.reason,
            "paused": status.paused,
            "began": now - status.baked if status.phase else None,
            "leads": status.leads,
            "verdict": finding.verdict.value,
            "control_bad": counts.control_bad,
            "control_events": counts.control,
            "missing": [*status.missing],
            "trouble": status.trouble,
            "evidence": evidence,
            "evidence_series": {"at": at, "log10": values},
            "at": now,
            "source": self.name,
        }

    def _note_evidence(self, now: float) -> None:
        for name, canary in self._resilience.canaries.items():
            status = canary.status()
            if status.version is None or status.over:
                continue
            values = {against: _log(e) for against, e in _evidence(status.finding).items()}
            self._evidence.setdefault(name, Curve()).note(now, values)

    # -- one thing ----------------------------------------------------------------------------------------------------------------------

    def guard(self, name: str) -> dict[str, Any] | None:
        """What is shown of one guard beside its portrait; None: there is none of this name."""
        guard = self._resilience.find(name)
        if guard is None:
            return None
        with self._lock:
            description, breaker = guard.description(), guard.breaker
            tally = None if breaker is None else breaker.tally()
            rejections = self.events.rejections(name)
            refused = self._own(GUARD + name, row_of(guard.recorder.counts()))[2]
            unknown = max(0, refused - sum(rejections.values()))
            return {
                "guard": self._guard(name, guard),
                "options": [_short(option) for option in description.options],
                "stages": self._stages(guard, {layer.name: (str(layer.options), layer.shadow) for layer in description.pipeline}),
                "changed": [_short(change) for change in description.changed],
                "findings": [_short(str(finding)) for finding in description.findings],
                "timeline": self.events.timeline(name),
                "tally": None if tally is None else {"calls": tally.calls, "failures": tally.failures, "slow": tally.slow},
                "rejections": {**rejections, **({"unknown": unknown} if unknown else {})},
                "columns": self.columns([GUARD + name]),
            }

    @staticmethod
    def _stages(guard: Guard, layers: Mapping[str, tuple[str, bool]]) -> list[dict[str, Any]]:
        """The pipeline with what each part can add to the time of a call, in seconds; None: it adds nothing, or nothing bounds it."""
        options = guard.options
        retry = options.retry
        line = longest_line(options)
        adds: dict[str, float | None] = {
            "record": worst_case(options),
            "retry": None if retry is None else pauses(options),
            "timeout": attempt_limit(options),
        }
        for name in ("rate_limit", "bulkhead"):
            wait = getattr(getattr(options, name, None), "max_wait", None)
            adds[name] = float(wait) if isinstance(wait, int | float) and line else None
        return [
            {"name": name, "says": _short(said), "shadow": shadow, "worst_case": _number(adds.get(name))}
            for name, (said, shadow) in layers.items()
        ]

    def objective(self, name: str) -> dict[str, Any] | None:
        """Which guards count for an objective, and whether requests do; None: there is none of this name."""
        resilience = self._resilience
        if name not in resilience.slos.names:
            return None
        guards = [
            guard
            for guard, each in resilience.guards.items()
            if name in resilience.slos.leaves(each.options.slo) or name in each.options.slo
        ]
        return {"guards": guards, "requests": resilience.counts_requests(name), "groups": [*resilience.slos.groups(name)]}

    # -- trouble ------------------------------------------------------------------------------------------------------------------------

    def _tried(self, what: str, read: Callable[[], Any], otherwise: Any) -> Any:
        try:
            return read()
        except Exception as defect:  # noqa: BLE001 - one part must not hide the others
            self._defect(what, defect)
            return otherwise

    def _defect(self, what: str, defect: Exception) -> None:
        self._resilience.listeners.defect(f"dashboard on {what}", defect, self._resilience.clock.time(), "it was left out")


def _saved(guard: Guard) -> int:
    return sum(guard.recorder.counts().cells.get((Outcome.GOOD, True), ()))


def _evidence(finding: Any) -> dict[str, float]:
    return {"worse": finding.worse, "objective": finding.too_bad, "not_much_worse": finding.not_much_worse}


def _number(value: Any) -> float | None:
    """A number that JSON has; None for others."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _log(e: float) -> float | None:
    return math.log10(e) if 0.0 < e < math.inf else None


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
