"""Retry: what is tried again, after which pause, and tenacity's words for it."""

from __future__ import annotations

import statistics
import threading
from datetime import timedelta

import pytest
import tenacity

from somaresil import BulkheadFull, ConfigurationError, Outcome, RateLimited, Rejected, Retry
from somaresil.events import AttemptFailed, DefectFound, RetryScheduled
from tests.behaviour.kit import Boom, Stand, both, both_paths, one_strike


class Flaky:
    """A dependency that fails as it is told, and then answers."""

    def __init__(self, *ends: object) -> None:
        self.ends = list(ends)
        self.calls = 0

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.calls += 1
        end = self.ends.pop(0) if self.ends else "fine"
        if isinstance(end, BaseException):
            raise end
        return end


def attempts(stand: Stand, flaky: Flaky, suspends: bool = False) -> object:
    """What came of the call: its result, or the type of its error."""
    try:
        return stand.callable(flaky, suspends)()
    except Exception as error:
        return type(error)


@both_paths
@both
@pytest.mark.parametrize(
    ("on", "error", "again"),
    [
        (KeyError, KeyError(), True),
        (LookupError, KeyError(), True),
        (KeyError, ValueError(), False),
        ((KeyError, OSError), OSError(), True),
        ([KeyError], KeyError(), True),
        (lambda error: "try" in str(error), ValueError("try again"), True),
        (lambda error: "try" in str(error), ValueError("give up"), False),
        (Exception, Boom(), True),
    ],
)
def test_on_says_what_is_tried_again(on, error, again, suspends, held):
    """Types, tuples, lists and predicates."""
    stand = Stand(held=held, retry=Retry(attempts=2, on=on, wait=0.0))
    flaky = Flaky(error)
    assert attempts(stand, flaky, suspends) == ("fine" if again else type(error))
    assert flaky.calls == (2 if again else 1)


def waits(stand: Stand) -> list[float]:
    return [event.delay for event in stand.told(RetryScheduled)]


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (0.0, [0.0, 0.0, 0.0]),
        (1.5, [1.5, 1.5, 1.5]),
        (lambda attempt: attempt * 10.0, [10.0, 20.0, 30.0]),
        (lambda attempt: -1.0, [0.0, 0.0, 0.0]),
        (tenacity.wait_fixed(2), [2.0, 2.0, 2.0]),
        (tenacity.wait_incrementing(start=1, increment=2), [1.0, 3.0, 5.0]),
        (tenacity.wait_exponential(multiplier=1, max=3), [1.0, 2.0, 3.0]),
        (tenacity.wait_fixed(1) + tenacity.wait_incrementing(0, 1), [1.0, 2.0, 3.0]),
        (tenacity.wait_chain(tenacity.wait_fixed(1), tenacity.wait_fixed(5)), [1.0, 5.0, 5.0]),
    ],
)
def test_wait_says_how_long_to_pause(wait, expected):
    """Seconds, a function of the attempts so far, or a tenacity object; the clock has moved by the sum."""
    stand = Stand(retry=Retry(attempts=4, wait=wait))
    begin = stand.clock.monotonic()
    assert attempts(stand, Flaky(Boom(), Boom(), Boom())) == "fine"
    assert waits(stand) == expected
    assert stand.clock.monotonic() - begin == sum(expected)


def test_the_usual_pause_is_exponential_with_full_jitter():
    """Between nothing and 0.1 s, 0.2 s, 0.4 s … and never above 5 s; drawn from the seed."""

    def drawn() -> list[float]:
        stand = Stand(retry=Retry(attempts=12))
        attempts(stand, Flaky(*(Boom() for _ in range(12))))
        return waits(stand)

    found = drawn()
    ceilings = [min(0.1 * 2**n, 5.0) for n in range(11)]
    shares = [pause / ceiling for pause, ceiling in zip(found, ceilings, strict=True)]
    assert all(0.0 <= share < 1.0 for share in shares)
    assert len(set(shares)) == 11
    assert statistics.pstdev(shares) > 0.1
    assert drawn() == found


@pytest.mark.parametrize(
    ("stop", "calls"),
    [
        (tenacity.stop_after_attempt(2), 2),
        (tenacity.stop_after_delay(3), 4),
        (tenacity.stop_after_attempt(9) | tenacity.stop_after_delay(1), 2),
        (tenacity.stop_before_delay(3), 3),
        (tenacity.stop_never, 5),
        (lambda state: state.attempt_number >= 4, 4),
    ],
)
def test_stop_ends_it_earlier(stop, calls):
    """tenacity's objects see attempts, elapsed time and the pause to come; ``attempts`` holds in any case."""
    stand = Stand(retry=Retry(attempts=5, wait=1.25, stop=stop))
    flaky = Flaky(*(Boom() for _ in range(9)))
    assert attempts(stand, flaky) is Boom
    assert flaky.calls == calls


def test_stop_when_an_event_is_set():
    """A service that shuts down stops trying."""
    event = threading.Event()
    stand = Stand(retry=Retry(attempts=9, wait=0.0, stop=tenacity.stop_when_event_set(event)))
    flaky = Flaky(*(Boom() for _ in range(9)))
    event.set()
    assert attempts(stand, flaky) is Boom
    assert flaky.calls == 1


@both
@pytest.mark.parametrize(
    ("on", "ends", "expected", "calls"),
    [
        (tenacity.retry_if_exception_type(KeyError), [KeyError()], "fine", 2),
        (tenacity.retry_if_exception_type(KeyError), [ValueError()], ValueError, 1),
        (tenacity.retry_if_not_exception_type(KeyError), [ValueError()], "fine", 2),
        (tenacity.retry_if_exception_message(match="tr.*"), [ValueError("try")], "fine", 2),
        (tenacity.retry_if_result(lambda result: result == "empty"), ["empty", "empty"], "fine", 3),
        (tenacity.retry_if_result(lambda result: result == "empty"), ["empty"] * 9, "empty", 3),
        (tenacity.retry_if_result(lambda result: result == "empty"), [ValueError()], ValueError, 1),
        (tenacity.retry_if_exception_type(KeyError) | tenacity.retry_if_result(lambda r: r == "empty"), [KeyError(), "empty"], "fine", 3),
    ],
)
def test_tenacity_says_what_is_tried_again(on, ends, expected, calls, suspends):
    """By exception, by message, by result, and combined. A result that stays wrong is returned in the end."""
    stand = Stand(held=True, retry=Retry(attempts=3, on=on, wait=0.0))
    flaky = Flaky(*ends)
    assert attempts(stand, flaky, suspends) == expected
    assert flaky.calls == calls


@pytest.mark.skipif(not hasattr(tenacity, "wait_exception"), reason="wait_exception came with tenacity 9.1.3")
def test_tenacity_may_wait_for_as_long_as_the_error_says():
    """A Retry-After of the server."""

    class Busy(Exception):
        retry_after = 7.0

    stand = Stand(retry=Retry(attempts=2, wait=lambda attempt: 1.0))
    stand.guard.configure(retry=Retry(attempts=2, wait=tenacity.wait_exception(lambda error: error.retry_after)))
    assert attempts(stand, Flaky(Busy())) == "fine"
    assert waits(stand) == [7.0]


def test_tenacity_sees_the_call():
    """Function, arguments, outcome and times, under tenacity's names."""
    seen = []

    def wait(state):
        seen.append(state)
        return 2.0

    class Wait(tenacity.wait.wait_base):
        def __call__(self, retry_state):
            return wait(retry_state)

    stand = Stand(retry=Retry(attempts=3, wait=Wait()))
    flaky = Flaky(Boom("one"), Boom("two"))
    assert stand.guard(flaky)(1, key=2) == "fine"
    assert [state.attempt_number for state in seen] == [1, 2]
    assert [state.idle_for for state in seen] == [0.0, 2.0]
    assert [state.seconds_since_start for state in seen] == [0.0, 2.0]
    assert [str(state.outcome.exception()) for state in seen] == ["one", "two"]
    assert (seen[0].args, seen[0].kwargs) == ((1,), {"key": 2})
    assert seen[0].fn is flaky
    assert seen[0].outcome.failed
    with pytest.raises(Boom, match="one"):
        seen[0].outcome.result()


@both_paths
@both
def test_events_tell_of_attempts(suspends, held):
    """Each failed attempt and each pause, with numbers and types."""
    stand = Stand(held=held, retry=Retry(attempts=3, wait=0.5))
    assert attempts(stand, Flaky(Boom(), KeyError()), suspends) == "fine"
    assert [(event.attempt, event.error, event.injected) for event in stand.told(AttemptFailed)] == [
        (1, "Boom", False),
        (2, "KeyError", False),
    ]
    assert [(event.attempt, event.error) for event in stand.told(RetryScheduled)] == [(1, "Boom"), (2, "KeyError")]


@both
def test_a_rejection_is_not_tried_again(suspends):
    """Trying at once what was refused just now is no help."""
    stand = Stand(retry=Retry(attempts=3, wait=0.0), bulkhead=1)
    stand.fill()
    assert attempts(stand, Flaky(), suspends) is BulkheadFull
    assert [event.attempt for event in stand.told(AttemptFailed)] == [1]


@both
def test_a_rejection_is_tried_again_when_it_is_named(suspends):
    """After a pause there may be room."""
    stand = Stand(retry=Retry(attempts=3, on=(BulkheadFull, Boom), wait=lambda attempt: stand.free() or 0.0), bulkhead=1)
    stand.fill()
    assert attempts(stand, Flaky(), suspends) == "fine"


@pytest.mark.parametrize("on", [Rejected, (Boom, Rejected)])
def test_a_rejection_of_a_later_attempt_is_raised_when_rejections_are_named(on):
    """Who retries rejections is told of them."""
    stand = Stand(retry=Retry(attempts=2, on=on, wait=0.0), breaker=one_strike())
    stand.resilience.breaker("dependency").force_open()
    assert attempts(stand, Flaky()).__name__ == "CircuitOpen"


def test_a_rejection_of_a_guard_inside_is_an_error_like_others_but_not_tried_again():
    """It said no; it would say no again."""
    stand = Stand(retry=Retry(attempts=3, wait=0.0))
    flaky = Flaky(*(RateLimited("inner") for _ in range(3)))
    assert attempts(stand, flaky) is RateLimited
    assert flaky.calls == 1
    assert stand.count(Outcome.BAD) == 1


def test_a_rejection_of_a_guard_inside_ends_the_attempts_as_itself():
    """After an error of the callee, what comes next is the end of the call."""
    stand = Stand(retry=Retry(attempts=3, wait=0.0))
    flaky = Flaky(Boom(), RateLimited("inner"))
    assert attempts(stand, flaky) is RateLimited
    assert flaky.calls == 2


def test_a_retry_on_results_does_not_look_at_streams():
    """Their first item is not a result."""
    stand = Stand(retry=Retry(attempts=3, on=tenacity.retry_if_result(lambda result: True), wait=0.0))
    begun = []

    @stand.guard
    def stream():
        begun.append(1)
        yield 1

    assert list(stream()) == [1]
    assert begun == [1]


def test_a_result_that_is_tried_again_is_told_without_an_error():
    """The event says that there was none."""
    stand = Stand(held=True, retry=Retry(attempts=2, on=tenacity.retry_if_result(lambda result: result == "empty"), wait=0.0))
    assert attempts(stand, Flaky("empty")) == "fine"
    assert [event.error for event in stand.told(RetryScheduled)] == [None]
    assert stand.told(AttemptFailed) == []


# -- what a failing answer asks for -------------------------------------------------------------------------------------------------------


def told(seconds):
    """An answer that says when to come back."""
    error = Boom("busy")
    error.retry_after = seconds
    return error


@both_paths
@both
def test_it_is_never_tried_earlier_than_the_answer_asks(suspends, held):
    """And callers who were told the same number do not come back at the same moment."""
    stand = Stand(held=held, retry=Retry(attempts=4))
    assert attempts(stand, Flaky(told(7.0), told(0), Boom()), suspends) == "fine"
    first, second, third = waits(stand)
    assert 7.0 < first < 7.1
    assert 0.0 <= second < 0.2
    assert 0.0 <= third < 0.4


@pytest.mark.parametrize(("wait", "expected"), [(2.0, [7.0, 2.0]), (lambda attempt: 9.0, [9.0, 9.0])])
def test_a_wait_of_ones_own_is_a_lower_bound(wait, expected):
    """The longer of the two counts."""
    stand = Stand(retry=Retry(attempts=3, wait=wait))
    assert attempts(stand, Flaky(told(7.0), told(1.0))) == "fine"
    assert waits(stand) == expected


@pytest.mark.parametrize(
    ("options", "end"),
    [
        ({}, Boom),
        ({"max_retry_after": 600}, "fine"),
        ({"max_retry_after": timedelta(seconds=61)}, "fine"),
        ({"max_retry_after": None}, "fine"),
        ({"max_retry_after": 600, "max_elapsed": 60}, Boom),
    ],
)
def test_an_answer_that_asks_for_too_long_is_the_last(options, end):
    """There is no use in coming earlier, and nobody waits that long."""
    stand = Stand(retry=Retry(attempts=2, **options))
    assert attempts(stand, Flaky(told(60.5))) == end


def test_what_cannot_be_read_is_ignored_and_told():
    """Once, however often it comes; the usual pause is made."""
    stand = Stand(retry=Retry(attempts=2, wait=1.0))
    for _ in range(3):
        assert attempts(stand, Flaky(told("soon"))) == "fine"
    assert waits(stand) == [1.0, 1.0, 1.0]
    assert [event.error.partition(":")[0] for event in stand.told(DefectFound)] == ["ValueError"]


def test_an_error_with_a_property_that_raises_is_tried_again():
    """A defect of somebody's exception ends no call."""

    class Odd(Exception):
        @property
        def retry_after(self):
            raise LookupError("nothing there")

    stand = Stand(retry=Retry(attempts=2, wait=1.0))
    assert attempts(stand, Flaky(Odd())) == "fine"


def test_a_rejection_says_when_to_come_back_too():
    """Where rejections are to be tried again at all."""
    stand = Stand(retry=Retry(attempts=2, wait=1.0, on=Rejected))
    assert attempts(stand, Flaky(RateLimited("nested", 5.0))) == "fine"
    assert waits(stand) == [5.0]


@pytest.mark.parametrize("value", [-1, "60", float("nan"), 86_401])
def test_the_longest_pause_is_checked(value):
    """Seconds, at most a day."""
    with pytest.raises(ConfigurationError, match="max_retry_after"):
        Retry(max_retry_after=value)


# -- hooks as stamina has them --------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(("said", "pause"), [(0.0, 0.0), (1.5, 1.5), (timedelta(seconds=2), 2.0), (-1.0, 0.0)])
def test_a_predicate_may_return_the_pause(said, pause, suspends):
    """A float is seconds, and so is a timedelta; nothing is added to it."""
    stand = Stand(retry=Retry(attempts=2, on=lambda error: said))
    assert attempts(stand, Flaky(Boom()), suspends) == "fine"
    assert [event.delay for event in stand.told(RetryScheduled)] == [pause]


@pytest.mark.parametrize(("said", "again"), [(True, True), (1, True), ("yes", True), (False, False), (0, False), (None, False)])
def test_anything_else_that_a_predicate_returns_is_yes_or_no(said, again):
    """The usual pause follows a yes."""
    stand = Stand(retry=Retry(attempts=2, on=lambda error: said, wait=3.0))
    assert attempts(stand, Flaky(Boom())) == ("fine" if again else Boom)
    assert [event.delay for event in stand.told(RetryScheduled)] == ([3.0] if again else [])


@pytest.mark.parametrize("said", [float("nan"), float("inf"), timedelta(days=2)])
def test_a_pause_that_nobody_can_wait_for_is_a_defect_of_the_hook(said):
    """It is reported, and the caller gets the error of the dependency."""
    stand = Stand(retry=Retry(attempts=2, on=lambda error: said))
    assert attempts(stand, Flaky(Boom())) is Boom
    assert len(stand.told(DefectFound)) == 1
