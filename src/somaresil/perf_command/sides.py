"""The two sides of a comparison: files of results, or recordings of commits."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil.perf.detector import Change, Comparison
from somaresil.perf.read import read_results, read_text
from somaresil.perf.read.node import refusal
from somaresil.perf.samples import merge
from somaresil.perf_command.measure import NOT_COMPARED
from somaresil.perf_command.report import Row, Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from somaresil.perf.detector import RegressionDetector
    from somaresil.perf.machine import Machine
    from somaresil.perf.samples import RunResult, Series
    from somaresil.perf.store import ResultStore
    from somaresil.perf_command.git import Repository

__all__ = ["Found", "chosen", "compared", "found_of", "mismatch"]

_MOST_NOTES: Final = 20


@dataclass(frozen=True, slots=True)
class Found:
    """What was found for one side."""

    side: Side
    results: tuple[RunResult, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What its results say about themselves, each once."""
        return tuple(dict.fromkeys(f"{result.form}: {note}" for result in self.results for note in result.notes))


def found_of(
    names: Sequence[str], store: ResultStore, repository: Repository, *, notes: bool, form: str | None = None, unit: str | None = None
) -> Found:
    """The results in these files, or those that are recorded for these commits.

    Raises :class:`~somaresil.errors.ConfigurationError` for a name that is neither, and a commit of which nothing is recorded.
    """
    results: list[RunResult] = []
    commits: list[str] = []
    for name in names:
        if Path(name).is_file():
            results += read_results(name, form, unit=unit)
            continue
        commit = repository.commit_of(name)
        recorded = list(store.find(commit))
        if notes and (text := repository.note_of(commit)):
            recorded += [each for each in read_text(text, f"note of {commit[:12]}", "somaresil") if each not in recorded]
        if not recorded:
            hint = "record it with `somaresil perf record`, or measure it with --run"
            raise refusal(name, f"nothing is recorded of {commit[:12]}", "a commit with results", hint)
        commits.append(commit)
        results += recorded
    machines = {str(result.machine) for result in results if result.machine is not None}
    known = set(commits) | {result.commit for result in results if result.commit is not None}
    side = Side(
        ", ".join(names),
        commit=known.pop() if len(known) == 1 else None,
        machine=machines.pop() if len(machines) == 1 else "",
        sources=len(results),
    )
    return Found(side, tuple(results))


def mismatch(results: Iterable[RunResult]) -> str:
    """In what the machines of results differ; empty when in nothing that is known."""
    machines: list[Machine] = []
    for result in results:
        if result.machine is not None and result.machine not in machines:
            machines.append(result.machine)
    found = dict.fromkeys(
        words for place, one in enumerate(machines) for other in machines[place + 1 :] for words in one.differences(other)
    )
    return "; ".join(found)


def chosen(series: dict[tuple[str, str], Series], metrics: Sequence[str]) -> dict[tuple[str, str], Series]:
    """The series that are compared: of the metrics that were named, else of all that are worth it."""
    return {key: each for key, each in series.items() if (key[1] in metrics if metrics else key[1] not in NOT_COMPARED)}


def compared(
    baseline: Found, current: Found, detector: RegressionDetector, *, metrics: Sequence[str], other_machine: bool, missing: bool
) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """A row for each figure, and notes. What the baseline has and the current side lacks is unknown, unless ``missing`` allows it.

    Figures of different machines are unknown, unless ``other_machine`` allows it. Raises
    :class:`~somaresil.errors.ConfigurationError` for sides that have nothing in common, or disagree about units.
    """
    merge((*baseline.results, *current.results))
    before, after = chosen(merge(baseline.results), metrics), chosen(merge(current.results), metrics)
    both = sorted(key for key in before if key in after)
    if not both:
        told = ", ".join(sorted({f"{name} ({metric})" for name, metric in after})[:3]) or "nothing that is compared"
        raise refusal(current.side.label, told, "a figure that the baseline has too", f"it has {len(before)}")
    differs = mismatch((*baseline.results, *current.results))
    notes = [*dict.fromkeys((*baseline.notes, *current.notes))]
    if differs:
        notes.insert(0, f"different machines: {differs}")
    if any(result.machine is None for result in (*baseline.results, *current.results)):
        notes.append("the machine of some results is not known")
    samples = {_name(key): (before[key].values, after[key].values) for key in both}
    ways = {_name(key): before[key].better for key in both}
    comparisons = {each.name: each for each in detector.compare_all(samples, better=ways)}
    rows = []
    for key in both:
        found = comparisons[_name(key)]
        if differs and not other_machine:
            reason = f"the baseline is of another machine: {differs}; --allow-other-machine compares all the same"
            found = replace(found, change=Change.UNKNOWN, reason=reason)
        rows.append(Row(key[0], key[1], before[key].unit, found, before[key].values, after[key].values))
    gone = sorted(key for key in before if key not in after)
    if missing:
        notes += [f"not measured any more: {_name(key)}" for key in gone[:_MOST_NOTES]]
    else:
        rows += [_gone(before[key]) for key in gone]
    new = sorted(key for key in after if key not in before)
    notes += [f"new, with nothing to compare with: {_name(key)}" for key in new[:_MOST_NOTES]]
    return tuple(rows), tuple(notes)


def _gone(series: Series) -> Row:
    found = Comparison(
        name=_name(series.key),
        change=Change.UNKNOWN,
        reason="the baseline has it, and it was not measured now; --allow-missing lets it go",
        better=series.better,
        quantile=0.5,
        baseline_count=len(series.values),
        current_count=0,
    )
    return Row(series.name, series.metric, series.unit, found, series.values)


def _name(key: tuple[str, str]) -> str:
    return f"{key[0]} ({key[1]})"
