"""Several workers behind one address: whichever is asked, all of them do it, once, and one page is good for all."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.integration.dashboard_service import KNOWN, Service

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]


@pytest.fixture
def workers(monkeypatch, tmp_path):
    """Three of them, who share a folder."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")
    made = [Service(guards=0, instance=f"worker-{number}", workers=tmp_path / "workers") for number in range(3)]
    yield made
    for each in made:
        each.dashboard.stop()


def client(service):
    transport = httpx.ASGITransport(service.app)
    return httpx.AsyncClient(transport=transport, base_url="http://service/_soma", headers=KNOWN, timeout=20.0)


async def seen_by(service, holds):
    """Ask until it is so."""
    async with client(service) as http, asyncio.timeout(20.0):
        while not holds(picture := (await http.get("/api/picture")).json()):
            await asyncio.sleep(0.05)
        return picture


async def test_a_plan_is_started_in_all_of_them_seen_as_one_and_stopped_as_one(workers):
    first, second, third = workers
    await seen_by(first, lambda picture: len(picture["sources"]) == 3)
    async with client(first) as one, client(second) as other:
        # One page: the token is from one worker, the request goes to another, and so does its double.
        headers = {"x-somaresil-csrf": (await one.get("/api/session")).json()["csrf"], "idempotency-key": "click"}
        await seen_by(second, lambda picture: len(picture["sources"]) == 3)
        told = await asyncio.gather(*(http.post("/api/experiments", json={"plan": "slow model"}, headers=headers) for http in (one, other)))
        assert [each.json()["done"] for each in told] == [True, True], [each.text for each in told]
        assert [len(each.json()["sources"]) for each in told] == [3, 3]
        assert [len(each.resilience.chaos.runs) for each in workers] == [1, 1, 1]
        picture = await seen_by(third, lambda picture: len(picture["experiments"]) == 1 and len(picture["experiments"][0]["sources"]) == 3)
        identity = picture["experiments"][0]["id"]
        told = await other.post(f"/api/experiments/{identity}/stop", json={}, headers={**headers, "idempotency-key": "stop"})
        assert told.json()["done"], told.text
        assert [each.resilience.chaos.runs for each in workers] == [()] * 3


async def test_the_kill_switch_reaches_all_of_them(workers):
    async with client(workers[0]) as http:
        await seen_by(workers[0], lambda picture: len(picture["sources"]) == 3)
        headers = {"x-somaresil-csrf": (await http.get("/api/session")).json()["csrf"]}
        assert (await http.post("/api/experiments", json={"plan": "slow model"}, headers=headers)).json()["done"]
        told = (await http.post("/api/stop", json={}, headers={"x-somaresil-csrf": "none"})).json()
        assert (told["done"], len(told["sources"])) == (True, 3)
        assert [each.resilience.chaos.runs for each in workers] == [()] * 3


async def test_a_breaker_is_moved_in_all_of_them_and_whoever_has_none_is_named(workers):
    workers[2].resilience.guard("only.here", breaker=True)
    async with client(workers[0]) as http:
        await seen_by(workers[0], lambda picture: len(picture["sources"]) == 3)
        headers = {"x-somaresil-csrf": (await http.get("/api/session")).json()["csrf"]}
        assert (await http.post("/api/breakers/llm.invoke/force_open", json={}, headers=headers)).json()["done"]
        assert [each.guard.breaker.state.value for each in workers] == ["forced_open"] * 3
        told = await http.post("/api/breakers/only.here/trip", json={}, headers=headers)
        assert (told.status_code, told.json()["done"]) == (200, False)
        assert sorted(each["done"] for each in told.json()["sources"]) == [False, False, True]
        assert workers[2].resilience.breaker("only.here").state.value == "open"
