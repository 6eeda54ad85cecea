"""Changing options field by field: what a mapping means, and every mistake in it at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import pytest

from somaresil import Bulkhead, CircuitBreaker, Fallback, Retry, Timeout
from somaresil.config import Checker
from somaresil.guard import GuardOptions, options
from somaresil.guard.change import Change, changed, changes_between, settings_of, shown, undo, usual_parts

NOTHING = GuardOptions()


def handler(*args):
    return "instead"


BUSY = GuardOptions(
    retry=Retry(attempts=5, on=KeyError),
    breaker=CircuitBreaker(open_duration=10.0),
    bulkhead=Bulkhead(8, 4, 2.0),
    timeout=Timeout(10.0, idle=1.0),
    fallback=Fallback(handler),
)


def apply(current, *given):
    """Options and problems that come of mappings, the later on top."""
    check = Checker()
    settings = [setting for each in given for setting in settings_of(each, "g", check)]
    return changed(current, settings, check), check.problems


@pytest.mark.parametrize(
    ("given", "option", "expected"),
    [
        ({"timeout": 8}, "timeout", Timeout(8.0)),
        ({"timeout": {"total": 8}}, "timeout", Timeout(8.0, idle=1.0)),
        ({"timeout": {"total": None}}, "timeout", Timeout(idle=1.0)),
        ({"timeout": Timeout(3)}, "timeout", Timeout(3.0)),
        ({"timeout": None}, "timeout", None),
        ({"retry": {"attempts": 2}}, "retry", Retry(attempts=2, on=KeyError)),
        ({"retry": 2}, "retry", Retry(attempts=2)),
        ({"retry": {"attempts": 2, "on": OSError}}, "retry", Retry(attempts=2, on=OSError)),
        ({"retry": {}}, "retry", BUSY.retry),
        ({"breaker": True}, "breaker", CircuitBreaker()),
        ({"breaker": {"failure_rate": 0.25}}, "breaker", CircuitBreaker(open_duration=10.0, failure_rate=0.25)),
        ({"bulkhead": 3}, "bulkhead", Bulkhead(3)),
        ({"bulkhead": {"max_concurrent": 3}}, "bulkhead", Bulkhead(3, 4, 2.0)),
        ({"fallback": {"on": KeyError}}, "fallback", Fallback(handler, on=KeyError)),
    ],
)
def test_a_change_of_what_is_there(given, option, expected):
    """A mapping names fields, None takes away, anything else stands in its place; the other options stay."""
    after, problems = apply(BUSY, given)
    assert problems == ()
    assert getattr(after, option) == expected
    assert all(getattr(after, name) == getattr(BUSY, name) for name in GuardOptions.__slots__ if name != option)


@pytest.mark.parametrize(
    ("given", "option", "expected"),
    [
        ({"timeout": {"idle": 2}}, "timeout", Timeout(idle=2.0)),
        ({"retry": {}}, "retry", Retry()),
        ({"breaker": {"window": 5}}, "breaker", CircuitBreaker(window=5.0)),
        ({"bulkhead": {"max_concurrent": 2}}, "bulkhead", Bulkhead(2)),
    ],
)
def test_a_mapping_makes_what_is_not_there(given, option, expected):
    """With the usual values for what it does not name."""
    after, problems = apply(NOTHING, given)
    assert problems == ()
    assert getattr(after, option) == expected


def test_the_last_of_one_name_wins_field_by_field():
    """Fields of several mappings come together; a value in between begins anew; what was taken away comes back as it was."""
    after, problems = apply(BUSY, {"timeout": {"total": 3, "idle": 2}}, {"timeout": {"total": 4}})
    assert after.timeout == Timeout(4.0, idle=2.0)
    after, more = apply(BUSY, {"timeout": {"idle": 2}}, {"timeout": 5}, {"timeout": {"first_item": 1}})
    assert after.timeout == Timeout(5.0, first_item=1.0)
    for again in ({}, {"attempts": 5}):
        after, none = apply(BUSY, {"retry": None}, {"retry": again})
        assert after.retry == BUSY.retry
        problems += none
    assert problems + more == ()


WRONG = [
    ({"timeout": -1}, "g.timeout"),
    ({"timeout": {"total": -1}}, "g.timeout.total"),
    ({"timeout": {"totl": 1}}, "g.timeout.totl"),
    ({"retry": {"attempts": 200}}, "g.retry.attempts"),
    ({"retry": "3"}, "g.retry"),
    ({"breaker": {"open_maximum": 5}}, "g.breaker.open_maximum"),
    ({"breaker": {"open_duration": 60.0}}, "g.breaker.open_maximum"),
    ({"bulkhead": {"max_wait": 0.0}}, "g.bulkhead.max_wait"),
    ({"brekaer": True}, "g.brekaer"),
    ({"brekaer": {"window": 1}}, "g.brekaer"),
    ({"slo": "fast"}, "g.slo"),
    ({"classify": None}, "g.classify"),
    ({"budget_aware": "fast"}, "g.budget_aware"),
    ({"idempotent": {"x": 1}}, "g.idempotent"),
    ({5: 1}, "g.5"),
    ({"retry": {"attempts": {"x": {"y": 1}}}}, "g.retry.attempts"),
    ({"fallback": {"handler": "x"}}, "g.fallback.handler"),
    ([("retry", 2)], "g"),
    (None, "g"),
]


@pytest.mark.parametrize(("given", "path"), WRONG, ids=[str(given) for given, _ in WRONG])
def test_each_mistake_is_named_by_its_path(given, path):
    """And the option stays what it was."""
    after, problems = apply(BUSY, given)
    assert [problem.path for problem in problems] == [path]
    assert after == BUSY


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"timeout": {"total": -1}}, {"timeout": {"total": 5}}),
        ({"timeout": {"total": -1}}, {"timeout": 5}),
        ({"timeout": {"total": -1}}, {"timeout": None}),
        ({"timeout": {"totl": 1}}, {"timeout": 5}),
        ({"timeout": -1}, {"timeout": 5}),
        ({"retry": {"attempts": 0}}, {"retry": {"attempts": 2}}),
    ],
)
def test_a_mistake_that_is_overruled_is_told_all_the_same(first, then):
    """It is one wherever it has the last word; what only does not go together is not looked at there."""
    after, problems = apply(BUSY, first, then)
    assert len(problems) == 1
    assert after == apply(BUSY, then)[0]
    assert apply(BUSY, {"breaker": {"open_maximum": 5}, "bulkhead": {"max_wait": 0.0}}, {"breaker": True, "bulkhead": 2})[1] == ()


def test_what_is_missing_is_named():
    """A new options object needs what has no default."""
    after, problems = apply(NOTHING, {"bulkhead": {"max_waiting": 2}})
    assert [(problem.path, problem.hint) for problem in problems] == [
        ("g.bulkhead.max_concurrent", "it is missing, and there is nothing yet that would have it")
    ]
    assert after == NOTHING


def test_near_names_are_suggested():
    """Of options and of fields; a name with dots that was not quoted is recognised."""
    _, problems = apply(BUSY, {"brekaer": True, "retry": {"atempts": 1}, "invoke": {"timeout": 3}})
    assert [problem.hint for problem in problems] == [
        "did you mean 'breaker'?",
        "did you mean 'attempts'?",
        "a name with dots stands in quotes: [guards.'llm.invoke']",
    ]


def test_all_mistakes_are_told_at_once():
    """Those of one options object too, beside a name that does not exist."""
    given = {"retry": {"attempts": 0, "max_elapsed": -1, "x": 1}, "timeout": {"total": 0}, "y": 1}
    _, problems = apply(BUSY, given)
    assert sorted(problem.path for problem in problems) == [
        "g.retry.attempts",
        "g.retry.max_elapsed",
        "g.retry.x",
        "g.timeout.total",
        "g.y",
    ]


def test_a_mapping_that_holds_itself_is_refused():
    """It ends somewhere."""
    endless = {}
    endless["retry"] = endless
    _, problems = apply(BUSY, endless)
    assert [problem.path for problem in problems] == ["g.retry.retry"]


@dataclass(frozen=True, slots=True)
class Chosen(Timeout):
    """Options of a kind of its own, as adapters have them."""

    colour: str = "red"


def test_options_of_a_kind_of_its_own_keep_it():
    """What an adapter has added stays."""
    after, problems = apply(GuardOptions(timeout=Chosen(5.0, colour="blue")), {"timeout": {"total": 4}})
    assert problems == ()
    assert after.timeout == Chosen(4.0, colour="blue")


@dataclass(frozen=True, slots=True)
class Line:
    length: int = 1
    order: str = "fifo"


@dataclass(frozen=True, slots=True)
class Queued(Timeout):
    """Options that hold options."""

    line: Line | None = None

    def __post_init__(self):
        Timeout.__post_init__(self)
        if len(self.line.order if self.line else "fifo") != 4:
            check = Checker("Queued")
            check.problem("line.order", self.line.order, "four letters")
            check.finish()


def test_options_within_options_are_changed_alike():
    """Field by field at any depth, made when they are not there, with the path of each mistake, and undone."""
    made = GuardOptions(timeout=Queued(5.0, line=Line(3, "lifo")))
    after, problems = apply(made, {"timeout": {"line": {"length": 4}}})
    assert problems == ()
    assert after.timeout.line == Line(4, "lifo")
    assert changes_between("x", made, after) == (Change("x", "timeout.line.length", 3, 4),)
    assert apply(after, undo(changes_between("x", made, after))["x"])[0] == made
    assert apply(GuardOptions(timeout=Queued(5.0)), {"timeout": {"line": {"length": 4}}})[0].timeout.line == Line(4)
    assert apply(made, {"timeout": {"line": None}})[0].timeout.line is None
    for wrong in ({"lenght": 4}, {"order": "random"}):
        (name,) = wrong
        assert [problem.path for problem in apply(made, {"timeout": {"line": wrong}})[1]] == [f"g.timeout.line.{name}"]
    overruled = {"timeout": {"line": {"lenght": 4}}}, {"timeout": {"line": {"order": [1]}}}, {"timeout": 5}
    assert [problem.path for problem in apply(made, *overruled)[1]] == ["g.timeout.line.lenght"]


def test_a_shorthand_that_the_options_themselves_refuse_is_named(monkeypatch):
    """Whichever of the two looks at the number."""
    monkeypatch.setitem(options._RESOLVE, "retry", lambda check, value: Retry(attempts=value))
    after, problems = apply(BUSY, {"retry": 0})
    assert [problem.path for problem in problems] == ["g.retry"]
    assert after == BUSY


def test_changes_are_told_field_by_field():
    """Of one kind by field, of two kinds as a whole; equal options have none."""
    after, _ = apply(BUSY, {"retry": {"attempts": 2}, "timeout": {"total": 4, "idle": None}, "bulkhead": None})
    assert changes_between("x", BUSY, after) == (
        Change("x", "retry.attempts", 5, 2),
        Change("x", "bulkhead", BUSY.bulkhead, None),
        Change("x", "timeout.total", 10.0, 4.0),
        Change("x", "timeout.idle", 1.0, None),
    )
    assert changes_between("x", BUSY, BUSY) == ()
    assert [str(change) for change in changes_between("x", BUSY, after)][:2] == [
        "x: retry.attempts 5 -> 2",
        "x: bulkhead Bulkhead(max_concurrent=8, max_waiting=4, max_wait=2.0) -> None",
    ]


def test_undoing_names_the_values_from_before():
    """By guard, option and field."""
    changes = (Change("x", "retry.attempts", 5, 2), Change("x", "bulkhead", BUSY.bulkhead, None), Change("y", "retry", None, Retry()))
    assert undo(changes) == {"x": {"retry": {"attempts": 5}, "bulkhead": BUSY.bulkhead}, "y": {"retry": None}}


class Broken:
    def __repr__(self):
        raise OSError("no")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (8.0, "8.0"),
        (None, "None"),
        ("a\nb", "'a\\nb'"),
        (handler, "handler"),
        (KeyError, "KeyError"),
        ((KeyError, OSError), "(KeyError, OSError)"),
        ((KeyError,), "(KeyError,)"),
        (len, "len"),
        (Broken(), "<Broken>"),
        (Retry(), "Retry()"),
        (Retry(attempts=2, on=KeyError), "Retry(attempts=2, on=KeyError)"),
        (Timeout(2.0), "Timeout(total=2.0)"),
        ("x" * 200, "'" + "x" * 78 + "…"),
    ],
)
def test_a_value_is_shown_in_few_characters(value, text):
    """Functions and classes by name, options by what is not as usual; whatever it is, nothing is raised."""
    assert shown(value) == text
    assert len(shown(partial(handler, "y" * 500))) == 80


def test_what_is_usual_is_not_shown():
    """Also of options that need something to be said."""
    assert usual_parts(CircuitBreaker()) == []
    assert usual_parts(Bulkhead(3)) == ["max_concurrent=3"]
    assert usual_parts(Timeout(3, abandon=True)) == ["total=3.0", "abandon=True"]
    assert usual_parts(None) == []
