"""Adaptive limit at a guard: its options, what it learns from which end, and that it stands where a bulkhead stands."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import nullcontext
from datetime import timedelta
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from somaresil import AdaptiveLimit, Bulkhead, BulkheadFull, CallTimedOut, Outcome, RateLimited
from somaresil.events import DefectFound, ShadowDecision
from somaresil.model.concurrency import Estimator
from tests.behaviour.kit import Boom, Stand, both, both_paths, turns
from tests.unit.kit import Visitor
from tests.unit.policy.kit import wrong

# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """A limit of 20, between 1 and 200; nobody waits unless told to."""
    options = AdaptiveLimit()
    assert (options.algorithm, options.initial, options.minimum, options.maximum) == ("gradient", 20, 1, 200)
    assert (options.max_waiting, options.max_wait, options.tolerance) == (0, 0.0, 1.5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.initial = 6


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("algorithm", ["gradient2", "", None, 1]),
        ("initial", [0, -1, 1_000_001, 2.0, "5", True]),
        ("minimum", [0, 2.5]),
        ("maximum", [0, 1_000_001]),
        ("max_waiting", [-1, 2.0, None]),
        ("max_wait", [-1, 86_400.5, "5"]),
        ("tolerance", [0.9, 10.5, "2", float("nan")]),
        ("queue", [-1, 2.5, "4"]),
        ("window", [0, -1, 3_601, "1"]),
        ("window_calls", [1, 0, 2.5]),
        ("drop_on", [5, "Timeout", (), (Boom, 3), int, Boom()]),
        ("prioritizer", ["shared", 5]),
        ("shadow", [1, "yes", None]),
    ],
)
def test_each_wrong_value_is_named(option, values):
    """An option outside its range is the one problem that is reported, whatever it would go together with."""
    for value in values:
        options = {"max_waiting": 5, "max_wait": 5.0, option: value}
        assert wrong(AdaptiveLimit, **options) == [option], value


def test_what_goes_together_is_looked_at_together():
    """The initial limit lies between the bounds; a line needs a time and a time a line; all problems come at once."""
    assert wrong(AdaptiveLimit, initial=5, minimum=10) == ["initial"]
    assert wrong(AdaptiveLimit, initial=50, maximum=10) == ["initial"]
    assert wrong(AdaptiveLimit, max_waiting=5) == ["max_wait"]
    assert wrong(AdaptiveLimit, max_wait=5.0) == ["max_waiting"]
    assert wrong(AdaptiveLimit, initial=0, algorithm="x", tolerance=0) == ["algorithm", "initial", "tolerance"]


def test_options_are_kept_in_one_form():
    """Seconds as floats, exceptions as a tuple."""
    options = AdaptiveLimit(window=timedelta(seconds=2), max_waiting=1, max_wait=timedelta(milliseconds=500), drop_on=[Boom, LookupError])
    assert options == AdaptiveLimit(window=2.0, max_waiting=1, max_wait=0.5, drop_on=(Boom, LookupError))
    assert wrong(Stand, bulkhead=AdaptiveLimit) == ["bulkhead"]


# -- what is learnt from which end ----------------------------------------------------------------------------------------------------


class Learnt:
    """A guard with an adaptive limit, and what its model is told."""

    def __init__(self, monkeypatch, *, held: bool = False, **options) -> None:
        self.told: list[tuple[str, float, int]] = []
        for kind in ("sample", "drop"):
            monkeypatch.setattr(Estimator, kind, self.note(kind))
        limit = {name: options.pop(name) for name in list(options) if name in {"drop_on", "shadow", "initial"}}
        self.stand = Stand(held=held, bulkhead=AdaptiveLimit(**limit), **options)

    def note(self, kind):
        """What the model does when it is told something."""

        def note(_model, seconds, _now, inside):
            self.told.append((kind, seconds, inside))
            return False

        return note

    def after(self, seconds: float, error: BaseException | None = None, suspends: bool = False):
        """One call that ends after so long; what the model was told."""

        def callee():
            self.stand.clock.advance(seconds)
            if error is not None:
                raise error
            return "fine"

        with nullcontext() if error is None else pytest.raises(type(error)):
            self.stand.callable(callee, suspends)()
        told, self.told = self.told, []
        assert self.stand.guard.bulkhead.active == 0
        return told


class Limited(Exception):
    """An answer that says when to come back."""

    retry_after = 3.0


class Garbled(Exception):
    """One whose time cannot be read."""

    headers: ClassVar = {"Retry-After": "soon"}


@both_paths
@both
def test_good_answers_are_samples_and_signs_of_overload_are_drops(held, suspends, monkeypatch):
    """On the express path as on the full path: what took how long, with how many inside."""
    learnt = Learnt(monkeypatch, held=held, drop_on=ZeroDivisionError)
    assert learnt.after(0.5, suspends=suspends) == [("sample", 0.5, 1)]
    for error in (TimeoutError(), RateLimited("another"), CallTimedOut("another", 1.0), Limited(), Garbled(), ZeroDivisionError()):
        assert learnt.after(0.25, error, suspends) == [("drop", 0.25, 1)], error
    for error in (Boom(), LookupError(), KeyboardInterrupt(), SystemExit(), asyncio.CancelledError()):
        assert learnt.after(0.25, error, suspends) == [], error


@both_paths
def test_more_signs_of_overload_may_be_a_question(held, monkeypatch):
    """A predicate on the exception; one that raises is reported once and says nothing."""
    learnt = Learnt(monkeypatch, held=held, drop_on=lambda error: "much" in error.args[0])
    assert learnt.after(0.25, Boom("too much")) == [("drop", 0.25, 1)]
    assert learnt.after(0.25, Boom("no such row")) == []
    assert learnt.after(0.25, Boom()) == []
    assert len(learnt.stand.told(DefectFound)) == 1


def test_ignored_answers_say_nothing_and_bad_ones_by_their_time(monkeypatch):
    """A classifier has looked at them; without an error a bad answer is a sign of overload when it took more than twice the baseline."""
    says = {"outcome": Outcome.IGNORED}
    learnt = Learnt(monkeypatch, classify=lambda result, error: says["outcome"])
    assert learnt.after(0.25) == []
    says["outcome"] = Outcome.BAD
    assert learnt.after(0.25) == []
    learnt.stand.guard.bulkhead._model.baseline = 0.25
    assert learnt.after(0.5) == []
    assert learnt.after(0.75) == [("drop", 0.75, 1)]


def test_what_is_being_handled_outside_is_no_sign(monkeypatch):
    """A call made while its caller deals with a timeout of something else, with an answer that the classifier calls bad."""
    learnt = Learnt(monkeypatch, classify=lambda result, error: Outcome.BAD)
    try:
        raise TimeoutError
    except TimeoutError:
        assert learnt.after(0.25) == []


@both_paths
def test_a_timeout_of_the_guard_is_a_drop(held, monkeypatch):
    """It stands inside the limit."""
    learnt = Learnt(monkeypatch, held=held, timeout=0.01)

    @learnt.stand.guard
    async def hangs():
        await asyncio.Event().wait()

    with pytest.raises(CallTimedOut):
        asyncio.run(hangs())
    assert [kind for kind, _, _ in learnt.told] == ["drop"]
    assert learnt.stand.guard.bulkhead.active == 0


def test_a_call_that_the_deadline_cut_off_is_a_drop(monkeypatch):
    """It had most of the time that the request had."""
    learnt = Learnt(monkeypatch)
    error = asyncio.CancelledError()
    with learnt.stand.resilience.deadline(1.0):
        assert learnt.after(2.0, error) == [("drop", 2.0, 1)]


def test_a_stream_is_a_sample_when_its_first_item_is_there(monkeypatch):
    """How long it goes on is up to its length; it holds its slot to the end."""
    learnt = Learnt(monkeypatch)
    guard, clock = learnt.stand.guard, learnt.stand.clock

    @guard
    def stream(fails):
        clock.advance(0.5)
        if fails:
            raise TimeoutError
        yield 1
        clock.advance(60.0)
        yield 2

    items = stream(fails=False)
    assert next(items) == 1
    assert learnt.told == [("sample", 0.5, 1)]
    assert guard.bulkhead.active == 1
    assert list(items) == [2]
    assert (guard.bulkhead.active, len(learnt.told)) == (0, 1)
    with pytest.raises(TimeoutError):
        list(stream(fails=True))
    assert learnt.told[1:] == [("drop", 0.5, 1)]
    assert guard.bulkhead.active == 0


def test_a_block_is_a_sample_when_it_ends(monkeypatch):
    """What stands in it is the call."""
    learnt = Learnt(monkeypatch)
    guard = learnt.stand.guard
    with guard:
        learnt.stand.clock.advance(2.0)
        assert (learnt.told, guard.bulkhead.active) == ([], 1)
    assert learnt.told == [("sample", 2.0, 1)]
    assert guard.bulkhead.active == 0


def test_a_rescued_call_needs_no_slot_for_what_it_has_done_already(monkeypatch):
    """The attempt that failed before is not learnt from twice."""
    learnt = Learnt(monkeypatch, fallback=lambda: "instead")
    assert learnt.stand.guard.call(lambda: 1 // 0) == "instead"
    assert learnt.told == []
    learnt.stand.guard.call(lambda: 1)
    assert learnt.told == [("sample", 0.0, 1)]


def test_a_model_that_fails_is_reported_and_not_noticed(monkeypatch):
    """Once; the call has its answer, and its slot is free."""
    stand = Stand(bulkhead=AdaptiveLimit())

    def broken(*args):
        raise RuntimeError("planted")

    monkeypatch.setattr(Estimator, "sample", broken)
    assert [stand.succeed() for _ in range(3)] == ["fine"] * 3
    assert len(stand.told(DefectFound)) == 1
    assert stand.guard.bulkhead.active == 0


# -- at work --------------------------------------------------------------------------------------------------------------------------


@both_paths
def test_the_limit_grows_while_it_is_used_and_answers_come_as_fast(held):
    """And is readable, with what it goes by."""
    stand = Stand(held=held, bulkhead=AdaptiveLimit(initial=2, window_calls=2))
    limit = stand.guard.bulkhead
    assert (limit.limit, limit.active, limit.waiting, limit.baseline) == (2, 0, 0, None)

    def nested(depth):
        stand.clock.advance(0.5)
        return stand.guard.call(nested, depth - 1) if depth else stand.clock.advance(0.5)

    for _ in range(40):
        nested(limit.limit)
    assert limit.limit > 3
    assert 0.5 < limit.baseline < 4.0
    assert (limit.active, limit.waiting) == (0, 0)


def test_drops_shrink_the_limit_and_those_inside_finish():
    """Beyond the limit nobody is let in; those in line are served as it grows again."""
    stand = Stand(bulkhead=AdaptiveLimit(initial=8, window_calls=2, max_waiting=2, max_wait=60.0))
    line = stand.guard.bulkhead.line
    inside = [Visitor(line) for _ in range(8)]
    waiting = Visitor(line)
    stand.clock.advance(2.0)
    for visitor in inside[:2]:
        stand.guard.bulkhead.learn(Outcome.BAD, 2.0, stand.clock.monotonic(), TimeoutError(), 8)
        assert visitor.slot is not None
    assert (stand.guard.bulkhead.limit, line.active, line.waiting) == (4, 8, 1)
    for visitor in inside[:4]:
        visitor.leave()
    assert not waiting.woken
    inside[4].leave()
    assert waiting.step().slot is not None
    assert isinstance(Visitor(line, left=0.0).error, BulkheadFull)


@both
def test_a_full_limit_rejects_as_a_bulkhead_does(suspends):
    """The call counts as rejected, and the guard names its place."""
    stand = Stand(bulkhead=AdaptiveLimit(initial=1))
    stand.fill()
    assert isinstance(stand.fail(suspends), BulkheadFull)
    assert stand.count(Outcome.REJECTED) == 1
    stand.free()
    assert stand.succeed(suspends) == "fine"
    assert stand.guard.pipeline == ("record", "bulkhead", "fault", "callee")


def test_other_options_keep_what_is_known_and_another_kind_starts_anew():
    """Calls that hold a slot keep it either way."""
    stand = Stand(bulkhead=AdaptiveLimit(initial=4))
    stand.fill()
    before = stand.guard.bulkhead
    before._model.baseline = 0.5
    stand.guard.configure(bulkhead=AdaptiveLimit(initial=2, maximum=3))
    assert stand.guard.bulkhead is before
    assert (before.limit, before.active, before.baseline) == (3, 1, 0.5)
    stand.guard.configure(bulkhead=Bulkhead(7))
    assert stand.guard.bulkhead is not before
    assert (stand.guard.bulkhead.limit, stand.guard.bulkhead.active) == (7, 0)
    before.leave(stand._slots.pop(), Outcome.GOOD, 0.1, stand.clock.monotonic())
    assert before.active == 0
    stand.guard.configure(bulkhead=AdaptiveLimit())
    assert stand.guard.bulkhead.limit == 20


@both
@pytest.mark.parametrize(
    ("policy", "options", "detail"),
    [
        ("adaptive_limit", AdaptiveLimit(initial=1, max_waiting=5, max_wait=60.0, shadow=True), "1 calls running, limit 1"),
        ("bulkhead", Bulkhead(1, 5, 60.0, shadow=True), "1 calls running"),
    ],
)
def test_in_shadow_mode_nobody_is_rejected_and_nobody_waits(suspends, policy, options, detail):
    """What would have been is counted and told; the call goes on without a slot."""
    stand = Stand(bulkhead=options)
    stand.fill()
    assert stand.succeed(suspends) == "fine"
    assert stand.guard.shadow.counts() == {(policy, "reject"): 1}
    assert [(event.policy, event.detail) for event in stand.told(ShadowDecision)] == [(policy, detail)]
    assert (stand.guard.bulkhead.active, stand.count(Outcome.GOOD)) == (1, 1)
    stand.free()
    assert stand.succeed(suspends) == "fine"
    assert len(stand.told(ShadowDecision)) == 1


def test_a_limit_in_shadow_sheds_nothing_elsewhere():
    """Nor does it heed what others shed."""
    stand = Stand()
    shared = stand.resilience.prioritizer()
    stand.guard.configure(bulkhead=AdaptiveLimit(prioritizer=shared, shadow=True))
    assert len(shared._sources) == 0
    stand.guard.configure(bulkhead=AdaptiveLimit(prioritizer=shared))
    assert len(shared._sources) == 1


def test_cancelled_waiters_leave_the_line_to_the_others():
    """As at a bulkhead; nothing is learnt from them."""
    from somaresil import Resilience
    from tests.behaviour.kit import Gate

    guard = Resilience("tests").guard("dependency", bulkhead=AdaptiveLimit(initial=1, max_waiting=3, max_wait=60.0))
    gate = Gate()

    async def main():
        call = guard(gate.aenter)
        tasks = [asyncio.ensure_future(call()) for _ in range(3)]
        await turns()
        tasks[1].cancel()
        await turns()
        assert (guard.bulkhead.active, guard.bulkhead.waiting) == (1, 1)
        gate.open()
        assert await asyncio.gather(tasks[0], tasks[2]) == ["fine", "fine"]

    asyncio.run(main())
    assert (guard.bulkhead.active, guard.bulkhead.waiting) == (0, 0)


# -- against a plain reference --------------------------------------------------------------------------------------------------------


class Limits(RuleBasedStateMachine):
    """Calls that come and end at a guard, beside a count of those inside and what the model said last."""

    def __init__(self) -> None:
        super().__init__()
        self.stand = Stand(bulkhead=AdaptiveLimit(initial=3, maximum=6, window_calls=3, window=0.5), listening=False)
        self.policy = self.stand.guard.bulkhead
        self.inside: list[tuple[object, float]] = []

    @rule()
    def come(self):
        """Let in exactly while there are fewer inside than the model says."""
        token = self.policy.try_enter()
        assert (token is not None) == (len(self.inside) < self.policy._model.limit)
        if token is not None:
            self.inside.append((token, self.stand.clock.monotonic()))

    @rule(
        data=st.data(),
        outcome=st.sampled_from([Outcome.GOOD, Outcome.GOOD, Outcome.BAD, Outcome.ABANDONED, Outcome.IGNORED, Outcome.REJECTED]),
        error=st.sampled_from([TimeoutError(), Boom()]),
        seconds=st.sampled_from([0.0, 0.1, 0.7, 5.0]),
    )
    def end(self, data, outcome, error, seconds):
        """One ends; only good answers and signs of overload may change the limit."""
        if not self.inside:
            return
        token, since = self.inside.pop(data.draw(st.integers(0, len(self.inside) - 1)))
        self.stand.clock.advance(seconds)
        now, before = self.stand.clock.monotonic(), self.policy.limit
        try:
            raise error
        except (TimeoutError, Boom):
            self.policy.leave(token, outcome, now - since, now)
        if outcome not in {Outcome.GOOD, Outcome.BAD} or (outcome is Outcome.BAD and isinstance(error, Boom)):
            assert self.policy.limit == before

    @rule(maximum=st.integers(1, 6))
    def change(self, maximum):
        """Other bounds hold at once."""
        self.stand.guard.configure(bulkhead=AdaptiveLimit(initial=1, maximum=maximum, window_calls=3, window=0.5))
        assert self.policy.limit <= maximum

    @invariant()
    def counts_agree(self):
        """The line has the limit of the model, and as many inside as are."""
        assert self.stand.guard.bulkhead is self.policy
        assert self.policy.line.limit == self.policy.limit
        assert self.policy.active == len(self.inside)

    def teardown(self):
        """All slots are free when all have gone."""
        for token, _ in self.inside:
            self.policy.leave(token, Outcome.GOOD, 0.0, self.stand.clock.monotonic())
        assert self.policy.active == 0


TestLimits = Limits.TestCase
TestLimits.settings = settings(max_examples=40, stateful_step_count=40)
