"""Libraries that look at the machine's clock live in virtual time too, for the time of a block and not a moment longer."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import threading
import time
from datetime import UTC, datetime, timedelta, timezone
from time import sleep as early_sleep

import pybreaker
import pytest
import tenacity

from somaresil import ConfigurationError
from somaresil.testing import VirtualClock
from somaresil.testing.clock import EPOCH
from tests.behaviour.kit import PATIENCE, Boom

pytestmark = pytest.mark.timeout(PATIENCE)

NAMES = ("monotonic", "monotonic_ns", "sleep", "time", "time_ns", "perf_counter", "gmtime", "localtime", "strftime")


@pytest.fixture(autouse=True)
def as_before():
    """Whatever a test does, the time of the machine is back after it."""
    before = {name: getattr(time, name) for name in NAMES}
    yield
    assert {name: getattr(time, name) for name in NAMES} == before
    assert abs(time.time() - datetime.now(UTC).timestamp()) < 1.0
    assert time.time() != EPOCH


def readings():
    """Every clock that a library may look at, as seconds since its beginning in these tests."""
    return {
        "monotonic": time.monotonic(),
        "monotonic_ns": time.monotonic_ns() / 1e9,
        "time": time.time() - EPOCH,
        "time_ns": (time.time_ns() - int(EPOCH * 1e9)) / 1e9,
        "now": datetime.now(UTC).timestamp() - EPOCH,
        "now by module": dt.datetime.now(dt.UTC).timestamp() - EPOCH,
        "now elsewhere": datetime.now(timezone(timedelta(hours=5))).timestamp() - EPOCH,
        "naive now": datetime.now().timestamp() - EPOCH,  # noqa: DTZ005 - libraries do it
        "gmtime": time.mktime(time.gmtime()) - time.mktime(time.gmtime(EPOCH)),
    }


def test_every_clock_follows_in_plain_code():
    """``time.sleep`` moves them all, to the microsecond that a date can hold."""
    clock = VirtualClock()
    with clock.patched():
        assert set(readings().values()) == {0.0}
        time.sleep(90)
        assert readings() == pytest.approx(dict.fromkeys(readings(), 90.0), abs=1e-5)
        time.sleep(0.25)
        clock.advance(0.5)
        assert time.monotonic() == 90.75
        assert datetime.now(UTC) == datetime(2026, 1, 1, 0, 1, 30, 750_000, tzinfo=UTC)
    assert clock.monotonic() == 90.75


def test_every_clock_follows_in_tasks():
    """With the loop as with plain code."""
    clock = VirtualClock()

    async def main():
        await asyncio.sleep(3600)
        return readings()

    with clock.patched():
        found = clock.run(main())
    assert found == pytest.approx(dict.fromkeys(found, 3600.0), abs=1e-5)


def test_every_clock_follows_in_threads_of_the_loop():
    """``time.sleep`` in ``to_thread`` waits its turn among the tasks."""
    clock = VirtualClock()
    log = []

    def work():
        time.sleep(10)
        log.append(("thread", time.monotonic()))
        return readings()

    async def main():
        async def task():
            await asyncio.sleep(5)
            log.append(("task", time.monotonic()))
            await asyncio.sleep(15)
            log.append(("task", time.monotonic()))

        return (await asyncio.gather(asyncio.to_thread(work), task()))[0]

    with clock.patched():
        found = clock.run(main())
    assert found == pytest.approx(dict.fromkeys(found, 10.0), abs=1e-5)
    assert log == [("task", 5.0), ("thread", 10.0), ("task", 20.0)]


def test_the_wall_clock_may_be_set():
    """Dates follow at once, what measures does not."""
    clock = VirtualClock()
    with clock.patched():
        clock.step_wall(-86_400)
        assert datetime.now(UTC) == datetime(2025, 12, 31, tzinfo=UTC)
        assert time.monotonic() == 0.0


def test_the_clock_for_profilers_stays_real():
    """``perf_counter`` goes on by itself while time stands still, and does not jump with it."""
    clock = VirtualClock()
    with clock.patched():
        begin, count = time.perf_counter(), time.perf_counter_ns()
        time.sleep(1e6)
        while time.perf_counter_ns() == count:
            pass
        assert time.perf_counter() - begin < 10.0
        assert time.monotonic() == 1e6


def test_a_name_that_was_taken_before_is_not_reached():
    """The known limit of it: ``from time import sleep`` sleeps for real."""
    clock = VirtualClock()
    with clock.patched():
        early_sleep(0.001)
        assert clock.monotonic() == 0.0


def test_asyncio_and_threads_keep_working():
    """Locks, queues and futures of the standard library that have limits of their own wait for real."""
    clock = VirtualClock()
    with clock.patched():
        event = threading.Event()
        assert not event.wait(0.01)
        threading.Timer(0.01, event.set).start()
        assert event.wait(PATIENCE)
        assert clock.monotonic() == 0.0


def test_everything_is_put_back():
    """The very functions that were there."""
    before = {name: getattr(time, name) for name in NAMES}
    with VirtualClock().patched():
        assert time.sleep is not before["sleep"]
        assert time.perf_counter is before["perf_counter"]
    assert {name: getattr(time, name) for name in NAMES} == before


def test_everything_is_put_back_after_an_error():
    """Also when the block ends with one, and the next clock may come."""
    before = {name: getattr(time, name) for name in NAMES}
    for _ in range(2):
        with pytest.raises(Boom), VirtualClock().patched():
            raise Boom
        assert {name: getattr(time, name) for name in NAMES} == before


def test_nothing_is_told_to_a_block_that_has_ended():
    """The clock may go on afterwards, and dates stay real."""
    clock = VirtualClock()
    with clock.patched():
        pass
    clock.sleep(1e6)
    assert clock._moved == ()
    assert abs(datetime.now(UTC).timestamp() - time.time()) < 1.0


def test_what_others_have_put_in_place_meanwhile_is_left_alone(monkeypatch):
    """Whoever replaced ``time.sleep`` inside of the block put it there on purpose."""
    real = time.sleep

    def theirs(seconds):
        raise AssertionError(seconds)

    with VirtualClock().patched():
        time.sleep = theirs
    kept = time.sleep
    time.sleep = real
    assert kept is theirs


@pytest.mark.parametrize("same", [True, False], ids=["the same clock", "another clock"])
def test_a_second_clock_is_refused(same):
    """Nested, the same clock too: the first block goes on, and the problem is named."""
    clock = VirtualClock()
    with clock.patched():
        with pytest.raises(ConfigurationError, match="one clock at a time"), (clock if same else VirtualClock()).patched():
            pass
        time.sleep(5)
        assert (time.monotonic(), datetime.now(UTC).timestamp()) == (5.0, EPOCH + 5.0)


def test_threads_that_were_there_before_keep_their_time():
    """A test runner's own thread measures and sleeps for real."""
    ask, answered, found = threading.Event(), threading.Event(), []

    def bystander():
        ask.wait(PATIENCE)
        begin = time.perf_counter()
        time.sleep(0.01)
        found.append((time.monotonic(), time.monotonic_ns(), time.perf_counter() - begin))
        answered.set()

    thread = threading.Thread(target=bystander)
    thread.start()
    real = time.monotonic()
    clock = VirtualClock()
    with clock.patched():
        clock.sleep(1e9)
        ask.set()
        assert answered.wait(PATIENCE)
    thread.join()
    ((monotonic, nanoseconds, slept),) = found
    assert real <= monotonic < real + 10.0
    assert monotonic <= nanoseconds / 1e9 < real + 10.0
    assert slept >= 0.01
    assert clock.monotonic() == 1e9


def test_without_time_machine_it_says_what_to_install(monkeypatch):
    """The extra by name, and nothing is replaced."""
    monkeypatch.setitem(sys.modules, "time_machine", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'somaresil\[pytest\]'") as caught, VirtualClock().patched():
        pass
    assert [problem.path for problem in caught.value.problems] == ["VirtualClock.patched.time-machine"]
    monkeypatch.undo()
    with VirtualClock().patched():
        assert time.monotonic() == 0.0


# -- libraries ----------------------------------------------------------------------------------------------------------------------------


def retrying(calls):
    """What tenacity is to repeat: two failures, then an answer."""

    def call():
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise Boom
        return "fine"

    return call


def test_tenacity_in_plain_code():
    """Pauses and its own limit are virtual."""
    clock, calls = VirtualClock(), []
    retry = tenacity.Retrying(wait=tenacity.wait_fixed(60), stop=tenacity.stop_after_delay(600))
    with clock.patched():
        assert retry(retrying(calls)) == "fine"
    assert calls == [0.0, 60.0, 120.0]


def test_tenacity_gives_up_in_virtual_time():
    """``stop_after_delay`` measures the virtual pauses."""
    clock = VirtualClock()
    retry = tenacity.Retrying(wait=tenacity.wait_fixed(60), stop=tenacity.stop_after_delay(150), reraise=True)

    def down():
        raise Boom

    with clock.patched(), pytest.raises(Boom):
        retry(down)
    assert clock.monotonic() == 180.0


def test_tenacity_in_a_thread_of_the_loop():
    """Its plain pauses pass among the tasks."""
    clock, calls = VirtualClock(), []
    retry = tenacity.Retrying(wait=tenacity.wait_fixed(60))

    async def main():
        answer, _ = await asyncio.gather(asyncio.to_thread(retry, retrying(calls)), asyncio.sleep(90))
        return answer

    with clock.patched():
        assert clock.run(main()) == "fine"
    assert calls == [0.0, 60.0, 120.0]
    assert clock.monotonic() == 120.0


def test_tenacity_in_a_task():
    """The asynchronous one."""
    clock, calls = VirtualClock(), []
    call = retrying(calls)

    async def main():
        async for attempt in tenacity.AsyncRetrying(wait=tenacity.wait_fixed(60), stop=tenacity.stop_after_delay(600)):
            with attempt:
                return call()
        raise AssertionError

    with clock.patched():
        assert clock.run(main()) == "fine"
    assert calls == [0.0, 60.0, 120.0]


@pytest.mark.parametrize("threaded", [False, True], ids=["plain code", "thread of the loop"])
def test_pybreaker_recovers(threaded):
    """It looks at ``datetime.now``: after its reset time the circuit takes a call again, and not before."""
    clock = VirtualClock()
    breaker = pybreaker.CircuitBreaker(fail_max=1, reset_timeout=60)

    def down():
        raise Boom

    def life():
        with pytest.raises(pybreaker.CircuitBreakerError):
            breaker.call(down)
        time.sleep(59)
        with pytest.raises(pybreaker.CircuitBreakerError):
            breaker.call(lambda: "fine")
        time.sleep(2)
        return breaker.call(lambda: "fine")

    async def main():
        return await asyncio.to_thread(life)

    with clock.patched():
        assert (clock.run(main()) if threaded else life()) == "fine"
    assert breaker.current_state == "closed"
    assert clock.monotonic() == 61.0


@pytest.mark.virtual_time(patched=True)
async def test_the_marker_patches_too(virtual_time):
    """For the call of the test itself."""
    await asyncio.sleep(3600)
    assert time.monotonic() == 3600.0
    assert datetime.now(UTC) == datetime(2026, 1, 1, 1, tzinfo=UTC)


# -- loops of others ----------------------------------------------------------------------------------------------------------------------


def run_by(how, clock):
    """A minute's sleep on a loop that ``clock`` does not drive."""
    if how == "asyncio.run":
        asyncio.run(asyncio.sleep(60))
    elif how == "another clock":
        VirtualClock().run(asyncio.sleep(60))
    else:
        asyncio.run(asyncio.to_thread(time.sleep, 60))


@pytest.mark.parametrize("how", ["asyncio.run", "another clock", "with a thread"])
def test_another_loop_is_refused(how):
    """Its time would stand still: it says what to write, and everything is as before after it."""
    clock = VirtualClock()
    with clock.patched(), pytest.raises(RuntimeError, match=r"VirtualClock\.patched: .*not virtual.*clock\.run\(main\(\)\)"):
        run_by(how, clock)
    assert asyncio.run(asyncio.sleep(0, "fine")) == "fine"
    assert clock.run(asyncio.sleep(60, "fine")) == "fine"


def test_another_loop_is_refused_in_threads_too():
    """Those that came after the clock read its time."""
    clock, said = VirtualClock(), []

    def work():
        try:
            asyncio.run(asyncio.sleep(60))
        except RuntimeError as error:
            said.append(str(error))

    with clock.patched():
        thread = threading.Thread(target=work, name="other")
        thread.start()
        thread.join(PATIENCE)
    assert "thread 'other'" in said[0]


def test_a_refused_coroutine_has_not_begun():
    """Nor is it told of as never awaited, and its loop can be closed."""
    begun = []

    async def main():
        begun.append(True)

    with VirtualClock().patched():
        loop = asyncio.SelectorEventLoop()
        with pytest.raises(RuntimeError, match="not virtual"):
            loop.run_until_complete(main())
        # Once it was refused, whoever keeps on must not hang.
        loop.run_until_complete(asyncio.sleep(0.01))
        loop.close()
    assert begun == []


def test_loops_that_ran_before_go_on():
    """In their threads, on the machine's time; and a new one may run there."""
    loop, ask = asyncio.new_event_loop(), threading.Event()

    def work():
        loop.run_forever()
        loop.close()
        asyncio.run(asyncio.sleep(0.01))
        ask.set()

    thread = threading.Thread(target=work)
    thread.start()
    with VirtualClock().patched():
        slept = asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01, "slept"), loop)
        assert slept.result(PATIENCE) == "slept"
        loop.call_soon_threadsafe(loop.stop)
        assert ask.wait(PATIENCE)
    thread.join()


def test_loops_are_let_alone_again():
    """The very methods that were there; what others have put in place meanwhile stays."""
    before = asyncio.BaseEventLoop.run_forever, asyncio.BaseEventLoop.call_soon_threadsafe
    with VirtualClock().patched():
        assert asyncio.BaseEventLoop.run_forever is not before[0]
    assert (asyncio.BaseEventLoop.run_forever, asyncio.BaseEventLoop.call_soon_threadsafe) == before
    with pytest.MonkeyPatch.context() as patch:
        with VirtualClock().patched():
            patch.setattr(asyncio.BaseEventLoop, "run_forever", None)
        assert asyncio.BaseEventLoop.run_forever is None
        patch.undo()
        asyncio.BaseEventLoop.run_forever = before[0]
