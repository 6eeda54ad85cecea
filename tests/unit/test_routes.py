"""What is counted a route: bounded labels, exact counts, and readings that add up."""

from __future__ import annotations

import threading
from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil import Outcome, routes
from somaresil.model.histogram import DEFAULT_BOUNDS
from somaresil.routes import MOST_WAITING, OTHER, RouteKey, Routes


class Attached:
    """Stands for the objectives of a process."""

    def __init__(self):
        self.thresholds = {"fast": 2.0, "faster": 0.3}
        self.attached = []
        self.routes = Routes(lambda names: tuple(self.thresholds[name] for name in names if name in self.thresholds), self.attach)

    def attach(self, slo, recorder):
        self.attached.append((slo, recorder))


@pytest.fixture
def stand():
    return Attached()


def add(cell, outcome=Outcome.GOOD, elapsed=0.1, first_byte=None, now=0.0, **options):
    cell.add(outcome, elapsed, first_byte, now, **options)


def test_the_same_labels_are_the_same_cell(stand):
    """Made once, with the recorder of the route."""
    one = stand.routes.cell("GET", "/a", 200, ("up",))
    assert stand.routes.cell("GET", "/a", 200, ("up",)) is one
    other = stand.routes.cell("POST", "/a", 500, ("up",))
    assert other is not one
    assert other.recorder is one.recorder
    assert stand.routes.cell("GET", "/b", 200, ("up",)).recorder is not one.recorder


def test_the_recorder_of_a_route_feeds_its_objectives_once(stand):
    """Whatever the number of its cells; their thresholds are bounds."""
    cell = stand.routes.cell("GET", "/a", 200, ("up", "fast"))
    stand.routes.cell("GET", "/a", 404, ("up", "fast"))
    assert stand.attached == [("up", cell.recorder), ("fast", cell.recorder)]
    assert 2.0 in cell.recorder.bounds
    assert stand.routes.cell("GET", "/b", 200, ()).recorder.bounds == DEFAULT_BOUNDS


def test_other_objectives_are_other_cells(stand):
    """A request of another middleware with the same labels must not count for the objectives of whoever came first."""
    one = stand.routes.cell("GET", "/a", 200, ("fast",))
    other = stand.routes.cell("GET", "/a", 200, ("faster",))
    assert one.recorder is not other.recorder
    assert stand.attached == [("fast", one.recorder), ("faster", other.recorder)]


def test_readings_of_the_same_labels_are_added(stand):
    """Exactly, on the bounds that both have."""
    for slos, elapsed in ((("fast",), [0.01, 1.5, 2.5]), (("faster",), [0.2, 0.4, 30.0])):
        for seconds in elapsed:
            add(stand.routes.cell("GET", "/a", 200, slos), elapsed=seconds, first_byte=seconds / 2)
    (view,) = stand.routes.views().values()
    assert view.bounds == DEFAULT_BOUNDS
    counted = {bound: count for bound, count in zip((*view.bounds, "more"), view.durations, strict=True) if count}
    assert counted == {0.01: 1, 0.25: 1, 0.5: 1, 2.5: 2, "more": 1}
    assert sum(view.first_bytes) == 6
    assert view.seconds == pytest.approx(34.61)
    assert view.first_byte_seconds == pytest.approx(34.61 / 2)


def test_counts_of_a_route_are_added(stand):
    """Over methods, statuses, objectives and outcomes."""
    add(stand.routes.cell("GET", "/a", 200, ("fast",)))
    add(stand.routes.cell("POST", "/a", 500, ("fast",)), Outcome.BAD)
    add(stand.routes.cell("WEBSOCKET", "/a", 0, ("up",)), Outcome.ABANDONED)
    add(stand.routes.cell("WEBSOCKET", "/a", 0, ("up",)), Outcome.GOOD, injected=True)
    add(stand.routes.cell("GET", "/b", 200, ("up",)))
    counts = stand.routes.counts()
    assert set(counts) == {"/a", "/b"}
    found = {key: sum(cell) for key, cell in counts["/a"].cells.items() if sum(cell)}
    assert found == {
        (Outcome.GOOD, False): 1,
        (Outcome.BAD, False): 1,
        (Outcome.ABANDONED, False): 1,
        (Outcome.GOOD, True): 1,
    }
    assert counts["/a"].bounds == DEFAULT_BOUNDS


def test_labels_are_bounded(stand):
    """200 combinations, and everything beyond them is one; nothing is lost."""
    for number in range(500):
        add(stand.routes.cell("GET", f"/{number}", 200, ("up",)))
    views = stand.routes.views()
    assert len(views) == 201
    assert sum(views[RouteKey(OTHER, OTHER, 0)].durations) == 300
    assert sum(sum(view.durations) for view in views.values()) == 500
    assert len(stand.attached) == 201
    add(stand.routes.cell("GET", "/0", 200, ("up",)))
    assert sum(stand.routes.views()[RouteKey("GET", "/0", 200)].durations) == 2


def test_beyond_the_bound_requests_still_count_for_their_own_objectives(stand):
    """A conversation beside requests, one middleware beside another."""
    for number in range(200):
        stand.routes.cell("GET", f"/{number}", 200, ("up", "fast"))
    request = stand.routes.cell("GET", "/new", 200, ("up", "fast"))
    talk = stand.routes.cell("WEBSOCKET", "/ws", 0, ("up",))
    other = stand.routes.cell("GET", "/new", 200, ("faster",))
    assert len({id(cell.recorder) for cell in (request, talk, other)}) == 3
    assert stand.attached[-4:] == [("up", request.recorder), ("fast", request.recorder), ("up", talk.recorder), ("faster", other.recorder)]
    for cell in (request, talk, other):
        add(cell)
    views = stand.routes.views()
    assert sum(views[RouteKey(OTHER, OTHER, 0)].durations) == 2
    assert sum(views[RouteKey("WEBSOCKET", OTHER, 0)].durations) == 1


def test_a_bound_belongs_to_its_bucket(stand):
    """As with Prometheus."""
    cell = stand.routes.cell("GET", "/a", 200, ("fast",))
    add(cell, elapsed=2.0, first_byte=2.0)
    view = cell.view()
    assert view.durations[view.bounds.index(2.0)] == view.first_bytes[view.bounds.index(2.0)] == 1


def test_reading_changes_nothing(stand):
    """However often."""
    cell = stand.routes.cell("GET", "/a", 200, ())
    for number in range(200):
        add(cell, elapsed=0.25, first_byte=0.125 if number % 2 else None)
        cell.view()
    for _ in range(3):
        view = cell.view()
        assert (sum(view.durations), sum(view.first_bytes), view.seconds, view.first_byte_seconds) == (200, 100, 50.0, 12.5)


def test_outcomes_and_marks_are_cells_of_the_recorder(stand):
    """Only a good one that no experiment touched takes the short way."""
    cell = stand.routes.cell("GET", "/a", 200, ())
    add(cell)
    add(cell, Outcome.BAD)
    add(cell, injected=True)
    counts = cell.recorder.counts()
    assert (counts.total(Outcome.GOOD, injected=False), counts.total(Outcome.BAD), counts.total(injected=True)) == (1, 1, 1)


def test_eight_threads_lose_nothing(stand):
    """Counts are exact, and so are the sums; the labels are made while others count."""
    each = 500

    def work(number):
        for turn in range(each):
            cell = stand.routes.cell("GET", f"/{turn % 7}", 200, ("up",))
            add(cell, Outcome.GOOD if turn % 5 else Outcome.BAD, elapsed=0.25, first_byte=0.125)
            if turn % 50 == number:
                stand.routes.views()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    views = stand.routes.views().values()
    assert sum(sum(view.durations) for view in views) == 8 * each
    assert sum(sum(view.first_bytes) for view in views) == 8 * each
    assert sum(view.seconds for view in views) == 8 * each * 0.25
    assert sum(counts.total(Outcome.BAD) for counts in stand.routes.counts().values()) == 8 * each // 5
    assert len(stand.attached) == 7


@given(st.lists(st.tuples(st.floats(0.0, 90.0), st.sampled_from(["whole", "none", "half"])), max_size=300))
def test_answers_that_wait_are_counted_like_all_others(requests):
    """In the buckets and sums of their cell and in the recorder of their route, whenever somebody reads."""
    stand = Attached()
    cell = stand.routes.cell("GET", "/a", 200, ("fast",))
    durations, first_bytes = [0] * (len(cell.recorder.bounds) + 1), [0] * (len(cell.recorder.bounds) + 1)
    for number, (elapsed, first) in enumerate(requests, start=1):
        cell.good(elapsed, {"whole": elapsed, "none": None, "half": elapsed / 2}[first], 0.0)
        durations[bisect_left(cell.recorder.bounds, elapsed)] += 1
        if first != "none":
            first_bytes[bisect_left(cell.recorder.bounds, elapsed if first == "whole" else elapsed / 2)] += 1
        assert len(cell.whole) < MOST_WAITING
        if number % 97 == 0:
            assert cell.view().durations == durations
    view = cell.view()
    assert (view.durations, view.first_bytes) == (durations, first_bytes)
    assert view.seconds == pytest.approx(sum(elapsed for elapsed, _ in requests))
    assert cell.recorder.quiet_counts() == durations
    assert cell.whole == []


def test_who_reads_in_the_middle_of_counting_sees_nothing_twice(stand, monkeypatch):
    """A signal handler may, in the same thread: the lock does not keep it out."""
    cell = stand.routes.cell("GET", "/a", 200, ())
    elapsed = 0.1
    for _ in range(5):
        cell.good(elapsed, elapsed, 0.0)
    seen = []
    taken = routes._taken

    def interrupted(waiting):
        if waiting is cell.whole:
            seen.append(sum(cell.recorder.quiet_counts()))
        return taken(waiting)

    monkeypatch.setattr(routes, "_taken", interrupted)
    assert sum(cell.view().durations) == 5
    assert seen == [0]
    assert sum(cell.recorder.quiet_counts()) == 5
