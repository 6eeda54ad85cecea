"""Fuzz one target with atheris: ``python tests/fuzz/run.py chaos token -runs=100000``; options are those of libFuzzer."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NoReturn

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if TYPE_CHECKING:
    from tests.fuzz.harness import Target

_BYTES = 0.3
"""How often bytes are changed as libFuzzer does, who knows what has led to new code."""


def loaded(*modules: str) -> dict[str, Target]:
    """The targets of these modules, by default all, with what they try told to libFuzzer as it is imported; and the planted one."""
    with atheris.instrument_imports(include=["somaresil", "tests.fuzz.planted"]):
        from tests.fuzz import harness
        from tests.fuzz.planted import PLANTED

        found = {} if modules == ("planted",) else harness.load(*modules)
    return {**found, PLANTED.name: PLANTED}


def fuzz(target: Target, found: Path, *options: str) -> NoReturn:
    """Fuzz, and end the process. What leads to new code is put into a folder in ``found``; the seeds stay as they are."""
    from tests.fuzz.harness import CORPUS
    from tests.fuzz.mutate import mutated

    def changed(data: bytes, longest: int, seed: int) -> bytes:
        chance = Random(seed)
        return bytes(atheris.Mutate(data, longest)) if chance.random() < _BYTES else mutated(data, chance, longest)

    folder = found / target.name
    folder.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], *options, str(folder), str(CORPUS / target.name)], target.run, custom_mutator=changed)
    atheris.Fuzz()
    sys.exit(0)


if __name__ == "__main__":
    module, name, *given = sys.argv[1:]
    place = next((option.partition("=")[2] for option in given if option.startswith("--found=")), ".")
    fuzz(loaded(module)[name], Path(place), *(option for option in given if not option.startswith("--found=")))
