"""Who calls, as everything called inside sees it, and limits that shed together."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from datetime import timedelta

import pytest

from somaresil import SLO, Bulkhead, BulkheadFull, ConfigurationError, LoadShed, ManualClock, Resilience, Timeout
from somaresil.events import DefectFound
from somaresil.model.priority import Load, Rank, Shedding
from somaresil.priority import CLASSES, Prioritizer, caller, enter, leave, priority
from tests.behaviour.kit import Boom
from tests.unit.kit import Visitor
from tests.unit.policy.kit import Script, wrong

# -- who calls ------------------------------------------------------------------------------------------------------------------------


def test_what_is_said_holds_inside_and_no_further():
    """Class and tenant; what is left out stays as it is around it."""
    assert caller() is None
    with priority("critical", tenant="acme"):
        assert caller() == (Rank.CRITICAL, "acme")
        with priority("low"):
            assert caller() == (Rank.LOW, "acme")
        with priority(tenant="other"):
            assert caller() == (Rank.CRITICAL, "other")
        assert caller() == (Rank.CRITICAL, "acme")
    with priority(tenant="acme"):
        assert caller() == (Rank.NORMAL, "acme")
    assert caller() is None


def test_it_holds_when_what_is_inside_fails():
    """An exception goes through, and what was before is back."""
    with pytest.raises(LookupError), priority("high"):
        raise LookupError
    assert caller() is None


@pytest.mark.parametrize(
    ("level", "tenant", "paths"), [("urgent", None, ["level"]), ("hihg", "", ["level", "tenant"]), (None, "x" * 121, ["tenant"])]
)
def test_what_is_no_class_and_no_tenant_is_named(level, tenant, paths):
    """All problems at once."""

    def say():
        with priority(level, tenant=tenant):
            raise AssertionError("not to be entered")

    assert wrong(say) == paths


def test_the_classes_are_five():
    """In their order, the highest first."""
    assert list(CLASSES) == ["critical", "high", "normal", "low", "background"]
    assert sorted(CLASSES.values(), reverse=True) == list(CLASSES.values())


def test_tasks_and_threads_see_it():
    """Those that get a copy of the context: tasks, ``asyncio.to_thread``, callees of a timeout that abandons them."""
    abandoning = Resilience("tests").guard("dependency", timeout=Timeout(60.0, abandon=True))

    async def main():
        with priority("high", tenant="acme"):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(asyncio.to_thread(caller))
            return task.result(), abandoning.call(lambda: (caller(), threading.current_thread().name))

    seen, (abandoned, thread) = asyncio.run(main())
    assert seen == abandoned == (Rank.HIGH, "acme")
    assert thread == "somaresil-timeout-dependency"


def test_leaving_in_another_context_is_no_error():
    """A generator that a framework runs piece by piece ends in another context than it began in."""
    import contextvars

    token = contextvars.Context().run(enter, (Rank.LOW, None))
    leave(token)
    assert caller() is None


# -- limits that shed together --------------------------------------------------------------------------------------------------------


class Shop:
    """Two limits with one prioritizer, on a clock that is moved by hand."""

    def __init__(self, **options) -> None:
        self.clock = ManualClock()
        self.resilience = Resilience("shop", clock=self.clock, seed=11)
        self.prioritizer = self.resilience.prioritizer(**options)
        self.busy = self._line("busy", 1, 4)
        self.idle = self._line("idle", 50, 4)

    def _line(self, name, limit, waiting):
        options = Bulkhead(limit, max_waiting=waiting, max_wait=600.0, prioritizer=self.prioritizer)
        return self.resilience.guard(name, bulkhead=options).bulkhead.line

    def overload(self) -> list[Visitor]:
        """Fill the line of the busy one."""
        return [Visitor(self.busy, level) for level in ("normal", "normal", "low", "low", "background", "background", "high")]

    def admitted(self, level: str, of: int = 40) -> int:
        """How many of so many calls the idle limit lets in."""
        count = 0
        for _ in range(of):
            visitor = Visitor(self.idle, level)
            if visitor.slot is not None:
                visitor.leave()
                count += 1
            else:
                assert isinstance(visitor.error, LoadShed)
        return count


def test_overload_of_one_sheds_the_least_important_at_all():
    """At the next look; critical calls come through everywhere, and a shed call stands in no line."""
    shop = Shop()
    shop.overload()
    assert (shop.prioritizer.rate, shop.admitted("background")) == (0.0, 40)
    shop.clock.advance(1.0)
    assert shop.admitted("critical") == 40
    assert shop.prioritizer.rate > 0.0
    lowest = shop.prioritizer.threshold
    assert shop.admitted("background") <= 40 * (1.0 - (lowest.share if lowest.rank is Rank.BACKGROUND else 1.0)) + 12
    for _ in range(6):
        shop.clock.advance(1.0)
        shop.overload()
    assert shop.prioritizer.threshold.rank > Rank.BACKGROUND
    assert shop.admitted("background") == 0
    assert shop.admitted("critical") == 40
    shed = Visitor(shop.idle, "background").error
    assert shed.detail == f"{shop.prioritizer.rate:.0%} of the calls are too much, background ones are shed"


def test_the_short_way_is_closed_while_anything_is_shed():
    """It would let calls in without asking; the long way asks once."""
    shop = Shop()
    shop.overload()
    shop.clock.advance(1.0)
    assert shop.prioritizer.sheds()
    assert shop.idle.try_enter() is None
    assert Visitor(shop.idle, "critical").slot is not None


def test_shedding_ends_when_all_are_calm():
    """Not at once, and not while one of them is still half full."""
    shop = Shop()
    visitors = shop.overload()
    shop.clock.advance(1.0)
    shop.prioritizer.sheds()
    rate = shop.prioritizer.rate
    for visitor in visitors:
        if visitor.waits and not visitor.woken:
            visitor.step()
    (inside,) = [visitor for visitor in visitors if visitor.slot is not None]
    inside.leave()
    shop.clock.advance(1.0)
    shop.prioritizer.sheds()
    assert shop.prioritizer.rate >= rate > 0.0
    for _ in range(80):
        shop.clock.advance(1.0)
        shop.prioritizer.sheds()
    assert shop.prioritizer.rate == 0.0
    assert shop.idle.try_enter() is not None


def test_an_hour_in_which_nobody_calls_is_forgiven():
    """The first call after it is not shed for what was before."""
    shop = Shop()
    visitors = shop.overload()
    shop.clock.advance(1.0)
    assert shop.prioritizer.sheds()
    for visitor in visitors:
        if visitor.waits and not visitor.woken:
            visitor.step()
    shop.busy.load()
    shop.clock.advance(3_600.0)
    assert Visitor(shop.idle, "background").slot is not None
    assert shop.prioritizer.rate == 0.0


def test_calls_that_are_shed_are_told_to_the_model_by_class(monkeypatch):
    """Once."""
    shop = Shop()
    shop.overload()
    for _ in range(8):
        shop.clock.advance(1.0)
        shop.overload()
    assert shop.admitted("background") == 0
    seen = []
    monkeypatch.setattr(Shedding, "observe", lambda model, loads, shed, intervals: seen.append(list(shed)))
    for _ in range(2):
        shop.clock.advance(1.0)
        shop.prioritizer.sheds()
    assert seen[0][Rank.BACKGROUND] >= 40
    assert seen[0][Rank.CRITICAL] == 0
    assert seen[1] == [0] * 5


def test_without_a_prioritizer_each_limit_acts_for_itself():
    """The one is full, the other lets everybody in."""
    clock = ManualClock()
    resilience = Resilience("shop", clock=clock)
    busy = resilience.guard("busy", bulkhead=1).bulkhead.line
    idle = resilience.guard("idle", bulkhead=50).bulkhead.line
    Visitor(busy)
    for _ in range(30):
        assert isinstance(Visitor(busy, "critical").error, BulkheadFull)
        clock.advance(1.0)
        assert Visitor(idle, "background").slot is not None


def test_nobody_is_asked_before_the_interval_is_over():
    """And a limit is asked once for each."""
    asked = []

    class Limiter:
        def load(self):
            asked.append(shop.clock.monotonic())
            return Load(0, 0, 0, 0, (0,) * 5)

    shop = Shop(interval=timedelta(seconds=5))
    limiter = Limiter()
    shop.prioritizer.add(limiter)
    begin = shop.clock.monotonic()
    for _ in range(120):
        shop.prioritizer.sheds()
        shop.clock.advance(0.25)
    assert [at - begin for at in asked] == [5.0, 10.0, 15.0, 20.0, 25.0]
    shop.prioritizer.remove(limiter)
    shop.clock.advance(5.0)
    shop.prioritizer.sheds()
    assert len(asked) == 5


def test_a_limit_that_is_taken_away_is_asked_no_more():
    """Also when it gets another prioritizer, or none."""
    shop = Shop()
    busy = shop.resilience.guards["busy"]
    assert len(shop.prioritizer._sources) == 2
    busy.configure(bulkhead=Bulkhead(1))
    assert len(shop.prioritizer._sources) == 1
    busy.configure(bulkhead=Bulkhead(1, prioritizer=shop.prioritizer))
    assert len(shop.prioritizer._sources) == 2
    busy.configure(bulkhead=None)
    assert len(shop.prioritizer._sources) == 1
    del shop.resilience._guards["idle"], shop.idle
    gc.collect()
    assert len(shop.prioritizer._sources) == 0


def test_what_a_limit_went_through_is_told_once():
    """Calls by class, what was refused, who waits."""
    shop = Shop()
    visitors = shop.overload()
    assert [visitor.error for visitor in visitors if visitor.error] != []
    load = shop.busy.load()
    assert (load.arrived, load.waiting, load.room) == (7, 4, 4)
    assert load.refused == 2
    assert load.ranks == (2, 2, 2, 1, 0)
    assert shop.busy.load() == (0, 0, 4, 4, (0, 0, 0, 0, 0))


def test_a_defect_sheds_nobody(monkeypatch):
    """It is reported once, and the calls go on."""
    shop = Shop()
    events = []
    shop.resilience.on(events.append, DefectFound)
    shop.overload()
    shop.clock.advance(1.0)
    assert shop.prioritizer.sheds()

    def broken(*args):
        raise RuntimeError("planted")

    monkeypatch.setattr(Shedding, "observe", broken)
    for _ in range(3):
        shop.clock.advance(1.0)
        assert Visitor(shop.idle, "background").slot is not None
    assert [event.where for event in events] == ["prioritizer"]


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        ({"interval": 0}, ["interval"]),
        ({"start": 0.0, "stop": -1}, ["start", "stop"]),
        ({"start": 1.0}, ["start"]),
        ({"start": 0.2, "stop": 0.2}, ["stop"]),
        ({"stop": "0.1"}, ["stop"]),
    ],
)
def test_wrong_options_of_a_prioritizer_are_named(options, paths):
    """All at once; start and stop are compared when both are right by themselves."""
    assert wrong(Resilience("tests").prioritizer, **options) == paths


def test_a_limit_takes_a_prioritizer_and_nothing_else():
    """What is given in its place is named."""
    assert wrong(Bulkhead, 1, prioritizer="shared") == ["prioritizer"]
    assert isinstance(Resilience("tests").prioritizer(), Prioritizer)


# -- budget awareness -----------------------------------------------------------------------------------------------------------------


def aware(bad: int) -> tuple:
    """A line for ten with three in it, and an objective of 90 % of which so many of 100 calls were bad."""
    resilience = Resilience("shop", clock=ManualClock(), seed=11)
    resilience.slos.add(SLO("up", 90.0, timedelta(hours=1)))
    guard = resilience.guard("call", slo="up")
    for number in range(100):
        with suppress(Boom):
            guard.call(Script(Boom() if number < bad else None))
    shared = resilience.prioritizer(budget_aware="up")
    line = resilience.guard("busy", bulkhead=Bulkhead(1, max_waiting=10, max_wait=600.0, prioritizer=shared)).bulkhead.line
    return resilience, shared, line


@pytest.mark.parametrize(("bad", "scale", "sheds"), [(0, 1.0, False), (10, 0.1, True)])
def test_a_burnt_budget_makes_a_line_that_was_no_overload_one(bad, scale, sheds):
    """Three of ten places are taken: below the half that is overload by default, above a tenth of that half."""
    resilience, shared, line = aware(bad)
    visitors = [Visitor(line, "normal") for _ in range(4)]
    resilience.clock.advance(1.0)
    assert shared.sheds() is sheds
    assert [visitor.waits for visitor in visitors] == [False, True, True, True]
    assert shared.budget_scale == pytest.approx(scale)


def test_what_is_not_aware_of_an_objective_has_no_scale():
    """The thresholds are what was said."""
    assert Resilience("tests").prioritizer().budget_scale is None


def test_an_objective_that_is_not_there_is_named():
    """With what would be near."""
    with pytest.raises(ConfigurationError, match="budget_aware"):
        Resilience("tests").prioritizer(budget_aware="up")
