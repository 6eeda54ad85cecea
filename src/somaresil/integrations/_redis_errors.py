"""Errors of redis-py for plans that name them."""

from __future__ import annotations

from redis import exceptions

__all__ = ["make"]


def make(name: str) -> Exception:
    """The error of this name."""
    kind: type[Exception] = getattr(exceptions, name)
    return kind("fault injected by a chaos experiment")
