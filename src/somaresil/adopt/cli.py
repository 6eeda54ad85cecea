"""The arguments of ``somaresil init``. What it does is loaded when it is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add ``init`` to the subcommands of argparse."""
    init = commands.add_parser(
        "init",
        help="add the middleware and an objective to an app that is there, after showing the change",
        description=(
            "Finds where a FastAPI, Starlette or Django ASGI app is made, shows what it would add, and adds it when told to. Lines are "
            "added, none is taken away; the file is replaced in one step."
        ),
        epilog="exit codes: 0 added, or it is there already; 1 shown and not added; 2 it is not known what to change",
    )
    init.add_argument("path", nargs="?", default=".", metavar="PATH", help="the file that makes the app, or its folder (default: this one)")
    init.add_argument("--app", metavar="NAME", help="the name of the app, when there are several")
    init.add_argument("--service", metavar="NAME", help="the name of the service (default: that of the folder)")
    how = init.add_mutually_exclusive_group()
    how.add_argument("--yes", action="store_true", help="add it without asking")
    how.add_argument("--dry-run", action="store_true", help="only show it")
    init.add_argument("--json", action="store_true", help="print what became of it as JSON; without --yes nothing is added")
    init.set_defaults(run=_run, parser=init)


def _run(arguments: argparse.Namespace) -> int:
    from somaresil.adopt.command import run

    return run(arguments)
