"""Control against experiment: who is in which group, that no fault leaves its group, and what is concluded."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import pytest

from somaresil import CircuitBreaker, ConfigurationError, FaultWindow, ResilienceMiddleware
from somaresil.chance import Chance
from somaresil.chaos import scope
from somaresil.chaos.split import Side, Split
from somaresil.gameday import Figures, Groups, Judgement, Probe, Status, Tally
from somaresil.gameday.groups import compare
from somaresil.priority import priority
from tests.unit.gameday.kit import World, experiment

ALL = FaultWindow("llm.invoke", "error", 0, 60)
ANY = Probe("ratio", "*", minimum=0.0)


def split(share=0.2, by="request", seed=1, tell=None):
    return Split("s", share, by, Chance(seed), tell)


# -- who is in which group ----------------------------------------------------------------------------------------------------------------


def test_a_key_is_always_in_the_same_group():
    """In every process with the same seed; the shares are those asked for, and equal."""
    keys = [f"user-{number}" for number in range(20_000)]
    sides = Counter(split().side_of(key) for key in keys)
    assert [split().side_of(key) for key in keys] == [split().side_of(key) for key in keys]
    assert sides[Side.EXPERIMENT] == pytest.approx(4_000, abs=250)
    assert sides[Side.CONTROL] == pytest.approx(4_000, abs=250)
    assert [split(seed=2).side_of(key) for key in keys] != [split().side_of(key) for key in keys]


def test_the_calls_of_one_request_stay_together():
    """By the outermost scope, by the tenant; what has no key is in neither group."""
    by_request, by_tenant = split(0.5), split(0.5, by="tenant")
    for name in ("a", "b", "c", "d", "e"):
        with scope(name):
            side = by_request.side
            with scope("inner"):
                assert by_request.side is side is by_request.side_of(name)
        with priority(tenant=name):
            assert by_tenant.side is by_tenant.side_of(name)
    assert by_request.side is by_tenant.side is split(0.5, by="header:x").side is Side.OUTSIDE


def requested(of, headers=(), *, spared=False):
    of.enter({"type": "http", "headers": list(headers)}, spared=spared)
    return of.side


def test_requests_are_grouped_by_id_number_or_header():
    """The same id is the same group; without one each request has a number of its own; health checks are in neither."""
    told = []
    one = split(0.5, tell=lambda *ended: told.append(ended))
    assert requested(one, [(b"x-request-id", b"r1")]) is one.side_of("r1")
    one.ended("http:/x", "good", 0.1, injected=False)
    one.ended("http:/x", "good", 0.1, injected=False)
    assert told == [("http:/x", "good", 0.1, False, one.side_of("r1"))]
    assert one.side is Side.OUTSIDE
    assert len({requested(one) for _ in range(50)}) == 2
    assert requested(one, spared=True) is Side.OUTSIDE
    by_header = split(0.5, by="header:X-User")
    assert requested(by_header, [(b"x-user", b"u")]) is by_header.side_of("u")
    assert requested(by_header) is Side.OUTSIDE


# -- in a game day ------------------------------------------------------------------------------------------------------------------------


def play(world, *, groups=None, fault=ALL, **options):
    given = {"hypothesis": [ANY], "groups": groups or Groups(0.3), **options}
    (report,) = world.play(experiment(fault, **given)).experiments
    return report


def test_only_the_experiment_group_is_struck():
    """Every one of its calls and none of the others; the difference is seen, and the service as a whole was hardly touched."""
    report = play(World(every=0.05, retry=None, breaker=None))
    groups = report.groups
    assert (report.status, groups.judgement) == (Status.DEVIATED, Judgement.DEVIATED)
    assert groups.experiment.good == 0
    assert groups.experiment.touched == groups.experiment.calls > 50
    assert (groups.control.touched, groups.control.good) == (0, groups.control.calls)
    assert groups.outside > 0
    assert groups.high < -0.9
    assert report.touched == groups.experiment.calls


def test_a_fault_that_is_absorbed_makes_no_difference():
    """Retries save the experiment group: it is shown to be no worse."""
    world = World(every=0.02, breaker=None, fallback=lambda: "cached")
    report = play(world, fault=FaultWindow("llm.invoke", "error", 0, 60, rate=0.5), groups=Groups(0.4))
    assert (report.status, report.groups.judgement) == (Status.HELD, Judgement.HELD)
    assert report.groups.experiment.touched > 0


def test_groups_that_share_a_circuit_are_told_apart_no_more():
    """It opens for both: the control group is touched, and nothing is concluded."""
    report = play(World(every=0.05, retry=None, breaker=CircuitBreaker(failure_rate=0.2, open_duration=5.0)))
    assert (report.status, report.groups.judgement) == (Status.UNPROVEN, Judgement.UNPROVEN)
    assert "the groups share a circuit or a limit" in report.groups.why


@pytest.mark.parametrize("fault", [FaultWindow("llm.invoke", "circuit_trip", 0, 5)])
def test_faults_that_strike_everybody_have_no_groups(fault):
    """They are refused before anything is done."""
    report = play(World(), fault=fault)
    assert report.status is Status.FAILED
    assert "the control group as well" in report.reasons[0]


def test_the_engine_keeps_one_pair_of_groups():
    """A second plan with groups is refused while the first runs, and taken afterwards."""
    from somaresil import ChaosPlan

    world = World()
    plan = ChaosPlan([ALL])
    run = world.resilience.chaos.arm_plan(plan, split=split())
    with pytest.raises(ConfigurationError, match="one pair of groups"):
        world.resilience.chaos.arm_plan(plan, split=split())
    run.stop()
    assert world.resilience.chaos.split is None
    assert world.resilience.chaos.http == ()
    second = world.resilience.chaos.arm_plan(plan, split=split())
    world.clock.advance(61.0)
    assert second.over
    assert world.resilience.chaos.runs == ()
    assert world.resilience.chaos.split is None


def test_requests_are_grouped_at_the_middleware_and_take_their_calls_along():
    """A fault on the guard strikes requests of the experiment group alone, faults on requests likewise; both are counted by route."""
    for target, name in (("llm.invoke", "http:/chat"), ("http:/chat", "http:/chat")):
        world = World(retry=None, breaker=None)

        async def app(received, receive, send, world=world):
            status = 200
            try:
                await world.guard.acall(world.answer)
            except Exception:
                status = 500
            await send({"type": "http.response.start", "status": status, "headers": []})
            await send({"type": "http.response.body", "body": b"x"})

        wrapped = ResilienceMiddleware(app, world.resilience)

        async def drive(world=world, wrapped=wrapped):
            async def receive():
                await asyncio.Event().wait()

            async def send(message):
                return None

            while True:
                for path in ("/chat", "/health"):
                    route = type("Route", (), {"path": path})()
                    request = {"type": "http", "path": path, "root_path": "", "headers": [], "method": "GET", "route": route}
                    with suppress(Exception):
                        await wrapped(request, receive, send)
                await asyncio.sleep(0.05)

        one = experiment(FaultWindow(target, "error", 0, 60), hypothesis=[ANY], groups=Groups(0.3, target=name))
        (report,) = world.play(one, drive=drive).experiments
        groups = report.groups
        assert groups.judgement is Judgement.DEVIATED, groups
        assert (groups.experiment.good, groups.control.touched) == (0, 0)
        assert groups.experiment.calls > 50
        assert groups.control.good == groups.control.calls > 50


# -- what is concluded --------------------------------------------------------------------------------------------------------------------


def judged(experiment, control, *, touched=0, **options):
    def tally(good, bad, touched=0):
        return Tally((1.0,), (good, 0), (bad, 0), touched=touched)

    counted = Figures(experiment={"llm": tally(*experiment)}, control={"llm": tally(*control, touched)})
    return compare(Groups(**options), counted, ("llm",)).judgement


def test_conclusions_rest_on_the_interval():
    """Not worse only when its lower end is within the tolerance, worse only when its upper end is not; in between nothing."""
    assert judged((1000, 0), (1000, 0)) is Judgement.HELD
    assert judged((800, 200), (1000, 0)) is Judgement.DEVIATED
    assert judged((95, 5), (99, 1)) is Judgement.UNPROVEN
    assert judged((950, 50), (990, 10), tolerance=0.1) is Judgement.HELD
    assert judged((19, 0), (1000, 0)) is Judgement.UNPROVEN
    assert judged((1000, 0), (1000, 0), touched=1) is Judgement.UNPROVEN
    assert judged((0, 0), (0, 0)) is Judgement.UNPROVEN


@pytest.mark.parametrize(
    "options", [{"share": 0.0}, {"share": 0.51}, {"by": "luck"}, {"by": "header:"}, {"tolerance": 2}, {"confidence": 1}]
)
def test_groups_that_cannot_be_are_refused(options):
    """With the field."""
    with pytest.raises(ConfigurationError) as refused:
        Groups(**options)
    assert {problem.path for problem in refused.value.problems} == set(options)
