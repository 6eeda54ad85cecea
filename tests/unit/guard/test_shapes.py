"""A guarded callable is of the same kind as before, and looks like it."""

from __future__ import annotations

import abc
import asyncio
import functools
import inspect
import operator
from unittest.mock import AsyncMock

import pytest

from somaresil import ConfigurationError, Fallback, Outcome
from somaresil.guard.shape import Shape, shape_of
from tests.behaviour.kit import Boom, Stand, both_paths

KINDS = [inspect.isfunction, inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction]


def function(first: int, /, second: str = "x", *, third: float = 1.0) -> tuple[object, ...]:
    """Its own words."""
    return first, second, third


async def coroutine_function(first: int, /, second: str = "x", *, third: float = 1.0) -> tuple[object, ...]:
    """Its own words."""
    return first, second, third


def generator_function(first: int, /, second: str = "x", *, third: float = 1.0):
    """Its own words."""
    yield from (first, second, third)


async def async_generator_function(first: int, /, second: str = "x", *, third: float = 1.0):
    """Its own words."""
    for item in (first, second, third):
        yield item


async def collect(stream):
    return tuple([item async for item in stream])


RUN = {
    function: lambda call: call,
    coroutine_function: asyncio.run,
    generator_function: tuple,
    async_generator_function: lambda stream: asyncio.run(collect(stream)),
}
functions = pytest.mark.parametrize("target", RUN, ids=lambda target: target.__name__)


@functions
def test_a_function_keeps_its_kind_its_signature_and_its_words(target):
    """Frameworks look at these: signature, name, doc, module, annotations, and of what kind it is."""
    target.mark = "kept"
    guarded = Stand().guard(target)
    assert inspect.signature(guarded) == inspect.signature(target)
    assert [kind(guarded) for kind in KINDS] == [kind(target) for kind in KINDS]
    for name in ("__name__", "__qualname__", "__doc__", "__module__", "__annotations__", "mark"):
        assert getattr(guarded, name) == getattr(target, name)
    assert guarded.__wrapped__ is target
    assert inspect.unwrap(guarded) is target


@both_paths
@functions
def test_arguments_and_results_pass_as_they_are(target, held):
    """Positional-only, defaults, keywords; one good call in the records."""
    stand = Stand(held=held)
    guarded = stand.guard(target)
    assert RUN[target](guarded(1, third=2.0)) == (1, "x", 2.0)
    assert RUN[target](guarded(1, "y")) == (1, "y", 1.0)
    assert stand.count(Outcome.GOOD) == stand.count() == 2


@both_paths
@functions
def test_wrong_arguments_are_the_callers_error(target, held):
    """A TypeError as without the guard, which tells of the target."""
    guarded = Stand(held=held).guard(target)
    with pytest.raises(TypeError, match=target.__name__):
        RUN[target](guarded())


@both_paths
def test_methods_of_every_kind_in_either_order(held):
    """Methods, class methods and static methods, with the guard above or below the built-in decorator; inherited ones too."""
    stand = Stand(held=held)
    guard = stand.guard

    class Base:
        base = 10

        @guard
        def method(self, number):
            """Its own words."""
            return self.base + number

        @guard
        @classmethod
        def class_above(cls, number):
            """Its own words."""
            return cls.base + number

        @classmethod
        @guard
        def class_below(cls, number):
            return cls.base + number

        @guard
        @staticmethod
        def static_above(number):
            return number

        @staticmethod
        @guard
        def static_below(number):
            return number

        @guard
        async def suspending(self, number):
            return self.base + number

        @property
        @guard
        def value(self):
            return self.base

        @guard
        @classmethod
        async def class_suspending(cls, number):
            return cls.base + number

        @guard
        @staticmethod
        def static_stream(number):
            yield number

    class Child(Base):
        base = 20

        def method(self, number):
            return super().method(number) + 1

    child = Child()
    assert child.method(1) == 22
    assert Base.method(child, 1) == 21
    assert (Child.class_above(1), child.class_above(1), Child.class_below(1)) == (21, 21, 21)
    assert (Child.static_above(1), child.static_above(1), Child.static_below(1)) == (1, 1, 1)
    assert asyncio.run(child.suspending(1)) == 21
    assert asyncio.run(Child.class_suspending(1)) == 21
    assert list(child.static_stream(1)) == [1]
    assert child.value == 20
    assert stand.count(Outcome.GOOD) == stand.count() == 12
    assert inspect.ismethod(child.method)
    assert str(inspect.signature(Base.class_above)) == "(number)"
    assert Base.class_above.__doc__ == Base.method.__doc__ == "Its own words."
    assert isinstance(inspect.getattr_static(Base, "class_above"), classmethod)
    assert isinstance(inspect.getattr_static(Base, "static_above"), staticmethod)


def test_an_abstract_method_stays_abstract():
    """A class with one cannot be made."""
    guard = Stand().guard

    class Port(abc.ABC):
        @guard
        @abc.abstractmethod
        def send(self):
            """To be made."""

    with pytest.raises(TypeError, match="abstract"):
        Port()


@both_paths
def test_a_partial_keeps_its_signature(held):
    """What is bound already is not asked for."""
    stand = Stand(held=held)
    guarded = stand.guard(functools.partial(function, 1, third=3.0))
    assert guarded("z") == (1, "z", 3.0)
    assert "first" not in inspect.signature(guarded).parameters
    suspending = stand.guard(functools.partial(coroutine_function, 1))
    assert inspect.iscoroutinefunction(suspending)
    assert asyncio.run(suspending()) == (1, "x", 1.0)


class Model:
    """A callable object with a life of its own."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, number: int) -> int:
        self.calls += 1
        if number < 0:
            raise Boom
        return number + 1

    def reset(self) -> None:
        self.calls = 0


@both_paths
def test_a_callable_object_is_still_that_object(held):
    """Attributes read and written, methods, type and signature; its calls are guarded."""
    stand = Stand(held=held)
    model = Model()
    guarded = stand.guard(model)
    assert guarded(1) == 2
    with pytest.raises(Boom):
        guarded(-1)
    assert isinstance(guarded, Model)
    assert guarded.calls == model.calls == 2
    guarded.reset()
    guarded.extra = 5
    assert (model.calls, model.extra) == (0, 5)
    assert inspect.signature(guarded) == inspect.signature(model)
    assert (stand.count(Outcome.GOOD), stand.count(Outcome.BAD)) == (1, 1)


def test_a_callable_object_can_stand_in_a_class():
    """It has no ``__get__``, so it is not bound there, guarded or not."""
    stand = Stand()

    class Service:
        model = stand.guard(Model())

    assert Service().model(1) == 2
    assert Service.model(1) == 2


@both_paths
def test_built_in_functions_can_be_guarded(held):
    """Some of them have no signature and no ``__get__``."""
    stand = Stand(held=held)
    assert stand.guard(len)([1, 2]) == 2
    assert stand.guard(operator.itemgetter(1))("abc") == "b"
    assert stand.guard([3, 1, 2].index)(1) == 1
    assert stand.count(Outcome.GOOD) == 3


@both_paths
def test_a_cached_function_can_be_guarded(held):
    """Its cache can still be asked."""

    @Stand(held=held).guard
    @functools.lru_cache
    def square(number):
        return number * number

    assert (square(3), square(3)) == (9, 9)
    assert square.__wrapped__.cache_info().hits == 1


@both_paths
def test_a_guarded_function_can_be_guarded_again(held):
    """Guards nest: the outer one sees what the inner one lets through."""
    stand = Stand(held=held)
    inner = stand.resilience.guard("inner")
    guarded = stand.guard(inner(function))
    assert guarded(1) == (1, "x", 1.0)
    assert stand.count(Outcome.GOOD) == inner.recorder.counts().total(Outcome.GOOD) == 1


@pytest.mark.parametrize(
    ("target", "shape"),
    [
        (function, Shape.FUNCTION),
        (functools.partial(functools.partial(coroutine_function)), Shape.COROUTINE),
        (functools.partial(generator_function), Shape.GENERATOR),
        (async_generator_function, Shape.ASYNC_GENERATOR),
        (Model(), Shape.FUNCTION),
        (Model, Shape.FUNCTION),
        (len, Shape.FUNCTION),
        (Model().reset, Shape.FUNCTION),
    ],
)
def test_the_shape_of_a_callable(target, shape):
    """Looked at through partials, methods and ``__call__``."""
    assert shape_of(target) is shape


async def wanted_later():
    return "instead"


async def suspended_fallback(*args, **kwargs):
    return "instead"


async def streaming_fallback(*args, **kwargs):
    yield "instead"


@pytest.mark.parametrize("target", [function, generator_function])
@pytest.mark.parametrize("handler", [suspended_fallback, streaming_fallback])
def test_a_fallback_that_must_be_awaited_is_refused_for_what_cannot_await(target, handler):
    """At decoration and at call(), not at the first failure."""
    guard = Stand(fallback=handler).guard
    with pytest.raises(ConfigurationError, match="a synchronous call cannot await"):
        guard(target)
    if target is function:
        with pytest.raises(ConfigurationError, match="a synchronous call cannot await"):
            guard.call(target, 1)


FALLBACKS = {
    "plain": lambda *args, **kwargs: ["instead"],
    "coroutine function": suspended_fallback,
    "generator": lambda *args, **kwargs: iter(["instead"]),
    "async generator": streaming_fallback,
}


@both_paths
@pytest.mark.parametrize("kind", FALLBACKS)
def test_a_fallback_for_an_async_stream_may_be_of_any_kind(kind, held):
    """Whatever gives items now, when awaited, or one after the other."""

    async def wanted(*args, **kwargs):
        return ["instead"]

    handler = wanted if kind == "coroutine function" else FALLBACKS[kind]
    stand = Stand(held=held, fallback=Fallback(handler, on=Boom))

    @stand.guard
    async def stream():
        raise Boom
        yield

    assert asyncio.run(collect(stream())) == ("instead",)
    assert stand.count(Outcome.GOOD) == 1


@both_paths
@pytest.mark.parametrize("handler", [lambda: "instead", wanted_later], ids=["plain", "coroutine"])
def test_a_fallback_for_a_coroutine_may_be_plain_or_suspending(handler, held):
    """A plain function or a coroutine function."""
    stand = Stand(held=held, fallback=handler)

    @stand.guard
    async def fails():
        raise Boom

    assert asyncio.run(fails()) == "instead"


@both_paths
def test_a_fallback_for_a_generator_may_give_any_iterable(held):
    """A list will do."""
    stand = Stand(held=held, fallback=lambda: ["a", "b"])

    @stand.guard
    def stream():
        raise Boom
        yield

    assert list(stream()) == ["a", "b"]


def test_what_is_marked_as_a_coroutine_function_is_one():
    """A mock of a coroutine function fails when it is awaited, and that is seen."""
    stand = Stand()
    guarded = stand.guard(AsyncMock(side_effect=Boom))

    async def main():
        await guarded()

    with pytest.raises(Boom):
        asyncio.run(main())
    assert (stand.count(Outcome.BAD), stand.count(Outcome.GOOD)) == (1, 0)


def test_acall_refuses_streams():
    """A stream cannot be awaited; nothing is counted."""
    stand = Stand()

    def stream():
        yield 1

    async def stream_later():
        yield 1

    for function in (stream, stream_later):
        with pytest.raises(ConfigurationError, match="guarded stream"):
            asyncio.run(stand.guard.acall(function))
    assert stand.count() == 0
