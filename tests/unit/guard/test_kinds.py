"""What an option can hold is read from its annotation, so that a new option needs no line anywhere else."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import pytest

from somaresil import Retry
from somaresil.guard import GuardOptions
from somaresil.guard.kinds import Kind, kinds_of
from somaresil.policy.bulkhead import Bulkhead

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.outcome import Classifier


class Word(Enum):
    ONE = "one"


class Budget:
    """An object that is no options class."""


@dataclass(frozen=True)
class Inner:
    number: int = 1


@dataclass(frozen=True)
class Other:
    text: str = ""


@dataclass(frozen=True)
class Sample:
    whole: int
    _: KW_ONLY
    seconds: float | timedelta | None = None
    truth: bool = False
    name: str | None = None
    literal: Literal["a", "b|c"] = "a"
    word: Word = Word.ONE
    names: tuple[str, ...] = ()
    costs: Mapping[str, float | Callable[..., float]] = field(default_factory=dict)
    anything: Any = None
    function: Callable[[int | None], str] | None = None
    kinds: type[Exception] | tuple[type[Exception], ...] = Exception
    judge: Classifier | None = None
    budget: float | Budget | None = 0.2
    inner: Inner | Other | None = None
    many: tuple[Inner, ...] = ()
    made: int = field(default=0, init=False)


@dataclass(frozen=True)
class Child(Sample):
    more: Inner = Inner()


EXPECTED = {
    "whole": Kind(number=True),
    "seconds": Kind(number=True, duration=True, optional=True),
    "truth": Kind(truth=True),
    "name": Kind(text=True, optional=True),
    "literal": Kind(text=True),
    "word": Kind(text=True),
    "names": Kind(),
    "costs": Kind(code=True),
    "anything": Kind(code=True),
    "function": Kind(code=True, optional=True),
    "kinds": Kind(code=True),
    "judge": Kind(code=True, optional=True),
    "budget": Kind(number=True, code=True, optional=True),
    "inner": Kind(nested=(Inner, Other), optional=True),
    "many": Kind(),
}


@pytest.mark.parametrize(("name", "kind"), EXPECTED.items(), ids=EXPECTED)
def test_an_annotation_says_what_an_option_can_hold(name, kind):
    """Plain values, durations, words, code, other options."""
    assert kinds_of(Sample)[name] == kind


def test_fields_of_the_constructor_are_told_in_their_order():
    """What is computed is none of them; what is inherited means what it meant where it was written."""
    assert list(kinds_of(Sample)) == list(EXPECTED)
    assert kinds_of(Child) == {**kinds_of(Sample), "more": Kind(nested=(Inner,))}


def test_annotations_need_not_be_text():
    """A class without postponed annotations is read alike."""
    plain = dataclass(type("Plain", (), {"__annotations__": {"a": int, "b": float | None, "c": timedelta}}))
    assert kinds_of(plain) == {"a": Kind(number=True), "b": Kind(number=True, optional=True), "c": Kind(duration=True)}


def test_each_policy_is_an_option_that_holds_an_options_object():
    """And what only the code can say is known as that."""
    kinds = kinds_of(GuardOptions)
    assert kinds["retry"] == Kind(nested=(Retry,), optional=True)
    assert Bulkhead in kinds["bulkhead"].nested
    assert kinds["classify"].code
    assert [name for name, kind in kinds_of(Retry).items() if kind.code and not kind.number] == ["on", "wait", "stop", "resume"]
