"""The arithmetic of service level objectives: budgets, burn rates and multi-window alerts, from counts alone.

Definitions, with ``good`` and ``bad`` as numbers of events in a window:

- error ratio = bad / (good + bad);  budget ratio = 1 - objective;  burn rate = error ratio / budget ratio
- allowed bad events = budget ratio * events in the period;  consumed share = bad / allowed = burn rate over the whole period
- the burn rate that uses the share X of a period's budget within a window = X * period / window

They follow chapter 5, "Alerting on SLOs", of The Site Reliability Workbook (Beyer, Murphy, Rensin, Kawahara, Thorne; O'Reilly, 2018).

Promises:

- No data is None: neither 100 % good, nor 0 burn, nor NaN.
- What is *compared* is exact. A target of 99.9 % has the budget ``Decimal("0.001")``, not 0.0009999999999999432, and an error ratio of
  1.44 % against it is a burn of 14.4, which is not above the threshold 14.4. The caller's decimal context plays no part.
- What is *shown* (burn rates, shares) is a float.
- Where there is little traffic one bad event is a high ratio. A policy may ask for a number of bad events, and for certainty: see
  ``BurnPolicy``.

A target is a percentage, ``0 < target < 100``: at 100 % there is no budget to speak of, and the first error would burn infinitely fast.
Durations are seconds. Counts are never negative.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from somaresil.errors import ConfigurationError, Problem
from somaresil.model.proportion import normal_quantile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "DAY",
    "FAST_BURN",
    "GRADUAL_BURN",
    "HIGHEST_ERROR_RATIO",
    "HOUR",
    "MINUTE",
    "POLICIES",
    "BurnPolicy",
    "Condition",
    "Counts",
    "Number",
    "Severity",
    "Window",
    "alerts",
    "allowed_bad",
    "budget_consumed",
    "budget_ratio",
    "burn_rate",
    "burn_threshold",
    "certainty",
    "error_limit",
    "error_ratio",
    "objective_ratio",
    "reachable",
    "time_to_exhaustion",
]

Number: TypeAlias = int | float | Decimal
"""Floats are taken as they print: 99.9 means the decimal 99.9, not the binary number next to it."""

Counts: TypeAlias = tuple[int, int]
"""(good, bad) events of a window."""

Severity: TypeAlias = Literal["page", "ticket"]
"""Whether someone should look now, or in working hours."""

HIGHEST_ERROR_RATIO: Final = Decimal("0.99")
"""No alert condition asks for more than this share of errors: see ``alerts``."""

_MOST_BAD: Final = 1_000_000
_LEAST_SURE: Final = Decimal("0.5")
_MOST_SURE: Final = Decimal("0.9999")

MINUTE: Final = 60.0
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

# Our own context, because the ambient one belongs to the service: in a process that rounds money to 6 digits a budget must not change.
# 100 digits hold every product that is compared here: four floats of 17 digits and a 64-bit count.
_MATH: Final = Context(prec=100, traps=[DivisionByZero, InvalidOperation, Overflow])
_WRITTEN: Final = Context(prec=28, traps=[DivisionByZero, InvalidOperation, Overflow])


def _decimal(number: Number) -> Decimal:
    return number if isinstance(number, Decimal) else Decimal(str(number))


def _positive(value: object) -> Decimal | None:
    """The value as a decimal when it is a finite number above zero, else None."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    number = _decimal(value)
    return number if number.is_finite() and number > 0 else None


def _unless(holds: bool, path: str, value: object, allowed: str) -> list[Problem]:  # noqa: FBT001 - the condition to check
    return [] if holds else [Problem(path, value, allowed)]


def objective_ratio(target_percentage: Number) -> Decimal:
    """The objective as an exact ratio: 99.9 -> 0.999. ``ValueError`` unless ``0 < target_percentage < 100``."""
    target = _decimal(target_percentage)
    if not (target.is_finite() and 0 < target < 100):  # noqa: PLR2004 - a percentage
        raise ValueError(f"a target percentage lies above 0 and below 100, not at {target_percentage!r}")
    return _MATH.divide(target, Decimal(100))


def budget_ratio(target_percentage: Number) -> Decimal:
    """The share of events that may be bad, exactly: 99.9 -> 0.001."""
    return _MATH.subtract(Decimal(1), objective_ratio(target_percentage))


def error_ratio(good: int, bad: int) -> float | None:
    """The share of bad events, or None without events."""
    total = good + bad
    return bad / total if total else None


def burn_rate(good: int, bad: int, target_percentage: Number) -> float | None:
    """How many times faster than sustainable the budget is used up: 1 spends it exactly over the period. None without events."""
    total = good + bad
    return float(_MATH.divide(Decimal(bad), allowed_bad(total, target_percentage))) if total else None


def budget_consumed(good: int, bad: int, target_percentage: Number) -> float | None:
    """The share of the budget that these events of a whole period used; above 1 the objective is missed. None without events.

    It is the burn rate over the period, by definition.
    """
    return burn_rate(good, bad, target_percentage)


def allowed_bad(total: int, target_percentage: Number) -> Decimal:
    """How many of ``total`` events may be bad; not rounded, for half an event of budget is not none."""
    return _MATH.multiply(budget_ratio(target_percentage), Decimal(total))


def time_to_exhaustion(remaining_share: float, burn: float, period_seconds: float) -> float | None:
    """Seconds until the remaining share of the budget is gone if the burn goes on like this; None for never, 0 if it is gone already."""
    if remaining_share <= 0.0:
        return 0.0
    return remaining_share * period_seconds / burn if burn > 0.0 else None


def burn_threshold(budget_share: Number, period_seconds: Number, long_window_seconds: Number) -> Decimal:
    """The burn rate that spends ``budget_share`` of the period's budget within the window: 2 % of 30 days in 1 hour -> 14.4."""
    spent = _MATH.multiply(_decimal(budget_share), _decimal(period_seconds))
    return _MATH.divide(spent, _decimal(long_window_seconds))


def reachable(factor: Number, target_percentage: Number) -> bool:
    """Whether any traffic can burn faster than ``factor``. 14.4 times a budget of 10 % would need 144 % of errors: it can never alert."""
    return _MATH.multiply(_decimal(factor), budget_ratio(target_percentage)) < 1


@dataclass(frozen=True, slots=True)
class Window:
    """One alert condition: the budget share that, used up within ``long`` seconds, is worth an alert of this severity.

    The ``short`` window, a twelfth of the long one as a rule, ends the alert soon after the trouble has ended.
    """

    long: float
    short: float
    budget_share: Number
    severity: Severity

    def __post_init__(self) -> None:
        long, short, share = _positive(self.long), _positive(self.short), _positive(self.budget_share)
        problems = [
            *_unless(long is not None, "Window.long", self.long, "seconds > 0"),
            *_unless(
                short is not None and (long is None or short < long),
                "Window.short",
                self.short,
                f"seconds > 0 and less than the long window ({self.long!r})",
            ),
            *_unless(share is not None and share <= 1, "Window.budget_share", self.budget_share, "a ratio in (0, 1]"),
            *_unless(self.severity in {"page", "ticket"}, "Window.severity", self.severity, "'page' | 'ticket'"),
        ]
        if problems:
            raise ConfigurationError(problems)


@dataclass(frozen=True, slots=True)
class BurnPolicy:
    """A named set of alert conditions; any of them may fire.

    A policy holds budget shares, not burn factors: the factors are derived for the period of each SLO.

    Two guards for times of little traffic, both about the long window alone, for the short one only ends an alert. With ``minimum_bad``
    fewer bad events than that never fire. With ``confidence`` (0.95, say) the lower end of Wilson's interval for the error ratio must be
    above the limit, and not only the ratio itself: the events must show the burn, and not merely allow for it. Off by default.
    """

    name: str
    windows: tuple[Window, ...]
    minimum_bad: int = 0
    confidence: float | None = None

    def __post_init__(self) -> None:
        # A policy without conditions would look like one that is satisfied.
        least, sure = self.minimum_bad, self.confidence
        problems = [
            *_unless(len(self.windows) > 0, "BurnPolicy.windows", self.windows, "at least one Window"),
            *_unless(
                isinstance(least, int) and not isinstance(least, bool) and 0 <= least <= _MOST_BAD,
                "BurnPolicy.minimum_bad",
                least,
                f"a whole number from 0 to {_MOST_BAD}",
            ),
            *_unless(
                sure is None or ((share := _positive(sure)) is not None and _LEAST_SURE <= share <= _MOST_SURE),
                "BurnPolicy.confidence",
                sure,
                f"a ratio from {_LEAST_SURE} to {_MOST_SURE}, or None",
            ),
        ]
        if problems:
            raise ConfigurationError(problems)


FAST_BURN: Final = BurnPolicy(
    "fast_burn",
    (
        Window(long=1 * HOUR, short=5 * MINUTE, budget_share=Decimal("0.02"), severity="page"),
        Window(long=6 * HOUR, short=30 * MINUTE, budget_share=Decimal("0.05"), severity="page"),
    ),
)
"""Someone should look now. Factors 14.4 and 6 at 30 days."""

GRADUAL_BURN: Final = BurnPolicy(
    "gradual_burn",
    (
        Window(long=1 * DAY, short=2 * HOUR, budget_share=Decimal("0.10"), severity="ticket"),
        Window(long=3 * DAY, short=6 * HOUR, budget_share=Decimal("0.10"), severity="ticket"),
    ),
)
"""Someone should look this week. Factors 3 and 1 at 30 days.

For short periods the derived factors are small: at 7 days they are 0.7 and 0.23 (and 3.36 and 1.4 for the fast pair), so that a gradual
alert fires below a sustainable burn. That is what "10 % of a week's budget in one day" means. Who wants alerts about as rare as at 30 days
gives larger shares; Sloth's example catalogue for 7 days uses 8, 12.5, 20 and 42 % (factors 13.44, 3.5, 1.4 and 0.98).
"""

POLICIES: Final[Mapping[str, BurnPolicy]] = MappingProxyType({policy.name: policy for policy in (FAST_BURN, GRADUAL_BURN)})
"""The policies that an SLO may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What became of one window of a policy, with its evidence.

    ``firing`` is True, False, or None where the data does not tell. ``factor`` is the burn rate that the policy asks for, ``threshold`` the
    one that was compared with (see ``alerts``). The two burns are floats for reading, or None without events.
    """

    long: float
    short: float
    severity: Severity
    factor: Decimal
    threshold: Decimal
    reachable: bool
    long_burn: float | None
    short_burn: float | None
    firing: bool | None
    known: bool = True
    """Whether the counts of both windows are known. They may be, and none at all: then nothing burns, and ``firing`` is None."""
    coverage: float | None = None
    """Share of the long window that was seen; None: nobody has said."""
    source: str = ""
    """Which store the counts come from."""
    age: float | None = None
    """Seconds since the newest data of that store; None: it has none, or nobody has said."""


def alerts(
    policy: BurnPolicy, period_seconds: Number, target_percentage: Number, counts_of: Callable[[float], Counts | None]
) -> tuple[Condition, ...]:
    """Evaluate a policy: one condition for each of its windows, in their order, whether it fires or not.

    ``counts_of(window_seconds)`` gives the (good, bad) events of the last so many seconds, or None when they are not known.

    A condition fires when the burn of its long *and* of its short window is strictly above the threshold. If one of them is not above
    it, the condition does not fire, whatever the other would be; otherwise missing data makes it unknown (None). The guards of the policy
    against little traffic (see ``BurnPolicy``) are about the long window.

    The threshold is the policy's factor, but never more than what 99 % of errors burn (``HIGHEST_ERROR_RATIO``). With a generous
    objective the factor may ask for more than 100 % of errors, so that even a full outage would pass in silence: such a condition is
    marked ``reachable=False``. We cap instead of refusing, since whoever chose the policy wants to hear of an outage; and at 99 % rather
    than 100 %, because a strict comparison with 100 % could not come true either, and an outage during which one health check passes is
    still one.
    """
    budget = budget_ratio(target_percentage)
    ceiling = _MATH.divide(HIGHEST_ERROR_RATIO, budget)

    def evaluate(window: Window) -> Condition:
        factor = burn_threshold(window.budget_share, period_seconds, window.long)
        limit = _error_limit(window, period_seconds, budget)
        sure = certainty(policy.confidence)
        long, short = counts_of(window.long), counts_of(window.short)
        return Condition(
            long=window.long,
            short=window.short,
            severity=window.severity,
            factor=factor,
            threshold=min(factor, ceiling),
            reachable=reachable(factor, target_percentage),
            long_burn=_burn(long, target_percentage),
            short_burn=_burn(short, target_percentage),
            firing=_both(_shown(long, limit, policy.minimum_bad, sure), _exceeds(short, limit)),
            known=long is not None and short is not None,
        )

    return tuple(evaluate(window) for window in policy.windows)


def _burn(counts: Counts | None, target_percentage: Number) -> float | None:
    return None if counts is None else burn_rate(*counts, target_percentage)


def _error_limit(window: Window, period_seconds: Number, budget: Decimal) -> tuple[Decimal, Decimal]:
    """The error ratio above which a condition fires, as numerator and denominator: a quotient (0.7 / 3) might have to be rounded."""
    long = _decimal(window.long)
    spent = _MATH.multiply(_decimal(window.budget_share), _decimal(period_seconds))
    return min(_MATH.multiply(spent, budget), _MATH.multiply(HIGHEST_ERROR_RATIO, long)), long


def _exceeds(counts: Counts | None, limit: tuple[Decimal, Decimal]) -> bool | None:
    """Whether the error ratio is above the limit, multiplied out so that nothing is rounded; None without events."""
    if counts is None or not sum(counts):
        return None
    numerator, denominator = limit
    return _MATH.multiply(Decimal(counts[1]), denominator) > _MATH.multiply(numerator, Decimal(sum(counts)))


def _shown(counts: Counts | None, limit: tuple[Decimal, Decimal], minimum_bad: int, sure: Decimal) -> bool | None:
    """Whether the error ratio is above the limit with enough bad events, and surely so; None without events."""
    found = _exceeds(counts, limit)
    if counts is None or not found:
        return found
    good, bad = counts
    numerator, denominator = limit
    # With limit l = a / b and n events, Wilson's lower end is above l when (bad - l n)^2 > z^2 l (1 - l) n: times b^2 nothing is rounded.
    excess = _MATH.subtract(_MATH.multiply(Decimal(bad), denominator), _MATH.multiply(numerator, Decimal(good + bad)))
    spread = _MATH.multiply(_MATH.multiply(numerator, _MATH.subtract(denominator, numerator)), Decimal(good + bad))
    return bad >= minimum_bad and _MATH.multiply(excess, excess) > _MATH.multiply(sure, spread)


def certainty(confidence: float | None) -> Decimal:
    """The square of the two-sided normal quantile, 3.841459 for 0.95, to six digits as rules write it; 0 for None: none is asked for."""
    return Decimal(0) if confidence is None else _MATH.quantize(Decimal(normal_quantile(float(confidence)) ** 2), Decimal("0.000001"))


def error_limit(window: Window, period_seconds: Number, target_percentage: Number) -> Decimal:
    """The error ratio above which a window of a policy fires, as rules write it: 0.0144 for 2 % of 30 days at 99.9 % within an hour.

    Exact where a decimal of 28 digits can hold it, else rounded to so many.
    """
    numerator, denominator = _error_limit(window, period_seconds, budget_ratio(target_percentage))
    return _WRITTEN.divide(numerator, denominator)


def _both(one: bool | None, other: bool | None) -> bool | None:  # noqa: FBT001 - both are operands
    """Three-valued "and": False if either is False, else None if either is None."""
    if one is False or other is False:
        return False
    return None if one is None or other is None else True
