"""Every fault ends with its process, and without it: after SIGKILL, SIGTERM and Ctrl-C nothing of it is left."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.behaviour import crash

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what is left is read from the files of Linux")

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
HARD = ("resource:executor", "resource:loop_block", "resource:fds", "resource:disk:data")
"""What would outlive a signal, or keep a process from ending."""


@pytest.mark.timeout(180)
def test_nothing_is_left_of_a_fault_whose_process_is_ended(tmp_path: Path) -> None:
    """Each kind of fault with one of the signals, those that could hold a process back with each of them."""
    wanted = {(fault, SIGNALS[number % 3]) for number, fault in enumerate(crash.FAULTS)} | {(f, s) for f in HARD for s in SIGNALS}
    with ThreadPoolExecutor(4) as pool:
        ends = list(pool.map(lambda pair: crash.end(pair[1][0], pair[1][1], tmp_path / str(pair[0])), enumerate(sorted(wanted))))
    assert [ended for ended in ends if not ended.clean] == []
    assert {ended.how: ended.code for ended in ends} == {"SIGKILL": -9, "SIGTERM": -15, "SIGINT": -2}


@pytest.mark.timeout(120)
def test_an_interpreter_ends_though_a_fault_holds_the_threads_of_its_executor(tmp_path: Path) -> None:
    """Nobody closes the loop, and the interpreter joins the threads of executors: they are let go before."""
    ended = crash.end("resource:executor", "leave", tmp_path / "leave")
    assert (ended.left, ended.code) == ([], 0)
    assert ended.seconds < 5.0


@pytest.mark.timeout(120)
def test_a_process_that_goes_on_has_back_all_that_it_had(tmp_path: Path) -> None:
    """All faults, ended by Ctrl-C, by their leases and by calls: threads, descriptors, limits, memory, connections and answers."""
    found = crash.survivor(2 * len(crash.FAULTS), tmp_path / "survivor")
    before, after = found["before"], found["after"]
    assert found["stuck"] == []
    assert (after["threads"], after["fds"], after["limit"]) == ([], before["fds"], before["limit"])
    assert after["resident"] - before["resident"] < 5 * crash.MIB
    assert (found["pool"], found["files"]) == ([1, 2, 3], [])
    assert found["lag"] < 2.0
