"""A file of YAML may hold several documents; each knows its lines, and what is wrong with one is said of it."""

from __future__ import annotations

import pytest

from somaresil.config import Checker
from somaresil.settings.files import DEEPEST, LARGEST, documents_from_text, documents_of

pytest.importorskip("yaml")


def read(text, **more):
    check = Checker()
    found = documents_from_text(text, "a.yaml", check, **more)
    return [document.data for document in found], [str(problem) for problem in check.problems], found


def test_several_documents_know_their_lines():
    """Empty ones are left out, and lines go on counting."""
    data, problems, found = read("# one\na: 1\n---\n---\nb:\n  c: 2\n...\n---\n")
    assert (data, problems) == ([{"a": 1}, {"b": {"c": 2}}], [])
    assert found[1].where(("b", "c"), "b.c") == "a.yaml:6: b.c"
    assert read("")[:2] == ([], [])


REFUSED = [
    ("a: 1\n---\n- 1", "a.yaml:3 = [1]: expected a mapping"),
    ("a: 1\n---\nb: &x 1\nc: *x", "a.yaml:4 = '*x': expected no aliases"),
    ("a: 1\n---\nb: 1\nb: 2", "a.yaml:4: b = 'b': expected each name once"),
    ("a: 1\n---\nb: " + "[" * 50_000, "a.yaml:3 = 'its depth'"),
    ("a: 1\n---\nb: " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "a.yaml:3 = 'its depth'"),
    ("a: 1\n---\nb: [", "expected YAML"),
    ("a: 1\n---\nb: !!python/name:os.system ", "could not determine a constructor"),
    ("a: 1\n---\n" * 3, "a.yaml:4 = 'document 3': expected at most 2 documents"),
    ("#" * (LARGEST + 1), "a.yaml = 'its size'"),
    ("a: " + "9" * 5_000, "a.yaml = 'its text'"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_read_is_one_problem(text, said):
    """Never an exception; aliases, depth, size and number are bounded before anything is built."""
    _, problems, _ = read(text, most=2)
    assert len(problems) == 1
    assert said in problems[0]


def test_files_end_in_yaml(tmp_path):
    """Nothing else has several documents."""
    check = Checker()
    assert documents_of(tmp_path / "a.toml", check) == ()
    assert documents_of(tmp_path / "a.yaml", check) == ()
    assert [problem.allowed for problem in check.problems] == ["a file that ends in .yaml, .yml", "a file that can be read"]
    (tmp_path / "a.yaml").write_text("a: 1\n---\nb: 1\n")
    assert len(documents_of(tmp_path / "a.yaml", Checker())) == 2
