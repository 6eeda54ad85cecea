"""The public interface is the one that was written down, and what breaks its users is told from what does not."""

from __future__ import annotations

import griffe
import pytest

from tests import public_api

BEFORE = "def call(first: int, *, name: str = 'a') -> int:\n    ...\n"


def interface(folder, source):
    """The lines of a package with one module that has this source."""
    package = folder / "planted"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "module.py").write_text(source, encoding="utf-8")
    loaded = griffe.load("planted", search_paths=[folder], resolve_aliases=False)
    return "\n".join(public_api.lines(loaded, ["planted.module"]))


def test_it_is_what_was_written_down():
    now = public_api.current()
    gone = public_api.broken(public_api.SNAPSHOT.read_text(encoding="utf-8"), now)
    assert gone == [], "users are broken by this: see docs/guides/releases.md"
    assert now == public_api.SNAPSHOT.read_text(encoding="utf-8"), "there is more now: run `python tests/public_api.py`"


@pytest.mark.parametrize(
    "after",
    [
        "",
        "def call(*, name: str = 'a') -> int:\n    ...\n",
        "def call(other: int, *, name: str = 'a') -> int:\n    ...\n",
        "def call(first: int, *, name: str = 'b') -> int:\n    ...\n",
        "def call(first: int, *, name: str) -> int:\n    ...\n",
        "def call(first: int, *, name: str = 'a') -> str:\n    ...\n",
        "async def call(first: int, *, name: str = 'a') -> int:\n    ...\n",
        "def call(first: int, *, name: str = 'a', more: int) -> int:\n    ...\n",
        "def call(first: int, more: int = 0, *, name: str = 'a') -> int:\n    ...\n",
    ],
)
def test_what_breaks_callers_is_found(tmp_path, after):
    """A name, a parameter or a default that is gone or another one, a result of another kind."""
    assert len(public_api.broken(interface(tmp_path / "a", BEFORE), interface(tmp_path / "b", after))) == 1


def test_a_method_of_another_kind_is_found(tmp_path):
    """One that needs an object now."""
    kinds = ["class A:\n    @staticmethod\n    def of(first: int) -> int: ...\n", "class A:\n    def of(self, first: int) -> int: ...\n"]
    before, after = (interface(tmp_path / str(index), source) for index, source in enumerate(kinds))
    assert len(public_api.broken(before, after)) == 1


def test_an_option_more_breaks_nobody(tmp_path):
    """By keyword, with a default, before or behind the others."""
    for index, options in enumerate(("name: str = 'a', zone: str = 'b'", "kind: tuple[int, str] = (1, 'x'), name: str = 'a'")):
        after = f"def call(first: int, *, {options}) -> int:\n    ...\n"
        assert public_api.broken(interface(tmp_path / f"a{index}", BEFORE), interface(tmp_path / f"b{index}", after)) == []


def test_what_users_import_from_the_top_is_in_it():
    """Each by a line of its own."""
    text = public_api.SNAPSHOT.read_text(encoding="utf-8").splitlines()
    assert "somaresil.Resilience" in text
    assert public_api.broken("somaresil.Resilience\n", "\n".join(line for line in text if line != "somaresil.Resilience")) == [
        "somaresil.Resilience"
    ]


def test_what_comes_on_top_breaks_nobody(tmp_path):
    more = BEFORE + "def other() -> None:\n    ...\ndef _hidden() -> None:\n    ...\n"
    before, after = interface(tmp_path / "a", BEFORE), interface(tmp_path / "b", more)
    assert public_api.broken(before, after) == []
    assert "planted.module.other() -> None" in after
    assert "_hidden" not in after
