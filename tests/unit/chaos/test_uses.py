"""Uses of a request plan over all processes of a host."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter

import pytest

from somaresil import ChaosConfig, ChaosExperiment, Resilience
from somaresil.chaos import ChaosKeys
from somaresil.chaos.killswitch import HostSwitch
from somaresil.chaos.token import LONGEST, PlanRefused
from somaresil.chaos.uses import MOST, HostUses

pytestmark = pytest.mark.skipif(not hasattr(os, "pread"), reason="this platform has no kill switch of the host")
NOW = time.time()


@pytest.fixture
def uses(tmp_path):
    return HostUses(HostSwitch([tmp_path / "soma" / "gateway.switch"]))


def test_uses_are_numbered_and_bounded(uses):
    """Up to what a plan says, each plan by itself."""
    assert [uses.use("a", 2, NOW) for _ in range(2)] == [1, 2]
    for _ in range(5):
        with pytest.raises(PlanRefused, match="replayed"):
            uses.use("a", 2, NOW)
    assert uses.use("b", 1, NOW) == 1
    assert sorted(path.stat().st_size for path in uses.folder.iterdir()) == [1, 2]
    assert uses.folder.stat().st_mode & 0o777 == 0o700


def test_another_process_has_counted_too(uses):
    """A plan for fifty uses, four processes: fifty are taken, each with a number of its own."""
    program = (
        "import sys, time\n"
        "from somaresil.chaos.killswitch import HostSwitch\n"
        "from somaresil.chaos.token import PlanRefused\n"
        "from somaresil.chaos.uses import HostUses\n"
        "uses = HostUses(HostSwitch([sys.argv[1]]))\n"
        "sys.stdin.read(1)\n"
        "for _ in range(40):\n"
        "    try:\n"
        "        print(uses.use('smoke', 50, time.time()))\n"
        "    except PlanRefused as refused:\n"
        "        print(refused)\n"
    )
    command = [sys.executable, "-c", program, str(uses.switch.paths[-1])]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        worker.stdin.write("x")
        worker.stdin.flush()
    said = Counter(line for worker in workers for line in worker.communicate(timeout=30.0)[0].split())
    assert all(worker.returncode == 0 for worker in workers)
    assert said.pop("replayed") == 4 * 40 - 50
    assert said == {str(number): 1 for number in range(1, 51)}


def test_what_no_plan_can_come_back_to_is_cleared_away(uses):
    """A day and ten minutes after the last use, and no earlier; what was cleared away is not counted as there."""
    uses.use("old", 1, NOW)
    (file,) = uses.folder.iterdir()
    os.utime(file, (NOW, NOW))
    uses.use("new", 1, NOW + LONGEST + 500.0)
    assert len(list(uses.folder.iterdir())) == 2
    uses.use("newer", 1, NOW + LONGEST + 700.0)
    assert not file.exists()


def test_without_room_none_is_taken(uses, monkeypatch):
    """A folder that is full, that is somebody else's, or cannot be made: refused, and not taken as often as one likes."""
    uses.use("a", 2, NOW)
    monkeypatch.setattr("somaresil.chaos.uses.MOST", 1)
    with pytest.raises(PlanRefused, match="crowded"):
        uses.use("b", 1, NOW)
    assert uses.use("a", 2, NOW) == 2
    assert MOST == 10_000
    uses.folder.chmod(0o777)
    with pytest.raises(PlanRefused, match="crowded"):
        uses.use("a", 9, NOW + 61.0)
    nowhere = HostUses(HostSwitch(["/proc/none/gateway.switch"]))
    with pytest.raises(PlanRefused, match="crowded"):
        nowhere.use("a", 1, NOW)


def test_a_link_in_the_place_of_a_file_is_not_followed(uses, tmp_path):
    """Nobody's file grows by a byte."""
    uses.use("a", 5, NOW)
    (file,) = uses.folder.iterdir()
    victim = tmp_path / "victim"
    victim.touch()
    file.unlink()
    file.symlink_to(victim)
    with pytest.raises(PlanRefused, match="crowded"):
        uses.use("a", 5, NOW)
    assert victim.stat().st_size == 0


def test_a_single_use_is_taken_by_one_worker_of_two(tmp_path, monkeypatch):
    """They share the kill switch of the host, and with it what was used. Where that is off each counts for itself."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    keys = ChaosKeys({"k1": bytes(range(32))})

    def worker():
        resilience = Resilience("gateway", environment="test")
        resilience.guard("llm.invoke")
        resilience.chaos.opt_in()
        resilience.chaos.approve("down", ChaosConfig(ChaosExperiment.ERROR_INJECTION, "llm.*", 1.0, 30.0))
        resilience.chaos.accept_plans(keys)
        return resilience.chaos

    for switch, taken in ((str(tmp_path / "gateway.switch"), 1), ("off", 2)):
        monkeypatch.setenv("SOMARESIL_CHAOS_SWITCH", switch)
        workers = [worker(), worker()]
        plan = workers[0].sign_plan(["down"], uses=1)
        for chaos in workers:
            with chaos.carrying(plan):
                pass
        counts = Counter()
        for chaos in workers:
            counts.update(chaos.requests.counts())
        assert counts["accepted"] == taken
        assert counts["replayed"] == 2 - taken
