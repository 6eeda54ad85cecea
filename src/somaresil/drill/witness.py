"""What an instance has noticed, and what its guards have counted: for whoever judges how long it took to notice a fault."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from somaresil.events import AttemptFailed, BreakerChanged, CallEnded, FallbackUsed, HedgeStarted, RetryScheduled
from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.resilience import Resilience

__all__ = ["Witness"]

_MOST: Final = 5_000
_SIGNS: Final = (AttemptFailed, RetryScheduled, HedgeStarted, FallbackUsed)


class Witness:
    """Listens to one process, and remembers what says that something is wrong."""

    def __init__(self, resilience: Resilience) -> None:
        """Nothing seen."""
        self._resilience = resilience
        self._clock = resilience.clock
        self._signs: deque[tuple[float, str, str]] = deque(maxlen=_MOST)
        self.waiting: Callable[[], int] = lambda: 0
        """How many writes wait to be delivered."""
        resilience.on(self._sign, *_SIGNS)
        resilience.on(self._changed, BreakerChanged)
        resilience.on(self._ended, CallEnded)

    def since(self, moment: float) -> dict[str, Any]:
        """The first sign since then (readings of the monotonic clock), and the counts of all guards so far."""
        first = next((sign for sign in self._signs if sign[0] >= moment), None)
        shown = self._resilience.snapshot()
        return {
            "first_sign": first and first[0],
            "sign": first and f"{first[1]} {first[2]}",
            "waiting": self.waiting(),
            "guards": {
                name: {
                    "calls": guard.counts.total(),
                    "touched": guard.counts.total(injected=True),
                    "touched_good": guard.counts.total(Outcome.GOOD, injected=True),
                }
                for name, guard in shown.guards.items()
            },
            "slos": {
                name: {"good": budget.good, "bad": budget.bad, "remaining": budget.remaining_share}
                for name, budget in shown.budgets.items()
            },
        }

    def _sign(self, event: Any) -> None:
        self._signs.append((self._clock.monotonic(), type(event).__name__, event.guard))

    def _changed(self, event: BreakerChanged) -> None:
        if event.after == "open":
            self._sign(event)

    def _ended(self, event: CallEnded) -> None:
        if event.outcome not in {Outcome.GOOD, Outcome.ABANDONED}:
            self._sign(event)
