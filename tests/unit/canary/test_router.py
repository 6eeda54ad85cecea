"""A controller whose traffic a router moves, and whose evidence comes from a judge: what each of them may do wrong without harm."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from somaresil import ConfigurationError, ManualClock
from somaresil.canary import CanaryConfig, CanaryController, Step, Verdict
from somaresil.canary.ledger import Counts, Finding
from somaresil.canary.opinion import CanaryJudge, Opinion
from somaresil.canary.router import RouterError, RouterStatus, TrafficRouter
from somaresil.events import CanaryEnded, CanaryMoved, DefectFound
from tests.unit.slo.kit import availability, process

QUICK = {"steps": [10, 50, 100], "bake": 60.0, "minimum_events": 5, "interval": None}


class Router:
    """A load balancer that does what it is told, unless it is down."""

    def __init__(self, *, steps=True):
        self.steps = steps
        self.share = 0.0
        self.down = False
        self.orders = []

    def _take(self, *order):
        if self.down:
            raise RouterError("connection refused")
        self.orders.append(order)

    def start(self, version):
        self._take("start", version)

    def set_weight(self, share):
        self._take("set_weight", share)
        self.share = share

    def suspend(self):
        self._take("suspend")

    def resume(self):
        self._take("resume")

    def promote(self):
        self._take("promote")
        self.share = 1.0

    def abort(self, reason):
        self._take("abort", reason)
        self.share = 0.0

    def status(self):
        if self.down:
            raise RouterError("connection refused")
        return RouterStatus("Progressing", self.share)


class Judge:
    """Says what it is told to."""

    def __init__(self):
        self.events = 0
        self.verdict = Verdict.PASS
        self.reason = "nothing speaks against it"
        self.broken = None
        self.asked = []

    def opinion(self, checksum):
        self.asked.append(checksum)
        if self.broken is not None:
            raise self.broken
        finding = Finding(Verdict.WAIT, "no proof either way", 1.0, 1.0, 1.0, Counts(candidate_good=self.events))
        missing = () if self.verdict is not Verdict.WAIT else ("pod-3",)
        return Opinion(self.verdict, self.reason, finding, at=1.0, missing=missing)


def made(*, clock=None, snapshot=None, router=None, judge=None, leader=None, **options):
    resilience, clock = process(availability(target=95.0), clock=clock)
    config = CanaryConfig(**{"name": "answer", "bad": "up", **QUICK, **options})
    router = Router() if router is None else router
    judge = Judge() if judge is None else judge
    controller = CanaryController(resilience, config, snapshot=snapshot, leader=leader, judge=judge, router=router)
    events = []
    resilience.on(events.append, CanaryMoved, CanaryEnded, DefectFound)
    return controller, clock, router, judge, events


def baked(controller, clock, judge):
    """What a look comes to when the phase has baked and has its events."""
    judge.events += 50
    clock.advance(60.0)
    return controller.evaluate()


def test_they_are_what_the_protocols_say():
    """The stand-ins of these tests, that is."""
    router: TrafficRouter = Router()
    judge: CanaryJudge = Judge()
    assert isinstance(router, TrafficRouter)
    assert judge.opinion("x").verdict is Verdict.PASS


def test_the_router_gets_each_share_and_then_everything():
    """In order, each once; the version first."""
    controller, clock, router, judge, _ = made()
    controller.start("v2", checksum="abc")
    assert set(judge.asked) == {"abc"}
    for _ in range(3):
        controller.evaluate()
        assert baked(controller, clock, judge).step in {Step.PROMOTE, Step.COMPLETE}
    controller.evaluate()
    assert router.orders == [("start", "v2"), ("set_weight", 0.1), ("set_weight", 0.5), ("set_weight", 1.0), ("promote",)]
    assert (controller.phase, controller.status().trouble) == ("complete", "")


def test_a_failure_takes_all_traffic_away_and_says_why():
    """Whatever had baked."""
    controller, clock, router, judge, events = made()
    controller.start("v2")
    judge.verdict, judge.reason = Verdict.FAIL, "worse than the control"
    assert controller.evaluate().step is Step.ROLLBACK
    assert (router.share, router.orders[-1]) == (0.0, ("abort", "worse than the control"))
    assert isinstance(events[-1], CanaryEnded)
    clock.advance(1.0)
    before = list(router.orders)
    controller.evaluate()
    assert router.orders == before


def test_a_judge_that_waits_holds_it_however_long():
    """Missing pods and old data promote nothing, and neither does a time that is over."""
    controller, clock, router, judge, _ = made(longest=600.0, overdue="promote")
    controller.start("v2")
    judge.verdict, judge.reason = Verdict.WAIT, "1 of 3 pods has told nothing for 90 s"
    for _ in range(3):
        decided = baked(controller, clock, judge)
        assert decided.step is Step.HOLD
        clock.advance(1_000.0)
    assert "1 of 3 pods" in decided.reason
    assert (decided.status.missing, decided.status.newest) == (("pod-3",), 1.0)
    assert router.share == 0.1


def test_a_judge_that_raises_holds_it_and_is_reported():
    """And is asked again."""
    controller, clock, _, judge, events = made()
    controller.start("v2")
    judge.broken = OSError("no route to host")
    decided = baked(controller, clock, judge)
    assert decided.step is Step.HOLD
    assert "the judge does not answer: OSError: no route to host" in decided.reason
    assert any(isinstance(event, DefectFound) for event in events)
    judge.broken = None
    assert controller.evaluate().step is Step.PROMOTE


def test_a_judge_that_has_begun_anew_counts_from_there():
    """Its events are fewer than before, and the phase still gets its own."""
    controller, clock, _, judge, _ = made()
    controller.start("v2")
    baked(controller, clock, judge)
    judge.events = 2
    clock.advance(60.0)
    assert controller.evaluate().reason == "ramp_50: 0 of 5 events"
    judge.events = 7
    assert controller.evaluate().step is Step.PROMOTE


def test_calls_of_this_process_are_no_evidence_beside_a_judge():
    """They would be counted twice, or be those of others."""
    controller, _, router, _, _ = made()
    controller.start("v2")
    for _ in range(200):
        side = controller.choose()
        controller.note(side, bad=side.candidate)
    assert controller.seen() == Counts()
    assert controller.evaluate().step is Step.HOLD
    assert router.share == 0.1


def test_nothing_is_promoted_while_the_router_does_not_answer():
    """What it was told last may not be what it does."""
    controller, clock, router, judge, events = made()
    controller.start("v2")
    router.down = True
    decided = baked(controller, clock, judge)
    assert decided.step is Step.HOLD
    assert "the router does not follow: RouterError: connection refused" in decided.reason
    assert decided.status.trouble
    for _ in range(5):
        controller.evaluate()
    assert len([event for event in events if isinstance(event, DefectFound)]) == 1
    router.down = False
    assert controller.evaluate().step is Step.PROMOTE
    assert router.share == 0.5


def test_a_phase_bakes_from_when_the_router_has_taken_it():
    """Before that it has no traffic, so time proves nothing, and events were those of another share."""
    controller, clock, router, judge, _ = made()
    router.down = True
    controller.start("v2")
    judge.events = 500
    clock.advance(600.0)
    assert controller.evaluate().step is Step.HOLD
    router.down = False
    decided = controller.evaluate()
    assert decided.reason == "ramp_10: 60 of 60 s to bake, 0 of 5 events"
    assert router.orders == [("start", "v2"), ("set_weight", 0.1)]


def test_a_roll_back_is_ordered_until_it_was_taken():
    """At every look, and the version is over all the same."""
    controller, _, router, _, _ = made()
    controller.start("v2")
    router.down = True
    decided = controller.roll_back("customers complain")
    assert (decided.step, router.share) == (Step.ROLLBACK, 0.1)
    assert "the router does not follow" in decided.reason
    controller.evaluate()
    assert router.share == 0.1
    router.down = False
    controller.evaluate()
    assert (router.share, router.orders[-1]) == (0.0, ("abort", "customers complain"))
    assert controller.status().trouble == ""


def test_the_thread_goes_on_until_the_router_has_rolled_back():
    """Otherwise the traffic would stay where it is for good."""
    controller, _, router, _, _ = made(clock=ManualClock(), interval=0.05)
    controller.start("v2")
    router.down = True
    controller.roll_back("now")
    router.down = False
    until = time.monotonic() + 20.0
    while router.share and time.monotonic() < until:
        os.sched_yield()
    assert router.share == 0.0
    controller.stop()


def test_who_gives_the_candidate_more_does_not_prevail():
    """A share that nobody decided on is taken back, and told of."""
    controller, _, router, _, events = made()
    controller.start("v2")
    router.share = 0.8
    controller.evaluate()
    assert router.share == 0.1
    assert [event.where for event in events if isinstance(event, DefectFound)] == ["canary answer, looking at the router"]


def test_who_takes_traffic_away_from_the_candidate_prevails():
    """It is paused until somebody resumes it; a failure is acted upon all the same."""
    controller, clock, router, judge, _ = made()
    controller.start("v2")
    baked(controller, clock, judge)
    router.share = 0.0
    assert controller.evaluate().status.paused
    assert baked(controller, clock, judge).step is Step.HOLD
    assert router.share == 0.0
    controller.resume("the disk is back")
    assert (router.share, controller.status().paused) == (0.5, False)
    router.share = 0.0
    judge.verdict = Verdict.FAIL
    assert controller.evaluate().status.phase == "rollback"


def test_steps_that_a_router_has_of_its_own_are_no_difference():
    """Weights of 256 parts, whole percent."""
    controller, _, router, _, events = made()
    controller.start("v2")
    router.share = 26 / 256
    controller.evaluate()
    assert (controller.status().paused, router.share, events) == (False, 26 / 256, [])


def test_a_router_that_ramps_by_itself_is_started_stopped_and_told_the_end():
    """No share is set there."""
    controller, clock, router, judge, _ = made(router=Router(steps=False), steps=[10, 100])
    controller.start("v2")
    controller.pause("lunch")
    controller.resume()
    controller.evaluate()
    for _ in range(2):
        baked(controller, clock, judge)
    assert router.orders == [("start", "v2"), ("suspend",), ("resume",), ("promote",)]


def test_another_version_starts_anew_at_the_router():
    """With the first share."""
    controller, clock, router, judge, _ = made()
    controller.start("v2")
    baked(controller, clock, judge)
    controller.start("v3")
    assert router.orders[-2:] == [("start", "v3"), ("set_weight", 0.1)]


def test_of_two_processes_the_one_that_leads_gives_the_orders(tmp_path):
    """The other one's people are told so; when it leads, it goes on without asking for what was taken."""
    first = made(snapshot=tmp_path / "answer.json")
    second = made(snapshot=tmp_path / "answer.json", clock=first[1], router=first[2], judge=first[3])
    controller, clock, router, judge, _ = first
    controller.start("v2")
    second[0].start("v2")
    assert (controller.leads, second[0].leads) == (True, False)
    assert second[0].roll_back("by hand").reason == "another process leads"
    baked(controller, clock, judge)
    second[0].evaluate()
    assert router.orders == [("start", "v2"), ("set_weight", 0.1), ("set_weight", 0.5)]
    controller.stop()
    second[0].evaluate()
    assert second[0].leads
    assert router.orders[3:] == []
    second[0].roll_back("by hand")
    assert router.share == 0.0


def test_a_process_that_dies_before_the_router_has_rolled_back_is_followed_by_one_that_asks_again(tmp_path):
    """The order outlives it."""
    controller, clock, router, judge, _ = made(snapshot=tmp_path / "answer.json")
    controller.start("v2")
    router.down = True
    judge.verdict = Verdict.FAIL
    controller.evaluate()
    controller.stop()
    router.down = False
    again, *_ = made(snapshot=tmp_path / "answer.json", clock=clock, router=router, judge=judge)
    assert again.start("v2").phase == "rollback"
    assert router.share == 0.0


def test_a_fork_gives_no_orders():
    """Its parent does."""
    controller, _, router, _, _ = made()
    controller.start("v2")
    child = os.fork()
    if not child:
        try:
            controller.promote()
            os._exit(0 if len(router.orders) == 2 and not controller.leads else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert controller.promote().step is Step.PROMOTE


def test_a_coroutine_that_rolls_back_does_not_keep_the_loop_waiting_for_the_router():
    """It is asked in a thread."""
    controller, _, router, _, _ = made()
    controller.start("v2")

    async def go():
        loop = asyncio.get_running_loop()
        seen = []
        router.status = lambda: seen.append(1)

        def abort(reason):
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(20.0)
            router.share = 0.0

        router.abort = abort
        return await controller.rollback("now")

    assert asyncio.run(go()).step is Step.ROLLBACK
    assert router.share == 0.0


def test_what_is_no_judge_and_no_router_is_refused():
    """All at once."""
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError) as wrong:
        CanaryController(resilience, CanaryConfig(name="answer", bad="up"), judge=1, router="nginx")  # type: ignore[arg-type]
    assert [problem.path for problem in wrong.value.problems] == ["CanaryController('answer').judge", "CanaryController('answer').router"]


class AnyDay(RuleBasedStateMachine):
    """A router that fails at any moment, a judge that says anything, a process that dies at any moment, people who touch what they like."""

    def __init__(self):
        super().__init__()
        from tempfile import TemporaryDirectory

        self.folder = TemporaryDirectory()
        self.clock = ManualClock()
        self.router, self.judge = Router(), Judge()
        self.failed = False
        self.touched = False
        self.controller = None

    def teardown(self):
        if self.controller is not None:
            self.controller.stop()
        self.folder.cleanup()

    @initialize()
    def begin(self):
        self.born()

    def born(self):
        path = f"{self.folder.name}/answer.json"
        self.controller, *_ = made(snapshot=path, clock=self.clock, router=self.router, judge=self.judge)
        self.controller.start("v2")

    @rule(seconds=st.sampled_from([0.0, 1.0, 59.0, 61.0]), events=st.sampled_from([0, 3, 50]))
    def time_passes(self, seconds, events):
        self.clock.advance(seconds)
        self.judge.events += events

    @rule()
    def look(self):
        before, opinion, down = self.controller.phase, self.judge.verdict, self.router.down
        decided = self.controller.evaluate()
        if decided.step in {Step.PROMOTE, Step.COMPLETE}:
            assert opinion is Verdict.PASS
            assert self.judge.broken is None
            assert not down
        if before not in {"rollback", "complete"} and opinion is Verdict.FAIL and self.judge.broken is None:
            assert decided.step is Step.ROLLBACK
            self.failed = True
        # Who touches it when all is over is somebody else, with something else.
        self.touched = self.touched and (down or before in {"rollback", "complete"})

    @rule(verdict=st.sampled_from(list(Verdict)), broken=st.booleans())
    def the_judge_changes_its_mind(self, verdict, broken):
        self.judge.verdict = verdict
        self.judge.broken = OSError("gone") if broken else None

    @rule(down=st.booleans())
    def the_router(self, down):
        self.router.down = down

    @rule(share=st.sampled_from([0.0, 0.3, 1.0]))
    def somebody_touches_the_router(self, share):
        self.router.share = share
        self.touched = True

    @rule(kept=st.booleans())
    def the_process_dies(self, kept):
        if kept:
            self.controller.stop()
        else:
            # As a kill: nothing more is written, and the lock is given back by the kernel.
            self.controller._file.let_go()
            self.controller._stopped = True
        self.born()

    @precondition(lambda self: self.controller is not None)
    @invariant()
    def the_candidate_never_has_more_than_its_phase(self):
        if self.router.down or self.touched or self.controller.status().trouble:
            return
        assert self.router.share <= self.controller.weight + 0.01

    @precondition(lambda self: self.failed)
    @invariant()
    def what_has_failed_stays_so(self):
        assert self.controller.phase == "rollback"


TestAnyDay = AnyDay.TestCase
TestAnyDay.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
