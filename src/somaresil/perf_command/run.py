"""What each of the commands ``somaresil perf …`` does."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.chance import Chance
from somaresil.clock import SystemClock
from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.perf.ab import PairedTest
from somaresil.perf.budget import PLAN_BUDGETS, BudgetStatus, PerformanceBudget
from somaresil.perf.budgetcheck import check_budgets
from somaresil.perf.detector import Change, RegressionDetector
from somaresil.perf.machine import this_machine
from somaresil.perf.read import read_results, read_text
from somaresil.perf.read.node import refusal
from somaresil.perf.read.tables import lines_of
from somaresil.perf.samples import merge
from somaresil.perf.store import Point, ResultStore, history_of
from somaresil.perf_command.git import Repository
from somaresil.perf_command.measure import Arm, Meter, measure_pairs
from somaresil.perf_command.report import (
    BudgetsReport,
    ComparisonReport,
    HistoryReport,
    HistoryRow,
    Report,
    Row,
    Side,
    exit_code,
    to_json,
    to_text,
)
from somaresil.perf_command.sides import chosen, compared, found_of, mismatch

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from somaresil.perf.detector import Comparison
    from somaresil.perf.samples import RunResult
    from somaresil.perf_command.measure import Pairs
    from somaresil.typing import Clock

__all__ = ["COMMANDS", "run"]

_HERE: Final = "."
_PAIRED: Final = {"minimum_effect": 0.02, "alpha": 0.05}
_APART: Final = {"minimum_effect": 0.05, "alpha": 0.01}
_SETUP_SECONDS: Final = 1800.0


@dataclass(frozen=True, slots=True)
class _World:
    """What the commands need of the world around them."""

    clock: Clock
    folder: Path
    repository: Repository
    say: Callable[[str], None]


def run(arguments: argparse.Namespace, clock: Clock | None = None) -> int:
    """Do it, print, write, and give the exit code: 0, 1, 2."""
    world = _World(clock or SystemClock(), Path(), Repository(Path()), _say)
    try:
        done = COMMANDS[arguments.action](arguments, world)
        if done is None:
            return 0
        files = {form: path for form in ("json", "markdown", "html") if (path := getattr(arguments, f"{form}_file")) is not None}
        printed = "json" if arguments.json else arguments.format
        texts = _texts(done, {printed, *files})
        for form, path in files.items():
            _write(form, path, texts[form])
        print(texts[printed], end="", flush=True)
    except ConfigurationError as wrong:
        print(f"somaresil perf {arguments.action}: {wrong}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever reads has seen enough; what follows is said by the exit code.
        sys.stderr.close()
        return 2
    except Exception as defect:  # noqa: BLE001 - whatever it is, it has decided nothing: 1 would say that something regressed
        print(f"somaresil perf {arguments.action}: {type(defect).__qualname__} in the command itself", file=sys.stderr)
        return 2
    return done.exit_code


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _texts(report: Report, wanted: set[str]) -> dict[str, str]:
    found = {"text": to_text(report), "json": to_json(report)}
    if wanted & {"markdown", "html"}:
        from somaresil.perf_command.pages import to_html, to_markdown

        found |= {"markdown": to_markdown(report), "html": to_html(report)}
    return found


def _write(form: str, path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as failed:
        raise refusal(f"--{form}", path, "a file that can be written", failed.strerror or type(failed).__name__) from None


# -- two versions -------------------------------------------------------------------------------------------------------------------------


def _compare(arguments: argparse.Namespace, world: _World) -> Report | None:
    if arguments.run_command is not None:
        if len(arguments.baseline) != 1 or len(arguments.current) != 1:
            raise refusal("--run", arguments.baseline, "one commit a side", "it measures them itself")
        return _paired_commits(arguments, world, arguments.baseline[0], arguments.current[0], _words("--run", arguments.run_command))
    detector = RegressionDetector(
        quantile=arguments.quantile, adjust=arguments.adjust, ordered=not arguments.unordered, **_options(arguments, _APART)
    )
    store = ResultStore(arguments.store)
    sides = [
        found_of(names, store, world.repository, notes=arguments.notes, form=arguments.results, unit=arguments.unit)
        for names in (arguments.baseline, arguments.current)
    ]
    rows, notes = compared(
        sides[0],
        sides[1],
        detector,
        metrics=arguments.metric,
        other_machine=arguments.allow_other_machine,
        missing=arguments.allow_missing,
    )
    return _comparison(arguments, (sides[0].side, sides[1].side), rows, detector, paired=False, notes=notes)


def _ab(arguments: argparse.Namespace, world: _World) -> Report | None:
    parts = _parts(arguments.commands)
    if arguments.baseline is not None or arguments.current is not None:
        if arguments.baseline is None or arguments.current is None or len(parts) != 1:
            raise refusal("--baseline", arguments.baseline, "two commits, --baseline and --current, and one command behind --")
        return _paired_commits(arguments, world, arguments.baseline, arguments.current, parts[0])
    if len(parts) != 2:  # noqa: PLR2004 - a pair
        raise refusal("commands", len(parts), "two commands: somaresil perf ab -- CMD_A -- CMD_B")
    first, second = (Arm(shlex.join(words), words, world.folder) for words in parts)
    return _paired(arguments, world, (first, second), (Side(first.label), Side(second.label)), ())


def _parts(words: Sequence[str]) -> list[tuple[str, ...]]:
    """The commands between the marks ``--``."""
    found: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            found.append([])
        else:
            found[-1].append(word)
    return [tuple(each) for each in found if each]


def _words(option: str, text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError as broken:
        raise refusal(option, text, "a command", str(broken)) from None
    if not words:
        raise refusal(option, text, "a command")
    return words


def _paired_commits(arguments: argparse.Namespace, world: _World, baseline: str, current: str, words: tuple[str, ...]) -> Report:
    """A command measured in checkouts of two commits; ``.`` is the working directory as it is."""
    with ExitStack() as stack:
        arms, sides, notes = [], [], []
        for label in (baseline, current):
            commit = None if label == _HERE else world.repository.commit_of(label)
            folder = world.folder if commit is None else stack.enter_context(world.repository.worktree(commit))
            if commit is not None and arguments.setup is not None:
                _set_up(label, _words("--setup", arguments.setup), folder)
            arms.append(Arm(label, words, folder))
            sides.append(Side(label, commit))
        if _HERE not in {baseline, current} and world.repository.is_dirty():
            notes.append("the working tree has changes that are in neither of the two commits")
        return _paired(arguments, world, (arms[0], arms[1]), (sides[0], sides[1]), tuple(notes))


def _set_up(label: str, words: tuple[str, ...], folder: Path) -> None:
    try:
        done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SETUP_SECONDS, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as failed:
        raise refusal(f"--setup in {label}", words[0], "a program that ends", type(failed).__name__) from None
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[-300:]
        raise refusal(f"--setup in {label}", f"exit code {done.returncode}", "0", said or "it says nothing on stderr")


def _paired(
    arguments: argparse.Namespace, world: _World, arms: tuple[Arm, Arm], sides: tuple[Side, Side], notes: tuple[str, ...]
) -> Report:
    test = PairedTest(fewest=arguments.pairs, most=max(arguments.pairs, arguments.most_pairs), **_options(arguments, _PAIRED))
    meter = Meter(world.clock, figure=arguments.measure, timeout=arguments.timeout, form=arguments.results, metrics=tuple(arguments.metric))

    def told(count: int, comparisons: tuple[Comparison, ...]) -> None:
        worst = next((each for each in comparisons if each.change is Change.REGRESSED), comparisons[0])
        world.say(f"{count} pairs: {worst.name} {worst.reason}")

    pairs = measure_pairs(arms, test, meter, Chance(arguments.seed), told=told)
    machine = str(this_machine())
    done = (replace(sides[0], machine=machine), replace(sides[1], machine=machine))
    return _comparison(arguments, done, _rows(pairs), test, paired=True, notes=notes)


def _rows(pairs: Pairs) -> tuple[Row, ...]:
    keys = sorted(pairs.baseline)
    return tuple(
        Row(key[0], key[1], pairs.baseline[key].unit, found, pairs.baseline[key].values, pairs.current[key].values)
        for key, found in zip(keys, pairs.comparisons, strict=True)
    )


def _options(arguments: argparse.Namespace, defaults: Mapping[str, float]) -> dict[str, Any]:
    return {name: default if getattr(arguments, name) is None else getattr(arguments, name) for name, default in defaults.items()}


def _comparison(
    arguments: argparse.Namespace,
    sides: tuple[Side, Side],
    rows: tuple[Row, ...],
    judge: RegressionDetector | PairedTest,
    *,
    paired: bool,
    notes: tuple[str, ...],
) -> ComparisonReport:
    changes = {row.comparison.change for row in rows}
    return ComparisonReport(
        baseline=sides[0],
        current=sides[1],
        rows=rows,
        paired=paired,
        minimum_effect=judge.minimum_effect,
        alpha=judge.alpha,
        exit_code=_code(arguments, bad=Change.REGRESSED in changes, undecided=Change.UNKNOWN in changes),
        notes=notes,
    )


def _code(arguments: argparse.Namespace, *, bad: bool, undecided: bool) -> int:
    return exit_code(bad=bad, undecided=undecided, fail=arguments.fail_on_regression, allow_unknown=arguments.allow_unknown)


# -- over time ----------------------------------------------------------------------------------------------------------------------------


def _history(arguments: argparse.Namespace, world: _World) -> Report | None:
    detector = RegressionDetector(minimum_points=arguments.minimum_points, **_options(arguments, _APART))
    notes: list[str] = []
    if arguments.prometheus is not None:
        points, found = _from_prometheus(arguments, world)
        results: tuple[RunResult, ...] = (found,)
        notes += found.notes
    else:
        store = ResultStore(arguments.store)
        order = None if arguments.branch is None else world.repository.order(arguments.branch)
        results = store.all()
        if arguments.notes:
            results += _noted(world.repository, results)
        points = history_of(results, order)
        left = sum(result.commit not in order for result in results) if order is not None else 0
        if left:
            notes.append(f"{left} recordings of commits that are not in {arguments.branch} were left out")
    known = chosen(merge(results), arguments.metric) if results else {}
    rows = []
    for key, all_of in points.items():
        if key not in known or (arguments.name and not any(part in key[0] for part in arguments.name)):
            continue
        shown, other = _of_one_machine(all_of)
        if other:
            notes.append(f"{key[0]} ({key[1]}): {other} recordings of other machines than the last were left out")
        series = known[key]
        judged = detector.history([point.value for point in shown], better=series.better, recent=arguments.recent, name=key[0])
        rows.append(HistoryRow(key[0], key[1], series.unit, judged, shown))
    if not rows:
        raise refusal(arguments.prometheus or arguments.store, "no history", "recordings", "record results with `somaresil perf record`")
    changes = {row.history.change for row in rows}
    code = _code(arguments, bad=Change.REGRESSED in changes, undecided=Change.UNKNOWN in changes)
    return HistoryReport(tuple(rows), detector.alpha, code, tuple(notes))


def _noted(repository: Repository, known: tuple[RunResult, ...]) -> tuple[RunResult, ...]:
    """What stands in notes and is not known yet."""
    found: list[RunResult] = []
    for commit in repository.noted():
        found += read_text(repository.note_of(commit), f"note of {commit[:12]}", "somaresil")
    return tuple(each for each in found if each not in known)


def _of_one_machine(points: tuple[Point, ...]) -> tuple[tuple[Point, ...], int]:
    """The points that were measured on a machine like that of the last, and how many were not."""
    last = points[-1].machine
    if last is None:
        return points, 0
    shown = tuple(point for point in points if point.machine is None or not last.differences(point.machine))
    return shown, len(points) - len(shown)


def _from_prometheus(arguments: argparse.Namespace, world: _World) -> tuple[dict[tuple[str, str], tuple[Point, ...]], RunResult]:
    from somaresil.integrations._prometheus_api import Authorization, ask_range, check_url

    check = Checker("history")
    check_url(check, arguments.prometheus)
    query = str(arguments.query or "")
    if not query:
        check.problem("--query", arguments.query, "an expression of PromQL")
    credentials = Authorization.given(check, token_env=arguments.token_env)
    check.number("--days", arguments.days, minimum=0.0, maximum=3_650.0, exclusive=True)
    check.seconds("--step", arguments.step, maximum=31_536_000.0)
    check.seconds("--timeout", arguments.timeout, minimum=0.1, exclusive=False, maximum=600.0)
    check.finish()
    end = world.clock.time()
    span = arguments.days * 86_400.0
    try:
        text = ask_range(arguments.prometheus, query, (end - span, end, arguments.step), arguments.timeout, credentials)
    except (OSError, ValueError) as failed:
        raise refusal("--prometheus", query, "an answer", str(failed)[:200]) from None
    (found,) = read_text(text, "prometheus", "prometheus", unit=arguments.unit)
    return {each.key: tuple(Point(value, found.at or end, None, None, 1) for value in each.values) for each in found.series}, found


def _record(arguments: argparse.Namespace, world: _World) -> Report | None:
    store = ResultStore(arguments.store)
    given = None if arguments.commit is None else world.repository.commit_of(arguments.commit)
    kept: list[str] = []
    for path in arguments.files:
        for read in read_results(path, arguments.results, unit=arguments.unit):
            commit = given or read.commit or world.repository.commit_of("HEAD")
            at = world.clock.time() if read.at is None else read.at
            machine, notes = read.machine, read.notes
            if machine is None:
                machine, notes = this_machine(), (*notes, "the machine is that of the recording")
            # Where a file lay on somebody's machine is nobody's business.
            result = replace(read, commit=commit, at=at, machine=machine, notes=notes, source=Path(read.source).name)
            if arguments.git_note:
                world.repository.add_note(commit, "\n".join(lines_of(result)))
                kept.append(f"note of {commit[:12]}")
            else:
                kept.append(str(store.add(result)))
            if not arguments.json:
                print(kept[-1])
    if arguments.json:
        print(json.dumps({"kept": kept}, indent=2))
    return None


# -- budgets ------------------------------------------------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace, world: _World) -> Report | None:
    del world
    budgets = PLAN_BUDGETS if arguments.budgets is None else _budgets(arguments.budgets)
    results = [
        result for path in arguments.files for result in read_results(path, arguments.results, name=arguments.name, unit=arguments.unit)
    ]
    reports = check_budgets(budgets, merge(results), confidence=arguments.confidence, undecided=arguments.undecided)
    statuses = {each.status for each in reports}
    code = exit_code(
        bad=BudgetStatus.BROKEN in statuses, undecided=BudgetStatus.UNKNOWN in statuses, fail=True, allow_unknown=arguments.allow_unknown
    )
    notes = [*dict.fromkeys(f"{result.form}: {note}" for result in results for note in result.notes)]
    if differs := mismatch(results):
        notes.append(f"different machines: {differs}")
    return BudgetsReport(reports, tuple(Path(result.source).name for result in results), code, tuple(notes))


def _budgets(path: str) -> tuple[PerformanceBudget, ...]:
    from somaresil.settings.files import document_of

    check = Checker()
    document = document_of(path, check)
    check.finish()
    data: Mapping[str, Any] = {} if document is None else document.data
    tables = data.get("budgets")
    for name in data:
        if name != "budgets":
            check.problem(f"{path}: {name}", data[name], "a list of tables [[budgets]]")
    if not isinstance(tables, list) or not tables:
        check.problem(f"{path}: budgets", tables, "a list of tables [[budgets]]", "no budget is always kept")
        tables = []
    found: list[PerformanceBudget] = []
    for place, table in enumerate(tables):
        if not isinstance(table, dict):
            check.problem(f"{path}: budgets[{place}]", table, "a table")
            continue
        try:
            found.append(PerformanceBudget.of(table, path=f"{path}: budgets[{place}]"))
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                check.problem(problem.path, problem.value, problem.allowed, problem.hint)
    for endpoint in _twice(each.endpoint for each in found):
        check.problem(f"{path}: budgets", endpoint, "one budget an endpoint", "it is there twice")
    check.finish()
    return tuple(found)


def _twice(names: Iterable[str]) -> list[str]:
    listed = list(names)
    return sorted({name for name in listed if listed.count(name) > 1})


COMMANDS: Final[dict[str, Callable[[argparse.Namespace, _World], Report | None]]] = {
    "compare": _compare,
    "ab": _ab,
    "history": _history,
    "record": _record,
    "check": _check,
}
