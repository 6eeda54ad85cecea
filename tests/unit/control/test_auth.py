"""Who may use the control app, and that nobody else learns anything from it."""

from __future__ import annotations

import base64
import copy
import itertools
import pickle

import pytest

from somaresil import ConfigurationError, ManualClock, Resilience
from somaresil.control import BearerToken, chaos_control
from somaresil.events import DefectFound
from somaresil.mounted.auth import BURST, MOST_ADDRESSES, FailureLimit
from tests.unit.control.kit import ALICE, KNOWN, OPS, Stand

pytestmark = pytest.mark.asyncio

PATHS = (
    "/experiments",
    "/experiments/error-1",
    "/experiments/error-1/stop",
    "/stop",
    "/status",
    "/openapi.json",
    "/capabilities",
    "/",
    "/no",
)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")


@pytest.mark.parametrize("auth", [None, "token", 7, True])
async def test_there_is_no_app_without_an_authenticator(auth):
    with pytest.raises(ConfigurationError) as refused:
        chaos_control(Resilience("tests"), auth=auth)
    assert [problem.path for problem in refused.value.problems] == ["chaos_control.auth"]


async def test_all_problems_of_an_app_are_told_at_once():
    with pytest.raises(ConfigurationError) as refused:
        chaos_control(Resilience("tests"), auth=None, at="chaos", origins=["*", "https://ops.example/x"], errors=7)  # type: ignore[arg-type]
    paths = [problem.path.removeprefix("chaos_control.") for problem in refused.value.problems]
    assert paths == ["auth", "at", "origins", "origins", "errors"]


async def test_whoever_is_not_known_gets_one_answer_to_everything(stand):
    """Body and headers are the same for every method and path; HEAD lacks the body alone."""
    seen = set()
    for method, path in itertools.product(METHODS, PATHS):
        for headers in ({}, {"authorization": "Bearer nobody"}, {"content-type": "application/json", "origin": "http://evil.example"}):
            answer = await stand.ask(
                method, path, known=False, headers=headers, content=b'{"a": 1', client=(f"10.0.{len(path)}.{len(seen)}", 1)
            )
            seen.add((answer.status_code, b"Not Found" if method == "HEAD" else answer.content, tuple(answer.headers.raw)))
            stand.clock.advance(5.0)
    assert len(seen) == 1
    assert next(iter(seen))[:2] == (404, b"Not Found")


async def test_the_answer_to_the_unknown_tells_nothing_is_kept_and_no_framework(stand):
    answer = await stand.ask("GET", "/status", known=False)
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "www-authenticate" not in answer.headers
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": None},
        {"authorization": ALICE},
        {"authorization": f"Basic {ALICE}"},
        {"authorization": f"Bearer {ALICE}x"},
        {"authorization": f"Bearer {ALICE[:-1]}"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": "Bearer " + "a" * 4_000},
        {"authorization": None, "cookie": f"authorization=Bearer {ALICE}"},
    ],
)
async def test_nothing_but_the_token_will_do(stand, headers):
    assert (await stand.ask("GET", "/status", headers=headers)).status_code == 404


async def test_two_authorization_headers_are_none(stand):
    scope = {"headers": [(b"authorization", KNOWN["authorization"].encode())] * 2}
    assert stand.app._door._auth(scope) is None


async def test_each_token_is_that_of_its_principal():
    auth = BearerToken({"alice": [ALICE, ALICE + "2"], "ops": OPS})
    assert [auth({"headers": [(b"authorization", f"bearer {t}".encode())]}) for t in (ALICE, ALICE + "2", OPS)] == ["alice", "alice", "ops"]


async def test_an_old_and_a_new_token_are_good_while_they_are_exchanged():
    auth = BearerToken([ALICE, OPS], principal="ci")
    assert {auth({"headers": [(b"authorization", f"Bearer {token}".encode())]}) for token in (ALICE, OPS)} == {"ci"}


@pytest.mark.parametrize(
    "tokens",
    [
        "",
        "short",
        "a" * 40,
        "with space " * 5,
        "x" * 600,
        [],
        {},
        [ALICE, ALICE],
        {"a": ALICE, "b": ALICE},
        {"": ALICE},
        {"a\n": ALICE},
        [7],
        7,
        None,
    ],
)
async def test_weak_tokens_are_refused_and_not_shown(tokens):
    with pytest.raises(ConfigurationError) as refused:
        BearerToken(tokens)
    assert ALICE not in str(refused.value)
    assert "with space" not in str(refused.value)
    assert "aaaaaaaa" not in str(refused.value)


async def test_a_token_is_never_shown_copied_or_pickled():
    auth = BearerToken({"alice": ALICE})
    assert repr(auth) == "<BearerToken: 1 of alice>"
    assert not any(ALICE in repr(getattr(auth, name)) for name in auth.__slots__)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            duplicate(auth)


async def test_an_authenticator_may_be_a_coroutine_function():
    async def auth(scope):
        return "bob" if dict(scope["headers"]).get(b"x-user") == b"bob" else None

    stand = Stand(auth=auth)
    assert (await stand.ask("GET", "/status", known=False, headers={"x-user": "bob"})).status_code == 200
    assert (await stand.ask("GET", "/status", known=False)).status_code == 404


async def _hangs(scope):
    import asyncio

    await asyncio.Event().wait()


@pytest.mark.parametrize("said", [RuntimeError("down"), True, 1, "", "a\nb", "x" * 500, b"bob", ["bob"], {"name": "bob"}])
async def test_an_authenticator_that_fails_for_who_shows_something_lets_nobody_in_and_is_reported(said):
    def auth(scope):
        if (b"authorization", KNOWN["authorization"].encode()) not in scope["headers"]:
            return None
        if isinstance(said, Exception):
            raise said
        return said

    stand = Stand(auth=auth)
    assert (await stand.ask("GET", "/status")).status_code == 404
    assert [event.where for event in stand.events if isinstance(event, DefectFound)] == ["authenticator of the control app"]


async def test_an_authenticator_that_hangs_lets_nobody_in():
    assert (await Stand(auth=_hangs).ask("GET", "/status")).status_code == 404


async def test_who_fails_too_often_is_not_asked_any_more():
    asked = []

    def auth(scope):
        asked.append(scope)

    stand = Stand(auth=auth)
    asked.clear()
    for _ in range(BURST + 30):
        assert (await stand.ask("GET", "/status", known=False)).status_code == 404
    assert len(asked) == BURST
    stand.clock.advance(3.0)
    for _ in range(10):
        await stand.ask("GET", "/status", known=False)
    assert len(asked) == BURST + 3


async def test_failing_in_the_name_of_an_operator_does_not_keep_him_out(stand):
    """His credentials were good before, and other addresses have an allowance of their own."""
    assert (await stand.ask("GET", "/status")).status_code == 200
    for _ in range(BURST + 5):
        await stand.ask("GET", "/status", known=False, headers={"authorization": "Bearer guess"})
    assert (await stand.post("/stop")).status_code == 200
    assert (await stand.ask("GET", "/status", known=False, headers={"authorization": f"Bearer {OPS}"})).status_code == 404
    other = await stand.ask("GET", "/status", known=False, headers={"authorization": f"Bearer {OPS}"}, client=("10.0.0.9", 1))
    assert other.status_code == 200


def _from(address):
    return {"client": (address, 1), "headers": []}


async def test_the_memory_for_failures_is_bounded():
    """Those who come later share one allowance, and who has been quiet is forgotten."""
    clock = ManualClock()
    limit = FailureLimit(clock)
    for number in range(MOST_ADDRESSES + 500):
        limit.failed(_from(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"))
    assert len(limit._allowances) <= MOST_ADDRESSES + 1
    assert limit.blocks(_from("172.16.0.1"))
    clock.advance(60.0)
    assert not limit.blocks(_from("172.16.0.1"))
    limit.failed(_from("172.16.0.1"))
    assert len(limit._allowances) == 1


async def test_a_customer_with_many_addresses_is_one():
    limit = FailureLimit(ManualClock())
    for number in range(BURST):
        limit.failed(_from(f"2001:db8::{number:x}"))
    assert limit.blocks(_from("2001:db8::ffff"))
    assert not limit.blocks(_from("2001:db8:0:1::1"))


@pytest.mark.parametrize("client", [None, (None, 0), ("not an address", 1), ("", 1)])
async def test_an_address_that_is_none_is_bounded_too(client):
    limit = FailureLimit(ManualClock())
    for _ in range(BURST):
        limit.failed({"client": client, "headers": []})
    assert limit.blocks({"client": client, "headers": []})


def basic(user, password):
    return [(b"authorization", b"Basic " + base64.b64encode(f"{user}:{password}".encode()))]


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        (basic("anybody", ALICE), "alice"),
        (basic("", ALICE), "alice"),
        (basic("anybody", f"{ALICE}:"), None),
        (basic(ALICE, ""), None),
        (basic("anybody", OPS), None),
        ([(b"authorization", b"Basic ?")], None),
        ([(b"authorization", b"Basic " + b"a" * 4_000)], None),
        ([(b"authorization", f"Bearer {ALICE}".encode())], "alice"),
        (basic("a", ALICE) * 2, None),
    ],
)
async def test_a_token_may_be_a_password_where_somebody_has_said_so(headers, who):
    assert BearerToken({"alice": ALICE}, basic=True)({"headers": headers}) == who
    assert BearerToken({"alice": ALICE})({"headers": basic("anybody", ALICE)}) is None
