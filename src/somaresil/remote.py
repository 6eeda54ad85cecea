"""Asking an app of ours in another process, from a terminal: the control app, the verdict app.

The token comes from a variable of the environment, for arguments are seen by everybody on the machine. No redirect is followed, so the
token goes where it was sent. What answers may be in other hands than the terminal: nothing that a terminal would obey is printed.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import sys
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["DONE", "IMPOSSIBLE", "REFUSED", "Impossible", "Incoming", "Remote", "clean", "tell"]

DONE, REFUSED, IMPOSSIBLE = 0, 1, 2
"""Exit codes."""
_LARGEST: Final = 4_000_000
_PIECE: Final = 65_536
_PROBLEM: Final = "application/problem+json"
_LONGEST_WAIT: Final = 600.0
_FAILED, _NOT_FOUND = 500, 404


class Impossible(Exception):
    """It could not be done."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an answer like any other, and not the right one."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Remote:
    """An app of ours at a URL. Raises :class:`Impossible` for what is no URL, no token and no time."""

    def __init__(
        self,
        what: str,
        *,
        url: str | None,
        url_variable: str,
        token_variable: str,
        timeout: float,
        largest: int = _LARGEST,
        open_to_all: bool = False,
        option: str = "--url",
    ) -> None:
        """``what`` it is, for people; ``url_variable`` is asked when ``url`` is None.

        ``largest``: bytes of an answer that are read. ``open_to_all``: without a token it is asked without one.
        ``option``: what takes the address on the command line.
        """
        self._what = what
        self._largest = largest
        url = url or os.environ.get(url_variable)
        token = os.environ.get(token_variable)
        if not url:
            raise Impossible(f"where is the {what}? {option}, or {url_variable}")
        if not token and open_to_all:
            token = ""
        elif not token or not token.isascii() or not token.isprintable():
            raise Impossible(f"the variable {token_variable} holds no token")
        if not _is_address(url):
            # A password in it would be sent to nobody, and told to whoever reads what was wrong.
            shown = "an address" if "@" in url else clean(url)
            raise Impossible(f"{option}: {shown}: expected http:// or https://, a host and a path, without user, query or fragment")
        if not 0.0 < timeout <= _LONGEST_WAIT:
            raise Impossible(f"--timeout: expected more than 0 and at most {_LONGEST_WAIT:.0f} seconds")
        self._url, self._token, self._timeout = url, token, timeout

    def _headers(self, accept: str) -> dict[str, str]:
        return {"Accept": accept, **({"Authorization": f"Bearer {self._token}"} if self._token else {})}

    def ask(self, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and data of an answer. Raises :class:`Impossible` when something else answers, or nothing."""
        url = self._url
        headers = {**self._headers("application/json"), **(headers or {})}
        body = None
        if method == "POST":
            headers["Content-Type"] = "application/json"
            body = (data if isinstance(data, str) else json.dumps(data)).encode()
        try:
            request = urllib.request.Request(url.rstrip("/") + path, body, headers, method=method)  # noqa: S310 - the scheme was looked at
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self._timeout) as answer:
                return self._read(answer.status, answer.headers, answer.read(self._largest + 1))
        except urllib.error.HTTPError as answer:
            with answer:
                return self._read(answer.code, answer.headers, answer.read(self._largest + 1))
        except Impossible:
            raise
        except Exception as broken:  # noqa: BLE001 - OSError, or http.client.HTTPException: something else speaks there
            raise self._unreachable(broken) from None

    def stream(self, path: str, *, silence: float, headers: Mapping[str, str] | None = None) -> Incoming:
        """What comes from there for as long as it comes: server-sent events.

        ``silence``: seconds without a byte after which the other side is taken to be gone. No proxy is used: most keep such an answer back.
        Raises :class:`Impossible`.
        """
        parts = urllib.parse.urlsplit(self._url)
        connection: http.client.HTTPConnection | None = None
        try:
            if parts.scheme == "https":
                connection = http.client.HTTPSConnection(parts.netloc, timeout=self._timeout, context=ssl.create_default_context())
            else:
                connection = http.client.HTTPConnection(parts.netloc, timeout=self._timeout)
            connection.request("GET", parts.path.rstrip("/") + path, headers={**self._headers("text/event-stream"), **(headers or {})})
            carrier: socket.socket = connection.sock
            answer = connection.getresponse()
            carrier.settimeout(silence)
        except Exception as broken:  # noqa: BLE001 - as above
            if connection is not None:
                connection.close()
            raise self._unreachable(broken) from None
        kind = (answer.headers.get("content-type") or "").partition(";")[0].strip()
        incoming = Incoming(answer, carrier, connection, self._unreachable)
        if answer.status != http.client.OK or kind != "text/event-stream":
            incoming.close()
            raise self._not_ours(answer.status)
        return incoming

    def _unreachable(self, broken: Exception) -> Impossible:
        # Errors of ssl have a reason too, which is a text.
        reason = broken if isinstance(broken, ssl.SSLError) else getattr(broken, "reason", broken)
        if isinstance(reason, ssl.SSLCertVerificationError):
            hint = "SSL_CERT_FILE may name a file with the certificate of the authority that has signed it"
            return Impossible(f"{self._url}: its certificate is not trusted here: {reason.verify_message}. {hint}")
        if isinstance(reason, ConnectionRefusedError):
            return Impossible(f"{self._url}: nothing listens there ({type(reason).__name__}: {reason})")
        return Impossible(f"{self._url}: {type(broken).__name__}: {reason}")

    def _not_ours(self, status: int) -> Impossible:
        hint = ""
        if status == _NOT_FOUND:
            hint = ": a wrong URL, or a token that is not known there" if self._token else ": a wrong URL, or it needs a token"
        return Impossible(f"the answer is not one of the {self._what} (status {status}{hint})")

    def _read(self, status: int, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        kind = (headers.get("content-type") or "").partition(";")[0].strip()
        if kind not in {"application/json", _PROBLEM} or len(body) > self._largest:
            raise self._not_ours(status)
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise self._not_ours(status)
        if status >= _FAILED:
            raise Impossible(f"the {self._what} has failed: {said.get('detail')}")
        return status, said

    def strange(self) -> Impossible:
        """What to raise when an answer has not what it should have."""
        return Impossible(f"the answer is not one of the {self._what}")


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    plain = "@" not in parts.netloc and not parts.query and not parts.fragment
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and plain


class Incoming:
    """Bytes that come in, piece by piece. Iterating raises :class:`Impossible` when they break off by a fault, and ends with the answer."""

    def __init__(
        self,
        answer: http.client.HTTPResponse,
        carrier: socket.socket,
        connection: http.client.HTTPConnection,
        unreachable: Callable[[Exception], Impossible],
    ) -> None:
        self._answer = answer
        self._carrier = carrier
        self._connection = connection
        self._unreachable = unreachable

    def __iter__(self) -> Iterator[bytes]:
        """What comes, as it comes."""
        try:
            while piece := self._answer.read1(_PIECE):
                yield piece
        except Exception as broken:  # noqa: BLE001 - OSError, http.client.HTTPException, and AttributeError when it was closed meanwhile
            raise self._unreachable(broken) from None

    def stop(self) -> None:
        """Let whoever waits for more wake up: from any thread."""
        with suppress(OSError):
            self._carrier.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it: by whoever has iterated."""
        self._answer.close()
        self._connection.close()


def tell(remote: Remote, status: int, said: dict[str, Any], text: Callable[[], str], *, as_json: bool) -> int:
    """Print an answer, and give the exit code."""
    refused = not 200 <= status < 300  # noqa: PLR2004
    if as_json:
        print(json.dumps(said, indent=2))
    elif refused:
        print(f"refused ({status}): {clean(str(said.get('detail')))}", file=sys.stderr)
        for each in said.get("problems", ()):
            hint = f" ({each.get('hint')})" if each.get("hint") else ""
            print(clean(f"  {each.get('path')} = {each.get('value')}: expected {each.get('allowed')}{hint}"), file=sys.stderr)
    else:
        try:
            print(text())
        except (KeyError, TypeError, AttributeError, ValueError):
            raise remote.strange() from None
    return REFUSED if refused else DONE


def clean(text: str) -> str:
    """Without what a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)
