"""Protocol faults: what a misbehaving peer does to an HTTP client, as data, with one place that decides which request is struck.

The seams :mod:`somaresil.testing.httpx` and :mod:`somaresil.testing.aiohttp` carry the faults out, each with the exceptions of its own
client. Decisions are keyed draws over the running number of the matching request, so tasks and threads that interleave otherwise do not
change them.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, cast, get_args

from somaresil.chance import Chance
from somaresil.config import Checker, to_seconds
from somaresil.errors import ConfigurationError
from somaresil.model.selector import matches

if TYPE_CHECKING:
    from somaresil.typing import Clock

__all__ = ["Kind", "ProtocolFault", "ProtocolFaults", "Strike"]

Kind = Literal[
    "connect_refused",
    "connect_timeout",
    "read_timeout",
    "lost_reply",
    "reset",
    "reset_mid_body",
    "truncated",
    "status",
    "malformed_json",
    "slow_first_byte",
    "latency",
]
"""What happens to a struck request; docs/testing/client-seams.md says what each client raises."""

PATIENCE: Final = 30.0
"""Seconds that a timeout takes when neither the caller nor the fault says how long."""

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
_DELAY: Final = ("connect_timeout", "read_timeout", "lost_reply", "slow_first_byte", "latency")
# Who looks at which option. One that nobody looks at is a mistake about what the fault does.
_USED_BY: Final[dict[str, tuple[str, ...]]] = {
    "after_chunks": ("reset_mid_body", "truncated"),
    "delay": _DELAY,
    "status": ("status",),
    "headers": ("status",),
    "retry_after": ("status",),
    "body": ("status", "malformed_json"),
}
_PASSING: Final = frozenset(("lost_reply", "reset_mid_body", "truncated", "malformed_json", "slow_first_byte", "latency"))
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_E = TypeVar("_E", bound=BaseException)


@dataclass(frozen=True, slots=True)
class ProtocolFault:
    """One fault at a client seam. Wrong options raise :class:`~somaresil.errors.ConfigurationError` with every problem at once.

    A request is struck when ``method`` and ``url`` match, its number is among ``calls``, the draw for ``rate`` hits and ``times`` is not
    used up. Each hop of a redirect and each repetition, by whomever, is a request of its own.
    """

    kind: Kind
    _: KW_ONLY
    method: str | None = None
    """Only requests with this method; case does not count. None: any."""
    url: str = "*"
    """Shell pattern on ``scheme://host:port/path``, percent-encoded: no query, and no port where it is the scheme's own."""
    calls: Collection[int] | None = None
    """Numbers, from 1, of the matching requests that may be struck, such as ``(1, 3)`` or ``range(1, 4)``. None: all."""
    rate: float = 1.0
    """Share of those that are struck, in [0, 1], by a keyed draw for the n-th matching request."""
    times: int | None = None
    """At most so many strikes, then it clears. None: no limit."""
    after_chunks: int = 1
    """How much of the body goes through (``reset_mid_body``, ``truncated``): chunks, or whole events of ``text/event-stream``."""
    delay: float | timedelta | None = None
    """Seconds. ``latency`` and ``slow_first_byte`` need it; for timeouts it counts when the caller has no limit. None: 30 there."""
    status: int = 429
    """What ``status`` answers, 400 to 599."""
    headers: Mapping[str, str] | Collection[tuple[str, str]] = ()
    """Headers of that answer."""
    retry_after: float | timedelta | datetime | str | None = None
    """Its Retry-After: whole seconds, or an HTTP date given as an aware ``datetime`` or as text."""
    body: str | bytes | None = None
    """Body of that answer; for ``malformed_json`` the JSON to cut, and then the request is not sent. None: empty, or the real answer's."""

    def __post_init__(self) -> None:
        """Check everything; keep collections as tuples and seconds as floats."""
        check, keep = Checker("ProtocolFault"), object.__setattr__
        known = self.kind in get_args(Kind)
        check.one_of("kind", self.kind, get_args(Kind))
        if self.method is not None:
            keep(self, "method", check.one_of("method", self.method.upper() if isinstance(self.method, str) else self.method, _METHODS))
        _check_url(check, self.url)
        self._check_calls(check)
        check.ratio("rate", self.rate)
        check.count("times", self.times, optional=True)
        check.count("after_chunks", self.after_chunks, minimum=0, maximum=1_000_000)
        keep(self, "delay", check.seconds("delay", self.delay, optional=True, maximum=86_400.0))
        check.count("status", self.status, minimum=400, maximum=599)
        self._check_headers(check)
        _check_retry_after(check, self.retry_after)
        if self.body is not None:
            check.type("body", self.body, (str, bytes), "text, bytes or None")
        for option in fields(self) if known else ():
            users = _USED_BY.get(option.name)
            if users is not None and self.kind not in users and getattr(self, option.name) != option.default:
                check.problem(option.name, getattr(self, option.name), f"nothing for {self.kind}", f"only {', '.join(users)} looks at it")
        if self.kind in ("latency", "slow_first_byte") and self.delay is None:
            check.problem("delay", None, f"seconds > 0 for {self.kind}")
        check.finish()

    def _check_calls(self, check: Checker) -> None:
        if self.calls is None:
            return
        if isinstance(self.calls, str | bytes) or not isinstance(self.calls, Collection):
            check.problem("calls", self.calls, "numbers from 1, or None", "a tuple such as (1,), also for a single one")
            return
        object.__setattr__(self, "calls", tuple(check.count("calls", number) for number in self.calls))
        if not self.calls:
            check.problem("calls", self.calls, "at least one number, or None", "nothing would ever be struck")

    def _check_headers(self, check: Checker) -> None:
        given: Any = tuple(self.headers.items()) if isinstance(self.headers, Mapping) else self.headers
        pairs = tuple(given) if isinstance(given, Collection) and not isinstance(given, str | bytes) else (given,)
        if not all(_is_header(pair) for pair in pairs):
            check.problem("headers", self.headers, "pairs of name and value", "such as (('X-Limit', '10'),), without line breaks")
            return
        object.__setattr__(self, "headers", pairs)
        if self.retry_after is not None and any(str(pair[0]).lower() == "retry-after" for pair in pairs):
            check.problem("retry_after", self.retry_after, "None beside a Retry-After in headers")

    @property
    def seconds(self) -> float:
        """The delay in seconds; for timeouts what is waited when the caller has no limit of his own."""
        return PATIENCE if self.delay is None else to_seconds(self.delay)

    @property
    def passes(self) -> bool:
        """Whether the request goes on to what is below, so that faults named after this one can strike it too."""
        return self.kind in _PASSING and self.body is None

    def reply(self) -> tuple[list[tuple[str, str]], bytes]:
        """Headers and body of the answer that ``status`` gives, Content-Length included."""
        headers = [*cast("tuple[tuple[str, str], ...]", self.headers)]
        body = as_bytes(self.body)
        names = {name.lower() for name, _ in headers}
        if self.retry_after is not None:
            headers.append(("Retry-After", _retry_after(self.retry_after)))
        if body and "content-type" not in names:
            headers.append(("Content-Type", "application/json" if _is_json(body) else "text/plain; charset=utf-8"))
        if "content-length" not in names:
            headers.append(("Content-Length", str(len(body))))
        return headers, body

    def __str__(self) -> str:
        what = f"status {self.status}" if self.kind == "status" else self.kind
        return f"{what} on {self.method or 'any method'} {self.url}"


@dataclass(frozen=True, slots=True, eq=False)
class Strike:
    """One request that is struck: by which fault, its how-manieth strike, at which matching request."""

    fault: ProtocolFault
    number: int
    request: int
    method: str
    url: str
    """Scheme, host and path: no query and no user, which may be secrets."""
    _undo: Callable[[Strike], None] = field(repr=False)

    @property
    def note(self) -> str:
        """What stands under the traceback of everything that the strike raises."""
        return f"injected by somaresil.testing: {self.fault.kind} #{self.number} of {self.method} {self.url}"

    def mark(self, error: _E) -> _E:
        """The error with the note, so that nobody hunts a ghost."""
        error.add_note(self.note)
        return error

    def miss(self) -> None:
        """Take it back: it had no effect, because the real request failed or there was no body to break."""
        self._undo(self)


@dataclass(slots=True)
class _Tally:
    fault: ProtocolFault
    key: str
    seen: int = 0
    struck: int = 0
    missed: int = 0

    def strikes(self, chance: Chance) -> bool:
        fault, n = self.fault, self.seen
        listed = (fault.calls is None or n in fault.calls) and (fault.times is None or self.struck < fault.times)
        return listed and chance.hit(fault.rate, "protocol", self.key, n)


class ProtocolFaults:
    """The faults of one test, shared by all its seams: decides and counts. Safe to use from several threads.

    Faults are layers, the first named outermost: a request may be struck by several, and one that lets no request through (``status``,
    ``reset``, ...) hides those after it. ``seed`` makes the draws for ``rate``; ``clock`` waits (None: the real time of thread or loop).
    """

    def __init__(self, *faults: ProtocolFault, seed: int | str | bytes = 0, clock: Clock | None = None) -> None:
        check = Checker("ProtocolFaults")
        for index, fault in enumerate(faults):
            check.type(f"faults[{index}]", fault, ProtocolFault, "a ProtocolFault")
        if clock is not None and not all(callable(getattr(clock, name, None)) for name in ("sleep", "asleep")):
            check.problem("clock", clock, "a clock with sleep and asleep, or None")
        try:
            self._chance = Chance(seed)
        except ConfigurationError as error:
            check.problem("seed", seed, error.problems[0].allowed)
        check.finish()
        self.faults = faults
        self.clock = clock
        # Reentrant: a signal handler may pull the kill switch in the middle of a decision.
        self._lock = threading.RLock()
        self._stopped = False
        self._recent: deque[Strike] = deque(maxlen=256)
        # Numbered among its likes only, so that one fault more leaves the draws of the others as they are.
        likes = Counter[str]()
        self._tallies: list[_Tally] = []
        for fault in faults:
            key = f"{fault.kind} {fault.method or '*'} {fault.url}"
            self._tallies.append(_Tally(fault, f"{key} {likes[key]}"))
            likes[key] += 1

    def decide(self, method: str, url: str) -> tuple[Strike, ...]:
        """What strikes this request, outermost first; ``url`` is that of :func:`target`. Every call counts as one request."""
        found: list[Strike] = []
        with self._lock:
            reached = not self._stopped
            for tally in self._tallies:
                fault = tally.fault
                if (fault.method is not None and fault.method != method.upper()) or not matches(fault.url, url):
                    continue
                tally.seen += 1
                if reached and tally.strikes(self._chance):
                    tally.struck += 1
                    found.append(Strike(fault, tally.struck, tally.seen, method, url, partial(self._take_back, tally)))
                    reached = fault.passes
            self._recent.extend(found)
        return tuple(found)

    def _take_back(self, tally: _Tally, strike: Strike) -> None:
        with self._lock:
            tally.struck -= 1
            tally.missed += 1
            with suppress(ValueError):
                self._recent.remove(strike)

    def stop(self) -> None:
        """The kill switch, from any thread: from now on nothing is struck. What is struck already goes on, sleeps included."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopped

    @property
    def recent(self) -> tuple[Strike, ...]:
        """The last 256 strikes, oldest first."""
        with self._lock:
            return tuple(self._recent)

    def seen(self, fault: ProtocolFault | Kind | None = None) -> int:
        """How many requests matched this fault, all faults of this kind, or any fault. ``LookupError`` when it is not one of ours."""
        return sum(tally.seen for tally in self._of(fault))

    def struck(self, fault: ProtocolFault | Kind | None = None) -> int:
        """How many strikes had an effect; the argument as in :meth:`seen`."""
        return sum(tally.struck for tally in self._of(fault))

    def missed(self, fault: ProtocolFault | Kind | None = None) -> int:
        """How many strikes were taken back: the real request failed, or there was no body to break. The argument as in :meth:`seen`."""
        return sum(tally.missed for tally in self._of(fault))

    def _of(self, fault: ProtocolFault | Kind | None) -> list[_Tally]:
        found = [tally for tally in self._tallies if fault is None or fault in (tally.fault, tally.fault.kind)]
        if not found and fault is not None:
            raise LookupError(f"{fault} is not among {', '.join(map(str, self.faults)) or 'no faults'}")
        return found

    def unused(self) -> tuple[ProtocolFault, ...]:
        """The faults that no request has matched: a pattern with a mistake, or a call that was never made."""
        return tuple(tally.fault for tally in self._tallies if not tally.seen)

    def report(self) -> str:
        """One line a fault: what it does, and how many requests it has seen, struck and missed."""
        lines = [f"{t.fault}: {t.seen} seen, {t.struck} struck" + (f", {t.missed} missed" if t.missed else "") for t in self._tallies]
        return "\n".join(lines)

    def __repr__(self) -> str:
        stopped = ", stopped" if self._stopped else ""
        return f"<ProtocolFaults seed={self._chance.seed} struck={self.struck()}{stopped}: {'; '.join(self.report().splitlines())}>"


class Cut:
    """Which part of a body goes through before a strike breaks it off. The arithmetic that both seams share.

    A ``truncated`` body is held back by one chunk, and one that is no longer than ``after_chunks`` ends in the middle of its last chunk:
    small answers come in one piece, and a fault without effect would prove nothing. Events of a stream are counted and never held back.
    """

    def __init__(self, strike: Strike, *, events: bool) -> None:
        self.strike = strike
        self.breaks = strike.fault.kind == "reset_mid_body"
        self._limit = strike.fault.after_chunks
        self._events = events
        self._count = 0
        self._held = b""
        self._line, self._data, self._after_cr = b"", False, False
        self.over = self._limit == 0

    def feed(self, data: bytes, *, whole: bool = True) -> bytes:
        """What of this piece, or of the one before, goes through now; ``whole`` when a chunk ends with it. Then look at ``over``."""
        if self._events:
            return self._feed_events(data)
        out = data
        if not self.breaks and data:
            out, self._held = self._held, data
            if self._count >= self._limit:
                self.over = True
                return out
        self._count += whole
        self.over = self.breaks and self._count >= self._limit
        return out

    def end(self) -> bytes:
        """What still goes through of a body that ended by itself; it is over then."""
        self.over = True
        if not self.breaks and not self._held:
            self.strike.miss()
        return self._held[: len(self._held) // 2]

    def _feed_events(self, data: bytes) -> bytes:
        # The LF of a line end whose CR was the last byte of the piece before is no line of its own.
        begin = int(self._after_cr and data.startswith(b"\n"))
        self._after_cr = data.endswith(b"\r")
        for end in _LINE_END.finditer(data, begin):
            line, begin, self._line = self._line + data[begin : end.start()], end.end(), b""
            if line:
                # Comments and retry times alone are no event.
                self._data = self._data or line.startswith(b"data")
            elif self._data:
                self._count, self._data = self._count + 1, False
                if self._count == self._limit:
                    self.over = True
                    return data[:begin]
        # Only its first letters matter, so a line without end costs no memory.
        self._line = (self._line + data[begin : begin + 4])[:4]
        return data


def target(scheme: str, host: str, port: int | None, path: str) -> str:
    """What ``ProtocolFault.url`` is matched with; ``port`` is None when it is the scheme's own."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}{'' if port is None else f':{port}'}{path or '/'}"


def has_body(method: str, status: int, length: str | None) -> bool:
    """Whether an answer can have a body at all (RFC 9110, 6.4.1); a protocol that is switched to is none of our business."""
    return method.upper() not in {"HEAD", "CONNECT"} and status not in {101, 204, 304} and length != "0"


def is_event_stream(content_type: str | None) -> bool:
    """Whether the body is made of server-sent events."""
    return (content_type or "").partition(";")[0].strip().lower() == "text/event-stream"


def halved_json(data: bytes) -> bytes:
    """The first half of a JSON text, which is not JSON any more; of something else when ``data`` was none, or stays valid when cut."""
    if _is_json(data):
        text = data.decode()
        half = text[: len(text) // 2].encode()
        if half.strip() and not _is_json(half):
            return half
    return b'{"data": [{"id": 1, "na'


def as_bytes(body: str | bytes | None) -> bytes:
    """Text as UTF-8, None as nothing."""
    return body.encode() if isinstance(body, str) else body or b""


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _is_header(pair: Any) -> bool:
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):  # noqa: PLR2004 - a pair
        return False
    return bool(_TOKEN.fullmatch(pair[0])) and not re.search(r"[\r\n\0]", pair[1])


def _check_url(check: Checker, url: object) -> None:
    if not isinstance(url, str) or not url or re.search(r"\s", url):
        check.problem("url", url, "a pattern on scheme://host/path, such as https://api.example.com/*")
    elif not url.partition("/")[0].endswith(":") and not re.search(r"[*?\[]", url.partition("/")[0]):
        check.problem("url", url, "a pattern on scheme://host/path", f"this one can match nothing; did you mean {'*' + url!r}?")


def _retry_after(value: object) -> str:
    """The text of the header; ``ValueError`` or ``TypeError`` when it is neither whole seconds nor an HTTP date."""
    if isinstance(value, str):
        parsedate_to_datetime(value)
        return value
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("it has no time zone")
        return format_datetime(value.astimezone(UTC), usegmt=True)
    seconds = to_seconds(cast("float", value))
    if seconds < 0 or seconds != int(seconds):
        raise ValueError("it is not whole; headers=(('Retry-After', '1.5'),) sends anything")
    return str(int(seconds))


def _check_retry_after(check: Checker, value: object) -> None:
    try:
        if value is not None:
            _retry_after(value)
    except (ValueError, TypeError) as error:
        check.problem("retry_after", value, "whole seconds >= 0, an aware datetime, an HTTP date or None", str(error))
