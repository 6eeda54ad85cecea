"""The page for maintainers: its drawing is that of the contract, its modules, threads and files are there, and none is left out."""

import importlib
import re
import subprocess
import sys

import pytest

from tests.docs.floors import BEGIN, END, PAGE, ROOT, drawing, floors

SOURCE = ROOT / "src" / "somaresil"
TEXT = PAGE.read_text(encoding="utf-8")
# Of commands and of the test kit: they run in no service.
COMMANDS = {"gameday", "canary_command", "top_command", "testing", "drill", "demo", "load_command", "perf_command"}
# Ended with what started it, in a process that tests a fleet.
OF_TOOLS = {"somaresil-safety"}


def test_the_drawing_is_that_of_the_contract():
    """`python tests/docs/floors.py` writes it."""
    assert TEXT.partition(BEGIN)[2].partition(END)[0] == drawing()


def test_every_module_has_a_floor():
    """Packages and modules of the top level, but the package itself."""
    there = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
    assert there == {name for floor in floors() for name in floor}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(somaresil(?:\.\w+)+)`", TEXT))))
def test_modules_that_are_named_are_there(name):
    assert importlib.import_module(name)


def test_every_thread_of_a_service_is_in_the_table():
    """By its name and its module, as the code has them."""
    table = TEXT.partition("<!-- threads -->\n")[2].partition("\n\n")[0]
    told = set(re.findall(r"^\| `([\w-]+)` \| `([\w.]+)` \|", table, re.MULTILINE))
    found = set()
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        if parts[0] in COMMANDS:
            continue
        for name in re.findall(r'Thread\([^\n]*name="(somaresil[\w-]*)"', path.read_text(encoding="utf-8")):
            found.add((name, ".".join(("somaresil", *parts))))
    assert {thread for thread in found if thread[0] not in OF_TOOLS} == told


def test_an_import_starts_no_thread():
    """Nor do a resilience and a guard with everything."""
    code = (
        "import threading, somaresil\n"
        "r = somaresil.Resilience('x')\n"
        "r.guard('y', breaker=True, retry=3, bulkhead=2, timeout=1.0)(lambda: 1)()\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_files_to_read_are_there():
    """Those of the last table, below src/somaresil or as paths of the repository."""
    table = TEXT.partition("## What to read first")[2]
    named = set(re.findall(r"`([\w./]+\.py|(?:tests|docs|benchmarks)/[\w./]*)`", table))
    assert named
    assert [name for name in named if not (SOURCE / name).exists() and not (ROOT / name).exists()] == []


def test_states_are_all_told():
    """In the table of the states."""
    from somaresil.model.breaker import State

    section = TEXT.partition("## States of a breaker")[2].partition("\n## ")[0]
    assert {state.value for state in State} == set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]+) \|", section, re.MULTILINE))))
