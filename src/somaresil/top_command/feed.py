"""What comes from a dashboard, kept up to date in the background: by its stream, or by asking again and again where there is none.

Three daemon threads: one reads the stream, one asks for what the stream does not tell, one does what the user wants done, for that must not
wait behind a question. They are bounded in what they keep, and wait longer and longer for a service that does not answer.
"""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from somaresil.load.sse import EventReader
from somaresil.remote import Impossible
from somaresil.top_command import VERSION
from somaresil.top_command.data import listed, mapped, real, text, whole
from somaresil.top_command.page import Seen
from somaresil.top_command.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from somaresil.remote import Incoming, Remote
    from somaresil.typing import Clock

__all__ = ["LARGEST", "Feed", "ask_picture", "asked"]

LARGEST: Final = 33_554_432
"""Bytes of a picture: one of 1,000 guards has some megabytes."""
MOST_EVENTS: Final = 500
MOST_OF_CALLS: Final = 200
"""Events of single calls: they are kept apart, for there are so many of them that nothing else would be left."""
SILENCE: Final = 25.0
"""Seconds without a byte: a stream has a heartbeat every ten."""
_AGAIN: Final = 30.0
"""Seconds of asking until the stream is tried again."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 10.0
_SOON: Final = 1.0
_REFUSED: Final = 400
_FORBIDDEN, _NOT_FOUND = 403, 404
_TRIES: Final = 3


def asked(remote: Remote, path: str) -> dict[str, Any]:
    """What is answered there. Raises :class:`Impossible`, also for what is refused."""
    status, said = remote.ask("GET", path)
    if status >= _REFUSED:
        raise Impossible(f"refused ({status}): {shown(said.get('detail') or said.get('title') or '')}")
    return said


def ask_picture(remote: Remote) -> dict[str, Any]:
    """The picture. Raises :class:`Impossible`, also for one of another version."""
    return checked(remote, asked(remote, "/api/picture"))


def checked(remote: Remote, picture: dict[str, Any]) -> dict[str, Any]:
    """The picture, if it is one that is understood here."""
    version = picture.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or not isinstance(picture.get("guards"), list):
        raise remote.strange()
    if version != VERSION:
        raise Impossible(
            f"the dashboard tells version {version} of the picture, and this command understands {VERSION}: use the release of somaresil "
            "that the service has"
        )
    return picture


class Feed:
    """See the module. ``changed`` is called from other threads when there is something new."""

    def __init__(self, remote: Remote, clock: Clock, picture: dict[str, Any], *, interval: float, changed: Callable[[], None]) -> None:
        """Nothing is asked yet; ``picture`` is what is known."""
        self._remote = remote
        self._clock = clock
        self._interval = interval
        self._changed = changed
        self._lock = threading.Lock()
        self._seen = Seen(picture)
        self._came = clock.monotonic()
        self._guard = ""
        self._events: deque[Mapping[str, Any]] = deque(maxlen=MOST_EVENTS)
        self._of_calls: deque[Mapping[str, Any]] = deque(maxlen=MOST_OF_CALLS)
        self._fresh: deque[Mapping[str, Any]] = deque(maxlen=MOST_EVENTS)
        self._known: dict[tuple[Any, ...], None] = {}
        self._last = ""
        self._incoming: Incoming | None = None
        self._ended = threading.Event()
        self._wake = threading.Event()
        self._ordered = threading.Event()
        self._wanted: deque[tuple[str, Mapping[str, Any]]] = deque(maxlen=4)
        self._threads = [
            threading.Thread(target=self._follow, name="somaresil-top-stream", daemon=True),
            threading.Thread(target=self._attend, name="somaresil-top-ask", daemon=True),
            threading.Thread(target=self._carry_out, name="somaresil-top-do", daemon=True),
        ]
        self.may: frozenset[str] = frozenset()
        """What the user may do there."""
        self.note = ""
        """What came of the last thing that was done."""

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End its threads. A question that is under way is not waited for."""
        self._ended.set()
        self._wake.set()
        self._ordered.set()
        with self._lock:
            incoming = self._incoming
        if incoming is not None:
            incoming.stop()
        for thread in self._threads:
            thread.join(_SOON)

    def seen(self) -> Seen:
        """What is known now."""
        with self._lock:
            events = sorted([*self._events, *self._of_calls], key=_at)
            return replace(self._seen, events=tuple(events), age=self._clock.monotonic() - self._came)

    def look_at(self, guard: str) -> None:
        """Ask for more about this guard; empty: about none."""
        with self._lock:
            if guard == self._guard:
                return
            self._guard = guard
        self._wake.set()

    def do(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        """Have something done: ``note`` says what came of it."""
        self._wanted.append((path, body or {}))
        self._ordered.set()

    def fresh(self) -> list[Mapping[str, Any]]:
        """The events that have come since this was asked before, as they came: the last 500 of them."""
        with self._lock:
            fresh = list(self._fresh)
            self._fresh.clear()
        return fresh

    # -- the stream -----------------------------------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        wait = _FIRST_WAIT
        first = True
        while not self._ended.is_set():
            before = self._came
            try:
                self._read(again=not first)
                why = "the stream has ended"
            except Impossible as broken:
                why = str(broken)
            first = False
            if self._ended.is_set():
                return
            if self._came > before:
                # It works, and has only broken off.
                wait = _FIRST_WAIT
                self._clock.wait(self._ended, wait)
            # A stream may be refused, by a proxy or for there are too many of them, where questions are answered.
            elif not self._poll():
                self._trouble(why)
                self._clock.wait(self._ended, wait)
                wait = min(_LONGEST_WAIT, wait * 2.0)

    def _read(self, *, again: bool) -> None:
        headers = {"Last-Event-ID": self._last} if self._last else {}
        incoming = self._remote.stream("/api/stream", silence=SILENCE, headers=headers)
        with self._lock:
            self._incoming = incoming
        try:
            if again:
                # What has changed meanwhile is not waited for.
                self._picture(ask_picture(self._remote))
            if self._ended.is_set():
                return
            reader = EventReader(LARGEST)
            for piece in incoming:
                for event in reader.feed(piece):
                    self._take(event.kind, event.data)
                    self._last = event.identity if event.identity.isascii() and event.identity.isprintable() else self._last
                if self._ended.is_set():
                    return
        except ValueError as wrong:
            raise Impossible(str(wrong)) from None
        finally:
            with self._lock:
                self._incoming = None
            incoming.close()

    def _take(self, kind: str, data: str) -> None:
        try:
            said = json.loads(data)
        except (ValueError, RecursionError):
            raise self._remote.strange() from None
        if not isinstance(said, dict):
            raise self._remote.strange()
        if kind == "picture":
            self._picture(said)
        elif kind == "event":
            self._came = self._clock.monotonic()
            self._keep([said])

    def _poll(self) -> bool:
        """Ask for a while; whether that was answered to the end of it."""
        until = self._clock.monotonic() + _AGAIN
        while not self._ended.is_set() and self._clock.monotonic() < until:
            try:
                self._picture(ask_picture(self._remote))
                self._keep(listed(asked(self._remote, "/api/events?most=200").get("events")))
            except Impossible:
                return False
            self._clock.wait(self._ended, self._interval)
        return True

    def _picture(self, said: dict[str, Any]) -> None:
        picture = checked(self._remote, said)
        with self._lock:
            self._seen = replace(self._seen, picture=picture, trouble="")
            self._came = self._clock.monotonic()
        self._changed()

    def _trouble(self, why: str) -> None:
        with self._lock:
            self._seen = replace(self._seen, trouble=why)
        self._changed()

    def _keep(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Add those that are new, in the order of their times: each process of the service has its own numbers for them."""
        with self._lock:
            fresh = [each for each in events if self._is_new(each)]
            if not fresh:
                return
            self._fresh.extend(fresh)
            self._events = _merged(self._events, (each for each in fresh if each.get("level") != "debug"))
            self._of_calls = _merged(self._of_calls, (each for each in fresh if each.get("level") == "debug"))
        self._changed()

    def _is_new(self, event: Mapping[str, Any]) -> bool:
        key = tuple(str(event.get(name)) for name in ("source", "at", "kind", "about", "text"))
        if key in self._known:
            return False
        self._known[key] = None
        if len(self._known) > 2 * MOST_EVENTS:
            del self._known[next(iter(self._known))]
        return True

    # -- questions ------------------------------------------------------------------------------------------------------------------------

    def _attend(self) -> None:
        self._first()
        while not self._ended.is_set():
            self._clock.wait(self._wake, self._interval)
            self._wake.clear()
            with self._lock:
                guard = self._guard
            if guard and not self._ended.is_set():
                self._detail(guard)

    def _first(self) -> None:
        try:
            self.may = frozenset(filter(None, map(text, mapped(asked(self._remote, "/api/session")).get("may") or ())))
            said = asked(self._remote, "/api/events?most=1000")
        except (Impossible, TypeError):
            return
        with self._lock:
            self._seen = replace(self._seen, lost=whole(said.get("lost")))
        self._keep(listed(said.get("events")))

    def _detail(self, guard: str) -> None:
        try:
            detail: dict[str, Any] | None = asked(self._remote, f"/api/guards/{quote(guard, safe='')}")
        except Impossible:
            # Whether anything comes is what the stream says.
            detail = None
        with self._lock:
            if guard == self._guard:
                self._seen = replace(self._seen, detail=detail)
        self._changed()

    def _carry_out(self) -> None:
        while not self._ended.is_set():
            self._clock.wait(self._ordered, _LONGEST_WAIT)
            self._ordered.clear()
            while self._wanted and not self._ended.is_set():
                path, body = self._wanted.popleft()
                self.note = self._done(path, body)
                self._changed()

    def _done(self, path: str, body: Mapping[str, Any]) -> str:
        said: Mapping[str, Any] = {}
        status = 0
        try:
            for _ in range(_TRIES):
                session = asked(self._remote, "/api/session")
                status, said = self._remote.ask("POST", path, dict(body), {"x-somaresil-csrf": text(session.get("csrf"))})
                if status != _FORBIDDEN:
                    break
        except (Impossible, ValueError) as broken:
            service = text(self._seen.picture.get("service"))
            # No service has to answer for that.
            hint = f". On its host: somaresil chaos stop --host {service}" if path == "/api/stop" and service else ""
            return f"not done: {broken}{hint}"
        if status >= _REFUSED:
            return f"refused ({status}): {said.get('detail') or ''}"
        missed = [source for source in listed(said.get("sources")) if not source.get("done")]
        reached = len(listed(said.get("sources"))) - len(missed)
        if not missed:
            return f"done in {reached} {'process' if reached == 1 else 'processes'}" if said.get("done") else "not done"
        names = ", ".join(f"{each.get('name') or '?'} ({each.get('problem') or 'no answer'})" for each in missed)
        return f"done in {reached}, not in {names}"


def _at(event: Mapping[str, Any]) -> float:
    return real(event.get("at")) or 0.0


def _merged(known: deque[Mapping[str, Any]], fresh: Iterable[Mapping[str, Any]]) -> deque[Mapping[str, Any]]:
    return deque(sorted([*known, *fresh], key=_at), maxlen=known.maxlen)
