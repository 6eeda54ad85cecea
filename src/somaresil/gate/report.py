"""What the gate found, as data and in four renderings: text, JSON, Markdown for a pull request, annotations for GitHub.

Whatever came from outside (names, descriptions, the reason of an override) is one line of harmless text in each of them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from somaresil.eventtext import harmless
from somaresil.markdown import plain, table
from somaresil.slo.gate import Decision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from somaresil.slo.gate import Evidence, Override, Verdict
    from somaresil.slofile import SloFile

__all__ = ["FORMATS", "MARK", "GateReport"]

MARK: Final = "<!-- somaresil gate -->"
"""The first line of the Markdown: by it a pipeline finds the comment of the last run and replaces it."""

_NOTHING: Final = "-"
_UNITS: Final = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"), (1.0, "s"))
_LEVELS: Final = {Decision.ALLOW: "notice", Decision.BLOCK: "error", Decision.UNKNOWN: "warning"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """One judgement."""

    at: float
    """Wall time, seconds since the epoch."""
    verdict: Verdict
    file: SloFile
    exit_code: int
    asked: Override | None = None
    """The override that was asked for, whether it counts or not."""
    void: str = ""
    """Why that override does not count; empty: it does, or none was asked for."""

    @property
    def title(self) -> str:
        """The decision in a few words."""
        said = self.verdict.decision.value.upper()
        return f"ALLOW by override, against {said}" if self.overridden else said

    @property
    def overridden(self) -> bool:
        """Whether it would have been another answer without the override."""
        return self.asked is not None and not self.void and self.verdict.decision is not Decision.ALLOW

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        override = None
        if self.asked is not None:
            override = {
                "reason": self.asked.reason,
                "who": self.asked.who,
                "until": _moment(self.asked.until),
                "counts": not self.void,
                "why_not": self.void or None,
            }
        return {
            "format": 1,
            "decision": self.verdict.decision.value,
            "exit_code": self.exit_code,
            "overridden": self.overridden,
            "at": _moment(self.at),
            "reasons": list(self.verdict.reasons),
            "override": override,
            "policy": {name: value for name, value in asdict(self.file.policy).items() if name != "on_unknown"},
            "objectives": [self._objective(each) for each in self.verdict.evidence],
        }

    def _objective(self, evidence: Evidence) -> dict[str, Any]:
        budget = evidence.budget
        slo = next((slo for slo in self.file.slos if slo.name == evidence.slo), None)
        return {
            "slo": evidence.slo,
            "decision": evidence.decision.value,
            "reason": evidence.reason,
            "target_percentage": None if slo is None else slo.target_percentage,
            "window": budget.window,
            "good": None if budget.problem is not None else budget.good,
            "bad": None if budget.problem is not None else budget.bad,
            "remaining": budget.remaining_share,
            "burn_rate": budget.burn_rate,
            "exhausted_in": evidence.exhausted_in,
            "coverage": budget.coverage,
            "source": budget.source,
            "age": budget.age,
            "burn_windows": [
                {
                    "long": each.long,
                    "short": each.short,
                    "severity": each.severity,
                    "factor": float(each.factor),
                    "threshold": float(each.threshold),
                    "long_burn": each.long_burn,
                    "short_burn": each.short_burn,
                    "firing": each.firing,
                    "coverage": each.coverage,
                }
                for each in evidence.conditions
            ],
        }


def _text(report: GateReport) -> str:
    lines = [report.title, *(f"  {harmless(reason, 400)}" for reason in report.verdict.reasons)]
    lines += [f"  {line}" for line in _about_override(report)]
    for each in report.as_dict()["objectives"]:
        lines += ["", f"{each['slo']}: {each['decision']} ({each['source']})", f"  {', '.join(_facts(each))}"]
        lines += [f"  {window}: {burns}, limit {limit}, {state}" for window, burns, limit, state in _windows(each)]
    return "\n".join(lines)


def _json(report: GateReport) -> str:
    return json.dumps(report.as_dict(), indent=2, allow_nan=False)


def _markdown(report: GateReport) -> str:
    said = report.as_dict()
    lines = [MARK, f"### Release gate: {report.title}", "", *(f"- {plain(reason)}" for reason in report.verdict.reasons)]
    lines += [f"- {plain(line)}" for line in _about_override(report)]
    lines.append("")
    rows = [
        (
            each["slo"],
            each["decision"],
            _number(each["good"]),
            _number(each["bad"]),
            _share(each["remaining"]),
            _number(each["burn_rate"]),
            _span(each["exhausted_in"]),
            _share(each["coverage"]),
            each["source"],
            _span(each["age"]),
        )
        for each in said["objectives"]
    ]
    lines += table(("objective", "decision", "good", "bad", "budget left", "burn (1 h)", "used up in", "coverage", "source", "age"), rows)
    windows = [(each["slo"], *row) for each in said["objectives"] for row in _windows(each)]
    if windows:
        lines += [
            "<details><summary>Burn windows</summary>",
            "",
            *table(("objective", "windows", "burn", "limit", ""), windows),
            "</details>",
        ]
    return "\n".join(lines).rstrip()


def _github(report: GateReport) -> str:
    """Workflow commands: one annotation an objective, and the decision in the log."""
    lines = [
        f"::{_LEVELS[each.decision]} title={_property('somaresil gate: ' + each.slo)}::{_data(each.reason)}"
        for each in report.verdict.evidence
    ]
    if not lines:
        lines = [f"::warning title={_property('somaresil gate')}::{_data(reason)}" for reason in report.verdict.reasons]
    for line in _about_override(report):
        lines.append(f"::warning title={_property('somaresil gate: override')}::{_data(line)}")
    return "\n".join([*lines, f"somaresil gate: {report.title}"])


def _data(text: str) -> str:
    """As the value of a workflow command: a line break would begin another one."""
    return harmless(text, 1_000).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


FORMATS: Final[Mapping[str, Callable[[GateReport], str]]] = {"text": _text, "json": _json, "markdown": _markdown, "github": _github}
"""The renderings by name."""


# -- words --------------------------------------------------------------------------------------------------------------------------------


def _about_override(report: GateReport) -> Iterator[str]:
    asked = report.asked
    if asked is None:
        return
    said = f"override by {asked.who} until {_moment(asked.until)}: {harmless(asked.reason, 600)}"
    yield f"{said} (void: {report.void})" if report.void else said


def _facts(each: Mapping[str, Any]) -> Iterator[str]:
    yield f"target {each['target_percentage']:g} % in {_span(each['window'])}"
    if each["good"] is not None:
        yield f"{each['good']} good, {each['bad']} bad"
    yield f"{_share(each['remaining'])} of the budget left"
    yield f"burning {_number(each['burn_rate'])} in the last hour"
    yield f"used up in {_span(each['exhausted_in'])}"
    yield f"coverage {_share(each['coverage'])}"
    yield f"newest data {_span(each['age'])} old"


def _windows(each: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    states = {True: "firing", False: "quiet", None: "not known"}
    for window in each["burn_windows"]:
        burns = f"burn {_number(window['long_burn'])} and {_number(window['short_burn'])}"
        yield f"{_span(window['long'])} and {_span(window['short'])}", burns, _number(window["threshold"]), states[window["firing"]]


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:d}" if isinstance(value, int) else f"{value:.3g}"


def _share(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.1%}"


def _span(seconds: float | None) -> str:
    """A duration in its largest fitting unit; a dash for none."""
    if seconds is None:
        return _NOTHING
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= size), (1.0, "s"))
    return f"{seconds / size:.3g} {unit}"


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
