"""The command ``somaresil canary``: rollouts from a terminal, a pipeline or a job of Kubernetes.

``run`` takes a version through the phases of a file; ``status``, ``promote``, ``rollback``, ``pause``, ``resume`` and ``verdict`` talk to
the verdict app of somebody who does; ``judge`` compares two sets of metrics; ``render`` writes what engines read.
"""

from __future__ import annotations

from typing import Final

__all__ = ["TOKEN", "URL"]

URL: Final = "SOMARESIL_CANARY_URL"
"""The variable that says where the verdict app is."""
TOKEN: Final = "SOMARESIL_CANARY_TOKEN"  # noqa: S105 - the name of the variable
"""The variable that holds the token."""
