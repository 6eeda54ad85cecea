"""The operator's side of the demo of a canary: what it shows of a version is of that version alone."""

from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("httpx")
pytest.importorskip("starlette")

import httpx

from somaresil import CanaryConfig, CanaryController, ManualClock, Resilience
from somaresil.demo.services.pilot import ALPHA, OBJECTIVES, STEPS, operator_of

TOKEN = "a token of this test"


def test_a_new_version_begins_with_a_new_curve():
    """Whatever was seen of the one before until it was started; and without the token nobody gets in."""
    clock = ManualClock()
    resilience = Resilience("gateway", environment="test", clock=clock, seed=1)
    resilience.slos.add(*OBJECTIVES)
    config = CanaryConfig(name="gateway", bad="availability", steps=STEPS, minimum_events=5, alpha=ALPHA, interval=None)
    controller = CanaryController(resilience, config)

    async def end():
        """Nothing to end."""

    operator = operator_of(resilience, controller, TOKEN, end)

    async def go():
        transport = httpx.ASGITransport(app=operator)
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            assert (await http.get("/_soma/canary")).status_code == 403
            assert (await http.get("/health")).status_code == 200

            async def ask(body=None):
                reply = await (http.get if body is None else http.post)(
                    "/_soma/canary", headers=headers, **({"json": body} if body else {})
                )
                assert reply.status_code == 200
                return reply.json()

            assert [move["step"] for move in (await ask({"version": "1"}))["moves"]] == ["start"]
            for number in range(100):
                controller.note(controller.choose(), bad=number > 50)
            clock.advance(1.0)
            seen = await ask()
            assert seen["phase"] == "rollback"
            assert seen["points"][-1]["candidate"] > 3
            assert [move["step"] for move in seen["moves"]] == ["start", "rollback"]
            begun = await ask({"version": "2"})
            assert begun["points"] == [{"at": clock.monotonic(), "candidate": 0, "bad": 0, "worse": 1.0, "too_bad": 1.0, "weight": 0.1}]
            assert [move["step"] for move in begun["moves"]] == ["start"]
            assert (await ask({"roll_back": "enough"}))["over"]
            reply = await http.post("/_soma/canary", headers=headers, json={"version": "2"})
            assert reply.status_code == 400

    asyncio.run(go())
