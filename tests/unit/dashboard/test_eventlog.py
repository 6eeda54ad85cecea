"""The last events: numbered, bounded, and what happens to single calls never pushes out the rest."""

from __future__ import annotations

import json

import pytest

from somaresil import events
from somaresil.clock import ManualClock
from somaresil.dashboard.eventlog import KINDS, MOST_EVENTS, OF_CALLS, EventLog
from somaresil.listeners import Listeners


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def listeners():
    return Listeners()


@pytest.fixture
def log(clock, listeners):
    made = EventLog("one-1", clock, listeners)
    made.start()
    return made


def opened(guard="llm", **changes):
    facts = {
        "guard": guard,
        "at": 1.0,
        "before": "closed",
        "after": "open",
        "cause": "failure_rate",
        "calls": 20,
        "failures": 15,
        "slow": 0,
        "first_failure_at": 0.0,
        "open_duration": 30.0,
        "last_error": "ValueError: secret",
        "injected": False,
    }
    return events.BreakerChanged(**{**facts, **changes})


def refused(guard="llm", error="CircuitOpen"):
    return events.CallEnded(guard, 1.0, "rejected", error, 0.0, injected=False)


def test_an_event_is_told_in_words_and_as_facts(log, listeners):
    """With level, subject and source; never with what an exception said."""
    listeners.emit(opened())
    (event,) = log.read()["events"]
    assert (event["kind"], event["level"], event["about"], event["source"]) == ("BreakerChanged", "warning", "llm", "one-1")
    assert event["text"].startswith("breaker of llm went from closed to open")
    assert event["facts"]["last_error"] == "ValueError"
    assert log.version == 1


def test_numbers_grow_also_within_one_moment_and_when_the_clock_is_set_back(log, listeners, clock):
    """So that everything after one of them is what came later."""
    listeners.emit(opened("a"))
    listeners.emit(opened("b"))
    clock.step_wall(-1_000.0)
    listeners.emit(opened("c"))
    ids = [event["id"] for event in log.read()["events"]]
    assert ids == sorted({*ids})
    assert [event["about"] for event in log.read(ids[0])["events"]] == ["b", "c"]
    assert log.read(ids[-1])["events"] == []
    assert max(ids) < 2**53


def test_what_was_told_up_to_is_never_told_again(log, listeners):
    """The number to go on from lies behind all that was told, and before all that comes."""
    listeners.emit(opened("a"))
    upto = log.read()["upto"]
    assert log.read(upto)["events"] == []
    listeners.emit(opened("b"))
    assert [event["about"] for event in log.read(upto)["events"]] == ["b"]


def test_the_ring_is_bounded_and_says_what_is_lost(log, listeners):
    """Who asks for what is not here any more hears how many those were; who asks for the first time has lost nothing."""
    listeners.emit(opened("first"))
    first = log.read()["events"][0]["id"]
    for number in range(MOST_EVENTS + 10):
        listeners.emit(opened(f"g{number}"))
    assert log.read(first, most=5_000)["lost"] == 10
    assert len(log.read(first, most=5_000)["events"]) == MOST_EVENTS
    assert log.read()["lost"] == 0
    assert [event["about"] for event in log.read(most=2)["events"]] == [f"g{MOST_EVENTS + 8}", f"g{MOST_EVENTS + 9}"]


def test_filters(log, listeners):
    """By kind, and by what it is about."""
    listeners.emit(opened("a"))
    listeners.emit(opened("b"))
    listeners.emit(events.Reconfigured(1.0, ("a",), ("a: timeout 1 -> 2",), "alice"))
    assert [event["kind"] for event in log.read(about="a")["events"]] == ["BreakerChanged", "Reconfigured"]
    assert [event["about"] for event in log.read(kind="BreakerChanged", about="b")["events"]] == ["b"]
    assert log.read(kind="Nothing")["events"] == []


def test_single_calls_are_heard_of_only_while_somebody_looks(log, listeners):
    """A circuit that refuses calls does so faster when nobody wants to hear of each."""
    assert not any(listeners.wants(kind) for kind in OF_CALLS)
    log.attend(looked_at=True)
    assert all(listeners.wants(kind) for kind in KINDS)
    log.attend(looked_at=False)
    assert not any(listeners.wants(kind) for kind in OF_CALLS)
    log.stop()
    assert not any(listeners.wants(kind) for kind in KINDS)


def test_a_flood_of_calls_pushes_out_nothing(log, listeners, clock):
    """Twenty a second are kept, the others are counted, and reasons of rejections are counted of all."""
    listeners.emit(opened())
    log.attend(looked_at=True)
    for _ in range(100):
        for _ in range(50):
            listeners.emit(refused())
        clock.advance(1.0)
    listeners.emit(refused(error="BulkheadFull"))
    told = log.read(most=5_000)
    assert told["events"][0]["kind"] == "BreakerChanged"
    assert len(told["events"]) == 501
    assert told["thinned"] == 100 * 30
    assert log.rejections("llm") == {"circuit_open": 5_000, "bulkhead_full": 1}
    assert log.version == 1


def test_a_timeline_is_that_of_one_guard(log, listeners):
    """Bounded for each, and for all: the guard that has been quiet for longest is forgotten first."""
    for number in range(600):
        listeners.emit(opened(f"g{number}"))
    for _ in range(150):
        listeners.emit(opened("busy", key="tenant\n1"))
    assert log.timeline("g0") == []
    assert len(log.timeline("g599")) == 1
    assert len(log.timeline("busy")) == 100
    assert log.timeline("busy")[0]["key"] == "tenant\\n1"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_json(kind, log):
    """Also with None in every field that may have it, and with names that nobody would give."""
    values = {
        "str": "<b>\u202e\n",
        "float": float("inf"),
        "int": 3,
        "bool": True,
    }
    filled = {}
    for name, annotation in kind.__annotations__.items():
        choices = [part.strip() for part in annotation.split("|")]
        filled[name] = None if "None" in choices else ("a",) if choices[0].startswith("tuple") else values[choices[0]]
    log._hear(kind(**{**filled, "at": 1.0}))
    (event,) = json.loads(json.dumps(log.read()["events"], allow_nan=False))
    assert event["kind"] == kind.__name__
    assert "\n" not in event["text"]
    assert event["text"]
