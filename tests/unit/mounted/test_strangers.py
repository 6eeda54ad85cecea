"""An authenticator that cannot apply is found out when an app is made, by asking it about somebody who shows nothing."""

from __future__ import annotations

import asyncio
import itertools
from contextvars import ContextVar
from unittest.mock import Mock

import pytest

from somaresil import ConfigurationError, ManualClock, Resilience
from somaresil.canary.telling import EvidenceTeller
from somaresil.config import Checker
from somaresil.control import BearerToken, chaos_control
from somaresil.mounted.request import check_authenticator
from somaresil.verdict import evidence_app, verdict_app
from tests.unit.verdict.kit import Judge

TOKEN = "stranger-0123456789-abcdefghijklmnop"


def noted(auth):
    """What is wrong with it."""
    check = Checker("app")
    check_authenticator(check, "auth", auth, "a hint")
    return [(each.path, each.allowed, each.hint) for each in check.problems]


def says(said):
    return lambda scope: said


def says_later(said):
    async def auth(scope):
        return said

    return auth


class Asked:
    """A callable object, in either way."""

    def __init__(self, said):
        self.said = said

    async def __call__(self, scope):
        return self.said


@pytest.mark.parametrize("make", [says, says_later, Asked])
def test_who_knows_a_stranger_would_let_everybody_in_and_is_refused(make):
    assert noted(make("ops")) == [
        (
            "app.auth",
            "an authenticator that gives None for who is not known",
            "it has called a request without any credentials 'ops': everybody would be let in",
        )
    ]


@pytest.mark.parametrize("make", [says, says_later, Asked])
@pytest.mark.parametrize("said", [True, False, 0, 1, "", " ops", "a\nb", b"ops", [], ["ops"], {}, object(), "x" * 121, Mock()])
def test_what_is_no_name_and_not_none_is_refused_by_its_type_alone(make, said):
    """The value may be a secret."""
    expected = ("app.auth", "a function that gives a name or None", f"it gives a {type(said).__name__}, which lets nobody in")
    assert noted(make(said)) == [expected]


def _generates(scope):
    yield "ops"


def _forwards(scope):
    return _generates(scope)


class Generates:
    def __call__(self, scope):
        yield "ops"


def test_a_generator_behind_an_object_is_found_by_what_it_gives():
    assert [each[1] for each in noted(Generates())] == ["a function that gives a name or None"]
    assert [each[1] for each in noted(_forwards)] == ["a function that gives a name or None"]


def _forgets_to_call(scope):
    return says_later("ops")


def test_a_function_in_place_of_its_answer_is_refused():
    assert [each[2] for each in noted(_forgets_to_call)] == ["it gives a function, which lets nobody in"]


def _raises(scope):
    raise PermissionError("401")


def _needs_a_session(scope):
    return scope["session"].get("user")


def _trusts_addresses(scope):
    return "local" if scope["client"][0] in {"127.0.0.1", "::1"} else None


def _ends(scope):
    return next(iter(()))


async def _raises_later(scope):
    raise PermissionError("401")


async def _needs_a_loop(scope):
    await asyncio.Event().wait()
    return "ops"


class Waits:
    """Waits for something, without any loop."""

    def __await__(self):
        yield
        return "ops"


async def _waits(scope):
    return await Waits()


@pytest.mark.parametrize(
    "auth",
    [
        BearerToken(TOKEN),
        BearerToken(TOKEN, basic=True),
        says(None),
        says_later(None),
        Asked(None),
        _raises,
        _needs_a_session,
        _trusts_addresses,
        _ends,
        _raises_later,
        _needs_a_loop,
        _waits,
        lambda scope: Waits(),
    ],
)
def test_who_lets_no_stranger_in_is_accepted_whatever_it_does_instead(auth):
    assert noted(auth) == []


@pytest.mark.asyncio
async def test_one_that_has_to_wait_is_left_where_it_waits_and_ended():
    ended = []

    async def auth(scope):
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    assert noted(auth) == []
    assert ended == [True]


def test_what_it_sets_for_its_request_stays_there():
    user = ContextVar("user", default="nobody")

    def auth(scope):
        user.set("stranger")

    assert noted(auth) == []
    assert user.get() == "nobody"


def test_it_is_asked_once_with_a_whole_request_of_nobody():
    asked = []
    assert noted(asked.append) == []
    (scope,) = asked
    assert {name for name, _ in scope["headers"]} == {b"host"}
    assert (scope["type"], scope["method"], scope["path"], scope["query_string"]) == ("http", "GET", "/", b"")


def test_what_ends_the_process_is_not_kept_from_it():
    def auth(scope):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        noted(auth)


def _made(what, auth):
    resilience = Resilience("tests", clock=ManualClock())
    if what == "chaos_control":
        return chaos_control(resilience, auth=auth)
    if what == "verdict_app":
        return verdict_app({"gateway": Judge()}, resilience=resilience, auth=auth)
    if what == "evidence_app":
        return evidence_app(Mock(spec=EvidenceTeller), resilience=resilience, auth=auth)
    return resilience.dashboard(auth=BearerToken(TOKEN), operators=auth)


@pytest.mark.parametrize(
    ("what", "said"), [*itertools.product(("chaos_control", "verdict_app", "evidence_app", "dashboard"), ("everybody", True, ["ops"]))]
)
def test_no_app_is_made_with_one_that_cannot_apply(what, said):
    """Operators of the dashboard included."""
    name = "operators" if what == "dashboard" else "auth"
    for auth in (says(said), says_later(said)):
        with pytest.raises(ConfigurationError) as refused:
            _made(what, auth)
        assert [each.path for each in refused.value.problems] == [f"{what}.{name}"]
