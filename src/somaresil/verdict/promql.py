"""The part of Prometheus' HTTP API that engines use: instant queries for named series, with matchers of equality.

A query is ``vector(1)``, or a name with labels: ``somaresil_burn_rate{slo="availability",window="1h"}``. Everything else is ``bad_data``,
in the form that clients of Prometheus read. There is nothing but now: a time that is not is refused too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.model.rollout import Verdict

if TYPE_CHECKING:
    from somaresil.resilience import Resilience
    from somaresil.verdict.subjects import Subject

__all__ = ["SERIES", "WINDOWS", "BadQuery", "Sample", "evaluate", "is_now", "vector"]

SERIES: Final = {
    "somaresil_canary_verdict": "canary, checksum: 1 pass, 0 wait, -1 fail; of what has data",
    "somaresil_canary_evidence": "canary, checksum, against: e-values",
    "somaresil_canary_events_total": "canary, checksum, side, outcome",
    "somaresil_burn_rate": "slo, window: multiple of the sustainable burn in this process; windows without an event are left out",
    "somaresil_error_budget_remaining": "slo: share that is left, below 0 when it is overspent",
}
WINDOWS: Final = {"5m": 300.0, "30m": 1_800.0, "1h": 3_600.0, "2h": 7_200.0, "6h": 21_600.0, "1d": 86_400.0, "3d": 259_200.0}
_LONGEST: Final = 2_000
_MOST_MATCHERS: Final = 8
_NOW: Final = 300.0
"""Seconds that a time may be away from now: engines ask for the time that they have."""
_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_TEXT: Final = r'"(?:[^"\\\n]|\\["\\n])*"' + r"|'(?:[^'\\\n]|\\['\\n])*'"
_SELECTOR: Final = re.compile(rf"\s*({_NAME})\s*(?:\{{(.*)\}})?\s*", re.DOTALL)
_MATCHER: Final = re.compile(rf"\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*({_TEXT})\s*(,|$)")
_VECTOR: Final = re.compile(r"\s*vector\s*\(\s*([0-9]+(?:\.[0-9]+)?)\s*\)\s*")
_ESCAPED: Final = re.compile(r"\\(.)")


class BadQuery(ValueError):
    """A query that is not answered here; what it says is for whoever has sent it."""


class Sample(NamedTuple):
    """One series and its value."""

    labels: dict[str, str]
    value: float


def evaluate(query: str, subjects: Iterable[Subject], resilience: Resilience) -> list[Sample]:
    """What the query selects. Raises :class:`BadQuery`."""
    if len(query) > _LONGEST:
        raise BadQuery(f"a query has at most {_LONGEST} characters")
    constant = _VECTOR.fullmatch(query)
    if constant:
        return [Sample({}, float(constant[1]))]
    name, wanted = _parsed(query)
    maker = _MAKERS.get(name)
    if maker is None:
        raise BadQuery(f"no series of this name: only vector(1) and {', '.join(SERIES)} are served here")
    found = []
    for labels, value in maker(subjects, resilience, wanted):
        labels = {"__name__": name, **labels}  # noqa: PLW2901 - the same with its name
        if all(labels.get(label, "") == text for label, text in wanted.items()) and math.isfinite(value):
            found.append(Sample(labels, value))
    return found


def _parsed(query: str) -> tuple[str, dict[str, str]]:
    match = _SELECTOR.fullmatch(query)
    if match is None:
        raise BadQuery('only vector(1) and a name with matchers of equality are understood here: name{label="value"}')
    wanted: dict[str, str] = {}
    rest, place = match[2] or "", 0
    while rest[place:].strip():
        matcher = _MATCHER.match(rest, place)
        if matcher is None or len(wanted) >= _MOST_MATCHERS or matcher[1] in wanted:
            raise BadQuery(f"at most {_MOST_MATCHERS} matchers of equality are understood here, each label once")
        wanted[matcher[1]] = _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], matcher[2][1:-1])
        place = matcher.end()
    return match[1], wanted


def is_now(text: str, now: float) -> bool:
    """Whether a time as clients send it (seconds, or RFC 3339) is about now. Raises :class:`BadQuery` for what is no time."""
    try:
        moment = float(text) if re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", text) else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise BadQuery(f"no time: {text[:40]!r}") from None
    return abs(moment - now) <= _NOW


def vector(samples: Iterable[Sample], now: float) -> dict[str, Any]:
    """As Prometheus answers; values are texts."""
    result = [{"metric": labels, "value": [now, f"{value!r}".removesuffix(".0")]} for labels, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


Rows = Iterator[tuple[dict[str, str], float]]
Maker = Callable[[Iterable["Subject"], "Resilience", dict[str, str]], Rows]
_VALUES: Final = {Verdict.PASS: 1.0, Verdict.WAIT: 0.0, Verdict.FAIL: -1.0}


def _asked(subjects: Iterable[Subject], wanted: dict[str, str]) -> Iterator[tuple[dict[str, str], Any]]:
    """The canaries that are meant, with what is known of the checksum that is meant; those of which there are data."""
    for subject in subjects:
        if wanted.get("canary", subject.name) != subject.name:
            continue
        checksum = wanted.get("checksum", subject.current)
        opinion = subject.opinion(checksum, asks_only=True)
        counts = opinion.finding.counts
        if opinion.verdict is not Verdict.WAIT or counts.candidate:
            yield {"canary": subject.name, "checksum": checksum}, opinion


def _verdicts(subjects: Iterable[Subject], _: Resilience, wanted: dict[str, str]) -> Rows:
    for labels, opinion in _asked(subjects, wanted):
        yield labels, _VALUES[opinion.verdict]


def _evidence(subjects: Iterable[Subject], _: Resilience, wanted: dict[str, str]) -> Rows:
    for labels, opinion in _asked(subjects, wanted):
        found = opinion.finding
        for against, value in (("worse", found.worse), ("objective", found.too_bad), ("not_much_worse", found.not_much_worse)):
            yield {**labels, "against": against}, value


def _events(subjects: Iterable[Subject], _: Resilience, wanted: dict[str, str]) -> Rows:
    for labels, opinion in _asked(subjects, wanted):
        counts = opinion.finding.counts
        for side in ("candidate", "control"):
            for outcome in ("good", "bad"):
                yield {**labels, "side": side, "outcome": outcome}, float(getattr(counts, f"{side}_{outcome}"))


def _objectives(resilience: Resilience, wanted: dict[str, str]) -> Iterator[str]:
    return (name for name in resilience.slos.names if wanted.get("slo", name) == name)


def _burn(_: Iterable[Subject], resilience: Resilience, wanted: dict[str, str]) -> Rows:
    for name in _objectives(resilience, wanted):
        for window, seconds in WINDOWS.items():
            if wanted.get("window", window) == window:
                rate = resilience.slos.burn_rate(name, seconds)
                if rate is not None:
                    yield {"slo": name, "window": window}, rate


def _budget(_: Iterable[Subject], resilience: Resilience, wanted: dict[str, str]) -> Rows:
    for name in _objectives(resilience, wanted):
        left = resilience.slos.remaining_share(name)
        if left is not None:
            yield {"slo": name}, left


_MAKERS: Final[dict[str, Maker]] = {
    "somaresil_canary_verdict": _verdicts,
    "somaresil_canary_evidence": _evidence,
    "somaresil_canary_events_total": _events,
    "somaresil_burn_rate": _burn,
    "somaresil_error_budget_remaining": _budget,
}
