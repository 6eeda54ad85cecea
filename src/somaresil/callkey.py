"""Which calls ask for the same: the key under which an answer is remembered or shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from somaresil.typing import Call

__all__ = ["key_of"]


def key_of(call: Call, chosen: Callable[..., Hashable] | None) -> Hashable:
    """The function and all its arguments, which are compared as a dictionary compares its keys; or its name and what ``chosen`` returns.

    ``chosen`` is called with the arguments of the call. Raises what it raises, and ``TypeError`` for what has no hash.
    """
    key: Hashable
    if chosen is None:
        key = (call.function, call.args, tuple(sorted(call.kwargs.items(), key=_name)) if call.kwargs else ())
    else:
        key = (_home(call.function), chosen(*call.args, **call.kwargs))
    hash(key)
    return key


def _name(item: tuple[str, Any]) -> str:
    return item[0]


def _home(function: Any) -> tuple[object, object]:
    """Module and name of a function, so that two functions of one guard do not answer for one another."""
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)
