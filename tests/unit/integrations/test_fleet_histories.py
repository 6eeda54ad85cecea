"""Any order of failures, probes, waits, lost messages, lost servers and operators: what is promised of shared circuits holds."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from somaresil import ManualClock, Outcome
from somaresil.model.breaker import State
from tests.unit.integrations.fleet_kit import TRUST, Member, Shelf, settle

PROBES = 2
PROBE_TIMEOUT = 5.0
who = st.integers(0, 2)
SERVING = {State.CLOSED, State.RAMPING}
ORDINARY = {*SERVING, State.OPEN, State.HALF_OPEN}


class Histories(RuleBasedStateMachine):
    """Three processes."""

    going = Bundle("going")

    @initialize(
        quorum=st.sampled_from([1, 2]),
        state=st.sampled_from(["closed", "open", "half_open", "half_open"]),
        ramps=st.tuples(st.sampled_from([0.0, 4.0]), st.sampled_from([0.0, 4.0]), st.sampled_from([0.0, 4.0])),
        at_once=st.integers(1, PROBES),
    )
    def begin(self, quorum, state, ramps, at_once):
        self.shelf = Shelf(ManualClock())
        self.quorum = quorum
        self.at_once = at_once
        options = {"half_open_calls": PROBES, "half_open_concurrency": at_once, "probe_timeout": PROBE_TIMEOUT}
        self.members = [Member(self.shelf, n, quorum=quorum, **options, ramp_up=ramps[n]) for n in range(3)]
        for member in self.members:
            member.connect()
        self.probes = []
        """Of each probe that was let through on a lease: the version it was lent for, until when it counts, and the call."""
        if state != "closed":
            for member in self.members[:quorum]:
                member.fail()
            settle(*self.members)
        if state == "half_open":
            for _ in range(10):
                self.a_second_passes()

    def calls(self, number):
        member = self.members[number]
        shared = member.fleet.trusted_until > member.clock.monotonic() and "dep" in member.fleet.links and member.bound
        call = member.begin()
        if call is not None and call.probe and shared:
            self.probes.append((member.link.version, self.shelf.clock.monotonic() + PROBE_TIMEOUT, call))
        return call

    @rule(target=going, number=who)
    def call(self, number):
        return self.calls(number)

    @rule(call=consumes(going), outcome=st.sampled_from([Outcome.GOOD, Outcome.GOOD, Outcome.BAD, Outcome.ABANDONED]))
    def answer(self, call, outcome):
        if call is not None:
            self.probes = [probe for probe in self.probes if probe[2] is not call]
            call.end(outcome)

    @rule(number=who)
    def fail(self, number):
        self.answer(self.calls(number), Outcome.BAD)

    @rule(number=who)
    def succeed(self, number):
        self.answer(self.calls(number), Outcome.GOOD)

    @rule()
    def a_second_passes(self):
        self.shelf.clock.advance(1.0)
        for number in range(3):
            self.poll(number)

    @rule(seconds=st.sampled_from([0.1, 3.0, 10.0]))
    def nobody_polls(self, seconds):
        self.shelf.clock.advance(seconds)

    @rule()
    def everybody_turns(self):
        settle(*self.members)

    @rule(number=who, deaf=st.booleans())
    def turn(self, number, deaf):
        if self.members[number].up:
            self.members[number].turn(deaf=deaf)

    @rule(number=who)
    def poll(self, number):
        if self.members[number].up:
            self.members[number].poll()

    @rule(number=who)
    def lose(self, number):
        self.members[number].lose()

    @rule(number=who)
    def connect(self, number):
        if not self.members[number].up:
            self.members[number].connect()

    @rule(what=st.sampled_from(["restarts", "restarts empty", "evicts"]))
    def the_server(self, what):
        if what == "evicts":
            self.shelf.circuits.pop("dep", None)
            return
        for number in range(3):
            self.lose(number)
        if what == "restarts empty":
            self.shelf.forget()

    @rule(number=who, control=st.sampled_from(["trip", "reset", "reset", "reset", "disable", "force_open"]))
    def operate(self, number, control):
        breaker = self.members[number].resilience.breaker("dep")
        if control != "trip" or self.members[number].state in ORDINARY:
            getattr(breaker, control)()

    @rule(number=who)
    def experiment(self, number):
        if self.members[number].state in ORDINARY:
            self.members[number].policy.trip(4.0, injected=True)

    @rule()
    def all_is_well_again(self):
        """Whatever happened, those who are in touch and hear each other agree with what is stored."""
        for member in self.members:
            if not member.up:
                member.connect()
        for member in self.members:
            member.poll()
        settle(*self.members)
        circuit = self.shelf.circuits.get("dep")
        for member in self.members:
            if circuit is None or member.link.apart or member.state not in ORDINARY:
                continue
            if circuit.state is State.CLOSED:
                # A process may have its own circuit open: an experiment's, too few agree, or it is over and nobody called since.
                alone = member.link.apart or member.link.intent is not None or not member.bound
                assert member.state in SERVING or alone
            else:
                assert (member.state, member.bound, member.link.version) == (circuit.state, True, circuit.version)

    @invariant()
    def no_more_probes_than_there_are(self):
        """In each half-open time of the shared circuit: those under way whose time is not over, and those that have answered."""
        if not hasattr(self, "shelf"):
            return
        circuit = self.shelf.circuits.get("dep")
        if circuit is not None and circuit.state is State.HALF_OPEN:
            now = self.shelf.clock.monotonic()
            under_way = sum(version == circuit.version and now < until for version, until, _ in self.probes)
            assert under_way <= self.at_once
            assert under_way + circuit.counts["good"] + circuit.counts["bad"] <= PROBES

    @invariant()
    def what_is_noted_has_an_end(self):
        """However long nobody listens."""
        if hasattr(self, "members"):
            for member in self.members:
                assert len(member.fleet._noted) <= 1
                link = member.fleet.links["dep"]
                assert len(link.reports) + len(link.leases) <= 4 * PROBES
                assert link.era <= member.policy.era
                assert member.fleet.trusted_until <= self.shelf.clock.monotonic() + TRUST


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyHistory = Histories.TestCase
