"""Rate limit: so much in so much time, counted in calls, tokens or whatever a call costs, by several windows at once.

A call is let in when every window admits it; none is charged when one refuses. What a call costs may be an estimate that is settled when
the real count is known. One limit can be shared by several guards: see :meth:`Resilience.rate_limit`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker, did_you_mean
from somaresil.errors import RateLimited, Rejected
from somaresil.events import RateLowered
from somaresil.limiter import NO_PERMIT, Permit, RateLimiter
from somaresil.model.ratelimit import Quota
from somaresil.outcome import Outcome, outcome_of
from somaresil.retryafter import pushed_back
from somaresil.runtime import original

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["RateLimit", "RateLimitPolicy", "RateWindow", "SharedRateLimit"]

_LEAST: Final = 1e-6
_MOST: Final = 1e12
_LONGEST: Final = 31 * 86_400.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds: who asks for a longer pause gets this one, and then the lowered rate. One answer must not stop a service for a day."""


@dataclass(frozen=True, slots=True)
class RateWindow:
    """At most ``amount`` of a ``unit`` in ``per`` seconds."""

    unit: str
    """What it counts, by a name of its own: ``tokens``."""
    amount: float
    """How much of it."""
    _: KW_ONLY
    per: float | timedelta
    """In how many seconds."""
    burst: float | None = None
    """How much may come at once. None: the whole amount (a token bucket). 1: calls come evenly spaced (GCRA)."""
    cost: float | Callable[..., float] = 1.0
    """What a call costs: a number, or a function of its arguments that estimates it."""
    settle: Callable[[Any], float | None] | None = None
    """What a call has really cost, by its result; None as the answer: the estimate stands. Not asked for streams and blocks."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("RateWindow")
        check.name("unit", self.unit)
        _check_window(check, self)
        check.finish()

    @property
    def quota(self) -> Quota:
        """It in units a second."""
        return Quota(self.amount / self.per, self.amount if self.burst is None else self.burst)  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``amount`` calls in ``per`` seconds, and what further ``windows`` say. The bucket of each is full at the beginning.

    In any ``t`` seconds a window lets in at most ``burst + amount * t / per``. A call that costs more than the burst is let in when the
    bucket is full; those that come later wait until that is paid.
    """

    amount: float
    """How many calls, or how much of whatever they cost."""
    _: KW_ONLY
    per: float | timedelta
    """In how many seconds."""
    burst: float | None = None
    """How much may come at once. None: the whole amount (a token bucket). 1: calls come evenly spaced (GCRA)."""
    unit: str = "calls"
    """What it counts: its name in ``settle`` and ``available``."""
    cost: float | Callable[..., float] = 1.0
    """What a call costs: a number, or a function of its arguments that estimates it."""
    settle: Callable[[Any], float | None] | None = None
    """What a call has really cost, by its result; None as the answer: the estimate stands. Not asked for streams and blocks."""
    windows: tuple[RateWindow, ...] = ()
    """Further windows that must admit a call as well."""
    max_waiting: int = 0
    """Calls that may wait until they are let in, in the order in which they came."""
    max_wait: float | timedelta = 0.0
    """Seconds that a call may wait. Who would wait longer is rejected at once."""
    adaptive: bool = False
    """Whether answers that ask for less (429, 503, ``Retry-After``) halve the rate; it rises again by a twentieth every 5 seconds."""
    shadow: bool = False
    """Whether it only counts what it would do."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("RateLimit")
        keep = object.__setattr__
        check.name("unit", self.unit)
        _check_window(check, self)
        if isinstance(self.windows, list):
            keep(self, "windows", tuple(self.windows))
        windows = check.type("windows", self.windows, tuple, "a tuple of RateWindow")
        units = {self.unit}
        for window in windows if isinstance(windows, tuple) else ():
            if not isinstance(window, RateWindow):
                check.problem("windows", window, "RateWindow objects")
            elif window.unit in units:
                check.problem("windows", window.unit, "a unit of its own for each window", "call the second one 'calls/day', say")
            else:
                units.add(window.unit)
        check.count("max_waiting", self.max_waiting, minimum=0, maximum=10_000)
        keep(self, "max_wait", check.seconds("max_wait", self.max_wait, exclusive=False, maximum=86_400.0))
        check.type("adaptive", self.adaptive, bool, "True or False")
        check.type("shadow", self.shadow, bool, "True or False")
        # What goes together is looked at only when everything is right by itself: one mistake is one problem.
        check.finish()
        if self.max_waiting and not self.max_wait:
            check.problem("max_wait", self.max_wait, "seconds > 0 when max_waiting is set", "nobody could wait")
        if self.max_wait and not self.max_waiting:
            check.problem("max_waiting", self.max_waiting, "a whole number >= 1 when max_wait is set", "nobody could wait")
        check.finish()

    @property
    def every_window(self) -> tuple[RateWindow, ...]:
        """Its own window and the further ones."""
        first = RateWindow(self.unit, self.amount, per=self.per, burst=self.burst, cost=self.cost, settle=self.settle)
        return (first, *self.windows)

    def build(self, site: Site) -> RateLimitPolicy:
        """The rate limit at work, for one guard alone."""
        return RateLimitPolicy(self, site)


@dataclass(frozen=True, slots=True)
class SharedRateLimit:
    """A limit that several guards share, with what calls of this guard cost where that is not what the limit says."""

    limiter: RateLimiter
    """Made by :meth:`Resilience.rate_limit`."""
    _: KW_ONLY
    cost: Mapping[str, float | Callable[..., float]] | None = None
    """By unit: a number, or a function of the arguments."""
    settle: Mapping[str, Callable[[Any], float | None]] | None = None
    """By unit: a function of the result."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("SharedRateLimit")
        limiter = check.type("limiter", self.limiter, RateLimiter, "what resilience.rate_limit(name, ...) has returned")
        check.finish()
        units = [window.unit for window in limiter.windows]
        for what in ("cost", "settle"):
            given: Any = getattr(self, what)
            if given is None:
                continue
            if not isinstance(given, Mapping):
                check.problem(what, given, "a mapping from units to functions")
                continue
            for unit, function in given.items():
                if unit not in units:
                    check.problem(what, unit, f"units of the limit ({', '.join(units)})", did_you_mean(unit, units))
                elif what == "cost":
                    _check_cost(check, "cost", function)
                elif not callable(function):
                    check.problem("settle", function, "functions of the result")
        check.finish()

    @property
    def shadow(self) -> bool:
        """Whether the limit only counts what it would do."""
        return self.limiter.options.shadow

    @property
    def max_wait(self) -> float:
        """Seconds that a call may wait."""
        return self.limiter.options.max_wait  # type: ignore[return-value]

    def build(self, site: Site) -> RateLimitPolicy:
        """The guard's part of the rate limit at work."""
        return RateLimitPolicy(self, site)


class RateLimitPolicy:
    """A rate limit at work at one guard."""

    quiet = False

    def __init__(self, options: RateLimit | SharedRateLimit, site: Site) -> None:
        """All windows full, when they are not shared."""
        self.name = site.name
        self._site = site
        if isinstance(options, RateLimit):
            self.limiter = RateLimiter(site.name, options, site.clock, site.listeners)
        self._take_over(options)

    @property
    def waiting(self) -> int:
        """How many calls wait now, at all guards that share it."""
        return self.limiter.waiting

    def available(self) -> dict[str, float]:
        """What could be taken of each window at once, by unit; below 0 it is in debt."""
        return self.limiter.available()

    def reconfigure(self, options: RateLimit | SharedRateLimit) -> None:
        """Use other limits, or another shared one, from now on. What was used up of a unit stays used up."""
        if isinstance(options, RateLimit):
            self.limiter.reconfigure(options)
        self._take_over(options)

    def _take_over(self, options: RateLimit | SharedRateLimit) -> None:
        self.options = options
        if isinstance(options, SharedRateLimit):
            self.limiter = options.limiter
        self._plan = self._planned()
        self.try_count = self.limiter.try_count
        """Count a call that comes at some time, if it can be let in at once and is one call and no more: then there is nothing to leave."""

    @property
    def leaves(self) -> bool:
        """Whether there is something to leave when a call on the express path has ended."""
        return not self._plan.counts_calls

    def _planned(self) -> _Plan:
        limiter, options = self.limiter, self.options
        windows = limiter.windows
        shared = options if isinstance(options, SharedRateLimit) else None
        costs = (shared and shared.cost) or {}
        settles = (shared and shared.settle) or {}
        return _Plan(
            limiter,
            windows,
            [costs.get(window.unit, window.cost) for window in windows],
            {window.unit: settle for window in windows if (settle := settles.get(window.unit, window.settle)) is not None},
        )

    @property
    def _current(self) -> _Plan:
        """The plan, made anew when the limit was changed: a shared one changes behind our back."""
        plan = self._plan
        if plan.windows is not plan.limiter.windows:
            plan = self._plan = self._planned()
        return plan

    # -- the express form: no function has to be asked, and nobody waits ---------------------------------------------------------------

    def try_enter(self) -> Permit | None:
        """A permit, if the call can be let in at once and nothing has to be known about it. Never raises an ``Exception``."""
        try:
            plan = self._plan if self._plan.windows is self._plan.limiter.windows else self._current
            if plan.fixed is None:
                return None
            permit = Permit(list(plan.fixed), plan.limiter)
            if not plan.limiter.take(permit, plan.windows):
                return None
        except Exception as defect:  # noqa: BLE001 - the full path knows what to do
            self._site.listeners.defect(f"rate limit of guard {self.name}", defect, self._site.clock.time())
            return None
        permit.enter()
        return permit

    def leave(self, token: Permit, outcome: Outcome, elapsed: float, now: float) -> None:  # noqa: ARG002 - the form of all policies
        """The call has ended; if it was rejected further in, nothing was taken."""
        if token is NO_PERMIT:
            return
        token.exit()
        self._over(token, called=outcome is not Outcome.REJECTED)

    def _over(self, permit: Permit, *, called: bool) -> None:
        """The call has ended: it has cost what it has, or nothing when the callee was not called. Never raises an ``Exception``."""
        try:
            if called:
                permit.close()
            else:
                permit.give_back()
        except Exception as defect:  # noqa: BLE001 - the caller gets its result or its own error whatever happens to our books
            self._site.listeners.defect(f"rate limit of guard {self.name}", defect, self._site.clock.time())

    # -- the full path ----------------------------------------------------------------------------------------------------------------

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Let the call through when every window admits it, or raise :class:`~somaresil.errors.RateLimited`."""
        if call.replayed is not None:
            # That attempt is over: it was made before there was a limit.
            return await inner(call)
        plan = self._current
        permit = await self._admit(plan, call)
        made = call.made
        if not plan.counts_calls:
            permit.enter()
        try:
            result = await inner(call)
        except BaseException as error:
            permit.exit()
            # Somebody further in may have rejected it, or it was cancelled there.
            called = (call.made > made or call.injected) and outcome_of(call.guard, error) is not Outcome.REJECTED
            if called:
                self._look_at(error, permit, call)
            self._over(permit, called=called)
            raise
        if call.block:
            # It goes on in the context that has begun it.
            call.at_end(permit.end)
            return result
        permit.exit()
        if call.lasting:
            call.at_end(permit.end)
        else:
            self._settle(plan, permit, result, call)
            self._over(permit, called=True)
        return result

    async def _admit(self, plan: _Plan, call: Call) -> Permit:
        limiter, options = plan.limiter, plan.limiter.options
        try:
            permit = Permit([self._cost(cost, call) for cost in plan.costs], limiter)
            patience: float = options.max_wait  # type: ignore[assignment]
            left = call.time_left()
            if left is not None:
                patience = max(0.0, min(patience, left))
            if options.shadow:
                decision, detail = limiter.pretend(permit, plan.windows, patience)
                if decision:
                    self._site.shadow.note("rate_limit", decision, detail)
                return permit if permit.open else NO_PERMIT
            refusal = await limiter.wait(permit, plan.windows, call.runtime, patience)
        except Exception as defect:  # noqa: BLE001 - fail open: a defect of ours must not keep a call from its dependency
            call.listeners.defect(f"rate limit of guard {call.guard}", defect, call.clock.time())
            return NO_PERMIT
        if refusal is not None:
            shared = f"limit {limiter.name!r}: " if limiter.name != self.name else ""
            raise RateLimited(self.name, refusal.retry_after, shared + refusal.detail)
        return permit

    def _cost(self, cost: float | Callable[..., float], call: Call) -> float:
        if not callable(cost):
            return cost
        try:
            return _amount(cost(*call.args, **call.kwargs))
        except Exception as broken:  # noqa: BLE001 - a hook that fails does not keep the call from its dependency
            call.listeners.defect(f"a cost function of guard {call.guard}", broken, call.clock.time(), "the call was counted as 1")
            return 1.0

    def _settle(self, plan: _Plan, permit: Permit, result: Any, call: Call) -> None:
        for unit, settle in plan.settles.items():
            try:
                real = settle(result)
                if real is not None:
                    permit.settle(**{unit: real})
            except Exception as broken:  # noqa: BLE001 - as above
                call.listeners.defect(f"a settle function of guard {call.guard}", broken, call.clock.time(), "the estimate stands")

    def _look_at(self, error: BaseException, permit: Permit, call: Call) -> None:
        """Go slower when the answer asks for it. What another limit has rejected is no answer."""
        error = original(error)
        if not self.limiter.options.adaptive or not isinstance(error, Exception) or isinstance(error, Rejected):
            return
        try:
            asked = pushed_back(error, call.clock.time)
            if asked is None:
                return
            pause = min(asked, _LONGEST_PAUSE)
            share = self.limiter.pushed_back(permit, pause)
            if share is not None and call.listeners.wants(RateLowered):
                call.listeners.emit(RateLowered(call.guard, call.clock.time(), self.limiter.name, share, pause))
        except Exception as defect:  # noqa: BLE001 - the caller gets its own error, not ours
            call.listeners.defect(f"rate limit of guard {call.guard}", defect, call.clock.time())


class _Plan:
    """What calls of one guard cost, and where that is known from, as long as the limit is not changed."""

    __slots__ = ("costs", "counts_calls", "fixed", "limiter", "settles", "windows")

    def __init__(
        self,
        limiter: RateLimiter,
        windows: tuple[RateWindow, ...],
        costs: list[float | Callable[..., float]],
        settles: dict[str, Callable[[Any], float | None]],
    ) -> None:
        self.limiter = limiter
        self.windows = windows
        self.costs = costs
        self.settles = settles
        numbers = [float(cost) for cost in costs if not callable(cost)]
        asks_nobody = len(numbers) == len(costs) and not settles and not limiter.options.adaptive
        self.fixed: list[float] | None = numbers if asks_nobody else None
        """The costs, when nobody has to be asked about a call."""
        self.counts_calls = limiter.counts_calls and self.fixed == [1.0]
        """Whether a call of this guard is one call, and that is all there is to it."""


def _check_window(check: Checker, window: RateWindow | RateLimit) -> None:
    keep = object.__setattr__
    keep(window, "amount", check.number("amount", window.amount, minimum=_LEAST, maximum=_MOST))
    keep(window, "per", check.seconds("per", window.per, minimum=0.001, exclusive=False, maximum=_LONGEST))
    if window.burst is not None:
        keep(window, "burst", check.number("burst", window.burst, minimum=_LEAST, maximum=_MOST))
    cost = _check_cost(check, "cost", window.cost)
    keep(window, "cost", cost)
    if window.settle is not None and not callable(window.settle):
        check.problem("settle", window.settle, "a function of the result, or None")
    for name in ("cost", "settle"):
        if inspect.iscoroutinefunction(getattr(window, name)):
            check.problem(name, getattr(window, name), "a plain function", "nobody awaits it")


def _check_cost(check: Checker, name: str, cost: Any) -> Any:
    return cost if callable(cost) else check.number(name, cost, minimum=0.0, maximum=_MOST)


def _amount(cost: object) -> float:
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0.0 <= cost <= _MOST:
        raise ValueError(f"a cost of {cost!r:.40}: expected a number >= 0 and <= {_MOST:.0f}")
    return float(cost)
