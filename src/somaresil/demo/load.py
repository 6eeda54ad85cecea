"""Open-loop load: requests begin when the timetable says, whatever became of the earlier ones.

A loop that waits for each answer before it asks again slows down with the service that it measures, and the stall is missing from its
figures (Gil Tene, "How NOT to Measure Latency", 2013: coordinated omission). Here every request has an intended start, and its latency
counts from there, also when the generator itself was late or had to wait for a free place.
"""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import httpx

from somaresil.chance import Chance
from somaresil.demo.services.client import client

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

__all__ = ["PATIENCE", "Figures", "Load", "Sample"]

PATIENCE: Final = 5.0
"""Seconds from its intended start after which a client has given up: no answer by then is a failure."""
MOST_IN_FLIGHT: Final = 256
STREAM_SHARE: Final = 0.25
SESSIONS: Final = 50

_WINDOW: Final = 5.0
"""Seconds that the live figures look back."""


class Sample(NamedTuple):
    """One request, as its client saw it. Times are of ``time.monotonic``."""

    request: str
    kind: str
    """``message`` or ``stream``."""
    due: float
    """When it was meant to begin."""
    ended: float
    failure: str | None
    """What went wrong; None: it was answered in full and in time."""
    degraded: bool
    """Whether a fallback wrote the answer."""
    served_by: str = ""
    """Who answered, if the answer says so (header ``x-served-by``)."""
    began: float = 0.0
    """When it was sent: later than it was due when the generator itself was late."""

    @property
    def latency(self) -> float:
        """Seconds from the intended start."""
        return self.ended - self.due


@dataclass(frozen=True, slots=True)
class Figures:
    """Some samples, summed up. Latencies are seconds; None without samples."""

    requests: int
    failed: int
    degraded: int
    per_second: float
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, samples: Iterable[Sample], seconds: float) -> Figures:
        """Sum up what was begun within ``seconds``."""
        chosen = list(samples)
        # Failures are among the latencies: a quick error and a given-up wait are what their callers got.
        latencies = sorted(sample.latency for sample in chosen)
        return cls(
            requests=len(chosen),
            failed=sum(sample.failure is not None for sample in chosen),
            degraded=sum(sample.degraded for sample in chosen),
            per_second=len(chosen) / seconds if seconds > 0.0 else 0.0,
            p50=_quantile(latencies, 0.50),
            p95=_quantile(latencies, 0.95),
            p99=_quantile(latencies, 0.99),
        )


class Load:
    """The generator. Requests are offered inside its ``async with`` block, or until :meth:`stop`."""

    def __init__(self, url: str, *, rate: float, seed: int) -> None:
        """Offer ``rate`` requests a second to ``url``; ``seed`` decides which of them are streams."""
        self._rate = rate
        self._kinds = Chance(seed).sequence("load.kind")
        self._url = url
        self._http = client()
        self._places = asyncio.Semaphore(MOST_IN_FLIGHT)
        self._running: set[asyncio.Task[None]] = set()
        self._due: dict[asyncio.Task[None], float] = {}
        self._offering: asyncio.Task[None] | None = None
        self.samples: list[Sample] = []
        """Requests that have ended, in the order in which they did."""
        self.remembered: set[str] = set()
        """Requests whose answer promised that the exchange is, or will be, in the memory store."""

    async def __aenter__(self) -> Self:
        """Begin to offer."""
        self._offering = asyncio.create_task(self._offer())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Offer no more, and leave nothing running."""
        leftover = [task for task in (self._offering, *self._running) if task is not None]
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)
        await self._http.aclose()

    async def stop(self) -> None:
        """Offer no more, and wait for the answers that are still to come: at most :data:`PATIENCE`, which every request keeps to."""
        if self._offering is not None:
            self._offering.cancel()
            await asyncio.gather(self._offering, return_exceptions=True)
        await asyncio.gather(*self._running)

    @property
    def in_flight(self) -> int:
        """Requests without an answer yet."""
        return len(self._running)

    async def answered(self, until: float) -> None:
        """Wait for the answers of all that was meant to begin until then: at most :data:`PATIENCE`, which every request keeps to."""
        asked = [task for task, due in self._due.items() if due <= until]
        if asked:
            await asyncio.wait(asked)

    def check(self) -> None:
        """Raise what the generator itself has failed with, if it has."""
        if self._offering is not None and self._offering.done() and not self._offering.cancelled():
            self._offering.result()

    def recent(self) -> Figures:
        """The figures of what has ended in the last five seconds."""
        chosen = self.ended_since(time.monotonic() - _WINDOW)
        seconds = min(_WINDOW, time.monotonic() - self.samples[0].due) if self.samples else 0.0
        return Figures.of(chosen, seconds)

    def ended_since(self, moment: float) -> list[Sample]:
        """What has ended since then."""
        # They are in the order of their ends.
        return self.samples[bisect_right(self.samples, moment, key=lambda sample: sample.ended) :]

    def between(self, begin: float, end: float) -> Figures:
        """The figures of what was meant to begin in this time."""
        return Figures.of((sample for sample in self.samples if begin <= sample.due < end), end - begin)

    async def _offer(self) -> None:
        started = time.monotonic()
        number = 0
        while True:
            due = started + number / self._rate
            wait = due - time.monotonic()
            if wait > 0.0:
                await asyncio.sleep(wait)
            # Waiting for a place delays the sending, not the intended start.
            await self._places.acquire()
            kind = "stream" if self._kinds.hit(STREAM_SHARE) else "message"
            task = asyncio.create_task(self._request(f"r{number}", kind, number, due))
            self._running.add(task)
            self._due[task] = due
            task.add_done_callback(self._gone)
            number += 1

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        del self._due[task]
        self._places.release()

    async def _request(self, request: str, kind: str, number: int, due: float) -> None:
        degraded, failure, served_by, began = False, None, _ServedBy(), time.monotonic()
        try:
            left = due + PATIENCE - time.monotonic()
            async with asyncio.timeout(left):
                if kind == "stream":
                    degraded = await self._stream(request, served_by)
                else:
                    degraded = await self._message(request, number, served_by)
        except TimeoutError:
            failure = f"no complete answer within {PATIENCE:g} s"
        except _Refused as refused:
            failure = str(refused)
        except (httpx.RemoteProtocolError, httpx.ReadError):
            failure = "the response broke off"
        except httpx.HTTPError as error:
            failure = f"no response: {type(error).__name__}"
        self.samples.append(Sample(request, kind, due, time.monotonic(), failure, degraded, served_by.name, began))

    async def _message(self, request: str, number: int, served_by: _ServedBy) -> bool:
        body = {"session": f"s{number % SESSIONS}", "text": f"question {number}"}
        reply = await self._http.post(f"{self._url}/v1/session/message", json=body, headers={"x-request-id": request})
        served_by.note(reply)
        if reply.status_code != httpx.codes.OK:
            raise _Refused(f"status {reply.status_code}")
        answer = reply.json()
        if answer["memory"] in {"stored", "queued"}:
            self.remembered.add(request)
        return bool(answer["degraded"])

    async def _stream(self, request: str, served_by: _ServedBy) -> bool:
        question = {"prompt": f"question {request}"}
        last, done = "", False
        async with self._http.stream(
            "GET", f"{self._url}/v1/llm/invoke/stream", params=question, headers={"x-request-id": request}
        ) as reply:
            served_by.note(reply)
            if reply.status_code != httpx.codes.OK:
                raise _Refused(f"status {reply.status_code}")
            async for line in reply.aiter_lines():
                done = done or line == "event: done"
                last = line or last
        if not done:
            raise _Refused("the stream ended without its last event")
        return bool(json.loads(last.removeprefix("data: "))["degraded"])


class _ServedBy:
    """Who has answered a request, as far as is known."""

    def __init__(self) -> None:
        self.name = ""

    def note(self, reply: httpx.Response) -> None:
        """The answer has begun."""
        self.name = reply.headers.get("x-served-by", "")


class _Refused(Exception):
    """The service answered, but not with an answer."""


def _quantile(ascending: list[float], share: float) -> float | None:
    """The nearest-rank quantile: a value that was measured, not one between two."""
    if not ascending:
        return None
    return ascending[min(len(ascending) - 1, int(share * len(ascending)))]
