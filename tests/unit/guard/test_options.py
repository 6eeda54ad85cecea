"""Options of a guard: shorthands, and every wrong value named at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from somaresil import SLO, Bulkhead, CircuitBreaker, ConfigurationError, Fallback, ManualClock, Resilience, Retry, Timeout
from somaresil.guard import GuardOptions


def problems_of(make):
    with pytest.raises(ConfigurationError) as raised:
        make()
    return raised.value.problems


def paths_of(make):
    return [problem.path for problem in problems_of(make)]


def handler(*args):
    return "instead"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"timeout": 10}, {"timeout": Timeout(10.0)}),
        ({"timeout": timedelta(minutes=1)}, {"timeout": Timeout(60.0)}),
        ({"timeout": Timeout(idle=2)}, {"timeout": Timeout(idle=2.0)}),
        ({"retry": 3}, {"retry": Retry(attempts=3)}),
        ({"retry": Retry(wait=1)}, {"retry": Retry(wait=1.0)}),
        ({"retry": False}, {}),
        ({"breaker": True}, {"breaker": CircuitBreaker()}),
        ({"breaker": False}, {}),
        ({"breaker": CircuitBreaker(window=5)}, {"breaker": CircuitBreaker(window=5.0)}),
        ({"bulkhead": 8}, {"bulkhead": Bulkhead(8)}),
        ({"bulkhead": Bulkhead(1, 2, timedelta(seconds=3))}, {"bulkhead": Bulkhead(1, 2, 3.0)}),
        ({"fallback": handler}, {"fallback": Fallback(handler)}),
        ({"fallback": Fallback(handler, on=(KeyError,))}, {"fallback": Fallback(handler, on=(KeyError,))}),
        ({"slo": "fast"}, {"slo": ("fast",)}),
        ({"slo": ["fast", "there"]}, {"slo": ("fast", "there")}),
        ({"slo": ()}, {}),
        ({"classify": handler}, {"classify": handler}),
        (dict.fromkeys(("timeout", "retry", "breaker", "bulkhead", "fallback", "classify")), {}),
    ],
)
def test_shorthands_stand_for_options(given, expected):
    """Numbers, durations, functions and names are turned into the options that they mean; None is nothing."""
    assert GuardOptions.of("x", given) == GuardOptions(**expected)


WRONG = {
    "timeout": [0, -1.0, "10", True, float("nan"), float("inf"), timedelta(0), 86_401.0, [1]],
    "retry": [0, -1, 101, 2.5, "3", True],
    "breaker": ["on", 1, 0.5, {}],
    "bulkhead": [0, -1, 1_000_001, 2.0, "8", True],
    "fallback": ["text", 5, {}],
    "slo": [5, ["fast", 5], 1.5],
    "classify": ["good", 5],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in WRONG.items() for value in values])
def test_each_wrong_value_is_named(option, value):
    """With path, value and what would be allowed."""
    (problem,) = problems_of(lambda: GuardOptions.of("x", {option: value}))
    assert problem.path == f"guard('x').{option}"
    assert problem.value is value
    assert problem.allowed


def test_all_wrong_options_of_a_guard_are_named_at_once():
    """The name, each option, and objectives that were never added."""
    resilience = Resilience("shop")
    resilience.slos.add(SLO("llm_latency", 95.0, timedelta(days=7), latency=2.0))
    resilience.slos.add(SLO("recovery", 95.0, timedelta(days=7), recovery=300.0))

    def make():
        resilience.guard(
            "no spaces!", slo=["llm_latncy", "recovery"], timeout=-1, retry=0, breaker="yes", bulkhead=0, fallback=5, classify=6
        )

    found = problems_of(make)
    names = ["name", "classify", "fallback", "retry", "breaker", "bulkhead", "timeout", "slo", "slo"]
    assert sorted(problem.path for problem in found) == sorted(f"guard('no spaces!').{name}" for name in names)
    hints = " ".join(problem.hint for problem in found)
    assert "did you mean 'llm_latency'?" in hints
    assert "those about recovery watch every breaker" in hints
    assert "pybreaker" in hints
    assert resilience.guards == {}


@pytest.mark.parametrize("name", ["", "a b", "x" * 121, None, 5, ["x"], "naïve"])
def test_a_wrong_name_is_refused(name):
    """Names become metric labels."""
    assert paths_of(lambda: Resilience("shop").guard(name)) == [f"guard({name!r}).name"]


CIRCUIT_BREAKER = {
    "failure_rate": [0, -0.1, 1.1, 50, "0.5", True, float("nan")],
    "consecutive_failures": [0, -1, 2.0, "5", True],
    "window": [0, -1, "30", 86_401, timedelta(0), float("inf")],
    "window_calls": [0, 100_001, 2.5, True],
    "minimum_calls": [0, -1, 2.0, None],
    "open_duration": [0, -1, "30", None],
    "open_factor": [0.5, 10.5, "2", float("nan")],
    "open_maximum": [-1, "60", 29.0],
    "open_jitter": [-0.1, 1.1, 10],
    "half_open_calls": [0, 1001, 1.5],
    "probe_timeout": [0, -1, "30"],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in CIRCUIT_BREAKER.items() for value in values])
def test_each_wrong_value_of_a_circuit_breaker_is_named(option, value):
    """One wrong value, one problem, with its path."""
    assert paths_of(lambda: CircuitBreaker(**{option: value})) == [f"CircuitBreaker.{option}"]


def test_all_wrong_values_of_a_circuit_breaker_are_named_at_once():
    """Everything that can be wrong by itself."""
    wrong = {option: values[0] for option, values in CIRCUIT_BREAKER.items()} | {"slow_call_rate": 2.0, "slow_call_duration": -1.0}
    assert set(paths_of(lambda: CircuitBreaker(**wrong))) == {f"CircuitBreaker.{option}" for option in wrong}


def test_options_of_a_circuit_breaker_that_do_not_go_together():
    """Slow rate and duration belong together; more calls than the window holds never come; something must be able to open it."""
    assert paths_of(lambda: CircuitBreaker(slow_call_rate=0.5)) == ["CircuitBreaker.slow_call_duration"]
    assert paths_of(lambda: CircuitBreaker(slow_call_duration=0.5)) == ["CircuitBreaker.slow_call_rate"]
    assert paths_of(lambda: CircuitBreaker(window_calls=10)) == ["CircuitBreaker.minimum_calls"]
    (problem,) = problems_of(lambda: CircuitBreaker(failure_rate=None))
    assert problem.hint == "nothing would open it"
    assert CircuitBreaker(window_calls=20).window_calls == 20
    assert CircuitBreaker(failure_rate=None, consecutive_failures=1).failure_rate is None


def test_the_usual_circuit_breaker():
    """The defaults that the documentation shows."""
    breaker = CircuitBreaker()
    found = {name: getattr(breaker, name) for name in CircuitBreaker.__slots__}
    assert found == {
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


def test_durations_may_be_given_as_timedelta():
    """They are kept as seconds."""
    breaker = CircuitBreaker(
        window=timedelta(minutes=1),
        open_duration=timedelta(seconds=5),
        open_maximum=timedelta(seconds=9),
        probe_timeout=timedelta(seconds=2),
        slow_call_rate=0.5,
        slow_call_duration=timedelta(milliseconds=500),
    )
    assert (breaker.window, breaker.open_duration, breaker.open_maximum, breaker.probe_timeout) == (60.0, 5.0, 9.0, 2.0)
    assert breaker.slow_call_duration == 0.5
    assert breaker.thresholds.open_maximum == 9.0


RETRY = {
    "attempts": [0, 101, 2.0, "3", True],
    "on": ["ValueError", 5, (), int, KeyboardInterrupt, BaseException, (ValueError, "KeyError"), (ValueError, len)],
    "wait": [-1, "1", True, float("nan")],
    "stop": [5, "never"],
    "max_elapsed": [0, -1, "10"],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in RETRY.items() for value in values])
def test_each_wrong_value_of_a_retry_is_named(option, value):
    """One wrong value, one problem, with its path."""
    assert paths_of(lambda: Retry(**{option: value})) == [f"Retry.{option}"]


def test_all_wrong_values_of_a_retry_are_named_at_once():
    """Everything that can be wrong by itself."""
    assert paths_of(lambda: Retry(**{option: values[0] for option, values in RETRY.items()})) == [f"Retry.{option}" for option in RETRY]


def test_a_retry_takes_exception_types_in_any_collection():
    """Kept as a tuple."""
    assert Retry(on=[KeyError, ValueError]).on == (KeyError, ValueError)
    assert Retry(on={KeyError}).on == (KeyError,)


TIMEOUT = {
    "total": [0, -1, "10", True, 86_401],
    "first_item": [0, -1, "10"],
    "idle": [0, -1, "10"],
    "abandon": ["yes", 1],
    "max_abandoned": [0, 10_001, 2.5],
}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in TIMEOUT.items() for value in values])
def test_each_wrong_value_of_a_timeout_is_named(option, value):
    """One wrong value, one problem, with its path."""
    assert paths_of(lambda: Timeout(**({"total": 5.0} | {option: value}))) == [f"Timeout.{option}"]


def test_a_timeout_needs_something_to_wait_for():
    """And abandoning needs a total."""
    assert paths_of(Timeout) == ["Timeout.total"]
    assert paths_of(lambda: Timeout(idle=1.0, abandon=True)) == ["Timeout.abandon"]
    assert paths_of(lambda: Timeout(-1.0, first_item=-1.0, idle=-1.0, abandon=2, max_abandoned=0)) == [
        f"Timeout.{option}" for option in TIMEOUT
    ]


BULKHEAD = {"max_concurrent": [0, -1, 2.0, True, 1_000_001], "max_waiting": [-1, 1.5], "max_wait": [-1.0, "1"]}


@pytest.mark.parametrize(("option", "value"), [(option, value) for option, values in BULKHEAD.items() for value in values])
def test_each_wrong_value_of_a_bulkhead_is_named(option, value):
    """One wrong value, one problem, with its path."""
    usual = {"max_concurrent": 1, "max_waiting": 1, "max_wait": 1.0}
    assert paths_of(lambda: Bulkhead(**(usual | {option: value}))) == [f"Bulkhead.{option}"]


def test_waiting_needs_room_and_time():
    """One without the other means that nobody could wait."""
    assert paths_of(lambda: Bulkhead(1, max_waiting=2)) == ["Bulkhead.max_wait"]
    assert paths_of(lambda: Bulkhead(1, max_wait=2.0)) == ["Bulkhead.max_waiting"]


@pytest.mark.parametrize("kind", [(), "KeyError", KeyboardInterrupt, BaseException, (KeyError, int), 5])
def test_a_fallback_answers_for_exceptions_only(kind):
    """Cancellation and exit are never answered."""
    assert paths_of(lambda: Fallback(handler, on=kind)) == ["Fallback.on"]


def test_a_fallback_is_a_function():
    """A constant is not; the error says how to write one."""
    found = problems_of(lambda: Fallback("instead", on=()))
    assert [problem.path for problem in found] == ["Fallback.handler", "Fallback.on"]
    assert "lambda" in found[0].hint


@pytest.mark.parametrize("duration", [0, -1.0, "5", True, float("inf"), timedelta(0)])
def test_a_trip_needs_a_duration(duration):
    """A wrong one changes nothing."""
    resilience = Resilience("shop", clock=ManualClock())
    resilience.guard("x", breaker=True)
    assert paths_of(lambda: resilience.breaker("x").trip(duration)) == ["breaker('x').trip.duration"]
    assert resilience.breaker("x").state == "closed"
    resilience.breaker("x").trip(timedelta(seconds=5))
    assert resilience.breaker("x").retry_after == 5.0


def test_a_timeout_that_is_only_about_streams_is_refused_on_what_is_none():
    """Nothing would ever time out, and nobody would be told."""
    guard = Resilience("shop").guard("call", timeout=Timeout(first_item=1.0))
    with pytest.raises(ConfigurationError, match="first_item and idle are about streams"):
        guard(len)

    @guard
    def stream():
        yield 1

    assert list(stream()) == [1]
