"""Secrets are compared in a time that says nothing of them, and never by the way."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[2] / "src" / "somaresil").rglob("*.py"))
SECRET = re.compile(r"(^|_)(token|secret|signature|digest|password|passphrase|csrf|hmac|mac|credential|authorization)s?($|_)")
OTHERWISE = {
    "canary/store.py": "the signature of a file is its size and time",
    "explain.py": "the name of a variable of the environment",
    "mounted/auth.py": "digests of credentials are keys of a dictionary",
    "slo/snapshot.py": "the signature of a file is its size and time",
    "testing/exploration.py": "the signature of a history of calls",
    "top_command/command.py": "the name of a variable of the environment",
}
"""Names that read like secrets and are none."""


def compared(source):
    """The names that read like secrets and are compared by ==, !=, in or not in with something that is not a literal."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            continue
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Constant) for side in sides):
            continue
        for side in sides:
            name = side.id if isinstance(side, ast.Name) else side.attr if isinstance(side, ast.Attribute) else ""
            if SECRET.search(name.lower()) and name != name.upper():
                yield f"{node.lineno}: {ast.unparse(node)}"


def test_no_secret_is_compared_by_its_characters():
    """Everywhere in the package."""
    folder = SOURCES[0].parent
    found = {str(path.relative_to(folder)): list(compared(path.read_text(encoding="utf-8"))) for path in SOURCES}
    assert {name: lines for name, lines in found.items() if lines and name not in OTHERWISE} == {}
    assert all(found[name] for name in OTHERWISE), "what is not found any more needs no excuse"


@pytest.mark.parametrize("source", ["given == self.token", "if signature != made: pass", "token in known", "self._secrets == other"])
def test_a_comparison_of_a_secret_is_found(source):
    """Or the test above finds nothing whatever is there."""
    assert len(list(compared(source))) == 1


@pytest.mark.parametrize("source", ["token is None", "token == ''", "hmac.compare_digest(token, x)", "tokens_left > 3", "name == other"])
def test_what_is_no_comparison_of_secrets_is_not(source):
    assert list(compared(source)) == []


def test_there_is_one_way_to_compare_them():
    """``hmac.compare_digest``, wherever tokens and signatures are looked at."""
    users = {path.name for path in SOURCES if "compare_digest" in path.read_text(encoding="utf-8")}
    assert {"auth.py", "token.py", "tokens.py"} <= users
