"""What the code under test may be found to do wrong, and by which measure. Counting is done by :mod:`somaresil.chaos.grading`.

Every finding needs enough evidence to be no accident: in doubt there is none. The kinds are those of llmock, which grades clients from the
other end of the wire, and some that only the inside shows.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from somaresil.guard import Guard

__all__ = ["SEVERITIES", "Book", "Grade", "Tally", "Truncation", "grades_of"]

SEVERITIES: Final = {
    "breaker_never_opened": "high",
    "fallback_never_used": "medium",
    "gave_up": "low",
    "no_backoff": "high",
    "no_jitter": "medium",
    "retried_non_retryable": "medium",
    "retry_after_ignored": "high",
    "retry_storm": "high",
    "timeout_longer_than_deadline": "medium",
    "truncated_stream_accepted": "high",
}
"""Every finding, and how much it matters."""
_ORDER: Final = ("high", "medium", "low")

FEWEST_CALLS: Final = 5
"""Struck calls before anything is said about calls in general."""
MOST_ATTEMPTS: Final = 4.0
"""Attempts a struck call, on average: three are usual (the SRE book: "Handling Overload"), and retries at two levels multiply."""
MOST_OF_ONE: Final = 10
"""Attempts of one call."""
FEWEST_PAUSES: Final = 8
SHORTEST_PAUSE: Final = 0.01
"""Seconds: what is shorter gives nobody time to recover."""
SHORT_SHARE: Final = 0.75
"""So many pauses must be that short: full jitter makes a tenth of the first ones so."""
FEWEST_ALIKE: Final = 10
ALIKE: Final = 0.02
"""Pauses are alike within this share of their median. Of a jitter of 10 % either way a fifth lies in there."""
ALIKE_SHARE: Final = 0.9
MEASURED_ALIKE: Final = 0.002
"""Seconds by which pauses that were measured and not planned may differ anyway: timers are not exact."""
SHORTEST_MEASURED: Final = 0.05
"""Seconds: shorter measured pauses say nothing about jitter."""
MOST_PAUSES: Final = 200
"""Kept for each number of the retry, up to the fifth."""
LAST_RETRY: Final = 5
USUAL_RATE, USUAL_CALLS, USUAL_WINDOW = 0.5, 20, 30.0
"""What a breaker that is not there would have gone by: the defaults of :class:`~somaresil.CircuitBreaker`."""
BREAKER_MARGIN: Final = 0.1
"""Share above the threshold, and half as many calls again: two windows are never cut alike."""
MOST_OUTCOMES: Final = 2_048
FEWEST_UNSAVED: Final = 3
FEWEST_DEADLINES: Final = 3
GIVEN_UP_SHARE: Final = 0.5
MOST_NAMES: Final = 5
MOST_TRUNCATIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Grade:
    """One finding about the code around one guard."""

    name: str
    """One of :data:`SEVERITIES`."""
    guard: str
    severity: str
    """``high``, ``medium`` or ``low``."""
    says: str
    """What was seen and what to do, in a sentence."""
    evidence: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The figures behind it."""

    def __str__(self) -> str:
        """A line to read."""
        return f"{self.guard}: {self.name} ({self.severity}): {self.says}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"name": self.name, "guard": self.guard, "severity": self.severity, "says": self.says, "evidence": dict(self.evidence)}


class Truncation:
    """A stream that was ended early, and what became of it."""

    __slots__ = ("holder", "noticed")

    def __init__(self, holder: Any) -> None:
        """``holder``: the guarded call around it, which has not ended; None: there is none."""
        self.holder = holder
        self.noticed = False


@dataclass(slots=True)
class Tally:
    """Struck calls that are over, added up."""

    calls: int = 0
    attempts: int = 0
    most: int = 0
    unsaved: int = 0
    """Those whose caller got an error that a fallback could have replaced."""
    given_up: int = 0
    """Those of them that were not tried again, with nothing to forbid it."""

    def plus(self, attempts: int, *, unsaved: bool, given_up: bool) -> None:
        """Add one call."""
        self.calls += 1
        self.attempts += attempts
        self.most = max(self.most, attempts)
        self.unsaved += unsaved
        self.given_up += given_up


@dataclass(slots=True)
class Book:
    """What was seen of one guard. Bounded, however long it goes on."""

    guard: Guard
    tally: Tally = field(default_factory=Tally)
    struck: int = 0
    """Attempts."""
    pauses: dict[int, list[tuple[float, bool]]] = field(default_factory=dict)
    """By number of the retry: seconds, and whether they were measured."""
    asked: int = 0
    ignored: int = 0
    harmful: int = 0
    harmful_errors: set[str] = field(default_factory=set)
    fallbacks: int = 0
    opened: bool = False
    deadlines: int = 0
    without_deadline: int = 0
    longest_deadline: float = 0.0
    truncations: list[Truncation] = field(default_factory=list)
    over: tuple[int, float] = (0, 0.0)
    """Most calls in a window that should have opened a breaker, and the share of failures."""
    outcomes: deque[tuple[float, bool]] = field(default_factory=deque)
    bad: int = 0

    def paused(self, number: int, seconds: float, *, measured: bool) -> None:
        """A pause before retry ``number``."""
        kept = self.pauses.setdefault(min(number, LAST_RETRY), [])
        if len(kept) < MOST_PAUSES:
            kept.append((seconds, measured))

    def judged(self, now: float, *, bad: bool) -> None:
        """How an attempt counts for a breaker."""
        rate, calls, window = self.threshold()
        self.outcomes.append((now, bad))
        self.bad += bad
        while self.outcomes and (self.outcomes[0][0] <= now - window or len(self.outcomes) > MOST_OUTCOMES):
            self.bad -= self.outcomes.popleft()[1]
        seen = len(self.outcomes)
        if bad and seen >= 1.5 * calls and self.bad / seen >= min(1.0, rate + BREAKER_MARGIN) and seen > self.over[0]:
            self.over = seen, self.bad / seen

    def threshold(self) -> tuple[float, int, float]:
        """Share of failures, number of calls and seconds by which its breaker opens, or would if there were one."""
        options = None if self.guard.breaker is None else self.guard.breaker.options
        rate = getattr(options, "failure_rate", None) or USUAL_RATE
        calls = getattr(options, "minimum_calls", None) or USUAL_CALLS
        return float(rate), int(calls), float(getattr(options, "window", None) or USUAL_WINDOW)


def grades_of(book: Book, tally: Tally) -> Iterator[Grade]:
    """The findings about one guard; of one that no experiment has struck nothing is known."""
    if not book.struck:
        return
    for name, says, evidence in _found(book, tally):
        yield Grade(name, book.guard.name, SEVERITIES[name], says, evidence)


def in_order(grades: Iterable[Grade]) -> tuple[Grade, ...]:
    """The worst first, then by guard and name."""
    return tuple(sorted(grades, key=lambda grade: (_ORDER.index(grade.severity), grade.guard, grade.name)))


def _found(book: Book, tally: Tally) -> Iterator[tuple[str, str, dict[str, Any]]]:
    guard = book.guard
    average = tally.attempts / tally.calls if tally.calls else 0.0
    if (tally.calls >= FEWEST_CALLS and average > MOST_ATTEMPTS) or tally.most > MOST_OF_ONE:
        yield (
            "retry_storm",
            f"a struck call was attempted {average:.1f} times on average, up to {tally.most} times: retry at one level, within a budget",
            {"calls": tally.calls, "attempts": tally.attempts, "most": tally.most},
        )
    if book.ignored:
        yield (
            "retry_after_ignored",
            f"{book.ignored} of {book.asked} further attempts came before the time that the answer had asked for (Retry-After)",
            {"asked": book.asked, "ignored": book.ignored},
        )
    yield from _about_pauses(book)
    if book.harmful:
        names = sorted(book.harmful_errors)
        yield (
            "retried_non_retryable",
            f"{book.harmful} attempts repeated what no repetition mends or what does harm ({', '.join(names)})",
            {"attempts": book.harmful, "errors": names},
        )
    yield from _about_policies(book, tally)
    accepted = sum(not truncation.noticed and truncation.holder is None for truncation in book.truncations)
    if accepted:
        yield (
            "truncated_stream_accepted",
            f"{accepted} streams that ended early counted as whole: look for the finish reason, and fail or ask again without it",
            {"streams": len(book.truncations), "accepted": accepted},
        )
    if tally.given_up >= FEWEST_CALLS and tally.given_up >= GIVEN_UP_SHARE * tally.calls and guard.fallback is None and guard.hedge is None:
        yield (
            "gave_up",
            f"{tally.given_up} of {tally.calls} struck calls failed at their first attempt, with no retry and no fallback",
            {"calls": tally.calls, "given_up": tally.given_up},
        )


def _about_pauses(book: Book) -> Iterator[tuple[str, str, dict[str, Any]]]:
    every = [seconds for kept in book.pauses.values() for seconds, _ in kept]
    short = sum(seconds < SHORTEST_PAUSE for seconds in every)
    if len(every) >= FEWEST_PAUSES and short >= SHORT_SHARE * len(every):
        yield (
            "no_backoff",
            f"{short} of {len(every)} further attempts came within {SHORTEST_PAUSE * 1_000:.0f} ms: wait longer each time",
            {"pauses": len(every), "short": short},
        )
        return
    for number, kept in sorted(book.pauses.items()):
        seconds = [each for each, _ in kept]
        measured = any(was for _, was in kept)
        middle = median(seconds)
        if len(seconds) < FEWEST_ALIKE or middle < (SHORTEST_MEASURED if measured else SHORTEST_PAUSE):
            continue
        tolerance = max(ALIKE * middle, MEASURED_ALIKE if measured else 0.0)
        alike = sum(abs(each - middle) <= tolerance for each in seconds)
        if alike >= ALIKE_SHARE * len(seconds):
            yield (
                "no_jitter",
                f"{alike} of {len(seconds)} calls paused for the same {middle:.3g} s before retry {number}: they all come back at once",
                {"retry": number, "pauses": len(seconds), "alike": alike, "median": middle},
            )
            return


def _about_policies(book: Book, tally: Tally) -> Iterator[tuple[str, str, dict[str, Any]]]:
    guard = book.guard
    seen, share = book.over
    if seen and not book.opened:
        rate, calls, window = book.threshold()
        why = "there is no breaker" if guard.breaker is None else "its breaker stayed closed"
        yield (
            "breaker_never_opened",
            f"{share:.0%} of {seen} calls failed within {window:g} s, and {why}",
            {"calls": seen, "failure_rate": share, "threshold": rate, "minimum_calls": calls, "breaker": guard.breaker is not None},
        )
    if guard.fallback is not None and not book.fallbacks and tally.unsaved >= FEWEST_UNSAVED:
        yield (
            "fallback_never_used",
            f"{tally.unsaved} callers got an error, and the fallback has answered none of them: look at what it is for",
            {"failed": tally.unsaved},
        )
    limit = None if guard.timeout is None or guard.timeout.options.shadow else guard.timeout.options.total
    in_time = book.deadlines >= FEWEST_DEADLINES and not book.without_deadline
    if limit is not None and in_time and float(limit) > book.longest_deadline:  # type: ignore[arg-type]
        yield (
            "timeout_longer_than_deadline",
            f"its timeout of {limit:.3g} s can never pass: nobody who called it had more than {book.longest_deadline:.3g} s",
            {"timeout": float(limit), "longest_deadline": book.longest_deadline, "calls": book.deadlines},  # type: ignore[arg-type]
        )
