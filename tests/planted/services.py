"""Small services, each with a bug that reviews miss, and each without it. What is shown of them in the docs is cut from here."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from somaresil import SLO, CircuitBreaker, Retry
from somaresil.testing import (
    World,
    amplification_below,
    at_most_once,
    budget_kept,
    burst_below,
    holds,
    never_lost,
    no_hidden_outage,
    recovers_within,
    scenario,
)

# -- a back-off that doubles and never goes back ------------------------------------------------------------------------------------------


class OwnBreaker:
    """Opens after three failures in a row, each time for twice as long as the time before; or, mended, for at most a minute."""

    def __init__(self, world: World, longest: float = float("inf")) -> None:
        self.world, self.longest = world, longest
        self.failures, self.period, self.until = 0, 10.0, 0.0

    async def call(self, function):
        if self.world.now < self.until:
            raise RuntimeError("open")
        try:
            result = await function()
        except Exception:
            self.failures += 1
            if self.failures >= 3 or self.period > 10.0:
                self.until = self.world.now + self.period
                self.period, self.failures = min(self.period * 2.0, self.longest), 0
            raise
        self.failures = 0
        if self.longest < float("inf"):
            self.period = 10.0
        return result


async def chat(world: World, longest: float = float("inf")) -> None:
    breaker = OwnBreaker(world, longest)

    @world.resilience.guard("llm.invoke", timeout=2.0)
    async def invoke():
        await asyncio.sleep(0.05)

    @world.resilience.guard("agent.turn")
    async def turn():
        await breaker.call(invoke)

    async for _ in world.ticks(5.0):
        try:
            await turn()
        except Exception:
            continue


@scenario(recovers_within(300.0), horizon=1_800.0)
async def doubling(world: World) -> None:
    """The pause doubles with each failed attempt, and success does not reset it."""
    await chat(world)


@scenario(recovers_within(300.0), horizon=1_800.0)
async def doubling_mended(world: World) -> None:
    """The pause has a limit, and success resets it."""
    await chat(world, longest=60.0)


# -- a write that is repeated without a key -----------------------------------------------------------------------------------------------


async def remember(world: World, *, keyed: bool) -> None:
    rows: set[int] = set()

    @world.resilience.guard("memory.write", timeout=2.0, retry=Retry(attempts=3, wait=0.1))
    async def write(turn: int):
        await asyncio.sleep(0.02)
        if not keyed or turn not in rows:
            rows.add(turn)
            world.acted("memory.write", turn)

    async for second in world.ticks(10.0):
        try:
            await write(int(second))
        except Exception:
            continue
        world.acknowledged("memory.write", int(second))


@scenario(at_most_once("memory.write"), never_lost("memory.write"), horizon=300.0)
async def unkeyed(world: World) -> None:
    """The store writes whatever comes; the retry comes again when only the reply was lost."""
    await remember(world, keyed=False)


@scenario(at_most_once("memory.write"), never_lost("memory.write"), horizon=300.0)
async def keyed(world: World) -> None:
    """The store knows the key of a turn."""
    await remember(world, keyed=True)


# -- two layers that retry ----------------------------------------------------------------------------------------------------------------


async def answers(world: World, *, outer: int) -> None:
    @world.resilience.guard("llm.invoke", timeout=2.0, retry=Retry(attempts=2, wait=0.2))
    async def invoke():
        await asyncio.sleep(0.05)

    @world.resilience.guard("agent.step", retry=Retry(attempts=outer, wait=0.2))
    async def step():
        await invoke()

    @world.resilience.guard("gateway.request")
    async def request():
        await step()

    async for _ in world.ticks(2.0):
        try:
            await request()
        except Exception:
            continue


@scenario(amplification_below(2.0, "llm.invoke", per="gateway.request"), horizon=300.0)
async def storm(world: World) -> None:
    """Two attempts in one layer, three in the next: six calls of a model that is down already."""
    await answers(world, outer=3)


@scenario(amplification_below(2.0, "llm.invoke", per="gateway.request"), horizon=300.0)
async def storm_mended(world: World) -> None:
    """One layer retries."""
    await answers(world, outer=1)


# -- everybody goes at once when the circuit half-opens -----------------------------------------------------------------------------------


async def tools(world: World, *, polite: bool) -> None:
    until = 0.0
    breaker = CircuitBreaker(consecutive_failures=3, failure_rate=None, open_duration=30.0) if polite else None

    @world.resilience.guard("tool.run", breaker=breaker, timeout=2.0)
    async def run():
        await asyncio.sleep(0.05)

    async def client() -> None:
        nonlocal until
        try:
            # The bug: who finds it closed for now waits in front of the door, and so does everybody else.
            await asyncio.sleep(max(0.0, until - world.now))
            await run()
        except Exception:
            if not polite:
                until = max(until, world.now + 30.0)

    async with asyncio.TaskGroup() as clients:
        async for _ in world.ticks(1.0):
            clients.create_task(client())


@scenario(burst_below(10, "tool.run", per=1.0), horizon=300.0)
async def flood(world: World) -> None:
    """Callers wait for the end of the pause, and all of them go then."""
    await tools(world, polite=False)


@scenario(burst_below(10, "tool.run", per=1.0), horizon=300.0)
async def flood_mended(world: World) -> None:
    """The circuit refuses them, and lets three probes through."""
    await tools(world, polite=True)


# -- a stream that ends early and passes for an answer ------------------------------------------------------------------------------------


async def streams(world: World, *, checks: bool) -> None:
    stored = world.facts["stored"] = []

    @world.resilience.guard("llm.stream")
    async def tokens():
        for word in ("the", "answer", "is", "42"):
            await asyncio.sleep(0.1)
            yield {"text": word}
        yield {"finish": "stop"}

    async for _ in world.ticks(10.0):
        words, finished = [], False
        try:
            async for item in tokens():
                words += [item["text"]] if "text" in item else []
                finished = finished or "finish" in item
        except Exception:
            continue
        if finished or not checks:
            stored.append(" ".join(words))


def whole(simulation):
    partial = [text for text in simulation.world.facts["stored"] if text != "the answer is 42"]
    return f"{len(partial)} partial answers were stored as whole ones, such as {partial[0]!r}" if partial else None


@scenario(holds("only whole answers are stored", whole), horizon=120.0)
async def truncated(world: World) -> None:
    """The end of a stream is taken for its finish."""
    await streams(world, checks=False)


@scenario(holds("only whole answers are stored", whole), horizon=120.0)
async def truncated_mended(world: World) -> None:
    """Only a stream with a finish reason is an answer."""
    await streams(world, checks=True)


# -- a fallback that hides an outage ------------------------------------------------------------------------------------------------------


async def recall(world: World, *, inner: bool) -> None:
    world.resilience.slos.add(SLO("recall", 99.0, timedelta(days=7)))

    @world.resilience.guard("memory.read", slo="recall" if inner else None, timeout=2.0)
    async def read():
        await asyncio.sleep(0.02)
        return ["a fact"]

    @world.resilience.guard("agent.recall", slo=None if inner else "recall", fallback=list)
    async def ask():
        return await read()

    async for _ in world.ticks(5.0):
        await ask()


@scenario(no_hidden_outage("recall", "memory.read"), horizon=600.0)
async def hidden(world: World) -> None:
    """The objective stands where the fallback has made everything good."""
    await recall(world, inner=False)


@scenario(no_hidden_outage("recall", "memory.read"), horizon=600.0)
async def hidden_mended(world: World) -> None:
    """The objective stands on the guard of the dependency."""
    await recall(world, inner=True)


# -- one that has no bug ------------------------------------------------------------------------------------------------------------------


@scenario(recovers_within(300.0), at_most_once(), never_lost(), budget_kept("turns", remaining=-1e9), horizon=900.0)
async def sound(world: World) -> None:
    """A turn of an agent as it should be: breaker, retry, idempotent write."""
    world.resilience.slos.add(SLO("turns", 99.0, timedelta(days=7)))
    rows: set[int] = set()

    @world.resilience.guard("llm.invoke", timeout=2.0, breaker=CircuitBreaker(minimum_calls=5), retry=2)
    async def invoke():
        await asyncio.sleep(0.05)

    @world.resilience.guard("memory.write", timeout=1.0, retry=Retry(attempts=3, wait=0.1))
    async def write(key: int):
        if key not in rows:
            rows.add(key)
            world.acted("memory.write", key)

    @world.resilience.guard("agent.turn", slo="turns")
    async def turn(key: int):
        await invoke()
        await write(key)
        world.acknowledged("memory.write", key)

    async for second in world.ticks(5.0):
        try:
            await turn(int(second))
        except Exception:
            continue
