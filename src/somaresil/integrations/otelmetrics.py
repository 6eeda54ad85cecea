"""OpenTelemetry metrics: the same readings as for Prometheus, taken when the SDK collects. A call pays nothing for it.

    exporter = with_histograms(OTLPMetricExporter(), resilience)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter)])
    end = otel_metrics(resilience, provider)

Counters and gauges are observable instruments of the OpenTelemetry API, so any implementation of it will do, and without one they are
never read. The API has no observable histogram: for an instrument of its own kind every call would have to record a measurement, which
costs more than the rest of a guard. So histograms join what the SDK has collected on its way to the exporter (:func:`with_histograms`);
readers that are asked instead of pushing (the Prometheus reader of OpenTelemetry) have none, and
:mod:`somaresil.integrations.prometheus` is the better way there.

Names have dots where those of Prometheus have underscores, and units instead of endings: what a collector makes of them for Prometheus are
the names that our own exporter has, so the same boards and rules work with both. Attributes are called as the labels are; those of HTTP
requests as the semantic conventions have them. Each worker process speaks for itself: the resource has to tell them apart
(``service.instance.id``). What a parent had counted before it forked is the parent's to tell.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.metrics import Observation, get_meter_provider

from somaresil._version import __version__
from somaresil.config import Checker
from somaresil.forks import watch
from somaresil.integrations._families import FAMILIES, Histogram
from somaresil.integrations._instruments import INSTRUMENTS, SCOPE, Instrument, Source, attributes_of
from somaresil.integrations._readings import Reading, capped, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider
    from opentelemetry.sdk.metrics.export import MetricExporter

    from somaresil.resilience import Resilience

__all__ = ["INSTRUMENTS", "Instrument", "otel_metrics", "with_histograms"]

_FRESH: Final = 1.0
"""Seconds after which a reading is taken anew whoever asks; within one collection it is taken once."""


class _Bridge:
    """The instruments of one meter provider. They cannot be taken back, so there is one set of them, and sources come and go."""

    def __init__(self, meter: Meter, limit: int) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self._sources: dict[Resilience, tuple[Source, int]] = {}
        self._reading = Reading()
        self._at = float("-inf")
        self._served: set[str] = set(FAMILIES)
        for family in FAMILIES.values():
            if family.kind != "histogram":
                self._create(meter, family.name)
        watch(self)

    def before_fork(self) -> None:
        """In the parent: nothing to do."""

    def after_fork_in_parent(self) -> None:
        """In the parent: nothing to do."""

    def after_fork_in_child(self) -> None:
        """In the child: the thread that may have held the lock is not there."""
        self._lock = threading.RLock()
        self._served = set(FAMILIES)

    def stop(self) -> None:
        """The process ends: nothing to do."""

    def _create(self, meter: Meter, name: str) -> None:
        family, (called, unit) = FAMILIES[name], INSTRUMENTS[name]
        if family.kind == "counter":
            create: Callable[..., Any] = meter.create_observable_counter
        elif family.agree or family.worst:
            create = meter.create_observable_gauge
        else:
            # Those of several workers are added up.
            create = meter.create_observable_up_down_counter

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return self.observe(name)

        create(called, [observe], unit=unit, description=family.help)

    def attach(self, resilience: Resilience) -> None:
        """Read it too."""
        with self._lock:
            source, users = self._sources.get(resilience) or (Source(resilience), 0)
            self._sources = {**self._sources, resilience: (source, users + 1)}

    def detach(self, resilience: Resilience) -> None:
        """One who wanted it read does so no more."""
        with self._lock:
            source, users = self._sources[resilience]
            self._sources = {**self._sources, resilience: (source, users - 1)}
            if users == 1:
                source.stop()
                del self._sources[resilience]

    def observe(self, name: str) -> list[Observation]:
        """What the instrument of a family says now. Never raises."""
        sources = self._sources
        try:
            with self._lock:
                rows = capped(FAMILIES[name], self._current(name).rows[name], self._limit)
            return [Observation(value, attributes_of(name, labels)) for labels, value in rows.items() if not isinstance(value, Histogram)]
        except Exception as broken:  # noqa: BLE001 - one defect must not cost the whole collection
            for resilience in sources:
                at = resilience.clock.time()
                resilience.listeners.defect(f"OpenTelemetry metric {name}", broken, at, "it was left out")
            return []

    def _current(self, name: str) -> Reading:
        """One reading for all instruments of a collection: who asks a second time begins the next one."""
        sources = [source for source, _ in self._sources.values()]
        if not sources:
            return Reading()
        now = sources[0].resilience.clock.monotonic()
        if name in self._served or now - self._at > _FRESH:
            readings = [source.read() for source in sources]
            self._reading = readings[0] if len(readings) == 1 else side_by_side(readings)
            self._at = now
            self._served.clear()
        self._served.add(name)
        return self._reading


_lock = threading.RLock()
_bridges: weakref.WeakKeyDictionary[Any, _Bridge] = weakref.WeakKeyDictionary()


class _Everywhere:
    """Stands for the global provider, which may be set after us."""


_GLOBAL: Final = _Everywhere()


def otel_metrics(resilience: Resilience, meter_provider: MeterProvider | None = None, *, limit: int = 200) -> Callable[[], None]:
    """Let ``meter_provider`` (None: the global one, now or later) collect what ``resilience`` counts; returns a function that ends it.

    ``limit`` is the most attribute sets that a metric may have (10 to 100,000): what does not fit is added up under ``_other``. The first
    mention of a provider decides. Installing twice is installing once more: nothing is counted twice, and it ends when each of the returned
    functions was called.

    Raises :class:`~somaresil.errors.ConfigurationError` when an argument is wrong.
    """
    check = Checker("otel_metrics")
    check.count("limit", limit, minimum=10, maximum=100_000)
    if meter_provider is not None and not callable(getattr(meter_provider, "get_meter", None)):
        check.problem("meter_provider", meter_provider, "a MeterProvider of OpenTelemetry, or None for the global one")
    check.finish()
    key = _GLOBAL if meter_provider is None else meter_provider
    with _lock:
        bridge = _bridges.get(key)
        if bridge is None:
            provider = get_meter_provider() if meter_provider is None else meter_provider
            bridge = _bridges[key] = _Bridge(provider.get_meter(SCOPE, __version__), limit)
        bridge.attach(resilience)
    ended = False

    def end() -> None:
        nonlocal ended
        with _lock:
            if not ended:
                ended = True
                bridge.detach(resilience)

    return end


def with_histograms(
    exporter: MetricExporter, resilience: Resilience, *, limit: int = 200, exemplars: bool = True, requests: bool = True
) -> MetricExporter:
    """``exporter``, of the OpenTelemetry SDK, with the histograms of ``resilience`` in all that it exports.

    Give it to a ``PeriodicExportingMetricReader`` in the place of the exporter. Bounds of buckets are those that are counted by; their
    temporality is the one that the exporter prefers. ``somaresil.call.duration`` has no sum, for a quiet call bumps one bucket and nothing
    else; the data model has it optional. With ``exemplars`` the latest bad or slow event of each bucket names its trace when that is
    sampled. ``requests`` False leaves out those of HTTP requests, for an instrumentor that counts them under the same names. ``limit`` as
    in :func:`otel_metrics`. It ends with ``shutdown()``, which the provider calls.

    The SDK exports nothing when there is nothing but these: use :func:`otel_metrics` with it.

    Raises :class:`~somaresil.errors.ConfigurationError` when an argument is wrong, ``ImportError`` without ``opentelemetry-sdk``.
    """
    from somaresil.integrations._otelhistograms import HistogramExporter

    return HistogramExporter(exporter, resilience, limit=limit, exemplars=exemplars, requests=requests)
