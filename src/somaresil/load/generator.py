"""The open loop: requests begin when the timetable says, whatever became of the earlier ones.

A loop that waits for each answer before it asks again slows down with the service that it measures, and the stall is missing from its
figures (Gil Tene, "How NOT to Measure Latency", 2013: coordinated omission). Here every latency counts from the intended start, also when
the generator itself was late; how late it was is a figure of its own. When too many requests are in flight an arrival is *dropped* and
counted: a line without an end would measure the line.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from somaresil.clock import SystemClock
from somaresil.errors import describe
from somaresil.load.books import ABANDONED, Books, Ending
from somaresil.load.measure import Measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from somaresil.typing import Clock

__all__ = ["BUSIEST", "LATEST", "TIMEOUT", "Caller", "Flight", "Generator", "Order", "Point", "Run"]

TIMEOUT: Final = "timeout"
"""The failure of a request whose time was up."""
BUSIEST: Final = 0.95
"""Share of one processor that the generator may use in any slice; with more it measures itself."""
LATEST: Final = 0.05
"""Seconds that 99 % of the requests may begin late at most; with more the generator measures itself."""
MOST_POINTS: Final = 600
_FEWEST: Final = 20
_AT_ONCE: Final = 32
"""Late arrivals that are begun before answers are read again."""
_LOOK: Final = 0.05
"""Seconds between two looks for requests whose time is up."""
_WARM: Final = 20
"""Arrivals before which nothing is said of the generator: the first ones pay for what is done once."""


@dataclass(frozen=True, slots=True)
class Order:
    """One request that is to be made."""

    request: str
    """Its name in the scenario."""
    timeout: float
    """Seconds from the intended start after which its caller has given up."""
    payload: Any = None
    """What the caller needs to know."""


class Flight(Protocol):
    """A request that has begun."""

    def abort(self, failure: str) -> None:
        """End it now, with this failure. What has ended already stays as it is."""
        ...


class Caller(Protocol):
    """Makes requests."""

    def call(self, order: Order, due: float, ended: Callable[[Ending], None]) -> Flight:
        """Begin at once and return. ``ended`` is called once when it is over, and not before this has returned. Must not raise."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


@dataclass(slots=True)
class Point:
    """A slice of a run."""

    at: float
    """Seconds from the beginning to its end."""
    seconds: float
    offered: int
    """Arrivals that were due."""
    good: int
    failed: int
    injected: int
    dropped: int
    p50: float | None
    p95: float | None
    first: float | None
    """The 95th percentile of the time to the first item."""
    in_flight: int
    cpu: float
    """Share of one processor that this process used."""
    late: float
    """Seconds that the latest of its requests began late."""
    chaos: bool = False


@dataclass(slots=True)
class Run:
    """What came out."""

    books: Books
    seconds: float = 0.0
    """From the beginning to the end of the timetable."""
    elapsed: float = 0.0
    """From the beginning to the end of the last request: what rates of answers are counted over, for a line that is worked off later must
    not look like a higher rate."""
    offered: int = 0
    points: list[Point] = field(default_factory=list)
    lateness: Measure = field(default_factory=Measure)
    """Seconds from the intended start to the real one."""
    cpu: float = 0.0
    """Share of one processor that this process used."""
    concurrency: float = 0.0
    """Requests in flight in the mean."""
    complete: bool = False
    """Whether the timetable was worked through."""
    notes: list[str] = field(default_factory=list)
    """What went wrong beside the requests."""

    def per_second(self, count: float) -> float:
        """So many, by second of the whole run."""
        return count / self.elapsed if self.elapsed > 0.0 else 0.0

    @property
    def saturated(self) -> tuple[str, ...]:
        """Why the generator may have measured itself; empty when it has not."""
        why: list[str] = []
        busiest = max((point.cpu for point in self.points if point.seconds >= _SHORTEST), default=self.cpu)
        if busiest >= BUSIEST:
            why.append(f"it used {busiest:.0%} of a processor at its busiest (from {BUSIEST:.0%} on it measures itself)")
        late = self.lateness.quantile(0.99)
        if late is not None and late > LATEST and self.lateness.count >= _WARM:
            why.append(f"1 % of the requests began more than {late:.3f} s late (more than {LATEST:g} s are its own)")
        return tuple(why)


_SHORTEST: Final = 0.5
"""Seconds of a slice from which on its share of a processor says something."""


class Generator:
    """Offers orders at the times of a timetable.

    ``orders(number)`` makes the order of the arrival with this number. ``watch`` is told each slice as it ends. ``struck()`` says whether
    an experiment runs now, for the books.
    """

    def __init__(
        self,
        caller: Caller,
        orders: Callable[[int], Order],
        *,
        max_in_flight: int = 1000,
        bounds: Mapping[str, tuple[float, ...]] | None = None,
        clock: Clock | None = None,
        cpu: Callable[[], float] = time.process_time,
        watch: Callable[[Point, Run], None] | None = None,
        struck: Callable[[], bool] = bool,
    ) -> None:
        """Nothing has begun."""
        self._caller = caller
        self._orders = orders
        self._most = max_in_flight
        self._clock = SystemClock() if clock is None else clock
        self._cpu = cpu
        self._watch = watch
        self._struck = struck
        self._flights: dict[int, tuple[Flight, float]] = {}
        self._empty = asyncio.Event()
        self._flying = asyncio.Event()
        self._bounds = dict(bounds or {})
        self.run = Run(Books(bounds))
        self._busy = 0.0
        """Seconds that ended requests were in flight, added up."""
        self._slice = _Slice()
        self._begun = 0.0

    @property
    def in_flight(self) -> int:
        """Requests without an end yet."""
        return len(self._flights)

    async def offer(self, timetable: Iterable[float], seconds: float) -> Run:
        """Work through the timetable, whose times are seconds from now and less than ``seconds``; return when every request has ended.

        When it is cancelled, what is in flight is ended and counted as abandoned; :attr:`run` has what came out until then.
        """
        monotonic = self._clock.monotonic
        self._begun = begun = monotonic()
        cpu = self._cpu()
        # A second, unless that were too many slices, or too few to see a trend.
        beats = asyncio.create_task(self._beat(max(min(1.0, seconds / _FEWEST), seconds / MOST_POINTS)))
        sweeps = asyncio.create_task(self._sweep())
        try:
            await self._begin_all(timetable, begun)
            left = begun + seconds - monotonic()
            if left > 0.0:
                await self._clock.asleep(left)
            self.run.seconds = seconds
            while self._flights:
                self._empty.clear()
                await self._empty.wait()
            self.run.complete = True
        finally:
            now = monotonic()
            for task in (beats, sweeps):
                task.cancel()
            self._abandon()
            self._end_slice(now)
            self.run.seconds = self.run.seconds or max(now - begun, 1e-9)
            self.run.elapsed = elapsed = max(now - begun, 1e-9)
            self.run.cpu = (self._cpu() - cpu) / elapsed
            self.run.concurrency = self._busy / elapsed
            await asyncio.gather(beats, sweeps, return_exceptions=True)
        return self.run

    async def _begin_all(self, timetable: Iterable[float], begun: float) -> None:
        monotonic, late, books = self._clock.monotonic, self.run.lateness, self.run.books
        for number, at in enumerate(timetable):
            due = begun + at
            now = monotonic()
            if due > now:
                await self._clock.asleep(due - now)
                now = monotonic()
            elif not number % _AT_ONCE:
                await asyncio.sleep(0)
                now = monotonic()
            part = self._slice
            self.run.offered += 1
            part.offered += 1
            order = self._orders(number)
            chaos = self._struck()
            book = books.book(order.request, chaos=chaos)
            if len(self._flights) >= self._most:
                book.dropped += 1
                part.dropped += 1
                continue
            behind = max(0.0, now - due)
            late.add(behind)
            part.late = max(part.late, behind)
            part.chaos = part.chaos or chaos
            book.started += 1
            self._flights[number] = (self._caller.call(order, due, self._ended(number, chaos)), due + order.timeout)
            self._flying.set()

    def _ended(self, number: int, chaos: bool) -> Callable[[Ending], None]:  # noqa: FBT001 - a part of the books
        def over(ending: Ending) -> None:
            if self._flights.pop(number, None) is None:
                return
            self.run.books.note(ending, chaos=chaos)
            self._busy += max(0.0, ending.ended - ending.due)
            part = self._slice
            if ending.failure is None:
                part.good += 1
                part.latency.add(max(0.0, ending.ended - ending.due))
            else:
                part.failed += ending.failure != ABANDONED
            part.injected += ending.injected
            if ending.first is not None:
                part.first.add(max(0.0, ending.first - ending.due))
            if not self._flights:
                self._flying.clear()
                self._empty.set()

        return over

    async def _sweep(self) -> None:
        """End what takes too long."""
        while True:
            await self._flying.wait()
            await self._clock.asleep(_LOOK)
            now = self._clock.monotonic()
            for flight in [flight for flight, deadline in self._flights.values() if deadline <= now]:
                flight.abort(TIMEOUT)

    async def _beat(self, every: float) -> None:
        """End slices."""
        due = self._begun
        cpu = self._cpu()
        self._slice.cpu = cpu
        while True:
            due += every
            await self._clock.asleep(max(0.0, due - self._clock.monotonic()))
            self._end_slice(self._clock.monotonic())

    def _end_slice(self, now: float) -> None:
        part, cpu = self._slice, self._cpu()
        before = self.run.points[-1].at if self.run.points else 0.0
        at = now - self._begun
        seconds = at - before
        if seconds <= 0.0:
            return
        point = Point(
            at=at,
            seconds=seconds,
            offered=part.offered,
            good=part.good,
            failed=part.failed,
            injected=part.injected,
            dropped=part.dropped,
            p50=part.latency.quantile(0.5),
            p95=part.latency.quantile(0.95),
            first=part.first.quantile(0.95),
            in_flight=len(self._flights),
            cpu=(cpu - part.cpu) / seconds,
            late=part.late,
            chaos=part.chaos,
        )
        self._slice = _Slice(cpu)
        self.run.points.append(point)
        if self._watch is not None:
            try:
                self._watch(point, self.run)
            except Exception as broken:  # noqa: BLE001 - a screen that is gone must not end a soak of four hours
                self._watch = None
                self.run.notes.append(f"the progress could not be shown any more: {describe(broken)}")

    def _abandon(self) -> None:
        """Let go of what is in flight; of each only the number is kept."""
        for flight, _ in [*self._flights.values()]:
            flight.abort(ABANDONED)
        self._flights.clear()


class _Slice:
    """What is being counted."""

    __slots__ = ("chaos", "cpu", "dropped", "failed", "first", "good", "injected", "late", "latency", "offered")

    def __init__(self, cpu: float = 0.0) -> None:
        self.cpu = cpu
        self.offered = self.good = self.failed = self.injected = self.dropped = 0
        self.late = 0.0
        self.chaos = False
        self.latency = Measure()
        self.first = Measure()
