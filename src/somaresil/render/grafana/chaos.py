"""The board of experiments: what runs, whom it strikes, how much of it the service absorbs, and how to stop it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.render.grafana.build import (
    BAD,
    DIMMED,
    ENVIRONMENT,
    GOOD,
    NOTED,
    WARNED,
    Board,
    Column,
    Query,
    board_link,
    number,
    states,
    steps,
    table,
    trend,
)
from somaresil.render.grafana.common import (
    ALERTS,
    BOARDS,
    BREAKER_WORDS,
    DEPLOYMENTS,
    ENVIRONMENTS,
    EXPERIMENTS,
    GUARDS,
    SERVICE,
    breaker_state,
    mean,
    quantile,
    share,
)

if TYPE_CHECKING:
    from somaresil.render.options import RenderOptions

__all__ = ["chaos"]

_GUARD: Final = f'{ENVIRONMENT},guard=~"$guard"'
_RATE: Final = "[$__rate_interval]"
_NOTHING: Final = "no experiment has struck anything in this time"


def chaos(options: RenderOptions) -> Board:
    """Experiments, whether the service absorbs them, and whether they reach what they should not."""
    board = Board(
        BOARDS["chaos"],
        "somaresil / Chaos",
        "Experiments: what runs, whom it strikes, and what the service makes of it. To stop everything: `somaresil chaos stop`.",
        variables=(SERVICE, ENVIRONMENTS, GUARDS),
        annotations=(EXPERIMENTS, DEPLOYMENTS, ALERTS),
    )
    _now(board, options)
    _strikes(board)
    _effect(board)
    _process(board)
    return board


def _now(board: Board, options: RenderOptions) -> None:
    board.row("Now")
    board.add(
        number(
            "Experiments that run",
            "Experiments in any process. What looks wrong on other boards may be made by them.",
            Query(f"sum(somaresil_experiments{{{ENVIRONMENT}}}) or vector(0)"),
            unit="none",
            none="0",
            colours=steps((None, DIMMED), (1, WARNED)),
        ),
        5,
        4,
    )
    board.add(
        number(
            "May start",
            "Processes in which an experiment may be started now. 0: none was allowed to, or the kill switch or its lever says no.",
            Query(f"sum(somaresil_chaos_allowed{{{ENVIRONMENT}}}) or vector(0)"),
            unit="none",
            none="no process has opted in",
            colours=steps((None, DIMMED), (1, NOTED)),
        ),
        5,
        4,
    )
    board.add(
        number(
            "Kill switch",
            f"Engaged: nothing runs and nothing starts until it is released. {options.runbook('chaos-engaged')}",
            Query(_switch()),
            unit="none",
            none="no process tells of it",
            words={
                "0": ("there is none", WARNED),
                "1": ("released", GOOD),
                "2": ("unreadable", BAD),
                "3": ("engaged", BAD),
            },
        ),
        5,
        4,
    )
    board.add(
        number(
            "Struck a second",
            "Calls that experiments strike, of all kinds.",
            Query(f"sum(rate(somaresil_faults_injected_total{{{ENVIRONMENT}}}{_RATE})) or vector(0)"),
            unit="ops",
            none=_NOTHING,
            colours=steps((None, DIMMED), (0.000001, WARNED)),
            decimals=2,
        ),
        5,
        4,
    )
    board.add(
        number(
            "Absorbed",
            "Share of the calls that were touched and ended well all the same: what retries, fallbacks and hedges are good for.",
            Query(_absorbed("")),
            unit="percentunit",
            none=_NOTHING,
            colours=steps((None, BAD), (0.5, WARNED), (0.9, GOOD)),
        ),
        4,
        4,
    )
    board.add(
        states(
            "Experiments",
            "When which experiment ran. One that is there and should not be: `somaresil chaos stop`, then ask who has started it.",
            Query(f"sum by (component, fault) (somaresil_experiments{{{ENVIRONMENT}}})", "{{fault}} on {{component}}"),
            words={"0": ("over", "gray"), "1": ("runs", "orange"), "2": ("two run", "red")},
            none="no experiment ran in this time",
        ),
        12,
    )
    board.add(
        trend(
            "Ended, by why",
            "`expired`: its time was over. `condition`: it was stopped because something else got worse, which is a finding. "
            "`stop_all`, `safety_lever`: somebody has stopped everything.",
            Query(f"sum by (reason) (increase(somaresil_experiments_ended_total{{{ENVIRONMENT}}}{_RATE}))", "{{reason}}"),
            unit="none",
            none="none has ended in this time",
            stacked=True,
        ),
        12,
    )


def _switch() -> str:
    """The worst that any process reads, as a number."""
    state = f"somaresil_kill_switch{{{ENVIRONMENT},state="
    # The worst first: a lever that one process reads as engaged is engaged, whatever the others have read a moment ago.
    order = ("none", "released", "unreadable", "engaged")
    return "max(" + " or ".join(f'({state}"{name}"}} > 0) * 0 + {place}' for place, name in enumerate(order)) + ")"


def _absorbed(by: str) -> str:
    together = f"sum by ({by})" if by else "sum"
    touched = f'somaresil_calls_total{{{_GUARD},injected="true"'
    return share(f'{together} (rate({touched},outcome="good"}}{_RATE}))', f"{together} (rate({touched}}}{_RATE}))")


def _strikes(board: Board) -> None:
    board.row("Whom it strikes")
    board.add(
        trend(
            "Struck, by kind and component",
            "What experiments do. Something that is struck and is not in the plan: stop it.",
            Query(
                f"sum by (component, fault) (rate(somaresil_faults_injected_total{{{ENVIRONMENT}}}{_RATE}))", "{{fault}} on {{component}}"
            ),
            unit="ops",
            none=_NOTHING,
            stacked=True,
        ),
        8,
    )
    board.add(
        trend(
            "Spared",
            "`withheld`: what dry runs would have struck. `overflow`: what passed because too many calls were held up already.",
            Query(f"sum by (component) (rate(somaresil_faults_withheld_total{{{ENVIRONMENT}}}{_RATE}))", "withheld on {{component}}"),
            Query(f"sum by (component) (rate(somaresil_faults_overflow_total{{{ENVIRONMENT}}}{_RATE}))", "overflow on {{component}}"),
            unit="ops",
            none="no dry run, and nothing was too much",
        ),
        8,
    )
    board.add(
        trend(
            "Requests with plans",
            "Plans that requests bring with them: accepted, or ignored and why. Many that are ignored: somebody tries something.",
            Query(f"sum by (result) (rate(somaresil_request_plans_total{{{ENVIRONMENT}}}{_RATE}))", "{{result}}"),
            unit="ops",
            none="no request has brought a plan",
        ),
        8,
    )


def _effect(board: Board) -> None:
    board.row("What the service makes of it")
    untouched = f'somaresil_calls_total{{{_GUARD},injected="false"'
    board.add(
        trend(
            "Absorbed, by guard",
            "Share of the touched calls of a guard that ended well. Low where a fallback should have answered: look at the fallback.",
            Query(_absorbed("guard"), "{{guard}}"),
            unit="percentunit",
            none=_NOTHING,
            at_most=1,
        ),
        8,
    )
    board.add(
        trend(
            "Bad calls that were not touched",
            "Bad calls that no experiment has touched. It rises with an experiment: its blast radius is larger than planned.",
            Query(
                share(
                    f'sum by (guard) (rate({untouched},outcome="bad"}}{_RATE}))',
                    f'sum by (guard) (rate({untouched},outcome=~"good|bad"}}{_RATE}))',
                ),
                "{{guard}}",
            ),
            unit="percentunit",
            none="no calls in this time",
            links=(board_link("This guard", BOARDS["services"], "guard"),),
        ),
        8,
    )
    board.add(
        trend(
            "Latency p95",
            "How slow everything is meanwhile, touched or not.",
            Query(quantile(0.95, "somaresil_call_duration_seconds", _GUARD, "guard"), "{{guard}}", exemplars=True),
            unit="s",
            none="no calls in this time",
        ),
        8,
    )
    board.add(
        states(
            "Circuits",
            "Whether breakers open when they should, and close again when it is over.",
            Query(breaker_state(_GUARD), "{{guard}}"),
            words=BREAKER_WORDS,
            none="no guard has a breaker",
        ),
        12,
    )
    board.add(
        table(
            "Recovery",
            "Incidents of guards that are over in the time that is shown. Within five minutes is what recovery drills ask for.",
            {"guard": "Guard"},
            Column(
                "Incidents",
                f'sum by (guard) (increase(somaresil_recovery_seconds_count{{{_GUARD},guard!=""}}[$__range]))',
                "none",
                decimals=0,
            ),
            Column("Until noticed", mean("somaresil_detection_seconds", f'{_GUARD},guard!=""', "guard"), "s"),
            Column("Until mitigated", mean("somaresil_mitigation_seconds", f'{_GUARD},guard!=""', "guard"), "s"),
            Column(
                "Until over (MTTR)", mean("somaresil_recovery_seconds", f'{_GUARD},guard!=""', "guard"), "s", ((None, GOOD), (300.0, BAD))
            ),
            Column("Between two", mean("somaresil_between_incidents_seconds", f'{_GUARD},guard!=""', "guard"), "s"),
            sort="Until over (MTTR)",
            falling=True,
            none="no incident is over in this time",
        ),
        12,
    )


def _process(board: Board) -> None:
    board.row("Faults of processes")
    board.add(
        trend(
            "There now",
            "Resources that are taken, and partitions. What does not go back to 0 was not given back: restart that process.",
            Query(f"sum by (component, fault) (somaresil_process_faults{{{ENVIRONMENT}}})", "{{fault}} on {{component}}"),
            unit="none",
            none="no experiment takes a resource or parts a network",
        ),
        8,
    )
    board.add(
        trend(
            "Held",
            "How much of a resource experiments hold, in its own unit.",
            Query(f"sum by (resource, unit) (somaresil_resource_held{{{ENVIRONMENT}}})", "{{resource}}, {{unit}}"),
            unit="short",
            none="no experiment holds a resource",
        ),
        8,
    )
    board.add(
        trend(
            "Measured",
            "What holding it does, as far as it can be measured, while it lasts.",
            Query(f"max by (resource, measure) (somaresil_resource_effect{{{ENVIRONMENT}}})", "{{resource}}, {{measure}}"),
            unit="short",
            none="no experiment holds a resource",
        ),
        8,
    )
    board.add(
        table(
            "Given back",
            "Faults of processes that are over in the time that is shown, by why.",
            {"component": "Component", "fault": "Fault", "reason": "Why"},
            Column(
                "Times",
                f"sum by (component, fault, reason) (increase(somaresil_process_faults_released_total{{{ENVIRONMENT}}}[$__range]))",
                "none",
                decimals=0,
            ),
            sort="Times",
            falling=True,
            none="none in this time",
        ),
        24,
        6,
    )
