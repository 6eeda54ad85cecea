"""Budgets and burn rates: exact where they are compared, None where nothing is known."""

from __future__ import annotations

import decimal
import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from somaresil.errors import ConfigurationError
from somaresil.model import slo
from somaresil.model.proportion import wilson
from somaresil.model.slo import DAY, FAST_BURN, GRADUAL_BURN, HOUR, BurnPolicy, Window, alerts

counts = st.integers(0, 10**12)
targets = st.one_of(
    st.sampled_from([50, 90, 95.0, 99, 99.5, 99.9, 99.95, 99.99, 99.999]),
    st.decimals("0.001", "99.999", places=3),
)
periods = st.one_of(st.sampled_from([DAY, 7 * DAY, 28 * DAY, 30 * DAY, 90 * DAY]), st.floats(60.0, 1e8))


def constant(good, bad):
    """The same counts in every window."""
    return lambda seconds: (good, bad)


def exact_ratio_limit(window, period, target):
    """The error ratio above which a reachable condition fires, as a fraction."""
    budget = 1 - Fraction(str(target)) / 100
    return min(Fraction(str(window.budget_share)) * Fraction(str(period)) / Fraction(str(window.long)) * budget, Fraction(99, 100))


# --- objective and budget


@pytest.mark.parametrize(
    ("target", "objective", "budget"),
    [
        (99.9, "0.999", "0.001"),
        (95.0, "0.95", "0.05"),
        (99, "0.99", "0.01"),
        (99.99, "0.9999", "0.0001"),
        (Decimal("99.5"), "0.995", "0.005"),
    ],
)
def test_objective_and_budget_are_exact(target, objective, budget):
    """99.9 % leaves exactly 0.001, not the binary number beside it."""
    assert slo.objective_ratio(target) == Decimal(objective)
    assert slo.budget_ratio(target) == Decimal(budget)


@given(targets)
def test_objective_and_budget_add_up_to_one(target):
    """Nothing is lost between them."""
    assert slo.objective_ratio(target) + slo.budget_ratio(target) == 1


@pytest.mark.parametrize("target", [0, 100, 100.0, -1, 101, math.nan, math.inf, Decimal("nan")])
def test_a_target_without_budget_or_objective_is_refused(target):
    """0 % and 100 %, and what is no number, have no budget to burn."""
    with pytest.raises(ValueError, match="target percentage"):
        slo.objective_ratio(target)


def test_the_decimal_context_of_the_service_plays_no_part():
    """A process that rounds to three digits, or traps inexact results, gets the same budgets and alerts."""
    expected = alerts(FAST_BURN, 7 * DAY, 99.95, constant(99_999, 170))
    with decimal.localcontext(decimal.Context(prec=3, traps=[decimal.Inexact])):
        assert alerts(FAST_BURN, 7 * DAY, 99.95, constant(99_999, 170)) == expected
        assert slo.budget_ratio(99.999) == Decimal("0.00001")
        assert slo.allowed_bad(123_456_789, 99.9) == Decimal("123456.789")


# --- ratios and burn


def test_no_events_are_no_data():
    """Neither ratio, nor burn, nor consumption is known without events."""
    assert slo.error_ratio(0, 0) is None
    assert slo.burn_rate(0, 0, 99.9) is None
    assert slo.budget_consumed(0, 0, 99.9) is None


@given(counts, counts)
def test_the_error_ratio_is_the_share_of_bad_events(good, bad):
    """It lies in [0, 1] and equals the exact fraction, rounded once."""
    assume(good + bad)
    assert slo.error_ratio(good, bad) == float(Fraction(bad, good + bad))


@given(counts, counts, targets)
def test_the_burn_rate_is_error_ratio_over_budget(good, bad, target):
    """The float shown is the exact quotient, rounded once."""
    assume(good + bad)
    exact = Fraction(bad, good + bad) / (1 - Fraction(str(target)) / 100)
    assert slo.burn_rate(good, bad, target) == float(exact)


def test_a_burn_of_one_spends_the_budget_exactly():
    """One bad event in a thousand is what 99.9 % allows; Prometheus' floats would say 0.99999."""
    assert slo.burn_rate(999, 1, 99.9) == 1.0
    assert slo.burn_rate(0, 10, 99.9) == 1000.0
    assert slo.burn_rate(10, 0, 99.9) == 0.0


@given(counts, counts, targets)
def test_what_is_consumed_is_the_burn_over_the_period_and_the_bad_among_the_allowed(good, bad, target):
    """Three ways to the same number agree."""
    assume(good + bad)
    consumed = slo.budget_consumed(good, bad, target)
    assert consumed == slo.burn_rate(good, bad, target)
    assert consumed == float(Fraction(bad) / Fraction(slo.allowed_bad(good + bad, target)))


def test_half_an_event_of_budget_is_kept():
    """The allowed number is not rounded: 500 events at 99.9 % allow half a bad one."""
    assert slo.allowed_bad(500, 99.9) == Decimal("0.5")
    assert slo.allowed_bad(0, 99.9) == 0


@pytest.mark.parametrize(
    ("remaining", "burn", "seconds"),
    [
        (1.0, 1.0, 30 * DAY),
        (1.0, 2.0, 15 * DAY),
        (1.0, 10.0, 3 * DAY),
        (0.5, 1.0, 15 * DAY),
        (1.0, 0.0, None),
        (0.0, 5.0, 0.0),
        (-0.2, 0.0, 0.0),
        (0.0, 0.0, 0.0),
    ],
)
def test_time_to_exhaustion(remaining, burn, seconds):
    """The period divided by the burn, for the part that is left; never without burn, at once when nothing is left."""
    assert slo.time_to_exhaustion(remaining, burn, 30 * DAY) == seconds


@given(st.floats(0.01, 1.0), st.floats(0.01, 1e4), periods)
def test_burning_until_exhaustion_consumes_the_remaining_share(remaining, burn, period):
    """burn * time / period gives the share back."""
    seconds = slo.time_to_exhaustion(remaining, burn, period)
    assert burn * seconds / period == pytest.approx(remaining)


# --- thresholds


@pytest.mark.parametrize(
    ("period", "factors"),
    [
        (30 * DAY, ["14.4", "6", "3", "1"]),
        (28 * DAY, ["13.44", "5.6", "2.8"]),
        (90 * DAY, ["43.2", "18", "9", "3"]),
        (7 * DAY, ["3.36", "1.4", "0.7"]),
    ],
)
def test_factors_are_derived_exactly_for_any_period(period, factors):
    """The shares 2, 5, 10 and 10 % give the Workbook's 14.4, 6, 3 and 1 at 30 days, and follow the period elsewhere."""
    windows = FAST_BURN.windows + GRADUAL_BURN.windows
    derived = [slo.burn_threshold(window.budget_share, period, window.long) for window in windows]
    assert derived[: len(factors)] == [Decimal(factor) for factor in factors]


def test_a_catalogue_of_shares_for_seven_days_gives_its_factors():
    """8, 12.5, 20 and 42 % are 13.44, 3.5, 1.4 and 0.98 times a week's sustainable burn."""
    shares = [(0.08, HOUR), (0.125, 6 * HOUR), (0.2, DAY), (0.42, 3 * DAY)]
    factors = [slo.burn_threshold(share, 7 * DAY, window) for share, window in shares]
    assert factors == [Decimal("13.44"), Decimal("3.5"), Decimal("1.4"), Decimal("0.98")]


@given(st.decimals("0.01", "1", places=2), st.integers(3600, 10**8), st.integers(60, 3600))
def test_burning_at_the_threshold_for_the_window_spends_the_share(share, period, window):
    """threshold * window / period is the budget share again."""
    threshold = slo.burn_threshold(share, period, window)
    assert float(threshold) * window / period == pytest.approx(float(share))


def test_a_factor_that_needs_more_than_every_event_to_be_bad_is_unreachable():
    """14.4 times a budget of 10 % is 144 % of errors; exactly 100 % cannot be exceeded either."""
    assert slo.reachable(14.4, 99.9)
    assert not slo.reachable(14.4, 90)
    assert not slo.reachable(Decimal(10), 90)
    assert slo.reachable(9.99, 90)


# --- alerts


def test_one_condition_for_each_window_in_order_with_its_evidence():
    """Factor, threshold and burns are there whether the condition fires or not."""
    first, second = alerts(FAST_BURN, 30 * DAY, 99.9, constant(99, 1))
    assert (first.long, first.short, first.severity) == (HOUR, HOUR / 12, "page")
    assert (first.factor, first.threshold, first.reachable) == (Decimal("14.4"), Decimal("14.4"), True)
    assert (first.long_burn, first.short_burn, first.firing) == (10.0, 10.0, False)
    assert (second.factor, second.firing) == (6, True)


def test_a_burn_equal_to_the_threshold_does_not_fire_and_one_event_more_does():
    """The comparison is strict and exact: the float 14.4 is above the decimal 14.4, the burn is not."""
    at = alerts(FAST_BURN, 30 * DAY, 99.9, constant(985_600, 14_400))[0]
    assert (at.long_burn, at.firing) == (14.4, False)
    assert Decimal(at.long_burn) > at.threshold
    assert alerts(FAST_BURN, 30 * DAY, 99.9, constant(985_599, 14_401))[0].firing is True


def test_a_threshold_that_no_decimal_can_hold_is_compared_exactly():
    """10 % of a week in three days is 0.7 / 3: 700 bad in three million is equal to it at 99.9 %, not above."""
    assert alerts(GRADUAL_BURN, 7 * DAY, 99.9, constant(3_000_000 - 700, 700))[1].firing is False
    assert alerts(GRADUAL_BURN, 7 * DAY, 99.9, constant(3_000_000 - 701, 701))[1].firing is True


@given(counts, counts, targets, periods)
def test_a_condition_fires_exactly_above_its_limit(good, bad, target, period):
    """Every condition agrees with exact fractions, capped ones included."""
    assume(good + bad)
    for policy in (FAST_BURN, GRADUAL_BURN):
        for window, condition in zip(policy.windows, alerts(policy, period, target, constant(good, bad)), strict=True):
            assert condition.firing is (Fraction(bad, good + bad) > exact_ratio_limit(window, period, target))


@given(targets, periods, st.integers(1, 10**9))
def test_a_full_outage_fires_every_condition(target, period, bad):
    """However generous the objective, and whether or not the factor can be reached."""
    for policy in (FAST_BURN, GRADUAL_BURN):
        conditions = alerts(policy, period, target, constant(0, bad))
        assert all(condition.firing for condition in conditions)
        assert all(condition.threshold <= condition.factor for condition in conditions)


@given(targets, periods, st.integers(1, 10**9))
def test_no_errors_fire_nothing(target, period, good):
    """Good events alone are known to be fine."""
    assert [condition.firing for condition in alerts(GRADUAL_BURN, period, target, constant(good, 0))] == [False, False]


def test_an_unreachable_condition_is_marked_and_capped_at_99_percent_of_errors():
    """At 90 % the factor 14.4 would need 144 % of errors: 99 % is not enough, more is."""
    condition = alerts(FAST_BURN, 30 * DAY, 90, constant(1, 99))[0]
    assert (condition.reachable, condition.factor, condition.threshold) == (False, Decimal("14.4"), Decimal("9.9"))
    assert condition.firing is False
    assert alerts(FAST_BURN, 30 * DAY, 90, constant(1, 100))[0].firing is True


HIGH, LOW, EMPTY = (0, 10), (10, 0), (0, 0)


@pytest.mark.parametrize(
    ("long", "short", "firing"),
    [
        (HIGH, HIGH, True),
        (HIGH, LOW, False),
        (LOW, HIGH, False),
        (HIGH, None, None),
        (None, HIGH, None),
        (HIGH, EMPTY, None),
        (None, None, None),
        (LOW, None, False),
        (None, LOW, False),
    ],
)
def test_both_windows_must_burn_and_missing_data_is_unknown(long, short, firing):
    """One calm window settles it; otherwise a missing one leaves the question open."""
    window = Window(long=HOUR, short=60.0, budget_share=0.02, severity="page")
    (condition,) = alerts(BurnPolicy("own", (window,)), 30 * DAY, 99.9, {HOUR: long, 60.0: short}.get)
    assert condition.firing is firing


def test_burns_without_data_are_none():
    """Unknown counts and no events both show no burn."""
    (first, _) = alerts(FAST_BURN, 30 * DAY, 99.9, {HOUR: (0, 0)}.get)
    assert (first.long_burn, first.short_burn) == (None, None)


# --- policies


def test_policies_are_found_by_the_names_they_carry():
    """Names in an SLO and policies agree, and nobody can add to them in passing."""
    assert dict(slo.POLICIES) == {"fast_burn": FAST_BURN, "gradual_burn": GRADUAL_BURN}
    with pytest.raises(TypeError):
        slo.POLICIES["own"] = FAST_BURN


def test_all_problems_of_a_window_are_reported_at_once():
    """Long, short, share and severity each have their own line."""
    with pytest.raises(ConfigurationError) as caught:
        Window(long=-1, short="5m", budget_share=2, severity="call")
    assert [problem.path for problem in caught.value.problems] == [
        "Window.long",
        "Window.short",
        "Window.budget_share",
        "Window.severity",
    ]


@pytest.mark.parametrize("wrong", [0, -1.0, math.nan, math.inf, True, None, Decimal("nan")])
def test_durations_and_shares_of_a_window_are_positive_numbers(wrong):
    """Zero, negative, non-finite and non-numbers are refused in each place, alone."""
    right = {"long": HOUR, "short": 60.0, "budget_share": 0.02, "severity": "page"}
    for name in ("long", "short", "budget_share"):
        with pytest.raises(ConfigurationError) as caught:
            Window(**{**right, name: wrong})
        assert [problem.path for problem in caught.value.problems] == [f"Window.{name}"]


def test_the_short_window_is_shorter_than_the_long_one():
    """Equal windows would make the second a repetition of the first."""
    with pytest.raises(ConfigurationError) as caught:
        Window(long=HOUR, short=HOUR, budget_share=0.02, severity="page")
    assert [problem.path for problem in caught.value.problems] == ["Window.short"]


def test_a_policy_needs_a_window():
    """Without conditions nothing could ever fire, which would look like health."""
    with pytest.raises(ConfigurationError) as caught:
        BurnPolicy("empty", ())
    assert [problem.path for problem in caught.value.problems] == ["BurnPolicy.windows"]


GUARDED = BurnPolicy("guarded", (Window(long=HOUR, short=60.0, budget_share=0.02, severity="page"),), minimum_bad=5, confidence=0.95)


@pytest.mark.parametrize(
    ("long", "firing"), [((100, 4), False), ((100, 5), True), ((300, 5), False), ((0, 4), False), ((0, 5), True), ((0, 0), None)]
)
def test_guards_of_a_policy_want_bad_events_and_certainty(long, firing):
    """Five bad events at the least, and Wilson's lower end above 1.44 %: 5 of 105 are, 5 of 305 (1.64 %) are not."""
    (condition,) = alerts(GUARDED, 30 * DAY, 99.9, {HOUR: long, 60.0: (0, 1)}.get)
    assert condition.firing is firing
    assert condition.known


@given(st.integers(0, 5_000), st.integers(0, 500), st.sampled_from([0.5, 0.8, 0.95, 0.99]))
def test_certainty_is_the_lower_end_of_wilsons_interval(good, bad, confidence):
    """The comparison that needs no root says what the interval says."""
    policy = BurnPolicy("sure", GUARDED.windows, confidence=confidence)
    (condition,) = alerts(policy, 30 * DAY, 99.9, lambda window: (good, bad) if window == HOUR else (0, 1))
    interval = wilson(bad, good + bad, confidence)
    if interval is None:
        assert condition.firing is None
    elif abs(interval[0] - 0.0144) > 1e-6:
        assert condition.firing is (interval[0] > 0.0144)


def test_what_is_not_known_is_told_apart_from_what_is_none():
    """Counts that a store does not have, and counts of nothing, both do not tell whether it fires."""
    (absent,) = alerts(GUARDED, 30 * DAY, 99.9, {HOUR: (0, 9)}.get)
    (none,) = alerts(GUARDED, 30 * DAY, 99.9, {HOUR: (0, 9), 60.0: (0, 0)}.get)
    assert (absent.firing, absent.known) == (None, False)
    assert (none.firing, none.known) == (None, True)


@pytest.mark.parametrize(("name", "wrong"), [("minimum_bad", -1), ("minimum_bad", 1.5), ("confidence", 0.3), ("confidence", 1.0)])
def test_guards_of_a_policy_are_checked(name, wrong):
    """Numbers that would never or always hold are refused."""
    with pytest.raises(ConfigurationError) as caught:
        BurnPolicy("own", GUARDED.windows, **{name: wrong})
    assert [problem.path for problem in caught.value.problems] == [f"BurnPolicy.{name}"]


@pytest.mark.parametrize(("target", "written"), [(99.9, "0.0144"), (99.99, "0.00144"), (95, "0.72"), (90, "0.99")])
def test_limits_are_written_exactly(target, written):
    """14.4 times the budget, without the noise of binary fractions; never more than 99 %."""
    assert str(slo.error_limit(GUARDED.windows[0], 30 * DAY, target).normalize()) == written


@pytest.mark.parametrize(("confidence", "written"), [(None, "0"), (0.95, "3.841459"), (0.99, "6.634897"), (0.5, "0.454936")])
def test_certainty_is_the_square_of_the_quantile_to_six_digits(confidence, written):
    """That is the quantile of chi-square with one degree of freedom, as in the tables."""
    assert str(slo.certainty(confidence)) == written


HALF = Window(long=HOUR, short=60.0, budget_share=1, severity="ticket")
"""Over an hour, and with an objective of 50 %, it asks for more than half of the events to be bad."""


@pytest.mark.parametrize(("long", "firing"), [((4, 12), False), ((3, 13), True), ((0, 4), False), ((0, 5), True)])
def test_a_burn_that_is_just_as_sure_as_asked_does_not_fire(long, firing):
    """At two standard deviations: 12 of 16 are 4 above the half, and 4 is twice the root of 16 quarters."""
    two_deviations = 0.9544997361036416
    assert slo.certainty(two_deviations) == 4
    (condition,) = alerts(BurnPolicy("sure", (HALF,), confidence=two_deviations), HOUR, 50, {HOUR: long, 60.0: (0, 1)}.get)
    assert condition.firing is firing


def test_a_short_window_that_burns_at_the_limit_does_not_fire():
    """It has to be above as well as the long one."""
    for short, firing in (((1, 1), False), ((1, 2), True)):
        (condition,) = alerts(BurnPolicy("own", (HALF,)), HOUR, 50, {HOUR: (0, 1), 60.0: short}.get)
        assert condition.firing is firing


def test_guards_may_be_as_strict_as_their_bounds():
    """A million bad events, and certainty from a half to 0.9999; a step beyond each is refused."""
    for name, allowed, refused in (
        ("minimum_bad", (0, 1_000_000), (1_000_001, True)),
        ("confidence", (0.5, 0.9999, None), (0.49999, 0.99991)),
    ):
        for value in allowed:
            assert getattr(BurnPolicy("own", (HALF,), **{name: value}), name) == value
        for value in refused:
            with pytest.raises(ConfigurationError, match=f"BurnPolicy.{name}"):
                BurnPolicy("own", (HALF,), **{name: value})


def test_all_of_a_budget_is_allowed_and_no_more():
    """For a page and for a ticket."""
    for severity in ("page", "ticket"):
        assert Window(long=HOUR, short=60.0, budget_share=1, severity=severity).severity == severity
        with pytest.raises(ConfigurationError, match="budget_share"):
            Window(long=HOUR, short=60.0, budget_share=1.0001, severity=severity)
