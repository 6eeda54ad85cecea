"""Specs of Pyrra (``pyrra.dev/v1alpha1``, ``ServiceLevelObjective``) as drafts."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from somaresil.interchange.drafts import Draft
from somaresil.interchange.promql import WINDOW, increase, over_time, selector, whole
from somaresil.interchange.shapes import ANYTHING, FLAG, Listing, Number, OneOf, Place, Table, Text
from somaresil.slo.rules.text import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from somaresil.interchange.drafts import Findings
    from somaresil.settings.files import Document

__all__ = ["pyrra_drafts"]

VERSION: Final = "pyrra.dev/v1alpha1"
KIND: Final = "ServiceLevelObjective"
_METRIC: Final = Table({"metric": Text(longest=100_000)}, ("metric",))
_GROUPING: Final = Listing(Text(longest=120))
_SPEC: Final = Table(
    {
        "description": Text(longest=100_000, empty=True),
        # A number is one in Go as well, where it is read.
        "target": OneOf(Number(), Text(pattern=r"[0-9]{1,3}(\.[0-9]{1,12})?", allowed="a percentage, such as 99.9")),
        "window": Text(pattern=r"(?:[0-9]{1,9}(?:ms|[ywdhms]))+", allowed="a duration such as 4w"),
        "indicator": Table(
            {
                "ratio": Table({"errors": _METRIC, "total": _METRIC, "grouping": _GROUPING}, ("errors", "total")),
                "latency": Table({"success": _METRIC, "total": _METRIC, "grouping": _GROUPING}, ("success", "total")),
                "latencyNative": Table(
                    {
                        "latency": Text(pattern=r"(?:[0-9]{1,9}(?:ms|[ywdhms]))+", allowed="a duration such as 200ms"),
                        "total": _METRIC,
                        "grouping": _GROUPING,
                    },
                    ("latency", "total"),
                ),
                "bool_gauge": Table({"metric": Text(longest=100_000), "grouping": _GROUPING}, ("metric",)),
            }
        ),
        "alerting": Table(
            {"disabled": FLAG, "burnrates": FLAG, "absent": FLAG, "name": Text(empty=True), "absentName": Text(empty=True)}, rest=ANYTHING
        ),
        "partial_response_strategy": ANYTHING,
        "performance_over_accuracy": FLAG,
        "performanceOverAccuracy": FLAG,
    },
    ("target", "window", "indicator"),
)
_OBJECTIVE: Final = Table(
    {
        "apiVersion": Text(choices=(VERSION,)),
        "kind": Text(choices=(KIND,)),
        "metadata": Table({"name": Text(longest=253)}, ("name",), rest=ANYTHING),
        "spec": _SPEC,
        "status": ANYTHING,
    },
    ("apiVersion", "kind", "metadata", "spec"),
)
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_536_000.0}
_BURNS: Final = ((14, 672, 12, "page"), (7, 112, 12, "page"), (2, 28, 12, "ticket"), (1, 7, 16, "ticket"))
"""Its factors; the part of the period that is the long window, and the part of that which is the short one."""
_KINDS: Final = ("ratio", "latency", "latencyNative", "bool_gauge")


def pyrra_drafts(documents: Sequence[Document], findings: Findings) -> Iterator[Draft]:
    """Objectives of all documents."""
    for order, document in enumerate(documents, start=1):
        data = document.data
        name = data["metadata"].get("name") if isinstance(data.get("metadata"), dict) else None
        place = Place(document, f"{KIND} {name}" if isinstance(name, str) else f"document {order}", (), findings.check)
        before = len(findings.check.problems)
        _OBJECTIVE.look(place, data)
        if len(findings.check.problems) > before:
            continue
        draft = _draft(data["metadata"], data["spec"], place, findings)
        if draft is not None:
            yield draft


def _seconds(text: str) -> float:
    return sum(float(count) * _UNITS[unit] for count, unit in re.findall(r"([0-9]+)(ms|[ywdhms])", text))


def _draft(metadata: Any, spec: Any, place: Place, findings: Findings) -> Draft | None:
    for name in metadata:
        if name not in {"name", "creationTimestamp"} and metadata[name]:
            findings.note(place.at("metadata", name), "not carried over")
    for name in ("partial_response_strategy", "performance_over_accuracy", "performanceOverAccuracy"):
        if spec.get(name):
            findings.note(place.at("spec", name), "not carried over; nothing here does the same")
    period = _seconds(spec["window"])
    source = _source(spec["indicator"], place.at("spec", "indicator"), findings)
    if source is None:
        return None
    table: dict[str, Any] = {"target_percentage": float(spec["target"]), "measurement_window": period}
    if (spec.get("description") or "").strip():
        table["description"] = spec["description"].strip()
    alerting = spec.get("alerting") or {}
    _note_alerting(alerting, place.at("spec", "alerting"), findings)
    if alerting.get("disabled") or alerting.get("burnrates") is False:
        findings.note(place.at("spec", "alerting"), "its alerts are disabled, and an objective here has some: fast_burn_alert")
    else:
        table["error_budget_policy"] = {"name": "pyrra", "windows": [_window(period, *burn) for burn in _BURNS]}
        findings.note(place, "its alerts wait for a while before they fire, and here they fire at once: the short window is enough")
    table["source"] = source
    places = {
        "name": place.at("metadata", "name"),
        "target_percentage": place.at("spec", "target"),
        "measurement_window": place.at("spec", "window"),
        "error_budget_policy": place.at("spec", "window"),
        "source": place.at("spec", "indicator"),
    }
    return Draft(metadata["name"], table, place, places)


def _window(period: float, factor: int, part: int, short: int, severity: str) -> dict[str, Any]:
    # Whole minutes, as it rounds them itself.
    long = max(60.0, round(period / part / 60) * 60.0)
    return {
        "budget_share": float(round(Decimal(factor) * Decimal(str(long)) / Decimal(str(period)), 15)),
        "long": long,
        "short": max(10.0, round(long / short / 60) * 60.0),
        "severity": severity,
    }


def _note_alerting(alerting: Any, place: Place, findings: Findings) -> None:
    for name, value in alerting.items():
        if name in {"name", "absentName"} and value:
            findings.note(place.at(name), "not carried over; the rules have their own names of alerts")
        elif name == "absent" and value is False:
            findings.note(place.at(name), "not carried over; the rules always have ObjectiveUnseen")
        elif name not in {"name", "absentName", "absent", "disabled", "burnrates"} and value:
            findings.note(place.at(name), "not carried over; nothing here does the same")


def _source(indicator: Any, place: Place, findings: Findings) -> dict[str, Any] | None:
    given = [name for name in _KINDS if indicator.get(name) is not None]
    if len(given) != 1:
        place.problem(", ".join(given) or None, f"one of {', '.join(_KINDS)}")
        return None
    (kind,) = given
    found = indicator[kind]
    if found.get("grouping"):
        findings.note(place.at(kind, "grouping"), "not carried over; all groups are judged together")
    paths = {"ratio": ("errors", "total"), "latency": ("success", "total"), "latencyNative": ("total",), "bool_gauge": ()}[kind]
    metrics: list[tuple[tuple[str, ...], str]] = [((path, "metric"), found[path]["metric"]) for path in paths] or [
        (("metric",), found["metric"])
    ]
    series: list[tuple[str, str]] = []
    for where, metric in metrics:
        text = whole(metric)
        one = None if text is None else selector(text)
        if one is None:
            place.at(kind, *where).problem(metric[:200], "a selector of one metric")
        else:
            series.append(one)
    if len(series) < len(metrics):
        return None
    return _queries(kind, series, found)


def _queries(kind: str, series: list[tuple[str, str]], found: Any) -> dict[str, Any]:
    if kind == "ratio":
        return {"bad_query": increase(series[0]), "total_query": increase(series[1]), "rates": False}
    if kind == "latency":
        return {"good_query": increase(series[0]), "total_query": increase(series[1]), "rates": False}
    if kind == "bool_gauge":
        good, total = over_time("sum_over_time", series[0]), over_time("count_over_time", series[0])
        return {"good_query": good, "total_query": total, "rates": False}
    name, offset = series[0]
    grown = f"sum(increase({name}[{WINDOW}]{offset}))"
    bound = number(Decimal(str(_seconds(found["latency"]))))
    good = f"histogram_fraction(0, {bound}, {grown}) * histogram_count({grown})"
    return {"good_query": good, "total_query": f"histogram_count({grown})", "rates": False}
