"""The switch: quiet as long as nobody has a reason to look."""

from __future__ import annotations

from somaresil.switch import Switch
from tests.behaviour.kit import together


def test_a_new_switch_is_quiet_in_era_one_and_due_at_once():
    """The first call settles the books."""
    switch = Switch()
    assert (switch.quiet, switch.era, switch.due, switch.reasons) == (True, 1, float("-inf"), frozenset())


def test_every_reason_has_to_let_go():
    """Holding twice is holding once; letting go of what one does not hold is nothing."""
    switch = Switch()
    switch.hold("breaker")
    switch.hold("breaker")
    switch.hold("fault")
    switch.hold("nobody", held=False)
    assert (switch.quiet, switch.reasons) == (False, {"breaker", "fault"})
    switch.hold("breaker", held=False)
    assert (switch.quiet, switch.reasons) == (False, {"fault"})
    switch.hold("fault", held=False)
    assert (switch.quiet, switch.reasons) == (True, frozenset())


def test_reasons_of_many_threads_do_not_overwrite_one_another():
    """After everybody has let go it is quiet, and never before."""
    switch = Switch()

    def flap(number):
        for _ in range(500):
            switch.hold(f"reason {number}")
            assert not switch.quiet
            switch.hold(f"reason {number}", held=False)

    assert together(4, flap) == [None] * 4
    assert switch.quiet
