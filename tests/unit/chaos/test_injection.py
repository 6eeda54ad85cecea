"""Which calls are struck, what they get, and that everybody can see that it was an experiment."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
from datetime import timedelta

import pytest

from somaresil import SLO, CircuitOpen, InjectedFault, ManualClock, Outcome, Retry
from somaresil.chaos.run import ExperimentRun, Rule
from somaresil.events import AttemptFailed, CallEnded, DefectFound, FaultInjected, IncidentOpened
from tests.unit.chaos.kit import ERROR, LATENCY, Stand, breaker


def test_a_pattern_strikes_every_guard_that_matches(stand):
    """And no other."""
    names = ["llm.invoke", "llm.embed", "memory.write"]
    for name in names:
        stand.resilience.guard(name)
    stand.arm(target="llm.*")
    assert [stand.struck(name=name)[0] for name in names] == [True, True, False]
    assert stand.resilience.guard("memory.write").switch.quiet


def test_a_guard_made_later_is_struck_too(stand):
    """For as long as the lease runs, and once only."""
    run = stand.arm(target="llm.*")
    late = stand.resilience.guard("llm.late")
    assert len(late.faults.rules) == 1
    assert stand.struck(name="llm.late") == [True]
    assert stand.resilience.guard("memory.late").switch.quiet
    stand.chaos.stop(run)
    assert late.switch.quiet
    assert stand.resilience.guard("llm.later").switch.quiet


def test_a_guard_made_while_an_experiment_is_armed_is_struck_once(make, monkeypatch):
    """It may be found in the list of guards, by itself, or by both."""
    stand = make()
    listed = stand.chaos.placement._guards

    def listing():
        if stand.chaos.runs:
            # The experiment is known by now, and looks for guards.
            stand.resilience.guard("llm.between")
        return listed()

    monkeypatch.setattr(stand.chaos.placement, "_guards", listing)
    stand.arm(target="llm.*")
    assert "llm.between" in stand.resilience.guards
    assert len(stand.resilience.guard("llm.between").faults.rules) == 1


def test_latency_is_a_delay_before_the_call(stand):
    """The callee is called after it, and the answer is the callee's."""
    stand.arm(LATENCY, delay_seconds=2.0)
    before = stand.clock.monotonic()
    assert stand.guard.call(lambda: stand.clock.monotonic() - before) == 2.0


def test_milliseconds_are_milliseconds(stand):
    """A number is milliseconds, a timedelta is what it says."""
    run = asyncio.run(stand.chaos.inject_latency("llm.*", delay_ms=800, rate=0.2))
    assert (run.config.delay_seconds, run.config.failure_rate) == (0.8, 0.2)
    run = asyncio.run(stand.chaos.inject_latency("llm.*", timedelta(milliseconds=800), allow_overlap=True))
    assert run.config.delay_seconds == 0.8


def test_an_error_may_come_late(stand):
    """First the delay, then the error; the callee is not called."""
    stand.arm(ERROR, error=TimeoutError, delay_seconds=3.0)
    before = stand.clock.monotonic()
    with pytest.raises(TimeoutError):
        stand.guard.call(pytest.fail)
    assert stand.clock.monotonic() - before == 3.0


def test_coroutines_are_struck_like_functions(stand):
    """Delay and error."""
    stand.arm(ERROR, error=TimeoutError, delay_seconds=3.0)
    before = stand.clock.monotonic()

    async def never():
        pytest.fail("it was called")

    with pytest.raises(TimeoutError):
        asyncio.run(stand.guard.acall(never))
    assert stand.clock.monotonic() - before == 3.0


def test_two_experiments_on_one_guard_add_up(stand):
    """Both delays."""
    stand.arm(LATENCY, delay_seconds=2.0)
    stand.arm(LATENCY, delay_seconds=3.0)
    before = stand.clock.monotonic()
    stand.guard.call(lambda: None)
    assert stand.clock.monotonic() - before == 5.0


# -- which calls ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.2, 0.5, 1.0])
def test_the_rate_is_honoured(make, rate):
    """Within four standard deviations for this seed; never at 0, always at 1."""
    calls = 4000
    rule = make(seed=11).arm(rate=rate).rule("x")
    hits = sum(rule.decide() is not None for _ in range(calls))
    assert abs(hits - calls * rate) <= 4 * (calls * rate * (1 - rate)) ** 0.5


def test_the_same_seed_decides_alike(make):
    """In another process too; another seed decides otherwise."""
    one, other, third = (make(seed=seed) for seed in (3, 3, 4))
    for stand in (one, other, third):
        stand.arm(rate=0.5)
    first, second, different = (stand.struck(64) for stand in (one, other, third))
    assert first == second
    assert first != different


def test_the_next_experiment_decides_anew(stand):
    """Its draws are its own, although the seed is the same."""
    found = []
    for _ in range(2):
        run = stand.arm(rate=0.5)
        found.append(stand.struck(64))
        stand.chaos.stop(run)
    assert found[0] != found[1]


def test_decisions_do_not_depend_on_how_calls_interleave(make):
    """The n-th call of each guard is decided alike, in order, one guard after the other, or in any mixture."""
    names = ["llm.a", "llm.b", "llm.c"]
    orders = [[name for name in names for _ in range(40)], names * 40]
    orders.append(random.Random(5).sample(orders[0], len(orders[0])))
    found = []
    for order in orders:
        stand = make(seed=9)
        stand.arm(target="llm.*", rate=0.5)
        decided = {name: [] for name in names}
        for name in order:
            decided[name] += stand.struck(name=name)
        found.append(decided)
    assert found[0] == found[1] == found[2]
    assert len({tuple(decided) for decided in found[0].values()}) == 3


def test_tasks_of_two_guards_are_decided_alike_in_any_order(make):
    """Two interleavings of the same tasks, one the reverse of the other at every step."""
    found = []
    for reverse in (False, True):
        stand = make(seed=9)
        stand.arm(target="llm.*", rate=0.5)
        decided = {}

        async def work(name, stand=stand, decided=decided):
            async def answer():
                await asyncio.sleep(0)

            for turn in range(20):
                try:
                    await stand.resilience.guard(name).acall(answer)
                    decided[name, turn] = False
                except InjectedFault:
                    decided[name, turn] = True

        async def main(reverse=reverse, work=work):
            names = ["llm.a", "llm.b", "llm.c"]
            await asyncio.gather(*(work(name) for name in (reversed(names) if reverse else names)))

        asyncio.run(main())
        found.append(decided)
    assert found[0] == found[1]
    assert 10 < sum(found[0].values()) < 50


def test_threads_share_the_decisions_of_a_guard(make):
    """Which thread gets which is up to their timing; how many are struck is not."""
    expected = sum(_struck_alone(make))
    stand = make(seed=2)
    run = stand.arm(rate=0.3)
    threads = [threading.Thread(target=stand.struck, args=(50,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run.injected == expected


def _struck_alone(make):
    stand = make(seed=2)
    stand.arm(rate=0.3)
    return stand.struck(400)


# -- everybody can see it ---------------------------------------------------------------------------------------------------------------


def test_every_injected_outcome_is_marked(stand):
    """In the cells, in the events, in the run; calls that are left alone are not."""
    run = stand.arm(rate=0.5)
    hits = sum(stand.struck(40))
    counts = stand.guard.recorder.counts()
    assert 0 < hits < 40
    assert run.injected == hits
    assert counts.total(Outcome.BAD, injected=True) == hits
    assert counts.total(Outcome.BAD, injected=False) == 0
    assert counts.total(Outcome.GOOD, injected=False) == 40 - hits
    assert [event.injected for event in stand.told(CallEnded)] == [True] * hits
    assert {(event.component, event.fault, event.experiment) for event in stand.told(FaultInjected)} == {("llm.invoke", "error", run.id)}


def test_a_delayed_good_call_is_marked(stand):
    """Its caller felt it."""
    stand.arm(LATENCY)
    stand.guard.call(lambda: None)
    assert stand.guard.recorder.counts().total(Outcome.GOOD, injected=True) == 1
    assert [(event.outcome, event.injected) for event in stand.told(CallEnded)] == [("good", True)]


def test_a_call_that_is_cancelled_in_its_delay_is_marked(stand):
    """Abandoned, by reason of an experiment."""

    class Stuck(ManualClock):
        async def await_(self, future, timeout):
            await asyncio.Event().wait()

    stand = Stand(clock=Stuck())
    stand.arm(LATENCY)

    async def main():
        async def answer():
            return None

        task = asyncio.ensure_future(stand.guard.acall(answer))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    assert stand.guard.recorder.counts().total(Outcome.ABANDONED, injected=True) == 1


def test_faults_are_counted_by_component_and_kind(make):
    """For good, although old experiments are forgotten; beyond 200 pairs they are counted together."""
    stand = make()
    for _ in range(70):
        run = stand.arm(max_injections=2)
        stand.struck(2)
        assert not run.live
    stand.arm(LATENCY)
    stand.struck(5)
    assert stand.chaos.faults() == {("llm.invoke", "error"): 140, ("llm.invoke", "latency"): 5}
    stand.chaos.stop_all()
    for number in range(300):
        name = f"g{number}"
        stand.resilience.guard(name)
        stand.arm(target=name, max_injections=1)
        stand.struck(name=name)
    counts = stand.chaos.faults()
    assert len(counts) == 201
    assert sum(counts.values()) == 445


# -- every policy sees it like a real one -----------------------------------------------------------------------------------------------


def test_a_retry_sees_injected_faults(stand):
    """It tries again, and saves the call; the attempts that failed are marked."""
    guard = stand.resilience.guard("saved", retry=Retry(attempts=3, wait=0.0))
    stand.arm(target="saved", max_injections=2)
    assert guard.call(lambda: "answer") == "answer"
    assert [event.injected for event in stand.told(AttemptFailed)] == [True, True]
    assert guard.recorder.counts().total(Outcome.GOOD, injected=True) == 1


def test_an_attempt_after_a_quiet_failure_is_struck_too(stand):
    """The first attempt fails by itself on the quiet path; while it is being repeated an experiment begins."""
    guard = stand.resilience.guard("saved", retry=Retry(attempts=3, wait=0.0))
    attempts = itertools.count()

    def call():
        if next(attempts) == 0:
            stand.arm(target="saved", max_injections=1)
            raise LookupError
        return "answer"

    assert guard.call(call) == "answer"
    assert next(attempts) == 2
    assert [event.injected for event in stand.told(AttemptFailed)] == [False, True]


def test_a_breaker_sees_injected_faults(stand):
    """It opens, as it would for real ones."""
    guard = stand.resilience.guard("broken", breaker=breaker())
    stand.arm(target="broken")
    assert stand.struck(2, "broken") == [True, True]
    with pytest.raises(CircuitOpen):
        guard.call(lambda: None)


def test_a_fallback_sees_injected_faults(stand):
    """It answers."""
    guard = stand.resilience.guard("answered", fallback=lambda: "lesser")
    stand.arm(target="answered")
    assert guard.call(lambda: "answer") == "lesser"
    assert guard.recorder.counts().total(Outcome.GOOD, injected=True) == 1


def test_a_timeout_sees_injected_delays(stand):
    """A synchronous call that is delayed beyond its time is late, hence bad."""
    guard = stand.resilience.guard("timed", timeout=1.0)
    stand.arm(LATENCY, "timed", delay_seconds=2.0)
    assert guard.call(lambda: "answer") == "answer"
    assert guard.recorder.counts().total(Outcome.BAD, injected=True) == 1


def test_a_slow_call_breaker_sees_injected_delays(stand):
    """It opens."""
    options = breaker(consecutive_failures=None, slow_call_rate=0.5, slow_call_duration=1.0, minimum_calls=2)
    guard = stand.resilience.guard("slow", breaker=options)
    stand.arm(LATENCY, "slow", delay_seconds=2.0)
    for _ in range(2):
        guard.call(lambda: None)
    with pytest.raises(CircuitOpen):
        guard.call(lambda: None)


def test_streams_are_struck_before_their_first_item(stand):
    """As functions are."""
    stand.arm()

    @stand.guard
    def stream():
        yield pytest.fail("it began")

    with pytest.raises(InjectedFault):
        list(stream())


def test_blocks_are_struck_before_they_begin(stand):
    """The body is not entered."""
    stand.arm()
    with pytest.raises(InjectedFault), stand.guard:
        pytest.fail("it began")


# -- a defect of the engine is no fault -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (ExperimentRun, "strike"),
        (ExperimentRun, "claim"),
        (ExperimentRun, "_hit"),
        (ExperimentRun, "hold"),
        (ExperimentRun, "live"),
        (Rule, "strike"),
        (Rule, "hold"),
        (Rule, "live"),
    ],
)
@pytest.mark.parametrize("suspends", [False, True], ids=["sync", "async"])
def test_a_defect_in_any_step_lets_the_call_pass(stand, monkeypatch, owner, step, suspends):
    """The caller gets the callee's answer, and the defect is reported once."""
    stand.arm(LATENCY)

    def breaks(*args, **options):
        raise RuntimeError("planted")

    monkeypatch.setattr(owner, step, property(breaks) if step == "live" else breaks)

    async def answer():
        return "answer"

    for _ in range(3):
        result = asyncio.run(stand.guard.acall(answer)) if suspends else stand.guard.call(lambda: "answer")
        assert result == "answer"
    assert [event.error for event in stand.told(DefectFound)] == ["RuntimeError"]


def test_a_function_that_cannot_make_an_error_lets_the_call_pass(stand):
    """A user's mistake in an experiment is no outage, and no injection is counted."""
    run = stand.arm(error=lambda: 1 / 0)
    assert stand.guard.call(lambda: "answer") == "answer"
    assert run.injected == 0
    assert [event.error for event in stand.told(DefectFound)] == ["ZeroDivisionError"]
    assert stand.guard.recorder.counts().total(Outcome.GOOD, injected=False) == 1


def test_a_circuit_that_struck_calls_open_is_the_experiment_s_doing():
    """Its rejections and its incident carry the mark, so that a budget without drills leaves them out; a later real outage does not."""
    stand = Stand()
    stand.resilience.slos.add(SLO("all", 99.0, timedelta(days=1)), SLO("real", 99.0, timedelta(days=1), injected="exclude"))
    guard = stand.resilience.guard("db", breaker=breaker(), slo=("all", "real"))
    run = stand.arm(target="db")
    for _ in range(2):
        with pytest.raises(InjectedFault):
            guard.call(lambda: None)
    with pytest.raises(CircuitOpen) as refused:
        guard.call(lambda: None)
    assert refused.value.injected
    assert [event.injected for event in stand.told(IncidentOpened)] == [True]
    assert stand.resilience.slos.error_budget("all").bad == 3
    assert stand.resilience.slos.error_budget("real").bad == 0

    run.end()
    stand.clock.advance(10.0)
    guard.call(lambda: None)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            guard.call(lambda: 1 // 0)
    with pytest.raises(CircuitOpen) as refused:
        guard.call(lambda: None)
    assert not refused.value.injected
    assert [event.injected for event in stand.told(IncidentOpened)] == [True, False]
    assert stand.resilience.slos.error_budget("real").bad == 3


def test_a_fault_names_the_guard_that_it_struck():
    """A pattern may cover many guards; whoever reads the error, the event or the metric wants to know which one."""
    stand = Stand()
    stand.resilience.guard("llm.embed")
    stand.arm(target="llm.*")
    for name in ("llm.invoke", "llm.embed", "llm.embed"):
        with pytest.raises(InjectedFault, match=name):
            stand.resilience.guard(name).call(lambda: None)
    assert [event.component for event in stand.told(FaultInjected)] == ["llm.invoke", "llm.embed", "llm.embed"]
    assert stand.chaos.faults() == {("llm.invoke", "error"): 1, ("llm.embed", "error"): 2}
