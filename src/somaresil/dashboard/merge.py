"""Many portraits into one, and one portrait into the picture that is shown. Pure: no clock, no thread, no file.

Merging does not depend on order or grouping. Counts are added; of what cannot be added the worst, the largest or the union is taken.
Shares, quantiles, burn rates and what is left of a budget are worked out at the end, from the sums: the mean of two p95 is not a p95.

Where bounds of latency buckets differ (two versions of a service at once) only those that all have are kept, on which counts add up
exactly. Processes that share a folder of snapshots tell of the same events of an objective: of those the one that knows most speaks.
"""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final

from somaresil.dashboard import columns
from somaresil.dashboard.history import HEAD, INJECTED, OUTCOMES, STEP
from somaresil.dashboard.picture import GUARD, MOST_INCIDENTS, ROUTE, VERSION
from somaresil.model import slo as model
from somaresil.model.histogram import quantiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["absent", "busiest", "details", "guard", "merge", "objective", "picture", "seen", "together"]

STATES: Final = ("closed", "metrics_only", "disabled", "ramping", "half_open", "open", "forced_open")
"""Of breakers, the worst last: a guard is shown in the worst that it has in any process."""
_MOST_TIMELINE: Final = 500


Portrait = dict[str, Any]


# -- portraits ----------------------------------------------------------------------------------------------------------------------------


def merge(portraits: Iterable[Portrait]) -> Portrait:
    """All of them as one; of one that one. There must be at least one, and all of the same version (see :mod:`.checked`)."""
    return reduce(together, portraits)


def together(one: Portrait, other: Portrait) -> Portrait:
    """Two of them as one."""
    return {
        "version": VERSION,
        "form": "portrait",
        "service": min(one["service"], other["service"]),
        "environment": _least(one["environment"], other["environment"]),
        "at": max(one["at"], other["at"]),
        "since": min(one["since"], other["since"]),
        "index": max(one["index"], other["index"]),
        "sources": _union(one["sources"], other["sources"], _source),
        "guards": _union(one["guards"], other["guards"], _guard),
        "routes": _union(one["routes"], other["routes"], _counted),
        "objectives": _union(one["objectives"], other["objectives"], _objective),
        "incidents": _incidents(one["incidents"], other["incidents"]),
        "experiments": _union(one["experiments"], other["experiments"], _experiment),
        "chaos": _maybe(_chaos, one["chaos"], other["chaos"]),
        "canaries": _union(one["canaries"], other["canaries"], _canary),
        "pools": _union(one["pools"], other["pools"], lambda a, b: _union(a, b, _endpoint)),
        "limit": _maybe(_sum_of, one["limit"], other["limit"]),
        "columns": _maybe(columns.together, one["columns"], other["columns"]),
    }


def _union(one: Mapping[str, Any], other: Mapping[str, Any], both: Callable[[Any, Any], Any]) -> dict[str, Any]:
    found = {**one, **other}
    for name in one.keys() & other.keys():
        found[name] = both(one[name], other[name])
    return found


def _maybe(both: Callable[[Any, Any], Any], one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else both(one, other)


def _least(one: Any, other: Any) -> Any:
    return _maybe(min, one, other)


def _most(one: Any, other: Any) -> Any:
    return _maybe(max, one, other)


def _sum_of(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


def _source(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return max(one, other, key=lambda source: (source["at"] or 0.0, repr(sorted(source.items()))))


def _counted(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    bounds, mine, theirs = one["bounds"], one["recent"], other["recent"]
    if bounds != other["bounds"]:
        bounds = columns.common(bounds, other["bounds"])
        mine = None if mine is None else columns.narrowed(mine, one["bounds"], bounds)
        theirs = None if theirs is None else columns.narrowed(theirs, other["bounds"], bounds)
    recent = _maybe(lambda a, b: list(map(add, a, b)), mine, theirs)
    return {"bounds": bounds, "totals": list(map(add, one["totals"], other["totals"])), "recent": recent}


def _guard(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    shown = _counted(one, other)
    shown["pipeline"] = max(one["pipeline"], other["pipeline"], key=lambda layers: (len(layers), layers))
    # What nothing bounds in one process is not bounded.
    bounds = [one["worst_case"], other["worst_case"]]
    shown["worst_case"] = None if None in bounds else max(bounds)
    shown["states"] = _sum_of(one["states"], other["states"])
    shown["held_by"] = sorted({*one["held_by"], *other["held_by"]})
    shown["keys"] = _maybe(_sum_of, one["keys"], other["keys"])
    shown["throttled"] = _most(one["throttled"], other["throttled"])
    shown["budget_scale"] = _least(one["budget_scale"], other["budget_scale"])
    return shown


def _objective(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    # Where two versions of a service promise different things, one of them speaks.
    chosen = max(one, other, key=lambda each: (each["target"], each["period"], each["kind"], each["policy"], each["description"]))
    alerts = {
        (each["severity"], each["group"]): each for each in sorted((*other["alerts"], *one["alerts"]), key=lambda each: -each["since"])
    }
    return {
        **chosen,
        "length": max(one["length"], other["length"]),
        "weights": max(one["weights"], other["weights"], key=lambda weights: sorted(weights.items())),
        "blocks": one["blocks"] or other["blocks"],
        "alerts": [alerts[key] for key in sorted(alerts, key=lambda key: (key[0], key[1] or ""))],
        "counted": _union(one["counted"], other["counted"], _knows_more),
    }


def _knows_more(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Of two that tell of the same events: the one that has seen more of them."""
    return max(one, other, key=lambda each: (sum(each["counts"]), each["at"], repr(sorted(each.items()))))


def _incidents(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {
        (each["source"], each["id"], each["began"]): each for each in sorted((*one, *other), key=lambda each: repr(sorted(each.items())))
    }
    return sorted(found.values(), key=lambda each: (each["began"], each["source"], each["id"]))[-MOST_INCIDENTS:]


_RUNS: Final = ("ended", "scheduled", "running")


def _experiment(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    state = max(one["state"], other["state"], key=_RUNS.index)
    reasons = [each["end_reason"] for each in (one, other) if each["end_reason"] is not None]
    return {
        "id": min(one["id"], other["id"]),
        "kind": min(one["kind"], other["kind"]),
        "target": min(one["target"], other["target"]),
        "rate": max(one["rate"], other["rate"]),
        "duration": max(one["duration"], other["duration"]),
        "state": state,
        "starts_at": min(one["starts_at"], other["starts_at"]),
        "remaining": max(one["remaining"], other["remaining"]),
        # A reason for each of those that are over; one that runs somewhere has none yet, and keeps them for when it has.
        "end_reason": min(reasons, default=None),
        "injected": one["injected"] + other["injected"],
        "absorbed": None if one["absorbed"] is None or other["absorbed"] is None else one["absorbed"] + other["absorbed"],
        "struck": _sum_of(one["struck"], other["struck"]),
        "by": _least(one["by"], other["by"]),
        "sources": sorted({*one["sources"], *other["sources"]}),
    }


def _chaos(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "allowed": one["allowed"] and other["allowed"],
        "problems": sorted({*one["problems"], *other["problems"]}),
        "engaged": _least(one["engaged"], other["engaged"]),
    }


def _canary(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Whoever leads knows what is done; of several the one that speaks last."""
    return max(one, other, key=lambda each: (each["leads"], each["at"], each["source"], repr(sorted(each.items()))))


def _endpoint(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "states": _sum_of(one["states"], other["states"]),
        "details": _sum_of(one["details"], other["details"]),
        "weight": max(one["weight"], other["weight"]),
    }


# -- as it is seen from here --------------------------------------------------------------------------------------------------------------


def busiest(portrait: Mapping[str, Any], most: int) -> list[str]:
    """The names of columns that are plotted, in an order that says nothing."""
    calls = [
        (-sum((each["recent"] or each["totals"])[:5]), prefix + name)
        for prefix, kind in ((GUARD, "guards"), (ROUTE, "routes"))
        for name, each in portrait[kind].items()
    ]
    return sorted(name for _, name in sorted(calls)[:most])


def absent(name: str, kind: str, why: str, *, process: int | None = None, address: str = "") -> dict[str, Any]:
    """The row of a source that is missing."""
    return {"name": name, "kind": kind, "state": "missing", "at": None, "why": why, "process": process, "address": address}


def seen(portrait: dict[str, Any], *, kind: str, state: str, why: str, now: float, address: str = "") -> dict[str, Any]:
    """With its sources as they are seen from here. Of one that is stale nothing is recent."""
    sources = {
        identity: {
            **source,
            "kind": kind,
            "state": state if source["state"] == "live" else source["state"],
            "why": why or source["why"],
            "address": address or source["address"],
        }
        for identity, source in portrait["sources"].items()
    }
    if state == "live":
        # By our clock, for the other one may be set differently: what is recent there is recent here.
        return {**portrait, "sources": sources, "at": now, "since": now - (portrait["at"] - portrait["since"])}
    guards = {name: {**each, "recent": None} for name, each in portrait["guards"].items()}
    routes = {name: {**each, "recent": None} for name, each in portrait["routes"].items()}
    return {**portrait, "sources": sources, "guards": guards, "routes": routes, "at": min(portrait["at"], now), "since": now}


# -- the picture --------------------------------------------------------------------------------------------------------------------------


def picture(portrait: Portrait, plotted: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Any]:
    """What is shown: see the guide on the dashboard. ``plotted``: what :func:`series` has made, by the names of columns."""
    plotted = {} if plotted is None else plotted
    window = max(0.0, portrait["at"] - portrait["since"])
    return {
        "version": VERSION,
        "service": portrait["service"],
        "environment": portrait["environment"],
        "at": portrait["at"],
        "step": STEP,
        "columns": columns.begins(portrait["index"]),
        "sources": sorted(portrait["sources"].values(), key=lambda source: (source["kind"] != "self", source["name"], source["address"])),
        "guards": [guard(name, each, window, plotted.get(GUARD + name)) for name, each in sorted(portrait["guards"].items())],
        "routes": [
            {"name": name, **_figures(each, window), "series": plotted.get(ROUTE + name)}
            for name, each in sorted(portrait["routes"].items())
        ],
        "objectives": [objective(name, portrait) for name in sorted(portrait["objectives"])],
        "incidents": portrait["incidents"],
        "experiments": [
            _ended(each) for each in sorted(portrait["experiments"].values(), key=lambda each: (each["starts_at"], each["id"]))
        ],
        "chaos": {**(portrait["chaos"] or {"allowed": False, "problems": [], "engaged": None}), "environment": portrait["environment"]},
        "plans": [],
        "canaries": [{"name": name, **each} for name, each in sorted(portrait["canaries"].items())],
        "pools": [{"name": name, "endpoints": _endpoints(each)} for name, each in sorted(portrait["pools"].items())],
        "limit": portrait["limit"],
    }


def guard(name: str, each: Mapping[str, Any], window: float, plotted: Mapping[str, Any] | None) -> dict[str, Any]:
    """One guard as it is shown; ``window``: seconds that what is recent comes from."""
    states = each["states"]
    return {
        "name": name,
        "pipeline": each["pipeline"],
        "worst_case": each["worst_case"],
        "state": max(states, key=lambda state: (STATES.index(state) if state in STATES else len(STATES), state)) if states else None,
        "states": states,
        "held_by": each["held_by"],
        **_figures(each, window),
        "keys": each["keys"],
        "throttled": each["throttled"],
        "budget_scale": each["budget_scale"],
        "series": plotted,
    }


_NO_COUNTS: Final = dict.fromkeys((*OUTCOMES, "injected"), None)


def _figures(each: Mapping[str, Any], window: float) -> dict[str, Any]:
    bounds, recent, totals = each["bounds"], each["recent"], each["totals"]
    shown: dict[str, Any] = {"window": round(window, 3), "totals": _named(totals)}
    if recent is None:
        return {**shown, "rate": None, "counts": _NO_COUNTS, **_SHARES}
    calls = sum(recent[:INJECTED])
    if not calls:
        return {**shown, "rate": 0.0 if window >= _SHORTEST else None, "counts": _named(recent), **_SHARES}
    judged = recent[0] + recent[1] + recent[2]
    p50, p95, p99 = quantiles(bounds, recent[HEAD:], _QUANTILES)
    return {
        **shown,
        "rate": calls / window if window >= _SHORTEST else None,
        "counts": _named(recent),
        "error_share": (recent[1] + recent[2]) / judged if judged else None,
        "injected_share": recent[INJECTED] / calls,
        "p50": columns.shortened(p50),
        "p95": columns.shortened(p95),
        "p99": columns.shortened(p99),
    }


_SHORTEST: Final = 0.1
"""Seconds that a rate is worked out of at least."""
_QUANTILES: Final = (0.5, 0.95, 0.99)
_SHARES: Final = dict.fromkeys(("error_share", "injected_share", "p50", "p95", "p99"), None)


def _named(row: Sequence[int]) -> dict[str, int]:
    good, bad, rejected, abandoned, ignored, injected = row[:HEAD]
    return {"good": good, "bad": bad, "rejected": rejected, "abandoned": abandoned, "ignored": ignored, "injected": injected}


def _ended(run: dict[str, Any]) -> dict[str, Any]:
    return run if run["state"] == "ended" else {**run, "end_reason": None}


def _endpoints(endpoints: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "state": "out" if "out" in each["states"] else "in", **each} for name, each in sorted(endpoints.items())]


# -- objectives ---------------------------------------------------------------------------------------------------------------------------


def objective(name: str, portrait: Portrait) -> dict[str, Any]:
    """One objective of a portrait as it is shown."""
    each = portrait["objectives"][name]
    target, length = each["target"], each["length"]
    # 1 - 0.999 is not 0.001 in floats, and a budget of 0 must not be divided by.
    budget = round(1.0 - target, 12)
    ratio = _bad_ratio(portrait, name, "counts")
    burns = {window: _burn(_bad_ratio(portrait, name, "windows", window), budget) for window in _windows(each)}
    left = None if ratio is None or budget <= 0.0 else 1.0 - ratio / budget
    burn = burns.get("3600")
    good, bad = _sums(each, "events")
    points = _points(each)
    return {
        "name": name,
        "target": target,
        "period": each["period"],
        "kind": each["kind"],
        "policy": each["policy"],
        "description": each["description"],
        "good": good,
        "bad": bad,
        "compliance": None if ratio is None else 1.0 - ratio,
        "coverage": max((counted["coverage"] for counted in each["counted"].values()), default=0.0),
        "budget_left": left,
        "burn": burns,
        "exhausted_in": None if left is None or burn is None else model.time_to_exhaustion(left, burn, length),
        "alerts": each["alerts"],
        "blocks": each["blocks"],
        "budget_series": {"at": [at for at, _ in points], "left": [1.0 - share / budget if budget > 0.0 else None for _, share in points]},
    }


def _windows(each: Mapping[str, Any]) -> list[str]:
    return sorted(
        {window for counted in each["counted"].values() for window in counted["windows"]}, key=lambda window: (len(window), window)
    )


def _burn(ratio: float | None, budget: float) -> float | None:
    return None if ratio is None or budget <= 0.0 else ratio / budget


def _sums(each: Mapping[str, Any], what: str, window: str | None = None) -> tuple[int, int]:
    good = bad = 0
    for counted in each["counted"].values():
        pair = counted[what] if window is None else counted[what].get(window, (0, 0))
        good, bad = good + pair[0], bad + pair[1]
    return good, bad


def _bad_ratio(portrait: Portrait, name: str, what: str, window: str | None = None, above: tuple[str, ...] = ()) -> float | None:
    """The share of bad events; of a composite the mean of its parts by weight, those without events left out. None: no event."""
    each = portrait["objectives"].get(name)
    if each is None or name in above:
        return None
    if not each["weights"]:
        return model.error_ratio(*_sums(each, what, window))
    parts = [(weight, _bad_ratio(portrait, part, what, window, (*above, name))) for part, weight in each["weights"].items()]
    known = [(weight, ratio) for weight, ratio in parts if ratio is not None]
    whole = sum(weight for weight, _ in known)
    return sum(weight * ratio for weight, ratio in known) / whole if whole > 0.0 else None


def _points(each: Mapping[str, Any]) -> list[tuple[float, float]]:
    """When, and the share of bad events in the window of the budget as it was then."""
    sums: dict[float, tuple[int, int]] = {}
    for counted in each["counted"].values():
        for at, good, bad in counted["points"]:
            before = sums.get(at, (0, 0))
            sums[at] = (before[0] + good, before[1] + bad)
    return [(float(at), bad / (good + bad)) for at, (good, bad) in sorted(sums.items()) if good + bad]


# -- one thing ----------------------------------------------------------------------------------------------------------------------------


def details(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several processes say of one guard, as one; there must be one at least. Its columns are those of :func:`.columns.merged`."""
    first = max(found, key=lambda each: (len(each["stages"]), repr(each["stages"]), repr(each["options"])))
    timeline = sorted((step for each in found for step in each["timeline"]), key=lambda step: (step["at"], step["source"]))
    tallies = [each["tally"] for each in found if each["tally"] is not None]
    return {
        "guard": reduce(_guard, (each["guard"] for each in found)),
        "options": first["options"],
        "stages": first["stages"],
        "changed": sorted({change for each in found for change in each["changed"]}),
        "findings": sorted({finding for each in found for finding in each["findings"]}),
        "timeline": timeline[-_MOST_TIMELINE:],
        "tally": reduce(_sum_of, tallies) if tallies else None,
        "rejections": reduce(_sum_of, [each["rejections"] for each in found]),
        "columns": columns.merged([each["columns"] for each in found]),
    }
