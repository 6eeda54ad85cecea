"""The OpenTelemetry collector: what services send over OTLP goes to Jaeger, Loki and Prometheus.

Traces are sampled when they are whole. What :class:`~somaresil.integrations.otelsampler.KeepInteresting` has kept in a process is kept
here as well: a trace must not be thinned twice. Bounds are everywhere: a backend that is down costs what does not fit, and no memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions

__all__ = ["FILE", "files"]

FILE: Final = "otel-collector.yaml"
_QUEUE: Final = {"enabled": True, "num_consumers": 4, "queue_size": 1_000}
_RETRY: Final = {"enabled": True, "initial_interval": "1s", "max_interval": "30s", "max_elapsed_time": "300s"}


def files(options: RenderOptions, _: Checker) -> dict[str, str]:
    """``otel-collector.yaml``, for the contrib distribution: tail_sampling is there alone."""
    return {FILE: yaml(_configuration(options))}


def _configuration(options: RenderOptions) -> dict[str, Any]:
    sent = {"sending_queue": _QUEUE, "retry_on_failure": _RETRY}
    return {
        "extensions": {"health_check": {"endpoint": "0.0.0.0:13133"}},
        "receivers": {
            "otlp": {
                "protocols": {
                    "grpc": {"endpoint": "0.0.0.0:4317", "max_recv_msg_size_mib": 4},
                    "http": {"endpoint": "0.0.0.0:4318", "max_request_body_size": 4_194_304},
                }
            }
        },
        "processors": {
            "memory_limiter": {"check_interval": "1s", "limit_percentage": 75, "spike_limit_percentage": 20},
            "tail_sampling": {
                "decision_wait": "10s",
                "num_traces": 50_000,
                "expected_new_traces_per_sec": 500,
                "policies": _policies(options),
            },
            "batch": {"timeout": "1s", "send_batch_size": 1_024, "send_batch_max_size": 2_048},
        },
        "exporters": {
            "otlp/jaeger": {"endpoint": "jaeger:4317", "tls": {"insecure": True}, **sent},
            "otlphttp/loki": {"endpoint": "http://loki:3100/otlp", **sent},
            "prometheus": {
                "endpoint": "0.0.0.0:8889",
                "enable_open_metrics": True,
                "metric_expiration": "5m",
                "resource_to_telemetry_conversion": {"enabled": False},
            },
        },
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"readers": [{"pull": {"exporter": {"prometheus": {"host": "0.0.0.0", "port": 8_888}}}}]}},
            "pipelines": {
                # The limiter is first, so that what is refused costs nothing; the batch is last, so that it is of what is kept.
                "traces": {"receivers": ["otlp"], "processors": ["memory_limiter", "tail_sampling", "batch"], "exporters": ["otlp/jaeger"]},
                "logs": {"receivers": ["otlp"], "processors": ["memory_limiter", "batch"], "exporters": ["otlphttp/loki"]},
                "metrics": {"receivers": ["otlp"], "processors": ["memory_limiter", "batch"], "exporters": ["prometheus"]},
            },
        },
    }


def _policies(options: RenderOptions) -> list[dict[str, Any]]:
    """Any of them keeps a trace."""
    slow = max(1, round(float(options.slow) * 1_000))  # type: ignore[arg-type]
    return [
        {"name": "failed", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": slow}},
        {"name": "injected", "type": "boolean_attribute", "boolean_attribute": {"key": "somaresil.injected", "value": True}},
        {"name": "refused", "type": "string_attribute", "string_attribute": {"key": "somaresil.outcome", "values": ["bad", "rejected"]}},
        {
            "name": "told-by-events",
            "type": "ottl_condition",
            "ottl_condition": {
                "error_mode": "ignore",
                "spanevent": [
                    'name == "somaresil.fault_injected"',
                    'name == "somaresil.call_ended" and attributes["somaresil.outcome"] != "good"',
                ],
            },
        },
        {
            "name": "kept-by-a-process",
            "type": "ottl_condition",
            "ottl_condition": {
                "error_mode": "ignore",
                "span": ['attributes["somaresil.kept"] != nil', 'attributes["somaresil.sampling_ratio"] != nil'],
            },
        },
        {"name": "share", "type": "probabilistic", "probabilistic": {"sampling_percentage": options.share * 100}},
    ]
