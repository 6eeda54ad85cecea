"""How much of a fleet takes part when the same experiment is started everywhere, with nobody to coordinate it."""

from __future__ import annotations

import itertools

import pytest

from somaresil import ChaosConfig, ChaosExperiment, ConfigurationError
from somaresil.chaos.permission import Place
from somaresil.chaos.vetting import Vetting
from somaresil.events import ExperimentStarted
from somaresil.model.selector import is_in_share
from tests.unit.chaos.kit import ERROR, LATENCY, Stand

INSTANCES = tuple(f"gateway-{number}" for number in range(9))
ZONES = ("a", "b", "c")
REGIONS = ("eu", "us")


def fleet(seed=None):
    """Nine instances in three zones of two regions each; every process draws for itself."""
    return [
        Stand(instance=instance, zone=zone, region="eu" if zone != "c" else "us", seed=index if seed is None else seed)
        for index, (instance, zone) in enumerate(zip(INSTANCES, itertools.cycle(ZONES)))
    ]


def taking_part(stands, **options):
    return [stand for stand in stands if stand.arm(**options).selected]


def test_exactly_one_instance_of_the_fleet_takes_part():
    """Each process computes the same one, whatever its seed and however it lists them."""
    stands = fleet()
    for shift, stand in enumerate(stands):
        order = INSTANCES[shift:] + INSTANCES[:shift]
        stand.run = stand.arm(blast_radius="single_instance", candidates=order)
    (chosen,) = [stand for stand in stands if stand.run.selected]
    for stand in stands:
        assert stand.struck() == [stand is chosen]
        assert stand.guard.switch.quiet is (stand is not chosen)
        assert bool(stand.chaos.runs) is (stand is chosen)
        assert len(stand.told(ExperimentStarted)) == (stand is chosen)


@pytest.mark.parametrize(("radius", "candidates", "level"), [("zone", ZONES, "zone"), ("az", ZONES, "zone"), ("region", REGIONS, "region")])
def test_exactly_one_zone_or_region_takes_part(radius, candidates, level):
    """All its instances, and none of another."""
    stands = fleet()
    struck = taking_part(stands, blast_radius=radius, candidates=candidates)
    members = {getattr(stand.chaos.place, level) for stand in struck}
    assert len(members) == 1
    assert len(struck) == sum(getattr(stand.chaos.place, level) in members for stand in stands)


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (1 / 3, 3), (0.5, 4), (1.0, 9)])
def test_a_share_of_the_fleet_takes_part(share, count):
    """Rounded down, at least one, and the same ones in every process."""
    assert len(taking_part(fleet(), blast_share=share, candidates=INSTANCES)) == count


def test_a_share_of_a_fleet_that_nobody_has_listed_is_stable_under_churn():
    """Each draws by its own name: about the share of them, the others stay as they are, and of a larger share all of these are part."""
    names = [f"worker-{number}" for number in range(1_000)]

    def struck(share, fleet):
        return {name for name in fleet if is_in_share("error|llm.*", name, share)}

    tenth = struck(0.1, names)
    assert 60 < len(tenth) < 140
    assert struck(0.1, names[:500]) == tenth & set(names[:500])
    assert tenth < struck(0.3, names)
    stand = Stand(instance=min(tenth))
    assert stand.arm(blast_share=0.1).selected
    assert not Stand(instance=min(set(names) - tenth)).arm(blast_share=0.1).selected


def test_a_share_is_a_share():
    """None of the fleet is no blast radius."""
    with pytest.raises(ConfigurationError, match="blast_share"):
        Stand().arm(blast_share=0.0)


def test_experiments_are_spread_over_the_fleet():
    """Another component or another kind is another choice, so that not one instance gets them all."""
    stands = fleet()
    chosen = set()
    for number in range(20):
        name = f"guard{number}"
        for stand in stands:
            stand.resilience.guard(name)
            run = stand.arm(target=name, candidates=INSTANCES)
            if run.selected:
                chosen.add(stand.resilience.instance)
            stand.chaos.stop(run)
    assert len(chosen) > 4
    kinds = {kind: taking_part(fleet(), experiment=kind, target="llm.invoke", candidates=INSTANCES) for kind in (ERROR, LATENCY)}
    assert all(len(stands) == 1 for stands in kinds.values())


def test_a_new_instance_moves_no_running_choice_but_to_itself():
    """Scaling out in the middle of an experiment must not let a second old instance take part."""
    before = taking_part(fleet(), candidates=INSTANCES)[0].resilience.instance
    after = taking_part(fleet(), candidates=(*INSTANCES, "gateway-new"))
    assert [stand.resilience.instance for stand in after] in ([before], [])


def test_of_a_thousand_instances_one_takes_part_and_stays_it_while_others_come_and_go():
    """Each of them decides by itself, from its own list; only when the chosen one goes another takes its place, and the rest stay out."""
    names = [f"gateway-{number}" for number in range(1_000)]

    def chosen(candidates):
        listed = tuple(candidates)
        told = ChaosConfig(ChaosExperiment.ERROR_INJECTION, "llm.*", 0.1, 60.0, blast_radius="single_instance", candidates=listed)
        return [name for name in listed if Vetting(Place("gateway", name, None, None, "test"), dict, int, vars).selected(told)]

    (first,) = chosen(names)
    others = [name for name in names if name != first]
    assert chosen([*others[::2], first]) == [first], "half of the others have gone"
    later = chosen([*names, *(f"late-{number}" for number in range(20))])
    assert later == [first] or (len(later) == 1 and later[0].startswith("late-"))
    (second,) = chosen(others)
    assert second != first
    assert chosen([name for name in others if name.endswith(("1", "3", "5")) or name == second]) == [second]


def test_outside_the_blast_radius_nothing_is_armed():
    """The run says so, and is over."""
    stand = Stand(instance="gateway-0")
    run = stand.arm(candidates=["another"])
    assert (run.selected, run.live, run.end_reason, run.remaining) == (False, False, "outside the blast radius", 0.0)
    assert stand.guard.switch.quiet
    assert stand.chaos.history == ()
    assert stand.struck() == [False]
    assert run.rule("llm.invoke").strike() is None


@pytest.mark.parametrize("radius", ["single_instance", "zone", "region"])
def test_without_candidates_it_is_this_process(radius):
    """Somebody has started it here and nowhere else."""
    assert Stand().arm(blast_radius=radius).selected


def test_a_process_that_does_not_know_its_zone_stays_out():
    """Who is unknown is not in the blast radius."""
    assert not Stand(zone=None).arm(blast_radius="zone", candidates=ZONES).selected


def test_the_place_comes_from_the_environment_too(monkeypatch):
    """Orchestrators set variables."""
    monkeypatch.setenv("SOMARESIL_ZONE", "b")
    assert Stand().arm(blast_radius="zone", candidates=["b"]).selected


def test_those_outside_do_not_use_up_the_experiments_at_once():
    """There is nothing armed."""
    stand = Stand(instance="gateway-0")
    for _ in range(20):
        stand.arm(candidates=["another"])
    assert stand.arm().selected
