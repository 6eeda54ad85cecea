"""What became of one fault. Plain arithmetic on what was seen: no clock, no chance, no I/O; the same for processes and for a simulation.

With t0 the moment in which the fault was armed, and a request *bad* when it failed for its user, was late, or was answered by a fallback:

- **injected**: at least one strike was counted by an instance inside the blast radius, and none by one outside;
- **impact**: *absorbed* when no request was bad, *degraded* when the worst of them was answered by a fallback, *failed* otherwise;
- **time to detect**: from t0 to the first sign: a failed attempt, a retry, a hedge, a
  fallback, an opened circuit, a bad call, in any instance, a turn of the load balancer to another one, or a bad request. None: nobody has
  noticed;
- **time to recovery**: from t0 to the end of the last bad request; 0 when there was none. Recovery is steady only when at least
  :data:`STEADY` requests were begun after the lease and after that end, and all of them were good;
- **clean**: every circuit is closed, no experiment runs, no call is held up, no write waits. **Time until clean** counts from t0 too.

A fault is *recovered* from when it was injected, steady recovery was seen, everything was clean, and both took less than the limit. What
was not injected has shown nothing, and counts as not recovered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["STEADY", "Impact", "Judgement", "Observation", "Request", "judge", "recovery", "unavailable"]

STEADY: Final = 8
"""Good requests in a row that are a steady state."""


class Impact(StrEnum):
    """What users saw of a fault."""

    ABSORBED = "absorbed"
    DEGRADED = "degraded"
    FAILED = "failed"
    NOT_INJECTED = "not injected"
    UNAVAILABLE = "unavailable"
    """The platform cannot do it: nothing was tried, and nothing is counted."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a user. Times are those of the monotonic clock."""

    due: float
    """When it was meant to begin."""
    ended: float
    outcome: str
    """``good``, ``degraded`` or ``failed``."""
    why: str = ""
    """What went wrong."""

    @property
    def bad(self) -> bool:
        """Whether its user got less than the service promises."""
        return self.outcome != "good"


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of one fault."""

    armed_at: float
    lease_end: float
    limit: float
    """Seconds from ``armed_at`` in which the stack has to recover."""
    requests: tuple[Request, ...]
    """All that were due since it was armed and have ended when the observation did."""
    selected: tuple[str, ...] = ()
    """Instances inside the blast radius, as they said themselves."""
    injected: Mapping[str, int] = field(default_factory=dict[str, int])
    """Strikes by instance."""
    first_sign: float | None = None
    """When an instance noticed something."""
    sign: str = ""
    clean_at: float | None = None
    """When everything was as before; None: it was not when the observation ended."""
    left: tuple[str, ...] = ()
    """What was not."""
    refused: str = ""
    """Why the control app would not arm it."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on one fault. Seconds; None: not seen."""

    impact: Impact
    recovered: bool
    why: str
    """Why not; empty when it was recovered from."""
    injected: int
    requests: int
    bad: int
    detected_after: float | None
    recovered_after: float | None
    """None: no steady recovery was seen."""
    clean_after: float | None

    @property
    def over_after(self) -> float | None:
        """When it was over altogether: users had a steady service, and nothing was left. None: it was not."""
        if self.recovered_after is None or self.clean_after is None:
            return None
        return max(self.recovered_after, self.clean_after)

    @property
    def counts(self) -> bool:
        """Whether it says anything about the stack."""
        return self.impact is not Impact.UNAVAILABLE


def judge(seen: Observation) -> Judgement:
    """The verdict; see the head of this module for its rules."""
    bad = [request for request in seen.requests if request.bad]
    injected = sum(seen.injected.values())
    outside = sorted(name for name, count in seen.injected.items() if count and name not in seen.selected)
    recovered_at = recovery(seen.requests, seen.armed_at, seen.lease_end)
    recovered_after = None if recovered_at is None else recovered_at - seen.armed_at
    clean_after = None if seen.clean_at is None else seen.clean_at - seen.armed_at
    return Judgement(
        impact=_impact(bad, injected),
        recovered=not (why := _why_not(seen, injected, outside, recovered_after, clean_after)),
        why=why,
        injected=injected,
        requests=len(seen.requests),
        bad=len(bad),
        detected_after=_detected(seen, bad) if injected else None,
        recovered_after=recovered_after,
        clean_after=clean_after,
    )


def unavailable(why: str) -> Judgement:
    """The verdict on a fault that the platform cannot do: none."""
    return Judgement(
        Impact.UNAVAILABLE,
        recovered=False,
        why=why,
        injected=0,
        requests=0,
        bad=0,
        detected_after=None,
        recovered_after=None,
        clean_after=None,
    )


def recovery(requests: Iterable[Request], armed_at: float, lease_end: float) -> float | None:
    """When users had a steady service again: the end of the last bad request, or ``armed_at`` without any.

    None: there are not :data:`STEADY` good requests that were begun after that and after the lease.
    """
    listed = tuple(requests)
    last = max((request.ended for request in listed if request.bad), default=armed_at)
    after = sum(request.due >= max(last, lease_end) and not request.bad for request in listed)
    return last if after >= STEADY else None


def _impact(bad: list[Request], injected: int) -> Impact:
    if not injected:
        return Impact.NOT_INJECTED
    if not bad:
        return Impact.ABSORBED
    return Impact.FAILED if any(request.outcome != "degraded" for request in bad) else Impact.DEGRADED


def _why_not(seen: Observation, injected: int, outside: list[str], recovered_after: float | None, clean_after: float | None) -> str:
    if seen.refused:
        return f"it was refused: {seen.refused}"
    if not injected:
        return "it struck nothing"
    if outside:
        return f"it struck outside its blast radius: {', '.join(outside)}"
    if recovered_after is None:
        return f"the users had no steady service again within {seen.limit:g} s"
    if clean_after is None:
        return f"something was left after {seen.limit:g} s: {'; '.join(seen.left) or 'nobody knows what'}"
    slowest = max(recovered_after, clean_after)
    return f"it took {slowest:.1f} s, more than {seen.limit:g} s" if slowest > seen.limit else ""


def _detected(seen: Observation, bad: list[Request]) -> float | None:
    signs = [request.ended for request in bad]
    if seen.first_sign is not None:
        signs.append(seen.first_sign)
    return max(0.0, min(signs) - seen.armed_at) if signs else None
