"""Frozen data to JSON and back, by the annotations of its fields: what is written by :func:`plain` is what :func:`restored` reads.

Reports are kept for years and figures come from other processes, so reading is strict: a field that is unknown, missing or of another type
is a problem with its path. A field with a default may be missing, which is how a later version adds one.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from somaresil.config import Checker, did_you_mean

if TYPE_CHECKING:
    from dataclasses import Field

__all__ = ["plain", "restored"]

_T = TypeVar("_T")
_WRONG = object()


def plain(value: Any) -> Any:
    """Dictionaries, lists, text and numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return {option.name: plain(getattr(value, option.name)) for option in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(below) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [plain(below) for below in value]
    if isinstance(value, Enum):
        return value.value
    return value


def restored(kind: type[_T], data: object, check: Checker) -> _T | None:
    """An instance of the dataclass ``kind``; None, and problems in ``check``, when ``data`` is none."""
    found = _dataclass(kind, data, check)
    return None if found is _WRONG else cast("_T", found)


@lru_cache(maxsize=64)
def _shape(kind: Any) -> tuple[tuple[Field[Any], Any], ...]:
    hints = get_type_hints(kind)
    return tuple((option, hints[option.name]) for option in fields(kind) if option.init)


def _dataclass(kind: Any, data: object, check: Checker) -> Any:
    if not isinstance(data, Mapping):
        check.problem("", _short(data), "an object")
        return _WRONG
    known = {option.name: (option, hint) for option, hint in _shape(kind)}
    wrong = False
    for name in data:
        if name not in known:
            check.problem(str(name), _short(data[name]), f"one of {', '.join(known)}", did_you_mean(name, known))
            wrong = True
    given: dict[str, Any] = {}
    for name, (option, hint) in known.items():
        if name not in data:
            if option.default is MISSING and option.default_factory is MISSING:
                check.problem(name, None, "a value", "it is missing")
                wrong = True
            continue
        given[name] = _value(hint, data[name], check.child(name))
        wrong = wrong or given[name] is _WRONG
    return _WRONG if wrong else kind(**given)


def _value(hint: Any, data: Any, check: Checker) -> Any:
    origin, within = get_origin(hint), get_args(hint)
    if hint is Any:
        return data
    if origin in {Union, types.UnionType}:
        if data is None and type(None) in within:
            return None
        return _value(next(each for each in within if each is not type(None)), data, check)
    if origin is tuple:
        if not isinstance(data, list | tuple):
            return _wrong(check, data, "a list")
        read = [_value(within[0], each, check.child(f"[{number}]")) for number, each in enumerate(data)]
        return _WRONG if any(each is _WRONG for each in read) else tuple(read)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, Mapping):
            return _wrong(check, data, "an object")
        pairs = {str(key): _value(within[1], each, check.child(str(key))) for key, each in data.items()}
        return _WRONG if any(each is _WRONG for each in pairs.values()) else pairs
    if is_dataclass(hint):
        return _dataclass(hint, data, check)
    if isinstance(hint, type) and issubclass(hint, Enum):
        words = [member.value for member in hint]
        return hint(data) if data in words else _wrong(check, data, " | ".join(words), did_you_mean(data, words))
    return _scalar(hint, data, check)


def _scalar(hint: Any, data: Any, check: Checker) -> Any:
    if hint is float and isinstance(data, int | float) and not isinstance(data, bool):
        return float(data)
    if isinstance(data, hint) and (hint is bool or not isinstance(data, bool)):
        return data
    return _wrong(check, data, {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}[hint.__name__])


def _wrong(check: Checker, data: object, allowed: str, hint: str = "") -> Any:
    check.problem("", _short(data), allowed, hint)
    return _WRONG


def _short(data: object) -> object:
    return data if isinstance(data, bool | int | float | type(None)) else repr(data)[:80]
