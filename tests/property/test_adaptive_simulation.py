"""A small form of benchmarks/adaptive.py: a server that loses half of its capacity and gets it back, in virtual time."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from somaresil import AdaptiveLimit, Bulkhead

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def adaptive():
    """The script, as a module."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("adaptive")
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("adaptive", None)
        sys.modules.pop("_measure", None)


def lived_through(adaptive, options):
    """Thirty slots, then fifteen, then thirty again; goodput and p99 of the second and third part, when it has settled."""
    answers = adaptive.simulate(options, lambda now: 15.0 if 50.0 <= now < 110.0 else 30.0, 160.0, 1.5 * 30.0 / adaptive.BASE, seed=2)
    return [
        (answers.goodput(begin, end, slots), answers.p99(begin, end)) for begin, end, slots in ((80.0, 110.0, 15.0), (135.0, 160.0, 30.0))
    ]


@pytest.mark.parametrize("options", [AdaptiveLimit(algorithm="vegas"), AdaptiveLimit(queue=2)], ids=["vegas", "gradient"])
def test_the_server_does_what_it_can_and_answers_in_time(adaptive, options):
    """At least 95 % of the optimum within twice the time of an answer, with half of its capacity and with all of it again."""
    for goodput, p99 in lived_through(adaptive, options):
        assert goodput >= 0.95
        assert p99 <= 2.0


def test_a_limit_that_was_right_before_is_wrong_now(adaptive):
    """A bulkhead for the whole capacity lets in twice too much: nearly everything comes too late. So the comparison compares."""
    (half, _), (whole, _) = lived_through(adaptive, Bulkhead(34))
    assert half < 0.3
    assert whole > 0.95
