"""The lists: what each rule allows, and which rules refuse."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from somaresil.chaos.network.targets import NetTarget
from somaresil.config import Checker, did_you_mean
from somaresil.runtime_guard.allowed import Folders, Native, Peers, Programs
from somaresil.settings.files import document_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Rule", "RuntimeRules", "read_rules"]

_MOST: Final = 1_000
_LONGEST: Final = 4_096
_TABLE: Final = "runtime"


class Rule(Enum):
    """What is looked at."""

    PROCESSES = "processes"
    """Programs that are started."""
    HOSTS = "hosts"
    """Names that are looked up, and addresses that are connected or sent to."""
    WRITES = "writes"
    """Files that are opened for writing, made, moved, removed or changed."""
    NATIVE = "native"
    """Libraries that are loaded into the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeRules:
    """Allow-lists, one a rule. None: that is not looked at. Empty: nothing is allowed.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """

    processes: Sequence[str] | None = None
    """Programs by path, or by a name that is looked up in ``PATH`` when the rules are made; ``python`` is this interpreter. A shell that
    starts them is a program too."""
    hosts: Sequence[str] | None = None
    """``HOST``, ``HOST:PORT`` or ``HOST:LOW-HIGH``; HOST is a name, a pattern over names (``*.internal``), an address, a network
    (``10.0.0.0/8``) or ``*``. Loopback and sockets in the file system are always allowed."""
    writes: Sequence[str] | None = None
    """Folders, absolute; what lies below them is meant too. Links are followed before it is judged."""
    native: Sequence[str] | None = None
    """Folders of libraries, names that the linker looks up (``libssl.so.*``), and ``python`` for what belongs to this interpreter and to
    what is installed for it."""
    block: Sequence[str] = ()
    """Names of rules that refuse; the others tell and count."""

    def __post_init__(self) -> None:
        check = Checker("RuntimeRules")
        for rule in Rule:
            listed = getattr(self, rule.value)
            if listed is not None:
                object.__setattr__(self, rule.value, _texts(check, rule.value, listed))
        self._check_entries(check)
        object.__setattr__(self, "block", _texts(check, "block", self.block))
        known = [rule.value for rule in Rule]
        for name in self.block:
            if name not in known:
                check.problem("block", name, f"names of rules ({', '.join(known)})", did_you_mean(name, known))
            elif getattr(self, name) is None:
                check.problem(
                    "block", name, "rules that have a list", f"without {name}=... nothing is looked at, and so nothing is refused"
                )
        if all(getattr(self, name) is None for name in known):
            check.problem("rules", None, f"a list for at least one of {', '.join(known)}", "() allows nothing, and tells of everything")
        check.finish()

    def _check_entries(self, check: Checker) -> None:
        for number, host in enumerate(self.hosts or ()):
            try:
                NetTarget.parse(host)
            except ValueError as wrong:
                check.problem(f"hosts[{number}]", host, "HOST, HOST:PORT or HOST:LOW-HIGH", str(wrong))
        for number, folder in enumerate(self.writes or ()):
            if not folder.startswith(os.sep):
                check.problem(f"writes[{number}]", folder, "an absolute path", "a relative one would move with the working directory")
        for number, library in enumerate(self.native or ()):
            if os.sep in library and not library.startswith(os.sep):
                check.problem(f"native[{number}]", library, "an absolute path, or a name without a slash")

    def targets(self) -> tuple[NetTarget, ...]:
        """The hosts as they are compared."""
        return tuple(NetTarget.parse(host) for host in self.hosts or ())

    def programs(self) -> Programs:
        """The programs, looked up now."""
        return Programs(self.processes or ())

    def peers(self) -> Peers:
        """The hosts."""
        return Peers(self.targets())

    def folders(self) -> Folders:
        """The folders, their links followed now."""
        return Folders(self.writes or ())

    def libraries(self) -> Native:
        """The libraries."""
        return Native(self.native or ())


def _texts(check: Checker, path: str, listed: Any) -> tuple[str, ...]:
    if isinstance(listed, str | bytes) or not hasattr(listed, "__iter__"):
        check.problem(path, listed, "a list of texts", "one text alone stands in brackets too")
        return ()
    found: list[str] = []
    for number, entry in enumerate(listed):
        if number >= _MOST:
            check.problem(path, f"more than {_MOST} entries", f"at most {_MOST}")
            break
        text = os.fspath(entry) if isinstance(entry, os.PathLike) else entry
        if not isinstance(text, str) or not 0 < len(text) <= _LONGEST or "\0" in text:
            check.problem(f"{path}[{number}]", entry, f"a text of 1 to {_LONGEST} characters")
        else:
            found.append(text)
    return tuple(found)


def read_rules(source: str | os.PathLike[str] | Mapping[str, Any]) -> RuntimeRules:
    """The table ``[runtime]`` of a TOML or YAML file, or of a mapping like one.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found; nothing in a file is executed or looked up by name.
    """
    check = Checker()
    document = document_of(source, check)
    check.finish()
    table = None if document is None else document.data.get(_TABLE)
    name = document.name if document is not None else ""
    if not isinstance(table, dict):
        check.problem(f"{name}: {_TABLE}" if name else _TABLE, table, f"a table [{_TABLE}] with the lists")
        check.finish()
    known = [*(rule.value for rule in Rule), "block"]
    options: dict[str, Any] = {}
    for key, value in (table or {}).items():
        if key in known:
            options[key] = value
        else:
            shown = f"{_TABLE}.{key}"
            place = shown if document is None else document.where((_TABLE, str(key)), shown)
            check.problem(place, value, " | ".join(known), did_you_mean(str(key), known))
    check.finish()
    return RuntimeRules(**options)
