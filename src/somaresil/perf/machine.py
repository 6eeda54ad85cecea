"""The machine on which something was measured: what makes figures comparable, and nothing that says whose it is."""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["Machine", "this_machine"]

_CPUINFO: Final = Path("/proc/cpuinfo")
_LONGEST: Final = 120
_NAMES: Final = {"cpu": "processor", "cores": "cores", "python": "Python", "os": "operating system"}


@dataclass(frozen=True, slots=True)
class Machine:
    """Processor, cores, Python, operating system; ``""`` and 0 for what is not known. No host name, no user, no address."""

    cpu: str = ""
    """Model of the processor, in the words of the operating system."""
    cores: int = 0
    """Those that the process may use."""
    python: str = ""
    """Implementation and version: ``CPython 3.11.7``."""
    os: str = ""
    """Name and architecture: ``Linux x86_64``."""

    def __post_init__(self) -> None:
        for name in ("cpu", "python", "os"):
            object.__setattr__(self, name, _plain(getattr(self, name)))

    @property
    def fingerprint(self) -> str:
        """Twelve characters that are the same for the same machine."""
        text = "\n".join(str(getattr(self, field.name)) for field in fields(self))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def differences(self, other: Machine) -> tuple[str, ...]:
        """In what another machine differs, in words; what one of them does not know is no difference."""
        pairs = ((_NAMES[field.name], getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return tuple(f"{what}: {mine} and {theirs}" for what, mine, theirs in pairs if mine and theirs and mine != theirs)

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' if self.cores != 1 else ''}" if self.cores else ""
        return ", ".join(part for part in (self.cpu, cores, self.python, self.os) if part) or "not known"


@cache
def this_machine() -> Machine:
    """The machine that this process runs on; what cannot be found out stays empty."""
    return Machine(
        cpu=_processor(),
        cores=_cores(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        os=f"{platform.system()} {platform.machine()}".strip(),
    )


def _processor() -> str:
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    for key in ("model name", "Hardware", "cpu model", "CPU part"):
        found = re.search(rf"^{key}\s*:\s*(\S.*)$", text, re.MULTILINE)
        if found is not None:
            return found[1]
    return platform.processor()


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return os.cpu_count() or 0


def _plain(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LONGEST]
