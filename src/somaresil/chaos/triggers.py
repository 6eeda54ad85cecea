"""Which calls an experiment strikes, besides its rate: by number, by what was seen before, by time, and by what the call is about.

Everything here is asked of a struck candidate only while an experiment is armed, and reads the call no further than it has to.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from somaresil import callpath, events
from somaresil.config import did_you_mean
from somaresil.model.selector import matches
from somaresil.priority import caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from somaresil.chaos.config import ChaosConfig
    from somaresil.config import Checker
    from somaresil.events import Event
    from somaresil.listeners import Listeners

__all__ = ["AFTER", "FACTS", "HEADER", "Numbers", "Prerequisite", "Where", "aims_at", "check_after", "check_where", "rate_at", "wants"]

FACTS: Final = ("tenant", "class", "scope", "method", "host")
"""What a call can be chosen by; and ``header:NAME``."""
HEADER: Final = "header:"
AFTER: Final = ("call", "fault", "event")
"""What an experiment may wait for: ``call:PATTERN``, ``fault:PATTERN``, ``event:NAME`` or ``event:NAME:PATTERN``."""

_EVENTS: Final[Mapping[str, type]] = {
    name: kind
    for name in events.__all__
    if name not in {"Event", "Listener", "Listeners"} and isinstance(kind := getattr(events, name), type)
}
_MOST_SEQUENCES: Final = 10_000
"""Scopes and paths that have numbers of their own in one experiment; what comes later shares those of its component."""
_LONGEST: Final = 200
_MOST_FACTS: Final = 20
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_PARAMETER: Final = re.compile(r"\{[^{}/:]*(:path)?[^{}/]*\}")


class Numbers:
    """The running numbers of one component in one experiment: one sequence for each scope or path.

    Threads share it: a step of ``count`` is atomic, in C under the GIL, by compare-and-exchange without it.
    """

    __slots__ = ("_by_key", "_shared", "component")

    def __init__(self, component: str) -> None:
        """Start at 0."""
        self.component = component
        self._shared: count[int] = count()
        self._by_key: dict[str, count[int]] = {}

    def next(self, key: str) -> int:
        """The next number for ``key``; without one that of the component."""
        if not key:
            return next(self._shared)
        sequences = self._by_key
        found = sequences.get(key)
        if found is None:
            if len(sequences) >= _MOST_SEQUENCES:
                return next(self._shared)
            found = sequences.setdefault(key, count())
        return next(found)


def wants(config: ChaosConfig, number: int) -> bool:
    """Whether the call with this number, counted from 0, is one of those that may be struck."""
    if config.calls is not None and number + 1 not in config.calls:
        return False
    if config.first is not None and number >= config.first:
        return False
    return config.every is None or (number + 1) % config.every == 0


def rate_at(config: ChaosConfig, elapsed: float) -> float:
    """The rate after so many seconds of the lease: it goes from ``ramp_from`` to ``failure_rate`` in a straight line."""
    ramp = float(config.ramp_seconds)  # type: ignore[arg-type]
    if ramp <= 0.0 or elapsed >= ramp:
        return config.failure_rate
    return config.ramp_from + (config.failure_rate - config.ramp_from) * max(0.0, elapsed) / ramp


class _Route:
    """A target with parameters in braces, which takes as long for a path as the path is: it goes along all ways of reading it at once.

    A regular expression would try them one after the other, and a path can be made for which there is no end of them.
    """

    __slots__ = ("_any", "_end", "_inside", "_letters", "_loops", "_loops_inside")

    def __init__(self, pattern: str) -> None:
        """Each bit is a place in the pattern."""
        self._letters: dict[str, int] = {}
        self._any = self._inside = self._loops = self._loops_inside = 0
        bit, at = 1, 0
        while at < len(pattern):
            parameter = _PARAMETER.match(pattern, at)
            if parameter is None:
                letter = pattern[at]
                if letter == "*":
                    self._loops |= bit
                elif letter == "?":
                    self._any |= bit
                else:
                    self._letters[letter] = self._letters.get(letter, 0) | bit
                at += 1
            else:
                # One character at least, then any number of them.
                if parameter[1]:
                    self._any, self._loops = self._any | bit, self._loops | bit << 1
                else:
                    self._inside, self._loops_inside = self._inside | bit, self._loops_inside | bit << 1
                bit <<= 1
                at = parameter.end()
            bit <<= 1
        self._end = bit

    def _skipped(self, places: int) -> int:
        # What may be there any number of times may be there not at all.
        while more := ((places & (self._loops | self._loops_inside)) << 1) & ~places:
            places |= more
        return places

    def fits(self, path: str) -> bool:
        """Whether the whole path is one that is meant."""
        places = self._skipped(1)
        for letter in path:
            one, loop = self._any | self._letters.get(letter, 0), self._loops
            if letter != "/":
                one, loop = one | self._inside, loop | self._loops_inside
            places = self._skipped((places & one) << 1 | (places & loop))
            if not places:
                return False
        return bool(places & self._end)


@lru_cache(maxsize=256)
def _route(pattern: str) -> _Route | None:
    """A target with parameters in braces; None: it has none, and is a pattern."""
    return _Route(pattern) if "{" in pattern else None


def aims_at(target: str, name: str) -> bool:
    """Whether a target on ``http:`` means a path. A part in braces, as routes are written, stands for one segment, ``{x:path}`` for any."""
    route = _route(target)
    return matches(target, name) if route is None else route.fits(name)


class Where:
    """Conditions on what a call is about, all of which must hold. Values are patterns; what is not known fits no pattern."""

    __slots__ = ("_conditions", "_read")

    def __init__(self, conditions: tuple[tuple[str, str], ...], *, on_http: bool) -> None:
        """Read requests, or calls of guards."""
        self._conditions = conditions
        self._read: Callable[[str, Any], str | None] = _of_request if on_http else _of_call

    def fits(self, about: Any) -> bool:
        """Whether it is meant: a call of a guard, or the scope of a request."""
        for fact, pattern in self._conditions:
            found = _of_context(fact) if fact in _CONTEXT else self._read(fact, about)
            if found is None or not matches(pattern, found):
                return False
        return True


_CONTEXT: Final = frozenset({"tenant", "class", "scope"})


def _of_context(fact: str) -> str | None:
    if fact == "scope":
        return callpath.current_scope() or None
    who = caller()
    if who is None:
        return None
    return who.tenant if fact == "tenant" else who.rank.word


def _of_request(fact: str, scope: Mapping[str, Any] | None) -> str | None:
    """Of a scope of ASGI."""
    if scope is None:
        return None
    if fact == "method":
        return str(scope.get("method", "GET")).upper()
    wanted = (fact.removeprefix(HEADER) if fact.startswith(HEADER) else fact).encode()
    found = next((bytes(value).decode("latin-1") for name, value in scope.get("headers", ()) if bytes(name).lower() == wanted), None)
    return found if found is None or fact != "host" else _without_port(found).lower()


def _of_call(fact: str, call: Any) -> str | None:
    """Of the request that a client sends, or anything else with ``method``, ``url`` and ``headers`` in the first place of its arguments."""
    request: Any = next(iter(getattr(call, "args", ())), None)
    if fact == "method":
        method = getattr(request, "method", None)
        return method.upper() if isinstance(method, str) else None
    if fact == "host":
        host = getattr(getattr(request, "url", None), "host", None)
        return host.lower() if isinstance(host, str) else None
    get = getattr(getattr(request, "headers", None), "get", None)
    value = None if get is None else get(fact.removeprefix(HEADER))
    return None if value is None else str(value)


def _without_port(host: str) -> str:
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def check_where(check: Checker, where: object) -> tuple[tuple[str, str], ...] | None:
    """The conditions as pairs, with every problem noted."""
    if where is None:
        return None
    from collections.abc import Mapping as AnyMapping

    if isinstance(where, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in where):  # noqa: PLR2004 - pairs
        where = dict(where)
    if not isinstance(where, AnyMapping) or not 0 < len(where) <= _MOST_FACTS:
        check.problem("where", where, f"an object of {', '.join(FACTS)} or header:NAME, each with a pattern; or None")
        return None
    found: list[tuple[str, str]] = []
    for fact, pattern in where.items():
        if not isinstance(fact, str) or not (fact in FACTS or (fact.startswith(HEADER) and _HEADER_NAME.fullmatch(fact[len(HEADER) :]))):
            check.problem(f"where.{fact}", pattern, f"one of {', '.join(FACTS)}, header:NAME", did_you_mean(fact, FACTS))
        elif not isinstance(pattern, str) or not 0 < len(pattern) <= _LONGEST:
            check.problem(f"where.{fact}", pattern, f"a pattern of 1 to {_LONGEST} characters")
        else:
            spelt = pattern.upper() if fact == "method" else pattern.lower() if fact == "host" else pattern
            found.append((fact.lower() if fact.startswith(HEADER) else fact, spelt))
    return tuple(sorted(found))


def check_after(check: Checker, after: object) -> None:
    """Note what is wrong with a prerequisite."""
    if after is None:
        return
    allowed = "call:GUARD, fault:GUARD or event:NAME[:GUARD], with a pattern over guards; or None"
    if not isinstance(after, str) or len(after) > _LONGEST:
        check.problem("after", after, allowed)
        return
    word, _, rest = after.partition(":")
    name, _, pattern = rest.partition(":") if word == "event" else ("", "", rest)
    if word not in AFTER or not rest:
        check.problem("after", after, allowed, did_you_mean(word, AFTER))
    elif word == "event" and name not in _EVENTS:
        check.problem("after", after, f"an event: {', '.join(_EVENTS)}", did_you_mean(name, _EVENTS))
    elif word != "event" or pattern:
        nested = check.child("after")
        nested.pattern("", pattern)


class Prerequisite:
    """Something that must have been seen before an experiment strikes: bugs that need two steps are found by no dice alone (3MileBeach)."""

    __slots__ = ("_kind", "_pattern", "seen", "word")

    def __init__(self, after: str) -> None:
        """Not seen yet. ``after`` has been checked."""
        self.word, _, rest = after.partition(":")
        name, _, pattern = rest.partition(":") if self.word == "event" else ("", "", rest)
        self._kind = events.FaultInjected if self.word == "fault" else _EVENTS.get(name)
        self._pattern = pattern or "*"
        self.seen = False

    def of_guard(self, guard: str) -> bool:
        """Whether a call of this guard is what it waits for."""
        return self.word == "call" and matches(self._pattern, guard)

    def note(self, _: object = None) -> None:
        """It was seen."""
        self.seen = True

    def listen(self, listeners: Listeners) -> Callable[[], None] | None:
        """Wait for an event; returns what ends that. None: it is no event that it waits for."""
        return None if self._kind is None else listeners.add(self._look, self._kind)

    def _look(self, event: Event) -> None:
        about = getattr(event, "guard", None) or getattr(event, "component", None) or ""
        if self._pattern == "*" or matches(self._pattern, about):
            self.seen = True
