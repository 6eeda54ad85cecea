"""Files of settings are read as data, within bounds, with the line of each mistake."""

from __future__ import annotations

import os
import sys

import pytest

from somaresil.config import Checker
from somaresil.settings.files import DEEPEST, LARGEST, deeper_than, document_of

pytest.importorskip("yaml")


def read(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    check = Checker()
    return document_of(path, check), [str(problem).replace(f"{tmp_path}{os.sep}", "") for problem in check.problems]


TOML = """
# a comment
[guards."llm.invoke"]
timeout = 8.0
retry = { attempts = 2, max_elapsed = 9 }
breaker.window = 5

[guards.memory.breaker]
window = 5
note = [
  1,
]
"""
YAML = """
guards:
  llm.invoke:
    timeout: 8.0
    retry: {attempts: 2,
            max_elapsed: 9}
    breaker: {window: 5}
  memory:
    breaker:
      window: 5
      note: [1]
"""
DATA = {
    "guards": {
        "llm.invoke": {"timeout": 8.0, "retry": {"attempts": 2, "max_elapsed": 9}, "breaker": {"window": 5}},
        "memory": {"breaker": {"window": 5, "note": [1]}},
    }
}


@pytest.mark.parametrize(("name", "text"), [("a.toml", TOML), ("a.yaml", YAML), ("a.YML", YAML)])
def test_both_forms_say_the_same(tmp_path, name, text):
    """By the ending of the name."""
    document, problems = read(tmp_path, name, text)
    assert problems == []
    assert document.data == DATA


def test_lines_are_known(tmp_path):
    """Exactly in YAML, and in TOML as far as a key stands on a line of its own; else that of what is around it."""
    toml, _ = read(tmp_path, "a.toml", TOML)
    lines = [toml.line_of(("guards", "llm.invoke", *path)) for path in [(), ("timeout",), ("retry", "attempts"), ("breaker", "window")]]
    assert lines == [3, 4, 5, 6]
    assert toml.line_of(("guards", "memory", "breaker", "note", "0")) == 8
    assert toml.line_of(("guards", "memory")) == 8
    assert toml.line_of(("nothing",)) is None
    yaml, _ = read(tmp_path, "a.yaml", YAML)
    lines = [yaml.line_of(("guards", "llm.invoke", *path)) for path in [(), ("timeout",), ("retry", "max_elapsed"), ("breaker", "x")]]
    assert lines == [3, 4, 6, 7]
    assert yaml.where(("guards", "memory"), "here").endswith("a.yaml:8: here")


def test_a_mapping_is_taken_as_it_is():
    """It has no name and no lines."""
    check = Checker()
    document = document_of(DATA, check)
    assert document.data is DATA
    assert document.where(("guards",), "guards") == "guards"


def test_empty_files_say_nothing(tmp_path):
    """In both forms, with a byte order mark too."""
    for name, text in (("a.toml", b""), ("a.yaml", b""), ("b.yaml", b"# nothing\n"), ("b.toml", b"\xef\xbb\xbf")):
        document, problems = read(tmp_path, name, text)
        assert (document.data, problems) == ({}, [])


REFUSED = [
    ("a.toml", "x = ", "a.toml = '.toml': expected what can be read (Invalid value (at end of document))"),
    ("a.toml", "x = 1\nx = 2", "Cannot overwrite a value"),
    ("a.toml", b"x = '\xff'", "expected UTF-8 (byte 5 is none)"),
    ("a.toml", "x = " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), f"at most {DEEPEST} tables"),
    ("a.toml", "x = " + "[" * 50_000, "a.toml = 'its depth'"),
    ("a.toml", "x = " + "9" * 5_000, "a.toml = '.toml': expected what can be read"),
    ("a.toml", "#" * (LARGEST + 1), f"a.toml = 'its size': expected at most {LARGEST} bytes"),
    ("a.yaml", "x: [", "a.yaml:1 = 'its text': expected YAML"),
    ("a.yaml", "x: 1\n  y: 2", "a.yaml:2 = 'its text'"),
    ("a.yaml", "\x00", "a.yaml = 'its text'"),
    ("a.yaml", "- 1", "a.yaml = [1]: expected a mapping"),
    ("a.yaml", "x: " + "[" * 50_000, "a.yaml:1 = 'its depth'"),
    ("a.yaml", "a: &a [1]\nb: *a", "a.yaml:2 = '*a': expected no aliases"),
    ("a.yaml", "a: 1\n---\nb: 1", "a.yaml:2 = 'a second document'"),
    ("a.yaml", "a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ("a.yaml", "a: !!python/name:os.system ", "could not determine a constructor"),
    ("a.yaml", "a: !local {b: 1}", "could not determine a constructor"),
    ("a.yaml", "a:\n  b: 1\n  b: 2", "a.yaml:3: a.b = 'b': expected each name once"),
    ("a.yaml", "? [a]\n: 1", "a.yaml:1 = 'a key': expected a plain name"),
    ("a.yaml", "a: " + "9" * 5_000, "a.yaml = '.yaml': expected what can be read"),
    ("a.ini", "x = 1", "a.ini = '.ini': expected a file that ends in .toml, .yaml, .yml"),
    ("a", "x = 1", "a = '': expected a file that ends in"),
]


@pytest.mark.parametrize(("name", "text", "said"), REFUSED, ids=range(len(REFUSED)))
def test_what_cannot_be_read_is_a_problem(tmp_path, name, text, said):
    """One each, and never an exception; nothing is built from what is too large or too deep, and nothing named is loaded."""
    _, problems = read(tmp_path, name, text)
    assert len(problems) == 1
    assert said in problems[0]


def test_exactly_as_deep_and_large_as_allowed_is_read(tmp_path):
    """The bounds belong to what is allowed."""
    inner = DEEPEST - 1
    for name, text in (("a.toml", f"x = {'[' * inner}{']' * inner}"), ("a.yaml", f"x: {'[' * inner}{']' * inner}")):
        document, problems = read(tmp_path, name, text)
        assert problems == []
        assert not deeper_than(document.data, DEEPEST)
        assert deeper_than(document.data, DEEPEST - 1)
    assert read(tmp_path, "b.toml", "#" * LARGEST)[1] == []


def test_a_mapping_that_holds_itself_is_too_deep():
    """It is noticed before anybody walks down."""
    endless = {}
    endless["guards"] = [endless, endless]
    check = Checker()
    assert document_of(endless, check) is None
    assert [problem.path for problem in check.problems] == ["settings"]


def test_keys_of_yaml_are_kept_as_they_are_written(tmp_path):
    """``on`` is no truth value as a key, and a number is a name."""
    document, problems = read(tmp_path, "a.yaml", "guards:\n  a: {on: 1, off: yes, 5: null}")
    assert problems == []
    assert document.data == {"guards": {"a": {"on": 1, "off": True, "5": None}}}


def test_what_is_no_plain_file_is_not_waited_for(tmp_path):
    """A pipe, a folder, nothing at all."""
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    for name, said in (("pipe.toml", "no plain file"), ("folder.toml", "no plain file"), ("none.toml", "no file"), ("a\x00b.toml", "")):
        check = Checker()
        assert document_of(tmp_path / name, check) is None
        (problem,) = check.problems
        assert said in str(problem.value)


def test_yaml_without_pyyaml_says_what_to_install(tmp_path, monkeypatch):
    """TOML needs nothing."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    _, problems = read(tmp_path, "a.yaml", YAML)
    assert problems == ["a.yaml = 'YAML': expected PyYAML to read it (pip install \"somaresil[yaml]\", or write TOML)"]
    assert read(tmp_path, "a.toml", TOML)[1] == []
