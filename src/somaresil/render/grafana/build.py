"""The parts that boards are made of, as plain data in the form of Grafana's dashboard JSON.

What is made here is about looks alone. Which questions a board asks is in the module of that board.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

__all__ = [
    "BAD",
    "DIMMED",
    "ENVIRONMENT",
    "EVERYTHING",
    "GOOD",
    "LOKI",
    "METRICS",
    "NOTED",
    "WARNED",
    "Board",
    "Column",
    "Query",
    "Variable",
    "annotation",
    "bars",
    "board_link",
    "heat",
    "log_annotation",
    "log_lines",
    "logs_link",
    "note",
    "number",
    "states",
    "steps",
    "table",
    "traces_link",
    "trend",
]

Panel = dict[str, Any]

METRICS: Final = {"type": "prometheus", "uid": "${datasource}"}
LOKI: Final = {"type": "loki", "uid": "${logs}"}
SCHEMA_VERSION: Final = 39
"""Of Grafana 11, which newer ones read as well."""
WIDTH: Final = 24
"""Units that a board is wide."""
GOOD, WARNED, BAD, NOTED, DIMMED = "green", "orange", "red", "blue", "gray"
EVERYTHING: Final = ".*"
ENVIRONMENT: Final = 'service=~"$service",environment=~"$environment"'
"""The matchers of everything that is scraped."""


@dataclass(frozen=True, slots=True)
class Query:
    """One expression of a panel."""

    expr: str
    legend: str = ""
    now: bool = False
    """At the end of the time that is shown, and not over it."""
    exemplars: bool = False

    def target(self, number: int, *, form: str = "time_series") -> dict[str, Any]:
        """As a panel has it."""
        return {
            "datasource": METRICS,
            "editorMode": "code",
            "exemplar": self.exemplars,
            "expr": self.expr,
            "format": form,
            "instant": self.now,
            "legendFormat": self.legend or "__auto",
            "range": not self.now,
            "refId": chr(ord("A") + number),
        }


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table."""

    title: str
    expr: str
    unit: str = "short"
    steps: tuple[tuple[float | None, str], ...] = ()
    """Colours of its cells; none: they are plain."""
    decimals: int | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    """Something that whoever looks can choose."""

    name: str
    label: str
    expr: str
    """``label_values(...)``"""
    about: str
    several: bool = True
    """Whether more than one can be chosen, and all."""

    def as_dict(self, chosen: str | None = None) -> dict[str, Any]:
        """As a board has it; ``chosen``: what is chosen at first."""
        first = {"selected": True, "text": "All", "value": "$__all"} if self.several else None
        if chosen is not None:
            first = {"selected": True, "text": chosen, "value": chosen}
        found: dict[str, Any] = {
            "datasource": METRICS,
            "description": self.about,
            "hide": 0,
            "includeAll": self.several,
            "label": self.label,
            "multi": self.several,
            "name": self.name,
            "query": {"query": self.expr, "refId": self.name},
            "refresh": 2,
            "regex": "",
            "skipUrlSync": False,
            "sort": 5,
            "type": "query",
        }
        if self.several:
            found["allValue"] = EVERYTHING
        if first is not None:
            found["current"] = first
        return found


def _source_variable(name: str, label: str, kind: str, uid: str, about: str) -> dict[str, Any]:
    return {
        "current": {"selected": True, "text": uid, "value": uid},
        "description": about,
        "hide": 0,
        "includeAll": False,
        "label": label,
        "multi": False,
        "name": name,
        "query": kind,
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "type": "datasource",
    }


class Board:
    """Panels from left to right and from top to bottom, and what is around them."""

    def __init__(
        self, uid: str, title: str, about: str, *, variables: tuple[Variable, ...], annotations: tuple[dict[str, Any], ...]
    ) -> None:
        """Nothing is on it."""
        self.uid = uid
        self._title = title
        self._about = about
        self._variables = variables
        self._annotations = annotations
        self._panels: list[Panel] = []
        self._left = self._top = self._height = 0

    def row(self, title: str) -> None:
        """Begin a part that can be folded."""
        self._line()
        self._place({"collapsed": False, "panels": [], "title": title, "type": "row"}, WIDTH, 1)
        self._line()

    def add(self, panel: Panel, width: int, height: int = 8) -> None:
        """Put a panel beside the last one, or below it when there is no room."""
        if self._left + width > WIDTH:
            self._line()
        self._place(panel, width, height)

    def _line(self) -> None:
        self._top += self._height
        self._left = self._height = 0

    def _place(self, panel: Panel, width: int, height: int) -> None:
        # By its title, not by its place: a link to a panel survives what is put before it.
        number = zlib.crc32(f"{self.uid}/{panel['type']}/{panel['title']}".encode()) % 1_000_000_000 + 1
        self._panels.append({**panel, "gridPos": {"h": height, "w": width, "x": self._left, "y": self._top}, "id": number})
        self._left += width
        self._height = max(self._height, height)

    def as_dict(self, *, service: str, metrics: str, traces: str, logs: str) -> dict[str, Any]:
        """In the form of Grafana; the rest is what is chosen when it is opened."""
        sources = [
            _source_variable("datasource", "Metrics", "prometheus", metrics, "The Prometheus that scrapes the services."),
            _source_variable("traces", "Traces", "jaeger", traces, "Where links to traces lead."),
            _source_variable("logs", "Logs", "loki", logs, "Where links to logs lead."),
        ]
        chosen = {"service": service}
        return {
            "annotations": {"list": [_BUILT_IN, *self._annotations]},
            "description": self._about,
            "editable": True,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "links": [_OTHER_BOARDS],
            "panels": self._panels,
            "refresh": "30s",
            "schemaVersion": SCHEMA_VERSION,
            "tags": [_TAG],
            "templating": {"list": [*sources, *(each.as_dict(chosen.get(each.name)) for each in self._variables)]},
            "time": {"from": "now-1h", "to": "now"},
            "timezone": "browser",
            "title": self._title,
            "uid": self.uid,
        }


_TAG: Final = "somaresil"
_BUILT_IN: Final = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}
_OTHER_BOARDS: Final = {
    "asDropdown": False,
    "icon": "external link",
    "includeVars": True,
    "keepTime": True,
    "tags": [_TAG],
    "targetBlank": False,
    "title": "Boards",
    "tooltip": "The other boards, for the same time and service",
    "type": "dashboards",
    "url": "",
}


# -- links --------------------------------------------------------------------------------------------------------------------------------


def board_link(title: str, uid: str, *variables: str) -> dict[str, Any]:
    """A link from a series or a row to another board. ``variables``: labels of the series that are variables there."""
    chosen = "".join(f"&var-{name}=${{__field.labels.{name}}}" for name in variables)
    return {"targetBlank": False, "title": title, "url": f"/d/{uid}?${{__url_time_range}}&var-service=${{service}}{chosen}"}


def _explore(source: str, query: dict[str, Any]) -> str:
    pane = {"datasource": source, "queries": [query], "range": {"from": "${__from}", "to": "${__to}"}}
    # What Grafana is to put in must stay as it is; everything else is encoded.
    panes = quote(json.dumps({"s": pane}, separators=(",", ":"), sort_keys=True), safe="${}._:")
    return f"/explore?schemaVersion=1&orgId=${{__org.id}}&panes={panes}"


def traces_link(title: str, tags: str) -> dict[str, Any]:
    """A link to the traces of the service with these tags, as Jaeger reads them: ``somaresil.guard=search``."""
    query = {
        "datasource": {"type": "jaeger", "uid": "${traces}"},
        "queryType": "search",
        "refId": "A",
        "service": "${service}",
        "tags": tags,
    }
    return {"targetBlank": True, "title": title, "url": _explore("${traces}", query)}


def logs_link(title: str, field: str, text: str) -> dict[str, Any]:
    """A link to the lines of the service whose field has this value."""
    query = {
        "datasource": {"type": "loki", "uid": "${logs}"},
        "expr": f'{{service_name="${{service}}"}} | json | {field}="{text}"',
        "queryType": "range",
        "refId": "A",
    }
    return {"targetBlank": True, "title": title, "url": _explore("${logs}", query)}


# -- annotations --------------------------------------------------------------------------------------------------------------------------


def annotation(name: str, expr: str, colour: str, *, title: str, tags: str = "") -> dict[str, Any]:
    """Marks at the times at which an expression has a value above 0."""
    return {
        "datasource": METRICS,
        "enable": True,
        "expr": expr,
        "hide": False,
        "iconColor": colour,
        "name": name,
        "tagKeys": tags,
        "titleFormat": title,
    }


def log_annotation(name: str, expr: str, colour: str, *, title: str) -> dict[str, Any]:
    """Marks where a line of a log says it; not shown until somebody asks for it, for not everybody has Loki."""
    return {
        "datasource": LOKI,
        "enable": False,
        "expr": expr,
        "hide": False,
        "iconColor": colour,
        "name": name,
        "titleFormat": title,
    }


# -- panels -------------------------------------------------------------------------------------------------------------------------------


def steps(*pairs: tuple[float | None, str]) -> dict[str, Any]:
    """Colours from these values on; the first value is None, for whatever is below the second."""
    return {"mode": "absolute", "steps": [{"color": colour, "value": value} for value, colour in pairs]}


_PLAIN: Final = steps((None, "text"))


def _panel(kind: str, title: str, about: str, queries: tuple[Query, ...], *, form: str = "time_series") -> Panel:
    return {
        "datasource": METRICS,
        "description": about,
        "targets": [query.target(number, form=form) for number, query in enumerate(queries)],
        "title": title,
        "type": kind,
    }


_LEGEND: Final = {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True}
_TOOLTIP: Final = {"mode": "multi", "sort": "desc"}


def trend(
    title: str,
    about: str,
    *queries: Query,
    unit: str,
    none: str,
    stacked: bool = False,
    at_most: float | None = None,
    lines: dict[str, Any] | None = None,
    colours: dict[str, str] | None = None,
    links: tuple[dict[str, Any], ...] = (),
    logarithmic: bool = False,
) -> Panel:
    """Values over time. ``none`` is said when there are none; ``lines``: thresholds that are drawn; ``colours`` by the name of a series."""
    custom: dict[str, Any] = {
        "drawStyle": "line",
        "fillOpacity": 25 if stacked else 8,
        "lineWidth": 1,
        "scaleDistribution": {"log": 10, "type": "log"} if logarithmic else {"type": "linear"},
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "off" if lines is None else "dashed"},
    }
    defaults: dict[str, Any] = {
        "color": {"mode": "palette-classic"},
        "custom": custom,
        "links": list(links),
        "noValue": none,
        "thresholds": lines or _PLAIN,
        "unit": unit,
    }
    if not logarithmic:
        defaults["min"] = 0
    if at_most is not None:
        defaults["max"] = at_most
    overrides = [
        {"matcher": {"id": "byName", "options": name}, "properties": [{"id": "color", "value": {"fixedColor": colour, "mode": "fixed"}}]}
        for name, colour in (colours or {}).items()
    ]
    return {
        **_panel("timeseries", title, about, queries),
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": {"legend": _LEGEND, "tooltip": _TOOLTIP},
    }


_LAST: Final = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def number(
    title: str,
    about: str,
    query: Query,
    *,
    unit: str,
    none: str,
    colours: dict[str, Any] | None = None,
    words: dict[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
    links: tuple[dict[str, Any], ...] = (),
) -> Panel:
    """One figure. ``words``: what is shown instead of a value, and in which colour."""
    defaults: dict[str, Any] = {
        "color": {"mode": "thresholds"},
        "links": list(links),
        "mappings": _mappings(words or {}),
        "noValue": none,
        "thresholds": colours or _PLAIN,
        "unit": unit,
    }
    if decimals is not None:
        defaults["decimals"] = decimals
    return {
        **_panel("stat", title, about, (query,)),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "reduceOptions": _LAST,
            "textMode": "auto",
        },
    }


def _mappings(words: dict[str, tuple[str, str]]) -> list[dict[str, Any]]:
    if not words:
        return []
    options = {value: {"color": colour, "index": place, "text": text} for place, (value, (text, colour)) in enumerate(words.items())}
    return [{"options": options, "type": "value"}]


def states(title: str, about: str, *queries: Query, words: dict[str, tuple[str, str]], none: str) -> Panel:
    """States over time, a line for each series. ``words``: what a value means, and its colour."""
    return {
        **_panel("state-timeline", title, about, queries),
        "fieldConfig": {
            "defaults": {
                "color": {"mode": "thresholds"},
                "custom": {"fillOpacity": 80, "lineWidth": 0},
                "mappings": _mappings(words),
                "noValue": none,
                "thresholds": _PLAIN,
                "unit": "none",
            },
            "overrides": [],
        },
        "options": {
            "alignValue": "left",
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "mergeValues": True,
            "rowHeight": 0.9,
            "showValue": "never",
            "tooltip": {"mode": "single", "sort": "none"},
        },
    }


def bars(title: str, about: str, *queries: Query, unit: str, colours: dict[str, Any], none: str, at_most: float | None = None) -> Panel:
    """A bar for each series, as it is at the end of the time that is shown."""
    defaults: dict[str, Any] = {
        "color": {"mode": "thresholds"},
        "min": 0,
        "noValue": none,
        "thresholds": colours,
        "unit": unit,
    }
    if at_most is not None:
        defaults["max"] = at_most
    return {
        **_panel("bargauge", title, about, queries),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "displayMode": "basic",
            "minVizHeight": 16,
            "minVizWidth": 8,
            "orientation": "horizontal",
            "reduceOptions": _LAST,
            "showUnfilled": True,
            "valueMode": "color",
        },
    }


def table(
    title: str,
    about: str,
    keys: dict[str, str],
    *columns: Column,
    sort: str,
    falling: bool = False,
    none: str,
    links: dict[str, tuple[dict[str, Any], ...]] | None = None,
) -> Panel:
    """A row for each thing. ``keys``: labels that name it, with their titles; ``links`` of these, by label."""
    queries = tuple(Query(column.expr, now=True) for column in columns)
    letters = [chr(ord("A") + place) for place in range(len(columns))]
    # With a single query Grafana does not say which one it was.
    values = ["Value"] if len(columns) == 1 else [f"Value #{letter}" for letter in letters]
    order = [*keys, *values]
    overrides: list[dict[str, Any]] = []
    for column in columns:
        properties: list[dict[str, Any]] = [{"id": "unit", "value": column.unit}]
        if column.decimals is not None:
            properties.append({"id": "decimals", "value": column.decimals})
        if column.steps:
            properties += [
                {"id": "thresholds", "value": steps(*column.steps)},
                {"id": "custom.cellOptions", "value": {"type": "color-text"}},
            ]
        overrides.append({"matcher": {"id": "byName", "options": column.title}, "properties": properties})
    for label, targets in (links or {}).items():
        override = {"matcher": {"id": "byName", "options": keys[label]}, "properties": [{"id": "links", "value": list(targets)}]}
        overrides.append(override)
    return {
        **_panel("table", title, about, queries, form="table"),
        "fieldConfig": {
            "defaults": {
                "color": {"mode": "thresholds"},
                "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "filterable": False, "inspect": False},
                "noValue": none,
                "thresholds": _PLAIN,
            },
            "overrides": overrides,
        },
        "options": {"cellHeight": "sm", "frameIndex": 0, "showHeader": True, "sortBy": [{"desc": falling, "displayName": sort}]},
        "transformations": [
            {"id": "merge", "options": {}},
            {"id": "filterFieldsByName", "options": {"include": {"names": order}}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {},
                    "indexByName": {name: place for place, name in enumerate(order)},
                    "renameByName": {**keys, **{value: column.title for value, column in zip(values, columns, strict=True)}},
                },
            },
        ],
    }


def heat(title: str, about: str, query: Query, *, unit: str) -> Panel:
    """How many fell into each bucket of a histogram, over time."""
    return {
        **_panel("heatmap", title, about, (query,), form="heatmap"),
        "fieldConfig": {"defaults": {"custom": {"scaleDistribution": {"type": "linear"}}}, "overrides": []},
        "options": {
            "calculate": False,
            "cellGap": 1,
            "color": {"exponent": 0.5, "fill": "dark-orange", "mode": "scheme", "reverse": False, "scheme": "Spectral", "steps": 64},
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto"},
            "showValue": "never",
            "tooltip": {"show": True, "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
        },
    }


def log_lines(title: str, about: str, expr: str) -> Panel:
    """Lines of a log."""
    target = {"datasource": LOKI, "editorMode": "code", "expr": expr, "queryType": "range", "refId": "A"}
    return {
        "datasource": LOKI,
        "description": about,
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {
            "dedupStrategy": "none",
            "enableLogDetails": True,
            "prettifyLogMessage": False,
            "showCommonLabels": False,
            "showLabels": False,
            "showTime": True,
            "sortOrder": "Descending",
            "wrapLogMessage": False,
        },
        "targets": [target],
        "title": title,
        "type": "logs",
    }


def note(title: str, text: str) -> Panel:
    """Words for whoever looks, in Markdown."""
    return {
        "description": "",
        "fieldConfig": {"defaults": {}, "overrides": []},
        "options": {"content": text, "mode": "markdown"},
        "title": title,
        "type": "text",
    }
