"""Requests as a scenario describes them, and their bytes.

Texts may have ``{n}`` (the number of the arrival), ``{id}`` (different in every run), ``{session}`` (one of as many as the scenario has)
in them; ``{{`` and ``}}`` stand for braces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from somaresil.chance import Chance
from somaresil.config import Checker, did_you_mean
from somaresil.load.generator import Order
from somaresil.load.http import Payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from somaresil.load.http import Target

__all__ = ["KINDS", "METHODS", "PLACES", "Orders", "Request", "Upload"]

KINDS: Final = ("http", "sse", "websocket")
METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
PLACES: Final = ("n", "id", "session")
"""What may stand in braces."""
_LARGEST: Final = 8_388_608
_PLACE: Final = re.compile(r"\{\{|\}\}|\{(\w+)\}")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade"})
_PATTERN: Final = b"All the load of the world fits into a file that says so often enough. "


@dataclass(frozen=True, slots=True)
class Upload:
    """A body of so many bytes, as a form with one file or as it is."""

    size: int
    """Bytes."""
    field: str | None = None
    """The name of the field of a ``multipart/form-data`` body; None: the bytes are the body."""
    filename: str = "upload.txt"
    content_type: str = "application/octet-stream"

    def __post_init__(self) -> None:
        """Check everything. Raises :class:`~somaresil.errors.ConfigurationError`."""
        check = Checker()
        check.count("size", self.size, minimum=0, maximum=_LARGEST)
        for name in ("field", "filename", "content_type"):
            text = getattr(self, name)
            if not (text is None and name == "field") and not (isinstance(text, str) and text and text.isprintable() and '"' not in text):
                check.problem(name, text, "a text of printable characters without quotes")
        check.finish()

    def body(self) -> tuple[bytes, str]:
        """The bytes and their type."""
        data = (_PATTERN * (self.size // len(_PATTERN) + 1))[: self.size]
        if self.field is None:
            return data, self.content_type
        mark = "somaresil-load-boundary"
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{self.field}"; filename="{self.filename}"\r\n'
        head += f"Content-Type: {self.content_type}\r\n\r\n"
        return head.encode() + data + f"\r\n--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


@dataclass(frozen=True, slots=True)
class Request:
    """One kind of request of a scenario.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    name: str
    path: str
    _: KW_ONLY
    weight: float = 1.0
    """How often it is made, beside the others."""
    kind: str = "http"
    """``http``, ``sse`` (server-sent events) or ``websocket``."""
    method: str = "GET"
    headers: Mapping[str, str] | None = None
    json: Any = None
    """A body that is sent as JSON."""
    body: str | None = None
    """A body that is sent as it is."""
    upload: Upload | None = None
    """A body of a given size."""
    expect: tuple[int, ...] | None = None
    """Statuses that are good; None: 200 to 299."""
    timeout: float = 30.0
    """Seconds from the intended start after which the caller has given up."""
    end: str | None = None
    """The data or the name of the last event of a stream, the last message of a WebSocket. A stream that ends without it is truncated."""
    messages: tuple[str, ...] = ()
    """What is sent through a WebSocket."""
    items: int | None = None
    """So many messages of a WebSocket are waited for, when there is no ``end``."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker()
        check.name("name", self.name)
        check.number("weight", self.weight, minimum=0.0, maximum=1e6)
        check.one_of("kind", self.kind, KINDS)
        check.one_of("method", self.method, METHODS)
        check.seconds("timeout", self.timeout, maximum=3_600.0)
        if (
            not isinstance(self.path, str)
            or not self.path.startswith("/")
            or not self.path.isascii()
            or re.search(r"[\x00-\x20\x7f]", self.path)
        ):
            check.problem("path", self.path, "a path that begins with /, percent-encoded, without spaces")
        self._check_headers(check)
        if self.expect is not None and not all(isinstance(each, int) and 200 <= each <= 599 for each in self.expect):  # noqa: PLR2004
            check.problem("expect", self.expect, "statuses from 200 to 599")
        bodies = [name for name in ("json", "body", "upload") if getattr(self, name) is not None]
        if len(bodies) > 1:
            check.problem("body", ", ".join(bodies), "one of json, body and upload")
        if bodies and self.kind == "websocket":
            check.problem(bodies[0], "a body", "none", "a WebSocket sends messages")
        if self.kind != "websocket" and (self.messages or self.items is not None):
            check.problem("messages", self.messages or self.items, "none", "only a WebSocket has them")
        if self.items is not None:
            check.count("items", self.items, maximum=1_000_000)
        if self.end is not None and (self.kind == "http" or not isinstance(self.end, str) or not self.end):
            check.problem("end", self.end, "a text; of a stream")
        self._check_texts(check)
        check.finish()

    def _check_headers(self, check: Checker) -> None:
        if self.headers is None:
            return
        if not isinstance(self.headers, Mapping):
            check.problem("headers", self.headers, "a table of texts")
            return
        for name, value in self.headers.items():
            if not isinstance(name, str) or not _HEADER.fullmatch(name):
                check.problem("headers", name, "the name of a header")
            elif name.lower() in _OURS:
                check.problem(f"headers.{name}", value, "nothing", "the generator says that itself")
            elif not isinstance(value, str) or not value.isascii() or not value.isprintable():
                check.problem(f"headers.{name}", value, "a text of printable ASCII characters")

    def _check_texts(self, check: Checker) -> None:
        texts: list[tuple[str, Any]] = [("path", self.path), ("body", self.body), *(("messages", text) for text in self.messages)]
        if isinstance(self.headers, Mapping):
            texts += [(f"headers.{name}", value) for name, value in self.headers.items()]
        texts += [("json", text) for text in _texts(self.json)]
        for where, text in texts:
            if text is not None and not isinstance(text, str):
                check.problem(where, text, "a text")
                continue
            for found in _PLACE.finditer(text or ""):
                if found[1] is not None and found[1] not in PLACES:
                    allowed = ", ".join(f"{{{place}}}" for place in PLACES)
                    check.problem(where, found[0], allowed, did_you_mean(found[1], PLACES) or "{{ and }} stand for braces")
        if self.json is not None:
            try:
                json.dumps(self.json, allow_nan=False)
            except (TypeError, ValueError) as broken:
                check.problem("json", self.json, "what JSON has", str(broken)[:100])


class Orders:
    """Makes the order of each arrival: which request, and its bytes. The same for the same scenario, seed and ``run``."""

    def __init__(self, requests: Sequence[Request], target: Target, *, seed: int | str = 0, run: str = "run", sessions: int = 50) -> None:
        """``run``: what ``{id}`` begins with; ``sessions``: how many values ``{session}`` has."""
        self._makers = [_maker(request, target) for request in requests]
        self._limits = list(accumulate(request.weight for request in requests))
        self._draws = Chance(seed).sequence("load.request")
        self._run = run
        self._sessions = sessions
        self._single = len(requests) == 1

    def __call__(self, number: int) -> Order:
        """The order of the arrival with this number; to be asked in rising order, once each."""
        place = 0
        if not self._single:
            drawn = self._draws.next() * self._limits[-1]
            while drawn >= self._limits[place]:
                place += 1
        return self._makers[place]({"n": str(number), "id": f"{self._run}-{number}", "session": f"s{number % self._sessions}"})


def _maker(request: Request, target: Target) -> Callable[[Mapping[str, str]], Order]:
    """What makes the orders of one request: once and for all when nothing in it varies."""
    if not any(_varies(text) for text in _all_texts(request)):
        made = Order(request.name, request.timeout, _payload(request, target, {}))
        return lambda _: made
    return lambda values: Order(request.name, request.timeout, _payload(request, target, values))


def _payload(request: Request, target: Target, values: Mapping[str, str]) -> Payload:
    headers = [(name, _filled(value, values)) for name, value in (request.headers or {}).items()]
    path = target.path + _filled(request.path, values)
    expect = None if request.expect is None else frozenset(request.expect)
    if request.kind == "websocket":
        sent = tuple(_filled(text, values) for text in request.messages)
        pairs = tuple((name.encode("ascii"), value.encode("ascii")) for name, value in headers)
        return Payload("websocket", path.encode("ascii"), None, request.end, messages=sent, items=request.items, headers=pairs)
    body, kind = _body(request, values)
    named = {name.lower() for name, _ in headers}
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {target.authority}"]
    if kind is not None and "content-type" not in named:
        lines.append(f"Content-Type: {kind}")
    if "accept" not in named:
        lines.append(f"Accept: {'text/event-stream' if request.kind == 'sse' else '*/*'}")
    if body or request.method in {"POST", "PUT", "PATCH"}:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in headers]
    data = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + body
    return Payload(request.kind, data, expect, request.end, safe=request.method == "GET")


def _body(request: Request, values: Mapping[str, str]) -> tuple[bytes, str | None]:
    if request.json is not None:
        return json.dumps(_filled_all(request.json, values), separators=(",", ":")).encode(), "application/json"
    if request.body is not None:
        return _filled(request.body, values).encode(), "text/plain; charset=utf-8"
    if request.upload is not None:
        return request.upload.body()
    return b"", None


def _filled(text: str, values: Mapping[str, str]) -> str:
    if "{" not in text and "}" not in text:
        return text
    return _PLACE.sub(lambda found: values.get(found[1], found[0]) if found[1] is not None else found[0][0], text)


def _filled_all(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _filled(value, values)
    if isinstance(value, Mapping):
        return {name: _filled_all(each, values) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_filled_all(each, values) for each in value]
    return value


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts(each)


def _all_texts(request: Request) -> Iterable[str]:
    yield request.path
    yield from _texts(request.headers)
    yield from _texts(request.json)
    yield from _texts(request.messages)
    if request.body is not None:
        yield request.body


def _varies(text: str) -> bool:
    return any(found[1] is not None for found in _PLACE.finditer(text))
