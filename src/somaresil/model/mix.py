"""Places of users and requests, spread evenly and cheaply: a user's is always the same, and that in one canary says nothing of another.

A checksum alone would not do: CRC is linear, so with another salt the places of two canaries would differ by a constant, and their users
would be the same or never the same. It is multiplied by an odd number of 64 bits that belongs to the salt, and the high half counts
(multiplicative hashing: Dietzfelbinger, Hagerup, Katajainen and Penttonen, "A reliable randomized algorithm for the closest-pair problem",
Journal of Algorithms 25, 1997).
"""

from __future__ import annotations

from hashlib import blake2b
from itertools import count
from struct import Struct
from typing import Final
from zlib import crc32

__all__ = ["WHOLE", "Draws", "Mixer"]

WHOLE: Final = 2**32
"""Places are whole numbers from 0 to below this."""
_LOW: Final = 2**64 - 1
_BLOCK: Final = Struct("<16I")
"""So many places come out of one digest of 64 bytes."""


class Mixer:
    """Gives keys their places."""

    __slots__ = ("_add", "_factor")

    def __init__(self, salt: str) -> None:
        """Two salts have nothing to do with each other."""
        digest = blake2b(salt.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        self._factor = int.from_bytes(digest[:8], "big") | 1
        self._add = int.from_bytes(digest[8:], "big")

    def __call__(self, key: str) -> int:
        """The place of ``key``, the same in every process."""
        return ((crc32(key.encode("utf-8", "surrogatepass")) * self._factor + self._add) & _LOW) >> 32


class Draws:
    """Places by chance, one after the other: repeatable by their seed, and each handed out once, whoever asks.

    Numbers that are cheaper to come by hang together with the ones before them, and traffic may have a rhythm too.
    """

    __slots__ = ("_block", "_numbers", "_seed")

    def __init__(self, seed: str) -> None:
        """Begin with the first."""
        self._seed = seed.encode("utf-8", "surrogatepass")
        self._numbers = count()
        self._block = self._made(0)

    def __call__(self) -> int:
        """The next place."""
        number = next(self._numbers)
        block, places = self._block
        if number >> 4 != block:
            # Two threads may make the same one; it is the same then.
            block, places = self._block = self._made(number >> 4)
        return places[number & 15]

    def _made(self, block: int) -> tuple[int, tuple[int, ...]]:
        return block, _BLOCK.unpack(blake2b(self._seed + block.to_bytes(8, "little")).digest())
