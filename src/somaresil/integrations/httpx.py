"""httpx: guard a whole client. Each host has a guard of its own, with its own breaker.

    client = guard_client(httpx.AsyncClient(), resilience, timeout=5.0, retry=3, breaker=True)

The transports of the client are wrapped, those of its mounts too, so redirects and authentication pass by here request by request. The
caller sees nothing of it: an answer is an answer whatever its status, and the exceptions of httpx stay the objects that they are. What is
ours is httpx's as well: a refusal is a :class:`~somaresil.errors.Rejected` and an ``httpx.TransportError``, a time-out of the guard a
:class:`~somaresil.errors.CallTimedOut` and an ``httpx.TimeoutException``.

How a request counts:

- bad: a status in ``bad_statuses`` (429 and 5xx), any exception of httpx, a body that breaks off;
- good: every other answer, when its body has been read to the end. A 404 is a good answer to a bad question;
- abandoned: the reader of a good answer left before its end, or forgot it.

A call lasts as long as its answer is read: permits are held until the body has ended or is closed, and given back once, whatever happens.

It is sent again when the guard has a ``retry`` that wants to, the method is idempotent (RFC 9110 section 9.2.2) or there is an
``Idempotency-Key``, the body can be sent again, and the status is one of ``retry_statuses`` or the request failed without an answer. A
request that never left, since no connection was made, may be sent again whatever its method. Inside the guard a bad status is a
:class:`BadStatus`, an ``httpx.HTTPStatusError``: that is what ``Retry(on=...)`` and ``Fallback(on=...)`` see; ``classify`` is shown the
answer.

The deadline of the request goes along in a header, unless the caller has set it, and no limit of httpx is longer than what is left. A
blocking client cannot be interrupted: there the guard's timeout is kept by the limits of httpx too, which raise its own exceptions. A
request plan goes along only to hosts that may have it (:meth:`ChaosEngine.pass_plans_to`); other baggage is left as it is.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import httpx

from somaresil.config import Checker
from somaresil.integrations._baggage import own_baggage
from somaresil.integrations._client import AsyncClientCall, ClientCall, Guards
from somaresil.integrations._http import BAD_STATUSES, FIELDS, RETRY_STATUSES, Statuses, fields
from somaresil.integrations._httpx import BadStatus, Blocking, HttpxExchange, Suspending, outgoing
from somaresil.resilience import Resilience
from somaresil.runtime import run_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import TracebackType

    from somaresil.guard import Guard

__all__ = ["AsyncGuardedTransport", "BadStatus", "GuardedTransport", "guard_client"]

_C = TypeVar("_C", httpx.Client, httpx.AsyncClient)

NAME: Final = "http.{host}"
"""The usual name of a guard."""
MOST_GUARDS: Final = 64
"""How many guards a client makes, as a rule."""


def guard_client(
    client: _C,
    resilience: Resilience,
    *,
    name: str | Callable[[httpx.Request], str | None] = NAME,
    bad_statuses: Collection[int] = BAD_STATUSES,
    retry_statuses: Collection[int] = RETRY_STATUSES,
    most_guards: int = MOST_GUARDS,
    **options: Any,
) -> _C:
    """Guard every request of ``client``, from now on, and return it.

    ``name`` is the name of the guard: a template (``{host}``, ``{port}``, ``{scheme}``, ``{method}``), or a function of the request, whose
    None lets the request pass unguarded. The guard of a name is made with ``options``, those of :meth:`Resilience.guard`; one that exists
    is used as it is. After ``most_guards`` the rest share one, ``http.other`` for the usual template.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, and then nothing has changed.
    """
    check = Checker("guard_client")
    check.type("client", client, (httpx.Client, httpx.AsyncClient), "an httpx.Client or httpx.AsyncClient")
    # httpx has no public way to the transports of a client; since httpx 0.14 they have had these names.
    main_of, mounts_of = "_transport", "_mounts"
    if isinstance(getattr(client, main_of, None), _Guarded):
        check.problem("client", client, "a client that is not guarded yet", "a request would pass two guards of one name")
    check.finish()
    kind: Callable[..., _Guarded] = GuardedTransport if isinstance(client, httpx.Client) else AsyncGuardedTransport
    given: dict[str, Any] = {"bad_statuses": bad_statuses, "retry_statuses": retry_statuses, "most_guards": most_guards, **options}
    outer = kind(resilience, getattr(client, main_of), name=name, **given)
    mounted: dict[Any, Any] = getattr(client, mounts_of)
    mounted.update({pattern: outer.around(transport) for pattern, transport in mounted.items() if transport is not None})
    setattr(client, main_of, outer)
    return client


class _Guarded:
    """A transport that guards, and those around the other transports of its client."""

    _statuses: Statuses
    _guards: Guards
    inner: Any

    def _set_up(
        self,
        kind: type[Any],
        resilience: Resilience,
        name: str | Callable[[httpx.Request], str | None],
        bad_statuses: Collection[int],
        retry_statuses: Collection[int],
        most_guards: int,
        options: dict[str, Any],
    ) -> None:
        where = type(self).__name__
        check = Checker(where)
        check.type("resilience", resilience, Resilience, "a Resilience")
        check.type("inner", self.inner, (kind, type(None)), f"an httpx.{kind.__name__} or None")
        self._statuses = Statuses(check, bad_statuses, retry_statuses)
        suspends = kind is httpx.AsyncBaseTransport
        self._guards = Guards(where, resilience, name, FIELDS, most_guards, options, check, streams=True, suspends=suspends)
        check.finish()

    def around(self, inner: Any) -> Self:
        """Another one around ``inner``, with the same guards."""
        other = copy(self)
        other.inner = inner
        return other

    def _guard(self, request: httpx.Request) -> Guard | None:
        url = request.url
        return self._guards.of(request, lambda: fields(request.method, url.scheme, url.raw_host.decode("ascii"), url.port))


class GuardedTransport(_Guarded, httpx.BaseTransport):
    """Wraps a synchronous transport (None: httpx's usual one). The options are those of :func:`guard_client`. Closing it closes both."""

    inner: httpx.BaseTransport

    def __init__(
        self,
        resilience: Resilience,
        inner: httpx.BaseTransport | None = None,
        *,
        name: str | Callable[[httpx.Request], str | None] = NAME,
        bad_statuses: Collection[int] = BAD_STATUSES,
        retry_statuses: Collection[int] = RETRY_STATUSES,
        most_guards: int = MOST_GUARDS,
        **options: Any,
    ) -> None:
        self.inner = inner  # type: ignore[assignment]  # it is checked first
        self._set_up(httpx.BaseTransport, resilience, name, bad_statuses, retry_statuses, most_guards, options)
        self.inner = httpx.HTTPTransport() if inner is None else inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request through its guard."""
        guard = self._guard(request)
        if guard is None:
            told, plan = outgoing(request, None, self._guards.plans)
            with own_baggage(plan):
                return self.inner.handle_request(told)
        exchange = HttpxExchange(Blocking(self.inner), guard, request, self._statuses, self._guards.plans)
        return run_sync(exchange.through(ClientCall(guard, exchange, request)))

    def close(self) -> None:
        """Close ``inner``."""
        self.inner.close()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.inner.__exit__(exc_type, exc_value, traceback)


class AsyncGuardedTransport(_Guarded, httpx.AsyncBaseTransport):
    """Wraps an asynchronous transport (None: httpx's usual one), on asyncio. The options are those of :func:`guard_client`."""

    inner: httpx.AsyncBaseTransport

    def __init__(
        self,
        resilience: Resilience,
        inner: httpx.AsyncBaseTransport | None = None,
        *,
        name: str | Callable[[httpx.Request], str | None] = NAME,
        bad_statuses: Collection[int] = BAD_STATUSES,
        retry_statuses: Collection[int] = RETRY_STATUSES,
        most_guards: int = MOST_GUARDS,
        **options: Any,
    ) -> None:
        self.inner = inner  # type: ignore[assignment]  # it is checked first
        self._set_up(httpx.AsyncBaseTransport, resilience, name, bad_statuses, retry_statuses, most_guards, options)
        self.inner = httpx.AsyncHTTPTransport() if inner is None else inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request through its guard."""
        guard = self._guard(request)
        if guard is None:
            told, plan = outgoing(request, None, self._guards.plans)
            with own_baggage(plan):
                return await self.inner.handle_async_request(told)
        exchange = HttpxExchange(Suspending(self.inner), guard, request, self._statuses, self._guards.plans)
        return await exchange.through(AsyncClientCall(guard, exchange, request))

    async def aclose(self) -> None:
        """Close ``inner``."""
        await self.inner.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.inner.__aexit__(exc_type, exc_value, traceback)
