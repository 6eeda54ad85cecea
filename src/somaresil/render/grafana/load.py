"""The board of a load test: what was asked for, what came back, and whether the figures can be believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.render.grafana.build import (
    BAD,
    ENVIRONMENT,
    GOOD,
    NOTED,
    WARNED,
    Board,
    Query,
    Variable,
    board_link,
    number,
    steps,
    trend,
)
from somaresil.render.grafana.common import ALERTS, BOARDS, DEPLOYMENTS, ENVIRONMENTS, EXPERIMENTS, SERVICE, quantile, share

if TYPE_CHECKING:
    from somaresil.render.options import RenderOptions

__all__ = ["load"]

_SCENARIOS: Final = Variable("scenario", "Scenario", "label_values(somaresil_load_offered_total, scenario)", "Which runs of load.")
_OWN: Final = 'scenario=~"$scenario"'
_RATE: Final = "[$__rate_interval]"
_IDLE: Final = "no load was made in this time, or nobody scrapes the generator"
_REQUESTS: Final = f"somaresil_load_requests_total{{{_OWN}"


def load(options: RenderOptions) -> Board:
    """Load as those see it who make it, beside what the service says of itself."""
    board = Board(
        BOARDS["load"],
        "somaresil / Load",
        "Load that was made on purpose: what its clients saw, beside what the service saw. Look at the generator before you believe it.",
        variables=(SERVICE, ENVIRONMENTS, _SCENARIOS),
        annotations=(EXPERIMENTS, DEPLOYMENTS, ALERTS),
    )
    _now(board, options)
    _answers(board)
    _generator(board)
    _service(board)
    return board


def _now(board: Board, options: RenderOptions) -> None:
    board.row("At a glance")
    board.add(
        number(
            "Offered a second",
            "Requests that were due, whatever became of them: the load that was asked for.",
            Query(f"sum(rate(somaresil_load_offered_total{{{_OWN}}}{_RATE}))"),
            unit="reqps",
            none=_IDLE,
        ),
        5,
        4,
    )
    board.add(
        number(
            "Good answers a second",
            "Less than was offered for long: the service is at its end, or requests fail; see below which.",
            Query(f'sum(rate({_REQUESTS},outcome="good"}}{_RATE}))'),
            unit="reqps",
            none=_IDLE,
        ),
        5,
        4,
    )
    board.add(
        number(
            "Failed",
            "Share of the answers that were not as expected, in full and in time.",
            Query(share(f'sum(rate({_REQUESTS},outcome="failed"}}{_RATE}))', f'sum(rate({_REQUESTS},outcome=~"good|failed"}}{_RATE}))')),
            unit="percentunit",
            none=_IDLE,
            colours=steps((None, GOOD), (0.01, WARNED), (0.05, BAD)),
        ),
        5,
        4,
    )
    board.add(
        number(
            "In flight",
            "Requests, or users of Locust, that wait for an answer. It grows without end where more is offered than fits.",
            Query(f"sum(somaresil_load_in_flight{{{_OWN}}})"),
            unit="none",
            none=_IDLE,
            colours=steps((None, NOTED)),
        ),
        5,
        4,
    )
    board.add(
        number(
            "Generator",
            f"Saturated: it measures itself. More processes, or less load: {options.runbook('load-generator-saturated')}",
            Query(f"max(somaresil_load_saturated{{{_OWN}}})"),
            unit="none",
            none=_IDLE,
            words={"0": ("keeps up", GOOD), "1": ("saturated", BAD)},
        ),
        4,
        4,
    )


def _answers(board: Board) -> None:
    board.row("What clients saw")
    board.add(
        trend(
            "Offered and answered",
            "The distance between both is what failed, was dropped, or still waits.",
            Query(f"sum by (scenario) (rate(somaresil_load_offered_total{{{_OWN}}}{_RATE}))", "{{scenario}} offered"),
            Query(f"sum by (scenario, outcome) (rate({_REQUESTS}}}{_RATE}))", "{{scenario}} {{outcome}}"),
            unit="reqps",
            none=_IDLE,
        ),
        12,
    )
    board.add(
        trend(
            "In flight over time",
            "Requests that wait for an answer, or users of Locust.",
            Query(f"sum by (scenario) (somaresil_load_in_flight{{{_OWN}}})", "{{scenario}}"),
            unit="none",
            none=_IDLE,
        ),
        12,
    )
    intended = "From when a request was meant to begin, so that a stall is not forgotten; of good answers."
    for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        board.add(
            trend(
                f"Latency {name}",
                intended,
                Query(quantile(q, "somaresil_load_latency_seconds", _OWN, "request"), "{{request}}"),
                unit="s",
                none=_IDLE,
            ),
            8,
        )
    streams = "no request of the scenario is answered by a stream"
    board.add(
        trend(
            "First item of streams",
            "From when a request was meant to begin to the first item of its answer: the first token of a model.",
            Query(quantile(0.5, "somaresil_load_first_seconds", _OWN, "request"), "{{request}} p50"),
            Query(quantile(0.95, "somaresil_load_first_seconds", _OWN, "request"), "{{request}} p95"),
            unit="s",
            none=streams,
        ),
        8,
    )
    board.add(
        trend(
            "Gaps in streams",
            "Between two items. Long ones are read as a stall by whoever waits for the next word.",
            Query(quantile(0.5, "somaresil_load_gap_seconds", _OWN, "request"), "{{request}} p50"),
            Query(quantile(0.99, "somaresil_load_gap_seconds", _OWN, "request"), "{{request}} p99"),
            unit="s",
            none=streams,
        ),
        8,
    )
    board.add(
        trend(
            "Streams, and how they ended",
            "`truncated` ones have begun and never came to their end, although the status said that all is well.",
            Query(f"sum by (request, ending) (rate(somaresil_load_streams_total{{{_OWN}}}{_RATE}))", "{{request}} {{ending}}"),
            unit="reqps",
            none=streams,
        ),
        8,
    )
    board.add(
        trend(
            "Failures by kind",
            "What went wrong, as clients saw it. `timeout` and `refused` together: it does not even accept connections any more.",
            Query(f"sum by (kind) (rate(somaresil_load_errors_total{{{_OWN}}}{_RATE}))", "{{kind}}"),
            unit="reqps",
            none="nothing has failed in this time",
            stacked=True,
        ),
        12,
    )
    board.add(
        trend(
            "Struck by experiments",
            "Answers that say an experiment has struck them; they count apart.",
            Query(f'sum by (outcome) (rate({_REQUESTS},injected="true"}}{_RATE}))', "{{outcome}}"),
            unit="reqps",
            none="no answer says so",
            links=(board_link("Chaos", BOARDS["chaos"]),),
        ),
        12,
    )


def _generator(board: Board) -> None:
    board.row("Can it be believed")
    board.add(
        trend(
            "Processor of the generator",
            "Share of one processor. From 95 % on it measures itself.",
            Query(f"max by (scenario) (somaresil_load_generator_cpu_ratio{{{_OWN}}})", "{{scenario}}"),
            unit="percentunit",
            none=_IDLE,
            lines=steps((None, GOOD), (0.8, WARNED), (0.95, BAD)),
        ),
        8,
    )
    board.add(
        trend(
            "Late",
            "How much later than meant requests have begun, p99. From 50 ms on it is the generator that is slow.",
            Query(quantile(0.99, "somaresil_load_late_seconds", _OWN, "scenario"), "{{scenario}}"),
            unit="s",
            none=_IDLE,
            lines=steps((None, GOOD), (0.05, BAD)),
        ),
        8,
    )
    board.add(
        trend(
            "Dropped",
            "Requests that were due and have not begun, because too many were in flight. Not 0: the load was less than it says.",
            Query(f'sum by (scenario) (rate({_REQUESTS},outcome="dropped"}}{_RATE}))', "{{scenario}}"),
            unit="reqps",
            none=_IDLE,
        ),
        8,
    )


def _service(board: Board) -> None:
    board.row("What the service saw")
    requests = "http_server_request_duration_seconds"
    board.add(
        trend(
            "Latency of the service, p95",
            "As the service measures it, from the moment it has the request. Much shorter than what clients saw: they wait before it.",
            Query(quantile(0.95, requests, ENVIRONMENT, "http_route"), "{{http_route}}", exemplars=True),
            unit="s",
            none="no requests in this time",
        ),
        8,
    )
    board.add(
        trend(
            "Failed requests",
            "Share of the requests that the service itself answered with 500 or more.",
            Query(
                share(
                    f'sum by (http_route) (rate({requests}_count{{{ENVIRONMENT},http_response_status_code=~"5.."}}{_RATE}))',
                    f"sum by (http_route) (rate({requests}_count{{{ENVIRONMENT}}}{_RATE}))",
                ),
                "{{http_route}}",
            ),
            unit="percentunit",
            none="no request has failed in this time",
        ),
        8,
    )
    board.add(
        trend(
            "In use and waiting",
            "What fills up first is what limits the service.",
            Query(f'sum by (guard) (somaresil_concurrency{{{ENVIRONMENT},state="active"}})', "{{guard}} active"),
            Query(f'sum by (guard) (somaresil_concurrency{{{ENVIRONMENT},state="waiting"}})', "{{guard}} waiting"),
            unit="none",
            none="no guard has a limit of concurrency",
        ),
        8,
    )
