"""Single flight: callers who ask for the same at the same time share one call.

When an entry of a cache runs out, everybody who wanted it calls at once; one of them is enough (Go's ``singleflight`` named it). The first
caller leads: its call is made, in its own task or thread, and the others wait for what comes of it. Asynchronous callers share within
their event loop, for what an answer holds may belong to it; synchronous ones share across threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from somaresil.callkey import key_of
from somaresil.config import Checker
from somaresil.errors import DeadlineExceeded
from somaresil.runtime import original, raise_again, twin

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from somaresil.runtime import Waiter
    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["SingleFlight", "SingleFlightPolicy"]


@dataclass(frozen=True, slots=True)
class SingleFlight:
    """Which calls ask for the same.

    Those who share get the same answer, and an error each an object of its own. A leader that is cancelled takes nobody with it: one of the
    others leads then. Whoever waits is not counted by retry, breaker and limits, for nothing is called. Streams are not shared.
    """

    key: Callable[..., Hashable] | None = None
    """A function of the arguments: calls of one function for which it returns the same ask for the same. None: the arguments themselves."""
    _: KW_ONLY
    shadow: bool = False
    """Count the calls that would share, and make them."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("SingleFlight")
        if self.key is not None and (not callable(self.key) or inspect.iscoroutinefunction(self.key)):
            check.problem("key", self.key, "a plain function of the arguments")
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()

    def unfit(self, *, suspends: bool, streams: bool) -> tuple[str, str] | None:  # noqa: ARG002 - both kinds of functions are fine
        """What may not be guarded with it: what is allowed instead, and what to do."""
        return ("none for a stream", "a stream has one reader; give this function a guard of its own") if streams else None

    def build(self, site: Site) -> SingleFlightPolicy:
        """The sharing at work."""
        return SingleFlightPolicy(self, site)


class _Flight:
    """One call that others may wait for."""

    __slots__ = ("answer", "awaits", "errors", "injected", "landed", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []
        self.awaits: list[_Flight] = []
        """The flights that whoever leads this one is waiting for."""
        self.landed = False
        """Whether there is an answer or an error. An abandoned flight never lands."""
        self.answer: Any = None
        self.errors: dict[Waiter, Exception] = {}
        """One for each who waits, until he takes it."""
        self.injected = False


class SingleFlightPolicy:
    """Flights at work. The lock is never held while one is in the air."""

    quiet = False

    def __init__(self, options: SingleFlight, site: Site) -> None:
        """Nothing in the air."""
        self.options = options
        self._site = site
        self._lock = threading.RLock()
        self._flights: dict[Hashable, _Flight] = {}
        self._shared = 0

    def reconfigure(self, options: SingleFlight) -> None:
        """Share by other rules from the next call on."""
        self.options = options

    @property
    def shared(self) -> int:
        """How many callers got what another one's call came to."""
        return self._shared

    @property
    def waiting(self) -> int:
        """How many callers wait for another one now."""
        with self._lock:
            return sum(len(flight.waiters) for flight in self._flights.values())

    async def __call__(self, inner: Next, call: Call) -> Any:
        """What the callee answers, to whoever asked."""
        if call.lasting or call.replayed is not None or (place := self._place(call)) is None:
            return await inner(call)
        while True:
            waiter = None
            with self._lock:
                flight = self._flights.get(place)
                if flight is None:
                    flight = self._flights[place] = _Flight()
                    leads = True
                else:
                    leads = False
                    if not self.options.shadow:
                        waiter = call.runtime.waiter()
                        flight.waiters.append(waiter)
            if leads:
                return await self._lead(flight, place, inner, call)
            if waiter is None:
                self._site.shadow.note("single_flight", "share")
                return await inner(call)
            if not await self._wait(flight, waiter, call):
                # It waits for us, in some way: who waits for himself waits for ever.
                return await inner(call)
            if flight.landed:
                return self._landed(flight, waiter, call)

    def _place(self, call: Call) -> Hashable:
        try:
            return None if call.blocking else asyncio.get_running_loop(), key_of(call, self.options.key)
        except Exception as broken:  # noqa: BLE001 - the call goes on by itself
            call.listeners.defect(f"key of the single flight of guard {call.guard}", broken, call.clock.time(), "the call was not shared")
            return None

    async def _lead(self, flight: _Flight, place: Hashable, inner: Next, call: Call) -> Any:
        token = _led.set((*_led.get(), flight))
        try:
            answer = await inner(call)
        except Exception as error:
            self._end(flight, place, call, None, original(error))
            raise
        except BaseException:
            self._end(flight, place)
            raise
        else:
            self._end(flight, place, call, answer)
            return answer
        finally:
            # A coroutine that is closed by the garbage collector ends in another context.
            with contextlib.suppress(ValueError):
                _led.reset(token)

    def _end(self, flight: _Flight, place: Hashable, call: Call | None = None, answer: Any = None, error: Exception | None = None) -> None:
        """Tell everybody who waits; without a ``call`` that it was abandoned."""
        with self._lock:
            del self._flights[place]
            waiters, flight.waiters = flight.waiters, []
        if waiters and call is not None:
            flight.answer, flight.injected = answer, call.injected
            if error is not None:
                # The error itself belongs to whoever leads.
                flight.errors = {waiter: twin(error) for waiter in waiters}
            flight.landed = True
        for waiter in waiters:
            waiter.wake()

    async def _wait(self, flight: _Flight, waiter: Waiter, call: Call) -> bool:
        """Wait until the flight has ended, in either way. False: do not wait."""
        ours = _led.get()
        try:
            if ours:
                with _graph:
                    if _leads_to(flight, ours):
                        self._left(flight, waiter)
                        return False
                    for led in ours:
                        led.awaits.append(flight)
            try:
                woken = await waiter.wait(call.time_left())
            finally:
                if ours:
                    with _graph:
                        for led in ours:
                            led.awaits.remove(flight)
        except BaseException:
            self._left(flight, waiter)
            raise
        if not woken:
            self._left(flight, waiter)
            raise DeadlineExceeded(call.guard, None, "it passed while another caller's answer was waited for")
        return True

    def _left(self, flight: _Flight, waiter: Waiter) -> None:
        """Wait no more. What was meant for him would keep the frames of the leader alive, and they the flight."""
        with self._lock:
            if waiter in flight.waiters:
                flight.waiters.remove(waiter)
        flight.errors.pop(waiter, None)

    def _landed(self, flight: _Flight, waiter: Waiter, call: Call) -> Any:
        with self._lock:
            self._shared += 1
        if flight.injected:
            call.touch()
        error = flight.errors.pop(waiter, None)
        if error is not None:
            try:
                raise_again(error)
            finally:
                del error
        return flight.answer


_led: ContextVar[tuple[_Flight, ...]] = ContextVar("somaresil_flights", default=())
"""The flights that are led in this context: tasks and threads that a leader begins belong to it."""

_graph = threading.RLock()
"""One for all guards: a leader that waits for another flight, which may be a guard's of its own, is rare."""


def _leads_to(flight: _Flight, ours: tuple[_Flight, ...]) -> bool:
    """Whether whoever leads ``flight`` waits for one of ``ours``, over however many others."""
    seen: set[int] = set()
    ahead = [flight]
    while ahead:
        other = ahead.pop()
        if other in ours:
            return True
        if id(other) not in seen:
            seen.add(id(other))
            ahead.extend(other.awaits)
    return False
