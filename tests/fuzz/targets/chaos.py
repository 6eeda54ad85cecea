"""What experiments are made of: plans, tokens, baggage, parts of the network, conditions, switches; and answers that they damage."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final

from somaresil import ChaosPlan, ConfigurationError
from somaresil.chaos import killswitch
from somaresil.chaos.baggage import LARGEST, MOST_PAIRS, BaggageRefused, find, replace
from somaresil.chaos.network.targets import NetTarget, address_of
from somaresil.chaos.token import REASONS, ChaosKeys, PlanRefused, sign, verify
from somaresil.chaos.transforms import CORRUPTIONS, DROP
from somaresil.chaos.triggers import aims_at
from somaresil.testing.protocol import halved_json
from tests.fuzz.harness import Unfit, expect, target, text_of, value_of

_SECRET: Final = bytes(range(32))
_KEYS: Final = ChaosKeys({"k1": _SECRET})
_NOW: Final = 1_700_000_000.0


def _verified(token: str) -> None:
    try:
        plan = verify(token, _KEYS, audience="staging", now=_NOW, longest=86_400.0)
    except PlanRefused as refused:
        expect(refused.reason in REASONS, "a reason that is counted")
        return
    expect(sign(plan, _KEYS) == token, "a plan has one spelling")


@target("chaos.token:verify", "chaos.token:_read", weight=8)
def token(data: bytes) -> None:
    """Any text as a token, also one with lone surrogates; and any bytes as a body behind a good MAC, for a key holder may be wrong too."""
    _verified(data.decode("utf-8", "surrogateescape"))
    text = urlsafe_b64encode(data).rstrip(b"=").decode()
    mac = hmac.new(_SECRET, b"somaresil.chaos request plan v1\0k1." + text.encode(), sha256).digest()
    _verified(f"k1.{text}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}")


@target("chaos.baggage:find", "chaos.baggage:replace", weight=8)
def baggage(data: bytes) -> None:
    """Any bytes as one header or, where a zero byte parts them, several."""
    try:
        found = find(data.split(b"\0"))
    except BaggageRefused as refused:
        expect(refused.reason in {"oversized", "duplicate", "malformed"}, "a reason that is counted")
    else:
        expect(found is None or found, "a value that says something")
    rest = replace(data.decode("latin-1"), None)
    expect(rest is None or find([rest]) is None, "nothing of ours leaves")
    put = replace(rest, "k1.a.b") or ""
    if len(put) <= LARGEST and put.count(",") < MOST_PAIRS:
        expect(find([put]) == "k1.a.b", "what is put there is found")


@target("chaos.plan:ChaosPlan.from_json", "chaos.plan:ChaosPlan.from_dict")
def plan(data: bytes) -> None:
    """Any text as a plan; what is taken is read back as it was."""
    with suppress(ConfigurationError, Unfit):
        ChaosPlan.from_dict(value_of(data))
    for text in (data, data.decode("utf-8", "replace")):
        try:
            found = ChaosPlan.from_json(text)
        except ConfigurationError as wrong:
            expect(wrong.problems and str(wrong), "a problem that is told")
            continue
        expect(ChaosPlan.from_json(found.to_json()) == found, "a plan that is read back")
        json.dumps(found.as_dict(), allow_nan=False)


@target("chaos.network.targets:NetTarget.parse", "chaos.network.targets:address_of", raises=(ValueError,), weight=8)
def network(data: bytes) -> None:
    """A part of the network; the same with and without its prefix."""
    text = text_of(data)[:1_000]
    address_of(text)
    found = NetTarget.parse(text)
    expect(NetTarget.parse(f"net:{found.text}") == found, "the same with its prefix")
    expect(0 <= found.low <= found.high <= 65_535, "ports")
    found.matches(address_of("192.0.2.1"), ("a.example",), 443)


@target("chaos.triggers:aims_at", weight=8)
def pattern(data: bytes) -> None:
    """A target with wildcards or braces against a path; a path without any of them is aimed at by itself."""
    pattern, _, path = text_of(data).partition("\n")
    aims_at(pattern[:200], path[:300])
    if not set(path) & set("*?[]{}"):
        expect(aims_at(path[:200], path[:200]), "a name fits itself")


@target("chaos.killswitch:_parse", raises=(OSError,), weight=8)
def switch(data: bytes) -> None:
    """The file of a kill switch, and half of one."""
    found = killswitch._parse(data, Path("switch"))
    expect(isinstance(found.engaged, bool), "a position")


@target("chaos.transforms:_in_text", "chaos.transforms:_in_event", "testing.protocol:halved_json")
def damaged(data: bytes) -> None:
    """Any answer of a service can be damaged, in each way, and an error that comes of it is none of ours."""
    for answer in (data, data.decode("utf-8", "replace")):
        for change in CORRUPTIONS.values():
            made = change(answer, 0.5)
            expect(made is DROP or isinstance(made, type(answer)) or not answer, "an answer of the same kind")
    halved_json(data)
