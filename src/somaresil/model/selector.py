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
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["can_meet", "chosen", "is_chosen", "is_in_share", "matches", "weight"]

_WEIGHTS: Final = float(1 << 64)


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


def is_in_share(key: str, member: str, share: float, members: Iterable[str] = ()) -> bool:
    """Whether ``member`` belongs to the ``share`` of the group that is chosen.

    Of ``members``, when they are known, that many are chosen, rounded down and at least one. Otherwise by its weight alone: who comes or
    goes changes nothing for the others, and a member of a smaller share is one of every larger one.
    """
    known = frozenset(members)
    if not known:
        return weight(key, member) < share * _WEIGHTS
    # A thousand-millionth, so that 0.29 of a hundred is 29.
    return is_chosen(key, member, known, max(1, int(share * len(known) + 1e-9)))


def matches(pattern: str, name: str) -> bool:
    """Whether a component name fits a shell-style pattern; case counts, and the whole name must fit.

    ``*`` stands for any text (dots and slashes too, so ``llm.*`` covers ``llm.invoke.fast``), ``?`` for one character, ``[ab]`` for one of
    those listed, ``[!ab]`` for any other one.
    """
    return fnmatchcase(name, pattern)


def can_meet(one: str, other: str) -> bool:
    """Whether there is a name that fits both patterns. ``llm.*`` and ``*.invoke`` can meet, ``llm.*`` and ``db.*`` cannot."""
    left, right = _tokens(one), _tokens(other)
    # Which pairs of places can be reached after some characters: at most 120 x 120 for the longest patterns that are allowed.
    seen, waiting = {(0, 0)}, [(0, 0)]
    while waiting:
        i, j = waiting.pop()
        if i == len(left) and j == len(right):
            return True
        here, there = left[i] if i < len(left) else None, right[j] if j < len(right) else None
        steps = []
        if here is _ANY or there is _ANY:
            # Any text is over, or has the place of the other one in it.
            if here is not None:
                steps.append((i + 1, j))
            if there is not None:
                steps.append((i, j + 1))
        elif here and there and _share(here, there):
            steps.append((i + 1, j + 1))
        for step in steps:
            if step not in seen:
                seen.add(step)
                waiting.append(step)
    return False


_Token = tuple[bool, frozenset[str]]
"""Which characters fit one place: whether all *but* these, and these."""
_ANY: _Token = (True, frozenset("*"))
"""Any text; known by its identity."""


def _share(one: _Token, other: _Token) -> bool:
    if one[0] and other[0]:
        # Both leave out some; there are more characters than a pattern can leave out.
        return True
    if one[0] or other[0]:
        outside, inside = (one[1], other[1]) if one[0] else (other[1], one[1])
        return bool(inside - outside)
    return bool(one[1] & other[1])


def _tokens(pattern: str) -> list[_Token]:
    """The pattern place by place, read as ``fnmatch`` does: a bracket that is not closed is a bracket."""
    found: list[_Token] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            found.append(_ANY)
        elif character == "?":
            found.append((True, frozenset()))
        elif character == "[" and (end := _bracket_end(pattern, at)) != -1:
            inside = pattern[at:end]
            at = end + 1
            but = inside.startswith("!")
            found.append((but, _listed(inside[but:])))
        else:
            found.append((False, frozenset(character)))
    return found


def _bracket_end(pattern: str, at: int) -> int:
    start = at + (pattern[at : at + 1] == "!")
    # A bracket that is closed at once has the closing one in it.
    return pattern.find("]", start + 1)


def _listed(inside: str) -> frozenset[str]:
    found: set[str] = set()
    at = 0
    while at < len(inside):
        if inside[at + 1 : at + 2] == "-" and at + 2 < len(inside):
            found.update(chr(code) for code in range(ord(inside[at]), min(ord(inside[at + 2]), ord(inside[at]) + 0x100) + 1))
            at += 3
        else:
            found.add(inside[at])
            at += 1
    return frozenset(found)
