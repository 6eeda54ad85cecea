"""Which instances there are and where they stand: three of each role, so that three blast radii are three different sets."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import Final

__all__ = ["RADII", "REGION", "ROLES", "SESSION", "VARIABLE", "Instance", "Settings", "candidates", "instances"]

ROLES: Final = ("gateway", "worker", "tools", "memory")
"""The four services."""
REGION: Final = "region-1"
ZONES: Final = ("zone-a", "zone-a", "zone-b")
"""Of the first, the second and the third instance: a zone is two of three, the region is all."""
RADII: Final = ("single_instance", "zone", "region")
SESSION: Final = "everybody"
"""One session, which every message reads and writes: only where the same is asked again can an answer be stale."""
VARIABLE: Final = "SOMARESIL_DRILL"


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a service."""

    name: str
    role: str
    zone: str
    region: str = REGION


def instances() -> tuple[Instance, ...]:
    """All of them, in the order in which they are started."""
    return tuple(Instance(f"{role}-{number}", role, zone) for role in ROLES for number, zone in enumerate(ZONES, start=1))


def candidates(role: str, radius: str) -> tuple[str, ...]:
    """Among whom a radius chooses: any one instance of the role, the zone with two of them, or the region."""
    if radius == "single_instance":
        return tuple(each.name for each in instances() if each.role == role)
    return (ZONES[0],) if radius == "zone" else (REGION,)


@dataclass(frozen=True, slots=True)
class Settings:
    """What an instance has to know of the others."""

    seed: int
    token: str
    """Of the operator: needed for everything below ``/_soma/``."""
    urls: dict[str, str] = field(default_factory=dict[str, str])
    """Where each instance is, by its name."""
    redis: int = 0
    """Port of Redis on loopback; 0: there is none, and the memory is kept in the process (the simulation)."""
    folder: str = ""
    """For files of the memory services."""
    virtual: bool = False
    """In virtual time, in one process: no threads, and no kill switch that others could throw."""

    def peers(self, role: str) -> dict[str, str]:
        """The instances of a role and where they are."""
        return {each.name: self.urls[each.name] for each in instances() if each.role == role}

    def to_environment(self) -> dict[str, str]:
        """The variable to set for a child."""
        return {VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Settings:
        """What the driver has set. The variable is taken out, so that no child of ours and no crash report shows the token."""
        return cls(**json.loads(os.environ.pop(VARIABLE)))
