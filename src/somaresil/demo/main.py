"""Run the demo as a command: choose how to show it, end it properly when asked to, give the exit code."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

from somaresil.demo import DemoError
from somaresil.demo.drill import run
from somaresil.demo.prometheus import find
from somaresil.demo.terminal import print_report, view_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from somaresil.demo import Options

__all__ = ["carry_out", "main"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(options: Options) -> int:
    """Run the demo.

    Returns 0 when the service passed the drill, 1 when it did not, 2 when the drill could not be run, and 128 + n after signal n. In every
    case processes, ports and files of the demo are gone when this returns.
    """

    async def perform() -> int:
        if options.prometheus:
            find()
        with view_for(sys.stderr if options.json else sys.stdout) as view:
            report = await run(options, view)
        if options.json:
            print(json.dumps(report.as_dict(), indent=2))
        else:
            print_report(report, sys.stdout)
        return 0 if report.passed else 1

    return carry_out(perform)


def carry_out(perform: Callable[[], Awaitable[int]]) -> int:
    """Do it, and give its exit code: 2 when it raises :class:`DemoError`, 128 + n after signal n, when it has been cancelled."""
    try:
        return asyncio.run(_main(perform))
    except DemoError as error:
        print(f"somaresil demo: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever was reading has left. What Python still wants to flush at its end must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


async def _main(perform: Callable[[], Awaitable[int]]) -> int:
    asked: list[signal.Signals] = []
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def end(number: signal.Signals) -> None:
        # Once: a second Ctrl-C must not interrupt the cleaning up that the first has begun.
        if not asked and task is not None:
            task.cancel()
        asked.append(number)

    for number in _SIGNALS:
        # nohup ignores SIGHUP on purpose.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, end, number)
    try:
        return await perform()
    except asyncio.CancelledError:
        if not asked:
            raise
        print(f"somaresil demo: ended by {asked[0].name}; its processes and files are gone", file=sys.stderr)
        return 128 + asked[0]
