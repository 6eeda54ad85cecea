"""Where a policy works: what its options are given to build it with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from somaresil.chance import Chance
    from somaresil.listeners import Listeners
    from somaresil.noted import Noted
    from somaresil.recorder import Recorder
    from somaresil.shadow import Shadow
    from somaresil.thrift import BudgetScale
    from somaresil.typing import Clock

__all__ = ["Site"]


@dataclass(frozen=True, slots=True)
class Site:
    """One guard, as far as its policies may know it."""

    name: str
    """The name of the guard."""
    recorder: Recorder
    """Its counts."""
    clock: Clock
    chance: Chance
    listeners: Listeners
    shadow: Shadow
    """Takes decisions that are not carried out."""
    ignored: Noted
    """Counts headers that cannot be read."""
    scale: BudgetScale | None = None
    """How much of its budgets the guard may use now; None: all of them, always."""
    key: str | None = None
    """Which of its keys, when the policy is for the calls of that one alone."""
