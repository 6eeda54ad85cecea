"""A run of load as metrics for Prometheus, while it lasts: what was offered, what came back, and whether the generator keeps up.

::

    metrics = LoadMetrics()
    with metrics.serve("127.0.0.1", 9102):
        report = await Session(scenario, watch=metrics.watching(scenario)).run()

``somaresil load run SCENARIO --metrics 127.0.0.1:9102`` is the same as a command. A slice of the run is read when it ends, about once a
second, so a scrape costs the generator nothing.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from prometheus_client.core import Metric

    from somaresil.load.books import Book
    from somaresil.load.generator import Point, Run
    from somaresil.load.measure import Measure
    from somaresil.load.scenario import Scenario

__all__ = ["LOAD_FAMILIES", "LoadMetrics", "address_of"]

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds, of every histogram here."""
_HIGHEST_PORT: Final = 65_535
_MOST_REQUESTS: Final = 50
_OTHER: Final = "_other"
_PARTS: Final = (("false", ("calm", "chaos")), ("true", ("injected",)))
_MEASURES: Final = {
    "latency": "somaresil_load_latency_seconds",
    "first": "somaresil_load_first_seconds",
    "gap": "somaresil_load_gap_seconds",
}

LOAD_FAMILIES: Final[Mapping[str, tuple[str, tuple[str, ...], str]]] = {
    "somaresil_load_offered": ("counter", ("scenario",), "Requests that were due, whatever became of them."),
    "somaresil_load_requests": (
        "counter",
        ("scenario", "request", "outcome", "injected"),
        "What became of requests: good, failed, dropped (never begun), abandoned (at the end); injected: struck by an experiment.",
    ),
    "somaresil_load_errors": ("counter", ("scenario", "kind"), "Requests that failed, by what went wrong."),
    "somaresil_load_streams": (
        "counter",
        ("scenario", "request", "ending"),
        "Streams that have begun and are over: complete or truncated.",
    ),
    "somaresil_load_latency_seconds": (
        "histogram",
        ("scenario", "request"),
        "From when a request was meant to begin to its end, of those that ended well.",
    ),
    "somaresil_load_first_seconds": ("histogram", ("scenario", "request"), "From when a request was meant to begin to its first item."),
    "somaresil_load_gap_seconds": ("histogram", ("scenario", "request"), "Between two items of a stream."),
    "somaresil_load_late_seconds": (
        "histogram",
        ("scenario",),
        "How much later than meant requests have begun: the generator's own doing.",
    ),
    "somaresil_load_in_flight": ("gauge", ("scenario",), "Requests that wait for an answer; with Locust the users."),
    "somaresil_load_generator_cpu_ratio": ("gauge", ("scenario",), "Share of one processor that the generator used in its last slice."),
    "somaresil_load_saturated": ("gauge", ("scenario",), "1 when the generator may have measured itself, else 0."),
}
"""Kind, labels and meaning of each metric, by its name without ``_total``."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """What is known of one scenario."""

    numbers: Mapping[str, Mapping[tuple[str, ...], float]]
    buckets: Mapping[str, Mapping[tuple[str, ...], Sequence[int]]]
    """Of histograms: how many were at most each bound, and all."""


def address_of(text: str) -> tuple[str, int] | None:
    """Host and port of ``HOST:PORT``; None: it is not written so."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > _HIGHEST_PORT:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


class LoadMetrics:
    """A collector for ``prometheus_client``. At most 50 requests of a scenario are told apart, further ones are ``_other``."""

    def __init__(self) -> None:
        """Nothing runs."""
        self._lock = threading.Lock()
        self._rows: dict[str, _Rows] = {}

    def watching(self, scenario: Scenario) -> Callable[[Point, Run], None]:
        """What to give to ``Session(..., watch=...)``: called as slices end."""
        names = [request.name for request in scenario.requests]
        # What is counted from nothing on is there from the start: Prometheus does not see the first step of a series that begins at 1.
        self._show(scenario.name, _first(scenario.name, names))

        def watch(point: Point, run: Run) -> None:
            self.tell(scenario.name, run, in_flight=point.in_flight, cpu=point.cpu, names=names)

        return watch

    def tell(self, scenario: str, run: Run, *, in_flight: int, cpu: float, names: Sequence[str] = ()) -> None:
        """Show from now on what is known of a run at this moment; ``names`` are those of requests to be told apart first."""
        self._show(scenario, _rows(scenario, names, run, in_flight, cpu))

    def _show(self, scenario: str, rows: _Rows) -> None:
        with self._lock:
            self._rows[scenario] = rows

    def collect(self) -> Iterable[Metric]:
        """What the last slices said."""
        with self._lock:
            shown = tuple(self._rows.values())
        for name, (kind, labels, text) in LOAD_FAMILIES.items():
            if kind == "histogram":
                family = HistogramMetricFamily(name, text, labels=labels)
                for rows in shown:
                    for values, counts in rows.buckets.get(name, {}).items():
                        ends = [*map(floatToGoString, BOUNDS), "+Inf"]
                        family.add_metric(list(values), list(zip(ends, counts, strict=True)), sum_value=None)
                yield family
                continue
            plain = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, text, labels=labels)
            for rows in shown:
                for values, number in rows.numbers.get(name, {}).items():
                    plain.add_metric(list(values), number)
            yield plain

    @contextmanager
    def serve(self, host: str, port: int) -> Generator[int]:
        """Answer scrapes from a daemon thread as long as this lasts, and give the port (0: any that is free). Raises :class:`OSError`."""
        registry = CollectorRegistry()
        registry.register(self)
        server, thread = start_http_server(port, addr=host, registry=registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _first(scenario: str, names: Sequence[str]) -> _Rows:
    requests: dict[tuple[str, ...], float] = {
        (scenario, name, outcome, "false"): 0.0 for name in _kept(names) for outcome in ("good", "failed", "dropped")
    }
    return _Rows({"somaresil_load_offered": {(scenario,): 0.0}, "somaresil_load_requests": requests}, {})


def _kept(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))[:_MOST_REQUESTS]


def _rows(scenario: str, names: Sequence[str], run: Run, in_flight: int, cpu: float) -> _Rows:
    found: dict[str, dict[tuple[str, ...], float]] = {name: {} for name, (kind, *_) in LOAD_FAMILIES.items() if kind != "histogram"}
    buckets: dict[str, dict[tuple[str, ...], list[int]]] = {name: {} for name, (kind, *_) in LOAD_FAMILIES.items() if kind == "histogram"}
    kept = _kept([*names, *run.books.requests])
    groups = [(name, [name]) for name in kept]
    if rest := [name for name in run.books.requests if name not in kept]:
        groups.append((_OTHER, rest))
    for label, members in groups:
        for injected, parts in _PARTS:
            _count(found, (scenario, label), injected, run.books.total(members, parts=parts))
        whole = run.books.total(members)
        for metric, name in _MEASURES.items():
            measure = whole.measures[metric]
            if measure.count or metric == "latency":
                buckets[name][scenario, label] = _cumulative(measure)
    for kind, times in run.books.total(parts=("calm", "chaos", "injected")).errors.items():
        found["somaresil_load_errors"][scenario, kind] = times
    found["somaresil_load_offered"][scenario,] = run.offered
    found["somaresil_load_in_flight"][scenario,] = in_flight
    found["somaresil_load_generator_cpu_ratio"][scenario,] = cpu
    found["somaresil_load_saturated"][scenario,] = int(bool(run.saturated))
    buckets["somaresil_load_late_seconds"][scenario,] = _cumulative(run.lateness)
    return _Rows(found, buckets)


def _count(found: Mapping[str, dict[tuple[str, ...], float]], whose: tuple[str, str], injected: str, book: Book) -> None:
    outcomes = {"good": book.good, "failed": book.failed, "dropped": book.dropped, "abandoned": book.abandoned}
    for outcome, times in outcomes.items():
        if times or (injected == "false" and outcome != "abandoned"):
            found["somaresil_load_requests"][(*whose, outcome, injected)] = times
    streams = found["somaresil_load_streams"]
    for ending, times in (("complete", book.streams - book.truncated), ("truncated", book.truncated)):
        if book.streams:
            streams[(*whose, ending)] = streams.get((*whose, ending), 0.0) + times


def _cumulative(measure: Measure) -> list[int]:
    return [*(measure.at_most(bound) for bound in BOUNDS), measure.count]
