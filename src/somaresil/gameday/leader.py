"""Which one of several processes runs what is due by the clock: what :class:`~somaresil.gameday.scheduler.Scheduler` asks of a leader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.resilience import Resilience

__all__ = ["Claim", "Leader"]


class Claim(Protocol):
    """What came of a claim."""

    @property
    def granted(self) -> bool:
        """Whether the occurrence is ours to run."""
        ...

    @property
    def reason(self) -> str:
        """Why not: ``taken`` (somebody has run it), ``running`` (the run before goes on somewhere), ``lost`` (we do not lead any more)."""
        ...


class Leader(Protocol):
    """Which one of several processes runs what is due. :class:`somaresil.integrations.redisleader.RedisLeader` is ours.

    Nothing here may raise: what cannot be said is no.
    """

    @property
    def leads(self) -> bool:
        """Whether this process leads, as far as it knows; asks nobody."""
        ...

    async def start(self, resilience: Resilience, changed: Callable[[], object]) -> None:
        """Begin to stand for election; ``changed()`` is called whenever :attr:`leads` may have changed."""
        ...

    async def stop(self) -> None:
        """Stand down, and let somebody else lead at once."""
        ...

    async def claim(self, schedule: str, occurrence: str, *, keep: float, exclusive: float | None) -> Claim:
        """Take an occurrence, once in the fleet; remembered for ``keep`` seconds.

        ``exclusive``: only when no run of the schedule goes on anywhere, and none may begin for so many seconds, or until :meth:`done`.
        """
        ...

    async def done(self, schedule: str, occurrence: str) -> None:
        """An exclusive run is over."""
        ...
