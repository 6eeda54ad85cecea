"""A month of traffic, told to a process and to real servers, event for event."""

from __future__ import annotations

import random
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from somaresil import SLO, CircuitBreaker, ManualClock, Outcome, Resilience
from somaresil.pace import Measured
from tests.integration.servers import HOST, Server, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BEGIN = 1_790_812_800
"""Midnight: slots of every width begin there."""
DAY = 86_400
DAYS = 31
SCRAPE = 60
"""Seconds between two samples."""
FRESH = 600
EVENTS = "somaresil_sli_events_total"
_MONTH, _WEEK = timedelta(days=30), timedelta(days=7)


def answered(result: object, error: BaseException | None, elapsed: float) -> bool | None:
    """Somebody's own idea of a good call."""
    return None if result == "skip" else error is None and result == "fine"


OBJECTIVES = (
    SLO("up", 99.9, _MONTH),
    SLO("fast", 95.0, _WEEK, "gradual_burn", latency=2.0),
    SLO("recovers", 90.0, _MONTH, recovery=300.0),
    SLO("first", 99.0, _MONTH, first_item=1.0),
    SLO("gap", 99.0, _MONTH, idle=2.0),
    SLO("complete", 99.5, _MONTH, completion=True),
    SLO("fresh", 99.0, _MONTH, freshness=float(FRESH)),
    SLO("judged", 99.0, _MONTH, good_when=answered),
    SLO("real", 99.9, _MONTH, injected="exclude"),
    SLO("apart", 99.9, _MONTH, injected="separate", chaos_budget_percentage=1.0),
)
"""Those whose events are exported."""
INSIDE = (
    SLO("minutes", 99.0, _MONTH, budgeting="timeslices", time_slice_window=60.0, time_slice_target=0.9),
    SLO("mean", 99.0, _MONTH, budgeting="ratio_timeslices", time_slice_window=300.0),
    SLO("week", 99.9, calendar="week", time_zone="Europe/Berlin"),
    SLO("month", 95.0, calendar="month", time_zone="America/New_York", latency=2.0),
    SLO("mix", 99.0, _MONTH, parts={"up": 2.0, "fast": 1.0}),
    SLO("tenants", 99.9, _MONTH, group_by="tenant"),
)
"""Those of which the process alone knows all there is to know."""
TENANTS = ("ann", "bob", "eve")


class Call(NamedTuple):
    """One call, a stream, as it went."""

    good: bool
    seconds: float = 0.1
    first: float | None = 0.1
    """Seconds to its first item; None: it failed before."""
    gap: float = 0.1
    injected: bool = False
    result: str | None = "fine"
    tenant: str = "ann"


@dataclass(frozen=True)
class Trouble:
    """A share of the calls is bad, or slow, or struck by an experiment, for a while."""

    begin: int
    seconds: int
    bad: float = 0.0
    slow: float = 0.0
    struck: float = 0.0


TROUBLES = (
    Trouble(5 * DAY + 3_600, 600, bad=0.15),
    Trouble(12 * DAY + 41_000, 5_400, bad=0.02, slow=0.2),
    Trouble(20 * DAY + 7_230, 45, bad=1.0),
    Trouble(26 * DAY, 3 * DAY, slow=0.12),
    Trouble(30 * DAY + 50_000, 1_800, bad=0.4),
    Trouble(10 * DAY + 36_000, 1_800, struck=0.5),
)
OUTAGES = tuple((day * DAY + 54_030, 120 if day % 2 else 420) for day in range(1, DAYS, 3))
"""When a circuit opens, in the middle of an interval, and for how many seconds: longer than is allowed every other time."""


def traffic(seed: int) -> Iterator[tuple[int, list[Call]]]:
    """Seconds since the beginning at which an interval ends, and what happened in it: days and nights, bursts, and silence."""
    chance = random.Random(seed)
    for end in range(SCRAPE, DAYS * DAY + 1, SCRAPE):
        hour = end % DAY / 3_600
        # Nobody calls from three to half past four; bursts come once in two hours.
        calls = 0 if 3.0 <= hour < 4.5 else chance.randrange(2 if hour < 7 else 6) * (20 if chance.random() < 1 / 240 else 1)
        now = [trouble for trouble in TROUBLES if trouble.begin < end <= trouble.begin + trouble.seconds]
        bad = max((trouble.bad for trouble in now), default=0.0002)
        slow = max((trouble.slow for trouble in now), default=0.001)
        struck = max((trouble.struck for trouble in now), default=0.0)
        yield end, [_call(chance, bad, slow, struck) for _ in range(calls)]


def _call(chance: random.Random, bad: float, slow: float, struck: float) -> Call:
    tenant = chance.choice(TENANTS)
    injected = chance.random() < struck
    if injected or chance.random() < bad:
        # Every other one breaks in the middle, and some of those have kept their readers waiting.
        first, gap = chance.choice([(None, 0.0), (0.1, 0.1), (None, 0.0), (1.5, 2.5)])
        return Call(good=False, first=first, gap=gap, injected=injected, result=None, tenant=tenant)
    if chance.random() < slow:
        return Call(good=True, seconds=3.0, first=1.5, gap=2.5, result="late", tenant=tenant)
    return Call(good=True, result="skip" if chance.random() < 0.05 else "fine", tenant=tenant)


class Process:
    """A service on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(time=BEGIN)
        self.resilience = Resilience("replay", clock=self.clock, seed=1)
        self.resilience.slos.add(*OBJECTIVES, *INSIDE)
        named = [slo.name for slo in (*OBJECTIVES, *INSIDE) if slo.about_calls]
        self.guard = self.resilience.guard("model", slo=named)
        breaker = CircuitBreaker(failure_rate=None, consecutive_failures=1, open_duration=10.0, open_jitter=0.0, half_open_calls=1)
        self.breaking = self.resilience.guard("breaking", breaker=breaker)
        self._turns = {begin: False for begin, _ in OUTAGES} | {begin + seconds: True for begin, seconds in OUTAGES}

    def live(self, end: int, calls: list[Call]) -> None:
        """Let an interval pass. Its events lie in its middle: on a boundary it would be a matter of taste to which side they belong."""
        self.clock.advance(SCRAPE / 2)
        if (turn := self._turns.get(end - SCRAPE // 2)) is not None:
            with suppress(ZeroDivisionError):
                self.breaking.call(lambda: 1 / turn)
        recorder, probes, now = self.guard.recorder, self.guard.probes, self.clock.monotonic()
        if calls:
            recorder.settle(now)
        for call in calls:
            outcome = Outcome.GOOD if call.good else Outcome.BAD
            recorder.add(outcome, call.seconds, call.injected)
            error = None if call.good else LookupError()
            measured = Measured(outcome, call.seconds, call.injected, call.result, error, stream=True, first=call.first, gap=call.gap)
            for probe in probes:
                probe.note(measured, now, lambda _, call=call: call.tenant)
        self.clock.advance(SCRAPE / 2)

    def counts(self, slo: str, window: float, group: str | None = None) -> tuple[int, int]:
        """Good and bad events of the last ``window`` seconds, as the process says."""
        return self.resilience.slos.counts(slo, window, group=group)


class Lived(NamedTuple):
    """What a month has left behind."""

    totals: dict[str, list[tuple[int, int]]]
    """Good and bad events so far at each scrape, by objective: what is exported."""
    calls: list[list[Call]]
    """Everything that happened, by interval."""


def replay(seed: int, look: Callable[[int, Process], None]) -> Lived:
    """Live through the month, and ``look`` at the end of every interval."""
    process = Process()
    lived = Lived({slo.name: [] for slo in OBJECTIVES}, [])
    series = {name: process.resilience.slos.series(name) for name in lived.totals}
    for end, calls in ((0, []), *traffic(seed)):
        if end:
            process.live(end, calls)
            lived.calls.append(calls)
        for name, totals in lived.totals.items():
            totals.append(series[name].totals())
        look(end, process)
    return lived


def openmetrics(lived: Lived, file: Path) -> None:
    """Every sample that scrapes would have seen, as promtool reads it."""
    with file.open("w", encoding="ascii") as samples:
        samples.write("# TYPE somaresil_sli_events counter\n")
        # The format wants the samples of one series together.
        for name, totals in lived.totals.items():
            for place, outcome in enumerate(("good", "bad")):
                series = f'{EVENTS}{{slo="{name}",outcome="{outcome}",instance="a",job="somaresil"}}'
                samples.writelines(f"{series} {each[place]} {BEGIN + at * SCRAPE}\n" for at, each in enumerate(totals))
        samples.write("# EOF\n")


def plain_text(lived: Lived, name: str, last: float) -> bytes:
    """The samples of one objective as VictoriaMetrics reads them, moved so that the last of them was taken at ``last``."""
    lines = []
    for place, outcome in enumerate(("good", "bad")):
        series = f'{EVENTS}{{slo="{name}",outcome="{outcome}",instance="a",job="somaresil"}}'
        begin = last - (len(lived.totals[name]) - 1) * SCRAPE
        lines += [f"{series} {each[place]} {round((begin + at * SCRAPE) * 1_000)}" for at, each in enumerate(lived.totals[name])]
    return "\n".join([*lines, ""]).encode()


def remembering(file: Path, folder: Path, programs: tuple[str, str]) -> Server:
    """A Prometheus that has these samples, and scrapes nothing."""
    prometheus, promtool = programs
    data = folder / "data"
    # It reads the whole file once a block: few large ones are made in seconds.
    made = [promtool, "tsdb", "create-blocks-from", "--max-block-duration=744h", "openmetrics", str(file), str(data)]
    subprocess.run(made, check=True, capture_output=True, timeout=120.0)
    (folder / "prometheus.yml").write_text("{}", encoding="ascii")
    port = free_port()
    command = [
        prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=10y",
        f"--web.listen-address={HOST}:{port}",
        "--log.level=warn",
    ]
    return Server(command, port=port, folder=folder, ready="/-/ready")
