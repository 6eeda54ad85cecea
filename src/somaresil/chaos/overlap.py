"""Whether two experiments could strike the same thing: then neither could be told from the other by what it did."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING

from somaresil.model.selector import can_meet

if TYPE_CHECKING:
    from somaresil.chaos.config import ChaosConfig

__all__ = ["overlap"]

_NET = "net:"


def overlap(one: ChaosConfig, other: ChaosConfig) -> bool:
    """Whether there is a guard, a path, a resource or a host that both aim at. A dry run strikes nothing, so it overlaps with nothing.

    A host name and an address may be the same machine; that is not looked up, and counts as a yes.
    """
    if one.dry_run or other.dry_run:
        return False
    left, right = one.target_component, other.target_component
    if one.on_http or other.on_http:
        return one.on_http and other.on_http and can_meet(left, right)
    if one.on_process or other.on_process:
        if left.startswith(_NET) and right.startswith(_NET):
            return _nets_meet(left.removeprefix(_NET), right.removeprefix(_NET))
        return one.on_process and other.on_process and can_meet(left, right)
    return can_meet(left, right)


def _nets_meet(one: str, other: str) -> bool:
    (left, port), (right, other_port) = _split(one), _split(other)
    if port and other_port and not can_meet(port, other_port):
        return False
    nets = _network(left), _network(right)
    if nets[0] is None and nets[1] is None:
        return can_meet(left.casefold(), right.casefold())
    if nets[0] is None or nets[1] is None:
        return True
    return nets[0].version == nets[1].version and nets[0].overlaps(nets[1])


def _split(target: str) -> tuple[str, str]:
    """Host and port; no port means all of them."""
    if target.startswith("["):
        host, _, rest = target[1:].partition("]")
        return host, rest.removeprefix(":")
    host, colon, port = target.rpartition(":")
    # An IPv6 address has colons of its own.
    return (host, port) if colon and ":" not in host else (target, "")


def _network(host: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(host, strict=False)
    except ValueError:
        return None
