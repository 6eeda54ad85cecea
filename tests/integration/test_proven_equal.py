"""What the process says of its objectives and what servers and a plain list say of the same events is the same, over a month."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.parse
import urllib.request
from bisect import bisect_left, bisect_right
from datetime import datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
import yaml

from somaresil.integrations.prometheus_store import PrometheusStore
from somaresil.model import slo as model
from somaresil.model.timeslice import PARTS
from somaresil.slo.judge import conditions_of
from somaresil.slo.rules import RuleOptions, compile_rules
from tests.integration.history import (
    BEGIN,
    DAY,
    DAYS,
    EVENTS,
    FRESH,
    INSIDE,
    OBJECTIVES,
    OUTAGES,
    SCRAPE,
    TENANTS,
    TROUBLES,
    Lived,
    Process,
    answered,
    openmetrics,
    plain_text,
    remembering,
    replay,
)
from tests.integration.servers import VictoriaMetrics, find_prometheus, find_victoria_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil import SLO
    from tests.integration.history import Call
    from tests.integration.servers import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

WINDOWS = {"5m": 300, "30m": 1_800, "1h": 3_600, "2h": 7_200, "6h": 21_600, "1d": DAY, "3d": 3 * DAY, "7d": 7 * DAY, "30d": 30 * DAY}
SLOT = {seconds: 10 if seconds <= 7_200 else 300 if seconds <= 3 * DAY else 3_600 for seconds in WINDOWS.values()}
END = DAYS * DAY
HOURS = [trouble.begin // 3_600 * 3_600 + 3_600 for trouble in TROUBLES] + [END, 8 * DAY, 17 * DAY + 16 * 3_600]
"""Instants at which every slot begins."""
OFFSETS = (60, 420, 1_140, 1_980, 2_820, 3_480, 180, 2_460, 780)
BETWEEN = [hour - 3_600 + offset for hour, offset in zip(HOURS, OFFSETS, strict=True)]
AFTERWARDS = 7 * 3_600
"""How long after a trouble alerts are looked at: an hour more than their longest short window."""
SLOS = [slo.name for slo in OBJECTIVES]
ALERTING = [slo for slo in OBJECTIVES if slo.recovery is None]
BUDGETS = ("up", "real", "apart", "week", "month")
TOLD = ("up", "fast", "complete", "judged", "real")
"""Objectives whose month VictoriaMetrics is told of."""


class Month(NamedTuple):
    """A month as the process saw it."""

    lived: Lived
    counts: dict[tuple[int, str, int], tuple[int, int]]
    """Good and bad events by instant, objective and window; of a group under ``objective/group``."""
    budgets: dict[tuple[int, str], Any]
    firing: dict[tuple[str, int], list[int]]
    """At which instants the condition of an objective fired, by its place in the policy."""
    looked: list[int]
    """At which instants conditions were looked at."""

    def within(self, slo: str, begin: int, end: int) -> tuple[int, int]:
        """What was exported between two instants."""
        (good_before, bad_before), (good, bad) = (self.lived.totals[slo][max(0, at) // SCRAPE] for at in (begin, end))
        return good - good_before, bad - bad_before


@pytest.fixture(scope="module")
def month() -> Month:
    """Lived once for all tests here."""
    instants = {*HOURS, *BETWEEN}
    counts: dict[tuple[int, str, int], tuple[int, int]] = {}
    budgets: dict[tuple[int, str], Any] = {}
    firing: dict[tuple[str, int], list[int]] = {(slo.name, place): [] for slo in ALERTING for place in (0, 1)}
    looked: list[int] = []

    def look(at: int, process: Process) -> None:
        slos = process.resilience.slos
        if at in instants:
            for window in WINDOWS.values():
                counts.update({(at, slo, window): process.counts(slo, window) for slo in slos.names})
                counts.update({(at, f"tenants/{group}", window): process.counts("tenants", window, group) for group in TENANTS})
            budgets.update({(at, slo): slos.error_budget(slo) for slo in BUDGETS})
        if any(trouble.begin - 600 <= at <= trouble.begin + trouble.seconds + AFTERWARDS for trouble in TROUBLES):
            looked.append(at)
            for slo in ALERTING:
                for place, condition in enumerate(slos.conditions(slo.name)):
                    if condition.firing:
                        firing[slo.name, place].append(at)

    return Month(replay(7, look), counts, budgets, firing, looked)


# -- a plain list of what happened ----------------------------------------------------------------------------------------------------


def in_time(call: Call) -> bool:
    return call.good and call.seconds <= 2.0


def began(call: Call) -> bool | None:
    return call.first <= 1.0 if call.first is not None else call.good


ORACLES = {
    "up": lambda call: call.good,
    "fast": in_time,
    "first": began,
    "gap": lambda call: None if call.first is None else call.gap <= 2.0,
    "complete": lambda call: None if call.first is None else call.good,
    "judged": lambda call: answered(call.result, None if call.good else LookupError(), call.seconds),
    "real": lambda call: None if call.injected else call.good,
    "apart": lambda call: None if call.injected else call.good,
    "tenants": lambda call: call.good,
    **{f"tenants/{tenant}": lambda call, tenant=tenant: call.good if call.tenant == tenant else None for tenant in TENANTS},
    "struck": lambda call: call.good if call.injected else None,
}
"""What each kind of objective makes of a call, said once more in the plainest words; None: it is no event."""


@pytest.fixture(scope="module")
def truth(month: Month) -> dict[str, list[tuple[int, int]]]:
    """Good and bad events of every interval."""
    found = {}
    for name, judge in ORACLES.items():
        said = [[judge(call) for call in calls] for calls in month.lived.calls]
        found[name] = [(sum(each is True for each in one), sum(each is False for each in one)) for one in said]
    return found


def summed(intervals: list[tuple[int, int]], begin: float, end: float) -> tuple[int, int]:
    """Added up between two instants."""
    some = intervals[max(0, round(begin)) // SCRAPE : round(end) // SCRAPE]
    return sum(good for good, _ in some), sum(bad for _, bad in some)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("slo", [name for name in ORACLES if name != "struck"])
def test_where_slots_begin_counts_are_those_of_a_list(month, truth, slo, window):
    """To the event, for everything that is about calls, and for each group."""
    seconds = WINDOWS[window]
    for at in HOURS:
        assert month.counts[at, slo, seconds] == summed(truth[slo], at - seconds, at), at


@pytest.mark.parametrize("window", WINDOWS)
def test_checks_of_freshness_are_those_of_a_list(month, window):
    """One each ten seconds: good when the last good call before it was no more than the limit ago."""
    calls = [SCRAPE * place + SCRAPE // 2 for place, some in enumerate(month.lived.calls) if any(call.good for call in some)]
    seconds = WINDOWS[window]
    for at in HOURS:
        good = bad = 0
        for check in range(max(at - seconds, calls[0]) // 10 * 10 + 10, at + 1, 10):
            last = calls[bisect_left(calls, check) - 1]
            good, bad = good + (check - last <= FRESH), bad + (check - last > FRESH)
        assert month.counts[at, "fresh", seconds] == (good, bad), at


@pytest.mark.parametrize("window", WINDOWS)
def test_slices_are_those_of_a_list(month, truth, window):
    """Good minutes are counted, and ratios of five minutes are averaged; a slice without calls is none."""
    seconds = WINDOWS[window]
    for at in HOURS:
        minutes = [pair for pair in truth["up"][max(0, at - seconds) // 60 : at // 60] if sum(pair)]
        fine = sum(Fraction(good, good + bad) >= Fraction("0.9") for good, bad in minutes)
        assert month.counts[at, "minutes", seconds] == (fine, len(minutes) - fine), at
        slices = [summed(truth["up"], begin, begin + 300) for begin in range(max(0, at - seconds), at, 300)]
        ratios = [Fraction(good, good + bad) for good, bad in slices if good + bad]
        good, bad = month.counts[at, "mean", seconds]
        assert good + bad == PARTS * len(ratios), at
        assert good == pytest.approx(float(sum(ratios) * PARTS), abs=len(ratios)), at


@pytest.mark.parametrize("window", WINDOWS)
def test_a_composite_is_the_mean_of_a_list(month, truth, window):
    """Of its parts' ratios, by weight; a part without calls has none."""
    seconds = WINDOWS[window]
    for at in HOURS:
        parts = [(weight, *summed(truth[name], at - seconds, at)) for name, weight in (("up", 2), ("fast", 1))]
        known = [(weight, Fraction(bad, good + bad)) for weight, good, bad in parts if good + bad]
        good, bad = month.counts[at, "mix", seconds]
        if not known:
            assert (good, bad) == (0, 0)
            continue
        mean = sum(weight * ratio for weight, ratio in known) / sum(weight for weight, _ in known)
        assert bad / (good + bad) == pytest.approx(float(mean), abs=1e-8), at


def began_at(unit: str, zone: str, now: int) -> int:
    """When the period began, by a calendar on the wall."""
    here = datetime.fromtimestamp(BEGIN + now, ZoneInfo(zone))
    day = here.date() - timedelta(days=here.weekday() if unit == "week" else here.day - 1)
    return round(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).timestamp()) - BEGIN


@pytest.mark.parametrize(("slo", "oracle", "zone"), [("week", "up", "Europe/Berlin"), ("month", "fast", "America/New_York")])
def test_calendar_periods_are_those_of_a_list(month, truth, slo, oracle, zone):
    """From midnight over there, on the day on which clocks were put back too."""
    for at in HOURS:
        budget = month.budgets[at, slo]
        begin = began_at(slo, zone, at)
        assert budget.begins_at == BEGIN + begin
        assert (budget.good, budget.bad) == summed(truth[oracle], begin, at), at


def test_injected_calls_are_those_of_a_list(month, truth):
    """They are told apart whether they count or not, and there were some."""
    for at in HOURS:
        struck = summed(truth["struck"], at - 30 * DAY, at)
        for name in ("up", "real", "apart"):
            budget = month.budgets[at, name]
            assert (budget.injected_good, budget.injected_bad) == struck, (at, name)
    assert struck[1] > 20
    assert [month.counts[END, name, 30 * DAY][1] + extra for name, extra in (("real", struck[1]), ("apart", struck[1]))] == [
        month.counts[END, "up", 30 * DAY][1]
    ] * 2


def test_incidents_are_those_of_the_month(month):
    """Every other one took too long."""
    slow = sum(seconds > 300 for _, seconds in OUTAGES)
    assert month.counts[END, "recovers", 30 * DAY] == (len(OUTAGES) - slow, slow)


# -- Prometheus -----------------------------------------------------------------------------------------------------------------------


class Remembered:
    """A Prometheus that has the samples of a month."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._known: dict[tuple[str, int], dict[tuple[str, str], float]] = {}

    def ask(self, endpoint: str, **parameters: str) -> list[Any]:
        """The result of a query."""
        url = f"{self._server.url}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30.0) as response:
            return list(json.load(response)["data"]["result"])

    def increase(self, window: str, at: int) -> dict[tuple[str, str], float]:
        """What it says, by objective and outcome."""
        if (window, at) not in self._known:
            query = f"sum by (slo, outcome) (increase({EVENTS}[{window}]))"
            self._known[window, at] = {
                (series["metric"]["slo"], series["metric"]["outcome"]): float(series["value"][1])
                for series in self.ask("query", query=query, time=str(BEGIN + at))
            }
        return self._known[window, at]

    def when(self, expression: str) -> set[int]:
        """At which of the scrapes of the month an expression has an answer."""
        found: set[int] = set()
        for begin in range(0, END, 7 * DAY):
            end = min(begin + 7 * DAY - SCRAPE, END)
            query = {"query": expression, "start": str(BEGIN + begin), "end": str(BEGIN + end), "step": str(SCRAPE)}
            for series in self.ask("query_range", **query):
                found.update(int(at) - BEGIN for at, _ in series["values"])
        return found


@pytest.fixture(scope="module")
def remembered(month: Month, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remembered]:
    """Told once for all tests here."""
    programs = find_prometheus(), shutil.which("promtool")
    if programs[0] is None or programs[1] is None:
        pytest.skip("prometheus and promtool are not installed: `apt-get install prometheus`, or run `nox -s tests` as root")
    folder = tmp_path_factory.mktemp("month")
    file = folder / "month.txt"
    openmetrics(month.lived, file)
    with remembering(file, folder, (programs[0], programs[1])) as server:
        yield Remembered(server)


@pytest.mark.parametrize("slo", SLOS)
@pytest.mark.parametrize("window", WINDOWS)
def test_where_slots_begin_counts_are_the_same(month, remembered, slo, window):
    """Within a hundredth, as the samples allow; mostly to the event. A month has events of every kind."""
    seen = 0
    for at in HOURS:
        mine = month.counts[at, slo, WINDOWS[window]]
        theirs = remembered.increase(window, at)
        for outcome, number in zip(("good", "bad"), mine, strict=True):
            assert number == pytest.approx(theirs.get((slo, outcome), 0.0), rel=0.01, abs=0.5), (at, outcome)
            seen += number
    assert seen or (slo == "recovers" and WINDOWS[window] < DAY)


@pytest.mark.parametrize("slo", SLOS)
@pytest.mark.parametrize("window", WINDOWS)
def test_between_slots_they_differ_by_the_events_of_one_slot_at_most(month, remembered, slo, window):
    """The process looks at a window that begins where a slot does; Prometheus extrapolates to the edges of its own."""
    seconds = WINDOWS[window]
    for at in BETWEEN:
        theirs = remembered.increase(window, at)
        begin = at - seconds
        slot = -(-SLOT[seconds] // SCRAPE) * SCRAPE
        edge = month.within(slo, begin, begin + slot)
        for outcome, number, most in zip(("good", "bad"), month.counts[at, slo, seconds], edge, strict=True):
            truth = theirs.get((slo, outcome), 0.0)
            assert truth * 0.99 - most - 0.5 <= number <= truth * 1.01 + 0.5, (at, outcome)


def burning(slo: SLO, place: int) -> str:
    """One condition of an objective, in PromQL."""
    window = slo.burn_policy.windows[place]
    factor = model.burn_threshold(window.budget_share, slo.period, window.long)
    limit = factor * model.budget_ratio(slo.target_percentage)

    def ratio(seconds: float) -> str:
        events = f'{EVENTS}{{slo="{slo.name}"'
        return f'sum(increase({events},outcome="bad"}}[{int(seconds)}s])) / sum(increase({events}}}[{int(seconds)}s]))'

    return f"({ratio(window.long)} > {limit}) and ({ratio(window.short)} > {limit})"


def compiled(slo: SLO) -> str:
    """The alert of its rules, with what they record in place of the names under which they do."""
    options = RuleOptions(scrape_interval=float(SCRAPE), retention=timedelta(days=40))
    file = compile_rules([slo], options).files[f"{slo.name}.rules.yaml"]
    rules = [rule for group in yaml.safe_load(file)["groups"] for rule in group["rules"]]
    recorded = {rule["record"]: rule["expr"] for rule in rules if "record" in rule}
    (alert,) = [rule["expr"] for rule in rules if rule.get("alert", "").startswith("ErrorBudgetBurn")]

    def written_out(expression: str) -> str:
        return re.sub(r"(slo:[a-z_:]+[0-9a-z]*)\{[^}]*\}", lambda found: f"({written_out(recorded[found[1]])})", expression)

    return written_out(alert)


def agree(mine: set[int], theirs: set[int], looked: list[int], tolerance: int) -> None:
    """Every time that either of them begins or ends to fire, the other does so within one slot, or between the same two looks."""
    assert mine, "nothing has fired"
    for one, other in ((mine, theirs), (theirs, mine)):
        there = sorted(other)
        for at in one & set(looked):
            near = there[max(0, bisect_right(there, at - tolerance - 1)) : bisect_right(there, at + tolerance)]
            assert near, f"{at}: one fires, and the other neither then nor {tolerance} s before or after"


def slot_of(slo: SLO, *places: int) -> int:
    """The widest slot of the windows of some conditions, and no less than the time between two looks."""
    windows = [slo.burn_policy.windows[place] for place in places]
    return max(SCRAPE, *(SLOT[int(seconds)] for window in windows for seconds in (window.long, window.short)))


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("slo", OBJECTIVES[:2], ids=lambda slo: slo.name)
def test_conditions_begin_and_end_in_the_same_slot(month, remembered, slo, place):
    """Each of the two, as the workbook writes them."""
    agree(set(month.firing[slo.name, place]), remembered.when(burning(slo, place)), month.looked, slot_of(slo, place))


@pytest.mark.parametrize("slo", ALERTING, ids=lambda slo: slo.name)
def test_alerts_of_the_rules_begin_and_end_in_the_same_slot(month, remembered, slo):
    """The rules that are written for Prometheus say what the process says, for every kind of objective."""
    mine = {at for place in (0, 1) for at in month.firing[slo.name, place]}
    agree(mine, remembered.when(compiled(slo)), month.looked, slot_of(slo, 0, 1))


def test_an_experiment_wakes_nobody_who_has_left_it_out(month):
    """It fires where its calls count, and there alone."""
    trouble = TROUBLES[-1]
    during = range(trouble.begin, trouble.begin + trouble.seconds)
    firing = {name: [at for at in month.firing[name, 0] if at in during] for name in ("up", "real", "apart")}
    assert [bool(firing[name]) for name in ("up", "real", "apart")] == [True, False, False]


# -- VictoriaMetrics ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def victoria(month: Month, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusStore]:
    """A store that asks it, told of a month that has ended just now: later than the half minute that it looks back by itself."""
    binary = find_victoria_metrics()
    if binary is None:
        pytest.skip("victoria-metrics is not installed: `apt-get install victoria-metrics`, or run `nox -s tests` as root")
    with VictoriaMetrics(folder=tmp_path_factory.mktemp("victoria"), binary=binary) as server:
        last = time.time() - 31.0
        for name in TOLD:
            server.tell(plain_text(month.lived, name, last))
        yield PrometheusStore(server.url)


def test_victoria_metrics_counts_the_same(month, victoria):
    """Every window of every ratio, through the store that asks Prometheus; it knows how much of it was seen, and how old it is."""
    for name in TOLD:
        slo = next(slo for slo in OBJECTIVES if slo.name == name)
        for window in WINDOWS.values():
            reading = victoria.read(slo, float(window))
            assert reading.problem is None, (name, window)
            for mine, theirs in zip(month.counts[END, name, window], (reading.good, reading.bad), strict=True):
                assert mine == pytest.approx(theirs, rel=0.01, abs=0.5), (name, window)
            assert reading.coverage > 0.98, (name, window)
            assert reading.age is not None
            assert reading.age < 120.0


def test_victoria_metrics_fires_the_same(month, victoria):
    """The conditions of a policy stand as they stood in the process, half a day after the last trouble."""
    for name in TOLD:
        slo = next(slo for slo in OBJECTIVES if slo.name == name)
        process = [END in month.firing[name, place] for place in (0, 1)]
        assert [bool(condition.firing) for condition in conditions_of(slo, victoria)] == process


def test_every_kind_of_objective_is_here():
    """One that is added to the product is missed here."""
    kinds = {slo.indicator for slo in (*OBJECTIVES, *INSIDE)}
    assert kinds >= {"availability", "latency", "recovery", "first_item", "idle", "completion", "freshness", "good_when", "composite"}
    assert {slo.budgeting for slo in INSIDE} == {"occurrences", "timeslices", "ratio_timeslices"}
    assert {slo.injected for slo in OBJECTIVES} == {"count", "exclude", "separate"}
