"""Advisories in the format of OSV, and whom they are about: https://ossf.github.io/osv-schema/, section "Evaluation" for ranges."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from somaresil.scan.inventory import normalized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from somaresil.scan.inventory import Package

__all__ = ["ID", "LEVELS", "Advisory", "affects", "level_of", "parse_advisory"]

ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{2,99}")
_ECOSYSTEM: Final = "PyPI"
_LONGEST: Final = 400

LEVELS: Final = ("low", "medium", "high", "critical")
"""Severities, the least first, with the limits of CVSS: 0.1, 4.0, 7.0, 9.0."""
_FROM: Final = (0.0, 4.0, 7.0, 9.0)
_WORDS: Final = {"LOW": "low", "MODERATE": "medium", "MEDIUM": "medium", "HIGH": "high", "CRITICAL": "critical"}


@dataclass(frozen=True, slots=True)
class Advisory:
    """One advisory."""

    id: str
    aliases: tuple[str, ...]
    summary: str
    level: str | None
    """One of :data:`LEVELS`; None: nobody has said, and a gate takes it for the worst."""
    score: float | None
    """The base score of CVSS, where there is one."""
    modified: datetime | None
    withdrawn: bool
    affected: tuple[dict[str, Any], ...]
    """What it is about, as OSV has it."""

    @property
    def names(self) -> frozenset[str]:
        """Its id and its aliases."""
        return frozenset((self.id, *self.aliases))

    def fixed_in(self, name: str) -> tuple[str, ...]:
        """Versions of the package in which it is mended, oldest first where they can be compared."""
        found = {
            str(event["fixed"])
            for entry in self.affected
            if _is_about(entry, name)
            for each in _listed(entry, "ranges")
            if isinstance(each, dict) and each.get("type") in {"ECOSYSTEM", "SEMVER"}
            for event in _listed(each, "events")
            if isinstance(event, dict) and "fixed" in event
        }
        return tuple(sorted(found, key=lambda version: (_key(version) is None, _key(version) or (), version)))


def parse_advisory(data: Any) -> Advisory:
    """Read one record. Raises ``ValueError``, which says what is wrong with it."""
    if not isinstance(data, dict):
        raise ValueError(f"a record is an object, not a {type(data).__name__}")  # noqa: TRY004 - a file is wrong, not a program
    name = data.get("id")
    if not isinstance(name, str) or not ID.fullmatch(name):
        raise ValueError("it has no id")
    affected = data.get("affected", [])
    if not isinstance(affected, list) or not all(isinstance(entry, dict) for entry in affected):
        raise ValueError(f"{name}: affected is no list of objects")
    level, score = level_of(data)
    return Advisory(
        name,
        tuple(alias for alias in _listed(data, "aliases") if isinstance(alias, str) and ID.fullmatch(alias)),
        " ".join(str(data.get("summary") or data.get("details") or "").split())[:_LONGEST],
        level,
        score,
        _time(data.get("modified")),
        bool(data.get("withdrawn")),
        tuple(affected),
    )


def _listed(holder: dict[str, Any], name: str) -> list[Any]:
    """What should be a list; what is none says nothing."""
    found = holder.get(name)
    return found if isinstance(found, list) else []


def _time(text: Any) -> datetime | None:
    if isinstance(text, datetime):
        return text if text.tzinfo is not None else text.replace(tzinfo=UTC)
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def affects(advisory: Advisory, package: Package) -> bool:
    """Whether it is about this package in this version. What cannot be compared is taken for affected."""
    return not advisory.withdrawn and any(_holds(entry, package.version) for entry in advisory.affected if _is_about(entry, package.name))


def _is_about(entry: dict[str, Any], name: str) -> bool:
    about = entry.get("package")
    return isinstance(about, dict) and about.get("ecosystem") == _ECOSYSTEM and normalized(str(about.get("name", ""))) == name


def _holds(entry: dict[str, Any], version: str) -> bool:
    versions, ranges = _listed(entry, "versions"), _listed(entry, "ranges")
    if not versions and not ranges:
        # About the package as a whole.
        return True
    own = _key(version)
    if version in versions or any(own is not None and _key(str(other)) == own for other in versions):
        return True
    of_versions = [each for each in ranges if isinstance(each, dict) and each.get("type") in {"ECOSYSTEM", "SEMVER"}]
    if own is None:
        return bool(of_versions)
    return any(_within(each, own) for each in of_versions)


def _within(each: dict[str, Any], own: tuple[Any, ...]) -> bool:
    vulnerable = False
    for kind, at in sorted(_events(each), key=lambda event: event[1]):
        if kind == "introduced" and own >= at:
            vulnerable = True
        elif (kind == "fixed" and own >= at) or (kind == "last_affected" and own > at):
            vulnerable = False
    return vulnerable


def _events(each: dict[str, Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for event in _listed(each, "events"):
        for kind, at in event.items() if isinstance(event, dict) else ():
            if kind in {"introduced", "fixed", "last_affected"}:
                key = () if kind == "introduced" and at == "0" else _key(str(at))
                # A beginning that cannot be compared is the beginning of all; an end that cannot be compared is none.
                if key is not None:
                    yield kind, key
                elif kind == "introduced":
                    yield kind, ()


@lru_cache(maxsize=50_000)
def _key(version: str) -> tuple[Any, ...] | None:
    """A version as it is compared (PEP 440), as a tuple that is larger than the empty one; None: it is no version."""
    from packaging.version import InvalidVersion, Version

    try:
        return (Version(version),)
    except InvalidVersion:
        return None


def level_of(data: dict[str, Any]) -> tuple[str | None, float | None]:
    """How bad it is: the worst that its CVSS vectors say, else the word of the database, else None."""
    scores = [score for entry in _vectors(data) if (score := _score(entry)) is not None]
    if scores:
        worst = max(scores)
        return next(level for level, least in zip(reversed(LEVELS), reversed(_FROM), strict=True) if worst >= least), worst
    own = data.get("database_specific")
    word = own.get("severity") if isinstance(own, dict) else None
    return (_WORDS.get(word.upper()) if isinstance(word, str) else None), None


def _vectors(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for holder in (data, *_listed(data, "affected")):
        entries = holder.get("severity") if isinstance(holder, dict) else None
        yield from (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _score(entry: dict[str, Any]) -> float | None:
    cvss = import_module("cvss")
    kinds = {"CVSS_V2": cvss.CVSS2, "CVSS_V3": cvss.CVSS3, "CVSS_V4": cvss.CVSS4}
    kind = kinds.get(str(entry.get("type")))
    if kind is None:
        return None
    try:
        score = float(kind(str(entry.get("score"))[:_LONGEST]).base_score)
    except Exception:  # noqa: BLE001 - a vector that cannot be read says nothing
        return None
    return score if math.isfinite(score) else None
