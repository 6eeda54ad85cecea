"""The page about load has every preset as it is, every limit, and a scenario that can be read."""

import re
import tomllib
from pathlib import Path

from somaresil.load import PRESETS
from somaresil.load.scenario import read_scenario
from somaresil.load.thresholds import DEFAULTS, LIMITS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "load.md").read_text(encoding="utf-8")


def test_presets_are_those_of_the_code():
    """Users and minutes of each, in their order."""
    rows = re.findall(r"^\| `([\w-]+)` \| (\d+) \| (\d+) \| ", PAGE, re.MULTILINE)
    assert rows == [(each.name, str(each.users), f"{each.seconds / 60:g}") for each in PRESETS.values()]


def test_every_limit_is_named():
    """With what is assumed when a scenario says nothing."""
    table = PAGE.partition("| limit | holds when |")[2].partition("\n\n")[0]
    assert [name for name in LIMITS if f"`{name}`" not in table] == []
    for name, value in DEFAULTS.items():
        row = next(line for line in table.splitlines() if f"`{name}`" in line)
        assert f"{value:g} when a scenario says nothing" in row


def test_the_scenario_can_be_read(tmp_path, monkeypatch):
    """Everything in the block is known, as a file beside an slo.toml."""
    text = PAGE.partition("```toml\n")[2].partition("```")[0]
    assert tomllib.loads(text)["name"] == "conversation"
    (tmp_path / "slo.toml").write_text(
        "".join(
            f'[slos.{name}]\ntarget_percentage = 99.0\nmeasurement_window = "30d"\n' for name in ("api_availability", "llm_latency_p95")
        )
    )
    (tmp_path / "scenario.toml").write_text(text)
    scenario = read_scenario(tmp_path / "scenario.toml")
    assert scenario.peak == 50.0
    assert len(scenario.slos) == 2
