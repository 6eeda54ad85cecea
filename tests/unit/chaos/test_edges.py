"""The engine at its edges: what is full, what has ended meanwhile, what a fork finds, and what cannot be read."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from somaresil import ChaosConfig, ChaosPlan, ConfigurationError, FaultWindow, Outcome
from somaresil.callpath import scope
from somaresil.chaos import ChaosKeys, answers, audit, grading, plan, process, requests, run, safety
from somaresil.chaos.answers import AnswerFault, LostReply, StaleAnswer
from somaresil.chaos.flight import current, enter, leave
from somaresil.chaos.grading import Grader, _fingerprint, _harm, _is_bad
from somaresil.config import Checker
from somaresil.errors import CircuitOpen
from somaresil.events import BreakerChanged, DefectFound, FallbackUsed
from tests.unit.chaos.kit import ERROR, LATENCY, Stand

KEYS = ChaosKeys({"k1": bytes(range(32))})


def paths(wrong):
    return [problem.path for problem in wrong.value.problems]


# -- switches and conditions ----------------------------------------------------------------------------------------------------------


class Switch:
    """A kill switch that says what a test wants, or cannot be read."""

    def __init__(self, engaged=False, broken=False):
        self.engaged, self.broken, self.prepared = engaged, broken, 0

    def prepare(self):
        self.prepared += 1

    def read(self):
        if self.broken:
            raise OSError("gone")
        return SimpleNamespace(engaged=self.engaged, stamp=1)


@pytest.mark.parametrize(
    ("switches", "allows"), [([], True), ([Switch()], True), ([Switch(broken=True), Switch()], False), ([Switch(engaged=True)], False)]
)
def test_nothing_is_allowed_while_a_switch_cannot_be_read_or_is_engaged(monkeypatch, switches, allows):
    stand = Stand()
    monkeypatch.setattr(type(stand.chaos.safety), "switches", switches)
    stand.chaos.safety.note()
    assert stand.chaos.safety._allows is allows
    assert all(switch.prepared for switch in switches)


def test_what_is_no_condition_and_one_too_many_get_no_name(monkeypatch):
    monkeypatch.setattr(safety, "_MOST_NAMES", 1)
    stand = Stand()
    stand.chaos.condition("first", lambda: False)
    with pytest.raises(ConfigurationError) as wrong:
        stand.chaos.condition("second", 7)
    assert [problem.allowed for problem in wrong.value.problems] == ["a condition, or a function without arguments", "at most 1 conditions"]
    assert set(stand.chaos.safety._named) == {"first"}


def test_a_fork_asks_its_switches_anew_and_takes_no_lock_of_its_parent(monkeypatch):
    stand = Stand()
    held = stand.chaos.safety._lock
    stand.chaos.safety._due = 1e9
    monkeypatch.setattr(safety, "_all", [stand.chaos.safety])
    safety._after_fork()
    assert stand.chaos.safety._lock is not held
    assert stand.chaos.safety._due == float("-inf")


def test_a_condition_that_cannot_be_asked_is_no_leave_to_begin():
    stand = Stand()
    with pytest.raises(ConfigurationError) as wrong:
        stand.arm(stop_when=(lambda: 1 / 0,))
    assert "it raised ZeroDivisionError" in wrong.value.problems[0].hint


# -- the warden -----------------------------------------------------------------------------------------------------------------------


def test_ends_beyond_the_most_that_are_counted_are_counted_as_others(monkeypatch):
    monkeypatch.setattr(process, "_MOST_COUNTED", 1)
    warden = process.Warden(SimpleNamespace(defect=lambda *_: None))
    for number, reason in enumerate(["expired", "condition mine", "expired"]):
        warden._count(SimpleNamespace(end_reason=reason, config=SimpleNamespace(target_component=f"t{number}", experiment=ERROR)))
    kind = ERROR.value
    assert warden.ended() == {("t0", kind, "expired"): 1, ("_other", "_other", "condition"): 1, ("_other", "_other", "expired"): 1}


def test_a_fault_that_cannot_be_looked_at_is_told_and_the_others_are_ended_in_time():
    told = []
    warden = process.Warden(SimpleNamespace(defect=lambda *facts: told.append(facts)))

    class Broken:
        id, remaining = "x-1", 5.0

        @property
        def live(self):
            raise RuntimeError("defect")

    due = warden._look(SimpleNamespace(run=Broken(), begun=False, real_end=float("inf")))
    assert due == 5.0
    assert [(facts[0], str(facts[1])) for facts in told] == [("chaos experiment x-1", "defect")]


def test_a_fork_releases_what_its_parent_holds_with_locks_of_its_own():
    ended, forgotten = [], []
    warden = process.Warden(SimpleNamespace(defect=lambda *_: None))
    warden._held = (SimpleNamespace(run=SimpleNamespace(end=ended.append, forget_locks=lambda: forgotten.append(True))),)
    lock = warden._lock
    warden.forget_thread()
    warden.release("forked")
    assert (ended, forgotten, warden._thread) == (["forked"], [True], None)
    assert warden._lock is not lock


def test_a_run_that_ends_while_it_counts_a_strike_strikes_nothing(monkeypatch):
    stand = Stand()
    armed = stand.arm(LATENCY)
    # Ended by another thread, between the look and the lock.
    monkeypatch.setattr(run.ExperimentRun, "live", True)
    armed.end("stopped")
    assert not armed.claim(delays=True)
    assert (armed.injected, armed.delaying, stand.chaos.active_faults) == (0, 0, 0)
    lock = armed._lock
    armed.forget_locks()
    assert armed._lock is not lock


# -- plans ----------------------------------------------------------------------------------------------------------------------------


def test_what_is_no_plan_says_what_one_is():
    with pytest.raises(ConfigurationError, match='an object with "somaresil_plan", "seed" and "windows"'):
        ChaosPlan.from_json("[1]")
    with pytest.raises(ConfigurationError, match=r"text = '\{broken': expected JSON"):
        ChaosPlan.from_json("{broken")


def test_a_result_is_json_and_not_too_long():
    check = Checker("plan")
    assert plan._json(check, "result", {1, 2}) is None
    assert plan._json(check, "result", "x" * plan._LARGEST_RESULT) == "x" * plan._LARGEST_RESULT
    assert [problem.path for problem in check.problems] == ["plan.result", "plan.result"]
    assert check.problems[1].allowed == f"at most {plan._LARGEST_RESULT}"


def test_a_plan_says_its_windows_as_they_were_written():
    made = ChaosPlan((FaultWindow("llm.*", LATENCY, start=0.0, duration=1.0, delay=0.5),), seed=3)
    assert ChaosPlan.from_dict(json.loads(made.to_json())) == made


# -- answers --------------------------------------------------------------------------------------------------------------------------


def drive(coroutine):
    """The result of one that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it suspended")


def test_the_body_of_a_block_has_no_answer_to_lose_to_replace_or_to_damage():
    block, answer = SimpleNamespace(block=True, lasting=False, args=(), kwargs={}), object()
    for fault in (LostReply(None, "x", 0.0), StaleAnswer(None, "x", {}), AnswerFault(None, "x", None)):
        assert drive(fault(block, answer)) is answer


def test_answers_that_are_kept_to_be_given_again_are_bounded(monkeypatch):
    monkeypatch.setattr(answers, "MOST_KEPT", 1)
    kept = {}
    fault = StaleAnswer(SimpleNamespace(live=True), "x", kept)
    for argument in (1, 2):
        call = SimpleNamespace(block=False, lasting=False, args=(argument,), kwargs={})
        assert drive(fault(call, argument)) == argument
    assert list(kept.values()) == [1]


# -- plans of requests ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk():
    stand = Stand()
    stand.chaos.approve("llm-down", ChaosConfig(ERROR, "llm.*", 1.0, duration_seconds=30.0))
    stand.chaos.accept_plans(KEYS)
    return stand


def test_rules_beyond_the_most_are_not_approved(desk, monkeypatch):
    monkeypatch.setattr(requests, "_MOST_APPROVED", 1)
    config = ChaosConfig(ERROR, "llm.*", 1.0)
    # One that is approved may be changed.
    desk.chaos.approve("llm-down", config)
    with pytest.raises(ConfigurationError, match="at most 1 approved rules"):
        desk.chaos.approve("other", config)
    with pytest.raises(ConfigurationError, match="a name of 1 to 64 characters"):
        desk.chaos.approve("no name", config)
    assert set(desk.chaos.requests.approved) == {"llm-down"}


def test_a_process_that_accepts_no_plans_signs_none():
    stand = Stand()
    with pytest.raises(ConfigurationError, match=r"chaos\.accept_plans\(keys\) first"):
        stand.chaos.sign_plan(["llm-down"])
    with pytest.raises(requests.PlanRefused):
        stand.chaos.requests.signed_child(None)


def test_a_plan_that_cannot_go_on_is_not_carried_and_not_passed_on(desk, monkeypatch):
    def refused(*_):
        raise requests.PlanRefused("oversized")

    desk.chaos.pass_plans_to("*.internal")
    monkeypatch.setattr(desk.chaos.requests, "_mine", lambda: SimpleNamespace(onward=refused))
    assert desk.chaos.requests.carry() is None
    outgoing = desk.chaos.requests.outgoing("api.internal", "other=1")
    assert tuple(outgoing) == ("other=1", None)


def test_a_defect_at_the_end_of_a_plan_is_told_and_its_lease_ends_it(desk, monkeypatch):
    desk_ = desk.chaos.requests
    token = desk.chaos.sign_plan(["llm-down"])
    flight = desk_.arriving([f"somaresil.chaos={token}"])
    monkeypatch.setattr(desk.chaos, "forget_runs", lambda _: 1 / 0)
    with flight:
        assert desk_.in_flight == 1
    assert desk_.in_flight == 0
    assert [(event.where, event.error) for event in desk.told(DefectFound)] == [("ending a request plan", "ZeroDivisionError")]


def test_leaving_a_plan_in_another_context_leaves_that_one_alone():
    import contextvars

    token = contextvars.copy_context().run(enter, None)
    inside = enter("theirs")
    try:
        leave(token)
        assert current() == "theirs"
    finally:
        leave(inside)


# -- the audit log --------------------------------------------------------------------------------------------------------------------


def test_a_file_that_another_process_has_turned_over_is_not_turned_again(tmp_path):
    stand = Stand()
    file = tmp_path / "audit.log"
    file.write_text("short", encoding="utf-8")
    stand.chaos.audit._most = 100
    stand.chaos.audit._rotate(file, 10)
    assert file.read_text(encoding="utf-8") == "short"
    stand.chaos.audit._rotate(file, 96)
    assert [each.name for each in tmp_path.iterdir()] == ["audit.log.1"]


def test_durations_are_written_as_seconds_and_other_things_by_their_kind():
    from datetime import timedelta

    assert audit._plain(timedelta(minutes=1)) == 60.0
    assert audit._plain((1, "a", None)) == [1, "a", None]


# -- grading --------------------------------------------------------------------------------------------------------------------------


def call_of(*args, **options):
    return SimpleNamespace(function=len, args=args, kwargs={}, repeatable=lambda: None, started=0.0, **options)


def test_arguments_without_a_hash_are_the_same_only_as_themselves():
    one, same = {}, {}
    assert _fingerprint(call_of(one)) == _fingerprint(call_of(one))
    assert _fingerprint(call_of(one)) != _fingerprint(call_of(same))
    assert _fingerprint(call_of(1)) == _fingerprint(call_of(1))


def test_a_mistake_of_the_caller_should_not_be_repeated_and_a_rejection_of_ones_own_is_not_bad():
    assert _harm(call_of(), TypeError()) == "TypeError"

    class Gone(Exception):
        status_code = 404

    class Busy(Exception):
        status_code = 429

    assert _harm(call_of(), Gone()).endswith("Gone 404")
    assert _harm(call_of(), Busy()) is None
    guard = SimpleNamespace(name="db", options=SimpleNamespace(classify=None))
    assert not _is_bad(guard, call_of(), CircuitOpen("db", 1.0))
    assert _is_bad(guard, call_of(), CircuitOpen("other", 1.0))


def test_a_wait_that_cannot_be_read_is_none_that_was_asked_for(monkeypatch):
    stand = Stand()
    monkeypatch.setattr("somaresil.chaos.grading.asked_wait", lambda *_: 1 / 0)
    with stand.chaos.grade() as grades:
        stand.arm()
        with scope("request"):
            for _ in range(3):
                stand.struck()
    assert [book.asked for book in grades._books.values()] == [0]
    assert stand.told(DefectFound) == []


def test_calls_that_began_before_the_grading_and_events_of_others_change_nothing():
    stand = Stand()
    with stand.chaos.grade() as grades:
        call = call_of(guard="llm.invoke", block=False)
        grades.ended(call, None)
        grades.struck(call)
        grades._heard(SimpleNamespace(guard="other", after="closed", shadow=False))
        (book,) = grades._books.values()
        assert (book.struck, book.fallbacks, book.opened) == (0, 0, False)
        grades.look_at(stand.guard)
        assert list(grades._books.values()) == [book]


def test_what_listeners_hear_of_a_guard_is_noted_in_its_book():
    stand = Stand()
    with stand.chaos.grade() as grades:
        (book,) = grades._books.values()
        opened = object.__new__(BreakerChanged)
        for name, value in (("guard", "llm.invoke"), ("after", "open"), ("shadow", True)):
            object.__setattr__(opened, name, value)
        grades._heard(opened)
        assert not book.opened
        object.__setattr__(opened, "shadow", False)
        grades._heard(opened)
        assert book.opened
        used = object.__new__(FallbackUsed)
        object.__setattr__(used, "guard", "llm.invoke")
        grades._heard(used)
        assert book.fallbacks == 1


def test_a_grader_that_was_not_entered_leaves_without_a_listener():
    stand = Stand()
    grades = stand.chaos.grade()
    assert isinstance(grades, Grader)
    grades.__exit__(None, None, None)
    assert len(grades) == 0


class Graded:
    """A grader, the book of its guard with what was judged in it, and a call that is open."""

    def __init__(self):
        self.grades = Stand().chaos.grade()
        self.judged = []
        self.book = SimpleNamespace(
            guard=SimpleNamespace(name="db"),
            judged=lambda now, *, bad: self.judged.append(bad),
            paused=lambda attempts, passed, *, measured: None,
            truncations=[],
        )
        self.grades._books["db"] = self.book
        self.known = self.opened()

    def opened(self, around=None):
        call = SimpleNamespace(guard="db", block=False)
        known = grading._Open(self.grades, call, grading._Work("db"), around)
        self.grades._open[id(call)] = known
        return known


def test_an_attempt_that_told_nothing_of_its_end_was_a_bad_one_when_another_follows():
    graded = Graded()
    graded.grades._again(graded.book, graded.known.work, 1.0)
    assert graded.judged == [True]


def test_a_call_that_broke_off_behind_its_first_item_is_bad_and_may_be_asked_again():
    graded = Graded()
    graded.grades.ended(graded.known.call, None)
    graded.grades._over(graded.known, Outcome.BAD, 2.0)
    assert graded.judged == [False, True]
    assert (graded.known.work.failed, graded.known.work.running) == (True, False)
    assert graded.grades._open == {}


def test_a_truncation_is_handed_to_the_call_around_and_noticed_when_that_fails():
    graded = Graded()
    inner = graded.opened(graded.known)
    inner.kinds.add("stream_truncate")
    graded.grades._over(inner, Outcome.GOOD, 1.0)
    (truncation,) = graded.book.truncations
    assert graded.known.truncations == [truncation]
    assert not truncation.noticed
    graded.grades._over(graded.known, Outcome.BAD, 2.0)
    assert truncation.noticed


def test_what_ends_in_another_context_than_it_began_in_leaves_that_one_alone():
    import contextvars

    graded = Graded()
    graded.known.token = contextvars.copy_context().run(grading._around.set, graded.known)
    graded.known.step_out()
    assert graded.known.token is None
    assert grading._around.get() is None


def test_plans_in_flight_strike_guards_that_are_made_meanwhile_unless_they_are_over_or_of_requests():
    stand, armed = Stand(), []
    desk = stand.chaos.requests
    run_of = [
        SimpleNamespace(over=False, config=SimpleNamespace(on_http=False)),
        SimpleNamespace(over=True, config=SimpleNamespace(on_http=False)),
        SimpleNamespace(over=False, config=SimpleNamespace(on_http=True)),
    ]
    desk._in_flight = (SimpleNamespace(runs=run_of),)
    desk.guard_added(stand.guard, lambda made, guard: armed.append((made, guard)))
    assert armed == [(run_of[0], stand.guard)]
