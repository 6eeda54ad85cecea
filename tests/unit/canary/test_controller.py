"""The controller: what moves a rollout and what does not, evidence by checksum, snapshots, and who leads."""

from __future__ import annotations

import asyncio
import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.canary import CanaryConfig, CanaryController, Phase, Step, Verdict
from somaresil.events import CanaryEnded, CanaryMoved, CanaryStarted, ChaosAudited, DefectFound
from tests.unit.slo.kit import availability, process

NEARLY = b'{"form": 1, "canary": "answer", "version": "v2", "checksum": "v2", '
QUICK = {"steps": [10, 50, 100], "bake": 60.0, "minimum_events": 5, "interval": None}


def made(clock=None, snapshot=None, leader=None, **options):
    """A controller on a clock that is moved by hand, and what it told."""
    resilience, clock = process(availability(target=95.0), clock=clock)
    config = CanaryConfig(**{"name": "answer", "bad": "up", **QUICK, **options})
    controller = CanaryController(resilience, config, snapshot=snapshot, leader=leader)
    events = []
    resilience.on(events.append, CanaryStarted, CanaryMoved, CanaryEnded, DefectFound, ChaosAudited)
    return controller, clock, events


def requests(controller, times, *, candidate=0.0, control=0.0, keys=None):
    """So many requests, with these probabilities of a bad event on either side; how many went to the candidate."""
    chance, there = random.Random(times), 0
    for number in range(times):
        key = None if keys is None else f"user {number % keys}"
        side = controller.choose(key)
        there += side.candidate
        controller.note(side, bad=chance.random() < (candidate if side.candidate else control), key=key)
    return there


def test_nothing_goes_to_the_candidate_before_it_is_started():
    """And looking at it says so."""
    controller, _, events = made()
    assert requests(controller, 100) == 0
    decided = controller.evaluate()
    assert (decided.step, decided.reason, controller.weight, controller.phase) == (Step.HOLD, "nothing was started", 0.0, "")
    assert controller.roll_back("").reason == "nothing was started"
    assert not [event for event in events if isinstance(event, CanaryEnded)]


def test_a_good_candidate_goes_through_all_phases():
    """Each after it has baked and has its events, and not before."""
    controller, clock, events = made()
    status = controller.start("v2")
    assert (status.phase, status.weight, status.version, status.checksum) == ("ramp_10", 0.1, "v2", "v2")
    requests(controller, 200)
    held = controller.evaluate()
    assert (held.step, held.reason) == (Step.HOLD, "ramp_10: 60 of 60 s to bake")
    clock.advance(60.0)
    assert controller.evaluate().step is Step.PROMOTE
    assert controller.weight == 0.5
    clock.advance(60.0)
    assert controller.evaluate().reason == "ramp_50: 0 of 5 events"
    requests(controller, 50)
    assert controller.evaluate().step is Step.PROMOTE
    requests(controller, 50)
    clock.advance(60.0)
    assert controller.evaluate().step is Step.COMPLETE
    assert (controller.phase, controller.weight, controller.moves) == ("complete", 1.0, {"promote": 2, "complete": 1})
    told = [event for event in events if not isinstance(event, ChaosAudited)]
    assert [type(event) for event in told] == [CanaryStarted, CanaryMoved, CanaryMoved, CanaryEnded]
    assert (told[-1].outcome, told[-1].candidate_bad, told[-1].control_bad) == ("complete", 0, 0)
    assert told[-1].candidate + told[-1].control == 300


def test_a_broken_candidate_is_rolled_back_in_the_call_that_proves_it():
    """Within five of its requests, without anybody looking."""
    controller, _, events = made()
    controller.start("v2")
    assert requests(controller, 2_000, candidate=1.0) <= 5
    assert (controller.phase, controller.weight) == ("rollback", 0.0)
    (ended,) = [event for event in events if isinstance(event, CanaryEnded)]
    assert (ended.outcome, ended.phase) == ("rollback", "ramp_10")
    assert controller.status().finding.verdict is Verdict.FAIL
    assert controller.evaluate().reason == "it is over: rollback"


def test_what_is_down_on_both_sides_alike_is_no_failure_without_an_objective():
    """With one it is: more than it allows is no success."""
    controller, _, _ = made(allowed=None)
    controller.start("v2")
    requests(controller, 2_000, candidate=0.5, control=0.5)
    assert controller.phase == "ramp_10"
    controller, _, _ = made()
    controller.start("v2")
    requests(controller, 2_000, candidate=0.5, control=0.5)
    assert "more than 0.05 of its events are bad" in controller.status().reason


def test_with_all_of_the_traffic_the_objective_still_guards():
    """There is nothing to compare with, and it is rolled back all the same."""
    controller, _, _ = made()
    controller.start("v2")
    controller.promote()
    controller.promote()
    assert controller.weight == 1.0
    requests(controller, 50, candidate=1.0)
    assert controller.phase == "rollback"


def test_proof_is_waited_for_and_a_long_wait_is_decided():
    """A phase that asks for proof holds without it, and does what it was told when its time is over."""
    controller, clock, _ = made(prove=True, longest=600.0, overdue="rollback", steps=[10, 100])
    controller.start("v2")
    requests(controller, 1_000)
    clock.advance(599.0)
    assert "no proof yet that it is not much worse" in controller.evaluate().reason
    clock.advance(1.0)
    decided = controller.evaluate()
    assert (decided.step, decided.status.weight) == (Step.ROLLBACK, 0.0)


def test_a_step_of_the_wall_clock_promotes_nothing():
    """Neither forward nor back; a day of it bakes no second."""
    controller, clock, _ = made()
    controller.start("v2")
    requests(controller, 200)
    for step in (86_400.0, -200_000.0):
        clock.step_wall(step)
        assert controller.evaluate().step is Step.HOLD
        assert controller.status().baked == 0.0


def test_people_can_pause_resume_promote_and_roll_back():
    """Each is told and noted; a paused one still fails."""
    controller, clock, events = made()
    controller.start("v2")
    requests(controller, 200)
    assert controller.pause("lunch").status.paused
    clock.advance(600.0)
    assert controller.evaluate().reason == "it is paused"
    assert not controller.resume().status.paused
    assert controller.promote("it is urgent").status.phase == "ramp_50"
    assert controller.roll_back("a customer\n called").reason == "a customer  called"
    assert requests(controller, 100) == 0
    assert [event.step for event in events if isinstance(event, CanaryMoved)] == ["pause", "resume", "promote"]
    assert [event.what for event in events if isinstance(event, ChaosAudited)] == [
        "canary_start",
        "canary_pause",
        "canary_resume",
        "canary_promote",
        "canary_rollback",
    ]
    # What is over does not move.
    assert controller.promote().reason == "it is over: rollback"
    assert controller.pause().status.phase == "rollback"


def test_the_same_version_twice_is_refused():
    """While it runs and when it is over; a changed build has another checksum."""
    controller, _, _ = made()
    controller.start("v2")
    with pytest.raises(ConfigurationError, match="another version or checksum than is in phase ramp_10"):
        controller.start("v2")
    controller.roll_back("")
    with pytest.raises(ConfigurationError):
        controller.start("v2", checksum="v2")
    assert controller.start("v2", checksum="v2+1").phase == "ramp_10"


def test_a_changed_checksum_begins_anew_without_the_old_evidence():
    """Also in the middle of a ramp; a call that began before says nothing about what came after it."""
    controller, _, events = made(steps=[10, 50])
    controller.start("v2", checksum="a")
    requests(controller, 200)
    controller.promote()
    late = [controller.choose() for _ in range(40)]
    controller.start("v2", checksum="b")
    for side in late:
        controller.note(side, bad=True)
    status = controller.status()
    assert (status.phase, status.events, status.finding.worse, status.finding.counts.control) == ("ramp_10", 0, 1.0, 0)
    assert [event.outcome for event in events if isinstance(event, CanaryEnded)] == ["superseded"]


def test_an_objective_that_is_not_there_starts_nothing():
    """It is refused at the start, with what there is."""
    controller, _, _ = made(bad="upp")
    with pytest.raises(ConfigurationError, match="did you mean 'up'"):
        controller.start("v2")
    assert (controller.weight, controller.phase) == (0.0, "")
    with pytest.raises(ConfigurationError):
        controller.start("v 2")


def test_two_canaries_of_one_name_are_refused():
    """They would decide about the same traffic."""
    controller, _, _ = made()
    with pytest.raises(ConfigurationError, match="a name that no canary has yet"):
        CanaryController(controller._resilience, controller.config)
    with pytest.raises(ConfigurationError) as caught:
        CanaryController(controller._resilience, CanaryConfig(name="other", bad="up"), snapshot="/nowhere/x", leader=3)
    assert len(caught.value.problems) == 2


def test_coroutines_have_the_same():
    """The names of the plan."""
    controller, _, _ = made()

    async def go():
        await controller.start_canary("v2")
        decided = await controller.evaluate_phase()
        return decided, await controller.rollback("enough")

    decided, rolled_back = asyncio.run(go())
    assert (decided.step, rolled_back.step, rolled_back.reason) == (Step.HOLD, Step.ROLLBACK, "enough")


# -- users ------------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=20), min_size=1, max_size=50), st.lists(st.floats(0.01, 0.99), min_size=2, max_size=6, unique=True))
def test_a_user_on_the_candidate_stays_there_as_the_weight_grows(users, weights):
    """The other way round as well: nobody gets there by a smaller share."""
    controller, _, _ = made(steps=[Phase(f"p{n}", weight, 0.0, 1) for n, weight in enumerate(sorted(weights))])
    controller.start("v2")
    before = set()
    while controller.phase != "complete":
        there = {user for user in users if controller.choose(user).candidate}
        assert before <= there
        before = there
        controller.promote()
    assert all(controller.choose(user).candidate for user in users)


def test_a_few_unlucky_users_are_no_missed_objective():
    """Of users who keep to their side the objective is asked about all of them; when all are there it is."""
    controller, _, _ = made(sticky=True)
    controller.start("v2")
    users = [f"user {number}" for number in range(300)]
    there = [user for user in users if controller.choose(user).candidate]
    for _ in range(100):
        for user in there:
            controller.note(controller.choose(user), bad=user in there[:3], key=user)
    assert controller.phase == "ramp_10"
    assert controller.status().finding.too_bad == 1.0
    controller.promote()
    controller.promote()
    for _ in range(10):
        for user in users:
            controller.note(controller.choose(user), bad=True, key=user)
    assert controller.phase == "rollback"


def test_only_the_first_bad_event_of_a_user_is_evidence():
    """One user whose every request fails proves nothing."""
    controller, _, _ = made(sticky=True, allowed=None)
    controller.start("v2")
    unlucky = next(f"user {n}" for n in range(1_000) if controller.choose(f"user {n}").candidate)
    for _ in range(200):
        controller.note(controller.choose(unlucky), bad=True, key=unlucky)
    status = controller.status()
    assert (status.phase, status.finding.counts.candidate_bad) == ("ramp_10", 200)
    assert status.finding.worse < 100.0


# -- snapshots, and who leads -----------------------------------------------------------------------------------------------------------


def test_another_process_goes_on_where_the_first_one_was(tmp_path):
    """At the same weight, with the same evidence and as long baked; the time in between does not count."""
    path = tmp_path / "answer.json"
    first, clock, _ = made(snapshot=path, sticky=True)
    first.start("v2")
    first.promote()
    requests(first, 400, candidate=0.03, control=0.03, keys=100)
    clock.advance(30.0)
    first.evaluate()
    before = first.status()
    first.stop()
    second, later, events = made(snapshot=path, sticky=True)
    later.advance(5_000.0)
    after = second.start("v2")
    assert (after.phase, after.weight, after.baked, after.events) == (before.phase, before.weight, 30.0, before.events)
    assert after.finding == before.finding
    assert [event.resumed for event in events if isinstance(event, CanaryStarted)] == [True]
    later.advance(29.0)
    assert second.evaluate().step is Step.HOLD
    later.advance(1.0)
    assert second.evaluate().step is Step.PROMOTE


@pytest.mark.parametrize("end", ["rollback", "complete"])
def test_what_is_over_stays_over_when_the_process_starts_again(tmp_path, end):
    """A restart is no second try."""
    path = tmp_path / "answer.json"
    first, _, _ = made(snapshot=path, steps=[50])
    first.start("v2")
    (first.promote if end == "complete" else lambda: first.roll_back("bad"))()
    first.stop()
    second, _, _ = made(snapshot=path, steps=[50])
    assert second.start("v2").phase == end
    assert second.weight == (1.0 if end == "complete" else 0.0)
    third = second.start("v3")
    assert third.phase == "ramp_50"


@pytest.mark.parametrize(
    ("content", "reported"),
    [
        (b"", True),
        (b"[]", True),
        (b"\xff\xfe", True),
        (b'{"form": 2}', False),
        (b'{"form": 1, "canary": "other"}', False),
        (NEARLY + b'"phase": "ramp_77", "weight": 0.77, "baked": 0}', True),
        (NEARLY + b'"phase": "ramp_50", "weight": 0.5, "baked": "x"}', True),
        (NEARLY + b'"phase": "ramp_50", "weight": 0.5, "baked": 1e999}', True),
        (NEARLY + b'"phase": "ramp_50", "weight": 0.5, "baked": 0}', True),
        (
            NEARLY + b'"phase": "complete", "weight": 1, "baked": 0, "ledger": 0}',
            True,
        ),
    ],
)
def test_a_snapshot_that_cannot_be_used_is_never_a_promotion(tmp_path, content, reported):
    """It is reported, and the canary begins with its first step."""
    path = tmp_path / "answer.json"
    path.write_bytes(content)
    path.chmod(0o600)
    controller, _, events = made(snapshot=path)
    assert (controller.start("v2").phase, controller.weight) == ("ramp_10", 0.1)
    assert bool([event for event in events if isinstance(event, DefectFound)]) is reported
    assert json.loads(path.read_bytes())["phase"] == "ramp_10"


def test_a_snapshot_that_others_may_write_is_not_believed(tmp_path):
    """Nor one behind a symbolic link."""
    path = tmp_path / "answer.json"
    first, _, _ = made(snapshot=path)
    first.start("v2")
    first.promote()
    first.stop()
    path.chmod(0o666)
    second, _, events = made(snapshot=path)
    assert second.start("v2").phase == "ramp_10"
    assert [event for event in events if isinstance(event, DefectFound)]


def test_of_two_controllers_one_leads_and_the_other_follows(tmp_path):
    """The follower decides nothing, has the weight of the leader, and leads when that is gone, with the evidence of both."""
    path = tmp_path / "answer.json"
    one, clock, _ = made(snapshot=path)
    two, _, events = made(clock=clock, snapshot=path)
    one.start("v2")
    assert (two.start("v2").weight, one.leads, two.leads) == (0.1, True, False)
    assert two.promote().reason == "another process leads"
    requests(two, 300)
    requests(one, 100)
    clock.advance(600.0)
    assert two.evaluate().reason == "another process leads"
    assert one.evaluate().step is Step.PROMOTE
    assert two.evaluate().status.weight == 0.5
    assert [event.phase for event in events if isinstance(event, CanaryMoved)] == ["ramp_50"]
    one.stop()
    two.evaluate()
    counts = two.status().finding.counts
    assert (two.leads, counts.candidate + counts.control) == (True, 400)


def test_who_leads_decides_by_what_all_of_them_have_seen(tmp_path):
    """Also by what one has seen that is gone; and each event counts once, whoever leads in the end."""
    path = tmp_path / "answer.json"
    one, clock, _ = made(snapshot=path, allowed=None)
    two, _, _ = made(clock=clock, snapshot=path, allowed=None)
    three, _, _ = made(clock=clock, snapshot=path, allowed=None)
    for each in (one, two, three):
        each.start("v2")
        # Of each a little less than proof.
        side = next(side for side in iter(each.choose, None) if side.candidate)
        each.note(side, bad=True)
        each.note(side, bad=False)
    assert one.status().phase == "ramp_10"
    two.evaluate()
    two.stop()
    assert one.status().finding.counts.candidate == 2
    one.evaluate()
    assert (one.status().finding.counts.candidate, one.phase) == (4, "ramp_10")
    three.evaluate()
    one.evaluate()
    assert (one.status().finding.counts.candidate, one.phase) == (6, "rollback")
    one.stop()
    three.evaluate()
    assert (three.leads, three.status().finding.counts.candidate, three.phase) == (True, 6, "rollback")
    assert three.start("v3").finding.counts.candidate == 0
    three.evaluate()
    assert [entry.name for entry in tmp_path.iterdir() if not entry.name.startswith(".")] == ["answer.json"]


def test_who_led_and_follows_from_here_on_tells_what_is_new_only(tmp_path):
    """The rest is in the snapshot."""
    path = tmp_path / "answer.json"
    leads = [True]
    one, clock, _ = made(snapshot=path, leader=lambda: leads[0])
    one.start("v2")
    requests(one, 100)
    one.evaluate()
    leads[0] = False
    one.evaluate()
    requests(one, 50)
    one.evaluate()
    two, _, _ = made(clock=clock, snapshot=path)
    two.start("v2")
    two.evaluate()
    counts = two.status().finding.counts
    assert counts.candidate + counts.control == 150
    assert (one.leads, two.leads, one.weight) == (False, True, 0.1)


def test_evidence_of_others_that_cannot_be_read_is_left_out(tmp_path):
    """It is reported where it is more than a file that is half there."""
    path = tmp_path / "answer.json"
    controller, _, events = made(snapshot=path)
    controller.start("v2")
    for name, content in (("1-00000000", b""), ("2-00000000", NEARLY + b'"ledger": 3}'), ("3-00000000", NEARLY[:-2] + b"}"), ("x", b"")):
        peer = tmp_path / f"answer.json.{name}"
        peer.write_bytes(content)
        peer.chmod(0o600)
    assert controller.evaluate().step is Step.HOLD
    assert controller.status().finding.counts.candidate == 0
    assert [event.where for event in events if isinstance(event, DefectFound)] == ["canary answer, hearing other processes"]


def test_a_follower_that_has_proof_rolls_its_own_traffic_back_and_stays_there(tmp_path):
    """Whatever the leader goes on to; when it leads itself it ends the canary for all."""
    path = tmp_path / "answer.json"
    one, clock, _ = made(snapshot=path)
    two, _, _ = made(clock=clock, snapshot=path)
    one.start("v2")
    two.start("v2")
    requests(two, 500, candidate=1.0)
    assert two.weight == 0.0
    one.promote()
    two.evaluate()
    assert (one.weight, two.weight) == (0.5, 0.0)
    one.stop()
    two.evaluate()
    assert json.loads(path.read_bytes())["phase"] == "rollback"


def test_who_may_not_lead_waits(tmp_path):
    """By the function that says so; one that raises says no."""
    answers = [False]

    def leader():
        if answers[0] is None:
            raise ConnectionError
        return answers[0]

    controller, clock, events = made(leader=leader)
    assert (controller.start("v2").weight, controller.status().reason) == (0.0, "it waits for the process that leads")
    answers[0] = None
    assert controller.evaluate().reason == "another process leads"
    assert [event.error for event in events if isinstance(event, DefectFound)] == ["ConnectionError"]
    answers[0] = True
    controller.evaluate()
    assert (controller.weight, controller.leads) == (0.1, True)
    assert clock.monotonic() > 0.0


def test_a_file_that_cannot_be_written_is_reported_and_changes_nothing(tmp_path):
    """The rollout goes on in memory."""
    folder = tmp_path / "gone"
    folder.mkdir()
    controller, clock, events = made(snapshot=folder / "answer.json")
    controller.start("v2")
    requests(controller, 200)
    for entry in folder.iterdir():
        entry.unlink()
    folder.rmdir()
    clock.advance(60.0)
    assert controller.evaluate().step is Step.PROMOTE
    assert "FileNotFoundError" in [event.error for event in events if isinstance(event, DefectFound)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_forked_child_does_not_lead_and_does_not_take_the_lock_away(tmp_path):
    """Its parent leads on; what the parent has seen is not seen twice."""
    controller, _, _ = made(snapshot=tmp_path / "answer.json")
    controller.start("v2")
    requests(controller, 100)
    child = os.fork()
    if not child:
        counts = controller.status().finding.counts
        fine = not controller.leads and controller.weight == 0.1 and counts.control + counts.candidate == 0
        controller.evaluate()
        os._exit(0 if fine and not controller.leads else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert controller.evaluate().reason != "another process leads"


def test_it_is_looked_at_by_itself():
    """Every now and then, in a thread that ends with the rollout."""
    controller, clock, _ = made(interval=0.05, steps=[50], minimum_events=1)
    controller.start("v2")
    requests(controller, 20)
    clock.advance(60.0)
    for _ in range(200):
        if not controller._patrol.walking:
            break
        controller._patrol._wake.wait(0.05)
    assert controller.phase == "complete"
    controller.stop()
