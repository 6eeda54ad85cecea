"""What a failing answer asks for: how long to leave its server alone.

It stands in a header of the answer (``Retry-After``, RFC 9110 section 10.2.3; ``retry-after-ms`` as some model providers say it), which the
exceptions of HTTP clients carry along, or in an attribute ``retry_after`` of the exception, which is where rejections have it too.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.site import Site

__all__ = ["asked_or_none", "asked_wait", "pushed_back", "seconds_of"]

_SECONDS: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_LONGEST_TEXT: Final = 64
_TOO_MUCH: Final = (429, 503)
"""Too Many Requests (RFC 6585), Service Unavailable (RFC 9110)."""


def asked_or_none(answer: object, site: Site) -> float | None:
    """As :func:`asked_wait`; what cannot be read is None, counted, and reported once a guard. Never raises an ``Exception``."""
    try:
        return asked_wait(answer, site.clock.time)
    except Exception as unreadable:  # noqa: BLE001 - what a server sends, or a property of somebody's exception raises, ends no call
        where = f"the Retry-After of an answer to guard {site.name}"
        site.listeners.defect(where, unreadable, site.clock.time(), "it was ignored")
        site.ignored.note("retry-after")
        return None


def asked_wait(error: object, wall: Callable[[], float]) -> float | None:
    """Seconds for which the failing answer asks to be left alone, at least 0; None: it does not say.

    The answer is an exception, or a response with ``headers``. ``wall`` reads the wall clock (POSIX seconds); it is asked for dates only.
    Raises ``ValueError`` for what cannot be read.
    """
    said: Any = getattr(error, "retry_after", None)
    if said is not None:
        return _seconds(said)
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    get = getattr(headers, "get", None)
    if get is None:
        return None
    # The mappings of clients do not mind the case; a plain dictionary does.
    milliseconds = get("retry-after-ms") or get("Retry-After-Ms")
    if milliseconds is not None:
        return _plain(str(milliseconds)) / 1_000.0
    text = get("Retry-After") or get("retry-after")
    return None if text is None else seconds_of(str(text), wall)


def pushed_back(error: BaseException, wall: Callable[[], float]) -> float | None:
    """Whether the failing answer says that it was too much (status 429 or 503, or a ``Retry-After``): the seconds it asks for, or 0.

    None: it says nothing of that kind. What it asks for and cannot be read counts as 0.
    """
    try:
        asked = asked_wait(error, wall)
    except ValueError:
        asked = 0.0
    if asked is not None:
        return asked
    response: Any = getattr(error, "response", None)
    # The first one counts: that of aiohttp warns when it is asked for a code as well.
    found = ((of, name) for of in (response, error) for name in ("status_code", "status", "code"))
    status = next((said for of, name in found if type(said := getattr(of, name, None)) is int), None)
    return 0.0 if status in _TOO_MUCH else None


def seconds_of(text: str, wall: Callable[[], float]) -> float:
    """The value of ``Retry-After``: seconds (parts of one as well, which some servers send), or an HTTP date.

    A date that has passed is 0. Raises ``ValueError`` for anything else.
    """
    text = text.strip()
    if len(text) > _LONGEST_TEXT:
        raise ValueError(f"Retry-After of {len(text)} characters")
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        date = None
    # Without a zone, or with "-0000", it is no HTTP date: RFC 9110 has GMT only.
    if date is None or date.tzinfo is None:
        raise ValueError(f"Retry-After {text!r}: expected seconds or an HTTP date")
    return max(0.0, date.timestamp() - wall())


def _plain(text: str) -> float:
    if not _SECONDS.fullmatch(text.strip()):
        raise ValueError(f"retry-after-ms {text[:_LONGEST_TEXT]!r}: expected milliseconds")
    return float(text)


def _seconds(said: Any) -> float:
    """An attribute: a number of seconds or a ``timedelta``."""
    seconds = said.total_seconds() if isinstance(said, timedelta) else said
    try:
        number = math.nan if isinstance(seconds, bool) or not isinstance(seconds, int | float) else float(seconds)
    except OverflowError:
        # A whole number of more digits than a float has room for.
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"retry_after {said!r:.40}: expected seconds")
    return max(0.0, number)
