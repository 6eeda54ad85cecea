"""Game days and experiments of the Chaos Toolkit as files: what is written where, and what is refused."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("chaoslib")
pytest.importorskip("yaml")

from somaresil import ConfigurationError
from somaresil.cli import main
from somaresil.gameday import Experiment, GameDay
from somaresil.toolkit import cli, from_toolkit, to_toolkit
from tests.unit.toolkit.test_exchange import BURN, FAULT, day


def problems(data, **options):
    with pytest.raises(ConfigurationError) as refused:
        from_toolkit(data, **options)
    return {problem.path.removeprefix("toolkit."): problem.allowed for problem in refused.value.problems}


def test_targets_of_several_control_apps_are_exported_one_by_one():
    from somaresil.gameday.remote import Remote

    whole = day()
    with_targets = GameDay(whole.name, whole.experiments, targets=[Remote("http://127.0.0.1:9/chaos", token_env="TOKEN")])
    with pytest.raises(ConfigurationError) as refused:
        to_toolkit(with_targets)
    assert [problem.path for problem in refused.value.problems] == ["gameday.targets"]
    assert "service=" in refused.value.problems[0].hint


def test_a_hypothesis_that_is_looked_at_otherwise_is_refused_with_when_it_could_be():
    other = Experiment("errors", [FAULT], hypothesis=[type(BURN)("burn_rate", "answers", maximum=1.0, when=("during",)), BURN])
    with pytest.raises(ConfigurationError) as refused:
        to_toolkit(day(other))
    assert [problem.allowed for problem in refused.value.problems] == ["when = before and after"]


def test_data_that_is_no_experiment_is_refused_with_its_place():
    (made,) = to_toolkit(day()).experiments
    assert problems([made, 5]) == {"experiments[1]": "an experiment of the Chaos Toolkit, as an object"}
    assert problems([]) == {"experiments": "1 to 100 experiments"}


@pytest.mark.parametrize("number", [None, True, -1, "0", 10**9])
def test_an_extension_that_was_not_written_here_is_refused(number):
    (made,) = to_toolkit(day()).experiments
    made["extensions"] = ["other", {**made["extensions"][0], "number": number}]
    assert problems(made) == {"experiments[0].extensions": "one experiment and its place"}
    made["extensions"][1] |= {"number": 0, "gameday": {"somaresil_gameday": 1}}
    assert set(problems(made)) == {"experiments[0].gameday.name", "experiments[0].gameday.experiments"}


@pytest.mark.parametrize("tolerance", [True, "x", [1], [1, 2, 3], [1, "x"]])
def test_a_tolerance_that_is_no_number_and_no_range_is_refused_with_its_path(tolerance):
    (made,) = to_toolkit(day()).experiments
    made["extensions"] = None
    made["steady-state-hypothesis"]["probes"][1]["tolerance"] = tolerance
    assert problems(made) == {"experiments[0].steady-state-hypothesis.probes[1].tolerance": "a number, or a range of two"}


def test_files_go_out_and_come_back_as_the_same_game_day(tmp_path, capsys):
    plan, out = tmp_path / "plan.yaml", tmp_path / "out"
    plan.write_text(json.dumps(day(seed=7).as_dict()), encoding="utf-8")
    assert main(["toolkit", "export", str(plan), "--out", str(out)]) == 0
    (file,) = out.iterdir()
    assert capsys.readouterr().out == f"{file}\n"
    back = tmp_path / "back.yaml"
    assert main(["toolkit", "import", str(file), "--out", str(back)]) == 0
    assert GameDay.from_file(back) == day(seed=7)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "no.yaml", "--out", "OUT"], "no.yaml"),
        (["import", "FILE", "--out", "back.json"], "back.json: expected a name that ends in .yaml or .yml"),
        (["import", "FILE", "--out", "OUT.yaml"], "more than 10 characters"),
    ],
)
def test_what_cannot_be_read_or_written_is_told_and_is_2(tmp_path, monkeypatch, capsys, words, said):
    (made,) = to_toolkit(day()).experiments
    file = tmp_path / "one.json"
    file.write_text(json.dumps(made), encoding="utf-8")
    if "10" in said:
        monkeypatch.setattr(cli, "_LARGEST", 10)
    words = [str(file) if word == "FILE" else word.replace("OUT", str(tmp_path / "out")) for word in words]
    assert main(["toolkit", *words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("somaresil toolkit: ")
    assert said in told.err
