"""The commands ``somaresil report`` and ``somaresil deployed``. What they do is loaded when it is wanted."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add both to the subcommands of argparse."""
    report = commands.add_parser(
        "report",
        help="report a month from journals",
        description="Writes attainment, budgets, incidents, worst hours and deployments of a month as Markdown, HTML and CSV.",
        epilog="exit codes: 0 every objective was met; 1 one was not, or nothing is known of any; 2 it could not be written",
    )
    report.add_argument("--month", required=True, metavar="YYYY-MM", help="such as 2026-10")
    report.add_argument("--zone", default="UTC", metavar="ZONE", help="whose month it is, such as Europe/Berlin (default: %(default)s)")
    report.add_argument("--journal", required=True, action="append", metavar="FILE", help="may be given several times, one an instance")
    report.add_argument(
        "--fails-within",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="an incident so soon after a deployment is its failure (default: %(default)g)",
    )
    report.add_argument("--out", required=True, metavar="DIR", help="folder of the report; made when it is not there")
    report.add_argument("--json", action="store_true", help="print what was found as JSON; the files are written all the same")
    report.set_defaults(run=_report)
    deployed = commands.add_parser(
        "deployed",
        help="note a deployment in a journal",
        description="Appends a deployment to a journal.",
        epilog="exit codes: 0 it is noted; 2 it could not be",
    )
    deployed.add_argument("version", metavar="VERSION")
    deployed.add_argument("--journal", required=True, metavar="FILE")
    deployed.add_argument("--service", required=True, metavar="NAME", help="as its Resilience is called")
    deployed.add_argument("--at", type=float, metavar="SECONDS", help="since the epoch (default: now)")
    deployed.add_argument("--commit", metavar="ID")
    ended = deployed.add_mutually_exclusive_group()
    ended.add_argument("--ok", action="store_const", const=True, dest="ok", help="it is known to be good")
    ended.add_argument("--failed", action="store_const", const=False, dest="ok", help="it is known to have failed")
    deployed.add_argument("--json", action="store_true", help="print what was noted as JSON")
    deployed.set_defaults(run=_deployed)


def _report(arguments: argparse.Namespace) -> int:
    from somaresil.clock import SystemClock
    from somaresil.config import Checker
    from somaresil.errors import ConfigurationError
    from somaresil.sla.month import month_of, period
    from somaresil.sla.render import files_of
    from somaresil.slo.journal import read_journals

    try:
        check = Checker("report")
        within = check.seconds("fails-within", arguments.fails_within, minimum=0.0, maximum=30 * 86_400.0)
        check.finish()
        month = month_of(
            read_journals(*arguments.journal), period(arguments.month, arguments.zone), now=SystemClock().time(), within=within
        )
        folder = Path(arguments.out)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files_of(month).items():
            (folder / name).write_text(text, encoding="utf-8", newline="")
    except (ConfigurationError, OSError) as wrong:
        print(f"somaresil report: {wrong}", file=sys.stderr)
        return 2
    said = {
        objective.name: "no events" if objective.met is None else "met" if objective.met else "missed" for objective in month.objectives
    }
    if arguments.json:
        print(json.dumps({"month": arguments.month, "objectives": said, "files": sorted(files_of(month))}, indent=2))
    else:
        print("\n".join(f"{name}: {what}" for name, what in said.items()))
    return 0 if month.objectives and all(objective.met for objective in month.objectives) else 1


def _deployed(arguments: argparse.Namespace) -> int:
    from somaresil.clock import SystemClock
    from somaresil.errors import ConfigurationError
    from somaresil.slo.journal import append, deployment

    given = {name: getattr(arguments, name) for name in ("at", "commit", "ok")}
    try:
        entry = deployment(arguments.service, arguments.version, now=SystemClock().time(), **given)
        append(Path(arguments.journal), [entry])
    except (ConfigurationError, OSError) as wrong:
        print(f"somaresil deployed: {wrong}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(dataclasses.asdict(entry), indent=2))
    return 0
