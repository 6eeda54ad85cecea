"""Small parts of the load: figures of durations, books from elsewhere, metrics of a service, experiments beside it, the report."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client")

from somaresil import SLO, ChaosPlan, FaultWindow, ManualClock
from somaresil.load import server
from somaresil.load.books import Book
from somaresil.load.measure import Measure
from somaresil.load.server import parse, read
from somaresil.load.thresholds import Threshold, bounds_of
from somaresil.load_command.experiments import Experiments

WEEK = timedelta(days=7)


def test_durations_below_what_a_sketch_tells_apart_are_counted_all_the_same():
    measure = Measure(())
    for value in (0.0, 0.0, 0.5):
        measure.add(value)
    assert measure.at_most(0.0) == 2
    assert measure.at_most(-1.0) == 0
    assert measure.at_most(10.0) == 3


@pytest.mark.parametrize("spoilt", [-1, True, 1.5, "2"])
def test_books_with_a_count_that_is_none_are_refused(spoilt):
    """They come from other processes."""
    whole = Book().as_dict()
    Book.from_dict(whole)
    with pytest.raises(ValueError, match="a whole number that is not negative"):
        Book.from_dict({**whole, "errors": {"status 500": spoilt}})
    with pytest.raises(ValueError, match="not a book: "):
        Book.from_dict({name: value for name, value in whole.items() if name != "errors"})


def test_what_is_to_be_decided_is_counted_exactly():
    slos = [SLO("fast", 95.0, WEEK, latency=2.0), SLO("first", 95.0, WEEK, first_item=1.0), SLO("up", 99.0, WEEK)]
    assert bounds_of([Threshold("p95", 0.5), Threshold("error_rate", 0.1)], slos) == {"latency": (0.5, 2.0), "first": (1.0,)}


def answered(monkeypatch, body):
    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, most):
            return body[:most]

    opener = SimpleNamespace(open=lambda request, timeout: Answer())
    monkeypatch.setattr(server.urllib.request, "build_opener", lambda *_: opener)


def test_metrics_without_an_end_are_not_read_to_it(monkeypatch):
    answered(monkeypatch, b"x" * 100)
    monkeypatch.setattr(server, "_LARGEST", 50)
    with pytest.raises(ValueError, match="more than 50 bytes of metrics"):
        read("http://127.0.0.1:9/metrics")


def test_a_redirect_of_the_metrics_is_not_followed():
    assert server._NoRedirect().redirect_request("any") is None


def test_figures_of_a_service_that_are_no_numbers_are_left_out():
    text = 'http_server_request_duration_seconds_count{http_response_status_code="500"} %s\n'
    name = server._DURATION
    text = text.replace("http_server_request_duration_seconds", name)
    head = f"# TYPE {name} histogram\n"
    assert parse(head + text % "3") != parse(head + text % "NaN")
    assert parse(head + text % "NaN") == parse("")
    with pytest.raises(ValueError, match="metric"):
        parse(f'{head}{name}_bucket{{le="x"}} 1\n')


# -- experiments --------------------------------------------------------------------------------------------------------------------------


class Target:
    """A control app that is there, or is lost."""

    def __init__(self, lost=()):
        self.lost = lost
        self.did = []

    def _do(self, name):
        if name in self.lost:
            raise OSError("no route")
        self.did.append(name)

    async def check(self, plan, groups):
        self._do("check")

    async def start(self, plan, groups, run):
        self._do("start")

    async def status(self):
        self._do("status")
        return [SimpleNamespace(injected=7)]

    async def stop(self):
        self._do("stop")


def experiments(monkeypatch, *lost):
    monkeypatch.setenv("TOKEN", "0123456789abcdef" * 2)
    plan = ChaosPlan([FaultWindow("llm.*", "error", 2.0, 5.0)])
    clock = ManualClock()
    part = SimpleNamespace(plan=plan, url="http://127.0.0.1:9/chaos", token_env="TOKEN")
    made = Experiments(part, clock=clock)
    made._target = Target(lost)
    return made, clock


def test_requests_are_struck_only_while_a_window_of_an_armed_plan_is_open(monkeypatch):
    made, clock = experiments(monkeypatch)

    async def play():
        assert not made.struck()
        await made.check()
        await made.start()
        seen = []
        for _ in range(9):
            seen.append(made.struck())
            clock.advance(1.0)
        await made.end()
        return seen

    assert asyncio.run(play()) == [False, False, True, True, True, True, True, False, False]
    assert made.said == ["error on llm.*: 7 injected"]
    assert made._target.did == ["check", "start", "status", "stop"]


def test_experiments_that_were_never_armed_are_not_ended(monkeypatch):
    made, _ = experiments(monkeypatch)
    asyncio.run(made.end())
    assert (made.said, made._target.did) == ([], [])


def test_a_service_that_is_lost_in_the_end_is_told_and_faults_end_by_themselves(monkeypatch):
    made, _ = experiments(monkeypatch, "status", "stop")

    async def play():
        await made.start()
        await made.end()

    asyncio.run(play())
    assert made.said == [
        "what they did could not be read: OSError: no route",
        "they could not be stopped, and end by themselves: OSError: no route",
    ]
