"""What an objective hears of each call where the cells of a recorder cannot tell it: pace of streams, predicates, groups, refreshing.

Whoever calls :meth:`Probe.note` pays for it, and nobody else: guards and routes without such an objective have no probe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.listeners import Listeners
    from somaresil.pace import Measured
    from somaresil.slo.groups import Groups
    from somaresil.slo.objective import SLO
    from somaresil.slo.series import Series
    from somaresil.typing import Clock

__all__ = ["Probe", "judged"]

_SLOW: Final = 0.05
_GOOD: Final = Outcome.GOOD


def judged(slo: SLO, call: Measured) -> bool | None:
    """Whether a call is a good event of ``slo``; None: it is none. ``good_when`` is not asked here."""
    outcome = call.outcome
    failed = outcome is Outcome.BAD or outcome is Outcome.REJECTED
    usual = True if outcome is _GOOD else False if failed else None
    if slo.about_streams:
        return _of_a_stream(slo, call, usual) if call.stream else None
    if slo.latency is not None and usual:
        return call.elapsed <= slo.latency  # type: ignore[operator]
    if slo.freshness is not None:
        # What failed has refreshed nothing, and time will tell.
        return True if usual else None
    return usual


def _of_a_stream(slo: SLO, call: Measured, usual: bool | None) -> bool | None:  # noqa: FBT001 - what it is by itself
    if slo.first_item is not None:
        if call.first is not None:
            return call.first <= slo.first_item  # type: ignore[operator]
        # One that ended well without any item has told its reader so at its end.
        return call.elapsed <= slo.first_item if usual else usual  # type: ignore[operator]
    if call.first is None:
        # It has not begun. That it failed is no matter of its pace or of its end.
        return True if usual else None
    if slo.idle is not None:
        # A reader who left may have left for that.
        return False if call.gap > slo.idle else None if usual is None else True  # type: ignore[operator]
    return usual


class Probe:
    """Tells one objective, and its groups, of calls. Never raises."""

    __slots__ = ("_clock", "_groups", "_listeners", "_series", "slo")

    def __init__(self, series: Series, groups: Groups | None, clock: Clock, listeners: Listeners) -> None:
        """Tell ``series`` what it cannot see by itself."""
        self.slo = series.slo
        self._series = series
        self._groups = groups
        self._clock = clock
        self._listeners = listeners

    @property
    def needs_every_call(self) -> bool:
        """Whether it has to hear of calls that are no streams too."""
        return self._groups is not None or not self.slo.about_streams

    @property
    def only_streams(self) -> str:
        """Its name if only streams are its events, else empty."""
        return self.slo.name if self.slo.about_streams else ""

    def note(self, call: Measured, now: float, label: Callable[[str | Callable[..., object]], object]) -> None:
        """A call has ended at ``now``. ``label`` gives the value of what the objective is grouped by."""
        try:
            good = self.verdict(call)
            if good is None:
                return
            if not self.slo.read_from_cells:
                self._series.tell(good=good, injected=call.injected, now=now)
            if self._groups is not None and self.slo.group_by is not None:
                self._groups.tell(self._label(label, self.slo.group_by), good=good, injected=call.injected, now=now)
        except Exception as defect:  # noqa: BLE001 - what is counted never changes what is called
            self._report("counting a call", defect)

    def verdict(self, call: Measured) -> bool | None:
        """Whether it is a good event, as :func:`judged`; ``good_when`` is asked."""
        return judged(self.slo, call) if self.slo.good_when is None else self._asked(self.slo.good_when, call)

    def _asked(self, predicate: Callable[[Any, BaseException | None, float], bool | None], call: Measured) -> bool | None:
        usual = judged(self.slo, call)
        # Nobody has a say about a call that was not made, or whose caller went away.
        if call.outcome is not _GOOD and call.outcome is not Outcome.BAD:
            return usual
        began = self._clock.monotonic()
        try:
            said = predicate(call.result, call.error, call.elapsed)
        except Exception as broken:  # noqa: BLE001 - as above
            self._report("good_when", broken, "the usual judgement was used")
            return usual
        if said is not None and not isinstance(said, bool):
            # Of a coroutine function, for one.
            strange = TypeError(f"it returned {type(said).__name__}, not True, False or None")
            self._report("the answer of good_when", strange, "the usual judgement was used")
            return usual
        if (spent := self._clock.monotonic() - began) > _SLOW:
            self._report(
                "the time of good_when", TimeoutError(f"it took {spent:.3g} s, which every call has waited for"), "it is used still"
            )
        return said

    def _label(self, read: Callable[[str | Callable[..., object]], object], by: str | Callable[..., object]) -> object:
        try:
            label = read(by)
            return None if label is None else str(label)
        except Exception as broken:  # noqa: BLE001 - as above
            self._report("group_by", broken, "the call was counted as _other")
            return None

    def _report(self, what: str, defect: Exception, consequence: str = "it was left out") -> None:
        self._listeners.defect(f"objective {self.slo.name}, {what}", defect, self._clock.time(), consequence)
