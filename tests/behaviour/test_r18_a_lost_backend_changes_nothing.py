"""R18: with a shared backend down, at the start or later, local state decides, the log is not flooded, and the event loop is not blocked.

somaresil has no shared backend yet: all state is that of the process. The rule becomes a test with the first integration that shares state.
"""

from __future__ import annotations

import pytest


@pytest.mark.skip(reason="R18: there is no shared backend yet")
def test_r18_local_state_decides_while_the_backend_is_down():
    """Breakers, limits and the kill switch work from local state while the backend cannot be reached."""
