"""An armed experiment: a lease that ends by itself, and the rule that decides call by call.

Nothing has to be undone when it ends. Whether it still runs is asked at every call, of a flag and a monotonic deadline, so it ends in
time with the event loop blocked, after Ctrl-C, and without ``atexit`` (which runs only after the executor threads were joined: measured
3.1 s late).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from somaresil import callpath
from somaresil.chaos.config import ChaosConfig, ChaosExperiment
from somaresil.chaos.split import Side
from somaresil.chaos.strikes import Decision, Hit, hit_of
from somaresil.chaos.triggers import Numbers, Prerequisite, Where, rate_at, wants
from somaresil.events import ExperimentEnded, ExperimentStarted, FaultInjected, FaultWithheld
from somaresil.model.breaker import IllegalTransition, State

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from somaresil.chance import Chance
    from somaresil.chaos.active import ActiveFaults
    from somaresil.chaos.effect import Effect
    from somaresil.chaos.split import Split
    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.runtime import Runtime, Waiter
    from somaresil.typing import Clock

__all__ = ["Decision", "ExperimentRun", "Hit", "Numbers", "Rule", "Tracker", "TripRule", "trip"]

USED_UP: Final = "used up"


class ExperimentRun:
    """One experiment on its way. Returned by :meth:`ChaosEngine.start`."""

    def __init__(
        self,
        identity: str,
        config: ChaosConfig,
        *,
        selected: bool,
        clock: Clock,
        chance: Chance,
        listeners: Listeners,
        now: float | None = None,
        starts_in: float = 0.0,
        draws: str | None = None,
        seen: Callable[[str], object] | None = None,
        look: Callable[[], None] | None = None,
        active: ActiveFaults | None = None,
    ) -> None:
        """Begin the lease ``starts_in`` seconds after ``now`` on the monotonic clock (None: its reading).

        ``selected``: whether this process lies inside the blast radius.

        ``draws`` names the rule by which it draws; None: by its id. The windows of a plan draw by their place in the plan, so that a plan
        decides alike whatever was started before it. ``seen`` is told the path of every call that comes by, and nothing is struck then.
        ``look`` is called by whoever asks whether it runs: it may end it. ``active`` has the places for calls that are held up.
        """
        self.id = identity
        self.config = config
        self.selected = selected
        """Whether this process takes part."""
        self.started_at = clock.time() + starts_in
        self._clock = clock
        self._listeners = listeners
        self._chance = chance
        self._draws = f"chaos.{identity}" if draws is None else draws
        self._begin = (clock.monotonic() if now is None else now) + starts_in
        self._deadline = self._begin + float(config.duration_seconds)  # type: ignore[arg-type]
        self.begun = False
        """Whether its time has come, as far as anybody has looked."""
        self._requests = Numbers("")
        self._seen = seen
        self.split: Split | None = None
        """Strikes the experiment group of this split alone; None: whatever comes by."""
        self._lock = threading.RLock()
        self._last_strike: float | None = None
        """When it was used up: from then on it strikes nothing."""
        self._ended: str | None = None if selected else "outside the blast radius"
        self._halted = not selected
        """Calls that are being delayed go on. Not so when the last strike was made: that call still gets its delay."""
        self._waiters: set[Waiter] = set()
        self._release: list[Callable[[], None]] = []
        self._armed: set[str] = set()
        self.injected = 0
        """How many calls were struck so far."""
        self._struck: dict[str, int] = {}
        self._measured: Callable[[], Effect] | None = None
        self.unreset = 0
        """Connections that were to be reset and were only closed: the transport of the server could not be reached."""
        self.kept: dict[Hashable, Any] = {}
        """Answers to give again (``stale_result``), until it ends."""
        self._where = None if config.where is None else Where(config.where, on_http=config.on_http)  # type: ignore[arg-type]
        self.prerequisite = None if config.after is None else Prerequisite(config.after)
        """What must have been seen before it strikes; None: nothing."""
        self._counts = config.calls is not None or config.every is not None or config.first is not None
        self._ramps = bool(config.ramp_seconds)
        self._look, self._places = look, active
        self._reserved = self._onlookers = 0
        """Calls that are struck with a delay that has not begun yet."""
        self.would_have_injected = 0
        """How many calls a dry run would have struck so far."""
        self._withheld, self._overflowed = dict[str, int](), dict[str, int]()
        self.end_detail = ""
        """Why it was ended, where its reason has more to say: what a stop condition has found."""
        self.ended_by: str | None = None
        """Who has ended it, if somebody has."""

    def __repr__(self) -> str:
        """What it does to whom, and how it stands."""
        state = self._ended or (f"{self.remaining:.3g} s left" if self.live else "not begun")
        return f"<ExperimentRun {self.id} on {self.config.target_component!r}: {self.injected} struck, {state}>"

    # -- lease ------------------------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether it runs. Ends the lease when its time is over."""
        if self._ended is None and self._look is not None:
            self._look()
        if self._ended is not None:
            return False
        now = self._clock.monotonic()
        if now < self._begin:
            return False
        if not self.begun:
            self._tell_begin()
        if now >= self._deadline:
            self.end("expired")
            return False
        return True

    @property
    def over(self) -> bool:
        """Whether it has ended; False before it begins."""
        return not self.live and self._ended is not None

    @property
    def tracks(self) -> bool:
        """Whether it strikes nothing and only tells what comes by."""
        return self._seen is not None

    @property
    def span(self) -> tuple[float, float]:
        """Monotonic times at which its lease begins and ends; when it was ended before its time, that."""
        return self._begin, self._deadline if self._last_strike is None else self._last_strike

    @property
    def remaining(self) -> float:
        """Seconds until it ends by itself; all of its time before it begins."""
        return max(0.0, self._deadline - max(self._begin, self._clock.monotonic())) if self._ended is None else 0.0

    @property
    def end_reason(self) -> str | None:
        """None while it runs; then one of these.

        ``expired``, ``stopped``, ``stop_all``, ``used up`` (its last injection was made), ``failed``, ``safety lever``, or ``condition``
        and the name of the condition that has stopped it, with :attr:`end_detail`.
        """
        return self._ended

    @property
    def struck(self) -> dict[str, int]:
        """How many calls were struck so far, by guard; requests are counted under the target of the experiment."""
        with self._lock:
            return dict(self._struck)

    @property
    def withheld(self) -> dict[str, int]:
        """How many calls a dry run would have struck so far, as in :attr:`struck`."""
        with self._lock:
            return dict(self._withheld)

    @property
    def overflowed(self) -> dict[str, int]:
        """How many calls passed unharmed because too many were held up already, as in :attr:`struck`."""
        with self._lock:
            return dict(self._overflowed)

    @property
    def delaying(self) -> int:
        """How many calls it is holding up at the moment."""
        return len(self._waiters)

    @property
    def active(self) -> int:
        """How many calls it is holding up, or about to."""
        return 0 if self._halted else max(0, self._reserved + len(self._waiters) - self._onlookers)

    def reserve(self) -> None:
        """Take a place for a call, until :meth:`hold` begins. For :class:`~somaresil.chaos.active.ActiveFaults`."""
        with self._lock:
            self._reserved += 1

    def end(self, reason: str = "stopped", detail: str = "", *, by: str | None = None) -> None:
        """End it now, from any thread: delayed calls go on, no further call is struck. ``detail``: more of why; ``by``: who does it."""
        with self._lock:
            first = self._ended is None
            if first:
                self.end_detail, self.ended_by = detail, by
            self._end(reason)
            self._halted = True
            self.kept.clear()
            waiters, self._waiters = self._waiters, set()
        self._run_all(waiter.wake for waiter in waiters)
        if first:
            self._let_go(reason)

    def on_end(self, undo: Callable[[], None]) -> None:
        """Have ``undo()`` called when it ends; at once when it has."""
        with self._lock:
            if self._ended is None:
                self._release.append(undo)
                return
        undo()

    # -- faults of the process ----------------------------------------------------------------------------------------------------------

    @property
    def effect(self) -> Effect | None:
        """What a fault of the process has done so far, measured; None for others, and before it begins."""
        return None if self._measured is None else self._measured()

    def measure_by(self, effect: Callable[[], Effect]) -> None:
        """Say what it has done by this, also when it is over."""
        self._measured = effect

    def tell(self, kind: type[Any], *facts: Any) -> None:
        """Tell listeners of an event about its target: ``kind(component, at, experiment, *facts)``."""
        if self._listeners.wants(kind):
            self._listeners.emit(kind(self.config.target_component, self._clock.time(), self.id, *facts))

    def defect(self, where: str, error: BaseException) -> None:
        """Report what was raised where nobody hears of it."""
        self._listeners.defect(f"chaos on {where}", error, self._clock.time(), "the experiment goes on without it")

    def forget_locks(self) -> None:
        """This process is a fork: somebody who stayed behind may have held them."""
        self._lock = threading.RLock()

    # -- rule -------------------------------------------------------------------------------------------------------------------------

    def rule(self, component: str) -> Rule:
        """The experiment as one component sees it, with draws of its own."""
        return Rule(self, component) if self._seen is None else Tracker(self, component, self._seen)

    def first_arming(self, component: str) -> bool:
        """True once for each component: two threads may want to arm the same one."""
        with self._lock:
            if component in self._armed:
                return False
            self._armed.add(component)
            return True

    def strike(self, component: str | None = None, decision: Decision | None = None) -> Hit | None:
        """What a struck call of ``component`` gets; counts and reports it. None: it is over.

        What is done to an answer counts when it is done (:meth:`claim`), for there may be no answer.
        """
        component = component or self.config.target_component
        hit = self._hit(component, decision or Decision(component, 0))
        if hit.body is not None and self.config.dry_run:
            # Nobody looks at the response for it, so it counts now.
            self.claim(component)
            return None
        if hit.body is not None or hit.after is not None:
            return hit
        return hit if self.claim(component, delays=hit.delay > 0.0) else None

    def strike_request(self, scope: Any = None) -> Hit | None:
        """Decide about a request; all of them share one sequence. ``scope`` is that of ASGI."""
        decision = None if self._seen is not None else self.decide(self._requests, scope)
        return None if decision is None else self.strike(decision=decision)

    def decide(self, numbers: Numbers, about: Any = None) -> Decision | None:
        """Decide about the next call that ``numbers`` counts; None: it is left alone. ``about`` is the call, or the scope of a request."""
        config = self.config
        if self.split is not None and self.split.side is not Side.EXPERIMENT:
            return None
        if self._where is not None and not self._where.fits(about):
            return None
        if self.prerequisite is not None and not self.prerequisite.seen:
            return None
        key = numbers.component
        if config.path is not None:
            path = callpath.current_path()
            if path != config.path:
                return None
            number = numbers.next(f">{path}")
        else:
            number = numbers.next(scope := callpath.current_scope())
            if scope and config.calls is None:
                key = f"{scope}|{key}"
        if self._counts and not wants(config, number):
            return None
        rate = rate_at(config, self._clock.monotonic() - self._begin) if self._ramps else config.failure_rate
        return Decision(key, number) if self._chance.hit(rate, self._draws, key, number) else None

    def draw(self, what: str, decision: Decision, item: int | None = None) -> float:
        """Another draw in [0, 1) for a call that was decided about: alike in every run, too. ``item`` counts what it is drawn for."""
        rule = f"{self._draws}.{what}"
        if item is None:
            return self._chance.draw(rule, decision.key, decision.number)
        return self._chance.draw(rule, f"{decision.key}#{decision.number}", item)

    def delay(self, decision: Decision, item: int | None = None) -> float:
        """Seconds of a delay of a call that was decided about."""
        return self.config.delay(self.draw("delay", decision, item))

    def goes_on(self, *, struck: bool) -> bool:
        """Whether anything more may be done to a stream; one that was struck last of all is finished as it was begun."""
        return self.live if not struck else not self._halted and self._clock.monotonic() < self._deadline

    def claim(self, component: str | None = None, *, delays: bool = False) -> bool:
        """Count and report one strike. False when there is none: it is over, its last injection was made, it is a dry run.

        ``delays``: the call is to be held up next, by :meth:`hold`. When too many are already it is counted as such, and not struck.
        """
        config = self.config
        component = component or config.target_component
        dry = config.dry_run
        if not self.live:
            return False
        reserved = delays and not dry and self._places is not None
        if reserved and self._places is not None and not self._places.enter(self):
            with self._lock:
                self._overflowed[component] = self._overflowed.get(component, 0) + 1
            return False
        with self._lock:
            if self._ended is not None:
                self._reserved -= reserved
                return False
            counts = self._withheld if dry else self._struck
            counts[component] = counts.get(component, 0) + 1
            self.would_have_injected += dry
            self.injected += not dry
            last = config.max_injections in {self.injected, self.would_have_injected}
            if last:
                # Nobody else may slip in before it has ended.
                self._end(USED_UP)
        kind = FaultWithheld if dry else FaultInjected
        if self._listeners.wants(kind):
            self._listeners.emit(kind(component, self._clock.time(), config.experiment.value, self.id))
        if last:
            self._let_go(USED_UP)
        return not dry

    async def hold(self, runtime: Runtime, seconds: float, *, counts: bool = True) -> bool:
        """Delay a call by ``seconds``, at most until the experiment ends; False when it ended first, and no fault may follow.

        ``counts``: whether it is one of the calls that are held up; whoever only waits for the end is not.
        """
        waiter = runtime.waiter()
        with self._lock:
            # The place that was reserved is the one that it takes now.
            self._reserved = max(0, self._reserved - counts)
            if self._halted:
                return False
            self._waiters.add(waiter)
            self._onlookers += not counts
        try:
            left = max(0.0, self._deadline - self._clock.monotonic())
            woken = await waiter.wait(min(seconds, left))
            return not woken and seconds <= left
        finally:
            with self._lock:
                self._waiters.discard(waiter)
                self._onlookers -= not counts

    def _hit(self, component: str, decision: Decision) -> Hit:
        return hit_of(self, component, decision)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        if self._ended is None:
            self._ended = reason
            # Calls that it delays after its last strike wait until their own time is over, not until this.
            if reason == USED_UP:
                self._last_strike = self._clock.monotonic()
            elif reason != "expired":
                self._deadline = min(self._deadline, max(self._begin, self._clock.monotonic()))

    def _tell_begin(self) -> None:
        with self._lock:
            begun, self.begun = self.begun, True
        config = self.config
        if not begun and self._seen is None and self._listeners.wants(ExperimentStarted):
            rate = 1.0 if config.experiment is ChaosExperiment.CIRCUIT_TRIP else config.failure_rate
            duration = float(config.duration_seconds)  # type: ignore[arg-type]
            self._listeners.emit(
                ExperimentStarted(
                    config.target_component, self.started_at, config.experiment.value, self.id, rate, duration, config.dry_run
                )
            )

    def _let_go(self, reason: str) -> None:
        with self._lock:
            release, self._release = self._release, []
        self._run_all(release)
        if self._seen is None and self._listeners.wants(ExperimentEnded):
            config = self.config
            kind, ended_at = config.experiment.value, self._clock.time()
            self._listeners.emit(
                ExperimentEnded(config.target_component, ended_at, kind, self.id, reason, self.injected, self.would_have_injected)
            )

    def _run_all(self, steps: Iterable[Callable[[], None]]) -> None:
        for step in steps:
            try:
                step()
            except Exception as defect:  # noqa: BLE001 - ending must reach everybody
                self._listeners.defect(f"end of chaos experiment {self.id}", defect, self._clock.time())


class Rule:
    """What is armed at a guard (:class:`somaresil.typing.FaultRule`).

    Each component has draws of its own, so how the calls of different guards interleave decides nothing: with the same seed the n-th
    call of a component is decided alike in every run, and with a :func:`~somaresil.callpath.scope` the n-th call of that scope.
    """

    __slots__ = ("_component", "_numbers", "run")

    def __init__(self, run: ExperimentRun, component: str) -> None:
        """Decide for ``run`` about the calls of ``component``."""
        self.run = run
        self._component = component
        self._numbers = Numbers(component)

    @property
    def live(self) -> bool:
        """Whether the lease runs."""
        return self.run.live

    @property
    def over(self) -> bool:
        """Whether the lease has ended."""
        return self.run.over

    def decide(self, call: Any = None, /) -> Any:
        """Whether to strike this call: how it was decided, or None."""
        if call is not None and call.block and self.run.config.experiment is ChaosExperiment.FAKE_RESULT:
            # The body of a block runs in any case.
            return None
        return self.run.decide(self._numbers, call)

    def strike(self, decided: Any = None, /) -> Hit | None:
        """What to do to it; None: leave it alone, the experiment is over."""
        return self.run.strike(self._component, decided)

    async def hold(self, runtime: Runtime, seconds: float) -> bool:
        """Delay a call; ends early, with False, when the experiment ends."""
        return await self.run.hold(runtime, seconds)


class Tracker(Rule):
    """Strikes nothing: keeps a guard on the path of calls while somebody looks for paths that go through it."""

    __slots__ = ("_tell",)

    def __init__(self, run: ExperimentRun, component: str, seen: Callable[[str], object] | None = None) -> None:
        """Tell ``seen`` the path of every call, if it is given."""
        super().__init__(run, component)
        self._tell = seen

    def decide(self, call: Any = None, /) -> Any:  # noqa: ARG002 - every call is on some path
        """Leave the call alone."""
        if self._tell is not None:
            self._tell(callpath.current_path())
        return None


class TripRule(Rule):
    """Opens the breaker of a guard when the time of a planned trip has come and a call comes by, which is refused then.

    No thread and no timer: whether a circuit is open shows in its calls alone.
    """

    __slots__ = ("_done", "_guard")

    def __init__(self, run: ExperimentRun, guard: Guard) -> None:
        """Trip the breaker of this guard, once."""
        super().__init__(run, guard.name)
        self._guard = guard
        self._done = False

    def decide(self, call: Any = None, /) -> Any:  # noqa: ARG002 - every call is the one
        """The first call is the one; while the circuit is to be left alone, the first after that."""
        return not self._done

    def strike(self, decided: Any = None, /) -> Hit | None:  # noqa: ARG002 - as above
        """Refuse the call that finds the circuit tripped."""
        breaker = self._guard.breaker
        if breaker is None or not trip(self.run, self._guard):
            # A dry run has counted it, once.
            self._done = self._guard.name in self.run.withheld
            return None
        self._done = True
        return Hit(error=breaker.refused(breaker.retry_after() or 0.0))


def trip(run: ExperimentRun, guard: Guard) -> bool:
    """Open the breaker of a guard until the experiment ends; False when it is to be left alone.

    One that is open or half-open has an outage of its own, and its rejections must not pass for injected ones. One in shadow mode refuses
    nothing.
    """
    breaker = guard.breaker
    if breaker is None or breaker.state is not State.CLOSED or breaker.options.shadow or not run.live:
        return False
    if run.config.dry_run:
        run.claim(guard.name)
        return False
    try:
        era = breaker.trip(run.remaining, injected=True)
    except IllegalTransition:
        # An operator was quicker; an experiment does not overrule people.
        return False
    run.on_end(lambda: breaker.release(era))
    run.claim(guard.name)
    return True
