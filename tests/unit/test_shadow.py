"""Shadow mode: what is counted and told of decisions that are not carried out."""

from __future__ import annotations

from somaresil.events import ShadowDecision
from tests.behaviour.kit import Stand


def test_a_decision_is_counted_and_told():
    """By policy and decision, with what was measured; nothing was counted before."""
    stand = Stand()
    assert stand.guard.shadow.counts() == {}
    stand.guard.shadow.note("bulkhead", "reject", "8 calls running")
    stand.guard.shadow.note("bulkhead", "reject", "9 calls running")
    stand.guard.shadow.note("timeout", "time_out")
    assert stand.guard.shadow.counts() == {("bulkhead", "reject"): 2, ("timeout", "time_out"): 1}
    told = stand.told(ShadowDecision)
    assert [(event.policy, event.decision, event.detail) for event in told] == [
        ("bulkhead", "reject", "8 calls running"),
        ("bulkhead", "reject", "9 calls running"),
        ("timeout", "time_out", ""),
    ]
    assert {(event.guard, event.at) for event in told} == {("dependency", stand.clock.time())}
