"""The fuzzer finds what it is there for."""

from __future__ import annotations

import json
import subprocess
import sys
from random import Random

import pytest

from somaresil.errors import ConfigurationError
from tests.fuzz.harness import HERE, TARGETS, Unfit, seeds_of, target
from tests.fuzz.mutate import mutated
from tests.fuzz.planted import PLANTED


def hunt(found, runs):
    """What comes out of a target within so many mutated seeds."""
    chance, (seed,) = Random(7), seeds_of("planted")
    for _ in range(runs):
        try:
            found.run(mutated(seed.read_bytes(), chance, 4_096))
        except Exception as broken:
            return broken
    return None


def test_a_planted_defect_is_found_by_changes_to_a_document():
    """A key that is missing deep in a document of the right form."""
    assert isinstance(hunt(PLANTED, 2_000), KeyError)


def test_a_planted_defect_is_found_by_the_fuzzer(tmp_path):
    """The run fails, and the input is kept."""
    pytest.importorskip("atheris")
    options = [f"--found={tmp_path}", f"-artifact_prefix={tmp_path}/", "-runs=20000", "-seed=7"]
    done = subprocess.run(
        [sys.executable, str(HERE / "run.py"), "planted", "planted", *options], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "KeyError" in done.stdout + done.stderr
    assert list(tmp_path.glob("crash-*"))


def test_a_target_lets_nothing_out_but_what_it_says():
    """A refusal is one when it is announced; a problem has to be told."""

    assert "made_for_a_test" not in TARGETS

    def made_for_a_test(data):
        raise {b"unfit": Unfit(), b"value": ValueError()}.get(data, ConfigurationError(()))

    found = target("x:y", raises=(ValueError, ConfigurationError))(made_for_a_test)
    del TARGETS["made_for_a_test"]
    other = target("x:y")(made_for_a_test)
    del TARGETS["made_for_a_test"]
    found.run(b"unfit")
    found.run(b"value")
    with pytest.raises(AssertionError, match="a problem"):
        found.run(b"nothing told")
    with pytest.raises(ValueError, match=r"^$"):
        other.run(b"value")


def test_changes_keep_most_of_a_document():
    """Most of them are JSON still, of the size that was allowed, and hardly any is what it was."""
    document = json.dumps({"a": [1, {"b": "text"}], "c": {"d": None}}).encode()
    chance = Random(7)
    made = [mutated(document, chance, 500) for _ in range(400)]
    assert all(len(each) <= 500 for each in made)
    assert len({*made}) > 150

    def reads(text):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return False
        return True

    assert sum(map(reads, made)) > 250
