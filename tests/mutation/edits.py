"""Small wrong changes to the bodies of functions, one at a time and always in the same order.

Left alone are what stands outside of functions, annotations, defaults of parameters, docstrings, and texts with a space in them: people
read those, and a test that repeats them would prove nothing.
"""

from __future__ import annotations

import ast
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Made = Callable[[], tuple[Callable[[], None], str]]
    Edit = tuple[ast.AST, Made]

__all__ = ["Mutant", "mutants"]

_SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Div,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_LONGEST = 90


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong change."""

    where: str
    """The outermost function, by its qualified name."""
    line: int
    what: str
    """What became what; with a number behind it if the same is done in the function more than once."""

    @property
    def name(self) -> str:
        """What it is called in the list of equivalent ones: free of line numbers, which move."""
        return f"{self.where}: {self.what}"


def mutants(tree: ast.Module, source: str) -> Iterator[Mutant]:
    """Change the tree in one place, give what was changed, change it back, and go on."""
    excused = {number for number, line in enumerate(source.splitlines(), 1) if "pragma: no cover" in line}
    for where, function in _functions(tree.body, ""):
        seen: Counter[str] = Counter()
        for node, edit in list(_edits(function)):
            line = getattr(node, "lineno", function.lineno)
            if line in excused or function.lineno in excused:
                continue
            before = ast.unparse(node)
            with _done(edit) as after:
                what = f"{_short(before)} -> {_short(after(node))}"
                seen[what] += 1
                yield Mutant(where, line, what if seen[what] == 1 else f"{what} #{seen[what]}")


@contextmanager
def _done(edit: Made) -> Iterator[Callable[[ast.AST], str]]:
    undo, said = edit()
    try:
        yield lambda node: said or ast.unparse(node)
    finally:
        undo()


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


def _functions(body: list[ast.stmt], prefix: str) -> Iterator[tuple[str, Any]]:
    for each in body:
        if isinstance(each, _FUNCTIONS):
            yield prefix + each.name, each
        elif isinstance(each, ast.ClassDef):
            yield from _functions(each.body, f"{prefix}{each.name}.")
        elif isinstance(each, ast.If) and "TYPE_CHECKING" not in ast.unparse(each.test):
            yield from _functions([*each.body, *each.orelse], prefix)


def _edits(function: Any) -> Iterator[Edit]:
    if any("overload" in ast.unparse(each) or "abstractmethod" in ast.unparse(each) for each in function.decorator_list):
        return
    body = function.body
    skip = 1 if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and isinstance(body[0].value.value, str) else 0
    for index in range(skip, len(body)):
        yield from _of(body[index], body, index)


def _of(node: ast.AST, holder: Any, key: Any) -> Iterator[Edit]:
    """Everything that may be done to a node, which stands in its holder under a name or an index, and to what is in it."""
    if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal)):
        if isinstance(node, ast.JoinedStr):
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    yield from _of(part.value, part, "value")
        return
    yield from _here(node, holder, key)
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "args", "decorator_list", "type_params"} and isinstance(
            node, (*_FUNCTIONS, ast.AnnAssign, ast.arg)
        ):
            continue
        if isinstance(value, ast.AST):
            if isinstance(value, (ast.arguments, ast.expr_context, ast.operator, ast.cmpop, ast.boolop, ast.unaryop)):
                continue
            yield from _of(value, node, name)
        elif isinstance(value, list):
            for index, each in enumerate(value):
                is_docstring = name == "body" and isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
                is_type = name == "args" and index == 0 and isinstance(node, ast.Call) and ast.unparse(node.func) == "cast"
                if isinstance(each, ast.AST) and not is_docstring and not is_type:
                    yield from _of(each, value, index)


def _here(node: ast.AST, holder: Any, key: Any) -> Iterator[Edit]:
    if isinstance(node, ast.stmt):
        yield from _statement(node, holder, key)
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            yield node, _put(node.ops, index, _SWAPPED[type(operator)]())
    elif isinstance(node, (ast.BoolOp, ast.BinOp)) and type(node.op) in _SWAPPED:
        yield node, _put(node, "op", _SWAPPED[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield node, _put(holder, key, node.operand, ast.unparse(node.operand))
    elif isinstance(node, ast.Constant):
        yield from _constant(node)
    elif isinstance(node, ast.IfExp):
        yield from _condition(node)


def _condition(node: ast.If | ast.IfExp | ast.While) -> Iterator[Edit]:
    """What is compared or joined is changed there."""
    if not isinstance(node.test, (ast.Compare, ast.BoolOp, ast.UnaryOp, ast.Constant)):
        turned = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
        yield node.test, _put(node, "test", turned, ast.unparse(turned))


def _statement(node: ast.stmt, holder: Any, key: Any) -> Iterator[Edit]:
    if isinstance(node, (ast.If, ast.While)):
        yield from _condition(node)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _SWAPPED:
        yield node, _put(node, "op", _SWAPPED[type(node.op)]())
    elif isinstance(node, ast.Return):
        if node.value is not None and not (isinstance(node.value, ast.Constant) and isinstance(node.value.value, (bool, type(None)))):
            yield node, _put(node, "value", ast.copy_location(ast.Constant(None), node.value))
    elif isinstance(node, (ast.Break, ast.Continue)):
        other = ast.copy_location(ast.Continue() if isinstance(node, ast.Break) else ast.Break(), node)
        yield node, _put(holder, key, other, ast.unparse(other))
    elif isinstance(node, (ast.Raise, ast.Delete)) or (isinstance(node, ast.Expr) and isinstance(node.value, (ast.Call, ast.Await))):
        yield node, _put(holder, key, ast.copy_location(ast.Pass(), node), "pass")
    elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None and _may_be_none(node):
        # A name for a value that is not there is as good as gone.
        yield node, _put(node, "value", ast.copy_location(ast.Constant(None), node.value))


def _may_be_none(node: ast.Assign | ast.AnnAssign) -> bool:
    """Whether None would be another value, and one that can be taken apart as this one is."""
    is_none = isinstance(node.value, ast.Constant) and node.value.value is None
    return not is_none and not isinstance(getattr(node, "targets", [None])[0], ast.Tuple)


def _constant(node: ast.Constant) -> Iterator[Edit]:
    value = node.value
    if isinstance(value, bool):
        yield node, _put(node, "value", not value)
    elif isinstance(value, (int, float)):
        yield node, _put(node, "value", value + 1)
    elif isinstance(value, (str, bytes)) and not any(
        character in value for character in ((" ", "\n") if isinstance(value, str) else b" \n")
    ):
        yield node, _put(node, "value", f"XX{value}" if isinstance(value, str) else b"XX" + value)


def _put(holder: Any, key: Any, new: Any, said: str = "") -> Made:
    def edit() -> tuple[Callable[[], None], str]:
        is_list = isinstance(holder, list)
        old = holder[key] if is_list else getattr(holder, key)

        def put(value: Any) -> None:
            if is_list:
                holder[key] = value
            else:
                setattr(holder, key, value)

        def undo() -> None:
            put(old)

        put(new)
        return undo, said

    return edit
