"""The breaker at a guard: its options, how its windows read the recorder, and what opening and closing tell."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from somaresil import CircuitBreaker, CircuitOpen, ConfigurationError, Outcome
from somaresil.events import BreakerChanged
from somaresil.model.breaker import State, Tally, Thresholds
from tests.behaviour.kit import Boom, Stand, both_paths, one_strike
from tests.unit.policy.kit import wrong

# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """A breaker without options opens at half of 20 calls in 30 seconds, for 30 seconds, and asks 3 probes."""
    assert dataclasses.asdict(CircuitBreaker()) == {
        "failure_rate": 0.5,
        "slow_call_rate": None,
        "slow_call_duration": None,
        "consecutive_failures": None,
        "window": 30.0,
        "window_calls": None,
        "minimum_calls": 20,
        "open_duration": 30.0,
        "open_factor": 2.0,
        "open_maximum": 120.0,
        "open_jitter": 0.1,
        "half_open_calls": 3,
        "half_open_concurrency": None,
        "probe_timeout": 30.0,
        "ramp_up": 0.0,
        "ramp_up_from": 0.1,
        "max_retry_after": 300.0,
        "max_keys": 1_000,
        "shadow": False,
    }


def test_options_are_keyword_only_and_frozen():
    """Nobody passes a rate where a window belongs, nor changes one behind the guard's back."""
    with pytest.raises(TypeError):
        CircuitBreaker(0.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        CircuitBreaker().failure_rate = 0.1


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("failure_rate", [0, -0.1, 1.01, 50, "0.5", True, float("nan")]),
        ("consecutive_failures", [0, -1, 2.0, True, "3"]),
        ("window", [0, -1, 86_400.5, None, "30", float("inf"), timedelta(0)]),
        ("window_calls", [0, 100_001, 1.5, "10"]),
        ("minimum_calls", [0, -1, None, 2.5]),
        ("open_duration", [0, -5, None, "30"]),
        ("open_factor", [0.99, 10.01, None, "2"]),
        ("open_maximum", [0, 29.9, timedelta(seconds=29), "60"]),
        ("open_jitter", [-0.1, 1.1, None]),
        ("half_open_calls", [0, 1_001, None, 1.0]),
        ("half_open_concurrency", [0, 1.0, 4, True]),
        ("probe_timeout", [0, -1, None]),
        ("ramp_up", [-1, None, "10", 86_400.5]),
        ("ramp_up_from", [0, -0.1, 1.5, None]),
        ("max_retry_after", [0, -1, 86_400.5, "60"]),
        ("max_keys", [0, 100_001, None, 2.5]),
        ("shadow", [None, 1, "yes"]),
    ],
)
def test_each_wrong_value_is_named(option, values):
    """An option outside its range is the one problem that is reported."""
    for value in values:
        assert wrong(CircuitBreaker, **{option: value}) == [option], value


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("failure_rate", 1),
        ("failure_rate", 0.000_1),
        ("consecutive_failures", 1),
        ("window", 86_400),
        ("window_calls", 100_000),
        ("minimum_calls", 1),
        ("open_factor", 1),
        ("open_factor", 10),
        ("open_maximum", 30),
        ("open_jitter", 0),
        ("open_jitter", 1),
        ("half_open_calls", 1_000),
        ("half_open_concurrency", 3),
        ("ramp_up", 0),
        ("ramp_up_from", 1),
        ("max_retry_after", None),
        ("max_retry_after", 86_400),
        ("max_keys", 100_000),
        ("shadow", True),
    ],
)
def test_the_ends_of_each_range_are_allowed(option, value):
    """The limits that a message names belong to the range."""
    assert getattr(CircuitBreaker(**{option: value}), option) == value


@pytest.mark.parametrize(
    ("options", "missing"), [({"slow_call_rate": 0.5}, "slow_call_duration"), ({"slow_call_duration": 1.0}, "slow_call_rate")]
)
def test_slow_calls_need_a_rate_and_a_duration(options, missing):
    """One without the other is half an intention: the missing one is named."""
    assert wrong(CircuitBreaker, **options) == [missing]


@pytest.mark.parametrize("rate", [0, -1, 1.5, "0.5"])
def test_a_wrong_slow_call_rate_is_named(rate):
    """It is a share of the calls, above zero."""
    assert wrong(CircuitBreaker, slow_call_rate=rate, slow_call_duration=1.0) == ["slow_call_rate"]


@pytest.mark.parametrize("duration", [0, -1, "1"])
def test_a_wrong_slow_call_duration_is_named(duration):
    """It is seconds, above zero."""
    assert wrong(CircuitBreaker, slow_call_rate=0.5, slow_call_duration=duration) == ["slow_call_duration"]


def test_a_breaker_that_nothing_would_open_is_refused():
    """Without a rate or a row of failures it would be an ornament."""
    assert wrong(CircuitBreaker, failure_rate=None) == ["failure_rate"]
    assert CircuitBreaker(failure_rate=None, consecutive_failures=3).failure_rate is None
    assert CircuitBreaker(failure_rate=None, slow_call_rate=0.5, slow_call_duration=1.0).failure_rate is None


def test_a_breaker_that_could_never_open_is_refused():
    """More calls are wanted than the window can hold; as many as it holds will do."""
    assert wrong(CircuitBreaker, window_calls=19) == ["minimum_calls"]
    assert CircuitBreaker(window_calls=20).window_calls == 20


def test_all_problems_come_at_once():
    """Every option is wrong: one error that lists them all."""
    found = wrong(
        CircuitBreaker,
        failure_rate=2,
        slow_call_rate=2,
        consecutive_failures=0,
        window=0,
        window_calls=0,
        minimum_calls=0,
        open_duration=0,
        open_factor=0,
        open_jitter=2,
        half_open_calls=0,
        probe_timeout=0,
    )
    assert found == [
        "failure_rate",
        "slow_call_rate",
        "slow_call_duration",
        "consecutive_failures",
        "window",
        "window_calls",
        "minimum_calls",
        "open_duration",
        "open_factor",
        "open_jitter",
        "half_open_calls",
        "probe_timeout",
    ]


def test_a_timedelta_is_as_good_as_seconds():
    """Both give the same options, kept as floats."""
    written = CircuitBreaker(
        slow_call_rate=0.5,
        slow_call_duration=timedelta(milliseconds=250),
        window=timedelta(minutes=1),
        open_duration=timedelta(seconds=10),
        open_maximum=timedelta(minutes=2),
        probe_timeout=timedelta(seconds=5),
    )
    plain = CircuitBreaker(slow_call_rate=0.5, slow_call_duration=0.25, window=60, open_duration=10, open_maximum=120, probe_timeout=5)
    assert written == plain
    assert [type(value) for value in (plain.window, plain.open_duration, plain.open_maximum, plain.probe_timeout)] == [float] * 4


def test_the_model_is_told_everything_it_needs():
    """Thresholds are options of the same name; as many probes at once as there are, when nothing else was said."""
    options = CircuitBreaker(
        failure_rate=0.25, slow_call_rate=0.75, slow_call_duration=1.0, consecutive_failures=4, minimum_calls=7, open_duration=8,
        open_factor=3, open_jitter=0.2, half_open_calls=2, probe_timeout=9, ramp_up=11, ramp_up_from=0.2,
    )  # fmt: skip
    assert options.thresholds == Thresholds(
        failure_rate=0.25,
        slow_call_rate=0.75,
        consecutive_failures=4,
        minimum_calls=7,
        open_duration=8.0,
        open_factor=3.0,
        open_maximum=32.0,
        open_jitter=0.2,
        half_open_calls=2,
        half_open_concurrency=2,
        probe_timeout=9.0,
        ramp_up=11.0,
        ramp_up_from=0.2,
        window=30.0,
        window_calls=None,
        slow_call_duration=1.0,
    )
    assert CircuitBreaker(half_open_concurrency=1).thresholds.half_open_concurrency == 1


@pytest.mark.parametrize("shorthand", [1, 0.5, "yes", [], object()])
def test_a_shorthand_that_means_nothing_is_refused(shorthand):
    """`True` is the only one; the message names where breakers of pybreaker go."""
    with pytest.raises(ConfigurationError, match=r"integrations\.pybreaker\.adopt"):
        Stand(breaker=shorthand)


@pytest.mark.parametrize("shorthand", [None, False])
def test_no_breaker_may_be_said_in_two_ways(shorthand):
    """Then the guard has none."""
    assert Stand(breaker=shorthand).guard.breaker is None


def test_true_is_the_usual_breaker():
    """The shorthand stands for the defaults."""
    assert Stand(breaker=True).guard.options.breaker == CircuitBreaker()


# -- windows --------------------------------------------------------------------------------------------------------------------------


@both_paths
def test_a_time_window_opens_at_the_rate_and_not_before_enough_calls(held):
    """Four calls are too few whatever they say; the fifth makes three of five."""
    stand = Stand(held=held, breaker=CircuitBreaker(failure_rate=0.6, minimum_calls=5))
    for _ in range(2):
        stand.succeed()
        stand.fail()
    assert stand.state == "closed"
    stand.fail()
    assert stand.state == "open"
    assert stand.told(BreakerChanged)[0].calls == 5
    assert stand.told(BreakerChanged)[0].failures == 3


@both_paths
def test_a_count_window_looks_at_the_last_calls_only(held):
    """Of ten calls the last four are judged, however long ago they were."""
    stand = Stand(held=held, breaker=CircuitBreaker(failure_rate=0.75, window_calls=4, minimum_calls=4))
    stand.fail()
    stand.fail()
    for _ in range(4):
        stand.succeed()
    assert stand.breaker.tally() == Tally(4, 0, 0, 0)
    stand.clock.advance(1e6)
    stand.fail()
    stand.fail()
    assert stand.breaker.tally() == Tally(4, 2, 0, 2)
    assert stand.state == "closed"
    stand.fail()
    assert stand.state == "open"


@both_paths
@pytest.mark.parametrize("calls", [None, 10])
def test_slow_calls_open_by_their_own_rate(held, calls):
    """Half of four good calls were slow; exactly the duration is not slow yet."""
    options = {"failure_rate": None, "slow_call_rate": 0.5, "slow_call_duration": 1.0, "minimum_calls": 4, "window_calls": calls}
    stand = Stand(held=held, breaker=CircuitBreaker(**options))
    advance = stand.guard(stand.clock.advance)
    for seconds in (1.0, 1.0, 1.5):
        advance(seconds)
    assert stand.breaker.tally() == Tally(3, 0, 1, 0)
    assert stand.state == "closed"
    advance(100.0 if calls else 2.0)
    assert stand.state == "open"
    assert (stand.told(BreakerChanged)[0].slow, stand.told(BreakerChanged)[0].failures) == (2, 0)
    assert stand.count(Outcome.GOOD) == 4


@both_paths
def test_the_slow_call_duration_is_a_bound_of_the_recorder(held):
    """What is slow is read from a bucket that ends exactly there, also beyond the largest usual bound."""
    stand = Stand(held=held, breaker=CircuitBreaker(slow_call_rate=1.0, slow_call_duration=1_234.5, minimum_calls=1))
    assert 1_234.5 in stand.guard.recorder.bounds
    stand.guard(stand.clock.advance)(1_234.5)
    assert stand.breaker.tally().slow == 0
    stand.guard(stand.clock.advance)(1_235.0)
    assert stand.state == "open"


@both_paths
def test_a_failed_call_may_be_slow_as_well(held):
    """It counts as both."""
    stand = Stand(held=held, breaker=CircuitBreaker(slow_call_rate=1.0, slow_call_duration=1.0))

    def slowly():
        stand.clock.advance(2.0)
        raise Boom

    with pytest.raises(Boom):
        stand.guard(slowly)()
    assert stand.breaker.tally() == Tally(1, 1, 1, 1)


@both_paths
@pytest.mark.parametrize("calls", [None, 50])
def test_failures_in_a_row_open_however_few_calls_there_were(held, calls):
    """Three in a row; a success between them starts the row anew."""
    stand = Stand(held=held, breaker=CircuitBreaker(failure_rate=None, consecutive_failures=3, window_calls=calls))
    for _ in range(2):
        stand.fail()
        stand.fail()
        assert stand.breaker.tally().consecutive == 2
        stand.succeed()
        assert stand.breaker.tally().consecutive == 0
    for _ in range(3):
        stand.fail()
    assert stand.state == "open"


def test_abandoned_calls_are_not_in_the_window():
    """The caller went away; nothing is known."""
    stand = Stand(breaker=one_strike())
    stand.fail(error=KeyboardInterrupt())
    assert stand.breaker.tally() == Tally(0, 0, 0, 0)
    assert stand.state == "closed"


def test_what_the_window_shows_while_open_is_what_it_showed_last():
    """Rejections do not enter it."""
    stand = Stand(breaker=one_strike(), listening=False)
    stand.fail()
    stand.fail()
    assert stand.count(Outcome.REJECTED) == 1
    assert stand.breaker.tally() == Tally(1, 1, 0, 1)


# -- opening and closing --------------------------------------------------------------------------------------------------------------


def test_the_openings_in_a_row_grow_up_to_the_maximum():
    """10, 20, 40, then 60 seconds each; after it was closed, 10 again."""
    stand = Stand(breaker=one_strike(open_duration=10.0, open_maximum=60.0))
    lengths = []
    for _ in range(5):
        stand.fail()
        lengths.append(stand.breaker.retry_after())
        stand.clock.advance(lengths[-1])
    assert lengths == [10.0, 20.0, 40.0, 60.0, 60.0]
    stand.succeed()
    assert stand.state == "closed"
    stand.fail()
    assert stand.breaker.retry_after() == 10.0


def test_an_opening_is_drawn_once_and_lies_within_its_jitter():
    """The event, the rejection and the control name the same time, and every opening is drawn for itself."""
    stand = Stand(breaker=one_strike(open_duration=100.0, open_factor=1.0, open_jitter=0.2))
    for _ in range(20):
        stand.fail()
        rejection = stand.fail()
        assert isinstance(rejection, CircuitOpen)
        drawn = stand.told(BreakerChanged)[-1].open_duration
        assert rejection.retry_after == stand.breaker.retry_after() == drawn
        stand.clock.advance(drawn)
    drawn = [event.open_duration for event in stand.told(BreakerChanged) if event.after == "open"]
    assert len(set(drawn)) == len(drawn) == 20
    assert all(80.0 <= seconds < 120.0 for seconds in drawn)
    assert max(drawn) - min(drawn) > 10.0


def test_the_same_seed_draws_the_same_openings():
    """Two processes with one seed and one name open for equally long."""
    lengths = []
    for _ in range(2):
        stand = Stand(breaker=one_strike(open_jitter=0.5))
        stand.fail()
        lengths.append(stand.breaker.retry_after())
    assert lengths[0] == lengths[1]


def test_half_open_needs_all_its_probes_to_close():
    """Two good probes of three are not enough; the third closes."""
    stand = Stand(breaker=one_strike(failure_rate=0.5, half_open_calls=3))
    stand.fail()
    stand.clock.advance(30.0)
    assert stand.state == "open"
    stand.succeed()
    stand.succeed()
    assert stand.state == "half_open"
    stand.succeed()
    assert stand.state == "closed"
    assert [(event.before, event.after, event.cause) for event in stand.told(BreakerChanged)] == [
        ("closed", "open", "exceeded"),
        ("open", "half_open", "elapsed"),
        ("half_open", "closed", "recovered"),
    ]


def test_a_relapse_says_how_many_probes_failed():
    """The reason of a rejection after a relapse speaks of probes."""
    stand = Stand(breaker=one_strike())
    stand.fail()
    stand.clock.advance(30.0)
    stand.fail()
    rejection = stand.fail()
    assert isinstance(rejection, CircuitOpen)
    assert rejection.detail == "1 of 1 probe failed"
    assert stand.told(BreakerChanged)[-1].cause == "relapsed"


def test_a_probe_that_finds_no_place_is_told_when_one_comes_back():
    """With the only probe under way, others are rejected until its lease is over; the slow path counts them too."""
    stand = Stand(breaker=one_strike(probe_timeout=5.0))
    stand.fail()
    stand.clock.advance(30.0)

    def nested():
        stand.clock.advance(2.0)
        return stand.fail()

    rejection = stand.guard(nested)()
    assert isinstance(rejection, CircuitOpen)
    assert rejection.retry_after == 3.0
    assert stand.count(Outcome.REJECTED) == 1
    assert stand.state == "closed"


def test_the_event_of_an_opening_tells_the_whole_story():
    """Guard, states, cause, counts, the first failure, how long, the last error and the era."""
    stand = Stand(breaker=CircuitBreaker(failure_rate=None, consecutive_failures=2, open_jitter=0.0))
    stand.succeed()
    stand.fail()
    began = stand.clock.time()
    stand.clock.advance(4.0)
    stand.fail(error=ValueError("second"))
    (event,) = stand.told(BreakerChanged)
    assert event == BreakerChanged(
        guard="dependency",
        at=began + 4.0,
        before="closed",
        after="open",
        cause="exceeded",
        calls=3,
        failures=2,
        slow=0,
        first_failure_at=began,
        open_duration=30.0,
        last_error="ValueError: second",
        injected=False,
        era=2,
    )
    assert stand.breaker.last_error == "ValueError: second"


def test_a_bad_result_opens_without_an_error_to_name():
    """A classifier's verdict opens it; there was no exception."""
    stand = Stand(breaker=one_strike(), classify=lambda result, error: Outcome.BAD)
    assert stand.succeed() == "fine"
    assert stand.state == "open"
    assert stand.breaker.last_error is None
    assert stand.fail().last_error is None


def test_slow_calls_are_named_in_the_reason():
    """The rejection says how many were slow."""
    stand = Stand(breaker=CircuitBreaker(failure_rate=None, slow_call_rate=0.5, slow_call_duration=1.0, minimum_calls=1))
    stand.guard(stand.clock.advance)(2.0)
    rejection = stand.fail()
    assert isinstance(rejection, CircuitOpen)
    assert rejection.detail == "1 of 1 calls took longer than 1 s in 30 s (100 % >= 50 %)"


def test_how_often_it_entered_each_state_is_known():
    """Every state is named, also those it never saw."""
    stand = Stand(breaker=one_strike(), listening=False)
    stand.fail()
    stand.clock.advance(30.0)
    stand.succeed()
    entered = stand.breaker.transitions()
    assert set(entered) == set(State)
    assert {state: number for state, number in entered.items() if number} == {State.OPEN: 1, State.HALF_OPEN: 1, State.CLOSED: 1}
