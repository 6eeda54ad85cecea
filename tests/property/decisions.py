"""One million decisions with one seed: in one thread, in tasks, in threads, in processes. The set of struck calls is one and the same.

A call is told apart by its scope and its number there: which of several concurrent calls of one scope is the n-th is up to their timing.
"""

from __future__ import annotations

import asyncio
import random
from hashlib import blake2b
from itertools import product
from multiprocessing import get_context
from threading import Thread
from typing import TYPE_CHECKING

from somaresil import ChaosConfig, ManualClock, Resilience
from somaresil.chaos import scope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from somaresil.typing import FaultRule

SEED = 7
RATE = 0.2
GUARDS = ("agent.turn", "llm.invoke", "db.query", "memory.write")
CALLS = 50
"""Decisions about each guard in each scope."""

Struck = set[tuple[str, str, int]]
"""Scope, guard and number of the calls that are struck."""


def rules() -> dict[str, FaultRule]:
    """What is armed in one process, by guard. `SOMARESIL_CHAOS=1` must be set."""
    resilience = Resilience("decisions", environment="test", clock=ManualClock(), seed=SEED)
    resilience.chaos.opt_in()
    guards = {name: resilience.guard(name) for name in GUARDS}
    resilience.chaos.arm(ChaosConfig("error", "*", RATE, 600.0))
    return {name: guard.faults.rules[0] for name, guard in guards.items()}


def scopes(decisions: int) -> list[str]:
    """So many requests as have that many decisions together."""
    return [f"request-{number}" for number in range(decisions // (len(GUARDS) * CALLS))]


def decide(armed: dict[str, FaultRule], where: str, found: Struck) -> None:
    """All decisions of one scope, without a pause."""
    with scope(where):
        found.update((where, name, number) for number, name in product(range(CALLS), GUARDS) if armed[name].decide())


def in_turn(places: list[str]) -> Struck:
    """One after the other."""
    armed, found = rules(), set[tuple[str, str, int]]()
    for where in places:
        decide(armed, where, found)
    return found


def in_tasks(places: list[str]) -> Struck:
    """A thousand requests at once, which give way to one another between their calls, in an order of chance."""
    armed, found = rules(), set[tuple[str, str, int]]()
    chance = random.Random(1)

    async def request(where: str) -> None:
        with scope(where):
            for number in range(CALLS):
                for name in GUARDS:
                    if armed[name].decide():
                        found.add((where, name, number))
                if chance.random() < 0.1:
                    await asyncio.sleep(0)

    async def main() -> None:
        for start in range(0, len(places), 1_000):
            some = places[start : start + 1_000]
            await asyncio.gather(*(request(where) for where in chance.sample(some, len(some))))

    asyncio.run(main())
    return found


def in_threads(places: list[str], threads: int = 4) -> Struck:
    """Requests are dealt to threads that share the rules."""
    armed = rules()
    parts: list[Struck] = [set() for _ in range(threads)]

    def serve(part: int) -> None:
        for where in places[part::threads]:
            decide(armed, where, parts[part])

    crew = [Thread(target=serve, args=(part,)) for part in range(threads)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    return set().union(*parts)


def in_processes(places: list[str], processes: int = 4) -> Struck:
    """Requests are dealt to interpreters of their own, each with rules of its own."""
    with get_context("spawn").Pool(processes) as pool:
        return set().union(*pool.map(in_turn, [places[part::processes] for part in range(processes)]))


WAYS: dict[str, Callable[[list[str]], Struck]] = {
    "one thread": in_turn,
    "asyncio, 1,000 tasks": in_tasks,
    "4 threads": in_threads,
    "4 processes": in_processes,
}


def digest(found: Iterable[tuple[str, str, int]]) -> str:
    """A name for a set of calls."""
    return blake2b(repr(sorted(found)).encode(), digest_size=8).hexdigest()
