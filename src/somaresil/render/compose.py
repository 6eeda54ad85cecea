"""A compose file with Prometheus, Alertmanager, Grafana, Loki, Jaeger and the OpenTelemetry collector, and everything that it mounts.

People reach them on loopback alone. No program runs as root, has a capability or may write anything but its own data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.render import alertmanager, grafana, prometheus, rules
from somaresil.render.images import IMAGES
from somaresil.render.stack import BOARDS, GRAFANA, parts
from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions
    from somaresil.render.stack import Part

__all__ = ["files"]

_NET: Final = "watch"
_FETCH: Final = {
    "prometheus": ("/bin/wget",),
    "alertmanager": ("/bin/wget",),
    "grafana": ("wget",),
    "loki": ("/busybox/wget",),
    "jaeger": ("wget",),
}
"""What an image has to ask its own port with; the collector's has nothing but the collector."""
_OPEN: Final = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000, "jaeger": 16686}
"""What people open in a browser."""


def files(options: RenderOptions, check: Checker) -> dict[str, str]:
    """``compose.yaml``, and the folders beside it that it mounts."""
    found = {f"prometheus/{name}": text for name, text in prometheus.files(options, check).items()}
    found |= {f"prometheus/rules/{name}": text for name, text in rules.files(options, check).items() if name.endswith(".rules.yaml")}
    found |= {f"grafana/provisioning/{name}": text for name, text in grafana.provisioning(options, check).items()}
    found |= {f"grafana/boards/{name}": text for name, text in grafana.files(options, check).items()}
    programs = parts(options, check)
    for part in programs:
        found |= {f"{part.name}/{path.rpartition('/')[2]}": text for path, text in part.configuration.items()}
    secrets = {"grafana_admin": "grafana_admin", **{f"alertmanager_{name}": name for name in alertmanager.secrets(options)}}
    found["compose.yaml"] = yaml(
        {
            "name": f"watch-{prometheus.slug(options.service)}",
            "services": {part.name: _service(part, options) for part in programs},
            "networks": {_NET: {"driver": "bridge"}},
            "volumes": {part.name: {} for part in programs if part.data is not None},
            # Files that must be there; they are not written, and belong into no repository.
            "secrets": {name: {"file": f"./secrets/{file}"} for name, file in secrets.items()},
        }
    )
    return found


def _service(part: Part, options: RenderOptions) -> dict[str, Any]:
    image = IMAGES[part.name]
    mounts = [f"./{part.name}/{path.rpartition('/')[2]}:{path}:ro" for path in part.configuration]
    more: dict[str, Any] = {}
    if part.name == "prometheus":
        mounts += [f"./prometheus/{prometheus.FILE}:/etc/prometheus/prometheus.yml:ro", f"./prometheus/rules:{prometheus.RULES}:ro"]
        # On Linux the name of the host must be said.
        more["extra_hosts"] = ["host.docker.internal:host-gateway"]
    elif part.name == "grafana":
        mounts += ["./grafana/provisioning:/etc/grafana/provisioning:ro", f"./grafana/boards:{BOARDS}:ro"]
        more["environment"] = {**GRAFANA, "GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/grafana_admin"}
        more["secrets"] = [{"source": "grafana_admin"}]
    elif part.name == "alertmanager" and alertmanager.secrets(options):
        more["secrets"] = [
            {"source": f"alertmanager_{name}", "target": f"{alertmanager.SECRETS}/{name}"} for name in alertmanager.secrets(options)
        ]
    elif part.name == "otel-collector":
        more["ports"] = ["127.0.0.1:4317:4317", "127.0.0.1:4318:4318"]
    if part.name in _OPEN:
        more["ports"] = [f"127.0.0.1:{_OPEN[part.name]}:{_OPEN[part.name]}"]
    if part.data is not None:
        mounts.append(f"{part.name}:{part.data}")
    if part.data != "/tmp":
        more["tmpfs"] = ["/tmp:mode=1777,size=64m"]
    if part.name in _FETCH:
        address = f"http://127.0.0.1:{image.health_port}{image.health}"
        more["healthcheck"] = {
            "test": ["CMD", *_FETCH[part.name], "-q", "-O", "/dev/null", address],
            "interval": "15s",
            "timeout": "5s",
            "retries": 5,
            "start_period": "30s",
        }
    return {
        "image": image.name,
        **({"command": list(part.arguments)} if part.arguments else {}),
        "user": f"{image.user}:{image.user}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": 512,
        "mem_limit": image.memory.replace("Gi", "g").replace("Mi", "m"),
        "restart": "unless-stopped",
        "networks": [_NET],
        "volumes": mounts,
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
        **more,
    }
