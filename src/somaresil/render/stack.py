"""What compose and Kubernetes run alike: programs with their arguments, configurations and folders of data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from somaresil.render import alertmanager, collector, jaeger, loki
from somaresil.slo.rules.text import duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions

__all__ = ["BOARDS", "GRAFANA", "Part", "parts"]

BOARDS: Final = "/etc/grafana/boards/somaresil"
"""Where Grafana finds boards; its provisioning says so."""
GRAFANA: Final = {
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_AUTH_ANONYMOUS_ENABLED": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    "GF_SECURITY_COOKIE_SAMESITE": "strict",
    "GF_USERS_ALLOW_SIGN_UP": "false",
}
"""Settings of Grafana. Its password is a secret that must be given."""


@dataclass(frozen=True, slots=True)
class Part:
    """One program of the stack."""

    name: str
    arguments: tuple[str, ...] = ()
    configuration: Mapping[str, str] = field(default_factory=dict)
    """Texts by the paths at which the program reads them."""
    data: str | None = None
    """The folder that outlives it."""
    ports: tuple[int, ...] = ()
    """Where it listens, beside the port where it is asked."""


def parts(options: RenderOptions, check: Checker) -> tuple[Part, ...]:
    """All but Prometheus' and Grafana's files, which compose and Kubernetes put in place in their own ways."""
    kept = duration(float(options.retention))  # type: ignore[arg-type]
    return (
        Part(
            "prometheus",
            (
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                f"--storage.tsdb.retention.time={kept}",
                "--enable-feature=exemplar-storage",
            ),
            data="/prometheus",
        ),
        Part(
            "alertmanager",
            (
                "--config.file=/etc/alertmanager/alertmanager.yml",
                "--storage.path=/alertmanager",
                # There is one of it.
                "--cluster.listen-address=",
            ),
            {"/etc/alertmanager/alertmanager.yml": alertmanager.files(options, check)[alertmanager.FILE]},
            "/alertmanager",
        ),
        Part("grafana", data="/var/lib/grafana"),
        Part("loki", ("-config.file=/etc/loki/loki.yaml",), {"/etc/loki/loki.yaml": loki.files(options, check)[loki.FILE]}, "/loki"),
        Part(
            "jaeger",
            ("--config=/etc/jaeger/jaeger.yaml",),
            {"/etc/jaeger/jaeger.yaml": jaeger.files(options, check)[jaeger.FILE]},
            "/tmp",
            (4317,),
        ),
        Part(
            "otel-collector",
            ("--config=/etc/otelcol/otel-collector.yaml",),
            {"/etc/otelcol/otel-collector.yaml": collector.files(options, check)[collector.FILE]},
            ports=(4317, 8888, 8889),
        ),
    )
