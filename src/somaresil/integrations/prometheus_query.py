"""Prometheus as a judge of experiments: a stop condition that asks it a question.

    ChaosConfig(..., stop_when=(PrometheusQuery("http://prometheus:9090", "sum(rate(errors_total[1m]))", above=5.0),))

It is asked in a thread of the engine, never in a call, with a timeout and a cap on the size of its answer; redirects are not followed, and
proxies of the environment are not used. No answer, an error, no series or NaN are *unknown*, which stops the experiment when it lasts.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from somaresil.config import Checker
from somaresil.integrations._prometheus_api import LONGEST_QUERY, ask_server, check_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from somaresil.chaos.conditions import Answer, World

__all__ = ["PrometheusQuery", "ask"]


def ask(url: str, query: str, timeout: float = 2.0) -> list[tuple[float, float]]:
    """The values of an instant query, each with its time in seconds since the epoch; of a scalar one.

    Raises ``OSError`` when there is no answer in time, and ``ValueError`` when it is none that can be read or too large.
    """
    return [(sample.at, sample.value) for sample in ask_server(url, query, timeout).samples]


@dataclass(frozen=True, slots=True)
class PrometheusQuery:
    """Stop when any series of ``query`` is ``above`` or ``below`` a number.

    Give one of the two. ``name`` is what the end of the experiment is called by, so put no query into it. ``timeout`` is for an
    answer as a whole, from 0.1 to 30 seconds. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    url: str
    query: str
    _: KW_ONLY
    above: float | None = None
    below: float | None = None
    name: str = "prometheus"
    timeout: float = 2.0
    interval: float | timedelta = 5.0
    max_age: float | timedelta = 30.0

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("PrometheusQuery")
        keep = object.__setattr__
        check_url(check, self.url)
        if not isinstance(self.query, str) or not 0 < len(self.query) <= LONGEST_QUERY:
            check.problem("query", self.query, f"a PromQL expression of 1 to {LONGEST_QUERY} characters")
        if (self.above is None) == (self.below is None):
            check.problem("above", self.above, "a number, when below is None", "one of the two, and not both")
        for side in ("above", "below"):
            limit = getattr(self, side)
            if limit is not None:
                keep(self, side, check.number(side, limit, minimum=-1e308))
        check.name("name", self.name)
        keep(self, "timeout", check.seconds("timeout", self.timeout, minimum=0.1, exclusive=False, maximum=30.0))
        interval = check.seconds("interval", self.interval, minimum=0.5, exclusive=False, maximum=3_600.0)
        keep(self, "interval", interval)
        keep(self, "max_age", check.seconds("max_age", self.max_age, minimum=interval, maximum=86_400.0))
        check.finish()

    @property
    def slow(self) -> bool:
        """It waits for a server, so no call asks it."""
        return True

    def check(self, check: Checker, world: World) -> None:
        """Nothing: whether Prometheus is there is asked when it runs."""

    def watch(self, world: World) -> Callable[[], Answer]:
        """What to ask. Values older than ``max_age`` by the wall clock are unknown."""

        def answer() -> Answer:
            try:
                values = ask(self.url, self.query, self.timeout)
            except (OSError, ValueError):
                return None
            oldest = world.clock.time() - float(self.max_age)  # type: ignore[arg-type]
            known = [value for at, value in values if not math.isnan(value) and at >= oldest]
            if not known or len(known) < len(values):
                return None
            if self.above is not None and max(known) > self.above:
                return f"{max(known):g}, above {self.above:g}"
            if self.below is not None and min(known) < self.below:
                return f"{min(known):g}, below {self.below:g}"
            return False

        return answer
