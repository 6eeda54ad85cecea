"""Change the sources of one group in small wrong ways and count which changes its tests notice: ``python -m tests.mutation.run gate``.

All is imported and collected once. The tests run once more under coverage, in a child, to learn which of them reach which line. Then each
mutant has a child of its own: it gets the changed code in place of the function's, runs the tests that reach the line, the fastest first,
and ends at the first that fails. A mutant that no test reaches survives. One that takes several times as long as they do counts as
noticed, for nobody would wait.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from types import CodeType, FunctionType
from typing import TYPE_CHECKING, Any

import pytest

from tests.mutation.edits import Mutant, mutants
from tests.mutation.groups import GROUPS, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


KILLED, SURVIVED, UNREACHED, SLOW, SAME = "killed", "survived", "not reached", "too slow", "cannot be swapped"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
_FAILED, _PASSED, _IMPOSSIBLE = 1, 0, 77
_ENDED = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
_PATIENCE, _LEAST = 4.0, 10.0
"""How many times as long as its tests a mutant may take, and how many seconds more."""


class Lane:
    """The loop of pytest, in which the mutants take the place of one run."""

    def __init__(self, files: list[Path], shard: int, shards: int, found: dict[str, Any], deadline: float, only: str = "") -> None:
        self.files, self.shard, self.shards, self.found, self.deadline, self.only = files, shard, shards, found, deadline, only

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run everything once, then everything that matters for each mutant."""
        for file in self.files:
            importlib.import_module(".".join(file.relative_to(ROOT / "src").with_suffix("").parts))
        gc.collect()
        gc.freeze()
        reached, seconds, failed = self._reach(session)
        self.found["failed"] = [session.items[index].nodeid for index in failed]
        number = 0
        for file in self.files:
            source = file.read_text(encoding="utf-8")
            tree = ast.parse(source)
            living = list(_living(str(file)))
            lines = reached.get(str(file), {})
            for mutant in mutants(tree, source):
                number += 1
                if number % self.shards != self.shard or self.only not in f"{file}:{mutant.name}":
                    continue
                if time.monotonic() > self.deadline:
                    self.found["unfinished"] = True
                    return True
                chosen = sorted(set(lines.get(mutant.line, ())) - failed, key=lambda index: (seconds[index], index))
                result = UNREACHED
                if chosen:
                    limit = _LEAST + _PATIENCE * sum(seconds[index] for index in chosen)
                    result = self._try(session, tree, file, mutant, living, [session.items[index] for index in chosen], limit)
                self.found["results"].append((str(file.relative_to(ROOT / "src" / "somaresil")), mutant.line, mutant.name, result))
        return True

    def _reach(self, session: pytest.Session) -> tuple[dict[str, dict[int, list[int]]], dict[int, float], set[int]]:
        """Which lines each test reaches, how long it takes, and which fail without any change."""
        with tempfile.NamedTemporaryFile(suffix=".json") as told:
            child = os.fork()
            if not child:
                _alone()
                import coverage

                seconds, failed = {}, []
                watch = coverage.Coverage(data_file=None, config_file=False, include=[str(file) for file in self.files])
                watch.start()
                for index, item in enumerate(session.items):
                    watch.switch_context(str(index))
                    began, before = time.perf_counter(), session.testsfailed
                    following = session.items[index + 1] if index + 1 < len(session.items) else None
                    session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    seconds[index] = time.perf_counter() - began
                    if session.testsfailed > before:
                        failed.append(index)
                watch.stop()
                data = watch.get_data()
                lines = {
                    file: {line: [*map(int, filter(None, of))] for line, of in data.contexts_by_lineno(file).items()}
                    for file in data.measured_files()
                }
                Path(told.name).write_text(json.dumps([lines, seconds, failed]), encoding="utf-8")
                os._exit(0)
            os.waitpid(child, 0)
            lines, seconds, failed = json.loads(Path(told.name).read_text(encoding="utf-8"))
        return (
            {file: {int(line): of for line, of in each.items()} for file, each in lines.items()},
            {int(index): value for index, value in seconds.items()},
            set(failed),
        )

    def _try(
        self,
        session: pytest.Session,
        tree: ast.Module,
        file: Path,
        mutant: Mutant,
        living: list[FunctionType],
        items: list[pytest.Item],
        limit: float,
    ) -> str:
        child = os.fork()
        if not child:
            _alone()
            try:
                _swap(tree, file, mutant, living)
            except (SyntaxError, ValueError):
                os._exit(_IMPOSSIBLE)
            code = _FAILED
            try:
                for index, item in enumerate(items):
                    following = items[index + 1] if index + 1 < len(items) else None
                    session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                    if session.testsfailed:
                        break
                code = _FAILED if session.testsfailed else _PASSED
            finally:
                os._exit(code)
        ends = time.monotonic() + limit
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                _end(child)
                code = os.waitstatus_to_exitcode(status)
                return SURVIVED if code == _PASSED else SAME if code == _IMPOSSIBLE else KILLED
            if time.monotonic() > ends:
                _end(child)
                os.waitpid(child, 0)
                return SLOW
            time.sleep(0.004)


def _alone() -> None:
    """Make this child the head of its own group, and let it say nothing."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)


def _end(child: int) -> None:
    """End the child, and whatever it has started."""
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _living(file: str) -> Iterator[FunctionType]:
    """Give all functions that came from this file, wherever they are kept: in classes, behind decorators, in tables."""
    gc.unfreeze()
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__.co_filename == file:
            yield each


def _swap(tree: ast.Module, file: Path, mutant: Mutant, living: list[FunctionType]) -> None:
    ast.fix_missing_locations(tree)
    new = {(code.co_qualname, code.co_firstlineno): code for code in _codes(compile(tree, str(file), "exec", dont_inherit=True))}
    done = False
    for function in living:
        key = (function.__code__.co_qualname, function.__code__.co_firstlineno)
        if key in new and (key[0] == mutant.where or key[0].startswith(f"{mutant.where}.<locals>")):
            function.__code__ = new[key]
            done = True
    if not done:
        raise ValueError(mutant.where)


def _codes(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _codes(each)


# -- the table ----------------------------------------------------------------------------------------------------------------------------


def _excused(group: str) -> dict[str, str]:
    """What cannot be told from the original by any behaviour, with the reason."""
    if not EQUIVALENT.exists():
        return {}
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get(group, [])
    return {f"{each['file']}: {each['mutant']}": each["reason"] for each in listed}


def table(group: str, results: list[tuple[str, int, str, str]], floor: float, most: float) -> bool:
    """Print a line a file and all survivors; whether the floor is held."""
    excused = _excused(group)
    results = [each for each in results if each[3] != SAME]
    rows: dict[str, list[int]] = {}
    survivors = []
    alike = 0
    for file, line, name, result in results:
        row = rows.setdefault(file, [0, 0, 0])
        row[0] += 1
        if result in {KILLED, SLOW}:
            row[1] += 1
        elif f"{file}: {name}" in excused:
            row[2] += 1
            alike += 1
        else:
            survivors.append(f"  {file}:{line}: {name} ({result})")
    print(f"\n{'file':<34}{'mutants':>8}{'noticed':>8}{'alike':>7}{'share':>8}")
    for file, (total, killed, same) in rows.items():
        print(f"{file:<34}{total:>8}{killed:>8}{same:>7}{100 * killed / max(1, total - same):>7.1f}%")
    total, killed = len(results), sum(row[1] for row in rows.values())
    share = 100 * killed / max(1, total - alike)
    print(f"{group:<34}{total:>8}{killed:>8}{alike:>7}{share:>7.1f}%")
    if survivors:
        print("not noticed:", *survivors, sep="\n")
    if alike > most / 100 * total:
        print(f"{alike} of {total} are said to be alike, more than {most:g} %")
        return False
    return total > 0 and share >= floor


def _lane(asked: argparse.Namespace, files: list[Path], share: int, deadline: float, place: str) -> dict[str, Any]:
    """Try every n-th mutant; all that was found."""
    found: dict[str, Any] = {"results": [], "failed": [], "unfinished": False, "status": 0}
    lane = Lane(files, share, asked.lanes, found, deadline, asked.only)
    tests = [str(ROOT / each) for each in asked.test or GROUPS[asked.group].tests]
    options = ["-p", "no:xdist", "-p", "no:cacheprovider", "-q", "--timeout", "0", "--basetemp", f"{place}/{share}", "--rootdir", str(ROOT)]
    found["status"] = int(pytest.main([*options, *tests], plugins=[lane]))
    return found


def main() -> int:
    """Run one group, or a part of it; 0 if the floor is held, 1 if not, 2 if it could not be found out."""
    parser = argparse.ArgumentParser(description="Change the sources of one group and count what its tests notice.")
    parser.add_argument("group", choices=GROUPS)
    parser.add_argument("--file", action="append", default=[], help="only this file of the group, such as model/breaker.py")
    parser.add_argument("--test", action="append", default=[], help="only with this file or folder of tests: quicker, and notices no more")
    parser.add_argument("--only", default="", help="only mutants whose file and name have this in them")
    parser.add_argument("--lanes", type=int, default=1, help="processes that share the mutants")
    parser.add_argument("--seconds", type=float, default=7_200.0, help="stop after so long; not to have been through them all is a failure")
    parser.add_argument("--floor", type=float, default=95.0, help="the share that must be noticed, in percent")
    parser.add_argument("--alike", type=float, default=3.0, help="the share that may be listed as equivalent, in percent")
    asked = parser.parse_args()
    files = [file for file in GROUPS[asked.group].files() if not asked.file or any(str(file).endswith(each) for each in asked.file)]
    os.nice(19)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        children = []
        for share in range(asked.lanes):
            child = os.fork()
            if not child:
                _alone()
                told = json.dumps(_lane(asked, files, share, began + asked.seconds, place))
                Path(place, f"{share}.json").write_text(told, encoding="utf-8")
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        lanes = [json.loads(each.read_text(encoding="utf-8")) for each in sorted(Path(place).glob("*.json"))]
    for each in sorted({name for lane in lanes for name in lane["failed"]}):
        print(f"fails without any change, and was left out: {each}")
    held = table(asked.group, sorted(tuple(each) for lane in lanes for each in lane["results"]), asked.floor, asked.alike)
    print(f"{time.monotonic() - began:.0f} s")
    if len(lanes) < asked.lanes or any(lane["unfinished"] or lane["status"] not in _ENDED for lane in lanes):
        print("not all of it could be tried")
        return 2
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
