"""What is promised, and what is left of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, Final

from somaresil.config import Checker
from somaresil.model.slo import POLICIES, BurnPolicy
from somaresil.slo import calendar as periods

__all__ = ["LONGEST", "POLICY_NAMES", "SHORTEST", "SLO", "ErrorBudget", "Predicate", "policy_named"]

Predicate = Callable[[Any, BaseException | None, float], bool | None]
"""Whether a call was good, by its result, its error and the seconds that it took; None: it is no event."""

_POLICIES: Final = {"fast_burn_alert": "fast_burn", "gradual_burn": "gradual_burn"}
POLICY_NAMES: Final = tuple(_POLICIES)
"""Policies that an objective may name."""
_MOST_WINDOWS: Final = 12
_BUDGETING: Final = ("occurrences", "timeslices", "ratio_timeslices")
_INJECTED: Final = ("count", "exclude", "separate")
_THRESHOLDS: Final = ("latency", "recovery", "first_item", "idle", "freshness")
_SLOT: Final = 10.0
_HEADER: Final = re.compile(r"header:[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")
SHORTEST: Final = timedelta(minutes=5)
LONGEST: Final = timedelta(days=90)


def policy_named(name: object) -> BurnPolicy | None:
    """The policy that an objective calls so; None: there is none."""
    return POLICIES[_POLICIES[name]] if isinstance(name, str) and name in _POLICIES else None


@dataclass(frozen=True, slots=True)
class SLO:
    """At least ``target_percentage`` of the events in each ``measurement_window`` are good.

    What an event is depends on the indicator, of which an objective has one:

    - by default **availability**: a call is good when it ended well, bad when it failed or was rejected. A rejection is bad because the
      caller got no answer: a circuit that opens must not make the numbers look better;
    - with ``latency`` (seconds): good when it ended well *and* within that time. ``target_percentage=95, latency=2`` says that 95 % of the
      calls are answered in two seconds; it is not "a p95 value";
    - with ``recovery`` (seconds): the events are incidents, good when the breaker was closed again within that time of the first bad
      call. An incident that is open for longer is bad already;
    - with ``first_item`` (seconds): the events are streams of guards and responses of the middleware, good when their first
      item (the first byte of the body) came within that time, however they ended; bad when it came later, or they failed or were rejected
      without it;
    - with ``idle`` (seconds): the events are streams that have begun, good when no gap between two items was longer. One whose reader left
      is an event only when it is bad: it may have left for that. Of responses only those in several pieces are streams;
    - with ``completion=True``: the events are streams that have begun, good when they came to their end, bad when they broke;
    - with ``freshness`` (seconds): the events are checks, one every 10 seconds: good when the last good call, or the last
      :meth:`SLOTracker.refreshed`, was no longer ago than that. What was never refreshed is checked once that time has passed;
    - with ``good_when``: a call that was made is good when ``good_when(result, error, elapsed)`` says so; None: it is no event. The result
      is that of the function (None for streams and blocks), or an :class:`~somaresil.asgi.HttpExchange` at the middleware. One that
      raises is reported once, and the usual judgement is used;
    - with ``parts``: names and weights of other objectives of the same tracker. Its ratio is the mean of theirs by weight; a part without
      events in a window is left out of it.

    Abandoned and ignored calls are not events.

    ``budgeting`` says what counts: ``occurrences`` (events), ``timeslices`` (slices of ``time_slice_window`` seconds, good when at least
    ``time_slice_target`` of their events are) or ``ratio_timeslices`` (the mean of the ratios of the slices). A slice without traffic
    does not count at all.

    ``calendar`` (``day``, ``week``, ``month``, ``quarter``, ``year``) in place of ``measurement_window`` begins anew with each period of
    ``time_zone``. Burn factors are derived from its nominal length.

    ``group_by`` gives each value of a label its own budget, beside that of all: the name of an argument of the guarded function, or
    ``tenant`` (of :func:`~somaresil.priority.priority`); or a function of the arguments. At the middleware it is ``route``, ``method``,
    ``header:<name>``, a path parameter, ``tenant`` or a function of the scope. At most ``max_groups`` values; further ones, and calls that
    have none, are counted together as ``_other``.

    ``injected`` says what becomes of calls that an experiment touched: ``count`` (callers felt them), ``exclude``, or ``separate``: they
    have a budget of their own, ``chaos_budget_percentage`` of all events.

    ``error_budget_policy`` says which burn-rate windows of the SRE workbook (chapter 5) matter: ``fast_burn_alert`` (1 h and 6 h) or
    ``gradual_burn`` (1 d and 3 d); or it is a :class:`~somaresil.model.slo.BurnPolicy` of your own, whose windows are at least 10 seconds
    long and not longer than the period.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    name: str
    target_percentage: float
    measurement_window: timedelta | None = None
    error_budget_policy: str | BurnPolicy = "fast_burn_alert"
    _: KW_ONLY
    latency: float | timedelta | None = None
    recovery: float | timedelta | None = None
    first_item: float | timedelta | None = None
    idle: float | timedelta | None = None
    completion: bool = False
    freshness: float | timedelta | None = None
    good_when: Predicate | None = None
    parts: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    budgeting: str = "occurrences"
    time_slice_window: float | timedelta | None = None
    time_slice_target: float | None = None
    calendar: str | None = None
    time_zone: str = "UTC"
    group_by: str | Callable[..., object] | None = None
    max_groups: int = 20
    injected: str = "count"
    chaos_budget_percentage: float | None = None
    description: str = ""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker(f"SLO({self.name!r})")
        check.name("name", self.name)
        check.number("target_percentage", self.target_percentage, minimum=0.0, maximum=100.0, exclusive=True)
        self._check_window(check)
        self._check_policy(check)
        self._check_indicator(check)
        self._check_slices(check)
        self._check_groups(check)
        self._check_injected(check)
        check.type("description", self.description, str, "a text")
        check.finish()

    def _check_window(self, check: Checker) -> None:
        window = self.measurement_window
        if self.calendar is None:
            if not isinstance(window, timedelta) or not SHORTEST <= window <= LONGEST:
                check.problem("measurement_window", window, "a timedelta from 5 minutes to 90 days")
        else:
            check.one_of("calendar", self.calendar, tuple(periods.NOMINAL))
            if window is not None:
                check.problem("measurement_window", window, "None with calendar", "a window either rolls or begins anew")
        try:
            periods.zone(str(self.time_zone))
        except (KeyError, ValueError, OSError):
            check.problem("time_zone", self.time_zone, "the name of an IANA time zone that is known here, such as 'Europe/Berlin'")
        else:
            if self.calendar is None and self.time_zone != "UTC":
                check.problem("time_zone", self.time_zone, "'UTC' without calendar", "a rolling window knows no midnight")

    def _check_policy(self, check: Checker) -> None:
        policy = self.error_budget_policy
        if not isinstance(policy, BurnPolicy):
            check.one_of("error_budget_policy", policy, tuple(_POLICIES))
            return
        check.name("error_budget_policy.name", policy.name)
        if len(policy.windows) > _MOST_WINDOWS:
            check.problem("error_budget_policy.windows", f"{len(policy.windows)} of them", f"at most {_MOST_WINDOWS}")
        rolls = self.calendar is None and isinstance(self.measurement_window, timedelta)
        longest = self.period if rolls or (isinstance(self.calendar, str) and self.calendar in periods.NOMINAL) else None
        for number, window in enumerate(policy.windows):
            path = f"error_budget_policy.windows[{number}]"
            check.seconds(f"{path}.short", window.short, minimum=_SLOT, exclusive=False)
            check.seconds(f"{path}.long", window.long, maximum=longest)

    def _check_indicator(self, check: Checker) -> None:
        for name in _THRESHOLDS:
            least = _SLOT if name == "freshness" else 0.0
            value = check.seconds(
                name, getattr(self, name), optional=True, minimum=least, exclusive=not least, maximum=LONGEST.total_seconds()
            )
            object.__setattr__(self, name, value)
        check.type("completion", self.completion, bool, "True or False")
        if self.good_when is not None and not callable(self.good_when):
            check.problem("good_when", self.good_when, "a function of (result, error, elapsed) that returns True, False or None")
        self._check_parts(check)
        first, *more = [name for name in (*_THRESHOLDS, "completion", "good_when", "parts") if getattr(self, name)] or ["availability"]
        for name in more:
            check.problem(name, getattr(self, name), f"nothing when {first} is given", "an objective has one indicator; make two of them")

    def _check_parts(self, check: Checker) -> None:
        parts = self.parts
        pairs = tuple(parts.items()) if isinstance(parts, Mapping) else parts
        if not isinstance(pairs, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):  # noqa: PLR2004 - pairs
            check.problem("parts", parts, "names of objectives and their weights")
            pairs = ()
        for name, weight in pairs:
            if not isinstance(name, str):
                check.problem("parts", name, "the name of an objective")
            check.number(f"parts.{name}", weight, minimum=0.0, maximum=1e6, exclusive=True)
        object.__setattr__(self, "parts", pairs)

    def _check_slices(self, check: Checker) -> None:
        way = check.one_of("budgeting", self.budgeting, _BUDGETING)
        window = check.seconds("time_slice_window", self.time_slice_window, optional=True)
        object.__setattr__(self, "time_slice_window", window)
        needed = "needed" if way != "occurrences" else "None with occurrences"
        if (window is None) is (way != "occurrences"):
            check.problem("time_slice_window", window, needed)
        elif window is not None and (window % _SLOT or SHORTEST.total_seconds() % window):
            allowed = "10, 20, 30, 50, 60, 100, 150 or 300 seconds"
            check.problem("time_slice_window", window, allowed, "slices end where the slots of 10 seconds and 5 minutes do")
        if (self.time_slice_target is None) is (way == "timeslices"):
            wanted = "a ratio in (0, 1]" if way == "timeslices" else "None unless budgeting is 'timeslices'"
            check.problem("time_slice_target", self.time_slice_target, wanted)
        elif self.time_slice_target is not None:
            check.ratio("time_slice_target", self.time_slice_target, allow_zero=False)
        if way != "occurrences" and self.indicator in {"recovery", "freshness", "composite"}:
            check.problem("budgeting", way, "'occurrences'", f"{self.indicator} is not about traffic")

    def _check_groups(self, check: Checker) -> None:
        group_by = self.group_by
        named = isinstance(group_by, str) and (group_by.isidentifier() or _HEADER.fullmatch(group_by) is not None)
        if group_by is not None and not callable(group_by) and not named:
            check.problem("group_by", group_by, "the name of an argument, 'tenant', 'header:<name>', or a function that returns a label")
        check.count("max_groups", self.max_groups, maximum=1_000)
        if group_by is not None and self.indicator in {"recovery", "freshness", "composite"}:
            check.problem("group_by", group_by, f"None with {self.indicator}", "its events are no calls")

    def _check_injected(self, check: Checker) -> None:
        check.one_of("injected", self.injected, _INJECTED)
        share = self.chaos_budget_percentage
        if (share is None) is (self.injected == "separate"):
            wanted = "above 0 and below 100" if share is None else "None unless injected is 'separate'"
            check.problem("chaos_budget_percentage", share, wanted)
        elif share is not None:
            check.number("chaos_budget_percentage", share, minimum=0.0, maximum=100.0, exclusive=True)
        apart = self.injected in _INJECTED and self.injected != "count"
        if self.indicator in {"freshness", "composite"} and apart:
            check.problem("injected", self.injected, f"'count' with {self.indicator}", "nothing of it can be told apart")
        elif self.indicator == "recovery" and self.injected == "separate":
            check.problem("injected", self.injected, "'count' | 'exclude' with recovery", "an incident is no share of the traffic")
        elif self.budgeting != "occurrences" and self.injected == "separate":
            check.problem("injected", self.injected, "'count' | 'exclude' with slices", "a slice is not struck as a whole")

    @property
    def period(self) -> float:
        """The measurement window in seconds; of a calendar period its nominal length: a month has 30 days."""
        if self.calendar is not None:
            return periods.NOMINAL[self.calendar]
        return self.measurement_window.total_seconds()  # type: ignore[union-attr]

    def bounds(self, now: float) -> tuple[float, float]:
        """When the window that ``now`` lies in begins and ends, in seconds since the epoch; one that rolls ends now."""
        return (now - self.period, now) if self.calendar is None else periods.bounds(self.calendar, self.time_zone, now)

    @property
    def weights(self) -> dict[str, float]:
        """The parts of a composite and how much each of them weighs; empty for others."""
        return dict(self.parts)

    @property
    def indicator(self) -> str:
        """What it is about: ``availability``, ``latency``, ``recovery``, ``first_item``, ``idle``, ``freshness`` and so on."""
        if self.parts:
            return "composite"
        named = (*_THRESHOLDS, "good_when")
        return next((name for name in named if getattr(self, name) is not None), "completion" if self.completion else "availability")

    @property
    def counts_injected(self) -> bool:
        """Whether calls that an experiment touched are events of the budget."""
        return self.injected == "count"

    @property
    def about_streams(self) -> bool:
        """Whether only streams and responses are its events."""
        return self.indicator in {"first_item", "idle", "completion"}

    @property
    def about_calls(self) -> bool:
        """Whether guards and the middleware may name it; a composite stands for its parts."""
        return self.indicator != "recovery"

    @property
    def read_from_cells(self) -> bool:
        """Whether what a recorder counts anyway is all it needs. Others are told of each call."""
        return self.indicator in {"availability", "latency"}

    @property
    def burn_policy(self) -> BurnPolicy:
        """The burn-rate windows that matter."""
        policy = self.error_budget_policy
        return policy if isinstance(policy, BurnPolicy) else POLICIES[_POLICIES[policy]]


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
    """Share of the window for which there has been somebody to see anything; of a calendar period the part that is to come is not seen."""
    source: str = "process"
    """Which store the figures come from."""
    age: float | None = None
    """Seconds since the newest data of that store; None: it has none."""
    problem: str | None = None
    """Why nothing is known; None: it is known."""
    begins_at: float = 0.0
    """Wall time of the beginning of the window, in seconds since the epoch."""
    idle_slices: int = 0
    """Slices of time without traffic, which count neither as good nor as bad; 0 when occurrences are counted."""
    group: str | None = None
    """Whose budget it is; None: that of all."""
    injected_good: int | None = None
    """Good events that experiments touched, whether they count for the budget or not; None: they are not told apart here."""
    injected_bad: int | None = None
    """Bad ones."""
    counts_injected: bool = True
    """Whether those are among ``good`` and ``bad``."""
    chaos_budget: float | None = None
    """Share of all events that experiments may spoil; None: they have no budget of their own."""

    @property
    def remaining_share(self) -> float | None:
        """What is left as a share of the budget: 1 untouched, 0 used up, negative overspent."""
        return None if self.remaining is None else self.remaining / self.total_budget

    @property
    def remaining_share_without_injected(self) -> float | None:
        """What would be left if no experiment had been made: of the other events alone. None: not known."""
        return self._left(-1 if self.counts_injected else 0)

    @property
    def remaining_share_with_injected(self) -> float | None:
        """What is left as callers felt it, experiments included. None: not known."""
        return self._left(0 if self.counts_injected else 1)

    @property
    def chaos_remaining_share(self) -> float | None:
        """What is left of the budget for experiments, as a share of it; None: there is none, or no event."""
        if self.chaos_budget is None or self.injected_good is None or self.injected_bad is None:
            return None
        events = self.good + self.bad + (0 if self.counts_injected else self.injected_good + self.injected_bad)
        return 1.0 - self.injected_bad / events / self.chaos_budget if events else None

    def _left(self, sign: int) -> float | None:
        """What is left with the injected events added (1), taken away (-1) or as it is (0)."""
        if self.injected_good is None or self.injected_bad is None:
            return None
        bad = self.bad + sign * self.injected_bad
        events = self.good + sign * self.injected_good + bad
        return 1.0 - bad / events / self.total_budget if events > 0 else None
