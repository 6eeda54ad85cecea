"""Where the events of an objective are counted: in this process, in files that processes left, or in Prometheus.

A store answers one question, and always answers: how many good and bad events there were in a window, how much of the window it has seen,
and how old its newest data are. What it does not know it says in words; it never makes up a zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.slo.objective import SLO

__all__ = ["GroupStore", "Reading", "SliStore"]


class Reading(NamedTuple):
    """The events of one objective in one window, and what the answer rests on.

    A tuple, as it is made for each window that is looked at, and a frozen dataclass takes four times as long to make.
    """

    good: int
    """Good events; with a ``problem`` what was counted nonetheless, which :attr:`counts` does not vouch for."""
    bad: int
    """Bad events, likewise."""
    coverage: float
    """Seconds of data as a share of the window, 0 to 1."""
    source: str
    """Name of the store."""
    age: float | None = None
    """Seconds since the newest data; None: there are none."""
    problem: str | None = None
    """Why nothing is known; None: it is known."""

    @property
    def counts(self) -> tuple[int, int] | None:
        """Good and bad events, or None when they are not known."""
        return None if self.problem is not None else (self.good, self.bad)

    @classmethod
    def unknown(cls, source: str, problem: str, *, coverage: float = 0.0, age: float | None = None) -> Reading:
        """An answer that says why there is none."""
        return cls(0, 0, coverage, source, age, problem)


class SliStore(Protocol):
    """Whoever knows the events of objectives."""

    @property
    def name(self) -> str:
        """What stands as ``source`` in its readings."""
        ...

    def read(self, slo: SLO, window: float) -> Reading:
        """The events of the last ``window`` seconds. Never raises an ``Exception``: what went wrong is the ``problem`` of the reading."""
        ...


@runtime_checkable
class GroupStore(SliStore, Protocol):
    """One that knows the events of groups too."""

    def read_groups(self, slo: SLO, window: float) -> Mapping[str, Reading] | str:
        """The events of each group in the last ``window`` seconds, those without any left out; a text: why nobody knows. Never raises."""
        ...
