"""The window of a breaker over the calls of a recorder."""

from __future__ import annotations

import pytest

from somaresil.callwindow import CallWindow
from somaresil.recorder import Recorder
from somaresil.switch import Switch


@pytest.mark.parametrize("calls", [None, 3], ids=["time", "calls"])
def test_the_first_failure_is_the_oldest_in_the_window(calls):
    """What has left the window is no longer the beginning of an incident; nor is it kept."""
    window = CallWindow(Recorder(Switch(), (1.0,)), 10.0, calls, 100.0)
    found = []
    for now in (100.0, 104.0, 108.0, 112.0, 116.0):
        window.note(now, failed=True, slow=False)
        found.append(window.first_failure)
    assert found == [100.0, 100.0, 100.0, 104.0, 108.0]
    assert len(window._onsets) == 3
