"""What an experiment may be told, and which errors it raises."""

from __future__ import annotations

from datetime import timedelta

import pytest

from somaresil import ChaosConfig, ConfigurationError, InjectedFault
from tests.unit.chaos.kit import CUT, ERROR, LATENCY, TRIP


def problems(*args, **options):
    with pytest.raises(ConfigurationError) as caught:
        ChaosConfig(*args, **options)
    return [problem.path.removeprefix("ChaosConfig.") for problem in caught.value.problems]


def test_the_names_of_the_plan_stay_valid():
    """The fields of the seed, by position and in its order."""
    config = ChaosConfig(ERROR, "llm.*", 0.2, 60, "zone")
    assert (config.failure_rate, config.duration_seconds, config.blast_radius) == (0.2, 60.0, "zone")


def test_the_defaults_are_shy():
    """One call in a thousand, for a minute, on this instance."""
    config = ChaosConfig(ERROR, "x")
    assert (config.failure_rate, config.duration_seconds, config.blast_radius, config.candidates) == (0.001, 60.0, "single_instance", ())


def test_every_mistake_is_named_at_once():
    """One error lists them all."""
    assert problems(
        "latancy", "a b", 2.0, -1, "planet", delay_seconds=-1, error=5, status=200, after_items=-1, max_injections=0, candidates=["a b"]
    ) == [
        "experiment",
        "target_component",
        "failure_rate",
        "duration_seconds",
        "blast_radius",
        "delay_seconds",
        "error",
        "status",
        "after_items",
        "max_injections",
        "candidates",
    ]


@pytest.mark.parametrize("candidates", ["pod-1", b"pod-1", 5, None, [1], ["a b"]])
def test_candidates_are_names(candidates):
    """A single text would be taken for its letters."""
    assert problems(ERROR, "x", candidates=candidates) == ["candidates"]


def test_candidates_may_be_any_collection_of_names():
    """They are kept as a tuple."""
    assert ChaosConfig(ERROR, "x", candidates=["a", "b"]).candidates == ("a", "b")
    assert ChaosConfig(ERROR, "x", candidates=(name for name in ("a",))).candidates == ("a",)


def test_az_is_a_zone():
    """The word of the plan."""
    assert ChaosConfig(ERROR, "x", blast_radius="az").blast_radius == "zone"


def test_durations_may_be_timedeltas():
    """They become seconds."""
    config = ChaosConfig(LATENCY, "x", duration_seconds=timedelta(minutes=1), delay_seconds=timedelta(milliseconds=800))
    assert (config.duration_seconds, config.delay_seconds) == (60.0, 0.8)


@pytest.mark.parametrize(
    ("kind", "options", "path"),
    [
        (LATENCY, {}, "delay_seconds"),
        (TRIP, {"delay_seconds": 1}, "delay_seconds"),
        (CUT, {"delay_seconds": 1}, "delay_seconds"),
        (TRIP, {"max_injections": 1}, "max_injections"),
        (LATENCY, {"delay_seconds": 1, "error": OSError}, "error"),
        (TRIP, {"error": OSError}, "error"),
    ],
)
def test_an_option_that_is_not_looked_at_is_a_mistake(kind, options, path):
    """An experiment does what is written, or it is refused."""
    assert problems(kind, "x", **options) == [path]


def test_requests_are_answered_and_do_not_raise():
    """An error type on http: would not be looked at."""
    assert problems(ERROR, "http:/x", error=OSError) == ["error"]


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit(), GeneratorExit, BaseException, StopIteration, StopAsyncIteration(), 5, "x"]
)
def test_what_no_callee_raises_is_refused(error):
    """An experiment does not pretend that the caller went away, and does not end iterations."""
    assert problems(ERROR, "x", error=error) == ["error"]


class Picky(Exception):
    """As those of HTTP clients: its arguments are not those of its constructor."""

    def __init__(self, message, *, response):
        super().__init__(message)
        self.response = response


class Impossible(Exception):
    """Cannot be made from what is known of it."""

    __slots__ = ()

    def __new__(cls, *args, key):
        return super().__new__(cls, *args)

    def __init__(self, *args, key):
        super().__init__()


@pytest.mark.parametrize("error", [Picky, Impossible, Impossible("x", key=1)])
def test_an_error_that_cannot_be_made_again_is_refused_at_once(error):
    """Not found out at the first struck call, when the drill would do nothing."""
    with pytest.raises(ConfigurationError, match="give a function that makes one"):
        ChaosConfig(ERROR, "x", error=error)


def made(error):
    config = ChaosConfig(ERROR, "x", error=error)
    return config.make_error("x", "error-1"), config.make_error("x", "error-1")


def test_without_an_error_it_is_ours():
    """It names component and experiment, so that nobody hunts a ghost."""
    one, other = made(None)
    assert type(one) is InjectedFault
    assert (one.component, one.experiment) == ("x", "error-1")
    assert one is not other


def test_a_type_is_called():
    """A fresh one each time."""
    one, other = made(TimeoutError)
    assert type(one) is type(other) is TimeoutError
    assert one is not other


def test_an_exception_is_made_again():
    """With its arguments and without its traceback, cause and context."""
    try:
        try:
            raise KeyError("first")
        except KeyError as cause:
            raise OSError(111, "refused", "/tmp/x") from cause
    except OSError as error:
        given = error
    one, other = made(given)
    assert one is not other
    assert one is not given
    assert (type(one), one.errno, one.strerror, one.filename) == (ConnectionRefusedError, 111, "refused", "/tmp/x")
    assert (one.__traceback__, one.__cause__, one.__context__) == (None, None, None)


def test_an_exception_with_a_constructor_of_its_own_is_made_again():
    """With the attributes that handlers look at."""
    response = object()
    one, other = made(Picky("gone", response=response))
    assert type(one) is Picky
    assert one is not other
    assert (str(one), one.response) == ("gone", response)


def test_a_function_makes_one():
    """What it makes is raised as it is."""
    one, other = made(lambda: Picky("gone", response=503))
    assert (type(one), one.response) == (Picky, 503)
    assert one is not other


@pytest.mark.parametrize("thing", [None, "text", KeyboardInterrupt()])
def test_a_function_that_makes_none_is_no_reason_to_stop(thing):
    """Ours is raised then."""
    one, _ = made(lambda: thing)
    assert type(one) is InjectedFault
