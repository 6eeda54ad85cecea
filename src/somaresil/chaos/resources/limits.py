"""How much of a resource may be taken: pure arithmetic, no look at the machine.

Each bound says how much it leaves and why, and the lowest one decides. A reserve is always kept, so that what is taken away from the
service does not take the service away: without one the kernel ends the experiment, and the process with it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "MIB",
    "Bound",
    "DescriptorPlan",
    "chosen",
    "core_bounds",
    "descriptor_bounds",
    "descriptor_plan",
    "disk_bounds",
    "disk_reserve",
    "lowest",
    "memory_bounds",
    "memory_reserve",
]

MIB: Final = 1 << 20
DESCRIPTORS_KEPT: Final = 8
"""Descriptors that stay free: for the kill switch to be read from a file, and for somebody to ask how it goes."""
_IN_CODE: Final = "ceilings are set in code: opt_in(ChaosCeilings(...))"


class Bound(NamedTuple):
    """The most that may be taken, and who says so."""

    most: float
    why: str
    hint: str = ""


class DescriptorPlan(NamedTuple):
    """How descriptors are taken: the soft limit to set, and how many free numbers below it to fill."""

    soft: int
    copies: int


def lowest(bounds: Iterable[Bound]) -> Bound:
    """The bound that decides; of equal ones the first."""
    return min(bounds, key=lambda bound: bound.most, default=Bound(math.inf, "nothing"))


def chosen(amount: float | None, usual: float, bounds: Iterable[Bound]) -> tuple[float, Bound | None]:
    """How much to take, and the bound that forbids it, if one does.

    Whoever names an amount gets that or a refusal. Who names none gets the ``usual`` one, or as much of it as may be taken; a refusal only
    when that is nothing.
    """
    tightest = lowest(bounds)
    if amount is None:
        return min(usual, tightest.most), None if tightest.most > 0 else tightest
    return amount, tightest if amount > tightest.most else None


def ceiling(most: float, held: float, what: str = "the ceiling") -> Bound:
    """A ceiling of the code, less what other experiments hold."""
    return Bound(most - held, what if not held else f"{what} less the {held:.15g} that other experiments hold", _IN_CODE)


def memory_reserve(total: float) -> float:
    """Bytes that stay free of ``total``: a twentieth, and no less than 64 MiB."""
    return max(64 * MIB, total / 20)


def disk_reserve(total: float) -> float:
    """Bytes that stay free on a file system of ``total``: a twentieth, and no less than 256 MiB."""
    return max(256 * MIB, total / 20)


def memory_bounds(
    most: float,
    held: float,
    *,
    available: float,
    total: float,
    groups: Sequence[tuple[float, float]] = (),
    address_space: tuple[float, float] | None = None,
) -> list[Bound]:
    """What memory may be taken, in bytes.

    ``available`` of ``total`` is what the kernel says it could give without swapping; ``groups`` are the limits of the control groups
    that the process is in and what is used of each; ``address_space`` is the limit of the process itself (``RLIMIT_AS``) and its use.
    """
    bounds = [ceiling(most, held), Bound(available - memory_reserve(total), "what the machine has left after a reserve")]
    bounds.extend(
        Bound(limit - used - memory_reserve(limit), "what the control group has left after a reserve", f"its limit is {limit:.0f} bytes")
        for limit, used in groups
    )
    if address_space is not None:
        limit, used = address_space
        bounds.append(Bound(limit - used - memory_reserve(0.0), "what the address space (RLIMIT_AS) has left after a reserve"))
    return bounds


def disk_bounds(most: float, held: float, *, free: float, total: float, largest_file: float | None = None) -> list[Bound]:
    """What space may be taken, in bytes; ``largest_file`` is the limit of the process (``RLIMIT_FSIZE``)."""
    bounds = [ceiling(most, held), Bound(free - disk_reserve(total), "what the file system has left after a reserve")]
    if largest_file is not None:
        bounds.append(Bound(largest_file, "the largest file that the process may write (RLIMIT_FSIZE)"))
    return bounds


def core_bounds(most: float, held: float, *, cores: float) -> list[Bound]:
    """How many cores may be kept busy; a tenth of those that the process may use stays free."""
    return [ceiling(most, held), Bound(cores * 0.9, f"nine tenths of the {cores:g} cores that the process may use")]


def descriptor_bounds(most: float | None, *, soft: int, used: int) -> list[Bound]:
    """How many descriptors may be taken."""
    left = Bound(soft - used - DESCRIPTORS_KEPT, f"what is free less {DESCRIPTORS_KEPT} in reserve", f"{used} of {soft} are in use")
    return [left] if most is None else [ceiling(most, 0), left]


def descriptor_plan(soft: int, top: int, take: int) -> DescriptorPlan:
    """Take so many descriptors when the highest one in use is ``top``.

    Numbers above the highest are taken by lowering the limit, which costs nothing; only those below it have to be filled.
    """
    lowered = min(take, max(0, soft - top - 1))
    return DescriptorPlan(soft - lowered, take - lowered)
