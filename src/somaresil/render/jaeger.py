"""Jaeger, version 2: traces that the collector sends, kept on disk for two weeks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions

__all__ = ["FILE", "files"]

FILE: Final = "jaeger.yaml"
_STORE: Final = "traces"


def files(_: RenderOptions, __: Checker) -> dict[str, str]:
    """``jaeger.yaml``; its data are in ``/tmp``, which its image lets it write to."""
    configuration: dict[str, Any] = {
        "extensions": {
            "healthcheckv2": {"use_v2": True, "http": {"endpoint": "0.0.0.0:13133"}},
            "jaeger_storage": {
                "backends": {
                    _STORE: {
                        "badger": {
                            "directories": {"keys": "/tmp/badger/keys", "values": "/tmp/badger/values"},
                            "ephemeral": False,
                            "ttl": {"spans": "336h"},
                        }
                    }
                }
            },
            "jaeger_query": {
                "storage": {"traces": _STORE},
                "http": {"endpoint": "0.0.0.0:16686"},
                "grpc": {"endpoint": "0.0.0.0:16685"},
            },
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": "0.0.0.0:4317"}, "http": {"endpoint": "0.0.0.0:4318"}}}},
        "processors": {"batch": {}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": _STORE}},
        "service": {
            "extensions": ["healthcheckv2", "jaeger_storage", "jaeger_query"],
            "telemetry": {"resource": {"service.name": "jaeger"}, "logs": {"level": "info"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "processors": ["batch"], "exporters": ["jaeger_storage_exporter"]}},
        },
    }
    return {FILE: yaml(configuration)}
