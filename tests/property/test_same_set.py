"""The same seed, the same set of struck calls, however the calls are made. `benchmarks/decisions.py` makes a million."""

from __future__ import annotations

import pytest

from tests.property import decisions

PLACES = decisions.scopes(20_000)


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Allow chaos, and let no setting of this machine have a say."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", "off")
    monkeypatch.delenv("SOMARESIL_SEED", raising=False)


def test_the_set_is_of_the_size_that_the_rate_says():
    """Or equal sets would prove nothing."""
    struck = decisions.in_turn(PLACES)
    assert len(struck) / 20_000 == pytest.approx(decisions.RATE, abs=0.02)
    assert len({number for _, _, number in struck}) == decisions.CALLS


@pytest.mark.parametrize("way", list(decisions.WAYS.values())[1:], ids=lambda way: way.__name__)
def test_every_way_to_make_the_calls_strikes_the_same(way):
    assert way(PLACES) == decisions.in_turn(PLACES)


def test_another_seed_strikes_others(monkeypatch):
    before = decisions.in_turn(PLACES)
    monkeypatch.setattr(decisions, "SEED", 8)
    assert decisions.in_turn(PLACES) != before
