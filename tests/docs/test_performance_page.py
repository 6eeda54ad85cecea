"""The page of figures is what its generator makes of the results that are kept, and the generator leaves nothing out."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
_SPEC = importlib.util.spec_from_file_location("renew", ROOT / "benchmarks" / "results" / "renew.py")
renew = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(renew)
RESULTS = renew.stored()


def test_the_page_is_made_from_the_results():
    """`python benchmarks/results/renew.py --page` writes it."""
    assert renew.written(PAGE, RESULTS) == PAGE


def test_there_are_results_and_no_others_than_are_shown():
    """Of the overhead at least."""
    assert "overhead" in RESULTS
    assert {file.stem for file in (ROOT / "benchmarks" / "results").glob("*.json")} == set(RESULTS)


@pytest.mark.parametrize("name", renew.SHOWN)
def test_each_benchmark_is_there(name):
    """With the flag that the generator needs."""
    assert "Benchmark(" in (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_says_where_it_comes_from(name):
    """When, by which command, on which machine, with which versions; and every figure of it is on the page."""
    result = RESULTS[name]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result["date"])
    assert result["command"].startswith(f"python benchmarks/{name}.py --json")
    section = PAGE.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    for said in (result["date"], result["command"], *result["machine"].values(), result["title"]):
        assert said in section
    for title, rows in result["tables"].items():
        assert f"| {title} |" in section
        for row, cells in rows.items():
            assert f"| {row} | {' | '.join(map(renew.shown, cells.values()))} |" in section
    assert [ratio["name"] for ratio in result["ratios"] if f"| {ratio['name']} |" not in section] == []


def test_what_is_rough_missing_or_not_met_is_said():
    """A page cannot look better than its results."""
    result = {
        "date": "2000-01-01",
        "command": "python benchmarks/x.py --json --quick",
        "title": "What it costs.",
        "quick": True,
        "machine": {"CPython": "3.11.0", "cores": "2"},
        "versions": {"somaresil": "1", "peer": "not installed"},
        "tables": {"a call": {"bare": {"ns": 12.34}, "peer": {"ns": "not installed"}}},
        "ratios": [
            {"name": "a", "value": 2.0, "limit": 1.0, "unit": "x", "met": False},
            {"name": "b", "value": None, "limit": 1.0, "unit": "x", "met": False},
        ],
        "missing": {"peer": "not installed"},
    }
    text = renew.figures({"x": json.loads(json.dumps(result))})
    for said in (
        "**Rough**",
        "| bare | 12.3 |",
        "| peer | not installed |",
        "| a | 2.00 x | 1.00 | **not met** |",
        "could not be measured",
    ):
        assert said in text
    assert "Not there to be measured: peer." in text
