"""Every fault is a lease: it ends by itself, by the kill switch from any thread, or with its last injection."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from somaresil import ChaosCeilings, InjectedFault, Resilience
from somaresil.events import DefectFound, ExperimentEnded, ExperimentStarted, FaultInjected
from tests.unit.chaos.kit import ERROR, LATENCY, Stand

PATIENCE = 20.0
"""Seconds after which a test that hangs fails. No test waits for it to pass."""


def test_a_lease_ends_by_itself(stand):
    """At the first call after its time, with no loop, thread or timer; the guard is quiet again."""
    run = stand.arm(duration=30.0)
    assert stand.struck(2) == [True, True]
    assert run.remaining == 30.0
    stand.clock.advance(29.9)
    assert stand.struck() == [True]
    stand.clock.advance(0.1)
    assert not stand.guard.switch.quiet
    assert stand.struck() == [False]
    assert stand.guard.switch.quiet
    assert (run.live, run.end_reason, run.remaining, run.injected) == (False, "expired", 0.0, 3)
    assert stand.chaos.runs == ()
    assert stand.chaos.history == (run,)


def test_a_step_of_the_wall_clock_does_not_end_or_prolong_a_lease(stand):
    """It is measured."""
    run = stand.arm(duration=30.0)
    stand.clock.step_wall(1_000_000.0)
    assert run.live
    stand.clock.step_wall(-9_000_000.0)
    stand.clock.advance(30.0)
    assert not run.live


def test_a_stopped_experiment_gives_the_quiet_path_back(stand):
    """At once, without a call."""
    run = stand.arm()
    assert stand.guard.switch.reasons == {"fault"}
    stand.chaos.stop(run)
    assert stand.guard.switch.quiet
    assert stand.guard.faults.rules == ()
    assert stand.struck() == [False]
    assert run.end_reason == "stopped"


def test_one_that_is_stopped_leaves_the_others(stand):
    """Two experiments on one guard know nothing of each other."""
    first, second = stand.arm(LATENCY), stand.arm(ERROR)
    stand.chaos.stop(first)
    assert not stand.guard.switch.quiet
    assert stand.struck() == [True]
    stand.chaos.stop(second)
    assert stand.guard.switch.quiet


def test_stop_all_ends_everything(stand):
    """Guards made later included."""
    stand.resilience.guard("llm.other")
    runs = [stand.arm(), stand.arm(LATENCY), stand.arm(target="llm.other")]
    stand.resilience.guard("llm.late")
    stand.chaos.stop_all()
    assert [run.end_reason for run in runs] == ["stop_all"] * 3
    assert all(guard.switch.quiet for guard in stand.resilience.guards.values())
    assert stand.chaos.runs == ()


def test_an_end_is_told_once(stand):
    """Whoever ends it first says why."""
    run = stand.arm()
    stand.struck(2)
    run.end("stopped")
    stand.chaos.stop_all()
    stand.chaos.stop(run)
    (started,) = stand.told(ExperimentStarted)
    (ended,) = stand.told(ExperimentEnded)
    assert (started.experiment, started.component, started.fault, started.rate, started.duration) == (run.id, "llm.*", "error", 1.0, 60.0)
    assert (ended.experiment, ended.reason, ended.injected) == (run.id, "stopped", 2)
    assert len(stand.told(FaultInjected)) == 2


def test_nothing_is_struck_after_the_end(stand):
    """Not even a call that has asked already whether the lease runs."""
    run = stand.arm()
    rule = stand.guard.faults.rules[0]
    assert rule.live
    run.end()
    assert rule.strike() is None
    assert run.injected == 0


def test_a_listener_may_pull_the_kill_switch(stand):
    """At the very start of an experiment: then it has no effect."""
    stand.resilience.on(lambda event: stand.chaos.stop_all(), ExperimentStarted)
    run = stand.arm()
    assert run.end_reason == "stop_all"
    assert stand.guard.switch.quiet
    assert stand.struck() == [False]


def test_a_release_that_fails_does_not_keep_the_others(stand):
    """Ending reaches everybody; the defect is reported."""
    run = stand.arm()
    released = []
    run.on_end(lambda: 1 / 0)
    run.on_end(lambda: released.append(True))
    run.end()
    assert released == [True]
    assert stand.guard.switch.quiet
    assert [event.error for event in stand.told(DefectFound)] == ["ZeroDivisionError"]


def test_what_is_to_be_undone_after_the_end_is_undone_at_once(stand):
    """Arming and stopping may cross."""
    run = stand.arm()
    run.end()
    released = []
    run.on_end(lambda: released.append(True))
    assert released == [True]


def test_the_kill_switch_finds_the_oldest_experiment(make):
    """However many have ended since; the history is short, what runs is never forgotten."""
    stand = make(ceilings=ChaosCeilings(experiments=100))
    oldest = stand.arm()
    for _ in range(100):
        stand.chaos.stop(stand.arm(rate=0.0))
    assert len(stand.chaos.history) == 64
    assert oldest in stand.chaos.history
    stand.chaos.stop_all()
    assert not oldest.live


# -- the last injection -----------------------------------------------------------------------------------------------------------------


def test_after_its_last_injection_it_is_over(stand):
    """Exactly so many, and then the guard is quiet at once."""
    run = stand.arm(max_injections=3)
    assert stand.struck(3) == [True] * 3
    assert (run.end_reason, run.injected) == ("used up", 3)
    assert stand.guard.switch.quiet
    assert stand.struck(3) == [False] * 3
    assert [event.reason for event in stand.told(ExperimentEnded)] == ["used up"]


def test_the_last_delay_is_still_a_delay(stand):
    """The end of the experiment does not take away what it has done."""
    stand.arm(LATENCY, delay_seconds=2.0, max_injections=1)
    before = stand.clock.monotonic()
    stand.guard.call(lambda: None)
    assert stand.clock.monotonic() - before == 2.0


def test_the_last_injections_are_exact_under_threads(stand):
    """Eight threads, never one too many and never one too few."""
    for _ in range(20):
        stand.events.clear()
        run = stand.arm(max_injections=5)
        barrier = threading.Barrier(8)
        found = []

        def call(barrier=barrier, found=found):
            barrier.wait(PATIENCE)
            found.extend(stand.struck(10))

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(found) == run.injected == len(stand.told(FaultInjected)) == 5
        assert stand.guard.switch.quiet


# -- calls that are being delayed -------------------------------------------------------------------------------------------------------


@pytest.fixture
def real():
    """A process on the clock of the machine, with delays of half a minute: whoever waits for one hangs."""
    resilience = Resilience("real", environment="test")
    resilience.chaos.opt_in()
    return resilience


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.001)


@pytest.mark.parametrize("stop", ["stop", "stop_all"])
def test_delayed_threads_go_on_at_once(real, stop):
    """Stopped from another thread."""
    guard = real.guard("slow")
    run = asyncio.run(real.chaos.inject_latency("slow", 30_000))
    done = []
    threads = [threading.Thread(target=lambda: done.append(guard.call(lambda: "answer"))) for _ in range(3)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    until(lambda: run.delaying == 3)
    real.chaos.stop(run) if stop == "stop" else real.chaos.stop_all()
    for thread in threads:
        thread.join(PATIENCE)
    assert done == ["answer"] * 3
    assert time.monotonic() - began < PATIENCE
    assert run.delaying == 0


def test_delayed_tasks_go_on_at_once(real):
    """Stopped from another thread, which knows nothing of the loop."""
    guard = real.guard("slow")

    async def main():
        run = await real.chaos.inject_latency("slow", 30_000)

        async def answer():
            return "answer"

        tasks = [asyncio.ensure_future(guard.acall(answer)) for _ in range(3)]
        while run.delaying < 3:
            await asyncio.sleep(0)
        threading.Thread(target=real.chaos.stop_all).start()
        return await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE)

    assert asyncio.run(main()) == ["answer"] * 3


def test_the_kill_switch_works_while_the_loop_is_blocked(real):
    """A synchronous call is delayed on the thread of the event loop, so the loop stands still; another thread frees it."""
    guard = real.guard("slow")

    async def main():
        run = await real.chaos.inject_latency("slow", 30_000)

        def free():
            until(lambda: run.delaying == 1)
            real.chaos.stop_all()

        thread = threading.Thread(target=free)
        thread.start()
        began = time.monotonic()
        answer = guard.call(lambda: "answer")  # blocks the loop
        thread.join(PATIENCE)
        return answer, run.end_reason, time.monotonic() - began

    answer, reason, seconds = asyncio.run(main())
    assert (answer, reason) == ("answer", "stop_all")
    assert seconds < PATIENCE


def test_the_kill_switch_reaches_a_delay_after_the_last_injection(real):
    """Used up is over for new calls, not for the one that waits."""
    guard = real.guard("slow")
    run = asyncio.run(real.chaos.inject_latency("slow", 30_000, max_injections=1))
    thread = threading.Thread(target=guard.call, args=(lambda: None,))
    thread.start()
    until(lambda: run.delaying == 1)
    assert run.end_reason == "used up"
    real.chaos.stop_all()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert run.end_reason == "used up"


def test_a_run_that_still_delays_is_not_forgotten(real):
    """Or the kill switch would not find it."""
    guard = real.guard("slow")
    run = asyncio.run(real.chaos.inject_latency("slow", 30_000, max_injections=1))
    thread = threading.Thread(target=guard.call, args=(lambda: None,))
    thread.start()
    until(lambda: run.delaying == 1)
    for _ in range(70):
        real.chaos.stop(asyncio.run(real.chaos.inject_errors("slow", rate=0.0)))
    assert run in real.chaos.history
    real.chaos.stop_all()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_delay_is_not_longer_than_the_lease(stand):
    """Nobody is held by an experiment that is over."""
    stand.arm(LATENCY, duration=5.0, delay_seconds=20.0)
    before = stand.clock.monotonic()
    stand.guard.call(lambda: None)
    assert stand.clock.monotonic() - before == 5.0


def test_a_hold_that_comes_after_the_end_does_not_wait(stand):
    """Stopped between the decision and the waiting."""
    run = stand.arm(LATENCY)
    hit = run.rule("llm.invoke").strike()
    run.end()
    before = stand.clock.monotonic()
    asyncio.run(run.hold(stand.guard.suspending, hit.delay))
    assert stand.clock.monotonic() == before


def test_a_task_that_is_cancelled_in_a_delay_is_let_go(real):
    """Nobody waits for it any more, and the cancellation stays one."""
    guard = real.guard("slow")

    async def main():
        run = await real.chaos.inject_latency("slow", 30_000)

        async def answer():
            return None

        task = asyncio.ensure_future(guard.acall(answer))
        while not run.delaying:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert run.delaying == 0
        real.chaos.stop_all()

    asyncio.run(main())


def test_a_loop_that_is_gone_does_not_stop_the_kill_switch(stand):
    """Its tasks will never run again; the others go on."""
    run = stand.arm(LATENCY)
    loop = asyncio.new_event_loop()

    async def begin():
        hold = run.hold(stand.resilience.guard("llm.invoke").suspending, 2.0)
        hold.send(None)
        return hold

    held = loop.run_until_complete(begin())
    loop.close()
    assert run.delaying == 1
    stand.chaos.stop_all()
    assert run.end_reason == "stop_all"
    assert stand.guard.switch.quiet
    held.close()


def test_arming_in_one_thread_and_stopping_in_another_leaves_nothing_behind(make):
    """Whichever comes first, the guards are quiet in the end."""
    stand = make(ceilings=ChaosCeilings(experiments=1000))
    for number in range(5):
        stand.resilience.guard(f"llm.{number}")
    done = threading.Event()

    def stop():
        while not done.is_set():
            stand.chaos.stop_all()

    thread = threading.Thread(target=stop)
    thread.start()
    for _ in range(100):
        stand.arm()
    done.set()
    thread.join(PATIENCE)
    stand.chaos.stop_all()
    assert all(guard.switch.quiet and guard.faults.rules == () for guard in stand.resilience.guards.values())
    assert stand.struck() == [False]


def test_an_arming_that_fails_half_way_is_taken_back(stand, monkeypatch):
    """A defect of ours in arming one guard leaves none armed."""
    other = stand.resilience.guard("llm.zz")

    def breaks(rule):
        raise MemoryError

    monkeypatch.setattr(type(other.faults), "arm", lambda self, rule: breaks(rule) if self is other.faults else _ARM(self, rule))
    with pytest.raises(MemoryError):
        stand.arm()
    assert stand.guard.switch.quiet
    assert stand.struck() == [False]
    assert stand.chaos.history[0].end_reason == "failed"
    assert [event.reason for event in stand.told(ExperimentEnded)] == ["failed"]


_ARM = type(Stand(opt_in=False).guard.faults).arm


def test_a_struck_call_raises_a_fresh_error(stand):
    """One object for two callers would collect the tracebacks of both."""
    stand.arm(error=TimeoutError("slow"))
    found = []
    for _ in range(2):
        with pytest.raises(TimeoutError) as caught:
            stand.guard.call(lambda: None)
        found.append(caught.value)
    assert found[0] is not found[1]
    assert [str(error) for error in found] == ["slow", "slow"]


def test_without_an_error_the_message_names_the_experiment(stand):
    """So that nobody hunts a ghost."""
    run = stand.arm()
    with pytest.raises(InjectedFault, match=rf"'llm\.invoke' by chaos experiment {run.id}"):
        stand.guard.call(lambda: None)


@pytest.mark.parametrize("stop", ["stop", "stop_all"])
def test_a_delayed_error_does_not_come_after_the_stop(real, stop):
    """A call that waits for its injected error when the experiment is stopped reaches its callee instead."""
    guard = real.guard("slow")
    run = asyncio.run(real.chaos.inject_errors("slow", delay_seconds=30.0))
    done = []
    thread = threading.Thread(target=lambda: done.append(guard.call(lambda: "answer")))
    thread.start()
    until(lambda: run.delaying == 1)
    real.chaos.stop(run) if stop == "stop" else real.chaos.stop_all()
    thread.join(PATIENCE)
    assert done == ["answer"]


def test_a_delayed_error_does_not_come_after_the_lease(stand):
    """The lease ends within the delay, and with it the fault; the call is marked all the same, for it was delayed."""
    stand.arm(ERROR, duration=5.0, delay_seconds=20.0)
    began = stand.clock.monotonic()
    assert stand.guard.call(lambda: "answer") == "answer"
    assert stand.clock.monotonic() - began == 5.0
    assert stand.guard.recorder.counts().total(injected=True) == 1


def test_the_last_injection_still_ends_in_its_error(stand):
    """An experiment that is used up has not been stopped."""
    stand.arm(ERROR, delay_seconds=2.0, max_injections=1)
    assert stand.struck(2) == [True, False]
