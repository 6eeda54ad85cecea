"""The guard: one name, one set of policies, one state, whatever calls through it.

Two paths with one meaning. While the switch is quiet a call is one frame (see :mod:`somaresil.guard.wrap`): two clock reads and one
counter. In every other case it takes the full path here: policies in a fixed order, the outermost first ::

    record > fallback > single flight > hedge > retry > throttle > breaker > rate limit > bulkhead or adaptive limit > timeout > fault
        > callee

A call whose first attempt failed on the quiet path and that may yet be saved goes through the full path with that failure played back to
the policies. ``tests/property/test_two_paths.py`` holds the two paths to equal records, states, results and exceptions.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

from somaresil.config import Checker
from somaresil.deadline import current
from somaresil.errors import BulkheadFull, CircuitOpen, DeadlineExceeded, LoadShed, RateLimited, Rejected
from somaresil.events import CallEnded
from somaresil.guard import block
from somaresil.guard.assembly import Assembly, configuring
from somaresil.guard.call import CoroutineCall, FunctionCall, judge
from somaresil.guard.change import changes_between, tell
from somaresil.guard.express import express, lane_of
from somaresil.guard.fit import check_called, check_decorated
from somaresil.guard.keyed import Keyed
from somaresil.guard.measure import report
from somaresil.guard.options import GuardOptions, check_known
from somaresil.guard.shape import Shape, shape_of
from somaresil.guard.wrap import decorate, plain_wrapper
from somaresil.model.breaker import Permit
from somaresil.noted import Noted
from somaresil.outcome import Outcome
from somaresil.recorder import label_of
from somaresil.runtime import Asyncio, Blocking, Carried, run_sync, set_context, shorten
from somaresil.shadow import Shadow
from somaresil.site import Site

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable
    from types import TracebackType

    from somaresil.chance import Chance
    from somaresil.expiry import Expiry
    from somaresil.guard.call import Call
    from somaresil.guard.description import Description
    from somaresil.listeners import Listeners
    from somaresil.policy.breaker import BreakerPolicy
    from somaresil.policy.hedge import HedgePolicy
    from somaresil.recorder import Recorder
    from somaresil.thrift import BudgetScale
    from somaresil.typing import Clock, Next

__all__ = ["Guard"]

_REJECTED: Final = Outcome.REJECTED
_REFUSES: Final[tuple[tuple[str, type[Rejected]], ...]] = (
    ("breaker", CircuitOpen),
    ("throttle", LoadShed),
    ("rate_limit", RateLimited),
    ("bulkhead", BulkheadFull),
)
"""How each policy refuses."""

_F = TypeVar("_F", bound="Callable[..., Any]")
_T = TypeVar("_T")
_P = ParamSpec("_P")


class Guard(Assembly):
    """Guards calls under one name. Made by :meth:`Resilience.guard`; decorator, context manager and caller in one."""

    __slots__ = (
        "_refuses",
        "blocking",
        "blocks",
        "coded",
        "express",
        "has_streams",
        "lane",
        "monotonic",
        "observers",
        "rescues",
        "suspending",
        "where",
    )

    def __init__(
        self,
        name: str,
        options: GuardOptions,
        *,
        recorder: Recorder,
        clock: Clock,
        chance: Chance,
        listeners: Listeners,
        ignored: Noted | None = None,
        scale: BudgetScale | None = None,
    ) -> None:
        """Build the policies; ``recorder`` counts the calls and holds the switch."""
        site = Site(name, recorder, clock, chance, listeners, Shadow(name, clock, listeners), ignored or Noted(), scale)
        super().__init__(site)
        self.where = ""
        """File and line where the guard was first asked for."""
        self.monotonic = clock.monotonic
        self.blocking = Blocking(clock)
        self.suspending = Asyncio(clock)
        self.has_streams = False
        """Whether it guards a generator, of either kind: only then has it items that a fault can cut off."""
        self.blocks: dict[Call, None] | None = None
        """The ``with`` blocks that are open."""
        self.express: Callable[..., Any]
        """How a plain function is called while only limits need a say; there once the guard has any."""
        self.lane: tuple[Any, ...]
        """The :class:`~somaresil.guard.express.Lane` for coroutine functions, and what its hedge does when the delay is over.

        A plain tuple is taken apart faster."""
        self.observers: tuple[Callable[[CallEnded], object], ...] = ()
        self.coded = self.options
        """What the code has made it with, before anything from outside was laid on top."""
        self.commit(self.prepare(options))

    def __repr__(self) -> str:
        """Name and pipeline."""
        return f"<Guard {self.name!r}: {' > '.join(self.pipeline)}>"

    def description(self, *, deadline: float | None = None) -> Description:
        """What it does to a call, what a call can come to, what is surely wrong. ``deadline``: seconds that its callers wait, if known."""
        from somaresil.guard.description import describe  # not for every service that starts

        return describe(self, deadline=deadline)

    def describe(self) -> str:
        """:meth:`description` as text: ``print(guard.describe())``."""
        return str(self.description())

    def rejections(self) -> dict[str, int]:
        """How many calls were refused before they began, by reason: ``circuit_open``, ``bulkhead_full``, ``rate_limited`` and so on."""
        # What may refuse says 0 until it does: Prometheus does not see the first step of a series that begins at 1.
        none = {label_of(kind): 0 for policy, kind in _REFUSES if getattr(self, policy) is not None}
        return {**none, **self.recorder.refusals_by_reason()}

    @property
    def budget_scale(self) -> float | None:
        """How much of its budgets it may use now, from 0.1 to 1; None: it is not aware of any objective."""
        return None if self._site.scale is None else self._site.scale()

    @property
    def shadow(self) -> Shadow:
        """What its policies in shadow mode would have done."""
        return self._site.shadow

    # -- using it ---------------------------------------------------------------------------------------------------------------------

    def __call__(self, target: _F) -> _F:
        """Guard a function, coroutine function, generator, async generator, method, classmethod, staticmethod, partial or callable object.

        The signature stays as it is. Raises :class:`~somaresil.errors.ConfigurationError` for what cannot be guarded.
        """
        self.check_target(target)
        guarded: _F = decorate(self, target)
        return guarded

    def call(self, function: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a plain function through the guard, once."""
        self.check_plain(function)
        result: _T = plain_wrapper(self, function)(*args, **kwargs)
        return result

    async def acall(self, function: Callable[_P, Awaitable[_T]], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a coroutine function, or anything that returns an awaitable, through the guard, once."""
        result: _T = await plain_wrapper(self, self.awaitable(function))(*args, **kwargs)
        return result

    def __enter__(self) -> Self:
        """Begin a guarded block."""
        block.begin(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Judge the block."""
        block.end(self, error)

    async def __aenter__(self) -> Self:
        """Begin a guarded block that may be cancelled when its time is up."""
        await block.abegin(self)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Judge the block."""
        await block.aend(self, error)

    def keyed(self, key: Hashable | None = None, *, by: str | Callable[..., Hashable | None] | None = None) -> Keyed:
        """This guard with a circuit of its own for each key: for ``key``, or for what each call has as its key.

        ``by`` is the name of an argument, or a function of the arguments; a call whose key is None is judged by the guard's own breaker.
        The result is decorator, context manager and caller as the guard is. See :mod:`somaresil.guard.keyed`.

        Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
        """
        return Keyed(self, key, by)

    def configure(self, **options: Any) -> None:
        """Change options while calls are running; what is already decorated takes them from its next call on.

        Breaker state and era stay, counts stay. A latency bound cannot be added later: ``slow_call_duration`` must be one of
        ``guard.recorder.bounds``. Raises :class:`~somaresil.errors.ConfigurationError`, and then nothing has changed.
        """
        check = Checker(f"guard({self.name!r})")
        check_known(check, options)
        if "slo" in options:
            check.problem("slo", options["slo"], "the SLOs it was made with", "they are views on its cells and set when the guard is made")
        if "budget_aware" in options:
            check.problem("budget_aware", options["budget_aware"], "what it was made with", "set it when the guard is made")
        check.finish()
        with configuring:
            before = self.options
            self.commit(self.prepare(before.changed(self.name, options)))
            self.coded = self.coded.changed(self.name, options)
            changes = changes_between(self.name, before, self.options)
        tell(self.listeners, self.clock.time(), changes)

    def observe(self, observer: Callable[[CallEnded], object], attempts: Callable[[str], object] | None = None) -> None:
        """Tell ``observer`` of the end of every call, good ones as well, until :meth:`unobserve`. See :meth:`Resilience.observe`."""
        with configuring:
            self.observers = (*self.observers, observer)
            self.switch.hold("observed")
        if attempts is not None:
            self.faults.watch(attempts)

    def unobserve(self, observer: Callable[[CallEnded], object], attempts: Callable[[str], object] | None = None) -> None:
        """Tell them no more."""
        if attempts is not None:
            self.faults.unwatch(attempts)
        with configuring:
            self.observers = tuple(other for other in self.observers if other != observer)
            self.switch.hold("observed", held=bool(self.observers))

    # -- the quiet path comes by here when it is not quiet ----------------------------------------------------------------------------

    def settle(self, now: float, elapsed: float, era: int) -> None:
        """Count a good quiet call when a boundary was passed or the era has changed under it."""
        try:
            if now >= self.switch.due:
                self._roll(now)
            if self.switch.era == era:
                self.recorder.count_quiet(elapsed)
            else:
                # It still counts as an answer, but the breaker of a later era does not hear of it.
                self.recorder.add(Outcome.GOOD, elapsed)
        except Exception as defect:  # noqa: BLE001 - the caller gets its result whatever happens to our books
            self.listeners.defect("settling a good call", defect, self.clock.time())

    def failed(self, error: BaseException, started: float, era: int) -> None:
        """Book a quiet call that failed and that no policy can save."""
        try:
            now = self.monotonic()
            outcome, fatal = judge(self, None, error, started)
            if self.breaker is not None:
                self.breaker.settle(Permit(era, None), outcome, now - started, now, error, fatal=fatal)
            self._book(outcome, now - started, now, error, injected=False)
        except Exception as defect:  # noqa: BLE001 - the caller gets its own error, not ours
            self.listeners.defect("booking a failed call", defect, self.clock.time())

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call of a plain function that is not quiet."""
        if (breaker := self._refuses) is not None and (wait := breaker.refuse_until - (now := self.monotonic())) > 0.0:
            # Raised without a name: this frame gets on its traceback, and the two would keep each other alive.
            raise self._refusal(breaker, now, wait)
        try:
            return self.drive(FunctionCall(self, function, args, kwargs))
        except BaseException as error:
            shorten(error)
            raise

    def arun(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
        """A call of a coroutine function that is not quiet."""
        if (breaker := self._refuses) is not None and (wait := breaker.refuse_until - (now := self.monotonic())) > 0.0:
            raise self._refusal(breaker, now, wait)
        return self.adrive(CoroutineCall(self, function, args, kwargs))

    def rescue(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException, started: float, era: int
    ) -> Any:
        """A quiet call of a plain function failed, and retry or fallback may save it."""
        call = _played_back(FunctionCall(self, function, args, kwargs), error, started, era)
        # This frame may get on the traceback of the error: without this the two would keep each other alive.
        del error
        try:
            return self.drive(call)
        except BaseException as final:
            shorten(final)
            raise

    def arescue(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException, started: float, era: int
    ) -> Awaitable[Any]:
        """A quiet call of a coroutine function failed, and retry or fallback may save it."""
        return self.adrive(_played_back(CoroutineCall(self, function, args, kwargs), error, started, era))

    def drive(self, call: Call) -> Any:
        """Take a synchronous call through the policies."""
        if (deadline := current()) is not None and deadline.at <= call.started and call.replayed is None:
            raise self._expired(call, deadline.at)
        try:
            result = run_sync(self._chain(call))
        except Carried as carried:
            stop = carried.error
        except BaseException as error:
            self.end(call, call.judge(None, error), error)
            shorten(error)
            raise
        else:
            if not call.lasting:
                self.end(call, call.judge(result, None), None, result)
            return result
        self.end(call, call.judge(None, stop), stop)
        shorten(stop)
        context = stop.__context__
        try:
            raise stop
        finally:
            # As in raise_again, which would carry it once more.
            set_context(stop, context)
            del stop, context

    def begun(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], started: float, era: int
    ) -> tuple[Next, Call]:
        """What is inside of the hedge, and a call that began on the express path and is to go on there."""
        call = CoroutineCall(self, function, args, kwargs)
        call.started, call.era = started, era
        return self.within_hedge, call

    def go_on(self, hedge: HedgePolicy, expiry: Expiry, result: object, failed: BaseException | None, now: float) -> Awaitable[Any]:
        """The first attempt of such a call has ended with ``result`` or ``failed``, and ``hedge`` has not done with it."""
        call: Call = hedge.call_of(expiry)
        call.replayed, call.scope = failed, (expiry, result)
        if failed is None and self.breaker is not None:
            # It reads the good answers of calls that end quietly, and this one will not.
            self.breaker.settle(Permit(call.era, None), Outcome.GOOD, now - call.started, now)
        # The hedge may have been taken away or replaced meanwhile: the one that has begun this goes on with it.
        return self.adrive(call, None if self.hedge is hedge else MethodType(hedge.__call__, self.within_hedge))

    async def adrive(self, call: Call, chain: Next | None = None) -> Any:
        """Take an asynchronous call through the policies."""
        if (deadline := current()) is not None and deadline.at <= call.started and call.replayed is None:
            raise self._expired(call, deadline.at)
        try:
            result = await (self._chain if chain is None else chain)(call)
        except BaseException as error:
            self.end(call, call.judge(None, error), error)
            shorten(error)
            raise
        if not call.lasting:
            self.end(call, call.judge(result, None), None, result)
        return result

    def end(self, call: Call, outcome: Outcome, error: BaseException | None, result: object = None) -> None:
        """Book the end of a call that took the full path. Never raises."""
        try:
            now = self.monotonic()
            if call.injected:
                self.faults.touched(-1)
            call.end(outcome, now)
            self._book(outcome, now - call.started, now, error, injected=call.injected)
            if self.probes:
                report(self.probes, call, outcome, now, error, result)
        except Exception as defect:  # noqa: BLE001 - neither result nor error of the callee may be lost to our books
            self.listeners.defect("booking the end of a call", defect, self.clock.time())

    # -- what can be guarded ----------------------------------------------------------------------------------------------------------

    def check_target(self, target: object) -> None:
        """Refuse to decorate what the options do not fit."""
        check_decorated(self, target)

    def check_plain(self, function: Callable[..., Any]) -> None:
        """Refuse to call what is no plain function."""
        check_called(self, function)
        shape = shape_of(function)
        if shape is not Shape.FUNCTION:
            check = Checker(f"guard({self.name!r})")
            fix = "await guard.acall(...)" if shape is Shape.COROUTINE else "guard(function)(...), which gives a guarded stream"
            check.problem("call", function, "a plain function", f"use {fix}")
            check.finish()

    def awaitable(self, function: Callable[..., Awaitable[_T]]) -> Callable[..., Awaitable[_T]]:
        """``function`` as a coroutine function; refuses what cannot be awaited."""
        check_called(self, function, awaited=True)
        if shape_of(function) in {Shape.GENERATOR, Shape.ASYNC_GENERATOR}:
            check = Checker(f"guard({self.name!r})")
            fix = "use guard(function)(...), which gives a guarded stream"
            check.problem("acall", function, "a function that returns an awaitable", fix)
            check.finish()
        return _as_coroutine_function(function)

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _expired(self, call: Call, at: float) -> DeadlineExceeded:
        """The rejection of a call that begins when nobody wants it any more, booked."""
        rejection = DeadlineExceeded(self.name, None, f"it passed {call.started - at:.3g} s before the call")
        self.end(call, Outcome.REJECTED, rejection)
        return rejection

    def _refusal(self, breaker: BreakerPolicy, now: float, wait: float) -> CircuitOpen:
        """A rejection, counted. The hot path of bad times."""
        rejection = breaker.refused(wait)
        try:
            if now >= self.switch.due or rejection.injected or self.observers or self.listeners.wants(CallEnded):
                self._book(Outcome.REJECTED, 0.0, now, rejection, injected=rejection.injected)
            else:
                next(breaker.refusals)
        except Exception as defect:  # noqa: BLE001 - the caller gets the rejection, not our defect
            self.listeners.defect("booking a rejected call", defect, self.clock.time())
        return rejection

    def _book(self, outcome: Outcome, elapsed: float, now: float, error: BaseException | None, *, injected: bool) -> None:
        if now >= self.switch.due:
            self._roll(now)
        if outcome is _REJECTED and not isinstance(error, CircuitOpen):
            self.recorder.add(outcome, elapsed, injected, label_of(error if isinstance(error, Rejected) else Rejected))
        else:
            self.recorder.add(outcome, elapsed, injected)
        noteworthy = (outcome is not Outcome.GOOD or injected) and self.listeners.wants(CallEnded)
        if not noteworthy and not self.observers:
            return
        kind = None if error is None else type(error).__qualname__
        event = CallEnded(self.name, self.clock.time(), outcome.value, kind, elapsed, injected)
        for observer in self.observers:
            try:
                observer(event)
            except Exception as broken:  # noqa: BLE001 - who looks on does not change what is looked at
                self.listeners.defect(f"observer of guard {self.name}", broken, event.at)
        if noteworthy:
            self.listeners.emit(event)

    def _roll(self, now: float) -> None:
        try:
            self.recorder.settle(now)
        except Exception as defect:  # noqa: BLE001 - a window that cannot be rolled must not cost the count of this call as well
            self.listeners.defect("rolling the windows", defect, self.clock.time())

    def _assembled(self) -> None:
        self.rescues = self.fallback is not None or self.retry is not None
        """Whether a call that failed once may still end well."""
        self._refuses = None if self.rescues or self.probes else self.breaker
        """The breaker, when nobody outside it has a say about a call that it refuses."""
        self._open_lane()

    def _open_lane(self) -> None:
        """Let calls pass the limits on the express path, as far as all that need a say are limits."""
        found = lane_of(self)
        if found is None:
            self.switch.bypass(frozenset())
            return
        # Before the switch lets anybody through. A limit of time does not interrupt a plain function, and has to look at it.
        lane, names = found
        self.lane = (*lane, None if lane.hedge is None else lane.hedge.fire)
        self.express = express(self, lane) if lane.limit is None else self.run
        self.switch.bypass(names)


def _as_coroutine_function(function: Callable[..., Awaitable[_T]]) -> Callable[..., Awaitable[_T]]:
    if shape_of(function) is Shape.COROUTINE:
        return function

    async def awaits(*args: Any, **kwargs: Any) -> _T:
        return await function(*args, **kwargs)

    return awaits


def _played_back(call: Call, error: BaseException, started: float, era: int) -> Call:
    call.replayed = error
    call.started = started
    call.era = era
    return call
