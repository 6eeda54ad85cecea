"""What is fuzzed: each parser of chaos that reads what strangers write. A target takes bytes; what it raises is a defect.

They are plain functions, so that they run without atheris too: over the seeds in ``corpus/``, as a test.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from somaresil import ChaosPlan, ConfigurationError
from somaresil.chaos.baggage import LARGEST, MOST_PAIRS, BaggageRefused, find, replace
from somaresil.chaos.token import REASONS, ChaosKeys, PlanRefused, sign, verify

if TYPE_CHECKING:
    from collections.abc import Callable

CORPUS: Final = Path(__file__).parent / "corpus"

_SECRET: Final = bytes(range(32))
_KEYS: Final = ChaosKeys({"k1": _SECRET})
_NOW: Final = 1_700_000_000.0


def _verified(token: str) -> None:
    try:
        plan = verify(token, _KEYS, audience="staging", now=_NOW, longest=86_400.0)
    except PlanRefused as refused:
        _expect(refused.reason in REASONS, "a reason that is counted")
        return
    _expect(sign(plan, _KEYS) == token, "a plan has one spelling")


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def token(data: bytes) -> None:
    """Any text as a token, also one with lone surrogates; and any bytes as a body behind a good MAC, for a key holder may be wrong too."""
    _verified(data.decode("utf-8", "surrogateescape"))
    text = urlsafe_b64encode(data).rstrip(b"=").decode()
    mac = hmac.new(_SECRET, b"somaresil.chaos request plan v1\0k1." + text.encode(), sha256).digest()
    _verified(f"k1.{text}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}")


def baggage(data: bytes) -> None:
    """Any bytes as one header or, where a zero byte parts them, several."""
    try:
        found = find(data.split(b"\0"))
    except BaggageRefused as refused:
        _expect(refused.reason in {"oversized", "duplicate", "malformed"}, "a reason that is counted")
    else:
        _expect(found is None or found, "a value that says something")
    rest = replace(data.decode("latin-1"), None)
    _expect(rest is None or find([rest]) is None, "nothing of ours leaves")
    put = replace(rest, "k1.a.b") or ""
    if len(put) <= LARGEST and put.count(",") < MOST_PAIRS:
        _expect(find([put]) == "k1.a.b", "what is put there is found")


def plan(data: bytes) -> None:
    """Any text as a plan; what is taken is read back as it was."""
    for text in (data, data.decode("utf-8", "replace")):
        try:
            found = ChaosPlan.from_json(text)
        except ConfigurationError as wrong:
            _expect(wrong.problems and str(wrong), "a problem that is told")
            continue
        _expect(ChaosPlan.from_json(found.to_json()) == found, "a plan that is read back")
        json.dumps(found.as_dict(), allow_nan=False)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"token": token, "baggage": baggage, "plan": plan}
