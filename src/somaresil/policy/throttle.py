"""Throttle: a client that is turned away asks less, before the backend is busy with turning it away.

A breaker knows open and closed; this refuses a growing share of calls, by chance, as a growing share is not accepted. See
:mod:`somaresil.model.throttle` for the formula and where it comes from.
"""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.errors import LoadShed
from somaresil.model.throttle import Requests, Throttling
from somaresil.outcome import Outcome
from somaresil.runtime import original

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["Throttle", "ThrottlePolicy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """When a call is refused because too many of late were not accepted.

    The chance of that is ``max(0, (requests - k * accepts) / (requests + 1))`` over the window. A request is accepted when the backend has
    answered it, and the answer is no refusal; calls that say nothing about the backend (abandoned, ignored, rejected by another policy of
    the guard) are neither.
    """

    k: float = 2.0
    """Requests for each one that is accepted, before any is refused. A higher one costs the backend more, and sees it recover sooner.

    With ``guard(budget_aware=...)`` it shrinks towards 1 while the error budget burns.
    """
    window: float | timedelta = 120.0
    """Seconds over which requests and accepts are counted."""
    minimum_calls: int = 10
    """Requests in the window, below which none is refused: the formula alone refuses every second call after a single failure."""
    max_rejection: float = 0.9
    """The most that is refused, as a share: the rest finds out when the backend has recovered."""
    pushback: Any = None
    """Which errors say that the backend turned the call away: exception types, or a predicate on the exception. None: every bad end."""
    shadow: bool = False
    """Whether it only counts what it would do."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Throttle")
        keep = object.__setattr__
        keep(self, "k", check.number("k", self.k, minimum=1.0, maximum=100.0))
        keep(self, "window", check.seconds("window", self.window, minimum=1.0, exclusive=False, maximum=86_400.0))
        check.count("minimum_calls", self.minimum_calls, maximum=1_000_000)
        check.number("max_rejection", self.max_rejection, minimum=0.0, maximum=1.0, exclusive=True)
        kinds = self.pushback if isinstance(self.pushback, tuple) else (self.pushback,)
        if isinstance(self.pushback, type | tuple):
            if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
                check.problem("pushback", self.pushback, "exception types", "subclasses of Exception: who goes away says nothing")
        elif self.pushback is not None and not callable(self.pushback):
            check.problem("pushback", self.pushback, "exception types, a predicate on the exception, or None")
        elif inspect.iscoroutinefunction(self.pushback):
            check.problem("pushback", self.pushback, "a plain function", "nobody awaits it, and a coroutine is always true")
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()

    def build(self, site: Site) -> ThrottlePolicy:
        """The throttle at work."""
        return ThrottlePolicy(self, site)


class ThrottlePolicy:
    """A throttle at work."""

    quiet = False
    leaves = True
    """Whether there is something to leave when a call on the express path has ended."""

    def __init__(self, options: Throttle, site: Site) -> None:
        """Draw from the sequence of this guard."""
        self.name = site.name
        self._site = site
        self._draws = site.chance.sequence("throttle", site.name)
        self._lock = threading.RLock()
        self.options = options
        self._model = self._empty()

    @property
    def probability(self) -> float:
        """How likely the next call is to be refused."""
        k = self._k()
        with self._lock:
            return self._likely(self._site.clock.monotonic(), k)

    def requests(self) -> Requests:
        """How many calls the window shows, and how many of them were accepted."""
        with self._lock:
            return self._model.look(self._site.clock.monotonic())

    def reconfigure(self, options: Throttle) -> None:
        """Decide by other options from now on; the counts stay, unless the window is another one."""
        with self._lock:
            self.options = options
            if options.window != self._model.window:
                self._model = self._empty()

    # -- the express form: nothing is refused at the moment, and no error has to be looked at --------------------------------------------

    def try_enter(self) -> object | None:
        """Leave to call, unless chance has to decide."""
        try:
            k = self._k()
            with self._lock:
                likely = self._likely(self._site.clock.monotonic(), k)
        except Exception:  # noqa: BLE001 - the full path reports it, and lets the call pass
            return None
        return _ENTERED if likely <= 0.0 and self.options.pushback is None else None

    def leave(self, token: object, outcome: Outcome, elapsed: float, now: float) -> None:  # noqa: ARG002 - the form of all policies
        """How the call has ended."""
        self._note(outcome, None)

    # -- the full path ----------------------------------------------------------------------------------------------------------------

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Let the call through, or raise :class:`~somaresil.errors.LoadShed`."""
        if call.replayed is not None:
            # That attempt is over: it was made before there was a throttle.
            return await inner(call)
        try:
            refusal = self._refusal()
        except Exception as defect:  # noqa: BLE001 - fail open: a defect of ours must not keep a call from its dependency
            call.listeners.defect(f"throttle of guard {call.guard}", defect, call.clock.time())
            refusal = None
        if refusal is not None:
            raise refusal
        try:
            result = await inner(call)
        except BaseException as error:
            self._note(call.judge(None, error), original(error))
            raise
        if call.lasting:
            call.at_end(lambda outcome, now: self._note(outcome, None))  # noqa: ARG005 - it reads the clock itself
        else:
            self._note(call.judge(result, None), None)
        return result

    def _refusal(self) -> LoadShed | None:
        k = self._k()
        with self._lock:
            now = self._site.clock.monotonic()
            likely = self._likely(now, k)
        if likely <= 0.0 or not self._draws.hit(likely):
            return None
        with self._lock:
            seen = self._model.look(now)
            if not self.options.shadow:
                # It was wanted, and counts as such. In shadow mode it goes on, and counts by how it ends.
                self._model.note(now, accepted=False)
        detail = f"throttled: {seen.accepts} of {seen.requests} accepted within {self.options.window:g} s, {likely:.0%} are refused"
        if self.options.shadow:
            self._site.shadow.note("throttle", "reject", detail)
            return None
        return LoadShed(self.name, None, detail)

    def _note(self, outcome: Outcome, error: BaseException | None) -> None:
        """Count the end of a call, if it says something about the backend. Never raises."""
        if outcome is not Outcome.GOOD and outcome is not Outcome.BAD:
            return
        try:
            accepted = outcome is Outcome.GOOD or not self._turned_away(error)
            with self._lock:
                self._model.note(self._site.clock.monotonic(), accepted=accepted)
        except Exception as defect:  # noqa: BLE001 - the caller gets its result or its own error whatever happens to our books
            self._site.listeners.defect(f"throttle of guard {self.name}", defect, self._site.clock.time())

    def _turned_away(self, error: BaseException | None) -> bool:
        """Whether a call that ended badly was not accepted."""
        pushback = self.options.pushback
        if pushback is None:
            return True
        if error is None:
            # The result was judged to be bad, or came too late: it was an answer.
            return False
        return isinstance(error, pushback) if isinstance(pushback, type | tuple) else bool(pushback(error))

    def _empty(self) -> Throttling:
        return Throttling(float(self.options.window), self._site.clock.monotonic())  # type: ignore[arg-type]

    def _k(self) -> float:
        """``k`` as the error budget has it. Asked with no lock held, for the budget has its own."""
        scale, k = self._site.scale, self.options.k
        return k if scale is None else 1.0 + (k - 1.0) * scale()

    def _likely(self, now: float, k: float) -> float:
        options = self.options
        return self._model.probability(now, k=k, ceiling=options.max_rejection, minimum=options.minimum_calls)


_ENTERED: Final = object()
