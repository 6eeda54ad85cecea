"""Where a call stands: the guards that it runs in, and the scope that its caller has named.

Both are context variables, so they follow tasks and ``asyncio.to_thread``. The path is kept only while a fault point has rules: a quiet
call pays nothing for it. A path tells the same call apart from run to run (Filibuster calls this the execution index: call path and
number); a scope does so for the same *request*, however requests interleave.

A path knows decorated calls and ``guard.call``; the body of a ``with`` block or of a stream that has begun is no part of it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from somaresil.config import Checker

if TYPE_CHECKING:
    from collections.abc import Generator
    from contextvars import Token

__all__ = ["current_path", "current_scope", "enter", "leave", "scope"]

_path: ContextVar[str] = ContextVar("somaresil_path", default="")
_scope: ContextVar[str] = ContextVar("somaresil_scope", default="")


def current_path() -> str:
    """The guards around, outermost first: ``agent.turn > llm.invoke``."""
    return _path.get()


def current_scope() -> str:
    """What the caller has named, outermost first: ``request-17/step-2``; empty when nobody has."""
    return _scope.get()


def enter(guard: str) -> Token[str]:
    """Step into the callee of a guard; give the token back to :func:`leave`."""
    outer = _path.get()
    return _path.set(f"{outer} > {guard}" if outer else guard)


def leave(token: Token[str]) -> None:
    """Step out again."""
    try:
        _path.reset(token)
    except ValueError:
        # A coroutine that is closed by the garbage collector ends in another context, which has a path of its own.
        return


@contextmanager
def scope(name: str) -> Generator[None]:
    """Name the request (or client, or task) whose calls follow: experiments then decide about its *n*-th call of a guard.

    Without a scope all calls of a guard share one sequence, and which of several concurrent ones is the *n*-th is up to their timing.
    With one, the same request gets the same faults under any interleaving. Scopes nest. Raises
    :class:`~somaresil.errors.ConfigurationError` for what is no name.
    """
    check = Checker("scope")
    check.name("name", name)
    check.finish()
    outer = _scope.get()
    token = _scope.set(f"{outer}/{name}" if outer else name)
    try:
        yield
    finally:
        _scope.reset(token)
