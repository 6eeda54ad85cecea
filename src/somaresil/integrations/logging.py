"""The standard library's logging: one line an event, and for the service's own lines where they were written.

    resilience.on(log_events())
    handler.addFilter(ResilienceFilter(resilience))

A line says what happened in words; the same facts stand in the record as ``somaresil_event``, ``somaresil_guard``, ``somaresil_outcome``
and so on, for formatters that write JSON. There are no other keys than the fields of the events: never arguments, headers, bodies or the
messages of exceptions. Values are short and cannot forge a line or steer a terminal.

What happens to a single call is ``DEBUG``, for it may happen a thousand times a second; what happens to a circuit or an experiment is
``INFO``, and ``WARNING`` when somebody should look; a defect is ``ERROR``. See :data:`DEFAULT_LEVELS`.
"""

from __future__ import annotations

import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker, did_you_mean
from somaresil.eventtext import DEFAULT_LEVELS, facts, in_words, level_of
from somaresil.integrations._logfields import NOTHING, fields, header_name, trace_ids
from somaresil.integrations._lograte import RateLimitFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.events import Event
    from somaresil.listeners import Listener
    from somaresil.resilience import Resilience

__all__ = ["DEFAULT_LEVELS", "RateLimitFilter", "ResilienceFilter", "log_events"]


Level = int | str | None


def log_events(
    logger: logging.Logger | str | None = None,
    levels: Mapping[type, Level] | None = None,
    *,
    limit: RateLimitFilter | None = None,
) -> Listener:
    """A listener that writes events to ``logger`` (a logger or its name; ``somaresil.events`` when None).

    ``levels`` changes :data:`DEFAULT_LEVELS` for some kinds of event: a number, a name such as ``"INFO"``, or None for never. An event
    below the level of the logger costs one look at that level. ``limit`` bounds how many lines of an event and its guard are written.

    A record has the ids of the current span of OpenTelemetry as ``trace_id`` and ``span_id``, if there is one: what happens within a call
    is told within it.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("log_events")
    if not (logger is None or isinstance(logger, logging.Logger | str)):
        check.problem("logger", logger, "a logger, its name or None")
    if not (limit is None or isinstance(limit, RateLimitFilter)):
        check.problem("limit", limit, "a RateLimitFilter or None")
    chosen: dict[type, int | Callable[[Any], int] | None] = dict(DEFAULT_LEVELS)
    for kind, level in (levels or {}).items():
        name = getattr(kind, "__name__", str(kind))
        if kind not in chosen:
            known = [event.__name__ for event in DEFAULT_LEVELS]
            check.problem("levels", name, f"a kind of event ({', '.join(known)})", did_you_mean(name, known))
        else:
            chosen[kind] = _level(check, f"levels[{name}]", level)
    check.finish()
    target = logger if isinstance(logger, logging.Logger) else logging.getLogger(logger or "somaresil.events")

    def listener(event: Event) -> None:
        kind = type(event)
        level = level_of(event, chosen)
        if level is None or not target.isEnabledFor(level):
            return
        said = facts(event)
        extra: dict[str, Any] = {f"somaresil_{name}": value for name, value in said.items()}
        extra["somaresil_event"] = kind.__name__
        extra["trace_id"], extra["span_id"] = trace_ids()
        # Not as arguments: a fact with a percent sign in it is no format.
        text = in_words(event, said)
        if limit is None:
            target.log(level, "%s", text, extra=extra)
            return
        record = target.makeRecord(target.name, level, __file__, 0, "%s", (text,), None, "log_events", extra)
        if limit.filter(record):
            target.handle(record)

    return listener


class ResilienceFilter(logging.Filter):
    """Tells each record where it was written; none is left out. For a logger, or better for a handler, which gets those of all loggers.

    ==========================  ==============================================================================================
    ``trace_id``, ``span_id``   the current span of OpenTelemetry, in hexadecimal
    ``somaresil_guard``         the innermost guarded call around
    ``somaresil_attempt``       which attempt of its retries, from 1
    ``somaresil_experiment``    the experiment that has struck that call, the request, or that has raised the error of the record
    ``http_request_method``     of the request around, if it has come by the middleware
    ``http_route``              its route as a template, once there is one
    ``request_id``              its header ``request_id``, in at most 128 harmless characters; None: none is read
    ==========================  ==============================================================================================

    What is not known is an empty text, and 0 for the attempt; what a record has already stays. A record that comes from another thread, as
    behind a queue, is told nothing: put the filter in front of the queue.

    No call pays for it: guarded calls are found from the frames of the thread when a line is written, in up to 200 of them. That shows the
    calls of this task or thread. In tasks and threads that a guarded function starts the request is known, and the guarded call only with
    ``calls``, which takes the quiet path away from every guard (see :meth:`Resilience.follow_logs`). A defect in it changes no line.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(self, resilience: Resilience, *, request_id: str | None = "x-request-id", calls: bool = False) -> None:
        """Have requests followed for as long as this is there."""
        super().__init__()
        check = Checker("ResilienceFilter")
        self.request_id = None if request_id is None else header_name(request_id)
        """The header that is read, as ASGI has it."""
        if request_id is not None and self.request_id is None:
            check.problem("request_id", request_id, "the name of a header, or None")
        check.type("calls", calls, bool, "True or False")
        check.finish()
        self._listeners = resilience.listeners
        weakref.finalize(self, resilience.follow_logs(calls=calls)).atexit = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; always True."""
        try:
            here = record.thread is None or record.thread == threading.get_ident()
            error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
            found = fields(self.request_id, error) if here else NOTHING
            given = record.__dict__
            for name, value in found.items():
                if name not in given:
                    given[name] = value
        except Exception as broken:  # noqa: BLE001 - the line is written without it
            for name, value in NOTHING.items():
                record.__dict__.setdefault(name, value)
            self.report(broken)
        return True

    def report(self, broken: Exception) -> None:
        """Say once that it failed. Never raises, whatever the filters of others do."""
        try:
            self._listeners.defect("fields of log lines", broken, 0.0, "the line was written without them")
        except Exception:  # noqa: BLE001 - there is nobody left to tell
            return


def _level(check: Checker, path: str, level: object) -> int | None:
    if level is None or (isinstance(level, int) and not isinstance(level, bool)):
        return level
    named = logging.getLevelNamesMapping()
    if isinstance(level, str) and level.upper() in named:
        return named[level.upper()]
    check.problem(path, level, f"a number, None or one of {', '.join(named)}", did_you_mean(level, named))
    return None
