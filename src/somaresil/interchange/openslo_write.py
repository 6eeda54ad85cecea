"""Objectives as documents of OpenSLO v1.

What its words cannot say stands as JSON in the annotation ``somaresil/options`` of an SLO, and a note tells what other tools will not see:
so reading them back gives the same objectives.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.interchange.drafts import Findings
from somaresil.interchange.openslo import OPTIONS, openslo_drafts
from somaresil.interchange.openslo_shapes import API, BUDGETING, LONGEST_NAME, LONGEST_TEXT
from somaresil.interchange.toml import as_json, table_of
from somaresil.model.slo import burn_threshold
from somaresil.settings.files import LARGEST, Document
from somaresil.slo.rules.source import EVENTS, Histogram, Queries, source_of
from somaresil.slo.rules.text import quoted, yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from somaresil.interchange.drafts import Draft
    from somaresil.model.slo import Window
    from somaresil.slo.objective import SLO
    from somaresil.slofile import SloFile

__all__ = ["Exported", "dump_openslo", "natives_of"]

_CALENDAR: Final = {"day": "1d", "week": "1w", "month": "1M", "quarter": "1Q", "year": "1Y"}
_BEGIN: Final = "2024-01-01 00:00:00"
"""The beginning of a day, a week, a month, a quarter and a year."""
_METHODS: Final = {ours: theirs for theirs, ours in BUDGETING.items()}
_UNITS: Final = ((604_800, "w"), (86_400, "d"), (3_600, "h"), (60, "m"))
_SERVICE: Final = "default"


@dataclass(frozen=True, slots=True)
class Exported:
    """Documents, and what they do not say in OpenSLO's own words."""

    text: str
    """YAML of several documents."""
    notes: tuple[str, ...]


def dump_openslo(file: SloFile, *, service: str | None = None) -> Exported:
    """The objectives of ``file`` as OpenSLO v1. ``service`` is whose they are where the file does not say it.

    :func:`~somaresil.interchange.import_text` gives the same objectives back. Raises
    :class:`~somaresil.errors.ConfigurationError` for objectives with functions in them, and composites without their parts.
    """
    check = Checker()
    tables = {slo.name: table_of(slo, file.sources.get(slo.name), file.services.get(slo.name), check) for slo in file.slos}
    names = {slo.name for slo in file.slos}
    composites = {slo.name for slo in file.slos if slo.parts}
    for slo in file.slos:
        for part in slo.weights:
            if part not in names:
                check.problem(f"slos.{slo.name}.parts", part, "an objective of the file")
            elif part in composites:
                check.problem(f"slos.{slo.name}.parts", part, "an objective that has no parts itself", "OpenSLO has one level of them")
    check.finish()
    documents = documents_of(file, service or _SERVICE)
    natives = native_drafts(documents)
    notes: list[str] = []
    slugs = _slugs(slo.name for slo in file.slos)
    for name, table in tables.items():
        metadata = next(each["metadata"] for each in documents if each["kind"] == "SLO" and each["metadata"]["name"] == slugs[name])
        options = _difference(name, slugs[name], table, natives.get(slugs[name]))
        if service is not None and options.get("service", "") is None:
            del options["service"]
        if options:
            metadata["annotations"] = {OPTIONS: as_json(options)}
            told = ", ".join(option for option in options if option != "service")
            notes += [f"{name}: only somaresil understands {told} ({OPTIONS})"] if told else []
    if file.actions:
        notes.append("actions are not carried over")
    text = "---\n".join(yaml(each) for each in documents)
    if (size := len(text.encode("utf-8", "replace"))) > LARGEST:
        notes.append(f"it has {size} bytes, and no more than {LARGEST} are read back: write fewer objectives in a file")
    return Exported(text, tuple(notes))


def native_drafts(documents: Iterable[Mapping[str, Any]]) -> dict[str, Draft]:
    """What documents say without more of our annotation than the name, by the name of their own."""
    found = openslo_drafts([Document("", each) for each in documents], Findings())
    return {draft.place.document.data["metadata"]["name"]: draft for draft in found}


def natives_of(file: SloFile) -> dict[str, Draft]:
    """What the documents of a file say without our annotation, by the name of the objective."""
    found = native_drafts(documents_of(file, _SERVICE))
    return {name: found[slug] for name, slug in _slugs(slo.name for slo in file.slos).items() if slug in found}


def _difference(name: str, slug: str, table: Mapping[str, Any], native: Draft | None) -> dict[str, Any]:
    """Options that the document alone does not give back, with what they are; None: they are not there."""
    found: dict[str, Any] = {} if name == slug else {"name": name}
    said: Mapping[str, Any] = {} if native is None else native.table
    for option in (*table, *(option for option in said if option not in table)):
        if table.get(option) != said.get(option):
            found[option] = table.get(option)
    return found


def _slugs(names: Iterable[str]) -> dict[str, str]:
    """Names as RFC 1123 has labels, each once."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: LONGEST_NAME - 8].strip("-") or "slo"
        slug, again = plain, 1
        while slug in taken:
            again += 1
            slug = f"{plain}-{again}"
        taken.add(slug)
        found[name] = slug
    return found


def documents_of(file: SloFile, service: str) -> list[dict[str, Any]]:
    """The documents, without annotations but for names that a document cannot have."""
    slugs = _slugs(slo.name for slo in file.slos)
    services = dict.fromkeys([file.services.get(slo.name, service) for slo in file.slos])
    # A service of another name has no document: an SLO may name one that is not there.
    documents = [_document("Service", each, {}) for each in services if _slugs([each])[each] == each]
    for slo in file.slos:
        slug = slugs[slo.name]
        if not slo.parts:
            documents.append(_document("SLI", slug, _indicator(slo, file)))
        policies = [_policy(slo, slug, place, window) for place, window in enumerate(slo.burn_policy.windows)]
        documents += policies
        spec: dict[str, Any] = {} if not slo.description.strip() else {"description": slo.description[:LONGEST_TEXT]}
        spec["service"] = file.services.get(slo.name, service)
        if not slo.parts:
            spec["indicatorRef"] = slug
        spec["timeWindow"] = [_window(slo)]
        spec["budgetingMethod"] = _METHODS[slo.budgeting]
        spec["objectives"] = _objectives(slo, slugs)
        spec["alertPolicies"] = [{"alertPolicyRef": policy["metadata"]["name"]} for policy in policies]
        documents.append(_document("SLO", slug, spec))
        if slug != slo.name:
            documents[-1]["metadata"]["annotations"] = {OPTIONS: as_json({"name": slo.name})}
    severities = dict.fromkeys(window.severity for slo in file.slos for window in slo.burn_policy.windows)
    return [*documents, *(_document("AlertNotificationTarget", each, {"target": each}) for each in severities)]


def _document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _indicator(slo: SLO, file: SloFile) -> dict[str, Any]:
    source = file.sources.get(slo.name)
    counter, part = True, "good"
    if isinstance(source, Queries):
        part = "good" if source.good_query else "bad"
        counter, queries = False, (source.good_query or source.bad_query, source.total_query)
    elif isinstance(source, Histogram):
        found = source_of(slo, source, {})
        queries = found.within, found.everything  # type: ignore[union-attr]
    else:
        series = f"{EVENTS}{{slo={quoted(slo.name)}"
        queries = f'{series},outcome="good"}}', f"{series}}}"
    metrics = {
        name: {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}
        for name, query in zip((part, "total"), queries, strict=True)
    }
    return {"ratioMetric": {"counter": counter, **metrics}}


def _length(seconds: float) -> str:
    """A duration, in whole minutes at least."""
    whole = max(60, round(seconds / 60) * 60)
    return next(f"{whole // size}{unit}" for size, unit in _UNITS if whole % size == 0)


def _window(slo: SLO) -> dict[str, Any]:
    if slo.calendar is None:
        return {"duration": _length(slo.period), "isRolling": True}
    return {
        "duration": _CALENDAR[slo.calendar],
        "calendar": {"startTime": _BEGIN, "timeZone": slo.time_zone},
        "isRolling": False,
    }


def _objectives(slo: SLO, slugs: Mapping[str, str]) -> list[dict[str, Any]]:
    given: dict[str, Any] = {"targetPercent": slo.target_percentage}
    if slo.time_slice_window is not None:
        given["timeSliceWindow"] = _length(float(slo.time_slice_window))  # type: ignore[arg-type]
    if slo.time_slice_target is not None:
        given["timeSliceTarget"] = slo.time_slice_target
    if not slo.parts:
        return [given]
    return [{**given, "indicatorRef": slugs[part], "compositeWeight": weight} for part, weight in slo.weights.items()]


def _policy(slo: SLO, slug: str, place: int, window: Window) -> dict[str, Any]:
    factor = burn_threshold(window.budget_share, slo.period, window.long)
    condition = {
        "kind": "AlertCondition",
        "metadata": {"name": f"{slug}-burn-{place + 1}"},
        "spec": {
            "severity": window.severity,
            "condition": {
                "kind": "burnrate",
                "op": "gt",
                "threshold": float(round(factor, 12)),
                "lookbackWindow": _length(window.long),
            },
        },
    }
    spec = {
        "alertWhenNoData": True,
        "alertWhenResolved": True,
        "alertWhenBreaching": True,
        "conditions": [condition],
        "notificationTargets": [{"targetRef": window.severity}],
    }
    return _document("AlertPolicy", f"{slug}-burn-{place + 1}", spec)
