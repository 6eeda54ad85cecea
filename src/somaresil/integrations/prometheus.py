"""Prometheus: the cells of the process, read when somebody scrapes. A call pays nothing for it.

    from somaresil.integrations.prometheus import install, metrics_app

    install(resilience)                                  # into prometheus_client's registry, beside your own metrics
    app.mount("/metrics", metrics_app(resilience))       # or served by itself: pure ASGI

Labels are registered names only, and no metric has more than ``limit`` label sets: what does not fit is added up under ``_other``.

With several workers set ``PROMETHEUS_MULTIPROC_DIR`` to a folder of the service's own that is empty when the service starts. Each worker
writes its counts there every ``interval`` seconds, when it is scraped and when it exits; whichever worker is scraped answers for all of
them, exactly for itself and up to ``interval`` seconds late for the others. uvicorn ends a worker by the signal that it received, which
runs no exit function: end :func:`metrics_app` or :func:`install` in the lifespan of the app, or the counts of the last ``interval``
seconds are lost with it.

With ``exemplars`` the latest bad or slow event of each bucket names its trace, in OpenMetrics alone: see :mod:`somaresil.exemplars`. Of
several workers the one that is scraped tells its own.

``somaresil_call_duration_seconds`` has neither ``_sum`` nor ``_count``: a quiet call bumps one bucket and nothing else, so the sum is not
known, and both are left out together as the OpenMetrics specification has it. The ``+Inf`` bucket is the count.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar as Shown
from prometheus_client.utils import floatToGoString

from somaresil.config import Checker
from somaresil.integrations._exemplars import by_bucket, current_trace, exemplars_of
from somaresil.integrations._families import FAMILIES, Family, Histogram, Labels
from somaresil.integrations._readings import Reader, Reading, capped, side_by_side
from somaresil.integrations._workers import Worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sequence

    from somaresil.exemplars import Exemplar
    from somaresil.integrations._exemplars import Found
    from somaresil.resilience import Resilience

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["FOLDER_VARIABLE", "MetricsApp", "ResilienceCollector", "install", "metrics_app"]

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable that says that there are several workers, and where they meet."""

_go_float: Callable[[float], str] = floatToGoString
_openmetrics: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest

PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"


class ResilienceCollector:
    """A prometheus_client collector over one process. ``limit`` is the most label sets that a metric may have (10 to 100,000).

    By itself it sees this process only; :func:`install` and :func:`metrics_app` make it see all workers.

    Raises :class:`~somaresil.errors.ConfigurationError` for a wrong limit.
    """

    def __init__(self, resilience: Resilience, *, limit: int = 200) -> None:
        """Read nothing before the first scrape."""
        check = Checker("ResilienceCollector")
        self._limit = check.count("limit", limit, minimum=10, maximum=100_000)
        check.finish()
        self._lock = threading.RLock()
        self._sources: dict[Resilience, Reader | Worker] = {resilience: Reader(resilience)}

    def describe(self) -> Iterable[Metric]:
        """The names, so that a registry can tell that they are taken without reading anything."""
        return [_metric(family) for family in FAMILIES.values()]

    def collect(self) -> Iterator[Metric]:
        """Everything as it is now."""
        reading, exemplars = self._read(), self._exemplars()
        for family in FAMILIES.values():
            metric, own = _metric(family), exemplars.get(family.name, {})
            for labels, value in capped(family, reading.rows[family.name], self._limit).items():
                # Those of a thing that was moved into `_other` stay behind: no row has their labels.
                _add_samples(metric, family, labels, value, own.get(labels, ()))
            yield metric

    def _exemplars(self) -> Found:
        with self._lock:
            sources = tuple(self._sources)
        whole: Found = {}
        for resilience in sources:
            for name, rows in exemplars_of(resilience).items():
                for labels, kept in rows.items():
                    whole.setdefault(name, {}).setdefault(labels, []).extend(kept)
        return whole

    def _read(self) -> Reading:
        with self._lock:
            sources = tuple(self._sources.values())
        workers = [source for source in sources if isinstance(source, Worker)]
        readings = [source.read() for source in sources if isinstance(source, Reader)]
        if workers:
            readings.append(workers[0].gather(*workers[1:]))
        return readings[0] if len(readings) == 1 else side_by_side(readings)

    def attach(self, resilience: Resilience, source: Reader | Worker) -> None:
        """Read ``resilience`` too, from ``source``."""
        with self._lock:
            self._sources = {**self._sources, resilience: source}

    def detach(self, resilience: Resilience) -> bool:
        """Read it no more; returns whether anything is left to read."""
        with self._lock:
            self._sources = {kept: source for kept, source in self._sources.items() if kept is not resilience}
            return bool(self._sources)


def _metric(family: Family) -> Metric:
    return Metric(family.name, family.help, family.kind, family.unit)


def _shown(exemplar: Exemplar | None, value: float | None = None) -> Shown | None:
    if exemplar is None:
        return None
    ids = {"trace_id": exemplar.trace_id, "span_id": exemplar.span_id}
    return Shown(ids, exemplar.value if value is None else value, exemplar.at)


def _add_samples(metric: Metric, family: Family, labels: Labels, value: float | Histogram, exemplars: Sequence[Exemplar]) -> None:
    # A label without a value is a label that is not there.
    named = {name: text for name, text in zip(family.labels, labels, strict=True) if text}
    if not isinstance(value, Histogram):
        latest = max(exemplars, key=_at, default=None)
        # What a counter counts by one is one.
        exemplar = _shown(latest, 1.0) if family.kind == "counter" else None
        metric.add_sample(f"{metric.name}_total" if family.kind == "counter" else metric.name, named, value, exemplar=exemplar)
        return
    running, kept = 0, by_bucket(exemplars, value.bounds)
    for bucket, (bound, count) in enumerate(zip((*value.bounds, float("inf")), value.counts, strict=True)):
        running += count
        exemplar = _shown(kept.get(bucket))
        metric.add_sample(f"{metric.name}_bucket", {**named, "le": _go_float(bound)}, running, exemplar=exemplar)
    if value.total is not None:
        metric.add_sample(f"{metric.name}_count", named, running)
        metric.add_sample(f"{metric.name}_sum", named, value.total)


def _at(exemplar: Exemplar) -> float:
    return exemplar.at


# -- installing -------------------------------------------------------------------------------------------------------------------------

_lock = threading.RLock()
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, ResilienceCollector] = weakref.WeakKeyDictionary()
_workers: dict[Resilience, tuple[Worker, int]] = {}
"""The worker of each resilience, and how many installations use it: two files of one process would count everything twice."""


def install(
    resilience: Resilience,
    registry: CollectorRegistry = REGISTRY,
    *,
    limit: int = 200,
    interval: float = 5.0,
    exemplars: bool = False,
) -> Callable[[], None]:
    """Let ``registry`` export what ``resilience`` counts, and return a function that ends it.

    Installing twice is installing once more: nothing is exported twice, and it ends when each of the returned functions was called. Several
    ``Resilience`` objects in one registry, as left by a module that was imported under two names, are exported as one.

    With :data:`FOLDER_VARIABLE` set this starts a daemon thread that writes this worker's counts every ``interval`` seconds (0.1 to 10).

    With ``exemplars`` bad and slow calls and requests keep the ids of the current span of OpenTelemetry, when it is sampled.

    Raises :class:`~somaresil.errors.ConfigurationError` when an argument is wrong, or when another collector has taken one of the names;
    ``ImportError`` when exemplars are wanted and ``opentelemetry-api`` is not installed.
    """
    check = Checker("prometheus.install")
    check.type("exemplars", exemplars, bool, "True or False")
    interval = check.number("interval", interval, minimum=0.1, maximum=10.0)
    check.count("limit", limit, minimum=10, maximum=100_000)
    check.finish()
    folder = os.environ.get(FOLDER_VARIABLE)
    trace = current_trace() if exemplars else None
    with _lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = ResilienceCollector(resilience, limit=limit)
            try:
                registry.register(collector)
            except ValueError as taken:
                check.problem("registry", registry, "one without metrics of these names", str(taken))
                check.finish()
            _collectors[registry] = collector
        worker = _acquire(resilience, Path(folder), interval) if folder else None
        collector.attach(resilience, worker or Reader(resilience))
        users = _users.setdefault(registry, {})
        users[resilience] = users.get(resilience, 0) + 1
    follows_no_more = None if trace is None else resilience.follow_traces(trace)
    ended = False

    def uninstall() -> None:
        nonlocal ended
        with _lock:
            if ended:
                return
            ended = True
            if follows_no_more is not None:
                follows_no_more()
            if worker is not None:
                _release(resilience)
            users[resilience] -= 1
            if users[resilience] or collector.detach(resilience):
                return
            del _collectors[registry], _users[registry]
            registry.unregister(collector)

    return uninstall


_users: weakref.WeakKeyDictionary[CollectorRegistry, dict[Resilience, int]] = weakref.WeakKeyDictionary()


def _acquire(resilience: Resilience, folder: Path, interval: float) -> Worker:
    worker, users = _workers.get(resilience, (None, 0))
    if worker is None:
        worker = Worker(resilience, folder, interval)
        worker.start()
    _workers[resilience] = (worker, users + 1)
    return worker


def _release(resilience: Resilience) -> None:
    worker, users = _workers[resilience]
    if users > 1:
        _workers[resilience] = (worker, users - 1)
        return
    del _workers[resilience]
    worker.stop()


# -- serving ----------------------------------------------------------------------------------------------------------------------------


def metrics_app(
    resilience: Resilience,
    registry: CollectorRegistry | None = None,
    *,
    limit: int = 200,
    interval: float = 5.0,
    exemplars: bool = False,
) -> MetricsApp:
    """An ASGI application that answers every path with the metrics, to be mounted or to be run by itself.

    ``registry`` None: the metrics of somaresil alone; ``prometheus_client.REGISTRY``: together with those of the process. See
    :func:`install` for the rest.
    """
    registry = CollectorRegistry() if registry is None else registry
    return MetricsApp(resilience, registry, install(resilience, registry, limit=limit, interval=interval, exemplars=exemplars))


class MetricsApp:
    """Serves a registry in Prometheus' text format, or in OpenMetrics when the client likes that at least as well. Pure ASGI.

    Made by :func:`metrics_app`. It reads in a thread, so a scrape does not hold up the event loop.
    """

    def __init__(self, resilience: Resilience, registry: CollectorRegistry, close: Callable[[], None]) -> None:
        """Serve ``registry``; ``close`` ends what was installed for that."""
        self._resilience = resilience
        self._registry = registry
        self.close = close
        """Ends it: call it at shutdown, so that a worker's last counts are written."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000, "reason": "metrics are served over HTTP"})
        elif scope["method"] not in {"GET", "HEAD"}:
            await _respond(send, 405, b"metrics are read with GET\n", PLAIN, (b"allow", b"GET, HEAD"))
        else:
            accept = ",".join(value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"accept")
            status, body, content_type = await asyncio.to_thread(self._render, _prefers_openmetrics(accept))
            await _respond(send, status, body, content_type, (b"vary", b"accept"), head=scope["method"] == "HEAD")

    def _render(self, openmetrics_wanted: bool) -> tuple[int, bytes, str]:  # noqa: FBT001 - private
        try:
            if openmetrics_wanted:
                return 200, _openmetrics(self._registry), openmetrics.CONTENT_TYPE_LATEST
            return 200, generate_latest(self._registry), PLAIN
        except Exception as broken:  # noqa: BLE001 - another collector of the registry
            self._resilience.listeners.defect("rendering the metrics", broken, self._resilience.clock.time(), "the scrape got a 500")
            return 500, f"a collector of this registry raised {type(broken).__qualname__}\n".encode(), PLAIN

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _respond(send: Send, status: int, body: bytes, content_type: str, *headers: tuple[bytes, bytes], head: bool = False) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode()), *headers],
        }
    )
    await send({"type": "http.response.body", "body": b"" if head else body})


def _prefers_openmetrics(accept: str) -> bool:
    """Whether OpenMetrics is named and liked no less than plain text (RFC 9110, section 12.5.1)."""
    liking = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind in liking:
            liking[kind] = max(liking[kind], _quality(parameters))
    return liking["application/openmetrics-text"] > 0.0 and liking["application/openmetrics-text"] >= liking["text/plain"]


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(1.0, max(0.0, float(value)))
            except ValueError:
                return 0.0
    return 1.0
