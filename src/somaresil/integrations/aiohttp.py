"""aiohttp: guard a whole client session by a client middleware (aiohttp >= 3.12). Each host has a guard of its own, with its own breaker.

    session = aiohttp.ClientSession(middlewares=(guard_middleware(resilience, timeout=5.0, retry=3, breaker=True),))

Redirects pass by here request by request. How requests count, what is sent again, and how long a call lasts is as with
:mod:`somaresil.integrations.httpx`, but that aiohttp tells when the last byte of an answer has come in: a short one is complete whether it
is read or not, and one that is forgotten lasts until its connection ends. Answers are answers whatever their status, and the exceptions of
aiohttp stay the objects that they are. A refusal is a :class:`~somaresil.errors.Rejected` and an ``aiohttp.ClientConnectionError``, a
time-out of the guard a :class:`~somaresil.errors.CallTimedOut` and an ``aiohttp.ServerTimeoutError``.

Inside the guard a bad status is a :class:`BadStatus`, an ``aiohttp.ClientResponseError``: that is what ``Retry(on=...)`` and
``Fallback(on=...)`` see; ``classify`` is shown the answer.

aiohttp itself repeats an idempotent request once when its connection breaks: each of the two is a call of the guard then. The deadline of
the request goes along in a header, unless the caller has set it; a request plan only to hosts that may have it.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp.base_protocol import BaseProtocol
from multidict import CIMultiDict

from somaresil.chaos.network.board import BOARD
from somaresil.config import Checker
from somaresil.deadline import HEADER, header_value
from somaresil.errors import CallTimedOut, Rejected
from somaresil.guard.call import Opened
from somaresil.integrations._baggage import HEADER as HEADER_OF_PLANS
from somaresil.integrations._baggage import joined, own_baggage
from somaresil.integrations._client import AsyncClientCall, Ending, Guards, anext_item, as_theirs, blame
from somaresil.integrations._http import BAD_STATUSES, FIELDS, RETRY_STATUSES, Statuses, fields, is_idempotent, kept_length
from somaresil.integrations._partition import REFUSED, cut_off
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from somaresil.chaos.requests import RequestPlans
    from somaresil.guard import Guard
    from somaresil.outcome import Outcome

__all__ = ["BadStatus", "guard_middleware"]

NAME: Final = "http.{host}"
"""The usual name of a guard."""
MOST_GUARDS: Final = 64
"""How many guards a session makes, as a rule."""

_NEVER_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""What fails before a byte of the request has left."""


def guard_middleware(
    resilience: Resilience,
    *,
    name: str | Callable[[aiohttp.ClientRequest], str | None] = NAME,
    bad_statuses: Collection[int] = BAD_STATUSES,
    retry_statuses: Collection[int] = RETRY_STATUSES,
    most_guards: int = MOST_GUARDS,
    **options: Any,
) -> aiohttp.ClientMiddlewareType:
    """Make the middleware. Name it first, outermost: what is outside of it is repeated by nobody.

    ``name`` is the name of the guard: a template (``{host}``, ``{port}``, ``{scheme}``, ``{method}``), or a function of the request, whose
    None lets the request pass unguarded. The guard of a name is made with ``options``, those of :meth:`Resilience.guard`; one that exists
    is used as it is. After ``most_guards`` the rest share one, ``http.other`` for the usual template.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker("guard_middleware")
    check.type("resilience", resilience, Resilience, "a Resilience")
    if options.get("hedge") is not None:
        check.problem(
            "hedge", options["hedge"], "none", "aiohttp sends a request once at a time; guard the function that makes the request"
        )
    statuses = Statuses(check, bad_statuses, retry_statuses)
    guards = Guards("guard_middleware", resilience, name, FIELDS, most_guards, options, check, streams=True, suspends=True)
    check.finish()

    async def guarded(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        url = request.url
        guard = guards.of(request, lambda: fields(request.method, url.scheme, url.raw_host or "", url.port))
        if guard is None:
            if (told := header_value()) is not None:
                request.headers.setdefault(HEADER, told)
            with own_baggage(_leaving(request, guards.plans)):
                return await handler(request)
        exchange = _Exchange(handler, guard, request, statuses, guards.plans)
        return await exchange.through(AsyncClientCall(guard, exchange, request))

    return guarded


def _leaving(request: aiohttp.ClientRequest, plans: RequestPlans) -> str | None:
    """Take a request plan out of the headers, or put it there; gives what goes along."""
    header = joined(request.headers.getall(HEADER_OF_PLANS, ()))
    leaving = plans.outgoing(request.url.host, header)
    if leaving.header is None:
        request.headers.popall(HEADER_OF_PLANS, None)
    elif leaving.header != header:
        # Its headers are made for this request alone: redirects have their own.
        request.headers[HEADER_OF_PLANS] = leaving.header
    return leaving.plan


class BadStatus(aiohttp.ClientResponseError):
    """An answer with a bad status, or one that is asked for again, inside the guard. Nobody outside ever gets it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Say which."""
        super().__init__(
            response.request_info, response.history, status=response.status, message=response.reason or "", headers=response.headers
        )
        self.response = response

    def __str__(self) -> str:
        """Nothing of what may be secret in an address."""
        return f"{self.status} {self.message} from {self.request_info.url.host}"


class _Exchange:
    """One request."""

    __slots__ = ("_guard", "_handler", "_kept", "_plans", "_statuses", "_told", "_unsent", "call", "request")
    call: Any

    def __init__(
        self, handler: aiohttp.ClientHandlerType, guard: Guard, request: aiohttp.ClientRequest, statuses: Statuses, plans: RequestPlans
    ) -> None:
        self.request = request
        self._plans = plans
        self._handler = handler
        self._guard = guard
        self._statuses = statuses
        self._kept: list[aiohttp.ClientResponse] = []
        self._unsent = False
        self._told = HEADER in request.headers

    async def through(self, call: AsyncClientCall) -> aiohttp.ClientResponse:
        """Take it through the guard."""
        answer: aiohttp.ClientResponse | None = None
        ours: Rejected | CallTimedOut
        try:
            opened = await self._guard.adrive(call)
            answer = opened.first
        except BadStatus as bad:
            answer = bad.response
            return answer
        except (Rejected, CallTimedOut) as error:
            if error.guard != self._guard.name:
                raise
            ours = error
        else:
            return self._watched(opened, Ending(self._guard, call, call.judge(answer, None)))
        finally:
            self._let_go(answer)
        theirs = aiohttp.ServerTimeoutError if isinstance(ours, CallTimedOut) else aiohttp.ClientConnectionError
        try:
            raise as_theirs(ours, theirs)
        finally:
            del ours

    def send(self, request: aiohttp.ClientRequest) -> object:
        """Stands for :meth:`attempt` where a guard shows what it calls."""
        raise NotImplementedError

    async def attempt(self) -> Opened:
        """Send it once."""
        self._let_go(None)
        self._unsent = False
        if not self._told and (left := header_value()) is not None:
            # Its headers are made for this request alone: redirects have their own.
            self.request.headers[HEADER] = left
        try:
            if BOARD.cuts:
                await self._cross()
            with own_baggage(_leaving(self.request, self._plans)):
                response = await self._handler(self.request)
        except _NEVER_SENT:
            self._unsent = True
            raise
        again = response.status in self._statuses.retry and self.call.may_come_again()
        if again or (response.status in self._statuses.bad and self._guard.fallback is not None):
            self._kept.append(response)
            headers = response.headers
            if again and kept_length(headers.get("Content-Length")) and "Content-Encoding" not in headers:
                # As it comes in it is kept in the buffer, and the connection is free.
                await response.content.wait_eof()
            raise BadStatus(response)
        return Opened(_Chunks(response), response)

    async def _cross(self) -> None:
        """Fail in aiohttp's own words when an experiment has cut its host off. A total time-out ends the waiting by itself."""
        request = self.request
        limits: Any = getattr(getattr(request, "session", None), "timeout", None)
        limit = getattr(limits, "sock_connect", None) or getattr(limits, "connect", None)
        told = await cut_off(request.url.host or "", request.url.port or 0, self.call, limit)
        if told == REFUSED:
            refused = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
            raise aiohttp.ClientConnectorError(request.connection_key, refused)
        if told is not None:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {request.url.host}")

    async def answered(self, status: int, headers: list[tuple[str, str]], body: bytes) -> Opened:  # noqa: ARG002 - an error has no body
        """What an experiment says in place of the server, as ``raise_for_status`` would: a response is made by a connection alone."""
        message = "fault injected by a chaos experiment"
        raise aiohttp.ClientResponseError(self.request.request_info, (), status=status, message=message, headers=CIMultiDict(headers))

    def shown(self, answer: Any, error: BaseException | None) -> tuple[Any, BaseException | None]:
        """A bad status is an answer."""
        return (error.response, None) if isinstance(error, BadStatus) else (answer, error)

    def verdict(self, answer: Any, error: BaseException | None) -> Outcome | None:
        """The status decides; errors are bad as usual."""
        if isinstance(error, aiohttp.ServerTimeoutError):
            return blame(self.call)
        return self._statuses.verdict(answer.status) if error is None and isinstance(answer, aiohttp.ClientResponse) else None

    def can_be_sent_again(self, *, at_once: bool) -> bool:
        """Whether its body is still there after it was sent: not one that is produced on the way. One at a time: aiohttp writes on it."""
        body = self.request.body
        if at_once:
            return False
        if not body or isinstance(body, aiohttp.payload.BytesPayload):
            return True
        return not isinstance(body, aiohttp.payload.AsyncIterablePayload) and not getattr(body, "consumed", True)

    def is_idempotent(self) -> bool:
        """By method or key; what was never sent has done nothing at all."""
        return self._unsent or is_idempotent(self.request.method, self.request.headers)

    def _let_go(self, answer: aiohttp.ClientResponse | None) -> None:
        """Close the earlier answers, all but this one."""
        while self._kept:
            response = self._kept.pop()
            if response is not answer:
                response.close()

    def _watched(self, opened: Opened, ending: Ending) -> aiohttp.ClientResponse:
        """The answer, with the call lasting until all of it has come in."""
        answer: aiohttp.ClientResponse | None = opened.first
        if answer is None:
            # A truncation of nothing: the connection ended before the answer began.
            lost = aiohttp.ServerDisconnectedError()
            ending.failed(lost)
            raise lost
        if opened.ended:
            ending.complete()
            return answer
        content, connection = answer.content, answer.connection
        struck = not isinstance(opened.source, _Chunks)
        if not struck and (content.is_eof() or connection is None):
            ending.complete()
            return answer
        if struck or self._guard.timeout is not None:
            answer.content = _Reader(opened.source, answer, ending)
        if connection is not None:
            connection.add_callback(lambda: _released(content, ending))
        return answer


def _released(content: aiohttp.StreamReader, ending: Ending) -> None:
    """The connection of an answer is given back: because all of it has come in, because it broke, or because nobody reads on."""
    if ending.reading:
        return
    if content.is_eof():
        ending.complete()
        return
    broken = content.exception()
    if broken is None or type(broken) is aiohttp.ClientConnectionError:
        # The second is what aiohttp itself puts there when an answer is closed. When its total timeout has run out, only what is being
        # handled at this moment tells so.
        broken = sys.exception()
    if isinstance(broken, aiohttp.ClientError | TimeoutError):
        ending.failed(broken)
    else:
        ending.left()


class _Chunks:
    """The body of an answer as a source that can be closed: pieces, and whether a chunk of the transfer ends with it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        # Not the answer itself: the two would keep each other alive.
        self._content = response.content
        self._connection = response.connection

    async def __anext__(self) -> tuple[bytes, bool]:
        piece, ends = await self._content.readchunk()
        if not piece and not ends:
            raise StopAsyncIteration
        return piece, ends

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection.close()


class _Reader(aiohttp.StreamReader):
    """Reads from the real stream what is asked for, for as long as it may take and as far as an experiment lets it.

    Every reading method of a StreamReader takes from its buffer, and calls ``_wait`` while that is empty: the one place to fill it.
    """

    def __init__(self, source: Any, response: aiohttp.ClientResponse, ending: Ending) -> None:
        inner = response.content
        super().__init__(_Wire(response._loop), inner.get_read_buffer_limits()[0], loop=response._loop)  # noqa: SLF001 - there is no other way
        self._source = source
        self._ending = ending
        self._chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        if self._chunked:
            self.begin_http_chunk_receiving()

    async def wait_eof(self) -> None:
        """Read on to the end."""
        while not self.is_eof():
            await self._wait("wait_eof")

    async def _wait(self, func_name: str) -> None:  # noqa: ARG002 - aiohttp's signature
        try:
            piece, ends = await anext_item(self._source, self._ending)
        except StopAsyncIteration:
            self.feed_eof()
            return
        except Exception as error:
            ours = isinstance(error, CallTimedOut) and error.guard == self._ending.guard.name
            told = as_theirs(error, aiohttp.ServerTimeoutError) if isinstance(error, CallTimedOut) and ours else error
            self.set_exception(told)
            if told is error:
                raise
            await self._source.aclose()
            raise told from error.__cause__
        self.feed_data(piece)
        if self._chunked and ends:
            self.end_http_chunk_receiving()


class _Wire(BaseProtocol):
    """Stands for the connection of a reader that is fed by hand: there is nothing to pause."""

    def pause_reading(self) -> None:
        """Nothing."""

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's signature
        """Nothing."""
