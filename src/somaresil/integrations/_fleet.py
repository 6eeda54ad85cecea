"""All shared circuits of one process: what its thread does when it wakes.

It hears what others did, says what this process did, half-opens what has been open for long enough, borrows and keeps probes, and looks
from time to time for what no message told. One breaker and its circuit is a :class:`~somaresil.integrations._link.Link`. Nothing is held
while the store is asked.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar

from somaresil.integrations._link import UNKNOWN, Link
from somaresil.model.breaker import State
from somaresil.model.selector import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from somaresil.integrations._link import Intent, Message, Seen, Store
    from somaresil.model.breaker import Breaker, Transition
    from somaresil.resilience import Resilience
    from somaresil.typing import Clock

__all__ = ["Fleet"]

_LONGEST: Final = 366 * 86_400.0
_AT_ONCE: Final = 500

_T = TypeVar("_T")


class Fleet:
    """The breakers of this process that are shared. All but :meth:`note` belongs to one thread."""

    def __init__(self, resilience: Resilience, patterns: Sequence[str], *, trust: float, wake: Callable[[], None]) -> None:
        """``trust``: seconds for which an answer of the store is taken for true; ``wake`` is called when there is something to do."""
        self._resilience = resilience
        self._clock: Clock = resilience.clock
        self._patterns = patterns
        self._trust = trust
        self.wake = wake
        self.begin()

    def begin(self) -> None:
        """Know nothing yet."""
        self.moving = threading.RLock()
        """Held while breakers are moved, so that nobody forks in the middle of it."""
        self.links: dict[str, Link] = {}
        self.trusted_until = float("-inf")
        """Monotonic time until which what the store said stands."""
        self.dropped = 0
        """Steps of this process that were replaced by later ones before they could be written down."""
        self._noting = threading.RLock()
        self._noted: dict[Link, None] = {}
        self._hot: dict[Link, None] = {}
        """Those that are not closed."""
        self._number = 0

    def note(self, link: Link, *, replaced: bool = False) -> None:
        """Have the thread look at a link soon. One entry a breaker, so there is an end to it whatever happens."""
        with self._noting:
            first = not self._noted
            self._noted[link] = None
            self.dropped += replaced
        if first:
            self.wake()

    # -- the thread -------------------------------------------------------------------------------------------------------------------

    def restore(self, store: Store) -> None:
        """The store can be reached: become what is shared, and write down what is not."""
        self._number = self._ask(store.hello)
        self._scan()
        self._read(store, list(self.links.values()))
        self._serve_all(store)

    def lost(self) -> None:
        """The store cannot be reached: each breaker decides by itself."""
        self.trusted_until = float("-inf")
        for link in self.links.values():
            self._do(link, link.lost)

    def turn(self, store: Store, messages: Iterable[Message] = ()) -> None:
        """Hear what the others did, say what we did, and half-open what has been open for long enough."""
        missed = False
        for message in messages:
            missed = missed or message.number > self._number + 1
            self._number = max(self._number, message.number)
            self._hear(message)
        if missed:
            self._read(store, list(self.links.values()))
        self._serve_all(store)
        now = self._clock.monotonic()
        for link in self._waiting():
            if now < link.policy.refuse_until:
                continue
            if link.apart:
                self._read(store, [link])
            else:
                version = link.version
                seen = self._ask(store.begin_half_open_if_elapsed, link.name, version)
                self._do(link, functools.partial(link.begun, version, seen))
        self._serve_all(store)

    def poll(self, store: Store) -> None:
        """From time to time: say that we live, find what was missed and what is new, keep what is lent."""
        number = self._ask(store.hello)
        fresh = self._scan()
        if number != self._number:
            self._number = number
            fresh = list(self.links.values())
        else:
            # Those that go their own way should be few; one of them may have done so without the store having moved.
            fresh += [link for link in self._hot if link.era != link.policy.era and link not in fresh]
        self._read(store, fresh)
        for link in list(self._hot):
            self._keep(store, link)
            if link.wanted:
                self.note(link)
        self._serve_all(store)

    def due(self) -> float:
        """Monotonic time at which :meth:`turn` has something to do by itself."""
        return min((link.policy.refuse_until for link in self._waiting()), default=float("inf"))

    def leave(self, store: Store | None) -> None:
        """Give back what is lent, and leave the breakers alone."""
        if store is not None:
            for link in list(self._hot):
                self._do(link, functools.partial(link.give_back, True))  # noqa: FBT003
                self._report(store, link)
            store.goodbye()
        self.trusted_until = float("-inf")
        for link in self.links.values():
            self._do(link, link.detach)
        self.links = {}

    # -- inside -----------------------------------------------------------------------------------------------------------------------

    def _waiting(self) -> list[Link]:
        """Those that have something to do when their open time is over."""
        return [
            link
            for link in self._hot
            if link.policy.state is State.OPEN and (link.version == UNKNOWN if link.apart else link.era == link.policy.era)
        ]

    def _ask(self, question: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        # From before the question was asked: what the store lends begins after that, and so ends after we think it does.
        asked = self._clock.monotonic()
        answer = question(*args, **kwargs)
        self.trusted_until = asked + self._trust
        return answer

    def _do(self, link: Link, move: Callable[[Breaker, float, float], Transition | None]) -> None:
        with self.moving:
            link.policy.follow(move)

    def _take(self, link: Link, seen: Seen) -> None:
        self._do(link, functools.partial(link.see, seen))

    def _scan(self) -> list[Link]:
        """Take on breakers that are new, leave those that are gone; gives the new ones."""
        fresh: list[Link] = []
        for name, guard in self._resilience.guards.items():
            link, breaker = self.links.get(name), guard.breaker
            # A breaker in shadow mode opens nothing, and so nothing for others either.
            if breaker is not None and (breaker.options.shadow or (link is None and not any(matches(p, name) for p in self._patterns))):
                breaker = None
            if link is not None and link.policy is not breaker:
                self._do(self.links.pop(name), link.detach)
                self._hot.pop(link, None)
                link = None
            if breaker is not None and link is None:
                self.links[name] = link = Link(self, name, breaker)
                self._do(link, link.attach)
                fresh.append(link)
        return fresh

    def _read(self, store: Store, links: list[Link]) -> None:
        for start in range(0, len(links), _AT_ONCE):
            some = links[start : start + _AT_ONCE]
            for link, seen in zip(some, self._ask(store.read, [link.name for link in some]), strict=True):
                self._take(link, seen)
                self.note(link)

    def _hear(self, message: Message) -> None:
        link = self.links.get(message.name)
        if link is None or message.seen.version < link.version:
            # One that we have no part in, or an old one that was overtaken by the answer to a question.
            return
        if message.wanted:
            self._do(link, functools.partial(link.give_back, False))  # noqa: FBT003
        else:
            self._take(link, message.seen)
        if link.reports or link.wanted:
            self.note(link)

    def _serve_all(self, store: Store) -> None:
        while self._noted:
            with self._noting:
                noted, self._noted = self._noted, {}
            for link in noted:
                # One that has gone into shadow mode has nothing to say to others, not even that it began anew for it.
                if self.links.get(link.name) is link and not link.policy.options.shadow:
                    self._serve(store, link)

    def _serve(self, store: Store, link: Link) -> None:
        self._report(store, link)
        if link.version == UNKNOWN:
            (seen,) = self._ask(store.read, [link.name])
            self._take(link, seen)
        intent = link.intent
        if intent is not None and not intent.noted:
            self._write(store, link, intent)
        if (link.wanted or link.wish) and not link.leases and link.policy.state is State.HALF_OPEN and link.era == link.policy.era:
            self._borrow(store, link)
        if link.policy.state in {State.OPEN, State.HALF_OPEN}:
            self._hot[link] = None
        else:
            self._hot.pop(link, None)

    def _report(self, store: Store, link: Link) -> None:
        while (report := link.pop_report()) is not None:
            seen = self._ask(store.record_probe, link.name, report.version, report.lease, report.verdict, slow=report.slow)
            self._take(link, seen)

    def _write(self, store: Store, link: Link, intent: Intent) -> None:
        if not intent.opens:
            seen = self._ask(store.close, link.name, intent.version, probed=intent.probed, openings=intent.openings)
        elif (left := intent.until - self._clock.monotonic()) > 0.0:
            left = min(left, _LONGEST)
            seen = self._ask(store.trip_open, link.name, intent.version, duration=left, openings=intent.openings)
        else:
            self._do(link, functools.partial(link.overdue, intent))
            (seen,) = self._ask(store.read, [link.name])
            self._take(link, seen)
            return
        self._do(link, functools.partial(link.answered, intent, seen))

    def _borrow(self, store: Store, link: Link) -> None:
        limits, asked, until = link.policy.options.thresholds, link.wanted, self._until()
        seconds = self._trust + limits.probe_timeout
        most = {"limit": limits.half_open_calls, "at_once": limits.half_open_concurrency}
        seen = self._ask(store.lease_probe, link.name, link.version, **most, seconds=seconds, asked=asked)
        self._do(link, functools.partial(link.lent, seen, until, asked))

    def _keep(self, store: Store, link: Link) -> None:
        leases: list[str] = []
        self._do(link, lambda _model, _now, _u: leases.extend(lease.name for lease in link.leases))
        until = self._until()
        if leases:
            seconds = self._trust + link.policy.options.thresholds.probe_timeout
            seen = self._ask(store.keep_probes, link.name, link.version, leases, seconds=seconds)
            self._do(link, functools.partial(link.kept, seen, until))

    def _until(self) -> float:
        """Until when a probe that is borrowed now may be handed out. Its lease then lasts for as long as the probe may take."""
        return self._clock.monotonic() + self._trust
