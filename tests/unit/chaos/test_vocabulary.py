"""The table of faults, and that everybody reads it."""

from __future__ import annotations

import dataclasses

import pytest

from somaresil import ChaosConfig, ChaosExperiment, ConfigurationError, FaultWindow
from somaresil.chaos import vocabulary
from somaresil.chaos.vocabulary import BOUNDS, FAULTS, KINDS, LONG_NAMES, PROCESS_KINDS, TRIGGERS, WHY_NOT, Realm, realm_of


def test_the_table_has_every_kind_and_no_other():
    """Those of the enumeration, by their values."""
    assert set(FAULTS) == {kind.value for kind in ChaosExperiment}
    assert {*KINDS, *PROCESS_KINDS} == set(FAULTS)


@pytest.mark.parametrize("model", [ChaosConfig, FaultWindow])
def test_every_option_of_the_table_can_be_given(model):
    """In code by its long name, in data by its short one; how often is for code alone."""
    names = {field.name for field in dataclasses.fields(model)}
    for fault in FAULTS.values():
        for takes in fault.realms.values():
            assert takes.needs <= takes.options
            for option in takes.options:
                assert (LONG_NAMES.get(option, option) if model is ChaosConfig else option) in names or option == "max_injections"


def test_no_option_is_left_out_of_the_table():
    """One that no kind takes would be refused everywhere."""
    told = {option for fault in FAULTS.values() for takes in fault.realms.values() for option in takes.options}
    of_all = {"target", "kind", "start", "duration", "rate", "blast_radius", "candidates", "_", *BOUNDS}
    given = {field.name for field in dataclasses.fields(FaultWindow)} - of_all
    assert given <= told
    assert set(TRIGGERS) <= told


@pytest.mark.parametrize(
    ("target", "realm"),
    [("llm.*", Realm.GUARD), ("http:/v1/*", Realm.HTTP), ("resource:memory", Realm.RESOURCE), ("net:10.0.0.0/8", Realm.NETWORK)],
)
def test_a_prefix_says_where_a_target_is(target, realm):
    """And what has none is a guard."""
    assert realm_of(target) is realm


TARGETS = {
    Realm.GUARD: "llm.*",
    Realm.STREAM: "llm.*",
    Realm.BREAKER: "llm.*",
    Realm.HTTP: "http:/x",
    Realm.RESOURCE: "resource:x",
    Realm.NETWORK: "net:x",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_kind_is_refused_where_it_cannot_strike(kind):
    """Of the target of a fault of the process, else of the kind."""
    fine = {TARGETS[realm] for realm in FAULTS[kind].realms}
    for target in set(TARGETS.values()) - fine:
        with pytest.raises(ConfigurationError) as caught:
            FaultWindow(target, kind, 0, 1)
        assert {problem.path for problem in caught.value.problems} & {"kind", "target"}


def test_which_guards_cannot_have_a_kind_is_said():
    """Streams need a generator, a trip needs a breaker."""
    assert set(WHY_NOT) == {kind for kind in FAULTS if FAULTS[kind].realms.keys() & {Realm.STREAM, Realm.BREAKER}}


def test_who_looks_at_an_option_is_said_where_it_is_refused():
    """A hint names the kinds."""
    with pytest.raises(ConfigurationError, match=r"it is for error, .*lost_reply, .*stream_cut"):
        FaultWindow("llm.*", "latency", 0, 1, delay=1, error="OSError")


def test_the_words_of_the_table_are_short():
    """They are cells of a table in the pages."""
    assert all(0 < len(fault.does) < 140 for fault in FAULTS.values())
    assert set(vocabulary.__all__) <= set(dir(vocabulary))
