"""How HTTP is spoken in the demo."""

from __future__ import annotations

import httpx

__all__ = ["client"]


def client() -> httpx.AsyncClient:
    """A client for loopback. It has no timeouts and no limit of connections: the guard around each call has both, with a name.

    A limit here would do harm: httpcore 1.0.9 loses a place of its pool when a request is cancelled at the wrong moment (encode/httpcore
    #1093). Under overload, when timeouts cancel by the hundred, a limited pool runs empty and stays so, however well the other side is.
    """
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    # trust_env=False: a proxy that is set for the outside world has no business on loopback.
    return httpx.AsyncClient(timeout=None, limits=limits, trust_env=False, verify=False)  # noqa: S113, S501 - as said; plain HTTP anyway
