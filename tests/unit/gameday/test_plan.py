"""Plans as data: what is read, that it comes back, and that everything else is refused with its path."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ConfigurationError
from somaresil.gameday import GameDay

TOML = """
somaresil_gameday = 1
name = "model outage"
seed = 7

[[experiments]]
name = "half of the calls fail"
baseline = 10
recover = 120.0

[[experiments.faults]]
target = "llm.*"
kind = "error"
start = 0
duration = 30
rate = 0.5

[[experiments.hypothesis]]
kind = "ratio"
target = "llm.*"
minimum = 0.95
when = ["before", "after"]

[[experiments.abort]]
kind = "burn_rate"
target = "up"
maximum = 100

[[experiments]]
name = "in groups"
faults = [{ target = "http:/chat", kind = "latency", start = 0, duration = 30, delay = 0.5 }]
hypothesis = [{ kind = "latency", target = "http:/chat", maximum = 2.0 }]
groups = { share = 0.1, by = "header:x-user" }
gates = [{ kind = "held" }, { kind = "confirm", message = "go on?" }, { kind = "budget", target = "up", minimum = 0.5 }]
"""
YAML = """
somaresil_gameday: 1
name: day
experiments:
  - name: first
    faults: [{target: llm.invoke, kind: error, start: 0, duration: 5}]
    hypothesis: [{kind: ratio, target: llm.invoke, minimum: 0.9}]
"""


def problems(read, text):
    """Paths and hints of what is wrong."""
    with pytest.raises(ConfigurationError) as refused:
        read(text)
    return {problem.path: problem.hint for problem in refused.value.problems}


def test_a_plan_in_toml_is_read_and_comes_back():
    """As data, through JSON, it is the same plan."""
    plan = GameDay.from_toml(TOML)
    first, second = plan.experiments
    assert (plan.name, plan.seed, len(plan.experiments)) == ("model outage", 7, 2)
    assert (first.inject_seconds, first.probes("during"), first.abort[0].maximum) == (30.0, (), 100.0)
    assert (second.groups.by, [gate.kind for gate in second.gates]) == ("header:x-user", ["held", "confirm", "probe"])
    assert GameDay.from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_a_plan_in_yaml_is_read():
    """As a file as well."""
    assert GameDay.from_yaml(YAML).experiments[0].name == "first"


def test_a_file_is_read_by_its_ending(tmp_path):
    """TOML and YAML; nothing else."""
    (tmp_path / "plan.toml").write_text(TOML)
    (tmp_path / "plan.yaml").write_text(YAML)
    (tmp_path / "plan.json").write_text("{}")
    assert GameDay.from_file(tmp_path / "plan.toml") == GameDay.from_toml(TOML)
    assert GameDay.from_file(tmp_path / "plan.yaml") == GameDay.from_yaml(YAML)
    for name in ("plan.json", "absent.toml"):
        with pytest.raises(ConfigurationError):
            GameDay.from_file(tmp_path / name)


def test_everything_wrong_is_told_at_once_with_its_path():
    """Misspelt fields with what they may have meant, values, what is missing, and faults without an end."""
    text = """
somaresil_gameday = 1
name = "day"
sed = 7
[[experiments]]
name = "first"
baselin = 3
observe = 500
faults = [{ target = "llm", kind = "eror", start = 0 }, { target = "llm", kind = "error", start = 0, duration = 5, rat = 1 }]
hypothesis = [{ kind = "ratio", target = "llm", minumum = 0.9 }]
abort = [{ kind = "latency", target = "llm", maximum = 1, when = ["sometimes"] }]
groups = { share = 0.7, by = "luck" }
gates = [{ kind = "confirm" }, { kind = "helt" }]
[[experiments]]
name = "first"
faults = []
"""
    found = problems(GameDay.from_toml, text)
    assert found["gameday.sed"] == "did you mean 'seed'?"
    assert found["gameday.experiments[0].baselin"] == "did you mean 'baseline'?"
    assert found["gameday.experiments[0].faults[0].duration"] == "a fault without an end is refused"
    assert found["gameday.experiments[0].faults[0].kind"] == "did you mean 'error'?"
    assert found["gameday.experiments[0].faults[1].rat"] == "did you mean 'rate'?"
    assert found["gameday.experiments[0].hypothesis[0].minumum"] == "did you mean 'minimum'?"
    assert {
        "gameday.experiments[0].observe",
        "gameday.experiments[0].hypothesis[0].minimum",
        "gameday.experiments[0].abort[0].when",
        "gameday.experiments[0].groups.share",
        "gameday.experiments[0].groups.by",
        "gameday.experiments[0].gates[0].message",
        "gameday.experiments[0].gates[1].kind",
        "gameday.experiments[1].faults",
        "gameday.experiments[1].hypothesis",
    } <= set(found)


@pytest.mark.parametrize(
    "text",
    [
        YAML + "more: &x [1]\nagain: *x\n",
        YAML + "name: other\n",
        YAML.replace("day", "!!python/name:os.system x"),
        YAML.replace("day", "!custom x"),
        YAML + "---\na: 1\n",
        "[" * 5_000,
        "- 1",
        "",
        "a: b: c",
    ],
    ids=["alias", "twice", "python", "tag", "documents", "deep", "list", "empty", "none"],
)
def test_yaml_that_is_more_than_plain_data_is_refused(text):
    """Aliases, repeated keys, tags, documents, depth."""
    assert problems(GameDay.from_yaml, text)


@pytest.mark.parametrize("text", ["name = 1\nname = 2", "= 3", "[[[", "a = " + "[" * 300, "x = 1\n" * 50_000])
def test_toml_that_is_none_is_refused(text):
    """Repeated keys, depth and size among it."""
    assert problems(GameDay.from_toml, text)


@pytest.mark.parametrize(
    ("version", "hint"), [(None, "is it a game day at all?"), (2, "it was written by a newer somaresil; upgrade this one")]
)
def test_other_versions_are_refused(version, hint):
    """What the fields mean there is not for this release to say."""
    assert (
        problems(GameDay.from_dict, {**GameDay.from_toml(TOML).as_dict(), "somaresil_gameday": version})["gameday.somaresil_gameday"]
        == hint
    )


def test_windows_end_within_their_phase():
    """Otherwise the end of the phase would cut them off unsaid."""
    text = TOML.replace("baseline = 10", "baseline = 10\ninject = 20")
    assert list(problems(GameDay.from_toml, text)) == ["gameday.experiments[0].faults[0].duration"]


def test_names_are_given_once():
    """A report must tell one experiment from the other."""
    text = TOML.replace('"in groups"', '"half of the calls fail"')
    assert list(problems(GameDay.from_toml, text)) == ["gameday.experiments[1].name"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_no_data_leads_to_anything_but_a_plan_or_problems(data):
    """A plan of which one value, anywhere, was replaced by any other."""
    plan = GameDay.from_toml(TOML).as_dict()
    at, key = plan, None
    while isinstance(at, dict | list) and at and (key is None or data.draw(st.booleans())):
        parent, key = at, data.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
        at = parent[key]
    parent[key] = data.draw(JSON)
    with suppress(ConfigurationError):
        read = GameDay.from_dict(plan)
        assert GameDay.from_dict(read.as_dict()) == read
