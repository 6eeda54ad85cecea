"""What kind of callable somebody wants to have guarded.

Asked once, at decoration. What cannot be guarded is refused there, with the way to mend it: a breaker around the wrong thing is
decoration only (pybreaker around an ``async def`` counts the creation of the coroutine as a success and never opens).
"""

from __future__ import annotations

import functools
import inspect
from enum import Enum, auto
from types import CoroutineType
from typing import Any

from somaresil.config import Checker

__all__ = ["Shape", "check_decoratable", "shape_of"]


class Shape(Enum):
    """How a callable is called."""

    FUNCTION = auto()
    COROUTINE = auto()
    GENERATOR = auto()
    ASYNC_GENERATOR = auto()


def shape_of(target: Any) -> Shape:
    """The shape of a callable; looks through partials, bound methods and ``__call__`` of objects."""
    while isinstance(target, functools.partial):
        target = target.func
    if not inspect.isroutine(target) and not inspect.isfunction(inspect.unwrap(target)):
        if inspect.iscoroutinefunction(target):
            # Asked of the object first: mocks, and what inspect.markcoroutinefunction has marked, are coroutine functions by themselves.
            return Shape.COROUTINE
        target = type(target).__call__
    if inspect.isasyncgenfunction(target):
        return Shape.ASYNC_GENERATOR
    if inspect.iscoroutinefunction(target):
        return Shape.COROUTINE
    if inspect.isgeneratorfunction(target):
        return Shape.GENERATOR
    return Shape.FUNCTION


def check_decoratable(guard: str, target: object) -> None:
    """Raise :class:`~somaresil.errors.ConfigurationError` when ``target`` cannot be guarded, and say what can."""
    remedy = _remedy(target)
    if remedy is not None:
        check = Checker(f"guard({guard!r})")
        check.problem("target", target, "a function, coroutine function, generator function, method, partial or callable object", remedy)
        check.finish()


def _remedy(target: object) -> str | None:
    if isinstance(target, type):
        return "it is a class: decorate its methods, or use guard.call(SomeClass, ...) for its construction"
    if isinstance(target, property):
        return "it is a property: decorate the getter, below @property"
    if isinstance(target, functools.cached_property | functools.partialmethod):
        return f"it is a {type(target).__name__}: decorate the function that it wraps"
    if isinstance(target, CoroutineType):
        target.close()
        return "it is a coroutine, already called: decorate the function, or use await guard.acall(function, ...)"
    if inspect.isgenerator(target) or inspect.isasyncgen(target):
        return "it is a generator, already called: decorate the generator function"
    if inspect.isawaitable(target):
        return "it is an awaitable, already under way: guard what starts it"
    if not callable(target):
        return "it cannot be called"
    return None
