"""How a service is put together: names of guards, breakers, the middleware, objectives."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Final

from somaresil.doctor.findings import Finding
from somaresil.doctor.source import Function

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from somaresil.doctor.source import Source

__all__ = ["APPS", "look_at_guards", "look_at_middleware", "look_at_objectives"]

APPS: Final = ("fastapi.FastAPI", "starlette.applications.Starlette", "django.core.asgi.get_asgi_application")
"""What makes an ASGI app."""
_MIDDLEWARE: Final = "ResilienceMiddleware"
_OBJECTIVES: Final = frozenset({"read_slos", "slos"})


def look_at_guards(source: Source) -> Iterator[Finding]:
    """Names that are made at run time, and breakers of others that cannot work."""
    for call in source.guard_calls():
        name = call.args[0]
        if isinstance(name, ast.JoinedStr | ast.BinOp) and source.function_of(call) is not None:
            yield Finding(source.path, call.lineno, call.col_offset + 1, "SR102", ast.unparse(name)[:80])
    for call in source.calls:
        if source.name_of(call.func) == "pybreaker.CircuitBreaker" and _runs_often(source, call):
            yield Finding(source.path, call.lineno, call.col_offset + 1, "SR104", "pybreaker.CircuitBreaker")
    breakers = {
        target.id
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and source.name_of(node.value.func) == "pybreaker.CircuitBreaker"
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.AsyncFunctionDef):
            for decorator in node.decorator_list:
                plain = decorator.func if isinstance(decorator, ast.Call) else decorator
                if isinstance(plain, ast.Name) and plain.id in breakers:
                    yield Finding(source.path, decorator.lineno, decorator.col_offset + 1, "SR103", f"@{plain.id} on {node.name}")


def _runs_often(source: Source, call: ast.Call) -> bool:
    """Whether it stands in a coroutine function, or in a function with a decorator: those are called for every request."""
    function = source.function_of(call)
    return (
        function is not None
        and function.name != "__init__"
        and (isinstance(function, ast.AsyncFunctionDef) or bool(function.decorator_list))
    )


def look_at_middleware(sources: Sequence[Source]) -> Iterator[Finding]:
    """Apps without it, and where it stands."""
    somewhere = any(isinstance(node, ast.Name) and node.id == _MIDDLEWARE for source in sources for node in ast.walk(source.tree))
    for source in sources:
        for call in source.calls:
            name = source.name_of(call.func)
            if name in APPS and not somewhere:
                yield Finding(source.path, call.lineno, call.col_offset + 1, "SR301", name)
        yield from _orders(source)
        yield from _base_http(source)


def _orders(source: Source) -> Iterator[Finding]:
    added = sorted((call for call in source.calls if _adds(call)), key=lambda call: call.lineno)
    ours = [call for call in added if _first_name(call) == _MIDDLEWARE]
    decorated = [
        decorator
        for node in ast.walk(source.tree)
        if isinstance(node, Function)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute) and decorator.func.attr == "middleware"
    ]
    for call in ours:
        later = [
            other for other in (*added, *decorated) if other.lineno > call.lineno and source.function_of(other) is source.function_of(call)
        ]
        if later:
            yield Finding(source.path, call.lineno, call.col_offset + 1, "SR302", f"another is added in line {later[0].lineno}")
    for call in source.calls:
        named = source.name_of(call.func) or ""
        if (named.rpartition(".")[2] == _MIDDLEWARE or call in ours) and not any(keyword.arg in {"slo", None} for keyword in call.keywords):
            yield Finding(source.path, call.lineno, call.col_offset + 1, "SR402", "")


def _adds(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "add_middleware" and bool(call.args)


def _first_name(call: ast.Call) -> str:
    node = call.args[0]
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _base_http(source: Source) -> Iterator[Finding]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                if (source.name_of(base) or "").rpartition(".")[2] == "BaseHTTPMiddleware":
                    yield Finding(source.path, node.lineno, node.col_offset + 1, "SR303", node.name)


def look_at_objectives(sources: Sequence[Source]) -> Iterator[Finding]:
    """Guards in a project that has no objective at all."""
    named = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute | ast.Name)
    }
    if named & _OBJECTIVES:
        return
    for source in sources:
        first = next(source.guard_calls(), None)
        if first is not None and source.imports("somaresil"):
            yield Finding(source.path, first.lineno, first.col_offset + 1, "SR401", "")
            return
