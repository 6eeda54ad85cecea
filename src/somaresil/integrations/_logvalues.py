r"""What a log line may hold: bounded texts, plain values, nothing under a name that sounds like a secret.

Whoever can choose a text that is logged must not be able to end a line, begin one, steer a terminal or fill a disk with it; and whoever
writes ``extra=vars(request)`` should not have published a password. Names are read as words: ``userApiKey``, ``user-api-key`` and
``USER_API_KEY`` are the same.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import time
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["HIDDEN", "SECRET_ENDINGS", "SECRET_WORDS", "Cleaner", "Room", "Shown", "bounded", "timestamp", "type_name"]

HIDDEN: Final = "[hidden]"
"""In place of a secret."""
SECRET_WORDS: Final = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "credential",
    "credentials",
    "authorization",
    "cookie",
    "bearer",
    "jwt",
    "pwd",
    "apikey",
    "api_key",
    "access_key",
    "private_key",
    "signing_key",
    "session_id",
    "connection_string",
)
"""A name with one of these in it is that of a secret, whatever stands beside."""
SECRET_ENDINGS: Final = ("token", "auth", "signature", "otp", "pin", "cvv", "cvc", "ssn", "dsn")
"""A name that ends with one of these is: ``access_token``, but not ``token_count`` nor ``prompt_tokens``."""
_RUN_TOGETHER: Final = ("password", "passwd", "passphrase", "secret", "apikey", "authtoken", "accesstoken", "refreshtoken", "sessionid")
"""These are found in the middle of a word as well."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_A-Za-z]+")
_LONGEST_NUMBER: Final = 64
_LONGEST_NAME: Final = 200
_CUT: Final = "…"
_EACH: Final = 8
"""Characters that a value takes beside its own."""
_UNREADABLE: Final = "<unreadable>"
Plain = Any
"""What ``json`` writes: str, int, float, bool, None, and lists and dictionaries of these."""


def bounded(text: str, longest: int) -> str:
    """``text`` in at most ``longest`` characters; a mark shows where it was cut."""
    return text if len(text) <= longest else text[: longest - 1] + _CUT


def type_name(value: object) -> str:
    """Module and name of a type; of those that every program has the name alone."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 has it, in UTC and to the millisecond (which are cut off, not rounded)."""
    whole = math.floor(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


class Room:
    """How many characters the values of a line may still have, together: containers in containers are many."""

    __slots__ = ("left",)

    def __init__(self, characters: int = 16_384) -> None:
        """All of it is there."""
        self.left = characters

    def take(self, text: str) -> str:
        """``text``, or as much of it as there is room for."""
        left = self.left
        self.left = left - len(text) - _EACH
        return text if len(text) <= left else bounded(text, left) if left > 0 else _CUT


class Cleaner:
    """Makes of whatever somebody logs what may stand in a line."""

    def __init__(self, secrets: Iterable[str] = (), *, longest: int = 1_024, depth: int = 4, most: int = 64) -> None:
        """``secrets`` are more words; texts have ``longest`` characters, containers ``most`` items and ``depth`` levels."""
        self._words = tuple(f"_{'_'.join(_words(word))}_" for word in (*SECRET_WORDS, *secrets))
        self.longest = longest
        self.depth = depth
        self.most = most
        self.is_secret = functools.lru_cache(maxsize=1_024)(self._is_secret)
        """Whether a name sounds like that of a secret. Remembered for as many names as a program has, not for as many as somebody sends."""

    def _is_secret(self, name: str) -> bool:
        words = f"_{'_'.join(_words(name))}_"
        return (
            any(word in words for word in self._words)
            or words.endswith(tuple(f"_{ending}_" for ending in SECRET_ENDINGS))
            or any(part in words for part in _RUN_TOGETHER)
        )

    def named(self, name: str, value: object, room: Room, depth: int = 0) -> Plain:
        """What stands under a name."""
        if not self.is_secret(name):
            return self.plain(value, room, depth)
        # True and None say nothing of a secret but that there is one.
        return value if value is None or isinstance(value, bool) else HIDDEN

    def plain(self, value: object, room: Room, depth: int = 0) -> Plain:
        """A value. Objects are told by their types: what they say of themselves may be long, slow, secret or an error."""
        if value.__class__ is str:
            return room.take(bounded(str(value), self.longest))
        try:
            found = self._plain(value, room, depth)
            return room.take(bounded(found, self.longest)) if isinstance(found, str) else found
        except Exception:  # noqa: BLE001 - a line without one of its values is better than no line
            return _UNREADABLE

    def _plain(self, value: object, room: Room, depth: int) -> Plain:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return str(value.name)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            # Readers of JSON keep numbers of this size; larger ones become texts, and Python refuses to write the largest at all.
            whole = int(value)
            return whole if whole.bit_length() < _LONGEST_NUMBER else f"<number of {whole.bit_length()} bits>"
        if isinstance(value, float):
            number = float(value)
            return number if math.isfinite(number) else "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
        if isinstance(value, Mapping | list | tuple | AbstractSet):
            return self._container(value, room, depth)
        return _told(value)

    def _container(self, value: Any, room: Room, depth: int) -> Plain:
        if depth >= self.depth:
            return _CUT
        found: dict[str, Plain] = {}
        items: list[Plain] = []
        named = isinstance(value, Mapping)
        for item in itertools.islice(value.items() if named else value, self.most):
            if room.left <= 0:
                break
            room.left -= _EACH
            if named:
                key = str(self.plain(item[0], room, self.depth))[:_LONGEST_NAME]
                found[key] = self.named(key, item[1], room, depth + 1)
            else:
                items.append(self.plain(item, room, depth + 1))
        left = len(value) - len(found) - len(items)
        if left > 0 and named:
            found[_CUT] = f"{left} more"
        elif left > 0:
            items.append(f"{_CUT} {left} more")
        return found if named else items


def _told(value: object) -> Plain:
    """What is written of a value that JSON has no word for."""
    if isinstance(value, datetime | date | time_of_day):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID | Decimal | PurePath):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return f"<{type_name(value)}>"


class Shown(Mapping[str, Any]):
    """Arguments by name (``logger.info("%(user)s", {...})``) with their secrets hidden."""

    __slots__ = ("_cleaner", "_given")

    def __init__(self, given: Mapping[str, Any], cleaner: Cleaner) -> None:
        self._given = given
        self._cleaner = cleaner

    def __getitem__(self, name: str) -> Any:
        return HIDDEN if self._cleaner.is_secret(str(name)[:200]) else self._given[name]

    def __iter__(self) -> Any:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(name)]
