"""What is seen of a process from outside, frozen, and the controls of a breaker: for dashboards the first, for operators the second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from somaresil.config import Checker
from somaresil.model.breaker import State, Tally, Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping
    from datetime import timedelta

    from somaresil.chaos.run import ExperimentRun
    from somaresil.guard import Guard
    from somaresil.policy.breaker import BreakerPolicy
    from somaresil.pool import PoolView
    from somaresil.recorder import Counts
    from somaresil.slo.incidents import Incident
    from somaresil.slo.objective import ErrorBudget

__all__ = ["BreakerControl", "GuardView", "LimitView", "RequestLimit", "Snapshot", "view_of"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class GuardView:
    """One guard at one moment."""

    name: str
    pipeline: tuple[str, ...]
    counts: Counts
    state: State | None
    window: Tally | None
    available: Mapping[str, float] | None
    """What could be taken of its rate limit at once, by unit."""
    throttled: float | None
    """How likely its throttle is to refuse the next call."""
    held_by: frozenset[str]
    """Why its calls take the full path at the moment; empty when it is quiet."""
    shadow: Mapping[tuple[str, str], int]
    """What its policies in shadow mode would have done: counts by policy and decision."""
    budget_scale: float | None
    """How much of its budgets for further attempts it may use, as the error budget burns; None: it is not aware of any objective."""
    keys: Mapping[State, int] | None = None
    """How many of its keys are in each state; None: no call has ever had a key."""


class RequestLimit(Protocol):
    """A limit of requests, as it is looked at."""

    @property
    def limit(self) -> int:
        """How many may run at once now."""
        ...

    @property
    def active(self) -> int:
        """How many run."""
        ...

    @property
    def waiting(self) -> int:
        """How many wait."""
        ...


@dataclass(frozen=True, slots=True)
class LimitView:
    """How full a limit of requests is."""

    limit: int
    """How many may run at once now."""
    active: int
    """How many run."""
    waiting: int
    """How many wait."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole process at one moment. Frozen: nobody reads a live counter."""

    service: str
    instance: str
    at: float
    guards: Mapping[str, GuardView]
    routes: Mapping[str, Counts]
    budgets: Mapping[str, ErrorBudget]
    incidents: tuple[Incident, ...]
    experiments: tuple[ExperimentRun, ...]
    pools: Mapping[str, PoolView]
    ignored_headers: Mapping[str, int]
    """How often a header could not be read, by its name."""
    request_limit: LimitView | None = None
    """The limit of the ASGI middleware, several of them together; None: there is none."""


class BreakerControl:
    """The write side of a breaker, for operators and game days. Dashboards get :attr:`GuardView.state`.

    The controls of a guard's own breaker reach its keys: while it is not closed again, it decides about every call (see
    :mod:`somaresil.guard.keyed`).
    """

    __slots__ = ("_key", "_policy")

    def __init__(self, policy: BreakerPolicy, key: Hashable | None = None) -> None:
        """Control this breaker, or that of one of its keys."""
        self._policy = policy
        self._key = key

    def _do(self, act: Callable[[BreakerPolicy], _T]) -> _T:
        keys = self._policy.keys
        return act(self._policy) if self._key is None or keys is None else keys.reach(self._key, act)

    @property
    def state(self) -> State:
        """The state now."""
        return self._do(lambda policy: policy.state)

    @property
    def era(self) -> int:
        """Which era it is; each transition starts a new one."""
        return self._do(lambda policy: policy.era)

    @property
    def retry_after(self) -> float | None:
        """Seconds until a call may be let through; None while forced open."""
        return self._do(lambda policy: policy.retry_after())

    def trip(self, duration: float | timedelta | None = None) -> None:
        """Open for ``duration`` seconds (default: its open duration). Never waits for a running call.

        Raises :class:`~somaresil.errors.ConfigurationError` for a duration that is none, and
        :class:`~somaresil.model.breaker.IllegalTransition` when it is forced open, disabled or only watching.
        """
        check = Checker(f"breaker({self._policy.name!r}).trip")
        seconds = check.seconds("duration", duration, optional=True)
        check.finish()
        self._do(lambda policy: policy.trip(seconds))

    def reset(self) -> None:
        """Close, and forget the window; every key of the guard begins anew as well."""
        self._do(lambda policy: policy.control(Trigger.RESET))

    def disable(self) -> None:
        """Let everything through and judge nothing, until :meth:`reset`."""
        self._do(lambda policy: policy.control(Trigger.DISABLE))

    def force_open(self) -> None:
        """Reject everything, until :meth:`reset`."""
        self._do(lambda policy: policy.control(Trigger.FORCE_OPEN))

    def observe(self) -> None:
        """Count, but never open, until :meth:`reset`."""
        self._do(lambda policy: policy.control(Trigger.OBSERVE))


def view_of(guard: Guard) -> GuardView:
    """The guard as it is now."""
    breaker = guard.breaker
    return GuardView(
        name=guard.name,
        pipeline=guard.pipeline,
        counts=guard.recorder.counts(),
        state=None if breaker is None else breaker.state,
        window=None if breaker is None else breaker.tally(),
        available=None if guard.rate_limit is None else guard.rate_limit.available(),
        throttled=None if guard.throttle is None else guard.throttle.probability,
        held_by=guard.switch.reasons,
        keys=None if breaker is None or breaker.keys is None else breaker.keys.states(),
        shadow=guard.shadow.counts(),
        budget_scale=guard.budget_scale,
    )
