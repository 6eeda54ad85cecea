"""What a guard is told to do, and the shorthands for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker, did_you_mean
from somaresil.limiter import RateLimiter
from somaresil.policy.adaptive import AdaptiveLimit
from somaresil.policy.breaker import CircuitBreaker
from somaresil.policy.bulkhead import Bulkhead
from somaresil.policy.fallback import Fallback, Fallbacks
from somaresil.policy.hedge import Hedge
from somaresil.policy.ratelimit import RateLimit, SharedRateLimit
from somaresil.policy.retry import Retry
from somaresil.policy.singleflight import SingleFlight
from somaresil.policy.stale import StaleCache
from somaresil.policy.throttle import Throttle
from somaresil.policy.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.outcome import Classifier

__all__ = ["GuardOptions", "check_known"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardOptions:
    """What a guard does. Shorthands are resolved by :meth:`of`."""

    slo: tuple[str, ...] = ()
    classify: Classifier | None = None
    idempotent: bool | str | Callable[..., object] | None = None
    budget_aware: str | None = None
    fallback: Fallback | StaleCache | Fallbacks | None = None
    single_flight: SingleFlight | None = None
    hedge: Hedge | None = None
    retry: Retry | None = None
    throttle: Throttle | None = None
    breaker: CircuitBreaker | None = None
    rate_limit: RateLimit | SharedRateLimit | None = None
    bulkhead: Bulkhead | AdaptiveLimit | None = None
    timeout: Timeout | None = None

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any], check: Checker | None = None) -> GuardOptions:
        """Resolve shorthands: ``timeout=10``, ``retry=3``, ``breaker=True``, ``bulkhead=8``, ``fallback=function``, ``hedge=0.2`` ...

        Notes the problems in ``check``; without one, raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        checker = Checker(f"guard({name!r})") if check is None else check
        found = {key: _RESOLVE[key](checker, value) for key, value in given.items()}
        if check is None:
            checker.finish()
        return cls(**found)

    def changed(self, name: str, given: Mapping[str, Any]) -> GuardOptions:
        """These options with some of them replaced."""
        other = GuardOptions.of(name, given)
        return replace(self, **{key: getattr(other, key) for key in given})

    def differences(self, other: GuardOptions) -> list[str]:
        """Names of the options that differ."""
        return [field.name for field in fields(self) if getattr(self, field.name) != getattr(other, field.name)]


def _resolve_slo(check: Checker, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    names = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    if all(isinstance(name, str) for name in names):
        return names
    check.problem("slo", value, "the name of an objective, or several")
    return ()


def _resolve_classify(check: Checker, value: Any) -> Any:
    if value is not None and not callable(value):
        check.problem("classify", value, "a Classify, or a function of (result, error) that returns an Outcome, a Fatal or None")
    return value


def _resolve_idempotent(check: Checker, value: Any) -> Any:
    if value is None or isinstance(value, bool) or callable(value) or (isinstance(value, str) and value.isidentifier()):
        return value
    check.problem("idempotent", value, "True, False, the name of the argument that holds the key, or a function that returns the key")
    return None


def _resolve_budget_aware(check: Checker, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    check.problem("budget_aware", value, "the name of an objective")
    return None


def _resolve_fallback(check: Checker, value: Any) -> Fallback | StaleCache | Fallbacks | None:
    if value is None or isinstance(value, Fallback | StaleCache | Fallbacks):
        return value
    given = tuple(value) if isinstance(value, list | tuple) else (value,)
    links = [link if isinstance(link, Fallback | StaleCache) or not callable(link) else Fallback(link) for link in given]
    wrong = [link for link in links if not isinstance(link, Fallback | StaleCache)]
    if wrong or not links:
        allowed = "a function, a Fallback, a StaleCache, or a list of them"
        check.problem("fallback", wrong[0] if wrong else value, allowed, "to answer with a constant, write lambda *args, **kwargs: value")
        return None
    if any(isinstance(link, StaleCache) for link in links[1:]):
        check.problem("fallback", value, "a StaleCache in the first place only", "it has to see what the dependency itself answers")
    return links[0] if len(links) == 1 else Fallbacks(tuple(links))


def _resolve_single_flight(check: Checker, value: Any) -> SingleFlight | None:
    if value is None or value is False or isinstance(value, SingleFlight):
        return value or None
    if value is True:
        return SingleFlight()
    if callable(value):
        return SingleFlight(value)
    check.problem("single_flight", value, "True, a function of the arguments that returns a key, or a SingleFlight")
    return None


def _resolve_hedge(check: Checker, value: Any) -> Hedge | None:
    if value is None or isinstance(value, Hedge):
        return value
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        return Hedge(check.seconds("hedge", value, maximum=3_600.0))
    check.problem("hedge", value, "seconds after which to ask again, a timedelta or a Hedge")
    return None


def _resolve_retry(check: Checker, value: Any) -> Retry | None:
    if value is None or value is False or isinstance(value, Retry):
        return value or None
    if isinstance(value, int) and not isinstance(value, bool):
        attempts = check.count("retry", value, maximum=100)
        return Retry(attempts=attempts)
    check.problem("retry", value, "a number of attempts or a Retry")
    return None


_USUAL_BREAKER = CircuitBreaker()


def _resolve_breaker(check: Checker, value: Any) -> CircuitBreaker | None:
    if value is True:
        return _USUAL_BREAKER
    if value is None or value is False or isinstance(value, CircuitBreaker):
        return value or None
    check.problem(
        "breaker",
        value,
        "True, None or a CircuitBreaker",
        "a pybreaker.CircuitBreaker is taken over by somaresil.integrations.pybreaker.adopt",
    )
    return None


def _resolve_throttle(check: Checker, value: Any) -> Throttle | None:
    if value is None or value is False or isinstance(value, Throttle):
        return value or None
    if value is True:
        return Throttle()
    check.problem("throttle", value, "True, None or a Throttle")
    return None


def _resolve_rate_limit(check: Checker, value: Any) -> RateLimit | SharedRateLimit | None:
    if value is None or isinstance(value, RateLimit | SharedRateLimit):
        return value
    if isinstance(value, RateLimiter):
        return SharedRateLimit(value)
    # A number alone does not say in what time.
    check.problem(
        "rate_limit", value, "a RateLimit, or one made by resilience.rate_limit(...)", "100 calls a second: RateLimit(100, per=1.0)"
    )
    return None


def _resolve_bulkhead(check: Checker, value: Any) -> Bulkhead | AdaptiveLimit | None:
    if value is None or isinstance(value, Bulkhead | AdaptiveLimit):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Bulkhead(check.count("bulkhead", value, maximum=1_000_000))
    check.problem("bulkhead", value, "a number of calls, a Bulkhead or an AdaptiveLimit")
    return None


def _resolve_timeout(check: Checker, value: Any) -> Timeout | None:
    if value is None or isinstance(value, Timeout):
        return value
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        return Timeout(check.seconds("timeout", value, maximum=86_400.0))
    check.problem("timeout", value, "seconds, a timedelta or a Timeout")
    return None


_RESOLVE: dict[str, Callable[[Checker, Any], Any]] = {
    "slo": _resolve_slo,
    "classify": _resolve_classify,
    "idempotent": _resolve_idempotent,
    "budget_aware": _resolve_budget_aware,
    "fallback": _resolve_fallback,
    "single_flight": _resolve_single_flight,
    "hedge": _resolve_hedge,
    "retry": _resolve_retry,
    "throttle": _resolve_throttle,
    "breaker": _resolve_breaker,
    "rate_limit": _resolve_rate_limit,
    "bulkhead": _resolve_bulkhead,
    "timeout": _resolve_timeout,
}


def check_known(check: Checker, options: Mapping[str, Any]) -> None:
    """Note every option that does not exist."""
    for name in options:
        if name not in _RESOLVE:
            check.problem(name, options[name], f"one of {', '.join(_RESOLVE)}", did_you_mean(name, _RESOLVE))
