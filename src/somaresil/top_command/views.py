"""The views: a picture of a service as lines that fit a width. Nothing is asked and nothing is drawn here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from somaresil.top_command.data import listed, mapped, real, series, text, texts, whole
from somaresil.top_command.guardview import guard_view
from somaresil.top_command.page import (
    TRAFFIC,
    Look,
    Page,
    Seen,
    clock,
    event_lines,
    fits,
    head_of,
    put,
    say,
    state_of,
    title,
    traffic,
    worst_first,
)
from somaresil.top_command.text import Column, Span, cells, cut, duration, fitted, number, percent, shown, spark, table

__all__ = ["BURNS", "draw"]

BURNS: Final = (("300", "5m"), ("1800", "30m"), ("3600", "1h"), ("7200", "2h"), ("21600", "6h"), ("86400", "1d"), ("259200", "3d"))
"""Windows of burn rates, in seconds, and how they are called."""


_CURVE: Final = 20
_WIDEST, _LABEL = 120, 26
"""Cells of a drawing at most, and of what stands before it."""


def draw(seen: Seen, look: Look) -> Page:
    """The page of a view."""
    page = Page(head=head_of(seen, look))
    _VIEWS.get(look.view, _overview)(seen, look, page)
    return page


def _overview(seen: Seen, look: Look, page: Page) -> None:
    guards = [each for each in worst_first(listed(seen.picture.get("guards"))) if fits(text(each.get("name")), look)]
    routes = [each for each in listed(seen.picture.get("routes")) if fits(text(each.get("name")), look)]
    if guards:
        rows = [(text(each.get("name")), (Span(shown(each.get("name") or "?")), state_of(each), *traffic(each, look))) for each in guards]
        put(page, look, (Column("guard", right=False, least=16), Column("circuit", right=False), *TRAFFIC), rows)
    else:
        say(page, look, Span("no guard has this in its name" if look.wanted else "the service has no guards", "dim"))
    if routes:
        page.body.append(())
        rows = [(text(each.get("name")), (Span(shown(each.get("name") or "?")), *traffic(each, look))) for each in routes]
        columns = (Column("route", right=False, least=16), *TRAFFIC)
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
            say(page, look, Span(f"pool {shown(pool.get('name') or '?', 40)}", "dim"), *places)
    limit = mapped(seen.picture.get("limit"))
    if limit:
        said = f"limit {number(real(limit.get('limit')))}: {whole(limit.get('active'))} active, {whole(limit.get('waiting'))} waiting"
        page.body.append(())
        say(page, look, Span(said, "dim"))


def _slos(seen: Seen, look: Look, page: Page) -> None:
    objectives = [each for each in listed(seen.picture.get("objectives")) if fits(text(each.get("name")), look)]
    if not objectives:
        say(page, look, Span("no objective has this in its name" if look.wanted else "the service has no objectives", "dim"))
    else:
        columns = (
            Column("objective", right=False, least=16),
            Column("target", rank=4),
            Column("budget left"),
            *(Column(said, rank=rank) for (_, said), rank in zip(BURNS, (0, 6, 1, 7, 2, 8, 3), strict=True)),
            Column("empty in", rank=2),
            Column("bad", rank=9),
            Column("budget", rank=10, right=False),
        )
        put(page, look, columns, [(text(each.get("name")), _objective(each, look)) for each in objectives])
        say(page, look, Span("burn rates: 1 uses the budget up in just its period", "dim"))
    incidents = [each for each in listed(seen.picture.get("incidents")) if fits(text(each.get("subject")), look)]
    if incidents:
        title(page, look, "incidents")
        at = real(seen.picture.get("at")) or 0.0
        rows = []
        for each in sorted(incidents, key=lambda each: -(real(each.get("began")) or 0.0)):
            began, ended = real(each.get("began")) or 0.0, real(each.get("ended"))
            over = ended is not None
            rows.append(
                (
                    Span(clock(began, look), "dim"),
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


def _objective(each: Mapping[str, Any], look: Look) -> tuple[Span, ...]:
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
        Span(spark(series(mapped(each.get("budget_series")).get("left")), _CURVE, look.glyphs), "dim"),
    )


def _burn(value: float | None) -> Span:
    return Span(number(value), "" if value is None or value <= 1.0 else "warn" if value < 6.0 else "bad")  # noqa: PLR2004 - a ticket's worth


def _chaos(seen: Seen, look: Look, page: Page) -> None:
    chaos = mapped(seen.picture.get("chaos"))
    allowed = bool(chaos.get("allowed"))
    say(page, look, Span("experiments are allowed here" if allowed else "experiments are not allowed here", "" if allowed else "warn"))
    for problem in texts(chaos.get("problems")):
        said = f"{problem.get('path')}: expected {problem.get('allowed')}" if isinstance(problem, Mapping) else problem
        say(page, look, Span(shown(said), "dim"))
    experiments = [
        each for each in listed(seen.picture.get("experiments")) if fits(f"{each.get('id')} {each.get('target')} {each.get('kind')}", look)
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
        put(page, look, columns, [(text(each.get("id")), _experiment(each)) for each in experiments])
    else:
        say(page, look, Span("no experiment", "dim"))
    plans = listed(seen.picture.get("plans"))
    if plans:
        title(page, look, "approved plans")
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
    canaries = [each for each in listed(seen.picture.get("canaries")) if fits(text(each.get("name")), look)]
    if not canaries:
        say(page, look, Span("no canary has this in its name" if look.wanted else "the service has no canaries", "dim"))
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
    put(page, look, columns, rows)
    for each in canaries:
        evidence = listed(each.get("evidence"))
        if evidence:
            title(page, look, f"evidence about {shown(each.get('name') or '?', 60)}")
            page.body += table(
                _EVIDENCE,
                [_evidence(about) for about in evidence],
                look.width,
                look.glyphs.more,
            )
        for name, values in mapped(mapped(each.get("evidence_series")).get("log10")).items():
            drawn = spark(series(values), max(1, min(_WIDEST, look.width - _LABEL)), look.glyphs)
            label = cut(_AGAINST.get(name) or shown(name, 60), _LABEL - 2, look.glyphs.more)
            page.body.append(fitted([Span(label + " " * (_LABEL - cells(label)), "dim"), Span(drawn)], look.width, look.glyphs.more))


_EVIDENCE: Final = (
    Column("objective", right=False, least=8),
    Column("that it is", right=False, rank=1),
    Column("bad"),
    Column("events", rank=2),
    Column("evidence"),
    Column("enough at"),
)
_AGAINST: Final = {"worse": "worse", "objective": "worse than the objective", "not_much_worse": "not much worse"}
"""What is to be shown, as one says it."""


def _evidence(about: Mapping[str, Any]) -> tuple[Span, ...]:
    value, threshold = real(about.get("e_value")), real(about.get("threshold"))
    proven = value is not None and threshold is not None and value >= threshold
    return (
        Span(shown(about.get("slo") or "?")),
        Span(_AGAINST.get(text(about.get("against"))) or shown(about.get("against") or "-", 40)),
        Span(str(whole(about.get("bad")))),
        Span(str(whole(about.get("events")))),
        Span(number(value), "bad" if proven else ""),
        Span(number(threshold)),
    )


def _events(seen: Seen, look: Look, page: Page) -> None:
    events = [
        each
        for each in seen.events
        if (look.detailed or each.get("level") != "debug") and fits(f"{each.get('kind')} {each.get('about')} {each.get('text')}", look)
    ]
    hidden = not look.detailed and any(each.get("level") == "debug" for each in seen.events)
    if seen.lost:
        say(page, look, Span(f"{seen.lost} older ones were not kept", "dim"))
    if not events:
        said = "no event has this in it" if look.wanted else "only events of single calls" if hidden else "no event yet"
        say(page, look, Span(said, "dim"))
        return
    # The newest on top: that is where one looks.
    page.body += event_lines(list(reversed(events)), look)


_VIEWS: Final[dict[str, Callable[[Seen, Look, Page], None]]] = {
    "overview": _overview,
    "slos": _slos,
    "guard": guard_view,
    "chaos": _chaos,
    "canary": _canary,
    "events": _events,
}
