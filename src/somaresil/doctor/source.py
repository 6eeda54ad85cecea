"""One file of Python, read and not run: what its names stand for, who encloses whom, and which functions are guarded."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Function", "Source"]

Function = ast.FunctionDef | ast.AsyncFunctionDef
_IGNORED: Final = re.compile(r"#\s*somaresil:\s*ignore\[([A-Z0-9, ]+)\]")
_GUARDS: Final = frozenset({"guard", "pool", "canary"})


class Source:
    """A module. Names are followed within it and no further."""

    def __init__(self, path: Path, text: str) -> None:
        """Raises ``SyntaxError`` or ``ValueError`` for what is no Python."""
        self.path = path
        self.tree = ast.parse(text)
        self.calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]
        self._parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}
        self._ignored = {
            number: {code.strip() for code in found[1].split(",")}
            for number, line in enumerate(text.splitlines(), 1)
            if (found := _IGNORED.search(line)) is not None
        }
        self._imported = dict(self._imports())
        self._made = dict(self._makes())
        self._named_guards = {name for name, call in self._assigned() if self.is_guard(call)}
        self._guarded = self._guarded_functions()

    def ignores(self, line: int, code: str) -> bool:
        """Whether a comment on the line says so."""
        return code in self._ignored.get(line, ())

    # -- names --------------------------------------------------------------------------------------------------------------------------

    def _imports(self) -> Iterator[tuple[str, str]]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    yield alias.asname or first, alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    yield alias.asname or alias.name, f"{node.module}.{alias.name}"

    def imports(self, module: str) -> bool:
        """Whether something of this module is imported."""
        return any(name == module or name.startswith(f"{module}.") for name in self._imported.values())

    def _assigned(self) -> Iterator[tuple[str, ast.Call]]:
        """Names that a call gives its result, also of ``with`` and of attributes of ``self``."""
        for node in ast.walk(self.tree):
            targets: list[ast.expr] = []
            value: ast.expr | None = None
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
                targets, value = [node.target], node.value
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                targets, value = [node.optional_vars], node.context_expr
            if isinstance(value, ast.Await):
                value = value.value
            if isinstance(value, ast.Call):
                for target in targets:
                    name = _chain(target)
                    if name is not None:
                        yield name, value

    def _makes(self) -> Iterator[tuple[str, str]]:
        for name, call in self._assigned():
            made = self._plain(call.func)
            if made is not None:
                yield name, made
        for node in ast.walk(self.tree):
            if isinstance(node, ast.arg) and node.annotation is not None:
                annotated = self._plain(node.annotation)
                if annotated is not None and "." in annotated:
                    yield node.arg, annotated

    def _plain(self, node: ast.expr) -> str | None:
        name = _chain(node)
        if name is None:
            return None
        first, dot, rest = name.partition(".")
        return f"{self._imported.get(first, first)}{dot}{rest}"

    def name_of(self, node: ast.expr) -> str | None:
        """The dotted name that an expression stands for, imports and what names were made by resolved: ``httpx.AsyncClient.get``."""
        name = _chain(node)
        if name is None:
            # A call on what a call has just made.
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Call):
                made = self._plain(node.value.func)
                return None if made is None else f"{made}.{node.attr}"
            return None
        parts = name.split(".")
        for length in range(len(parts), 0, -1):
            made = self._made.get(".".join(parts[:length]))
            if made is not None and length < len(parts):
                return ".".join([made, *parts[length:]])
        return self._plain(node)

    # -- who encloses whom ---------------------------------------------------------------------------------------------------------------

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """What encloses it, from the inside out."""
        while (parent := self._parents.get(node)) is not None:
            yield parent
            node = parent

    def function_of(self, node: ast.AST) -> Function | None:
        """The function that it stands in."""
        return next((each for each in self.around(node) if isinstance(each, Function)), None)

    # -- guards ---------------------------------------------------------------------------------------------------------------------------

    def is_guard(self, node: ast.AST) -> bool:
        """Whether this expression is a guard: ``resilience.guard(...)``, a name that was given one, or ``.keyed(...)`` of one."""
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr in _GUARDS and bool(node.args):
                return True
            return isinstance(node.func, ast.Attribute) and node.func.attr == "keyed"
        name = _chain(node) if isinstance(node, ast.expr) else None
        return name is not None and name in getattr(self, "_named_guards", ())

    def guard_calls(self) -> Iterator[ast.Call]:
        """Every ``....guard(...)``."""
        yield from (call for call in self.calls if isinstance(call.func, ast.Attribute) and call.func.attr == "guard" and call.args)

    def guarded(self, node: ast.AST) -> bool:
        """Whether a call here goes through a guard, as far as this module can tell."""
        return any(
            (isinstance(each, Function) and each in self._guarded)
            or (isinstance(each, ast.With | ast.AsyncWith) and any(self.is_guard(item.context_expr) for item in each.items))
            or (isinstance(each, ast.ClassDef) and any(self.is_guard(decorator) for decorator in each.decorator_list))
            for each in self.around(node)
        )

    def _guarded_functions(self) -> set[Function]:
        functions = [node for node in ast.walk(self.tree) if isinstance(node, Function)]
        wrapped = {
            name
            for call in self.calls
            if self.is_guard(call.func) or (isinstance(call.func, ast.Attribute) and call.func.attr in {"call", "acall"})
            for argument in call.args
            if (name := _chain(argument)) is not None
        }
        self._guarded = {
            each
            for each in functions
            if any(self.is_guard(decorator) for decorator in each.decorator_list) or each.name in wrapped or f"self.{each.name}" in wrapped
        }
        callers: dict[str, list[ast.Call]] = {}
        for call in self.calls:
            name = _chain(call.func)
            if name is not None:
                callers.setdefault(name.rpartition(".")[2], []).append(call)
        # A helper that is called by guarded functions alone is guarded by them.
        grown = True
        while grown:
            more = {
                each
                for each in functions
                if each not in self._guarded and (known := callers.get(each.name)) and all(self.guarded(call) for call in known)
            }
            self._guarded |= more
            grown = bool(more)
        return self._guarded


def _chain(node: ast.expr) -> str | None:
    """``a.b.c`` as it is written."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])
