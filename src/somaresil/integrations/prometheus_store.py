"""Prometheus as the store of objectives: the truth of a fleet, with dead replicas and restarts in it.

    store = PrometheusStore("http://prometheus:9090", labels={"job": "gateway"})
    verdict = await resilience.slos.should_block_deployment(store=store)

It asks for the increase of ``somaresil_sli_events_total`` over each window, by outcome, added up over all replicas: events are weighted by
traffic, counters that begin anew are seen as such, and what a dead replica counted stays until it is out of the window. Averages of ratios
are never asked for.

An answer is used only when nothing speaks against it: it comes in time, is of bounded size, whole and finite, without warnings, its newest
sample is young, and the server's clock agrees with ours. Everything else is unknown, with the reason in words. See
:mod:`somaresil.integrations._prometheus_api` for what is never done: redirects, proxies, passing on what the server says in words.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from somaresil.clock import SystemClock
from somaresil.config import Checker
from somaresil.integrations._prometheus_api import Answer, Authorization, ask_server, check_url
from somaresil.slo.rules.source import source_of
from somaresil.slo.store import Reading

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from datetime import timedelta

    from somaresil.slo.objective import SLO
    from somaresil.slo.rules.source import Source
    from somaresil.typing import Clock

__all__ = ["PrometheusStore"]

_EVENTS: Final = "somaresil_sli_events_total"
_GROUP_EVENTS: Final = "somaresil_sli_group_events_total"
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_LONGEST_LABEL: Final = 200
_MOST_LABELS: Final = 20
_LOOKS: Final = 360
"""Into so many parts a window is divided to see in how many of them there were data."""
_FINEST: Final = 10
_MOST_EVENTS: Final = 2.0**53
_RECENTLY: Final = 3_600
_LOOK: Final = 300.0
_NEAR: Final = 0.01
"""So much of all events two increases over one window may differ by being extrapolated apart."""


class PrometheusStore:
    """Answers from the HTTP API of Prometheus, or of what speaks like it.

    ``labels`` restrict it to series with these labels: give the job or namespace when several services have objectives of the same name.
    ``sources`` says by name which objectives are counted elsewhere (:func:`~somaresil.slofile.read_slos` reads them): for these, age and
    coverage tell when their total over 5 minutes had an answer, and ``labels`` are not added to queries.
    ``timeout`` is for each answer as a whole. A newest sample older than ``max_age`` seconds makes the answer stale; a server whose clock
    differs from ours by more than ``max_skew`` seconds is not believed. Credentials come from a variable (``token_env``, ``basic_env`` with
    ``user:password``) or a file (``token_file``), never from the URL.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        url: str,
        *,
        labels: Mapping[str, str] | None = None,
        sources: Mapping[str, Source] | None = None,
        timeout: float | timedelta = 10.0,
        max_age: float | timedelta = 300.0,
        max_skew: float | timedelta = 60.0,
        token_env: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        basic_env: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Check everything; nothing is asked yet."""
        check = Checker("PrometheusStore")
        check_url(check, url)
        self._url = url
        self._timeout = check.seconds("timeout", timeout, minimum=0.1, exclusive=False, maximum=120.0)
        self._max_age = check.seconds("max_age", max_age, minimum=1.0, exclusive=False, maximum=86_400.0)
        self._max_skew = check.seconds("max_skew", max_skew, minimum=0.0, exclusive=False, maximum=86_400.0)
        self._matchers = _matchers(check, labels or {})
        self._labels = dict(labels or {})
        self._sources = dict(sources or {})
        self._authorization = Authorization.given(check, token_env=token_env, token_file=token_file, basic_env=basic_env)
        self._clock: Clock = SystemClock() if clock is None else clock
        check.finish()

    @property
    def name(self) -> str:
        """``prometheus``."""
        return "prometheus"

    def read(self, slo: SLO, window: float) -> Reading:
        """The events of the last ``window`` seconds, summed over all replicas and rounded to whole events: increases are extrapolated."""
        before = self._clock.time()
        given = self._sources.get(slo.name)
        parts = self._counted(slo.name, window) if given is None else _asked(source_of(slo, given, self._labels), window)
        # One question, so that all of it is about one moment.
        query = " or ".join(f'label_replace({part}, "part", "{name}", "", "")' for name, part in parts.items())
        try:
            answer = ask_server(self._url, query, self._timeout, self._authorization)
        except (OSError, ValueError) as failed:
            return Reading.unknown(self.name, f"Prometheus: {_words(failed)}")
        return self._judged(answer, window, before, self._clock.time(), parts)

    def read_groups(self, slo: SLO, window: float) -> Mapping[str, Reading] | str:
        """The events of each group. Whether the answer can be believed is asked of the whole, in a question of its own."""
        if slo.name in self._sources:
            return "Prometheus: it is about series that are not ours, of which no groups are known"
        whole = self.read(slo, window)
        if whole.problem is not None:
            return whole.problem
        series = f"{_GROUP_EVENTS}{{slo={_quoted(slo.name)}{self._matchers}}}"
        query = f"sum by (group, outcome) (increase({series}[{max(1, round(window))}s]))"
        try:
            answer = ask_server(self._url, query, self._timeout, self._authorization)
        except (OSError, ValueError) as failed:
            return f"Prometheus: {_words(failed)}"
        if answer.partial:
            return "Prometheus: its answer about groups is partial: it comes with warnings"
        found: dict[str, dict[str, float]] = {}
        for sample in answer.samples:
            group, outcome = sample.labels.get("group", ""), sample.labels.get("outcome", "")
            if not math.isfinite(sample.value) or not 0.0 <= sample.value <= _MOST_EVENTS:
                return "Prometheus: the events of a group are no number of events"
            if outcome not in {"good", "bad"} or outcome in found.setdefault(group, {}):
                return "Prometheus: it answers with series that were not asked for"
            found[group][outcome] = sample.value
        if not found and whole.good + whole.bad:
            return "Prometheus: it has events of this objective, and none of its groups"
        return {
            group: Reading(round(each.get("good", 0.0)), round(each.get("bad", 0.0)), whole.coverage, self.name, whole.age)
            for group, each in found.items()
        }

    def _counted(self, slo: str, window: float) -> dict[str, str]:
        series = f"{_EVENTS}{{slo={_quoted(slo)}{self._matchers}}}"
        seconds = max(1, round(window))
        newest = f"timestamp({series})"
        return {
            "good": f'sum(increase({_EVENTS}{{slo={_quoted(slo)},outcome="good"{self._matchers}}}[{seconds}s]))',
            "bad": f'sum(increase({_EVENTS}{{slo={_quoted(slo)},outcome="bad"{self._matchers}}}[{seconds}s]))',
            "newest": f"max({newest} or max_over_time({newest}[{_RECENTLY}s:60s]))",
            "seen": f"count_over_time(max({series})[{seconds}s:{_step(window)}s])",
        }

    def _judged(self, answer: Answer, window: float, before: float, after: float, parts: Mapping[str, str]) -> Reading:
        def unknown(problem: str, coverage: float = 0.0, age: float | None = None) -> Reading:
            return Reading.unknown(self.name, f"Prometheus: {problem}", coverage=coverage, age=age)

        found: dict[str, float] = {}
        # Increases are extrapolated, so the difference of two may be a little less than nothing.
        least = -_MOST_EVENTS if "total" in parts else 0.0
        for sample in answer.samples:
            part = sample.labels.get("part", "")
            if part not in parts or part in found or len({each.at for each in answer.samples}) > 1:
                return unknown("it answers with series that were not asked for")
            if not math.isfinite(sample.value) or not (least if part == "bad" else 0.0) <= sample.value <= _MOST_EVENTS:
                return unknown(f"{part} is no number of events" if part in {"good", "bad", "total"} else f"{part} is no number")
            found[part] = sample.value
        if "total" in found and "bad" in found:
            found["good"] = found.pop("total") - found["bad"]
        if any(found.get(part, 0.0) < -1.0 - _NEAR * (found.get("good", 0.0) + found.get("bad", 0.0)) for part in ("good", "bad")):
            return unknown("bad is no number of events: there are more good or bad ones than events in all")
        if answer.partial:
            return unknown("its answer is partial: it comes with warnings")
        if "good" not in found and "bad" not in found:
            return unknown("it has no samples of this objective in the window")
        now = answer.samples[0].at
        skew = now - before if now < before else now - after if now > after else 0.0
        if abs(skew) > self._max_skew:
            return unknown(f"its clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours")
        step = _step(window)
        looks = max(1, int(now // step) - int((now - window) // step))
        coverage = min(1.0, found.get("seen", 0.0) / looks)
        age = max(0.0, now - found["newest"]) if "newest" in found else None
        if age is None or age > self._max_age:
            how = f"for {age:.0f} s" if age is not None else f"within the last {_RECENTLY} s"
            return unknown(f"stale: it has had no sample {how}", coverage, age)
        if "good" not in found or "bad" not in found:
            return unknown(f"it has no {'good' if 'good' not in found else 'bad'} events of this objective, not even none", coverage, age)
        return Reading(max(0, round(found["good"])), max(0, round(found["bad"])), coverage, self.name, age)


def _asked(source: Source, window: float) -> dict[str, str]:
    """What is asked of a source that is not our counter."""
    seconds = max(1, round(window))
    lately = source.total(_LOOK)
    newest = f"timestamp({lately})"
    return {
        "total": source.total(seconds),
        "bad": source.bad(seconds),
        "newest": f"max({newest} or max_over_time({newest}[{_RECENTLY}s:60s]))",
        "seen": f"count_over_time(({lately})[{seconds}s:{_step(window)}s])",
    }


def _step(window: float) -> int:
    return max(_FINEST, math.ceil(window / _LOOKS))


def _words(failed: Exception) -> str:
    """What happened, in words of ours or of the operating system."""
    if isinstance(failed, UnicodeError):
        return "its name cannot be looked up"
    if isinstance(failed, OSError) and failed.strerror:
        return f"no connection ({failed.strerror})"
    return str(failed) or type(failed).__qualname__


def _matchers(check: Checker, labels: Mapping[str, str]) -> str:
    if not hasattr(labels, "items") or len(labels) > _MOST_LABELS:
        check.problem("labels", labels, f"a mapping of at most {_MOST_LABELS} labels to values")
        return ""
    for name, value in labels.items():
        if not isinstance(name, str) or not _LABEL.fullmatch(name) or name in {"slo", "outcome", "part"}:
            check.problem("labels", name, "a label name other than slo, outcome and part")
        elif not isinstance(value, str) or len(value) > _LONGEST_LABEL:
            check.problem(f"labels.{name}", value, f"a text of at most {_LONGEST_LABEL} characters")
    return "".join(f",{name}={_quoted(str(value))}" for name, value in labels.items())


def _quoted(text: str) -> str:
    """As a string of PromQL, which has the escapes of Go."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(character if character.isprintable() else f"\\U{ord(character):08x}" for character in escaped) + '"'
