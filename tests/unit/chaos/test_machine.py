"""What the kernel says of machine and control groups, read from trees of both versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from somaresil.chaos.resources.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

MEMINFO = "MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  600 kB\n"
V2 = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 20 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 20 0:28 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
)


def machine(root: Path, **files: str) -> Machine:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return Machine(root)


def test_a_platform_that_says_nothing_has_no_memory_to_take(tmp_path: Path) -> None:
    assert Machine(tmp_path).memory() is None


def test_without_control_groups_the_machine_decides(tmp_path: Path) -> None:
    assert machine(tmp_path).memory() == (1000 * 1024, 600 * 1024, ())


def test_every_group_of_version_2_up_to_the_root_counts_and_idle_cache_is_free(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": V2,
        "proc/self/cgroup": "0::/system.slice/app.service\n",
        "sys/fs/cgroup/system.slice/app.service/memory.max": "max\n",
        "sys/fs/cgroup/system.slice/app.service/memory.current": "50\n",
        "sys/fs/cgroup/system.slice/memory.max": "900\n",
        "sys/fs/cgroup/system.slice/memory.current": "500\n",
        "sys/fs/cgroup/system.slice/memory.stat": "anon 300\ninactive_file 120\n",
        "sys/fs/cgroup/system.slice/app.service/cpu.max": "50000 100000\n",
    }
    found = machine(tmp_path, **files)
    facts = found.memory()
    assert facts is not None
    assert facts.groups == ((900.0, 380.0),)
    assert found.cores() == 0.5


def test_a_container_of_version_2_is_the_root_of_its_tree(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": V2,
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "900\n",
        "sys/fs/cgroup/memory.current": "500\n",
    }
    facts = machine(tmp_path, **files).memory()
    assert facts is not None
    assert facts.groups == ((900.0, 500.0),)


def test_version_1_is_read_where_it_is_mounted(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": V1,
        "proc/self/cgroup": "4:memory:/jobs/one\n3:cpu,cpuacct:/docker/abc\n",
        "sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/jobs/one/memory.usage_in_bytes": "5\n",
        "sys/fs/cgroup/memory/jobs/memory.limit_in_bytes": "700\n",
        "sys/fs/cgroup/memory/jobs/memory.usage_in_bytes": "200\n",
        "sys/fs/cgroup/memory/jobs/memory.stat": "total_inactive_file 300\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "25000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    found = machine(tmp_path, **files)
    facts = found.memory()
    assert facts is not None
    assert facts.groups == ((700.0, 0.0),)
    assert found.cores() == 0.25


@pytest.mark.parametrize("quota", ["max 100000", "-1", ""])
def test_without_a_quota_all_cores_of_the_affinity_count(tmp_path: Path, quota: str) -> None:
    files = {"proc/self/mountinfo": V2, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota}
    assert machine(tmp_path, **files).cores() >= 1


def test_a_file_system_in_memory_is_known_as_one(tmp_path: Path) -> None:
    here = f"1 0 0:1 / / rw - ext4 /dev/x rw\n2 1 0:2 / {tmp_path.resolve()} rw - tmpfs tmpfs rw\n"
    found = machine(tmp_path, **{"proc/self/mountinfo": here})
    assert found.disk(str(tmp_path)).in_memory
    assert not found.disk("/").in_memory


def test_what_is_garbled_is_no_limit(tmp_path: Path) -> None:
    files = {
        "proc/self/mountinfo": "x\n- - -\n" + V2,
        "proc/self/cgroup": "::::\nnonsense\n0::/\n",
        "sys/fs/cgroup/memory.max": "\x00many",
        "sys/fs/cgroup/memory.current": "7",
        "sys/fs/cgroup/cpu.max": "5 0",
    }
    found = machine(tmp_path, **files)
    facts = found.memory()
    assert facts is not None
    assert facts.groups == ()
    assert found.cores() >= 1
