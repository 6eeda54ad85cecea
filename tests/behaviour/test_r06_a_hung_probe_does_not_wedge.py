"""R6: a probe that hangs is replaced after ``probe_timeout``; nothing that it says later counts. The peers wait for it for ever."""

from __future__ import annotations

import pytest

from somaresil import CircuitOpen
from tests.behaviour.kit import Boom, Stand, one_strike
from tests.behaviour.test_r05_stale_results_change_nothing import Late


@pytest.mark.parametrize("error", [None, Boom("late")], ids=["good", "bad"])
def test_r06_another_probe_is_admitted_when_the_lease_is_over(error):
    """Rejected while the lease runs, admitted after it; the hung one has no say in the end."""
    stand = Stand(breaker=one_strike(probe_timeout=5.0, half_open_calls=1))
    stand.fail()
    stand.clock.advance(30.0)
    hung = Late(stand, error)
    with pytest.raises(CircuitOpen) as rejected:
        stand.succeed()
    assert rejected.value.retry_after == 5.0
    stand.clock.advance(5.25)
    second = Late(stand)
    hung.end()
    assert stand.state == "half_open"
    assert second.end() == "late"
    assert stand.state == "closed"


def test_r06_a_late_probe_has_no_say_even_when_nobody_took_its_place():
    """Its lease is over, whether or not anybody called since; the next caller is a probe."""
    stand = Stand(breaker=one_strike(probe_timeout=5.0))
    stand.fail()
    stand.clock.advance(30.0)
    hung = Late(stand)
    stand.clock.advance(6.0)
    hung.end()
    assert stand.state == "half_open"
    stand.succeed()
    assert stand.state == "closed"
