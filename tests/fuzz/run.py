"""Fuzz one target with atheris: ``python tests/fuzz/run.py chaos token -runs=100000``; options are those of libFuzzer."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

module, name, *options = sys.argv[1:]
with atheris.instrument_imports(include=["somaresil"]):
    if module == "planted":
        from tests.fuzz.planted import PLANTED as FOUND
    else:
        from tests.fuzz import harness

        FOUND = harness.load(module)[name]

from tests.fuzz.harness import CORPUS  # noqa: E402 - after what is instrumented
from tests.fuzz.mutate import mutated  # noqa: E402

_BYTES = 0.3
"""How often bytes are changed as libFuzzer does, who knows what has led to new code."""


def _mutate(data: bytes, longest: int, seed: int) -> bytes:
    chance = Random(seed)
    return bytes(atheris.Mutate(data, longest)) if chance.random() < _BYTES else mutated(data, chance, longest)


# libFuzzer writes what it finds into the first folder that it is given; the seeds stay as they are.
found = Path(next((option.partition("=")[2] for option in options if option.startswith("--found=")), "")) / name
found.mkdir(parents=True, exist_ok=True)
options = [option for option in options if not option.startswith("--found=")]
atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / name)], FOUND.run, custom_mutator=_mutate)
atheris.Fuzz()
