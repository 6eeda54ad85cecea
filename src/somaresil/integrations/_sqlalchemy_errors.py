"""Errors of SQLAlchemy for plans that name them."""

from __future__ import annotations

from sqlalchemy import exc

__all__ = ["make"]

_TEXT = "fault injected by a chaos experiment"


def make(name: str) -> Exception:
    """The error of this name; those that wrap an error of the driver wrap one."""
    if name == "TimeoutError":
        return exc.TimeoutError(_TEXT)
    kind: type[exc.DBAPIError] = getattr(exc, name)
    return kind(None, None, OSError(_TEXT))
