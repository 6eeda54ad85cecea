"""Request plans arrive from anybody: a text is a plan that a key holder signed, or is refused for a reason, and nothing else happens."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from hashlib import sha256

from hypothesis import example, given, settings
from hypothesis import strategies as st

from somaresil.chaos.baggage import KEY, BaggageRefused, find, replace
from somaresil.chaos.token import LARGEST, LOWERS, REASONS, ChaosKeys, Lower, PlanRefused, RequestPlan, sign, verify

usual = settings(max_examples=300)

SECRET = bytes(range(32))
KEYS = ChaosKeys({"k1": SECRET})
NOW = 1_700_000_000

NAMES = st.from_regex(r"[A-Za-z0-9_.:/-]{1,20}", fullmatch=True)
LOWERED = st.builds(
    Lower,
    st.none() | st.floats(0, 1),
    st.none() | st.floats(0, 86_400) | st.integers(0, 86_400),
    st.none() | st.floats(0, 86_400) | st.integers(0, 86_400),
)
PLANS = st.builds(
    RequestPlan,
    audience=st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True),
    rules=st.dictionaries(NAMES, LOWERED, min_size=1, max_size=3),
    not_before=st.just(NOW),
    expires=st.integers(NOW + 1, NOW + 86_400),
    nonce=st.from_regex(r"[A-Za-z0-9_-]{8,32}", fullmatch=True),
    uses=st.none() | st.integers(1, 1_000_000),
)
FIELDS = ["aud", "exp", "jti", "nbf", "rules", "uses", *LOWERS]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["aud", "exp", "jti", "nbf", "rules", "uses", *LOWERS]), inner)
    ),
    max_leaves=12,
)


def outcome(token, audience="staging"):
    """The plan, or the reason why there is none."""
    try:
        return verify(token, KEYS, audience=audience, now=NOW, longest=86_400.0)
    except PlanRefused as refused:
        return refused.reason


def signed_by_hand(body):
    text = urlsafe_b64encode(body).rstrip(b"=").decode()
    mac = hmac.new(SECRET, b"somaresil.chaos request plan v1\0k1." + text.encode(), sha256).digest()
    return f"k1.{text}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@usual
@given(PLANS)
def test_what_is_signed_is_read_back(plan):
    """Field by field, and signed again it is the same text."""
    token = sign(plan, KEYS)
    found = outcome(token, plan.audience)
    assert found.body() == plan.body()
    assert sign(found, KEYS) == token


@usual
@given(st.text(max_size=200) | st.from_regex(r"[a-z0-9]{1,3}\.[A-Za-z0-9_=-]{0,40}\.[A-Za-z0-9_=-]{0,50}"))
@example("k1." + "[" * 1_000 + ".x")
def test_any_text_is_refused_for_a_reason(text):
    """Nobody signs by chance."""
    assert outcome(text) in REASONS


@usual
@given(st.binary(max_size=300) | JSON.map(lambda said: json.dumps(said, sort_keys=True, separators=(",", ":")).encode()))
@example(b"[" * 700)
@example(b'{"aud":"staging","exp":1e400,"jti":"aaaaaaaa","nbf":0,"rules":{"a":{}}}')
def test_whatever_a_key_holder_signs_is_a_plan_or_refused(body):
    """Behind a good MAC there may still stand anything; what is taken has one spelling."""
    token = signed_by_hand(body)
    found = outcome(token)
    assert found in REASONS or sign(found, KEYS) == token


@usual
@given(PLANS, st.data())
def test_no_changed_token_is_taken(plan, data):
    """Characters replaced, left out or put in, wherever."""
    token = sign(plan, KEYS)
    at = data.draw(st.integers(0, len(token)))
    cut = data.draw(st.integers(0, 3))
    put = data.draw(st.text(max_size=3))
    changed = token[:at] + put + token[at + cut :]
    if changed != token:
        assert outcome(changed, plan.audience) in REASONS
    assert len(token) <= LARGEST


MEMBERS = st.text(st.characters(codec="latin-1", exclude_characters=","), max_size=30) | st.sampled_from(
    [KEY, f"{KEY}=", f" {KEY} = x ;p", f"{KEY}=a", KEY.replace(".", "%2E") + "=a", f"{KEY}=%zz", f"{KEY}=%41", "a=1"]
)


@usual
@given(st.lists(MEMBERS, max_size=6), st.booleans())
def test_any_baggage_is_read_or_refused_and_never_leaves_with_ours(members, raw):
    """What others put there stays, in its order; what is ours is gone, and taking it out again changes nothing."""
    header = ",".join(members)
    try:
        found = find([header.encode("latin-1") if raw else header])
    except BaggageRefused as refused:
        found = refused.reason
    assert found is None or found
    rest = replace(header, None)
    if rest is not None:
        assert find([rest]) is None
        assert replace(rest, None) is rest
        assert [member.strip(" \t") for member in rest.split(",") if member.strip(" \t")] == [
            member.strip(" \t") for member in members if replace(member, None) is not None and member.strip(" \t")
        ]
    put = replace(header, "k1.a.b")
    assert find([put]) == "k1.a.b"
