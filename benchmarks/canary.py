"""What a canary costs a call: over the same function behind a guard, while its share grows and once it is over.

Half of the calls go to a candidate that does the same. The objective is about latency, so each call is measured. "by chance" has no key,
"by user" reads an argument and hashes it, "by a function" asks one. "complete" and "rolled back" are what is left when it is over: one
look. "told by the guards" is a canary whose guards have to judge each result, which takes them off the quiet path; compare it with the
guard beside it.

An ASGI app is asked without a server, and answers with two messages; a canary of two of them is measured beside one alone.
"""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import repeat
from typing import Any

from _measure import Benchmark, Ratio, Timing, awaits, calls

from somaresil import SLO, Resilience
from somaresil.canary_app import CanaryApp, CanaryCookie

APP = "app alone"
GUARD = "guard alone"
JUDGED = "guard that judges results"
LIMIT = 1_500.0
"""Nanoseconds that a call may cost more while the share grows."""
WITH_KEY = 2_500.0
"""The same of a request whose key has to be looked for among its headers."""


def plain(value: Any) -> Any:
    return value


async def aplain(value: Any) -> Any:
    return value


def usual(_result: object, _error: BaseException | None) -> None:
    return None


def of_argument(value: Any) -> str:
    return "user 17" if value else "user 18"


def cases(resilience: Resilience, function: Any, prefix: str) -> dict[str, Any]:
    """The function behind a guard, and behind canaries of each kind."""

    def canary(name: str, **options: Any) -> Any:
        made = resilience.canary(f"{prefix}.{name}", candidate=function, bad="fast", steps=[50, 100], interval=None, **options)
        return made(function), made.controller

    complete, controller = canary("complete")
    controller.promote()
    controller.promote()
    gone, controller = canary("gone")
    controller.roll_back("for the benchmark")
    return {
        GUARD: resilience.guard(f"{prefix}.guard", slo="fast")(function),
        "by chance": canary("chance")[0],
        "by user": canary("user", key="value")[0],
        "by a function": canary("function", key=of_argument)[0],
        "complete": complete,
        "rolled back": gone,
        JUDGED: resilience.guard(f"{prefix}.judged", slo="fast", classify=usual)(function),
        "told by the guards": canary("told", guard={"classify": usual})[0],
    }


async def answers(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"answer"})


async def requests(app: Any, count: int) -> int:
    """Requests of one user, by a server that does nothing."""

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        return

    headers = [(b"host", b"localhost"), (b"x-user", b"user 17"), (b"cookie", b"a=b; somaresil_canary=0123456789abcdef")]
    turns = repeat(None, count)
    start = time.perf_counter_ns()
    for _ in turns:
        await app({"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": headers}, receive, send)
    return time.perf_counter_ns() - start


def apps(resilience: Resilience) -> dict[str, Any]:
    """The app by itself, and behind canaries of each kind."""

    def canary(name: str, **options: Any) -> CanaryApp:
        given = {"bad": "fast", "steps": [50, 100], "interval": None, "version": "2", **options}
        return CanaryApp(answers, resilience, f"app.{name}", candidate=answers, **given)

    complete, gone = canary("complete"), canary("gone")
    complete.controller.promote()
    complete.controller.promote()
    gone.controller.roll_back("for the benchmark")
    return {
        APP: answers,
        "by chance": canary("chance"),
        "by header": canary("header", key="header:x-user"),
        "by cookie": canary("cookie", key=CanaryCookie()),
        "complete": complete,
        "rolled back": gone,
    }


def main() -> None:
    benchmark = Benchmark(__doc__ or "", ("somaresil",))
    resilience = Resilience("benchmark", seed=1)
    resilience.slos.add(SLO("fast", 95.0, timedelta(days=7), latency=1.0))
    functions = Timing(calls, cases(resilience, plain, "function"))
    coroutines = Timing(awaits, cases(resilience, aplain, "coroutine"))
    asgi = Timing(requests, apps(resilience))
    named = (("function", functions), ("coroutine function", coroutines))

    def ratios() -> list[Ratio]:
        found = []
        for kind, timing in named:
            found += [Ratio(f"{kind}, {case}", timing.over(case, GUARD), LIMIT, "ns") for case in ("by chance", "by user", "by a function")]
            found += [Ratio(f"{kind}, {case}", timing.over(case, GUARD), 200.0, "ns") for case in ("complete", "rolled back")]
        found.append(Ratio("app, by chance", asgi.over("by chance", APP), LIMIT, "ns"))
        found += [Ratio(f"app, {case}", asgi.over(case, APP), WITH_KEY, "ns") for case in ("by header", "by cookie")]
        found += [Ratio(f"app, {case}", asgi.over(case, APP), 250.0, "ns") for case in ("complete", "rolled back")]
        return found

    benchmark.measure((functions, coroutines, asgi), 5.0, ratios)
    benchmark.tables = [
        functions.table("a function", GUARD),
        coroutines.table("a coroutine function", GUARD),
        asgi.table("an ASGI app", APP),
    ]
    benchmark.finish()


if __name__ == "__main__":
    main()
