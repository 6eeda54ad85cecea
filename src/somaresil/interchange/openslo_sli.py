"""Indicators of OpenSLO as sources: which PromQL counts the good, the bad, and all events in a window."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from somaresil.interchange.promql import WINDOW, has_window, increase, over_time, ranged, rates_of, selector, whole
from somaresil.slo.rules.source import EVENTS
from somaresil.slo.rules.text import number as written
from somaresil.slo.rules.text import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.interchange.drafts import Findings
    from somaresil.interchange.shapes import Place

__all__ = ["OURS", "Ours", "source_table"]

_PROMETHEUS: Final = frozenset({"prometheus", "victoriametrics", "thanos", "mimir", "cortex"})
_QUERIES: Final = ("query", "promql")
_OPERATORS: Final = {"lte": "<=", "gte": ">=", "lt": "<", "gt": ">"}
_STEP: Final = "1m"


class Ours:
    """Says that it is our own counter: no source is needed."""


OURS: Final = Ours()


def source_table(
    sli: Any, place: Place, objective: Any, where: Place, data_sources: Mapping[str, str], findings: Findings, name: str
) -> dict[str, Any] | Ours | None:
    """The table ``source`` for an indicator and one of the objectives about it; None when there is none, which is noted."""
    kinds = [kind for kind in ("ratioMetric", "thresholdMetric") if sli.get(kind) is not None]
    if len(kinds) != 1:
        place.problem(" and ".join(kinds) or None, "either ratioMetric or thresholdMetric")
        return None
    if kinds == ["thresholdMetric"]:
        return _threshold(sli["thresholdMetric"], place.at("thresholdMetric"), objective, where, data_sources, findings)
    for option in ("op", "value"):
        if objective.get(option) is not None:
            findings.note(where.at(option), "has no meaning with ratioMetric")
    return _ratio(sli["ratioMetric"], place.at("ratioMetric"), data_sources, findings, name)


def _threshold(
    metric: Any, place: Place, objective: Any, where: Place, data_sources: Mapping[str, str], findings: Findings
) -> dict[str, Any] | None:
    sound = True
    for option in ("op", "value"):
        if objective.get(option) is None:
            where.at(option).problem(None, "a value with thresholdMetric", "it has no default")
            sound = False
    query = _query(metric, place, data_sources, findings)
    if query is None or not sound:
        return None
    if has_window(query):
        findings.misfit(place, query[:200], "a query for the value of the moment, without {{.window}}")
        return None
    findings.note(place, "the query is looked at once a minute, and each minute is an event")
    bound = written_of(objective["value"])
    good = f"count_over_time((({query}) {_OPERATORS[objective['op']]} {bound})[{WINDOW}:{_STEP}])"
    return {"good_query": good, "total_query": f"count_over_time(({query})[{WINDOW}:{_STEP}])", "rates": False}


def written_of(value: float) -> str:
    """A number as PromQL has it, without exponent."""
    return written(Decimal(str(value)))


def _ratio(ratio: Any, place: Place, data_sources: Mapping[str, str], findings: Findings, name: str) -> dict[str, Any] | Ours | None:
    given = [part for part in ("good", "bad", "total", "raw") if ratio.get(part) is not None]
    if "raw" in given:
        if given != ["raw"]:
            place.problem(", ".join(given), "raw alone, or total with good or bad")
        elif ratio.get("rawType") is None:
            place.at("rawType").problem(None, "success | failure with raw", "it has no default")
        else:
            why = "a ratio has no events, and a quiet night would weigh as much as a busy day"
            findings.misfit(place.at("raw"), "raw", "total with good or bad", why)
        return None
    if given not in (["good", "total"], ["bad", "total"]):
        place.problem(", ".join(given) or None, "total with either good or bad")
        return None
    if ratio.get("rawType") is not None:
        place.at("rawType").problem(ratio["rawType"], "nothing without raw")
    queries = {part: _query(ratio[part], place.at(part), data_sources, findings) for part in given}
    if None in queries.values():
        return None
    part = given[0]
    if _is_ours(queries, part, name):
        return OURS
    counter = ratio.get("counter")
    made = {each: _windowed(str(query), counter, place.at(each), findings) for each, query in queries.items()}
    if None in made.values():
        return None
    if counter is None and not all(has_window(str(query)) for query in queries.values()):
        findings.note(place, "does not say counter; what has no window is taken for counters")
    rates = rates_of(*map(str, made.values()))
    if rates is None:
        findings.note(place, "taken for counts in the window; set rates to true in the file if they are rates by the second")
    table: dict[str, Any] = {f"{part}_query": made[part], "total_query": made["total"]}
    return table if rates else {**table, "rates": False}


def _is_ours(queries: Mapping[str, str | None], part: str, name: str) -> bool:
    return queries == {part: f"{EVENTS}{{slo={quoted(name)},outcome={quoted(part)}}}", "total": f"{EVENTS}{{slo={quoted(name)}}}"}


def _query(metric: Any, place: Place, data_sources: Mapping[str, str], findings: Findings) -> str | None:
    source = metric["metricSource"]
    here = place.at("metricSource")
    kind = source.get("type")
    ref = source.get("metricSourceRef")
    if ref is not None and ref not in data_sources and kind is None:
        here.at("metricSourceRef").problem(ref, "a DataSource of these documents, or type as well")
        return None
    if kind is None and ref is None:
        here.at("type").problem(None, "a value, or metricSourceRef", "it has no default")
        return None
    known = data_sources.get(ref) if ref is not None else None
    if kind is not None and known is not None and kind.casefold() != known.casefold():
        here.at("type").problem(kind, f"{known}, which is that of {ref}")
        return None
    kind = kind or known
    if re.sub(r"[^a-z]", "", str(kind).casefold()) not in _PROMETHEUS:
        findings.misfit(here.at("type"), kind, "Prometheus, or what speaks like it", "only PromQL is understood here")
        return None
    spec = source["spec"]
    named = [name for name in _QUERIES if isinstance(spec, dict) and spec.get(name) is not None]
    if len(named) != 1 or not isinstance(spec[named[0]], str):
        here.at("spec").problem(spec, "a mapping with query")
        return None
    for name in spec:
        if name not in _QUERIES:
            findings.note(here.at("spec", name), "not carried over")
    text = whole(spec[named[0]].strip())
    if text is None:
        here.at("spec", named[0]).problem(spec[named[0]][:200], "PromQL of at most 2000 characters whose brackets and quotes are closed")
    return text


def _windowed(query: str, counter: bool | None, place: Place, findings: Findings) -> str | None:  # noqa: FBT001 - a value of the document
    if has_window(query):
        return query
    here = place.at("metricSource", "spec")
    series = selector(query)
    if series is not None:
        return over_time("sum_over_time", series) if counter is False else increase(series)
    found = ranged(query)
    if found is None:
        hint = "a selector of a counter, a sum of one, or rates and increases of one range are understood"
        findings.misfit(here, query[:200], "a query with {{.window}} where the window goes", hint)
    else:
        findings.note(here, "its range is taken for the window")
    return found
