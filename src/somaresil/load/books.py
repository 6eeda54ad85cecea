"""What has become of requests, in counts and measures that can be added to those of other processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from somaresil.load.measure import Measure

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ABANDONED", "METRICS", "MOST_KINDS", "OTHER", "Book", "Books", "Ending"]

ABANDONED: Final = "abandoned"
"""The failure of what was in flight when a run was ended; it is counted apart, for it says nothing about the service."""
MOST_KINDS: Final = 40
"""Kinds of errors that are counted apart in a book; further ones together, as :data:`OTHER`."""
OTHER: Final = "other"
METRICS: Final = ("latency", "first", "gap")
"""What is measured: seconds from the intended start to the end and to the first item of a stream, and between two items."""


@dataclass(slots=True)
class Ending:
    """How one request has ended, as its caller saw it. Times are readings of one monotonic clock, in seconds."""

    request: str
    """The name of the request in its scenario."""
    due: float
    """When it was meant to begin."""
    ended: float
    failure: str | None = None
    """The kind of what went wrong; None: answered as expected, in full and in time."""
    stream: bool = False
    """Whether it was answered by a stream that has begun."""
    truncated: bool = False
    """Whether that stream ended without its last event."""
    first: float | None = None
    """When the first item of the stream came."""
    gaps: Measure | None = None
    """Seconds between the items of the stream."""
    items: int = 0
    received: int = 0
    """Bytes."""
    injected: bool = False
    """Whether the service says that an experiment has struck this request."""


@dataclass(slots=True)
class Book:
    """Counts of the requests of one name (or of several)."""

    bounds: Mapping[str, tuple[float, ...]] = field(default_factory=dict, compare=False)
    """What is to be counted exactly, by metric."""
    started: int = 0
    dropped: int = 0
    """Arrivals for which nothing was begun, because too many requests were in flight."""
    abandoned: int = 0
    """Requests that were in flight when the run was ended: neither good nor bad."""
    ended: int = 0
    good: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    streams: int = 0
    truncated: int = 0
    items: int = 0
    received: int = 0
    measures: dict[str, Measure] = field(default_factory=dict)
    """By metric. The latency is that of good answers: a quick error must not make it look better."""

    def __post_init__(self) -> None:
        """Make the measures that are not there."""
        for metric in METRICS:
            if metric not in self.measures:
                self.measures[metric] = Measure(self.bounds.get(metric, ()))

    @property
    def latency(self) -> Measure:
        """Seconds from the intended start to the end, of what ended well."""
        return self.measures["latency"]

    @property
    def first(self) -> Measure:
        """Seconds from the intended start to the first item of a stream."""
        return self.measures["first"]

    @property
    def gap(self) -> Measure:
        """Seconds between two items of a stream."""
        return self.measures["gap"]

    @property
    def failed(self) -> int:
        """Requests that ended, and not well."""
        return self.ended - self.good

    def note(self, ending: Ending) -> None:
        """Count what has ended."""
        if ending.failure == ABANDONED:
            self.abandoned += 1
            return
        self.ended += 1
        self.received += ending.received
        if ending.failure is None:
            self.good += 1
            self.measures["latency"].add(max(0.0, ending.ended - ending.due))
        else:
            kind = ending.failure
            self.errors[kind if kind in self.errors or len(self.errors) < MOST_KINDS else OTHER] += 1
        if ending.stream:
            self.streams += 1
            self.truncated += ending.truncated
            self.items += ending.items
            if ending.first is not None:
                self.measures["first"].add(max(0.0, ending.first - ending.due))
            if ending.gaps is not None:
                self.measures["gap"].merge(ending.gaps)

    def merge(self, other: Book) -> None:
        """Count what the other has counted."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, times in other.errors.items():
            self.errors[kind if kind in self.errors or len(self.errors) < MOST_KINDS else OTHER] += times
        for metric in METRICS:
            self.measures[metric].merge(other.measures[metric])

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        measures = {metric: self.measures[metric].as_dict() for metric in METRICS}
        return {**counts, "errors": dict(sorted(self.errors.items())), **measures}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Book:
        """What :meth:`as_dict` has written. Raises :class:`ValueError` for anything else."""
        try:
            counts = {name: data[name] for name in _COUNTS}
            errors = Counter({str(kind): times for kind, times in data["errors"].items()})
            measures = {metric: Measure.from_dict(data[metric]) for metric in METRICS}
        except (AttributeError, KeyError, TypeError) as broken:
            raise ValueError(f"not a book: {type(broken).__name__}: {broken}") from None
        if any(isinstance(times, bool) or not isinstance(times, int) or times < 0 for times in (*counts.values(), *errors.values())):
            raise ValueError("not a book: a count is a whole number that is not negative")
        return cls(errors=errors, measures=measures, **counts)


_COUNTS: Final = ("started", "dropped", "abandoned", "ended", "good", "streams", "truncated", "items", "received")


class Books:
    """The books of a run: one for each request, apart for what experiments have struck, and apart for the time in which one ran."""

    def __init__(self, bounds: Mapping[str, tuple[float, ...]] | None = None) -> None:
        """Nothing counted; ``bounds``: what is to be counted exactly, by metric."""
        self._bounds = dict(bounds or {})
        self.calm: dict[str, Book] = {}
        """By the name of the request: what began while no experiment ran."""
        self.chaos: dict[str, Book] = {}
        """What began while one ran, and was not struck as far as the service says."""
        self.injected: dict[str, Book] = {}
        """What the service says was struck."""

    def book(self, request: str, *, chaos: bool = False) -> Book:
        """The book of a request that begins now."""
        return self._of(self.chaos if chaos else self.calm, request)

    def note(self, ending: Ending, *, chaos: bool = False) -> None:
        """Count what has ended; ``chaos``: whether an experiment ran when it began."""
        self._of(self.injected if ending.injected else self.chaos if chaos else self.calm, ending.request).note(ending)

    def merge(self, other: Books) -> None:
        """Count what the other has counted."""
        for mine, theirs in ((self.calm, other.calm), (self.chaos, other.chaos), (self.injected, other.injected)):
            for request, book in theirs.items():
                self._of(mine, request).merge(book)

    def total(self, requests: Iterable[str] | None = None, *, parts: Iterable[str] = ("calm", "chaos")) -> Book:
        """One book of several: these requests (None: all) in these parts. What was struck is in none unless it is asked for."""
        wanted = None if requests is None else set(requests)
        summed = Book(self._bounds)
        for part in parts:
            for request, book in getattr(self, part).items():
                if wanted is None or request in wanted:
                    summed.merge(book)
        return summed

    @property
    def requests(self) -> tuple[str, ...]:
        """The names of what was asked for."""
        return tuple(sorted({*self.calm, *self.chaos, *self.injected}))

    def _of(self, books: dict[str, Book], request: str) -> Book:
        found = books.get(request)
        if found is None:
            found = books[request] = Book(self._bounds)
        return found

    def as_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {part: {request: book.as_dict() for request, book in getattr(self, part).items()} for part in _PARTS}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Books:
        """What :meth:`as_dict` has written. Raises :class:`ValueError` for anything else."""
        made = cls()
        try:
            for part in _PARTS:
                getattr(made, part).update({str(name): Book.from_dict(book) for name, book in data[part].items()})
        except (AttributeError, KeyError, TypeError) as broken:
            raise ValueError(f"no books: {type(broken).__name__}: {broken}") from None
        return made


_PARTS: Final = ("calm", "chaos", "injected")
