"""What a pool is told: its endpoints, when one of them is ejected, and how the others are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from somaresil.budget import RetryBudget
from somaresil.config import Checker
from somaresil.model.ejection import Rules

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

__all__ = ["Endpoint", "OutlierEjection", "PoolOptions"]

_T_co = TypeVar("_T_co", covariant=True)

_MOST_WEIGHT = 1_000_000.0


# Without slots: a frozen class with slots cannot be called as `Endpoint[Client](...)` before Python 3.12 or so.
@dataclass(frozen=True)
class Endpoint(Generic[_T_co]):
    """One of the endpoints, models or regions behind a pool: what a guarded function is given as its ``endpoint``.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    name: str
    """Its guard is called by the names of the pool and of the endpoint: ``llm/eu``."""
    target: _T_co
    """A client, a URL, the name of a model: whatever the function needs to call it. Not looked at."""
    weight: float = 1.0
    """How many calls it gets in proportion to the others of its tier; from above 0 to 1,000,000."""
    tier: int = 0
    """From 0 to 100. A tier gets calls when those below it cannot bear them all."""

    def __post_init__(self) -> None:
        """Check everything, keep the weight as a float."""
        check = Checker("Endpoint")
        check.name("name", self.name)
        object.__setattr__(self, "weight", checked_weight(check, self.weight))
        check.count("tier", self.tier, minimum=0, maximum=100)
        check.finish()


def checked_weight(check: Checker, weight: object) -> float:
    """The weight as a float; a problem when it is none."""
    found = check.number("weight", weight, minimum=0.0, maximum=_MOST_WEIGHT)
    if found == 0.0:
        check.problem("weight", weight, f"a number > 0 and <= {_MOST_WEIGHT:.0f}", "to send it no more calls, pool.remove(name)")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierEjection:
    """When an endpoint is taken out of a pool, and for how long: the rules of Envoy's outlier detection, with its defaults.

    Only ``max_ejected`` is another (Envoy: 0.1), because a pool has a few endpoints where a cluster has many; and Envoy does not look at
    latencies. Durations are seconds, as a number or a ``timedelta``.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    consecutive_failures: int | None = 5
    """Out after so many failures in a row; None: not looked at."""
    success_rate_factor: float | None = 1.9
    """Out when its success rate is so many standard deviations, and at least 5 percentage points, below the mean; None: not looked at."""
    minimum_endpoints: int = 5
    """Compare success rates only when so many endpoints have had enough calls."""
    minimum_calls: int = 100
    """How many calls in an interval are enough for a success rate."""
    latency_factor: float | None = 10.0
    """Out when its good answers take on average so many times as long as the median of at least two others; None: not looked at.

    A pool walks around a slow endpoint anyway. This is for keys that stick to one.
    """
    latency_calls: int = 10
    """How many good answers in an interval are enough for an average latency."""
    interval: float | timedelta = 10.0
    """How long success rates and latencies are counted before they are looked at."""
    base_duration: float | timedelta = 30.0
    """How long the first ejection lasts; the n-th in a row lasts n times as long. Each whole interval in which it is in takes one off n."""
    max_duration: float | timedelta = 300.0
    """The longest ejection."""
    max_ejected: float = 0.5
    """The largest share of the endpoints that may be out at once. One may always be."""
    shadow: bool = False
    """Count who would be taken out, and take nobody out."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("OutlierEjection")
        keep = object.__setattr__
        check.count("consecutive_failures", self.consecutive_failures, optional=True)
        for factor, least in (("success_rate_factor", 0.0), ("latency_factor", 1.0)):
            if getattr(self, factor) is not None:
                keep(self, factor, check.number(factor, getattr(self, factor), minimum=least, maximum=1_000.0))
        check.count("minimum_endpoints", self.minimum_endpoints, minimum=3)
        check.count("minimum_calls", self.minimum_calls)
        check.count("latency_calls", self.latency_calls)
        for duration in ("interval", "base_duration", "max_duration"):
            keep(self, duration, check.seconds(duration, getattr(self, duration), maximum=86_400.0))
        keep(self, "max_ejected", check.ratio("max_ejected", self.max_ejected))
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()
        if _as_float(self.max_duration) < _as_float(self.base_duration):
            check.problem("max_duration", self.max_duration, f"at least base_duration ({self.base_duration})")
        check.finish()

    @property
    def rules(self) -> Rules:
        """What the model needs to know."""
        return Rules(
            consecutive_failures=self.consecutive_failures,
            success_rate_factor=self.success_rate_factor,
            minimum_endpoints=self.minimum_endpoints,
            minimum_calls=self.minimum_calls,
            latency_factor=self.latency_factor,
            latency_calls=self.latency_calls,
            interval=_as_float(self.interval),
            base=_as_float(self.base_duration),
            maximum=_as_float(self.max_duration),
            max_ejected=self.max_ejected,
            shadow=self.shadow,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How a pool chooses among its endpoints. Durations are seconds, as a number or a ``timedelta``.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    attempts: int = 1
    """How many endpoints a call may be made on, one after the other when one fails (2: one more). An endpoint that refuses does not count.

    Not when the guard was told ``idempotent=False``, or the call has no key.
    """
    budget: float | RetryBudget | None = 0.2
    """Further attempts, hedges included, a call over the last ten seconds, for all callers together, and ten a second whatever the traffic.

    A :class:`~somaresil.budget.RetryBudget` says it otherwise, or is shared with guards. None: no bound.
    """
    on: Any = Exception
    """After which failures another endpoint is tried: exception types, or a function that is given the exception."""
    hedge_delay: float | timedelta | None = None
    """When there is no answer after this time, the call is made on another endpoint as well, up to ``attempts``; the first answer counts.

    It wants ``idempotent=``. Synchronous calls are not hedged: a thread cannot be called off.
    """
    key: str | Callable[..., object] | None = None
    """Calls with the same key go to the same endpoint while it is well: the name of a parameter, or a function of the caller's arguments.

    A key that is None, and a function that raises, stick to nothing.
    """
    key_spill: float = 1.25
    """An endpoint that has more than so many times its share of the calls in flight gives keys on to the next; at least 1."""
    slow_start: float | timedelta = 30.0
    """How long the weight of an endpoint grows that was added, ejected, or whose breaker was open: from a tenth to all of it."""
    overprovisioning: float = 1.4
    """How many times its share of healthy endpoints a tier can bear: with 1.4 the next one gets calls when fewer than 71 % are healthy."""
    panic_threshold: float = 0.5
    """Below this share of healthy endpoints, a tier balances over all of them; 0: never."""
    latency_decay: float | timedelta = 10.0
    """In which time a latency is forgotten."""
    ejection: OutlierEjection | bool = True
    """When an endpoint is taken out; True: an ``OutlierEjection()``, False: never."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Pool")
        keep = object.__setattr__
        check.count("attempts", self.attempts, maximum=100)
        if self.budget is not None and not isinstance(self.budget, RetryBudget):
            keep(self, "budget", check.ratio("budget", self.budget))
        self._check_on(check)
        keep(self, "hedge_delay", check.seconds("hedge_delay", self.hedge_delay, optional=True, exclusive=False, maximum=86_400.0))
        if self.key is not None and not callable(self.key) and not (isinstance(self.key, str) and self.key.isidentifier()):
            check.problem("key", self.key, "the name of a parameter, a function of the caller's arguments, or None")
        keep(self, "key_spill", check.number("key_spill", self.key_spill, minimum=1.0, maximum=1_000.0))
        keep(self, "slow_start", check.seconds("slow_start", self.slow_start, exclusive=False, maximum=86_400.0))
        keep(self, "overprovisioning", check.number("overprovisioning", self.overprovisioning, minimum=1.0, maximum=100.0))
        keep(self, "panic_threshold", check.ratio("panic_threshold", self.panic_threshold))
        keep(self, "latency_decay", check.seconds("latency_decay", self.latency_decay, maximum=86_400.0))
        check.type("ejection", self.ejection, (OutlierEjection, bool), "an OutlierEjection, True or False")
        check.finish()
        if self.hedge_delay is not None and self.attempts == 1:
            check.problem("attempts", self.attempts, "at least 2 with hedge_delay", "a hedge is one more attempt")
        check.finish()

    def _check_on(self, check: Checker) -> None:
        if isinstance(self.on, list | set | frozenset):
            object.__setattr__(self, "on", tuple(self.on))
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        types = bool(kinds) and all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds)
        if not types and (isinstance(self.on, type | tuple) or not callable(self.on)):
            check.problem("on", self.on, "subclasses of Exception, or a function of the exception", "cancellation is never tried again")

    @property
    def rules(self) -> Rules:
        """What the model of ejections needs to know."""
        if isinstance(self.ejection, OutlierEjection):
            return self.ejection.rules
        return _USUAL.rules if self.ejection else _NEVER.rules

    def fails_over(self, error: Exception) -> bool:
        """Whether another endpoint may be tried after this error. Raises what the user's function raises."""
        return isinstance(error, self.on) if isinstance(self.on, type | tuple) else bool(self.on(error))


def _as_float(value: float | timedelta) -> float:
    # Durations were turned into seconds when the options were made.
    return value  # type: ignore[return-value]


_USUAL = OutlierEjection()
_NEVER = OutlierEjection(consecutive_failures=None, success_rate_factor=None, latency_factor=None)
