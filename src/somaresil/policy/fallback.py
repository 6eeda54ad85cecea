"""Fallback: a lesser answer instead of none.

The outermost policy but for recording, so it also answers for calls that were rejected or timed out, and the call counts as good: the
caller was served. The event says that it was the fallback that served.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker
from somaresil.events import FallbackUsed
from somaresil.runtime import original

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["Fallback", "FallbackPolicy"]


@dataclass(frozen=True, slots=True)
class Fallback:
    """``handler`` is called with the arguments of the call when it failed with one of ``on``.

    It is of the same kind as the guarded function: a coroutine function or a plain one for a coroutine function, something that returns an
    iterable for a generator, and for an async generator something that returns, now or when awaited, an iterable of either kind.
    Cancellation and exit are not answered.
    """

    handler: Callable[..., Any]
    on: type[Exception] | tuple[type[Exception], ...] = Exception

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("Fallback")
        if not callable(self.handler):
            check.problem("handler", self.handler, "a function", "to answer with a constant, write lambda *args, **kwargs: value")
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not kinds or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            check.problem("on", self.on, "exception types", "subclasses of Exception; cancellation and exit are never answered")
        check.finish()

    def build(self, site: Site) -> FallbackPolicy:  # noqa: ARG002 - it needs nothing
        """The fallback at work."""
        return FallbackPolicy(self)


class FallbackPolicy:
    """A fallback at work."""

    quiet = True

    def __init__(self, options: Fallback) -> None:
        """Keep the options."""
        self.reconfigure(options)

    def reconfigure(self, options: Fallback) -> None:
        """Answer otherwise from now on."""
        self.options = options
        self._suspends = inspect.iscoroutinefunction(options.handler) or inspect.isasyncgenfunction(options.handler)

    async def __call__(self, inner: Next, call: Call) -> Any:
        """The answer of the callee, or that of the handler."""
        try:
            return await inner(call)
        except Exception as caught:
            if not isinstance(original(caught), self.options.on):
                raise
            if self._suspends and call.runtime.blocking:
                # Given by `configure` to a guard whose functions are not asynchronous: the answer would be a coroutine nobody awaits.
                wrong = TypeError("a synchronous call cannot await its fallback")
                call.listeners.defect(f"fallback of guard {call.guard}", wrong, call.clock.time(), "the error of the call was raised")
                raise
            kind = type(original(caught)).__qualname__
            if call.listeners.wants(FallbackUsed):
                call.listeners.emit(FallbackUsed(call.guard, call.clock.time(), kind))
            return await call.invoke(self.options.handler)
