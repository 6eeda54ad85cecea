"""Plots of measurements as SVG: no script, no font, no link; colours come from the page around them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from somaresil.perf_command.words import figure, percent

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.perf.detector import History
    from somaresil.perf.store import Point

__all__ = ["distributions", "quantile_shift", "steps"]

_WIDTH, _HEIGHT = 900.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 70.0, 20.0, 18.0, 26.0
_INNER, _TALL = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
_BASE = _HEIGHT - _BOTTOM
_PARTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_MOST_DOTS: Final = 2_000
_QUANTILES: Final = tuple(place / 20 for place in range(1, 20))
_TRIMMED: Final = 0.99


def distributions(baseline: Sequence[float], current: Sequence[float], unit: str) -> str:
    """Two cumulative distributions on one axis, up to the 99th percentile: the largest value of all would press them to the edge."""
    pairs = sorted(baseline), sorted(current)
    low = min(each[0] for each in pairs)
    high = max(_quantile(each, _TRIMMED) for each in pairs)
    span = high - low or abs(high) or 1.0

    def x(value: float) -> float:
        return _LEFT + _INNER * min(max((value - low) / span, 0.0), 1.0)

    drawn = [*_grid([(part, f"{part:.0%}") for part in _PARTS])]
    for ordered, style in zip(pairs, ('stroke="var(--soft)" stroke-dasharray="5 3"', 'stroke="var(--good)"'), strict=True):
        points = [f"{_LEFT:.1f} {_BASE:.1f}"]
        for part in range(201):
            share = part / 200
            points.append(f"{x(_quantile(ordered, share)):.1f} {_y(share):.1f}")
        drawn.append(f'<path d="M{" L".join(points)}" fill="none" stroke-width="2" {style}/>')
    drawn += [_label(_LEFT + _INNER * part, _HEIGHT - 8, figure(low + span * part, unit), "middle") for part in _PARTS]
    return _svg(f"distribution of {len(baseline)} and {len(current)} values", drawn)


def quantile_shift(baseline: Sequence[float], current: Sequence[float]) -> str:
    """The ratio of each quantile from 5 to 95 %; those whose baseline is zero are left out."""
    before, after = sorted(baseline), sorted(current)
    ratios = [(q, _quantile(after, q) / _quantile(before, q)) for q in _QUANTILES if _quantile(before, q) > 0.0]
    most = max([abs(ratio - 1.0) for _, ratio in ratios] + [0.01]) * 1.1

    def y(ratio: float) -> float:
        return _y(0.5 + (ratio - 1.0) / most / 2.0)

    drawn = [*_grid([(part, percent(1.0 + (part - 0.5) * 2.0 * most)) for part in (0.0, 0.5, 1.0)])]
    points = [f"{_LEFT + _INNER * q:.1f} {y(ratio):.1f}" for q, ratio in ratios]
    if points:
        drawn.append(f'<path d="M{" L".join(points)}" fill="none" stroke="var(--good)" stroke-width="2"/>')
        drawn += [_dot(_LEFT + _INNER * q, y(ratio)) for q, ratio in ratios]
    drawn += [_label(_LEFT + _INNER * q, _HEIGHT - 8, f"p{q * 100:.0f}", "middle") for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    return _svg("current divided by baseline, by quantile", drawn)


def steps(points: Sequence[Point], history: History, unit: str) -> str:
    """A dot for each recording (the last 2,000), the level between changes as a line, and the changes as bars."""
    shown = points[-_MOST_DOTS:]
    skipped = len(points) - len(shown)
    top = max((point.value for point in shown), default=0.0) or 1.0
    count = max(len(shown) - 1, 1)

    def x(place: float) -> float:
        return _LEFT + _INNER * min(max((place - skipped) / count, 0.0), 1.0)

    drawn = [*_grid([(part, figure(top * part, unit)) for part in _PARTS])]
    drawn += [_dot(x(place), _y(point.value / top)) for place, point in enumerate(shown, start=skipped)]
    edges = [0, *(change.index for change in history.changes), len(points)]
    levels = [change.before for change in history.changes[:1]] + [change.after for change in history.changes]
    for begin, end, level in zip(edges, edges[1:], levels, strict=False):
        height = _y(min(level / top, 1.0))
        drawn.append(f'<path d="M{x(begin):.1f} {height:.1f}H{x(end - 1):.1f}" stroke="var(--ink)" stroke-width="2"/>')
    for change in history.changes:
        colour = "var(--bad)" if (change.after > change.before) == (history.better == "lower") else "var(--good)"
        place = x(change.index - 0.5)
        drawn.append(f'<path d="M{place:.1f} {_TOP:.1f}V{_BASE:.1f}" stroke="{colour}"/>')
        name = (points[change.index].commit or "")[:12] or f"value {change.index}"
        drawn.append(_label(place + 4, _TOP - 5, f"{name} {percent(change.ratio)}"))
    return _svg(f"{len(points)} recordings", drawn)


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _y(part: float) -> float:
    return _BASE - _TALL * min(max(part, 0.0), 1.0)


def _grid(lines: Iterable[tuple[float, str]]) -> Iterable[str]:
    for part, words in lines:
        yield f'<path d="M{_LEFT:g} {_y(part):.1f}H{_WIDTH - _RIGHT:g}" stroke="var(--line)"/>'
        yield _label(_LEFT - 6, _y(part) + 4, words, "end")


def _dot(x: float, y: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="var(--good)"/>'


def _label(x: float, y: float, text: str, anchor: str = "start") -> str:
    plain = escape("".join(c if c.isprintable() else " " for c in text))
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="var(--soft)">{plain}</text>'


def _svg(about: str, drawn: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(about)}">'
    return "\n".join([head, *drawn, "</svg>"])
