"""What goes over the wire: reading a body within its bounds, JSON without surprises, answers that nobody keeps."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from somaresil.errors import Problem, brief

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sequence

    from somaresil.typing import Clock

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]

__all__ = [
    "DEEPEST",
    "LARGEST",
    "LONGEST_REASON",
    "SAFE",
    "SLOWEST",
    "Answer",
    "Refused",
    "body_of",
    "parse",
    "problem",
    "problems_as_data",
    "reason_of",
    "within",
]

LARGEST: Final = 65_536
"""Bytes of a body that are read."""
SLOWEST: Final = 10.0
"""Seconds from the head of a request to the end of its body."""
DEEPEST: Final = 10
"""Objects and lists within one another."""
LONGEST_REASON: Final = 200
_MOST_PROBLEMS: Final = 50
"""That are told at once."""
_LONGEST_PATH: Final = 120
"""Characters of a path or a hint that are told: names of fields are in them, as long as somebody has made them."""

SAFE: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
"""What answers that no page shows say to browsers and caches."""
_PLAIN: Final = b"text/plain; charset=utf-8"

_EMPTY: Final = frozenset({204, 304})
_TITLES: Final = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Answer:
    """A response in one piece."""

    __slots__ = ("body", "detail", "headers", "status")

    def __init__(
        self,
        status: int,
        data: object = None,
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        kind: str = "json",
        detail: str = "",
        media: bytes = _PLAIN,
        safe: Sequence[tuple[bytes, bytes]] = SAFE,
    ) -> None:
        """``data`` as JSON; text and bytes as they are, of the type ``media``; None: no body.

        ``detail``: what a problem says in one line. ``safe``: what pages have to say instead of :data:`SAFE`.
        """
        self.status = status
        self.detail = detail
        plain = isinstance(data, str | bytes)
        self.body = data.encode() if isinstance(data, str) else data if isinstance(data, bytes) else b""
        about: list[tuple[bytes, bytes]] = []
        if data is not None:
            about = [(b"content-type", media if plain else f"application/{kind}".encode())]
            if not plain:
                self.body = json.dumps(data, allow_nan=False).encode()
        self.headers = [*about, (b"content-length", str(len(self.body)).encode()), *safe, *headers]

    def messages(self, *, head: bool = False) -> Iterator[dict[str, Any]]:
        """As ASGI wants it; ``head``: without the body, whose length is told all the same."""
        # A status without content has no length either (RFC 9110, section 8.6); that of a 304 would be the length of what is not sent.
        headers = self.headers if self.status not in _EMPTY else [pair for pair in self.headers if pair[0] != b"content-length"]
        yield {"type": "http.response.start", "status": self.status, "headers": headers}
        yield {"type": "http.response.body", "body": b"" if head else self.body, "more_body": False}


class Refused(Exception):
    """A request that gets a problem for an answer."""

    def __init__(self, answer: Answer) -> None:
        """Keep the answer."""
        super().__init__(answer.status)
        self.answer = answer


def problem(status: int, detail: str, found: Iterable[Problem] = (), *, headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    """A problem as RFC 9457 has it, with each thing that is wrong under ``problems``."""
    said: dict[str, Any] = {"type": "about:blank", "title": _TITLES[status], "status": status, "detail": detail}
    told = problems_as_data(found)
    if told:
        said["problems"] = told
    return Answer(status, said, headers=headers, kind="problem+json", detail=detail)


def problems_as_data(found: Iterable[Problem]) -> list[dict[str, str]]:
    """Problems for JSON; a value as a person would read it. What was sent is told in short, and not sent back."""
    return [
        {"path": _cut(each.path), "value": brief(each.value), "allowed": each.allowed, "hint": _cut(each.hint)}
        for each in islice(found, _MOST_PROBLEMS)
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_PATH else f"{text[: _LONGEST_PATH - 3]}..."


def reason_of(data: Any, refusal: str) -> str | None:
    """The reason in a body: nothing, or an object with ``reason``. Raises :class:`Refused` with 422, which says ``refusal``."""
    if data is None:
        return None
    found: list[Problem] = []
    if not isinstance(data, dict):
        raise Refused(problem(422, refusal, [Problem("", data, 'nothing, or an object with "reason"')]))
    found.extend(Problem(name, data[name], "reason") for name in data if name != "reason")
    said = data.get("reason", "")
    if not isinstance(said, str) or len(said) > LONGEST_REASON or not said.isprintable():
        found.append(Problem("reason", said, f"at most {LONGEST_REASON} printable characters"))
    if found:
        raise Refused(problem(422, refusal, found))
    return None if "reason" not in data else str(said)


async def body_of(headers: Iterable[tuple[bytes, bytes]], receive: Receive, clock: Clock, largest: int = LARGEST) -> bytes:
    """The whole body. Raises :class:`Refused` when it is too large, comes too slowly or is cut off."""
    told = [value for name, value in headers if name == b"content-length"]
    # More digits than 20 are no length that anybody could send.
    if any(value.isdigit() and (len(value) > 20 or int(value) > largest) for value in told):  # noqa: PLR2004
        raise Refused(problem(413, f"at most {largest} bytes are read"))
    until = clock.monotonic() + SLOWEST
    body = bytearray()
    while True:
        message = await within(receive(), until - clock.monotonic(), clock)
        if message is None:
            raise Refused(problem(408, f"the body did not come within {SLOWEST:g} seconds", headers=[(b"connection", b"close")]))
        if message["type"] != "http.request":
            # Whoever sent it has gone: nobody reads this.
            raise Refused(problem(400, "the body was cut off"))
        body += message.get("body", b"")
        if len(body) > largest:
            raise Refused(problem(413, f"at most {largest} bytes are read"))
        if not message.get("more_body", False):
            return bytes(body)


async def within(awaitable: Awaitable[Any], seconds: float, clock: Clock) -> Any:
    """What it gives; None: it took longer, and was cancelled."""
    task = asyncio.ensure_future(awaitable)
    try:
        return task.result() if await clock.await_(task, max(0.0, seconds)) else None
    finally:
        task.cancel()


# -- JSON ---------------------------------------------------------------------------------------------------------------------------------


class _Object(dict[str, Any]):
    """An object that remembers which of its names stood there twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.repeated = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]


class _NoNumber:
    """What JSON has no number for, where it stood."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _number(text: str) -> Any:
    number = float(text)
    return number if math.isfinite(number) else _NoNumber(text[:40])


def parse(body: bytes) -> Any:
    """The JSON of a body. Raises :class:`Refused` with the path of everything that JSON parsers do not agree about.

    That is: names that stand twice, NaN and infinity (also as ``1e999``), and more depth than anybody needs.
    """
    try:
        data = json.loads(body.decode("utf-8"), object_pairs_hook=_Object, parse_constant=_NoNumber, parse_float=_number)
    except UnicodeDecodeError as broken:
        raise Refused(problem(400, f"the body is no UTF-8: byte {broken.start}")) from None
    except json.JSONDecodeError as broken:
        raise Refused(problem(400, f"the body is no JSON: {broken.msg} at line {broken.lineno}, column {broken.colno}")) from None
    except RecursionError:
        raise Refused(_too_deep()) from None
    except ValueError as broken:
        # A number of more digits than Python converts.
        raise Refused(problem(400, f"the body is no JSON that is read here: {str(broken)[:120]}")) from None
    found: list[Problem] = []
    if not _look(data, "", DEEPEST, found):
        raise Refused(_too_deep())
    if found:
        raise Refused(problem(400, "the body is no JSON that everybody reads alike", found))
    return data


def _too_deep() -> Answer:
    return problem(400, "the body is too deep", [Problem("", "its depth", f"at most {DEEPEST} objects and lists within one another")])


def _look(data: Any, path: str, left: int, found: list[Problem]) -> bool:
    """Note what is wrong at ``path`` and below; False: it is too deep. Goes no deeper than is allowed."""
    if isinstance(data, _NoNumber):
        found.append(Problem(path, data, "a finite number"))
        return True
    if not isinstance(data, dict | list):
        return True
    if not left:
        return False
    found.extend(
        Problem(_join(path, name), data[name], "each name once", "it stands there twice") for name in getattr(data, "repeated", ())
    )
    if isinstance(data, dict):
        steps = [(_join(path, name), value) for name, value in data.items()]
    else:
        steps = [(f"{path}[{index}]", value) for index, value in enumerate(data)]
    shallow = [_look(value, where, left - 1, found) for where, value in steps]
    return all(shallow)


def _join(path: str, name: str) -> str:
    shown = name[:40] if name.isprintable() else ascii(name[:40])
    return f"{path}.{shown}" if path else shown
