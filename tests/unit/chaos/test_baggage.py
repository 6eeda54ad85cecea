"""Our member of the baggage header: found in whatever form it may have, taken out without touching anybody else's."""

from __future__ import annotations

import pytest

from somaresil.chaos.baggage import KEY, LARGEST, MOST_PAIRS, BaggageRefused, find, replace

PLAN = "k1.eyJh-_9.bWFj"
OURS = f"{KEY}={PLAN}"


@pytest.mark.parametrize(
    "headers",
    [
        [OURS],
        [OURS.encode()],
        [f"a=1,{OURS},b=2"],
        [f"a=1 , {OURS} , b=2"],
        [f" {KEY} = {PLAN} "],
        [f"{KEY}\t=\t{PLAN};ttl=3;secret"],
        ["a=1", OURS, "b=2"],
        [f"{KEY}={PLAN.replace('.', '%2E')}"],
        [f"{KEY}={PLAN.replace('.', '%2e')}"],
        [f"a=b=c,,;,={PLAN},{OURS}"],
        [f"x{KEY}=1,{OURS},{KEY}x=2"],
        [f"other=say {KEY} twice,{OURS}"],
    ],
)
def test_our_member_is_found(headers):
    """Between others, with spaces and properties, percent-encoded, in one header or several."""
    assert find(headers) == PLAN


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["a=1,b=2"],
        [f"a={OURS}"],
        [f"{KEY.upper()}={PLAN}"],
        [f"x{OURS}"],
        [f"{KEY.replace('.', '%2E')}={PLAN}"],
        ["x" * (LARGEST + 1)],
        [f"a={KEY}" + "," * 5_000],
        [b"\xff\xfe\x00"],
    ],
)
def test_what_is_not_ours_is_none(headers):
    """Case counts, keys are not percent-encoded, and baggage of others is not our business however large it is."""
    assert find(headers) is None


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([f"{OURS},{OURS}"], "duplicate"),
        ([OURS, f"{KEY}=x"], "duplicate"),
        ([f"{OURS},{KEY}"], "duplicate"),
        ([KEY], "malformed"),
        ([f"{KEY}="], "malformed"),
        ([f"{KEY}=;a=1"], "malformed"),
        ([f"{KEY}=a b"], "malformed"),
        ([f"{KEY}=ключ".encode()], "malformed"),
        ([f"{OURS},{'x' * LARGEST}"], "oversized"),
        ([OURS, "x" * LARGEST], "oversized"),
        ([OURS + ",a=1" * MOST_PAIRS], "oversized"),
    ],
)
def test_what_cannot_be_read_is_refused(headers, reason):
    """Twice, without a value, or in more baggage than the specification allows."""
    with pytest.raises(BaggageRefused) as caught:
        find(headers)
    assert caught.value.reason == reason


def test_the_limits_are_those_of_the_specification():
    """8,192 bytes and 180 members are read."""
    assert find([OURS + ",a=1" * (MOST_PAIRS - 1)]) == PLAN
    filler = "x" * (LARGEST - len(OURS) - 1)
    assert find([f"{OURS},{filler}"]) == PLAN


@pytest.mark.parametrize(
    ("header", "rest"),
    [
        (OURS, None),
        (f" {OURS} ", None),
        (f"a=1,{OURS},b=2", "a=1,b=2"),
        (f"{OURS}, b=2", "b=2"),
        (f"a=1;p=%20, {OURS};ttl=3 ,b=2;q", "a=1;p=%20,b=2;q"),
        (f"{OURS},{OURS},a=1", "a=1"),
        (f"{KEY.replace('.', '%2E')}={PLAN},a=1", "a=1"),
        (f"{KEY.replace('s', '%73', 1)}={PLAN},a=1", "a=1"),
        (f"+{OURS},a=1", f"+{OURS},a=1"),
        (KEY, None),
        (f"{OURS}" + ",a=1" * 5_000, ("a=1," * 5_000)[:-1]),
    ],
)
def test_ours_is_taken_out_and_others_stay(header, rest):
    """However often it stands there, and as OpenTelemetry would decode it."""
    assert replace(header, None) == rest


@pytest.mark.parametrize("header", ["a=1, b=2 ;p", "", "%zz=1", f"a={KEY}", "garbage \xff , , "])
def test_what_is_not_ours_is_the_same_object(header):
    """Byte for byte; nobody pays for it."""
    assert replace(header, None) is header


def test_ours_is_put_in_the_place_of_another():
    """One member, behind those of others."""
    assert replace(None, "new") == f"{KEY}=new"
    assert replace("", "new") == f"{KEY}=new"
    assert replace(OURS, "new") == f"{KEY}=new"
    assert replace(f"a=1,{OURS},b=2", "new") == f"a=1,b=2,{KEY}=new"
    assert replace(None, None) is None
