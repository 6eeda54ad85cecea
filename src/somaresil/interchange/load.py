"""Reading objectives in the formats of others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from somaresil.config import Checker
from somaresil.interchange.drafts import Draft, Findings, file_of
from somaresil.interchange.openslo import OPTIONS, openslo_drafts
from somaresil.interchange.openslo_write import natives_of
from somaresil.interchange.pyrra import pyrra_drafts
from somaresil.interchange.sloth import sloth_drafts
from somaresil.settings.files import documents_from_text, documents_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from datetime import timedelta

    from somaresil.settings.files import Document
    from somaresil.slofile import SloFile

__all__ = ["FORMATS", "Imported", "import_slos", "import_text"]

FORMATS: Final = ("openslo", "sloth", "pyrra")
_MONTH: Final = 30 * 86_400.0
_MOST: Final = 2_000
"""Documents in a file, whose size is bounded as well."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What was read."""

    file: SloFile
    """As :func:`~somaresil.slofile.read_slos` gives it: objectives, and where Prometheus has their events."""
    notes: tuple[str, ...]
    """What is said otherwise here, or not at all, in words with places."""


def import_slos(path: str | os.PathLike[str], form: str, *, period: float | timedelta = _MONTH, partial: bool = False) -> Imported:
    """Read a file of YAML, of one document or several, in one of :data:`FORMATS`.

    ``period`` is that of objectives of Sloth, whose specs do not say it: 30 days. With ``partial`` objectives that are valid and cannot be
    said here are left out, with a note for each.

    Raises :class:`~somaresil.errors.ConfigurationError` with every problem found, each with its file, line and path.
    """
    check = Checker()
    seconds = _options(check, form, period)
    documents = documents_of(path, check, most=_MOST)
    check.finish()
    return _imported(documents, form, seconds, partial=partial, name=str(path))


def import_text(text: str, form: str, *, name: str = "text", period: float | timedelta = _MONTH, partial: bool = False) -> Imported:
    """Read YAML as :func:`import_slos` does; ``name`` stands in problems for the file."""
    check = Checker()
    seconds = _options(check, form, period)
    documents = documents_from_text(text, name, check, most=_MOST)
    check.finish()
    return _imported(documents, form, seconds, partial=partial, name=name)


def _options(check: Checker, form: str, period: float | timedelta) -> float:
    check.one_of("form", form, FORMATS)
    return check.seconds("period", period)


def _imported(documents: Sequence[Document], form: str, period: float, *, partial: bool, name: str) -> Imported:
    findings = Findings()
    if not documents:
        findings.check.problem(name, "no document", "one at least")
    if form == "openslo":
        drafts = list(openslo_drafts(documents, findings))
    elif form == "sloth":
        drafts = list(sloth_drafts(documents, findings, period))
    else:
        drafts = list(pyrra_drafts(documents, findings))
    file = file_of(drafts, findings, partial=partial)
    _check_agreement(drafts, file)
    return Imported(file, tuple(findings.notes))


def _check_agreement(drafts: Sequence[Draft], file: SloFile) -> None:
    """An annotation of ours says more than its document, and never something else: one of both was changed alone."""
    told = [draft for draft in drafts if draft.native]
    if not told:
        return
    check = Checker()
    again = natives_of(file)
    for draft in told:
        found = again.get(draft.name)
        for option, (value, place) in draft.native.items():
            # Whose it is, is said by whoever writes the documents where the file does not.
            if found is None or option == "service" or _alike(option, found.table.get(option), value):
                continue
            stands = f"what {OPTIONS} stands for ({found.table.get(option)})"
            check.problem(place.shown, value, stands, "change both, or remove the annotation")
    check.finish()


def _alike(option: str, one: Any, other: Any) -> bool:
    if option == "parts" and isinstance(one, dict) and isinstance(other, dict):
        # In documents they have other names.
        return list(one.values()) == list(other.values())
    return bool(one == other)
