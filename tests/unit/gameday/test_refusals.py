"""What code hands to game days, experiments and probes: everything that cannot be played is refused, with its place and a way out."""

from __future__ import annotations

import pytest

from somaresil import ConfigurationError, FaultWindow
from somaresil.config import Checker
from somaresil.gameday import Experiment, GameDay, GameDayReport, Gate, Probe, Remote
from somaresil.gameday.codec import restored
from somaresil.gameday.figures import Figures, Objective
from somaresil.gameday.probes import Functions, measure
from somaresil.gameday.schedule import Schedule
from tests.unit.gameday.kit import GOOD, OUTAGE, experiment


def refused(make, *given, **named):
    """Path and what is allowed, of every problem."""
    with pytest.raises(ConfigurationError) as caught:
        make(*given, **named)
    return {problem.path: problem.allowed for problem in caught.value.problems}


def test_a_game_day_is_a_list_of_experiments():
    """A single one, none, and what is none are each refused under their place."""
    with pytest.raises(ConfigurationError, match="a list or tuple of Experiment"):
        GameDay("day", experiment())
    assert refused(GameDay, "day", []) == {"experiments": "1 to 200"}
    assert refused(GameDay, "day", [experiment(), "errors"]) == {"experiments[1]": "an Experiment"}
    assert "of Remote" in refused(GameDay, "day", [experiment()], targets=["http://a/c"])["targets"]


def test_an_experiment_tells_everything_that_is_wrong_with_its_lists():
    """Also for those that are needed and empty, too long, or of something else."""
    found = refused(Experiment, "x", OUTAGE, hypothesis=[], abort=[GOOD] * 51, gates=["held"], groups="half")
    assert found == {
        "faults": "a list or tuple of FaultWindow",
        "hypothesis": "at least one Probe",
        "abort": "at most 50",
        "gates[0]": "a Gate",
        "groups": "Groups(...) or None",
    }


def test_a_fault_ends_within_the_longest_phase():
    """A day, counted from its start."""
    late = FaultWindow("llm.invoke", "error", 86_000, 3_000)
    assert refused(Experiment, "x", [late], hypothesis=[GOOD]) == {"faults[0].duration": "an end within 86400 s of the start"}


def test_a_gate_has_a_probe_when_it_measures_and_only_then():
    """Otherwise it would be open, or measure what nobody asks."""
    assert refused(Gate, "probe") == refused(Gate, "held", probe=GOOD) == {"probe": "a Probe for kind 'probe', else None"}


def test_a_probe_that_can_never_hold_is_refused():
    """Limits the wrong way round, no query, a function of another kind, and moments that are none."""
    assert refused(Probe, "ratio", "a", minimum=0.9, maximum=0.5) == {"minimum": "at most the maximum, 0.5"}
    assert refused(Probe, "prometheus", "", minimum=1) == {"target": "a query of 1 to 2000 characters"}
    assert "kind 'callable'" in refused(Probe, "ratio", "a", minimum=0.9, check=int)["check"]
    for when in ("before", (), 3):
        assert "before" in refused(Probe, "ratio", "a", minimum=0.9, when=when)["when"]


async def _read(probe, counted=None, **functions):
    reading = await measure(probe, counted or Figures(), Functions(**functions))
    return reading.value, reading.why


@pytest.mark.asyncio
async def test_a_burn_rate_of_too_few_events_is_unknown():
    """And with enough of them it is what was lost, in multiples of what may be."""
    probe = Probe("burn_rate", "up", maximum=5, minimum_calls=10)
    few = Figures(objectives={"up": Objective(99.0, 5, 1, 0.5)})
    assert await _read(probe, few) == (None, "6 events, fewer than 10: nothing is known")
    value, why = await _read(probe, Figures(objectives={"up": Objective(99.0, 90, 10, 0.5)}))
    assert value == pytest.approx(10.0)
    assert why == "10 is above 5"


@pytest.mark.asyncio
async def test_a_function_that_gives_no_answer_is_no_measurement():
    """Nor is one that gives no number."""
    probe = Probe("callable", "queue", maximum=5)
    assert await _read(probe, probes={"queue": lambda: None}) == (None, "it gave no answer")
    assert await _read(probe, probes={"queue": lambda: float("nan")}) == (None, "nan is no measurement")


def test_a_plan_that_is_no_table_or_too_deep_is_refused():
    """Before anything of it is read."""
    nested = inner = {}
    for _ in range(200):
        inner["a"] = {}
        inner = inner["a"]
    assert "within one another" in refused(GameDay.from_dict, nested)["gameday"]
    assert "a table with" in refused(GameDay.from_dict, [1])["gameday"]
    assert refused(GameDay.from_toml, b"x = 1") == {"text": "text"}


def test_targets_of_a_plan_are_tables_and_what_they_hold_is_never_shown():
    """An address may have a password in it."""
    with pytest.raises(ConfigurationError) as caught:
        GameDay.from_dict({"somaresil_gameday": 1, "name": "d", "experiments": [], "targets": "http://user:hunter2@a/c"})
    assert "expected a list of tables with url" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        GameDay.from_dict({"somaresil_gameday": 1, "name": "d", "experiments": [], "targets": ["http://user:hunter2@a/c"]})
    assert "a table with url" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://a b/c", "http://ä/c", "http://[::1/c", "http://a:99999/c", 7, "ftp://a/c", "http://u@a/c"])
def test_what_is_no_address_is_refused_and_not_shown(url):
    """It may be one with a password in it."""
    with pytest.raises(ConfigurationError) as caught:
        Remote(url, token_env="T")
    (problem,) = caught.value.problems
    assert (problem.path, problem.value) == ("url", "an address")


def test_a_remote_has_one_place_for_its_token():
    """Both and none are refused; so is a file without a name."""
    assert refused(Remote, "http://a/c") == {"token_env": "either token_env or token_file"}
    assert refused(Remote, "http://a/c", token_env="T", token_file="f") == {"token_env": "either token_env or token_file"}
    assert refused(Remote, "http://a/c", token_file="") == {"token_file": "the path of a file"}


def test_a_report_that_is_too_large_is_not_read():
    """Nothing of it is parsed."""
    text = " " * 40_000_000
    assert "at most" in refused(GameDayReport.from_json, text)["report.size"]


def test_what_is_no_object_is_not_taken_for_figures():
    """With the value, shortened."""
    check = Checker("figures")
    assert restored(Figures, [1, 2], check) is None
    (problem,) = check.problems
    assert (problem.path, problem.allowed) == ("figures", "an object")
    assert restored(Figures, {"at": 1.0, "outages": {}}, check) is None
    assert check.problems[-1].allowed == "a list"


def test_a_schedule_has_an_end_to_its_windows_and_each_is_one():
    """And a zone that is a name."""
    found = refused(Schedule, "s", "0 10 * * *", windows=["10:00"], zone=3)
    assert found["Schedule.windows[0]"] == "a Window"
    assert "IANA" in found["Schedule.zone"]
    assert "at most" in refused(Schedule, "s", "0 10 * * *", windows=[None] * 5_000)["Schedule.windows"]
