"""A store as plain as can be, and processes around it that take their turns when a test says so."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from somaresil import CircuitBreaker, CircuitOpen, ManualClock, Resilience
from somaresil.integrations._fleet import Fleet
from somaresil.integrations._link import Message, Seen
from somaresil.model.breaker import State

TRUST = 4.0


class Down(Exception):
    """The store cannot be reached."""


@dataclass
class Circuit:
    state: State
    version: int
    ends: float
    openings: int
    counts: Counter = field(default_factory=Counter)
    leases: dict[str, float] = field(default_factory=dict)
    lent: int = 0
    wanted: float = float("-inf")
    probed: bool = False


class Shelf:
    """What the scripts of Redis do, in Python: circuits, votes, who lives, and what was told."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.down = False
        self.told: list[Message] = []
        self.versions = 0
        self.forget()

    def forget(self) -> None:
        """Begin with nothing, as a server does that keeps nothing."""
        self.circuits: dict[str, Circuit] = {}
        self.votes: dict[str, dict[tuple[str, str], float]] = {}
        self.alive: dict[str, float] = {}
        self.number = 0


class View:
    """The store as one process has it."""

    def __init__(self, shelf: Shelf, process: str, instance: str | None = None, quorum: int = 1) -> None:
        self.shelf = shelf
        self.process = process
        self.instance = instance or process
        self.quorum = quorum
        self.asked = 0

    @property
    def now(self) -> float:
        if self.shelf.down:
            raise Down
        self.asked += 1
        return self.shelf.clock.monotonic()

    def seen(self, name: str, done: bool = False, leases: tuple[str, ...] = ()) -> Seen:
        circuit = self.shelf.circuits.get(name)
        if circuit is None:
            return Seen(done, None, 0, 0.0, 0, 0, 0, 0, leases)
        left = max(0.0, circuit.ends - self.shelf.clock.monotonic()) if circuit.state is State.OPEN else 0.0
        counts = circuit.counts
        said = counts["good"], counts["bad"], counts["slow"]
        return Seen(done, circuit.state, circuit.version, left, circuit.openings, *said, leases, circuit.probed)

    def tell(self, name: str, wanted: bool = False) -> None:
        self.shelf.number += 1
        self.shelf.told.append(Message(self.shelf.number, wanted, name, self.seen(name)))

    def move(self, name: str, state: State, ends: float, openings: int, *, probed: bool = False) -> Seen:
        self.shelf.versions += 1
        self.shelf.circuits[name] = Circuit(state, self.shelf.versions, ends, openings, probed=probed)
        self.tell(name)
        return self.seen(name, done=True)

    def current(self, name: str, version: int, *states: State) -> Circuit | None:
        circuit = self.shelf.circuits.get(name)
        if circuit is None or circuit.version != version or circuit.state not in states:
            return None
        now = self.shelf.clock.monotonic()
        circuit.leases = {lease: end for lease, end in circuit.leases.items() if end >= now}
        return circuit

    def hello(self) -> int:
        self.shelf.alive[self.process] = self.now + TRUST
        return self.shelf.number

    def goodbye(self) -> None:
        self.shelf.alive.pop(self.process, None)

    def read(self, names: Any) -> list[Seen]:
        _ = self.now
        return [self.seen(name) for name in names]

    def trip_open(self, name: str, version: int, *, duration: float, openings: int) -> Seen:
        now, circuit = self.now, self.shelf.circuits.get(name)
        if circuit is not None and circuit.version != version:
            return self.seen(name)
        votes = {vote: end for vote, end in self.shelf.votes.get(name, {}).items() if end >= now}
        votes[self.instance, self.process] = now + duration
        self.shelf.votes[name] = votes
        if (circuit is None or circuit.state is State.CLOSED) and len({instance for instance, _ in votes}) < self.quorum:
            return self.seen(name)
        self.shelf.votes.pop(name)
        return self.move(name, State.OPEN, now + duration, openings)

    def begin_half_open_if_elapsed(self, name: str, version: int) -> Seen:
        now, circuit = self.now, self.current(name, version, State.OPEN)
        if circuit is None or now < circuit.ends:
            return self.seen(name)
        return self.move(name, State.HALF_OPEN, now, circuit.openings)

    def lease_probe(self, name: str, version: int, *, limit: int, at_once: int, seconds: float, asked: bool) -> Seen:
        now, circuit = self.now, self.current(name, version, State.HALF_OPEN)
        if circuit is None:
            return self.seen(name)
        said = circuit.counts["good"] + circuit.counts["bad"]
        living = max(1, sum(end >= now for end in self.shelf.alive.values()))
        free = min(limit - len(circuit.leases) - said, at_once - len(circuit.leases))
        number = min(free, max(1, -(-limit // living)))
        leases = tuple(f"{self.process}#{circuit.lent + n}" for n in range(1, number + 1))
        circuit.lent += len(leases)
        circuit.leases.update(dict.fromkeys(leases, now + seconds))
        if not leases and asked and said < limit and now - circuit.wanted > 0.2:
            circuit.wanted = now
            self.tell(name, wanted=True)
        return self.seen(name, bool(leases), leases)

    def keep_probes(self, name: str, version: int, leases: Any, *, seconds: float) -> Seen:
        now, circuit = self.now, self.current(name, version, State.HALF_OPEN)
        if circuit is None:
            return self.seen(name)
        kept = tuple(lease for lease in leases if lease in circuit.leases)
        circuit.leases.update(dict.fromkeys(kept, now + seconds))
        return self.seen(name, True, kept)

    def record_probe(self, name: str, version: int, lease: str, verdict: Any, *, slow: bool) -> Seen:
        _, circuit = self.now, self.current(name, version, State.HALF_OPEN)
        if circuit is None or circuit.leases.pop(lease, None) is None:
            return self.seen(name)
        if verdict is not None:
            circuit.counts[verdict.value] += 1
            circuit.counts["slow"] += slow
        self.tell(name)
        return self.seen(name, True)

    def close(self, name: str, version: int, *, probed: bool, openings: int) -> Seen:
        now, circuit = self.now, self.shelf.circuits.get(name)
        self.shelf.votes.get(name, {}).pop((self.instance, self.process), None)
        if circuit is None or circuit.version != version or circuit.state is State.CLOSED:
            return self.seen(name)
        self.shelf.votes.pop(name, None)
        return self.move(name, State.CLOSED, now, openings if probed else 0, probed=probed)


def breaker(**changes: Any) -> CircuitBreaker:
    """Opens at the first failure, for 10 seconds sharp, and takes three probes' word, of which two must fail to open it again."""
    usual: dict[str, Any] = {
        "failure_rate": 0.5,
        "consecutive_failures": 1,
        "open_duration": 10.0,
        "open_factor": 1.0,
        "open_jitter": 0.0,
        "half_open_calls": 3,
        "probe_timeout": 5.0,
    }
    return CircuitBreaker(**(usual | changes))


class Member:
    """One process: its own guard, clock and view of the store."""

    def __init__(
        self, shelf: Shelf, number: int, *, instance: str | None = None, quorum: int = 1, clock: ManualClock | None = None, **options: Any
    ) -> None:
        self.shelf = shelf
        self.clock = clock or shelf.clock
        self.resilience = Resilience("fleet", instance=instance or f"i{number}", clock=self.clock, seed=number)
        self.guard = self.resilience.guard("dep", breaker=options.pop("breaker", None) or breaker(**options))
        self.events: list[Any] = []
        self.resilience.on(self.events.append)
        self.store = View(shelf, f"p{number}", instance, quorum)
        self.rung = 0
        self.fleet = Fleet(self.resilience, ("*",), trust=TRUST, wake=self.ring)
        self.heard = 0
        self.up = False

    def ring(self) -> None:
        self.rung += 1

    @property
    def policy(self) -> Any:
        return self.guard.breaker

    @property
    def state(self) -> State:
        return self.policy.state

    @property
    def link(self) -> Any:
        return self.fleet.links["dep"]

    @property
    def bound(self) -> bool:
        return self.link.era == self.policy.era

    def connect(self) -> None:
        """Be in touch with the store, from now on."""
        self.heard = len(self.shelf.told)
        self.fleet.restore(self.store)
        self.up = True

    def lose(self) -> None:
        """Be out of touch."""
        self.up = False
        self.fleet.lost()

    def turn(self, *, deaf: bool = False) -> None:
        """What the thread does when it wakes; ``deaf``: the messages are lost on their way."""
        messages = () if deaf else self.shelf.told[self.heard :]
        self.heard = len(self.shelf.told)
        self.fleet.turn(self.store, messages)

    def poll(self) -> None:
        self.turn()
        self.fleet.poll(self.store)

    # -- callers

    def fail(self) -> str:
        return self.call(ValueError)

    def call(self, error: type[BaseException] | None = None) -> str:
        """One call: ``good``, ``bad``, ``abandoned`` or ``rejected``."""

        def work() -> None:
            if error is not None:
                raise error

        try:
            self.guard.call(work)
        except CircuitOpen:
            return "rejected"
        except ValueError:
            return "bad"
        except KeyboardInterrupt:
            return "abandoned"
        return "good"

    def begin(self) -> Any:
        """A call that goes on; None when it was rejected. End it by ``.__exit__(None, None, None)``."""
        try:
            return _Going(self.guard)
        except CircuitOpen:
            return None


class _Going:
    def __init__(self, guard: Any) -> None:
        self._permit = guard.breaker.admit()
        self._guard = guard

    @property
    def probe(self) -> bool:
        return self._permit.probe is not None

    def end(self, outcome: Any, elapsed: float = 0.0) -> None:
        self._guard.breaker.settle(self._permit, outcome, elapsed, self._guard.clock.monotonic())


def settle(*members: Member) -> None:
    """Let everybody take turns until nothing is told any more."""
    for _ in range(50):
        before = len(members[0].shelf.told), [member.store.asked for member in members]
        for member in members:
            if member.up:
                member.turn()
        if (len(members[0].shelf.told), [member.store.asked for member in members]) == before:
            return
    raise AssertionError("they never come to rest")
