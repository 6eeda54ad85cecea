"""The same stack as objects of Kubernetes, for ``kubectl apply -k``: whatever needs no operator, under the restricted profile of pods.

Each program may talk to those that it must talk to, and to nobody else. Secrets are named and not written: ``somaresil-grafana`` with the
key ``admin-password``, and ``somaresil-alertmanager`` with those that the receivers need.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from somaresil.render import alertmanager, grafana, prometheus, rules
from somaresil.render.images import IMAGES
from somaresil.render.podmonitor import metadata
from somaresil.render.prometheus import slug
from somaresil.render.stack import BOARDS, GRAFANA, parts
from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions
    from somaresil.render.stack import Part

__all__ = ["files"]

_LARGEST: Final = 1_000_000
"""Characters in a ConfigMap; Kubernetes takes a MiB of bytes."""
_SIZE: Final = {"prometheus": "20Gi", "loki": "20Gi", "jaeger": "20Gi", "grafana": "1Gi", "alertmanager": "1Gi"}
_TALKS: Final = {
    "prometheus": (("alertmanager", 9093), ("otel-collector", 8888), ("otel-collector", 8889), ("loki", 3100), ("grafana", 3000)),
    "grafana": (("prometheus", 9090), ("loki", 3100), ("jaeger", 16686)),
    "otel-collector": (("jaeger", 4317), ("loki", 3100)),
    "alertmanager": (),
    "loki": (),
    "jaeger": (),
}
"""Who asks whom, and at which port."""
_OPEN: Final = {"grafana": (3000,), "otel-collector": (4317, 4318)}
"""What pods of other namespaces may ask."""


def files(options: RenderOptions, check: Checker) -> dict[str, str]:
    """A file for each program, one for the namespace, one for each board, and ``kustomization.yaml``."""
    found = {"namespace.yaml": yaml(_namespace(options))}
    boards = {f"boards/{name}": text for name, text in grafana.config_maps(options, check).items()}
    for part in parts(options, check):
        documents = _documents(part, options, check, sorted(name.rpartition("/")[2].partition(".")[0] for name in boards))
        found[f"{part.name}.yaml"] = "---\n".join(yaml(document) for document in documents)
    found |= boards
    found["kustomization.yaml"] = yaml(
        {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": sorted(found)}
    )
    return found


def _namespace(options: RenderOptions) -> dict[str, Any]:
    levels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": options.namespace, "labels": levels}}


def _documents(part: Part, options: RenderOptions, check: Checker, boards: list[str]) -> list[dict[str, Any]]:
    maps = _config_maps(part, options, check)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(options, part.name, part.name)}
    found: list[dict[str, Any]] = [*maps.values(), {**account, "automountServiceAccountToken": False}]
    if part.name == "prometheus" and not options.targets:
        found += _may_see_pods(options)
    if part.data is not None:
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _SIZE[part.name]}}}
        found.append(
            {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata(options, part.name, part.name), "spec": claim}
        )
    return [*found, _deployment(part, options, maps, boards), _service(part, options), _policy(part, options)]


def _config_maps(part: Part, options: RenderOptions, check: Checker) -> dict[str, dict[str, Any]]:
    """By the folder in which a program finds them."""
    texts: dict[str, dict[str, str]] = {}
    for path, text in part.configuration.items():
        folder, _, file = path.rpartition("/")
        texts.setdefault(folder, {})[file] = text
    if part.name == "prometheus":
        texts["/etc/prometheus"] = {prometheus.FILE: prometheus.configuration(options, prometheus.scrape_of_pods(options))}
        own = rules.files(options, check)
        texts[prometheus.RULES] = {name: text for name, text in own.items() if name.endswith(".rules.yaml")}
    elif part.name == "grafana":
        for name, text in grafana.provisioning(options, check).items():
            folder, _, file = name.rpartition("/")
            texts[f"/etc/grafana/provisioning/{folder}"] = {file: text}
    found: dict[str, dict[str, Any]] = {}
    for folder, data in texts.items():
        last = folder.rpartition("/")[2]
        name = part.name if len(texts) == 1 or last == part.name else f"{part.name}-{last}"
        if sum(map(len, data.values())) > _LARGEST:
            check.problem(
                "slos", f"{len(options.slos)} objectives", "rules that fit into one ConfigMap", "mount the files of prometheus-rules"
            )
        found[folder] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(options, name, part.name), "data": data}
    return found


def _may_see_pods(options: RenderOptions) -> list[dict[str, Any]]:
    """Prometheus looks for the pods of the service in every namespace: it may read pods, and nothing else."""
    name = f"somaresil-{options.namespace}-prometheus"
    meta = {"name": name, "labels": metadata(options, name, "prometheus")["labels"]}
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    api = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": f"{api}/v1", "kind": "ClusterRole", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": options.namespace}],
        },
    ]


def _deployment(part: Part, options: RenderOptions, maps: Mapping[str, dict[str, Any]], boards: list[str]) -> dict[str, Any]:
    image = IMAGES[part.name]
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []

    def mount(name: str, path: str, source: dict[str, Any], *, written: bool = False) -> None:
        volumes.append({"name": name, **source})
        mounts.append({"name": name, "mountPath": path, **({} if written else {"readOnly": True})})

    # A folder before what is below it.
    for number, (folder, config) in enumerate(sorted(maps.items())):
        mount(f"config-{number}", folder, {"configMap": {"name": config["metadata"]["name"]}})
    if part.name == "grafana" and boards:
        sources = [{"configMap": {"name": name}} for name in boards]
        mount("boards", BOARDS, {"projected": {"sources": sources}})
    if part.name == "alertmanager" and alertmanager.secrets(options):
        items = [{"key": name, "path": name} for name in alertmanager.secrets(options)]
        mount("secrets", alertmanager.SECRETS, {"secret": {"secretName": "somaresil-alertmanager", "items": items}})
    if part.data is not None:
        mount("data", part.data, {"persistentVolumeClaim": {"claimName": part.name}}, written=True)
    if part.data != "/tmp":
        mount("tmp", "/tmp", {"emptyDir": {"sizeLimit": "64Mi"}}, written=True)
    container: dict[str, Any] = {
        "name": part.name,
        "image": image.name,
        **({"args": list(part.arguments)} if part.arguments else {}),
        **({"env": _environment()} if part.name == "grafana" else {}),
        "ports": [{"name": f"p{port}", "containerPort": port} for port in (image.port, *part.ports)],
        "readinessProbe": {"httpGet": {"path": image.health, "port": image.health_port}, "periodSeconds": 10, "failureThreshold": 6},
        # It hangs when its port does not answer; whether it is ready is another question.
        "livenessProbe": {"tcpSocket": {"port": image.port}, "initialDelaySeconds": 60, "periodSeconds": 20, "failureThreshold": 6},
        "resources": {
            "requests": {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "64Mi"},
            "limits": {"memory": image.memory, "ephemeral-storage": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    digest = hashlib.sha256("".join(text for config in maps.values() for text in config["data"].values()).encode()).hexdigest()
    sees_pods = part.name == "prometheus" and not options.targets
    pod = {
        "serviceAccountName": part.name,
        "automountServiceAccountToken": sees_pods,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": image.user,
            "runAsGroup": image.user,
            "fsGroup": image.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    # A new configuration is a new pod.
    labels = {**metadata(options, part.name, part.name)["labels"]}
    template = {"metadata": {"labels": labels, "annotations": {"somaresil/configuration": digest[:16]}}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(options, part.name, part.name),
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 3,
            # Two of them must not write to one folder.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app.kubernetes.io/name": part.name, "app.kubernetes.io/part-of": "somaresil"}},
            "template": template,
        },
    }


def _environment() -> list[dict[str, Any]]:
    password = {"secretKeyRef": {"name": "somaresil-grafana", "key": "admin-password"}}
    return [
        *({"name": name, "value": value} for name, value in GRAFANA.items()),
        {"name": "GF_SECURITY_ADMIN_PASSWORD", "valueFrom": password},
    ]


def _service(part: Part, options: RenderOptions) -> dict[str, Any]:
    ports = [{"name": f"p{port}", "port": port, "targetPort": port} for port in (IMAGES[part.name].port, *part.ports)]
    selector = {"app.kubernetes.io/name": part.name, "app.kubernetes.io/part-of": "somaresil"}
    spec = {"type": "ClusterIP", "selector": selector, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata(options, part.name, part.name), "spec": spec}


def _policy(part: Part, options: RenderOptions) -> dict[str, Any]:
    ingress = [
        {"from": [_pods(asker)], "ports": [_port(port) for name, port in asked if name == part.name]}
        for asker, asked in _TALKS.items()
        if any(name == part.name for name, _ in asked)
    ]
    if part.name in _OPEN:
        ingress.append({"from": [{"namespaceSelector": {}}], "ports": [_port(port) for port in _OPEN[part.name]]})
    egress: list[dict[str, Any]] = [{"to": [_pods(name)], "ports": [_port(port)]} for name, port in _TALKS[part.name]]
    egress.append({"ports": [_port(53, "UDP"), _port(53)]})
    if part.name == "prometheus":
        pods = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": slug(options.service)}}}
        egress.append({"to": [pods]})
        # The API of Kubernetes, which has no pod.
        egress.append({"ports": [_port(443), _port(6443)]})
    if part.name == "alertmanager":
        egress.append({"ports": [_port(port) for port in _receivers(options)]})
    spec = {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": part.name, "app.kubernetes.io/part-of": "somaresil"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": ingress,
        "egress": egress,
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(options, part.name, part.name),
        "spec": spec,
    }


def _receivers(options: RenderOptions) -> list[int]:
    """The ports at which somebody is told."""
    found = {443}
    for to in (options.page_to, options.ticket_to):
        kind, _, where = (to or "").partition(":")
        if kind.startswith("webhook"):
            address = urlsplit(where)
            found.add(address.port or (443 if address.scheme == "https" else 80))
    return sorted(found)


def _pods(name: str) -> dict[str, Any]:
    return {"podSelector": {"matchLabels": {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "somaresil"}}}


def _port(port: int, protocol: str = "TCP") -> dict[str, Any]:
    return {"port": port, "protocol": protocol}
