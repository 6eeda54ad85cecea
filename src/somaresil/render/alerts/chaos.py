"""Experiments: where and when there should be none, and what stops them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.render.alerts.model import Alert, History

if TYPE_CHECKING:
    from somaresil.render.series import Series

__all__ = ["CHAOS", "NOT_YET", "PRODUCTION"]

_SAYS_SO: Final = "(production|prod|prd|live)([^a-z].*)?"
PRODUCTION: Final = f"(?i)(.*[^a-z])?{_SAYS_SO}"
"""Names of environments that the permission of experiments takes for production: one part of it says so ..."""
NOT_YET: Final = f"(?i)(.*[^a-z])?(pre|non|not)[^a-z]+{_SAYS_SO}"
"""... and the part before does not take it back."""
_SWITCH: Final = 'somaresil_kill_switch{state="%s"}'
_RUNNING: Final = 'somaresil_experiments{component="llm.invoke",fault="latency"}'
_FAULTS: Final = 'somaresil_faults_injected_total{component="llm.invoke",fault="latency"}'
_STRUCK: Final = {"component": "llm.invoke", "fault": "latency"}
_WORKERS: Final = 'somaresil_workers{service_name="gateway",deployment_environment="%s"}'


def _out_of_hours(series: Series) -> str:
    hours = "hour() < 7 or hour() >= 17 or day_of_week() == 0 or day_of_week() == 6"
    return f"sum({series('somaresil_experiments')}) > 0\nand on () ({hours})"


def _no_switch(series: Series) -> str:
    unread = series("somaresil_kill_switch", 'state=~"none|unreadable"')
    return f"sum({series('somaresil_experiments')}) > 0\nand on () sum({unread}) > 0"


def _engaged(series: Series) -> str:
    engaged = series("somaresil_kill_switch", 'state="engaged"')
    return f"sum({engaged}) > 0"


def _in_production(series: Series) -> str:
    by = "component, fault"
    running = f"(sum by ({by}) ({series('somaresil_experiments')}) > 0)"
    struck = series.appeared("somaresil_faults_injected_total", by, "5m")
    there = series("somaresil_workers", f'deployment_environment=~"{PRODUCTION}"', f'deployment_environment!~"{NOT_YET}"')
    return f"({running}\nor\n{struck})\nand on () sum({there}) > 0"


CHAOS: Final = (
    Alert(
        name="ExperimentOutOfHours",
        about="an experiment runs outside of 07:00 to 17:00 UTC on working days",
        severity="ticket",
        summary="A chaos experiment runs while nobody is at work",
        description="{{ $value }} experiments run outside of 07:00 to 17:00 UTC on working days.",
        condition=_out_of_hours,
        board="chaos",
        fires=History("at three in the morning", {_RUNNING: "0x17 1x3"}, "190m", {}, "1", "10m"),
        silent=(
            History("on a Thursday at noon", {_RUNNING: "1x73"}, "720m", step="10m"),
            History("nothing runs at night", {_RUNNING: "0x20"}, "190m", step="10m"),
        ),
    ),
    Alert(
        name="ExperimentWithoutKillSwitch",
        about="an experiment runs, and some worker has no kill switch or cannot read it",
        severity="ticket",
        summary="A chaos experiment runs that no kill switch would stop",
        description="{{ $value }} experiments run, and at least one worker has no kill switch or cannot read it.",
        condition=_no_switch,
        lasts="1m",
        board="chaos",
        fires=History(
            "one of two workers has none", {_RUNNING: "1x30", _SWITCH % "none": "1x30", _SWITCH % "released": "1x30"}, "10m", {}, "1"
        ),
        silent=(
            History("both read it", {_RUNNING: "1x30", _SWITCH % "none": "0x30", _SWITCH % "released": "2x30"}, "10m"),
            History("nothing runs", {_RUNNING: "0x30", _SWITCH % "unreadable": "2x30"}, "10m"),
        ),
    ),
    Alert(
        name="ChaosEngaged",
        about="the safety lever has been engaged for half an hour",
        severity="ticket",
        summary="The safety lever of chaos experiments is engaged",
        description="{{ $value }} workers have read for half an hour that everything is stopped: no experiment or drill can start.",
        condition=_engaged,
        lasts="30m",
        board="chaos",
        fires=History("it was forgotten", {_SWITCH % "engaged": "0 2x60"}, "45m", {}, "2"),
        silent=(History("it is released after a quarter of an hour", {_SWITCH % "engaged": "0 2x14 0x60"}, "45m"),),
    ),
    Alert(
        name="FaultsInProduction",
        about="an experiment runs or strikes where the environment is called production",
        severity="page",
        summary="Faults are injected in production",
        description="An experiment strikes {{ $labels.component }} with {{ $labels.fault }} in what says that it is production.",
        condition=_in_production,
        board="chaos",
        fires=History("an experiment was armed", {_RUNNING: "0x5 1x10", _WORKERS % "prod-eu-1": "2x20"}, "8m", _STRUCK),
        silent=(
            History("it is staging", {_RUNNING: "0x5 1x10", _FAULTS: "_x5 1x10", _WORKERS % "staging": "2x20"}, "8m"),
            History("it is what comes before", {_RUNNING: "0x5 1x10", _WORKERS % "pre-prod": "2x20"}, "8m"),
            History("it was over long ago", {_FAULTS: "0 5x30", _WORKERS % "production": "2x40"}, "20m"),
        ),
    ),
)
