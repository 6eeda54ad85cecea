"""One guard in plain words: every part of every pipeline has some, and what is asked for and not there is guessed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from somaresil.cli import main
from somaresil.explain import LAYERS
from somaresil.guard.assembly import LAYERS as POLICIES

SERVICE = """
from datetime import timedelta
from somaresil import SLO, Resilience
resilience = Resilience("gateway")
resilience.slos.add(SLO("answers", 99.0, timedelta(days=1)))
guard = resilience.guard("llm.invoke", slo="answers", breaker=True, retry=3, timeout=2.0, bulkhead=5, fallback=lambda text: text)
resilience.guard("memory.write", timeout=1.0)
"""


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A module with two guards; gives where it is."""
    name = f"explained_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SERVICE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}:resilience"


def test_it_says_what_a_call_goes_through_and_how_it_may_end(service, capsys):
    """Options with their values, the longest time, the errors, the objective, the metrics."""
    assert main(["explain", "llm.invoke", service]) == 0
    said = capsys.readouterr().out
    for part in (
        "CircuitOpen",
        "BulkheadFull",
        "CallTimedOut",
        "total = 2.0",
        "attempts = 3",
        "counts for answers",
        "somaresil_breaker_state",
    ):
        assert part in said
    assert said.index("fallback") < said.index("retry  ") < said.index("breaker") < said.index("timeout") < said.index("callee")
    assert "calls the dependency 3 times at most" in said


def test_as_json_it_says_the_same(service, capsys):
    assert main(["explain", "memory.write", service, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in said["pipeline"]] == ["record", "timeout", "fault", "callee"]
    assert said["objectives"] == []
    assert said["worst_case"] == 1.0


def test_a_guard_that_is_not_there_is_guessed(service, capsys):
    assert main(["explain", "llm.invoice", service]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "did you mean 'llm.invoke'?" in said.err


@pytest.mark.parametrize("place", ["no_such_module:resilience", "json:loads"])
def test_where_no_resilience_is_it_says_so(place, capsys):
    assert main(["explain", "x", place]) == 2
    assert capsys.readouterr().err.startswith("somaresil explain: ")


def test_every_part_has_its_words_and_metrics_that_exist():
    """Names of metrics are those of the page about observing."""
    assert set(LAYERS) == {"record", *POLICIES, "fault", "callee", "pool"}
    page = (Path(__file__).parents[2] / "docs/guides/observability.md").read_text(encoding="utf-8")
    named = {re.sub("_total$", "", metric) for word in LAYERS.values() for metric in word.metrics}
    assert [metric for metric in named if metric not in page] == []
