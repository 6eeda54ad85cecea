"""What the process says of its objectives and what Prometheus says of the same events is the same, over a month."""

from __future__ import annotations

import json
import shutil
import urllib.parse
import urllib.request
from bisect import bisect_right
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from somaresil.model import slo as model
from tests.integration.history import BEGIN, DAY, DAYS, OBJECTIVES, SCRAPE, TROUBLES, Process, remembering, replay
from tests.integration.servers import find_prometheus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

WINDOWS = {"5m": 300, "30m": 1_800, "1h": 3_600, "2h": 7_200, "6h": 21_600, "1d": DAY, "3d": 3 * DAY, "7d": 7 * DAY, "30d": 30 * DAY}
SLOT = {seconds: 10 if seconds <= 7_200 else 300 if seconds <= 3 * DAY else 3_600 for seconds in WINDOWS.values()}
HOURS = [trouble.begin // 3_600 * 3_600 + 3_600 for trouble in TROUBLES] + [DAYS * DAY, 8 * DAY, 17 * DAY + 16 * 3_600]
"""Instants at which every slot begins."""
BETWEEN = [hour - 3_600 + offset for hour, offset in zip(HOURS, (60, 420, 1_140, 1_980, 2_820, 3_480, 180, 2_460), strict=True)]
AFTERWARDS = 7 * 3_600
"""How long after a trouble alerts are looked at: an hour more than their longest short window."""
SLOS = [slo.name for slo in OBJECTIVES]


class Month(NamedTuple):
    """A month as the process saw it, and the Prometheus that has its samples."""

    server: Server
    counts: dict[tuple[int, str, int], tuple[int, int]]
    """Good and bad events by instant, objective and window."""
    totals: dict[str, list[tuple[int, int]]]
    """Good and bad events so far at each scrape: what is true."""
    firing: dict[tuple[str, int], list[int]]
    """At which instants the condition of an objective fired, by its place in the policy."""
    looked: list[int]
    """At which instants conditions were looked at."""

    def ask(self, endpoint: str, **parameters: str) -> list[Any]:
        """The result of a query."""
        url = f"{self.server.url}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30.0) as response:
            return list(json.load(response)["data"]["result"])

    def increase(self, window: str, at: int) -> dict[tuple[str, str], float]:
        """What Prometheus says, by objective and outcome."""
        query = f"sum by (slo, outcome) (increase(somaresil_sli_events_total[{window}]))"
        return {
            (series["metric"]["slo"], series["metric"]["outcome"]): float(series["value"][1])
            for series in self.ask("query", query=query, time=str(BEGIN + at))
        }

    def within(self, slo: str, begin: int, end: int) -> tuple[int, int]:
        """What is true of the events between two instants."""
        (good_before, bad_before), (good, bad) = (self.totals[slo][max(0, at) // SCRAPE] for at in (begin, end))
        return good - good_before, bad - bad_before


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    """Lived once for all tests here."""
    programs = find_prometheus(), shutil.which("promtool")
    if programs[0] is None or programs[1] is None:
        pytest.skip("prometheus and promtool are not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    folder = tmp_path_factory.mktemp("month")
    instants = {*HOURS, *BETWEEN}
    counts: dict[tuple[int, str, int], tuple[int, int]] = {}
    totals: dict[str, list[tuple[int, int]]] = {slo: [] for slo in SLOS}
    firing: dict[tuple[str, int], list[int]] = {(slo, place): [] for slo in ("up", "fast") for place in (0, 1)}
    looked: list[int] = []

    def look(at: int, process: Process) -> None:
        slos = process.resilience.slos
        for slo in SLOS:
            totals[slo].append(slos.series(slo).totals())
            if at in instants:
                counts.update({(at, slo, window): process.counts(slo, window) for window in WINDOWS.values()})
        if any(trouble.begin - 600 <= at <= trouble.begin + trouble.seconds + AFTERWARDS for trouble in TROUBLES):
            looked.append(at)
            for slo in ("up", "fast"):
                for place, condition in enumerate(slos.conditions(slo)):
                    if condition.firing:
                        firing[slo, place].append(at)

    file = folder / "month.txt"
    replay(7, file, look)
    with remembering(file, folder, (programs[0], programs[1])) as server:
        yield Month(server, counts, totals, firing, looked)


@pytest.mark.parametrize("slo", SLOS)
@pytest.mark.parametrize("window", WINDOWS)
def test_where_slots_begin_counts_are_the_same(month, slo, window):
    """Within a hundredth, as the samples allow; mostly to the event. A month has events of every kind."""
    seen = 0
    for at in HOURS:
        mine = month.counts[at, slo, WINDOWS[window]]
        theirs = month.increase(window, at)
        for outcome, number in zip(("good", "bad"), mine, strict=True):
            assert number == pytest.approx(theirs.get((slo, outcome), 0.0), rel=0.01, abs=0.5), (at, outcome)
            seen += number
    assert seen or slo == "recovers"


@pytest.mark.parametrize("slo", SLOS)
@pytest.mark.parametrize("window", WINDOWS)
def test_between_slots_they_differ_by_the_events_of_one_slot_at_most(month, slo, window):
    """The process looks at a window that begins where a slot does; Prometheus extrapolates to the edges of its own."""
    seconds = WINDOWS[window]
    for at in BETWEEN:
        theirs = month.increase(window, at)
        begin = at - seconds
        slot = -(-SLOT[seconds] // SCRAPE) * SCRAPE
        edge = month.within(slo, begin, begin + slot)
        for outcome, number, most in zip(("good", "bad"), month.counts[at, slo, seconds], edge, strict=True):
            truth = theirs.get((slo, outcome), 0.0)
            assert truth * 0.99 - most - 0.5 <= number <= truth * 1.01 + 0.5, (at, outcome)


def burning(slo: Any, place: int) -> str:
    """One condition of an objective, in PromQL."""
    window = slo.burn_policy.windows[place]
    factor = model.burn_threshold(window.budget_share, slo.period, window.long)
    limit = factor * model.budget_ratio(slo.target_percentage)

    def ratio(seconds: float) -> str:
        events = f'somaresil_sli_events_total{{slo="{slo.name}"'
        return f'sum(increase({events},outcome="bad"}}[{int(seconds)}s])) / sum(increase({events}}}[{int(seconds)}s]))'

    return f"({ratio(window.long)} > {limit}) and ({ratio(window.short)} > {limit})"


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("slo", OBJECTIVES[:2], ids=lambda slo: slo.name)
def test_alerts_begin_and_end_in_the_same_slot(month, slo, place):
    """Every time that either of them begins or ends to fire, the other does so within one slot, or between the same two looks."""
    theirs: set[int] = set()
    for begin in range(0, DAYS * DAY, 7 * DAY):
        end = min(begin + 7 * DAY - SCRAPE, DAYS * DAY)
        query = {"query": burning(slo, place), "start": str(BEGIN + begin), "end": str(BEGIN + end), "step": str(SCRAPE)}
        for series in month.ask("query_range", **query):
            theirs.update(int(at) - BEGIN for at, _ in series["values"])
    mine = set(month.firing[slo.name, place])
    assert mine, "nothing has fired"
    window = slo.burn_policy.windows[place]
    tolerance = max(SCRAPE, SLOT[int(window.long)], SLOT[int(window.short)])
    for one, other in ((mine, theirs), (theirs, mine)):
        there = sorted(other)
        for at in one & set(month.looked):
            near = there[max(0, bisect_right(there, at - tolerance - 1)) : bisect_right(there, at + tolerance)]
            assert near, f"{at}: one fires, and the other neither then nor {tolerance} s before or after"
