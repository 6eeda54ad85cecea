"""Where a function wants its endpoint, and where its key is: looked up once, when it is decorated."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from somaresil.config import Checker

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Place", "Routed", "place_of", "routed", "without_endpoints"]

_NAME = "endpoint"


class Place(NamedTuple):
    """Where the endpoint goes among the arguments of the caller, and where the key is among them."""

    position: int | None
    """Before which positional argument; None: by the keyword ``endpoint``."""
    key: str | None = None
    """The name of the parameter that holds the key."""
    key_position: int | None = None
    """Its place among the caller's positional arguments."""

    def put(self, endpoint: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of the caller with the endpoint."""
        at = self.position
        if at is None or at > len(args):
            return args, {**kwargs, _NAME: endpoint}
        return (*args[:at], endpoint, *args[at:]), kwargs

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """The key among the arguments of the caller; None when he has left it out."""
        if self.key in kwargs:
            return kwargs[self.key]
        at = self.key_position
        return args[at] if at is not None and at < len(args) else None


class Routed(functools.partial[Any]):
    """A function that a pool calls, with the place of its endpoint. Called by itself it is the function alone."""

    # Not `func`: a partial of a partial is made flat, and what the inner one holds would be lost.
    __slots__ = ("function", "place")
    function: Callable[..., Any]
    place: Place


def routed(function: Callable[..., Any], place: Place) -> Routed:
    """``function`` with its place."""
    made = Routed(function)
    made.function, made.place = function, place
    signature = without_endpoint(function, place)
    if signature is not None:
        # What is looked up by name among the caller's arguments (idempotent="key") is looked up in this.
        made.__dict__["__signature__"] = signature
    return made


def without_endpoints(function: Callable[..., Any], kind: type) -> Callable[..., Any]:
    """``function`` of the caller's arguments, for a guard that sees the endpoint among them; ``kind`` is the class of endpoints."""

    @functools.wraps(function)
    def asked(*args: Any, **kwargs: Any) -> Any:
        args = tuple(value for value in args if not isinstance(value, kind))
        return function(*args, **{name: value for name, value in kwargs.items() if not isinstance(value, kind)})

    return asked


def place_of(pool: str, function: Callable[..., Any], key: object) -> Place:
    """Where ``function`` takes its endpoint: in its parameter ``endpoint``, or in its first.

    ``key`` is what the pool was told; only the name of a parameter is looked for here. Raises
    :class:`~somaresil.errors.ConfigurationError` for a function that has no place for one of them.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        # Some builtins do not tell.
        return Place(0)
    check = Checker(f"pool({pool!r})")
    position = _position(check, function, parameters)
    if not isinstance(key, str):
        check.finish()
        return Place(position)
    positional = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
    if position is not None and position < len(positional):
        del positional[position]
    known = key in positional or any(p.name == key or p.kind is p.VAR_KEYWORD for p in parameters)
    if not known:
        allowed = f"one of the parameters of {_called(function)}"
        check.problem("key", key, allowed, "a function that knows no key wants a pool without one, or key= a function of the arguments")
    check.finish()
    return Place(position, key, positional.index(key) if key in positional else None)


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _position(check: Checker, function: Callable[..., Any], parameters: list[inspect.Parameter]) -> int | None:
    for position, parameter in enumerate(parameters):
        if parameter.name == _NAME and parameter.kind in _POSITIONAL:
            return position
        if parameter.name == _NAME and parameter.kind is parameter.KEYWORD_ONLY:
            return None
    if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
        hint = "let its first parameter be the endpoint, or one that is called `endpoint`"
        check.problem("target", function, "a function that takes an endpoint", hint)
    elif parameters[0].kind is inspect.Parameter.VAR_KEYWORD:
        return None
    return 0


def without_endpoint(function: Callable[..., Any], place: Place) -> inspect.Signature | None:
    """The signature that callers see; None when the function does not tell."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    at = place.position
    if at is not None and at < len(parameters) and parameters[at].kind in _POSITIONAL:
        del parameters[at]
    else:
        parameters = [parameter for parameter in parameters if parameter.name != _NAME]
    return signature.replace(parameters=parameters)


def _called(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)
