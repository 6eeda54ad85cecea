"""Plans arrive from files, tickets and other machines: whatever is read is a plan or is refused, and a plan is read back as it was."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from somaresil import ChaosPlan, ConfigurationError, FaultWindow
from somaresil.chaos.plan import ERRORS, KINDS, LONGEST
from somaresil.chaos.vocabulary import FAULTS, Realm

usual = settings(max_examples=60)

TIMES = st.one_of(st.integers(0, 600), st.floats(0.0, LONGEST / 2))
LENGTHS = st.one_of(st.integers(1, 600), st.floats(0.001, LONGEST / 2))
NAMES = st.from_regex(r"[a-z][a-z0-9_.]{0,9}(\*|\?|\[ab\])?", fullmatch=True)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(" > ".join) | st.text(min_size=1, max_size=20)


TARGETS = {Realm.HTTP: "http:/", Realm.RESOURCE: "resource:", Realm.NETWORK: "net:"}
SECONDS = st.floats(0.001, 80_000.0) | st.integers(1, 30)
SHAPES = st.one_of(
    st.tuples(SECONDS, SECONDS).map(lambda pair: {"uniform": sorted(pair)}),
    st.fixed_dictionaries({"median": st.floats(0.001, 10.0), "sigma": st.floats(0.0, 2.0)}).map(lambda made_of: {"lognormal": made_of}),
    st.lists(SECONDS, min_size=1, max_size=4).map(lambda samples: {"empirical": samples}),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
OPTIONS = {
    "delay": st.floats(0.001, 1e12) | st.integers(1, 30) | SHAPES,
    "error": st.none() | st.sampled_from(sorted(ERRORS)) | NAMES.filter(lambda name: not set(name) & set("*?[")),
    "status": st.integers(400, 599),
    "after_items": st.integers(0, 1_000_000),
    "calls": st.none() | st.lists(st.integers(1, 10**6), min_size=1, max_size=5),
    "path": st.none() | PATHS,
    "every": st.none() | st.integers(1, 100),
    "first": st.none() | st.integers(1, 100),
    "after": st.none() | NAMES.map("call:{}".format) | NAMES.map("event:BreakerChanged:{}".format),
    "ramp": st.integers(0, 600),
    "where": st.none() | st.dictionaries(st.sampled_from(["tenant", "host", "header:X-A"]), NAMES, min_size=1),
    "result": JSON,
    "corrupt": st.sampled_from(["any", "truncate", "mine"]),
    "retry_after": st.floats(0.0, 600.0) | st.integers(0, 60),
    "bytes_per_second": st.floats(0.001, 1e9),
    "items_per_second": st.floats(0.001, 1e9),
    "chunk_bytes": st.integers(1, 1_000_000),
    "reset": st.booleans(),
    "amount": st.none() | st.floats(0.0, 1e9),
    "mode": st.none() | st.just("refuse"),
    "loss": st.none() | st.floats(0.01, 1.0),
}


@st.composite
def windows(draw):
    """A window of any kind, with any of the options that go with it."""
    kind = draw(st.sampled_from(list(FAULTS)))
    realm = draw(st.sampled_from(list(FAULTS[kind].realms)))
    takes = FAULTS[kind].realms[realm]
    taken = sorted((takes.options - takes.one_of) & OPTIONS.keys())
    chosen = {*takes.needs, *(draw(st.sets(st.sampled_from(taken))) if taken else ()), *draw(st.permutations(sorted(takes.one_of)))[:1]}
    rate = draw(st.floats(0.0, 1.0) | st.sampled_from([0, 1, 0.5]))
    target = TARGETS.get(realm, "") + draw(NAMES)
    return FaultWindow(target, kind, draw(TIMES), draw(LENGTHS), rate=rate, **{name: draw(OPTIONS[name]) for name in sorted(chosen)})


def test_every_option_of_the_vocabulary_is_drawn_here():
    """A new one cannot be forgotten."""
    told = {option for fault in FAULTS.values() for takes in fault.realms.values() for option in takes.options}
    assert told - OPTIONS.keys() == {"max_injections", "ramp_from"}


plans = st.builds(ChaosPlan, st.lists(windows(), max_size=5), seed=st.integers(0, 2**63 - 1))
SCENARIOS = st.none() | st.sampled_from(["tests.sim:main", "a:b.c"])

WORDS = [*FaultWindow.__dataclass_fields__, *KINDS, *ERRORS, "somaresil_plan", "seed", "windows", "scenario", "http:/x", "__class__"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.sampled_from([0, 1, 2, -1, 2**63, 10**400, 1e308, -0.0]),
    st.text(max_size=10),
    st.sampled_from(WORDS),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.sampled_from(WORDS), inner, max_size=4)
)


def read(reader, given):
    """A plan that survives being read again, or an error that can be shown."""
    try:
        plan = reader(given)
    except ConfigurationError as error:
        refused = error
    else:
        assert isinstance(plan, ChaosPlan)
        assert ChaosPlan.from_json(plan.to_json()) == plan
        return
    assert refused.problems
    assert str(refused)


@usual
@given(plans, SCENARIOS, st.sampled_from([None, 0, 2]))
def test_a_plan_is_read_back_as_it_was_written(plan, scenario, indent):
    """From text, from bytes and from a dictionary, down to the types of its numbers."""
    plan = ChaosPlan(plan.windows, seed=plan.seed, scenario=scenario)
    text = plan.to_json(indent=indent)
    json.loads(text, parse_constant=pytest.fail)
    for again in (ChaosPlan.from_json(text), ChaosPlan.from_json(text.encode()), ChaosPlan.from_dict(plan.as_dict())):
        assert again == plan
        assert again.scenario == scenario
        assert repr(again) == repr(plan)
        assert again.to_json(indent=indent) == text


@usual
@given(plans)
def test_the_text_of_a_plan_makes_it_again(plan):
    """As code."""
    assert eval(repr(plan)) == plan


@usual
@given(st.text() | st.binary() | VALUES.map(json.dumps) | VALUES.map(lambda value: json.dumps(value).encode("utf-16")))
@example("9" * 5_000)
@example('{"somaresil_plan": 1, "windows": [{"error": 5}]}')
@example(b"\xef\xbb\xbf{}")
@example('{"somaresil_plan": 1, "windows": [{"target": "\\ud800", "kind": "\\u0000"}]}')
def test_any_text_is_a_plan_or_refused(text):
    """Nothing else is ever raised."""
    read(ChaosPlan.from_json, text)


@usual
@given(VALUES)
@example({"windows": [{"error": []}]})
def test_any_value_is_a_plan_or_refused(value):
    """Whatever a caller has read by other means."""
    read(ChaosPlan.from_dict, value)


FIELDS = st.sampled_from([*FaultWindow.__dataclass_fields__, "unknown"]).filter(lambda name: name != "_")


@usual
@given(st.lists(st.dictionaries(FIELDS, VALUES, max_size=4), min_size=1, max_size=2), plans.filter(lambda plan: plan.windows))
@example([{"error": 5}], ChaosPlan([FaultWindow("a", "error", 0, 1)]))
@example([{"target": 5}], ChaosPlan([FaultWindow("a", "lost_reply", 0, 1)]))
def test_a_plan_in_which_some_fields_are_something_else_is_a_plan_or_refused(changes, plan):
    """Each window on its own is right but for these fields, so that every look at one of them is reached."""
    data = plan.as_dict()
    for window, change in zip(data["windows"], changes, strict=False):
        window.update(change)
    read(ChaosPlan.from_dict, data)
    read(ChaosPlan.from_json, json.dumps(data))


def places(value, here=()):
    """Where something stands in a value."""
    yield here
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*here, key))


@usual
@given(plans, SCALARS.filter(lambda value: value is None or isinstance(value, int | float)), st.data())
def test_a_number_in_any_place_of_a_plan_leaves_a_plan_or_is_refused(plan, value, data):
    """Numbers are what people change by hand; without names of errors and targets, whose types are tried elsewhere."""
    written = copy.deepcopy(plan.as_dict())
    listed = [place for place in places(written) if place and place[-1] not in {"error", "target"}]
    *way, last = data.draw(st.sampled_from(listed))
    inner = written
    for key in way:
        inner = inner[key]
    inner[last] = value
    read(ChaosPlan.from_dict, written)
    read(ChaosPlan.from_json, json.dumps(written))


@usual
@given(plans.filter(lambda plan: plan.windows), st.data())
def test_a_text_that_is_damaged_is_a_plan_or_refused(plan, data):
    """A piece is lost, doubled or replaced."""
    text = plan.to_json()
    begin = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(begin, min(len(text), begin + 30)))
    read(
        ChaosPlan.from_json, text[:begin] + data.draw(st.sampled_from(["", text[begin:end] * 2, "null", '"', "}", "0", "NaN"])) + text[end:]
    )
