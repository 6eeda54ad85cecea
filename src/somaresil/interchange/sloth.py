"""Specs of Sloth (``prometheus/v1``) as drafts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.interchange.drafts import Draft
from somaresil.interchange.promql import has_window, rates_of, whole
from somaresil.interchange.shapes import ANYTHING, FLAG, NAMES_TO_TEXTS, Listing, Number, Place, Table, Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from somaresil.interchange.drafts import Findings
    from somaresil.settings.files import Document

__all__ = ["sloth_drafts"]

VERSION: Final = "prometheus/v1"
_QUERY: Final = Text(longest=100_000)
_ALERT: Final = Table({"disable": FLAG, "labels": NAMES_TO_TEXTS, "annotations": NAMES_TO_TEXTS})
_SLO: Final = Table(
    {
        "name": Text(),
        "description": Text(longest=10_000, empty=True),
        "objective": Number(0.0, 100.0, open_below=True),
        "labels": NAMES_TO_TEXTS,
        "sli": Table(
            {
                "raw": Table({"error_ratio_query": _QUERY}, ("error_ratio_query",)),
                "events": Table({"error_query": _QUERY, "total_query": _QUERY}, ("error_query", "total_query")),
                "plugin": Table({"id": Text(), "options": ANYTHING}, ("id",)),
            }
        ),
        "alerting": Table(
            {
                "name": Text(empty=True),
                "labels": NAMES_TO_TEXTS,
                "annotations": NAMES_TO_TEXTS,
                "page_alert": _ALERT,
                "ticket_alert": _ALERT,
            }
        ),
        "plugins": ANYTHING,
    },
    ("name", "objective", "sli"),
)
_SPEC: Final = Table(
    {
        "version": Text(choices=(VERSION,)),
        "service": Text(),
        "labels": NAMES_TO_TEXTS,
        "slos": Listing(_SLO, 1),
        "slo_plugins": ANYTHING,
    },
    ("version", "service", "slos"),
)
_WINDOWS: Final = {
    "page": ((0.02, 3_600.0, 300.0), (0.05, 21_600.0, 1_800.0)),
    "ticket": ((0.1, 86_400.0, 7_200.0), (0.1, 259_200.0, 21_600.0)),
}
"""Its default for 30 and 28 days: share of the budget, long and short window."""

_PERIODS: Final = (28 * 86_400.0, 30 * 86_400.0)


def sloth_drafts(documents: Sequence[Document], findings: Findings, period: float) -> Iterator[Draft]:
    """Objectives of all documents. ``period`` in seconds: a spec does not say it, whoever runs Sloth does."""
    for number, document in enumerate(documents, start=1):
        place = Place(document, f"document {number}" if len(documents) > 1 else "spec", (), findings.check)
        before = len(findings.check.problems)
        data = dict(document.data)
        if "apiVersion" in data:
            place.at("apiVersion").problem(data["apiVersion"], f"version: {VERSION}", "of a PrometheusServiceLevel take what its spec says")
            continue
        _SPEC.look(place, data)
        if len(findings.check.problems) > before:
            continue
        _note_lost(findings, place, data, ("labels", "slo_plugins"))
        for index, given in enumerate(data["slos"]):
            draft = _draft(given, place.at("slos", index), data["service"], findings, period)
            if draft is not None:
                yield draft


def _note_lost(findings: Findings, place: Place, given: Any, names: tuple[str, ...]) -> None:
    hint = {
        "labels": "give them to the rules by --alert-label",
        "annotations": "the rules have their own, and --runbook",
        "name": "the rules have their own names of alerts",
    }
    for name in names:
        if given.get(name):
            findings.note(place.at(name), f"not carried over; {hint.get(name, 'nothing here does the same')}")


def _draft(given: Any, place: Place, service: str, findings: Findings, period: float) -> Draft | None:
    _note_lost(findings, place, given, ("labels", "plugins"))
    table: dict[str, Any] = {"target_percentage": given["objective"], "measurement_window": period, "service": service}
    if (given.get("description") or "").strip():
        table["description"] = given["description"].strip()
    source = _source(given["sli"], place.at("sli"), findings)
    if source is None:
        return None
    policy = _policy(given.get("alerting") or {}, place.at("alerting"), findings, period)
    if policy is not None:
        table["error_budget_policy"] = policy
    table["source"] = source
    places = {
        "service": Place(place.document, place.label, ("service",), place.check),
        "target_percentage": place.at("objective"),
        "error_budget_policy": place.at("alerting"),
        "source.bad_query": place.at("sli", "events", "error_query"),
        "source.total_query": place.at("sli", "events", "total_query"),
    }
    return Draft(given["name"], table, place, places)


def _source(sli: Any, place: Place, findings: Findings) -> dict[str, Any] | None:
    given = [name for name in ("events", "raw", "plugin") if sli.get(name) is not None]
    if len(given) != 1:
        place.problem(", ".join(given) or None, "one of events, raw, plugin")
        return None
    if given != ["events"]:
        what = "a ratio has no events, and a quiet night would weigh as much as a busy day" if given == ["raw"] else "it is a program"
        findings.misfit(place.at(given[0]), given[0], "events with error_query and total_query", what)
        return None
    queries = {"bad_query": sli["events"]["error_query"].strip(), "total_query": sli["events"]["total_query"].strip()}
    sound = True
    for name, query in zip(("error_query", "total_query"), queries.values(), strict=True):
        if whole(query) is None or not has_window(query):
            place.at("events", name).problem(query[:200], "PromQL with {{.window}} where the window goes, at most 2000 characters")
            sound = False
    if not sound:
        return None
    rates = rates_of(*queries.values())
    if rates is None:
        findings.note(place.at("events"), "taken for rates by the second; set rates to false in the file if they are counts")
    return queries if rates is not False else {**queries, "rates": False}


def _policy(alerting: Any, place: Place, findings: Findings, period: float) -> Any:
    _note_lost(findings, place, alerting, ("name", "labels", "annotations"))
    alerts = {severity: alerting.get(f"{severity}_alert") or {} for severity in _WINDOWS}
    for severity, alert in alerts.items():
        _note_lost(findings, place.at(f"{severity}_alert"), alert, ("labels", "annotations"))
    wanted = [severity for severity, alert in alerts.items() if not alert.get("disable")]
    if not wanted:
        findings.note(place, "its alerts are disabled, and an objective here has some: fast_burn_alert")
        return None
    windows = [
        {"budget_share": share, "long": long, "short": short, "severity": severity}
        for severity in wanted
        for share, long, short in _WINDOWS[severity]
    ]
    if period not in _PERIODS:
        findings.note(place, "Sloth has windows of its own for 28 and 30 days alone; their shares of the budget are used")
    return {"name": "sloth", "windows": windows}
