"""The dashboard where it is rare: forks, threads that cannot be begun, questions nobody asks, and histories of other machines."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from array import array

import pytest

from somaresil import ChaosPlan, ConfigurationError, ManualClock, Resilience
from somaresil.config import Checker
from somaresil.dashboard import columns, commands, peers, sources
from somaresil.dashboard.aside import _settle
from somaresil.dashboard.commands import approved
from somaresil.dashboard.history import COLUMNS, Curve, History
from somaresil.dashboard.sources import Sources
from somaresil.events import DefectFound
from tests.unit.dashboard.test_exchange import NoThread
from tests.unit.slo.kit import availability, good

TOKEN = "a-token-of-the-tests-0123456789abcdef"


@pytest.fixture
def clock():
    return ManualClock(time=1_700_000_000.0)


@pytest.fixture
def service(clock):
    resilience = Resilience("gateway", environment="test", clock=clock, instance="one")
    resilience.guard("llm.invoke")
    return resilience


def defects(resilience):
    told = []
    resilience.on(told.append, DefectFound)
    return told


# -- sources --------------------------------------------------------------------------------------------------------------------------


def test_who_performs_commands_is_a_function(service):
    """Anything else is refused before a command comes."""
    with pytest.raises(ConfigurationError, match="a function of a command and an actor"):
        Sources(service, perform="stop")


def test_a_second_start_starts_nothing(service):
    """The threads are those of the first."""
    made = Sources(service)
    made.start()
    threads = {*threading.enumerate()}
    made.start()
    assert {*threading.enumerate()} == threads


def test_a_child_of_a_fork_has_a_socket_of_its_own(service, tmp_path):
    """And without a folder it needs none."""
    made = Sources(service, workers=tmp_path / "w")
    made.start()
    before = made._exchange.name
    made.before_fork()
    made.after_fork_in_child()
    assert made._exchange.name != before
    alone = Sources(service)
    alone.start()
    alone.before_fork()
    alone.after_fork_in_child()
    assert alone._exchange is None
    assert asyncio.run(alone.picture())["guards"][0]["name"] == "llm.invoke"


def test_what_siblings_may_ask_is_answered_and_nothing_else(service, tmp_path):
    """Objectives of that name, or None; a question of another kind is an error that whoever asked hears of."""
    service.slos.add(availability())
    made = Sources(service, workers=tmp_path / "w")
    assert made._answer({"ask": "objective", "name": "up"})["guards"] == []
    assert made._answer({"ask": "objective", "name": "none"}) is None
    for asked in ({"ask": "weather"}, {"ask": "command", "command": "stop"}, {"ask": "guard", "name": 7}, {}):
        with pytest.raises(ValueError, match="nobody asks"):
            made._answer(asked)


def test_an_answer_to_a_command_is_told_in_one_form():
    """Also when there is none."""
    assert sources._said(None, "") == {"done": True, "problem": ""}
    assert sources._said(None, "it has left") == {"done": False, "problem": "it has left"}
    assert sources._said({"ids": ["a"]}, "") == {"done": True, "problem": "", "ids": ["a"]}


def test_a_fork_is_kept_by_nobody_when_something_cannot_be_read(service, monkeypatch):
    """It is told, and the parent forks."""
    made, told = Sources(service), defects(service)

    def broken():
        raise RuntimeError("planted")

    monkeypatch.setattr(made.local, "_counts", broken)
    made.local.before_fork()
    made.local.sample()
    assert len(told) >= 1
    assert all("dashboard" in event.where or "fork" in event.where or "history" in event.where for event in told)


# -- peers ----------------------------------------------------------------------------------------------------------------------------


def test_without_a_thread_peers_are_not_asked_and_the_next_round_tries_again(service, monkeypatch):
    """It is reported, and they are missing with a word why."""
    told = defects(service)
    made = Sources(service, peers=["http://127.0.0.1:1/_soma"], token=TOKEN)
    with monkeypatch.context() as patched:
        patched.setattr(threading, "Thread", NoThread)
        made._peers.look()
    assert {event.where for event in told} == {"thread somaresil-peers"}
    ((_, state, why, portrait, _),) = made._peers.read()
    assert (state, portrait) == ("missing", None)
    assert why
    assert not any(peer.pending for peer in made._peers._peers.values())


def test_a_peer_that_was_never_asked_is_missing(service):
    """Until the first round."""
    made = Sources(service, peers=["http://127.0.0.1:1/_soma"], token=TOKEN)
    assert [(state, why) for _, state, why, _, _ in made._peers.read()] == [("missing", "it was not asked yet")]


def test_a_peer_that_hangs_is_cut_off(service, clock):
    """Its socket is shut down, so that the thread that waits for it ends."""
    made = Sources(service, peers=["http://127.0.0.1:1/_soma"], token=TOKEN)
    (place,) = made._peers._places()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = made._peers._peers.setdefault(place, peers._Peer())
        peer.pending, peer.asked_at, peer.connection = True, clock.monotonic(), type("C", (), {"sock": ours})()
        made._peers._resolved_at = clock.monotonic() + 1e6
        clock.advance(peers._STUCK + 1.0)
        made._peers.look()
        assert theirs.recv(1) == b""


@pytest.mark.parametrize(
    ("ahead", "why"), [(3_600.0, "its clock is 3600 s ahead"), (-3_600.0, "its clock is 3600 s behind"), (None, "RuntimeError")]
)
def test_what_a_peer_says_is_not_added_when_its_clock_is_wrong_or_we_are(service, monkeypatch, ahead, why):
    """The page shows the others."""
    made = Sources(service, peers=["http://127.0.0.1:1/_soma"], token=TOKEN)
    (place,) = made._peers._places()
    peer = peers._Peer()

    def portrait(said):
        if ahead is None:
            raise RuntimeError("planted")
        return {"at": service.clock.time() + ahead, "columns": None}

    monkeypatch.setattr(made._peers, "_fetched", lambda place, peer: {})
    monkeypatch.setattr(peers.checked, "portrait", portrait)
    made._peers._ask(place, peer)
    assert peer.why == why


# -- commands -------------------------------------------------------------------------------------------------------------------------


def problems(plans):
    check = Checker("dashboard")
    found = approved(plans, check)
    return found, [(problem.path, problem.allowed) for problem in check.problems]


def test_plans_that_may_be_started_have_names_and_windows():
    """Each wrong one is told by its name."""
    assert problems(["x"]) == ({}, [("dashboard.plans", "ChaosPlan by name, or None")])
    found, told = problems({"slow": 7, " x": ChaosPlan([]), "none": ChaosPlan([])})
    assert found == {}
    assert [path for path, _ in told] == ["dashboard.plans['slow']", "dashboard.plans", "dashboard.plans['none']"]
    _, told = problems({str(number): 7 for number in range(commands._MOST_PLANS + 1)})
    assert told[0] == ("dashboard.plans", f"at most {commands._MOST_PLANS}")


def test_a_command_that_cannot_be_done_says_why(service, monkeypatch):
    """What is not approved, not here, or our own defect: whoever asked gets an answer."""
    doer = commands.Commands(service, {})
    told = defects(service)

    def asked(**command):
        return doer.perform({"key": str(sorted(command.items())), **command}, "alice")

    said = asked(do="start", plan="none")
    assert (said["done"], said["problem"]) == (False, "no plan of that name is approved here")

    def broken(*_, **__):
        raise RuntimeError("planted")

    monkeypatch.setattr(service.chaos, "stop_all", broken)
    said = asked(do="stop")
    assert said["done"] is False
    assert "a defect of the dashboard" in said["problem"]
    assert [event.where for event in told] == ["dashboard command"]


# -- histories ------------------------------------------------------------------------------------------------------------------------


def test_on_machines_of_another_order_columns_are_written_the_same(monkeypatch):
    """Little end first, whoever writes."""
    rows = array("I", [1, 2**24])
    plain = columns._text(rows)
    monkeypatch.setattr(sys, "byteorder", "big")
    swapped = array("I", rows)
    swapped.byteswap()
    assert columns._text(swapped) == plain
    assert list(rows) == [1, 2**24]
    width = 2
    whole = array("I", range(COLUMNS * width))
    assert columns.unpacked(columns._text(whole), width) == whole


def test_counts_that_are_more_than_a_column_holds_stay_at_its_most():
    """They do not begin at nought again."""
    assert columns._plus(array("I", [2**32 - 1, 1]), array("I", [5, 1])) == array("I", [2**32 - 1, 2])


def test_a_history_that_has_seen_nothing_knows_nothing():
    """No column, no seconds and no calls; a second sample in the same column changes nothing."""
    made = History()
    assert made.known() == [0] * COLUMNS
    assert made.seconds(5.0) == 0.0
    assert made.recent("g", array("Q", [1])) is None


def test_a_curve_begins_anew_when_the_clock_is_set_back():
    """Its points would lie in the future."""
    curve = Curve()
    for at in (100.0, 200.0, 50.0):
        curve.note(at, {"up": at}, apart=1.0)
    assert curve._at == [50.0]


def test_who_waits_no_more_is_not_told():
    """An answer that comes after the end of its time is dropped."""

    async def go():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        _settle(future, 1, None)
        return future.cancelled()

    assert asyncio.run(go())


def test_processes_that_share_a_folder_of_snapshots_are_one_source_of_budgets(service, tmp_path):
    """Their events would be added up twice."""
    service.slos.add(availability())
    good(service.guard("g", slo="up"))
    made = Sources(service)
    assert made.local._budgets._whose("one", shared=True) == "one"
    service.slos.keep(tmp_path, service="gateway")
    try:
        assert made.local._budgets._whose("one", shared=True) == made.local._budgets._whose("two", shared=True) != "one"
        assert made.local._budgets._whose("one", shared=False) == "one"
    finally:
        service.slos.snapshot.stop()
