"""Changing options field by field: what a change means, what it comes to, and how to take it back.

A change of a guard is a mapping by option. A mapping of fields changes these fields of the options object that is there (or makes one when
there is none), None takes the policy away, anything else stands in its place. Nothing in here applies anything: options go in, options come
out, and what is wrong is noted.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.events import Reconfigured
from somaresil.guard.kinds import kinds_of
from somaresil.guard.options import GuardOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from somaresil.listeners import Listeners

__all__ = [
    "FIXED",
    "PRESENT",
    "Change",
    "Setting",
    "changed",
    "changes_between",
    "note_alone",
    "resolved",
    "settings_of",
    "shown",
    "tell",
    "undo",
    "usual_parts",
]

FIXED: Final[Mapping[str, str]] = {
    "slo": "objectives are views on the cells of a guard and set when it is made",
    "budget_aware": "it is bound to its objective when the guard is made",
    "classify": "what counts as failure is said by the code: guard(..., classify=...)",
}
"""Options that are not changed from here, and why."""

_LONGEST_SHOWN: Final = 80
_DEEPEST: Final = 6
_MOST_TOLD: Final = 100
_LONGEST_REASON: Final = 200


class _Present:
    """Stands for "there, with the options that it has, or else with the usual ones"."""

    def __repr__(self) -> str:
        return "{}"


PRESENT: Final = _Present()


class Setting(NamedTuple):
    """One value for one option, or one field of it."""

    path: tuple[str, ...]
    """Option, field, and so on: ``("retry", "attempts")``."""
    value: Any
    where: str
    """How a problem with it is named."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different: a field of a policy (``retry.attempts``), or all of an option (``retry``)."""

    guard: str
    option: str
    before: Any
    after: Any

    def __str__(self) -> str:
        """One line of at most some 300 characters."""
        return f"{self.guard}: {self.option} {shown(self.before)} -> {shown(self.after)}"


def undo(changes: Iterable[Change]) -> dict[str, dict[str, Any]]:
    """What to give to :meth:`Resilience.reconfigure` so that everything is as it was before these changes."""
    found: dict[str, dict[str, Any]] = {}
    for change in changes:
        *path, last = change.option.split(".")
        place = found.setdefault(change.guard, {})
        for part in path:
            place = place.setdefault(part, {})
        place[last] = change.before
    return found


def changes_between(guard: str, before: GuardOptions, after: GuardOptions) -> tuple[Change, ...]:
    """What is different, field by field where both are of one kind."""
    return tuple(Change(guard, option, old, new) for option, old, new in _differences(before, after))


def _differences(before: Any, after: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    for field in fields(before):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new:
            if type(old) is type(new) and is_dataclass(old):
                yield from _differences(old, new, f"{prefix}{field.name}.")
            else:
                yield f"{prefix}{field.name}", old, new


def tell(listeners: Listeners, at: float, changes: Sequence[Change], by: str = "") -> None:
    """Tell who listens what was changed. Call it with no lock held."""
    if changes and listeners.wants(Reconfigured):
        told = [str(change) for change in changes[:_MOST_TOLD]]
        if len(changes) > _MOST_TOLD:
            told.append(f"and {len(changes) - _MOST_TOLD} more")
        guards = tuple(dict.fromkeys(change.guard for change in changes))
        listeners.emit(Reconfigured(at, guards, tuple(told), by[:_LONGEST_REASON]))


# -- from a mapping to options ------------------------------------------------------------------------------------------------------------


def settings_of(given: Any, where: str, check: Checker) -> list[Setting]:
    """The settings that a mapping by option stands for; ``where`` is what stands before their names in problems."""
    if not isinstance(given, Mapping):
        check.problem(where, given, "a mapping of options")
        return []
    return list(_flat(given, where, ()))


def _flat(given: Mapping[Any, Any], where: str, path: tuple[str, ...]) -> Iterator[Setting]:
    for key, value in given.items():
        here, name = (*path, str(key)), f"{where}.{key}"
        if isinstance(value, Mapping) and value and len(here) < _DEEPEST:
            yield from _flat(value, name, here)
        else:
            yield Setting(here, PRESENT if isinstance(value, Mapping) else value, name)


def changed(current: GuardOptions, settings: Iterable[Setting], check: Checker) -> GuardOptions:
    """``current`` with the settings applied, the last of one name winning. What is wrong is noted, and the rest looked at all the same."""
    groups: dict[str, list[Setting]] = {}
    for setting in settings:
        groups.setdefault(setting.path[0], []).append(setting)
    kinds = kinds_of(GuardOptions)
    known = [option for option in kinds if option not in FIXED]
    found: dict[str, Any] = {}
    for option, group in groups.items():
        if option in FIXED:
            check.problem(group[0].where, group[0].value, "nothing here", FIXED[option])
        elif option not in kinds:
            check.problem(_where(group[0], 1), _value(group), f"one of {', '.join(known)}", did_you_mean(option, known) or _quoting(group))
        else:
            found[option] = _settled(option, getattr(current, option), group, kinds[option].nested, check)
    return replace(current, **found)


def _settled(option: str, current: Any, group: Sequence[Setting], classes: tuple[type, ...], check: Checker) -> Any:
    base, tree, said = current, _Tree(), dict[tuple[str, ...], Setting]()
    present = ""
    for setting in group:
        overruled = [] if setting.value is PRESENT else [other for other in said.values() if setting.path[1:] in {(), other.path[1:]}]
        for other in overruled:
            # A mistake is told, whether or not something else has the last word here.
            note_alone((type(base),) if is_dataclass(base) else classes, other, check)
        if len(setting.path) == 1 and setting.value is not PRESENT:
            noted = len(check.problems)
            value = resolved(option, setting, check)
            base = value if len(check.problems) == noted else base
            tree.clear()
            said.clear()
            continue
        # What was taken away by one and is spoken of by the next is there again, as it was.
        base = current if base is None else base
        if len(setting.path) == 1:
            present = setting.where
        elif not classes and not is_dataclass(base):
            check.problem(_where(setting, 1), _value(group), f"one value: {option} has no fields")
        else:
            _put(tree, setting)
            said[setting.path[1:]] = setting
    if tree or (present and base is None and classes):
        wheres = {path: setting.where for path, setting in said.items()}
        return _built(base, classes, tree, (), wheres, present or _where(group[-1], 1), check)
    return base


def note_alone(owners: tuple[type, ...], setting: Setting, check: Checker) -> None:
    """Note what is wrong with a setting of one field whatever the other fields are.

    Options look at what goes together only when each is right by itself, so all the others are spoilt.
    """
    owner, name = owners[0], setting.path[-1]
    for part in setting.path[1:]:
        owner = next((kind for kind in owners if part in kinds_of(kind)), owner)
        if part not in kinds_of(owner):
            check.problem(setting.where, setting.value, f"one of {', '.join(kinds_of(owner))}", did_you_mean(part, kinds_of(owner)))
            return
        owners = kinds_of(owner)[part].nested or (owner,)
    if setting.value is None or setting.value is PRESENT:
        return
    try:
        owner(**dict.fromkeys(kinds_of(owner), _SPOILT) | {name: setting.value})
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            if problem.path.partition(".")[2] == name and (problem.value is setting.value or problem.value == setting.value):
                check.problem(setting.where, problem.value, problem.allowed, problem.hint)
    except Exception:  # noqa: BLE001, S110 - a class that cannot be asked so judges when it is made for a guard
        pass


_SPOILT: Final = object()


def resolved(option: str, setting: Setting, check: Checker) -> Any:
    """What a value or a shorthand stands for."""
    noted = Checker()
    try:
        options = GuardOptions.of("", {option: setting.value}, noted)
    except ConfigurationError as wrong:
        # A shorthand whose number the options themselves have refused.
        for problem in wrong.problems:
            check.problem(setting.where, problem.value, problem.allowed, problem.hint)
        return None
    for problem in noted.problems:
        check.problem(setting.where + problem.path.removeprefix(option), problem.value, problem.allowed, problem.hint)
    return getattr(options, option)


class _Tree(dict[str, Any]):
    """Fields that were named one by one, as against a mapping that is the value of a field."""


def _put(tree: dict[str, Any], setting: Setting) -> None:
    *path, last = setting.path[1:]
    for part in path:
        below = tree.get(part)
        if not isinstance(below, _Tree):
            below = tree[part] = _Tree()
        tree = below
    tree[last] = _Tree() if setting.value is PRESENT else setting.value


def _built(
    base: Any,
    classes: tuple[type, ...],
    tree: Mapping[str, Any],
    path: tuple[str, ...],
    wheres: Mapping[tuple[str, ...], str],
    where: str,
    check: Checker,
) -> Any:
    """An options object with some fields changed, or a new one; the old one when that is not possible."""
    made: Any = type(base) if is_dataclass(base) else _fitting(classes, tree)
    kinds = kinds_of(made)
    values: dict[str, Any] = {}
    for name, value in tree.items():
        here = (*path, name)
        place = wheres.get(here) or f"{where}.{name}"
        if name not in kinds:
            check.problem(place, _plain(value), f"one of {', '.join(kinds)}", did_you_mean(name, kinds))
        elif isinstance(value, _Tree) and (kinds[name].nested or is_dataclass(getattr(base, name, None))):
            values[name] = _built(getattr(base, name, None), kinds[name].nested, value, here, wheres, place, check)
        else:
            values[name] = _plain(value)
    if not is_dataclass(base):
        missing = [field.name for field in fields(made) if field.name in kinds and _required(field) and field.name not in values]
        for name in missing:
            check.problem(f"{where}.{name}", None, "a value", "it is missing, and there is nothing yet that would have it")
        if missing:
            return base
    try:
        return made(**values) if not is_dataclass(base) else replace(base, **values)  # type: ignore[type-var]
    except ConfigurationError as wrong:
        for problem in wrong.problems:
            name = problem.path.partition(".")[2]
            place = wheres.get((*path, *name.split("."))) or f"{where}.{name}"
            check.problem(place, problem.value, problem.allowed, problem.hint)
    return base


def _fitting(classes: tuple[type, ...], tree: Mapping[str, Any]) -> type:
    """The first options class that knows all the names, or else the first."""
    return next((kind for kind in classes if kinds_of(kind).keys() >= tree.keys()), classes[0])


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _plain(value: Any) -> Any:
    return {name: _plain(below) for name, below in value.items()} if isinstance(value, _Tree) else value


def _value(group: Sequence[Setting]) -> Any:
    """What was given for an option, for its problem."""
    tree = _Tree()
    for setting in group:
        if len(setting.path) == 1:
            return setting.value
        _put(tree, setting)
    return _plain(tree)


def _where(setting: Setting, depth: int) -> str:
    """How the first ``depth`` parts of the path of a setting are named."""
    where = setting.where
    for part in reversed(setting.path[depth:]):
        where = where.removesuffix(f".{part}")
    return where


def _quoting(group: Sequence[Setting]) -> str:
    return "a name with dots stands in quotes: [guards.'llm.invoke']" if len(group[0].path) > 1 else ""


# -- for people ---------------------------------------------------------------------------------------------------------------------------


def shown(value: Any, longest: int = _LONGEST_SHOWN) -> str:
    """A value in at most ``longest`` characters: functions and classes by name, options by what is not as usual. Never raises."""
    try:
        text = _text(value)
    except Exception:  # noqa: BLE001 - somebody's object that cannot be shown is shown as that
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else text[: longest - 1] + "…"


def usual_parts(options: Any) -> list[str]:
    """``name=value`` for each field of an options object that is not as usual."""
    if not is_dataclass(options):
        return []
    usual = _usual(type(options))
    return [
        f"{field.name}={shown(getattr(options, field.name))}"
        for field in fields(options)
        if usual is None or getattr(options, field.name) != getattr(usual, field.name, MISSING)
    ]


def _usual(kind: Any) -> Any:
    """What an options class is when nothing is said; its plain defaults when it needs something to be said."""
    try:
        return kind()
    except (TypeError, ConfigurationError):
        return _Defaults(kind)


class _Defaults:
    """The defaults of a class that cannot be made without arguments."""

    def __init__(self, kind: Any) -> None:
        for field in fields(kind):
            setattr(self, field.name, field.default)


def _text(value: Any) -> str:
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__name__}({', '.join(usual_parts(value))})"
    if isinstance(value, type) or inspect.isroutine(value):
        return str(value.__qualname__)
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))}{',' if len(value) == 1 else ''})"
    return repr(value)
