"""``somaresil load``: what its actions do.

Exit codes: 0 every limit was kept; 1 one was not; 2 it is not known (too few requests, a saturated generator), or it could not be done;
128 + n ended by signal n, with the figures until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import ConfigurationError, describe
from somaresil.load.capacity import scenario_capacity
from somaresil.load.http import INSTALL, missing
from somaresil.load.scenario import read_scenario
from somaresil.load.session import Session
from somaresil.load.thresholds import limits
from somaresil.load_command.experiments import Experiments
from somaresil.load_command.html import to_html
from somaresil.load_command.progress import progress_for
from somaresil.markdown import table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine, Generator

    from somaresil.load.capacity import Capacity, Probe
    from somaresil.load.generator import Point, Run
    from somaresil.load.report import LoadReport
    from somaresil.load.scenario import Scenario

__all__ = ["run"]

IMPOSSIBLE: Final = 2
_SPARE: Final = 200
"""Descriptors beside those of connections."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and give the exit code."""
    try:
        return _ACTIONS[arguments.perform](arguments)
    except ConfigurationError as wrong:
        return _refuse(str(wrong))
    except _RefusedError as why:
        return _refuse(str(why))
    except BrokenPipeError:
        # Whoever was reading has left. What Python still wants to flush at its end must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


class _RefusedError(Exception):
    """It cannot be done."""


def _refuse(why: str) -> int:
    print(f"somaresil load: {why}", file=sys.stderr)
    return IMPOSSIBLE


def _scenario(arguments: argparse.Namespace) -> Scenario:
    scenario = read_scenario(arguments.scenario, target=arguments.target, preset=getattr(arguments, "preset", None))
    if (times := getattr(arguments, "compress", 1.0)) != 1.0:
        scenario = scenario.compressed(times)
    if arguments.scale != 1.0:
        scenario = scenario.scaled(arguments.scale)
    scenario.check_hosts(arguments.allow_host)
    return scenario


def _prepare(scenario: Scenario) -> None:
    """Everything that is needed is there, also a descriptor for each connection, as far as the system allows it."""
    _allow_descriptors(scenario.max_in_flight + _SPARE)
    if absent := missing():
        raise _RefusedError(f"{', '.join(absent)} not installed. This installs it:\n\n    {INSTALL}\n")


def _allow_descriptors(wanted: int) -> None:
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        # What is refused all the same is an error of its kind in the figures.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


# -- run ----------------------------------------------------------------------------------------------------------------------------------


def _load(arguments: argparse.Namespace) -> int:
    scenario = _scenario(arguments)
    _prepare(scenario)
    forms = _forms(arguments)
    try:
        with _told(scenario, arguments.metrics) as watch:
            report, number = asyncio.run(_played(scenario, arguments, watch))
    except OSError as broken:
        # The control app is lost; what requests meet is in the figures.
        raise _RefusedError(describe(broken)) from None
    print(_SHOWN["json" if arguments.json else arguments.format](report))
    for path, form in forms:
        _write(path, form(report))
    return report.exit_code if number is None else 128 + number


@contextlib.contextmanager
def _told(scenario: Scenario, address: str | None) -> Generator[Callable[[Point, Run], None] | None]:
    """Answer whoever scrapes ``address``, and give what wants to be told of slices; None: nobody scrapes."""
    if address is None:
        yield None
        return
    from somaresil.integrations.loadmetrics import LoadMetrics, address_of

    if (where := address_of(address)) is None:
        raise _RefusedError(f"--metrics {address}: expected HOST:PORT, such as 127.0.0.1:9102")
    metrics = LoadMetrics()
    with contextlib.ExitStack() as serving:
        try:
            bound = serving.enter_context(metrics.serve(*where))
        except OSError as taken:
            raise _RefusedError(f"--metrics {address}: {describe(taken)}") from None
        print(f"metrics: http://{address.rpartition(':')[0]}:{bound}/metrics", file=sys.stderr, flush=True)
        yield metrics.watching(scenario)


async def _played(
    scenario: Scenario, arguments: argparse.Namespace, watch: Callable[[Point, Run], None] | None
) -> tuple[LoadReport, int | None]:
    progress = progress_for(sys.stderr, scenario, quiet=arguments.quiet)
    experiments = None if scenario.chaos is None else Experiments(scenario.chaos)

    def both(point: Point, run: Run) -> None:
        progress.point(point, run)
        if watch is not None:
            watch(point, run)

    session = Session(
        scenario,
        allow_hosts=arguments.allow_host,
        watch=progress.point if watch is None else both,
        struck=bool if experiments is None else experiments.struck,
        begin=None if experiments is None else experiments.start,
    )
    try:
        _, number = await _interruptible(session.run())
        if number is not None:
            session.interrupted = signal.Signals(number).name
            await session.look()
    finally:
        progress.close()
        if experiments is not None:
            await experiments.end()
            session.chaos = tuple(experiments.said)
    return session.report, number


async def _interruptible(work: Coroutine[Any, Any, Any]) -> tuple[Any, int | None]:
    """Its result, or the signal that ended it. A second signal interrupts nothing: cleaning up takes no time."""
    asked: list[int] = []
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)

    def end(number: int) -> None:
        if not asked:
            task.cancel()
        asked.append(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, end, number)
    try:
        return await task, None
    except asyncio.CancelledError:
        if not asked:
            raise
        return None, asked[0]
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _forms(arguments: argparse.Namespace) -> list[tuple[Path, Callable[[LoadReport], str]]]:
    """Where to write what; a folder that is not there is found before the run, not after it."""
    wanted = [(arguments.out, _SHOWN["json"]), (arguments.markdown, _SHOWN["markdown"]), (arguments.html, _SHOWN["html"])]
    found = [(Path(path), form) for path, form in wanted if path is not None]
    for path, _ in found:
        if not path.parent.is_dir():
            raise _RefusedError(f"{path}: there is no folder {path.parent}")
    return found


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
    except OSError as broken:
        raise _RefusedError(f"the report cannot be written: {describe(broken)}") from None


_SHOWN: Final[dict[str, Callable[[LoadReport], str]]] = {
    "text": lambda report: report.to_text(),
    "json": lambda report: report.to_json(),
    "markdown": lambda report: report.to_markdown(),
    "html": to_html,
}


# -- capacity -----------------------------------------------------------------------------------------------------------------------------


def _capacity(arguments: argparse.Namespace) -> int:
    scenario = _scenario(arguments)
    _prepare(scenario)
    if arguments.format == "html":
        raise _RefusedError("--format: capacity has text and markdown")
    out = None if arguments.out is None else Path(arguments.out)
    if out is not None and not out.parent.is_dir():
        raise _RefusedError(f"{out}: there is no folder {out.parent}")

    def watch(probe: Probe) -> None:
        if not arguments.quiet:
            print(f"{probe.rate:8.4g}/s  {probe.answer.value}  {probe.why}", file=sys.stderr, flush=True)

    search = scenario_capacity(
        scenario,
        start=arguments.start,
        most=arguments.most,
        seconds=arguments.seconds,
        precision=arguments.precision,
        runs=arguments.runs,
        allow_hosts=arguments.allow_host,
        watch=watch,
    )
    found, number = asyncio.run(_interruptible(search))
    if number is not None:
        print(f"somaresil load: ended by {signal.Signals(number).name}; nothing is left behind", file=sys.stderr)
        return 128 + number
    print(_capacity_text(found, arguments))
    if out is not None:
        _write(out, found.to_json(arguments.current))
    if not found.found:
        return IMPOSSIBLE
    headroom = None if arguments.current is None else found.headroom(arguments.current)
    return 1 if headroom is not None and headroom < 0.0 else 0


def _capacity_text(found: Capacity, arguments: argparse.Namespace) -> str:
    if arguments.json:
        return found.to_json(arguments.current)
    columns = ("rate", "answer", "good/s", "in flight", "p95 s", "why")
    if arguments.format == "markdown":
        lines = ["### Capacity", "", *(f"- {line}" for line in found.lines(arguments.current)), "", *table(columns, found.rows())]
        return "\n".join(lines)
    rows = ["  ".join(f"{cell:>9}" for cell in row[:-1]) + f"  {row[-1]}" for row in [columns, *found.rows()]]
    return "\n".join([*found.lines(arguments.current), "", *rows])


# -- check, template ----------------------------------------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> int:
    scenario = _scenario(arguments)
    lines = [
        f"{scenario.name}: {scenario.target}, {scenario.seconds:.6g} s, {scenario.arrival}, up to {scenario.peak:.4g} arrivals a second"
    ]
    for number, stage in enumerate(scenario.stages, 1):
        lines.append(f"  {stage.name or f'stage {number}'}: {stage.seconds:.4g} s, {stage.rate:.4g} to {stage.end_rate:.4g} a second")
    total = sum(request.weight for request in scenario.requests)
    lines += [f"  {each.name}: {each.kind} {each.method} {each.path}, {each.weight / total:.0%}" for each in scenario.requests]
    lines += [f"  limit: {threshold}" for threshold in limits(scenario)]
    lines += [f"  objective: {slo.name}" for slo in scenario.slos]
    if arguments.json:
        print(json.dumps({"scenario": scenario.name, "seconds": scenario.seconds, "peak": scenario.peak, "lines": lines}, indent=2))
    else:
        print("\n".join(lines))
    return 0


def _template(arguments: argparse.Namespace) -> int:
    folder = files("somaresil.load") / "templates"
    names = sorted(each.name.removesuffix(".toml") for each in folder.iterdir() if each.name.endswith(".toml"))
    if arguments.name not in names:
        raise _RefusedError(f"{arguments.name}: there is {', '.join(names)}")
    print((folder / f"{arguments.name}.toml").read_text(encoding="utf-8"), end="")
    return 0


_ACTIONS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "run": _load,
    "capacity": _capacity,
    "check": _check,
    "template": _template,
}
