"""The two ways of waiting, and errors that are raised a second time."""

from __future__ import annotations

import asyncio
import sys
import threading
from dataclasses import dataclass

import pytest

from somaresil import CallTimedOut, CircuitOpen, ManualClock, SystemClock
from somaresil.runtime import Asyncio, Blocking, Carried, foreign, original, raise_again, run_sync, twin
from tests.behaviour.kit import PATIENCE


async def answer():
    return 5


async def suspends():
    await asyncio.sleep(0)


def test_a_coroutine_that_never_suspends_is_run_to_its_end():
    """Its result, or its own error."""

    async def fails():
        raise ValueError("mine")

    assert run_sync(answer()) == 5
    with pytest.raises(ValueError, match="mine"):
        run_sync(fails())


def test_a_policy_that_suspends_in_a_synchronous_call_is_told_so():
    """And its coroutine is closed, so that nothing is left waiting."""
    coroutine = suspends()
    with pytest.raises(RuntimeError, match=r"wait only through call\.runtime"):
        run_sync(coroutine)
    assert coroutine.cr_frame is None


def test_waiting_blocks_or_suspends():
    """Each runtime says so, and moves its clock."""
    clock = ManualClock(monotonic=0.0)
    blocking, suspending = Blocking(clock), Asyncio(clock)
    assert blocking.blocking
    assert not suspending.blocking
    run_sync(blocking.sleep(2.0))
    assert clock.monotonic() == 2.0
    asyncio.run(suspending.sleep(3.0))
    assert clock.monotonic() == 5.0


def test_a_thread_is_woken_from_another():
    """Before or after it waits, and more than once."""
    runtime = Blocking(SystemClock())
    waiter = runtime.waiter()
    thread = threading.Thread(target=waiter.wake, daemon=True)
    thread.start()
    assert run_sync(waiter.wait(PATIENCE))
    waiter.wake()
    assert run_sync(waiter.wait(PATIENCE))


def test_a_wait_that_is_over_says_so():
    """Nobody woke the thread, nobody woke the task."""
    clock = ManualClock(monotonic=0.0)
    assert not run_sync(Blocking(clock).waiter().wait(2.0))

    async def main():
        return await Asyncio(clock).waiter().wait(3.0)

    assert not asyncio.run(main())
    assert clock.monotonic() == 5.0


def test_a_task_is_woken_from_a_thread():
    """Before or after it waits, and more than once."""

    async def main():
        waiter = Asyncio(SystemClock()).waiter()
        thread = threading.Thread(target=lambda: (waiter.wake(), waiter.wake()), daemon=True)
        thread.start()
        assert await waiter.wait(PATIENCE)
        return await waiter.wait(PATIENCE)

    assert asyncio.run(main())


def test_an_error_that_is_raised_again_keeps_its_history():
    """Context, cause and traceback are those of the first time, whatever is being handled now."""
    error = ValueError("first")
    error.__cause__ = cause = KeyError()
    error.__context__ = context = LookupError()
    try:
        raise OSError
    except OSError:
        with pytest.raises(ValueError, match="first") as raised:
            raise_again(error)
    assert raised.value is error
    assert (error.__cause__, error.__context__) == (cause, context)


def test_a_stop_iteration_is_carried():
    """Python would make a RuntimeError of it inside a coroutine."""
    stop = StopIteration(5)
    with pytest.raises(Carried) as raised:
        raise_again(stop)
    assert original(raised.value) is stop
    assert original(stop) is stop


def test_frames_of_ours_are_taken_off_the_front_of_a_traceback():
    """What is left begins in the user's code; a traceback of ours alone stays whole."""
    namespace = {"__name__": "somaresil.somewhere"}
    exec("def ours(then):\n    then()", namespace)

    def theirs():
        raise ValueError

    def trace_of(function):
        try:
            function()
        except Exception:
            return sys.exception().__traceback__.tb_next

    def names(trace):
        found = []
        while trace is not None:
            found.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
        return found

    mixed = trace_of(lambda: namespace["ours"](lambda: namespace["ours"](theirs))).tb_next
    assert names(mixed) == ["ours", "<lambda>", "ours", "theirs"]
    assert names(foreign(mixed)) == ["<lambda>", "ours", "theirs"]
    alone = trace_of(lambda: namespace["ours"](None)).tb_next
    assert names(foreign(alone)) == names(alone) == ["ours"]
    assert foreign(None) is None


# -- twins --------------------------------------------------------------------------------------------------------------------------------


class Choosy(Exception):
    """Wants more than its arguments, and makes a text of them."""

    def __init__(self, status, *, response):
        super().__init__(f"status {status}")
        self.status = status
        self.response = response


class Slotted(Exception):
    __slots__ = ("code",)


class Own(OSError):
    def __init__(self, path):
        super().__init__(2, "gone", path)


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def raised(error: BaseException) -> BaseException:
    """With a history: cause, context, notes and a traceback."""
    try:
        try:
            raise KeyError("why")
        except KeyError as cause:
            if not isinstance(error, Frozen):
                error.add_note("seen before")
            raise error from cause
    except BaseException as caught:
        return caught


def slotted() -> Slotted:
    error = Slotted("text")
    error.code = 7
    return error


@pytest.mark.parametrize(
    "error",
    [
        ValueError("text", 1),
        Choosy(503, response=object()),
        slotted(),
        Own("/nowhere"),
        Frozen(7),
        FileNotFoundError(2, "gone", "/nowhere"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"),
        StopIteration("value"),
        ExceptionGroup("several", [ValueError()]),
        CircuitOpen("guard", 3.0, "detail", "last", injected=True),
        CallTimedOut("guard", 1.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_twin_says_the_same(error):
    """Type, arguments, text, attributes, cause and notes, without its __init__ being called; a traceback of its own on top of the first."""
    raised(error)
    other = twin(error)
    assert other is not error
    assert (type(other), other.args, str(other), repr(other)) == (type(error), error.args, str(error), repr(error))
    assert vars(other) == vars(error)
    for name in ("errno", "filename", "reason", "start", "value", "code", "guard", "retry_after", "exceptions"):
        assert getattr(other, name, None) == getattr(error, name, None)
    assert (other.__cause__, other.__suppress_context__) == (error.__cause__, True)
    before = error.__traceback__
    assert other.__traceback__ is before
    with pytest.raises(type(error)):
        raise other
    assert error.__traceback__ is before
    assert other.__traceback__ is not before


def test_what_has_no_twin_comes_back_itself():
    """A class may do anything in its __new__."""

    class Lonely(Exception):
        def __new__(cls, *args):
            if args == ("only",) and made:
                raise TypeError("there is one already")
            made.append(1)
            return super().__new__(cls, *args)

    made = []
    error = Lonely("only")
    assert twin(error) is error
