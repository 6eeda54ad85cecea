"""From what another format says to objectives: a draft is a table of our own file, with the foreign place of each of its options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from somaresil.config import Checker
from somaresil.errors import ConfigurationError
from somaresil.settings.files import Document
from somaresil.slofile import SloFile, slos_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from somaresil.interchange.shapes import Place
    from somaresil.slo.objective import SLO
    from somaresil.slo.rules.source import Source

__all__ = ["Draft", "Findings", "file_of", "slos_with"]


@dataclass(slots=True)
class Draft:
    """One objective."""

    name: str
    table: dict[str, Any]
    """What ``[slos.<name>]`` would hold."""
    place: Place
    places: dict[str, Place] = field(default_factory=dict)
    """Where an option stands; others stand at ``place``."""
    native: dict[str, tuple[Any, Place]] = field(default_factory=dict)
    """What the document itself says of options that its annotation says otherwise, and where."""


@dataclass(slots=True)
class Findings:
    """What is wrong, what cannot be said here, and what is to be known."""

    check: Checker = field(default_factory=Checker)
    unfit: Checker = field(default_factory=Checker)
    """Valid, and yet nothing that we can judge."""
    notes: list[str] = field(default_factory=list)

    def note(self, place: Place, text: str) -> None:
        """Something that whoever imports should know."""
        self.notes.append(f"{place.shown}: {text}")

    def misfit(self, place: Place, value: object, allowed: str, hint: str = "") -> None:
        """Something that is valid, and cannot be said here."""
        self.unfit.problem(place.shown, value, allowed, hint)


@dataclass(frozen=True, slots=True)
class _Table(Document):
    """A draft as a document: a problem is told where the foreign one says it."""

    draft: Draft | None = None

    def where(self, path: tuple[str, ...], shown: str) -> str:
        draft = self.draft
        if draft is None:
            return shown
        rest = path[2:]
        for length in range(len(rest), 0, -1):
            place = draft.places.get(".".join(rest[:length]))
            if place is not None:
                return place.shown
        return draft.place.at(*rest).shown


def file_of(drafts: Iterable[Draft], findings: Findings, *, partial: bool) -> SloFile:
    """The objectives of all drafts.

    Raises :class:`~somaresil.errors.ConfigurationError` with everything that was found wrong; with ``partial`` what is valid and cannot
    be said here is left out, with a note.
    """
    drafts = list(drafts)
    _check_names(drafts, findings)
    slos: list[SLO] = []
    sources: dict[str, Source] = {}
    services: dict[str, str] = {}
    for draft in drafts:
        try:
            made = slos_of(_Table("", {"slos": {draft.name: draft.table}}, draft=draft))
        except ConfigurationError as wrong:
            for problem in wrong.problems:
                findings.unfit.problem(problem.path, problem.value, problem.allowed, problem.hint)
            continue
        slos += made.slos
        sources |= made.sources
        services |= made.services
    _check_parts(drafts, slos, findings)
    problems = list(findings.check.problems)
    if partial:
        findings.notes += [f"left out: {problem}" for problem in findings.unfit.problems]
        while any(part not in {slo.name for slo in slos} for slo in slos for part in slo.weights):
            left = {slo.name for slo in slos}
            slos = [slo for slo in slos if all(part in left for part in slo.weights)]
    else:
        problems += findings.unfit.problems
    if not slos and not problems:
        problems_ = Checker()
        problems_.problem("objectives", "none", "one that can be judged")
        problems += problems_.problems
    if problems:
        raise ConfigurationError(problems)
    return slos_with(slos, sources, services)


def slos_with(slos: Iterable[SLO], sources: Mapping[str, Source], services: Mapping[str, str]) -> SloFile:
    """A file with these objectives, and the policy that files have by default."""
    found = tuple(slos)
    names = {slo.name for slo in found}
    empty = slos_of(Document("", {"slos": {"none": {"target_percentage": 50.0, "measurement_window": 300.0}}}))
    return SloFile(
        found,
        empty.policy,
        (),
        {name: source for name, source in sources.items() if name in names},
        {name: service for name, service in services.items() if name in names},
    )


def _check_names(drafts: list[Draft], findings: Findings) -> None:
    """Names are made unique by their services where that is possible; two of one service are a problem."""
    for name, times in Counter(draft.name for draft in drafts).items():
        if times == 1:
            continue
        same = [draft for draft in drafts if draft.name == name]
        if len({draft.table.get("service") for draft in same}) == times and all(draft.table.get("service") for draft in same):
            for draft in same:
                draft.name = f"{draft.table['service']}-{name}"
                findings.note(draft.place, f"is called {draft.name} here: other services have one of that name")
    first: dict[str, Draft] = {}
    for draft in drafts:
        if draft.name in first:
            draft.place.problem(draft.name, "each name once", f"it is also that of {first[draft.name].place.shown}")
        first.setdefault(draft.name, draft)


def _check_parts(drafts: list[Draft], slos: list[SLO], findings: Findings) -> None:
    made = {slo.name for slo in slos}
    for draft in drafts:
        parts = draft.table.get("parts")
        for part in parts if draft.name in made and isinstance(parts, Mapping) else ():
            if part not in made:
                findings.misfit(draft.place, part, "a part that can be judged")
