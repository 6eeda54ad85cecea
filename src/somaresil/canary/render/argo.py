"""Argo Rollouts' ``AnalysisTemplate``, in three forms, and the ``Rollout`` that uses it.

A step sets the weight, bakes, and then looks for evidence: one pass is enough (before version 1.8 the looks go on to the end), one
failure aborts, and when ``looks`` went by without either the run is inconclusive and Argo asks a human. All the while a background analysis
watches for a failure. Argo takes a run without a failure for successful, also one that never saw a pass; so there is one look more than may
be inconclusive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.canary.render.options import percents, seconds
from somaresil.slo.rules.text import quoted

if TYPE_CHECKING:
    from somaresil.canary.config import CanaryConfig
    from somaresil.canary.render.options import RenderOptions
    from somaresil.config import Checker

__all__ = ["job", "prometheus", "rollout", "web"]

_VERSION: Final = "argoproj.io/v1alpha1"
_PATIENCE: Final = 5
_ERRORS: Final = 4
"""Errors in succession with which a run ends: what Argo does by itself, written down."""
_HASH: Final = "{{args.canary-hash}}"
_FOREVER: Final = 2**31 - 1
_FAIL: Final = 'result.verdict == "fail"'


def web(config: CanaryConfig, target: RenderOptions, check: Checker) -> list[dict[str, Any]]:
    """Argo asks the verdict app itself: the template of a step, and the one of the background."""
    url = f"{_url(target, check)}/argo/verdict?canary={_name(config, check)}&checksum={_HASH}"
    provider: dict[str, Any] = {
        "web": {"url": url, "method": "GET", "timeoutSeconds": _PATIENCE, "jsonPath": "{$.data}", **_headers(target)}
    }
    return _pair(config, target, check, provider, 'result.verdict == "pass"', _FAIL)


def prometheus(config: CanaryConfig, target: RenderOptions, check: Checker) -> list[dict[str, Any]]:
    """Argo asks the verdict app as if it was Prometheus. No data is an empty vector: neither pass nor failure."""
    query = f'somaresil_canary_verdict{{canary={quoted(_name(config, check))},checksum="{_HASH}"}}'
    provider: dict[str, Any] = {"prometheus": {"address": f"{_url(target, check)}/prom", "query": query, **_headers(target)}}
    return _pair(config, target, check, provider, "len(result) > 0 && result[0] > 0", "len(result) > 0 && result[0] < 0")


def job(config: CanaryConfig, target: RenderOptions, check: Checker) -> list[dict[str, Any]]:
    """A job that asks: 0 pass, 1 fail, 2 nothing is known. A job is done or it failed, so it asks again until one or the other is known.

    There is no template for the background: a job has no word for "nothing yet".
    """
    if target.image is None:
        check.problem("target.image", None, "an image with the command somaresil")
    wait = round(target.looks * _interval(target))
    command = [
        "somaresil",
        "canary",
        "verdict",
        _name(config, check),
        "--url",
        _url(target, check),
        f"--checksum={_HASH}",
        f"--wait={wait}",
    ]
    environment: list[dict[str, Any]] = []
    if target.secret is not None:
        command.append("--token-env=SOMARESIL_TOKEN")
        reference = {"secretKeyRef": {"name": target.secret, "key": target.secret_key}}
        environment.append({"name": "SOMARESIL_TOKEN", "valueFrom": reference})
    container: dict[str, Any] = {
        "name": "verdict",
        "image": target.image or "",
        "command": command,
        **({"env": environment} if environment else {}),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    spec = {
        "backoffLimit": 0,
        "activeDeadlineSeconds": wait + 60,
        "template": {"spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}},
    }
    metric = {"name": "verdict", "count": 1, "failureLimit": 0, "provider": {"job": {"spec": spec}}}
    return [_template(target.name, target, [metric], token=False)]


def rollout(config: CanaryConfig, target: RenderOptions, check: Checker) -> list[dict[str, Any]]:
    """A ``Rollout`` of an existing deployment, with the steps of the configuration and the templates by name.

    The form ``job`` has no template for the background: with it, render this with ``background=False``.
    """
    weights = percents(config, check, "Argo Rollouts")
    if target.workload_kind != "Deployment":
        check.problem("target.workload_kind", target.workload_kind, "Deployment", "a Rollout takes over no other workload")
    steps: list[dict[str, Any]] = []
    for number, (phase, weight) in enumerate(zip(config.phases, weights, strict=True)):
        steps.append({"setWeight": weight})
        if phase.bake:
            steps.append({"pause": {"duration": seconds(phase.bake, check, f"config.steps[{number}].bake", "Argo Rollouts")}})
        steps.append({"analysis": {"templates": [{"templateName": target.name}], "args": _hashes()}})
    service = target.service or target.name
    background = {"templates": [{"templateName": f"{target.name}-guard"}], "startingStep": 1, "args": _hashes()}
    return [
        {
            "apiVersion": _VERSION,
            "kind": "Rollout",
            "metadata": {"name": target.name, "namespace": target.namespace},
            "spec": {
                "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target.workload or target.name},
                "strategy": {
                    "canary": {
                        "canaryService": f"{service}-canary",
                        "stableService": f"{service}-stable",
                        **({"analysis": background} if target.background else {}),
                        "steps": steps,
                    }
                },
            },
        }
    ]


def _pair(
    config: CanaryConfig, target: RenderOptions, check: Checker, provider: dict[str, Any], good: str, bad: str
) -> list[dict[str, Any]]:
    interval = seconds(_interval(target), check, "target.interval", "Argo Rollouts")
    looks = _looks(config, target, check)
    step = {
        "name": "verdict",
        "interval": interval,
        "count": looks + 1,
        "consecutiveSuccessLimit": 1,
        "failureLimit": 0,
        "inconclusiveLimit": looks,
        "consecutiveErrorLimit": _ERRORS,
        "successCondition": good,
        "failureCondition": bad,
        "provider": provider,
    }
    # No count: until the rollout is over. With a failure condition alone everything else is a success.
    guard = {
        "name": "no-failure",
        "interval": interval,
        "failureLimit": 0,
        "consecutiveErrorLimit": _FOREVER,
        "failureCondition": bad,
        "provider": provider,
    }
    return [_template(target.name, target, [step], token=True), _template(f"{target.name}-guard", target, [guard], token=True)]


def _looks(config: CanaryConfig, target: RenderOptions, check: Checker) -> int:
    """How many looks may see nothing: those after the bake, until the step is overdue."""
    found: list[int] = []
    for number, phase in enumerate(config.phases):
        if phase.longest == float("inf"):
            continue
        if phase.overdue != "hold":
            check.problem(f"config.steps[{number}].overdue", phase.overdue, "hold", "Argo asks a human when nothing is known")
        found.append(max(1, int((phase.longest - phase.bake) // _interval(target))))
    # One template serves all steps.
    return max(found, default=target.looks)


def _template(name: str, target: RenderOptions, metrics: list[dict[str, Any]], *, token: bool) -> dict[str, Any]:
    arguments: list[dict[str, Any]] = [{"name": "canary-hash"}, {"name": "stable-hash"}]
    if token and target.secret is not None:
        reference = {"secretKeyRef": {"name": target.secret, "key": target.secret_key}}
        arguments.append({"name": "token", "valueFrom": reference})
    return {
        "apiVersion": _VERSION,
        "kind": "AnalysisTemplate",
        "metadata": {"name": name, "namespace": target.namespace},
        "spec": {"args": arguments, "metrics": metrics},
    }


def _hashes() -> list[dict[str, Any]]:
    return [
        {"name": "canary-hash", "valueFrom": {"podTemplateHashValue": "Latest"}},
        {"name": "stable-hash", "valueFrom": {"podTemplateHashValue": "Stable"}},
    ]


def _headers(target: RenderOptions) -> dict[str, Any]:
    return {} if target.secret is None else {"headers": [{"key": "Authorization", "value": "Bearer {{args.token}}"}]}


def _interval(target: RenderOptions) -> float:
    return float(target.interval) if isinstance(target.interval, int | float) else target.interval.total_seconds()


def _url(target: RenderOptions, check: Checker) -> str:
    if target.verdict_url is None:
        check.problem("target.verdict_url", None, "where the verdict app is mounted")
        return ""
    return target.verdict_url.rstrip("/")


def _name(config: CanaryConfig, check: Checker) -> str:
    """The name, which stands in a query of a URL, where Argo looks for its templates."""
    if "{" in config.name or "}" in config.name:
        check.problem("config.name", config.name, "a name without { }", "Argo reads them as its templates")
    return config.name
