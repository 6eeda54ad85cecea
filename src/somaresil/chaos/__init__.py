"""Chaos engineering in process: faults as leases, inside a declared blast radius, off until somebody opts in twice."""

from somaresil.callpath import scope
from somaresil.chaos.config import ChaosCeilings, ChaosConfig, ChaosExperiment
from somaresil.chaos.engine import ChaosEngine
from somaresil.chaos.plan import ChaosPlan, FaultWindow, PlanRun
from somaresil.chaos.run import ExperimentRun

__all__ = [
    "ChaosCeilings",
    "ChaosConfig",
    "ChaosEngine",
    "ChaosExperiment",
    "ChaosPlan",
    "ExperimentRun",
    "FaultWindow",
    "PlanRun",
    "scope",
]
