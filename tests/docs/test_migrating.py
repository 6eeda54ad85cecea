"""The pages for those who come from another library: every option of it is in their tables, and what they name here is here."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import somaresil
from somaresil import Resilience
from somaresil.chaos import ChaosEngine
from somaresil.guard import Guard
from somaresil.integrations._families import FAMILIES

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "migrating"
PAGES = sorted(page for page in FOLDER.glob("*.md") if page.stem != "index")
HEADINGS = ["Side by side", "What differs", "Options", "Step by step"]
MARKER = re.compile(r"^<!-- (?:moved from (?P<module>\w+):(?P<name>\w+)|said by (?P<other>\w+)) -->$", re.MULTILINE)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def rows_below(text: str) -> list[list[str]]:
    """Cells of the rows of the table that stands first in the text."""
    rows = []
    for line in text.lstrip("\n").splitlines()[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    assert rows
    return rows


TABLES = [
    pytest.param(match["module"], match["name"], rows_below(page.read_text()[match.end() :]), id=f"{page.stem}:{match['name']}")
    for page in PAGES
    for match in MARKER.finditer(page.read_text())
]
OF_PYTHON = [table for table in TABLES if table.values[0]]


@every_page
def test_pages_are_alike(page):
    """The same headings, at least one table of options, and a line in the index of the pages."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert MARKER.search(text)
    assert f"({page.name})" in (FOLDER / "index.md").read_text()


@pytest.mark.parametrize(("module", "name", "rows"), OF_PYTHON)
def test_every_option_of_the_other_library_is_in_the_table(module, name, rows):
    """As its installed version has them, in its order."""
    found = getattr(importlib.import_module(module), name)
    expected = [option for option in inspect.signature(found).parameters if option != "self"]
    assert [row[0].strip("`") for row in rows] == expected


def unknown_options(node: ast.Call) -> set[str | None]:
    """Keywords of a call that the class, or the guard, does not take."""
    if isinstance(node.func, ast.Name):
        accepted = set(inspect.signature(getattr(somaresil, node.func.id)).parameters)
    elif isinstance(node.func, ast.Attribute) and node.func.attr == "guard":
        accepted = set(inspect.signature(Resilience.guard).parameters)
    else:
        accepted = set()
    return {keyword.arg for keyword in node.keywords} - accepted


def owner_of(base: str) -> object:
    """Whose attribute is meant, by what stands before the dot; None for what is not ours."""
    ours = Resilience("x")
    ours.guard("x", breaker=True)
    if base.startswith("resilience.breaker("):
        return ours.breaker("x")
    if base.startswith("resilience.guard("):
        return Guard
    return {"resilience": ours, "resilience.chaos": ChaosEngine, "Resilience": Resilience}.get(base)


def problem_of(text: str) -> str | None:
    """What is wrong with a code span that stands for something of ours."""
    if re.fullmatch(r"somaresil_\w+", text):
        known = {name for family in FAMILIES.values() for name in (family.name, f"{family.name}_total")}
        return None if text in known else f"no metric {text}"
    tree = ast.parse(text, mode="eval")
    if text.startswith("somaresil."):
        module, _, name = text.rpartition(".")
        return None if hasattr(importlib.import_module(module), name) else f"no {text}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and unknown_options(node):
            return f"{text}: no option {unknown_options(node)}"
        if isinstance(node, ast.Attribute):
            owner = owner_of(ast.unparse(node.value))
            if owner is not None and not hasattr(owner, node.attr):
                return f"{text}: no {node.attr}"
    if isinstance(tree.body, ast.Name) and not hasattr(somaresil, tree.body.id):
        return f"no {text}"
    return None


@pytest.mark.parametrize(("module", "name", "rows"), TABLES)
def test_what_is_named_here_is_here(module, name, rows):
    """Classes and their options, methods, metrics: each row has one of ours, or a dash and a reason."""
    for row in rows:
        if row[1] == "-":
            assert len(row) > 2, row
            assert row[2], row
            continue
        spans = re.findall(r"`([^`]+)`", row[1])
        assert spans, row
        assert [problem for span in spans if (problem := problem_of(span))] == []


@pytest.mark.parametrize(
    "wrong",
    ["CircuitBreaker(fail_max=5)", "Breaker(x=1)", "resilience.listen", "somaresil_nothing_total", "resilience.breaker('x').close()"],
)
def test_what_is_not_here_is_found(wrong):
    """The comparison above can fail."""
    try:
        assert problem_of(wrong) is not None
    except AttributeError:
        assert wrong == "Breaker(x=1)"
