"""The recovery drill: a small agent service in several instances is struck by every kind of fault, and has to recover from each.

``python -m somaresil drill`` starts gateways, workers, tool executors and memory services as processes on loopback (:mod:`.services`), a
Redis that they keep their memory in and a Prometheus that scrapes them, sends them users (:mod:`.users`), injects the faults of a seeded
plan (:mod:`.plan`) one after the other through the control app of each process (:mod:`.run`), judges each by what the users saw
(:mod:`.judge`) and writes a report (:mod:`.report`). With ``--virtual`` the same stack lives in one process and in virtual time
(:mod:`.simulation`). Nothing here is imported by the library.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from somaresil.demo import DemoError

__all__ = ["FAULTS", "INSTALL", "NEEDED", "DrillError", "Options", "missing"]

NEEDED = ("anyio", "httpx", "redis", "starlette", "uvicorn")
"""What the drill needs beyond the library: the extra ``drill``."""

INSTALL = 'pip install "somaresil[drill]"'
"""The command that installs it."""

FAULTS = 210
"""How many faults a drill injects, unless it is told."""

DrillError = DemoError
"""The drill could not be run. The message says why and what to do; there is no verdict."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose."""

    seed: int = 7
    """Decides which faults are injected where, in which order, and which calls they strike."""
    faults: int = FAULTS
    out: str = "drill-report"
    """Folder of the report."""
    rate: float = 24.0
    """Requests of users a second."""
    virtual: bool = False
    """In one process and in virtual time, without the faults of processes."""
    json: bool = False


def missing(names: tuple[str, ...] = NEEDED) -> list[str]:
    """Which of the packages are not installed."""
    return [name for name in names if importlib.util.find_spec(name) is None]
