"""So many lines of a kind a second and no more; what was left out is counted and told, whatever happens."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import pytest

from somaresil import ConfigurationError, ManualClock, Resilience, events
from somaresil.asgi import ResilienceMiddleware
from somaresil.integrations.logging import RateLimitFilter, ResilienceFilter, log_events


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def resilience(clock):
    return Resilience("service", clock=clock)


class Lines(logging.Handler):
    def __init__(self, limit=None):
        super().__init__()
        self.records = []
        if limit is not None:
            self.addFilter(limit)

    def emit(self, record):
        self.records.append(record)

    @property
    def texts(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def logger():
    made = logging.getLogger("test_log_rate")
    made.setLevel(logging.DEBUG)
    made.propagate = False
    yield made
    for handler in list(made.handlers):
        made.removeHandler(handler)


def through(logger, limit):
    lines = Lines(limit)
    logger.addHandler(lines)
    return lines


def test_a_burst_passes_and_the_rest_is_counted_and_told(resilience, clock, logger):
    """In a line of its own, at the same level, before the line that may pass again."""
    lines = through(logger, RateLimitFilter(resilience, per_second=1.0, burst=2))
    for number in range(14):
        logger.warning("no answer from %s", number)
    assert lines.texts == ["no answer from 0", "no answer from 1"]
    clock.advance(1.0)
    logger.warning("no answer from %s", 14)
    assert lines.texts[2:] == ["12 such lines were left out: no answer from %s", "no answer from 14"]
    told = lines.records[2]
    assert (told.levelname, told.somaresil_left_out, told.somaresil_left_out_seconds) == ("WARNING", 12, 1.0)


def test_any_line_brings_out_what_is_owed(resilience, clock, logger):
    """A storm that is over is told of although no line of its kind comes again."""
    lines = through(logger, RateLimitFilter(resilience, per_second=0.5, burst=1))
    for _ in range(3):
        logger.error("lost")
    logger.info("hello")
    clock.advance(1.0)
    logger.info("still too soon")
    assert lines.texts == ["lost", "hello", "still too soon"]
    clock.advance(1.0)
    logger.debug("something else")
    assert lines.texts[3:] == ["2 such lines were left out: lost", "something else"]


def test_what_is_told_does_not_belong_to_the_line_that_brings_it_out(resilience, clock, logger):
    """A guard, a request or a trace in it would be those of somebody else."""
    lines = through(logger, RateLimitFilter(resilience, burst=1))
    lines.addFilter(ResilienceFilter(resilience))
    logger.info("a")
    logger.info("a")
    clock.advance(1.0)
    resilience.guard("db").call(logger.info, "b")
    assert [(record.getMessage(), record.somaresil_guard) for record in lines.records] == [
        ("a", ""),
        ("1 such lines were left out: a", ""),
        ("b", "db"),
    ]


def test_a_filter_of_somebody_else_that_raises_is_reported(resilience, clock, logger):
    """The line that is being written does not fail of what is told beside it."""
    found = []
    resilience.on(found.append, events.DefectFound)

    def picky(record):
        if hasattr(record, "somaresil_left_out"):
            raise ZeroDivisionError
        return True

    lines = through(logger, RateLimitFilter(resilience, burst=1))
    lines.addFilter(picky)
    logger.info("a")
    logger.info("a")
    clock.advance(1.0)
    logger.info("b")
    assert lines.texts == ["a", "b"]
    assert [event.where for event in found] == ["telling of log lines that were left out"]


@pytest.mark.asyncio
async def test_the_end_of_an_app_tells_what_is_owed(resilience, logger):
    """Before the server hears that it is over: then it may end the process by a signal. A handler that fails stops nobody."""
    limit = RateLimitFilter(resilience, burst=1)
    lines = through(logger, limit)
    sent = []

    class Failing:
        def tell(self):
            raise ZeroDivisionError

    failing = Failing()
    resilience.log_context.teller_added(failing)

    async def app(scope, receive, send):
        logger.error("lost")
        logger.error("lost")
        await send({"type": "lifespan.startup.complete"})
        assert lines.texts == ["lost"]
        await send({"type": "lifespan.shutdown.complete"})

    async def send(message):
        sent.append((message["type"], len(lines.texts)))

    await ResilienceMiddleware(app, resilience)({"type": "lifespan"}, None, send)
    assert sent == [("lifespan.startup.complete", 1), ("lifespan.shutdown.complete", 2)]
    assert lines.texts[1] == "1 such lines were left out: lost"


def test_nothing_is_lost_and_nothing_is_told_twice(resilience, clock, logger):
    """Lines that passed and lines that were told of are all lines."""
    limit = RateLimitFilter(resilience, per_second=3.0, burst=2)
    lines = through(logger, limit)
    for number in range(500):
        logger.error("kind %d" % (number % 7))  # noqa: UP031, G002 - messages put together before
        clock.advance(0.01)
    limit.tell()
    passed = [record for record in lines.records if not hasattr(record, "somaresil_left_out")]
    told = sum(record.somaresil_left_out for record in lines.records if hasattr(record, "somaresil_left_out"))
    assert len(passed) + told == 500
    assert limit.left_out == 0


def test_kinds_are_logger_level_and_template(resilience, logger):
    """What is put in makes no kind, another level does."""
    lines = through(logger, RateLimitFilter(resilience, burst=1))
    for name in ("a", "b"):
        logger.info("hello %s", name)
        logger.warning("hello %s", name)
        logger.getChild("deeper").info("hello %s", name)
        logger.info(ValueError(name))
    assert lines.texts == ["hello a", "hello a", "hello a", "a"]


def test_events_go_by_event_and_guard(resilience, logger):
    """Their texts are put together before, and are not what tells them apart."""
    listener = log_events(logger, limit=RateLimitFilter(resilience, burst=1))
    lines = through(logger, None)
    for attempt in range(3):
        for guard in ("db", "llm"):
            listener(events.RetryScheduled(guard, 0.0, attempt, 0.25, "ValueError"))
            listener(events.AttemptFailed(guard, 0.0, attempt, "ValueError", injected=False))
    assert [(record.somaresil_event, record.somaresil_guard) for record in lines.records] == [
        ("RetryScheduled", "db"),
        ("AttemptFailed", "db"),
        ("RetryScheduled", "llm"),
        ("AttemptFailed", "llm"),
    ]


def test_a_key_of_ones_own_tells_kinds_apart(resilience, logger):
    """None is never left out; a key that fails lets the line pass, and is reported once."""
    found = []
    resilience.on(found.append, events.DefectFound)
    lines = through(logger, RateLimitFilter(resilience, burst=1, key=lambda record: record.levelno if record.levelno < 40 else None))
    for text in "abc":
        logger.info(text)
        logger.error(text)
    assert lines.texts == ["a", "a", "b", "c"]
    broken = through(logger, RateLimitFilter(resilience, burst=1, key=lambda record: [record]))
    logger.info("d")
    logger.info("e")
    assert broken.texts == ["d", "e"]
    assert [event.where for event in found] == ["rate limit of log lines"]


def test_memory_is_bounded_whatever_is_logged(resilience, clock, logger):
    """Messages that are put together before they are logged are limited together at last, and counted."""
    limit = RateLimitFilter(resilience, per_second=1.0, burst=1, most=10)
    lines = through(logger, limit)
    for number in range(1_000):
        logger.info(f"user {number}")  # noqa: G004 - that is what it is about
    assert len(limit._buckets) <= 16
    assert len(lines.records) == 11
    clock.advance(5.0)
    logger.info("user 0")
    assert "989 such lines were left out: lines of many kinds" in lines.texts
    for number in range(100):
        clock.advance(5.0)
        logger.info(f"guest {number}")  # noqa: G004
    assert len(limit._buckets) <= 16
    assert lines.texts[-1] == "guest 99"


def test_a_filter_at_two_handlers_counts_a_line_once(resilience, logger):
    """And both handlers get the same lines."""
    limit = RateLimitFilter(resilience, burst=2)
    one, other = through(logger, limit), through(logger, limit)
    for text in "abc":
        logger.info("line %s", text)
    assert one.texts == other.texts == ["line a", "line b"]
    assert limit.left_out == 1


def test_threads_share_a_limit(resilience, logger):
    """No line is counted twice or not at all."""
    limit = RateLimitFilter(resilience, burst=50)
    lines = through(logger, limit)

    def work():
        for _ in range(100):
            logger.info("line")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(lines.records), limit.left_out) == (50, 350)


PROCESS = """
import logging, os, sys
from somaresil import Resilience
from somaresil.integrations.logging import RateLimitFilter
handler = logging.StreamHandler(sys.stdout)
limit = RateLimitFilter(Resilience("service"), per_second=0.001, burst=1)
handler.addFilter(limit)
logging.getLogger().addHandler(handler)
for _ in range(5):
    logging.error("lost")
if hasattr(os, "fork") and not os.fork():
    logging.error("lost in the child")
    sys.exit()
if hasattr(os, "wait"):
    os.wait()
"""


def test_the_end_of_a_process_tells_what_is_owed_once():
    """Errors are never left out in silence; a child does not tell what its parent owes."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    ended = subprocess.run([sys.executable, "-c", PROCESS], capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert ended.stdout.splitlines() == ["lost", "lost in the child", "4 such lines were left out: lost"]


def test_every_problem_is_told_at_once(resilience):
    """As everywhere."""
    with pytest.raises(ConfigurationError) as wrong:
        RateLimitFilter(resilience, per_second=0.0, burst=0, key="level", most=0)
    assert [problem.path.partition(".")[2] for problem in wrong.value.problems] == ["per_second", "burst", "most", "key"]
    with pytest.raises(ConfigurationError):
        log_events(limit=5)
