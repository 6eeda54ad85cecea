"""What faults this process can do here, and why not the others. Nothing is faked: what is not available is refused with the same reason."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PROBES", "Capability", "capabilities"]


@dataclass(frozen=True, slots=True)
class Capability:
    """Whether something can be done here; true when it can."""

    available: bool
    reason: str = ""
    """Why not; of what is available, how far it reaches, or nothing."""

    def __bool__(self) -> bool:
        """Whether it can be done."""
        return self.available


PROBES: Final[tuple[str, ...]] = ("somaresil.chaos.network.probes:probe", "somaresil.chaos.resources:resource_capabilities")
"""Who finds out: ``module:function``, imported when first asked. Each returns a mapping from names of capabilities."""


def capabilities() -> Mapping[str, Capability]:
    """What can be done in this process as it is now, by name (``network_partition.drop``). Tried, not guessed: it takes milliseconds.

    A probe that breaks makes nothing available: its own name then says what it raised.
    """
    found: dict[str, Capability] = {}
    for place in PROBES:
        module, _, name = place.partition(":")
        try:
            found.update(getattr(import_module(module), name)())
        except Exception as broken:  # noqa: BLE001 - asking must not raise
            found[module.rpartition(".")[0]] = Capability(available=False, reason=f"the probe raised {type(broken).__name__}: {broken}")
    return MappingProxyType(found)
