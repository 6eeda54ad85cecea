"""A rollout in a file: what it may say, and that everything else is refused with its place."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ConfigurationError, ManualClock, Resilience
from somaresil.canary import CanaryConfig
from somaresil.canary.fleet import FleetJudge
from somaresil.canary_command.file import RolloutFile, read_rollout
from somaresil.canary_command.router import CommandRouter

WHOLE = """
[canary]
name = "gateway"
bad = "availability"
bake = "5m"
steps = [10, { weight = 50, name = "half", prove = true, longest = "1h", overdue = "rollback" }, 100]

[slos.availability]
target_percentage = 99.9
measurement_window = "30d"

[judge]
quorum = 0.75
stale = "2m"
[[judge.sources]]
kind = "scrape"
urls = ["http://127.0.0.1:9/evidence"]
role = "candidate"
[[judge.sources]]
kind = "push"

[router]
kind = "command"
set = ["traffic", "{percent}"]

[run]
snapshot = "gateway.json"

[render]
name = "gateway"
verdict_url = "http://verdicts:8080/canary"
"""
LEAST = {
    "canary": {"name": "gateway", "bad": "up", "allowed": 0.01},
    "judge": {"sources": [{"kind": "push"}]},
}


@pytest.fixture
def write(tmp_path):
    def made(text, name="gateway.canary.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return made


def problems(source, **options):
    with pytest.raises(ConfigurationError) as wrong:
        read_rollout(source, **options)
    return {problem.path: problem for problem in wrong.value.problems}


def test_everything_that_it_may_say(write):
    """Times in words, steps as tables, the objective's share, a judge and a router that can be made."""
    file = read_rollout(write(WHOLE))
    assert [(phase.name, phase.weight, phase.bake, phase.prove) for phase in file.config.phases] == [
        ("ramp_10", 0.1, 300.0, False),
        ("half", 0.5, 300.0, True),
        ("ramp_100", 1.0, 300.0, False),
    ]
    assert (file.config.phases[1].longest, file.config.phases[1].overdue) == (3_600.0, "rollback")
    assert file.levels.allowed == pytest.approx(0.001)
    assert file.snapshot == "gateway.json"
    assert [kind for kind, _ in file.sources] == ["scrape", "push"]
    judge = file.judge_for(Resilience("canary", clock=ManualClock()))
    assert isinstance(judge, FleetJudge)
    assert judge.levels == file.levels
    assert file.router is not None
    assert isinstance(file.router("v2"), CommandRouter)


def test_the_least_that_it_must_say():
    """A mapping, a share, a source."""
    file = read_rollout(LEAST)
    assert (file.router, file.snapshot, file.render) == (None, None, None)
    assert file.levels.allowed == 0.01


@pytest.mark.parametrize(
    ("line", "by", "place", "allowed"),
    [
        ('bad = "availability"\n', "", ": canary.bad", "a value: it has no default"),
        ("steps = [10, {", "steps = [60, {", ":6: canary.steps.1", "more than the step before (60.000%)"),
        ('bad = "availability"', 'bad = "availabilty"', ":4: canary.bad", "an objective in [slos] (availability)"),
        ('bake = "5m"', 'bake = "5m"\nminimum_events = 0', ":7: canary.steps.0.minimum_events", "a rule about evidence"),
        ('bake = "5m"', 'bake = "soon"', ":5: canary.bake", "seconds"),
        ("quorum = 0.75", "quorum = nan", ":13: judge.quorum", "a ratio"),
        ("quorum = 0.75", "qorum = 0.75", ":13: judge.qorum", "one of"),
        ('kind = "scrape"', 'kind = "scrap"', ":16: judge.sources.0.kind", "scrape | redis | push"),
        ('role = "candidate"', 'role = "canary"', ":18: judge.sources.0.role", "candidate"),
        ('kind = "command"', 'kind = "istio"', ":23: router.kind", "nginx | haproxy | flagger | argo | command"),
        ('"{percent}"', '"fast"', ":24: router.set", "a command with {percent} or {share} in it"),
        ('snapshot = "gateway.json"', "snapshot = 7", ":27: run.snapshot", "the path of a file"),
        ("[run]", "[runs]", ": runs", "one of canary"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(write, line, by, place, allowed):
    """And with what is allowed there."""
    path = write(WHOLE.replace(line, by))
    try:
        file = read_rollout(path)
    except ConfigurationError as wrong:
        found = wrong.problems
    else:
        with pytest.raises(ConfigurationError) as late:
            file.judge_for(Resilience("canary", clock=ManualClock()))
        found = late.value.problems
    shown = [f"{problem.path}: {problem.allowed}" for problem in found]
    assert any(place.partition(": ")[2] in each and allowed in each for each in shown), shown


def test_all_problems_are_told_at_once(write):
    """Of all tables."""
    text = WHOLE.replace("quorum", "qorum").replace('kind = "command"', 'kind = "istio"').replace("steps = [10,", "steps = [90,")
    assert len(problems(write(text))) >= 3


def test_objectives_of_different_targets_need_a_share():
    """A judge of pods has one for all; which one is for people to say."""
    slos = {"up": {"target_percentage": 99.0, "measurement_window": "30d"}, "fast": {"target_percentage": 95.0, "measurement_window": "7d"}}
    canary = {"name": "gateway", "bad": ["up", "fast"]}
    assert "canary.allowed" in problems({**LEAST, "canary": canary, "slos": slos})
    assert read_rollout({**LEAST, "canary": {**canary, "allowed": 0.02}, "slos": slos}).levels.allowed == 0.02


@pytest.mark.parametrize("weight", [10**400, -1, 101, float("nan"), "10", True, None])
def test_a_step_that_is_no_percentage_is_refused(weight):
    """As a table, too."""
    assert "canary.steps.0.weight" in problems({**LEAST, "canary": {**LEAST["canary"], "steps": [{"weight": weight}]}})


def test_a_rollout_without_a_source_is_refused_but_for_rendering():
    """An engine asks a verdict app that has sources of its own."""
    assert "judge.sources" in problems(LEAST | {"judge": {}})
    assert "judge" in problems({"canary": LEAST["canary"]})
    assert read_rollout({"canary": LEAST["canary"]}, rendered=True).judge == {}


def test_a_file_that_cannot_be_read_is_named(write, tmp_path):
    """Nothing there, no TOML, another ending."""
    assert problems(tmp_path / "none.toml")
    assert problems(write("[canary", "broken.toml"))
    assert problems(write(WHOLE, "canary.ini"))


words = st.sampled_from(["", "up", "5m", "push", "command", "{percent}"])
scalars = st.none() | st.booleans() | st.integers(-3, 10**9) | st.floats() | words
keys = st.sampled_from(["a", "b", "kind", "weight"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner), max_leaves=6)
names = {
    "canary": [each.name for each in fields(CanaryConfig)],
    "judge": ["sources", "quorum", "every", "patience", "stale", "no_data", "snapshot"],
    "router": ["kind", "set", "show", "timeout", "path", "stable", "candidate"],
    "run": ["snapshot"],
    "slos": ["up"],
    "render": ["name"],
}
tables = st.fixed_dictionaries({}, optional={table: values | st.dictionaries(st.sampled_from(of), values) for table, of in names.items()})


@given(tables, st.booleans())
def test_whatever_it_says_it_is_a_rollout_or_refused(data, laid_over):
    """Nothing else is ever raised."""
    if laid_over:
        more = {table: given for table, given in data.items() if isinstance(given, dict)}
        data = {table: {**LEAST.get(table, {}), **more.get(table, {})} for table in {*more, *LEAST}}
    with suppress(ConfigurationError):
        file = read_rollout(data)
        assert isinstance(file, RolloutFile)
        file.judge_for(Resilience("canary", clock=ManualClock()))
