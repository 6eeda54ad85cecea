"""The control answers, and the candidate is asked the same afterwards: so many at once, for so long, and nobody waits for it.

How a side did is measured here where a call's end and time say it all; of streams and judged results its guard tells, to the pair that the
call belongs to.
"""

from __future__ import annotations

import asyncio
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, Final

from somaresil.guard.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.canary.controller import Route
    from somaresil.canary.split import Canary

__all__ = ["SHADOWING", "Half", "current"]

Sides = tuple["Callable[..., Any]", "Callable[..., Any]"]


class Half:
    """One side of a pair, of which its guard tells."""

    __slots__ = ("canary", "good")

    def __init__(self, canary: Canary) -> None:
        """Nothing was told."""
        self.canary = canary
        """Whose pair it is: within a call others may be made that are canaries too."""
        self.good: bool | None = None


_half: ContextVar[Half | None] = ContextVar("somaresil_canary_half", default=None)
current: Final = _half.get
"""The half that the call of this context is, or None."""


class _Shadows:
    """Calls of a candidate that nobody waits for: so many at once, for so long, outside of the context of the request."""

    def __init__(self, canary: Canary, candidate: Callable[..., Any], *, by_guard: bool, stream: bool) -> None:
        """None is under way."""
        self._canary = canary
        self._candidate = candidate
        self._by_guard = by_guard
        self._stream = stream
        self._under_way: set[asyncio.Task[None]] = set()

    def begin(self, route: Route, control_good: bool | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: FBT001
        """Ask the candidate what the control was asked, unless that says nothing or too many are under way. Never raises."""
        try:
            if control_good is None or len(self._under_way) >= self._canary.shadow_limit:
                return
            # In a context of its own: the deadline of the request is not its affair.
            run = self._run(route, args, kwargs, control_bad=not control_good)
            task = asyncio.get_running_loop().create_task(run, context=Context())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
        except Exception as defect:  # noqa: BLE001 - the caller has his answer
            self._canary.report(defect)

    async def _run(self, route: Route, args: tuple[Any, ...], kwargs: dict[str, Any], *, control_bad: bool) -> None:
        canary, half = self._canary, Half(self._canary)
        _half.set(half)
        started, error, late = canary.control.monotonic(), None, False
        limit = asyncio.timeout(canary.shadow_timeout)
        try:
            async with limit:
                await self._ask(args, kwargs)
        except Exception as raised:  # noqa: BLE001 - it is what is looked for
            error, late = raised, limit.expired()
        if late:
            # To a guard it is a call whose caller has left; here it is one that was given up, and bad in every sense.
            good = None if canary.candidate.faults.rules else False
        else:
            good = half.good if self._by_guard else canary.says(error, started, candidate=True)
        if good is not None:
            canary.controller.both_ended(route, candidate_bad=not good, control_bad=control_bad)

    async def _ask(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        asked = self._candidate(*args, **kwargs)
        if not self._stream:
            await asked
            return
        try:
            async for _ in asked:
                pass
        finally:
            await asked.aclose()


def _measured(canary: Canary, sides: Sides) -> Callable[..., Any]:
    controller, monotonic, control = canary.controller, canary.control.monotonic, sides[0]
    shadows = _Shadows(canary, sides[1], by_guard=False, stream=False)

    async def routed(*args: Any, **kwargs: Any) -> Any:
        route = controller.route
        if route.settled or controller.draw() >= route.cut:
            return await control(*args, **kwargs)
        started = monotonic()
        try:
            result = await control(*args, **kwargs)
        except BaseException as error:
            shadows.begin(route, canary.says(error, started, candidate=False), args, kwargs)
            raise
        shadows.begin(route, canary.says(None, started, candidate=False), args, kwargs)
        return result

    return routed


def _told(canary: Canary, sides: Sides) -> Callable[..., Any]:
    controller, control = canary.controller, sides[0]
    shadows = _Shadows(canary, sides[1], by_guard=True, stream=False)

    async def routed(*args: Any, **kwargs: Any) -> Any:
        route = controller.route
        if route.settled or controller.draw() >= route.cut:
            return await control(*args, **kwargs)
        half = Half(canary)
        token = _half.set(half)
        try:
            return await control(*args, **kwargs)
        finally:
            _half.reset(token)
            shadows.begin(route, half.good, args, kwargs)

    return routed


def _stream(canary: Canary, sides: Sides) -> Callable[..., Any]:
    controller, control = canary.controller, sides[0]
    shadows = _Shadows(canary, sides[1], by_guard=True, stream=True)

    async def routed(*args: Any, **kwargs: Any) -> Any:
        route, half = controller.route, Half(canary)
        paired = not route.settled and controller.draw() < route.cut
        stream = control(*args, **kwargs)

        async def step(ask: Callable[..., Any], *given: Any) -> Any:
            # Step by step: in between the reader is in the same context, and calls others.
            token = _half.set(half)
            try:
                return await ask(*given)
            finally:
                _half.reset(token)

        try:
            item = await step(stream.__anext__)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as thrown:  # noqa: BLE001 - the stream decides what becomes of it
                    item = await step(stream.athrow, thrown)
                else:
                    item = await step(stream.asend, sent)
        except StopAsyncIteration:
            return
        finally:
            await step(stream.aclose)
            if paired:
                shadows.begin(route, half.good, args, kwargs)

    return routed


SHADOWING: Final = {
    (Shape.COROUTINE, False): _measured,
    (Shape.COROUTINE, True): _told,
    (Shape.ASYNC_GENERATOR, True): _stream,
}
"""Wrappers by shape, and by whether the guards tell how a call counts."""
