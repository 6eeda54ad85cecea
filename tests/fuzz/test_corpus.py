"""The seeds of the fuzzer, and what it once found, do no harm; and every parser has a target whose seeds reach it."""

from __future__ import annotations

import ast
import importlib
import sys
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import somaresil
from tests.fuzz.harness import CORPUS, load, seeds_of
from tests.fuzz.mutate import mutated

SOURCE = Path(somaresil.__file__).parent
TARGETS = load()
SEEDS = [(path.parent.name, path) for path in sorted(CORPUS.glob("*/*")) if path.parent.name != "planted"]
DEEP = (b"", b"\x00", b"\xff" * 9, b"[" * 20_000, b'{"a":' * 20_000, b"9" * 5_000, b"-" * 20_000)
"""What is wrong for everybody: nothing at all, no text, no end, and more digits than are converted."""
READS = {
    ("json", "loads"),
    ("json", "load"),
    ("tomllib", "loads"),
    ("tomllib", "load"),
    ("yaml", "load"),
    ("yaml", "safe_load"),
    ("yaml", "parse"),
    ("yaml", "compose_all"),
    ("csv", "DictReader"),
    ("csv", "reader"),
    ("ast", "parse"),
    ("ast", "literal_eval"),
    ("struct", "unpack"),
    ("struct", "unpack_from"),
    ("ElementTree", "fromstring"),
    ("pickle", "loads"),
}
"""Calls that make values of what somebody else has written."""
LEFT_OUT = {
    "chaos/plan.py:_json": "reads what it has written in the line before",
    "demo/": "a demonstration that talks to itself",
    "drill/": "likewise",
    "gameday/remote.py:_Instance._ask": "catches what reading raises; what it then has goes to the target gameday",
    "scan/inventory.py:_asked": "the answer of our own program in the Python that the user has named",
    "scan/sbom.py:bill_of_materials": "reads what the library of CycloneDX has written in the same line",
    "testing/figures.py:Figures.pytest_runtest_logreport": "properties that the plugin itself has put there",
    "toolkit/cli.py:_import": "catches what reading raises; what it then has goes to the target toolkit",
}
"""Places without a target, and why. Each begins with the file."""


@cache
def reached(name):
    """The functions of ours that the seeds of a target enter, by file and name."""
    entered = set()

    def note(frame, event, _):
        if event == "call":
            entered.add((frame.f_code.co_filename, frame.f_code.co_qualname if sys.version_info >= (3, 11) else ""))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        for path in seeds_of(name):
            TARGETS[name].run(path.read_bytes())
    finally:
        sys.setprofile(before)
    root = f"{SOURCE}/"
    return frozenset((file.removeprefix(root), function) for file, function in entered if file.startswith(root))


def sites(text):
    """Functions in which a value is made of what somebody else has written; the name of the module counts, however it was imported."""
    found = set()

    def look(node, inside):
        for child in ast.iter_child_nodes(node):
            name = inside
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                outer = f"{inside}.<locals>" if inside and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else inside
                name = f"{outer}.{child.name}" if outer else child.name
            if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
                of = child.func.value
                if isinstance(of, ast.Name | ast.Attribute):
                    module = of.id if isinstance(of, ast.Name) else of.attr
                    if (module.lstrip("_"), child.func.attr) in READS:
                        found.add(inside)
            look(child, name)

    look(ast.parse(text), "")
    return found


def test_each_target_has_seeds():
    """Without them a fuzzer spends its time before the first check."""
    assert {name for name, _ in SEEDS} == set(TARGETS)


@pytest.mark.parametrize(("name", "path"), SEEDS, ids=lambda value: getattr(value, "name", value))
def test_a_seed_does_no_harm(name, path):
    """It is read or refused."""
    TARGETS[name].run(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_wrong_for_everybody_does_no_harm(name):
    """It is refused as the parser says."""
    for data in DEEP:
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=12, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), plain=st.binary(max_size=60))
def test_what_is_nearly_right_does_no_harm(name, seed, plain):
    """Any bytes, and seeds of which a part is something else."""
    chance = Random(seed)
    data = mutated(chance.choice(seeds_of(name)).read_bytes(), chance, 4_096)
    TARGETS[name].run(data)
    TARGETS[name].run(plain)


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_reach_the_parsers_of_a_target(name):
    """A seed that stops before them tries nothing."""
    for parser in TARGETS[name].parsers:
        module, _, function = parser.partition(":")
        owner = importlib.import_module(f"somaresil.{module}")
        for part in function.split("."):
            owner = getattr(owner, part)
        code = getattr(owner, "__func__", owner)
        while not hasattr(code, "__code__"):
            code = code.__wrapped__
        place = code.__code__.co_filename.removeprefix(f"{SOURCE}/"), code.__code__.co_qualname
        assert place in reached(name), f"no seed of {name} reaches {parser}"


def test_no_parser_is_forgotten():
    """Each place in which values are made of what somebody else has written is reached by a target, or stands here with a reason."""
    places = {
        (path.relative_to(SOURCE).as_posix(), function)
        for path in SOURCE.rglob("*.py")
        for function in sites(path.read_text(encoding="utf-8"))
    }
    covered = frozenset().union(*map(reached, TARGETS))
    missing = {place for place in places - covered if not any(f"{place[0]}:{place[1]}".startswith(left) for left in LEFT_OUT)}
    assert missing == set()
    assert all(any(f"{file}:{function}".startswith(left) for file, function in places) for left in LEFT_OUT), (
        "nothing is left out that is gone"
    )


def test_a_forgotten_parser_is_noticed():
    """However it imports what it reads with."""
    text = "class A:\n    def read(self, raw):\n        def inner():\n            return json.loads(raw)\n        return inner\n"
    assert sites(text) == {"A.read.<locals>.inner"}
    assert sites("def read(raw):\n    return self._yaml.safe_load(raw)\n") == {"read"}
