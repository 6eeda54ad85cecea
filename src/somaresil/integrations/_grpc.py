"""One RPC on its way through a guard, and refusals that gRPC's users catch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc

from somaresil.chaos.network.board import BOARD
from somaresil.config import Checker
from somaresil.deadline import time_left
from somaresil.errors import BulkheadFull, CallTimedOut, DeadlineExceeded, LoadShed, RateLimited, Rejected
from somaresil.integrations._baggage import HEADER, joined, own_baggage
from somaresil.integrations._client import Guards, as_theirs, blame
from somaresil.integrations._partition import REFUSED, cut_off
from somaresil.outcome import Outcome
from somaresil.resilience import Resilience

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from somaresil.guard import Guard
    from somaresil.guard.call import Opened

__all__ = [
    "BAD_CODES",
    "FIELDS",
    "RETRY_CODES",
    "AioRefused",
    "Answer",
    "Codes",
    "Desk",
    "Ended",
    "Lost",
    "Over",
    "Refused",
    "Rpc",
    "fields",
    "guard_limit",
    "refused",
    "timeout_of",
]

_CODE: Final = grpc.StatusCode

BAD_CODES: Final = frozenset(
    {
        _CODE.UNAVAILABLE,
        _CODE.DEADLINE_EXCEEDED,
        _CODE.RESOURCE_EXHAUSTED,
        _CODE.INTERNAL,
        _CODE.UNKNOWN,
        _CODE.DATA_LOSS,
        _CODE.ABORTED,
    }
)
"""The service did not do its work. Any other code but CANCELLED is an answer: NOT_FOUND, INVALID_ARGUMENT, PERMISSION_DENIED …"""
RETRY_CODES: Final = frozenset({_CODE.UNAVAILABLE, _CODE.RESOURCE_EXHAUSTED})
"""Those that say that the same call may go well later."""
FIELDS: Final = frozenset({"service", "method"})
"""What a template for names may have in braces."""

_BUSY: Final = (RateLimited, BulkheadFull, LoadShed)


class Codes:
    """Which status codes are bad, and which are tried again."""

    __slots__ = ("bad", "retry")

    def __init__(self, check: Checker, bad: Collection[Any], retry: Collection[Any]) -> None:
        """Note what is no code."""
        self.bad = _codes(check, "bad_codes", bad)
        self.retry = _codes(check, "retry_codes", retry)

    def verdict(self, code: Any) -> Outcome:
        """What an end with this code says about its service. A cancellation is the caller's."""
        if code is _CODE.CANCELLED:
            return Outcome.ABANDONED
        return Outcome.BAD if code in self.bad else Outcome.GOOD


def _codes(check: Checker, name: str, given: Collection[Any]) -> frozenset[Any]:
    try:
        codes = frozenset(given)
    except TypeError:
        codes = frozenset({None})
    if not all(isinstance(code, _CODE) for code in codes):
        check.problem(name, given, "codes of grpc.StatusCode", "for example {grpc.StatusCode.UNAVAILABLE}")
        return frozenset()
    return codes


class Desk:
    """What all interceptors of a channel share."""

    def __init__(
        self,
        where: str,
        resilience: Resilience,
        name: str | Callable[[Any], str | None],
        bad_codes: Collection[Any],
        retry_codes: Collection[Any],
        most_guards: int,
        options: dict[str, Any],
        *,
        host: str | None,
        suspends: bool,
        target: str | None = None,
    ) -> None:
        check = Checker(where)
        self._host = None if host is None else check.name("host", host)
        check.type("resilience", resilience, Resilience, "a Resilience")
        self.codes = Codes(check, bad_codes, retry_codes)
        self._guards = Guards(where, resilience, name, FIELDS, most_guards, options, check, streams=True, suspends=suspends)
        check.type("target", target, (str, type(None)), "host:port as the channel has it, or None")
        check.finish()
        self._place = _place_of(target)

    async def cross(self, call: Any, limit: float | None, *, patient: bool) -> tuple[Any, str] | None:
        """Code and details by which an RPC ends whose service an experiment has cut off; None: it may be sent.

        gRPC connects in C, where no hook of Python is. The deadline of the RPC ends the waiting: it does not reach an interceptor.
        """
        if not BOARD.cuts or self._place is None:
            return None
        told = await cut_off(*self._place, call, limit, unseen=True, patient=patient)
        if told is None:
            return None
        if told == REFUSED:
            return _CODE.UNAVAILABLE, "failed to connect to all addresses; last error: Connection refused"
        return _CODE.DEADLINE_EXCEEDED, "Deadline Exceeded"

    def guard(self, details: Any) -> Guard | None:
        """The guard of an RPC."""
        return self._guards.of(details, lambda: fields(details.method))

    def sending(self, continuation: Callable[..., Any]) -> Callable[..., Any]:
        """The rest of an RPC, which tells of no request plan to whom it must not."""

        def sent(details: Any, request: Any) -> Any:
            told, plan = self._leaving(details, list)
            with own_baggage(plan):
                return continuation(told, request)

        return sent

    def asending(self, continuation: Callable[..., Any]) -> Callable[..., Any]:
        """The same for the asynchronous API."""

        async def sent(details: Any, request: Any) -> Any:
            told, plan = self._leaving(details, lambda pairs: grpc.aio.Metadata(*pairs))
            with own_baggage(plan):
                return await continuation(told, request)

        return sent

    def _leaving(self, details: Any, make: Callable[[list[Any]], Any]) -> tuple[Any, str | None]:
        """The details with the baggage that the host may have, and the request plan in it. Metadata of the caller are not changed."""
        pairs: list[tuple[str, Any]] = list(details.metadata or ())
        header = joined(value for name, value in pairs if name == HEADER)
        leaving = self._guards.plans.outgoing(self._host, header)
        if leaving.header != header:
            rest = [pair for pair in pairs if pair[0] != HEADER]
            details = details._replace(metadata=make(rest if leaving.header is None else [*rest, (HEADER, leaving.header)]))
        return details, leaving.plan


def _place_of(target: str | None) -> tuple[str, int] | None:
    """Host and port of a channel; None: it is no single place in the network."""
    if not isinstance(target, str):
        return None
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"dns", "ipv4", "ipv6", "passthrough"}:
        target = rest.rpartition("/")[2]
    elif colon and scheme in {"unix", "unix-abstract", "vsock", "xds"}:
        return None
    host, colon, port = target.rpartition(":")
    if not colon or not port.isdigit() or "," in host:
        return None
    return host.strip("[]"), int(port)


def fields(method: str | bytes) -> dict[str, object]:
    """The words of a template for names, from a path like ``/package.Service/Method``."""
    path = method.decode("ascii", "replace") if isinstance(method, bytes) else method
    service, _, name = path.strip("/").rpartition("/")
    return {"service": service, "method": name}


def timeout_of(given: float | None, *limits: float | None) -> float | None:
    """The native timeout of a call: the shortest of what was asked for, the deadline of the request, and ``limits``."""
    return min((seconds for seconds in (given, time_left(), *limits) if seconds is not None), default=None)


def guard_limit(guard: Guard, call: Any, *, stream: bool) -> float | None:
    """What the guard's timeout is to gRPC: until the answer, or for all of a stream."""
    timeout = guard.timeout
    if timeout is None or timeout.options.shadow:
        return None
    total: Any = timeout.options.total
    return total if stream else timeout.first_limit(call)[0]


class Ended(NamedTuple):
    """An RPC that is over: what it gave, or the error that it ended with."""

    rpc: Any
    response: Any
    error: BaseException | None


class Rpc:
    """One RPC. ``begin`` starts it; ``whole`` says whether the request is a message, which can be sent again."""

    __slots__ = ("_begin", "_codes", "_guard", "_retried", "_whole", "call", "last")
    call: Any

    def __init__(self, begin: Callable[[Rpc], Any], guard: Guard, codes: Codes, *, whole: bool) -> None:
        self._begin = begin
        self._guard = guard
        self._codes = codes
        self._whole = whole
        self.last: Any = None
        """gRPC's own object for the last attempt."""

    @property
    def eager(self) -> bool:
        """Whether the first message of a stream is waited for, since another attempt or a fallback may yet replace it."""
        return self._whole and self._guard.rescues

    def send(self, request: Any) -> object:
        """Stands for :meth:`attempt` where a guard shows what it calls."""
        raise NotImplementedError

    async def attempt(self) -> Opened:
        """Make it once."""
        opened: Opened = await self._begin(self)
        return opened

    def final(self) -> None:
        """No further attempt."""
        self._whole = False

    def weigh(self, error: BaseException) -> None:
        """Raise an error that a retry or a fallback may make good; others are the end of the call, whatever they say about it."""
        code = code_of(error)
        if code is None:
            raise error
        again = code in self._codes.retry and self.call.may_come_again()
        if again or (code in self._codes.bad and self._guard.fallback is not None):
            raise error

    def shown(self, answer: Any, error: BaseException | None) -> tuple[Any, BaseException | None]:
        """Messages and errors, not gRPC's objects around them."""
        return (answer.response, answer.error) if isinstance(answer, Ended) else (answer, error)

    def verdict(self, answer: Any, error: BaseException | None) -> Outcome | None:  # noqa: ARG002 - an answer is good
        """The code decides."""
        code = None if error is None else code_of(error)
        if code is None:
            return None
        return (blame(self.call) if code is _CODE.DEADLINE_EXCEEDED else None) or self._codes.verdict(code)

    def can_be_sent_again(self, *, at_once: bool) -> bool:  # noqa: ARG002 - a message may be sent as often as you like
        """Whether its request is one message."""
        return self._whole

    def is_idempotent(self) -> bool:
        """No RPC says that it is; the guard must be told."""
        return False

    def ours(self, error: Exception) -> bool:
        """Whether the guard itself has refused or ended it."""
        return isinstance(error, Rejected | CallTimedOut) and error.guard == self._guard.name


def code_of(error: Any) -> Any:
    """The status code of an error of gRPC; None: it is none."""
    if not isinstance(error, grpc.RpcError):
        return None
    code = getattr(error, "code", None)
    return code() if callable(code) else None


_Future: Any = grpc.Future
"""Generic to the type checkers that know it, and not at run time."""


class Over(grpc.Call, _Future):
    """An RPC that never was, as far as gRPC's users look at it."""

    _code: Any = _CODE.OK

    def code(self) -> Any:
        """The code."""
        return self._code

    def details(self) -> str:
        """Nothing to say."""
        return ""

    def initial_metadata(self) -> tuple[Any, ...]:
        """None was sent."""
        return ()

    def trailing_metadata(self) -> tuple[Any, ...]:
        """None was sent."""
        return ()

    def is_active(self) -> bool:
        """No."""
        return False

    def time_remaining(self) -> Any:
        """It is over."""
        return None

    def cancel(self) -> bool:
        """It is over."""
        return False

    def cancelled(self) -> bool:
        """No."""
        return False

    def running(self) -> bool:
        """No."""
        return False

    def done(self) -> bool:
        """Yes."""
        return True

    def add_callback(self, callback: Any) -> bool:  # noqa: ARG002 - gRPC's signature
        """It is over."""
        return False

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """It is over."""
        fn(self)

    def result(self, timeout: float | None = None) -> Any:
        """What came of it."""
        raise NotImplementedError

    def exception(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """None."""
        return None

    def traceback(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """None."""
        return None


class Refused(grpc.RpcError, Over):
    """The side of a refusal that gRPC's users see: an RPC that failed with ``code()``."""

    def details(self) -> str:
        """What the refusal says."""
        return str(self)

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """Raise it."""
        raise self

    def exception(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """It."""
        return self

    def traceback(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """Where it was raised."""
        return self.__traceback__


class Lost(grpc.RpcError, Over):
    """An RPC whose service an experiment has cut off."""

    def __init__(self, code: Any, details: str) -> None:
        """End with this code."""
        super().__init__(details)
        self._code = code

    def details(self) -> str:
        """What it says."""
        return str(self)

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """Raise it."""
        raise self

    def exception(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """It."""
        return self

    def traceback(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """Where it was raised."""
        return self.__traceback__

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        raise self


class Answer(Over):
    """What a fallback gives, as an RPC that went well."""

    def __init__(self, response: Any) -> None:
        """Give this."""
        self._response = response

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        """What it gave."""
        return self._response


class AioRefused(grpc.aio.AioRpcError):
    """The same for the asynchronous API."""

    _code = _CODE.UNAVAILABLE
    _details = None
    _debug_error_string = ""

    def details(self) -> str:
        """What the refusal says."""
        return str(self)


def refused(error: Rejected | CallTimedOut, kind: type[Exception]) -> Exception:
    """``error`` as one of gRPC's."""
    late = isinstance(error, DeadlineExceeded | CallTimedOut)
    code = _CODE.DEADLINE_EXCEEDED if late else _CODE.RESOURCE_EXHAUSTED if isinstance(error, _BUSY) else _CODE.UNAVAILABLE
    return as_theirs(error, kind, _code=code)
