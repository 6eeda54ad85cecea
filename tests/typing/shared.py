"""What type checkers make of sharing breakers, as a service does it. Checked by mypy and pyright, never run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, assert_type

from somaresil.events import SharedStateLost, SharedStateRestored
from somaresil.integrations.redis import SharedBreakers, share

if TYPE_CHECKING:
    from somaresil import Resilience


def shares(resilience: Resilience) -> None:
    handle = share(resilience, "redis://localhost:6379/0", quorum=2, poll=timedelta(seconds=2), names=["llm.*", "db"])
    assert_type(handle, SharedBreakers)
    assert_type(handle.connected, bool)
    assert_type(handle.wait(5.0), bool)
    handle.close()
    with share(resilience, "redis://localhost", prefix="mine", names="llm.*") as shared:
        assert_type(shared, SharedBreakers)
        assert_type(shared.dropped, int)


def listens(resilience: Resilience) -> None:
    def lost(event: SharedStateLost) -> None:
        assert_type(event.backend, str)

    def restored(event: SharedStateRestored) -> None:
        assert_type(event.lost_for, float)

    resilience.on(lost, SharedStateLost)
    resilience.on(restored, SharedStateRestored)
