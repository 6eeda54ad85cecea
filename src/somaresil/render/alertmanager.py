"""Alertmanager: who is told of what, and what is not told because something larger is already.

No secret is in the file: they are read from files in :data:`SECRETS`. Whom to tell is asked for: where nobody has said it the receiver is
one that Alertmanager refuses when it starts, and ``amtool check-config`` before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.slo.rules.text import yaml

if TYPE_CHECKING:
    from somaresil.config import Checker
    from somaresil.render.options import RenderOptions

__all__ = ["FILE", "SECRETS", "files", "secrets"]

FILE: Final = "alertmanager.yml"
SECRETS: Final = "/etc/alertmanager/secrets"
"""The folder of the files with secrets: ``page`` and ``ticket``, as far as their receivers need one."""

_TEXT: Final = (
    "{{ range .Alerts }}{{ .Annotations.description }}\n"
    "Runbook: {{ .Annotations.runbook_url }}\n"
    "{{ if .Annotations.dashboard_url }}Board: {{ .Annotations.dashboard_url }}\n{{ end }}{{ end }}"
)
_TITLE: Final = "{{ .CommonLabels.severity }} {{ .CommonLabels.service }}: {{ .CommonAnnotations.summary }}"


def files(options: RenderOptions, _: Checker) -> dict[str, str]:
    """``alertmanager.yml``."""
    return {FILE: yaml(_configuration(options))}


def secrets(options: RenderOptions) -> tuple[str, ...]:
    """The files that must be in :data:`SECRETS`."""
    receivers = (("page", options.page_to), ("ticket", options.ticket_to))
    return tuple(name for name, to in receivers if to is not None and not to.startswith("webhook:"))


def _configuration(options: RenderOptions) -> dict[str, Any]:
    return {
        "global": {"resolve_timeout": "5m"},
        "route": {
            "receiver": "ticket",
            # One message for what is one trouble: many guards of a service may fail for one reason, and are listed in it.
            "group_by": ["service", "environment", "alertname", "slo"],
            "group_wait": "30s",
            "group_interval": "5m",
            "repeat_interval": "24h",
            "routes": [
                {"matchers": ['severity="page"'], "receiver": "page", "group_wait": "10s", "group_interval": "1m", "repeat_interval": "1h"},
                {"matchers": ['severity="ticket"'], "receiver": "ticket"},
            ],
        },
        "inhibit_rules": [
            # The page says it all.
            _inhibit(['severity="page"', 'alertname=~"(Group)?ErrorBudgetBurnPage"'], ['severity="ticket"', 'slo!=""'], "slo", "group"),
            # Nothing is known, so nothing that follows from it is news.
            _inhibit(['alertname="ServiceUnseen"'], ['alertname=~"ObjectiveUnseen|ScrapeFailing|WorkersMissing"']),
            _inhibit(['alertname="PoolExhausted"'], ['alertname="PoolPanics"'], "pool"),
            # A lever that is engaged has ended what these are about; they clear by themselves.
            _inhibit(['alertname="ChaosEngaged"'], ['alertname=~"ExperimentOutOfHours|ExperimentWithoutKillSwitch"']),
        ],
        "receivers": [_receiver("page", options.page_to), _receiver("ticket", options.ticket_to)],
    }


def _inhibit(source: list[str], target: list[str], *equal: str) -> dict[str, Any]:
    return {"source_matchers": source, "target_matchers": target, "equal": ["service", "environment", *equal]}


def _receiver(name: str, to: str | None) -> dict[str, Any]:
    """Where it goes; every kind tells that it is over, too."""
    kind, _, where = (to or "").partition(":")
    if kind == "slack":
        slack = {"api_url_file": f"{SECRETS}/{name}", "channel": where, "send_resolved": True, "title": _TITLE, "text": _TEXT}
        return {"name": name, "slack_configs": [slack]}
    if kind == "pagerduty":
        pagerduty = {
            "routing_key_file": f"{SECRETS}/{name}",
            "send_resolved": True,
            "description": _TITLE,
            "client": "somaresil",
            "severity": "critical" if name == "page" else "warning",
            "details": {"description": "{{ .CommonAnnotations.description }}", "runbook": "{{ .CommonAnnotations.runbook_url }}"},
        }
        return {"name": name, "pagerduty_configs": [pagerduty]}
    # No address is no URL with a scheme, and refused.
    webhook: dict[str, Any] = {"url": where or f"set --{name}-to", "send_resolved": True, "max_alerts": 100}
    if kind == "webhook+bearer":
        webhook["http_config"] = {"authorization": {"type": "Bearer", "credentials_file": f"{SECRETS}/{name}"}, "follow_redirects": False}
    return {"name": name, "webhook_configs": [webhook]}
