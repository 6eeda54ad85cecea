"""The board of canaries: how far a new version has come, what speaks against it, and what was decided."""

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
    Variable,
    bars,
    number,
    steps,
    table,
    trend,
)
from somaresil.render.grafana.common import (
    ALERTS,
    BOARDS,
    CANARIES,
    DEPLOYED_VERSIONS,
    DEPLOYMENTS,
    ENVIRONMENTS,
    EXPERIMENTS,
    SERVICE,
    quantile,
    share,
)

if TYPE_CHECKING:
    from somaresil.render.options import RenderOptions

__all__ = ["canary"]

_CANARIES: Final = Variable("canary", "Canary", f"label_values(somaresil_canary_weight_ratio{{{ENVIRONMENT}}}, canary)", "Which canaries.")
_OWN: Final = f'{ENVIRONMENT},canary=~"$canary"'
_SIDES: Final = f'{ENVIRONMENT},guard=~"($canary)([.]candidate)?"'
"""The guards of both sides of a canary that decorates a function."""
_RATE: Final = "[$__rate_interval]"
_NONE: Final = "no canary in this time"
_AGAINST: Final = f'{_OWN},against=~"worse|objective"'
_ENOUGH: Final = ((None, GOOD), (0.5, WARNED), (1.0, BAD))


def canary(options: RenderOptions) -> Board:
    """Weight, evidence against its threshold, both sides beside one another, and every move."""
    board = Board(
        BOARDS["canary"],
        "somaresil / Canary",
        "New versions beside old ones: how much traffic they get, what speaks against them, and what was decided.",
        variables=(SERVICE, ENVIRONMENTS, _CANARIES),
        annotations=(CANARIES, DEPLOYMENTS, DEPLOYED_VERSIONS, EXPERIMENTS, ALERTS),
    )
    _now(board, options)
    _evidence(board)
    _sides(board)
    return board


def _events(by: str, **labels: str) -> str:
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f"sum by ({by}) (rate(somaresil_canary_events_total{{{_OWN}{more}}}{_RATE}))"


def _of_enough(against: str) -> str:
    """Evidence as a share of what is enough, on the scale of its logarithm: 0 is none, 1 decides."""
    evidence = f"max by (canary, against) (somaresil_canary_evidence{{{against}}})"
    enough = f"max by (canary, against) (somaresil_canary_evidence_threshold{{{against}}})"
    return f"clamp_min(ln({evidence}), 0) / ln({enough})"


def _now(board: Board, options: RenderOptions) -> None:
    board.row("Now")
    board.add(
        number(
            "Traffic of the candidate",
            "The largest share of the traffic that any candidate gets. 0 after a rollback, 100 % when it is complete.",
            Query(f"max(somaresil_canary_weight_ratio{{{_OWN}}})"),
            unit="percentunit",
            none=_NONE,
            colours=steps((None, DIMMED), (0.000001, NOTED)),
        ),
        6,
        4,
    )
    board.add(
        number(
            "Nearest to a rollback",
            "The strongest evidence against any candidate: at 100 % it is taken back by itself; nobody needs to do anything.",
            Query(f"max({_of_enough(_AGAINST)})"),
            unit="percentunit",
            none=_NONE,
            colours=steps(*_ENOUGH),
        ),
        6,
        4,
    )
    board.add(
        number(
            "Rollbacks",
            f"In the time that is shown. Not 0: {options.runbook('canary-rolled-back')}",
            Query(f'sum(increase(somaresil_canary_moves_total{{{_OWN},step="rollback"}}[$__range]))', now=True),
            unit="none",
            none=_NONE,
            colours=steps((None, GOOD), (0.5, BAD)),
            decimals=0,
        ),
        6,
        4,
    )
    board.add(
        number(
            "Completed",
            "Versions that got all of the traffic in the time that is shown.",
            Query(f'sum(increase(somaresil_canary_moves_total{{{_OWN},step="complete"}}[$__range]))', now=True),
            unit="none",
            none=_NONE,
            colours=steps((None, DIMMED), (0.5, GOOD)),
            decimals=0,
        ),
        6,
        4,
    )
    board.add(
        trend(
            "Traffic of the candidate over time",
            "The share that it was given; each step is a phase. A long plateau: not enough events to decide, or it was paused.",
            Query(f"max by (canary) (somaresil_canary_weight_ratio{{{_OWN}}})", "{{canary}}"),
            unit="percentunit",
            none=_NONE,
            at_most=1,
        ),
        12,
    )
    board.add(
        table(
            "Canaries",
            "A row for each canary. `paused` and why it does not move are in the answer of `somaresil canary status`.",
            {"canary": "Canary"},
            Column("Traffic", f"max by (canary) (somaresil_canary_weight_ratio{{{_OWN}}})", "percentunit", decimals=1),
            Column("Promoted", _moves("promote"), "none", decimals=0),
            Column("Completed", _moves("complete"), "none", decimals=0),
            Column("Rolled back", _moves("rollback"), "none", ((None, DIMMED), (0.5, BAD)), 0),
            Column("Towards a rollback", f"max by (canary) ({_of_enough(_AGAINST)})", "percentunit", _ENOUGH, 0),
            sort="Traffic",
            falling=True,
            none=_NONE,
        ),
        12,
    )


def _moves(step: str) -> str:
    return f'sum by (canary) (somaresil_canary_moves_total{{{_OWN},step="{step}"}})'


def _evidence(board: Board) -> None:
    board.row("Evidence")
    board.add(
        trend(
            "Evidence",
            "E-values, on a logarithmic scale; 1 is none. `worse` and `objective` speak against the candidate, `not_much_worse` for it.",
            Query(f"max by (canary, against) (somaresil_canary_evidence{{{_OWN}}})", "{{canary}} {{against}}"),
            Query(f"max by (canary, against) (somaresil_canary_evidence_threshold{{{_OWN}}})", "{{canary}} {{against}}: enough"),
            unit="none",
            none=_NONE,
            logarithmic=True,
        ),
        14,
    )
    board.add(
        bars(
            "Evidence, of what is enough",
            "100 % decides. Against the candidate it is taken back then; for it, it may go on when its time and events are enough too.",
            Query(_of_enough(_OWN), "{{canary}} {{against}}", now=True),
            unit="percentunit",
            colours=steps((None, NOTED), (1.0, WARNED)),
            none=_NONE,
            at_most=1,
        ),
        10,
    )


def _sides(board: Board) -> None:
    board.row("Both sides")
    board.add(
        trend(
            "Bad events of both sides",
            "Share of bad events of the version in question. Both rise: it is not the version. The candidate alone: it is.",
            Query(share(_events("canary, side", outcome="bad"), _events("canary, side")), "{{canary}} {{side}}"),
            unit="percentunit",
            none=_NONE,
        ),
        8,
    )
    board.add(
        trend(
            "Events of both sides",
            "How many events each side has. Few of the candidate: its evidence grows slowly.",
            Query(_events("canary, side"), "{{canary}} {{side}}"),
            unit="eps",
            none=_NONE,
        ),
        8,
    )
    board.add(
        trend(
            "Share that the candidate really gets",
            "Its events, of all. Not what it was given: the router does not do as it is told, or one side fails before it is counted.",
            Query(share(_events("canary", side="candidate"), _events("canary")), "{{canary}} gets"),
            Query(f"max by (canary) (somaresil_canary_weight_ratio{{{_OWN}}})", "{{canary}} was given"),
            unit="percentunit",
            none=_NONE,
            at_most=1,
        ),
        8,
    )
    board.add(
        trend(
            "Latency p95 of both sides",
            "Of canaries that decorate a function: the candidate has a guard of its own. It alone is slow: it is the version.",
            Query(quantile(0.95, "somaresil_call_duration_seconds", _SIDES, "guard"), "{{guard}}", exemplars=True),
            unit="s",
            none="no canary that decorates a function was called in this time",
        ),
        12,
    )
    board.add(
        trend(
            "Moves",
            "What was decided, and when: `promote` to the next phase, `complete`, or `rollback`.",
            Query(f"sum by (canary, step) (increase(somaresil_canary_moves_total{{{_OWN}}}{_RATE}))", "{{canary}} {{step}}"),
            unit="none",
            none=_NONE,
            stacked=True,
        ),
        12,
    )
