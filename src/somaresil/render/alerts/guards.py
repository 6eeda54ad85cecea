"""Guards, their pools, and how soon they recover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.render.alerts.model import Alert, History

if TYPE_CHECKING:
    from somaresil.render.series import Series

__all__ = ["GUARDS"]

_NOT_PASSING: Final = 'state=~"open|half_open|forced_open"'
_CAN_BE_CHOSEN: Final = 'state=~"healthy|slow_start|half_open"'
_OPENINGS: Final = 4
"""Times within half an hour that a breaker of one worker opens before it is said to flap."""


def _open(series: Series) -> str:
    return f"max by (guard) ({series('somaresil_breaker_state', _NOT_PASSING)}) > 0"


def _flaps(series: Series) -> str:
    # Every worker has a breaker of its own, so one outage opens as many.
    moves = series("somaresil_breaker_transitions_total", 'to="open"')
    opened = f"sum by (guard) (increase({moves}[30m]))"
    workers = f"scalar(clamp_min(sum({series('somaresil_workers')}) or vector(1), 1))"
    return f"{opened} / {workers} > {_OPENINGS}"


def _rejects(series: Series) -> str:
    ratio, calls = series("somaresil:guard_rejected:ratio_rate5m"), series("somaresil:guard_calls:rate5m")
    return f"{ratio} > 0.1\nand\n{calls} > 0.1"


def _retries(series: Series) -> str:
    ratio, calls = series("somaresil:guard_retry:ratio_rate5m"), series("somaresil:guard_calls:rate5m")
    return f"{ratio} > 0.5\nand\n{calls} > 0.1"


def _exhausted(series: Series) -> str:
    return f"sum by (pool) ({series('somaresil_pool_endpoint_state', _CAN_BE_CHOSEN)}) == 0"


def _mostly_out(series: Series) -> str:
    return f"{series('somaresil:pool_endpoints_out:ratio')} > 0.5"


def _slow_recovery(series: Series) -> str:
    # le is 300 in the text format of Go's library, 300.0 in that of Python's and from Prometheus 3 on.
    all_of_them = series("somaresil_recovery_seconds_bucket", 'le="+Inf"')
    within = series("somaresil_recovery_seconds_bucket", r'le=~"300(\\.0)?"')
    grown = f"sum by (guard, slo) (increase({all_of_them}[1h])) - sum by (guard, slo) (increase({within}[1h])) > 0.5"
    new = (
        f"sum by (guard, slo) ({all_of_them} unless {all_of_them} offset 1h)\n"
        f"  - sum by (guard, slo) ({within} unless {within} offset 1h) > 0"
    )
    return f"({grown})\nor\n({new})"


_LLM: Final = {"guard": "llm.invoke"}
_BREAKER: Final = 'somaresil_breaker_state{guard="llm.invoke",state="%s"}'
_MOVES: Final = 'somaresil_breaker_transitions_total{guard="llm.invoke",to="open"}'
_WORKERS: Final = 'somaresil_workers{service_name="gateway"}'
_CALLS: Final = 'somaresil_calls_total{guard="llm.invoke",outcome="%s",injected="false"}'
_ENDPOINT: Final = 'somaresil_pool_endpoint_state{pool="models",endpoint="%s",state="%s"}'
_SLOW: Final = 'somaresil_recovery_seconds_bucket{guard="llm.invoke",le="%s"}'

GUARDS: Final = (
    Alert(
        name="GuardBreakerOpen",
        about="a breaker has been open, or half open, for 10 minutes in some worker",
        severity="ticket",
        summary="The circuit breaker of {{ $labels.guard }} does not close",
        description="In at least one worker the breaker of {{ $labels.guard }} has let no calls through, or probes alone, for 10 minutes.",
        condition=_open,
        lasts="10m",
        fires=History(
            "it opens and probes fail for ever",
            {_BREAKER % "open": "0 1 1 1 0 1 1 1 0 1 1 1 0 1 1 1", _BREAKER % "half_open": "0 0 0 0 1 0 0 0 1 0 0 0 1 0 0 0"},
            "13m",
            _LLM,
        ),
        silent=(
            History("it is open for five minutes", {_BREAKER % "open": "0 1x4 0x20", _BREAKER % "closed": "1 0x4 1x20"}, "13m"),
            History("it comes back by a ramp", {_BREAKER % "ramping": "1x20", _BREAKER % "open": "0x20"}, "15m"),
        ),
    ),
    Alert(
        name="GuardBreakerFlapping",
        about="breakers opened more than 4 times a worker within half an hour",
        severity="ticket",
        summary="The circuit breaker of {{ $labels.guard }} opens again and again",
        description="It has opened {{ $value | humanize }} times a worker within half an hour.",
        condition=_flaps,
        fires=History("both workers open six times", {_MOVES: "0+2x6 12x30", _WORKERS: "2x40"}, "25m", _LLM, "6"),
        silent=(
            History("both open once", {_MOVES: "0 2x30", _WORKERS: "2x40"}, "25m"),
            History("eight workers open twice", {_MOVES: "0 8 16x30", _WORKERS: "8x40"}, "25m"),
        ),
    ),
    Alert(
        name="GuardRejections",
        about="more than 10 % of the calls of a guard were rejected, for 5 minutes",
        severity="ticket",
        summary="{{ $labels.guard }} turns callers away",
        description="{{ $value | humanizePercentage }} of the calls of {{ $labels.guard }} were rejected within 5 minutes.",
        condition=_rejects,
        lasts="5m",
        fires=History("every fourth is rejected", {_CALLS % "good": "0+90x30", _CALLS % "rejected": "0+30x30"}, "20m", _LLM, "25%"),
        silent=(
            History("every twentieth is rejected", {_CALLS % "good": "0+95x30", _CALLS % "rejected": "0+5x30"}, "20m"),
            History("hardly anybody calls", {_CALLS % "good": "0+1x30", _CALLS % "rejected": "0+1x30"}, "20m"),
            History("it is over in three minutes", {_CALLS % "good": "0+90x40", _CALLS % "rejected": "0x9 30 60 90x30"}, "20m"),
        ),
    ),
    Alert(
        name="GuardRetryStorm",
        about="a guard made more than one further attempt for two calls, for 5 minutes",
        severity="ticket",
        summary="{{ $labels.guard }} repeats most of its calls",
        description='{{ $labels.guard }} made {{ $value | printf "%.2f" }} further attempts a call within 5 minutes.',
        condition=_retries,
        lasts="5m",
        fires=History(
            "three attempts for four calls",
            {_CALLS % "good": "0+40x30", 'somaresil_retries_total{guard="llm.invoke",decision="made"}': "0+30x30"},
            "20m",
            _LLM,
            "0.75",
        ),
        silent=(
            History(
                "one attempt for four calls",
                {_CALLS % "good": "0+40x30", 'somaresil_retries_total{guard="llm.invoke",decision="made"}': "0+10x30"},
                "20m",
            ),
            History(
                "they are denied and not made",
                {_CALLS % "good": "0+40x30", 'somaresil_retries_total{guard="llm.invoke",decision="budget"}': "0+40x30"},
                "20m",
            ),
        ),
    ),
    Alert(
        name="PoolExhausted",
        about="no endpoint of a pool can be chosen in any worker, for a minute",
        severity="page",
        summary="No endpoint of {{ $labels.pool }} can be used",
        description="Every endpoint of the pool {{ $labels.pool }} is out, in every worker: calls go to bad endpoints or nowhere.",
        condition=_exhausted,
        lasts="1m",
        fires=History(
            "both are ejected",
            {
                _ENDPOINT % ("a", "ejected"): "0 1x10",
                _ENDPOINT % ("a", "healthy"): "1 0x10",
                _ENDPOINT % ("b", "open"): "0 1x10",
                _ENDPOINT % ("b", "healthy"): "1 0x10",
            },
            "5m",
            {"pool": "models"},
        ),
        silent=(
            History(
                "one is left",
                {
                    _ENDPOINT % ("a", "ejected"): "0 1x10",
                    _ENDPOINT % ("a", "healthy"): "1 0x10",
                    _ENDPOINT % ("b", "healthy"): "1x10",
                },
                "5m",
            ),
        ),
    ),
    Alert(
        name="PoolPanics",
        about="more than half of the endpoints of a pool are out, for 5 minutes",
        severity="ticket",
        summary="Most endpoints of {{ $labels.pool }} are out",
        description="{{ $value | humanizePercentage }} of the endpoints of {{ $labels.pool }} are ejected or open; beyond its limit a pool "
        "uses all of them again.",
        condition=_mostly_out,
        lasts="5m",
        fires=History(
            "two of three",
            {
                _ENDPOINT % ("a", "ejected"): "0 1x20",
                _ENDPOINT % ("b", "open"): "0 1x20",
                _ENDPOINT % ("c", "healthy"): "1x20",
            },
            "15m",
            {"pool": "models"},
            "66.67%",
        ),
        silent=(
            History(
                "one of three",
                {
                    _ENDPOINT % ("a", "ejected"): "0 1x20",
                    _ENDPOINT % ("b", "healthy"): "1x20",
                    _ENDPOINT % ("c", "healthy"): "1x20",
                },
                "15m",
            ),
        ),
    ),
    Alert(
        name="RecoverySlow",
        about="an incident that ended within the last hour took longer than 5 minutes",
        severity="ticket",
        summary="An incident took more than 5 minutes to end",
        description="{{ $value | humanize }} incidents of {{ $labels.guard }}{{ $labels.slo }} within an hour lasted longer than 5 "
        "minutes, from the first bad event until all was well.",
        condition=_slow_recovery,
        fires=History(
            "one of two that end is slow",
            {_SLOW % "300.0": "0x60 1x30", _SLOW % "+Inf": "0x60 2x30"},
            "80m",
            {"guard": "llm.invoke"},
            "1",
        ),
        silent=(
            History("both are quick", {_SLOW % "300.0": "0x60 2x30", _SLOW % "+Inf": "0x60 2x30"}, "80m"),
            History("a slow one was long ago", {_SLOW % "300.0": "0 1x200", _SLOW % "+Inf": "0 2x200"}, "150m"),
        ),
    ),
)
