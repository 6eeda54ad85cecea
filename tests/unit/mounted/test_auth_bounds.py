"""Where exactly the bounds of authentication lie: tokens, names, failures, and what a request says about who it is."""

from __future__ import annotations

import base64
import string

import pytest

from somaresil import ConfigurationError, ManualClock
from somaresil.mounted.auth import BURST, MOST_ADDRESSES, MOST_TOKENS, BearerToken, FailureLimit, is_principal

LETTERS = (string.ascii_letters + string.digits) * 10


def bearer(token):
    return {"headers": [(b"authorization", b"Bearer " + token.encode())]}


def problems(*arguments, **options):
    with pytest.raises(ConfigurationError) as refused:
        BearerToken(*arguments, **options)
    return [(each.path, each.value, each.allowed, each.hint) for each in refused.value.problems]


@pytest.mark.parametrize("length", [32, 33, 511, 512])
def test_a_token_of_32_to_512_characters_is_taken_and_is_good(length):
    token = LETTERS[:length]
    assert BearerToken(token)(bearer(token)) == "operator"


@pytest.mark.parametrize("length", [31, 513])
def test_one_character_less_or_more_is_refused_with_the_bound_and_a_way_to_make_one(length):
    allowed = "32 to 512 characters of A-Z a-z 0-9 - . _ ~ + /"
    assert problems(LETTERS[:length]) == [
        ("BearerToken.tokens", f"a token of {length} characters", allowed, "secrets.token_urlsafe(32) makes one")
    ]


def test_eight_different_characters_are_enough_and_seven_are_not():
    assert BearerToken("abcdefgh" * 4)(bearer("abcdefgh" * 4)) == "operator"
    ((_, value, allowed, hint),) = problems("abcdefg" * 5)
    assert (value, allowed, hint) == (
        "a token of 7 different characters",
        "at least 8 different ones",
        "secrets.token_urlsafe(32) makes one",
    )


def test_what_is_no_token_is_named_by_its_type_and_other_letters_by_that():
    assert problems([7, "ö" * 40]) == [
        ("BearerToken.tokens", "a int", "32 to 512 characters of A-Z a-z 0-9 - . _ ~ + /", "secrets.token_urlsafe(32) makes one"),
        (
            "BearerToken.tokens",
            "a token with other characters",
            "32 to 512 characters of A-Z a-z 0-9 - . _ ~ + /",
            "secrets.token_urlsafe(32) makes one",
        ),
    ]


def test_every_problem_of_a_mapping_is_told_with_the_name_it_belongs_to():
    found = problems({"ann": [], " ": LETTERS[:40], "bob": "short"}, basic="yes")
    paths = [path for path, *_ in found]
    assert paths == ["BearerToken.tokens['ann']", "BearerToken.principal", "BearerToken.tokens['bob']", "BearerToken.basic"]
    assert found[0][1:3] == ("none", "at least one token")
    assert [each[:3] for each in problems({})] == [("BearerToken.tokens", "none", "at least one token")]


def test_one_token_of_two_people_is_refused_and_64_tokens_are_the_most():
    token = LETTERS[:40]
    assert problems({"a": token, "b": token}) == [
        ("BearerToken.tokens", "the same token twice", "each token once", "who holds it would be two people")
    ]
    many = [LETTERS[number : number + 40] + f"{number:03}" for number in range(MOST_TOKENS + 1)]
    assert BearerToken(many[:-1])(bearer(many[-2])) == "operator"
    assert [each[:3] for each in problems(many)] == [("BearerToken.tokens", "65 tokens", "at most 64")]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a", True),
        ("a" * 120, True),
        ("a" * 121, False),
        ("", False),
        (" a", False),
        ("a ", False),
        ("a b", True),
        ("a\tb", False),
        (7, False),
        (None, False),
    ],
)
def test_a_name_is_1_to_120_printable_characters(name, is_one):
    assert is_principal(name) is is_one


def test_the_representation_tells_how_many_tokens_and_whose_in_order():
    auth = BearerToken({"bob": LETTERS[:40], "ann": [LETTERS[1:41], LETTERS[2:42]]}, basic=True)
    assert repr(auth) == "<BearerToken: 3 of ann, bob>"
    assert auth.basic is True
    assert BearerToken(LETTERS[:40]).basic is False


def test_spaces_around_a_token_are_none_of_it_and_another_scheme_is_no_token():
    token = LETTERS[:40]
    auth = BearerToken(token)
    assert auth({"headers": [(b"authorization", b"BEARER   " + token.encode() + b" ")]}) == "operator"
    assert auth({"headers": [(b"authorization", b"Token " + token.encode())]}) is None
    assert auth({"headers": [(b"x-authorization", b"Bearer " + token.encode())]}) is None


def test_a_password_may_be_the_longest_token_and_have_spaces_around_it():
    """It is half as long again in base64, and the name of the user has its room too."""
    token = LETTERS[:512]
    auth = BearerToken(token, basic=True)
    given = base64.b64encode(b":" + token.encode())
    assert auth({"headers": [(b"authorization", b"Basic  " + given + b" ")]}) == "operator"
    exactly = base64.b64encode(b"u" * (768 - 41) + b":" + LETTERS[:40].encode())
    assert len(exactly) == 1_024
    assert BearerToken(LETTERS[:40], basic=True)({"headers": [(b"authorization", b"Basic " + exactly)]}) == "operator"
    longer = base64.b64encode(b"u" * (771 - 41) + b":" + LETTERS[:40].encode())
    assert BearerToken(LETTERS[:40], basic=True)({"headers": [(b"authorization", b"Basic " + longer)]}) is None


def test_a_password_that_is_no_base64_is_none_even_where_a_lenient_reader_would_find_the_token():
    token = LETTERS[:40]
    given = base64.b64encode(b"u:" + token.encode())
    assert BearerToken(token, basic=True)({"headers": [(b"authorization", b"Basic " + given[:8] + b"!" + given[8:])]}) is None


# -- how often somebody may fail ----------------------------------------------------------------------------------------------------------


def scope(address="10.0.0.1", *headers):
    return {"client": None if address is None else (address, 1), "headers": list(headers)}


def test_20_failures_are_looked_at_and_then_one_a_second():
    clock = ManualClock()
    limit = FailureLimit(clock)
    for _ in range(BURST - 1):
        limit.failed(scope())
    assert not limit.blocks(scope())
    limit.failed(scope())
    assert limit.blocks(scope())
    clock.advance(0.75)
    assert limit.blocks(scope())
    clock.advance(0.25)
    assert not limit.blocks(scope())
    limit.failed(scope())
    assert limit.blocks(scope())


def test_an_allowance_never_grows_beyond_the_first_one():
    """However long somebody has been quiet, and although he failed before."""
    clock = ManualClock()
    limit = FailureLimit(clock)
    limit.failed(scope())
    clock.advance(1_000_000.0)
    for _ in range(BURST):
        assert not limit.blocks(scope())
        limit.failed(scope())
    assert limit.blocks(scope())


def test_failing_on_while_blocked_does_not_lengthen_the_block():
    clock = ManualClock()
    limit = FailureLimit(clock)
    for _ in range(BURST + 50):
        limit.failed(scope())
    clock.advance(1.0)
    assert not limit.blocks(scope())


AUTH, COOKIE = (b"authorization", b"Bearer x"), (b"cookie", b"session=1")


def drained(limit, *of):
    for _ in range(BURST):
        limit.failed(of[0] if of else scope())


@pytest.mark.parametrize(
    ("before", "now", "known"),
    [
        ([AUTH], [AUTH], True),
        ([AUTH], [(b"authorization", b"Bearer y")], False),
        ([COOKIE], [COOKIE], True),
        ([COOKIE], [(b"cookie", b"session=2")], False),
        ([AUTH, COOKIE], [AUTH], True),
        ([COOKIE, (b"cookie", b"a=2")], [(b"cookie", b"session=1; a=2")], True),
        ([AUTH, AUTH], [AUTH, AUTH], False),
        ([], [], False),
    ],
)
def test_credentials_that_were_good_are_looked_at_although_their_address_is_blocked(before, now, known):
    """An authorization goes before cookies; HTTP/2 takes cookies apart; two authorizations are none."""
    limit = FailureLimit(ManualClock())
    limit.succeeded(scope("10.0.0.1", *before))
    drained(limit)
    assert limit.blocks(scope("10.0.0.1", *now)) is not known


def test_credentials_that_are_revoked_are_good_no_more_and_those_of_others_stay():
    limit = FailureLimit(ManualClock())
    other = (b"authorization", b"Bearer other")
    limit.succeeded(scope("10.0.0.1", AUTH))
    limit.succeeded(scope("10.0.0.1", other))
    limit.revoke(scope("10.0.0.1", AUTH))
    limit.revoke(scope("10.0.0.1", AUTH))
    limit.revoke(scope("10.0.0.1"))
    drained(limit)
    assert limit.blocks(scope("10.0.0.1", AUTH))
    assert not limit.blocks(scope("10.0.0.1", other))


def test_the_last_64_good_credentials_are_remembered_by_when_they_were_used():
    limit = FailureLimit(ManualClock())
    people = [(b"authorization", b"Bearer %d" % number) for number in range(65)]
    for each in people[:64]:
        limit.succeeded(scope("10.0.0.1", each))
    limit.succeeded(scope("10.0.0.1", people[0]))
    limit.succeeded(scope("10.0.0.1", people[64]))
    drained(limit)
    assert [limit.blocks(scope("10.0.0.1", each)) for each in people] == [False, True, *[False] * 63]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:0::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", False),
        ("unix:" + "a" * 59 + "b", "unix:" + "a" * 59 + "c", True),
        ("unix:" + "a" * 58 + "b", "unix:" + "a" * 58 + "c", False),
        (None, None, True),
        (None, "-", True),
    ],
)
def test_what_counts_as_one_address(one, other, same):
    """The network of a customer in IPv6, one address in IPv4, however it is written; 64 characters of anything else."""
    limit = FailureLimit(ManualClock())
    drained(limit, scope(one))
    assert limit.blocks(scope(other)) is same


def addresses(count, start=0):
    return [scope(f"10.1.{number >> 8}.{number & 255}") for number in range(start, start + count)]


def test_who_is_known_to_fail_keeps_his_own_allowance_while_too_many_others_do():
    limit = FailureLimit(ManualClock())
    for each in addresses(MOST_ADDRESSES):
        limit.failed(each)
    stranger, other = addresses(2, MOST_ADDRESSES)
    assert not limit.blocks(stranger)
    drained(limit, stranger)
    assert limit.blocks(stranger)
    assert limit.blocks(other)
    assert not limit.blocks(addresses(1)[0])


def test_who_has_been_quiet_is_forgotten_first_and_makes_room():
    clock = ManualClock()
    limit = FailureLimit(clock)
    known = addresses(MOST_ADDRESSES)
    limit.failed(known[0])
    clock.advance(5.0)
    for each in known[1:]:
        limit.failed(each)
    stranger, other = addresses(2, MOST_ADDRESSES)
    drained(limit, stranger)
    assert limit.blocks(stranger)
    assert not limit.blocks(other)
    limit.failed(other)
    assert not limit.blocks(other)


def test_an_allowance_that_is_being_used_does_not_count_as_quiet():
    """Its last use says how long it was quiet, and not its first."""
    clock = ManualClock()
    limit = FailureLimit(clock)
    first, *others = addresses(MOST_ADDRESSES)
    drained(limit, first)
    for each in others:
        limit.failed(each)
    limit.failed(first)
    clock.advance(1.0)
    limit.failed(addresses(1, MOST_ADDRESSES)[0])
    assert not limit.blocks(first)
    limit.failed(first)
    assert limit.blocks(first)
