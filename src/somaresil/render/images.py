"""The images of the stack, each of one version, and the user that it runs as. No ``latest``: what runs is what was tried and reviewed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["IMAGES", "Image"]


@dataclass(frozen=True, slots=True)
class Image:
    """One of them."""

    name: str
    user: int
    """What it is made to run as; never root."""
    port: int
    """Where people and others ask it."""
    health: str
    """The path that answers 200 when it is ready."""
    health_port: int
    memory: str
    """What it may take at most, as Kubernetes writes it."""


IMAGES: Final = {
    "prometheus": Image("prom/prometheus:v3.5.0", 65534, 9090, "/-/ready", 9090, "1Gi"),
    "alertmanager": Image("prom/alertmanager:v0.28.1", 65534, 9093, "/-/ready", 9093, "128Mi"),
    "grafana": Image("grafana/grafana:12.1.1", 472, 3000, "/api/health", 3000, "512Mi"),
    "loki": Image("grafana/loki:3.5.3", 10001, 3100, "/ready", 3100, "1Gi"),
    "jaeger": Image("jaegertracing/jaeger:2.9.0", 10001, 16686, "/status", 13133, "1Gi"),
    "otel-collector": Image("otel/opentelemetry-collector-contrib:0.132.0", 10001, 4318, "/", 13133, "512Mi"),
}
"""By what they are called in compose and in Kubernetes."""
