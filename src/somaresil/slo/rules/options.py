"""What rules depend on beside the objectives: the Prometheus that reads them, and how alerts are labelled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from somaresil.config import Checker

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["RuleOptions"]

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ADDRESS: Final = re.compile(r"https?://|/?[A-Za-z0-9._~-]+/")
_LONGEST: Final = 200
_MOST_LABELS: Final = 20
_TAKEN: Final = frozenset({"slo", "outcome", "severity", "service", "alertname", "le", "quantile"})
_NO_LABELS: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleOptions:
    """``scrape_interval`` and ``retention`` are those of the Prometheus that will read the rules, in seconds or as ``timedelta``.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    scrape_interval: float | timedelta = 15.0
    retention: float | timedelta = 15 * 86_400.0
    """15 days is what Prometheus keeps unless it is told otherwise."""
    service: str | None = None
    """Becomes the label ``service`` of what is recorded and alerted."""
    labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    """Only series with these labels are counted: ``{"job": "gateway"}`` when several services have objectives of one name."""
    alert_labels: Mapping[str, str] = field(default_factory=lambda: _NO_LABELS)
    """Further labels of alerts, for the routes of Alertmanager."""
    runbook_url: str | None = None
    """Becomes the annotation ``runbook_url``; ``{slo}`` in it is the name of the objective, ``{alert}`` the page of the alert, such as
    ``error-budget-burn-page``. An address, or a path relative to whatever shows it."""
    events_per_hour: Mapping[str, float] = field(default_factory=dict)
    """Expected traffic by objective, ``*`` for all others: then a condition that a single bad event fires is refused."""
    buckets: tuple[float, ...] | None = None
    """Bounds that the histograms of durations are known to have, in seconds: a latency that is none of them is refused. None: all."""
    cap_unreachable: bool = False
    """Let conditions that no traffic could meet fire at 99 % of errors, as they do in the process, instead of refusing them."""
    sloth: bool = False
    """Label what is recorded as Sloth does, so that its dashboards work."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("RuleOptions")
        object.__setattr__(self, "scrape_interval", check.seconds("scrape_interval", self.scrape_interval, minimum=0.1, maximum=3_600.0))
        object.__setattr__(self, "retention", check.seconds("retention", self.retention))
        if self.service is not None:
            check.name("service", self.service)
        for name in ("labels", "alert_labels"):
            _check_labels(check, name, getattr(self, name))
        url = self.runbook_url
        if url is not None and not (isinstance(url, str) and _ADDRESS.match(url) and url.isprintable()):
            check.problem("runbook_url", url, "a URL with http:// or https://, or a path")
        if not isinstance(self.events_per_hour, Mapping):
            check.problem("events_per_hour", self.events_per_hour, "a mapping of objectives to events")
        else:
            for name, rate in self.events_per_hour.items():
                check.number(f"events_per_hour.{name}", rate, minimum=0.0)
        for number, bound in enumerate(self.buckets or ()):
            check.number(f"buckets[{number}]", bound, minimum=0.0)
        check.type("cap_unreachable", self.cap_unreachable, bool, "True or False")
        check.type("sloth", self.sloth, bool, "True or False")
        check.finish()


def _check_labels(check: Checker, option: str, labels: Mapping[str, str]) -> None:
    if not isinstance(labels, Mapping) or len(labels) > _MOST_LABELS:
        check.problem(option, labels, f"a mapping of at most {_MOST_LABELS} labels to values")
        return
    for name, value in labels.items():
        taken = _TAKEN if option == "alert_labels" else {"slo", "outcome", "le"}
        if not isinstance(name, str) or not _LABEL.fullmatch(name) or name in taken or name.startswith(("__", "sloth_")):
            check.problem(option, name, f"a label name other than {', '.join(sorted(taken))}")
        elif not isinstance(value, str) or not 0 < len(value) <= _LONGEST:
            check.problem(f"{option}.{name}", value, f"a text of 1 to {_LONGEST} characters")
