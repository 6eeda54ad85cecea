"""The page of questions: each trap is named, executed, and answered."""

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "faq.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))


def test_each_trap_is_shown_by_what_happens():
    """At least a dozen; each has code with an assertion, and what it claims is executed with the other blocks of the docs."""
    shown = [name for name, text in SECTIONS.items() if "```python" in text]
    assert len(shown) >= 12
    assert [name for name in shown if "assert " not in SECTIONS[name]] == []
