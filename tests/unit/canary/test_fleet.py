"""The judge of a fleet: what pods tell, what of it is evidence, and that what is missing, late or a lie never lets anything pass."""

from __future__ import annotations

import json
import math
import random
import threading

import pytest

from somaresil import ConfigurationError
from somaresil.canary.fleet import MOST_CHECKSUMS, MOST_PODS, Absent, EvidenceInbox, FleetJudge, Reading, Told
from somaresil.canary.ledger import Levels
from somaresil.canary.telling import MOST_MARKS, EvidenceTeller, read_telling
from somaresil.events import DefectFound
from somaresil.model.rollout import Verdict
from tests.unit.slo.kit import availability, bad, good, process

EVERY = 10.0


class Pod:
    """A pod as its tellings show it, on the clock of the test."""

    def __init__(self, clock, name, role, *, checksum="", instance=None, began=None):
        self.clock, self.name, self.role, self.checksum = clock, name, role, checksum
        self.instance = instance or f"{name}-1"
        self.began = clock.monotonic() if began is None else began
        self.good = self.bad = 0
        self.marks = []
        self.silent = False
        self.extra = {}

    def mark(self):
        at = math.floor(self.clock.time() / EVERY) * EVERY
        if not self.marks or self.marks[-1]["at"] < at:
            self.marks = [*self.marks, {"at": at, "counts": {"up": [self.good, self.bad]}}][-MOST_MARKS:]

    def serve(self, events, bad=0):
        self.good += events - bad
        self.bad += bad

    def restart(self):
        self.instance = f"{self.instance}x"
        self.began, self.good, self.bad, self.marks = self.clock.monotonic(), 0, 0, []

    def tell(self):
        return {
            "form": 1,
            "pod": self.name,
            "instance": self.instance,
            "role": self.role,
            "version": "v2" if self.role == "candidate" else "v1",
            "checksum": self.checksum,
            "time": self.clock.time(),
            "age": self.clock.monotonic() - self.began,
            "every": EVERY,
            "marks": self.marks,
            **self.extra,
        }


class Pods:
    """A source that asks some pods."""

    instant = True

    def __init__(self, *pods):
        self.pods = list(pods)
        self.broken = None

    def read(self):
        if self.broken:
            raise self.broken
        told = tuple(Told(pod.tell(), pod.name) for pod in self.pods if not pod.silent)
        return Reading(told, tuple(Absent(pod.name, "no answer", pod.role) for pod in self.pods if pod.silent))


class Fleet:
    """Pods of both sides, and their judge."""

    def __init__(self, candidates=1, controls=1, *, clock=None, begin="c1", **options):
        self.resilience, self.clock = process(availability(), clock=clock)
        self.clock.step_wall(-(self.clock.time() % EVERY) + 0.5)
        self.defects = []
        self.resilience.on(self.defects.append, DefectFound)
        self.candidates = [Pod(self.clock, f"canary-{number}", "candidate") for number in range(candidates)]
        self.controls = [Pod(self.clock, f"stable-{number}", "control") for number in range(controls)]
        self.source = Pods(*self.candidates, *self.controls)
        self.judge = FleetJudge(self.resilience, **{"name": "gateway", "bad": "up", "sources": [self.source], **options})
        if begin:
            self.judge.begin(begin)
        self.tick()

    @property
    def pods(self):
        return self.source.pods

    def tick(self, times=1, *, look=True):
        for _ in range(times):
            self.clock.advance(EVERY)
            for pod in self.pods:
                pod.mark()
            if look:
                self.judge.look()

    def serve(self, candidate=(0, 0), control=(0, 0)):
        for pods, (events, bad_ones) in ((self.candidates, candidate), (self.controls, control)):
            for pod in pods:
                pod.serve(events, bad_ones)

    def run(self, times=1, *, candidate=(100, 0), control=(100, 0)):
        for _ in range(times):
            self.serve(candidate, control)
            self.tick()

    def says(self, checksum="c1"):
        return self.judge.peek(checksum) if self.judge.knows(checksum) else self.judge.opinion(checksum)

    def counts(self, checksum="c1"):
        counts = self.says(checksum).finding.counts
        return counts.candidate_good, counts.candidate_bad, counts.control_good, counts.control_bad


def test_a_candidate_that_nothing_speaks_against_passes_when_enough_was_seen():
    fleet = Fleet(2, 3, minimum_events=50)
    assert fleet.says().verdict is Verdict.WAIT
    fleet.run(candidate=(24, 0))
    assert (fleet.says().verdict, fleet.says().reason) == (Verdict.WAIT, "48 of 50 events of the candidate beside the control")
    fleet.run(candidate=(1, 0))
    said = fleet.says()
    assert (said.verdict, said.missing) == (Verdict.PASS, ())
    assert said.at == math.floor(fleet.clock.time() / EVERY) * EVERY
    assert fleet.counts() == (50, 0, 600, 0)


def test_a_bad_candidate_fails_and_stays_so_whatever_comes_after():
    fleet = Fleet()
    fleet.run(candidate=(10, 10), control=(90, 0))
    said = fleet.says()
    assert said.verdict is Verdict.FAIL
    assert said.reason.startswith("worse than the control (10 of 10 bad, control 0 of 90")
    fleet.run(100, candidate=(1000, 0), control=(1000, 500))
    assert (fleet.says().verdict, fleet.says().reason) == (Verdict.FAIL, said.reason)
    assert fleet.judge.promote("I know better") == f"it has failed: {said.reason}"
    assert fleet.says().verdict is Verdict.FAIL


def test_an_outage_that_strikes_everybody_for_a_moment_is_no_evidence():
    """It would be, if the counts of one side came a step later than those of the other; they are told of the same moments."""
    fleet = Fleet(1, 1)
    fleet.run(3)
    fleet.candidates[0].silent = True
    fleet.serve((1000, 900), (1000, 900))
    fleet.tick()
    fleet.candidates[0].silent = False
    fleet.tick()
    assert fleet.says().finding.worse < 1.5
    assert fleet.counts() == (400, 900, 400, 900)


def test_counts_are_waited_for_as_long_as_the_patience_lasts_and_then_count_for_the_objective_alone():
    fleet = Fleet(1, 1, patience=10.0)
    fleet.run()
    silent = fleet.candidates[0]
    silent.silent = True
    fleet.serve((50, 10), (50, 0))
    fleet.tick()
    assert fleet.counts() == (100, 0, 100, 0)
    assert fleet.says().missing == ("canary-0: no answer",)
    fleet.tick(2)
    assert fleet.counts() == (100, 0, 100, 0)
    silent.silent = False
    silent.marks = silent.marks[-1:]
    fleet.tick()
    assert fleet.counts() == (140, 10, 100, 0)
    assert fleet.says().finding.worse == 1.0


def test_the_objective_is_asked_about_what_could_not_be_compared():
    fleet = Fleet(1, 1, levels=Levels(allowed=0.01))
    fleet.run()
    silent = fleet.candidates[0]
    silent.silent = True
    fleet.serve((50, 50), (50, 0))
    fleet.tick(5)
    silent.silent, silent.marks = False, silent.marks[-1:]
    fleet.tick()
    assert fleet.says().verdict is Verdict.FAIL
    assert "more than 0.01 of its events are bad" in fleet.says().reason


@pytest.mark.parametrize("side", ["candidates", "controls"])
def test_below_the_quorum_of_either_side_nothing_passes(side):
    fleet = Fleet(4, 4, quorum=0.75)
    fleet.run(3)
    assert fleet.says().verdict is Verdict.PASS
    pods = getattr(fleet, side)
    pods[0].silent = True
    fleet.run(3)
    assert fleet.says().verdict is Verdict.PASS
    pods[1].silent = True
    fleet.run(3)
    assert (fleet.says().verdict, fleet.says().reason) == (Verdict.WAIT, f"2 of 4 pods of the {side[:-1]} tell what they see")
    assert len(fleet.says().missing) == 2
    pods[1].silent = False
    fleet.run(2)
    assert fleet.says().verdict is Verdict.PASS


def test_what_was_seen_was_seen_also_below_the_quorum():
    fleet = Fleet(4, 4, quorum=1.0)
    fleet.controls[0].silent = True
    fleet.run(4, candidate=(5, 5))
    assert fleet.says().verdict is Verdict.FAIL


def test_a_pod_that_restarts_counts_from_nothing_again():
    fleet = Fleet()
    fleet.run()
    fleet.candidates[0].restart()
    fleet.candidates[0].serve(30, 3)
    fleet.controls[0].serve(100)
    fleet.tick()
    assert fleet.counts() == (127, 3, 200, 0)
    assert fleet.says().missing == ()


def test_a_pod_that_comes_up_counts_whole_and_one_that_was_there_before_from_what_it_has_counted_by_then():
    fleet = Fleet()
    old = Pod(fleet.clock, "stable-9", "control", began=fleet.clock.monotonic() - 1_000)
    old.serve(10_000, 5_000)
    young = Pod(fleet.clock, "stable-8", "control")
    young.serve(7, 2)
    fleet.pods.extend([old, young])
    fleet.run()
    assert fleet.counts() == (100, 0, 105, 2)
    old.serve(10, 1)
    fleet.run()
    assert fleet.counts() == (200, 0, 214, 3)


def test_one_address_with_several_processes_behind_it_is_never_counted_twice():
    """Each answer is of another process; what was not told of the same step is not compared."""
    fleet = Fleet()
    one, other = fleet.candidates[0], Pod(fleet.clock, "canary-0", "candidate", instance="other", began=fleet.clock.monotonic() - 1_000)
    other.serve(5_000, 5_000)
    for number in range(6):
        fleet.source.pods = [(one, other)[number % 2], *fleet.controls]
        one.serve(10)
        other.serve(10)
        one.mark()
        other.mark()
        fleet.run(candidate=(0, 0))
    assert sum(fleet.counts()[:2]) <= 130
    assert fleet.counts()[1] == 0
    assert fleet.says().verdict is not Verdict.FAIL


LIES = [
    ({"marks": "many"}, "evidence.marks"),
    ({"marks": [{"at": 0.0, "counts": {"up": [1, -1]}}]}, "marks[0].counts"),
    ({"marks": [{"at": 0.0, "counts": {"up": [True, 1]}}]}, "marks[0].counts"),
    ({"marks": [{"at": 0.0, "counts": {"up": [1e300, 1]}}]}, "marks[0].counts"),
    ({"marks": [{"at": 0.0, "counts": {"up": [10**300, 1]}}]}, "marks[0].counts"),
    ({"marks": [{"at": 0.0, "counts": {"up": [float("nan"), 1]}}]}, "marks[0].counts"),
    ({"marks": [{"at": float("inf"), "counts": {"up": [1, 1]}}]}, "marks[0].at"),
    ({"marks": [{"at": 0.0, "counts": {"down": [1, 1]}}]}, "it tells nothing of 'up'"),
    ({"marks": [{"at": 10.0, "counts": {"up": [5, 1]}}, {"at": 20.0, "counts": {"up": [4, 1]}}]}, "marks[1]"),
    ({"every": 30.0, "marks": []}, "it marks every 30 s"),
    ({"time": 1e9}, "its clock is wrong by -"),
    ({"time": 3e9}, "its clock is wrong by +"),
    ({"time": "now"}, "evidence.time"),
    ({"role": "judge"}, "evidence.role"),
    ({"form": 7}, "evidence.form"),
    ({"pod": "x" * 500}, "evidence.pod"),
    ({"instance": ""}, "evidence.instance"),
    ({"version": "v\n2"}, "evidence.version"),
]


@pytest.mark.parametrize(("lie", "told"), LIES)
def test_a_pod_that_lies_is_missing_and_nothing_passes(lie, told):
    fleet = Fleet()
    fleet.candidates[0].extra = lie
    fleet.run(4)
    said = fleet.says()
    assert said.verdict is Verdict.WAIT
    assert any(told in each for each in said.missing), said.missing
    assert said.finding.counts.candidate == 0


def test_a_pod_whose_counts_go_back_is_not_listened_to_until_it_has_restarted():
    fleet = Fleet()
    fleet.run(3)
    liar = fleet.candidates[0]
    liar.good, liar.marks = 5, []
    fleet.run(3)
    assert fleet.says().missing == ("canary-0: its counts went back",)
    assert fleet.says().verdict is Verdict.WAIT
    assert fleet.counts()[:2] == (300, 0)
    liar.restart()
    fleet.run(3)
    assert (fleet.says().verdict, fleet.says().missing) == (Verdict.PASS, ())


def test_a_pod_that_tells_two_things_of_one_moment_is_not_listened_to():
    fleet = Fleet()
    fleet.run()
    fleet.candidates[0].marks[-1] = {"at": fleet.candidates[0].marks[-1]["at"], "counts": {"up": [99, 0]}}
    fleet.run(2)
    assert fleet.says().missing == ("canary-0: it tells two things of one moment",)


def test_pods_of_the_control_that_are_those_of_the_candidate_by_mistake():
    """By their checksum, or because one process is told on both sides."""
    fleet = Fleet()
    for pod in fleet.pods:
        pod.checksum = "c1"
        pod.restart()
    fleet.run(3)
    assert (fleet.says().verdict, fleet.says().reason) == (
        Verdict.WAIT,
        "stable-0 is said to be of the control, and has the checksum of the candidate",
    )
    fleet = Fleet()
    twin = Pod(fleet.clock, "canary-0", "control", instance="canary-0-1")
    fleet.pods.append(twin)
    fleet.run(3)
    assert fleet.says().verdict is Verdict.WAIT
    assert "canary-0: it is told on both sides" in fleet.says().missing


def test_pods_of_which_nobody_knows_the_side_are_no_evidence():
    fleet = Fleet()
    fleet.candidates[0].role = ""
    fleet.candidates[0].restart()
    fleet.run(3)
    assert (fleet.says().verdict, fleet.says().missing) == (Verdict.WAIT, ("canary-0: nobody knows of which side it is",))


def test_sides_are_told_apart_by_checksums_where_no_role_is_told():
    fleet = Fleet(begin="")
    for pods, checksum in ((fleet.candidates, "new"), (fleet.controls, "old")):
        for pod in pods:
            pod.role, pod.checksum = "", checksum
            pod.restart()
    fleet.judge.begin("new")
    fleet.tick()
    fleet.run(2, candidate=(60, 1))
    assert fleet.counts("new") == (118, 2, 200, 0)


def test_another_checksum_begins_anew_from_the_counters_as_they_are():
    fleet = Fleet()
    fleet.run(3, candidate=(100, 1))
    before = fleet.says("c1")
    fleet.serve((40, 40), (40, 0))
    assert fleet.says("c2").finding.counts.candidate == 0
    fleet.tick()
    fleet.run(candidate=(10, 0))
    assert fleet.counts("c2") == (10, 0, 100, 0)
    assert fleet.judge.current == "c2"
    assert fleet.says("c1").finding == before.finding
    fleet.run(10)
    assert (fleet.says("c1").verdict, fleet.says("c2").verdict) == (Verdict.WAIT, Verdict.PASS)


def test_a_checksum_that_comes_back_goes_on_without_the_step_in_which_it_did():
    fleet = Fleet()
    fleet.run(3)
    fleet.judge.opinion("c2")
    fleet.run(3, candidate=(100, 50))
    fleet.serve((40, 40), (40, 0))
    assert fleet.judge.opinion("c1").finding.counts.candidate_bad == 0
    assert fleet.judge.current == "c1"
    fleet.tick()
    fleet.run(2, candidate=(10, 0))
    assert fleet.counts("c1")[:2] == (320, 0)
    assert fleet.says("c2").verdict is Verdict.FAIL


def test_who_is_only_curious_begins_nothing():
    fleet = Fleet()
    fleet.run(2)
    said = fleet.judge.peek("c9")
    assert (said.verdict, said.reason) == (Verdict.WAIT, "nothing is known of the checksum 'c9'")
    assert (fleet.judge.current, fleet.judge.knows("c9")) == ("c1", False)


def test_the_same_checksum_twice_changes_nothing():
    fleet = Fleet()
    fleet.run(3)
    assert not fleet.judge.begin("c1")
    assert fleet.counts()[0] == 300


def test_pods_that_tell_their_checksum_are_evidence_of_that_one_alone():
    fleet = Fleet(2, 1, begin="")
    fleet.candidates[0].checksum, fleet.candidates[1].checksum = "a", "b"
    for pod in fleet.candidates:
        pod.restart()
    fleet.tick(2)
    fleet.candidates[1].serve(20, 20)
    fleet.run(1, candidate=(60, 0))
    assert (fleet.says("a").verdict, fleet.says("b").verdict) == (Verdict.PASS, Verdict.FAIL)


def test_few_checksums_are_known_and_the_one_that_is_judged_is_never_forgotten():
    fleet = Fleet()
    fleet.run(2, candidate=(20, 20))
    for number in range(50):
        fleet.says(f"other {number}")
        assert len(fleet.judge._trials) <= MOST_CHECKSUMS
    assert fleet.says("c1").verdict is Verdict.FAIL


def test_old_data_are_no_reason_to_pass():
    fleet = Fleet()
    fleet.run(3)
    assert fleet.says().verdict is Verdict.PASS
    fleet.clock.advance(61.0)
    assert (fleet.says().verdict, fleet.says().reason) == (Verdict.WAIT, "nobody has looked at the pods for 61 s")
    for pod in fleet.pods:
        pod.silent = True
    fleet.judge.look()
    assert fleet.says().verdict is Verdict.WAIT


def test_a_source_that_breaks_is_missing_and_the_judge_goes_on():
    fleet = Fleet()
    fleet.run(2)
    fleet.source.broken = ConnectionError("no route")
    fleet.run(3)
    assert (fleet.says().verdict, fleet.says().missing[0]) == (Verdict.WAIT, "Pods: ConnectionError: no route")
    fleet.source.broken = None
    fleet.run(2)
    assert fleet.says().verdict is Verdict.PASS


@pytest.mark.parametrize("step", [-5_000.0, -25.0, 25.0, 5_000.0])
def test_steps_of_the_wall_clock_make_no_evidence(step):
    fleet = Fleet()
    fleet.run(3)
    before = fleet.says().finding
    fleet.clock.step_wall(step)
    for pod in fleet.pods:
        pod.marks = []
        if step < 0:
            pod.restart()
    fleet.serve((100, 0), (100, 0))
    fleet.tick(3)
    after = fleet.says().finding
    assert after.worse <= before.worse
    assert after.counts.candidate_bad == 0
    fleet.run(4)
    assert fleet.says().verdict is Verdict.PASS


def test_no_data_holds_unless_somebody_has_said_that_it_passes():
    """And then only when all pods are there to say that they have none."""
    held, passing = Fleet(), Fleet(no_data="pass")
    for fleet in (held, passing):
        fleet.run(3, candidate=(0, 0))
    assert (held.says().verdict, passing.says().verdict) == (Verdict.WAIT, Verdict.PASS)
    passing.candidates[0].silent = True
    passing.run(3, candidate=(0, 0))
    assert passing.says().verdict is Verdict.WAIT


def test_without_any_event_of_the_control_nothing_passes():
    fleet = Fleet()
    fleet.run(5, control=(0, 0))
    assert fleet.says().verdict is Verdict.WAIT


def test_proof_is_asked_for_where_it_is_wanted():
    fleet = Fleet(prove=True)
    fleet.run(5)
    assert fleet.says().verdict is Verdict.WAIT
    fleet.run(60, candidate=(100, 2), control=(100, 2))
    assert (fleet.says().verdict, fleet.says().reason[:20]) == (Verdict.PASS, "not 2 times as bad a")


def test_people_have_the_last_word_but_for_a_failure():
    fleet = Fleet()
    assert fleet.judge.promote("by hand") == "by hand"
    assert (fleet.says().verdict, fleet.says().reason) == (Verdict.PASS, "by hand")
    fleet.judge.pause("wait for the release notes")
    assert fleet.says().reason == "it is paused: wait for the release notes"
    fleet.judge.resume()
    assert fleet.says().verdict is Verdict.PASS
    fleet.judge.roll_back("customers\ncomplain")
    assert (fleet.says().verdict, fleet.says().reason) == (Verdict.FAIL, "customers complain")
    assert FleetJudge(fleet.resilience, name="other", bad="up", sources=[fleet.source]).promote() == "nothing was started"


def test_several_objectives_count_each_for_itself():
    """A request that misses both would be two bad events of one cause; so the mean of their evidence counts, and all must pass."""
    fleet = Fleet(bad=["up", "fast"])
    fleet.run(0)
    for number in range(4):
        for pod, slow in ((fleet.candidates[0], 40), (fleet.controls[0], 0)):
            pod.serve(100)
            pod.extra = {
                "marks": [*pod.extra.get("marks", []), {"at": 0.0, "counts": {"up": [pod.good, 0], "fast": [pod.good, slow * number]}}]
            }
        fleet.clock.advance(EVERY)
        for pod in fleet.pods:
            pod.extra["marks"][-1]["at"] = math.floor(fleet.clock.time() / EVERY) * EVERY
        fleet.judge.look()
    said = fleet.says()
    assert (said.verdict, said.reason[:5]) == (Verdict.FAIL, "fast:")
    assert said.finding.counts.candidate_bad == 120


def test_the_snapshot_outlives_the_process_and_counts_nothing_twice(tmp_path):
    path = tmp_path / "judge.json"
    fleet = Fleet(snapshot=path)
    fleet.run(3, candidate=(100, 2))
    before = fleet.says()
    fleet.serve((100, 1), (100, 0))
    fleet.tick(2, look=False)
    again = FleetJudge(fleet.resilience, name="gateway", bad="up", sources=[fleet.source], snapshot=path)
    assert again.opinion("c1").finding == before.finding
    assert again.opinion("c1").verdict is Verdict.WAIT
    again.look()
    counts = again.opinion("c1").finding.counts
    assert (counts.candidate_good, counts.candidate_bad) == (393, 7)
    fleet.judge.look()
    assert fleet.says().finding == again.opinion("c1").finding


def test_what_has_failed_has_failed_after_a_restart(tmp_path):
    path = tmp_path / "judge.json"
    fleet = Fleet(snapshot=path)
    fleet.run(2, candidate=(20, 20))
    again = FleetJudge(fleet.resilience, name="gateway", bad="up", sources=[fleet.source], snapshot=path)
    assert again.opinion("c1").verdict is Verdict.FAIL


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"form": 1, "canary": "gateway", "bad": ["up"], "trials": [{}]}', "[" * 100_000])
def test_a_snapshot_that_is_none_is_left_out_and_reported(tmp_path, text):
    path = tmp_path / "judge.json"
    path.write_text(text)
    path.chmod(0o600)
    fleet = Fleet(snapshot=path)
    assert [defect for defect in fleet.defects if "snapshot" in defect.where]
    fleet.run(2)
    assert fleet.says().verdict is Verdict.PASS


def test_a_snapshot_that_cannot_be_written_changes_no_verdict(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    fleet = Fleet(snapshot=folder / "judge.json")
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()
    fleet.run(2)
    assert fleet.says().verdict is Verdict.PASS
    assert fleet.defects


def test_there_is_a_bound_on_processes():
    fleet = Fleet()
    fleet.pods.extend(Pod(fleet.clock, f"more-{number}", "control") for number in range(MOST_PODS))
    fleet.run(2)
    assert len(list(fleet.judge._roster)) == MOST_PODS
    assert any(f"more than {MOST_PODS} processes" in each for each in fleet.says().missing)


def test_a_thread_looks_at_the_pods_when_started():
    fleet = Fleet()
    looked = threading.Event()
    read = fleet.source.read
    fleet.source.read = lambda: (looked.set(), read())[1]
    fleet.judge.start()
    try:
        assert looked.wait(10.0)
    finally:
        fleet.judge.stop()


def test_a_fleet_that_is_no_worse_is_seldom_called_worse():
    """The weight of each step is known only at its end; the bet stays one. 2,000 fleets with ramps, outages and a level of 5 %."""
    chance, failed = random.Random(7), 0
    levels = Levels(alpha=0.05)
    from somaresil.canary.ledger import CanaryLedger

    for _ in range(2_000):
        ledger = CanaryLedger("c1", levels)
        for step in range(40):
            mine, theirs = chance.randrange(2, 40), chance.randrange(2, 40)
            rate = 0.5 if step % 13 == 0 else 0.03
            bad_mine, bad_theirs = sum(chance.random() < rate for _ in range(mine)), sum(chance.random() < rate for _ in range(theirs))
            ledger.count(
                mine / (mine + theirs),
                candidate_good=mine - bad_mine,
                candidate_bad=bad_mine,
                control_good=theirs - bad_theirs,
                control_bad=bad_theirs,
            )
            if ledger.finding().verdict is Verdict.FAIL:
                failed += 1
                break
    assert failed <= 0.05 * 2_000


def test_all_problems_of_a_judge_are_told_at_once(tmp_path):
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError) as caught:
        FleetJudge(
            resilience,
            name="no name",
            bad=[],
            sources=[],
            minimum_events=0,
            no_data="maybe",
            quorum=0.0,
            every=2.5,
            patience=-1.0,
            stale=1.0,
            snapshot=tmp_path / "none" / "judge.json",
        )
    paths = [problem.path.partition(".")[2] for problem in caught.value.problems]
    assert paths == ["name", "bad", "sources", "minimum_events", "no_data", "quorum", "every", "patience", "stale", "snapshot"]


# -- the pod's side -----------------------------------------------------------------------------------------------------------------------


def told_by(**options):
    resilience, clock = process(availability())
    clock.step_wall(-(clock.time() % EVERY) + 0.5)
    guard = resilience.guard("call", slo="up")
    return EvidenceTeller(resilience, **{"bad": "up", "role": "candidate", "checksum": "c1", **options}), guard, clock


def test_a_pod_tells_its_counters_at_marks_that_all_have_in_common():
    teller, guard, clock = told_by(pod="gw-1")
    good(guard, 5)
    bad(guard, 2)
    clock.advance(EVERY)
    assert teller.mark()
    assert not teller.mark()
    good(guard, 3)
    clock.advance(EVERY)
    assert teller.mark()
    said = read_telling(json.loads(json.dumps(teller.tell())))
    assert (said.pod, said.role, said.checksum, said.age) == ("gw-1", "candidate", "c1", 20.0)
    assert [mark.counts for mark in said.marks] == [{"up": (5, 2)}, {"up": (8, 2)}]
    assert all(mark.at % EVERY == 0 for mark in said.marks)


def test_a_mark_that_is_late_is_left_out():
    teller, _, clock = told_by()
    clock.advance(EVERY + 1.5)
    assert not teller.mark()
    assert teller.tell()["marks"] == []


def test_a_pod_whose_clock_was_set_back_counts_as_another_one():
    teller, guard, clock = told_by()
    good(guard, 5)
    clock.advance(EVERY)
    teller.mark()
    before = teller.instance
    clock.step_wall(-100.0)
    teller.mark()
    assert teller.instance != before
    assert [mark["counts"] for mark in teller.tell()["marks"]] == [{"up": [0, 0]}]


def test_marks_are_bounded():
    teller, _, clock = told_by()
    for _ in range(100):
        clock.advance(EVERY)
        teller.mark()
    assert len(teller.tell()["marks"]) == MOST_MARKS


def test_the_thread_of_a_pod_tells_whoever_is_to_hear_and_survives_one_that_is_away():
    heard, done = [], threading.Event()

    def away(_):
        raise ConnectionError

    def here(telling):
        heard.append(telling)
        done.set()

    teller, _, clock = told_by(to=[away, here])
    clock.advance(EVERY - 0.5)
    teller.start()
    try:
        assert done.wait(10.0)
    finally:
        teller.stop()
    assert len(heard[0]["marks"]) == 1


def test_all_problems_of_a_teller_are_told_at_once():
    resilience, _ = process(availability())
    with pytest.raises(ConfigurationError) as caught:
        EvidenceTeller(resilience, bad="down", role="boss", version="v\n", every=0.0, to=[7])
    assert [problem.path.partition(".")[2] for problem in caught.value.problems] == ["bad", "role", "version", "every", "to"]


# -- pushing ------------------------------------------------------------------------------------------------------------------------------


def test_an_inbox_keeps_the_last_of_each_process_for_a_while():
    resilience, clock = process(availability())
    inbox, pod = EvidenceInbox(resilience, stale=60.0), Pod(clock, "gw-1", "candidate")
    for _ in range(3):
        inbox.take(pod.tell())
    assert len(inbox.read().told) == 1
    clock.advance(61.0)
    assert inbox.read().told == ()


def test_an_inbox_is_bounded_and_takes_no_nonsense():
    resilience, clock = process(availability())
    inbox = EvidenceInbox(resilience)
    for number in range(MOST_PODS):
        inbox.take(Pod(clock, f"gw-{number}", "control").tell())
    with pytest.raises(ConfigurationError):
        inbox.take(Pod(clock, "one more", "control").tell())
    with pytest.raises(ConfigurationError):
        inbox.take([])
    assert len(inbox.read().told) == MOST_PODS
