"""What is recorded of guards, routes, pools and faults, so that boards and alerts ask for a few series and not for thousands.

Names are ``level:metric:operations``, as Prometheus' own advice has it. Ratios are sums divided by sums, over all replicas; without events
there is no ratio.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.render.series import Series

__all__ = ["QUANTILES", "RECORDED", "Recorded"]

WINDOW: Final = "5m"


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recording rule."""

    name: str
    by: str
    about: str
    """What it is, for people."""
    expression: Callable[[Series], str]


def _sum(series: Series, by: str, metric: str, *matchers: str) -> str:
    return f"sum by ({by}) (rate({series(metric, *matchers)}[{WINDOW}]))"


def _ratio(by: str, metric: str, part: str, whole: tuple[str, ...] = ()) -> Callable[[Series], str]:
    """Events of a part over events of the whole. A part that nobody has seen is none, as long as there is a whole."""

    def expression(series: Series) -> str:
        all_of_them = _sum(series, by, metric, *whole)
        return f"({_sum(series, by, metric, part)} or 0 * {all_of_them})\n/ ({all_of_them} > 0)"

    return expression


def _retry_ratio(series: Series) -> str:
    calls = _sum(series, "guard", "somaresil_calls_total")
    made = _sum(series, "guard", "somaresil_retries_total", 'decision="made"')
    return f"{made}\n/ ({calls} > 0)"


def _endpoints_out(series: Series) -> str:
    out = series("somaresil_pool_endpoint_state", 'state=~"open|ejected"')
    return f"(sum by (pool) ({out}) or 0 * {_endpoints(series)})\n/ ({_endpoints(series)} > 0)"


def _endpoints(series: Series) -> str:
    return f"sum by (pool) ({series('somaresil_pool_endpoint_state')})"


_CALLS: Final = "somaresil_calls_total"
_REQUESTS: Final = "http_server_request_duration_seconds_count"

_DURATIONS: Final = (
    ("guard", "guard_duration_seconds", "somaresil_call_duration_seconds", "of the calls that ended by themselves"),
    ("http_route", "route_duration_seconds", "http_server_request_duration_seconds", "of requests, to their last byte"),
    ("http_route", "route_first_byte_seconds", "http_server_time_to_first_byte_seconds", "of requests, to the first byte of the body"),
)


def _quantile(by: str, metric: str, quantile: float) -> Callable[[Series], str]:
    return lambda series: f"histogram_quantile({quantile:g}, {_sum(series, f'{by}, le', f'{metric}_bucket')})"


QUANTILES: Final = tuple(
    Recorded(
        f"somaresil:{name}:p{quantile * 100:g}_rate5m", by, f"quantile {quantile:g} {about}, in seconds", _quantile(by, metric, quantile)
    )
    for by, name, metric, about in _DURATIONS
    for quantile in (0.5, 0.95, 0.99)
)
"""Of durations, as well as their buckets tell."""

RECORDED: Final = (
    Recorded("somaresil:guard_calls:rate5m", "guard", "calls a second", lambda series: _sum(series, "guard", _CALLS)),
    Recorded(
        "somaresil:guard_error:ratio_rate5m",
        "guard",
        "bad calls of those that were good or bad",
        _ratio("guard", _CALLS, 'outcome="bad"', ('outcome=~"good|bad"',)),
    ),
    Recorded("somaresil:guard_rejected:ratio_rate5m", "guard", "rejected calls of all", _ratio("guard", _CALLS, 'outcome="rejected"')),
    Recorded(
        "somaresil:guard_injected:ratio_rate5m",
        "guard",
        "calls that an experiment touched, of all",
        _ratio("guard", _CALLS, 'injected="true"'),
    ),
    Recorded("somaresil:guard_retry:ratio_rate5m", "guard", "further attempts a call", _retry_ratio),
    Recorded("somaresil:pool_endpoints_out:ratio", "pool", "endpoints that are ejected or open, of all", _endpoints_out),
    Recorded(
        "somaresil:faults_injected:rate5m",
        "component, fault",
        "strikes of experiments a second",
        lambda series: _sum(series, "component, fault", "somaresil_faults_injected_total"),
    ),
    Recorded("somaresil:route_requests:rate5m", "http_route", "requests a second", lambda series: _sum(series, "http_route", _REQUESTS)),
    Recorded(
        "somaresil:route_error:ratio_rate5m",
        "http_route",
        "requests answered with 5xx, of all",
        _ratio("http_route", _REQUESTS, 'http_response_status_code=~"5.."'),
    ),
    *QUANTILES,
)
"""All of them."""
