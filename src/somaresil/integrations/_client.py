"""What the hooks of client libraries share: which guard a request belongs to, calls that last as long as their answer is read, refusals.

A hook knows one library: what a request is, what an attempt is, and what its end means (:class:`Exchange`). Everything else is here.
"""

from __future__ import annotations

import functools
import re
import string
import threading
from asyncio import CancelledError
from copy import copy
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from somaresil.config import LONGEST_NAME, Checker, did_you_mean
from somaresil.deadline import current, cut_off
from somaresil.errors import CallTimedOut, ConfigurationError, Rejected
from somaresil.guard import GuardOptions
from somaresil.guard.call import Call, CoroutineCall, FunctionCall, Opened
from somaresil.guard.options import check_known
from somaresil.outcome import Outcome
from somaresil.policy.timeout import within
from somaresil.resilience import _caller
from somaresil.settings.live import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.guard import Guard
    from somaresil.resilience import Resilience

__all__ = [
    "AsyncClientCall",
    "AsyncWholeCall",
    "ClientCall",
    "Ending",
    "Exchange",
    "Guards",
    "WholeCall",
    "anext_item",
    "as_theirs",
    "blame",
    "next_item",
]

_MOST_GUARDS: Final = 1_000
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_.:/{}-]")


class Guards:
    """The guards of one client, found by name and made when a name is first met.

    Hosts are sometimes what a user typed, so a client makes at most ``most`` guards; what comes after that shares ``other``. A guard that
    exists under the name already is used as it is, whatever the options say, and is not counted. Characters that no name may have become
    ``_``, and a name ends after 120 characters.
    """

    def __init__(
        self,
        where: str,
        resilience: Resilience,
        name: str | Callable[[Any], str | None],
        fields: frozenset[str],
        most: int,
        options: Mapping[str, Any],
        check: Checker,
        *,
        streams: bool,
        suspends: bool,
    ) -> None:
        """Note every problem in ``check``; ``fields`` are the words that a template may have in braces.

        ``streams`` says that answers have items, which experiments may cut off, ``suspends`` that the client is asynchronous.
        """
        self._streams = streams
        self._where = where
        self._resilience = resilience
        self.plans: Any = getattr(getattr(resilience, "chaos", None), "requests", None)
        """The request plans of the process, which say what leaves it."""
        self._name = name
        self._options = options
        self._most = check.count("most_guards", most, maximum=_MOST_GUARDS)
        self._known: dict[str, Guard] = {}
        self._made = 0
        self._lock = threading.RLock()
        self._origin = _caller()
        self.other = "clients.other"
        """The guard of names that are too many."""
        if isinstance(name, str):
            self._check_template(check, name, fields)
        elif not callable(name):
            check.problem("name", name, "a template or a function of a request that returns the name of a guard, or None")
        check_known(check, options)
        if not check.problems:
            resolved = GuardOptions.of(where, options, check)
            for layer in options:
                # Some options are not for every kind of call.
                unfit = getattr(getattr(resolved, layer), "unfit", None)
                if unfit is not None and (said := unfit(suspends=suspends, streams=streams)) is not None:
                    check.problem(layer, options[layer], *said)
            if not check.problems:
                resilience.check_slos(where, resolved.slo)
                self._look_through(resolved, check)

    def of(self, request: object, fields: Callable[[], Mapping[str, object]]) -> Guard | None:
        """The guard of a request; None: it passes unguarded, for that is what the function said. Never raises."""
        try:
            name = self._name.format_map(fields()) if isinstance(self._name, str) else self._name(request)
            if name is None:
                return None
            found = self._known.get(name)
            return self._find(_cleaned(name)) if found is None else found
        except Exception as defect:  # noqa: BLE001 - a name never fails a request, and an unguarded one helps nobody
            self._report("naming", defect, f"guard {self.other} was used")
        try:
            return self._find(self.other)
        except Exception as defect:  # noqa: BLE001 - never into a request
            self._report("making", defect, "the request went on without it")
            return None

    def _report(self, step: str, defect: Exception, consequence: str) -> None:
        resilience = self._resilience
        resilience.listeners.defect(f"{self._where}, {step} a guard", defect, resilience.clock.time(), consequence)

    def _look_through(self, options: GuardOptions, check: Checker) -> None:
        """Tell what is surely wrong with the options together when the client is guarded, and not at its first request."""
        try:
            _, found = self._resilience.settings.settled(self.other, options)
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                check.problem(problem.path, problem.value, problem.allowed, problem.hint)
        else:
            warn(self.other, self._origin, found)

    def _find(self, name: str) -> Guard:
        with self._lock:
            found = self._known.get(name)
            if found is not None:
                return found
            there = self._resilience.find(name)
            if there is None and name != self.other:
                if self._made >= self._most:
                    return self._find(self.other)
                self._made += 1
            guard = self._known[name] = self._resilience.guard(name, **self._options) if there is None else there
            if there is None:
                # Not the line inside a client where the first request came by.
                guard.where = self._origin
            guard.has_streams = guard.has_streams or self._streams
            return guard

    def _check_template(self, check: Checker, template: str, fields: frozenset[str]) -> None:
        allowed = f"a template with {', '.join(f'{{{field}}}' for field in sorted(fields))}"
        try:
            parts = [(literal, field) for literal, field, _, _ in string.Formatter().parse(template)]
        except ValueError as wrong:
            check.problem("name", template, allowed, str(wrong))
            return
        for _, field in parts:
            if field is not None and field not in fields:
                check.problem("name", template, allowed, did_you_mean(field, fields) or "what is in braces comes from the request")
        check.name("name", template.format_map(dict.fromkeys(fields, "x")) if not check.problems else "x")
        prefix = parts[0][0].rstrip(".:/-_") if parts else ""
        self.other = f"{prefix}.other" if prefix else "other"


def _cleaned(name: str) -> str:
    return _UNSAFE.sub("_", name)[:LONGEST_NAME] or "_"


class Exchange(Protocol):
    """One request on its way through a guard, as its library knows it."""

    call: Any
    """The call that it is; set by the call."""

    def send(self, request: Any, /) -> object:
        """What the guard calls; fallbacks are called with the same argument. Never run: :meth:`attempt` takes its place."""
        ...

    async def attempt(self) -> Any:
        """Send it, once. What comes back is the answer; of a lasting call an :class:`Opened`, whose first item is the answer."""
        ...

    def shown(self, answer: Any, error: BaseException | None) -> tuple[Any, BaseException | None]:
        """What a judge is shown of this end: a bad answer, an error inside the guard, may be an answer outside, or the other way round."""
        ...

    def verdict(self, answer: Any, error: BaseException | None) -> Outcome | None:
        """How this end counts, as it is shown; None: as usual."""
        ...

    def can_be_sent_again(self, *, at_once: bool) -> bool:
        """Whether all of it is still there; ``at_once``: while it is being sent."""
        ...

    def is_idempotent(self) -> bool:
        """Whether sending it twice does no harm, as far as the library can tell."""
        ...


class _ClientCall(Call):
    """A request. Judged by the rules of its library, below the guard's ``classify``, which is shown answers, the bad ones too."""

    __slots__ = ("_under_way", "exchange")

    def __init__(self, guard: Guard, exchange: Exchange, request: object) -> None:
        """A request that begins now."""
        super().__init__(guard, exchange.send, (request,), {})
        self._under_way = False
        self.exchange = exchange
        exchange.call = self

    def judge(self, result: object, error: BaseException | None) -> Outcome:
        """How this end counts."""
        return super().judge(*self.exchange.shown(result.first if isinstance(result, Opened) else result, error))

    def usual(self, result: object, error: BaseException | None) -> Outcome:
        """How it counts when nobody else has a say."""
        usual = super().usual(result, error)
        if usual is not Outcome.GOOD and usual is not Outcome.BAD:
            return usual
        return self.exchange.verdict(result, error) or usual

    def repeatable(self) -> bool | None:
        """Whether it may be made again: never what cannot be sent twice, else by what the guard was told, else by what it is."""
        if not self.exchange.can_be_sent_again(at_once=self._under_way):
            return False
        told = super().repeatable()
        return self.exchange.is_idempotent() if told is None else told

    def may_come_again(self) -> bool:
        """Whether what has just failed may be tried once more, as far as the guard can tell before its retry decides."""
        self._under_way = False
        retry = self._guard.options.retry
        return retry is not None and self.attempt < retry.attempts and self.repeatable() is not False

    def sibling(self) -> Self:
        """Another attempt of this call, with books of its own."""
        other = type(self)(self._guard, copy(self.exchange), self.args[0])
        other.started = self.started
        return other

    async def discard(self, result: Any) -> None:
        """Do away with an answer that nobody wants."""
        close = getattr(getattr(result, "source", None), "aclose", None)
        if close is not None:
            await close()

    async def invoke(self, function: Callable[..., Any]) -> Any:
        """Send it, or have a fallback answer."""
        if function is not self.function:
            answer = await super().invoke(function)
            return Opened(None, answer, ended=True) if self.lasting else answer
        self._under_way = True
        try:
            return await self.exchange.attempt()
        finally:
            self._under_way = False


class ClientCall(_ClientCall, FunctionCall):
    """A request by a blocking client, which lasts until its answer has been read: :class:`Ending` ends it."""

    __slots__ = ()
    lasting = True


class AsyncClientCall(_ClientCall, CoroutineCall):
    """As :class:`ClientCall`, by an asynchronous client."""

    __slots__ = ()
    lasting = True


class WholeCall(_ClientCall, FunctionCall):
    """A request by a blocking client whose answer comes whole."""

    __slots__ = ()


class AsyncWholeCall(_ClientCall, CoroutineCall):
    """As :class:`WholeCall`, by an asynchronous client."""

    __slots__ = ()


class Ending:
    """The end of a call whose answer is still being read: booked once, whoever comes first; an answer that is forgotten was abandoned.

    ``outcome`` is what the answer says by itself, when nothing happens to the rest of it.
    """

    __slots__ = ("_call", "_outcome", "guard", "reading")

    def __init__(self, guard: Guard, call: _ClientCall, outcome: Outcome) -> None:
        self.guard = guard
        self.reading = False
        """Whether somebody waits for the next item: he will be told how it ends, and knows best how that counts."""
        self._outcome = outcome
        # Taken in one step: the collector may end it in the middle of its end.
        self._call = [call]

    @property
    def call(self) -> _ClientCall | None:
        """The call, until it has ended."""
        calls = self._call[:]
        return calls[0] if calls else None

    def note_late(self, limit: float | None, asked: float) -> None:
        """Mark the call when an item that was ``asked`` for at that time took longer than it may."""
        call = self.call
        if call is not None and limit is not None and self.guard.monotonic() - asked > limit:
            call.late = True

    def complete(self) -> None:
        """End it: everything was read."""
        for call in self._taken():
            self.guard.end(call, Outcome.BAD if call.late and self._outcome is Outcome.GOOD else self._outcome, None)

    def failed(self, error: BaseException) -> None:
        """End it: the rest of the answer did not come."""
        for call in self._taken():
            self.guard.end(call, call.judge(None, error), error)

    def left(self) -> None:
        """End it: nobody reads on. That says nothing about an answer, unless it was bad already."""
        for call in self._taken():
            self.guard.end(call, self._outcome if self._outcome is Outcome.BAD else Outcome.ABANDONED, None)

    def _taken(self) -> list[_ClientCall]:
        try:
            return [self._call.pop()]
        except IndexError:
            return []

    def __del__(self) -> None:
        self.left()


def next_item(source: Any, ending: Ending) -> Any:
    """The next item of a source; raises what it raises, which is the end. An item that is late makes the call bad."""
    call, guard = ending.call, ending.guard
    limit = None if call is None or guard.timeout is None else guard.timeout.next_limit(call)[0]
    asked = guard.monotonic()
    ending.reading = True
    try:
        return next(source)
    except StopIteration:
        ending.note_late(limit, asked)
        ending.complete()
        raise
    except BaseException as error:
        ending.failed(error)
        raise
    finally:
        ending.reading = False
        ending.note_late(limit, asked)


async def anext_item(source: Any, ending: Ending) -> Any:
    """As :func:`next_item`. Waiting ends with :class:`~somaresil.errors.CallTimedOut` when the guard says so."""
    call, guard = ending.call, ending.guard
    limit, phase = (None, "") if call is None or guard.timeout is None else guard.timeout.next_limit(call)
    step = source.__anext__()
    ending.reading = True
    try:
        return await (step if limit is None else within(limit, phase, guard.name, step, usual=phase == "idle"))
    except StopAsyncIteration:
        ending.complete()
        raise
    except BaseException as error:
        ending.failed(error)
        raise
    finally:
        ending.reading = False


def blame(call: _ClientCall) -> Outcome | None:
    """How a time-out by the client's own limits counts when the deadline of the request has set them; None: as any other."""
    deadline, now = current(), call.clock.monotonic()
    return None if deadline is None or now < deadline.at else cut_off(Outcome.ABANDONED, CancelledError(), call.started, now)


def as_theirs(error: Rejected | CallTimedOut, theirs: type[Exception], **attributes: Any) -> Exception:
    """A refusal or time-out of ours that is also an error of the client's library, so that who catches its errors catches this one.

    ``attributes`` are what instances of ``theirs`` have when they are made in the ordinary way.
    """
    if isinstance(error, theirs):
        return error
    converted = _rebuilt(type(error), theirs, tuple(attributes.items()), _given(error))
    converted.__cause__ = error.__cause__
    for note in getattr(error, "__notes__", ()):
        converted.add_note(note)
    return converted


def _rebuilt(ours: Any, theirs: Any, attributes: tuple[tuple[str, Any], ...], given: Any) -> Exception:
    kind: type[Exception] = _both(ours, theirs, attributes)
    return kind(*given)


@functools.lru_cache(maxsize=64)
def _both(ours: Any, theirs: Any, attributes: tuple[tuple[str, Any], ...]) -> Any:
    """A class that is both. It is made here and not written down, for refusals are many and so are libraries."""

    def reduce(self: Any) -> tuple[Any, ...]:
        return _rebuilt, (ours, theirs, attributes, _given(self)), self.__dict__ or None

    body = {"__reduce__": reduce, "__module__": __name__, "__doc__": ours.__doc__, **dict(attributes)}
    return type(ours.__name__, (ours, theirs), body)


def _given(error: Any) -> tuple[Any, ...]:
    """The arguments that make the same error again."""
    if isinstance(error, CallTimedOut):
        return error.guard, error.limit, error.phase
    return error.guard, error.retry_after, error.detail, error.last_error, error.injected
