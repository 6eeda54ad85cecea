"""The open loop, in virtual time: latency from the intended start, drops, lateness, ends."""

import asyncio

import pytest

from somaresil.load.arrivals import Stage, arrivals
from somaresil.load.books import Book, Books, Ending
from somaresil.load.generator import Generator, Order
from somaresil.testing.clock import VirtualClock, run


class FakeFlight:
    def __init__(self, caller, order, due, ended):
        self.caller, self.order, self.due, self.ended, self.over, self.timer = caller, order, due, ended, False, None

    def finish(self, failure=None):
        if not self.over:
            self.over = True
            self.caller.open -= 1
            self.ended(
                Ending(self.order.request, self.due, self.caller.clock.monotonic(), failure, injected=self.order.payload == "struck")
            )

    def abort(self, failure):
        if self.timer is not None:
            self.timer.cancel()
        self.finish(failure)


class FakeCaller:
    """Answers after `seconds(now)`; None: never."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.open, self.most, self.begun = clock, seconds, 0, 0, []

    def call(self, order, due, ended):
        flight = FakeFlight(self, order, due, ended)
        self.open += 1
        self.most = max(self.most, self.open)
        self.begun.append(self.clock.monotonic())
        seconds = self.seconds(self.clock.monotonic())
        if seconds is not None:
            flight.timer = asyncio.get_running_loop().call_later(seconds, flight.finish)
        return flight

    async def close(self):
        pass


def offer(stages, seconds, *, timeout=30.0, arrival="constant", cancel_after=None, payload=None, **options):
    """Run a generator against a fake service in virtual time; return the run and the caller."""
    clock = VirtualClock()

    async def main():
        begun = clock.monotonic()
        caller = FakeCaller(clock, lambda now: seconds(now - begun))
        generator = Generator(caller, lambda number: Order("a", timeout, payload), clock=clock, cpu=lambda: 0.0, **options)
        task = asyncio.ensure_future(generator.offer(arrivals(stages, arrival, seed=1), sum(stage.seconds for stage in stages)))
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            await task
        return generator.run, caller

    return run(main(), clock=clock)


def test_every_arrival_is_made_at_its_time_whatever_became_of_the_earlier_ones():
    """A service that takes two seconds gets ten requests a second all the same."""
    result, caller = offer([Stage(5.0, 10.0)], lambda _: 2.0)
    book = result.books.total()
    assert (book.started, book.good, book.dropped) == (50, 50, 0)
    assert caller.most == 20
    assert result.complete
    assert result.concurrency == pytest.approx(50 * 2.0 / 6.95, rel=0.02)


def test_a_stall_is_in_the_figures_of_everybody_who_was_meant_to_come():
    """A service that stands still for one second in five gives the quantiles that arithmetic says, not those of the few that waited."""
    result, _ = offer([Stage(50.0, 100.0)], lambda at: 0.001 + max(0.0, 1.0 - at % 5.0))
    latency = result.books.total().latency
    # A share of 1/5 waits, evenly from 0 to 1 s: a quantile q above 0.8 is (q - 0.8) / 0.2 seconds.
    assert latency.quantile(0.95) == pytest.approx(0.75, rel=0.03)
    assert latency.quantile(0.99) == pytest.approx(0.95, rel=0.03)
    assert latency.quantile(0.50) == pytest.approx(0.001, rel=0.02)


def test_a_line_that_is_worked_off_later_is_no_higher_rate():
    """Fifty answers that took until the seventh second are seven a second, not ten."""
    result, _ = offer([Stage(5.0, 10.0)], lambda _: 2.0)
    assert result.elapsed == pytest.approx(6.95)
    assert result.per_second(50) == pytest.approx(50 / 6.95)


def test_what_cannot_be_begun_is_dropped_and_counted_not_queued():
    """With a hung service there are never more in flight than allowed, and nothing is begun later than it was meant to."""
    result, caller = offer([Stage(10.0, 10.0)], lambda _: None, max_in_flight=7, timeout=60.0)
    book = result.books.total()
    assert (book.started, book.dropped, book.good) == (7, 93, 0)
    assert caller.most == 7
    assert book.errors == {"timeout": 7}
    assert result.offered == 100


def test_who_waits_too_long_has_given_up():
    """A timeout counts from the intended start, and ends the request."""
    result, caller = offer([Stage(2.0, 5.0)], lambda _: None, timeout=1.0)
    book = result.books.total()
    assert book.errors == {"timeout": 10}
    assert caller.open == 0
    assert result.points[-1].at == pytest.approx(2.9, abs=0.2)


def test_an_end_by_force_leaves_nothing_and_hides_nothing():
    """Ctrl-C: what was in flight is neither good nor bad, and every figure until then stands."""
    result, caller = offer([Stage(100.0, 10.0)], lambda _: 3.0, cancel_after=10.0)
    book = result.books.total()
    assert caller.open == 0
    assert book.started == 100
    assert book.good + book.abandoned == 100
    assert 25 <= book.abandoned <= 31
    assert not result.complete
    assert result.seconds == pytest.approx(10.0, abs=0.1)


def test_a_late_generator_says_so():
    """When the process stands still its requests begin late, their latency counts from when they were meant to, and it is told."""
    clock = VirtualClock()

    async def main():
        caller = FakeCaller(clock, lambda _: 0.0)
        generator = Generator(caller, lambda number: Order("a", 30.0), clock=clock, cpu=lambda: 0.0)
        task = asyncio.ensure_future(generator.offer(arrivals([Stage(10.0, 10.0)], "constant"), 10.0))
        await asyncio.sleep(5.0)
        clock.advance(2.0)
        return await task

    result = run(main(), clock=clock)
    assert result.books.total().latency.largest == pytest.approx(2.0, abs=0.1)
    assert result.lateness.largest == pytest.approx(2.0, abs=0.1)
    assert any("late" in why for why in result.saturated)


def test_a_busy_generator_says_so():
    """One that needs a whole processor measures itself."""
    clock = VirtualClock()

    async def main():
        caller = FakeCaller(clock, lambda _: 0.0)
        generator = Generator(caller, lambda number: Order("a", 30.0), clock=clock, cpu=lambda: clock.monotonic() * 0.97)
        return await generator.offer(arrivals([Stage(10.0, 10.0)], "constant"), 10.0)

    assert any("processor" in why for why in run(main(), clock=clock).saturated)


def test_a_quiet_generator_is_not_suspected():
    """No warning without a reason."""
    assert offer([Stage(5.0, 10.0)], lambda _: 0.1)[0].saturated == ()


def test_slices_add_up_to_the_whole():
    """Nothing is lost between two slices."""
    result, _ = offer([Stage(7.5, 20.0)], lambda at: 0.5)
    assert sum(point.offered for point in result.points) == result.offered == 150
    assert sum(point.good for point in result.points) == result.books.total().good == 150


def test_a_long_run_has_a_bounded_number_of_slices():
    """Four hours are no more points than ten minutes."""
    result, _ = offer([Stage(14_400.0, 0.05)], lambda at: 0.5)
    assert 500 <= len(result.points) <= 601


def test_what_an_experiment_struck_is_kept_apart():
    """Requests that the service marks are in no figure of the others."""
    result, _ = offer([Stage(1.0, 10.0)], lambda _: 0.5, payload="struck")
    assert result.books.total().ended == 0
    assert result.books.total(parts=("injected",)).ended == 10
    assert result.points[-1].injected + sum(point.injected for point in result.points[:-1]) == 10


def test_what_began_while_an_experiment_ran_is_apart_as_well():
    """By the state at the beginning of the request."""
    result, _ = offer([Stage(1.0, 10.0)], lambda _: 0.5, struck=lambda: True)
    assert result.books.total(parts=("calm",)).started == 0
    assert result.books.total(parts=("chaos",)).good == 10


def test_a_watcher_that_fails_is_told_of_and_not_asked_again():
    """A terminal that is gone ends no run."""
    asked = []

    def watch(point, result):
        asked.append(point.at)
        raise OSError("the screen is gone")

    result, _ = offer([Stage(3.0, 10.0)], lambda _: 0.1, watch=watch)
    assert len(asked) == 1
    assert result.books.total().good == 30
    assert "the screen is gone" in result.notes[0]


def test_books_of_two_processes_add_up():
    """Merged and read again, every count is the sum."""
    one, two = (offer([Stage(2.0, rate)], lambda _: 0.25, timeout=1.0)[0].books for rate in (10.0, 30.0))
    merged = Books.from_dict(one.as_dict())
    merged.merge(Books.from_dict(two.as_dict()))
    assert merged.total().good == one.total().good + two.total().good == 80
    assert merged.total().latency.count == 80


def test_kinds_of_errors_are_bounded():
    """A service that thinks of a new status each time fills no memory."""
    book = Book()
    for number in range(1000):
        book.note(Ending("a", 0.0, 1.0, f"status {number}"))
    assert len(book.errors) <= 41
    assert sum(book.errors.values()) == 1000


@pytest.mark.parametrize("data", [None, {}, {"calm": 1}, {"calm": {"a": {}}, "chaos": {}, "injected": {}}])
def test_damaged_books_are_refused(data):
    """What is no book is named."""
    with pytest.raises(ValueError, match="book"):
        Books.from_dict(data)
