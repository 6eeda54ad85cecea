"""A drill strikes everything that the vocabulary has, in every blast radius, and a seed decides the rest."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.chaos import vocabulary
from somaresil.chaos.capabilities import capabilities
from somaresil.chaos.plan import ChaosPlan
from somaresil.chaos.vocabulary import FAULTS, Fault, Realm, Takes
from somaresil.drill import plan as module
from somaresil.drill.plan import IN_PROCESS, RESOURCES, SITES, plan_of, uncovered
from somaresil.drill.topology import RADII, candidates, instances
from somaresil.model.selector import is_chosen

VARIANTS = {site.variant for site in SITES}


def test_every_kind_is_struck_in_every_realm():
    assert uncovered() == []


@pytest.mark.parametrize("realm", Realm)
def test_a_kind_that_is_new_in_the_vocabulary_is_missed(monkeypatch, realm):
    """Whoever adds one has to say where the drill strikes with it."""
    monkeypatch.setattr(module, "FAULTS", {**FAULTS, "new": Fault("is new", {realm: Takes()})})
    assert [each.partition(" ")[0] for each in uncovered()] == ["new"]


def test_a_kind_in_a_new_realm_is_missed(monkeypatch):
    wider = Fault(FAULTS["lost_reply"].does, {**FAULTS["lost_reply"].realms, Realm.HTTP: Takes()})
    monkeypatch.setattr(module, "FAULTS", {**FAULTS, "lost_reply": wider})
    assert uncovered() == ["lost_reply on http:"]


def test_every_capability_is_tried():
    """The list of resources is that of the engine, and so are the ways to cut a network off."""
    named = {name for name in capabilities() if name != "network_partition.existing"}
    assert named == {site.capability for site in SITES if site.capability is not None}
    assert {f"resource_exhaust.{name}" for name in RESOURCES} == {name for name in named if name.startswith("resource")}


@given(st.integers(0, 2**32))
def test_every_variant_comes_in_every_radius_before_anything_comes_twice(seed):
    strikes = plan_of(seed, 3 * len(VARIANTS))
    assert Counter((strike.site.variant, strike.radius) for strike in strikes) == {
        (each, radius): 1 for each in VARIANTS for radius in RADII
    }
    more = plan_of(seed, 3 * len(SITES))
    assert set(Counter((strike.site, strike.radius) for strike in map(_hashable, more)).values()) == {1}


class _Hashable:
    def __init__(self, strike):
        self.site = (strike.site.role, strike.site.kind, strike.site.target, str(strike.site.options))
        self.radius = strike.radius


def _hashable(strike):
    return _Hashable(strike)


def test_two_hundred_faults_are_more_than_all_variants_in_all_radii():
    assert len(plan_of(7, 210)) == 210 >= 3 * len(VARIANTS)


@given(st.integers(0, 2**32), st.integers(1, 500))
def test_the_same_seed_makes_the_same_plan(seed, count):
    strikes = plan_of(seed, count)
    assert strikes == plan_of(seed, count)
    assert [strike.number for strike in strikes] == list(range(1, count + 1))
    assert len({strike.name for strike in strikes}) == count


def test_other_seeds_make_other_plans():
    assert len({tuple(strike.name for strike in plan_of(seed, 50)) for seed in range(20)}) == 20


def test_without_processes_nothing_of_a_process_is_struck():
    strikes = plan_of(7, 201, processes=False)
    assert not any(strike.site.realm in IN_PROCESS for strike in strikes)
    kinds = {kind for kind, fault in FAULTS.items() if fault.realms.keys() - IN_PROCESS}
    assert {strike.site.kind for strike in strikes} == kinds


def test_every_strike_is_a_plan_that_the_engine_reads():
    for strike in plan_of(3, 3 * len(SITES)):
        read = ChaosPlan.from_dict(strike.plan({"redis": 6379}))
        (window,) = read.windows
        assert (window.kind, window.duration, window.blast_radius) == (strike.site.kind, strike.lease, strike.radius)


def test_each_arming_draws_anew():
    strike = plan_of(3, 1)[0]
    assert strike.plan({"redis": 1})["seed"] != strike.plan({"redis": 1}, again=1)["seed"]


@pytest.mark.parametrize("role", ["gateway", "worker", "tools", "memory"])
def test_the_three_radii_are_three_different_sets(role):
    """One of three, two of three, all three; the engine of each instance decides by the same function."""
    mine = [each for each in instances() if each.role == role]
    members = {"single_instance": lambda each: each.name, "zone": lambda each: each.zone, "region": lambda each: each.region}
    found = {radius: [each for each in mine if is_chosen("k", members[radius](each), candidates(role, radius))] for radius in RADII}
    assert [len(found[radius]) for radius in RADII] == [1, 2, 3]


def test_the_vocabulary_is_the_one_of_the_engine():
    assert module.FAULTS is vocabulary.FAULTS
