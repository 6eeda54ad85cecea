"""Formatters for the logs of a service: one JSON object a line, or a line for people that nobody can forge.

    logging.config.dictConfig(configure_logging(resilience))

A line of JSON has the keys of :data:`LINE_KEYS`, in which the names of OpenTelemetry stand wherever it has any, and whatever was given as
``extra``. It never holds the arguments of a call to the logger by themselves, nor objects, nor what stands under a name that sounds like a
secret (:data:`SECRET_WORDS`, :data:`SECRET_ENDINGS`), nor the message of an exception unless somebody asks for it. Every text is bounded,
everything that is no printable ASCII is an escape of JSON, and whatever cannot be written costs its value and not the line.
"""

from __future__ import annotations

import json
import logging
import logging.config
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from somaresil.config import Checker
from somaresil.eventtext import harmless
from somaresil.integrations._logerrors import message_of_error, stack_of
from somaresil.integrations._logfields import NOTHING
from somaresil.integrations._logvalues import HIDDEN, SECRET_ENDINGS, SECRET_WORDS, Cleaner, Room, Shown, bounded, timestamp, type_name
from somaresil.integrations.logging import ResilienceFilter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.resilience import Resilience

__all__ = [
    "HIDDEN",
    "LINE_KEYS",
    "LOKI_LABELS",
    "SECRET_ENDINGS",
    "SECRET_WORDS",
    "JsonFormatter",
    "SafeFormatter",
    "configure_logging",
    "loki_labels",
]

LINE_KEYS: Final[dict[str, str]] = {
    "time": "Timestamp",
    "level": "SeverityText",
    "logger": "InstrumentationScope.Name",
    "message": "Body",
    "trace_id": "TraceId",
    "span_id": "SpanId",
    "service.name": "Resource",
    "service.instance.id": "Resource",
    "deployment.environment.name": "Resource",
    "event.name": "EventName",
    "exception.type": "Attributes",
    "exception.message": "Attributes",
    "exception.stacktrace": "Attributes",
    "code.stacktrace": "Attributes",
    "http.request.method": "Attributes",
    "http.route": "Attributes",
    "http.response.status_code": "Attributes",
    "network.protocol.version": "Attributes",
    "client.address": "Attributes",
    "url.path": "Attributes",
    "request_id": "Attributes",
    "somaresil.guard": "Attributes",
    "somaresil.attempt": "Attributes",
    "somaresil.experiment": "Attributes",
    "dropped_attributes_count": "DroppedAttributesCount",
    "log.problem": "Attributes",
}
"""Keys of a line that are ours, with the field of OpenTelemetry's log data model in which each belongs."""
LOKI_LABELS: Final = ("service_name", "deployment_environment", "level")
"""All labels that streams of Loki should have: each combination is a stream, and only these have few values. Everything else is found in
the line by ``| json``, which makes ``somaresil_guard`` of ``somaresil.guard``."""

_RESERVED: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
"""What every record has; and the same message with colours, which uvicorn adds."""
_OF_OPENTELEMETRY: Final = frozenset({"otelSpanID", "otelTraceID", "otelTraceSampled", "otelServiceName"})
"""What its instrumentation of logging adds: the same under other names."""
_NAMES: Final = {
    "somaresil_event": "event.name",
    "http_request_method": "http.request.method",
    "http_route": "http.route",
}
_OURS: Final = "somaresil_"
_WHERE: Final = {name: _NAMES.get(name) or (f"somaresil.{name[len(_OURS) :]}" if name.startswith(_OURS) else name) for name in NOTHING}
"""What the filter adds, by the keys of a line."""
_SIMPLE: Final = (str, int)
_LEVELS: Final = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))
_MOST_FIELDS: Final = 64
_LONGEST_NAME: Final = 200
_LONGEST: Final = 1_000_000
_encode: Final = json.JSONEncoder(ensure_ascii=True, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_ACCESS: Final = "uvicorn.access"
_ACCESS_FIELDS: Final = 5


class JsonFormatter(logging.Formatter):
    """One JSON object a line, whatever was logged. Never raises.

    ``resilience`` says which service, instance and environment stand in each line; None: none. ``secrets`` are words beside
    :data:`SECRET_WORDS`. A message has at most ``longest`` characters, a text of ``extra`` 1,024, all of it 16,384 in at most 64 fields.
    ``stack`` is how many characters of the stack of an exception are written (0: none, only its type); it holds frames and types, and the
    messages of exceptions only with ``exception_messages``.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        resilience: Resilience | None = None,
        *,
        longest: int = 8_192,
        stack: int = 8_192,
        exception_messages: bool = False,
        secrets: Iterable[str] = (),
    ) -> None:
        """Check the options."""
        super().__init__()
        check = Checker("JsonFormatter")
        _check(check, longest, stack, exception_messages, secrets)
        check.finish()
        self._resilience = resilience
        self._cleaner = Cleaner(secrets)
        self._longest = longest
        self._stack = stack
        self._messages = exception_messages

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        try:
            return _encode(self._line(record))
        except Exception as broken:  # noqa: BLE001 - a line that cannot be written as it should be is still a line
            return _encode(self._bare(record, broken))

    def write(
        self, level: int, logger: str, at: float | None, message: object, given: Mapping[str, Any], *, error: BaseException | None = None
    ) -> str:
        """A line for who has no record, with ``given`` as its fields; ``at`` None: now. Never raises."""
        record = logging.makeLogRecord({"name": logger, "levelno": level, "msg": message})
        record.created = record.created if at is None else at
        record.exc_info = None if error is None else (type(error), error, error.__traceback__)
        for name, value in given.items():
            # As logging does it for extra, but that names which a record has already are kept beside.
            record.__dict__[name if name not in _RESERVED else f"extra.{name}"] = value
        return self.format(record)

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        line: dict[str, Any] = {
            "time": timestamp(record.created),
            "level": _level(record.levelno),
            "logger": bounded(str(record.name), _LONGEST_NAME),
        }
        access = _access_of(record)
        if access is None:
            message, problem = _message(record, self._cleaner)
            line["message"] = bounded(message, self._longest)
            if problem:
                line["log.problem"] = problem
        else:
            line["message"] = bounded(access.pop("message"), self._longest)
        resilience = self._resilience
        if resilience is not None:
            line["service.name"] = resilience.service
            line["service.instance.id"] = resilience.instance
            if resilience.environment is not None:
                line["deployment.environment.name"] = resilience.environment
        if access is not None:
            line.update(access)
        if record.exc_info and isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
            self._tell(line, record.exc_info[1])
        if record.stack_info and self._stack:
            line["code.stacktrace"] = bounded(str(record.stack_info), self._stack)
        given = [field for field in record.__dict__.items() if field[0] not in _RESERVED and field[0].__class__ is str]
        if given:
            self._add(line, given)
        return line

    def _tell(self, line: dict[str, Any], error: BaseException) -> None:
        line["exception.type"] = bounded(type_name(error), _LONGEST_NAME)
        if self._messages:
            line["exception.message"] = message_of_error(error)
        if self._stack:
            line["exception.stacktrace"] = stack_of(error, self._stack, messages=self._messages)

    def _add(self, line: dict[str, Any], given: list[tuple[str, Any]]) -> None:
        """What was given as ``extra``, and what filters have added."""
        left, dropped, room, clean = _MOST_FIELDS, 0, Room(), self._cleaner.named
        for name, value in given:
            if name in _WHERE and (value is None or value.__class__ in _SIMPLE):
                # None of these names is that of a secret, and an access line says some of them by itself.
                key = _WHERE[name]
                if value and line.get(key) != value:
                    line[key if key not in line else f"extra.{key}"] = self._cleaner.plain(value, room)
                continue
            if name in _OF_OPENTELEMETRY:
                continue
            if left <= 0:
                dropped += 1
                continue
            left -= 1
            key = _NAMES.get(name) or (f"somaresil.{name[len(_OURS) :]}" if name.startswith(_OURS) else bounded(str(name), _LONGEST_NAME))
            # Nobody writes over what a line says by itself: what he has given is kept beside it.
            taken = key in line or (name in LINE_KEYS and name not in NOTHING)
            line[f"extra.{key}" if taken else key] = clean(key, value, room)
        if dropped:
            line["dropped_attributes_count"] = dropped

    def _bare(self, record: logging.LogRecord, broken: Exception) -> dict[str, Any]:
        """What can be said of every record."""
        level = record.levelno if isinstance(record.levelno, int) else logging.ERROR
        said = record.msg if isinstance(record.msg, str) else f"<{type_name(record.msg)}>"
        return {
            "time": None,
            "level": _level(level),
            "logger": bounded(str(getattr(record, "name", "")), _LONGEST_NAME),
            "message": bounded(said, self._longest),
            "log.problem": type_name(broken),
        }


class SafeFormatter(logging.Formatter):
    r"""Lines for people: what a record says stands in one line, whatever is in it.

    Everything that does not print (line breaks, ESC, marks that turn the direction of writing, separators of lines) is written as an escape
    such as ``\n``, and a backslash as two. The stack of an exception follows in lines that begin with ``  | ``, as no record does.
    Fields that a format names and a record lacks are empty, if they are those of :class:`~somaresil.integrations.logging.ResilienceFilter`.
    Never raises.

    ``fmt``, ``datefmt`` and ``style`` are those of ``logging.Formatter``, the others those of :class:`JsonFormatter`.
    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    def __init__(
        self,
        fmt: str | None = "%(asctime)s %(levelname)s %(name)s %(message)s",
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        *,
        longest: int = 8_192,
        stack: int = 8_192,
        exception_messages: bool = False,
        secrets: Iterable[str] = (),
    ) -> None:
        """Check the options."""
        super().__init__(fmt, datefmt, style, defaults=NOTHING)
        check = Checker("SafeFormatter")
        _check(check, longest, stack, exception_messages, secrets)
        check.finish()
        self._cleaner = Cleaner(secrets)
        self._longest = longest
        self._stack = stack
        self._messages = exception_messages

    def format(self, record: logging.LogRecord) -> str:
        """The line, and below it what belongs to it."""
        try:
            access = _access_of(record)
            message, problem = _message(record, self._cleaner) if access is None else (access["message"], "")
            record.message = bounded(message, self._longest) + (f" (log.problem: {problem})" if problem else "")
            if self.usesTime():
                record.asctime = self.formatTime(record, self.datefmt)
            # Twice the length: an escape is longer than what it stands for, and the format has texts of its own.
            lines = [harmless(self.formatMessage(record), 2 * self._longest + 1_000)]
            if record.exc_info and isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
                error = record.exc_info[1]
                told = stack_of(error, self._stack, messages=self._messages) if self._stack else type_name(error)
                lines += told.split("\n")
            if record.stack_info and self._stack:
                lines += bounded(str(record.stack_info), self._stack).split("\n")
            return "\n  | ".join([lines[0], *(harmless(line, self._longest) for line in lines[1:])])
        except Exception as broken:  # noqa: BLE001 - as in JsonFormatter
            said = record.msg if isinstance(record.msg, str) else f"<{type_name(record.msg)}>"
            return harmless(f"{said} (log.problem: {type_name(broken)})", self._longest)


def loki_labels(resilience: Resilience, *, instance: bool = False) -> dict[str, str]:
    """The labels of all lines of this process; ``level`` is taken from each line.

    ``instance`` adds ``service_instance_id``: a stream for each process that there ever was, so only where these are few.
    """
    labels = {"service_name": resilience.service, "deployment_environment": resilience.environment or "unknown"}
    if instance:
        labels["service_instance_id"] = resilience.instance
    return labels


def configure_logging(
    resilience: Resilience,
    *,
    json: bool = True,
    level: int | str = "INFO",
    levels: Mapping[str, int | str] | None = None,
    stream: Literal["stderr", "stdout"] = "stderr",
    limit: logging.Filter | None = None,
    calls: bool = False,
    request_id: str | None = "x-request-id",
    exception_messages: bool = False,
    secrets: Iterable[str] = (),
    apply: bool = False,
) -> dict[str, Any]:
    """A configuration for ``logging.config.dictConfig`` and for ``uvicorn.run(app, log_config=...)``; ``apply`` puts it in force at once.

    Everything goes to ``stream``: as JSON, or as lines for people. ``level`` is that of the root logger, ``levels`` those of others. The
    loggers of uvicorn go the same way as all others; of its access lines the query is left out. ``limit`` is a
    :class:`~somaresil.integrations.logging.RateLimitFilter`. ``calls`` and ``request_id`` are those of
    :class:`~somaresil.integrations.logging.ResilienceFilter`, the rest those of the formatters.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("configure_logging")
    chosen = {"": level, **(levels or {})}
    for name, asked in chosen.items():
        _check_level(check, f"levels[{name}]" if name else "level", asked)
    check.one_of("stream", stream, ("stderr", "stdout"))
    if limit is not None:
        check.type("limit", limit, logging.Filter, "a RateLimitFilter or None")
    words = (secrets,) if isinstance(secrets, str) else tuple(secrets)
    _check(check, _LONGEST, 0, exception_messages, secrets)
    check.finish()
    options: dict[str, Any] = {"exception_messages": exception_messages, "secrets": words}

    def formatter(**_of_uvicorn: object) -> logging.Formatter:
        # Uvicorn adds whether to use colours, when it was told.
        return JsonFormatter(resilience, **options) if json else SafeFormatter(_FOR_PEOPLE, **options)

    where = ResilienceFilter(resilience, request_id=request_id, calls=calls)
    filters: dict[str, Any] = {"where": {"()": lambda: where}}
    if limit is not None:
        filters["limit"] = {"()": lambda: limit}
    through: dict[str, Any] = {"handlers": [], "propagate": True}
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": filters,
        # Uvicorn looks for these two names.
        "formatters": {"default": {"()": formatter}, "access": {"()": formatter}},
        "handlers": {
            "default": {
                "class": "logging.StreamHandler",
                "stream": f"ext://sys.{stream}",
                "formatter": "default",
                # The limit first: what is left out need not be told where it stands.
                "filters": [*reversed(filters)],
            }
        },
        "root": {"level": _named(level), "handlers": ["default"]},
        "loggers": {
            **{name: dict(through) for name in ("uvicorn", "uvicorn.error", _ACCESS)},
            **{name: {**through, "level": _named(asked)} for name, asked in chosen.items() if name},
        },
    }
    if apply:
        logging.config.dictConfig(config)
    return config


_FOR_PEOPLE: Final = "%(asctime)s %(levelname)-8s %(name)s [%(trace_id)s %(http_route)s %(somaresil_guard)s] %(message)s"


def _check(check: Checker, longest: object, stack: object, exception_messages: object, secrets: Iterable[str]) -> None:
    check.count("longest", longest, minimum=100, maximum=_LONGEST)
    check.count("stack", stack, minimum=0, maximum=_LONGEST)
    check.type("exception_messages", exception_messages, bool, "True or False")
    words: Any = (secrets,) if isinstance(secrets, str) else secrets
    for word in words:
        if not isinstance(word, str) or not any(map(str.isalnum, word)):
            check.problem("secrets", word, "words, for example 'iban'")


def _check_level(check: Checker, path: str, level: object) -> None:
    named = logging.getLevelNamesMapping()
    if isinstance(level, bool) or not (isinstance(level, int) or (isinstance(level, str) and level.upper() in named)):
        check.problem(path, level, f"a number or one of {', '.join(named)}")


def _named(level: int | str) -> int | str:
    return level.upper() if isinstance(level, str) else level


def _level(number: int) -> str:
    """The usual name for a level, or for the next one below: whoever makes levels of his own must not make labels of his own with them."""
    return next((name for least, name in _LEVELS if number >= least), "DEBUG")


def _message(record: logging.LogRecord, cleaner: Cleaner) -> tuple[str, str]:
    """The message, and what was wrong with it: its template is better than nothing."""
    try:
        message = record.msg if isinstance(record.msg, str) else str(record.msg)
        args: Any = record.args
        if isinstance(args, Mapping):
            args = Shown(args, cleaner)
            # An empty mapping is none: logging does not format then.
            return (message % args if args else message), ""
        return (message % args if args else message), ""
    except Exception as broken:  # noqa: BLE001 - whoever logs has not written this line to see it fail
        template = record.msg if isinstance(record.msg, str) else f"<{type_name(record.msg)}>"
        return template, type_name(broken)


def _access_of(record: logging.LogRecord) -> dict[str, Any] | None:
    """The parts of an access line of uvicorn; None: it is none. Without the query, which holds whatever clients put there."""
    args: Any = record.args
    if record.name != _ACCESS or not isinstance(args, tuple) or len(args) != _ACCESS_FIELDS:
        return None
    client, method, path, version, status = args
    path, method = str(path).partition("?")[0], str(method)
    found: dict[str, Any] = {
        "message": f"{method} {path} {status}",
        "http.request.method": bounded(method, 20),
        "url.path": bounded(path, 1_024),
        "network.protocol.version": bounded(str(version), 20),
        "client.address": bounded(str(client), 100),
    }
    if isinstance(status, int):
        found["http.response.status_code"] = int(status)
    return found
