"""Changes to documents that leave most of their form: what is broken in each byte is refused by the first check, and no other runs."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from random import Random

STRANGE: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        0.5,
        -0.0,
        1e-320,
        1e308,
        2**31,
        2**53,
        2**63,
        2**64,
        -(2**63),
        10**400,
        math.nan,
        math.inf,
        -math.inf,
    ),
    *(
        "",
        " ",
        "0",
        "1",
        "-1",
        "a",
        "A" * 300,
        "\x00",
        "\n",
        "\r\nX: y",
        "\x1b[31m",
        "\u202e",
        "\ud800",
        "*",
        "?",
        "[",
        "[a",
        "{",
        "}",
        "%s",
    ),
    *(
        "1e999",
        "nan",
        "NaN",
        "9" * 30,
        "1.5h",
        "10s",
        "..",
        "../x",
        "/",
        "http://",
        "http://[::1",
        "net:",
        "2026-02-30",
        "0001-01-01T00:00:00Z",
    ),
    *([], {}, [[]], [{}], {"": None}, [None], [0, 0], [1, 2, 3], {"a": {"b": {}}}, [[[[[[[[[[[[]]]]]]]]]]]]),
)
"""Values that are something else than what was meant."""
_SPLITS: Final = b"\n,;:= \t\"'{}[]()"


def mutated(data: bytes, chance: Random, longest: int) -> bytes:
    """Another document like ``data``: as JSON where it is JSON, else as text made of words and lines."""
    if chance.random() < _SHARE_OF_VALUES:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            pass
        else:
            for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
                value = _of_value(value, chance)
            made = json.dumps(value, ensure_ascii=chance.random() < _HALF).encode("utf-8", "surrogatepass")
            # One that does not fit is no document any more; nothing is worth less than that.
            return made if len(made) <= longest else data[:longest]
    return _of_text(data, chance)[:longest]


_SHARE_OF_VALUES: Final = 0.8
_HALF: Final = 0.5


def _of_value(value: Any, chance: Random) -> Any:
    """Change one place: the deeper there are more of them, so each step down is as likely as staying."""
    if isinstance(value, dict) and value:
        return _of_mapping(value, chance)
    if isinstance(value, list) and value:
        return _of_list(value, chance)
    if isinstance(value, str) and value and chance.random() < _HALF:
        return _of_text(value.encode("utf-8", "surrogatepass"), chance).decode("utf-8", "replace")
    if type(value) in {int, float} and chance.random() < _HALF:
        return chance.choice((-value, value + 1, value - 1, value * 2, value * 1_000, str(value), [value]))
    return _strange(chance)


def _of_mapping(value: dict[str, Any], chance: Random) -> Any:
    key = chance.choice(list(value))
    kind = chance.randrange(10)
    if kind < 6:
        return {**value, key: _of_value(value[key], chance)}
    rest = {name: each for name, each in value.items() if name != key}
    if kind == 6:
        return rest
    if kind == 7:
        return {**rest, str(_strange(chance))[:80]: value[key]}
    return {**value, key: value[chance.choice(list(value))] if kind == 8 else _strange(chance)}


def _of_list(value: list[Any], chance: Random) -> Any:
    at = chance.randrange(len(value))
    kind = chance.randrange(10)
    if kind < 6:
        return [*value[:at], _of_value(value[at], chance), *value[at + 1 :]]
    if kind == 6:
        return value[:at] + value[at + 1 :]
    if kind == 7:
        return [*value, *value]
    return [*value[:at], value[chance.randrange(len(value))], *value[at:]] if kind == 8 else _strange(chance)


def _strange(chance: Random) -> Any:
    return chance.choice(STRANGE)


def _of_text(data: bytes, chance: Random) -> bytes:
    """Change, drop, double or move a word, a line or a byte."""
    if not data:
        return json.dumps(_strange(chance)).encode()
    kind = chance.randrange(8)
    at = chance.randrange(len(data))
    if kind == 0:
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + data[at + chance.randrange(1, 9) :]
    if kind == 2:
        return data[:at] + data[at : at + 40] * chance.choice((2, 3, 50)) + data[at + 40 :]
    if kind == 3:
        lines = data.splitlines(keepends=True)
        one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
        lines[one], lines[other] = lines[other], lines[one]
        return b"".join(lines)
    if kind == 4:
        lines = data.splitlines(keepends=True)
        return b"".join(lines[: chance.randrange(len(lines))] + lines[chance.randrange(len(lines)) :])
    begin = next((place for place in range(at, -1, -1) if data[place] in _SPLITS), -1) + 1
    end = next((place for place in range(max(at, begin), len(data)) if data[place] in _SPLITS), len(data))
    new = _strange(chance)
    word = new if isinstance(new, str) else json.dumps(new)
    return data[:begin] + word.encode("utf-8", "surrogatepass") + data[end:]
