"""Burn-rate policies and actions in the file of objectives."""

from __future__ import annotations

import pytest

from somaresil.errors import ConfigurationError
from somaresil.model.slo import FAST_BURN, BurnPolicy, Window
from somaresil.slo import BudgetAction
from somaresil.slofile import read_slos

FILE = """
[slos.named]
target_percentage = 99.9
measurement_window = "30d"
error_budget_policy = { name = "fast_burn_alert", minimum_bad = 5, confidence = 0.95 }

[slos.own]
target_percentage = 99.9
measurement_window = "7d"
[slos.own.error_budget_policy]
name = "own"
[[slos.own.error_budget_policy.windows]]
budget_share = 0.08
long = "1h"
short = "5m"
severity = "page"

[[actions]]
action = "stop_chaos"
below = 0.25
until = 0.5
slo = "own"
"""


def test_policies_and_actions_are_read(tmp_path):
    """A named policy with guards, one with windows of its own, and what to do as budgets run out."""
    file = tmp_path / "slo.toml"
    file.write_text(FILE)
    found = read_slos(file)
    named, own = found.slos
    assert named.burn_policy == BurnPolicy("fast_burn", FAST_BURN.windows, minimum_bad=5, confidence=0.95)
    assert own.burn_policy == BurnPolicy("own", (Window(long=3_600.0, short=300.0, budget_share=0.08, severity="page"),))
    assert found.actions == (BudgetAction("stop_chaos", below=0.25, until=0.5, slo="own"),)


def test_everything_wrong_is_named_with_its_place():
    """Names, windows, options and actions, each by its path."""
    window = {"budget_share": 2, "long": "1h", "short": "5m", "severity": "call", "percent": 3}
    given = {
        "slos": {
            "a": {"target_percentage": 99.9, "measurement_window": "30d", "error_budget_policy": {"name": "fast_bun_alert"}},
            "b": {"target_percentage": 99.9, "measurement_window": "30d", "error_budget_policy": {"name": "own", "windows": [window, {}]}},
            "c": {"target_percentage": 99.9, "measurement_window": "30d", "error_budget_policy": {"name": "own", "windows": 3}},
            "d": {
                "target_percentage": 99.9,
                "measurement_window": "1h",
                "error_budget_policy": {"name": "own", "windows": [{"budget_share": 0.1, "long": "2h", "short": "1s", "severity": "page"}]},
            },
        },
        "actions": [{"action": "wran", "below": 0.1}, {"below": 0.1, "slo": "aa"}, 3],
    }
    with pytest.raises(ConfigurationError) as caught:
        read_slos(given)
    assert [problem.path for problem in caught.value.problems] == [
        "slos.a.error_budget_policy.name",
        "slos.b.error_budget_policy.windows.0.percent",
        "slos.b.error_budget_policy.windows.0.budget_share",
        "slos.b.error_budget_policy.windows.0.severity",
        "slos.b.error_budget_policy.windows.1.long",
        "slos.b.error_budget_policy.windows.1.short",
        "slos.b.error_budget_policy.windows.1.budget_share",
        "slos.b.error_budget_policy.windows.1.severity",
        "slos.c.error_budget_policy.windows",
        "slos.d.error_budget_policy.windows.0.short",
        "slos.d.error_budget_policy.windows.0.long",
        "actions.0.action",
        "actions.1.action",
        "actions.1.slo",
        "actions.2",
    ]


def test_actions_are_a_list():
    """One table alone is not what the file means."""
    slos = {"a": {"target_percentage": 99.9, "measurement_window": "30d"}}
    with pytest.raises(ConfigurationError, match="a list of tables"):
        read_slos({"slos": slos, "actions": {"action": "warn", "below": 0.1}})
