"""What every view is made of: what is known, how it is looked at, lines, the head on top of each."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

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
    percent,
    rate,
    shown,
    spark,
    table,
    wrapped,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "STATES",
    "TRAFFIC",
    "Look",
    "Page",
    "Seen",
    "clock",
    "event_lines",
    "fits",
    "head_of",
    "plain",
    "put",
    "say",
    "state_of",
    "title",
    "traffic",
    "widest",
    "worst_first",
]

_SPARK: Final = 24
STATES: Final = {
    "closed": "good",
    "half_open": "warn",
    "ramping": "warn",
    "open": "bad",
    "forced_open": "bad",
    "disabled": "dim",
    "metrics_only": "dim",
}
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


# -- the head -----------------------------------------------------------------------------------------------------------------------------


def head_of(seen: Seen, look: Look) -> list[Line]:
    """What stands on top of every view."""
    picture, more = seen.picture, look.glyphs.more
    sources = listed(picture.get("sources"))
    away = [source for source in sources if source.get("state") != "live"]
    at = real(picture.get("at"))
    pieces = [Span(shown(text(picture.get("service")) or "?", 60), "head")]
    if picture.get("environment"):
        pieces.append(Span(shown(picture["environment"], 40)))
    pieces.append(Span(clock(at, look), "dim"))
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


def clock(at: float | None, look: Look) -> str:
    """The time on the wall."""
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


def fits(name: str, look: Look) -> bool:
    """Whether it passes the filter."""
    return look.wanted.casefold() in name.casefold()


def put(page: Page, look: Look, columns: Sequence[Column], rows: Sequence[tuple[str, Sequence[Span]]]) -> None:
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


def title(page: Page, look: Look, said: str, style: str = "head") -> None:
    """A headline with an empty line above it."""
    if page.body:
        page.body.append(())
    page.body.append(fitted([Span(said, style)], look.width, look.glyphs.more))


def say(page: Page, look: Look, *said: Span) -> None:
    """Some pieces, on as many lines as that takes."""
    page.body += wrapped(said, look.width, look.glyphs.more) or [()]


TRAFFIC: Final = (
    Column("calls/s"),
    Column("bad"),
    Column("p50", rank=2),
    Column("p95"),
    Column("p99", rank=3),
    Column("rejected", rank=4),
    Column("injected", rank=1),
    Column("calls", rank=5, right=False),
)


def traffic(each: Mapping[str, Any], look: Look) -> tuple[Span, ...]:
    """The cells of :data:`TRAFFIC`."""
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


def state_of(each: Mapping[str, Any]) -> Span:
    """The state of a circuit, and in how many processes."""
    state = text(each.get("state"))
    if not state:
        return Span("-", "dim")
    states = {name: whole(count) for name, count in mapped(each.get("states")).items() if whole(count)}
    others = sum(count for name, count in states.items() if name != state)
    # Of several processes not all need to be in the worst state.
    said = f"{shown(state, 20)} {states.get(state, 0)}/{states.get(state, 0) + others}" if others else shown(state, 20)
    return Span(said, STATES.get(state, "warn"))


def event_lines(events: Sequence[Mapping[str, Any]], look: Look) -> list[Line]:
    """A line for each."""
    lines = []
    for each in events:
        level = text(each.get("level"))
        pieces = [Span(clock(real(each.get("at")), look), "dim"), Span("  ")]
        if look.width >= _WIDE:
            pieces += [Span(shown(each.get("source") or "", 24).ljust(24), "dim"), Span("  ")]
        pieces.append(Span(shown(each.get("text") or each.get("kind") or "?"), _LEVELS.get(level, "")))
        lines.append(fitted(pieces, look.width, look.glyphs.more))
    return lines


_WIDE: Final = 110
"""Cells from which there is room for who has told an event."""


def plain(page: Page) -> str:
    """The whole page as text."""
    lines = [*page.head, (), *page.body]
    return "\n".join("".join(span.text for span in line).rstrip() for line in lines)


def widest(page: Page) -> int:
    """Cells of its longest line."""
    return max((sum(cells(span.text) for span in line) for line in [*page.head, *page.body]), default=0)
