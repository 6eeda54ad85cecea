"""Documents of OpenSLO v1 as drafts.

The specification holds less than our objectives do, and some of it otherwise. What :mod:`somaresil.interchange.openslo_write` could not
say in its words stands in the annotation ``somaresil/options``, which is read back here, and must not contradict the rest of its document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import did_you_mean
from somaresil.interchange.drafts import Draft, Findings
from somaresil.interchange.openslo_shapes import API, BUDGETING, KINDS, seconds_of
from somaresil.interchange.openslo_sli import OURS, source_table
from somaresil.interchange.shapes import Place
from somaresil.slo import calendar as periods

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from somaresil.settings.files import Document

__all__ = ["OPTIONS", "openslo_drafts"]

OPTIONS: Final = "somaresil/options"
_CALENDAR: Final = {"1d": "day", "24h": "day", "1w": "week", "7d": "week", "1M": "month", "1Q": "quarter", "3M": "quarter", "1Y": "year"}
_CALENDAR_MORE: Final = {"12M": "year", "4Q": "year"}
_TICKETS: Final = frozenset({"ticket", "warning", "warn", "low", "minor", "info"})
_KNOWN_SEVERITIES: Final = frozenset({"page", "ticket"})
_SHORT: Final = 12
_LEAST: Final = 10.0


@dataclass(slots=True)
class _Objects:
    """Everything that the documents hold, by kind and name."""

    findings: Findings
    found: dict[str, dict[str, tuple[Any, Place]]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    named: set[tuple[str, str]] = field(default_factory=set)
    broken: set[tuple[str, str]] = field(default_factory=set)
    """What is there and wrong: whoever names it is not to blame."""

    def get(self, kind: str, name: str, place: Place) -> tuple[Any, Place] | None:
        """One of them, which now is named by somebody; None, and a problem, when there is none."""
        self.named.add((kind, name))
        found = self.found[kind].get(name)
        if found is None and (kind, name) not in self.broken:
            place.problem(name, f"the name of a document of kind {kind}", did_you_mean(name, self.found[kind]))
        return found

    def inline(self, kind: str, ref: str, given: Any, place: Place) -> tuple[Any, Place] | None:
        """The spec of what is either named or written out."""
        name = given.get(ref)
        if (name is None) is (given.get("spec") is None):
            place.problem(given.get("kind"), f"either {ref}, or kind, metadata and spec")
            return None
        if name is None:
            return given["spec"], place.at("spec")
        found = self.get(kind, name, place.at(ref))
        return None if found is None else (found[0]["spec"], found[1].at("spec"))


def openslo_drafts(documents: Sequence[Document], findings: Findings) -> Iterator[Draft]:
    """Objectives of all documents, which may name one another in any order."""
    objects = _Objects(findings)
    for number, document in enumerate(documents, start=1):
        _take(document, number, objects)
    types = {name: str(data["spec"]["type"]) for name, (data, _) in objects.found["DataSource"].items()}
    types |= {name: "Prometheus" for kind, name in objects.broken if kind == "DataSource"}
    drafts: list[Draft] = []
    composites: list[tuple[Any, Place]] = []
    for data, place in objects.found["SLO"].values():
        if _is_composite(data["spec"]):
            composites.append((data, place))
        else:
            drafts += _drafts(data, place, objects, types)
    about = _by_indicator(objects, drafts)
    for data, place in composites:
        drafts += _composite(data, place, objects, types, about)
    _note_unused(objects)
    # In the order of the documents, whatever names what.
    order = {id(document): number for number, document in enumerate(documents)}
    yield from sorted(drafts, key=lambda draft: order[id(draft.place.document)])


def _take(document: Document, number: int, objects: _Objects) -> None:
    data = document.data
    kind = data.get("kind")
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    label = f"{kind} {name}" if isinstance(kind, str) and isinstance(name, str) else f"document {number}"
    place = Place(document, label[:200], (), objects.findings.check)
    version = data.get("apiVersion")
    if version != API:
        hint = "of v1alpha, write it anew: its queries are said otherwise" if version == "openslo/v1alpha" else ""
        place.at("apiVersion").problem(version, API, hint)
        return
    if not isinstance(kind, str) or kind not in KINDS:
        place.at("kind").problem(kind, f"one of {', '.join(KINDS)}", did_you_mean(kind, KINDS))
        return
    before = len(objects.findings.check.problems)
    KINDS[kind].look(place, data)
    if isinstance(name, str) and name in objects.found[kind]:
        place.at("metadata", "name").problem(name, "each name once in a kind", f"it is also that of {objects.found[kind][name][1].shown}")
    elif len(objects.findings.check.problems) > before:
        objects.broken.add((kind, str(name)))
    else:
        objects.found[kind][str(name)] = (data, place)
        _note_metadata(data, place, objects.findings)


def _note_metadata(data: Any, place: Place, findings: Findings) -> None:
    """Tell what is there for readers alone, wherever it stands: of all that an SLO keeps its own description."""
    if data["kind"] == "DataSource":
        findings.note(place, "not carried over; the gate and the rules are told where Prometheus is")
        return
    _note_prose(data, place, findings, slo=data["kind"] == "SLO")


def _note_prose(value: Any, place: Place, findings: Findings, *, slo: bool) -> None:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        kept = slo and place.path in {("metadata",), ("spec",)}
        if key == "metricSource":
            # Whatever stands there belongs to the query.
            continue
        if key == "annotations" and place.path[-1:] == ("metadata",):
            for name in below or ():
                if name != OPTIONS or not kept:
                    findings.note(place.at(key, name), "not carried over")
        elif key == "labels" and place.path[-1:] == ("metadata",):
            if below:
                findings.note(place.at(key), "not carried over; give them to the rules by --alert-label")
        elif key in {"displayName", "description"}:
            if below and not kept:
                findings.note(place.at(key), "not carried over")
        else:
            _note_prose(below, place.at(key), findings, slo=slo)


def _note_unused(objects: _Objects) -> None:
    for kind in ("SLI", "AlertPolicy", "AlertCondition", "AlertNotificationTarget", "Service"):
        for name, (_, place) in objects.found[kind].items():
            if (kind, name) not in objects.named:
                objects.findings.note(place, "not carried over; nothing names it")


def _is_composite(spec: Any) -> bool:
    return any(each.get("indicator") is not None or each.get("indicatorRef") is not None for each in spec["objectives"])


# -- one objective ------------------------------------------------------------------------------------------------------------------------


def _drafts(data: Any, place: Place, objects: _Objects, types: Mapping[str, str]) -> Iterator[Draft]:
    spec, where = data["spec"], place.at("spec")
    sli = _indicator(spec, where, objects)
    common = _common(data, place, objects)
    if sli is None or common is None:
        return
    overrides = _overrides(data, place) if len(spec["objectives"]) == 1 else {}
    for number, objective in enumerate(spec["objectives"]):
        here = where.at("objectives", number)
        name = data["metadata"]["name"] if len(spec["objectives"]) == 1 else f"{data['metadata']['name']}-{number + 1}"
        own = overrides.get("name")
        name = own if isinstance(own, str) else name
        table, places = dict(common[0]), dict(common[1])
        _target(objective, here, table, places)
        _slices(spec, objective, here, table, places, objects.findings)
        if objective.get("compositeWeight") is not None:
            here.at("compositeWeight").problem(objective["compositeWeight"], "nothing without an indicator of the objective")
        source = source_table(sli[0], sli[1], objective, here, types, objects.findings, name)
        if source is None:
            continue
        if source is not OURS:
            table["source"] = source
            places["source"] = sli[1]
        yield _draft(name, table, place, places, overrides)


def _draft(name: str, table: dict[str, Any], place: Place, places: dict[str, Place], overrides: dict[str, Any]) -> Draft:
    native: dict[str, tuple[Any, Place]] = {}
    for option, value in overrides.items():
        if option == "name":
            continue
        native[option] = table.get(option), places.get(option, place)
        places = {each: where for each, where in places.items() if each.partition(".")[0] != option}
        table.pop(option, None)
        if value is not None:
            table[option] = value
            places[option] = place.at("metadata", "annotations", OPTIONS)
    return Draft(name, table, place, places, native)


def _overrides(data: Any, place: Place) -> dict[str, Any]:
    """What our annotation says."""
    text = (data["metadata"].get("annotations") or {}).get(OPTIONS)
    if text is None:
        return {}
    here = place.at("metadata", "annotations", OPTIONS)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        here.problem(text[:200], "a mapping as JSON")
        return {}
    if not isinstance(found.get("name", ""), str):
        here.problem(found["name"], "a text as name")
        found.pop("name")
    policy = found.get("error_budget_policy")
    windows = policy.get("windows") if isinstance(policy, dict) else None
    for window in windows if isinstance(windows, list) else ():
        if isinstance(window, dict) and isinstance(window.get("budget_share"), str):
            # A decimal, which is another number than the float that prints alike.
            try:
                window["budget_share"] = Decimal(window["budget_share"])
            except InvalidOperation:
                here.problem(window["budget_share"], "a number as budget_share")
    return found


def _indicator(given: Any, place: Place, objects: _Objects) -> tuple[Any, Place] | None:
    inline, ref = given.get("indicator"), given.get("indicatorRef")
    if (inline is None) is (ref is None):
        place.problem(None if inline is None else "both", "either indicator or indicatorRef")
        return None
    if inline is not None:
        return inline["spec"], place.at("indicator", "spec")
    found = objects.get("SLI", ref, place.at("indicatorRef"))
    return None if found is None else (found[0]["spec"], found[1].at("spec"))


def _common(data: Any, place: Place, objects: _Objects) -> tuple[dict[str, Any], dict[str, Place]] | None:
    """What all objectives of a document share."""
    spec, where, findings = data["spec"], place.at("spec"), objects.findings
    table: dict[str, Any] = {"service": spec["service"]}
    objects.named.add(("Service", spec["service"]))
    places = {"name": place.at("metadata", "name"), "service": where.at("service"), "description": where.at("description")}
    display = (data["metadata"].get("displayName") or "").strip()
    description = spec.get("description") or ""
    if description.strip():
        table["description"] = description
        if display:
            findings.note(place.at("metadata", "displayName"), "not carried over, as there is a description")
    elif display:
        table["description"] = display
    period = _window(spec, where, table, places, findings)
    windows = _alerts(spec.get("alertPolicies") or [], where.at("alertPolicies"), objects, period, places)
    if period is None or windows is None:
        return None
    if windows:
        table["error_budget_policy"] = {"name": "openslo", "windows": windows}
        places["error_budget_policy"] = where.at("alertPolicies")
    elif OPTIONS not in (data["metadata"].get("annotations") or {}):
        findings.note(where, "has no alert policy, and an objective here has one: fast_burn_alert")
    return table, places


def _window(spec: Any, where: Place, table: dict[str, Any], places: dict[str, Place], findings: Findings) -> float | None:
    """The period in seconds."""
    if not spec.get("timeWindow"):
        where.at("timeWindow").problem(None, "a list of 1", "an objective is about a period")
        return None
    window, here = spec["timeWindow"][0], where.at("timeWindow", 0)
    calendar, rolling = window.get("calendar"), window.get("isRolling")
    if (calendar is None) is (rolling is not True):
        here.problem({"isRolling": rolling, "calendar": calendar}, "isRolling: true, or a calendar")
        return None
    if calendar is None:
        table["measurement_window"] = seconds_of(window["duration"])
        places["measurement_window"] = here.at("duration")
        return seconds_of(window["duration"])
    unit = {**_CALENDAR, **_CALENDAR_MORE}.get(window["duration"])
    if unit is None:
        findings.misfit(here.at("duration"), window["duration"], "1d, 1w, 1M, 1Q or 1Y with a calendar")
        return None
    begin = _moment(calendar["startTime"])
    if begin is None:
        here.at("calendar", "startTime").problem(calendar["startTime"], "a time without zone, such as 2026-01-01 00:00:00")
        return None
    if not _begins(unit, begin):
        findings.misfit(here.at("calendar", "startTime"), str(begin), f"the beginning of a {unit}")
        return None
    table["calendar"] = unit
    places["calendar"] = here
    places["time_zone"] = here.at("calendar", "timeZone")
    if calendar["timeZone"] != "UTC":
        table["time_zone"] = calendar["timeZone"]
    return periods.NOMINAL[unit]


def _moment(text: Any) -> datetime | None:
    try:
        found = text if isinstance(text, datetime) else datetime.fromisoformat(text.isoformat() if isinstance(text, date) else text)
    except ValueError:
        return None
    return None if found.tzinfo is not None else found


def _begins(unit: str, at: datetime) -> bool:
    if (at.hour, at.minute, at.second, at.microsecond) != (0, 0, 0, 0):
        return False
    if unit == "day":
        return True
    if unit == "week":
        return at.weekday() == 0
    return at.day == 1 and at.month in {"month": range(1, 13), "quarter": (1, 4, 7, 10), "year": (1,)}[unit]


def _target(objective: Any, here: Place, table: dict[str, Any], places: dict[str, Place]) -> None:
    given = [name for name in ("target", "targetPercent") if objective.get(name) is not None]
    if len(given) != 1:
        here.problem(" and ".join(given) or None, "either target or targetPercent")
        table["target_percentage"] = 50.0
        return
    (name,) = given
    value = objective[name]
    table["target_percentage"] = float(value) if name == "targetPercent" else float(Decimal(str(value)) * 100)
    places["target_percentage"] = here.at(name)


def _slices(spec: Any, objective: Any, here: Place, table: dict[str, Any], places: dict[str, Place], findings: Findings) -> None:
    method = spec["budgetingMethod"]
    wanted = {"Occurrences": (), "Timeslices": ("timeSliceWindow", "timeSliceTarget"), "RatioTimeslices": ("timeSliceWindow",)}[method]
    for name in ("timeSliceWindow", "timeSliceTarget"):
        if name in wanted and objective.get(name) is None:
            here.at(name).problem(None, f"a value with {method}", "it has no default")
        elif name not in wanted and objective.get(name) is not None:
            findings.note(here.at(name), f"has no meaning with {method}")
    if method == "Occurrences":
        return
    table["budgeting"] = BUDGETING[method]
    window = objective.get("timeSliceWindow") or 1
    # A number is one of minutes.
    table["time_slice_window"] = float(Decimal(str(window)) * 60) if isinstance(window, int | float) else seconds_of(window)
    places["time_slice_window"] = here.at("timeSliceWindow")
    if method == "Timeslices":
        table["time_slice_target"] = objective.get("timeSliceTarget") or 1.0
        places["time_slice_target"] = here.at("timeSliceTarget")


# -- alerts -------------------------------------------------------------------------------------------------------------------------------


def _alerts(
    given: Iterable[Any], place: Place, objects: _Objects, period: float | None, places: dict[str, Place]
) -> list[dict[str, Any]] | None:
    """Burn-rate windows; None when something is wrong with them."""
    windows: list[dict[str, Any]] = []
    sound = True
    for number, policy in enumerate(given):
        found = objects.inline("AlertPolicy", "alertPolicyRef", policy, place.at(number))
        if found is None:
            sound = False
            continue
        spec, where = found
        condition = objects.inline("AlertCondition", "conditionRef", spec["conditions"][0], where.at("conditions", 0))
        _notify(spec, where, objects)
        if condition is None:
            sound = False
        elif spec.get("alertWhenBreaching") is False:
            objects.findings.note(where.at("alertWhenBreaching"), "this policy is left out: it is not about burning too fast")
        elif period is not None and (window := _condition(*condition, objects.findings, period)) is not None:
            places[f"error_budget_policy.windows.{len(windows)}"] = condition[1].at("condition")
            windows.append(window)
    return windows if sound else None


def _notify(spec: Any, where: Place, objects: _Objects) -> None:
    for name in ("alertWhenNoData", "alertWhenResolved"):
        if spec.get(name) is False:
            objects.findings.note(where.at(name), "not carried over; there is always an alert without data, and Alertmanager tells the end")
    for number, target in enumerate(spec.get("notificationTargets") or []):
        found = objects.inline("AlertNotificationTarget", "targetRef", target, where.at("notificationTargets", number))
        if found is not None and found[0]["target"] not in _KNOWN_SEVERITIES:
            objects.findings.note(found[1], "not carried over; Alertmanager sends alerts by their labels")


def _condition(spec: Any, place: Place, findings: Findings, period: float) -> dict[str, Any] | None:
    condition, here = spec["condition"], place.at("condition")
    if condition.get("op") in {"lt", "lte"}:
        findings.misfit(here.at("op"), condition["op"], "gt or gte", "it would fire while all is well")
        return None
    severity = str(spec["severity"])
    kind = severity if severity in _KNOWN_SEVERITIES else "ticket" if severity.casefold() in _TICKETS else "page"
    if kind != severity:
        findings.note(place.at("severity"), f"{severity} is taken for a {kind}")
    if seconds_of(condition.get("alertAfter") or "0m"):
        findings.note(here.at("alertAfter"), "not carried over; it fires at once, and the short window ends it")
    long = seconds_of(condition["lookbackWindow"])
    share = Decimal(str(condition["threshold"])) * Decimal(str(long)) / Decimal(str(period))
    return {
        "budget_share": float(round(share, 15)),
        "long": long,
        "short": max(_LEAST, long // _SHORT),
        "severity": kind,
    }


# -- composites ---------------------------------------------------------------------------------------------------------------------------


def _by_indicator(objects: _Objects, drafts: Iterable[Draft]) -> dict[str, str]:
    """The one objective about an indicator that has a document of its own, by the name of that document."""
    of_document: dict[str, list[str]] = {}
    for draft in drafts:
        ref = draft.place.document.data["spec"].get("indicatorRef")
        if ref is not None:
            of_document.setdefault(ref, []).append(draft.name)
    return {ref: names[0] for ref, names in of_document.items() if len(names) == 1 and ref in objects.found["SLI"]}


def _composite(data: Any, place: Place, objects: _Objects, types: Mapping[str, str], about: Mapping[str, str]) -> Iterator[Draft]:
    """The objective over several, and those of its parts that no other document is about."""
    spec, where, findings = data["spec"], place.at("spec"), objects.findings
    for name in ("indicator", "indicatorRef"):
        if spec.get(name) is not None:
            where.at(name).problem(spec[name], "nothing, as its objectives have indicators of their own")
    common = _common(data, place, objects)
    overrides = _overrides(data, place)
    name = str(overrides.get("name", data["metadata"]["name"]))
    parts: dict[str, float] = {}
    targets: list[tuple[Decimal, Decimal]] = []
    elsewhere = False
    for number, objective in enumerate(spec["objectives"]):
        here = where.at("objectives", number)
        sli = _indicator(objective, here, objects)
        table, places = ({}, {}) if common is None else (dict(common[0]), dict(common[1]))
        _target(objective, here, table, places)
        weight = objective.get("compositeWeight") or 1.0
        targets.append((Decimal(str(table["target_percentage"])), Decimal(str(weight))))
        known = about.get(objective.get("indicatorRef") or "")
        part = known or f"{name}-{number + 1}"
        if part in parts:
            here.problem(part, "each part once")
        parts[part] = weight
        if sli is None or common is None or known is not None:
            continue
        _slices(spec, objective, here, table, places, findings)
        source = source_table(sli[0], sli[1], objective, here, types, findings, part)
        if source is None:
            continue
        if source is not OURS:
            table["source"] = source
            places["source"] = sli[1]
            elsewhere = True
        yield Draft(part, table, place, places)
    if common is None:
        return
    if spec["budgetingMethod"] != "Occurrences":
        findings.misfit(where.at("budgetingMethod"), spec["budgetingMethod"], "Occurrences with objectives of several indicators")
        return
    if elsewhere:
        hint = "its parts can; in Prometheus nothing adds them up"
        findings.misfit(where.at("objectives"), "several indicators", "those of objectives that the process itself counts", hint)
        return
    table, places = common
    mean = sum((target * weight for target, weight in targets), Decimal(0)) / sum((weight for _, weight in targets), Decimal(0))
    table |= {"target_percentage": float(round(mean, 12)), "parts": parts}
    places |= {"target_percentage": where.at("objectives"), "parts": where.at("objectives")}
    if len({target for target, _ in targets}) > 1:
        findings.note(where.at("objectives"), f"as a whole it has the mean of their targets by weight, {table['target_percentage']:g} %")
    yield _draft(name, table, place, places, overrides)
