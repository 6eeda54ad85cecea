"""Has a router do what a rollout wants, for as long as it takes.

Where the traffic goes is what the router says, not what was decided: until it has taken an order nothing goes on, and a roll back is
ordered again at every look. Who takes traffic away from the candidate at the router by hand is right; who gives it more is not.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

from somaresil.errors import describe

if TYPE_CHECKING:
    from somaresil.canary.router import TrafficRouter
    from somaresil.model.rollout import Rollout

__all__ = ["Steered", "Steering"]

TOLERANCE: Final = 0.01
"""Shares that differ by less are the same: routers have steps of their own."""


class Steered(Enum):
    """What came of it."""

    AS_BEFORE = "as before"
    TAKEN = "taken"
    """It has taken an order."""
    GIVEN_BACK = "given back"
    """Somebody had given the candidate more than it should have; it has that no more."""
    TAKEN_AWAY = "taken away"
    """Somebody has taken traffic from the candidate, and it was left so."""
    NOT_TAKEN = "not taken"
    """See :attr:`Steering.trouble`."""


class Steering:
    """The orders of one rollout to its router. Not safe to use from several threads at once."""

    def __init__(self, router: TrafficRouter | None) -> None:
        """Nothing was ordered. Without a router every order is taken."""
        self._router = router
        self._started = False
        self._taken: tuple[int, bool] | None = None
        """Place and pause of the last order that it took."""
        self.trouble = ""
        """Why it has not taken the last order, or cannot be asked; empty: it has."""

    def begin(self) -> None:
        """Another version begins."""
        self._started, self._taken, self.trouble = False, None, ""

    def resumed(self, rollout: Rollout, *, taken: bool) -> None:
        """Another process was at ``rollout``, and the router had taken that, or not."""
        self._started = taken
        self._taken = _order(rollout) if taken else None

    def took(self, rollout: Rollout) -> bool:
        """Whether the router has taken what this rollout wants."""
        return self._router is None or self._taken == _order(rollout)

    def follow(self, version: str, rollout: Rollout, reason: str) -> Steered:
        """Order what is still to be ordered, and look whether the rest holds. Waits for the router; raises no ``Exception``."""
        router = self._router
        if router is None:
            return Steered.AS_BEFORE
        try:
            steered = self._follow(router, version, rollout, reason)
        except Exception as failed:  # noqa: BLE001 - a router is somebody else's: whatever it raises, it has not taken it
            self.trouble = f"the router does not follow: {describe(failed)}"
            return Steered.NOT_TAKEN
        self.trouble = ""
        return steered

    def _follow(self, router: TrafficRouter, version: str, rollout: Rollout, reason: str) -> Steered:
        if not self._started:
            if not rollout.over:
                router.start(version)
            self._started = True
        wanted = _order(rollout)
        if self._taken == wanted:
            return self._look(router, rollout)
        before = self._taken
        if before is not None and before[0] == wanted[0]:
            if rollout.paused:
                router.suspend()
            else:
                router.resume()
            steered = self._look(router, rollout, give_back=not rollout.paused)
            self._taken = wanted
            return steered
        if rollout.place < 0:
            router.abort(reason)
        elif rollout.over:
            router.promote()
        elif router.steps:
            router.set_weight(rollout.weight)
        if rollout.paused:
            router.suspend()
        self._taken = wanted
        return Steered.TAKEN

    def _look(self, router: TrafficRouter, rollout: Rollout, *, give_back: bool = False) -> Steered:
        if rollout.over or not router.steps:
            return Steered.AS_BEFORE
        share = router.status().weight
        if share is None or abs(share - rollout.weight) <= TOLERANCE:
            return Steered.AS_BEFORE
        if share < rollout.weight and not give_back:
            return Steered.AS_BEFORE if rollout.paused else Steered.TAKEN_AWAY
        router.set_weight(rollout.weight)
        return Steered.GIVEN_BACK if share > rollout.weight else Steered.TAKEN


def _order(rollout: Rollout) -> tuple[int, bool]:
    return rollout.place, rollout.paused
