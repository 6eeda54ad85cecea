"""Tests of the alerts for ``promtool test rules``: in one history each of them fires, and says what it should; in others it does not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from somaresil.render.alerts.model import told
from somaresil.render.recording import RECORDED
from somaresil.slo.rules.text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from somaresil.render.alerts.model import Alert
    from somaresil.render.series import Series

__all__ = ["recorded_tests", "tests_of"]

_CALLS: Final = 'somaresil_calls_total{guard="a",outcome="%s",injected="%s"}'
_REQUESTS: Final = 'http_server_request_duration_seconds_count{http_route="/a",http_response_status_code="%s"}'
_ENDPOINT: Final = 'somaresil_pool_endpoint_state{pool="a",endpoint="%s",state="%s"}'
_A_MINUTE: Final = {
    _CALLS % ("good", "false"): 60,
    _CALLS % ("good", "true"): 12,
    _CALLS % ("bad", "false"): 18,
    _CALLS % ("rejected", "false"): 30,
    'somaresil_retries_total{guard="a",decision="made"}': 24,
    'somaresil_retries_total{guard="a",decision="budget"}': 99,
    'somaresil_faults_injected_total{component="a",fault="latency"}': 12,
    _REQUESTS % "200": 90,
    _REQUESTS % "503": 30,
}
_GAUGES: Final = {_ENDPOINT % ("x", "healthy"): 3, _ENDPOINT % ("x", "open"): 0, _ENDPOINT % ("y", "ejected"): 1}
# Spread evenly over two seconds, so that a quantile is twice its number.
_BUCKETS: Final = {"1.0": 50, "2.0": 100, "+Inf": 100}
_EXPECTED: Final = {
    "somaresil:guard_calls:rate5m": 2.0,
    "somaresil:guard_error:ratio_rate5m": 0.2,
    "somaresil:guard_rejected:ratio_rate5m": 0.25,
    "somaresil:guard_injected:ratio_rate5m": 0.1,
    "somaresil:guard_retry:ratio_rate5m": 0.2,
    "somaresil:pool_endpoints_out:ratio": 0.25,
    "somaresil:faults_injected:rate5m": 0.2,
    "somaresil:route_requests:rate5m": 2.0,
    "somaresil:route_error:ratio_rate5m": 0.25,
}
_QUANTILE: Final = re.compile(r":p([0-9.]+)_rate5m$")
_WHOSE: Final = {"guard": "a", "pool": "a", "component": "a", "fault": "latency", "http_route": "/a"}


def tests_of(
    alerts: Iterable[Alert],
    series: Series,
    rule_files: list[str],
    labels_of: Callable[[Alert], Mapping[str, str]],
    annotations_of: Callable[[Alert], Mapping[str, str]],
) -> dict[str, dict[str, Any]]:
    """Files of tests by the step of their histories; with the labels and annotations that each alert has in the file of rules."""
    found: dict[str, dict[str, Any]] = {}
    for alert in alerts:
        for history in (alert.fires, *alert.silent):
            expected: list[dict[str, Any]] = []
            if history is alert.fires:
                said = {name: told(text, history) for name, text in annotations_of(alert).items()}
                expected = [{"exp_labels": {**history.labels, **labels_of(alert)}, "exp_annotations": said}]
            test = {
                "name": f"{alert.name} {'fires' if expected else 'is silent'}: {history.name}",
                "interval": history.step,
                "input_series": [{"series": _own(name, series), "values": values} for name, values in history.series.items()],
                "alert_rule_test": [{"eval_time": history.at, "alertname": alert.name, "exp_alerts": expected}],
            }
            file = found.setdefault(history.step, {"rule_files": rule_files, "evaluation_interval": history.step, "tests": []})
            file["tests"].append(test)
    return found


def recorded_tests(series: Series, file: str, labels: Mapping[str, str]) -> dict[str, Any]:
    """A file of tests of what is recorded: of known events a minute, the ratios and quantiles that they make."""
    buckets = {
        f'{metric}_bucket{{{by}="{_WHOSE[by]}",le="{bound}"}}': count
        for by, metric in (
            ("guard", "somaresil_call_duration_seconds"),
            ("http_route", "http_server_request_duration_seconds"),
            ("http_route", "http_server_time_to_first_byte_seconds"),
        )
        for bound, count in _BUCKETS.items()
    }
    given = {name: f"0+{each}x20" for name, each in {**_A_MINUTE, **buckets}.items()} | {
        name: f"{each}x20" for name, each in _GAUGES.items()
    }
    expected: list[dict[str, Any]] = []
    for recorded in RECORDED:
        quantile = _QUANTILE.search(recorded.name)
        value = float(quantile[1]) / 50 if quantile else _EXPECTED[recorded.name]
        whose = {**labels, **{name: _WHOSE[name] for name in recorded.by.split(", ")}}
        shown = ",".join(f"{name}={quoted(text)}" for name, text in sorted(whose.items()))
        near = f"abs({series(recorded.name)} - {value:g}) < bool 0.000001"
        expected.append({"expr": near, "eval_time": "15m", "exp_samples": [{"labels": f"{{{shown}}}", "value": 1}]})
    test = {
        "name": "of known events what is recorded is known",
        "interval": "1m",
        "input_series": [{"series": _own(name, series), "values": values} for name, values in given.items()],
        "promql_expr_test": expected,
    }
    return {"rule_files": [file], "evaluation_interval": "1m", "tests": [test]}


def _own(name: str, series: Series) -> str:
    metric, _, rest = name.partition("{")
    return series(metric, *([rest.removesuffix("}")] if rest else ()))
