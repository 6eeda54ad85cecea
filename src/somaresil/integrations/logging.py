"""The standard library's logging: one line an event, with the facts as structured fields.

    resilience.on(log_events())

A line says what happened in words; the same facts stand in the record as ``somaresil_event``, ``somaresil_guard``, ``somaresil_outcome``
and so on, for formatters that write JSON. There are no other keys than the fields of the events: never arguments, headers, bodies or the
messages of exceptions. Values are short and cannot forge a line or steer a terminal.

What happens to a single call is ``DEBUG``, for it may happen a thousand times a second; what happens to a circuit or an experiment is
``INFO``, and ``WARNING`` when somebody should look; a defect is ``ERROR``. See :data:`DEFAULT_LEVELS`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker, did_you_mean
from somaresil.eventtext import DEFAULT_LEVELS, facts, in_words, level_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.events import Event, Listener

__all__ = ["DEFAULT_LEVELS", "log_events"]


Level = int | str | None


def log_events(logger: logging.Logger | str | None = None, levels: Mapping[type, Level] | None = None) -> Listener:
    """A listener that writes events to ``logger`` (a logger or its name; ``somaresil.events`` when None).

    ``levels`` changes :data:`DEFAULT_LEVELS` for some kinds of event: a number, a name such as ``"INFO"``, or None for never. An event
    below the level of the logger costs one look at that level.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("log_events")
    if not (logger is None or isinstance(logger, logging.Logger | str)):
        check.problem("logger", logger, "a logger, its name or None")
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
        extra = {f"somaresil_{name}": value for name, value in said.items()}
        # Not as arguments: a fact with a percent sign in it is no format.
        target.log(level, "%s", in_words(event, said), extra={"somaresil_event": kind.__name__, **extra})

    return listener


def _level(check: Checker, path: str, level: object) -> int | None:
    if level is None or (isinstance(level, int) and not isinstance(level, bool)):
        return level
    named = logging.getLevelNamesMapping()
    if isinstance(level, str) and level.upper() in named:
        return named[level.upper()]
    check.problem(path, level, f"a number, None or one of {', '.join(named)}", did_you_mean(level, named))
    return None
