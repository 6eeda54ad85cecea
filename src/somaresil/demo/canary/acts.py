"""What is deployed, one after the other, and what ought to become of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ACTS", "BAKE_SHARE", "USUAL_ERRORS", "Act"]

BAKE_SHARE: Final = 1.0 / 16.0
"""Of the whole duration, for each step: three steps fit into an act."""
USUAL_ERRORS: Final = 0.01
"""Share of the requests that every version fails: a good one is not perfect."""


@dataclass(frozen=True, slots=True)
class Act:
    """One new version."""

    name: str
    version: str
    says: str
    """What to watch, for the person before the screen."""
    wanted: str
    """How its canary ought to end: ``rollback`` or ``complete``."""
    errors: float = USUAL_ERRORS
    """Share of its requests that are answered with 503."""
    slow: float = 0.0
    """Share that is answered late."""
    cut: float = 0.0
    """Share of its streams that break off in the middle."""


ACTS: Final = (
    Act("errors", "2.0.0", "a quarter of its requests fail", "rollback", errors=0.25),
    Act("tail", "2.0.1", "its median is as before, three requests in ten take half a second longer", "rollback", slow=0.3),
    Act("streams", "2.0.2", "its answers are as before, but most of its streams break off in the middle", "rollback", cut=0.8),
    Act("good", "2.0.3", "it is as good as the one before", "complete"),
)
"""The demo."""
