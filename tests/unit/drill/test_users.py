"""Users of the drill and the load balancer before them: what is good, what another gateway is asked for, what is a failure."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("httpx")

import httpx

from somaresil import ManualClock
from somaresil.drill import DrillError
from somaresil.drill import users as module
from somaresil.drill.answers import chunks_of
from somaresil.drill.run import Drill
from somaresil.drill.topology import Settings, instances
from somaresil.drill.users import Users


def asked(*answers, number=0, balance=True, late=0.0):
    """What becomes of one request; each gateway that is asked answers in turn."""
    left = list(answers)
    clock = ManualClock()

    def answer(request):
        clock.advance(late)
        found = left.pop(0)
        if isinstance(found, Exception):
            raise found
        return found(request) if callable(found) else found

    async def main():
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            users = Users(http, ["http://a", "http://b"], clock, rate=10.0, balance=balance)
            await users._request(number, clock.monotonic())
            return users

    users = asyncio.run(main())
    (ended,) = users.ended
    return users, ended


def stream(question, *, without=0, spoil=""):
    chunks = chunks_of(question)
    lines = [f"data: {json.dumps(chunk)}" for chunk in chunks[: len(chunks) - without]]
    return httpx.Response(200, text="\n\n".join([*lines, *([f"data: {spoil}"] if spoil else [])]) + "\n\n")


@pytest.mark.parametrize("first", [httpx.ConnectError("no"), httpx.Response(503), httpx.Response(429), httpx.ReadTimeout("slow")])
def test_a_gateway_that_cannot_answer_is_passed_over_once(first):
    users, ended = asked(first, httpx.Response(200, json={}, headers={"x-degraded": "fallback"}))
    assert (ended.outcome, ended.why) == ("degraded", "fallback")
    assert len(users.turns) == 1
    assert users.acknowledged == {"q0"}


@pytest.mark.parametrize(
    ("answers", "balance", "why"),
    [
        ([httpx.Response(500), httpx.Response(502)], True, "status 502"),
        ([httpx.Response(500)], False, "status 500"),
        ([httpx.ConnectError("no"), httpx.ConnectError("no")], True, "no answer: ConnectError"),
        ([httpx.Response(404)], True, "status 404"),
        ([httpx.Response(200, json={"wrong": 1})], True, "a wrong answer: {'wrong': 1}"),
        ([httpx.Response(200, text="{")], True, "Expecting property name"),
    ],
)
def test_what_no_gateway_can_help_is_a_failure_with_its_reason(answers, balance, why):
    users, ended = asked(*answers, balance=balance)
    assert (ended.outcome, users.bad, users.count) == ("failed", 1, 1)
    assert why in ended.why


def test_an_answer_that_comes_late_is_a_failure():
    _, ended = asked(httpx.Response(200, json={}, headers={"x-degraded": "x"}), late=module.LATE + 0.1)
    assert (ended.outcome, ended.why) == ("failed", f"late: after {module.LATE:g} s")


def test_every_other_round_is_streams_which_have_to_be_whole():
    number = 2
    short = len(chunks_of("q2")) - 1
    assert asked(lambda _: stream("q2", without=1), number=number)[1].why == f"a stream of {short} chunks of {short + 1}"
    assert asked(httpx.ConnectError("no"), httpx.ReadError("no"), number=number)[1].why == "no answer: ReadError"
    assert asked(httpx.Response(503), httpx.Response(418), number=number)[1].why == "status 418"
    assert asked(lambda _: stream("q2", spoil="{"), number=number)[1].outcome == "failed"


def test_users_that_have_failed_themselves_are_no_steady_service():
    async def main():
        users = Users(None, ["http://a"], ManualClock(), rate=1.0)
        users._rate = 0.0
        async with users:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            with pytest.raises(ZeroDivisionError):
                users.check()

    asyncio.run(main())


def test_who_cannot_be_let_in_is_a_failure_like_any_other(monkeypatch):
    monkeypatch.setattr(module, "MOST_IN_FLIGHT", 0)

    class Hurry(ManualClock):
        turns = 0

        async def asleep(self, seconds):
            self.advance(seconds)
            Hurry.turns += 1
            if Hurry.turns > 3:
                raise asyncio.CancelledError
            await asyncio.sleep(0)

    async def main():
        users = Users(None, ["http://a"], Hurry(), rate=10.0)
        async with users:
            await asyncio.wait([users._offering])
            await users.stop()
        return users

    users = asyncio.run(main())
    assert {request.why for request in users.ended} == {"too many requests without an answer"}
    assert users.bad == users.count >= 3
    assert not users.steady(1, 0.0)


# -- the drill that asks ------------------------------------------------------------------------------------------------------------------


class Stack:
    """A stack of which only the control side answers."""

    form = "played"

    def __init__(self, answer, over=""):
        self.http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
        self.clock = ManualClock()
        self.settings = Settings(7, "t", {each.name: f"http://{each.name}" for each in instances()})
        self.places = {}
        self.over = over

    def check(self):
        if self.over:
            raise DrillError(self.over)


def drill(answer, over=""):
    return Drill(Stack(answer, over), [], seed=7, rate=10.0, tell=lambda _: None)


def refuse(_):
    raise httpx.ConnectError("")


def test_an_instance_that_gives_no_answer_or_a_bad_one_ends_the_drill_with_its_name():
    with pytest.raises(DrillError, match="GET /status of worker-1 answered 500: broken"):
        asyncio.run(drill(lambda _: httpx.Response(500, text="broken"))._ask("GET", "worker-1", "/status"))
    with pytest.raises(DrillError, match=r"GET http://worker-1/_soma/seen failed: ConnectError"):
        asyncio.run(drill(refuse)._request("GET", "http://worker-1/_soma/seen?since=3"))
    with pytest.raises(DrillError, match="the worker-1 process ended"):
        asyncio.run(drill(refuse, "the worker-1 process ended")._request("GET", "http://worker-1/_soma/seen"))


def test_what_is_left_of_a_fault_is_named_by_instance():
    def answer(request):
        struck = request.url.host == "worker-1"
        return httpx.Response(200, json={"breakers": {"llm": "open" if struck else "closed"}, "running": int(struck)})

    assert asyncio.run(drill(answer)._left()) == ("worker-1: circuit llm is open", "worker-1: 1 experiments run")


def test_what_a_platform_cannot_do_is_told_with_its_reason():
    told = {
        "a": {"available": True, "reason": ""},
        "b": {"available": False, "reason": "no /proc"},
        "c": {"available": False, "reason": ""},
    }
    found = asyncio.run(drill(lambda _: httpx.Response(200, json={"capabilities": told}))._capabilities())
    assert found == {"b": "no /proc", "c": "unavailable"}
