"""Errors of client libraries that a plan may name: ``httpx.ReadTimeout``, ``redis.ConnectionError``, ``grpc.UNAVAILABLE``.

A list of ours, and nothing but this list: what a plan says is looked up here and never imported. The first use of a name imports our own
module for that library, which makes the error as the library makes it, with a request or a status where its errors have one. A library that
is not installed has no errors, and a plan that names one is refused.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["CLIENT_ERRORS", "known_errors", "unknown_error"]

_STATUSES: Final = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)

CLIENT_ERRORS: Final[Mapping[str, tuple[str, ...]]] = {
    "httpx": (
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "ReadError", "ReadTimeout", "RemoteProtocolError", "WriteError", "WriteTimeout"),
        *(f"HTTPStatusError.{status}" for status in _STATUSES),
    ),
    "aiohttp": (
        *("ClientConnectionError", "ClientConnectorError", "ClientPayloadError", "ServerDisconnectedError", "ServerTimeoutError"),
        *(f"ClientResponseError.{status}" for status in _STATUSES),
    ),
    "redis": ("BusyLoadingError", "ConnectionError", "ReadOnlyError", "ResponseError", "TimeoutError"),
    "grpc": (
        *("ABORTED", "CANCELLED", "DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "NOT_FOUND", "PERMISSION_DENIED"),
        *("RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNAVAILABLE", "UNIMPLEMENTED", "UNKNOWN"),
    ),
    "sqlalchemy": ("DBAPIError", "InterfaceError", "OperationalError", "TimeoutError"),
}
"""By library; a plan names them with the library before it."""

_ALL: Final = frozenset(f"{library}.{name}" for library, names in CLIENT_ERRORS.items() for name in names)


class _Errors(dict[str, Any]):
    """Errors by name, those of libraries among them: made to order, so that no library is imported before a plan names it."""

    def __missing__(self, name: str) -> Callable[[], Exception]:
        if name not in self:
            raise KeyError(name)
        library, _, word = name.partition(".")
        module = import_module(f"somaresil.integrations._{library}_errors")

        def make() -> Exception:
            made: Exception = module.make(word)
            return made

        return make

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (name in _ALL and find_spec(str(name).partition(".")[0]) is not None)


def known_errors(errors: Mapping[str, Any]) -> Mapping[str, Any]:
    """These errors, and those of the libraries that are installed."""
    return _Errors(errors)


def unknown_error(name: str, errors: Mapping[str, Any]) -> tuple[str, str]:
    """What is allowed in place of an error that nobody knows, and a hint."""
    library = name.partition(".")[0]
    allowed = f"one of {', '.join(sorted(errors))}"
    if name in _ALL:
        return allowed, f"{library} is not installed"
    if library in CLIENT_ERRORS and name != library:
        return f"one of {', '.join(f'{library}.{word}' for word in CLIENT_ERRORS[library])}", did_you_mean(name, _ALL)
    return allowed, did_you_mean(name, errors) or "allow it: errors={name: type}"
