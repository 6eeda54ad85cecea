"""Where the events of an objective are in Prometheus: in our counter, in a histogram of another library, or in queries of one's own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Final, TypeAlias

from somaresil.slo.rules.text import duration, number, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.config import Checker
    from somaresil.slo.objective import SLO

__all__ = [
    "EVENTS",
    "EXAMPLE",
    "GROUP_EVENTS",
    "LONGEST_QUERY",
    "Events",
    "GroupEvents",
    "Histogram",
    "Queries",
    "Source",
    "source_of",
    "uncommented",
]

EVENTS: Final = "somaresil_sli_events_total"
GROUP_EVENTS: Final = "somaresil_sli_group_events_total"
_WINDOW: Final = re.compile(r"\{\{\s*\.window\s*\}\}")
_METRIC: Final = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LOOK: Final = 300.0
LONGEST_QUERY: Final = 2_000
"""Characters of a query of one's own."""
_TOKEN: Final = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)|(?P<comment>\#[^\n]*)|(?P<broken>["'`])|(?P<mark>[()\[\]{}])"""
)
_CLOSES: Final = {")": "(", "]": "[", "}": "{"}


def uncommented(query: str) -> str | None:
    """A query without comments, so that it can stand within another; None when its brackets or quotes are not closed."""
    open_: list[str] = []
    for token in _TOKEN.finditer(query):
        mark = token["mark"]
        if token["broken"] is not None:
            return None
        if mark is None:
            continue
        if mark not in _CLOSES:
            open_.append(mark)
        elif not open_ or open_.pop() != _CLOSES[mark]:
            return None
    return None if open_ else _TOKEN.sub(lambda token: "" if token["comment"] is not None else token[0], query).strip()


@dataclass(frozen=True, slots=True)
class Events:
    """The counter that :mod:`somaresil.integrations.prometheus` exports."""

    slo: str
    labels: Mapping[str, str]

    def _series(self, **more: str) -> str:
        given = {"slo": self.slo, **more, **self.labels}
        return f"{EVENTS}{{{','.join(f'{name}={quoted(value)}' for name, value in given.items())}}}"

    def bad(self, window: float) -> str:
        """How many bad events there were in the window, over all replicas."""
        return f"sum(increase({self._series(outcome='bad')}[{duration(window)}]))"

    def total(self, window: float) -> str:
        """How many events there were."""
        return f"sum(increase({self._series()}[{duration(window)}]))"

    @property
    def absent(self) -> str:
        """True while nobody exports it."""
        return f"absent(sum({self._series()}))"

    @property
    def series(self) -> tuple[str, str] | None:
        """The counters of good and of bad events, for promtool to feed in; None: nobody knows them."""
        return self._series(outcome="good"), self._series(outcome="bad")

    def check(self, check: Checker, slo: SLO) -> None:
        """Note what it cannot count: our counter has events, and neither slices of time nor parts."""
        if slo.parts:
            check.problem("parts", dict(slo.parts), "none in rules", "a composite is known to the process alone; compile its parts")
        if slo.time_slice_window is not None:
            check.problem("budgeting", slo.budgeting, "'occurrences' in rules", "slices of time are known to the process alone")


@dataclass(frozen=True, slots=True)
class GroupEvents:
    """The counter of the groups of an objective, each by itself over all replicas; those without a budget of their own are ``_other``."""

    slo: str
    labels: Mapping[str, str]

    def _series(self, **more: str) -> str:
        given = {"slo": self.slo, **more, **self.labels}
        return f"{GROUP_EVENTS}{{{','.join(f'{name}={quoted(value)}' for name, value in given.items())}}}"

    def bad(self, window: float) -> str:
        """How many bad events each group had in the window; none, as long as it has others, is none and not unknown."""
        return f"sum by (group) (increase({self._series(outcome='bad')}[{duration(window)}])) or 0 * {self.total(window)}"

    def total(self, window: float) -> str:
        """How many events each had."""
        return f"sum by (group) (increase({self._series()}[{duration(window)}]))"

    @property
    def absent(self) -> str:
        """True while no group is there, which is as it should be until somebody comes."""
        return f"absent(sum({self._series()}))"

    @property
    def series(self) -> tuple[str, str] | None:
        """The counters of one group."""
        return self._series(outcome="good", group=EXAMPLE), self._series(outcome="bad", group=EXAMPLE)

    def check(self, check: Checker, slo: SLO) -> None:
        """Nothing that the counter of the whole objective would not note."""


EXAMPLE: Final = "a"
"""The group that tests feed in."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of durations in seconds; what took longer than the ``latency`` of the objective is bad.

    ``buckets`` are the bounds that it is known to have: without one exactly at the threshold the rule would be silently empty, so that
    is refused.
    """

    metric: str
    buckets: tuple[float, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    latency: float = 0.0

    def _bucket(self, *matchers: str) -> str:
        given = [*(f"{name}={quoted(value)}" for name, value in self.labels.items()), *matchers]
        return f"{self.metric}_bucket{{{','.join(given)}}}"

    def _within(self) -> str:
        # 2 in the text format of Go's library, 2.0 in that of Python's and from Prometheus 3 on.
        text = number(Decimal(str(self.latency)))
        if "." in text:
            return f"le={quoted(text)}"
        return "le=~" + quoted(text + r"(\.0)?")

    @property
    def within(self) -> str:
        """The counter of those that took no longer."""
        return self._bucket(self._within())

    @property
    def everything(self) -> str:
        """The counter of all."""
        return self._bucket('le="+Inf"')

    def bad(self, window: float) -> str:
        """Those that took longer."""
        return f"{self.total(window)} - sum(increase({self.within}[{duration(window)}]))"

    def total(self, window: float) -> str:
        """All of them."""
        return f"sum(increase({self.everything}[{duration(window)}]))"

    @property
    def absent(self) -> str:
        """True while nobody exports it."""
        return f"absent(sum({self.within}))"

    @property
    def series(self) -> tuple[str, str] | None:
        """None: its buckets overlap."""
        return None

    def check(self, check: Checker, slo: SLO) -> None:
        """Note a metric that is none and a threshold that is no bound."""
        if not isinstance(self.metric, str) or not _METRIC.fullmatch(self.metric):
            check.problem("source.metric", self.metric, "the name of a metric, without _bucket")
        for name in self.labels:
            if not _LABEL.fullmatch(name) or name == "le":
                check.problem("source.labels", name, "a label name other than le")
        if slo.indicator != "latency":
            check.problem("source", self.metric, "a histogram for an objective with latency alone")
        elif slo.latency not in self.buckets:
            near = ", ".join(f"{bound:g}" for bound in self.buckets) or "none"
            check.problem("latency", slo.latency, f"a bucket of {self.metric} ({near})", "without it the rule would be silently empty")


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of one's own for bad or good events and for all, with ``{{.window}}`` where the window goes, as Sloth has them.

    With ``rates`` False they give counts and not rates. What is asked for by ``rate`` is multiplied by the window. Series are added up.
    """

    bad_query: str = ""
    total_query: str = ""
    rates: bool = True
    good_query: str = ""
    """In place of ``bad_query``: what is not good is bad."""

    def bad(self, window: float) -> str:
        """No bad events while there are others are none, and not unknown; no good ones are none as well."""
        total = self.total(window)
        if self.good_query:
            return f"{total} - ({self._at(self.good_query, window)} or 0 * {total})"
        return f"{self._at(self.bad_query, window)} or 0 * {total}"

    def total(self, window: float) -> str:
        """All of them."""
        return self._at(self.total_query, window)

    def _at(self, query: str, window: float) -> str:
        text = f"sum({_WINDOW.sub(duration(window), uncommented(query) or query)})"
        return f"({text} * {number(Decimal(str(window)))})" if self.rates else text

    @property
    def absent(self) -> str:
        """True while there is no answer."""
        return f"absent({self._at(self.total_query, _LOOK)})"

    @property
    def series(self) -> tuple[str, str] | None:
        """None: nobody knows which."""
        return None

    def check(self, check: Checker, slo: SLO) -> None:
        """Note queries without the place for a window, and what is no query at all."""
        if bool(self.bad_query) is bool(self.good_query):
            check.problem("source.bad_query", self.bad_query, "a query for bad events, or good_query for good ones, and not both")
        for name in ("total_query", "bad_query", "good_query"):
            query = getattr(self, name)
            if name != "total_query" and not query:
                continue
            if not isinstance(query, str) or not _WINDOW.search(query):
                check.problem(f"source.{name}", query, "PromQL with {{.window}} where the window goes")
            elif len(query) > LONGEST_QUERY:
                check.problem(f"source.{name}", f"{len(query)} characters", f"at most {LONGEST_QUERY}")
            elif uncommented(query) is None or "{{" in _WINDOW.sub("", query):
                check.problem(
                    f"source.{name}", query, "PromQL whose brackets and quotes are closed, without other templates than {{.window}}"
                )
        if not isinstance(self.rates, bool):
            check.problem("source.rates", self.rates, "True or False")
        if slo.parts or slo.time_slice_window is not None:
            check.problem("source", "queries", "an objective of events", "slices of time and composites are known to the process alone")


Source: TypeAlias = Events | GroupEvents | Histogram | Queries
"""Any of them."""


def source_of(slo: SLO, given: Source | None, labels: Mapping[str, str]) -> Source:
    """Where ``slo`` is counted; None: in our counter."""
    if given is None:
        return Events(slo.name, labels)
    if isinstance(given, Histogram):
        return Histogram(given.metric, tuple(given.buckets), {**given.labels, **labels}, float(slo.latency or 0.0))  # type: ignore[arg-type]
    return given
