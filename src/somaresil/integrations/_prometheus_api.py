"""Prometheus' HTTP API for instant and range queries, asked without trusting the answer. VictoriaMetrics, Mimir and Thanos speak it too.

One answer has a timeout as a whole and a cap on its size. Redirects are not followed and proxies of the environment are not used: what is
asked, and with which credentials, is seen by the server that was named and by no other. Nothing of what a server says in words is passed
on, for it may repeat the credentials it was sent.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.config import Checker

__all__ = ["LONGEST_QUERY", "Answer", "Authorization", "Sample", "ask_range", "ask_server", "check_url"]

LONGEST_QUERY: Final = 10_000
"""Characters of a query."""

_LARGEST: Final = 1_000_000
"""Bytes of an answer that are read; what is asked here is about few series."""
_LARGEST_SECRET: Final = 16_384
_SECRET: Final = re.compile(r"[\x21-\x7e]+")
_ERRORS: Final = frozenset(
    {"bad_data", "bad_request", "canceled", "execution", "internal", "not_found", "timeout", "too_many_requests", "unavailable"}
)
"""Kinds of errors that the API names; anything else could be anything."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an answer. ``at`` is when it was evaluated, by the server's clock."""

    labels: Mapping[str, str]
    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    samples: tuple[Sample, ...]
    partial: bool = False
    """Whether it says itself that something is missing: it has warnings, or is marked as partial."""
    infos: int = 0
    """Remarks on the query that make the answer no worse."""


class Authorization:
    """Credentials for a server: a bearer token or a user with a password, from a variable or a file, and never shown.

    A file is read for each question, since tokens are rotated. Its owner's rights are its owner's matter.
    """

    __slots__ = ("_basic", "_file", "_secret")

    def __init__(self, *, secret: str | None = None, file: str | os.PathLike[str] | None = None, basic: bool = False) -> None:
        """``basic``: the secret is ``user:password``; otherwise it is a bearer token."""
        self._secret = secret
        self._file = file
        self._basic = basic

    def __repr__(self) -> str:
        """Not the secret."""
        return f"Authorization({'none' if self._secret is None and self._file is None else '...'})"

    @classmethod
    def given(
        cls, check: Checker, *, token_env: str | None = None, token_file: str | os.PathLike[str] | None = None, basic_env: str | None = None
    ) -> Authorization:
        """From the one of these that is given; problems say where it was looked for, and not what was found."""
        ways = {"token_env": token_env, "token_file": token_file, "basic_env": basic_env}
        chosen = [way for way, value in ways.items() if value is not None]
        if len(chosen) > 1:
            check.problem(chosen[1], ways[chosen[1]], f"None when {chosen[0]} is given")
        for way in ("token_env", "basic_env"):
            name = ways[way]
            if name is None:
                continue
            secret = os.environ.get(str(name), "")
            if not _SECRET.fullmatch(secret) or (way == "basic_env" and ":" not in secret):
                kind = "user:password" if way == "basic_env" else "a token"
                check.problem(way, name, f"a variable that holds {kind} of visible ASCII characters")
            return cls(secret=secret, basic=way == "basic_env")
        authorization = cls(file=token_file)
        if token_file is not None:
            try:
                authorization.header()
            except (OSError, ValueError) as broken:
                check.problem("token_file", os.fspath(token_file), "a file that holds a token", type(broken).__name__)
        return authorization

    def header(self) -> dict[str, str]:
        """The header to send. Raises ``OSError`` or ``ValueError`` when the file has no token."""
        secret = self._secret
        if self._file is not None:
            with Path(self._file).open(encoding="ascii") as file:
                secret = file.read(_LARGEST_SECRET).strip()
            if not _SECRET.fullmatch(secret):
                raise ValueError("its file holds no token")
        if secret is None:
            return {}
        if self._basic:
            return {"authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}
        return {"authorization": f"Bearer {secret}"}


_NOBODY: Final = Authorization()


def ask_server(url: str, query: str, timeout: float, authorization: Authorization = _NOBODY) -> Answer:
    """Evaluate an instant query now.

    Raises ``OSError`` when there is no answer within ``timeout`` seconds, and ``ValueError`` when it is none that can be read, is too
    large, or tells of an error. Looking up the name of the server is the system's matter, and has the system's timeout.
    """
    return _answer(_asked(url, f"/api/v1/query?{urlencode({'query': query})}", timeout, authorization))


def ask_range(url: str, query: str, span: tuple[float, float, float], timeout: float, authorization: Authorization = _NOBODY) -> str:
    """Evaluate a range query from, to (seconds since the epoch), every so many seconds, and give the answer as JSON, which is a success.

    Raises as :func:`ask_server` does.
    """
    start, end, step = span
    target = urlencode({"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:g}"})
    return json.dumps(_asked(url, f"/api/v1/query_range?{target}", timeout, authorization))


def _asked(url: str, target: str, timeout: float, authorization: Authorization) -> dict[str, Any]:
    status, text = _fetch(url, target, timeout, authorization)
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP
        raise ValueError(f"it answers {status}, and redirects are not followed")
    if status != 200:  # noqa: PLR2004 - HTTP
        raise ValueError(f"it answers {status}{_kind_of_error(text)}")
    if len(text) > _LARGEST:
        raise ValueError(f"its answer has more than {_LARGEST} bytes")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as strange:
        raise ValueError("its answer is no JSON") from strange
    if not isinstance(said, dict) or said.get("status") != "success":
        raise ValueError(f"it answers no success{_kind_of_error(text)}")
    return said


def _answer(said: dict[str, Any]) -> Answer:
    data = said.get("data")
    if not isinstance(data, dict) or (kind := data.get("resultType")) not in ("vector", "scalar"):
        raise ValueError("it answers with something else than a vector or a scalar")
    try:
        found = [({}, data["result"])] if kind == "scalar" else [(series["metric"], series["value"]) for series in data["result"]]
        samples = tuple(Sample({str(name): str(value) for name, value in labels.items()}, *_value(pair)) for labels, pair in found)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as strange:
        raise ValueError("it is no answer to an instant query") from strange
    infos = said.get("infos")
    return Answer(samples, bool(said.get("warnings")) or bool(said.get("isPartial")), len(infos) if isinstance(infos, list) else 0)


def _value(pair: Any) -> tuple[float, float]:
    """A time and a number, which is written as a text. Anything else raises."""
    at, value = pair
    if isinstance(at, bool) or not isinstance(at, int | float) or not isinstance(value, str) or not math.isfinite(at):
        raise TypeError
    return float(at), float(value)


def _kind_of_error(text: bytes) -> str:
    with suppress(ValueError, RecursionError):
        said = json.loads(text[:_LARGEST])
        if isinstance(said, dict) and isinstance(said.get("errorType"), str) and said["errorType"] in _ERRORS:
            return f" ({said['errorType']})"
    return ""


def _fetch(url: str, target: str, timeout: float, authorization: Authorization) -> tuple[int, bytes]:
    """Status and body, of which one byte more than the largest is read."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    late = threading.Event()
    # Of our own: the connection forgets its socket when the server is going to close it.
    opened: list[socket.socket] = []

    def end() -> None:
        # A timeout of the socket is for each step, and a server that sends a byte a second takes a step a second.
        late.set()
        for each in opened:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    watchdog = threading.Timer(timeout, end)
    watchdog.daemon = True
    watchdog.start()
    try:
        connection.connect()
        opened.append(connection.sock)
        if late.is_set():
            raise TimeoutError
        headers = {"accept": "application/json", "user-agent": "somaresil", **authorization.header()}
        connection.request("GET", parts.path.rstrip("/") + target, headers=headers)
        response = connection.getresponse()
        text = response.read(_LARGEST + 1)
    except (HTTPException, OSError) as broken:
        if late.is_set() or isinstance(broken, TimeoutError):
            raise TimeoutError(f"it gives no answer within {timeout:g} s") from broken
        if isinstance(broken, HTTPException):
            raise ConnectionError(f"{type(broken).__qualname__} while it answered") from broken
        raise
    else:
        if late.is_set():
            # What was cut off may look like a whole answer that has no length.
            raise TimeoutError(f"it gives no answer within {timeout:g} s")
        return response.status, text
    finally:
        watchdog.cancel()
        connection.close()


def check_url(check: Checker, url: object) -> None:
    """Note what is wrong with the address of a server. A password in it would end in logs, so it is none, and it is not repeated."""
    if not _is_http(url):
        check.problem("url", "..." if isinstance(url, str) and "@" in url else url, "http://host[:port][/path], or https")


def _is_http(url: object) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    # An option would be one of the query.
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc and not parts.query and not parts.fragment
