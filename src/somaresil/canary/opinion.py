"""What somebody says about a candidate: the form in which evidence reaches those who act upon it.

A controller has evidence of its own, from the calls that it has placed. Where something else places them (a mesh, a load balancer), a
:class:`CanaryJudge` says what all pods together have seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from somaresil.canary.ledger import Finding
    from somaresil.model.rollout import Verdict

__all__ = ["CanaryJudge", "Opinion"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What is known of one version."""

    verdict: Verdict
    """``fail``: it is shown to be bad. ``pass``: enough was seen, and nothing speaks against it. ``wait``: neither."""
    reason: str
    """In one line, for whoever is asked why."""
    finding: Finding
    """Evidence and counts."""
    at: float | None = None
    """Seconds since the epoch of the newest data; None: there are none."""
    missing: tuple[str, ...] = ()
    """Who should have told what it has seen, and did not."""


class CanaryJudge(Protocol):
    """Knows what was seen of a version."""

    def opinion(self, checksum: str) -> Opinion:
        """What is known now of the version with this checksum; of one that was never heard of: ``wait``.

        Waits for nothing: data are fetched by somebody else, and old ones are no reason for ``pass``.
        """
        ...
