"""Everything the dashboard shows, of this process and of those beside it: see :class:`Sources`."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from somaresil.dashboard import merge
from somaresil.dashboard.picture import GUARD, ROUTE, Local
from somaresil.patrol import Patrol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path

    from somaresil.resilience import Resilience

__all__ = ["Sources"]

_PLOTTED: Final = 60
"""Of so many guards and routes, the busiest, the picture has series; of others only what is shown of one alone has."""


class Sources:
    """This process, its siblings on this machine and peers elsewhere, as one."""

    def __init__(
        self,
        resilience: Resilience,
        *,
        workers: str | Path | None = None,
        peers: Sequence[str] = (),
        token: str | None = None,
        perform: Callable[[Mapping[str, Any], str], dict[str, Any]] | None = None,
    ) -> None:
        """Nothing is started."""
        self._resilience = resilience
        self._perform = perform
        self._workers, self._peers, self._token = workers, peers, token
        self.local = Local(resilience)
        self._patrol = Patrol(
            "somaresil-dashboard", self._round, self.local.next_sample, resilience.listeners, in_fork=self.local.after_fork
        )
        self._running = False
        self._watchers = 0
        self._lock = threading.RLock()

    @property
    def version(self) -> int:
        """Moves when something of note happened."""
        return self.local.events.version

    def start(self) -> None:
        """Remember from now on."""
        self._running = True
        self.local.start()
        self._patrol.wake()

    def stop(self) -> None:
        """Remember no more."""
        self._running = False
        self.local.stop()
        self._patrol.wake()

    @contextmanager
    def watching(self) -> Generator[None]:
        """Somebody looks."""
        with self._lock:
            self._watchers += 1
            self.local.events.attend(looked_at=True)
        try:
            yield
        finally:
            with self._lock:
                self._watchers -= 1
                if not self._watchers:
                    self.local.events.attend(looked_at=False)

    async def picture(self) -> dict[str, Any]:
        """What is shown of all."""
        return await asyncio.to_thread(self._picture)

    def _picture(self) -> dict[str, Any]:
        portrait = self.local.portrait()
        names = busiest(portrait)
        return merge.picture(portrait, merge.series(self.local.columns(names)))

    async def guard(self, name: str) -> dict[str, Any] | None:
        """What is shown of one guard; None: there is none."""
        return await asyncio.to_thread(self._guard, name)

    def _guard(self, name: str) -> dict[str, Any] | None:
        found = self.local.guard(name)
        if found is None:
            return None
        portrait = self.local.portrait()
        whole = merge.details([found])
        columns = whole.pop("columns")
        shown = merge.guard(name, whole.pop("guard"), portrait["at"] - portrait["since"], merge.series(columns).get(GUARD + name))
        return {
            **shown,
            **whole,
            "heat": merge.heat(columns, GUARD + name),
            "recent": self.local.events.read(about=name, most=50)["events"],
        }

    async def objective(self, name: str) -> dict[str, Any] | None:
        """What is shown of one objective; None: there is none."""
        return await asyncio.to_thread(self._objective, name)

    def _objective(self, name: str) -> dict[str, Any] | None:
        portrait, found = self.local.portrait(), self.local.objective(name)
        if found is None or name not in portrait["objectives"]:
            return None
        about = [each for each in portrait["incidents"] if each["kind"] == "objective" and each["subject"] == name]
        return {**merge.objective(name, portrait), **found, "incidents": about}

    async def events(self, after: int = 0, *, kind: str | None = None, about: str | None = None, most: int = 200) -> dict[str, Any]:
        """Events after a number."""
        found = self.local.events.read(after, kind=kind, about=about, most=most)
        return {"events": found["events"], "next": found["upto"], "lost": found["lost"], "thinned": found["thinned"]}

    async def command(self, command: Mapping[str, Any], actor: str) -> dict[str, Any]:
        """Do something in every process."""
        if self._perform is None:
            return {"done": False, "sources": [{"name": self.local.name, "done": False, "problem": "nothing can be controlled here"}]}
        said = await asyncio.to_thread(self._perform, command, actor)
        return {"done": bool(said.get("done", True)), "sources": [{"name": self.local.name, "done": True, "problem": "", **said}]}

    def _round(self) -> bool:
        self.local.sample()
        return self._running


def busiest(portrait: Mapping[str, Any], most: int = _PLOTTED) -> list[str]:
    """The names of columns that are plotted."""
    calls = [
        (-sum((each["recent"] or each["totals"])[:5]), prefix + name)
        for prefix, kind in ((GUARD, "guards"), (ROUTE, "routes"))
        for name, each in portrait[kind].items()
    ]
    return [name for _, name in sorted(calls)[:most]]
