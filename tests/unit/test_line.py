"""The line of bulkheads and adaptive limits: no slot is lost, nobody overtakes, and who matters more goes first."""

from __future__ import annotations

import threading
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from somaresil import BulkheadFull, LoadShed, ManualClock, Resilience
from somaresil.line import Line
from somaresil.priority import CLASSES, Prioritizer, priority
from tests.behaviour.kit import together
from tests.unit.kit import Visitor, step_woken


def line(limit: int = 1, waiting: int = 10, *, clock: ManualClock | None = None, prioritizer: Prioritizer | None = None) -> Line:
    """So many slots, and room for so many in line."""
    return Line("guard", clock or ManualClock(), limit, waiting, 60.0 if waiting else 0.0, prioritizer)


# -- slots ----------------------------------------------------------------------------------------------------------------------------


def test_slots_are_made_when_they_are_needed():
    """A limit far above what is ever used costs nothing; what is given back is used again."""
    slots = line(1_000_000, 0)
    first = slots.try_enter()
    second = slots.try_enter()
    assert (slots.active, slots._issued) == (2, 2)
    slots.leave(second)
    assert slots.try_enter() is second
    slots.leave(first)
    slots.leave(second)
    assert (slots.active, slots._issued) == (0, 2)


def test_no_lock_is_taken_while_nobody_waits():
    """Once there is a slot, coming and going is two steps of a deque."""
    slots = line(3)
    slots.leave(slots.try_enter())
    with slots._lock:
        slot = threading_result(slots.try_enter)
        assert slot is not None
        threading_result(lambda: slots.leave(slot))
    assert slots.active == 0


def threading_result(work):
    """What comes of it in another thread; an error if that hangs."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(5.0)
    assert found, "it waits for the lock"
    return found[0]


def test_without_a_line_the_full_are_told_at_once():
    """How many run and wait; nobody waits where there is no line, or no time."""
    slots = line(1, 0)
    assert Visitor(slots).slot is not None
    refused = Visitor(slots).error
    assert isinstance(refused, BulkheadFull)
    assert refused.detail == "1 calls running, 0 waiting"
    hurried = line(1)
    assert Visitor(hurried).slot is not None
    assert isinstance(Visitor(hurried, left=0.0).error, BulkheadFull)
    assert Visitor(hurried, left=1.0).waits


# -- who goes first -------------------------------------------------------------------------------------------------------------------


def test_the_highest_class_is_served_first():
    """Within a class, who came first."""
    slots = line()
    inside = Visitor(slots)
    visitors = [Visitor(slots, level) for level in ("low", "normal", "critical", "background", "normal", "critical", "high")]
    served = []
    for _ in visitors:
        inside.leave()
        step_woken(visitors)
        (inside,) = [visitor for visitor in visitors if visitor.slot is not None]
        served.append(visitors.index(inside))
    assert served == [2, 5, 6, 1, 4, 0, 3]


def test_within_a_class_the_tenant_goes_first_that_has_had_least():
    """One with a hundred calls in line gets no more than one with two."""
    clock = ManualClock()
    slots = line(1, 200, clock=clock)
    inside = Visitor(slots, tenant="greedy")
    crowd = [Visitor(slots, tenant="greedy") for _ in range(100)]
    others = [Visitor(slots, tenant="modest") for _ in range(3)]
    visitors = [*crowd, *others]
    order = []
    for _ in range(6):
        clock.advance(1.0)
        inside.leave()
        step_woken(visitors)
        (inside,) = [visitor for visitor in visitors if visitor.slot is not None]
        order.append(inside in others)
    assert order == [True, False, True, False, True, False]


def test_time_is_what_counts_not_the_number_of_calls():
    """A tenant whose calls take a minute waits for one whose calls take a second, call after call."""
    clock = ManualClock()
    slots = line(1, 200, clock=clock)
    visitors = [Visitor(slots, tenant=tenant) for tenant in ["slow", "quick"] * 20]
    had = {"slow": 0.0, "quick": 0.0}
    for _ in range(20):
        (inside,) = [visitor for visitor in visitors if visitor.slot is not None]
        seconds = 60.0 if inside._tenant == "slow" else 1.0
        clock.advance(seconds)
        had[inside._tenant] += 1
        inside.leave()
        step_woken(visitors)
    assert had["quick"] > 3 * had["slow"] > 0


def test_calls_without_a_tenant_are_one_tenant():
    """Once tenants are told apart, everybody's use is counted; when they are forgotten, nobody looks any more."""
    clock = ManualClock()
    slots = line(2, clock=clock)
    anonymous = Visitor(slots)
    assert not slots._attended
    with priority(tenant="acme"):
        slot = slots.try_enter()
    assert slots._attended
    anonymous.leave()
    second = slots.try_enter()
    clock.advance(30.0)
    slots.leave(slot)
    slots.leave(second)
    assert slots._usage.used(None, clock.monotonic()) == pytest.approx(30.0)
    with priority(tenant="acme"):
        slot = slots.try_enter()
    assert slots._usage.used("acme", clock.monotonic()) > 30.0, "charged in advance"
    clock.advance(1.0)
    slots.leave(slot)
    assert slots._usage.used("acme", clock.monotonic()) == pytest.approx(31.0, rel=0.02)
    clock.advance(3_600.0)
    slots.leave(slots.try_enter())
    clock.advance(3_600.0)
    slots.leave(slots.try_enter())
    assert not slots._attended
    assert slots.active == 0


# -- a full line ----------------------------------------------------------------------------------------------------------------------


def test_a_more_important_call_takes_the_place_of_the_newest_of_the_least_important():
    """Which is told why, and is not counted among those inside."""
    slots = line(1, 3)
    inside = Visitor(slots)
    waiting = [Visitor(slots, level) for level in ("low", "low", "high")]
    urgent = Visitor(slots, "critical")
    assert urgent.waits
    assert waiting[1].woken
    gone = waiting[1].step().error
    assert isinstance(gone, LoadShed)
    assert gone.detail == "a more important call took its place in the line"
    assert slots.waiting == 3
    assert isinstance(Visitor(slots, "low").error, BulkheadFull)
    inside.leave()
    step_woken([urgent, *waiting])
    assert urgent.slot is not None


def test_nobody_gives_way_to_an_equal():
    """Or the newest would always win, and nobody would ever be served."""
    slots = line(1, 2)
    Visitor(slots)
    waiting = [Visitor(slots, "high") for _ in range(2)]
    assert isinstance(Visitor(slots, "high").error, BulkheadFull)
    assert all(visitor.waits and not visitor.woken for visitor in waiting)


def test_whoever_is_sent_away_while_it_is_cancelled_leaves_nothing_behind():
    """It had no slot to give back."""
    slots = line(1, 1)
    inside = Visitor(slots)
    gone = Visitor(slots, "low")
    urgent = Visitor(slots, "critical")
    assert isinstance(gone.step(KeyboardInterrupt()).error, KeyboardInterrupt)
    assert (slots.active, slots.waiting) == (1, 1)
    inside.leave()
    assert urgent.step().slot is not None


# -- two at once ----------------------------------------------------------------------------------------------------------------------


class Watched(deque):
    """A deque in which something happens just before and just after a step, as another thread might do it."""

    before_append = after_append = after_pop = after_nothing = staticmethod(lambda: None)

    def once(self, hook):
        """Take a hook off before it is called: what it does comes by here, too."""
        found = getattr(self, hook)
        setattr(self, hook, lambda: None)
        found()

    def append(self, slot):
        self.once("before_append")
        super().append(slot)
        self.once("after_append")

    def pop(self):
        try:
            slot = super().pop()
        except IndexError:
            self.once("after_nothing")
            raise
        self.once("after_pop")
        return slot


@pytest.mark.parametrize("moment", ["before_append", "after_append"])
def test_who_stands_in_line_just_as_a_slot_comes_back_gets_it(moment):
    """Whichever of the two is first, nobody waits beside a free slot."""
    slots = line()
    slots._free = Watched()
    inside = Visitor(slots)
    came = []
    setattr(slots._free, moment, lambda: came.append(Visitor(slots)))
    inside.leave()
    step_woken(came)
    assert came[0].slot is not None
    assert (slots.active, slots.waiting) == (1, 0)


@pytest.mark.parametrize("look", [1, 2, 3, 4])
def test_a_slot_that_comes_back_between_two_looks_is_not_overlooked(look):
    """Somebody finds none, and one comes back before it stands in line, or just after it has looked for the last time."""
    slots = line()
    slots._free = Watched()
    inside = Visitor(slots)
    looks = []

    def again():
        looks.append(True)
        if len(looks) == look:
            inside.leave()
        slots._free.after_nothing = again

    slots._free.after_nothing = again
    visitor = Visitor(slots)
    assert len(looks) >= look
    step_woken([visitor])
    assert visitor.slot is not None
    assert (slots.active, slots.waiting) == (1, 0)


def test_who_finds_a_slot_while_others_wait_gives_it_to_them():
    """Another stands in line between the moment at which the slot was taken and the look at the line."""
    slots = line()
    slots._free = Watched()
    Visitor(slots).leave()
    came = []
    slots._free.after_pop = lambda: came.append(Visitor(slots))
    assert slots.try_enter() is None
    step_woken(came)
    assert came[0].slot is not None
    assert (slots.active, slots.waiting) == (1, 0)


def test_a_limit_that_shrinks_while_a_slot_comes_back_is_kept():
    """The slot is given up, not handed on."""
    slots = line(2)
    slots._free = Watched()
    first, second = Visitor(slots), Visitor(slots)
    slots._free.before_append = lambda: slots.resize(lambda: 1)
    first.leave()
    waiting = Visitor(slots)
    assert waiting.waits
    assert slots.active == 1
    second.leave()
    assert waiting.step().slot is not None
    assert (slots.active, slots._issued) == (1, 1)


@pytest.mark.parametrize("step", ["_hand_over", "_spare", "_trim"])
def test_a_call_that_ends_in_the_middle_of_serving_is_served_too(step, monkeypatch):
    """The collector may end a forgotten stream while a slot is being handed over, or after the last was, in the same thread."""
    slots = line(2)
    first, second = Visitor(slots), Visitor(slots)
    waiting = [Visitor(slots), Visitor(slots)]
    usual = getattr(Line, step)

    def interrupted(self, *args):
        found = usual(self, *args)
        if second.slot is not None and (step != "_spare" or found is None):
            second.leave()
        return found

    monkeypatch.setattr(Line, step, interrupted)
    first.leave()
    assert all(visitor.woken for visitor in waiting)
    step_woken(waiting)
    assert all(visitor.slot is not None for visitor in waiting)
    assert (slots.active, slots.waiting) == (2, 0)


def test_a_call_that_is_made_in_the_middle_of_serving_does_not_wait():
    """It would wait for its own thread."""
    slots = line(1)
    Visitor(slots)
    slots._busy = True
    assert isinstance(Visitor(slots).error, BulkheadFull)
    slots._busy = False
    assert Visitor(slots).waits


def test_threads_of_all_classes_and_tenants_lose_no_slot():
    """With the limit changing meanwhile: never more inside than ever allowed, and all slots free at the end."""
    guard = Resilience("tests").guard("dependency", bulkhead=4)
    guard.bulkhead.line.reconfigure(4, 8, 60.0, None)
    inside, most, lock, levels = 0, 0, threading.Lock(), list(CLASSES)

    @guard
    def work():
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1

    def many(number):
        for turn in range(60):
            with priority(levels[(number + turn) % 5], tenant=(None, "a", "b")[turn % 3] if turn % 20 < 10 else None):
                work()
            if turn % 10 == 0:
                guard.bulkhead.line.resize(lambda limit=2 + turn % 3: limit)

    assert together(8, many) == [None] * 8
    assert most <= 4
    slots = guard.bulkhead.line
    assert (slots.active, slots.waiting, slots._busy) == (0, 0, False)


# -- against a plain reference --------------------------------------------------------------------------------------------------------


class Slots(RuleBasedStateMachine):
    """A line beside two lists: who is inside, and who waits in which order. No time passes, so tenants have equal shares."""

    def __init__(self) -> None:
        super().__init__()
        self.limit, self.room = 2, 3
        self.line = line(self.limit, self.room)
        self.inside: list[Visitor] = []
        self.waiting: list[tuple[int, Visitor]] = []
        self.taken: list[object] = []

    @property
    def active(self) -> int:
        return len(self.inside) + len(self.taken)

    def serve(self):
        """Move those up who have a slot now: the highest class, the first of it."""
        while self.waiting and self.active < self.limit:
            rank, one = min(self.waiting, key=lambda entry: -entry[0])
            self.waiting.remove((rank, one))
            assert one.woken
            assert one.step().slot is not None
            self.inside.append(one)

    @rule(level=st.sampled_from(list(CLASSES)))
    def come(self, level):
        """Somebody wants in."""
        visitor, rank = Visitor(self.line, level), CLASSES[level]
        if not self.waiting and self.active < self.limit:
            assert visitor.slot is not None
            self.inside.append(visitor)
            return
        lowest = min((rank for rank, _ in self.waiting), default=rank)
        room = len(self.waiting) < self.room
        if not room and self.room and lowest < rank:
            room = True
            gone = [entry for entry in self.waiting if entry[0] == lowest][-1]
            self.waiting.remove(gone)
            assert isinstance(gone[1].step().error, LoadShed)
        if room:
            assert visitor.waits
            self.waiting.append((rank, visitor))
        else:
            assert isinstance(visitor.error, BulkheadFull)

    @rule()
    def come_in_one_step(self):
        """Somebody takes a slot if there is one, and does not wait."""
        slot = self.line.try_enter()
        assert (slot is not None) == (not self.waiting and self.active < self.limit)
        if slot is not None:
            self.taken.append(slot)

    @rule(data=st.data())
    def leave(self, data):
        """Somebody goes."""
        if self.inside:
            one = data.draw(st.sampled_from(self.inside))
            self.inside.remove(one)
            one.leave()
        elif self.taken:
            self.line.leave(self.taken.pop())
        self.serve()

    @rule(data=st.data(), cancelled=st.booleans())
    def give_up(self, data, cancelled):
        """Somebody has waited long enough, or is cancelled."""
        if self.waiting:
            entry = data.draw(st.sampled_from(self.waiting))
            self.waiting.remove(entry)
            error = entry[1].step(KeyboardInterrupt() if cancelled else None).error
            assert isinstance(error, KeyboardInterrupt if cancelled else BulkheadFull)

    @rule(limit=st.integers(1, 4), room=st.integers(0, 4))
    def change(self, limit, room):
        """The limits are others; who stands in line stays there."""
        self.limit, self.room = limit, room
        self.line.reconfigure(limit, room, 60.0 if room else 0.0, None)
        self.serve()

    @invariant()
    def counts_agree(self):
        """Inside, in line, and nobody waits beside a free slot."""
        assert (self.line.active, self.line.waiting) == (self.active, len(self.waiting))
        assert not self.waiting or self.active >= self.limit
        assert self.line._attended or not self.waiting

    def teardown(self):
        """When all have gone, all slots are free, and nobody looks any more."""
        for one in [*self.inside]:
            self.inside.remove(one)
            one.leave()
            self.serve()
        for slot in self.taken:
            self.line.leave(slot)
        self.taken = []
        while self.inside or self.waiting:
            self.serve()
            self.inside.pop().leave()
        assert (self.line.active, self.line._attended) == (0, False)


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=60, stateful_step_count=40)
