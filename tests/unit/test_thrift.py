"""Budget awareness at guards: retry budgets shrink while the error budget of an objective burns."""

from __future__ import annotations

from datetime import timedelta

import pytest

from somaresil import SLO, ConfigurationError, ManualClock, Resilience, Retry, RetryBudget, Throttle
from somaresil.events import DefectFound
from tests.behaviour.kit import Boom
from tests.unit.policy.kit import Script


def service():
    """A process with an objective of 90 %, and a guard that is aware of it."""
    resilience = Resilience("tests", clock=ManualClock(), seed=1)
    resilience.slos.add(SLO("up", 90.0, timedelta(hours=1)))
    budget = RetryBudget(0.0, floor=10.0)
    guard = resilience.guard("call", slo="up", budget_aware="up", retry=Retry(attempts=2, wait=0.0, budget=budget))
    return resilience, guard, budget


def test_it_shrinks_with_the_budget_and_is_shown():
    """Untouched all hundred attempts are there; overspent a tenth of them."""
    resilience, guard, _ = service()
    assert resilience.snapshot().guards["call"].budget_scale == 1.0
    script = Script(Boom())
    for _ in range(120):
        with pytest.raises(Boom):
            guard.call(script)
        resilience.clock.advance(1e-3)
    assert guard.retry.decisions()["made"] > 90
    resilience.clock.advance(60.0)
    assert resilience.snapshot().guards["call"].budget_scale == pytest.approx(0.1)
    made = guard.retry.decisions()["made"]
    for _ in range(50):
        with pytest.raises(Boom):
            guard.call(script)
    assert guard.retry.decisions()["made"] - made == 9


def test_it_looks_once_a_second():
    """However often it is asked."""
    resilience, guard, _ = service()
    looks = []
    read = resilience.slos.error_budget
    resilience.slos.error_budget = lambda name: looks.append(name) or read(name)
    for _ in range(10):
        assert guard.budget_scale == 1.0
        resilience.clock.advance(0.25)
    assert looks == ["up"] * 3


def test_a_budget_that_cannot_be_read_takes_nothing_away():
    """It is reported, and the last scale stands."""
    resilience, guard, _ = service()
    events = []
    resilience.on(events.append, DefectFound)
    resilience.slos.error_budget = lambda name: 1 / 0
    assert guard.budget_scale == 1.0
    assert [event.where for event in events] == ["reading the budget of up"]


def test_guards_are_aware_of_nothing_unless_told():
    """The snapshot says None."""
    resilience, _, _ = service()
    resilience.guard("other")
    assert resilience.snapshot().guards["other"].budget_scale is None


def test_the_objective_must_be_there_and_stays():
    """A misspelt name is told with the near one; it is not changed later."""
    resilience, guard, _ = service()
    with pytest.raises(ConfigurationError, match=r"budget_aware = 'upp'.*did you mean 'up'"):
        resilience.guard("other", budget_aware="upp")
    with pytest.raises(ConfigurationError, match="budget_aware = 7"):
        resilience.guard("other", budget_aware=7)
    with pytest.raises(ConfigurationError, match="set it when the guard is made"):
        guard.configure(budget_aware=None)


def test_a_throttle_sheds_more_while_the_budget_burns():
    """Its factor of two shrinks towards one: with three accepts in five requests none is refused before, and some are then."""
    resilience = Resilience("tests", clock=ManualClock(), seed=1)
    resilience.slos.add(SLO("up", 90.0, timedelta(hours=1)))
    guard = resilience.guard("call", slo="up", budget_aware="up", throttle=Throttle())
    for number in range(20):
        if number % 5 < 3:
            guard.call(int)
        else:
            with pytest.raises(Boom):
                guard.call(Script(Boom()))
    assert resilience.slos.error_budget("up").remaining < 0.0
    resilience.clock.advance(1.0)
    assert guard.throttle.probability == pytest.approx((20 - 1.1 * 12) / 21)
    other = resilience.guard("other", throttle=Throttle())
    for _ in range(12):
        other.call(int)
    assert other.throttle.probability == 0.0
