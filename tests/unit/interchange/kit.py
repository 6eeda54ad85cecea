"""Documents of others, as they are written in the wild, and ways to change them."""

from __future__ import annotations

import copy

import yaml

from somaresil import ConfigurationError
from somaresil.interchange import import_text

SLOTH = {
    "version": "prometheus/v1",
    "service": "shop",
    "slos": [
        {
            "name": "availability",
            "objective": 99.9,
            "description": "Requests are answered",
            "sli": {
                "events": {
                    "error_query": 'sum(rate(http_requests_total{code=~"5.."}[{{.window}}]))',
                    "total_query": "sum(rate(http_requests_total[{{.window}}]))",
                }
            },
            "alerting": {"page_alert": {}, "ticket_alert": {}},
        }
    ],
}
PYRRA = {
    "apiVersion": "pyrra.dev/v1alpha1",
    "kind": "ServiceLevelObjective",
    "metadata": {"name": "answers"},
    "spec": {
        "target": "99.5",
        "window": "4w",
        "description": "Requests are answered",
        "indicator": {
            "ratio": {
                "errors": {"metric": 'http_requests_total{job="shop",code=~"5.."}'},
                "total": {"metric": 'http_requests_total{job="shop"}'},
            }
        },
    },
}


def metric(query, **more):
    """A metric of OpenSLO."""
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}, **more}}


def document(kind, name, spec, **metadata):
    """A document of OpenSLO."""
    return {"apiVersion": "openslo/v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


OPENSLO = [
    document(
        "SLO",
        "availability",
        {
            "description": "Requests are answered",
            "service": "shop",
            "indicatorRef": "requests",
            "timeWindow": [{"duration": "4w", "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"displayName": "all", "target": 0.999}],
            "alertPolicies": [{"alertPolicyRef": "fast"}],
        },
    ),
    document(
        "SLI",
        "requests",
        {
            "ratioMetric": {
                "counter": True,
                "good": {"metricSource": {"metricSourceRef": "fleet", "spec": {"query": 'sum(http_requests_total{code!~"5.."})'}}},
                "total": {"metricSource": {"metricSourceRef": "fleet", "spec": {"query": "http_requests_total"}}},
            }
        },
    ),
    document("DataSource", "fleet", {"type": "Prometheus", "connectionDetails": {"url": "http://prometheus:9090"}}),
    document("Service", "shop", {}),
    document(
        "AlertPolicy",
        "fast",
        {
            "alertWhenBreaching": True,
            "conditions": [{"conditionRef": "burns"}],
            "notificationTargets": [{"targetRef": "phone"}],
        },
    ),
    document(
        "AlertCondition",
        "burns",
        {
            "severity": "page",
            "condition": {"kind": "burnrate", "op": "gt", "threshold": 13.44, "lookbackWindow": "1h", "alertAfter": "5m"},
        },
    ),
    document("AlertNotificationTarget", "phone", {"target": "opsgenie"}),
]
FORMATS = {"openslo": OPENSLO, "sloth": [SLOTH], "pyrra": [PYRRA]}


def changed(documents, *changes):
    """A copy in which values at paths are others, or gone where they are ``...``."""
    found = copy.deepcopy(documents)
    for path, value in changes:
        here = found
        for key in path[:-1]:
            here = here[key]
        if value is ...:
            del here[path[-1]]
        else:
            here[path[-1]] = value
    return found


class Plain(yaml.SafeDumper):
    """Writes what stands twice twice."""

    def ignore_aliases(self, data):
        return True


def text_of(documents):
    """YAML of several documents."""
    return yaml.dump_all(documents, Dumper=Plain, sort_keys=False)


def read(form, documents, **more):
    """Import documents."""
    return import_text(text_of(documents), form, name="a.yaml", **more)


def problems(form, documents, **more):
    """What is wrong with documents, without lines."""
    try:
        read(form, documents, **more)
    except ConfigurationError as wrong:
        return [problem.path.partition(": ")[2] if problem.path.startswith("a.yaml") else problem.path for problem in wrong.problems]
    return []
