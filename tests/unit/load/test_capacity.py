"""The search for the knee, against services whose knee is known, in virtual time."""

import asyncio

import pytest

from somaresil.errors import ConfigurationError
from somaresil.load import (
    Answer,
    Ending,
    Generator,
    Order,
    Probe,
    Request,
    Run,
    Scenario,
    Stage,
    Threshold,
    arrivals,
    find_capacity,
    judge_all,
)
from somaresil.load.report import LoadReport
from somaresil.load.thresholds import bounds_of
from somaresil.testing.clock import VirtualClock, run


def search(probe, **options):
    return asyncio.run(find_capacity(probe, **{"start": 10.0, "precision": 0.02, **options}))


def sharp(knee):
    async def probe(rate):
        return Probe(rate, Answer.KEPT if rate <= knee else Answer.BROKEN, "too slow", min(rate, knee), rate / 10)

    return probe


@pytest.mark.parametrize("knee", [3.0, 11.0, 97.0, 1234.0])
def test_a_sharp_knee_is_found_as_exactly_as_was_asked(knee):
    """Above the start, near it, and below it."""
    found = search(sharp(knee))
    assert found.found
    assert found.knee <= knee < found.broken_at
    assert found.broken_at / found.knee <= 1.021
    kept, runs = found.kept_at(found.knee)
    assert kept / runs > 0.5


def test_chance_near_the_knee_is_outvoted():
    """One probe in five that is wrong changes little."""
    calls = []

    async def probe(rate):
        calls.append(rate)
        right = rate <= 100.0
        wrong = len(calls) % 5 == 0
        return Probe(rate, Answer.KEPT if right != wrong else Answer.BROKEN)

    found = search(probe, precision=0.05, runs=3)
    assert found.knee == pytest.approx(100.0, rel=0.25)


def test_no_end_below_the_most_is_said():
    """A rate is reported that is kept, and that the end was not seen."""
    found = search(sharp(1e9), most=100.0)
    assert (found.knee, found.broken_at, found.found) == (100.0, None, False)
    assert "most that was to be tried" in found.lines()[1]


def test_nothing_that_is_kept_is_said():
    """Not even little."""
    found = search(sharp(0.0))
    assert found.knee is None
    assert "not even" in found.lines()[0]


@pytest.mark.parametrize("saturated", [False, True])
def test_what_cannot_be_decided_is_not_decided(saturated):
    """Too few requests, or a generator that measured itself: no knee is made up."""

    async def probe(rate):
        if rate > 50.0:
            return Probe(rate, Answer.BROKEN if saturated else Answer.UNKNOWN, "too few", saturated=saturated)
        return Probe(rate, Answer.KEPT)

    found = search(probe)
    assert not found.found
    assert found.knee == 40.0
    assert ("saturated" if saturated else "too few") in found.why


def test_a_moment_in_which_the_generator_was_busy_is_not_the_end():
    """A probe that measured itself is repeated, and says nothing about the service."""
    calls = []

    async def probe(rate):
        calls.append(rate)
        if len(calls) in {3, 6}:
            return Probe(rate, Answer.UNKNOWN, "saturated", saturated=True)
        return Probe(rate, Answer.KEPT if rate <= 100.0 else Answer.BROKEN)

    found = search(probe)
    assert found.found
    assert found.knee == pytest.approx(100.0, rel=0.03)


def test_headroom_is_over_what_is_offered_now():
    """Half as much again fits, or a quarter too much is offered."""
    found = search(sharp(150.0))
    assert found.headroom(100.0) == pytest.approx(0.5, abs=0.02)
    assert found.headroom(200.0) == pytest.approx(-0.25, abs=0.02)
    assert any("headroom" in line for line in found.lines(100.0))
    assert found.as_dict(100.0)["headroom"] == found.headroom(100.0)


@pytest.mark.parametrize("wrong", [{"start": 0.0}, {"start": -1.0}, {"precision": 0.0}, {"runs": 0}, {"most": 1.0}])
def test_wrong_options_are_refused(wrong):
    """Before anything is sent."""
    with pytest.raises(ConfigurationError):
        search(sharp(100.0), **wrong)


class Workers:
    """A service with so many workers of so many seconds each, and a line without an end."""

    def __init__(self, clock, workers, seconds):
        self.clock, self.seconds = clock, seconds
        self.free = [0.0] * workers

    def call(self, order, due, ended):
        now = self.clock.monotonic()
        worker = min(range(len(self.free)), key=self.free.__getitem__)
        self.free[worker] = max(now, self.free[worker]) + self.seconds
        flight = Flight(self, order, due, ended)
        flight.timer = asyncio.get_running_loop().call_later(self.free[worker] - now, flight.finish, None)
        return flight

    async def close(self):
        pass


class Flight:
    def __init__(self, service, order, due, ended):
        self.service, self.order, self.due, self.ended, self.over = service, order, due, ended, False

    def finish(self, failure):
        if not self.over:
            self.over = True
            self.ended(Ending(self.order.request, self.due, self.service.clock.monotonic(), failure))

    def abort(self, failure):
        self.timer.cancel()
        self.finish(failure)


def knee_of_workers(arrival, limit, seconds):
    """Search the knee of eight workers of 50 ms."""
    limits = (Threshold("p95", limit), Threshold("error_rate", 0.01))

    async def probe(rate):
        clock = VirtualClock()
        stages = (Stage(seconds, rate),)
        scenario = Scenario("k", "http://127.0.0.1", (Request("a", "/"),), stages, arrival=arrival, thresholds=limits)

        async def main():
            service = Workers(clock, 8, 0.05)
            options = {"clock": clock, "cpu": lambda: 0.0, "bounds": bounds_of(limits), "max_in_flight": 5000}
            generator = Generator(service, lambda _: Order("a", 60.0), **options)
            return await generator.offer(arrivals(stages, arrival, seed=str(rate)), seconds)

        result: Run = await asyncio.to_thread(run, main(), clock=clock)
        return Probe.of(rate, LoadReport(scenario, result, judge_all(scenario, result)))

    return search(probe, start=20.0, precision=0.03, runs=1)


@pytest.mark.parametrize("arrival", ["constant", "poisson"])
def test_the_knee_of_workers_is_where_their_time_is_used_up(arrival):
    """Eight workers of 50 ms do 160 a second; with arrivals by chance and a limit of 0.5 s a little less."""
    found = knee_of_workers(arrival, 0.5, 15.0)
    assert found.knee == pytest.approx(160.0, rel=0.1)
    assert found.law is not None


@pytest.mark.parametrize("arrival", ["constant", "poisson"])
def test_a_line_that_grows_is_over_the_knee_though_the_limit_is_kept(arrival):
    """With a limit of 4 s, a probe of 10 s at 1.5 times the capacity keeps it; the line that grows gives it away."""
    found = knee_of_workers(arrival, 4.0, 10.0)
    assert found.knee == pytest.approx(160.0, rel=0.2 if arrival == "poisson" else 0.05)
    assert "grew" in next(probe.why for probe in found.probes if probe.rate == found.broken_at)
