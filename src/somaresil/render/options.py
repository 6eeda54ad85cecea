"""What rendered files need to know: whose they are, what it promises, and where things will run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from somaresil.config import Checker
from somaresil.runtime_guard.rules import RuntimeRules
from somaresil.slo.objective import SLO

if TYPE_CHECKING:
    from datetime import timedelta

    from somaresil.slo.rules.source import Source

__all__ = ["RenderOptions"]

_DNS_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_UID: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_BASE: Final = re.compile(r"(?:https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~-]+)*|/?[A-Za-z0-9._~-]+(?:/[A-Za-z0-9._~-]+)*)")
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]{0,199}")
_PORT: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,13}[a-z0-9])?")
# No user and password in an address: files are committed.
_RECEIVER: Final = re.compile(
    r"webhook(?:\+bearer)?:https?://[A-Za-z0-9._:\[\]-]+(?:/[A-Za-z0-9._~/-]*)?|slack:#[a-z0-9_-]{1,80}|pagerduty"
)
_TARGET: Final = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9a-fA-F:]+\]):[0-9]{1,5}")
_RUNBOOKS: Final = re.compile(rf"{_BASE.pattern}(?:/\{{page\}}(?:\.[a-z]{{1,8}})?)?")
_INSTALL: Final = re.compile(r"[A-Za-z0-9._/\[\],-]+(?: [A-Za-z0-9._/\[\],-]+){0,9}")
_LONGEST: Final = 200
_MOST_LABELS: Final = 20
_TAKEN: Final = frozenset({"service", "environment", "guard", "slo", "severity", "alertname", "le"})
_COUNTED: Final = frozenset({"slo", "outcome", "le", "guard", "state", "alertname"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderOptions:
    """What every kind of file is made from; the same options give the same files, to the byte.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    service: str
    """The service, as it calls itself: ``Resilience("gateway")``. The label ``service`` of everything that is scraped from it."""
    environment: str | None = None
    """Where it runs, as the label ``environment``; None: it has none."""
    namespace: str = "monitoring"
    """The namespace of Kubernetes that the objects are made in."""
    slos: tuple[SLO, ...] = ()
    """Its objectives, such as ``read_slos("slo.toml").slos``."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Where Prometheus has the events of objectives that are not in our counter, by name: ``read_slos(...).sources``."""
    services: Mapping[str, str] = field(default_factory=dict)
    """Whose an objective is, by name, where it is not the service's: ``read_slos(...).services``."""
    scrape_interval: float | timedelta = 15.0
    """Seconds between two looks of Prometheus."""
    retention: float | timedelta = 15 * 86_400.0
    """Seconds that Prometheus keeps what it has seen; 15 days are what it does unless it is told otherwise."""
    runbook_base: str = "runbooks"
    """Where the runbooks are, as an address or relative to whatever shows the link; without a slash at its end. The name of the page comes
    behind it, or where ``/{page}`` stands: ``https://docs.example/runbooks/{page}.html`` for a site of files."""
    metrics: str = "prometheus"
    """The ``uid`` of Prometheus among Grafana's data sources."""
    traces: str = "jaeger"
    """The ``uid`` of Jaeger."""
    logs: str = "loki"
    """The ``uid`` of Loki."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Further labels of what is made: of objects of Kubernetes, and of alerts."""
    series: Mapping[str, str] | None = None
    """Labels that tell its series in Prometheus from those of others; None: ``service`` and, where it is said, ``environment``."""
    grafana_url: str | None = None
    """Where Grafana is for people, without a slash at its end: alerts link to its boards. None: they do not."""
    targets: tuple[str, ...] = ()
    """Where Prometheus scrapes the service, as ``host:port``; none: Kubernetes tells it, or compose names it."""
    metrics_path: str = "/metrics"
    """What it scrapes there."""
    port: str = "http"
    """The name of the port of its pods that is scraped, in Kubernetes."""
    page_to: str | None = None
    """Who is woken: ``webhook:URL``, ``webhook+bearer:URL``, ``slack:#channel`` or ``pagerduty``. None: a placeholder that Alertmanager
    refuses, so that nobody believes that somebody would be."""
    ticket_to: str | None = None
    """Who is told on the next working day, as ``page_to``."""
    share: float = 0.05
    """Share of the traces without anything of note that the collector keeps."""
    slow: float | timedelta = 2.0
    """Seconds from which on a trace is slow, and kept."""
    events_per_hour: Mapping[str, float] = field(default_factory=dict)
    """Expected traffic by objective, ``*`` for all others: then a condition that a single bad event fires is refused."""
    buckets: tuple[float, ...] | None = None
    """Bounds that the histograms of durations are known to have, in seconds: a latency that is none of them is refused. None: all."""
    cap_unreachable: bool = False
    """Let conditions that no traffic could meet fire at 99 % of errors, instead of refusing them."""
    sloth: bool = False
    """Label what is recorded of objectives as Sloth does, so that its dashboards work."""
    runtime: RuntimeRules | None = None
    """What its processes may do, such as ``read_rules("rules.toml")`` of :mod:`somaresil.runtime_guard`: for Falco."""
    scope: str | None = None
    """Whose processes Falco means, as one condition of it; None: those of pods with the label ``app.kubernetes.io/name`` of the service."""
    install: str = "."
    """What ``pip install`` gets to install the service, in workflows that scan it: ``.``, ``-r requirements.txt``."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("RenderOptions")
        check.name("service", self.service)
        if self.environment is not None:
            check.name("environment", self.environment)
        if not isinstance(self.namespace, str) or not _DNS_LABEL.fullmatch(self.namespace):
            check.problem("namespace", self.namespace, "a DNS label: 1 to 63 characters of a-z 0-9 -")
        object.__setattr__(self, "slos", _slos(check, self.slos))
        for name in ("sources", "services"):
            _about_objectives(check, name, getattr(self, name), self.slos)
        for name, value in self.services.items() if isinstance(self.services, Mapping) else ():
            check.name(f"services.{name}", value)
        object.__setattr__(self, "scrape_interval", check.seconds("scrape_interval", self.scrape_interval, minimum=0.1, maximum=3_600.0))
        object.__setattr__(self, "retention", check.seconds("retention", self.retention))
        if not isinstance(self.runbook_base, str) or len(self.runbook_base) > _LONGEST or not _RUNBOOKS.fullmatch(self.runbook_base):
            check.problem("runbook_base", self.runbook_base, "an address with http:// or https://, or a path, without a slash at its end")
        for name in ("metrics", "traces", "logs"):
            uid = getattr(self, name)
            if not isinstance(uid, str) or not _UID.fullmatch(uid):
                check.problem(name, uid, "the uid of a data source: 1 to 40 characters of A-Z a-z 0-9 _ -")
        _check_labels(check, "labels", self.labels, _TAKEN)
        if self.series is not None:
            _check_labels(check, "series", self.series, _COUNTED)
        self._check_around(check)
        self._check_security(check)
        # The rest is about rules of objectives alone, and checked where these are compiled.
        check.finish()

    def _check_security(self, check: Checker) -> None:
        """What its processes may do, and what is scanned."""
        if self.runtime is not None:
            check.type("runtime", self.runtime, RuntimeRules, "RuntimeRules(...)")
        if not isinstance(self.install, str) or not _INSTALL.fullmatch(self.install):
            check.problem("install", self.install, "words for pip install: characters of A-Z a-z 0-9 . _ - / [ ] , and spaces")

    def _check_around(self, check: Checker) -> None:
        """Where things are, and who is told."""
        url = self.grafana_url
        if url is not None and not (isinstance(url, str) and url.startswith(("http://", "https://")) and _BASE.fullmatch(url)):
            check.problem("grafana_url", url, "an address with http:// or https://, without a slash at its end, or None")
        object.__setattr__(self, "targets", _targets(check, self.targets))
        if not isinstance(self.metrics_path, str) or not _PATH.fullmatch(self.metrics_path):
            check.problem("metrics_path", self.metrics_path, "a path that begins with a slash")
        if not isinstance(self.port, str) or not _PORT.fullmatch(self.port):
            check.problem("port", self.port, "the name of a port: 1 to 15 characters of a-z 0-9 -")
        for name in ("page_to", "ticket_to"):
            to = getattr(self, name)
            if to is not None and not (isinstance(to, str) and _RECEIVER.fullmatch(to)):
                check.problem(
                    name, to, "webhook:URL, webhook+bearer:URL, slack:#channel or pagerduty; secrets are files and in none of them"
                )
        object.__setattr__(self, "share", check.ratio("share", self.share))
        object.__setattr__(self, "slow", check.seconds("slow", self.slow, minimum=0.001))

    def board(self, name: str, *, own: bool = True) -> str | None:
        """The address of a board in Grafana, opened for this service when it is its ``own``; None: nobody said where Grafana is."""
        if self.grafana_url is None:
            return None
        return f"{self.grafana_url}/d/somaresil-{name}" + (f"?var-service={quote(self.service)}" if own else "")

    def runbook(self, name: str) -> str:
        """The address of a runbook."""
        base = self.runbook_base
        return base.replace("{page}", name) if "{page}" in base else f"{base}/{name}"


def _targets(check: Checker, given: object) -> tuple[str, ...]:
    if not isinstance(given, tuple | list):
        check.problem("targets", given, "addresses as host:port")
        return ()
    for number, target in enumerate(given):
        if not isinstance(target, str) or not _TARGET.fullmatch(target):
            check.problem(f"targets[{number}]", target, "host:port")
    return tuple(given)


def _slos(check: Checker, given: object) -> tuple[SLO, ...]:
    if not isinstance(given, tuple | list):
        check.problem("slos", given, "objectives: read_slos(...).slos")
        return ()
    names: set[str] = set()
    found: list[SLO] = []
    for number, slo in enumerate(given):
        if not isinstance(slo, SLO):
            check.problem(f"slos[{number}]", slo, "an SLO")
        elif slo.name in names:
            check.problem(f"slos[{number}]", slo.name, "each name once")
        else:
            names.add(slo.name)
            found.append(slo)
    return tuple(found)


def _about_objectives(check: Checker, option: str, given: object, slos: tuple[SLO, ...]) -> None:
    if not isinstance(given, Mapping):
        check.problem(option, given, "a mapping by the names of objectives")
        return
    names = [slo.name for slo in slos]
    for name in given:
        if name not in names:
            check.problem(f"{option}.{name}", name, f"an objective ({', '.join(names) or 'there is none'})")


def _check_labels(check: Checker, option: str, labels: object, taken: frozenset[str]) -> None:
    if not isinstance(labels, Mapping) or len(labels) > _MOST_LABELS:
        check.problem(option, labels, f"a mapping of at most {_MOST_LABELS} labels to values")
        return
    for name, value in labels.items():
        if not isinstance(name, str) or not _LABEL.fullmatch(name) or name in taken or name.startswith("__"):
            check.problem(option, name, f"a label name other than {', '.join(sorted(taken))}")
        elif not isinstance(value, str) or not 0 < len(value) <= _LONGEST or not value.isprintable():
            check.problem(f"{option}.{name}", value, f"a text of 1 to {_LONGEST} printable characters")
