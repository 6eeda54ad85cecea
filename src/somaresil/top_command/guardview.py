"""The view of one guard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.top_command.data import listed, mapped, real, series, text, texts, whole
from somaresil.top_command.page import (
    STATES,
    TRAFFIC,
    Look,
    Page,
    Seen,
    clock,
    event_lines,
    fits,
    say,
    state_of,
    title,
    traffic,
    worst_first,
)
from somaresil.top_command.text import (
    Column,
    Span,
    duration,
    fitted,
    shaded,
    shown,
    spark,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["guard_view"]

_WIDEST, _LABEL = 120, 12
"""Cells of a drawing at most, and of what stands before it."""
_MOVES: Final = 6
"""Moves of a circuit that are shown."""
_RECENT: Final = 10
"""Events about a guard that are shown with it."""
_OUTCOMES: Final = ("good", "bad", "rejected", "abandoned", "ignored", "injected")


def guard_view(seen: Seen, look: Look, page: Page) -> None:
    """One guard: counts, the moves of its circuit, its pipeline, rejections, events."""
    guards = worst_first(listed(seen.picture.get("guards")))
    page.names = [text(each.get("name")) for each in guards if fits(text(each.get("name")), look)]
    found = next((each for each in guards if text(each.get("name")) == look.guard), None)
    if found is None:
        known = f"there is no guard {shown(look.guard)}" if look.guard else "no guard is chosen"
        say(page, look, Span(known, "warn"))
        say(page, look, Span("the guards: " + ", ".join(shown(name, 60) for name in page.names), "dim"))
        return
    detail = mapped(seen.detail)
    if text(detail.get("name")) != look.guard:
        detail = {}
    more = look.glyphs.more
    title(page, look, shown(look.guard))
    page.body += table((Column("circuit", right=False), *TRAFFIC), [(state_of(found), *traffic(found, look))], look.width, more)
    held = [shown(each, 40) for each in texts(found.get("held_by"))]
    if held:
        say(page, look, Span(f"calls take the long way for {', '.join(held)}", "dim"))
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
        drawn = spark(series(values.get(name)), max(1, min(_WIDEST, look.width - _LABEL)), look.glyphs)
        page.body.append(
            fitted([Span(f"{said:<{_LABEL - 2}}", "dim"), Span(drawn, {"bad": "bad", "injected": "mark"}.get(name, ""))], look.width, more)
        )
    _heat(mapped(detail.get("heat")), look, page)
    _timeline(detail, look, page)
    _stages(found, detail, look, page)
    rejections = {shown(name, 40): whole(count) for name, count in mapped(detail.get("rejections")).items() if whole(count)}
    if rejections:
        title(page, look, "rejected")
        say(page, look, *(Span(f"{name} {count}") for name, count in sorted(rejections.items(), key=lambda each: -each[1])))
    keys = {shown(name, 40): whole(count) for name, count in mapped(found.get("keys")).items() if whole(count)}
    if keys:
        title(page, look, "keys")
        say(page, look, *(Span(f"{count} {name}", STATES.get(name, "")) for name, count in keys.items()))
    told = listed(detail.get("recent")) or [each for each in seen.events if each.get("about") == look.guard]
    about = [each for each in told if look.detailed or each.get("level") != "debug"][-_RECENT:]
    if about:
        title(page, look, "events")
        page.body += event_lines(about, look)


def _heat(heat: Mapping[str, Any], look: Look, page: Page) -> None:
    """How long calls took: a line for each bucket that has some, the slowest on top."""
    bounds, cells = series(heat.get("bounds")), heat.get("cells")
    if not bounds or None in bounds or not isinstance(cells, list):
        return
    columns = [series(each) for each in cells][-max(1, min(_WIDEST, look.width - _LABEL)) :]
    rows = [[column[place] if place < len(column) else None for column in columns] for place in range(len(bounds) + 1)]
    used = [place for place, row in enumerate(rows) if any(row)]
    if not used:
        return
    title(page, look, "latency")
    top = max(value for row in rows for value in row if value is not None)
    for place in range(used[-1], used[0] - 1, -1):
        label = f"to {duration(bounds[place])}" if place < len(bounds) else f"over {duration(bounds[-1])}"
        line = [Span(f"{label:<{_LABEL - 2}}", "dim"), Span("".rjust(max(0, min(_WIDEST, look.width - _LABEL) - len(columns))))]
        page.body.append(fitted([*line, Span(shaded(rows[place], top, look.glyphs))], look.width, look.glyphs.more))


def _stages(found: Mapping[str, Any], detail: Mapping[str, Any], look: Look, page: Page) -> None:
    stages = listed(detail.get("stages"))
    worst = real(found.get("worst_case"))
    title(page, look, f"pipeline, {'at most ' + duration(worst) if worst is not None else 'without a limit of time'}")
    if not stages:
        say(page, look, Span(" > ".join(shown(each, 40) for each in texts(found.get("pipeline"))) or "nothing around the call"))
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
    title(page, look, "circuit")
    rows = [
        (
            Span(clock(real(each.get("at")), look), "dim"),
            Span(
                f"{shown(each.get('before') or '?', 20)} > {shown(each.get('after') or '?', 20)}", STATES.get(text(each.get("after")), "")
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
