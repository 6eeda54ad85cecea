"""Circuits that are shared: five processes, one store, no thread and no server; each process takes its turns when the test says so."""

from __future__ import annotations

import pytest

from somaresil import ManualClock, Outcome, Resilience
from somaresil.events import BreakerChanged
from somaresil.integrations._fleet import Fleet
from somaresil.model.breaker import NOTHING_SEEN, State, Transition, Trigger
from tests.unit.integrations.fleet_kit import TRUST, Member, Shelf, View, breaker, settle


def members(number=5, *, skewed=False, **options):
    """So many processes in touch with one store; ``skewed``: each with a clock that began at another time."""
    shelf = Shelf(ManualClock())
    made = [Member(shelf, n, clock=ManualClock(monotonic=7_000.0 * n) if skewed else None, **options) for n in range(number)]
    for member in made:
        member.connect()
    return made


def advance(everybody, seconds, *, heard=True):
    """Let time pass; ``heard``: the store answers those who are in touch, as it does all the time."""
    for clock in {id(clock): clock for clock in [everybody[0].shelf.clock, *(member.clock for member in everybody)]}.values():
        clock.advance(seconds)
    for member in everybody:
        if heard and member.up:
            member.fleet._ask(member.store.hello)


def opened(number=5, **options):
    """Everybody open, because the first one failed."""
    everybody = members(number, **options)
    everybody[0].fail()
    settle(*everybody)
    return everybody


def probing(number=5, **options):
    """Everybody half-open."""
    everybody = opened(number, **options)
    advance(everybody, 10.0)
    settle(*everybody)
    assert {member.state for member in everybody} == {State.HALF_OPEN}
    return everybody


def stored(member):
    circuit = member.shelf.circuits.get("dep")
    return None if circuit is None else circuit.state


def changes(member):
    return [(event.before, event.after, event.cause) for event in member.events if isinstance(event, BreakerChanged)]


# -- opening ----------------------------------------------------------------------------------------------------------------------------


def test_open_in_one_is_open_everywhere_for_the_rest_of_its_time():
    """By durations: no two processes have to agree what time it is."""
    everybody = members(skewed=True)
    everybody[0].fail()
    advance(everybody, 4.0)
    settle(*everybody)
    assert {member.state for member in everybody} == {State.OPEN}
    assert {member.policy.retry_after() for member in everybody} == {6.0}
    assert changes(everybody[3]) == [("closed", "open", "fleet_opened")]
    assert "opened in another process" in str(everybody[3].guard.breaker.refused(1.0))
    (event,) = (event for event in everybody[3].events if isinstance(event, BreakerChanged))
    assert event.first_failure_at == event.at


def test_two_who_open_at_once_open_once():
    """The first to write it down says for how long; the other's own opening becomes that one, without another step."""
    one, two = members(2)
    one.fail()
    advance([one], 1.0)
    two.fail()
    settle(one, two)
    assert stored(one) is State.OPEN
    assert (one.policy.retry_after(), two.policy.retry_after()) == (9.0, 9.0)
    assert one.policy.refuse_until == two.policy.refuse_until == one.clock.monotonic() + 9.0
    assert changes(two) == [("closed", "open", "exceeded")]
    assert one.shelf.versions == 1


def test_an_operator_trips_and_resets_every_process():
    """By the controls of one of them."""
    everybody = members()
    everybody[1].resilience.breaker("dep").trip(60.0)
    settle(*everybody)
    assert {member.policy.retry_after() for member in everybody} == {60.0}
    everybody[2].resilience.breaker("dep").reset()
    settle(*everybody)
    assert {member.state for member in everybody} == {State.CLOSED}


@pytest.mark.parametrize("control", ["force_open", "disable", "observe"])
def test_what_an_operator_sets_until_further_notice_is_of_one_process(control):
    """It neither tells the others nor follows them, until it is reset: then it is what they are."""
    everybody = members(3)
    getattr(everybody[0].resilience.breaker("dep"), control)()
    settle(*everybody)
    assert stored(everybody[0]) is None
    set_to = everybody[0].state
    everybody[1].fail()
    settle(*everybody)
    assert [member.state for member in everybody] == [set_to, State.OPEN, State.OPEN]
    everybody[0].resilience.breaker("dep").reset()
    settle(*everybody)
    assert {member.state for member in everybody} == {State.OPEN}


def test_what_an_experiment_opens_stays_in_its_process():
    """A blast radius of one instance is one instance; what fails for real is told."""
    everybody = members(3)
    everybody[0].policy.trip(30.0, injected=True)
    settle(*everybody)
    for member in everybody:
        member.poll()
    assert [member.state for member in everybody] == [State.OPEN, State.CLOSED, State.CLOSED]
    advance(everybody, 30.0)
    assert everybody[0].fail() == "bad"
    assert everybody[0].fail() == "bad"
    settle(*everybody)
    assert {member.state for member in everybody} == {State.OPEN}


def test_a_trip_that_an_experiment_began_before_is_not_shared_either():
    """Whoever shares a service in the middle of a drill does not spread it."""
    shelf = Shelf(ManualClock())
    one, two = Member(shelf, 1), Member(shelf, 2)
    one.policy.trip(30.0, injected=True)
    one.connect()
    two.connect()
    settle(one, two)
    assert (one.state, two.state, stored(one)) == (State.OPEN, State.CLOSED, None)


def test_the_others_do_not_end_what_an_experiment_has_opened():
    """It lasts for as long as it was to last; then the process is what the others are."""
    everybody = opened(3)
    everybody[0].policy.trip(60.0, injected=True)
    settle(*everybody)
    everybody[0].lose()
    everybody[0].connect()
    advance(everybody, 10.0)
    settle(*everybody)
    assert [member.state for member in everybody] == [State.OPEN, State.HALF_OPEN, State.HALF_OPEN]
    assert everybody[0].policy.retry_after() == 50.0
    assert everybody[0].fleet.due() == everybody[0].clock.monotonic() + 50.0
    for _ in range(50):
        everybody[0].poll()
        assert everybody[0].state is State.OPEN
        assert everybody[0].policy.refused(1.0).injected
        advance(everybody, 1.0)
    everybody[0].turn()
    assert {member.state for member in everybody} == {State.HALF_OPEN}
    assert everybody[0].bound
    for member in everybody[1:]:
        member.resilience.breaker("dep").trip()
        settle(*everybody)
    assert everybody[0].call() == "rejected"
    assert not everybody[0].policy.refused(1.0).injected


def test_openings_in_a_row_are_counted_together():
    """The next opening is longer, whoever's probe led to it."""
    everybody = probing(open_factor=3.0, open_maximum=1_000.0)
    for member in everybody[:2]:
        member.fail()
    settle(*everybody)
    assert {member.policy.retry_after() for member in everybody} == {30.0}


# -- quorum -----------------------------------------------------------------------------------------------------------------------------


def test_with_a_quorum_one_bad_node_opens_nothing_but_itself():
    """Two of three instances must have theirs open at the same time; until then each decides for itself, its probes too."""
    one, two, three = members(3, quorum=2)
    one.fail()
    settle(one, two, three)
    assert [member.state for member in (one, two, three)] == [State.OPEN, State.CLOSED, State.CLOSED]
    two.fail()
    settle(one, two, three)
    assert {member.state for member in (one, two, three)} == {State.OPEN}
    assert stored(one) is State.OPEN


def test_votes_that_are_over_do_not_count():
    """One failed long ago, another fails now: not at the same time."""
    one, two, three = members(3, quorum=2)
    one.fail()
    settle(one, two, three)
    advance([one], 10.5)
    two.fail()
    settle(one, two, three)
    assert stored(one) is None
    assert [one.call(), one.call(), one.call()] == ["good"] * 3
    assert (one.state, three.state) == (State.CLOSED, State.CLOSED)


def test_a_vote_is_taken_back_when_the_circuit_closes():
    """Closed again before the second one fails."""
    one, two, three = members(3, quorum=2)
    one.fail()
    settle(one, two, three)
    one.resilience.breaker("dep").reset()
    settle(one, two, three)
    two.fail()
    settle(one, two, three)
    assert [member.state for member in (one, two, three)] == [State.CLOSED, State.OPEN, State.CLOSED]


def test_votes_are_cast_again_when_the_store_has_forgotten_them():
    """For as long as the circuit is open."""
    one, two, three = members(3, quorum=2)
    one.fail()
    settle(one, two, three)
    one.shelf.forget()
    for member in (one, two, three):
        member.lose()
        member.connect()
    two.fail()
    settle(one, two, three)
    assert three.state is State.OPEN


def test_processes_of_one_instance_have_one_vote():
    """One node with many workers is one node."""
    shelf = Shelf(ManualClock())
    workers = [Member(shelf, n, instance="node-1", quorum=2) for n in range(3)]
    other = Member(shelf, 9, instance="node-2", quorum=2)
    for member in [*workers, other]:
        member.connect()
    for member in workers:
        member.fail()
    settle(*workers, other)
    assert other.state is State.CLOSED
    other.fail()
    settle(*workers, other)
    assert stored(other) is State.OPEN


@pytest.mark.parametrize("ever", [False, True])
def test_local_half_open_is_left_alone_while_the_fleet_is_closed(ever):
    """A look at the store does not close what only this process has opened, whether the others ever opened theirs or not."""
    one, two, three = members(3, quorum=2)
    if ever:
        one.fail()
        two.fail()
        settle(one, two, three)
        three.resilience.breaker("dep").reset()
        settle(one, two, three)
    assert stored(one) is (State.CLOSED if ever else None)
    one.fail()
    settle(one, two, three)
    advance([one], 10.0)
    going = one.begin()
    assert one.state is State.HALF_OPEN
    one.lose()
    one.connect()
    settle(one, two, three)
    assert one.state is State.HALF_OPEN
    going.end(Outcome.GOOD)
    assert [one.call(), one.call()] == ["good", "good"]
    assert one.state is State.CLOSED


# -- probing ----------------------------------------------------------------------------------------------------------------------------


def test_half_open_the_processes_let_three_callers_through_in_all():
    """Fifty callers, ten in each of five processes: three reach the dependency, and then the circuit is closed for all."""
    everybody = probing()
    going = [call for member in everybody for _ in range(10) if (call := member.begin()) is not None]
    assert len(going) == 3
    settle(*everybody)
    assert all(member.begin() is None for member in everybody)
    for call in going:
        call.end(Outcome.GOOD)
    settle(*everybody)
    assert {member.state for member in everybody} == {State.CLOSED}
    assert stored(everybody[0]) is State.CLOSED


def test_nobody_is_let_through_between_the_end_of_the_open_time_and_the_turn():
    """Without a probe in hand a caller is rejected; it is asked for."""
    everybody = opened()
    advance(everybody, 10.0)
    assert [member.call() for member in everybody] == ["rejected"] * 5
    settle(*everybody)
    assert sum(member.call() == "good" for member in everybody) == 3


def test_one_process_alone_has_all_the_probes():
    """And it closes by itself."""
    (one,) = probing(1)
    assert [one.call() for _ in range(4)] == ["good"] * 4
    assert one.state is State.CLOSED


def test_bad_probes_in_different_processes_open_the_circuit_again():
    """Two of three fail, each in its own process: neither has seen enough alone."""
    everybody = probing()
    callers = [member for member in everybody if member.link.leases]
    assert [member.fail() for member in callers[:2]] == ["bad", "bad"]
    settle(*everybody)
    assert {member.state for member in everybody} == {State.OPEN}
    assert stored(everybody[0]) is State.OPEN


def test_slow_probes_count_too():
    """By the slow-call rate of all probes together."""
    everybody = probing(breaker=breaker(slow_call_rate=0.6, slow_call_duration=1.0))
    going = [call for member in everybody if (call := member.begin()) is not None]
    for call in going[:2]:
        call.end(Outcome.GOOD, elapsed=2.0)
    settle(*everybody)
    assert {member.state for member in everybody} == {State.OPEN}


def test_a_busy_process_gets_the_probes_that_idle_ones_hold():
    """They lie in processes nobody calls; the one that is called is rejected once, and has one then."""
    everybody = probing()
    idle = [member for member in everybody if member.link.leases]
    busy = next(member for member in everybody if not member.link.leases)
    assert busy.call() == "rejected"
    settle(*everybody)
    assert not any(member.link.leases for member in idle)
    assert busy.call() == "good"
    assert busy.call() == "rejected"


def test_a_probe_that_somebody_asked_for_is_kept_for_a_while():
    """Two processes that are called in turn do not take it from one another."""
    one, two = probing(2, half_open_calls=1)
    holder, other = (one, two) if one.link.leases else (two, one)
    going = holder.begin()
    assert other.call() == "rejected"
    settle(one, two)
    going.end(Outcome.ABANDONED)
    settle(one, two)
    assert other.link.leases
    assert holder.call() == "rejected"
    settle(one, two)
    assert other.link.leases
    advance([one, two], 2.0)
    holder.poll()
    settle(one, two)
    assert not other.link.leases
    assert holder.call() == "good"


def test_a_caller_who_goes_away_gives_the_probe_back_to_all():
    """No verdict, and another process may have it."""
    one, two = probing(2, half_open_calls=1)
    holder, other = (one, two) if one.link.leases else (two, one)
    going = holder.begin()
    assert other.call() == "rejected"
    going.end(Outcome.ABANDONED)
    settle(one, two)
    assert other.call() == "good"
    settle(one, two)
    assert (one.state, two.state) == (State.CLOSED, State.CLOSED)


def test_a_hung_probe_is_lent_again_and_has_no_say_in_the_end():
    """When its time and that of the lease are over."""
    one, two = probing(2, half_open_calls=1)
    holder, other = (one, two) if one.link.leases else (two, one)
    going = holder.begin()
    advance([one], 5.0 + TRUST + 0.5)
    for member in (one, two):
        member.poll()
    other.call()
    settle(one, two)
    assert going.probe
    going.end(Outcome.BAD)
    settle(one, two)
    assert (one.state, two.state) == (State.HALF_OPEN, State.HALF_OPEN)
    assert other.call() == "good"
    settle(one, two)
    assert (one.state, two.state) == (State.CLOSED, State.CLOSED)


def test_a_verdict_that_comes_too_late_counts_for_nobody():
    """Not even while its place is still kept for it."""
    one, two = probing(2, half_open_calls=1)
    holder = one if one.link.leases else two
    going = holder.begin()
    advance([one, two], 5.5)
    going.end(Outcome.BAD)
    settle(one, two)
    circuit = one.shelf.circuits["dep"]
    assert (circuit.state, circuit.counts, circuit.leases) == (State.HALF_OPEN, {}, {})


def test_a_probe_that_could_not_be_kept_is_not_handed_out():
    """The store is heard of, but nobody has asked it about the lease for too long."""
    (one,) = probing(1)
    for _ in range(2):
        advance([one], TRUST - 1.0)
    assert one.call() == "rejected"
    settle(one)
    assert one.call() == "good"


def test_a_process_that_dies_with_a_probe_does_not_wedge_the_others():
    """Its lease ends by the store's clock."""
    one, two = probing(2, half_open_calls=1)
    holder, other = (one, two) if one.link.leases else (two, one)
    holder.begin()
    holder.up = False
    advance([one], 5.0 + TRUST + 0.5)
    other.poll()
    assert other.call() == "rejected"
    settle(one, two)
    assert other.call() == "good"


def test_probes_in_hand_are_kept_for_as_long_as_nobody_else_wants_them():
    """A service that is called once an hour still recovers."""
    (one,) = probing(1)
    for _ in range(600):
        advance([one], 6.0)
        one.poll()
    assert [one.call() for _ in range(3)] == ["good"] * 3
    assert one.state is State.CLOSED


def test_who_joins_while_the_others_probe_probes_with_them():
    """It was closed, and begins half-open; what the probes said before counts."""
    everybody = probing(2)
    caller = next(member for member in everybody if member.link.leases)
    assert caller.call() == "good"
    settle(*everybody)
    late = Member(everybody[0].shelf, 8)
    late.connect()
    assert late.state is State.HALF_OPEN
    settle(*everybody, late)
    while (member := next((m for m in [*everybody, late] if m.call() == "good"), None)) is not None:
        settle(*everybody, late)
        if member.state is State.CLOSED:
            break
    assert everybody[0].shelf.circuits["dep"].state is State.CLOSED
    assert late.state is State.CLOSED


def test_an_operator_who_takes_a_process_out_gives_its_probes_to_the_others():
    """At once."""
    one, two = probing(2, half_open_calls=1)
    holder, other = (one, two) if one.link.leases else (two, one)
    holder.resilience.breaker("dep").disable()
    settle(one, two)
    assert holder.shelf.circuits["dep"].leases == {}
    other.call()
    settle(one, two)
    assert other.call() == "good"


def test_probes_that_come_after_an_operator_has_taken_the_process_out_go_back():
    """They were under way."""
    one, two = opened(2)
    lend = one.store.lease_probe

    def slowly(*args, **kwargs):
        seen = lend(*args, **kwargs)
        one.resilience.breaker("dep").disable()
        return seen

    one.store.lease_probe = slowly
    advance([one, two], 10.0)
    one.turn()
    assert one.state is State.DISABLED
    assert one.shelf.circuits["dep"].leases == {}


def test_fewer_probes_by_configuration_decide_with_what_was_said():
    """The process whose options are changed learns the totals when it asks for a probe, and judges by them."""
    everybody = probing(1)
    (one,) = everybody
    assert [one.call(), one.call()] == ["good", "good"]
    settle(one)
    one.link.leases.clear()
    one.guard.configure(breaker=breaker(half_open_calls=2))
    assert one.call() == "rejected"
    settle(one)
    assert one.state is State.CLOSED


# -- ramps, places at once, answers that ask, shadow, keys ------------------------------------------------------------------------------


def test_every_process_ramps_up_after_good_probes_by_its_own_options():
    """Those that have probed and those that only hear of it; one without a ramp is closed at once."""
    everybody = probing(3, ramp_up=8.0, ramp_up_from=0.5)
    plain = Member(everybody[0].shelf, 9)
    plain.connect()
    settle(*everybody, plain)
    for member in everybody:
        member.call()
    settle(*everybody, plain)
    assert {member.state for member in everybody} == {State.RAMPING}
    assert plain.state is State.CLOSED
    assert {changes(member)[-1] for member in everybody} == {("half_open", "ramping", "recovering")}
    advance(everybody, 8.0)
    assert [member.call() for member in everybody] == ["good"] * 3
    settle(*everybody, plain)
    assert {member.state for member in everybody} == {State.CLOSED}
    assert everybody[0].shelf.circuits["dep"].probed


def test_a_relapse_in_a_ramp_opens_for_all_and_is_the_next_opening_in_the_row():
    """Also in a process that has not probed, and when the one that has closed it does not ramp."""
    (one,) = probing(1, ramp_up=8.0, ramp_up_from=0.5, open_factor=3.0, open_maximum=1_000.0, half_open_calls=1)
    plain = Member(one.shelf, 9, open_factor=3.0, open_maximum=1_000.0, half_open_calls=1)
    plain.connect()
    assert plain.call() == "rejected"
    settle(one, plain)
    assert plain.call() == "good"
    settle(one, plain)
    assert (one.state, plain.state) == (State.RAMPING, State.CLOSED)
    assert changes(one)[-1] == ("half_open", "ramping", "fleet_recovering")
    assert one.fail() == "bad"
    settle(one, plain)
    assert plain.state is State.OPEN
    assert plain.policy.retry_after() == 30.0


def test_a_reset_is_no_ramp():
    """Somebody wants all calls back, now."""
    everybody = probing(3, ramp_up=8.0, ramp_up_from=0.5)
    everybody[2].resilience.breaker("dep").reset()
    settle(*everybody)
    assert {member.state for member in everybody} == {State.CLOSED}


def test_no_more_probes_are_under_way_at_once_than_may_be_over_all_processes():
    """Of three probes one at a time; the next one is lent when it has answered."""
    everybody = probing(3, half_open_concurrency=1)
    for said in range(3):
        settle(*everybody)
        going = [call for member in everybody for _ in range(3) if (call := member.begin()) is not None]
        if not going:
            settle(*everybody)
            going = [call for member in everybody if (call := member.begin()) is not None]
        assert len(going) == 1, said
        going[0].end(Outcome.GOOD)
    settle(*everybody)
    assert {member.state for member in everybody} == {State.CLOSED}


@pytest.mark.parametrize("told", [False, True])
def test_what_a_failing_answer_asks_for_is_asked_of_all(told):
    """It is looked at after the opening was noted, and perhaps after it was written down."""
    one, two = members(2, max_retry_after=60.0)

    class AskingError(Exception):
        @property
        def retry_after(self):
            if told:
                settle(one, two)
                assert two.policy.retry_after() == 10.0
            return 45.0

    one.policy.settle(one.policy.admit(), Outcome.BAD, 0.0, one.clock.monotonic(), AskingError())
    settle(one, two)
    assert (one.state, two.state) == (State.OPEN, State.OPEN)
    assert (one.policy.retry_after(), two.policy.retry_after()) == (45.0, 45.0)
    assert one.bound


def test_a_breaker_in_shadow_mode_has_no_part_in_it():
    """What it would have done is nobody else's; and going into the shadow begins anew in this process only."""
    one, two = opened(2)
    one.guard.configure(breaker=breaker(shadow=True))
    settle(one, two)
    assert (one.state, two.state) == (State.CLOSED, State.OPEN)
    one.poll()
    assert "dep" not in one.fleet.links
    one.fail()
    assert one.state is State.OPEN
    assert one.shelf.versions == 1
    one.guard.configure(breaker=breaker())
    one.poll()
    assert (one.state, one.bound) == (State.OPEN, True)


def test_the_circuits_of_keys_are_of_their_process():
    """Only the guard's own circuit is shared."""
    one, two = members(2)
    with pytest.raises(ValueError, match="no"):
        one.guard.keyed("tenant-1").call(int, "no number")
    settle(one, two)
    assert one.shelf.circuits == {}
    assert two.state is State.CLOSED


# -- versions ---------------------------------------------------------------------------------------------------------------------------


def test_who_is_behind_changes_nothing_and_follows():
    """It opens on top of a version that is gone: refused, and it becomes what the others are."""
    one, two = members(2)
    one.resilience.breaker("dep").trip(50.0)
    one.turn()
    one.resilience.breaker("dep").reset()
    one.turn()
    two.fail()
    two.turn(deaf=True)
    assert stored(one) is State.CLOSED
    assert (one.state, two.state) == (State.CLOSED, State.CLOSED)


def test_what_a_process_does_while_its_own_step_is_under_way_comes_after_it():
    """It resets before the store's answer to its opening is looked at: the reset is no stranger's."""
    one, two = members(2)
    one.fail()
    answer = one.store.trip_open

    def slowly(*args, **kwargs):
        seen = answer(*args, **kwargs)
        one.resilience.breaker("dep").reset()
        return seen

    one.store.trip_open = slowly
    settle(one, two)
    assert (one.state, two.state, stored(one)) == (State.CLOSED, State.CLOSED, State.CLOSED)


def test_an_operator_trips_while_the_process_half_opens():
    """The trip comes last."""
    one, two = opened(2)
    advance([one], 10.0)
    begin = one.store.begin_half_open_if_elapsed

    def slowly(*args):
        seen = begin(*args)
        one.resilience.breaker("dep").trip(70.0)
        return seen

    one.store.begin_half_open_if_elapsed = slowly
    settle(one, two)
    assert (one.policy.retry_after(), two.policy.retry_after()) == (70.0, 70.0)


def test_steps_that_are_told_in_the_wrong_order_are_taken_in_the_right_one():
    """A signal handler may move a breaker in the middle of a step; the later step stands."""
    one, two = members(2)
    (link,) = one.fleet.links.values()
    one.fail()
    intent = link.intent
    early = Transition(State.CLOSED, State.CLOSED, Trigger.RESET, one.policy.era - 1, NOTHING_SEEN, None)
    one.policy.follow(lambda model, _now, _u: link.moved(model, early, injected=False))
    assert link.intent is intent
    settle(one, two)
    assert two.state is State.OPEN


def test_an_operator_s_trip_that_is_over_before_it_could_be_told_leaves_the_others_probing():
    """And the process probes with them again, in the same turn."""
    one, two = probing(2)
    one.resilience.breaker("dep").trip(2.0)
    advance([one, two], 2.0)
    one.turn()
    assert (one.state, two.state, one.bound) == (State.HALF_OPEN, State.HALF_OPEN, True)


def test_only_the_last_of_several_steps_is_written_down_and_the_others_are_counted():
    """A queue with one place a breaker has an end."""
    one, two = members(2)
    for _ in range(10):
        one.resilience.breaker("dep").trip(5.0)
    one.resilience.breaker("dep").trip(9.0)
    settle(one, two)
    assert one.fleet.dropped == 10
    assert one.shelf.versions == 1
    assert two.policy.retry_after() == 9.0


def test_a_missed_message_is_noticed_by_the_next_one_and_by_the_poll():
    """Messages are numbered."""
    one, two, three = members(3)
    one.fail()
    one.turn()
    for member in (two, three):
        member.turn(deaf=True)
    assert two.state is State.CLOSED
    two.poll()
    assert two.state is State.OPEN
    four = Member(one.shelf, 4)
    four.resilience.guard("other", breaker=breaker())
    four.connect()
    three.resilience.guard("other", breaker=breaker())
    three.fleet.poll(three.store)
    four.resilience.breaker("other").trip()
    four.turn()
    three.shelf.circuits["dep"].version += 1
    three.heard = len(three.shelf.told) - 1
    three.fleet._number -= 2
    three.turn()
    assert three.link.version == three.shelf.circuits["dep"].version


# -- a store that is lost ---------------------------------------------------------------------------------------------------------------


def test_without_the_store_each_process_goes_on_by_itself():
    """Open until its own time is over, then probes by its own rule, then closed."""
    everybody = opened(3)
    everybody[0].shelf.down = True
    for member in everybody:
        member.lose()
    advance(everybody, 10.0)
    for member in everybody:
        assert [member.call() for _ in range(3)] == ["good"] * 3
        assert member.state is State.CLOSED
    assert everybody[1].fail() == "bad"
    assert [member.state for member in everybody] == [State.CLOSED, State.OPEN, State.CLOSED]


def test_what_the_store_said_ends_by_itself_when_nobody_asks_it():
    """A thread that hangs or is gone cannot keep a circuit shut."""
    (one,) = opened(1)
    advance([one], 10.0, heard=False)
    assert [one.call() for _ in range(3)] == ["good"] * 3
    assert one.state is State.CLOSED

    (two,) = probing(1)
    two.link.leases.clear()
    assert two.call() == "rejected"
    advance([two], TRUST, heard=False)
    assert [two.call() for _ in range(3)] == ["good"] * 3


def test_states_agree_again_when_the_store_is_back_with_nothing_in_it():
    """Who is open says so, and the others follow for the rest of its time."""
    everybody = members(3)
    shelf = everybody[0].shelf
    shelf.down = True
    for member in everybody:
        member.lose()
    everybody[1].fail()
    advance(everybody, 3.0)
    shelf.down = False
    shelf.forget()
    for member in everybody:
        member.connect()
    settle(*everybody)
    assert {member.state for member in everybody} == {State.OPEN}
    assert {member.policy.retry_after() for member in everybody} == {7.0}


def test_a_shared_opening_survives_a_store_that_forgets():
    """The processes know it, and write it down again."""
    everybody = opened(3)
    everybody[0].shelf.forget()
    for member in everybody:
        member.lose()
        member.connect()
    settle(*everybody)
    assert stored(everybody[0]) is State.OPEN
    assert {member.bound for member in everybody} == {True}
    assert [change[1] for change in changes(everybody[2])] == ["open"]


def test_a_circuit_that_is_evicted_while_open_is_closed_by_nobody():
    """Each process stays open for the rest of the time it knows, and then probes by its own rule."""
    everybody = opened(3)
    del everybody[0].shelf.circuits["dep"]
    for member in everybody:
        member.poll()
    assert {member.state for member in everybody} == {State.OPEN}
    advance(everybody, 10.0)
    settle(*everybody)
    assert [everybody[0].call() for _ in range(3)] == ["good"] * 3
    assert (everybody[0].state, everybody[1].state) == (State.CLOSED, State.OPEN)


def test_a_store_that_kept_what_it_had_is_followed():
    """What others did while this process was out of touch is news; what it did itself on an old version is dropped."""
    one, two = members(2)
    two.lose()
    two.fail()
    one.resilience.breaker("dep").trip(1.0)
    settle(one)
    one.resilience.breaker("dep").reset()
    settle(one)
    two.connect()
    settle(one, two)
    assert (one.state, two.state) == (State.CLOSED, State.CLOSED)


def test_what_happened_out_of_touch_is_told_when_nobody_else_moved():
    """On top of the version it knew."""
    one, two = opened(2)
    one.resilience.breaker("dep").reset()
    settle(one, two)
    two.lose()
    two.fail()
    two.connect()
    settle(one, two)
    assert (one.state, two.state, stored(one)) == (State.OPEN, State.OPEN, State.OPEN)


def test_an_opening_that_was_over_before_it_could_be_told_opens_nobody():
    """The store was away for longer than that."""
    one, two = members(2)
    one.lose()
    one.fail()
    advance([one], 10.0)
    one.connect()
    settle(one, two)
    assert (stored(one), two.state) == (None, State.CLOSED)
    assert one.call() == "good"


def test_who_probed_alone_probes_with_the_others_when_the_store_is_back():
    """A new era: what its own probes say from before is not counted."""
    one, two = opened(2)
    one.lose()
    advance([one], 10.0)
    going = one.begin()
    settle(two)
    one.connect()
    settle(one, two)
    going.end(Outcome.BAD)
    settle(one, two)
    assert (one.state, two.state) == (State.HALF_OPEN, State.HALF_OPEN)
    assert one.shelf.circuits["dep"].counts == {}


# -- who takes part ---------------------------------------------------------------------------------------------------------------------


def test_guards_that_are_made_later_take_part_from_the_next_poll_on():
    """And those whose breaker is taken away do not any more."""
    one, two = members(2)
    for member in (one, two):
        member.resilience.guard("late", breaker=breaker())
        member.poll()
    one.resilience.breaker("late").trip()
    settle(one, two)
    assert two.resilience.breaker("late").state is State.OPEN
    policy = two.policy
    two.guard.configure(breaker=None)
    two.poll()
    assert "dep" not in two.fleet.links
    assert policy.coordinator is None
    two.guard.configure(breaker=breaker())
    two.poll()
    one.fail()
    settle(one, two)
    assert two.state is State.OPEN


def test_only_names_that_fit_a_pattern_are_shared():
    """Any of several."""
    resilience = Resilience("fleet", clock=ManualClock())
    for name in ("llm.one", "db", "search"):
        resilience.guard(name, breaker=True)
    resilience.guard("plain")
    fleet = Fleet(resilience, ("llm.*", "db"), trust=1.0, wake=lambda: None)
    fleet.restore(View(Shelf(ManualClock()), "p"))
    assert set(fleet.links) == {"llm.one", "db"}


def test_who_leaves_gives_everything_back_and_stands_alone():
    """Its breaker keeps its state, and nothing that it does is told any more."""
    one, two = probing(2, half_open_calls=2)
    one.call(KeyboardInterrupt)
    assert not one.link.leases
    assert one.call() == "rejected"
    one.turn()
    assert [lease.asked for lease in one.link.leases] == [True]
    policy = one.policy
    one.fleet.leave(one.store)
    one.up = False
    assert policy.coordinator is None
    assert len(one.shelf.circuits["dep"].leases) == 1
    one.resilience.breaker("dep").trip()
    settle(two)
    assert two.state is State.HALF_OPEN
    assert one.shelf.alive.keys() == {"p1"}


def test_a_call_asks_the_store_nothing():
    """Whatever the state: calls only leave notes."""
    everybody = probing(2)
    asked = [member.store.asked for member in everybody]
    for member in everybody:
        for _ in range(5):
            member.call()
            member.fail()
        member.resilience.breaker("dep").trip()
        member.call()
        member.resilience.breaker("dep").reset()
        member.call()
    assert [member.store.asked for member in everybody] == asked
    assert all(member.rung for member in everybody)


def test_messages_about_circuits_we_have_no_part_in_are_passed_over():
    """And so are old ones."""
    one, two = opened(2)
    old = one.shelf.told[0]
    one.resilience.breaker("dep").reset()
    settle(one, two)
    two.fleet.turn(two.store, [old, old._replace(name="unknown", number=old.number + 1)])
    assert two.state is State.CLOSED
