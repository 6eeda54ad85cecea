"""What the gateway depends on: three guarded calls. This is what a user of somaresil writes, one decorator a dependency."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil import CircuitBreaker, Retry, Timeout
from somaresil.model.breaker import State

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx

    from somaresil import Resilience
    from somaresil.demo.services.witness import Witness

__all__ = ["BREAKER", "Entry", "Outbox", "answers_of", "tokens_of"]

SORRY: Final = "I cannot reach the model just now; please ask again in a moment."
MOST_AT_ONCE: Final = 128
"""Calls to one dependency at the same time; beyond that the fallback answers at once, because waiting would not help anybody."""
SESSIONS_KEPT: Final = 1_000
MODEL: Final = "llm_latency_p95"
"""The objective of calls to the model."""
STEPS: Final = (5.0, 25.0, 50.0, 100.0)
"""Percent of the calls that a new version gets, one after the other."""
BAKE: Final = 120.0
"""Seconds that a step lasts at least."""
OUTBOX_PAUSE: Final = 0.2
"""Seconds between two looks at the outbox."""

BREAKER: Final = CircuitBreaker(failure_rate=0.5, window=5.0, minimum_calls=10, open_duration=1.0, open_maximum=2.0)
"""As everywhere, but for short times: nobody wants to watch a demo for five minutes."""


def answers_of(worker: str, resilience: Resilience, http: httpx.AsyncClient) -> Callable[[str, str], Awaitable[str]]:
    """``await ask(session, text)`` asks the worker. When it cannot be had, the session's last answer must do."""
    answers: OrderedDict[str, str] = OrderedDict()

    async def last_answer(session: str, _text: str) -> str:
        return answers.get(session, SORRY)

    @resilience.guard("worker.call", timeout=1.0, bulkhead=MOST_AT_ONCE, retry=Retry(attempts=3), breaker=BREAKER, fallback=last_answer)
    async def ask(session: str, text: str) -> str:
        reply = await http.post(f"{worker}/v1/tasks", json={"prompt": text})
        reply.raise_for_status()
        answer: str = reply.json()["text"]
        answers[session] = answer
        answers.move_to_end(session)
        if len(answers) > SESSIONS_KEPT:
            answers.popitem(last=False)
        return answer

    return ask


def tokens_of(
    model: str, resilience: Resilience, http: httpx.AsyncClient, rollout: str | None = None
) -> Callable[[str], AsyncIterator[str]]:
    """``async for token in stream(prompt)`` gives the model's answer as it is written. Retry and fallback work until the first token.

    With ``rollout``, a file that the processes of the service share, a new version of the model gets a share of the calls: a canary.
    """

    async def apologise(_prompt: str) -> AsyncIterator[str]:
        for word in SORRY.split():
            yield word

    async def ask(prompt: str, version: str) -> AsyncIterator[str]:
        async with http.stream("GET", f"{model}/stream", params={"prompt": prompt, "version": version}) as reply:
            reply.raise_for_status()
            async for line in reply.aiter_lines():
                if line == "event: done":
                    return
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))["token"]
        raise ConnectionError("the model's stream ended without its last event")

    async def stream(prompt: str) -> AsyncIterator[str]:
        async for token in ask(prompt, "1"):
            yield token

    async def candidate(prompt: str) -> AsyncIterator[str]:
        async for token in ask(prompt, "2"):
            yield token

    options: dict[str, Any] = {
        "timeout": Timeout(first_item=1.0, idle=1.0, total=5.0),
        "bulkhead": MOST_AT_ONCE,
        "retry": Retry(attempts=3),
        "breaker": BREAKER,
        "fallback": apologise,
    }
    if rollout is None:
        return resilience.guard("llm.stream", slo=MODEL, **options)(stream)
    canary = resilience.canary(
        "llm.stream",
        candidate=candidate,
        bad=MODEL,
        version="2",
        checksum="2",
        steps=STEPS,
        bake=BAKE,
        snapshot=rollout,
        guard=options,
    )
    return canary(stream)


class Entry(NamedTuple):
    """One exchange to remember; ``key`` makes writing it twice harmless."""

    key: str
    session: str
    text: str
    answer: str


class Outbox:
    """Writes to the memory store. What cannot be written now waits, and is written as soon as the circuit is closed.

    It waits in the memory of this process; a service that must not lose it in a crash would keep it in a file.
    """

    def __init__(self, memory: str, resilience: Resilience, http: httpx.AsyncClient, witness: Witness) -> None:
        """Nothing waits."""
        self._waiting: deque[Entry] = deque()
        self._witness = witness

        async def keep(entry: Entry) -> None:
            self._waiting.append(entry)

        @resilience.guard(
            "memory.write",
            slo="memory_writes",
            timeout=0.5,
            bulkhead=MOST_AT_ONCE,
            retry=Retry(attempts=3),
            breaker=BREAKER,
            fallback=keep,
        )
        async def write(entry: Entry) -> None:
            body = {"session": entry.session, "text": entry.text, "answer": entry.answer}
            reply = await http.post(f"{memory}/entries", json=body, headers={"idempotency-key": entry.key})
            reply.raise_for_status()

        self.write = write
        self._circuit = resilience.breaker("memory.write")

    def __len__(self) -> int:
        """How many entries wait."""
        return len(self._waiting)

    async def empty(self) -> None:
        """Write what waits, again and again, until cancelled."""
        while True:
            await asyncio.sleep(OUTBOX_PAUSE)
            for _ in range(len(self._waiting)):
                if self._circuit.state is not State.CLOSED:
                    break
                # Through the guard like every write: when it fails again, its fallback puts the entry back.
                self._witness.begin("")
                await self.write(self._waiting.popleft())
