"""Service level objectives in process: defined once, read from the cells that the guards count anyway."""

from somaresil.slo.actions import BudgetAction
from somaresil.slo.alerting import Alert, Alerting
from somaresil.slo.gate import Decision, DeploymentPolicy, Evidence, Verdict
from somaresil.slo.incidents import Incident, IncidentLog
from somaresil.slo.objective import SLO, ErrorBudget
from somaresil.slo.tracker import SLOTracker

__all__ = [
    "SLO",
    "Alert",
    "Alerting",
    "BudgetAction",
    "Decision",
    "DeploymentPolicy",
    "ErrorBudget",
    "Evidence",
    "Incident",
    "IncidentLog",
    "SLOTracker",
    "Verdict",
]
