"""The arguments of ``somaresil doctor``. What it does is loaded when it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add ``doctor`` to the subcommands of argparse."""
    doctor = commands.add_parser(
        "doctor",
        help="find what a service leaves out: calls without a guard or an end, middleware, objectives, workers",
        description=(
            "Reads the Python files of a service and the files that start it, and runs none of them. Names are followed within a file, so "
            "what it says is where to look. `# somaresil: ignore[SR101]` at the end of a line silences a code there."
        ),
        epilog="exit codes: 0 nothing but notes was found; 1 something was; 2 a file could not be read, or arguments are wrong",
    )
    doctor.add_argument("paths", nargs="*", default=["."], metavar="PATH", help="files and folders (default: this folder)")
    doctor.add_argument(
        "--select", action="append", default=[], metavar="CODE", help="only this code, or all that begin so: SR2; repeatable"
    )
    doctor.add_argument("--ignore", action="append", default=[], metavar="CODE", help="not this code, or none that begin so; repeatable")
    doctor.add_argument("--tests", action="store_true", help="look at tests too")
    doctor.add_argument("--codes", action="store_true", help="print every code and what it is about")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_run, parser=doctor)


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.doctor.command import run

    return run(arguments)
