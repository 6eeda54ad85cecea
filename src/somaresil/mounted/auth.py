"""Who may use the control app: authenticators, and the bound on how often somebody may fail.

An authenticator is any function of the ASGI scope that gives the name of a principal, or None; it may be a coroutine function. One that
raises, hangs or answers anything else has authenticated nobody. It is asked about each request, and once about one of a stranger, without
credentials, when an app is made: who gives him a name, or anything but None, is refused there. Ours is :class:`BearerToken`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import re
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker

if TYPE_CHECKING:
    from somaresil.typing import Clock

__all__ = ["Authenticator", "BearerToken", "FailureLimit", "is_principal"]

Authenticator = Callable[[MutableMapping[str, Any]], "str | Awaitable[str | None] | None"]
"""Gives the name of whoever sent a request (the ASGI scope), or None: nobody who is known."""

SHORTEST_TOKEN: Final = 32
"""Characters: ``secrets.token_hex(16)`` has as many, and 128 bits of chance."""
LONGEST_TOKEN: Final = 512
MOST_TOKENS: Final = 64
_FEWEST_CHARACTERS: Final = 8
"""Different ones in a token: fewer is nothing that chance has made."""
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""The ``b64token`` of RFC 6750, section 2.1."""
_LONGEST_PRINCIPAL: Final = 120

BURST: Final = 20
"""Failures of one address in a row before its requests are no longer looked at."""
REFILL: Final = 1.0
"""Failures a second that an address may go on with."""
MOST_ADDRESSES: Final = 1_024
_MOST_PROVEN: Final = 64
_NETWORK: Final = 64
"""Bits of an IPv6 address that are one customer: who has one address there has all of them."""


def is_principal(name: object) -> bool:
    """Whether it can be the name of somebody: it goes to logs and into answers."""
    return isinstance(name, str) and 0 < len(name) <= _LONGEST_PRINCIPAL and name.isprintable() and name.strip() == name


class BearerToken:
    """Takes ``Authorization: Bearer <token>`` (RFC 6750): no cookie, no query parameter.

    ``tokens`` is one token, several (rotation: the old one and the new one), or a mapping of principals to theirs. Each has 32 to 512
    characters of ``A-Z a-z 0-9 - . _ ~ + /``, as ``secrets.token_urlsafe(32)`` gives. Tokens without a mapping are those of ``principal``.

    With ``basic`` a token is taken as the password of ``Authorization: Basic`` (RFC 7617) too, with any user name: some clients, such as
    Flagger's, can send nothing but what stands in an address (``http://engine:<token>@host/``).

    Only digests are kept, each request is compared with all of them in constant time, and no token is ever shown: not by ``repr``, not in
    an error. Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    __slots__ = ("_basic", "_known")

    def __init__(
        self, tokens: str | Iterable[str] | Mapping[str, str | Iterable[str]], *, principal: str = "operator", basic: bool = False
    ) -> None:
        """Keep the digests."""
        check = Checker("BearerToken")
        by_name: Mapping[Any, Any] = tokens if isinstance(tokens, Mapping) else {principal: tokens}
        known: list[tuple[bytes, str]] = []
        for name, given in by_name.items():
            where = f"tokens[{name!r}]" if isinstance(tokens, Mapping) else "tokens"
            if not is_principal(name):
                check.problem("principal", name, f"1 to {_LONGEST_PRINCIPAL} printable characters, no space at the ends")
            listed: list[Any] = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
            if not listed:
                check.problem(where, "none", "at least one token")
            for token in listed:
                problem = _weakness(token)
                if problem is None:
                    known.append((_digest(token.encode()), str(name)))
                else:
                    check.problem(where, *problem)
        if not by_name:
            check.problem("tokens", "none", "at least one token")
        if len(known) > MOST_TOKENS:
            check.problem("tokens", f"{len(known)} tokens", f"at most {MOST_TOKENS}", "each request is compared with all of them")
        if len({digest for digest, _ in known}) < len(known):
            check.problem("tokens", "the same token twice", "each token once", "who holds it would be two people")
        check.type("basic", basic, bool, "True or False")
        check.finish()
        self._known = tuple(known)
        self._basic = basic

    @property
    def basic(self) -> bool:
        """Whether a token may come as a password."""
        return self._basic

    def __repr__(self) -> str:
        """How many tokens, and whose."""
        names = sorted({name for _, name in self._known})
        return f"<BearerToken: {len(self._known)} of {', '.join(names)}>"

    def __reduce__(self) -> Any:
        """Refuse to be written down."""
        raise TypeError("a BearerToken is not copied or pickled: its digests stay in the process")

    def __call__(self, scope: MutableMapping[str, Any]) -> str | None:
        """The principal whose token the request carries."""
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            # Two of them are two opinions about who this is.
            return None
        scheme, _, token = given[0].partition(b" ")
        scheme = scheme.lower()
        if scheme == b"basic" and self._basic:
            scheme, token = b"bearer", _password(token)
        digest = _digest(token.strip(b" ") if scheme == b"bearer" and len(token) <= LONGEST_TOKEN else b"")
        found = None
        for known, name in self._known:
            # All of them, whichever it is.
            if hmac.compare_digest(known, digest):
                found = name
        return found


def _password(credentials: bytes) -> bytes:
    """What follows the first colon; nothing where that cannot be read."""
    try:
        return base64.b64decode(credentials.strip(b" "), validate=True).partition(b":")[2] if len(credentials) <= 2 * LONGEST_TOKEN else b""
    except ValueError:
        return b""


def _digest(token: bytes) -> bytes:
    # Tokens are long and made by chance: nothing is gained by a slow hash, and much is lost at each request.
    return hashlib.sha256(token).digest()


def _weakness(token: object) -> tuple[str, str, str] | None:
    """What was given, what is allowed and a hint, without the token; None: it will do."""
    allowed = f"{SHORTEST_TOKEN} to {LONGEST_TOKEN} characters of A-Z a-z 0-9 - . _ ~ + /"
    hint = "secrets.token_urlsafe(32) makes one"
    if not isinstance(token, str):
        return f"a {type(token).__name__}", allowed, hint
    if not SHORTEST_TOKEN <= len(token) <= LONGEST_TOKEN:
        return f"a token of {len(token)} characters", allowed, hint
    if not _TOKEN.fullmatch(token):
        return "a token with other characters", allowed, hint
    if len(set(token)) < _FEWEST_CHARACTERS:
        return f"a token of {len(set(token))} different characters", f"at least {_FEWEST_CHARACTERS} different ones", hint
    return None


class FailureLimit:
    """How often each address may fail to authenticate: :data:`BURST` times, then :data:`REFILL` times a second.

    An address that has used that up is not asked who it is. Credentials that were good before are excepted, so that nobody keeps an
    operator behind the same proxy from the kill switch by failing in his name. Memory is bounded: while more than
    :data:`MOST_ADDRESSES` are failing, those that come later share one allowance.
    """

    def __init__(self, clock: Clock) -> None:
        """Nobody has failed."""
        self._clock = clock
        self._lock = threading.RLock()
        self._allowances: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """For each address what was left of its allowance, and when."""
        self._proven: OrderedDict[bytes, None] = OrderedDict()

    def blocks(self, scope: Mapping[str, Any]) -> bool:
        """Whether this request is refused unseen."""
        with self._lock:
            if self._left(_address(scope)) >= 1.0:
                return False
            credentials = _credentials(scope)
            return credentials is None or credentials not in self._proven

    def failed(self, scope: Mapping[str, Any]) -> None:
        """Somebody has failed."""
        address = _address(scope)
        with self._lock:
            if address not in self._allowances and len(self._allowances) >= MOST_ADDRESSES:
                self._forget()
            if address not in self._allowances and len(self._allowances) >= MOST_ADDRESSES:
                address = ""
            self._allowances[address] = max(0.0, self._left(address) - 1.0), self._clock.monotonic()
            self._allowances.move_to_end(address)

    def succeeded(self, scope: Mapping[str, Any]) -> None:
        """Remember these credentials as good: the last 64 of them, as digests."""
        credentials = _credentials(scope)
        if credentials is not None:
            with self._lock:
                self._proven[credentials] = None
                self._proven.move_to_end(credentials)
                while len(self._proven) > _MOST_PROVEN:
                    self._proven.popitem(last=False)

    def revoke(self, scope: Mapping[str, Any]) -> None:
        """They are good no more."""
        credentials = _credentials(scope)
        if credentials is not None:
            with self._lock:
                self._proven.pop(credentials, None)

    def _left(self, address: str) -> float:
        if address not in self._allowances:
            # Whoever is not known shares with the other unknown ones, once there are too many to know.
            address = "" if len(self._allowances) >= MOST_ADDRESSES else address
        left, at = self._allowances.get(address, (float(BURST), -math.inf))
        return min(float(BURST), left + (self._clock.monotonic() - at) * REFILL) if left < BURST else left

    def _forget(self) -> None:
        """Forget those whose allowance is whole again; the longest quiet ones come first."""
        for address in list(self._allowances):
            if self._left(address) < BURST:
                break
            del self._allowances[address]


def _address(scope: Mapping[str, Any]) -> str:
    client = scope.get("client")
    host = str(client[0]) if client else "-"
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host[:64]
    return f"{int(address) >> (128 - _NETWORK):x}" if isinstance(address, IPv6Address) and address.ipv4_mapped is None else str(address)


def _credentials(scope: Mapping[str, Any]) -> bytes | None:
    """A digest of what the request says about who it is; None: nothing, or two things."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given:
        # Sessions; HTTP/2 takes them apart.
        given = [b"; ".join(cookies)] if (cookies := [value for name, value in scope["headers"] if name == b"cookie"]) else []
    return hashlib.sha256(given[0]).digest() if len(given) == 1 else None
