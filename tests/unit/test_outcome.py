"""How an end is judged when nobody says otherwise."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from somaresil import BulkheadFull, CallTimedOut, CircuitOpen, InjectedFault, Outcome
from somaresil.outcome import outcome_of


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, Outcome.GOOD),
        (ValueError(), Outcome.BAD),
        (TimeoutError(), Outcome.BAD),
        (CallTimedOut("mine", 1.0), Outcome.BAD),
        (InjectedFault("mine", "latency-1"), Outcome.BAD),
        (StopIteration(), Outcome.BAD),
        (ExceptionGroup("several", [ValueError()]), Outcome.BAD),
        (CircuitOpen("mine"), Outcome.REJECTED),
        (BulkheadFull("mine"), Outcome.REJECTED),
        (CircuitOpen("another"), Outcome.BAD),
        (asyncio.CancelledError(), Outcome.ABANDONED),
        (GeneratorExit(), Outcome.ABANDONED),
        (KeyboardInterrupt(), Outcome.ABANDONED),
        (SystemExit(), Outcome.ABANDONED),
        (BaseExceptionGroup("several", [KeyboardInterrupt()]), Outcome.ABANDONED),
    ],
)
def test_the_usual_judgement(error, outcome):
    """No error is good, an exception bad, a rejection by this guard rejected, anything else abandoned."""
    assert outcome_of("mine", error) is outcome


def test_outcomes_are_five_words():
    """The same in records, events, metrics and budgets; each is its word, also as a key."""
    assert [outcome.value for outcome in Outcome] == ["good", "bad", "rejected", "abandoned", "ignored"]
    assert {"good": 1}[Outcome.GOOD] == {Outcome.GOOD: 1}["good"] == 1
    assert pickle.loads(pickle.dumps(Outcome.BAD)) is Outcome.BAD
