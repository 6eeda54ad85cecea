"""When a schedule is due: time zones and their gaps, windows, blackouts, jitter, and what is refused."""

from __future__ import annotations

import contextlib
import sys
from datetime import UTC, date, datetime, time
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.gameday.schedule import Blackout, Occurrence, Schedule, Window

BERLIN = "Europe/Berlin"


def at(text: str, zone: str = "UTC") -> float:
    """Seconds since the epoch of a local time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def starts(schedule: Schedule, after: str, n: int = 3) -> list[str]:
    """The next starts, in the zone of the schedule."""
    found = schedule.next_runs(n, after=at(after, schedule.zone))
    return [f"{each.local:%m-%d %H:%M}" for each in found]


def problems(**options: object) -> dict[str, str]:
    """What is wrong with a schedule, by path."""
    with pytest.raises(ConfigurationError) as caught:
        Schedule(**{"name": "nightly", "cron": "30 2 * * *", **options})
    return {problem.path.removeprefix("Schedule."): f"{problem.allowed} ({problem.hint})" for problem in caught.value.problems}


def test_the_next_runs_are_those_of_the_expression():
    """What is due exactly now is not next."""
    schedule = Schedule("nightly", "30 2 * * mon-fri")
    assert starts(schedule, "2026-11-27 02:30") == ["11-30 02:30", "12-01 02:30", "12-02 02:30"]


def test_an_occurrence_has_one_name_everywhere():
    """It names the schedule and the time in UTC, whatever the zone and the jitter."""
    schedule = Schedule("nightly", "30 2 * * *", zone=BERLIN, jitter=600.0)
    found = schedule.after(at("2026-11-27 00:00"))
    assert found is not None
    assert found.id == "nightly@2026-11-27T01:30:00Z"


def test_seconds_are_a_sixth_field_in_front():
    """Six fields begin with seconds."""
    found = Schedule("often", "*/20 * * * * *").next_runs(3, after=0.0)
    assert [each.due for each in found] == [20.0, 40.0, 60.0]


# -- clocks that change ---------------------------------------------------------------------------------------------------------------


def test_a_time_that_is_skipped_runs_right_after_the_gap():
    """On the day on which 02:30 does not exist it runs at 03:00, and on the next one at 02:30 again."""
    assert starts(Schedule("n", "30 2 * * *", zone=BERLIN), "2026-03-28 12:00") == ["03-29 03:00", "03-30 02:30", "03-31 02:30"]


def test_a_time_that_comes_twice_runs_once():
    """02:30 exists twice on the day on which clocks are set back."""
    found = Schedule("n", "30 2 * * *", zone=BERLIN).next_runs(2, after=at("2026-10-24 12:00", BERLIN))
    assert [each.local.isoformat() for each in found] == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


def test_every_so_often_goes_by_real_time():
    """Each half hour is half an hour, also in the night in which an hour comes twice, and in that in which one is skipped."""
    schedule = Schedule("n", "*/30 * * * *", zone=BERLIN)
    for day in ("2026-03-28 23:00", "2026-10-24 23:00"):
        due = [each.due for each in schedule.next_runs(20, after=at(day, BERLIN))]
        assert {later - earlier for earlier, later in pairwise(due)} == {1800.0}


@pytest.mark.parametrize("cron", ["45 1 * * *", "15 2 * * *", "0 3 * * *"])
def test_from_within_the_second_of_two_hours_the_next_one_is_later(cron):
    """Whoever asks in the hour that comes again is not given a time in the first one."""
    schedule = Schedule("n", cron, zone=BERLIN)
    second = at("2026-10-25 00:30") + 3600.0
    found = schedule.after(second)
    assert found is not None
    assert found.due > second


@given(st.floats(0.0, 4e9), st.sampled_from(["30 2 * * *", "*/7 * * * *", "0 1,2,3 * * sun", "0 */5 * * *"]))
def test_what_comes_next_is_later_and_comes_in_order(moment, cron):
    """Wherever one begins, with any expression, in a zone whose clocks change."""
    due = [each.due for each in Schedule("n", cron, zone="America/New_York").next_runs(4, after=moment)]
    assert [moment, *due] == sorted({moment, *due})


# -- windows and blackouts --------------------------------------------------------------------------------------------------------------


def test_it_runs_in_windows_only():
    """Hourly, but from nine to twelve and on working days."""
    schedule = Schedule("n", "0 * * * *", windows=(Window("09:00", "12:00", "mon-fri"),))
    assert starts(schedule, "2026-11-27 10:30") == ["11-27 11:00", "11-30 09:00", "11-30 10:00"]


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins():
    """Friday from ten in the evening until two: Saturday at one is in it, Friday at one is not."""
    window = Window("22:00", "02:00", "fri")
    assert [window.covers(datetime(2026, 11, day, hour, tzinfo=UTC)) for day, hour in ((27, 1), (27, 22), (28, 1), (28, 2))] == [
        False,
        True,
        True,
        False,
    ]


def test_a_window_without_hours_is_whole_days():
    """All of Saturday and Sunday."""
    assert starts(Schedule("n", "0 0,12 * * *", windows=(Window(weekdays="sat,sun"),)), "2026-11-27 10:00", 5) == [
        "11-28 00:00",
        "11-28 12:00",
        "11-29 00:00",
        "11-29 12:00",
        "12-05 00:00",
    ]


def test_weekdays_may_go_over_the_end_of_a_week():
    """Saturday to Monday are three days; the order in which they are given does not matter."""
    assert Window(weekdays="sat-mon").weekdays == ("mon", "sat", "sun") == Window(weekdays=["sun", "mon", "sat"]).weekdays


def test_nothing_runs_on_days_of_a_blackout():
    """A date, a range, and days of every year over its end."""
    schedule = Schedule(
        "n",
        "0 12 * * *",
        blackouts=(Blackout("2026-12-01"), Blackout("2026-12-03", "2026-12-05"), Blackout("2020-12-07", "2021-01-06", yearly=True)),
    )
    assert starts(schedule, "2026-11-30 13:00", 4) == ["12-02 12:00", "12-06 12:00", "01-07 12:00", "01-08 12:00"]


def test_a_blackout_counts_days_of_the_zone_of_the_schedule():
    """In Tokyo the first of December begins at three in the afternoon of UTC."""
    schedule = Schedule("n", "0 * * * *", zone="Asia/Tokyo", blackouts=(Blackout(date(2026, 12, 1)),))
    assert not schedule.allows(at("2026-11-30 15:00"))
    assert schedule.allows(at("2026-11-30 14:59"))
    assert schedule.allows(at("2026-12-01 15:00"))


def test_it_is_known_when_a_window_closes():
    """At its end, or when a blackout begins; None when that is later than asked."""
    schedule = Schedule("n", "0 * * * *", windows=(Window("09:00", "24:00"),), blackouts=(Blackout("2026-12-24"),))
    assert schedule.closes(at("2026-11-27 10:00"), 86_400.0) == at("2026-11-28 00:00")
    assert schedule.closes(at("2026-11-27 10:00"), 3_600.0) is None
    whole = Schedule("n", "0 * * * *", blackouts=(Blackout("2026-12-24"),))
    assert whole.closes(at("2026-12-23 10:00"), 86_400.0) == at("2026-12-24 00:00")
    assert Schedule("n", "0 * * * *").closes(0.0, 86_400.0) is None


def test_a_window_whose_end_is_skipped_closes_at_the_gap():
    """It ends at 02:30, which is not there on that day: after 01:59 comes 03:00, and that is outside."""
    schedule = Schedule("n", "0 * * * *", zone=BERLIN, windows=(Window("00:00", "02:30"),))
    assert schedule.closes(at("2026-03-29 01:00", BERLIN), 86_400.0) == at("2026-03-29 03:00", BERLIN)


@given(
    st.integers(0, 23),
    st.integers(0, 23),
    st.sets(st.sampled_from(["mon", "wed", "sat", "sun"]), min_size=1),
    st.integers(0, 366 * 86_400),
    st.sampled_from(["UTC", BERLIN, "Australia/Lord_Howe"]),
)
def test_windows_open_and_close_where_a_naive_count_says(begin, end, days, offset, zone):
    """The next opening and closing are those that are found minute by minute."""
    schedule = Schedule("n", "* * * * *", zone=zone, windows=(Window(time(begin), time(end), days),))
    moment = at("2026-01-01 00:00") + offset // 60 * 60
    for opens in (True, False):
        found = schedule._change(moment, opens=opens, days=3)
        naive = next(
            (
                moment + 60.0 * n
                for n in range(1, 2 * 1440)
                if schedule.allows(moment + 60.0 * n) is opens and schedule.allows(moment + 60.0 * (n - 1)) is not opens
            ),
            None,
        )
        if naive is not None and schedule.allows(moment) is not opens:
            assert found == naive


# -- jitter -----------------------------------------------------------------------------------------------------------------------------


def test_jitter_is_drawn_once_an_occurrence():
    """The same in every process and however often one asks; others for other names, seeds and days; between nothing and its most."""
    schedule = Schedule("n", "0 12 * * *", jitter=600.0)
    found = schedule.next_runs(50, after=0.0)
    assert found == Schedule("n", "0 12 * * *", jitter=600.0).next_runs(50, after=0.0)
    drawn = [each.start - each.due for each in found]
    assert len(set(drawn)) == 50
    assert 0.0 <= min(drawn) < 100.0
    assert 500.0 < max(drawn) < 600.0
    assert found != Schedule("n", "0 12 * * *", jitter=600.0, seed=1).next_runs(50, after=0.0)


def test_jitter_never_leads_out_of_a_window():
    """Three minutes before it closes there is room for three minutes."""
    schedule = Schedule("n", "57 * * * *", jitter=1800.0, windows=(Window("00:00", "12:00"),))
    last = [each for each in schedule.next_runs(200, after=0.0) if each.due % 86_400 == 11 * 3600 + 57 * 60]
    assert len(last) > 5
    assert all(each.start - each.due < 180.0 for each in last)


# -- what is refused ----------------------------------------------------------------------------------------------------------------------


def test_every_problem_is_told_at_once():
    """Name, expression, zone, window, and what is no choice."""
    found = problems(
        name="a b", cron="61 * * * *", zone="Europe/Berlim", windows=Window(), concurrency="forbit", missed="all", jitter=-1, history=-1
    )
    assert list(found) == ["name", "zone", "windows", "jitter", "concurrency", "missed", "history", "cron"]
    assert "did you mean 'Europe/Berlin'" in found["zone"]
    assert "did you mean 'forbid'" in found["concurrency"]
    assert "Bad minute" in found["cron"]


@pytest.mark.parametrize(
    "cron", ["", "* * * *", "0 0 31 2 *", "0 0 * * mon#6", "@daily", "* * * * * * *", "0 0 * * 1#1/", 5, "1," * 200, "0 0 ² * *"]
)
def test_what_is_no_expression_is_refused(cron):
    """With the path, and nothing else raised."""
    assert "cron" in problems(cron=cron)


@given(st.text("*/-,#LW0123456789 monjan", max_size=30))
def test_no_expression_breaks_the_reader(cron):
    """Whatever is written there, it is a schedule or a ConfigurationError."""
    with contextlib.suppress(ConfigurationError):
        assert Schedule("n", cron).after(0.0) is not None


@pytest.mark.parametrize(
    "options",
    [
        {"windows": (Window("09:00", "10:00"),)},
        {"cron": "0 12 24 12 *", "blackouts": (Blackout("2020-12-24", yearly=True),)},
        {"cron": "0 12 30 2 mon", "windows": (Window(weekdays="tue"),)},
    ],
)
def test_what_never_comes_true_is_refused(options):
    """It would look like a schedule and never run."""
    assert "it never does" in problems(**options)["cron"]


def test_jitter_that_reaches_the_next_occurrence_is_refused():
    """Half an hour of it every quarter of an hour would mix them up."""
    assert problems(cron="*/15 * * * *", jitter=900.0) == {"jitter": "less than 900 seconds, which lie between two occurrences ()"}


def test_without_cronsim_it_is_said_what_to_install(monkeypatch):
    """The package is needed for the first schedule, not before."""
    monkeypatch.setitem(sys.modules, "cronsim", None)
    assert 'pip install "somaresil[schedule]"' in problems()["cron"]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("24:30", "10:00"), "Window.start"),
        (("9:00", "10:00"), "Window.start"),
        (("09:00", 10), "Window.end"),
        (("09:00", "10:00", "mond"), "Window.weekdays"),
        (("09:00", "10:00", []), "Window.weekdays"),
        (("09:00", "10:00", "mon-"), "Window.weekdays"),
        (("09:00", "10:00", 3), "Window.weekdays"),
    ],
)
def test_windows_that_are_none_are_refused(arguments, path):
    """Times of day, and days of a week."""
    with pytest.raises(ConfigurationError) as caught:
        Window(*arguments)
    assert [problem.path for problem in caught.value.problems] == [path]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("2026-13-01",), "Blackout.first"),
        (("2026-12-02", "2026-12-01"), "Blackout.last"),
        ((datetime(2026, 1, 1, tzinfo=UTC),), "Blackout.first"),
    ],
)
def test_blackouts_that_are_none_are_refused(arguments, path):
    """Dates, the last not before the first."""
    with pytest.raises(ConfigurationError) as caught:
        Blackout(*arguments)
    assert [problem.path for problem in caught.value.problems] == [path]


# -- as data --------------------------------------------------------------------------------------------------------------------------


def test_a_schedule_is_read_back_as_it_was():
    """With everything that differs from the defaults, and nothing else."""
    assert Schedule("n", "0 12 * * *").as_dict() == {"name": "n", "cron": "0 12 * * *"}
    schedule = Schedule(
        "n",
        "0 12 * * *",
        zone=BERLIN,
        windows=(Window("09:00:30", time(17), "mon-fri"),),
        blackouts=(Blackout("2026-12-24", "2027-01-06", yearly=True, reason="freeze"), Blackout("2026-05-01")),
        jitter=60,
        concurrency="replace",
        missed="run_once",
    )
    assert Schedule.from_dict(schedule.as_dict()) == schedule


def test_data_that_is_none_is_refused_with_its_paths():
    """Unknown and missing fields, also within windows and blackouts, all at once."""
    data = {"nam": "n", "cron": "0 12 * *", "windows": [{"start": "9"}, 3], "blackouts": [{"last": "2026-12-24"}], "jitter": "1"}
    with pytest.raises(ConfigurationError) as caught:
        Schedule.from_dict(data)
    paths = [problem.path for problem in caught.value.problems]
    assert paths == [
        "schedule.windows[0].start",
        "schedule.windows[1]",
        "schedule.blackouts[0].first",
        "schedule.nam",
        "schedule.name",
        "schedule.jitter",
        "schedule.cron",
    ]
    with pytest.raises(ConfigurationError):
        Schedule.from_dict([])  # type: ignore[arg-type]


def test_a_local_time_is_that_of_the_zone():
    """For people."""
    assert Occurrence("n", 0.0, 3600.0, BERLIN).local.isoformat() == "1970-01-01T02:00:00+01:00"
