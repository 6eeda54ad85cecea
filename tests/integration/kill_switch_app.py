"""What the workers of the kill switch's trial serve: every request is struck, from the start of the worker on.

`/error` says whether it was struck, in which process, and when on the clock of the machine; `/slow` is held up until somebody ends that.
"""

from __future__ import annotations

import os
import time
from typing import Any

from somaresil import ChaosCeilings, ChaosConfig, InjectedFault, Resilience, ResilienceMiddleware

resilience = Resilience("kill-switch", environment="test")
quick = resilience.guard("quick")
slow = resilience.guard("slow")


async def _callee() -> None:
    return None


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                resilience.chaos.opt_in(ChaosCeilings(delay=60.0))
                for target, kind, options in (("quick", "error", {}), ("slow", "latency", {"delay_seconds": 60.0})):
                    resilience.chaos.arm(ChaosConfig(kind, target, 1.0, 120.0, **options))
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    struck = "good"
    try:
        await (slow if scope["path"] == "/slow" else quick).acall(_callee)
    except InjectedFault:
        struck = "injected"
    body = f"{struck} {os.getpid()} {time.monotonic():.6f}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = ResilienceMiddleware(_answer, resilience)
