"""The demo: a small agent service under real load, attacked on purpose, and judged by what its callers saw.

``python -m somaresil demo`` starts four processes on loopback (``services``), offers them requests at a fixed rate (``load``), leads them
through a game day (``drill``) and prints what came of it (``report``, ``terminal``). Nothing here is imported by the library.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

__all__ = ["INSTALL", "NEEDED", "DemoError", "Options", "missing"]

NEEDED = ("fastapi", "httptools", "httpx", "rich", "uvicorn", "wsproto")
"""What the demo needs beyond the library: the extra ``demo``."""

INSTALL = 'pip install "somaresil[demo]"'
"""The command that installs it."""


class DemoError(RuntimeError):
    """The demo could not run. The message says why and what to do; there is no verdict."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user may choose."""

    duration: float = 30.0
    """Seconds of load, all phases together. Starting and stopping come on top."""
    rate: float = 40.0
    """Requests a second, begun at fixed times whatever became of the earlier ones."""
    seed: int = 7
    """Decides which calls are struck and how the model misbehaves."""
    json: bool = False
    """Print the report as JSON on stdout, and everything else on stderr."""
    prometheus: bool = False
    """Run a Prometheus server too, and compare its burn rates with ours."""


def missing() -> tuple[str, ...]:
    """The packages of :data:`NEEDED` that are not installed. Looks without importing."""
    return tuple(name for name in NEEDED if importlib.util.find_spec(name) is None)
