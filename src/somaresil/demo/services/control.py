"""The operator's side of the gateway: start experiments, stop them all, look. Only on loopback, only with the token of this run."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any, Final

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from somaresil.demo.state import describe
from somaresil.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from somaresil.demo.services.witness import Witness
    from somaresil.resilience import Resilience

__all__ = ["ACTIONS", "build"]

ACTIONS: Final = ("inject_latency", "inject_errors", "trip_circuit_breaker")
"""The methods of :class:`~somaresil.chaos.engine.ChaosEngine` that can be asked for, with their arguments by name."""

_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


def build(resilience: Resilience, witness: Witness, token: str, *, waiting: Callable[[], int]) -> ASGIApp:
    """The application below ``/_soma/``; ``waiting`` gives the length of the outbox."""

    async def state(_: Request) -> Response:
        return JSONResponse({**describe(resilience), "waiting": waiting(), "fallbacks": dict(witness.fallbacks)})

    async def touched(_: Request) -> Response:
        return JSONResponse(
            {
                "by_request": dict(witness.touched_by_request),
                "by_ending": {guard: dict(endings) for guard, endings in witness.touched_by_ending.items()},
            }
        )

    async def start(request: Request) -> Response:
        wanted: dict[str, Any] = await request.json()
        action = wanted.pop("action", None)
        if action not in ACTIONS:
            return JSONResponse({"error": f"action = {action!r}: expected one of {', '.join(ACTIONS)}"}, 400)
        try:
            run = await getattr(resilience.chaos, action)(**wanted)
        except (ConfigurationError, TypeError) as error:
            return JSONResponse({"error": str(error)}, 400)
        return JSONResponse({"id": run.id})

    async def stop(_: Request) -> Response:
        resilience.chaos.stop_all()
        return JSONResponse({"injected": sum(run.injected for run in resilience.chaos.history)})

    inner = Starlette(
        routes=[
            Route("/_soma/state", state),
            Route("/_soma/touched", touched),
            Route("/_soma/experiments", start, methods=["POST"]),
            Route("/_soma/stop", stop, methods=["POST"]),
        ]
    )
    expected = f"Bearer {token}".encode()

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        given = dict(scope["headers"]).get(b"authorization", b"")
        host = (scope.get("client") or ("",))[0]
        if host not in _LOOPBACK or not hmac.compare_digest(given, expected):
            await JSONResponse({"error": "this needs the token of the demo's driver"}, 403)(scope, receive, send)
            return
        await inner(scope, receive, send)

    return guarded
