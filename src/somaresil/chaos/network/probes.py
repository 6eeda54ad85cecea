"""What partitions can do in this process."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from somaresil.chaos.capabilities import Capability
from somaresil.chaos.network import filters, sockets
from somaresil.chaos.network.cut import BLACKHOLE, DROP, LOSS, MODES, REFUSE, RESET
from somaresil.chaos.network.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["probe", "probe_mode"]

_KIND = "network_partition"
_NEW_ONLY = "connections that exist are not ended: "


def probe() -> Mapping[str, Capability]:
    """One capability for each mode, and ``network_partition.existing``: whether connections that exist are reached."""
    existing = sockets.unavailable()
    found = {f"{_KIND}.{mode}": probe_mode(mode) for mode in MODES}
    return {**found, f"{_KIND}.existing": Capability(not existing, existing)}


def probe_mode(mode: str) -> Capability:
    """Whether one mode works here."""
    existing = sockets.unavailable()
    if mode == RESET:
        return Capability(not existing, existing)
    if mode in {DROP, LOSS}:
        reason = existing or filters.unavailable()
        return Capability(not reason, reason)
    if mode == BLACKHOLE:
        reason = _no_sink()
        if reason:
            return Capability(available=False, reason=reason)
    elif mode != REFUSE:
        return Capability(available=False, reason="no such mode")
    if sys.platform == "win32":
        return Capability(available=True, reason=f"{_NEW_ONLY}{existing}; the proactor loop of asyncio connects past it")
    return Capability(available=True, reason=f"{_NEW_ONLY}{existing}" if existing else "")


def _no_sink() -> str:
    try:
        Sink().close()
    except (OSError, AttributeError) as reason:
        return str(reason)
    return ""
