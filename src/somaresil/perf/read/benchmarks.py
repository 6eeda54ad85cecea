"""Results of tools that run code again and again: pytest-benchmark, pyperf, hyperfine."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from somaresil.perf.machine import Machine
from somaresil.perf.read.node import gather, refusal
from somaresil.perf.samples import RunResult, Series, base_unit, unit_hint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.perf.read.node import Node

__all__ = ["commit_of", "hyperfine", "moment_of", "pyperf", "pytest_benchmark"]

_SUMMARY: Final = {"min": "minimum", "mean": "mean", "median": "p50", "max": "maximum"}
_PYTEST_BENCHMARK: Final = ("3", "4", "5")
"""Major versions of pytest-benchmark whose files are alike."""
_PYPERF: Final = "1.0"
_HASH: Final = 40
_BYTES: Final = "byte"


def pytest_benchmark(root: Node, source: str) -> RunResult:
    """What ``--benchmark-json`` writes; with ``--benchmark-save-data`` every round, else only its summary."""
    version = root["version"].text()
    if version.partition(".")[0] not in _PYTEST_BENCHMARK:
        raise refusal(root["version"].path, version, f"a file of pytest-benchmark {', '.join(_PYTEST_BENCHMARK)}")
    summaries = 0

    def read(benchmark: Node) -> Iterator[Series]:
        nonlocal summaries
        name, stats = benchmark["fullname"].text(), benchmark["stats"]
        data = stats.find("data")
        if data is not None and data.value != []:
            yield Series(name, "seconds", tuple(data.numbers()))
            return
        summaries += 1
        for key, metric in _SUMMARY.items():
            yield Series(name, "seconds", (stats[key].number(),), metric=metric)

    series = gather(root["benchmarks"].each(), read)
    notes = (f"{summaries} benchmarks without their rounds: --benchmark-save-data keeps them",) if summaries else ()
    info, commit = root.find("machine_info"), root.find("commit_info")
    stamp = root.find("datetime")
    return RunResult(
        series,
        source,
        commit=None if commit is None else commit_of(commit.mapping().get("id")),
        at=None if stamp is None else moment_of(stamp.value),
        machine=None if info is None else _machine(info),
        form="pytest-benchmark",
        notes=notes,
    )


def _machine(info: Node) -> Machine:
    given = info.mapping()
    cpu = given.get("cpu")
    cpu = cpu if isinstance(cpu, dict) else {}
    count = cpu.get("count")
    return Machine(
        cpu=_word(cpu.get("brand_raw") or cpu.get("brand") or given.get("processor")),
        cores=count if isinstance(count, int) and 0 < count < 1 << 20 else 0,
        python=f"{_word(given.get('python_implementation'))} {_word(given.get('python_version'))}",
        os=f"{_word(given.get('system'))} {_word(given.get('machine'))}",
    )


def pyperf(root: Node, source: str) -> RunResult:
    """What ``-o FILE`` writes. Values of one process are alike, so each process gives one: their mean."""
    version = root["version"].value
    if version != _PYPERF:
        raise refusal(root["version"].path, version, f"format {_PYPERF} of pyperf")
    shared = root.find("metadata")
    common = {} if shared is None else shared.mapping()
    last: list[float] = []

    def read(benchmark: Node) -> Iterator[Series]:
        own = benchmark.find("metadata")
        metadata = {**common, **({} if own is None else own.mapping())}
        unit = metadata.get("unit", "second")
        known = base_unit(unit) if isinstance(unit, str) else None
        if known is None:
            raise refusal(f"{benchmark.path}.metadata.unit", unit, "second, byte or integer", unit_hint(unit))
        values: list[float] = []
        for run in benchmark["runs"].each():
            given = run.find("values")
            if given is not None:
                measured = given.numbers()
                values.append(math.fsum(measured) / len(measured) * known[1])
            details = run.find("metadata")
            if details is not None and (moment := moment_of(details.mapping().get("date"))) is not None:
                last.append(moment)
        if not values:
            raise refusal(f"{benchmark.path}.runs", "no values", "at least one run with values")
        metric = "memory" if unit == _BYTES else "duration"
        yield Series(_named(metadata.get("name"), source), known[0], tuple(values), metric=metric)

    series = gather(root["benchmarks"].each(), read)
    first = root["benchmarks"].each()[0].find("metadata")
    metadata = {**common, **({} if first is None else first.mapping())}
    count = metadata.get("cpu_count")
    # "3.11.7 (64-bit)" and "cpython" are how pyperf writes them.
    python = _word(metadata.get("python_version")).partition(" ")[0]
    implementation = _word(metadata.get("python_implementation")).replace("cpython", "CPython")
    machine = Machine(
        cpu=_word(metadata.get("cpu_model_name")),
        cores=count if isinstance(count, int) and 0 < count < 1 << 20 else 0,
        python=f"{implementation} {python}" if python else "",
    )
    return RunResult(series, source, at=max(last, default=None), machine=machine, form="pyperf")


def hyperfine(root: Node, source: str) -> RunResult:
    """What ``--export-json`` writes: the duration of each run of each command."""

    def read(result: Node) -> Iterator[Series]:
        codes = result.find("exit_codes")
        for code in [] if codes is None else codes.each():
            if code.value not in (0, None):
                raise refusal(code.path, code.value, "0", "a command that fails is not measured")
        yield Series(result["command"].text(), "seconds", tuple(result["times"].numbers()))

    return RunResult(gather(root["results"].each(), read), source, form="hyperfine")


def commit_of(value: object) -> str | None:
    """A full hash of a commit; None for anything else."""
    if isinstance(value, str) and len(value) >= _HASH and all(c in "0123456789abcdef" for c in value) and len(value) <= _HASH * 2:
        return value
    return None


def moment_of(value: object) -> float | None:
    """Seconds since 1970 of a time that a tool has written, in UTC when it does not say its zone; None when it is none."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _named(value: object, source: str) -> str:
    return value if isinstance(value, str) and value else source


def _word(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
