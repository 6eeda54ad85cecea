"""What the page shows, from this process alone."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from somaresil.views import view_of

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from somaresil.resilience import Resilience

__all__ = ["Sources"]


class Sources:
    """This process."""

    def __init__(
        self,
        resilience: Resilience,
        *,
        workers: str | Path | None,
        peers: Sequence[str],
        token: str | None,
        perform: Callable[[Mapping[str, Any], str], dict[str, Any]] | None,
    ) -> None:
        """Nothing is started."""
        self._resilience, self._perform, self._others = resilience, perform, (workers, peers, token)
        self.version = 0

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""

    @contextmanager
    def watching(self) -> Generator[None]:
        """Somebody looks."""
        yield

    async def picture(self) -> dict[str, Any]:
        """Everything."""
        guards = self._resilience.guards
        views = [view_of(guard) for guard in guards.values()]
        return {
            "version": 1,
            "service": self._resilience.service,
            "at": self._resilience.clock.time(),
            "sources": [{"name": self._resilience.instance, "kind": "self", "state": "live"}],
            "guards": [{"name": view.name, "state": None if view.state is None else view.state.value} for view in views],
        }

    async def guard(self, name: str) -> dict[str, Any] | None:
        """One guard."""
        return next((guard for guard in (await self.picture())["guards"] if guard["name"] == name), None)

    async def objective(self, name: str) -> dict[str, Any] | None:
        """One objective."""
        return {"name": name} if name in self._resilience.slos.names else None

    async def events(self, after: int | None, *, kind: str | None, about: str | None, most: int) -> dict[str, Any]:  # noqa: ARG002
        """Events."""
        return {"events": [], "next": 1, "lost": 0}

    async def command(self, command: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Do it."""
        done = await asyncio.to_thread(self._perform, command, actor) if self._perform else {"done": False, "problem": "nobody can"}
        return {"done": done["done"], "sources": [{"name": self._resilience.instance, **done}]}
