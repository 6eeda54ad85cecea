"""Loki, version 3, as one process with its data on disk: lines over OTLP, with a small set of labels.

Labels are what tells streams apart, so they are few: the service and its environment (and the level, which Loki finds by itself and keeps
beside the line). Ids of traces, guards and experiments are in the lines and their metadata, where a query finds them too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions

__all__ = ["FILE", "files"]

FILE: Final = "loki.yaml"


def files(_: RenderOptions, __: Checker) -> dict[str, str]:
    """``loki.yaml``; its data are in ``/loki``."""
    configuration: dict[str, Any] = {
        "auth_enabled": False,
        "server": {"http_listen_port": 3100, "grpc_listen_port": 9095, "log_level": "info"},
        "common": {
            "path_prefix": "/loki",
            "replication_factor": 1,
            "ring": {"kvstore": {"store": "inmemory"}},
            "storage": {"filesystem": {"chunks_directory": "/loki/chunks", "rules_directory": "/loki/rules"}},
        },
        "schema_config": {
            "configs": [
                {
                    "from": "2024-04-01",
                    "store": "tsdb",
                    "object_store": "filesystem",
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "limits_config": {
            "allow_structured_metadata": True,
            "discover_log_levels": True,
            "retention_period": "336h",
            "reject_old_samples": True,
            "reject_old_samples_max_age": "168h",
            "ingestion_rate_mb": 8,
            "ingestion_burst_size_mb": 16,
            "max_label_names_per_series": 10,
            "max_line_size": "256KB",
            "max_line_size_truncate": True,
            "max_global_streams_per_user": 5_000,
            "otlp_config": {
                "resource_attributes": {
                    # Loki's own list has seventeen, among them the id of each process.
                    "ignore_defaults": True,
                    "attributes_config": [
                        {
                            "action": "index_label",
                            "attributes": ["service.name", "deployment.environment", "deployment.environment.name"],
                        }
                    ],
                }
            },
        },
        "compactor": {
            "working_directory": "/loki/compactor",
            "retention_enabled": True,
            "delete_request_store": "filesystem",
        },
        "analytics": {"reporting_enabled": False},
    }
    return {FILE: yaml(configuration)}
