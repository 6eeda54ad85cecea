"""A month from journals: what was attained, what was left of budgets, what failed after deployments."""

from __future__ import annotations

import random

import pytest

from somaresil import ConfigurationError
from somaresil.cli import main
from somaresil.sla.month import month_of, period
from somaresil.sla.render import files_of
from somaresil.slo.journal import append
from somaresil.slo.records import Deployment, Hour, JournaledIncident, line, read_lines

OCTOBER = period("2026-10")
START = int(OCTOBER.start)
LATER = OCTOBER.end + 1.0


def hour(number, good, bad, instance="a", at=0.0, target=99.0):
    """An hour of the month."""
    return Hour(at, "s", instance, "1", "up", target, START + number * 3600, good, bad, 0)


def incident(number, after, duration=60.0, injected=False):
    """An incident so many seconds after the month began."""
    began = START + after
    return JournaledIncident(0.0, "s", "a", "1", f"llm#{number}", "llm", began, began + 5.0, duration, duration is not None, injected)


def deployed(version, after, ok=None):
    """A deployment so many seconds after the month began."""
    return Deployment(0.0, "s", version, START + after, None, ok)


def month(*records, when=OCTOBER, **options):
    """The figures of these records."""
    return month_of(read_lines([line(record) for record in records]), when, now=LATER, **options)


def test_instances_are_added_and_later_lines_replace_earlier_ones():
    """As rates that are averaged they would weigh the same."""
    (up,) = month(hour(0, 90, 10), hour(0, 900, 0, instance="b"), hour(0, 80, 1, at=1.0)).objectives
    assert (up.good, up.bad) == (980, 1)
    assert up.attained == pytest.approx(100 * 980 / 981)
    assert up.met


def test_an_hour_of_which_nobody_tells_is_a_gap():
    """It is not a hundred per cent."""
    (up,) = month(hour(0, 100, 0), hour(2, 99, 1)).objectives
    assert up.remaining[:4] == (1.0, None, 0.5, None)
    assert up.coverage == pytest.approx(2 / (31 * 24))


def test_hours_without_events_say_nothing_about_the_objective():
    """It is neither met nor missed."""
    (up,) = month(hour(0, 0, 0)).objectives
    assert (up.attained, up.met, up.remaining[0]) == (None, None, None)


@pytest.mark.parametrize(
    ("name", "zone", "hours"),
    [("2026-10", "UTC", 744), ("2026-10", "Europe/Berlin", 745), ("2026-03", "Europe/Berlin", 743), ("2026-12", "Asia/Kolkata", 744)],
)
def test_a_month_has_the_hours_that_its_zone_has(name, zone, hours):
    """Clocks that change add one, or take one away; the end of a month is the begin of the next."""
    assert len(period(name, zone).hours) == hours


@pytest.mark.parametrize(("name", "zone"), [("2026-13", "UTC"), ("26-10", "UTC"), ("2026-10-01", "UTC"), ("2026-10", "Europe/Nowhere")])
def test_what_is_no_month_or_no_zone_is_refused(name, zone):
    """Before anything is read."""
    with pytest.raises(ConfigurationError):
        period(name, zone)


def test_an_incident_soon_after_a_deployment_is_its_failure():
    """One that comes later, that an experiment made, or that belongs to the next version is not."""
    found = month(
        deployed("1", 0.0),
        incident(1, 600.0, 120.0),
        deployed("2", 10_000.0),
        incident(2, 14_000.0),
        deployed("3", 20_000.0),
        incident(3, 20_010.0, injected=True),
        deployed("4", 30_000.0, ok=False),
    )
    assert [failed for _, failed in found.deployments] == [True, False, False, True]
    assert found.delivery.failure_rate == 0.5
    assert found.delivery.recovery == 120.0
    assert month(deployed("2", 0.0), incident(2, 4_000.0), within=5_000.0).delivery.failed == 1


def test_means_of_incidents_leave_out_what_has_not_ended():
    """How long it lasts is not known."""
    outages = month(incident(1, 0.0, 60.0), incident(2, 1_060.0, 120.0), incident(3, 9_000.0, None)).outages
    assert (outages.mttr, outages.mttd, outages.unfinished) == (90.0, 5.0, 1)
    assert outages.mtbf == pytest.approx((1_000.0 + 7_820.0) / 2)


def burning(number, after, duration=600.0, mitigated=60.0, group=None):
    """An incident of an objective so many seconds after the month began."""
    began = START + after
    about = {"slo": "up", "group": group, "mitigated": None if mitigated is None else began + mitigated, "experiment": "errors-1"}
    return JournaledIncident(0.0, "s", "a", "1", f"up#{number}", None, began, began + 30.0, duration, duration is not None, False, **about)


def test_guards_and_objectives_have_figures_of_their_own():
    """The totals are those of guards: the alert of an objective tells of the same outage once more."""
    found = month(incident(1, 0.0), burning(2, 0.0), burning(3, 10_000.0, mitigated=None), burning(4, 0.0, group="acme"))
    assert [(kind, name, each.incidents) for kind, name, each in found.outages_by] == [
        ("guard", "s/llm", 1),
        ("objective", "s/up", 2),
        ("objective", "s/up (acme)", 1),
    ]
    (_, _, up) = found.outages_by[1]
    assert (up.mttd, up.mttm, up.mttr, up.mtbf) == (30.0, (60.0 + 600.0) / 2, 600.0, 9_400.0)
    assert (found.outages.incidents, found.outages.mttr) == (1, 60.0)
    assert "errors-1" in files_of(found)["sla-2026-10-incidents.csv"]
    assert "objective,s/up,2,0,30.0,330.0,600.0,9400.0" in files_of(found)["sla-2026-10-outages.csv"]


def test_an_objective_is_restored_when_it_was_mitigated():
    """Its alert stands for as long as the windows remember, and that is no time in which anybody was harmed."""
    assert month(deployed("1", 0.0), burning(1, 100.0)).delivery.recovery == 60.0
    assert month(deployed("1", 0.0), burning(1, 100.0, mitigated=None)).delivery.recovery == 600.0


def test_an_incident_of_an_older_version_is_read():
    """Lines without the later fields are as good as ever."""
    old = (
        b'{"v": 1, "kind": "incident", "at": 1.0, "service": "s", "instance": "a", "run": "1", "id": "llm#1", "guard": "llm", '
        b'"started": 1.0, "detected": 2.0, "duration": 3.0, "recovered": true, "injected": false}'
    )
    (read,) = read_lines([old]).incidents
    assert (read.guard, read.slo, read.mitigated, read.subject) == ("llm", None, None, "llm")


def test_the_report_does_not_depend_on_the_order_of_lines():
    """The same journals give the same bytes."""
    records = [hour(n, 10 * n + 1, n) for n in range(5)] + [incident(1, 5.0), deployed("1", 0.0), deployed("2", 0.0)]
    mixed = [*records]
    random.Random(1).shuffle(mixed)
    assert files_of(month(*mixed)) == files_of(month(*records))


def test_names_from_a_journal_mean_nothing_in_a_report():
    """No markup, and no formula of a spreadsheet."""
    texts = files_of(month(deployed("=1+1", 0.0), deployed("<b>", 1.0)))
    assert "<b>" not in texts["sla-2026-10.html"]
    assert "<b>" not in texts["sla-2026-10.md"]
    assert ",'=1+1," in texts["sla-2026-10-deployments.csv"]


def test_the_commands_note_a_deployment_and_report_the_month(tmp_path, capsys):
    """A missed objective ends with 1, and so does a month of which nothing is known."""
    journal, out = tmp_path / "journal", tmp_path / "out"
    ask = ["report", "--month", "2026-10", "--journal", str(journal), "--out", str(out)]
    noted = ["deployed", "1.2", "--journal", str(journal), "--service", "s", "--at", str(START), "--failed"]
    assert main(noted) == 0
    assert main(ask) == 1
    append(journal, [hour(0, 1000, 1)])
    assert main(ask) == 0
    append(journal, [hour(1, 0, 100)])
    assert main(ask) == 1
    assert "s/up: missed" in capsys.readouterr().out
    assert "1.2" in (out / "sla-2026-10.md").read_text()
    assert main([*ask[:4], str(tmp_path / "none"), *ask[5:]]) == 2
