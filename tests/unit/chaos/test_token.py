"""Request plans as text: what was signed is read back, everything else is refused for a reason, and no secret is ever shown."""

from __future__ import annotations

import copy
import hmac
import json
import pickle
import threading
from base64 import urlsafe_b64encode
from hashlib import sha256

import pytest

from somaresil import ConfigurationError
from somaresil.chaos.token import (
    KEYS_VARIABLE,
    LARGEST,
    MOST_RULES,
    ChaosKeys,
    Lower,
    Nonces,
    PlanRefused,
    RequestPlan,
    new_nonce,
    sign,
    verify,
)

SECRET = bytes(range(32))
OTHER = bytes(range(100, 140))
KEYS = ChaosKeys({"k1": SECRET})
NOW = 1_700_000_000.0
NONCE = "abcdefgh12345678"


def plan(**changes):
    """A plan for staging, good for a minute."""
    given = {
        "audience": "staging",
        "rules": {"slow-llm": Lower(rate=0.5)},
        "not_before": int(NOW),
        "expires": int(NOW) + 60,
        "nonce": NONCE,
        **changes,
    }
    return RequestPlan(**given)


def refused(token, keys=KEYS, *, audience="staging", now=NOW, **limits):
    """Why a token is refused."""
    with pytest.raises(PlanRefused) as caught:
        verify(token, keys, audience=audience, now=now, **limits)
    assert token not in str(caught.value) or not token
    return caught.value.reason


def signed_by_hand(body, kid="k1", secret=SECRET, domain=b"somaresil.chaos request plan v1\0"):
    """A token with a body of any form."""
    text = body if isinstance(body, str) else written(body)
    mac = hmac.new(secret, domain + f"{kid}.{text}".encode(), sha256).digest()
    return f"{kid}.{text}.{coded(mac)}"


def coded(raw):
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def written(said):
    return coded(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


SAID = {"aud": "staging", "exp": int(NOW) + 60, "jti": NONCE, "nbf": int(NOW), "rules": {"slow-llm": {"rate": 0.5}}}


def test_what_was_signed_is_read_back():
    """With the key that signed it, in at most 200 characters that a header may have."""
    token = sign(plan(uses=3), KEYS)
    assert verify(token, KEYS, audience="staging", now=NOW) == plan(uses=3, kid="k1")
    assert len(token) < 220
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_the_form_is_what_the_page_says():
    """Others can sign too, with nothing but HMAC, JSON and base64."""
    assert sign(plan(), KEYS) == signed_by_hand(SAID)


@pytest.mark.parametrize("position", range(0, 200, 7))
def test_one_changed_character_is_a_forgery(position):
    """Wherever it stands, the plan is refused."""
    token = sign(plan(), KEYS)
    position %= len(token)
    changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
    assert refused(changed) in {"forged", "malformed", "unknown_key"}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "malformed"),
        ("k1.x", "malformed"),
        ("k1.a.b.c", "malformed"),
        ("k1..mac", "malformed"),
        (".a.b", "malformed"),
        ("k 1.a.b", "malformed"),
        ("ключ.a.b", "malformed"),
        ("k1.\N{KELVIN SIGN}.b", "malformed"),
        ("k2.a.b", "unknown_key"),
        ("k1.a.b", "forged"),
        ("k1.a.", "forged"),
        ("k" * (LARGEST + 1), "oversized"),
    ],
)
def test_what_is_no_token_is_refused(token, reason):
    """For a reason that says what to look at."""
    assert refused(token) == reason


def test_every_spelling_of_a_mac_but_one_is_a_forgery():
    """Base64 has bits to spare: 32 bytes leave two of them in the last letter, and padding might be there."""
    token = sign(plan(), KEYS)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = letters.index(token[-1])
    assert last % 4 == 0
    for spare in (1, 2, 3):
        assert refused(token[:-1] + letters[last + spare]) == "forged"
    assert refused(token + "=") == "forged"
    assert refused(token + "\n") == "forged"


@pytest.mark.parametrize(
    "said",
    [
        [],
        7,
        "text",
        None,
        {},
        {**SAID, "more": 1},
        {**SAID, "aud": 7},
        {**SAID, "exp": float(SAID["exp"])},
        {**SAID, "exp": str(SAID["exp"])},
        {**SAID, "exp": True},
        {**SAID, "exp": SAID["nbf"]},
        {**SAID, "exp": SAID["nbf"] + 86_401},
        {**SAID, "exp": 10**400},
        {**SAID, "nbf": -1},
        {**SAID, "jti": "short"},
        {**SAID, "jti": NONCE + "\n"},
        {**SAID, "uses": 0},
        {**SAID, "uses": None},
        {**SAID, "rules": {}},
        {**SAID, "rules": ["slow-llm"]},
        {**SAID, "rules": {"slow-llm": {"rate": 1.5}}},
        {**SAID, "rules": {"slow-llm": {"rate": -0.1}}},
        {**SAID, "rules": {"slow-llm": {"rate": float("nan")}}},
        {**SAID, "rules": {"slow-llm": {"delay": float("inf")}}},
        {**SAID, "rules": {"slow-llm": {"rate": 1.0}}},
        {**SAID, "rules": {"slow-llm": {"error": "OSError"}}},
        {**SAID, "rules": {"slow-llm": {"rate": None}}},
        {**SAID, "rules": {"slow llm": {}}},
        {**SAID, "rules": {f"r{n}": {} for n in range(MOST_RULES + 1)}},
    ],
)
def test_a_signature_does_not_make_a_plan(said):
    """What a key holder has signed by mistake is refused like anything else."""
    assert refused(signed_by_hand(said)) == "malformed"


@pytest.mark.parametrize(
    "body",
    [
        written(SAID) + "=",
        written(SAID)[:-1],
        coded(json.dumps(SAID).encode()),
        coded(json.dumps(dict(reversed(SAID.items())), separators=(",", ":")).encode()),
        coded(json.dumps(SAID, sort_keys=True, separators=(",", ":")).replace('"aud"', '"\\u0061ud"').encode()),
        coded(json.dumps(SAID, sort_keys=True, separators=(",", ":")).replace("{", '{"aud":"staging",', 1).encode()),
        coded(b"\xff\xfe"),
        coded(b"[" * 700),
        "!!!!",
    ],
)
def test_a_body_has_one_spelling(body):
    """Spaces, another order, escapes, a field twice, padding, other letters: what is not written as we write it is refused."""
    assert refused(signed_by_hand(body)) == "malformed"


def test_a_mac_for_anything_else_is_none_here():
    """The same secret may sign other things, in whatever form."""
    assert refused(signed_by_hand(SAID, domain=b"")) == "forged"
    assert refused(signed_by_hand(SAID, domain=b"somaresil.chaos request plan v2\0")) == "forged"


def test_a_name_of_a_key_is_signed_too():
    """The same secret under two names makes two different MACs."""
    keys = ChaosKeys({"a": SECRET, "b": SECRET})
    token = sign(plan(), keys)
    assert refused("b" + token[1:], keys) == "forged"


def test_it_is_for_one_audience():
    """Staging's plan is none in production."""
    assert refused(sign(plan(), KEYS), audience="production") == "wrong_audience"


def test_it_has_a_beginning_and_an_end():
    """Expired at its last second, not yet valid beyond the leeway, and never good for longer than a receiver allows."""
    token = sign(plan(), KEYS)
    assert verify(token, KEYS, audience="staging", now=NOW + 59.9)
    assert refused(token, now=NOW + 60.0) == "expired"
    assert verify(token, KEYS, audience="staging", now=NOW - 5.0)
    assert refused(token, now=NOW - 5.1) == "not_yet_valid"
    assert refused(token, now=NOW, longest=30.0) == "too_long"
    assert verify(token, KEYS, audience="staging", now=NOW, longest=55.0)


def test_keys_rotate_in_three_steps():
    """Add, sign with the new one, take the old one away: at each step what the step before has signed is good."""
    new = ChaosKeys({"k1": SECRET, "k2": OTHER}, signer="k2")
    only = ChaosKeys({"k2": OTHER})
    assert verify(sign(plan(), KEYS), new, audience="staging", now=NOW).kid == "k1"
    token = sign(plan(), new)
    assert token.startswith("k2.")
    assert verify(token, ChaosKeys({"k1": SECRET, "k2": OTHER}), audience="staging", now=NOW).kid == "k2"
    assert refused(sign(plan(), KEYS), only) == "unknown_key"


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({}, "ChaosKeys.keys"),
        (None, "ChaosKeys.keys"),
        ({"k1": b"tooshort-tooshort-tooshort-too!"}, "ChaosKeys.keys.k1"),
        ({"k1": b"\0" * 64}, "ChaosKeys.keys.k1"),
        ({"k1": "text-that-is-longer-than-thirty-two-characters"}, "ChaosKeys.keys.k1"),
        ({"k.1": SECRET}, "ChaosKeys.keys"),
        ({7: SECRET}, "ChaosKeys.keys"),
        ({f"k{n}": SECRET for n in range(17)}, "ChaosKeys.keys"),
    ],
)
def test_bad_keys_are_refused_without_being_shown(keys, path):
    """The error says which one and why, and nothing of it."""
    with pytest.raises(ConfigurationError) as caught:
        ChaosKeys(keys)
    assert [problem.path for problem in caught.value.problems] == [path]
    assert "tooshort" not in str(caught.value)
    assert "text-that" not in str(caught.value)


def test_the_signer_is_one_of_the_keys():
    """A misspelt one is refused."""
    with pytest.raises(ConfigurationError, match="signer = 'k2'"):
        ChaosKeys({"k1": SECRET}, signer="k2")


def test_keys_come_from_the_environment(monkeypatch):
    """Several with commas between them, padded or not; the first signs unless another one is named."""
    monkeypatch.setenv(KEYS_VARIABLE, f"k2:{urlsafe_b64encode(OTHER).decode()}, k1:{coded(SECRET)}")
    keys = ChaosKeys.from_environment()
    assert (keys.names, keys.signer) == (("k2", "k1"), "k2")
    assert verify(sign(plan(), KEYS), keys, audience="staging", now=NOW)
    assert ChaosKeys.from_environment(signer="k1").signer == "k1"


@pytest.mark.parametrize(
    "text", ["", "  ", "k1", "k1:", "k1:n0t base64!", f"k 1:{coded(SECRET)}", f"k1:{coded(SECRET)},k1:{coded(OTHER)}", ","]
)
def test_a_bad_variable_is_refused_without_being_shown(monkeypatch, text):
    """Nothing of it stands in the error but its length."""
    monkeypatch.setenv(KEYS_VARIABLE, text)
    with pytest.raises(ConfigurationError) as caught:
        ChaosKeys.from_environment()
    assert coded(SECRET) not in str(caught.value)
    assert "n0t" not in str(caught.value)


def test_secrets_are_not_shown_nor_carried_away():
    """Neither by repr, nor by the attributes, nor by copying and pickling."""
    keys = ChaosKeys({"k1": SECRET, "k2": OTHER})
    assert repr(keys) == "<ChaosKeys k1, k2; k1 signs>"
    shown = repr([getattr(keys, name) for name in keys.__slots__])
    assert repr(SECRET)[2:-1] not in shown
    assert SECRET.hex() not in shown
    for take in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="secrets"):
            take(keys)


def test_a_plan_that_is_too_large_is_not_signed():
    """Who signs it hears of it, and not nobody."""
    rules = {"x" * 60 + f"{n:04}": Lower(0.123456789, 0.123456789, 0.123456789) for n in range(MOST_RULES)}
    with pytest.raises(ConfigurationError, match="name fewer rules"):
        sign(plan(rules=rules), KEYS)


def test_children_differ_and_keep_the_root():
    """A use of its own for each further request, as short as that of a grandchild, and alike when it is made of the same."""
    parent = plan(uses=1)
    child = parent.child("instance", 1, 1)
    assert (child.uses, child.nonce.partition(".")[0]) == (1, NONCE)
    assert child == parent.child("instance", 1, 1)
    assert child != parent.child("instance", 1, 2)
    grandchild = child.child("instance", 1, 1)
    assert len(grandchild.nonce) == len(child.nonce)
    assert grandchild.nonce != child.nonce
    assert verify(sign(grandchild, KEYS), KEYS, audience="staging", now=NOW) == RequestPlan(
        "staging", parent.rules, parent.not_before, parent.expires, grandchild.nonce, 1, "k1"
    )


def test_new_nonces_are_new():
    """And have a form that a plan takes."""
    found = {new_nonce() for _ in range(100)}
    assert len(found) == 100
    assert all(plan(nonce=nonce) for nonce in found)


def test_uses_are_numbered_and_bounded():
    """Up to what a plan says; None: any number."""
    nonces = Nonces(10)
    assert [nonces.use("a", 2, 0.0, 60.0) for _ in range(2)] == [1, 2]
    with pytest.raises(PlanRefused, match="replayed"):
        nonces.use("a", 2, 1.0, 60.0)
    assert [nonces.use("b", None, 0.0, 60.0) for _ in range(3)] == [1, 2, 3]


def test_memory_of_nonces_is_bounded_and_refuses_rather_than_forgets():
    """Full of plans that last, no other is taken; when they are over there is room."""
    nonces = Nonces(3)
    for name in "abc":
        nonces.use(name, 1, 0.0, 60.0)
    with pytest.raises(PlanRefused, match="crowded"):
        nonces.use("d", 1, 1.0, 60.0)
    assert nonces.use("d", 1, 60.0, 120.0) == 1
    assert len(nonces) == 1
    with pytest.raises(PlanRefused, match="replayed"):
        nonces.use("d", 1, 61.0, 120.0)


def test_threads_get_each_use_once():
    """A single-use plan is taken by one of many that present it at once."""
    nonces = Nonces(10)
    taken, barrier = [], threading.Barrier(8)

    def present():
        barrier.wait(10.0)
        for number in range(200):
            try:
                nonces.use(f"n{number % 10}", 5, 0.0, 60.0)
            except PlanRefused:
                continue
            taken.append(number % 10)

    threads = [threading.Thread(target=present) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert {number: taken.count(number) for number in range(10)} == dict.fromkeys(range(10), 5)
