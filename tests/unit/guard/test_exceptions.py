"""What a guard does to exceptions: nothing. Same object, same history, a traceback of the user's own code, and no reference cycle."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import inspect
import threading
import traceback

import pytest

from somaresil import CallTimedOut, CircuitOpen, Fallback, Resilience, Retry, Timeout
from tests.behaviour.kit import PATIENCE, Boom, Stand, both_paths, one_strike

OPTIONS = {
    "plain": {},
    "breaker": {"breaker": True},
    "retry": {"retry": Retry(attempts=3, wait=0.0)},
    "no retry on this": {"retry": Retry(attempts=3, on=KeyError)},
    "fallback for others": {"fallback": Fallback(lambda: None, on=KeyError)},
    "everything": {
        "breaker": one_strike(),
        "retry": Retry(attempts=3, wait=0.0),
        "fallback": Fallback(lambda: None, on=KeyError),
        "bulkhead": 3,
        "timeout": 60.0,
        "classify": lambda result, error: None,
    },
    "abandon": {"timeout": Timeout(60.0, abandon=True)},
}
SHAPES = ["sync", "async", "generator", "async generator", "with", "async with", "later in a generator", "later in an async generator"]
options = pytest.mark.parametrize("options", OPTIONS)
shapes = pytest.mark.parametrize("shape", SHAPES)


def deep(make):
    raise make()


def call_of(stand, shape, make):  # noqa: C901 - one branch a shape
    """A function without arguments that makes a guarded call of this shape, which fails with ``make()`` in the function ``deep``."""
    guard = stand.guard
    late = shape.startswith("later")
    if shape == "sync":

        @guard
        def failing():
            deep(make)

        return failing
    if shape == "async":

        @guard
        async def failing_later():
            await asyncio.sleep(0)
            deep(make)

        return failing_later
    if shape.endswith("async generator"):

        @guard
        async def suspended_stream():
            if late:
                yield 1
            deep(make)
            yield 2

        async def read():
            async for _ in suspended_stream():
                pass

        return read
    if shape.endswith("generator"):

        @guard
        def stream():
            if late:
                yield 1
            deep(make)
            yield 2

        return lambda: list(stream())
    if shape == "with":

        def block():
            with guard:
                deep(make)

        return block

    async def suspended_block():
        async with guard:
            deep(make)

    return suspended_block


def run(call):
    """Make the call, as a task when it is one."""
    return asyncio.run(call()) if inspect.iscoroutinefunction(call) else call()


def run_and_forget(call):
    """Make the call and drop its error where it arrives. asyncio's own tasks keep theirs in a cycle, so it must not get that far."""

    async def forgetting():
        with contextlib.suppress(BaseException):
            await call()

    if inspect.iscoroutinefunction(call):
        asyncio.run(forgetting())
        return
    with contextlib.suppress(BaseException):
        call()


def patient(stand):
    """Let it really wait for its threads: a clock that moves by itself would give them up."""
    stand.clock.wait = lambda event, timeout: event.wait(PATIENCE)
    return stand


def usable(shape, options):
    return not ("with" in shape and ({"retry", "fallback"} & OPTIONS[options].keys()))


def frames(error):
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]


@both_paths
@options
@shapes
def test_an_exception_keeps_identity_and_history(shape, options, held):
    """The same object, with the cause and the context that the callee gave it, also when the caller is handling another one."""
    if not usable(shape, options):
        return
    stand = patient(Stand(held=held, **OPTIONS[options]))
    error, cause, context = Boom("mine"), KeyError("cause"), ValueError("context")
    error.__cause__, error.__context__ = cause, context
    call = call_of(stand, shape, lambda: error)
    try:
        raise LookupError
    except LookupError:
        with pytest.raises(Boom) as raised:
            run(call)
    assert raised.value is error
    assert error.__cause__ is cause
    if shape in {"sync", "async"} and "abandon" not in options:
        # Python itself notes what is being handled when it is first raised; nothing of ours may come on top of it.
        assert isinstance(error.__context__, LookupError | ValueError)
    assert error.args == ("mine",)
    assert not getattr(error, "__notes__", [])


@both_paths
@options
@shapes
def test_a_traceback_shows_the_users_code(shape, options, held):
    """It begins with the caller; between the caller and the callee there is at most one frame of ours."""
    if not usable(shape, options):
        return
    stand = patient(Stand(held=held, **OPTIONS[options]))
    call = call_of(stand, shape, lambda: Boom("mine"))
    with pytest.raises(Boom) as raised:
        run(call)
    walked = [frame for frame, _ in traceback.walk_tb(raised.value.__traceback__)]
    names = [frame.f_code.co_name for frame in walked]
    assert walked[0].f_code is inspect.currentframe().f_code
    assert names[-1] == "deep"
    ours = [frame.f_code.co_name for frame in walked if frame.f_globals.get("__name__", "").startswith("somaresil")]
    assert len(ours) <= 1, ours


@both_paths
@options
@shapes
@pytest.mark.parametrize("kind", [Boom, KeyboardInterrupt])
def test_a_failure_leaves_no_reference_cycle(kind, shape, options, held):
    """Once the caller is done with the exception, it is gone: the collector finds nothing."""
    if not usable(shape, options) or (kind is KeyboardInterrupt and "async" in shape):
        return
    stand = patient(Stand(held=held, listening=False, **OPTIONS[options]))
    call = call_of(stand, shape, kind)
    run_and_forget(call)
    assert cycles_of(lambda: run_and_forget(call)) == []


def cycles_of(work):
    """Which of our objects, frames and exceptions the collector finds after ``work``."""
    gc.disable()
    # What there is already is not looked at: only what this work leaves behind, and that quickly.
    gc.freeze()
    flags = gc.get_debug()
    try:
        work()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found = list(gc.garbage)
    finally:
        gc.set_debug(flags)
        gc.garbage.clear()
        gc.unfreeze()
        gc.enable()
    return [thing for thing in found if isinstance(thing, BaseException) or type(thing).__module__.startswith("somaresil")]


@both_paths
@pytest.mark.parametrize(
    "options", [{}, {"retry": 3}, {"fallback": Fallback(lambda: None, on=KeyError)}], ids=["plain", "retry", "fallback"]
)
@pytest.mark.parametrize("shape", ["sync", "async"])
def test_a_rejection_leaves_no_reference_cycle(shape, options, held):
    """Errors of our own are no exception to that."""
    stand = Stand(held=held, breaker=one_strike(), listening=False, **options)
    stand.resilience.breaker("dependency").force_open()
    call = call_of(stand, shape, Boom)
    run_and_forget(call)
    assert cycles_of(lambda: run_and_forget(call)) == []


@pytest.mark.parametrize("suspends", [False, True], ids=["sync", "async"])
def test_a_timeout_leaves_no_reference_cycle(suspends):
    """Neither the cancelled callee nor the thread left behind."""
    guard = Resilience("tests").guard("dependency", timeout=Timeout(0.005, abandon=True), retry=Retry(attempts=2, wait=0.0))

    @guard
    async def hangs():
        await asyncio.sleep(60)

    @guard
    def waits():
        threading.Event().wait(0.05)

    call = hangs if suspends else waits
    with pytest.raises(CallTimedOut):
        run(call)
    assert cycles_of(lambda: run_and_forget(call)) == []


def test_our_own_errors_show_where_they_were_raised_from():
    """The caller's frame comes first."""
    stand = Stand(breaker=one_strike())
    stand.resilience.breaker("dependency").force_open()
    guarded = stand.guard(lambda: None)
    with pytest.raises(CircuitOpen) as raised:
        guarded()
    assert frames(raised.value)[0] == "test_our_own_errors_show_where_they_were_raised_from"


@both_paths
def test_a_stop_iteration_passes_a_guard(held):
    """``next`` can be guarded: its end is an exception like any other, with the value it carries."""
    stand = Stand(held=held, retry=Retry(attempts=2, on=StopIteration, wait=0.0), breaker=True)
    ends = [StopIteration("first"), StopIteration("last")]

    @stand.guard
    def read():
        raise ends.pop(0)

    last = ends[-1]
    with pytest.raises(StopIteration) as raised:
        read()
    assert raised.value is last
    assert raised.value.value == "last"
    assert ends == []
    guarded = stand.guard(next)
    numbers = iter([1])
    assert guarded(numbers) == 1
    with pytest.raises(StopIteration):
        guarded(numbers)


@both_paths
def test_a_fallback_may_stand_in_for_a_stop_iteration(held):
    """It is named by its type, as every other."""
    stand = Stand(held=held, fallback=Fallback(lambda *_: "the end", on=StopIteration))
    assert stand.guard(next)(iter([])) == "the end"
    from somaresil.events import FallbackUsed

    assert [event.error for event in stand.told(FallbackUsed)] == ["StopIteration"]


def test_a_planted_cycle_is_found():
    """The tests above can fail: an exception that is kept by its own frame is seen."""

    def plant():
        try:
            raise Boom
        except Boom as error:
            kept = error
        return kept is not None

    assert [type(thing) for thing in cycles_of(plant)] == [Boom]


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    """An exception that refuses every assignment."""

    code: int


@both_paths
@pytest.mark.parametrize("options", [{}, {"bulkhead": 1}, {"retry": Retry(attempts=2, wait=0)}], ids=["alone", "bulkhead", "retry"])
def test_an_exception_that_refuses_assignments_is_passed_on(held, options):
    """It is the same object in every shape; no error of ours takes its place."""
    guard = Stand(held=held, **options).guard
    error = Frozen(7)

    def fail():
        raise error

    async def fail_later():
        raise error

    def stream():
        yield 1
        raise error

    async def stream_later():
        yield 1
        raise error

    async def read():
        return [item async for item in guard(stream_later)()]

    ways = (guard(fail), lambda: asyncio.run(guard(fail_later)()), lambda: list(guard(stream)()), lambda: asyncio.run(read()))
    for way in ways:
        with pytest.raises(Frozen) as raised:
            way()
        assert raised.value is error


class FrozenStop(StopIteration):
    """One that ends iterations, and refuses every assignment."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


@both_paths
def test_a_stop_iteration_that_refuses_assignments_is_passed_on(held):
    """The way around PEP 479 assigns nothing either."""
    guard = Stand(held=held, retry=Retry(attempts=2, wait=0)).guard
    error = FrozenStop()

    def fail():
        raise error

    with pytest.raises(FrozenStop) as raised:
        guard(fail)()
    assert raised.value is error
