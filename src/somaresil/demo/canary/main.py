"""Run the demo of a canary as a command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from somaresil.demo import DemoError
from somaresil.demo.canary.page import to_html
from somaresil.demo.canary.run import run
from somaresil.demo.canary.terminal import print_report, view_for
from somaresil.demo.main import carry_out

if TYPE_CHECKING:
    from somaresil.demo.canary import CanaryOptions

__all__ = ["main"]


def main(options: CanaryOptions) -> int:
    """Run it.

    Returns 0 when each version ended as it ought to, 1 when one did not, 2 when it could not be run, and 128 + n after signal n. In every
    case processes, ports and files of the demo are gone when this returns, but for the page that was asked for.
    """

    async def perform() -> int:
        with view_for(sys.stderr if options.json else sys.stdout) as view:
            report = await run(options, view)
        if options.html is not None:
            _write(options.html, to_html(report))
        if options.json:
            print(json.dumps(report.as_dict(), indent=2, allow_nan=False))
        else:
            print_report(report, sys.stdout)
        return 0 if report.passed else 1

    return carry_out(perform)


def _write(where: str, page: str) -> None:
    try:
        Path(where).write_text(page, encoding="utf-8")
    except OSError as error:
        raise DemoError(f"the page could not be written: {error}") from error
