"""Limits of asynchronous waiting: what asyncio.timeout does, for a quarter of it."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil.expiry import begin
from somaresil.testing import VirtualClock, VirtualLoop

LINES = "_somaresil_lines"


class LinedLoop(VirtualLoop):
    """A virtual loop that lets its timers stand, as real ones do: so that lines can be tested in virtual time."""

    leaves_no_timer = False


def run(main, loop=LinedLoop):
    """Run in virtual time; give the result and how long it took."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: loop(clock)) as runner:
        result = runner.run(main)
    return result, clock.monotonic()


async def within(limit, awaitable, *, usual=True):
    """As policies use it."""
    expiry = begin(limit, usual=usual)
    try:
        result = await awaitable
    except BaseException as error:
        if expiry.ours(error):
            raise TimeoutError from error
        raise
    expiry.ours(None)
    return result


def entries():
    """How many wait in the lines of the running loop."""
    lines = getattr(asyncio.get_running_loop(), LINES, None)
    return 0 if lines is None else sum(len(line.entries) for line in lines.by_length.values())


both = pytest.mark.parametrize("usual", [True, False], ids=["in line", "alone"])


@both
def test_time_runs_out_when_it_should(usual):
    """At the limit, not a tick later."""

    async def main():
        with pytest.raises(TimeoutError):
            await within(2.5, asyncio.sleep(60), usual=usual)
        return asyncio.get_running_loop().time()

    assert run(main())[0] == 2.5


@both
def test_what_ends_in_time_is_left_alone(usual):
    """Its result and its errors are its own, a TimeoutError as well, and no cancellation is left behind."""
    own = TimeoutError("its own")

    async def fails():
        raise own

    async def main():
        assert await within(2.5, asyncio.sleep(1, "answer"), usual=usual) == "answer"
        with pytest.raises(TimeoutError) as caught:
            await within(2.5, fails(), usual=usual)
        assert caught.value is own
        await asyncio.sleep(60)
        return asyncio.current_task().cancelling()

    assert run(main())[0] == 0


@both
def test_the_callers_cancellation_stays_one(usual):
    """Also when it comes at the very moment at which time runs out, before or after us."""

    async def main():
        ends = []
        for moment in (1.0, 2.5):
            task = asyncio.ensure_future(within(2.5, asyncio.sleep(60), usual=usual))
            asyncio.get_running_loop().call_later(moment, task.cancel)
            ends += await asyncio.gather(task, return_exceptions=True)
        # Ours comes first here, theirs in the same turn of the loop.
        task = asyncio.ensure_future(within(2.5, asyncio.sleep(60), usual=usual))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(2.5, task.cancel)
        ends += await asyncio.gather(task, return_exceptions=True)
        return [type(end) for end in ends]

    assert run(main())[0] == [asyncio.CancelledError] * 3


@both
def test_a_body_that_swallows_the_cancellation_goes_on(usual):
    """As with asyncio.timeout: what it returns is returned, and the task is not cancelled any more."""

    async def stubborn():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "well"

    async def main():
        assert await within(1.0, stubborn(), usual=usual) == "well"
        await asyncio.sleep(5)
        return asyncio.current_task().cancelling()

    assert run(main())[0] == 0


def test_limits_that_run_out_together_are_each_their_own():
    """The inner one is told by the inner, the outer by the outer; in one moment the outer has the say."""

    async def main():
        with pytest.raises(TimeoutError):
            await within(5.0, within(2.0, asyncio.sleep(60)))
        inner = within(3.0, asyncio.sleep(60))
        with pytest.raises(TimeoutError):
            await within(3.0, inner)
        return asyncio.get_running_loop().time()

    assert run(main())[0] == 5.0


def test_outside_of_a_task_it_says_so():
    """There is nothing to cancel."""

    async def main():
        failed = asyncio.get_running_loop().create_future()

        def plain():
            try:
                begin(1.0)
            except RuntimeError as error:
                failed.set_result(str(error))

        asyncio.get_running_loop().call_soon(plain)
        return await failed

    assert "needs a task" in run(main())[0]


# -- lines --------------------------------------------------------------------------------------------------------------------------------


def test_what_has_ended_is_not_kept():
    """A hundred thousand calls behind one that lasts leave nothing."""

    async def main():
        loop = asyncio.get_running_loop()
        slow = asyncio.ensure_future(within(60.0, asyncio.sleep(50)))
        await asyncio.sleep(0)
        most = 0
        for _ in range(100_000):
            expiry = begin(60.0, usual=True)
            most = max(most, entries())
            expiry.ours(None)
        await slow
        return most, entries(), len(loop._scheduled)

    assert run(main())[0] == (2, 0, 1)


def test_a_line_has_one_timer():
    """However many calls wait in it; the next is made when it has run out."""

    async def main():
        loop = asyncio.get_running_loop()
        made = 0
        original = loop.call_at

        def call_at(when, callback, *args, **options):
            nonlocal made
            made += callback.__name__ == "_run_out"
            return original(when, callback, *args, **options)

        loop.call_at = call_at
        for _ in range(1_000):
            await within(10.0, asyncio.sleep(1))
        return made

    # A thousand seconds of limits of ten seconds each, of which the first to wait is up to a second old.
    assert 100 <= run(main())[0] <= 112


def test_each_of_a_thousand_runs_out_at_its_time():
    """Though they stand in one line behind others that have ended."""

    async def one(number):
        await asyncio.sleep(number / 100)
        begun = asyncio.get_running_loop().time()
        if number % 3:
            await within(5.0, asyncio.sleep(1))
            return None
        with pytest.raises(TimeoutError):
            await within(5.0, asyncio.sleep(60))
        return asyncio.get_running_loop().time() - begun

    async def main():
        return [took for took in await asyncio.gather(*map(one, range(1_000))) if took is not None]

    took = run(main())[0]
    assert len(took) == 334
    assert took == pytest.approx([5.0] * 334)


def test_computed_lengths_make_no_lines_without_end():
    """After 64 of them each has a timer of its own, and runs out all the same."""

    async def main():
        for number in range(200):
            await within(10.0 + number, asyncio.sleep(0))
        with pytest.raises(TimeoutError):
            await within(1_000.5, asyncio.sleep(2_000))
        loop = asyncio.get_running_loop()
        return len(getattr(loop, LINES).by_length), loop.time()

    assert run(main())[0] == (64, 1_000.5)


def test_a_loop_that_takes_no_attribute_has_lines_too():
    """And they go with it."""

    class Slotted(LinedLoop):
        def __setattr__(self, name, value):
            if name == LINES:
                raise AttributeError(name)
            super().__setattr__(name, value)

    seen = []

    async def main():
        seen.append(weakref.ref(asyncio.get_running_loop()))
        await within(5.0, asyncio.sleep(1))
        with pytest.raises(TimeoutError):
            await within(5.0, asyncio.sleep(9))

    assert run(main(), Slotted)[1] == 6.0
    gc.collect()
    assert seen[0]() is None


def test_virtual_time_is_not_moved_by_what_has_ended():
    """Where nothing is due any more, time stands still: the kit's loop asks for timers that go with their calls."""

    async def main():
        await within(10.0, asyncio.sleep(1))
        return len([timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()])

    assert run(main(), VirtualLoop) == (0, 1.0)


# -- the model: asyncio.timeout -----------------------------------------------------------------------------------------------------------


async def by_asyncio(limit, awaitable):
    async with asyncio.timeout(limit):
        return await awaitable


async def by_us(limit, awaitable):
    return await within(limit, awaitable, usual=limit not in {0.0, 3.5})


@st.composite
def tasks(draw):
    """Nested limits, a body that ends, fails or is stubborn, and a caller that may cancel; all at times that often meet."""
    moments = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0])
    return draw(st.lists(moments, min_size=1, max_size=3)), draw(moments), draw(st.sampled_from("rfs")), draw(st.lists(moments, max_size=2))


async def body(lasts, kind):
    try:
        await asyncio.sleep(lasts)
    except asyncio.CancelledError:
        if kind != "s":
            raise
        await asyncio.sleep(0.75)
        return "stubborn"
    if kind == "f":
        raise ValueError("failed")
    return "returned"


async def ends_of(limited, programs):
    async def one(limits, lasts, kind):
        awaitable = body(lasts, kind)
        for limit in limits:
            awaitable = limited(limit, awaitable)
        try:
            end = await awaitable
        except BaseException as error:
            end = type(error).__name__
        return end, asyncio.get_running_loop().time(), asyncio.current_task().cancelling()

    running = []
    for limits, lasts, kind, cancels in programs:
        task = asyncio.ensure_future(one(limits, lasts, kind))
        await asyncio.sleep(0)
        for moment in cancels:
            asyncio.get_running_loop().call_later(moment, task.cancel)
        running.append(task)
    return await asyncio.gather(*running, return_exceptions=True)


@settings(max_examples=200)
@given(st.lists(tasks(), min_size=1, max_size=5))
def test_it_ends_as_with_asyncio_timeout(programs):
    """The same end at the same time, with the same cancellations left to the task, whatever meets in one moment."""
    expected = run(ends_of(by_asyncio, programs))[0]
    found = run(ends_of(by_us, programs))[0]
    assert [end if isinstance(end, tuple) else type(end) for end in found] == [
        end if isinstance(end, tuple) else type(end) for end in expected
    ]


# -- what is done instead ----------------------------------------------------------------------------------------------------------------


@both
def test_something_else_may_be_done_when_time_runs_out(usual):
    """Once, with the limit itself; the task is not cancelled, and ends it as any other."""
    rung = []

    async def main():
        loop = asyncio.get_running_loop()
        expiry = begin(2.5, usual=usual, then=lambda expiry: rung.append((expiry, loop.time())))
        await asyncio.sleep(60)
        assert not expiry.expired
        assert not expiry.ours(None)
        return expiry, asyncio.current_task().cancelling()

    expiry, cancelling = run(main())[0]
    assert (rung, cancelling) == ([(expiry, 2.5)], 0)


@both
@pytest.mark.parametrize("error", [None, ValueError()])
def test_nothing_is_done_for_what_has_ended_in_time(usual, error):
    """Well or not."""
    rung = []

    async def main():
        expiry = begin(2.5, usual=usual, then=rung.append)
        assert not expiry.ours(error)
        await asyncio.sleep(60)

    run(main())
    assert rung == []


@both
@pytest.mark.parametrize("theirs", [None, 5.0, 7.0])
def test_a_task_may_be_interrupted_later(usual, theirs):
    """That cancellation is ours, unless somebody else has asked for one in the same moment, or has been there before."""

    async def main():
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        expiry = begin(2.5, usual=usual, then=lambda expiry: loop.call_at(5.0, expiry.interrupt))
        if theirs is not None:
            loop.call_later(theirs, task.cancel)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError as error:
            assert expiry.expired
            return expiry.ours(error), expiry.others(), loop.time(), task.cancelling()

    assert run(main())[0] == (theirs != 5.0, theirs == 5.0, 5.0, int(theirs == 5.0))


def test_one_that_the_one_before_has_ended_is_left_alone():
    """They run out in one moment, and the first does away with the second."""
    rung = []

    async def main():
        second = None

        def first_rings(expiry):
            rung.append("first")
            second.ours(None)

        begin(2.5, usual=True, then=first_rings)
        second = begin(2.5, usual=True, then=lambda expiry: rung.append("second"))
        await asyncio.sleep(60)

    run(main())
    assert rung == ["first"]


def test_whoever_leaves_the_loop_leaves_the_others_their_time():
    """An interrupt by the keyboard in the middle of a line: the others run out when the loop runs again."""
    rung = []

    def leave(expiry):
        raise KeyboardInterrupt

    async def main():
        begin(2.5, usual=True, then=leave)
        begin(2.5, usual=True, then=lambda expiry: rung.append("second"))
        await asyncio.sleep(60)

    loop = LinedLoop(VirtualClock())
    try:
        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        assert rung == []
        loop.run_until_complete(task)
    finally:
        loop.close()
    assert rung == ["second"]
