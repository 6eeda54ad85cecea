"""Results of load generators: Locust, k6, oha, wrk, ``somaresil load``.

Each run gives one value a metric, for the requests of one run are not independent.

A single run can be held against a budget; two versions are compared by several runs of each.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from somaresil.perf.read.benchmarks import moment_of
from somaresil.perf.read.node import Node, gather, parse_json, refusal
from somaresil.perf.samples import RunResult, Series, better_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["is_k6_line", "k6", "k6_lines", "locust_csv", "locust_json", "oha", "own_load", "wrk"]

_MS: Final = 1e-3
_PERCENTILES: Final = {"50%": "p50", "75%": "p75", "90%": "p90", "95%": "p95", "98%": "p98", "99%": "p99", "99.9%": "p99.9", "100%": "p100"}
_LOCUST: Final = ("Type", "Name", "Request Count", "Failure Count", "Requests/s")
_ROUNDED: Final = "Locust rounds percentiles to two digits: a budget within the rounding cannot be decided"
_K6_TREND: Final = {"avg": "mean", "min": "minimum", "med": "p50", "max": "p100"}
_K6_REQUESTS: Final = ("http_req_duration", "http_reqs", "http_req_failed")
_K6_TIMES: Final = (
    "http_req_",
    "iteration_duration",
    "group_duration",
    "ws_connecting",
    "ws_session_duration",
    "ws_ping",
    "grpc_req_duration",
)
_WRK_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_OF_TEN: Final = 10
_OWN: Final = 1
"""Version of reports of ``somaresil load``."""
_SKETCH: Final = 0.01
"""How far its percentiles may lie from the true ones, as a share."""


def _one(name: str, metric: str, value: float, unit: str = "seconds", rounding: float = 0.0) -> Series:
    return Series(name, unit, (value,), better=better_of(metric), metric=metric, rounding=rounding)


def _counts(name: str, requests: float, errors: float) -> Iterator[Series]:
    """How many there were, and how many were bad: what says how sure a share is."""
    yield _one(name, "requests", requests, "count")
    yield _one(name, "errors", min(errors, requests), "count")
    yield _one(name, "error_rate", min(errors / requests, 1.0), "ratio")


def locust_csv(text: str, source: str) -> RunResult:
    """What ``--csv PREFIX`` writes to ``PREFIX_stats.csv``."""
    if not text.endswith("\n"):
        raise refusal(source, text[-20:], "a line break at the end", "it is cut off")
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        columns, listed = rows.fieldnames or [], list(rows)
    except csv.Error as broken:
        raise refusal(source, "its text", "CSV", str(broken)) from None
    missing = [name for name in (*_LOCUST, *_PERCENTILES) if name not in columns]
    if missing:
        raise refusal(
            f"{source}:1", ", ".join(missing), "columns of PREFIX_stats.csv", "they are not there; the other files of --csv hold no figures"
        )

    def read(row: tuple[int, Mapping[str, str | None]]) -> Iterator[Series]:
        line, cells = row
        name = f"{cells['Type'] or ''} {cells['Name'] or ''}".strip()
        here = {key: Node(_number(cells[key]), f"{source}:{line}: {key}") for key in (*_LOCUST[2:], *_PERCENTILES)}
        count, failed = here["Request Count"].number(), here["Failure Count"].number()
        if count == 0:
            raise refusal(here["Request Count"].path, 0, "at least one request", "no requests prove nothing")
        for column, metric in _PERCENTILES.items():
            value = here[column].number()
            yield _one(name, metric, value * _MS, rounding=_rounding(value) * _MS)
        yield _one(name, "throughput", here["Requests/s"].number(), "requests_per_second")
        yield from _counts(name, count, failed)

    return RunResult(gather(enumerate(listed, start=2), read), source, form="locust", notes=(_ROUNDED,))


def locust_json(root: Node, source: str) -> RunResult:
    """What ``--json`` prints and ``--json-file`` writes."""
    ends: list[float] = []

    def read(entry: Node) -> Iterator[Series]:
        method = entry.mapping().get("method")
        name = f"{method if isinstance(method, str) else ''} {entry['name'].text()}".strip()
        count, failed = entry["num_requests"].number(), entry["num_failures"].number()
        if count == 0:
            raise refusal(entry["num_requests"].path, 0, "at least one request", "no requests prove nothing")
        counts = sorted((Node(_number(key), each.path).number(), each.number()) for key, each in entry["response_times"].items())
        timed = sum(number for _, number in counts)
        if not timed:
            raise refusal(entry["response_times"].path, entry["response_times"].value, "at least one response time")
        for metric in _PERCENTILES.values():
            value = _at(counts, float(metric[1:]) / 100.0 * timed)
            yield _one(name, metric, value * _MS, rounding=_rounding(value) * _MS)
        begun, ended = entry["start_time"].number(), entry["last_request_timestamp"].number()
        if ended > begun:
            yield _one(name, "throughput", count / (ended - begun), "requests_per_second")
        ends.append(ended)
        yield from _counts(name, count, failed)

    return RunResult(gather(root.each(), read), source, at=max(ends, default=None), form="locust", notes=(_ROUNDED,))


def _at(counts: list[tuple[float, float]], rank: float) -> float:
    below = 0.0
    for value, number in counts:
        below += number
        if below >= rank:
            return value
    return counts[-1][0]


def _rounding(milliseconds: float) -> float:
    """Half of the last digit that Locust keeps."""
    for limit, half in ((100.0, 0.5), (1_000.0, 5.0), (10_000.0, 50.0)):
        if milliseconds < limit:
            return half
    return 500.0


def _number(text: object) -> float | str:
    """A number when it is one; else the text, for the problem."""
    shown = "nothing" if text is None else str(text)
    try:
        return float(shown)
    except ValueError:
        return shown[:60]


def k6(root: Node, source: str) -> RunResult:
    """The object that ``handleSummary`` is given, or what ``--summary-export`` writes."""
    left: list[str] = []

    def read(item: tuple[str, Node]) -> Iterable[Series]:
        name, metric = item
        inner = metric.find("values")
        values = metric if inner is None else inner
        contains = metric.mapping().get("contains")
        name, _, tag = name.partition("{")
        shown = f"{'http_req' if name in _K6_REQUESTS else name}{'{' if tag else ''}{tag}"
        if name == "http_reqs":
            rate, count = values["rate"].number(), values["count"].number()
            return (_one(shown, "throughput", rate, "requests_per_second"), _one(shown, "requests", count, "count"))
        if name == "http_req_failed":
            share, failed = values.find("rate") or values["value"], values["passes"]
            return (_one(shown, "error_rate", share.number(), "ratio"), _one(shown, "errors", failed.number(), "count"))
        if name == "dropped_iterations":
            return (_one(shown, "dropped", values["count"].number(), "count"),)
        if contains == "time" or (contains is None and name.startswith(_K6_TIMES)):
            return [_one(shown, known, each.number() * _MS) for key, each in values.items() if (known := _k6_metric(key)) is not None]
        left.append(shown)
        return ()

    series = gather(root["metrics"].items(), read)
    notes = (f"left out, for their unit is not known: {', '.join(sorted(left))}"[:500],) if left else ()
    return RunResult(series, source, form="k6", notes=notes)


def _k6_metric(key: str) -> str | None:
    found = re.fullmatch(r"p\((\d{1,2}(?:\.\d{1,4})?)\)", key)
    return f"p{float(found[1]):g}" if found is not None else _K6_TREND.get(key)


def k6_lines(text: str, source: str) -> RunResult:
    """What ``--out json=FILE`` writes: one object a line. Requests are told apart by the tag ``name``."""
    asked: dict[str, _Requests] = {}
    dropped = 0.0
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        node = Node(parse_json(line, f"{source}:{number}"), f"{source}:{number}")
        if node["type"].value != "Point":
            continue
        metric, data = node["metric"].text(), node["data"]
        if metric == "dropped_iterations":
            dropped += data["value"].number()
        elif metric in {"http_req_duration", "http_req_failed"}:
            tags = data.find("tags")
            given = {} if tags is None else tags.mapping()
            name = f"{given.get('method', '')} {given.get('name', given.get('url', ''))}".strip() or "requests"
            asked.setdefault(name, _Requests()).note(metric, data)
    if not any(each.durations for each in asked.values()):
        raise refusal(source, "no http_req_duration", "at least one request", "no requests prove nothing")
    series = [one for name, each in sorted(asked.items()) for one in each.series(name)]
    if dropped:
        series.append(_one("dropped_iterations", "dropped", dropped, "count"))
    last = max((moment for each in asked.values() for moment in each.moments), default=None)
    return RunResult(tuple(series), source, at=last, form="k6")


class _Requests:
    """What lines say of requests of one name."""

    def __init__(self) -> None:
        self.durations: list[float] = []
        self.failed: list[float] = []
        self.moments: list[float] = []

    def note(self, metric: str, data: Node) -> None:
        value = data["value"].number()
        if metric == "http_req_failed":
            self.failed.append(value)
            return
        self.durations.append(value * _MS)
        if (at := moment_of(data["time"].value)) is not None:
            self.moments.append(at)

    def series(self, name: str) -> Iterator[Series]:
        ordered = sorted(self.durations)
        for metric in _PERCENTILES.values() if ordered else ():
            yield _one(name, metric, ordered[max(0, math.ceil(len(ordered) * float(metric[1:]) / 100.0) - 1)])
        if self.moments and (lasted := max(self.moments) - min(self.moments)) > 0.0:
            yield _one(name, "throughput", len(self.moments) / lasted, "requests_per_second")
        if self.failed:
            yield from _counts(name, len(self.failed), sum(self.failed))


def oha(root: Node, source: str) -> RunResult:
    """What ``--json`` or ``--output-format json`` prints. It does not say what was asked: the name is that of the file."""
    summary = root["summary"]
    codes = root.find("statusCodeDistribution")
    errors = root.find("errorDistribution")
    answered = [(code, each.number()) for code, each in ([] if codes is None else codes.items())]
    lost = sum(each.number() for _, each in ([] if errors is None else errors.items()))
    asked = sum(number for _, number in answered) + lost
    if not asked:
        raise refusal(f"{source}: statusCodeDistribution", {}, "at least one request", "no requests prove nothing")
    bad = lost + sum(number for code, number in answered if not code.startswith(("1", "2", "3")))
    name = _stem(source)
    series = [
        _one(name, "throughput", summary["requestsPerSec"].number(), "requests_per_second"),
        *_counts(name, asked, bad),
    ]
    for key, value in root["latencyPercentiles"].items():
        if f"{key[1:]}%" in _PERCENTILES:
            series.append(_one(name, _PERCENTILES[f"{key[1:]}%"], value.number()))
    return RunResult(tuple(series), source, form="oha")


def own_load(root: Node, source: str) -> RunResult:
    """The report of ``somaresil load run`` as JSON; refused when the run did not come to its end, or its generator could not keep up."""
    if root["version"].value != _OWN:
        raise refusal(root["version"].path, root["version"].value, f"version {_OWN}", "it was written by another version")
    if root["complete"].value is not True:
        raise refusal(root["complete"].path, root["complete"].value, "true", "a run that did not come to its end")
    saturated = root["generator"]["saturated"]
    if saturated.value != []:
        raise refusal(saturated.path, saturated.value, "[]", "the generator was the slower one: its figures are not those of the service")
    seconds = root["seconds"].number()

    def read(item: tuple[str, Node]) -> Iterator[Series]:
        name, figures = item
        ended, good = figures["ended"].number(), figures["good"].number()
        if not ended:
            raise refusal(figures["ended"].path, 0, "at least one request", "no requests prove nothing")
        for key, prefix in (("latency", ""), ("first", "ttft_"), ("gap", "gap_")):
            for quantile, value in figures[key].items():
                if value.value is not None:
                    measured = value.number()
                    yield _one(name, f"{prefix}{quantile}", measured, rounding=measured * _SKETCH)
        if seconds > 0.0:
            yield _one(name, "throughput", good / seconds, "requests_per_second")
        yield from _counts(name, ended, figures["failed"].number())
        for key in ("good", "dropped", "streams", "truncated"):
            yield _one(name, key, figures[key].number(), "count")

    series = gather(root["requests"].items(), read)
    return RunResult(series, source, at=root["started_at"].number(), form="load", notes=_texts(root["notes"]))


def _texts(node: Node) -> tuple[str, ...]:
    return tuple(each.text() for each in node.each()) if node.value else ()


def wrk(text: str, source: str) -> RunResult:
    """What wrk and wrk2 print; with ``--latency`` the percentiles are in it."""
    head = re.search(r"^Running \S+ test @ (\S+)", text, re.MULTILINE)
    rate = re.search(r"^Requests/sec:\s+([\d.]+)\s*^Transfer/sec:", text, re.MULTILINE)
    total = re.search(r"^\s+(\d{1,15}) requests in ", text, re.MULTILINE)
    if head is None or rate is None or total is None:
        what = next(what for what, found in (("Running … @", head), ("Requests/sec", rate), ("requests in", total)) if found is None)
        raise refusal(source, f"no line {what!r}", "the whole output of wrk", "it is cut off")
    try:
        name = urlsplit(head[1]).path or "/"
    except ValueError:
        name = head[1]
    count = int(total[1])
    if not count:
        raise refusal(source, "0 requests", "at least one request", "no requests prove nothing")
    errors = re.search(r"Non-2xx or 3xx responses: (\d{1,15})", text)
    socket = re.search(r"Socket errors: connect (\d{1,15}), read (\d{1,15}), write (\d{1,15}), timeout (\d{1,15})", text)
    bad = (int(errors[1]) if errors is not None else 0) + (sum(map(int, socket.groups())) if socket is not None else 0)
    series = [
        _one(name, "throughput", Node(_number(rate[1]), f"{source}: Requests/sec").number(), "requests_per_second"),
        *_counts(name, count, bad),
    ]
    seen: set[str] = set()
    for percent, value, unit in re.findall(r"^\s+(\d{1,3}(?:\.\d+)?)%\s+([\d.]+)(us|ms|s|m|h)\s*$", text, re.MULTILINE):
        metric = _PERCENTILES.get(f"{float(percent):g}%")
        if metric is not None and metric not in seen:
            seen.add(metric)
            digits = len(value.partition(".")[2])
            seconds = Node(_number(value), f"{source}: {percent}%").number() * _WRK_UNITS[unit]
            series.append(_one(name, metric, seconds, rounding=_WRK_UNITS[unit] / _OF_TEN**digits / 2))
    notes = () if seen else ("no percentiles: wrk prints them with --latency",)
    return RunResult(tuple(series), source, form="wrk", notes=notes)


def _stem(source: str) -> str:
    return source.replace("\\", "/").rpartition("/")[2].partition(".")[0] or source


def is_k6_line(line: str) -> bool:
    """Whether a first line is one of ``--out json``."""
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("type") in ("Metric", "Point") and "metric" in found
