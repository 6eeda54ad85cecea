"""One instance as a process: ``python -m somaresil.drill.serve NAME DESCRIPTOR PARENT``.

The driver has bound the socket and hands it over, as in :mod:`somaresil.demo.serve`.
"""

from __future__ import annotations

import importlib
import socket
import sys

from somaresil.demo.leash import die_with
from somaresil.drill.topology import Settings, instances

__all__ = ["main"]


def main(name: str, descriptor: int, parent: int) -> None:
    """Serve until SIGTERM."""
    die_with(parent)
    import uvicorn

    from somaresil.demo.services.client import client
    from somaresil.drill.policies import Policies
    from somaresil.drill.services import build
    from somaresil.drill.store import InRedis

    # A limiter can be struck only where it is used, and tools use it from their first call on.
    importlib.import_module("anyio.to_thread")
    settings, policies = Settings.from_environment(), Policies()
    (instance,) = [each for each in instances() if each.name == name]
    service = build(instance, settings, policies, client(), InRedis(settings, policies))
    config = uvicorn.Config(
        service.app, log_level="error", access_log=False, lifespan="on", ws="none", timeout_graceful_shutdown=1, timeout_keep_alive=60
    )
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
