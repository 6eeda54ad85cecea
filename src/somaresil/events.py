"""What happened, as frozen values: one list of everything that can be told, by what tells it.

There is no event for a call that went well: the counts say that. :mod:`somaresil.listeners` holds who is told. Events are not made to be
subclassed. ``at`` is wall-clock time in seconds since the epoch, for people
to read; durations are seconds measured on the monotonic clock.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AlertCleared",
    "AlertFired",
    "AttemptFailed",
    "BreakerChanged",
    "BudgetActionBegan",
    "BudgetActionEnded",
    "CallEnded",
    "CanaryEnded",
    "CanaryMoved",
    "CanaryStarted",
    "ChaosAudited",
    "DefectFound",
    "DeploymentMarked",
    "EndpointEjected",
    "EndpointReturned",
    "Event",
    "ExperimentEnded",
    "ExperimentStarted",
    "FallbackUsed",
    "FaultInjected",
    "FaultWithheld",
    "GateOverridden",
    "HedgeStarted",
    "HedgeWon",
    "IncidentClosed",
    "IncidentMitigated",
    "IncidentOpened",
    "LeadershipChanged",
    "PlanIgnored",
    "PoolPanicked",
    "RateLowered",
    "Reconfigured",
    "ResourceExhausted",
    "ResourceReleased",
    "RetryDenied",
    "RetryScheduled",
    "RuntimeViolation",
    "ScheduledRunEnded",
    "ScheduledRunSkipped",
    "ScheduledRunStarted",
    "ShadowDecision",
    "SharedStateLost",
    "SharedStateRestored",
]


@dataclass(frozen=True, slots=True)
class CallEnded:
    """A call ended other than quietly well: bad, rejected, abandoned, ignored, or touched by an experiment."""

    guard: str
    at: float
    outcome: str
    error: str | None
    elapsed: float
    injected: bool


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """One attempt of a call failed; ``attempt`` counts from 1. ``error`` is the type of the error."""

    guard: str
    at: float
    attempt: int
    error: str
    injected: bool


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """The call will be tried again after ``delay`` seconds."""

    guard: str
    at: float
    attempt: int
    delay: float
    error: str | None


@dataclass(frozen=True, slots=True)
class RetryDenied:
    """The call would have been tried again after ``attempt``, and may not be: ``reason`` is ``budget``, ``deadline`` or ``idempotency``."""

    guard: str
    at: float
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class HedgeStarted:
    """There was no answer ``delay`` seconds after the attempt before: a further one begins. ``hedge`` counts them from 1."""

    guard: str
    at: float
    hedge: int
    delay: float


@dataclass(frozen=True, slots=True)
class HedgeWon:
    """The answer of a further attempt was the first good one. ``hedge`` says which."""

    guard: str
    at: float
    hedge: int


@dataclass(frozen=True, slots=True)
class FallbackUsed:
    """The fallback answered in place of the dependency. ``error`` is the type of the error that it replaced, or ``refused answer``.

    ``handler`` names what answered; ``stale`` says that it was an answer of the dependency itself, asked for ``age`` seconds ago.
    """

    guard: str
    at: float
    error: str
    handler: str = ""
    stale: bool = False
    age: float | None = None


@dataclass(frozen=True, slots=True)
class RateLowered:
    """An answer asked for less: rate limit ``limit`` grants this ``share`` of its rate from now on, after ``pause`` seconds of nothing."""

    guard: str
    at: float
    limit: str
    share: float
    pause: float


@dataclass(frozen=True, slots=True)
class BreakerChanged:
    """The breaker moved from state ``before`` to ``after`` because of ``cause``.

    ``calls``, ``failures`` and ``slow`` are what its window showed; ``first_failure_at`` is the wall-clock time of the first failure in
    that window; ``open_duration`` the seconds it stays open, drawn once; ``injected`` whether an experiment pulled it.
    """

    guard: str
    at: float
    before: str
    after: str
    cause: str
    calls: int
    failures: int
    slow: int
    first_failure_at: float
    open_duration: float | None
    last_error: str | None
    injected: bool
    era: int = 0
    """The era that began. Two threads may tell of two steps in the wrong order: the one with the higher era is the later one."""
    shadow: bool = False
    """The breaker is in shadow mode: it refuses nothing, whatever its state."""
    key: str | None = None
    """Which key of the guard, when the breaker is for the calls of that one alone."""


@dataclass(frozen=True, slots=True)
class EndpointEjected:
    """A pool takes an endpoint out for ``duration`` seconds. ``guard`` is the name of the pool, ``cause`` what it did worse than others.

    Causes are ``consecutive_failures``, ``success_rate`` and ``latency``.
    """

    guard: str
    at: float
    endpoint: str
    cause: str
    duration: float


@dataclass(frozen=True, slots=True)
class EndpointReturned:
    """An endpoint that was ejected is in again; its share of the calls begins small and grows."""

    guard: str
    at: float
    endpoint: str


@dataclass(frozen=True, slots=True)
class PoolPanicked:
    """So few ``healthy`` ones of the ``endpoints`` are left that a pool balances over all of them; ``began`` False: that is over."""

    guard: str
    at: float
    began: bool
    healthy: int
    endpoints: int


@dataclass(frozen=True, slots=True)
class AlertFired:
    """The error budget of ``slo`` burns too fast: ``severity`` is ``page`` or ``ticket``.

    ``burn`` is what was found over ``long`` seconds, above ``threshold``; ``short`` is the window that will end it. ``group`` is the label
    value whose budget it is; None: that of all.
    """

    slo: str
    at: float
    severity: str
    long: float
    short: float
    burn: float
    threshold: float
    group: str | None


@dataclass(frozen=True, slots=True)
class AlertCleared:
    """No condition of that severity fires any more, ``duration`` seconds after the first did."""

    slo: str
    at: float
    severity: str
    duration: float
    group: str | None


@dataclass(frozen=True, slots=True)
class BudgetActionBegan:
    """So little of the error budget of ``slo`` is left, ``remaining`` as a share of it, that ``action`` is taken from here on."""

    slo: str
    at: float
    action: str
    remaining: float
    below: float


@dataclass(frozen=True, slots=True)
class BudgetActionEnded:
    """There is enough again, ``remaining``, or nobody watches any more (None): ``action`` is over after ``duration`` seconds."""

    slo: str
    at: float
    action: str
    remaining: float | None
    duration: float


@dataclass(frozen=True, slots=True)
class GateOverridden:
    """A release went on that the gate would have stopped: ``who`` said so, for a ``reason``, ``until`` a moment of wall time.

    ``decision`` is what the gate had said: ``block`` or ``unknown``.
    """

    at: float
    who: str
    reason: str
    until: float
    decision: str


@dataclass(frozen=True, slots=True)
class DeploymentMarked:
    """A version was put in service at ``began``; ``ok`` False: it is known to have failed, None: nobody has said."""

    at: float
    version: str
    began: float
    commit: str | None
    ok: bool | None


@dataclass(frozen=True, slots=True)
class IncidentOpened:
    """It was noticed: the breaker of a guard opened, or an alert of an objective fired. It began with the first bad event.

    ``guard`` is None for one of an objective, which ``slo`` and ``group`` then name. ``experiment`` is the id of the one that made it.
    """

    guard: str | None
    at: float
    incident: str
    started_at: float
    injected: bool
    slo: str | None = None
    group: str | None = None
    experiment: str | None = None


@dataclass(frozen=True, slots=True)
class IncidentMitigated:
    """It lasts, and those who are served notice no more of it: ``elapsed`` seconds from the first bad event it became better.

    Told 10 seconds later at the earliest, and again when it became worse between.
    """

    guard: str | None
    at: float
    incident: str
    elapsed: float
    injected: bool
    slo: str | None = None
    group: str | None = None
    experiment: str | None = None


@dataclass(frozen=True, slots=True)
class IncidentClosed:
    """The breaker closed again, or no alert stands any more; ``duration`` and the stages count in seconds from the first bad event."""

    guard: str | None
    at: float
    incident: str
    duration: float
    recovered: bool
    injected: bool
    slo: str | None = None
    group: str | None = None
    experiment: str | None = None
    detected_after: float = 0.0
    mitigated_after: float | None = None


@dataclass(frozen=True, slots=True)
class FaultInjected:
    """An experiment struck one call of the guard ``component``; ``fault`` is its kind (``latency``, ``error``, ``circuit_trip`` …).

    For a request, ``component`` is the target of the experiment: a path would be a label without bound.
    """

    component: str
    at: float
    fault: str
    experiment: str


@dataclass(frozen=True, slots=True)
class FaultWithheld:
    """A dry run would have struck one call. Fields as in :class:`FaultInjected`."""

    component: str
    at: float
    fault: str
    experiment: str


@dataclass(frozen=True, slots=True)
class ExperimentStarted:
    """An experiment was armed; it ends by itself after ``duration`` seconds."""

    component: str
    at: float
    fault: str
    experiment: str
    rate: float
    duration: float
    dry_run: bool = False
    """It strikes nothing, and counts what it would have struck."""


@dataclass(frozen=True, slots=True)
class ExperimentEnded:
    """An experiment is over; ``reason`` is ``expired``, ``stopped``, ``stop_all``, ``used up``, ``failed`` or ``safety lever``.

    When a stop condition has ended it, that is ``condition `` and its name.
    """

    component: str
    at: float
    fault: str
    experiment: str
    reason: str
    injected: int
    would_have_injected: int = 0
    """What a dry run would have struck."""


@dataclass(frozen=True, slots=True)
class ChaosAudited:
    """Somebody did something with experiments, or tried to: see :class:`somaresil.chaos.audit.AuditEntry`, which has more of it."""

    at: float
    who: str
    what: str
    experiment: str
    result: str


@dataclass(frozen=True, slots=True)
class ResourceExhausted:
    """An experiment has taken as much of a resource as it will: ``reached`` of ``asked``, in ``unit``.

    ``component`` is its target, ``limited`` why it is less than was asked for; empty when it is not.
    """

    component: str
    at: float
    experiment: str
    unit: str
    asked: float
    reached: float
    limited: str


@dataclass(frozen=True, slots=True)
class ResourceReleased:
    """An experiment has given back what it had taken: at most ``reached`` at once, for ``seconds`` in all."""

    component: str
    at: float
    experiment: str
    unit: str
    reached: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ScheduledRunStarted:
    """A schedule has started what it runs, ``late`` seconds after its time; ``occurrence`` is ``schedule@2026-11-27T02:30:00Z``."""

    schedule: str
    at: float
    occurrence: str
    late: float


@dataclass(frozen=True, slots=True)
class ScheduledRunEnded:
    """What a schedule has started is over after ``duration`` seconds; ``error`` says why (a type, or a word), unless it is done.

    Outcomes are ``done``, ``failed``, ``refused`` (no permission, a wrong target) and ``cancelled``.
    """

    schedule: str
    at: float
    occurrence: str
    outcome: str
    error: str
    duration: float


@dataclass(frozen=True, slots=True)
class ScheduledRunSkipped:
    """Something was due and is not run; with ``count`` > 1 that many of them, of which ``occurrence`` is the last.

    Reasons are ``missed``, ``paused``, ``running`` (the run before is not over), ``closed`` and ``would not end before the window closes``.
    """

    schedule: str
    at: float
    occurrence: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class LeadershipChanged:
    """This process leads the fleet called ``name`` from here on, or does not any more. ``fence`` grows with each leader."""

    name: str
    at: float
    leads: bool
    fence: int


@dataclass(frozen=True, slots=True)
class CanaryStarted:
    """A candidate gets its first share of the traffic, or goes on where an earlier process was (``resumed``). ``weight`` is a ratio."""

    canary: str
    at: float
    version: str
    phase: str
    weight: float
    resumed: bool


@dataclass(frozen=True, slots=True)
class CanaryMoved:
    """A rollout went on to another phase, was paused or resumed (``step``: ``promote``, ``pause``, ``resume``)."""

    canary: str
    at: float
    version: str
    step: str
    before: str
    phase: str
    weight: float
    reason: str


@dataclass(frozen=True, slots=True)
class CanaryEnded:
    """A rollout is over: ``complete``, ``rollback``, or ``superseded`` by another version.

    Counts are events of the objective, ``e`` is the evidence that the candidate is worse (1 / alpha is enough).
    """

    canary: str
    at: float
    version: str
    outcome: str
    phase: str
    reason: str
    candidate: int
    candidate_bad: int
    control: int
    control_bad: int
    e: float


@dataclass(frozen=True, slots=True)
class ShadowDecision:
    """A policy in shadow mode would have taken this ``decision``: ``reject``, ``open``, ``time_out``, ``retry`` or ``hedge``."""

    guard: str
    at: float
    policy: str
    decision: str
    detail: str


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """Options of ``guards`` were changed while the service runs.

    ``changes`` has one line for each, ``guard: option before -> after``, at most 100 and one more that counts the rest; ``by`` is who has
    done it and why, as they said it, or the file that it came from.
    """

    at: float
    guards: tuple[str, ...]
    changes: tuple[str, ...]
    by: str


@dataclass(frozen=True, slots=True)
class PlanIgnored:
    """Request plans were ignored for ``reason``, ``times`` since it was last told: at most once a minute for each reason."""

    reason: str
    times: int
    at: float


@dataclass(frozen=True, slots=True)
class RuntimeViolation:
    """This process does what no list of the runtime guard's ``rule`` allows, or was refused it; ``times`` since it was last told.

    ``subject`` is a program, a host with its port, a file or a library: never arguments. The same is told at most once a minute.
    """

    rule: str
    at: float
    subject: str
    blocked: bool
    times: int


@dataclass(frozen=True, slots=True)
class SharedStateLost:
    """The server ``backend`` that holds shared state cannot be reached, or does not answer: local state decides from here on."""

    backend: str
    at: float
    error: str


@dataclass(frozen=True, slots=True)
class SharedStateRestored:
    """The server ``backend`` is back after ``lost_for`` seconds, and this process follows what is shared again."""

    backend: str
    at: float
    lost_for: float


@dataclass(frozen=True, slots=True)
class DefectFound:
    """Something of ours, or a hook of the user's, raised where nothing may raise; the call went on without it."""

    where: str
    at: float
    error: str


Event = (
    CallEnded
    | AttemptFailed
    | RetryScheduled
    | RetryDenied
    | HedgeStarted
    | HedgeWon
    | FallbackUsed
    | RateLowered
    | BreakerChanged
    | EndpointEjected
    | EndpointReturned
    | PoolPanicked
    | IncidentOpened
    | IncidentMitigated
    | IncidentClosed
    | FaultInjected
    | FaultWithheld
    | GateOverridden
    | AlertFired
    | AlertCleared
    | BudgetActionBegan
    | BudgetActionEnded
    | DeploymentMarked
    | ExperimentStarted
    | ExperimentEnded
    | ResourceExhausted
    | ResourceReleased
    | ScheduledRunStarted
    | ScheduledRunEnded
    | ScheduledRunSkipped
    | LeadershipChanged
    | CanaryStarted
    | CanaryMoved
    | CanaryEnded
    | ChaosAudited
    | ShadowDecision
    | Reconfigured
    | PlanIgnored
    | RuntimeViolation
    | SharedStateLost
    | SharedStateRestored
    | DefectFound
)
"""Every kind of event."""
