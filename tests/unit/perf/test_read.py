"""Files of every tool: what they say, and everything that may be wrong with them."""

from __future__ import annotations

import copy
import json
import os

import pytest

from somaresil.errors import ConfigurationError
from somaresil.perf import Machine
from somaresil.perf.read import FORMS, LARGEST, read_results, read_text
from somaresil.perf.read.tables import lines_of
from tests.unit.perf import kit


def figures_of(text, **given):
    """Give the series of the one result in a text, by name and metric."""
    (result,) = read_text(text, "out", **given)
    return {each.key: each for each in result.series}, result


def refused(text, **given):
    """Give what is said about a text that is no result."""
    with pytest.raises(ConfigurationError) as error:
        read_text(text, "out", **given)
    assert all(problem.path.startswith("out") for problem in error.value.problems)
    return str(error.value)


def changed(document, path, value):
    """Give a copy with another value at a path."""
    made = copy.deepcopy(document)
    place = made
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(made)


@pytest.mark.parametrize("name", kit.TEXTS)
def test_a_form_is_recognised_and_can_be_said(name):
    """Both give the same result."""
    form = name.partition("-")[0] if name != "pytest-benchmark" else name
    assert form in FORMS
    assert read_text(kit.TEXTS[name], "out") == read_text(kit.TEXTS[name], "out", form)
    assert read_text(kit.TEXTS[name], "out")[0].form == form


def test_pytest_benchmark_with_its_rounds():
    """Rounds, commit, time and machine, and no host name."""
    series, result = figures_of(kit.TEXTS["pytest-benchmark"])
    assert series[("tests/test_b.py::test_fast", "duration")].values == (1e-3, 2e-3, 4e-3)
    assert result.commit == kit.COMMIT
    assert result.when == "2026-11-27T19:17:43Z"
    assert result.machine == Machine("Some Processor", 2, "CPython 3.11.7", "Linux x86_64")
    assert "secret" not in repr(result)


def test_pytest_benchmark_without_its_rounds():
    """Only a summary is there, and that is said."""
    series, result = figures_of(changed(kit.PYTEST_BENCHMARK, ["benchmarks", 0, "stats", "data"], ...))
    assert {metric: each.values for (_, metric), each in series.items()} == {
        "minimum": (1e-3,),
        "mean": (2e-3,),
        "p50": (2e-3,),
        "maximum": (4e-3,),
    }
    assert "--benchmark-save-data" in result.notes[0]


def test_pyperf_gives_one_value_a_process():
    """Values of one process are alike: two processes have shown two things."""
    series, result = figures_of(kit.TEXTS["pyperf"])
    assert series[("timeit", "duration")].values == pytest.approx((2e-6, 4e-6))
    assert result.machine == Machine("Some Processor", 2, "CPython 3.11.7")
    assert result.when == "2026-11-27T19:17:47Z"
    assert "secret" not in repr(result)


def test_hyperfine():
    """Every run of a command."""
    series, _ = figures_of(kit.TEXTS["hyperfine"])
    assert series[("sleep 0", "duration")].values == (0.1, 0.3)


def test_locust_percentiles_carry_their_rounding():
    """Locust writes 2000 for anything from 1950 to 2050 milliseconds."""
    series, result = figures_of(kit.TEXTS["locust"])
    p95 = series[("GET /v1/items", "p95")]
    assert (p95.values, p95.rounding) == ((2.0,), 0.05)
    assert series[("GET /v1/items", "p90")].rounding == 0.0005
    assert series[("Aggregated", "p99.9")].rounding == 0.5
    assert series[("GET /v1/items", "error_rate")].values == (0.01,)
    assert series[("GET /v1/items", "throughput")].better == "higher"
    assert "two digits" in result.notes[0]


def test_locust_json_counts():
    """Percentiles from the counts, the rate from first to last."""
    series, _ = figures_of(kit.TEXTS["locust-json"])
    assert [series[("GET /v1/items", metric)].values[0] for metric in ("p50", "p95", "p99", "throughput", "error_rate")] == [
        0.003,
        0.02,
        2.0,
        10.0,
        0.05,
    ]


def test_k6_in_both_forms():
    """Milliseconds become seconds; what has no known unit is left out by name."""
    for name in ("k6", "k6-export"):
        series, result = figures_of(kit.TEXTS[name])
        assert series[("http_req", "p95")].values == (0.09,)
        assert series[("http_req", "p50")].values == (0.01,)
        assert series[("http_req", "throughput")].values == (10.0,)
        assert series[("http_req", "error_rate")].values == (0.25,)
        assert ("data_sent" if name == "k6" else "my_trend") in result.notes[0]
    series, _ = figures_of(kit.TEXTS["k6"])
    assert series[("http_req{name:login}", "p99.9")].values == (0.09,)
    assert series[("dropped_iterations", "dropped")].values == (3.0,)


def test_k6_lines():
    """By the name of the request, and what could not be started is counted."""
    series, result = figures_of(kit.TEXTS["k6-lines"])
    found = [series[("GET /a", metric)].values[0] for metric in ("p50", "p99", "throughput", "error_rate")]
    assert found == pytest.approx([0.03, 0.05, 1.25, 0.2])
    assert series[("dropped_iterations", "dropped")].values == (2.0,)
    assert result.when == "2026-11-27T19:00:04Z"


def test_oha_counts_bad_answers_as_errors():
    """Its success rate does not: 8 answers of 503 and 2 refused connections of 100 are a tenth."""
    series, _ = figures_of(kit.TEXTS["oha"], name="/v1/items")
    assert series[("/v1/items", "error_rate")].values == (0.1,)
    assert series[("/v1/items", "p99.9")].values == (0.004,)
    assert ("/v1/items", "p10") not in series


def test_wrk():
    """The path is the name; a percentile knows how many digits it has."""
    series, _ = figures_of(kit.TEXTS["wrk"])
    assert series[("/v1/items", "p50")].values == pytest.approx((716e-6,))
    assert series[("/v1/items", "p99")].rounding == pytest.approx(5e-6)
    assert series[("/v1/items", "error_rate")].values == (0.05,)
    _, result = figures_of("\n".join(line for line in kit.WRK.splitlines() if not line.startswith("     ")))
    assert "--latency" in result.notes[0]


def test_our_own_load():
    """Percentiles of its sketch are known within 1 %; latencies are those of good answers."""
    series, result = figures_of(kit.TEXTS["load"])
    assert series[("message", "p95")].values == (0.2,)
    assert series[("message", "p95")].rounding == pytest.approx(0.002)
    assert series[("message", "ttft_p50")].values == (0.02,)
    assert ("message", "ttft_p95") not in series
    assert [series[("message", name)].values[0] for name in ("throughput", "error_rate", "good", "dropped")] == [99.0, 0.01, 990.0, 2.0]
    assert (result.at, result.notes) == (1000.0, ("a note",))


def test_a_range_query_has_the_unit_of_its_name_or_the_one_given():
    """And none is guessed."""
    series, result = figures_of(kit.TEXTS["prometheus"])
    (((name, _), each),) = series.items()
    assert (name, each.unit, each.values) == ('request_seconds{path="/a"}', "seconds", (0.5, 0.25))
    assert result.when == "1970-01-01T00:17:40Z"
    bare = changed(kit.PROMETHEUS, ["data", "result", 0, "metric"], {})
    assert "give --unit" in refused(bare)
    assert "ms" in refused(bare, unit="msec")
    assert figures_of(bare, unit="ms")[0][("out", "value")].values == (0.0005, 0.00025)


def test_csv():
    """Rows of one series may have different units of one kind."""
    series, _ = figures_of(kit.TEXTS["csv"])
    assert series[("cold start", "duration")].values == (1.5, 1.25)
    assert series[("serve", "throughput")].better == "higher"


def test_our_lines_are_read_in_any_order_and_lead_back():
    """A result is the same after it was written; several in one text are told apart."""
    results = [read_text(text, f"{name}.json")[0] for name, text in kit.TEXTS.items()]
    lines = [line for result in results for line in lines_of(result)]
    assert list(read_text("\n".join(lines), "store")) == results
    again = read_text("\n".join(reversed(lines)), "store")
    assert {result.source: set(result.series) for result in again} == {result.source: set(result.series) for result in results}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        ("hello", "its format is not known"),
        ("{", "JSON"),
        ("{}", "its format is not known"),
        ('{"type": {}, "metric": 1}', "its format is not known"),
        ("[]", "its format is not known"),
        ("[" * 100_000, "nested"),
        ('{"a": 1, "a": 2}', "'a' stands twice"),
        (kit.TEXTS["pytest-benchmark"][:-30], "JSON"),
        (changed(kit.PYTEST_BENCHMARK, ["version"], "9.0.0"), "out: version = '9.0.0': expected a file of pytest-benchmark 3, 4, 5"),
        (changed(kit.PYTEST_BENCHMARK, ["benchmarks"], []), "an empty result proves nothing"),
        (
            changed(kit.PYTEST_BENCHMARK, ["benchmarks", 0, "stats", "data", 1], float("nan")),
            "out: benchmarks[0].stats.data[1] = nan: expected a finite number",
        ),
        (changed(kit.PYTEST_BENCHMARK, ["benchmarks", 0, "stats"], ...), "out: benchmarks[0].stats = 'nothing'"),
        (changed(kit.PYPERF, ["version"], "2.0"), "format 1.0 of pyperf"),
        (changed(kit.PYPERF, ["metadata", "unit"], "parsec"), "out: benchmarks[0].metadata.unit = 'parsec'"),
        (changed(kit.PYPERF, ["benchmarks", 0, "runs"], [{"metadata": {}}]), "at least one run with values"),
        (changed(kit.HYPERFINE, ["results", 0, "exit_codes", 0], 1), "a command that fails is not measured"),
        (changed(kit.HYPERFINE, ["results", 0, "times"], ["0.1"]), "out: results[0].times[0] = '0.1'"),
        (kit.LOCUST_CSV.replace(",2000,", ",N/A,"), "out:2: 95% = 'N/A'"),
        (kit.LOCUST_CSV.replace(",200,2,", ",0,0,"), "no requests prove nothing"),
        (kit.LOCUST_CSV.replace("95%", "95.5%"), "out:1 = '95%'"),
        (kit.LOCUST_CSV.partition("\n")[0] + "\n", "an empty result proves nothing"),
        (kit.LOCUST_CSV[:-4], "it is cut off"),
        (kit.LOCUST_CSV[:-40] + "\n", "expected a finite number"),
        (kit.WRK[:-30], "it is cut off"),
        (changed(kit.LOCUST_JSON, [0, "num_requests"], 0), "no requests prove nothing"),
        (changed(kit.LOCUST_JSON, [0, "response_times"], {"x": 1}), "out[0]: response_times.x"),
        (changed(kit.K6, ["metrics"], {}), "an empty result proves nothing"),
        (changed(kit.K6, ["metrics", "http_req_failed", "values"], {}), "out: metrics.http_req_failed.values.value"),
        (kit.K6_LINES + "\n{", "out:13"),
        (kit.K6_LINES.partition("\n")[0], "no requests prove nothing"),
        (changed(kit.OHA, ["statusCodeDistribution"], {}).replace('"connection refused": 2', ""), "no requests prove nothing"),
        (changed(kit.OHA, ["latencyPercentiles", "p95"], -1), "out: latencyPercentiles.p95 = -1"),
        (kit.WRK.replace("Requests/sec", "Req"), "it is cut off"),
        (kit.WRK.replace("2000 requests", "0 requests"), "no requests prove nothing"),
        (changed(kit.LOAD, ["version"], 2), "version 1"),
        (changed(kit.LOAD, ["complete"], False), "did not come to its end"),
        (changed(kit.LOAD, ["generator", "saturated"], ["cpu"]), "the generator was the slower one"),
        (changed(kit.LOAD, ["requests", "message", "ended"], 0), "no requests prove nothing"),
        (changed(kit.LOAD, ["requests"], {}), "an empty result proves nothing"),
        (changed(kit.PROMETHEUS, ["status"], "error"), "refused the query"),
        (changed(kit.PROMETHEUS, ["data", "resultType"], "vector"), "query_range"),
        (changed(kit.PROMETHEUS, ["data", "result"], []), "an empty result proves nothing"),
        (changed(kit.PROMETHEUS, ["data", "result", 0, "values", 1, 1], "NaN"), "out: data.result[0].values[1][1] = nan"),
        ("name,value\na,1\n", "out:1"),
        (changed(kit.PROMETHEUS, ["data", "result", 0, "values", 0], [1, "2", 3]), "a time and a value"),
        (changed(kit.PROMETHEUS, ["data", "result", 0, "values", 0, 1], "x"), "values[0][1] = 'x'"),
        (changed(kit.LOCUST_JSON, [0, "response_times"], {}), "at least one response time"),
        ('{"format":"somaresil-perf/1","better":"up"}', "lower or higher"),
        ("\n\n", "the file is empty"),
        ("name,value,unit\n", "an empty result proves nothing"),
        ("name,value,unit\na,1,\n", "it has none"),
        ("name,value,unit\na,1,msec\n", "did you mean 'ms'?"),
        ("name,value,unit\na,1,s\na,1,bytes\n", "out:3: unit"),
        ("name,value,unit\na,inf,s\n", "out:2: value = inf"),
        ("name,value,unit\na,1\n", "one for each of 3 columns"),
        ('name,value,unit\n"a,1,s\n', "CSV"),
        ("name,value,unit,better\na,1,s,up\n", "lower or higher"),
        ('{"format":"somaresil-perf/2"}', "somaresil-perf/1"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text, said):
    """Nothing passes in silence."""
    assert said in refused(text)


def test_a_format_is_one_of_those_known():
    """And the nearest is named."""
    with pytest.raises(ConfigurationError, match="did you mean 'hyperfine'"):
        read_text("x", "out", "hyperfin")


def test_many_problems_are_told_at_once_up_to_a_limit():
    """Who has a hundred has another problem."""
    rows = "".join(f"a{n},x,s\n" for n in range(100))
    with pytest.raises(ConfigurationError) as error:
        read_text(f"name,value,unit\n{rows}", "out")
    assert len(error.value.problems) == 20


def test_a_name_is_given_only_to_one_thing():
    """Two benchmarks cannot have the same."""
    two = changed(kit.HYPERFINE, ["results"], [kit.HYPERFINE["results"][0], {"command": "b", "times": [1.0]}])
    assert "2 names" in refused(two, name="both")


def test_files_that_are_none(tmp_path):
    """A folder, a missing file, a pipe, one that is too large, one that is no text."""
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST + 1)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe{")
    for name, said in {
        "": "Is a directory",
        "none.json": "No such file",
        "pipe": "no plain file",
        "large": f"at most {LARGEST} bytes",
        "bytes": "UTF-8",
    }.items():
        with pytest.raises(ConfigurationError, match=said):
            read_results(tmp_path / name)
    (tmp_path / "good.json").write_text("\ufeff" + kit.TEXTS["hyperfine"], encoding="utf-8")
    assert read_results(tmp_path / "good.json")[0].form == "hyperfine"
