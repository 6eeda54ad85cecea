"""Plots of a report as SVG: no script, no font, no link; colours come from the page around them."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from somaresil.gameday.report import PhaseReport, Point

__all__ = ["bars", "evidence", "histogram", "lines_over_time", "share_over_time"]

_WIDTH, _HEIGHT = 900.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 56.0, 18.0, 26.0
_BAR: Final = 18.0
_MOST_BARS: Final = 60
_LONGEST_LABEL: Final = 40


def lines_over_time(points: Sequence[Point], phases: Sequence[PhaseReport]) -> str:
    """The share of good calls from 0 to 1, the 95th percentile on a scale of its own, touched calls as bars, the phases as bands."""
    end = max([point.at for point in points] + [sum(phase.seconds for phase in phases), 1e-9])
    slowest = max([point.p95 for point in points if point.p95 is not None], default=0.0) or 1.0
    most = max((point.touched for point in points), default=0) or 1
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    base = _TOP + inner_height

    def x(at: float) -> float:
        return _LEFT + inner_width * min(max(at / end, 0.0), 1.0)

    def y(part: float) -> float:
        return base - inner_height * min(max(part, 0.0), 1.0)

    drawn = [*_bands(phases, x, inner_height)]
    drawn += [f'<path d="M{_LEFT:g} {y(part):.1f}H{_WIDTH - _RIGHT:g}" stroke="var(--line)"/>' for part in (0.0, 0.5, 1.0)]
    before = 0.0
    for point in points:
        if point.touched:
            height = inner_height * 0.5 * point.touched / most
            width = max(1.0, x(point.at) - x(before) - 1.0)
            place = f'x="{x(before):.1f}" y="{base - height:.1f}" width="{width:.1f}" height="{height:.1f}"'
            drawn.append(f'<rect {place} fill="var(--bad)" opacity=".35"/>')
        before = point.at
    drawn += _line([(point.at, point.ratio) for point in points], x, y, 'stroke="var(--good)" stroke-width="2"')
    parts = [(point.at, None if point.p95 is None else point.p95 / slowest) for point in points]
    drawn += _line(parts, x, y, 'stroke="var(--soft)" stroke-dasharray="5 3"')
    drawn += [_label(_LEFT - 6, y(part) + 4, f"{part:.0%}", "end") for part in (0.0, 0.5, 1.0)]
    drawn += [_label(_WIDTH - _RIGHT + 6, y(part) + 4, f"{slowest * part:.3g} s") for part in (0.5, 1.0)]
    drawn += [_label(x(end * part), _HEIGHT - 8, f"{end * part:.3g} s", "middle") for part in (0.0, 0.5, 1.0)]
    return _svg(_HEIGHT, "share of good calls and latency over time", drawn)


def share_over_time(values: Sequence[float | None], about: str, labels: tuple[str, str]) -> str:
    """A share at even steps, with gaps for None; what is beyond 0 and 1 is at the edge. ``labels``: of the first and the last step."""
    base, width, height = _HEIGHT - _BOTTOM, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    steps = max(len(values) - 1, 1)

    def x(at: float) -> float:
        return _LEFT + width * at / steps

    def y(part: float) -> float:
        return base - height * min(max(part, 0.0), 1.0)

    drawn = [f'<path d="M{_LEFT:g} {y(part):.1f}H{_WIDTH - _RIGHT:g}" stroke="var(--line)"/>' for part in (0.0, 0.5, 1.0)]
    drawn += _line([(float(at), value) for at, value in enumerate(values)], x, y, 'stroke="var(--good)" stroke-width="2"')
    drawn += [_label(_LEFT - 6, y(part) + 4, f"{part:.0%}", "end") for part in (0.0, 0.5, 1.0)]
    drawn += [_label(_LEFT, _HEIGHT - 8, labels[0]), _label(_WIDTH - _RIGHT, _HEIGHT - 8, labels[1], "end")]
    return _svg(_HEIGHT, about, drawn)


def evidence(points: Sequence[tuple[int, float]], threshold: float) -> str:
    """Evidence over the events that it comes from, in powers from 1 to a little above the threshold, which is drawn too."""
    base, width, height = _HEIGHT - _BOTTOM, _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    last = max([events for events, _ in points] + [1])
    top = math.log(threshold) * 1.15

    def x(at: float) -> float:
        return _LEFT + width * at / last

    def y(part: float) -> float:
        return base - height * min(max(part, 0.0), 1.0)

    def part_of(value: float) -> float:
        return math.log(max(value, 1.0)) / top

    drawn = [f'<path d="M{_LEFT:g} {y(0.0):.1f}H{_WIDTH - _RIGHT:g}" stroke="var(--line)"/>']
    drawn.append(f'<path d="M{_LEFT:g} {y(part_of(threshold)):.1f}H{_WIDTH - _RIGHT:g}" stroke="var(--bad)" stroke-dasharray="5 3"/>')
    drawn += _line([(float(events), part_of(value)) for events, value in points], x, y, 'stroke="var(--good)" stroke-width="2"')
    drawn += [_label(_LEFT - 6, y(part_of(value)) + 4, f"{value:g}", "end") for value in (1.0, math.sqrt(threshold), threshold)]
    drawn += [_label(x(last * part), _HEIGHT - 8, f"{last * part:.0f}", "middle") for part in (0.0, 0.5, 1.0)]
    return _svg(_HEIGHT, "evidence over events", drawn)


def bars(values: Sequence[tuple[str, float | None]]) -> str:
    """One bar for each of at most 60 labelled durations; None is a bar over the whole width, for what has not ended."""
    shown = values[:_MOST_BARS]
    longest = max([value for _, value in shown if value is not None], default=0.0) or 1.0
    drawn = []
    start, room = 240.0, _WIDTH - 240.0 - 80.0
    for number, (label, value) in enumerate(shown):
        top = number * _BAR + 4
        width = room if value is None else max(1.0, room * value / longest)
        colour = "var(--bad)" if value is None else "var(--good)"
        drawn.append(f'<rect x="{start:g}" y="{top:.1f}" width="{width:.1f}" height="{_BAR - 5:g}" fill="{colour}" opacity=".7"/>')
        drawn.append(_label(start - 8, top + 10, label[:_LONGEST_LABEL], "end"))
        drawn.append(_label(start + width + 6, top + 10, "not over" if value is None else f"{value:.3g} s"))
    if len(values) > len(shown):
        drawn.append(_label(start, len(shown) * _BAR + 14, f"and {len(values) - len(shown)} more"))
    return _svg((len(shown) + 1) * _BAR + 8, "time to recovery by incident", drawn)


def histogram(values: Sequence[float], steps: int = 20) -> str:
    """How many of these durations lie in each of ``steps`` equal parts of the time up to the longest."""
    longest = max(values, default=0.0) or 1.0
    counts = [0] * steps
    for value in values:
        counts[min(steps - 1, int(steps * value / longest))] += 1
    room, height, most = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM, max(counts) or 1
    drawn = []
    for number, count in enumerate(counts):
        left, tall = _LEFT + room * number / steps, height * count / most
        place = f'x="{left:.1f}" y="{_TOP + height - tall:.1f}" width="{room / steps - 2:.1f}" height="{tall:.1f}"'
        drawn.append(f'<rect {place} fill="var(--good)" opacity=".7"/>')
        if count:
            drawn.append(_label(left + room / steps / 2, _TOP + height - tall - 4, str(count), "middle"))
    drawn += [_label(_LEFT + room * part, _HEIGHT - 8, f"{longest * part:.3g} s", "middle") for part in (0.0, 0.5, 1.0)]
    return _svg(_HEIGHT, f"{len(values)} durations up to {longest:.3g} s", drawn)


def _bands(phases: Sequence[PhaseReport], x: Callable[[float], float], height: float) -> Iterable[str]:
    begin = 0.0
    for number, phase in enumerate(phases):
        left, right = x(begin), x(begin + phase.seconds)
        begin += phase.seconds
        if number % 2:
            yield f'<rect x="{left:.1f}" y="{_TOP:g}" width="{right - left:.1f}" height="{height:g}" fill="var(--line)" opacity=".35"/>'
        # A name on top of the next one would be read by nobody.
        if right - left > 40.0:  # noqa: PLR2004
            yield _label(left + 4, _TOP - 5, phase.name)


def _line(
    points: Sequence[tuple[float, float | None]], x: Callable[[float], float], y: Callable[[float], float], style: str
) -> Iterable[str]:
    """A line with gaps where nothing was seen, and dots where only one moment was."""
    part: list[str] = []
    for at, value in [*points, (0.0, None)]:
        if value is not None:
            part.append(f"{x(at):.1f} {y(value):.1f}")
        elif part:
            dot = f"M{part[0]}h.1" if len(part) == 1 else f"M{' L'.join(part)}"
            yield f'<path d="{dot}" fill="none" stroke-linecap="round" {style}/>'
            part = []


def _label(x: float, y: float, text: str, anchor: str = "start") -> str:
    plain = escape("".join(c if c.isprintable() else " " for c in text))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--soft)">{plain}</text>'


def _svg(height: float, about: str, drawn: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {height:g}" role="img" aria-label="{escape(about)}">'
    return "\n".join([head, *drawn, "</svg>"])
