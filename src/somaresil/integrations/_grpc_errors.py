"""Errors of gRPC for plans that name them, by their status code."""

from __future__ import annotations

import grpc
import grpc.aio

__all__ = ["make"]


def make(name: str) -> Exception:
    """The end of an RPC with this code. That of the asynchronous API is a ``grpc.RpcError`` as well, which is what both kinds catch."""
    nothing = grpc.aio.Metadata()
    error: Exception = grpc.aio.AioRpcError(getattr(grpc.StatusCode, name), nothing, nothing, "fault injected by a chaos experiment")
    return error
