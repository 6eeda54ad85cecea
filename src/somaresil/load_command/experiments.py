"""Experiments that run while a scenario does, by the control app of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from somaresil.clock import SystemClock
from somaresil.errors import describe
from somaresil.gameday.remote import Remote, RemoteTarget

if TYPE_CHECKING:
    from somaresil.load.scenario import ChaosPart
    from somaresil.typing import Clock

__all__ = ["Experiments"]


class Experiments:
    """The plan of a scenario, armed when the first request is due.

    Raises :class:`~somaresil.errors.ConfigurationError` when the token cannot be read.
    """

    def __init__(self, part: ChaosPart, *, clock: Clock | None = None) -> None:
        """Nothing is sent yet."""
        self._plan = part.plan
        self._clock = SystemClock() if clock is None else clock
        self._target = RemoteTarget([Remote(part.url, token_env=part.token_env)], clock=self._clock)
        self._armed: float | None = None
        self.said: list[str] = []
        """What became of them."""

    async def check(self) -> None:
        """Raise :class:`~somaresil.errors.ConfigurationError` when the service would refuse the plan."""
        await self._target.check(self._plan, None)

    async def start(self) -> None:
        """Arm it. Raises as :meth:`check`, and :class:`OSError` when the service is lost."""
        await self._target.start(self._plan, None, "load")
        self._armed = self._clock.monotonic()

    def struck(self) -> bool:
        """Whether one of its windows is open now."""
        if self._armed is None:
            return False
        at = self._clock.monotonic() - self._armed
        return any(window.start <= at < window.end for window in self._plan.windows)

    async def end(self) -> None:
        """Stop what still runs, and say what became of it; the faults are leases, so they end anyway."""
        if self._armed is None:
            return
        try:
            for window, status in zip(self._plan.windows, await self._target.status(), strict=False):
                self.said.append(f"{window.kind} on {window.target}: {status.injected} injected")
        except OSError as broken:
            self.said.append(f"what they did could not be read: {describe(broken)}")
        try:
            await self._target.stop()
        except OSError as broken:
            self.said.append(f"they could not be stopped, and end by themselves: {describe(broken)}")
