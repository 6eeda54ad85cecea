"""Each stop condition by itself: what it asks, from when on it says stop, in which words, and when it is asked at all."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from types import SimpleNamespace

import pytest

from somaresil import ConfigurationError, ManualClock
from somaresil.chaos.conditions import (
    BreakerOpen,
    BudgetBelow,
    BurnRateAbove,
    ChaosBudgetSpent,
    Condition,
    Watched,
    World,
    as_condition,
)
from somaresil.config import Checker
from somaresil.model.breaker import State


class Book:
    """Objectives that say what a test has written down."""

    names = ("api", "jobs")

    def __init__(self):
        self.burn = self.left = None
        self.chaos = (None, 0)
        self.counts = {True: (0, 0), False: (0, 0)}
        self.asked = []

    def burn_rate(self, name, window):
        self.asked.append((name, window))
        return self.burn

    def remaining_share(self, name):
        self.asked.append(name)
        return self.left

    def chaos_budget(self, name):
        self.asked.append(name)
        return self.chaos

    def totals(self, name, *, injected):
        return self.counts[injected]

    def target_percentage(self, name):
        return {"api": 50.0}[name]


class Scene:
    """A world, and an experiment that notes what has ended it."""

    def __init__(self):
        self.clock, self.book, self.guards, self.defects = ManualClock(), Book(), {}, []
        listeners = SimpleNamespace(defect=lambda *facts: self.defects.append(facts))
        self.world = World(self.clock, lambda: self.guards, self.book, listeners)
        self.run = SimpleNamespace(begun=True, end_reason=None, end=self.end)
        self.ended = []

    def end(self, reason, detail):
        self.ended.append((reason, detail))
        self.run.end_reason = reason

    def watched(self, ask, **options):
        return Watched(Condition("probe", ask, **options), self.run, self.world)


@pytest.fixture
def scene():
    return Scene()


def wrong(make):
    with pytest.raises(ConfigurationError) as caught:
        make()
    return [problem.path for problem in caught.value.problems]


# -- what is taken ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "paths"),
    [
        (lambda: Condition("a b", 5, slow=1), ["Condition.ask", "Condition.slow", "Condition.name"]),
        (lambda: Condition("x", len, interval=0.04, max_age=0.0), ["Condition.interval", "Condition.max_age"]),
        (lambda: Condition("x", len, interval=3_601.0, max_age=86_401.0), ["Condition.interval", "Condition.max_age"]),
        (lambda: Condition("x", len, interval=5.0, max_age=5.0), ["Condition.max_age"]),
        (
            lambda: BurnRateAbove("a b", -0.1, window=299.0, minimum_events=0),
            [f"BurnRateAbove.{name}" for name in ("slo", "limit", "window", "minimum_events")],
        ),
        (lambda: BurnRateAbove("x", 1.0, injected="no", window=4.0), ["BurnRateAbove.window", "BurnRateAbove.injected"]),
        (lambda: BurnRateAbove("x", 1.0, window=90 * 86_400.0 + 1.0), ["BurnRateAbove.window"]),
        (lambda: BudgetBelow("a b", 1.1, interval=0.0), ["BudgetBelow.slo", "BudgetBelow.share", "BudgetBelow.interval"]),
        (
            lambda: ChaosBudgetSpent("a b", minimum_events=0, max_age=0.5),
            ["ChaosBudgetSpent.slo", "ChaosBudgetSpent.minimum_events", "ChaosBudgetSpent.max_age"],
        ),
        (lambda: BreakerOpen("a b", -1.0, interval=-1), ["BreakerOpen.guard", "BreakerOpen.longer_than", "BreakerOpen.interval"]),
    ],
)
def test_every_mistake_in_a_condition_is_named_at_once(make, paths):
    assert wrong(make) == paths


def test_the_ends_of_what_is_allowed_are_taken_and_kept_as_seconds():
    longest = Condition("x", len, interval=3_600, max_age=86_400)
    assert (longest.interval, longest.max_age, type(longest.interval), type(longest.max_age)) == (3_600.0, 86_400.0, float, float)
    assert Condition("x", len, interval=0.05, max_age=0.06).interval == 0.05
    assert BurnRateAbove("x", 0.0, window=300).window == 300.0
    assert BurnRateAbove("x", 0.0, window=5, injected=False).window == 5.0
    assert BurnRateAbove("x", 0.0, window=90 * 86_400).minimum_events == 10
    assert type(BreakerOpen("x", 0).longer_than) is float


def test_conditions_are_called_by_what_they_look_at_and_are_quick():
    four = [BurnRateAbove("api", 1.0), BudgetBelow("api", 0.1), ChaosBudgetSpent("api"), BreakerOpen("db", 1.0)]
    assert [each.name for each in four] == ["burn rate of api", "budget of api", "chaos budget of api", "breaker of db"]
    assert [each.slow for each in four] == [False] * 4


@pytest.mark.parametrize("condition", [BurnRateAbove("apo", 1.0), BudgetBelow("apo", 0.1), ChaosBudgetSpent("apo")])
def test_an_objective_that_is_not_there_is_named_with_those_that_are(scene, condition):
    check = Checker("x")
    condition.check(check, scene.world)
    condition.check(check, scene.world._replace(objectives=None))
    assert [(problem.path, problem.value, problem.hint) for problem in check.problems] == [
        ("x.stop_when", "apo", "did you mean 'api'?"),
        ("x.stop_when", "apo", ""),
    ]
    assert "(api, jobs)" in check.problems[0].allowed
    assert "(none is defined)" in check.problems[1].allowed
    with pytest.raises(LookupError, match="no objectives"):
        condition.watch(scene.world._replace(objectives=None))()


def test_an_objective_and_a_breaker_that_are_there_are_no_problem(scene):
    check = Checker("x")
    scene.guards.update(db=SimpleNamespace(breaker=object()), bare=SimpleNamespace(breaker=None))
    for condition in (BurnRateAbove("api", 1.0), BudgetBelow("jobs", 0.1), ChaosBudgetSpent("api"), BreakerOpen("db", 1.0)):
        condition.check(check, scene.world)
    Condition("x", len).check(check, scene.world)
    assert check.problems == ()
    BreakerOpen("dbb", 1.0).check(check, scene.world)
    BreakerOpen("bare", 1.0).check(check, scene.world)
    assert [(problem.path, problem.value, problem.hint) for problem in check.problems] == [
        ("x.stop_when", "dbb", "did you mean 'db'?"),
        ("x.stop_when", "bare", ""),
    ]


# -- what is answered ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "answer"), [(True, True), (False, False), (None, None), ("hot", "hot"), ("", False)])
def test_an_answer_is_yes_no_a_text_or_nothing(scene, said, answer):
    assert Condition("x", lambda: said).watch(scene.world)() is answer


@pytest.mark.parametrize("said", [0, 1, 1.5, b"hot", []])
def test_what_is_no_answer_is_an_error_that_says_what_it_was(scene, said):
    with pytest.raises(TypeError, match=f"not {type(said).__name__}"):
        Condition("x", lambda: said).watch(scene.world)()


def test_a_burn_rate_above_its_limit_says_stop_and_one_at_it_does_not(scene):
    ask = BurnRateAbove("api", 3.0, window=600.0).watch(scene.world)
    assert ask() is None
    scene.book.burn = 3.0
    assert ask() is False
    scene.book.burn = 3.5
    assert ask() == "3.5 times too fast, limit 3"
    assert scene.book.asked == [("api", 600.0)] * 3


@pytest.mark.parametrize("injected", [True, False])
def test_a_burn_rate_since_the_beginning_counts_from_there_and_over_its_window_only(scene, injected):
    counts = scene.book.counts
    counts[injected] = (100, 100)
    ask = BurnRateAbove("api", 1.0, injected=injected, window=300.0).watch(scene.world)
    assert ask() is None
    counts[injected] = (104, 105)
    assert ask() is None, "nine events are too few"
    counts[injected] = (105, 105)
    scene.clock.advance(1.0)
    assert ask() is False, "as fast as may be"
    counts[injected] = (105, 115)
    scene.clock.advance(1.0)
    assert ask() == "1.5 times too fast, limit 1"
    counts[injected] = (205, 115)
    scene.clock.advance(299.0)
    assert ask() is False, "the good ones have come since"
    scene.clock.advance(300.0)
    assert ask() is None, "whatever was is out of the window"


def test_a_burn_rate_remembers_its_window_in_three_hundred_steps_however_often_it_is_asked(scene):
    ask = BurnRateAbove("api", 1.0, injected=True, window=300.0).watch(scene.world)
    (samples,) = [cell.cell_contents for cell in ask.__closure__ if isinstance(cell.cell_contents, deque)]
    for _ in range(1_300):
        scene.clock.advance(0.25)
        ask()
    assert len(samples) == 301
    scene.clock.advance(1_000.0)
    ask()
    assert len(samples) == 2, "the last one before the window, and the one of now"


def test_a_budget_below_its_share_says_stop_and_one_at_it_does_not(scene):
    ask = BudgetBelow("api", 0.25).watch(scene.world)
    assert ask() is None
    scene.book.left = 0.25
    assert ask() is False
    scene.book.left = 0.125
    assert ask() == "12.5% left, less than 25.0%"
    assert scene.book.asked == ["api"] * 3


def test_a_chaos_budget_is_spent_when_enough_events_say_that_nothing_is_left(scene):
    ask = ChaosBudgetSpent("api").watch(scene.world)
    answers = []
    for scene.book.chaos in ((None, 50), (0.0, 9), (0.0, 10), (-0.5, 50), (0.5, 50)):
        answers.append(ask())
    assert answers == [False, False, "0.0% of it left", "-50.0% of it left", False]
    assert scene.book.asked == ["api"] * 5


@pytest.mark.parametrize("state", [State.OPEN, State.HALF_OPEN, State.FORCED_OPEN])
def test_a_breaker_says_stop_when_it_has_not_served_for_longer_without_a_break(scene, state):
    breaker = SimpleNamespace(state=State.CLOSED)
    ask = BreakerOpen("db", 5.0).watch(scene.world)
    assert ask() is None, "there is no guard"
    scene.guards["db"] = SimpleNamespace(breaker=None)
    assert ask() is None, "there is no breaker"
    scene.guards["db"].breaker = breaker
    assert ask() is False
    scene.clock.advance(100.0)
    breaker.state = state
    assert ask() is False
    scene.clock.advance(4.0)
    breaker.state = State.CLOSED
    assert ask() is False
    breaker.state = state
    assert ask() is False
    scene.clock.advance(5.0)
    assert ask() is False
    scene.clock.advance(0.5)
    assert ask() == f"{state.value} for 5.5 s"


# -- functions as conditions --------------------------------------------------------------------------------------------------------------


def test_a_function_is_a_condition_by_its_name_and_a_condition_is_itself():
    def queue_is_long():
        return False

    assert as_condition(queue_is_long) == Condition("queue_is_long", queue_is_long)
    assert as_condition(lambda: False).name == "_lambda_"
    assert as_condition(partial(int)).name == "partial"
    queue_is_long.__name__ = "a.b" * 50
    assert as_condition(queue_is_long).name == ("a.b" * 50)[:120]
    queue_is_long.__name__ = ""
    assert as_condition(queue_is_long).name == "function"
    condition = BudgetBelow("api", 0.1)
    assert as_condition(condition) is condition


# -- when it is asked ---------------------------------------------------------------------------------------------------------------------


def test_it_is_asked_from_the_beginning_to_the_end_and_once_an_interval(scene):
    asked = []
    watched = scene.watched(lambda: asked.append(scene.clock.monotonic()) or False, interval=2.0)
    scene.run.begun = False
    watched.look(in_call=True)
    assert asked == []
    scene.run.begun = True
    for seconds in (0.0, 1.5, 0.5, 1.5, 3.0):
        scene.clock.advance(seconds)
        watched.look(in_call=True)
    assert [at - asked[0] for at in asked] == [0.0, 2.0, 6.5]
    scene.run.end_reason = "stopped"
    scene.clock.advance(10.0)
    watched.look(in_call=False)
    assert len(asked) == 3
    assert scene.ended == []


@pytest.mark.parametrize(("said", "why"), [(True, "it is so"), ("hot", "hot"), ("x" * 300, "x" * 200)])
def test_what_says_stop_ends_the_experiment_by_its_name_and_in_its_words(scene, said, why):
    watched = scene.watched(lambda: said)
    assert watched.answer() == why
    watched.look(in_call=True)
    assert scene.ended == [("condition probe", why)]


def test_what_raises_ends_the_experiment_and_its_words_are_cut(scene):
    def broken():
        raise OSError("x" * 300)

    scene.watched(broken).look(in_call=False)
    ((reason, why),) = scene.ended
    assert reason == "condition probe"
    assert why.startswith("it raised OSError: xxx")
    assert len(why) == len("it raised ") + 200


def test_what_knows_nothing_ends_the_experiment_only_after_its_age(scene):
    said = [None]
    watched = scene.watched(lambda: said[0], max_age=30.0)
    watched.check_age()
    watched.look(in_call=True)
    scene.clock.advance(20.0)
    said[0] = False
    watched.look(in_call=True)
    said[0] = None
    scene.clock.advance(30.0)
    watched.look(in_call=True)
    watched.check_age()
    assert scene.ended == []
    scene.clock.advance(1.0)
    watched.check_age()
    assert scene.ended == [("condition probe", "nothing is known for 31 s, limit 30 s")]


def test_a_slow_one_is_asked_in_no_call(scene):
    asked = []
    watched = scene.watched(lambda: asked.append(1) and False, slow=True)
    watched.look(in_call=True)
    assert asked == []
    watched.look(in_call=False)
    assert asked == [1]


@pytest.mark.parametrize(("took", "slow"), [(0.05, False), (0.0625, True)])
def test_one_that_took_too_long_is_slow_from_then_on_and_that_is_reported_once(scene, monkeypatch, took, slow):
    times = iter([0.0, took, 1.0, 9.0])
    monkeypatch.setattr("somaresil.chaos.conditions.time.monotonic", lambda: next(times))
    watched = scene.watched(lambda: False)
    watched.look(in_call=True)
    assert watched.slow is slow
    if slow:
        ((where, error, at, consequence),) = scene.defects
        assert (where, str(error), type(error)) == ("stop condition probe", "0.0625 s for an answer", TimeoutError)
        assert (at, consequence) == (scene.clock.time(), "calls do not ask it any more")
        scene.clock.advance(5.0)
        watched.look(in_call=False)
        assert len(scene.defects) == 1
    else:
        assert scene.defects == []


def test_one_that_comes_by_itself_is_not_asked_again_while_it_is_asked(scene):
    asked = []

    def ask():
        asked.append(1)
        scene.clock.advance(5.0)
        if len(asked) < 3:
            watched.look(in_call=True)
        return False

    watched = scene.watched(ask)
    watched.look(in_call=True)
    assert asked == [1]
    watched.look(in_call=True)
    assert asked == [1, 1], "and it is asked again afterwards"


def test_a_fork_asks_though_a_thread_that_stayed_behind_was_asking(scene):
    asked = []
    watched = scene.watched(lambda: asked.append(1) and False)
    watched._asking = True
    holder = threading.Thread(target=watched._lock.acquire)
    holder.start()
    holder.join(10.0)
    watched.look(in_call=True)
    assert asked == []
    watched.forget_lock()
    watched.look(in_call=True)
    assert asked == [1]


def test_a_burn_rate_that_nobody_knows_says_nothing(scene):
    scene.book.burn = None
    assert BurnRateAbove("api", 2.0).watch(scene.world)() is None


def test_a_budget_that_nobody_knows_says_nothing(scene):
    scene.book.left = None
    assert BudgetBelow("api", 0.5).watch(scene.world)() is None


def test_a_breaker_that_is_gone_says_nothing(scene):
    ask = BreakerOpen("db", longer_than=1.0).watch(scene.world)
    assert ask() is None
    scene.guards["db"] = SimpleNamespace(breaker=None)
    assert ask() is None


def test_without_objectives_there_is_none_to_ask_and_the_refusal_says_so(scene):
    world = World(scene.clock, dict, None, None)
    with pytest.raises(LookupError, match="no objectives"):
        BudgetBelow("api", 0.5).watch(world)
    check = Checker("chaos")
    BudgetBelow("api", 0.5).check(check, world)
    assert [problem.allowed for problem in check.problems] == ["an objective that was added (none is defined)"]


def test_old_samples_of_a_burn_rate_are_forgotten_with_the_window(scene):
    ask = BurnRateAbove("api", 1.5, window=60.0, injected=False, minimum_events=1).watch(scene.world)
    scene.book.counts[False] = (0, 100)
    ask()
    for _ in range(3):
        scene.clock.advance(40.0)
        scene.book.counts[False] = (scene.book.counts[False][0] + 10, 100)
        answer = ask()
    # The hundred bad ones were before all of it.
    assert answer is False


def test_a_condition_that_is_being_asked_by_another_thread_is_not_asked_and_its_age_still_counts(scene):
    asked = []
    watched = Watched(Condition("mine", lambda: asked.append(True), max_age=10.0), scene.run, scene.world)
    watched._lock = SimpleNamespace(acquire=lambda blocking: False)
    watched.look(in_call=True)
    assert asked == []
    scene.clock.advance(11.0)
    watched.look(in_call=True)
    assert asked == []
    ((reason, detail),) = scene.ended
    assert reason == "condition mine"
    assert detail == "nothing is known for 11 s, limit 10 s"
