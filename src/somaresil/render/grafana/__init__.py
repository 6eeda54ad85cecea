"""Boards for Grafana, as its dashboard JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from somaresil.render.grafana.canary import canary
from somaresil.render.grafana.chaos import chaos
from somaresil.render.grafana.common import BOARDS
from somaresil.render.grafana.load import load
from somaresil.render.grafana.services import services
from somaresil.render.grafana.slos import slos
from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.config import Checker
    from somaresil.render.grafana.build import Board
    from somaresil.render.options import RenderOptions

__all__ = ["boards", "config_maps", "files", "provisioning"]

_BOARDS: Final[dict[str, Callable[[RenderOptions], Board]]] = {
    "services": services,
    "slos": slos,
    "chaos": chaos,
    "canary": canary,
    "load": load,
}
_FOLDER: Final = "somaresil"
_MOUNTED: Final = "/etc/grafana/boards/somaresil"
"""Where Grafana finds the files; the provisioning says so."""


def boards(options: RenderOptions) -> dict[str, dict[str, Any]]:
    """Every board by its name, as data."""
    return {
        name: make(options).as_dict(service=options.service, metrics=options.metrics, traces=options.traces, logs=options.logs)
        for name, make in _BOARDS.items()
    }


def _text(board: dict[str, Any]) -> str:
    return json.dumps(board, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def files(options: RenderOptions, _: Checker) -> dict[str, str]:
    """A file of JSON for each board."""
    return {f"{BOARDS[name]}.json": _text(board) for name, board in boards(options).items()}


def provisioning(options: RenderOptions, _: Checker) -> dict[str, str]:
    """What Grafana reads when it starts: where boards are, and the data sources with the links between metrics, traces and logs."""
    providers = {
        "apiVersion": 1,
        "providers": [
            {
                "name": _FOLDER,
                "folder": _FOLDER,
                "type": "file",
                # What is rendered is the truth: a change by hand would be lost with the next file.
                "allowUiUpdates": False,
                "disableDeletion": False,
                "options": {"path": _MOUNTED},
            }
        ],
    }
    return {"dashboards/somaresil.yaml": yaml(providers), "datasources/somaresil.yaml": yaml(_sources(options))}


def _sources(options: RenderOptions) -> dict[str, Any]:
    seconds = f"{float(options.scrape_interval):g}s"  # type: ignore[arg-type]
    to_logs = {"datasourceUid": options.logs, "filterByTraceID": True, "spanStartTimeShift": "-1m", "spanEndTimeShift": "1m"}
    return {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Prometheus",
                "type": "prometheus",
                "uid": options.metrics,
                "access": "proxy",
                "url": "http://prometheus:9090",
                "isDefault": True,
                "jsonData": {
                    "httpMethod": "POST",
                    "timeInterval": seconds,
                    "exemplarTraceIdDestinations": [{"name": "trace_id", "datasourceUid": options.traces, "urlDisplayLabel": "Trace"}],
                },
            },
            {
                "name": "Jaeger",
                "type": "jaeger",
                "uid": options.traces,
                "access": "proxy",
                "url": "http://jaeger:16686",
                "jsonData": {"tracesToLogsV2": to_logs},
            },
            {
                "name": "Loki",
                "type": "loki",
                "uid": options.logs,
                "access": "proxy",
                "url": "http://loki:3100",
                "jsonData": {
                    "derivedFields": [
                        {
                            "name": "trace_id",
                            "matcherRegex": '"trace_id": ?"([0-9a-f]{32})"',
                            "datasourceUid": options.traces,
                            # Grafana, not the file, puts the id in.
                            "url": "$${__value.raw}",
                            "urlDisplayLabel": "Trace",
                        }
                    ]
                },
            },
        ],
    }


def config_maps(options: RenderOptions, _: Checker) -> dict[str, str]:
    """A ConfigMap for each board, with the label by which the sidecar of Grafana finds it."""
    found = {}
    for name, board in boards(options).items():
        document = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": f"grafana-{BOARDS[name]}",
                "namespace": options.namespace,
                "labels": {
                    "app.kubernetes.io/name": BOARDS[name],
                    "app.kubernetes.io/part-of": "somaresil",
                    **options.labels,
                    "grafana_dashboard": "1",
                },
                "annotations": {"grafana_folder": _FOLDER},
            },
            "data": {f"{BOARDS[name]}.json": _text(board)},
        }
        found[f"grafana-{BOARDS[name]}.configmap.yaml"] = yaml(document)
    return found
