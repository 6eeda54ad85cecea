"""What every resource that can be taken has in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from somaresil.chaos.resources.limits import chosen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from somaresil.chaos.config import ChaosCeilings
    from somaresil.chaos.resources.hold import Hold
    from somaresil.chaos.resources.limits import Bound
    from somaresil.config import Checker

__all__ = ["Ask", "Resource", "amount_of"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What an experiment wants of a resource."""

    amount: float | None
    """In its own unit; None: as usual."""
    share: float
    """Of the time, for what strikes again and again."""
    rest: str
    """What follows the name of the resource in the target: ``db`` in ``resource:pool:db``."""
    ceilings: ChaosCeilings
    held: float
    """What other experiments of this engine hold of it."""
    target: str
    """What was written as target, and the field that it stood in."""
    field: str


class Resource(Protocol):
    """A kind of resource that can be taken."""

    unit: ClassVar[str]
    """What ``amount`` counts."""
    takes_rest: ClassVar[bool]
    """Whether its target goes on behind its name."""

    def missing(self) -> str:
        """What this platform lacks for it; empty: nothing."""
        ...

    def check(self, check: Checker, ask: Ask) -> float:
        """How much would be taken; notes what stands in the way. Changes nothing."""
        ...

    def take(self, hold: Hold, ask: Ask, ended: Callable[[], object], failed: Callable[[Exception], object]) -> Callable[[], None]:
        """Take it, and return what gives it back: at once, from any thread, and in a forked child.

        ``ended`` is to be called when it is over by itself, ``failed`` with what is raised where nobody hears of it. What this raises must
        leave nothing taken.
        """
        ...


def amount_of(check: Checker, ask: Ask, usual: float, bounds: Sequence[Bound], unit: str, *, whole: bool = True) -> float:
    """The amount to take, when nothing is wrong with it."""
    amount = ask.amount
    if amount is not None and not (_is_number(amount) and amount > 0 and (not whole or amount == int(amount))):
        check.problem("amount", amount, f"{'a whole number of' if whole else 'a number of'} {unit} > 0, or None")
        return 1.0
    amount, refused = chosen(amount, usual, bounds)
    if refused is not None:
        most = max(0.0, refused.most)
        check.problem("amount", ask.amount, f"at most {math.floor(most) if whole else most:.15g} {unit}, {refused.why}", refused.hint)
    # Nobody named this amount, so part of a unit may be cut off it.
    return float(math.floor(amount)) if whole and math.isfinite(amount) else amount


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
