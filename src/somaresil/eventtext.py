"""Events for people: how much each kind matters, what it says in words, and its facts as flat, short, harmless values.

Logs, spans and the dashboard show the same event by the same words.
"""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from somaresil import events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.events import Event

__all__ = ["DEFAULT_LEVELS", "LONGEST", "facts", "harmless", "in_words", "level_of"]

LONGEST: Final = 200
"""Characters in a value."""


def harmless(text: str, longest: int = LONGEST) -> str:
    r"""``text`` on one line, with everything that could steer a terminal or forge a line written as an escape, and cut to ``longest``.

    Line breaks, ESC and the other control characters, marks that turn the direction of writing (Unicode TR 36, section 3.1), separators
    and lone surrogates become ``\n``, ``\x1b``, ``\u202e`` …; a backslash is doubled, so that nobody can write such an escape himself.
    """
    if len(text) <= longest and text.isprintable() and "\\" not in text:
        return text
    pieces: list[str] = []
    room = longest
    for character in text:
        piece = character if character.isprintable() and character != "\\" else character.encode("unicode_escape").decode("ascii")
        room -= len(piece)
        if room < 0:
            # An escape is never cut in the middle: half of one is another character.
            while pieces and sum(map(len, pieces)) > longest - 1:
                pieces.pop()
            return "".join(pieces) + "…"
        pieces.append(piece)
    return "".join(pieces)


def facts(event: Event) -> dict[str, str | int | float | bool]:
    """What an event says, by the names of its fields, without those that say nothing.

    Never arguments, headers or bodies, for events have none. ``last_error`` is cut to the type of the error: what follows is a message, and
    messages carry what somebody typed.
    """
    found: dict[str, str | int | float | bool] = {}
    for field in fields(event):
        value: Any = getattr(event, field.name)
        if value is None or field.name == "at":
            continue
        if field.name == "last_error":
            value = str(value).partition(":")[0]
        if isinstance(value, bool | int | float):
            found[field.name] = value
        else:
            found[field.name] = harmless("; ".join(map(str, value)) if isinstance(value, tuple) else str(value))
    return found


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
    events.RuntimeViolation: logging.WARNING,
    events.PlanIgnored: logging.WARNING,
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
    events.RuntimeViolation: "the runtime guard does not allow {subject} ({rule}; refused: {blocked}; {times} times)",
    events.Reconfigured: "options were changed: {changes} ({by})",
    events.PlanIgnored: "request plans were ignored: {reason} ({times} times)",
    events.SharedStateLost: "shared state at {backend} is lost ({error}); local state decides",
    events.SharedStateRestored: "shared state at {backend} is back after {lost_for:.1f} s",
    events.DefectFound: "{where} raised {error}; the call went on",
}


def level_of(event: Event, levels: Mapping[type, int | Callable[[Any], int] | None] = DEFAULT_LEVELS) -> int | None:
    """How much it matters, as a level of ``logging``; None: ``levels`` has it left out."""
    level = levels.get(type(event), logging.DEBUG)
    return level(event) if callable(level) else level


def in_words(event: Event, said: Mapping[str, Any] | None = None) -> str:
    """One line about it. ``said``: its :func:`facts`, for whoever has them."""
    kind = type(event)
    return _TEXTS.get(kind, kind.__name__).format_map(facts(event) if said is None else said)
