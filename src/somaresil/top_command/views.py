"""The views: a picture of a service as lines that fit a width. Nothing is asked and nothing is drawn here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from somaresil.top_command.data import listed, mapped, real, series, text, whole
from somaresil.top_command.text import (
    UNICODE,
    Column,
    Glyphs,
    Line,
    Span,
    cells,
    duration,
    fitted,
    number,
    percent,
    rate,
    shown,
    spark,
    table,
    wrapped,
)

__all__ = ["BURNS", "Look", "Page", "Seen", "draw", "plain", "widest", "worst_first"]

BURNS: Final = (("300", "5m"), ("1800", "30m"), ("3600", "1h"), ("7200", "2h"), ("21600", "6h"), ("86400", "1d"), ("259200", "3d"))
"""Windows of burn rates, in seconds, and how they are called."""
_SPARK: Final = 24
_STATES: Final = {
    "closed": "good",
    "half_open": "warn",
    "ramping": "warn",
    "open": "bad",
    "forced_open": "bad",
    "disabled": "dim",
    "metrics_only": "dim",
}
_MOVES: Final = 6
"""Moves of a circuit that are shown."""
_RECENT: Final = 10
"""Events about a guard that are shown with it."""
_OUTCOMES: Final = ("good", "bad", "rejected", "abandoned", "ignored", "injected")
_LEVELS: Final = {"error": "bad", "critical": "bad", "warning": "warn", "debug": "dim"}
_MUCH: Final = 0.05
"""A share of errors that is said in red."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a service."""

    picture: Mapping[str, Any]
    detail: Mapping[str, Any] | None = None
    """More about the guard that is looked at."""
    events: Sequence[Mapping[str, Any]] = ()
    """The oldest first."""
    lost: int = 0
    """Events that nobody has kept."""
    trouble: str = ""
    """Why nothing new comes; empty: it does."""
    age: float = 0.0
    """Seconds since something came."""


@dataclass(frozen=True, slots=True)
class Look:
    """How it is looked at."""

    view: str = "overview"
    width: int = 100
    wanted: str = ""
    """Only names with this in them."""
    chosen: str = ""
    """The row that is chosen."""
    guard: str = ""
    """The guard of the view of one guard."""
    detailed: bool = False
    """Events of single calls too: a busy service has hundreds of them a second."""
    glyphs: Glyphs = UNICODE
    local: Callable[[float], time.struct_time] = time.localtime
    """What a clock on the wall shows."""


@dataclass(slots=True)
class Page:
    """Lines: the head stays, the body is scrolled."""

    head: list[Line] = field(default_factory=list)
    body: list[Line] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """What can be chosen, from the top."""
    chosen: int | None = None
    """The line of the body with what is chosen."""


def draw(seen: Seen, look: Look) -> Page:
    """The page of a view."""
    page = Page(head=_head(seen, look))
    _VIEWS.get(look.view, _overview)(seen, look, page)
    return page


# -- the head -----------------------------------------------------------------------------------------------------------------------------


def _head(seen: Seen, look: Look) -> list[Line]:
    picture, more = seen.picture, look.glyphs.more
    sources = listed(picture.get("sources"))
    away = [source for source in sources if source.get("state") != "live"]
    at = real(picture.get("at"))
    pieces = [Span(shown(text(picture.get("service")) or "?", 60), "head")]
    if picture.get("environment"):
        pieces.append(Span(shown(picture["environment"], 40)))
    pieces.append(Span(_clock(at, look), "dim"))
    there = len(sources) - len(away)
    pieces.append(Span(f"{there} of {len(sources)} sources" if away else f"{there} sources" if there != 1 else "1 source"))
    lines = wrapped(pieces, look.width, more)
    if seen.trouble:
        lines.append(fitted([Span(f"nothing new for {duration(seen.age)}: {shown(seen.trouble)}", "bad")], look.width, more))
    if away:
        lines += wrapped([_away(source, at) for source in away], look.width, more)
    chaos = mapped(picture.get("chaos"))
    running = [each for each in listed(picture.get("experiments")) if each.get("state") == "running"]
    if chaos.get("engaged"):
        said = f"the safety lever is engaged: {shown(chaos['engaged'], 80)}"
        lines.append(fitted([Span(said, "warn")], look.width, more))
    if running:
        injected = sum(whole(each.get("injected")) for each in running)
        said = f"{len(running)} {'experiment runs' if len(running) == 1 else 'experiments run'}, {injected} faults injected"
        lines.append(fitted([Span(said, "mark")], look.width, more))
    alerts = [(text(slo.get("name")), each) for slo in listed(picture.get("objectives")) for each in listed(slo.get("alerts"))]
    if alerts:
        told = [Span(f"{shown(each.get('severity') or 'alert', 20)}: {shown(name, 60)}", "bad") for name, each in alerts]
        lines += wrapped(told, look.width, more)
    return lines


def _away(source: Mapping[str, Any], at: float | None) -> Span:
    state = shown(source.get("state") or "missing", 20)
    why = shown(source.get("why") or "", 80)
    last = real(source.get("at"))
    when = "" if at is None or last is None or last <= 0.0 else f", last seen {duration(max(0.0, at - last))} ago"
    return Span(
        f"{state}: {shown(source.get('name') or '?', 60)}{when}{f' ({why})' if why else ''}", "bad" if state == "missing" else "warn"
    )


def _clock(at: float | None, look: Look) -> str:
    if at is None:
        return "-"
    try:
        return time.strftime("%H:%M:%S", look.local(at))
    except (OverflowError, OSError, ValueError):
        return "-"


# -- rows ---------------------------------------------------------------------------------------------------------------------------------


def worst_first(guards: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those whose circuit is not closed before the others, each kind by name."""
    return sorted(guards, key=lambda each: (text(each.get("state")) in {"", "closed"}, text(each.get("name"))))


def _fits(name: str, look: Look) -> bool:
    return look.wanted.casefold() in name.casefold()


def _put(page: Page, look: Look, columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[Span]]]) -> None:
    """A table whose rows can be chosen."""
    lines = table([Column(""), *columns], [(_mark(name, look), *row) for name, row in rows], look.width, look.glyphs.more)
    page.body.append(lines[0])
    for (name, _), line in zip(rows, lines[1:], strict=True):
        if name == look.chosen:
            page.chosen = len(page.body)
        page.names.append(name)
        page.body.append(line)


def _mark(name: str, look: Look) -> Span:
    return Span(look.glyphs.chosen, "head") if name and name == look.chosen else Span(" ")


def _title(page: Page, look: Look, said: str, style: str = "head") -> None:
    if page.body:
        page.body.append(())
    page.body.append(fitted([Span(said, style)], look.width, look.glyphs.more))


def _say(page: Page, look: Look, *said: Span) -> None:
    page.body += wrapped(said, look.width, look.glyphs.more) or [()]


_TRAFFIC: Final = (
    Column("calls/s"),
    Column("bad"),
    Column("p50", rank=2),
    Column("p95"),
    Column("p99", rank=3),
    Column("rejected", rank=4),
    Column("injected", rank=1),
    Column("calls", rank=5, right=False),
)


def _traffic(each: Mapping[str, Any], look: Look) -> tuple[Span, ...]:
    errors, injected, counts = real(each.get("error_share")), real(each.get("injected_share")), mapped(each.get("counts"))
    rejected = whole(counts.get("rejected"))
    return (
        Span(rate(real(each.get("rate")))),
        Span(percent(errors), "bad" if (errors or 0.0) >= _MUCH else "warn" if errors else ""),
        Span(duration(real(each.get("p50")))),
        Span(duration(real(each.get("p95")))),
        Span(duration(real(each.get("p99")))),
        Span(str(rejected), "warn" if rejected else ""),
        Span(percent(injected), "mark" if injected else ""),
        Span(spark(series(mapped(each.get("series")).get("calls")), _SPARK, look.glyphs), "dim"),
    )


def _state(each: Mapping[str, Any]) -> Span:
    state = text(each.get("state"))
    if not state:
        return Span("-", "dim")
    states = {name: whole(count) for name, count in mapped(each.get("states")).items() if whole(count)}
    others = sum(count for name, count in states.items() if name != state)
    # Of several processes not all need to be in the worst state.
    said = f"{shown(state, 20)} {states.get(state, 0)}/{states.get(state, 0) + others}" if others else shown(state, 20)
    return Span(said, _STATES.get(state, "warn"))


# -- the views ----------------------------------------------------------------------------------------------------------------------------


def _overview(seen: Seen, look: Look, page: Page) -> None:
    guards = [each for each in worst_first(listed(seen.picture.get("guards"))) if _fits(text(each.get("name")), look)]
    routes = [each for each in listed(seen.picture.get("routes")) if _fits(text(each.get("name")), look)]
    if guards:
        rows = [(text(each.get("name")), (Span(shown(each.get("name") or "?")), _state(each), *_traffic(each, look))) for each in guards]
        _put(page, look, (Column("guard", right=False, least=16), Column("circuit", right=False), *_TRAFFIC), rows)
    else:
        _say(page, look, Span("no guard has this in its name" if look.wanted else "the service has no guards", "dim"))
    if routes:
        page.body.append(())
        rows = [(text(each.get("name")), (Span(shown(each.get("name") or "?")), *_traffic(each, look))) for each in routes]
        columns = (Column("route", right=False, least=16), *_TRAFFIC)
        page.body += table([Column(""), *columns], [(Span(" "), *row) for _, row in rows], look.width, look.glyphs.more)
    pools = listed(seen.picture.get("pools"))
    if pools:
        page.body.append(())
        for pool in pools:
            places = [
                Span(
                    f"{shown(each.get('name') or '?', 40)} {percent(real(each.get('weight')))}", "" if each.get("state") == "in" else "bad"
                )
                for each in listed(pool.get("endpoints"))
            ]
            _say(page, look, Span(f"pool {shown(pool.get('name') or '?', 40)}", "dim"), *places)
    limit = mapped(seen.picture.get("limit"))
    if limit:
        said = f"limit {number(real(limit.get('limit')))}: {whole(limit.get('active'))} active, {whole(limit.get('waiting'))} waiting"
        page.body.append(())
        _say(page, look, Span(said, "dim"))


def _slos(seen: Seen, look: Look, page: Page) -> None:
    objectives = [each for each in listed(seen.picture.get("objectives")) if _fits(text(each.get("name")), look)]
    if not objectives:
        _say(page, look, Span("no objective has this in its name" if look.wanted else "the service has no objectives", "dim"))
    else:
        columns = (
            Column("objective", right=False, least=16),
            Column("target", rank=4),
            Column("budget left"),
            *(Column(said, rank=rank) for (_, said), rank in zip(BURNS, (0, 6, 1, 7, 2, 8, 3), strict=True)),
            Column("empty in", rank=2),
            Column("bad", rank=9),
        )
        _put(page, look, columns, [(text(each.get("name")), _objective(each)) for each in objectives])
        _say(page, look, Span("burn rates: 1 uses the budget up in just its period", "dim"))
    incidents = [each for each in listed(seen.picture.get("incidents")) if _fits(text(each.get("subject")), look)]
    if incidents:
        _title(page, look, "incidents")
        at = real(seen.picture.get("at")) or 0.0
        rows = []
        for each in sorted(incidents, key=lambda each: -(real(each.get("began")) or 0.0)):
            began, ended = real(each.get("began")) or 0.0, real(each.get("ended"))
            over = ended is not None
            rows.append(
                (
                    Span(_clock(began, look), "dim"),
                    Span(shown(each.get("subject") or "?"), "" if over else "bad"),
                    Span(duration(max(0.0, (ended if ended is not None else at) - began))),
                    Span("over" if over else "goes on", "good" if over else "bad"),
                    Span("by an experiment" if each.get("injected") else "", "mark"),
                )
            )
        columns = (
            Column("since", right=False),
            Column("incident", right=False, least=16),
            Column("lasted"),
            Column("", right=False),
            Column("", right=False, rank=1),
        )
        page.body += table(columns, rows, look.width, look.glyphs.more)


def _objective(each: Mapping[str, Any]) -> tuple[Span, ...]:
    left, burn, target = real(each.get("budget_left")), mapped(each.get("burn")), real(each.get("target"))
    style = "" if left is None else "bad" if left <= 0.0 else "warn" if left < 0.25 else "good"  # noqa: PLR2004 - a quarter is little
    blocks = " blocks" if each.get("blocks") else ""
    return (
        Span(shown(each.get("name") or "?")),
        Span("-" if target is None else f"{target * 100.0:.6g}%"),
        Span(f"{percent(left)}{blocks}", style),
        *(_burn(real(burn.get(seconds))) for seconds, _ in BURNS),
        Span(duration(real(each.get("exhausted_in")))),
        Span(str(whole(each.get("bad")))),
    )


def _burn(value: float | None) -> Span:
    return Span(number(value), "" if value is None or value <= 1.0 else "warn" if value < 6.0 else "bad")  # noqa: PLR2004 - a ticket's worth


def _guard(seen: Seen, look: Look, page: Page) -> None:
    guards = worst_first(listed(seen.picture.get("guards")))
    page.names = [text(each.get("name")) for each in guards if _fits(text(each.get("name")), look)]
    found = next((each for each in guards if text(each.get("name")) == look.guard), None)
    if found is None:
        known = f"there is no guard {shown(look.guard)}" if look.guard else "no guard is chosen"
        _say(page, look, Span(known, "warn"))
        _say(page, look, Span("the guards: " + ", ".join(shown(name, 60) for name in page.names), "dim"))
        return
    detail = mapped(seen.detail)
    if text(detail.get("name")) != look.guard:
        detail = {}
    more = look.glyphs.more
    _title(page, look, shown(look.guard))
    page.body += table((Column("circuit", right=False), *_TRAFFIC), [(_state(found), *_traffic(found, look))], look.width, more)
    held = [shown(each, 40) for each in _texts(found.get("held_by"))]
    if held:
        _say(page, look, Span(f"calls take the long way for {', '.join(held)}", "dim"))
    counts, totals, window = mapped(found.get("counts")), mapped(found.get("totals")), real(found.get("window"))
    page.body.append(())
    rows = [
        (
            Span(f"last {duration(None if window is None else float(round(window)))}"),
            *(Span(str(whole(counts.get(name)))) for name in _OUTCOMES),
        ),
        (Span("since the start"), *(Span(str(whole(totals.get(name)))) for name in _OUTCOMES)),
    ]
    page.body += table((Column("", right=False), *(Column(name, rank=rank) for rank, name in enumerate(_OUTCOMES))), rows, look.width, more)
    page.body.append(())
    values = mapped(found.get("series"))
    for name, said in (("calls", "calls"), ("bad", "bad"), ("rejected", "rejected"), ("injected", "injected"), ("p95", "p95")):
        drawn = spark(series(values.get(name)), max(1, min(120, look.width - 12)), look.glyphs)
        page.body.append(
            fitted([Span(f"{said:<10}", "dim"), Span(drawn, {"bad": "bad", "injected": "mark"}.get(name, ""))], look.width, more)
        )
    _timeline(detail, look, page)
    _stages(found, detail, look, page)
    rejections = {shown(name, 40): whole(count) for name, count in mapped(detail.get("rejections")).items() if whole(count)}
    if rejections:
        _title(page, look, "rejected")
        _say(page, look, *(Span(f"{name} {count}") for name, count in sorted(rejections.items(), key=lambda each: -each[1])))
    keys = {shown(name, 40): whole(count) for name, count in mapped(found.get("keys")).items() if whole(count)}
    if keys:
        _title(page, look, "keys")
        _say(page, look, *(Span(f"{count} {name}", _STATES.get(name, "")) for name, count in keys.items()))
    told = listed(detail.get("recent")) or [each for each in seen.events if each.get("about") == look.guard]
    about = [each for each in told if look.detailed or each.get("level") != "debug"][-_RECENT:]
    if about:
        _title(page, look, "events")
        page.body += _event_lines(about, look)


def _texts(value: Any) -> list[Any]:
    return [each for each in value if each is not None] if isinstance(value, list) else [value] if value else []


def _stages(found: Mapping[str, Any], detail: Mapping[str, Any], look: Look, page: Page) -> None:
    stages = listed(detail.get("stages"))
    worst = real(found.get("worst_case"))
    _title(page, look, f"pipeline, {'at most ' + duration(worst) if worst is not None else 'without a limit of time'}")
    if not stages:
        _say(page, look, Span(" > ".join(shown(each, 40) for each in _texts(found.get("pipeline"))) or "nothing around the call"))
        return
    rows = [
        (Span(shown(each.get("name") or "?", 40)), Span(duration(real(each.get("worst_case")))), Span(shown(each.get("says") or "", 120)))
        for each in stages
    ]
    columns = (Column("stage", right=False), Column("worst case"), Column("says", right=False, least=16))
    page.body += table(columns, rows, look.width, look.glyphs.more)


def _timeline(detail: Mapping[str, Any], look: Look, page: Page) -> None:
    moves = listed(detail.get("timeline"))[-_MOVES:]
    if not moves:
        return
    _title(page, look, "circuit")
    rows = [
        (
            Span(_clock(real(each.get("at")), look), "dim"),
            Span(
                f"{shown(each.get('before') or '?', 20)} > {shown(each.get('after') or '?', 20)}", _STATES.get(text(each.get("after")), "")
            ),
            Span(shown(each.get("source") or "", 60), "dim"),
            Span(shown(each.get("cause") or "", 80)),
        )
        for each in moves
    ]
    columns = (
        Column("at", right=False),
        Column("from > to", right=False),
        Column("source", rank=1, right=False),
        Column("cause", right=False, least=6),
    )
    page.body += table(columns, rows, look.width, look.glyphs.more)


def _chaos(seen: Seen, look: Look, page: Page) -> None:
    chaos = mapped(seen.picture.get("chaos"))
    allowed = bool(chaos.get("allowed"))
    _say(page, look, Span("experiments are allowed here" if allowed else "experiments are not allowed here", "" if allowed else "warn"))
    for problem in _texts(chaos.get("problems")):
        said = f"{problem.get('path')}: expected {problem.get('allowed')}" if isinstance(problem, Mapping) else problem
        _say(page, look, Span(shown(said), "dim"))
    experiments = [
        each for each in listed(seen.picture.get("experiments")) if _fits(f"{each.get('id')} {each.get('target')} {each.get('kind')}", look)
    ]
    page.body.append(())
    if experiments:
        order = {"running": 0, "scheduled": 1}
        experiments.sort(key=lambda each: (order.get(text(each.get("state")), 2), -(real(each.get("starts_at")) or 0.0)))
        columns = (
            Column("experiment", right=False, least=8),
            Column("state", right=False),
            Column("left"),
            Column("kind", right=False, rank=2),
            Column("target", right=False, least=6, rank=1),
            Column("rate", rank=4),
            Column("injected"),
            Column("absorbed", rank=3),
            Column("by", right=False, rank=5, least=4),
            Column("ended by", right=False, rank=6, least=6),
        )
        _put(page, look, columns, [(text(each.get("id")), _experiment(each)) for each in experiments])
    else:
        _say(page, look, Span("no experiment", "dim"))
    plans = listed(seen.picture.get("plans"))
    if plans:
        _title(page, look, "approved plans")
        rows = [(Span(shown(each.get("name") or "?", 60)), Span(shown(each.get("about") or ""), "dim")) for each in plans]
        about = (Column("plan", right=False, least=8), Column("about", right=False, least=8))
        page.body += table(about, rows, look.width, look.glyphs.more)


def _experiment(each: Mapping[str, Any]) -> tuple[Span, ...]:
    state = text(each.get("state"))
    remaining = real(each.get("remaining"))
    return (
        Span(shown(each.get("id") or "?")),
        Span(shown(state or "?", 20), {"running": "mark", "scheduled": "warn"}.get(state, "dim")),
        Span(duration(remaining) if state == "running" else "-"),
        Span(shown(each.get("kind") or "?", 40)),
        Span(shown(each.get("target") or "?")),
        Span(percent(real(each.get("rate")))),
        Span(str(whole(each.get("injected")))),
        Span(number(real(each.get("absorbed")))),
        Span(shown(each.get("by") or "-", 60)),
        Span(shown(each.get("end_reason") or "-", 60)),
    )


def _canary(seen: Seen, look: Look, page: Page) -> None:
    canaries = [each for each in listed(seen.picture.get("canaries")) if _fits(text(each.get("name")), look)]
    if not canaries:
        _say(page, look, Span("no canary has this in its name" if look.wanted else "the service has no canaries", "dim"))
        return
    columns = (
        Column("canary", right=False, least=8),
        Column("version", right=False, least=6, rank=2),
        Column("phase", right=False),
        Column("weight"),
        Column("outcome", right=False, rank=1),
        Column("why", right=False, least=8, rank=3),
    )
    rows = []
    for each in canaries:
        outcome = text(each.get("outcome"))
        style = {"complete": "good", "rollback": "bad", "rolled_back": "bad"}.get(outcome, "")
        phase = f"{shown(each.get('phase') or '-', 40)}{' (paused)' if each.get('paused') else ''}"
        rows.append(
            (
                text(each.get("name")),
                (
                    Span(shown(each.get("name") or "?")),
                    Span(shown(each.get("version") or "-")),
                    Span(phase, "warn" if each.get("paused") else ""),
                    Span(percent(real(each.get("weight")))),
                    Span(shown(outcome or "-", 40), style),
                    Span(shown(each.get("reason") or "")),
                ),
            )
        )
    _put(page, look, columns, rows)
    for each in canaries:
        evidence = listed(each.get("evidence"))
        if evidence:
            _title(page, look, f"evidence about {shown(each.get('name') or '?', 60)}")
            page.body += table(
                (
                    Column("objective", right=False, least=8),
                    Column("bad"),
                    Column("events", rank=1),
                    Column("evidence"),
                    Column("enough at"),
                ),
                [_evidence(about) for about in evidence],
                look.width,
                look.glyphs.more,
            )


def _evidence(about: Mapping[str, Any]) -> tuple[Span, ...]:
    value, threshold = real(about.get("e_value")), real(about.get("threshold"))
    proven = value is not None and threshold is not None and value >= threshold
    return (
        Span(shown(about.get("slo") or "?")),
        Span(str(whole(about.get("bad")))),
        Span(str(whole(about.get("events")))),
        Span(number(value), "bad" if proven else ""),
        Span(number(threshold)),
    )


def _events(seen: Seen, look: Look, page: Page) -> None:
    events = [
        each
        for each in seen.events
        if (look.detailed or each.get("level") != "debug") and _fits(f"{each.get('kind')} {each.get('about')} {each.get('text')}", look)
    ]
    hidden = not look.detailed and any(each.get("level") == "debug" for each in seen.events)
    if seen.lost:
        _say(page, look, Span(f"{seen.lost} older ones were not kept", "dim"))
    if not events:
        said = "no event has this in it" if look.wanted else "only events of single calls" if hidden else "no event yet"
        _say(page, look, Span(said, "dim"))
        return
    # The newest on top: that is where one looks.
    page.body += _event_lines(list(reversed(events)), look)


def _event_lines(events: Sequence[Mapping[str, Any]], look: Look) -> list[Line]:
    lines = []
    for each in events:
        level = text(each.get("level"))
        pieces = [Span(_clock(real(each.get("at")), look), "dim"), Span("  ")]
        if look.width >= _WIDE:
            pieces += [Span(shown(each.get("source") or "", 24).ljust(24), "dim"), Span("  ")]
        pieces.append(Span(shown(each.get("text") or each.get("kind") or "?"), _LEVELS.get(level, "")))
        lines.append(fitted(pieces, look.width, look.glyphs.more))
    return lines


_WIDE: Final = 110
"""Cells from which there is room for who has told an event."""

_VIEWS: Final[dict[str, Callable[[Seen, Look, Page], None]]] = {
    "overview": _overview,
    "slos": _slos,
    "guard": _guard,
    "chaos": _chaos,
    "canary": _canary,
    "events": _events,
}


def plain(page: Page) -> str:
    """The whole page as text."""
    lines = [*page.head, (), *page.body]
    return "\n".join("".join(span.text for span in line).rstrip() for line in lines)


def widest(page: Page) -> int:
    """Cells of its longest line."""
    return max((sum(cells(span.text) for span in line) for line in [*page.head, *page.body]), default=0)
