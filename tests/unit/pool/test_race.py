"""Hedging over endpoints, in virtual time: who starts when, whose answer counts, and that nobody is left behind."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from somaresil import Endpoint, NoEndpoint, Outcome
from somaresil.events import RetryDenied
from somaresil.pool.race import Race
from somaresil.testing import VirtualClock
from tests.behaviour.kit import Boom
from tests.unit.pool.kit import Stand


class Timed(Stand):
    """Endpoints that take their time; calls are hedged after a second. Drawn first is always the first of the alphabet that is left."""

    def __init__(self, endpoints="ab", **options):
        options = {"attempts": 2, "hedge_delay": 1.0, "idempotent": True, "ejection": False, **options}
        super().__init__(endpoints, clock=VirtualClock(), **options)
        self.pool._balance._among = lambda members, *args, **kwargs: min(members, key=lambda member: member.endpoint.name)
        self.takes = {}
        self.log = []
        """Who began, ended and was cancelled when."""

    @property
    def now(self):
        return round(self.clock.monotonic() - self.began, 3)

    async def timed(self, endpoint):
        self.log.append((self.now, "begins", endpoint.name))
        try:
            await asyncio.sleep(self.takes.get(endpoint.name, 0.1))
        except asyncio.CancelledError:
            await asyncio.sleep(0.5)
            self.log.append((self.now, "cancelled", endpoint.name))
            raise
        return self.work(endpoint)

    def run(self, main):
        """Its result, and when it came."""
        self.began = self.clock.monotonic()

        async def whole():
            try:
                return await main()
            except Exception as error:
                return error
            finally:
                assert len(asyncio.all_tasks()) == 1, "a task was left behind"

        result = self.clock.run(whole())
        assert sum(self.in_flight().values()) == 0
        return result, self.now

    def call(self):
        return self.run(self.pool(self.timed))


def test_a_quick_answer_needs_no_hedge():
    """One endpoint is asked."""
    stand = Timed()
    assert stand.call() == ("a", 0.1)
    assert stand.log == [(0.0, "begins", "a")]


def test_a_slow_one_is_overtaken_by_another():
    """The loser is cancelled, and has ended when the call returns; it says nothing about its endpoint but that it took so long."""
    stand = Timed()
    stand.takes["a"] = 30.0
    assert stand.call() == ("b", 1.6)
    assert stand.log == [(0.0, "begins", "a"), (1.0, "begins", "b"), (1.6, "cancelled", "a")]
    assert stand.count("p", Outcome.GOOD) == stand.count("p/b", Outcome.GOOD) == 1
    assert stand.count("p/a", Outcome.ABANDONED) == 1


def test_the_first_may_still_win():
    """The hedge is the loser then."""
    stand = Timed()
    stand.takes = {"a": 1.5, "b": 30.0}
    assert stand.call() == ("a", 2.0)
    assert stand.count("p/b", Outcome.ABANDONED) == 1


def test_each_further_attempt_waits_its_delay():
    """Up to as many as there may be."""
    stand = Timed("abcd", attempts=3)
    stand.takes = dict.fromkeys("abc", 10.0)
    assert stand.call()[0] == "a"
    assert [entry for entry in stand.log if entry[1] == "begins"] == [(0.0, "begins", "a"), (1.0, "begins", "b"), (2.0, "begins", "c")]


def test_a_failure_moves_on_at_once():
    """It does not wait for the time to hedge."""
    stand = Timed("abc", attempts=3)
    stand.does["a"] = Boom("down")
    stand.takes["b"] = 30.0
    assert stand.call() == ("c", 1.7)
    assert [entry[0] for entry in stand.log if entry[1] == "begins"] == [0.0, 0.1, 1.1]


def test_a_failed_hedge_does_not_end_the_call():
    """Who still runs may answer; when nobody does, the last error counts."""
    stand = Timed()
    stand.takes["a"] = 2.0
    stand.does["b"] = Boom("b")
    assert stand.call() == ("a", 2.0)
    stand.does["a"] = Boom("a")
    error, _ = stand.call()
    assert error is stand.does["a"]


def test_an_answer_that_is_bad_does_not_win():
    """It is returned when there is no other."""
    stand = Timed(classify=lambda result, error: "bad" if result == "b" else None)
    stand.takes["a"] = 2.0
    assert stand.call() == ("a", 2.0)
    stand.does["a"] = "b"
    assert stand.call() == ("b", 2.0)


def test_a_refusal_moves_on_at_once_and_is_no_attempt():
    """The next endpoint is asked in its place."""
    stand = Timed("abc", bulkhead=1)
    stand.resilience.guard("p/a").bulkhead.try_enter()
    stand.takes["b"] = 30.0
    assert stand.call() == ("c", 1.6)
    for name in "bc":
        stand.resilience.guard(f"p/{name}").bulkhead.try_enter()
    error, when = stand.call()
    assert (type(error), when) == (NoEndpoint, 0.0)


def test_with_one_endpoint_there_is_nobody_to_hedge_on():
    """The call waits for the one."""
    stand = Timed("a")
    stand.takes["a"] = 5.0
    assert stand.call() == ("a", 5.0)


def test_only_calls_with_a_key_are_hedged():
    """A hedge makes calls twice that nothing is wrong with."""
    stand = Timed(idempotent="key")
    stand.takes["a"] = 5.0

    @stand.pool
    async def call(endpoint, key=None):
        return await stand.timed(endpoint)

    assert stand.run(call) == ("a", 5.0)
    assert stand.told(RetryDenied) == []
    assert stand.run(lambda: call(key="k-1"))[0] == "b"


def test_hedges_have_a_budget():
    """The one of all further attempts."""
    stand = Timed(budget=0.0)
    stand.pool._balance.budget.floor = 0.0
    stand.pool._balance.budget._allowance.floor = 0.0
    stand.takes["a"] = 5.0
    results = [stand.call() for _ in range(3)]
    assert [event.reason for event in stand.told(RetryDenied)].count("budget") == sum(result == ("a", 5.0) for result in results)


def test_a_caller_that_leaves_takes_all_attempts_with_him():
    """They are cancelled and awaited."""
    stand = Timed()
    stand.takes = {"a": 30.0, "b": 30.0}

    async def main():
        task = asyncio.ensure_future(stand.pool(stand.timed)())
        await asyncio.sleep(2.0)
        assert sum(stand.in_flight().values()) == 2
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return stand.now

    assert stand.run(main)[0] == 2.5
    assert stand.count("p", Outcome.ABANDONED) == 1


def test_an_attempt_that_is_called_off_before_its_first_step_has_left(monkeypatch):
    """Nothing of it runs, and nothing stays in flight."""
    stand = Timed()
    start = Race._start

    def start_and_call_off(race, visit):
        start(race, visit)
        for task in race._running:
            task.cancel()

    monkeypatch.setattr(Race, "_start", start_and_call_off)

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await stand.pool(stand.timed)()

    stand.run(main)
    assert stand.log == []


def test_a_cancellation_from_within_an_attempt_ends_the_call():
    """As it would without a hedge; the other attempts are called off."""
    stand = Timed()
    stand.takes = {"a": 1.5, "b": 30.0}
    stand.does["a"] = asyncio.CancelledError()

    async def main():
        with pytest.raises(asyncio.CancelledError):
            await stand.pool(stand.timed)()
        return stand.now

    assert stand.run(main)[0] == 2.0
    assert stand.count("p", Outcome.ABANDONED) == stand.count("p/a", Outcome.ABANDONED) == stand.count("p/b", Outcome.ABANDONED) == 1


def test_a_stream_is_hedged_up_to_its_first_item():
    """The rest comes from the endpoint that was first; the stream of the other is closed."""
    stand = Timed()
    closed = []

    @stand.pool
    async def stream(endpoint):
        try:
            await asyncio.sleep(30.0 if endpoint.name == "a" else 0.1)
            yield endpoint.name
            await asyncio.sleep(5.0)
            yield endpoint.name
        finally:
            closed.append(endpoint.name)

    async def main():
        items = []
        async for item in stream():
            items.append((item, stand.now))
            assert stand.in_flight() == {"a": 0, "b": 1}
        return items

    assert stand.run(main)[0] == [("b", 1.1), ("b", 6.1)]
    assert closed == ["a", "b"]


def test_of_two_streams_that_begin_at_once_one_is_closed():
    """Nothing is left open, and nothing in flight."""
    stand = Timed()
    closed = []

    @stand.pool
    async def stream(endpoint):
        try:
            await asyncio.sleep(2.0 if endpoint.name == "a" else 1.0)
            yield endpoint.name
        finally:
            closed.append(endpoint.name)

    async def main():
        return [(item, list(closed)) async for item in stream()]

    assert stand.run(main)[0] == [("a", ["b"])]
    assert stand.count("p/a", Outcome.GOOD) == stand.count("p/b", Outcome.ABANDONED) == 1


def test_attempts_see_the_context_of_the_caller():
    """A copy of it, as tasks do."""
    variable = contextvars.ContextVar("variable", default="outside")
    stand = Timed()

    @stand.pool
    async def call(endpoint):
        return variable.get()

    async def main():
        variable.set("inside")
        return await call()

    assert stand.run(main)[0] == "inside"


def test_synchronous_calls_are_not_hedged():
    """They run one after the other, with no task at all."""
    stand = Stand([Endpoint("a", 1), Endpoint("b", 2)], attempts=2, hedge_delay=1.0, idempotent=True, ejection=False, budget=None)
    stand.does["a"] = Boom("down")
    assert stand.calls(10) == ["b"] * 10
