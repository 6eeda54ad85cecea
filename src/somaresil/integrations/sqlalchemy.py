"""SQLAlchemy: guard an engine, blocking or asynchronous, by its public events.

    guard_engine(engine, resilience, timeout=2.0, breaker=True, bulkhead=20)

Each connecting and each execution of a statement is a call of the guard (``do_connect``, ``do_execute`` and its kin); rows that are fetched
later are no part of it, and neither is a connection that a ``creator=`` makes. An asynchronous engine waits asynchronously, though
SQLAlchemy runs in greenlets. Listeners for ``do_connect`` that change what is connected to must be there before.

How a call counts: bad with ``OperationalError``, ``InterfaceError`` and ``InternalError`` of the driver, and with whatever is no error of
the driver; good with ``IntegrityError``, ``DataError``, ``ProgrammingError`` and ``NotSupportedError``: the database has answered. The
errors of the driver reach SQLAlchemy as they are, and it makes of them what it always does. What is ours is SQLAlchemy's as well: a refusal
is a :class:`~somaresil.errors.Rejected` and a ``sqlalchemy.exc.SQLAlchemyError``, a time-out a :class:`~somaresil.errors.CallTimedOut` and
a ``sqlalchemy.exc.TimeoutError``; SQLAlchemy throws the connection away whose statement was cut off by it, as with every time-out.

Connecting is tried again when the guard has a ``retry``. A statement never is: it stands in a transaction that is gone with its connection;
guard the function that begins the transaction to have all of it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event, exc
from sqlalchemy.engine import Engine
from sqlalchemy.util import await_only, greenlet_spawn

from somaresil.chaos.network.board import BOARD
from somaresil.config import Checker
from somaresil.errors import CallTimedOut, Rejected
from somaresil.integrations._client import AsyncWholeCall, Guards, WholeCall, as_theirs
from somaresil.integrations._partition import REFUSED, cut_off
from somaresil.outcome import Outcome
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    from somaresil.guard import Guard

__all__ = ["guard_engine"]

NAME: Final = "sql.{database}"
"""The usual name of a guard."""
FIELDS: Final = frozenset({"database", "host", "port", "dialect"})
"""What a template for names may have in braces."""

_UNSEEN: Final = frozenset({"psycopg", "psycopg_async", "psycopg2", "psycopg2cffi", "mysqldb", "mariadbconnector", "pymssql"})
"""Drivers that connect in C. The others connect by sockets of Python, where partitions are met anyway."""
_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}

_ANSWERS: Final = ("IntegrityError", "DataError", "ProgrammingError", "NotSupportedError")
"""Errors by which a database answers (PEP 249)."""


def guard_engine(engine: Any, resilience: Resilience, *, name: str | Callable[[Any], str | None] = NAME, **options: Any) -> Any:
    """Guard everything that ``engine`` (an ``Engine`` or ``AsyncEngine``) does from now on, and return it.

    ``name`` is the name of the guard: a template (``{database}``, ``{host}``, ``{port}``, ``{dialect}``), or a function of the engine. The
    guard is made with ``options``, those of :meth:`Resilience.guard` but ``fallback``; one that exists is used as it is.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("guard_engine")
    check.type("resilience", resilience, Resilience, "a Resilience")
    # An AsyncEngine has the other one inside.
    inner = getattr(engine, "sync_engine", engine)
    check.type("engine", inner, Engine, "an Engine or AsyncEngine of SQLAlchemy")
    if options.get("fallback") is not None:
        check.problem("fallback", options["fallback"], "none", "nothing can stand for a statement; guard the function that uses the engine")
    if isinstance(inner, Engine) and getattr(inner.dialect, _MARK, False):
        check.problem("engine", engine, "an engine that is not guarded yet", "a statement would pass two guards")
    guards = Guards(
        "guard_engine",
        resilience,
        name,
        FIELDS,
        1,
        options,
        check,
        streams=False,
        suspends=bool(getattr(getattr(inner, "dialect", None), "is_async", False)),
    )
    check.finish()
    guard = guards.of(engine, lambda: _fields(inner))
    if guard is None:
        return engine
    seam = _Seam(guard, inner.dialect)
    event.listen(inner, "do_connect", seam.connect)
    event.listen(inner, "do_execute", seam.execute)
    event.listen(inner, "do_executemany", seam.executemany)
    event.listen(inner, "do_execute_no_params", seam.execute_no_params)
    setattr(inner.dialect, _MARK, True)
    return engine


_MARK: Final = "_somaresil_guarded"


def _fields(engine: Engine) -> dict[str, object]:
    url = engine.url
    return {
        "database": url.database or "default",
        "host": url.host or "local",
        "port": url.port or 0,
        "dialect": url.get_backend_name(),
    }


class _Seam:
    """What the events of one engine lead to. True means that the work is done."""

    def __init__(self, guard: Guard, dialect: Dialect) -> None:
        self._guard = guard
        self._dialect = dialect

    def connect(self, dialect: Dialect, record: object, cargs: Any, cparams: Any) -> Any:  # noqa: ARG002 - SQLAlchemy's signature
        return self._through(lambda: dialect.connect(*cargs, **cparams), repeats=True, place=cparams)

    def execute(self, cursor: Any, statement: Any, parameters: Any, context: Any) -> bool:
        self._through(lambda: self._dialect.do_execute(cursor, statement, parameters, context))
        return True

    def executemany(self, cursor: Any, statement: Any, parameters: Any, context: Any) -> bool:
        self._through(lambda: self._dialect.do_executemany(cursor, statement, parameters, context))
        return True

    def execute_no_params(self, cursor: Any, statement: Any, context: Any) -> bool:
        self._through(lambda: self._dialect.do_execute_no_params(cursor, statement, context))
        return True

    def _through(self, work: Callable[[], Any], *, repeats: bool = False, place: Any = None) -> Any:
        guard, suspends = self._guard, self._dialect.is_async
        exchange = _Work(work, self._dialect, suspends=suspends, repeats=repeats, place=place)
        ours: Rejected | CallTimedOut
        try:
            if suspends:
                return await_only(guard.adrive(AsyncWholeCall(guard, exchange, None)))
            return guard.drive(WholeCall(guard, exchange, None))
        except (Rejected, CallTimedOut) as error:
            if error.guard != guard.name:
                raise
            ours = error
        try:
            raise as_theirs(ours, exc.TimeoutError if isinstance(ours, CallTimedOut) else exc.SQLAlchemyError)
        finally:
            del ours


class _Work:
    """One connecting, or one execution of a statement."""

    call: Any

    def __init__(self, work: Callable[[], Any], dialect: Dialect, *, suspends: bool, repeats: bool, place: Any) -> None:
        self._place = place
        self._work = work
        self._dialect = dialect
        self._suspends = suspends
        self._repeats = repeats

    def send(self, request: object) -> object:
        """Stands for :meth:`attempt` where a guard shows what it calls."""
        raise NotImplementedError

    async def attempt(self) -> Any:
        """Do it once; in a greenlet of its own, which may await, when the engine is asynchronous."""
        if BOARD.cuts and self._place is not None and self._dialect.driver in _UNSEEN:
            await self._cross(self._place)
        return await greenlet_spawn(self._work) if self._suspends else self._work()

    async def _cross(self, place: Any) -> None:
        """Fail as the driver does when an experiment has cut the server off: these connect in C, where no hook of Python is."""
        host = str(place.get("hostaddr") or place.get("host") or "localhost")
        port = int(place.get("port") or _PORTS.get(self._dialect.name, 0))
        limit = place.get("connect_timeout")
        told = await cut_off(host, port, self.call, None if limit is None else float(limit), unseen=True)
        if told is not None:
            driver: Any = self._dialect.loaded_dbapi
            said = "Connection refused" if told == REFUSED else "timeout expired"
            raise driver.OperationalError(f'connection to server at "{host}", port {port} failed: {said}')

    def shown(self, answer: Any, error: BaseException | None) -> tuple[Any, BaseException | None]:
        """As it is."""
        return answer, error

    def verdict(self, answer: Any, error: BaseException | None) -> Outcome | None:  # noqa: ARG002 - only errors are judged
        """By the classes of errors that every driver has."""
        if error is None:
            return None
        driver: Any = self._dialect.loaded_dbapi
        answers = tuple(kind for kind in (getattr(driver, name, None) for name in _ANSWERS) if isinstance(kind, type))
        return Outcome.GOOD if isinstance(error, answers) else None

    def can_be_sent_again(self, *, at_once: bool) -> bool:
        """A statement not, and one connection is enough."""
        return self._repeats and not at_once

    def is_idempotent(self) -> bool:
        """Connecting does nothing."""
        return self._repeats
