"""Grading the client: a service with one flaw gets exactly that finding, and one without gets none, under asyncio and in threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from somaresil import ChaosConfig, ChaosExperiment, CircuitBreaker, Fallback, ManualClock, Resilience, Retry
from somaresil.chaos import scope

REQUESTS = 40


class Busy(Exception):
    """An answer that asks for a pause."""

    retry_after = 2.0


class BadRequest(Exception):
    """An answer that is the same however often one asks."""

    status_code = 400


def mendable(error: BaseException) -> bool:
    return not isinstance(error, BadRequest)


GOOD: dict[str, Any] = {
    "timeout": 1.0,
    "retry": Retry(attempts=3, on=mendable),
    "breaker": True,
    "fallback": lambda prompt: f"cached {prompt}",
}
PATIENT = CircuitBreaker(minimum_calls=1_000)
"""One that has not seen enough yet."""

FLAWS: dict[str, tuple[dict[str, Any], type[Exception] | None]] = {
    "retry_storm": ({"retry": Retry(attempts=12, on=mendable, budget=None), "breaker": PATIENT}, None),
    "retry_after_ignored": ({"retry": Retry(attempts=3, on=mendable, max_retry_after=None)}, Busy),
    "no_jitter": ({"retry": Retry(attempts=3, on=mendable, wait=0.5), "breaker": PATIENT}, None),
    "no_backoff": ({"retry": Retry(attempts=3, on=mendable, wait=0.0)}, None),
    "timeout_longer_than_deadline": ({"timeout": 60.0}, None),
    "breaker_never_opened": ({"breaker": None}, None),
    "fallback_never_used": ({"fallback": Fallback(lambda prompt: prompt, on=KeyError)}, None),
    "retried_non_retryable": ({"retry": Retry(attempts=3)}, BadRequest),
    "gave_up": ({"retry": None, "fallback": None}, None),
}


class Service:
    """A service that asks a model, and an experiment that fails it."""

    def __init__(self, flawed: dict[str, Any], error: Any, rate: float, kind: str = "error") -> None:
        self.clock = ManualClock()
        self.resilience = Resilience("tests", clock=self.clock, seed=5, environment="test")
        self.resilience.chaos.opt_in()
        options = {name: option for name, option in {**GOOD, **flawed}.items() if option is not None}
        self.guard = self.resilience.guard("llm.invoke", **options)
        delay = 0.5 if kind == "latency" else 0.0
        self.config = ChaosConfig(ChaosExperiment(kind), "llm.invoke", rate, 600.0, delay_seconds=delay, error=error)

    def threads(self) -> set[str]:
        """Ask from eight threads; what was found."""

        @self.guard
        def invoke(prompt: str) -> str:
            return prompt

        def request(number: int) -> None:
            with scope(f"request-{number}"), self.resilience.deadline(30.0):
                try:
                    invoke("hello")
                except Exception:
                    return

        with self.resilience.chaos.grade() as grades:
            self.resilience.chaos.arm(self.config)
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(request, range(REQUESTS)))
        return {grade.name for grade in grades}

    def tasks(self) -> set[str]:
        """Ask from as many tasks; what was found."""

        @self.guard
        async def invoke(prompt: str) -> str:
            await asyncio.sleep(0)
            return prompt

        async def request(number: int) -> None:
            with scope(f"request-{number}"), self.resilience.deadline(30.0):
                try:
                    await invoke("hello")
                except Exception:
                    return

        async def run() -> None:
            self.resilience.chaos.arm(self.config)
            for first in range(0, REQUESTS, 8):
                await asyncio.gather(*(request(first + number) for number in range(8)))

        with self.resilience.chaos.grade() as grades:
            asyncio.run(run())
        return {grade.name for grade in grades}


@pytest.fixture(autouse=True)
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow chaos in the environment."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


@pytest.mark.parametrize("how", ["threads", "tasks"])
@pytest.mark.parametrize("name", FLAWS)
def test_a_flaw_is_found_and_nothing_else(name, how):
    flawed, error = FLAWS[name]
    assert getattr(Service(flawed, error, 1.0), how)() == {name}


@pytest.mark.parametrize("how", ["threads", "tasks"])
@pytest.mark.parametrize("error", [None, Busy, BadRequest, ConnectionResetError])
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_a_service_that_behaves_is_found_to_do_nothing_wrong(rate, error, how):
    assert getattr(Service({}, error, rate), how)() == set()


@pytest.mark.parametrize("how", ["threads", "tasks"])
@pytest.mark.parametrize("kind", ["latency", "circuit_trip", "lost_reply"])
def test_neither_by_other_faults(kind, how):
    assert getattr(Service({}, None, 1.0, kind), how)() == set()


# -- streams ------------------------------------------------------------------------------------------------------------------------------

WORDS = ("one", "two", "[end]")


def streams(resilience, careful):
    """A model that streams, and a turn of an agent that reads it, with or without looking for the end."""

    @resilience.guard("llm.stream", breaker=True)
    def stream(prompt):
        yield from WORDS

    @resilience.guard("llm.astream", breaker=True)
    async def astream(prompt):
        for word in WORDS:
            yield word

    def whole(words):
        if careful and words[-1:] != ["[end]"]:
            raise ConnectionError("the answer ended early")
        return words

    @resilience.guard("agent.turn", fallback=lambda prompt: ["sorry"])
    def turn(prompt):
        return whole(list(stream(prompt)))

    @resilience.guard("agent.aturn", fallback=lambda prompt: ["sorry"])
    async def aturn(prompt):
        return whole([word async for word in astream(prompt)])

    return turn, aturn


@pytest.mark.parametrize("how", ["threads", "tasks"])
@pytest.mark.parametrize("careful", [False, True])
def test_a_truncated_stream_that_nobody_notices_is_found(careful, how):
    """The turn around it ends well without its end; a careful one fails."""
    resilience = Resilience("tests", clock=ManualClock(), seed=5, environment="test")
    resilience.chaos.opt_in()
    turn, aturn = streams(resilience, careful)

    def ask(number):
        try:
            turn("hello")
        except ConnectionError:
            return

    async def aask():
        try:
            await aturn("hello")
        except ConnectionError:
            return

    async def run():
        await asyncio.gather(*(aask() for _ in range(12)))

    with resilience.chaos.grade() as grades:
        resilience.chaos.arm(ChaosConfig(ChaosExperiment.STREAM_TRUNCATION, "llm.*", 0.5, 60.0))
        if how == "tasks":
            asyncio.run(run())
        else:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(ask, range(12)))
    name = "llm.astream" if how == "tasks" else "llm.stream"
    expected = set() if careful else {("truncated_stream_accepted", name)}
    # What a careful turn answers in place of it is its fallback's.
    assert {(grade.name, grade.guard) for grade in grades} == expected
