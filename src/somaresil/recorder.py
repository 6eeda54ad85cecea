"""Record once, view many: the counts of one guard, in cells of outcome and latency bucket.

A quiet call takes the ``next`` of one ``itertools.count``: a single C call, atomic with and without the GIL, so nothing is lost and nothing
is locked. Calls that are refused at once have such a counter too. All other ends are counted under a lock, in plain arrays that exist only
once they are needed. The window of the breaker, every SLO on the guard, the Prometheus collector and the snapshot are *views* on these
cells, so another SLO costs nothing a call.

Bucket bounds contain every latency threshold that somebody asks about, exactly: an SLO of two seconds reads a bucket that ends at two
seconds. A bound belongs to its bucket, as in Prometheus (``le``).
"""

from __future__ import annotations

import functools
import itertools
import threading
from array import array
from bisect import bisect_left
from operator import add
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from somaresil.errors import CircuitOpen, Rejected
from somaresil.exemplars import SLOW, Tap, slow_from, value_of
from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from somaresil.exemplars import Exemplar, Traces
    from somaresil.switch import Switch

__all__ = ["Counts", "Recorder", "View", "label_of"]

_GOOD: Final = Outcome.GOOD
_MOST_REASONS: Final = 20
"""Reasons are classes; somebody may make them as calls come."""


def label_of(rejection: Rejected | type[Rejected]) -> str:
    """Its reason as a label: ``circuit_open``."""
    return rejection.reason.replace(" ", "_")


class View(Protocol):
    """Somebody who keeps windows over a recorder."""

    @property
    def due(self) -> float:
        """Monotonic time of the next boundary of its windows."""
        ...

    def roll(self, now: float) -> None:
        """Note the totals at every boundary passed; called before anything behind the boundary is counted, with no lock held."""
        ...


class Counts(NamedTuple):
    """One reading of a recorder. ``cells`` maps (outcome, injected) to a count for each bucket; the last bucket has no upper bound."""

    bounds: tuple[float, ...]
    cells: dict[tuple[Outcome, bool], list[int]]

    def total(self, *outcomes: Outcome, injected: bool | None = None) -> int:
        """How many calls ended with one of ``outcomes`` (any when none is named), touched by an experiment or not (None: both)."""
        return sum(
            sum(cell)
            for (outcome, mark), cell in self.cells.items()
            if (not outcomes or outcome in outcomes) and (injected is None or mark is injected)
        )

    def histogram(self, *outcomes: Outcome) -> list[int]:
        """Counts a bucket, summed over ``outcomes`` (any when none is named)."""
        summed = [0] * (len(self.bounds) + 1)
        for (outcome, _), cell in self.cells.items():
            if not outcomes or outcome in outcomes:
                summed = [a + b for a, b in zip(summed, cell, strict=True)]
        return summed


class Recorder:
    """Counts of one guard or route. Exact with any number of threads."""

    __slots__ = (
        "_counters",
        "_exemplars",
        "_noted",
        "_other",
        "_quiet",
        "_reads",
        "_reasons",
        "_refused",
        "_rows",
        "_slow_from",
        "_sources",
        "_traces",
        "_views",
        "bounds",
        "cells",
        "lock",
        "switch",
    )

    def __init__(self, switch: Switch, bounds: tuple[float, ...], traces: Traces | None = None, slow: float = SLOW) -> None:
        """Nothing counted; ``bounds`` are seconds, ascending. Of calls above ``slow`` seconds, and of bad ones, ``traces`` are kept."""
        self.switch = switch
        self.bounds = _shared(bounds)
        self._counters: tuple[Iterator[int], ...] = tuple([itertools.count() for _ in range(len(bounds) + 1)])
        self._rows: Iterator[tuple[int, ...]] | None = None
        """All counters at once, for :meth:`tally`: a reading of one another is twice as dear. Most guards have no objective."""
        self._refused: Iterator[int] | None = None
        self.cells: list[Iterator[object]] = list(self._counters)
        """What a quiet call takes the ``next`` of, one for each bucket. A view may put its own iterator in the place of one it must see."""
        self._reads = 0
        self._reasons: dict[str, int] = {}
        self._other: dict[tuple[Outcome, bool], array[int]] = {}
        # What tally() makes of them, until there is one more.
        self._noted: dict[int | None, tuple[int, int, int, int]] | None = None
        # All locks of somaresil are reentrant. The collector may end a forgotten stream, and a signal handler may pull the kill switch, in
        # the middle of a locked section of the same thread; with a plain lock either would wait for itself for ever.
        self.lock = threading.RLock()
        self._views: tuple[View, ...] = ()
        self._sources: tuple[Callable[[], list[int]], ...] = ()
        self._quiet: tuple[Iterator[object], ...] = self._counters
        self._traces = traces
        self._slow_from = slow_from(bounds, slow)
        self._exemplars: dict[tuple[Outcome, bool, int], Exemplar] | None = None
        if traces is not None and traces.current is not None:
            self.follow_traces()

    @property
    def quiet_counters(self) -> tuple[Iterator[object], ...]:
        """The plain counter of each bucket, to put back into :attr:`cells`."""
        return self._quiet

    @property
    def refusals(self) -> Iterator[object]:
        """The counter of calls that are refused at once: a good part of what a rejection may cost is the lock of :meth:`add`."""
        with self.lock:
            if self._refused is None:
                # As if it had been read as often as the others.
                self._refused = itertools.count(self._reads)
            return self._refused

    def count_quiet(self, elapsed: float) -> None:
        """Count a good quiet call, as the quiet path does by itself."""
        next(self.cells[bisect_left(self.bounds, elapsed)])

    def add(self, outcome: Outcome, elapsed: float, injected: bool = False, reason: str | None = None) -> None:  # noqa: FBT001, FBT002 - hot
        """Count a call that ended after ``elapsed`` seconds, not quietly. ``reason``: what has refused it, unless an open circuit has."""
        bucket = bisect_left(self.bounds, elapsed)
        key = (outcome, injected)
        with self.lock:
            cell = self._other.get(key)
            if cell is None:
                cell = self._other[key] = array("q", bytes(8 * (len(self.bounds) + 1)))
            cell[bucket] += 1
            self._noted = None
            if reason is not None:
                known = reason in self._reasons or len(self._reasons) < _MOST_REASONS
                reason = reason if known else "_other"
                self._reasons[reason] = self._reasons.get(reason, 0) + 1
        traces = self._traces
        if traces is not None and traces.current is not None:
            self._keep(traces, outcome, injected, bucket, elapsed)

    def refusals_by_reason(self) -> dict[str, int]:
        """How many calls were refused, by reason; those that an open circuit refuses are told apart only as all others."""
        # At one moment: what is left for the circuit must never go back.
        with self.lock:
            refused = dict(self._reasons)
            others = self.counts().total(Outcome.REJECTED) - sum(refused.values())
        return {**refused, label_of(CircuitOpen): others} if others else refused

    def follow_traces(self) -> None:
        """Keep exemplars from now on if anybody wants them, and forget them otherwise."""
        wanted = self._traces is not None and self._traces.current is not None
        with self.lock:
            if wanted:
                self._exemplars = {} if self._exemplars is None else self._exemplars
                taps = [Tap(counter, functools.partial(self._tapped, bucket)) for bucket, counter in enumerate(self._counters)]
                quiet: tuple[Iterator[object], ...] = (*self._counters[: self._slow_from], *taps[self._slow_from :])
            else:
                self._exemplars, quiet = None, self._counters
            for bucket, before in enumerate(self._quiet):
                # A view that put its own in the place counts slow calls by itself, and not quietly.
                if self.cells[bucket] is before:
                    self.cells[bucket] = quiet[bucket]
            self._quiet = quiet

    def exemplars(self) -> dict[tuple[Outcome, bool, int], Exemplar]:
        """The latest bad or slow call of a trace by outcome, injected and bucket."""
        with self.lock:
            return dict(self._exemplars or ())

    def _tapped(self, bucket: int) -> None:
        if self._traces is not None:
            self._keep(self._traces, _GOOD, injected=False, bucket=bucket, elapsed=value_of(self.bounds, bucket))

    def _keep(self, traces: Traces, outcome: Outcome, injected: bool, bucket: int, elapsed: float) -> None:  # noqa: FBT001 - as in add
        kept = self._exemplars
        slow = bucket >= self._slow_from
        if kept is None or not (slow or outcome is Outcome.BAD or outcome is Outcome.REJECTED):
            return
        # What a breaker counts as slow without a duration took longer than every bound.
        exemplar = traces.take(elapsed if elapsed < float("inf") else value_of(self.bounds, bucket))
        if exemplar is not None:
            kept[outcome, injected, bucket] = exemplar

    def settle(self, now: float) -> None:
        """Roll every view that has passed a boundary. Call it before counting; with no lock held."""
        views = self._views
        due = float("inf")
        for view in views:
            if now >= view.due:
                view.roll(now)
            due = min(due, view.due)
        self.switch.due = due
        if self._views is not views:
            # One was attached meanwhile, and we have just overwritten that it wants to be asked.
            self.switch.due = float("-inf")

    def attach(self, view: View) -> None:
        """Keep ``view`` rolled from now on."""
        with self.lock:
            self._views = (*self._views, view)
        self.switch.due = float("-inf")

    def detach(self, view: View) -> None:
        """Forget ``view``."""
        with self.lock:
            self._views = tuple(v for v in self._views if v is not view)

    def include(self, source: Callable[[], list[int]]) -> None:
        """Count also what somebody else keeps, of quiet calls by bucket: whenever this is read, ``source`` is asked, with the lock held."""
        with self.lock:
            self._sources = (*self._sources, source)

    def quiet_counts(self) -> list[int]:
        """How many quiet calls ended in each bucket."""
        with self.lock:
            return self._read()[0]

    def calls(self) -> int:
        """How many calls were made so far: all but those that were refused."""
        with self.lock:
            made = sum(sum(cell) for (outcome, _), cell in self._other.items() if outcome is not Outcome.REJECTED)
            return made + sum(self._read()[0])

    def counts(self) -> Counts:
        """Everything counted so far: one moment of the locked cells, and of the quiet ones at least what was counted before it."""
        with self.lock:
            quiet, refused = self._read()
            cells = {key: list(cell) for key, cell in self._other.items()}
        if refused:
            # No time passes in a call that is refused at once: all of them are in the first bucket.
            cells.setdefault((Outcome.REJECTED, False), [0] * len(quiet))[0] += refused
        good = cells.get((Outcome.GOOD, False))
        cells[Outcome.GOOD, False] = quiet if good is None else [a + b for a, b in zip(quiet, good, strict=True)]
        return Counts(self.bounds, cells)

    def tally(self, until: int | None = None) -> tuple[int, int, int, int]:
        """Good calls and bad ones that no experiment touched, and the same of those that one did: what objectives ask for each window.

        Rejected calls are bad, abandoned and ignored ones neither. Good calls beyond the first ``until`` buckets are bad.
        """
        with self.lock:
            # As _read does, but for the sums alone.
            reads, rows = self._reads, self._rows
            if rows is None:
                rows = self._rows = zip(*self._counters, strict=False)
            refused = 0 if self._refused is None else next(self._refused) - reads
            quiet = next(rows)
            self._reads = reads + 1
            for source in self._sources:
                quiet = (*map(add, quiet, source()),)
            late = 0 if until is None else sum(quiet[until:]) - reads * (len(quiet) - until)
            in_time = sum(quiet) - reads * len(quiet) - late
            known = self._noted
            noted = None if known is None else known.get(until)
            if noted is None:
                noted = self._tally_other(until)
        return noted[0] + in_time, noted[1] + late + refused, noted[2], noted[3]

    def _tally_other(self, until: int | None) -> tuple[int, int, int, int]:
        """What :meth:`tally` says of the calls that were not counted quietly; the lock is held."""
        known = self._noted
        if known is None:
            known = self._noted = {}
        found = [0, 0, 0, 0]
        for (outcome, injected), cell in self._other.items():
            calls = sum(cell)
            in_time = 0
            if outcome is Outcome.GOOD:
                in_time = calls if until is None else sum(cell[:until])
            elif outcome is not Outcome.BAD and outcome is not Outcome.REJECTED:
                continue
            place = 2 if injected else 0
            found[place] += in_time
            found[place + 1] += calls - in_time
        # The lock is reentrant: if a call was added meanwhile, this is no longer what is looked at.
        noted = known[until] = (found[0], found[1], found[2], found[3])
        return noted

    def _read(self) -> tuple[list[int], int]:
        # A counter can only be read by bumping it. Each reading bumps each counter once, so the number of readings is what is too much.
        reads = self._reads
        values = [next(counter) - reads for counter in self._counters]
        refused = 0 if self._refused is None else next(self._refused) - reads
        self._reads = reads + 1
        for source in self._sources:
            values = [own + other for own, other in zip(values, source(), strict=True)]
        return values, refused


@functools.lru_cache(maxsize=1_000)
def _shared(bounds: tuple[float, ...]) -> tuple[float, ...]:
    # Most guards have the same bounds; each would hold a tuple of its own.
    return bounds
