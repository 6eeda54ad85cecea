"""Engines of SQLAlchemy behind guards, blocking and asynchronous, on SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

from somaresil import Bulkhead, CallTimedOut, CircuitOpen, ConfigurationError, DeadlineExceeded, InjectedFault, Outcome, Resilience, Retry
from somaresil.clock import ManualClock
from somaresil.integrations.sqlalchemy import guard_engine
from somaresil.testing.faults import inject
from tests.behaviour.kit import one_strike

GOOD, BAD, REJECTED = Outcome.GOOD, Outcome.BAD, Outcome.REJECTED
NAME = "sql.orders"


@pytest.fixture(params=["sync", "async"])
def mode(request):
    """Both kinds of engine."""
    return request.param


class Desk:
    """A process with a guarded engine of either kind, and a clock that waits for nobody."""

    def __init__(self, mode, folder, *, clock=None, before=None, **options):
        self.mode = mode
        self.resilience = Resilience("tests", clock=clock or ManualClock(), seed=7)
        url = f"sqlite{'+aiosqlite' if mode == 'async' else ''}:///{folder}/orders"
        pool = {} if mode == "async" else {"poolclass": QueuePool, "connect_args": {"check_same_thread": False}}
        self.engine = create_async_engine(url) if mode == "async" else sa.create_engine(url, **pool)
        if before is not None:
            before(getattr(self.engine, "sync_engine", self.engine))
        guard_engine(self.engine, self.resilience, **{"name": NAME, **options})

    def run(self, *statements):
        """Execute statements, text or pairs with parameters; the rows of the last one, or the error as a value."""

        def prepared(statement):
            text, parameters = statement if isinstance(statement, tuple) else (statement, None)
            return sa.text(text) if isinstance(text, str) else text, parameters

        def use():
            with self.engine.begin() as connection:
                for statement in statements:
                    result = connection.execute(*prepared(statement))
                return result.all() if result.returns_rows else None

        async def ause():
            try:
                async with self.engine.begin() as connection:
                    for statement in statements:
                        result = await connection.execute(*prepared(statement))
                    return result.all() if result.returns_rows else None
            finally:
                await ended(self.engine)

        try:
            return use() if self.mode == "sync" else asyncio.run(ause())
        except Exception as error:
            return error
        finally:
            if self.mode == "sync":
                self.engine.dispose()

    @property
    def guard(self):
        return self.resilience.guards[NAME]

    def count(self, *outcomes):
        return self.guard.recorder.counts().total(*outcomes)


async def ended(engine):
    """Close it, and wait for the threads of aiosqlite: a connection that failed tells the loop of its end a little later."""
    await engine.dispose()
    async with asyncio.timeout(20.0):
        while any("_connection_worker_thread" in thread.name for thread in threading.enumerate()):
            await asyncio.sleep(0.001)


def test_statements_are_calls(mode, tmp_path):
    """Connecting too; rows come as they always did."""
    desk = Desk(mode, tmp_path)
    assert desk.run("create table t (x integer)", ("insert into t values (:x)", [{"x": 1}, {"x": 2}]), "select x from t order by x") == [
        (1,),
        (2,),
    ]
    assert desk.count(GOOD) == desk.count() == 4


@pytest.mark.parametrize(
    ("statement", "error", "outcome"),
    [
        ("insert into t values (1)", exc.IntegrityError, GOOD),
        ("select y from t", exc.OperationalError, BAD),
    ],
)
def test_the_class_of_the_error_decides(mode, tmp_path, statement, error, outcome):
    """An answer that says no is an answer. The error is SQLAlchemy's own, with that of the driver inside."""
    desk = Desk(mode, tmp_path)
    failed = desk.run("create table t (x integer unique)", "insert into t values (1)", statement)
    assert type(failed) is error
    assert isinstance(failed.orig, sqlite3.Error)
    assert (desk.count(GOOD), desk.count(BAD)) == ((4, 0) if outcome is GOOD else (3, 1))


def test_no_connection_is_bad(mode, tmp_path):
    """And connecting is tried again when the guard retries."""
    tried = []
    desk = Desk(mode, tmp_path / "missing", retry=Retry(attempts=3, wait=0.0))
    desk.resilience.observe(lambda _: None, attempts=tried.append)
    assert isinstance(desk.run("select 1"), exc.OperationalError)
    assert len(tried) == 3
    assert desk.count(BAD) == desk.count() == 1


def test_a_statement_is_never_made_again(mode, tmp_path):
    """Not even when the guard was told that it does no harm."""
    tried = []
    desk = Desk(mode, tmp_path, retry=Retry(attempts=3, wait=0.0), idempotent=True)
    desk.resilience.observe(lambda _: None, attempts=tried.append)
    assert isinstance(desk.run("select nothing"), exc.OperationalError)
    assert len(tried) == 2


def test_a_refusal_is_both(mode, tmp_path):
    """Who catches SQLAlchemy's errors catches it, and nothing reaches the database."""
    desk = Desk(mode, tmp_path, breaker=one_strike())
    desk.run("select nothing")
    refused = desk.run("select 1")
    assert isinstance(refused, CircuitOpen)
    assert isinstance(refused, exc.SQLAlchemyError)
    assert (refused.guard, desk.count(REJECTED)) == (NAME, 1)


def test_what_is_too_late_is_not_done(mode, tmp_path):
    """The guard refuses it."""
    desk = Desk(mode, tmp_path)
    with desk.resilience.deadline(1.0):
        desk.resilience.clock.advance(1.0)
        assert isinstance(desk.run("select 1"), DeadlineExceeded)


def test_a_struck_statement_raises_what_the_experiment_says(mode, tmp_path):
    """An error of the driver becomes what SQLAlchemy makes of it."""
    desk = Desk(mode, tmp_path)
    with inject(desk.resilience, NAME, "error", calls=(2,)):
        assert type(desk.run("select 1")) is InjectedFault
    with inject(desk.resilience, NAME, "error", calls=(2,), error=sqlite3.OperationalError):
        assert type(desk.run("select 1")) is exc.OperationalError


def slow_function(connection, _record):
    """SQL that takes its time."""
    gone = threading.Event()
    connection.create_function("slow", 0, lambda: gone.wait(0.3))


def test_a_slow_statement_is_cut_off_with_its_connection(tmp_path):
    """It is our time-out and SQLAlchemy's; what it left half done is not used again."""
    made = []

    def before(engine):
        sa.event.listen(engine, "connect", slow_function)
        sa.event.listen(engine, "connect", lambda connection, _: made.append(connection))

    async def use():
        async with desk.engine.connect() as connection:
            with pytest.raises(CallTimedOut) as late:
                await connection.execute(sa.text("select slow()"))
            assert connection.invalidated
        async with desk.engine.connect() as connection:
            assert (await connection.execute(sa.text("select 1"))).all() == [(1,)]
        await ended(desk.engine)
        return late.value

    desk = Desk("async", tmp_path, before=before, timeout=0.05)
    late = asyncio.run(use())
    assert isinstance(late, exc.TimeoutError)
    assert len(made) == 2
    assert desk.count(BAD) == 1


def test_waiting_in_line_keeps_no_loop_waiting(tmp_path):
    """Though SQLAlchemy runs in greenlets: the tasks behind a full bulkhead wait like tasks."""
    desk = Desk(
        "async",
        tmp_path,
        clock=None,
        bulkhead=Bulkhead(1, max_waiting=10, max_wait=5.0),
        before=lambda e: sa.event.listen(e, "connect", slow_function),
    )
    desk.resilience.clock.await_ = real_await
    beats = []

    async def select(text):
        async with desk.engine.connect() as connection:
            return (await connection.execute(sa.text(text))).scalar()

    async def use():
        async def beat():
            while True:
                beats.append(None)
                await asyncio.sleep(0.01)

        beating = asyncio.ensure_future(beat())
        results = await asyncio.gather(select("select slow()"), select("select 1"), select("select 2"))
        beating.cancel()
        await ended(desk.engine)
        return results

    assert asyncio.run(use())[1:] == [1, 2]
    assert len(beats) > 5
    assert desk.count(GOOD) == desk.count() == 6


async def real_await(future, timeout):
    done, _ = await asyncio.wait((future,), timeout=timeout)
    return bool(done)


def test_listeners_that_were_there_before_are_asked(mode, tmp_path):
    """One that changes the arguments of connecting, for instance."""
    seen = []

    def before(engine):
        sa.event.listen(engine, "do_connect", lambda dialect, record, cargs, cparams: seen.append(cparams.get("timeout")))

    desk = Desk(mode, tmp_path, before=before)
    assert desk.run("select 1") == [(1,)]
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("name", "expected"), [("sql.{database}", "sql.orders"), ("{dialect}.{host}", "sqlite.local"), (lambda e: "mine", "mine")]
)
def test_the_url_names_the_guard(tmp_path, name, expected):
    """Or a function of the engine; a guard that exists is used as it is."""
    engine = sa.create_engine("sqlite:///orders")
    resilience = Resilience("tests")
    there = resilience.guard(expected, bulkhead=3)
    guard_engine(engine, resilience, name=name, bulkhead=7)
    assert dict(resilience.guards) == {expected: there}
    engine.dispose()


def test_none_guards_nothing():
    """The function has said so."""
    engine = sa.create_engine("sqlite://")
    resilience = Resilience("tests")
    assert guard_engine(engine, resilience, name=lambda _: None) is engine
    assert not resilience.guards
    engine.dispose()


def test_mistakes_are_told_at_once():
    """Every one of them."""
    engine = sa.create_engine("sqlite://")
    guard_engine(engine, Resilience("tests"))
    with pytest.raises(ConfigurationError) as wrong:
        guard_engine(engine, Resilience("tests"), name="{table}", braker=True, fallback=print)
    assert [problem.path.partition(".")[2] for problem in wrong.value.problems] == ["fallback", "engine", "name", "braker"]
    with pytest.raises(ConfigurationError):
        guard_engine("sqlite://", Resilience("tests"))
    engine.dispose()
