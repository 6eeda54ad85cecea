"""Objectives in the file of the settings, in pyproject.toml, by environment and by variables."""

from __future__ import annotations

from datetime import timedelta

import pytest

from somaresil import ConfigurationError, Resilience
from somaresil.slofile import read_slos

PROJECT = """
[project]
name = "gateway"

[tool.somaresil.guards.llm]
timeout = 8.0

[tool.somaresil.slos.api-up]
target_percentage = 99.9
measurement_window = "30d"
group_by = "header:x-tenant"

[tool.somaresil.slos.fast]
target_percentage = 95
measurement_window = "7d"
latency = "2s"

[tool.somaresil.environments.staging.slos.fast]
latency = "4s"
"""


@pytest.fixture
def project(tmp_path):
    """A project file."""
    file = tmp_path / "pyproject.toml"
    file.write_text(PROJECT)
    return file


def test_one_file_has_guards_and_objectives(project):
    """Each reader takes its own tables; what others keep in pyproject.toml is theirs."""
    resilience = Resilience("x")
    resilience.slos.add(*read_slos(project).slos)
    assert resilience.slos.names == ("api-up", "fast")
    guard = resilience.guard("llm", slo="fast", timeout=1.0)
    resilience.configure_from(project)
    assert guard.options.timeout.total == 8.0
    assert resilience.slos["api-up"].group_by == "header:x-tenant"


def test_an_environment_and_variables_lie_on_top(project, monkeypatch):
    """Variables last; numbers, durations and words as the options take them."""
    assert read_slos(project, environment="staging").slos[1].latency == 4.0
    assert read_slos(project, environment="production").slos[1].latency == 2.0
    for name, value in {
        "FAST__LATENCY": "5s",
        "FAST__TARGET_PERCENTAGE": "90.5",
        "FAST__MEASUREMENT_WINDOW": "1d",
        "API_UP__MAX_GROUPS": "7",
        "API_UP__GROUP_BY": "route",
        "API_UP__LATENCY": "",
    }.items():
        monkeypatch.setenv(f"SOMARESIL_SLO__{name}", value)
    up, fast = read_slos(project, environment="staging").slos
    assert (fast.latency, fast.target_percentage, fast.measurement_window) == (5.0, 90.5, timedelta(days=1))
    assert (up.max_groups, up.group_by, up.latency) == (7, "route", None)
    assert Resilience("x").settings.entries == ()


def test_mistakes_are_told_with_their_place(project, monkeypatch):
    """File, line and path, or the name of the variable, and never what it says."""
    project.write_text(PROJECT + '\n[tool.somaresil.environments.staging.slos.fats]\nlatency = "1s"\n[tool.somaresil.slo]\n')
    monkeypatch.setenv("SOMARESIL_SLO__FATS__LATENCY", "secret")
    monkeypatch.setenv("SOMARESIL_SLO__FAST__LATENCI", "secret")
    monkeypatch.setenv("SOMARESIL_SLO__FAST__TIME_ZONE", "Nowhere")
    with pytest.raises(ConfigurationError) as wrong:
        read_slos(project, environment="staging")
    text = str(wrong.value)
    assert "secret" not in text
    line = project.read_text().splitlines().index("[tool.somaresil.environments.staging.slos.fats]") + 1
    assert f"pyproject.toml:{line}: environments.staging.slos.fats" in text
    assert "did you mean 'latency'" in text
    assert len(wrong.value.problems) == 5
