"""The guide about chaos names every kind of fault, where it can strike, and every option, as the table in the code has them."""

import re
from pathlib import Path

from somaresil.chaos.latency import SHAPES
from somaresil.chaos.vocabulary import FAULTS, TRIGGERS

PAGE = (Path(__file__).resolve().parents[2] / "docs/guides/chaos.md").read_text(encoding="utf-8")


def table_after(marker: str) -> list[list[str]]:
    """Give the cells of the rows of the table below a marker."""
    lines = PAGE.partition(f"<!-- {marker} -->\n")[2].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def test_every_kind_is_described_in_the_words_of_the_code():
    """In its order."""
    assert table_after("kinds of somaresil.chaos.vocabulary") == [[f"`{kind}`", fault.does] for kind, fault in FAULTS.items()]


def test_every_option_of_every_kind_is_there_and_no_other():
    """With those in bold that it needs."""
    found = {
        (kind.strip("`"), realm.strip("`")): options
        for kind, realm, options in table_after("options of kinds of somaresil.chaos.vocabulary")
    }
    expected = {}
    for kind, fault in FAULTS.items():
        for realm, takes in fault.realms.items():
            own = sorted(takes.options - set(TRIGGERS))
            needed = takes.needs | takes.one_of
            expected[kind, realm.value] = ", ".join(f"**`{name}`**" if name in needed else f"`{name}`" for name in own) or "-"
    assert found == expected


def test_every_trigger_and_every_shape_is_explained():
    """In the tables of their sections."""
    shapes = PAGE.partition("### Latency")[2].partition("### Streams")[0]
    assert all(f'{{"{name}"' in shapes for name in SHAPES)
    triggers = PAGE.partition("## Which calls")[2].partition("\n## ")[0]
    long = {"ramp": "ramp_seconds"}
    assert all(re.search(rf"\b{long.get(name, name)}=", triggers) for name in TRIGGERS)
