"""What the driver tells its services: one JSON object in one environment variable."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

__all__ = ["VARIABLE", "CanarySettings", "LiveSettings", "Settings"]

VARIABLE: Final = "SOMARESIL_DEMO"


class _Told:
    """What goes to a child through its environment."""

    __slots__ = ()

    def to_environment(self) -> dict[str, str]:
        """The variable to set for a child."""
        this: Any = self
        return {VARIABLE: json.dumps(asdict(this))}

    @classmethod
    def from_environment(cls) -> Self:
        """What the driver has set. The variable is taken out, so that no child of ours and no crash report shows the token."""
        return cls(**json.loads(os.environ.pop(VARIABLE)))


@dataclass(frozen=True, slots=True)
class Settings(_Told):
    """Where the others are, and what the operator's token is."""

    seed: int
    token: str
    """Needed for everything below ``/_soma/``; made anew for each run."""
    database: str
    """File of the memory store."""
    model: str
    """Address of the model, without a slash at the end."""
    memory: str
    worker: str
    gateway: str


@dataclass(frozen=True, slots=True)
class LiveSettings(Settings):
    """The same for one of several processes of the gateway."""

    name: str = "gateway"
    """What this process calls itself."""
    workers: str = ""
    """The folder in which the processes of the gateway find one another."""
    actor: str = "you"
    """Whose token it is."""


@dataclass(frozen=True, slots=True)
class CanarySettings(_Told):
    """The same for the demo of a canary: a gateway and the versions behind it."""

    seed: int
    token: str
    control: str
    """Address of the version that was there before, without a slash at the end."""
    candidate: str
    bake: float
    """Seconds that a step lasts at least."""
    version: str = ""
    """Of a version: what it calls itself."""
    errors: float = 0.0
    """Share of the requests that a version answers with 503."""
    slow: float = 0.0
    """Share of the requests that it answers late."""
    cut: float = 0.0
    """Share of the streams that it breaks off in the middle."""
    role: str = ""
    """Of a version that tells what it has seen: ``control`` or ``candidate``. Empty: the router sees it all."""
    nginx: str = ""
    """The program, where it is the router."""
    folder: str = ""
    """Where its files are."""
    probe: str = ""
    """Where it says what it does."""
