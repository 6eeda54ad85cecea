"""The command ``somaresil slo``: objectives from the formats of others, and in them.

Exit codes: 0 done; 2 refused, with every problem, or could not be written.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

__all__ = ["add_to"]


def add_to(commands: Any) -> None:
    """Add ``slo`` to the subcommands of argparse."""
    slo = commands.add_parser(
        "slo",
        help="read objectives from OpenSLO, Sloth or Pyrra, and write them as OpenSLO",
        description="Reads objectives in formats of others into a file of ours, and writes them as OpenSLO. Nothing is lost in silence.",
        epilog="exit codes: 0 done; 2 refused",
    )
    what = slo.add_subparsers(dest="slo_command", required=True, metavar="WHAT")
    reads = what.add_parser("import", help="a file of OpenSLO, Sloth or Pyrra into slo.toml")
    reads.add_argument("file", metavar="FILE", help="YAML of one document or several")
    reads.add_argument("--from", dest="form", required=True, choices=("openslo", "sloth", "pyrra"), help="its format")
    reads.add_argument("--period", type=_duration, default=30 * 86_400.0, metavar="TIME", help="of objectives of Sloth (default: 30d)")
    reads.add_argument("--partial", action="store_true", help="leave out what is valid and cannot be said here, with a note")
    reads.set_defaults(run=_import, parser=reads)
    writes = what.add_parser("export", help="objectives as OpenSLO v1")
    writes.add_argument("--slo", required=True, metavar="FILE", help="objectives, as .toml, .yaml or .yml")
    writes.add_argument("--to", dest="form", default="openslo", choices=("openslo",), help="the format (default: %(default)s)")
    writes.add_argument("--service", metavar="NAME", help="whose they are, where the file does not say it (default: default)")
    writes.set_defaults(run=_export, parser=writes)
    for each in (reads, writes):
        each.add_argument("--out", metavar="FILE", help="where to write it (default: standard output)")
        each.add_argument("--force", action="store_true", help="write it over what is there")


def _import(arguments: argparse.Namespace) -> int:
    from somaresil.errors import ConfigurationError
    from somaresil.interchange import dump_toml, import_slos

    try:
        found = import_slos(arguments.file, arguments.form, period=arguments.period, partial=arguments.partial)
        return _write(arguments, dump_toml(found.file), found.notes)
    except ConfigurationError as wrong:
        print(f"somaresil slo import: {wrong}", file=sys.stderr)
        return 2


def _export(arguments: argparse.Namespace) -> int:
    from somaresil.errors import ConfigurationError
    from somaresil.interchange import dump_openslo
    from somaresil.slofile import read_slos

    try:
        made = dump_openslo(read_slos(arguments.slo), service=arguments.service)
        return _write(arguments, made.text, made.notes)
    except ConfigurationError as wrong:
        print(f"somaresil slo export: {wrong}", file=sys.stderr)
        return 2


def _write(arguments: argparse.Namespace, text: str, notes: Iterable[str]) -> int:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if arguments.out is None:
        print(text, end="")
        return 0
    try:
        with Path(arguments.out).open("w" if arguments.force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print(f"somaresil slo: {arguments.out} is there already; --force writes over it", file=sys.stderr)
        return 2
    except OSError as failed:
        print(f"somaresil slo: {arguments.out}: {failed.strerror or type(failed).__name__}", file=sys.stderr)
        return 2
    print(arguments.out)
    return 0


def _duration(text: str) -> float:
    import argparse

    from somaresil.settings.entries import duration_of

    found = duration_of(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a duration such as 28d")
    return found.total_seconds()
