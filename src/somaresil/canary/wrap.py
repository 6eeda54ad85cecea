"""What a decorated function does with a call: choose a side, and measure what the guards do not tell.

The plain function and the coroutine function are written out twice, as in :mod:`somaresil.guard.wrap`, for the same reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.guard.shape import Shape

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.canary.split import Canary

__all__ = ["MAKERS", "TOLD"]

Sides = tuple["Callable[..., Any]", "Callable[..., Any]"]
Key = Any


def _function(canary: Canary, sides: Sides, key_of: Key) -> Callable[..., Any]:
    controller, monotonic, limit, falls_back = canary.controller, canary.control.monotonic, canary.limit, canary.falls_back
    place = canary.place

    def routed(*args: Any, **kwargs: Any) -> Any:
        route = controller.route
        if route.settled:
            return sides[route.weight > 0.0](*args, **kwargs)
        number, key = (controller.draw(), None) if key_of is None else place(key_of, args, kwargs)
        candidate = number < route.cut
        started = monotonic()
        try:
            result = sides[candidate](*args, **kwargs)
        except BaseException as error:
            canary.failed(route, error, started, key, candidate=candidate)
            if not (falls_back and candidate and isinstance(error, Exception)):
                raise
        else:
            if monotonic() - started > limit:
                canary.late(route, key, candidate=candidate)
            else:
                next(route.good[candidate])
            return result
        return sides[0](*args, **kwargs)

    return routed


def _coroutine(canary: Canary, sides: Sides, key_of: Key) -> Callable[..., Any]:
    controller, monotonic, limit, falls_back = canary.controller, canary.control.monotonic, canary.limit, canary.falls_back
    place = canary.place

    async def routed(*args: Any, **kwargs: Any) -> Any:
        route = controller.route
        if route.settled:
            return await sides[route.weight > 0.0](*args, **kwargs)
        number, key = (controller.draw(), None) if key_of is None else place(key_of, args, kwargs)
        candidate = number < route.cut
        started = monotonic()
        try:
            result = await sides[candidate](*args, **kwargs)
        except BaseException as error:
            canary.failed(route, error, started, key, candidate=candidate)
            if not (falls_back and candidate and isinstance(error, Exception)):
                raise
        else:
            if monotonic() - started > limit:
                canary.late(route, key, candidate=candidate)
            else:
                next(route.good[candidate])
            return result
        return await sides[0](*args, **kwargs)

    return routed


def _chosen(canary: Canary, sides: Sides, key_of: Key) -> Callable[[tuple[Any, ...], dict[str, Any]], tuple[Callable[..., Any], bool]]:
    """What chooses the side of a call that the guards tell of."""
    controller = canary.controller

    def choose(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Callable[..., Any], bool]:
        route = controller.route
        if route.settled:
            return sides[route.weight > 0.0], False
        number = controller.draw() if key_of is None else canary.place(key_of, args, kwargs)[0]
        return sides[number < route.cut], canary.falls_back and number < route.cut

    return choose


def _told_function(canary: Canary, sides: Sides, key_of: Key) -> Callable[..., Any]:
    choose = _chosen(canary, sides, key_of)

    def routed(*args: Any, **kwargs: Any) -> Any:
        side, saved = choose(args, kwargs)
        try:
            return side(*args, **kwargs)
        except Exception:
            if not saved:
                raise
        return sides[0](*args, **kwargs)

    return routed


def _told_coroutine(canary: Canary, sides: Sides, key_of: Key) -> Callable[..., Any]:
    choose = _chosen(canary, sides, key_of)

    async def routed(*args: Any, **kwargs: Any) -> Any:
        side, saved = choose(args, kwargs)
        try:
            return await side(*args, **kwargs)
        except Exception:
            if not saved:
                raise
        return await sides[0](*args, **kwargs)

    return routed


def _generator(canary: Canary, sides: Sides, key_of: Key) -> Callable[..., Any]:
    choose = _chosen(canary, sides, key_of)

    def routed(*args: Any, **kwargs: Any) -> Any:
        side, _ = choose(args, kwargs)
        return (yield from side(*args, **kwargs))

    return routed


def _async_generator(canary: Canary, sides: Sides, key_of: Key) -> Callable[..., Any]:
    choose = _chosen(canary, sides, key_of)

    async def routed(*args: Any, **kwargs: Any) -> Any:
        side, _ = choose(args, kwargs)
        stream = side(*args, **kwargs)
        try:
            item = await anext(stream)
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as thrown:  # noqa: BLE001 - the stream decides what becomes of it
                    item = await stream.athrow(thrown)
                else:
                    item = await stream.asend(sent)
        except StopAsyncIteration:
            return
        finally:
            await stream.aclose()

    return routed


MAKERS: Final = {
    Shape.FUNCTION: _function,
    Shape.COROUTINE: _coroutine,
    Shape.GENERATOR: _generator,
    Shape.ASYNC_GENERATOR: _async_generator,
}
"""Wrappers by shape. Those of functions measure."""
TOLD: Final = {Shape.FUNCTION: _told_function, Shape.COROUTINE: _told_coroutine}
"""Those for functions whose guards tell of the calls."""
