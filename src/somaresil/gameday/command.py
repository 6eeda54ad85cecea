"""``somaresil gameday run`` and ``gameday check``: a plan from a file against a service of this process.

The exit codes are those of :attr:`GameDayReport.exit_code`; 2 as well for plans that cannot be read and services that cannot be imported.
Signals end every fault before anything else is done, from the handler itself, so also while the event loop is blocked; the report of what
happened is written all the same. A second signal ends the process as it would without us. The faults are leases anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import signal
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from somaresil.errors import ConfigurationError, describe
from somaresil.gameday.day import GameDay
from somaresil.gameday.html import to_html
from somaresil.gameday.junit import to_junit
from somaresil.gameday.markdown import to_markdown
from somaresil.gameday.remote import RemoteTarget
from somaresil.gameday.words import title_of
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator

    from somaresil.gameday.day import GameDayRun
    from somaresil.gameday.report import GameDayReport
    from somaresil.gameday.target import Target

__all__ = ["check", "run"]


class _Refused(Exception):
    """It cannot be run, and this is why."""


def check(arguments: argparse.Namespace) -> int:
    """Say what is wrong with a plan, or what is in it; the exit code."""
    try:
        gameday = GameDay.from_file(arguments.plan)
    except ConfigurationError as wrong:
        if arguments.json:
            print(json.dumps({"plan": arguments.plan, "problems": [str(each) for each in wrong.problems]}, indent=2))
        return _refuse(str(wrong))
    outline = [*_outline(gameday)]
    print(json.dumps({"plan": arguments.plan, "problems": [], "outline": outline}, indent=2) if arguments.json else "\n".join(outline))
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Play a plan, and write what came of it; the exit code."""
    try:
        gameday = GameDay.from_file(arguments.plan)
        play = _prepared(gameday, arguments)
        _writable(arguments)
    except (ConfigurationError, _Refused) as wrong:
        return _refuse(str(wrong))
    if arguments.dry_run:
        try:
            asyncio.run(play.check())
        except ConfigurationError as wrong:
            return _refuse(str(wrong))
        print("\n".join([*_outline(gameday), "dry run: nothing was injected"]))
        return 0
    try:
        report = asyncio.run(_play(play))
    except ConfigurationError as wrong:
        return _refuse(str(wrong))
    try:
        _write(report, arguments)
    except OSError as broken:
        print(report.to_json())
        return _refuse(f"the report cannot be written: {describe(broken)}")
    return report.exit_code


async def _play(play: GameDayRun) -> GameDayReport:
    with _signals(play.interrupt):
        return await play.run()


@contextlib.contextmanager
def _signals(interrupt: Callable[[str], object]) -> Generator[None]:
    """Have signals end the game day; the second of a kind does what it did before."""
    before: dict[int, Any] = {}

    def handle(number: int, _: object) -> None:
        # The handler that was there, for whoever does not want to wait.
        signal.signal(number, before.get(number) or signal.SIG_DFL)
        interrupt(signal.Signals(number).name)

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former or signal.SIG_DFL)


def _prepared(gameday: GameDay, arguments: argparse.Namespace) -> GameDayRun:
    target = _target(gameday, arguments)
    drive = None if arguments.drive is None else _loaded(arguments.drive)
    if drive is not None and not inspect.iscoroutinefunction(drive):
        raise _Refused(f"{arguments.drive} is no coroutine function (async def)")
    probes = {} if arguments.probes is None else _loaded(arguments.probes)
    if not isinstance(probes, dict) or not all(callable(function) for function in probes.values()):
        raise _Refused(f"{arguments.probes} is no dictionary of functions")
    prometheus = None if arguments.prometheus is None else _loaded(arguments.prometheus)
    if prometheus is not None and not callable(prometheus):
        raise _Refused(f"{arguments.prometheus} is no function")
    asks = cast("Callable[[str], float | None]", prometheus)
    confirm = _yes if arguments.yes else _asked
    return gameday.play(target, probes=probes, prometheus=asks, confirm=confirm, drive=drive, tell=_tell)


def _target(gameday: GameDay, arguments: argparse.Namespace) -> Resilience | Target:
    if gameday.targets:
        if arguments.app is not None:
            raise _Refused("the plan names its targets: without --app")
        return RemoteTarget(gameday.targets)
    if arguments.app is None:
        raise _Refused("--app is needed: the plan names no targets")
    resilience = _loaded(arguments.app)
    if not isinstance(resilience, Resilience):
        raise _Refused(f"{arguments.app} is no Resilience but a {type(resilience).__name__}")
    return resilience


def _loaded(reference: str) -> Any:
    module, _, name = reference.partition(":")
    if "" not in sys.path and "." not in sys.path:
        # As `python -m` would: the command itself was started from elsewhere.
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module)
        for part in filter(None, name.split(".")):
            found = getattr(found, part)
    except (Exception, SystemExit) as broken:  # a module that is imported may raise anything
        raise _Refused(f"{reference}: {describe(broken)}") from broken
    return found


async def _yes(_: str) -> bool:
    return True


async def _asked(message: str) -> bool:
    """Ask at the terminal; without one the answer is no."""
    if not sys.stdin.isatty():
        return False
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bool] = loop.create_future()

    def settle(answer: bool) -> None:  # noqa: FBT001 - a callback
        if not answered.done():
            answered.set_result(answer)

    def ask() -> None:
        try:
            answer = input(f"{message} [y/N] ").strip().casefold() in {"y", "yes"}
        except EOFError:
            answer = False
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, answer)

    # A daemon: the process must be able to end while nobody answers.
    threading.Thread(target=ask, name="somaresil-gameday-question", daemon=True).start()
    return await answered


def _writable(arguments: argparse.Namespace) -> None:
    """Find out before the faults that the report will have no place, not after them."""
    try:
        if arguments.report_dir is not None:
            Path(arguments.report_dir).mkdir(parents=True, exist_ok=True)
        if arguments.junit is not None:
            Path(arguments.junit).touch()
    except OSError as broken:
        raise _Refused(f"the report cannot be written: {describe(broken)}") from broken


def _write(report: GameDayReport, arguments: argparse.Namespace) -> None:
    if arguments.report_dir is not None:
        folder = Path(arguments.report_dir)
        for ending, text in (("json", report.to_json()), ("md", to_markdown(report)), ("html", to_html(report))):
            (folder / f"gameday.{ending}").write_text(text, encoding="utf-8", errors="replace")
    if arguments.junit is not None:
        Path(arguments.junit).write_text(to_junit(report), encoding="utf-8")
    if arguments.json:
        print(report.to_json())
    else:
        print(f"{report.name}: {title_of(report)}; {report.injected} faults, {report.absorbed} of {report.touched} touched calls absorbed")


def _outline(gameday: GameDay) -> list[str]:
    lines = [f"{gameday.name}: {len(gameday.experiments)} experiments, at most {gameday.longest:g} s, seed {gameday.seed}"]
    for experiment in gameday.experiments:
        lines += [f"  gate: {gate.name}" for gate in experiment.gates]
        phases = f"baseline {experiment.baseline:g}, inject {experiment.inject_seconds:g}, recover at most {experiment.recover:g} s"
        lines.append(f"  {experiment.name}: {phases}")
        lines += [f"    fault: {window!r}" for window in experiment.faults]
        lines += [f"    hypothesis ({', '.join(probe.when)}): {probe.name}" for probe in experiment.hypothesis]
        lines += [f"    abort unless {probe.name}" for probe in experiment.abort]
        if experiment.groups is not None:
            lines.append(f"    groups: {experiment.groups.share:.1%} each, by {experiment.groups.by}")
    return lines


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _refuse(why: str) -> int:
    print(f"somaresil gameday: {why}", file=sys.stderr)
    return 2
