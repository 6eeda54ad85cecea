"""The arguments of ``somaresil top``. What it does is loaded when it is wanted.

Exit codes: 0 it was looked at; 1 with ``--fail-on``: something is wrong; 2 it could not be asked; 128 + n ended by signal n.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from somaresil import colour
from somaresil.top_command import TOKEN, URL, VIEWS

__all__ = ["KINDS", "add_to", "run"]

KINDS: Final = ("open", "budget", "alert", "missing", "chaos")
"""What ``--fail-on`` takes."""
_FASTEST, _SLOWEST = 0.2, 3_600.0


def add_to(commands: Any) -> None:
    """Register the command with a parser."""
    top = commands.add_parser(
        "top",
        help="show the dashboard of a service on a terminal",
        description=(
            "Shows what the dashboard of a service shows: guards, objectives, experiments, canaries and events, all processes together. "
            "Keys: q quit, 1-6 views, / filter, ? help. Where the output is no terminal it is shown once."
        ),
        epilog="exit codes: 0 shown; 1 with --fail-on: something is wrong; 2 it could not be asked; 128 + n ended by signal n",
    )
    top.add_argument("url", nargs="?", default=None, metavar="URL", help=f"the dashboard, as http://host:port/_soma/ (default: {URL})")
    top.add_argument("--token-env", default=TOKEN, metavar="NAME", help="the variable that holds the token (default: %(default)s)")
    top.add_argument("--view", choices=VIEWS, default=None, help="what to begin with (default: overview)")
    top.add_argument("--guard", default=None, metavar="NAME", help="begin with this guard")
    top.add_argument("--filter", default="", metavar="TEXT", help="only what has this in its name")
    top.add_argument("--once", action="store_true", help="print it once")
    top.add_argument(
        "--fail-on",
        type=_kinds,
        default=[],
        metavar="KIND[,KIND]",
        help=f"print it once, and end with 1 when something is wrong: {', '.join(KINDS)}",
    )
    top.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="between two questions, where the stream does not tell (default: %(default)g)",
    )
    top.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="longest wait for an answer (default: %(default)g)")
    top.add_argument("--json", action="store_true", help="print what the dashboard says: once, or a line for each picture or event")
    colour.add_option(top)
    top.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Do it, and give the exit code."""
    from somaresil.top_command.command import run as do

    return do(arguments)


def _kinds(text: str) -> list[str]:
    found = [each.strip() for each in text.split(",") if each.strip()]
    wrong = [each for each in found if each not in KINDS]
    if wrong or not found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected some of {', '.join(KINDS)}")
    return found


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not _FASTEST <= value <= _SLOWEST:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds from {_FASTEST:g} to {_SLOWEST:g}")
    return value
