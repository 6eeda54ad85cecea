"""Which names have which addresses, as far as this process has asked. A connection knows its address alone, and targets may be names.

Several names may share an address; a target that names one of them then strikes all of them, where only the address is seen.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from somaresil.chaos.network.board import LOCK
from somaresil.chaos.network.targets import address_of, plain_host

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.chaos.network.targets import Address

__all__ = ["NAMES", "NameMap"]

MOST_ADDRESSES: Final = 4_096
MOST_NAMES: Final = 16
"""Names that are kept for one address; the oldest is forgotten first."""


class NameMap:
    """Names by address, the least recently learnt forgotten first."""

    def __init__(self) -> None:
        """Nothing known."""
        self._by_address: OrderedDict[Address, tuple[str, ...]] = OrderedDict()
        self.news = 0
        """Grows whenever an address gets a name that it did not have."""

    def learn(self, name: str, addresses: Iterable[str]) -> None:
        """Note that ``name`` has these addresses."""
        plain = plain_host(name)
        with LOCK:
            for text in addresses:
                address = address_of(text)
                if address is None:
                    continue
                before = self._by_address.pop(address, ())
                self.news += plain not in before
                others = [known for known in before if known != plain]
                self._by_address[address] = (*others[-(MOST_NAMES - 1) :], plain)
                if len(self._by_address) > MOST_ADDRESSES:
                    self._by_address.popitem(last=False)

    def of(self, address: Address) -> tuple[str, ...]:
        """The names of an address."""
        return self._by_address.get(address, ())

    def addresses(self, name: str) -> list[Address]:
        """The addresses of a name."""
        plain = plain_host(name)
        with LOCK:
            return [address for address, names in self._by_address.items() if plain in names]

    def forget(self) -> None:
        """Forget everything."""
        with LOCK:
            self._by_address.clear()

    def __len__(self) -> int:
        """How many addresses have names."""
        return len(self._by_address)


NAMES: Final = NameMap()
"""What this process knows."""
