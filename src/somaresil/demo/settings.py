"""What the driver tells its services: one JSON object in one environment variable."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Final

__all__ = ["VARIABLE", "Settings"]

VARIABLE: Final = "SOMARESIL_DEMO"


@dataclass(frozen=True, slots=True)
class Settings:
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

    def to_environment(self) -> dict[str, str]:
        """The variable to set for a child."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Settings:
        """What the driver has set. The variable is taken out, so that no child of ours and no crash report shows the token."""
        return cls(**json.loads(os.environ.pop(VARIABLE)))
