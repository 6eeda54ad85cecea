"""The users, and the load balancer in front of the gateways.

Requests begin at fixed times, whatever became of the earlier ones (:mod:`somaresil.demo.load` says why). Every other one is a
stream. The load balancer goes round, and does what those of the field do: when a gateway cannot be reached, answers with 429 or 5xx, or
says nothing in time, the next one is asked, once; what a user has begun to read is not begun again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Final, Self

import httpx

from somaresil.drill.answers import chunks_of, is_sound, text_of
from somaresil.drill.judge import Request
from somaresil.drill.policies import LATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from somaresil.typing import Clock

__all__ = ["PATIENCE", "Users"]

PATIENCE: Final = 5.0
"""Seconds after which a user has given up."""
NEXT_AFTER: Final = 1.5
"""Seconds without an answer after which the load balancer asks the next gateway."""
MOST_IN_FLIGHT: Final = 256
_KEPT: Final = 5_000
_TOO_MANY, _BROKEN = 429, 500


class Users:
    """Users of the gateways, inside an ``async with`` block."""

    def __init__(self, http: httpx.AsyncClient, gateways: Sequence[str], clock: Clock, *, rate: float, balance: bool = True) -> None:
        """Begin ``rate`` requests a second. Without ``balance`` no other gateway is asked."""
        self._http = http
        self._gateways = tuple(gateways)
        self._clock = clock
        self._rate = rate
        self._balance = balance
        self._running: dict[asyncio.Task[None], float] = {}
        self._offering: asyncio.Task[None] | None = None
        self.ended: deque[Request] = deque(maxlen=_KEPT)
        """Those that have ended, in the order in which they did."""
        self.count = 0
        """How many have ended in all."""
        self.bad = 0
        self.turns: deque[float] = deque(maxlen=_KEPT)
        """When the load balancer has turned to another gateway."""
        self.acknowledged: set[str] = set()
        """Messages whose answer has promised that they are remembered, or will be."""

    async def __aenter__(self) -> Self:
        """Begin."""
        self._offering = asyncio.create_task(self._offer())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Offer no more, and leave nothing running."""
        leftover = [task for task in (self._offering, *self._running) if task is not None]
        for task in leftover:
            task.cancel()
        await asyncio.gather(*leftover, return_exceptions=True)

    async def stop(self) -> None:
        """Offer no more, and wait for the answers that are still to come: at most :data:`PATIENCE`."""
        if self._offering is not None:
            self._offering.cancel()
            await asyncio.gather(self._offering, return_exceptions=True)
        await asyncio.gather(*self._running)

    def check(self) -> None:
        """Raise what the users themselves have failed with, if they have."""
        if self._offering is not None and self._offering.done() and not self._offering.cancelled():
            self._offering.result()

    def since(self, moment: float) -> tuple[Request, ...]:
        """Requests that were due since then and have ended."""
        return tuple(request for request in self.ended if request.due >= moment)

    def waiting(self, until: float) -> bool:
        """Whether one that was due before ``until`` has no end yet."""
        return any(due < until for due in self._running.values())

    def steady(self, count: int, since: float) -> bool:
        """Whether the last ``count`` that were due since then are there and good, and nothing bad came after them."""
        found = sorted(self.since(since), key=lambda request: request.due)[-count:]
        return len(found) == count and not any(request.bad for request in found)

    async def _offer(self) -> None:
        started = self._clock.monotonic()
        number = 0
        while True:
            due = started + number / self._rate
            wait = due - self._clock.monotonic()
            if wait > 0.0:
                await self._clock.asleep(wait)
            if len(self._running) < MOST_IN_FLIGHT:
                task = asyncio.create_task(self._request(number, due))
                self._running[task] = due
                task.add_done_callback(self._gone)
            else:
                # Nobody could be let in: that is a failure like any other.
                self._note(Request(due, self._clock.monotonic(), "failed", "too many requests without an answer"))
            number += 1

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)

    def _note(self, request: Request) -> None:
        self.ended.append(request)
        self.count += 1
        self.bad += request.bad

    async def _request(self, number: int, due: float) -> None:
        question = f"q{number}"
        ask = self._stream if (number // len(self._gateways)) % 2 else self._message
        outcome, why = "good", ""
        try:
            async with asyncio.timeout(PATIENCE):
                why = await self._balanced(ask, question, number)
                outcome = "degraded" if why else "good"
        except TimeoutError:
            outcome, why = "failed", f"no complete answer within {PATIENCE:g} s"
        except (_Refused, ValueError, KeyError, TypeError, httpx.HTTPError) as error:
            outcome, why = "failed", str(error) or type(error).__name__
        ended = self._clock.monotonic()
        if outcome != "failed" and ended - due > LATE:
            outcome, why = "failed", f"late: after {LATE:g} s"
        self._note(Request(due, ended, outcome, why))

    async def _balanced(self, ask: Callable[[str, str, float | None], Awaitable[str]], question: str, number: int) -> str:
        """Ask a gateway, and the next one when that may help; what the answer lacks, or nothing."""
        asked = [self._gateways[(number + step) % len(self._gateways)] for step in range(2 if self._balance else 1)]
        for place, gateway in enumerate(asked):
            try:
                return await ask(gateway, question, NEXT_AFTER if place < len(asked) - 1 else None)
            except _Elsewhere:
                if gateway == asked[-1]:
                    raise
                self.turns.append(self._clock.monotonic())
        raise AssertionError(asked)

    async def _message(self, gateway: str, question: str, limit: float | None) -> str:
        try:
            async with asyncio.timeout(limit):
                reply = await self._http.post(f"{gateway}/v1/message", json={"question": question})
        except (TimeoutError, httpx.TransportError) as error:
            raise _Elsewhere(f"no answer: {type(error).__name__}") from error
        _check_status(reply.status_code)
        answer = reply.json()
        self.acknowledged.add(question)
        if lacks := reply.headers.get("x-degraded"):
            return str(lacks)
        if not is_sound(answer, question):
            raise _Refused(f"a wrong answer: {str(answer)[:120]}")
        return ""

    async def _stream(self, gateway: str, question: str, limit: float | None) -> str:
        """Until its first byte another gateway may be asked."""
        request = self._http.build_request("GET", f"{gateway}/v1/stream", params={"question": question})
        try:
            async with asyncio.timeout(limit):
                reply = await self._http.send(request, stream=True)
        except (TimeoutError, httpx.TransportError) as error:
            raise _Elsewhere(f"no answer: {type(error).__name__}") from error
        try:
            _check_status(reply.status_code)
            number = 0
            async for line in reply.aiter_lines():
                if line.startswith("data: "):
                    text_of(json.loads(line.removeprefix("data: ")), question, number)
                    number += 1
        finally:
            await reply.aclose()
        if number != len(chunks_of(question)):
            raise _Refused(f"a stream of {number} chunks of {len(chunks_of(question))}")
        return ""


class _Refused(Exception):
    """The gateway answered, but not with the right answer."""


class _Elsewhere(_Refused):
    """Another gateway may do better."""


def _check_status(status: int) -> None:
    if status == _TOO_MANY or status >= _BROKEN:
        raise _Elsewhere(f"status {status}")
    if status != httpx.codes.OK:
        raise _Refused(f"status {status}")
