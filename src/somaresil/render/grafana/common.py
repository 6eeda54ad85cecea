"""What several boards have: what can be chosen, what is marked, how a share is written."""

from __future__ import annotations

from typing import Final

from somaresil.render.grafana.build import BAD, ENVIRONMENT, NOTED, WARNED, Variable, annotation, log_annotation

__all__ = [
    "ALERTS",
    "BOARDS",
    "BREAKER_WORDS",
    "CANARIES",
    "DEPLOYED_VERSIONS",
    "DEPLOYMENTS",
    "ENVIRONMENTS",
    "EXPERIMENTS",
    "GUARDS",
    "SERVICE",
    "breaker_state",
    "mean",
    "quantile",
    "share",
]

BOARDS: Final = {
    "services": "somaresil-services",
    "slos": "somaresil-slos",
    "chaos": "somaresil-chaos",
    "canary": "somaresil-canary",
    "load": "somaresil-load",
}
"""The uid of each board, by the name of its file."""

SERVICE: Final = Variable("service", "Service", "label_values(somaresil_calls_total, service)", "Whose calls are shown.", several=False)
ENVIRONMENTS: Final = Variable(
    "environment", "Environment", 'label_values(somaresil_calls_total{service=~"$service"}, environment)', "Where it runs; all: everywhere."
)
GUARDS: Final = Variable("guard", "Guard", f"label_values(somaresil_calls_total{{{ENVIRONMENT}}}, guard)", "Which guarded calls.")

DEPLOYMENTS: Final = annotation(
    "Deployments",
    f"sum by (service) (increase(somaresil_deployments_total{{{ENVIRONMENT}}}[$__rate_interval])) > 0",
    NOTED,
    title="{{service}}: a version was put in service",
    tags="service",
)
DEPLOYED_VERSIONS: Final = log_annotation(
    "Versions", '{service_name="$service"} | json | somaresil_event="DeploymentMarked"', NOTED, title="{{service_name}}"
)
EXPERIMENTS: Final = annotation(
    "Experiments",
    f"sum by (component, fault) (somaresil_experiments{{{ENVIRONMENT}}}) > 0",
    WARNED,
    title="experiment: {{fault}} on {{component}}",
    tags="component,fault",
)
CANARIES: Final = annotation(
    "Canaries",
    f"sum by (canary, step) (increase(somaresil_canary_moves_total{{{ENVIRONMENT}}}[$__rate_interval])) > 0",
    "purple",
    title="canary {{canary}}: {{step}}",
    tags="canary,step",
)
ALERTS: Final = annotation(
    "Alerts",
    'ALERTS{alertstate="firing",service=~"$service"}',
    BAD,
    title="{{alertname}} {{slo}}{{guard}}",
    tags="severity,slo,guard",
)

_BREAKER_STATES: Final = (
    ("closed", "closed", "green"),
    ("metrics_only", "only watched", "blue"),
    ("disabled", "disabled", "gray"),
    ("ramping", "ramping", "yellow"),
    ("half_open", "half open", "orange"),
    ("open", "open", "red"),
    ("forced_open", "forced open", "dark-red"),
)
BREAKER_WORDS: Final = {str(place): (text, colour) for place, (_, text, colour) in enumerate(_BREAKER_STATES, 1)}
"""What the numbers of :func:`breaker_state` mean."""


def breaker_state(selector: str) -> str:
    """The worst state that the breaker of a guard is in, in any of its processes, as a number."""
    each = [
        f'(somaresil_breaker_state{{{selector},state="{state}"}} > 0) * 0 + {place}'
        for place, (state, _, _) in enumerate(_BREAKER_STATES, 1)
    ]
    return f"max by (guard) ({' or '.join(each)})"


def share(part: str, whole: str) -> str:
    """A ratio; nothing where nothing was counted, rather than NaN."""
    return f"{part} / ({whole} > 0)"


def quantile(q: float, metric: str, selector: str, by: str, window: str = "$__rate_interval") -> str:
    """A quantile of a histogram."""
    labels = ", ".join(part for part in (by, "le") if part)
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({metric}_bucket{{{selector}}}[{window}])))"


def mean(metric: str, selector: str, by: str, window: str = "$__range") -> str:
    """The mean of a histogram that has a sum."""
    whole = f"sum by ({by}) (increase({metric}_count{{{selector}}}[{window}]))"
    return share(f"sum by ({by}) (increase({metric}_sum{{{selector}}}[{window}]))", whole)
