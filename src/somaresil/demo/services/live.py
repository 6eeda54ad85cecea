"""One of several processes of the gateway: the same service, with the dashboard at ``/_soma``.

Each answer ends its connection, so that every request is dealt to one of the processes by chance, and header ``x-served-by`` says to which.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from somaresil.dashboard import BearerToken
from somaresil.demo.services.gateway import assemble
from somaresil.demo.services.plans import PLANS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from somaresil.demo.settings import LiveSettings

__all__ = ["build"]

MOUNT: Final = "/_soma"


def build(settings: LiveSettings) -> ASGIApp:
    """The application."""
    parts = assemble(settings, str(Path(settings.workers).parent / "rollout.json"))
    page: Any = parts.resilience.dashboard(
        auth=BearerToken({settings.actor: settings.token}, basic=True),
        at=MOUNT,
        challenge="basic",
        workers=settings.workers,
        plans=PLANS,
    )
    mark = [(b"connection", b"close"), (b"x-served-by", settings.name.encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            try:
                await parts.service(scope, receive, send)
            finally:
                page.stop()
                for canary in parts.resilience.canaries.values():
                    canary.stop()
            return
        # What operators ask is no traffic of users: it would make the availability look better than it is.
        path = scope.get("path", "")
        if path == MOUNT or path.startswith(f"{MOUNT}/"):
            await page({**scope, "root_path": f"{scope.get('root_path', '')}{MOUNT}"}, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *mark]}
            await send(message)

        inner = parts.metrics if path == "/metrics" else parts.api if path == "/health" else parts.service
        await inner(scope, receive, marked)

    return app
