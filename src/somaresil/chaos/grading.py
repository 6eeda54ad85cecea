"""Grading the client: while experiments strike, the engine watches what the code around the guards makes of it.

Faults show two things: what breaks, and how the caller behaves then. Whether it comes back at once, whether it hears when it is asked to
wait, whether it notices that a stream ended early. Whoever serves a model sees this from the other end of the wire (llmock grades its
clients so); here it is seen from inside, with the policies in view.

Attempts belong together when they are of one call, or of one *request*: the same function with the same arguments called again after it
failed, inside of the same :func:`~somaresil.chaos.scope`, the same deadline or the same guarded call around. Calls that nothing holds
together are never taken for retries of one another: two users may ask the same.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from somaresil import callpath, deadline
from somaresil.chaos.findings import MOST_NAMES, MOST_TRUNCATIONS, Book, Grade, Truncation, grades_of, in_order
from somaresil.errors import Rejected
from somaresil.events import BreakerChanged, FallbackUsed, FaultInjected, RetryDenied, RetryScheduled
from somaresil.guard.call import judge
from somaresil.model.breaker import State
from somaresil.outcome import Outcome
from somaresil.retryafter import asked_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping
    from contextvars import Token
    from types import TracebackType

    from somaresil.guard import Guard
    from somaresil.listeners import Listeners
    from somaresil.typing import Call, Clock

__all__ = ["Grade", "Grader"]

_MOST_OPEN: Final = 10_000
"""Calls that are watched at once."""
_MOST_WORKS: Final = 10_000
"""Requests whose calls are held together; the one that was quiet longest is closed then."""
_TRUNCATE: Final = "stream_truncate"
_EARLY: Final = 0.99, 0.005
"""Before so much of what was asked, and by more than so many seconds: clocks and timers are not exact."""
_MENDABLE: Final = frozenset({408, 409, 421, 423, 425, 429})
"""Statuses below 500 after which the same request may do better (RFC 9110, 4918, 8470, 6585)."""
_CLIENT_ERRORS: Final = range(400, 500)
_MISTAKES: Final = (TypeError, AttributeError, NameError, NotImplementedError)

_around: ContextVar[_Open | None] = ContextVar("somaresil_graded_call", default=None)


class Grader:
    """Watches every guard from ``with`` on until its end. Made by :meth:`ChaosEngine.grade`; used once.

    It can be iterated and asked for its length, also while it watches. Memory is bounded; nothing it does changes an outcome. It takes the
    quiet path away from every guard, as experiments do from those that they strike.
    """

    def __init__(self, engine: Any, guards: Callable[[], Mapping[str, Guard]], *, clock: Clock, listeners: Listeners) -> None:
        """Watch nothing yet."""
        self._engine = engine
        self._guards = guards
        self._clock = clock
        self._listeners = listeners
        self._lock = threading.RLock()
        self._books: dict[str, Book] = {}
        self._open: dict[int, _Open] = {}
        self._works: OrderedDict[Hashable, _Work] = OrderedDict()
        self._local = threading.local()
        self._undo: Callable[[], None] | None = None
        self.overlooked = 0
        """Calls that were not watched because too many were open."""

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._undo = self._listeners.add(self._heard, FaultInjected, RetryScheduled, RetryDenied, FallbackUsed, BreakerChanged)
        self._engine.add_grader(self)
        for guard in self._guards().values():
            self.look_at(guard)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Watch no more; what was found stays."""
        self._engine.remove_grader(self)
        for book in tuple(self._books.values()):
            book.guard.faults.unlook(self)
        if self._undo is not None:
            self._undo()

    @property
    def grades(self) -> tuple[Grade, ...]:
        """What was found so far, the worst first, then by guard and name."""
        with self._lock:
            found: list[Grade] = []
            for name, book in self._books.items():
                tally = copy.copy(book.tally)
                for work in self._works.values():
                    if work.guard == name and not work.running:
                        work.add_to(tally)
                found.extend(grades_of(book, tally))
        return in_order(found)

    def __iter__(self) -> Iterator[Grade]:
        """Over :attr:`grades`."""
        return iter(self.grades)

    def __len__(self) -> int:
        """How many were found."""
        return len(self.grades)

    def look_at(self, guard: Guard) -> None:
        """Watch this guard too."""
        with self._lock:
            if guard.name in self._books:
                return
            book = self._books[guard.name] = Book(guard)
            book.opened = guard.breaker is not None and guard.breaker.state is not State.CLOSED
        guard.faults.look(self)

    # -- what the fault point tells -----------------------------------------------------------------------------------------------------

    def began(self, call: Call) -> None:
        """An attempt begins."""
        with self._lock:
            book = self._books[call.guard]
            known = self._open.get(id(call))
            if known is None:
                if len(self._open) >= _MOST_OPEN:
                    self.overlooked += 1
                    return
                known = self._begin(book, call)
            work, now = known.work, self._clock.monotonic()
            if work.attempts:
                self._again(book, work, now)
            work.attempts += 1
            work.began_at = now
            work.failed = None
            known.token = _around.set(known)

    def ended(self, call: Call, error: BaseException | None) -> None:
        """It has ended; a stream: its first item is there."""
        with self._lock:
            known = self._open.get(id(call))
            if known is None:
                return
            book, work, now = self._books[call.guard], known.work, self._clock.monotonic()
            work.ended_at = now
            work.planned = False
            if error is None:
                work.failed, work.delivered = False, True
                book.judged(now, bad=False)
            elif isinstance(error, Exception):
                work.failed = True
                work.asked = self._asked(error)
                work.harm = _harm(call, error)
                book.judged(now, bad=_is_bad(book.guard, call, error))
            # Anything else is a timeout or a caller who has left: the next attempt, or the end of the call, will tell.
            if error is not None or not call.block:
                known.step_out()
            if error is not None:
                # Whatever becomes of it: who fails behind a stream that ended early does not take it for whole.
                for truncation in known.truncations:
                    truncation.noticed = True
        self._local.work = work

    def struck(self, call: Call) -> None:
        """An experiment has struck it, with the kind of fault that this thread was told of last."""
        with self._lock:
            known = self._open.get(id(call))
            if known is not None:
                self._books[call.guard].struck += 1
                known.work.struck = True
                known.kinds.add(getattr(self._local, "fault", ""))

    def _begin(self, book: Book, call: Call) -> _Open:
        around = _around.get()
        around = around if around is not None and around.grader is self else None
        within = deadline.current()
        if within is None:
            book.without_deadline += 1
        else:
            book.deadlines += 1
            book.longest_deadline = max(book.longest_deadline, within.at - within.began)
        context: Any = callpath.current_scope() or within or around
        key = None if context is None else (call.guard, context, _fingerprint(call))
        known = self._open[id(call)] = _Open(self, call, self._work(book, key), around)
        known.work.running = True
        call.at_end(partial(self._over, known))
        return known

    def _work(self, book: Book, key: Hashable) -> _Work:
        """What the call is a part of: the work that failed before, or a new one."""
        before = None if key is None else self._works.get(key)
        if before is not None and before.truncation is not None:
            # Asked for once more in the same request: somebody has seen that it was not whole.
            before.truncation.noticed = True
        if before is not None and before.failed and not before.running:
            self._works.move_to_end(key)
            return before
        work = _Work(book.guard.name)
        if key is not None and not (before is not None and before.running):
            if before is not None:
                before.add_to(book.tally)
            self._works[key] = work
            self._works.move_to_end(key)
            if len(self._works) > _MOST_WORKS:
                _, oldest = self._works.popitem(last=False)
                oldest.add_to(self._books[oldest.guard].tally)
        else:
            work.alone = True
        return work

    def _again(self, book: Book, work: _Work, now: float) -> None:
        """A further attempt: after which pause, and was it right to make it?"""
        if work.failed is None:
            book.judged(now, bad=True)
        elif work.harm is not None:
            book.harmful += 1
            if len(book.harmful_errors) < MOST_NAMES:
                book.harmful_errors.add(work.harm)
        passed = max(0.0, now - work.ended_at)
        if work.asked is None:
            if not work.planned:
                book.paused(work.attempts, passed, measured=True)
        else:
            book.asked += 1
            share, seconds = _EARLY
            book.ignored += passed < work.asked * share - seconds
        work.asked = work.harm = None

    def _over(self, known: _Open, outcome: Outcome, now: float) -> None:
        """A call has ended, with whatever its policies have made of it."""
        with self._lock:
            self._open.pop(id(known.call), None)
            known.step_out()
            work, book = known.work, self._books[known.work.guard]
            if outcome is Outcome.BAD and not work.failed:
                # It timed out, or broke off behind its first item.
                book.judged(now, bad=True)
                work.failed, work.ended_at = True, now
            work.outcome = outcome
            work.running = False
            for truncation in known.truncations:
                truncation.noticed |= outcome is not Outcome.GOOD
                truncation.holder = known.around
                if known.around is not None:
                    known.around.truncations.append(truncation)
            if _TRUNCATE in known.kinds and len(book.truncations) < MOST_TRUNCATIONS:
                truncation = Truncation(known.around)
                truncation.noticed = outcome is not Outcome.GOOD
                book.truncations.append(truncation)
                work.truncation = truncation
                if known.around is not None:
                    known.around.truncations.append(truncation)
            if work.alone:
                work.add_to(book.tally)

    def _asked(self, error: Exception) -> float | None:
        try:
            return asked_wait(error, self._clock.time)
        except Exception:  # noqa: BLE001 - what cannot be read cannot be heeded either
            return None

    # -- what listeners hear ------------------------------------------------------------------------------------------------------------

    def _heard(self, event: Any) -> None:
        if isinstance(event, FaultInjected):
            # The call is marked next, in this thread.
            self._local.fault = event.fault
            return
        if isinstance(event, RetryScheduled | RetryDenied):
            # Decided in the thread in which the attempt has just ended.
            work = getattr(self._local, "work", None)
            if work is not None and work.guard == event.guard:
                work.decided = True
                if isinstance(event, RetryScheduled):
                    work.planned = True
                    with self._lock:
                        # Also when a breaker refuses the attempt that it leads to. What an answer has asked for is no choice of theirs.
                        if work.asked is None:
                            self._books[event.guard].paused(work.attempts, event.delay, measured=False)
            return
        with self._lock:
            book = self._books.get(event.guard)
            if book is not None and isinstance(event, FallbackUsed):
                book.fallbacks += 1
            elif book is not None and event.after != State.CLOSED.value and not event.shadow:
                book.opened = True


class _Work:
    """Attempts that belong together."""

    __slots__ = (
        "alone",
        "asked",
        "attempts",
        "began_at",
        "decided",
        "delivered",
        "ended_at",
        "failed",
        "guard",
        "harm",
        "outcome",
        "planned",
        "running",
        "struck",
        "truncation",
    )

    def __init__(self, guard: str) -> None:
        self.guard = guard
        self.attempts = 0
        self.struck = False
        self.running = False
        self.alone = False
        """Nothing holds it together with other calls."""
        self.failed: bool | None = None
        """How the last attempt ended; None: not yet, or by a cancellation."""
        self.delivered = False
        self.decided = False
        """A retry policy has said that it is tried again, or why not."""
        self.began_at = self.ended_at = 0.0
        self.planned = False
        """Whether a retry policy makes the pause after the last attempt."""
        self.asked: float | None = None
        self.harm: str | None = None
        """Why the last attempt should not be repeated."""
        self.outcome: Outcome | None = None
        self.truncation: Truncation | None = None

    def add_to(self, tally: Any) -> None:
        """Count it, if it was struck."""
        if self.struck:
            unsaved = self.outcome is Outcome.BAD and bool(self.failed) and not self.delivered and self.harm is None
            once = self.attempts == 1 and not self.decided and self.asked is None
            tally.plus(self.attempts, unsaved=unsaved, given_up=unsaved and once)


class _Open:
    """A call that has not ended."""

    __slots__ = ("around", "call", "grader", "kinds", "token", "truncations", "work")

    def __init__(self, grader: Grader, call: Call, work: _Work, around: _Open | None) -> None:
        self.grader = grader
        self.call = call
        self.work = work
        self.around = around
        self.kinds: set[str] = set()
        self.truncations: list[Truncation] = []
        self.token: Token[_Open | None] | None = None

    def step_out(self) -> None:
        token, self.token = self.token, None
        if token is not None:
            try:
                _around.reset(token)
            except ValueError:
                # A stream or a block that ends in another context than it began in.
                return


def _fingerprint(call: Call) -> Hashable:
    """What is called, with what: the same again is the same work."""
    try:
        given = (call.function, call.args, tuple(sorted(call.kwargs.items())))
        hash(given)
    except Exception:  # noqa: BLE001 - arguments are the user's
        return (id(call.function), tuple(map(id, call.args)), tuple(sorted((name, id(value)) for name, value in call.kwargs.items())))
    return given


def _is_bad(guard: Guard, call: Call, error: Exception) -> bool:
    if isinstance(error, Rejected) and error.guard == guard.name:
        return False
    return guard.options.classify is None or judge(guard, None, error, call.started)[0] is Outcome.BAD


def _harm(call: Call, error: Exception) -> str | None:
    """Why the attempt should not be repeated; None: it may be."""
    name = type(error).__qualname__
    if isinstance(error, _MISTAKES):
        return name
    response: Any = getattr(error, "response", None)
    found = ((of, field) for of in (response, error) for field in ("status_code", "status"))
    status = next((said for of, field in found if type(said := getattr(of, field, None)) is int), None)
    if status is not None and status in _CLIENT_ERRORS and status not in _MENDABLE:
        return f"{name} {status}"
    return f"{name}, not idempotent" if call.repeatable() is False else None
