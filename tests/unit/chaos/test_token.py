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
    LONGEST,
    MOST_RULES,
    ChaosKeys,
    Lower,
    Nonces,
    PlanRefused,
    RequestPlan,
    is_rule_name,
    new_nonce,
    read_lower,
    sign,
    verify,
)
from somaresil.config import Checker

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
    with pytest.raises(PlanRefused, match=r"^replayed$"):
        nonces.use("a", 2, 1.0, 60.0)
    assert [nonces.use("b", None, 0.0, 60.0) for _ in range(3)] == [1, 2, 3]


def test_memory_of_nonces_is_bounded_and_refuses_rather_than_forgets():
    """Full of plans that last, no other is taken; when they are over there is room."""
    nonces = Nonces(3)
    for name in "abc":
        nonces.use(name, 1, 0.0, 60.0)
    with pytest.raises(PlanRefused, match=r"^crowded$"):
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


# -- what is wrong, and where -------------------------------------------------------------------------------------------------------------


def wrong(make):
    """Where each problem is, what stands there and what to do."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    return [(problem.path, problem.value, problem.hint) for problem in caught.value.problems]


def test_every_bad_key_is_named_with_what_it_is_and_not_with_what_it_says():
    seven = bytes(range(7)) * 8
    keys = {"text": "x", "short": b"x" * 31, "typed": seven, "a.b": SECRET}
    assert wrong(lambda: ChaosKeys(keys, signer="nobody")) == [
        ("ChaosKeys.keys.text", "a secret of type str", ""),
        ("ChaosKeys.keys.short", "a secret of 31 bytes", "os.urandom(32)"),
        ("ChaosKeys.keys.typed", "a secret of a few different bytes", "os.urandom(32)"),
        ("ChaosKeys.keys", "a.b", ""),
        ("ChaosKeys.signer", "nobody", ""),
    ]
    with pytest.raises(ConfigurationError) as caught:
        ChaosKeys({"k1": "x"}, signer="k2")
    assert [problem.allowed for problem in caught.value.problems] == ["bytes", "one of the keys (k1)"]
    with pytest.raises(ConfigurationError, match="one of the keys \\(k1, k2\\)"):
        ChaosKeys({"k1": SECRET, "k2": OTHER}, signer="k3")
    assert wrong(lambda: ChaosKeys([])) == [("ChaosKeys.keys", "list", "ChaosKeys({'k1': secret})")]


def test_sixteen_keys_of_eight_different_bytes_are_enough():
    eight = bytes(range(8)) * 4
    assert ChaosKeys({f"k{number}": eight for number in range(16)}).names == tuple(f"k{number}" for number in range(16))


def test_there_is_no_mac_of_a_key_that_is_not_there():
    assert KEYS.mac("k2", "body") is None
    assert KEYS.mac("k1", "body") == coded(hmac.new(SECRET, b"somaresil.chaos request plan v1\0k1.body", sha256).digest())


def test_each_bad_entry_of_the_variable_is_named_by_its_number(monkeypatch):
    monkeypatch.setenv(KEYS_VARIABLE, f"k1, :{coded(SECRET)},k 1:abcd,k2:n0t base64!,k3:{coded(SECRET)},k3:{coded(OTHER)}")
    assert wrong(ChaosKeys.from_environment) == [
        (f"{KEYS_VARIABLE}.entry 1", "2 characters", ""),
        (f"{KEYS_VARIABLE}.entry 2", "45 characters", ""),
        (f"{KEYS_VARIABLE}.entry 3", "8 characters", ""),
        (f"{KEYS_VARIABLE}.entry 4", "k2: 11 characters", ""),
        (f"{KEYS_VARIABLE}.entry 6", "k3", ""),
    ]


@pytest.mark.parametrize("text", [None, "", "  "])
def test_a_variable_that_is_not_set_is_one_problem_of_that_name(monkeypatch, text):
    monkeypatch.delenv("OTHER_KEYS", raising=False)
    if text is not None:
        monkeypatch.setenv("OTHER_KEYS", text)
    assert wrong(lambda: ChaosKeys.from_environment("OTHER_KEYS")) == [("OTHER_KEYS", None, "it is not set")]


def test_padding_of_a_secret_in_the_variable_is_no_part_of_it(monkeypatch):
    secret = bytes(range(40))
    padded = urlsafe_b64encode(secret).decode()
    assert padded.endswith("=")
    monkeypatch.setenv(KEYS_VARIABLE, f"k1:{padded}")
    assert sign(plan(), ChaosKeys.from_environment()) == sign(plan(), ChaosKeys({"k1": secret}))


# -- what a plan lowers -------------------------------------------------------------------------------------------------------------------


def test_how_far_a_rule_is_lowered_is_checked_whole_and_each_end_is_taken():
    assert [path for path, _, _ in wrong(lambda: Lower(1.5, -1.0, LONGEST + 1.0))] == ["Lower.rate", "Lower.delay", "Lower.duration"]
    assert Lower(0, 0, LONGEST).as_dict() == {"rate": 0, "delay": 0, "duration": LONGEST}
    assert Lower(0.5, 1.0, 2.5).as_dict() == {"rate": 0.5, "delay": 1, "duration": 2.5}
    assert Lower().as_dict() == {}
    assert [type(value) for value in (Lower(1).rate, Lower(delay=1).delay)] == [float, float]
    assert sign(plan(rules={"a": Lower(rate=1.0)}), KEYS) == signed_by_hand({**SAID, "rules": {"a": {"rate": 1}}})


def test_how_far_a_rule_is_lowered_is_read_from_what_somebody_wrote():
    check = Checker("rules.a")
    lower = Lower(0.5)
    assert read_lower(check, lower) is lower
    assert read_lower(check, {"rate": 0.25, "duration": 3}) == Lower(0.25, None, 3.0)
    assert check.problems == ()
    assert read_lower(check, 5) == Lower()
    assert read_lower(check, {"rat": 1, 7: 2, "delay": 1}) == Lower(delay=1.0)
    assert read_lower(check, {"rate": 20, "delay": "1"}) == Lower()
    assert [(problem.path, problem.value) for problem in check.problems] == [
        ("rules.a", 5),
        ("rules.a.rat", 1),
        ("rules.a.7", 2),
        ("rules.a.rate", 20),
        ("rules.a.delay", "1"),
    ]
    assert check.problems[1].hint == "did you mean 'rate'?"
    assert "20 % is 0.2" in check.problems[3].hint


@pytest.mark.parametrize(
    ("name", "may"), [("slow-llm", True), ("a" * 64, True), ("a" * 65, False), ("", False), ("a b", False), (5, False)]
)
def test_a_rule_may_be_called_so_or_not(name, may):
    assert is_rule_name(name) is may


def test_every_mistake_of_a_plan_is_named_at_once():
    changes = {"audience": "a b", "nonce": "short", "rules": {}, "not_before": -1, "expires": 2**40 + 1, "uses": 0}
    assert [(path, value) for path, value, _ in wrong(lambda: plan(**changes))] == [
        ("plan.audience", "a b"),
        ("plan.nonce", "short"),
        ("plan.rules", {}),
        ("plan.not_before", -1),
        ("plan.expires", 2**40 + 1),
        ("plan.uses", 0),
    ]
    assert [(path, value) for path, value, _ in wrong(lambda: plan(rules={"a b": Lower(), "c": 5}))] == [
        ("plan.rules", {"a b": Lower(), "c": 5}),
        ("plan.rules", "a b"),
    ]
    assert [path for path, _, _ in wrong(lambda: plan(not_before=2**40 + 1, expires=-1, uses=1_000_001))] == [
        "plan.not_before",
        "plan.expires",
        "plan.uses",
    ]


def test_the_largest_plan_is_taken_and_one_second_more_is_not():
    rules = {f"r{number}": Lower() for number in range(MOST_RULES)}
    largest = plan(rules=rules, not_before=2**40 - LONGEST, expires=2**40, uses=1_000_000)
    assert (len(largest.rules), largest.uses) == (MOST_RULES, 1_000_000)
    assert plan(not_before=0, expires=1).expires == 1
    assert wrong(lambda: plan(not_before=0, expires=0)) == [("plan.expires", 0, "")]
    assert wrong(lambda: plan(not_before=0, expires=LONGEST + 1)) == [("plan.expires", LONGEST + 1, "")]
    assert len(wrong(lambda: plan(rules={**rules, "one more": Lower()}))) == 1


def test_a_token_of_the_largest_size_is_read_and_signed():
    assert refused("k" * LARGEST) == "malformed"
    keys = ChaosKeys({"key": SECRET})

    def sized(more):
        names = [f"{number}{'n' * (40 + more // 8 + (more % 8 > number))}" for number in range(MOST_RULES)]
        return sign(plan(audience="a", rules=dict.fromkeys(names, Lower(0.12345))), keys)

    lengths = []
    with pytest.raises(ConfigurationError) as caught:
        for more in range(184):
            lengths.append(len(sized(more)))
    assert lengths[-1] == LARGEST
    (problem,) = caught.value.problems
    assert (problem.path, problem.value, problem.hint) == ("plan", f"{LARGEST + 2} characters", "name fewer rules")


def test_a_child_is_another_for_every_part_and_one_plan_for_all_of_them():
    parent = plan(uses=None)
    assert parent.child("a", "b").nonce != parent.child("ab").nonce
    assert parent.child("a").nonce != plan(nonce="another-nonce").child("a").nonce.replace("another-nonce", NONCE)
    assert len(parent.child("a").nonce) == len(NONCE) + 13
    assert {len(parent.child(number).nonce) for number in range(300)} == {len(NONCE) + 13}
    # Two releases of a service must name the same child alike, or each would take a single use of its own.
    assert parent.child("instance", 1, 2).nonce == f"{NONCE}.acVFie8sTjN4"
    assert parent.child("\udc80").nonce == f"{NONCE}.XRmggD3746qI"
    assert len(new_nonce()) == 16


def test_a_plan_that_begins_within_the_leeway_may_last_that_much_longer():
    token = sign(plan(not_before=int(NOW) + 5, expires=int(NOW) + 305), KEYS)
    assert verify(token, KEYS, audience="staging", now=NOW).expires == int(NOW) + 305
    assert refused(token, now=NOW - 0.5) == "not_yet_valid"
    assert refused(sign(plan(expires=int(NOW) + 306), KEYS)) == "too_long"
    assert verify(token, KEYS, audience="staging", now=NOW - 1.0, leeway=6.0)


def test_the_order_of_the_rules_is_no_part_of_what_is_signed():
    rules = {"b": Lower(0.5), "a": Lower(0.25)}
    assert sign(plan(rules=rules), KEYS) == sign(plan(rules=dict(reversed(rules.items()))), KEYS)
    assert verify(sign(plan(rules=rules), KEYS), KEYS, audience="staging", now=NOW).rules == rules


# -- memory -------------------------------------------------------------------------------------------------------------------------------


def test_a_plan_is_remembered_until_the_latest_end_that_was_said():
    nonces = Nonces(5)
    nonces.use("a", 9, 0.0, 60.0)
    assert nonces.use("a", 9, 1.0, 30.0) == 2
    assert nonces.use("a", 9, 40.0, 90.0) == 3
    assert nonces.use("a", 9, 80.0, 85.0) == 4
    assert nonces.use("a", 9, 90.0, 95.0) == 1


def test_a_full_memory_is_looked_through_once_a_second():
    nonces = Nonces(1)
    nonces.use("a", 1, 0.0, 0.5)
    for now in (0.25, 0.75, 1.0):
        with pytest.raises(PlanRefused, match="crowded"):
            nonces.use("b", 1, now, 60.0)
    assert nonces.use("b", 1, 1.25, 60.0) == 1
    assert (len(nonces), nonces.most) == (1, 1)


def test_a_refusal_is_its_reason_and_nothing_else():
    assert (PlanRefused("forged").args, PlanRefused("forged").reason) == (("forged",), "forged")
