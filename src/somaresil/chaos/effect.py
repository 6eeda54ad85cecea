"""What a fault of the process has really done, measured and not assumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Effect"]


@dataclass(frozen=True, slots=True)
class Effect:
    """A fault of the process, as far as it got. Read it while it runs and after it: :attr:`ExperimentRun.effect`."""

    resource: str
    """Its target, such as ``resource:memory``."""
    unit: str
    """What ``asked``, ``reached`` and ``held`` are counted in."""
    asked: float
    """How much was to be taken; infinity: all that there is, until it was counted."""
    reached: float
    """The most that was taken at once."""
    held: float
    """How much is taken now: 0 when it has been released."""
    seconds: float
    """For how long, so far."""
    limited: str = ""
    """Why less than that was taken; empty when nothing stood in the way."""
    measured: Mapping[str, float] = field(default_factory=dict[str, float])
    """What else was measured, by name: seconds of processor time, blocks of a loop and how long they were, how late a loop was."""
