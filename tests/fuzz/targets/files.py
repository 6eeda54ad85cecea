"""Files of settings, objectives, schedules, game days, loads, rollouts, rules and waivers."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

from somaresil import ConfigurationError
from somaresil.canary_command.file import read_rollout
from somaresil.config import Checker
from somaresil.gameday import GameDay, Schedule
from somaresil.gameday.report import GameDayReport
from somaresil.interchange import import_text
from somaresil.interchange.load import FORMATS
from somaresil.interchange.promql import selector
from somaresil.interchange.toml import dump_toml
from somaresil.load.books import Books
from somaresil.load.measure import Measure
from somaresil.load.scenario import read_scenario
from somaresil.perf.budget import PerformanceBudget
from somaresil.runtime_guard.rules import read_rules
from somaresil.scan.policy import read_policy
from somaresil.settings.entries import duration_of, entries_of, is_pattern
from somaresil.settings.files import document_from_text, documents_from_text
from somaresil.settings.variables import entries_of_variables
from somaresil.slofile import read_slos, slos_of
from somaresil.toolkit import from_toolkit
from tests.fuzz.harness import expect, mapping_of, target, text_of, value_of


def _document(text: str, ending: str) -> Any:
    check = Checker()
    found = document_from_text(text, ending, f"file{ending}", check)
    check.finish()
    expect(found is not None, "a document, or a problem")
    return found


@target("settings.files:_toml", "settings.files:_toml_lines", raises=(ConfigurationError,), weight=3)
def toml(data: bytes) -> None:
    """A file of TOML, with the line of everything in it, read as settings and as objectives."""
    document = _document(text_of(data), ".toml")
    document.where(("guards", "llm"), "guards")
    _settings(document)


@target("settings.files:_yaml_documents", "settings.files:_Reader.value", raises=(ConfigurationError,), weight=2)
def yaml(data: bytes) -> None:
    """A file of YAML: the same, and as several documents."""
    check = Checker()
    documents_from_text(text_of(data), "file.yaml", check)
    _settings(_document(text_of(data), ".yaml"))


@target("settings.entries:entries_of", "slofile:slos_of", raises=(ConfigurationError,))
def settings(data: bytes) -> None:
    """What such files have in them."""
    _settings(mapping_of(data))


def _settings(source: Any) -> None:
    from somaresil.settings.files import Document

    document = source if isinstance(source, Document) else Document("file", source)
    check = Checker()
    entries_of(document, "production", check)
    try:
        file = slos_of(document, environment="production", variables={}, whole=True)
    except ConfigurationError as wrong:
        expect(wrong.problems, "a problem that is told")
    else:
        dump_toml(file)
    check.finish()


@target("settings.variables:entries_of_variables", raises=(ConfigurationError,), weight=6)
def variables(data: bytes) -> None:
    """Names and values in the environment."""
    pairs = (line.partition("=") for line in text_of(data).split("\n"))
    check = Checker()
    entries_of_variables({f"SOMARESIL_{name}": value for name, _, value in pairs}, check)
    check.finish()


@target("settings.entries:duration_of", "settings.entries:is_pattern", "interchange.promql:selector", weight=8)
def words(data: bytes) -> None:
    """Durations, patterns, and queries of others."""
    text = text_of(data)
    found = duration_of(text)
    expect(found is None or found.total_seconds() >= 0, "a duration")
    is_pattern(text)
    selector(text)


@target("slofile:read_slos", raises=(ConfigurationError,))
def slos(data: bytes) -> None:
    """A file of objectives; what is taken is written as TOML and is the same when it is read back."""
    file = read_slos(mapping_of(data))
    text = dump_toml(file)
    again = slos_of(_document(text, ".toml"), whole=True)
    expect([slo.name for slo in again.slos] == [slo.name for slo in file.slos], "the same objectives")


@target("interchange.load:import_text", raises=(ConfigurationError,), weight=1)
def interchange(data: bytes) -> None:
    """Objectives as OpenSLO, Sloth and Pyrra have them. JSON is YAML."""
    text = text_of(data)
    for form in FORMATS:
        try:
            import_text(text, form, partial=True)
        except ConfigurationError as wrong:
            expect(wrong.problems, "a problem that is told")


@target("gameday.schedule:Schedule.from_dict", raises=(ConfigurationError,))
def schedule(data: bytes) -> None:
    """A schedule with its cron expression; what is taken is read back as it was."""
    found = Schedule.from_dict(mapping_of(data))
    expect(Schedule.from_dict(found.as_dict()) == found, "a schedule that is read back")
    found.allows(datetime(2026, 3, 29, 2, 30, tzinfo=UTC).timestamp())


@target("gameday.day:GameDay.from_dict", raises=(ConfigurationError,))
def gameday(data: bytes) -> None:
    """A game day; what is taken is read back as it was."""
    found = GameDay.from_dict(mapping_of(data))
    expect(GameDay.from_dict(found.as_dict()).as_dict() == found.as_dict(), "a game day that is read back")
    json.dumps(found.as_dict(), allow_nan=False)


@target("gameday.report:GameDayReport.from_json", raises=(ConfigurationError,), weight=2)
def report(data: bytes) -> None:
    """The report of a game day; what is taken can be written."""
    GameDayReport.from_json(data).to_json()


@target("toolkit.exchange:from_toolkit", raises=(ConfigurationError,), weight=2)
def toolkit(data: bytes) -> None:
    """Experiments of the Chaos Toolkit."""
    found = value_of(data)
    from_toolkit(found if isinstance(found, list | dict) else [found])


@target("load.scenario:read_scenario", raises=(ConfigurationError,))
def scenario(data: bytes) -> None:
    """A load."""
    read_scenario(mapping_of(data))


@target("load.books:Books.from_dict", raises=(ValueError,))
def books(data: bytes) -> None:
    """What a worker of a load has counted, added to what is there."""
    found = Books.from_dict(mapping_of(data))
    found.merge(Books.from_dict(found.as_dict()))
    found.total().latency.quantile(0.95)


@target("load.measure:Measure.from_dict", "model.sketch:Sketch.load", raises=(ValueError,))
def measure(data: bytes) -> None:
    """Durations that were counted."""
    found = Measure.from_dict(mapping_of(data))
    expect(Measure.from_dict(found.as_dict()).as_dict() == found.as_dict(), "read back")
    found.quantile(0.99)


@target("perf.budget:PerformanceBudget.of", raises=(ConfigurationError,))
def budget(data: bytes) -> None:
    """A budget of performance."""
    PerformanceBudget.of(mapping_of(data))


@target("canary_command.file:read_rollout", raises=(ConfigurationError,), weight=2)
def rollout(data: bytes) -> None:
    """A rollout."""
    read_rollout(mapping_of(data))


@target("runtime_guard.rules:read_rules", raises=(ConfigurationError,))
def rules(data: bytes) -> None:
    """What a process may do."""
    found = read_rules(mapping_of(data))
    expect(all(each.low <= each.high for each in found.targets()), "ports")


@target("scan.policy:read_policy", raises=(ConfigurationError,))
def waivers(data: bytes) -> None:
    """Waivers of a scan, and licences."""
    read_policy(mapping_of(data), today=date(2026, 11, 28))
