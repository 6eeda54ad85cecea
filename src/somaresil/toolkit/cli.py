"""The arguments of ``somaresil toolkit``, and what it does: game days to the Chaos Toolkit and back."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

__all__ = ["add_command"]

_LARGEST: Final = 4_000_000


def add_command(commands: Any) -> None:
    """Add ``toolkit`` to the subcommands of argparse."""
    toolkit = commands.add_parser(
        "toolkit",
        help="turn game days into experiments of the Chaos Toolkit, and back",
        description="Writes the experiments of a game day for `chaos run`, or reads such experiments as a game day.",
        epilog="exit codes: 0 done; 2 it could not be done, or something would be lost",
    )
    actions = toolkit.add_subparsers(dest="action", title="actions", metavar="ACTION", required=True)
    export = actions.add_parser("export", help="one file for each experiment of a game day")
    export.add_argument("plan", metavar="PLAN", help="a file that ends in .toml, .yaml or .yml")
    export.add_argument("--out", required=True, metavar="FOLDER", help="where the files go")
    export.add_argument("--service", default="", metavar="WHERE", help="module:name of a Resilience, or the URL of a control app")
    export.add_argument("--omit", action="store_true", help="leave out what the toolkit cannot play, and say what that is")
    export.set_defaults(run=_export)
    taken = actions.add_parser("import", help="a game day of experiments")
    taken.add_argument("experiments", nargs="+", metavar="FILE", help="experiments as JSON, in their order")
    taken.add_argument("--out", required=True, metavar="FILE", help="the game day, as .yaml or .yml")
    taken.add_argument("--name", default="", help="what it is called")
    taken.set_defaults(run=_import)


def _export(arguments: argparse.Namespace) -> int:
    from somaresil.gameday import GameDay
    from somaresil.toolkit.exchange import to_toolkit

    try:
        made = to_toolkit(GameDay.from_file(arguments.plan), service=arguments.service, omit=arguments.omit)
        folder = Path(arguments.out)
        folder.mkdir(parents=True, exist_ok=True)
        for number, experiment in enumerate(made.experiments, 1):
            file = folder / f"{number:02}-{re.sub('[^A-Za-z0-9]+', '-', experiment['title'])[:60].strip('-').lower() or 'experiment'}.json"
            file.write_text(json.dumps(experiment, indent=2) + "\n", encoding="utf-8")
            print(file)
    except (ConfigurationError, OSError) as wrong:
        return _failed(wrong)
    for omitted in made.omitted:
        print(f"left out: {omitted}", file=sys.stderr)
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from somaresil.toolkit.exchange import from_toolkit

    try:
        read = [json.loads(_text(name)) for name in arguments.experiments]
        gameday = from_toolkit(read, name=arguments.name)
        # JSON is YAML, and nothing has to be installed to write it.
        _yaml(arguments.out).write_text(json.dumps(gameday.as_dict(), indent=2) + "\n", encoding="utf-8")
    except (ConfigurationError, OSError, ValueError, RecursionError) as wrong:
        return _failed(wrong)
    print(arguments.out)
    return 0


def _text(name: str) -> str:
    with Path(name).open(encoding="utf-8") as file:
        text = file.read(_LARGEST + 1)
    if len(text) > _LARGEST:
        raise OSError(f"{name}: more than {_LARGEST} characters")
    return text


def _yaml(name: str) -> Path:
    path = Path(name)
    if path.suffix not in {".yaml", ".yml"}:
        raise OSError(f"{name}: expected a name that ends in .yaml or .yml")
    return path


def _failed(wrong: Exception) -> int:
    print(f"somaresil toolkit: {wrong}", file=sys.stderr)
    return 2
