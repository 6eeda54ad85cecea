"""Request plans as signed text: what a request may ask to be done to itself. Pure: no clock, no chance, no state but a bounded memory.

A token is ``kid.body.mac``, about 200 characters, all of which a baggage value may have as they are::

    kid    name of the key, 1 to 32 of A-Z a-z 0-9 _ -
    body   base64url without padding of JSON with sorted keys and no spaces:
           {"aud":"staging","exp":1700000060,"jti":"Zk3…","nbf":1700000000,"rules":{"slow-llm":{"rate":0.5}},"uses":1}
    mac    base64url without padding of HMAC-SHA256(key, "somaresil.chaos request plan v1" NUL kid "." body)

The field names are those of JSON Web Tokens (RFC 7519, section 4.1), the form is not: there is one algorithm, and nothing in a token
chooses it. The key is bound to this use by the words in front (domain separation), so a MAC made with the same secret for anything else is
none here. A text has exactly one form that is accepted: the MAC is compared as text, in constant time, and the body must be what would be
written for what it says. The MAC comes before anything is decoded.

What a plan says is little: names of rules that the receiving code has approved, and numbers that can only lower what they do.
"""

from __future__ import annotations

import binascii
import hmac
import json
import math
import os
import re
import threading
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from typing import TYPE_CHECKING, Any, Final, NoReturn

from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError, Problem

if TYPE_CHECKING:
    from hmac import HMAC

__all__ = [
    "KEYS_VARIABLE",
    "LARGEST",
    "LONGEST",
    "LOWERS",
    "MOST_RULES",
    "REASONS",
    "ChaosKeys",
    "Lower",
    "Nonces",
    "PlanRefused",
    "RequestPlan",
    "is_rule_name",
    "new_nonce",
    "read_lower",
    "sign",
    "verify",
]

LARGEST: Final = 1_024
"""Characters in a token."""
LONGEST: Final = 86_400
"""Seconds from the beginning of a plan to its end, at most; a receiver usually takes less."""
MOST_RULES: Final = 8
"""Rules that one plan may name."""
SHORTEST_SECRET: Final = 32
"""Bytes of a secret: as many as the hash gives (RFC 2104, section 3)."""
KEYS_VARIABLE: Final = "SOMARESIL_CHAOS_KEYS"
"""The environment variable with the keys: ``kid:secret`` in base64url, several with commas between them, the one that signs first."""

LOWERS: Final = ("rate", "delay", "duration")
"""What a plan may lower."""

REASONS: Final = ("oversized", "malformed", "unknown_key", "forged", "wrong_audience", "expired", "not_yet_valid", "too_long")
"""Why :func:`verify` refuses a token."""

_DOMAIN: Final = b"somaresil.chaos request plan v1\0"
_MOST_KEYS: Final = 16
_FEWEST_VALUES: Final = 8
"""Different bytes that a secret has at least: one that was typed as a row of zeros is none."""
_MOST_USES: Final = 1_000_000
_LATEST: Final = 2**40
"""Seconds since the epoch; what comes after that is no time."""

_KID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{8,32}(\.[A-Za-z0-9_-]{12})?")
_RULE: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_AUDIENCE: Final = re.compile(r"[A-Za-z0-9_.:/{}-]{1,120}")


class PlanRefused(ValueError):
    """A token that is not taken; ``reason`` is one of :data:`REASONS`. It says nothing of what stood in the token."""

    def __init__(self, reason: str) -> None:
        """Keep the reason."""
        super().__init__(reason)
        self.reason = reason


class ChaosKeys:
    """The secrets that plans are signed with, by the name of the key. They are never shown: not in ``repr``, errors, copies or pickles.

    ``signer`` names the key that signs; None: the first. The others are only believed, so a key is changed in three steps that may take
    as long as they like: add the new one everywhere, make it the signer everywhere, take the old one away everywhere.

    A secret is at least 32 bytes that nobody could guess, ``os.urandom(32)`` for example. Raises
    :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    __slots__ = ("_primed", "signer")

    def __init__(self, keys: Mapping[str, bytes], *, signer: str | None = None) -> None:
        """Take the secrets over; they are not kept as they are."""
        check = Checker("ChaosKeys")
        self._primed: dict[str, HMAC] = {}
        if not isinstance(keys, Mapping) or not 0 < len(keys) <= _MOST_KEYS:
            check.problem("keys", type(keys).__name__, f"1 to {_MOST_KEYS} secrets by the names of their keys", "ChaosKeys({'k1': secret})")
            keys = {}
        for kid, secret in keys.items():
            if not isinstance(kid, str) or not _KID.fullmatch(kid):
                check.problem("keys", kid, "names of 1 to 32 characters from A-Z a-z 0-9 _ -")
            elif not isinstance(secret, bytes):
                check.problem(f"keys.{kid}", f"a secret of type {type(secret).__name__}", "bytes")
            elif len(secret) < SHORTEST_SECRET:
                check.problem(f"keys.{kid}", f"a secret of {len(secret)} bytes", f"at least {SHORTEST_SECRET} bytes", "os.urandom(32)")
            elif len(set(secret)) < _FEWEST_VALUES:
                check.problem(f"keys.{kid}", "a secret of a few different bytes", "one that nobody could guess", "os.urandom(32)")
            else:
                # The state of the hash after the key and the domain: quicker than the secret, and not the secret.
                self._primed[kid] = hmac.new(secret, _DOMAIN, sha256)
        if signer is not None and signer not in keys:
            check.problem("signer", signer, f"one of the keys ({', '.join(map(str, keys))})")
        check.finish()
        self.signer = next(iter(keys)) if signer is None else signer
        """The name of the key that signs."""

    @classmethod
    def from_environment(cls, variable: str = KEYS_VARIABLE, *, signer: str | None = None) -> ChaosKeys:
        """Read ``kid:secret,kid:secret`` from an environment variable, the secrets in base64url (with or without padding).

        Raises :class:`~somaresil.errors.ConfigurationError`, also when the variable is not set; it shows nothing of what stands there.
        """
        check = Checker(variable)
        given = os.environ.get(variable, "")
        keys: dict[str, bytes] = {}
        for number, entry in enumerate(given.split(",") if given.strip() else (), 1):
            kid, colon, text = entry.strip().partition(":")
            secret = _unpadded(text.rstrip("="))
            if not colon or not _KID.fullmatch(kid):
                check.problem(f"entry {number}", f"{len(entry)} characters", "a key name, a colon and a secret")
            elif secret is None:
                check.problem(f"entry {number}", f"{kid}: {len(text)} characters", "a secret in base64url")
            elif kid in keys:
                check.problem(f"entry {number}", kid, "each key once")
            else:
                keys[kid] = secret
        if not given.strip():
            check.problem("", None, "kid:secret, the secret in base64url", "it is not set")
        check.finish()
        return cls(keys, signer=signer)

    def __repr__(self) -> str:
        """The names alone."""
        return f"<ChaosKeys {', '.join(self._primed)}; {self.signer} signs>"

    def __reduce__(self) -> NoReturn:
        """Refuse: a pickle would carry the secrets away."""
        raise TypeError("ChaosKeys are not pickled or copied: they hold secrets")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the keys."""
        return tuple(self._primed)

    def mac(self, kid: str, body: str) -> str | None:
        """The MAC of a body as text; None: there is no such key."""
        primed = self._primed.get(kid)
        if primed is None:
            return None
        code = primed.copy()
        code.update(f"{kid}.{body}".encode("ascii"))
        return _text(code.digest())


@dataclass(frozen=True, slots=True)
class Lower:
    """How far a plan lowers a rule; None: not at all. What is above the rule's own value changes nothing.

    ``rate`` is a share of the calls, ``delay`` and ``duration`` are seconds. Raises :class:`~somaresil.errors.ConfigurationError`.
    """

    rate: float | None = None
    delay: float | None = None
    duration: float | None = None

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("Lower")
        if self.rate is not None:
            object.__setattr__(self, "rate", check.ratio("rate", self.rate))
        for name in ("delay", "duration"):
            seconds = getattr(self, name)
            object.__setattr__(self, name, check.seconds(name, seconds, optional=True, exclusive=False, maximum=float(LONGEST)))
        check.finish()

    def as_dict(self) -> dict[str, float]:
        """For JSON: what is lowered."""
        return {name: _plain(value) for name in LOWERS if (value := getattr(self, name)) is not None}


def read_lower(check: Checker, given: Any) -> Lower:
    """How far a rule is lowered, from what somebody wrote."""
    if isinstance(given, Lower):
        return given
    if not isinstance(given, Mapping):
        check.problem("", given, "how far it is lowered: rate, delay, duration")
        return Lower()
    for name in given:
        if name not in LOWERS:
            check.problem(str(name), given[name], f"one of {', '.join(LOWERS)}", did_you_mean(name, LOWERS))
    try:
        return Lower(**{name: given[name] for name in LOWERS if name in given})
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            check.problem(problem.path.removeprefix("Lower."), problem.value, problem.allowed, problem.hint)
        return Lower()


def is_rule_name(name: object) -> bool:
    """Whether a rule may be called so."""
    return isinstance(name, str) and _RULE.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class RequestPlan:
    """What a request may ask for: approved rules by name, for whom, from when until when, and how often.

    ``not_before`` and ``expires`` are whole seconds since the epoch. ``nonce`` makes it one of its kind: decisions are drawn by it, and
    uses counted. ``uses``: a service takes it for so many requests on each host; None: any number. Raises
    :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    audience: str
    rules: Mapping[str, Lower]
    not_before: int
    expires: int
    nonce: str
    uses: int | None = None
    kid: str = ""
    """The key that it was signed with, when it was."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("plan")
        _check_text(check, "audience", self.audience, _AUDIENCE, "a name of 1 to 120 characters from A-Z a-z 0-9 _ . : / { } -")
        _check_text(check, "nonce", self.nonce, _NONCE, "8 to 32 characters from A-Z a-z 0-9 _ -")
        named = isinstance(self.rules, Mapping) and 0 < len(self.rules) <= MOST_RULES
        if not named or not all(isinstance(lower, Lower) for lower in self.rules.values()):
            check.problem("rules", self.rules, f"1 to {MOST_RULES} names of rules, each with how far it is lowered")
        for name in self.rules if named else ():
            _check_text(check, "rules", name, _RULE, "names of 1 to 64 characters from A-Z a-z 0-9 _ . : / -")
        check.count("not_before", self.not_before, minimum=0, maximum=_LATEST)
        check.count("expires", self.expires, minimum=0, maximum=_LATEST)
        check.count("uses", self.uses, optional=True, maximum=_MOST_USES)
        check.finish()
        if not 0 < self.expires - self.not_before <= LONGEST:
            check.problem("expires", self.expires, f"1 to {LONGEST} seconds after not_before, {self.not_before}")
            check.finish()

    def child(self, *parts: object) -> RequestPlan:
        """The same for one further request that is made for this one: a single use of its own, from its first nonce and ``parts``.

        A service that is asked several times for one request (fan-out, retries) would otherwise take the second for a replay.
        """
        name = "|".join(map(str, (self.nonce, *parts))).encode("utf-8", "surrogatepass")
        own = _text(blake2b(name, digest_size=9, person=b"somaresil.plan").digest())
        return replace(self, nonce=f"{self.nonce.partition('.')[0]}.{own}", uses=1)

    def body(self) -> dict[str, Any]:
        """What is signed."""
        said: dict[str, Any] = {
            "aud": self.audience,
            "exp": self.expires,
            "jti": self.nonce,
            "nbf": self.not_before,
            "rules": {name: lower.as_dict() for name, lower in self.rules.items()},
        }
        return said if self.uses is None else {**said, "uses": self.uses}


def sign(plan: RequestPlan, keys: ChaosKeys) -> str:
    """The plan as a token, with the key that signs. Raises :class:`~somaresil.errors.ConfigurationError` when it is too large for one."""
    body = _text(_written(plan.body()))
    token = f"{keys.signer}.{body}.{keys.mac(keys.signer, body)}"
    if len(token) > LARGEST:
        hint = "name fewer rules"
        raise ConfigurationError([Problem("plan", f"{len(token)} characters", f"at most {LARGEST} characters when it is signed", hint)])
    return token


def verify(token: str, keys: ChaosKeys, *, audience: str, now: float, longest: float = 300.0, leeway: float = 5.0) -> RequestPlan:
    """The plan that a token says. Raises :class:`PlanRefused`, and nothing else, whatever the text is.

    ``now`` is the time of day in seconds since the epoch. A plan that ends more than ``longest`` seconds from now is not taken, however
    it was signed; its beginning may lie ``leeway`` seconds ahead, for the clocks of two machines never agree.
    """
    if len(token) > LARGEST:
        raise PlanRefused("oversized")
    parts = token.split(".") if token.isascii() else ()
    if len(parts) != 3:  # noqa: PLR2004 - kid, body, mac
        raise PlanRefused("malformed")
    kid, body, mac = parts
    if not _KID.fullmatch(kid) or not body:
        raise PlanRefused("malformed")
    expected = keys.mac(kid, body)
    if expected is None:
        raise PlanRefused("unknown_key")
    # As text: base64 has several spellings of the same bytes, of which this takes one.
    if not hmac.compare_digest(expected.encode("ascii"), mac.encode("ascii")):
        raise PlanRefused("forged")
    plan = _read(body, kid)
    if plan.audience != audience:
        raise PlanRefused("wrong_audience")
    if now >= plan.expires:
        raise PlanRefused("expired")
    if plan.not_before > now + leeway:
        raise PlanRefused("not_yet_valid")
    if plan.expires > now + longest + leeway:
        raise PlanRefused("too_long")
    return plan


def new_nonce() -> str:
    """One that nobody has had: 96 bits of the operating system's chance."""
    return _text(os.urandom(12))


class Nonces:
    """How often each plan was used in this process. Bounded: while it is full of plans that have not expired, no other is taken.

    A plan is remembered by the monotonic clock and for as long as any plan may last, so that a wall clock that is set back does not
    bring an old one to life again. Safe to use from several threads.
    """

    __slots__ = ("_lock", "_seen", "_swept", "most")

    def __init__(self, most: int) -> None:
        """Remember ``most`` plans."""
        self.most = most
        self._lock = threading.RLock()
        self._seen: dict[str, list[float]] = {}
        self._swept = -math.inf

    def __len__(self) -> int:
        """How many plans are remembered."""
        return len(self._seen)

    def use(self, nonce: str, most: int | None, now: float, until: float) -> int:
        """Count one use at ``now`` and give its number, from 1; remember it ``until`` then, both on the monotonic clock.

        Raises :class:`PlanRefused` (``replayed``) after ``most`` uses, and (``crowded``) when there is no room.
        """
        with self._lock:
            entry = self._seen.get(nonce)
            if entry is None or entry[1] <= now:
                if len(self._seen) >= self.most:
                    self._sweep(now)
                if len(self._seen) >= self.most:
                    raise PlanRefused("crowded")
                entry = self._seen[nonce] = [0, until]
            if most is not None and entry[0] >= most:
                raise PlanRefused("replayed")
            entry[0] += 1
            entry[1] = max(entry[1], until)
            return int(entry[0])

    def _sweep(self, now: float) -> None:
        # Not for every plan that finds no room: looking through all of them takes a while.
        if now - self._swept >= 1.0:
            self._swept = now
            self._seen = {nonce: entry for nonce, entry in self._seen.items() if entry[1] > now}


def _read(body: str, kid: str) -> RequestPlan:
    """The plan in a body whose MAC was right. Whoever signs may still be wrong, or have another version."""
    raw = _unpadded(body)
    if raw is None:
        raise PlanRefused("malformed")
    try:
        said = json.loads(raw)
        rules = {name: Lower(**lower) for name, lower in said["rules"].items()}
        plan = RequestPlan(said["aud"], rules, said["nbf"], said["exp"], said["jti"], said.get("uses"), kid)
        # What it says has one spelling, so nothing else can stand there: no further field, none twice, no 1.0 for 1.
        if _written(plan.body()) == raw:
            return plan
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        pass
    raise PlanRefused("malformed")


def _written(said: object) -> bytes:
    return json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _unpadded(text: str) -> bytes | None:
    """What was written in base64url without padding; None: nothing was, or not in its one spelling."""
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    # The decoder skips what is no letter of its alphabet and bits that are left over.
    return raw if _text(raw) == text else None


def _check_text(check: Checker, name: str, value: object, form: re.Pattern[str], allowed: str) -> None:
    if not isinstance(value, str) or not form.fullmatch(value):
        check.problem(name, value, allowed)


def _plain(number: float) -> float:
    """A whole number as one: shorter, and written alike by others."""
    return int(number) if float(number).is_integer() else number
