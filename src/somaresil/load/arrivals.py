"""When requests begin: a timetable that depends on nothing but its definition and its seed.

A stage has a rate, or leads from one rate to another on a straight line. The expected number of arrivals up to a time is the area under
the rate. Constant arrivals begin where that number is whole; those of a Poisson process where it reaches the sum of exponential gaps
(E. Cinlar, "Introduction to Stochastic Processes", 1975, section 4.7: a Poisson process in another time). So both follow any stages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from somaresil.chance import Chance
from somaresil.config import Checker

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["ARRIVALS", "LONGEST", "MOST_RATE", "Stage", "arrivals", "expected", "rate_at"]

ARRIVALS: Final = ("poisson", "constant")
"""How arrivals are spaced: by chance, as those of many users who do not know one another, or evenly."""
MOST_RATE: Final = 100_000.0
"""Arrivals a second, at most."""
LONGEST: Final = 7 * 86_400.0
"""Seconds of a stage, at most."""


@dataclass(frozen=True, slots=True)
class Stage:
    """So many arrivals a second for so long.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    seconds: float
    rate: float
    """Arrivals a second, at its beginning."""
    to: float | None = None
    """Arrivals a second at its end, reached on a straight line; None: as at the beginning."""
    name: str = ""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        check.seconds("seconds", self.seconds, maximum=LONGEST)
        check.number("rate", self.rate, minimum=0.0, maximum=MOST_RATE)
        if self.to is not None:
            check.number("to", self.to, minimum=0.0, maximum=MOST_RATE)
        if self.name:
            check.name("name", self.name)
        check.finish()

    @property
    def end_rate(self) -> float:
        """Arrivals a second at its end."""
        return self.rate if self.to is None else self.to

    @property
    def area(self) -> float:
        """How many arrivals are expected in it."""
        return self.seconds * (self.rate + self.end_rate) / 2.0

    def when(self, area: float) -> float:
        """Seconds after its beginning at which so many arrivals are expected; ``0 <= area <= self.area``."""
        slope = (self.end_rate - self.rate) / self.seconds
        # The root of rate t + slope t^2 / 2 = area, in the form that loses no digits when the slope is small.
        root = math.sqrt(max(0.0, self.rate * self.rate + 2.0 * slope * area))
        below = self.rate + root
        return min(self.seconds, 2.0 * area / below) if below > 0.0 else self.seconds


def expected(stages: Iterable[Stage]) -> float:
    """How many arrivals are expected in all of these."""
    return math.fsum(stage.area for stage in stages)


def rate_at(stages: Sequence[Stage], at: float) -> float:
    """Arrivals a second at this time after the beginning; 0 when all is over."""
    for stage in stages:
        if at < stage.seconds:
            return stage.rate + (stage.end_rate - stage.rate) * at / stage.seconds
        at -= stage.seconds
    return 0.0


def arrivals(stages: Iterable[Stage], arrival: str = "poisson", *, seed: int | str = 0) -> Iterator[float]:
    """The times of all arrivals in seconds from the beginning, in rising order; the same for the same arguments.

    The first constant arrival comes half a gap after the beginning.
    """
    if arrival not in ARRIVALS:
        raise ValueError(f"arrivals are {' or '.join(ARRIVALS)}, not {arrival!r}")
    draws = Chance(seed).sequence("load.arrival")
    by_chance = arrival == "poisson"
    due = -math.log(1.0 - draws.next()) if by_chance else 0.5
    begun = before = 0.0
    for stage in stages:
        area = stage.area
        while due < before + area:
            yield begun + stage.when(due - before)
            # A draw is never 1, so there is always a logarithm.
            due += -math.log(1.0 - draws.next()) if by_chance else 1.0
        before += area
        begun += stage.seconds
