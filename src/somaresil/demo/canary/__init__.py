"""The demo of a canary: new versions of a service, most of them bad, behind a router that gives them some of the traffic.

``python -m somaresil demo canary`` starts a version and a gateway on loopback, offers them requests at a fixed rate, deploys one new
version after the other (``acts``), has the gateway's canary decide about each (``run``), and prints what users had of it (``report``).
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CanaryOptions"]


@dataclass(frozen=True, slots=True)
class CanaryOptions:
    """What the user may choose."""

    duration: float = 45.0
    """Seconds of load at most, a quarter for each version. Starting and stopping come on top."""
    rate: float = 60.0
    """Requests a second, begun at fixed times whatever became of the earlier ones."""
    seed: int = 7
    """Decides which requests go to the new version, and which of them it spoils."""
    json: bool = False
    """Print the report as JSON on stdout, and everything else on stderr."""
    html: str | None = None
    """File for the report as one HTML page."""
    router: str = "gateway"
    """Who splits the traffic: ``gateway``, a process of ours, or ``nginx``, by weights; then the versions tell what they have seen."""
