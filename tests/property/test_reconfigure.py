"""Live changes: they can be taken back, they are all or nothing, and no call ever notices one."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import Bulkhead, CircuitBreaker, ConfigurationError, Fallback, ManualClock, Outcome, Resilience, Retry, Timeout
from somaresil.guard.change import undo
from tests.behaviour.kit import together

NAMES = ("llm.invoke", "llm.stream", "db", "db.read")


def handler(*args):
    return "instead"


MADE = {
    "timeout": st.builds(Timeout, st.sampled_from([1.0, 5.0]), idle=st.sampled_from([None, 0.5])),
    "retry": st.builds(Retry, attempts=st.integers(1, 4), on=st.sampled_from([KeyError, OSError]), wait=st.sampled_from([None, 0.1])),
    "breaker": st.builds(CircuitBreaker, window=st.sampled_from([5.0, 30.0]), open_duration=st.sampled_from([1.0, 10.0])),
    "bulkhead": st.builds(Bulkhead, st.integers(1, 9)) | st.builds(Bulkhead, st.integers(1, 9), st.just(2), st.just(0.5)),
    "fallback": st.just(Fallback(handler)),
}
FIELDS = {
    "timeout": st.fixed_dictionaries({"total": st.sampled_from([2.0, 9.0])}, optional={"abandon": st.booleans()}),
    "retry": st.fixed_dictionaries({}, optional={"attempts": st.integers(1, 9), "max_elapsed": st.sampled_from([None, 3.0])}),
    "breaker": st.fixed_dictionaries({}, optional={"window": st.sampled_from([1.0, 60.0]), "open_maximum": st.sampled_from([None, 60.0])}),
    "bulkhead": st.fixed_dictionaries({"max_concurrent": st.integers(1, 9)}),
}
SHORT = {"timeout": st.sampled_from([3, 4.5]), "retry": st.integers(1, 5), "breaker": st.just(True), "bulkhead": st.integers(1, 5)}
OPTIONS = st.fixed_dictionaries({}, optional=MADE)


@st.composite
def changes(draw, wrong=False):
    """A change of some guards, by name or pattern; one that is wrong has one mistake somewhere."""
    keys = draw(st.lists(st.sampled_from([*NAMES, "llm.*", "db*", "*"]), min_size=1, max_size=4, unique=True))
    found = {}
    for key in keys:
        options = draw(st.lists(st.sampled_from(sorted(SHORT)), min_size=1, max_size=3, unique=True))
        found[key] = {option: draw(FIELDS[option] | SHORT[option] | MADE[option] | st.none()) for option in options}
    if wrong:
        key = draw(st.sampled_from(keys))
        mistake = draw(
            st.sampled_from(
                [{"retry": 0}, {"timeout": {"total": -1}}, {"timeout": {"x": 1}}, {"x": 1}, {"slo": "x"}, {"breaker": {"window": 0}}]
            )
        )
        place = draw(st.sampled_from(["in", "beside"]))
        if place == "in":
            found[key] |= mistake
        else:
            found["nobody"] = {"timeout": 1.0}
    return found


def service(options):
    resilience = Resilience("shop", clock=ManualClock(), seed=1)
    return resilience, {name: resilience.guard(name, **given) for name, given in zip(NAMES, options, strict=True)}


def state_of(guards):
    return {
        name: (guard.options, guard.pipeline, guard.switch.reasons, guard.breaker and (guard.breaker.state, guard.breaker.era))
        for name, guard in guards.items()
    }


@settings(max_examples=40)
@given(st.lists(OPTIONS, min_size=4, max_size=4), changes())
def test_undoing_a_change_restores_every_option(options, change):
    """And every pipeline; what the policies in it know of calls is theirs."""
    resilience, guards = service(options)
    before = state_of(guards)
    done = resilience.reconfigure(change)
    assert (done == ()) == (state_of(guards) == before)
    back = resilience.reconfigure(undo(done)) if done else ()
    assert [(each.before, each.after) for each in back] == [(each.after, each.before) for each in done]
    assert {name: state[:3] for name, state in state_of(guards).items()} == {name: state[:3] for name, state in before.items()}


@settings(max_examples=40)
@given(st.lists(OPTIONS, min_size=4, max_size=4), changes(wrong=True))
def test_one_mistake_anywhere_leaves_every_guard_as_it_was(options, change):
    """Options, pipelines, breakers; a dry run finds the same mistake."""
    resilience, guards = service(options)
    before = state_of(guards)
    found = []
    for dry_run in (True, False):
        with pytest.raises(ConfigurationError) as raised:
            resilience.reconfigure(change, dry_run=dry_run)
        found.append([str(problem) for problem in raised.value.problems])
    assert found[0] == found[1] != []
    assert state_of(guards) == before


@settings(max_examples=40)
@given(st.lists(OPTIONS, min_size=4, max_size=4), changes())
def test_a_change_comes_to_the_same_live_and_from_a_mapping_like_a_file(options, change):
    """As far as both may say it: named fields of what is there."""
    fields = {
        key: {option: value for option, value in given.items() if isinstance(value, dict) or value is None} for key, given in change.items()
    }
    resilience, guards = service(options)
    other, others = service(options)
    try:
        resilience.reconfigure(fields)
    except ConfigurationError:
        with pytest.raises(ConfigurationError):
            other.configure_from({"guards": fields})
        return
    other.configure_from({"guards": fields})
    assert {name: guard.options for name, guard in others.items()} == {name: guard.options for name, guard in guards.items()}


FLIPS = [
    {"x": {"timeout": 60.0, "retry": {"attempts": 2}}},
    {"x": {"bulkhead": 500, "breaker": {"window": 60.0}}},
    {"*": {"breaker": None, "timeout": None}},
    {"x": {"retry": None, "breaker": True}},
    {"x": {"bulkhead": None, "retry": 3}},
]


def test_calls_that_run_while_options_change_neither_fail_nor_are_lost():
    """Threads and tasks, quiet and full path: every call gets its answer and is counted once, whatever is put around it meanwhile."""
    resilience = Resilience("shop")
    guard = resilience.guard("x", breaker=True)
    stop = threading.Event()
    plain = guard(lambda number: number)

    @guard
    async def suspending(number):
        await asyncio.sleep(0)
        return number

    def change():
        try:
            for _ in range(30):
                for flip in FLIPS:
                    resilience.reconfigure(flip)
        finally:
            stop.set()
        return 0

    def call():
        count = 0
        while not stop.is_set():
            assert plain(count) == count
            count += 1
        return count

    async def tasks():
        count = 0
        while not stop.is_set():
            assert await asyncio.gather(*(suspending(number) for number in range(5))) == [0, 1, 2, 3, 4]
            count += 5
        return count

    done = together(4, lambda number: [change, call, call, lambda: asyncio.run(tasks())][number]())
    assert all(isinstance(count, int) for count in done), done
    assert guard.recorder.counts().total(Outcome.GOOD) == guard.recorder.counts().total() == sum(done) > 0


WORDS = st.sampled_from(
    ["guards", "environments", "x", "*", "retry", "timeout", "breaker", "bulkhead", "fallback", "idempotent", "total", "attempts", "on"]
) | st.text(max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["8s", "none", "true", "1e3"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=60)
@given(st.dictionaries(WORDS, VALUES, max_size=3), st.booleans())
def test_whatever_is_said_is_taken_or_refused(said, inside):
    """A mapping of anything is either used or a list of problems, never another error; refused, it has changed nothing."""
    resilience = Resilience("shop", clock=ManualClock())
    guard = resilience.guard("x", timeout=5.0, retry=2)
    before = guard.options
    for change in (resilience.reconfigure, resilience.configure_from):
        given = {"x": said} if change == resilience.reconfigure else {"guards": {"x": said}} if inside else said
        with contextlib.suppress(ConfigurationError):
            change(given)
            before = guard.options
        assert guard.options == before
