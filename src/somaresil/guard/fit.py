"""Whether a guard's options are for what it is put on: asked when something is decorated or called, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from somaresil.config import Checker
from somaresil.guard.shape import Shape, check_decoratable, shape_of

if TYPE_CHECKING:
    from somaresil.guard.core import Guard

__all__ = ["check_called", "check_decorated"]


def check_decorated(guard: Guard, target: object) -> None:
    """Raises :class:`~somaresil.errors.ConfigurationError` for a target that an option is not for."""
    _check_fallback(guard, target)
    _check_timeout(guard, target)
    _check_objectives(guard, target)
    _check_particular(guard, target)


def check_called(guard: Guard, function: Any, *, awaited: bool = False) -> None:
    """The same for a function that is called once; ``awaited``: its result is, whatever kind of function it is."""
    if not callable(function):
        check_decoratable(guard.name, function)
    _check_fallback(guard, function)
    _check_objectives(guard, function)
    _check_particular(guard, function, awaited=awaited)


def _check_particular(guard: Guard, target: object, *, awaited: bool = False) -> None:
    """Ask the options that are not for every kind of function."""
    target = target.__func__ if isinstance(target, classmethod | staticmethod) else target
    if not guard.particular or not callable(target):
        return
    shape = shape_of(target)
    check = Checker(f"guard({guard.name!r})")
    for layer, options in guard.particular:
        unfit = options.unfit(
            suspends=awaited or shape in {Shape.COROUTINE, Shape.ASYNC_GENERATOR},
            streams=shape in {Shape.GENERATOR, Shape.ASYNC_GENERATOR},
        )
        if unfit is not None:
            check.problem(layer, options, *unfit)
    check.finish()


def _check_timeout(guard: Guard, target: object) -> None:
    timeout = guard.options.timeout
    target = target.__func__ if isinstance(target, classmethod | staticmethod) else target
    if timeout is None or timeout.total is not None or not callable(target):
        return
    if shape_of(target) in {Shape.FUNCTION, Shape.COROUTINE}:
        check = Checker(f"guard({guard.name!r})")
        check.problem("timeout", timeout, "total=", "first_item and idle are about streams, and this is none: nothing would time out")
        check.finish()


def _check_objectives(guard: Guard, target: object) -> None:
    """An objective about streams would never hear of anything else."""
    target = target.__func__ if isinstance(target, classmethod | staticmethod) else target
    wrong = [probe.only_streams for probe in guard.probes if probe.only_streams]
    if wrong and callable(target) and shape_of(target) not in {Shape.GENERATOR, Shape.ASYNC_GENERATOR}:
        check = Checker(f"guard({guard.name!r})")
        for name in wrong:
            check.problem("slo", name, "no objective about streams", "this is none: it would never have an event")
        check.finish()


def _check_fallback(guard: Guard, target: object) -> None:
    fallback = guard.options.fallback
    # A classmethod object cannot be called; what it holds can.
    target = target.__func__ if isinstance(target, classmethod) else target
    if fallback is None or not callable(target) or shape_of(target) not in {Shape.FUNCTION, Shape.GENERATOR}:
        return
    check = Checker(f"guard({guard.name!r})")
    for link in fallback.links:
        if shape_of(link.handler) in {Shape.COROUTINE, Shape.ASYNC_GENERATOR}:
            hint = "a synchronous call cannot await; give this function a guard of its own"
            check.problem("fallback", link.handler, "a plain function", hint)
    check.finish()
