"""The board that is opened first: what goes through the guards of a service, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.render.grafana.build import (
    BAD,
    DIMMED,
    ENVIRONMENT,
    GOOD,
    WARNED,
    Board,
    Column,
    Query,
    board_link,
    heat,
    logs_link,
    number,
    states,
    steps,
    table,
    traces_link,
    trend,
)
from somaresil.render.grafana.common import (
    ALERTS,
    BOARDS,
    BREAKER_WORDS,
    CANARIES,
    DEPLOYED_VERSIONS,
    DEPLOYMENTS,
    ENVIRONMENTS,
    EXPERIMENTS,
    GUARDS,
    SERVICE,
    breaker_state,
    quantile,
    share,
)

if TYPE_CHECKING:
    from somaresil.render.options import RenderOptions

__all__ = ["services"]

_GUARD: Final = f'{ENVIRONMENT},guard=~"$guard"'
_LIMITED: Final = f'{ENVIRONMENT},guard=~"$guard|_http"'
"""The limit of all requests belongs to no guard."""
_CALLS: Final = f"somaresil_calls_total{{{_GUARD}}}"
_NO_CALLS: Final = "no calls in this time"
_RATE: Final = "[$__rate_interval]"
_BAD_SHARE: Final = ((None, GOOD), (0.01, WARNED), (0.05, BAD))


def _calls(**labels: str) -> str:
    more = "".join(f',{name}="{value}"' for name, value in labels.items())
    return f"somaresil_calls_total{{{_GUARD}{more}}}"


def services(options: RenderOptions) -> Board:
    """Traffic, errors and latency of every guard, the state of its breaker, and why calls were refused."""
    board = Board(
        BOARDS["services"],
        "somaresil / Services",
        "What goes through the guards of a service and how it ends: start here when users complain, then open the guard that stands out.",
        variables=(SERVICE, ENVIRONMENTS, GUARDS),
        annotations=(DEPLOYMENTS, DEPLOYED_VERSIONS, EXPERIMENTS, CANARIES, ALERTS),
    )
    _overview(board, options)
    _traffic(board)
    _protection(board)
    _requests(board)
    return board


def _recorded(name: str) -> str:
    """What is recorded of each guard. Without its name: a table makes a row of all that have the same labels."""
    return f"max by (guard) ({name}{{{_GUARD}}})"


def _to_guard() -> tuple[dict[str, Any], ...]:
    guard = "${__field.labels.guard}"
    return (
        board_link("This guard alone", BOARDS["services"], "guard"),
        traces_link("Traces of this guard", f"somaresil.guard={guard}"),
        logs_link("Lines about this guard", "somaresil_guard", guard),
    )


def _overview(board: Board, options: RenderOptions) -> None:
    board.row("At a glance")
    board.add(
        number(
            "Calls a second",
            "All guarded calls. Far less than usual at this hour: look at who calls this service before you look at the service.",
            Query(f"sum(rate({_CALLS}{_RATE}))"),
            unit="reqps",
            none=_NO_CALLS,
        ),
        5,
        4,
    )
    board.add(
        number(
            "Bad calls",
            "Share of bad calls, of those that were good or bad. From 1 % on somebody notices: find the guard in the table.",
            Query(share(f"sum(rate({_calls(outcome='bad')}{_RATE}))", f"sum(rate({_GOOD_OR_BAD}{_RATE}))")),
            unit="percentunit",
            none=_NO_CALLS,
            colours=steps(*_BAD_SHARE),
        ),
        5,
        4,
    )
    board.add(
        number(
            "Refused calls",
            "Share of the calls that were refused before they began: by an open circuit, a limit or a deadline. See `Refusals by reason`.",
            Query(share(f"sum(rate({_calls(outcome='rejected')}{_RATE}))", f"sum(rate({_CALLS}{_RATE}))")),
            unit="percentunit",
            none=_NO_CALLS,
            colours=steps(*_BAD_SHARE),
        ),
        5,
        4,
    )
    board.add(
        number(
            "Circuits that are not closed",
            f"Guards with a breaker that is open, half open or ramping in any process. Not 0: {options.runbook('guard-breaker-open')}",
            Query(
                "count(max by (guard) (somaresil_breaker_state{"
                + _GUARD
                + ',state=~"open|forced_open|half_open|ramping"}) > 0) or vector(0)'
            ),
            unit="none",
            none="no breakers",
            colours=steps((None, GOOD), (1, BAD)),
        ),
        5,
        4,
    )
    board.add(
        number(
            "Touched by experiments",
            "Share of the calls that a chaos experiment touched. Not 0: what you see may be made on purpose; see the board about chaos.",
            Query(share(f"sum(rate({_calls(injected='true')}{_RATE}))", f"sum(rate({_CALLS}{_RATE}))") + " or vector(0)"),
            unit="percentunit",
            none=_NO_CALLS,
            colours=steps((None, DIMMED), (0.000001, WARNED)),
            links=(board_link("Chaos", BOARDS["chaos"]),),
        ),
        4,
        4,
    )
    board.add(
        table(
            "Guards",
            "A row for each guarded call, the worst first, over the last five minutes. Click its name for its own board, traces and lines.",
            {"guard": "Guard"},
            Column("Calls/s", _recorded("somaresil:guard_calls:rate5m"), "reqps", decimals=2),
            Column("Bad", _recorded("somaresil:guard_error:ratio_rate5m"), "percentunit", _BAD_SHARE, 2),
            Column("Refused", _recorded("somaresil:guard_rejected:ratio_rate5m"), "percentunit", _BAD_SHARE, 2),
            Column("Retried", _recorded("somaresil:guard_retry:ratio_rate5m"), "percentunit", ((None, GOOD), (0.1, WARNED), (0.5, BAD)), 2),
            Column("Experiments", _recorded("somaresil:guard_injected:ratio_rate5m"), "percentunit", ((None, DIMMED), (1e-6, WARNED)), 2),
            Column("p50", _recorded("somaresil:guard_duration_seconds:p50_rate5m"), "s"),
            Column("p95", _recorded("somaresil:guard_duration_seconds:p95_rate5m"), "s"),
            Column("p99", _recorded("somaresil:guard_duration_seconds:p99_rate5m"), "s"),
            sort="Bad",
            falling=True,
            none="no calls in the last five minutes, or the recording rules are not loaded",
            links={"guard": _row_links()},
        ),
        24,
        8,
    )


def _row_links() -> tuple[dict[str, Any], ...]:
    guard = "${__value.text}"
    alone = {
        "targetBlank": False,
        "title": "This guard alone",
        "url": f"/d/{BOARDS['services']}?${{__url_time_range}}&var-service=${{service}}&var-guard={guard}",
    }
    return (
        alone,
        traces_link("Traces of this guard", f"somaresil.guard={guard}"),
        logs_link("Lines about this guard", "somaresil_guard", guard),
    )


_GOOD_OR_BAD: Final = f'somaresil_calls_total{{{_GUARD},outcome=~"good|bad"}}'


def _traffic(board: Board) -> None:
    board.row("Traffic, errors, latency")
    links = _to_guard()
    board.add(
        trend(
            "Calls by how they ended",
            "`bad` failed, `rejected` were refused before they began, `abandoned` were given up by their caller, `ignored` are no verdict.",
            Query(f"sum by (outcome) (rate({_CALLS}{_RATE}))", "{{outcome}}"),
            unit="reqps",
            none=_NO_CALLS,
            stacked=True,
            colours={"good": GOOD, "bad": BAD, "rejected": WARNED, "abandoned": "yellow", "ignored": DIMMED},
        ),
        12,
    )
    board.add(
        trend(
            "Bad calls by guard",
            "Share of bad calls of each guard. One that rises alone: its dependency. All at once: this service, its machine, its network.",
            Query(
                share(f"sum by (guard) (rate({_calls(outcome='bad')}{_RATE}))", f"sum by (guard) (rate({_GOOD_OR_BAD}{_RATE}))"),
                "{{guard}}",
            ),
            unit="percentunit",
            none=_NO_CALLS,
            links=links,
        ),
        12,
    )
    for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        board.add(
            trend(
                f"Latency {name}",
                f"{name} of the calls that ended by themselves, by guard. A point is the trace of a bad or slow call: click it.",
                Query(quantile(q, "somaresil_call_duration_seconds", _GUARD, "guard"), "{{guard}}", exemplars=True),
                unit="s",
                none=_NO_CALLS,
                links=links,
            ),
            8,
        )
    board.add(
        heat(
            "Durations",
            "How many calls took how long. Two bands are two kinds of calls, or a time-out: a quantile between them means nothing.",
            Query(
                f"sum by (le) (increase(somaresil_call_duration_seconds_bucket{{{_GUARD}}}{_RATE}))",
                "{{le}}",
                exemplars=True,
            ),
            unit="s",
        ),
        12,
    )
    board.add(
        trend(
            "Touched by experiments, by guard",
            "Share of the calls that chaos experiments touched. What is bad here and is not touched is not made on purpose.",
            Query(
                share(f"sum by (guard) (rate({_calls(injected='true')}{_RATE}))", f"sum by (guard) (rate({_CALLS}{_RATE}))"), "{{guard}}"
            ),
            unit="percentunit",
            none="no experiment has touched a call in this time",
        ),
        12,
    )


def _protection(board: Board) -> None:
    board.row("What protects, and what it does")
    board.add(
        states(
            "Circuits",
            "The worst state of the breaker of each guard, in any process. Open and closed in turn for long: its dependency is half well.",
            Query(breaker_state(_GUARD), "{{guard}}"),
            words=BREAKER_WORDS,
            none="no guard has a breaker",
        ),
        12,
    )
    board.add(
        trend(
            "Refusals by reason",
            "`circuit_open`: see the circuits. `bulkhead_full`, `rate_limited`, `throttled`, `shed`: more is asked for than is let in. "
            "`deadline_exceeded`: callers wait for less time than this takes.",
            Query(f"sum by (reason) (rate(somaresil_rejections_total{{{_LIMITED}}}{_RATE}))", "{{reason}}"),
            unit="reqps",
            none="nothing was refused in this time",
            stacked=True,
        ),
        12,
    )
    board.add(
        trend(
            "Retries",
            "Further attempts: `made`, or denied for the `budget`, the `deadline` or `idempotency`. Many made: whoever is called gets more "
            "calls than there are, just when it can bear fewer.",
            Query(f"sum by (decision) (rate(somaresil_retries_total{{{_GUARD}}}{_RATE}))", "{{decision}}"),
            unit="reqps",
            none="no guard retries",
        ),
        8,
    )
    board.add(
        trend(
            "Hedges and answers that were used again",
            "Hedges that `won` were worth it, others are only load. `stale` answers: whoever reads them sees the past.",
            Query(f"sum by (result) (rate(somaresil_hedges_total{{{_GUARD}}}{_RATE}))", "hedge {{result}}"),
            Query(f"sum by (how) (rate(somaresil_reused_answers_total{{{_GUARD}}}{_RATE}))", "answer {{how}}"),
            unit="reqps",
            none="no guard hedges, caches or shares",
        ),
        8,
    )
    board.add(
        trend(
            "Limits in use",
            "Share of the slots of a limit of concurrency that are taken; `_http`: of all requests. At 100 % calls wait or are refused.",
            Query(
                share(
                    f'sum by (guard) (somaresil_concurrency{{{_LIMITED},state="active"}})',
                    f"sum by (guard) (somaresil_concurrency_limit{{{_LIMITED}}})",
                ),
                "{{guard}}",
            ),
            unit="percentunit",
            none="no guard has a limit of concurrency",
            lines=steps((None, GOOD), (0.8, WARNED), (1, BAD)),
        ),
        8,
    )
    board.add(
        trend(
            "Waiting for a slot",
            "Calls that wait for a slot. A line that does not get shorter is one whose end nobody waits for: let fewer in, or make room.",
            Query(f'sum by (guard) (somaresil_concurrency{{{_LIMITED},state="waiting"}})', "{{guard}}"),
            unit="none",
            none="no guard has a limit of concurrency",
        ),
        8,
    )
    board.add(
        trend(
            "Left of rate limits",
            "What could be taken at once. 0 for long: more is asked for than was agreed upon.",
            Query(f"sum by (guard, unit) (somaresil_rate_limit_available{{{_GUARD}}})", "{{guard}} {{unit}}"),
            unit="none",
            none="no guard has a rate limit",
        ),
        8,
    )
    board.add(
        trend(
            "Endpoints that are out",
            "Endpoints of pools that get no calls, because their breaker is open or they did worse than the others.",
            Query(
                f'sum by (pool, endpoint) (somaresil_pool_endpoint_state{{{ENVIRONMENT},state=~"open|ejected"}})', "{{pool}} {{endpoint}}"
            ),
            unit="none",
            none="no pools",
        ),
        8,
    )


def _requests(board: Board) -> None:
    board.row("Requests")
    by = "http_request_method, http_route"
    name = "{{http_request_method}} {{http_route}}"
    requests = "http_server_request_duration_seconds"
    failed = f'{ENVIRONMENT},http_response_status_code=~"5.."'
    board.add(
        trend(
            "Requests a second",
            "Requests that the middleware has seen, by route.",
            Query(f"sum by ({by}) (rate({requests}_count{{{ENVIRONMENT}}}{_RATE}))", name),
            unit="reqps",
            none="no requests: there is no middleware, or nobody asks",
            stacked=True,
        ),
        8,
    )
    board.add(
        trend(
            "Failed requests",
            "Share of the requests of a route that were answered with 500 or more. A route that is not drawn has had none.",
            Query(
                share(
                    f"sum by ({by}) (rate({requests}_count{{{failed}}}{_RATE}))",
                    f"sum by ({by}) (rate({requests}_count{{{ENVIRONMENT}}}{_RATE}))",
                ),
                name,
            ),
            unit="percentunit",
            none="no request has failed in this time",
        ),
        8,
    )
    board.add(
        trend(
            "Latency of requests, p95",
            "To the last byte, and to the first one of the body. A point is the trace of a bad or slow request: click it.",
            Query(quantile(0.95, requests, ENVIRONMENT, by), f"{name} last byte", exemplars=True),
            Query(quantile(0.95, "http_server_time_to_first_byte_seconds", ENVIRONMENT, by), f"{name} first byte"),
            unit="s",
            none="no requests in this time",
        ),
        8,
    )
