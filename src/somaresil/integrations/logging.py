"""The standard library's logging: one line an event, and for the service's own lines where they were written.

    resilience.on(log_events())
    handler.addFilter(ResilienceFilter(resilience))

A line says what happened in words; the same facts stand in the record as ``somaresil_event``, ``somaresil_guard``, ``somaresil_outcome``
and so on, for formatters that write JSON. There are no other keys than the fields of the events: never arguments, headers, bodies or the
messages of exceptions. Values are short and cannot forge a line or steer a terminal.

What happens to a single call is ``DEBUG``, for it may happen a thousand times a second; what happens to a circuit or an experiment is
``INFO``, and ``WARNING`` when somebody should look; a defect is ``ERROR``. See :data:`DEFAULT_LEVELS`.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from somaresil import events
from somaresil.config import Checker, did_you_mean
from somaresil.integrations._logfields import NOTHING, fields, header_name, trace_ids
from somaresil.integrations._lograte import RateLimitFilter
from somaresil.integrations._text import facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.events import Event, Listener
    from somaresil.resilience import Resilience

__all__ = ["DEFAULT_LEVELS", "RateLimitFilter", "ResilienceFilter", "log_events"]


def _breaker_level(event: events.BreakerChanged) -> int:
    return logging.INFO if event.shadow or event.after in {"closed", "half_open", "ramping"} else logging.WARNING


def _recovery_level(event: events.IncidentClosed) -> int:
    return logging.INFO if event.recovered else logging.WARNING


def _alert_level(event: events.AlertFired) -> int:
    return logging.ERROR if event.severity == "page" else logging.WARNING


def _panic_level(event: events.PoolPanicked) -> int:
    return logging.WARNING if event.began else logging.INFO


def _run_level(event: events.ScheduledRunEnded) -> int:
    return logging.INFO if event.outcome == "done" else logging.WARNING


def _canary_level(event: events.CanaryEnded) -> int:
    return logging.WARNING if event.outcome == "rollback" else logging.INFO


DEFAULT_LEVELS: Final[dict[type, int | Callable[[Any], int]]] = {
    events.CallEnded: logging.DEBUG,
    events.AttemptFailed: logging.DEBUG,
    events.RetryScheduled: logging.DEBUG,
    events.RetryDenied: logging.DEBUG,
    events.HedgeStarted: logging.DEBUG,
    events.HedgeWon: logging.DEBUG,
    events.FallbackUsed: logging.DEBUG,
    events.FaultInjected: logging.DEBUG,
    events.FaultWithheld: logging.DEBUG,
    events.ShadowDecision: logging.DEBUG,
    events.RateLowered: logging.INFO,
    events.BreakerChanged: _breaker_level,
    events.EndpointEjected: logging.WARNING,
    events.EndpointReturned: logging.INFO,
    events.PoolPanicked: _panic_level,
    events.IncidentOpened: logging.WARNING,
    events.IncidentMitigated: logging.INFO,
    events.IncidentClosed: _recovery_level,
    events.GateOverridden: logging.WARNING,
    events.AlertFired: _alert_level,
    events.AlertCleared: logging.INFO,
    events.BudgetActionBegan: logging.WARNING,
    events.BudgetActionEnded: logging.INFO,
    events.DeploymentMarked: logging.INFO,
    events.ExperimentStarted: logging.WARNING,
    events.ExperimentEnded: logging.INFO,
    events.ChaosAudited: logging.INFO,
    events.ResourceExhausted: logging.WARNING,
    events.ResourceReleased: logging.INFO,
    events.ScheduledRunStarted: logging.INFO,
    events.ScheduledRunEnded: _run_level,
    events.ScheduledRunSkipped: logging.INFO,
    events.LeadershipChanged: logging.INFO,
    events.CanaryStarted: logging.INFO,
    events.CanaryMoved: logging.INFO,
    events.CanaryEnded: _canary_level,
    events.Reconfigured: logging.WARNING,
    events.PlanIgnored: logging.WARNING,
    events.RuntimeViolation: logging.WARNING,
    events.SharedStateLost: logging.WARNING,
    events.SharedStateRestored: logging.INFO,
    events.DefectFound: logging.ERROR,
}
"""Level of each kind of event, or a function of the event that says it. An opening breaker warns; its way back informs."""

_TEXTS: Final[dict[type, str]] = {
    events.CallEnded: "call of {guard} ended {outcome} after {elapsed:.3f} s",
    events.AttemptFailed: "attempt {attempt} of a call of {guard} failed with {error}",
    events.RetryScheduled: "call of {guard} is tried again in {delay:.3f} s after attempt {attempt}",
    events.RetryDenied: "call of {guard} is not tried again after attempt {attempt} ({reason})",
    events.HedgeStarted: "call of {guard} had no answer after {delay:.3f} s: hedge {hedge} begins",
    events.HedgeWon: "hedge {hedge} answered a call of {guard} first",
    events.FallbackUsed: "fallback of {guard} answered: {handler} in place of {error}",
    events.FaultInjected: "experiment {experiment} struck {component} with {fault}",
    events.FaultWithheld: "experiment {experiment} is a dry run and would have struck {component} with {fault}",
    events.RateLowered: "rate limit {limit} of {guard} grants {share:.0%} of its rate, and nothing for {pause:.3g} s",
    events.BreakerChanged: "breaker of {guard} went from {before} to {after} ({cause}; {failures} of {calls} calls failed)",
    events.EndpointEjected: "pool {guard} takes {endpoint} out for {duration:.1f} s ({cause})",
    events.EndpointReturned: "pool {guard} takes {endpoint} in again",
    events.PoolPanicked: "panic of pool {guard}: {began} ({healthy} of {endpoints} endpoints healthy)",
    events.IncidentOpened: "incident {incident} began",
    events.IncidentMitigated: "incident {incident} lasts, and was mitigated after {elapsed:.1f} s",
    events.IncidentClosed: "incident {incident} ended after {duration:.1f} s",
    events.DeploymentMarked: "version {version} was put in service",
    events.GateOverridden: "{who} let a release go on against {decision} ({reason})",
    events.AlertFired: "{severity}: {slo} burns {burn:.3g} times too fast over {long:g} s (limit {threshold:.3g})",
    events.AlertCleared: "{severity} of {slo} is over after {duration:.1f} s",
    events.BudgetActionBegan: "{action} for {slo}: {remaining:.1%} of the error budget left, less than {below:.1%}",
    events.BudgetActionEnded: "{action} for {slo} is over after {duration:.1f} s",
    events.ExperimentStarted: "experiment {experiment} strikes {component} with {fault}, rate {rate:g}, for at most {duration:g} s",
    events.ExperimentEnded: "experiment {experiment} is over ({reason}); {injected} calls were struck",
    events.ChaosAudited: "{who} did {what} {experiment}: {result}",
    events.ShadowDecision: "{policy} of {guard} is in shadow mode and would have decided: {decision} ({detail})",
    events.ResourceExhausted: "experiment {experiment} holds {reached} of {asked} {unit} of {component} {limited}",
    events.ResourceReleased: "experiment {experiment} has given back {reached} {unit} of {component} after {seconds} s",
    events.ScheduledRunStarted: "{occurrence} is run, {late:.3f} s late",
    events.ScheduledRunEnded: "{occurrence} is {outcome} after {duration:.1f} s: {error}",
    events.ScheduledRunSkipped: "{occurrence} is not run: {reason} ({count})",
    events.LeadershipChanged: "this process leads {name}: {leads} (fence {fence})",
    events.CanaryStarted: "canary {canary} has version {version} in phase {phase}, {weight:.3g} of the traffic (resumed: {resumed})",
    events.CanaryMoved: "canary {canary}: {step} of {version}, {before} to {phase}, {weight:.3g} of the traffic ({reason})",
    events.CanaryEnded: "canary {canary} of {version} is over in {phase}: {outcome} ({reason})",
    events.Reconfigured: "options were changed: {changes} ({by})",
    events.PlanIgnored: "request plans were ignored: {reason} ({times} times)",
    events.RuntimeViolation: "the runtime guard does not allow {subject} ({rule}; refused: {blocked}; {times} times)",
    events.SharedStateLost: "shared state at {backend} is lost ({error}); local state decides",
    events.SharedStateRestored: "shared state at {backend} is back after {lost_for:.1f} s",
    events.DefectFound: "{where} raised {error}; the call went on",
}

Level = int | str | None


def log_events(
    logger: logging.Logger | str | None = None,
    levels: Mapping[type, Level] | None = None,
    *,
    limit: RateLimitFilter | None = None,
) -> Listener:
    """A listener that writes events to ``logger`` (a logger or its name; ``somaresil.events`` when None).

    ``levels`` changes :data:`DEFAULT_LEVELS` for some kinds of event: a number, a name such as ``"INFO"``, or None for never. An event
    below the level of the logger costs one look at that level. ``limit`` bounds how many lines of an event and its guard are written.

    A record has the ids of the current span of OpenTelemetry as ``trace_id`` and ``span_id``, if there is one: what happens within a call
    is told within it.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("log_events")
    if not (logger is None or isinstance(logger, logging.Logger | str)):
        check.problem("logger", logger, "a logger, its name or None")
    if not (limit is None or isinstance(limit, RateLimitFilter)):
        check.problem("limit", limit, "a RateLimitFilter or None")
    chosen: dict[type, int | Callable[[Any], int] | None] = dict(DEFAULT_LEVELS)
    for kind, level in (levels or {}).items():
        name = getattr(kind, "__name__", str(kind))
        if kind not in chosen:
            known = [event.__name__ for event in DEFAULT_LEVELS]
            check.problem("levels", name, f"a kind of event ({', '.join(known)})", did_you_mean(name, known))
        else:
            chosen[kind] = _level(check, f"levels[{name}]", level)
    check.finish()
    target = logger if isinstance(logger, logging.Logger) else logging.getLogger(logger or "somaresil.events")

    def listener(event: Event) -> None:
        kind = type(event)
        level: Any = chosen.get(kind, logging.DEBUG)
        if callable(level):
            level = level(event)
        if level is None or not target.isEnabledFor(level):
            return
        said = facts(event)
        extra: dict[str, Any] = {f"somaresil_{name}": value for name, value in said.items()}
        extra["somaresil_event"] = kind.__name__
        extra["trace_id"], extra["span_id"] = trace_ids()
        # Not as arguments: a fact with a percent sign in it is no format.
        text = _TEXTS.get(kind, kind.__name__).format_map(said)
        if limit is None:
            target.log(level, "%s", text, extra=extra)
            return
        record = target.makeRecord(target.name, level, __file__, 0, "%s", (text,), None, "log_events", extra)
        if limit.filter(record):
            target.handle(record)

    return listener


class ResilienceFilter(logging.Filter):
    """Tells each record where it was written; none is left out. For a logger, or better for a handler, which gets those of all loggers.

    ==========================  ==============================================================================================
    ``trace_id``, ``span_id``   the current span of OpenTelemetry, in hexadecimal
    ``somaresil_guard``         the innermost guarded call around
    ``somaresil_attempt``       which attempt of its retries, from 1
    ``somaresil_experiment``    the experiment that has struck that call, the request, or that has raised the error of the record
    ``http_request_method``     of the request around, if it has come by the middleware
    ``http_route``              its route as a template, once there is one
    ``request_id``              its header ``request_id``, in at most 128 harmless characters; None: none is read
    ==========================  ==============================================================================================

    What is not known is an empty text, and 0 for the attempt; what a record has already stays. A record that comes from another thread, as
    behind a queue, is told nothing: put the filter in front of the queue.

    No call pays for it: guarded calls are found from the frames of the thread when a line is written, in up to 200 of them. That shows the
    calls of this task or thread. In tasks and threads that a guarded function starts the request is known, and the guarded call only with
    ``calls``, which takes the quiet path away from every guard (see :meth:`Resilience.follow_logs`). A defect in it changes no line.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(self, resilience: Resilience, *, request_id: str | None = "x-request-id", calls: bool = False) -> None:
        """Have requests followed for as long as this is there."""
        super().__init__()
        check = Checker("ResilienceFilter")
        self.request_id = None if request_id is None else header_name(request_id)
        """The header that is read, as ASGI has it."""
        if request_id is not None and self.request_id is None:
            check.problem("request_id", request_id, "the name of a header, or None")
        check.type("calls", calls, bool, "True or False")
        check.finish()
        self._listeners = resilience.listeners
        weakref.finalize(self, resilience.follow_logs(calls=calls)).atexit = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; always True."""
        try:
            here = record.thread is None or record.thread == threading.get_ident()
            error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
            found = fields(self.request_id, error) if here else NOTHING
            given = record.__dict__
            for name, value in found.items():
                if name not in given:
                    given[name] = value
        except Exception as broken:  # noqa: BLE001 - the line is written without it
            for name, value in NOTHING.items():
                record.__dict__.setdefault(name, value)
            self.report(broken)
        return True

    def report(self, broken: Exception) -> None:
        """Say once that it failed. Never raises, whatever the filters of others do."""
        try:
            self._listeners.defect("fields of log lines", broken, 0.0, "the line was written without them")
        except Exception:  # noqa: BLE001 - there is nobody left to tell
            return


def _level(check: Checker, path: str, level: object) -> int | None:
    if level is None or (isinstance(level, int) and not isinstance(level, bool)):
        return level
    named = logging.getLevelNamesMapping()
    if isinstance(level, str) and level.upper() in named:
        return named[level.upper()]
    check.problem(path, level, f"a number, None or one of {', '.join(named)}", did_you_mean(level, named))
    return None
