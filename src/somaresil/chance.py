"""Keyed chance: random decisions that do not depend on the order in which calls happen to run.

A shared seeded generator is not repeatable under concurrency: which call draws first decides what each of them gets. Here a
draw is a pure function of *what* is decided: seed, rule, key and a running number. Two runs with the same seed make the same
decisions for the same calls, under any interleaving of tasks and threads, on any machine and any Python version. That is what lets
a chaos experiment be run again.

The draw is keyed BLAKE2b (RFC 7693; Aumasson, Neves, Wilcox-O'Hearn, Winnerlein: "BLAKE2: simpler, smaller, fast as MD5",
2013), of which the top 53 bits become a float. It is a decision, not a secret: nothing here is meant for cryptography.

The whole decision "does it happen?" is ``draw < rate``, and it stands in one place: ``Chance.hit``. With rate 0 it never happens, with
rate 1 always, because a draw is never 1.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from itertools import count
from typing import Final

from somaresil.errors import ConfigurationError, Problem

__all__ = ["Chance", "ChanceSequence", "draw"]

_HEADER: Final = struct.Struct(">QQ")
_UNIT: Final = 2.0**-53


def draw(seed: bytes, rule: str, key: str, n: int) -> float:
    """A number in [0, 1) that depends only on the four arguments.

    ``seed`` has at most 64 bytes (what BLAKE2b takes as a key); ``n`` lies in [0, 2**64). The length of ``rule`` goes into the hash before
    its text, so ``("a|b", "c")`` and ``("a", "b|c")`` are different draws. Any text will do, lone surrogates of undecodable headers too.
    """
    rule_bytes = rule.encode("utf-8", "surrogatepass")
    message = _HEADER.pack(n, len(rule_bytes)) + rule_bytes + key.encode("utf-8", "surrogatepass")
    digest = blake2b(message, digest_size=8, key=seed).digest()
    # 53 bits are what a float holds exactly. All 64 divided by 2**64 would now and then round to 1.0, and rate 1 would miss.
    return (int.from_bytes(digest, "big") >> 11) * _UNIT


class Chance:
    """A source of keyed draws with one seed.

    ``seed`` may be a whole number, text or bytes; without one the operating system chooses. ``Chance(7)`` and ``Chance("7")`` are the
    same, so that a seed may come from an environment variable. The attribute ``seed`` is the seed as text (hexadecimal for bytes and for
    one chosen by the operating system), and ``Chance(chance.seed)`` replays every draw.
    """

    __slots__ = ("_given", "_key", "seed")

    def __init__(self, seed: int | str | bytes | None = None) -> None:
        self._given = seed is not None
        self._sow(_seed_text(seed))

    def renew(self) -> None:
        """Take another seed when the operating system chose this one: a forked child must not draw what its siblings draw."""
        if not self._given:
            self._sow(_seed_text(None))

    def _sow(self, seed: str) -> None:
        self.seed = seed
        # Hashed once, so that a seed of any length fits and similar seeds have nothing in common.
        self._key = blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=32, person=b"somaresil.seed").digest()

    def __repr__(self) -> str:
        return f"Chance(seed={self.seed!r})"

    def draw(self, rule: str, key: str, n: int) -> float:
        """The n-th draw in [0, 1) of ``rule`` for ``key``."""
        return draw(self._key, rule, key, n)

    def hit(self, rate: float, rule: str, key: str, n: int) -> bool:
        """Whether something with this rate happens at the n-th draw. A higher rate hits everything a lower one does, and more."""
        return self.draw(rule, key, n) < rate

    def sequence(self, rule: str, key: str = "") -> ChanceSequence:
        """The draws of ``rule`` for ``key``, one after the other, starting at n = 0."""
        return ChanceSequence(self, rule, key)


class ChanceSequence:
    """Successive draws of one rule. Threads may share it: each number is handed out once, also without the GIL.

    Which thread gets which number is up to their timing; the set of draws is not.
    """

    __slots__ = ("_chance", "_key", "_numbers", "_rule")

    def __init__(self, chance: Chance, rule: str, key: str) -> None:
        self._chance = chance
        self._rule = rule
        self._key = key
        self._numbers = count()  # one step is atomic: in C under the GIL, by compare-and-exchange without it

    def next(self) -> float:
        """The next draw in [0, 1)."""
        return self._chance.draw(self._rule, self._key, next(self._numbers))

    def hit(self, rate: float) -> bool:
        """Whether something with this rate happens at the next draw."""
        return self._chance.hit(rate, self._rule, self._key, next(self._numbers))


def _seed_text(seed: object) -> str:
    if seed is None:
        return os.urandom(16).hex()
    if isinstance(seed, bytes):
        return seed.hex()
    if isinstance(seed, bool) or not isinstance(seed, (int, str)):
        raise ConfigurationError([Problem("seed", seed, "a whole number, text, bytes or None")])
    return str(seed)
