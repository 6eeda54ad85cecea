"""What the service has counted itself, read before and after a run, to be held against what its clients saw."""

from __future__ import annotations

import math
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import describe
from somaresil.load.thresholds import Answer, Check, judged
from somaresil.model.histogram import quantile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Reading", "ServerView", "parse", "read", "view_of"]

_LARGEST: Final = 16_777_216
_TIMEOUT: Final = 5.0
_EVENTS: Final = "somaresil_sli_events_total"
_OBJECTIVE: Final = "somaresil_slo_objective_ratio"
_DURATION: Final = "http_server_request_duration_seconds"
_QUANTILES: Final = (0.5, 0.95, 0.99)
_FAILED: Final = "5"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a service told at one time."""

    events: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Events of objectives, by objective and outcome."""
    objectives: Mapping[str, float] = field(default_factory=dict)
    """The share of good events that each objective asks for."""
    buckets: Mapping[float, float] = field(default_factory=dict)
    """Requests up to a duration."""
    requests: float = 0.0
    failed: float = 0.0
    """Requests that were answered with 500 or more."""


@dataclass(frozen=True, slots=True)
class ServerView:
    """What a service has counted during a run."""

    requests: float | None = None
    """None: it tells nothing of its requests."""
    failed: float = 0.0
    quantiles: Mapping[float, float | None] = field(default_factory=dict)
    objectives: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """Good events, all events and the target, by objective."""
    problem: str = ""
    """Why it could not be read."""

    def checks(self, names: Iterable[str]) -> tuple[Check, ...]:
        """Whether these objectives were kept during the run, by what the service has counted."""
        found: list[Check] = []
        for name in names:
            if self.problem or name not in self.objectives:
                why = self.problem or f"the service tells nothing of it; it has {', '.join(sorted(self.objectives)) or 'no objectives'}"
                found.append(Check(name, Answer.UNKNOWN, why, "server"))
                continue
            good, total, target = self.objectives[name]
            found.append(judged(f"{name}: {target:.6g}", int(good), int(total), target, "events were good", side="server"))
        return tuple(found)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "quantiles": {str(q): value for q, value in self.quantiles.items()},
            "objectives": {name: {"good": g, "total": t, "target": a} for name, (g, t, a) in self.objectives.items()},
            "problem": self.problem,
        }


def read(url: str) -> Reading:
    """Ask for metrics. Raises :class:`OSError` when there is no answer, :class:`ValueError` when it is none in that form."""
    request = urllib.request.Request(url, headers={"Accept": "text/plain;version=0.0.4"})  # noqa: S310 - the scenario has looked at it
    with urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({})).open(request, timeout=_TIMEOUT) as answer:
        body = answer.read(_LARGEST + 1)
    if len(body) > _LARGEST:
        raise ValueError(f"more than {_LARGEST} bytes of metrics")
    return parse(body.decode("utf-8", "replace"))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other, and not the right one."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def parse(text: str) -> Reading:
    """What is in the text form of Prometheus. Raises :class:`ValueError` when it is not in that form."""
    from prometheus_client.parser import text_string_to_metric_families

    events: defaultdict[tuple[str, str], float] = defaultdict(float)
    objectives: dict[str, float] = {}
    buckets: defaultdict[float, float] = defaultdict(float)
    requests = failed = 0.0
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name, labels, value = sample.name, sample.labels, float(sample.value)
                if not math.isfinite(value):
                    continue
                if name == _EVENTS:
                    events[labels.get("slo", ""), labels.get("outcome", "")] += value
                elif name == _OBJECTIVE:
                    objectives[labels.get("slo", "")] = value
                elif name == f"{_DURATION}_bucket":
                    buckets[float(labels["le"])] += value
                elif name == f"{_DURATION}_count":
                    requests += value
                    failed += value if labels.get("http_response_status_code", "").startswith(_FAILED) else 0.0
    except (IndexError, KeyError, OverflowError, TypeError, ValueError) as broken:
        raise ValueError(f"no metrics in the text form of Prometheus: {describe(broken)}") from None
    return Reading(dict(events), objectives, dict(buckets), requests, failed)


def view_of(before: Reading, after: Reading) -> ServerView:
    """What was counted between two readings. A counter that went back was begun anew, by a service that was started again."""
    if after.requests < before.requests or any(after.events.get(key, 0.0) < value for key, value in before.events.items()):
        return ServerView(problem="the service was started again during the run: its counters went back")
    objectives = {}
    for name, target in after.objectives.items():
        grown = {outcome: value - before.events.get((slo, outcome), 0.0) for (slo, outcome), value in after.events.items() if slo == name}
        good, bad = grown.get("good", 0.0), grown.get("bad", 0.0)
        objectives[name] = (good, good + bad, target)
    bounds = sorted(bound for bound in after.buckets if bound < math.inf)
    cumulative = [after.buckets[bound] - before.buckets.get(bound, 0.0) for bound in [*bounds, math.inf] if bound in after.buckets]
    counts = [int(later - earlier) for later, earlier in zip(cumulative, [0.0, *cumulative], strict=False)]
    known = len(counts) == len(bounds) + 1
    quantiles = {q: quantile(bounds, counts, q) if known else None for q in _QUANTILES}
    asked = after.requests - before.requests if after.buckets else None
    return ServerView(asked, after.failed - before.failed, quantiles, objectives)
