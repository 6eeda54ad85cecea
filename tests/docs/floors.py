"""The drawing of the floors in docs/architecture.md, made from the import contract in pyproject.toml.

python tests/docs/floors.py           # writes it into the page
"""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- floors: begin -->\n", "<!-- floors: end -->"


def floors() -> list[list[str]]:
    """Names of the modules of each floor, the highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers" and contract["containers"] == ["somaresil"])
    return [[name.strip(" ()") for name in layer.split("|")] for layer in layers]


def drawing() -> str:
    """The floors as a Mermaid block: one node a floor, an arrow to what it may import."""
    lines = ["```mermaid", "flowchart TD"]
    found = floors()
    lines += [f'    f{number}["{"<br>".join(_rows(names))}"]' for number, names in enumerate(found)]
    lines.append("    " + " --> ".join(f"f{number}" for number in range(len(found))))
    return "\n".join([*lines, "```"]) + "\n"


def _rows(names: list[str], most: int = 6) -> list[str]:
    return [" · ".join(names[start : start + most]) for start in range(0, len(names), most)]


def write() -> None:
    """Put the drawing between its markers."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(before + BEGIN + drawing() + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    write()
