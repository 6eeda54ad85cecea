"""What a call really cost: permits that are settled, refunds, limits that are shared, and rates that give way to pushback."""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace

import pytest

from somaresil import (
    Bulkhead,
    BulkheadFull,
    InjectedFault,
    Outcome,
    RateLimit,
    RateLimited,
    RateLimiter,
    RateWindow,
    Resilience,
    SharedRateLimit,
    Timeout,
    current_permit,
)
from somaresil.events import RateLowered
from tests.behaviour.kit import Boom, Gate, Stand, both, both_paths, turns
from tests.unit.policy.kit import wrong


def available(stand: Stand) -> dict[str, float]:
    return stand.guard.rate_limit.available()


def defects(stand: Stand) -> list[str]:
    return [event.where for event in stand.events if hasattr(event, "where")]


def tokens(**options) -> RateLimit:
    """Ten calls and a thousand tokens a minute; a call is estimated at 400."""
    return RateLimit(10, per=60.0, windows=(RateWindow("tokens", 1000, per=60.0, **({"cost": 400} | options)),))


# -- settlement -----------------------------------------------------------------------------------------------------------------------


@both_paths
@both
@pytest.mark.parametrize(("real", "left"), [(100, 900.0), (400, 600.0), (0, 1000.0), (2500, -1500.0)])
def test_the_real_count_takes_the_place_of_the_estimate(suspends, held, real, left):
    """Less is given back, more is a debt for which later calls wait."""
    stand = Stand(held=held, rate_limit=tokens())

    def callee():
        assert available(stand) == {"calls": 9.0, "tokens": 600.0}
        current_permit().settle(tokens=real)
        return "fine"

    assert stand.callable(callee, suspends)() == "fine"
    assert available(stand) == {"calls": 9.0, "tokens": left}
    if left < 0:
        with pytest.raises(RateLimited) as raised:
            stand.succeed(suspends)
        assert raised.value.retry_after == pytest.approx((400 - left) / 1000 * 60)


@both_paths
def test_a_window_without_an_estimate_counts_one_until_it_is_settled(held):
    """Also the only window of a limit."""
    stand = Stand(held=held, rate_limit=RateLimit(1000, per=60.0, unit="tokens"))

    @stand.guard
    def callee():
        assert available(stand) == {"tokens": 999.0}
        current_permit().settle(tokens=300)

    callee()
    assert available(stand) == {"tokens": 700.0}


@both
def test_a_function_of_the_result_settles(suspends):
    """Its None leaves the estimate; it has the last word, after what the callee has said."""
    stand = Stand(rate_limit=tokens(settle=lambda result: result.get("usage")))

    def callee(usage):
        current_permit().settle(tokens=1)
        return {"usage": usage} if usage else {}

    call = stand.callable(callee, suspends)
    call(250)
    assert available(stand)["tokens"] == 750.0
    call(None)
    assert available(stand)["tokens"] == 749.0


def test_a_settle_function_that_fails_leaves_the_estimate():
    """The caller has the result, and it is reported; also what it returns is looked at."""
    for broken in (lambda result: 1 / 0, lambda result: -5, lambda result: "5", lambda result: float("inf")):
        stand = Stand(rate_limit=tokens(settle=broken))
        assert stand.succeed() == "fine"
        assert available(stand)["tokens"] == 600.0
        assert len(defects(stand)) == 1


@pytest.mark.parametrize(
    "real", [{"tokens": -1}, {"tokens": "5"}, {"tokens": float("nan")}, {"tokens": 10**400}, {"tokens": True}, {"token": 5}]
)
def test_what_makes_no_sense_is_reported_and_changes_nothing(real):
    """It never raises in the callee."""
    stand = Stand(rate_limit=tokens())

    @stand.guard
    def callee():
        current_permit().settle(**real)
        return "fine"

    assert callee() == "fine"
    assert available(stand)["tokens"] == 600.0
    assert defects(stand) == ["settling a permit of rate limit dependency"]


def test_a_call_that_has_ended_is_settled_no_more():
    """Its permit was closed with it."""
    stand = Stand(rate_limit=tokens())
    kept = []
    stand.guard.call(lambda: kept.append(current_permit()))
    kept[0].settle(tokens=5)
    assert available(stand)["tokens"] == 600.0
    assert defects(stand) == ["settling a permit of rate limit dependency"]


def test_a_settlement_lets_those_who_wait_in():
    """As soon as it is said, while the call still runs."""
    stand = Stand(rate_limit=RateLimit(1000, per=3e5, unit="tokens", cost=600, max_waiting=3, max_wait=86_400.0))

    async def forever(future, timeout):
        await asyncio.wait((future,))
        return True

    stand.resilience.clock.await_ = forever
    came = []

    async def main():
        said, told = asyncio.Event(), asyncio.Event()

        @stand.guard
        async def first():
            await said.wait()
            current_permit().settle(tokens=100)
            told.set()
            await turns()
            assert came == ["second"]

        @stand.guard
        async def second():
            came.append("second")

        tasks = [asyncio.ensure_future(first())]
        await turns()
        tasks.append(asyncio.ensure_future(second()))
        await turns()
        assert stand.guard.rate_limit.waiting == 1
        said.set()
        await asyncio.gather(*tasks)

    asyncio.run(main())


# -- the current permit ---------------------------------------------------------------------------------------------------------------


@both_paths
def test_outside_of_a_call_there_is_a_permit_that_means_nothing(held):
    """Before, after, in a call of a guard without a limit, and in one that shadow mode lets pass, inside of another as well."""
    stand = Stand(held=held, rate_limit=tokens(cost=1))
    plain = stand.resilience.guard("plain")
    nothing = current_permit()
    nothing.settle(tokens=5)
    assert plain.call(current_permit) is nothing
    assert stand.guard.call(current_permit) is not nothing
    assert stand.guard.call(lambda: plain.call(current_permit)) is not nothing
    assert current_permit() is nothing
    shadowed = stand.resilience.guard("shadowed", rate_limit=RateLimit(1, per=3600.0, shadow=True))
    shadowed.call(int)
    assert stand.guard.call(lambda: shadowed.call(current_permit)) is nothing
    stand.fail()
    assert current_permit() is nothing


@both_paths
def test_a_limit_that_counts_calls_has_nothing_to_settle(held):
    """A call is one call: the permit in it means nothing, and that of a limit around it is still there."""
    stand = Stand(held=held, rate_limit=tokens(cost=1))
    counting = stand.resilience.guard("counting", rate_limit=RateLimit(3, per=3600.0))
    if held:
        counting.switch.hold("test")
    assert counting.call(current_permit) is current_permit()
    assert stand.guard.call(lambda: counting.call(current_permit) is current_permit())
    assert counting.rate_limit.available() == {"calls": 1.0}
    with pytest.raises(Boom):
        counting.call(fail)
    with pytest.raises(RateLimited):
        counting.call(int)
    stand.clock.advance(1200.0)
    assert counting.rate_limit.available() == {"calls": 1.0}


def fail():
    raise Boom


@both_paths
def test_the_innermost_limited_call_is_the_current_one(held):
    """Afterwards the outer one is it again."""
    stand = Stand(held=held, rate_limit=tokens())
    inner = stand.resilience.guard("inner", rate_limit=tokens())

    @stand.guard
    def callee():
        inner.call(lambda: current_permit().settle(tokens=1))
        current_permit().settle(tokens=2)

    callee()
    assert (available(stand)["tokens"], inner.rate_limit.available()["tokens"]) == (998.0, 999.0)


@both_paths
def test_tasks_and_threads_see_the_permit_of_their_call(held):
    """Each task has its own; a task that the callee begins sees that of the callee, and so does the thread of an abandoning timeout."""
    stand = Stand(held=held, rate_limit=tokens(cost=1))

    @stand.guard
    async def callee(number):
        await turns(2)
        await asyncio.create_task(deeper(number))

    async def deeper(number):
        await turns(2)
        current_permit().settle(tokens=number)

    async def main():
        await asyncio.gather(*(callee(10**number) for number in range(3)))

    asyncio.run(main())
    assert available(stand)["tokens"] == 1000.0 - 111.0
    stand = Stand(rate_limit=tokens(), timeout=Timeout(5.0, abandon=True))
    stand.resilience.clock.wait = lambda event, timeout: event.wait(20.0)
    stand.guard.call(lambda: current_permit().settle(tokens=3))
    assert available(stand)["tokens"] == 997.0


def test_blocks_and_streams_are_settled_until_they_end():
    """A block finds its permit at any time; a stream takes it before its first item, and keeps it. Nothing is left in the context."""
    stand = Stand(rate_limit=tokens())
    nothing = current_permit()
    with stand.guard:
        current_permit().settle(tokens=10)
    assert available(stand)["tokens"] == 990.0

    @stand.guard
    def stream():
        permit = current_permit()
        used = 0
        for _ in range(3):
            used += 1
            yield used
        permit.settle(tokens=used)

    items = stream()
    assert next(items) == 1
    assert current_permit() is nothing
    assert available(stand)["tokens"] == 590.0
    assert list(items) == [2, 3]
    assert available(stand)["tokens"] == 987.0

    @stand.guard
    async def astream():
        permit = current_permit()
        for number in range(3):
            yield number
        permit.settle(tokens=87)

    async def main():
        async with stand.guard:
            current_permit().settle(tokens=0)
            seen = [number async for number in astream()]
            current_permit().settle(tokens=100)
        assert current_permit() is nothing
        return seen

    assert asyncio.run(main()) == [0, 1, 2]
    assert available(stand)["tokens"] == 800.0


def test_a_call_that_ends_in_another_context_restores_nothing_there():
    """As a coroutine does that is begun in one context and closed in another."""
    stand = Stand(rate_limit=tokens(cost=1))
    coroutine = stand.guard(Gate().aenter)()
    contextvars.copy_context().run(coroutine.send, None)
    nothing = current_permit()
    coroutine.close()
    assert current_permit() is nothing
    assert stand.count(Outcome.ABANDONED) == 1
    with stand.guard:
        contextvars.copy_context().run(stand.guard.__exit__, None, None, None)
        stand.guard.__enter__()
    assert defects(stand) == []


# -- given back -----------------------------------------------------------------------------------------------------------------------


@both_paths
def test_what_is_rejected_further_in_costs_nothing(held):
    """The bulkhead inside had no slot: the callee was not called, and all windows are as before."""
    stand = Stand(held=held, rate_limit=tokens(), bulkhead=1)

    @stand.guard
    def callee():
        before = available(stand)
        with pytest.raises(BulkheadFull):
            callee()
        assert available(stand) == before

    callee()
    assert available(stand) == {"calls": 9.0, "tokens": 600.0}


def test_who_is_cancelled_before_the_callee_is_called_gets_everything_back():
    """He stood in the line of the bulkhead inside; who is cancelled in the callee has used it."""
    stand = Stand(rate_limit=tokens(), bulkhead=Bulkhead(1, max_waiting=3, max_wait=60.0))

    async def forever(future, timeout):
        await asyncio.wait((future,))
        return True

    stand.resilience.clock.await_ = forever

    async def main():
        running, waiting = (asyncio.ensure_future(stand.guard.acall(asyncio.Event().wait)) for _ in range(2))
        await turns()
        assert available(stand) == {"calls": 8.0, "tokens": 200.0}
        for task, left in ((waiting, {"calls": 9.0, "tokens": 600.0}), (running, {"calls": 9.0, "tokens": 600.0})):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert available(stand) == left

    asyncio.run(main())


def test_an_injected_fault_costs_what_a_call_costs():
    """It is seen as a real one."""
    stand = Stand(rate_limit=tokens())

    class Rule:
        live, over = True, False

        def decide(self, _call=None):
            return True

        def strike(self, _decided=None):
            return SimpleNamespace(delay=0.0, error=InjectedFault("dependency", "x"), after=None)

    stand.guard.faults.arm(Rule())
    with pytest.raises(InjectedFault):
        stand.guard.call(int)
    assert available(stand) == {"calls": 9.0, "tokens": 600.0}


def test_a_stream_that_is_rejected_before_it_begins_costs_nothing():
    """As a call."""
    stand = Stand(rate_limit=tokens(), bulkhead=1)

    @stand.guard
    def stream():
        yield 1

    with stand.guard, pytest.raises(BulkheadFull):
        list(stream())
    assert available(stand) == {"calls": 9.0, "tokens": 600.0}


def test_each_attempt_of_a_retried_call_costs():
    """The first one on the quiet or the express path as well."""
    stand = Stand(rate_limit=tokens(cost=100), retry=3)
    assert isinstance(stand.fail(), Boom)
    assert available(stand) == pytest.approx({"calls": 7.0, "tokens": 700.0}, abs=20)
    # There is one call: the attempt that was made is not made to pay again when the full path looks at it.
    stand = Stand(rate_limit=RateLimit(1, per=3600.0), retry=3)
    assert isinstance(stand.fail(), Boom)
    assert stand.count(Outcome.BAD) == 1


# -- shared ---------------------------------------------------------------------------------------------------------------------------


def test_guards_that_share_a_limit_share_what_there_is():
    """Each with its own idea of what its calls cost."""
    stand = Stand()
    limit = stand.resilience.rate_limit("openai", tokens())
    assert isinstance(limit, RateLimiter)
    chat = stand.resilience.guard("chat", rate_limit=limit)
    embed = stand.resilience.guard("embed", rate_limit=SharedRateLimit(limit, cost={"tokens": len}, settle={"tokens": lambda result: 7}))
    chat.call(int)
    assert embed.call(str, "abc") == "abc"
    assert limit.available() == chat.rate_limit.available() == {"calls": 8.0, "tokens": 593.0}
    with pytest.raises(
        RateLimited, match=r"guard 'embed' rejected the call: rate limited; limit 'openai': tokens: 594 wanted, 593 of 1000"
    ):
        embed.call(str, "x" * 594)


def test_a_shared_limit_is_known_by_its_name():
    """The first mention makes it; others may leave the options out and not differ; a name that is not there is a mistake."""
    stand = Stand()
    limit = stand.resilience.rate_limit("openai", tokens(cost=1))
    assert stand.resilience.rate_limit("openai") is limit
    assert stand.resilience.rate_limit("openai", tokens(cost=1)) is limit
    assert wrong(stand.resilience.rate_limit, "openai", tokens(cost=2)) == ["options"]
    assert wrong(stand.resilience.rate_limit, "opneai") == ["name"]
    assert wrong(stand.resilience.rate_limit, "open ai", tokens()) == ["name"]
    assert wrong(stand.resilience.rate_limit, "other", 5) == ["options"]
    assert wrong(limit.reconfigure, 5) == ["options"]


@pytest.mark.parametrize(
    "options", [{"cost": {"token": 1}}, {"cost": 5}, {"cost": {"tokens": "x"}}, {"settle": {"tokens": 5}}, {"settle": []}]
)
def test_what_is_wrong_about_a_share_is_named(options):
    """Units that the limit does not have, and functions that are none."""
    limit = Stand().resilience.rate_limit("openai", tokens())
    assert wrong(SharedRateLimit, limit, **options) == list(options)
    assert wrong(SharedRateLimit, tokens()) == ["limiter"]


@both_paths
def test_a_shared_limit_is_changed_for_all_who_share_it(held):
    """From the next call on, on every path; a guard can be given another one."""
    stand = Stand(held=held)
    limit = stand.resilience.rate_limit("openai", tokens())
    stand.guard.configure(rate_limit=limit)
    stand.succeed()
    limit.reconfigure(RateLimit(100, per=60.0, cost=5))
    stand.succeed()
    assert limit.available() == {"calls": 94.0}
    other = stand.resilience.rate_limit("other", RateLimit(7, per=60.0))
    stand.guard.configure(rate_limit=other)
    stand.succeed()
    assert (limit.available(), other.available()) == ({"calls": 94.0}, {"calls": 6.0})
    stand.guard.configure(rate_limit=RateLimit(3, per=60.0))
    stand.succeed()
    assert (available(stand), other.available()) == ({"calls": 2.0}, {"calls": 6.0})
    other.reconfigure(RateLimit(7, per=60.0, shadow=True))
    stand.guard.configure(rate_limit=other)
    for _ in range(9):
        stand.succeed()
    assert stand.guard.shadow.counts() == {("rate_limit", "reject"): 3}


def test_costs_that_were_made_for_other_windows_are_fitted():
    """The limit was changed between the look at its windows and the decision: what is new charges nothing."""
    stand = Stand(rate_limit=tokens())
    limiter = stand.guard.rate_limit.limiter
    windows = limiter.windows
    limiter.reconfigure(RateLimit(5, per=60.0, unit="new", windows=(RateWindow("tokens", 1000, per=60.0),)))
    from somaresil.limiter import Permit

    permit = Permit([1.0, 400.0], limiter)
    assert limiter.take(permit, windows)
    assert limiter.available() == {"new": 5.0, "tokens": 600.0}
    assert asyncio.run(limiter.wait(Permit([1.0, 100.0], limiter), windows, stand.guard.suspending, 0.0)) is None
    assert limiter.pretend(Permit([1.0, 100.0], limiter), windows, 0.0) == ("", "")
    assert limiter.available() == {"new": 5.0, "tokens": 400.0}


# -- pushback -------------------------------------------------------------------------------------------------------------------------


def answer(status=None, **headers):
    """An error of an HTTP client."""
    error = Boom("too much")
    error.response = SimpleNamespace(status_code=status, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return error


@both
@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (answer(429), 0.0),
        (answer(503), 0.0),
        (answer(500, Retry_After="3"), 3.0),
        (answer(429, Retry_After="soon"), 0.0),
        (answer(429, Retry_After="86400"), 60.0),
    ],
)
def test_an_answer_that_asks_for_less_halves_the_rate(suspends, error, pause):
    """It is told, with the pause that was asked for, at most a minute of it."""
    stand = Stand(rate_limit=RateLimit(100, per=10.0, adaptive=True))
    limiter = stand.guard.rate_limit.limiter
    assert not stand.guard.switch.quiet
    assert stand.fail(suspends, error) is error
    assert limiter.share == 0.5
    (told,) = stand.told(RateLowered)
    assert (told.guard, told.limit, told.share, told.pause) == ("dependency", "dependency", 0.5, pause)
    if pause:
        with pytest.raises(RateLimited) as raised:
            stand.succeed(suspends)
        assert (raised.value.retry_after, raised.value.detail) == (pause, "an answer has asked for a pause")
    stand.clock.advance(pause)
    for _ in range(50):
        stand.succeed(suspends)
    with pytest.raises(RateLimited) as raised:
        stand.succeed(suspends)
    assert raised.value.retry_after == pytest.approx(0.2)
    stand.clock.advance(1000.0)
    assert limiter.share == 1.0


@pytest.mark.parametrize("error", [Boom(), answer(500), answer(404), answer(), KeyboardInterrupt(), RateLimited("other", 5.0)])
def test_other_ends_change_no_rate(error):
    """Also a rejection by another limit: that is no answer of the dependency."""
    stand = Stand(rate_limit=RateLimit(100, per=10.0, adaptive=True))
    stand.fail(error=error)
    assert stand.guard.rate_limit.limiter.share == 1.0
    assert stand.told(RateLowered) == []


def test_without_being_told_to_nothing_adapts():
    """The default."""
    stand = Stand(rate_limit=RateLimit(100, per=10.0))
    stand.fail(error=answer(429, Retry_After="3"))
    assert stand.guard.rate_limit.limiter.share == 1.0
    assert stand.succeed() == "fine"


def test_a_pushback_that_cannot_be_understood_loses_no_error(monkeypatch):
    """The caller has the error of the callee, and it is reported."""
    stand = Stand(rate_limit=RateLimit(100, per=10.0, adaptive=True))
    monkeypatch.setattr(stand.guard.rate_limit.limiter, "pushed_back", lambda *_: 1 / 0)
    error = answer(429)
    assert stand.fail(error=error) is error
    assert defects(stand) == ["rate limit of guard dependency"]


def test_a_limit_that_is_not_to_adapt_any_more_has_its_whole_rate():
    """At once."""
    stand = Stand(rate_limit=RateLimit(100, per=10.0, adaptive=True))
    stand.fail(error=answer(429))
    stand.guard.configure(rate_limit=RateLimit(200, per=10.0, adaptive=True))
    assert stand.guard.rate_limit.limiter.share == 0.5
    stand.guard.configure(rate_limit=RateLimit(100, per=10.0))
    assert stand.guard.rate_limit.limiter.share == 1.0


def test_a_shared_rate_gives_way_for_all():
    """One guard is told, the other is slowed down with it."""
    stand = Stand()
    limit = Resilience("tests", clock=stand.clock).rate_limit("openai", RateLimit(2, per=10.0, adaptive=True))
    stand.guard.configure(rate_limit=limit)
    other = stand.resilience.guard("other", rate_limit=limit)
    stand.fail(error=answer(429))
    assert stand.told(RateLowered)[0].limit == "openai"
    other.call(int)
    with pytest.raises(RateLimited) as raised:
        other.call(int)
    # Half a call in the first five seconds; then the rate rises.
    assert raised.value.retry_after == pytest.approx(5.0 + 0.5 / 0.11)
