"""One service of the demo as a process: ``python -m somaresil.demo.serve ROLE DESCRIPTOR PARENT``.

The driver has bound the socket and hands it over, so a port is never free between being chosen and being used, and requests that come
before the service is ready wait in its backlog.
"""

from __future__ import annotations

import importlib
import socket
import sys
from typing import Final

from somaresil.demo.leash import die_with
from somaresil.demo.settings import CanarySettings, LiveSettings, Settings

__all__ = ["CANARY_ROLES", "LIVE", "main"]

CANARY_ROLES: Final = ("split", "steer", "version")
"""Services of the demo of a canary."""
LIVE: Final = "live"
"""A gateway with the dashboard."""


def main(role: str, descriptor: int, parent: int) -> None:
    """Serve until SIGTERM."""
    die_with(parent)
    import uvicorn

    service = importlib.import_module(f"somaresil.demo.services.{role}")
    settings = CanarySettings if role in CANARY_ROLES else LiveSettings if role == LIVE else Settings
    app = service.build(settings.from_environment())
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=1,
        # Longer than httpx keeps a connection: else the server closes one in the moment in which the client picks it.
        timeout_keep_alive=30,
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
