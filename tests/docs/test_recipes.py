"""Recipes for pipelines are what GitHub and GitLab accept, by the schemas that check-jsonschema brings with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "perf-cli.md"
SCHEMAS = {"GitHub Actions": "vendor.github-workflows", "GitLab": "vendor.gitlab-ci"}


def recipe_of(heading):
    """Give the YAML below a heading."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    found = re.search(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def accepts(path, schema):
    """Tell whether a schema accepts a file."""
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode == 0, done.stdout


@pytest.mark.parametrize("heading", SCHEMAS)
def test_a_recipe_is_accepted_by_its_schema(heading, tmp_path):
    """And one that is broken on purpose is not."""
    pytest.importorskip("check_jsonschema")
    path = tmp_path / "recipe.yml"
    path.write_text(recipe_of(heading))
    accepted, said = accepts(path, SCHEMAS[heading])
    assert accepted, said
    path.write_text(recipe_of(heading).replace("script:", "scripts:").replace("runs-on:", "runs:"))
    assert not accepts(path, SCHEMAS[heading])[0]


@pytest.mark.parametrize("heading", SCHEMAS)
def test_the_commands_of_a_recipe_are_accepted_by_the_command(heading):
    """Every option in it is one."""
    from somaresil.cli import _parser

    text = re.sub(r"\s*\n\s+(?=--)", " ", recipe_of(heading))
    commands = re.findall(r"python -m somaresil (.*)", text)
    assert commands
    import shlex

    for command in commands:
        arguments, unknown = _parser().parse_known_args(shlex.split(command))
        assert arguments.command == "perf"
        assert unknown == []
