"""What files and variables say is judged before any guard is there, and turned into settings of fields."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from somaresil import Bulkhead, CircuitBreaker, Retry, Timeout
from somaresil.config import Checker
from somaresil.guard.change import PRESENT
from somaresil.settings.entries import Entry, entries_of, folded
from somaresil.settings.files import document_of
from somaresil.settings.variables import HIDDEN, entries_of_variables


def from_file(data, environment=None):
    check = Checker()
    entries = entries_of(document_of(data, check), environment, check)
    return entries, check.problems


def from_variables(**variables):
    check = Checker()
    return entries_of_variables({f"SOMARESIL_{name}": value for name, value in variables.items()}, check), check.problems


def said(entries):
    return {".".join(setting.path): setting.value for entry in entries for setting in entry.settings}


ONE = [
    ({"timeout": 8}, {"timeout.total": 8}),
    ({"timeout": "500ms"}, {"timeout.total": timedelta(milliseconds=500)}),
    ({"timeout": False}, {"timeout": None}),
    ({"timeout": None}, {"timeout": None}),
    ({"timeout": "none"}, {"timeout": None}),
    ({"timeout": {"total": "2m", "idle": "none"}}, {"timeout.total": timedelta(minutes=2), "timeout.idle": None}),
    ({"retry": 2}, {"retry.attempts": 2}),
    ({"retry": {"attempts": 2, "max_elapsed": "1.5h"}}, {"retry.attempts": 2, "retry.max_elapsed": timedelta(hours=1.5)}),
    ({"retry": {"wait": 0.5}}, {"retry.wait": 0.5}),
    ({"retry": {"budget": 0.1}}, {"retry.budget": 0.1}),
    ({"retry": {}}, {"retry": PRESENT}),
    ({"breaker": True}, {"breaker": PRESENT}),
    ({"breaker": {"open_maximum": 10, "failure_rate": 0.25}}, {"breaker.open_maximum": 10, "breaker.failure_rate": 0.25}),
    ({"bulkhead": {"max_waiting": 5}}, {"bulkhead.max_waiting": 5}),
    ({"fallback": False}, {"fallback": None}),
    ({"idempotent": True}, {"idempotent": True}),
    ({"idempotent": False}, {"idempotent": False}),
    ({"idempotent": "key"}, {"idempotent": "key"}),
]


@pytest.mark.parametrize(("given", "expected"), ONE, ids=[str(given) for given, _ in ONE])
def test_what_a_file_may_say(given, expected):
    """A number is the field that it stands for, true and {} that it is there, false and "none" that it is not; durations have units."""
    entries, problems = from_file({"guards": {"x": given}})
    assert problems == ()
    assert said(entries) == expected


WRONG = [
    ({"timeout": -1}, "timeout", "seconds > 0"),
    ({"timeout": "8"}, "timeout", ""),
    ({"timeout": "8 s"}, "timeout", ""),
    ({"timeout": "soon"}, "timeout", ""),
    ({"timeout": True}, "timeout", ""),
    ({"timeout": [1]}, "timeout", ""),
    ({"timeout": {"total": "8"}}, "timeout.total", "seconds > 0"),
    ({"timeout": {"abandon": 1}}, "timeout.abandon", "True or False"),
    ({"timeout": {"abandon": "true"}}, "timeout.abandon", "True or False"),
    ({"retry": True}, "retry", "a number of attempts"),
    ({"retry": 2.0}, "retry", "a number of attempts"),
    ({"retry": {"attempts": "2"}}, "retry.attempts", "a whole number"),
    ({"retry": {"attempts": "2s"}}, "retry.attempts", "a whole number"),
    ({"retry": {"attempts": [2]}}, "retry.attempts", "a whole number"),
    ({"retry": {"attempts": {"a": 2}}}, "retry.attempts.a", "one value for retry.attempts"),
    ({"retry": {"max_elapsed": -1}}, "retry.max_elapsed", "seconds > 0"),
    ({"retry": {"max_elapsed": float("nan")}}, "retry.max_elapsed", "seconds > 0"),
    ({"retry": {"atempts": 2}}, "retry.atempts", "one of attempts"),
    ({"retry": {"budget": 5}}, "retry.budget", "a ratio"),
    ({"retry": {"on": 5}}, "retry.on", "exception types"),
    ({"breaker": {"failure_rate": 50}}, "breaker.failure_rate", "a ratio"),
    ({"brekaer": True}, "brekaer", "one of "),
    ({"slo": "fast"}, "slo", "one of "),
    ({"classify": "x:y"}, "classify", "one of "),
    ({"invoke": {"timeout": 3}}, "invoke.timeout", "one of "),
    ({"idempotent": "not a name"}, "idempotent", "True, False"),
    ({"idempotent": [1]}, "idempotent", "a plain value"),
]


@pytest.mark.parametrize(("given", "path", "allowed"), WRONG, ids=[str(given) for given, _, _ in WRONG])
def test_each_mistake_is_told_before_there_is_a_guard(given, path, allowed):
    """One problem, with its path and what is allowed, and nothing of it is used."""
    entries, problems = from_file({"guards": {"x": given}})
    assert [problem.path for problem in problems] == [f"guards.'x'.{path}"]
    assert allowed in problems[0].allowed
    assert said(entries) == {}


CODE = [
    {"fallback": "os:system"},
    {"fallback": {"handler": "os:system"}},
    {"fallback": {"on": "KeyError"}},
    {"retry": {"on": "ConnectionError"}},
    {"retry": {"on": ["KeyError", "OSError"]}},
    {"retry": {"wait": "wait_fixed"}},
    {"retry": {"stop": "never"}},
    {"retry": {"on": {"module": "os", "name": "system"}}},
]


@pytest.mark.parametrize("given", CODE, ids=str)
def test_nothing_that_is_named_is_loaded(given):
    """Functions and exception types are said by the code alone, and the problem says so."""
    entries, problems = from_file({"guards": {"x": given}})
    assert problems
    assert all("never loaded from configuration" in problem.hint for problem in problems)
    assert said(entries) == {}


def test_every_problem_of_a_file_is_told_at_once():
    """Sections that do not exist, names, all environments, also those that are not chosen."""
    _, problems = from_file(
        {
            "gards": {},
            "guards": {"a b": {"timeout": 1}, "x": [1], "y": {"retry": 0, "timeout": 0}},
            "environments": {"production": {"guards": {"z": {"breaker": {"window": 0}}}, "guard": {}}, "test": 5},
        },
        "test",
    )
    assert [problem.path for problem in problems] == [
        "gards",
        "guards.'a b'",
        "guards.'x'",
        "guards.'y'.retry",
        "guards.'y'.timeout",
        "environments.production.guard",
        "environments.production.guards.'z'.breaker.window",
        "environments.test",
    ]
    assert problems[0].hint == "did you mean 'guards'?"
    for wrong in ({"guards": 5}, {"environments": []}, {"environments": {"a": {"guards": 1}}}):
        assert len(from_file(wrong)[1]) == 1


def test_the_overlay_of_the_environment_lies_on_top():
    """Names are more exact than patterns, and an overlay goes before all of the rest; other environments say nothing."""
    data = {
        "guards": {"x": {"timeout": 1}, "*": {"timeout": 2}},
        "environments": {
            "production": {"guards": {"x": {"timeout": 3}, "?": {"timeout": 4}}},
            "staging": {"guards": {"x": {"timeout": 5}}},
        },
    }
    assert [(entry.guard, entry.settings[0].value) for entry in from_file(data, "production")[0]] == [
        ("*", 2),
        ("x", 1),
        ("?", 4),
        ("x", 3),
    ]
    assert [entry.settings[0].value for entry in from_file(data, None)[0]] == [2, 1]


def test_a_name_or_pattern_says_which_guards_it_speaks_of():
    """The whole name; dots are like other characters to a pattern."""
    assert Entry("llm.*", (), "").is_for("llm.invoke.fast")
    assert not Entry("llm.*", (), "").is_for("llm")
    assert Entry("llm", (), "").is_for("llm")
    assert not Entry("llm", (), "").is_for("llm.invoke")
    assert Entry("LLM_INVOKE", (), "", folded=True).is_for("llm.invoke")
    assert not Entry("LLM_INVOKE", (), "").is_for("llm.invoke")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llm.invoke", "LLM_INVOKE"),
        ("llm-invoke", "LLM_INVOKE"),
        ("LLM_Invoke", "LLM_INVOKE"),
        ("a..b", "A_B"),
        ("http:/v1/{id}", "HTTP_V1_ID"),
        ("_x_", "X"),
        ("db2", "DB2"),
    ],
)
def test_how_a_name_reads_in_a_variable(name, expected):
    """Capitals, and one underscore for whatever else stands between them."""
    assert folded(name) == expected


@settings(max_examples=60)
@given(st.from_regex(r"[A-Za-z0-9_.:/{}-]{1,40}", fullmatch=True))
def test_a_folded_name_can_be_told_from_the_parts_around_it(name):
    """It has no two underscores in a row and none at its ends, and folding it again changes nothing."""
    text = folded(name)
    assert "__" not in text
    assert text == text.strip("_")
    assert folded(text) == text


VARIABLES = [
    ("TIMEOUT", "8", {"timeout.total": 8}),
    ("TIMEOUT", "0.5", {"timeout.total": 0.5}),
    ("TIMEOUT", "1e1", {"timeout.total": 10.0}),
    ("TIMEOUT", " 500ms ", {"timeout.total": timedelta(milliseconds=500)}),
    ("TIMEOUT", "none", {"timeout": None}),
    ("TIMEOUT", "false", {"timeout": None}),
    ("TIMEOUT__IDLE", "2s", {"timeout.idle": timedelta(seconds=2)}),
    ("TIMEOUT__IDLE", "None", {"timeout.idle": None}),
    ("TIMEOUT__ABANDON", "TRUE", {"timeout.abandon": True}),
    ("TIMEOUT__MAX_ABANDONED", "5", {"timeout.max_abandoned": 5}),
    ("RETRY", "2", {"retry.attempts": 2}),
    ("BREAKER", "true", {"breaker": PRESENT}),
    ("BREAKER__FAILURE_RATE", ".25", {"breaker.failure_rate": 0.25}),
    ("BULKHEAD", "3", {"bulkhead.max_concurrent": 3}),
    ("IDEMPOTENT", "true", {"idempotent": True}),
    ("IDEMPOTENT", "order_id", {"idempotent": "order_id"}),
    ("RETRY__WAIT", "0.5", {"retry.wait": 0.5}),
]


@pytest.mark.parametrize(("name", "text", "expected"), VARIABLES, ids=[f"{name}={text}" for name, text, _ in VARIABLES])
def test_what_a_variable_may_say(name, text, expected):
    """The text is read as what the option can hold, strictly; what can hold code as well is given a number at most."""
    entries, problems = from_variables(**{f"GUARD__LLM_INVOKE__{name}": text})
    assert problems == ()
    assert said(entries) == expected
    assert entries[0].is_for("llm.invoke")


WRONG_VARIABLES = [
    ("GUARD__X__TIMEOUT", "yes"),
    ("GUARD__X__TIMEOUT", "-1"),
    ("GUARD__X__TIMEOUT", "1_000"),
    ("GUARD__X__TIMEOUT", "٣"),
    ("GUARD__X__TIMEOUT", "nan"),
    ("GUARD__X__TIMEOUT", "1 s"),
    ("GUARD__X__TIMEOUT__ABANDON", "1"),
    ("GUARD__X__TIMEOUT__ABANDON", "on"),
    ("GUARD__X__RETRY", "2.0"),
    ("GUARD__X__RETRY", "true"),
    ("GUARD__X__RETRY__ON", "OSError"),
    ("GUARD__X__RETRY__ATEMPTS", "2"),
    ("GUARD__X__RETRYS", "2"),
    ("GUARD__X__SLO", "fast"),
    ("GUARD__X", "2"),
    ("GUARD____RETRY", "2"),
    ("GUARD__X__", "2"),
    ("GUARD__X__RETRY__", "2"),
    ("GUARD_X_RETRY", "2"),
    ("GUARDS__X__RETRY", "2"),
    ("GAURD__X__RETRY", "2"),
    ("CONFG", "x.toml"),
]


@pytest.mark.parametrize(("name", "text"), WRONG_VARIABLES, ids=[f"{name}={text}" for name, text in WRONG_VARIABLES])
def test_a_variable_that_would_be_without_effect_is_a_problem(name, text):
    """A wrong value, an option or field that does not exist, a prefix that is misspelt: named as the variable is."""
    entries, problems = from_variables(**{name: text})
    assert entries == ()
    assert [problem.path for problem in problems] == [f"SOMARESIL_{name}"]
    assert problems[0].value in {text, HIDDEN}


@pytest.mark.parametrize("name", ["GAURD__X__RETRY", "GUARD_X_RETRY", "GUARD__X", "CONTROL_TOKEN", "CONFG"])
def test_what_a_variable_says_that_is_none_of_ours_is_not_told(name):
    """It may be a token: only the name is ours to repeat."""
    _, problems = from_variables(**{name: "s3cret"})
    assert [problem.value for problem in problems] == [HIDDEN]
    assert "s3cret" not in str(problems)


def test_near_misses_of_variables_are_suggested():
    """Of the prefix, the option, the field."""
    _, problems = from_variables(GAURD__X__RETRY="2", GUARD__X__RETRYS="2", GUARD__X__RETRY__ATEMPTS="2", CONFIGS="x")
    assert [problem.hint for problem in problems] == [
        "did you mean 'SOMARESIL_CONFIG'?",
        "did you mean 'SOMARESIL_GUARD__'?",
        "did you mean 'retry'?",
        "did you mean 'attempts'?",
    ]


def test_a_variable_that_is_empty_is_not_set_and_other_variables_are_left_alone():
    """Templates of deployments leave empty what they do not know."""
    assert from_variables(GUARD__X__RETRY="", ZONE="a", SEED="7", CHAOS="1", CONFIG="x.toml") == ((), ())


def test_a_whole_option_is_said_before_its_fields():
    """Whatever the order of the names."""
    entries, _ = from_variables(GUARD__B__RETRY__ATTEMPTS="2", GUARD__B__RETRY="none", GUARD__A__BREAKER__WINDOW="1")
    assert [len(entry.settings[0].path) for entry in entries] == [1, 2, 2]


# -- judged by itself ---------------------------------------------------------------------------------------------------------------------

OPTIONS = {
    "retry": st.builds(
        Retry,
        attempts=st.integers(1, 100),
        wait=st.floats(0.0, 100.0),
        max_elapsed=st.none() | st.floats(0.1, 1e6),
        max_retry_after=st.none() | st.floats(0.0, 1e3),
        budget=st.none() | st.floats(0.0, 1.0),
        shadow=st.booleans(),
    ),
    "timeout": st.builds(Timeout, st.floats(0.1, 1e3), first_item=st.none() | st.floats(0.1, 1e3), abandon=st.booleans()),
    "bulkhead": st.builds(Bulkhead, st.integers(1, 1000)) | st.builds(Bulkhead, st.integers(1, 9), st.integers(1, 9), st.floats(0.1, 9)),
    "breaker": st.builds(
        CircuitBreaker,
        failure_rate=st.floats(0.01, 1.0),
        consecutive_failures=st.none() | st.integers(1, 50),
        window=st.floats(1.0, 100.0),
        open_duration=st.floats(1.0, 10.0),
        open_maximum=st.floats(10.0, 100.0),
        minimum_calls=st.integers(1, 50),
        window_calls=st.none() | st.integers(50, 100),
    ),
}


@settings(max_examples=60)
@given(st.data())
def test_what_is_right_in_some_options_is_never_refused_by_itself(data):
    """Each field of an options object that is right, alone in a file: what goes together is not for the file to know."""
    option = data.draw(st.sampled_from(sorted(OPTIONS)))
    made = data.draw(OPTIONS[option])
    fields = {name: getattr(made, name) for name in type(made).__dataclass_fields__}
    plain = {name: value for name, value in fields.items() if value is None or isinstance(value, bool | int | float)}
    assert from_file({"guards": {name: {option: {name: value}} for name, value in plain.items()}})[1] == ()
