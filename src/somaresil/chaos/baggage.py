"""Our member of the ``baggage`` header (W3C Baggage, Candidate Recommendation): found on the way in, taken out on the way out.

Pure text, nothing else of the header is interpreted, and nothing of it is ever changed: members of others leave as they came, byte for
byte. Keys are not percent-encoded by the specification, but OpenTelemetry decodes them all the same and would send ``somaresil%2Echaos``
on as ours, so what is taken out is recognised in that way too; what is read on the way in is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["KEY", "LARGEST", "MOST_PAIRS", "BaggageRefused", "find", "replace"]

KEY: Final = "somaresil.chaos"
"""The key of our member. Case counts."""
LARGEST: Final = 8_192
"""Bytes of all baggage of a request that are read."""
MOST_PAIRS: Final = 180
"""Members of all baggage of a request that are read."""

_SPACE: Final = " \t"


class BaggageRefused(ValueError):
    """A header that is not read. ``reason``: ``oversized``, ``duplicate`` or ``malformed``. It says nothing of what stood there."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


def find(headers: Iterable[bytes | str]) -> str | None:
    """The value of our member in all ``baggage`` headers of a request, percent-decoded and without properties; None: there is none.

    Raises :class:`BaggageRefused` for our member in baggage that is larger than the specification allows, that has it twice, or in which
    it has no value. Baggage without our member is nobody's fault and never refused.
    """
    texts = [header.decode("latin-1") if isinstance(header, bytes) else header for header in headers]
    if not any(KEY in text for text in texts):
        return None
    members = [member for text in texts for member in text.split(",")]
    ours = [member for member in members if _is(member)]
    if not ours:
        return None
    # Several headers count as one with commas between them (RFC 9110, section 5.2).
    if sum(map(len, texts)) + len(texts) - 1 > LARGEST or len(members) > MOST_PAIRS:
        raise BaggageRefused("oversized")
    if len(ours) > 1:
        raise BaggageRefused("duplicate")
    value = ours[0].partition("=")[2].partition(";")[0].strip(_SPACE)
    if not value or not value.isascii() or any(character.isspace() for character in value):
        raise BaggageRefused("malformed")
    return unquote(value, errors="strict") if "%" in value and _decodes(value) else value


def replace(header: str | None, value: str | None) -> str | None:
    """The header with ``value`` as our member, or without one when that is None; None: there is nothing to send.

    The very same object comes back when nothing has to be changed. Never raises, whatever stands in the header and however long it is.
    """
    rest = header
    if header is not None and (KEY in header or "%" in header):
        kept = [member for member in header.split(",") if not _is(member, decoded=True)]
        # As it came, unless something of ours stood there.
        rest = header if len(kept) == header.count(",") + 1 else ",".join(kept).strip(_SPACE) or None
    if value is None:
        return rest
    ours = f"{KEY}={value}"
    return ours if rest is None or not rest.strip(_SPACE) else f"{rest},{ours}"


def _is(member: str, *, decoded: bool = False) -> bool:
    """Whether a member has our key."""
    key = member.partition("=")[0].partition(";")[0].strip(_SPACE)
    if key == KEY:
        return True
    return decoded and "%" in key and unquote_plus(key).strip() == KEY


def _decodes(value: str) -> bool:
    try:
        unquote(value, errors="strict")
    except UnicodeDecodeError:
        return False
    return True
