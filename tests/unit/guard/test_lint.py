"""What is surely wrong with a pipeline is found, and nothing else is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from somaresil import Bulkhead, CircuitBreaker, CircuitOpen, Fallback, Retry, Timeout
from somaresil.guard import GuardOptions
from somaresil.guard.lint import findings


def codes(deadline=None, **options):
    return [finding.code for finding in findings(GuardOptions.of("x", options), deadline=deadline)]


QUIET = [
    {},
    {"timeout": 10.0, "retry": 3, "breaker": True, "bulkhead": 8},
    {"timeout": 30.0, "breaker": True},
    {"timeout": timedelta(seconds=5), "retry": Retry(attempts=2, max_elapsed=5.0)},
    {"timeout": 5.0, "retry": Retry(attempts=2, max_elapsed=4.0, on=ConnectionError)},
    {"timeout": 5.0, "retry": Retry(attempts=2, max_elapsed=4.0, on=(KeyError, CircuitOpen))},
    {"timeout": 5.0, "retry": Retry(attempts=2, max_elapsed=4.0, on=lambda error: True)},
    {"timeout": 5.0, "retry": Retry(attempts=1, max_elapsed=4.0, wait=0)},
    {"timeout": Timeout(first_item=5.0, idle=20.0), "retry": Retry(max_elapsed=1.0)},
    {"retry": Retry(attempts=3, wait=0)},
    {"retry": Retry(attempts=9, wait=lambda attempt: 0)},
    {"retry": Retry(attempts=9, wait=0.1)},
    {"retry": Retry(attempts=2, wait=5, max_elapsed=5)},
    {"retry": Retry(), "idempotent": True},
    {"retry": Retry(), "idempotent": "key"},
    {"retry": Retry(attempts=1), "idempotent": False},
    {"breaker": CircuitBreaker(open_duration=5.0)},
    {"timeout": 1.0, "breaker": CircuitBreaker(open_duration=1.0)},
    {"breaker": CircuitBreaker(open_duration=5.0, probe_timeout=20.0)},
    {"timeout": 5.0, "breaker": CircuitBreaker(slow_call_rate=0.5, slow_call_duration=4.0)},
    {"breaker": CircuitBreaker(slow_call_rate=0.5, slow_call_duration=40.0)},
    {"timeout": 10.0, "breaker": True, "bulkhead": 5},
    {"timeout": 10.0, "breaker": CircuitBreaker(consecutive_failures=5), "bulkhead": 1},
    {"timeout": 10.0, "breaker": CircuitBreaker(window_calls=20), "bulkhead": 1},
    {"timeout": 10.0, "breaker": True, "bulkhead": Bulkhead(8, 4, 10.0)},
    {"bulkhead": Bulkhead(1, 100, 60.0)},
    {"timeout": Timeout(10.0, first_item=5.0, idle=9.0)},
]


@pytest.mark.parametrize("options", QUIET, ids=range(len(QUIET)))
def test_what_may_be_meant_is_not_found(options):
    """The usual options, edges of each rule, and what only a function knows."""
    assert codes(**options) == []


LOUD = [
    ({"timeout": 5.0, "retry": Retry(max_elapsed=4.9)}, "retry-too-late", "retry.max_elapsed"),
    ({"timeout": 5.0, "retry": Retry(max_elapsed=4.9, on=(KeyError, TimeoutError))}, "retry-too-late", "retry.max_elapsed"),
    ({"timeout": 5.0, "retry": Retry(max_elapsed=4.9, on=OSError)}, "retry-too-late", "retry.max_elapsed"),
    ({"retry": Retry(wait=5.1, max_elapsed=5.0)}, "retry-never", "retry.wait"),
    ({"retry": Retry(attempts=4, wait=0)}, "hammering", "retry.wait"),
    ({"retry": 2, "idempotent": False}, "retry-denied", "retry"),
    ({"timeout": 30.1, "breaker": True}, "probe-too-short", "breaker.probe_timeout"),
    ({"breaker": CircuitBreaker(open_duration=5.0, probe_timeout=20.1)}, "probe-too-long", "breaker.probe_timeout"),
    (
        {"timeout": 5.0, "breaker": CircuitBreaker(slow_call_rate=0.5, slow_call_duration=5.0)},
        "never-slow",
        "breaker.slow_call_duration",
    ),
    ({"timeout": 10.0, "breaker": True, "bulkhead": 4}, "breaker-blind", "breaker.minimum_calls"),
    ({"timeout": 10.0, "bulkhead": Bulkhead(8, 4, 10.1)}, "waits-longer-than-it-works", "bulkhead.max_wait"),
    ({"timeout": Timeout(10.0, idle=10.0)}, "never-reached", "timeout.idle"),
    ({"timeout": Timeout(10.0, first_item=11.0)}, "never-reached", "timeout.first_item"),
]


@pytest.mark.parametrize(("options", "code", "path"), LOUD, ids=[f"{code}-{n}" for n, (_, code, _) in enumerate(LOUD)])
def test_what_cannot_be_meant_is_found(options, code, path):
    """One mistake is one finding, with its place, its numbers and what to do."""
    (finding,) = findings(GuardOptions.of("x", options))
    assert (finding.code, finding.path) == (code, path)
    assert finding.message
    assert finding.hint
    assert str(finding) == f"{path}: {finding.message} ({finding.hint}) [{code}]"


def test_the_numbers_are_named():
    """Whoever reads it need not look anything up."""
    (finding,) = findings(GuardOptions.of("x", {"timeout": 10.0, "breaker": True, "bulkhead": 4}))
    assert finding.message == (
        "while every call hangs for 10 s the window of 30 s sees at most 16 calls end, and 20 are needed: it never opens"
    )


@pytest.mark.parametrize(
    ("deadline", "options", "expected"),
    [
        (30.5, {"timeout": 10.0, "retry": 3}, []),
        (30.2, {"timeout": 10.0, "retry": 3}, ["past-deadline"]),
        (9.0, {"timeout": 10.0}, ["past-deadline"]),
        (20.0, {"timeout": 10.0, "retry": Retry(attempts=9, max_elapsed=10.0)}, []),
        (19.0, {"timeout": 10.0, "retry": Retry(attempts=9, max_elapsed=10.0)}, ["past-deadline"]),
        (1.0, {"bulkhead": Bulkhead(1, 1, 2.0)}, ["line-past-deadline"]),
        (1.0, {"retry": 9}, []),
        (100.0, {"retry": Retry(wait=lambda attempt: 0), "timeout": 30.0}, []),
        (1.0, {"fallback": Fallback(len)}, []),
    ],
)
def test_a_deadline_that_is_known_is_held_against_the_longest_call(deadline, options, expected):
    """Without one, or without a bound, there is nothing to say."""
    assert codes(deadline, **options) == expected
    assert codes(**options) == []


def test_several_mistakes_are_several_findings():
    """None hides another."""
    breaker = CircuitBreaker(probe_timeout=1.0, slow_call_rate=0.5, slow_call_duration=9.0)
    assert codes(timeout=5.0, breaker=breaker, bulkhead=Bulkhead(1, 1, 6.0), retry=Retry(attempts=5, wait=0, max_elapsed=1.0)) == [
        "retry-too-late",
        "hammering",
        "probe-too-short",
        "never-slow",
        "breaker-blind",
        "waits-longer-than-it-works",
    ]


class Hedge:
    delay = 0.5
    max_hedges = 2
    shadow = False


@pytest.mark.parametrize(("idempotent", "expected"), [(None, ["hedge-repeats"]), (False, ["hedge-repeats"]), (True, []), ("key", [])])
def test_a_hedge_wants_leave_to_repeat(idempotent, expected):
    """Whatever options class stands for it."""

    class Options:
        __dataclass_fields__ = GuardOptions.__dataclass_fields__

        def __init__(self):
            self.hedge = Hedge()
            for name in GuardOptions.__dataclass_fields__:
                setattr(self, name, getattr(self, name, None))
            self.idempotent = idempotent

    assert [finding.code for finding in findings(Options())] == expected
