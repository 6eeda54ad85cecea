"""R2: what a callable is, is found out at decoration; failures of every shape are seen, and what cannot be guarded is refused there.

pybreaker's decorator never sees an ``async def``; generators and async generators go unseen through most breakers.
"""

from __future__ import annotations

import asyncio
import functools
from functools import cached_property, partialmethod

import pytest

from somaresil import ConfigurationError
from tests.behaviour.kit import Boom, Stand, one_strike


def function():
    raise Boom("down")


async def coroutine_function():
    await asyncio.sleep(0)
    raise Boom("down")


def generator_function():
    yield 1
    raise Boom("down")


async def async_generator_function():
    yield 1
    raise Boom("down")


class Plain:
    def __call__(self):
        raise Boom("down")

    def method(self):
        raise Boom("down")

    async def async_method(self):
        raise Boom("down")


class Suspending:
    async def __call__(self):
        raise Boom("down")


class Streaming:
    def __call__(self):
        yield 1
        raise Boom("down")


class StreamingSuspended:
    async def __call__(self):
        yield 1
        raise Boom("down")


async def collect(stream):
    return [item async for item in stream]


RUN = {
    "call": lambda result: result(),
    "await": lambda result: asyncio.run(result()),
    "iterate": lambda result: list(result()),
    "iterate async": lambda result: asyncio.run(collect(result())),
}

SHAPES = {
    "function": (function, "call"),
    "coroutine function": (coroutine_function, "await"),
    "generator": (generator_function, "iterate"),
    "async generator": (async_generator_function, "iterate async"),
    "partial": (functools.partial(function), "call"),
    "partial of a coroutine function": (functools.partial(functools.partial(coroutine_function)), "await"),
    "partial of a generator": (functools.partial(generator_function), "iterate"),
    "partial of an async generator": (functools.partial(async_generator_function), "iterate async"),
    "callable object": (Plain(), "call"),
    "object with async __call__": (Suspending(), "await"),
    "object with a generator as __call__": (Streaming(), "iterate"),
    "object with an async generator as __call__": (StreamingSuspended(), "iterate async"),
    "bound method": (Plain().method, "call"),
    "bound async method": (Plain().async_method, "await"),
    "partial of an object with async __call__": (functools.partial(Suspending()), "await"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_r02_a_failure_of_every_shape_is_seen(shape):
    """One failure opens a breaker that opens at the first failure, and the next call does not reach the callee."""
    target, how = SHAPES[shape]
    stand = Stand(breaker=one_strike())
    guarded = stand.guard(target)
    with pytest.raises(Boom):
        RUN[how](guarded)
    assert stand.state == "open"
    with pytest.raises(Exception, match="circuit open"):
        RUN[how](guarded)


async def _never():
    raise AssertionError


class Later:
    """Something that is under way already, as a future is."""

    def __await__(self):
        yield


REFUSED = {
    "class": (lambda: Plain, "decorate its methods"),
    "property": (lambda: property(function), "decorate the getter"),
    "cached property": (lambda: cached_property(lambda self: 1), "cached_property: decorate the function that it wraps"),
    "partialmethod": (lambda: partialmethod(function), "partialmethod: decorate the function that it wraps"),
    "coroutine": (_never, "already called: decorate the function"),
    "generator object": (generator_function, "already called: decorate the generator function"),
    "async generator object": (async_generator_function, "already called: decorate the generator function"),
    "awaitable": (Later, "already under way: guard what starts it"),
    "number": (lambda: 5, "it cannot be called"),
    "nothing": (lambda: None, "it cannot be called"),
    "classmethod of a class": (lambda: classmethod(Plain), "decorate its methods"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_r02_what_cannot_be_guarded_is_refused_at_decoration(what):
    """The error names the guard, what was given, what can be guarded, and the way to mend it."""
    make, fix = REFUSED[what]
    with pytest.raises(ConfigurationError) as raised:
        Stand().guard(make())
    (problem,) = raised.value.problems
    assert problem.path == "guard('dependency').target"
    assert "coroutine function" in problem.allowed
    assert fix in problem.hint
