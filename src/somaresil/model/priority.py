"""Who goes first when there is not enough for all, and who is not let in at all. No clock, lock or chance of its own.

Three parts:

- :class:`Usage`: who has had how much lately. Every use counts half as much after a half-life; only so many tenants are told apart.
- :class:`Queue`: a waiting line that serves the highest class first, within a class the tenant that has had least, and among equals the one
  who came first.
- :class:`Shedding`: how much of the traffic has to be refused before it stands in line anywhere, and which classes that is. It is the
  criticality of the SRE book (Beyer et al., "Handling Overload", 2016), computed as in failsafe-go's ``Prioritizer``: the refused share of
  the traffic, laid on the classes from the lowest up.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OTHERS", "Load", "Queue", "Rank", "Shedding", "Standing", "Threshold", "Usage"]


class Rank(IntEnum):
    """How much a call matters. The order is all there is to it."""

    BACKGROUND = 0
    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def word(self) -> str:
        """As users write it."""
        return self.name.lower()


OTHERS: Final = "_other"
"""Who stands for the tenants that are not told apart."""

_LEAST: Final = 0.001
_SMALL: Final = 0.01
"""A tenant may be forgotten that has had less than the first in all, or less than the second as a share of whoever has had most."""


class Usage:
    """What each tenant has had lately: seconds inside, say. Calls without a tenant are one of them, under None."""

    __slots__ = ("_epoch", "_half_life", "_most", "_scaled", "_sweep")

    def __init__(self, most: int, half_life: float) -> None:
        """Tell at most ``most`` tenants apart (the rest share one account); forget half in ``half_life`` seconds."""
        self._most = most
        self._half_life = half_life
        # Kept as if it were the time of the epoch: what all accounts lose in the same measure need not be taken off each of them.
        self._scaled: dict[str | None, float] = {}
        self._epoch = 0.0
        self._sweep = 0.0

    @property
    def tenants(self) -> int:
        """How many are told apart at the moment."""
        return len(self._scaled) - (None in self._scaled) - (OTHERS in self._scaled)

    def account(self, tenant: str | None, now: float) -> str | None:
        """Under which name a tenant is kept: its own, or :data:`OTHERS` when there are too many."""
        if tenant is None or tenant in self._scaled:
            return tenant
        if self.tenants >= self._most:
            self._forget(now)
            if self.tenants >= self._most:
                return OTHERS
        self._scaled[tenant] = 0.0
        return tenant

    def charge(self, account: str | None, amount: float, now: float) -> None:
        """Add to what it has had; a negative amount is taken back, as far as there is something."""
        growth = self._growth(now)
        self._scaled[account] = max(0.0, self._scaled.get(account, 0.0) + amount * growth)

    def used(self, account: str | None, now: float) -> float:
        """What it has had lately."""
        growth = self._growth(now)
        return self._scaled.get(account, 0.0) / growth

    def rank(self, account: str | None) -> float:
        """Less for whoever has had less: the order of :meth:`used`, whatever time it is."""
        return self._scaled.get(account, 0.0)

    def tidy(self, now: float) -> None:
        """Forget whose use does not matter any more, from time to time."""
        if now >= self._sweep:
            self._forget(now)

    def _growth(self, now: float) -> float:
        halvings = (now - self._epoch) / self._half_life
        if halvings > 64.0 or not self._scaled:  # noqa: PLR2004 - far below the largest float, and 2**-64 is nothing
            shrink = 0.5 ** min(halvings, 1_000.0)
            for account in self._scaled:
                self._scaled[account] *= shrink
            self._epoch, halvings = now, 0.0
        return float(2.0 ** max(0.0, halvings))

    def _forget(self, now: float) -> None:
        """Drop small accounts. Never twice within an eighth of a half-life: it looks at all of them."""
        if now < self._sweep:
            return
        self._sweep = now + self._half_life / 8.0
        growth = self._growth(now)
        enough = max(_LEAST * growth, _SMALL * max(self._scaled.values(), default=0.0))
        self._scaled = {account: scaled for account, scaled in self._scaled.items() if scaled >= enough}


class Standing(Protocol):
    """Somebody who stands in line."""

    rank: int
    """How much it matters."""
    account: str | None
    """Whose it is, as :meth:`Usage.account` names them."""
    number: int
    """Set by the queue: the later, the higher."""


_S = TypeVar("_S", bound=Standing)


class Queue(Generic[_S]):
    """Those who wait, in the order in which they are to be served."""

    __slots__ = ("_length", "_numbers", "_ranks", "_usage")

    def __init__(self, usage: Usage) -> None:
        """Nobody waits."""
        self._usage = usage
        self._ranks: dict[int, dict[str | None, OrderedDict[int, _S]]] = {}
        self._length = 0
        self._numbers = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._length

    def add(self, one: _S) -> None:
        """Stand in line."""
        self._numbers += 1
        one.number = self._numbers
        self._ranks.setdefault(one.rank, {}).setdefault(one.account, OrderedDict())[one.number] = one
        self._length += 1

    def first(self) -> _S | None:
        """Take out whose turn it is."""
        if not self._ranks:
            return None
        accounts = self._ranks[max(self._ranks)]
        if len(accounts) == 1:
            ((_, line),) = accounts.items()
        else:
            line = min(accounts.items(), key=lambda entry: (self._usage.rank(entry[0]), next(iter(entry[1]))))[1]
        one = next(iter(line.values()))
        self.remove(one)
        return one

    def displaced(self, rank: int) -> _S | None:
        """Take out the newest of the lowest class, when somebody of ``rank`` matters more."""
        lowest = min(self._ranks, default=rank)
        if lowest >= rank:
            return None
        one = max((next(reversed(line.values())) for line in self._ranks[lowest].values()), key=lambda other: other.number)
        self.remove(one)
        return one

    def remove(self, one: _S) -> bool:
        """Whether it stood in line, and does no more."""
        accounts = self._ranks.get(one.rank, {})
        line = accounts.get(one.account)
        if line is None or line.pop(one.number, None) is None:
            return False
        self._length -= 1
        if not line:
            del accounts[one.account]
            if not accounts:
                del self._ranks[one.rank]
        return True


class Load(NamedTuple):
    """What one limiter went through since it was last asked."""

    arrived: int
    """Calls that came, without those that were shed."""
    refused: int
    """Those of them that found no place, lost it, or waited in vain."""
    waiting: int
    """How many wait now."""
    room: int
    """How many may wait."""
    ranks: tuple[int, ...]
    """The calls that came, by rank."""


class Threshold(NamedTuple):
    """Who is shed: every call below ``rank``, and this ``share`` of those of that rank."""

    rank: Rank
    share: float


_FEW: Final = 10
"""A limiter with fewer calls than this says little: one refused call of one is no overload."""
_UP: Final = 0.5
_DOWN: Final = 0.9
_NOTHING: Final = 0.01


class Shedding:
    """How much is shed. Up by half of what is missing; down by a tenth an interval, and only when every limiter has been calm for two."""

    __slots__ = ("_calm", "_ranks", "rate", "scale", "start", "stop")

    def __init__(self, start: float, stop: float) -> None:
        """A line that is fuller than ``start`` is overload; one that is emptier than ``stop`` is calm. Nothing is shed yet."""
        self.start = start
        self.stop = stop
        self.scale = 1.0
        """What both are multiplied by: with less of it shedding begins earlier and ends later."""
        self.rate = 0.0
        """The share of the traffic that is shed."""
        self._calm = 0
        self._ranks = [0.0] * len(Rank)

    def observe(self, loads: Iterable[Load], shed: Iterable[int], intervals: int = 1) -> None:
        """Take in what happened in the last ``intervals`` intervals; ``shed`` are the calls shed in them, by rank."""
        loads = tuple(loads)
        came = [sum(of_rank) for of_rank in zip(shed, *(load.ranks for load in loads), strict=True)]
        # A short memory of who calls: half of it is the last interval.
        self._ranks = [before / 2.0 + now for before, now in zip(self._ranks, came, strict=True)]
        overload = max(map(self._overload, loads), default=0.0)
        if overload > 0.0:
            self._calm = 0
            wanted = 1.0 - (1.0 - self.rate) * (1.0 - overload)
            self.rate += _UP * (wanted - self.rate)
        elif all(load.refused == 0 and load.waiting <= self.stop * self.scale * load.room for load in loads):
            self._calm += intervals
            if self._calm > 1:
                self.rate *= _DOWN**intervals
                if self.rate < _NOTHING:
                    self.rate = 0.0
        else:
            self._calm = 0

    def _overload(self, load: Load) -> float:
        refused = load.refused / max(_FEW, load.arrived)
        filled = load.waiting / load.room if load.room else 0.0
        start = self.start * self.scale
        return min(1.0, max(refused, (filled - start) / (1.0 - start)))

    @property
    def threshold(self) -> Threshold:
        """From which class on calls are let in. Critical ones always are."""
        left = self.rate * sum(self._ranks)
        for rank in (Rank.BACKGROUND, Rank.LOW, Rank.NORMAL, Rank.HIGH):
            of_rank = self._ranks[rank]
            if left < of_rank or left <= 0.0:
                return Threshold(rank, left / of_rank if left > 0.0 else 0.0)
            left -= of_rank
        return Threshold(Rank.CRITICAL, 0.0)
