"""Objectives that are told of each call: streams, predicates, groups, freshness by calls."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError
from somaresil.events import DefectFound
from somaresil.priority import priority
from tests.unit.slo.kit import HOUR, bad, breaker, good, process

WEEK = timedelta(days=7)
STREAMS = (SLO("first", 90.0, WEEK, first_item=1.0), SLO("gaps", 90.0, WEEK, idle=2.0), SLO("whole", 90.0, WEEK, completion=True))


def seen(resilience) -> dict[str, tuple[int, int]]:
    """Give the totals of every objective."""
    return {name: resilience.slos.series(name).totals() for name in resilience.slos.names}


CASES = [
    # time before each item, how it ends, how many items are read: first, gaps, whole
    ([0.5, 2.0, 2.0], None, 9, (1, 0), (1, 0), (1, 0)),
    ([1.5, 0.5], None, 9, (0, 1), (1, 0), (1, 0)),
    ([1.0, 2.5, 0.1], None, 9, (1, 0), (0, 1), (1, 0)),
    ([0.1, 0.1], LookupError, 9, (1, 0), (1, 0), (0, 1)),
    ([], LookupError, 9, (0, 1), (0, 0), (0, 0)),
    ([], None, 9, (1, 0), (1, 0), (1, 0)),
    ([0.1, 0.1, 0.1], None, 2, (1, 0), (0, 0), (0, 0)),
    ([0.1, 9.0, 0.1], None, 2, (1, 0), (0, 1), (0, 0)),
]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(("waits", "end", "read", "first", "gaps", "whole"), CASES)
def test_the_pace_and_the_end_of_streams(  # noqa: C901 - two kinds of generator
    kind, waits, end, read, first, gaps, whole
):
    """Each objective looks at its part of a stream, and a reader who left is bad only for the gap that it waited for."""
    resilience, clock = process(*STREAMS)
    guard = resilience.guard("s", slo=["first", "gaps", "whole"])

    @guard
    def stream():
        for wait in waits:
            clock.advance(wait)
            yield wait
        if end is not None:
            raise end

    @guard
    async def astream():
        for wait in waits:
            clock.advance(wait)
            yield wait
        if end is not None:
            raise end

    async def aread():
        source, count = astream(), 0
        with suppress(LookupError):
            async for _ in source:
                count += 1
                clock.advance(60.0)  # what the reader does in between is his own affair
                if count == read:
                    break
        await source.aclose()

    if kind == "async":
        asyncio.run(aread())
    else:
        source = stream()
        with suppress(LookupError):
            for count, _ in enumerate(source, 1):
                clock.advance(60.0)
                if count == read:
                    break
        source.close()
    gc.collect()
    assert seen(resilience) == {"first": first, "gaps": gaps, "whole": whole}


def test_an_objective_about_streams_is_not_for_plain_functions():
    """It would never have an event."""
    resilience, _ = process(*STREAMS)
    guard = resilience.guard("s", slo="first")
    with pytest.raises(ConfigurationError, match="it would never have an event"):
        guard(lambda: None)
    with pytest.raises(ConfigurationError):
        guard.call(lambda: None)


def test_a_predicate_says_what_is_good():
    """By result, error and time; None is no event; a rejection is bad without asking."""

    def short(result, error, elapsed):
        if error is not None:
            return True
        return None if result == "skip" else elapsed < 1.0 and result != "wrong"

    resilience, clock = process(SLO("right", 90.0, WEEK, good_when=short))
    guard = resilience.guard("x", slo="right", breaker=breaker())
    assert [guard.call(lambda said=said: said) for said in ("fine", "skip", "wrong")] == ["fine", "skip", "wrong"]
    guard.call(lambda: clock.advance(2.0))
    assert seen(resilience) == {"right": (1, 2)}
    bad(guard, 2)
    assert seen(resilience) == {"right": (3, 2)}
    with pytest.raises(Exception, match="open"):
        guard.call(lambda: "fine")
    assert seen(resilience) == {"right": (3, 3)}


@pytest.mark.parametrize("broken", [lambda *_: 1 / 0, lambda *_: "yes", lambda: True])
def test_a_predicate_that_is_broken_is_reported_once(broken):
    """The caller gets the result, and the usual judgement counts."""
    resilience, _ = process(SLO("right", 90.0, WEEK, good_when=broken))
    found = []
    resilience.on(found.append, DefectFound)
    guard = resilience.guard("x", slo="right")
    good(guard, 3)
    bad(guard, 1)
    assert seen(resilience) == {"right": (3, 1)}
    assert len(found) == 1


def test_good_calls_refresh():
    """A guard may name a freshness objective; a call that fails refreshes nothing."""
    resilience, clock = process(SLO("index", 90.0, WEEK, freshness=60.0))
    guard = resilience.guard("sync", slo="index")
    good(guard)
    clock.advance(60)
    bad(guard)
    clock.advance(60)
    assert seen(resilience) == {"index": (6, 6)}


def test_each_tenant_has_a_budget():
    """Beside that of all; the argument, or whom the call is made for."""
    resilience, _ = process(SLO("up", 90.0, WEEK, group_by="tenant"))

    @resilience.guard("x", slo="up")
    def call(fine, tenant="nobody"):
        if not fine:
            raise LookupError

    @resilience.guard("y", slo="up")
    def other():
        pass

    call(True, "acme")
    with suppress(LookupError):
        call(False, tenant="acme")
    call(True)
    with priority(tenant="umbrella"):
        other()
    other()
    slos = resilience.slos
    assert seen(resilience) == {"up": (4, 1)}
    assert {name: slos.series("up", name).totals() for name in slos.groups("up")} == {
        "acme": (1, 1),
        "nobody": (1, 0),
        "umbrella": (1, 0),
        "_other": (1, 0),
    }
    assert slos.error_budget("up", group="acme").remaining_share == pytest.approx(-4)
    assert slos.error_budget("up", group="acme").group == "acme"
    assert slos.burn_rate("up", group="acme") == pytest.approx(5)
    assert slos.conditions("up", group="acme")[0].long_burn == pytest.approx(5)
    with pytest.raises(ConfigurationError, match="a group that was seen"):
        slos.error_budget("up", group="Acme")


def test_groups_are_bounded_and_none_that_burns_is_forgotten():
    """What is too much is counted as one; only what has been quiet for an hour makes room, and not while it has missed its objective."""
    resilience, clock = process(SLO("up", 90.0, WEEK, group_by=lambda tenant, fine=True: tenant, max_groups=3))

    @resilience.guard("x", slo="up")
    def call(tenant, fine=True):
        if not fine:
            raise LookupError

    with suppress(LookupError):
        call("burning", fine=False)
    for number in range(100):
        call(f"t{number}")
    assert resilience.slos.groups("up") == ("burning", "t0", "t1", "_other")
    assert resilience.slos.series("up", "_other").totals() == (98, 0)
    clock.advance(HOUR)
    call("t1")
    for number in range(200, 300):
        call(f"t{number}")
    assert resilience.slos.groups("up") == ("burning", "t1", "_other", "t200")
    assert resilience.slos.series("up").totals() == (201, 1)


def test_a_label_that_cannot_be_read_is_reported_once():
    """And the call is counted with the others."""
    resilience, _ = process(SLO("up", 90.0, WEEK, group_by=lambda: 1 / 0))
    found = []
    resilience.on(found.append, DefectFound)
    good(resilience.guard("x", slo="up"), 2)
    assert resilience.slos.series("up", "_other").totals() == (2, 0)
    assert len(found) == 1


def test_no_guard_is_slower_for_an_objective_that_its_cells_can_answer():
    """Only what must hear of each call takes the quiet path away."""
    resilience, _ = process(SLO("up", 90.0, WEEK), SLO("fast", 90.0, WEEK, latency=1.0), *STREAMS, SLO("fine", 90.0, WEEK, completion=True))
    assert resilience.guard("plain", slo=["up", "fast"]).switch.quiet
    assert resilience.guard("stream", slo=["first", "gaps", "whole"]).switch.quiet
