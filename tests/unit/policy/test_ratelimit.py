"""The rate limit at a guard: its options, who is let in, who waits how long, and what a rejection says. See also test_ratelimit_permits."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from datetime import timedelta

import pytest

from somaresil import Outcome, RateLimit, RateLimited, RateWindow, Resilience, current_permit
from somaresil.events import CallEnded, ShadowDecision
from somaresil.testing import VirtualClock, VirtualLoop
from tests.behaviour.kit import PATIENCE, Boom, Stand, both, both_paths, together, turns
from tests.unit.policy.kit import wrong


def run(main):
    """Run in virtual time; give what came of it."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(main(Resilience("tests", clock=clock, seed=1)))


async def answers():
    return "fine"


# -- options --------------------------------------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_documentation():
    """The whole amount may come at once, nobody waits, and nothing adapts."""
    options = RateLimit(100, per=1.0)
    assert (options.burst, options.unit, options.cost, options.settle, options.windows) == (None, "calls", 1.0, None, ())
    assert (options.max_waiting, options.max_wait, options.adaptive, options.shadow) == (0, 0.0, False, False)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.amount = 6


WRONG = {
    "amount": [0, -1, "5", None, True, float("nan"), 1e13],
    "per": [0, 0.0005, -1, "1s", None, timedelta(days=32)],
    "burst": [0, -1, "5", True],
    "cost": [-1, "5", None, float("inf"), answers],
    "settle": [5, "tokens", answers],
}


@pytest.mark.parametrize(("option", "values"), WRONG.items(), ids=WRONG)
def test_each_wrong_value_is_named(option, values):
    """In a limit and in a window: the one problem that is reported. A coroutine function is awaited by nobody."""
    for value in values:
        options = {"amount": 5, "per": 1.0, option: value}
        assert wrong(RateLimit, **options) == [option], value
        assert wrong(RateWindow, "tokens", **options) == [option], value


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("unit", ["", None, "calls a minute"]),
        ("windows", [5, RateWindow("tokens", 5, per=1.0), (5,), (RateWindow("calls", 5, per=1.0),)]),
        ("max_waiting", [-1, 10_001, 2.0, None]),
        ("max_wait", [-1, 86_401, "5", None]),
        ("adaptive", [1, None]),
        ("shadow", ["yes"]),
    ],
)
def test_each_wrong_value_of_a_limit_is_named(option, values):
    """Two windows of one unit as well: nobody could say which is settled."""
    for value in values:
        assert wrong(RateLimit, **{"amount": 5, "per": 1.0, "max_waiting": 5, "max_wait": 5.0, option: value}) == [option], value


def test_a_line_needs_a_time_and_a_time_needs_a_line():
    """One without the other means that nobody can wait; the missing one is named."""
    assert wrong(RateLimit, 5, per=1.0, max_waiting=5) == ["max_wait"]
    assert wrong(RateLimit, 5, per=1.0, max_wait=5.0) == ["max_waiting"]


def test_all_problems_come_at_once():
    """One error that lists them all."""
    assert wrong(RateLimit, 0, per=0, burst=0, max_waiting=-1) == ["amount", "per", "burst", "max_waiting"]


def test_times_are_seconds_or_timedeltas_and_windows_may_be_a_list():
    """Both give the same options."""
    one = RateLimit(60, per=timedelta(minutes=1), windows=[RateWindow("tokens", 9, per=timedelta(seconds=2))])
    assert one == RateLimit(60.0, per=60.0, windows=(RateWindow("tokens", 9.0, per=2.0),))
    assert type(one.per) is float


@pytest.mark.parametrize("shorthand", [100, 100.0, True, "100/s", (100, 1)])
def test_there_is_no_shorthand(shorthand):
    """A number does not say in what time; the problem stands under the name of the guard's option."""
    assert wrong(Stand, rate_limit=shorthand) == ["rate_limit"]


# -- who is let in --------------------------------------------------------------------------------------------------------------------


@both_paths
@both
def test_so_many_calls_are_let_in_and_the_next_is_told_when(suspends, held):
    """Exactly: a hair before that it is rejected again, at that time it is let in."""
    stand = Stand(held=held, rate_limit=RateLimit(3, per=6.0))
    for _ in range(3):
        assert stand.succeed(suspends) == "fine"
    with pytest.raises(RateLimited) as raised:
        stand.succeed(suspends)
    assert raised.value.retry_after == 2.0
    assert raised.value.detail == "calls: 1 wanted, 0 of 3 left"
    assert str(raised.value) == "guard 'dependency' rejected the call: rate limited; calls: 1 wanted, 0 of 3 left; retry after 2 s"
    stand.clock.advance(1.999)
    with pytest.raises(RateLimited):
        stand.succeed(suspends)
    stand.clock.advance(0.001)
    assert stand.succeed(suspends) == "fine"
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.REJECTED)) == (4, 2)
    assert [(event.outcome, event.error) for event in stand.told(CallEnded)] == [("rejected", "RateLimited")] * 2


@both_paths
def test_with_a_burst_of_one_calls_come_evenly_spaced(held):
    """A hundred a second is one every ten milliseconds, also after a long silence."""
    stand = Stand(held=held, rate_limit=RateLimit(100, per=1.0, burst=1))
    stand.clock.advance(3600.0)
    stand.succeed()
    with pytest.raises(RateLimited) as raised:
        stand.succeed()
    assert raised.value.retry_after == 0.01


@both_paths
def test_every_window_must_admit_and_none_is_charged_when_one_refuses(held):
    """Two windows; a call that one of them refuses leaves both as they were, and says which it was."""
    tokens = RateWindow("tokens", 1000, per=60.0, cost=lambda prompt, extra=0: len(prompt) + extra)
    stand = Stand(held=held, rate_limit=RateLimit(10, per=60.0, windows=(tokens,)))
    guarded = stand.guard(lambda prompt, extra=0: prompt)
    guarded("x" * 600)
    with pytest.raises(RateLimited) as raised:
        guarded("x" * 300, extra=200)
    assert raised.value.detail == "tokens: 500 wanted, 400 of 1000 left"
    assert raised.value.retry_after == pytest.approx(6.0)
    assert stand.guard.rate_limit.available() == {"calls": 9.0, "tokens": 400.0}
    guarded("x" * 400)
    assert stand.guard.rate_limit.available() == {"calls": 8.0, "tokens": 0.0}


@both_paths
def test_however_a_call_ends_it_has_cost_what_it_has(held):
    """Result, error and exit alike: what reached the callee was a call."""
    stand = Stand(held=held, rate_limit=RateLimit(10, per=60.0))
    stand.succeed()
    stand.fail()
    stand.fail(error=KeyboardInterrupt())
    assert stand.guard.rate_limit.available() == {"calls": 7.0}


@pytest.mark.parametrize("cost", [lambda: 1 / 0, lambda: -1, lambda: "5", lambda: float("nan"), lambda: None, lambda: True, lambda x: 1])
def test_a_cost_function_that_fails_counts_as_one(cost):
    """The call goes on, and it is reported."""
    stand = Stand(rate_limit=RateLimit(10, per=60.0, cost=cost))
    assert stand.succeed() == "fine"
    assert stand.guard.rate_limit.available() == {"calls": 9.0}
    assert "a cost function of guard dependency" in [event.where for event in stand.events if hasattr(event, "where")]


def test_a_defect_of_the_limit_lets_calls_pass(monkeypatch):
    """Fail open, on both paths, and once reported."""
    for held in (False, True):
        stand = Stand(held=held, rate_limit=RateLimit(1, per=60.0))
        monkeypatch.setattr(stand.guard.rate_limit.limiter, "_limits", None)
        for suspends in (False, True):
            assert stand.succeed(suspends) == "fine"
            assert isinstance(stand.fail(suspends), Boom)
        assert [event.where for event in stand.events if hasattr(event, "where")] == ["rate limit of guard dependency"]


def test_a_defect_at_the_end_of_a_call_loses_no_result(monkeypatch):
    """Nor an error."""
    for held in (False, True):
        stand = Stand(held=held, rate_limit=RateLimit(10, per=60.0, unit="tokens"))

        def broken(permit):
            raise ZeroDivisionError

        monkeypatch.setattr(stand.guard.rate_limit.limiter, "close", broken)
        assert stand.succeed() == "fine"
        assert isinstance(stand.fail(), Boom)
        assert [event.where for event in stand.events if hasattr(event, "where")] == ["rate limit of guard dependency"]


def test_a_limit_is_read_and_taken_away():
    """What can be taken now stands in the snapshot, and a guard without a limit has none."""
    stand = Stand(rate_limit=RateLimit(4, per=2.0))
    assert (stand.guard.switch.reasons, stand.guard.switch.express) == ({"rate_limit"}, True)
    stand.succeed()
    stand.succeed()
    view = stand.resilience.snapshot().guards["dependency"]
    assert (view.available, view.pipeline) == ({"calls": 2.0}, ("record", "rate_limit", "fault", "callee"))
    assert repr(stand.guard.rate_limit.limiter) == "<RateLimiter 'dependency': calls>"
    stand.clock.advance(0.25)
    assert stand.guard.rate_limit.available() == {"calls": 2.5}
    stand.guard.configure(rate_limit=None)
    assert stand.guard.switch.quiet
    assert stand.resilience.snapshot().guards["dependency"].available is None


# -- waiting --------------------------------------------------------------------------------------------------------------------------


@both_paths
@both
def test_who_may_wait_waits_exactly_as_long_as_he_must(suspends, held):
    """The fourth call comes when a quarter of the time is over."""
    stand = Stand(held=held, rate_limit=RateLimit(3, per=6.0, max_waiting=5, max_wait=10.0))
    begun = stand.clock.monotonic()
    for expected in (0.0, 0.0, 0.0, 2.0, 4.0):
        assert stand.succeed(suspends) == "fine"
        assert stand.clock.monotonic() - begun == pytest.approx(expected, abs=1e-5)
    assert stand.guard.rate_limit.waiting == 0


def test_who_would_wait_too_long_is_rejected_at_once():
    """No time passes, nothing is charged, and he is told when he would be let in."""
    stand = Stand(rate_limit=RateLimit(1, per=10.0, max_waiting=5, max_wait=9.0))
    stand.succeed()
    before = stand.clock.monotonic()
    with pytest.raises(RateLimited) as raised:
        stand.succeed()
    assert raised.value.retry_after == 10.0
    assert stand.clock.monotonic() == before


def test_tasks_are_let_in_one_by_one_in_the_order_in_which_they_came():
    """The line is as long as it may be; what comes after that is told when everybody in front of it has been served."""

    async def main(resilience):
        guard = resilience.guard("dependency", rate_limit=RateLimit(1, per=1.0, max_waiting=3, max_wait=60.0))
        begun, came = resilience.clock.monotonic(), []

        @guard
        async def work(number):
            came.append((number, resilience.clock.monotonic() - begun))

        tasks = []
        for number in range(4):
            tasks.append(asyncio.ensure_future(work(number)))
            await turns(2)
        assert guard.rate_limit.waiting == 3
        with pytest.raises(RateLimited, match="3 waiting") as raised:
            await work(4)
        assert raised.value.retry_after == 4.0
        await asyncio.gather(*tasks)
        assert guard.rate_limit.waiting == 0
        return came

    assert run(main) == [(number, pytest.approx(number, abs=1e-5)) for number in range(4)]


def test_a_cancelled_waiter_gives_his_place_to_those_behind_him():
    """They are let in a whole interval earlier, and nothing is charged for him."""

    async def main(resilience):
        guard = resilience.guard("dependency", rate_limit=RateLimit(1, per=1.0, max_waiting=9, max_wait=60.0))
        begun, came = resilience.clock.monotonic(), []

        @guard
        async def work(number):
            came.append((number, resilience.clock.monotonic() - begun))

        tasks = []
        for number in range(5):
            tasks.append(asyncio.ensure_future(work(number)))
            await turns(2)
        await asyncio.sleep(0.5)
        for number in (1, 3):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [task.cancelled() for task in tasks] == [False, True, False, True, False]
        assert guard.recorder.counts().total(Outcome.ABANDONED) == 2
        return came

    assert run(main) == [(0, 0.0), (2, pytest.approx(1.0, abs=1e-5)), (4, pytest.approx(2.0, abs=1e-5))]


def test_a_permit_that_is_granted_to_a_cancelled_waiter_is_not_lost():
    """Cancelled in the very moment in which his time has come: the next one has it."""

    async def main(resilience):
        guard = resilience.guard("dependency", rate_limit=RateLimit(1, per=1.0, max_waiting=9, max_wait=60.0))
        await guard.acall(answers)
        first, second = (asyncio.ensure_future(guard.acall(answers)) for _ in range(2))
        await turns(2)
        limiter = guard.rate_limit.limiter
        # Somebody else serves the line, as a thread would; before the first has woken up, he is cancelled.
        resilience.clock.advance(1.0)
        with limiter._lock:
            woken = limiter._serve(resilience.clock.monotonic())
        assert len(woken) == 1
        first.cancel()
        begun = resilience.clock.monotonic()
        assert await second == "fine"
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        return resilience.clock.monotonic() - begun

    assert run(main) == pytest.approx(0.0, abs=1e-5)


def test_the_deadline_of_the_request_limits_the_wait():
    """What cannot be let in before the deadline is rejected at once: nobody would wait for its answer."""

    async def main(resilience):
        guard = resilience.guard("dependency", rate_limit=RateLimit(1, per=10.0, max_waiting=9, max_wait=60.0))
        await guard.acall(answers)
        begun = resilience.clock.monotonic()
        async with resilience.deadline(5.0):
            with pytest.raises(RateLimited) as raised:
                await guard.acall(answers)
        assert (raised.value.retry_after, resilience.clock.monotonic()) == (10.0, begun)
        async with resilience.deadline(11.0):
            await guard.acall(answers)
        return resilience.clock.monotonic() - begun

    assert run(main) == pytest.approx(10.0, abs=1e-5)


def test_threads_and_loops_share_one_capacity_and_one_line():
    """Twelve threads and tasks of two loops: as many are let in as there is for them, and each of the others is rejected."""
    resilience = Resilience("tests")
    guard = resilience.guard("dependency", rate_limit=RateLimit(10, per=3600.0))

    def work(number):
        if number % 3 == 0:
            return [guard.call(lambda: "fine")]

        async def several():
            return await asyncio.gather(*(guard.acall(answers) for _ in range(3)), return_exceptions=True)

        return asyncio.run(several())

    came = together(12, work)
    results = [result for one in came for result in (one if isinstance(one, list) else [one])]
    assert results.count("fine") == 10
    assert sum(isinstance(result, RateLimited) for result in results) == len(results) - 10
    assert guard.rate_limit.available()["calls"] < 1.0


def test_a_thread_is_served_by_a_task_and_a_task_by_a_thread():
    """They stand in one line, and whoever makes room for them, wherever he is, wakes them."""
    guard = Resilience("tests").guard("dependency", rate_limit=RateLimit(2, per=36_000.0, max_waiting=2, max_wait=36_000.0))
    limiter = guard.rate_limit.limiter
    came = []
    with guard, guard:
        thread = threading.Thread(target=guard.call, args=(came.append, "thread"), daemon=True)
        thread.start()
        pause = threading.Event()
        for _ in range(int(PATIENCE / 0.001)):
            if limiter.waiting:
                break
            pause.wait(0.001)

        async def main():
            async def work():
                came.append("task")

            task = asyncio.ensure_future(guard.acall(work))
            await turns()
            assert limiter.waiting == 2
            # Raised by one call each time: the first in line is let in, then the second.
            for _ in range(2):
                limiter.reconfigure(
                    RateLimit(2, per=36_000.0, burst=limiter.options.every_window[0].quota.burst + 1, max_waiting=2, max_wait=9.0)
                )
            await task

        asyncio.run(main())
    thread.join(PATIENCE)
    assert sorted(came) == ["task", "thread"]


def test_a_waiter_whose_loop_is_gone_takes_nothing_with_him():
    """The loop was closed with a call in line: once the call is gone, the line is empty and nothing was charged."""
    guard = Resilience("tests").guard("dependency", rate_limit=RateLimit(1, per=3600.0, max_waiting=9, max_wait=3600.0))
    guard.call(int)
    loop = asyncio.new_event_loop()
    call = guard(turns)(1)
    # Not as a task: the loop would complain about a task that it never ended.
    loop.call_soon(call.send, None)
    loop.run_until_complete(turns(2))
    assert guard.rate_limit.waiting == 1
    loop.close()
    call.close()
    assert guard.rate_limit.waiting == 0
    assert guard.rate_limit.available()["calls"] == pytest.approx(0.0, abs=0.1)


def test_a_waiter_who_has_more_in_front_of_him_than_he_was_told_is_rejected_in_time():
    """A call that runs turns out to have cost more: those in line wait longer, and who would wait too long leaves at his time."""

    async def main(resilience):
        guard = resilience.guard("dependency", rate_limit=RateLimit(10, per=10.0, unit="tokens", max_waiting=9, max_wait=5.0))
        async with guard:
            permit = current_permit()
            for _ in range(9):
                await guard.acall(answers)
            waiting = asyncio.ensure_future(guard.acall(answers))
            await turns(2)
            begun = resilience.clock.monotonic()
            permit.settle(tokens=100)
            with pytest.raises(RateLimited) as raised:
                await waiting
        return resilience.clock.monotonic() - begun, raised.value.retry_after

    waited, retry_after = run(main)
    assert waited == pytest.approx(5.0, abs=1e-5)
    assert retry_after == pytest.approx(95.0, abs=1e-5)


def test_who_leaves_the_line_at_his_time_lets_in_who_stands_behind_him():
    """At once, not when that one looks by himself."""

    async def main(resilience):
        limit = RateLimit(10, per=10.0, cost=lambda cost: cost, max_waiting=9, max_wait=5.0)
        guard = resilience.guard("dependency", rate_limit=limit)
        begun, came = resilience.clock.monotonic(), []

        @guard
        async def work(cost):
            came.append((cost, resilience.clock.monotonic() - begun))
            if cost == 10:
                await asyncio.sleep(2.0)
                current_permit().settle(calls=13)

        tasks = []
        for cost, pause in ((10, 1.0), (4, 0.5), (0.5, 9.0)):
            tasks.append(asyncio.ensure_future(work(cost)))
            await asyncio.sleep(pause)
        rejected = (await asyncio.gather(*tasks, return_exceptions=True))[1]
        assert isinstance(rejected, RateLimited)
        return came

    # The second would have come at 4 s and at 2 s it turns out that it will be 7 s, which is too late for him: he leaves at 6 s.
    assert run(main) == [(10, 0.0), (0.5, pytest.approx(6.0, abs=1e-5))]


# -- changing it ----------------------------------------------------------------------------------------------------------------------


def test_what_was_used_stays_used_when_the_limit_is_changed():
    """A larger limit is not a new one."""
    stand = Stand(rate_limit=RateLimit(10, per=10.0))
    for _ in range(8):
        stand.succeed()
    limiter = stand.guard.rate_limit.limiter
    stand.guard.configure(rate_limit=RateLimit(20, per=10.0))
    assert stand.guard.rate_limit.limiter is limiter
    assert stand.guard.rate_limit.available() == {"calls": 12.0}
    stand.guard.configure(rate_limit=RateLimit(4, per=10.0, windows=(RateWindow("calls/day", 100, per=86_400.0),)))
    assert stand.guard.rate_limit.available() == {"calls": -4.0, "calls/day": 100.0}
    with pytest.raises(RateLimited) as raised:
        stand.succeed()
    assert raised.value.retry_after == 12.5
    stand.clock.advance(12.5)
    stand.succeed()
    assert stand.guard.rate_limit.available()["calls/day"] == 99.0


def test_those_who_wait_are_let_in_when_the_limit_is_raised():
    """At once, as far as it reaches; the others sooner than they were told."""

    async def main(resilience):
        guard = resilience.guard("dependency", rate_limit=RateLimit(1, per=100.0, max_waiting=9, max_wait=3600.0))
        begun, came = resilience.clock.monotonic(), []

        @guard
        async def work():
            came.append(resilience.clock.monotonic() - begun)

        await work()
        tasks = [asyncio.ensure_future(work()) for _ in range(3)]
        await turns(3)
        guard.configure(rate_limit=RateLimit(2, per=4.0, max_waiting=9, max_wait=3600.0))
        await asyncio.gather(*tasks)
        return came

    assert run(main) == pytest.approx([0.0, 0.0, 2.0, 4.0], abs=1e-4)


# -- shadow mode ----------------------------------------------------------------------------------------------------------------------


@both_paths
@both
def test_in_shadow_mode_nobody_is_rejected_and_it_is_counted(suspends, held):
    """What it would refuse goes on without a permit; what it lets in is charged."""
    stand = Stand(held=held, rate_limit=RateLimit(2, per=10.0, shadow=True))
    for _ in range(5):
        assert stand.succeed(suspends) == "fine"
    assert stand.guard.shadow.counts() == {("rate_limit", "reject"): 3}
    assert stand.guard.rate_limit.available() == {"calls": 0.0}
    assert {(event.policy, event.decision, event.detail) for event in stand.told(ShadowDecision)} == {
        ("rate_limit", "reject", "calls: 1 wanted, 0 of 2 left")
    }


def test_in_shadow_mode_nobody_waits_and_the_line_is_thought_of():
    """Who would have waited is charged, so that those after him are decided about as if he stood there."""
    stand = Stand(rate_limit=RateLimit(1, per=10.0, max_waiting=9, max_wait=25.0, shadow=True))
    before = stand.clock.monotonic()
    for _ in range(5):
        assert stand.succeed() == "fine"
    assert stand.clock.monotonic() == before
    assert stand.guard.shadow.counts() == {("rate_limit", "wait"): 2, ("rate_limit", "reject"): 2}
    assert stand.told(ShadowDecision)[0].detail == "10 s, calls: 1 wanted, 0 of 1 left"
    stand.guard.configure(rate_limit=RateLimit(1, per=10.0))
    with pytest.raises(RateLimited):
        stand.succeed()
