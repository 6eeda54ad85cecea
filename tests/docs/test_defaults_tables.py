"""The tables of options in the docs name every option of their class, in its order, with the default that the code has."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MARKER = re.compile(r"^<!-- options of (?P<module>[\w.]+):(?P<name>\w+) -->$", re.MULTILINE)
ROW = re.compile(r"^\| `(?P<option>\w+)` \| (?P<default>[^|]+?) \| ")
TABLES = [
    (page, match["module"], match["name"], match.end())
    for page in sorted(ROOT.glob("docs/**/*.md"))
    for match in MARKER.finditer(page.read_text(encoding="utf-8"))
]
PROMISED = {
    "circuit-breaker": "CircuitBreaker",
    "retry": "Retry",
    "timeout": "Timeout",
    "bulkhead": "Bulkhead",
    "adaptive-limit": "AdaptiveLimit",
    "rate-limit": "RateLimit",
    "throttle": "Throttle",
    "fallback": "Fallback",
    "stale-cache": "StaleCache",
    "single-flight": "SingleFlight",
    "hedge": "Hedge",
    "fault": "ChaosConfig",
}


def rows_after(text: str) -> list[tuple[str, str]]:
    """Give option and default of each row of the first table in the text."""
    lines = iter(text.lstrip("\n").splitlines())
    heading, _ = next(lines), next(lines)
    assert heading.startswith("| option | default | "), "the table stands directly below its marker"
    found = []
    for line in lines:
        row = ROW.match(line)
        if row is None:
            assert not line.startswith("|"), f"not understood: {line}"
            break
        found.append((row["option"], row["default"]))
    return found


def shown(field: dataclasses.Field) -> str:
    """Give a default as the docs write it."""
    if field.default is dataclasses.MISSING:
        return "required"
    return f"`{field.default.__name__ if isinstance(field.default, type) else repr(field.default)}`"


@pytest.mark.parametrize(("page", "module", "name", "end"), TABLES, ids=[f"{page.stem}:{name}" for page, _, name, _ in TABLES])
def test_table_equals_the_class(page, module, name, end):
    """Options, their order and their defaults are those of the dataclass."""
    options = getattr(importlib.import_module(module), name)
    expected = [(field.name, shown(field)) for field in dataclasses.fields(options)]
    assert rows_after(page.read_text(encoding="utf-8")[end:]) == expected


@pytest.mark.parametrize(("page", "name"), PROMISED.items(), ids=PROMISED)
def test_each_policy_page_has_its_table(page, name):
    """A policy page without a table of its options is a mistake."""
    assert name in {shown_name for path, _, shown_name, _ in TABLES if path == ROOT / "docs" / "policies" / f"{page}.md"}


def test_each_policy_has_a_page_and_each_page_a_policy():
    """A module of policies whose options stand on no page is a mistake; that of faults has its options in the chaos engine."""
    modules = {f"somaresil.policy.{file.stem}" for file in ROOT.glob("src/somaresil/policy/*.py")} - {"somaresil.policy.__init__"}
    pages = {page.stem for page in ROOT.glob("docs/policies/*.md")}
    shown_modules = {module for path, module, _, _ in TABLES if path.parent.name == "policies"}
    assert modules - shown_modules == {"somaresil.policy.fault"}
    assert pages == PROMISED.keys()
    assert len(pages) == len(modules)


def test_a_wrong_default_is_found():
    """The comparison sees a changed default, a missing option and an extra one."""
    text = "\n| option | default | meaning |\n|---|---|---|\n| `attempts` | `4` | how often |\n| `more` | `None` | - |\n\ntext\n"
    assert rows_after(text) == [("attempts", "`4`"), ("more", "`None`")]
