"""The Universal Scalability Law: what more load brings, until it brings less.

    X(N) = rate N / (1 + contention (N - 1) + coherency N (N - 1))

``X`` is the throughput at concurrency ``N``; ``contention`` is the share of the work that waits in line, ``coherency`` what the workers
cost one another (N. J. Gunther, "Guerrilla Capacity Planning", 2007, chapter 4). The three are found by least squares of ``N / X``, which
is linear in them; none is negative.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Scalability", "fit"]

_PARTS = 3


@dataclass(frozen=True, slots=True)
class Scalability:
    """A fitted law."""

    rate: float
    """Throughput of one alone."""
    contention: float
    coherency: float
    explained: float
    """Share of the variance of the throughput that the law explains (R squared, at most 1)."""

    def throughput(self, concurrency: float) -> float:
        """What the law says for this concurrency."""
        n = concurrency
        return self.rate * n / (1.0 + self.contention * (n - 1.0) + self.coherency * n * (n - 1.0))

    @property
    def best_concurrency(self) -> float | None:
        """Where throughput is highest; None: more load always brings more, or as much."""
        if self.coherency <= 0.0 or self.contention >= 1.0:
            return None
        return max(1.0, math.sqrt((1.0 - self.contention) / self.coherency))

    @property
    def limit(self) -> float | None:
        """The highest throughput there is; None: none can be seen in the figures."""
        if (best := self.best_concurrency) is not None:
            return self.throughput(best)
        return self.rate / self.contention if self.contention > 0.0 else None


def fit(points: Sequence[tuple[float, float]]) -> Scalability | None:
    """The law that fits pairs of (concurrency, throughput) best; None with fewer than three different concurrencies.

    Pairs that are not positive and finite are left out.
    """
    usable = [(n, x) for n, x in points if 0.0 < n < math.inf and 0.0 < x < math.inf]
    if len({n for n, _ in usable}) < _PARTS:
        return None
    # N / X = a + b (N - 1) + c N (N - 1), each weighted by its X / N: so relative errors count alike, at light load and at heavy.
    rows = [(x / n, x / n * (n - 1.0), x / n * n * (n - 1.0)) for n, x in usable]
    best: tuple[float, tuple[float, float, float]] | None = None
    # The least squares with no negative part is that of the best choice of parts that are free (there are only a few of them).
    for size in range(1, _PARTS + 1):
        for chosen in combinations(range(_PARTS), size):
            solved = _least_squares([[row[part] for part in chosen] for row in rows])
            if solved is None or any(value < 0.0 for value in solved) or 0 not in chosen or solved[0] <= 0.0:
                continue
            parts = [0.0, 0.0, 0.0]
            for part, value in zip(chosen, solved, strict=True):
                parts[part] = value
            wrong = math.fsum((1.0 - sum(part * cell for part, cell in zip(parts, row, strict=True))) ** 2 for row in rows)
            if best is None or wrong < best[0]:
                best = (wrong, (parts[0], parts[1], parts[2]))
    if best is None:
        return None
    a, b, c = best[1]
    found = Scalability(1.0 / a, b / a, c / a, 1.0)
    mean = math.fsum(x for _, x in usable) / len(usable)
    spread = math.fsum((x - mean) ** 2 for _, x in usable)
    missed = math.fsum((x - found.throughput(n)) ** 2 for n, x in usable)
    return Scalability(found.rate, found.contention, found.coherency, 1.0 - missed / spread if spread > 0.0 else 1.0)


def _least_squares(rows: list[list[float]]) -> list[float] | None:
    """The factors with which the columns come nearest to 1 in every row; None when columns depend on one another."""
    size = len(rows[0])
    table = [[math.fsum(row[i] * row[j] for row in rows) for j in range(size)] + [math.fsum(row[i] for row in rows)] for i in range(size)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda line: abs(table[line][column]))
        # What rounding leaves of zero.
        if abs(table[pivot][column]) < 1e-12 * max(1.0, abs(table[0][0])):
            return None
        table[column], table[pivot] = table[pivot], table[column]
        for line in range(size):
            if line != column:
                factor = table[line][column] / table[column][column]
                table[line] = [mine - factor * other for mine, other in zip(table[line], table[column], strict=True)]
    return [table[line][size] / table[line][line] for line in range(size)]
