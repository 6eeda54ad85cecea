"""Histograms for the exporters of the OpenTelemetry SDK: added to what it has collected. Needs ``opentelemetry-sdk``."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics import Histogram as HistogramKind
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricsData,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from somaresil._version import __version__
from somaresil.config import Checker
from somaresil.forks import unwatch, watch
from somaresil.integrations._exemplars import by_bucket, current_trace, exemplars_of
from somaresil.integrations._families import FAMILIES, HTTP_LABELS, Histogram
from somaresil.integrations._instruments import INSTRUMENTS, SCOPE, Source, attributes_of
from somaresil.integrations._readings import Reading, capped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.metrics.export import MetricExportResult, ResourceMetrics

    from somaresil.exemplars import Exemplar as Kept
    from somaresil.integrations._families import Family, Labels
    from somaresil.resilience import Resilience

__all__ = ["HistogramExporter"]

_NANO = 1_000_000_000


class HistogramExporter(MetricExporter):
    """See :func:`somaresil.integrations.otelmetrics.with_histograms`."""

    def __init__(self, exporter: MetricExporter, resilience: Resilience, *, limit: int, exemplars: bool, requests: bool) -> None:
        """Prefer what ``exporter`` prefers."""
        check = Checker("with_histograms")
        check.count("limit", limit, minimum=10, maximum=100_000)
        check.type("exemplars", exemplars, bool, "True or False")
        check.type("requests", requests, bool, "True or False")
        check.type("exporter", exporter, MetricExporter, "a MetricExporter of opentelemetry.sdk.metrics.export")
        check.finish()
        # What a reader asks an exporter for has no public name.
        temporality: Any = getattr(exporter, "_preferred_temporality", None)
        super().__init__(preferred_temporality=temporality, preferred_aggregation=getattr(exporter, "_preferred_aggregation", None))
        self._exporter = exporter
        self._resilience = resilience
        self._limit = limit
        self._families = [
            family for family in FAMILIES.values() if family.kind == "histogram" and (requests or family.labels != HTTP_LABELS)
        ]
        self._source = Source(resilience)
        self._lock = threading.Lock()
        self._delta = (temporality or {}).get(HistogramKind) is AggregationTemporality.DELTA
        self._since = self._now()
        self._before: Reading | None = None
        self._follows_no_more = resilience.follow_traces(current_trace()) if exemplars else None
        watch(self)

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Export it with our histograms; without them when they cannot be had."""
        try:
            metrics_data = self._with_ours(metrics_data)
        except Exception as broken:  # noqa: BLE001 - the metrics of others do not suffer for ours
            at = self._resilience.clock.time()
            self._resilience.listeners.defect("OpenTelemetry histograms", broken, at, "they were left out")
        return self._exporter.export(metrics_data, timeout_millis=timeout_millis, **kwargs)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Have the exporter send what it holds."""
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """End it, and the exporter."""
        if self._follows_no_more is not None:
            self._follows_no_more()
        self._source.stop()
        unwatch(self)
        self._exporter.shutdown(timeout_millis=timeout_millis, **kwargs)

    def before_fork(self) -> None:
        """In the parent: nothing to do."""

    def after_fork_in_parent(self) -> None:
        """In the parent: nothing to do."""

    def after_fork_in_child(self) -> None:
        """In the child: it has exported nothing, and the thread that may have held the lock is not there."""
        self._lock = threading.Lock()
        self._before, self._since = None, self._now()

    def stop(self) -> None:
        """The process ends: nothing to do, for the provider exports once more."""

    def _now(self) -> int:
        return int(self._resilience.clock.time() * _NANO)

    def _with_ours(self, collected: MetricsData) -> MetricsData:
        if not collected.resource_metrics:
            return collected
        ours = self._metrics()
        first, *others = collected.resource_metrics
        return replace(collected, resource_metrics=[_added(first, ours), *others])

    def _metrics(self) -> list[Metric]:
        with self._lock:
            now, reading = self._now(), self._source.read()
            shown, since = reading, self._since
            if self._delta:
                shown = reading if self._before is None else reading.minus(self._before)
                self._before, self._since = reading, now
        found = exemplars_of(self._resilience) if self._follows_no_more is not None else {}
        metrics: list[Metric] = []
        for family in self._families:
            if shown.rows[family.name]:
                points = self._points(family, shown, found.get(family.name, {}), since, now)
                kind = AggregationTemporality.DELTA if self._delta else AggregationTemporality.CUMULATIVE
                called, unit = INSTRUMENTS[family.name]
                metrics.append(Metric(called, family.help, unit, HistogramData(points, kind)))
        return metrics

    def _points(self, family: Family, reading: Reading, kept: dict[Labels, list[Kept]], since: int, now: int) -> list[HistogramDataPoint]:
        points: list[HistogramDataPoint] = []
        for labels, value in capped(family, reading.rows[family.name], self._limit).items():
            if not isinstance(value, Histogram) or (self._delta and not any(value.counts)):
                continue
            exemplars = [_shown(one) for one in by_bucket(kept.get(labels, ()), value.bounds).values() if not self._old(one, since)]
            # Largest and smallest are not known, and neither is the sum of some; the data model has all three optional.
            unknown: Any = None
            points.append(
                HistogramDataPoint(
                    attributes=attributes_of(family.name, labels),
                    start_time_unix_nano=since,
                    time_unix_nano=now,
                    count=sum(value.counts),
                    sum=unknown if value.total is None else value.total,
                    bucket_counts=value.counts,
                    explicit_bounds=value.bounds,
                    min=unknown,
                    max=unknown,
                    exemplars=exemplars,
                )
            )
        return points

    def _old(self, exemplar: Kept, since: int) -> bool:
        """Whether it was told before: what is counted since the last time has examples of that time."""
        return self._delta and exemplar.at * _NANO < since


def _added(resource: ResourceMetrics, ours: Sequence[Metric]) -> ResourceMetrics:
    """With our metrics in our scope: exporters keep one of those with the same name."""
    scopes = list(resource.scope_metrics)
    for index, scope in enumerate(scopes):
        if scope.scope.name == SCOPE:
            scopes[index] = replace(scope, metrics=[*scope.metrics, *ours])
            return replace(resource, scope_metrics=scopes)
    scopes.append(ScopeMetrics(InstrumentationScope(SCOPE, __version__), list(ours), ""))
    return replace(resource, scope_metrics=scopes)


def _shown(exemplar: Kept) -> Exemplar:
    return Exemplar(
        filtered_attributes={},
        value=float(exemplar.value),
        time_unix_nano=int(exemplar.at * _NANO),
        span_id=int(exemplar.span_id, 16),
        trace_id=int(exemplar.trace_id, 16),
    )
