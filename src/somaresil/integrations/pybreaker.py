"""pybreaker: take over the circuit breakers that a service has already.

    db_breaker = pybreaker.CircuitBreaker(fail_max=5, reset_timeout=60, exclude=[LookupError])
    db = adopt(db_breaker, resilience, "db")

    @db
    async def query(...): ...

Calls go through a guard of somaresil: nothing is held while they run, ``async def`` and streams are guarded, a cancellation is nobody's
fault, few probes are let through at once, and all the rest of a guard can be added. What the service has built around the old object goes
on working: it shows the state of the circuit, ``breaker.open()`` and its like move the circuit, listeners are called, ``exclude`` counts,
and a rejection is a ``pybreaker.CircuitBreakerError``.

What is different, on purpose: the call that trips the circuit raises its own error, not ``CircuitBreakerError``, which would also replace
cancellations; an excluded error is no verdict at all, where pybreaker takes it as a success that closes a half-open circuit; an excluded
class with a metaclass excludes that class and not everything; a listener that raises is reported once and changes nothing.

``breaker.call`` and ``@breaker`` still hold pybreaker's lock for as long as the called function runs, and a transition has to take that
lock: use the guard in their place everywhere. Without listeners and exclusions a call takes the quiet path; those that are added after the
adoption are noticed at the next failure. The counters in pybreaker's storage are not kept.
"""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import pybreaker

from somaresil.config import Checker
from somaresil.errors import CircuitOpen
from somaresil.model.breaker import IllegalTransition, State, Trigger
from somaresil.outcome import Outcome
from somaresil.policy.breaker import BreakerPolicy, CircuitBreaker

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.guard import Guard
    from somaresil.model.breaker import Permit, Transition
    from somaresil.outcome import Classifier, Fatal
    from somaresil.resilience import Resilience
    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["AdoptedBreaker", "AdoptedCircuitOpen", "adopt", "options_of"]


class AdoptedCircuitOpen(CircuitOpen, pybreaker.CircuitBreakerError):
    """The breaker is open: caught by ``except CircuitOpen`` and by ``except pybreaker.CircuitBreakerError``."""


def adopt(
    breaker: pybreaker.CircuitBreaker,
    resilience: Resilience,
    name: str | None = None,
    *,
    thresholds: CircuitBreaker | None = None,
    **options: Any,
) -> Guard:
    """A guard called ``name`` (the name of the breaker when None) in the place of ``breaker``, with its thresholds.

    ``fail_max`` becomes ``consecutive_failures``, ``reset_timeout`` the open duration, ``success_threshold`` the number of probes; give
    ``thresholds=CircuitBreaker(...)`` to judge otherwise. The other ``options`` are those of :meth:`Resilience.guard`. Thresholds are read
    now: what is set on the old object later is not looked at. Adopting the same breaker again gives the same guard.

    An open breaker is adopted open, for a whole ``reset_timeout``, because it does not say since when.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("adopt")
    if not isinstance(breaker, pybreaker.CircuitBreaker):
        check.problem("breaker", breaker, "a pybreaker.CircuitBreaker")
    elif name is None and not breaker.name:
        check.problem("name", name, "a name", "the breaker has none either: adopt(breaker, resilience, 'db')")
    if thresholds is not None and not isinstance(thresholds, CircuitBreaker):
        check.problem("thresholds", thresholds, "a CircuitBreaker, or None to use those of the old breaker")
    check.finish()
    thresholds = options_of(breaker) if thresholds is None else thresholds
    name = name or str(breaker.name)
    known = resilience.guards.get(name)
    if known is not None and isinstance(known.options.breaker, AdoptedBreaker) and known.options.breaker.adopted is breaker:
        return resilience.guard(name, **options)
    adopted = AdoptedBreaker(**{field.name: getattr(thresholds, field.name) for field in fields(CircuitBreaker)}, adopted=breaker)
    classify = options.pop("classify", None)
    if breaker.excluded_exceptions:
        classify = Excluded(breaker, classify)
    return resilience.guard(name, breaker=adopted, classify=classify, **options)


def options_of(breaker: pybreaker.CircuitBreaker) -> CircuitBreaker:
    """The thresholds of a pybreaker breaker in our words: failures in a row, an open time that neither grows nor varies.

    Raises :class:`~somaresil.errors.ConfigurationError` for what cannot be: a ``fail_max`` below 1, for instance.
    """
    return CircuitBreaker(
        failure_rate=None,
        consecutive_failures=breaker.fail_max,
        # Zero means "probe with the next call" there.
        open_duration=breaker.reset_timeout or _AT_ONCE,
        open_factor=1.0,
        open_jitter=0.0,
        half_open_calls=getattr(breaker, "success_threshold", 1),
        max_retry_after=None,
    )


_AT_ONCE = 0.001


@dataclass(frozen=True, slots=True)
class Excluded:
    """The classifier of an adopted breaker: its ``exclude``, as it stands at the time of each call, after the user's own classifier."""

    breaker: pybreaker.CircuitBreaker
    own: Classifier | None = None

    def __call__(self, result: object, error: BaseException | None) -> Outcome | Fatal | None:
        """IGNORED for an excluded error; otherwise no opinion."""
        said = None if self.own is None else self.own(result, error)
        if said is not None or error is None:
            return said
        return Outcome.IGNORED if _is_excluded(self.breaker, error) else None


def _is_excluded(breaker: pybreaker.CircuitBreaker, error: BaseException) -> bool:
    return any(_excludes(rule, error) for rule in breaker.excluded_exceptions)


def _excludes(rule: Any, error: BaseException) -> bool:
    # pybreaker asks `type(rule) is type`, which no class with a metaclass of its own passes; it is then called, and its instance is true.
    return isinstance(error, rule) if isinstance(rule, type) else bool(rule(error))


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedBreaker(CircuitBreaker):
    """The options of a breaker that moves a pybreaker breaker along. See :func:`adopt`."""

    per_key = False
    adopted: pybreaker.CircuitBreaker

    def build(self, site: Site) -> BreakerPolicy:
        """The breaker at work."""
        return _Adopted(self, site)


_MOVES: dict[str, Callable[[pybreaker.CircuitBreaker], object]] = {
    pybreaker.STATE_OPEN: pybreaker.CircuitBreaker.open,
    pybreaker.STATE_HALF_OPEN: pybreaker.CircuitBreaker.half_open,
    pybreaker.STATE_CLOSED: pybreaker.CircuitBreaker.close,
}

_THEIR_STATE = {
    State.CLOSED: pybreaker.STATE_CLOSED,
    State.OPEN: pybreaker.STATE_OPEN,
    State.HALF_OPEN: pybreaker.STATE_HALF_OPEN,
    State.RAMPING: pybreaker.STATE_CLOSED,
    State.FORCED_OPEN: pybreaker.STATE_OPEN,
    State.DISABLED: pybreaker.STATE_CLOSED,
    State.METRICS_ONLY: pybreaker.STATE_CLOSED,
}

_LISTENERS = "pybreaker listeners"

_AGAIN = 8
"""How often two who move the circuit at once are brought into line before the next transition has to do it."""


class _Adopted(BreakerPolicy):
    """Our breaker, and theirs as its shadow.

    Locks: theirs may be held by whoever calls ``breaker.open()``, and our policy lock is taken under it. So theirs is never taken under
    ours, and the lock that puts mirrorings in a row is not taken while theirs is held.
    """

    rejection = AdoptedCircuitOpen

    def __init__(self, options: AdoptedBreaker, site: Site) -> None:
        """Begin in the state of theirs."""
        super().__init__(options, site)
        self._theirs = options.adopted
        self._mirroring = threading.RLock()
        self._here = threading.local()
        self._watcher = _Watcher(self._they_moved)
        self._theirs.add_listener(self._watcher)
        self._isolate()
        if self._theirs.current_state != pybreaker.STATE_CLOSED:
            self._they_moved(self._theirs.current_state)

    # -- a call -------------------------------------------------------------------------------------------------------------------------

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Let the call through, and tell their listeners that it begins."""
        return await super().__call__(functools.partial(self._announced, inner), call)

    async def _announced(self, inner: Next, call: Call) -> Any:
        self._tell_listeners("before_call", call.function, *call.args, **call.kwargs)
        return await inner(call)

    def settle(
        self,
        permit: Permit,
        outcome: Outcome,
        elapsed: float,
        now: float,
        error: BaseException | None = None,
        *,
        answer: object = None,
        fatal: Fatal | None = None,
        injected: bool = False,
    ) -> None:
        """Judge the call, and tell their listeners when it is judged. An excluded error is a success to them, as it always was."""
        if outcome is Outcome.BAD:
            self._isolate()
            if error is not None and self._excluded(error):
                outcome = Outcome.IGNORED
        super().settle(permit, outcome, elapsed, now, error, answer=answer, fatal=fatal, injected=injected)
        if outcome is Outcome.GOOD or outcome is Outcome.IGNORED:
            self._tell_listeners("success")
        elif outcome is Outcome.BAD:
            self._tell_listeners("failure", error)

    def retire(self) -> None:
        """Let go of theirs too: it is a breaker of its own again."""
        # That of the guard, which the breaker lets go of.
        switch = self._switch
        self._here.following = True
        try:
            super().retire()
        finally:
            self._here.following = False
        switch.hold(_LISTENERS, held=False)
        for listener in self._theirs.listeners:
            if isinstance(listener, _Isolated):
                self._theirs.remove_listener(listener)
                self._theirs.add_listener(listener.listener)
        if self._watcher in self._theirs.listeners:
            self._theirs.remove_listener(self._watcher)

    def _excluded(self, error: BaseException) -> bool:
        try:
            return _is_excluded(self._theirs, error)
        except Exception as broken:  # noqa: BLE001 - a predicate never changes an outcome
            self._listeners.defect(f"exclude of pybreaker breaker {self.name}", broken, self._clock.time(), "the error counted")
            return False

    def _isolate(self) -> None:
        """Wrap the listeners that are not wrapped yet: somebody may have added one. As long as there are any, no call is quiet."""
        if not all(isinstance(listener, _Watcher | _Isolated) for listener in self._theirs.listeners):
            with self._mirroring:
                for listener in self._theirs.listeners:
                    if not isinstance(listener, _Watcher | _Isolated):
                        self._theirs.remove_listener(listener)
                        self._theirs.add_listener(_Isolated(listener, self))
        if any(isinstance(listener, _Isolated) for listener in self._theirs.listeners):
            self._switch.hold(_LISTENERS)

    def late(self) -> list[Callable[[], None]] | None:
        """Where to put calls that shall see the new state, while we move theirs in this thread: inside ``state_change`` it is the old."""
        waiting: list[Callable[[], None]] | None = getattr(self._here, "late", None)
        return waiting

    def _tell_listeners(self, what: str, *args: Any, **kwargs: Any) -> None:
        for listener in self._theirs.listeners:
            if isinstance(listener, _Watcher):
                continue
            try:
                getattr(listener, what)(self._theirs, *args, **kwargs)
            except Exception as broken:  # noqa: BLE001 - a listener never changes an outcome
                self.report(listener, broken)

    def report(self, listener: object, broken: Exception) -> None:
        """Say once that a listener of theirs raised."""
        inner = listener.listener if isinstance(listener, _Isolated) else listener
        what = f"pybreaker listener {type(inner).__qualname__} of {self.name}"
        self._listeners.defect(what, broken, self._clock.time(), "it changed nothing")

    # -- transitions --------------------------------------------------------------------------------------------------------------------

    def _tell(self, transition: Transition, now: float) -> None:
        if not getattr(self._here, "following", False) and not self.options.shadow:
            try:
                self._lead()
            except Exception as broken:  # noqa: BLE001 - their storage may be a server that is down
                self._listeners.defect(f"mirroring {self.name} to pybreaker", broken, self._clock.time(), "our state stands")
        super()._tell(transition, now)

    def _lead(self) -> None:
        """Move theirs to where we are *now*: two transitions may come by here in the wrong order."""
        outer = self.late()
        waiting: list[Callable[[], None]] = []
        with self._mirroring:
            self._here.late = waiting
            try:
                self._isolate()
                for _ in range(_AGAIN):
                    wanted = _THEIR_STATE[self.state]
                    if self._theirs.current_state == wanted:
                        break
                    _MOVES[wanted](self._theirs)
            finally:
                self._here.late = outer
        for call in waiting:
            call()

    def _they_moved(self, state: str) -> None:
        """Theirs was moved, not by us: do the same. Runs under their lock."""
        if self.late() is not None:
            return
        self._here.following = True
        try:
            if state == pybreaker.STATE_CLOSED:
                self.control(Trigger.RESET)
            else:
                self.trip(0.0 if state == pybreaker.STATE_HALF_OPEN else None)
        except IllegalTransition:
            # An operator has forced ours open or taken it out of service, and that stands.
            return
        finally:
            self._here.following = False


class _Watcher(pybreaker.CircuitBreakerListener):
    """Our ear on their breaker."""

    def __init__(self, moved: Callable[[str], None]) -> None:
        self._moved = moved

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:  # noqa: ARG002
        self._moved(new_state.name)


class _Isolated(pybreaker.CircuitBreakerListener):
    """One of their listeners, kept from doing harm: one that raises can keep pybreaker from ever opening.

    Equal to what it wraps, so that ``breaker.remove_listener(listener)`` finds it.
    """

    def __init__(self, listener: Any, owner: _Adopted) -> None:
        self.listener = listener
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.listener, name)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self.listener

    def __hash__(self) -> int:
        return hash(self.listener)

    def _call(self, what: str, *args: Any, **kwargs: Any) -> None:
        try:
            getattr(self.listener, what)(*args, **kwargs)
        except Exception as broken:  # noqa: BLE001 - a listener never changes an outcome
            self._owner.report(self.listener, broken)

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self._call("before_call", cb, func, *args, **kwargs)

    def failure(self, cb: Any, exc: BaseException) -> None:
        self._call("failure", cb, exc)

    def success(self, cb: Any) -> None:
        self._call("success", cb)

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        call = functools.partial(self._call, "state_change", cb, old_state, new_state)
        waiting = self._owner.late()
        if waiting is None:
            call()
        else:
            waiting.append(call)
