"""Single values by environment variables, on top of every file: ``SOMARESIL_GUARD__LLM_INVOKE__TIMEOUT=8``.

The parts are separated by two underscores: the name of the guard, the option, the field. ``…__RETRY__ATTEMPTS=2`` changes one field,
``…__BULKHEAD=none`` takes the policy away. A name is written in capitals, with one underscore for each run of anything but letters and
digits: ``llm.invoke``, ``llm-invoke`` and ``LLM_Invoke`` all read ``LLM_INVOKE``. When a service has two guards that read alike, such a
variable is a problem and not a guess; a file can tell them apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from somaresil.config import did_you_mean
from somaresil.guard.change import FIXED, Setting
from somaresil.guard.kinds import kinds_of
from somaresil.guard.options import GuardOptions
from somaresil.settings.entries import Entry, folded, judged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from somaresil.config import Checker

__all__ = ["CONFIG", "OBJECTIVE", "PREFIX", "entries_of_variables"]

PREFIX: Final = "SOMARESIL_GUARD__"
OBJECTIVE: Final = "SOMARESIL_SLO__"
"""Single values of objectives: see :mod:`somaresil.slofile`."""
HIDDEN: Final = "(not shown)"
"""In place of what a variable says that is none of ours."""
CONFIG: Final = "SOMARESIL_CONFIG"
"""The path of a file that lies on top of the one that the code reads."""


def entries_of_variables(variables: Mapping[str, str], check: Checker) -> tuple[Entry, ...]:
    """What the environment says of guards. A variable that is empty is not set."""
    found: list[Entry] = []
    for name in sorted(variables):
        if not name.startswith("SOMARESIL_") or name.startswith(OBJECTIVE) or not variables[name]:
            continue
        if not name.startswith(PREFIX):
            _note_near(name, check)
            continue
        guard, *path = name.removeprefix(PREFIX).split("__")
        if not folded(guard) or not path or not all(path):
            check.problem(name, HIDDEN, f"{PREFIX}<GUARD>__<OPTION> or {PREFIX}<GUARD>__<OPTION>__<FIELD>")
            continue
        setting = Setting(tuple(part.lower() for part in path), variables[name], name)
        settings = tuple(judged([setting], check, text=True))
        if settings:
            found.append(Entry(folded(guard), settings, name, folded=True))
    # A whole option first: what is said of its fields is more exact.
    return tuple(sorted(found, key=lambda entry: len(entry.settings[0].path)))


def _note_near(name: str, check: Checker) -> None:
    """Note a variable that looks like one of ours and is none: it would be without effect in silence.

    What it says is not told: whatever has the wrong name may be a token.
    """
    if "__" in name or name.startswith("SOMARESIL_GUARD"):
        options = ", ".join(option.upper() for option in kinds_of(GuardOptions) if option not in FIXED)
        check.problem(
            name, HIDDEN, f"{PREFIX}<GUARD>__<OPTION> (options: {options})", did_you_mean(name.partition("__")[0] + "__", [PREFIX])
        )
    elif name.startswith("SOMARESIL_CON") and name != CONFIG:
        check.problem(name, HIDDEN, CONFIG, did_you_mean(name, [CONFIG]))
