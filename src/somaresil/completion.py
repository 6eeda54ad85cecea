"""``somaresil completion``: what a shell needs to complete the commands and their options. Made by shtab from the parser itself."""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import argparse

__all__ = ["SHELLS", "add_command"]

SHELLS: Final = ("bash", "zsh", "fish")
"""Shells that are completed."""


def add_command(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Add ``completion`` to the subcommands of argparse; ``parser`` is the whole whose words are completed."""
    completion = commands.add_parser(
        "completion",
        help="print what a shell needs to complete this command",
        description=(
            'Prints a script for the shell. For this session: eval "$(somaresil completion bash)"; for all: somaresil completion bash > '
            "~/.local/share/bash-completion/completions/somaresil; zsh: into a file _somaresil of a folder in fpath; "
            "fish: into ~/.config/fish/completions/somaresil.fish."
        ),
        epilog="exit codes: 0 printed; 2 it could not be made",
    )
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help=" | ".join(SHELLS))
    completion.set_defaults(run=partial(_run, parser=parser))


def _run(arguments: argparse.Namespace, *, parser: argparse.ArgumentParser) -> int:
    try:
        shtab: Any = import_module("shtab")
    except ImportError:
        sys.stderr.write("completion needs shtab: pip install 'somaresil[completion]'\n")
        return 2
    sys.stdout.write(shtab.complete(parser, shell=arguments.shell).rstrip("\n") + "\n")
    return 0
