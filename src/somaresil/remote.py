"""Asking an app of ours in another process, from a terminal: the control app, the verdict app.

The token comes from a variable of the environment, for arguments are seen by everybody on the machine. No redirect is followed, so the
token goes where it was sent. What answers may be in other hands than the terminal: nothing that a terminal would obey is printed.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DONE", "IMPOSSIBLE", "REFUSED", "Impossible", "Remote", "clean", "tell"]

DONE, REFUSED, IMPOSSIBLE = 0, 1, 2
"""Exit codes."""
_LARGEST: Final = 4_000_000
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

    def __init__(self, what: str, *, url: str | None, url_variable: str, token_variable: str, timeout: float) -> None:
        """``what`` it is, for people; ``url_variable`` is asked when ``url`` is None."""
        self._what = what
        url = url or os.environ.get(url_variable)
        token = os.environ.get(token_variable)
        if not url:
            raise Impossible(f"where is the {what}? --url, or {url_variable}")
        if not token or not token.isascii() or not token.isprintable():
            raise Impossible(f"the variable {token_variable} holds no token")
        if urllib.parse.urlsplit(url).scheme not in {"http", "https"}:
            raise Impossible(f"{url}: expected http:// or https://")
        if not 0.0 < timeout <= _LONGEST_WAIT:
            raise Impossible(f"--timeout: expected more than 0 and at most {_LONGEST_WAIT:.0f} seconds")
        self._url, self._token, self._timeout = url, token, timeout

    def ask(self, method: str, path: str, data: Any = None) -> tuple[int, dict[str, Any]]:
        """Status and data of an answer. Raises :class:`Impossible` when something else answers, or nothing."""
        url = self._url
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        body = None
        if method == "POST":
            headers["Content-Type"] = "application/json"
            body = (data if isinstance(data, str) else json.dumps(data)).encode()
        try:
            request = urllib.request.Request(url.rstrip("/") + path, body, headers, method=method)  # noqa: S310 - the scheme was looked at
            with urllib.request.build_opener(_NoRedirect).open(request, timeout=self._timeout) as answer:
                return self._read(answer.status, answer.headers, answer.read(_LARGEST + 1))
        except urllib.error.HTTPError as answer:
            with answer:
                return self._read(answer.code, answer.headers, answer.read(_LARGEST + 1))
        except (OSError, ValueError) as broken:
            reason = getattr(broken, "reason", broken)
            raise Impossible(f"{url}: {type(broken).__name__}: {reason}") from None
        except Impossible:
            raise
        except Exception as broken:  # noqa: BLE001 - http.client.HTTPException: something else speaks there
            raise Impossible(f"{url}: {type(broken).__name__}: {broken}") from None

    def _read(self, status: int, headers: Any, body: bytes) -> tuple[int, dict[str, Any]]:
        kind = (headers.get("content-type") or "").partition(";")[0].strip()
        if kind not in {"application/json", _PROBLEM} or len(body) > _LARGEST:
            hint = ": a wrong URL, or a token that is not known there" if status == _NOT_FOUND else ""
            raise Impossible(f"the answer is not one of the {self._what} (status {status}{hint})")
        try:
            said = json.loads(body)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise Impossible(f"the answer is not one of the {self._what} (status {status})")
        if status >= _FAILED:
            raise Impossible(f"the {self._what} has failed: {said.get('detail')}")
        return status, said

    def strange(self) -> Impossible:
        """What to raise when an answer has not what it should have."""
        return Impossible(f"the answer is not one of the {self._what}")


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
