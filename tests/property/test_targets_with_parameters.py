"""Targets with parameters in braces fit what an expression made of them fits."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from somaresil.chaos.triggers import aims_at

PARTS = {"a": "a", "b": "b", "/": "/", "*": ".*", "?": ".", "{x}": "[^/]+", "{x:path}": ".+", "{": r"\{", "}": r"\}"}


@given(parts=st.lists(st.sampled_from(sorted(PARTS)), max_size=7), path=st.text("ab/{}\n", max_size=9))
def test_a_target_fits_what_its_expression_fits(parts, path):
    """Part by part; a brace that closes nothing is a letter."""
    target = "{y}/" + "".join(parts)
    known = re.split(r"(\{[^{}/:]*(?::path)?[^{}/]*\})", target)
    words = [
        "".join(PARTS[each] for each in word) if not at % 2 else PARTS["{x:path}" if ":path" in word else "{x}"]
        for at, word in enumerate(known)
    ]
    assert aims_at(target, path) == bool(re.fullmatch("".join(words), path, re.DOTALL))


def test_a_path_cannot_make_it_take_for_ever():
    """An expression would try more ways than there are seconds."""
    assert not aims_at("/{x}" + "*a" * 40, "/" + "a" * 3_000 + "b")
