"""Dashboards of other pods, asked for their portraits in the background: the page never waits for them.

An address is that of a dashboard as it is mounted, ``http://10.0.0.7:8000/_soma``; ``dns+http://gateway.default.svc:8000/_soma`` stands for
every address that the name has (a headless service of Kubernetes). Each is asked every two seconds while somebody looks, with a bearer
token, for at most two seconds. No redirect is followed, so the token goes where it was sent, and no proxy is asked. What one has said is
shown with its age when it says no more, and it is missing after a minute.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from somaresil.dashboard import checked
from somaresil.dashboard.history import STEP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from somaresil.config import Checker
    from somaresil.listeners import Listeners
    from somaresil.typing import Clock

__all__ = ["MOST_PEERS", "Peers", "check_peers"]

MOST_PEERS: Final = 64
TIMEOUT: Final = 2.0
"""Seconds for an answer."""
_EVERY: Final = 2.0
_RESOLVED_EVERY: Final = 10.0
_STUCK: Final = 5.0
"""Seconds after which an answer that comes in drops is cut off."""
_LIVE: Final = 7.0
_FORGOTTEN: Final = 60.0
_LARGEST: Final = 16 * 1024 * 1024
_SKEW: Final = 30.0
"""Seconds by which the clock of a peer may differ; then nobody knows what its times mean."""
_SCHEMES: Final = {"http": 80, "https": 443, "dns+http": 80, "dns+https": 443}
_OK: Final = 200


class _Address(NamedTuple):
    scheme: str
    """``http`` or ``https``."""
    host: str
    port: int
    path: str
    resolve: bool


class _Place(NamedTuple):
    """One dashboard: where it is, and by which name it is asked."""

    address: _Address
    ip: str

    def __str__(self) -> str:
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{self.address.scheme}://{host}:{self.address.port}{self.address.path}"


def check_peers(check: Checker, peers: object, token: object) -> tuple[_Address, ...]:
    """The addresses, checked; all problems are noted."""
    if isinstance(peers, str) or not isinstance(peers, list | tuple):
        check.problem("peers", peers, "a list of addresses")
        return ()
    if len(peers) > MOST_PEERS:
        check.problem("peers", f"{len(peers)} of them", f"at most {MOST_PEERS}")
    found = []
    for number, peer in enumerate(peers[:MOST_PEERS]):
        address = _parsed(peer)
        if address is None:
            allowed = "an address such as http://10.0.0.7:8000/_soma or dns+http://gateway.default.svc:8000/_soma"
            shown = "an address" if isinstance(peer, str) and "@" in peer else peer
            check.problem(f"peers[{number}]", shown, allowed, "no user, no query, no fragment")
        else:
            found.append(address)
    usable = isinstance(token, str) and token.isascii() and token.isprintable() and token and " " not in token
    if (peers or token is not None) and not usable:
        shown = None if token is None else "the one that was given"
        check.problem("peer_token", shown, "a token in printable ASCII", "peers give their portrait to nobody without one")
    return tuple(found)


def _parsed(peer: object) -> _Address | None:
    if not isinstance(peer, str) or not peer.isascii() or not peer.isprintable() or " " in peer:
        return None
    try:
        parts = urlsplit(peer)
        port = parts.port
    except ValueError:
        return None
    plain = not (parts.username or parts.password or parts.query or parts.fragment)
    if parts.scheme not in _SCHEMES or not parts.hostname or not plain:
        return None
    resolve = parts.scheme.startswith("dns+")
    path = parts.path.rstrip("/")
    return _Address(parts.scheme.removeprefix("dns+"), parts.hostname, port or _SCHEMES[parts.scheme], path, resolve)


class _Peer:
    """What is known of one."""

    __slots__ = ("asked_at", "connection", "heard_at", "pending", "portrait", "why")

    def __init__(self) -> None:
        self.asked_at = float("-inf")
        self.pending = False
        self.connection: http.client.HTTPConnection | None = None
        self.portrait: dict[str, Any] | None = None
        self.heard_at = float("-inf")
        self.why = "it was not asked yet"


class Peers:
    """All of them. :meth:`look` asks those that are due, and waits for none."""

    def __init__(self, addresses: Sequence[_Address], token: str, clock: Clock, listeners: Listeners) -> None:
        """Nothing is asked yet."""
        self._addresses = tuple(addresses)
        self._token = token
        self._clock = clock
        self._listeners = listeners
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._peers: dict[_Place, _Peer] = {}
        self._resolved: dict[_Address, tuple[str, ...]] = {}
        self._problems: dict[_Address, str] = {}
        self._resolved_at = float("-inf")
        self._resolving = False

    def after_fork(self) -> None:
        """In the child: whoever was asked was asked by the parent."""
        self._begin()

    def look(self) -> None:
        """Ask whoever is due."""
        if not self._addresses:
            return
        now = self._clock.monotonic()
        with self._lock:
            if now - self._resolved_at >= _RESOLVED_EVERY and not self._resolving:
                self._resolving = True
                if not self._in_thread(self._resolve):
                    self._resolving = False
            for place in self._places():
                peer = self._peers.setdefault(place, _Peer())
                if peer.pending:
                    if now - peer.asked_at > _STUCK and peer.connection is not None and peer.connection.sock is not None:
                        with suppress(OSError):
                            peer.connection.sock.shutdown(socket.SHUT_RDWR)
                elif now - peer.asked_at >= _EVERY:
                    peer.pending, peer.asked_at = True, now
                    if not self._in_thread(self._ask, place, peer):
                        peer.pending = False

    def _in_thread(self, work: Callable[..., None], *about: Any) -> bool:
        try:
            threading.Thread(target=work, args=about, name="somaresil-peers", daemon=True).start()
        except RuntimeError as none_left:
            self._listeners.defect("thread somaresil-peers", none_left, self._clock.time(), "peers are not asked")
            return False
        return True

    def _places(self) -> list[_Place]:
        found: dict[_Place, None] = {}
        for address in self._addresses:
            for ip in self._resolved.get(address, ()) if address.resolve else (address.host,):
                found[_Place(address, ip)] = None
        return list(found)[:MOST_PEERS]

    def _resolve(self) -> None:
        resolved: dict[_Address, tuple[str, ...]] = {}
        problems: dict[_Address, str] = {}
        for address in self._addresses:
            if not address.resolve:
                continue
            try:
                found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
                resolved[address] = tuple(sorted({str(each[4][0]) for each in found}))
            except (OSError, UnicodeError) as unknown:
                problems[address] = f"the name is not known ({type(unknown).__name__})"
        with self._lock:
            # A name server that is down for a moment is no reason to forget who was there.
            self._resolved = {**{address: ips for address, ips in self._resolved.items() if address in problems}, **resolved}
            self._problems = problems
            self._resolved_at, self._resolving = self._clock.monotonic(), False
            there = {*self._places()}
            self._peers = {place: peer for place, peer in self._peers.items() if place in there}
        self.look()

    def _ask(self, place: _Place, peer: _Peer) -> None:
        why, portrait = "", None
        try:
            portrait = checked.portrait(self._fetched(place, peer))
            skew = portrait["at"] - self._clock.time()
            if abs(skew) > _SKEW:
                why, portrait = f"its clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}", None
            elif portrait["columns"] is not None:
                # Its columns lie on its clock, and are to lie on ours.
                shift = round(skew / STEP)
                portrait["columns"] = {**portrait["columns"], "index": max(0, portrait["columns"]["index"] - shift)}
        except checked.Strange as strange:
            why = str(strange)[:200]
        except TimeoutError:
            why = f"no answer within {TIMEOUT:g} s"
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as broken:
            why = f"{type(broken).__name__}: {getattr(broken, 'strerror', None) or broken}"[:200]
        except Exception as defect:  # noqa: BLE001 - the page shows the others
            self._listeners.defect("asking a peer of the dashboard", defect, self._clock.time(), "it is shown as missing")
            why = type(defect).__qualname__
        with self._lock:
            peer.pending, peer.connection = False, None
            if portrait is None:
                peer.why = "".join(character if character.isprintable() else "?" for character in why)
            else:
                peer.portrait, peer.heard_at, peer.why = portrait, self._clock.monotonic(), ""

    def _fetched(self, place: _Place, peer: _Peer) -> Any:
        address = place.address
        connection = _Connection(place)
        peer.connection = connection
        try:
            host = f"[{address.host}]" if ":" in address.host else address.host
            headers = {
                "Host": host if address.port == _SCHEMES[address.scheme] else f"{host}:{address.port}",
                "Authorization": f"Bearer {self._token}",
                "Accept": "application/json",
            }
            connection.request("GET", f"{address.path}/api/picture?own=1", headers=headers)
            answer = connection.getresponse()
            if answer.status != _OK:
                raise ValueError(f"it answered with status {answer.status}")
            if (answer.getheader("content-type") or "").partition(";")[0].strip() != "application/json":
                raise ValueError("it answered with something else than JSON")
            data = answer.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise ValueError(f"it answered with more than {_LARGEST} bytes")
            return json.loads(data)
        finally:
            connection.close()

    def read(self) -> list[tuple[str, str, str, dict[str, Any] | None, float | None]]:
        """Address, state, why, portrait and age in seconds of each; of those that are missing there is no portrait."""
        now = self._clock.monotonic()
        found: list[tuple[str, str, str, dict[str, Any] | None, float | None]] = []
        with self._lock:
            for place in self._places():
                peer = self._peers.get(place)
                if peer is None:
                    found.append((str(place), "missing", "it was not asked yet", None, None))
                    continue
                age = now - peer.heard_at
                if peer.portrait is None or age > _FORGOTTEN:
                    peer.portrait = None
                    found.append((str(place), "missing", peer.why or "it does not answer", None, None))
                else:
                    found.append((str(place), "live" if age <= _LIVE else "stale", peer.why, peer.portrait, age))
            for address in self._addresses:
                if address.resolve and not self._resolved.get(address):
                    why = self._problems.get(address, "it was not looked up yet")
                    found.append((f"dns+{address.scheme}://{address.host}:{address.port}{address.path}", "missing", why, None, None))
        return found


class _Connection(http.client.HTTPConnection):
    """To one address, also where the certificate is that of a name."""

    def __init__(self, place: _Place) -> None:
        super().__init__(place.ip, place.address.port, timeout=TIMEOUT)
        self._name = place.address.host
        self._context = ssl.create_default_context() if place.address.scheme == "https" else None

    def connect(self) -> None:
        self.sock = socket.create_connection((self.host, self.port), self.timeout)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self._name)
