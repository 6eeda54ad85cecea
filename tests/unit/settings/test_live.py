"""Settings from outside and the code: which goes before which, what is told, and that nothing is ever half done."""

from __future__ import annotations

import threading
import warnings

import pytest

from somaresil import (
    Bulkhead,
    CircuitBreaker,
    ConfigurationError,
    Fallback,
    ManualClock,
    PipelineWarning,
    Resilience,
    Retry,
    Timeout,
)
from somaresil.events import Reconfigured
from somaresil.guard.assembly import configuring
from somaresil.guard.change import Change
from tests.behaviour.kit import PATIENCE, Stand, one_strike, together


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No variables but those of the test."""
    for name in ("CONFIG", "ENVIRONMENT"):
        monkeypatch.delenv(f"SOMARESIL_{name}", raising=False)
    return monkeypatch


def problems_of(make):
    with pytest.raises(ConfigurationError) as raised:
        make()
    return raised.value.problems


def handler(*args):
    return "instead"


FILE = """
[guards."llm.invoke"]
timeout = 8.0
retry = { attempts = 2 }

[guards."llm.*"]
bulkhead = 4

[environments.production.guards."llm.invoke"]
timeout = "4s"
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "resilience.toml"
    path.write_text(FILE)
    return path


# -- precedence ---------------------------------------------------------------------------------------------------------------------------


def test_a_file_goes_before_the_code_for_guards_that_are_there_and_that_are_made_later(file):
    """Field by field: what only the code says stays, as does every guard that is not named."""
    resilience = Resilience("shop")
    there = resilience.guard("llm.invoke", timeout=Timeout(10.0, idle=1.0), retry=Retry(attempts=5, on=KeyError), fallback=handler)
    other = resilience.guard("db", timeout=1.0)
    resilience.configure_from(file)
    later = resilience.guard("llm.stream", timeout=3.0, bulkhead=Bulkhead(9, 5, 1.0))
    assert there.options.timeout == Timeout(8.0, idle=1.0)
    assert there.options.retry == Retry(attempts=2, on=KeyError)
    assert there.options.fallback == Fallback(handler)
    assert there.bulkhead.options == Bulkhead(4)
    assert later.options.timeout == Timeout(3.0)
    assert later.bulkhead.options == Bulkhead(4, 5, 1.0)
    assert other.options == other.coded


def test_the_overlay_of_the_environment_goes_before_the_rest(file):
    """That of the process, or one that is named."""
    resilience = Resilience("shop", environment="production")
    guard = resilience.guard("llm.invoke", timeout=10.0)
    resilience.configure_from(file)
    assert guard.options.timeout == Timeout(4.0)
    resilience.configure_from(file, environment="staging")
    assert guard.options.timeout == Timeout(8.0)
    assert resilience.guard("llm.invoke.other").options.timeout is None
    bad = problems_of(lambda: resilience.configure_from(file, environment="a b"))
    assert [problem.path for problem in bad] == ["environment"]


def test_variables_go_before_every_file(file, bare):
    """And the file that the operator names before the one that the code reads; nobody has to call anything for either."""
    bare.setenv("SOMARESIL_CONFIG", str(file))
    bare.setenv("SOMARESIL_GUARD__LLM_INVOKE__RETRY__ATTEMPTS", "3")
    bare.setenv("SOMARESIL_GUARD__DB__TIMEOUT", "500ms")
    resilience = Resilience("shop", environment="production")
    guard, db = resilience.guard("llm.invoke", timeout=10.0, retry=9), resilience.guard("db", timeout=9.0)
    assert (guard.options.timeout, guard.options.retry) == (Timeout(4.0), Retry(attempts=3))
    assert db.options.timeout == Timeout(0.5)
    resilience.configure_from({"guards": {"llm.invoke": {"timeout": 7, "breaker": True}, "db": {"timeout": 7}}})
    assert (guard.options.timeout, guard.options.breaker) == (Timeout(4.0), CircuitBreaker())
    assert db.options.timeout == Timeout(0.5)
    bare.setenv("SOMARESIL_GUARD__DB__TIMEOUT", "1s")
    resilience.configure_from()
    assert (db.options.timeout, guard.options.breaker) == (Timeout(1.0), None)


def test_the_same_file_named_twice_is_read_once(file, bare):
    """By the code and by the operator."""
    bare.setenv("SOMARESIL_CONFIG", str(file))
    resilience = Resilience("shop")
    resilience.configure_from(str(file))
    assert len(resilience.settings.entries) == 2


def test_reading_anew_begins_with_the_code(file):
    """What an earlier file said and what was changed live is over, and that is told as well; what the code has configured stays."""
    stand = Stand("llm.invoke", timeout=10.0)
    stand.guard.configure(fallback=handler)
    stand.resilience.configure_from(file)
    stand.resilience.reconfigure({"llm.invoke": {"timeout": 1.0}})
    changes = stand.resilience.configure_from({"guards": {}}, by="clean slate")
    assert stand.guard.options == stand.guard.coded
    assert stand.guard.options.fallback == Fallback(handler)
    assert {change.option for change in changes} == {"retry", "bulkhead", "timeout.total"}
    assert stand.told(Reconfigured)[-1].by == "clean slate"


def test_the_code_may_repeat_what_it_said(file):
    """A second mention is held against the first, not against what a file has made of it."""
    resilience = Resilience("shop")
    resilience.configure_from(file)
    guard = resilience.guard("llm.invoke", timeout=10.0)
    assert resilience.guard("llm.invoke", timeout=10.0) is guard
    assert resilience.guard("llm.invoke", timeout=8.0) is guard
    (problem,) = problems_of(lambda: resilience.guard("llm.invoke", timeout=9.0))
    assert "Timeout(total=10.0" in problem.allowed


def test_taking_away_and_bringing_back():
    """``false`` takes a policy away, and an overlay that speaks of it has it as the code says it."""
    resilience = Resilience("shop", environment="test")
    breaker = CircuitBreaker(window=5.0)
    guard = resilience.guard("x", breaker=breaker, retry=Retry(attempts=5, on=KeyError), bulkhead=3)
    base = {"breaker": False, "retry": False, "bulkhead": "none"}
    resilience.configure_from({"guards": {"x": base}})
    assert guard.pipeline == ("record", "fault", "callee")
    overlay = {"breaker": True, "retry": {"attempts": 2}}
    resilience.configure_from({"guards": {"x": base}, "environments": {"test": {"guards": {"x": overlay}}}})
    assert (guard.options.breaker, guard.options.retry) == (breaker, Retry(attempts=2, on=KeyError))
    assert guard.options.bulkhead is None


def test_a_latency_bound_from_a_file_is_known_to_guards_that_are_made_later():
    """To those that are there it cannot be given any more, and then nothing is changed."""
    slow = {"guards": {"*": {"breaker": {"slow_call_rate": 0.5, "slow_call_duration": 0.77}}}}
    resilience = Resilience("shop")
    resilience.configure_from(slow)
    assert 0.77 in resilience.guard("x", breaker=True).recorder.bounds
    other = Resilience("shop")
    other.guard("x", breaker=True)
    assert [problem.path for problem in problems_of(lambda: other.configure_from(slow))] == ["guard('x').breaker.slow_call_duration"]
    assert other.settings.entries == ()


# -- mistakes -----------------------------------------------------------------------------------------------------------------------------


def test_mistakes_in_variables_and_files_are_told_with_those_of_the_process(tmp_path, bare):
    """All at once, with file and line, when the process begins."""
    (tmp_path / "bad.toml").write_text('[guards."x"]\ntimeout = -1\n\n[guards.y.retry]\nattempts = 0\n')
    bare.chdir(tmp_path)
    bare.setenv("SOMARESIL_CONFIG", "bad.toml")
    bare.setenv("SOMARESIL_GUARD__X__RETRY", "many")
    assert [problem.path for problem in problems_of(lambda: Resilience("a b", strict=1))] == [
        "Resilience.service",
        "Resilience.strict",
        "bad.toml:2: guards.'x'.timeout",
        "bad.toml:5: guards.'y'.retry.attempts",
        "SOMARESIL_GUARD__X__RETRY",
    ]
    bare.setenv("SOMARESIL_CONFIG", "none.toml")
    assert [problem.path for problem in problems_of(lambda: Resilience("shop"))] == ["none.toml", "SOMARESIL_GUARD__X__RETRY"]


def test_what_does_not_go_together_with_the_code_is_told_when_the_guard_is_there(tmp_path):
    """When the file is read, or when the guard is made: with the line of what was said, and nothing is changed."""
    path = tmp_path / "a.toml"
    path.write_text("[guards.x.breaker]\nopen_maximum = 10\n[guards.x.bulkhead]\nmax_wait = 1.0\n")
    resilience = Resilience("shop")
    resilience.guard("x", breaker=True)
    found = problems_of(lambda: resilience.configure_from(path))
    assert [problem.path for problem in found] == [
        f"{path}:2: guards.'x'.breaker.open_maximum",
        f"{path}:4: guards.'x'.bulkhead.max_concurrent",
    ]
    assert resilience.settings.entries == ()
    later = Resilience("shop")
    later.configure_from(path)
    assert [problem.path for problem in problems_of(lambda: later.guard("x", breaker=True, bulkhead=3))] == [
        f"{path}:2: guards.'x'.breaker.open_maximum",
        f"{path}:4: guards.'x'.bulkhead.max_waiting",
    ]
    assert later.guards == {}
    assert later.guard("x", breaker=CircuitBreaker(open_duration=5.0), bulkhead=Bulkhead(3, 1, 9.0)).options.bulkhead == Bulkhead(3, 1, 1.0)


def test_a_variable_that_could_mean_two_guards_means_none(bare):
    """It is a problem when the second is made, and when settings are read."""
    bare.setenv("SOMARESIL_GUARD__LLM_INVOKE__TIMEOUT", "8")
    resilience = Resilience("shop")
    resilience.guard("llm.invoke")
    (problem,) = problems_of(lambda: resilience.guard("llm-invoke"))
    assert problem.path == "SOMARESIL_GUARD__LLM_INVOKE__TIMEOUT"
    assert problem.hint == "it could be 'llm-invoke' or 'llm.invoke': say it in a file"
    bare.delenv("SOMARESIL_GUARD__LLM_INVOKE__TIMEOUT")
    resilience.configure_from()
    resilience.guard("llm-invoke")
    bare.setenv("SOMARESIL_GUARD__LLM_INVOKE__TIMEOUT", "9")
    assert len(problems_of(resilience.configure_from)) == 2


def test_what_was_set_for_nobody_is_listed(file, bare):
    """Names, patterns and variables, with what was probably meant."""
    bare.setenv("SOMARESIL_GUARD__LLM_INVOK__TIMEOUT", "8")
    resilience = Resilience("shop")
    resilience.guard("lm.invoke")
    resilience.configure_from(file)
    assert [(each.guard, each.hint) for each in resilience.settings.unused()] == [
        ("llm.*", ""),
        ("llm.invoke", "did you mean 'lm.invoke'?"),
        ("LLM_INVOK", "did you mean 'LM_INVOKE'?"),
    ]
    assert str(resilience.settings.unused()[1]) == f"{file}:2: guards.'llm.invoke': no guard is called that (did you mean 'lm.invoke'?)"
    resilience.guard("llm.invoke")
    assert [each.guard for each in resilience.settings.unused()] == ["LLM_INVOK"]


@pytest.mark.parametrize("source", [5, ["a.toml"], b"a.toml"])
def test_a_source_is_a_path_or_a_mapping(source):
    """Anything else is a problem."""
    assert [problem.path for problem in problems_of(lambda: Resilience("shop").configure_from(source))] == ["settings"]


# -- live changes -------------------------------------------------------------------------------------------------------------------------


def test_a_live_change_keeps_the_state():
    """An open breaker stays open in its era, calls in a bulkhead keep their places."""
    stand = Stand(breaker=one_strike(), bulkhead=2)
    stand.fail()
    era = stand.breaker.era
    stand.fill()
    stand.resilience.reconfigure({"dependency": {"breaker": {"open_duration": 5.0}, "bulkhead": 1, "retry": 2}})
    assert (stand.state, stand.breaker.era, stand.guard.bulkhead.active) == ("open", era, 1)
    assert stand.breaker.options == one_strike(open_duration=5.0, open_maximum=120.0)
    assert stand.guard.retry is not None


def test_a_change_is_told_once_with_who_and_why():
    """One event for all guards, a line for each change, after it is done; nothing to tell when nothing was changed."""
    stand = Stand("llm.invoke", timeout=10.0, retry=3)
    stand.resilience.guard("llm.stream")
    seen = []
    stand.resilience.on(lambda event: seen.append(stand.guard.options.timeout), Reconfigured)
    changes = stand.resilience.reconfigure(
        {"llm.invoke": {"timeout": {"total": 8.0}, "retry": {"attempts": 2}}, "llm.*": {"bulkhead": 4, "timeout": {"total": 9.0}}},
        by="ada: model is slow",
    )
    assert changes == (
        Change("llm.invoke", "retry.attempts", 3, 2),
        Change("llm.invoke", "bulkhead", None, Bulkhead(4)),
        Change("llm.invoke", "timeout.total", 10.0, 8.0),
        Change("llm.stream", "bulkhead", None, Bulkhead(4)),
        Change("llm.stream", "timeout", None, Timeout(9.0)),
    )
    (event,) = stand.told(Reconfigured)
    assert (event.at, event.by, event.guards) == (stand.clock.time(), "ada: model is slow", ("llm.invoke", "llm.stream"))
    assert event.changes[0] == "llm.invoke: retry.attempts 3 -> 2"
    assert len(event.changes) == 5
    assert seen == [Timeout(8.0)]
    assert stand.resilience.reconfigure({"llm.invoke": {"timeout": {"total": 8.0}}}) == ()
    assert len(stand.told(Reconfigured)) == 1


def test_what_is_told_is_bounded():
    """A hundred lines and one that counts the rest, and 200 characters of reason."""
    resilience = Resilience("shop")
    for number in range(130):
        resilience.guard(f"g{number}")
    told = []
    resilience.on(told.append, Reconfigured)
    assert len(resilience.reconfigure({"*": {"retry": 2}}, by="x" * 500)) == 130
    assert len(told[0].changes) == 101
    assert told[0].changes[-1] == "and 30 more"
    assert len(told[0].by) == 200
    assert len(told[0].guards) == 130


def test_a_guard_that_configures_itself_tells_it_too():
    """Every change of options while the service runs is one event."""
    stand = Stand(timeout=1.0)
    stand.guard.configure(timeout=2.0)
    stand.guard.configure(timeout=2.0)
    assert [(event.guards, event.changes, event.by) for event in stand.told(Reconfigured)] == [
        (("dependency",), ("dependency: timeout.total 1.0 -> 2.0",), "")
    ]


def test_a_dry_run_tells_what_would_be_changed():
    """The same changes, the same problems, and nothing is done."""
    stand = Stand(timeout=10.0)
    assert stand.resilience.reconfigure({"dependency": {"timeout": 8.0}}, dry_run=True) == (
        Change("dependency", "timeout.total", 10.0, 8.0),
    )
    assert stand.resilience.configure_from({"guards": {"*": {"retry": 2}}}, dry_run=True) == (
        Change("dependency", "retry", None, Retry(attempts=2)),
    )
    assert problems_of(lambda: stand.resilience.reconfigure({"dependency": {"timeout": 0}}, dry_run=True))
    assert stand.guard.options == stand.guard.coded
    assert stand.resilience.settings.entries == ()
    assert stand.told(Reconfigured) == []


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_changed():
    """Unknown guards, patterns that match none, options, fields, values; a pattern's mistake once, however many guards it matches."""
    resilience = Resilience("shop")
    guards = [resilience.guard(name, timeout=10.0, breaker=True) for name in ("llm.invoke", "llm.stream", "db")]
    before = [guard.options for guard in guards]
    found = problems_of(
        lambda: resilience.reconfigure(
            {
                "db": {"timeout": 5.0},
                "llm.invok": {"timeout": 5.0},
                "x.*": {"timeout": 5.0},
                "llm.*": {"retry": {"attempts": 0}, "brekaer": True},
                "llm.stream": {"breaker": {"open_maximum": 1.0}, "slo": "fast"},
                5: {"timeout": 5.0},
            },
            by=5,
            dry_run="no",
        )
    )
    assert sorted(problem.path for problem in found) == [
        "by",
        "dry_run",
        "guards.'llm.*'.brekaer",
        "guards.'llm.*'.retry.attempts",
        "guards.'llm.invok'",
        "guards.'llm.stream'.breaker.open_maximum",
        "guards.'llm.stream'.slo",
        "guards.'x.*'",
        "guards.5",
    ]
    hints = {problem.path: problem.hint for problem in found}
    assert hints["guards.'llm.invok'"] == "did you mean 'llm.invoke'?"
    assert [guard.options for guard in guards] == before
    for wrong in (None, [], "db"):
        assert [problem.path for problem in problems_of(lambda wrong=wrong: resilience.reconfigure(wrong))] == ["changes"]
    assert resilience.reconfigure({}) == ()


class Refusing(Retry):
    """Options whose policy cannot be made."""

    def build(self, site):
        raise OSError("no")


def test_what_cannot_be_made_leaves_every_guard_as_it_was():
    """What was made for the others by then is given up again."""
    resilience = Resilience("shop", clock=ManualClock())
    guards = [resilience.guard(name, timeout=1.0) for name in ("a", "b", "c")]
    given = {"a": {"breaker": True, "timeout": 2.0}, "b": {"retry": Refusing(), "breaker": True}, "c": {"timeout": 2.0}}
    with pytest.raises(OSError, match="no"):
        resilience.reconfigure(given)
    assert [guard.options.timeout for guard in guards] == [Timeout(1.0)] * 3
    assert [guard.pipeline for guard in guards] == [("record", "timeout", "fault", "callee")] * 3
    assert [guard.recorder._views for guard in guards] == [()] * 3
    assert guards[0].call(len, "abc") == 3
    resilience.reconfigure({"a": {"breaker": one_strike()}})
    with pytest.raises(ZeroDivisionError):
        guards[0].call(lambda: 1 / 0)
    assert guards[0].breaker.state == "open"


def test_a_policy_that_breaks_while_it_takes_over_keeps_the_others_from_nothing():
    """It is reported, and the other policies and guards have their new options."""
    resilience = Resilience("shop")
    first, second = resilience.guard("a", timeout=1.0, retry=2), resilience.guard("b", timeout=1.0)
    first.retry.reconfigure = lambda options: 1 / 0
    reported = []
    resilience.listeners.defect = lambda where, error, *rest: reported.append((where, type(error)))
    resilience.reconfigure({"*": {"timeout": 2.0}, "a": {"retry": 3}})
    assert reported == [("the retry of guard a, taking over new options", ZeroDivisionError)]
    assert first.timeout.options == second.timeout.options == Timeout(2.0)


def test_a_breaker_of_another_kind_takes_over_where_the_first_has_left_off():
    """Quiet calls carry its era, so that it hears of them."""

    class Own(CircuitBreaker):
        """Another kind of the same."""

    stand = Stand(breaker=one_strike())
    stand.guard.configure(breaker=Own(failure_rate=None, consecutive_failures=1))
    assert stand.guard.switch.era == stand.breaker.era
    stand.fail()
    assert stand.state == "open"


def test_guards_that_are_made_while_settings_are_read_have_the_old_or_the_new_ones_in_the_end_the_new():
    """No guard falls between the two."""
    for round_ in range(20):
        resilience = Resilience("shop")

        def work(number, resilience=resilience):
            if number == 0:
                resilience.configure_from({"guards": {"*": {"timeout": 8.0}}})
            else:
                resilience.guard(f"g{number}", timeout=1.0)

        assert together(4, work) == [None] * 4, round_
        assert {guard.options.timeout for guard in resilience.guards.values()} == {Timeout(8.0)}


def test_a_guard_that_was_worked_out_before_settings_were_read_is_worked_out_again():
    """Whatever the moment."""
    resilience = Resilience("shop")
    settled = resilience.settings.settled

    def overtaken(*given):
        found = settled(*given)
        if not resilience.settings.entries:
            resilience.configure_from({"guards": {"*": {"timeout": 8.0}}})
        return found

    resilience.settings.settled = overtaken
    assert resilience.guard("x", timeout=1.0).options.timeout == Timeout(8.0)


def test_locks_are_taken_in_one_order(monkeypatch):
    """While a guard is made nobody else can begin to change options: he would hold one lock and wait for the other."""
    resilience = Resilience("shop")
    resilience.observe(lambda event: None)
    make, free = resilience._make, []

    def watched(*given):
        free.extend(together(1, lambda _: configuring.acquire(blocking=False)))
        return make(*given)

    monkeypatch.setattr(resilience, "_make", watched)
    resilience.guard("x")
    assert free == [False]


def test_listeners_may_change_options_and_make_guards():
    """They are told with no lock held that another thread could wait for."""
    resilience = Resilience("shop", clock=ManualClock())
    resilience.guard("a", breaker=one_strike())

    def listener(event):
        other = threading.Thread(target=lambda: (resilience.guard("b", timeout=1.0), resilience.reconfigure({"b": {"timeout": 2.0}})))
        other.start()
        other.join(PATIENCE)
        assert not other.is_alive()
        end()

    end = resilience.on(listener, Reconfigured)
    resilience.reconfigure({"a": {"breaker": {"window": 5.0}}})
    assert resilience.guards["b"].options.timeout == Timeout(2.0)


def test_observers_and_settings_do_not_wait_for_one_another():
    """Guards are made and observed, and settings read, by threads at once."""
    resilience = Resilience("shop")

    def work(number):
        for turn in range(8):
            if number == 0:
                resilience.configure_from({"guards": {"*": {"timeout": float(turn + 1)}}})
            elif number == 1:
                resilience.observe(lambda event: None)()
            else:
                resilience.guard(f"g{number}.{turn}")

    assert together(4, work) == [None] * 4


# -- findings -----------------------------------------------------------------------------------------------------------------------------

WRONG = {"timeout": 5.0, "bulkhead": Bulkhead(8, 4, 6.0)}


def test_a_guard_that_is_surely_wrong_is_warned_of_where_it_is_made():
    """Once, at the line of the user's code."""
    resilience = Resilience("shop")
    with pytest.warns(PipelineWarning, match=r"guard 'x': bulkhead\.max_wait: the timeout of 5 s begins") as told:
        resilience.guard("x", **WRONG)
    assert [warning.filename for warning in told] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resilience.guard("x")
        resilience.guard("x", **WRONG)


def test_a_warning_that_is_made_an_error_makes_no_guard():
    """As with every other error."""
    resilience = Resilience("shop")
    with warnings.catch_warnings():
        warnings.simplefilter("error", PipelineWarning)
        with pytest.raises(PipelineWarning):
            resilience.guard("x", **WRONG)
    assert resilience.guards == {}


def test_a_strict_process_has_no_guard_that_is_surely_wrong():
    """All findings are problems: when it is made, by a file, by a live change; nothing is changed then."""
    resilience = Resilience("shop", strict=True)
    (problem,) = problems_of(lambda: resilience.guard("x", **WRONG))
    assert (problem.path, problem.value) == ("guard('x').bulkhead.max_wait", 6.0)
    assert problem.allowed == "a pipeline without findings [waits-longer-than-it-works]"
    assert "make max_wait shorter than the timeout" in problem.hint
    assert resilience.guards == {}
    guard = resilience.guard("x", timeout=5.0)
    for change in (
        lambda: resilience.reconfigure({"x": {"bulkhead": Bulkhead(8, 4, 6.0)}}),
        lambda: resilience.configure_from({"guards": {"x": {"bulkhead": {"max_concurrent": 1, "max_waiting": 1, "max_wait": 6}}}}),
    ):
        assert [problem.path for problem in problems_of(change)] == ["guard('x').bulkhead.max_wait"]
    assert guard.options.bulkhead is None


def test_a_live_change_that_is_surely_wrong_is_written_to_the_log(caplog):
    """It is done all the same, for whoever does it may know; what was so before is not told again."""
    resilience = Resilience("shop")
    with pytest.warns(PipelineWarning):
        guard = resilience.guard("x", timeout=5.0, retry=Retry(attempts=5, wait=0))
    resilience.reconfigure({"x": {"bulkhead": Bulkhead(8, 4, 6.0)}})
    assert [record.name for record in caplog.records] == ["somaresil"]
    assert caplog.records[0].getMessage().startswith(f"guard 'x' ({guard.where}): bulkhead.max_wait: the timeout of 5 s")
    assert guard.options.bulkhead == Bulkhead(8, 4, 6.0)
