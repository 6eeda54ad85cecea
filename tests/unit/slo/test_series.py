"""What is an event of an objective, and in which window it lies."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import tracemalloc
from datetime import timedelta

import pytest

from somaresil import SLO, CircuitOpen, ConfigurationError, ManualClock, Outcome, Resilience
from tests.unit.slo.kit import DAY, HOUR, availability, bad, breaker, good, process, slow

LATENCY = SLO("fast", 95.0, timedelta(days=7), latency=2.0)


def test_good_and_bad_calls_are_events():
    """Of the default indicator: ended well, or failed."""
    resilience, _ = process(availability())
    guard = resilience.guard("x", slo="up")
    good(guard, 3)
    bad(guard, 2)
    assert resilience.slos.counts("up", HOUR) == (3, 2)


def test_a_rejection_is_bad():
    """A circuit that opens must not make the numbers look better."""
    resilience, _ = process(availability())
    guard = resilience.guard("x", slo="up", breaker=breaker())
    bad(guard, 2)
    for _ in range(3):
        with pytest.raises(CircuitOpen):
            guard.call(lambda: None)
    assert resilience.slos.counts("up", HOUR) == (0, 5)


def test_abandoned_and_ignored_calls_are_no_events():
    """Nothing is known about them, or they say nothing."""
    resilience, _ = process(availability())
    leaves = resilience.guard("leaves", slo="up")
    ignores = resilience.guard("ignores", slo="up", classify=lambda result, error: Outcome.IGNORED)

    async def hang():
        await asyncio.Event().wait()

    async def leave():
        task = asyncio.ensure_future(leaves.acall(hang))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(leave())
    with pytest.raises(KeyboardInterrupt):
        leaves.call(_interrupt)
    good(ignores, 2)
    bad(ignores)
    assert leaves.recorder.counts().total(Outcome.ABANDONED) == 2
    assert ignores.recorder.counts().total(Outcome.IGNORED) == 3
    assert resilience.slos.counts("up", HOUR) == (0, 0)


def _interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(("seconds", "counts"), [(0.0, (1, 0)), (1.99, (1, 0)), (2.0, (1, 0)), (2.01, (0, 1)), (500.0, (0, 1))])
def test_a_latency_threshold_is_exact_and_inclusive(seconds, counts):
    """Two seconds is in time, a hundredth more is late: the threshold is a bound of the recorder, not a neighbour of one."""
    resilience, clock = process(LATENCY)
    guard = resilience.guard("x", slo="fast")
    good(guard)  # settles the books, so that the next call is a quiet one
    before = resilience.slos.counts("fast", HOUR)
    slow(guard, clock, seconds)
    after = resilience.slos.counts("fast", HOUR)
    assert (after[0] - before[0], after[1] - before[1]) == counts


def test_a_fast_failure_is_not_in_time():
    """Good means answered and in time."""
    resilience, _ = process(LATENCY)
    bad(resilience.guard("x", slo="fast"))
    assert resilience.slos.counts("fast", HOUR) == (0, 1)


def test_one_guard_feeds_several_objectives():
    """The same calls, judged by each of them."""
    resilience, clock = process(availability(), LATENCY, SLO("faster", 95.0, timedelta(days=7), latency=0.3))
    guard = resilience.guard("x", slo=["up", "fast", "faster"])
    good(guard, 4)
    slow(guard, clock, 1.0)
    slow(guard, clock, 3.0)
    bad(guard)
    counts = [resilience.slos.counts(name, HOUR) for name in ("up", "fast", "faster")]
    assert counts == [(6, 1), (5, 2), (4, 3)]


def test_several_guards_feed_one_objective():
    """Their events add up; a guard that does not name it adds nothing."""
    resilience, clock = process(availability())
    for name in ("a", "b", "c"):
        guard = resilience.guard(name, slo="up")
        good(guard, 2)
        bad(guard)
        clock.advance(7.0)
    good(resilience.guard("stranger"), 5)
    assert resilience.slos.counts("up", HOUR) == (6, 3)
    assert resilience.slos.series("up").sources == 3


def test_a_source_counts_once():
    """Attached twice, it is looked at once."""
    resilience, _ = process(availability())
    guard = resilience.guard("x", slo="up")
    resilience.slos.attach("up", guard.recorder)
    good(guard, 3)
    assert resilience.slos.counts("up", HOUR) == (3, 0)


def test_an_objective_counts_from_when_it_is_attached():
    """What a guard did before is nobody's event."""
    resilience, clock = process()
    guard = resilience.guard("x")
    good(guard, 5)
    bad(guard, 5)
    clock.advance(HOUR)
    resilience.slos.add(availability())
    resilience.slos.attach("up", guard.recorder)
    assert resilience.slos.counts("up", HOUR) == (0, 0)
    good(guard, 2)
    bad(guard)
    assert resilience.slos.counts("up", HOUR) == (2, 1)
    assert resilience.slos.series("up").totals() == (2, 1)


def test_an_objective_that_is_attached_while_the_books_are_settled_is_not_forgotten():
    """Another thread is in the middle of settling; boundaries passed after that must be noted before anything behind them is counted."""
    resilience, clock = process()
    guard = resilience.guard("x")
    good(guard)

    class Meanwhile:
        due = float("-inf")

        def roll(self, now):
            if not resilience.slos.names:
                resilience.slos.add(availability())
                resilience.slos.attach("up", guard.recorder)
            self.due = float("inf")

    guard.recorder.attach(Meanwhile())
    good(guard)
    bad(guard)
    clock.advance(HOUR)
    good(guard)
    clock.advance(DAY)
    assert resilience.slos.counts("up", DAY + 0.5 * HOUR) == (1, 0)
    assert resilience.slos.counts("up", 2 * DAY) == (2, 1)


def test_events_leave_the_window():
    """An hour later they are not of the last hour, and still of the last day."""
    resilience, clock = process(availability())
    guard = resilience.guard("x", slo="up")
    bad(guard, 3)
    clock.advance(HOUR)
    good(guard)
    assert resilience.slos.counts("up", 0.5 * HOUR) == (1, 0)
    assert resilience.slos.counts("up", DAY) == (1, 3)
    clock.advance(2 * DAY)
    assert resilience.slos.counts("up", DAY) == (0, 0)
    assert resilience.slos.counts("up", 90 * DAY) == (1, 3)


def test_a_step_of_the_wall_clock_moves_no_event():
    """Windows are measured; an operator or NTP may set the time as they like."""
    resilience, clock = process(availability())
    guard = resilience.guard("x", slo="up")
    for step in (0.0, 30 * DAY, -400 * DAY):
        clock.step_wall(step)
        bad(guard)
        clock.advance(60.0)
    assert resilience.slos.counts("up", 300.0) == (0, 3)
    assert resilience.slos.error_budget("up").coverage == pytest.approx(180.0 / (30 * DAY))


def test_the_edge_of_a_window_is_off_by_less_than_a_slot():
    """One call a second, looked at after any number of seconds for the first time: 5 minutes hold more than 290 of them and at most 300."""
    for seconds in range(330, 352):
        resilience, clock = process(availability())
        guard = resilience.guard("x", slo="up")
        for _ in range(seconds):
            clock.advance(1.0)
            good(guard)
        assert 290 < resilience.slos.counts("up", 300.0)[0] <= 301


@pytest.mark.parametrize("window", [0, -1, 299, 90 * DAY + 1, float("nan"), "1h", None])
def test_a_window_that_is_not_remembered_is_refused(window):
    """An answer for it would be one for another window."""
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError, match=r"slos\.window"):
        resilience.slos.counts("up", window)


def test_a_window_may_be_a_timedelta():
    """As everywhere."""
    resilience, _ = process(availability())
    bad(resilience.guard("x", slo="up"))
    assert resilience.slos.counts("up", timedelta(hours=1)) == (0, 1)


def test_injected_calls_count_unless_the_objective_says_otherwise(monkeypatch):
    """Callers felt them; whoever wants the rest asks for it."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience, _ = process(
        availability(),
        availability("real", injected="exclude"),
        LATENCY,
        SLO("real_fast", 95.0, timedelta(days=7), latency=2.0, injected="exclude"),
    )
    resilience.chaos.opt_in()
    guard = resilience.guard("x", slo=["up", "real", "fast", "real_fast"])
    good(guard, 4)
    run = asyncio.run(resilience.chaos.inject_errors("x", LookupError))
    bad(guard, 3)
    resilience.chaos.stop(run)
    run = asyncio.run(resilience.chaos.inject_latency("x", 3_000.0))
    good(guard)
    resilience.chaos.stop(run)
    good(guard)
    assert resilience.slos.counts("up", HOUR) == (6, 3)
    assert resilience.slos.counts("real", HOUR) == (5, 0)
    assert resilience.slos.counts("fast", HOUR) == (5, 4)
    assert resilience.slos.counts("real_fast", HOUR) == (5, 0)


def test_injected_rejections_may_be_left_out_too(monkeypatch):
    """A tripped circuit rejects on purpose."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    resilience, _ = process(availability(), availability("real", injected="exclude"))
    resilience.chaos.opt_in()
    guard = resilience.guard("x", slo=["up", "real"], breaker=breaker())
    asyncio.run(resilience.chaos.trip_circuit_breaker("x"))
    for _ in range(4):
        with pytest.raises(CircuitOpen) as caught:
            guard.call(lambda: None)
        assert caught.value.injected
    assert guard.recorder.counts().total(Outcome.REJECTED, injected=True) == 4
    assert resilience.slos.counts("up", HOUR) == (0, 4)
    assert resilience.slos.counts("real", HOUR) == (0, 0)


def test_an_objective_takes_at_most_65_kilobytes():
    """Rings for 90 days included, whatever the traffic."""
    resilience, clock = process()
    guard = resilience.guard("x")
    names = [f"slo{number}" for number in range(20)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    resilience.slos.add(*(availability(name) for name in names))
    for name in names:
        resilience.slos.attach(name, guard.recorder)
    for _ in range(20):
        bad(guard)
        clock.advance(HOUR)
    assert resilience.slos.counts(names[-1], DAY) == (0, 20)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown / len(names) <= 65_000


def test_threads_crossing_boundaries_lose_nothing():
    """Eight threads call over two guards while the clock runs over slot boundaries of all three tiers and somebody reads."""
    clock = _Hurried()
    resilience, _ = process(availability(), clock=clock)
    guards = [resilience.guard(name, slo="up", breaker=breaker(consecutive_failures=10**6)) for name in ("a", "b")]
    each = 400
    done = threading.Event()
    seen = [0]

    def call(number):
        guard = guards[number % 2]
        for turn in range(each):
            (bad if turn % 10 == 0 else good)(guard)

    def read():
        while not done.is_set():
            total = sum(resilience.slos.series("up").totals())
            assert total >= seen[-1]
            seen.append(total)
            resilience.slos.counts("up", HOUR)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    reader = threading.Thread(target=read)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    reader.join()
    assert resilience.slos.series("up").totals() == (8 * each * 9 // 10, 8 * each // 10)
    assert resilience.slos.counts("up", 90 * DAY) == (8 * each * 9 // 10, 8 * each // 10)


class _Hurried(ManualClock):
    """Moves on by a second or so at every look, so that calls cross slot boundaries all the time."""

    def __init__(self):
        super().__init__()
        self._looks = itertools.count()

    def monotonic(self):
        return 1_000_000.0 + 0.7 * next(self._looks)


def test_slots_lie_on_the_epoch():
    """Slot i means the same in every process, whenever it was started and whatever its monotonic clock says."""
    one, _ = process(availability(), clock=ManualClock(monotonic=3.3, time=1_700_000_003.0))
    other, _ = process(availability(), clock=ManualClock(monotonic=777.7, time=1_700_000_005.5))
    for resilience in (one, other):
        series = resilience.slos.series("up")
        wall = resilience.clock.time() - resilience.clock.monotonic()
        assert series.due + wall == pytest.approx(1_700_000_010.0, abs=1e-5)


def test_a_broken_clock_of_the_user_changes_no_outcome():
    """Its last reading stands."""

    class Breaks(ManualClock):
        broken = False

        def monotonic(self):
            if self.broken:
                raise OSError("no clock")
            return super().monotonic()

    class Wrapped:
        def __init__(self, clock):
            self.clock = clock

        def __getattr__(self, name):
            return getattr(self.clock, name)

    clock = Breaks()
    resilience = Resilience("x", clock=Wrapped(clock))
    resilience.slos.add(availability())
    guard = resilience.guard("x", slo="up")
    good(guard)
    clock.broken = True
    good(guard)
    assert resilience.slos.counts("up", HOUR) == (2, 0)
