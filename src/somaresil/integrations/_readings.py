"""What the process knows, as plain rows that can be written down, read back and added up. Knows no metrics library and no file.

A reading maps the names of :mod:`somaresil.integrations._families` to rows, and a row is label values with a number or a histogram.
Counters and histograms of several workers are added; a gauge speaks only for a worker that lives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from somaresil.integrations._families import (
    FAMILIES,
    HTTP_LABELS,
    OTHER,
    REQUESTS,
    STAGE_FAMILIES,
    SUBJECT_LABELS,
    Family,
    Histogram,
    Labels,
    Value,
)
from somaresil.model.breaker import State
from somaresil.model.ejection import Cause
from somaresil.outcome import Outcome
from somaresil.pool import EndpointState
from somaresil.slo.durations import STAGES
from somaresil.slo.series import Series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.canary.controller import CanaryController
    from somaresil.guard import Guard
    from somaresil.pool import Pool
    from somaresil.resilience import Resilience
    from somaresil.routes import RouteKey, RouteView

__all__ = ["Reader", "Reading", "add_up", "capped", "decode", "encode", "request_labels"]


@dataclass(slots=True)
class Reading:
    """Rows by the name of their family."""

    rows: dict[str, dict[Labels, Value]] = field(default_factory=lambda: {name: {} for name in FAMILIES})

    def minus(self, before: Reading) -> Reading:
        """What has come since ``before`` was read in the same process; gauges as they are."""
        since = Reading()
        for name, rows in self.rows.items():
            old = before.rows[name]
            keep = FAMILIES[name].kind == "gauge"
            since.rows[name] = {
                labels: value if keep or labels not in old else _minus(value, old[labels]) for labels, value in rows.items()
            }
        return since

    @property
    def empty(self) -> bool:
        """Whether nothing was counted."""
        counted = (value for rows in self.without_gauges().rows.values() for value in rows.values())
        return not any(any(value.counts) if isinstance(value, Histogram) else value for value in counted)

    def without_gauges(self) -> Reading:
        """Only what outlives the worker."""
        return Reading({name: {} if FAMILIES[name].kind == "gauge" else rows for name, rows in self.rows.items()})


def _minus(value: Value, before: Value) -> Value:
    if isinstance(value, Histogram):
        return value.minus(before) if isinstance(before, Histogram) else value
    return value if isinstance(before, Histogram) else max(0, value - before)


def _plus(value: Value, other: Value) -> Value:
    if isinstance(value, Histogram):
        return value.plus(other) if isinstance(other, Histogram) else value
    return value if isinstance(other, Histogram) else value + other


def _together(family: Family, value: Value, other: Value) -> Value:
    if family.worst and not isinstance(value, Histogram) and not isinstance(other, Histogram):
        return max(value, other)
    return other if family.agree else _plus(value, other)


def add_up(readings: Iterable[Reading]) -> Reading:
    """All of them as one. Rows keep the order in which they are first met."""
    whole = Reading()
    for reading in readings:
        for name, rows in reading.rows.items():
            into = whole.rows[name]
            for labels, value in rows.items():
                into[labels] = value if labels not in into else _together(FAMILIES[name], into[labels], value)
    return whole


def capped(family: Family, rows: dict[Labels, Value], limit: int) -> dict[Labels, Value]:
    """At most ``limit`` rows: things that do not fit any more are added up under ``_other``, each as a whole, the latest first.

    A guard whose errors alone moved away would look better than it is.
    """
    if len(rows) <= limit and len({labels[: family.group] for labels in rows}) * family.reserve <= limit:
        return rows
    things: dict[Labels, dict[Labels, Value]] = {}
    for labels, value in rows.items():
        things.setdefault(labels[: family.group], {})[labels] = value
    kept: dict[Labels, Value] = {}
    rest: dict[Labels, Value] = {}
    # As many rows as `_other` itself can come to have are left free for it.
    free = limit - max(family.reserve, len({_other(family, labels) for labels in rows}))
    full = False
    for thing in things.values():
        free -= max(family.reserve, len(thing))
        full = full or free < 0
        if not full:
            kept.update(thing)
            continue
        for labels, value in thing.items():
            other = _other(family, labels)
            rest[other] = _together(family, rest[other], value) if other in rest else value
    if family.agree:
        rest.clear()
    for labels, value in rest.items():
        kept[labels] = _together(family, kept[labels], value) if labels in kept else value
    return kept


def _other(family: Family, labels: Labels) -> Labels:
    if family.group == len(HTTP_LABELS):
        return (OTHER, OTHER, "", "")
    if family.labels == SUBJECT_LABELS:
        # Guards among themselves, and objectives too.
        return tuple(OTHER if label else "" for label in labels)
    return (OTHER,) * family.group + labels[family.group :]


# -- reading a process ----------------------------------------------------------------------------------------------------------------


class Reader:
    """Reads one process. What cannot be read is left out and reported once; the rest is there."""

    def __init__(self, resilience: Resilience) -> None:
        """Nothing is read yet."""
        self._resilience = resilience
        self._events: dict[Labels, float] = {}

    def read(self) -> Reading:
        """Everything as it is now. Never raises an ``Exception``."""
        resilience = self._resilience
        reading = Reading()
        for name, guard in resilience.guards.items():
            self._try(f"guard {name}", _read_calls, reading, name, guard)
            self._try(f"breaker of guard {name}", _read_breaker, reading, name, guard)
            self._try(f"limit of guard {name}", _read_limit, reading, name, guard)
            self._try(f"rate limit of guard {name}", _read_rate_limit, reading, name, guard)
            self._try(f"policies of guard {name}", _read_policies, reading, name, guard)
        self._try("limit of requests", _read_request_limit, reading, resilience)
        for name, pool in resilience.pools.items():
            self._try(f"pool {name}", _read_pool, reading, name, pool)
        self._try("incidents", self._read_incidents, reading)
        self._try("faults", self._read_faults, reading)
        self._try("faults of the process", self._read_process_faults, reading)
        self._try("ignored headers", self._read_ignored, reading)
        self._try("runtime violations", self._read_violations, reading)
        self._try("request plans", self._read_plans, reading)
        for name, canary in resilience.canaries.items():
            self._try(f"canary {name}", _read_canary, reading, name, canary)
        for name in resilience.slos.names:
            self._try(f"objective {name}", self._read_slo, reading, name)
        for key, view in resilience.routes.views().items():
            self._try(f"requests {key.method} {key.route}", _read_requests, reading, key, view)
        return reading

    def _try(self, what: str, read: Callable[..., None], reading: Reading, *source: Any) -> None:
        try:
            read(reading, *source)
        except Exception as broken:  # noqa: BLE001 - one defect must not cost the whole scrape
            self._resilience.listeners.defect(f"metrics of {what}", broken, self._resilience.clock.time(), "they were left out")

    def _read_incidents(self, reading: Reading) -> None:
        resilience = self._resilience
        watched = [(name, "") for name, guard in resilience.guards.items() if guard.breaker is not None]
        for stage, family in STAGE_FAMILIES.items():
            bounds, rows = STAGES[stage], reading.rows[family]
            none = Histogram(bounds, (0,) * (len(bounds) + 1), 0.0)
            rows.update(dict.fromkeys(watched, none))
            # Of objectives only those that were not kept: most processes have nobody who looks at their alerts.
            for whose, (counts, seconds) in resilience.slos.incidents.durations.read(stage).items():
                rows[whose] = Histogram(bounds, tuple(counts), seconds)

    def _read_faults(self, reading: Reading) -> None:
        chaos = self._resilience.chaos
        for family, counts in (("injected", chaos.faults()), ("withheld", chaos.withheld()), ("overflow", chaos.overflows())):
            for labels, count in counts.items():
                reading.rows[f"somaresil_faults_{family}"][labels] = count

    def _read_process_faults(self, reading: Reading) -> None:
        chaos = self._resilience.chaos
        there, released = reading.rows["somaresil_process_faults"], reading.rows["somaresil_process_faults_released"]
        held, effects = reading.rows["somaresil_resource_held"], reading.rows["somaresil_resource_effect"]
        for labels, count in chaos.releases().items():
            released[labels] = count
            there[labels[:2]] = 0
        for run in chaos.process_faults:
            fault = (run.config.target_component, run.config.experiment.value)
            there[fault] = _number_of(there.get(fault, 0)) + 1
            effect = run.effect
            if effect is None:
                continue
            key = (effect.resource, effect.unit)
            held[key] = _number_of(held.get(key, 0)) + effect.held
            for measure, amount in effect.measured.items():
                effects[effect.resource, measure] = max(_number_of(effects.get((effect.resource, measure), 0)), amount)

    def _read_plans(self, reading: Reading) -> None:
        for result, count in self._resilience.chaos.requests.counts().items():
            reading.rows["somaresil_request_plans"][result,] = count

    def _read_ignored(self, reading: Reading) -> None:
        for header, count in self._resilience.ignored.counts().items():
            reading.rows["somaresil_ignored_headers"][header,] = count

    def _read_violations(self, reading: Reading) -> None:
        for what, count in self._resilience.violations.counts().items():
            rule, _, result = what.partition(" ")
            reading.rows["somaresil_runtime_violations"][rule, result] = count

    def _read_slo(self, reading: Reading, name: str) -> None:
        slos = self._resilience.slos
        objective = Decimal(str(slos[name].target_percentage)) / 100
        reading.rows["somaresil_slo_objective"][name,] = float(objective)
        for outcome, count in zip(("good", "bad"), slos.series(name).totals(), strict=True):
            # An incident that ends is for a moment counted neither as running nor as over: a counter does not go back for that.
            labels = (name, outcome)
            self._events[labels] = reading.rows["somaresil_sli_events"][labels] = max(count, self._events.get(labels, 0))
        slo, rows = slos[name], reading.rows
        for group in slos.groups(name):
            for outcome, count in zip(("good", "bad"), slos.series(name, group).totals(), strict=True):
                rows["somaresil_sli_group_events"][name, group, outcome] = count
        for part, weight in slo.weights.items():
            rows["somaresil_slo_part_weight"][name, part] = weight
        if slo.time_slice_window is not None and isinstance(series := slos.series(name), Series):
            rows["somaresil_sli_slices"][name, "good"], rows["somaresil_sli_slices"][name, "bad"] = series.slices()
        apart = slo.indicator not in {"recovery", "freshness", "composite"}
        if apart and (not slo.counts_injected or self._resilience.chaos.faults()):
            pairs = zip(slos.totals(name, injected=True), slos.totals(name, injected=False), strict=True)
            struck = [max(0, all_of_them - others) for all_of_them, others in pairs]
            if any(struck) or not slo.counts_injected:
                for outcome, count in zip(("good", "bad"), struck, strict=True):
                    rows["somaresil_sli_injected_events"][name, outcome] = count
        if slo.chaos_budget_percentage is not None:
            rows["somaresil_slo_chaos_budget"][name,] = float(Decimal(str(slo.chaos_budget_percentage)) / 100)
        if slo.calendar is not None and (left := slos.previous_error_budget(name).remaining_share) is not None:
            rows["somaresil_slo_previous_error_budget_consumed"][name,] = max(0.0, 1.0 - left)


def _read_canary(reading: Reading, name: str, canary: CanaryController) -> None:
    status = canary.status()
    reading.rows["somaresil_canary_weight"][name,] = status.weight
    found = status.finding
    evidence = {"worse": found.worse, "objective": found.too_bad, "not_much_worse": found.not_much_worse}
    for against, e in evidence.items():
        reading.rows["somaresil_canary_evidence"][name, against] = e
    # Workers are added up, so each tells its own.
    counts = canary.seen()
    events = reading.rows["somaresil_canary_events"]
    events[name, "candidate", "good"], events[name, "candidate", "bad"] = counts.candidate_good, counts.candidate_bad
    events[name, "control", "good"], events[name, "control", "bad"] = counts.control_good, counts.control_bad
    for step, times in canary.moves.items():
        reading.rows["somaresil_canary_moves"][name, step] = times


def _number_of(value: Value) -> float:
    return 0.0 if isinstance(value, Histogram) else value


_ENDED_BY_ITSELF: Final = (Outcome.GOOD, Outcome.BAD, Outcome.IGNORED)


def _read_calls(reading: Reading, name: str, guard: Guard) -> None:
    counts = guard.recorder.counts()
    rows = reading.rows["somaresil_calls"]
    # The two that a rate is made of are there from the start: Prometheus does not see the first step of a series that begins at 1.
    rows[name, "good", "false"] = rows[name, "bad", "false"] = 0
    for (outcome, injected), cell in counts.cells.items():
        if number := sum(cell):
            rows[name, outcome.value, "true" if injected else "false"] = number
    histogram = Histogram(counts.bounds, tuple(counts.histogram(*_ENDED_BY_ITSELF)), None)
    reading.rows["somaresil_call_duration_seconds"][name,] = histogram


def _read_rate_limit(reading: Reading, name: str, guard: Guard) -> None:
    if guard.rate_limit is not None:
        for unit, level in guard.rate_limit.available().items():
            reading.rows["somaresil_rate_limit_available"][name, unit] = max(0.0, level)


def _read_breaker(reading: Reading, name: str, guard: Guard) -> None:
    breaker = guard.breaker
    if breaker is None:
        return
    # What it does with calls: in shadow mode it lets them pass, whatever it would do.
    now = State.METRICS_ONLY if breaker.options.shadow and breaker.state is not State.DISABLED else breaker.state
    for state in State:
        reading.rows["somaresil_breaker_state"][name, state.value] = int(state is now)
    if breaker.keys is not None:
        for state, keys in breaker.keys.states().items():
            reading.rows["somaresil_breaker_keys"][name, state.value] = keys
    for state, number in breaker.transitions().items():
        if number or state in {State.OPEN, State.HALF_OPEN, State.CLOSED}:
            reading.rows["somaresil_breaker_transitions"][name, state.value] = number


def _read_policies(reading: Reading, name: str, guard: Guard) -> None:
    retry = guard.retry
    if retry is not None:
        for decision, number in retry.decisions().items():
            reading.rows["somaresil_retries"][name, decision] = number
    if guard.hedge is not None:
        for result, number in guard.hedge.results().items():
            reading.rows["somaresil_hedges"][name, result] = number
    reused = reading.rows["somaresil_reused_answers"]
    if guard.fallback is not None and guard.fallback.cache is not None:
        results = guard.fallback.cache.results()
        reused[name, "fresh"], reused[name, "stale"] = results["fresh"], results["stale"]
    if guard.single_flight is not None:
        reused[name, "shared"] = guard.single_flight.shared
    for (policy, decision), number in guard.shadow.counts().items():
        reading.rows["somaresil_shadow_decisions"][name, policy, decision] = number


def _read_request_limit(reading: Reading, resilience: Resilience) -> None:
    found = resilience.request_limit()
    if found is not None:
        reading.rows["somaresil_concurrency_limit"][REQUESTS,] = found.limit
        reading.rows["somaresil_concurrency"][REQUESTS, "active"] = found.active
        reading.rows["somaresil_concurrency"][REQUESTS, "waiting"] = found.waiting


def _read_limit(reading: Reading, name: str, guard: Guard) -> None:
    limit = guard.bulkhead
    if limit is not None:
        reading.rows["somaresil_concurrency_limit"][name,] = limit.limit
        reading.rows["somaresil_concurrency"][name, "active"] = limit.active
        reading.rows["somaresil_concurrency"][name, "waiting"] = limit.waiting


def _read_pool(reading: Reading, name: str, pool: Pool[Any]) -> None:
    for endpoint, view in pool.view().endpoints.items():
        for state in EndpointState:
            reading.rows["somaresil_pool_endpoint_state"][name, endpoint, state.value] = int(state is view.state)
        reading.rows["somaresil_pool_endpoint_ejections"][name, endpoint, Cause.CONSECUTIVE_FAILURES.value] = 0
    for (endpoint, cause), number in pool.ejections().items():
        reading.rows["somaresil_pool_endpoint_ejections"][name, endpoint, cause.value] = number


_SERVER_ERROR: Final = 500


def request_labels(key: RouteKey) -> Labels:
    """The labels of requests, as OpenTelemetry has them."""
    status = str(key.status) if key.status else ""
    return (key.method, key.route, status, status if key.status >= _SERVER_ERROR else "")


def _read_requests(reading: Reading, key: RouteKey, view: RouteView) -> None:
    if key.method == "WEBSOCKET":
        # How long a conversation lasts is no duration of a request; it counts in the objectives of the middleware.
        return
    labels = request_labels(key)
    bounds = view.bounds
    durations = Histogram(bounds, tuple(view.durations), view.seconds)
    first = Histogram(bounds, tuple(view.first_bytes), view.first_byte_seconds)
    for name, histogram in (("http_server_request_duration_seconds", durations), ("http_server_time_to_first_byte_seconds", first)):
        reading.rows[name][labels] = histogram


# -- writing down and reading back ------------------------------------------------------------------------------------------------------


def encode(reading: Reading) -> dict[str, Any]:
    """As values that JSON knows."""
    return {name: [[list(labels), _encode(value)] for labels, value in rows.items()] for name, rows in reading.rows.items()}


def _encode(value: Value) -> Any:
    return {"le": value.bounds, "n": value.counts, "sum": value.total} if isinstance(value, Histogram) else value


def decode(written: Any) -> Reading:
    """What :func:`encode` made. Raises ``ValueError`` for anything else: it comes from a file that anybody may have written."""
    if not isinstance(written, dict) or set(written) - set(FAMILIES):
        raise ValueError("rows: expected a mapping with the names of known metrics")
    reading = Reading()
    for name, rows in written.items():
        for labels, value in _pairs(name, rows):
            if len(labels) != len(FAMILIES[name].labels) or not all(isinstance(label, str) for label in labels):
                raise ValueError(f"{name}: expected {len(FAMILIES[name].labels)} texts as labels")
            reading.rows[name][tuple(labels)] = _decode(name, value)
    return reading


def _pairs(name: str, rows: Any) -> list[tuple[list[Any], Any]]:
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], list) for row in rows):  # noqa: PLR2004
        raise ValueError(f"{name}: expected a list of [labels, value]")
    return [(row[0], row[1]) for row in rows]


def _decode(name: str, value: Any) -> Value:
    if FAMILIES[name].kind != "histogram":
        return _number(name, value)
    lists = isinstance(value, dict) and set(value) == {"le", "n", "sum"} and isinstance(value["le"], list) and isinstance(value["n"], list)
    if not lists:
        raise ValueError(f"{name}: expected a histogram with le, n and sum")
    bounds = tuple(_number(name, bound) for bound in value["le"])
    counts = tuple(int(_number(name, count)) for count in value["n"])
    if len(counts) != len(bounds) + 1 or any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"{name}: expected ascending bounds and one count more")
    return Histogram(bounds, counts, None if value["sum"] is None else _number(name, value["sum"]))


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name}: expected a number >= 0, not {value!r:.40}")
    return value
