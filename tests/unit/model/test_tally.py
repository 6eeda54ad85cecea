"""Calls that are counted one by one: under somebody's lock, which is never left held."""

from __future__ import annotations

import threading

import pytest

from somaresil.model.ratelimit import Limits, Quota


def limits(amount: float = 2.0) -> Limits:
    made = Limits([Quota(1.0, amount)], 0.0)
    made.counts = True
    return made


def test_a_signal_that_comes_in_place_of_the_lock_is_passed_on():
    def interrupted() -> None:
        raise KeyboardInterrupt

    lock = threading.RLock()
    with pytest.raises(KeyboardInterrupt):
        limits().tally(interrupted, lock.release)(0.0)


def test_a_signal_right_behind_the_lock_leaves_no_lock_held():
    lock = threading.RLock()

    def interrupted() -> None:
        lock.acquire()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        limits().tally(interrupted, lock.release)(0.0)
    free = []
    thread = threading.Thread(target=lambda: free.append(lock.acquire(blocking=False)))
    thread.start()
    thread.join()
    assert free == [True]


def test_a_reading_that_is_older_than_the_last_one_takes_what_is_left():
    lock = threading.RLock()
    take = limits().tally(lock.acquire, lock.release)
    assert [take(5.0), take(4.0), take(5.0)] == [True, True, False]


def test_it_takes_nothing_where_calls_are_not_counted():
    made, lock = limits(), threading.RLock()
    made.counts = False
    assert made.tally(lock.acquire, lock.release)(0.0) is False
    assert made.levels(0.0) == [2.0]
