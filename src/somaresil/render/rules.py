"""Rules of one service for Prometheus: its objectives, what boards read, alerts, and tests of all of them for promtool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import ConfigurationError
from somaresil.render.alerts import ALERTS, STACK
from somaresil.render.promtests import recorded_tests, tests_of
from somaresil.render.recording import RECORDED
from somaresil.render.series import Series
from somaresil.slo.rules import Compiled, RuleOptions, compile_rules
from somaresil.slo.rules.text import duration, page_of, template, yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.config import Checker
    from somaresil.render.alerts import Alert
    from somaresil.render.options import RenderOptions

__all__ = ["ALERTS_FILE", "RECORDED_FILE", "STACK_FILE", "files", "groups", "named", "notes"]

RECORDED_FILE: Final = "somaresil.recorded.rules.yaml"
ALERTS_FILE: Final = "somaresil.alerts.rules.yaml"
STACK_FILE: Final = "somaresil.stack.rules.yaml"
_SLOWEST: Final = 75.0
"""Seconds between two scrapes of which four fit into the window of what is recorded."""


def files(options: RenderOptions, check: Checker) -> dict[str, str]:
    """``*.rules.yaml`` for Prometheus and ``*.test.yaml`` for ``promtool test rules``, to stand in one folder."""
    _check(options, check)
    compiled = _compiled(options, check)
    found = {} if compiled is None else dict(compiled.files)
    series, labels = Series(own_labels(options)), _recorded_labels(options)
    found[RECORDED_FILE] = yaml({"groups": [_recorded(options)]})
    found["somaresil.recorded.test.yaml"] = yaml(recorded_tests(series, RECORDED_FILE, labels))
    for alerts, stem, name, before in (
        (_own(options), "somaresil.alerts", ALERTS_FILE, [RECORDED_FILE]),
        (_stack(options), "somaresil.stack", STACK_FILE, []),
    ):
        found[name] = yaml({"groups": [alerts.group()]})
        tests = tests_of(alerts.alerts, alerts.series, [*before, name], alerts.labels_of, alerts.annotations_of)
        found |= {f"{stem}.{step}.test.yaml": yaml(test) for step, test in tests.items()}
    return found


def notes(options: RenderOptions) -> tuple[str, ...]:
    """What could not be said in rules, in words."""
    return compile_rules(options.slos, _rule_options(options), sources=options.sources, services=options.services).notes


def groups(options: RenderOptions, check: Checker) -> list[dict[str, Any]]:
    """All groups of rules as data, for one object that holds them."""
    _check(options, check)
    compiled = _compiled(options, check)
    return [*(() if compiled is None else compiled.groups), _recorded(options), _own(options).group(), _stack(options).group()]


def _check(options: RenderOptions, check: Checker) -> None:
    if float(options.scrape_interval) > _SLOWEST:  # type: ignore[arg-type]
        check.problem(
            "scrape_interval",
            duration(float(options.scrape_interval)),  # type: ignore[arg-type]
            f"at most {duration(_SLOWEST)}",
            "what is recorded looks at 5 minutes, and needs four scrapes in them",
        )


def _compiled(options: RenderOptions, check: Checker) -> Compiled | None:
    try:
        return compile_rules(options.slos, _rule_options(options), sources=options.sources, services=options.services)
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(problem.path, problem.value, problem.allowed, problem.hint)
        return None


def _rule_options(options: RenderOptions) -> RuleOptions:
    return RuleOptions(
        scrape_interval=options.scrape_interval,
        retention=options.retention,
        service=options.service,
        labels=own_labels(options),
        alert_labels=options.labels,
        runbook_url=options.runbook("{alert}"),
        events_per_hour=options.events_per_hour,
        buckets=options.buckets,
        cap_unreachable=options.cap_unreachable,
        sloth=options.sloth,
    )


def named(options: RenderOptions) -> dict[str, str]:
    """The labels of what is recorded and alerted."""
    environment = {} if options.environment is None else {"environment": options.environment}
    return {"service": options.service, **environment}


def own_labels(options: RenderOptions) -> dict[str, str]:
    """The labels that tell what is scraped from the service from what is scraped from others."""
    return dict(named(options) if options.series is None else options.series)


def _recorded_labels(options: RenderOptions) -> dict[str, str]:
    # What is recorded is found by the same labels as what is scraped.
    return {**own_labels(options), **named(options)}


def _recorded(options: RenderOptions) -> dict[str, Any]:
    """A group of recording rules."""
    series, labels = Series(own_labels(options)), _recorded_labels(options)
    rules = [{"record": each.name, "expr": each.expression(series), "labels": labels} for each in RECORDED]
    return {"name": f"somaresil-recorded-{options.service}", "rules": rules}


def _own(options: RenderOptions) -> _Alerts:
    """Those of the service."""
    return _Alerts(options, ALERTS, Series(own_labels(options)), _recorded_labels(options), f"somaresil-alerts-{options.service}")


def _stack(options: RenderOptions) -> _Alerts:
    """Those of what watches: the same for every service, so that the files of several are one."""
    return _Alerts(options, STACK, Series(), {}, "stack-alerts")


@dataclass(frozen=True, slots=True)
class _Alerts:
    """A file of alerts."""

    options: RenderOptions
    alerts: tuple[Alert, ...]
    series: Series
    labels: Mapping[str, str]
    name: str

    def group(self) -> dict[str, Any]:
        """A group of alerting rules."""
        return {"name": self.name, "rules": [self._rule(alert) for alert in self.alerts]}

    def _rule(self, alert: Alert) -> dict[str, Any]:
        lasts = {} if alert.lasts == "0s" else {"for": alert.lasts}
        labels = {name: template(text) for name, text in self.labels_of(alert).items()}
        return {
            "alert": alert.name,
            "expr": alert.condition(self.series),
            **lasts,
            "labels": labels,
            "annotations": self.annotations_of(alert),
        }

    def labels_of(self, alert: Alert) -> dict[str, str]:
        """Its labels, beside those of what it found."""
        return {**self.labels, **self.options.labels, "severity": alert.severity}

    def annotations_of(self, alert: Alert) -> dict[str, str]:
        """What whoever is woken reads, and where it goes on."""
        found = {"summary": alert.summary, "description": alert.description, "runbook_url": self.options.runbook(page_of(alert.name))}
        board = self.options.board(alert.board, own=bool(self.labels)) if alert.board else None
        return found if board is None else {**found, "dashboard_url": board}
