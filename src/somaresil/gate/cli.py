"""The arguments of ``somaresil gate``. What it does is loaded when it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse

__all__ = ["WRONG", "add_command"]

WRONG: Final = 3
"""Exit code for wrong arguments: 2 means that the gate was asked properly, and nothing is known."""


def add_command(commands: Any) -> None:
    """Add ``gate`` to the subcommands of argparse."""
    gate = commands.add_parser(
        "gate",
        help="judge by error budgets whether to release",
        description=(
            "Reads objectives from a file, asks Prometheus, snapshots or both how they stand, and says ALLOW, BLOCK or UNKNOWN with "
            "the evidence. With both, the worse answer stands."
        ),
        epilog="exit codes: 0 allow; 1 block; 2 not known; 3 asked wrongly (arguments, definitions)",
    )
    gate.wrong = WRONG
    gate.add_argument("--slo", required=True, metavar="FILE", help="objectives, as .toml, .yaml or .yml")
    gate.add_argument("--prometheus", metavar="URL", help="http://host:port of Prometheus, or of what speaks like it")
    gate.add_argument("--snapshot", metavar="PATH", help="a snapshot folder of a service, or one file of it")
    gate.add_argument("--only", action="append", default=[], metavar="NAME", help="judge this objective alone; may be given several times")
    gate.add_argument(
        "--label", action="append", default=[], metavar="NAME=VALUE", help="only series with this label; may be given several times"
    )
    gate.add_argument(
        "--format", choices=("text", "json", "markdown", "github"), default="text", help="what to print (default: %(default)s)"
    )
    gate.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="for each answer (default: %(default)g)")
    gate.add_argument("--max-age", type=float, default=300.0, metavar="SECONDS", help="older data are stale (default: %(default)g)")
    gate.add_argument("--token-env", metavar="NAME", help="the variable that holds a bearer token")
    gate.add_argument("--token-file", metavar="PATH", help="the file that holds a bearer token")
    gate.add_argument("--basic-env", metavar="NAME", help="the variable that holds user:password")
    gate.add_argument("--override", metavar="REASON", help="release against a BLOCK or UNKNOWN, for this reason; needs --until")
    gate.add_argument(
        "--until", metavar="TIME", help="when the override ends, with its zone: 2026-11-30T18:00:00Z; at most 7 days from now"
    )
    gate.add_argument("--audit", metavar="FILE", help="where an override that made a difference is written down, a line of JSON each")
    gate.set_defaults(run=_run, parser=gate)


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.gate.command import run

    return run(arguments)
