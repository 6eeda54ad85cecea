"""Alerts of a service beyond its objectives, each with a test that fires it and tests that do not.

What users feel is in the objectives, and those page. These tell why, and what will hurt next; few of them wake anybody.
"""

from __future__ import annotations

from typing import Final

from somaresil.render.alerts.chaos import CHAOS
from somaresil.render.alerts.fleet import FLEET
from somaresil.render.alerts.guards import GUARDS
from somaresil.render.alerts.model import Alert, History
from somaresil.render.alerts.releases import RELEASES
from somaresil.render.alerts.stack import STACK

__all__ = ["ALERTS", "OBJECTIVES", "STACK", "Alert", "History"]

ALERTS: Final[tuple[Alert, ...]] = (*GUARDS, *CHAOS, *RELEASES, *FLEET)
"""All that are written for a service."""
OBJECTIVES: Final = (
    "ErrorBudgetBurnPage",
    "ErrorBudgetBurnTicket",
    "GroupErrorBudgetBurnPage",
    "GroupErrorBudgetBurnTicket",
    "ObjectiveUnseen",
)
"""Those that :mod:`somaresil.slo.rules` writes for objectives with the usual policies."""
