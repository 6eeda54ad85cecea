"""The status as one page of tables, for browsers without JavaScript, in terminals, and for whoever reads aloud."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["STYLE", "missing_page", "plain_page"]

_DEEPEST: Final = 8
"""Levels below the page from which a page about nothing leads back: nothing of ours is as deep."""
STYLE: Final = b"""\
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1.5rem 0; width: 100%; }
caption { font-size: 1.2rem; font-weight: 600; padding: .3rem 0; text-align: left; }
th, td { border-bottom: 1px solid GrayText; padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
.warning { border-left: .3rem solid; padding-left: .7rem; }
"""

_MOST_ROWS: Final = 1_000
"""Of one table. A page without JavaScript has to be read from the top."""
_UNKNOWN: Final = "not known"
_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))
_WINDOWS: Final = (("300", "5 min"), ("3600", "1 h"), ("21600", "6 h"), ("259200", "3 d"))

Column = tuple[str, "Callable[[Mapping[str, Any]], str]"]


def plain_page(picture: Mapping[str, Any], *, refresh: int | None = None) -> str:
    """The page; ``refresh``: seconds after which the browser asks anew. Everything in the picture is shown as text."""
    service = escape(str(picture.get("service") or ""))
    again = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh is not None else ""
    tables = [
        _table("Sources", picture.get("sources"), _SOURCES),
        _table("Guards", picture.get("guards"), _GUARDS),
        _table("Routes", picture.get("routes"), _ROUTES),
        _table("Objectives", picture.get("objectives"), _OBJECTIVES),
        _table("Experiments", picture.get("experiments"), _EXPERIMENTS),
        _table("Canaries", picture.get("canaries"), _CANARIES),
        _table("Incidents", picture.get("incidents"), _INCIDENTS),
    ]
    link = (
        '<a href="plain">Ask only when told to</a>' if refresh is not None else '<a href="plain?refresh=10">Ask again every 10 seconds</a>'
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{service}: status</title>\n<link rel="icon" href="data:,">\n<link rel="stylesheet" href="plain.css">\n{again}</head>\n'
        f"<body>\n<main>\n<h1>{service}: status</h1>\n"
        f"<p>{escape(_stamp(picture.get('at')))}, environment {_text(picture.get('environment'))}. "
        f'<a href="plain">Again</a>. {link}. <a href="./">The page with pictures</a>.</p>\n'
        f"{_warnings(picture)}{''.join(tables)}</main>\n</body>\n</html>\n"
    )


def missing_page(detail: str, depth: int) -> str:
    """What a browser is shown where there is nothing; ``depth``: how many levels below the page that is.

    Of a path that was made to be deep the page is as short as of any other, and its link leads nowhere.
    """
    home = "../" * min(depth, _DEEPEST) or "./"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>Not here</title>\n<link rel="icon" href="data:,">\n<link rel="stylesheet" href="{home}plain.css">\n</head>\n<body>\n'
        f'<main>\n<h1>Not here</h1>\n<p>{escape(detail)}.</p>\n<p><a href="{home}">To the dashboard</a></p>\n</main>\n</body>\n</html>\n'
    )


def _warnings(picture: Mapping[str, Any]) -> str:
    said = []
    absent = [each for each in _rows(picture.get("sources")) if each.get("state") != "live"]
    if absent:
        named = ", ".join(f"{_text(each.get('name'))} ({_text(each.get('state'))})" for each in absent)
        said.append(f"Not everything is in these tables: {named}.")
    chaos = picture.get("chaos")
    if isinstance(chaos, dict) and chaos.get("engaged"):
        said.append(f"The safety lever is engaged: {_text(chaos['engaged'])}.")
    running = sum(each.get("state") == "running" for each in _rows(picture.get("experiments")))
    if running:
        said.append(f"{running} experiment{'s run' if running > 1 else ' runs'}.")
    return "".join(f'<p class="warning" role="status">{text}</p>\n' for text in said)


def _table(caption: str, listed: Any, columns: Sequence[Column]) -> str:
    rows = _rows(listed)
    if not rows:
        return f"<h2>{caption}</h2>\n<p>None.</p>\n"
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title, _ in columns)
    body = "".join(_row(row, columns) for row in rows[:_MOST_ROWS])
    more = f"<p>And {len(rows) - _MOST_ROWS} more.</p>\n" if len(rows) > _MOST_ROWS else ""
    table = f"<table>\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"
    return f'<div class="wide">{table}</div>\n{more}'


def _row(row: Mapping[str, Any], columns: Sequence[Column]) -> str:
    cells = [show(row) for _, show in columns]
    return f'<tr><th scope="row">{cells[0]}</th>{"".join(f"<td>{cell}</td>" for cell in cells[1:])}</tr>\n'


def _rows(listed: Any) -> list[Mapping[str, Any]]:
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []


# -- cells: what comes out is HTML ------------------------------------------------------------------------------------------------------


def _text(value: Any) -> str:
    return _UNKNOWN if value is None or value == "" else escape(str(value)[:300]).replace("_", "_<wbr>")


def _field(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: _text(row.get(name))


def _number(value: Any, digits: int = 3) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _UNKNOWN
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}g}" if abs(value) < 1_000 else f"{value:,.0f}"  # noqa: PLR2004


def _share(name: str) -> Callable[[Mapping[str, Any]], str]:
    def show(row: Mapping[str, Any]) -> str:
        value = row.get(name)
        return _UNKNOWN if isinstance(value, bool) or not isinstance(value, int | float) else f"{100 * value:.4g} %"

    return show


def _seconds(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return _UNKNOWN
    for length, unit in _UNITS:
        if abs(value) >= length:
            return f"{value / length:.3g} {unit}"
    return f"{value * 1_000:.3g} ms"


def _time(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: _seconds(row.get(name))


def _stamp(value: Any) -> str:
    from datetime import UTC, datetime

    try:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (TypeError, ValueError, OverflowError, OSError):
        return "at a time that is not known"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(_text(value) for value in values) or "none"


def _state(row: Mapping[str, Any]) -> str:
    states = row.get("states")
    if isinstance(states, dict) and len(states) > 1:
        return _listed(f"{state} in {count}" for state, count in states.items())
    return "no breaker" if row.get("state") is None else _text(row["state"])


def _counted(name: str) -> Callable[[Mapping[str, Any]], str]:
    def show(row: Mapping[str, Any]) -> str:
        counts = row.get("counts")
        return _number(counts.get(name)) if isinstance(counts, dict) else _UNKNOWN

    return show


def _burns(row: Mapping[str, Any]) -> str:
    burn = row.get("burn")
    if not isinstance(burn, dict):
        return _UNKNOWN
    return ", ".join(f"{_number(burn.get(window))} ({label})" for window, label in _WINDOWS)


def _alerts(row: Mapping[str, Any]) -> str:
    return _listed(alert.get("severity") for alert in _rows(row.get("alerts")))


def _when(name: str, without: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda row: without if row.get(name) is None else escape(_stamp(row[name]))


_SOURCES: Final[tuple[Column, ...]] = (
    ("source", _field("name")),
    ("kind", _field("kind")),
    ("state", _field("state")),
    ("why", lambda row: _text(row.get("why") or "-")),
)
_TRAFFIC: Final[tuple[Column, ...]] = (
    ("calls a second", lambda row: _number(row.get("rate"))),
    ("bad", _share("error_share")),
    ("rejected", _counted("rejected")),
    ("injected", _share("injected_share")),
    ("p50", _time("p50")),
    ("p95", _time("p95")),
    ("p99", _time("p99")),
)
_GUARDS: Final[tuple[Column, ...]] = (("guard", _field("name")), ("breaker", _state), *_TRAFFIC)
_ROUTES: Final[tuple[Column, ...]] = (("route", _field("name")), *_TRAFFIC)
_OBJECTIVES: Final[tuple[Column, ...]] = (
    ("objective", _field("name")),
    ("target", _share("target")),
    ("kept", _share("compliance")),
    ("budget left", _share("budget_left")),
    ("burn rate", _burns),
    ("exhausted in", _time("exhausted_in")),
    ("alerts", _alerts),
)
_EXPERIMENTS: Final[tuple[Column, ...]] = (
    ("experiment", _field("id")),
    ("kind", _field("kind")),
    ("target", _field("target")),
    ("state", _field("state")),
    ("left", _time("remaining")),
    ("injected", lambda row: _number(row.get("injected"))),
    ("absorbed", lambda row: _number(row.get("absorbed"))),
    ("by", _field("by")),
)
_CANARIES: Final[tuple[Column, ...]] = (
    ("canary", _field("name")),
    ("version", _field("version")),
    ("phase", _field("phase")),
    ("weight", _share("weight")),
    ("reason", lambda row: _text(row.get("reason") or "-")),
)
_INCIDENTS: Final[tuple[Column, ...]] = (
    ("about", _field("subject")),
    ("began", _when("began", _UNKNOWN)),
    ("ended", _when("ended", "not yet")),
    ("experiment", lambda row: _text(row.get("experiment") or "none")),
)
