"""What HTTP says about requests and answers, for the hooks of HTTP clients (RFC 9110)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from somaresil.config import Checker

__all__ = ["BAD_STATUSES", "FIELDS", "LONGEST_KEPT", "RETRY_STATUSES", "Statuses", "fields", "has_no_body", "is_idempotent", "kept_length"]

BAD_STATUSES: Final = frozenset({429, *range(500, 600)})
"""Too Many Requests, and every failure of a server: the dependency did not do its work. Any other status is an answer."""
RETRY_STATUSES: Final = frozenset({408, 429, 502, 503, 504})
"""Those that say that the same request may go well later."""
FIELDS: Final = frozenset({"scheme", "host", "port", "method"})
"""What a template for names may have in braces."""
LONGEST_KEPT: Final = 65_536
"""Bytes of an answer that are read before it is asked for again, so that its connection is free meanwhile."""

_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
_PORTS: Final = {"http": 80, "https": 443}
_LOWEST, _HIGHEST = 100, 599
_NO_CONTENT, _NOT_MODIFIED, _OK = 204, 304, 200


class Statuses:
    """Which statuses are bad, and which are asked for again."""

    __slots__ = ("bad", "retry")

    def __init__(self, check: Checker, bad: Collection[int], retry: Collection[int]) -> None:
        """Note what is no status."""
        self.bad = _statuses(check, "bad_statuses", bad)
        self.retry = _statuses(check, "retry_statuses", retry)

    def verdict(self, status: int) -> Outcome:
        """What an answer with this status says about its dependency."""
        return Outcome.BAD if status in self.bad else Outcome.GOOD


def _statuses(check: Checker, name: str, given: Collection[int]) -> frozenset[int]:
    try:
        statuses = frozenset(given)
    except TypeError:
        statuses = frozenset({-1})
    if not all(isinstance(status, int) and _LOWEST <= status <= _HIGHEST for status in statuses):
        check.problem(name, given, f"statuses from {_LOWEST} to {_HIGHEST}", "for example {429, *range(500, 600)}")
        return frozenset()
    return statuses


def fields(method: str, scheme: str, host: str, port: int | None) -> dict[str, object]:
    """The words of a template for names. A host is what stands in the address, in lower case and without the dot at its end."""
    return {"method": method, "scheme": scheme, "host": host.lower().rstrip("."), "port": port or _PORTS.get(scheme, 0)}


def is_idempotent(method: str, headers: Mapping[str, str]) -> bool:
    """Whether doing it twice does what doing it once does (RFC 9110 section 9.2.2), or a key sees to that."""
    return method.upper() in _IDEMPOTENT or "Idempotency-Key" in headers


def has_no_body(method: str, status: int, length: str | None) -> bool:
    """Whether nothing follows the head of an answer (RFC 9112 section 6.3)."""
    return method.upper() == "HEAD" or status < _OK or status in {_NO_CONTENT, _NOT_MODIFIED} or length == "0"


def kept_length(length: str | None) -> bool:
    """Whether an answer is short enough to be read before it is asked for again."""
    return length is not None and length.isdecimal() and len(length) <= len(str(LONGEST_KEPT)) and int(length) <= LONGEST_KEPT
