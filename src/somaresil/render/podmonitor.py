"""Objects of the Prometheus Operator: what is scraped, and the rules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from somaresil.render import rules
from somaresil.render.prometheus import slug
from somaresil.slo.rules.text import duration, yaml

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions

__all__ = ["files", "metadata", "services"]


def metadata(options: RenderOptions, name: str, component: str = "") -> dict[str, Any]:
    """``metadata`` of an object."""
    labels = {"app.kubernetes.io/name": component or slug(options.service), "app.kubernetes.io/part-of": "somaresil"}
    return {"name": name, "namespace": options.namespace, "labels": labels}


def files(options: RenderOptions, check: Checker) -> dict[str, str]:
    """A ``PodMonitor`` and a ``PrometheusRule``: pods are scraped each by itself, whichever services they stand behind."""
    endpoints = {"podMetricsEndpoints": [_endpoint(options)]}
    found = {"podmonitor.yaml": yaml(_monitor(options, "PodMonitor", endpoints))}
    rule = _rule(options, check)
    return found if rule is None else {**found, "prometheusrule.yaml": yaml(rule)}


def services(options: RenderOptions, check: Checker) -> dict[str, str]:
    """A ``ServiceMonitor`` instead of a ``PodMonitor``, and the same ``PrometheusRule``. Both monitors would count everything twice."""
    found = {"servicemonitor.yaml": yaml(_monitor(options, "ServiceMonitor", {"endpoints": [_endpoint(options)]}))}
    rule = _rule(options, check)
    return found if rule is None else {**found, "prometheusrule.yaml": yaml(rule)}


def _monitor(options: RenderOptions, kind: str, endpoints: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": kind,
        "metadata": metadata(options, slug(options.service)),
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/name": slug(options.service)}},
            "namespaceSelector": {"any": True},
            "sampleLimit": 100_000,
            **endpoints,
        },
    }


def _endpoint(options: RenderOptions) -> dict[str, Any]:
    return {
        "port": options.port,
        "path": options.metrics_path,
        "interval": duration(float(options.scrape_interval)),  # type: ignore[arg-type]
        "relabelings": [{"action": "replace", "targetLabel": label, "replacement": value} for label, value in rules.named(options).items()],
    }


def _rule(options: RenderOptions, check: Checker) -> dict[str, Any] | None:
    groups = rules.groups(options, check)
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata(options, f"somaresil-{slug(options.service)}"[:63].rstrip("-")),
        "spec": {"groups": groups},
    }
    # An object of Kubernetes has at most one and a half megabytes.
    if len(json.dumps(document)) > 1_000_000:  # noqa: PLR2004
        check.problem(
            "slos", f"{len(options.slos)} objectives", "rules that fit into one object", "render prometheus-rules, and load the files"
        )
        return None
    return document
