"""Run the drill as a command: end it properly when asked to, write the report, give the exit code."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from somaresil.drill import DrillError
from somaresil.drill.plan import plan_of
from somaresil.drill.render import title_of, to_html, to_junit, to_markdown
from somaresil.drill.run import LIMIT, Drill

if TYPE_CHECKING:
    from somaresil.drill import Options
    from somaresil.drill.report import DrillReport

__all__ = ["main", "write"]


def main(options: Options) -> int:
    """Run it.

    Returns 0 when the stack has passed, 1 when it has not, 2 when the drill could not be run, and 128 + n after signal n. In every case
    processes and ports of the drill are gone when this returns.
    """
    try:
        # Before the faults, not after them, it is to be found out that the report has no place.
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        report = _simulated(options) if options.virtual else asyncio.run(_real(options))
        if isinstance(report, int):
            return report
        write(report, folder)
    except (DrillError, OSError) as error:
        print(f"somaresil drill: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(report.to_json())
    else:
        print(f"drill {title_of(report)}; the report is in {options.out}", *report.problems, sep="\n")
    return 0 if report.passed else 1


def write(report: DrillReport, folder: Path) -> None:
    """Write the report as ``drill.json``, ``drill.md``, ``drill.html`` and ``drill.xml`` (JUnit). Raises ``OSError``."""
    texts = {"json": report.to_json(), "md": to_markdown(report), "html": to_html(report), "xml": to_junit(report)}
    for ending, text in texts.items():
        (folder / f"drill.{ending}").write_text(text, encoding="utf-8", errors="replace")


def _simulated(options: Options) -> DrillReport:
    from somaresil.drill.simulation import simulate

    strikes = plan_of(options.seed, options.faults, processes=False)
    return simulate(strikes, seed=options.seed, rate=options.rate / 2.0, limit=LIMIT, tell=_tell)


async def _real(options: Options) -> DrillReport | int:
    from somaresil.drill.processes import PROGRAMS, Processes, absent

    if programs := absent():
        packages = " ".join(PROGRAMS[program] for program in programs)
        raise DrillError(f"not on PATH: {', '.join(programs)}. Debian: apt-get install {packages}; --virtual does without")
    task, asked = asyncio.current_task(), list[signal.Signals]()

    def end(number: signal.Signals) -> None:
        # Once: a second Ctrl-C must not interrupt the cleaning up that the first has begun.
        if not asked and task is not None:
            task.cancel()
        asked.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        _tell("starting gateways, workers, tools, memory services, Redis and Prometheus on loopback ...")
        async with Processes(options.seed) as stack:
            strikes = plan_of(options.seed, options.faults)
            return await Drill(stack, strikes, seed=options.seed, rate=options.rate, tell=_tell).run()
    except asyncio.CancelledError:
        if not asked:
            raise
        print(f"somaresil drill: ended by {asked[0].name}; its processes and files are gone", file=sys.stderr)
        return 128 + asked[0]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
