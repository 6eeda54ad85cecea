"""What a grader holds together, what it leaves apart, and that it changes nothing."""

from __future__ import annotations

import json

import pytest

from somaresil import Hedge, Retry, Timeout
from somaresil.callpath import scope
from somaresil.chaos import findings
from somaresil.chaos.findings import SEVERITIES, Book, Tally, grades_of
from somaresil.chaos.grading import Grader
from somaresil.events import DefectFound
from tests.unit.chaos.kit import ERROR, Stand


def names(grades):
    return [grade.name for grade in grades]


def refused(function, *args):
    try:
        function(*args)
    except Exception:
        return


def test_a_loop_of_the_user_is_graded_in_a_named_request():
    """There the same call again, after it failed, is a retry."""
    stand = Stand()
    with stand.chaos.grade() as grades:
        stand.arm()
        for number in range(4):
            with scope(f"request-{number}"):
                for _ in range(6):
                    refused(stand.guard.call, str, "same")
    assert names(grades) == ["no_backoff"]


def test_a_loop_inside_of_another_guarded_call_is_graded():
    stand = Stand()

    @stand.resilience.guard("agent.turn")
    def turn():
        for _ in range(12):
            refused(stand.guard.call, str, "same")

    with stand.chaos.grade() as grades:
        stand.arm()
        turn()
    assert names(grades) == ["no_backoff", "retry_storm"]
    assert {grade.guard for grade in grades} == {"llm.invoke"}


def test_calls_that_nothing_holds_together_are_no_retries():
    """Two users may ask the same."""
    stand = Stand()
    with stand.chaos.grade() as grades:
        stand.arm(rate=0.5)
        for _ in range(12):
            refused(stand.guard.call, str, "same")
    assert not {"retry_storm", "no_backoff"} & set(names(grades))


def test_other_arguments_are_other_calls():
    stand = Stand()
    with stand.chaos.grade() as grades, scope("request"):
        stand.arm(rate=0.5)
        for number in range(20):
            refused(stand.guard.call, str, number)
    assert "no_backoff" not in names(grades)


def test_asking_again_after_a_good_answer_is_no_retry():
    """A page that polls is no storm."""
    stand = Stand()
    with stand.chaos.grade() as grades, scope("page"):
        stand.arm(rate=0.2)
        for _ in range(60):
            stand.clock.advance(1.0)
            refused(stand.guard.call, str)
    assert "retry_storm" not in names(grades)


def test_arguments_that_have_no_hash_are_compared_by_identity():
    stand = Stand()
    asked = {"messages": []}
    with stand.chaos.grade() as grades, scope("request"):
        stand.arm()
        for _ in range(12):
            refused(stand.guard.call, str, asked)
    assert "retry_storm" in names(grades)


def test_a_stream_that_is_asked_for_again_was_noticed():
    stand = Stand()

    @stand.guard
    def stream():
        yield from "abc"

    with stand.chaos.grade() as grades:
        stand.arm(experiment="stream_truncate", calls=(1,))
        with scope("request"):
            assert "".join(stream()) == "a"
            assert "".join(stream()) == "abc"
    assert names(grades) == []


def test_a_stream_with_nobody_around_is_judged_by_its_own_guard():
    stand = Stand()

    @stand.guard
    def stream():
        yield from "abc"

    with stand.chaos.grade() as grades:
        stand.arm(experiment="stream_truncate")
        list(stream())
    (grade,) = grades
    assert (grade.name, grade.severity, dict(grade.evidence)) == ("truncated_stream_accepted", "high", {"streams": 1, "accepted": 1})
    assert json.loads(json.dumps(grade.as_dict()))["guard"] == "llm.invoke"
    assert str(grade).startswith("llm.invoke: truncated_stream_accepted (high): 1 streams")


def test_what_no_experiment_has_struck_is_not_graded():
    stand = Stand()

    def broken():
        raise OSError

    with stand.chaos.grade() as grades:
        for _ in range(50):
            refused(stand.guard.call, broken)
    assert names(grades) == []


def test_guards_that_are_made_meanwhile_are_graded_too():
    stand = Stand()
    with stand.chaos.grade() as grades:
        stand.arm()
        guard = stand.resilience.guard("llm.late", retry=Retry(attempts=12, budget=None))
        refused(guard.call, str)
    assert names(grades) == ["retry_storm"]


def test_findings_can_be_read_while_it_goes_on_and_stay_when_it_is_over():
    stand = Stand()
    guard = stand.resilience.guard("llm.other", retry=Retry(attempts=12, budget=None))
    with stand.chaos.grade() as grades:
        stand.arm()
        refused(guard.call, str)
        assert (len(grades), names(grades)) == (1, ["retry_storm"])
    stand.chaos.stop_all()
    for _ in range(20):
        guard.call(str)
    assert names(grades) == ["retry_storm"]


def test_guards_are_quiet_again_afterwards():
    stand = Stand()
    with stand.chaos.grade():
        assert not stand.guard.switch.quiet
    assert stand.guard.switch.quiet
    assert stand.chaos._graders == ()


def test_a_grader_that_raises_changes_no_outcome(monkeypatch):
    """It is reported, and the call goes on."""
    stand = Stand()
    with stand.chaos.grade():
        for method in ("began", "ended", "struck"):
            monkeypatch.setattr(Grader, method, lambda *_: 1 / 0)
        stand.arm(rate=0.0)
        assert stand.guard.call(str, 7) == "7"
    assert [event.where for event in stand.told(DefectFound)] == ["onlooker of attempts"]


def test_graders_do_not_disturb_one_another():
    stand = Stand()
    guard = stand.resilience.guard("llm.other", retry=Retry(attempts=12, budget=None))
    with stand.chaos.grade() as outer:
        stand.arm()
        with stand.chaos.grade() as inner:
            refused(guard.call, str)
    assert names(outer) == names(inner) == ["retry_storm"]


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr("somaresil.chaos.grading._MOST_WORKS", 50)
    stand = Stand()
    with stand.chaos.grade() as grades:
        stand.arm(ERROR)
        for number in range(500):
            with scope(f"request-{number}"):
                refused(stand.guard.call, str)
    assert len(grades._works) == 50
    assert len(grades._open) == 0
    (book,) = grades._books.values()
    assert book.tally.calls == 450
    assert len(book.outcomes) <= findings.MOST_OUTCOMES


def test_calls_that_are_never_ended_are_bounded(monkeypatch):
    monkeypatch.setattr("somaresil.chaos.grading._MOST_OPEN", 10)
    stand = Stand()

    @stand.guard
    def stream():
        yield 1
        yield 2

    with stand.chaos.grade() as grades:
        begun = [stream() for _ in range(20)]
        for each in begun:
            next(each)
        assert grades.overlooked == 10
    del begun


@pytest.mark.asyncio
async def test_hedges_are_no_retries():
    """A further attempt beside one that has not failed is another matter."""
    stand = Stand()
    guard = stand.resilience.guard("llm.hedged", hedge=Hedge(delay=0.001), idempotent=True)

    @guard
    async def ask():
        await stand.clock.asleep(0.01)

    with stand.chaos.grade() as grades:
        stand.arm("latency", delay_seconds=0.05)
        for _ in range(10):
            await ask()
    assert not {"retry_storm", "no_backoff"} & set(names(grades))


def test_jitter_is_told_from_none():
    """A tenth either way is enough; timers that are not exact are no jitter."""

    def found(pauses, *, measured):
        stand = Stand()
        book = Book(stand.guard, struck=1)
        for pause in pauses:
            book.paused(1, pause, measured=measured)
        return names(grades_of(book, Tally()))

    spread = [0.9 + 0.02 * n for n in range(11)]
    assert found(spread, measured=False) == []
    assert found([1.0] * 20, measured=False) == ["no_jitter"]
    assert found([0.1 + 0.0001 * n for n in range(12)], measured=True) == ["no_jitter"]
    assert found([1.0] * 9, measured=False) == []
    assert found([0.02] * 20, measured=True) == []
    assert found([0.0] * 20, measured=False) == ["no_backoff"]


def test_a_timeout_is_compared_with_the_longest_deadline():
    stand = Stand()
    guard = stand.resilience.guard("llm.slow", timeout=Timeout(10.0), retry=3, breaker=True)
    for longest, expected in ((30.0, []), (5.0, ["timeout_longer_than_deadline"])):
        with stand.chaos.grade() as grades:
            stand.arm(target="llm.slow", rate=1.0, max_injections=1)
            for seconds in (2.0, 3.0, longest, 1.0):
                with stand.resilience.deadline(seconds):
                    refused(guard.call, str)
        assert names(grades) == expected


def test_every_finding_has_a_severity():
    assert set(SEVERITIES.values()) == {"high", "medium", "low"}
    assert list(SEVERITIES) == sorted(SEVERITIES)
