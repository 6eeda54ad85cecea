"""Any history at all: the breaker model against one that keeps everything in lists and answers every question by counting."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import floor

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from somaresil.model.breaker import TRANSITIONS, Breaker, Permit, State, Tally, Thresholds, Trigger

CONTROLS = {Trigger.FORCE_OPEN: "forced_open", Trigger.DISABLE: "disabled", Trigger.OBSERVE: "metrics_only", Trigger.RESET: "closed"}
FLEET = {
    Trigger.FLEET_OPENED: "open",
    Trigger.FLEET_PROBES: "half_open",
    Trigger.FLEET_RECOVERING: "ramping",
    Trigger.FLEET_CLOSED: "closed",
}


@dataclass
class Call:
    """Somebody asked; what came of it."""

    at: float
    share: Fraction = Fraction(0)
    number: int | None = None
    lease: float = 0.0
    answer: tuple[bool, bool] | None = None
    gone: bool = False
    counts: bool = True


@dataclass
class Era:
    """One stay in one state."""

    state: str
    began: float = 0.0
    until: float = 0.0
    first_share: Fraction = Fraction(0)
    calls: list[Call] = field(default_factory=list)
    missed: list[tuple[float, float]] = field(default_factory=list)
    row: int | None = None
    heard: tuple[int, int, int] = (0, 0, 0)


def reached(part: Fraction, limit: float | None, usual: bool) -> bool:
    """Whether a share is over its limit; where there is none, any share at all is, or none."""
    return part > 0 and (usual if limit is None else part >= Fraction(limit))


class Reference:
    """The breaker once more, as plainly as can be."""

    def __init__(self, limits: Thresholds) -> None:
        self.limits = limits
        self.eras = [Era("closed")]
        self.probes = 0

    @property
    def now(self) -> Era:
        return self.eras[-1]

    @property
    def openings(self) -> int:
        """Openings since the last era in which there was no outage."""
        row = 0
        for era in reversed(self.eras):
            if era.state not in {"open", "half_open", "ramping"}:
                break
            if era.row is not None:
                return row + era.row
            row += era.state == "open"
        return row

    def duration(self, opening: int, u: float, seconds: float | None) -> float:
        if seconds is not None:
            return seconds
        length = min(self.limits.open_duration * self.limits.open_factor ** (opening - 1), self.limits.open_maximum)
        return length * (1 - self.limits.open_jitter + 2 * self.limits.open_jitter * u)

    def open(self, now: float, u: float, seconds: float | None = None) -> None:
        self.eras.append(Era("open", now, now + self.duration(self.openings + 1, u, seconds)))

    def share(self, now: float) -> Fraction:
        elapsed, whole = Fraction(max(0.0, now - self.now.began)), Fraction(self.limits.ramp_up)
        first = Fraction(self.limits.ramp_up_from)
        return Fraction(1) if elapsed >= whole else first + (1 - first) * elapsed / whole

    def due(self) -> Fraction:
        """How many calls the ramp owes or has let through: the shares of all who asked, and what it began with."""
        return 1 - self.now.first_share + sum(call.share for call in self.now.calls)

    def running(self, now: float) -> list[Call]:
        """Probes under way whose lease runs."""
        return [call for call in self.now.calls if call.number and not call.answer and not call.gone and now <= call.lease]

    def answered(self) -> list[tuple[bool, bool]]:
        return [call.answer for call in self.now.calls if call.answer and call.counts]

    def said(self) -> tuple[int, int, int]:
        """Good, failed and slow probes, of other processes too: of each kind the larger number that was ever known."""
        answers = self.answered()
        failed = sum(answer[0] for answer in answers)
        own = len(answers) - failed, failed, sum(answer[1] for answer in answers)
        return tuple(mine + more for mine, more in zip(own, self.now.heard, strict=True))

    def learn(self, heard: tuple[int, int, int], now: float, u: float) -> None:
        if self.now.state == "half_open":
            more = (max(0, total - known) for total, known in zip(heard, self.said(), strict=True))
            self.now.heard = tuple(before + further for before, further in zip(self.now.heard, more, strict=True))
            self.verdict(now, u, fatal=False, seconds=None)

    def admit(self, now: float) -> Permit | None:
        if self.now.state == "open" and now >= self.now.until:
            self.eras.append(Era("half_open", now))
        if self.now.state == "ramping" and self.share(now) >= 1:
            self.eras.append(Era("closed", now))
        call = Call(now)
        if self.now.state == "ramping":
            before = floor(self.due())
            call.share = self.share(now)
            self.now.calls.append(call)
            return Permit(len(self.eras), None) if floor(self.due()) > before else None
        if self.now.state == "half_open":
            for probe in self.now.calls:
                probe.gone = probe.gone or (not probe.answer and now > probe.lease)
            under_way = len(self.running(now))
            if under_way + sum(self.said()[:2]) >= self.limits.half_open_calls or under_way >= self.limits.half_open_concurrency:
                return None
            self.probes += 1
            call.number, call.lease = self.probes, now + self.limits.probe_timeout
            self.now.calls.append(call)
            return Permit(len(self.eras), call.number)
        return Permit(len(self.eras), None) if self.now.state in {"closed", "disabled", "metrics_only"} else None

    def probe(self, permit: Permit) -> Call | None:
        if permit.era != len(self.eras) or permit.probe is None:
            return None
        return next((call for call in self.now.calls if call.number == permit.probe and not call.answer and not call.gone), None)

    def settle(
        self, permit: Permit, *, failed: bool, slow: bool, now: float, over: bool, u: float, fatal: bool, seconds: float | None
    ) -> None:
        if permit.era != len(self.eras):
            return
        if self.now.state in {"closed", "ramping"}:
            if fatal:
                self.open(now, u, seconds)
            elif (failed or slow) and over:
                self.open(now, u)
        elif self.now.state == "half_open" and (probe := self.probe(permit)) is not None:
            probe.gone = now > probe.lease
            if not probe.gone:
                probe.answer = (failed, slow)
                self.verdict(now, u, fatal, seconds)

    def verdict(self, now: float, u: float, fatal: bool, seconds: float | None) -> None:
        limits, (good, failed, crawled) = self.limits, self.said()
        bad, slow = Fraction(failed, limits.half_open_calls), Fraction(crawled, limits.half_open_calls)
        if fatal:
            self.open(now, u, seconds)
        elif reached(bad, limits.failure_rate, usual=True) or reached(slow, limits.slow_call_rate, usual=False):
            self.open(now, u)
        elif good + failed >= limits.half_open_calls:
            state = "ramping" if limits.ramp_up else "closed"
            self.eras.append(Era(state, now, first_share=Fraction(limits.ramp_up_from)))

    def would_open(self, now: float, over: bool, u: float, fatal: bool, seconds: float | None) -> bool:
        missed = self.now.state == "metrics_only" and (fatal or over) and all(at + lasts <= now for at, lasts in self.now.missed)
        if missed:
            self.now.missed.append((now, self.duration(1, u, seconds)))
        return missed

    def retry_after(self, now: float) -> float | None:
        if self.now.state == "open":
            return max(0.0, self.now.until - now)
        if self.now.state == "half_open":
            leases = [call.lease for call in self.now.calls if not call.answer and not call.gone]
            return max(0.0, min(leases) - now) if leases else 0.0
        if self.now.state == "ramping":
            rest = max(Fraction(0), Fraction(self.now.began) + Fraction(self.limits.ramp_up) - Fraction(now))
            return float(rest * (1 - (self.due() - floor(self.due()))))
        return None if self.now.state == "forced_open" else 0.0


draws = st.sampled_from([0.0, 0.25, 0.5, 0.75])
lengths = st.sampled_from([None, None, 2.0, 7.0])
fatals = st.sampled_from([False, False, True])

# Binary fractions, so that shares and times are exact as floats too.
thresholds = st.builds(
    Thresholds,
    failure_rate=st.sampled_from([None, 0.25, 0.5, 1.0]),
    slow_call_rate=st.sampled_from([None, 0.5]),
    consecutive_failures=st.sampled_from([None, 1]),
    minimum_calls=st.just(1),
    open_duration=st.just(4.0),
    open_factor=st.just(2.0),
    open_maximum=st.just(10.0),
    open_jitter=st.sampled_from([0.0, 0.25]),
    half_open_calls=st.integers(1, 4),
    half_open_concurrency=st.integers(1, 4),
    probe_timeout=st.sampled_from([1.0, 8.0]),
    ramp_up=st.sampled_from([0.0, 8.0, 16.0]),
    ramp_up_from=st.sampled_from([0.125, 0.5, 1.0]),
    window=st.just(30.0),
    window_calls=st.none(),
    slow_call_duration=st.none(),
).map(lambda limits: limits if limits.failure_rate or limits.slow_call_rate else replace(limits, consecutive_failures=1))


class History(RuleBasedStateMachine):
    """Any order of calls, answers, cancellations, waits, controls and changes of mind."""

    permits = Bundle("permits")

    @initialize(limits=thresholds)
    def begin(self, limits):
        self.breaker = Breaker(limits)
        self.expected = Reference(limits)
        self.now = 100.0

    @rule(seconds=st.sampled_from([0.5, 1.0, 1.25, 4.0, 8.0, 12.5]))
    def wait(self, seconds):
        self.now += seconds

    @rule(target=permits)
    def call(self):
        before = len(self.expected.eras)
        permit, transition = self.breaker.admit(self.now)
        assert permit == self.expected.admit(self.now)
        assert (transition is not None) == (len(self.expected.eras) > before)
        return permit

    @rule(slow=st.booleans(), seen=st.sampled_from([0, 4]), u=draws, fatal=fatals, seconds=lengths)
    def fail(self, slow, seen, u, fatal, seconds):
        """A call that fails at once, whatever the state."""
        self.answer(self.call(), failed=True, slow=slow, seen=seen, u=u, fatal=fatal, seconds=seconds)

    @precondition(lambda self: self.breaker.state is State.OPEN)
    @rule(callers=st.integers(1, 6), pause=st.sampled_from([0.0, 1.0, 1.25, 8.0]))
    def recover(self, callers, pause):
        """Its time is over, and so many callers come at once, again and again, until those who are let in have all answered well."""
        self.now = max(self.now, self.expected.now.until)
        for _ in range(self.expected.limits.half_open_calls):
            permits = [self.call() for _ in range(callers)]
            self.now += pause
            for permit in permits:
                self.answer(permit, failed=False, slow=False, seen=0, u=0.5, fatal=False, seconds=None)

    @precondition(lambda self: self.breaker.state in {State.HALF_OPEN, State.RAMPING})
    @rule(count=st.integers(2, 12))
    def crowd(self, count):
        """Many callers at one moment, whose answers never come."""
        for _ in range(count):
            self.call()

    @rule(
        permit=consumes(permits), failed=st.booleans(), slow=st.booleans(), seen=st.integers(0, 4), u=draws, fatal=fatals, seconds=lengths
    )
    def answer(self, permit, failed, slow, seen, u, fatal, seconds):
        if permit is None:
            return
        shown = Tally(4, seen, seen, seen)
        over, before, fatal = self.breaker.exceeded(shown), len(self.expected.eras), fatal and failed
        end = {"now": self.now, "u": u, "fatal": fatal}
        missed = (failed or slow) and self.expected.would_open(self.now, over, u, fatal, seconds)
        assert missed == ((failed or slow) and self.breaker.would_open(tally=shown, open_for=seconds, **end))
        self.expected.settle(permit, failed=failed, slow=slow, over=over, seconds=seconds, **end)
        transition = self.breaker.settle(permit, failed=failed, slow=slow, tally=shown, open_for=seconds, **end)
        assert (transition is not None) == (len(self.expected.eras) > before)
        if transition is not None:
            assert (transition.before.value, transition.after.value) == tuple(era.state for era in self.expected.eras[-2:])

    @rule(permit=consumes(permits))
    def cancel(self, permit):
        if permit is not None:
            self.breaker.cancel(permit)
            probe = self.expected.probe(permit)
            if probe is not None:
                probe.gone = True

    @precondition(lambda self: self.breaker.state is State.HALF_OPEN)
    @rule(permit=permits, failed=st.booleans())
    def answer_and_keep(self, permit, failed):
        """The same permit may be settled twice: the second time says nothing in half-open."""
        self.answer(permit, failed=failed, slow=False, seen=0, u=0.5, fatal=False, seconds=None)

    @rule(trigger=st.sampled_from(sorted(CONTROLS)))
    def control(self, trigger):
        self.breaker.control(trigger)
        self.expected.eras.append(Era(CONTROLS[trigger], self.now))

    @precondition(lambda self: self.breaker.state in {State.CLOSED, State.OPEN, State.HALF_OPEN, State.RAMPING})
    @rule(seconds=st.sampled_from([0.0, 2.0, 4.0]))
    def trip(self, seconds):
        self.breaker.trip(self.now, seconds)
        self.expected.eras.append(Era("open", self.now, self.now + seconds))

    @precondition(lambda self: (self.breaker.state, Trigger.FLEET_OPENED) in TRANSITIONS)
    @rule(trigger=st.sampled_from(sorted(FLEET)), seconds=st.sampled_from([0.0, 4.0]), row=st.integers(1, 5))
    def follow(self, trigger, seconds, row):
        """Another process took a step."""
        if (self.breaker.state, trigger) not in TRANSITIONS:
            return
        transition = self.breaker.follow(trigger, self.now, open_until=self.now + seconds, openings=row)
        assert transition.after.value == FLEET[trigger]
        first = Fraction(self.expected.limits.ramp_up_from)
        self.expected.eras.append(Era(FLEET[trigger], self.now, self.now + seconds, first, row=row))

    @rule(heard=st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), u=draws)
    def learn(self, heard, u):
        """Probes of other processes have said so much."""
        before = len(self.expected.eras)
        self.expected.learn(heard, self.now, u)
        transition = self.breaker.learn(*heard, self.now, u)
        assert (transition is not None) == (len(self.expected.eras) > before)

    @precondition(lambda self: self.breaker.state is State.OPEN)
    @rule(seconds=st.sampled_from([1.0, 6.0]), ago=st.integers(0, 1))
    def prolong(self, seconds, ago):
        """Of an era that is over, nothing is made longer."""
        self.breaker.prolong(self.breaker.era - ago, self.now + seconds)
        if not ago:
            self.expected.now.until = max(self.expected.now.until, self.now + seconds)

    @precondition(lambda self: self.breaker.state is State.OPEN)
    @rule()
    def cut_short(self):
        self.breaker.cut_short(self.now)
        self.expected.now.until = min(self.expected.now.until, self.now)

    @rule(limits=thresholds)
    def reconfigure(self, limits):
        """What the probes have said so far was about the old options."""
        self.breaker.reconfigure(limits)
        self.expected.limits = limits
        self.expected.now.heard = (0, 0, 0)
        for call in self.expected.now.calls:
            call.counts = call.answer is None

    @invariant()
    def both_agree(self):
        if not hasattr(self, "breaker"):
            return
        expected = self.expected
        assert (self.breaker.state.value, self.breaker.era, self.breaker.openings) == (
            expected.now.state,
            len(expected.eras),
            expected.openings,
        )
        assert self.breaker.retry_after(self.now) == expected.retry_after(self.now)
        if expected.now.state == "open":
            assert self.breaker.open_until == expected.now.until
        if expected.now.state == "ramping":
            assert self.breaker.share(self.now) == expected.share(self.now)


History.TestCase.settings = settings(max_examples=70, stateful_step_count=40, deadline=None)
TestAnyHistory = History.TestCase
