"""What may pass: how bad an advisory may be, which are waived for whom until when, and which licences are allowed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker, did_you_mean
from somaresil.scan.advisories import ID, LEVELS, Advisory
from somaresil.scan.inventory import normalized
from somaresil.settings.files import document_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from somaresil.scan.inventory import Package
    from somaresil.settings.files import Document

__all__ = ["LONGEST_WAIVER", "Finding", "Policy", "Waiver", "findings_of", "read_policy"]

LONGEST_WAIVER: Final = 180
"""Days that a waiver may be good for: what is waived for longer is accepted, and belongs somewhere else."""
_SHORTEST_REASON: Final = 10
_KEYS: Final = ("id", "package", "reason", "until")
_MOST: Final = 1_000


@dataclass(frozen=True, slots=True)
class Waiver:
    """One advisory that is let pass for a time."""

    id: str
    reason: str
    until: date
    """The last day on which it holds."""
    package: str | None = None
    """Only there; None: wherever it is found."""

    def covers(self, package: Package, advisory: Advisory, today: date) -> bool:
        """Whether it lets this one pass today."""
        return today <= self.until and self.id in advisory.names and self.package in {None, package.name}


@dataclass(frozen=True, slots=True)
class Policy:
    """What is decided by."""

    waivers: tuple[Waiver, ...] = ()
    allowed: tuple[str, ...] | None = None
    """SPDX names of licences; None: any."""
    excepted: Mapping[str, str] = field(default_factory=dict)
    """Packages whose licence is good all the same, with the reason."""

    def licence_problem(self, package: Package) -> str | None:
        """What is wrong with its licence; None: nothing."""
        if self.allowed is None or package.name in self.excepted:
            return None
        if package.licence is None:
            return "it says no licence"
        return None if _allowed(package.licence, self.allowed) else f"{package.licence} is not allowed"


_MOST_BRACKETS: Final = 50
"""In an expression: nobody needs as many, and each is read within the one before."""


def _allowed(expression: str, allowed: tuple[str, ...]) -> bool:
    """Whether an SPDX expression is met by these licences: one of what ``OR`` offers, all of what ``AND`` asks. In doubt it is not."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression)
    known = {name.lower() for name in allowed}
    if tokens.count("(") > _MOST_BRACKETS:
        return False
    position = 0

    def peek() -> str:
        return tokens[position].upper() if position < len(tokens) else ""

    def either() -> bool:
        nonlocal position
        good = both()
        while peek() == "OR":
            position += 1
            good = both() or good
        return good

    def both() -> bool:
        nonlocal position
        good = one()
        while peek() == "AND":
            position += 1
            good = one() and good
        return good

    def one() -> bool:
        nonlocal position
        opened = peek() == "("
        position += 1
        if opened:
            good = either()
            if peek() != ")":
                return False
            position += 1
            return good
        name = tokens[position - 1].lower() if position <= len(tokens) else ""
        if peek() == "WITH":
            position += 2
        return name in known

    good = either()
    return good and position == len(tokens)


@dataclass(frozen=True, slots=True)
class Finding:
    """An advisory that is about something installed."""

    package: Package
    advisory: Advisory
    waiver: Waiver | None
    counts: bool
    """Whether the gate closes for it."""


def findings_of(
    packages: Iterable[Package], advisories: Mapping[str, tuple[Advisory, ...]], policy: Policy, *, fail_on: str, today: date
) -> tuple[Finding, ...]:
    """What was found, the worst first. ``fail_on`` is one of :data:`LEVELS`; what nobody has rated counts as the worst."""
    least = LEVELS.index(fail_on)
    found = []
    for package in packages:
        for advisory in advisories.get(package.name, ()):
            waiver = next((each for each in policy.waivers if each.covers(package, advisory, today)), None)
            severe = advisory.level is None or LEVELS.index(advisory.level) >= least
            found.append(Finding(package, advisory, waiver, counts=waiver is None and severe))
    return tuple(sorted(found, key=_worst_first))


def _worst_first(finding: Finding) -> tuple[int, int, str, str]:
    level = finding.advisory.level
    return -finding.counts, -(len(LEVELS) if level is None else LEVELS.index(level)), finding.package.name, finding.advisory.id


def read_policy(source: str | os.PathLike[str] | Mapping[str, Any], *, today: date) -> Policy:
    """A TOML or YAML file with ``[[waivers]]`` (``id``, ``reason``, ``until``, ``package``) and ``[licences]`` (``allow``, ``exceptions``).

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found.
    """
    check = Checker()
    document = document_of(source, check)
    check.finish()
    if document is None:
        return Policy()
    _no_others(check, document, (), document.data, ("waivers", "licences"))
    entries = document.data.get("waivers", [])
    waivers = []
    if not isinstance(entries, list) or len(entries) > _MOST:
        check.problem(document.where(("waivers",), "waivers"), entries, f"at most {_MOST} tables [[waivers]]")
        entries = []
    for number, entry in enumerate(entries):
        waiver = _waiver(check, document, number, entry, today)
        if waiver is not None:
            waivers.append(waiver)
    allowed, excepted = _licences(check, document)
    check.finish()
    return Policy(tuple(waivers), allowed, excepted)


def _no_others(check: Checker, document: Document, path: tuple[str, ...], table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key, value in table.items():
        if key not in known:
            shown = ".".join((*path, str(key)))
            check.problem(document.where((*path, str(key)), shown), value, " | ".join(known), did_you_mean(str(key), known))


def _waiver(check: Checker, document: Document, number: int, entry: Any, today: date) -> Waiver | None:
    before = len(check.problems)

    def wrong(key: str, value: object, allowed: str, hint: str = "") -> None:
        shown = f"waivers[{number}].{key}" if key else f"waivers[{number}]"
        check.problem(document.where(("waivers",), shown), value, allowed, hint)

    if not isinstance(entry, dict):
        wrong("", entry, "a table")
        return None
    for key in entry:
        if key not in _KEYS:
            wrong(str(key), entry[key], " | ".join(_KEYS), did_you_mean(str(key), _KEYS))
    name, reason, until, package = (entry.get(key) for key in ("id", "reason", "until", "package"))
    if not isinstance(name, str) or not ID.fullmatch(name):
        wrong("id", name, "the id of an advisory, or an alias of it", "CVE-2026-1234")
    if not isinstance(reason, str) or len(reason.strip()) < _SHORTEST_REASON:
        wrong(
            "reason", reason, f"a reason of at least {_SHORTEST_REASON} characters", "whoever reads it in a month must be able to judge it"
        )
    if isinstance(until, datetime):
        until = until.date()
    if not isinstance(until, date):
        wrong("until", until, "a date", "until = 2026-12-31")
    elif until > today + timedelta(days=LONGEST_WAIVER):
        wrong("until", until.isoformat(), f"at most {LONGEST_WAIVER} days from now")
    if package is not None and (not isinstance(package, str) or not package):
        wrong("package", package, "the name of a package")
    if len(check.problems) > before:
        return None
    return Waiver(str(name), str(reason).strip(), until, None if package is None else normalized(package))  # type: ignore[arg-type]


def _licences(check: Checker, document: Document) -> tuple[tuple[str, ...] | None, dict[str, str]]:
    table = document.data.get("licences")
    if table is None:
        return None, {}
    if not isinstance(table, dict):
        check.problem(document.where(("licences",), "licences"), table, "a table [licences]")
        return None, {}
    _no_others(check, document, ("licences",), table, ("allow", "exceptions"))
    allowed, excepted = table.get("allow"), table.get("exceptions", {})
    where = document.where(("licences", "allow"), "licences.allow")
    if not isinstance(allowed, list) or not allowed or not all(isinstance(name, str) and name for name in allowed):
        check.problem(where, allowed, "a list of SPDX names", 'allow = ["MIT", "Apache-2.0"]')
        allowed = []
    where = document.where(("licences", "exceptions"), "licences.exceptions")
    if not isinstance(excepted, dict) or not all(
        isinstance(reason, str) and len(reason.strip()) >= _SHORTEST_REASON for reason in excepted.values()
    ):
        check.problem(where, excepted, f"packages with a reason of at least {_SHORTEST_REASON} characters")
        excepted = {}
    return tuple(allowed), {normalized(str(name)): str(reason) for name, reason in excepted.items()}
