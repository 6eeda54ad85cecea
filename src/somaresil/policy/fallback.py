"""Fallback: a lesser answer instead of none.

The outermost policy but for recording, so it also answers for calls that were rejected or timed out, and the call counts as good: the
caller was served. The event says that it was the fallback that served.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import KW_ONLY, dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker
from somaresil.events import FallbackUsed
from somaresil.runtime import original

if TYPE_CHECKING:
    from collections.abc import Callable

    from somaresil.site import Site
    from somaresil.typing import Call, Next

__all__ = ["Fallback", "FallbackPolicy", "Fallbacks"]


@dataclass(frozen=True, slots=True)
class Fallback:
    """``handler`` is called with the arguments of the call when it failed with one of ``on``, or was answered with what ``when`` refuses.

    It is of the same kind as the guarded function: a coroutine function or a plain one for a coroutine function, something that returns an
    iterable for a generator, and for an async generator something that returns, now or when awaited, an iterable of either kind.
    Cancellation and exit are not answered.
    """

    handler: Callable[..., Any]
    """Answers."""
    on: type[Exception] | tuple[type[Exception], ...] = Exception
    """The errors it answers for; ``()`` with ``when``: for none."""
    _: KW_ONLY
    when: Callable[[Any], object] | None = None
    """A function of the answer: true when that is no better than an error. Streams are not asked about."""
    needs_error: bool = False
    """Give the error to ``handler``, before the arguments of the call; None when it was the answer that was refused."""
    shadow: bool = False
    """Count the calls that it would have answered, and answer none."""

    def __post_init__(self) -> None:
        """Check everything."""
        check = Checker("Fallback")
        if not callable(self.handler):
            check.problem("handler", self.handler, "a function", "to answer with a constant, write lambda *args, **kwargs: value")
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        known = all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds)
        if not known or not (kinds or self.when is not None):
            check.problem("on", self.on, "exception types", "subclasses of Exception; cancellation and exit are never answered")
        if self.when is not None and (not callable(self.when) or inspect.iscoroutinefunction(self.when)):
            check.problem("when", self.when, "a plain function of the answer")
        check.type("needs_error", self.needs_error, bool, "True or False")
        check.type("shadow", self.shadow, bool, "True or False")
        check.finish()

    @property
    def links(self) -> tuple[Fallback, ...]:
        """Itself: a chain of one."""
        return (self,)

    def build(self, site: Site) -> FallbackPolicy:
        """The fallback at work."""
        return FallbackPolicy(self, site)


@dataclass(frozen=True, slots=True)
class Fallbacks:
    """Several, tried in their order: the first that answers for this error, and whose handler does not fail, has the word.

    Made by a guard of ``fallback=[...]``. When every handler fails, the error of the last one goes to the caller. The first may be a
    :class:`~somaresil.policy.stale.StaleCache`, which has to see what the dependency itself answers.
    """

    given: tuple[Any, ...]

    @property
    def links(self) -> tuple[Fallback, ...]:
        """Those with a handler."""
        return tuple(link for link in self.given if isinstance(link, Fallback))

    @property
    def cache(self) -> Any:
        """The options of the cache that stands first, if one does."""
        return None if isinstance(self.given[0], Fallback) else self.given[0]

    def unfit(self, *, suspends: bool, streams: bool) -> tuple[str, str] | None:
        """What may not be guarded with it: what is allowed instead, and what to do."""
        found: tuple[str, str] | None = None if self.cache is None else self.cache.unfit(suspends=suspends, streams=streams)
        return found

    def build(self, site: Site) -> FallbackPolicy:
        """The fallbacks at work."""
        return FallbackPolicy(self, site)


class FallbackPolicy:
    """Fallbacks at work."""

    def __init__(self, options: Fallback | Fallbacks, site: Site) -> None:
        """Answer by these options."""
        self._site = site
        self.cache: Any = None
        """The cache that stands first, if one does."""
        self.reconfigure(options)

    @property
    def quiet(self) -> bool:
        """Whether it needs no look at a call that ended well."""
        return self.cache is None and not self._judges

    def reconfigure(self, options: Fallback | Fallbacks) -> None:
        """Answer otherwise from now on; a cache keeps what it knows."""
        self.options = options
        self._links = options.links
        self._judges = any(link.when is not None for link in options.links)
        cache = getattr(options, "cache", None)
        if cache is None:
            self.cache = None
        elif self.cache is None:
            self.cache = cache.build(self._site)
        else:
            self.cache.reconfigure(cache)

    async def __call__(self, inner: Next, call: Call) -> Any:
        """The answer of the callee, or that of a handler."""
        if self.cache is not None:
            inner = MethodType(self.cache.__call__, inner)
        try:
            result = await inner(call)
        except Exception as caught:
            links = [link for link in self._links if isinstance(original(caught), link.on) and self._may(link, call)]
            if not links:
                raise
            return await self._answer(links, call, original(caught))
        if not self._judges or call.lasting:
            return result
        links = [link for link in self._links if self._refuses(link, call, result) and self._may(link, call)]
        return await self._answer(links, call, None) if links else result

    async def _answer(self, links: list[Fallback], call: Call, error: Exception | None) -> Any:
        """What the first of ``links`` says whose handler does not fail."""
        handler: Callable[..., Any] | None = None
        try:
            for link in links:
                if call.listeners.wants(FallbackUsed):
                    kind = "refused answer" if error is None else type(error).__qualname__
                    call.listeners.emit(FallbackUsed(call.guard, call.clock.time(), kind, _name_of(link.handler)))
                handler = functools.partial(link.handler, error) if link.needs_error else link.handler
                try:
                    return await call.invoke(handler)
                except Exception:
                    if link is links[-1]:
                        raise
        finally:
            # This frame may be on the traceback of the error: without this the two would keep each other alive.
            error = handler = None
        raise RuntimeError("no fallback was asked")

    def _refuses(self, link: Fallback, call: Call, result: object) -> bool:
        if link.when is None:
            return False
        try:
            return bool(link.when(result))
        except Exception as broken:  # noqa: BLE001 - a predicate that fails does not take an answer away
            call.listeners.defect(f"when of the fallback of guard {call.guard}", broken, call.clock.time(), "the answer was given")
            return False

    def _may(self, link: Fallback, call: Call) -> bool:
        if call.blocking and _suspends(link.handler):
            # Given by `configure` to a guard whose functions are not asynchronous: the answer would be a coroutine nobody awaits.
            wrong = TypeError("a synchronous call cannot await its fallback")
            call.listeners.defect(f"fallback of guard {call.guard}", wrong, call.clock.time(), "it was not asked")
            return False
        if link.shadow:
            self._site.shadow.note("fallback", "answer", _name_of(link.handler))
            return False
        return True


def _suspends(handler: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler)


def _name_of(handler: Callable[..., Any]) -> str:
    name: str = getattr(handler, "__qualname__", type(handler).__qualname__)
    return name
