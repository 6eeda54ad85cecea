"""A user of Locust who reads streams of server-sent events, and knows when each token came.

Locust's fast client reads in blocks of a fixed size and sees the first token when a block is full; with ``stream=True`` both clients report
the time of the headers. Here every read takes what has come, no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import gevent
import requests
from locust import HttpUser

from somaresil.clock import SystemClock
from somaresil.integrations._locust_pace import LATE
from somaresil.integrations._locust_tally import SSE, failure_of
from somaresil.load.books import Ending
from somaresil.load.generator import TIMEOUT
from somaresil.load.measure import Measure
from somaresil.load.sse import EventReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from locust.env import Environment

__all__ = ["ENDING", "FIRST", "GAP_BOUNDS", "SSEUser", "StreamFailure"]

ENDING: Final = "somaresil_ending"
"""Under this name the context of an event of Locust has what is known of a stream; None: it is none of its own, and counts nowhere."""
FIRST: Final = "SSE first"
"""The type under which Locust's own tables have the times to the first token."""
GAP_BOUNDS: Final[set[float]] = set()
"""Gaps that are to be counted exactly, for the limits of the test."""
_BLOCK: Final = 65_536
_ERROR: Final = 400
_MARK: Final = "x-somaresil-chaos"
_CLOCK: Final = SystemClock()


class StreamFailure(Exception):
    """What went wrong with a stream, for Locust's tables."""


class _OutOfTime(BaseException):
    """The time of a stream is up. No Exception: a library must not take it for one of its own errors."""


class SSEUser(HttpUser):
    """An ``HttpUser`` who can read streams: cookies, headers and authentication of ``self.client`` hold for them too."""

    abstract: bool = True
    stream_timeout: float = 30.0
    """Seconds from the intended start after which a stream is given up, unless a call says something else."""

    def __init__(self, environment: Environment) -> None:
        """A user with nothing open."""
        super().__init__(environment)
        # Not self.client: that would report a stream a second time, with the time of its headers.
        self._streams = requests.Session()

    def stream(
        self,
        path: str,
        *,
        name: str | None = None,
        method: str = "GET",
        end: str | None = None,
        timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Ending:
        """Read one stream to its end, and report it to Locust and to the judgement.

        ``end`` is the data or the name of the last event: a stream that ends without it is truncated, and failed. Without ``end`` any end
        is good. ``timeout`` seconds after the intended start it is given up. ``options`` are those of ``requests``: ``json``, ``data``, ...

        Locust gets an event of type ``SSE`` with the time to the end, and one of type ``SSE first`` with the time to the first token, both
        from the intended start. Does not raise for what the service does; the result says what that was (times of a monotonic clock).

        A stream that is read when the test ends is reported nowhere: that says nothing about the service.
        """
        begun = _CLOCK.monotonic()
        due = begun - LATE.get()
        ending = Ending(f"{SSE} {name or path}", due, begun)
        bounds = tuple(sorted(GAP_BOUNDS))
        ending.gaps = Measure(bounds)
        limit = self.stream_timeout if timeout is None else timeout
        sent = {"Accept": "text/event-stream", "Accept-Encoding": "identity", **(headers or {})}
        try:
            with gevent.Timeout(max(0.001, due + limit - begun), _OutOfTime):
                ending.failure = self._read(ending, method, path, sent, end, options)
        except _OutOfTime:
            ending.failure = TIMEOUT
        except Exception as broken:  # noqa: BLE001 - whatever the client raises is what became of the request
            ending.failure = failure_of(broken)
            if ending.stream:
                ending.failure = "cut off" if ending.failure in {"closed", "reset"} else ending.failure
                ending.truncated = True
        if ending.failure == TIMEOUT and ending.stream:
            ending.truncated = True
        if ending.failure is not None:
            ending.ended = _CLOCK.monotonic()
        self._report(ending, name or path)
        return ending

    def _read(self, ending: Ending, method: str, path: str, headers: Mapping[str, str], end: str | None, options: Any) -> str | None:
        """Read it, note what comes, and give the kind of failure."""
        client, session = self.client, self._streams
        session.headers, session.cookies, session.auth = client.headers, client.cookies, client.auth
        session.verify, session.cert, session.trust_env = client.verify, client.cert, client.trust_env
        address = path if path.startswith(("http://", "https://")) else f"{str(client.base_url).rstrip('/')}{path}"
        with session.request(method, address, headers=dict(headers), stream=True, **options) as response:
            ending.injected = bool(response.headers.get(_MARK))
            if response.status_code >= _ERROR:
                return f"status {response.status_code}"
            ending.stream = True
            reader, last = EventReader(), 0.0
            while piece := response.raw.read1(_BLOCK):
                now = _CLOCK.monotonic()
                ending.received += len(piece)
                try:
                    events = reader.feed(piece)
                except ValueError:
                    ending.truncated = True
                    return "an event too large"
                for event in events:
                    if end is not None and end in {event.data, event.kind}:
                        ending.ended = now
                        return None
                    if ending.first is None:
                        ending.first = now
                    elif ending.gaps is not None:
                        ending.gaps.add(now - last)
                    last = now
                    ending.items += 1
            ending.ended = _CLOCK.monotonic()
            ending.truncated = end is not None
            return "truncated" if ending.truncated else None

    def _report(self, ending: Ending, name: str) -> None:
        request = self.environment.events.request
        if ending.first is not None:
            request.fire(
                request_type=FIRST,
                name=name,
                response_time=(ending.first - ending.due) * 1000.0,
                response_length=0,
                exception=None,
                context={**self.context(), ENDING: None},
            )
        request.fire(
            request_type=SSE,
            name=name,
            response_time=(ending.ended - ending.due) * 1000.0,
            response_length=ending.received,
            exception=None if ending.failure is None else StreamFailure(ending.failure),
            context={**self.context(), ENDING: ending},
        )
