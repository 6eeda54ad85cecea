"""somaresil: chaos, circuit breaking and SLOs embedded in each service, by one decorator and one ASGI middleware.

Names are loaded when they are first used, so importing the package costs next to nothing and pulls no other one.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

from somaresil._version import __version__

if TYPE_CHECKING:
    from somaresil.asgi import ResilienceMiddleware
    from somaresil.budget import RetryBudget
    from somaresil.canary import CanaryConfig, CanaryController, CanaryPhase
    from somaresil.chaos import ChaosCeilings, ChaosConfig, ChaosEngine, ChaosExperiment, ChaosPlan, FaultWindow
    from somaresil.classify import Classify
    from somaresil.clock import ManualClock, SystemClock
    from somaresil.errors import (
        BulkheadFull,
        CallTimedOut,
        CircuitOpen,
        ConfigurationError,
        DeadlineExceeded,
        InjectedAnswer,
        InjectedFault,
        LoadShed,
        NoEndpoint,
        PipelineWarning,
        Problem,
        RateLimited,
        Rejected,
        SomaresilError,
        ViolationBlocked,
    )
    from somaresil.guard import Guard
    from somaresil.limiter import RateLimiter, current_permit
    from somaresil.outcome import Fatal, Outcome
    from somaresil.policy.adaptive import AdaptiveLimit
    from somaresil.policy.breaker import CircuitBreaker
    from somaresil.policy.bulkhead import Bulkhead
    from somaresil.policy.fallback import Fallback
    from somaresil.policy.hedge import Hedge
    from somaresil.policy.ratelimit import RateLimit, RateWindow, SharedRateLimit
    from somaresil.policy.retry import Retry, StreamProgress
    from somaresil.policy.singleflight import SingleFlight
    from somaresil.policy.stale import StaleCache
    from somaresil.policy.throttle import Throttle
    from somaresil.policy.timeout import Timeout
    from somaresil.pool import Endpoint, OutlierEjection, Pool
    from somaresil.resilience import Resilience
    from somaresil.slo import SLO, Decision, DeploymentPolicy, ErrorBudget, SLOTracker, Verdict

__all__ = [
    "SLO",
    "AdaptiveLimit",
    "Bulkhead",
    "BulkheadFull",
    "CallTimedOut",
    "CanaryConfig",
    "CanaryController",
    "CanaryPhase",
    "ChaosCeilings",
    "ChaosConfig",
    "ChaosEngine",
    "ChaosExperiment",
    "ChaosPlan",
    "CircuitBreaker",
    "CircuitOpen",
    "Classify",
    "ConfigurationError",
    "DeadlineExceeded",
    "Decision",
    "DeploymentPolicy",
    "Endpoint",
    "ErrorBudget",
    "Fallback",
    "Fatal",
    "FaultWindow",
    "Guard",
    "Hedge",
    "InjectedAnswer",
    "InjectedFault",
    "LoadShed",
    "ManualClock",
    "NoEndpoint",
    "Outcome",
    "OutlierEjection",
    "PipelineWarning",
    "Pool",
    "Problem",
    "RateLimit",
    "RateLimited",
    "RateLimiter",
    "RateWindow",
    "Rejected",
    "Resilience",
    "ResilienceMiddleware",
    "Retry",
    "RetryBudget",
    "SLOTracker",
    "SharedRateLimit",
    "SingleFlight",
    "SomaresilError",
    "StaleCache",
    "StreamProgress",
    "SystemClock",
    "Throttle",
    "Timeout",
    "Verdict",
    "ViolationBlocked",
    "__version__",
    "current_permit",
]

_HOMES = {
    "asgi": ("ResilienceMiddleware",),
    "budget": ("RetryBudget",),
    "canary": ("CanaryConfig", "CanaryController", "CanaryPhase"),
    "chaos": ("ChaosCeilings", "ChaosConfig", "ChaosEngine", "ChaosExperiment", "ChaosPlan", "FaultWindow"),
    "classify": ("Classify",),
    "clock": ("ManualClock", "SystemClock"),
    "errors": (
        "BulkheadFull",
        "CallTimedOut",
        "CircuitOpen",
        "ConfigurationError",
        "DeadlineExceeded",
        "InjectedAnswer",
        "InjectedFault",
        "LoadShed",
        "NoEndpoint",
        "PipelineWarning",
        "Problem",
        "RateLimited",
        "Rejected",
        "SomaresilError",
        "ViolationBlocked",
    ),
    "guard": ("Guard",),
    "limiter": ("RateLimiter", "current_permit"),
    "outcome": ("Fatal", "Outcome"),
    "policy.adaptive": ("AdaptiveLimit",),
    "pool": ("Endpoint", "OutlierEjection", "Pool"),
    "policy.breaker": ("CircuitBreaker",),
    "policy.bulkhead": ("Bulkhead",),
    "policy.fallback": ("Fallback",),
    "policy.hedge": ("Hedge",),
    "policy.ratelimit": ("RateLimit", "RateWindow", "SharedRateLimit"),
    "policy.retry": ("Retry", "StreamProgress"),
    "policy.singleflight": ("SingleFlight",),
    "policy.stale": ("StaleCache",),
    "policy.throttle": ("Throttle",),
    "policy.timeout": ("Timeout",),
    "resilience": ("Resilience",),
    "slo": ("SLO", "Decision", "DeploymentPolicy", "ErrorBudget", "SLOTracker", "Verdict"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
_FOR_CHAOS_TOOLKIT = "discover"
"""``chaos discover`` looks for a function of this name in the package of a distribution, and nowhere else."""
_HOME_OF[_FOR_CHAOS_TOOLKIT] = "integrations.chaostoolkit"


def __getattr__(name: str) -> object:
    """Load a public name from its module, once."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'somaresil' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"somaresil.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, _FOR_CHAOS_TOOLKIT] if "chaoslib" in sys.modules else __all__)
