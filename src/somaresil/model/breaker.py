"""The circuit breaker as a transition table, with no clock, lock, chance or call of its own.

Everything that decides about a state lives in this file, as much of it as possible in :data:`TRANSITIONS`; a missing row *is* the error.
The caller hands in what time it is and what the window shows, and turns the returned :class:`Transition` into events after it has let go
of its lock.

Two ideas keep late and lost answers harmless, and a third one keeps a recovery from being a cliff:

- **Eras.** Every transition starts a new era. A result that was admitted in an earlier era changes nothing: a call from before the trip
  that ends well does not close the circuit (circuitbreaker does that), and a late failure does not re-open it while it is being probed
  (pybreaker, aiobreaker and pyresilience do that).
- **Leases.** A half-open probe is lent for ``probe_timeout`` seconds. A hung probe's slot is lent again after that, and what the hung probe
  says in the end is not counted; a cancelled probe gives its slot back with no verdict.
- **The ramp.** After good probes a share of the calls may pass that grows from ``ramp_up_from`` to all of them in ``ramp_up`` seconds. Who
  passes is not drawn: the shares are added up, and a call passes when the sum reaches the next whole number, as a line is drawn on a grid
  (J. E. Bresenham, "Algorithm for computer control of a digital plotter", IBM Systems Journal 4(1), 1965). So what was let through is
  never a call away from what the shares come to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from somaresil.model.backoff import opening_duration

__all__ = [
    "NOTHING_SEEN",
    "TRANSITIONS",
    "Breaker",
    "IllegalTransition",
    "Permit",
    "State",
    "Tally",
    "Thresholds",
    "Transition",
    "Trigger",
    "diagram",
]


class State(StrEnum):
    """What a breaker does with a call."""

    CLOSED = "closed"
    """Calls pass and are judged."""
    OPEN = "open"
    """Calls are rejected until the open time is over."""
    HALF_OPEN = "half_open"
    """A few calls pass as probes; the others are rejected."""
    RAMPING = "ramping"
    """A growing share of the calls passes and is judged; the others are rejected."""
    FORCED_OPEN = "forced_open"
    """Calls are rejected until somebody resets the breaker."""
    DISABLED = "disabled"
    """Calls pass and are not judged."""
    METRICS_ONLY = "metrics_only"
    """Calls pass and are counted, and the breaker never opens."""


class Trigger(StrEnum):
    """What moves a breaker from one state to another."""

    EXCEEDED = "exceeded"
    """The window went over a threshold."""
    FATAL = "fatal"
    """A call ended in a way after which further calls are pointless."""
    ELAPSED = "elapsed"
    """The open time is over and somebody calls."""
    RECOVERING = "recovering"
    """The probes went well enough, and the calls are to come back little by little."""
    RECOVERED = "recovered"
    """The probes went well enough, or the ramp after them is over and somebody calls."""
    RELAPSED = "relapsed"
    """The probes did not."""
    TRIP = "trip"
    """Somebody opened it for a while: an operator or an experiment."""
    FORCE_OPEN = "force_open"
    """Somebody opened it for good."""
    DISABLE = "disable"
    """Somebody switched it off."""
    OBSERVE = "observe"
    """Somebody wants it to watch only."""
    RESET = "reset"
    """Somebody wants it to start anew."""
    FLEET_OPENED = "fleet_opened"
    """Another process opened the circuit that it shares."""
    FLEET_PROBES = "fleet_probes"
    """The open time of the shared circuit is over: its processes probe together."""
    FLEET_RECOVERING = "fleet_recovering"
    """The shared probes went well enough, and the calls are to come back little by little."""
    FLEET_CLOSED = "fleet_closed"
    """The shared probes went well enough, or somebody wants all processes to start anew."""


_C, _O, _H, _R = State.CLOSED, State.OPEN, State.HALF_OPEN, State.RAMPING
_F, _D, _M = State.FORCED_OPEN, State.DISABLED, State.METRICS_ONLY

TRANSITIONS: dict[tuple[State, Trigger], State] = {
    # by themselves
    (_C, Trigger.EXCEEDED): _O,
    (_C, Trigger.FATAL): _O,
    (_O, Trigger.ELAPSED): _H,
    (_H, Trigger.RECOVERED): _C,
    (_H, Trigger.RECOVERING): _R,
    (_H, Trigger.RELAPSED): _O,
    (_H, Trigger.FATAL): _O,
    (_R, Trigger.RECOVERED): _C,
    (_R, Trigger.EXCEEDED): _O,
    (_R, Trigger.FATAL): _O,
    # by hand, for a while
    (_C, Trigger.TRIP): _O,
    (_O, Trigger.TRIP): _O,
    (_H, Trigger.TRIP): _O,
    (_R, Trigger.TRIP): _O,
    # after another process; one that an operator has set stays as it is
    **{(state, Trigger.FLEET_OPENED): _O for state in (_C, _O, _H, _R)},
    **{(state, Trigger.FLEET_PROBES): _H for state in (_C, _O, _H, _R)},
    **{(state, Trigger.FLEET_RECOVERING): _R for state in (_O, _H)},
    **{(state, Trigger.FLEET_CLOSED): _C for state in (_O, _H)},
    # by hand, until further notice
    **{(state, Trigger.FORCE_OPEN): _F for state in State},
    **{(state, Trigger.DISABLE): _D for state in State},
    **{(state, Trigger.OBSERVE): _M for state in State},
    **{(state, Trigger.RESET): _C for state in State},
}
"""Every legal step. A pair that is not here is an :class:`IllegalTransition`."""


class IllegalTransition(Exception):
    """The table has no such row."""

    def __init__(self, state: State, trigger: Trigger) -> None:
        """Keep state and trigger."""
        super().__init__(state, trigger)
        self.state = state
        self.trigger = trigger

    def __str__(self) -> str:
        """Name the row that is missing and those that are there."""
        legal = ", ".join(t.value for s, t in TRANSITIONS if s is self.state)
        return f"a breaker that is {self.state.value} cannot take {self.trigger.value!r}; from here: {legal}"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When a breaker opens, for how long, and what it takes to close. Rates are in (0, 1], times in seconds.

    ``None`` for a rate or for ``consecutive_failures`` means that this is not looked at.
    """

    failure_rate: float | None
    slow_call_rate: float | None
    consecutive_failures: int | None
    minimum_calls: int
    open_duration: float
    open_factor: float
    open_maximum: float
    open_jitter: float
    half_open_calls: int
    half_open_concurrency: int
    probe_timeout: float
    ramp_up: float
    ramp_up_from: float
    window: float
    """What the window looks at, in seconds; this and the next two only serve to say why it opened."""
    window_calls: int | None
    """The same as a number of calls, if it is one."""
    slow_call_duration: float | None


class Tally(NamedTuple):
    """What the window shows at the moment, this call included."""

    calls: int
    failures: int
    slow: int
    consecutive: int


NOTHING_SEEN = Tally(0, 0, 0, 0)


class Permit(NamedTuple):
    """Leave to call: valid in one era; ``probe`` numbers the probe when it is one."""

    era: int
    probe: int | None


class Transition(NamedTuple):
    """A step that was taken. ``open_until`` is set when it leads to :attr:`State.OPEN`."""

    before: State
    after: State
    trigger: Trigger
    era: int
    tally: Tally
    open_until: float | None


class Breaker:
    """State, era and probes of one breaker. Not safe to share: whoever owns it holds a lock around each method."""

    __slots__ = (
        "_credit",
        "_failed",
        "_good",
        "_leases",
        "_probe",
        "_ramp_began",
        "_slow",
        "_unseen_until",
        "era",
        "open_until",
        "openings",
        "state",
        "thresholds",
    )

    def __init__(self, thresholds: Thresholds) -> None:
        """Start closed, in era 1."""
        self.thresholds = thresholds
        self.state = State.CLOSED
        self.era = 1
        self.open_until = 0.0
        self.openings = 0
        """Openings in a row: since the breaker was last closed."""
        self._probe = 0
        self._leases: dict[int, float] = {}
        self._good = self._failed = self._slow = 0
        self._ramp_began = self._credit = 0.0
        self._unseen_until = _LONG_AGO

    # -- asking -----------------------------------------------------------------------------------------------------------------------

    def admit(self, now: float) -> tuple[Permit | None, Transition | None]:
        """Leave to call at time ``now``, or None; and the step that asking led to, if any."""
        state = self.state
        if state is State.CLOSED or state is State.DISABLED or state is State.METRICS_ONLY:
            return Permit(self.era, None), None
        if state is State.FORCED_OPEN:
            return None, None
        if state is State.RAMPING:
            return self._admit_ramping(now)
        transition = None
        if state is State.OPEN:
            if now < self.open_until:
                return None, None
            transition = self._move(Trigger.ELAPSED)
        self._reclaim(now)
        limits, lent = self.thresholds, len(self._leases)
        if lent + self._good + self._failed >= limits.half_open_calls or lent >= limits.half_open_concurrency:
            return None, transition
        self._probe += 1
        self._leases[self._probe] = now + self.thresholds.probe_timeout
        return Permit(self.era, self._probe), transition

    def retry_after(self, now: float) -> float | None:
        """Seconds until asking again makes sense; None when only a person can change that.

        Those who are turned away while it ramps up are spread over the rest of the ramp: if all of them were told when it ends, all of them
        would come then.
        """
        if self.state is State.OPEN:
            return max(0.0, self.open_until - now)
        if self.state is State.HALF_OPEN:
            return max(0.0, min(self._leases.values()) - now) if self._leases else 0.0
        if self.state is State.RAMPING:
            return max(0.0, self._ramp_began + self.thresholds.ramp_up - now) * (1.0 - self._credit)
        return None if self.state is State.FORCED_OPEN else 0.0

    def share(self, now: float) -> float:
        """The share of the calls that may pass while it ramps up."""
        limits = self.thresholds
        elapsed = max(0.0, now - self._ramp_began)
        if elapsed >= limits.ramp_up:
            return 1.0
        return limits.ramp_up_from + (1.0 - limits.ramp_up_from) * elapsed / limits.ramp_up

    # -- telling ----------------------------------------------------------------------------------------------------------------------

    def settle(
        self,
        permit: Permit,
        *,
        failed: bool,
        slow: bool,
        now: float,
        tally: Tally,
        u: float,
        fatal: bool = False,
        open_for: float | None = None,
    ) -> Transition | None:
        """Judge a call that was admitted with ``permit``; ``u`` in [0, 1) is the draw for the jitter of an opening.

        A ``fatal`` end opens at once, for ``open_for`` seconds sharp when that is given.
        """
        if permit.era != self.era:
            return None
        if self.state is State.HALF_OPEN:
            # A probe whose lease ran out has no say: its slot may be lent to another by now.
            if permit.probe is None or self._leases.pop(permit.probe, _LONG_AGO) < now:
                return None
            self._good += not failed
            self._failed += failed
            self._slow += slow
            return self._open(Trigger.FATAL, now, u, self._probed(), open_for) if fatal else self._verdict(now, u)
        if self.state is State.CLOSED or self.state is State.RAMPING:
            if fatal:
                return self._open(Trigger.FATAL, now, u, tally, open_for)
            if (failed or slow) and self.exceeded(tally):
                return self._open(Trigger.EXCEEDED, now, u, tally)
        return None

    def would_open(self, *, now: float, tally: Tally, u: float, fatal: bool = False, open_for: float | None = None) -> bool:
        """Whether a breaker that only watches would have opened at the end of this failed or slow call.

        Told once for each opening that there would have been: the calls that it would have refused are not judged.
        """
        if self.state is not State.METRICS_ONLY or now < self._unseen_until:
            return False
        if not fatal and not self.exceeded(tally):
            return False
        self._unseen_until = now + self._duration(1, u, open_for)
        return True

    def prolong(self, era: int, until: float) -> None:
        """Let the opening that era ``era`` is last until then, if it would end earlier."""
        if self.era == era and self.state is State.OPEN:
            self.open_until = max(self.open_until, until)

    def cancel(self, permit: Permit) -> None:
        """Give a permit back with no verdict: the caller went away, or the result says nothing."""
        if permit.era == self.era and permit.probe is not None:
            self._leases.pop(permit.probe, None)

    def learn(self, good: int, failed: int, slow: int, now: float, u: float) -> Transition | None:
        """Take in what all probes of this era have said so far, those of other processes included.

        Neither these numbers nor our own ever shrink within an era, and neither counts what did not happen, so the larger one is nearer
        to the truth and a verdict by it is right.
        """
        if self.state is not State.HALF_OPEN:
            return None
        self._good, self._failed, self._slow = max(self._good, good), max(self._failed, failed), max(self._slow, slow)
        return self._verdict(now, u)

    def reconfigure(self, thresholds: Thresholds) -> None:
        """Use other thresholds from now on. State, era and lent probes stay; the probes are judged anew from here.

        What the probes said so far was about the old number: with a lower one it could fill every place with nobody left to decide.
        """
        self.thresholds = thresholds
        self._good = self._failed = self._slow = 0

    def exceeded(self, tally: Tally) -> bool:
        """Whether the window is over a threshold. A rate counts as exceeded when it is reached."""
        limits = self.thresholds
        if limits.consecutive_failures is not None and tally.consecutive >= limits.consecutive_failures:
            return True
        if tally.calls < limits.minimum_calls:
            return False
        return _reached(limits.failure_rate, tally.failures, tally.calls) or _reached(limits.slow_call_rate, tally.slow, tally.calls)

    # -- controls ---------------------------------------------------------------------------------------------------------------------

    def trip(self, now: float, duration: float) -> Transition:
        """Open for exactly ``duration`` seconds."""
        return self._move(Trigger.TRIP, open_until=now + duration)

    def follow(self, trigger: Trigger, now: float, *, open_until: float = 0.0, openings: int = 0) -> Transition:
        """Take a step that another process took; ``openings``: how many in a row the processes count together."""
        transition = self._move(trigger, open_until=open_until)
        if self.state is State.RAMPING:
            self._ramp(now)
        if self.state is not State.CLOSED:
            self.openings = openings
        return transition

    def cut_short(self, now: float) -> None:
        """End the open time now: the next caller is a probe."""
        self.open_until = min(self.open_until, now)

    def control(self, trigger: Trigger) -> Transition:
        """Force open, disable, observe or reset."""
        return self._move(trigger)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _reclaim(self, now: float) -> None:
        hung = [probe for probe, deadline in self._leases.items() if deadline < now]
        for probe in hung:
            del self._leases[probe]

    def _verdict(self, now: float, u: float) -> Transition | None:
        limits = self.thresholds
        calls = limits.half_open_calls
        seen = self._probed()
        # Without a failure rate (consecutive mode) the first failed probe decides.
        relapsed = self._failed > 0 if limits.failure_rate is None else _reached(limits.failure_rate, self._failed, calls)
        if relapsed or _reached(limits.slow_call_rate, self._slow, calls):
            return self._open(Trigger.RELAPSED, now, u, seen)
        if self._good + self._failed < calls:
            return None
        if limits.ramp_up <= 0.0:
            return self._move(Trigger.RECOVERED, seen)
        self._ramp(now)
        return self._move(Trigger.RECOVERING, seen)

    def _ramp(self, now: float) -> None:
        self._ramp_began = now
        # So much that the first call of the ramp passes: the probes before it went well.
        self._credit = 1.0 - self.thresholds.ramp_up_from

    def _probed(self) -> Tally:
        return Tally(self._good + self._failed, self._failed, self._slow, 0)

    def _admit_ramping(self, now: float) -> tuple[Permit | None, Transition | None]:
        share = self.share(now)
        if share >= 1.0:
            transition = self._move(Trigger.RECOVERED)
            return Permit(self.era, None), transition
        self._credit += share
        if self._credit < 1.0:
            return None, None
        self._credit -= 1.0
        return Permit(self.era, None), None

    def _open(self, trigger: Trigger, now: float, u: float, tally: Tally, seconds: float | None = None) -> Transition:
        return self._move(trigger, tally, open_until=now + self._duration(self.openings + 1, u, seconds))

    def _duration(self, opening: int, u: float, seconds: float | None) -> float:
        limits = self.thresholds
        if seconds is not None:
            return seconds
        return opening_duration(
            opening,
            open_duration=limits.open_duration,
            factor=limits.open_factor,
            maximum=limits.open_maximum,
            jitter=limits.open_jitter,
            u=u,
        )

    def _move(self, trigger: Trigger, tally: Tally = NOTHING_SEEN, open_until: float = 0.0) -> Transition:
        before = self.state
        after = TRANSITIONS.get((before, trigger))
        if after is None:
            raise IllegalTransition(before, trigger)
        self.state = after
        self.era += 1
        self._leases.clear()
        self._good = self._failed = self._slow = 0
        if after is State.OPEN:
            self.openings += 1
            self.open_until = open_until
        elif after is not State.HALF_OPEN and after is not State.RAMPING:
            self.openings = 0
            self._unseen_until = _LONG_AGO
        return Transition(before, after, trigger, self.era, tally, self.open_until if after is State.OPEN else None)


_LONG_AGO = float("-inf")


def _reached(rate: float | None, part: int, whole: int) -> bool:
    # Divided, since the quotient of two whole numbers rounds to the same float as the decimal fraction that somebody wrote: 7 of 100 is
    # 0.07, while 0.07 times 100 is more than 7.
    return rate is not None and part > 0 and part / whole >= rate


def diagram() -> str:
    """The table as a Mermaid state diagram. Steps that lead from everywhere to the same state are drawn once, from ``any``."""
    everywhere = {t for t in Trigger if len({TRANSITIONS.get((s, t)) for s in State}) == 1}
    lines = ["stateDiagram-v2", f"    [*] --> {State.CLOSED.value}"]
    lines += [
        f"    {before.value} --> {after.value}: {trigger.value}"
        for (before, trigger), after in TRANSITIONS.items()
        if trigger not in everywhere
    ]
    lines += [f"    any --> {TRANSITIONS[State.CLOSED, trigger].value}: {trigger.value}" for trigger in Trigger if trigger in everywhere]
    return "\n".join(lines)
