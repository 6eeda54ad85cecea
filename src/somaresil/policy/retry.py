"""Retry: try again when trying again may help, after a pause that does not synchronise the callers.

The vocabulary of tenacity is understood: ``wait_*``, ``stop_*`` and ``retry_if_*`` objects go where numbers and exception types go.
tenacity itself is not entered: its happy path costs eleven microseconds and its predicates can swallow a cancellation (tenacity #529);
here the policy is reached only after a first failure, and a ``BaseException`` that is no ``Exception`` is never caught.
"""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from somaresil.budget import RetryBudget
from somaresil.config import Checker
from somaresil.errors import Rejected
from somaresil.events import AttemptFailed, RetryDenied, RetryScheduled
from somaresil.model.backoff import exponential, full_jitter
from somaresil.retryafter import asked_or_none
from somaresil.runtime import original, raise_again

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["Retry", "RetryPolicy", "RetryState", "StreamProgress"]

_ABOUT_ERRORS = frozenset(
    {"retry_if_exception", "retry_if_exception_type", "retry_if_not_exception_type", "retry_if_exception_message", "_retry_never"}
)
"""Rules of tenacity that never want a result again. The others may: `retry_unless_exception_type` wants every result again."""

_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0
_LONGEST_ASKED = 86_400.0
"""A day: whoever asks for a longer pause has made a mistake, and from some point on no clock can wait for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often, on what, and after which pause to try again.

    The default pause is exponential with full jitter (after attempt n a uniform draw from zero to 0.1 s · 2^(n-1), at most 5 s), which
    spreads the callers best: Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    A rejection, by this guard or one inside it, is not tried again, unless ``on`` names a :class:`~somaresil.errors.Rejected` type. When
    the guard rejects a further attempt, the error of the last attempt that reached the callee is raised.
    """

    attempts: int = 3
    """How many attempts in all: 3 means the first and two more."""
    on: Any = Exception
    """What to try again on: exception types, a predicate on the exception, or a tenacity ``retry_if_*`` object (results included).

    A predicate may also return the pause, as a float in seconds or a ``timedelta``, as the hooks of stamina do.
    """
    wait: Any = None
    """Seconds (at most a day), a function of the number of attempts so far, or a tenacity ``wait_*`` object. None: the default pause."""
    stop: Any = None
    """A tenacity ``stop_*`` object that ends it earlier."""
    max_elapsed: float | timedelta | None = None
    """No attempt begins later than this many seconds after the call."""
    max_retry_after: float | timedelta | None = 60.0
    """The longest pause that a failing answer may ask for (``Retry-After``): when it asks for more, it is not tried again.

    It is never tried earlier than the answer asks. None: what it asks for is not looked at.
    """
    budget: float | RetryBudget | None = 0.2
    """Further attempts a call over the last ten seconds, for all callers of this guard together, and ten a second whatever the traffic.

    A :class:`~somaresil.budget.RetryBudget` says it otherwise, or is shared by several guards. None: no bound.
    """
    resume: Any = None
    """For streams that break after some items: a function of a :class:`StreamProgress` that returns the arguments to go on with.

    ``(args, kwargs)``, or None when it cannot be gone on with. Without it nothing is repeated after the first item.
    """
    shadow: bool = False
    """Count what would be tried again, and try nothing again."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Retry")
        keep = object.__setattr__
        check.count("attempts", self.attempts, maximum=100)
        if isinstance(self.on, list | set | frozenset):
            keep(self, "on", tuple(self.on))
        types = self.on if isinstance(self.on, tuple) else (self.on,)
        if not types:
            check.problem("on", self.on, "at least one exception type")
        for kind in types:
            if isinstance(kind, type) and not issubclass(kind, BaseException):
                check.problem("on", kind, "exception types")
            elif isinstance(kind, type) and not issubclass(kind, Exception):
                check.problem("on", kind, "subclasses of Exception", "cancellation and exit are never tried again")
            elif not callable(kind) or (isinstance(self.on, tuple) and not isinstance(kind, type)):
                check.problem("on", kind, "exception types, a predicate or a tenacity retry_if_* object")
        if self.wait is not None and not callable(self.wait):
            keep(self, "wait", check.seconds("wait", self.wait, exclusive=False, maximum=_LONGEST_ASKED))
        self._check_functions(check)
        for name in ("on", "wait", "stop", "resume"):
            if _suspends(getattr(self, name)):
                check.problem(name, getattr(self, name), "a plain function", "nobody awaits it, and a coroutine is always true")
        keep(self, "max_elapsed", check.seconds("max_elapsed", self.max_elapsed, optional=True))
        asked = check.seconds("max_retry_after", self.max_retry_after, optional=True, exclusive=False, maximum=_LONGEST_ASKED)
        keep(self, "max_retry_after", asked)
        if self.budget is not None and not isinstance(self.budget, RetryBudget):
            keep(self, "budget", check.ratio("budget", self.budget))
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()

    def _check_functions(self, check: Checker) -> None:
        if self.stop is not None and not callable(self.stop):
            check.problem("stop", self.stop, "a tenacity stop_* object", "use attempts= or max_elapsed= for a number")
        if self.resume is not None and not callable(self.resume):
            check.problem("resume", self.resume, "a function of a StreamProgress that returns (args, kwargs)")

    def build(self, site: Site) -> RetryPolicy:
        """The retries at work."""
        return RetryPolicy(self, site)


class StreamProgress(NamedTuple):
    """How far a stream has come that broke."""

    args: tuple[Any, ...]
    """The arguments that it was begun with, or last gone on with."""
    kwargs: dict[str, Any]
    items: int
    """How many items its reader has had, in all."""
    last: Any
    """The last of them."""


@dataclass(slots=True)
class _Result:
    """The end of an attempt, with the part of ``concurrent.futures.Future`` that tenacity's objects use."""

    value: object
    error: BaseException | None

    @property
    def failed(self) -> bool:
        return self.error is not None

    def exception(self) -> BaseException | None:
        return self.error

    def result(self) -> object:
        if self.error is not None:
            raise self.error
        return self.value


@dataclass(slots=True)
class RetryState:
    """What tenacity's ``wait_*``, ``stop_*`` and ``retry_if_*`` objects look at: the attributes of its ``RetryCallState``."""

    attempt_number: int
    start_time: float
    outcome_timestamp: float
    outcome: _Result | None
    idle_for: float
    fn: object
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    upcoming_sleep: float = 0.0
    next_action: object = None
    retry_object: object = field(default=None)

    @property
    def seconds_since_start(self) -> float:
        """Seconds since the first attempt began."""
        return self.outcome_timestamp - self.start_time


class RetryPolicy:
    """Retries at work. Holds nothing between calls."""

    def __init__(self, options: Retry, site: Site) -> None:
        """Draw the pauses of this guard from its own sequence."""
        self._site = site
        self._lock = threading.RLock()
        self._decisions: dict[str, int] = {"made": 0, "budget": 0, "deadline": 0, "idempotency": 0}
        self._draws = site.chance.sequence("retry.wait", site.name)
        self.budget: RetryBudget | None = None
        """What bounds the further attempts of all callers."""
        self.reconfigure(options)

    def decisions(self) -> dict[str, int]:
        """How many further attempts were made, and denied for which reason."""
        with self._lock:
            return dict(self._decisions)

    @property
    def quiet(self) -> bool:
        """Whether a call that ended well is never tried again."""
        return not self.judges_results

    def reconfigure(self, options: Retry) -> None:
        """Try again by other rules, from the next failure on."""
        self.options = options
        budget = options.budget
        if budget is None or isinstance(budget, RetryBudget):
            self.budget = budget
        elif self.budget is None or self.budget.ratio != budget:
            self.budget = RetryBudget(budget)
        if self.budget is not None:
            self.budget.join(self._site.recorder, self._site.clock.monotonic())
        types = options.on if isinstance(options.on, tuple) else (options.on,)
        self._types: tuple[type[Exception], ...] = tuple(kind for kind in types if isinstance(kind, type))
        self._rejections = tuple(kind for kind in self._types if issubclass(kind, Rejected))
        self._predicate: Callable[[Any], bool] | None = None if isinstance(options.on, type | tuple) else options.on
        self._asks_tenacity = _is_of_tenacity(options.on)
        self.judges_results = self._asks_tenacity and type(options.on).__name__ not in _ABOUT_ERRORS
        """Whether a call that ended well may be tried again: then no call is quiet."""
        self._wait_of_tenacity = _is_of_tenacity(options.wait)

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Call until it goes well, or may not be tried again; the last attempt speaks for itself."""
        last: Exception | None = None
        error: Exception | None = None
        idle = 0.0
        try:
            while True:
                call.attempt += 1
                try:
                    result = await inner(call)
                except Exception as caught:
                    error = original(caught)
                    if last is not None and isinstance(error, Rejected) and error.guard == call.guard and not self._rejected_too(error):
                        raise_again(last)
                    self._report(call, error)
                    pause = self._plan(call, None, error, idle)
                    if pause is None:
                        raise
                    last = error
                else:
                    pause = self._plan(call, result, None, idle) if self.judges_results and not call.lasting else None
                    if pause is None:
                        return result
                    last = None
                if call.listeners.wants(RetryScheduled):
                    kind = type(last).__qualname__ if last is not None else None
                    call.listeners.emit(RetryScheduled(call.guard, call.clock.time(), call.attempt, pause, kind))
                idle += pause
                await call.runtime.sleep(pause)
        finally:
            # This frame is on the traceback of the error that leaves it: without this the two would keep each other alive.
            last = error = None

    def going_on(self, call: Call, error: Exception, progress: StreamProgress) -> tuple[float, tuple[Any, ...], dict[str, Any]] | None:
        """After which pause and with which arguments a stream is gone on with that broke; None: it is not."""
        if self.options.resume is None or call.attempt >= self.options.attempts:
            return None
        self._report(call, error)
        try:
            said = self.options.resume(progress)
            if said is None:
                return None
            args, kwargs = said
            args, kwargs = tuple(args), dict(kwargs)
        except Exception as broken:  # noqa: BLE001 - a hook that fails does not replace the error of the callee
            call.listeners.defect(f"the resume hook of guard {call.guard}", broken, call.clock.time(), "the stream was not gone on with")
            return None
        pause = self._plan(call, None, error, 0.0)
        if pause is None:
            return None
        if call.listeners.wants(RetryScheduled):
            kind = type(error).__qualname__
            call.listeners.emit(RetryScheduled(call.guard, call.clock.time(), call.attempt, pause, kind))
        return pause, args, kwargs

    def _plan(self, call: Call, result: object, error: Exception | None, idle: float) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        if call.attempt >= self.options.attempts:
            return None
        if isinstance(error, Rejected) and not self._rejected_too(error):
            return None
        state = self._state(call, result, error, idle)
        try:
            again = self._again(state, error)
            if again is False:
                return None
            pause = self._pause(state) if again is True else again
            asked = self._asked(error)
            if asked is not None:
                if asked > float(self.options.max_retry_after):  # type: ignore[arg-type]
                    return None
                # Whoever was told the same number would come back at the same moment: the usual draw comes on top of it.
                pause = asked + pause if self.options.wait is None else max(asked, pause)
            state.upcoming_sleep = pause
            if self.options.stop is not None and self.options.stop(state):
                return None
        except Exception as broken:  # noqa: BLE001 - a hook that fails does not replace the error of the callee
            call.listeners.defect(f"a retry hook of guard {call.guard}", broken, call.clock.time(), "the call was not tried again")
            return None
        limit = self.options.max_elapsed
        if limit is not None and call.clock.monotonic() + pause - call.started > float(limit):  # type: ignore[arg-type]
            return None
        return pause if self._may(call, pause) else None

    def _may(self, call: Call, pause: float) -> bool:
        """Whether the further attempt that would be made after ``pause`` is allowed, by all that is not about this one failure."""
        left = call.time_left()
        if call.repeatable() is False:
            return self._denied(call, "idempotency")
        if left is not None and pause >= left:
            return self._denied(call, "deadline")
        if self.options.shadow:
            self._site.shadow.note("retry", "retry", f"attempt {call.attempt + 1} after {pause:.3g} s")
            return False
        if self.budget is not None and not self.budget.take(call.clock.monotonic(), self._site.scale):
            return self._denied(call, "budget")
        self._count("made")
        return True

    def _count(self, decision: str) -> None:
        with self._lock:
            self._decisions[decision] += 1

    def _denied(self, call: Call, reason: str) -> bool:
        self._count(reason)
        if call.listeners.wants(RetryDenied):
            call.listeners.emit(RetryDenied(call.guard, call.clock.time(), call.attempt, reason))
        return False

    def _again(self, state: RetryState, error: Exception | None) -> bool | float:
        """Whether to try again; a number: after so many seconds."""
        if self._asks_tenacity:
            return bool(self.options.on(state))
        if self._predicate is None:
            return isinstance(error, self._types)
        said: Any = self._predicate(error)
        if isinstance(said, float | timedelta):
            return _in_bounds("predicate", said.total_seconds() if isinstance(said, timedelta) else said)
        return bool(said)

    def _rejected_too(self, error: Rejected) -> bool:
        return isinstance(error, self._rejections)

    def _pause(self, state: RetryState) -> float:
        wait = self.options.wait
        if wait is None:
            ceiling = exponential(state.attempt_number, base=_FIRST_WAIT, maximum=_LONGEST_WAIT)
            return full_jitter(ceiling, self._draws.next())
        if not callable(wait):
            return float(cast("float", wait))
        asked: Any = wait(state if self._wait_of_tenacity else state.attempt_number)
        return _in_bounds("wait function", float(asked))

    def _asked(self, error: Exception | None) -> float | None:
        """Seconds for which the failing answer asks to be left alone, if that is to be looked at and can be read."""
        if error is None or self.options.max_retry_after is None:
            return None
        return asked_or_none(error, self._site)

    @staticmethod
    def _state(call: Call, result: object, error: Exception | None, idle: float) -> RetryState:
        return RetryState(
            attempt_number=call.attempt,
            start_time=call.started,
            outcome_timestamp=call.clock.monotonic(),
            outcome=_Result(result, error),
            idle_for=idle,
            fn=call.function,
            args=call.args,
            kwargs=call.kwargs,
        )

    @staticmethod
    def _report(call: Call, error: Exception) -> None:
        if call.listeners.wants(AttemptFailed):
            call.listeners.emit(AttemptFailed(call.guard, call.clock.time(), call.attempt, type(error).__qualname__, call.injected))


def _in_bounds(what: str, seconds: float) -> float:
    # Written so that NaN is wrong as well.
    if not seconds <= _LONGEST_ASKED:
        raise ValueError(f"the {what} returned {seconds!r} s: expected at most {_LONGEST_ASKED:.0f}")
    return max(0.0, seconds)


def _suspends(value: object) -> bool:
    """Whether calling it gives a coroutine: some of tenacity's objects do, too."""
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(type(value), "__call__", None))  # noqa: B004


def _is_of_tenacity(value: object) -> bool:
    """Whether it is one of tenacity's callables, which take a state. Asked by name, so that tenacity is not imported for it."""
    return any(base.__module__.partition(".")[0] == "tenacity" for base in type(value).__mro__)
