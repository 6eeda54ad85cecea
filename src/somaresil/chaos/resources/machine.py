"""What the machine, the control groups and the process leave: read from the kernel each time, for it changes.

Control groups are asked in both versions. A container sees its own group as the root of the tree, a service of systemd sees a path; both
say the same through ``/proc/self/cgroup`` and ``/proc/self/mountinfo``. Every group up to the root counts, for the tightest one kills.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FOLDER", "Disk", "Machine", "Memory", "address_space", "descriptors", "largest_file", "soft_limit"]

_NOWHERE: Final = ""
_NO_LIMIT: Final = 1 << 60
"""Version 1 says 'no limit' with a number close to this."""


class Memory(NamedTuple):
    """In bytes."""

    total: int
    available: int
    groups: tuple[tuple[float, float], ...]
    """Limit and use of each control group that has a limit."""


class Disk(NamedTuple):
    """A file system, in bytes."""

    total: int
    free: int
    """What a process without privileges may still use."""
    in_memory: bool
    """Whether what is written there takes memory."""


class _Mount(NamedTuple):
    root: str
    point: str
    kind: str
    options: str


class Machine:
    """Reads the kernel's files below ``root``; tests give it a tree of their own."""

    def __init__(self, root: str | os.PathLike[str] = "/") -> None:
        """Read nothing yet."""
        self._root = Path(root)

    def memory(self) -> Memory | None:
        """What there is of memory; None where the kernel does not say."""
        facts = dict(_pairs(self._text("proc/meminfo")))
        if "MemTotal" not in facts or "MemAvailable" not in facts:
            return None
        return Memory(facts["MemTotal"] * 1024, facts["MemAvailable"] * 1024, tuple(self._memory_groups()))

    def cores(self) -> float:
        """How many cores the process may use: by its affinity, and by the quota of its control groups."""
        cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
        for folder, version in self._groups("cpu"):
            if version == 2:  # noqa: PLR2004 - as the kernel counts them
                quota, _, period = self._text(folder / "cpu.max").partition(" ")
            else:
                quota, period = self._text(folder / "cpu.cfs_quota_us"), self._text(folder / "cpu.cfs_period_us")
            limit, every = _number(quota), _number(period)
            if limit is not None and every:
                cores = min(cores, limit / every)
        return cores

    def disk(self, folder: str) -> Disk:
        """What there is of the file system that ``folder`` is on. Raises ``OSError`` when there is no such folder."""
        facts = os.statvfs(folder)
        place = os.path.realpath(folder)
        inside = [mount for mount in self._mounts() if place == mount.point or place.startswith(mount.point.rstrip("/") + "/")]
        # Of two mounted at one place the later one is seen.
        kind = max(enumerate(inside), key=lambda at: (len(at[1].point), at[0]))[1].kind if inside else ""
        return Disk(facts.f_blocks * facts.f_frsize, facts.f_bavail * facts.f_frsize, kind in {"tmpfs", "ramfs"})

    def _memory_groups(self) -> Iterator[tuple[float, float]]:
        for folder, version in self._groups("memory"):
            now, most, idle = (
                ("memory.current", "memory.max", "inactive_file")
                if version == 2  # noqa: PLR2004 - as the kernel counts them
                else ("memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file")
            )
            limit, used = _number(self._text(folder / most)), _number(self._text(folder / now))
            if limit is not None and used is not None:
                # The file cache that nobody has used lately is given back before anybody is killed.
                cache = next((value for name, value in _pairs(self._text(folder / "memory.stat")) if name == idle), 0)
                yield float(limit), float(max(0, used - cache))

    def _groups(self, controller: str) -> Iterator[tuple[Path, int]]:
        """The folders of the control groups that limit this process, from its own to the root, with their version."""
        paths: dict[str, str] = {}
        for line in self._text("proc/self/cgroup").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            for name in controllers.split(","):
                paths[name] = path
        for mount in self._mounts():
            if mount.kind == "cgroup2":
                version, path = 2, paths.get("", _NOWHERE)
            elif mount.kind == "cgroup" and controller in mount.options.split(","):
                version, path = 1, paths.get(controller, _NOWHERE)
            else:
                continue
            if path == _NOWHERE:
                continue
            top = self._root / mount.point.lstrip("/")
            root = mount.root.rstrip("/")
            # A path that lies outside of what is mounted is that of a container: the mount is its own group.
            below = path[len(root) :] if path == root or path.startswith(f"{root}/") else ""
            folder = top / below.strip("/")
            while folder != top and top in folder.parents:
                yield folder, version
                folder = folder.parent
            yield top, version

    def _mounts(self) -> list[_Mount]:
        found = []
        for line in self._text("proc/self/mountinfo").splitlines():
            before, _, after = line.partition(" - ")
            fields, kinds = before.split(" "), after.split(" ")
            if len(fields) > 4 and len(kinds) > 2:  # noqa: PLR2004 - proc(5): root and point are the fourth and fifth
                found.append(_Mount(_plain(fields[3]), _plain(fields[4]), kinds[0], kinds[2]))
        return found

    def _text(self, path: str | Path) -> str:
        try:
            return (self._root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""


def _plain(path: str) -> str:
    """A path as it is: the kernel writes blanks and backslashes as octal numbers."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")


def _pairs(text: str) -> Iterator[tuple[str, int]]:
    """Names and numbers: ``MemTotal:  16 kB``, ``inactive_file 4096``."""
    for line in text.splitlines():
        parts = line.replace(":", " ").split()
        if len(parts) > 1 and parts[1].isdecimal():
            yield parts[0], int(parts[1])


def _number(text: str) -> int | None:
    """A limit; None: there is none, or it is not told."""
    text = text.strip()
    return int(text) if text.isdecimal() and int(text) < _NO_LIMIT else None


# -- the process ------------------------------------------------------------------------------------------------------------------------


def soft_limit(name: str) -> int | None:
    """A soft limit of the process (``RLIMIT_AS``); None: there is none."""
    if sys.platform == "win32":
        return None
    import resource  # not on every platform

    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft


def address_space() -> tuple[float, float] | None:
    """Limit and use of the address space, in bytes; None: no limit."""
    limit = soft_limit("RLIMIT_AS")
    if limit is None:
        return None
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return float(limit), float(int(pages) * os.sysconf("SC_PAGE_SIZE"))


def largest_file() -> float | None:
    """The largest file that the process may write, in bytes; None: no limit."""
    limit = soft_limit("RLIMIT_FSIZE")
    return None if limit is None else float(limit)


FOLDER: Final = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
"""Where the descriptors in use are shown."""


def descriptors() -> list[int]:
    """The descriptors that are in use, in order."""
    named = [int(name) for name in os.listdir(FOLDER)]  # noqa: PTH208 - names are all that is wanted
    return sorted(number for number in named if _is_open(number))


def _is_open(number: int) -> bool:
    # The one by which the folder was read is closed by now.
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
