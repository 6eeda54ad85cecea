"""Calls through a pool: every shape of function, where the endpoint goes, and what the guards see of it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from datetime import timedelta

import pytest

from somaresil import SLO, CallTimedOut, ConfigurationError, Endpoint, Outcome, Resilience, Timeout
from somaresil.pool.place import Place
from tests.behaviour.kit import Boom, Gate, both, together, turns
from tests.behaviour.kit import Stand as GuardStand
from tests.unit.policy.kit import wrong
from tests.unit.pool.kit import Stand

# -- where the endpoint goes ------------------------------------------------------------------------------------------------------------


def test_the_endpoint_goes_to_the_parameter_of_that_name_or_to_the_first():
    """Callers leave it out, and signatures say so."""
    pool = Stand("a").pool

    @pool
    def first(client, text, *, loud=False):
        return client.target, text, loud

    @pool
    def by_keyword(text, *, endpoint, loud=False):
        return endpoint.target, text, loud

    @pool
    def second(text, endpoint, loud=False):
        return endpoint.target, text, loud

    @pool
    def anything(*args, **kwargs):
        return args[0].target, args[1], kwargs["loud"]

    @pool
    def keywords(**kwargs):
        return kwargs["endpoint"].target, kwargs["text"], kwargs["loud"]

    for function in (first, by_keyword, second, anything):
        assert function("x", loud=True) == ("A", "x", True)
    assert second(text="x", loud=True) == keywords(text="x", loud=True) == ("A", "x", True)
    signatures = [str(inspect.signature(function)) for function in (first, by_keyword, second, anything, keywords)]
    assert signatures == ["(text, *, loud=False)", "(text, *, loud=False)", "(text, loud=False)", "(*args, **kwargs)", "(**kwargs)"]
    assert first.__name__ == "first"


def test_methods_name_their_endpoint():
    """Also class methods and static ones, in whichever order the decorators stand."""
    pool = Stand("a").pool

    class Agent:
        @pool
        def think(self, endpoint, text):
            return type(self), endpoint.target, text

        @classmethod
        @pool
        def inner(cls, endpoint, text):
            return cls, endpoint.target, text

        @pool
        @classmethod
        def outer(cls, endpoint, text):
            return cls, endpoint.target, text

        @pool
        @staticmethod
        def free(endpoint, text):
            return Agent, endpoint.target, text

    agent = Agent()
    assert agent.think("x") == agent.inner("x") == agent.outer("x") == Agent.free("x") == (Agent, "A", "x")


def test_partials_and_objects_can_be_called_too():
    """The endpoint is the first of what a partial leaves open."""
    pool = Stand("a").pool

    class Client:
        def __call__(self, endpoint, text):
            return endpoint.target, text

    assert pool(functools.partial(lambda text, endpoint: (endpoint.target, text), "x"))() == ("A", "x")
    assert pool(Client())("x") == pool.call(Client(), "x") == ("A", "x")


@pytest.mark.parametrize("target", [lambda: 1, lambda *, text: text, 5, int, property(lambda self: 1)])
def test_what_takes_no_endpoint_is_refused_at_decoration(target):
    """And what is no function at all."""
    assert wrong(Stand("a").pool, target)[0] == "target"


# -- shapes -----------------------------------------------------------------------------------------------------------------------------


@both
def test_a_call_passes_the_guard_of_the_pool_and_of_one_endpoint(suspends):
    """Both count it; the pool's is what callers saw."""
    stand = Stand("ab")
    assert set(stand.calls(20, suspends)) == {"a", "b"}
    assert stand.count("p", Outcome.GOOD) == 20
    assert stand.count("p/a", Outcome.GOOD) + stand.count("p/b", Outcome.GOOD) == 20
    assert stand.resilience.guard("p").pipeline == ("record", "fault", "pool")
    assert stand.resilience.guard("p").switch.reasons == {"pool"}


def test_call_and_acall_make_one_call():
    """Of a function that takes an endpoint first; of anything that gives an awaitable; by the name of the pool as well."""
    stand = Stand("a")
    assert stand.pool.call(lambda endpoint, text: (endpoint.name, text), "x") == ("a", "x")
    assert stand.resilience.call("p", lambda endpoint, text: (endpoint.name, text), "x") == ("a", "x")

    async def coroutine(endpoint, text):
        return endpoint.name, text

    async def main():
        assert await stand.pool.acall(coroutine, "x") == ("a", "x")
        assert await stand.pool.acall(lambda endpoint, *, text: coroutine(endpoint, text), text="x") == ("a", "x")
        assert await stand.resilience.acall("p", coroutine, "x") == ("a", "x")

    asyncio.run(main())
    assert wrong(stand.pool.call, coroutine, "x") == ["call"]
    assert wrong(stand.pool.call, 5) == ["target"]
    with pytest.raises(ConfigurationError, match="guarded stream"):
        asyncio.run(stand.pool.acall(_stream))


def _stream(endpoint):
    yield endpoint.name


def test_a_stream_stays_on_its_endpoint():
    """Items, values sent to it, errors thrown into it and what it returns are those of one generator."""
    stand = Stand("ab")

    @stand.pool
    def stream(endpoint):
        got = [endpoint.name]
        try:
            while True:
                got.append((yield got[0]))
        except Boom:
            return got

    items = stream()
    assert inspect.isgeneratorfunction(stream)
    name = next(items)
    assert items.send("x") == items.send("y") == name
    assert stand.in_flight()[name] == 1
    with pytest.raises(StopIteration) as stopped:
        items.throw(Boom())
    assert stopped.value.value == [name, "x", "y"]
    assert sum(stand.in_flight().values()) == 0
    assert stand.count("p", Outcome.GOOD) == stand.count(f"p/{name}", Outcome.GOOD) == 1


def test_an_async_stream_stays_on_its_endpoint():
    """As above."""
    stand = Stand("ab")

    @stand.pool
    async def stream(endpoint):
        got = [endpoint.name]
        try:
            while True:
                got.append((yield got[0]))
        except Boom:
            yield got

    async def main():
        items = stream()
        name = await anext(items)
        assert await items.asend("x") == name
        assert stand.in_flight()[name] == 1
        assert await items.athrow(Boom()) == [name, "x"]
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        return name

    assert inspect.isasyncgenfunction(stream)
    name = asyncio.run(main())
    assert sum(stand.in_flight().values()) == 0
    assert stand.count("p", Outcome.GOOD) == stand.count(f"p/{name}", Outcome.GOOD) == 1


def test_empty_streams_end_as_they_are():
    """With their value, and nothing in flight."""
    stand = Stand("a")

    @stand.pool
    def empty(endpoint):
        return endpoint.name
        yield

    @stand.pool
    async def nothing(endpoint):
        return
        yield endpoint

    with pytest.raises(StopIteration) as stopped:
        next(empty())
    assert stopped.value.value == "a"

    async def main():
        return [item async for item in nothing()]

    assert asyncio.run(main()) == []
    assert stand.in_flight() == {"a": 0}
    assert stand.count("p/a", Outcome.GOOD) == 2


def test_a_callee_may_raise_stop_iteration():
    """It arrives as it was raised."""
    stand = Stand("a")
    stand.does["a"] = StopIteration(5)
    with pytest.raises(StopIteration) as raised:
        stand.caller()()
    assert raised.value.value == 5
    assert stand.in_flight() == {"a": 0}


# -- what is given back -----------------------------------------------------------------------------------------------------------------


def test_who_leaves_a_stream_early_frees_its_endpoint():
    """Closed by hand, left by the loop, or forgotten: abandoned, and no verdict."""
    stand = Stand("a")

    @stand.pool
    def stream(endpoint):
        yield 1
        yield 2

    @stand.pool
    async def later(endpoint):
        yield 1
        yield 2

    items = stream()
    next(items)
    assert stand.in_flight() == {"a": 1}
    items.close()
    assert stand.in_flight() == {"a": 0}
    items = stream()
    next(items)
    del items
    assert stand.in_flight() == {"a": 0}

    async def main():
        items = later()
        await anext(items)
        assert stand.in_flight() == {"a": 1}
        await items.aclose()

    asyncio.run(main())
    assert stand.in_flight() == {"a": 0}
    assert stand.count("p/a", Outcome.ABANDONED) == stand.count("p", Outcome.ABANDONED) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_whoever_is_interrupted_frees_his_endpoint(error):
    """The same object arrives, no other endpoint is tried, and there is no verdict."""
    stand = Stand("ab", attempts=2)
    raised = error()
    stand.does = {"a": raised, "b": raised}
    with pytest.raises(error) as caught:
        stand.caller()()
    assert caught.value is raised
    assert (len(stand.reached), sum(stand.in_flight().values())) == (1, 0)
    assert stand.count("p", Outcome.ABANDONED) == 1


def test_a_cancelled_call_frees_its_endpoint():
    """Also one that waits for the first item of a stream."""
    stand = Stand("ab", attempts=2)
    gate = Gate()

    @stand.pool
    async def call(endpoint):
        await gate.aenter()

    @stand.pool
    async def stream(endpoint):
        await gate.aenter()
        yield 1

    async def main():
        tasks = [asyncio.ensure_future(call()), asyncio.ensure_future(anext(stream()))]
        await turns()
        assert sum(stand.in_flight().values()) == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)

    asyncio.run(main())
    assert sum(stand.in_flight().values()) == 0
    assert stand.count("p", Outcome.ABANDONED) == 2


def test_threads_and_tasks_are_counted_together():
    """One number of calls in flight over all of them, and none left at the end."""
    stand = Stand("ab")
    gate = Gate()
    work = stand.pool(lambda endpoint: gate.enter())
    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.await_inside(4)

    async def main():
        tasks = [asyncio.ensure_future(stand.pool.acall(lambda endpoint: gate.aenter())) for _ in range(4)]
        await turns()
        assert sum(stand.in_flight().values()) == 8
        assert min(stand.in_flight().values()) >= 3
        gate.open()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    for thread in threads:
        thread.join()
    assert stand.in_flight() == {"a": 0, "b": 0}


def test_nothing_is_lost_under_threads():
    """Eight threads, failing and good calls mixed: every call is counted once, and nothing stays in flight."""
    stand = Stand("abc", attempts=2, budget=None, ejection=False, listening=False)
    stand.does["b"] = Boom("down")
    results = together(8, lambda _: stand.calls(40))
    assert [len(part) for part in results] == [40] * 8
    assert stand.in_flight() == {"a": 0, "b": 0, "c": 0}
    assert stand.count("p", Outcome.GOOD) == 320
    assert stand.count("p/a", Outcome.GOOD) + stand.count("p/c", Outcome.GOOD) == 320
    assert stand.count("p/b", Outcome.BAD) == stand.reached.count("b")


# -- options go where they belong -------------------------------------------------------------------------------------------------------


def test_each_endpoint_has_policies_of_its_own():
    """Breaker, timeout and bulkhead are those of its guard; the fallback is about what callers see."""
    stand = Stand("ab", breaker=True, timeout=5.0, bulkhead=3, fallback=lambda: "fallen back")
    guards = stand.resilience.guards
    assert guards["p"].pipeline == ("record", "fallback", "fault", "pool")
    assert guards["p/a"].pipeline == guards["p/b"].pipeline == ("record", "breaker", "bulkhead", "timeout", "fault", "callee")
    assert guards["p/a"].breaker is not guards["p/b"].breaker
    stand.does = {"a": Boom("down"), "b": Boom("down")}
    assert stand.calls(1) == ["fallen back"]


def test_an_objective_on_a_pool_is_about_what_callers_saw():
    """A call that failed on one endpoint and went well on another is one good event."""
    resilience = Resilience("tests", seed=7)
    resilience.slos.add(SLO("answered", 99.0, timedelta(days=1)))
    pool = resilience.pool("p", [Endpoint("a", 1), Endpoint("b", 2)], slo="answered", attempts=2, budget=None, ejection=False)

    @pool
    def call(endpoint):
        if endpoint.name == "a":
            raise Boom

    for _ in range(20):
        call()
    assert resilience.slos.series("answered").totals() == (20, 0)
    assert resilience.guard("p/a").options.slo == ()


def test_a_classifier_speaks_for_the_pool_and_its_endpoints():
    """An ignored error says nothing about an endpoint and is not taken elsewhere."""
    stand = Stand("ab", attempts=2, classify=lambda result, error: "ignored" if isinstance(error, LookupError) else None)
    stand.does = {"a": LookupError("x"), "b": LookupError("x")}
    assert all(isinstance(result, LookupError) for result in stand.calls(20))
    assert len(stand.reached) == 20
    assert stand.count("p", Outcome.IGNORED) == 20
    assert {stand.state("a"), stand.state("b")} == {"healthy"}


def test_timeouts_of_an_endpoint_hold_for_its_streams():
    """Between two items as before the first."""
    stand = Stand("a", timeout=Timeout(idle=0.01))

    @stand.pool
    async def stream(endpoint):
        yield 1
        await asyncio.Event().wait()

    async def main():
        items = stream()
        await anext(items)
        with pytest.raises(CallTimedOut) as raised:
            await anext(items)
        return raised.value

    assert asyncio.run(main()).guard == "p/a"
    assert stand.in_flight() == {"a": 0}
    assert stand.count("p", Outcome.BAD) == stand.count("p/a", Outcome.BAD) == 1


def test_a_block_has_no_place_for_an_endpoint():
    """A `with` block of the pool's guard is refused."""
    stand = Stand("a")
    with pytest.raises(ConfigurationError, match="block"), stand.resilience.guard("p"):
        pass
    with GuardStand().guard:
        pass


@both
def test_a_call_that_does_not_come_as_far_as_its_endpoint_has_left(suspends, monkeypatch):
    """Whatever is broken on the way, nothing stays in flight."""

    def broken(*_):
        raise RuntimeError

    stand = Stand("a")
    monkeypatch.setattr(Place, "put", broken)
    assert isinstance(stand.calls(1, suspends)[0], RuntimeError)
    assert stand.in_flight() == {"a": 0}


def test_a_defect_of_ours_keeps_no_call_from_its_endpoint():
    """The first that was not tried is taken, and it is reported once."""
    stand = Stand([Endpoint("a", 1), Endpoint("b", 2)])
    stand.pool._balance._choose = None
    assert stand.calls(3) == ["a", "a", "a"]
    stand.pool._balance._learn = None
    assert stand.calls(1) == ["a"]
    assert stand.in_flight() == {"a": 0, "b": 0}
    assert len([event for event in stand.events if type(event).__name__ == "DefectFound"]) == 2
