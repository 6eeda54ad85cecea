"""The shapes that users and the parts of somaresil hand to one another. Protocols only: nothing here has to be inherited from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    import threading

    from somaresil.listeners import Listeners
    from somaresil.model.breaker import Breaker, Permit, Transition
    from somaresil.outcome import Fatal, Outcome
    from somaresil.runtime import Runtime

__all__ = ["Aftermath", "Call", "Clock", "Coordinator", "FaultRule", "Instead", "Next", "Onlooker", "Policy", "Strike"]


class Clock(Protocol):
    """Time and waiting. :class:`~somaresil.clock.SystemClock` and :class:`~somaresil.clock.ManualClock` are ours."""

    def monotonic(self) -> float:
        """Seconds on a clock that never steps; for measuring."""
        ...

    def time(self) -> float:
        """Seconds since the epoch; for stamps only."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the thread."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Suspend the task."""
        ...

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until the event is set; False when the timeout came first."""
        ...

    async def await_(self, future: asyncio.Future[Any], timeout: float | None) -> bool:  # noqa: ASYNC109
        """Suspend until the future is done; False when the timeout came first."""
        ...


class Call(Protocol):
    """One call on its way through the policies of a guard."""

    guard: str
    """Name of the guard."""
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    clock: Clock
    listeners: Listeners
    attempt: int
    """Which attempt this is, counted from 1 by whoever repeats."""
    made: int
    """How often the callee was called for it."""
    injected: bool
    """Whether an experiment has touched it; set by :meth:`touch`."""
    replayed: BaseException | None
    """Set on the first pass of a call that began on the quiet path: the error that its first attempt has ended with already."""
    started: float
    """Monotonic time at which the call began."""
    key: Hashable | None
    """Whose call it is: the circuit of that key judges it; None: that of the guard."""
    era: int
    """Era of the breaker in which a replayed call was admitted."""
    lasting: bool
    """Whether the call goes on after the policies have returned: a stream, or a ``with`` block."""
    block: bool
    """Whether it is a ``with`` block: its body cannot be run again."""
    blocking: bool
    """Whether waiting blocks the thread: :attr:`runtime` says the same, in more time."""
    late: bool
    """Set when a synchronous callee answered after its time was up."""
    fatal: Fatal | None
    """Set by :meth:`judge`: whether the end that it judged last is fatal."""
    scope: Any
    """The :class:`~somaresil.expiry.Expiry` around an ``async with`` block, and its seconds."""
    timed_from: float
    """Monotonic time from which a lasting call is timed: when it was let in, for time in line is nobody's fault in there."""
    function: Callable[..., Any]
    """What the user calls."""

    def touch(self, by: str = "") -> None:
        """An experiment strikes it, whose id is ``by`` where that is known."""
        ...

    @property
    def runtime(self) -> Runtime:
        """How it waits."""
        ...

    def judge(self, result: object, error: BaseException | None) -> Outcome:
        """How this end counts, by the guard's ``classify`` or the usual rule. Never raises."""
        ...

    def time_left(self) -> float | None:
        """Seconds until the deadline of the request, at least 0; None: it has none."""
        ...

    def repeatable(self) -> bool | None:
        """Whether calling again does no harm; None: the guard was not told."""
        ...

    def at_end(self, done: Callable[[Outcome, float], None]) -> None:
        """Have ``done(outcome, now)`` called when a lasting call has ended."""
        ...

    def sibling(self) -> Call:
        """Another attempt of this call, with books of its own until :meth:`absorb`."""
        ...

    def absorb(self, other: Any, *, won: bool = False) -> None:
        """Take over what an attempt that has ended leaves behind; with ``won`` its permits too, which are else given back."""
        ...

    async def discard(self, result: Any) -> None:
        """Do away with what an attempt has answered and nobody wants."""
        ...

    def invoke(self, function: Callable[..., Any]) -> Awaitable[Any]:
        """Call ``function`` with the arguments of the call, in the way in which its kind of function is called."""
        ...


Next = Callable[[Any], Coroutine[Any, Any, Any]]
"""What is inside a policy: the next policy, or the callee."""


class Policy(Protocol):
    """Wraps a call. The first named is the outermost."""

    async def __call__(self, inner: Next, call: Any, /) -> Any:
        """Let the call through, or not, or again."""
        ...


class Coordinator(Protocol):
    """Who moves a breaker together with those of other processes.

    Each method is called with the lock of the breaker held, on the path of a call: it never waits and never raises.
    """

    def admit(self, model: Breaker, now: float) -> tuple[Permit | None, Transition | None]:
        """In place of ``model.admit``: leave to call, if the other processes leave a probe for this one."""
        ...

    def settled(self, permit: Permit, now: float, outcome: Outcome | None, *, slow: bool = False) -> None:
        """How a call ended that this era admitted; None: without a verdict. Told before the step that it leads to, if any."""
        ...

    def moved(self, model: Breaker, transition: Transition, *, injected: bool) -> None:
        """The breaker took a step; ``injected``: an experiment pulled it."""
        ...

    def prolonged(self, model: Breaker) -> None:
        """The opening that it was told of lasts longer: the failing answer asked for that."""
        ...


Aftermath = Callable[[Any, Any], Awaitable[Any]]
"""What an experiment does to an answer: called with the call and the answer, it returns the answer, another one, or raises."""


class Onlooker(Protocol):
    """Who is told of the attempts of a guard, in the thread that makes them. What it raises is reported and changes nothing."""

    def began(self, call: Any, /) -> object:
        """An attempt begins."""
        ...

    def ended(self, call: Any, error: BaseException | None, /) -> object:
        """It has ended; of a stream: its first item is there. ``error``: what it has raised."""
        ...

    def struck(self, call: Any, /) -> object:
        """An experiment strikes it; the event of the strike was told just before."""
        ...


Instead = Callable[[Any], Awaitable[Any]]
"""What an experiment answers in place of the callee: called with the call, it returns the answer or raises."""


class Strike(Protocol):
    """What an experiment does to one call: first the delay, then the error or the answer; or, in place of all, something to its answer."""

    @property
    def delay(self) -> float:
        """Seconds to wait."""
        ...

    @property
    def error(self) -> BaseException | None:
        """What to raise, if anything."""
        ...

    @property
    def instead(self) -> Instead | None:
        """What answers in place of the callee, if anything."""
        ...

    @property
    def after(self) -> Aftermath | None:
        """What to do to the answer, if anything. It marks the call as struck when it does it."""
        ...


class FaultRule(Protocol):
    """An armed experiment as a guard sees it."""

    @property
    def live(self) -> bool:
        """Whether its lease runs: it has begun and is not over."""
        ...

    @property
    def over(self) -> bool:
        """Whether its lease has ended: then the guard may forget it."""
        ...

    def decide(self, call: Any = None, /) -> Any:
        """Whether to strike this call: anything that is true, which :meth:`strike` is given back. Counts the calls that come by.

        Asked of every rule before one of them strikes.
        """
        ...

    def strike(self, decided: Any = None, /) -> Strike | None:
        """What to do to a call that it has decided to strike; None: leave it alone. Counts and reports the strike."""
        ...

    async def hold(self, runtime: Runtime, seconds: float) -> bool:
        """Delay a call. False when the experiment ended before that: then nothing more is done to the call."""
        ...
