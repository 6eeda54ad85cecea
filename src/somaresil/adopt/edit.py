"""How a module with an ASGI app is changed: where the app is made, what goes in, and where.

Lines are put in, and none is taken away or moved. What is made of it is compiled before anybody sees it.
"""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["AdoptionError", "AlreadyThere", "adopted", "service_name"]

_CLASSES: Final = {"fastapi.FastAPI", "starlette.applications.Starlette"}
_DJANGO: Final = "django.core.asgi.get_asgi_application"
_OURS: Final = "ResilienceMiddleware"
_OBJECTIVE: Final = "api_availability"
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/{}-]{1,120}")


class AdoptionError(Exception):
    """It is not known what to change: why, and what to do."""


class AlreadyThere(Exception):
    """The middleware is there."""


@dataclass(frozen=True, slots=True)
class _App:
    """Where an app is made, and how it can be wrapped."""

    name: str
    node: ast.stmt
    function: ast.FunctionDef | None
    """The factory that makes it; None: the module does."""
    wraps: bool
    """Whether the name is wrapped; otherwise the middleware is added to the app."""


def service_name(text: str) -> str:
    """A name for the service, made of that of its folder."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "service"
    return name[:60]


def adopted(text: str, *, service: str, app: str | None = None) -> str:
    """The text of the module with the middleware. ``app``: the name of the app, when there are several.

    Raises :class:`AdoptionError` when it is not known what to change, :class:`AlreadyThere` when it has been done.
    """
    if not _NAME.fullmatch(service):
        raise AdoptionError(f"the name of the service, {service!r}, has other characters than A-Z a-z 0-9 _ . : / -")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as broken:
        # The last two are of a parser whose stack is full.
        raise AdoptionError(f"it is no Python: {broken}") from None
    if any(
        isinstance(node, ast.Name | ast.alias) and _OURS in {getattr(node, "id", ""), getattr(node, "name", "")} for node in ast.walk(tree)
    ):
        raise AlreadyThere
    taken = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | {name for name, _ in _imports(tree)}
    if "resilience" in taken:
        raise AdoptionError("the name `resilience` is taken in it: add the middleware by hand, see docs/guides/asgi.md")
    found = _chosen(list(_apps(tree)), app)
    lines = text.splitlines(keepends=True)
    ending = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    if lines and not lines[-1].endswith(("\n", "\r")):
        lines[-1] += ending
    for at, added in sorted(_insertions(tree, found, service, taken), key=lambda each: -each[0]):
        lines[at:at] = [f"{line}{ending}" if line else ending for line in added]
    changed = "".join(lines)
    try:
        with warnings.catch_warnings():
            # Of what the user has written: whoever runs it is told.
            warnings.simplefilter("ignore")
            compile(changed, "changed", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as broken:
        raise AdoptionError(f"with the middleware it would be no Python any more ({broken}): add it by hand") from None
    return changed


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Names, and what they stand for."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _apps(tree: ast.Module) -> Iterator[_App]:
    known = dict(_imports(tree))
    last: dict[str, _App] = {}
    for node in tree.body:
        last.update({app.name: app for app in _made_by(node, None, known)})
        if isinstance(node, ast.FunctionDef):
            for inner in node.body:
                yield from _made_by(inner, node, known)
        elif isinstance(node, ast.Assign):
            # A router around Django's application is what the server gets.
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id in last and last[target.id].wraps:
                    last[target.id] = _App(target.id, node, None, wraps=True)
    yield from last.values()


def _made_by(node: ast.stmt, function: ast.FunctionDef | None, known: dict[str, str]) -> Iterator[_App]:
    if isinstance(node, ast.AnnAssign) and node.value is not None and isinstance(node.target, ast.Name):
        names, value = [node.target.id], node.value
    elif isinstance(node, ast.Assign):
        names, value = [target.id for target in node.targets if isinstance(target, ast.Name)], node.value
    else:
        return
    made = _dotted(value.func, known) if isinstance(value, ast.Call) else None
    if made in _CLASSES or made == _DJANGO:
        for name in names:
            yield _App(name, node, function, wraps=made == _DJANGO)


def _dotted(node: ast.expr, known: dict[str, str]) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([known.get(node.id, node.id), *reversed(parts)])


def _chosen(found: list[_App], name: str | None) -> _App:
    if not found:
        raise AdoptionError("no FastAPI(), Starlette() or get_asgi_application() is given a name in it: name the file that makes the app")
    if name is not None:
        found = [each for each in found if each.name == name]
        if not found:
            raise AdoptionError(f"no app is called {name!r} in it")
    if len(found) > 1:
        raise AdoptionError(f"there are several apps: --app {' or --app '.join(sorted({each.name for each in found}))}")
    return found[0]


def _insertions(tree: ast.Module, app: _App, service: str, taken: set[str]) -> Iterator[tuple[int, list[str]]]:
    """Lines, and the number of the line that they stand after."""
    imports = [f"from somaresil import SLO, Resilience, {_OURS}"]
    known = dict(_imports(tree))
    delta = next((name for name, about in known.items() if about == "datetime.timedelta"), None)
    if delta is None:
        if "timedelta" in taken:
            raise AdoptionError("the name `timedelta` is taken in it by something else: add the middleware by hand")
        imports.insert(0, "from datetime import timedelta")
        delta = "timedelta"
    after = _end_of_imports(tree, app)
    objective = [
        "",
        f'resilience = Resilience("{service}")',
        f'resilience.slos.add(SLO("{_OBJECTIVE}", 99.9, {delta}(days=30)))',
    ]
    yield after, [*imports, *objective]
    if app.wraps:
        yield _end(app.node), [f'{app.name} = {_OURS}({app.name}, resilience, slo="{_OBJECTIVE}")']
        return
    line = f'{app.name}.add_middleware({_OURS}, resilience=resilience, slo="{_OBJECTIVE}")'
    if app.function is None:
        yield _last_line_for(tree, app), ["", "# The last that is added is the outermost: it sees what clients get.", line]
        return
    inner = {
        each for node in ast.walk(app.function) if node is not app.function and isinstance(node, _FUNCTIONS) for each in ast.walk(node)
    }
    returns = [node for node in ast.walk(app.function) if isinstance(node, ast.Return) and node not in inner]
    if len(returns) != 1 or returns[0] is not app.function.body[-1]:
        raise AdoptionError(f"{app.function.name}() does not end with one return: add the middleware by hand, as the last one")
    indent = " " * returns[0].col_offset
    yield returns[0].lineno - 1, [f"{indent}{line}"]


def _end_of_imports(tree: ast.Module, app: _App) -> int:
    """The line after the last import before the app is made, or after the docstring."""
    after = 0
    made = app.node.lineno if app.function is None else app.function.lineno
    for node in tree.body:
        if node.lineno >= made:
            break
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if isinstance(node, ast.Import | ast.ImportFrom) or (docstring and node is tree.body[0]):
            after = _end(node)
    return after


def _last_line_for(tree: ast.Module, app: _App) -> int:
    """Where the module ends, or what runs it as a program begins."""
    for node in tree.body:
        if isinstance(node, ast.If) and "__name__" in ast.unparse(node.test) and node.lineno > app.node.lineno:
            return node.lineno - 1
    return _end(tree.body[-1])


def _end(node: ast.stmt) -> int:
    return node.end_lineno or node.lineno
