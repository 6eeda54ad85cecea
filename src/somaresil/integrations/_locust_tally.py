"""What the users of one Locust process have seen, on its way to the master: books that add up without losing anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import describe
from somaresil.load.books import Books, Ending
from somaresil.load.measure import Measure

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["NOT_BEGUN", "SSE", "Sum", "Tally", "ending_of", "failure_of"]

SSE: Final = "SSE"
"""The type of request under which Locust and the books have streams."""
NOT_BEGUN: Final = "(not begun)"
"""The book of the runs of tasks that were due and have not begun."""
_MARK: Final = "x-somaresil-chaos"
_ERROR: Final = 400
_LONGEST_KIND: Final = 80
_DEEPEST: Final = 16
_KINDS: Final = (
    ("Timeout", "timeout"),
    ("ConnectionRefused", "refused"),
    ("SSL", "tls"),
    ("ConnectionReset", "reset"),
    ("BrokenPipe", "reset"),
    ("RemoteDisconnected", "closed"),
    ("HTTPConnectionClosed", "closed"),
    ("IncompleteRead", "cut off"),
    ("ChunkedEncoding", "cut off"),
    ("ProtocolError", "cut off"),
)
"""What is in the name of an error, and the kind that it is of; the first that fits any error in the chain."""


def failure_of(exception: object, status: object = None) -> str | None:
    """The kind of what went wrong, as ``somaresil load`` calls it; None: nothing did, or the task has said that nothing did."""
    if exception is None:
        return None
    if isinstance(status, int) and status >= _ERROR:
        return f"status {status}"
    names = [name for error in _chain(exception) for name in (each.__name__ for each in type(error).__mro__)]
    for part, kind in _KINDS:
        if any(part in name for name in names):
            return kind
    # A text is the task's own judgement of an answer.
    return (str(exception).strip() or type(exception).__name__)[:_LONGEST_KIND]


def _chain(error: object) -> Iterator[BaseException]:
    """An error and what led to it; clients hide that in their arguments as well."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _DEEPEST:
        found = waiting.pop(0)
        if not isinstance(found, BaseException) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [*found.args, getattr(found, "reason", None), found.__cause__, found.__context__]


def ending_of(
    request_type: str, name: str, response_time: float | None, exception: object, response: Any, *, size: Any, now: float, late: float
) -> Ending:
    """One request as Locust tells of it at ``now``: ``response_time`` in milliseconds; the run of its task began ``late`` seconds late."""
    headers = getattr(response, "headers", None)
    took = max(0.0, (response_time or 0.0) / 1000.0) + max(0.0, late)
    return Ending(
        f"{request_type} {name}",
        now - took,
        now,
        failure_of(exception, getattr(response, "status_code", None)),
        received=size if isinstance(size, int) else 0,
        injected=headers is not None and bool(headers.get(_MARK)),
    )


class Tally:
    """What one process has counted since it last told the master."""

    def __init__(self, bounds: Mapping[str, tuple[float, ...]] | None = None) -> None:
        """Nothing counted; ``bounds``: what is to be counted exactly, by metric."""
        self._bounds = dict(bounds or {})
        self.busiest = 0.0
        """The largest share of a processor that the process used in a slice."""
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._books = Books(self._bounds)
        self._lag = Measure()
        self.busiest = 0.0

    def note(self, ending: Ending) -> None:
        """Count a request."""
        # What was struck is a book of its own, and was begun there too.
        self._books.note(ending)
        part = self._books.injected if ending.injected else self._books.calm
        part[ending.request].started += 1

    def miss(self, runs: int) -> None:
        """Count runs that were due and have not begun."""
        if runs > 0:
            self._books.book(NOT_BEGUN).dropped += runs

    def lag(self, seconds: float) -> None:
        """Count how much later than asked for a wait was over."""
        self._lag.add(max(0.0, seconds))

    def take(self) -> dict[str, Any]:
        """What was counted since the last time, for a message."""
        books, lag = self._books, self._lag
        self._books, self._lag = Books(self._bounds), Measure()
        return {"books": books.as_dict(), "lag": lag.as_dict(), "busiest": self.busiest}


class Sum:
    """What all processes have told."""

    def __init__(self, bounds: Mapping[str, tuple[float, ...]] | None = None) -> None:
        """Nothing yet."""
        self._bounds = dict(bounds or {})
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.books = Books(self._bounds)
        self.clients: dict[str, tuple[float, Measure]] = {}
        """By process: its largest share of a processor, and how late its waits were over."""
        self.last: set[str] = set()
        """Those that have told everything."""
        self.problems: list[str] = []

    def add(self, client: str, told: Any, *, last: bool = False) -> None:
        """Count what one has told. What cannot be read is a problem: then nothing is known for certain."""
        try:
            books, lag, busiest = Books.from_dict(told["books"]), Measure.from_dict(told["lag"]), float(told["busiest"])
        except (KeyError, TypeError, ValueError) as broken:
            self.problems.append(f"a report of {client} could not be read: {describe(broken)}")
            return
        self.books.merge(books)
        before, measure = self.clients.get(client, (0.0, Measure()))
        measure.merge(lag)
        self.clients[client] = (max(before, busiest), measure)
        if last:
            self.last.add(client)

    @property
    def missing(self) -> list[str]:
        """Those that have told something, and not their last."""
        return sorted(set(self.clients) - self.last)
