"""Tracking: who explores sees every call, and takes nothing from experiments."""

from __future__ import annotations

import pytest

from somaresil import ChaosCeilings, ChaosPlan, ConfigurationError
from tests.unit.chaos.kit import Stand


def test_a_tracker_takes_no_place_of_an_experiment():
    """It strikes nothing, so it counts for nothing."""
    stand = Stand(ceilings=ChaosCeilings(experiments=1))
    stand.chaos.track(lambda path: None)
    assert stand.arm().live


def test_a_tracker_keeps_to_the_ceiling_of_durations():
    """It takes the quiet path away, and not for longer than any experiment may."""
    stand = Stand(ceilings=ChaosCeilings(duration=60))
    with pytest.raises(ConfigurationError, match="at most 60, the ceiling"):
        stand.chaos.track(lambda path: None, 61.0)
    assert stand.guard.switch.quiet


def test_old_trackers_are_forgotten():
    """As old experiments are."""
    stand = Stand()
    for _ in range(200):
        stand.chaos.track(lambda path: None).end()
    assert len(stand.chaos.history) <= 65


@pytest.mark.parametrize("text", [5, None, [], {}])
def test_a_plan_is_read_from_text_alone(text):
    """Anything else is a problem, not a TypeError."""
    with pytest.raises(ConfigurationError, match="JSON"):
        ChaosPlan.from_json(text)


@pytest.mark.parametrize("errors", [5, ["OSError"], "OSError"])
def test_errors_are_a_mapping(stand, errors):
    """From names to types or functions."""
    with pytest.raises(ConfigurationError, match="errors"):
        stand.chaos.arm_plan(ChaosPlan(), errors=errors)
