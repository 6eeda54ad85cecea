"""The pages for operators: their commands can be given, their variables are read, their keys are written, and none is left out."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from somaresil.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "operations"
PAGES = sorted(FOLDER.glob("*.md"))
OTHERS = {"curl", "export", "gunicorn", "hypercorn", "python", "redis-cli", "uvicorn"}
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def blocks_of(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands_of(page: Path) -> list[str]:
    return [line[2:] for block in blocks_of(page, "console") for line in block.splitlines() if line.startswith("$ ")]


def test_the_index_leads_to_every_page():
    index = (FOLDER / "index.md").read_text()
    assert [page.name for page in PAGES if page.stem != "index" and f"({page.name})" not in index] == []


@every_page
def test_commands_are_commands(page):
    """Ours are taken by their parser with every option; a program in a string is Python; the others are of programs that are named."""
    for command in commands_of(page):
        words = shlex.split(command)
        if words[0] == "somaresil":
            _, unknown = _parser().parse_known_args(words[1:])
            assert unknown == [], command
        else:
            assert words[0] in OTHERS, command
        if words[:2] == ["python", "-c"]:
            compile(words[2], page.name, "exec")
            for module, names in re.findall(r"from ([\w.]+) import ([\w, ]+)", words[2]):
                found = __import__(module, fromlist=["x"])
                assert all(hasattr(found, name.strip()) for name in names.split(","))


@every_page
def test_exported_variables_are_read_somewhere(page):
    """By name in the sources, or by the beginning that those of guards have."""
    for command in commands_of(page):
        if command.startswith("export "):
            name = command.removeprefix("export ").partition("=")[0]
            assert name.startswith("SOMARESIL_GUARD__") or name in variables() | {"PROMETHEUS_MULTIPROC_DIR"}, command


def variables() -> set[str]:
    """Those that the sources name whole."""
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src" / "somaresil").rglob("*.py"))
    whole = set(re.findall(r"\"(SOMARESIL_[A-Z]+(?:_[A-Z]+)*)\"", text))
    named = {f"SOMARESIL_{name.upper()}" for name in ("instance", "zone", "region", "environment", "seed")}
    assert 'os.environ.get(f"SOMARESIL_{what.upper()}")' in text
    return (whole | named) - {"SOMARESIL_CON"}


OF_DEMO_AND_TESTS = {"SOMARESIL_CLOCK", "SOMARESIL_DEMO", "SOMARESIL_DEMO_TOKEN", "SOMARESIL_DRILL", "SOMARESIL_PLANS"}
"""Set by the demo, the drill and the test kit for what they start, and by nobody else."""


def test_every_variable_is_in_the_table():
    """Those of the sources, and none that is not read."""
    table = (FOLDER / "switches.md").read_text().partition("<!-- variables of the environment -->\n")[2]
    told = set(re.findall(r"^\| `([A-Z_]+)(?:__<[^`]*)?` \|", table, re.MULTILINE))
    whole = {name for name in variables() if not name.endswith("_")} - OF_DEMO_AND_TESTS
    assert whole - told == set()
    assert told - variables() - {"SOMARESIL_GUARD", "SOMARESIL_SLO", "PROMETHEUS_MULTIPROC_DIR"} == set()


def test_keys_of_redis_are_those_of_the_code():
    """Each in the script or the client that writes it."""
    table = (FOLDER / "redis.md").read_text().partition("<!-- keys in redis -->\n")[2].partition("\n\n")[0]
    told = re.findall(r"^\| `somaresil:\{gateway\}:(\w+)", table, re.MULTILINE)
    folder = ROOT / "src" / "somaresil" / "integrations"
    text = (folder / "_lua.py").read_text() + (folder / "killswitch.py").read_text()
    assert len(told) == 6
    assert [key for key in told if not re.search(rf":{key}\b|[\"']{key}[\"']", text)] == []


@every_page
def test_manifests_can_be_read(page):
    """As YAML, with the variables that are read."""
    for block in blocks_of(page, "yaml"):
        spec = yaml.safe_load(block)
        names = {variable["name"] for container in spec["containers"] for variable in container["env"]}
        assert names <= variables() | {"PROMETHEUS_MULTIPROC_DIR"}
        mounted = {mount["name"] for container in spec["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_night_leads_to_runbooks():
    """To at least a dozen, which are there by the test of links."""
    assert len(set(re.findall(r"\.\./runbooks/([\w-]+)\.md", (FOLDER / "night.md").read_text()))) >= 12
