"""A request plan in flight: whose calls are meant, what strikes them, and how long.

Each rule of it is an experiment like any other, armed in the same guards and routes, whose rules ask one thing more: is this call made for
our request? A context variable answers, which follows tasks, ``asyncio.to_thread`` and whatever else copies the context.
"""

from __future__ import annotations

import threading
from contextvars import ContextVar
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Protocol

from somaresil.chaos.run import ExperimentRun, Rule

if TYPE_CHECKING:
    from contextvars import Token
    from typing import Self

    from somaresil.chaos.run import Decision, Hit
    from somaresil.chaos.token import RequestPlan

__all__ = ["CarriedStream", "PlanInFlight", "RequestRule", "RequestRun", "current", "leave"]

_plan: ContextVar[PlanInFlight | None] = ContextVar("somaresil_request_plan", default=None)

current: Final = _plan.get
"""The plan of this context, or None."""
enter: Final = _plan.set
"""Change it; give the token back to :func:`leave`."""


def leave(token: Token[PlanInFlight | None]) -> None:
    """Go back to the plan outside."""
    try:
        _plan.reset(token)
    except ValueError:
        # A generator that is closed by the garbage collector ends in another context, which has a plan of its own or none.
        return


class Desk(Protocol):
    """Who has taken a plan."""

    def begin(self, flight: PlanInFlight, /) -> None:
        """Arm what it names."""
        ...

    def end(self, flight: PlanInFlight, /) -> None:
        """Disarm it."""
        ...

    def signed_child(self, plan: RequestPlan, /, *parts: object) -> str:
        """A single use of it for somebody else, signed."""
        ...


class RequestRun(ExperimentRun):
    """One approved rule in one plan in flight. It strikes the calls of that request, and tells of strikes alone: requests are many."""

    flight: PlanInFlight
    """What it belongs to; set before it is armed."""
    name: str
    """The name of the approved rule; set before it is armed."""
    longest_delay: float | None = None
    """What the plan has lowered the delay to."""

    def rule(self, component: str) -> Rule:
        """The rule for one guard."""
        return RequestRule(self, component)

    def strike_request(self, scope: Any = None) -> Hit | None:
        """Decide about a request, if it is ours."""
        return super().strike_request(scope) if current() is self.flight else None

    def claim(self, component: str | None = None, *, delays: bool = False) -> bool:
        """Count one strike, and mark the answer with it."""
        claimed = super().claim(component, delays=delays)
        if claimed:
            self.flight.struck.setdefault(self.id)
        return claimed

    def delay(self, decision: Decision, item: int | None = None) -> float:
        """Seconds of a delay, as far as the plan lets it be."""
        delay, longest = super().delay(decision, item), self.longest_delay
        return delay if longest is None else min(delay, longest)

    def _tell_begin(self) -> None:
        self.begun = True

    def _let_go(self, reason: str) -> None:  # noqa: ARG002 - as it is called
        with self._lock:
            release, self._release = self._release, []
        self._run_all(release)


class RequestRule(Rule):
    """Strikes a call of a guard when it is made for the request of its plan."""

    __slots__ = ()
    run: RequestRun

    def decide(self, call: Any = None, /) -> Any:
        """Calls of other requests are not even counted."""
        return super().decide(call) if current() is self.run.flight else None


class PlanInFlight:
    """A plan that was taken, from ``with`` until its end. Used once; :meth:`~somaresil.chaos.requests.RequestPlans.arriving` makes it."""

    __slots__ = ("_children", "_desk", "_holders", "_lock", "_token", "active", "plan", "runs", "struck", "text", "use")

    def __init__(self, desk: Desk, plan: RequestPlan, text: str, use: int) -> None:
        """The ``use``-th use of ``plan``, which came as ``text``."""
        self._desk = desk
        self.plan = plan
        self.text = text
        self.use = use
        self.runs: tuple[RequestRun, ...] = ()
        self.struck: dict[str, None] = {}
        """Ids of the experiments that have struck something, in order."""
        self.active = False
        """Whether it is in flight."""
        self._lock = threading.RLock()
        self._holders = 0
        self._children = count(1)
        self._token: Token[PlanInFlight | None] | None = None

    def __enter__(self) -> Self:
        """From here on calls are struck."""
        self.hold()
        self._desk.begin(self)
        self._token = enter(self)
        return self

    def __exit__(self, *_: object) -> None:
        """The request is over, and with it everything that was armed for it, unless a stream of it is still carried on."""
        if self._token is not None:
            leave(self._token)
        self.release()

    def hold(self) -> None:
        """Somebody more needs it."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Somebody needs it no longer; the last one ends it."""
        with self._lock:
            self._holders -= 1
            last = self._holders == 0
        if last:
            self._desk.end(self)

    def belongs_to(self, desk: Desk) -> bool:
        """Whether this process's ``desk`` has taken it: several may live in one."""
        return self._desk is desk

    def onward(self, *to: object) -> str:
        """The plan for one further request: as it came, or with a use of its own when uses are counted."""
        if self.plan.uses is None:
            return self.text
        return self._desk.signed_child(self.plan, self.use, *to, next(self._children))


class CarriedStream:
    """A stream each of whose steps runs with a plan, whoever asks for the step."""

    __slots__ = ("_flight", "_source")

    def __init__(self, source: Any, flight: PlanInFlight) -> None:
        flight.hold()
        self._source = source
        self._flight: PlanInFlight | None = flight

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        token = enter(self._flight)
        try:
            return await self._source.__anext__()
        except BaseException:
            self._over()
            raise
        finally:
            leave(token)

    async def aclose(self) -> None:
        """Close the source; the plan is over."""
        token = enter(self._flight)
        try:
            close = getattr(self._source, "aclose", None)
            if close is not None:
                await close()
        finally:
            leave(token)
            self._over()

    def _over(self) -> None:
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.release()

    def __del__(self) -> None:
        self._over()
