"""The page on logs lists what the code has: keys of a line, words of secrets, fields of the filter, levels."""

import re
from pathlib import Path

from somaresil.integrations._logfields import NOTHING
from somaresil.integrations.jsonlogs import LINE_KEYS, SECRET_ENDINGS, SECRET_WORDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guides" / "logs.md").read_text(encoding="utf-8")


def table_after(marker: str) -> list[list[str]]:
    """Give the cells of the rows of the table below a marker."""
    lines = PAGE.partition(marker)[2].lstrip("\n").splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def test_keys_of_a_line_are_all_listed():
    """With the field of OpenTelemetry's data model for each."""
    assert {key.strip("`"): field for key, field in table_after("<!-- keys of a line -->")} == LINE_KEYS


def test_words_of_secrets_are_all_listed():
    """Whoever looks for a name finds whether it is hidden."""
    anywhere, at_the_end = (tuple(re.findall(r"`(\w+)`", cell)) for _, cell in table_after("<!-- words of secrets -->"))
    assert anywhere == SECRET_WORDS
    assert at_the_end == SECRET_ENDINGS


def test_fields_of_the_filter_are_all_listed():
    """In the first table of the page."""
    first = PAGE.partition("| field | what |")[2].partition("\n\n")[0]
    named = [name for row in first.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert named == list(NOTHING)
