"""Request plans at the door: read from baggage, struck and marked, taken out of the headers, and never a reason for a request to fail."""

from __future__ import annotations

import asyncio

import pytest

from somaresil import ChaosConfig, ChaosExperiment, InjectedFault, Outcome
from somaresil.chaos import ChaosKeys, ingress, requests
from somaresil.chaos.baggage import KEY
from somaresil.chaos.flight import RequestRun
from somaresil.events import DefectFound, FaultInjected
from tests.unit.asgi.kit import START, Stand, body, says

KEYS = ChaosKeys({"k1": bytes(range(32))})
LATENCY, ERROR, CUT = ChaosExperiment.LATENCY_INJECTION, ChaosExperiment.ERROR_INJECTION, ChaosExperiment.STREAM_CUT


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Allow chaos."""
    monkeypatch.setenv("SOMARESIL_CHAOS", "1")


class Door(Stand):
    """A service that accepts plans and calls a guarded dependency for each request."""

    def __init__(self, app=None, **options):
        super().__init__(app or self.serve, **options)
        self.chaos = self.resilience.chaos
        self.chaos.opt_in()
        self.guard = self.resilience.guard("llm.invoke")
        self.chaos.approve("llm-down", ChaosConfig(ERROR, "llm.*", 1.0))
        self.chaos.approve("llm-slow", ChaosConfig(LATENCY, "llm.*", 1.0, delay_seconds=2.0))
        self.chaos.approve("sorry", ChaosConfig(ERROR, "http:*", 1.0, status=502))
        self.chaos.approve("slow", ChaosConfig(LATENCY, "http:/chat/*", 1.0, delay_seconds=3.0))
        self.chaos.approve("cut", ChaosConfig(CUT, "http:*", 1.0, after_items=1))
        self.chaos.accept_plans(KEYS)
        self.seen: list[list[tuple[bytes, bytes]]] = []

    async def serve(self, scope, receive, send):
        """Call the dependency and say how it went."""
        self.seen.append(scope["headers"])
        try:
            self.guard.call(lambda: None)
        except InjectedFault:
            said = b"down"
        else:
            said = b"up"
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.close"})
            return
        await send({**START, "headers": [(b"x-app", b"1")]})
        await send(body(said[:1], more=True))
        await send(body(said[1:]))

    async def planned(self, *rules, path="/", baggage=None, headers=(), **request):
        """Ask with a plan."""
        value = baggage if baggage is not None else f"{KEY}={self.chaos.sign_plan(rules, nonce='n' * 16)}"
        await self.ask(path, headers=[(b"host", b"localhost"), *headers, (b"baggage", value.encode())], **request)
        return b"".join(message.get("body", b"") for message in self.sent)

    def headers(self):
        """The headers of the answer."""
        return dict(self.sent[0]["headers"])


@pytest.mark.asyncio
async def test_the_calls_of_a_request_with_a_plan_are_struck():
    """And the answer says so; those of others are not."""
    door = Door()
    assert await door.planned("llm-down") == b"down"
    assert door.headers() == {b"x-app": b"1", b"x-somaresil-chaos": b"llm-down@" + b"n" * 16}
    await door.ask()
    assert b"".join(message.get("body", b"") for message in door.sent) == b"up"
    assert door.headers() == {b"x-app": b"1"}
    assert door.guard.switch.quiet
    assert door.chaos.requests.in_flight == 0


@pytest.mark.asyncio
async def test_an_answer_is_marked_when_something_has_struck():
    """A plan alone is no fault."""
    door = Door()
    door.chaos.approve("never", ChaosConfig(ERROR, "llm.*", 0.0))
    assert await door.planned("never") == b"up"
    assert b"x-somaresil-chaos" not in door.headers()
    assert await door.planned("llm-slow", "llm-down") == b"down"
    assert door.headers()[b"x-somaresil-chaos"].split(b", ") == [b"llm-slow@" + b"n" * 16, b"llm-down@" + b"n" * 16]


@pytest.mark.asyncio
async def test_the_request_itself_is_struck():
    """A delay, a status, an answer that breaks off; marked as injected, and nobody else's."""
    door = Door()
    assert b"fault injected by chaos experiment sorry@" in await door.planned("sorry")
    assert door.sent[0]["status"] == 502
    assert door.headers()[b"x-somaresil-chaos"] == b"sorry@" + b"n" * 16
    began = door.clock.monotonic()
    assert await door.planned("slow", path="/chat/7") == b"up"
    assert await door.planned("slow", path="/other") == b"up"
    assert door.clock.monotonic() - began == 3.0
    with pytest.raises(InjectedFault):
        await door.planned("cut")
    assert door.ends(injected=True) == {Outcome.BAD: 2, Outcome.GOOD: 1}
    await door.ask("/chat/7")
    assert door.sent[0]["status"] == 200
    assert door.chaos.http == ()
    assert [event.fault for event in door.told(FaultInjected)] == ["error", "latency", "stream_cut"]


@pytest.mark.asyncio
async def test_requests_at_the_same_time_are_told_apart():
    """One waits for its delay while the others pass by the same rule."""
    gate = asyncio.Event()

    async def app(scope, receive, send):
        await gate.wait()
        await Door.serve(door, scope, receive, send)

    door = Door(app)
    planned = asyncio.create_task(door.planned("sorry", "llm-down"))
    await planned
    assert door.sent[0]["status"] == 502
    first = asyncio.create_task(door.planned("llm-down"))
    await asyncio.sleep(0)
    assert door.chaos.requests.in_flight == 1
    second = asyncio.create_task(door.ask())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(first, second)
    assert len(door.seen) == 2
    assert door.chaos.faults() == {("http:*", "error"): 1, ("llm.invoke", "error"): 1}


@pytest.mark.asyncio
async def test_the_app_never_sees_a_plan():
    """Good or bad, it is taken out, so that no propagator behind us sends it to anybody; what else stands there stays."""
    door = Door()
    await door.planned(baggage=f"a=1, {KEY}={door.chaos.sign_plan(['llm-down'])} ,b=2", headers=[(b"baggage", b"c=3")])
    await door.planned(baggage=f"{KEY}=forged")
    await door.planned(baggage="a=1")
    assert door.seen == [
        [(b"host", b"localhost"), (b"baggage", b"c=3"), (b"baggage", b"a=1,b=2")],
        [(b"host", b"localhost")],
        [(b"host", b"localhost"), (b"baggage", b"a=1")],
    ]


@pytest.mark.asyncio
async def test_plans_are_looked_for_only_when_they_are_accepted():
    """Otherwise the header passes as it is."""
    door = Door()
    token = door.chaos.sign_plan(["llm-down"])
    door.chaos.refuse_plans()
    assert await door.planned(baggage=f"{KEY}={token}") == b"up"
    assert door.seen[0][-1] == (b"baggage", f"{KEY}={token}".encode())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "baggage",
    [
        f"{KEY}=",
        f"{KEY}=k1.a.b",
        f"{KEY}=k9.a.b",
        f"{KEY}={'x' * 5_000}",
        f"{KEY}=a,{KEY}=b",
        f"{KEY}=a" + ",b=1" * 500,
        "\x00\xff",
        "," * 10_000,
        f"{KEY}=" + "%" * 100,
    ],
)
async def test_bad_plans_do_no_harm(baggage):
    """The request is served as if it had brought none, by an app that never hears of it."""
    door = Door()
    await door.ask(headers=[(b"host", b"localhost"), (b"baggage", baggage.encode("latin-1"))])
    assert door.sent[0]["status"] == 200
    assert b"".join(message.get("body", b"") for message in door.sent) == b"up"
    assert door.told(DefectFound) == []
    assert KEY.encode() not in b"".join(value for _, value in door.seen[0])


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/_soma/stop"])
async def test_protected_paths_are_never_touched(path):
    """Neither the request nor what is called for it; no use is counted."""
    door = Door()
    token = door.chaos.sign_plan(["llm-down", "sorry"], uses=1)
    assert await door.planned(path=path, baggage=f"{KEY}={token}") == b"up"
    assert await door.planned(path=f"/api{path}", baggage=f"{KEY}={token}", root_path="/api") == b"up"
    assert door.chaos.requests.counts() == {"protected": 2}
    assert (await door.planned(baggage=f"{KEY}={token}")).startswith(b"fault injected")


@pytest.mark.asyncio
async def test_a_replayed_plan_strikes_once():
    """However often the request is sent again."""
    door = Door()
    token = door.chaos.sign_plan(["llm-down"], uses=1)
    assert [await door.planned(baggage=f"{KEY}={token}") for _ in range(3)] == [b"down", b"up", b"up"]
    assert door.chaos.requests.counts() == {"accepted": 1, "replayed": 2}


@pytest.mark.asyncio
async def test_a_conversation_has_its_plan_too():
    """A websocket brings it with its handshake; the acceptance is marked."""
    door = Door()
    await door.planned("llm-down", kind="websocket")
    assert door.headers() == {b"x-somaresil-chaos": b"llm-down@" + b"n" * 16}
    await door.planned("sorry", kind="websocket")
    assert door.sent == [{"type": "websocket.close", "code": 1011}]


@pytest.mark.asyncio
async def test_a_request_that_fails_or_is_left_ends_its_plan():
    """Whatever comes out of the app."""
    door = Door(says(then=RuntimeError("broken")))
    with pytest.raises(RuntimeError, match="broken"):
        await door.planned("llm-down")
    assert door.chaos.requests.in_flight == 0

    async def hang(scope, receive, send):
        await asyncio.Event().wait()

    door = Door(hang)
    task = asyncio.create_task(door.planned("llm-down"))
    await asyncio.sleep(0)
    assert door.chaos.requests.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert door.chaos.requests.in_flight == 0
    assert door.guard.switch.quiet


@pytest.mark.asyncio
async def test_admission_and_deadlines_are_as_ever():
    """A request with a plan passes the same limit, once."""
    door = Door(mounted={"limit": None, "deadline": 60.0})
    assert await door.planned("llm-down") == b"down"
    assert sum(sum(view.durations) for view in door.resilience.routes.views().values()) == 1


STEPS = [
    (ingress, "paths_of"),
    (ingress, "_without_plan"),
    (ingress, "_marking"),
    *((requests.RequestPlans, name) for name in ("arriving", "_taken", "_count", "_runs_of", "_lowered")),
    (requests.baggage, "find"),
    (requests, "verify"),
    (requests.PlanInFlight, "__init__"),
    *((RequestRun, name) for name in ("rule", "claim", "_hit", "strike_request", "_let_go")),
]


@pytest.mark.asyncio
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=lambda value: getattr(value, "__name__", value))
async def test_a_step_that_fails_is_not_noticed(monkeypatch, owner, step, caplog):
    """The client gets the app's answer, struck or not, and no error of ours; nothing stays armed."""
    door = Door()
    reached = []

    def planted(*args, **kwargs):
        reached.append(True)
        raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, planted)
        assert await door.planned("llm-down", "slow", path="/chat/7") in {b"up", b"down"}
    assert reached
    assert 1 <= len(door.told(DefectFound)) <= 2
    door.clock.advance(60.0)
    await door.ask()
    assert door.sent[0]["status"] == 200
    assert door.guard.switch.quiet
    assert door.chaos.requests.in_flight == 0
