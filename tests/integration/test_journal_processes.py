"""Real processes write to one journal, and one of them is killed."""

from __future__ import annotations

import signal
import subprocess
import sys

from somaresil.slo.journal import read_journals

_WRITER = """
import sys
from pathlib import Path
from somaresil.slo.journal import append
from somaresil.slo.records import Hour

path, instance, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
number = 0
while number != count:
    append(path, [Hour(1.0, "s", instance, "1", "up", 99.0, number * 3600, 1, 0, 0)])
    number += 1
    if number == 50:
        print("going", flush=True)
"""


def test_a_process_that_is_killed_while_it_writes_spoils_nothing_of_the_others(tmp_path):
    """All that the other one wrote is there, each line whole."""
    path = tmp_path / "journal"
    start = [sys.executable, "-c", _WRITER, str(path)]
    with (
        subprocess.Popen([*start, "victim", "-1"], stdout=subprocess.PIPE) as victim,
        subprocess.Popen([*start, "other", "2000"], stdout=subprocess.PIPE) as other,
    ):
        try:
            assert victim.stdout.readline() == b"going\n"
            assert other.stdout.readline() == b"going\n"
            victim.send_signal(signal.SIGKILL)
            assert other.wait(timeout=30) == 0
        finally:
            victim.kill()
            other.kill()
    found = read_journals(path)
    assert sum(hour.instance == "other" for hour in found.hours) == 2000
    assert sum(hour.instance == "victim" for hour in found.hours) >= 50
    assert found.unreadable <= 1
