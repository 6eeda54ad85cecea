"""Runs the first Python block of a README: ``python tests/docs/readme.py README.md``, with whatever somaresil is installed."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def first_block(text: str) -> str:
    """Give the first Python block of a page of Markdown."""
    found = re.search(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise SystemExit("there is no Python block")
    return found[1]


if __name__ == "__main__":
    exec(compile(first_block(Path(sys.argv[1]).read_text(encoding="utf-8")), sys.argv[1], "exec"), {"__name__": "__main__"})
