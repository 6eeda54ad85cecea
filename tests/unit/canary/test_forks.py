"""What a canary keeps and forgets in a forked process; here without a fork, so that everybody sees it."""

from __future__ import annotations

import os
import threading

import pytest

from somaresil import ConfigurationError
from somaresil.canary import store as store_module
from somaresil.canary.ledger import CanaryLedger, Counts, Levels
from somaresil.canary.store import CanaryFile
from somaresil.events import DefectFound
from tests.unit.canary.test_controller import made, requests
from tests.unit.canary.test_router import made as routed


def held_by_nobody(lock):
    """Whether any thread can take it at once."""
    taken = []
    thread = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    return taken == [True]


def test_locks_that_were_held_at_the_fork_are_new_ones():
    """The thread that held them stayed behind."""
    controller, _, _ = made()
    controller.start("v2")
    requests(controller, 50)
    for lock in (controller._lock, controller._turn, controller._trial.ledger._lock):
        lock.acquire()
        assert not held_by_nobody(lock)
    seen = controller._trial.ledger
    controller._after_fork()
    assert all(map(held_by_nobody, (controller._lock, controller._turn, seen._lock)))
    assert controller.leads
    assert controller.weight == 0.1


def test_with_a_snapshot_the_child_follows_and_begins_to_count_anew(tmp_path):
    """What was seen so far is its parent's to tell, and the lock is its parent's."""
    controller, _, _ = made(snapshot=tmp_path / "answer.json")
    controller.start("v2")
    requests(controller, 50)
    assert controller.leads
    assert controller._file.leads
    controller._after_fork()
    assert not controller.leads
    assert not controller._file.leads
    assert controller.seen() == Counts()
    assert controller._trial.version == "v2"


def test_with_a_router_alone_the_child_gives_no_orders():
    """Nobody else would say that its parent does."""
    controller, _, router, _, _ = routed()
    controller.start("v2")
    before = len(router.orders)
    controller._after_fork()
    assert not controller.leads
    controller.promote()
    assert len(router.orders) == before


def test_it_says_what_it_is():
    """Name, phase and weight."""
    controller, _, _ = made()
    assert repr(controller) == "<CanaryController 'answer': not started, 0>"
    controller.start("v2")
    assert repr(controller) == "<CanaryController 'answer': ramp_10, 0.1>"


def test_before_anything_was_started_nothing_was_seen_and_pairs_say_nothing():
    """Nor do they afterwards, for a route that is older than the start."""
    controller, _, _ = made()
    route = controller.route
    assert controller.seen() == Counts()
    controller.both_ended(route, candidate_bad=True, control_bad=False)
    controller.start("v2")
    controller.both_ended(route, candidate_bad=True, control_bad=False)
    assert controller.seen() == Counts()


def test_a_moment_before_everything_that_is_remembered_has_no_route():
    """A call that began then is counted nowhere rather than wrongly."""
    controller, clock, _ = made()
    controller.start("v2")
    assert controller.route_at(clock.monotonic()) is controller.route
    assert controller.route_at(-1e9) is None


@pytest.mark.parametrize("pair", [False, True])
def test_a_defect_while_counting_never_reaches_the_caller(monkeypatch, pair):
    """It is told once."""
    controller, _, events = made()
    controller.start("v2")

    def broken(*_, **__):
        raise RuntimeError("planted")

    monkeypatch.setattr(controller._trial.ledger, "note", broken)
    if pair:
        controller.both_ended(controller.route, candidate_bad=True, control_bad=False)
    else:
        controller.ended(controller.route, candidate=True, bad=True, key=None)
    (defect,) = [event for event in events if isinstance(event, DefectFound)]
    assert ("a pair of calls" if pair else "a call") in defect.where


def test_a_lock_that_cannot_be_asked_for_leaves_no_descriptor_open(tmp_path, monkeypatch):
    """The error is the caller's, and the next try begins anew."""
    file = CanaryFile(tmp_path / "answer.json")
    opened, usual = [], os.open

    def remembered(*given, **named):
        opened.append(usual(*given, **named))
        return opened[-1]

    def refuses(*_):
        raise OSError(37, "No locks available")

    with monkeypatch.context() as patched:
        patched.setattr(store_module.os, "open", remembered)
        patched.setattr("fcntl.flock", refuses)
        with pytest.raises(OSError, match="No locks"):
            file.lead()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
    assert file.lead()
    file.let_go()


def test_what_others_left_that_is_no_object_is_left_out(tmp_path):
    """And what is nested without end is no file at all."""
    file = CanaryFile(tmp_path / "answer.json")
    for number, text in enumerate(("[1]", "[" * 200_000, '{"a": 1}')):
        (tmp_path / f"answer.json.{number + 1}-{number:08x}").write_text(text)
        (tmp_path / f"answer.json.{number + 1}-{number:08x}").chmod(0o600)
    assert [said for _, said in file.peers()] == [{"a": 1}]
    with pytest.raises(ValueError, match="nested without end"):
        store_module._loaded(b"[" * 200_000)


def test_a_ledger_with_keys_that_are_none_is_refused():
    """They are sixteen digits, twice eight bytes."""
    ledger = CanaryLedger("v2", Levels(), sticky=True)
    said = {**ledger.dump(), "sticky": True}
    for wrong in (["x"], [7], ["zz" * 8], ["ab" * 7]):
        with pytest.raises(ConfigurationError) as caught:
            CanaryLedger.restore({**said, "keys": wrong}, Levels())
        assert [problem.path.rpartition(".")[2] for problem in caught.value.problems] == ["keys"]


def test_without_a_router_a_rollout_orders_nothing():
    """It is this process that divides the calls."""
    controller, _, _ = made()
    controller.start("v2")
    assert controller._steering.follow("v2", controller._rollout, "x").name == "AS_BEFORE"
