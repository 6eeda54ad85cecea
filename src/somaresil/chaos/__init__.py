"""Chaos engineering in process: faults as leases, inside a declared blast radius, off until somebody opts in twice."""

from somaresil.callpath import scope
from somaresil.chaos.audit import AuditEntry, acting
from somaresil.chaos.conditions import BreakerOpen, BudgetBelow, BurnRateAbove, ChaosBudgetSpent, Condition, StopCondition
from somaresil.chaos.config import ChaosCeilings, ChaosConfig, ChaosExperiment
from somaresil.chaos.engine import ChaosEngine
from somaresil.chaos.findings import Grade
from somaresil.chaos.grading import Grader
from somaresil.chaos.latency import Constant, Empirical, LogNormal, Pareto, Percentiles, Uniform
from somaresil.chaos.plan import ChaosPlan, FaultWindow, PlanRun
from somaresil.chaos.run import ExperimentRun
from somaresil.chaos.token import ChaosKeys, Lower, RequestPlan

__all__ = [
    "AuditEntry",
    "BreakerOpen",
    "BudgetBelow",
    "BurnRateAbove",
    "ChaosBudgetSpent",
    "ChaosCeilings",
    "ChaosConfig",
    "ChaosEngine",
    "ChaosExperiment",
    "ChaosKeys",
    "ChaosPlan",
    "Condition",
    "Constant",
    "Empirical",
    "ExperimentRun",
    "FaultWindow",
    "Grade",
    "Grader",
    "LogNormal",
    "Lower",
    "Pareto",
    "Percentiles",
    "PlanRun",
    "RequestPlan",
    "StopCondition",
    "Uniform",
    "acting",
    "scope",
]
