"""The kill switch stops every worker of a real server within a second, from outside, also calls that are being delayed."""

from __future__ import annotations

import pytest

from tests.integration.kill_switch import SERVERS, trial


@pytest.mark.server
@pytest.mark.parametrize("server", SERVERS)
def test_no_worker_strikes_later_than_a_second_after_the_stop(server, tmp_path):
    pytest.importorskip(server)
    found = trial(server, tmp_path, workers=2, rate=100.0, before=1.0, after=1.5)
    assert found.failed == 0
    assert found.struck > 20
    assert found.good_after > 20
    assert found.last_fault <= 1.0
    assert 0.0 < found.last_release <= 1.0
