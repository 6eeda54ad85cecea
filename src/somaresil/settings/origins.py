"""Where each option of a guard comes from: the usual value, the code, a file, a variable, or a change while the service ran."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from somaresil.guard.change import PRESENT, usual_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from somaresil.guard.change import Setting
    from somaresil.guard.core import Guard
    from somaresil.guard.options import GuardOptions
    from somaresil.settings.entries import Entry

__all__ = ["KINDS", "Origin", "origins"]

KINDS: Final = ("default", "code", "file", "mapping", "variable", "live")
"""What an origin can be. ``mapping``: data that the code handed in where a file could stand; ``live``: a change while the service ran."""


class Origin(NamedTuple):
    """Where a value comes from."""

    kind: str
    """One of :data:`KINDS`."""
    where: str = ""
    """File, line and path, or the name of the variable; empty for what has no such place."""

    def __str__(self) -> str:
        """In a few words."""
        if self.kind == "file":
            # Neither names of guards nor options have a space in them.
            return self.where.rpartition(": ")[0]
        return {"mapping": f"settings {self.where}", "variable": f"variable {self.where}", "live": "changed while it ran"}.get(
            self.kind, self.kind
        )


_DEFAULT, _CODE, _LIVE = Origin("default"), Origin("code"), Origin("live")
_Said = tuple["Setting", Origin]


def origins(guard: Guard, entries: Sequence[Entry], settled: GuardOptions) -> dict[str, Origin]:
    """By option (``retry``) and field (``retry.attempts``), for every option that the guard has and for those that were taken away.

    ``entries``: what was said outside, lowest precedence first; ``settled``: the options of the code with that laid over them. What the
    code says as it is anyway cannot be told from what it does not say: both are ``default``.
    """
    said = [(setting, _origin(entry, setting)) for entry in entries if entry.is_for(guard.name) for setting in entry.settings]
    found: dict[str, Origin] = {}
    for field in fields(guard.options):
        name = field.name
        ours = [each for each in said if each[0].path[0] == name]
        now, laid, coded = (getattr(options, name) for options in (guard.options, settled, guard.coded))
        if now in (None, ()) and laid in (None, ()) and coded in (None, ()):
            continue
        found[name] = _of_option(now, laid, coded, ours)
        if is_dataclass(now):
            found |= {f"{name}.{part}": origin for part, origin in _of_fields(now, laid, ours)}
    return found


def _origin(entry: Entry, setting: Setting) -> Origin:
    if entry.folded:
        return Origin("variable", setting.where)
    return Origin("file" if ": " in setting.where else "mapping", setting.where)


def _of_option(now: Any, laid: Any, coded: Any, said: list[_Said]) -> Origin:
    """Why it is there, or why it is not."""
    if type(now) is not type(laid) or (not is_dataclass(now) and now != laid):
        return _LIVE
    whole = [origin for setting, origin in said if len(setting.path) == 1 and setting.value is not PRESENT]
    if coded is None and now is not None and said:
        return said[-1][1]
    return whole[-1] if whole and not (now is not None and is_dataclass(now) and _taken_away(said)) else _CODE


def _taken_away(said: list[_Said]) -> bool:
    """Whether the last that speaks of all of it takes it away: what is said of a field after that brings it back as the code has it."""
    return next((setting.value is None for setting, _ in reversed(said) if len(setting.path) == 1 and setting.value is not PRESENT), False)


def _of_fields(now: Any, laid: Any, said: list[_Said]) -> Iterator[tuple[str, Origin]]:
    unusual = {part.partition("=")[0] for part in usual_parts(now)}
    for field in fields(now):
        name = field.name
        if name.startswith("_"):
            continue
        exact, last = False, None
        for setting, origin in said:
            if len(setting.path) > 1 and setting.path[1] == name:
                exact, last = True, origin
            elif len(setting.path) == 1 and setting.value is not PRESENT:
                exact, last = False, origin if setting.value is not None else None
        if type(now) is not type(laid) or getattr(now, name) != getattr(laid, name):
            yield name, _LIVE if name in unusual or type(now) is type(laid) else _DEFAULT
        elif last is not None and (exact or name in unusual):
            yield name, last
        else:
            yield name, _CODE if name in unusual else _DEFAULT
