"""Objectives from a file: what it may say, and how it is told what is wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError, DeploymentPolicy, Resilience
from somaresil.slofile import MINIMUM_COVERAGE, read_slos

WHOLE = """\
[gate]
minimum_remaining = 0.25
minimum_events = 50

[slos.api]
target_percentage = 99.9
measurement_window = "30d"
description = "Answers"

[slos.fast]
target_percentage = 95
measurement_window = "7d"
error_budget_policy = "gradual_burn"
latency = "250ms"

[slos.chat]
target_percentage = 99.0
calendar = "month"
time_zone = "Europe/Berlin"
first_item = 1.5
group_by = "tenant"
max_groups = 5

[slos.minutes]
target_percentage = 99.5
measurement_window = 86400
budgeting = "timeslices"
time_slice_window = "1m"
time_slice_target = 0.95

[slos.drilled]
target_percentage = 99.0
measurement_window = "1d"
injected = "separate"
chaos_budget_percentage = 0.5

[slos.all]
target_percentage = 99.0
measurement_window = "30d"
[slos.all.parts]
api = 2
fast = 1
"""
EXPECTED = (
    SLO("api", 99.9, timedelta(days=30), description="Answers"),
    SLO("fast", 95, timedelta(days=7), "gradual_burn", latency=0.25),
    SLO("chat", 99.0, calendar="month", time_zone="Europe/Berlin", first_item=1.5, group_by="tenant", max_groups=5),
    SLO("minutes", 99.5, timedelta(days=1), budgeting="timeslices", time_slice_window=60.0, time_slice_target=0.95),
    SLO("drilled", 99.0, timedelta(days=1), injected="separate", chaos_budget_percentage=0.5),
    SLO("all", 99.0, timedelta(days=30), parts={"api": 2, "fast": 1}),
)


def written(folder, text, name="slo.toml"):
    file = folder / name
    file.write_text(text)
    return file


def problems(source):
    with pytest.raises(ConfigurationError) as caught:
        read_slos(source)
    return {problem.path: problem for problem in caught.value.problems}


def test_everything_that_an_objective_is_can_be_written_down(tmp_path):
    """In the order of the file, as if it had been made in Python."""
    found = read_slos(written(tmp_path, WHOLE))
    assert found.slos == EXPECTED
    assert found.policy == DeploymentPolicy(minimum_remaining=0.25, minimum_events=50, minimum_coverage=MINIMUM_COVERAGE)


def test_a_mapping_and_yaml_say_the_same():
    """What it is written in does not matter."""
    mapping = {"slos": {"fast": {"target_percentage": 95, "measurement_window": "7d", "latency": timedelta(seconds=0.25)}}}
    assert read_slos(mapping).slos == (SLO("fast", 95, timedelta(days=7), latency=0.25),)


def test_yaml_says_the_same_as_toml(tmp_path):
    """With the extra for it."""
    pytest.importorskip("yaml", reason="PyYAML is not installed: `pip install somaresil[yaml]`")
    text = "slos:\n  fast:\n    target_percentage: 95\n    measurement_window: 7d\n    latency: 250ms\n"
    assert read_slos(written(tmp_path, text, "slo.yaml")).slos == (SLO("fast", 95, timedelta(days=7), latency=0.25),)


def test_without_a_gate_the_policy_is_the_usual_one_that_wants_a_past(tmp_path):
    """A gate asks stores that outlive processes, so half of the period is to have been seen."""
    policy = read_slos(written(tmp_path, '[slos.a]\ntarget_percentage = 99\nmeasurement_window = "1d"\n')).policy
    assert policy == DeploymentPolicy(minimum_coverage=0.5)


def test_every_problem_is_named_at_once_with_its_line(tmp_path):
    """Path, value, what is allowed, and what was meant."""
    text = """\
[gate]
minimum_remaining = 2
on_unknown = "allow"
minimum_evnts = 3

[slos.api]
target_percentage = 100
measurement_window = "91d"
budgeting = "timeslice"
latncy = 2

["slos"."a.b"]
measurement_window = "1d"
"""
    file = written(tmp_path, text)
    found = problems(file)
    assert set(found) == {
        f"{file}:2: gate.minimum_remaining",
        f"{file}:3: gate.on_unknown",
        f"{file}:4: gate.minimum_evnts",
        f"{file}:7: slos.api.target_percentage",
        f"{file}:8: slos.api.measurement_window",
        f"{file}:9: slos.api.budgeting",
        f"{file}:10: slos.api.latncy",
        f"{file}:12: slos.'a.b'.target_percentage",
    }
    assert found[f"{file}:7: slos.api.target_percentage"].value == 100
    assert found[f"{file}:7: slos.api.target_percentage"].allowed == "a number > 0 and < 100"
    assert "timeslices" in found[f"{file}:9: slos.api.budgeting"].hint
    assert "latency" in found[f"{file}:10: slos.api.latncy"].hint
    assert "exit code" in found[f"{file}:3: gate.on_unknown"].hint


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "slos"),
        ("[slos]\n", "slos"),
        ("slos = 3\n", "slos"),
        ("gate = 3\n[slos.a]\ntarget_percentage = 99\nmeasurement_window = '1d'\n", "gate"),
        ("[slos]\na = 3\n", "slos.a"),
        ("[slo.a]\ntarget_percentage = 99\n", "slo"),
    ],
)
def test_what_is_no_table_is_refused(text, path, tmp_path):
    """Nothing can be judged by nothing."""
    assert any(found.rpartition(" ")[2] == path for found in problems(written(tmp_path, text)))


@pytest.mark.parametrize(("name", "text"), [("slo.toml", "[slos"), ("slo.json", "{}"), ("slo.toml", None)])
def test_a_file_that_cannot_be_read_is_a_problem_and_no_traceback(name, text, tmp_path):
    """Broken, of another kind, or not there."""
    file = tmp_path / name
    if text is not None:
        file.write_text(text)
    assert any(str(file) in path for path in problems(file))


def test_nothing_that_a_file_names_is_called(tmp_path):
    """A predicate is Python, and stays there."""
    text = '[slos.a]\ntarget_percentage = 99\nmeasurement_window = "1d"\ngood_when = "os.system"\n'
    assert any(path.endswith("slos.a.good_when") for path in problems(written(tmp_path, text)))


def test_what_is_read_can_be_added():
    """That is what it is for."""
    resilience = Resilience("x")
    resilience.slos.add(*EXPECTED)
    assert resilience.slos.names == ("api", "fast", "chat", "minutes", "drilled", "all")
