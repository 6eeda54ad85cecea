"""Which part of the network a target names: ``net:HOST``, ``net:HOST:PORT``, ``net:HOST:LOW-HIGH``.

HOST is a name, a shell-style pattern over names (``*.internal``), an address, a network (``10.0.0.0/8``) or ``*``; an IPv6 address that
is followed by a port stands in brackets. PORT may be ``*``. Loopback is where a process is probed and controlled, so it belongs to a target
only when the target names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["PREFIX", "Address", "NetTarget", "address_of", "plain_host"]

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

PREFIX: Final = "net:"
_LAST_PORT: Final = 65_535
_WILD: Final = frozenset("*?[]")


@dataclass(frozen=True, slots=True)
class NetTarget:
    """One part of the network."""

    text: str
    """As it was written, without ``net:``."""
    host: str | None
    """A name or a pattern over names, in lower case; None when ``network`` says it."""
    network: Network | None
    low: int = 0
    high: int = _LAST_PORT
    """The ports, both ends included."""

    @classmethod
    def parse(cls, target: str) -> NetTarget:
        """Read a target, with ``net:`` or without. Raises ``ValueError``, which says what is wrong with it."""
        text = target.removeprefix(PREFIX)
        host, port = _split(text)
        if not host:
            raise ValueError("it names no host; * is any")
        low, high = _ports(port)
        network = _network(host)
        if network is None and "/" in host:
            raise ValueError(f"{host} is no network: an address, a slash and the length of the prefix")
        return cls(text, None if network is not None else plain_host(host), network, low, high)

    @property
    def exact_name(self) -> str | None:
        """The name, when it is one name and no pattern."""
        return self.host if self.host is not None and not _WILD & set(self.host) else None

    @property
    def exact_port(self) -> bool:
        """Whether it names one port."""
        return self.low == self.high

    @property
    def by_name(self) -> bool:
        """Whether names have to be known to tell what belongs to it."""
        return self.host not in {None, "*"}

    @property
    def names_loopback(self) -> bool:
        """Whether loopback may be meant: by an address, a network inside it, or a name that is no pattern."""
        return self.exact_name is not None if self.network is None else self.network.is_loopback

    def matches(self, address: Address | None, names: Collection[str], port: int) -> bool:
        """Whether a peer belongs to it. ``address`` is None when only its names are known."""
        if not self.low <= port <= self.high:
            return False
        if address is not None and (address.is_loopback or address.is_unspecified) and not self.names_loopback:
            return False
        if address is None and any(_local(name) for name in names) and not self.names_loopback:
            return False
        if self.network is not None:
            return address is not None and address.version == self.network.version and address in self.network
        host = self.host or ""
        return host == "*" or any(fnmatchcase(name, host) for name in names)


def address_of(text: str) -> Address | None:
    """The address that this text is, scope and mapping to IPv6 removed; None: it is a name. Nowhere (``0.0.0.0``) is this machine."""
    try:
        address = ip_address(text.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    address = mapped or address
    if address.is_unspecified:
        return ip_address("127.0.0.1" if address.version == 4 else "::1")  # noqa: PLR2004 - IPv4
    return address


def plain_host(host: str) -> str:
    """A name as it is compared: lower case, without the dot of the root."""
    return host.casefold().rstrip(".") or host


def _local(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("[") and ":" in text.partition("]")[0]:
        inside, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError("after the bracket comes a colon and a port, or nothing")
        return inside, rest[1:] if rest else None
    if _network(text) is not None:
        # An IPv6 address without brackets is all address.
        return text, None
    host, colon, port = text.rpartition(":")
    if not colon:
        return text, None
    if ":" in host:
        raise ValueError("an IPv6 address with a port stands in brackets: [2001:db8::1]:443")
    return host, port


def _network(text: str) -> Network | None:
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and (mapped := network.network_address.ipv4_mapped) is not None:  # noqa: PLR2004
        return ip_network((mapped, network.prefixlen - 96))
    return network


def _ports(text: str | None) -> tuple[int, int]:
    if text is None or text == "*":
        return 0, _LAST_PORT
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first, first]
    if not all(number.isascii() and number.isdigit() and 1 <= int(number) <= _LAST_PORT for number in numbers):
        raise ValueError(f"{text!r} is no port: 1 to {_LAST_PORT}, two of them with - between, or *")
    low, high = int(numbers[0]), int(numbers[1])
    if low > high:
        raise ValueError(f"the ports {text} begin after they end")
    return low, high
