"""From plain data to settings of guards: which guard, which field, which value, and what is wrong with it before any guard is there.

::

    [guards."llm.invoke"]                             # a name, or a pattern ("llm.*")
    timeout = 8.0                                     # what it is in code: Timeout(total=8.0), the rest as the code says it
    retry = { attempts = 2 }                          # these fields; the others stay
    bulkhead = false                                  # no bulkhead

    [environments.production.guards."llm.invoke"]     # the same, on top, when resilience.environment is "production"
    timeout = 4.0

Nothing in a file is imported or called: functions and exception types are said by the code alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker, did_you_mean
from somaresil.errors import ConfigurationError
from somaresil.guard.change import FIXED, PRESENT, Setting, note_alone, resolved, settings_of
from somaresil.guard.kinds import Kind, kinds_of
from somaresil.guard.options import GuardOptions
from somaresil.model.selector import matches

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.settings.files import Document

__all__ = ["OBJECTIVES", "Entry", "duration_of", "entries_of", "folded", "is_pattern", "judged"]

_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,15}")
_DECIMAL: Final = re.compile(r"[+-]?(?:[0-9]{1,15}\.[0-9]{0,15}|\.[0-9]{1,15}|[0-9]{1,15}(?=[eE]))(?:[eE][+-]?[0-9]{1,2})?")
_DURATION: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ms|s|m|h|d)")
OBJECTIVES: Final = ("slos", "gate", "actions")
"""Tables of the same file that :func:`somaresil.slofile.read_slos` reads."""
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_FROM_CODE: Final = "functions, classes and objects are never loaded from configuration: say it where the guard is made"


@dataclass(frozen=True, slots=True)
class Entry:
    """What one place says about one guard, or about those that a pattern matches."""

    guard: str
    settings: tuple[Setting, ...]
    where: str
    folded: bool = False
    """Whether ``guard`` is a name as variables write it: see :func:`folded`."""

    def is_for(self, name: str) -> bool:
        """Whether it speaks of the guard called ``name``."""
        if self.folded:
            return folded(name) == self.guard
        return name == self.guard or (is_pattern(self.guard) and matches(self.guard, name))


def is_pattern(name: str) -> bool:
    """Whether it stands for other names than itself."""
    return any(mark in name for mark in "*?[")


def folded(name: str) -> str:
    """A name of a guard as it stands in the name of a variable: capitals, and ``_`` for each run of anything but letters and digits."""
    return re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")


def duration_of(word: str) -> timedelta | None:
    """``8s``, ``1.5h``, ``30d`` as a duration; None: it is none."""
    found = _DURATION.fullmatch(word)
    try:
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2]]) if found else None
    except OverflowError:
        return None


def entries_of(document: Document, environment: str | None, check: Checker) -> tuple[Entry, ...]:
    """What a file says, lowest precedence first: patterns in their order, then names, and on top the overlay of the environment.

    The overlays of other environments are checked as well: who finds a mistake in them on the first day of an outage finds it late.
    """
    _known(document, document.data, ("guards", "environments", *OBJECTIVES), (), check)
    found = [*_section(document, document.data, (), check)]
    overlays = document.data.get("environments", {})
    if not isinstance(overlays, Mapping):
        check.problem(document.where(("environments",), "environments"), overlays, "a mapping by environment")
        return tuple(found)
    for name, overlay in overlays.items():
        path = ("environments", str(name))
        if not isinstance(overlay, Mapping):
            check.problem(document.where(path, _shown(path)), overlay, "a mapping with guards")
            continue
        _known(document, overlay, ("guards", "slos"), path, check)
        own = _section(document, overlay, path, check)
        if name == environment:
            found += own
    return tuple(found)


def _known(document: Document, data: Mapping[Any, Any], known: tuple[str, ...], path: tuple[str, ...], check: Checker) -> None:
    for name in data:
        if name not in known:
            here = (*path, str(name))
            check.problem(document.where(here, _shown(here)), data[name], f"one of {', '.join(known)}", did_you_mean(name, known))


def _section(document: Document, data: Mapping[str, Any], path: tuple[str, ...], check: Checker) -> list[Entry]:
    path = (*path, "guards")
    guards = data.get("guards", {})
    if not isinstance(guards, Mapping):
        check.problem(document.where(path, _shown(path)), guards, "a mapping by name of guard")
        return []
    found = []
    for name, given in guards.items():
        here = (*path, str(name))
        shown = _shown(here)
        check.pattern(document.where(here, shown), name)
        if not isinstance(given, Mapping):
            check.problem(document.where(here, shown), given, "a mapping of options")
            continue
        settings = [
            setting._replace(where=document.where((*here, *setting.path), setting.where)) for setting in settings_of(given, shown, check)
        ]
        found.append(Entry(str(name), tuple(judged(settings, check)), document.where(here, shown)))
    # What is said of one name is more exact than what is said of many.
    return sorted(found, key=lambda entry: not is_pattern(entry.guard))


def _shown(path: tuple[str, ...]) -> str:
    """``guards.'llm.invoke'``: names of guards in quotes, since they have dots."""
    return ".".join(repr(part) if number and path[number - 1] == "guards" else part for number, part in enumerate(path))


# -- one setting by itself ----------------------------------------------------------------------------------------------------------------


def judged(settings: list[Setting], check: Checker, *, text: bool = False) -> Iterator[Setting]:
    """The settings that are right by themselves, with their values as the options take them; the rest is noted.

    ``text`` says that numbers and truth values come as text, as in variables. What goes together is looked at with the options of a guard.
    """
    kinds = kinds_of(GuardOptions)
    for setting in settings:
        option = setting.path[0]
        kind = kinds.get(option)
        if kind is None or option in FIXED:
            known = [name for name in kinds if name not in FIXED]
            hint = FIXED.get(option) or did_you_mean(option, known) or _quoting(setting)
            check.problem(setting.where, setting.value, f"one of {', '.join(known)}", hint)
            continue
        found = _of_option(setting, kind, check, text) if len(setting.path) == 1 else _of_field(setting, kind, check, text)
        if found is not None:
            yield found


def _of_option(setting: Setting, kind: Kind, check: Checker, text: bool) -> Setting | None:  # noqa: FBT001 - passed on
    option = setting.path[0]
    if not kind.nested:
        value = _read(setting.value, kind, text=text)
        if _is_code(value, kind):
            check.problem(setting.where, setting.value, "a plain value", _FROM_CODE)
            return None
        return setting._replace(value=value) if _stands_for(setting, value, check) is not _WRONG else None
    made = kind.nested[0]
    first, first_kind = next(iter(kinds_of(made).items()))
    anything = Kind(number=True, truth=True, duration=True, optional=True)
    value = setting.value if setting.value is PRESENT else _read(setting.value, anything, text=text)
    if value is None or value is False:
        # There is no null in TOML, and false says the same.
        return setting._replace(value=None)
    if value is PRESENT:
        return setting
    if _is_code(value, first_kind):
        check.problem(setting.where, setting.value, "false, for none", _FROM_CODE)
        return None
    stands_for = _stands_for(setting, value, check)
    if stands_for is _WRONG:
        return None
    if value is True:
        return setting._replace(value=PRESENT)
    # What only the code can say must not get lost with a number: `retry = 2` is `retry.attempts = 2`.
    by_field = _made(made, {first: value})
    if by_field is not None and by_field == stands_for:
        return Setting((option, first), value, setting.where)
    return setting._replace(value=stands_for)


_WRONG: Final = object()


def _stands_for(setting: Setting, value: Any, check: Checker) -> Any:
    """What a value of a whole option stands for; a mark, and problems with what was given, when it is wrong."""
    noted = Checker()
    found = resolved(setting.path[0], setting._replace(value=value), noted)
    for problem in noted.problems:
        check.problem(problem.path, setting.value, problem.allowed, problem.hint)
    return _WRONG if noted.problems else found


def _of_field(setting: Setting, kind: Kind, check: Checker, text: bool) -> Setting | None:  # noqa: FBT001 - passed on
    owner: type = GuardOptions
    for depth, part in enumerate(setting.path[1:], start=1):
        owners = [owner for owner in kind.nested if part in kinds_of(owner)]
        if not owners:
            known = [name for owner in kind.nested for name in kinds_of(owner)]
            if known:
                check.problem(setting.where, setting.value, f"one of {', '.join(known)}", did_you_mean(part, known))
            else:
                hint = _FROM_CODE if kind.code else ""
                check.problem(setting.where, setting.value, f"one value for {'.'.join(setting.path[:depth])}: it has no fields", hint)
            return None
        owner, kind = owners[0], kinds_of(owners[0])[part]
    if setting.value is PRESENT:
        return setting
    value = _read(setting.value, kind, text=text)
    if _is_code(value, kind):
        check.problem(setting.where, setting.value, "a number" if kind.number else "nothing from here", _FROM_CODE)
        return None
    noted = Checker()
    note_alone((owner,), setting._replace(path=setting.path[-2:], value=value), noted)
    for problem in noted.problems:
        # What was given, and no hint about text: here it is converted.
        text_given = isinstance(setting.value, str)
        check.problem(problem.path, setting.value, problem.allowed, "" if text_given else problem.hint)
    return None if noted.problems else setting._replace(value=value)


def _read(value: Any, kind: Kind, *, text: bool) -> Any:
    """A text as the value that it stands for, if it stands for one that the option can have; anything else as it is."""
    if not isinstance(value, str):
        return value
    word = value.strip()
    if kind.optional and not kind.text and word.casefold() == "none":
        return None
    if kind.duration and (duration := duration_of(word)) is not None:
        return duration
    if text and kind.truth and word.casefold() in {"true", "false"}:
        return word.casefold() == "true"
    if text and not kind.text and _NUMBER.fullmatch(word):
        return int(word)
    if text and not kind.text and _DECIMAL.fullmatch(word):
        return float(word)
    return value


def _is_code(value: Any, kind: Kind) -> bool:
    """Whether an option that can hold code is given a text or a list: it would have to be a name of something to load."""
    if not kind.code or value is None or isinstance(value, bool | int | float | timedelta):
        return False
    return not (kind.text and isinstance(value, str))


def _made(kind: Any, given: Mapping[str, Any]) -> Any:
    try:
        return kind(**given)
    except (TypeError, ConfigurationError):
        return None


def _quoting(setting: Setting) -> str:
    return "a name with dots stands in quotes" if len(setting.path) > 1 else ""
