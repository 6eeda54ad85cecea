"""One guard in plain words: every part of every pipeline has some, and what is asked for and not there is guessed."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from somaresil import CircuitBreaker, Classify, Resilience, Timeout
from somaresil.cli import main
from somaresil.explain import LAYERS, verdicts
from somaresil.guard.assembly import LAYERS as POLICIES
from somaresil.guard.options import GuardOptions
from somaresil.settings.origins import KINDS
from tests.unit.dashboard_app.kit import Stand
from tests.unit.top_command.kit import NAME, TOKEN, picture, serving

SERVICE = """
from datetime import timedelta
from somaresil import SLO, Resilience
resilience = Resilience("gateway")
resilience.slos.add(SLO("answers", 99.0, timedelta(days=1)))
guard = resilience.guard("llm.invoke", slo="answers", breaker=True, retry=3, timeout=2.0, bulkhead=5, fallback=lambda text: text)
resilience.guard("memory.write", timeout=1.0)
"""


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A module with two guards; gives where it is."""
    name = f"explained_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(SERVICE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return f"{name}:resilience"


def test_it_says_what_a_call_goes_through_and_how_it_may_end(service, capsys):
    """Options with their values, the longest time, the errors, the objective, the metrics."""
    assert main(["explain", "llm.invoke", service]) == 0
    said = capsys.readouterr().out
    for part in (
        "CircuitOpen",
        "BulkheadFull",
        "CallTimedOut",
        "total = 2.0",
        "attempts = 3",
        "counts for answers",
        "somaresil_breaker_state",
    ):
        assert part in said
    assert said.index("fallback") < said.index("retry  ") < said.index("breaker") < said.index("timeout") < said.index("callee")
    assert "calls the dependency 3 times at most" in said


def test_as_json_it_says_the_same(service, capsys):
    assert main(["explain", "memory.write", service, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in said["pipeline"]] == ["record", "timeout", "fault", "callee"]
    assert said["objectives"] == []
    assert said["worst_case"] == 1.0


def test_a_guard_that_is_not_there_is_guessed(service, capsys):
    assert main(["explain", "llm.invoice", service]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "did you mean 'llm.invoke'?" in said.err


@pytest.mark.parametrize("place", ["no_such_module:resilience", "json:loads"])
def test_where_no_resilience_is_it_says_so(place, capsys):
    assert main(["explain", "x", place]) == 2
    assert capsys.readouterr().err.startswith("somaresil explain: ")


def test_every_part_has_its_words_and_metrics_that_exist():
    """Names of metrics are those of the page about observing."""
    assert set(LAYERS) == {"record", *POLICIES, "fault", "callee", "pool"}
    page = (Path(__file__).parents[2] / "docs/guides/observability.md").read_text(encoding="utf-8")
    named = {re.sub("_total$", "", metric) for word in LAYERS.values() for metric in word.metrics}
    assert [metric for metric in named if metric not in page] == []


# -- where each option comes from ---------------------------------------------------------------------------------------------------------

SETTINGS = """
[guards."llm.*"]
timeout = 8.0
bulkhead = false

[guards."llm.invoke"]
retry = { attempts = 3 }
throttle = {}
"""


def configured(tmp_path, monkeypatch):
    """A guard with something from everywhere."""
    path = tmp_path / "guards.toml"
    path.write_text(SETTINGS, encoding="utf-8")
    monkeypatch.setenv("SOMARESIL_GUARD__LLM_INVOKE__BREAKER__MINIMUM_CALLS", "40")
    resilience = Resilience("gateway")
    guard = resilience.guard("llm.invoke", breaker=CircuitBreaker(failure_rate=0.4), retry=3, timeout=2.0, bulkhead=5, idempotent=True)
    resilience.configure_from(path)
    resilience.reconfigure({"llm.invoke": {"breaker": {"window": 20.0}, "hedge": 0.2}})
    return path, guard, resilience.settings.origins(guard)


def test_every_option_says_where_it_comes_from(tmp_path, monkeypatch):
    """The usual value, the code, a file with its line, a variable, a live change: and also why a policy is not there."""
    path, _, origins = configured(tmp_path, monkeypatch)
    said = {name: str(origin) for name, origin in origins.items()}
    variable = "variable SOMARESIL_GUARD__LLM_INVOKE__BREAKER__MINIMUM_CALLS"
    expected = {
        "timeout": "code",
        "timeout.total": f"{path}:3",
        "timeout.idle": "default",
        "bulkhead": f"{path}:4",
        "retry.attempts": f"{path}:7",
        "throttle": f"{path}:8",
        "breaker": "code",
        "breaker.failure_rate": "code",
        "breaker.minimum_calls": variable,
        "breaker.window": "changed while it ran",
        "breaker.open_duration": "default",
        "hedge": "changed while it ran",
        "idempotent": "code",
    }
    assert {name: said.get(name) for name in expected} == expected
    assert {origin.kind for origin in origins.values()} <= set(KINDS)
    assert "single_flight" not in origins


def test_every_option_that_is_shown_has_an_origin(tmp_path, monkeypatch):
    _, guard, origins = configured(tmp_path, monkeypatch)
    shown = {layer for layer in guard.pipeline if getattr(guard.options, layer, None) is not None}
    assert {name.partition(".")[0] for name in origins} == {*shown, "bulkhead", "idempotent"}


def test_what_takes_a_policy_away_and_what_brings_it_back_are_told_apart():
    """A field that is spoken of later brings the policy back as the code has it."""
    resilience = Resilience("gateway")
    guard = resilience.guard("a.b", retry=5)
    gone = {"a.*": {"retry": False}}
    resilience.configure_from({"guards": gone})
    assert guard.options.retry is None
    assert resilience.settings.origins(guard)["retry"] == ("mapping", "guards.'a.*'.retry")
    resilience.configure_from({"guards": {**gone, "a.b": {"retry": {"max_elapsed": 9.0}}}})
    assert guard.options.retry.attempts == 5
    origins = resilience.settings.origins(guard)
    said = [str(origins[name]) for name in ("retry", "retry.attempts", "retry.max_elapsed")]
    assert said == ["code", "code", "settings guards.'a.b'.retry.max_elapsed"]


def test_the_lines_name_the_origin_of_each_value(service, capsys, monkeypatch):
    monkeypatch.setenv("SOMARESIL_GUARD__MEMORY_WRITE__TIMEOUT", "3s")
    assert main(["explain", "memory.write", service]) == 0
    said = capsys.readouterr().out
    assert "total = 3.0  [variable SOMARESIL_GUARD__MEMORY_WRITE__TIMEOUT]" in said
    assert "idle = None  [default]" in said


# -- what counts as failure ---------------------------------------------------------------------------------------------------------------


def is_empty(result):
    """A rule about results."""
    return not result


def judged(result, error):
    """A classifier that has nothing to say."""


def about(**options):
    """What counts as what, each as one text."""
    return {outcome: "; ".join(said) for outcome, said in verdicts(GuardOptions.of("a", options)).items()}


def test_without_a_classifier_every_exception_is_a_failure_and_no_result_is():
    said = about()
    assert "every exception" in said["bad"]
    assert "every result" in said["good"]
    assert said["ignored"].startswith("nothing")
    assert "CancelledError" in said["abandoned"]
    assert "not called" in said["rejected"]


def test_a_classifier_is_told_by_the_names_in_it():
    rule = Classify(bad=OSError, good=LookupError, ignored=TypeError, fatal=PermissionError, bad_result=is_empty, fatal_duration=60)
    said = about(classify=rule, breaker=True)
    assert "OSError, unless named before as fatal or ignored or good" in said["bad"]
    assert "PermissionError; the circuit opens at once, for 60 s" in said["bad"]
    assert "a result for which is_empty is true" in said["bad"]
    assert "LookupError" in said["good"]
    assert "TypeError" in said["ignored"]
    assert "nothing names" in said["ignored"]


def test_a_function_that_classifies_is_named():
    assert "for which judged says so" in about(classify=judged)["bad"]


@pytest.mark.parametrize(
    ("options", "outcome", "part"),
    [
        ({"timeout": 2.0}, "bad", "total 2.0 s"),
        ({"timeout": 2.0}, "bad", "plain function"),
        ({"breaker": CircuitBreaker(slow_call_rate=0.5, slow_call_duration=3.0)}, "good", "more than 3.0 s"),
        ({"fallback": is_empty}, "good", "fallback"),
    ],
)
def test_what_a_policy_adds_is_told(options, outcome, part):
    assert part in about(**options)[outcome]
    assert part not in about()[outcome]


def test_a_timeout_that_only_counts_makes_no_failure():
    assert about(timeout=Timeout(total=2.0, shadow=True))["bad"] == about()["bad"]


# -- of a service that runs ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def board(monkeypatch):
    """A dashboard that says what that of a real service says of ``llm.invoke``; gives it and its address."""
    monkeypatch.setenv(NAME, TOKEN)
    with serving() as (dashboard, url):
        dashboard.detail = asyncio.run(Stand().get("/api/guards/llm.invoke")).json()
        yield dashboard, url


def test_a_service_that_runs_is_asked_and_what_it_does_not_tell_is_said(board, capsys):
    _, url = board
    assert main(["explain", "llm.invoke", "--url", url]) == 0
    said = capsys.readouterr().out
    for part in ("CircuitOpen", "somaresil_breaker_state", "every exception", "does not tell: where each option comes from"):
        assert part in said
    assert main(["explain", "llm.invoke", "--url", url, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["name"] for layer in told["pipeline"]] == ["record", "breaker", "fault", "callee"]
    assert told["origins"] == {}
    assert told["unknown"]


def test_what_counts_as_failure_is_not_guessed_where_the_service_classifies(board, capsys):
    dashboard, url = board
    dashboard.detail = {**dashboard.detail, "options": ["classify=judge"]}
    assert main(["explain", "llm.invoke", "--url", url]) == 0
    said = capsys.readouterr().out
    assert "Also: classify=judge" in said
    assert "every exception" not in said
    assert "does not tell: what counts as failure" in said


def test_a_service_that_tells_nothing_useful_is_explained_by_what_is_left(board, capsys):
    """Whatever stands where a list should be, and with nothing that a terminal would obey."""
    dashboard, url = board
    dashboard.detail = {
        "pipeline": ["retry", "\x1b[31mnew"],
        "options": 5,
        "stages": {"a": 1},
        "worst_case": "x",
        "findings": [{}, "\x1b[2J"],
    }
    assert main(["explain", "llm.invoke", "--url", url]) == 0
    said = capsys.readouterr().out
    assert "tries again" in said
    assert "a part that this release does not know" in said
    assert "does not tell: its options" in said
    assert "\x1b" not in said


def test_a_guard_that_the_service_has_not_is_guessed(board, capsys):
    _, url = board
    assert main(["explain", "llm.invoice", "--url", url]) == 2
    assert "did you mean 'llm.invoke'?" in capsys.readouterr().err


def test_a_service_that_cannot_be_asked_is_said_in_one_line(board, capsys, monkeypatch):
    dashboard, url = board
    dashboard.picture = picture(version=2)
    assert main(["explain", "llm.invoke", "--url", url]) == 2
    assert "version 2" in capsys.readouterr().err
    monkeypatch.delenv(NAME)
    assert main(["explain", "llm.invoke", "--url", url]) == 2
    assert "needs a token" in capsys.readouterr().err
    assert main(["explain", "llm.invoke"]) == 2
    assert "MODULE:NAME of the code, or --url" in capsys.readouterr().err


def test_the_code_and_a_service_are_not_asked_together(board, capsys):
    _, url = board
    assert main(["explain", "llm.invoke", "gateway:resilience", "--url", url]) == 2
    assert "expected one of them" in capsys.readouterr().err
