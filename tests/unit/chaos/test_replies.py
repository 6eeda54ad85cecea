"""Answers in place of the callee's: fakes, statuses, rate limits, refusals of models, and answers that were given before."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from somaresil import ChaosConfig, ChaosPlan, ConfigurationError, FaultWindow, InjectedAnswer, InjectedFault, Resilience, Retry
from somaresil.chaos.clienterrors import CLIENT_ERRORS
from somaresil.retryafter import asked_wait, pushed_back
from tests.behaviour.kit import both


def arm(stand, kind, **options):
    return stand.chaos.arm(ChaosConfig(kind, "llm.invoke", options.pop("rate", 1.0), options.pop("duration", 600.0), **options))


def call(guard, function, suspends, *args):
    """What a call gives, errors as values."""

    async def suspended(*args):
        await asyncio.sleep(0)
        return function(*args)

    try:
        return asyncio.run(guard.acall(suspended, *args)) if suspends else guard.call(function, *args)
    except Exception as error:
        return error


@both
def test_a_fake_answers_and_the_callee_is_not_called(stand, suspends):
    """A value, none at all, or what a function makes of the arguments."""
    called = []
    for result, expected in [({"a": 1}, {"a": 1}), (None, None), (lambda x: x * 2, 14), (dict, dict)]:
        run = arm(stand, "fake_result", result=result)
        assert call(stand.guard, called.append, suspends, 7) == expected
        assert run.injected == 1
        run.end()
    assert called == []
    assert stand.guard.recorder.counts().total("good", injected=True) == 4


@both
def test_a_fake_of_a_stream_is_its_items(stand, suspends):
    """Any iterable will do."""
    arm(stand, "fake_result", result=["a", "b"])

    @stand.resilience.guard("llm.invoke")
    def stream():
        yield 1 / 0

    @stand.resilience.guard("llm.invoke")
    async def astream():
        yield 1 / 0

    async def read():
        return [item async for item in astream()]

    assert (asyncio.run(read()) if suspends else list(stream())) == ["a", "b"]


def test_the_body_of_a_block_cannot_be_faked(stand):
    """It runs, and is not struck."""
    run, ran = arm(stand, "fake_result", result=5), []
    with stand.resilience.guard("llm.invoke"):
        ran.append(True)
    assert (ran, run.injected) == ([True], 0)


@both
def test_a_status_is_an_error_that_has_it(stand, suspends):
    """Where no client makes an answer of it."""
    arm(stand, "http_status", status=502)
    error = call(stand.guard, lambda: 1 / 0, suspends)
    assert (type(error), error.status_code, error.retry_after) == (InjectedAnswer, 502, None)
    assert "status 502" in str(error)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.component, copy.status_code, str(copy)) == (error.component, 502, str(error))


@both
def test_a_rate_limit_says_when_to_come_back_and_our_retry_hears_it(make, suspends):
    """It waits that long, not what it would have waited."""
    stand = make()
    guard = stand.resilience.guard("busy", retry=Retry(attempts=2, wait=0.5))
    stand.chaos.arm(ChaosConfig("rate_limit", "busy", 1.0, first=1, retry_after=7))
    began = stand.clock.monotonic()
    assert call(guard, lambda: "answer", suspends) == "answer"
    assert stand.clock.monotonic() - began == 7.0


@both
def test_a_rate_limit_as_an_error_of_ones_own(stand, suspends):
    """It is given the seconds, if it takes attributes."""
    run = arm(stand, "rate_limit", error=LookupError, retry_after=3)
    error = call(stand.guard, lambda: None, suspends)
    assert (type(error), asked_wait(error, float)) == (LookupError, 3.0)
    run.end()
    arm(stand, "rate_limit", retry_after=0.2)
    error = call(stand.guard, lambda: None, suspends)
    assert (error.status_code, error.code, pushed_back(error, float)) == (429, "rate_limit_exceeded", 0.2)


@both
def test_a_prompt_is_too_long(stand, suspends):
    """As a model says it."""
    arm(stand, "context_length")
    error = call(stand.guard, lambda: None, suspends)
    assert (error.status_code, error.code) == (400, "context_length_exceeded")
    assert isinstance(error, InjectedFault)


@both
def test_an_answer_is_given_again_to_the_same_arguments(stand, suspends):
    """The first struck call is answered as it should be; the callee is called each time."""
    run, count = arm(stand, "stale_result"), iter(range(100))

    def ask(name):
        return name, next(count)

    found = [call(stand.guard, ask, suspends, name) for name in ("a", "a", "b", "a", "b")]
    assert found == [("a", 0), ("a", 0), ("b", 2), ("a", 0), ("b", 2)]
    assert run.injected == 3
    assert [call(stand.guard, lambda x: next(count), suspends, [1]) for _ in range(2)] == [5, 5]
    run.end()
    assert run.kept == {}


@both
def test_an_answer_is_damaged(stand, suspends):
    """Once it is there; what cannot be damaged is not struck, and a corrupter of one's own is given a draw."""
    run = arm(stand, "corrupt_result", corrupt="flip_numbers")
    assert call(stand.guard, lambda: {"a": 1}, suspends) == {"a": -1}
    assert call(stand.guard, lambda: "text", suspends) == "text"
    assert run.injected == 1
    run.end()
    drawn = []
    run = arm(stand, "corrupt_result", corrupt=lambda answer, u: drawn.append(u) or answer.upper())
    assert call(stand.guard, lambda: "text", suspends) == "TEXT"
    assert 0.0 <= drawn[0] < 1.0


@both
def test_a_corrupter_that_fails_leaves_the_answer_as_it_is(stand, suspends):
    """A mistake in an experiment is no fault."""
    run = arm(stand, "corrupt_result", corrupt=lambda answer, u: 1 / 0)
    assert call(stand.guard, lambda: "text", suspends) == "text"
    assert run.injected == 0


@both
def test_a_plan_names_corrupters(stand, suspends):
    """Those that the caller has declared, and nothing else."""
    plan = ChaosPlan([FaultWindow("llm.invoke", "corrupt_result", 0, 10, corrupt="shout")])
    with pytest.raises(ConfigurationError, match=r"windows\[0\].corrupt.*did you mean|allow it"):
        stand.chaos.arm_plan(plan)
    with pytest.raises(ConfigurationError, match="corrupters"):
        stand.chaos.arm_plan(plan, corrupters={"shout": 5})
    stand.chaos.arm_plan(plan, corrupters={"shout": lambda answer, u: answer.upper()})
    assert call(stand.guard, lambda: "text", suspends) == "TEXT"


NAMES = [f"{library}.{name}" for library, names in CLIENT_ERRORS.items() for name in names]


@pytest.mark.parametrize("name", NAMES)
def test_errors_of_clients_are_made_as_the_client_makes_them(name):
    """Named in a plan, without having been imported by it."""
    pytest.importorskip(name.partition(".")[0])
    resilience = Resilience("tests", environment="test")
    guard = resilience.guard("llm.invoke")
    resilience.chaos.opt_in()
    run = resilience.chaos.arm_plan(ChaosPlan([FaultWindow("llm.invoke", "error", 0, 10, error=name)]))
    errors = [call(guard, lambda: None, suspends=False) for _ in range(2)]
    run.stop()
    library, _, word = name.partition(".")
    assert errors[0] is not errors[1]
    assert type(errors[0]).__module__.partition(".")[0] == library
    kind, _, status = word.partition(".")
    if library == "grpc":
        assert errors[0].code().name == word
    else:
        assert type(errors[0]).__name__ == kind
    if status:
        assert pushed_back(errors[0], float) == (0.0 if status in {"429", "503"} else None)
    assert str(errors[0])


def test_an_error_that_is_not_on_the_list_is_refused(stand):
    """However much it looks like one; the hint says which there are."""
    for name, hint in [("httpx.ReadTimeuot", "did you mean 'httpx.ReadTimeout'?"), ("os.system", "allow it"), ("httpx", "allow it")]:
        with pytest.raises(ConfigurationError) as caught:
            stand.chaos.arm_plan(ChaosPlan([FaultWindow("llm.invoke", "error", 0, 10, error=name)]))
        (problem,) = caught.value.problems
        assert problem.path == "chaos.plan.windows[0].error"
        assert hint in problem.hint


def test_an_error_of_a_library_that_is_not_there_is_refused(stand, monkeypatch):
    """And the reason is said."""
    monkeypatch.setattr("somaresil.chaos.clienterrors.find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match="redis is not installed"):
        stand.chaos.arm_plan(ChaosPlan([FaultWindow("llm.invoke", "error", 0, 10, error="redis.TimeoutError")]))
