"""The stale cache: its options, what it remembers, and when it answers."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import ConfigurationError, Fallback, Outcome, Rejected, Retry, StaleCache
from somaresil.events import DefectFound, FallbackUsed, ShadowDecision
from tests.behaviour.kit import Boom, Stand, both, one_strike, together
from tests.unit.policy.kit import Script, wrong


def cache_of(stand):
    return stand.guard.fallback.cache


# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """Only as a fallback, for any exception, by the arguments, a thousand answers."""
    assert dataclasses.astuple(StaleCache(timedelta(minutes=5))) == (300.0, 0.0, None, 1_024, Exception, None, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        StaleCache(60).max_stale = 1.0


def test_all_problems_come_at_once():
    """One error that lists them all."""
    found = wrong(StaleCache, 0, max_age=-1, key=1, max_entries=0, on=SystemExit, when="no", shadow=1)
    assert found == ["max_stale", "max_age", "key", "when", "max_entries", "on", "shadow"]


def test_what_is_fresh_is_not_too_old():
    """The one limit lies within the other."""
    assert wrong(StaleCache, 60, max_age=61) == ["max_age"]
    assert StaleCache(60, max_age=60).max_age == 60.0


async def later():
    """Stand for a function that nobody would await."""


@pytest.mark.parametrize("option", ["key", "when"])
def test_its_functions_are_plain(option):
    """A coroutine is always true, and no key."""
    assert wrong(StaleCache, 60, **{option: later}) == [option]


def generate():
    yield


async def agenerate():
    yield


@pytest.mark.parametrize("stream", [generate, agenerate])
def test_a_stream_is_refused(stream):
    """At decoration: it would have to be held as a whole."""
    with pytest.raises(ConfigurationError, match="hold the whole stream"):
        Stand(fallback=StaleCache(60)).guard(stream)
    with pytest.raises(ConfigurationError, match="hold the whole stream"):
        Stand(fallback=[StaleCache(60), lambda: ()]).guard(stream)


def test_a_stream_that_got_one_later_is_left_alone():
    """Given by ``configure``."""
    stand = Stand()
    stream = stand.guard(generate)
    stand.guard.configure(fallback=StaleCache(60))
    assert list(stream()) == [None]
    assert len(cache_of(stand)) == 0


def test_a_guard_with_a_cache_is_never_quiet():
    """It has to see the answers."""
    stand = Stand(fallback=StaleCache(60))
    assert stand.guard.switch.reasons == {"fallback"}


# -- when it answers ------------------------------------------------------------------------------------------------------------------


@both
def test_the_last_good_answer_is_given_when_the_call_fails(suspends):
    """To the same question, as good, up to its greatest age; the event says how old."""
    stand = Stand(fallback=StaleCache(60))
    script = Script("old", Boom())
    guarded = stand.callable(script, suspends)
    assert guarded(1) == "old"
    stand.clock.advance(60.0)
    assert guarded(1) == "old"
    assert stand.told(FallbackUsed) == [FallbackUsed("dependency", stand.clock.time(), "Boom", "StaleCache", stale=True, age=60.0)]
    assert stand.count(Outcome.GOOD) == stand.count() == 2
    with pytest.raises(Boom):
        guarded(2)
    stand.clock.advance(0.5)
    with pytest.raises(Boom):
        guarded(1)
    assert cache_of(stand).results() == {"fresh": 0, "stale": 1, "missing": 2}
    assert script.calls == 4


@both
def test_a_rejected_call_is_answered_too(suspends):
    """It stands outside of the breaker, and nothing is called."""
    stand = Stand(fallback=StaleCache(60), breaker=one_strike())
    script = Script("old")
    guarded = stand.callable(script, suspends)
    guarded()
    stand.resilience.breaker("dependency").force_open()
    assert guarded() == "old"
    assert script.calls == 1
    assert [event.error for event in stand.told(FallbackUsed)] == ["CircuitOpen"]


@both
def test_it_answers_after_the_last_attempt_only(suspends):
    """It stands outside of the retry."""
    stand = Stand(fallback=StaleCache(60), retry=Retry(attempts=3, wait=0.0))
    script = Script("old", Boom())
    guarded = stand.callable(script, suspends)
    guarded()
    assert guarded() == "old"
    assert script.calls == 4


@both
def test_only_what_is_named_is_answered(suspends):
    """Anything else reaches the caller as it is."""
    stand = Stand(fallback=StaleCache(60, on=Rejected))
    error = Boom()
    guarded = stand.callable(Script("old", error), suspends)
    guarded()
    with pytest.raises(Boom) as raised:
        guarded()
    assert raised.value is error


@both
def test_up_to_a_younger_age_no_call_is_made(suspends):
    """If that is wished; each answer ages from when it was asked for."""
    stand = Stand(fallback=StaleCache(60, max_age=10))
    script = Script("one", "two")

    def slow():
        stand.clock.advance(4.0)
        return script()

    guarded = stand.callable(slow, suspends)
    assert guarded() == "one"
    stand.clock.advance(6.0)
    assert (guarded(), script.calls) == ("one", 1)
    stand.clock.advance(0.5)
    assert (guarded(), script.calls) == ("two", 2)
    assert cache_of(stand).results()["fresh"] == 1
    assert stand.told(FallbackUsed) == []


@both
def test_an_answer_that_is_refused_is_replaced_and_not_remembered(suspends):
    """Without an older one it is better than nothing."""
    stand = Stand(fallback=StaleCache(60, when=lambda answer: answer == 503))
    guarded = stand.callable(Script(503, 200, 503), suspends)
    assert [guarded(), guarded(), guarded()] == [503, 200, 200]
    assert [event.error for event in stand.told(FallbackUsed)] == ["refused answer"]


def test_a_predicate_that_fails_takes_no_answer_away():
    """It is reported."""
    stand = Stand(fallback=StaleCache(60, when=lambda answer: answer["status"]))
    assert stand.guard(Script("fine"))() == "fine"
    assert [defect.error for defect in stand.told(DefectFound)] == ["TypeError"]


@both
def test_a_handler_answers_where_there_is_no_old_answer(suspends):
    """The cache comes first, and never remembers what the handler said."""
    stand = Stand(fallback=[StaleCache(60), Fallback(lambda *args: "instead", on=Boom)])
    guarded = stand.callable(Script(Boom(), "own", Boom()), suspends)
    assert [guarded(), guarded(), guarded()] == ["instead", "own", "own"]
    assert [event.stale for event in stand.told(FallbackUsed)] == [False, True]


@both
def test_in_shadow_mode_nothing_is_given(suspends):
    """Neither fresh nor stale: what would be is counted."""
    stand = Stand(fallback=StaleCache(60, max_age=10, shadow=True))
    script = Script("old", "new", Boom())
    guarded = stand.callable(script, suspends)
    assert [guarded(), guarded()] == ["old", "new"]
    with pytest.raises(Boom):
        guarded()
    assert stand.guard.shadow.counts() == {("stale_cache", "answer"): 1}
    assert [event.detail for event in stand.told(ShadowDecision)] == ["an answer of 0 s ago"]


# -- what it remembers ------------------------------------------------------------------------------------------------------------------


@both
def test_what_is_not_good_is_not_remembered(suspends):
    """Whatever the classifier calls bad or ignored, and what came too late."""
    verdicts = {"bad": Outcome.BAD, "ignored": Outcome.IGNORED}
    stand = Stand(fallback=StaleCache(60), classify=lambda result, error: verdicts.get(result))
    guarded = stand.callable(Script("good", "bad", "ignored", Boom()), suspends)
    assert [guarded() for _ in range(4)] == ["good", "bad", "ignored", "good"]


@both
def test_what_an_experiment_has_touched_is_not_remembered(suspends):
    """A delayed answer is right, but its age is not its own; a changed one is not even right."""
    stand = Stand(fallback=StaleCache(60))
    guarded = stand.callable(Script("touched", Boom()), suspends)

    class Rule:
        live, over = True, False

        def decide(self, _call=None):
            return True

        def strike(self, _decided=None):
            return type("Strike", (), {"delay": 0.25, "error": None, "after": None})()

        async def hold(self, runtime, seconds):
            return True

    stand.guard.faults.arm(Rule())
    assert guarded() == "touched"
    stand.guard.faults.disarm(stand.guard.faults.rules[0])
    with pytest.raises(Boom):
        guarded()


def test_an_answer_does_not_replace_one_that_was_asked_for_later():
    """The slow call of before ends after the quick one of now."""
    stand = Stand(fallback=StaleCache(60))

    @stand.guard
    async def call(number, gate):
        if gate is not None:
            await gate.wait()
        if number == 3:
            raise Boom
        return number

    stand.guard.configure(fallback=StaleCache(60, key=lambda number, gate: "one"))

    async def main():
        gate = asyncio.Event()
        slow = asyncio.ensure_future(call(1, gate))
        await asyncio.sleep(0)
        stand.clock.advance(1.0)
        assert await call(2, None) == 2
        gate.set()
        assert await slow == 1
        return await call(3, None)

    assert asyncio.run(main()) == 2


def test_calls_are_told_apart_by_function_and_arguments():
    """As a dictionary tells them apart; in whichever order they are named."""
    stand = Stand(fallback=StaleCache(60))
    first, second = stand.guard(Script("first", Boom())), stand.guard(Script("second", Boom()))
    first(1, a=1, b=2)
    second(1, a=1, b=2)
    assert first(1, b=2, a=1) == "first"
    assert second(1, a=1, b=2) == "second"
    for other in ((2,), {"a": 1, "b": 2}), ((1,), {"a": 1, "b": 3}), ((1, 1), {}):
        with pytest.raises(Boom):
            first(*other[0], **other[1])


def test_calls_are_told_apart_by_a_key_of_ones_own():
    """For each function by itself: two of one guard do not answer for one another."""
    stand = Stand(fallback=StaleCache(60, key=lambda user, trace: user))
    script = Script("first", Boom())

    @stand.guard
    def one(user, trace):
        return script()

    @stand.guard
    def other(user, trace):
        raise Boom

    assert [one("u", "t1"), one("u", "t2")] == ["first", "first"]
    with pytest.raises(Boom):
        other("u", "t1")
    with pytest.raises(Boom):
        one("v", "t1")


class Odd:
    """Has a hash, and cannot be compared."""

    def __hash__(self):
        return 1

    def __eq__(self, other):
        raise ValueError("cannot be compared")


@pytest.mark.parametrize(
    ("key", "argument", "error"),
    [
        (None, [], "TypeError"),
        (lambda argument: argument, {}, "TypeError"),
        (lambda argument: 1 / 0, 1, "ZeroDivisionError"),
        (None, Odd(), "ValueError"),
    ],
)
def test_what_has_no_key_is_called_and_forgotten(key, argument, error):
    """The caller gets the answer, or his own error, and it is reported once."""
    stand = Stand(fallback=StaleCache(60, key=key))
    guarded = stand.guard(Script("one", "two", Boom()))
    assert guarded(argument) == "one"
    other = Odd() if isinstance(argument, Odd) else argument
    assert guarded(other) == "two"
    with pytest.raises(Boom):
        guarded(Odd() if isinstance(argument, Odd) else argument)
    assert [defect.error for defect in stand.told(DefectFound)] == [error]


def test_it_holds_so_many_answers_and_no_more():
    """The one that was not used for longest goes first; fewer from the moment on at which fewer are allowed."""
    stand = Stand(fallback=StaleCache(60, max_entries=3))
    failing = False

    @stand.guard
    def call(number):
        if failing:
            raise Boom
        return number

    def known():
        found = []
        for number in range(10):
            try:
                found.append(call(number))
            except Boom:
                continue
        return found

    for number in (0, 1, 2):
        call(number)
    failing = True
    assert call(0) == 0
    failing = False
    call(3)
    failing = True
    assert known() == [0, 2, 3]
    stand.guard.configure(fallback=StaleCache(60, max_entries=1))
    assert len(cache_of(stand)) == 1
    assert known() == [3]
    cache_of(stand).clear()
    assert known() == []
    # A new answer is a use as well.
    stand.guard.configure(fallback=StaleCache(60, max_entries=3))
    failing = False
    for number in (0, 1, 2, 0, 3):
        call(number)
    failing = True
    assert known() == [0, 2, 3]


@pytest.mark.parametrize("rest", [[], [lambda: "instead"]], ids=["alone", "before a handler"])
def test_it_keeps_what_it_knows_when_its_options_change(rest):
    """Alone or at the head of a list; what takes its place begins with nothing."""
    stand = Stand(fallback=[StaleCache(60), *rest])
    guarded = stand.guard(Script("old", Boom()))
    guarded()
    stand.guard.configure(fallback=[StaleCache(30), *rest])
    stand.clock.advance(30.0)
    assert guarded() == "old"
    stand.guard.configure(fallback=[lambda: "instead", lambda: "never"])
    assert guarded() == "instead"
    assert stand.guard.fallback.cache is None
    stand.guard.configure(fallback=StaleCache(30))
    assert len(cache_of(stand)) == 0


def test_threads_share_it():
    """Whatever they do at once, each gets an answer to his own question."""
    stand = Stand(fallback=StaleCache(60, max_entries=5))
    turn = iter(range(10_000))

    @stand.guard
    def call(number):
        if next(turn) % 2:
            raise Boom
        return number

    def work(thread):
        for step in range(200):
            number = (thread + step) % 7
            try:
                assert call(number) == number
            except Boom:
                continue

    assert together(4, work) == [None] * 4
    assert len(cache_of(stand)) <= 5


@settings(max_examples=60)
@given(
    st.integers(1, 3),
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["good", "bad", "fails"]), st.sampled_from([0.0, 1.0, 4.0, 9.0])), max_size=25
    ),
)
def test_it_answers_as_a_simple_list_would(most, history):
    """Against a list of the good answers, the last used at its end."""
    stand = Stand(
        fallback=StaleCache(8, max_age=2, max_entries=most),
        classify=lambda result, error: Outcome.BAD if result and result[0] == "bad" else None,
    )
    listed: list[tuple[str, tuple[str, int], float]] = []
    now, plan = 0.0, "good"

    @stand.guard
    def call(name, number):
        if plan == "fails":
            raise Boom
        return plan, number

    stand.guard.configure(fallback=StaleCache(8, max_age=2, max_entries=most, key=lambda name, number: name))
    for number, (name, plan, pause) in enumerate(history):
        stand.clock.advance(pause)
        now += pause
        try:
            got = call(name, number)
        except Boom:
            got = None
        found = next((entry for entry in listed if entry[0] == name), None)
        expected = (plan, number) if plan != "fails" else None
        fresh = found is not None and now - found[2] <= 2
        stale = plan == "fails" and found is not None and now - found[2] <= 8
        if fresh or stale:
            expected = found[1]
        assert got == expected
        if found is not None:
            listed.remove(found)
            listed.append(found)
        if plan == "good" and not fresh:
            listed = [entry for entry in listed if entry[0] != name] + [(name, (plan, number), now)]
            listed = listed[-most:]
