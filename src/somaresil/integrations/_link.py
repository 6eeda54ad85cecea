"""Circuits that several processes share: what each process does about it, wherever the shared state is kept.

Only *transitions* are shared, and the probes of a half-open circuit. Each process counts its own calls and decides by itself that its
circuit is to open; that decision is written down, and the others follow. The shared circuit has a *version*, which changes with each of
its steps. A process may only write on top of the version that it has seen: somebody who is behind changes nothing, and follows.

Half-open, the store lends ``half_open_calls`` probes to all processes together. Admission must not wait for an answer, so a process
borrows probes ahead of time, hands them to the next callers, and rejects a caller for whom there is none; it then asks for one. Who holds
probes that nobody asked for gives them back as soon as another process wants some.

Locks: a :class:`Link` lives under the lock of its breaker. Nothing here is held while the store is asked.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from somaresil.model.breaker import TRANSITIONS, State, Trigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from somaresil.integrations._fleet import Fleet
    from somaresil.model.breaker import Breaker, Permit, Transition
    from somaresil.outcome import Outcome
    from somaresil.policy.breaker import BreakerPolicy

__all__ = ["UNKNOWN", "Intent", "Link", "Message", "Seen", "Store"]

_FOLLOWED: Final = frozenset({Trigger.FLEET_OPENED, Trigger.FLEET_PROBES, Trigger.FLEET_RECOVERING, Trigger.FLEET_CLOSED})
_PROBED: Final = frozenset({Trigger.RECOVERED, Trigger.RECOVERING})
_SERVING: Final = frozenset({State.CLOSED, State.RAMPING})
"""What is closed to the others: a ramp is each process's own."""
_ORDINARY: Final = frozenset({*_SERVING, State.OPEN, State.HALF_OPEN})
"""What can be shared. The other states are an operator's word for this one process."""
UNKNOWN: Final = -1
"""A version that nothing has: whatever is stored is news."""
_KEPT: Final = 2.0
"""Seconds for which a probe that a caller asked for is not given away."""


class Seen(NamedTuple):
    """The shared circuit at one moment, as an answer of the store or in a message."""

    done: bool
    """Whether what was asked for was done."""
    state: State | None
    """None: nothing is stored, so each process decides for itself."""
    version: int
    remaining: float
    """Seconds until the open time is over."""
    openings: int
    """Openings in a row."""
    good: int
    failed: int
    slow: int
    """What the probes have said so far."""
    leases: tuple[str, ...] = ()
    """The probes that were lent."""
    probed: bool = False
    """Closed because the probes went well: who ramps up begins to."""


class Message(NamedTuple):
    """What a process hears of the others."""

    number: int
    """Counts up by one; a gap is a message that was missed."""
    wanted: bool
    """Not a step: some process has callers and no probe for them."""
    name: str
    seen: Seen


class Store(Protocol):
    """Where the shared circuits are kept. Each method is atomic there, uses the store's clock, and may raise what it likes."""

    def hello(self) -> int:
        """Say that this process lives; the number of the last message."""
        ...

    def goodbye(self) -> None:
        """Say that it goes."""
        ...

    def read(self, names: Sequence[str]) -> list[Seen]:
        """Look at some circuits."""
        ...

    def trip_open(self, name: str, version: int, *, duration: float, openings: int) -> Seen:
        """Open it for ``duration`` seconds, or note that this process would, as long as too few do."""
        ...

    def begin_half_open_if_elapsed(self, name: str, version: int) -> Seen:
        """Half-open it, if its open time is over."""
        ...

    def lease_probe(self, name: str, version: int, *, limit: int, at_once: int, seconds: float, asked: bool) -> Seen:
        """Borrow probes, ``limit`` being all there are, of which ``at_once`` may be lent at once.

        ``asked``: for callers who are there, so others shall give some back.
        """
        ...

    def keep_probes(self, name: str, version: int, leases: Sequence[str], *, seconds: float) -> Seen:
        """Borrow them for longer; ``leases`` of the answer are those that are still lent to us."""
        ...

    def record_probe(self, name: str, version: int, lease: str, verdict: Outcome | None, *, slow: bool) -> Seen:
        """Give a probe back, with what it said."""
        ...

    def close(self, name: str, version: int, *, probed: bool, openings: int) -> Seen:
        """Close it, and take back that this process would open it. ``probed``: the probes went well, after ``openings`` in a row."""
        ...


class Intent(NamedTuple):
    """A step that this process took by itself and that is to be written down, on top of ``version``."""

    opens: bool
    version: int
    until: float
    openings: int
    probed: bool = False
    noted: bool = False
    """Written down, but not enough others agree yet."""


class _Lease(NamedTuple):
    name: str
    until: float
    asked: bool
    since: float


class _Report(NamedTuple):
    version: int
    lease: str
    verdict: Outcome | None
    slow: bool


class Link:
    """One breaker and the shared circuit of its name. Everything happens under the lock of the breaker."""

    __slots__ = (
        "_coming",
        "_fleet",
        "_row",
        "_told",
        "apart",
        "era",
        "in_use",
        "intent",
        "leases",
        "name",
        "policy",
        "reports",
        "version",
        "wanted",
        "wish",
    )

    def __init__(self, fleet: Fleet, name: str, policy: BreakerPolicy) -> None:
        """Not attached yet; see :meth:`attach`."""
        self._fleet = fleet
        self.name = name
        self.policy = policy
        self.version = UNKNOWN
        """The version of the shared circuit that was seen last; 0: nothing is stored."""
        self.era = 0
        """The era of the breaker in which it is what the shared circuit is; in any other it stands by itself."""
        self.apart = False
        """An experiment opened it. The others are not told, for its blast radius may be this process, and do not end it."""
        self.intent: Intent | None = None
        self.leases: deque[_Lease] = deque()
        self.in_use: dict[int, tuple[str, float]] = {}
        """By number of the probe: its lease, and until when what it says counts."""
        self.reports: deque[_Report] = deque()
        self.wanted = False
        """Whether a caller was rejected for want of a probe."""
        self.wish = False
        """Whether to borrow probes before anybody asks for one."""
        self._coming: Seen | None = None
        self._row = 0
        self._told = 0

    # -- on the path of a call: see somaresil.typing.Coordinator ----------------------------------------------------------------------

    def admit(self, model: Breaker, now: float) -> tuple[Permit | None, Transition | None]:
        """Leave to call. What the shared circuit has to say ends by itself when its store has not been heard for too long."""
        state = model.state
        if self.era != model.era or now >= self._fleet.trusted_until or state in _SERVING:
            return model.admit(now)
        if state is State.HALF_OPEN:
            while self.leases:
                lease = self.leases.popleft()
                if now < lease.until:
                    permit, transition = model.admit(now)
                    if permit is not None and permit.probe is not None:
                        self.in_use[permit.probe] = lease.name, now + model.thresholds.probe_timeout
                    else:
                        self.leases.appendleft(lease)
                    return permit, transition
                self.reports.append(_Report(self.version, lease.name, None, slow=False))
        elif now < model.open_until:
            return None, None
        if not self.wanted:
            self.wanted = True
            self._fleet.note(self)
        return None, None

    def settled(self, permit: Permit, now: float, outcome: Outcome | None, *, slow: bool = False) -> None:
        """A call ended; if it was a probe that was lent, its lease goes back."""
        lent = None if permit.probe is None else self.in_use.pop(permit.probe, None)
        if lent is not None:
            lease, deadline = lent
            verdict = outcome if now <= deadline else None
            self.reports.append(_Report(self.version, lease, verdict, slow))
            self._fleet.note(self)

    def moved(self, model: Breaker, transition: Transition, *, injected: bool) -> None:
        """The breaker took a step: its own, which the others are to hear of, or one after the others."""
        if transition.era <= self._told:
            # Told in the wrong order, when somebody has moved it in the middle of telling us.
            return
        self._told = transition.era
        before, after = transition.before, transition.after
        if before is State.RAMPING and transition.trigger is Trigger.RECOVERED:
            # The end of a ramp is no news to anybody.
            return
        self._row = model.openings or self._row
        self.reports.clear()
        if self.era == transition.era - 1 and after not in _ORDINARY:
            # An operator takes this process out; the probes that it holds are for the others.
            self.reports.extend(_Report(self.version, lease.name, None, slow=False) for lease in self.leases)
        self.leases.clear()
        self.in_use.clear()
        self.wanted = self.wish = False
        replaced = False
        if transition.trigger in _FOLLOWED and self._coming is not None:
            self._bind(model, self._coming)
            self.wish = after is State.HALF_OPEN
        else:
            replaced = self.intent is not None and not self.intent.noted
            self.intent = None
            self.apart = injected
            if before not in _ORDINARY or (injected and after is State.OPEN):
                # Back from what an operator had set, or for as long as the experiment lasts: then see what the others have done.
                self.version = UNKNOWN
            elif after is State.OPEN:
                self.intent = Intent(opens=True, version=self.version, until=model.open_until, openings=model.openings)
            elif not injected and after in _SERVING:
                probed = transition.trigger in _PROBED
                self.intent = Intent(opens=False, version=self.version, until=0.0, openings=self._row, probed=probed)
        self._fleet.note(self, replaced=replaced)

    def prolonged(self, model: Breaker) -> None:
        """An opening that was just told, and may be written down already, lasts longer."""
        if model.state is State.OPEN and not self.apart and self._told == model.era:
            self.intent = Intent(opens=True, version=self.version, until=model.open_until, openings=model.openings)
            self._fleet.note(self)

    # -- what the thread of the fleet does: functions for BreakerPolicy.follow ---------------------------------------------------------

    def attach(self, model: Breaker, now: float, u: float) -> None:  # noqa: ARG002
        """Be told of each step from now on."""
        self._told = model.era
        self.apart = self.policy.refused(1.0).injected
        self.policy.coordinator = self

    def detach(self, model: Breaker, now: float, u: float) -> None:  # noqa: ARG002
        """Leave the breaker alone."""
        if self.policy.coordinator is self:
            self.policy.coordinator = None
        self._let_go()

    def lost(self, model: Breaker, now: float, u: float) -> None:  # noqa: ARG002
        """The store cannot be reached: what it said is not true any more, and what it noted may be gone."""
        self._let_go()
        if self.intent is not None:
            self.intent = self.intent._replace(noted=False)

    def see(self, seen: Seen, model: Breaker, now: float, u: float) -> Transition | None:
        """Become what the shared circuit is, unless this process has a step of its own to write on top of it."""
        news = seen.version != self.version
        pending = self.intent is not None and not self.intent.noted
        if model.state not in _ORDINARY:
            self.version = seen.version
            return None
        if self.apart and model.state is State.OPEN and now < model.open_until:
            return None
        if seen.state is None:
            self._nothing(model, now)
            return None
        if not news and pending:
            return None
        if seen.state is State.CLOSED:
            if model.state not in _SERVING and not self.apart:
                ramps = seen.probed and model.thresholds.ramp_up > 0.0
                return self._step(Trigger.FLEET_RECOVERING if ramps else Trigger.FLEET_CLOSED, seen, model, now) if news else None
            self.version = seen.version
            if model.state in _SERVING:
                self._bind(model, seen)
            return None
        bound = self.era == model.era and not news
        if seen.state is State.HALF_OPEN:
            return model.learn(seen.good, seen.failed, seen.slow, now, u) if bound else self._step(Trigger.FLEET_PROBES, seen, model, now)
        if model.state is State.OPEN and not self.apart:
            # Whoever opened it first, theirs says for how long.
            model.open_until, model.openings = now + seen.remaining, seen.openings
            self._bind(model, seen)
            return None
        return self._step(Trigger.FLEET_OPENED, seen, model, now)

    def answered(self, sent: Intent, seen: Seen, model: Breaker, now: float, u: float) -> Transition | None:
        """What came of writing down a step of our own."""
        refused = not seen.done and seen.state is not None and seen.version != sent.version
        if self.intent != sent:
            # It has moved again meanwhile, knowing what we wrote: our own step is no news to us.
            if self.intent is not None and self.intent.version == sent.version and not refused:
                self.intent = self.intent._replace(version=seen.version)
            if not refused:
                self.version = seen.version
            return self.see(seen, model, now, u) if refused else None
        if refused:
            return self.see(seen, model, now, u)
        self.version = seen.version
        if seen.done or not sent.opens:
            self.intent = None
            if seen.state is model.state or (seen.state is State.CLOSED and model.state in _SERVING):
                self._bind(model, seen)
        else:
            self.intent = sent._replace(noted=True, version=seen.version)
        return None

    def overdue(self, sent: Intent, model: Breaker, now: float, u: float) -> None:  # noqa: ARG002
        """It came to nothing in time: the open time was over before it could be written down."""
        if self.intent == sent:
            self.intent = sent._replace(noted=True)

    def begun(self, given: int, seen: Seen, model: Breaker, now: float, u: float) -> Transition | None:
        """We have half-opened it, or somebody else has, or it is too early."""
        intent = self.intent
        if seen.done and intent is not None and intent.version == given:
            # This process has moved meanwhile, and that is to come after what we did ourselves.
            self.version = seen.version
            self.intent = intent._replace(version=seen.version)
            return None
        return self.see(seen, model, now, u)

    def lent(self, seen: Seen, until: float, asked: bool, model: Breaker, now: float, u: float) -> Transition | None:  # noqa: FBT001
        """Probes were borrowed, or there were none; either way the answer says what the others found out."""
        if self.era == model.era and seen.version == self.version and model.state is State.HALF_OPEN:
            self.leases.extend(_Lease(name, until, asked, now) for name in seen.leases)
            self.wish = False
            self.wanted = self.wanted and not seen.leases
        else:
            self.reports.extend(_Report(seen.version, name, None, slow=False) for name in seen.leases)
        return self.see(seen, model, now, u)

    def kept(self, seen: Seen, until: float, model: Breaker, now: float, u: float) -> Transition | None:
        """The probes that are in hand may be used for longer, or are gone."""
        still = set(seen.leases)
        self.leases = deque(lease._replace(until=until) for lease in self.leases if lease.name in still)
        for probe in [probe for probe, (_, deadline) in self.in_use.items() if deadline < now]:
            # It hangs, and has no say any more.
            del self.in_use[probe]
        return self.see(seen, model, now, u)

    def give_back(self, everything: bool, model: Breaker, now: float, u: float) -> None:  # noqa: ARG002, FBT001
        """Give back the probes that no caller has asked for, or not lately."""
        keep = [lease for lease in self.leases if lease.asked and now - lease.since < _KEPT and not everything]
        self.reports.extend(_Report(self.version, lease.name, None, slow=False) for lease in self.leases if lease not in keep)
        self.leases = deque(keep)

    def pop_report(self) -> _Report | None:
        """The next thing to say about a probe."""
        try:
            return self.reports.popleft()
        except IndexError:
            return None

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _bind(self, model: Breaker, seen: Seen) -> None:
        self._row = model.openings or self._row
        self.version, self.era, self.intent, self.apart = seen.version, model.era, None, False

    def _step(self, trigger: Trigger, seen: Seen, model: Breaker, now: float) -> Transition | None:
        if (model.state, trigger) not in TRANSITIONS:
            return None
        self._coming = seen
        return model.follow(trigger, now, open_until=now + seen.remaining, openings=seen.openings)

    def _nothing(self, model: Breaker, now: float) -> None:
        """Nothing is stored, or not any more: what this process knows goes on, and is written down if it is worth it."""
        self._let_go()
        if self.intent is not None:
            self.intent = self.intent._replace(version=0)
        elif model.state is State.OPEN and now < model.open_until and not self.apart:
            self.intent = Intent(opens=True, version=0, until=model.open_until, openings=model.openings)
        self.version = 0
        if self.intent is not None:
            self._fleet.note(self)

    def _let_go(self) -> None:
        self.era = 0
        self.leases.clear()
        self.in_use.clear()
        self.reports.clear()
        self.wanted = self.wish = False
