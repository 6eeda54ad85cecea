"""Game days go to the Chaos Toolkit and come back as they were; what it cannot play is named."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import ConfigurationError, FaultWindow
from somaresil.cli import main
from somaresil.gameday import Experiment, GameDay, Gate, Groups, Probe
from somaresil.toolkit import from_toolkit, to_toolkit

pytest.importorskip("chaoslib")

BURN = Probe("burn_rate", "answers", maximum=14.4, when=("before", "after"))
CALLS = Probe("ratio", "llm.*", minimum=0.95)
FAULT = FaultWindow("llm.*", "error", 0, 30, rate=0.3)


def day(*experiments, **options) -> GameDay:
    made = experiments or (Experiment("errors", [FAULT], hypothesis=[BURN], baseline=20.0, observe=5.0),)
    return GameDay("a day", made, **options)


def test_an_experiment_of_a_game_day_becomes_one_of_the_toolkit():
    """Its phases are pauses, its hypothesis is looked at before and after, its faults are ended whatever happens."""
    (made,) = to_toolkit(day(seed=7), service="gateway:resilience").experiments
    (action,) = made["method"]
    assert action["pauses"] == {"before": 20.0, "after": 35.0}
    assert action["provider"]["arguments"]["plan"]["seed"] == 7
    assert [probe["provider"]["func"] for probe in made["steady-state-hypothesis"]["probes"]] == ["recovered", "burn_rate"]
    assert made["runtime"]["rollbacks"]["strategy"] == "always"
    assert made["configuration"] == {"somaresil_service": "gateway:resilience"}


def test_what_the_toolkit_cannot_play_is_refused_all_of_it_with_its_path():
    """Or left out, when that was agreed to, and said."""
    rich = Experiment(
        "errors",
        [FAULT],
        hypothesis=[CALLS, BURN, Probe("budget", "answers", minimum=0.1)],
        abort=[BURN],
        gates=[Gate("held")],
        groups=Groups(0.1),
    )
    with pytest.raises(ConfigurationError) as refused:
        to_toolkit(day(rich))
    paths = [problem.path for problem in refused.value.problems]
    assert paths == [f"gameday.experiments[0].{name}" for name in ("hypothesis[0]", "hypothesis[2]", "abort", "gates", "groups")]
    omitted = to_toolkit(day(rich), omit=True)
    assert len(omitted.omitted) == 5
    assert from_toolkit(omitted.experiments) == day(rich), "the whole of it comes back"


def test_a_part_of_a_game_day_strikes_the_same_calls_as_in_the_whole():
    """The seed that its place gave it comes along."""
    whole = day(*(Experiment(name, [FAULT], hypothesis=[BURN]) for name in ("one", "two")), seed=40)
    _, second = to_toolkit(whole).experiments
    (alone,) = from_toolkit(second).experiments
    assert (alone.name, alone.seed) == ("two", 41)


@pytest.mark.parametrize("part", ["title", "method", "steady-state-hypothesis", "rollbacks"])
def test_an_export_that_was_changed_is_refused(part):
    """Two accounts of one experiment cannot both be right."""
    (made,) = copy.deepcopy(to_toolkit(day()).experiments)
    made[part] = "other" if part == "title" else made[part][:0] if isinstance(made[part], list) else {**made[part], "title": "other"}
    with pytest.raises(ConfigurationError) as refused:
        from_toolkit(made)
    assert [problem.path for problem in refused.value.problems] == [f"toolkit.experiments[0].{part}"]
    made["extensions"] = []
    if part != "method":
        assert from_toolkit(made).experiments[0].faults == (FAULT,), "without the extension the rest is read"


def test_what_was_written_by_hand_needs_a_hypothesis_that_a_game_day_knows():
    """Others are refused with their path."""
    (made,) = copy.deepcopy(to_toolkit(day()).experiments)
    del made["extensions"]
    read = from_toolkit(made, name="by hand")
    assert (read.name, read.experiments[0].hypothesis) == ("by hand", (BURN,))
    probes = made["steady-state-hypothesis"]["probes"]
    probes[1]["provider"] |= {"func": "breaker_state", "arguments": {"guard": "llm.invoke"}}
    with pytest.raises(ConfigurationError) as refused:
        from_toolkit(made)
    paths = {problem.path for problem in refused.value.problems}
    assert paths == {
        "toolkit.experiments[0].steady-state-hypothesis.probes[1].provider.func",
        "toolkit.experiments[0].steady-state-hypothesis",
    }


limits = st.tuples(st.floats(-10, 10), st.floats(0, 10)).map(lambda pair: {"minimum": pair[0], "maximum": pair[0] + pair[1]})
probes = st.builds(
    lambda kind, target, tolerated: Probe(kind, target, when=("before", "after"), **tolerated),
    st.sampled_from(["budget", "burn_rate"]),
    st.sampled_from(["answers", "memory.writes"]),
    limits | st.floats(-10, 10).map(lambda low: {"minimum": low}),
)
experiments = st.builds(
    lambda faults, hypothesis, seed, baseline: (faults, hypothesis, seed, baseline),
    st.lists(
        st.builds(
            lambda kind, start, duration, rate: FaultWindow("llm.*", kind, start, duration, rate=rate),
            st.sampled_from(["error", "lost_reply", "stale_result"]),
            st.floats(0, 100),
            st.floats(0.1, 100),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=3,
    ),
    st.lists(probes, min_size=1, max_size=3),
    st.none() | st.integers(0, 2**40),
    st.floats(0.1, 100),
)


@given(st.lists(experiments, min_size=1, max_size=3), st.integers(0, 2**40))
def test_what_was_exported_comes_back_as_it_was(listed, seed):
    """Through JSON, whatever it says."""
    whole = day(
        *(Experiment(f"{n}", made[0], hypothesis=made[1], seed=made[2], baseline=made[3]) for n, made in enumerate(listed)), seed=seed
    )
    assert from_toolkit(json.loads(json.dumps(to_toolkit(whole).experiments))) == whole


def test_the_command_writes_files_and_reads_them(tmp_path, capsys):
    """One for each experiment; what would be lost ends it before anything is written."""
    plan = tmp_path / "day.yaml"
    plan.write_text(json.dumps(day().as_dict()), encoding="utf-8")
    assert main(["toolkit", "export", str(plan), "--out", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    assert (file.name, capsys.readouterr().out.strip()) == ("01-errors.json", str(file))
    assert main(["toolkit", "import", str(file), "--out", str(tmp_path / "back.yaml")]) == 0
    assert GameDay.from_file(tmp_path / "back.yaml") == day()
    plan.write_text(json.dumps(day(Experiment("errors", [FAULT], hypothesis=[CALLS])).as_dict()), encoding="utf-8")
    assert main(["toolkit", "export", str(plan), "--out", str(tmp_path / "none")]) == 2
    assert "hypothesis[0]" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main(["toolkit", "import", str(file), "--out", str(tmp_path / "back.toml")]) == 2
