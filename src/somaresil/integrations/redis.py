"""Redis: circuits that open, probe and close together in many processes.

    with share(resilience, "redis://localhost:6379/0"):
        ...

Each process goes on judging its own calls; what it shares is its circuits' *transitions*, and the probes of half-open ones
(:mod:`somaresil.integrations._link`). No call ever waits for Redis: one daemon thread, started by :func:`share`, talks to it. When Redis
cannot be reached, is slow or forgets everything, each process decides by itself, as if nothing were shared, until it is back.

Left to the process: what an operator sets until further notice (``force_open``, ``disable``, ``observe``), and circuits that an experiment
opened, whose blast radius may be this process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import select
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from somaresil.config import Checker, did_you_mean
from somaresil.errors import describe
from somaresil.events import SharedStateLost, SharedStateRestored
from somaresil.integrations._fleet import Fleet
from somaresil.integrations._lua import RedisStore, parse_message
from somaresil.model.backoff import equal_jitter, exponential
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import timedelta

    from somaresil.integrations._link import Message

__all__ = ["SharedBreakers", "share"]

_log = logging.getLogger("somaresil")

_PATIENCE: Final = 1.0
"""Seconds to wait for a connection or an answer, unless the URL says otherwise (``?socket_timeout=``)."""
_FIRST_DELAY: Final = 0.1
_LONGEST_DELAY: Final = 5.0
_SCHEMES: Final = ("redis", "rediss", "unix")


def share(
    resilience: Resilience,
    url: str,
    *,
    prefix: str = "somaresil",
    quorum: int | None = None,
    poll: float | timedelta = 1.0,
    names: str | Sequence[str] = "*",
) -> SharedBreakers:
    """Share the breakers of ``resilience`` with every process that has the same service name, ``prefix`` and Redis.

    One that opens opens everywhere; with ``quorum=k``, once that many distinct *instances* have theirs open at the same time. ``names``: a
    pattern of guard names, or several. ``poll``: how often (0.05 to 60 seconds) to look for what no message told, and for guards that are
    new. What Redis said stands for two polls and two seconds without an answer.

    Returns at once, whether or not Redis can be reached. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("share")
    check.type("resilience", resilience, Resilience, "a Resilience")
    if any(handle.resilience is resilience for handle in list(_open)):
        check.problem("resilience", resilience, "one that is not shared yet", "close() what share() gave for it first")
    client = redis_client(check, url)
    check.name("prefix", prefix)
    check.count("quorum", quorum, maximum=10_000, optional=True)
    seconds = check.seconds("poll", poll, minimum=0.05, exclusive=False, maximum=60.0)
    patterns = (names,) if isinstance(names, str) else tuple(names)
    for pattern in patterns or ("",):
        check.pattern("names", pattern)
    check.finish()
    return SharedBreakers(resilience, url, client, prefix=prefix, quorum=quorum or 1, poll=seconds, patterns=patterns)


class SharedBreakers:
    """What :func:`share` gives: breakers that are shared until :meth:`close`. A context manager."""

    def __init__(
        self, resilience: Resilience, url: str, client: redis.Redis, *, prefix: str, quorum: int, poll: float, patterns: Sequence[str]
    ) -> None:
        """Start the thread."""
        self.resilience = resilience
        self.backend = shown(url)
        """Where Redis is, without a password."""
        self._url = url
        self._client = client
        self._prefix = prefix
        self._quorum = quorum
        self._poll = poll
        self._trust = 2.0 * poll + 2.0 * _PATIENCE
        self._fleet = Fleet(resilience, patterns, trust=self._trust, wake=self._ring)
        self._closed = False
        self._held = False
        self._begin()
        _watch(self)
        self._thread.start()

    def _begin(self) -> None:
        self._process = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._bell = _Bell()
        self._lost_at: float | None = None
        self._said_lost = False
        self._in_touch = threading.Event()
        self._thread = threading.Thread(target=self._run, name="somaresil-redis", daemon=True)

    def _ring(self) -> None:
        self._bell.ring()

    def __repr__(self) -> str:
        """Where, and whether it is there."""
        state = "closed" if self._closed else "connected" if self.connected else "local"
        return f"<SharedBreakers at {self.backend}: {state}>"

    def __enter__(self) -> Self:
        """Nothing happens."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @property
    def connected(self) -> bool:
        """Whether what Redis says counts at the moment. Never asks Redis."""
        return self._in_touch.is_set()

    @property
    def dropped(self) -> int:
        """Steps of this process that a later one replaced before Redis could be told."""
        return self._fleet.dropped

    def wait(self, timeout: float | timedelta) -> bool:
        """Block until it is :attr:`connected`; False when that took longer. For start-up and tests: no call needs it."""
        check = Checker("wait")
        seconds = check.seconds("timeout", timeout, exclusive=False)
        check.finish()
        return self._in_touch.wait(seconds)

    def close(self) -> None:
        """Give back what is lent, and let each breaker stand by itself. Waits for an answer of Redis that is due, for seconds at most."""
        if self._closed:
            return
        self._closed = True
        _open.discard(self)
        self._bell.ring()
        if self._thread is not threading.current_thread():
            self._thread.join()

    # -- the thread -------------------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._sessions()
        finally:
            self._fleet.leave(None)
            self._bell.close()

    def _sessions(self) -> None:
        failures = 0
        while not self._closed:
            since = time.monotonic()
            try:
                self._session()
            except (redis.RedisError, OSError) as error:
                self._lose(error)
            except Exception as defect:  # noqa: BLE001 - whatever it is, each process can decide by itself
                self.resilience.listeners.defect("sharing breakers through Redis", defect, self._now(), "local state decides")
                self._lose(defect)
            # Only one that lasted is a good one: a server that drops each connection is not to be asked ten times a second.
            failures = 1 if time.monotonic() - since > 2.0 * _LONGEST_DELAY else failures + 1
            delay = equal_jitter(exponential(failures, base=_FIRST_DELAY, maximum=_LONGEST_DELAY), secrets.randbelow(1_000) / 1_000)
            until = time.monotonic() + delay
            while not self._closed and (left := until - time.monotonic()) > 0.0:
                self._bell.wait(left)

    def _session(self) -> None:
        """From one connection to its loss, or to the end."""
        client = self._client
        store = RedisStore(
            client,
            prefix=self._prefix,
            service=self.resilience.service,
            instance=self.resilience.instance,
            process=self._process,
            quorum=self._quorum,
            alive=self._trust,
        )
        with contextlib.ExitStack() as stack:
            stack.callback(client.connection_pool.disconnect)
            news = stack.enter_context(_News(client, store.channel))
            stack.callback(self._in_touch.clear)
            self._fleet.restore(store)
            self._found()
            due = time.monotonic() + self._poll
            while not self._closed:
                messages = list(news.read())
                self._fleet.turn(store, messages)
                if (now := time.monotonic()) >= due:
                    due = now + self._poll
                    news.check(self._trust)
                    self._fleet.poll(store)
                self._bell.wait(max(0.0, min(due - time.monotonic(), self._fleet.due() - self.resilience.clock.monotonic())), news.socket)
            self._fleet.leave(store)

    def _lose(self, error: BaseException) -> None:
        self._fleet.lost()
        if self._closed or self._said_lost:
            return
        self._said_lost, self._lost_at = True, time.monotonic()
        self.resilience.listeners.lost(self.backend)
        _log.warning("shared state at %s cannot be reached (%s); local state decides", self.backend, describe(error))
        listeners = self.resilience.listeners
        if listeners.wants(SharedStateLost):
            listeners.emit(SharedStateLost(self.backend, self._now(), type(error).__qualname__))

    def _found(self) -> None:
        self._in_touch.set()
        self.resilience.listeners.reached(self.backend)
        if not self._said_lost or self._lost_at is None:
            return
        self._said_lost = False
        lost_for = time.monotonic() - self._lost_at
        _log.info("shared state at %s is back after %.1f s", self.backend, lost_for)
        listeners = self.resilience.listeners
        if listeners.wants(SharedStateRestored):
            listeners.emit(SharedStateRestored(self.backend, self._now(), lost_for))

    def _now(self) -> float:
        return self.resilience.clock.time()

    # -- forks ------------------------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """In the parent: wait until no breaker is just being moved by the thread, or the child would find its lock taken for ever."""
        self._held = self._fleet.moving.acquire(timeout=_PATIENCE)

    def after_fork_in_parent(self) -> None:
        """In the parent: go on."""
        if self._held:
            self._fleet.moving.release()

    def after_fork_in_child(self) -> None:
        """In the child: begin anew, with a thread and connections of its own. Nothing of the parent's is said through them."""
        if self._closed:
            return
        self._bell.forget()
        self._fleet.begin()
        self._client = connect(self._url)
        self._begin()
        self._thread.start()


class _News:
    """What the others did, on a connection of its own."""

    def __init__(self, client: redis.Redis, channel: str) -> None:
        self._pubsub: redis.client.PubSub = client.pubsub()  # type: ignore[no-untyped-call]
        self._channel = channel
        self._heard = time.monotonic()

    def __enter__(self) -> Self:
        """Subscribe, and wait until that is acknowledged: from then on nothing is missed."""
        self._pubsub.subscribe(self._channel)
        if self._pubsub.get_message(timeout=_PATIENCE) is None:
            self._pubsub.close()
            raise redis.TimeoutError(f"no answer to SUBSCRIBE within {_PATIENCE:g} s")
        return self

    def __exit__(self, *_: object) -> None:
        self._pubsub.close()

    @property
    def socket(self) -> Any:
        """What to wait on."""
        return getattr(self._pubsub.connection, "_sock", None)

    def read(self) -> Iterator[Message]:
        """What there is."""
        while (said := self._pubsub.get_message(timeout=0.0)) is not None:
            self._heard = time.monotonic()
            if said["type"] == "message":
                with contextlib.suppress(ValueError, TypeError, LookupError):
                    yield parse_message(said["data"])

    def check(self, patience: float) -> None:
        """A connection that is dead is silent, and so is one on which nothing happens: ask which it is."""
        if time.monotonic() - self._heard > patience:
            raise redis.ConnectionError(f"nothing was heard of channel {self._channel} for {patience:g} s")
        self._pubsub.ping()


class _Bell:
    """Wakes the thread: a pipe, so that it can wait for this and for a socket at once. Ringing it is one write that never blocks."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ears, self._rope = os.pipe()
        os.set_blocking(self._ears, False)
        os.set_blocking(self._rope, False)
        self._open = True

    def ring(self) -> None:
        """From any thread, as often as you like."""
        with self._lock:
            if self._open:
                with contextlib.suppress(OSError):
                    os.write(self._rope, b"!")

    def wait(self, seconds: float, also: Any = None) -> None:
        """Until it rings, or there is something to read from ``also``, or the time is over."""
        poll = select.poll()
        poll.register(self._ears, select.POLLIN)
        if also is not None:
            poll.register(also, select.POLLIN)
        poll.poll(min(seconds, 60.0) * 1_000.0)
        with contextlib.suppress(OSError):
            os.read(self._ears, 4_096)

    def close(self) -> None:
        """No more."""
        with self._lock:
            self._open = False
            self.forget()

    def forget(self) -> None:
        """Let go of it without a lock, which a thread of the parent may have held when it forked."""
        os.close(self._ears)
        os.close(self._rope)


# -- configuration --------------------------------------------------------------------------------------------------------------------


def connect(url: str) -> redis.Redis:
    """A client that waits for a second, and tries nothing twice."""
    # Retries are ours: they are to be jittered, told once, and never in the way of the next answer.
    return redis.Redis.from_url(url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=Retry(NoBackoff(), 0))


def redis_client(check: Checker, url: object) -> Any:
    """A client that has opened nothing yet; notes what is wrong with the URL."""
    allowed = "redis://[[user]:password@]host[:port][/database], rediss://... or unix:///path"
    if not isinstance(url, str):
        check.problem("url", url, allowed)
        return None
    scheme, colon, _ = url.partition("://")
    if not colon or scheme not in _SCHEMES:
        check.problem("url", shown(url), allowed, did_you_mean(scheme, _SCHEMES) if colon else "it has no scheme")
        return None
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        # Its own text would show a piece of a password.
        check.problem("url", shown(url), allowed, "a / ? # @ or : in a name or password is written as %2F %3F %23 %40 %3A")
        return None
    if scheme != "unix" and not re.fullmatch(r"/?|/\d+", parts.path):
        # redis-py takes the first database when it cannot read the number.
        check.problem("url", shown(url), allowed, "what follows the host is no number of a database")
        return None
    try:
        client = connect(url)
        # Options that no connection knows are found only when one is made. None is opened here.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (ValueError, TypeError, redis.RedisError) as error:
        check.problem("url", shown(url), allowed, str(error))
        return None
    return client


def shown(url: str) -> str:
    """Without user, password and options, where a password may stand too; what cannot be read is left out."""
    scheme, colon, _ = url.partition("://")
    if not colon:
        return "..." if "@" in url else url
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return f"{scheme}://..."
    host = f"[{host}]" if ":" in host else host
    path = "/..." if "@" in parts.path else parts.path
    return f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"


# -- forks of this process ------------------------------------------------------------------------------------------------------------

_open: weakref.WeakSet[SharedBreakers] = weakref.WeakSet()
_hooked = False


def _watch(handle: SharedBreakers) -> None:
    """Have ``handle`` told of forks. Hooks cannot be taken back, so they are set once, when first needed."""
    global _hooked  # noqa: PLW0603 - the hooks belong to the process
    _open.add(handle)
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked = True
        os.register_at_fork(
            before=_tell(SharedBreakers.before_fork),
            after_in_parent=_tell(SharedBreakers.after_fork_in_parent),
            after_in_child=_tell(SharedBreakers.after_fork_in_child),
        )


def _tell(step: Callable[[SharedBreakers], None]) -> Callable[[], None]:
    def tell() -> None:
        for handle in list(_open):
            step(handle)

    return tell
