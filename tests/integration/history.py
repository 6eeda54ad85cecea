"""A month of traffic, told to a process and to a real Prometheus, event for event."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from somaresil import SLO, CircuitBreaker, ManualClock, Outcome, Resilience
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
OBJECTIVES = (
    SLO("up", 99.9, timedelta(days=30)),
    SLO("fast", 95.0, timedelta(days=7), "gradual_burn", latency=2.0),
    SLO("recovers", 90.0, timedelta(days=30), recovery=300.0),
)


class Minute(NamedTuple):
    """What happens in one interval: calls that are good and quick, good and slow, and bad."""

    quick: int
    slow: int
    bad: int


@dataclass(frozen=True)
class Trouble:
    """A share of the calls is bad, or slow, for a while."""

    begin: int
    seconds: int
    bad: float = 0.0
    slow: float = 0.0


TROUBLES = (
    Trouble(5 * DAY + 3_600, 600, bad=0.15),
    Trouble(12 * DAY + 41_000, 5_400, bad=0.02, slow=0.2),
    Trouble(20 * DAY + 7_230, 45, bad=1.0),
    Trouble(26 * DAY, 3 * DAY, slow=0.12),
    Trouble(30 * DAY + 50_000, 1_800, bad=0.4),
)


def traffic(seed: int) -> Iterator[tuple[int, Minute]]:
    """Seconds since the beginning at which an interval ends, and what happened in it: days and nights, bursts, and silence."""
    chance = random.Random(seed)
    for end in range(SCRAPE, DAYS * DAY + 1, SCRAPE):
        hour = end % DAY / 3_600
        # Nobody calls from three to half past four; bursts come once in two hours.
        calls = 0 if 3.0 <= hour < 4.5 else chance.randrange(2 if hour < 7 else 6) * (20 if chance.random() < 1 / 240 else 1)
        now = [trouble for trouble in TROUBLES if trouble.begin < end <= trouble.begin + trouble.seconds]
        share = max((trouble.bad for trouble in now), default=0.0002)
        late = max((trouble.slow for trouble in now), default=0.01)
        bad = sum(chance.random() < share for _ in range(calls))
        slow = sum(chance.random() < late for _ in range(calls - bad))
        yield end, Minute(calls - bad - slow, slow, bad)


class Process:
    """A service on a clock that is moved by hand."""

    def __init__(self) -> None:
        self.clock = ManualClock(time=BEGIN)
        self.resilience = Resilience("replay", clock=self.clock, seed=1)
        self.resilience.slos.add(*OBJECTIVES)
        self.guard = self.resilience.guard("model", slo=["up", "fast"], breaker=CircuitBreaker(consecutive_failures=20, open_duration=60.0))

    def live(self, minute: Minute) -> None:
        """Let an interval pass. Its events lie in its middle: on a boundary it would be a matter of taste to which side they belong."""
        self.clock.advance(SCRAPE / 2)
        recorder = self.guard.recorder
        if sum(minute):
            recorder.settle(self.clock.monotonic())
        for outcome, seconds, number in (
            (Outcome.GOOD, 0.1, minute.quick),
            (Outcome.GOOD, 3.0, minute.slow),
            (Outcome.BAD, 0.1, minute.bad),
        ):
            for _ in range(number):
                recorder.add(outcome, seconds)
        self.clock.advance(SCRAPE / 2)

    def counts(self, slo: str, window: float) -> tuple[int, int]:
        """Good and bad events of the last ``window`` seconds, as the process says."""
        return self.resilience.slos.counts(slo, window)


def replay(seed: int, file: Path, look: Callable[[int, Process], None]) -> None:
    """Live through the month: write every sample that a scrape would have seen to ``file``, and ``look`` at the end of every interval."""
    process = Process()
    with file.open("w", encoding="ascii") as samples:
        samples.write("# TYPE somaresil_sli_events counter\n")
        lines: dict[str, list[str]] = {}
        for end, minute in ((0, Minute(0, 0, 0)), *traffic(seed)):
            if end:
                process.live(minute)
            for slo in process.resilience.slos.names:
                totals = process.resilience.slos.series(slo).totals()
                for outcome, number in zip(("good", "bad"), totals, strict=True):
                    name = f'somaresil_sli_events_total{{slo="{slo}",outcome="{outcome}",instance="a",job="somaresil"}}'
                    lines.setdefault(name, []).append(f"{name} {number} {BEGIN + end}\n")
            look(end, process)
        # The format wants the samples of one series together.
        for series in lines.values():
            samples.writelines(series)
        samples.write("# EOF\n")


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
