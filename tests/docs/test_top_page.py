"""The page about the terminal view names the keys, views and kinds that there are."""

import re
from pathlib import Path

from somaresil.top_command import TOKEN, URL, VIEWS
from somaresil.top_command.cli import KINDS
from somaresil.top_command.steering import HELP

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "top.md").read_text(encoding="utf-8")


def rows_below(heading):
    """First and second cell of each row of the first table below a heading."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| (.+?) \|", section, re.MULTILINE)


def test_keys_are_those_of_the_help():
    """Word for word, in the same order."""
    assert rows_below("Keys") == list(HELP)


def test_views_and_kinds_are_all_there():
    """In the order of the command."""
    assert [name for name, _ in rows_below("Views")] == list(VIEWS)
    assert [name for name, _ in rows_below("In scripts")] == list(KINDS)


def test_variables_are_named():
    """As the command reads them."""
    assert f"`{URL}`" in PAGE
    assert f"`{TOKEN}`" in PAGE
