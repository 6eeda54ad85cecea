"""The board of objectives: what was promised, how much of the budget is left, how fast it burns, and what that has to do with users."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.model import slo as model
from somaresil.render.grafana.build import (
    BAD,
    DIMMED,
    ENVIRONMENT,
    GOOD,
    WARNED,
    Board,
    Column,
    Query,
    Variable,
    bars,
    board_link,
    note,
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
    mean,
    share,
)
from somaresil.slo.rules.text import duration

if TYPE_CHECKING:
    from somaresil.render.options import RenderOptions

__all__ = ["slos"]

_SLOS: Final = Variable(
    "slo", "Objective", f"label_values(somaresil_sli_events_total{{{ENVIRONMENT}}}, slo)", "Which objectives; all: each in a row."
)
_OWN: Final = '{service=~"$service",slo=~"$slo"}'
"""What is recorded of objectives is of a service, whatever the environment."""
_SCRAPED: Final = f'{ENVIRONMENT},slo=~"$slo"'
_RATE: Final = "[$__rate_interval]"
_UNRECORDED: Final = "the recording rules of objectives are not loaded, or nothing was counted yet"
_LEFT: Final = ((None, BAD), (0.000001, WARNED), (0.25, GOOD))
_BURN: Final = ((None, GOOD), (1.0, WARNED), (6.0, BAD))
_WINDOWS: Final = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
"""Those of the policies; which of them are recorded is up to the policy of an objective."""


def slos(options: RenderOptions) -> Board:
    """Budgets of all objectives, the emptiest first, and what each of them is used up by."""
    board = Board(
        BOARDS["slos"],
        "somaresil / SLOs",
        "What was promised to users, and how much of what may go wrong is left. Start at the top row of the table.",
        variables=(SERVICE, ENVIRONMENTS, _SLOS),
        annotations=(DEPLOYMENTS, DEPLOYED_VERSIONS, EXPERIMENTS, CANARIES, ALERTS),
    )
    _list(board, options)
    _burn(board, options)
    _events(board)
    _incidents(board)
    return board


def _burning(window: str) -> str:
    """How many times faster than it may a budget is used up."""
    return f"max by (slo) (slo:sli_error:ratio_rate{window}{_OWN} / on (slo, service) slo:error_budget:ratio{_OWN})"


def _list(board: Board, options: RenderOptions) -> None:
    board.row("All objectives")
    left = f"max by (slo) (slo:period_error_budget_remaining:ratio{_OWN})"
    board.add(
        number(
            "Emptiest budget",
            "The least that is left of any budget. Below 0 it is overdrawn: what the policy says about releases holds now.",
            Query(f"min({left})"),
            unit="percentunit",
            none=_UNRECORDED,
            colours=steps(*_LEFT),
            decimals=1,
        ),
        6,
        4,
    )
    board.add(
        number(
            "Fastest burn",
            "The largest burn rate now: 1 uses the budget up at the end of its period, 14.4 uses 2 % of 30 days in an hour.",
            Query(f"max(slo:current_burn_rate:ratio{_OWN})"),
            unit="none",
            none=_UNRECORDED,
            colours=steps(*_BURN),
            decimals=2,
        ),
        6,
        4,
    )
    board.add(
        number(
            "Alerts that fire",
            f"Alerts about these objectives. Not 0: {options.runbook('error-budget-burn-page')}",
            Query('count(ALERTS{alertstate="firing",service=~"$service",slo=~"$slo"}) or vector(0)'),
            unit="none",
            none="0",
            colours=steps((None, GOOD), (1, BAD)),
        ),
        6,
        4,
    )
    board.add(
        number(
            "Soonest exhausted",
            "When the first budget is used up at the pace of the last hour, or six. Less than a day: stop what uses it up, releases first.",
            Query(f"min({_exhausted()})"),
            unit="s",
            none="nothing was used up lately, or nothing is left",
            colours=steps((None, BAD), (86_400, WARNED), (604_800, GOOD)),
        ),
        6,
        4,
    )
    budget = f"slo:error_budget:ratio{_OWN}"
    board.add(
        table(
            "Objectives",
            "A row for each objective, the one with the least left first. Click its name to see it alone.",
            {"slo": "Objective"},
            Column("Promised", f"max by (slo) (slo:objective:ratio{_OWN})", "percentunit", decimals=3),
            Column(
                "Kept in the period",
                f"max by (slo) (1 - slo:period_burn_rate:ratio{_OWN} * on (slo, service) {budget})",
                "percentunit",
                decimals=3,
            ),
            Column("Budget left", left, "percentunit", _LEFT, 1),
            Column("Burn now", f"max by (slo) (slo:current_burn_rate:ratio{_OWN})", "none", _BURN, 2),
            Column("Burn, 1 h", _burning("1h"), "none", _BURN, 2),
            Column("Burn, 6 h", _burning("6h"), "none", _BURN, 2),
            Column("Burn, 3 d", _burning("3d"), "none", ((None, GOOD), (1.0, BAD)), 2),
            Column("Used up in", _exhausted(), "s", ((None, BAD), (86_400, WARNED), (604_800, GOOD))),
            sort="Budget left",
            none=_UNRECORDED,
            links={
                "slo": (
                    {
                        "targetBlank": False,
                        "title": "This objective alone",
                        "url": f"/d/{BOARDS['slos']}?${{__url_time_range}}&var-service=${{service}}&var-slo=${{__value.text}}",
                    },
                )
            },
        ),
        24,
        9,
    )


def _exhausted() -> str:
    """Seconds until nothing is left, at the pace of the last hour; nothing where nothing burns.

    Policies that are only about slow burns record no hour, and every one of the usual ones records six.
    """
    period = f"slo:time_period:days{_OWN} * 86400"
    left = f"(slo:period_error_budget_remaining:ratio{_OWN} > 0)"
    burn = f"((slo:sli_error:ratio_rate1h{_OWN} or slo:sli_error:ratio_rate6h{_OWN}) > 0)"
    return f"max by (slo) ({left} * on (slo, service) {period} * on (slo, service) slo:error_budget:ratio{_OWN} / on (slo, service) {burn})"


def _burn(board: Board, options: RenderOptions) -> None:
    board.row("Burn and budget")
    board.add(
        bars(
            "Burn by window",
            "How fast the budget is used up, seen over each window. A long bar in short windows only: it has just begun, or is just over.",
            *(Query(_burning(window), f"{{{{slo}}}} {window}", now=True) for window in _WINDOWS),
            unit="none",
            colours=steps(*_BURN),
            none=_UNRECORDED,
        ),
        12,
        10,
    )
    board.add(
        trend(
            "Burn over time",
            "An alert needs both a long and a short window above its threshold; the thresholds of each objective stand below.",
            Query(_burning("5m"), "{{slo}} 5m"),
            Query(_burning("1h"), "{{slo}} 1h"),
            Query(_burning("6h"), "{{slo}} 6h"),
            Query(_burning("3d"), "{{slo}} 3d"),
            unit="none",
            none=_UNRECORDED,
            lines=steps((None, GOOD), (1.0, WARNED), (6.0, BAD)),
        ),
        12,
        10,
    )
    board.add(
        trend(
            "Budget left",
            "What is left of the budget of the period that ends now. It rises when bad hours leave the period, not because all is well.",
            Query(f"max by (slo) (slo:period_error_budget_remaining:ratio{_OWN})", "{{slo}}"),
            unit="percentunit",
            none=_UNRECORDED,
            at_most=1,
            lines=steps((None, BAD), (0.25, GOOD)),
        ),
        12,
    )
    board.add(note("When alerts fire", _thresholds(options)), 12)


def _thresholds(options: RenderOptions) -> str:
    """The conditions of each objective that was given, for people."""
    if not options.slos:
        return "Render this board with the file of objectives (`--slo`) to see here at which burn rates each of them alerts."
    lines = ["| objective | severity | windows | fires above a burn of |", "|---|---|---|---|"]
    for slo in options.slos:
        for window in slo.burn_policy.windows:
            above = model.error_limit(window, slo.period, slo.target_percentage) / model.budget_ratio(slo.target_percentage)
            lines.append(f"| {slo.name} | {window.severity} | {duration(window.long)} and {duration(window.short)} | {float(above):.4g} |")
    return "\n".join(lines)


def _events(board: Board) -> None:
    board.row("What uses it up")
    board.add(
        trend(
            "Events",
            "What the objective counts. Far fewer than usual: its ratio says little, and a single bad event a lot.",
            Query(f"sum by (slo, outcome) (rate(somaresil_sli_events_total{{{_SCRAPED}}}{_RATE}))", "{{slo}} {{outcome}}"),
            unit="eps",
            none="no events in this time",
            stacked=True,
        ),
        8,
    )
    board.add(
        trend(
            "Bad events",
            "Share of bad events, as they come. Compare with the annotations: a deployment, an experiment, a canary.",
            Query(
                share(
                    f'sum by (slo) (rate(somaresil_sli_events_total{{{_SCRAPED},outcome="bad"}}{_RATE}))',
                    f"sum by (slo) (rate(somaresil_sli_events_total{{{_SCRAPED}}}{_RATE}))",
                ),
                "{{slo}}",
            ),
            unit="percentunit",
            none="no events in this time",
        ),
        8,
    )
    board.add(
        trend(
            "Bad events by group",
            "Objectives with `group_by`: whose events are bad. One group alone: a tenant or a route, not the service.",
            Query(f'sum by (slo, group) (rate(somaresil_sli_group_events_total{{{_SCRAPED},outcome="bad"}}{_RATE}))', "{{slo}} {{group}}"),
            unit="eps",
            none="no objective has groups, or none had a bad event",
        ),
        8,
    )
    board.add(
        trend(
            "Events that experiments touched",
            "Made on purpose. Whether they count for the budget is up to the objective.",
            Query(f"sum by (slo, outcome) (rate(somaresil_sli_injected_events_total{{{_SCRAPED}}}{_RATE}))", "{{slo}} {{outcome}}"),
            unit="eps",
            none="no experiment has touched an event",
            links=(board_link("Chaos", BOARDS["chaos"]),),
        ),
        8,
    )
    board.add(
        table(
            "Composites, experiments, the period before",
            "Weights of the parts of composites, what experiments may spoil, and what the calendar period before this one has used.",
            {"slo": "Objective", "part": "Part"},
            Column("Weight", f"max by (slo, part) (somaresil_slo_part_weight{{{_SCRAPED}}})", "none"),
            Column("For experiments", f"max by (slo) (somaresil_slo_chaos_budget_ratio{{{_SCRAPED}}})", "percentunit", decimals=3),
            Column(
                "Used before",
                f"max by (slo) (somaresil_slo_previous_error_budget_consumed_ratio{{{_SCRAPED}}})",
                "percentunit",
                ((None, GOOD), (1.0, BAD)),
                1,
            ),
            sort="Objective",
            none="no objective has parts, a budget for experiments, or a calendar period that is over",
        ),
        8,
    )
    board.add(
        trend(
            "Slices of time",
            "Objectives that count slices: good and bad ones. Slices without traffic are neither.",
            Query(f"sum by (slo, outcome) (rate(somaresil_sli_slices_total{{{_SCRAPED}}}{_RATE}))", "{{slo}} {{outcome}}"),
            unit="eps",
            none="no objective counts slices of time",
        ),
        8,
    )


def _incidents(board: Board) -> None:
    board.row("Incidents")
    about = f'{_SCRAPED},slo!=""'
    whole = f"sum by (slo) (increase(somaresil_recovery_seconds_count{{{about}}}[$__range]))"
    board.add(
        table(
            "Incidents of objectives",
            "Those that are over in the time that is shown: how many, and how long each stage took in the mean, from the first bad event.",
            {"slo": "Objective"},
            Column("Incidents", whole, "none", decimals=0),
            Column("Until noticed", mean("somaresil_detection_seconds", about, "slo"), "s"),
            Column("Until mitigated", mean("somaresil_mitigation_seconds", about, "slo"), "s"),
            Column("Until over", mean("somaresil_recovery_seconds", about, "slo"), "s", ((None, GOOD), (300.0, BAD))),
            Column("Between two", mean("somaresil_between_incidents_seconds", about, "slo"), "s"),
            sort="Until over",
            falling=True,
            none="no incident is over in this time",
        ),
        14,
    )
    board.add(
        table(
            "Alerts",
            "What fires now. Its name in the runbooks says what to look at first.",
            {"alertname": "Alert", "severity": "Severity", "slo": "Objective", "group": "Group"},
            Column(
                "Fires",
                'max by (alertname, severity, slo, group) (ALERTS{alertstate="firing",service=~"$service",slo=~"$slo"})',
                "none",
                ((None, DIMMED), (1.0, BAD)),
            ),
            sort="Severity",
            none="nothing fires",
        ),
        10,
    )
