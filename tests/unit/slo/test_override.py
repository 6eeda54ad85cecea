"""Exceptions from the gate: near, reasoned, told when they made a difference; and stores that are asked instead of the process."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError, Decision
from somaresil.events import GateOverridden
from somaresil.slo.gate import Override
from somaresil.slo.store import Reading
from tests.unit.slo.kit import DAY, availability, bad, good, process

NOW = 1_790_000_000.0
WEEK = 7 * DAY


@pytest.mark.parametrize("until", [NOW + WEEK, NOW + 0.001, NOW, NOW - DAY])
def test_an_override_may_last_seven_days_and_not_longer(until):
    """One that is over is no mistake of whoever wrote it: it does not hold, and that is all."""
    granted = Override.granted("a reason", until, now=NOW, who="ann")
    assert (granted.reason, granted.until, granted.who) == ("a reason", until, "ann")
    assert granted.holds(NOW) is (until > NOW)


@pytest.mark.parametrize("until", [NOW + WEEK + 1.0, float("inf"), float("nan"), -float("inf")])
def test_an_override_that_lasts_too_long_is_refused(until):
    """An exception that does not end is a policy."""
    with pytest.raises(ConfigurationError) as caught:
        Override.granted("a reason", until, now=NOW)
    (problem,) = caught.value.problems
    assert (problem.path, problem.allowed) == ("Override.until", "a time at most 7 days from now")


@pytest.mark.parametrize("reason", ["x", "x" * 500, "  padded\nand broken  "])
def test_a_reason_is_one_line_of_text(reason):
    """Of up to 500 characters, without what would break a log."""
    assert Override.granted(reason, NOW, now=NOW).reason == reason.replace("\n", " ").strip()


@pytest.mark.parametrize("reason", ["", "   ", "\n\t", "x" * 501, None, 3])
def test_an_override_without_a_reason_is_refused(reason):
    """Who reads it later wants to know why; both problems at once."""
    with pytest.raises(ConfigurationError) as caught:
        Override.granted(reason, NOW + 2 * WEEK, now=NOW)
    assert [problem.path for problem in caught.value.problems] == ["Override.reason", "Override.until"]
    assert caught.value.problems[0].value == reason


@pytest.mark.parametrize(
    ("failures", "left", "emitted", "passes"),
    [
        (50, DAY, True, True),
        (0, DAY, False, True),
        (50, 0.0, False, False),
        (50, -1.0, False, False),
    ],
)
def test_an_override_is_told_when_it_made_a_difference(failures, left, emitted, passes):
    """It ends at its moment and not later; the decision stays what it is."""
    resilience, clock = process(availability())
    told = []
    resilience.on(told.append, GateOverridden)
    guard = resilience.guard("x", slo="up")
    good(guard, 100 - failures)
    bad(guard, failures)
    override = Override("the fix", clock.time() + left, "ann")
    verdict = resilience.slos.verdict(override=override)
    assert verdict.decision is (Decision.BLOCK if failures else Decision.ALLOW)
    assert bool(verdict) is not passes
    assert verdict.override == (override if left > 0.0 else None)
    assert told == ([GateOverridden(clock.time(), "ann", "the fix", override.until, "block")] if emitted else [])


def test_an_override_of_what_is_unknown_is_told_too():
    """It lets a release go on in the dark; with ``on_unknown="allow"`` it would have gone on anyway."""
    resilience, clock = process(availability())
    told = []
    resilience.on(told.append, GateOverridden)
    override = Override("no traffic yet", clock.time() + DAY)
    assert not asyncio.run(resilience.slos.should_block_deployment(override=override))
    assert [event.decision for event in told] == ["unknown"]


# -- a store that is asked instead --------------------------------------------------------------------------------------------------------


class Told:
    """A store that says what it was told, and remembers who asked."""

    name = "told"

    def __init__(self, *counts):
        self.counts = counts
        self.threads = set()
        self.asked = []

    def read(self, slo, window):
        self.threads.add(threading.current_thread())
        self.asked.append((slo.name, window))
        return Reading(*self.counts, 0.9, "told", 3.0)


def test_a_store_speaks_in_place_of_the_process():
    """Budget, conditions and verdict are all of what it knows, and say so."""
    resilience, _ = process(availability())
    bad(resilience.guard("x", slo="up"), 50)
    store = Told(1_000, 0)
    budget = resilience.slos.error_budget("up", store=store)
    assert (budget.good, budget.bad, budget.source, budget.age, budget.coverage) == (1_000, 0, "told", 3.0, 0.9)
    assert [condition.firing for condition in resilience.slos.conditions("up", store=store)] == [False, False]
    assert {condition.source for condition in resilience.slos.conditions("up", store=store)} == {"told"}
    assert resilience.slos.verdict(store=store).decision is Decision.ALLOW
    assert resilience.slos.verdict().decision is Decision.BLOCK


def test_a_coroutine_does_not_wait_for_a_store():
    """It is asked in a thread: it may be a server that is slow."""
    resilience, _ = process(availability())
    store = Told(900, 100)

    async def ask():
        verdict = await resilience.slos.should_block_deployment(store=store)
        budget = await resilience.slos.calculate_error_budget("up", store=store)
        return verdict, budget

    verdict, budget = asyncio.run(ask())
    assert (verdict.decision, budget.bad) == (Decision.BLOCK, 100)
    assert threading.current_thread() not in store.threads
    assert store.asked


def test_each_window_of_a_policy_is_asked_for_once():
    """A question to a server is dear."""
    resilience, _ = process(availability())
    store = Told(1_000, 0)
    resilience.slos.conditions("up", store=store)
    windows = [window for _, window in store.asked]
    assert sorted(windows) == [300.0, 1_800.0, 3_600.0, 21_600.0]


@pytest.mark.parametrize("name", ["sliced", "composite"])
def test_what_a_store_cannot_know_is_unknown(name):
    """It has events and no slices of time, and is not even asked about them; what has such a part is not known either."""
    day = timedelta(days=1)
    sliced = SLO("sliced", 99.0, day, budgeting="ratio_timeslices", time_slice_window=60.0)
    resilience, _ = process(sliced, SLO("composite", 99.0, day, parts={"sliced": 1.0}))
    what = "slices of time"
    store = Told(1_000, 0)
    verdict = resilience.slos.verdict(name, store=store)
    assert verdict.decision is Decision.UNKNOWN
    assert f"it is about {what}" in verdict.reasons[0]
    assert store.asked == []


def test_a_name_that_is_unknown_is_an_error_with_a_store_too():
    """Before anybody is asked."""
    resilience, _ = process(availability())
    store = Told(1_000, 0)
    with pytest.raises(ConfigurationError, match="an objective that was added"):
        resilience.slos.verdict("upp", store=store)
    assert store.asked == []
