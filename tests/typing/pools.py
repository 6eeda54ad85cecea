"""What type checkers make of pools. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import assert_type

from somaresil import Endpoint, OutlierEjection, Pool, Resilience
from somaresil.pool import EndpointState, EndpointView, PoolView


class Client:
    """Some client."""

    async def complete(self, prompt: str) -> str:
        """Say it later."""
        return prompt

    def tokens(self, text: str) -> int:
        """Count."""
        return len(text)


resilience = Resilience("shop")
llm = resilience.pool(
    "llm",
    [Endpoint("eu", Client(), weight=2), Endpoint("us", Client()), Endpoint("small", Client(), tier=1)],
    attempts=2,
    slow_start=timedelta(seconds=10),
    ejection=OutlierEjection(max_ejected=0.3),
    breaker=True,
)
assert_type(llm, Pool[Client])
assert_type(llm.endpoints, Mapping[str, Endpoint[Client]])


@llm
async def invoke(endpoint: Endpoint[Client], prompt: str, *, loud: bool = False) -> str:
    """Ask."""
    return await endpoint.target.complete(prompt.upper() if loud else prompt)


@llm
def count(endpoint: Endpoint[Client], text: str) -> int:
    """Count there."""
    return endpoint.target.tokens(text)


@llm
async def stream(endpoint: Endpoint[Client], prompt: str) -> AsyncIterator[str]:
    """Say it one by one."""
    yield await endpoint.target.complete(prompt)


@llm
def by_keyword(text: str, *, endpoint: Endpoint[Client]) -> int:
    """Count there."""
    return endpoint.target.tokens(text)


class Agent:
    """Some agent."""

    @llm
    def count(self, endpoint: Endpoint[Client], text: str) -> int:
        """Count there."""
        return endpoint.target.tokens(text)


async def use() -> None:
    """The endpoint is left out, and the rest is as it was."""
    assert_type(await invoke("hello", loud=True), str)
    assert_type(count("hello"), int)
    assert_type(by_keyword("hello"), int)
    async for item in stream("hello"):
        assert_type(item, str)
    assert_type(llm.call(lambda endpoint: endpoint.target.tokens("x")), int)

    async def ask(endpoint: Endpoint[Client], prompt: str) -> str:
        return await endpoint.target.complete(prompt)

    assert_type(await llm.acall(ask, "hello"), str)
    await invoke(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await invoke("hello", laud=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    llm.add(Endpoint("asia", 5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    llm.add(Endpoint("asia", Client()))
    llm.set_weight("asia", 2)
    llm.remove("asia")
    view = llm.view()
    assert_type(view, PoolView)
    assert_type(view.endpoints["eu"], EndpointView)
    assert_type(view.endpoints["eu"].state, EndpointState)
    assert_type(resilience.snapshot().pools["llm"], PoolView)
