"""What is promised, and what is left of it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Final

from somaresil.config import Checker
from somaresil.model.slo import POLICIES, BurnPolicy

__all__ = ["LONGEST", "SHORTEST", "SLO", "ErrorBudget"]

_POLICIES: Final = {"fast_burn_alert": "fast_burn", "gradual_burn": "gradual_burn"}
SHORTEST: Final = timedelta(minutes=5)
LONGEST: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class SLO:
    """At least ``target_percentage`` of the events in each ``measurement_window`` are good.

    What an event is depends on the indicator:

    - by default **availability**: a call is good when it ended well, bad when it failed or was rejected. A rejection is bad because the
      caller got no answer: a circuit that opens must not make the numbers look better;
    - with ``latency`` (seconds): good when it ended well *and* within that time. ``target_percentage=95, latency=2`` says that 95 % of the
      calls are answered in two seconds; it is not "a p95 value";
    - with ``recovery`` (seconds): the events are incidents, good when the breaker was closed again within that time of the first bad
      call. An incident that is open for longer is bad already.

    Abandoned and ignored calls are not events. Calls that an experiment touched count, because callers felt them, unless
    ``count_injected=False``.

    ``error_budget_policy`` says which burn-rate windows of the SRE workbook (chapter 5) matter: ``fast_burn_alert`` (1 h and 6 h) or
    ``gradual_burn`` (1 d and 3 d).

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    name: str
    target_percentage: float
    measurement_window: timedelta
    error_budget_policy: str = "fast_burn_alert"
    _: KW_ONLY
    latency: float | timedelta | None = None
    recovery: float | timedelta | None = None
    count_injected: bool = True
    description: str = ""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker(f"SLO({self.name!r})")
        keep = object.__setattr__
        check.name("name", self.name)
        check.number("target_percentage", self.target_percentage, minimum=0.0, maximum=100.0, exclusive=True)
        if not isinstance(self.measurement_window, timedelta) or not SHORTEST <= self.measurement_window <= LONGEST:
            check.problem("measurement_window", self.measurement_window, "a timedelta from 5 minutes to 90 days")
        check.one_of("error_budget_policy", self.error_budget_policy, tuple(_POLICIES))
        keep(self, "latency", check.seconds("latency", self.latency, optional=True))
        keep(self, "recovery", check.seconds("recovery", self.recovery, optional=True))
        if self.latency is not None and self.recovery is not None:
            check.problem("recovery", self.recovery, "None when latency is given", "an objective has one indicator; make two of them")
        check.type("count_injected", self.count_injected, bool, "True or False")
        check.finish()

    @property
    def period(self) -> float:
        """The measurement window in seconds."""
        return self.measurement_window.total_seconds()

    @property
    def indicator(self) -> str:
        """``availability``, ``latency`` or ``recovery``."""
        return "latency" if self.latency is not None else "recovery" if self.recovery is not None else "availability"

    @property
    def burn_policy(self) -> BurnPolicy:
        """The burn-rate windows that matter."""
        return POLICIES[_POLICIES[self.error_budget_policy]]


@dataclass(frozen=True, slots=True)
class ErrorBudget:
    """How much of the budget is used. The first three figures are shares of all events, so ``consumed + remaining == total_budget``.

    ``None`` means that nothing is known: no event was seen. It is never presented as "100 %" or NaN.
    """

    slo_name: str
    total_budget: float
    """Share of events that may be bad: 0.001 for 99.9 %."""
    consumed: float | None
    """Share of events that were bad in the window."""
    remaining: float | None
    """What is left; negative when overspent."""
    burn_rate: float | None
    """Multiple of the sustainable rate at which the budget was used over the last hour. 1 uses it up exactly by the end of the period."""
    good: int = 0
    """Good events in the window."""
    bad: int = 0
    """Bad events in the window."""
    window: float = 0.0
    """Length of the window in seconds."""
    coverage: float = 0.0
    """Share of the window for which there has been somebody to see anything."""
    source: str = "process"
    """Which store the figures come from."""
    age: float | None = None
    """Seconds since the newest data of that store; None: it has none."""
    problem: str | None = None
    """Why nothing is known; None: it is known."""

    @property
    def remaining_share(self) -> float | None:
        """What is left as a share of the budget: 1 untouched, 0 used up, negative overspent."""
        return None if self.remaining is None else self.remaining / self.total_budget
