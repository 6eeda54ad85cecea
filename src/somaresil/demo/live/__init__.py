"""The live demo: a gateway of several processes under steady load, with its dashboard, for as long as somebody wants to look."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LiveOptions"]


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """What the user may choose."""

    workers: int = 4
    """Processes of the gateway."""
    port: int = 0
    """Of the gateway; 0: any that is free."""
    duration: float | None = None
    """Seconds after which it ends; None: it runs until it is ended."""
    rate: float = 20.0
    """Requests a second in the mean, begun whatever became of the earlier ones."""
    load: bool = True
    """Whether requests are offered."""
    seed: int = 7
    """Decides how the model misbehaves."""
    json: bool = False
    """Say where it is as one line of JSON on stdout, everything else on stderr."""
