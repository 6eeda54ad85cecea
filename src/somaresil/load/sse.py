"""Server-sent events as they come in, in pieces of any size (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

__all__ = ["LARGEST", "Event", "EventReader"]

LARGEST: Final = 1_048_576
"""Bytes of an event that are kept."""
_LINE: Final = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event that has data."""

    kind: str
    """``message`` unless the stream names another."""
    data: str
    identity: str = ""
    """What a reader that comes back says to go on after it; empty: none was told yet."""


class EventReader:
    """Puts events together."""

    __slots__ = ("_data", "_held", "_identity", "_kind", "_largest", "_rest", "_size", "_start")

    def __init__(self, largest: int = LARGEST) -> None:
        """Nothing has come. ``largest``: bytes of an event that are kept."""
        self._largest = largest
        self._identity = ""
        self._rest: list[bytes] = []
        """What has come of a line that is not complete."""
        self._held = 0
        self._kind = b""
        self._data: list[bytes] = []
        self._size = 0
        self._start = True

    def feed(self, piece: bytes) -> list[Event]:
        """The events that are complete with this piece. Raises :class:`ValueError` for one that is too large."""
        if self._rest and b"\n" not in piece and b"\r" not in piece and self._rest[-1][-1:] != b"\r":
            # In the middle of a long line: what came before is neither looked through nor copied again.
            self._rest.append(piece)
            self._held += len(piece)
            self._check()
            return []
        text = b"".join((*self._rest, piece))
        # A carriage return at the end may be the first half of a line break.
        held = text[-1:] == b"\r"
        lines = _LINE.split(text[:-1] if held else text)
        rest = lines.pop() + (b"\r" if held else b"")
        self._rest, self._held = [rest] if rest else [], len(rest)
        self._check()
        found: list[Event] = []
        for line in lines:
            if not line:
                if self._data:
                    kind = self._kind.decode("utf-8", "replace") or "message"
                    found.append(Event(kind, b"\n".join(self._data).decode("utf-8", "replace"), self._identity))
                self._kind, self._data, self._size = b"", [], 0
                continue
            if self._start:
                line = line.removeprefix(b"\xef\xbb\xbf")  # noqa: PLW2901 - the mark of the encoding belongs to no line
                self._start = False
            name, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
                self._size += len(value) + 1
                if self._size > self._largest:
                    raise ValueError(f"an event of more than {self._largest} bytes")
            elif name == b"event":
                self._kind = value
            elif name == b"id" and b"\0" not in value:
                self._identity = value.decode("utf-8", "replace")
        return found

    def _check(self) -> None:
        if self._held + self._size > self._largest:
            raise ValueError(f"an event of more than {self._largest} bytes")
