"""structlog: the same fields and the same lines as for the standard library's logging.

    structlog.configure(processors=[structlog_processor(resilience), structlog_renderer(resilience)])

Neither needs structlog itself: a processor is a function of three arguments.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from somaresil.integrations._logfields import NOTHING, fields
from somaresil.integrations.jsonlogs import JsonFormatter
from somaresil.integrations.logging import ResilienceFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    from somaresil.resilience import Resilience

    EventDict = MutableMapping[str, Any]
    Processor = Callable[[Any, str, EventDict], EventDict]

__all__ = ["structlog_processor", "structlog_renderer"]

_LEVELS: Final = {
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
    "exception": logging.ERROR,
    "error": logging.ERROR,
    "err": logging.ERROR,
    "warning": logging.WARNING,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "msg": logging.INFO,
    "debug": logging.DEBUG,
}
"""Methods of loggers."""


def structlog_processor(resilience: Resilience, *, request_id: str | None = "x-request-id", calls: bool = False) -> Processor:
    """A processor that adds what :class:`~somaresil.integrations.logging.ResilienceFilter` adds, as far as it is known.

    What an event has already under one of these names stays. Options and errors are those of the filter.
    """
    where = ResilienceFilter(resilience, request_id=request_id, calls=calls)

    def processor(_logger: Any, _method: str, event: EventDict) -> EventDict:
        try:
            found = fields(where.request_id, _error_of(event))
            for name, value in found.items():
                if value != NOTHING[name]:
                    event.setdefault(name, value)
        except Exception as broken:  # noqa: BLE001 - the line goes on without it
            where.report(broken)
        return event

    return processor


def structlog_renderer(
    resilience: Resilience | None = None,
    *,
    longest: int = 8_192,
    stack: int = 8_192,
    exception_messages: bool = False,
    secrets: Iterable[str] = (),
) -> Callable[[Any, str, EventDict], str]:
    """The last processor: makes of an event the line that :class:`~somaresil.integrations.jsonlogs.JsonFormatter` would write.

    Time is that of the clock of ``resilience``, the level that of the method, ``logger`` what is bound under that name. Options and errors
    are those of the formatter.
    """
    formatter = JsonFormatter(resilience, longest=longest, stack=stack, exception_messages=exception_messages, secrets=secrets)

    def renderer(_logger: Any, method: str, event: EventDict) -> str:
        given = dict(event)
        error = _error_of(given)
        given.pop("exc_info", None)
        # What other processors have said of the same stays out: it is said here.
        for name in ("level", "timestamp", "exception"):
            given.pop(name, None)
        at = None if resilience is None else resilience.clock.time()
        return formatter.write(
            _LEVELS.get(method, logging.INFO), str(given.pop("logger", "")), at, given.pop("event", ""), given, error=error
        )

    return renderer


def _error_of(event: EventDict) -> BaseException | None:
    """What an event is about: an error, ``exc_info=True`` or what ``sys.exc_info`` gives."""
    given = event.get("exc_info")
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        found: Any = given
        return found[1] if len(found) > 1 and isinstance(found[1], BaseException) else None
    return sys.exc_info()[1] if given else None
