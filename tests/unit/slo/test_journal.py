"""A journal holds hours, incidents and deployments, and can be read whatever has happened to it."""

from __future__ import annotations

import pytest

from somaresil import ConfigurationError
from somaresil.events import DefectFound
from somaresil.slo.journal import Journal, append, deployment, read_journals
from somaresil.slo.records import Deployment, Hour, line, read_lines
from tests.unit.slo.kit import HOUR, availability, bad, breaker, good, process


def journal_of(resilience, path, **options):
    """A journal without its thread: tests write when they want to."""
    parts = {"slos": resilience.slos, "clock": resilience.clock, "listeners": resilience.listeners}
    return Journal(path, service="test", instance="a", **parts, **options)


@pytest.fixture
def stand(tmp_path):
    """A process with an objective, a guard and a journal."""
    resilience, clock = process(availability())
    guard = resilience.guard("llm", slo="up", breaker=breaker())
    return resilience, clock, guard, journal_of(resilience, tmp_path / "journal")


def hour(at=10.0, **changes):
    """An hour of an objective."""
    given = {"service": "s", "instance": "a", "run": "1", "slo": "up", "target": 99.0, "start": 0, "good": 5, "bad": 1, "injected": 0}
    return Hour(at, **{**given, **changes})


def test_an_hour_is_written_when_it_is_over_with_what_was_counted_in_it(stand):
    """What comes later is in the next one, and stopping writes that."""
    _, clock, guard, journal = stand
    good(guard, 3)
    journal.write()
    assert not journal.path.exists()
    clock.advance(HOUR)
    journal.write()
    good(guard, 2)
    bad(guard)
    journal.stop()
    first, second = read_journals(journal.path).hours
    assert (first.good, first.bad) == (3, 0)
    assert (second.good, second.bad) == (2, 1)
    assert second.start == first.start + HOUR


def test_a_clock_that_is_set_back_takes_nothing_away(stand):
    """The hour that was reached goes on, and is written with everything that was counted in it."""
    _, clock, guard, journal = stand
    clock.advance(HOUR)
    journal.write()
    good(guard, 4)
    clock.step_wall(-2 * HOUR)
    journal.write()
    good(guard, 2)
    journal.stop()
    assert [each.good for each in read_journals(journal.path).hours] == [0, 6]


def test_an_objective_that_comes_later_is_written_too(stand):
    """With what was counted since it came."""
    resilience, clock, guard, journal = stand
    good(guard, 3)
    resilience.slos.add(availability("later"))
    good(resilience.guard("other", slo="later"), 2)
    clock.advance(HOUR)
    journal.write()
    assert {each.slo: each.good for each in read_journals(journal.path).hours} == {"up": 3, "later": 2}


def test_an_incident_is_written_when_it_begins_and_again_when_it_ends(stand):
    """The later line stands, and it knows when the first bad call was."""
    _, clock, guard, journal = stand
    began = clock.time()
    bad(guard)
    clock.advance(2.0)
    bad(guard)
    journal.write()
    (running,) = read_journals(journal.path).incidents
    assert (running.started, running.detected, running.duration) == (began, began + 2.0, None)
    clock.advance(10.0)
    good(guard)
    journal.write()
    (over,) = read_journals(journal.path).incidents
    assert (over.id, over.started, over.detected, over.duration, over.recovered) == (running.id, began, began + 2.0, 12.0, True)


def test_a_torn_line_costs_only_itself(tmp_path):
    """The process that comes after begins a new line."""
    path = tmp_path / "journal"
    path.write_bytes(line(hour())[:-20])
    append(path, [hour(start=3600)])
    found = read_journals(path)
    assert [each.start for each in found.hours] == [3600]
    assert found.unreadable == 1


def test_a_process_that_is_started_again_adds_to_the_hour(tmp_path):
    """Another run of the same instance replaces nothing; a later line of the same run does."""
    path = tmp_path / "journal"
    append(path, [hour(), hour(at=11.0, good=7), hour(run="2", good=1)])
    assert sorted(each.good for each in read_journals(path).hours) == [1, 7]


def test_a_full_file_is_rotated_and_still_read(tmp_path):
    """Four files at most, each below its bound."""
    path = tmp_path / "journal"
    for number in range(400):
        append(path, [hour(start=number * 3600)], most=10_000)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["journal", "journal.1", "journal.2", "journal.3"]
    assert all(file.stat().st_size <= 10_000 for file in files)
    assert max(each.start for each in read_journals(path).hours) == 399 * 3600


def test_a_file_that_cannot_be_written_is_reported_and_nothing_is_lost(stand):
    """The calls go on, and records are written once it can be."""
    resilience, _, guard, journal = stand
    told = []
    resilience.on(told.append, DefectFound)
    journal.path.mkdir()
    bad(guard, 2)
    journal.write()
    assert [event.where for event in told] == ["journal"]
    journal.path.rmdir()
    journal.write()
    assert len(read_journals(journal.path).incidents) == 1


def test_a_deployment_is_told_and_written(stand):
    """By the process itself."""
    resilience, clock, _, journal = stand
    resilience.deployed("1.2", commit="abc")
    journal.write()
    now = clock.time()
    assert read_journals(journal.path).deployments == (Deployment(now, "test", "1.2", now, "abc", None),)


@pytest.mark.parametrize(
    ("given", "path"), [({"version": ""}, "version"), ({"version": "1", "at": 9e12}, "at"), ({"version": "1", "ok": 1}, "ok")]
)
def test_what_is_no_deployment_is_refused(given, path):
    """With the path of what is wrong."""
    with pytest.raises(ConfigurationError, match=rf"deployed\.{path}"):
        deployment("s", now=10.0, **given)


def test_journals_that_are_not_there_are_refused_together(tmp_path):
    """An empty report is worse than none."""
    with pytest.raises(ConfigurationError) as caught:
        read_journals(tmp_path / "a", tmp_path / "b")
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("change", [b'"v": 2', b'"v": true', b'"v": []'])
def test_lines_of_another_version_are_counted_and_left_out(change):
    """They may mean something else."""
    assert read_lines([line(hour()).replace(b'"v": 1', change)]).unreadable == 1
