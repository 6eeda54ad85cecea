"""Tests of the rules for ``promtool test rules``: that each alert fires in an outage, is over after it, and does not fire without cause.

Events come in steps. In an outage everything is bad, and so much of it that every window of the severity is above its limit; afterwards all
is well for a little longer than the longest short window, while the long ones still see the outage. Each condition is also shown to fire
without the others, where some history makes only it fire: a broken one would otherwise hide behind them.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from somaresil.model.slo import certainty
from somaresil.slo.rules.text import duration, number, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.model.slo import Window
    from somaresil.slo.rules.compiler import Rules

__all__ = ["tests_of"]

_EVENTS: Final = 1_000
"""In each step."""
_TIMES: Final = tuple(Decimal(times) / 10 for times in (13, 15, 20, 30, 60))
_BETWEEN: Final = tuple(Decimal(part) / 100 for part in (2, 5, 10, 20, 40, 70))
_MORE: Final = Decimal("1.25")
_PARTS: Final = 5
"""Steps in the shortest window."""
_MARGIN: Final = 3
_LONGEST: Final = 20_000
"""Steps in a test: promtool keeps every sample of every rule."""


def tests_of(rules: Rules, file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A file of tests for each severity, by the word for it; none where nobody knows which series to feed in."""
    if rules.source.series is None:
        return
    for severity in rules.severities:
        step = max(1, math.floor(min(window.short for window in rules.windows_of(severity)) / _PARTS))
        longest = math.ceil(max(window.short for window in rules.windows_of(severity)) / step)
        if 5 * longest > _LONGEST:
            continue
        tests = [_outage(rules, severity, step, longest), _steady(rules, severity, step, longest)]
        tests += [_unseen(rules)] if rules.tells_unseen else []
        tests += [test for window in rules.windows_of(severity) if (test := _alone(rules, severity, step, window)) is not None]
        if rules.policy.minimum_bad > 1:
            tests.append(_single(rules, severity, step))
        yield severity, {"rule_files": [file], "evaluation_interval": f"{step}s", "tests": tests}


def _test(name: str, rules: Rules, step: int, good: str, bad: str) -> dict[str, Any]:
    series = zip(rules.source.series or (), (good, bad), strict=False)
    return {"name": name, "interval": f"{step}s", "input_series": [{"series": each, "values": values} for each, values in series]}


def _expected(rules: Rules, severity: str, at: int, *, fires: bool) -> dict[str, Any]:
    alert = {"exp_labels": {**rules.alert_labels(severity), **rules.example}, "exp_annotations": rules.annotations(severity)}
    return {"eval_time": duration(at), "alertname": rules.alert(severity), "exp_alerts": [alert] if fires else []}


def _outage(rules: Rules, severity: str, step: int, longest: int) -> dict[str, Any]:
    calm, outage, after = 2 * longest, longest + _MARGIN, longest + _MARGIN
    limit = max(rules.limit(window) for window in rules.windows_of(severity))
    # Half of the way from the limit to nothing but errors.
    ratio = (1 + limit) / 2
    bad = max(math.ceil(ratio / (1 - ratio) * calm * _EVENTS / outage), rules.policy.minimum_bad, 1)
    well, broken = _EVENTS * calm, bad * outage
    test = _test(
        f"{severity}: an outage fires it, its end ends it",
        rules,
        step,
        f"0+{_EVENTS}x{calm} {well}+0x{outage - 1} {well + _EVENTS}+{_EVENTS}x{after - 1}",
        f"0+0x{calm} {bad}+{bad}x{outage - 1} {broken}+0x{after - 1}",
    )
    moments = ((calm, False), (calm + outage, True), (calm + outage + after, False))
    test["alert_rule_test"] = [_expected(rules, severity, moment * step, fires=fires) for moment, fires in moments]
    short = min(window.short for window in rules.windows_of(severity))
    values = [_value(rules, f"round({rules.error(short)} * 1e6)", (calm + outage) * step, 1_000_000)]
    if rules.slo.calendar is None and rules.slo.period > (calm + outage) * step:
        # Of all events of the period: a mean over time of ratios would say something else.
        values.append(_left(rules, Decimal(broken) / (well + broken), (calm + outage) * step))
    test["promql_expr_test"] = values
    return test


def _steady(rules: Rules, severity: str, step: int, longest: int) -> dict[str, Any]:
    """Errors at half of the lowest limit: it never fires, and the budget that is left is what they leave."""
    limit = min(rules.limit(window) for window in rules.windows_of(severity))
    bad = round(limit / 2 * _EVENTS, 12)
    steps = 2 * longest + _MARGIN
    test = _test(
        f"{severity}: half of what would fire it does not",
        rules,
        step,
        f"0+{number(_EVENTS - bad)}x{steps}",
        f"0+{number(bad)}x{steps}",
    )
    test["alert_rule_test"] = [_expected(rules, severity, moment * step, fires=False) for moment in (longest, steps)]
    if rules.slo.calendar is None:
        test["promql_expr_test"] = [_left(rules, bad / _EVENTS, steps * step)]
    return test


def _left(rules: Rules, ratio: Decimal, at: int) -> dict[str, Any]:
    """That so much of the budget is left when ``ratio`` of the events were bad, to a millionth."""
    left = round(1 - ratio / rules.budget, 12)
    near = number(max(Decimal("0.000001"), abs(left) / 1_000_000))
    return _value(rules, f"abs({rules.left} - {_signed(left)}) < bool {near}", at, 1)


def _alone(rules: Rules, severity: str, step: int, window: Window) -> dict[str, Any] | None:
    """A history in which this condition fires and no other of its severity; None: none was found, or there is no other."""
    others = [other for other in rules.windows_of(severity) if other != window]
    calm = math.ceil(max(other.long for other in rules.windows_of(severity)) / step) + 1
    if not others or calm > _LONGEST:
        return None
    for outage in (calm, *(math.ceil(other.long / step) for other in rules.windows_of(severity)), 1, 2, 3, math.ceil(window.short / step)):
        for ratio in _ratios_above(rules.limit(window)):
            share = min(Decimal(1), Decimal(outage * step) / Decimal(str(window.long)))
            # So many of the events of the outage are bad that this is the ratio in the long window.
            inside = ratio / share
            if inside >= 1:
                continue
            bad = math.ceil(_EVENTS * inside / (1 - inside))
            if _fires(rules, window, outage, bad, step) and not any(_may_fire(rules, other, outage, bad, step) for other in others):
                return _history(rules, severity, step, window, (calm, outage, bad))
    return None


def _ratios_above(limit: Decimal) -> Iterator[Decimal]:
    """Some that are above a limit: near it first."""
    yield from (limit * times for times in _TIMES if limit * times < 1)
    yield from (limit + (1 - limit) * part for part in _BETWEEN)


def _history(rules: Rules, severity: str, step: int, window: Window, shape: tuple[int, int, int]) -> dict[str, Any]:
    calm, outage, bad = shape
    before, after = 0 if outage == calm else calm, outage
    test = _test(
        f"{severity}: {duration(window.long)} and {duration(window.short)} fire without the others",
        rules,
        step,
        f"0+{_EVENTS}x{before + after}",
        f"0+{bad}x{after}" if not before else f"0+0x{before} {bad}+{bad}x{after - 1}",
    )
    test["alert_rule_test"] = [_expected(rules, severity, (before + after) * step, fires=True)]
    return test


def _seen(window: float, outage: int, bad: int, step: int) -> tuple[Decimal, Decimal]:
    """Bad events and all events that a window sees at the end of an outage, in which good ones go on."""
    steps = Decimal(str(window)) / step
    broken = min(steps, Decimal(outage)) * bad
    return broken, broken + steps * _EVENTS


def _fires(rules: Rules, window: Window, outage: int, bad: int, step: int) -> bool:
    """Whether it surely does: where steps do not fill a window its ends are extrapolated."""
    limit, sure = rules.limit(window), certainty(rules.policy.confidence)
    broken, total = _seen(window.long, outage, bad, step)
    shown = broken > limit * total and (broken / _MORE - limit * total) ** 2 > sure * limit * (1 - limit) * total * _MORE
    enough = all(_above(rules, window, seconds, (outage, bad, step), _MORE) for seconds in (window.long, window.short))
    return shown and enough and broken >= rules.policy.minimum_bad * _MORE


def _may_fire(rules: Rules, window: Window, outage: int, bad: int, step: int) -> bool:
    return all(_above(rules, window, seconds, (outage, bad, step), 1 / _MORE) for seconds in (window.long, window.short))


def _above(rules: Rules, window: Window, seconds: float, shape: tuple[int, int, int], sure: Decimal) -> bool:
    broken, total = _seen(seconds, *shape)
    return broken > rules.limit(window) * sure * total


def _single(rules: Rules, severity: str, step: int) -> dict[str, Any]:
    """One bad event and no other: a ratio of 1, and too few to fire."""
    test = _test(f"{severity}: a single bad event does not fire it", rules, step, "0+0x30", "0+0x20 1+0x9")
    test["alert_rule_test"] = [_expected(rules, severity, moment * step, fires=False) for moment in (21, 22, 24)]
    return test


def _unseen(rules: Rules) -> dict[str, Any]:
    alert = {"exp_labels": rules.alert_labels("ticket"), "exp_annotations": rules.unseen_annotations}
    return {
        "name": "what nobody exports is told",
        "interval": "1m",
        "input_series": [],
        "alert_rule_test": [{"eval_time": "1h", "alertname": "ObjectiveUnseen", "exp_alerts": [alert]}],
    }


def _value(rules: Rules, expression: str, at: int, value: int) -> dict[str, Any]:
    shown = ",".join(f"{name}={quoted(text)}" for name, text in sorted({**rules.labels, **rules.example}.items()))
    return {"expr": expression, "eval_time": duration(at), "exp_samples": [{"labels": f"{{{shown}}}", "value": value}]}


def _signed(value: Decimal) -> str:
    return f"({number(value)})" if value < 0 else number(value)
