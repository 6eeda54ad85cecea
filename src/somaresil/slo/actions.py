"""What is done as an error budget runs out, said once: this action when less than so much is left, until so much is left again.

    resilience.alerting(
        BudgetAction("warn", below=0.5),
        BudgetAction("shrink_retries", below=0.25),
        BudgetAction("stop_chaos", below=0.25, until=0.5),
        BudgetAction("freeze_features", below=0.1),
        BudgetAction("block_deployment", below=0.1, slo="api_availability"),
    )

===================  =================================================================================================================
``warn``             tells: an event, and no more
``freeze_features``  tells, and :meth:`Actions.active` says it to whoever decides about features
``block_deployment`` the gate of this process says BLOCK, whatever its own floor is
``shrink_retries``   guards with ``budget_aware`` of that objective make as few further attempts as if nothing were left
``stop_chaos``       experiments that began since then end, and none can be started
===================  =================================================================================================================
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Final

from somaresil.config import Checker

__all__ = ["ACTIONS", "Actions", "BudgetAction"]

ACTIONS: Final = ("warn", "freeze_features", "block_deployment", "shrink_retries", "stop_chaos")
"""What can be done."""

_APART: Final = 0.05


@dataclass(frozen=True, slots=True)
class BudgetAction:
    """``action`` is taken when less than ``below`` of the budget is left, and is over when at least ``until`` is left again.

    Both are shares of the budget; ``until`` is by default 0.05 above ``below``: at one threshold an action would flutter. ``slo`` None
    means every objective, each by itself. With fewer than ``minimum_events`` in the period, and where a store does not know, nothing
    changes.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    action: str
    _: KW_ONLY
    below: float
    until: float | None = None
    slo: str | None = None
    minimum_events: int = 10

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("BudgetAction")
        check.one_of("action", self.action, ACTIONS)
        below = check.ratio("below", self.below)
        until = min(1.0, below + _APART) if self.until is None else check.ratio("until", self.until)
        if until < below:
            check.problem("until", until, f"at least below ({below:g})", "an action would end before it began")
        object.__setattr__(self, "until", until)
        if self.slo is not None:
            check.name("slo", self.slo)
        check.count("minimum_events", self.minimum_events)
        check.finish()

    def holds(self, remaining: float, *, active: bool) -> bool:
        """Whether it is to be taken when ``remaining`` is left of the budget, being ``active`` now or not."""
        return remaining < (float(self.until or 0.0) if active else self.below)


class Actions:
    """Which actions are taken now. Asked without a lock; whoever watches the budgets replaces the whole."""

    def __init__(self) -> None:
        """None."""
        self._taken: dict[tuple[str, str], float] = {}

    def replace(self, taken: dict[tuple[str, str], float]) -> None:
        """From here on these (action, objective), each with what was left of the budget when it was looked at last."""
        self._taken = taken

    def active(self, action: str, slo: str | None = None) -> bool:
        """Whether ``action`` is taken now for ``slo``, or with None for any objective."""
        return any(which == action and slo in {None, whose} for which, whose in self._taken)

    def why(self, action: str, slo: str | None = None) -> str | None:
        """The reason in words, where it is."""
        for (which, whose), left in self._taken.items():
            if which == action and slo in {None, whose}:
                return f"{action}: {left:.1%} of the error budget of {whose} left"
        return None
