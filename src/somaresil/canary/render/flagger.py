"""Flagger's ``Canary`` and ``MetricTemplate``.

Flagger gives each step one interval, so its interval is how long a step bakes. It asks ``rollback`` at each interval, ``rollout`` before
the metrics, and ``confirm-traffic-increase`` before each step, so a step lasts longer while the evidence is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.render.options import percents, seconds
from somaresil.slo.rules.text import quoted

if TYPE_CHECKING:
    from somaresil.canary.config import CanaryConfig
    from somaresil.canary.render.options import RenderOptions
    from somaresil.config import Checker

__all__ = ["HOOKS", "documents"]

HOOKS: Final = (
    "confirm-rollout",
    "pre-rollout",
    "rollout",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
    "rollback",
    "event",
)
"""Each has a path of its own: the payload does not say which one it is."""
_SHORTEST: Final = 10.0
_PATIENCE: Final = "5s"


def documents(config: CanaryConfig, target: RenderOptions, check: Checker) -> list[dict[str, Any]]:
    """A ``Canary`` and the ``MetricTemplate`` of each of its metrics."""
    weights = percents(config, check, "Flagger")
    bakes = sorted({phase.bake for phase in config.phases})
    if len(bakes) > 1:
        check.problem("config.steps", ", ".join(f"{bake:g} s" for bake in bakes), "the same bake for all steps", "Flagger has one interval")
    if bakes[0] < _SHORTEST:
        check.problem("config.bake", bakes[0], f"{_SHORTEST:g} s at least", "Flagger makes it that anyway")
    for number, phase in enumerate(config.phases):
        if phase.longest != float("inf"):
            check.problem(f"config.steps[{number}].longest", phase.longest, "none", "Flagger waits for evidence for ever: overdue is ours")
    url = target.verdict_url
    if url is None:
        check.problem("target.verdict_url", None, "where the verdict app is mounted")
        url = ""
    interval = seconds(bakes[0], check, "config.bake", "Flagger")
    metrics = _metrics(config, target)
    canary: dict[str, Any] = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": target.name, "namespace": target.namespace},
        "spec": {
            **({} if target.provider is None else {"provider": target.provider}),
            "targetRef": {
                "apiVersion": "v1" if target.workload_kind == "Service" else "apps/v1",
                "kind": target.workload_kind,
                "name": target.workload or target.name,
            },
            "service": {**({} if target.service is None else {"name": target.service}), "port": target.port},
            "analysis": {
                "interval": interval,
                "threshold": target.threshold,
                "stepWeights": weights,
                "metrics": [
                    {"name": name, "templateRef": {"name": name}, "thresholdRange": limits, "interval": interval}
                    for name, _, limits in metrics
                ],
                "webhooks": [
                    {
                        "name": f"somaresil-{hook}",
                        "type": hook,
                        "url": f"{url.rstrip('/')}/flagger/{config.name}/{hook}",
                        "timeout": _PATIENCE,
                    }
                    for hook in HOOKS
                ],
            },
        },
    }
    _plain(config, check)
    return [canary, *(_template(name, query, url, target) for name, query, _ in metrics)]


def _metrics(config: CanaryConfig, target: RenderOptions) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, query and range of each. A proven failure is -1, and no data fail a check, as everywhere with Flagger."""
    found: list[tuple[str, str, dict[str, Any]]] = [
        (f"{target.name}-verdict", f"somaresil_canary_verdict{{canary={quoted(config.name)}}}", {"min": 0})
    ]
    if target.burn is not None:
        found += [
            (f"{target.name}-burn-{number}", f'somaresil_burn_rate{{slo={quoted(name)},window="5m"}}', {"max": target.burn})
            for number, name in enumerate(config.objectives, 1)
        ]
    return found


def _template(name: str, query: str, url: str, target: RenderOptions) -> dict[str, Any]:
    provider: dict[str, Any] = {"type": "prometheus", "address": f"{url.rstrip('/')}/prom"}
    if target.secret is not None:
        provider["secretRef"] = {"name": target.secret}
    return {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "MetricTemplate",
        "metadata": {"name": name, "namespace": target.namespace},
        "spec": {"provider": provider, "query": query},
    }


def _plain(config: CanaryConfig, check: Checker) -> None:
    """Note names that Flagger would take for its own templates, or that are no part of a path."""
    if "/" in config.name or "{" in config.name:
        check.problem("config.name", config.name, "a name without / { }", "it is part of the paths of webhooks")
    for name in config.objectives:
        if "{{" in name:
            check.problem("config.bad", name, "a name without {{", "Flagger reads queries as templates")
