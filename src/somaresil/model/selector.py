"""Selection without coordination: which members of a group are meant, and which components a pattern names.

Every instance that knows the member list answers alike, with no leader, no shared state and no message. The method is rendezvous
hashing, also called highest random weight: each member gets a hash of key and member, and the members with the highest win (Thaler and
Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM Transactions on Networking 6(1), 1998). When a member comes or
goes, a choice changes only if it concerns that very member; others keep their place. That is what a blast radius needs: scaling out in the
middle of an experiment must not move it to another instance.

The hash is BLAKE2b, not ``hash()``, so processes, machines and Python versions agree.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from hashlib import blake2b
from heapq import nlargest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["chosen", "is_chosen", "matches", "weight"]


def weight(key: str, member: str) -> int:
    """The weight of ``member`` for ``key``, in [0, 2**64). The length of ``key`` is hashed first, so no two pairs of texts run together."""
    key_bytes = key.encode("utf-8", "surrogatepass")
    message = len(key_bytes).to_bytes(8, "big") + key_bytes + member.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(message, digest_size=8).digest(), "big")


def chosen(key: str, members: Iterable[str], count: int = 1) -> tuple[str, ...]:
    """The ``count`` members with the highest weight, heaviest first; all of them when there are fewer, none when ``count`` < 1.

    Order and repetition of ``members`` do not matter. The choice for a smaller count is the beginning of that for a larger one.
    """
    return tuple(nlargest(count, frozenset(members), key=lambda member: (weight(key, member), member)))


def is_chosen(key: str, member: str, members: Iterable[str], count: int = 1) -> bool:
    """Whether ``member`` is among the chosen. One that is not in ``members`` never is: who is unknown stays out of the blast radius."""
    return member in chosen(key, members, count)


def matches(pattern: str, name: str) -> bool:
    """Whether a component name fits a shell-style pattern; case counts, and the whole name must fit.

    ``*`` stands for any text (dots and slashes too, so ``llm.*`` covers ``llm.invoke.fast``), ``?`` for one character, ``[ab]`` for one of
    those listed, ``[!ab]`` for any other one.
    """
    return fnmatchcase(name, pattern)
