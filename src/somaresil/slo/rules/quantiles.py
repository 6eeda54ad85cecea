"""Recording rules for quantiles of durations, by guard and by route, and their test."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from somaresil.slo.rules.checks import SCRAPES
from somaresil.slo.rules.text import duration, number, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.slo.rules.options import RuleOptions

__all__ = ["quantile_rules", "quantile_test"]

_SHORTEST: Final = 300.0
_METRICS: Final = (
    ("guard", "somaresil_call_duration_seconds"),
    ("http_route", "http_server_request_duration_seconds"),
    ("http_route", "http_server_time_to_first_byte_seconds"),
)


def _window(options: RuleOptions) -> float:
    return max(_SHORTEST, SCRAPES * float(options.scrape_interval))  # type: ignore[arg-type]


def _each(options: RuleOptions) -> Iterator[tuple[str, str, str, Decimal]]:
    for by, metric in _METRICS:
        for quantile in options.quantiles:
            exact = Decimal(str(quantile))
            yield by, metric, f"{by}:{metric}:p{number(exact * 100).replace('.', '_')}", exact


def quantile_rules(options: RuleOptions) -> dict[str, Any]:
    """A group for a file of rules."""
    window = duration(_window(options))
    labels = {} if options.service is None else {"labels": {"service": options.service}}
    only = ",".join(f"{name}={quoted(value)}" for name, value in options.labels.items())
    rules = [
        {
            "record": name,
            "expr": f"histogram_quantile({number(quantile)}, sum by ({by}, le) (rate({metric}_bucket{{{only}}}[{window}])))",
            **labels,
        }
        for by, metric, name, quantile in _each(options)
    ]
    return {"name": "latency-quantiles", "rules": rules}


def quantile_test(options: RuleOptions, file: str) -> dict[str, Any]:
    """A file of tests: calls that are spread evenly over two seconds, so that a quantile is twice its number."""
    window = int(_window(options))
    step = max(1, window // 10)
    own = "".join(f",{name}={quoted(value)}" for name, value in options.labels.items())
    series = [
        {"series": f'{metric}_bucket{{{by}="x",le="{bound}"{own}}}', "values": f"0+{count}x20"}
        for by, metric in _METRICS
        for bound, count in (("1.0", 50), ("2.0", 100), ("+Inf", 100))
    ]
    service = "" if options.service is None else f",service={quoted(options.service)}"
    expected = [
        {
            "expr": f"abs({name} - {number(2 * quantile)}) < bool 0.000001",
            "eval_time": duration(20 * step),
            "exp_samples": [{"labels": f'{{{by}="x"{service}}}', "value": 1}],
        }
        for by, _, name, quantile in _each(options)
    ]
    test = {"name": "quantiles", "interval": f"{step}s", "input_series": series, "promql_expr_test": expected}
    return {"rule_files": [file], "evaluation_interval": f"{step}s", "tests": [test]}
