"""Fuzz one target with atheris: ``python tests/fuzz/run.py token -runs=100000``; options are those of libFuzzer."""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

with atheris.instrument_imports(include=["somaresil.chaos", "somaresil.config", "json", "base64"]):
    from tests.fuzz.targets import CORPUS, TARGETS

name, *options = sys.argv[1:]
# libFuzzer writes what it finds into the first folder that it is given; the seeds stay as they are.
found = Path(next((option.partition("=")[2] for option in options if option.startswith("--found=")), "")) / name
found.mkdir(parents=True, exist_ok=True)
options = [option for option in options if not option.startswith("--found=")]
atheris.Setup([sys.argv[0], *options, str(found), str(CORPUS / name)], TARGETS[name])
atheris.Fuzz()
