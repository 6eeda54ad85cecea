"""The other workers of this service on this machine: who is there, and what each said last.

A worker that was killed is missing at once, and no longer shown after a minute. One that does not answer in time is stale: what it said
last is still counted, and its age is shown. Nobody is waited for longer than half a second.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from somaresil.dashboard import checked
from somaresil.dashboard.exchange import Gone, Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from somaresil.dashboard.exchange import Exchange
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["Sibling", "Siblings"]

PATIENCE: Final = 0.5
"""Seconds that whoever wants to see the picture waits for the others."""
_TIMEOUT: Final = 2.0
_LIVE: Final = 2.5
_STALE: Final = 120.0
"""Seconds for which the counts of a worker that does not answer are shown."""


class Sibling:
    """One of them."""

    __slots__ = ("asking", "columns", "dead_at", "done", "heard_at", "name", "names", "portrait", "seen_at", "why")

    def __init__(self, name: str, now: float) -> None:
        """Nothing was heard yet."""
        self.name = name
        self.seen_at = now
        self.portrait: dict[str, Any] | None = None
        self.columns: dict[str, Any] | None = None
        self.names: tuple[str, ...] = ()
        """Of which the columns are."""
        self.heard_at = float("-inf")
        self.dead_at: float | None = None
        self.why = ""
        self.asking = False
        self.done = threading.Event()


class Siblings:
    """Asked through the folder of workers. They are waited for by the machine's clock, as they answer by it."""

    def __init__(self, exchange: Exchange, clock: Clock, listeners: Listeners) -> None:
        """Nobody is known yet."""
        self._exchange = exchange
        self._clock = clock
        self._listeners = listeners
        self.after_fork()

    def after_fork(self) -> None:
        """In the child: it knows nobody yet."""
        self._lock = threading.RLock()
        self._known: dict[str, Sibling] = {}

    # -- asking -----------------------------------------------------------------------------------------------------------------------

    def look(self, names: Iterable[str]) -> list[Sibling]:
        """Ask all for their portraits and the columns ``names``, and say what is known after half a second at most."""
        wanted = tuple(names)
        found = self._there()
        for sibling in found:
            self._start(sibling, wanted)
        until = self._clock.monotonic() + PATIENCE
        for sibling in found:
            if sibling.asking:
                sibling.done.wait(max(0.0, until - self._clock.monotonic()))
        return self._there()

    def _there(self) -> list[Sibling]:
        now, others = self._clock.monotonic(), self._exchange.others()
        with self._lock:
            for name, alive in others.items():
                sibling = self._known.setdefault(name, Sibling(name, now))
                if not alive and sibling.dead_at is None:
                    sibling.dead_at, sibling.why = now, sibling.why or "it has ended without a word"
            # Who ended properly took its socket away, and nobody misses it. That of one who was killed stays for a while.
            self._known = {name: sibling for name, sibling in self._known.items() if name in others}
            return list(self._known.values())

    def _start(self, sibling: Sibling, names: tuple[str, ...]) -> None:
        with self._lock:
            if sibling.asking or sibling.dead_at is not None:
                return
            sibling.asking = True
            sibling.done.clear()
        self._in_thread(lambda: self._ask(sibling, names), sibling.done)

    def _in_thread(self, work: Callable[[], None], done: threading.Event) -> None:
        try:
            threading.Thread(target=work, name="somaresil-workers-ask", daemon=True).start()
        except RuntimeError as none_left:
            self._listeners.defect("thread somaresil-workers-ask", none_left, self._clock.time(), "other workers are not asked")
            done.set()

    def _ask(self, sibling: Sibling, names: tuple[str, ...]) -> None:
        try:
            portrait = checked.portrait(self._exchange.ask(sibling.name, {"ask": "portrait"}, _TIMEOUT))
            columns = sibling.columns
            if names and (columns is None or columns["index"] != portrait["index"] or sibling.names != names):
                columns = checked.columns(self._exchange.ask(sibling.name, {"ask": "columns", "names": names}, _TIMEOUT))
            with self._lock:
                sibling.portrait, sibling.columns, sibling.names = portrait, columns, names
                sibling.heard_at, sibling.why = self._clock.monotonic(), ""
        except Gone as gone:
            with self._lock:
                sibling.dead_at, sibling.why = self._clock.monotonic(), str(gone)
            self._exchange.bury(sibling.name)
        except (Unanswered, checked.Strange) as wrong:
            sibling.why = str(wrong)[:200]
        except Exception as defect:  # noqa: BLE001 - the page shows the others
            sibling.why = type(defect).__qualname__
            self._listeners.defect("asking another worker", defect, self._clock.time(), "it is shown as missing")
        finally:
            sibling.asking = False
            sibling.done.set()

    # -- answers ----------------------------------------------------------------------------------------------------------------------

    def state(self, sibling: Sibling) -> str:
        """``live``, ``stale`` or ``missing``."""
        age = self._clock.monotonic() - sibling.heard_at
        if sibling.dead_at is not None or sibling.portrait is None or age > _STALE:
            return "missing"
        return "live" if age <= _LIVE else "stale"

    def process(self, sibling: Sibling) -> int | None:
        """Its process id."""
        return self._exchange.process_of(sibling.name)

    def everyone(
        self, question: Mapping[str, Any], check: Callable[[Any], Any], timeout: float, *, patience: float | None = None
    ) -> list[tuple[Sibling, Any, str]]:
        """What each of them answers, or None and why: asked at the same time, for at most ``timeout`` seconds.

        Those that are known not to answer are not waited for longer than ``patience`` seconds.
        """
        found = [sibling for sibling in self._there() if sibling.dead_at is None]
        said: dict[str, tuple[Any, str]] = {}
        waiting: list[tuple[Sibling, threading.Event]] = []
        for sibling in found:
            done = threading.Event()
            waiting.append((sibling, done))
            self._in_thread(lambda sibling=sibling, done=done: self._one(sibling, question, check, timeout, said, done), done)  # type: ignore[misc]
        begun = self._clock.monotonic()
        for sibling, done in waiting:
            ill = patience is not None and bool(sibling.why)
            left = begun + (patience if ill and patience is not None else timeout) - self._clock.monotonic()
            done.wait(max(0.0, left))
        return [(sibling, *said.get(sibling.name, (None, f"no answer within {timeout:g} s"))) for sibling in found]

    def _one(
        self,
        sibling: Sibling,
        question: Mapping[str, Any],
        check: Callable[[Any], Any],
        timeout: float,
        said: dict[str, tuple[Any, str]],
        done: threading.Event,
    ) -> None:
        try:
            said[sibling.name] = (check(self._exchange.ask(sibling.name, question, timeout)), "")
            sibling.why = ""
        except (Unanswered, checked.Strange) as wrong:
            sibling.why = str(wrong)[:200]
            said[sibling.name] = (None, sibling.why)
            if isinstance(wrong, Gone):
                with self._lock:
                    sibling.dead_at, sibling.why = self._clock.monotonic(), str(wrong)
                self._exchange.bury(sibling.name)
        except Exception as defect:  # noqa: BLE001 - the others have answered
            said[sibling.name] = (None, type(defect).__qualname__)
            self._listeners.defect("asking another worker", defect, self._clock.time(), "it is shown as missing")
        finally:
            done.set()
