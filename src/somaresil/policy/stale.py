"""Stale while failing: the last good answer to the same question, when there is no new one.

An old answer is often better than none (RFC 5861, ``stale-if-error``). It is the innermost of the fallbacks, so what it remembers is what
the dependency itself has said: never what a fallback said, an experiment has touched, or the guard's ``classify`` calls anything but good.
"""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from somaresil.callkey import key_of
from somaresil.config import Checker
from somaresil.events import FallbackUsed
from somaresil.outcome import Outcome
from somaresil.runtime import original

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from datetime import timedelta

    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["StaleCache", "StaleCachePolicy"]


@dataclass(frozen=True, slots=True)
class StaleCache:
    """How old an answer may be, how many are remembered, and which calls ask for the same. Durations are seconds or a ``timedelta``.

    The age of an answer counts from when it was asked for, and an answer never takes the place of one that was asked for later. Callers get
    the same object: what they change in it is changed for all. Streams are not remembered.
    """

    max_stale: float | timedelta
    """The oldest answer that is given when the call fails or is rejected."""
    _: KW_ONLY
    max_age: float | timedelta = 0.0
    """Up to this age an answer is given without a call; 0: never."""
    key: Callable[..., Hashable] | None = None
    """A function of the arguments: calls of one function for which it returns the same ask for the same. None: the arguments themselves."""
    max_entries: int = 1_024
    """Answers that are remembered; the one that was not used for longest goes first."""
    on: type[Exception] | tuple[type[Exception], ...] = Exception
    """The errors in whose place an old answer is given."""
    when: Callable[[Any], object] | None = None
    """A function of the answer: true when that is no better than an error. It is not remembered, and an old one is given in its place."""
    shadow: bool = False
    """Remember, and count the answers that would be given, and give none."""

    def __post_init__(self) -> None:
        """Check everything, keep seconds as floats."""
        check = Checker("StaleCache")
        keep = object.__setattr__
        max_stale = check.seconds("max_stale", self.max_stale)
        max_age = check.seconds("max_age", self.max_age, exclusive=False)
        keep(self, "max_stale", max_stale)
        keep(self, "max_age", max_age)
        for name in ("key", "when"):
            function = getattr(self, name)
            if function is not None and (not callable(function) or inspect.iscoroutinefunction(function)):
                check.problem(name, function, f"a plain function of the {'arguments' if name == 'key' else 'answer'}")
        check.count("max_entries", self.max_entries, maximum=10_000_000)
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            check.problem("on", self.on, "exception types", "subclasses of Exception; cancellation and exit are never answered")
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()
        if max_age > max_stale:
            check.problem("max_age", self.max_age, f"at most max_stale ({max_stale:g})", "what is fresh is not too old")
        check.finish()

    def unfit(self, *, suspends: bool, streams: bool) -> tuple[str, str] | None:  # noqa: ARG002 - both kinds of functions are fine
        """What may not be guarded with it: what is allowed instead, and what to do."""
        return ("no StaleCache for a stream", "it would have to hold the whole stream; give it a handler instead") if streams else None

    @property
    def links(self) -> tuple[Any, ...]:
        """Fallbacks with a handler: none."""
        return ()

    def build(self, site: Site) -> StaleCachePolicy:
        """The cache at work."""
        return StaleCachePolicy(self, site)


class _Entry(NamedTuple):
    answer: Any
    asked: float


class StaleCachePolicy:
    """One cache at work. Its lock is never held across a call."""

    quiet = False

    def __init__(self, options: StaleCache, site: Site) -> None:
        """Nothing remembered."""
        self._site = site
        self._lock = threading.RLock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._results: dict[str, int] = {"fresh": 0, "stale": 0, "missing": 0}
        self.reconfigure(options)

    def reconfigure(self, options: StaleCache) -> None:
        """Remember by other rules from now on; what is remembered stays."""
        with self._lock:
            self.options = options
            self._shrink()

    @property
    def cache(self) -> StaleCachePolicy:
        """Itself: where it stands alone, it is the fallback of its guard."""
        return self

    def __len__(self) -> int:
        """How many answers it remembers."""
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()

    def results(self) -> dict[str, int]:
        """How many answers were given ``fresh`` and ``stale``, and for how many failures there was none (``missing``)."""
        with self._lock:
            return dict(self._results)

    async def __call__(self, inner: Next, call: Call) -> Any:
        """A fresh answer that is known, the callee's, or an old one in place of none."""
        options = self.options
        if call.lasting or (key := self._key(call)) is None:
            return await inner(call)
        if options.max_age and not options.shadow:
            entry = self._find(key, call)
            if entry is not None and call.started - entry.asked <= _seconds(options.max_age):
                self._count("fresh")
                return entry.answer
        try:
            result = await inner(call)
        except Exception as caught:
            if not isinstance(original(caught), options.on):
                raise
            entry = self._instead(key, call, type(original(caught)).__qualname__)
            if entry is None:
                raise
            return entry.answer
        if self._refused(call, result):
            entry = self._instead(key, call, "refused answer")
            return result if entry is None else entry.answer
        if not call.injected and call.judge(result, None) is Outcome.GOOD:
            self._remember(key, call, result)
        return result

    def _key(self, call: Call) -> Hashable:
        """None: it cannot be told from others, so nothing is remembered of it."""
        try:
            return key_of(call, self.options.key)
        except Exception as broken:  # noqa: BLE001 - the call goes on without the cache
            self._report(call, broken)
            return None

    def _refused(self, call: Call, result: object) -> bool:
        try:
            return self.options.when is not None and bool(self.options.when(result))
        except Exception as broken:  # noqa: BLE001 - a predicate that fails does not take an answer away
            call.listeners.defect(f"when of the stale cache of guard {call.guard}", broken, call.clock.time(), "the answer was given")
            return False

    def _instead(self, key: Hashable, call: Call, error: str) -> _Entry | None:
        """An old answer in place of ``error``, if there is one that may still be given."""
        entry = self._find(key, call)
        age = 0.0 if entry is None else call.clock.monotonic() - entry.asked
        if entry is None or age > _seconds(self.options.max_stale):
            self._count("missing")
            return None
        if self.options.shadow:
            self._site.shadow.note("stale_cache", "answer", f"an answer of {age:.3g} s ago")
            return None
        self._count("stale")
        if call.listeners.wants(FallbackUsed):
            call.listeners.emit(FallbackUsed(call.guard, call.clock.time(), error, "StaleCache", stale=True, age=age))
        return entry

    def _find(self, key: Hashable, call: Call) -> _Entry | None:
        try:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None:
                    self._entries.move_to_end(key)
                return entry
        except Exception as broken:  # noqa: BLE001 - keys are compared by the user's code
            self._report(call, broken)
            return None

    def _remember(self, key: Hashable, call: Call, answer: object) -> None:
        try:
            with self._lock:
                known = self._entries.get(key)
                if known is None or known.asked <= call.started:
                    self._entries[key] = _Entry(answer, call.started)
                    self._entries.move_to_end(key)
                    self._shrink()
        except Exception as broken:  # noqa: BLE001 - as above
            self._report(call, broken)

    def _report(self, call: Call, broken: Exception) -> None:
        call.listeners.defect(f"key of the stale cache of guard {call.guard}", broken, call.clock.time(), "nothing was remembered")

    def _shrink(self) -> None:
        while len(self._entries) > self.options.max_entries:
            self._entries.popitem(last=False)

    def _count(self, result: str) -> None:
        with self._lock:
            self._results[result] += 1


def _seconds(value: float | timedelta) -> float:
    # Durations were turned into seconds when the options were made.
    return value  # type: ignore[return-value]
