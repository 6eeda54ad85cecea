"""How something public goes away: it works as before and warns. docs/guides/releases.md says what is promised.

::

    def __getattr__(name: str) -> Any:               # a name of a module that stands in GOING
        return deprecated.name(__name__, name)

    deprecated.warn("Retry(delay=...)", instead="wait", removed_in="0.4.0")    # an option, where it is read

The warning points at the line of the caller, and comes once for each such line, as Python's own filters have it.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["GOING", "Gone", "name", "overdue", "warn"]


class Gone(NamedTuple):
    """A name that goes away."""

    instead: str
    """What to use: ``module:name`` of the same thing, which is what whoever asks for the old name is given."""
    removed_in: str
    """The release in which it is gone: ``0.4.0``."""


GOING: Final[dict[str, Gone]] = {}
"""Everything that is deprecated, by ``module.name`` or by what an option is called. At this moment it is nothing."""


def warn(what: str, *, instead: str, removed_in: str, above: int = 1) -> None:
    """Warn of ``what``; ``above``: how many calls above whoever calls this the line stands that is to be changed."""
    message = f"{what} is deprecated and will be gone in somaresil {removed_in}; use {instead}"
    warnings.warn(message, DeprecationWarning, stacklevel=above + 2)


def name(module: str, wanted: str, going: Mapping[str, Gone] = GOING) -> Any:
    """What a deprecated name of a module stands for. Raises :class:`AttributeError` for a name that is none."""
    found = going.get(f"{module}.{wanted}")
    if found is None:
        raise AttributeError(f"module {module!r} has no attribute {wanted!r}")
    # Above this stands the __getattr__ of the module, and above that the line that asks.
    warn(f"{module}.{wanted}", instead=found.instead.replace(":", "."), removed_in=found.removed_in, above=2)
    place, _, attribute = found.instead.partition(":")
    return getattr(import_module(place), attribute)


def overdue(going: Mapping[str, Gone], version: str) -> list[str]:
    """What is still there although ``version`` is the release, or a later one, in which it ought to be gone."""
    return [name for name, gone in going.items() if _numbers(gone.removed_in) <= _numbers(version)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3])
