"""The route that took a request, as a template: a label that is bounded, where a path has no bound.

It is read after the framework has routed the request, from what it leaves in the scope; nothing is matched a second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    Scope = MutableMapping[str, Any]

__all__ = ["UNMATCHED", "route_template"]

UNMATCHED: Final = "__unmatched__"
"""Route label of a request that no route took."""


def route_template(scope: Scope, root: str = "") -> str:
    """The route that took a request, as a template: ``/v1/items/{id}``. ``root`` is the root path before routing.

    FastAPI keeps the full template aside when routers are nested. A mounted app leaves its prefix in ``root_path`` with real values in it,
    which are put back into the names of the path parameters; what is below a mount without a route of its own is ``/static/*``.
    """
    route = scope.get("route")
    path = getattr(route, "path", None)
    context = _fastapi_context(scope) if "fastapi" in scope else None
    if context is not None:
        original, own = getattr(context, "original_route", None), getattr(context, "starlette_route", None)
        # It stays in the scope when the request went on into a mounted app with routes of its own.
        if route is None or route is original or route is own:
            route = original
            path = getattr(context, "path", None) or getattr(own, "path", None)
    if isinstance(path, str) and not hasattr(route, "routes"):
        return path if scope.get("root_path", "") == root else _prefix(scope, root, path) + path
    prefix = _prefix(scope, root, "")
    if prefix:
        return f"{prefix}/*"
    endpoint = scope.get("endpoint")
    name = getattr(endpoint, "__qualname__", None)
    return UNMATCHED if name is None else f"endpoint:{getattr(endpoint, '__module__', '?')}.{name}"


def _fastapi_context(scope: Scope) -> Any:
    fastapi = scope.get("fastapi")
    return fastapi.get("effective_route_context") if isinstance(fastapi, dict) else None


def _prefix(scope: Scope, root: str, path: str) -> str:
    """The template of the mounts above a route: each of their parameters once, for they come first in the path."""
    now = str(scope.get("root_path", ""))
    if now == root:
        return ""
    parts: list[str] = now.removeprefix(root).split("/")
    for name, value in reversed((scope.get("path_params") or {}).items()):
        if f"{{{name}}}" not in path and f"{{{name}:" not in path and not _put_back(parts, name, value):
            # A converter has made something of it that cannot be found again; its raw text would be a label without end.
            return "/{mount}"
    return "/".join(parts)


def _put_back(parts: list[str], name: str, value: object) -> bool:
    """Whether ``value`` was found in ``parts`` and replaced by the name; from the right, where parameters are more often."""
    wanted = str(value).split("/")
    length = len(wanted)
    for start in range(len(parts) - length, 0, -1):
        found = parts[start : start + length]
        if found == wanted or (length == 1 and _reads_as(found[0], value)):
            parts[start : start + length] = [f"{{{name}}}"]
            return True
    return False


def _reads_as(text: str, value: object) -> bool:
    """Whether a converter of the framework makes ``value`` of ``text``: ``007`` and 7, ``1.50`` and 1.5, a UUID in capitals."""
    if isinstance(value, int | float):
        try:
            return float(text) == value
        except ValueError:
            return False
    return not isinstance(value, str) and text.casefold() == str(value).casefold()
