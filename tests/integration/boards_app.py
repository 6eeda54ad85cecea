"""A service to which everything happens that a board can show, every few seconds anew. What else to do with it: nothing."""

import asyncio
import itertools
import time
from contextlib import suppress

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from somaresil import (
    Bulkhead,
    ChaosCeilings,
    ChaosConfig,
    ChaosExperiment,
    CircuitBreaker,
    ConfigurationError,
    Endpoint,
    Hedge,
    RateLimit,
    Resilience,
    ResilienceMiddleware,
    Retry,
    StaleCache,
    SystemClock,
)
from somaresil.integrations.prometheus import metrics_app
from tests.integration.test_boards import DAILY, OBJECTIVES

DAY = 86_400.0


class Clock(SystemClock):
    """The clock of the machine, whose day is over twelve seconds after it was made."""

    def __init__(self):
        self._ahead = DAY - time.time() % DAY - 12.0

    def time(self):
        return time.time() + self._ahead


trace.set_tracer_provider(TracerProvider())
tracer = trace.get_tracer("gateway")
resilience = Resilience("gateway", environment="demo", seed=1)
resilience.slos.add(*OBJECTIVES)
# Another process as it were: traces must have the time of day, and this one's day must come to its end.
nightly = Resilience("gateway", environment="demo", seed=1, clock=Clock())
nightly.slos.add(DAILY)
watch = nightly.guard("watch", slo=DAILY.name)
resilience.chaos.opt_in(ChaosCeilings(active_faults=1, connections=8))
breaker = CircuitBreaker(consecutive_failures=3, open_duration=0.3)
TOLD = ["model", "sliced", "apart"]
model = resilience.guard("llm.invoke", slo=TOLD, breaker=breaker)
victim = resilience.guard("victim", slo="apart", retry=Retry(attempts=3, wait=0.001), idempotent=True)
search = resilience.guard("search", hedge=Hedge(0.005), idempotent=True)
cached = resilience.guard("cached", fallback=StaleCache(60.0, max_age=0.2))
rated = resilience.guard("rated", rate_limit=RateLimit(3, per=1.0))
narrow = resilience.guard("narrow", bulkhead=Bulkhead(1, 1, 0.001))
wide = resilience.guard("wide")
steady = resilience.guard("steady", slo="quick")
pool = resilience.pool("models", [Endpoint("eu", "eu"), Endpoint("us", "us")], attempts=2, breaker=CircuitBreaker(consecutive_failures=3))


async def fail():
    raise ConnectionError


async def work(seconds=0.001):
    await asyncio.sleep(seconds)


async def at_endpoint(endpoint):
    if endpoint.name == "eu":
        raise ConnectionError


async def new_answer():
    await asyncio.sleep(0.002)


answers = itertools.count()
canary = resilience.canary("answer", candidate=new_answer, bad="model", steps=[10, 50, 100], bake=3600.0, interval=None)


@canary
async def answer():
    await asyncio.sleep(0.001)
    # Bad calls of the control are no evidence against the candidate, and leave a trace to look at.
    if next(answers) % 10 == 0:
        raise ConnectionError


pooled = pool(at_endpoint)


async def attempt(call, *args):
    with suppress(Exception):
        await call(*args)


async def calls():
    """A round takes about a twentieth of a second."""
    began = time.monotonic()
    for number in itertools.count():
        with tracer.start_as_current_span("round"):
            down = number % 60 < 20
            await attempt(model.acall, fail if down else work)
            await attempt(victim.acall, work)
            await attempt(search.acall, work, 0.02 if number % 3 else 0.001)
            await attempt(cached.acall, work if number % 4 else fail)
            await attempt(rated.acall, work)
            await asyncio.gather(*(attempt(narrow.acall, work, 0.005) for _ in range(3)))
            await asyncio.gather(*(attempt(wide.acall, work) for _ in range(3)))
            await attempt(pooled)
            await attempt(answer)
            await attempt(watch.acall, fail if number % 9 == 0 else work)
            # An incident every fourteen seconds: it is over when ten of them were quiet.
            await attempt(steady.acall, fail if (time.monotonic() - began) % 14.0 < 1.0 else work)
        await asyncio.sleep(0.02)


def arm(kind, target, rate, seconds, **options):
    with suppress(ConfigurationError):
        return resilience.chaos.arm(ChaosConfig(kind, target, rate, seconds, **options))


async def experiments():
    """A round takes six seconds."""
    resource = ["a", "b", "c"]
    resilience.chaos.register_pool("db", checkout=resource.pop, giveback=resource.append, size=3)
    for number in itertools.count():
        arm(ChaosExperiment.ERROR_INJECTION, "victim", 0.6, 4.0)
        arm(ChaosExperiment.LATENCY_INJECTION, "wide", 1.0, 4.0, delay_seconds=0.05)
        arm(ChaosExperiment.HTTP_STATUS, "http:/ask", 0.3, 4.0, status=503)
        arm(ChaosExperiment.ERROR_INJECTION, "search", 0.5, 4.0, dry_run=True)
        arm(ChaosExperiment.RESOURCE_EXHAUSTION, "resource:pool:db", 0.7, 3.0)
        arm(ChaosExperiment.RESOURCE_EXHAUSTION, "resource:gil", 0.05, 3.0)
        resilience.chaos.requests.carried("no plan")
        resilience.deployed(f"1.{number}", ok=bool(number % 3))
        await asyncio.sleep(2.0)
        # What was rolled back stays so: each round is another version.
        with suppress(ConfigurationError):
            canary.controller.start(f"2.{number}")
        canary.controller.promote()
        await asyncio.sleep(2.0)
        if number % 2:
            canary.controller.roll_back("enough")
        else:
            for _ in range(3):
                canary.controller.promote()
        await asyncio.sleep(2.0)


metrics = metrics_app(resilience, exemplars=True)
others = metrics_app(nightly)
BODIES = {"/ask": (200, b"answer"), "/fail": (503, b"failed"), "/ready": (200, b"yes")}


async def inner(scope, receive, send):
    path = scope["path"]
    if path == "/metrics":
        await metrics({**scope, "path": "/"}, receive, send)
    elif path == "/others":
        await others({**scope, "path": "/"}, receive, send)
    elif path == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for number in range(4):
            await asyncio.sleep(0.01)
            await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
    else:
        status, body = BODIES.get(path, (404, b"nothing"))
        await asyncio.sleep(0.002)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


guarded = ResilienceMiddleware(inner, resilience, slo="api", limit=Bulkhead(50, 10, 0.5))
tasks = []


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        resilience.alerting(interval=1.0)
        tasks.extend(asyncio.create_task(each()) for each in (calls, experiments))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for task in tasks:
            task.cancel()
        resilience.chaos.stop_all(here_only=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    with tracer.start_as_current_span("request"):
        await guarded(scope, receive, send)
