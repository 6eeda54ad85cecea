"""The comparison of type checkers with marks notices both kinds of error, and the marked files know every public name."""

from __future__ import annotations

import re

import somaresil
from tests import typing_judges as judges

MARKS = {("tests/typing/a.py", 3): "guard(5)  # type: ignore[arg-type]"}


def test_a_marked_line_that_is_an_error_is_right():
    assert judges.judge("ty", "tests/typing/a.py:3:5: error[x] wrong", MARKS) == []
    assert judges.judge("pyrefly", "ERROR tests/typing/a.py:3:5-9: wrong [x]", MARKS) == []


def test_an_error_without_a_mark_and_a_mark_without_an_error_are_told():
    assert len(judges.judge("ty", "tests/typing/a.py:4:5: error[x] wrong", MARKS)) == 2
    (unseen,) = judges.judge("pyrefly", "", MARKS)
    assert "nothing wrong at tests/typing/a.py:3" in unseen


def test_every_public_name_is_used_as_users_do():
    """Whatever ``somaresil`` itself exports."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (judges.ROOT / judges.FOLDER).glob("*.py"))
    assert [name for name in somaresil.__all__ if not re.search(rf"\b{name}\b", text)] == []
    assert len(judges.marked()) >= judges.FEWEST
