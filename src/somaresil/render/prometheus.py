"""Prometheus itself: what it scrapes, which rules it evaluates, and whom it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.render.rules import named
from somaresil.slo.rules.text import duration, yaml

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions

__all__ = ["FILE", "RULES", "configuration", "files", "scrape_of_pods", "slug"]

FILE: Final = "prometheus.yml"
RULES: Final = "/etc/prometheus/rules"
"""Where it finds the files of rules."""
_HOST: Final = "host.docker.internal:8000"
"""The service on the host of a compose file, unless targets say where it is."""
_MOST_BYTES: Final = "32MB"
_MOST_SAMPLES: Final = 100_000


def slug(name: str) -> str:
    """A name as Kubernetes has them, of at most 63 characters: ``gate-way`` of ``gate/way``."""
    plain = "".join(character if character.isascii() and character.isalnum() else "-" for character in name.lower()).strip("-")
    return plain[:63].rstrip("-") or "service"


def files(options: RenderOptions, _: Checker) -> dict[str, str]:
    """``prometheus.yml``, for a Prometheus that is told where the service is."""
    static: dict[str, Any] = {"targets": list(options.targets or (_HOST,)), "labels": named(options)}
    return {FILE: configuration(options, {"static_configs": [static]})}


def configuration(options: RenderOptions, found: dict[str, Any]) -> str:
    """The whole file, where the service is found as ``found`` says."""
    every = duration(float(options.scrape_interval))  # type: ignore[arg-type]
    service = {
        "job_name": slug(options.service),
        "metrics_path": options.metrics_path,
        # Without these one target could fill the disk.
        "sample_limit": _MOST_SAMPLES,
        "body_size_limit": _MOST_BYTES,
        **found,
    }
    return yaml(
        {
            "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": _timeout(options)},
            "rule_files": [f"{RULES}/*.rules.yaml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]},
            "scrape_configs": [
                service,
                {
                    "job_name": "otel-collector",
                    "static_configs": [{"targets": ["otel-collector:8888"]}],
                },
                {
                    # What services tell over OTLP comes with labels of its own.
                    "job_name": "otlp",
                    "honor_labels": True,
                    "static_configs": [{"targets": ["otel-collector:8889"]}],
                },
                *(
                    {"job_name": name, "static_configs": [{"targets": [f"{name}:{port}"]}]}
                    for name, port in (("prometheus", 9090), ("alertmanager", 9093), ("loki", 3100), ("grafana", 3000))
                ),
            ],
        }
    )


def _timeout(options: RenderOptions) -> str:
    return duration(min(10.0, float(options.scrape_interval)))  # type: ignore[arg-type]


def scrape_of_pods(options: RenderOptions) -> dict[str, Any]:
    """How the pods of the service are found in Kubernetes: by the label ``app.kubernetes.io/name`` and the name of the port."""
    if options.targets:
        return {"static_configs": [{"targets": list(options.targets), "labels": named(options)}]}
    keep = (
        ("__meta_kubernetes_pod_label_app_kubernetes_io_name", slug(options.service)),
        ("__meta_kubernetes_pod_container_port_name", options.port),
        ("__meta_kubernetes_pod_phase", "Running"),
    )
    return {
        "kubernetes_sd_configs": [
            {"role": "pod", "selectors": [{"role": "pod", "label": f"app.kubernetes.io/name={slug(options.service)}"}]},
        ],
        "relabel_configs": [
            *({"source_labels": [label], "regex": value, "action": "keep"} for label, value in keep),
            *({"target_label": label, "replacement": value} for label, value in named(options).items()),
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
        ],
    }
