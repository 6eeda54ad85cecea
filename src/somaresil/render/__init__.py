"""What others need to see a service: boards, rules and manifests, from the service's own configuration.

    files = render("grafana", RenderOptions(service="gateway", slos=read_slos("slo.toml").slos))

Pure functions: the same options give the same files, to the byte, so that they can be committed and a change of a file is a change of what
is seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.config import Checker, did_you_mean
from somaresil.render import (
    alertmanager,
    collector,
    compose,
    falco,
    grafana,
    jaeger,
    kubernetes,
    loki,
    podmonitor,
    prometheus,
    rules,
    scanning,
)
from somaresil.render.options import RenderOptions
from somaresil.render.rules import notes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["KINDS", "RenderOptions", "notes", "render"]

_KINDS: Final[dict[str, Callable[[RenderOptions, Checker], dict[str, str]]]] = {
    "prometheus-rules": rules.files,
    "prometheus": prometheus.files,
    "alertmanager": alertmanager.files,
    "otel-collector": collector.files,
    "jaeger": jaeger.files,
    "loki": loki.files,
    "podmonitor": podmonitor.files,
    "servicemonitor": podmonitor.services,
    "compose": compose.files,
    "kubernetes": kubernetes.files,
    "grafana": grafana.files,
    "grafana-provisioning": grafana.provisioning,
    "grafana-kubernetes": grafana.config_maps,
    "falco": falco.files,
    "security-workflow": scanning.security_workflow,
    "trivy": scanning.trivy,
    "sbom": scanning.sbom,
}
KINDS: Final = tuple(_KINDS)
"""What can be rendered."""


def render(kind: str, options: RenderOptions) -> dict[str, str]:
    """The files of this kind, one of ``KINDS``: their texts by their names, which are paths below a folder.

    Raises :class:`~somaresil.errors.ConfigurationError` with everything that cannot be said in files of this kind.
    """
    check = Checker("render")
    if kind not in KINDS:
        check.problem("kind", kind, " | ".join(KINDS), did_you_mean(kind, KINDS))
    check.type("options", options, RenderOptions, "RenderOptions(...)")
    check.finish()
    found = _KINDS[kind](options, check)
    check.finish()
    return dict(sorted(found.items()))
