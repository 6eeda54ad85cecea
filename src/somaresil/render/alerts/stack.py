"""The stack that watches: whether what services send arrives, and whether anybody would be told. Of no one service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.render.alerts.model import Alert, History

if TYPE_CHECKING:
    from somaresil.render.series import Series

__all__ = ["STACK"]

_JOBS: Final = 'job=~"otel-collector|loki|alertmanager|grafana"'
_SIGNALS: Final = ("spans", "metric_points", "log_records")


def _dropped(series: Series) -> str:
    # With and without the ending that later versions have; two names in one selector would be two series of the same labels.
    lost: list[str] = []
    for how in ("send", "enqueue"):
        for signal in _SIGNALS:
            counter = series("", f'__name__=~"otelcol_exporter_{how}_failed_{signal}(_total)?"')
            lost.append(f'label_replace(sum by (exporter) (rate({counter}[5m])), "signal", "{signal}", "", "") > 0')
    return "\nor\n".join(lost)


def _down(series: Series) -> str:
    return f"{series('up', _JOBS)} == 0"


def _undelivered(series: Series) -> str:
    failed = f"sum by (integration) (rate({series('alertmanager_notifications_failed_total')}[5m])) > 0"
    dropped = f'label_replace(sum(rate({series("prometheus_notifications_dropped_total")}[5m])), "integration", "prometheus", "", "") > 0'
    return f"{failed}\nor\n{dropped}"


def _saturated(series: Series) -> str:
    return f"max by (scenario) ({series('somaresil_load_saturated')}) > 0"


_SENT: Final = 'otelcol_exporter_send_failed_spans_total{exporter="otlp/jaeger"}'

STACK: Final = (
    Alert(
        name="TelemetryDropped",
        about="the collector has lost spans, points or lines for 5 minutes",
        severity="ticket",
        summary="The collector loses {{ $labels.signal }} on their way through {{ $labels.exporter }}",
        description="{{ $value | humanize }} of them a second; services are not slowed by it, but what was lost is not shown anywhere.",
        board="",
        condition=_dropped,
        lasts="5m",
        fires=History("Jaeger is down", {_SENT: "0x5 0+120x30"}, "20m", {"exporter": "otlp/jaeger", "signal": "spans"}, "2"),
        silent=(
            History("it fails once", {_SENT: "0x5 120x30"}, "20m"),
            History("all is sent", {'otelcol_exporter_sent_spans_total{exporter="otlp/jaeger"}': "0+120x30"}, "20m"),
        ),
    ),
    Alert(
        name="StackPartDown",
        about="the collector, Loki, Alertmanager or Grafana has not answered for 5 minutes",
        severity="ticket",
        summary="{{ $labels.job }} does not answer",
        description="Prometheus has not reached {{ $labels.job }} at {{ $labels.instance }} for 5 minutes.",
        board="",
        condition=_down,
        lasts="5m",
        fires=History("Loki is gone", {'up{job="loki",instance="loki:3100"}': "1x5 0x20"}, "20m", {"job": "loki", "instance": "loki:3100"}),
        silent=(
            History("it restarts", {'up{job="loki",instance="loki:3100"}': "1x5 0 0 1x20"}, "20m"),
            History("a service is gone", {'up{job="gateway",instance="a:80"}': "1x5 0x20"}, "20m"),
        ),
    ),
    Alert(
        name="AlertsUndelivered",
        about="Alertmanager or Prometheus has failed to pass alerts on for 5 minutes",
        severity="page",
        summary="Alerts do not reach anybody through {{ $labels.integration }}",
        description="{{ $value | humanize }} notifications a second fail; another alert may be firing that nobody hears.",
        board="",
        condition=_undelivered,
        lasts="5m",
        fires=History(
            "Slack refuses them",
            {'alertmanager_notifications_failed_total{integration="slack"}': "0x5 0+60x30"},
            "20m",
            {"integration": "slack"},
            "1",
        ),
        silent=(History("one fails", {'alertmanager_notifications_failed_total{integration="slack"}': "0x5 1x30"}, "20m"),),
    ),
    Alert(
        name="LoadGeneratorSaturated",
        about="a run of load may have measured its own generator",
        severity="ticket",
        summary="The load generator of {{ $labels.scenario }} is saturated",
        description="What the run of {{ $labels.scenario }} measures may be its own generator, and not the service.",
        condition=_saturated,
        board="load",
        fires=History("its processor is full", {'somaresil_load_saturated{scenario="peak"}': "0x5 1x10"}, "10m", {"scenario": "peak"}),
        silent=(History("it keeps up", {'somaresil_load_saturated{scenario="peak"}': "0x20"}, "10m"),),
    ),
)
