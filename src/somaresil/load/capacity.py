"""How much a service can take: the highest rate at which its limits are kept, found by probes.

A probe is an open-loop run at one rate, judged by the limits of the scenario, and by whether the service keeps up: when the requests in
flight grow all the time, a limit of two seconds that is kept for ten would have been broken in the next ten. The rate is doubled until a
probe fails, then the range between the highest rate that was kept and the lowest that was not is halved (by ratio) until it is narrow
enough. Near the knee a single probe is chance, so each rate there is decided by the majority of up to three, and the rate that is reported
was kept in most of its runs. The curve of throughput over concurrency is fitted with the Universal Scalability Law, which also says what
limits it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.load.session import Session
from somaresil.load.thresholds import Answer, needed
from somaresil.model.proportion import wilson
from somaresil.model.scalability import fit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from somaresil.load.report import LoadReport
    from somaresil.load.scenario import Scenario
    from somaresil.model.scalability import Scalability
    from somaresil.typing import Clock

__all__ = ["Capacity", "Probe", "find_capacity", "scenario_capacity"]

MOST_PROBES: Final = 60
_RUNS: Final = 3
_WARMING_UP: Final = 0.25
_FEWEST_POINTS: Final = 8
_SLOWEST_GROWTH: Final = 0.02
"""Share of the rate."""
_TRIES: Final = 3
"""Probes at a rate at which the generator was saturated, before it is given up."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A run at one rate."""

    rate: float
    """Arrivals a second that were offered."""
    answer: Answer
    why: str = ""
    """The first limit that was not kept, or not known."""
    throughput: float = 0.0
    """Good answers a second."""
    concurrency: float = 0.0
    p95: float | None = None
    saturated: bool = False
    """Whether the generator has measured itself."""

    @classmethod
    def of(cls, rate: float, report: LoadReport) -> Probe:
        """What came of a run."""
        book = report.run.books.total()
        answer = report.answer
        why = next((f"{check.what}: {check.why}" for check in report.checks if check.answer is answer), "")
        if answer is Answer.KEPT and (slope := growth(report)) is not None:
            answer = Answer.BROKEN
            why = f"requests in flight grew by {slope:.3g} a second: the service does not keep up, and a longer run would break the limits"
        return cls(
            rate,
            answer,
            "" if answer is Answer.KEPT else why,
            report.run.per_second(book.good),
            report.run.concurrency,
            book.latency.quantile(0.95),
            bool(report.run.saturated),
        )


def growth(report: LoadReport) -> float | None:
    """By how many a second the requests in flight have grown; None: by no more than chance or 2 % of the rate.

    The slope of a straight line through the slices after the first quarter. It must be four times its standard error and, with arrivals
    by chance, three times what so many arrivals vary by themselves.
    """
    run, scenario = report.run, report.scenario
    points = [(point.at, float(point.in_flight)) for point in run.points if run.seconds * _WARMING_UP <= point.at <= run.seconds]
    if len(points) < _FEWEST_POINTS:
        return None
    middle = math.fsum(at for at, _ in points) / len(points)
    level = math.fsum(flying for _, flying in points) / len(points)
    spread = math.fsum((at - middle) ** 2 for at, _ in points)
    slope = math.fsum((at - middle) * (flying - level) for at, flying in points) / spread
    rest = math.fsum((flying - level - slope * (at - middle)) ** 2 for at, flying in points)
    error = math.sqrt(rest / (len(points) - 2) / spread)
    seconds = points[-1][0] - points[0][0]
    rate = run.offered / run.seconds
    chance = 3.0 * math.sqrt(rate / seconds) if scenario.arrival == "poisson" else 0.0
    return slope if slope > max(4.0 * error, chance, _SLOWEST_GROWTH * rate) else None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What was found."""

    knee: float | None
    """The highest rate at which the limits were kept; None: there is none, or it is not known."""
    broken_at: float | None
    """The lowest rate above it at which they were not; None: no probe got there."""
    probes: tuple[Probe, ...]
    law: Scalability | None = None
    why: str = ""
    """Why it is not known."""

    @property
    def found(self) -> bool:
        """Whether both ends of the knee are known."""
        return self.knee is not None and self.broken_at is not None

    def kept_at(self, rate: float) -> tuple[int, int]:
        """How many of the probes at this rate kept the limits, and how many there were."""
        answers = [probe.answer for probe in self.probes if probe.rate == rate and (probe.answer is Answer.KEPT or not probe.saturated)]
        return answers.count(Answer.KEPT), len(answers)

    def headroom(self, rate: float) -> float | None:
        """How much more than ``rate`` fits, as a share of it; negative when it is too much already."""
        return None if self.knee is None or rate <= 0.0 else self.knee / rate - 1.0

    def as_dict(self, rate: float | None = None) -> dict[str, Any]:
        """For JSON; ``rate``: what is offered now, for the headroom."""
        law = self.law
        return {
            "version": 1,
            "knee": self.knee,
            "broken_at": self.broken_at,
            "why": self.why,
            "current": rate,
            "headroom": None if rate is None else self.headroom(rate),
            "law": None if law is None else {**asdict(law), "best_concurrency": law.best_concurrency, "limit": law.limit},
            "probes": [{**asdict(probe), "answer": probe.answer.value} for probe in self.probes],
        }

    def to_json(self, rate: float | None = None) -> str:
        """All of it."""
        return json.dumps(self.as_dict(rate), indent=2, allow_nan=False)

    def lines(self, rate: float | None = None) -> list[str]:
        """What to read first."""
        if self.knee is None:
            return [f"no rate is known at which the limits are kept: {self.why}"]
        kept, runs = self.kept_at(self.knee)
        interval = wilson(kept, runs)
        low = "" if interval is None else f" (with 95 % confidence in at least {interval[0]:.0%} of such runs)"
        said = [f"the limits are kept at {self.knee:.4g} a second: in {kept} of {runs} runs{low}"]
        if self.broken_at is not None:
            broken, tried = self.kept_at(self.broken_at)
            said.append(f"they are not at {self.broken_at:.4g} a second: kept in {broken} of {tried} runs; {self._broken_by()}")
        else:
            said.append(f"where they are not was not found: {self.why}")
        if (headroom := None if rate is None else self.headroom(rate)) is not None:
            said.append(f"headroom over {rate:.4g} a second: {headroom:+.0%}")
        if (law := self.law) is not None:
            limit = "no limit can be seen" if law.limit is None else f"at most {law.limit:.4g} a second"
            best = "" if law.best_concurrency is None else f", best with {law.best_concurrency:.3g} in flight"
            said.append(
                f"scalability (USL): contention {law.contention:.2%}, coherency {law.coherency:.2e}, {limit}{best}; "
                f"it explains {law.explained:.1%} of the differences"
            )
        return said

    def _broken_by(self) -> str:
        return next((probe.why for probe in self.probes if probe.rate == self.broken_at and probe.why), "")

    def rows(self) -> list[tuple[str, ...]]:
        """A row for each probe, by rate."""
        return [
            (
                f"{probe.rate:.4g}",
                probe.answer.value,
                f"{probe.throughput:.4g}",
                f"{probe.concurrency:.3g}",
                "-" if probe.p95 is None else f"{probe.p95:.4g}",
                probe.why,
            )
            for probe in sorted(self.probes, key=lambda probe: probe.rate)
        ]


async def find_capacity(
    probe: Callable[[float], Awaitable[Probe]], *, start: float, most: float = 20_000.0, precision: float = 0.05, runs: int = _RUNS
) -> Capacity:
    """Find the knee with ``probe(rate)``.

    ``start``: the first rate, of which it is hoped that it is kept; ``most``: the highest that is tried; ``precision``: how far apart, as a
    share, the two ends of the knee may be; ``runs``: probes that decide a rate at the end, of which the majority counts.

    Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("capacity")
    check.number("start", start, minimum=0.0, exclusive=True)
    check.number("most", most, minimum=start if start > 0 else 0.0)
    check.number("precision", precision, minimum=0.001, maximum=0.5)
    check.count("runs", runs, maximum=9)
    check.finish()
    return await _Search(probe, most, precision, runs).find(start)


class _UndecidedError(Exception):
    """A probe could not decide."""


class _Search:
    def __init__(self, probe: Callable[[float], Awaitable[Probe]], most: float, precision: float, runs: int) -> None:
        self._probe = probe
        self._most = most
        self._precision = precision
        self._runs = runs
        self.probes: list[Probe] = []
        self._at: defaultdict[float, list[bool]] = defaultdict(list)

    async def find(self, start: float) -> Capacity:
        low: float | None = None
        high: float | None = None
        why = ""
        try:
            rate = start
            while high is None:
                if await self._kept(rate):
                    low = rate
                    if rate >= self._most:
                        why = f"{self._most:g} a second is the most that was to be tried"
                        break
                    rate = min(self._most, rate * 2.0)
                else:
                    high = rate
            while low is None and high is not None:
                # Not even the first was kept: go down until one is.
                rate = high / 2.0
                if rate < start / 64.0:
                    why = f"not even {high:.4g} a second are kept"
                    break
                if await self._kept(rate):
                    low = rate
                else:
                    high = rate
            if low is not None and high is not None:
                low, high = await self._narrow(low, high)
        except _UndecidedError as undecided:
            why = str(undecided)
        law = fit([(probe.concurrency, probe.throughput) for probe in self.probes])
        return Capacity(low, high, tuple(self.probes), law, why)

    async def _narrow(self, low: float, high: float) -> tuple[float | None, float]:
        while high / low > 1.0 + self._precision:
            middle = math.sqrt(low * high)
            if await self._majority(middle):
                low = middle
            else:
                high = middle
        # What is reported is confirmed; one that was kept by luck is stepped back from.
        floor = low / 4.0
        while not await self._majority(low, whole=True):
            high, low = low, low / (1.0 + self._precision)
            if low < floor:
                raise _UndecidedError(f"below {high:.4g} a second the answers vary from run to run")
        return low, high

    async def _majority(self, rate: float, *, whole: bool = False) -> bool:
        """Whether most of the runs at this rate are kept; ``whole``: make all of them, also when it is decided already."""
        needed_runs = self._runs // 2 + 1
        while True:
            kept = self._at[rate].count(True)
            lost = len(self._at[rate]) - kept
            done = kept + lost >= self._runs
            if done or (not whole and max(kept, lost) >= needed_runs) or lost >= needed_runs:
                return kept >= needed_runs
            await self._kept(rate)

    async def _kept(self, rate: float) -> bool:
        if len(self.probes) >= MOST_PROBES:
            raise _UndecidedError(f"{MOST_PROBES} probes were not enough")
        for _ in range(_TRIES):
            probe = await self._probe(rate)
            self.probes.append(probe)
            if probe.answer is Answer.KEPT or not probe.saturated:
                break
            # A moment in which the machine did something else; with luck the next one is quiet.
        else:
            raise _UndecidedError(f"at {rate:.4g} a second the generator itself was saturated")
        if probe.answer is Answer.UNKNOWN:
            raise _UndecidedError(f"at {rate:.4g} a second: {probe.why}")
        kept = probe.answer is Answer.KEPT
        self._at[rate].append(kept)
        return kept


async def scenario_capacity(
    scenario: Scenario,
    *,
    start: float | None = None,
    most: float = 20_000.0,
    seconds: float = 10.0,
    precision: float = 0.05,
    runs: int = _RUNS,
    allow_hosts: Iterable[str] = (),
    clock: Clock | None = None,
    watch: Callable[[Probe], None] | None = None,
) -> Capacity:
    """Find the knee of a scenario: its requests, its limits, at one rate after the other for ``seconds`` each.

    A probe that would have too few requests to decide is longer. ``start``: a tenth of the scenario's highest rate by default.

    Raises :class:`~somaresil.errors.ConfigurationError`.
    """
    check = Checker("capacity")
    check.seconds("seconds", seconds, maximum=3_600.0)
    check.finish()
    enough = needed(scenario) * 1.3

    async def probe(rate: float) -> Probe:
        session = Session(scenario.at(rate, max(seconds, enough / rate)), allow_hosts=allow_hosts, clock=clock)
        found = Probe.of(rate, await session.run())
        if watch is not None:
            watch(found)
        return found

    first = scenario.peak / 10.0 if start is None else start
    return await find_capacity(probe, start=first, most=most, precision=precision, runs=runs)
