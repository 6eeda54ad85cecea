"""Fault plans as data: what is wrong with one is told at once and by its place, and what is right survives being written down."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from somaresil import ChaosConfig, ChaosExperiment, ChaosPlan, ConfigurationError, FaultWindow
from somaresil.chaos.plan import ERRORS, KINDS, LONGEST, MOST_WINDOWS, VERSION, _Pairs

WINDOW = {"target": "llm.invoke", "kind": "error", "start": 0, "duration": 30}
RICH = ChaosPlan(
    [
        FaultWindow("llm.*", "error", 0, 312, rate=0.2, delay=1.5, error="TimeoutError", calls=(3, 1), path="agent.turn > llm.invoke"),
        FaultWindow("http:/v1/*", "error", 0.25, 10, status=429, blast_radius="zone", candidates=("a", "b")),
        FaultWindow("llm.invoke", "stream_cut", 400, 1, after_items=0, error="ConnectionResetError"),
        FaultWindow("db", "circuit_trip", 500, 30),
    ],
    seed=7,
)


def found(make):
    """The problems of what is refused."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert str(caught.value)
    return caught.value.problems


def paths(make):
    return [problem.path for problem in found(make)]


def window(**changes):
    return FaultWindow(**{**WINDOW, **changes})


def plan(*windows, **changes):
    """A plan as it is written down, with something else in it."""
    return {"somaresil_plan": 1, "seed": 7, "windows": list(windows) or [dict(WINDOW)], **changes}


# -- one window -------------------------------------------------------------------------------------------------------------------------


def test_every_mistake_of_a_window_is_named_at_once():
    """By the names of its fields, each once, whatever those of a configuration are."""
    wrong = {"target": "a b", "kind": "eror", "start": -1, "duration": 0, "rate": 2, "delay": -1, "error": "a b"}
    told = paths(lambda: FaultWindow(**wrong, status=200, after_items=-1, calls=(0,), path=""))
    assert sorted(told) == sorted([*wrong, "status", "after_items", "calls", "path"])


def test_a_kind_that_is_misspelt_is_recognised():
    """The error says which there are and which was meant."""
    (problem,) = found(lambda: window(kind="stream_trunkate"))
    assert problem.hint == "did you mean 'stream_truncate'?"
    assert all(kind in problem.allowed for kind in KINDS)


@pytest.mark.parametrize(("kind", "target"), [("resource_exhaust", "resource:memory"), ("network_partition", "net:10.0.0.0/8")])
def test_faults_of_the_process_have_targets_of_their_own(kind, target):
    """A resource or a part of the network; a guard has neither."""
    assert window(kind=kind, target=target).kind == kind
    (problem,) = found(lambda: window(kind=kind, target="llm.invoke"))
    assert (problem.path, problem.hint) == ("target", f"aim at {target.partition(':')[0]}:")


WRONG = {
    "target": [None, 5, True, "", "a b", "x" * 121, ["llm.invoke"], {}, b"llm.invoke"],
    "kind": [None, 5, True, "", "ERROR", [], {}, ["error"]],
    "start": [None, "0", True, -0.001, float("nan"), float("inf"), LONGEST + 1, 10**400, [], {}],
    "duration": [None, "30", True, 0, -1, float("nan"), float("inf"), 10**400, [], timedelta(0)],
    "rate": [None, "0.5", True, -0.01, 1.01, 20, float("nan"), float("inf"), [], 10**400],
    "delay": [None, "1", True, -1, float("nan"), float("inf"), [], 10**400],
    "error": ["", "a b", "x" * 121, "builtins OSError"],
    "status": [None, "503", True, 503.0, 399, 600, []],
    "after_items": [None, "1", True, 1.0, -1, 1_000_001, []],
    "calls": [(), [], 1, "12", b"12", (0,), (-1,), (1.0,), (True,), ("1",), (None,), ([1],), tuple(range(1, 1002))],
    "path": ["", 5, True, [], "x" * 1001],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field, values in WRONG.items() for value in values),
        *(("error", value) for value in (5, True, 1.5, [], {}, ("OSError",), b"OSError")),
    ],
)
def test_a_wrong_value_is_one_problem_of_its_field(field, value):
    """Of whatever type it is; written down, it has the place of its window before it."""
    assert paths(lambda: window(**{field: value})) == [field]
    assert paths(lambda: ChaosPlan.from_dict(plan({**WINDOW, field: value}))) == [f"plan.windows[0].{field}"]


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "latency", "delay": 1},
        {"kind": "error"},
        {"kind": "circuit_trip"},
        {"kind": "stream_cut"},
        *(options for options in ({"kind": "lost_reply"}, {"kind": "stream_truncate"}, {"error": "OSError"}, {"path": "a > b"})),
    ],
)
@pytest.mark.parametrize("target", [5, None, ["x"]])
def test_a_target_that_is_no_text_is_one_problem_whatever_else_is_asked(options, target):
    """Some kinds and options look at the target, which may be anything."""
    assert paths(lambda: window(**{"target": target, **options})) == ["target"]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"kind": "latency"}, "delay"),
        ({"kind": "circuit_trip", "delay": 1}, "delay"),
        ({"kind": "stream_cut", "delay": 1}, "delay"),
        ({"kind": "stream_truncate", "delay": 1}, "delay"),
        ({"kind": "circuit_trip", "calls": (1,)}, "calls"),
        ({"kind": "latency", "delay": 1, "error": "OSError"}, "error"),
        ({"kind": "stream_truncate", "error": "OSError"}, "error"),
        ({"target": "http:/x", "kind": "lost_reply"}, "kind"),
        ({"target": "http:/x", "kind": "fake_result"}, "kind"),
        ({"target": "http:/x", "path": "a"}, "path"),
        ({"target": "http:/x", "error": "OSError"}, "error"),
    ],
)
def test_what_does_not_go_together_is_refused(options, path):
    """As in a configuration, by the names of a window."""
    assert paths(lambda: window(**options)) == [path]


def test_a_window_is_kept_as_it_is_read_best():
    """Whole seconds without a point, kinds as words, calls in order and once each."""
    made = window(kind=ChaosExperiment.ERROR_INJECTION, start=0.0, duration=312.0, delay=timedelta(seconds=2), calls=[3, 1, 3])
    assert [repr(value) for value in (made.kind, made.start, made.duration, made.delay)] == ["'error'", "0", "312", "2"]
    assert type(made.kind) is str
    assert made.calls == (1, 3)
    assert made.end == 312
    assert window(start=timedelta(milliseconds=250)).start == 0.25


def test_a_plan_lasts_a_month_at_most():
    """To the end of each window, not only to its start."""
    assert window(start=LONGEST - 30).end == LONGEST
    assert paths(lambda: window(start=LONGEST - 29.5)) == ["duration"]


def test_a_window_stands_for_an_experiment():
    """With every option, and the error that its name means to whoever runs it."""
    made = FaultWindow("llm.*", "lost_reply", 5, 30, rate=0.25, delay=2, error="mine", status=429, after_items=3, calls=(2,), path="a > b")
    expected = ChaosConfig(
        ChaosExperiment.LOST_REPLY,
        "llm.*",
        0.25,
        30,
        delay_seconds=2,
        error=LookupError,
        status=429,
        after_items=3,
        calls=(2,),
        path="a > b",
    )
    assert made.config({"mine": LookupError}) == expected


def test_the_errors_that_a_plan_may_name_are_those_of_connections():
    """By their own names; nothing is imported."""
    assert set(ERRORS) == {
        "BrokenPipeError",
        "ConnectionError",
        "ConnectionRefusedError",
        "ConnectionResetError",
        "OSError",
        "TimeoutError",
    }
    for name, kind in ERRORS.items():
        assert kind.__name__ == name
        assert window(error=name).config().error is kind


# -- a plan -----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"windows": None}, ["windows"]),
        ({"windows": 5}, ["windows"]),
        ({"windows": window()}, ["windows"]),
        ({"windows": [window(), "llm.invoke", None]}, ["windows[1]", "windows[2]"]),
        ({"windows": [dict(WINDOW)]}, ["windows[0]"]),
        ({"windows": [window()] * (MOST_WINDOWS + 1)}, ["windows"]),
        *(({"seed": seed}, ["seed"]) for seed in (None, "7", True, 7.0, -1, 2**63)),
        *(
            ({"scenario": text}, ["scenario"])
            for text in ("", "a", "a:", ":a", "a b:c", "a:1", "a:b:c", "../a:b", 5, True, [], "a:" + "b" * 300)
        ),
        ({"windows": "x", "seed": -1, "scenario": ""}, ["windows[0]", "seed", "scenario"]),
    ],
)
def test_every_mistake_of_a_plan_is_named_at_once(given, expected):
    """By its place."""
    assert paths(lambda: ChaosPlan(**given)) == [f"ChaosPlan.{path}" for path in expected]


def test_the_limits_themselves_are_allowed():
    """A thousand windows, the largest seed, a scenario in a module of a package."""
    made = ChaosPlan([window()] * MOST_WINDOWS, seed=2**63 - 1, scenario="tests.sim:Scenario.run")
    assert len(made.windows) == MOST_WINDOWS
    assert ChaosPlan.from_json(made.to_json()) == made


def test_windows_may_come_from_anywhere():
    """They are kept as a tuple, in their order."""
    one, other = window(start=5), window()
    made = ChaosPlan(each for each in (one, other))
    assert made.windows == (one, other)
    assert hash(made) == hash(ChaosPlan([one, other]))


def test_a_plan_lasts_until_its_last_window_is_over():
    """Whatever their order; an empty one not at all."""
    assert ChaosPlan([window(start=100, duration=5), window(duration=50)]).duration == 105
    assert ChaosPlan().duration == 0


# -- written down -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [RICH, ChaosPlan(), ChaosPlan([window()], scenario="tests.sim:main")])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_plan_survives_being_written_down(made, indent):
    """As text, as bytes, and as a dictionary."""
    text = made.to_json(indent=indent)
    for read in (ChaosPlan.from_json(text), ChaosPlan.from_json(text.encode()), ChaosPlan.from_dict(made.as_dict())):
        assert read == made
        assert read.scenario == made.scenario
        assert read.to_json(indent=indent) == text


def test_the_written_form_is_the_documented_one():
    """Version first, and of a window only what is not as usual."""
    text = '{"somaresil_plan": 1, "seed": 7, "windows": [{"target": "llm.invoke", "kind": "error", "start": 0, "duration": 312}]}'
    made = ChaosPlan([FaultWindow("llm.invoke", "error", start=0, duration=312)], seed=7)
    assert ChaosPlan.from_json(text) == made
    assert made.to_json() == text
    assert ChaosPlan([window()], scenario="a:b").as_dict()["scenario"] == "a:b"
    assert RICH.as_dict()["windows"][0]["calls"] == [1, 3]
    assert RICH.as_dict()["windows"][2]["after_items"] == 0


def test_seed_and_scenario_may_be_left_out():
    """Then the plan has the usual ones."""
    assert ChaosPlan.from_dict({"somaresil_plan": 1, "windows": []}) == ChaosPlan()


@pytest.mark.parametrize("made", [RICH, ChaosPlan(), ChaosPlan([window()])])
def test_the_text_of_a_plan_is_code_that_makes_it(made):
    """One line, to be copied into a test."""
    assert "\n" not in repr(made)
    assert eval(repr(made)) == made
    for one in made.windows:
        assert eval(repr(one)) == one


def test_what_is_as_usual_is_not_shown():
    """A line is read by people."""
    assert repr(ChaosPlan([window()])) == 'ChaosPlan([FaultWindow("llm.invoke", "error", start=0, duration=30)])'
    assert repr(ChaosPlan(seed=3)) == "ChaosPlan([], seed=3)"


def test_plans_that_do_the_same_are_equal_wherever_they_were_found():
    """The scenario is for one command alone, so the line to copy does not name it."""
    made = ChaosPlan([window()], scenario="tests.sim:main")
    assert eval(repr(made)) == made == ChaosPlan([window()])


BARE = json.dumps(plan())
DEEP = 100_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["text"]),
        ("{", ["text"]),
        ("nonsense", ["text"]),
        (b"\xff\xfe\xfa", ["text"]),
        ("\ufeff" + BARE, ["text"]),
        (BARE + "x", ["text"]),
        ("null", [""]),
        ("5", [""]),
        ('"text"', [""]),
        ("[]", [""]),
        (f"[{BARE}]", [""]),
        ("{}", ["somaresil_plan", "windows"]),
        ('{"somaresil_plan": 1}', ["windows"]),
        ('{"somaresil_plan": 1, "windows": {}}', ["windows"]),
        ('{"somaresil_plan": 1, "windows": "x"}', ["windows"]),
        ('{"somaresil_plan": 1, "windows": [], "seed": null}', ["seed"]),
        ('{"somaresil_plan": 1, "windows": [], "seed": 1e999}', ["seed"]),
        ('{"somaresil_plan": 1, "windows": [], "seed": ' + "9" * 400 + "}", ["seed"]),
        ('{"somaresil_plan": 1, "windows": [], "seed": ' + "9" * 5_000 + "}", ["text"]),
        ('{"somaresil_plan": 1, "windows": [[], 5, null, "x"]}', [f"windows[{index}]" for index in range(4)]),
        ('{"somaresil_plan": 1, "windows": [], "sed": 1}', ["sed"]),
        ('{"somaresil_plan": 1, "windows": [], "": 1}', [""]),
        ('{"somaresil_plan": 1, "somaresil_plan": 1, "windows": []}', ["somaresil_plan"]),
        (BARE.replace('"kind"', '"start": 1, "kind"'), ["windows[0].start"]),
        (BARE.replace('"start": 0', '"start": NaN'), ["text"]),
        (BARE.replace('"start": 0', '"start": Infinity'), ["text"]),
        (BARE.replace('"start": 0', '"start": -Infinity'), ["text"]),
        (BARE.replace('"start": 0', '"start": 1e999'), ["windows[0].start"]),
        (BARE.replace('"start": 0', '"start": -1e999'), ["windows[0].start"]),
        (" " * 1_000_000 + BARE, ["size"]),
        ((" " * 1_000_000 + BARE).encode(), ["size"]),
        ("[" * DEEP + "]" * DEEP, ["text"]),
        ('{"a":' * DEEP + "1" + "}" * DEEP, ["text"]),
        ("[" * 500 + "]" * 500, [""]),
        (BARE.replace('"start": 0', '"start": ' + "[" * 300 + "]" * 300), ["windows[0].start"]),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_plan_is_refused(text, expected):
    """With the place of every problem, however large or deep it is."""
    assert paths(lambda: ChaosPlan.from_json(text)) == [".".join(part for part in ("plan", path) if part) for path in expected]


@pytest.mark.parametrize("version", [None, "1", True, 1.0, 0, -1, [], {}])
def test_what_has_no_version_is_no_plan(version):
    """And is told so beside everything else."""
    told = found(lambda: ChaosPlan.from_dict(plan(somaresil_plan=version, seed=-1)))
    assert [problem.path for problem in told] == ["plan.somaresil_plan", "plan.seed"]
    assert told[0].hint == "is it a plan at all?"


@pytest.mark.parametrize("version", [VERSION + 1, 10**30])
def test_a_newer_plan_is_left_to_a_newer_release(version):
    """Nothing else is said about it, since nobody here knows what its fields mean."""
    (problem,) = found(lambda: ChaosPlan.from_dict({"somaresil_plan": version, "windows": 5, "intensity": []}))
    assert problem.path == "plan.somaresil_plan"
    assert "upgrade" in problem.hint


@pytest.mark.parametrize("field", ["target", "kind", "start", "duration"])
def test_what_is_missing_is_named_once(field):
    """The other fields are checked all the same."""
    given = {name: value for name, value in WINDOW.items() if name != field}
    told = found(lambda: ChaosPlan.from_dict(plan({**given, "rate": 2})))
    assert sorted(problem.path for problem in told) == sorted([f"plan.windows[0].{field}", "plan.windows[0].rate"])
    assert "it is missing" in {problem.hint for problem in told}


def test_what_is_missing_is_not_told_twice():
    """Whatever stands in for it while the rest is checked has no problems of its own."""
    given = {"target": "x", "kind": "error", "start": LONGEST}
    assert paths(lambda: ChaosPlan.from_dict(plan(given))) == ["plan.windows[0].duration"]


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        (json.dumps(plan(seeds=1)), "plan.seeds", "did you mean 'seed'?"),
        (json.dumps(plan({**WINDOW, "durations": 1})), "plan.windows[0].durations", "did you mean 'duration'?"),
        (json.dumps(plan({**WINDOW, "kind": "erorr"})), "plan.windows[0].kind", "did you mean 'error'?"),
        (BARE.replace('"seed": 7', '"seed": 7, "seed": 8'), "plan.seed", "it stands there twice"),
    ],
)
def test_a_field_that_is_misspelt_or_repeated_is_recognised(text, path, hint):
    """The hint says what was meant or what is wrong."""
    (problem,) = found(lambda: ChaosPlan.from_json(text))
    assert (problem.path, problem.hint) == (path, hint)


def test_the_mistakes_of_all_windows_are_named_at_once():
    """With those of the plan around them."""
    windows = [WINDOW, {**WINDOW, "rate": 2, "calls": [0]}, {"target": "a b"}, {**WINDOW, "_": 1}]
    assert sorted(paths(lambda: ChaosPlan.from_dict(plan(*windows, seed=-1, extra=1, scenario=5)))) == [
        "plan.extra",
        "plan.scenario",
        "plan.seed",
        "plan.windows[1].calls",
        "plan.windows[1].rate",
        "plan.windows[2].duration",
        "plan.windows[2].kind",
        "plan.windows[2].start",
        "plan.windows[2].target",
        "plan.windows[3]._",
    ]


def test_calls_may_be_a_list():
    """As JSON has no tuples."""
    assert ChaosPlan.from_dict(plan({**WINDOW, "calls": [3, 1]})).windows[0].calls == (1, 3)


def test_names_that_are_no_text_are_unknown_fields():
    """A dictionary of Python may have any."""
    assert paths(lambda: ChaosPlan.from_dict({**plan(), 5: 1, None: 2})) == ["plan.5", "plan.None"]


def test_the_number_of_windows_is_told_as_it_is():
    """Also when one of them is wrong."""
    windows = [dict(WINDOW, rate=2), *[WINDOW] * 2_000]
    told = {problem.path: problem.value for problem in found(lambda: ChaosPlan.from_dict(plan(*windows)))}
    assert told == {"plan.windows[0].rate": 2, "plan.windows": "2001 windows"}


def test_a_number_without_end_can_be_told():
    """Only the beginning of it is shown."""
    assert paths(lambda: ChaosPlan.from_dict(plan(seed=10**5_000))) == ["plan.seed"]


def test_a_million_characters_of_repeated_fields_are_read_in_no_time():
    """Names are compared about as often as there are names, not as often as there are pairs of them."""
    compared = []

    class Name(str):
        __slots__ = ()

        def __eq__(self, other):
            compared.append(other)
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    pairs = [(Name(f"field{number % 500}"), 1) for number in range(1_000)]
    assert len(_Pairs(pairs).repeated) == 500
    assert len(compared) <= 20_000
