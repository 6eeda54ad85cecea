"""Bulkhead: at most so many calls at once, so that one slow dependency cannot take every thread and task of the service.

One capacity over all threads and event loops together; those who wait are served by class and, within one, in the order in which they
came (:mod:`somaresil.line`).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker
from somaresil.line import Line
from somaresil.priority import Prioritizer

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.line import Slot
    from somaresil.runtime import Runtime
    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["Bulkhead", "BulkheadPolicy"]


@dataclass(frozen=True, slots=True)
class Bulkhead:
    """How many calls may run at once, and how many may wait for how long (seconds, as a number or a ``timedelta``)."""

    max_concurrent: int
    """Calls that may run at once."""
    max_waiting: int = 0
    """Calls that may wait for a slot."""
    max_wait: float | timedelta = 0.0
    """How long a call may wait."""
    _: KW_ONLY
    prioritizer: Prioritizer | None = None
    """Who says, for several limits together, which calls are shed before they stand in line."""
    shadow: bool = False
    """Reject nobody and let nobody wait; only count and tell what would have been rejected."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("Bulkhead")
        check.count("max_concurrent", self.max_concurrent, maximum=1_000_000)
        check.count("max_waiting", self.max_waiting, minimum=0, maximum=1_000_000)
        max_wait = check.seconds("max_wait", self.max_wait, exclusive=False, maximum=86_400.0)
        object.__setattr__(self, "max_wait", max_wait)
        if self.prioritizer is not None:
            check.type("prioritizer", self.prioritizer, Prioritizer, "what resilience.prioritizer() gives, or None")
        check.type("shadow", self.shadow, bool, "True or False")
        # What goes together is looked at only when everything is right by itself: one mistake is one problem.
        check.finish()
        if self.max_waiting and not max_wait:
            check.problem("max_wait", self.max_wait, "seconds > 0 when max_waiting is set", "nobody could wait")
        if max_wait and not self.max_waiting:
            check.problem("max_waiting", self.max_waiting, "a whole number >= 1 when max_wait is set", "nobody could wait")
        check.finish()

    def build(self, site: Site) -> BulkheadPolicy:
        """The bulkhead at work."""
        return BulkheadPolicy(self, site)


class BulkheadPolicy:
    """A bulkhead at work. A slot is handed from the one who leaves to the one whose turn it is, and never lost on the way."""

    quiet = False
    leaves = True
    """Whether there is something to leave when a call on the express path has ended."""

    def __init__(self, options: Bulkhead, site: Site) -> None:
        """All slots free."""
        self.options = options
        self._site = site
        self.line = Line(site.name, site.clock, *_limits(options))
        """The slots, and those who wait for one."""
        self.try_enter = self.line.try_enter
        """A slot if there is one at once; None: the call has to take the long way. Never waits, never raises."""
        self.leave = self.line.leave
        """Give a slot back."""

    @property
    def limit(self) -> int:
        """How many calls may hold a slot now."""
        return self.line.limit

    @property
    def active(self) -> int:
        """How many calls hold a slot now."""
        return self.line.active

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot now."""
        return self.line.waiting

    def reconfigure(self, options: Bulkhead) -> None:
        """Use other limits from now on; calls that hold a slot keep it."""
        self.options = options
        self.line.reconfigure(*_limits(options))

    def retire(self) -> None:
        """It is taken from its guard. Those inside and in line end as if it were not."""
        self.line.retire()

    async def admit(self, runtime: Runtime, left: float | None) -> Slot | None:
        """A slot, at once or after standing in line, ``left`` seconds at most; None: it is not enforced.

        Raises :class:`~somaresil.errors.BulkheadFull` or :class:`~somaresil.errors.LoadShed`.
        """
        if not self.options.shadow:
            return await self.line.admit(runtime, left)
        slot = self.line.try_enter()
        if slot is None:
            self._site.shadow.note("bulkhead", "reject", f"{self.active} calls running")
        return slot

    async def __call__(self, inner: Next, call: Call) -> Any:
        """Let the call through when there is a slot, or raise :class:`~somaresil.errors.BulkheadFull`."""
        # A call that is played back was made before: that attempt is over.
        slot = await self.admit(call.runtime, call.time_left()) if call.replayed is None else None
        if slot is None:
            return await inner(call)
        if not call.lasting:
            try:
                return await inner(call)
            finally:
                self.line.leave(slot)
        try:
            result = await inner(call)
        except BaseException:
            self.line.leave(slot)
            raise
        call.at_end(lambda _outcome, _now: self.line.leave(slot))
        return result


def _limits(options: Bulkhead) -> tuple[int, int, float, Prioritizer | None]:
    # Durations were turned into seconds when the options were made. A limit that only watches sheds nothing anywhere.
    prioritizer = None if options.shadow else options.prioritizer
    return options.max_concurrent, options.max_waiting, float(options.max_wait), prioritizer  # type: ignore[arg-type]
