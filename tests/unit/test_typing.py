"""The shapes can be imported and used at run time: to inherit from, to annotate with, and to resolve annotations by."""

from __future__ import annotations

import inspect
import typing

import pytest

import somaresil.typing as shapes
from somaresil import Resilience
from somaresil.clock import ManualClock, SystemClock
from somaresil.typing import Clock, FaultRule, Next, Onlooker, Policy, Strike


def protocols():
    found = {name: getattr(shapes, name) for name in shapes.__all__}
    return {name: shape for name, shape in found.items() if isinstance(shape, type)}


def members(shape):
    return {name for name in [*vars(shape), *shape.__annotations__] if not name.startswith("_")}


def test_every_name_that_is_offered_is_there_and_said_to_be_a_shape_or_a_callable():
    kinds = {name: typing.get_origin(getattr(shapes, name)) for name in shapes.__all__ if name not in protocols()}
    assert set(kinds) == {"Aftermath", "Instead", "Next"}
    assert all(kind is not None and issubclass(kind, typing.Callable) for kind in kinds.values())
    assert all(shape._is_protocol and shape.__doc__ for shape in protocols().values())


def test_a_shape_cannot_be_made_only_filled():
    for shape in protocols().values():
        with pytest.raises(TypeError, match="Protocols cannot be instantiated"):
            shape()


def test_annotations_with_shapes_resolve_at_run_time():
    """As frameworks do that read signatures."""

    async def policy(inner: Next, call: typing.Any, /) -> typing.Any:
        return await inner(call)

    def make(clock: Clock, rule: FaultRule | None = None) -> Policy:
        raise AssertionError(clock, rule)

    assert typing.get_type_hints(policy)["inner"] == Next
    assert typing.get_type_hints(make) == {"clock": Clock, "rule": FaultRule | None, "return": Policy}
    assert typing.get_type_hints(Policy.__call__)["inner"] == Next
    assert typing.get_type_hints(Strike.instead.fget)["return"] == shapes.Instead | None


@pytest.mark.parametrize("clock", [SystemClock, ManualClock])
def test_clocks_of_ours_have_every_method_of_the_shape(clock):
    assert members(Clock) == {"monotonic", "time", "sleep", "asleep", "wait", "await_"}
    for name in members(Clock):
        if not inspect.isbuiltin(getattr(clock, name)):
            # Functions of the time module do not say what they take.
            assert list(inspect.signature(getattr(clock, name)).parameters) == list(inspect.signature(getattr(Clock, name)).parameters)
        assert inspect.iscoroutinefunction(getattr(clock, name)) == inspect.iscoroutinefunction(getattr(Clock, name))


def test_a_class_of_the_users_may_inherit_from_a_shape_and_is_used_as_one():
    """Nothing has to be inherited, but whoever wants to be checked where the class stands can."""

    class Stopped(Clock):
        def monotonic(self):
            return 5.0

        def time(self):
            return 7.0

    class Watching(Onlooker):
        def __init__(self):
            self.seen = []

        def began(self, call, /):
            self.seen.append(call.guard)

    service = Resilience("typed", environment="test", clock=Stopped())
    assert (service.clock.monotonic(), service.clock.time()) == (5.0, 7.0)
    assert service.guard("llm").call(lambda: 3) == 3
    watching = Watching()
    watching.began(type("Made", (), {"guard": "llm"})())
    assert watching.seen == ["llm"]
