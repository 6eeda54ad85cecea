"""The arguments of ``somaresil gameday``. What it does is loaded when it is wanted: asking for help must cost nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]

_CODES: Final = (
    "exit codes: 0 every experiment held; 1 one deviated, was aborted, was not run because of a gate, or has shown nothing; 2 it could not "
    "be run; 3 not started, because the steady state did not hold to begin with; 130 Ctrl-C or SIGTERM: every fault was ended, the report "
    "is written"
)


def add_command(commands: Any) -> None:
    """Add ``gameday`` to the subcommands of argparse."""
    gameday = commands.add_parser(
        "gameday",
        help="play the experiments of a plan against a service",
        description="Plays a plan of chaos experiments (TOML or YAML) against a service, or checks it.",
        epilog=_CODES,
    )
    actions = gameday.add_subparsers(dest="action", title="actions", metavar="ACTION", required=True)
    run = actions.add_parser(
        "run",
        help="play it",
        description=(
            "Imports the module of a service and plays the plan against it, in this process. The service must have opted in to chaos, "
            "and SOMARESIL_CHAOS=1 must be set."
        ),
        epilog=_CODES,
    )
    run.add_argument("plan", metavar="PLAN", help="a file that ends in .toml, .yaml or .yml")
    run.add_argument("--app", metavar="MODULE:NAME", help="where the Resilience of the service is; not for plans with targets")
    run.add_argument("--drive", metavar="MODULE:FUNCTION", help="a coroutine function that makes traffic until it is cancelled")
    run.add_argument("--probes", metavar="MODULE:NAME", help="a dictionary with the functions of callable probes, by name")
    run.add_argument("--prometheus", metavar="MODULE:FUNCTION", help="a function that answers a query with a number")
    run.add_argument("--report-dir", metavar="FOLDER", help="write the report there, as JSON, Markdown and HTML")
    run.add_argument("--junit", metavar="FILE", help="write the report as JUnit XML")
    run.add_argument("--json", action="store_true", help="print the report as JSON on stdout, everything else on stderr")
    run.add_argument("--dry-run", action="store_true", help="check everything and say what would be done; nothing is injected")
    run.add_argument("--yes", action="store_true", help="open every gate that asks somebody")
    run.set_defaults(run=_run)
    check = actions.add_parser("check", help="say what is wrong with it", epilog="exit codes: 0 nothing is wrong; 2 something is")
    check.add_argument("plan", metavar="PLAN", help="a file that ends in .toml, .yaml or .yml")
    check.add_argument("--json", action="store_true", help="print what is in it, or what is wrong, as JSON")
    check.set_defaults(run=_check)


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.gameday.command import run

    return run(arguments)


def _check(arguments: argparse.Namespace) -> int:
    from somaresil.gameday.command import check

    return check(arguments)
