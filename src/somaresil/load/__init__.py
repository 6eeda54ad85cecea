"""Open-loop load: requests that begin when they were meant to, figures that hide nothing, and a judgement.

::

    from somaresil.load import read_scenario, run_scenario

    report = await run_scenario(read_scenario("scenario.toml"))
    assert report.exit_code == 0, report.to_text()

Needs ``pip install "somaresil[load]"``; ``python -m somaresil load`` is the same as a command.
"""

from __future__ import annotations

from somaresil.load.arrivals import Stage, arrivals
from somaresil.load.books import Book, Books, Ending
from somaresil.load.capacity import Capacity, Probe, find_capacity, scenario_capacity
from somaresil.load.generator import Generator, Order, Point, Run
from somaresil.load.http import HttpCaller, Payload, Target
from somaresil.load.orders import Request, Upload
from somaresil.load.presets import PRESETS, Preset
from somaresil.load.report import LoadReport
from somaresil.load.scenario import Scenario, read_scenario
from somaresil.load.session import Session, run_scenario
from somaresil.load.thresholds import Answer, Check, Threshold, judge_all

__all__ = [
    "PRESETS",
    "Answer",
    "Book",
    "Books",
    "Capacity",
    "Check",
    "Ending",
    "Generator",
    "HttpCaller",
    "LoadReport",
    "Order",
    "Payload",
    "Point",
    "Preset",
    "Probe",
    "Request",
    "Run",
    "Scenario",
    "Session",
    "Stage",
    "Target",
    "Threshold",
    "Upload",
    "arrivals",
    "find_capacity",
    "judge_all",
    "read_scenario",
    "run_scenario",
    "scenario_capacity",
]
